"""How often `compare` calls one of two equally good recipes better, over the folds of one data set.

    python benchmarks/folds.py

Simulated: two kinds of features of the same clips, which tell the classes and the recordings apart equally well. A
ridge classifier stands for the head, so that thousands can be fitted. Each data set is drawn anew, so any claim is
wrong. With the interval of `compare`, with that over the test clips alone, and on the first fold alone; also how often
the interval of an accuracy holds the mean accuracy of the heads on further recordings. Results: results/folds.json.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fitrec_cache.evaluation.metrics import interval_by_unit, stratified_folds
from fitrec_cache.evaluation.paired import exact_p, interval_of_difference, widened_for_folds

RESULT = Path(__file__).parent / "results" / "folds.json"
DIMS, RIDGE, FURTHER = 20, 20.0, 40

#: Classes, recordings of each, clips of each, folds, and data sets drawn.
CASES = (
    (5, 6, 2, 5, 400),
    (5, 12, 5, 5, 400),
    (5, 6, 10, 5, 400),
    (3, 7, 3, 5, 400),
    (8, 40, 1, 5, 300),
    (10, 12, 10, 5, 200),
    (5, 12, 5, 10, 200),
)


class Ridge:
    """One-against-all ridge regression."""

    def __init__(self, x, y, n_classes):
        x = np.c_[x, np.ones(len(x))]
        targets = 2.0 * np.eye(n_classes)[y] - 1
        self.weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ targets)

    def right(self, x, y):
        return (np.c_[x, np.ones(len(x))] @ self.weights).argmax(axis=1) == y


def draw(rng, means, recordings, clips):
    """Return two kinds of features of the same clips, their classes, and their recordings."""
    n = len(means) * recordings
    y, recording = np.repeat(np.arange(len(means)), recordings * clips), np.repeat(np.arange(n), clips)
    noise = [rng.normal(size=(n, DIMS))[recording] * 0.7 + rng.normal(size=(len(y), DIMS)) for _ in range(2)]
    return [means[y] + each for each in noise], y, [str(r) for r in recording]


def claims(gain, units, interval):
    """Say whether `compare` would call one of the two better."""
    return exact_p(gain, units) < 0.05 and not interval[0] <= 0 <= interval[1]


def one_case(rng, n_classes, recordings, clips, folds, draws):
    means = rng.normal(size=(n_classes, DIMS)) * 0.3
    names = ("claims", "claims_as_one_test", "claims_on_one_fold", "accuracy_held", "accuracy_held_as_one_test")
    counted = dict.fromkeys(names, 0)
    truths = []
    for number in range(draws):
        kinds, y, units = draw(rng, means, recordings, clips)
        further, further_y, _ = draw(rng, means, FURTHER, 1)
        right, on_further = np.zeros((2, len(y))), []
        parts = stratified_folds([str(k) for k in y], units, folds, number)
        for part in parts:
            rest = np.setdiff1d(np.arange(len(y)), part)
            for i, x in enumerate(kinds):
                head = Ridge(x[rest], y[rest], n_classes)
                right[i, part] = head.right(x[part], y[part])
                on_further += [head.right(further[i], further_y).mean()] * (i == 0)
        gain, once = right[0] - right[1], np.ones(len(y))
        narrow = interval_of_difference(gain, once, units)
        tested = len(y) / folds
        sizes = {"folds": folds, "tested": tested, "trained": len(y) - tested}
        wide = widened_for_folds(narrow, gain.mean(), **sizes)
        one, one_units = gain[parts[0]], [units[i] for i in parts[0]]
        alone = interval_of_difference(one, np.ones(len(one)), one_units)
        as_one = interval_by_unit(right[0], once, units)
        low, high = widened_for_folds(as_one, right[0].mean(), **sizes, least=0.0)
        truths.append(np.mean(on_further))
        counted["claims"] += claims(gain, units, wide)
        counted["claims_as_one_test"] += claims(gain, units, narrow)
        counted["claims_on_one_fold"] += claims(one, one_units, alone)
        counted["accuracy_held"] += int(low <= truths[-1] <= high)
        counted["accuracy_held_as_one_test"] += int(as_one[0] <= truths[-1] <= as_one[1])
    shares = {name: float(count / draws) for name, count in counted.items()}
    case = {"classes": n_classes, "recordings": recordings, "clips": clips, "folds": folds, "draws": draws}
    return case | shares | {"accuracy": float(np.mean(truths))}


def main() -> None:
    rng, found = np.random.default_rng(0), []
    for case in CASES:
        found.append(one_case(rng, *case))
        print(found[-1], flush=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
