"""Real extractions in forked processes, with a log of what they finished and stored that outlives them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torture import Job

#: Clips a part, so small that random moments fall into commits. Everything else is as users have it.
COMMIT_CLIPS = 2

#: An extraction of these few clips that takes longer hangs.
PATIENCE = 180.0

Bits = dict[str, tuple[str, str]]


def some_videos(job: Job, n: int) -> Path:
    """Return a folder with links to ``n`` clips, spread over the data; the longest ones are left out."""
    folder = job.work / f"videos-{n}"
    if folder.is_dir():
        return folder
    found = sorted(p for p in job.videos.rglob("*") if p.suffix in (".mp4", ".avi"))
    limit = sorted(p.stat().st_size for p in found)[len(found) * 3 // 4]
    small = [p for p in found if p.stat().st_size <= limit]
    for path in small[:: max(1, len(small) // n)][:n]:
        link = folder / path.relative_to(job.videos)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return folder


@dataclass
class Extraction:
    """A running ``fitrec-cache extract``, its log and its output."""

    pid: int
    folder: Path
    started: float
    status: int | None = None
    peak_kb: int = 0

    def lines(self) -> list[list[str]]:
        """Return what it logged: ``begin KIND``, ``stored FOLDER KEY...``, ``embedded``."""
        log = self.folder / "log"
        return [line.split() for line in log.read_text().splitlines()] if log.exists() else []

    def stored(self, kind: str) -> list[str]:
        """Return the keys of this kind whose commit returned, in order."""
        return [k for line in self.lines() if line[0] == "stored" and line[1].startswith(kind) for k in line[2:]]

    def text(self, name: str) -> str:
        return (self.folder / name).read_text(errors="replace")

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text("stdout"))
        return found

    def running(self) -> bool:
        """Say whether it still runs; one that takes for ever is ended."""
        if self.status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.status, self.peak_kb = os.waitstatus_to_exitcode(status), usage.ru_maxrss
            elif time.monotonic() - self.started > PATIENCE:
                raise RuntimeError(f"an extraction hangs: see {self.folder}")
        return self.status is None

    def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait for its end (False) or for a condition (True)."""
        while self.running():
            if until():
                return True
            time.sleep(0.002)
        return False

    def workers(self) -> list[int]:
        """Return its decoder processes."""
        return [pid for pid in _numbers(f"/proc/{self.pid}/task/{self.pid}/children") if is_decoder(pid)]


def is_decoder(pid: int) -> bool:
    """Say whether a process is a living decoder process."""
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _numbers(path: str) -> list[int]:
    try:
        return [int(text) for text in Path(path).read_text().split()]
    except OSError:
        return []


def start(
    job: Job, videos: Path, cache: Path, *, name: str, hook: Callable[[str], None] | None = None, commit: int = 0
) -> Extraction:
    """Start ``fitrec-cache extract`` in a child of its own process group; torch and timm are imported once, for all."""
    import fitrec_cache.extract  # noqa: F401 - before the fork

    folder = job.work / "logs" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    arguments = ["extract", videos, "--cache", cache, "--backbone", job.backbone, "--preset", job.preset, "--json"]
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        code = 99
        try:
            os.setpgid(0, 0)
            signal.signal(
                signal.SIGINT, signal.default_int_handler
            )  # a shell that runs us in the background ignores it
            for number, stream in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(folder / stream, os.O_WRONLY | os.O_CREAT), number)
            _watch(folder / "log", commit or COMMIT_CLIPS, hook)
            code = command([*arguments, "--workers", 2, "--time-limit", 10])
        finally:
            os._exit(code)
    return Extraction(pid=pid, folder=folder, started=time.monotonic())


