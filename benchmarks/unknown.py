"""How well clips of classes that were never trained are answered "unknown".

    python benchmarks/unknown.py CACHE --work DIR --out benchmarks/results/unknown.json

Every sixth class by name is left out, so nobody chose them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fitrec_cache.cache import Cache
from fitrec_cache.files import write_json
from fitrec_cache.train import train_head


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
        "runs": [{"seed": run.seed, "accuracy": run.metrics.accuracy, **run.unknown} for run in report.runs],
    }
    write_json(args.out, result)


if __name__ == "__main__":
    main()
