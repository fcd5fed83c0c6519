"""Heads against logistic regression on the mean of the same features, on the same lists: validation, then once test.

    python benchmarks/yardstick.py REPRODUCED --split list:TRAIN,TEST ... [--grid] [--also REPRODUCED ...]
        --out benchmarks/results/yardstick.json

REPRODUCED is the folder of a `fitrec-cache reproduce` with those splits and perhaps others; its tables go into the
JSON, as do those of further such folders; of the same preset and split the first one counts. Without REPRODUCED the
comparisons are made again from the answers in the JSON. The regression's strength
of regularisation, and whether features are brought to mean 0 and standard deviation 1, are chosen on validation clips;
like the recipe `native` it then learns from training and validation clips together. With --grid the same on features
of the preset `grid`, whose heads are compared with regressions on both kinds and with their equals on `native`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from parts import BACKBONES, answers, digits
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from fitrec_cache.common.files import write_json
from fitrec_cache.dataset.folds import make_folds
from fitrec_cache.dataset.rules import short_rule
from fitrec_cache.dataset.units import units_of
from fitrec_cache.evaluation.calibration import calibrate, calibration_error
from fitrec_cache.evaluation.paired import exact_p, holm, interval_of_difference
from fitrec_cache.runs.outputs import Outputs, read_outputs
from fitrec_cache.runs.run_files import read_run_json
from fitrec_cache.training.loading import load_clips

YARDSTICK = "logistic regression"

#: Backbone, preset of its features, variant.
Model = tuple[str, str, str]

#: Inverse strengths of regularisation.
STRENGTHS = tuple(10.0**power for power in range(-5, 3))


def regression(values: Any, targets: Any, split: Any) -> dict[str, Any]:
    """Return the validation accuracy of what was chosen on validation, and which test clips it then has right."""
    learn, judge, test = (np.asarray(getattr(split, side)) for side in ("train", "val", "test"))
    found = {}
    for scaled in (True, False):
        rotate = _rotation(scaled).fit(values[learn])
        seen, judged = rotate.transform(values[learn]), rotate.transform(values[judge])
        for strength in STRENGTHS:
            found[strength, scaled] = _regress(strength).fit(seen, targets[learn]).score(judged, targets[judge])
    best = max(product(STRENGTHS, (True, False)), key=lambda choice: found[choice])
    both = np.concatenate([learn, judge])
    right = (
        make_pipeline(_rotation(best[1]), _regress(best[0])).fit(values[both], targets[both]).predict(values[test])
        == targets[test]
    )
    return {"C": best[0], "scaled": best[1], "val_accuracy": found[best], "right": right, "right_each": right[None]}


def _rotation(scaled: bool) -> Pipeline:
    # All components: the same regression, as it does not change when features are rotated, in fewer dimensions.
    return make_pipeline(StandardScaler() if scaled else "passthrough", PCA(svd_solver="full"))


def _regress(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=2000)


def heads(reproduced: Path, rule: str, backbone: str, preset: str) -> list[dict[str, Any]]:
    """Return each variant's runs on a backbone's features and a split: validation, and which test clips are right.

    ``right`` is of the mean of the seeds' probabilities, bool ``(N,)``; ``right_each`` of each seed, ``(S, N)``.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(reproduced.glob(f"runs/{preset}/*/*/*/run.json")):
        run = read_run_json(path.parent / "run.json")
        if run["split"]["rule"] == rule and run["backbone"] == backbone:
            found.setdefault(run["head"]["variant"], []).append(path.parent)
    return [_head(variant, folders) for variant, folders in found.items()]


def _head(variant: str, folders: list[Path]) -> dict[str, Any]:
    runs = [read_run_json(folder / "run.json") for folder in folders]
    val, test = (
        [read_outputs(folder, run, side) for folder, run in zip(folders, runs, strict=True)] for side in ("val", "test")
    )
    truth = test[0].targets
    every = [softmax(o.logits.astype(np.float64), axis=1) for o in test]
    kept = [read_run_json(folder / "metrics.json") for folder in folders]
    sure = [_sure(*sides) for sides in zip(val, test, strict=True)]
    return {
        "variant": variant,
        "seeds": len(folders),
        "val_accuracy": float(np.mean([m["history"][m["best_epoch"] - 1]["val_accuracy"] for m in kept])),
        "test_accuracy": float(np.mean([(p.argmax(1) == truth).mean() for p in every])),
        "ece": float(np.mean([ece for ece, _ in sure])),
        "ece_uncalibrated": float(np.mean([m["calibration"]["ece_uncalibrated"] for m in kept])),
        "false_alarms": float(np.mean([turned_away for _, turned_away in sure])),
        "right": np.mean(every, axis=0).argmax(1) == truth,
        "right_each": np.stack([p.argmax(1) == truth for p in every]),
    }


