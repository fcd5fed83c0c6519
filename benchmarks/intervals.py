"""How often 95 % intervals of an accuracy hold the true one, where clips of a recording are alike.

    python benchmarks/intervals.py

Simulated: each recording has an accuracy of its own, from a beta distribution; ``alike`` is the share of the variance
that recordings explain. Beside the interval of `train-head`, a bootstrap that draws recordings.
"""

from __future__ import annotations

import numpy as np

from fitrec_cache.metrics import interval_by_unit
from fitrec_cache.paired import bootstrap_interval

DRAWS = 250
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


def main() -> None:
    rng = np.random.default_rng(0)
    ways = {"interval_by_unit": interval_by_unit, "bootstrap": bootstrap_interval}
    for name, sizes in SIZES.items():
        for accuracy in (0.2, 0.5, 0.85):
            for alike in (0.05, 0.2, 0.5):
                held, width = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0.0)
                for _ in range(DRAWS):
                    units = np.repeat(np.arange(len(n := sizes(rng))), n)
                    spread = (1 - alike) / alike
                    own = rng.beta(accuracy * spread, (1 - accuracy) * spread, len(n))
                    right = (rng.random(len(units)) < own[units]).astype(np.float64)
                    for way, interval in ways.items():
                        low, high = interval(right, np.ones(len(units)), units.astype(str).tolist())
                        held[way] += low <= accuracy <= high
                        width[way] += high - low
                told = ", ".join(f"{w} {held[w] / DRAWS:.2f} (width {width[w] / DRAWS:.2f})" for w in ways)
                print(f"{name}, accuracy {accuracy}, alike {alike}: {told}", flush=True)


if __name__ == "__main__":
    main()
