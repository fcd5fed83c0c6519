"""What other backbones cost beside the default one: seconds per clip, from stored frames to embeddings.

    python benchmarks/backbone_cost.py VIDEOS --out benchmarks/results/backbone_cost.json [--clips 2] [--repeats 5]

Weights are drawn at random, as the time does not depend on them. All networks take the same clips in turns.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import timm
from parts import choose, machine, ratio, seconds, spread, stored_frames
from safetensors.torch import save_file

from fitrec_cache.backbones.backbone import Backbone, load_backbone
from fitrec_cache.backbones.pretrained import EMBEDDED, build_empty
from fitrec_cache.common.files import write_json
from fitrec_cache.common.memory import keep_freed_memory

NAMES = (
    EMBEDDED,
    "mobilenetv3_large_100.ra_in1k",
    "tf_efficientnet_b0",
    "resnet50",
    "vit_base_patch32_clip_224.laion2b",
    "fastvit_mci0.apple_mclip",
    "convnext_tiny.dinov3_lvd1689m",
    "vit_small_patch16_dinov3.lvd1689m",
    "vit_base_patch16_clip_224.laion2b",
    "vit_small_patch14_dinov2.lvd142m",
)


def random_backbone(name: str, folder: Path) -> Backbone:
    """Return a backbone as `extract` loads it, with the weights that a new network has."""
    path = folder / "weights.safetensors"
    weights = timm.create_model(name, num_classes=0).state_dict()
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    return load_backbone(f"{name}={path}", device="cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    keep_freed_memory()
    clips = stored_frames(choose(args.videos, args.clips))
    with tempfile.TemporaryDirectory() as folder:
        backbones = {name: random_backbone(name, Path(folder)) for name in NAMES}
    taken: dict[str, list[float]] = {name: [] for name in NAMES}
    widths = {name: backbone.embed(clips[0]).shape[1] for name, backbone in backbones.items()}  # and a warm-up
    for _ in range(args.repeats):
        for name, backbone in backbones.items():
            taken[name].append(seconds(lambda: [backbone.embed(c) for c in clips]) / len(clips))  # noqa: B023
        print({name: round(each[-1], 3) for name, each in taken.items()}, flush=True)
    rows = {
        name: {
            "pixels": list(backbone.preprocessing.size),
            "width": widths[name],
            "parameters": sum(p.numel() for p in build_empty(name).parameters()),
            "precision": backbone.precision,
            "seconds_per_clip": spread(taken[name]),
            "over_default": ratio(taken[name], taken[EMBEDDED]),
        }
        for name, backbone in backbones.items()
    }
    write_json(args.out, {"clips": len(clips), "machine": machine(), "backbones": rows})


if __name__ == "__main__":
    main()