def _sure(val: Outputs, test: Outputs) -> tuple[float, float]:
    """Return the calibration error on the test side, and the share of it that is answered "unknown"."""
    found = calibrate(val.logits, val.targets)
    probabilities = found.probabilities(test.logits)
    error, _ = calibration_error(probabilities, test.targets)
    return error, float((probabilities.max(axis=1) < found.threshold).mean())


def _tables(reproduced: Path) -> dict[str, Any]:
    found = json.loads((reproduced / "reproduce.json").read_text())
    return {k: found[k] for k in ("extract", "table2", "comparisons", "seconds")}


def native_pairs(right: dict[Model, Any]) -> list[tuple[Model, Model]]:
    """Pair each model with the regression, and each head with `mean`, on the same features."""
    return [
        (model, (backbone, preset, other))
        for model in right
        for backbone, preset, variant in [model]
        for other in (YARDSTICK, "mean")
        if preset == "native" and variant not in (YARDSTICK, other)
    ]


def grid_pairs(right: dict[Model, Any]) -> list[tuple[Model, Model]]:
    """Pair each head on `grid` with itself on `native`, and with the regression on both."""
    return [
        ((backbone, preset, variant), other)
        for backbone, preset, variant in right
        for other in ((backbone, "native", YARDSTICK), (backbone, "grid", YARDSTICK), (backbone, "native", variant))
        if preset == "grid" and variant not in (YARDSTICK, "mean")
    ]


def comparisons(
    pairs: Sequence[tuple[Model, Model]], right: dict[Model, list[dict[str, Any]]], groups: list[str]
) -> list[dict[str, Any]]:
    """Compare pairs of models on the test clips of all lists.

    Once by the mean of the seeds' probabilities, once over the single seeds; p-values are adjusted for all of both.
    """
    compared = []
    for kind in ("right", "right_each"):
        sides = {model: np.concatenate([r[kind] for r in rows], axis=-1) for model, rows in right.items()}
        compared += [_named(*pair, kind) | _against(sides[pair[0]], sides[pair[1]], groups) for pair in pairs]
    adjusted = holm([pair["p"] for pair in compared])
    return [pair | {"p_holm": p} for pair, p in zip(compared, adjusted, strict=True)]


def _named(ours: Model, theirs: Model, kind: str) -> dict[str, Any]:
    names = {"backbone": ours[0], "preset": ours[1], "variant": ours[2], "other_preset": theirs[1], "other": theirs[2]}
    return names | {"seeds": kind == "right_each"}


def _against(ours: Any, theirs: Any, groups: list[str]) -> dict[str, Any]:
    gain = np.atleast_2d(ours.astype(float) - theirs)  # (S, N)
    seeds, n = gain.shape
    low, high = interval_of_difference(gain.sum(0), np.full(n, float(seeds)), groups)
    return {"n": n, "difference": float(gain.mean()), "ci95": [low, high], "p": exact_p(gain.sum(0), groups)}


