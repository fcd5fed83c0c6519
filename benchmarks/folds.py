"""How often `compare` calls one of two equally good recipes better, over several test sides of one data set.

    python benchmarks/folds.py

Simulated: two kinds of features of the same clips, which tell the classes and the recordings apart equally well. A
ridge classifier stands for the head, so that thousands can be fitted. Each data set is drawn anew, so any claim is
wrong. The test sides are folds, or those of seeds that each have a split of their own. With the interval of `compare`,
with that over the test clips alone, and on the first test side alone; also how often the interval of an accuracy holds
the mean accuracy of the heads on further recordings. Results: results/folds.json.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fitrec_cache.evaluation.metrics import interval_by_unit, stratified_folds
from fitrec_cache.evaluation.paired import exact_p, interval_of_difference, widened_for_folds

RESULT = Path(__file__).parent / "results" / "folds.json"
DIMS, RIDGE, FURTHER = 20, 20.0, 40

#: Classes, recordings of each, clips of each, folds (or seeds), and data sets drawn.
FOLDS = (
    (5, 6, 2, 5, 400),
    (5, 12, 5, 5, 400),
    (5, 6, 10, 5, 400),
    (3, 7, 3, 5, 400),
    (8, 40, 1, 5, 300),
    (10, 12, 10, 5, 200),
    (5, 12, 5, 10, 200),
)
SEEDS = (
    (5, 12, 5, 3, 400),
    (5, 12, 5, 5, 400),
    (5, 12, 5, 10, 200),
    (8, 40, 1, 3, 300),
    (8, 40, 1, 5, 300),
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


def test_sides(labels, groups, sides, number, *, own_splits):
    """Return the test clips of each fold, or of each seed's own split, which tests a fifth of the clips."""
    if own_splits:
        return [stratified_folds(labels, groups, 5, 1000 * number + seed)[0] for seed in range(sides)]
    return stratified_folds(labels, groups, sides, number)


def one_case(rng, n_classes, recordings, clips, sides, draws, *, own_splits):
    means = rng.normal(size=(n_classes, DIMS)) * 0.3
    names = ("claims", "claims_as_one_test", "claims_on_one_side", "accuracy_held", "accuracy_held_as_one_test")
    counted = dict.fromkeys(names, 0)
    for number in range(draws):
        kinds, y, units = draw(rng, means, recordings, clips)
        further, further_y, _ = draw(rng, means, FURTHER, 1)
        right, tests, on_further = np.zeros((2, len(y))), np.zeros(len(y)), []
        parts = test_sides([str(k) for k in y], units, sides, number, own_splits=own_splits)
        for side, part in enumerate(parts):
            rest = np.setdiff1d(np.arange(len(y)), part)
            tests[part] += 1
            for i, x in enumerate(kinds):
                head = Ridge(x[rest], y[rest], n_classes)
                right[i, part] += head.right(x[part], y[part])
                on_further += [head.right(further[i], further_y).mean()] * (i == 0)
            if not side:
                alone, alone_units = (right[0] - right[1])[part], [units[i] for i in part]
        seen = np.flatnonzero(tests)
        first, gain, tests, units = right[0, seen], (right[0] - right[1])[seen], tests[seen], [units[i] for i in seen]
        tested = float(np.mean([len(part) for part in parts]))
        sizes = {"folds": len(parts), "tested": tested, "trained": len(y) - tested}
        narrow = interval_of_difference(gain, tests, units)
        wide = widened_for_folds(narrow, gain.sum() / tests.sum(), **sizes)
        counted["claims"] += claims(gain, units, wide)
        counted["claims_as_one_test"] += claims(gain, units, narrow)
        counted["claims_on_one_side"] += claims(
            alone, alone_units, interval_of_difference(alone, np.ones(len(alone)), alone_units)
        )
        as_one = interval_by_unit(first, tests, units)
        low, high = widened_for_folds(as_one, first.sum() / tests.sum(), **sizes, least=0.0)
        truth = np.mean(on_further)
        counted["accuracy_held"] += int(low <= truth <= high)
        counted["accuracy_held_as_one_test"] += int(as_one[0] <= truth <= as_one[1])
    case = {"classes": n_classes, "recordings": recordings, "clips": clips, "test_sides": sides, "draws": draws}
    return case | {"own_splits": own_splits} | {name: float(count / draws) for name, count in counted.items()}


def main() -> None:
    rng, found = np.random.default_rng(0), []
    for case, own_splits in [*((case, False) for case in FOLDS), *((case, True) for case in SEEDS)]:
        found.append(one_case(rng, *case, own_splits=own_splits))
        print(found[-1], flush=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
