"""Files: written whole or not at all (JSON and CSV too), opened, and whether their writer still lives."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from fitrec_cache.errors import StoreError, UsageError, VideoError

#: Unfinished files start with this; a reader never looks at them.
TEMPORARY = ".tmp-"

#: What :func:`unfinished` calls them: machine, process, a random number.
_OURS = re.compile(re.escape(TEMPORARY) + r"[0-9a-f]{8}-\d+-[0-9a-f]{8}")

#: How old an unfinished file may be and still have a writer: no write takes an hour. A process number is used again.
_HERE_SECONDS = 3600
_ELSEWHERE_SECONDS = 24 * 3600

#: As Path's own, which raise on names too long, in folders that may not be entered, and of users who are not there.
is_there, is_folder, is_file, with_home = os.path.exists, os.path.isdir, os.path.isfile, os.path.expanduser


def may_be_there(path: Path) -> bool:
    """Say whether a name may be a file's: it is not known to be missing, or that of a folder."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


#: What file systems answer that cannot flush a folder.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)


def sealed_name(kind: str, nanoseconds: int, data: bytes) -> str:
    """Return the name of a file in a store, by which is told when it was written and whether it is whole."""
    return f"{kind}-{nanoseconds:020d}{_seal(data)}"


def is_sealed(name: str, data: bytes) -> bool:
    """Say whether a file of a name that :func:`sealed_name` gave holds the bytes that it was given for."""
    return name.endswith(_seal(data))


def _seal(data: bytes) -> str:
    return f"-{sum_of(data)}.h5"


def sum_of(data: bytes) -> str:
    """Return what tells a file's bytes from all others: the first 32 hexadecimal digits of their sha256."""
    return hashlib.sha256(data).hexdigest()[:32]


@contextlib.contextmanager
def opened_video(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file that is taken for a video.

    Raises:
        VideoError: If it cannot be opened, or read inside ``with``.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise VideoError("not a file")  # to open a named pipe would wait for ever
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise VideoError("file not found") from error
    except OSError as error:
        raise VideoError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise VideoError(f"not a path: {error}") from error


def file_stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what is another when a file was written to or replaced; None if it cannot be had."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


@cache
def host_id() -> str:
    """Return 8 hexadecimal digits: equal for two processes only if each can see the other by its process number."""
    parts = [os.uname().nodename]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))  # containers of one machine
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()[:8]


@contextlib.contextmanager
def opened_file(path: Path) -> Iterator[io.FileIO]:
    """Open a file that others may have made: a pipe would keep us waiting for ever, and a device has no end.

    Raises:
        OSError: If it cannot be opened, or is no file.
    """
    with io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))
        yield file


def read_file(path: Path) -> bytes:
    """Return the bytes of a file that others may have made; raises as :func:`opened_file` does."""
    with opened_file(path) as file:
        return file.read()


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that, whatever happens, the file is complete or not there.

    The bytes are on disk before the name is, and the name is on disk when this returns (fsync of file and folder).
    Of a link, what it leads to is written. A file that was there keeps its permissions, which hold meanwhile, too.

    Raises:
        StoreError: If the disk is full, read-only or gone; what was there before stays as it was.
    """
    target = Path(os.path.realpath(path))  # Path.resolve raises on links in a circle
    temporary = unfinished(target)
    try:
        with temporary.open("wb") as file:
            with contextlib.suppress(OSError):  # there is none
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            file.write(data)
            file.flush()
            _flush_to_disk(file.fileno())
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror}. What was stored before is intact; make room or make the "
            "folder writable, then run the same command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _flush_to_disk(file: int) -> None:
    """As os.fsync, which on a Mac leaves bytes in the memory of the drive."""
    if sys.platform == "darwin":
        import fcntl

        with contextlib.suppress(OSError):  # network drives may not know it
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
            return
    os.fsync(file)


def flush(path: Path) -> None:
    """Have the bytes of a file on disk that something else than :func:`write_atomic` wrote.

    Raises:
        OSError: If that fails.
    """
    with path.open("rb") as file:
        _flush_to_disk(file.fileno())


def unfinished(path: Path) -> Path:
    """Return a new name for what :func:`write_atomic` writes before it has the file's own."""
    return path.with_name(f"{TEMPORARY}{host_id()}-{os.getpid()}-{secrets.token_hex(4)}")


