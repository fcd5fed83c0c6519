"""The files of a timeline: a table, subtitles and a picture."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fitrec_cache.common.files import check_ending, check_writable, write_atomic, write_csv
from fitrec_cache.dataset.clips import plain_text
from fitrec_cache.errors import UsageError
from fitrec_cache.live.timeline import Segment, Timeline


@dataclass(frozen=True, kw_only=True)
class WatchFiles:
    """The files to write for a timeline; None for those that are not wanted.

    Attributes:
        table: CSV of the segments.
        subtitles: The segments as SubRip subtitles.
        picture: PNG of the probabilities over time.

    Raises:
        UsageError: If a name has another ending, a file cannot be written, or the table already exists, as it may
            contain corrections, or the subtitles exist and are not of ``watch``.
    """

    table: Path | None = None
    subtitles: Path | None = None
    picture: Path | None = None

    def __post_init__(self) -> None:
        for option, ending in (("table", ".csv"), ("subtitles", ".srt"), ("picture", ".png")):
            path: Path | None = getattr(self, option)
            if path is not None:
                check_ending(path, f"--{option}", ending)
                check_writable(path, f"--{option}")
        if self.table is not None and self.table.exists() and self.table.stat().st_size:
            raise UsageError(
                f"--table {self.table} exists, and may hold corrections: choose another name, or remove it"
            )
        if self.subtitles is not None and not _may_be_ours(self.subtitles):
            raise UsageError(
                f"--subtitles {self.subtitles} exists, and has other subtitles than `watch` writes: choose another name"
            )

    @property
    def paths(self) -> list[Path]:
        """The files wanted."""
        return [path for path in (self.table, self.subtitles, self.picture) if path is not None]

    def write(self, timeline: Timeline, *, title: str, video: Path | None = None, offset: float = 0.0) -> None:
        """Write all files; none if there are no answers.

        Args:
            timeline: The answers; ``moments`` must have been kept if a picture is wanted.
            title: Title of the picture.
            video: The file that was watched, if it was a file: the table is then also a manifest for ``extract``.
            offset: Seconds that a player shows before the first frame.

        Raises:
            StoreError: If a file cannot be written; the others are written nevertheless.
        """
        if not timeline.segments:
            return
        try:
            self.write_texts(timeline, video=video, offset=offset)
        finally:
            if self.picture is not None:
                from fitrec_cache.live.timeline_picture import timeline_png  # matplotlib is slow to load

                timeline_png(timeline.moments, timeline.segments, self.picture, title=title)

    def write_texts(self, timeline: Timeline, *, video: Path | None = None, offset: float = 0.0) -> None:
        """Write table and subtitles; see :meth:`write`."""
        try:
            if self.table is not None:
                write_table(timeline.segments, self.table, video=video)
        finally:
            if self.subtitles is not None:
                write_subtitles(timeline.segments, self.subtitles, offset=offset)


def write_table(segments: Sequence[Segment], path: Path, *, video: Path | None = None) -> None:
    """Write segments as CSV: ``start,end,label,probability,windows``; the label of "unknown" is empty.

    With a video, the first column is its ``path`` relative to the table's folder.

    Raises:
        StoreError: If the file cannot be written.
    """
    place = {} if video is None else {"path": plain_text(os.path.relpath(video.resolve(), path.parent.resolve()))}
    rows = (
        {
            **place,
            "start": f"{s.start:.3f}",
            "end": f"{s.end:.3f}",
            "label": s.label or "",
            "probability": f"{s.probability:.4f}",
            "windows": s.windows,
        }
        for s in segments
    )
    write_csv(path, (*place, "start", "end", "label", "probability", "windows"), rows)


def write_subtitles(segments: Sequence[Segment], path: Path, *, offset: float = 0.0) -> None:
    """Write segments as SubRip subtitles, which players show over the video; ``offset`` is added to their times.

    Raises:
        StoreError: If the file cannot be written.
    """
    blocks = [
        f"{number}\n{_subrip(s.start + offset)} --> {_subrip(s.end + offset)}\n{s.text}\n"
        for number, s in enumerate(segments, start=1)
    ]
    write_atomic(path, "\n".join(blocks).encode())


#: Subtitles that `watch` writes, or none.
_OURS = re.compile(rb"(\d+\n\S+ --> \S+\n(unknown|.+ \d+%)\n\n?)*")


def _may_be_ours(path: Path) -> bool:
    """Say whether a file does not exist, or holds nothing but what :func:`write_subtitles` writes."""
    try:
        return not path.is_file() or _OURS.fullmatch(path.read_bytes()) is not None
    except OSError:  # it can be written, but not read
        return False


def _subrip(seconds: float) -> str:
    ms = round(1000 * round(seconds, 3))  # rounded as in tables, since halves may round differently otherwise
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d},{ms % 1000:03d}"
