"""Statistical units: clips of one recording are not independent; they are resampled, held out and counted together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def units_of(clips: Sequence[str], groups: Sequence[str | None]) -> list[str]:
    """Return the name of each clip's unit: its group, or the clip itself if its group is unknown (None)."""
    return [alone_unit(c) if g is None else f"group {g}" for c, g in zip(clips, groups, strict=True)]


def validation_units(run: Mapping[str, Any]) -> list[str]:
    """Return the unit of each validation clip, from the content of ``run.json``; older ones lack the groups."""
    clips = run["split"]["val"]
    return units_of(clips, run.get("val_groups") or [None] * len(clips))


def alone_unit(clip: str) -> str:
    """Return the unit of a clip whose group is unknown."""
    return f"clip {clip}"
