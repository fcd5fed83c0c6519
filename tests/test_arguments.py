from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_cli import COMMANDS
from test_train import toy

from fitrec_cache.cache import Cache
from fitrec_cache.common.arguments import _KINDS, plain_arguments
from fitrec_cache.errors import FitrecError, UsageError
from fitrec_cache.extract import extract
from fitrec_cache.features import load_cached
from fitrec_cache.recogniser import Recogniser
from fitrec_cache.runs.run import read_runs
from fitrec_cache.runs.scored import read_scored
from fitrec_cache.train import train_head
from fitrec_cache.video.decoding import DecodeJob, decode_clip


@plain_arguments
def called(
    videos: Path | None = None,
    *,
    runs: Sequence[Path] = (),
    backbone: Sequence[str] = ("default",),
    seed: Sequence[int] = (0,),
    device: str = "auto",
    samples: int | None = None,
    rate: float | None = None,
    final: bool = False,
) -> dict[str, object]:
    """As a command."""
    return {k: v for k, v in locals().items() if v not in (None, (), False)}


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"videos": "a/b"}, {"videos": Path("a/b")}),
        ({"videos": "~/b"}, {"videos": Path("/home/anna/b")}),
        ({"videos": Path("~/b")}, {"videos": Path("/home/anna/b")}),
        ({"runs": "one"}, {"runs": [Path("one")]}),
        ({"runs": Path("one")}, {"runs": [Path("one")]}),
        ({"runs": ("one", Path("two"))}, {"runs": [Path("one"), Path("two")]}),
        ({"backbone": "resnet50"}, {"backbone": ["resnet50"]}),
        ({"backbone": np.array(["a", "b"])}, {"backbone": ["a", "b"]}),
        ({"seed": 3}, {"seed": [3]}),
        ({"seed": np.arange(3)}, {"seed": [0, 1, 2]}),
        ({"seed": (i for i in range(2))}, {"seed": [0, 1]}),
        ({"samples": np.int64(4)}, {"samples": 4}),
        ({"rate": np.float32(0.5)}, {"rate": 0.5}),
        ({"rate": 1}, {"rate": 1}),
        ({"final": np.True_}, {"final": True}),
        ({"final": 1}, {"final": True}),
        ({"device": torch.device("cpu")}, {"device": "cpu"}),
    ],
)
def test_what_is_as_clear_is_taken(given, taken, monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    found = called(**given)
    assert found == {"backbone": ("default",), "seed": (0,), "device": "auto"} | taken
    for name, value in taken.items():
        assert type(found[name]) is type(value)
        if isinstance(value, list):
            assert [type(each) for each in found[name]] == [type(each) for each in value]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"videos": 3}, "videos is 3: expected a path"),
        ({"seed": 1.5}, r"seed is 1\.5: expected a whole number"),
        ({"seed": [True]}, "seed is True: expected a whole number"),
        ({"samples": "20"}, "samples is '20': expected a whole number"),
        ({"rate": "high"}, "rate is 'high': expected a number"),
        ({"rate": True}, "rate is True: expected a number"),
        ({"final": "no"}, "final is 'no': expected True or False"),
        ({"final": 2}, "final is 2: expected True or False"),
        ({"backbone": [3]}, "backbone is 3: expected a text"),
        ({"device": ["cpu"]}, r"device is \['cpu'\]: expected a text"),
        ({"device": None}, "device is None: expected a text"),
        ({"runs": None}, "runs is None: expected a path"),
        ({"runs": {"a": 1}}, r"runs is {'a': 1}: expected a list$"),
        ({"backbone": {"net": "x.pth"}}, r"backbone is .*: expected a list, such as \['net=\.\.\.'\]"),
        ({"seed": "1" * 99}, r"seed is '1{12}\.\.\.1{13}': expected a whole number"),
    ],
)
def test_what_cannot_be_meant_is_told(given, words):
    with pytest.raises(UsageError, match=f"^{words}$"):
        called(**given)


def test_a_name_that_there_is_not_is_pythons_own_error():
    with pytest.raises(TypeError, match=r"^\w+\(\) got an unexpected keyword argument 'vidoes'$"):
        called(vidoes="a")


def test_what_needs_its_name_is_told_so():
    @plain_arguments
    def info(*, cache: int) -> None:
        raise NotImplementedError

    @plain_arguments
    def predict(videos: int, *, run: int) -> None:
        raise NotImplementedError

    with pytest.raises(TypeError, match=r"info\(\) too many positional arguments: each needs its name$"):
        info(1)
    with pytest.raises(TypeError, match=r"predict\(\) too many.*: all but videos need their names$"):
        predict(1, 2)
    with pytest.raises(TypeError, match=r"Recogniser.__init__\(\) too many.*: all but run need their names$"):
        Recogniser("a", "b")
    with pytest.raises(TypeError, match=r"predict\(\) missing a required.* argument: 'run'$"):
        predict(1)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_its_arguments_so(name):
    function = getattr(importlib.import_module(f"fitrec_cache.{COMMANDS[name]}"), name)
    assert function.__wrapped__.__name__ == name
    with pytest.raises(TypeError, match=rf"{name}\(\) too many positional arguments"):
        function(*[None] * 40)


def test_a_call_in_texts_and_numpys_numbers_is_the_call_in_paths(tmp_path, video_folder, weights, cache_folder, inline):
    settings = {"samples": np.int64(4), "frame_size": 64, "precision": "fp32", "device": "cpu", "workers": 1}
    report = extract(str(video_folder), cache=str(tmp_path / "cache"), backbone=weights("test_resnet"), **settings)
    assert report.done == 12
    found, wanted = (load_cached(Cache(str(f)), "test_resnet") for f in (tmp_path / "cache", cache_folder))
    assert np.array_equal(found.values, wanted.values)
    features, runs = str(toy(tmp_path / "toy.h5")), {}
    for out, seed in ((tmp_path / "a", [1]), (str(tmp_path / "b"), np.int64(1))):
        train_head(out=out, features=features, variant="mean", seed=seed, epochs=np.int64(2), settings="dropout=0.5")
        runs[str(out)] = (Path(out) / "head.safetensors").read_bytes()
    assert len(set(runs.values())) == 1
    folder = str(tmp_path / "b")
    assert read_scored(folder).folder == read_runs(folder)[0].folder == Path(folder)
    video = next(video_folder.rglob("*.avi"))
    assert decode_clip(DecodeJob(path=str(video), samples=4, short_side=64)).jpegs


def test_without_a_backbone_the_only_one_is_loaded(cache_folder):
    assert load_cached(Cache(cache_folder)).name == "test_resnet"


KNOWN = {"Sequence[Sequence[Path]] | None", "CompareReport | None"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_kind_of_argument_is_known(name):
    function = getattr(importlib.import_module(f"fitrec_cache.{COMMANDS[name]}"), name)
    kinds = {kind for each, kind in function.__annotations__.items() if each != "return"}
    kinds = {kind for kind in kinds if not kind.startswith("Callable")}
    assert kinds <= _KINDS.keys() | KNOWN | {kind.removesuffix(" | None") for kind in KNOWN}


@pytest.mark.parametrize("name", COMMANDS)
def test_on_windows_every_call_is_refused(monkeypatch, name):
    function = getattr(importlib.import_module(f"fitrec_cache.{COMMANDS[name]}"), name)
    monkeypatch.setattr("fitrec_cache.common.arguments.sys", SimpleNamespace(platform="win32"))
    with pytest.raises(FitrecError, match=r"^fitrec-cache needs Linux; on Windows run it in WSL$"):
        function()
