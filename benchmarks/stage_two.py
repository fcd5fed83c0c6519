"""Measure stage two: training heads on cached features. What is compared is measured side by side in one run.

    python benchmarks/stage_two.py CACHE VIDEOS WEIGHTS_DIR --work DIR --out benchmarks/results/stage_two.json \\
        [--keras-python PATH] [--part NAME] [--quick]

Parts: ``keras`` (needs an interpreter that has tensorflow), ``variants``, ``pixels``, ``load``, ``end_to_end``,
``seeds``; each replaces its entry in the JSON. A CACHE that is not there is made first, from all videos and three
backbones, which takes as long as 40,000 images through each. ``--quick`` makes it from a few videos, by one
backbone, and trains its head and those on frames for a few epochs.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("videos", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", action="append", help="repeatable; all by default")
    parser.add_argument("--keras-python", type=Path, help="interpreter with tensorflow; without it no part keras")
    parser.add_argument("--quick", action="store_true", help="a short look: few epochs, clips and heads")
    args = parser.parse_args()
    from parts import write_parts
    from stage_two_parts import PARTS, QUICK_PARTS, ensure_cache

    parts = QUICK_PARTS if args.quick else tuple(PARTS)
    if unknown := set(args.part or []) - set(parts):
        parser.error(f"unknown part {sorted(unknown)}: expected {sorted(parts)}")
    chosen = list(args.part or parts)
    if "keras" in chosen and args.keras_python is None:
        print("keras: left out, no interpreter with tensorflow was given (--keras-python PATH)")
        chosen.remove("keras")
    ensure_cache(args)
    write_parts(PARTS, chosen, args)


if __name__ == "__main__":
    main()
