"""In which order a process takes clips, so that several that share a cache rarely do the same ones.

Nothing here is needed for safety: a claim is a hint. Without claims, or with wrong ones, clips are done twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fitrec_cache.common.files import host_id, is_process, make_folder, read_file
from fitrec_cache.dataset.clips import Clip
from fitrec_cache.errors import StoreError

#: Where claims are kept, inside the cache.
CLAIMS = "claims"

#: After this many seconds without a sign of life a claim is void, whoever's it is; a clip may take two minutes.
_SILENT_SECONDS = 600.0  # and so is one from so far in the future, as from before a clock was set right

#: How often to give one: thousands of claims may wait for a commit.
_SIGN_SECONDS = 30.0

#: A claim without an owner: who made it was killed, or the disk was full, before its name was written.
_UNSIGNED_SECONDS = 5.0

#: What :func:`_name` gives.
_NAME = re.compile(r"[0-9a-f]{16}")

#: How often to look whether claims are void or given back.
_LOOK_SECONDS = 0.5


class Claims:
    """Clips in blocks, in random order: those that no other process has claimed.

    ``while claims.more(): for clip in claims: ...`` gives every clip; who asks for more has finished what it was given,
    so that no two wait for each other.

    Args:
        folder: Where claims are kept, one small file a block; shared by all who work on the cache.
        clips: All clips, in an order that is the same for all who share the work.
        size: Clips in a block.
        purpose: Blocks for another purpose, such as other backbones, are other blocks.
        refresh: Called before a block, so that what others finished meanwhile is known.
    """

    def __init__(
        self, folder: Path, clips: Sequence[Clip], *, size: int, purpose: str, refresh: Callable[[], None]
    ) -> None:
        self._folder, self._refresh = folder, refresh
        blocks = [clips[i : i + size] for i in range(0, len(clips), size)]
        random.SystemRandom().shuffle(blocks)
        self._waiting = [(_name(purpose, block), block) for block in blocks]
        self._left: dict[str, set[str]] = {}  # clips of our blocks that are not finished
        self._block_of: dict[str, str] = {}
        self._owner = f"{host_id()} {os.getpid()}"
        self._shown = time.monotonic()

    def more(self, waiting: Callable[[int], None] = lambda _: None) -> bool:
        """Say whether there are blocks left; wait until one can be had, which others may have finished by then.

        Args:
            waiting: Called with the number of clips left before each wait.
        """
        while self._waiting and all(_is_claimed(self._folder / name, self._owner) for name, _ in self._waiting):
            waiting(sum(len(block) for _, block in self._waiting))
            time.sleep(_LOOK_SECONDS)
        return bool(self._waiting)

    def __iter__(self) -> Iterator[Clip]:
        """Yield the clips of blocks that can be had now, claiming each block when it begins."""
        while (number := next((i for i, (name, _) in enumerate(self._waiting) if self._claim(name)), None)) is not None:
            name, block = self._waiting.pop(number)
            self._left[name] = {clip.clip_id for clip in block}
            self._block_of |= dict.fromkeys(self._left[name], name)
            self._refresh()
            yield from block

    def finished(self, clip: Clip) -> None:
        """Take note that a clip needs nothing more but a commit."""
        self._left.get(self._block_of.pop(clip.clip_id, ""), set()).discard(clip.clip_id)
        self.alive()

    def alive(self) -> None:
        """Show now and then that the owner of our claims lives, also of blocks that wait."""
        if time.monotonic() - self._shown < _SIGN_SECONDS:
            return
        self._shown = time.monotonic()
        for name in self._left:
            with contextlib.suppress(OSError):
                os.utime(self._folder / name)

    def committed(self) -> None:
        """Give back the claims of blocks that are finished."""
        for name in [name for name, left in self._left.items() if not left]:
            del self._left[name]
            self._give_back(name)

    def close(self) -> None:
        """Give back all claims, and remove those of others that are void."""
        for name in self._left:
            self._give_back(name)
        self._left = {}
        for path in self._folder.glob("*"):  # those of the dead on clips that nobody may ask for so again
            if _NAME.fullmatch(path.name) and _is_void(path, None):
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
            return True  # no claims here: as if alone
        return True

    def _give_back(self, name: str) -> None:
        path = self._folder / name
        with contextlib.suppress(OSError):
            if read_file(path) == self._owner.encode():
                path.unlink()


def others_at_work(cache: Path) -> bool:
    """Say whether somebody who lives, as far as can be told, has claimed clips of a cache: another thread, too."""
    return any(_is_claimed(path, None) for path in (cache / CLAIMS).glob("*"))


def _is_claimed(path: Path, us: str | None) -> bool:
    return os.path.lexists(path) and not _is_void(path, us)


def _is_void(path: Path, us: str | None) -> bool:
    """Say whether a claim keeps nobody away: its owner is dead, silent for too long, or ourselves.

    One that is gone meanwhile is not void: there is nothing to remove.
    """
    try:
        age = time.time() - path.lstat().st_mtime
    except OSError:
        return False
    try:
        owner = read_file(path).decode(errors="replace")[:100]
    except OSError:  # it may not be read, as another user's, or is no file: only the age tells
        owner = "?"
    host, _, pid = owner.partition(" ")
    dead = host == host_id() and pid.isdigit() and not is_process(int(pid))
    silent = age >= (_SILENT_SECONDS if owner else _UNSIGNED_SECONDS) or age < -_SILENT_SECONDS
    return silent or dead or owner == us


def _name(purpose: str, block: Sequence[Clip]) -> str:
    text = "\n".join([purpose, *(clip.clip_id for clip in block)])
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
