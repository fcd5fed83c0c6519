"""Round weights to a narrower type so that the error of each is compensated by the next."""

from __future__ import annotations

import torch
from torch import Tensor

#: Value in the identity of features in narrow types.
ROUNDING = "errors carried along each filter of convolutions"


def round_filters(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Round a kernel to ``dtype``, carrying each weight's error over to the next weight of the same filter.

    The inputs of a filter are similar from tap to tap, and mostly positive after an activation, so the *sum* of its
    errors determines the error of its output. If n weights are rounded independently, the sum grows with the root of n;
    with this method it stays below one rounding step. The computation itself does not change.

    Args:
        weight: ``(O, ...)`` float, one filter per row: ``(O, I, h, w)`` for a convolution, ``(O, I)`` for a matrix
            product.
        dtype: A floating type.

    Returns:
        The same shape in ``dtype``. A weight changes by at most about one rounding step of its filter's largest weight.

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
        carried[kept.isinf()] = 0  # a weight beyond the type's range must not affect the next ones
    return rounded.t().reshape(weight.shape)
