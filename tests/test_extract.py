from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL
from make_video import read_number, write_video

from fitrec_cache.backbones.backbone import Backbone, Network, load_backbone
from fitrec_cache.cache import TAKEN_OUT, Cache, newest, pick_features, pick_frames
from fitrec_cache.dataset.find_clips import find_clips
from fitrec_cache.errors import StoreError, UsageError, WeightsError, earlier
from fitrec_cache.extract import extract
from fitrec_cache.extraction import extractor, prefetch
from fitrec_cache.extraction.claims import Claims
from fitrec_cache.extraction.entries import EntryBuilder
from fitrec_cache.extraction.extract_report import ExtractReport, FailedClip
from fitrec_cache.extraction.extractor import Extractor
from fitrec_cache.extraction.history import history
from fitrec_cache.extraction.identity import what_changed
from fitrec_cache.extraction.known_videos import KnownVideos, as_extracted
from fitrec_cache.features import distinct_clips, load_cached
from fitrec_cache.info import info
from fitrec_cache.storage.store import Store
from fitrec_cache.texts import extract_text, info_text
from fitrec_cache.training.pixels import load_pixels
from fitrec_cache.video import contents, decoding
from fitrec_cache.video.jpeg import decode_frames


@pytest.fixture
def videos(tmp_path, video_folder):
    """Four clips of two classes, free to be changed."""
    root = tmp_path / "videos"
    for stem in ("Hop_g01", "Hop_g02", "Squat_g01", "Squat_g02"):
        name = f"{stem[:-4]}/v_{stem}_c01.avi"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video_folder / name, root / name)
    return root


@pytest.fixture
def run(tmp_path, videos, weights, inline):
    """``run()`` extracts ``videos`` with ``test_resnet``; arguments override."""

    def call(source=videos, *, backbone=("test_resnet",), **settings):
        given = [weights(b) for b in backbone]
        return extract(source, **{"cache": tmp_path / "cache", "backbone": given, **SMALL, **settings})

    return call


def counts(report):
    return report.clips, report.done, report.reused, len(report.failed)


def everything(folder):
    """Features of a cache: {(store folder, clip id): bits}."""
    cache = Cache(folder)
    return {
        (store.folder.name, clip.clip_id): store.row(clip.video_sha256)["features"].tobytes()
        for store in cache.feature_stores()
        for clip in cache.clips()
        if clip.video_sha256 in store
    }


