"""Find files whose names a table spells differently from the disk (Unicode forms, escaped bytes)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from fitrec_cache.common.files import is_there
from fitrec_cache.dataset.clips import file_id


class FileNames:
    """Looks up names in and below a folder; each folder is read once, and only when needed.

    Args:
        base: The folder.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self._read: dict[PurePosixPath, Mapping[str, str]] = {}

    def find(self, name: str) -> str | None:
        r"""Return the path on disk whose id (:func:`~fitrec_cache.dataset.clips.file_id`) matches that of a name.

        Args:
            name: Relative to the folder, or absolute; accented letters may have any Unicode form, and ``\xNN`` stands
                for undecodable bytes.

        Returns:
            The path. A name with only one possible spelling is returned as it is, whether or not the file exists. None
            if there is no such file.
        """
        if (name.isascii() and "\\" not in name) or is_there(self.base / name):
            return str(PurePosixPath(name))
        place = PurePosixPath()
        for part in PurePosixPath(name).parts:
            found = part if part in ("/", "..") else self._names(place).get(file_id(part))
            if found is None:
                return None
            place /= found
        return str(place)

    def _names(self, place: PurePosixPath) -> Mapping[str, str]:
        """Return the names in a folder, by id; empty if it does not exist or may not be read."""
        if place not in self._read:
            try:
                entries = sorted(entry.name for entry in Path(self.base, place).iterdir())
            except OSError:
                entries = []
            self._read[place] = {file_id(entry): entry for entry in entries}
        return self._read[place]
