"""What each part of the recipe ``native`` is worth: one change at a time, judged on validation sides only.

    python benchmarks/recipe.py CACHE LISTS_DIR --out benchmarks/results/recipe.json

LISTS_DIR has UCF101-style trainlist01-03 and testlist01-03; their test clips are not used at all. Each change is tested
against the recipe on the same clips, by groups; the p-values are adjusted for the number of changes.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from parts import list_rules

from fitrec_cache.evaluation.paired import holm
from fitrec_cache.settings.recipes import get_recipe, read_settings
from fitrec_cache.training.loading import load_clips
from fitrec_cache.training.problem import Problem, Right, accuracy

#: Name of the change, what is changed. ``attention`` is no setting of a recipe, so it is named apart.
CHANGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("native", {}),
    ("paper, for comparison", {"recipe": "paper"}),
    ("features as they are", {"normalise": "none"}),
    ("each value scaled", {"normalise": "standard"}),
    ("components whitened", {"normalise": "whiten"}),
    ("64 components", {"components": 64}),
    ("256 components", {"components": 256}),
    ("no mean beside the states", {"skip_mean": False}),
    ("paper's pooling", {"pooling": "average"}),
    ("dot attention", {"attention": "dot"}),
    ("no attention", {"attention": "none"}),
    ("both directions", {"bidirectional": True}),
    ("differences of frames", {"differences": True}),
    ("no dropout", {"dropout": 0.0, "input_dropout": 0.0}),
    ("more dropout", {"dropout": 0.5, "input_dropout": 0.5}),
    ("half of the frames drawn", {"draw": 10}),
    ("no label smoothing", {"label_smoothing": 0.0}),
    ("no weight decay", {"weight_decay": 0.0}),
    ("rare classes weigh more", {"balance": 0.5}),
    ("learning rate 1e-2", {"learning_rate": 1e-2}),
    ("learning rate 1e-3", {"learning_rate": 1e-3}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("lists", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", default="resnet50-lstm-attention")
    parser.add_argument("--backbone", nargs="+", default=["resnet50"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--base", nargs="*", default=[], help="NAME=VALUE: start from the recipe with these changed")
    args = parser.parse_args()
    rules = list(list_rules(args.lists).values())
    data = load_clips(args.cache, None, args.variant, args.backbone, None, progress=False)
    problem = Problem.of(data, variant=args.variant, split=rules, seed=[0], epochs=40)
    found: dict[str, Any] = {
        "variant": args.variant,
        "backbone": problem.backbone,
        "n_val": [len(each.val) for each in problem.splits],
        "seeds": args.seeds,
        "base": args.base,
        "n_distinct": len(problem.units),
        "rows": [],
    }
    plain: Right = []
    for name, change in CHANGES:
        if args.only and name not in ("native", *args.only):
            continue
        settings = dict(change)
        attention = settings.pop("attention", None)
        recipe = get_recipe(settings.pop("recipe", "native")).change(**{**read_settings(args.base), **settings})
        started = time.perf_counter()
        right = problem.judge(recipe, attention, range(args.seeds))
        plain = plain or right  # the first row is the recipe itself
        seconds = time.perf_counter() - started
        row = {
            "change": name,
            "settings": change,
            "val_accuracy": accuracy(right),
            "p": problem.p_value(right, plain),
            "seconds": round(seconds, 1),
        }
        found["rows"].append(row)
        changed = found["rows"][1:]
        for each, p in zip(changed, holm([each["p"] for each in changed]), strict=True):
            each["p_holm"] = p
        print(f"{row['val_accuracy']:.3f}  {name}  ({seconds:.0f} s)", flush=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
