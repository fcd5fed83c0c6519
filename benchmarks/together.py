"""How sure the heads of three seeds are together, and how often they are right, with and without a temperature.

    python benchmarks/together.py CACHE --lists DIR --work DIR --out benchmarks/results/together.json

Each model is trained with three seeds that share one split (`--split-seed 0`), on each of three lists, and answers
their test clips: single heads, the mean of their calibrated probabilities, and that mean with a temperature and a
threshold for "unknown" of its own, fitted on the validation clips, as `predict` answers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts import list_rules, on_lists
from stage_two_parts import ON_FEATURES

from fitrec_cache.common.files import write_json
from fitrec_cache.evaluation.calibration import calibration_error
from fitrec_cache.runs.ensemble import Ensemble
from fitrec_cache.runs.outputs import read_outputs
from fitrec_cache.runs.run_files import read_run_json
from fitrec_cache.train import train_head
from fitrec_cache.training.loading import load_clips

SEEDS = (0, 1, 2)


def sureness(probabilities: Any, unknown: Any, targets: Any) -> dict[str, float]:
    """Return how sure answers are on average, how many are right, how far both are apart, how many are "unknown"."""
    return {
        "confidence": float(probabilities.max(axis=1).mean()),
        "accuracy": float((probabilities.argmax(axis=1) == targets).mean()),
        "ece": calibration_error(probabilities, targets)[0],
        "false_alarms": float(unknown.mean()),
    }


def answered(folders: list[Path]) -> dict[str, dict[str, float]]:
    """Return the same of single heads (their mean), of the mean, and of the mean with a temperature of its own."""
    settings = [read_run_json(folder / "run.json") for folder in folders]
    outputs = [read_outputs(folder, run, "test") for folder, run in zip(folders, settings, strict=True)]
    logits, targets = [torch.from_numpy(o.logits).double() for o in outputs], outputs[0].targets
    own = Ensemble.of(folders, settings)
    ways = {"mean": replace(own, mean=None), "own temperature": own}
    found = {name: sureness(*(x.numpy() for x in way(logits)), targets) for name, way in ways.items()}
    single = []
    for one, calibration in zip(logits, own.single, strict=True):
        said, unknown = Ensemble(single=(calibration,))([one])
        single.append(sureness(said.numpy(), unknown.numpy(), targets))
    return {"single": {k: float(np.mean([s[k] for s in single])) for k in single[0]}, **found}


def main() -> None:
    args = on_lists(__doc__)
    rows: list[dict[str, Any]] = []
    for variant, backbone in ON_FEATURES:
        data = load_clips(args.cache, None, variant, [backbone], "native", progress=False)
        for name, rule in list_rules(args.lists).items():
            report = train_head(
                out=args.work / f"{variant}-{backbone}-{name.replace(' ', '-')}",
                features=data,
                variant=variant,
                split=rule,
                seed=SEEDS,
                split_seed=0,
                progress=True,
            )
            first = report.runs[0]
            row = {"backbone": backbone, "variant": variant, "split": name, "n_val": first.n_val, "n": first.n_test}
            rows.append(row | {"temperature": report.ensemble["temperature"], **answered([r.out for r in report.runs])})
            write_json(args.out, {"seeds": SEEDS, "rows": rows})


if __name__ == "__main__":
    main()
