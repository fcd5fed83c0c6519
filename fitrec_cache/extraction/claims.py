"""The order in which a process takes clips, so that several processes on one cache rarely do the same ones.

Safety does not depend on claims; they are hints. Without them, or with wrong ones, clips are merely done twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fitrec_cache.common.files import host_id, is_process, make_folder, read_file
from fitrec_cache.dataset.clips import Clip
from fitrec_cache.errors import StoreError

#: The folder of the claims, inside the cache.
CLAIMS = "claims"

#: After this many seconds without a sign of life a claim is void, whoever owns it; a clip may take two minutes.
_SILENT_SECONDS = 600.0  # also void: a claim this far in the future, as after a clock was corrected

#: Seconds between signs of life; not less, because thousands of claims may be waiting for a commit.
_SIGN_SECONDS = 30.0

#: After this many seconds a claim without an owner is void: its creator was killed, or the disk was full, before the
#: owner was written.
_UNSIGNED_SECONDS = 5.0

#: The pattern of the names that :func:`_name` gives; a file manager may leave other files beside them.
_NAMES = "[0-9a-f]" * 16

#: Seconds between checks whether claims have become void or were released.
_LOOK_SECONDS = 0.5


class Claims:
    """Yields clips in blocks, in random order, leaving out blocks as long as another process claims them.

    ``while claims.more(): for clip in claims: ...`` yields every clip. A process must finish the clips that it was
    given before it asks for more, so that no two processes wait for each other.

    Args:
        folder: The folder of the claims, one small file per block; shared by all processes that work on the cache.
        clips: All clips, in the same order in all processes that share the work.
        size: Number of clips in a block.
        purpose: Distinguishes blocks of the same clips for different work, such as other backbones.
        refresh: Called before each block, to take into account what other processes have finished.
    """

    def __init__(
        self, folder: Path, clips: Sequence[Clip], *, size: int, purpose: str, refresh: Callable[[], None]
    ) -> None:
        self._folder, self._refresh = folder, refresh
        blocks = [clips[i : i + size] for i in range(0, len(clips), size)]
        random.SystemRandom().shuffle(blocks)
        self._waiting = [(_name(purpose, block), block) for block in blocks]
        self._left: dict[str, set[str]] = {}  # by claimed block: its unfinished clips
        self._block_of: dict[str, str] = {}
        self._owner = f"{host_id()} {os.getpid()}"
        self._shown = time.monotonic()

    def more(self, waiting: Callable[[int], None] = lambda _: None) -> bool:
        """Say whether any blocks are left; wait until one of them can be claimed.

        Other processes may have finished its clips by then.

        Args:
            waiting: Called before each wait with the number of clips left.
        """
        while self._waiting and all(_is_claimed(self._folder / name, self._owner) for name, _ in self._waiting):
            waiting(sum(len(block) for _, block in self._waiting))
            time.sleep(_LOOK_SECONDS)
        return bool(self._waiting)

    def __iter__(self) -> Iterator[Clip]:
        """Yield the clips of all blocks that are free, claiming each block when it begins."""
        while (number := next((i for i, (name, _) in enumerate(self._waiting) if self._claim(name)), None)) is not None:
            name, block = self._waiting.pop(number)
            self._left[name] = {clip.clip_id for clip in block}
            self._block_of |= dict.fromkeys(self._left[name], name)
            self._refresh()
            yield from block

    def finished(self, clip: Clip) -> None:
        """Record that a clip only needs to be committed."""
        self._left[self._block_of.pop(clip.clip_id)].remove(clip.clip_id)
        self.alive()

    def alive(self) -> None:
        """Renew all claims of this process now and then, to show that their owner lives."""
        if time.monotonic() - self._shown < _SIGN_SECONDS:
            return
        self._shown = time.monotonic()
        for name in self._left:
            with contextlib.suppress(OSError):
                os.utime(self._folder / name)

    def committed(self) -> None:
        """Release the claims of blocks that are finished."""
        for name in [name for name, left in self._left.items() if not left]:
            del self._left[name]
            self._give_back(name)

    def close(self) -> None:
        """Release all claims of this process, and remove void claims of others."""
        for name in self._left:
            self._give_back(name)
        self._left = {}
        for path in self._folder.glob(_NAMES):  # void claims on blocks that nobody may ask for again
            if _is_void(path, None):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _claim(self, name: str) -> bool:
        path = self._folder / name
        try:
            make_folder(self._folder)
            if _is_void(path, self._owner):
                path.unlink(missing_ok=True)
            with path.open("x") as file:
                file.write(self._owner)
        except FileExistsError:
            return False
        except (OSError, StoreError):
            return True  # claims cannot be written here: work as if alone
        return True

    def _give_back(self, name: str) -> None:
        path = self._folder / name
        with contextlib.suppress(OSError):
            if read_file(path) == self._owner.encode():
                path.unlink()


def others_at_work(cache: Path) -> bool:
    """Say whether any claim on clips of a cache is valid, as far as can be told; other threads' claims count too."""
    return any(_is_claimed(path, None) for path in (cache / CLAIMS).glob(_NAMES))


def _is_claimed(path: Path, us: str | None) -> bool:
    return os.path.lexists(path) and not _is_void(path, us)


def _is_void(path: Path, us: str | None) -> bool:
    """Say whether a claim can be ignored: its owner is dead, silent for too long, or this process.

    A claim that no longer exists is not void: there is nothing to remove.
    """
    try:
        age = time.time() - path.lstat().st_mtime
    except OSError:
        return False
    try:
        owner = read_file(path).decode(errors="replace")[:100]
    except OSError:  # unreadable, such as another user's, or not a file: only its age can be used
        owner = "?"
    host, _, pid = owner.partition(" ")
    dead = host == host_id() and pid.isdigit() and not is_process(int(pid))
    silent = age >= (_SILENT_SECONDS if owner else _UNSIGNED_SECONDS) or age < -_SILENT_SECONDS
    return silent or dead or owner == us


def _name(purpose: str, block: Sequence[Clip]) -> str:
    text = "\n".join([purpose, *(clip.clip_id for clip in block)])
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
