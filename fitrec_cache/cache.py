"""A cache folder: the clips it holds, their frames, and their features by backbone."""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import canonical_json, digest, parse_json, read_file, write_atomic
from fitrec_cache.dataset.clips import NO_COLUMNS
from fitrec_cache.errors import StoreCorrupt, StoreError, UsageError, unknown_name
from fitrec_cache.settings.variants import PRESETS, plain_name
from fitrec_cache.storage.index import Columns
from fitrec_cache.storage.parts import FORMAT_VERSION, SCHEMAS, text_column
from fitrec_cache.storage.root import open_root
from fitrec_cache.storage.sources import lacking
from fitrec_cache.storage.store import Store, read_identity
from fitrec_cache.video.spans import file_of, is_part, recordings
from fitrec_cache.wording import command, plural

#: The ``problem`` of a clip that was taken out on purpose.
TAKEN_OUT = "taken out by --prune"

_COLUMNS = tuple(SCHEMAS["clips"])

CLIPS_IDENTITY = {"format_version": FORMAT_VERSION, "what": "clips"}


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldClip:
    """An entry of a clip in the cache.

    ``problem`` is empty, or says why the clip is not used: why its last extraction failed, or :data:`TAKEN_OUT`.
    ``since`` increases with the time of the entry.
    """

    clip_id: str
    video_sha256: str
    label: str
    group: str | None
    extra: Mapping[str, str] = field(default_factory=lambda: NO_COLUMNS)
    problem: str = ""
    since: str = field(default="", compare=False)


