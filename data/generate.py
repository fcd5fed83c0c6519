"""Draw the sample clips: exercises done by an articulated figure, as real H.264 files in UCF101's layout.

Everything is drawn here, from a seed: a skeleton of fixed bone lengths is posed in three dimensions, seen by a camera
and painted over a made-up gym. A group is one "recording": the same person, background, light and view; its clips
differ in tempo, phase, amplitude and length. Backgrounds, people and light are drawn without knowing the class.

    python data/generate.py --out data/samples --seed 0
"""

from __future__ import annotations

import argparse
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from figure import EXERCISES, Exercise, Person, Pose, Style
from numpy.typing import NDArray
from picture import (
    CLOTHES,
    HAIRS,
    SKINS,
    SUPERSAMPLING,
    Camera,
    Painter,
    Random,
    draw_background,
    draw_light,
    paint_equipment,
    paint_figure,
    paint_floor,
    paint_shadow,
    pick,
    shade,
)
from PIL import Image, ImageDraw

FPS = 25
SIZES = ((176, 132), (192, 144), (208, 156))  # px, width and height


def draw_person(random: Random) -> Person:
    """Return a person of random build, skin and clothes."""
    tall = random.uniform(0.94, 1.06)
    return Person(
        torso=0.295 / tall,
        neck=0.045,
        head=random.uniform(0.062, 0.074),
        arm=random.uniform(0.158, 0.175) * tall,
        leg=0.24 * tall,
        shoulders=random.uniform(0.1, 0.125),
        hips=random.uniform(0.055, 0.07),
        girth=random.uniform(0.85, 1.3),
        skin=pick(random, SKINS),
        hair=pick(random, HAIRS),
        shirt=pick(random, CLOTHES),
        trousers=pick(random, CLOTHES),
        shoes=pick(random, CLOTHES),
        long_trousers=bool(random.random() < 0.5),
        long_sleeves=bool(random.random() < 0.3),
    )


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What the clips of a group share."""

    exercise: Exercise
    person: Person
    camera: Camera
    style: Style
    backdrop: Image.Image
    light: NDArray[np.float64]


def record(name: str, group: int, seed: int) -> Recording:
    """Return the recording of a group: person, view, backdrop and light, each from the seed."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode()), group])
    exercise = EXERCISES[name]
    width, height = SIZES[int(random.integers(len(SIZES)))]
    person = draw_person(random)
    style = {"a": float(random.random()), "b": float(random.random())}
    yaw = exercise.yaws[group % len(exercise.yaws)] + random.uniform(-1, 1) * exercise.spread
    camera = Camera(yaw=yaw, pitch=random.uniform(0.03, 0.22), scale=1.0, centre=(0.0, 0.0))
    camera = frame_figure(camera, exercise, person, style, (width, height), random)
    horizon = min(camera.centre[1] - random.uniform(0.04, 0.25) * height, 0.92 * height)
    return Recording(
        exercise=exercise,
        person=person,
        camera=camera,
        style=style,
        backdrop=draw_background(random, width, height, horizon),
        light=draw_light(random, width, height),
    )


def frame_figure(
    camera: Camera, exercise: Exercise, person: Person, style: Style, size: tuple[int, int], random: Random
) -> Camera:
    """Return the camera moved and scaled so that the whole movement is in the picture, at a random place in it."""
    poses = [exercise.pose(person, d, rep, style) for d in (0.0, 0.3, 0.6, 1.0) for rep in (0, 1)]
    seen = np.array([camera.project(p)[:2] for pose in poses for k, p in pose.joints.items() if k != "gaze"])
    (left, top), (right, low) = seen.min(axis=0) - 0.09, seen.max(axis=0) + 0.05
    scale = random.uniform(0.78, 1.0) * min(size[0] / (right - left), size[1] / (low - top))
    free = size[0] - scale * (right - left), size[1] - scale * (low - top)
    shift = free[0] * random.uniform(0.15, 0.85), free[1] * random.uniform(0.5, 1.0)
    centre = shift[0] - scale * left, shift[1] - scale * top
    return Camera(yaw=camera.yaw, pitch=camera.pitch, scale=scale, centre=centre)


def render(recording: Recording, pose: Pose) -> NDArray[np.uint8]:
    """Return the picture of a pose: uint8, shape (height, width, 3), RGB."""
    size = recording.backdrop.size
    large = recording.backdrop.resize((SUPERSAMPLING * size[0], SUPERSAMPLING * size[1]), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(large)
    paint_floor(draw, recording.camera, pose, shade(recording.person.shoes, 0.7))
    shadow = paint_shadow(size, recording.camera, pose).resize(large.size, Image.Resampling.BILINEAR)
    large.paste(Image.new("RGB", large.size, (15, 15, 20)), mask=shadow)
    painter = Painter(recording.camera)
    paint_equipment(painter, pose)
    paint_figure(painter, pose, recording.person)
    painter.paint(draw)
    small = np.asarray(large.reduce(SUPERSAMPLING), dtype=np.float64)
    return np.clip(small * recording.light, 0, 255).astype(np.uint8)


def draw_clip(name: str, group: int, clip: int, *, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of one clip, uint8 (height, width, 3), the same for the same arguments.

    Args:
        name: One of EXERCISES.
        group: The recording, at least 1: person, view, background.
        clip: The clip of the recording, at least 1: tempo, phase, amplitude, length.
        seed: Seed of everything.
    """
    recording = record(name, group, seed)
    random = np.random.default_rng([seed, zlib.crc32(name.encode()), group, clip])
    period = random.uniform(*recording.exercise.seconds) * FPS
    phase, amplitude = random.uniform(0, 1), random.uniform(0.85, 1.0)
    for number in range(int(random.integers(40, 61))):
        turns = phase + number / period
        effort = amplitude * (1 - math.cos(2 * math.pi * turns)) / 2
        yield render(recording, recording.exercise.pose(recording.person, effort, int(turns), recording.style))


def write_clip(path: Path, frames: Iterator[NDArray[np.uint8]], *, crf: int = 28) -> int:
    """Encode frames as H.264 at 25 frames a second and return the size of the file in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"crf": str(crf), "preset": "slow"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.codec_context.gop_size = 24
        stream.codec_context.thread_count = 1  # the same bytes whatever the machine
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(frames):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.stat().st_size


def main() -> None:
    """Draw the clips that the command line asks for."""
    parser = argparse.ArgumentParser(description="Draw sample clips of exercises in UCF101's layout.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the class folders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--classes", nargs="+", choices=sorted(EXERCISES), default=sorted(EXERCISES), metavar="CLASS")
    parser.add_argument("--groups", type=int, default=6, help="recordings of each class")
    parser.add_argument("--clips", type=int, default=2, help="clips of each recording")
    parser.add_argument("--crf", type=int, default=28, help="x264 quality, larger is smaller files")
    args = parser.parse_args()
    sizes = [
        write_clip(
            args.out / name / f"v_{name}_g{group:02d}_c{clip:02d}.mp4",
            draw_clip(name, group, clip, seed=args.seed),
            crf=args.crf,
        )
        for name in args.classes
        for group in range(1, args.groups + 1)
        for clip in range(1, args.clips + 1)
    ]
    print(f"{len(sizes)} clips, {len(args.classes)} classes, {sum(sizes):,} bytes in {args.out}")


if __name__ == "__main__":
    main()
