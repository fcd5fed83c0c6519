"""The variants that learn from 64x64 frames, a few epochs each: what that time buys on a machine without a GPU.

    python benchmarks/frame_variants.py CACHE --work DIR --out benchmarks/results/frame_variants.json

CACHE holds frames. Adam at 1e-3; so few epochs are far from converged. It resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fitrec_cache.train import train_head

#: Epochs.
VARIANTS = {"lrcn": 6, "convlstm": 3}

SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    result: dict[str, Any] = {
        "data": "exercises30",
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "gpu": torch.cuda.is_available()},
        "versions": {"torch": str(torch.__version__), "numpy": np.__version__},
        "runs": [],
    }
    for variant, epochs in VARIANTS.items():
        for split in ("group", "random"):
            out = args.work / f"{variant}-{split}"
            settings = {"recipe": "paper", "learning_rate": 1e-3, "epochs": epochs}
            report = train_head(
                out=out, cache=args.cache, variant=variant, split=split, seed=SEEDS, progress=True, **settings
            )
            left_out = ("out", "unknown")
            result["runs"] += [{k: v for k, v in run.items() if k not in left_out} for run in report.to_dict()["runs"]]
            args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
