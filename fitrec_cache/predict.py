"""Recognise exercises in videos with a trained head, through exactly the pipeline of training, or refuse."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.devices import cores
from fitrec_cache.common.files import (
    check_ending,
    check_writable,
    file_stamp,
    files_below,
    is_file,
    is_folder,
    is_there,
    refuse_others,
    write_csv,
)
from fitrec_cache.common.progress import Notes
from fitrec_cache.dataset.class_folders import VIDEO_SUFFIXES, is_video
from fitrec_cache.dataset.clips import file_id, named_group, one_spelling, plain_text
from fitrec_cache.dataset.manifests import manifest_clips
from fitrec_cache.dataset.units import units_of
from fitrec_cache.errors import UsageError, VideoError
from fitrec_cache.recogniser import Recogniser, named
from fitrec_cache.runs.answers import COLUMNS, answer_cells, class_columns
from fitrec_cache.video.contents import content_hash_once
from fitrec_cache.video.decoding import TIME_LIMIT, DecodeJob, DecoderPool, StoredClip
from fitrec_cache.video.jpeg import decode_pictures
from fitrec_cache.video.sampling import clip_length
from fitrec_cache.video.spans import file_of, parted, short_content
from fitrec_cache.wording import listed

if TYPE_CHECKING:
    from fitrec_cache.evaluation.metrics import Metrics

#: The greatest number of videos in the picture (the first ones answered), as their frames take memory.
MOST_PICTURED = 20

#: Columns in the first line of a table; the ``answers.csv`` of a training lacks ``problem``.
_COLUMNS = (*COLUMNS, "problem")

#: A decoded video, by short side of the frames.
_Decoded = dict[int, StoredClip]

#: Sources for ``watch`` that are not files; a URL that was converted to a path has lost one slash.
_STREAM = re.compile(r"camera(:\d+)?$|(?i:[a-z][a-z0-9+.-]+:/)")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer for one video.

    Attributes:
        path: The video.
        top: The most probable labels with their probabilities, best first.
        attention: Weight of each sampled frame in the clip's vector, with its time; weights sum to 1.
        unknown: Whether the highest probability is below the threshold: probably none of the classes.
        may_be_unknown: Whether "unknown" was possible: whether the thresholds are high enough.
        heads: Number of seeds that answered together.
        model: What tells the model that answered from others (:func:`fitrec_cache.runs.ensemble.model_id`).
        median_lengths: The video's length divided by the median length of the training clips; None if unknown.
        label: With ``labelled``: the class in the manifest, or that after which a folder around the video is named, or
            else the name of its folder. Otherwise empty.
        group: With ``labelled``: the video's group in the manifest, if there is one.
        right: Whether the most probable class is ``label``; None if not asked for or not known, because there is no
            answer or the head does not know the class.
        trained_on: Whether a head was trained or validated on this file: then the answer does not show how well new
            videos are recognised. Judged by its bytes, as another video may have the same name; by its name, with its
            folders, where a run does not know the bytes of its clips.
        warnings: What is wrong with the file, as in ``extract``: damage, or a part that ends after the file.
        reason: Why there is no answer; empty if there is one.
    """

    path: str
    top: tuple[tuple[str, float], ...] = ()
    attention: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    unknown: bool = False
    may_be_unknown: bool = True
    heads: int = 1
    model: str = ""
    median_lengths: float | None = None
    label: str = ""
    group: str | None = None
    right: bool | None = None
    trained_on: bool = False
    warnings: tuple[str, ...] = ()
    reason: str = ""

    @property
    def answer(self) -> str | None:
        """The class that is answered; None for "unknown", and where ``reason`` says why there is no answer."""
        return None if self.unknown or not self.top else self.top[0][0]

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as plain JSON values."""
        found: dict[str, Any] = {
            "path": self.path,
            "answer": self.answer,
            "top": named(self.top),
            "attention": [{"pts_seconds": t, "weight": w} for t, w in self.attention],
            "unknown": self.unknown,
            "may_be_unknown": self.may_be_unknown,
            "heads": self.heads,
            "model": self.model,
            "trained_on": self.trained_on,
            "median_lengths": self.median_lengths,
            "warnings": list(self.warnings),
        }
        found |= {"label": self.label, "right": self.right} if self.label else {}
        found |= {"group": self.group} if self.group else {}
        return found | ({"reason": self.reason} if self.reason else {})


#: Answered videos for the picture, each with its frames.
_Shown = list[tuple[Prediction, NDArray[np.uint8]]]


@plain_arguments
def predict(
    videos: Sequence[Path],
    *,
    run: Path,
    backbone: Sequence[str] = (),
    picture: Path | None = None,
    table: Path | None = None,
    labelled: bool = False,
    top: int | None = None,
    unknown_below: float | None = None,
    device: str = "auto",
    time_limit: float = TIME_LIMIT,
    force: bool = False,
    tell: Callable[[Prediction], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> list[Prediction]:
    """Recognise the exercise in each video.

    Frames are sampled, stored as JPEG and embedded exactly as ``extract`` did for the clips the head was trained on.
    Probabilities are calibrated by the run's temperature.

    Args:
        videos: Video files, or folders, for all videos below them; with ``labelled`` also CSV manifests
            (:func:`fitrec_cache.dataset.manifests.manifest_clips`). ``#t=START,END`` after a file name means that part
            of the file, unless a file has this name.
        run: Run folder made by ``train-head``, or the folder of ``learn``: then the model that it chose last. Several
            seeds answer together, by the mean of their probabilities and attention
            (:class:`fitrec_cache.runs.ensemble.Ensemble`). If there are folds, name one.
        backbone: ``NAME=WEIGHTS`` if the weights have moved since extraction.
        picture: PNG file to write, with the sampled frames and their attention, of at most :data:`MOST_PICTURED`
            videos.
        table: CSV file to write, with the answers and all probabilities.
        labelled: Report which answers are right; :func:`figures` has accuracy, interval and so on. A video's class is
            that of the manifest, or given by the nearest folder around it that is named after a class, no higher than
            the folder in ``videos``.
        top: Number of labels to return; None for 5.
        unknown_below: Answer "unknown" if no class has this probability, in [0, 1]; None for the thresholds that were
            fitted on validation clips.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        time_limit: Time limit for decoding one video, in seconds; a video is tried twice.
        force: Continue although the pipeline here differs from the one the head was trained with.
        tell: Called with each prediction as it is made; predictions come in batches of one video per core, which are
            decoded at the same time.
        note: Called with each note on a manifest, such as rows that are left out.

    Returns:
        One prediction per video, in order; a video that cannot be used has a reason instead of an answer.

    Raises:
        UsageError: If there is no video (none of the files exists) or no run, the run cannot be used on videos, no
            video is of a class of the head although ``labelled`` is set, or ``table`` is a file of another kind.
        MismatchError: If the pipeline would differ; it names each field, old -> new.
        StoreCorrupt: If the run is damaged.
        StoreError: If the table or picture cannot be written.
    """
    if not videos:
        raise UsageError("no video given: expected at least one file")
    top = 5 if top is None else top
    if top < 1:
        raise UsageError(f"top is {top}: expected 1 or more")
    for option, path, ending in (("--picture", picture, ".png"), ("--table", table, ".csv")):
        if path is not None:
            check_ending(path, option, ending)
            check_writable(path, option)
    if table is not None:
        refuse_others(table, "--table", ",".join(_COLUMNS), "a table of answers of `predict`")
    written = None if table is None else _whole(table)
    manifests = {p for p in videos if labelled and p.suffix.lower() == ".csv" and is_file(p) and _whole(p) != written}
    files, unreadable = _files(videos, manifests, Notes(note))
    recogniser = Recogniser(run, backbone=backbone, unknown_below=unknown_below, device=device, force=force)
    if labelled:
        files = [_with_class(each, recogniser.labels) for each in files]
        labels = {each.label for each in files}
        if files and labels.isdisjoint(recogniser.labels):
            raise UsageError(
                "no video is labelled as a class of this head, by its folder or a manifest: got "
                f"{listed(sorted(labels))}, expected some such as {recogniser.labels[0]}"
            )
    shown: _Shown | None = None if picture is None else []
    found: list[Prediction] = []
    full: list[Prediction] = []  # the same with all classes
    # Of an interrupted call, what was answered so far is written, but not in the place of an earlier table or picture.
    earlier = {path for path in (table, picture) if path is not None and path.exists() and path.stat().st_size}
    try:
        at_once = max(1, min(cores(), len(files)))
        with DecoderPool(workers=at_once, time_limit=time_limit) as pool:
            paths = [each.path for each in files]
            unread = [_failed(e.filename, f"folder cannot be read: {e.strerror}", recogniser) for e in unreadable]
            answers = zip(files, _answers(paths, recogniser, pool, shown, at_once=at_once), strict=True)
            for asked, prediction in chain(((None, each) for each in unread), answers):
                full.append(_labelled(prediction, asked, recogniser.labels) if labelled and asked else prediction)
                found.append(replace(full[-1], top=full[-1].top[:top]))
                if tell is not None:
                    tell(found[-1])
        earlier.clear()
    finally:
        try:
            if full and table is not None and table not in earlier:
                _write_table(full, recogniser.labels, table)
        finally:
            # Without answers each video's reason says why there is nothing to draw.
            if shown and picture is not None and picture not in earlier:
                _draw(shown, picture)
    return found


def figures(found: Sequence[Prediction]) -> Metrics | None:
    """Return the figures of answers made with ``labelled``, as on an external test set.

    They are of the videos that no head was trained on and whose class it knows; for "unknown" the nearest class counts.
    Videos of one group, and parts of one file, count as one unit in the interval of the accuracy (:func:`units`).

    Args:
        found: Predictions; ``top5_accuracy`` is meant for those with ``top=5`` or more.

    Returns:
        The figures; None if there is no such video.
    """
    from fitrec_cache.evaluation.metrics import evaluate  # loads scikit-learn

    tested = judged(found)
    if not tested:
        return None
    labels = sorted({p.label for p in tested} | {label for p in tested for label, _ in p.top})
    # Places, not probabilities, so that of equal ones the class that was answered counts.
    places = [{label: place for place, (label, _) in enumerate(p.top)} for p in tested]
    scores = [[-float(each.get(label, len(labels))) for label in labels] for each in places]
    return evaluate(scores, [labels.index(p.label) for p in tested], labels, units=units(tested))


def judged(found: Sequence[Prediction]) -> list[Prediction]:
    """Return those answers, made with ``labelled``, that show how well new videos are recognised."""
    return [p for p in found if p.right is not None and not p.trained_on]


def units(found: Sequence[Prediction]) -> list[str]:
    """Return the statistical unit of each video: its group, by the manifest or by its name, or else its file."""
    files = [file_of(p.path) for p in found]
    return units_of(files, [p.group or named_group(file) for p, file in zip(found, files, strict=True)])


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A video to answer; ``around`` is the number of folders around it that may name its class, if ``label`` is ""."""

    path: Path
    around: int = 0
    label: str = ""
    group: str | None = None


