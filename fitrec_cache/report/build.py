"""Build one HTML file from run folders; the only module that imports the template library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from fitrec_cache import __version__
from fitrec_cache.cache import Cache
from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import Plain, check_ending, check_writable, refuse_others, write_atomic
from fitrec_cache.compare import CompareReport, compare_runs
from fitrec_cache.errors import FitrecError
from fitrec_cache.extraction.history import Extraction, history
from fitrec_cache.params import params
from fitrec_cache.report import words
from fitrec_cache.report.leaks import Auditor, Leaks
from fitrec_cache.report.models import Model, gather
from fitrec_cache.report.pictures import Frames
from fitrec_cache.report.records import Record, read_records
from fitrec_cache.report.repeat import how_to
from fitrec_cache.report.views import ModelView, view
from fitrec_cache.settings import paper
from fitrec_cache.wording import MANY_CLASSES, count, plural

#: In the head of every page, to distinguish a report from other files.
GENERATOR = '<meta name="generator" content="fitrec-cache'

#: The number of models shown in full; the tables contain all.
MOST_MODELS = 4


@dataclass(frozen=True, kw_only=True)
class PageReport(Plain):
    """The result of :func:`report`.

    Attributes:
        out: The file.
        bytes: Its size.
        models: Number of models, each with all its seeds and folds.
        runs: Number of run folders.
        missing: What the page could not show, and why.
        notes: The notes of the comparison of the models.
    """

    out: Path
    bytes: int
    models: int
    runs: int
    missing: tuple[str, ...]
    notes: tuple[str, ...]


@plain_arguments
def report(
    runs: Sequence[Path],
    *,
    out: Path,
    cache: Path | None = None,
    compared: CompareReport | None = None,
    progress: bool = False,
) -> PageReport:
    """Write one HTML file about trained runs; it loads nothing else and opens without network.

    Runs that differ only in seed and fold are one model. Models are ranked by validation, never by test.

    Args:
        runs: Run folders, or folders that contain run folders.
        out: HTML file to write; an earlier report is replaced, any other file is refused.
        cache: The cache the heads were trained on, for frames and the audit; if None, the page says that they are
            missing.
        compared: The comparison of these runs to show; None: all comparable models are compared.
        progress: Show progress bars on standard error.

    Returns:
        What was written, and what is missing from it.

    Raises:
        UsageError: If there is no run, ``out`` is another file, or ``cache`` is no cache.
        StoreCorrupt: If a run folder is damaged.
        StoreError: If the file cannot be written.
    """
    check_ending(out, "--out", ".html", ".htm")
    check_writable(out, "--out")
    refuse_others(out, "--out", GENERATOR, "a report")
    opened = None if cache is None else Cache(cache)
    records = read_records(runs)
    models = gather(records)
    if compared is None:
        compared = compare_runs(records)
    seen = _Seen(models, opened, progress=progress)
    data = _render(context(seen, compared)).encode()
    write_atomic(out, data)
    return PageReport(
        out=out,
        bytes=len(data),
        models=len(models),
        runs=sum(len(m.runs) for m in models),
        missing=tuple(seen.missing),
        notes=tuple(compared.notes),
    )


class _Seen:
    """What the page is built from.

    Attributes:
        history: Earlier extractions.
        audits: The audit of each split, by its rule.
        sure: The splits of which it is sure enough that they leak.
        leaky: The splits that leak, according to their runs' groups or to their audit.
        models: The models in the order of the page: those on leaky splits come last.
        views: The models shown in full.
        missing: What cannot be shown, and why.
    """

    def __init__(self, models: Sequence[Model], cache: Cache | None, *, progress: bool) -> None:
        self._auditor = None if cache is None else Auditor(cache, progress=progress)
        self._frames_of: dict[int, Frames | None] = {}
        self.history: Sequence[Extraction] = history(cache.folder) if cache else ()
        self.views: list[ModelView] = []
        self.missing: list[str] = []
        if cache is None:
            self.missing.append("No frames and no audit of the split by likeness: no cache was given (--cache DIR)")
        self.audits = self._audits(models)
        self.sure = {run.split for model in models for run in model.runs if run.sharing}
        self.sure |= {split for split, found in self.audits.items() if found.verdict.sure}
        suspected = {split for split, found in self.audits.items() if found.verdict.leaks}
        self.leaky = [s for s in dict.fromkeys(m.split for m in models) if s in self.sure | suspected]
        self.models = sorted(models, key=lambda m: m.split in self.leaky)
        for model in self.models[:MOST_MODELS]:
            frames = self._frames(model)
            self.views.append(view(model, frames))
            self.missing.extend(_lost_frames(model, frames))
        if len(models) > MOST_MODELS:
            more = plural(len(models) - MOST_MODELS, "further model is", "further models are")
            self.missing.append(f"{more} in the tables only")

    def _audits(self, models: Sequence[Model]) -> dict[str, Leaks]:
        """Return the audit of each split; splits that cannot be audited are added to the missing items."""
        found: dict[str, Leaks] = {}
        for rule in dict.fromkeys(m.split for m in models):
            if self._auditor is not None:
                those = [m for m in models if m.split == rule]
                frames = self._frames(those[0])
                with self._or_missing(f"No audit of split {rule} by likeness"):
                    found[rule] = self._auditor.audit([r for m in those for r in m.runs], frames)
        return found

    def _frames(self, model: Model) -> Frames | None:
        """Return the frames of a model; always the same object, because it records which frames were lost."""
        if self._auditor is not None and id(model) not in self._frames_of:
            self._frames_of[id(model)] = None
            with self._or_missing(f"No frames of {model.name}"):
                self._frames_of[id(model)] = self._auditor.frames(model.shown)
        return self._frames_of.get(id(model))

    @contextmanager
    def _or_missing(self, what: str) -> Iterator[None]:
        """Continue if something cannot be shown, and record why."""
        try:
            yield
        except FitrecError as error:
            self.missing.append(f"{what}: {error}")


def _lost_frames(model: Model, frames: Frames | None) -> list[str]:
    if frames is None or not frames.lost:
        return []
    return [
        f"No frames of {plural(len(frames.lost), 'clip')} of {model.name}: the cache does not hold them, or another "
        f"video by now, or they are damaged, such as {min(frames.lost)}"
    ]


def context(seen: _Seen, compared: CompareReport) -> dict[str, Any]:
    """Return all variables of the template."""
    models, audits, leaky, sure = seen.models, seen.audits, seen.leaky, seen.sure
    splits = list(dict.fromkeys(m.split for m in models))
    audited = [split for split, found in audits.items() if found.looked]
    lead = models[0]
    counts = lead.confusion.sum(axis=1)
    beside = any(_is_like_the_papers(model.first) for model in models)
    return {
        "version": __version__,
        "title": words.headline(lead, leaky),
        "lead": lead,
        "results_finding": words.results_say(models, compared.pairs),
        "split_finding": words.split_says(models, leaky, sure, audited),
        "chance": float(counts.max() / counts.sum()),
        "models": models,
        "lead_has_many": len(lead.first.labels) >= MANY_CLASSES,
        "many_classes": max(len(m.first.labels) for m in models) >= MANY_CLASSES,
        "splits": {split: [m for m in models if m.split == split] for split in splits},
        "views": seen.views,
        "pairs": compared.pairs,
        "compared_notes": compared.notes,
        "audits": audits,
        "audited": audited,
        "leaky": leaky,
        "sure": sure,
        "missing": seen.missing,
        "paper": paper if beside else None,
        "ours": {row.variant: [m for m in models if m.first.variant == row.variant] for row in paper.TABLE_II},
        "others": [m for m in models if m.first.variant not in {row.variant for row in paper.TABLE_II}],
        "table1": params().variants if beside else [],
        "heads": _head_sizes(models),
        "recipes": [how_to(model, number) for number, model in enumerate(models, start=1)],
        "seconds": sum(float(r.metrics["seconds"]) for m in models for r in m.runs),
        "history": seen.history,
        "words": words,
    }


def _is_like_the_papers(run: Record) -> bool:
    """Say whether a run has the paper's recipe, preprocessing or number of classes."""
    papers = not {"paper", "table1"}.isdisjoint(run.model_settings["preset"].split("+"))
    return papers or run.run_json["recipe"] == "paper" or len(run.labels) == paper.CLASSES


def _head_sizes(models: Sequence[Model]) -> dict[str, list[int]]:
    """Return how many parameters were trained, by variant."""
    sizes: dict[str, set[int]] = {}
    for model in models:
        sizes.setdefault(model.first.variant, set()).add(int(model.first.metrics["parameters"]))
    return {variant: sorted(found) for variant, found in sizes.items()}


def _render(context: Mapping[str, Any]) -> str:
    """Return the template filled with all of its variables; all inserted values are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fitrec_cache.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plain = (words.percent, words.spread, count, plural, words.duration)
    environment.filters |= {function.__name__: function for function in plain}
    return environment.get_template("page.html").render(context)
