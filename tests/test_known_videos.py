from __future__ import annotations

import pytest

from fitrec_cache.cache import TAKEN_OUT, Cache, HeldClip
from fitrec_cache.dataset.clips import Clip
from fitrec_cache.extraction.known_videos import KnownVideos, group_beside


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", create=True)


def enter(cache, name, content, group, problem=""):
    """Enter a clip as a part of its own, later than all before."""
    clip = HeldClip(clip_id=name, video_sha256=content, label="Hop", group=group, problem=problem)
    cache.write_clips([clip])
    return clip


def groups(told, *contents):
    return [None if (known := told.of(content, None)) is None else known.group for content in contents]


def test_of_several_names_the_latest_that_has_a_group_tells(cache):
    enter(cache, "a.avi", "x", "ann")
    enter(cache, "b.avi", "x", "bob")
    enter(cache, "copy.avi", "x", None)
    enter(cache, "none.avi", "y", None)
    assert groups(KnownVideos(cache), "x", "y", "z", "") == ["bob", None, None, None]


def test_files_that_failed_tell_nothing_of_others_with_the_same_bytes(cache):
    enter(cache, "a.avi", "of an empty file", "ann", problem="no video")
    assert groups(KnownVideos(cache), "of an empty file") == [None]


def test_a_group_that_was_emptied_under_the_same_name_is_none(cache):
    enter(cache, "a.avi", "x", "ann")
    enter(cache, "a.avi", "x", None)
    assert groups(KnownVideos(cache), "x") == [None]


def test_what_a_name_had_before_it_was_another_videos_is_told(cache):
    enter(cache, "a.avi", "x", "ann")
    enter(cache, "b.avi", "y", "bob")
    enter(cache, "a.avi", "y", "bob")
    enter(cache, "b.avi", "y", "bob", problem=TAKEN_OUT)
    assert groups(KnownVideos(cache), "x", "y") == ["ann", "bob"]


def test_what_came_since_is_not_what_it_began_with(cache):
    enter(cache, "a.avi", "x", "ann")
    enter(cache, "c.avi", "x", "cid")
    told = KnownVideos(cache)
    enter(cache, "b.avi", "x", "bob")
    assert groups(told, "x") == ["cid"]
    named = cache.clip("b.avi")
    assert told.of("x", named) is named  # another process knows better
    assert groups(KnownVideos(cache), "x") == ["bob"]


def test_a_new_part_is_of_its_files_group_if_that_has_one(cache):
    enter(cache, "s.avi#t=0,1", "x#t=0,1", "ann")
    assert groups(KnownVideos(cache), "x#t=1,2", "x") == ["ann", "ann"]
    enter(cache, "s.avi#t=1,2", "x#t=1,2", "bob")
    assert groups(KnownVideos(cache), "x#t=2,3", "x#t=0,1", "x#t=1,2") == [None, "ann", "bob"]
    enter(cache, "s.avi#t=0,1", "x#t=0,1", "ann", problem=TAKEN_OUT)
    assert groups(KnownVideos(cache), "x#t=2,3") == ["bob"]
    enter(cache, "s.avi#t=1,2", "x#t=1,2", "bob", problem=TAKEN_OUT)
    assert groups(KnownVideos(cache), "x#t=2,3") == [None]


def test_new_content_takes_the_place_of_its_name_unless_that_was_taken_out(cache):
    enter(cache, "a.avi", "x", "ann")
    named = cache.clip("a.avi")
    assert KnownVideos(cache).of("new", named) is named
    enter(cache, "a.avi", "x", "ann", problem=TAKEN_OUT)
    assert KnownVideos(cache).of("new", cache.clip("a.avi")) is None
    assert KnownVideos(cache).of("x", cache.clip("a.avi")).group == "ann"


@pytest.mark.parametrize(
    ("name", "known", "group", "expected"),
    [
        ("0.avi", None, None, None),
        ("v_Hop_g09_c01.avi", "ann", "Hop_g09", "ann"),
        ("v_Hop_g09_c01.avi", "Hop_g07", "Hop_g09", "Hop_g09"),  # the old name said so, nobody else
        ("0.avi", "Hop_g07", None, "Hop_g07"),
        ("v_Hop_g09_c01.avi", None, "Hop_g09", "Hop_g09"),
    ],
)
def test_what_was_told_counts_for_more_than_a_name(name, known, group, expected):
    old = HeldClip(clip_id="v_Hop_g07_c01.avi", video_sha256="x", label="Hop", group=known)
    assert group_beside(Clip(clip_id=name, label="Hop", group=group), old) == expected
