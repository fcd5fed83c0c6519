"""What the default backbone reaches with the two heads that `learn` tries: on lists, and in rooms never seen.

    python benchmarks/default_backbone.py CACHE --lists DIR --leave-one COLUMN --work DIR
        --out benchmarks/results/default_backbone.json

CACHE holds features of the default backbone, made by `extract` with its usual settings. Three seeds on each list, one
seed where one value of the column after the other is left out. Nothing is chosen by these figures.
"""

from __future__ import annotations

import statistics
from typing import Any

from parts import list_rules, on_lists

from fitrec_cache.backbones.pretrained import EMBEDDED
from fitrec_cache.common.files import write_json
from fitrec_cache.settings.variants import heads_for
from fitrec_cache.train import train_head


def main() -> None:
    args = on_lists(__doc__, leave_one=True)
    rules = {name: (rule, [0, 1, 2]) for name, rule in list_rules(args.lists).items()}
    rules["rooms"] = f"leave-one:{args.leave_one}", [0]
    rows: list[dict[str, Any]] = []
    for name, (rule, seeds) in rules.items():
        for variant in heads_for(EMBEDDED):
            out = args.work / f"{variant}-{name.replace(' ', '-')}"
            settings = {"cache": args.cache, "backbone": [EMBEDDED], "variant": variant}
            report = train_head(out=out, split=rule, seed=seeds, progress=True, **settings)
            n = report.pooled[0]["n"] if report.pooled else report.runs[0].n_test
            row = {
                "variant": variant,
                "split": name,
                "seeds": seeds,
                "n": n,
                "accuracy": statistics.mean(report.accuracies),
            }
            rows.append(row)
            print(row, flush=True)
            write_json(args.out, {"backbone": EMBEDDED, "rows": rows})


if __name__ == "__main__":
    main()
