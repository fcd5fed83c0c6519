"""The functions that resize frames, for backbones and for the heads that are trained on small frames."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize(frames: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Resize uint8 ``(T, 3, H, W)`` to ``(T, 3, *size)`` uint8, antialiased; the whole frame is kept."""
    if tuple(frames.shape[-2:]) == size:
        return frames
    return F.interpolate(frames, size=size, mode=interpolation, antialias=True, align_corners=False)


def fit_into(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale uint8 ``(T, 3, H, W)`` into ``(T, 3, *size)`` with its proportions kept, black beside it."""
    height, width = frames.shape[-2:]
    share = min(size[0] / height, size[1] / width)
    inner = max(1, round(height * share)), max(1, round(width * share))
    frames = resize(frames, inner, "bilinear")
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    return F.pad(frames, (left, size[1] - inner[1] - left, top, size[0] - inner[0] - top))
