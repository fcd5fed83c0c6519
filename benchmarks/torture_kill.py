"""SIGKILL to extractions and their decoder processes at random moments."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torture_runs import COMMIT_CLIPS, Extraction, bits, inspect, is_decoder, promise, start, undisturbed

if TYPE_CHECKING:
    from torture import Job

COUNTS = (
    "kills_of_the_main_process", "kills_of_a_decoder_process", "kills_inside_a_commit", "caches_finished",
    "caches_that_did_not_open", "promised_rows_missing", "damaged_parts", "half_written_files_left_by_kills",
    "caches_that_differ", "clips_failed_by_a_killed_decoder", "decoder_processes_left_behind",
)  # fmt: skip


def kill(job: Job, before: dict[str, Any]) -> dict[str, Any]:
    """Kill until ``job.kills`` kills are counted; each cache goes on until it is finished, then is compared."""
    figures = {name: before.get(name, 0) for name in COUNTS}
    lost = list(before.get("clips_lost_by_kill", []))
    rng = random.Random(f"{job.seed}-{_kills(figures)}")
    videos, reference, took = undisturbed(job, job.clips)
    orphans: set[int] = set()

    def described() -> dict[str, Any]:
        return {
            **figures,
            "kills": _kills(figures),
            "clips_lost_by_kill": lost,
            "most_clips_lost": max(lost, default=0),
            "clips_a_part": COMMIT_CLIPS,
            "clips_a_cache": len(reference),
            "undisturbed_seconds": [*before.get("undisturbed_seconds", []), round(took, 2)],  # one each call
        }

    while _kills(figures) < job.kills and job.time_left():
        cache = job.work / "killed"
        shutil.rmtree(cache, ignore_errors=True)
        _until_finished(job, videos, cache, took, rng, figures, lost, orphans)
        figures["caches_finished"] += 1
        figures["caches_that_differ"] += bits(cache) != reference
        job.keep(described())
        print(f"{_kills(figures)} kills, {figures['caches_finished']} caches finished", flush=True)
    time.sleep(10)
    figures["decoder_processes_left_behind"] += sum(is_decoder(pid) for pid in orphans)
    return described()


def _kills(figures: dict[str, int]) -> int:
    return figures["kills_of_the_main_process"] + figures["kills_of_a_decoder_process"]


def _until_finished(
    job: Job,
    videos: Path,
    cache: Path,
    took: float,
    rng: random.Random,
    figures: dict[str, int],
    lost: list[int],
    orphans: set[int],
) -> None:
    promised: dict[str, set[str]] = {}
    while True:
        run = start(job, videos, cache, name="killed")
        how = rng.choice(("anywhere", "commit", "commit", "decoder"))
        if _kills(figures) < job.kills:
            _kill(run, how, took, rng, figures, lost, orphans)
        run.wait()
        promise(promised, run)
        found = inspect(cache, promised)
        figures["caches_that_did_not_open"] += found["unopened"]
        figures["promised_rows_missing"] += found["missing"]
        figures["damaged_parts"] += found["damaged"]
        if run.status == -signal.SIGKILL:
            figures["half_written_files_left_by_kills"] += found["half_written"]
            shutil.rmtree(job.work / "logs" / "killed")
            for path in cache.rglob(".tmp-*"):
                path.unlink()  # counted; as `check --repair` would
        elif run.status == 0:
            return
        elif run.status == 1 and run.text("stdout"):
            reasons = [f["reason"] for f in run.report()["failed"]]
            if any("decoder crashed (exit code -9)" not in r for r in reasons):
                raise RuntimeError(f"failed for another reason: {reasons}")
            figures["clips_failed_by_a_killed_decoder"] += len(reasons)
        elif "decoder processes cannot start" not in run.text("stderr"):
            raise RuntimeError(f"exit code {run.status}: {run.text('stderr')}")


def _kill(
    run: Extraction,
    how: str,
    took: float,
    rng: random.Random,
    figures: dict[str, int],
    lost: list[int],
    orphans: set[int],
) -> None:
    if how == "commit":
        number = rng.randrange(1, 12)
        pause = rng.uniform(0, 0.02)
        hit = run.wait(lambda: sum(line[0] == "begin" for line in run.lines()) >= number)
        time.sleep(pause)
    else:
        at = run.started + rng.uniform(0, took)
        hit = run.wait(lambda: time.monotonic() > at)
    if not hit or not run.running():
        return
    workers = run.workers()
    if how == "decoder":
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
                figures["kills_of_a_decoder_process"] += 1
        return
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    if run.status != -signal.SIGKILL:
        return  # it had just ended by itself
    steps = [line[0] for line in run.lines()]
    figures["kills_of_the_main_process"] += 1
    figures["kills_inside_a_commit"] += steps.count("begin") > steps.count("stored")
    lost.append(steps.count("embedded") - len(run.stored("features")))
    orphans.update(workers)
