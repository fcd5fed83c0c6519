"""How the outputs of one or several heads become a single answer: calibration and the threshold for "unknown"."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fitrec_cache.common.files import canonical_json, write_json
from fitrec_cache.dataset.units import validation_units
from fitrec_cache.evaluation.calibration import Calibration, calibrate
from fitrec_cache.runs.outputs import read_outputs
from fitrec_cache.runs.run import Run
from fitrec_cache.runs.run_files import refused_if_damaged
from fitrec_cache.runs.scored import ScoredRun

#: Key in ``run.json``: the calibration of the mean over this and other seeds, and the list of those seeds.
KEPT = "together"


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """How the outputs of several heads, or of one, become a single answer.

    Attributes:
        single: The calibration of each head.
        mean: The calibration of the mean of their calibrated probabilities. None for a single head, and for heads with
            different validation clips, because then a clip that validates one head may have trained another.
        threshold: If given, it replaces the fitted thresholds: a clip is "unknown" if no class has this probability,
            in [0, 1].
    """

    single: tuple[Calibration, ...]
    mean: Calibration | None = None
    threshold: float | None = None

    @classmethod
    def of(
        cls, folders: Sequence[Path], settings: Sequence[Mapping[str, Any]], *, threshold: float | None = None
    ) -> Ensemble:
        """Return how the heads of these runs answer together.

        The calibration of the mean is the one stored after training; if there is none, it is fitted here, on the
        validation clips.

        Args:
            folders: Run folders of one model.
            settings: The content of the ``run.json`` of each.
            threshold: As in the class description.

        Raises:
            StoreCorrupt: If required outputs are damaged or missing.

        Source:
            Rahaman and Thiery, "Uncertainty quantification and deep ensembles", NeurIPS 2021: a mean of calibrated
            probabilities is not calibrated but underconfident, so it needs a temperature of its own.
        """
        single = tuple(Calibration.of(s) for s in settings)
        apart = cls(single=single, threshold=threshold)
        if (kept := _kept(folders, settings)) is not None:
            return replace(apart, mean=kept)
        clips = [split.get("val") if isinstance(split := s.get("split"), dict) else None for s in settings]
        rates = {c.false_alarm_rate for c in single}
        if len(single) == 1 or not clips[0] or any(c != clips[0] for c in clips) or len(rates) > 1:
            return apart
        outputs = [read_outputs(folder, s, "val") for folder, s in zip(folders, settings, strict=True)]
        said = _log_mean(apart._log_single([torch.from_numpy(o.logits).double() for o in outputs]))
        with refused_if_damaged(f"'val_groups' in {folders[0]}/run.json"):
            units = validation_units(next((s for s in settings if s.get("val_groups")), settings[0]))
        mean = calibrate(said, outputs[0].targets, units=units, false_alarm_rate=rates.pop())
        return replace(apart, mean=mean)

    def may_be_unknown(self, n_classes: int) -> bool:
        """Say whether any clip can be answered "unknown"; the most probable of K classes always has at least 1 / K."""
        thresholds = [c.threshold for c in self.single] if self._common is None else [self._common]
        return 2 * sum(threshold * n_classes > 1 for threshold in thresholds) > len(thresholds)

    @property
    def _common(self) -> float | None:
        """The threshold of all heads together; None if each has its own."""
        return self.mean.threshold if self.threshold is None and self.mean is not None else self.threshold

    def _log_single(self, logits: Sequence[Tensor]) -> list[Tensor]:
        return [(x / c.temperature).log_softmax(dim=1) for x, c in zip(logits, self.single, strict=True)]

    def __call__(self, logits: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return probabilities ``(B, K)``, and whether each clip is "unknown" ``(B,)``.

        A clip is "unknown" if its highest probability is below the threshold. If there is no common threshold, the
        majority of heads decides, each by its own threshold.

        Args:
            logits: The logits of each head, ``(B, K)``; the computation uses their dtype.
        """
        logs = self._log_single(logits)
        single = [x.exp() for x in logs]
        if self.mean is None:
            probabilities = torch.stack(single).mean(dim=0)
        else:
            probabilities = (_log_mean(logs) / self.mean.temperature).softmax(dim=1)
        if self._common is not None:
            return probabilities, probabilities.amax(dim=1) < self._common
        unknown = [(p.amax(dim=1) < c.threshold).float() for p, c in zip(single, self.single, strict=True)]
        return probabilities, torch.stack(unknown).mean(dim=0) > 0.5

    def answers(self, logits: Sequence[NDArray[np.float32]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the same for stored logits, as arrays; computed in float64."""
        probabilities, unknown = self([torch.from_numpy(each).double() for each in logits])
        return probabilities.numpy(), unknown.numpy()


def _log_mean(logs: Sequence[Tensor]) -> Tensor:
    """Return the logarithm of the mean of probabilities that are given as logarithms, each ``(B, K)``.

    Never -inf for finite logits, however improbable a class is.
    """
    return torch.stack(list(logs)).logsumexp(dim=0) - math.log(len(logs))


def _kept(folders: Sequence[Path], settings: Sequence[Mapping[str, Any]]) -> Calibration | None:
    """Return the calibration of the mean that all these runs store, if it was fitted for exactly these seeds."""
    kept = settings[0].get(KEPT)
    if len(settings) == 1 or kept is None or any(s.get(KEPT) != kept for s in settings):
        return None
    with refused_if_damaged(f"{KEPT!r} in {folders[0]}/run.json"):
        return Calibration.of(kept) if kept["seeds"] == sorted(s["seed"] for s in settings) else None


def keep_calibration(runs: Sequence[ScoredRun], ensemble: Ensemble) -> None:
    """Store the calibration of the mean in the ``run.json`` of each run, so that their joint answer does not change.

    Raises:
        StoreError: If it cannot be written.
    """
    if ensemble.mean is None:
        return
    kept = {"seeds": sorted(run.seed for run in runs), "calibration": ensemble.mean.to_dict()}
    for run in runs:
        if run.run_json.get(KEPT) != kept:
            write_json(run.folder / "run.json", {**run.run_json, KEPT: kept})


def model_id(runs: Sequence[Run], ensemble: Ensemble) -> str:
    """Return what tells a model from others: the first 16 hexadecimal digits of the sha256 of all that it answers by.

    That is the weights of the heads that answer, their classes and calibration, and the identity of their features,
    which includes the backbone's weights. Copies of a run have the same, and a run has the same whatever other seeds
    are trained beside it.

    Args:
        runs: The runs that answer together.
        ensemble: How they do; a threshold given by the caller does not count.
    """
    mean = None if ensemble.mean is None else ensemble.mean.to_dict()
    found = hashlib.sha256(canonical_json(mean).encode())
    for run in runs:
        told = [run.labels, [s["identity"] for s in run.run_json["sources"]], run.calibration.to_dict()]
        found.update(canonical_json(told).encode())
        for name, value in run.head.state_dict().items():
            found.update(name.encode())
            found.update(value.numpy().tobytes())
    return found.hexdigest()[:16]


class HeadEnsemble(nn.Module):
    """An ensemble of the heads of several seeds, as one module; it answers as :class:`Ensemble` describes.

    Args:
        runs: Seeds of one call, as :func:`fitrec_cache.runs.run.read_runs` returns them.
        dtype: The dtype in which probabilities are computed; thresholds were fitted in float64.
        threshold: If given, a clip is "unknown" if no class has this probability, in [0, 1].

    Raises:
        StoreCorrupt: If required outputs are damaged or missing.
    """

    def __init__(
        self, runs: Sequence[Run], *, dtype: torch.dtype = torch.float64, threshold: float | None = None
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList(run.head for run in runs).eval()
        self.ensemble = Ensemble.of([r.folder for r in runs], [r.run_json for r in runs], threshold=threshold)
        self.dtype = dtype

    if TYPE_CHECKING:  # PyTorch's own returns Any

        def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """Return what :meth:`forward` does."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return probabilities ``(B, K)``, attention ``(B, T)`` and whether each clip is "unknown" ``(B,)``.

        Args:
            x: float32 ``(B, T, d)``, or uint8 ``(B, T, 64, 64, 3)``.
        """
        logits, attention = zip(*(head(x) for head in self.heads), strict=True)  # (B, K), (B, T) of each
        probabilities, unknown = self.ensemble([each.to(self.dtype) for each in logits])
        return probabilities, torch.stack(attention).mean(dim=0), unknown
