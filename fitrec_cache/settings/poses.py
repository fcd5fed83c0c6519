"""Which networks see poses, and how their features are marked; the networks are in ``backbones/blazepose.py``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: By name: sha256 of Google's model file, as projects that download it have published it.
POSES = {
    "blazepose_lite": "59929e1d1ee95287735ddd833b19cf4ac46d29bc7afddbbf6753c459690d574a",
    "blazepose_full": "5134a3aad27a58b93da0088d431f366da362b44e3ccfbe3462b3827a839011b1",
}

#: The one that ``learn --poses`` takes unless another is named.
USUAL_POSE = "blazepose_full"

#: Value of ``output`` in the identity of poses, to be changed with what :func:`.blazepose.describe` returns.
POSE = "pose, version 1"

#: Length of an embedding: 33 points in space, 33 on the picture, how visible each is, 26 angles, and whether anybody
#: was found.
POSE_DIM = 33 * 3 + 33 * 2 + 33 + 26 + 1


def sees_poses(identity: Mapping[str, Any]) -> bool:
    """Say whether features with this identity are poses, which are alike in different recordings of an exercise."""
    return bool(identity["preprocessing"].get("output") == POSE)
