"""Stores: arrays in HDF5 parts that never change, committed by renaming. docs/format.md specifies the layout."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fitrec_cache.common.files import (
    digest,
    make_folder,
    parse_json,
    read_file,
    remove,
    sealed_name,
    write_atomic,
    write_json,
)
from fitrec_cache.errors import StoreCorrupt, StoreError
from fitrec_cache.storage.index import FEWEST_AT_END, FEWEST_PARTS, INDEX, Columns, parts_in, write_index
from fitrec_cache.storage.keymap import KeyMap
from fitrec_cache.storage.parts import (
    FORMAT_VERSION,
    PART,
    SCHEMAS,
    Arrays,
    damaged,
    part_bytes,
    read_keys,
    read_part,
    row_of,
    text_values,
    unreadable,
)

#: For this many seconds, a folder with an unchanged modification time is assumed to be unchanged. Not for longer,
#: because file systems have coarse clocks, and on some a folder's time never changes.
_LONGEST_TRUST = 2.0

#: Number of recently read parts kept in memory, for callers that ask for one row after another.
_MOST_READ = 3


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
        self._forget()
        self.refresh()

    def _forget(self) -> None:
        """Forget all parts, so that :meth:`refresh` begins anew."""
        self._names: list[str] = []  # of the parts, in the order in which they were seen: part number -> name
        self._seen: set[str] = set()  # the same names
        #: Of the parts seen so far, the one committed last; empty if there is none.
        self.newest = ""
        self._where = KeyMap()
        self._rows = KeyMap()  # for a store of clips: the place of each row, by all of its texts
        self._changed = 0  # modification time of the folder when this store last listed it or changed it
        self._looked = 0.0
        self._indexes: set[str] = set()
        self._unlisted: dict[str, Columns] = {}  # the columns of parts that are in no index yet, for the next one
        self._read: dict[str, Arrays] = {}  # recently read parts

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how another process opens the store again."""
        return type(self), (self.folder, self.kind, self.identity)

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._where.find(_bytes(key)) is not None

    def holds(self, texts: Sequence[str]) -> bool:
        """Say whether the valid row of a clip has exactly these texts, the key first; for a store of clips only."""
        place = self._rows.find(_joined([text.encode() for text in texts]))
        return place is not None and place == self._where.find(texts[0].encode())

    def __iter__(self) -> Iterator[str]:
        """Yield all keys, in the order of the parts that hold them."""
        by_part = {name: columns["key"] for name, columns in self.texts()}
        for name in sorted(by_part):
            yield from text_values(by_part[name])

    def texts(self) -> Iterator[tuple[str, Columns]]:
        """Yield each part's name and keys (for a store of clips: all text columns), in no particular order.

        Rows whose key occurs again in a later part are left out. Names of parts are in the order of time.
        """
        places = self._where.places()
        ends = np.searchsorted(places[:, 0], np.arange(len(self._names)), side="right").tolist()
        numbered = zip(self._names, pairwise([0, *ends]), strict=True)
        rows = {name: places[start:end, 1] for name, (start, end) in numbered if start < end}
        for name, columns in self._columns({name: int(r[-1]) + 1 for name, r in rows.items()}):
            yield name, {text: column[rows[name]] for text, column in columns.items()}

    def all_texts(self) -> Iterator[tuple[str, Columns]]:
        """Like :meth:`texts`, but including rows whose key occurs again in a later part."""
        return self._columns(dict.fromkeys(self._names, 0))

    def _columns(self, least: Mapping[str, int]) -> Iterator[tuple[str, Columns]]:
        """Yield the text columns of each part, from an index that has enough of its rows or else from the part."""
        left = dict(least)
        for index in sorted(self._indexes):
            for name, columns in self._listed(self.folder / index).items():
                if name not in self._unlisted and len(columns["key"]) >= left.get(name, math.inf):
                    del left[name]
                    yield name, columns
        for name in sorted(left):
            yield name, self._unlisted[name] if name in self._unlisted else self._read_columns(self.folder / name)

    def part_paths(self) -> list[Path]:
        """Return the committed parts, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(p for p in self.folder.iterdir() if PART.fullmatch(p.name))

    def refresh(self) -> None:
        """Register parts that were committed or erased since the last look, by this process or by others."""
        changed, looked = self._time_of_folder(), time.monotonic()
        if changed == self._changed and looked - self._looked < _LONGEST_TRUST:
            return
        try:
            names = set(os.listdir(self.folder))  # noqa: PTH208 - thousands of names, no paths
        except (FileNotFoundError, NotADirectoryError):
            return
        if not self._seen <= names:
            self._forget()
        for index in sorted(n for n in names - self._indexes if INDEX.fullmatch(n)):
            self._indexes.add(index)
            for name, columns in self._listed(self.folder / index).items():
                if name in names and name not in self._seen:
                    with contextlib.suppress(UnicodeDecodeError):  # raised by a bad index
                        self._take(name, columns)
                self._unlisted.pop(name, None)
        for name in sorted(n for n in names - self._seen if PART.fullmatch(n)):
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
        text_values(columns["key"])  # raises UnicodeDecodeError if a key is not text
        number = len(self._names)
        self._names.append(part)
        self._seen.add(part)
        is_newest = part > self.newest
        for row, texts in enumerate(self.rows_of(columns)):
            key = texts[0]
            if not is_newest and (place := self._where.find(key)) and self._names[place[0]] > part:
                continue  # the row committed last is valid, regardless of which was seen first
            self._where.put(key, (number, row))
            if self.kind == "clips":
                self._rows.put(_joined(texts), (number, row))
        self.newest = max(self.newest, part)

    def _read_columns(self, path: Path) -> Columns:
        read = read_part if self.kind == "clips" else read_keys
        return read(path, self.kind, self._digest)

    def _listed(self, index: Path) -> dict[str, Columns]:
        return parts_in(index, self._index_head(), self._text_columns)

    def _index_head(self) -> dict[str, int | str]:
        head: dict[str, int | str] = {"format_version": FORMAT_VERSION, "kind": f"index of {self.kind}"}
        return head | {"identity_sha256": self._digest, "columns": " ".join(self._text_columns)}

    def write_index(self, *, at_end: bool = False) -> None:
        """Write an index if many parts are in none, so that the next one to open the store can read it instead of them.

        Args:
            at_end: Whether no more parts are expected soon; then fewer parts are enough.

        Raises:
            StoreError: If it cannot be written.
        """
        least = FEWEST_AT_END if at_end else FEWEST_PARTS
        if len(self._unlisted) >= least:
            self.refresh()  # another process may have written an index
        if len(self._unlisted) >= least:
            self._indexes.add(write_index(self.folder, self._unlisted, self._index_head()))
            self._unlisted = {}

    def write_part(self, arrays: Arrays) -> Path:
        """Commit rows as one new part; when this returns, they are on disk and complete.

        Args:
            arrays: The datasets of this kind of store, one row per clip.

        Returns:
            The part's path. Its name carries the sha256 of the whole file.

        Raises:
            StoreError: If it cannot be written; earlier parts are not touched.
            ValueError: If the arrays are not the datasets of this kind of store.
        """
        make_folder(self.folder)
        if not (self.folder / "identity.json").exists():
            write_json(self.folder / "identity.json", self.identity)
        data = part_bytes(arrays, self.kind, self.identity)
        last = _moment(self.newest) if self.newest else 0
        now = max(time.time_ns(), last + 1)  # even if the clock was set back, the part written last must sort last
        path = self.folder / sealed_name("part", now, data)
        by_us_alone = self._time_of_folder() == self._changed
        write_atomic(path, data)
        if by_us_alone:  # then the folder need not be listed again: with thousands of names that takes longest
            self._changed = self._time_of_folder()
        self._unlisted[path.name] = {name: arrays[name] for name in self._text_columns}
        self._take(path.name, self._unlisted[path.name])
        return path

    def keys_in(self, part: Path) -> set[bytes]:
        """Return all keys of a part, including those that occur again in a later part; they are not verified.

        Raises:
            StoreCorrupt: If the part is so damaged that they cannot be read.
        """
        return set(read_keys(part, self.kind, self._digest)["key"].tolist())

    def indexes(self) -> Iterator[tuple[Path, set[tuple[bytes, ...]]]]:
        """Yield each index with the rows that it holds (:meth:`rows_of`); no rows if the index is not sound."""
        for path in sorted(p for p in self.folder.glob("index-*.h5") if INDEX.fullmatch(p.name)):
            yield path, {row for columns in self._listed(path).values() for row in self.rows_of(columns)}

    def rows_of(self, columns: Columns) -> Iterator[tuple[bytes, ...]]:
        """Yield the texts of each row: for a store of clips all texts of an entry, otherwise only the key."""
        return zip(*(columns[name].tolist() for name in self._text_columns), strict=True)

    def replace_part(self, part: Path, arrays: Arrays) -> Path | None:
        """Commit rows in place of a part and remove it once they are on disk; this store must then be opened again.

        Args:
            part: The part.
            arrays: Some of its rows, as in :meth:`write_part`; if none, the part is only removed.

        Returns:
            The new part, or None. It keeps the time of the old one, so that its rows keep their order relative to rows
            with the same keys in other parts.

        Raises:
            StoreError: If the new part cannot be written or the old one cannot be removed; nothing is lost.
        """
        new = None
        if len(arrays["key"]):
            data = part_bytes(arrays, self.kind, self.identity)
            new = part.with_name(sealed_name("part", _moment(part.name), data))
            write_atomic(new, data)
        if new != part:
            remove(part)
        return new

    def write_origin(self, origin: Mapping[str, Any]) -> None:
        """Store, beside the parts, what helps to reproduce them but does not affect any array; the latest is kept."""
        if len(self) and self.origin() != origin:
            write_json(self.folder / "origin.json", dict(origin))

    def origin(self) -> dict[str, Any]:
        """Return what :meth:`write_origin` stored; empty if it is missing or unreadable."""
        try:
            found = parse_json(read_file(self.folder / "origin.json"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def row(self, key: str) -> Arrays:
        """Return one clip's row of each dataset (without ``jpeg_bytes``); its part is verified first.

        Raises:
            StoreError: If the key is not stored.
            StoreCorrupt: If its part is damaged.
        """
        row, arrays = self._row_and_part(key)
        return {name: a[row] for name, a in arrays.items() if name != "jpeg_bytes"}

    def part_of(self, key: str) -> str:
        """Return the name of the part that holds a key; raises :class:`StoreError` if it is not stored."""
        return self._place(key)[0]

    def jpegs(self, key: str) -> list[bytes]:
        """Return the T encoded frames of one clip from a store of frames; raises the errors of :meth:`row`."""
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
        """Return selected datasets of many clips, stacked in the order of ``keys``; each part is read once.

        ``advance`` is called after each part with the number of rows read from it.

        Raises:
            StoreError: If a key is not stored.
            StoreCorrupt: If a part is damaged.
        """
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
        # Neighbouring clips are usually in the same part, but clips added later fall between earlier ones by name.
        read = self._read  # a local reference, because other threads may replace self._read
        if name not in read:
            read = dict(list(read.items())[1 - _MOST_READ :]) | {name: read_part(path, self.kind, self._digest)}
            self._read = read
        self._check_keys(name, read[name], [row], [key])
        return row, read[name]

    def _check_keys(self, part: str, arrays: Arrays, rows: list[int], keys: list[str]) -> None:
        """Refuse an index that lists rows which the part does not hold."""
        if max(rows) >= len(arrays["key"]) or text_values(arrays["key"][rows]) != keys:
            raise StoreCorrupt(
                f"{self.folder}: an index says that {part} holds {keys[0]} where it does not. Delete the index-*.h5 "
                "files there: they are rebuilt from the parts"
            )

    def _place(self, key: str) -> tuple[str, int]:
        """Return the name of the part that holds a key, and its row in it."""
        if (place := self._where.find(_bytes(key))) is None:
            raise StoreError(f"{key} is not in {self.folder}")
        return self._names[place[0]], place[1]


def _moment(part: str) -> int:
    return int(part.split("-")[1])


def _joined(texts: Sequence[bytes]) -> bytes:
    return b"\0".join(texts)  # a byte that occurs in no text


def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogatepass")  # a name that is not valid text is never stored, so it is not found


def read_identity(folder: Path) -> dict[str, Any]:
    """Return the identity of a store's folder.

    Raises:
        StoreError: If its ``identity.json`` cannot be read.
        StoreCorrupt: If it is damaged or belongs to another folder.
    """
    path = folder / "identity.json"
    try:
        identity = parse_json(read_file(path))
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise damaged(path, f"cannot be read as JSON ({error})") from error
    if not isinstance(identity, dict) or not folder.name.endswith(digest(identity)[:16]):
        raise damaged(path, "it does not belong to this folder")
    return identity
