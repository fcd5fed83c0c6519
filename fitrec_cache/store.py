"""Arrays in immutable HDF5 parts, committed by rename. The layout is a public contract: docs/format.md."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache import hdf5
from fitrec_cache.errors import NoCacheError, StoreCorrupt, StoreError
from fitrec_cache.files import TEMPORARY, canonical_json, digest, make_folder, parse_json, write_atomic, write_json
from fitrec_cache.index import FEWEST_PARTS, Columns, indexed, write_index

FORMAT_VERSION = 1

#: File that makes a folder a cache.
MARKER = "cache.json"

_PART = re.compile(r"part-(\d{20})-([0-9a-f]{32})\.h5")

#: Datasets of a part by kind of store: dtype kinds and number of axes. All but ``jpeg_bytes`` have one row a clip.
SCHEMAS: dict[str, dict[str, tuple[str, int]]] = {
    "clips": dict.fromkeys(("key", "video_sha256", "label", "group", "extra", "problem"), ("S", 1)),
    "frames": {
        "key": ("S", 1),
        "jpeg_bytes": ("u", 1),
        "jpeg_end": ("i", 2),
        "frame_index": ("i", 2),
        "pts_seconds": ("f", 2),
        "ledger": ("S", 1),
    },
    "features": {"key": ("S", 1), "features": ("f", 3), "pts_seconds": ("f", 2)},
}

#: Text columns that hold a JSON object in each row.
_JSON_COLUMNS = ("extra", "ledger")

Arrays = dict[str, NDArray[Any]]


def text_column(values: Iterable[str]) -> NDArray[np.bytes_]:
    """Return strings as fixed-length UTF-8, the only text these files hold."""
    encoded = [v.encode() for v in values]
    return np.array(encoded, dtype=f"S{max(1, *map(len, encoded))}" if encoded else "S1")


def text_values(column: NDArray[Any]) -> list[str]:
    """Return a text column as strings."""
    return [v.decode() for v in column.tolist()]


class Store:
    """One folder of immutable parts that share one identity.

    Args:
        folder: The folder; it need not exist before the first part is written.
        kind: ``clips``, ``frames`` or ``features``.
        identity: Everything that could change a stored array, as plain JSON values.
    """

    def __init__(self, folder: Path, kind: str, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.kind = kind
        self.identity = dict(identity)
        self._digest = digest(identity)
        #: Text columns of each part that was seen: its keys, and of clips all.
        self._columns: dict[str, Columns] = {}
        self._latest = 0  # time in the name of the newest part that was seen
        self._indexed = 0
        self._indexes: set[str] = set()
        #: The part that holds each key. Its row is looked up when it is asked for: one less object a clip.
        self._where: dict[str, str] = {}
        self._last: tuple[str, Arrays, dict[str, int]] | None = None
        self.refresh()

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, key: object) -> bool:
        return key in self._where

    def keys(self) -> list[str]:
        """Return all keys, in the order in which they were first committed."""
        return list(self._where)

    def part_of(self, key: str) -> str:
        """Return the name of the part that holds a key; names grow with time."""
        return self._where[key]

    def part_paths(self) -> list[Path]:
        """Return the committed parts, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(p for p in self.folder.iterdir() if _PART.fullmatch(p.name))

    def refresh(self) -> None:
        """Take in parts that were committed since the last look, by this process or by others."""
        try:
            names = set(os.listdir(self.folder))  # noqa: PTH208 - thousands of names, no paths
        except (FileNotFoundError, NotADirectoryError):
            return
        known: dict[str, Columns] = {}
        if not self._columns:
            known, self._indexes = indexed(self.folder, names, self._index_head())
            self._indexed = len(known)
        for name in sorted(n for n in names - self._columns.keys() if _PART.fullmatch(n)):
            try:
                self._take(name, known[name])
            except (KeyError, UnicodeDecodeError):  # not indexed, or by an index that is no good
                self._take(name, self._read_columns(self.folder / name))

    def _take(self, part: str, columns: Columns) -> None:
        self._columns[part] = columns
        self._latest = max(self._latest, int(part.split("-")[1]))
        self._where |= {sys.intern(key): part for key in text_values(columns["key"])}  # stores share keys

    def _rows_of(self, part: str) -> dict[str, int]:
        """Return the row of each key of a part; of a key that it has twice the later."""
        return {key: row for row, key in enumerate(text_values(self._columns[part]["key"]))}

    def _read_columns(self, path: Path) -> Columns:
        keys = _read_keys(path, self.kind, self._digest)
        return read_part(path, self.kind, self._digest) if self.kind == "clips" else keys

    def _index_head(self) -> dict[str, int | str]:
        columns = " ".join(SCHEMAS["clips"]) if self.kind == "clips" else "key"
        head: dict[str, int | str] = {"format_version": FORMAT_VERSION, "kind": f"index of {self.kind}"}
        return head | {"identity_sha256": self._digest, "columns": columns}

    def write_index(self) -> None:
        """Write an index of the parts if there are many without; whoever opens the store next reads that instead.

        Raises:
            StoreError: If it cannot be written.
        """
        if len(self._columns) - self._indexed >= max(FEWEST_PARTS, self._indexed // 4):
            self._indexes = {write_index(self.folder, self._columns, self._index_head(), self._indexes)}
            self._indexed = len(self._columns)

    def write_part(self, arrays: Arrays) -> Path:
        """Commit rows as one new part; when this returns they are on disk and complete.

        Args:
            arrays: The datasets of this kind of store, one row a clip.

        Returns:
            The part's path. Its name carries the sha256 of the whole file.

        Raises:
            StoreError: If it cannot be written; nothing stored before is touched.
        """
        make_folder(self.folder)
        if not (self.folder / "identity.json").exists():
            write_json(self.folder / "identity.json", self.identity)
        data = _to_hdf5(arrays, self.kind, self.identity)
        now = max(time.time_ns(), self._latest + 1)  # also where a clock was set back: what is written last counts
        path = self.folder / f"part-{now:020d}-{hashlib.sha256(data).hexdigest()[:32]}.h5"
        write_atomic(path, data)
        self._take(path.name, {name: arrays[name] for name in str(self._index_head()["columns"]).split()})
        return path

    def write_origin(self, origin: Mapping[str, Any]) -> None:
        """Keep, beside the parts, what helps to make the same again but changes no array; the latest is kept."""
        if len(self) and self.origin() != origin:
            write_json(self.folder / "origin.json", dict(origin))

    def origin(self) -> dict[str, Any]:
        """Return what :meth:`write_origin` kept; empty if there is nothing readable."""
        try:
            found = parse_json((self.folder / "origin.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def row(self, key: str) -> Arrays:
        """Return the datasets of one clip, each without its first axis; the part is verified before it is used.

        Raises:
            StoreError: If the key is not stored.
            StoreCorrupt: If its part is damaged.
        """
        row, arrays = self._row_and_part(key)
        return {name: a[row] for name, a in arrays.items() if name != "jpeg_bytes"}

    def jpegs(self, key: str) -> list[bytes]:
        """Return the T encoded frames of one clip of a frame store; raises as :meth:`row` does."""
        row, arrays = self._row_and_part(key)
        ends = arrays["jpeg_end"][row].tolist()
        start = int(arrays["jpeg_end"][row - 1, -1]) if row else 0
        data = arrays["jpeg_bytes"]
        if len(ends) != self.identity.get("samples", len(ends)):
            raise StoreCorrupt(f"{self.folder}: {key} has {len(ends)} frames, expected {self.identity['samples']}")
        if [start, *ends] != sorted([start, *ends]) or not ends or ends[-1] > len(data) or start < 0:
            raise StoreCorrupt(f"{self.folder}: frames of {key} have impossible offsets")
        return [data[i:j].tobytes() for i, j in pairwise([start, *ends])]

    def rows(self, keys: Sequence[str], names: Sequence[str]) -> Arrays:
        """Return chosen datasets of many clips, stacked in the order of ``keys``; each part is read once.

        Raises:
            StoreError: If a key is not stored.
            StoreCorrupt: If a part is damaged.
        """
        missing = [k for k in keys if k not in self._where]
        if missing:
            raise StoreError(f"{len(missing)} of {len(keys)} clips are not in {self.folder}, such as {missing[0]}")
        by_part: dict[str, list[int]] = {}
        for position, key in enumerate(keys):
            by_part.setdefault(self._where[key], []).append(position)
        out: Arrays = {}
        for part, positions in by_part.items():
            whole = self.kind == "clips"  # all columns of clips were read when the part was first seen
            arrays = self._columns[part] if whole else read_part(self.folder / part, self.kind, self._digest)
            row_of = self._rows_of(part)
            part_rows = [row_of[keys[position]] for position in positions]
            for name in names:
                if name not in out:
                    out[name] = np.empty((len(keys), *arrays[name].shape[1:]), arrays[name].dtype)
                if arrays[name].shape[1:] != out[name].shape[1:]:
                    raise StoreCorrupt(
                        f"{part}: {name} has rows of shape {arrays[name].shape[1:]}, expected {out[name].shape[1:]}"
                    )
                if arrays[name].dtype.kind == "S" and arrays[name].dtype.itemsize > out[name].dtype.itemsize:
                    out[name] = out[name].astype(arrays[name].dtype)  # this part has longer texts
                out[name][positions] = arrays[name][part_rows]
        return out

    def _row_and_part(self, key: str) -> tuple[int, Arrays]:
        if key not in self._where:
            raise StoreError(f"{key} is not in {self.folder}")
        # Neighbouring clips are neighbours on disk: one part kept is enough.
        name, last = self._where[key], self._last  # threads may ask for different parts
        if last is None or last[0] != name:
            last = name, read_part(self.folder / name, self.kind, self._digest), self._rows_of(name)
            self._last = last
        return last[2][key], last[1]


def _to_hdf5(arrays: Arrays, kind: str, identity: Mapping[str, Any]) -> bytes:
    if arrays.keys() != SCHEMAS[kind].keys():
        raise ValueError(f"a part of {kind} holds {sorted(SCHEMAS[kind])}, got {sorted(arrays)}")
    head: dict[str, int | str] = {"format_version": FORMAT_VERSION, "kind": kind, "identity_sha256": digest(identity)}
    return hdf5.encode(arrays, head | {"identity": canonical_json(identity)})


def _damaged(path: Path, why: object) -> StoreCorrupt:
    return StoreCorrupt(
        f"{path} is damaged: {why}. Run `fitrec-cache check --cache DIR --repair` to set it aside, then `extract` "
        "again: only its clips are redone"
    )


def _read_keys(path: Path, kind: str, identity_sha256: str) -> Columns:
    """Return a part's keys without reading the rest; the rest is verified when it is read."""
    try:
        head, arrays = hdf5.decode(path, {"key": SCHEMAS[kind]["key"]})
        _check_head(head, path, kind, identity_sha256)
        text_values(arrays["key"])
        return arrays
    except (hdf5.Unreadable, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error


def read_part(path: Path, kind: str, identity_sha256: str | None = None) -> Arrays:
    """Read one part whole, after checking its bytes against the sha256 in its name.

    Args:
        path: The part.
        kind: The kind of store that it belongs to.
        identity_sha256: If given, the identity that it must have.

    Raises:
        StoreCorrupt: If it is missing, cut, altered, or not a part of this store.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise _damaged(path, "it is not there") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}. Nothing says that it is damaged") from error
    match = _PART.fullmatch(path.name)
    if match is None or hashlib.sha256(data).hexdigest()[:32] != match[2]:
        raise _damaged(path, "its bytes are not those that were written (sha256 differs from the one in its name)")
    try:
        head, arrays = hdf5.decode(data, SCHEMAS[kind])
        for name, array in arrays.items():
            if array.dtype.kind == "S":
                check_texts(name, text_values(array))
    except (hdf5.Unreadable, ValueError) as error:
        raise _damaged(path, error) from error
    _check_head(head, path, kind, identity_sha256)
    if len({len(a) for name, a in arrays.items() if name != "jpeg_bytes"}) != 1:
        raise _damaged(path, "its datasets have different numbers of rows")
    return arrays


def check_texts(name: str, texts: list[str]) -> None:
    """Raise ValueError unless a text column that holds JSON objects does: in ``extra``, of texts."""
    if name not in _JSON_COLUMNS:
        return
    for text in texts:
        value = parse_json(text)
        if not isinstance(value, dict) or (name == "extra" and not all(isinstance(v, str) for v in value.values())):
            raise ValueError(f"{name} is {text[:40]!r}, expected a JSON object" + " of texts" * (name == "extra"))


def identity_of_part(path: Path, kind: str) -> dict[str, Any]:
    """Return the identity that a sound part carries; raises :class:`StoreCorrupt` if the part is damaged."""
    read_part(path, kind)
    try:
        head, _ = hdf5.decode(path, {})
        return dict(parse_json(str(head["identity"])))
    except (hdf5.Unreadable, KeyError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def _check_head(head: Mapping[str, Any], path: Path, kind: str, identity_sha256: str | None) -> None:
    if head.get("format_version") != FORMAT_VERSION:
        raise _other_version(path, head.get("format_version"))
    if head.get("kind") != kind:
        raise _damaged(path, f"a part of kind {head.get('kind')!r} among {kind}")
    if identity_sha256 is not None and head.get("identity_sha256") != identity_sha256:
        raise _damaged(path, "made with other settings than its folder's identity.json")


def _other_version(path: Path, version: object) -> StoreError:
    return StoreError(
        f"{path} has cache format version {version}, this program reads version {FORMAT_VERSION}. Use the program "
        "version that wrote it, or another --cache folder"
    )


def open_root(folder: Path, *, create: bool) -> None:
    """Check that a folder is a cache of this format version, or make it one.

    Raises:
        NoCacheError: If it is missing, or something else than a cache.
        StoreError: If it is of another version, or cannot be read or written.
    """
    marker = folder / MARKER
    if marker.is_file():
        try:
            version = parse_json(marker.read_bytes())["format_version"]
        except OSError as error:
            raise StoreError(f"{marker} cannot be read: {error.strerror}. Make it readable") from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreCorrupt(
                f"{marker} is damaged: expected a JSON object with format_version. Run `fitrec-cache "
                "check --cache DIR --repair`"
            ) from error
        if version != FORMAT_VERSION:
            raise _other_version(folder, version)
        return
    if not create:
        lost = "; its cache.json is lost: `fitrec-cache check --cache DIR --repair` writes it again"
        raise NoCacheError(
            f"no cache at {folder}: expected a folder made by `fitrec-cache extract VIDEOS --cache DIR`"
            + lost * (folder / "clips").is_dir()
        )
    # An unfinished file is what a first run leaves that was killed before it wrote the marker.
    if folder.exists() and not (folder.is_dir() and all(p.name.startswith(TEMPORARY) for p in folder.iterdir())):
        if marker.is_file():  # another process made it just now
            open_root(folder, create=create)
            return
        raise NoCacheError(
            f"{folder} exists and is not a cache (no cache.json): choose a new or empty folder; if it was one, "
            "`fitrec-cache check --cache DIR --repair` makes it one again"
        )
    make_folder(folder)
    write_marker(folder)


def write_marker(folder: Path) -> None:
    """Make a folder a cache of this format version."""
    what = "features and frames cached by fitrec-cache"
    write_json(folder / MARKER, {"format_version": FORMAT_VERSION, "what": what})


def find_stores(folder: Path, kind: str) -> list[Store]:
    """Open all stores of one kind below ``folder``, in the order of their names.

    Raises:
        StoreCorrupt: If an ``identity.json`` or a part is damaged.
    """
    found = []
    for marker in sorted(folder.glob("*/identity.json")):
        try:
            identity = parse_json(marker.read_bytes())
        except (OSError, ValueError) as error:
            raise _damaged(marker, f"cannot be read as JSON ({error})") from error
        if not isinstance(identity, dict) or not marker.parent.name.endswith(digest(identity)[:16]):
            raise _damaged(marker, "it does not belong to this folder")
        found.append(Store(marker.parent, kind, identity))
    return found
