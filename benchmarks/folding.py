"""Whether timm's networks compute the same with their batch normalisations folded into convolutions.

    python benchmarks/folding.py --out benchmarks/results/folding.json [--of 2 --part 0]

All networks that have batch normalisations and are not too large, with synthetic weights and normalisations that are
none of them the identity, on one frame, in float32. Where features differ by more than a thousandth of their length,
which networks of synthetic weights may make of rounding alone, it is done again in float64. ``--of N --part I`` takes
every Nth network from the Ith on. 459 networks took some 25 CPU-minutes.
"""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
from parts import machine
from torch import nn

from fitrec_cache.backbones.backbone import _REST, _preprocessing
from fitrec_cache.backbones.folding import fold_norms
from fitrec_cache.backbones.pretrained import build_empty
from fitrec_cache.common.files import write_json

MOST_WEIGHTS, MOST_PIXELS = 30_000_000, 260
SAME = 1e-3


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def tried(name: str) -> bool:
    model = build_empty(name)
    weights = sum(p.numel() for p in model.parameters())
    return bool(norms(model)) and weights <= MOST_WEIGHTS and max(_preprocessing(model, "native").size) <= MOST_PIXELS


def build(name: str, dtype: torch.dtype) -> tuple[nn.Module, torch.Tensor]:
    """Return a network in evaluation mode, and a frame that it takes."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0).eval().requires_grad_(False)
    for norm in norms(model):
        if norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2)
        if norm.affine:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.3)
    return model.to(dtype), torch.rand(1, 3, *_preprocessing(model, "native").size, dtype=dtype)


def compare(name: str, dtype: torch.dtype) -> dict[str, Any]:
    model, frame = build(name, dtype)
    there = len(norms(model))
    with torch.inference_mode():
        before = model(frame)
    folded = fold_norms(model, frame, _REST)
    with torch.inference_mode():
        moved = float((model(frame) - before).norm() / before.norm())
    found = {"name": name, "norms": there, "folded": folded, "left": len(norms(model))}
    return found | {"moved": moved if math.isfinite(moved) else None}  # synthetic weights may overflow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--of", type=int, default=1)
    parser.add_argument("--part", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of networks that timm calls by older names
    rows = []
    for name in timm.list_models()[args.part :: args.of]:
        if tried(name):
            row = compare(name, torch.float32)
            if not row["folded"] or row["moved"] is None or row["moved"] > SAME:
                row["in_float64"] = compare(name, torch.float64)
            rows.append(row)
            print(row, flush=True)
            write_json(args.out, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
