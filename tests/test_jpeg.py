from __future__ import annotations

import io
import struct

import av
import numpy as np
import pytest
import torch
from PIL import Image, features
from PIL.JpegImagePlugin import get_sampling

from fitrec_cache.errors import StoreCorrupt, UsageError, VideoError
from fitrec_cache.extraction.identity import frame_identity
from fitrec_cache.video import jpeg as module
from fitrec_cache.video.jpeg import codec_version, decode_frames, encode_frames, thumbnail
from fitrec_cache.video.resizing import resize


def pictures(t=3, height=54, width=96):
    small = np.random.default_rng(0).integers(0, 256, (t, 9, 16, 3), dtype=np.uint8)
    return np.stack([np.array(Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC)) for p in small])


@pytest.mark.parametrize("size", [(54, 96), (55, 97), (1, 1), (270, 480)])
def test_frames_come_back_with_the_bits_that_pillow_reads(size):
    data = encode_frames(pictures(height=size[0], width=size[1]))
    back = decode_frames(data)
    assert (back.shape, back.dtype) == ((3, 3, *size), torch.uint8)
    plain = [np.array(Image.open(io.BytesIO(d)).convert("RGB")) for d in data]
    assert np.array_equal(back.permute(0, 2, 3, 1).numpy(), np.stack(plain))


def test_frames_come_back_nearly_as_they_were():
    frames = pictures()
    back = decode_frames(encode_frames(frames)).permute(0, 2, 3, 1).numpy()
    assert np.abs(back.astype(int) - frames).mean() < 6


def test_what_would_not_be_read_again_is_not_written(monkeypatch):
    monkeypatch.setattr(module, "MOST_AREA", 64 * 48)
    assert decode_frames(encode_frames(np.zeros((1, 48, 64, 3), np.uint8))).shape == (1, 3, 48, 64)
    with pytest.raises(VideoError, match=r"frames of 64 x 49 pixels are too large.*smaller --frame-size"):
        encode_frames(np.zeros((1, 49, 64, 3), np.uint8))


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 48, 64), np.uint8),
        np.zeros((2, 48, 64, 1), np.uint8),
        np.zeros((2, 48, 64, 4), np.uint8),
        np.zeros((2, 3, 48, 64), np.uint8),
        np.zeros((2, 48, 64, 3)),
        np.zeros((2, 0, 64, 3), np.uint8),
        [],
        [np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)],
        None,
    ],
)
def test_what_is_no_frames_is_refused_with_what_was_expected(frames):
    with pytest.raises(UsageError, match=r"^frames of .*: expected (uint8 \(T, height, width, 3\), RGB|one size)$"):
        encode_frames(frames)
    assert encode_frames(list(np.zeros((2, 8, 8, 3), np.uint8))) == encode_frames(np.zeros((2, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_the_layout_in_memory_changes_no_bit_of_a_resize(mode):
    frames = decode_frames(encode_frames(pictures(height=90, width=160)))
    assert not frames.is_contiguous()
    assert torch.equal(resize(frames, (32, 48), mode), resize(frames.contiguous(), (32, 48), mode))


def test_equal_neighbours_and_order_are_kept():
    a, b = encode_frames(pictures(2))
    frames = decode_frames([a, a, b, a])
    assert torch.equal(frames[0], frames[1])
    assert torch.equal(frames[0], frames[3])
    assert not torch.equal(frames[0], frames[2])


def claims(data: bytes, height: int, width: int) -> bytes:
    """Return the JPEG with other dimensions in its header."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def test_damage_is_named():
    a, b = encode_frames(pictures(2))
    (other,) = encode_frames(pictures(1, height=60))
    for data in ([a[:-40], b], [b"", b], [b"no picture at all", b], [a, other], [claims(a, 60000, 60000), b]):
        with pytest.raises(StoreCorrupt, match="a stored frame does not decode"):
            decode_frames(data)


def test_frames_are_encoded_as_their_identity_says():
    (data,) = encode_frames(pictures(1))
    assert codec_version().startswith("jpeg quality 90 4:2:0, ")
    with Image.open(io.BytesIO(data)) as picture:
        assert get_sampling(picture) == 2  # Pillow's number of 4:2:0
        assert picture.quantization[0][0] == 3  # 16 of the standard's table at quality 50, a fifth of it at 90


def test_a_thumbnail_is_as_wide_as_asked_and_at_most_twice_as_high():
    for size, expected in (((54, 96), (48, 27)), ((96, 54), (48, 85)), ((300, 50), (16, 96)), ((20, 30), (30, 20))):
        (data,) = encode_frames(pictures(1, *size))
        assert thumbnail(data, width=48)[1:] == expected


def test_a_smaller_picture_beside_larger_ones_is_damage():
    larger, (smaller,) = encode_frames(pictures(2)), encode_frames(pictures(1, height=48))
    with pytest.raises(StoreCorrupt, match="a stored frame does not decode"):
        decode_frames([*larger, smaller])


@pytest.mark.parametrize("library", ["libavcodec", "libavformat", "libswscale", "libjpeg_turbo"])
def test_frames_by_another_version_of_a_library_are_kept_apart(monkeypatch, library):
    before, version = frame_identity(samples=4, frame_size=64), features.version
    if library == "libjpeg_turbo":
        monkeypatch.setattr(features, "version", lambda name: "0.0.1" if name == library else version(name))
    else:
        monkeypatch.setitem(av.library_versions, library, (0, 0, 1))
    assert frame_identity(samples=4, frame_size=64) != before
