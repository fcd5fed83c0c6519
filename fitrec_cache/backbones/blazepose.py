"""Poses as embeddings: BlazePose finds a person in each frame, and a vector describes how the person holds the body."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fitrec_cache.backbones.pose_file import fetch_pose
from fitrec_cache.backbones.tflite_graph import DAMAGED, TFLiteGraph
from fitrec_cache.common.devices import first_line
from fitrec_cache.common.files import is_file
from fitrec_cache.errors import WeightsError

#: Height and width of the square into which a whole frame is fitted before a person is looked for.
SIDE = 512

#: The probability from which something counts as a person.
_PRESENT = 0.5

#: A person's square is this many times as large as the circle around the body that the first network gives.
_MARGIN = 1.25

# Numbers of points: 7, 8 ears; 11, 12 shoulders; 13, 14 elbows; 15, 16 wrists; 19, 20 index fingers; 23, 24 hips;
# 25, 26 knees; 27, 28 ankles; 31, 32 toes. The person's left is odd.
_SHOULDERS, _HIPS = (12, 11), (24, 23)

#: Joints whose angle is measured: the point at the joint is in the middle.
_JOINTS = (
    *((11, 13, 15), (12, 14, 16), (13, 11, 23), (14, 12, 24), (11, 23, 25)),
    *((12, 24, 26), (23, 25, 27), (24, 26, 28), (25, 27, 31), (26, 28, 32)),
)

#: Limbs, and lines across the body, whose slope is measured.
_LIMBS = (
    *((11, 13), (12, 14), (13, 15), (14, 16), (23, 25), (24, 26), (25, 27), (26, 28)),
    *((11, 23), (12, 24), (27, 31), (28, 32), (11, 12), (23, 24), (7, 11), (8, 12)),
)

#: All values are multiplied by this: in principal components of several backbones' features, poses would otherwise
#: hardly count. Heads scale them again (:mod:`fitrec_cache.heads.normalisation`), so it only matters to others.
_WEIGHT = 6.0

_TINY = 1e-6


class PoseModel(nn.Module):
    """Describes the pose of one person in each frame, by :func:`describe`.

    A first network proposes persons, the best of whom is cut out upright; a second one gives points of the body. As
    in MediaPipe for single pictures, but the proposal with the highest score is taken as it is, not averaged with
    those that overlap, and points on the picture are not refined.

    Args:
        detector: Content of the first network's file.
        landmarks: Content of the second network's file.

    Raises:
        ValueError: If they are other networks; see :class:`~fitrec_cache.backbones.tflite_graph.TFLiteGraph`.

    Source:
        Bazarevsky et al., "BlazePose: on-device real-time body pose tracking", 2020, and MediaPipe's graphs.
    """

    #: What timm's models have too: which input they expect.
    pretrained_cfg: ClassVar[dict[str, Any]] = {
        "input_size": (3, SIDE, SIDE),
        "interpolation": "bilinear",
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "crop_pct": 1.0,
    }

    def __init__(self, detector: bytes, landmarks: bytes) -> None:
        super().__init__()
        anchors = _anchors()
        self.detector = TFLiteGraph(detector, [(len(anchors), 12), (len(anchors), 1)])
        self.landmarks = TFLiteGraph(landmarks, [(195,), (1,), (117,)])
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(T, 225)`` of frames ``(T, 3, 512, 512)`` with pixels in [0, 1]."""
        centre, up = self._person(x)
        size = 2 * _MARGIN * up.norm(dim=1)  # (T,), of the whole picture
        turn = torch.atan2(up[:, 0], -up[:, 1])  # (T,): 0 if the body is upright
        cut = _cut(x, centre, size, turn, self.landmarks.size)
        points, present, world = self.landmarks(cut)
        points = points.view(-1, 39, 5)[:, :33]  # x, y in pixels of the square, z, visible, present
        place = _turned(points[..., :2] - self.landmarks.size[0] / 2, turn)
        space = world.view(-1, 39, 3)[:, :33]  # metres from the hips
        space = torch.cat([_turned(space[..., :2], turn), space[..., 2:]], dim=2)
        described = describe(space, place, points[..., 3].sigmoid())
        return torch.where(present >= _PRESENT, described, torch.zeros_like(described))

    def _person(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the middle of the hips of the likeliest person, and from there to the circle around the body.

        Both are ``(T, 2)``, in shares of the picture.
        """
        small = F.interpolate(x, size=self.detector.size, mode="bilinear", antialias=True, align_corners=False)
        boxes, scores = self.detector(2 * small - 1)  # (T, A, 12), (T, A, 1)
        best = scores.argmax(dim=1, keepdim=True)  # (T, 1, 1)
        box = boxes.gather(1, best.expand(-1, -1, boxes.shape[2]))[:, 0]  # (T, 12)
        anchor = self.get_buffer("anchors")[best[:, 0, 0]]  # (T, 2)
        side = self.detector.size[0]
        centre = box[:, 4:6] / side + anchor
        return centre, box[:, 6:8] / side + anchor - centre


def describe(space: Tensor, place: Tensor, visible: Tensor) -> Tensor:
    """Describe poses by numbers that do not depend on where a person stands.

    Points in space and angles do not depend on the direction of the camera either, if it is held level. Which way a
    body faces is not defined where shoulders and hips lie above each other, as in a side plank.

    Args:
        space: ``(T, 33, 3)`` points in metres: to the right, down, away from the camera.
        place: ``(T, 33, 2)`` the same points on the picture, in one unit for both directions.
        visible: ``(T, 33)`` the probability that a point can be seen.

    Returns:
        ``(T, 225)``, six times the following: the points in space, turned about the vertical until the body faces the
        camera; the points on the picture, from the middle of the hips, divided by the largest distance; ``visible``;
        the cosines of ten joints' angles and the slope of sixteen lines, -1 (upwards) to 1; and 1.
    """
    across = _between(space, *_SHOULDERS) + _between(space, *_HIPS)  # (T, 3), to the person's left
    facing = _about_vertical(space, torch.atan2(across[:, 2], across[:, 0]))
    cosines = [(_unit(_between(space, b, a)) * _unit(_between(space, b, c))).sum(dim=1) for a, b, c in _JOINTS]
    slopes = [_unit(_between(space, a, b))[:, 1] for a, b in _LIMBS]
    from_hips = place - place[:, _HIPS].mean(dim=1, keepdim=True)
    on_picture = from_hips / (from_hips.norm(dim=2).amax(dim=1)[:, None, None] + _TINY)
    angles = torch.stack(cosines + slopes, dim=1)  # (T, 26)
    one = torch.ones_like(visible[:, :1])
    return _WEIGHT * torch.cat([facing.flatten(1), on_picture.flatten(1), visible, angles, one], dim=1)


def _between(points: Tensor, start: int, end: int) -> Tensor:
    return points[:, end] - points[:, start]


def _unit(x: Tensor) -> Tensor:
    unit: Tensor = x / (x.norm(dim=1, keepdim=True) + _TINY)
    return unit


def _about_vertical(space: Tensor, angle: Tensor) -> Tensor:
    """Return points turned about the vertical so that what lay at ``angle (T,)`` to the right lies to the right."""
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    x, y, z = space.unbind(dim=2)
    return torch.stack([cos * x + sin * z, y, cos * z - sin * x], dim=2)


def _turned(points: Tensor, angle: Tensor) -> Tensor:
    """Return points ``(T, N, 2)`` turned clockwise, as seen on a picture, by ``angle (T,)``."""
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    x, y = points.unbind(dim=2)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=2)


def _cut(x: Tensor, centre: Tensor, size: Tensor, turn: Tensor, to: tuple[int, int]) -> Tensor:
    """Cut a turned square out of each picture: ``(T, 3, *to)``; outside the picture is black."""
    cos, sin = size * turn.cos(), size * turn.sin()
    move = 2 * centre - 1
    rows = torch.stack([torch.stack([cos, -sin, move[:, 0]], 1), torch.stack([sin, cos, move[:, 1]], 1)], 1)
    grid = F.affine_grid(rows, [x.shape[0], 3, *to], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _anchors() -> Tensor:
    """Return the places from which the first network counts, ``(2254, 2)`` in shares of the picture."""
    maps = []
    for cells, each in ((28, 2), (14, 2), (7, 6)):
        at = (torch.arange(cells) + 0.5) / cells
        y, x = torch.meshgrid(at, at, indexing="ij")
        maps.append(torch.stack([x, y], dim=2).view(-1, 2).repeat_interleave(each, dim=0))
    return torch.cat(maps)


def load_pose_model(name: str, weights: str) -> PoseModel:
    """Load one of :data:`~fitrec_cache.settings.poses.POSES`.

    Args:
        name: Its name.
        weights: A ``.task`` file of MediaPipe's Pose Landmarker, or ``hub``: Google's own, downloaded once.

    Raises:
        WeightsError: If it cannot be downloaded or read.
    """
    file = fetch_pose(name) if weights == "hub" else Path(weights)
    again = ". Delete it, and it is downloaded again" * (weights == "hub")
    if not is_file(file):
        raise WeightsError(f"weights file {str(file)[:300]} not found: expected a .task file, or `hub`")
    try:
        with zipfile.ZipFile(file) as archive:
            detector, landmarks = (archive.read(f"pose_{part}.tflite") for part in ("detector", "landmarks_detector"))
    except (OSError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(
            f"weights file {file} is not a model of MediaPipe's Pose Landmarker ({first_line(error)}): expected "
            f"pose_landmarker_{name.rpartition('_')[2]}.task{again}"
        ) from error
    try:
        return PoseModel(detector, landmarks)
    except DAMAGED as error:
        raise WeightsError(
            f"the networks in {file} cannot be read ({first_line(error)}): expected pose_detector.tflite and "
            f"pose_landmarks_detector.tflite as Google publishes them{again}"
        ) from error
