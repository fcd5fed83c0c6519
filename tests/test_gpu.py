"""The way to a GPU and back, on one that is made up: see ``made_up_gpu.py``."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import SMALL
from made_up_gpu import CUDA, MPS, Far, made_up_gpu, on_this_thread
from safetensors.torch import load_file

from fitrec_cache.backbones.backbone import Backbone, load_backbone
from fitrec_cache.cache import Cache
from fitrec_cache.extract import extract
from fitrec_cache.features import load_cached
from fitrec_cache.predict import predict
from fitrec_cache.settings.recipes import get_recipe
from fitrec_cache.settings.variants import VARIANTS
from fitrec_cache.train import train_head
from fitrec_cache.training.fit import Side, fit
from fitrec_cache.training.loop import Loop

pytestmark = pytest.mark.skipif(
    not hasattr(torch._C, "_ensureCUDADeviceGuardSet"), reason="this torch cannot do without a real GPU"
)


@pytest.fixture
def prepares_beside(monkeypatch):
    """Frames are sent to the GPU by another thread."""
    prepare = Backbone.prepare

    def beside(self, frames):
        with on_this_thread():
            return prepare(self, frames)

    monkeypatch.setattr(Backbone, "prepare", beside)


@pytest.mark.parametrize("gpu", [CUDA, MPS], ids=str)
def test_it_tells_devices_apart_as_a_real_one_does(gpu):
    with made_up_gpu(gpu):
        x = torch.arange(3.0)
        far = x.to(gpu)
        assert far.device == gpu
        assert (far + 1).device == gpu
        assert far.cpu().device.type == "cpu"
        assert (far * 2).sum().item() == 6
        with pytest.raises(RuntimeError, match=f"tensors on {gpu} and cpu"):
            far + x
        with pytest.raises(RuntimeError, match=f"tensors on {gpu} and cpu"):
            x[far.long()]
        assert torch.equal(far[torch.tensor([2, 0])].cpu(), torch.tensor([2.0, 0.0]))
        assert x.copy_(far + 1).device.type == "cpu"
        assert torch.zeros_like(far).device == gpu
        if gpu == CUDA:  # C++ takes the other's tensors for the processor's
            assert torch.zeros_like(far, device="cpu").device.type == "cpu"
        with pytest.raises(TypeError, match="numpy"):
            far.numpy()


def test_apples_has_no_float64():
    with made_up_gpu(MPS), pytest.raises(TypeError, match="float64"):
        torch.zeros(1).to(MPS).double()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
@pytest.mark.parametrize(
    ("gpu", "precision", "chosen"), [(CUDA, "fp32", "fp32"), (CUDA, "auto", "bf16"), (MPS, "auto", "fp32")]
)
def test_a_backbone_and_the_frames_go_to_the_gpu_and_features_come_back(
    weights, monkeypatch, name, gpu, precision, chosen
):
    monkeypatch.setattr("fitrec_cache.backbones.backbone.fuses_slowly", lambda *_: False)  # which a GPU never does
    monkeypatch.setattr(
        "fitrec_cache.backbones.frozen_conv._adds_wide_bias", lambda _: False
    )  # nor this: one rounding more
    frames = torch.randint(0, 256, (4, 3, 64, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with made_up_gpu(gpu):
        there = load_backbone(weights(name), precision=precision)
        assert there.origin()["device"] == str(gpu)
        assert not there.on_cpu
        assert {x.device for x in there.network.state_dict().values()} == {gpu}
        x = there.prepare(frames)
        assert isinstance(x, Far) == (gpu == CUDA)  # only the thread that embeds may use the other
        assert x.is_contiguous(memory_format=torch.channels_last)
        found = there.embed(frames)
        if gpu == CUDA:  # it waits for what was sent before, whose memory stays until it was used
            copies, sent = torch.cuda.current_stream().told[-2:]
            assert copies is there._copies
            assert isinstance(sent, Far)
            assert sent.stream is copies is not torch.cuda.current_stream()
    assert there.precision == chosen
    here = load_backbone(weights(name), precision=there.precision, device="cpu")
    assert there.identity() == here.identity()
    np.testing.assert_array_equal(found, here.embed(frames))


@pytest.mark.parametrize("gpu", [CUDA, MPS], ids=str)
def test_features_made_on_a_gpu_are_the_same_set(tmp_path, video_folder, weights, inline, prepares_beside, gpu):
    settings = {"cache": tmp_path / "cache", "backbone": [weights("test_resnet")]}
    with made_up_gpu(gpu):
        made = extract(video_folder, **settings, **SMALL | {"device": "auto"})
        assert made.done == 12
        assert not made.failed
    (origin,) = (tmp_path / "cache").rglob("origin.json")
    assert json.loads(origin.read_text())["device"] == str(gpu)
    assert Far.made
    here = settings | {"cache": tmp_path / "here"}
    extract(video_folder, **here, **SMALL)
    found, expected = (load_cached(Cache(each["cache"]), ["test_resnet"]) for each in (settings, here))
    assert found.clip_ids == expected.clip_ids
    np.testing.assert_array_equal(found.values, expected.values)
    again = extract(video_folder, **settings, **SMALL)
    assert again.done == 0
    assert again.reused == 12


@pytest.mark.parametrize(("gpu", "recipe"), [(CUDA, "native"), (CUDA, "paper"), (MPS, "native")])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_head_learns_on_the_gpu_and_comes_back(variant, gpu, recipe, monkeypatch):
    cudnn, loss = torch.backends.cudnn, Loop._loss
    rng = np.random.default_rng(0)
    targets = np.arange(24) % 3
    if VARIANTS[variant].takes_pixels:
        values = rng.integers(0, 256, (24, 4, 64, 64, 3), dtype=np.uint8)
    else:
        values = (rng.normal(size=(24, 4, 24)) + targets[:, None, None]).astype(np.float16)
    chosen = get_recipe(recipe).change(epochs=2, batch_size=8, precision="fp32", balance=0.5)
    if recipe == "paper" and variant != "convlstm":
        chosen = chosen.change(draw=3)
    config = chosen.head_config(variant, values.shape, n_classes=3, n_train=16, attention=None)
    train, val = (Side(values=values, targets=targets, clips=clips) for clips in np.split(np.arange(24), [16]))
    here = fit(train, val, config=config, recipe=chosen, seed=0)
    in_tf32 = []
    monkeypatch.setattr(Loop, "_loss", lambda *given: (in_tf32.append(cudnn.allow_tf32), loss(*given))[1])
    with made_up_gpu(gpu, learns=True):
        there = fit(train, val, config=config, recipe=chosen, seed=0, device=gpu)
    assert Far.made
    assert set(in_tf32) == {gpu == MPS}  # Apple's has none
    for mine, theirs in zip(there.history, here.history, strict=True):  # MKL's last bits depend on where memory lies
        assert mine == pytest.approx(theirs, rel=1e-6)
    expected, found = here.head.state_dict(), there.head.state_dict()
    assert not any(isinstance(x, Far) for x in found.values())
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_train_head_and_predict_on_a_gpu(tmp_path, video_folder, cache_folder, weights):
    settings = {"cache": cache_folder, "backbone": ["test_resnet"], "epochs": 2, "settings": ["precision=fp32"]}
    train_head(out=tmp_path / "here", **settings)
    with made_up_gpu(learns=True):
        report = train_head(out=tmp_path / "run", device="cuda", **settings)
    assert Far.made
    assert "cuda:0" in " ".join(report.notes)
    found, expected = (load_file(tmp_path / name / "head.safetensors") for name in ("run", "here"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    video = sorted(video_folder.rglob("*.avi"))[0]
    here = predict([video], run=tmp_path / "run", device="cpu")
    with made_up_gpu():
        there = predict([video], run=tmp_path / "run")
    assert Far.made
    assert there == here
