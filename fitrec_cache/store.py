"""Arrays in immutable HDF5 parts, committed by rename. The layout is a public contract: docs/format.md."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache import hdf5
from fitrec_cache.errors import NoCacheError, StoreCorrupt, StoreError
from fitrec_cache.files import (
    TEMPORARY,
    canonical_json,
    digest,
    is_sealed,
    make_folder,
    parse_json,
    remove,
    sealed_name,
    write_atomic,
    write_json,
)
from fitrec_cache.index import FEWEST_AT_END, FEWEST_PARTS, INDEX, Columns, parts_in, write_index
from fitrec_cache.jpeg_rows import row_of
from fitrec_cache.keymap import KeyMap

FORMAT_VERSION = 1

#: File that makes a folder a cache.
MARKER = "cache.json"

#: Where ``check --repair`` moves what it finds, inside the cache; it never deletes anything.
ASIDE = "set-aside"

_PART = re.compile(r"part-\d{20}-[0-9a-f]{32}\.h5")

#: A folder whose time has not changed is believed to be unchanged for so many seconds: clocks of file systems are
#: coarse, and on some a folder's time never changes.
_LONGEST_TRUST = 2.0

#: Parts that are kept once read, of which some rows are asked for one by one.
_MOST_READ = 3

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
        self._text_columns = tuple(SCHEMAS["clips"]) if kind == "clips" else ("key",)
        self._parts: dict[str, int] = {}  # by name their numbers, in the order in which they were seen
        self._names: list[str] = []  # by number
        self._newest = ""
        self._where = KeyMap()
        self._rows = KeyMap()  # of clips: where each row lies, by all of its texts
        self._changed = 0  # time of the folder when we last looked, or last changed it ourselves
        self._looked = 0.0
        self._indexes: set[str] = set()
        self._unlisted: dict[str, Columns] = {}  # the columns, for the next index, of parts that are in none
        self._read: dict[str, Arrays] = {}  # the parts read last
        self.refresh()

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._where.find(_bytes(key)) is not None

    def holds(self, texts: Sequence[str]) -> bool:
        """Say of a store of clips whether the row that counts of a key has exactly these texts, the key first."""
        place = self._rows.find(_joined([text.encode() for text in texts]))
        return place is not None and place == self._where.find(texts[0].encode())

    def __iter__(self) -> Iterator[str]:
        """Yield all keys, in the order of the parts that hold them."""
        by_part = {name: columns["key"] for name, columns in self.texts()}
        for name in sorted(by_part):
            yield from text_values(by_part[name])

    def texts(self) -> Iterator[tuple[str, Columns]]:
        """Yield for each part its name and its keys, of clips all text columns, in no certain order.

        Rows whose key a later part has again are left out. Names of parts grow with time.
        """
        places = self._where.places()
        ends = np.searchsorted(places[:, 0], np.arange(len(self._names)), side="right").tolist()
        numbered = zip(self._names, pairwise([0, *ends]), strict=True)
        rows = {name: places[start:end, 1] for name, (start, end) in numbered if start < end}
        for index in sorted(self._indexes):
            for name, columns in parts_in(self.folder / index, self._index_head(), self._text_columns).items():
                if name in rows and name not in self._unlisted and rows[name][-1] < len(columns["key"]):
                    yield name, _of_rows(columns, rows.pop(name))
        for name in sorted(rows):
            columns = self._unlisted[name] if name in self._unlisted else self._read_columns(self.folder / name)
            yield name, _of_rows(columns, rows[name])

    def part_paths(self) -> list[Path]:
        """Return the committed parts, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(p for p in self.folder.iterdir() if _PART.fullmatch(p.name))

    def refresh(self) -> None:
        """Take in parts that were committed since the last look, by this process or by others."""
        changed, looked = self._time_of_folder(), time.monotonic()
        if changed == self._changed and looked - self._looked < _LONGEST_TRUST:
            return
        try:
            names = set(os.listdir(self.folder))  # noqa: PTH208 - thousands of names, no paths
        except (FileNotFoundError, NotADirectoryError):
            return
        for index in sorted(n for n in names - self._indexes if INDEX.fullmatch(n)):
            self._indexes.add(index)
            for name, columns in parts_in(self.folder / index, self._index_head(), self._text_columns).items():
                if name in names and name not in self._parts:
                    with contextlib.suppress(UnicodeDecodeError):  # of an index that is no good
                        self._take(name, columns)
                self._unlisted.pop(name, None)
        for name in sorted(n for n in names - self._parts.keys() if _PART.fullmatch(n)):
            columns = self._read_columns(self.folder / name)
            self._take(name, columns)
            self._unlisted[name] = columns
        self._changed, self._looked = changed, looked

    def _time_of_folder(self) -> int:
        try:
            return self.folder.stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def _take(self, part: str, columns: Columns) -> None:
        text_values(columns["key"])  # raises where one is no text
        self._parts[part] = number = len(self._names)
        self._names.append(part)
        is_newest = part > self._newest
        for row, texts in enumerate(zip(*(columns[name].tolist() for name in self._text_columns), strict=True)):
            key = texts[0]
            if not is_newest and (place := self._where.find(key)) and self._names[place[0]] > part:
                continue  # what was committed last counts, whatever was seen first
            self._where.put(key, (number, row))
            if self.kind == "clips":
                self._rows.put(_joined(texts), (number, row))
        self._newest = max(self._newest, part)

    def _read_columns(self, path: Path) -> Columns:
        keys = _read_keys(path, self.kind, self._digest)
        return read_part(path, self.kind, self._digest) if self.kind == "clips" else keys

    def _index_head(self) -> dict[str, int | str]:
        head: dict[str, int | str] = {"format_version": FORMAT_VERSION, "kind": f"index of {self.kind}"}
        return head | {"identity_sha256": self._digest, "columns": " ".join(self._text_columns)}

    def write_index(self, *, at_end: bool = False) -> None:
        """Write an index of parts if many are in none; whoever opens the store next reads that instead.

        Args:
            at_end: No more parts are to come soon: fewer of them are many.

        Raises:
            StoreError: If it cannot be written.
        """
        least = FEWEST_AT_END if at_end else FEWEST_PARTS
        if len(self._unlisted) >= least:
            self.refresh()  # another process may have written it
        if len(self._unlisted) >= least:
            self._indexes.add(write_index(self.folder, self._unlisted, self._index_head()))
            self._unlisted = {}

    def write_part(self, arrays: Arrays) -> Path:
        """Commit rows as one new part; when this returns they are on disk and complete.

        Args:
            arrays: The datasets of this kind of store, one row a clip.

        Returns:
            The part's path. Its name carries the sha256 of the whole file.

        Raises:
            StoreError: If it cannot be written; nothing stored before is touched.
            ValueError: If these are not the datasets of this kind of store.
        """
        make_folder(self.folder)
        if not (self.folder / "identity.json").exists():
            write_json(self.folder / "identity.json", self.identity)
        data = _to_hdf5(arrays, self.kind, self.identity)
        last = _moment(self._newest) if self._newest else 0
        now = max(time.time_ns(), last + 1)  # also where a clock was set back: what is written last counts
        path = self.folder / sealed_name("part", now, data)
        by_us_alone = self._time_of_folder() == self._changed
        write_atomic(path, data)
        if by_us_alone:  # then it need not be listed: thousands of names take longer than all else
            self._changed = self._time_of_folder()
        self._unlisted[path.name] = {name: arrays[name] for name in self._text_columns}
        self._take(path.name, self._unlisted[path.name])
        return path

    def keys_in(self, part: Path) -> set[bytes]:
        """Return all keys of a part, those too that a later part has again; they are not verified.

        Raises:
            StoreCorrupt: If it is damaged so that they cannot be read.
        """
        return set(_read_keys(part, self.kind, self._digest)["key"].tolist())

    def indexes(self) -> Iterator[tuple[Path, set[bytes]]]:
        """Yield each index with the keys that it names; of one that is not sound none."""
        for path in sorted(p for p in self.folder.glob("index-*.h5") if INDEX.fullmatch(p.name)):
            parts = parts_in(path, self._index_head(), ("key",)).values()
            yield path, {key for columns in parts for key in columns["key"].tolist()}

    def replace_part(self, part: Path, arrays: Arrays) -> Path | None:
        """Commit rows in the place of a part, and remove it once they are on disk; this store must be opened again.

        Args:
            part: The part.
            arrays: Some of its rows, as :meth:`write_part` takes them; none: it is only removed.

        Returns:
            The new part, None if there is none. It has the time of the old one: other parts hold rows of the same keys
            that are later, or earlier, than these.

        Raises:
            StoreError: If the one cannot be written or the other not be removed; nothing is lost.
        """
        new = None
        if len(arrays["key"]):
            data = _to_hdf5(arrays, self.kind, self.identity)
            new = part.with_name(sealed_name("part", _moment(part.name), data))
            write_atomic(new, data)
        if new != part:
            remove(part)
        return new

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
        ends = arrays["jpeg_end"]
        if ends.shape[1] != self.identity.get("samples", ends.shape[1]):
            raise StoreCorrupt(f"{self.folder}: {key} has {ends.shape[1]} frames, expected {self.identity['samples']}")
        try:
            return row_of(arrays["jpeg_bytes"], ends, row)
        except ValueError as error:
            raise StoreCorrupt(f"{self.folder}, the part with {key}: {error}") from error

    def rows(
        self, keys: Sequence[str], names: Sequence[str], advance: Callable[[int], object] = lambda _: None
    ) -> Arrays:
        """Return chosen datasets of many clips, stacked in the order of ``keys``; each part is read once.

        ``advance`` is told how many rows were read, part after part.

        Raises:
            StoreError: If a key is not stored.
            StoreCorrupt: If a part is damaged.
        """
        missing = [k for k in keys if k not in self]
        if missing:
            raise StoreError(f"{len(missing)} of {len(keys)} clips are not in {self.folder}, such as {missing[0]}")
        by_part: dict[str, list[tuple[int, int]]] = {}
        for position, key in enumerate(keys):
            part, row = self._place(key)
            by_part.setdefault(part, []).append((position, row))
        out: Arrays = {}
        for part, pairs in by_part.items():
            positions, part_rows = map(list, zip(*pairs, strict=True))
            arrays = read_part(self.folder / part, self.kind, self._digest)
            self._check_keys(part, arrays, part_rows, [keys[position] for position in positions])
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
            advance(len(positions))
        return out

    def _row_and_part(self, key: str) -> tuple[int, Arrays]:
        name, row = self._place(key)
        path = self.folder / name
        # Neighbouring clips are neighbours on disk, but those that came later lie between earlier ones by name.
        read = self._read  # threads may ask for different parts
        if name not in read:
            read = dict(list(read.items())[1 - _MOST_READ :]) | {name: read_part(path, self.kind, self._digest)}
            self._read = read
        self._check_keys(name, read[name], [row], [key])
        return row, read[name]

    def _check_keys(self, part: str, arrays: Arrays, rows: list[int], keys: list[str]) -> None:
        """Refuse an index that says of a part what it does not hold."""
        if max(rows) >= len(arrays["key"]) or text_values(arrays["key"][rows]) != keys:
            raise StoreCorrupt(
                f"{self.folder}: an index says that {part} holds {keys[0]} where it does not. Delete the index-*.h5 "
                "files there: they are made again from the parts"
            )

    def _place(self, key: str) -> tuple[str, int]:
        """Return the name of the part that holds a key, and its row in it."""
        if (place := self._where.find(_bytes(key))) is None:
            raise StoreError(f"{key} is not in {self.folder}")
        return self._names[place[0]], place[1]