def keep_answers(right: dict[Model, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return which test clips of each list every model has right, a digit a clip: together, and each seed."""
    return [
        {"model": model, "together": digits(row["right"]), "each": [digits(seed) for seed in row["right_each"]]}
        for model, rows in right.items()
        for row in rows
    ]


def read_answers(kept: list[dict[str, Any]]) -> dict[Model, list[dict[str, Any]]]:
    """Return what :func:`keep_answers` was given, as far as comparisons need it."""
    right: dict[Model, list[dict[str, Any]]] = {}
    for row in kept:
        each = np.stack([answers(seed) for seed in row["each"]])
        right.setdefault(tuple(row["model"]), []).append({"right": answers(row["together"]), "right_each": each})
    return right


def compared(right: dict[Model, list[dict[str, Any]]], groups: list[str]) -> dict[str, Any]:
    """Return all comparisons."""
    return {
        "pairs": comparisons(native_pairs(right), right, groups),
        "grid_pairs": comparisons(grid_pairs(right), right, groups),
    }


def overlap(splits: Sequence[str], clips: dict[str, Any], folders: Iterable[Path]) -> dict[str, Any]:
    """Count the test clips that the choice of a recipe on these splits' validation sides has seen.

    Returns:
        Distinct validation clips, and those among them and among all that a recipe was trained or judged on that each
        split rule tests: least and most over its runs.
    """
    judged: set[str] = set()
    seen: set[str] = set()
    for rule in splits:
        (fold,) = make_folds(rule, **clips, seed=0)
        judged |= {clips["clip_ids"][i] for i in fold.split.val}
        seen |= {clips["clip_ids"][i] for side in (fold.split.train, fold.split.val) for i in side}
    tested: dict[str, list[tuple[int, int, int]]] = {}
    for folder in folders:
        found: dict[str, list[tuple[int, int, int]]] = {}
        for path in sorted(folder.glob("runs/native/*/mean-*/*/run.json")):
            split = read_run_json(path.parent / "run.json")["split"]
            test = set(split["test"])
            found.setdefault(short_rule(split["rule"]), []).append((len(test), len(test & judged), len(test & seen)))
        tested = found | tested
    names = ("n", "in_validation", "in_either")
    return {
        "validation": len(judged),
        "tested": {
            rule: {
                name: [min(column), max(column)] for name, column in zip(names, zip(*counts, strict=True), strict=True)
            }
            for rule, counts in tested.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reproduced", type=Path, nargs="?")
    parser.add_argument("--split", action="append")
    parser.add_argument("--backbone", nargs="+", default=BACKBONES)
    parser.add_argument("--grid", action="store_true", help="on features of the preset grid too")
    parser.add_argument("--also", nargs="*", type=Path, default=[], help="further folders of reproduce, for its tables")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.reproduced is None:
        found = json.loads(args.out.read_text())
        if "answers" not in found:
            parser.error(f"{args.out} is of an earlier version and holds no answers: give REPRODUCED")
        write_json(args.out, found | compared(read_answers(found["answers"]), found["groups"]))
        return
    if args.split is None:
        parser.error("REPRODUCED goes with --split")
    rows: list[dict[str, Any]] = []
    right: dict[Model, list[dict[str, Any]]] = {}
    clips: dict[str, Any] = {}
    groups: list[str] = []
    for backbone, preset in product(args.backbone, ("native", "grid") if args.grid else ("native",)):
        data = load_clips(args.reproduced / "cache", None, "mean", [backbone], preset, progress=False)
        labels = sorted(set(data.labels))
        targets = np.array([labels.index(label) for label in data.labels])
        values = data.values.astype(np.float32).mean(axis=1)  # (N, d)
        groups = []
        for rule in args.split:
            (fold,) = make_folds(rule, **data.columns, seed=0)
            test = fold.split.test
            groups += units_of([data.clip_ids[i] for i in test], [data.groups[i] for i in test])
            yardstick = regression(values, targets, fold.split)
            yardstick |= {"variant": YARDSTICK, "test_accuracy": float(yardstick["right"].mean())}
            for row in (yardstick, *heads(args.reproduced, rule, backbone, preset)):
                right.setdefault((backbone, preset, row["variant"]), []).append(row)
                plain = {k: v for k, v in row.items() if k not in ("right", "right_each")}
                n = {"n_val": len(fold.split.val), "n_test": len(fold.split.test)}
                together = {"together_accuracy": float(row["right"].mean())} if row.get("seeds", 1) > 1 else {}
                rows.append(
                    {"backbone": backbone, "preset": preset, "split": short_rule(rule), **plain, **together, **n}
                )
                print(backbone, preset, short_rule(rule), plain, flush=True)
    result = {
        "reproduced": [_tables(folder) for folder in (args.reproduced, *args.also)],
        "strengths": STRENGTHS,
        "rows": rows,
        "groups": groups,
        "answers": keep_answers(right),
        **compared(right, groups),
        "overlap": overlap(args.split, clips, (args.reproduced, *args.also)),
    }
    write_json(args.out, result)
    print(json.dumps([result["pairs"], result["overlap"]], indent=1))


if __name__ == "__main__":
    main()
