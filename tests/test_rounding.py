from __future__ import annotations

import numpy as np
import pytest
import torch

from fitrec_cache.backbones.rounding import round_filters


def to_bf16(x: np.float32) -> np.float32:
    """Round to nearest, ties to even, by the bits: a second way to bfloat16."""
    bits = int(np.float32(x).view(np.uint32))
    return np.uint32((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).view(np.float32)


@pytest.mark.parametrize("shape", [(3, 5), (4, 1, 3, 3), (2, 6, 1, 1), (2, 3, 5, 4)])
def test_each_weight_takes_over_what_the_one_before_lost(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = round_filters(weight, torch.bfloat16)
    assert (found.shape, found.dtype) == (weight.shape, torch.bfloat16)
    for row, got in zip(weight.flatten(1).numpy(), found.float().flatten(1).numpy(), strict=True):
        carried = np.float32(0)
        for weight_here, got_here in zip(row, got, strict=True):
            carried = np.float32(carried + weight_here)
            assert got_here == to_bf16(carried)
            carried = np.float32(carried - got_here)


def test_the_errors_of_a_filter_cancel():
    weight = torch.randn(64, 400, generator=torch.Generator().manual_seed(1))
    step = 2.0 ** (torch.floor(torch.log2(weight.abs().amax(1))) - 7)  # bfloat16 keeps 7 bits behind the first
    lost = (round_filters(weight, torch.bfloat16).double() - weight.double()).sum(1)
    assert (lost.abs() <= 1.01 * step).all()
    plainly_lost = (weight.bfloat16().double() - weight.double()).sum(1)
    assert lost.square().mean() < plainly_lost.square().mean() / 4


def test_a_weight_beyond_the_range_costs_itself_only():
    """float16 ends at 65504."""
    found = round_filters(torch.tensor([[1.0, 1e6, 2.0, 3.0]]), torch.float16)
    assert found.tolist() == [[1.0, float("inf"), 2.0, 3.0]]


def test_weights_of_a_narrow_type_carry_their_errors_in_full():
    weight = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)).half()
    assert torch.equal(round_filters(weight, torch.bfloat16), round_filters(weight.float(), torch.bfloat16))


def test_weights_that_fit_stay_and_the_argument_is_not_touched():
    weight = torch.arange(12.0).view(3, 4)
    before = weight.clone()
    assert torch.equal(round_filters(weight, torch.bfloat16).float(), before)
    assert torch.equal(weight, before)
