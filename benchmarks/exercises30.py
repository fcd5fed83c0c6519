"""Every variant on a real data set: extract three backbones, train with several seeds and splits, write one JSON.

    python benchmarks/exercises30.py VIDEOS WEIGHTS_DIR --work DIR --out benchmarks/results/exercises30.json

It resumes: what the cache and the run folders in DIR hold is not made again. Heads on features are trained by the
recipe ``native``; those on frames, which are far slower, by a few epochs of Adam at 1e-3, so they are not converged.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from fitrec_cache.extract import extract
from fitrec_cache.train import train_head

#: Epochs and number of seeds of the variants that learn from frames.
PIXELS = {"lrcn": (6, 3), "convlstm": (3, 3)}

BACKBONES = ("resnet50", "tf_efficientnet_b0", "vit_tiny_patch16_224")

#: Variant, cached features (none: the 64x64 frames).
TABLE: tuple[tuple[str, str | None], ...] = (
    ("mean", "resnet50"),
    ("resnet50-lstm-attention", "resnet50"),
    ("mean", "tf_efficientnet_b0"),
    ("efficientnet-lstm-attention", "tf_efficientnet_b0"),
    ("mean", "vit_tiny_patch16_224"),
    ("vit-lstm", "vit_tiny_patch16_224"),
    ("lrcn", None),
    ("convlstm", None),
)


def one_run(args: argparse.Namespace, variant: str, backbone: str | None, split: str, seed: int) -> dict[str, Any]:
    out = args.work / "runs" / f"{variant}-{backbone or 'pixels'}-{split}-{seed}"
    if variant in PIXELS:
        how: dict[str, Any] = {"recipe": "paper", "learning_rate": 1e-3, "epochs": PIXELS[variant][0]}
    else:
        how = {"recipe": "native", "backbone": [str(backbone)]}
    report = train_head(
        out=out, cache=args.work / "cache", variant=variant, split=split, seed=[seed], progress=True, **how
    )
    figures = report.to_dict()["runs"][0]
    left_out = ("per_class", "confusion", "history", "labels", "out", "unknown")
    return {k: v for k, v in figures.items() if k not in left_out}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--skip", nargs="*", default=[], help="variants to leave out")
    args = parser.parse_args()
    backbones = [f"{name}={args.weights / name}.safetensors" for name in BACKBONES]
    record = args.work / "extract.json"
    if not record.exists():
        report = extract(args.videos, cache=args.work / "cache", backbone=backbones, progress=True)
        record.write_text(json.dumps(report.to_dict()))
    extracted = json.loads(record.read_text())
    result: dict[str, Any] = {
        "data": args.videos.name,
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "gpu": torch.cuda.is_available()},
        "versions": {"torch": str(torch.__version__), "timm": timm.__version__, "numpy": np.__version__},
        "settings": {"seeds": args.seeds, "pixels": PIXELS},
        "extract": {k: extracted[k] for k in ("clips", "done", "reused", "failed", "backbones", "seconds", "stages")},
        "runs": [],
    }
    jobs = [(split, *row) for split in ("group", "random") for row in TABLE if row[0] not in args.skip]
    for split, variant, backbone in sorted(
        jobs, key=lambda job: list(PIXELS).index(job[1]) if job[1] in PIXELS else -1
    ):
        for seed in range(PIXELS[variant][1] if variant in PIXELS else args.seeds):
            result["runs"].append(one_run(args, variant, backbone, split, seed))
            args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
