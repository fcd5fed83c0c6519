"""Convolutions padded as TensorFlow pads them, without a padded copy of their input."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


class SameConv(nn.Conv2d):
    """A convolution whose input is padded so that ``ceil(n / stride)`` outputs fit, one more behind than before.

    Output i begins at ``i s - p`` with ``p`` zeros before. PyTorch pads both sides alike; where TensorFlow does not,
    padding both by ``p + s`` gives the same outputs and one more before them, which is dropped. Copying the input into
    a larger one costs more: a compiler fuses it with the activation before, and then computes that value by value.

    Source:
        TensorFlow, "Notes on padding", `tf.nn`: ``SAME`` padding.
    """

    @classmethod
    def like(cls, conv: nn.Conv2d) -> SameConv:
        """Return a convolution with the parameters of another, which is padded so by other means."""
        same = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            dilation=conv.dilation,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
            device="meta",
        )
        same.weight, same.bias = conv.weight, conv.bias
        return same.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, O, ceil(H / s), ceil(W / s))`` for ``(N, C, H, W)``."""
        (top, rows), (left, columns) = (
            _padding(n, k, s, d)
            for n, k, s, d in zip(x.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True)
        )
        y = F.conv2d(x, self.weight, self.bias, self.stride, (top, left), self.dilation, self.groups)
        return y[:, :, rows:, columns:]


def _padding(n: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return zeros on either side, and how many outputs at the beginning are to be dropped."""
    total = max((math.ceil(n / stride) - 1) * stride + dilation * (kernel - 1) + 1 - n, 0)
    return (total // 2 + stride, 1) if total % 2 else (total // 2, 0)