def test_frames_and_features_are_those_of_the_video(run, tmp_path, videos, weights):
    report = run()
    assert counts(report) == (4, 4, 0, 0)
    assert report.backbones == {"test_resnet": 96}
    cache = Cache(tmp_path / "cache")
    assert [(c.clip_id, c.label, c.group) for c in cache.clips()] == [
        ("Hop/v_Hop_g01_c01.avi", "Hop", "Hop_g01"),
        ("Hop/v_Hop_g02_c01.avi", "Hop", "Hop_g02"),
        ("Squat/v_Squat_g01_c01.avi", "Squat", "Squat_g01"),
        ("Squat/v_Squat_g02_c01.avi", "Squat", "Squat_g02"),
    ]
    frames, features = cache.frame_stores()[0], cache.feature_stores()[0]
    plain = load_backbone(weights("test_resnet"), precision="fp32", device="cpu")
    for number, clip in ((0, cache.clips()[0]), (9, cache.clips()[3])):  # numbers as write_class_folders drew them
        pictures = decode_frames(frames.jpegs(clip.video_sha256))
        n_frames = 6 + number % 5
        assert [read_number(p) for p in pictures.permute(0, 2, 3, 1).numpy()] == [
            40 * number + i * n_frames // 5 for i in (1, 2, 3, 4)
        ]
        row = features.row(clip.video_sha256)
        assert np.array_equal(row["features"], plain.embed(pictures))
        assert row["pts_seconds"] == pytest.approx([i * n_frames // 5 / 25 for i in (1, 2, 3, 4)])


def test_a_second_call_reuses_everything_and_writes_nothing(run, tmp_path, inline):
    run()
    before = sorted(p for p in (tmp_path / "cache").rglob("*"))
    report = run()
    assert counts(report) == (4, 0, 4, 0)
    assert sorted(p for p in (tmp_path / "cache").rglob("*")) == before


def test_a_second_backbone_needs_no_video(run, videos, tmp_path, inline):
    run()
    first = everything(tmp_path / "cache")
    shutil.rmtree(videos)
    inline.decoded = []
    report = run(None, backbone=("test_resnet", "test_vit"), samples=None, frame_size=None)
    assert counts(report) == (4, 4, 0, 0)
    assert inline.decoded == []
    assert report.backbones == {"test_resnet": 96, "test_vit": 64}
    both = everything(tmp_path / "cache")
    assert len(both) == 8
    assert first.items() <= both.items()


def test_several_backbones_decode_each_clip_once(run, inline):
    assert counts(run(backbone=("test_resnet", "test_vit"))) == (4, 4, 0, 0)
    assert len(inline.decoded) == 4


def test_only_what_is_new_or_changed_is_decoded(run, videos, inline, tmp_path):
    run()
    write_video(videos / "Hop" / "new.mp4", 8, numbers=range(900, 908))
    assert counts(run()) == (5, 1, 4, 0)
    assert inline.decoded == ["new.mp4"]
    before = everything(tmp_path / "cache")
    write_video(videos / "Hop" / "new.mp4", 8, numbers=range(950, 958))
    assert counts(run()) == (5, 1, 4, 0)
    assert inline.decoded == ["new.mp4"]
    after = everything(tmp_path / "cache")
    assert [name for _, name in before if before[_, name] != after[_, name]] == ["Hop/new.mp4"]


def test_a_renamed_clip_is_not_decoded_again(run, videos, inline, tmp_path):
    run()
    (videos / "Squat" / "v_Squat_g01_c01.avi").rename(videos / "Squat" / "v_Squat_g07_c01.avi")
    inline.decoded = []
    assert counts(run()) == (4, 0, 4, 0)
    assert inline.decoded == []
    clips = {c.clip_id: c for c in Cache(tmp_path / "cache").clips()}
    assert clips["Squat/v_Squat_g07_c01.avi"].group == "Squat_g07"


@pytest.mark.parametrize("on_their_way", [1, 64])
def test_the_same_content_twice_is_decoded_once_and_named(run, videos, inline, tmp_path, monkeypatch, on_their_way):
    monkeypatch.setattr(
        "fitrec_cache.extraction.prefetch._MOST_CLIPS", on_their_way
    )  # with 1 the first is ready, not yet committed
    shutil.copy(videos / "Hop" / "v_Hop_g01_c01.avi", videos / "Squat" / "copy.avi")
    report = run()
    assert report.clips == 5
    assert (report.done, report.reused) in ((5, 0), (4, 1))
    assert len(inline.decoded) == 4
    (note,) = (n for n in report.notes if "same content" in n)
    assert note.startswith(
        "Squat/copy.avi has the same content as Hop/v_Hop_g01_c01.avi, but its class is Squat, not Hop"
    )
    found = everything(tmp_path / "cache")
    assert len(found) == 5
    assert len(set(found.values())) == 4
    files = sorted((tmp_path / "cache").rglob("*"))
    assert counts(run()) == (5, 0, 5, 0)
    assert sorted((tmp_path / "cache").rglob("*")) == files  # nothing had to be settled


def test_a_clip_whose_file_is_gone_stays_usable(run, videos, tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"{p.parent.name}/{p.name}\n" for p in sorted(videos.rglob("*.avi"))))
    run()
    before = Cache(tmp_path / "cache").clips()
    (videos / "Hop" / "v_Hop_g01_c01.avi").unlink()
    assert counts(run(tmp_path / "list.txt", root=videos)) == (4, 0, 3, 1)
    assert Cache(tmp_path / "cache").clips() == before


def test_what_another_run_entered_meanwhile_stays_usable(run, videos, tmp_path, monkeypatch):
    work = Extractor.work

    def others_first(self, *given, **settings):
        monkeypatch.setattr(Extractor, "work", work)
        assert run().done == 4
        (videos / "Hop" / "v_Hop_g01_c01.avi").unlink()
        work(self, *given, **settings)

    monkeypatch.setattr(Extractor, "work", others_first)
    assert counts(run()) == (4, 0, 3, 1)
    cache = Cache(tmp_path / "cache")
    assert [clip.problem for clip in cache.clips()] == [""] * 4
    assert len(list((tmp_path / "cache" / "clips").glob("part-*"))) == 1


@pytest.mark.parametrize("order", [("Hop", "Squat"), ("Squat", "Hop")])
def test_of_one_content_in_two_lists_the_last_entered_counts_until_all_videos_are_given(run, videos, tmp_path, order):
    """As docs/guide.md says of parts for several computers."""
    shutil.copy(videos / "Hop" / "v_Hop_g01_c01.avi", videos / "Squat" / "copy.avi")
    names = {"Hop": "Hop/v_Hop_g01_c01.avi", "Squat": "Squat/copy.avi"}

    def used():
        return [c.clip_id for c in distinct_clips(Cache(tmp_path / "cache"))[0] if c.clip_id in names.values()]

    for label in order:
        (tmp_path / "part.txt").write_text("".join(f"{label}/{p.name}\n" for p in (videos / label).iterdir()))
        assert not any("same content" in note for note in run(lists=[tmp_path / "part.txt"]).notes)
    assert used() == [names[order[1]]]
    report = run()
    assert counts(report) == (5, 0, 5, 0)
    assert any(note.startswith("Squat/copy.avi has the same content as Hop/") for note in report.notes)
    assert used() == [names["Hop"]]


@pytest.mark.parametrize("backwards", [False, True])
def test_of_one_content_in_two_classes_the_first_by_name_counts_in_whatever_order(
    run, videos, tmp_path, monkeypatch, backwards
):
    shutil.copy(videos / "Hop" / "v_Hop_g01_c01.avi", videos / "Squat" / "copy.avi")
    monkeypatch.setattr("fitrec_cache.extraction.extractor.COMMIT_CLIPS", 1)
    monkeypatch.setattr(
        random.SystemRandom, "shuffle", lambda _, blocks: blocks.sort(key=lambda b: b[0].clip_id, reverse=backwards)
    )
    (note,) = (n for n in run().notes if "same content" in n)
    assert note == (
        "Squat/copy.avi has the same content as Hop/v_Hop_g01_c01.avi, but its class is Squat, not Hop: training uses "
        "Hop; remove the wrong one"
    )
    kept, _ = distinct_clips(Cache(tmp_path / "cache"))
    assert "Hop/v_Hop_g01_c01.avi" in [clip.clip_id for clip in kept]
    assert "Squat/copy.avi" not in [clip.clip_id for clip in kept]


def test_a_clip_that_was_moved_back_counts_again(run, videos, tmp_path):
    there, back = videos / "Squat" / "moved.avi", videos / "Hop" / "v_Hop_g01_c01.avi"
    run()
    for source, target in ((back, there), (there, back)):
        source.rename(target)
        run()
        kept, _ = distinct_clips(Cache(tmp_path / "cache"))
        assert str(target.relative_to(videos)) in [clip.clip_id for clip in kept]
        assert len(kept) == 4


def test_no_more_decoders_start_than_there_are_clips(run, monkeypatch):
    asked = []

    class Noted(prefetch.Prefetcher):
        def __init__(self, *given, workers, **settings):
            asked.append(workers)
            super().__init__(*given, workers=workers, **settings)

    monkeypatch.setattr("fitrec_cache.extract.Prefetcher", Noted)
    run(workers=200)
    assert asked == [4]


def test_clips_whose_files_were_removed_are_told_and_can_be_taken_out(run, tmp_path, videos):
    run()
    gone = videos / "Hop/v_Hop_g01_c01.avi"
    kept = gone.read_bytes()
    gone.unlink()

    def trained():
        return [clip.clip_id for clip in distinct_clips(Cache(tmp_path / "cache"))[0]]

    told = "training will also use 1 clip of the cache not among these videos: Hop/v_Hop_g01_c01.avi. If"
    assert any(note.startswith(told) for note in run().notes)
    assert len(trained()) == 4
    report = run(prune=True)
    assert "removed, as not among these videos: 1 clip: Hop/v_Hop_g01_c01.avi" in report.notes
    assert trained() == ["Hop/v_Hop_g02_c01.avi", "Squat/v_Squat_g01_c01.avi", "Squat/v_Squat_g02_c01.avi"]
    assert not any("these videos" in note for note in run().notes)
    described = info(cache=tmp_path / "cache")
    assert (described.clips, described.failed, described.taken_out) == (3, 0, 1)
    assert "3 clips in 2 classes, 3 groups, 0 failed, 1 removed" in info_text(described)
    gone.write_bytes(kept)
    assert counts(run()) == (4, 0, 4, 0)  # what was stored of it is used again
    assert len(trained()) == 4
    with pytest.raises(UsageError, match="give VIDEOS, or leave it out"):
        run(None, prune=True, samples=None, frame_size=None)
    manifest = tmp_path / "misspelt.csv"
    manifest.write_text("path,label\nHop/v_Hop_g01_c01.MP4,Hop\n")
    with pytest.raises(UsageError, match=r"no file that .*misspelt.csv names is there, such as .*MP4: give the --root"):
        run(manifest, root=videos, prune=True)
    assert len(trained()) == 4


def test_what_another_extract_adds_once_files_are_listed_is_not_taken_out(run, tmp_path, videos, monkeypatch):
    run()
    gone = videos / "Hop/v_Hop_g01_c01.avi"
    data = gone.read_bytes()
    gone.unlink()
    with monkeypatch.context() as patch:

        def then_another(*given, **how):
            patch.undo()
            found = find_clips(*given, **how)
            (videos / "Hop/new.avi").write_bytes(data + b"\0")
            run()
            return found

        patch.setattr("fitrec_cache.extract.find_clips", then_another)
        run(prune=True)
    assert {"Hop/new.avi", "Hop/v_Hop_g01_c01.avi"} & set(labels_in(tmp_path / "cache")) == {"Hop/new.avi"}


def test_what_was_taken_out_is_said_where_nothing_is_left_to_train_on(run, tmp_path, videos):
    run()
    other = tmp_path / "other" / "Row"
    other.mkdir(parents=True)
    (other / "damaged.avi").write_bytes(b"no video")
    run(other.parent, prune=True)
    with pytest.raises(StoreError, match="4 were removed; extract with their VIDEOS brings them back"):
        load_cached(Cache(tmp_path / "cache"), ["test_resnet"])


def test_what_is_said_of_classes_minds_those_of_the_cache(run, tmp_path, videos):
    (tmp_path / "more.csv").write_text(
        "path,label,start,end,group\nHop/v_Hop_g01_c01.avi,Hop,0,0.2,\nHop/v_Hop_g02_c01.avi,Sqat,0,0.2,\n"
    )
    first = run(tmp_path / "more.csv", root=videos, cache=tmp_path / "new")
    assert [n for n in first.notes if n.startswith("class ")] == [
        f"class {name} has one clip: film two more, as training, choosing and testing each need one"
        for name in ("Hop", "Sqat")
    ]
    assert "no groups known; parts of one file count as one" in first.notes
    run()
    later = run(tmp_path / "more.csv", root=videos)
    told = [
        "class Sqat has one clip: film two more, as training, choosing and testing each need one",
        "class 'Sqat' is new to the cache: did you mean 'Squat'?",
    ]
    assert [n for n in later.notes if n.startswith("class ")] == told
    assert not any("no groups known" in note for note in later.notes)  # the cache's other clips have some


def test_clips_of_a_class_are_counted_with_those_of_the_cache(run, videos):
    hops = sorted((videos / "Hop").iterdir())
    for path in hops[1:]:
        path.rename(videos.parent / path.name)

    def told():
        return [note for note in run().notes if note.startswith("class Hop")]

    assert told() == ["class Hop has one clip: film two more, as training, choosing and testing each need one"]
    hops[0].rename(videos.parent / hops[0].name)  # it stays in the cache
    (videos.parent / hops[1].name).rename(hops[1])
    assert told() == ["class Hop has two clips: film one more, as training, choosing and testing each need one"]
    hops[1].rename(videos.parent / hops[1].name)
    (videos / "Hop" / "third.avi").write_bytes((videos.parent / hops[1].name).read_bytes() + b"\0")
    assert told() == []


def test_parts_that_a_table_no_longer_has_are_named(run, tmp_path, videos):
    run()
    table = tmp_path / "t.csv"
    rows = ["path,label,start,end", "Hop/v_Hop_g01_c01.avi,Hop,0,0.2", "Hop/v_Hop_g01_c01.avi,Squat,0.2,0.6"]
    table.write_text("\n".join(rows))
    assert not any("of these files" in note for note in run(table, root=videos).notes)
    table.write_text("\n".join([*rows[:2], "Hop/v_Hop_g01_c01.avi,,0.2,0.6"]))
    notes = run(table, root=videos).notes
    stale = "training will still use 1 part of these files no longer listed: Hop/v_Hop_g01_c01.avi#t="
    assert any(note.startswith(stale) for note in notes)
    assert any(note.startswith("training will also use 4 clips of the cache not among these videos") for note in notes)
    assert any(note.endswith("If that is not meant, `extract --prune` removes 5 clips") for note in notes)
    run(prune=True)  # as the README says: all parts are forgotten
    assert not any("of these files" in note for note in run(table, root=videos).notes)
    clips = {clip.clip_id for clip in distinct_clips(Cache(tmp_path / "cache"))[0]}
    assert len(clips) == 5


def test_of_many_clips_that_fail_for_one_reason_some_are_named(run, tmp_path):
    report = run()
    reasons = ["file not found"] * 30 + ["file is empty"] * 2
    failed = tuple(FailedClip(clip_id=f"c{i}", path="", reason=reason) for i, reason in enumerate(reasons))
    lines = extract_text(replace(report, failed=failed), tmp_path).splitlines()
    expected = [f"failed: c{i}: file not found" for i in range(5)] + ["failed: 25 more: file not found"]
    assert lines[:8] == [*expected, "failed: c30: file is empty", "failed: c31: file is empty"]
    assert "32 failed" in lines[8]


def labels_in(cache):
    return {clip.clip_id: (clip.label, clip.group) for clip in distinct_clips(Cache(cache))[0]}


def known_as_ann(run, tmp_path, videos, day=""):
    """Extract one clip whose name says no group by a manifest that does; return its file and the manifest."""
    path = next(videos.rglob("*.avi"))
    path.rename(path := path.with_name("0.avi"))
    manifest = tmp_path / "m.csv"
    more = (",day", f",{day}") if day else ("", "")
    manifest.write_text(f"path,label,group{more[0]}\n{path.relative_to(videos)},Hop,ann{more[1]}\n")
    run(manifest, root=videos)
    return path, manifest


def test_without_videos_names_classes_and_groups_stay_as_they_came_last(run, tmp_path, videos):
    run()
    (videos / "Hop/v_Hop_g01_c01.avi").rename(videos / "Squat/moved.avi")
    (videos / "Hop").rename(videos / "Jump")
    report = run()
    assert not any("these videos" in note or "same content" in note for note in report.notes)  # nothing was removed
    manifest = tmp_path / "groups.csv"
    rows = [path.relative_to(tmp_path) for path in sorted(videos.rglob("*.avi"))]
    manifest.write_text("path,label,group\n" + "".join(f"{r},{r.parent.name},day{i}\n" for i, r in enumerate(rows)))
    run(manifest)
    before = labels_in(tmp_path / "cache")
    assert {name.split("/", 1)[1]: of for name, of in before.items()} == {
        "Jump/v_Hop_g02_c01.avi": ("Jump", "day0"),
        "Squat/moved.avi": ("Squat", "day1"),
        "Squat/v_Squat_g01_c01.avi": ("Squat", "day2"),
        "Squat/v_Squat_g02_c01.avi": ("Squat", "day3"),
    }
    report = run(None, backbone=["test_vit"], samples=None, frame_size=None)
    assert counts(report) == (4, 4, 0, 0)
    assert labels_in(tmp_path / "cache") == before
    described = info(cache=tmp_path / "cache")
    assert (described.clips, described.failed, described.classes) == (4, 0, {"Jump": 1, "Squat": 3})
    pruned = run(manifest, prune=True)
    assert not any("removed" in note for note in pruned.notes)  # earlier names of what is there
    assert info(cache=tmp_path / "cache").taken_out == 0
    assert labels_in(tmp_path / "cache") == before


def test_a_folder_leaves_groups_and_columns_that_a_manifest_gave(run, tmp_path, videos):
    run()
    names = [str(path.relative_to(videos)) for path in sorted(videos.rglob("*.avi"))]
    manifest = tmp_path / "groups.csv"
    rows = "".join(f"{n},{n.split('/')[0]},room{i},mon\n" for i, n in enumerate(names))
    manifest.write_text("path,label,group,day\n" + rows)
    run(manifest, root=videos)
    before = labels_in(tmp_path / "cache")
    new = videos / "Hop" / "new.avi"
    write_video(new, 7, width=80, height=64, codec="mpeg4", numbers=range(900, 907))
    report = run()
    assert counts(report) == (5, 1, 4, 0)
    assert "no groups known" not in report.notes
    assert f"4 clips keep their earlier group and column day: {', '.join(names[:3])} and 1 more" in report.notes
    assert labels_in(tmp_path / "cache") == before | {"Hop/new.avi": ("Hop", None)}
    held = {clip.clip_id: clip.extra for clip in Cache(tmp_path / "cache").clips()}
    assert held == {name: {"day": "mon"} for name in names} | {"Hop/new.avi": {}}
    manifest.write_text("path,label,group\n" + "".join(f"{n},Jump,\n" for n in names))
    report = run(manifest, root=videos)  # a manifest means what it says
    assert any(
        note.startswith(f"4 clips are of another class than before: {names[0]} (Hop -> ") for note in report.notes
    )
    after = labels_in(tmp_path / "cache")
    assert [after[name] for name in names] == [("Jump", None)] * 4


def test_a_clip_that_was_renamed_or_moved_keeps_its_group_and_columns(run, tmp_path, videos):
    for i, path in enumerate(sorted(videos.rglob("*.avi"))):
        path.rename(path.with_name(f"{i}.avi"))  # which says no group
    names = [str(path.relative_to(tmp_path)) for path in sorted(videos.rglob("*.avi"))]  # seen from another folder
    manifest = tmp_path / "m.csv"
    rows = "".join(f"{n},{Path(n).parent.name},person{i % 2},mon\n" for i, n in enumerate(names))
    manifest.write_text("path,label,group,day\n" + rows)
    run(manifest)
    (videos / "Hop").rename(videos / "Jump")  # a class renamed, a clip that was in the wrong class, one of another name
    (videos / "Jump" / "0.avi").rename(videos / "Squat" / "0.avi")
    (videos / "Squat" / "3.avi").rename(videos / "Squat" / "v_Squat_g09_c01.avi")  # a name says less than was told
    write_video(videos / "Squat" / "new.avi", 7, width=80, height=64, codec="mpeg4", numbers=range(900, 907))
    report = run()
    assert counts(report) == (5, 1, 4, 0)
    expected = {"Squat/0.avi": "person0", "Jump/1.avi": "person1", "Squat/2.avi": "person0"}
    expected |= {"Squat/v_Squat_g09_c01.avi": "person1", "Squat/new.avi": None}
    held = {clip.clip_id: clip for clip in distinct_clips(Cache(tmp_path / "cache"))[0]}
    assert {name: clip.group for name, clip in held.items()} == expected
    assert {clip.extra.get("day") for name, clip in held.items() if name != "Squat/new.avi"} == {"mon"}
    assert any(n.startswith("1 new clip has no group") and n.endswith(": Squat/new.avi") for n in report.notes)
    assert sum("keep their earlier group and column day" in note for note in run().notes) == 1  # by their names now
    assert {c.clip_id: c.group for c in distinct_clips(Cache(tmp_path / "cache"))[0]} == expected


def test_a_video_that_takes_anothers_place_keeps_its_group_and_it_is_said(run, tmp_path, videos):
    path, manifest = known_as_ann(run, tmp_path, videos)
    write_video(path, 7, width=80, height=64, codec="mpeg4", numbers=range(900, 907))
    place, name = "1 clip has new content: it replaces the earlier video of that name", path.relative_to(videos)
    assert f"{place} and inherits its group or columns: {name} (ann)" in run().notes
    write_video(path, 8, width=80, height=64, codec="mpeg4", numbers=range(910, 918))
    # This one says the group itself.
    assert f"{place}: {name}" in run(manifest, root=videos).notes


def test_renumbered_files_keep_the_groups_of_their_videos_not_those_of_their_names(run, tmp_path, videos):
    folder = videos / "Hop"
    for path in list(videos.rglob("*.avi")):
        path.unlink()
    for i in range(4):
        write_video(
            folder / f"{i}.avi", 7, width=80, height=64, codec="mpeg4", numbers=range(900 + 10 * i, 907 + 10 * i)
        )
    manifest = tmp_path / "m.csv"
    people = ["ann", "", "cid", "dan"]  # nobody knows who the second is
    manifest.write_text("path,label,group\n" + "".join(f"Hop/{i}.avi,Hop,{who}\n" for i, who in enumerate(people)))
    run(manifest, root=videos)
    (folder / "0.avi").unlink()
    for i in (1, 2, 3):
        (folder / f"{i}.avi").rename(folder / f"{i - 1}.avi")
    report = run(prune=True)
    assert labels_in(tmp_path / "cache") == {f"Hop/{i}.avi": ("Hop", who or None) for i, who in enumerate(people[1:])}
    moved = "3 clips have a video that was cached under another name before"
    assert f"{moved}: Hop/0.avi, Hop/1.avi, Hop/2.avi" in report.notes
    (folder / "0.avi").rename(folder / "x.avi")  # two change places
    (folder / "1.avi").rename(folder / "0.avi")
    (folder / "x.avi").rename(folder / "1.avi")
    run()
    assert labels_in(tmp_path / "cache") == {
        "Hop/0.avi": ("Hop", "cid"),
        "Hop/1.avi": ("Hop", None),
        "Hop/2.avi": ("Hop", "dan"),
    }


@pytest.mark.parametrize("stop", [None, 3])
def test_files_numbered_upwards_keep_their_groups_also_where_that_is_interrupted(
    run, tmp_path, videos, monkeypatch, stop
):
    """One by one each takes the name of one that is not entered anew yet."""
    monkeypatch.setattr("fitrec_cache.extraction.extractor.COMMIT_CLIPS", 1)
    monkeypatch.setattr("random.SystemRandom.shuffle", lambda self, blocks: None)
    folder = videos / "Hop"
    for path in list(videos.rglob("*.avi")):
        path.unlink()
    for i in range(6):
        write_video(folder / f"{i}.avi", 7, width=80, height=64, codec="mpeg4", numbers=range(100 * i, 100 * i + 7))
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,label,group\n" + "".join(f"Hop/{i}.avi,Hop,p{i}\n" for i in range(6)))
    run(manifest, root=videos)
    for i in reversed(range(6)):
        (folder / f"{i}.avi").rename(folder / f"{i + 1}.avi")
    write_video(folder / "0.avi", 7, width=80, height=64, codec="mpeg4", numbers=range(900, 907))
    if stop is not None:
        entry, left = EntryBuilder.entry, iter(range(stop))

        def stopped(*given):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return entry(*given)

        monkeypatch.setattr(EntryBuilder, "entry", stopped)
        with pytest.raises(KeyboardInterrupt):
            run()
        monkeypatch.setattr(EntryBuilder, "entry", entry)
    run()
    groups = {name: group for name, (_, group) in labels_in(tmp_path / "cache").items()}
    assert groups == {"Hop/0.avi": "p0"} | {f"Hop/{i + 1}.avi": f"p{i}" for i in range(6)}


def test_what_was_told_of_a_video_counts_for_more_than_its_new_name(run, tmp_path, videos):
    names = [str(path.relative_to(videos)) for path in sorted(videos.rglob("*.avi"))]
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "path,label,group\n" + "".join(f"{n},{n.split('/')[0]},person{i}\n" for i, n in enumerate(names))
    )
    run(manifest, root=videos)
    for name in names:
        (videos / name).rename(videos / name.replace("_c01", "_c11"))  # which say the groups of UCF101
    found = find_clips(videos)
    expected = {name.replace("_c01", "_c11"): f"person{i}" for i, name in enumerate(names)}
    assert {c.clip_id: c.group for c in as_extracted(found, tmp_path / "cache", read=True)} == expected
    run(prune=True)
    assert {name: group for name, (_, group) in labels_in(tmp_path / "cache").items()} == expected


