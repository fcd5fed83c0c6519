"""The outputs of a run's heads for validation and test clips, stored in ``logits.safetensors``; loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from fitrec_cache.errors import StoreCorrupt
from fitrec_cache.runs.run_files import read_sealed

#: Name of the file in a run folder.
OUTPUTS = "logits.safetensors"

#: The arrays stored for each side, as attributes of :class:`Outputs`.
_NAMES = ("logits", "targets", "attention")


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """A head's outputs for the N clips of one side, in the order of ``run.json``.

    Attributes:
        logits: float32 ``(N, K)``, finite.
        targets: Class numbers, int64 ``(N,)``, in ``[0, K)``.
        attention: float32 ``(N, T)``, finite; rows sum to 1.
    """

    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    attention: NDArray[np.float32]

    @cached_property
    def guesses(self) -> NDArray[np.int64]:
        """The most probable class of each clip, ``(N,)``; of equal logits, the first."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each clip is recognised correctly, ``(N,)``."""
        return np.asarray(self.guesses == self.targets)


def to_bytes(validated: Outputs, tested: Outputs, strange: NDArray[np.float32] | None) -> bytes:
    """Return the bytes of ``logits.safetensors``; ``strange`` are the logits ``(M, K)`` of clips of unknown classes."""
    held = {f"{side}_{n}": getattr(said, n) for side, said in (("val", validated), ("test", tested)) for n in _NAMES}
    return safetensors.numpy.save(held if strange is None else held | {"unknown_logits": strange})


def read_outputs(folder: Path, run: Mapping[str, Any], side: Literal["val", "test"]) -> Outputs:
    """Read the outputs of a run's head for its validation or test clips.

    If the recipe refits, these are two heads: validation clips were answered by the one that was not trained on them.

    Raises:
        StoreCorrupt: If the file is missing or damaged, or does not match ``run.json``.
    """
    with _opened(folder, run) as stored:
        clips, classes = len(run["split"][side]), len(run["labels"])
        logits, targets, attention = (stored[f"{side}_{n}"] for n in _NAMES)
    shapes = f"logits {logits.shape}, targets {targets.shape} and attention {attention.shape}"
    if logits.shape != (clips, classes) or targets.shape != (clips,) or attention.shape[:-1] != (clips,):
        raise _damaged(folder, f"{shapes} of {clips} {side} clips of {classes} classes")
    if not (np.isfinite(logits).all() and np.isfinite(attention).all()):
        raise _damaged(folder, "numbers that are not finite")
    if targets.dtype.kind not in "iu" or not ((targets >= 0) & (targets < classes)).all():
        raise _damaged(folder, f"targets that are none of 0 to {classes - 1}")
    return Outputs(logits=logits, targets=targets.astype(np.int64), attention=attention)


def read_strangers(folder: Path, run: Mapping[str, Any]) -> NDArray[np.float32]:
    """Read the logits ``(M, K)`` of the clips of held-out classes, which the run keeps from all sides.

    Raises:
        StoreCorrupt: As in :func:`read_outputs`.
    """
    with _opened(folder, run) as stored:
        shape = len(run["split"]["unknown"]), len(run["labels"])
        logits: NDArray[np.float32] = stored["unknown_logits"]
    if logits.shape != shape or not np.isfinite(logits).all():
        raise _damaged(folder, f"logits {logits.shape} of {shape[0]} clips of {shape[1]} classes, or not finite")
    return logits


@contextmanager
def _opened(folder: Path, run: Mapping[str, Any]) -> Iterator[dict[str, NDArray[Any]]]:
    """Read a run's outputs file; anything missing in it or in ``run.json`` is reported as an error."""
    try:
        yield safetensors.numpy.load(read_sealed(folder, OUTPUTS, run))
    except (KeyError, TypeError, safetensors.SafetensorError) as error:
        raise _damaged(folder, f"{type(error).__name__} {error}") from error


def _damaged(folder: Path, what: str) -> StoreCorrupt:
    return StoreCorrupt(f"{folder}/{OUTPUTS} is damaged or does not fit run.json: {what}. Train the head again")
