"""Heads and logistic regression in rooms, or whatever else a column names, that training never saw.

    python benchmarks/rooms.py REPRODUCED --split leave-one:COLUMN --backbone NAME ...
        --out benchmarks/results/rooms.json

REPRODUCED is the folder of a `fitrec-cache reproduce` with that split and one seed; without it figures are made again
from the answers in the JSON, if this version wrote it (the one in ``results`` has none). For each backbone its head and
`mean` on features of the preset `native` are put beside a logistic regression on the mean of the same features, each
value scaled. Its strength is fixed, as choosing it in each of thirty folds would take an hour. Intervals and tests take
whole folds, as clips of one are not independent; p-values are adjusted for all pairs.
"""

from __future__ import annotations

import argparse
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from parts import answers, digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from yardstick import YARDSTICK

from fitrec_cache.common.files import write_json
from fitrec_cache.dataset.folds import make_folds
from fitrec_cache.evaluation.metrics import interval_by_unit
from fitrec_cache.evaluation.paired import exact_p, holm, interval_of_difference
from fitrec_cache.runs.outputs import read_outputs
from fitrec_cache.runs.run_files import read_run_json
from fitrec_cache.training.loading import load_clips

#: Inverse strength of regularisation: among those that yardstick.py chooses on validation, 0.01 to 10, in the middle.
STRENGTH = 0.1


def tested(reproduced: Path, rule: str, backbone: str) -> tuple[dict[str, dict[str, Any]], int]:
    """Return for each variant which test clips of each fold it has right, by clip id, and the one seed of all runs."""
    found: dict[str, dict[str, Any]] = {}
    seeds: set[int] = set()
    for path in sorted(reproduced.glob("runs/native/*/*/*/run.json")):
        run = read_run_json(path.parent / "run.json")
        if run["split"]["rule"] == rule and run["backbone"] == backbone:
            seeds.add(run["seed"])
            right = read_outputs(path.parent, run, "test").right
            by_clip = found.setdefault(run["head"]["variant"], {})
            by_clip |= dict(zip(run["split"]["test"], right.tolist(), strict=True))
    if len(seeds) != 1:
        raise SystemExit(f"{reproduced}: {backbone} has runs of seeds {sorted(seeds)} on {rule}, expected one seed")
    return found, seeds.pop()


def regressed(data: Any, rule: str, seed: int) -> tuple[dict[str, bool], dict[str, str]]:
    """Return which clips the regression has right in the fold that leaves them out, and the fold of each."""
    labels = sorted(set(data.labels))
    targets = np.array([labels.index(label) for label in data.labels])
    values = data.values.astype(np.float32).mean(axis=1)  # (N, d)
    right: dict[str, bool] = {}
    units: dict[str, str] = {}
    for fold in make_folds(rule, **data.columns, seed=seed):
        test = [data.clip_ids[i] for i in fold.split.test]
        learn = np.concatenate([fold.split.train, fold.split.val])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=2000))
        hits = model.fit(values[learn], targets[learn]).predict(values[fold.split.test]) == targets[fold.split.test]
        right |= dict(zip(test, hits.tolist(), strict=True))
        units |= dict.fromkeys(test, fold.name)
        print(fold.name, len(test), flush=True)
    return right, units


def judged(args: argparse.Namespace) -> dict[str, Any]:
    """Return which clips every model has right in the fold that leaves them out: a digit a clip."""
    right: dict[str, dict[str, str]] = {}
    seen: dict[str, str] = {}
    for backbone in args.backbone:
        data = load_clips(args.reproduced / "cache", None, "mean", [backbone], "native", progress=False)
        models, seed = tested(args.reproduced, args.split, backbone)
        plain, units = regressed(data, args.split, seed)
        if seen and units != seen:
            raise SystemExit(f"{backbone} has features of other clips than the backbones before it")
        seen = units
        models |= {YARDSTICK: plain}
        right[backbone] = {name: digits([hits[clip] for clip in units]) for name, hits in models.items()}
    folds = list(seen.values())
    return {"split": args.split, "strength": STRENGTH, "n": len(folds), "fold_of": folds, "right": right}


def figures(found: dict[str, Any]) -> dict[str, Any]:
    """Return accuracies and differences with their intervals."""
    folds, rows, pairs = found["fold_of"], [], []
    once = np.ones(len(folds))
    for backbone, models in found["right"].items():
        by_model = {name: answers(text).astype(float) for name, text in models.items()}
        for name, right in by_model.items():
            low, high = interval_by_unit(right, once, folds)
            rows.append({"backbone": backbone, "variant": name, "accuracy": right.mean(), "ci95": [low, high]})
        for ours, theirs in combinations(by_model, 2):
            gain = by_model[ours] - by_model[theirs]
            low, high = interval_of_difference(gain, once, folds)
            pair = {"backbone": backbone, "variant": ours, "other": theirs, "difference": gain.mean()}
            pairs.append(pair | {"ci95": [low, high], "p": exact_p(gain, folds)})
    adjusted = holm([pair["p"] for pair in pairs])
    return {
        "folds": sorted((folds.count(fold) for fold in set(folds)), reverse=True),
        "rows": rows,
        "pairs": [pair | {"p_holm": p} for pair, p in zip(pairs, adjusted, strict=True)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reproduced", type=Path, nargs="?", help="without it the figures of --out are made again")
    parser.add_argument("--split")
    parser.add_argument("--backbone", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.reproduced is None:
        found = json.loads(args.out.read_text())
        if "fold_of" not in found:
            parser.error(f"{args.out} is of an earlier version and holds no answers: give REPRODUCED")
    elif args.split is None or args.backbone is None:
        parser.error("REPRODUCED goes with --split and --backbone")
    else:
        found = judged(args)
    write_json(args.out, found | figures(found))


if __name__ == "__main__":
    main()
