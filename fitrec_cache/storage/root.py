"""The file ``cache.json``, which marks a folder as a cache."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fitrec_cache.common.files import holds_nothing, make_folder, parse_json, read_file, write_json
from fitrec_cache.errors import NoCacheError, StoreCorrupt, StoreError, UsageError
from fitrec_cache.storage.parts import FORMAT_VERSION, other_version

#: The file that marks a folder as a cache.
MARKER = "cache.json"

#: Folder in the cache to which ``check --repair`` moves damaged files; it never deletes anything.
ASIDE = "set-aside"


def open_root(folder: Path, *, create: bool) -> None:
    """Check that a folder is a cache of this format version, or make it one.

    Raises:
        NoCacheError: If it is missing or is not a cache.
        StoreError: If it has another version, or cannot be read or written.
    """
    marker = folder / MARKER
    # A first run that was killed before it wrote the marker leaves only unfinished files.
    is_new = not folder.exists() or (folder.is_dir() and not marker.is_file() and holds_nothing(folder))
    if create and is_new:
        make_folder(folder)
        write_marker(folder)
    if not marker.is_file():
        raise _no_cache(folder, create=create)
    try:
        version = parse_json(read_file(marker))["format_version"]
    except OSError as error:
        raise StoreError(f"{marker} cannot be read: {error.strerror}. Make it readable") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(
            f"{marker} is damaged: expected a JSON object with format_version. Run `fitrec-cache "
            "check --cache DIR --repair`"
        ) from error
    if version != FORMAT_VERSION:
        raise other_version(folder, version)


def _no_cache(folder: Path, *, create: bool) -> NoCacheError:
    if not create:
        lost = "; its cache.json is lost: `fitrec-cache check --cache DIR --repair` writes it again"
        inside = f". There is one in {folder / 'cache'}" * (folder / "cache" / MARKER).is_file()
        return NoCacheError(
            f"no cache at {folder}: expected a folder made by `fitrec-cache extract VIDEOS --cache DIR`"
            + lost * (folder / "clips").is_dir()
            + inside
        )
    if not folder.is_dir():
        return NoCacheError(f"{folder} is a file: expected the folder of a cache, or a new name for one")
    return NoCacheError(
        f"{folder} exists and is not a cache (no cache.json): choose a new or empty folder; if it was one, "
        "`fitrec-cache check --cache DIR --repair` makes it one again"
    )


def refuse_links_out(cache: Path, paths: Iterable[Path], doing: str) -> None:
    """Raise UsageError if files or folders of a cache are links to places outside it, which may belong to others.

    ``doing`` says, for the error, what would be done there.
    """
    inside = os.path.realpath(cache)  # Path.resolve raises on links in a circle
    for path in paths:
        if not Path(target := os.path.realpath(path)).is_relative_to(inside):
            raise UsageError(f"{path} leads out of the cache, to {target}: {doing}. No file was touched")


def write_marker(folder: Path) -> None:
    """Mark a folder as a cache of this format version."""
    what = "features and frames cached by fitrec-cache"
    write_json(folder / MARKER, {"format_version": FORMAT_VERSION, "what": what})