def test_a_group_that_was_corrected_stays_so_where_a_file_gets_its_old_name_again(run, tmp_path, videos):
    path = next(videos.rglob("*.avi"))
    path.rename(path := path.with_name("0.avi"))
    manifest = tmp_path / "m.csv"
    for name, who in (("0.avi", "ann"), ("x.avi", "bob")):
        path.rename(path := path.with_name(name))
        manifest.write_text(f"path,label,group\n{path.relative_to(videos)},Hop,{who}\n")
        run(manifest, root=videos)
    path.rename(path := path.with_name("0.avi"))
    run()
    assert labels_in(tmp_path / "cache")[str(path.relative_to(videos))][1] == "bob"


def test_a_new_video_by_the_name_of_one_that_was_taken_out_is_another_ones(run, tmp_path, videos):
    path, _ = known_as_ann(run, tmp_path, videos)
    path.unlink()
    run(prune=True)
    write_video(path, 7, width=80, height=64, codec="mpeg4", numbers=range(900, 907))
    report = run()
    name = str(path.relative_to(videos))
    assert labels_in(tmp_path / "cache")[name][1] is None
    assert any(note.startswith("1 new clip has no group") and note.endswith(name) for note in report.notes)


@pytest.mark.parametrize("first", ["0.avi#t=0,0.15", "0.avi"])
def test_parts_that_are_cut_anew_keep_the_group_of_their_file(run, tmp_path, videos, first):
    path = next(videos.rglob("*.avi"))
    path.rename(path := path.with_name("0.avi"))
    others = sorted(p for p in videos.rglob("*.avi") if p != path)
    manifest, label = tmp_path / "m.csv", path.parent.name
    manifest.write_text(f'path,label,group\n"{label}/{first}",{label},ann\n{others[0].relative_to(videos)},Hop,ann\n')
    run(manifest, root=videos)
    manifest.write_text(f"path,label,start,end\n{label}/0.avi,{label},0,0.2\n{others[0].relative_to(videos)},Hop,,\n")
    run(manifest, root=videos, prune=True)
    assert {group for _, group in labels_in(tmp_path / "cache").values()} == {"ann"}


def test_groups_that_a_manifest_leaves_empty_stay_so_without_videos(run, tmp_path, videos):
    first = sorted(videos.rglob("*.avi"))[0]
    (first.parent / "0.avi").write_bytes(first.read_bytes())
    names = [str(path.relative_to(videos)) for path in sorted(videos.rglob("*.avi"))]
    manifest = tmp_path / "m.csv"
    run()
    manifest.write_text("path,label,group\n" + "".join(f"{name},{name.split('/')[0]},\n" for name in names[:1]))
    run(manifest, root=videos)
    before = labels_in(tmp_path / "cache")
    assert before["Hop/0.avi"] == ("Hop", None)
    run(None)
    assert labels_in(tmp_path / "cache") == before


def test_a_group_that_was_corrected_stays_so_where_the_earlier_name_is_taken_out(run, tmp_path, videos):
    path, manifest = known_as_ann(run, tmp_path, videos, day="mon")
    path.rename(path := path.with_name("x.avi"))
    run()
    manifest.write_text(f"path,label,group,day\n{path.relative_to(videos)},Hop,bob,sun\n")
    run(manifest, root=videos, prune=True)
    run()
    held = {clip.clip_id: clip for clip in distinct_clips(Cache(tmp_path / "cache"))[0]}
    clip = held[str(path.relative_to(videos))]
    assert (clip.group, clip.extra) == ("bob", {"day": "sun"})


def test_parts_that_are_cut_anew_have_the_group_that_counts_now(run, tmp_path, videos):
    path = next(videos.rglob("*.avi"))
    path.rename(path := path.with_name("0.avi"))
    manifest, name = tmp_path / "m.csv", path.relative_to(videos)
    for cells, columns in (("0,0.1,ann", ",group"), ("0,0.2,bob", ",group"), ("0.1,0.3", "")):
        manifest.write_text(f"path,label,start,end{columns}\n{name},Hop,{cells}\n")
        run(manifest, root=videos, prune=True)
    assert labels_in(tmp_path / "cache") == {f"{name}#t=0.1,0.3": ("Hop", "bob")}


def test_parts_of_a_name_that_says_a_group_have_that_of_a_new_name(run, tmp_path, videos):
    path = videos / "Hop/v_Hop_g01_c01.avi"
    manifest = tmp_path / "m.csv"
    for name in ("Hop_g01.avi", "Hop_g07.avi"):
        path.rename(path := path.with_name(name))
        manifest.write_text(f"path,label,start,end\nHop/{name},Hop,0,0.1\nHop/{name},Hop,0.1,0.3\n")
        run(manifest, root=videos)
    assert {group for _, group in labels_in(tmp_path / "cache").values()} == {"Hop_g07"}


def test_what_another_process_was_told_meanwhile_counts(run, tmp_path, videos):
    path = next(videos.rglob("*.avi"))
    path.rename(path := path.with_name("0.avi"))
    manifest, cache = tmp_path / "m.csv", tmp_path / "cache"
    run()
    path.rename(path := path.with_name("x.avi"))
    manifest.write_text(f"path,label,group\n{path.relative_to(videos)},Hop,ann\n")
    run(manifest, root=videos)
    told = KnownVideos(Cache(cache))
    manifest.write_text(f"path,label,group\n{path.relative_to(videos)},Hop,bob\n")
    run(manifest, root=videos)
    clip = Cache(cache).clip(str(path.relative_to(videos)))
    assert told.of(clip.video_sha256, clip).group == "bob"
    assert told.of(clip.video_sha256, None).group == "ann"  # what it began with


