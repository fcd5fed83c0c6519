"""What poses are worth, alone and beside the default backbone: on lists, and in rooms never seen.

    python benchmarks/poses.py CACHE --lists DIR --leave-one COLUMN --work DIR --out benchmarks/results/poses.json

CACHE holds features of the default backbone and of ``blazepose_full``, made by `extract` with its usual settings.
Three seeds on each list; and `mean` with one seed where one value of the column after the other is left out (a head
with an LSTM would take more than an hour, with 30 values and 1,332 clips). Each result is tested against the default
backbone alone with the same kind of head, on lists by groups, in rooms by rooms; p-values are adjusted for all of these
tests. How much features of images and variation count beside poses was chosen by looking at every second room, by name
(docs/design.md), so accuracies in the other rooms are given apart. Finished runs in WORK are
kept.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from parts import list_rules, on_lists

from fitrec_cache.backbones.pretrained import EMBEDDED
from fitrec_cache.cache import Cache
from fitrec_cache.common.files import write_json
from fitrec_cache.evaluation.metrics import interval_by_unit
from fitrec_cache.evaluation.paired import exact_p, holm, interval_of_difference
from fitrec_cache.runs.outputs import read_outputs
from fitrec_cache.runs.run_files import read_run_json
from fitrec_cache.settings.variants import heads_for
from fitrec_cache.train import train_head

POSE = "blazepose_full"
INPUTS = ([EMBEDDED], [POSE], [EMBEDDED, POSE])

#: By clip, of all runs that tested it: its unit, how many had it right, and how many there were.
Tested = dict[str, tuple[str, int, int]]


def tested(folder: Path, units: dict[str, str]) -> Tested:
    """Return how often each clip was right in the runs of a folder; a clip without a unit is one of its own fold."""
    found: Tested = {}
    for path in sorted(folder.rglob("run.json")):
        run = read_run_json(path)
        right = read_outputs(path.parent, run, "test").right.tolist()
        for clip, hit in zip(run["split"]["test"], right, strict=True):
            unit, hits, times = found.get(clip, (units.get(clip, path.parent.name), 0, 0))
            found[clip] = unit, hits + hit, times + 1
    return found


def row_of(now: Tested, alone: Tested) -> dict[str, Any]:
    """Return accuracy and difference from the default backbone alone, with intervals by units."""
    clips = sorted(now)
    units = [now[clip][0] for clip in clips]
    hits, times = (np.array([now[clip][i] for clip in clips], float) for i in (1, 2))
    gain = hits - np.array([alone[clip][1] for clip in clips])
    return {
        "n": len(clips),
        "units": len(set(units)),
        "accuracy": hits.sum() / times.sum(),
        "ci95": interval_by_unit(hits, times, units),
        "difference": gain.sum() / times.sum(),
        "difference_ci95": interval_of_difference(gain, times, units) if now is not alone else None,
        "p": exact_p(gain, units) if now is not alone else None,
    }


def others(now: Tested) -> dict[str, Any]:
    """Return the accuracy in the rooms that were not looked at when something was chosen."""
    rooms = sorted({unit for unit, _, _ in now.values()})[1::2]
    hits, times = zip(*((hits, times) for unit, hits, times in now.values() if unit in rooms), strict=True)
    return {"rooms": len(rooms), "n": len(hits), "accuracy": sum(hits) / sum(times)}


def rows(cache: Path, work: Path, splits: dict[str, list[tuple[str, list[int]]]]) -> Iterator[dict[str, Any]]:
    """Train whatever is missing, and yield a row for each part of splits, kind of head and input."""
    groups = {clip.clip_id: str(clip.group) for clip in Cache(cache).clips()}
    with_lstm, mean = heads_for(EMBEDDED)
    for place, rules in splits.items():
        for variant in (mean, with_lstm) if place == "lists" else (mean,):
            alone: Tested = {}
            for backbones in INPUTS:
                name = "+".join(backbones)
                folder = work / place / f"{variant}-{name}"
                accuracies = []
                for number, (rule, seeds) in enumerate(rules):
                    settings: dict[str, Any] = {"cache": cache, "backbone": backbones, "variant": variant, "jobs": 2}
                    done = train_head(out=folder / str(number), split=rule, seed=seeds, progress=True, **settings)
                    accuracies.append(statistics.mean(done.accuracies))
                now = tested(folder, groups if place == "lists" else {})
                alone = alone or now
                row = {"split": place, "variant": variant, "features": name, "accuracies": accuracies}
                yield row | row_of(now, alone) | ({"others": others(now)} if place == "rooms" else {})


def main() -> None:
    args = on_lists(__doc__, leave_one=True)
    splits = {
        "lists": [(rule, [0, 1, 2]) for rule in list_rules(args.lists).values()],
        "rooms": [(f"leave-one:{args.leave_one}", [0])],
    }
    found: list[dict[str, Any]] = []
    for row in rows(args.cache, args.work, splits):
        found.append(row)
        print(row, flush=True)
        compared = [each for each in found if each["p"] is not None]
        for each, p in zip(compared, holm([each["p"] for each in compared]), strict=True):
            each["p_holm"] = p
        write_json(args.out, {"rows": found})


if __name__ == "__main__":
    main()
