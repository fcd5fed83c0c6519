"""Convolutions of frozen networks: TensorFlow's padding without a copy, and narrow types without rounding the bias."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrozenConv(nn.Conv2d):
    """A convolution with the weights of another one; weights may have a narrow type while the bias stays float32.

    A rounded bias shifts a whole channel the same way at every position, and such equal errors add up in later layers.
    oneDNN adds a float32 bias before it rounds, at no cost; elsewhere the bias is added afterwards.

    *Same padding* fits ``ceil(n / stride)`` outputs, with one more zero after the input than before it if the number is
    odd. With ``p`` zeros before, output i begins at ``i s - p``. PyTorch pads both sides equally; where TensorFlow does
    not, padding both by ``p + s`` gives the same outputs and one more before them, which is dropped. Copying the input
    into a larger tensor costs more: a compiler fuses the copy with the activation before it, and then computes that
    value by value. In ONNX a convolution pads each side by its own number, so there the padding is written as it is.

    Source:
        TensorFlow, "Notes on padding", `tf.nn`: ``SAME`` padding.
    """

    same: bool

    @classmethod
    def like(cls, conv: nn.Conv2d, *, same: bool) -> FrozenConv:
        """Return a convolution with the parameters of another; ``same``: it uses "same" padding."""
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
        """Whether the bias has another type than the (narrower) weights."""
        return self.bias is not None and self.bias.dtype is not self.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, O, H', W')`` for ``(N, C, H, W)``, in the type of the weights."""
        if not self.same:
            return self._convolve(x, self.padding)  # type: ignore[arg-type]
        rows, columns = (
            same_zeros(n, k, s, d)
            for n, k, s, d in zip(x.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True)
        )
        if torch.compiler.is_exporting():
            sides = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
            return self._convolve(F.pad(x, sides), (0, 0))
        (top, above), (left, before) = (_padding(z, s) for z, s in zip((rows, columns), self.stride, strict=True))
        y = self._convolve(x, (top, left))[:, :, above:, before:]
        # Apple's convolutions misread such a view as a whole tensor (PyTorch issue 180984).
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
        return F.conv2d(x, weight, None, *more).add_(bias[:, None, None])  # added in float32, then rounded again


@cache
def _adds_wide_bias(dtype: torch.dtype) -> bool:
    """Say whether this processor's library can convolve in a narrow type with a float32 bias."""
    bias, channels = torch.full((4,), 0.3), torch.ones(1, 4, 1, 1, dtype=dtype)
    near = bias.to(dtype)
    kernels = near[:, None, None, None]  # for a depthwise convolution; the other one adds a quarter of four channels
    try:
        found = [
            torch.mkldnn_convolution(channels, -kernels, bias, (0, 0), (1, 1), (1, 1), 4),
            torch.mkldnn_convolution(channels / 4, -kernels.repeat(1, 4, 1, 1), bias, (0, 0), (1, 1), (1, 1), 1),
        ]
    except RuntimeError:  # not supported by this processor or build of PyTorch
        return False
    # The output is the rounding error of the bias; it would be zero if the library had rounded the bias.
    return all(torch.equal(y.flatten(), (bias - near.float()).to(dtype)) for y in found)


def same_zeros(n: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """Return how many zeros "same" padding puts on both sides of ``n`` values together."""
    return max((math.ceil(n / stride) - 1) * stride + dilation * (kernel - 1) + 1 - n, 0)


def _padding(zeros: int, stride: int) -> tuple[int, int]:
    """Return the number of zeros on either side, and the number of outputs to drop at the beginning."""
    return (zeros // 2 + stride, 1) if zeros % 2 else (zeros // 2, 0)