class Cache:
    """An opened cache folder.

    Args:
        folder: The folder.
        create: Create the cache if it does not exist.

    Attributes:
        folder: The folder.
        clip_store: The store of the clips' entries.

    Raises:
        StoreError: If it is missing, not a cache, of another format version, or damaged.
    """

    @plain_arguments
    def __init__(self, folder: Path, *, create: bool = False) -> None:
        open_root(folder, create=create)
        self.folder = folder
        self.clip_store = Store(folder / "clips", "clips", CLIPS_IDENTITY)
        self._opened: dict[Path, Store] = {}  # kept, because opening a store is slow and refreshing it is fast

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how another process opens the cache again: open files and tables are not sent."""
        return type(self), (self.folder,)

    def clips(self) -> list[HeldClip]:
        """Return the latest entry of each clip, sorted by name.

        If a file has parts, its clips without a group get the file's group
        (:func:`fitrec_cache.video.spans.recordings`). Files are identified by their content, so that copies, links and
        different paths count as one recording.
        """
        entries = self.entries()
        if not any(is_part(clip.video_sha256) for clip in entries):
            return entries
        used = newest(entries).values()
        of_file = recordings([c.video_sha256 for c in used], [c.group for c in used], [c.clip_id for c in used])
        return [replace(clip, group=clip.group or of_file.get(file_of(clip.video_sha256))) for clip in entries]

    def entries(self) -> list[HeldClip]:
        """Return the latest entry of each clip, sorted by name, with the groups as they were given."""
        self.clip_store.refresh()
        return sorted(self._entries(), key=lambda clip: clip.clip_id)

    def all_entries(self) -> Iterator[HeldClip]:
        """Yield every stored entry, including earlier ones of the same name, in no particular order."""
        return self._read(self.clip_store.all_texts())

    def _entries(self) -> Iterator[HeldClip]:
        return self._read(self.clip_store.texts())

    def _read(self, parts: Iterable[tuple[str, Columns]]) -> Iterator[HeldClip]:
        try:
            for part, columns in parts:
                yield from (_entry(part, *row) for row in zip(*(columns[c].tolist() for c in _COLUMNS), strict=True))
        except (TypeError, ValueError) as error:  # only an index can cause this: parts are checked when read
            raise StoreCorrupt(
                f"{self.folder}/clips: an index holds invalid entries ({error}). Delete the index-*.h5 files "
                "there: they are rebuilt from the parts"
            ) from error

    def classes(self) -> Counter[str]:
        """Return the number of usable clips of each class."""
        return Counter(clip.label for clip in self._entries() if not clip.problem)

    def clip(self, clip_id: str) -> HeldClip | None:
        """Return the latest entry of a clip; None if there is none."""
        if clip_id not in self.clip_store:
            return None
        row = self.clip_store.row(clip_id)
        return _entry(self.clip_store.part_of(clip_id), *(bytes(row[name]) for name in _COLUMNS))

    def same_content(self) -> list[list[HeldClip]]:
        """Return groups of usable clips whose videos have identical bytes."""
        usable = (hash(c.video_sha256) for c in self._entries() if not c.problem)
        values, counts = np.unique(np.fromiter(usable, dtype=np.int64), return_counts=True)
        repeated = set(values[counts > 1].tolist())  # usually empty; avoids a table of all contents
        same: dict[str, list[HeldClip]] = {}
        for clip in self._entries() if repeated else ():
            if not clip.problem and hash(clip.video_sha256) in repeated:
                same.setdefault(clip.video_sha256, []).append(clip)
        return [clips for clips in same.values() if len(clips) > 1]

    def others(self, clips: Collection[str]) -> tuple[list[HeldClip], set[str]]:
        """Return the clips that have none of these names, and the contents of those that have one.

        Clips that were taken out are not returned. All of these names must be in the cache. If there are no other
        clips, the contents are not determined: the set is empty.
        """
        names = set(clips)
        others, contents = list[HeldClip](), set[str]()
        if len(self.clip_store) == len(names):
            return others, contents
        for clip in self._entries():
            if clip.clip_id in names:
                contents.add(clip.video_sha256)
            elif clip.problem != TAKEN_OUT:
                others.append(clip)
        return others, contents

    def write_clips(self, clips: Sequence[HeldClip]) -> None:
        """Commit entries of clips as one part."""
        columns = zip(_COLUMNS, zip(*map(_texts, clips), strict=True), strict=True)
        self.clip_store.write_part({name: text_column(values) for name, values in columns})

    def holds(self, clip: HeldClip) -> bool:
        """Say whether this is the latest entry of a clip; faster than :meth:`clip`, which reads a file."""
        return self.clip_store.holds(_texts(clip))

    def begin(self, clips: Collection[str]) -> None:
        """Record that clips with these names are being extracted, until :meth:`finish`.

        Raises:
            StoreError: If it cannot be written.
        """
        if not (path := self._unfinished(clips)).exists():
            write_atomic(path, canonical_json({"clips": sorted(clips)}).encode())

    def finish(self, clips: Collection[str]) -> None:
        """Remove the record that :meth:`begin` made for the same clips; failing to remove it does no harm."""
        with contextlib.suppress(OSError):
            self._unfinished(clips).unlink()

    def finish_all(self, *, but: Collection[str]) -> None:
        """Remove all records of :meth:`begin` except those with a clip in ``but``: the missing clips are not wanted."""
        for path in self.folder.glob("unfinished-*.json"):
            if _names(path).isdisjoint(but):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _unfinished(self, clips: Collection[str]) -> Path:
        return self.folder / f"unfinished-{digest(sorted(clips))[:16]}.json"

    def notes(self, clips: Sequence[HeldClip]) -> list[str]:
        """Return notes on extractions with clips that are not in the cache: they were stopped, or are still running.

        Args:
            clips: The clips that :meth:`clips` returns.
        """
        asked = map(_names, sorted(self.folder.glob("unfinished-*.json")))
        held = {clip.clip_id for clip in clips}
        return [
            f"an extract of {plural(len(names), 'clip')} did not finish, and {len(missing)} of them "
            f"{'is' if len(missing) == 1 else 'are'} not in the cache: run it again, or, if you no longer want them, "
            "`extract --prune`"
            for names in asked
            if (missing := names - held)
        ]

    def frame_store(self, identity: Mapping[str, Any]) -> Store:
        """Return the store of frames made with exactly these settings."""
        return self._open(self.folder / "frames" / digest(identity)[:16], "frames", identity)

    def frame_stores(self) -> list[Store]:
        """Return all frame stores."""
        return self._stores("frames")

    def feature_store(self, identity: Mapping[str, Any]) -> Store:
        """Return the store of features made with exactly these settings."""
        return self._open(self.folder / "features" / features_folder(identity), "features", identity)

    def feature_stores(self) -> list[Store]:
        """Return all feature stores."""
        return self._stores("features")

    def filled_features(self) -> list[Store]:
        """Return the feature stores that are not empty."""
        return [store for store in self.feature_stores() if len(store)]

    def fullest(self, stores: Sequence[Store]) -> Store:
        """Return the store with data of most of the clips that are in the cache now; if equal, the latest."""
        if len(stores) == 1:
            return stores[0]
        held = {clip.video_sha256 for clip in self.entries() if not clip.problem}
        return max(stores, key=lambda store: (sum(key in store for key in held), store.newest))

    def stores(self) -> list[Store]:
        """Return all stores: of frames, of features, and of the clips' entries."""
        return [*self.frame_stores(), *self.feature_stores(), self.clip_store]

    def _stores(self, kind: str) -> list[Store]:
        """Return all stores of one kind, in the order of their names."""
        found = []
        for folder in sorted(marker.parent for marker in (self.folder / kind).glob("*/identity.json")):
            identity = read_identity(folder)
            if reason := lacking(kind, identity):
                raise StoreCorrupt(f"{folder}/identity.json is damaged: {reason}. Run `fitrec-cache check --repair`")
            found.append(self._open(folder, kind, identity))
        return found

    def _open(self, folder: Path, kind: str, identity: Mapping[str, Any]) -> Store:
        """Return a store; one that is already open is refreshed."""
        if folder not in self._opened:
            self._opened[folder] = Store(folder, kind, identity)
        self._opened[folder].refresh()
        return self._opened[folder]


