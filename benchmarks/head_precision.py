"""Whether heads that learn in bf16 are as good as those that learn in float32.

    python benchmarks/head_precision.py CACHE --lists DIR --work DIR --out benchmarks/results/head_precision.json

Each LSTM head is trained on three lists with three seeds, in both precisions. Compared are accuracy and loss
on their validation clips, computed in float32 from the trained head; no test clip is looked at.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from parts import list_rules, machine, on_lists
from stage_two_parts import ON_FEATURES

from fitrec_cache.common.files import write_json
from fitrec_cache.runs.results import RunResult
from fitrec_cache.runs.scored import read_scored
from fitrec_cache.train import train_head
from fitrec_cache.training.loading import load_clips

SEEDS = (0, 1, 2)
PRECISIONS = ("fp32", "bf16")


def judged(result: RunResult) -> dict[str, float]:
    """Return a trained head's share of right validation clips, and their loss."""
    found = read_scored(result.out).validated
    loss = F.cross_entropy(torch.from_numpy(found.logits), torch.from_numpy(found.targets))
    return {"accuracy": float(found.right.mean()), "loss": float(loss)}


def main() -> None:
    args = on_lists(__doc__)
    rows: list[dict[str, Any]] = []
    for variant, backbone in ON_FEATURES:
        if variant == "mean":  # learns in float32 always
            continue
        data = load_clips(args.cache, None, variant, [backbone], "native", progress=False)
        for split, rule in list_rules(args.lists).items():
            for seed in SEEDS:
                row: dict[str, Any] = {"variant": variant, "backbone": backbone, "split": split, "seed": seed}
                for precision in PRECISIONS:
                    report = train_head(
                        out=args.work / f"{variant}-{split.replace(' ', '-')}-{seed}-{precision}",
                        features=data,
                        variant=variant,
                        split=rule,
                        seed=[seed],
                        settings=[f"precision={precision}", "refit=false"],
                        progress=True,
                    )
                    row |= {precision: judged(report.runs[0]), "n_val": report.runs[0].n_val}
                rows.append(row)
                write_json(args.out, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
