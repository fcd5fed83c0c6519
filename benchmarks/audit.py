"""Audit the splits of a data set whose groups are known, and try the near-duplicate finder on pairs known for certain.

    python benchmarks/audit.py CACHE LISTS_DIR --out benchmarks/results/audit.json [--pictures DIR]

CACHE has features of several backbones; LISTS_DIR has UCF101-style trainlist01-03 and testlist01-03. Known pairs: the
two halves of each clip, taken for clips of their own. A pair of halves of two clips counts as wrong, also if these
were filmed by the same camera one after the other, so the precision is a lower bound.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from parts import BACKBONES, list_rules, machine

from fitrec_cache.audit import audit
from fitrec_cache.auditing.leaks import verdict
from fitrec_cache.auditing.near_duplicates import embed, find_near_duplicates
from fitrec_cache.cache import Cache
from fitrec_cache.dataset.folds import make_folds
from fitrec_cache.features import Features, load_cached

KEPT = ("backbone", "clips", "threshold", "halves_found", "strangers_found", "pairs", "pairs_across_labels")
KEPT += ("same_group", "clusters", "clustered", "largest_cluster")


def splits(lists: Path) -> dict[str, str]:
    return {"random": "random", "group": "group", **list_rules(lists)}


def known_halves(data: Features) -> dict[str, Any]:
    """Return how many of the pairs of halves are found, and how many of the pairs found are halves of one clip."""
    steps, n = data.values.shape[1], len(data.clip_ids)
    values = np.concatenate([data.values[:, : steps // 2], data.values[:, steps // 2 :]])
    found = find_near_duplicates(embed([values]), labels=data.labels * 2, groups=[None] * (2 * n))
    hits = int((found.pairs[:, 1] - found.pairs[:, 0] == n).sum())
    return {
        "clips": 2 * n,
        "threshold": found.threshold,
        "recall": hits / n,
        "precision": hits / len(found.pairs) if len(found.pairs) else None,
    }


def of_column(data: Features, found_pairs: np.ndarray[Any, Any], column: dict[str, str]) -> float | None:
    """Return the share of pairs whose clips have the same value in a column of a table."""
    same = [column[data.clip_ids[a]] == column[data.clip_ids[b]] for a, b in found_pairs.tolist()]
    return float(np.mean(same)) if same else None


def verdict_seconds(data: Features) -> dict[str, list[float]]:
    """Return how long finding the pairs and judging one split takes, each of five times, by the clock and of CPU."""
    (fold,) = make_folds("random", **data.columns, seed=0)
    seconds: dict[str, list[float]] = {"wall": [], "cpu": []}
    for _ in range(5):
        begun, used = time.perf_counter(), time.process_time()
        verdict(fold.split, data.groups, replace(data).near_duplicates())  # a copy has not looked yet
        seconds["wall"].append(time.perf_counter() - begun)
        seconds["cpu"].append(time.process_time() - used)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("lists", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--column", nargs=2, metavar=("CSV", "NAME"), help="table with path and a column such as series"
    )
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--timings", action="store_true", help="only measure times again, into an --out that is there")
    args = parser.parse_args()
    if args.timings:
        result = json.loads(args.out.read_text())
        for entry in result["backbones"]:
            entry["verdict_seconds"] = verdict_seconds(load_cached(Cache(args.cache), [entry["backbone"]]))
        args.out.write_text(json.dumps(result, indent=1) + "\n")
        return
    column = {}
    if args.column:
        import csv

        with Path(args.column[0]).open() as file:
            column = {row["path"]: row[args.column[1]] for row in csv.DictReader(file)}
    result: dict[str, Any] = {
        "machine": machine(),
        "seeds": args.seeds,
        "backbones": [],
    }
    for name in BACKBONES:
        data = load_cached(Cache(args.cache), [name])
        seconds = verdict_seconds(data)
        found = data.near_duplicates()
        entry: dict[str, Any] = {
            "backbone": name,
            "verdict_seconds": seconds,
            "halves": known_halves(data),
            "splits": {},
        }
        entry["same_column"] = of_column(data, found.pairs, column) if column and found else None
        for split, rule in splits(args.lists).items():
            folds = []
            for seed in range(args.seeds if split in ("random", "group") else 1):
                out = args.pictures / f"{name}-{split}" if args.pictures and seed == 0 else None
                report = audit(cache=args.cache, split=rule, backbone=name, seed=seed, out=out)
                folds.append({k: v for k, v in report.folds[0].items() if k not in ("fold", "text")})
                entry |= {k: getattr(report, k) for k in KEPT}
            entry["splits"][split] = folds
        result["backbones"].append(entry)
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
