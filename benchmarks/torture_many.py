"""Several extractions and a reader on one cache at once."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from torture_runs import bits, end, inspect, promise, start, undisturbed

if TYPE_CHECKING:
    from torture import Job

PROCESSES = 3
COMMIT = 4


def many(job: Job, _: dict[str, Any]) -> dict[str, Any]:
    """Run some extractions on one cache at once while another process reads it; count clips that were done twice."""
    n = 4 * job.clips
    videos, reference, took = undisturbed(job, n)
    rounds = [_round(job, videos, reference, number) for number in range(job.rounds)]
    return {
        "rounds": rounds,
        "processes": PROCESSES,
        "clips": len(reference),
        "clips_a_part": COMMIT,
        "done_twice": sum(r["done_twice"] for r in rounds),
        "damaged": sum(r["damaged"] + r["unopened"] + r["missing"] + r["differs"] for r in rounds),
        "reads_while_writing": sum(r["reads"] for r in rounds),
        "reads_failed": sum(r["reads_failed"] for r in rounds),
        "alone_seconds": round(took, 1),
    }


def _round(job: Job, videos: Any, reference: Any, number: int) -> dict[str, Any]:
    from fitrec_cache.cache import Cache
    from fitrec_cache.errors import FitrecError

    cache = job.work / "shared-cache"
    shutil.rmtree(cache, ignore_errors=True)
    started = time.monotonic()
    runs = [start(job, videos, cache, name=f"many-{i}", commit=COMMIT) for i in range(PROCESSES)]
    reads = failed = 0
    while sum(run.running() for run in runs):  # each is asked, so that none that hangs is overlooked
        time.sleep(0.2)
        if (cache / "cache.json").exists():
            try:
                opened = Cache(cache)
                for store in (*opened.frame_stores(), *opened.feature_stores()):
                    store.rows(list(store), ("pts_seconds",))
                reads += 1
            except FitrecError as error:
                print(f"a reader failed: {error}")
                failed += 1
    promised: dict[str, set[str]] = {}
    for run in runs:
        promise(promised, run)
        if run.status:
            end(run)
            raise RuntimeError(f"round {number}: exit code {run.status}: {run.text('stderr')}")
    done = Counter(key for run in runs for key in run.stored("features"))
    return {
        "seconds": round(time.monotonic() - started, 1),
        "done_by_each": [len(run.stored("features")) for run in runs],
        "done_twice": sum(done.values()) - len(done),
        "reads": reads,
        "reads_failed": failed,
        **inspect(cache, promised),
        "differs": bits(cache) != reference,
    }
