"""How many clips a class it takes: test accuracy by the number of clips to learn from.

    python benchmarks/amount.py CACHE --lists DIR --work DIR --out benchmarks/results/amount.json

Of each class at most so many clips of a list's training side are kept, drawn at random by one seed, smaller draws
inside larger ones; validation is carved from them. The test side stays whole. Nothing is chosen by these figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from parts import list_rules, on_lists

from fitrec_cache.common.files import write_json
from fitrec_cache.dataset.manifests import listed_names
from fitrec_cache.train import train_head
from fitrec_cache.training.loading import load_clips

#: Clips a class at most; None: all.
AMOUNTS = (5, 10, 20, 40, None)

VARIANTS = ("mean", "efficientnet-lstm-attention")
BACKBONE, SEEDS = "tf_efficientnet_b0", (0,)


def drawn(names: list[str], most: int | None) -> list[str]:
    """Return at most so many names of each class folder, the same first ones whatever their number."""
    by_class: dict[str, list[str]] = {}
    for name in np.random.default_rng(0).permutation(sorted(names)).tolist():
        by_class.setdefault(name.split("/")[0], []).append(name)
    return [name for _, of_class in sorted(by_class.items()) for name in of_class[:most]]


def main() -> None:
    args = on_lists(__doc__)
    args.work.mkdir(parents=True, exist_ok=True)
    data = load_clips(args.cache, None, VARIANTS[0], [BACKBONE], "native", progress=False)
    rows: list[dict[str, Any]] = []
    for amount in AMOUNTS:
        for name, rule in list_rules(args.lists).items():
            train, test = rule.removeprefix("list:").split(",")
            kept = drawn([clip for _, clip in listed_names(Path(train))], amount)
            file = args.work / f"{amount or 'all'}-{Path(train).name}"
            file.write_text("\n".join(kept) + "\n")
            for variant in VARIANTS:
                report = train_head(
                    out=args.work / f"{variant}-{file.stem}",
                    features=data,
                    variant=variant,
                    split=f"list:{file},{test}",
                    seed=SEEDS,
                    progress=True,
                )
                first = report.runs[0]
                row = {"variant": variant, "backbone": BACKBONE, "most": amount, "split": name}
                row |= {"n_learned": first.n_train + first.n_val, "n_test": first.n_test}
                rows.append(row | {"accuracy": float(np.mean(report.accuracies))})
                write_json(args.out, {"seeds": SEEDS, "classes": len(set(data.labels)), "rows": rows})


if __name__ == "__main__":
    main()
