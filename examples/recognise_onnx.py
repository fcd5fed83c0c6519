"""Recognise an exercise in a clip with what `fitrec-cache export` wrote, without PyTorch and this program.

    python examples/recognise_onnx.py recogniser squat.mp4

Needs onnxruntime, numpy, av and pillow.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from PIL import Image

#: What the runtime says of a file that is damaged or of another export; they have nothing else in common.
DAMAGED = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
FILTERS = {"bilinear, antialiased": Image.Resampling.BILINEAR, "bicubic, antialiased": Image.Resampling.BICUBIC}


def sample_frames(video: Path, samples: int) -> tuple[list[av.VideoFrame], float]:
    """Return the frames i * n / (samples + 1), i = 1..samples, of the n that decode, and how wide a pixel is."""
    name = str(video.absolute())  # else FFmpeg takes what is in front of a colon for a protocol
    with av.open(name) as container:
        n_frames = sum(1 for _ in sound_frames(container, moving_pictures(container)))
    if not n_frames:
        raise ValueError(f"{video}: no frame of it decodes")
    wanted = [i * n_frames // (samples + 1) for i in range(1, samples + 1)]
    with av.open(name) as container:
        stream = moving_pictures(container)
        frames = {i: frame for i, frame in enumerate(sound_frames(container, stream)) if i in wanted}
        return [frames[i] for i in wanted], float(stream.sample_aspect_ratio or 1)


def sound_frames(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Yield the frames that `extract` counts: those that decode and are not marked as damaged."""
    stream.codec_context.thread_count = 1  # several conceal damage in other ways
    for packet in container.demux(stream):
        with suppress(av.InvalidDataError):
            yield from (frame for frame in packet.decode() if not frame.is_corrupt)


def moving_pictures(container: av.container.InputContainer) -> av.VideoStream:
    """Return the stream of them that players show; cover art is not one."""
    marks = av.stream.Disposition
    streams = [s for s in container.streams.video if not s.disposition & marks.attached_pic]
    if not streams:
        raise ValueError(f"{container.name}: no moving pictures")
    return next((s for s in streams if s.disposition & marks.default), streams[0])


def as_stored(frame: av.VideoFrame, ratio: float, short_side: int) -> Image.Image:
    """Return a frame as `extract` keeps it: reduced if it is larger, upright, and through the same JPEG.

    FFmpeg reduces it as it makes RGB of it. Other ways give other pixels, and may give another answer.
    """
    width = frame.width * ratio  # with square pixels
    scale = min(1.0, short_side / min(width, frame.height))
    size = {"width": max(1, round(width * scale)), "height": max(1, round(frame.height * scale))}
    image = frame.reformat(**size, format="rgb24", interpolation="BICUBIC").to_image()
    as_shown(image, frame).save(data := io.BytesIO(), "JPEG", quality=90)
    return Image.open(data)


def as_shown(image: Image.Image, frame: av.VideoFrame) -> Image.Image:
    """Return a frame's picture upright and not mirrored, as phones say how they were held."""
    matrix = np.frombuffer(bytes(frame.side_data.get("DISPLAYMATRIX") or b""), np.int32)
    if not matrix.any():
        return image
    a, b, _, c, d = matrix[:5].tolist()  # a point (x, y) is shown at (a x + c y, b x + d y)
    x, y = a, d
    if abs(a) < abs(b):
        x, y, image = c, b, image.transpose(Image.Transpose.TRANSPOSE)
    if x < 0:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if y < 0 else image


def resize(frames: list[Image.Image], steps: list[dict]) -> np.ndarray:
    """Return uint8 ``(T, height, width, 3)``."""
    for step in steps:
        size, inside = (step["width"], step["height"]), step.get("fit") == "inside"
        change = fit_inside if inside else Image.Image.resize
        frames = [change(frame, size, FILTERS[step["interpolation"]]) for frame in frames]
    return np.stack([np.asarray(frame) for frame in frames])


def fit_inside(frame: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Return a frame scaled with its proportions, in the middle of a picture of this size, black beside it."""
    share = min(size[0] / frame.width, size[1] / frame.height)
    inner = frame.resize((max(1, round(frame.width * share)), max(1, round(frame.height * share))), resample)
    picture = Image.new("RGB", size)
    picture.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
    return picture


def run(path: Path, x: np.ndarray) -> list[np.ndarray]:
    """Run a network that takes one array. A program that answers often would keep the session."""
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        session = onnxruntime.InferenceSession(str(path))
        return session.run(None, {session.get_inputs()[0].name: x})
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged or of another export: {' '.join(str(error).split())}") from error


def recognise(folder: Path, video: Path) -> tuple[dict[str, float], bool]:
    """Return the probability of each class, and whether the clip is probably of none of them."""
    about = json.loads((folder / "recogniser.json").read_text())
    frames, ratio = sample_frames(video, about["samples"])
    parts = []
    for source in about["inputs"]:
        pixels = resize([as_stored(f, ratio, source["stored_as"]["short_side"]) for f in frames], source["resize"])
        if source["file"]:  # a backbone wants (T, 3, height, width)
            (pixels,) = run(folder / source["file"], pixels.transpose(0, 3, 1, 2))
        parts.append(pixels)
    probabilities, _, unknown = run(folder / about["head"]["file"], np.concatenate(parts, axis=1)[None])
    return dict(zip(about["labels"], probabilities[0].tolist(), strict=True)), bool(unknown[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Recognise an exercise in a clip.")
    parser.add_argument("recogniser", type=Path, help="folder that `fitrec-cache export` wrote")
    parser.add_argument("video", type=Path)
    args = parser.parse_args()
    try:
        answer, is_unknown = recognise(args.recogniser, args.video)
    except (OSError, ValueError, LookupError, av.FFmpegError) as error:  # not there, or not what it should be
        sys.exit(f"Error: {error}")
    for label, probability in sorted(answer.items(), key=lambda item: -item[1])[:5]:
        print(f"{probability:7.1%}  {label}")
    if is_unknown:
        print("unknown: no class is probable enough")
