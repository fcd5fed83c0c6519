"""Indexes of a store's parts, so that opening a store with thousands of parts reads only a few files.

Indexes are derived data. What an index says about a part cannot become outdated, because a part's name carries its
sha256. Parts without a sound index are read themselves. Layout: docs/format.md.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.common.files import is_sealed, read_file, sealed_name, write_atomic
from fitrec_cache.storage import hdf5

INDEX = re.compile(r"index-\d{20}-[0-9a-f]{32}\.h5")

#: An index is written when this many parts are in no index yet. It lists only those, so its cost does not grow with the
#: store.
FEWEST_PARTS = 64

#: At the end of a run, this many are enough: the next one to open the store then reads one file instead of them all.
FEWEST_AT_END = 8

Columns = dict[str, NDArray[np.bytes_]]


def parts_in(path: Path, head: Mapping[str, Any], columns: Iterable[str]) -> dict[str, Columns]:
    """Read columns from an index.

    Args:
        path: The index.
        head: The attributes that an index of this store must have.
        columns: The text columns to read.

    Returns:
        The columns of each part that the index lists; empty if the index is gone, not sound, or of another store.
    """
    with contextlib.suppress(OSError, hdf5.Unreadable, ValueError):
        data = read_file(path)
        if not is_sealed(path.name, data):
            return {}
        attributes, arrays = hdf5.decode(data, {"part": ("S", 1), "end": ("i", 1)} | dict.fromkeys(columns, ("S", 1)))
        if {k: attributes.get(k) for k in head} != dict(head):  # an index of another store
            return {}
        ends = arrays["end"].tolist()
        return {
            part.decode(): {c: arrays[c][start:end] for c in columns}
            for part, (start, end) in zip(arrays["part"].tolist(), pairwise([0, *ends]), strict=True)
        }
    return {}


def index_problem(path: Path) -> str:
    """Return what is wrong with an index file; empty if nothing."""
    try:
        sound = is_sealed(path.name, read_file(path))
    except FileNotFoundError:  # `extract --erase` has just removed it
        return ""
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if sound else "damaged: its bytes are not those that were written"


def write_index(folder: Path, parts: Mapping[str, Columns], head: Mapping[str, Any]) -> str:
    """Write an index of parts and return its name.

    Raises:
        StoreError: If it cannot be written.
    """
    names = sorted(parts)
    arrays: dict[str, NDArray[Any]] = {
        "part": np.array([n.encode() for n in names]),
        "end": np.cumsum([len(parts[n]["key"]) for n in names], dtype=np.int64),
        **{c: np.concatenate([parts[n][c] for n in names]) for c in parts[names[0]]},
    }
    data = hdf5.encode(arrays, head)
    name = sealed_name("index", time.time_ns(), data)
    write_atomic(folder / name, data)
    return name
