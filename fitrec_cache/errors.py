"""All exceptions that this package raises on purpose.

A :class:`UsageError` ends the command line with exit code 2, any other error with 1. Messages say what was given, what
was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from fitrec_cache.wording import listed


class FitrecError(Exception):
    """A problem that the caller should read; the command line prints it and exits with 1."""


class UsageError(FitrecError):
    """Wrong use, such as unknown names, missing folders or contradictory options; exit code 2."""


class ManifestError(UsageError):
    """A list of clips with missing columns, repeated ids or no usable rows."""


class WeightsError(UsageError):
    """Weights that are missing, cannot be downloaded or do not fit the backbone."""


class DivergedError(UsageError):
    """A loss, an answer or a normalisation is not finite: the recipe does not suit these features."""


class AllAlikeError(UsageError):
    """Near-duplicates cannot be identified: no threshold can be derived from the clips, or nearly all look alike."""


class VideoError(FitrecError):
    """A clip from which no frames can be obtained."""


class StoreError(FitrecError):
    """A cache that cannot be read or written: missing, read-only, full, or of another format version."""


class NoCacheError(UsageError, StoreError):
    """A folder that does not exist or is not a cache."""


class OtherVersionError(StoreError):
    """A cache, or a part of one, in another version of the format: sound, but not for this version of the program."""


class StoreCorrupt(StoreError):
    """A stored file whose content differs from what was written.

    Attributes:
        reason: What is wrong with the file, without its name or advice, for messages that need only that.
    """

    reason: str = ""


class MismatchError(FitrecError):
    """Two pipelines that must be identical differ; the message names each differing field as old -> new."""


def earlier(error: BaseException) -> list[str]:
    """Return the errors after which another was raised: of several files that cannot be written, all but the last.

    The causes that an error tells itself (``raise ... from``) are left out, and errors after which something else was
    tried.
    """
    cause = error.__cause__
    before = cause or (None if error.__suppress_context__ else error.__context__)
    if before is None:
        return []
    told = [str(before)] if cause is None and isinstance(before, StoreError) else []
    return [*earlier(before), *told]


def unknown_name(kind: str, got: str, valid: Iterable[str]) -> UsageError:
    """Return the error for an unknown name, with a suggestion of the nearest valid one.

    Args:
        kind: The kind of name, such as ``variant``.
        got: The unknown name.
        valid: All valid names.

    Returns:
        The error, for the caller to raise.

    Example:
        >>> print(unknown_name("preset", "papr", ["native", "paper"]))
        unknown preset 'papr'. Did you mean 'paper'? Expected one of native, paper
    """
    names = sorted(valid)
    near = difflib.get_close_matches(got, names, n=1)
    hint = f". Did you mean '{near[0]}'? Expected" if near else ": expected"
    shown = got if len(got) <= 200 else f"{got[:200]}..."
    return UsageError(f"unknown {kind} '{shown}'{hint} one of {listed(names)}")