def _files(videos: Sequence[Path], manifests: Collection[Path], notes: Notes) -> tuple[list[_Asked], list[OSError]]:
    """Return the videos and the errors of unreadable folders.

    Of a folder, these are all videos below it that are not hidden, which folders up to the one given may name; of a
    manifest its clips; a single file may be named by two folders.
    """
    found: list[_Asked] = []
    unreadable: list[OSError] = []
    for path in videos:
        if not is_folder(path):
            if _STREAM.match(str(path)) and not is_there(path):
                raise UsageError("cameras and addresses are for `fitrec-cache watch`: expected video files or folders")
            found += _of_manifest(path, notes) if path in manifests else [_Asked(path=path, around=2)]
            continue
        before = len(unreadable)
        below = sorted(filter(is_video, files_below(path, unreadable)))
        if not below and len(unreadable) == before:
            raise UsageError(f"no video in {path}: expected files of type {' '.join(VIDEO_SUFFIXES)}")
        found += [_Asked(path=path / name, around=name.count("/") + 1) for name in below]
    if not unreadable and not any(is_there(each.path) or is_there(Path(file_of(str(each.path)))) for each in found):
        names = [plain_text(str(each.path)) for each in found]
        inside = ", with paths relative to the folder of their manifest" if manifests else ""
        raise UsageError(f"no such file: {listed(names)}. Expected videos, or folders of them{inside}")
    return found, unreadable