def newest(clips: Iterable[HeldClip]) -> dict[str, HeldClip]:
    """Return the clip to use for each content, by the content's hash: the usable clip with the latest entry.

    Args:
        clips: Clips in the order of their names.
    """
    found: dict[str, HeldClip] = {}
    for clip in sorted((c for c in clips if not c.problem), key=lambda c: c.since, reverse=True):
        found.setdefault(clip.video_sha256, clip)
    return found


def parts_apart(clips: Iterable[HeldClip]) -> list[str]:
    """Return a note if parts of one file are in several groups, because they may be on both sides of a split."""
    groups: dict[str, dict[str, HeldClip]] = {}
    for clip in clips:
        if clip.group is not None:
            groups.setdefault(file_of(clip.video_sha256), {}).setdefault(clip.group, clip)
    apart = [held for held in groups.values() if len(held) > 1]
    if not apart:
        return []
    files = plural(len(apart), "file has parts", "files have parts")
    return [f"{files} in several groups, such as {' and '.join(c.clip_id for c in apart[0].values())}"]


def features_folder(identity: Mapping[str, Any]) -> str:
    """Return the folder name of features with this identity; ``--backbone`` accepts it too."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", identity["backbone"])
    return f"{name}-{identity['preprocessing']['preset']}-{digest(identity)[:16]}"


def _texts(clip: HeldClip) -> tuple[str, ...]:
    """Return a clip's entry as a row of ``_COLUMNS``."""
    extra = canonical_json(dict(clip.extra))
    return clip.clip_id, clip.video_sha256, clip.label, clip.group or "", extra, clip.problem


def _entry(part: str, *texts: bytes) -> HeldClip:
    """Return the entry for a row of ``_COLUMNS``."""
    clip_id, video, label, group, extra, problem = (text.decode() for text in texts)
    return HeldClip(
        clip_id=clip_id,
        video_sha256=video,
        label=sys.intern(label),
        group=sys.intern(group) or None,
        extra=dict(parse_json(extra)) or NO_COLUMNS,
        problem=problem,
        since=part,
    )


