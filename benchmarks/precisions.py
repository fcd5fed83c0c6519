"""The part ``precisions`` of stage_one.py: what each precision costs here, and which one `--precision auto` takes."""

from __future__ import annotations

import argparse
from typing import Any

import torch
import torch.nn.functional as F
from parts import BACKBONES, seconds, spread

from fitrec_cache.backbones.backbone import best_precision, load_backbone
from fitrec_cache.common.memory import keep_freed_memory
from fitrec_cache.common.precision import fuses_slowly

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIDE, FRAMES = 1024, 4  # where a precision is emulated, larger ones take minutes
PLACES = (20, 3, 197, 64)  # frames, heads, places and values a place of ViT-Ti/16


def precisions(args: argparse.Namespace) -> dict[str, Any]:
    """Compare precisions, which alternate within each repeat, in a product of matrices and in each backbone."""
    keep_freed_memory()
    torch.manual_seed(0)
    square = torch.randn(SIDE, SIDE)
    rows = {"product": {name: [] for name in PRECISIONS}}
    matrices = {name: square.to(dtype) for name, dtype in PRECISIONS.items()}
    for _ in range(1 + args.repeats):
        for name, matrix in matrices.items():
            rows["product"][name].append(seconds(lambda m=matrix: m @ m))
    for backbone in BACKBONES:
        text = f"{backbone}={args.weights / backbone}.safetensors"
        models = {name: load_backbone(text, precision=name, device="cpu") for name in PRECISIONS}
        frames = torch.randint(0, 256, (FRAMES, 3, 270, 480), dtype=torch.uint8)
        ready = {name: model.prepare(frames) for name, model in models.items()}
        rows[backbone] = {name: [] for name in PRECISIONS}
        for _ in range(1 + args.repeats):
            for name, model in models.items():
                rows[backbone][name].append(seconds(lambda m=model, x=ready[name]: m.embed_prepared(x)))
    queries, keys, values = torch.randn(3, *PLACES, dtype=torch.bfloat16)
    ways = {
        "fused": lambda: F.scaled_dot_product_attention(queries, keys, values),
        "by products": lambda: (queries * PLACES[-1] ** -0.5 @ keys.transpose(-2, -1)).softmax(-1) @ values,
    }
    attention: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(1 + args.repeats):
        for way, attend in ways.items():
            attention[way].append(seconds(attend))
    return {
        "attention_in_bf16": {way: spread(taken[1:]) for way, taken in attention.items()},
        "places": PLACES,
        "fuses_slowly": fuses_slowly("bf16", "cpu"),
        "auto": best_precision("auto", "cpu"),
        "side": SIDE,
        "frames": FRAMES,
        "seconds": {what: {name: spread(taken[1:]) for name, taken in row.items()} for what, row in rows.items()},
    }
