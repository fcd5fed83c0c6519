"""Round weights to a narrower type so that what is lost in one is made up for in the next."""

from __future__ import annotations

import torch
from torch import Tensor

#: Part of the identity of features in narrow types.
ROUNDING = "errors carried along each filter of convolutions"


def round_filters(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Round a kernel to ``dtype``, carrying each weight's error on to the next weight of the same filter.

    What a filter multiplies is much alike from tap to tap, and mostly positive behind an activation, so the *sum* of
    its errors is what shows in its output. Rounded one by one, n weights leave a sum that grows with the root of n;
    rounded so, it stays below one rounding step. Nothing is computed differently afterwards.

    Args:
        weight: ``(O, ...)`` float, a filter a row: of a convolution ``(O, I, h, w)``, of a matrix product ``(O, I)``.
        dtype: A floating type.

    Returns:
        The same shape in ``dtype``. A weight moves by at most about one rounding step of its filter's largest.

    Source:
        Error diffusion: Floyd and Steinberg, "An adaptive algorithm for spatial greyscale", 1976, in one dimension.
    """
    taps = weight.detach().float().flatten(1).t().contiguous()  # (I h w, O)
    rounded = torch.empty_like(taps, dtype=dtype)
    carried = taps.new_zeros(taps.shape[1])
    for tap, kept in zip(taps, rounded, strict=True):
        carried += tap
        kept.copy_(carried)
        carried -= kept
        carried[kept.isinf()] = 0  # a weight beyond the type's range costs itself only
    return rounded.t().reshape(weight.shape)
