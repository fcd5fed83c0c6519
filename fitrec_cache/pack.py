"""One HDF5 file of features, for sharing or made elsewhere; docs/format.md specifies its layout."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.cache import Cache
from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import Plain, canonical_json, check_writable, parse_json, write_atomic
from fitrec_cache.dataset.clips import plain_text
from fitrec_cache.errors import UsageError
from fitrec_cache.features import Features, as_ours, load_cached
from fitrec_cache.storage import hdf5
from fitrec_cache.storage.parts import FORMAT_VERSION, check_texts, text_column, text_values
from fitrec_cache.storage.sources import is_name

_MUST: hdf5.Schema = {"features": ("f", 3), "clip_id": ("S", 1), "label": ("S", 1)}
_MAY: hdf5.Schema = {"group": ("S", 1), "pts_seconds": ("f", 2), "extra": ("S", 1)}

_TEXT = ("clip_id", "label", "group", "extra")


@dataclass(frozen=True, kw_only=True)
class PackReport(Plain):
    """The result of :func:`pack`: the file, N clips, T frames, d values, size in bytes, and notes on missing clips."""

    out: Path
    clips: int
    frames: int
    dim: int
    bytes: int
    notes: tuple[str, ...] = ()


@plain_arguments
def pack(
    *, cache: Path, out: Path, backbone: Sequence[str] = (), preset: str | None = None, progress: bool = False
) -> PackReport:
    """Write the features of all clips in a cache to one HDF5 file that ``train-head --features`` reads.

    Args:
        cache: Cache folder.
        out: The file to write; it must not exist, or must be empty.
        backbone: Backbone names; features of several are concatenated. Empty: the only backbone in the cache.
        preset: ``native``, ``grid``, ``paper`` or ``table1``, if the cache has several.
        progress: Show a progress bar on standard error.

    Returns:
        A description of the file.

    Raises:
        UsageError: If ``out`` exists or the backbone is not cached.
        StoreError: If the cache cannot be read or the file cannot be written.
    """
    if out.exists() and not (out.is_file() and not out.stat().st_size):  # a kill may have left an empty file
        raise UsageError(f"{out} exists: choose another --out, or remove it")
    check_writable(out, "--out")
    features = load_cached(Cache(cache), backbone, preset=preset, progress=progress)
    arrays = {
        "features": features.values,
        "clip_id": text_column(features.clip_ids),
        "label": text_column(features.labels),
        "group": text_column(g or "" for g in features.groups),
        "pts_seconds": features.pts_seconds,
        "extra": text_column(canonical_json(dict(columns)) for columns in features.extra),
    }
    head: dict[str, int | str] = {"format_version": FORMAT_VERSION, "kind": "pack", "backbone": features.name}
    head["sha256"] = _sum(features)
    data = hdf5.encode(arrays, head | {"sources": canonical_json(features.sources)})
    write_atomic(out, data)
    n, t, d = features.values.shape
    return PackReport(out=out, clips=n, frames=t, dim=d, bytes=len(data), notes=tuple(features.notes))


@plain_arguments
def read_pack(path: Path) -> Features:
    """Read a file that :func:`pack` wrote, or one made elsewhere in the same layout.

    Raises:
        UsageError: If the file is missing, or does not follow docs/format.md.
    """
    if path.is_dir():
        raise UsageError(f"features file {path} is a folder: expected an HDF5 file as docs/format.md describes")
    if not path.is_file():
        raise UsageError(f"features file {path} not found: expected an HDF5 file as docs/format.md describes")
    try:
        head, arrays = hdf5.decode(path, _MUST, optional=_MAY, plain=False, check=partial(_check_version, path))
        columns: dict[str, list[str]] = {k: text_values(arrays[k]) for k in _TEXT if k in arrays}
        sources = parse_json(str(head.get("sources", "[]")))
        check_texts("extra", columns.get("extra", []))
        name = head.get("backbone", "features")
        if not is_name(name):
            raise ValueError(f"attribute backbone is {str(name)[:100]!r}, expected a model's name without any of ,;%()")
    except (hdf5.Unreadable, ValueError) as error:
        arrays_alone = path.suffix.lower() in (".npy", ".npz", ".pt", ".pth", ".pkl")
        hint = ", and docs/switching.md how to give arrays in Python" * arrays_alone
        raise UsageError(f"features file {path}: {error}. docs/format.md says what it must hold{hint}") from error
    _check_rows(path, arrays)
    values = arrays["features"]
    n, t, _ = values.shape
    found = Features(
        values=values,
        pts_seconds=(
            arrays["pts_seconds"].astype(np.float64, copy=False) if "pts_seconds" in arrays else np.full((n, t), np.nan)
        ),
        clip_ids=columns["clip_id"],
        labels=columns["label"],
        groups=[g or None for g in columns.get("group", [""] * n)],
        extra=[parse_json(text) for text in columns.get("extra", ["{}"] * n)],
        sources=sources,
        name=str(name) if "backbone" in head else plain_text(path.stem),
    ).by_id()  # results must not depend on the order of rows
    del arrays, values  # free the copies in the order of the file
    if "sha256" in head and head["sha256"] != _sum(found):
        raise UsageError(
            f"features file {path} is damaged: what it holds is not what its attribute sha256 says. Copy it again; who "
            "changes it on purpose takes that attribute out"
        )
    return as_ours(found, f"in file {path}")


def _sum(features: Features) -> str:
    """Return the sha256 of everything that a packed file contains about its clips, in the order of their ids."""
    told = [features.clip_ids, features.labels, features.groups, [dict(columns) for columns in features.extra]]
    found = hashlib.sha256(canonical_json([told, str(features.values.dtype), features.values.shape]).encode())
    for values in (features.values, features.pts_seconds):
        found.update(np.ascontiguousarray(values).view(np.uint8).reshape(-1).data)
    return found.hexdigest()


def _check_version(path: Path, head: Mapping[str, int | str]) -> None:
    """Raise UsageError if :func:`pack` wrote a file in another version; files made elsewhere need not have one."""
    version = head.get("format_version")
    if head.get("kind") == "pack" and version != FORMAT_VERSION:
        raise UsageError(
            f"features file {path} has format version {version}, this program reads version {FORMAT_VERSION}. Use the "
            "program version that packed it, or pack the cache again with this one"
        )


def _check_rows(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    lengths = {name: len(a) for name, a in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise UsageError(f"features file {path}: datasets have different numbers of rows: {lengths}")
    if not arrays["features"].size:  # checked before other arrays are allocated
        raise UsageError(f"features in file {path} are empty: got shape {arrays['features'].shape}, expected (N, T, d)")