def test_copies_of_several_groups_are_told_and_one_without_is_of_the_others(run, tmp_path, videos):
    first = sorted(videos.rglob("*.avi"))[0]
    (first.parent / "0.avi").write_bytes(first.read_bytes())
    manifest, name = tmp_path / "m.csv", first.relative_to(videos)
    manifest.write_text(f"path,label,group\nHop/0.avi,Hop,\n{name},Hop,ann\n")
    run(manifest, root=videos)
    assert labels_in(tmp_path / "cache")["Hop/0.avi"] == ("Hop", "ann")
    manifest.write_text(f"path,label,group\nHop/0.avi,Hop,bob\n{name},Hop,ann\n")
    notes = run(manifest, root=videos).notes
    assert labels_in(tmp_path / "cache")["Hop/0.avi"] == ("Hop", "bob")
    copies = f"{name} has the same content as Hop/0.avi, but its group is ann, not bob: bob is used"
    assert copies in notes


def test_of_a_run_that_is_interrupted_what_was_entered_is_told(run, tmp_path, videos, monkeypatch):
    path, _ = known_as_ann(run, tmp_path, videos)
    name = path.relative_to(videos)
    write_video(path, 7, width=80, height=64, codec="mpeg4", numbers=range(900, 907))

    def stop(self, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Extractor, "_settle_names", stop)
    told = []
    with pytest.raises(KeyboardInterrupt):
        run(tell=told.append)
    heir = "1 clip has new content: it replaces the earlier video of that name and inherits its group or columns"
    assert f"{heir}: {name} (ann)" in told


@pytest.mark.parametrize("between", ["other frames", "taken out"])
def test_a_renamed_clip_keeps_its_group_with_other_frames_and_when_it_was_away(run, tmp_path, videos, between):
    path, _ = known_as_ann(run, tmp_path, videos)
    away = path.rename(tmp_path / "away.avi")
    if between == "taken out":
        run(prune=True)
    away.rename(new := path.with_name("1.avi"))
    run(samples=3 if between == "other frames" else None)
    assert labels_in(tmp_path / "cache")[str(new.relative_to(videos))][1] == "ann"


def test_a_copy_whose_name_says_no_group_is_of_the_group_that_the_others_name_says(run, tmp_path, videos):
    first = sorted(videos.rglob("*.avi"))[0]
    (first.parent / "0.avi").write_bytes(first.read_bytes())  # by its name the first, which is the one that counts
    report = run()
    assert labels_in(tmp_path / "cache")["Hop/0.avi"] == ("Hop", "Hop_g01")
    assert "1 clip has the group or columns of another clip with the same content: Hop/0.avi" in report.notes
    assert not any("another clip with the same content" in note for note in run().notes)
    with (tmp_path / "m.csv").open("w") as file:  # a manifest means what it says
        file.write("path,label,group\nHop/0.avi,Hop,\n")
    run(tmp_path / "m.csv", root=videos)
    assert labels_in(tmp_path / "cache")["Hop/0.avi"] == ("Hop", None)


def test_a_video_that_cannot_be_read_any_more_is_used_as_it_was_and_that_is_said(run, tmp_path, videos):
    run()
    before = labels_in(tmp_path / "cache")
    path = sorted(videos.rglob("*.avi"))[0]
    name = str(path.relative_to(videos))
    path.write_bytes(b"")
    for report, more in ((run(), ""), (run(prune=True, erase=True), "; nothing was erased for them")):
        (note,) = (n for n in report.notes if "failed this time" in n)
        assert note == (
            f"1 clip failed this time, and training still uses what is cached of the earlier video of that name{more}: "
            f"{name}. To remove such a clip, delete its file, and its rows in any manifest or list, then run with "
            "--prune"
        )
    assert labels_in(tmp_path / "cache") == before
    path.unlink()
    run(prune=True)
    assert labels_in(tmp_path / "cache").keys() == before.keys() - {name}


def test_of_a_failed_file_without_features_of_this_backbone_nothing_is_said_to_be_trained_on(run, videos):
    run()
    next(videos.rglob("*.avi")).write_bytes(b"")
    report = run(backbone=["test_vit"])
    assert len(report.failed) == 1
    assert not any("failed this time" in note for note in report.notes)
    assert any("failed this time" in note for note in run().notes)


def test_a_clip_of_fewer_frames_than_are_sampled_is_told(run, videos):
    write_video(videos / "Hop" / "short.avi", 3, width=80, height=64, codec="mpeg4", numbers=range(900, 903))
    (note,) = (n for n in run().notes if "so short" in n)
    assert note.startswith("1 clip is used though the file is not quite in order")
    assert "so short that its 4 samples show only 3 frames" in note


def test_groups_stay_where_a_manifest_has_no_column_of_them(run, tmp_path, videos):
    names = [str(path.relative_to(videos)) for path in sorted(videos.rglob("*.avi"))]
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "path,label,person\n" + "".join(f"{n},{n.split('/')[0]},p{i % 2}\n" for i, n in enumerate(names))
    )
    run(manifest, root=videos, group_by="person")
    before = labels_in(tmp_path / "cache")
    assert {group for _, group in before.values()} == {"p0", "p1"}
    report = run(manifest, root=videos)
    assert labels_in(tmp_path / "cache") == before
    assert f"4 clips keep their earlier group: {', '.join(names[:3])} and 1 more" in report.notes
    assert not any("groups known" in note or "--group-by" in note for note in report.notes)
    manifest.write_text("path,label,group\n" + "".join(f"{n},{n.split('/')[0]},\n" for n in names))
    assert "no groups known" in run(manifest, root=videos).notes  # which an empty column says
    assert {group for _, group in labels_in(tmp_path / "cache").values()} == {None}


def test_new_groups_are_not_called_earlier_ones_because_columns_stay(run, tmp_path, videos):
    names = [str(path.relative_to(videos)) for path in sorted(videos.rglob("*.avi"))]
    manifest = tmp_path / "m.csv"
    rows = "".join(f"{n},{n.split('/')[0]},room,mon,\n" for n in names)
    manifest.write_text("path,label,group,day,camera\n" + rows)
    run(manifest, root=videos)
    manifest.write_text("path,label,group\n" + "".join(f"{n},{n.split('/')[0]},anna\n" for n in names))
    (note,) = (note for note in run(manifest, root=videos).notes if "earlier" in note)
    assert note.startswith("4 clips keep their earlier column day: ")
    assert {group for _, group in labels_in(tmp_path / "cache").values()} == {"anna"}


def test_columns_that_stay_do_not_hide_that_no_groups_are_known(run, tmp_path, videos):
    for i, path in enumerate(sorted(videos.rglob("*.avi"))):
        path.rename(path.with_name(f"{i}.avi"))  # which says no group
    names = [str(path.relative_to(videos)) for path in sorted(videos.rglob("*.avi"))]
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,label,day\n" + "".join(f"{n},{n.split('/')[0]},mon\n" for n in names))
    run(manifest, root=videos)
    report = run()
    assert any(note.startswith("4 clips keep their earlier column day:") for note in report.notes)
    assert "no groups known" in report.notes


def test_groups_that_are_asked_for_replace_those_of_before_and_leave_columns(run, tmp_path, videos):
    manifest = tmp_path / "groups.csv"
    names = [str(path.relative_to(videos)) for path in sorted(videos.rglob("*.avi"))]
    manifest.write_text("path,label,group,day\n" + "".join(f"{n},{n.split('/')[0]},room,mon\n" for n in names))
    run(manifest, root=videos)
    for name in names:  # the same ids, in folders of their own
        folder, file = videos / name.split("/")[0], name.split("/")[1]
        (folder / "anna").mkdir(exist_ok=True)
        (folder / file).rename(folder / "anna" / file)
    run(videos, group_by="folder")
    clips = {clip.clip_id: clip for clip in Cache(tmp_path / "cache").clips()}
    moved = [f"{n.split('/')[0]}/anna/{n.split('/')[1]}" for n in names]
    assert {clips[n].group for n in moved} == {"anna"}
    moved_rows = "".join(f"{n},{n.split('/')[0]},room,tue\n" for n in moved)
    manifest.write_text("path,label,group,day\n" + moved_rows)
    run(manifest, root=videos)
    run(videos, group_by="folder")
    clips = {clip.clip_id: clip for clip in Cache(tmp_path / "cache").clips()}
    assert {(clips[n].group, clips[n].extra["day"]) for n in moved} == {("anna", "tue")}
    with pytest.raises(UsageError, match="--group-by takes groups from VIDEOS"):
        run(None, group_by="folder")


def test_groups_of_clips_that_are_taken_out_are_none_that_others_have(run, tmp_path):
    run()
    (tmp_path / "other" / "Hop").mkdir(parents=True)
    write_video(tmp_path / "other" / "Hop" / "a.mp4", 8, numbers=range(900, 908))
    assert "no groups known" not in run(tmp_path / "other").notes
    assert "no groups known" in run(tmp_path / "other", prune=True).notes


def test_a_new_clip_without_a_group_is_told_where_others_have_one(run, tmp_path, videos):
    for path in sorted(videos.rglob("*.avi")):
        (path.parent / "anna").mkdir(exist_ok=True)
        path.rename(path.parent / "anna" / f"{path.stem.replace('_g', 'x')}.avi")  # no number of a group
    run(videos, group_by="folder")
    assert not any("no group" in note for note in run(videos).notes)  # what is there keeps its own
    first = next(videos.rglob("*.avi"))
    (first.parent / "new.avi").write_bytes(first.read_bytes() + b"\0")
    (note,) = (n for n in run(videos).notes if "no group" in n)
    assert note.startswith("1 new clip has no group, as others have")
    assert note.endswith("anna/new.avi")


def test_a_failed_clip_that_was_removed_is_taken_out_too(run, tmp_path, videos):
    bad = videos / "Hop" / "bad.avi"
    bad.write_bytes(b"no video")
    run()
    bad.unlink()
    assert not any("not among these videos" in note for note in run().notes)  # it was never trained on
    run(prune=True)
    assert info(cache=tmp_path / "cache").failed == 0


def test_clips_that_were_not_asked_for_are_not_taken_for_removed(run, tmp_path, videos):
    run()
    asked = run(classes="Squat")
    told = "2 clips of the cache were not asked for this time; train-head uses them too, except what its --classes "
    told += "leaves out: Hop/v_Hop_g01_c01.avi, Hop/"
    assert any(note.startswith(told) for note in asked.notes)
    assert not any("--prune" in note for note in asked.notes)
    (videos / "Squat/v_Squat_g01_c01.avi").unlink()
    Cache(tmp_path / "cache").begin(["Hop/v_Hop_g01_c01.avi", "Hop/never.avi"])
    run(classes="Squat", prune=True)
    assert len(info(cache=tmp_path / "cache").notes) == 1  # of clips that were not asked for now nothing is forgotten
    assert sorted(labels_in(tmp_path / "cache")) == [
        "Hop/v_Hop_g01_c01.avi",
        "Hop/v_Hop_g02_c01.avi",
        "Squat/v_Squat_g02_c01.avi",
    ]


def test_many_copies_are_told_in_one_line(run, tmp_path, videos):
    for k in range(3):
        shutil.copy(videos / "Hop/v_Hop_g01_c01.avi", videos / "Squat" / f"copy{k}.avi")
    (note,) = (note for note in run().notes if "same content" in note)
    assert note.startswith("Squat/copy0.avi has the same content as Hop/v_Hop_g01_c01.avi, and 2 more such clips, but")
    (note,) = distinct_clips(Cache(tmp_path / "cache"))[1]
    assert note == (
        "Squat/copy0.avi has the same content as Hop/v_Hop_g01_c01.avi and 2 more have the same content as others, now "
        "of class Hop, not Squat: left out"
    )


