"""Files: writing them atomically (also JSON and CSV), opening them safely, and detecting those of killed writers."""

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
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from fitrec_cache.errors import StoreError, UsageError

#: The names of unfinished files start with this; readers ignore them.
TEMPORARY = ".tmp-"

#: The names that :func:`unfinished` gives: machine, process, a random number.
_OURS = re.compile(re.escape(TEMPORARY) + r"[0-9a-f]{8}-\d+-[0-9a-f]{8}")

#: The greatest age at which an unfinished file may still have a writer: no write takes an hour. Age is checked as well
#: as the process number, because the system reuses these numbers.
_HERE_SECONDS = 3600
_ELSEWHERE_SECONDS = 24 * 3600

#: Used instead of Path's methods, which raise if a name is too long, a folder may not be entered or a user is unknown.
is_there, is_folder, is_file, with_home = os.path.exists, os.path.isdir, os.path.isfile, os.path.expanduser


def may_be_there(path: Path) -> bool:
    """Say whether a path may be a regular file; True also if that cannot be found out, as without permission."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


#: The errors of file systems that cannot flush a folder; the last one is of network drives and of shared folders.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF)

#: Files that Windows' and KDE's file managers write into the folders that they show; macOS' begin with a dot.
_OF_FILE_MANAGERS = ("desktop.ini", "thumbs.db", ".directory")


def is_clutter(name: str) -> bool:
    """Say whether a file's name is one that file managers use in the folders that they show, such as ``.DS_Store``."""
    return name == ".DS_Store" or name.startswith("._") or name.casefold() in _OF_FILE_MANAGERS


def holds_nothing(folder: Path) -> bool:
    """Say whether a folder has no files but those of killed writers and of file managers."""
    inside = folder.iterdir()
    return all(each.name.startswith(TEMPORARY) or (is_clutter(each.name) and is_file(each)) for each in inside)


def sealed_name(kind: str, nanoseconds: int, data: bytes) -> str:
    """Return a stored file's name: its kind, the time of writing and a checksum to verify the content."""
    return f"{kind}-{nanoseconds:020d}{_seal(data)}"


def is_sealed(name: str, data: bytes) -> bool:
    """Say whether the bytes of a file match the checksum in its name, as given by :func:`sealed_name`."""
    return name.endswith(_seal(data))


def _seal(data: bytes) -> str:
    return f"-{sum_of(data)}.h5"


def sum_of(data: bytes) -> str:
    """Return a checksum: the first 32 hexadecimal digits of the sha256 of these bytes."""
    return hashlib.sha256(data).hexdigest()[:32]


#: A file's size, modification time and inode, which change when it is written or replaced.
Stamp = tuple[int, int, int]


def file_stamp(path: Path) -> Stamp | None:
    """Return the stamp of a file; None if it cannot be read."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


@cache
def host_id() -> str:
    """Return 8 hexadecimal digits, equal for two processes only if they can see each other's process numbers."""
    parts = [os.uname().nodename]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))  # containers of one machine
    except OSError:  # macOS, where two machines may have one name
        parts.append(str(uuid.getnode()))
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()[:8]


@contextlib.contextmanager
def opened_file(path: Path) -> Iterator[io.FileIO]:
    """Open a file that others may have created, without blocking on a pipe or reading a device that has no end.

    Raises:
        OSError: If it cannot be opened, or is not a regular file.
    """
    with io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))
        yield file


def read_file(path: Path) -> bytes:
    """Return the bytes of a file that others may have created; raises the errors of :func:`opened_file`."""
    with opened_file(path) as file:
        return file.read()


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically: whatever happens, the file is either complete or not changed at all.

    The bytes are on disk before the file gets its name, and the name is on disk when this returns (fsync of file and
    folder). If ``path`` is a link, the file it points to is written. A file that is replaced keeps its permissions, and
    the temporary file has them too.

    Raises:
        StoreError: If the disk is full, read-only or gone; the previous file is then unchanged.
    """
    target = Path(os.path.realpath(path))  # Path.resolve raises on links in a circle
    temporary = unfinished(target)
    try:
        with temporary.open("wb") as file:
            with contextlib.suppress(OSError):  # there is no previous file
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
    """Like os.fsync, but effective on a Mac too, where os.fsync leaves bytes in the drive's own memory."""
    if sys.platform == "darwin":
        import fcntl

        with contextlib.suppress(OSError):  # network drives may not support it
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
            return
    os.fsync(file)


