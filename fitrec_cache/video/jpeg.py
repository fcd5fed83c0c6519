"""Encode and decode stored frames, one JPEG per frame. Encoding loads no torch, so decoder processes stay small."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, features

from fitrec_cache.errors import StoreCorrupt, UsageError, VideoError

if TYPE_CHECKING:
    import torch

#: Chosen by ``benchmarks/frame_choices.py``, see docs/design.md.
QUALITY = 90

#: The greatest number of pixels in a stored frame (8K); a file that claims more would take too much memory.
MOST_AREA = 7680 * 4320


def codec_version() -> str:
    """Return everything that determines the bits of an encoded frame; it is part of the frame's identity."""
    return f"jpeg quality {QUALITY} 4:2:0, libjpeg-turbo {features.version('libjpeg_turbo')}"


def encode_frames(frames: NDArray[np.uint8]) -> list[bytes]:
    """Encode frames ``(T, H, W, 3)`` uint8 RGB as T JPEG files.

    Raises:
        UsageError: If they are not such frames.
        VideoError: If they are larger than :func:`decode_frames` accepts.
    """
    try:
        array = np.asarray(frames)
    except ValueError as error:
        raise UsageError("frames of several sizes: expected one size") from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or not array.size:
        raise UsageError(f"frames of {array.dtype} {array.shape}: expected uint8 (T, height, width, 3), RGB")
    return [encode_frame(frame) for frame in array]


def encode_frame(frame: NDArray[np.uint8]) -> bytes:
    """Encode one frame ``(H, W, 3)`` uint8 RGB as a JPEG file.

    Raises:
        VideoError: If it is larger than :func:`decode_frames` accepts.
    """
    height, width, _ = frame.shape
    if height * width > MOST_AREA:
        raise VideoError(f"frames of {width} x {height} pixels are too large to be kept: give a smaller --frame-size")
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return buffer.getvalue()


def decode_frames(data: Sequence[bytes]) -> torch.Tensor:
    """Decode T JPEG files of one size for a network.

    Args:
        data: As for :func:`decode_pictures`, whose errors are raised.

    Returns:
        uint8 ``(T, 3, H, W)`` RGB, on the CPU, channels last in memory.
    """
    import torch

    return torch.from_numpy(decode_pictures(data)).permute(0, 3, 1, 2)  # so resizing is four times faster


def decode_pictures(data: Sequence[bytes]) -> NDArray[np.uint8]:
    """Decode T JPEG files of one size.

    Args:
        data: T encoded frames, at least one; equal neighbours (clips shorter than T repeat frames) are decoded once.

    Returns:
        uint8 ``(T, H, W, 3)`` RGB.

    Raises:
        StoreCorrupt: If a frame does not decode or the sizes differ.
    """
    first: dict[bytes, int] = {}
    try:
        height, width = _size(data[0])
        frames = np.empty((len(data), height, width, 3), dtype=np.uint8)
        for number, item in enumerate(data):
            earlier = first.setdefault(item, number)
            if earlier < number:
                frames[number] = frames[earlier]
            elif _size(item) != (height, width):
                raise ValueError(f"it is {_size(item)} pixels large, the first is {(height, width)}")
            else:  # the same library and the same bits as with Pillow, in half the time
                simplejpeg.decode_jpeg(item, colorspace="RGB", buffer=frames[number])
    except ValueError as error:
        raise StoreCorrupt(f"a stored frame does not decode: {error}") from error
    return frames


def _size(data: bytes) -> tuple[int, int]:
    """Return height and width in pixels; raise ValueError unless it is a JPEG of a sensible size."""
    if not data.startswith(b"\xff\xd8"):
        raise ValueError("it is no JPEG file")
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    if height * width > MOST_AREA:
        raise ValueError(f"it is {width} x {height} pixels large")
    return int(height), int(width)


def thumbnail(data: bytes, *, width: int) -> tuple[bytes, int, int]:
    """Return a stored frame as a small JPEG, with its width and height in pixels; it is never enlarged.

    Raises:
        StoreCorrupt: If the frame does not decode.
    """
    buffer = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            picture.draft("RGB", (width, width))
            picture.thumbnail((width, 2 * width))
            picture.convert("RGB").save(buffer, "JPEG", quality=72, optimize=True)
            return buffer.getvalue(), picture.width, picture.height
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise StoreCorrupt(f"a stored frame does not decode: {error}") from error