def test_a_class_whose_videos_are_all_in_another_one_is_named(run, tmp_path, videos):
    run()
    assert not any("no clip left" in note for note in distinct_clips(Cache(tmp_path / "cache"))[1])
    shutil.copytree(videos / "Squat", videos / "Aqua")
    run()
    told = "class has no clip left, as other classes have the same videos: "
    notes = distinct_clips(Cache(tmp_path / "cache"))[1]
    assert [note for note in notes if "no clip left" in note] == [f"1 {told}Squat"]


def test_a_cache_that_can_only_be_read_serves_where_all_is_done(run, tmp_path, videos, weights, monkeypatch):
    run()

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert counts(run()) == (4, 0, 4, 0)
    monkeypatch.setattr(
        "fitrec_cache.storage.store.write_atomic", lambda *_: (_ for _ in ()).throw(StoreError("read-only"))
    )
    moved = shutil.copy(weights("test_resnet").partition("=")[2], tmp_path / "moved.safetensors")
    again = extract(videos, cache=tmp_path / "cache", backbone=[f"test_resnet={moved}"], **SMALL)
    assert counts(again) == (4, 0, 4, 0)


def test_a_full_disk_is_told_once(run, monkeypatch):
    def refuse(path, _):
        raise StoreError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("fitrec_cache.storage.store.write_atomic", refuse)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        run()
    assert earlier(caught.value) == []


def test_what_could_not_be_looked_for_is_not_taken_out(run, tmp_path, videos):
    run()
    (videos / "Hop").rename(tmp_path / "Hop")
    (videos / "Hop").symlink_to(tmp_path / "away")
    with pytest.raises(UsageError, match=r"--prune .* but .*Hop cannot be read"):
        run(prune=True)
    assert len(distinct_clips(Cache(tmp_path / "cache"))[0]) == 4
    (videos / "Hop").unlink()
    (videos / "Hop").symlink_to(tmp_path / "Hop")
    assert not any("these videos" in note for note in run(prune=True).notes)


def test_a_wrong_call_leaves_no_empty_cache(run, tmp_path):
    with pytest.raises(UsageError, match="preset"):
        run(preset="nativ")
    assert not (tmp_path / "cache").exists()


def test_a_precision_that_costs_time_is_told(run, monkeypatch):
    monkeypatch.setattr("fitrec_cache.common.precision.computes_in_bf16", lambda _: False)
    (note,) = (note for note in run(precision="bf16").notes if "instructions" in note)
    assert note == "bf16 takes longer than fp32 on this device, which has no fast instructions for it"
    assert not any("instructions" in note for note in run(precision="fp32").notes)


def test_a_gpu_without_room_for_a_clip_is_told_and_costs_no_finished_clip(run, monkeypatch):
    def full(model, x):
        if next(left, None) is None:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(model, x)

    real, left = Network.forward, iter(range(3))  # the first is the black frame that tells the length
    monkeypatch.setattr(Network, "forward", full)
    with pytest.raises(
        UsageError, match=r"test_resnet on clips of 4 frames does not fit .* out of memory.*--device cpu"
    ):
        run()
    monkeypatch.setattr(Network, "forward", real)
    report = run()
    assert (report.reused, report.done) == (2, 2)


def test_without_a_hub_the_file_by_which_the_cache_has_features_is_named(run, tmp_path, weights, monkeypatch):
    def no_hub(name):
        raise WeightsError(f"no weights of {name}")

    monkeypatch.setattr("fitrec_cache.backbones.pretrained._from_hub", no_hub)
    wanted = {"cache": tmp_path / "cache", "backbone": ["test_resnet"], **SMALL}
    with pytest.raises(WeightsError, match=r"no weights of test_resnet$"):
        extract(**wanted | {"cache": tmp_path / "none"}, videos=tmp_path)
    run()
    given = weights("test_resnet")
    with pytest.raises(WeightsError, match=rf"The cache has features of test_resnet by --backbone {re.escape(given)}$"):
        extract(**wanted)
    with pytest.raises(WeightsError, match=r"no weights of test_vit$"):
        extract(**wanted | {"backbone": ["test_vit"]})


def test_what_changed_names_settings_that_only_one_side_has():
    changed = what_changed({"a": 1, "compiled": "x", "size": {"w": 2}}, {"a": 1, "size": {"w": 3}, "new": 4})
    assert changed == "compiled: x -> None; size.w: 2 -> 3; new: None -> 4"


def test_an_extraction_that_computes_nothing_leaves_what_it_says_of_the_computation(run, tmp_path, monkeypatch):
    run()
    (path,) = (tmp_path / "cache").glob("features/*/origin.json")
    before = json.loads(path.read_text())
    monkeypatch.setattr("fitrec_cache.backbones.backbone.timm.__version__", "9.9.9")
    assert run().done == 0
    assert json.loads(path.read_text()) == before
    path.write_text(json.dumps(before | {"weights": "where they were"}))
    run()  # only where the weights are now is told
    assert json.loads(path.read_text()) == before


def test_frames_that_are_left_out_or_chosen_among_several_are_told(run, videos, tmp_path):
    run()
    write_video(videos / "Hop" / "later.mp4", 8, numbers=range(950, 958))
    run(samples=2, classes="Hop")
    data = load_pixels(Cache(tmp_path / "cache"))
    assert data.values.shape[:2] == (4, 4)
    assert data.notes == [
        "1 clip has no frames of these settings: left out",
        "the cache holds frames of several settings: those of most clips are taken (samples 4)",
    ]


def test_of_frames_by_several_decoders_the_latest_of_the_fullest_are_taken_and_told(run, tmp_path, monkeypatch):
    for version in "123":
        monkeypatch.setattr("fitrec_cache.video.container.decoder_version", lambda v=version: v)
        run()
        chosen, notes = pick_frames(Cache(tmp_path / "cache"))
        assert chosen.identity["decoder"] == version
        assert (notes == []) == (version == "1")
    assert "those of most clips are taken (decoder 3)" in notes[0]
    assert notes[0] in run(None, backbone=("test_vit",)).notes


def test_clips_that_were_taken_out_do_not_make_a_store_the_fullest(run, videos, tmp_path, monkeypatch):
    for version, there in (("1", True), ("2", False)):
        monkeypatch.setattr("fitrec_cache.video.container.decoder_version", lambda v=version: v)
        extra = videos / "Hop" / "extra.mp4"
        write_video(extra, 8, numbers=range(950, 958)) if there else extra.unlink()
        run(prune=True)
    cache = Cache(tmp_path / "cache")
    frames, features = cache.frame_stores(), cache.feature_stores()
    assert sorted(map(len, frames)) == sorted(map(len, features)) == [4, 5]
    assert pick_frames(cache)[0].identity["decoder"] == "2"
    assert pick_features(cache, "test_resnet")[0].identity["frames"]["decoder"] == "2"


def test_bad_clips_cost_themselves_only_and_are_named_with_the_reason(run, videos, tmp_path):
    (videos / "Hop" / "empty.mp4").touch()
    (videos / "Hop" / "text.avi").write_text("words")
    (videos / "Squat" / "also-text.avi").write_text("words")
    report = run()
    assert counts(report) == (7, 4, 0, 3)
    failed = {f.clip_id: f for f in report.failed}
    assert failed["Hop/empty.mp4"].reason == "file is empty (0 bytes): copy or download it again"
    assert failed["Hop/text.avi"].reason.startswith("a text, not a video")
    assert failed["Squat/also-text.avi"].reason.startswith("same content as Hop/text.avi, which failed: ")
    assert failed["Hop/empty.mp4"].path == str(videos / "Hop" / "empty.mp4")
    problems = {c.clip_id: c.problem for c in Cache(tmp_path / "cache").clips() if c.problem}
    beside = "same content as Hop/text.avi, which failed: "  # not kept: another time it may be the other way round
    assert problems == {k: f.reason.removeprefix(beside) for k, f in failed.items()}
    # Mended, it is done at the next call.
    write_video(videos / "Hop" / "empty.mp4", 7, numbers=range(700, 707))
    assert counts(run()) == (7, 1, 4, 2)
    assert {c.clip_id for c in Cache(tmp_path / "cache").clips() if c.problem} == failed.keys() - {"Hop/empty.mp4"}


def test_a_class_of_bad_clips_only_is_named(run, videos):
    (videos / "Row").mkdir()
    for name in ("Row/a.avi", "Row/b.avi", "Hop/c.avi"):
        (videos / name).write_bytes(b"no video")
    lost = [note for note in run().notes if "can be used" in note]
    assert lost == ["class Row: none of its clips can be used, so it will not be recognised"]


def test_a_file_that_is_deleted_before_it_is_decoded_is_not_said_to_be_still_copied(run, videos, monkeypatch):
    gone, decode = videos / "Hop" / "v_Hop_g01_c01.avi", decoding._work

    def deleted_before(job):
        if job.path == gone:
            gone.unlink(missing_ok=True)
        return decode(job)

    monkeypatch.setattr(decoding, "_work", deleted_before)
    (failed,) = run().failed
    assert failed.clip_id == "Hop/v_Hop_g01_c01.avi"
    assert "changed" not in failed.reason
    assert failed.reason == "file not found"


def test_a_file_that_changes_while_it_is_read_is_not_kept_under_its_old_content(run, videos, tmp_path, monkeypatch):
    """As a copy that still runs does: hashed with some bytes, decoded with others."""
    growing = videos / "Hop" / "v_Hop_g01_c01.avi"
    whole, decode = growing.read_bytes(), decoding._work

    def copied_meanwhile(job):
        if job.path == growing:
            growing.write_bytes(whole + b"more")
        return decode(job)

    monkeypatch.setattr(decoding, "_work", copied_meanwhile)
    report = run()
    assert [f.clip_id for f in report.failed] == ["Hop/v_Hop_g01_c01.avi"]
    assert "changed while it was read" in report.failed[0].reason
    assert hashlib.sha256(whole).hexdigest() not in Cache(tmp_path / "cache").frame_stores()[0]
    monkeypatch.undo()
    assert counts(run()) == (4, 1, 3, 0)


def test_a_folder_of_bad_clips_only_fails_them_all(run, tmp_path):
    bad = tmp_path / "bad" / "Hop" / "empty.mp4"
    bad.parent.mkdir(parents=True)
    bad.touch()
    assert counts(run(tmp_path / "bad")) == (1, 0, 0, 1)


@pytest.mark.parametrize("change", [{"samples": 3}, {"frame_size": 48}])
def test_other_frame_settings_make_another_store_and_say_so(run, tmp_path, change):
    run()
    first = everything(tmp_path / "cache")
    report = run(**change)
    assert counts(report) == (4, 4, 0, 0)
    name, new = next(iter(change.items()))
    old_name, old = {"samples": ("samples", 4), "frame_size": ("short_side", 64)}[name]
    assert any(f"{old_name}: {old} -> {new}" in n and "decoding again" in n for n in report.notes)
    cache = Cache(tmp_path / "cache")
    assert len(cache.frame_stores()) == len(cache.feature_stores()) == 2
    assert first.items() <= everything(tmp_path / "cache").items()
    assert counts(run()) == (4, 0, 4, 0)


@pytest.mark.parametrize("change", [{"preset": "paper"}, {"precision": "bf16"}])
def test_other_backbone_settings_embed_again_without_decoding(run, tmp_path, inline, change):
    run()
    inline.decoded = []
    assert counts(run(**change)) == (4, 4, 0, 0)
    assert inline.decoded == []
    assert len(Cache(tmp_path / "cache").feature_stores()) == 2


