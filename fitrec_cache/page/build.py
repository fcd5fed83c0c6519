"""From run folders to one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fitrec_cache import __version__, paper
from fitrec_cache.cache import Cache
from fitrec_cache.errors import UsageError
from fitrec_cache.files import write_atomic
from fitrec_cache.page import words
from fitrec_cache.page.models import Model, gather
from fitrec_cache.page.pictures import Frames, open_frames
from fitrec_cache.page.records import read_records
from fitrec_cache.page.render import GENERATOR, render
from fitrec_cache.page.repeat import how_to
from fitrec_cache.page.views import ModelView, view
from fitrec_cache.params import params

#: Models shown in full; the tables have all.
MOST_MODELS = 4


@dataclass(frozen=True, kw_only=True)
class PageReport:
    """What :func:`report` wrote.

    Attributes:
        out: The file.
        bytes: Its size.
        models: Number of models, each with all its seeds and folds.
        runs: Number of run folders.
        missing: What the page could not show, and why.
    """

    out: str
    bytes: int
    models: int
    runs: int
    missing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self) | {"missing": list(self.missing)}


def report(runs: Sequence[Path], *, out: Path, cache: Path | None = None) -> PageReport:
    """Write one HTML file about trained runs; it loads nothing and opens without network.

    Runs that differ only in seed and fold are one model. Models are ranked by validation, never by test.

    Args:
        runs: Run folders, or folders that hold some.
        out: HTML file to write; an earlier report is replaced, any other file is not.
        cache: The cache the heads were trained on, for the frames; without it the page has none and says so.

    Returns:
        What was written, and what is missing from it.

    Raises:
        UsageError: If there is no run, ``out`` is another file, or ``cache`` is no cache.
        StoreCorrupt: If a run folder is damaged.
        StoreError: If the file cannot be written.
    """
    _check_out(out)
    if cache is not None:
        Cache(cache)
    models = gather(read_records(runs))
    views, missing = _views(models, cache)
    html = render(context(models, views, missing))
    data = html.encode()
    write_atomic(out, data)
    return PageReport(
        out=str(out),
        bytes=len(data),
        models=len(models),
        runs=sum(len(m.records) for m in models),
        missing=tuple(missing),
    )


def _check_out(out: Path) -> None:
    if not out.resolve().parent.is_dir():
        raise UsageError(f"--out {out}: its folder does not exist; make it first")
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: expected a file, such as report.html")
    if out.exists() and GENERATOR.encode() not in out.read_bytes()[:2000]:
        raise UsageError(f"--out {out} exists and is not a report: choose another name")


def _views(models: Sequence[Model], cache: Path | None) -> tuple[list[ModelView], list[str]]:
    """Return the models to show in full, and what they cannot show."""
    views, missing = [], []
    for model in models[:MOST_MODELS]:
        frames = open_frames(model.shown, cache)
        if isinstance(frames, str):
            missing.append(f"No frames of {model.title}: {frames}")
        views.append(view(model, frames if isinstance(frames, Frames) else None))
        if isinstance(frames, Frames) and frames.lost:
            missing.append(
                f"No frames of {words.plural(len(frames.lost), 'clip')} of {model.title}: the cache does not hold "
                f"them or they are damaged, such as {min(frames.lost)}"
            )
        if model.shown.answers is None:
            missing.append(f"No attention and no wrong clips of {model.title}: its run folders have no logits")
        if views[-1].calibration is None:
            missing.append(f"No calibration of {model.title}: its run folders have none")
    if len(models) > MOST_MODELS:
        missing.append(f"{len(models) - MOST_MODELS} further models are in the tables only")
    return views, list(dict.fromkeys(missing))


def context(models: Sequence[Model], views: Sequence[ModelView], missing: Sequence[str]) -> dict[str, Any]:
    """Return everything the template names."""
    splits = list(dict.fromkeys(m.first.split for m in models))
    lead = models[0]
    counts = lead.confusion.sum(axis=1)
    return {
        "version": __version__,
        "title": words.headline(lead),
        "lead": lead,
        "results_finding": words.results_say(models),
        "split_finding": words.split_says(models),
        "chance": float(counts.max() / counts.sum()),
        "models": models,
        "splits": {split: [m for m in models if m.first.split == split] for split in splits},
        "views": views,
        "missing": missing,
        "paper": paper,
        "ours": {row.variant: [m for m in models if m.first.variant == row.variant] for row in paper.TABLE_II},
        "others": [m for m in models if m.first.variant not in {row.variant for row in paper.TABLE_II}],
        "table1": params().variants,
        "heads": _head_sizes(models),
        "recipes": [how_to(model) for model in models],
        "seconds": sum(float(r.metrics["seconds"]) for m in models for r in m.records),
        "words": words,
    }


def _head_sizes(models: Sequence[Model]) -> dict[str, list[int]]:
    """Return how many parameters were trained, by variant."""
    sizes: dict[str, set[int]] = {}
    for model in models:
        sizes.setdefault(model.first.variant, set()).add(int(model.first.metrics["parameters"]))
    return {variant: sorted(found) for variant, found in sizes.items()}
