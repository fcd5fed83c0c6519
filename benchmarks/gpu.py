"""Measure stage one on a GPU, with the cores of its machine beside it, and say what the limit was.

    python benchmarks/gpu.py VIDEOS WEIGHTS_DIR --work DIR --out benchmarks/results/gpu.json

For each backbone, not compiled and compiled: the network alone on tensors that are there, `extract` from videos and
from stored frames, how busy the GPU was meanwhile, the same network on the processor of this machine, and how near
the features of both are. Then larger batches and several processes on one cache, which show what they would gain.
``--device cpu`` goes the same ways without a GPU.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--backbone", action="append", help="repeatable; the three of the other benchmarks by default")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], help="how many at once on one cache")
    parser.add_argument("--eager", action="store_true", help="leave the compiled networks out")
    args = parser.parse_args()
    from gpu_parts import at_once, gpu, one_way
    from parts import BACKBONES, choose, decode_all, machine

    args.work.mkdir(parents=True, exist_ok=True)
    clips = choose(args.videos, args.clips)
    result: dict[str, Any] = {
        "machine": machine(),
        "gpu": gpu(),
        "clips": len(clips),
        "decode_seconds_per_clip": decode_all(clips),
        "backbones": {},
    }
    for name in args.backbone or BACKBONES:
        text = f"{name}={args.weights / name}.safetensors"
        ways = {"eager": one_way(text, False, clips, args)} | {"processes": at_once(text, args)}
        if not args.eager:
            ways["compiled"] = one_way(text, True, clips, args)
        result["backbones"][name] = ways
        args.out.write_text(json.dumps(result, indent=1) + "\n")
        print(name, {k: v["images_per_second"] for k, v in ways.items() if k != "processes"}, flush=True)


if __name__ == "__main__":
    main()
