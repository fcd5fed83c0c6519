from __future__ import annotations

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from fitrec_cache.backbones import frozen_conv
from fitrec_cache.backbones.frozen_conv import FrozenConv
from fitrec_cache.common.precision import computes_in_bf16


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (13, 7), (1, 2), (2, 30)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5, (3, 4)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_outputs_are_those_of_an_input_that_was_padded(size, stride, kernel, dilation):
    torch.manual_seed(0)
    theirs = Conv2dSame(4, 6, kernel, stride=stride, dilation=dilation, groups=2)
    ours = FrozenConv.like(theirs, same=True)
    x = torch.randn(2, 4, *size)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_parameters_are_the_same_under_the_same_names():
    theirs = Conv2dSame(4, 6, 3, stride=2, bias=False).eval()
    ours = FrozenConv.like(theirs, same=True)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert ours.weight is theirs.weight
    assert not ours.training


SETTINGS = [
    {},
    {"stride": 2, "padding": 1},
    {"kernel_size": (1, 3), "padding": (0, 1), "dilation": (1, 2)},
    {"groups": 4, "padding": 2},
    {"bias": False},
]


@pytest.mark.parametrize("given", SETTINGS)
def test_in_float32_it_is_the_convolution_that_it_was_made_of(given):
    theirs = nn.Conv2d(4, 8, **{"kernel_size": 3} | given)
    x = torch.randn(2, 4, 9, 11)
    assert torch.equal(FrozenConv.like(theirs, same=False)(x), theirs(x))


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("given", SETTINGS[:-1])
def test_only_the_output_of_a_narrow_one_is_rounded(given, wide, monkeypatch):
    """Values that bfloat16 holds, but for the bias: rounded to it, all of a channel would be off alike."""
    if not wide:  # what processors without bf16, and GPUs, do
        monkeypatch.setattr(frozen_conv, "_adds_wide_bias", lambda _: False)
    torch.manual_seed(0)
    exact = nn.Conv2d(4, 8, **{"kernel_size": 3} | given).requires_grad_(False)
    exact.weight.data, x = (v.bfloat16().float() for v in (exact.weight, torch.randn(4, 4, 59, 61)))
    exact.bias.data += 4
    expected = exact(x)
    narrow = FrozenConv.like(exact, same=False)  # of the same parameters
    narrow.weight.data = narrow.weight.bfloat16()
    found = narrow(x)
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=2**-7, atol=2**-5)  # one rounding, or two
    off = (found.float() - expected).mean((0, 2, 3)).abs()  # roundings up and down cancel
    rounded_bias = (exact.bias.bfloat16().float() - exact.bias).abs()
    assert off.max() < rounded_bias.max() / 3


def test_where_bf16_is_fast_the_bias_costs_nothing():
    assert frozen_conv._adds_wide_bias(torch.bfloat16) or not computes_in_bf16("cpu")
