from __future__ import annotations

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame

from fitrec_cache.same_padding import SameConv


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (13, 7), (1, 2), (2, 30)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5, (3, 4)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_outputs_are_those_of_an_input_that_was_padded(size, stride, kernel, dilation):
    torch.manual_seed(0)
    theirs = Conv2dSame(4, 6, kernel, stride=stride, dilation=dilation, groups=2)
    ours = SameConv.like(theirs)
    x = torch.randn(2, 4, *size)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_parameters_are_the_same_under_the_same_names():
    theirs = Conv2dSame(4, 6, 3, stride=2, bias=False).eval()
    ours = SameConv.like(theirs)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert ours.weight is theirs.weight
    assert not ours.training
