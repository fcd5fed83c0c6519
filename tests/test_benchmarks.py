"""Benchmarks that stand in for parts of the program, and so break when these change."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

GROWTH = Path(__file__).parents[1] / "benchmarks/growth.py"


def test_growth_extracts_all_then_reuses_all(tmp_path):
    found = []
    for _ in range(2):
        command = [sys.executable, str(GROWTH), "150", str(tmp_path / "work")]
        found.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert [(f["done"], f["reused"], f["held"], f["rows"]) for f in found] == [(150, 0, 150, 150), (0, 150, 150, 150)]
    assert found[0]["digest"] == found[1]["digest"]
    assert found[0]["bytes"] <= found[1]["bytes"] < 1.1 * found[0]["bytes"]
