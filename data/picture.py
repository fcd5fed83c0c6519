"""Paints the figure of the sample clips as a camera sees it, and the made-up gym behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from figure import IRON, RIGHT, SIDES, Colour, Person, Pose, Vector, point
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Random = np.random.Generator

SUPERSAMPLING = 2
CLOTHES: tuple[Colour, ...] = (
    (200, 40, 45), (35, 80, 170), (30, 130, 80), (235, 235, 230), (40, 40, 48), (240, 180, 40), (120, 60, 150),
    (230, 110, 50), (60, 170, 190), (220, 120, 160),
)  # fmt: skip
SKINS: tuple[Colour, ...] = ((240, 205, 180), (225, 180, 145), (190, 140, 105), (140, 95, 65), (95, 65, 48))
HAIRS: tuple[Colour, ...] = ((30, 25, 25), (80, 50, 30), (150, 110, 60), (200, 170, 110), (130, 130, 130))
WALLS: tuple[Colour, ...] = ((205, 205, 200), (120, 135, 150), (160, 140, 120), (85, 90, 100), (170, 185, 165))
FLOORS: tuple[Colour, ...] = ((150, 115, 80), (75, 80, 88), (110, 110, 112), (60, 90, 85), (185, 165, 140))


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Where the figure is seen from and where it stands in the picture."""

    yaw: float  # radians; 0 sees the person's right side, facing right
    pitch: float  # radians from above
    scale: float  # px a body height
    centre: tuple[float, float]  # px at which the origin of the floor is seen

    def project(self, point: Vector) -> tuple[float, float, float, float]:
        """Return x and y in px, the depth (larger is nearer) and the size in px of one body height there."""
        x, y, z = point
        across = x * math.cos(self.yaw) + z * math.sin(self.yaw)
        depth = z * math.cos(self.yaw) - x * math.sin(self.yaw)
        rise = y * math.cos(self.pitch) - depth * math.sin(self.pitch)
        size = self.scale * 5 / (5 - depth)
        return self.centre[0] + across * size, self.centre[1] - rise * size, depth, size


def pick(random: Random, colours: tuple[Colour, ...], spread: int = 18) -> Colour:
    """Return one of the colours, varied a little."""
    base = np.array(colours[int(random.integers(len(colours)))]) + random.integers(-spread, spread + 1, 3)
    red, green, blue = (int(value) for value in np.clip(base, 5, 250))
    return red, green, blue


def draw_background(random: Random, width: int, height: int, horizon: float) -> Image.Image:
    """Return a wall and a floor, plain or cluttered, with texture and uneven light; ``horizon`` is in px."""
    image = Image.new("RGB", (width, height), pick(random, WALLS, 30))
    draw = ImageDraw.Draw(image)
    kind = random.random()
    if kind > 0.2:  # otherwise one flat colour all over
        draw.rectangle((0, horizon, width, height), fill=pick(random, FLOORS, 25))
    if kind > 0.35:
        for _ in range(int(random.integers(1, 6))):
            left, top = random.uniform(-0.1, 0.95) * width, random.uniform(0, 0.8) * horizon
            right, low = left + random.uniform(0.08, 0.35) * width, top + random.uniform(0.1, 0.5) * height
            draw.rectangle((left, top, right, min(low, horizon)), fill=pick(random, WALLS + CLOTHES, 30))
    if kind > 0.5:
        for step in np.linspace(-1.5, 2.5, int(random.integers(5, 14))):  # floor boards run towards the camera
            draw.line((width * (0.25 + 0.5 * step), horizon, width * step, height), fill=pick(random, FLOORS, 10))
    if random.random() < 0.4:
        left, wide = random.uniform(-0.2, 0.7) * width, random.uniform(0.3, 0.7) * width
        top = random.uniform(horizon + 0.1 * (height - horizon), height - 6)
        mat = ((left + 6, top), (left + wide, top), (left + wide + 8, top + 12), (left - 2, top + 12))
        draw.polygon(mat, fill=pick(random, CLOTHES, 30))
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.0, 1.2)))


