"""One part of a store: an HDF5 file that never changes; its name holds the sha256 of its bytes (docs/format.md)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.common.files import canonical_json, digest, is_sealed, opened_file, parse_json, read_file
from fitrec_cache.errors import OtherVersionError, StoreCorrupt, StoreError
from fitrec_cache.storage import hdf5

#: Version of the layout on disk.
FORMAT_VERSION = 1

#: The name of a part: the time it was written, in nanoseconds, and the beginning of its sha256.
PART = re.compile(r"part-\d{20}-[0-9a-f]{32}\.h5")

#: Datasets of a part by kind of store: dtype kinds and number of axes. All but ``jpeg_bytes`` have one row per clip.
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
    """Return strings as fixed-length UTF-8, the only form of text in these files."""
    encoded = [v.encode() for v in values]
    return np.array(encoded, dtype=f"S{max(1, *map(len, encoded))}" if encoded else "S1")


def text_values(column: NDArray[Any]) -> list[str]:
    """Return a text column as strings."""
    return [v.decode() for v in column.tolist()]


def joined(clips: Sequence[Sequence[bytes]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Concatenate the JPEG files of several clips, at least one clip, each with T files.

    Returns:
        All bytes as one array, and the end of each file in it, ``(n, T)``.
    """
    sizes = np.array([[len(jpeg) for jpeg in jpegs] for jpegs in clips], dtype=np.int64)
    data = b"".join(jpeg for jpegs in clips for jpeg in jpegs)
    return np.frombuffer(data, dtype=np.uint8), np.cumsum(sizes).reshape(sizes.shape)


def row_of(data: NDArray[Any], ends: NDArray[Any], row: int) -> list[bytes]:
    """Return the JPEG files of one clip from the arrays made by :func:`joined`.

    Raises:
        ValueError: If the ends, of any clip, cannot be those of files in ``data``.
    """
    places = np.append(0, ends)  # with the start of the first file
    if not ends.shape[1] or (places[1:] < places[:-1]).any() or places[-1] > len(data):
        raise ValueError("frames have impossible offsets")
    first = row * ends.shape[1]
    return [data[start:end].tobytes() for start, end in pairwise(places[first : first + ends.shape[1] + 1].tolist())]


def part_bytes(arrays: Arrays, kind: str, identity: Mapping[str, Any]) -> bytes:
    """Return the bytes of a part's file.

    Raises:
        ValueError: If the arrays are not the datasets of this kind of store.
    """
    if arrays.keys() != SCHEMAS[kind].keys():
        raise ValueError(f"a part of {kind} holds {sorted(SCHEMAS[kind])}, got {sorted(arrays)}")
    head: dict[str, int | str] = {"format_version": FORMAT_VERSION, "kind": kind, "identity_sha256": digest(identity)}
    return hdf5.encode(arrays, head | {"identity": canonical_json(identity)})


def damaged(path: Path, why: object) -> StoreCorrupt:
    """Return the error for a file of a cache whose content is not what was written, or that was removed meanwhile."""
    if not os.path.lexists(path):
        return StoreCorrupt(
            f"{path} is not there any more: `extract --prune --erase` may just have put what is kept of it into "
            "another part. Run the same command again; if it says so again, `fitrec-cache check` names what is missing"
        )
    reason = f"damaged: {why}"
    error = StoreCorrupt(
        f"{path} is {reason}. Run `fitrec-cache check --cache DIR --repair` to set it aside, then `extract` "
        "again: only its clips are redone"
    )
    error.reason = reason
    return error


def unreadable(path: Path, error: OSError) -> StoreError:
    """Return the error for a file of a cache that the system cannot read or that no longer exists."""
    if isinstance(error, FileNotFoundError):
        return damaged(path, error)
    return StoreError(f"{path} cannot be read: {error.strerror}. Nothing says that it is damaged: make it readable")


def read_keys(path: Path, kind: str, identity_sha256: str) -> Arrays:
    """Return a part's keys without reading the rest, which is verified only when it is read.

    Raises:
        StoreCorrupt: If the part is missing or damaged, or does not belong to this store.
        StoreError: If the system cannot read the file, or it has another format version.
    """
    try:
        with opened_file(path):
            pass
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        check = partial(_check_head, path=path, kind=kind, identity_sha256=identity_sha256)
        _, arrays = hdf5.decode(path, {"key": SCHEMAS[kind]["key"]}, check=check)
        text_values(arrays["key"])
        return arrays
    except (hdf5.Unreadable, UnicodeDecodeError) as error:
        raise damaged(path, error) from error


def read_part(path: Path, kind: str, identity_sha256: str | None = None) -> Arrays:
    """Read all of one part, after checking its bytes against the sha256 in its name.

    Args:
        path: The part.
        kind: The kind of store that it belongs to.
        identity_sha256: If given, the sha256 of the identity that it must have.

    Raises:
        StoreCorrupt: If it is missing, truncated, altered, or not a part of this store.
        StoreError: If the system cannot read the file, or it has another format version.
    """
    try:
        data = read_file(path)
    except OSError as error:
        raise unreadable(path, error) from error
    if not PART.fullmatch(path.name) or not is_sealed(path.name, data):
        raise damaged(path, "its bytes are not those that were written (sha256 differs from the one in its name)")
    try:
        check = partial(_check_head, path=path, kind=kind, identity_sha256=identity_sha256)
        _, arrays = hdf5.decode(data, SCHEMAS[kind], check=check)
        for name, array in arrays.items():
            if array.dtype.kind == "S":
                check_texts(name, text_values(array))
    except (hdf5.Unreadable, ValueError) as error:
        raise damaged(path, error) from error
    if len({len(a) for name, a in arrays.items() if name != "jpeg_bytes"}) != 1:
        raise damaged(path, "its datasets have different numbers of rows")
    return arrays


def check_texts(name: str, texts: list[str]) -> None:
    """Raise ValueError if a column that must hold JSON objects does not; the values in ``extra`` must be texts."""
    if name not in _JSON_COLUMNS:
        return
    for text in texts:
        value = parse_json(text)
        if not isinstance(value, dict) or (name == "extra" and not all(isinstance(v, str) for v in value.values())):
            raise ValueError(f"{name} is {text[:40]!r}, expected a JSON object" + " of texts" * (name == "extra"))


def identity_of_part(path: Path, kind: str) -> dict[str, Any]:
    """Return the identity stored in a part; raises :class:`StoreCorrupt` if the part is damaged."""
    read_part(path, kind)
    try:
        head, _ = hdf5.decode(path, {})
        return dict(parse_json(str(head["identity"])))
    except (hdf5.Unreadable, KeyError, ValueError, TypeError) as error:
        raise damaged(path, error) from error


def _check_head(head: Mapping[str, Any], path: Path, kind: str, identity_sha256: str | None) -> None:
    version = head.get("format_version")
    if not isinstance(version, int):
        raise damaged(path, "it does not say its format version")
    if version != FORMAT_VERSION:
        raise other_version(path, version)
    if head.get("kind") != kind:
        raise damaged(path, f"a part of kind {head.get('kind')!r} among {kind}")
    if identity_sha256 is not None and head.get("identity_sha256") != identity_sha256:
        raise damaged(path, "made with other settings than its folder's identity.json")


def other_version(path: Path, version: object) -> OtherVersionError:
    """Return the error for a file or folder that was written with another version of the format."""
    return OtherVersionError(
        f"{path} has cache format version {version}, this program reads version {FORMAT_VERSION}. Use the program "
        "version that wrote it, or another --cache folder"
    )
