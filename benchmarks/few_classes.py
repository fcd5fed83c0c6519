"""What five exercises with forty clips each come to: rooms mostly known, and rooms never seen.

    python benchmarks/few_classes.py CACHE --leave-one COLUMN --work DIR --out benchmarks/results/few_classes.json

CACHE holds features of the default backbone, or of those that --backbone names, which are then taken together, made by
`extract` with its usual settings. Five of the classes that have
at least forty clips, and forty clips of each, are drawn by chance, several times. The baseline `mean`, which `learn`
tries too, is trained with one seed and everything at its default. Nothing is chosen by these figures.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from fitrec_cache.backbones.pretrained import EMBEDDED
from fitrec_cache.cache import Cache
from fitrec_cache.common.files import write_json
from fitrec_cache.features import Features, load_cached
from fitrec_cache.train import train_head

CLASSES, CLIPS = 5, 40


def drawn(data: Features, seed: int) -> Features:
    """Return forty clips of each of five classes."""
    random = np.random.default_rng(seed)
    labels = np.array(data.labels)
    large = sorted(label for label, n in Counter(data.labels).items() if n >= CLIPS)
    chosen = random.choice(large, CLASSES, replace=False)
    clips = [random.choice(np.flatnonzero(labels == label), CLIPS, replace=False) for label in chosen]
    return data.take(np.sort(np.concatenate(clips)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--leave-one", required=True, metavar="COLUMN")
    parser.add_argument("--backbone", nargs="+", default=[EMBEDDED], metavar="NAME")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    data = load_cached(Cache(args.cache), args.backbone)
    rows: list[dict[str, Any]] = []
    for seed in range(args.draws):
        clips = drawn(data, seed)
        for name, rule in (("known", "kfold:5"), ("new", f"leave-one:{args.leave_one}")):
            report = train_head(features=clips, variant="mean", split=rule, out=args.work / f"{seed}-{name}")
            (found,) = report.pooled
            row = {"draw": seed, "classes": sorted(set(clips.labels)), "split": rule, "folds": len(report.runs)}
            rows.append({**row, "n": found["n"], "accuracy": found["accuracy"]})
            print(rows[-1], flush=True)
    settings = {"backbone": "+".join(args.backbone), "variant": "mean", "of_each": CLIPS}
    write_json(args.out, {**settings, "classes_there": len(set(data.labels)), "rows": rows})


if __name__ == "__main__":
    main()
