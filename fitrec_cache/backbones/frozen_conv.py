"""Convolutions of frozen networks: padded as TensorFlow does without a copy, and narrow without rounding the bias."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrozenConv(nn.Conv2d):
    """A convolution with the weights of another, which may be narrow while the bias stays float32.

    A rounded bias moves a whole channel the same way everywhere, and errors that are alike add up behind it. oneDNN
    adds a float32 bias before it rounds, at no cost; elsewhere it is added afterwards.

    *Same padding*: so that ``ceil(n / stride)`` outputs fit, one more zero behind than before. Output i begins at
    ``i s - p`` with ``p`` zeros before. PyTorch pads both sides alike; where TensorFlow does not, padding both by
    ``p + s`` gives the same outputs and one more before them, which is dropped. Copying the input into a larger one
    costs more: a compiler fuses it with the activation before, and then computes that value by value.

    Source:
        TensorFlow, "Notes on padding", `tf.nn`: ``SAME`` padding.
    """

    same: bool

    @classmethod
    def like(cls, conv: nn.Conv2d, *, same: bool) -> FrozenConv:
        """Return a convolution with the parameters of another; ``same``: padded so, by whatever means the other is."""
        frozen = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
            device="meta",
        )
        frozen.weight, frozen.bias, frozen.same = conv.weight, conv.bias, same
        return frozen.train(conv.training)

    @property
    def has_wide_bias(self) -> bool:
        """Whether the weights are narrow and the bias is not."""
        return self.bias is not None and self.bias.dtype is not self.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, O, H', W')`` in the type of the weights for ``(N, C, H, W)``."""
        if not self.same:
            return self._convolve(x, self.padding)  # type: ignore[arg-type]
        (top, rows), (left, columns) = (
            _padding(n, k, s, d)
            for n, k, s, d in zip(x.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True)
        )
        y = self._convolve(x, (top, left))[:, :, rows:, columns:]
        # Apple's convolutions took such a view for a whole tensor (issue 180984 of PyTorch).
        return y.contiguous(memory_format=torch.channels_last) if y.device.type == "mps" else y

    def _convolve(self, x: Tensor, padding: tuple[int, int]) -> Tensor:
        weight, bias, more = self.weight, self.bias, (self.stride, padding, self.dilation, self.groups)
        if bias is None or not self.has_wide_bias:
            return F.conv2d(x, weight, bias, *more)
        x = x.to(weight.dtype)
        if x.device.type == "cpu" and _adds_wide_bias(weight.dtype):
            x = x.contiguous(memory_format=torch.channels_last)
            y: Tensor = torch.mkldnn_convolution(x, weight, bias, padding, self.stride, self.dilation, self.groups)
            return y
        return F.conv2d(x, weight, None, *more).add_(bias[:, None, None])  # in float32, rounded once more


@cache
def _adds_wide_bias(dtype: torch.dtype) -> bool:
    """Say whether this processor's library convolves in a narrow type with a bias in float32."""
    bias, channels = torch.full((4,), 0.3), torch.ones(1, 4, 1, 1, dtype=dtype)
    near = bias.to(dtype)
    kernels = near[:, None, None, None]  # of a depthwise convolution; the other takes a quarter of four channels
    try:
        found = [
            torch.mkldnn_convolution(channels, -kernels, bias, (0, 0), (1, 1), (1, 1), 4),
            torch.mkldnn_convolution(channels / 4, -kernels.repeat(1, 4, 1, 1), bias, (0, 0), (1, 1), (1, 1), 1),
        ]
    except RuntimeError:  # a processor, or a build of PyTorch, without it
        return False
    # What is left is what rounding takes from the bias: nothing, had it been rounded.
    return all(torch.equal(y.flatten(), (bias - near.float()).to(dtype)) for y in found)


def _padding(n: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return zeros on either side, and how many outputs at the beginning are to be dropped."""
    total = max((math.ceil(n / stride) - 1) * stride + dilation * (kernel - 1) + 1 - n, 0)
    return (total // 2 + stride, 1) if total % 2 else (total // 2, 0)
