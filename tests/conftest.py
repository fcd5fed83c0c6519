"""What several test modules share: tiny backbones, small folders of numbered clips, and one cache with features."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from hypothesis import settings
from make_video import write_video

from fitrec_cache import extract
from fitrec_cache.cache import Cache
from fitrec_cache.common import cpu_contention
from fitrec_cache.common.files import write_atomic
from fitrec_cache.extraction import prefetch
from fitrec_cache.runs import run_pictures
from fitrec_cache.video import decoding

settings.register_profile("patient", deadline=None)  # a machine may be busy
settings.load_profile("patient")

SAMPLES = 4
FRAME_SIZE = 64

#: Settings that make an extraction small, and the same on every machine.
SMALL = {"samples": SAMPLES, "frame_size": FRAME_SIZE, "precision": "fp32", "device": "cpu", "workers": 1}


@contextlib.contextmanager
def more_memory_at_most(kilobytes):
    """Assert that inside ``with`` this process takes at most so much more memory than it has now."""
    with contextlib.suppress(OSError):  # the kernel forgets the peak of earlier tests, if it can
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak_kilobytes()
    yield
    assert _peak_kilobytes() - before < kilobytes


def _peak_kilobytes():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def unseal(run: Path) -> None:
    """Take out of a run what tells altered files, so that a test may alter them, as in runs of before."""
    settings = json.loads((run / "run.json").read_text())
    del settings["sums"]
    (run / "run.json").write_text(json.dumps(settings))


class InlinePool:
    """Stands in for the decoder processes where a test is not about them: decodes in this process."""

    decoded: list[str]

    def __init__(self, *, workers, time_limit):
        InlinePool.decoded = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def submit(self, job):
        InlinePool.decoded.append(job.path.name)
        outcome = decoding._work(job)
        return lambda: outcome


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """What reports say must not depend on what else this machine does."""
    monkeypatch.setattr(cpu_contention, "_STAT", Path("/nowhere"))


@pytest.fixture
def inline(monkeypatch):
    """Decode in this process; gives the list of files that were decoded by the latest extraction."""
    InlinePool.decoded = []
    monkeypatch.setattr(prefetch, "DecoderPool", InlinePool)
    return InlinePool


@pytest.fixture
def undrawn(monkeypatch):
    """Make the pictures of a run without drawing them, which takes most of a short training's time."""
    monkeypatch.setattr(run_pictures, "save_png", lambda figure, path, **_: write_atomic(path, b"not drawn"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """``weights(NAME)`` gives ``NAME=FILE`` with random weights for a small timm model."""
    folder = tmp_path_factory.mktemp("weights")

    def make(name: str, *, seed: int = 0, num_classes: int = 7) -> str:
        path = folder / f"{name}-{seed}-{num_classes}.safetensors"
        if not path.exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = timm.create_model(name, num_classes=num_classes)
            safetensors.torch.save_file(model.state_dict(), path)
        return f"{name}={path}"

    return make


def write_class_folders(root: Path, *, classes=("Hop", "Lunge", "Squat"), groups: int = 4, clips: int = 1) -> Path:
    """Write ``Class/v_Class_gNN_cMM.avi`` for each class, group and clip; all contents differ."""
    number = 0
    for name in classes:
        for group in range(1, groups + 1):
            for clip in range(1, clips + 1):
                path = root / name / f"v_{name}_g{group:02d}_c{clip:02d}.avi"
                path.parent.mkdir(parents=True, exist_ok=True)
                n_frames = 6 + number % 5
                numbers = range(40 * number, 40 * number + n_frames)
                write_video(path, n_frames, width=80, height=64, codec="mpeg4", numbers=numbers)
                number += 1
    return root


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory):
    """Twelve clips: 3 classes of 4 groups. Not to be changed."""
    return write_class_folders(tmp_path_factory.mktemp("videos"))


@pytest.fixture
def two_backbones(tmp_path, cache_folder):
    """A copy of ``cache_folder`` with features of a backbone ``other`` too: the same 96 values, the last first."""
    cache = Cache(shutil.copytree(cache_folder, tmp_path / "two"))
    (first,) = cache.feature_stores()
    rows = first.rows(list(first), ("key", "features", "pts_seconds"))
    other = cache.feature_store(first.identity | {"backbone": "other"})
    other.write_part(rows | {"features": np.ascontiguousarray(rows["features"][..., ::-1])})
    return cache.folder


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory, video_folder, weights):
    """A cache of ``video_folder`` with features of ``test_resnet`` (96 values). Not to be changed."""
    folder = tmp_path_factory.mktemp("cache") / "cache"
    report = extract.extract(video_folder, cache=folder, backbone=[weights("test_resnet")], **SMALL)
    if report.done != 12:
        raise RuntimeError(f"the cache for the tests could not be made: {report}")
    return folder