def _moment(part: str) -> int:
    return int(part.split("-")[1])


def _joined(texts: Sequence[bytes]) -> bytes:
    return b"\0".join(texts)  # a byte that no text holds


def _of_rows(columns: Columns, rows: NDArray[np.int32]) -> Columns:
    return {name: column[rows] for name, column in columns.items()}


def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogatepass")  # of a name that is no text: not here, as nothing of it can be


def _to_hdf5(arrays: Arrays, kind: str, identity: Mapping[str, Any]) -> bytes:
    if arrays.keys() != SCHEMAS[kind].keys():
        raise ValueError(f"a part of {kind} holds {sorted(SCHEMAS[kind])}, got {sorted(arrays)}")
    head: dict[str, int | str] = {"format_version": FORMAT_VERSION, "kind": kind, "identity_sha256": digest(identity)}
    return hdf5.encode(arrays, head | {"identity": canonical_json(identity)})


def _damaged(path: Path, why: object) -> StoreCorrupt:
    reason = f"damaged: {why}"
    error = StoreCorrupt(
        f"{path} is {reason}. Run `fitrec-cache check --cache DIR --repair` to set it aside, then `extract` "
        "again: only its clips are redone"
    )
    error.reason = reason
    return error


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path} cannot be read: {error.strerror}. Nothing says that it is damaged")


def _read_keys(path: Path, kind: str, identity_sha256: str) -> Columns:
    """Return a part's keys without reading the rest; the rest is verified when it is read."""
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise _damaged(path, "it is not there") from error
    except OSError as error:
        raise _unreadable(path, error) from error
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
        raise _unreadable(path, error) from error
    if not _PART.fullmatch(path.name) or not is_sealed(path.name, data):
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


def read_identity(folder: Path) -> dict[str, Any]:
    """Return the identity of a store's folder.

    Raises:
        StoreError: If its ``identity.json`` cannot be read.
        StoreCorrupt: If that is damaged, or of another folder.
    """
    path = folder / "identity.json"
    try:
        identity = parse_json(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise _damaged(path, f"cannot be read as JSON ({error})") from error
    if not isinstance(identity, dict) or not folder.name.endswith(digest(identity)[:16]):
        raise _damaged(path, "it does not belong to this folder")
    return identity