def may_be_written(path: Path) -> bool:
    """Say whether an unfinished file may still have a writer.

    A process number tells only on the same machine, so elsewhere the age decides, with a day for clocks that differ.
    """
    try:
        age = abs(time.time() - path.stat().st_mtime)  # or it is of before a clock was set right
    except OSError:
        return True  # gone by now: its writer has finished
    host, pid, _ = (*path.name.removeprefix(TEMPORARY).split("-"), "", "")[:3]
    if host != host_id() or not pid.isdigit():
        return age < _ELSEWHERE_SECONDS
    return age < _HERE_SECONDS and is_process(int(pid))


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished files and folders in a folder that no writer is at any more: those of killed writers.

    The folder may be anybody's, so only names as :func:`unfinished` gives them count.
    """
    found: list[Path] = []
    with contextlib.suppress(OSError):  # the folder may not be one
        found += folder.glob(f"{TEMPORARY}*")
    for left in found:
        if not _OURS.fullmatch(left.name) or may_be_written(left):
            continue
        with contextlib.suppress(OSError):  # what cannot be removed is in nobody's way
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


@contextlib.contextmanager
def staged(folder: Path, what: str) -> Iterator[Path]:
    """Make a folder and, in it, one for unfinished files, which is gone in the end; what killed writers left goes too.

    Raises:
        StoreError: If either, or a file, cannot be written; ``what`` names it.
    """
    make_folder(folder)
    remove_unfinished(folder)
    made = unfinished(folder / "folder")
    make_folder(made)
    try:
        yield made
    except OSError as error:
        raise StoreError(f"cannot write {what}: {error.strerror}. Make room or choose another --out") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def put_in_place(made: Path, folder: Path, names: Sequence[str]) -> None:
    """Move files out of the folder that :func:`staged` made, in order: the last one says that all are there.

    Their bytes must be on disk already (:func:`write_atomic`, :func:`flush`); the names are when this returns.

    Raises:
        OSError: If that fails.
    """
    for name in names:
        (made / name).replace(folder / name)
    sync_folder(folder)


def is_process(pid: int) -> bool:
    """Say whether there is a process of this number on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to disk, where its file system can do that.

    Raises:
        OSError: If that fails.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _flush_to_disk(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, if it is there; when this returns its name is gone from disk.

    Raises:
        StoreError: If it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(
            f"cannot remove {path}: {error.strerror}. Make its folder writable, then run the same command again"
        ) from error


def make_folder(folder: Path) -> None:
    """Create a folder and its parents; when this returns their names are on disk.

    Raises:
        StoreError: If it cannot be created.
    """
    try:
        new = [f for f in (folder, *folder.parents) if not f.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for made in reversed(new):
            sync_folder(made.parent)
    except OSError as error:
        raise StoreError(f"cannot create the folder {folder}: {error.strerror}") from error


def check_ending(path: Path, option: str, *endings: str) -> None:
    """Raise UsageError unless a file's name ends as it must, in any capitals; ``option`` is what asked for it."""
    if path.suffix.lower() not in endings:
        raise UsageError(f"{option} {path}: expected a name that ends in {' or '.join(endings)}")


def check_writable(path: Path, option: str, *, ending: str = "") -> None:
    """Find out before any work is done whether a file can be written; what is there stays as it is.

    What killed writers left half-written beside it goes.

    Raises:
        UsageError: If it cannot, or its name does not end as it must; ``option`` is what asked for it, such as
            ``--picture``.
    """
    if ending:
        check_ending(path, option, ending)
    try:
        there, target = path.exists(), Path(os.path.realpath(path))  # of a link what it leads to
        if there:
            with path.open("ab"):
                pass
        trial = unfinished(target) if there else target  # the folder must take another file for a while
        with trial.open("xb"):
            pass
        trial.unlink()
        remove_unfinished(target.parent)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{option} {path} cannot be written: {reason}. Choose another file") from error


def refuse_others(path: Path, option: str, mark: str, what: str) -> None:
    """Raise UsageError where a file is to be replaced that is somebody else's: its beginning lacks ``mark``.

    An empty one may be: a call was killed as it tried the name.

    Args:
        path: The file.
        option: What asked for it, such as ``--table``.
        mark: What a file of this kind has in its first 2,000 bytes.
        what: What such a file is, such as ``a report``.
    """
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            held = file.read(2000)
    except OSError as error:
        raise UsageError(f"{option} {path} cannot be read: {error.strerror}. Choose another name") from error
    if held and mark.encode() not in held:
        raise UsageError(f"{option} {path} exists and is not {what}: choose another name")


def files_below(folder: Path, unreadable: list[OSError]) -> Iterator[str]:
    """Yield the relative path of every file below a folder that is not hidden; links are followed, never in a circle.

    Why a folder could not be looked into is added to ``unreadable``.
    """
    trails: dict[Path, set[Path]] = {}  # by folder: through which others it was reached
    for where, folders, files in os.walk(folder, onerror=unreadable.append, followlinks=True):
        here = Path(where).resolve()
        above = {here, *here.parents} | trails.pop(Path(where), set())
        folders[:] = [d for d in folders if d[0] != "." and Path(where, d).resolve() not in above]
        trails |= {Path(where, d): above for d in folders}
        below = PurePosixPath(Path(where).relative_to(folder).as_posix())
        prefix = "" if below == PurePosixPath() else f"{below}/"
        yield from (prefix + file for file in files if file[0] != ".")


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text that others wrote.

    Raises:
        ValueError: If it is not JSON, nested too deeply, or holds a number that is not finite.
    """
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def canonical_json(value: Any) -> str:
    """Return one spelling for equal values: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Return the sha256 of a plain JSON value, in hexadecimal: equal settings, equal digest."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Plain:
    """A dataclass of plain values, paths and other dataclasses."""

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        return dict(json.loads(json.dumps(vars(self), default=_plain, allow_nan=False)))


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return value.to_dict() if hasattr(value, "to_dict") else asdict(value)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as readable JSON, whole or not at all."""
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


#: What a spreadsheet might compute, and a space, which those who read a table leave out.
_FORMULA = re.compile(r"'*[\s=+\-@]")


def _no_formula(value: Any) -> Any:
    """Return a cell with an apostrophe in front where it would not be read as it is; numbers stay."""
    if not isinstance(value, str) or not _FORMULA.match(value) or _is_number(value):
        return value
    return f"'{value}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_given(cell: str) -> str:
    """Return a cell of a table as it was before :func:`write_csv` wrote it."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows, each a value by column, as CSV, whole or not at all; a column that a row lacks is left empty.

    Letters beyond ASCII are in UTF-8 behind a mark that says so, without which Excel takes them for others. A name that
    begins as a formula does, or with a space, has an apostrophe in front, so that none is computed where somebody opens
    the table, and the space stays (:func:`as_given` takes it off).
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writerow({name: _no_formula(name) for name in header})
    writer.writerows({name: _no_formula(value) for name, value in row.items()} for row in rows)
    found = text.getvalue()
    write_atomic(path, found.encode("ascii" if found.isascii() else "utf-8-sig"))
