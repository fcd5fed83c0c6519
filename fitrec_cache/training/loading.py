"""Load the training data into memory: cached features, a file of features, or small frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from reprlib import repr as shown
from typing import Any

import numpy as np
import torch

from fitrec_cache.cache import Cache
from fitrec_cache.dataset.clips import UNKNOWN, one_spelling
from fitrec_cache.dataset.find_clips import choose_classes
from fitrec_cache.errors import UsageError, unknown_name
from fitrec_cache.features import Features, as_ours, cached_backbones, load_cached
from fitrec_cache.pack import read_pack
from fitrec_cache.settings.variants import VARIANTS
from fitrec_cache.training.pixels import load_pixels
from fitrec_cache.wording import plural


def load_clips(
    cache: Path | None,
    features: Path | Features | None,
    variant: str,
    backbone: Sequence[str],
    preset: str | None,
    *,
    classes: str | None = None,
    unknown: Sequence[str] = (),
    progress: bool,
) -> Features:
    """Load the data that a variant is trained on; the arguments are those of :func:`fitrec_cache.train.train_head`.

    If only some ``classes`` are asked for, the clips of the ``unknown`` classes are loaded with them.

    Raises:
        UsageError: If the arguments contradict each other, the backbone is not cached, or a class does not exist.
        StoreError: If the cache or file cannot be read.
    """
    if cache is None and features is not None:
        if backbone or preset:
            raise UsageError("features are given: leave --backbone and --preset out, which choose from a cache")
        if not isinstance(features, Path | Features):
            raise UsageError(f"features is a {type(features).__name__}: expected a file, or a features.Features")
        data = _as_given(features) if isinstance(features, Features) else read_pack(features)
        _check_fit(data, variant)
    elif cache is None or features is not None:
        raise UsageError("give either --cache DIR or --features FILE")
    elif VARIANTS[variant].takes_pixels:
        if backbone or preset:
            raise UsageError(f"variant {variant} learns from the frame store: leave --backbone and --preset out")
        data = load_pixels(Cache(cache), progress=progress)
    else:
        data = _load_backbones(Cache(cache), variant, backbone, preset, progress)
    return data if classes is None else _only_classes(data, classes, also=unknown)


def _as_given(data: Features) -> Features:
    """Normalise clips that a caller built in memory to what a file would give; raises the errors of :func:`as_ours`."""
    if missing := [name for name in ("values", "clip_ids", "labels") if getattr(data, name) is None]:
        raise UsageError(f"features in memory: {missing[0]} is None, expected one of each for every clip")
    told: dict[str, Any] = {
        "name": data.name or "features",
        "clip_ids": [str(_single(name)) for name in data.clip_ids],
        "labels": [_as_text(label) or "" for label in data.labels],
        "groups": [_as_text(group) for group in data.groups],
        "extra": [{name: _as_text(value) or "" for name, value in each.items()} for each in data.extra],
    }
    same = all(isinstance(given := getattr(data, name), type(each)) and given == each for name, each in told.items())
    found = as_ours(data if same else replace(data, **told), "in memory")
    return found.by_id()  # sorted, because results must not depend on the order of clips


def _as_text(value: object) -> str | None:
    """Return a name, which may be a number, as text; None for missing values, such as NaN or NA in tables."""
    value = _single(value)
    if value is None or type(value).__name__ == "NAType":  # pandas' NA == NA is neither True nor False
        return None
    return str(value) if value == value else None  # NaN, NaT and the like differ from themselves


def _single(value: object) -> object:
    """Return a name or number; the number in a tensor, whose text would be ``tensor(0)``.

    Raises:
        UsageError: If it is an array, such as a row of one-hot labels.
    """
    value = value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else value
    if isinstance(value, list):
        raise UsageError(f"features in memory: got {shown(value)} for one clip, expected one name or number")
    return value


def _check_fit(data: Features, variant: str) -> None:
    """Raise UsageError for clips that a variant cannot be trained on."""
    pixels = VARIANTS[variant].takes_pixels
    if data.values.ndim != (5 if pixels else 3):
        wanted = "frames (N, T, 64, 64, 3), which --cache DIR has" if pixels else "features (N, T, d)"
        flat = ". Give values.reshape(N, T, -1), one vector for each frame" * (not pixels and data.values.ndim == 4)
        raise UsageError(f"variant {variant} learns from {wanted}: got values of shape {data.values.shape}{flat}")


def _only_classes(data: Features, classes: str, *, also: Sequence[str] = ()) -> Features:
    """Return the clips of some classes, and of those in ``also``; raises the errors of :func:`choose_classes`."""
    wanted, notes = choose_classes(data.labels, classes)
    some = data.take(np.flatnonzero(np.isin(np.array(data.labels), [*wanted, *map(one_spelling, also)])))
    left = len(data.clip_ids) - len(some.clip_ids)
    told = [f"{plural(left, 'clip')} of other classes left out, as asked by --classes"] if left else []
    return replace(some, notes=[*data.notes, *notes, *told])


def refuse_answer(labels: Iterable[str]) -> None:
    """Raise UsageError if a class is named like the answer "unknown"."""
    if answers := [each for each in set(labels) if each.casefold() == UNKNOWN]:
        raise UsageError(
            f"class '{answers[0]}' could not be told from the answer that no class is probable enough: give it another "
            f"name, such as other, or keep it apart by train-head --unknown {answers[0]}"
        )


def keep_apart(data: Features, unknown: Sequence[str]) -> tuple[Features, Features | None]:
    """Split the clips into those of known classes and those of held-out classes, which are to be "unknown".

    Raises:
        UsageError: If a class does not exist, or a known class is named like the answer "unknown".
    """
    unknown = [one_spelling(name) for name in unknown]
    for name in unknown:
        if name not in data.labels:
            raise unknown_name("class", name, sorted(set(data.labels)))
    refuse_answer(set(data.labels) - set(unknown))
    if not unknown:
        return data, None
    strange = np.isin(np.array(data.labels), list(unknown))
    return data.take(np.flatnonzero(~strange)), data.take(np.flatnonzero(strange))


def _load_backbones(cache: Cache, variant: str, wanted: Sequence[str], preset: str | None, progress: bool) -> Features:
    """Load the requested features; by default those of the variant's own backbone, or of the only one cached."""
    default = VARIANTS[variant].backbone
    cached = cached_backbones(cache)
    if wanted or default in cached or not cached:
        return load_cached(cache, wanted or (default,), preset=preset, progress=progress)
    if len(cached) > 1:
        raise UsageError(
            f"variant {variant} takes {default} unless told otherwise, and {cache.folder} holds features of "
            f"{', '.join(cached)}: choose with --backbone"
        )
    only = cached[0]
    found = load_cached(cache, (only,), preset=preset, progress=progress)
    found.notes.append(f"features of {default}, this variant's own, are not cached: {only} is used")
    return found
