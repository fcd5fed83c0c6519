"""The variants that learn from 64x64 frames, on a machine without a GPU.

    python benchmarks/frame_variants.py CACHE --work DIR --out benchmarks/results/frame_variants.json [--variant NAME]

CACHE holds frames. Recipe ``paper`` with Adam at 1e-3: until 20 epochs bring no lower validation loss, or as many as
are allowed here. It resumes; a variant replaces its entries in the JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from parts import machine

from fitrec_cache.train import train_head

#: At most so many epochs; those of convlstm are four times as long.
VARIANTS = {"lrcn": 200, "convlstm": 10}

SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", action="append", choices=list(VARIANTS), help="repeatable; all by default")
    parser.add_argument("--split", action="append", help="repeatable; group by default")
    parser.add_argument("--jobs", type=int, default=1, help="seeds trained at the same time")
    args = parser.parse_args()
    result: dict[str, Any] = {
        "data": "exercises30",
        "machine": machine(),
        "runs": [],
    }
    chosen = args.variant or list(VARIANTS)
    if args.out.exists():
        result["runs"] = [r for r in json.loads(args.out.read_text())["runs"] if r["variant"] not in chosen]
    for variant in chosen:
        for split in args.split or ["group"]:
            report = train_head(
                out=args.work / f"{variant}-{split}",
                cache=args.cache,
                variant=variant,
                split=split,
                seed=SEEDS,
                recipe="paper",
                learning_rate=1e-3,
                epochs=VARIANTS[variant],
                jobs=args.jobs,
                progress=True,
            )
            left_out = ("out", "unknown")
            result["runs"] += [{k: v for k, v in run.items() if k not in left_out} for run in report.to_dict()["runs"]]
            args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
