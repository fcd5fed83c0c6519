from __future__ import annotations

import math

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from fitrec_cache.backbones.backbone import _REST, load_backbone
from fitrec_cache.backbones.folding import FOLDING, fold_norms


def shuffled(model):
    """Give all normalisations numbers that are theirs alone; fresh ones do nothing."""
    dice = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=dice)
            module.running_var.uniform_(0.5, 2, generator=dice)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5, generator=dice)
                module.bias.data.normal_(0, 0.3, generator=dice)
    return model.eval().requires_grad_(False)


def outputs(model, example):
    """Return what a network gives before and after, and how many normalisations were folded."""
    model = shuffled(model).double()
    dice = torch.Generator().manual_seed(1)
    x = torch.randn(example, dtype=torch.float64, generator=dice)
    with torch.inference_mode():
        before = model(x)
    folded = fold_norms(model, torch.rand(example, dtype=torch.float64, generator=dice), _REST)
    with torch.inference_mode():
        return before, model(x), folded


def test_by_hand():
    """2 x + 1 normalised by mean 3, variance 4 - eps, weight 10 and bias 5: (2 x - 2) / 2 * 10 + 5 = 10 x - 5."""
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1e-3)
    for tensor, value in [(conv.weight, 2), (conv.bias, 1), (norm.weight, 10), (norm.bias, 5)]:
        nn.init.constant_(tensor, value)
    norm.running_mean.fill_(3)
    norm.running_var.fill_(4 - 1e-3)
    model = nn.Sequential(conv, norm, nn.ReLU()).eval().requires_grad_(False)
    assert fold_norms(model, torch.zeros(1, 1, 2, 2), _REST) == 1
    assert (conv.weight.item(), conv.bias.item()) == pytest.approx((10, -5))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert model(torch.tensor([[[[2.0]]], [[[0.0]]]])).flatten().tolist() == pytest.approx([15, 0])


class Wired(nn.Module):
    """A convolution and a normalisation, put together as ``forward`` says."""

    def __init__(self, wiring, **norm):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3, **norm)
        self.wiring = wiring

    def forward(self, x):
        return self.wiring(self, x)


def looks_first(m, x):
    y = m.conv(x)
    assert y.shape[1] == y.size(1) == 3
    assert y.dim() == 4
    return m.norm(y)


def second_use(m, x):
    y = m.conv(x)
    return m.norm(y) + y


def written_into(m, x):
    y = m.conv(x)
    y[:, 0] = 0
    return m.norm(y)


def written_elsewhere(m, x):
    y = m.conv(x)
    z = torch.empty_like(x)
    z[:] = y
    return m.norm(y) + z


def seen_by_numpy(m, x):
    y = m.conv(x)
    return m.norm(y) + torch.from_numpy(y.numpy())


def unseen_use(m, x):
    y = m.conv(x)
    with torch._C.DisableTorchFunction():
        z = y * 2
    return m.norm(y) + z


def without_its_bias(m, x):
    return m.norm(nn.functional.conv2d(x, m.conv.weight))


def used_in_a_list(m, x):
    y = m.conv(x)
    return torch.cat([m.norm(y), y])


@pytest.mark.parametrize(
    ("wiring", "folded"),
    [
        (lambda m, x: m.norm(m.conv(x)), 1),
        (looks_first, 1),
        (second_use, 0),
        (used_in_a_list, 0),
        (written_into, 0),
        (written_elsewhere, 0),
        (seen_by_numpy, 0),
        (lambda m, x: m.norm(m.conv(m.norm(m.conv(x)))), 0),
        (lambda m, x: m.norm(m.conv(x)) + m.conv(x), 0),
        (lambda m, x: m.norm(m.conv(x)) + m.norm(x), 0),
        (lambda m, x: m.conv(m.norm(x)), 0),
        (lambda m, x: m.norm(m.conv(x) + x), 0),
        (lambda m, x: m.norm(m.conv(x).relu()), 0),
        (lambda m, x: m.norm(m.conv(x)) * m.conv.weight.sum(), 0),
        (lambda m, x: m.norm(m.conv(x)) * m.norm.running_mean.sum(), 0),
    ],
)
def test_only_where_nothing_else_sees_what_is_between(monkeypatch, wiring, folded):
    monkeypatch.setattr("fitrec_cache.backbones.folding._MOST_MOVED", math.inf)  # by watching, not by what comes out
    before, after, found = outputs(Wired(wiring), (2, 3, 5, 5))
    assert found == folded
    torch.testing.assert_close(after, before)


