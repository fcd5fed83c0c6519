"""Find clips that look like one recording, from cached embeddings alone.

Clips are compared by the cosine of their mean embeddings over T frames, minus the mean over all clips.

A pair counts as near-duplicate if it passes two criteria, both derived from the data:

1. *Strangers.* The nearest neighbour of a clip among clips of other classes should not be from the same recording. The
   log distances (1 - cosine) to the nearest strangers are summarised by median and median absolute deviation, which
   tolerate a minority of outliers. A pair must be more than 2.5 robust standard deviations below the median.
2. *Halves.* The first and the second half of a clip are certainly one recording. A pair must reach the similarity that
   the two halves reach in nine clips out of ten.

The first criterion separates clips that merely come from similar rooms. The second matters if classes or clips are so
different that everything else looks close. Neither needs groups, and both estimate how often the threshold is wrong: by
the share of clips that find their own other half, and the share that find a stranger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fitrec_cache.common.progress import progress_bar
from fitrec_cache.errors import AllAlikeError, UsageError

SIGMAS = 2.5
"""A pair must be this many robust standard deviations closer than nearest strangers usually are: the value recommended
by Leys et al., Journal of Experimental Social Psychology 49 (2013), 764-766, for outliers by median absolute
deviation."""

HALVES_MISSED = 0.1
"""Share of clips whose two halves may be less similar than the threshold."""

MOST_PAIRS = 2_000_000
"""The greatest number of pairs that are listed."""

_CELLS = 2**25  # cells of the similarity matrix that are computed at a time: 128 MiB
_MAD_TO_SD = 1.4826  # for a normal distribution
_TINY = 1e-6

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Embeddings:
    """One vector per clip, comparable by dot product.

    Attributes:
        vectors: float32 ``(N, d)``, each of length 1 (0 for a clip that is exactly the mean of all).
        halves: Cosine similarity of the two halves of each clip, float32 ``(N,)``; empty if T is 1.
    """

    vectors: FloatArray
    halves: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class NearDuplicates:
    """Pairs of clips that look like one recording.

    Attributes:
        threshold: Least cosine of a pair, in ``[-1, 1]``.
        pairs: Clip numbers, int64 ``(M, 2)``, the smaller one first in each; the most similar pair first.
        similarity: Cosine of each pair, float32 ``(M,)``.
        halves_found: Share of clips whose two halves reach the threshold: an upper bound for the share of true pairs
            that are found, and 90 % or slightly more if the halves determine the threshold; None if T is 1.
        strangers_found: Share of clips that form such a pair with a clip of another class: false alarms, unless one
            recording occurs in two classes. False alarms within a class cannot be counted. None if no clip has a
            stranger.
    """

    threshold: float
    pairs: IntArray
    similarity: FloatArray
    halves_found: float | None
    strangers_found: float | None


@np.errstate(over="ignore", invalid="ignore")  # too large values are refused later, when the threshold is computed
def embed(blocks: Iterator[NDArray[Any]] | Sequence[NDArray[Any]]) -> Embeddings:
    """Reduce the features of clips to one vector each.

    Args:
        blocks: Features in the order of the clips, ``(n, T, d)`` each, or frames ``(n, T, h, w, 3)``; only two vectors
            per clip are kept.

    Returns:
        The vectors of all N clips.
    """
    means = [_half_means(block) for block in blocks]
    steps, halves = means[0][0], np.concatenate([m for _, m in means])  # (N, 2, d)
    del means
    weights = np.array([steps - steps // 2, steps // 2], dtype=np.float32) / steps
    halves -= np.einsum("nhd,h->d", halves, weights, dtype=np.float32) / len(halves)
    vectors = _unit(np.einsum("nhd,h->nd", halves, weights))
    alike = np.einsum("nd,nd->n", _unit(halves[:, 0]), _unit(halves[:, 1])) if steps > 1 else np.empty(0, np.float32)
    return Embeddings(vectors=vectors, halves=alike.astype(np.float32))


def find_near_duplicates(
    embeddings: Embeddings,
    *,
    labels: Sequence[str],
    groups: Sequence[str | None],
    threshold: float | None = None,
    progress: bool = False,
) -> NearDuplicates:
    """Find the pairs of clips that look like one recording.

    Time grows with N squared times d (1,332 clips of 2048 values: 0.2 CPU-seconds), memory with N times d.

    Args:
        embeddings: The embeddings of N clips.
        labels: Class of each clip, length N.
        groups: Recording each clip was cut from, length N, None where unknown.
        threshold: Least cosine of a pair, in ``(-1, 1]``; None to derive it from the data (see the module docstring).
        progress: Show a progress bar on standard error.

    Returns:
        The pairs, and estimates of how reliable the threshold is.

    Raises:
        AllAlikeError: If no threshold can be derived from the data, or too many pairs reach it.
        UsageError: If the threshold is out of range.
    """
    if threshold is not None and not -1 < threshold <= 1:
        raise UsageError(f"threshold is {threshold}: expected a cosine above -1 and up to 1, such as 0.95")
    label, group = _codes(labels), _codes(groups)
    what = "look for near-duplicates"
    with progress_bar(total=2 * len(label), unit="clip", what=what, show=progress, after=1) as bar:
        strangers = _nearest_strangers(embeddings.vectors, label, group, bar.update)
        least = _threshold(strangers, embeddings.halves) if threshold is None else threshold
        enough = min(least, 1 - _TINY)  # in float32 the cosine of a copy is not always 1
        pairs, similarity = _pairs(embeddings.vectors, enough, bar.update)
    return NearDuplicates(
        threshold=least,
        pairs=pairs,
        similarity=similarity,
        halves_found=float((embeddings.halves >= enough).mean()) if len(embeddings.halves) else None,
        strangers_found=float((strangers >= enough).sum() / len(label)) if len(strangers) else None,
    )


def clusters(n_clips: int, pairs: IntArray, groups: Sequence[str | None]) -> IntArray:
    """Return which clips belong together, connected by near-duplicates or by known groups.

    Args:
        n_clips: Number of clips, N.
        pairs: Clip numbers, ``(M, 2)``.
        groups: Recording each clip was cut from, length N, None where unknown.

    Returns:
        Cluster number of each clip, int64 ``(N,)``, from 0 in the order of each cluster's first clip.

    Example:
        >>> clusters(5, np.array([[0, 3]]), [None, "a", "b", "a", None]).tolist()
        [0, 0, 1, 0, 2]
    """
    first: dict[str, int] = {}
    known = [(first.setdefault(g, i), i) for i, g in enumerate(groups) if g is not None]
    joined = np.concatenate([pairs.reshape(-1, 2), np.array(known, dtype=np.int64).reshape(-1, 2)])
    graph = coo_array((np.ones(len(joined)), (joined[:, 0], joined[:, 1])), shape=(n_clips, n_clips))
    _, found = connected_components(graph, directed=False)
    _, seen, inverse = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(seen))[inverse].astype(np.int64)


def _half_means(block: NDArray[Any]) -> tuple[int, FloatArray]:
    """Return T and the means of each clip's first and second half, ``(n, 2, d)``; frames are reduced in size first."""
    if block.ndim == 5:
        n, t, h, w, c = block.shape
        block = block.reshape(n, t, h // 4, 4, w // 4, 4, c).mean(axis=(3, 5), dtype=np.float32).reshape(n, t, -1)
    n, steps, dim = block.shape
    middle = steps - steps // 2
    out = np.empty((n, 2, dim), dtype=np.float32)
    for i, clip in enumerate(block):  # clip by clip: converting the whole block would double its memory
        wide = clip.astype(np.float32)
        out[i, 0] = wide[:middle].mean(axis=0)
        out[i, 1] = wide[middle:].mean(axis=0) if middle < steps else out[i, 0]
    return steps, out


def _unit(x: FloatArray) -> FloatArray:
    largest = np.maximum(np.abs(x).max(axis=-1, keepdims=True), _TINY)
    scaled: FloatArray = np.divide(x, largest)  # otherwise squares could be infinite
    np.divide(scaled, np.maximum(np.linalg.norm(scaled, axis=-1, keepdims=True), _TINY), out=scaled)
    return scaled


def _codes(names: Sequence[str | None]) -> IntArray:
    """Return a number for each name, -1 for None."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(n for n in names if n is not None))}
    return np.array([-1 if name is None else numbers[name] for name in names], dtype=np.int64)


def _rows(n_clips: int) -> Iterator[tuple[int, int]]:
    step = max(1, _CELLS // n_clips)
    return ((start, min(start + step, n_clips)) for start in range(0, n_clips, step))


def _nearest_strangers(
    vectors: FloatArray, label: IntArray, group: IntArray, advance: Callable[[int], object]
) -> FloatArray:
    """Return the cosine to the nearest stranger, for each clip that has one."""
    nearest = np.empty(len(vectors), dtype=np.float32)
    for start, stop in _rows(len(vectors)):
        similarity = vectors[start:stop] @ vectors.T  # (rows, N)
        same_group = (group[start:stop, None] == group[None]) & (group[None] >= 0)
        similarity[same_group | (label[start:stop, None] == label[None])] = -2
        nearest[start:stop] = similarity.max(axis=1)
        advance(stop - start)
    return nearest[nearest > -2]


def _threshold(strangers: FloatArray, halves: FloatArray) -> float:
    """Return the stricter of the two thresholds described in the module docstring."""
    found = []
    if len(halves):
        found.append(float(np.quantile(halves, HALVES_MISSED, method="lower")))
    if len(strangers):
        distance = np.log(np.maximum(1 - strangers.astype(np.float64), _TINY))
        middle = np.median(distance)
        spread = _MAD_TO_SD * np.median(np.abs(distance - middle))
        found.append(float(1 - np.exp(middle - SIGMAS * spread)))
    if not found:
        raise AllAlikeError("no threshold can be taken from clips of one class with one frame each: give a --threshold")
    if not np.isfinite(found).all():
        raise AllAlikeError("features are too large to be compared: scale them")
    return max(found)


def _pairs(vectors: FloatArray, least: float, advance: Callable[[int], object]) -> tuple[IntArray, FloatArray]:
    """Return all pairs with a cosine of at least ``least``, and their cosines, the most similar first."""
    n, total = len(vectors), 0
    pairs, similarities = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for start, stop in _rows(n):
        similarity = vectors[start:stop] @ vectors[start:].T  # (rows, N - start)
        row, column = np.nonzero(similarity >= least)
        later = column > row
        row, column = row[later], column[later]
        total += len(row)
        if total > MOST_PAIRS:
            raise AllAlikeError(
                f"more than {MOST_PAIRS:,} pairs of {n} clips have a similarity of {least:.3f} or more: "
                "nearly all clips look alike. Give a higher --threshold"
            )
        pairs.append(np.stack([row, column], axis=1) + start)
        similarities.append(similarity[row, column])
        advance(stop - start)
    found, similarity = np.concatenate(pairs), np.concatenate(similarities)
    order = np.lexsort((found[:, 1], found[:, 0], -similarity))
    return found[order].astype(np.int64), similarity[order]
