"""What clips belong to: those of one recording are not independent, and are drawn, kept and counted together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def units_of(clips: Sequence[str], groups: Sequence[str | None], *, rule: str = "", fold: str = "") -> list[str]:
    """Return what each clip belongs to and is drawn with.

    Args:
        clips: Ids of the test clips of one run.
        groups: Their groups, None where unknown.
        rule: Split rule of the run. Under ``leave-one:COLUMN`` all of a fold's clips belong together: the column was
            left out because its clips are not independent, and other values of it are what the figures speak of.
        fold: Name of the run's fold.

    Returns:
        The name of each clip's unit: the fold under that rule, else its group, or itself where that is unknown.
    """
    if is_by_fold(rule) and fold:
        return [f"fold {fold}"] * len(clips)
    return [alone_unit(c) if g is None else f"group {g}" for c, g in zip(clips, groups, strict=True)]


def units_of_run(run: Mapping[str, Any]) -> list[str]:
    """Return the unit of each test clip of a run, by what its ``run.json`` holds."""
    split = run["split"]
    return units_of(split["test"], split["test_groups"], rule=str(split["rule"]), fold=str(run["fold"]))


def validation_units(run: Mapping[str, Any]) -> list[str]:
    """Return the unit of each validation clip, by what ``run.json`` holds; older ones do not know their groups."""
    clips = run["split"]["val"]
    return units_of(clips, run.get("val_groups") or [None] * len(clips))


def is_by_fold(rule: str) -> bool:
    """Say whether a split rule makes units of folds."""
    return rule.startswith("leave-one:")


def alone_unit(clip: str) -> str:
    """Return the unit of a clip that nothing is known to belong with."""
    return f"clip {clip}"
