"""Benchmarks that stand in for parts of the program, and so break when these change."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from fitrec_cache import extract

GROWTH = Path(__file__).parents[1] / "benchmarks/growth.py"
GPU = GROWTH.with_name("gpu.py")
OUR_HEAD = GROWTH.with_name("our_head.py")


def test_growth_extracts_all_then_reuses_all(tmp_path):
    found = []
    for _ in range(2):
        command = [sys.executable, str(GROWTH), "150", str(tmp_path / "work")]
        found.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert [(f["done"], f["reused"], f["held"], f["rows"]) for f in found] == [(150, 0, 150, 150), (0, 150, 150, 150)]
    assert found[0]["digest"] == found[1]["digest"]
    assert found[0]["bytes"] <= found[1]["bytes"] < 1.1 * found[0]["bytes"]


@pytest.fixture
def asked(tmp_path, video_folder, weights):
    """A folder with what a benchmark is given: ``videos`` with their list, and the ``weights`` of ``test_resnet``."""
    name, _, file = weights("test_resnet").partition("=")
    (tmp_path / "weights").mkdir()
    shutil.copy(file, tmp_path / f"weights/{name}.safetensors")
    videos = tmp_path / "videos"
    shutil.copytree(video_folder, videos)
    rows = [f"{path.relative_to(videos)},{path.parent.name}" for path in sorted(videos.glob("*/*.avi"))]
    (videos / "clips.csv").write_text("\n".join(["path,label", *rows]))
    return tmp_path


@pytest.fixture
def stage_one(monkeypatch):
    """The module of the parts of stage one; zstandard and OpenCV need not be there."""
    monkeypatch.syspath_prepend(GROWTH.parent)
    monkeypatch.setitem(sys.modules, "zstandard", ModuleType("zstandard"))
    module = importlib.import_module("stage_one_parts")
    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=lambda *_, **__: SimpleNamespace(stdout="9.0")))
    return module


def test_a_pipeline_loads_a_network_once_for_all_its_runs(asked, monkeypatch, stage_one):
    loaded, load = [], stage_one.load_backbone
    monkeypatch.setattr(stage_one, "load_backbone", lambda text, **how: loaded.append(how) or load(text, **how))
    monkeypatch.setattr(extract, "load_backbone", None)  # what the pipeline puts there is taken out again
    folders = {name: asked / name for name in ("videos", "weights", "work")}
    folders["work"].mkdir()
    found = stage_one.pipeline("test_resnet", Namespace(**folders, clips=4, repeats=2, eager=True))
    assert [how for how in loaded if how.get("precision") != "fp32"] == [{"compiled": False, "device": "cpu"}]
    assert [run["way"] for run in found["runs"]] == ["extract_eager"] * 2
    assert found["cosine_to_fp32_min"].keys() == {"eager"}
    assert found["cosine_to_fp32_min"]["eager"] > 0.99


def test_compiling_and_another_library_are_measured_only_if_they_are_named(stage_one):
    assert {"compiling", "openvino"} == set(stage_one.IF_NAMED) <= stage_one.PARTS.keys()


def test_the_benchmark_of_a_gpu_goes_all_its_ways_without_one(asked):
    command = [sys.executable, str(GPU), str(asked / "videos"), str(asked / "weights"), "--work", str(asked / "work")]
    command += ["--out", str(asked / "gpu.json"), "--device", "cpu", "--clips", "4", "--repeats", "1"]
    command += ["--backbone", "test_resnet", "--processes", "1", "--eager"]
    subprocess.run(command, capture_output=True, check=True)
    found = json.loads((asked / "gpu.json").read_text())["backbones"]["test_resnet"]
    assert [(run["way"], run["done"]) for run in found["eager"]["runs"]] == [("videos", 4), ("frames", 4)]
    assert found["eager"]["cosine_to_processor_fp32_min"] > 0.99
    assert found["processes"].keys() == {"1"}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.1, [[0, 1, 2, 3, 4, 5, 6]] * 3),
        (6.0, [[0, 1, 2, 3], [4, 5, 6, 0], [1, 2, 3, 4]]),  # four take 25 seconds
        (60.0, [[0, 1, 2], [3, 4, 5], [6, 0, 1]]),  # a third of them at least
    ],
)
def test_repeats_take_all_clips_and_no_more_than_time_allows(monkeypatch, seconds, expected):
    monkeypatch.syspath_prepend(GROWTH.parent)
    parts = importlib.import_module("parts")
    monkeypatch.delitem(sys.modules, "parts")
    assert parts.divide(list(range(7)), 3, seconds) == expected


def test_each_epoch_of_our_head_is_timed(tmp_path):
    """It hooks into the training loop by names, which once had changed."""
    arrays = {f"{side}_x": np.ones((8, 3, 2048), np.float32) for side in ("train", "val", "test")}
    classes = {f"{side}_y": np.arange(8) % 2 for side in ("train", "val", "test")}
    np.savez(tmp_path / "arrays.npz", **arrays, **classes, classes=2)
    command = [sys.executable, str(OUR_HEAD), str(tmp_path / "arrays.npz"), "--epochs", "3"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert len(told["epoch_seconds"]) == 3
    assert 0 < sum(told["epoch_seconds"]) <= told["seconds"]