def test_other_weights_of_the_same_name_are_kept_apart(run, tmp_path, weights, inline):
    run()
    inline.decoded = []
    report = extract(None, cache=tmp_path / "cache", backbone=[weights("test_resnet", seed=1)], device="cpu")
    assert counts(report) == (4, 4, 0, 0)
    assert len(Cache(tmp_path / "cache").feature_stores()) == 2


def test_frames_smaller_than_the_backbone_wants_are_warned_about(run):
    assert any("test_resnet wants 160 px" in n and "--frame-size 160" in n for n in run().notes)
    assert not any("wants" in n for n in run(frame_size=160).notes)


def test_manifest_list_and_classes_choose_clips(run, videos, tmp_path):
    manifest = tmp_path / "clips.csv"
    manifest.write_text("path,label,group,split\nHop/v_Hop_g01_c01.avi,Jump,kitchen,train\n")
    assert counts(run(manifest, root=videos, cache=tmp_path / "a")) == (1, 1, 0, 0)
    clip = Cache(tmp_path / "a").clips()[0]
    assert (clip.label, clip.group, dict(clip.extra)) == ("Jump", "kitchen", {"split": "train"})
    listed = tmp_path / "list.txt"
    listed.write_text("Squat/v_Squat_g02_c01.avi 2\n")
    assert counts(run(lists=[listed], cache=tmp_path / "b")) == (1, 1, 0, 0)
    assert counts(run(classes="Squat", cache=tmp_path / "c")) == (2, 2, 0, 0)


