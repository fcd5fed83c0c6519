"""Which model ``learn`` chose, as it is written beside the models of each call."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from fitrec_cache.errors import StoreError
from fitrec_cache.runs.run_files import read_run_json, refused_if_damaged

#: The result of ``learn``, beside the models of one call.
LEARNED = "learn.json"


def chosen_by_learn(folder: Path) -> Path:
    """Return the folder of the model that ``learn`` chose, if ``learn`` made this folder; else the folder itself."""
    taken = dict(map(_read_learned, _learned_in(folder)))
    return taken[max(taken)] if taken else folder


def time_of_last(folder: Path) -> float:
    """Return the time of this call of ``learn`` in seconds since 1970; always later than those of earlier calls.

    This holds even if the clock was set back.
    """
    times = [time.time()]
    for path in _learned_in(folder):
        with suppress(StoreError):  # it may be the one that is about to be replaced
            times.append(_read_learned(path)[0] + 1)
    return max(times)


def _learned_in(folder: Path) -> list[Path]:
    told = (folder / LEARNED, *folder.glob(f"*/{LEARNED}"), *folder.glob(f"runs/*/{LEARNED}"))
    return [path for path in told if path.is_file()]


def _read_learned(path: Path) -> tuple[float, Path]:
    """Return when ``learn`` finished, and the folder of the model that it chose."""
    remedy = "Run the same `learn` again, or name the run folder itself"
    with refused_if_damaged(path, remedy=remedy):
        found = read_run_json(path, remedy=remedy)
        return float(found.get("ended", 0)), path.parent / Path(found["run"]).name