def _of_manifest(path: Path, notes: Notes) -> list[_Asked]:
    clips, told, _ = manifest_clips(path, path.parent)
    notes.add(*(f"{path}: {text}" for text in told))
    return [_Asked(path=Path(f"{c.path}{c.span or ''}"), label=c.label, group=c.group) for c in clips]


def _with_class(asked: _Asked, labels: Sequence[str]) -> _Asked:
    """Return it with the class that its label or else one of its folders names, ignoring case; else with that name."""
    folders = [one_spelling(plain_text(name)) for name in reversed(_whole(asked.path).parent.parts)][: asked.around]
    names = [asked.label] if asked.label else folders
    by_name = {label.casefold(): label for label in labels} | {label: label for label in labels}
    named = (by_name[name] for each in names for name in (each, each.casefold()) if name in by_name)
    return replace(asked, label=next(named, names[0]))


def _labelled(prediction: Prediction, asked: _Asked, labels: Sequence[str]) -> Prediction:
    """Return the prediction with what is known of its video, and whether the answer is right."""
    right = prediction.top[0][0] == asked.label if prediction.top and asked.label in labels else None
    return replace(prediction, label=asked.label, group=asked.group, right=right)


def _write_table(found: Sequence[Prediction], labels: Sequence[str], path: Path) -> None:
    """Write answers as CSV, one row per video; "unknown" is an empty answer, and a failed video has empty cells."""
    rows = []
    for p in found:
        row = {"path": plain_text(p.path), "label": p.label, "problem": p.reason, "model": p.model}
        if p.top:
            by_class = dict(p.top)
            row |= answer_cells(labels, [by_class[label] for label in labels], unknown=p.unknown)
        rows.append(row)
    columns = ("path", *["label"] * any(p.label for p in found), *_COLUMNS, "model", *class_columns(labels))
    write_csv(path, columns, ({name: row[name] for name in columns if name in row} for row in rows))