def _names(path: Path) -> set[str]:
    """Return the clip names in a record of :meth:`Cache.begin`; empty if the file is something else."""
    try:
        return set(map(str, parse_json(read_file(path))["clips"]))
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def pick_frames(cache: Cache, *, samples: int | None = None, frame_size: int | None = None) -> tuple[Store, list[str]]:
    """Return the frame store to use without videos, and a note if several match the request.

    It is the fullest (:meth:`Cache.fullest`).

    Raises:
        UsageError: If none matches.
    """
    stores = [s for s in cache.frame_stores() if len(s)]
    fitting = [
        s for s in stores if samples in (None, s.identity["samples"]) and frame_size in (None, s.identity["short_side"])
    ]
    if not fitting:
        named = (("samples", samples), ("frame size", frame_size))
        asked = " and ".join(f"{name} {value}" for name, value in named if value is not None)
        have = "; ".join(f"samples {s.identity['samples']}, frame size {s.identity['short_side']}" for s in stores)
        raise UsageError(
            f"{cache.folder} holds no frames{f' with {asked}' * bool(asked)} (it holds: {have or 'none'}). Run "
            f"`{command('extract', 'VIDEOS', cache=cache.folder)}` first"
        )
    if len(fitting) == 1:
        return fitting[0], []
    chosen = cache.fullest(fitting)
    settings = dict(zip(fitting, _differing(fitting), strict=True))[chosen]
    return chosen, [f"the cache holds frames of several settings: those of most clips are taken ({settings})"]


#: Settings of features that follow from versions of this program and its libraries; nobody chooses them.
_OF_VERSIONS = {"format_version", "rounding", "folded", "frames.codec", "frames.decoder", "frames.geometry"}


def pick_features(cache: Cache, backbone: str, *, preset: str | None = None) -> tuple[Store, list[str]]:
    """Return the feature store of a backbone, given by its timm name or the store's folder name, and notes.

    Of several that were made by different versions, it is the fullest (:meth:`Cache.fullest`).

    Raises:
        UsageError: If there is none of this name, or there are several and the request is ambiguous.
        StoreError: If there are no features at all.
    """
    stores = cache.filled_features()
    backbone = plain_name(backbone)
    named = [s for s in stores if backbone in (s.identity["backbone"], s.folder.name)]
    fitting = [s for s in named if preset in (None, s.identity["preprocessing"]["preset"])]
    if not named:
        have = sorted({s.identity["backbone"] for s in stores})
        if not have:
            raise StoreError(f"{cache.folder} holds no features: run `fitrec-cache extract` with --backbone {backbone}")
        error = unknown_name("backbone", backbone, have)
        raise UsageError(f"{error}. Or add it: {command('extract', cache=cache.folder, backbone=backbone)}")
    if not fitting:
        if preset not in PRESETS:
            raise unknown_name("preset", str(preset), PRESETS)
        have = sorted({s.identity["preprocessing"]["preset"] for s in named})
        raise UsageError(
            f"{cache.folder} holds features of {backbone} by preset {' and '.join(have)}, not {preset}. To make them: "
            f"{command('extract', cache=cache.folder, backbone=backbone, preset=preset)}"
        )
    if preset is None and len(fitting) > 1:
        native = [s for s in fitting if s.identity["preprocessing"]["preset"] == "native"]
        fitting = native or fitting
    if len(fitting) == 1:
        return fitting[0], []
    told = [f"{s.folder.name} ({apart})" for s, apart in zip(fitting, _differing(fitting), strict=True)]
    if len({canonical_json(_as_asked_for(s.identity)) for s in fitting}) > 1:
        raise UsageError(f"{len(fitting)} sets of features fit --backbone {backbone}: give one of {'; '.join(told)}")
    chosen = cache.fullest(fitting)
    others = "; ".join(each for store, each in zip(fitting, told, strict=True) if store is not chosen)
    return chosen, [f"features {told[fitting.index(chosen)]} are used, not {others}, which another version made"]


def _as_asked_for(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of features that a user chose."""
    settings = {name: value for name, value in flat(identity).items() if name not in _OF_VERSIONS}
    return settings | {"compiled": "compiled" in identity}


def _differing(stores: Sequence[Store]) -> list[str]:
    """Return, for each store, the settings in which they differ."""
    identities = [flat(s.identity) for s in stores]
    names = dict.fromkeys(k for identity in identities for k in identity)
    differing = [k for k in names if len({str(i.get(k)) for i in identities}) > 1]
    return [", ".join(f"{k} {identity.get(k)}" for k in differing) for identity in identities]


def flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity without nesting: ``frames.samples`` is the entry ``samples`` of ``frames``."""
    found: dict[str, Any] = {}
    for name, value in identity.items():
        inner = flat(value) if isinstance(value, Mapping) else {"": value}
        found |= {f"{name}.{key}" if key else name: each for key, each in inner.items()}
    return found
