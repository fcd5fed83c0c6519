"""A disk that is full, a folder that turns read-only, and Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torture_runs import Bits, Extraction, bits, inspect, promise, start, undisturbed

if TYPE_CHECKING:
    from torture import Job

INTERRUPTIONS = 12


def stop(job: Job, _: dict[str, Any]) -> dict[str, Any]:
    """Stop extractions in these ways, lift the obstacle, finish, and compare."""
    videos, reference, took = undisturbed(job, job.clips)
    return {
        "file_size_limit": _file_size_limit(job, videos, reference),
        "disk_full": _on_small_disk(job, videos, reference, _full),
        "read_only": _on_small_disk(job, videos, reference, _read_only),
        "ctrl_c": _ctrl_c(job, videos, reference, took),
    }


def _after(job: Job, videos: Path, cache: Path, reference: Bits, run: Extraction, reason: str) -> dict[str, Any]:
    """Describe a run that was stopped by an error, and what a second one made of it."""
    promised: dict[str, set[str]] = {}
    promise(promised, run)
    found = inspect(cache, promised)
    error = run.text("stderr").strip()
    again = start(job, videos, cache, name="again")
    again.wait()
    return {
        "exit_code": run.status,
        "says_why": error.startswith("Error: ") and reason in error and "Traceback" not in error,
        "stored_before": len(run.stored("features")),
        **found,
        "finished_afterwards": again.status == 0,
        "differs": bits(cache) != reference,
    }


def _file_size_limit(job: Job, videos: Path, reference: Bits) -> dict[str, Any]:
    def hook(line: str) -> None:
        if line.startswith("stored clips"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    cache = job.work / "limited"
    shutil.rmtree(cache, ignore_errors=True)
    run = start(job, videos, cache, name="limited", hook=hook)
    run.wait()
    return _after(job, videos, cache, reference, run, "File too large. What was stored before is intact")


@contextlib.contextmanager
def _disk(folder: Path, megabytes: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True, capture_output=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def _remount(folder: Path, option: str) -> bool:
    return subprocess.run(["mount", "-o", f"remount,{option}", folder], capture_output=True).returncode == 0


def _on_small_disk(
    job: Job, videos: Path, reference: Bits, obstruct: Callable[[Job, Path, Path], tuple[Extraction, str]]
) -> dict[str, Any]:
    disk = job.work / "disk"
    try:
        with _disk(disk, 500):
            run, reason = obstruct(job, videos, disk)
            _remount(disk, "rw,size=500m")
            return _after(job, videos, disk / "cache", reference, run, reason)
    except subprocess.CalledProcessError:
        return {"not_tried": "needs the right to mount a file system"}


def _full(job: Job, videos: Path, disk: Path) -> tuple[Extraction, str]:
    _remount(disk, "size=2m")
    run = start(job, videos, disk / "cache", name="full")
    run.wait()
    return run, "No space left on device. What was stored before is intact"


def _read_only(job: Job, videos: Path, disk: Path) -> tuple[Extraction, str]:
    run = start(job, videos, disk / "cache", name="read-only")
    run.wait(lambda: len(run.stored("features")) > 2 and _remount(disk, "ro"))
    run.wait()
    return run, "Read-only file system"


def _ctrl_c(job: Job, videos: Path, reference: Bits, took: float) -> dict[str, Any]:
    """Send SIGINT to the whole process group, as a terminal does; count embedded clips that were not stored."""
    rng = random.Random(job.seed)
    cache, promised = job.work / "interrupted", dict[str, set[str]]()
    codes: list[int | None] = []
    lost = []
    damage = {"unopened": 0, "missing": 0, "damaged": 0, "half_written": 0}
    for _ in range(INTERRUPTIONS):
        if not codes or codes[-1] == 0:
            shutil.rmtree(cache, ignore_errors=True)
            promised.clear()
        run = start(job, videos, cache, name="interrupted", commit=8)
        at = run.started + rng.uniform(0.2, 1) * took
        run.wait(lambda run=run, at=at: time.monotonic() > at and bool(run.lines()))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGINT)
        run.wait()
        codes.append(run.status)
        promise(promised, run)
        lost.append(sum(line[0] == "embedded" for line in run.lines()) - len(run.stored("features")))
        damage = {k: damage[k] + v for k, v in inspect(cache, promised).items()}
    start(job, videos, cache, name="again").wait()
    return {
        "interruptions": len(codes) - codes.count(0),
        "exit_codes": sorted({str(c) for c in codes if c != 0}),
        "embedded_clips_not_stored": sum(lost),
        **damage,
        "differs": bits(cache) != reference,
    }
