"""Measure stage one: video to features. Every figure that is compared is measured side by side in one run.

    python benchmarks/stage_one.py VIDEOS WEIGHTS_DIR --work DIR --out benchmarks/results/stage_one.json [--part NAME]

Parts: ``pipeline-BACKBONE``, ``precisions``, ``frames``, ``length``, ``growth``, ``startup``, and only if
named ``compiling``, which takes four to seven minutes, and ``openvino``, which needs that package; each replaces its
entry in the JSON, which says on which machine it was measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", action="append", help="repeatable; all but these two by default")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--eager", action="store_true", help="leave the compiled networks out")
    parser.add_argument("--ucf101", type=Path, help="a folder of UCF101's own videos, for the part frames")
    parser.add_argument("--growth", type=int, nargs="*", default=[100, 1000, 10_000, 100_000])
    args = parser.parse_args()
    from parts import write_parts
    from stage_one_parts import IF_NAMED, PARTS

    if unknown := set(args.part or []) - PARTS.keys():
        parser.error(f"unknown part {sorted(unknown)}: expected {sorted(PARTS)}")
    if args.clips < args.repeats:
        parser.error(f"--clips {args.clips}: expected one a repeat at least, {args.repeats}")
    write_parts(PARTS, args.part or [name for name in PARTS if name not in IF_NAMED], args)


if __name__ == "__main__":
    main()
