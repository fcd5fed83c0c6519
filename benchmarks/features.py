"""What other features are worth to a head under the recipe ``native``, judged on validation sides only.

    python benchmarks/features.py CACHE LISTS_DIR --out benchmarks/results/features.json [--denser CACHE]

CACHE has ``native`` and ``grid`` features of three backbones (what is missing is left out), the other one T = 40 frames
a clip. LISTS_DIR has UCF101-style trainlist01-03 and testlist01-03; their test clips are not used at all. Each choice
is tested against ``native`` features of 20 frames of the same (or the first) backbone, on the same clips, by groups.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from parts import list_rules
from stage_two_parts import ON_FEATURES

from fitrec_cache.cache import Cache
from fitrec_cache.settings.recipes import get_recipe
from fitrec_cache.training.loading import load_clips
from fitrec_cache.training.problem import Problem, Right, accuracy

#: Frames drawn from clips that have more.
DRAWN = 20


def choices(cache: Path, denser: Path | None) -> Iterator[dict[str, Any]]:
    """Yield each variant with the features it could have: folder, backbones, preset, and frames drawn (0: all)."""
    for variant, backbone in ON_FEATURES:
        for preset in ("native", "grid"):
            yield {"cache": cache, "variant": variant, "backbone": [backbone], "preset": preset, "draw": 0}
        if denser is not None:
            for draw in (0, DRAWN):
                yield {"cache": denser, "variant": variant, "backbone": [backbone], "preset": "native", "draw": draw}
    together = ["resnet50", "tf_efficientnet_b0"]
    for variant in ("mean", "resnet50-lstm-attention"):
        yield {"cache": cache, "variant": variant, "backbone": together, "preset": "native", "draw": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("lists", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--denser", type=Path, help="a cache with 40 frames per clip")
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    rules = list(list_rules(args.lists).values())
    found: dict[str, Any] = {"seeds": args.seeds, "rows": []}
    plain: dict[tuple[str, str], Right] = {}  # comes first of each variant and backbone
    for choice in choices(args.cache, args.denser):
        draw, folder = choice.pop("draw"), choice["cache"]
        held = {(s.identity["backbone"], s.identity["preprocessing"]["preset"]) for s in Cache(folder).feature_stores()}
        if any((name, choice["preset"]) not in held for name in choice["backbone"]):
            continue
        data = load_clips(folder, None, choice["variant"], choice["backbone"], choice["preset"], progress=False)
        problem = Problem.of(data, variant=choice["variant"], split=rules, seed=[0], epochs=40)
        frames, width = problem.values.shape[1:]
        started = time.perf_counter()
        right = problem.judge(get_recipe("native").change(draw=draw), None, range(args.seeds))
        start = plain.setdefault((choice["variant"], choice["backbone"][0]), right)
        splits = len(problem.splits)
        scores = [accuracy(right[i : i + splits]) for i in range(0, len(right), splits)]
        row = {
            "variant": choice["variant"],
            "features": "+".join(choice["backbone"]),
            "preset": choice["preset"],
            "frames": frames,
            "drawn": draw or frames,
            "values_a_frame": width,
            "val_accuracy": accuracy(right),
            "p": problem.p_value(right, start),
            "spread_of_seeds": float(np.ptp(scores)),
            "seconds": round(time.perf_counter() - started, 1),
        }
        found["n_val"] = [len(each.val) for each in problem.splits]
        found["rows"].append(row)
        print(json.dumps(row), flush=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
