"""A trained head with the pipeline before it, kept loaded: what `predict` and `watch` ask for each clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.memory import keep_freed_memory
from fitrec_cache.common.precision import in_full_float32
from fitrec_cache.dataset.clips import SIDES, file_id
from fitrec_cache.errors import StoreCorrupt, UsageError
from fitrec_cache.pipeline import open_pipelines
from fitrec_cache.runs.ensemble import HeadEnsemble, model_id
from fitrec_cache.runs.run import Run, read_runs
from fitrec_cache.runs.run_files import contents_of
from fitrec_cache.video.jpeg import decode_frames
from fitrec_cache.video.spans import file_of
from fitrec_cache.wording import plural

#: By pipeline and JPEG file: the values of a frame.
Seen = dict[tuple[int, bytes], NDArray[Any]]

#: Accepted types of a JPEG file in memory.
_BYTES = (bytes, bytearray, memoryview)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer of the heads for one clip.

    Attributes:
        top: All labels with their probabilities, best first.
        weights: Weight of each of its frames in the clip's vector; they sum to 1.
        unknown: Whether the highest probability is below the threshold: probably none of the classes.
    """

    top: tuple[tuple[str, float], ...]
    weights: tuple[float, ...]
    unknown: bool

    @property
    def answer(self) -> str | None:
        """The class that is answered; None for "unknown"."""
        return None if self.unknown else self.top[0][0]

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain JSON values, with the class that is answered."""
        return {"answer": self.answer, **vars(self), "top": named(self.top), "weights": list(self.weights)}


def named(top: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """Return labels with their probabilities as plain JSON values."""
    return [{"label": label, "probability": p} for label, p in top]


class Recogniser:
    """A trained head, or several seeds of one, with the pipeline before it.

    Creating one makes this process keep freed memory for reuse (:mod:`fitrec_cache.common.memory`). It may be called
    from several threads. A server that forks must create it in each worker: PyTorch's threads do not survive a fork,
    and a network that ran before the fork would wait for them forever.

    Args:
        run: As for :func:`fitrec_cache.predict.predict`, like the other arguments; the same errors are raised.
        backbone: ``NAME=WEIGHTS``.
        unknown_below: Least probability of an answer.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        force: Continue although the pipeline here differs.

    Attributes:
        runs: The heads.
        model: What tells this model from others (:func:`fitrec_cache.runs.ensemble.model_id`), to be logged beside
            its answers.
        samples: Number of frames per clip, ``T``.
        short_sides: The sizes in which frames must be given, in pixels of the short side.
        labels: The classes.
        may_be_unknown: Whether any clip could be answered "unknown".
        clip_seconds: Median length of all clips of the classes, those of training and of tests; None if unknown.
        contents: Content identifiers of the files on which the heads were trained or validated
            (:func:`fitrec_cache.video.spans.short_content`), as far as the runs contain them.
        trained_on: The ids of the others of these files, as parts of a path.
    """

    @plain_arguments
    def __init__(
        self,
        run: Path,
        *,
        backbone: Sequence[str] = (),
        unknown_below: float | None = None,
        device: str = "auto",
        force: bool = False,
    ) -> None:
        if unknown_below is not None and not 0 <= unknown_below <= 1:
            raise UsageError(f"unknown_below is {unknown_below}: expected a probability, 0 to 1")
        keep_freed_memory()  # every clip needs the same large blocks
        self.runs = read_runs(run)
        self._heads = HeadEnsemble(self.runs, threshold=unknown_below)
        self.model = model_id(self.runs, self._heads.ensemble)
        contents, ids = zip(*map(_trained_on, self.runs), strict=True)
        self.contents = set[str]().union(*contents)
        self.trained_on = set[tuple[str, ...]]().union(*ids)
        self._pipelines = open_pipelines(self.runs[0], backbone, device=device, force=force)
        self._may_reuse = all(pipeline.embeds_each_alone for pipeline in self._pipelines)
        self.samples: int = self._pipelines[0].frames["samples"]
        self.short_sides: list[int] = list(dict.fromkeys(p.frames["short_side"] for p in self._pipelines))
        self.labels = self.runs[0].labels
        self.may_be_unknown = self._heads.ensemble.may_be_unknown(len(self.labels))
        length = self.runs[0].run_json.get("clip_seconds")
        self.clip_seconds = float(length) if isinstance(length, (int, float)) and 0 < length < 1e6 else None

    def __repr__(self) -> str:
        """Return a description in one line."""
        heads, sides = plural(len(self.runs), "head"), self.short_sides
        return f"Recogniser({len(self.labels)} classes, {heads}, samples={self.samples}, short_sides={sides})"

    def __call__(self, jpegs: Mapping[int, Sequence[bytes]], *, seen: Seen | None = None) -> Answer:
        """Return the answer of the heads for one clip.

        Args:
            jpegs: For each short side, the clip's T frames as JPEG files
                (:func:`fitrec_cache.video.jpeg.encode_frames`).
            seen: Features of the frames of the clip before, of the same size, which are used again for the same frames,
                and replaced by those of this clip; at first an empty dict. On a processor only, where a frame's
                features hardly depend on how many are embedded together (docs/design.md).

        Raises:
            UsageError: If frames of a size are missing, or they are not T JPEG files of one size, or are too large.
        """
        if not isinstance(jpegs, Mapping) or not set(self.short_sides) <= jpegs.keys():
            got = f"short sides {list(jpegs)}" if isinstance(jpegs, Mapping) else f"a {type(jpegs).__name__}"
            raise UsageError(
                f"frames of one clip: got {got}, expected {self.samples} JPEG files for each of the short sides "
                f"{self.short_sides}, in a dict"
            )
        files = {side: self._files(jpegs[side], side) for side in self.short_sides}
        parts = self._embed(files) if seen is None or not self._may_reuse else self._embed_new(files, seen)
        values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        x = torch.from_numpy(values)[None]  # (1, T, ...)
        x = x if x.dtype == torch.uint8 else x.float()
        with torch.inference_mode(), in_full_float32(torch.device("cpu")):
            (probabilities,), (attention,), (unknown,) = self._heads(x)  # (K,), (T,), ()
        best = probabilities.topk(len(self.labels))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return Answer(
            top=tuple((self.labels[i], p) for i, p in pairs), weights=tuple(attention.tolist()), unknown=bool(unknown)
        )

    def answer(self, path: Path) -> Answer:
        """Return the answer of the heads for a video, which is decoded in this process and for as long as that takes.

        Raises:
            VideoError: If the video cannot be used.
        """
        from fitrec_cache.video.decoding import DecodeJob, decode_clip

        jobs = {side: DecodeJob(path=path, samples=self.samples, short_side=side) for side in self.short_sides}
        return self({side: decode_clip(job).jpegs for side, job in jobs.items()})

    def _embed(self, files: Mapping[int, list[bytes]]) -> list[NDArray[Any]]:
        """Return the values of each pipeline, ``(T, ...)``."""
        frames = {side: _decoded(items, side) for side, items in files.items()}
        return [pipeline(frames[pipeline.frames["short_side"]]) for pipeline in self._pipelines]

    def _embed_new(self, files: Mapping[int, list[bytes]], seen: Seen) -> list[NDArray[Any]]:
        """Return the same, computing only what is not in ``seen``, which then holds the frames of this clip."""
        kept: Seen = {}
        parts: list[NDArray[Any]] = []
        decoded: dict[int, torch.Tensor] = {}  # of frames that are new to all pipelines of their size
        for number, pipeline in enumerate(self._pipelines):
            side = pipeline.frames["short_side"]
            kept |= {(number, file): seen[number, file] for file in files[side] if (number, file) in seen}
            if new := [file for file in dict.fromkeys(files[side]) if (number, file) not in kept]:
                if side not in decoded:
                    decoded[side] = _decoded(new, side)
                kept |= {(number, file): row for file, row in zip(new, pipeline(decoded[side]), strict=True)}
            parts.append(np.stack([kept[number, file] for file in files[side]]))
        seen.clear()
        seen.update(kept)
        return parts

    def _files(self, items: Any, side: int) -> list[bytes]:
        """Return the frames of one size; raise UsageError if they are not T files."""
        files = [bytes(each) for each in items if isinstance(each, _BYTES)] if isinstance(items, Sequence) else []
        if len(files) != self.samples or len(files) != len(items or ()):
            raise UsageError(
                f"frames of one clip: got {_described(items)} of a short side of {side} pixels, expected "
                f"{self.samples} JPEG files (bytes), by their short side"
            )
        return files


def _decoded(files: Sequence[bytes], side: int) -> torch.Tensor:
    """Return frames uint8 ``(T, 3, H, W)``; raise UsageError if they do not decode or are too large."""
    try:
        decoded = decode_frames(files)
    except StoreCorrupt as error:
        raise UsageError(f"frames of one clip: {error.__cause__}. Expected JPEG files of one size") from error
    if min(decoded.shape[-2:]) > side:
        size = " x ".join(map(str, decoded.shape[-2:]))
        raise UsageError(f"frames of {size} pixels: expected a short side of at most {side}")
    return decoded


def _described(items: object) -> str:
    """Describe a value that should be files in memory: how many items, and of which types."""
    if not isinstance(items, Sequence):
        return "none" if items is None else f"a {type(items).__name__}"
    kinds = sorted({type(each).__name__ for each in items})
    return f"{len(items)} ({', '.join(kinds)})" if items else "none"


def _trained_on(run: Run) -> tuple[set[str], set[tuple[str, ...]]]:
    """Return the files on which the head that answers was trained or validated: contents, and ids where unknown."""
    names = SIDES if run.run_json.get("final") else SIDES[:2]
    clips = [str(clip) for name in names for clip in run.run_json.get("split", {}).get(name, ())]
    told = contents_of(run.run_json)
    contents = {file_of(told[clip]) for clip in clips if clip in told}
    return contents, {Path(file_id(file_of(clip))).parts for clip in clips if clip not in told}
