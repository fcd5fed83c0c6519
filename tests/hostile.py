"""Files that want to do harm, for the tests and for ``benchmarks/torture.py``."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

# --- parts: what ``build(file)`` adds to a sound head and keys ---


def external_link(file):
    file["features"] = h5py.ExternalLink("/etc/passwd", "/features")
    file["pts_seconds"] = np.zeros((1, 2))


def soft_link(file):
    file["elsewhere"] = np.zeros((1, 2, 3), dtype=np.float16)
    file["features"] = h5py.SoftLink("/elsewhere")
    file["pts_seconds"] = np.zeros((1, 2))


def external_storage(file):
    file.create_dataset("features", (1, 2, 3), "f2", external=[("/etc/passwd", 0, 12)])
    file["pts_seconds"] = np.zeros((1, 2))


def virtual(file):
    layout = h5py.VirtualLayout((1, 2, 10**12), "f2")
    layout[0, 0, :10] = h5py.VirtualSource("/etc/passwd", "features", (10,))
    file.create_virtual_dataset("features", layout)
    file["pts_seconds"] = np.zeros((1, 2))


def promised_chunks(file):
    file.create_dataset("features", (1, 2, 10**12), "f2", chunks=(1, 1, 10**6))
    file["pts_seconds"] = np.zeros((1, 2))


def promised_contiguous(file):
    file.create_dataset("features", (1, 2, 10**13), "f2")
    file["pts_seconds"] = np.zeros((1, 2))


def promised_keys(file):
    del file["key"]
    file.create_dataset("key", (10**12,), "S8", chunks=(10**6,), compression="gzip")


def compressed(file):
    file.create_dataset("features", data=np.zeros((1, 2000, 3000), dtype=np.float16), compression="gzip")
    file["pts_seconds"] = np.zeros((1, 2000))


def objects(file):
    file.create_dataset("features", (1, 2, 3), h5py.vlen_dtype(np.float16))
    file["pts_seconds"] = np.zeros((1, 2))


def references(file):
    file.create_dataset("features", (1, 2, 3), h5py.ref_dtype)
    file["pts_seconds"] = np.zeros((1, 2))


def a_group(file):
    file.create_group("features")
    file["pts_seconds"] = np.zeros((1, 2))


def missing(file):
    file["pts_seconds"] = np.zeros((1, 2))


def other_axes(file):
    file["features"] = np.zeros((1, 6), dtype=np.float16)
    file["pts_seconds"] = np.zeros((1, 2))


def unequal_rows(file):
    file["features"] = np.zeros((4, 2, 3), dtype=np.float16)
    file["pts_seconds"] = np.zeros((1, 2))


def keys_that_are_not_text(file):
    file["key"][0] = b"\xff"
    file["features"] = np.zeros((1, 2, 3), dtype=np.float16)
    file["pts_seconds"] = np.zeros((1, 2))


def external_link_to_a_pipe(file):
    """To open the pipe would wait for ever for a writer."""
    folder = Path(tempfile.mkdtemp())
    os.mkfifo(folder / "pipe")
    file["features"] = h5py.ExternalLink(str(folder / "pipe"), "/features")
    file["pts_seconds"] = np.zeros((1, 2))


HOSTILE = (
    external_link,
    external_link_to_a_pipe,
    soft_link,
    external_storage,
    virtual,
    promised_chunks,
    promised_contiguous,
    promised_keys,
    compressed,
    objects,
    references,
    a_group,
    missing,
    other_axes,
    unequal_rows,
    keys_that_are_not_text,
)


def with_circular_heap(data: bytes) -> bytes:
    """Return an HDF5 file whose heap of names has a free block that is followed by itself."""
    at = data.index(b"HEAP")
    free, place = struct.unpack_from("<QQ", data, at + 16)
    return data[: place + free] + struct.pack("<QQ", free, 16) + data[place + free + 16 :]


# --- run.json ---

#: What a field is replaced by.
ODD = (None, True, -1, 0, 10**12, 1.5, "", "x" * 10_000, "../../x", [], [[]] * 3, {}, {"a": {"b": []}})

#: What of run.json is read by ``predict``.
READ = ("run_version", "head", "labels", "sources", "calibration", "sums")


def odd_runs(settings: dict[str, Any]) -> Iterator[str]:
    """Yield run.json once for each field that is read, whole or part, and each odd value in its place."""
    settings = {name: settings[name] for name in READ}
    for path in _places(settings):
        for odd in ODD:
            yield json.dumps(_planted(settings, path, odd))


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield every place in a JSON value, the inner ones first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield from _places(child, (*path, key))
        yield (*path, key)


def _planted(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return copy
