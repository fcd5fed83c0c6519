"""How well clips of classes that were never trained are answered "unknown".

    python benchmarks/unknown.py CACHE --work DIR --out benchmarks/results/unknown.json

Every sixth class by name is left out, so nobody chose them. Beside the highest probability, which the program uses,
other scores from the literature are tried: Hendrycks et al. 2022 (highest logit), Liu et al. 2020 (energy), entropy,
Sun et al. 2022 (nearest training clip, by the features' mean over time).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import entr, logsumexp, softmax

from fitrec_cache.cache import Cache
from fitrec_cache.common.files import write_json
from fitrec_cache.evaluation.calibration import auroc
from fitrec_cache.runs.outputs import read_outputs, read_strangers
from fitrec_cache.runs.run_files import read_run_json
from fitrec_cache.train import train_head
from fitrec_cache.training.loading import load_clips


def scores(cache: Path, backbone: str, folders: list[Path]) -> dict[str, float]:
    """Return the AUROC of each score, averaged over runs."""
    data = load_clips(cache, None, "mean", [backbone], None, progress=False)
    number = {clip: i for i, clip in enumerate(data.clip_ids)}
    means = data.values.astype(np.float32).mean(axis=1)  # (N, d)
    found: dict[str, list[float]] = {}
    for folder in folders:
        run = read_run_json(folder / "run.json")
        sides = {k: [number[c] for c in v] for k, v in run["split"].items() if k in ("train", "val", "test", "unknown")}
        logits = [read_outputs(folder, run, "test").logits, read_strangers(folder, run)]
        sure = [softmax(x / run["calibration"]["temperature"], axis=1) for x in logits]
        learned = sides["train"] + sides["val"]
        centred = means - means[learned].mean(axis=0)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        tried: dict[str, list[Any]] = {
            "highest probability": [p.max(axis=1) for p in sure],
            "highest logit": [x.max(axis=1) for x in logits],
            "energy": [logsumexp(x, axis=1) for x in logits],
            "entropy": [-entr(p).sum(axis=1) for p in sure],
            "nearest training clip": [
                (centred[sides[side]] @ centred[learned].T).max(axis=1) for side in ("test", "unknown")
            ],
        }
        for name, (known, strange) in tried.items():
            found.setdefault(name, []).append(auroc(known, strange))
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--variant", default="resnet50-lstm-attention")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    left_out = sorted({clip.label for clip in Cache(args.cache).clips()})[::6]
    report = train_head(
        out=args.work,
        cache=args.cache,
        backbone=[args.backbone],
        variant=args.variant,
        split="group",
        seed=(0, 1, 2),
        unknown=left_out,
        progress=True,
    )
    first = report.runs[0]
    result = {
        "left_out": left_out,
        "variant": first.variant,
        "backbone": first.backbone,
        "split": first.split,
        "n": first.unknown["n"],
        "n_test": first.n_test,
        "scores": scores(args.cache, args.backbone, [run.out for run in report.runs]),
        "runs": [{"seed": run.seed, "accuracy": run.metrics.accuracy, **run.unknown} for run in report.runs],
    }
    write_json(args.out, result)


if __name__ == "__main__":
    main()