def flush(path: Path) -> None:
    """Flush a file to disk that was not written by :func:`write_atomic`.

    Raises:
        OSError: If that fails.
    """
    with path.open("r+b") as file:  # some network drives flush only what was opened for writing
        _flush_to_disk(file.fileno())


def unfinished(path: Path) -> Path:
    """Return a new temporary name beside ``path``, used by :func:`write_atomic` until the file is complete."""
    return path.with_name(f"{TEMPORARY}{host_id()}-{os.getpid()}-{secrets.token_hex(4)}")


def may_be_written(path: Path) -> bool:
    """Say whether an unfinished file may still have a writer.

    A process number can be checked only on its own machine; for files of other machines the age decides, with a margin
    of a day because clocks differ.
    """
    try:
        age = abs(time.time() - path.stat().st_mtime)  # in the future if the clock was set back since
    except OSError:
        return True  # already gone: its writer has finished
    host, pid, _ = (*path.name.removeprefix(TEMPORARY).split("-"), "", "")[:3]
    if host != host_id() or not pid.isdigit():
        return age < _ELSEWHERE_SECONDS
    return age < _HERE_SECONDS and is_process(int(pid))


def remove_unfinished(folder: Path) -> None:
    """Remove from a folder the unfinished files and folders of killed writers.

    The folder may belong to anybody, so only names of the form that :func:`unfinished` gives are removed.
    """
    found: list[Path] = []
    with contextlib.suppress(OSError):  # it may not be a folder
        found += folder.glob(f"{TEMPORARY}*")
    for left in found:
        if not _OURS.fullmatch(left.name) or may_be_written(left):
            continue
        with contextlib.suppress(OSError):  # a file that cannot be removed does no harm
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


@contextlib.contextmanager
def staged(folder: Path, what: str) -> Iterator[Path]:
    """Create a folder and a temporary folder in it for unfinished files, which is removed on exit.

    What killed writers left in the folder is removed too.

    Raises:
        StoreError: If a folder or a file in it cannot be written; ``what`` names what was to be written.
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
    """Move files out of the temporary folder of :func:`staged`, in order: the last one marks the set as complete.

    Their bytes must be on disk already (:func:`write_atomic`, :func:`flush`); the names are on disk when this returns.

    Raises:
        OSError: If that fails.
    """
    for name in names:
        (made / name).replace(folder / name)
    sync_folder(folder)


def is_process(pid: int) -> bool:
    """Say whether a process with this number exists on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, if the file system supports that.

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
    """Remove a file if it exists; when this returns, its name is gone from disk.

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
    """Create a folder and its parents; when this returns, their names are on disk.

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
    """Raise UsageError unless a file's name has one of these endings, in upper or lower case.

    ``option`` is the option that named the file.
    """
    if path.suffix.lower() not in endings:
        raise UsageError(f"{option} {path}: expected a name that ends in {' or '.join(endings)}")


def check_writable(path: Path, option: str) -> None:
    """Check before any work is done whether a file can be written; an existing file is left unchanged.

    Half-written files of killed writers beside it are removed.

    Raises:
        UsageError: If it cannot be written; ``option`` is the option that named it, such as ``--picture``.
    """
    _refuse_no_file(path, option)
    try:
        there, target = path.exists(), Path(os.path.realpath(path))  # if it is a link, what it points to
        if there:
            with path.open("ab"):
                pass
        trial = unfinished(target) if there else target  # the folder must allow a temporary file beside the target
        with trial.open("xb"):
            pass
        trial.unlink()
        remove_unfinished(target.parent)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        advice = "Choose another file"
        if isinstance(error, FileNotFoundError) and not path.parent.exists():
            reason, advice = f"there is no folder {path.parent}", "Make it first, or choose another file"
        raise UsageError(f"{option} {path} cannot be written: {reason}. {advice}") from error


