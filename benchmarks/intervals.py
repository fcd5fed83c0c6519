"""How often 95 % intervals hold the truth, where clips of a recording are alike: of an accuracy, and of a difference.

    python benchmarks/intervals.py

Simulated: each recording has accuracies of its own, from beta distributions, one a model; ``alike`` is the share of the
variance that recordings explain. Beside the intervals of `train-head` and `compare`, a bootstrap that draws recordings.
"""

from __future__ import annotations

import numpy as np

from fitrec_cache.evaluation.metrics import interval_by_unit
from fitrec_cache.evaluation.paired import interval_of_difference

DRAWS, RESAMPLES = 250, 2000
SIZES = {
    "9 of 2 to 7 clips": lambda rng: rng.integers(2, 8, 9),
    "10 of 2 to 7 clips": lambda rng: rng.integers(2, 8, 10),
    "14 of 2 to 7 clips": lambda rng: rng.integers(2, 8, 14),
    "25 of 2 to 7 clips": lambda rng: rng.integers(2, 8, 25),
    "30 of 40 clips": lambda _: np.full(30, 40),
    "100 of 3 clips": lambda _: np.full(100, 3),
    "240 of 1 to 3 clips": lambda rng: rng.integers(1, 4, 240),
    "30, three hold most": lambda rng: np.r_[604, 250, 190, rng.integers(3, 22, 27)],
}
#: Accuracies of two models; the first is that whose own interval is looked at.
ACCURACIES = ((0.2, 0.2), (0.5, 0.35), (0.85, 0.8), (0.97, 0.95))


def bootstrap(values, sizes, units, rng):
    """Return the percentile interval of the mean of ``values``, where whole recordings are drawn again."""
    sums = np.bincount(units, values)
    drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=RESAMPLES)
    return np.quantile((drawn @ sums) / (drawn @ sizes), (0.025, 0.975))


def recognised(accuracy, alike, units, rng):
    """Return whether each clip is recognised by a model, as 1.0 or 0.0."""
    spread = (1 - alike) / alike
    own = rng.beta(accuracy * spread, (1 - accuracy) * spread, units[-1] + 1)
    return (rng.random(len(units)) < own[units]).astype(np.float64)


def agreeing(rng) -> None:
    """Say how often the interval of a difference holds the truth where only one model is right in few single clips."""
    for n, share in ((100, 0.03), (100, 0.04), (200, 0.015), (50, 0.06), (324, 0.01)):
        names, once, held = [str(i) for i in range(n)], np.ones(n), 0
        for _ in range(2000):
            low, high = interval_of_difference((rng.random(n) < share).astype(np.float64), once, names)
            held += low <= share <= high
        print(f"{n} single clips, {share} of which only one model has right: difference {held / 2000:.2f}", flush=True)


def main() -> None:
    rng = np.random.default_rng(0)
    agreeing(rng)
    for name, draw in SIZES.items():
        for one, other in ACCURACIES:
            for alike in (0.05, 0.2, 0.5):
                held, width = {}, {}
                for _ in range(DRAWS):
                    units = np.repeat(np.arange(len(sizes := draw(rng))), sizes)
                    names, once = units.astype(str).tolist(), np.ones(len(units))
                    right = recognised(one, alike, units, rng)
                    gain = right - recognised(other, alike, units, rng)
                    found = {
                        "accuracy": (one, interval_by_unit(right, once, names)),
                        "accuracy, bootstrap": (one, bootstrap(right, sizes, units, rng)),
                        "difference": (one - other, interval_of_difference(gain, once, names)),
                        "difference, bootstrap": (one - other, bootstrap(gain, sizes, units, rng)),
                    }
                    for way, (truth, (low, high)) in found.items():
                        held[way] = held.get(way, 0) + (low <= truth <= high) / DRAWS
                        width[way] = width.get(way, 0) + (high - low) / DRAWS
                told = "; ".join(f"{way} {held[way]:.2f} (width {width[way]:.2f})" for way in held)
                print(f"{name}, {one} and {other}, alike {alike}: {told}", flush=True)


if __name__ == "__main__":
    main()
