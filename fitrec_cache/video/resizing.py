"""The one function that resizes frames, for backbones and for the heads that are trained on small frames."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize(frames: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Resize uint8 ``(T, 3, H, W)`` to ``(T, 3, *size)`` uint8, antialiased; the whole frame is kept."""
    if tuple(frames.shape[-2:]) == size:
        return frames
    return F.interpolate(frames, size=size, mode=interpolation, antialias=True, align_corners=False)
