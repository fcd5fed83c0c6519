"""The articulated figure of the sample clips: bones of fixed length, posed by exercise and phase.

Lengths are in body heights; x points to the person's front, y up (the floor is 0), z to the person's right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]  # (3,)
Colour = tuple[int, int, int]

SIDES = (("left", -1.0), ("right", 1.0))
UP, FRONT, RIGHT = np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class Person:
    """Bone lengths in body heights, and colours."""

    torso: float
    neck: float
    head: float
    arm: float  # each of the upper and the lower arm
    leg: float  # each of the thigh and the shin
    shoulders: float  # half the width
    hips: float
    girth: float
    skin: Colour
    hair: Colour
    shirt: Colour
    trousers: Colour
    shoes: Colour
    long_trousers: bool
    long_sleeves: bool


@dataclass(kw_only=True)
class Pose:
    """Joint positions by name, and equipment as bars: (end, end, radius, colour, discs at the ends)."""

    joints: dict[str, Vector] = field(default_factory=dict)
    bars: list[tuple[Vector, Vector, float, Colour, float]] = field(default_factory=list)
    mat: tuple[float, float] | None = None  # from x to x on the floor


def point(x: float, y: float, z: float = 0.0) -> Vector:
    """Return a position as an array, shape (3,)."""
    return np.array([x, y, z], dtype=np.float64)


def unit(vector: Vector) -> Vector:
    """Return the direction of a vector, of length 1."""
    return vector / float(np.linalg.norm(vector))


def bend(start: Vector, target: Vector, bone: float, towards: Vector) -> tuple[Vector, Vector]:
    """Return the middle and the end of a limb of two equal bones that reaches for ``target``.

    The middle joint points ``towards`` a direction; a target out of reach is approached, so bones never stretch.
    """
    reach = target - start
    distance = max(float(np.linalg.norm(reach)), 1e-6)
    along = reach / distance
    distance = min(distance, 1.999 * bone)
    side = towards - along * float(towards @ along)
    side /= max(float(np.linalg.norm(side)), 1e-6)
    middle = start + along * distance / 2 + side * math.sqrt(bone**2 - distance**2 / 4)
    return middle, start + along * distance


def body(pose: Pose, person: Person, hip: Vector, spine: Vector, gaze: Vector) -> None:
    """Place hips, shoulders and head along ``spine`` (a unit vector); the head looks along ``gaze``."""
    joints = pose.joints
    chest = hip + spine * person.torso
    joints["hip"], joints["chest"] = hip, chest
    joints["head"] = chest + (0.8 * spine + 0.2 * gaze) * (person.neck + person.head)
    joints["gaze"] = gaze
    for side, sign in SIDES:
        joints[f"{side} hip"] = hip + RIGHT * sign * person.hips
        joints[f"{side} shoulder"] = chest + RIGHT * sign * person.shoulders


def limb(pose: Pose, person: Person, kind: str, side: str, target: Vector, towards: Vector) -> None:
    """Let an arm (shoulder, elbow, hand) or a leg (hip, knee, ankle) reach for a target."""
    root, middle, end = ("shoulder", "elbow", "hand") if kind == "arm" else ("hip", "knee", "ankle")
    bone = person.arm if kind == "arm" else person.leg
    start = pose.joints[f"{side} {root}"]
    pose.joints[f"{side} {middle}"], pose.joints[f"{side} {end}"] = bend(start, target, bone, towards)


def foot(pose: Pose, side: str, direction: Vector) -> None:
    """Add the toe of a foot whose ankle is known."""
    pose.joints[f"{side} toe"] = pose.joints[f"{side} ankle"] + direction


def lean(angle: float) -> Vector:
    """Return the upright unit vector, leaned forward by an angle in radians."""
    return point(math.sin(angle), math.cos(angle))


FLAT = point(0.105, -0.025)  # from the ankle to the toe of a foot on the floor
ANKLE = 0.045


def stand(pose: Pose, person: Person, *, drop: float = 0.0, width: float = 0.09, spine: Vector = UP) -> None:
    """Stand on both feet, hips lowered by ``drop`` and moved back for balance."""
    height = ANKLE + 1.985 * person.leg - drop
    body(pose, person, point(-0.5 * drop, height), spine, FRONT)
    for side, sign in SIDES:
        limb(pose, person, "leg", side, point(0, ANKLE, sign * width), FRONT + 0.35 * RIGHT * sign)
        foot(pose, side, FLAT + RIGHT * sign * 0.02)


# --- exercises: (person, phase 0 = start .. 1 = effort, repetition, style) -> pose ---------------------------------

Style = dict[str, float]
IRON: Colour = (60, 62, 68)
STEEL: Colour = (170, 174, 180)


def squat(person: Person, d: float, _rep: int, style: Style) -> Pose:
    """Bend the knees until the thighs are about level, arms stretched forward."""
    pose = Pose()
    stand(pose, person, drop=0.27 * d, width=0.12, spine=lean(0.08 + (0.5 + 0.2 * style["a"]) * d))
    for side, sign in SIDES:
        raised = 0.3 + 1.25 * min(1.0, 1.6 * d)
        ahead = point(math.sin(raised), -math.cos(raised), 0.08 * sign)
        limb(pose, person, "arm", side, pose.joints[f"{side} shoulder"] + 1.95 * person.arm * ahead, -UP)
    return pose


def jumping_jack(person: Person, d: float, _rep: int, style: Style) -> Pose:
    """Jump the feet apart while the arms swing up sideways."""
    pose = Pose()
    width = 0.06 + (0.2 + 0.06 * style["a"]) * d
    hop = 0.05 * math.sin(math.pi * d) ** 2
    height = ANKLE + math.sqrt((1.97 * person.leg) ** 2 - (width - person.hips) ** 2)
    body(pose, person, point(0, height + hop), UP, FRONT)
    for side, sign in SIDES:
        limb(pose, person, "leg", side, point(0, ANKLE + hop, sign * width), FRONT)
        foot(pose, side, FLAT + RIGHT * sign * 0.04 - UP * (0.6 * hop))
        angle = 0.2 + (2.5 + 0.3 * style["b"]) * d
        swing = point(0.05, -math.cos(angle), sign * math.sin(angle))
        limb(pose, person, "arm", side, pose.joints[f"{side} shoulder"] + 1.93 * person.arm * swing, UP)
    return pose


def push_up(person: Person, d: float, _rep: int, style: Style) -> Pose:
    """Lower a straight body between the hands, on the toes."""
    pose = Pose()
    ankle, length = 0.1, 1.97 * person.leg + person.torso
    top, low = 1.9 * person.arm + 0.02, 0.13
    tilt = math.asin((top + (low - top) * d - ankle) / length)
    line = point(math.cos(tilt), math.sin(tilt))
    start = point(-0.5, ankle)
    body(pose, person, start + line * 1.97 * person.leg, line, (line - UP) / math.sqrt(2))
    for side, sign in SIDES:
        limb(pose, person, "leg", side, start + RIGHT * sign * 0.06, -UP)
        foot(pose, side, point(0.03, -0.09))
        hand = point(-0.5 + length * 0.985, 0.015, sign * (person.shoulders + 0.03 + 0.06 * style["a"]))
        limb(pose, person, "arm", side, hand, point(-1.0, 0.6, sign * (0.3 + style["a"])))
    return pose


def pull_up(person: Person, d: float, _rep: int, style: Style) -> Pose:
    """Hang on a high bar and pull the chin over it."""
    pose = Pose()
    bar, grip = 1.38, person.shoulders + 0.04 + 0.1 * style["a"]
    reach = math.sqrt((1.96 * person.arm) ** 2 - (grip - person.shoulders) ** 2)
    chest = bar - reach + (reach - 0.06) * d
    body(pose, person, point(-0.02, chest - person.torso), UP, (FRONT + 0.5 * UP) / 1.118)
    for side, sign in SIDES:
        limb(pose, person, "arm", side, point(0.02, bar, sign * grip), -UP + 0.6 * RIGHT * sign - 0.2 * FRONT)
        knees = 0.25 + 1.0 * style["b"]
        shin = point(-math.sin(knees), -math.cos(knees))
        thigh = point(0.12, -1)
        hip = pose.joints[f"{side} hip"]
        knee = hip + unit(thigh) * person.leg
        pose.joints[f"{side} knee"], pose.joints[f"{side} ankle"] = knee, knee + shin * person.leg
        foot(pose, side, point(0.06, -0.09))
    pose.bars.append((point(0.02, bar, -0.6), point(0.02, bar, 0.6), 0.014, STEEL, 0.0))
    for z in (-0.6, 0.6):
        pose.bars.append((point(0.02, 0.0, z), point(0.02, bar + 0.03, z), 0.02, IRON, 0.0))
    return pose


def lunge(person: Person, d: float, rep: int, style: Style) -> Pose:
    """Step far forward and lower the back knee, hands on the hips; legs take turns."""
    pose = Pose()
    stride = 0.52 + 0.08 * style["a"]
    step, low = min(1.0, d / 0.65), max(0.0, (d - 0.25) / 0.75)
    height = ANKLE + 1.97 * person.leg - 0.05 * step - 0.17 * low
    body(pose, person, point(0.5 * stride * step, height), lean(0.05 + 0.08 * d), FRONT)
    for number, (side, sign) in enumerate(SIDES):
        if number == rep % 2:
            lift = 0.09 * math.sin(math.pi * step)
            limb(pose, person, "leg", side, point(stride * step, ANKLE + lift, 0.07 * sign), FRONT)
            foot(pose, side, FLAT + UP * 0.4 * lift)
        else:  # the ball of the foot stays where it is, the heel rises
            heel = 0.95 * step
            turned = point(0.105 * math.cos(heel), -0.025 - 0.09 * math.sin(heel))
            ball = point(0.0, ANKLE, 0.07 * sign) + FLAT
            limb(pose, person, "leg", side, ball - turned, FRONT)
            foot(pose, side, turned)
        hand = pose.joints[f"{side} hip"] + point(0.03, 0.05, 0.05 * sign)
        limb(pose, person, "arm", side, hand, RIGHT * sign - 0.5 * FRONT)
    return pose


def sit_up(person: Person, d: float, _rep: int, style: Style) -> Pose:
    """Lie with bent knees and raise the trunk towards them, hands at the head."""
    pose = Pose(mat=(-0.62, 0.3))
    angle = 0.06 + (1.25 + 0.2 * style["a"]) * d
    spine = point(-math.cos(angle), math.sin(angle))
    front = point(math.sin(angle), math.cos(angle))
    body(pose, person, point(0, 0.085), spine, front)
    for side, sign in SIDES:
        limb(pose, person, "leg", side, point(0.33 + 0.05 * style["b"], ANKLE, 0.08 * sign), UP)
        foot(pose, side, FLAT)
        hand = pose.joints["head"] + RIGHT * sign * person.head - 0.3 * person.head * front
        limb(pose, person, "arm", side, hand, 0.8 * RIGHT * sign + spine + 0.6 * front)
    return pose


def biceps_curl(person: Person, d: float, rep: int, style: Style) -> Pose:
    """Stand and lift dumbbells from the thighs to the shoulders, elbows still."""
    pose = Pose()
    stand(pose, person, drop=0.01, width=0.1, spine=lean(0.02 - 0.06 * d))
    for number, (side, sign) in enumerate(SIDES):
        works = style["b"] < 0.5 or number == rep % 2
        angle = 0.15 + (2.35 if works else 0.0) * d
        elbow = pose.joints[f"{side} shoulder"] + person.arm * unit(point(0.05, -0.99, 0.1 * sign))
        hand = elbow + person.arm * unit(point(math.sin(angle), -math.cos(angle), 0.12 * sign))
        pose.joints[f"{side} elbow"], pose.joints[f"{side} hand"] = elbow, hand
        pose.bars.append((hand - 0.065 * RIGHT, hand + 0.065 * RIGHT, 0.013, STEEL, 0.04))
    return pose


def shoulder_press(person: Person, d: float, _rep: int, style: Style) -> Pose:
    """Stand and press a barbell from the shoulders overhead."""
    pose = Pose()
    stand(pose, person, drop=0.01, width=0.11, spine=lean(-0.04 + 0.03 * d))
    grip = person.shoulders + 0.06 + 0.05 * style["a"]
    reach = math.sqrt((1.96 * person.arm) ** 2 - (grip - person.shoulders) ** 2)
    chest = pose.joints["chest"]
    bar = point(float(chest[0]) + 0.12 - 0.1 * d, float(chest[1]) + 0.03 + (reach - 0.03) * d)
    for side, sign in SIDES:
        limb(pose, person, "arm", side, bar + RIGHT * sign * grip, -UP + 0.5 * RIGHT * sign + 0.2 * FRONT)
    pose.bars.append((bar - 0.46 * RIGHT, bar + 0.46 * RIGHT, 0.011, STEEL, 0.1 + 0.03 * style["b"]))
    return pose


SIDE, FACING = (0.0, math.pi), (-math.pi / 2,)


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """How an exercise is posed, from where it is filmed and how long one repetition takes."""

    pose: Callable[[Person, float, int, Style], Pose]
    yaws: tuple[float, ...]
    spread: float  # radians around each yaw
    seconds: tuple[float, float]


EXERCISES = {
    "BicepsCurl": Exercise(pose=biceps_curl, yaws=(*FACING, -0.9, -2.2), spread=0.4, seconds=(0.9, 1.6)),
    "JumpingJack": Exercise(pose=jumping_jack, yaws=(*FACING, math.pi / 2), spread=0.4, seconds=(0.6, 1.0)),
    "Lunge": Exercise(pose=lunge, yaws=SIDE, spread=0.45, seconds=(1.2, 1.8)),
    "PullUp": Exercise(pose=pull_up, yaws=(*FACING, math.pi / 2), spread=0.5, seconds=(1.1, 1.9)),
    "PushUp": Exercise(pose=push_up, yaws=SIDE, spread=0.45, seconds=(0.8, 1.5)),
    "ShoulderPress": Exercise(pose=shoulder_press, yaws=(*FACING, -0.9, -2.2), spread=0.3, seconds=(1.0, 1.7)),
    "SitUp": Exercise(pose=sit_up, yaws=SIDE, spread=0.45, seconds=(1.0, 1.7)),
    "Squat": Exercise(pose=squat, yaws=SIDE, spread=0.6, seconds=(1.0, 1.7)),
}