def test_without_weights_of_its_own_a_normalisation_is_folded_too():
    before, after, found = outputs(Wired(lambda m, x: m.norm(m.conv(x)), affine=False), (2, 3, 5, 5))
    assert found == 1
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("wiring", [unseen_use, without_its_bias, lambda m, x: m.norm(m.conv(x))])
@pytest.mark.parametrize("factor", [2, 1.01])
def test_what_watching_misses_shows_in_what_comes_out(wiring, factor):
    model = Wired(wiring)
    model.norm.register_forward_hook(lambda _module, _given, out: factor * out)
    parameters = dict(model.named_parameters())
    before, after, found = outputs(model, (2, 3, 5, 5))
    assert found == 0
    assert torch.equal(after, before)
    assert all(found is parameters[name] for name, found in model.named_parameters())


def test_what_is_too_large_to_be_squared_is_compared_too():
    """The length of such features is infinite in float32, and anything would be less than a thousandth of it."""
    model = shuffled(Wired(lambda m, x: 1e30 * unseen_use(m, x)))
    assert fold_norms(model, torch.rand(2, 3, 5, 5), _REST) == 0


def test_a_normalisation_by_the_batch_stays():
    model = Wired(lambda m, x: m.norm(m.conv(x)), track_running_stats=False).eval().requires_grad_(False)
    assert fold_norms(model, torch.zeros(1, 3, 5, 5), _REST) == 0


def test_modules_with_two_names_stay():
    model = Wired(lambda m, x: m.norm(m.conv(x)))
    model.again = model.norm
    before, after, found = outputs(model, (2, 3, 5, 5))
    assert found == 0
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("resnet10t", 0),
        ("mobilenetv3_small_050", 0),
        ("tf_efficientnet_lite0", 0),
        ("regnetx_002", 0),
        ("densenet121", None),  # normalises many maps at once
        ("resnetv2_18", None),  # normalises the sum of two branches
    ],
)
def test_networks_compute_the_same(name, left):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0)
    there = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    before, after, folded = outputs(model, (2, 3, 64, 64))
    torch.testing.assert_close(after, before)
    assert 0 < folded < there if left is None else folded == there - left


def test_folding_is_part_of_what_features_are(weights):
    assert load_backbone(weights("test_resnet"), precision="fp32").identity()["folded"] == FOLDING
    assert "folded" not in load_backbone(weights("test_vit"), precision="fp32").identity()


@pytest.mark.parametrize("preset", ["native", "grid", "paper", "table1"])
def test_each_preset_gives_the_same_features_nearly(tmp_path, monkeypatch, preset):
    """test_efficientnet pads as TensorFlow does: there a folded bias goes through padding too."""
    torch.manual_seed(0)
    save_file(shuffled(timm.create_model("test_efficientnet", num_classes=7)).state_dict(), tmp_path / "w.safetensors")
    text, frames = f"test_efficientnet={tmp_path / 'w.safetensors'}", torch.randint(0, 256, (2, 3, 48, 64)).byte()
    folded = load_backbone(text, preset=preset, precision="fp32")
    monkeypatch.setattr("fitrec_cache.backbones.backbone.fold_norms", lambda *_: 0)
    as_it_was = load_backbone(text, preset=preset, precision="fp32")
    assert set(folded.identity()) == {*as_it_was.identity(), "folded"}
    torch.testing.assert_close(*(torch.from_numpy(m.embed(frames)) for m in (folded, as_it_was)), rtol=2e-3, atol=2e-3)