def _answers(
    paths: Sequence[Path], recogniser: Recogniser, pool: DecoderPool, shown: _Shown | None, *, at_once: int
) -> Iterator[Prediction]:
    """Yield the answer for each video, with all classes; ``at_once`` videos are decoded at the same time.

    Decoding and embedding take turns, because a decoder that runs beside the threads of a network slows all of them.
    """
    for start in range(0, len(paths), at_once):
        some = paths[start : start + at_once]
        queued = [_queued(path, recogniser, pool) for path in some]
        clips = [wait() for wait in queued]
        yield from (_one(path, clip, recogniser, shown) for path, clip in zip(some, clips, strict=True))


def _queued(path: Path, recogniser: Recogniser, pool: DecoderPool) -> Callable[[], _Decoded | str]:
    """Start decoding a video; call the returned function to wait for it, or for the reason why that failed."""
    try:
        file, span = (str(path), None) if is_there(path) else parted(str(path))
    except ValueError as error:
        reason = str(error)
        return lambda: reason
    samples, sides = recogniser.samples, recogniser.short_sides
    jobs = [DecodeJob(path=Path(file), samples=samples, short_side=side, span=span) for side in sides]
    waits = [pool.submit(job) for job in jobs]

    def wait() -> _Decoded | str:
        clips: _Decoded = {}
        for side, outcome in zip(sides, waits, strict=True):
            clip = outcome()
            if isinstance(clip, str):
                return clip
            clips[side] = clip
        return clips

    return wait


def _failed(path: object, reason: str, recogniser: Recogniser) -> Prediction:
    heads, may_be_unknown = len(recogniser.runs), recogniser.may_be_unknown
    return Prediction(path=str(path), reason=reason, heads=heads, may_be_unknown=may_be_unknown, model=recogniser.model)


def _one(path: Path, clips: _Decoded | str, recogniser: Recogniser, shown: _Shown | None) -> Prediction:
    if isinstance(clips, str):
        return _failed(path, clips, recogniser)
    try:
        answer = recogniser({side: clip.jpegs for side, clip in clips.items()})
        trained_on = _is_of_training(path, recogniser)
    except VideoError as error:  # its embeddings are too large for float16, or the file is gone
        return _failed(path, str(error), recogniser)
    clip = clips[recogniser.short_sides[0]]
    seconds = clip_length(clip.pts_seconds)
    times = [time - clip.ledger["starts_at_seconds"] for time in clip.pts_seconds]  # as in a player
    prediction = Prediction(
        path=str(path),
        top=answer.top,
        attention=tuple(zip(times, answer.weights, strict=True)),
        unknown=answer.unknown,
        may_be_unknown=recogniser.may_be_unknown,
        heads=len(recogniser.runs),
        model=recogniser.model,
        median_lengths=seconds / recogniser.clip_seconds if recogniser.clip_seconds and seconds else None,
        trained_on=trained_on,
        warnings=tuple(clip.ledger["warnings"]),
    )
    if shown is not None and len(shown) < MOST_PICTURED:
        shown.append((prediction, decode_pictures(clip.jpegs)))
    return prediction


def _is_of_training(path: Path, recogniser: Recogniser) -> bool:
    file = path if is_there(path) else Path(file_of(str(path)))
    if recogniser.trained_on:
        names = Path(file_id(str(_whole(file)))).parts
        if {names[-n:] for n in range(1, len(names) + 1)} & recogniser.trained_on:
            return True
    return bool(recogniser.contents) and short_content(content_hash_once(file, file_stamp(file))) in recogniser.contents


def _whole(path: Path) -> Path:
    """Return an absolute path without ".."; links are kept, because they have names of their own."""
    return Path(os.path.normpath(path.absolute()))


def _draw(shown: _Shown, path: Path) -> None:
    from fitrec_cache.runs.attention_picture import AttentionStrip, attention_png

    strips = [
        AttentionStrip(
            title=f"{'/'.join(Path(p.path).parts[-2:])}: "
            + ("unknown" if p.unknown else f"{p.top[0][0]} {p.top[0][1]:.2f}"),
            frames=frames,
            pts_seconds=np.array([t for t, _ in p.attention]),
            weights=np.array([w for _, w in p.attention]),
        )
        for p, frames in shown
    ]
    attention_png(strips, path)