def draw_light(random: Random, width: int, height: int) -> NDArray[np.float64]:
    """Return the light on each pixel, around 1, shape (height, width, 3): a slope, a tint and coarse texture."""
    across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    slope = random.uniform(-0.18, 0.18, 2)
    plane = random.uniform(0.75, 1.1) * (1 + slope[0] * across + slope[1] * down)
    coarse = Image.fromarray(random.normal(0, random.uniform(0, 0.06), (height // 6, width // 6)).astype(np.float32))
    plane = plane + np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    tinted: NDArray[np.float64] = plane[:, :, None] * random.uniform(0.93, 1.07, 3)
    return tinted


def shade(colour: Colour, factor: float) -> Colour:
    """Return a colour made darker (below 1) or lighter."""
    red, green, blue = (max(0, min(255, round(value * factor))) for value in colour)
    return red, green, blue


def hull(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the convex hull of points (Andrew's monotone chain)."""

    def half(ordered: list[tuple[float, float]]) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for x, y in ordered:
            while len(chain) > 1 and (chain[-1][0] - chain[-2][0]) * (y - chain[-2][1]) <= (
                chain[-1][1] - chain[-2][1]
            ) * (x - chain[-2][0]):
                chain.pop()
            chain.append((x, y))
        return chain[:-1]

    ordered = sorted(set(points))
    return half(ordered) + half(ordered[::-1])


class Painter:
    """Collects round-ended shapes with their depth and paints the far ones first."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.shapes: list[tuple[float, list[tuple[float, float]], Colour]] = []

    def blob(self, balls: list[tuple[Vector, float]], colour: Colour, nearer: float = 0.0) -> None:
        """Add the convex hull of balls (position, radius), with a lighter core as if lit from above."""
        outline, core, depths = [], [], []
        for position, radius in balls:
            x, y, depth, size = self.camera.project(position)
            depths.append(depth)
            for angle in np.linspace(0, 2 * math.pi, 12, endpoint=False):
                dx, dy = radius * size * math.cos(angle), radius * size * math.sin(angle)
                outline.append((x + dx, y + dy))
                core.append((x - 0.15 * radius * size + 0.6 * dx, y - 0.2 * radius * size + 0.6 * dy))
        depth = float(np.mean(depths)) + nearer
        self.shapes.append((depth, hull(outline), shade(colour, 0.78)))
        self.shapes.append((depth + 1e-6, hull(core), colour))

    def paint(self, draw: ImageDraw.ImageDraw) -> None:
        """Paint everything collected, the far shapes first."""
        for _, outline, colour in sorted(self.shapes, key=lambda shape: shape[0]):
            draw.polygon([(SUPERSAMPLING * x, SUPERSAMPLING * y) for x, y in outline], fill=colour)


def paint_figure(painter: Painter, pose: Pose, person: Person) -> None:
    """Add head, trunk, arms and legs."""
    joints, girth = pose.joints, person.girth
    trunk = [(joints[f"{s} shoulder"], 0.038 * girth) for s, _ in SIDES]
    trunk += [(joints[f"{s} hip"], 0.05 * girth) for s, _ in SIDES]
    painter.blob(trunk, person.shirt)
    painter.blob([(joints[f"{s} hip"], 0.056 * girth) for s, _ in SIDES], person.trousers, 0.002)
    painter.blob([(joints["chest"], 0.03 * girth), (joints["head"], 0.03)], person.skin, -0.005)
    crown = joints["head"] - joints["chest"]
    crown = crown / float(np.linalg.norm(crown))
    painter.blob([(joints["head"], person.head)], person.skin)
    hair = joints["head"] + person.head * (0.25 * crown - 0.3 * joints["gaze"])
    painter.blob([(hair, 0.97 * person.head)], person.hair)
    for side, sign in SIDES:
        eye = joints["head"] + person.head * (0.85 * joints["gaze"] + 0.4 * sign * RIGHT + 0.05 * crown)
        painter.blob([(eye, 0.011)], (25, 20, 20))
        paint_limbs(painter, joints, side, person)


def paint_limbs(painter: Painter, joints: dict[str, Vector], side: str, person: Person) -> None:
    """Add one arm and one leg, with sleeves, trousers and a shoe."""
    g = person.girth
    shoulder, elbow, hand = (joints[f"{side} {name}"] for name in ("shoulder", "elbow", "hand"))
    painter.blob([(shoulder, 0.034 * g), (elbow, 0.026 * g)], person.skin)
    painter.blob([(shoulder, 0.038 * g), (0.45 * shoulder + 0.55 * elbow, 0.034 * g)], person.shirt, 0.003)
    lower = person.shirt if person.long_sleeves else person.skin
    painter.blob([(elbow, 0.026 * g), (hand, 0.019 * g)], lower, 0.004)
    painter.blob([(hand, 0.027 * g)], person.skin, 0.006)
    hip, knee, ankle, toe = (joints[f"{side} {name}"] for name in ("hip", "knee", "ankle", "toe"))
    painter.blob([(hip, 0.053 * g), (knee, 0.036 * g)], person.trousers, 0.001)
    shin = person.trousers if person.long_trousers else person.skin
    painter.blob([(knee, 0.036 * g), (ankle, 0.023 * g)], shin)
    painter.blob([(ankle, 0.03), (toe, 0.02)], person.shoes, 0.002)


def paint_equipment(painter: Painter, pose: Pose) -> None:
    """Add bars in short pieces, so that they can pass behind and in front of the figure, and their discs."""
    for start, end, radius, colour, disc in pose.bars:
        for step in range(8):
            pieces = [start + (end - start) * share / 8 for share in (step, step + 1)]
            painter.blob([(piece, radius) for piece in pieces], colour, 0.02)
        for place in (start, end) if disc else ():
            paint_disc(painter, place, end - start, disc)


def paint_disc(painter: Painter, centre: Vector, axis: Vector, radius: float) -> None:
    """Add a weight: a thick disc across the axis, which lies along z."""
    half = 0.018 * axis / float(np.linalg.norm(axis))
    rim = [radius * point(math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 12, endpoint=False)]
    painter.blob([(centre + sign * half + spoke, 0.004) for spoke in rim for sign in (-1, 1)], IRON, 0.01)


def paint_floor(draw: ImageDraw.ImageDraw, camera: Camera, pose: Pose, colour: Colour) -> None:
    """Paint the mat and the shadows of the joints on the floor."""
    if pose.mat:
        corners = [(pose.mat[0], -0.22), (pose.mat[1], -0.22), (pose.mat[1], 0.22), (pose.mat[0], 0.22)]
        seen = [camera.project(point(x, 0, z)) for x, z in corners]
        draw.polygon([(SUPERSAMPLING * x, SUPERSAMPLING * y) for x, y, _, _ in seen], fill=colour)


def paint_shadow(size: tuple[int, int], camera: Camera, pose: Pose) -> Image.Image:
    """Return where the floor is in shade, as a soft mask of mode L."""
    mask = Image.new("L", size, 0)
    draw = ImageDraw.Draw(mask)
    bones = [joint for name, joint in pose.joints.items() if name != "gaze"]
    for joint in sorted(bones, key=lambda joint: -float(joint[1])):  # the lowest, which shade most, come last
        x, y, _, scale = camera.project(joint * (1, 0, 1))
        wide, strength = 0.1 * scale, round(110 * max(0.15, 1 - 1.1 * float(joint[1])))
        draw.ellipse((x - wide, y - 0.3 * wide, x + wide, y + 0.3 * wide), fill=strength)
    return mask.filter(ImageFilter.GaussianBlur(1.5))
