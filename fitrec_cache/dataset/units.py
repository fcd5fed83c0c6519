"""Statistical units: clips of one recording are not independent; they are resampled, held out and counted together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def units_of(clips: Sequence[str], groups: Sequence[str | None], *, rule: str = "", fold: str = "") -> list[str]:
    """Return the statistical unit of each clip.

    Args:
        clips: Ids of the test clips of one run.
        groups: Their groups, None where unknown.
        rule: Split rule of the run. Under ``leave-one:COLUMN`` all clips of a fold form one unit: the column was left
            out because clips with the same value are not independent, and the results are meant for other values.
        fold: Name of the run's fold.

    Returns:
        The name of each clip's unit: under that rule the fold, otherwise the clip's group, or the clip itself if its
        group is unknown.
    """
    if is_by_fold(rule) and fold:
        return [f"fold {fold}"] * len(clips)
    return [alone_unit(c) if g is None else f"group {g}" for c, g in zip(clips, groups, strict=True)]


def units_of_run(run: Mapping[str, Any]) -> list[str]:
    """Return the unit of each test clip of a run, from the content of its ``run.json``."""
    split = run["split"]
    return units_of(split["test"], split["test_groups"], rule=str(split["rule"]), fold=str(run["fold"]))


def validation_units(run: Mapping[str, Any]) -> list[str]:
    """Return the unit of each validation clip, from the content of ``run.json``; older ones lack the groups."""
    clips = run["split"]["val"]
    return units_of(clips, run.get("val_groups") or [None] * len(clips))


def is_by_fold(rule: str) -> bool:
    """Say whether a split rule makes each fold a unit."""
    return rule.startswith("leave-one:")


def alone_unit(clip: str) -> str:
    """Return the unit of a clip whose group is unknown."""
    return f"clip {clip}"