def _refuse_no_file(path: Path, option: str) -> None:
    """Raise UsageError if a path exists and is no regular file: opening a pipe, for example, would wait forever."""
    if is_there(path) and not path.is_file():
        raise UsageError(f"{option} {path} exists and is not a file: choose another name")


def refuse_others(path: Path, option: str, mark: str, what: str) -> None:
    """Raise UsageError if a file that would be replaced is not of the expected kind: its beginning lacks ``mark``.

    An empty file may be replaced: a call may have been killed while it checked the name.

    Args:
        path: The file.
        option: The option that named it, such as ``--table``.
        mark: Text that every file of this kind has in its first 2,000 bytes.
        what: What such a file is called, such as ``a report``.
    """
    _refuse_no_file(path, option)
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            held = file.read(2000)
    except OSError as error:
        raise UsageError(f"{option} {path} cannot be read: {error.strerror}. Choose another name") from error
    if held and mark.encode() not in held:
        raise UsageError(f"{option} {path} exists and is not {what}: choose another name")


def files_below(folder: Path, unreadable: list[OSError]) -> Iterator[str]:
    """Yield the relative path of every file below a folder that is not hidden; links are followed, without cycles.

    The errors of folders that could not be read are added to ``unreadable``.
    """
    trails: dict[Path, set[Path]] = {}  # by folder: the folders through which it was reached
    for where, folders, files in os.walk(folder, onerror=unreadable.append, followlinks=True):
        here = Path(where).resolve()
        above = {here, *here.parents} | trails.pop(Path(where), set())
        # lost+found is the repair shop of a disk's root folder, which only root may read
        shown = (d for d in folders if d[0] != "." and d != "lost+found")
        folders[:] = [d for d in shown if Path(where, d).resolve() not in above]
        trails |= {Path(where, d): above for d in folders}
        below = PurePosixPath(Path(where).relative_to(folder).as_posix())
        prefix = "" if below == PurePosixPath() else f"{below}/"
        yield from (prefix + file for file in files if file[0] != ".")


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text that comes from outside.

    Raises:
        ValueError: If it is not JSON, is nested too deeply, or holds a number that is not finite.
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
    """Return the same text for equal values: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Return the sha256 of a plain JSON value in hexadecimal; equal settings have equal digests."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Plain:
    """A dataclass of plain values, paths and other dataclasses."""

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain JSON values."""
        return dict(json.loads(json.dumps(vars(self), default=_plain, allow_nan=False)))


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return value.to_dict() if hasattr(value, "to_dict") else asdict(value)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as readable JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


#: The beginning of a cell that a spreadsheet might compute, or of one with a leading space, which readers would strip.
_FORMULA = re.compile(r"'*[\s=+\-@]")

#: What every spreadsheet reads as the number that it is; ``float`` also takes "-inf", "-1_0" and " 5".
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def _no_formula(value: Any) -> Any:
    """Return a cell with an apostrophe in front if a spreadsheet would not read it literally; numbers are kept."""
    if not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def as_given(cell: str) -> str:
    """Undo what :func:`write_csv` did to a cell: return its original text."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV, atomically; each row maps columns to values, and a missing column is left empty.

    Text beyond ASCII is written as UTF-8 with a byte-order mark, without which Excel misreads it. A cell that begins
    like a formula, or with a space, gets an apostrophe in front, so that no spreadsheet computes it and the space is
    kept (:func:`as_given` removes the apostrophe).
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writerow({name: _no_formula(name) for name in header})
    writer.writerows({name: _no_formula(value) for name, value in row.items()} for row in rows)
    found = text.getvalue()
    write_atomic(path, found.encode("ascii" if found.isascii() else "utf-8-sig"))
