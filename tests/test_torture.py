"""Small versions of what ``make torture`` does at full size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TORTURE = Path(__file__).resolve().parents[1] / "benchmarks" / "torture.py"


@pytest.fixture
def torture(tmp_path, video_folder, weights):
    """``torture(SECTION, *OPTIONS)`` runs one section on the tests' clips and returns its figures."""

    def run(section: str, *options: object) -> dict:
        settings = ["--videos", video_folder, "--work", tmp_path / "work", "--out", tmp_path / "torture.json"]
        settings += ["--backbone", weights("test_resnet"), "--preset", "native", "--clips", 8]
        command = [sys.executable, TORTURE, "--only", section, *settings, *options]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "torture.json").read_text())[section]

    return run


def test_kills_lose_nothing_that_was_reported_and_change_no_bit(torture):
    found = torture("kill", "--kills", 2, "--clips", 6)
    assert found["kills"] == 2
    assert found["caches_finished"] >= 1
    wrong = ("caches_that_did_not_open", "promised_rows_missing", "damaged_parts", "caches_that_differ")
    assert {name: found[name] for name in wrong} == dict.fromkeys(wrong, 0)
    assert all(0 <= lost <= found["clips_a_part"] + 1 for lost in found["clips_lost_by_kill"])


def test_broken_files_end_as_done_or_failed_with_a_reason(torture):
    found = torture("fuzz", "--mutations", 48, "--videos", TORTURE.parents[1] / "data" / "samples")
    assert found["done"] + found["failed_with_reason"] == 48
    assert min(found["done"], found["failed_with_reason"]) > 5
    assert found["other_exceptions"] == 0
    assert all(len(reason) > 8 for reason in found["reasons"])


def test_several_extractions_and_a_reader_share_a_cache(torture):
    found = torture("many", "--rounds", 1, "--clips", 3)
    assert found["clips"] >= 9
    assert (found["damaged"], found["reads_failed"]) == (0, 0)
    assert found["done_twice"] <= found["clips_a_part"]
    assert sum(found["rounds"][0]["done_by_each"]) == found["clips"] + found["done_twice"]
