"""Test the recipe that a sweep found beside ``native``, by the same seeds on the same lists.

    python benchmarks/sweep_test.py SWEEP CACHE --work DIR --split list:TRAIN,TEST --out benchmarks/results/sweep.json

SWEEP is the folder of a finished ``fitrec-cache sweep``, which saw validation sides only. ``--split`` is repeatable.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from fitrec_cache.common.files import write_json
from fitrec_cache.compare import compare
from fitrec_cache.dataset.rules import short_rule
from fitrec_cache.train import train_head

SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--split", action="append", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    found = json.loads((args.sweep / "sweep.json").read_text())
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    for number, rule in enumerate(args.split):
        folders = {name: args.work / name / str(number) for name in ("native", "found")}
        for name, folder in folders.items():
            settings = dict(found["finalists"][0]["settings"]) if name == "found" else {}
            attention = settings.pop("attention", None)
            report = train_head(
                out=folder,
                cache=args.cache,
                preset="native",
                variant=found["variant"],
                backbone=[found["backbone"]],
                split=rule,
                seed=SEEDS,
                attention=attention,
                settings=[f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in settings.items()],
            )
            accuracies = [run.metrics.accuracy for run in report.runs]
            rows.append(
                {"recipe": name, "split": short_rule(rule), "n": report.runs[0].n_test, "accuracy": accuracies}
                | {"precision": json.loads((report.runs[0].out / "run.json").read_text())["training"]["precision"]}
            )
            print(name, rule, round(statistics.mean(accuracies), 4), flush=True)
        (pair,) = compare(list(folders.values())).pairs
        better = max(("native", "found"), key=lambda name: statistics.mean(_accuracy(rows, name, short_rule(rule))))
        pairs.append(
            {"split": short_rule(rule), "better": better, "difference": pair.difference, "ci95": pair.ci95, "p": pair.p}
        )
    write_json(args.out, {**{k: v for k, v in found.items() if k != "out"}, "test": rows, "test_pairs": pairs})


def _accuracy(rows: list[dict[str, Any]], recipe: str, rule: str) -> list[float]:
    return next(row["accuracy"] for row in rows if row["recipe"] == recipe and row["split"] == rule)


if __name__ == "__main__":
    main()
