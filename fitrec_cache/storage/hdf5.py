"""Convert arrays to HDF5 bytes and back, without trusting what is read; the only module that imports h5py."""

from __future__ import annotations

import io
import mmap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fitrec_cache.common.files import opened_file
from fitrec_cache.storage.hdf5_heaps import has_endless_heap

#: The requirements of each dataset: allowed dtype kinds (numpy's letters) and number of axes.
Schema = Mapping[str, tuple[str, int]]

#: Deflate never compresses more than this; a file that promises more data per stored byte is refused as malicious.
_MOST_COMPRESSION = 1100

#: The greatest length of one text of variable length, in bytes.
_LONGEST_TEXT = 4096


class Unreadable(Exception):
    """A file that is not HDF5 or does not match its schema; callers who know the file's name make it a message."""


def library_version() -> str:
    """Return the version of h5py and of the HDF5 library in it."""
    return f"{h5py.__version__} with HDF5 {h5py.version.hdf5_version}"


def encode(arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, int | str]) -> bytes:
    """Return an HDF5 file as bytes: plain, contiguous datasets and root attributes.

    It is built in memory, so that the file is written in one go and a full disk raises an ordinary ``OSError``.

    Args:
        arrays: Datasets; numbers or fixed-length bytes (UTF-8, as the file then declares), no objects.
        attributes: Whole numbers, or text, which is stored as UTF-8 bytes (opaque; HDF5 allows less than
            64 KiB).
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=_declared(array))
        for name, value in attributes.items():
            file.attrs[name] = np.void(value.encode()) if isinstance(value, str) else value
    return buffer.getvalue()


def _declared(array: NDArray[Any]) -> NDArray[Any]:
    """Return texts as a type that is declared to be UTF-8; otherwise other programs decode them as ASCII, and fail."""
    return array.view(h5py.string_dtype("utf-8", array.dtype.itemsize)) if array.dtype.kind == "S" else array


def decode(
    source: Path | bytes,
    schema: Schema,
    *,
    optional: Schema | None = None,
    plain: bool = True,
    check: Callable[[Mapping[str, int | str]], None] | None = None,
) -> tuple[dict[str, int | str], dict[str, NDArray[Any]]]:
    """Read the datasets of a schema and all root attributes.

    Args:
        source: A file, or the bytes of one.
        schema: Datasets that must be present.
        optional: Datasets that may be present.
        plain: Refuse compression and chunks, which files made by :func:`encode` do not have.
        check: Called with the attributes before any dataset is looked at, as another version has other datasets.

    Returns:
        Attributes and arrays by name.

    Raises:
        Unreadable: For any problem, with the reason; memory use is limited in proportion to the file's size.
    """
    try:
        _refuse_endless(source)
        opened = io.BytesIO(source) if isinstance(source, bytes) else source
        with h5py.File(opened, "r", locking=False) as file:
            attributes = {name: _attribute(file, name) for name in file.attrs if plain or _is_simple(file, name)}
            if check is not None:
                check(attributes)
            wanted = dict(schema) | {k: v for k, v in (optional or {}).items() if _link_type(file, k) is not None}
            return attributes, {name: _dataset(file, name, *wanted[name], plain=plain) for name in wanted}
    except FileNotFoundError as error:
        raise Unreadable("file not found") from error
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise Unreadable(f"not readable as HDF5 ({error})") from error


def _attribute(file: h5py.File, name: str) -> int | str:
    if not _is_simple(file, name):
        raise Unreadable(f"attribute {name} is neither a whole number nor text")
    value = file.attrs[name]
    if isinstance(value, np.integer):
        return int(value)
    return value if isinstance(value, str) else bytes(value).decode()


def _is_simple(file: h5py.File, name: str) -> bool:
    """Say whether an attribute is a whole number or text; files made elsewhere may have others, which are ignored.

    The attribute is not read for that: thousands of texts may all refer to the same long one.
    """
    held = file.attrs.get_id(name)
    of = held.dtype
    opaque = of.kind == "V" and of.names is None and of.subdtype is None
    return held.shape == () and (of.kind in "iuS" or opaque or h5py.check_string_dtype(of) is not None)


def _dataset(file: h5py.File, name: str, kinds: str, axes: int, *, plain: bool) -> NDArray[Any]:
    """Read one dataset, after refusing malicious ones: links, external or virtual storage, data that is not there."""
    link = _link_type(file, name)
    if link is None:
        raise Unreadable(f"dataset {name} is missing")
    dataset = file[name] if link == h5py.h5l.TYPE_HARD else None  # any other link would open its target, even a pipe
    if not isinstance(dataset, h5py.Dataset):
        raise Unreadable(f"{name} is not a dataset of this file")
    if dataset.external is not None or dataset.is_virtual:  # check first: reading the shape may open those files
        raise Unreadable(f"{name} is stored in other files")
    text = h5py.check_string_dtype(dataset.dtype) is not None and "S" in kinds
    if (dataset.dtype.kind not in kinds and not text) or dataset.ndim != axes:
        raise Unreadable(
            f"{name} has dtype {dataset.dtype} and {dataset.ndim} axes, expected kind {kinds}, {axes} axes"
        )
    stored = dataset.id.get_storage_size()
    if plain and (dataset.chunks is not None or dataset.dtype.kind == "O" or stored != dataset.nbytes):
        raise Unreadable(f"{name} is not stored plainly and completely")
    if dataset.nbytes > _MOST_COMPRESSION * stored:
        raise Unreadable(f"{name} claims {dataset.nbytes} bytes and holds {stored}")
    return _texts(name, dataset) if dataset.dtype.kind == "O" else np.asarray(dataset[()])


def _link_type(file: h5py.File, name: str) -> int | None:
    """Return h5py's number for the type of a link, without following it; None if there is no link of this name."""
    links = file.id.links
    return int(links.get_info(name.encode()).type) if links.exists(name.encode()) else None


def _refuse_endless(source: Path | bytes) -> None:
    if isinstance(source, bytes):
        endless = has_endless_heap(source)
    else:
        with opened_file(source) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            endless = has_endless_heap(data)
    if endless:
        raise Unreadable("its list of free space is circular")


def _texts(name: str, dataset: h5py.Dataset) -> NDArray[np.bytes_]:
    """Read strings of variable length in small batches, because many entries may point to the same long one."""
    texts: list[bytes] = []
    for start in range(0, len(dataset), 64):
        texts += dataset[start : start + 64].tolist()
        if max(map(len, texts[start:])) > _LONGEST_TEXT:
            raise Unreadable(f"{name} holds a text of more than {_LONGEST_TEXT} bytes")
    return np.array(texts, dtype="S") if texts else np.empty(0, dtype="S1")
