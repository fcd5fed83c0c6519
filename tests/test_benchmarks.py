"""Benchmarks that stand in for parts of the program, and so break when these change."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

GROWTH = Path(__file__).parents[1] / "benchmarks/growth.py"
GPU = GROWTH.with_name("gpu.py")


def test_growth_extracts_all_then_reuses_all(tmp_path):
    found = []
    for _ in range(2):
        command = [sys.executable, str(GROWTH), "150", str(tmp_path / "work")]
        found.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert [(f["done"], f["reused"], f["held"], f["rows"]) for f in found] == [(150, 0, 150, 150), (0, 150, 150, 150)]
    assert found[0]["digest"] == found[1]["digest"]
    assert found[0]["bytes"] <= found[1]["bytes"] < 1.1 * found[0]["bytes"]


def test_the_benchmark_of_a_gpu_goes_all_its_ways_without_one(tmp_path, video_folder, weights):
    name, _, file = weights("test_resnet").partition("=")
    (tmp_path / "weights").mkdir()
    shutil.copy(file, tmp_path / f"weights/{name}.safetensors")
    videos = tmp_path / "videos"
    shutil.copytree(video_folder, videos)
    rows = [f"{path.relative_to(videos)},{path.parent.name}" for path in sorted(videos.glob("*/*.avi"))]
    (videos / "clips.csv").write_text("\n".join(["path,label", *rows]))
    command = [sys.executable, str(GPU), str(videos), str(tmp_path / "weights"), "--work", str(tmp_path / "work")]
    command += ["--out", str(tmp_path / "gpu.json"), "--device", "cpu", "--clips", "4", "--repeats", "1"]
    command += ["--backbone", name, "--processes", "1", "--eager"]
    subprocess.run(command, capture_output=True, check=True)
    found = json.loads((tmp_path / "gpu.json").read_text())["backbones"][name]
    assert [(run["way"], run["done"]) for run in found["eager"]["runs"]] == [("videos", 4), ("frames", 4)]
    assert found["eager"]["cosine_to_processor_fp32_min"] > 0.99
    assert found["processes"].keys() == {"1"}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.1, [[0, 1, 2, 3, 4, 5, 6]] * 3),
        (9.0, [[0, 1, 2, 3], [4, 5, 6, 0], [1, 2, 3, 4]]),  # four take 40 seconds
        (60.0, [[0, 1, 2], [3, 4, 5], [6, 0, 1]]),  # a third of them at least
    ],
)
def test_repeats_take_all_clips_and_no_more_than_time_allows(monkeypatch, seconds, expected):
    monkeypatch.syspath_prepend(GROWTH.parent)
    parts = importlib.import_module("parts")
    monkeypatch.delitem(sys.modules, "parts")
    assert parts.divide(list(range(7)), 3, seconds) == expected
