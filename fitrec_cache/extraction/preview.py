"""What ``extract`` will make of clips: their groups and columns in a cache that may already know them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from fitrec_cache.cache import Cache
from fitrec_cache.common.files import is_there
from fitrec_cache.dataset.clips import Clip
from fitrec_cache.dataset.find_clips import ClipList
from fitrec_cache.extraction.known_videos import KnownVideos, columns_beside
from fitrec_cache.storage.root import MARKER
from fitrec_cache.video.contents import content_of


def as_extracted(
    found: ClipList, cache: Path, *, read: bool = False, others: Collection[str] | None = ()
) -> list[Clip]:
    """Return clips with the groups and columns that they will have in a cache; the cache need not exist.

    Args:
        found: The clips.
        cache: The cache folder.
        read: Whether to read the files, which recognises renamed files by their content; otherwise names are used.
        others: Classes whose usable clips in the cache are added, where they are not among these; None: all.

    Raises:
        StoreError: If it is not a cache, or is damaged.
    """
    if not is_there(cache / MARKER):  # no cache, or one that was just being created
        return list(found.clips)
    opened = Cache(cache)
    told, held = KnownVideos(opened), {clip.clip_id: clip for clip in opened.entries()}
    contents = set()

    def as_in_cache(clip: Clip) -> Clip:
        known = before = held.get(clip.clip_id)
        if read and clip.path is not None:
            contents.add(content := content_of(clip.path, clip.span))
            known = told.of(content, before)
        return clip if known is None else replace(clip, **columns_beside(found, clip, known, before))

    clips = [as_in_cache(clip) for clip in found.clips]
    for e in opened.clips() if others is None or others else ():
        wanted = others is None or e.label in others
        if wanted and not (e.problem or e.clip_id in found.names or e.video_sha256 in contents):
            clips.append(Clip(clip_id=e.clip_id, label=e.label, file=e.clip_id, group=e.group, extra=e.extra))
    return clips
