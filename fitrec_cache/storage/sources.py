"""Checks of the JSON that describes how frames and features were made; it may come from outside.

Uses the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fitrec_cache.wording import is_plain

#: Upper limits of settings: larger values are treated as mistakes, so that no file can demand excessive memory.
MOST_SAMPLES = 1000
MOST_PIXELS = 4320

#: The greatest number of sources. Each is a separate backbone, and nobody combines more than this.
_MOST_SOURCES = 32

#: Names of backbones, presets and precisions, or several joined by ``+``; nothing that could be mistaken for numbers.
_NAME = re.compile(r"[^,;%()\n\r]{1,4000}")


def check_sources(sources: object) -> None:
    """Check the ``sources`` of features or of a run: one entry per backbone; empty for features made elsewhere.

    Raises:
        ValueError: If they do not say how the features were made.
    """
    if not isinstance(sources, list) or len(sources) > _MOST_SOURCES:
        raise ValueError(f"sources: expected a list of at most {_MOST_SOURCES}")
    for source in sources:
        if reason := _reason(source):
            raise ValueError(f"sources: they do not say how features were made ({reason})")


def _reason(source: object) -> str:
    """Return what is wrong with a source; empty if nothing."""
    if not isinstance(source, dict) or source.get("kind") not in ("pixels", "features"):
        return "no kind"
    if not isinstance(source.get("identity"), dict):
        return "no identity"
    if not isinstance(source.get("origin", {}), dict):
        return "origin is no object"
    return lacking("frames" if source["kind"] == "pixels" else "features", source["identity"])


def frames_of(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of the frames from which the features of a source were made, or its small frames."""
    identity: dict[str, Any] = source["identity"]
    return identity if source["kind"] == "pixels" else identity["frames"]


def lacking(kind: str, identity: Mapping[str, Any]) -> str:
    """Return what an identity of frames or features lacks to be usable; empty if nothing. It may come from outside."""
    if kind == "features":
        texts = (identity.get("backbone"), identity.get("precision"), _at(identity, "preprocessing").get("preset"))
        if not all(map(is_name, texts)):
            return "it does not say by which backbone, preset and precision"
        identity = _at(identity, "frames")
    if kind == "clips":
        return ""
    numbers = {"samples": MOST_SAMPLES, "short_side": MOST_PIXELS}
    wrong = [f"{n} is {identity.get(n)!r}"[:80] for n, most in numbers.items() if not is_count(identity.get(n), most)]
    return " and ".join(wrong) + ", expected whole numbers" if wrong else ""


def is_name(value: object) -> bool:
    """Say whether a value from outside is a name that can be shown before numbers without being mistaken for one."""
    return isinstance(value, str) and is_plain(value) and _NAME.fullmatch(value) is not None


def is_count(value: object, most: int) -> bool:
    """Say whether a value from outside is a whole number from 1 to ``most``."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _at(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}