def test_clips_that_are_parts_of_a_file_are_extracted_apart_and_read_once(run, tmp_path, monkeypatch):
    for name in ("one.mp4", "two.mp4"):
        write_video(
            tmp_path / name, 100, width=64, height=64, numbers=range(*((100,) if name == "one.mp4" else (100, 200)))
        )
    rows = "one.mp4,Squat,0,2\none.mp4,Hop,2,4\ntwo.mp4,Squat,0,1\ntwo.mp4,Squat,1,\ntwo.mp4,Hop,9,10\n"
    (tmp_path / "m.csv").write_text(f"path,label,start,end\n{rows}")
    hashed, real = [], contents.content_hash
    monkeypatch.setattr(contents, "content_hash", lambda path: hashed.append(path.name) or real(path))
    report = run(tmp_path / "m.csv")
    assert sorted(hashed) == ["one.mp4", "two.mp4"]
    assert counts(report) == (5, 4, 0, 1)
    assert report.failed[0].clip_id == "two.mp4#t=9,10"
    assert "no frame in its part #t=9,10" in report.failed[0].reason
    cache = Cache(tmp_path / "cache")
    (frames,) = cache.frame_stores()
    drawn = {}
    for clip in cache.clips():
        if not clip.problem:
            pictures = decode_frames(frames.jpegs(clip.video_sha256)).permute(0, 2, 3, 1).numpy()
            drawn[clip.clip_id, clip.label, clip.group] = [read_number(picture) for picture in pictures]
    first, many = [i * 50 // (SMALL["samples"] + 1) for i in range(1, SMALL["samples"] + 1)], SMALL["samples"]
    assert drawn == {
        ("one.mp4#t=0,2", "Squat", "one.mp4"): first,
        ("one.mp4#t=2,4", "Hop", "one.mp4"): [50 + i for i in first],
        ("two.mp4#t=0,1", "Squat", "two.mp4"): [100 + i * 25 // (many + 1) for i in range(1, many + 1)],
        ("two.mp4#t=1", "Squat", "two.mp4"): [125 + i * 75 // (many + 1) for i in range(1, many + 1)],
    }
    assert counts(run(tmp_path / "m.csv")) == (5, 0, 4, 1)
    assert counts(run(None, backbone=("test_vit",)))[:2] == (4, 4)
    assert {clip.group for clip in cache.entries()} == {None}


def test_later_parts_of_a_file_are_of_the_group_that_earlier_ones_have(run, tmp_path):
    write_video(tmp_path / "a.mp4", 100, width=64, height=64)
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    (tmp_path / "m.csv").write_text("path,label,end,group\na.mp4,Hop,2,kitchen\n")
    run(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("path,label,start,end\na.mp4,Hop,,2\na.mp4,Hop,2,3\nb.mp4,Hop,3,\n")
    assert counts(run(tmp_path / "m.csv")) == (3, 2, 1, 0)
    assert {clip.group for clip in Cache(tmp_path / "cache").clips()} == {"kitchen"}


def test_order_of_clips_and_commits_change_no_bit(run, videos, tmp_path, monkeypatch):
    run()
    names = sorted(str(p.relative_to(videos)) for p in videos.rglob("*.avi"))
    monkeypatch.setattr("fitrec_cache.extraction.extractor.COMMIT_CLIPS", 1)
    for name in reversed(names):
        manifest = tmp_path / "one.csv"
        manifest.write_text(f"path,label\n{name},{name.split('/')[0]}\n")
        run(manifest, root=videos, cache=tmp_path / "other")
    assert everything(tmp_path / "cache") == everything(tmp_path / "other")


def test_decoder_processes_of_any_number_change_no_bit(tmp_path, video_folder, weights, cache_folder):
    settings = SMALL | {"workers": 3}
    report = extract(video_folder, cache=tmp_path / "cache", backbone=[weights("test_resnet")], **settings)
    assert counts(report) == (12, 12, 0, 0)
    assert everything(tmp_path / "cache") == everything(cache_folder)


def interrupt(run, monkeypatch, *, finished):
    """Run an extraction that is interrupted after some clips."""
    embed, calls = Backbone.embed_prepared, []

    def interrupted(self, x):
        if len(x) > 1:  # not the probe for the length of an embedding
            if len(calls) == finished:
                raise KeyboardInterrupt
            calls.append(1)
        return embed(self, x)

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "embed_prepared", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run()


@pytest.mark.parametrize("finished", [0, 2, 3])
def test_what_was_finished_before_an_interruption_is_kept(run, tmp_path, monkeypatch, inline, finished):
    interrupt(run, monkeypatch, finished=finished)
    assert len(everything(tmp_path / "cache")) == finished
    assert [entry.done for entry in history(tmp_path / "cache")] == [finished] * (finished > 0)
    are = "is" if finished == 3 else "are"
    told = f"an extract of 4 clips did not finish, and {4 - finished} of them {are} not in the cache: run it again, or"
    (note,) = info(cache=tmp_path / "cache").notes
    assert note.startswith(told)
    if finished:
        assert note in load_cached(Cache(tmp_path / "cache"), ["test_resnet"]).notes
    report = run()
    assert counts(report) == (4, 4 - finished, finished, 0)
    assert info(cache=tmp_path / "cache").notes == ()
    assert load_cached(Cache(tmp_path / "cache"), ["test_resnet"]).notes == []
    run(cache=tmp_path / "undisturbed")
    assert everything(tmp_path / "cache") == everything(tmp_path / "undisturbed")


def test_a_history_that_cannot_be_written_fails_no_extraction(run, tmp_path, inline):
    run()
    folder = tmp_path / "cache" / "history"
    shutil.rmtree(folder)
    folder.write_bytes(b"")  # where the folder should be
    assert run(backbone=("test_efficientnet",)).done == 4
    assert folder.is_file()


def test_what_was_finished_before_an_error_is_in_the_history(run, tmp_path, monkeypatch, inline):
    monkeypatch.setattr("fitrec_cache.extraction.extractor.COMMIT_CLIPS", 1)
    write, written = Cache.write_clips, []

    def full(self, clips):
        if len(written) == 2:
            raise StoreError("disk full")
        written.append(1)
        return write(self, clips)

    monkeypatch.setattr(Cache, "write_clips", full)
    with pytest.raises(StoreError, match="disk full"):
        run()
    assert [entry.done for entry in history(tmp_path / "cache")] == [2]


def test_another_extract_that_ends_does_not_hide_one_that_was_stopped(run, tmp_path, monkeypatch, inline):
    interrupt(run, monkeypatch, finished=0)
    assert counts(run(classes="Hop")) == (2, 2, 0, 0)
    (told,) = info(cache=tmp_path / "cache").notes
    assert told.startswith("an extract of 4 clips did not finish, and 2 of them are not in the cache")
    assert counts(run(classes="Squat")) == (2, 2, 0, 0)
    assert info(cache=tmp_path / "cache").notes == ()  # all of them are here by now


def test_a_stopped_extract_whose_clips_were_removed_is_forgotten_by_prune(run, tmp_path, videos, monkeypatch, inline):
    interrupt(run, monkeypatch, finished=0)
    (videos / "Hop/v_Hop_g01_c01.avi").unlink()
    assert counts(run()) == (3, 3, 0, 0)
    (told,) = info(cache=tmp_path / "cache").notes
    assert "1 of them is not in the cache" in told
    assert "`extract --prune`" in told
    run(prune=True)
    assert info(cache=tmp_path / "cache").notes == ()


def test_a_class_whose_clips_are_used_as_they_were_is_not_called_lost(run, videos, tmp_path):
    manifest = tmp_path / "clips.csv"
    rows = [path.relative_to(videos) for path in sorted(videos.rglob("*.avi"))]
    manifest.write_text("path,label\n" + "".join(f"{r},{r.parent}\n" for r in rows))
    run(manifest, root=videos)
    for path in (videos / "Hop").iterdir():
        path.unlink()
    report = run(manifest, root=videos)
    assert len(report.failed) == 2
    assert not any("will not be recognised" in note for note in report.notes)
    manifest.write_text(manifest.read_text().replace(",Hop", ",Jump"))
    assert any("class Jump: none of its clips" in note for note in run(manifest, root=videos).notes)
    assert len(distinct_clips(Cache(tmp_path / "cache"))[0]) == 4


def test_wrong_use_is_refused_before_anything_is_decoded(run, tmp_path, inline, weights, monkeypatch):
    with pytest.raises(UsageError, match="no backbone named"):
        run(backbone=())
    with monkeypatch.context() as patched:
        patched.setattr("fitrec_cache.extract.load_backbone", lambda *_, **__: pytest.fail("loaded"))
        with pytest.raises(UsageError, match="test_resnet is named twice"):
            run(backbone=("test_resnet", "test_resnet"))
    with pytest.raises(UsageError, match="samples is 0"):
        run(samples=0)
    with pytest.raises(UsageError, match="no such file or folder"):
        run(tmp_path / "none", cache=tmp_path / "fresh")
    assert not (tmp_path / "fresh").exists()
    run(cache=tmp_path / "full")
    with pytest.raises(UsageError, match=r"holds no frames with samples 9 \(it holds: samples 4, frame size"):
        run(None, cache=tmp_path / "full", samples=9, frame_size=None)
    with pytest.raises(UsageError, match="give VIDEOS"):
        run(None, cache=tmp_path / "full", classes="Hop")


KILLER = """
import os, random, signal, sys, time
from pathlib import Path

def run(videos, cache, backbone, settings):
    extractor.COMMIT_CLIPS = 1
    sync = os.fsync
    os.fsync = lambda file: (time.sleep(0.01), sync(file))  # so that kills fall between the steps of a commit
    extract.extract(videos, cache=cache, backbone=[backbone], **settings)

def killed(wait, *job):
    child = os.fork()  # torch and timm are imported once, for all
    if not child:
        run(*job)
        os._exit(0)
    wait()
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]

if __name__ == "__main__":
    from fitrec_cache import extract
    from fitrec_cache.extraction import extractor
    videos, cache, backbone, settings, kills = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
    settings, rng, done = eval(settings), random.Random(0), 0
    for _ in range(int(kills)):
        def wait():
            until = time.monotonic() + 60
            while len(list(cache.glob("features/*/part-*"))) <= done and time.monotonic() < until:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.12))
        status = killed(wait, videos, cache, backbone, settings)
        done = len(list(cache.glob("features/*/part-*")))
        print(status, done, flush=True)
    run(videos, cache, backbone, settings)
"""


def test_what_killed_calls_left_outside_the_stores_goes(tmp_path, cache_folder, video_folder, weights, inline):
    cache = shutil.copytree(cache_folder, tmp_path / "cache")
    left = [folder / ".tmp-00000000-1-0000aaaa" for folder in (cache, cache / "history")]
    for path in left:
        path.touch()
        os.utime(path, (0, 0))
    extract(video_folder, cache=cache, backbone=[weights("test_resnet")], **SMALL)
    assert not any(path.exists() for path in left)


def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path, video_folder, weights, cache_folder):
    """Five times SIGKILL to a process that commits after every clip; then one run to the end."""
    script = tmp_path / "killer.py"
    script.write_text(KILLER)
    arguments = [video_folder, tmp_path / "cache", weights("test_resnet"), SMALL, 5]
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    statuses, kept = zip(*(map(int, line.split()) for line in done.stdout.split("\n") if line), strict=True)
    assert statuses == (signal.SIGKILL,) * 5
    assert list(kept) == sorted(kept)
    assert 0 < kept[0] < 12  # the first kill, at least, came in the middle
    assert everything(tmp_path / "cache") == everything(cache_folder)


def test_the_class_given_last_counts_and_each_content_once(run, videos, tmp_path):
    run(videos)
    clip = sorted(p for p in videos.rglob("*") if p.is_file())[0]
    moved = videos / "Zumba" / clip.name
    moved.parent.mkdir()
    clip.rename(moved)
    run(videos)
    clips, notes = distinct_clips(Cache(tmp_path / "cache"))
    assert len({c.video_sha256 for c in clips}) == len(clips)
    assert f"Zumba/{clip.name}" in [c.clip_id for c in clips]
    assert any("now of class Zumba" in n for n in notes)


def test_the_report_says_where_the_time_went(run, monkeypatch):
    report = run()
    assert list(report.stages) == [
        "start",
        "compile",
        "wait for files",
        "wait for frames",
        "wait for others",
        "embed",
        "write",
    ]
    assert sum(report.stages.values()) <= report.seconds
    assert report.to_dict()["bottleneck"] == report.bottleneck
    assert report.beside.keys() == {"hash", "decode", "prepare"}
    assert all(s > 0 for s in report.beside.values())


@pytest.mark.parametrize(("on_cpu", "order"), [(True, "mmeemmee"), (False, "mmmemeee")])
def test_where_cores_are_shared_clips_are_made_ready_and_embedded_in_turns(run, monkeypatch, on_cpu, order):
    events, busy, held_up = [], [], []
    submit, prepare, embed = prefetch.Prefetcher.submit, prefetch.Prefetcher._prepare, Backbone.embed_prepared

    def note_submit(self, *given):
        events.append("m")
        return submit(self, *given)

    def note_prepare(self, *given):
        busy.append(True)
        time.sleep(0.02)
        found = prepare(self, *given)
        busy.pop()
        return found

    def note_embed(self, x):
        if len(x) > 1:
            events.append("e")
            held_up.extend(busy)
        return embed(self, x)

    monkeypatch.setattr(prefetch.Prefetcher, "submit", note_submit)
    monkeypatch.setattr(prefetch.Prefetcher, "_prepare", note_prepare)
    monkeypatch.setattr(Backbone, "embed_prepared", note_embed)
    monkeypatch.setattr(Backbone, "on_cpu", on_cpu)
    monkeypatch.setattr(prefetch, "_CLIPS_IN_TURN", 1)
    assert run().done == 4
    assert "".join(events) == order
    assert not (on_cpu and held_up)


@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_clip_that_takes_long_holds_up_none_that_is_finished(run, monkeypatch, tmp_path, on_cpu):
    monkeypatch.setattr(Backbone, "on_cpu", on_cpu)
    prepare, held = prefetch.Prefetcher._prepare, []
    cache = tmp_path / "cache"

    def wait_for_others(self, hashed, todo, decoded):
        if hashed.clip.clip_id.endswith("Squat_g02_c01.avi"):
            until = time.monotonic() + 20
            while time.monotonic() < until and (not (cache / "cache.json").exists() or len(Cache(cache).clips()) < 2):
                time.sleep(0.01)
            held.extend(Cache(cache).clips())
        return prepare(self, hashed, todo, decoded)

    monkeypatch.setattr(prefetch.Prefetcher, "_prepare", wait_for_others)
    monkeypatch.setattr(prefetch, "_CLIPS_IN_TURN", 1)
    monkeypatch.setattr(extractor, "wait", lambda coming, timeout=20.0: wait(coming, timeout=min(timeout, 0.05)))
    assert counts(run()) == (4, 4, 0, 0)
    assert len(held) == (2 if on_cpu else 3)  # in turns two clips are made ready at once


@pytest.mark.parametrize(
    ("longest", "named"), [("embed", "embed"), ("wait for frames", "prepare"), ("wait for files", "hash")]
)
def test_the_bottleneck_of_waiting_is_what_was_waited_for(longest, named):
    stages = dict.fromkeys(("start", "compile", "wait for files", "wait for frames", "embed", "write"), 1.0)
    report = ExtractReport(
        clips=1,
        done=1,
        reused=0,
        failed=(),
        backbones={},
        features={},
        seconds=9.0,
        notes=(),
        stages=stages | {longest: 2.0},
        beside={"hash": 9.0, "decode": 1.0, "prepare": 3.0},
        others=None,
    )
    assert report.bottleneck == named


def test_an_interruption_while_decoders_work_ends_at_once(tmp_path, video_folder, weights, monkeypatch):
    """Threads that wait for a decoder must not wait for ever once it is stopped."""
    started = []

    def interrupted(self, x):
        if len(x) > 1:
            started.append(time.monotonic())
            raise KeyboardInterrupt
        return embed(self, x)

    embed = Backbone.embed_prepared
    monkeypatch.setattr(Backbone, "embed_prepared", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(video_folder, cache=tmp_path / "cache", backbone=[weights("test_resnet")], **SMALL)
    assert time.monotonic() - started[0] < 20


def test_what_is_noticed_before_is_told_before_anything_is_decoded(run, videos, inline, monkeypatch, tmp_path):
    """Who sees a misspelt manifest, or folders taken for sides of a split, need not wait for all clips to stop it."""
    (tmp_path / "train").mkdir()
    sides = videos.rename(tmp_path / "train" / "train")
    shutil.copytree(sides, tmp_path / "train" / "test")
    events = []
    work = decoding._work
    monkeypatch.setattr(decoding, "_work", lambda job: (events.append("decoded"), work(job))[1])
    report = run(tmp_path / "train", tell=events.append)
    first = events.index("decoded")
    assert any("named as sides of a split" in note for note in events[:first])
    assert [event for event in events if event != "decoded"] == list(report.notes)
    assert any("same content" in note for note in events[first:])


def test_clips_of_files_that_are_not_quite_in_order_are_counted(run, videos):
    whole = sorted(videos.rglob("*.avi"))
    for path in whole[:2]:
        path.write_bytes(path.read_bytes()[:-200])
    report = run()
    assert counts(report) == (4, 4, 0, 0)
    (note,) = (n for n in report.notes if "not quite in order" in n)
    assert note.startswith("2 clips are used though the file is not quite in order: Hop/v_Hop_g01_c01.avi (")
    assert not any("not quite in order" in n for n in run().notes)  # nothing was decoded


def test_columns_stay_until_a_manifest_gives_them_anew(run, tmp_path, videos):
    names = [str(path.relative_to(videos)) for path in sorted(videos.glob("*/*"))]

    def columns(header, cells):
        rows = [
            f"{name},{name.split('/')[0]},{cells}\n" if cells else f"{name},{name.split('/')[0]}\n" for name in names
        ]
        (tmp_path / "m.csv").write_text(f"path,label{header}\n" + "".join(rows))
        run(tmp_path / "m.csv", root=videos)
        (found,) = {json.dumps(clip.extra) for clip in Cache(tmp_path / "cache").entries()}
        return json.loads(found)

    assert columns(",person,split", "anna,train") == {"person": "anna", "split": "train"}
    assert columns("", "") == {"person": "anna", "split": "train"}
    assert columns(",room,split", "gym,test") == {"person": "anna", "room": "gym", "split": "test"}
    assert columns(",person", '""') == {"person": "", "room": "gym", "split": "test"}


def test_copies_share_their_columns_and_a_new_video_in_a_place_is_said_to_take_them(run, tmp_path, videos):
    first = sorted(videos.glob("*/*"))[0]
    name = str(first.relative_to(videos))
    shutil.copy(first, first.with_name("0.avi"))
    (tmp_path / "m.csv").write_text(f"path,label,person,side\nHop/0.avi,Hop,anna,\n{name},Hop,,left\n")
    run(tmp_path / "m.csv", root=videos)
    (tmp_path / "n.csv").write_text(f"path,label,angle\nHop/0.avi,Hop,high\n{name},Hop,high\n")
    run(tmp_path / "n.csv", root=videos)
    extras = {clip.clip_id: clip.extra for clip in Cache(tmp_path / "cache").entries()}
    assert extras[name] == {"person": "", "side": "left", "angle": "high"}
    assert extras["Hop/0.avi"] == {"person": "anna", "side": "", "angle": "high"}
    write_video(first, 7, width=80, height=64, codec="mpeg4", numbers=range(900, 907))
    (tmp_path / "o.csv").write_text(f"path,label\n{name},Hop\n")
    notes = run(tmp_path / "o.csv", root=videos).notes
    assert any(f"inherits its group or columns: {name} (" in note for note in notes)
    assert not any("keep" in note for note in notes)


def test_columns_that_were_corrected_under_another_name_stay_so_when_the_first_name_is_back(run, tmp_path, videos):
    first = sorted(videos.glob("*/*"))[0]
    name, other = str(first.relative_to(videos)), first.with_name("b.avi")
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"path,label,group,person\n{name},Hop,anna,anna\n")
    run(manifest, root=videos)
    first.rename(other)
    manifest.write_text("path,label,group,person\nHop/b.avi,Hop,ben,ben\n")
    run(manifest, root=videos)
    other.rename(first)
    seen = {c.clip_id: c for c in as_extracted(find_clips(videos), tmp_path / "cache", read=True)}[name]
    run()
    clip = Cache(tmp_path / "cache").clip(name)
    assert (clip.group, clip.extra) == (seen.group, seen.extra) == ("ben", {"person": "ben"})


def test_what_a_new_video_takes_from_an_earlier_one_is_said_and_nothing_else(run, tmp_path, videos):
    place = "1 clip has new content: it replaces the earlier video of that name"
    path, manifest = videos / "Hop" / "x.avi", tmp_path / "m.csv"

    def notes(header, row, number):
        write_video(path, 7, width=80, height=64, codec="mpeg4", numbers=range(number, number + 7))
        manifest.write_text(f"path,label{header}\nHop/x.avi,Hop{row}\n")
        return run(manifest, root=videos).notes

    path.write_bytes(b"broken")
    manifest.write_text("path,label,group,person\nHop/x.avi,Hop,gg,\n")
    run(manifest, root=videos)
    assert "1 clip keeps its earlier group: Hop/x.avi" in notes("", "", 100)  # the first that can be used
    taken = f"{place} and inherits its group or columns: Hop/x.avi"
    assert f"{taken} (gg)" in notes("", "", 200)
    assert f"{place}: Hop/x.avi" in notes(",group,room", ",new,gym", 300)
    assert f"{taken} (gym)" in notes(",group", ",newer", 400)


# --- what others tell of clips meanwhile ---


def told_meanwhile(monkeypatch, method, cache, clips):
    """Let another process commit entries once, as ``method`` of an extraction is first called."""
    original, left = getattr(Extractor, method), [clips]

    def called(self, *args, **kwargs):
        if left:
            Cache(cache).write_clips(left.pop())
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Extractor, method, called)


def test_another_backbone_changes_nothing_that_was_told_of_clips_meanwhile(run, tmp_path, weights, inline, monkeypatch):
    run()
    first, second, *_ = Cache(tmp_path / "cache").entries()
    told = [replace(first, label="Corrected", group="anna"), replace(second, problem=TAKEN_OUT)]
    told_meanwhile(monkeypatch, "work", tmp_path / "cache", told)
    report = run(None, backbone=["test_vit"], samples=None, frame_size=None)
    assert report.done == 4
    assert not any("class" in note for note in report.notes)
    assert Cache(tmp_path / "cache").entries()[:2] == told


def test_another_backbone_does_not_let_an_earlier_name_count_again(run, tmp_path, inline, monkeypatch):
    run()
    first = Cache(tmp_path / "cache").entries()[0]
    told_meanwhile(monkeypatch, "work", tmp_path / "cache", [replace(first, clip_id="Squat/new.avi", label="Squat")])
    run(None, backbone=["test_vit"], samples=None, frame_size=None)
    assert newest(Cache(tmp_path / "cache").entries())[first.video_sha256].clip_id == "Squat/new.avi"


def test_what_was_embedded_is_stored_where_what_others_wrote_cannot_be_read(run, tmp_path, monkeypatch):
    def fails():
        raise StoreError("what another process wrote is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(Extractor, "refresh", lambda self: patch.setattr(self.cache.clip_store, "refresh", fails))
        with pytest.raises(StoreError, match="another process"):
            run()
    assert len(Cache(tmp_path / "cache").feature_stores()[0]) == 4
    assert (run().done, run().reused) == (0, 4)


def test_groups_that_a_manifest_gives_in_another_process_meanwhile_stay(run, tmp_path, videos, monkeypatch):
    for number, path in enumerate(sorted(videos.glob("*/*"))):
        path.rename(path.with_name(f"{number}.avi"))  # which says no group
    run(cache=tmp_path / "other")
    told = [replace(clip, group="anna") for clip in Cache(tmp_path / "other").entries()]
    told_meanwhile(monkeypatch, "_embed", tmp_path / "cache", told)  # when a block is begun
    run()
    assert [clip.group for clip in Cache(tmp_path / "cache").clips()] == ["anna"] * 4


def test_frames_are_written_first_then_features_then_entries_and_then_claims_are_given_back(run, monkeypatch):
    events, write, give_back = [], Store.write_part, Claims._give_back
    monkeypatch.setattr(Store, "write_part", lambda self, rows: events.append(self.kind) or write(self, rows))
    monkeypatch.setattr(Claims, "_give_back", lambda *given: events.append("claim") or give_back(*given))
    run()
    assert events == ["frames", "features", "clips", "claim"]


def test_claims_show_that_their_owner_lives_before_the_first_clip_is_finished(run, monkeypatch):
    events = []
    monkeypatch.setattr(Claims, "finished", lambda *_: events.append("finished"))
    monkeypatch.setattr(Claims, "alive", lambda _: events.append("alive"))
    run()
    assert events[0] == "alive"
    assert "finished" in events


@pytest.mark.parametrize("name", ["claims", "history"])
def test_links_in_a_cache_do_not_let_extract_remove_other_files(run, tmp_path, inline, name):
    """They may have the names of claims, or of half-written files."""
    run()
    private = tmp_path / "private"
    private.mkdir()
    for mine in ("0123456789abcdef", ".tmp-00000000-1-0000aaaa"):
        (private / mine).write_text("mine")
        os.utime(private / mine, (1e9, 1e9))
    shutil.rmtree(tmp_path / "cache" / name)
    (tmp_path / "cache" / name).symlink_to(private)
    with pytest.raises(UsageError, match=f"{name} leads out of the cache, to .*private"):
        run()
    assert len(list(private.iterdir())) == 2


def test_claims_are_given_back_where_a_disk_is_full(run, tmp_path, monkeypatch):
    def full(*_, **__):
        raise StoreError("cannot write: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fitrec_cache.storage.store.Store.write_part", full)
        with pytest.raises(StoreError, match="No space left"):
            run()
    assert list((tmp_path / "cache" / "claims").iterdir()) == []
    assert run().done == 4


def test_a_file_that_changes_while_it_is_hashed_is_not_kept_under_that_hash(run, videos, tmp_path, monkeypatch):
    growing = videos / "Hop" / "v_Hop_g01_c01.avi"
    whole, content_hash = growing.read_bytes(), prefetch.content_hash

    def copied_meanwhile(path):
        found = content_hash(path)
        if path == growing:
            growing.write_bytes(whole + b"more")
        return found

    monkeypatch.setattr(prefetch, "content_hash", copied_meanwhile)
    report = run()
    assert [f.clip_id for f in report.failed] == ["Hop/v_Hop_g01_c01.avi"]
    assert "changed while it was read" in report.failed[0].reason
    assert hashlib.sha256(whole).hexdigest() not in Cache(tmp_path / "cache").frame_stores()[0]


def test_without_videos_a_clip_that_has_no_frames_of_these_settings_costs_itself_only(run, videos, tmp_path):
    run()
    write_video(videos / "Hop" / "later.mp4", 8, numbers=range(950, 958))
    run(samples=2, classes="Hop")
    report = run(None, backbone=("test_vit",))  # by the settings of the first
    assert counts(report) == (5, 4, 0, 1)
    assert [(f.clip_id, f.reason) for f in report.failed] == [
        ("Hop/later.mp4", "its frames are not in the cache: give VIDEOS to decode it again")
    ]
    assert Cache(tmp_path / "cache").clip("Hop/later.mp4").problem == ""


def test_without_videos_a_clip_that_has_features_needs_no_frames(run, tmp_path):
    run(classes="Hop")
    run(classes="Squat")
    max((tmp_path / "cache").glob("frames/*/part-*")).unlink()
    assert counts(run(None)) == (4, 0, 4, 0)


@pytest.mark.parametrize(("seconds", "parts"), [(0.0, 4), (3600.0, 1)])
def test_what_is_finished_is_committed_after_some_time_however_few_clips_it_is(
    run, tmp_path, monkeypatch, seconds, parts
):
    monkeypatch.setattr(extractor, "COMMIT_SECONDS", seconds)
    assert run().done == 4
    assert len(list((tmp_path / "cache" / "clips").glob("part-*"))) == parts


def test_features_made_without_videos_have_the_times_of_the_frames(run, videos, tmp_path):
    run()
    shutil.rmtree(videos)
    run(None, backbone=("test_vit",))
    cache = Cache(tmp_path / "cache")
    (store,) = (s for s in cache.feature_stores() if s.identity["backbone"] == "test_vit")
    for number, clip in ((0, cache.clips()[0]), (9, cache.clips()[3])):  # as write_class_folders wrote them
        n_frames = 6 + number % 5
        times = store.row(clip.video_sha256)["pts_seconds"]
        assert times == pytest.approx([i * n_frames // 5 / 25 for i in (1, 2, 3, 4)])


def test_an_open_cache_sees_what_came_and_what_was_erased(run, tmp_path, videos):
    def names(clips):
        return [clip.clip_id for clip in clips]

    run()
    opened = Cache(tmp_path / "cache")
    first, *others = before = names(opened.clips())
    shutil.copy(videos / others[0], videos / "Squat" / "another.avi")
    (videos / first).unlink()
    run(prune=True, erase=True)
    fresh = Cache(tmp_path / "cache")
    assert names(opened.clips()) == names(fresh.clips()) == sorted([*others, "Squat/another.avi"])
    assert load_cached(opened, []).clip_ids == load_cached(fresh, []).clip_ids != before
    assert names(pickle.loads(pickle.dumps(opened)).clips()) == names(fresh.clips())


def test_where_the_copy_with_the_wrong_class_is_removed_the_other_one_is_used(run, tmp_path, videos):
    """Both copies are entered in one part, at the same time."""
    kept = (videos / "Squat" / "v_Squat_g01_c01.avi").rename(videos / "Squat" / "z.avi")  # a name without a group
    shutil.copy(kept, videos / "Hop" / "a.avi")
    report = run()
    assert any("Hop; remove the wrong one" in note for note in report.notes)
    (videos / "Hop" / "a.avi").unlink()
    run()
    found = load_cached(Cache(tmp_path / "cache"), [])
    labels = dict(zip(found.clip_ids, found.labels, strict=True))
    assert labels["Squat/z.avi"] == "Squat"
    assert "Hop/a.avi" not in labels


def test_a_copy_that_cannot_be_read_any_more_does_not_decide_the_class(run, tmp_path, videos):
    run()
    moved = videos / "Hop" / "v_Hop_g01_c01.avi"
    shutil.copy(moved, videos / "Squat" / "z.avi")
    moved.write_bytes(b"")
    run()
    found = load_cached(Cache(tmp_path / "cache"), [])
    assert dict(zip(found.clip_ids, found.labels, strict=True))["Squat/z.avi"] == "Squat"


@pytest.mark.parametrize("kind", ["copies", "unusable"])
def test_the_same_call_again_writes_nothing(run, tmp_path, videos, kind):
    if kind == "copies":  # only the second has a group
        shutil.copy(videos / "Hop" / "v_Hop_g01_c01.avi", videos / "Hop" / "z.avi")
        rows = "".join(
            f"{path.relative_to(videos)},Hop,{'ann' * (path.stem == 'z')}\n" for path in videos.rglob("*.avi")
        )
        (videos / "m.csv").write_text(f"path,label,group\n{rows}")
        source = videos / "m.csv"
    else:
        for name in ("0.avi", "9.avi"):
            (videos / "Hop" / name).write_bytes(b"")
        source = videos
    run(source)
    run(source)
    parts = Cache(tmp_path / "cache").clip_store.part_paths()
    for _ in range(4):  # clips are taken in another order each time
        report = run(source)
        assert not any("group or columns of another clip" in note for note in report.notes)
    assert Cache(tmp_path / "cache").clip_store.part_paths() == parts


def test_columns_that_a_clip_had_under_an_earlier_name_do_not_come_back(run, tmp_path, videos):
    old, new = "Hop/v_Hop_g01_c01.avi", "Hop/z.avi"
    others = [
        f"{path.relative_to(videos)},{path.parent.name}" for path in videos.rglob("*.avi") if path != videos / old
    ]

    def told(first):
        rows = [first, *(f"{row},ann,train" for row in others)]
        (tmp_path / "m.csv").write_text("path,label,group,split\n" + "\n".join(rows) + "\n")
        run(tmp_path / "m.csv", root=videos)

    told(f"{old},Hop,kitchen,train")
    (videos / old).rename(videos / new)
    told(f"{new},Hop,,test")
    run(videos)
    found = Cache(tmp_path / "cache").clip(new)
    assert (found.group, dict(found.extra)) == (None, {"split": "test"})


def test_a_class_folder_that_leads_nowhere_is_in_the_report(run, videos):
    (videos / "Lunge").symlink_to("nowhere")
    report = run()
    assert report.unread == (str(videos / "Lunge"),)
    assert not any("holds no video" in note for note in report.notes)
