"""Arrays in immutable HDF5 parts, committed by rename. The layout is a public contract: docs/format.md."""

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
from fitrec_cache.storage.jpeg_rows import row_of
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
    text_values,
    unreadable,
)

#: A folder whose time has not changed is believed to be unchanged for so many seconds: clocks of file systems are
#: coarse, and on some a folder's time never changes.
_LONGEST_TRUST = 2.0

#: Parts that are kept once read, of which some rows are asked for one by one.
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
        self._parts: dict[str, int] = {}  # by name their numbers, in the order in which they were seen
        self._names: list[str] = []  # by number
        #: The part that was committed last of those seen; empty if there is none.
        self.newest = ""
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
        for name, columns in self._columns({name: int(r[-1]) + 1 for name, r in rows.items()}):
            yield name, {text: column[rows[name]] for text, column in columns.items()}

    def all_texts(self) -> Iterator[tuple[str, Columns]]:
        """Yield as :meth:`texts`, and also the rows whose key a later part has again."""
        return self._columns(dict.fromkeys(self._names, 0))

    def _columns(self, least: Mapping[str, int]) -> Iterator[tuple[str, Columns]]:
        """Yield the text columns of parts, of an index if they have at least so many rows there, else read."""
        left = dict(least)
        for index in sorted(self._indexes):
            for name, columns in parts_in(self.folder / index, self._index_head(), self._text_columns).items():
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
        for name in sorted(n for n in names - self._parts.keys() if PART.fullmatch(n)):
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
        is_newest = part > self.newest
        for row, texts in enumerate(self.rows_of(columns)):
            key = texts[0]
            if not is_newest and (place := self._where.find(key)) and self._names[place[0]] > part:
                continue  # what was committed last counts, whatever was seen first
            self._where.put(key, (number, row))
            if self.kind == "clips":
                self._rows.put(_joined(texts), (number, row))
        self.newest = max(self.newest, part)

    def _read_columns(self, path: Path) -> Columns:
        keys = read_keys(path, self.kind, self._digest)
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
        data = part_bytes(arrays, self.kind, self.identity)
        last = _moment(self.newest) if self.newest else 0
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
        return set(read_keys(part, self.kind, self._digest)["key"].tolist())

    def indexes(self) -> Iterator[tuple[Path, set[tuple[bytes, ...]]]]:
        """Yield each index with the rows that it holds (:meth:`rows_of`); of one that is not sound none."""
        for path in sorted(p for p in self.folder.glob("index-*.h5") if INDEX.fullmatch(p.name)):
            parts = parts_in(path, self._index_head(), self._text_columns).values()
            yield path, {row for columns in parts for row in self.rows_of(columns)}

    def rows_of(self, columns: Columns) -> Iterator[tuple[bytes, ...]]:
        """Yield the texts of each row: of clips all that an entry says, else the key alone."""
        return zip(*(columns[name].tolist() for name in self._text_columns), strict=True)

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
            data = part_bytes(arrays, self.kind, self.identity)
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
            found = parse_json(read_file(self.folder / "origin.json"))
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

    def part_of(self, key: str) -> str:
        """Return the name of the part that holds a key; raises :class:`StoreError` if it is not stored."""
        return self._place(key)[0]

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
    return b"\0".join(texts)  # a byte that no text holds


def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogatepass")  # of a name that is no text: not here, as nothing of it can be


def read_identity(folder: Path) -> dict[str, Any]:
    """Return the identity of a store's folder.

    Raises:
        StoreError: If its ``identity.json`` cannot be read.
        StoreCorrupt: If that is damaged, or of another folder.
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
