"""Everything this package raises on purpose; a :class:`UsageError` ends with exit code 2, any other error with 1.

Messages say what was got, what was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from fitrec_cache.wording import listed


class FitrecError(Exception):
    """A problem that the caller should read; the command line prints it and exits with 1."""


class UsageError(FitrecError):
    """Wrong use: unknown names, missing folders, options that contradict each other; exit code 2."""


class ManifestError(UsageError):
    """A list of clips with missing columns, repeated ids or no usable rows."""


class WeightsError(UsageError):
    """Weights that are missing, cannot be fetched or do not fit the backbone."""


class DivergedError(UsageError):
    """A training of which no number is left: its recipe is no good for these features."""


class AllAlikeError(UsageError):
    """Clips by whose likeness near-duplicates cannot be told."""


class VideoError(FitrecError):
    """A clip from which frames cannot be had."""


class StoreError(FitrecError):
    """A cache that cannot be read or written: missing, read-only, full, or of another format version."""


class NoCacheError(UsageError, StoreError):
    """A folder that is not a cache, or not there."""


class StoreCorrupt(StoreError):
    """A stored file whose content is not what was written.

    Attributes:
        reason: What is wrong with the file, without its name and what to do, where only that is said.
    """

    reason: str = ""


class MismatchError(FitrecError):
    """Two pipelines that must be identical differ; the message names each differing field, old -> new."""


def unknown_name(kind: str, got: str, valid: Iterable[str]) -> UsageError:
    """Return the error for an unknown name, with the nearest valid one.

    Args:
        kind: What is named, such as ``variant``.
        got: The name that is not known.
        valid: All names that are.

    Returns:
        The error, to be raised by the caller.

    Example:
        >>> print(unknown_name("preset", "papr", ["native", "paper"]))
        unknown preset 'papr'. Did you mean 'paper'? Expected one of native, paper
    """
    names = sorted(valid)
    near = difflib.get_close_matches(got, names, n=1)
    hint = f". Did you mean '{near[0]}'? Expected" if near else ": expected"
    shown = got if len(got) <= 200 else f"{got[:200]}..."
    return UsageError(f"unknown {kind} '{shown}'{hint} one of {listed(names)}")
