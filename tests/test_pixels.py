from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from fitrec_cache.training.pixels import to_pixels


def test_pixels_lie_as_rows_and_columns():
    frames = torch.zeros(1, 3, 128, 256, dtype=torch.uint8)
    frames[:, 0, :64] = 200  # the upper half is red
    pixels = to_pixels(frames)
    assert pixels.shape == (1, 64, 64, 3)
    assert pixels[0, :30, :, 0].min() == 200
    assert pixels[0, 34:].max() == 0
    assert pixels[..., 1:].max() == 0


def test_shrinking_keeps_within_the_range():
    frames = torch.zeros(1, 3, 64, 128, dtype=torch.uint8)
    frames[..., 64:] = 100  # bilinear, antialiased: no overshoot
    assert to_pixels(frames).max() == 100


def test_shrinking_averages_all_pixels_as_pil_does():
    frames = torch.randint(0, 256, (2, 3, 144, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures = [Image.fromarray(frame.permute(1, 2, 0).numpy()).resize((64, 64), Image.BILINEAR) for frame in frames]
    assert np.abs(to_pixels(frames).astype(int) - np.stack(pictures)).max() <= 1
