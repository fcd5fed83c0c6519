"""The report of an extraction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fitrec_cache.cache import Cache
from fitrec_cache.common.files import Plain
from fitrec_cache.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class FailedClip:
    """A clip that could not be used, and why."""

    clip_id: str
    path: str
    reason: str


def by_reason(failed: Iterable[FailedClip]) -> dict[str, list[str]]:
    """Return the ids of clips that failed for each reason, in the order given."""
    found: dict[str, list[str]] = {}
    for each in failed:
        found.setdefault(each.reason, []).append(each.clip_id)
    return found


@dataclass(frozen=True, kw_only=True)
class ExtractReport(Plain):
    """The result of :func:`fitrec_cache.extract.extract`.

    Attributes:
        clips: Number of clips asked for.
        done: Clips finished by this call, with frames and all features.
        reused: Clips for which nothing had to be done.
        failed: Clips that could not be used.
        backbones: Embedding length by backbone name.
        features: The feature store's folder name by backbone name; ``train-head --backbone`` accepts it too.
        seconds: Wall time.
        stages: Seconds of wall time by what the main thread did; they sum to almost all of ``seconds``.
        beside: Seconds of work that threads and decoder processes did at the same time: wall time for reading files,
            processor time for the rest.
        others: How many cores other programs used, if that slowed this one down; see
            :class:`fitrec_cache.common.cpu_contention.CpuContention`.
        notes: Notes for the user, such as duplicates.
        unread: Folders among VIDEOS that cannot be read, and links that lead nowhere.
    """

    clips: int
    done: int
    reused: int
    failed: tuple[FailedClip, ...]
    backbones: dict[str, int]
    features: dict[str, str]
    seconds: float
    stages: dict[str, float]
    beside: dict[str, float]
    others: float | None
    notes: tuple[str, ...]
    unread: tuple[str, ...] = ()

    @property
    def bottleneck(self) -> str:
        """What took longest: a stage of the main thread, or the work that it waited for."""
        longest = max(self.stages, key=lambda k: self.stages[k])
        if longest == "wait for frames":
            return max(("decode", "prepare"), key=lambda k: self.beside[k])
        return "hash" if longest == "wait for files" else longest

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        found = super().to_dict()
        features = found.pop("features")
        return found | {
            "backbones": {name: {"dim": dim, "features": features[name]} for name, dim in self.backbones.items()},
            "seconds": round(self.seconds, 3),
            "stages": {name: round(s, 3) for name, s in self.stages.items()},
            "beside": {name: round(s, 3) for name, s in self.beside.items()},
            "bottleneck": self.bottleneck,
        }


def refuse_without_features(made: ExtractReport, cache: Cache) -> None:
    """Raise UsageError, with a reason, if a backbone has no features of any clip."""
    filled = {store.folder.name for store in cache.filled_features()}
    if made.failed and (lost := [name for name, folder in made.features.items() if folder not in filled]):
        first = made.failed[0]
        raise UsageError(f"no clip can be used with {', '.join(lost)}, such as {first.clip_id}: {first.reason}")
