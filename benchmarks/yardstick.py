"""Heads against logistic regression on the mean of the same features, on the same lists: validation, then once test.

    python benchmarks/yardstick.py REPRODUCED --split list:TRAIN,TEST ... [--also REPRODUCED ...]
        --out benchmarks/results/yardstick.json

REPRODUCED is the folder of a `fitrec-cache reproduce` with those splits and perhaps others; its tables go into the
JSON, as do those of further such folders. The regression's strength of regularisation, and whether features are
brought to mean 0 and standard deviation 1, are chosen on validation clips;
like the recipe `native` it then learns from training and validation clips together.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from fitrec_cache.files import write_json
from fitrec_cache.folds import make_folds
from fitrec_cache.loading import load_clips
from fitrec_cache.paired import bootstrap_interval, exact_mcnemar
from fitrec_cache.runs import read_outputs, read_results

#: Inverse strengths of regularisation.
STRENGTHS = tuple(10.0**power for power in range(-5, 4))


def regression(values: Any, targets: Any, split: Any) -> dict[str, Any]:
    """Return the validation accuracy of what was chosen on validation, and which test clips it then has right."""
    learn, judge, test = (np.asarray(getattr(split, side)) for side in ("train", "val", "test"))
    choices = list(product(STRENGTHS, (True, False)))
    found = {choice: _fit(choice, values, targets, learn).score(values[judge], targets[judge]) for choice in choices}
    best = max(choices, key=lambda choice: found[choice])
    right = _fit(best, values, targets, np.concatenate([learn, judge])).predict(values[test]) == targets[test]
    return {"C": best[0], "scaled": best[1], "val_accuracy": found[best], "right": right}


def _fit(choice: tuple[float, bool], values: Any, targets: Any, clips: Any) -> Pipeline:
    strength, scaled = choice
    scale = StandardScaler() if scaled else "passthrough"
    return make_pipeline(scale, LogisticRegression(C=strength, max_iter=2000)).fit(values[clips], targets[clips])


def heads(reproduced: Path, rule: str, backbone: str) -> list[dict[str, Any]]:
    """Return each variant's runs on a backbone's features and a split: validation, and which test clips are right."""
    found: dict[str, list[Path]] = {}
    for path in sorted(reproduced.glob("runs/native/*/*/*/run.json")):
        run = read_results(path.parent, "run.json")
        if run["split"]["rule"] == rule and run["backbone"] == backbone:
            found.setdefault(run["head"]["variant"], []).append(path.parent)
    return [_head(variant, folders) for variant, folders in found.items()]


def _head(variant: str, folders: list[Path]) -> dict[str, Any]:
    outputs = [read_outputs(folder) for folder in folders]
    truth = outputs[0]["test_targets"].numpy()
    every = [o["test_logits"].softmax(1).numpy() for o in outputs]
    kept = [read_results(folder) for folder in folders]
    return {
        "variant": variant,
        "seeds": len(folders),
        "val_accuracy": float(np.mean([m["history"][m["best_epoch"] - 1]["val_accuracy"] for m in kept])),
        "test_accuracy": float(np.mean([(p.argmax(1) == truth).mean() for p in every])),
        "ece": float(np.mean([m["calibration"]["ece"] for m in kept])),
        "ece_uncalibrated": float(np.mean([m["calibration"]["ece_uncalibrated"] for m in kept])),
        "false_alarms": float(np.mean([m["unknown"]["false_alarms"] for m in kept])),
        "right": np.mean(every, axis=0).argmax(1) == truth,
    }


def _tables(reproduced: Path) -> dict[str, Any]:
    found = json.loads((reproduced / "reproduce.json").read_text())
    return {k: found[k] for k in ("extract", "table2", "gap", "comparisons", "notes", "seconds")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reproduced", type=Path)
    parser.add_argument("--split", action="append", required=True)
    parser.add_argument("--backbone", nargs="+", default=["resnet50", "tf_efficientnet_b0", "vit_tiny_patch16_224"])
    parser.add_argument("--also", nargs="*", type=Path, default=[], help="further folders of reproduce, for its tables")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    right: dict[tuple[str, str], list[Any]] = {}
    groups: list[str] = []
    for backbone in args.backbone:
        data = load_clips(args.reproduced / "cache", None, "mean", [backbone], "native", progress=False)
        labels = sorted(set(data.labels))
        targets = np.array([labels.index(label) for label in data.labels])
        values = data.values.astype(np.float32).mean(axis=1)  # (N, d)
        clips = {"clip_ids": data.clip_ids, "labels": data.labels, "groups": data.groups, "extra": data.extra}
        groups = []
        for rule in args.split:
            (fold,) = make_folds(rule, **clips, seed=0)
            groups += [str(data.groups[i]) for i in fold.split.test]
            ours = heads(args.reproduced, rule, backbone)
            yardstick = regression(values, targets, fold.split)
            yardstick |= {"variant": "logistic regression", "test_accuracy": float(yardstick["right"].mean())}
            for row in (yardstick, *ours):
                right.setdefault((backbone, row["variant"]), []).append(row["right"])
                plain = {k: v for k, v in row.items() if k != "right"}
                n = {"n_val": len(fold.split.val), "n_test": len(fold.split.test)}
                together = {"together_accuracy": float(row["right"].mean())} if row.get("seeds", 1) > 1 else {}
                rows.append({"backbone": backbone, "split": rule, **plain, **together, **n})
    pairs = [
        {
            "backbone": b,
            "variant": v,
            **_against(np.concatenate(r), np.concatenate(right[b, "logistic regression"]), groups),
        }
        for (b, v), r in right.items()
        if v != "logistic regression"
    ]
    result = {
        "reproduced": [_tables(folder) for folder in (args.reproduced, *args.also)],
        "strengths": STRENGTHS,
        "rows": rows,
        "pairs": pairs,
    }
    write_json(args.out, result)
    print(json.dumps(pairs, indent=1))


def _against(ours: Any, theirs: Any, groups: list[str]) -> dict[str, Any]:
    """Compare the mean of the seeds' probabilities with the regression on the test clips of all lists."""
    low, high = bootstrap_interval(ours.astype(float) - theirs, np.ones(len(ours)), groups)
    counts = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    difference = float(ours.mean() - theirs.mean())
    return {"n": len(ours), "difference": difference, "ci95": [low, high], "p": exact_mcnemar(*counts)}


if __name__ == "__main__":
    main()