def command(arguments: list[object]) -> int:
    """Run the command line in this process and return its exit code."""
    from fitrec_cache import cli

    sys.argv = ["fitrec-cache", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as ended:
        sys.stdout.flush()
        return int(ended.code or 0)
    except BaseException:  # noqa: BLE001 - what the user would see
        import traceback

        traceback.print_exc()
        return 98


def _watch(path: Path, commit: int, hook: Callable[[str], None] | None) -> None:
    """Log each step of this process with one write, which a SIGKILL cannot undo."""
    from fitrec_cache.backbones.backbone import Backbone
    from fitrec_cache.extraction import extractor
    from fitrec_cache.storage.parts import text_values
    from fitrec_cache.storage.store import Store

    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    write_part, embed = Store.write_part, Backbone.embed_prepared

    def log(line: str) -> None:
        os.write(descriptor, f"{line}\n".encode())
        if hook is not None:
            hook(line)

    def logged_write(self: Any, arrays: Any) -> Path:
        log(f"begin {self.kind}")
        written = write_part(self, arrays)
        keys = [
            hashlib.sha256(k.encode()).hexdigest() if self.kind == "clips" else k for k in text_values(arrays["key"])
        ]
        log(" ".join(["stored", f"{self.kind}/{self.folder.name}", *keys]))
        return written

    def logged_embed(self: Any, x: Any) -> Any:
        embedded = embed(self, x)
        if len(x) > 1:  # not the probe for the length of an embedding
            log("embedded")
        return embedded

    extractor.COMMIT_CLIPS = commit
    Store.write_part, Backbone.embed_prepared = logged_write, logged_embed  # type: ignore[method-assign]
    log("watched")


def bits(cache: Path) -> Bits:
    """Return sha256 of the frames and of the features of every clip, by clip id."""
    from fitrec_cache.cache import Cache

    opened = Cache(cache)
    frames, features = opened.frame_stores()[0], opened.feature_stores()[0]
    found: Bits = {}
    for clip in opened.clips():
        key = clip.video_sha256
        if not clip.problem:
            pictures = hashlib.sha256(b"".join(frames.jpegs(key))).hexdigest()
            found[clip.clip_id] = pictures, hashlib.sha256(features.row(key)["features"].tobytes()).hexdigest()
    return found


def undisturbed(job: Job, n: int) -> tuple[Path, Bits, float]:
    """Extract ``n`` clips without any trouble; return the videos, the bits to compare with, and how long it took."""
    videos, cache = some_videos(job, n), job.work / f"undisturbed-{n}"
    shutil.rmtree(cache, ignore_errors=True)
    run = start(job, videos, cache, name="undisturbed")
    run.wait()
    took = time.monotonic() - run.started
    reference = bits(cache)
    if run.status or len(reference) < n * 3 // 4:
        raise RuntimeError(f"the undisturbed run failed: {run.text('stderr')}")
    return videos, reference, took


def inspect(cache: Path, promised: dict[str, set[str]]) -> dict[str, int]:
    """Open a cache as a user would after a mishap.

    Args:
        cache: The cache.
        promised: Keys by ``KIND/FOLDER`` that were reported as stored.

    Returns:
        ``unopened`` (0 or 1), ``missing`` promised rows, ``damaged`` parts, ``half_written`` files.
    """
    from fitrec_cache.check import check
    from fitrec_cache.errors import FitrecError

    found = {"unopened": 0, "missing": 0, "damaged": 0, "half_written": 0}
    if not (cache / "cache.json").exists():  # killed before anything was made
        return found | {"missing": sum(map(len, promised.values()))}
    try:
        problems = [p["reason"] for p in check(cache=cache).problems]
        found["half_written"] = sum(r.startswith("half-written") for r in problems)
        found["damaged"] = len(problems) - found["half_written"]
        held = _held(cache)
        found["missing"] = sum(len(keys - held.get(folder, set())) for folder, keys in promised.items())
    except FitrecError as error:
        print(f"does not open: {error}", file=sys.stderr)
        found["unopened"] = 1
    return found


def _held(cache: Path) -> dict[str, set[str]]:
    from fitrec_cache.cache import Cache

    opened = Cache(cache)
    stores = [*opened.frame_stores(), *opened.feature_stores()]
    found = {f"{s.kind}/{s.folder.name}": set(s) for s in stores}
    names = {hashlib.sha256(c.clip_id.encode()).hexdigest() for c in opened.clips()}
    return found | {"clips/clips": names}


def promise(promised: dict[str, set[str]], run: Extraction) -> None:
    """Add what a run reported as stored."""
    for line in run.lines():
        if line[0] == "stored":
            promised.setdefault(line[1], set()).update(line[2:])


def end(run: Extraction) -> None:
    """End a run at once and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(run.pid, signal.SIGKILL)
    run.wait()
