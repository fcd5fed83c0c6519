"""Models of the page: runs that differ only in seed and fold, taken together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.dataset.rules import rule_of
from fitrec_cache.evaluation.metrics import Metrics
from fitrec_cache.evaluation.paired import count_right
from fitrec_cache.report.records import Record
from fitrec_cache.runs import scored
from fitrec_cache.runs.results import average_runs, figures_of


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """How often the clips of one class were recognised, over all runs."""

    label: str
    n: int
    recall: float
    low: float
    high: float
    taken_for: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Model(scored.Model[Record]):
    """All runs of one model with one split rule, with the figures that the page shows."""

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Clip counts over all runs, ``(K, K)``; row = true class."""
        total: NDArray[np.int64] = np.sum([each.confusion for each in self.rates.values()], axis=0)
        return total

    @cached_property
    def n_distinct(self) -> int:
        """Number of distinct test clips over all runs."""
        return len(self.per_clip[2])

    @property
    def unit(self) -> str:
        """The kind of statistical unit of test clips; see :func:`fitrec_cache.dataset.rules.units_of_run`."""
        return "fold" if rule_of(self.first.split).by_fold else "group"

    @property
    def times_tested(self) -> float:
        """In how many runs a clip was tested, on average."""
        return float(self.per_clip[1].mean())

    @cached_property
    def rates(self) -> dict[int, Metrics]:
        """Metrics of each seed."""
        return {seed: figures_of(records) for seed, records in self.by_seed.items()}

    def mean(self, name: str) -> float:
        """Return the mean of a metric over the seeds, weighted by their number of test clips."""
        rates = self.rates.values()
        return float(np.average([getattr(r, name) for r in rates], weights=[r.n for r in rates]))

    def deviation(self, name: str) -> float | None:
        """Return the standard deviation over the seeds (n - 1); None for one seed."""
        values = [getattr(rates, name) for rates in self.rates.values()]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    @cached_property
    def ensemble(self) -> dict[str, Any]:
        """Metrics of the joint answer of all seeds, as in ``train-head``; empty if there is none."""
        return average_runs(self.runs)[0]

    @cached_property
    def n_units(self) -> int:
        """Number of recordings of the test clips (folds under ``leave-one``); clips of unknown group count singly."""
        return len(set(self.per_clip[2].values()))

    def interval_of(self, kinds: Sequence[NDArray[np.int64]], kind: int) -> tuple[float, float]:
        """Return the 95 % interval of the accuracy of the answers of one kind.

        Args:
            kinds: A number for each test clip of each run, such as its class.
            kind: The kind of interest; at least one clip must have it.
        """
        tests = [_tested(r, np.flatnonzero(k == kind)) for r, k in zip(self.runs, kinds, strict=True)]
        return scored.interval_over(self.runs, count_right(tests))

    @property
    def val_loss(self) -> float:
        """Mean validation loss at the kept epochs; it ranks models with equal validation accuracy."""
        return float(np.mean([record.best["val_loss"] for record in self.runs]))

    @property
    def shown(self) -> Record:
        """The run with the lowest validation loss; its pictures are shown."""
        return min(self.runs, key=lambda record: record.best["val_loss"])

    def classes(self) -> list[ClassRow]:
        """Return the results of each class, best first; classes without a test clip are left out."""
        labels, rows = self.first.labels, []
        truth = [record.tested.targets for record in self.runs]
        for k, label in enumerate(labels):
            counts = self.confusion[k]
            if not counts.sum():
                continue
            recall = float(counts[k] / counts.sum())
            n = len({r.clips[i] for r in self.runs for i in np.flatnonzero(r.tested.targets == k).tolist()})
            low, high = self.interval_of(truth, k)
            wrong = counts.copy()
            wrong[k] = 0
            taken = labels[int(wrong.argmax())] if wrong.any() else ""
            rows.append(ClassRow(label=label, n=n, recall=recall, low=low, high=high, taken_for=taken))
        return sorted(rows, key=lambda row: (-row.recall, row.label))

    def worst_pairs(self, most: int) -> list[tuple[int, int, int]]:
        """Return up to ``most`` confusions as (true class, predicted class, times), most frequent first."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        rows, columns = np.unravel_index(order, wrong.shape)
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return [(i, j, int(wrong[i, j])) for i, j in pairs if wrong[i, j]]


def _tested(record: Record, rows: NDArray[np.int64]) -> tuple[list[str], list[str], NDArray[np.bool_]]:
    """Return selected test clips of a run: ids, units, and whether each was recognised."""
    return [record.clips[i] for i in rows], [record.units[i] for i in rows], record.right[rows]


def gather(records: Sequence[Record]) -> list[Model]:
    """Group the runs that differ only in seed and fold, as ``compare`` does.

    Returns:
        Models by split rule in the order given, except that rules with groups on both sides come last. Within a rule,
        models with more classes come first, because fewer classes are easier; then by mean validation accuracy, best
        first.
    """
    leaky = {record.split for record in records if record.sharing}
    splits = sorted(dict.fromkeys(record.split for record in records), key=lambda split: split in leaky)
    models = [Model(runs=model.runs, apart=model.apart) for model in scored.gather_models(records)[0]]
    return sorted(models, key=lambda m: (splits.index(m.split), -len(m.first.labels), -m.val_accuracy, m.val_loss))
