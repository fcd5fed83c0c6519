"""One progress bar for all long work: lively on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(*, total: int | None, unit: str, what: str, show: bool) -> Any:
    """Return a tqdm bar on standard error: clips a second, time left if ``total`` is known; silent unless ``show``."""
    interval = 0.2 if sys.stderr.isatty() else 15.0
    return tqdm(total=total, unit=unit, desc=what, disable=not show, mininterval=interval, smoothing=0.05)
