"""Bytes of what was erased are looked for in every file; what stays is read with h5py, by docs/format.md."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import SMALL

from fitrec_cache.cache import TAKEN_OUT, Cache, HeldClip, newest
from fitrec_cache.check import check
from fitrec_cache.common.files import host_id
from fitrec_cache.errors import StoreCorrupt, StoreError, UsageError, VideoError
from fitrec_cache.extract import extract
from fitrec_cache.extraction import erase, extractor, prefetch
from fitrec_cache.extraction.erase import erase_taken_out, refuse_most
from fitrec_cache.storage import store
from fitrec_cache.storage.parts import SCHEMAS, read_part, text_column
from fitrec_cache.video import contents
from fitrec_cache.wording import size

FRAMES = {"samples": 2, "short_side": 64}
FEATURES = {"backbone": "none", "precision": "fp32", "preprocessing": {"preset": "native"}, "frames": FRAMES}


def stored(cache):
    """Everything in frames and features: {(folder, key): its datasets}; read as docs/format.md says."""
    found = {}
    for path in sorted(cache.glob("f*/*/part-*.h5")):
        with h5py.File(path) as file:
            arrays = {name: file[name][()] for name in file}
        flat, ends = arrays.pop("jpeg_bytes", None), arrays.pop("jpeg_end", None)
        for row, key in enumerate(arrays["key"].tolist()):
            rows = [arrays[name][row] for name in sorted(arrays)]
            values = [bytes(row) if isinstance(row, bytes) else row.tobytes() for row in rows]
            if ends is not None:
                places = [0, *ends.ravel().tolist()][row * ends.shape[1] : (row + 1) * ends.shape[1] + 1]
                values += [flat[i:j].tobytes() for i, j in pairwise(places)]
            found[path.parent.name, key.decode()] = values
    return found


def holding(cache, needle):
    """The files of a cache that hold some bytes."""
    return [path for path in sorted(cache.rglob("*")) if path.is_file() and needle in path.read_bytes()]


def everything(cache):
    return {path: path.read_bytes() for path in sorted(cache.rglob("*")) if path.is_file()}


def used(cache):
    return [clip.clip_id for clip in Cache(cache).entries() if not clip.problem]


# --- the command ---


@pytest.fixture
def videos(tmp_path, video_folder):
    return shutil.copytree(video_folder, tmp_path / "videos")


@pytest.fixture
def run(tmp_path, videos, weights, inline):
    """``run()`` extracts ``videos`` with ``test_resnet``; arguments override."""

    def call(source=videos, **settings):
        return extract(source, cache=tmp_path / "cache", backbone=[weights("test_resnet")], **SMALL, **settings)

    return call


@pytest.mark.parametrize("clips_a_part", [32, 5, 1])
@pytest.mark.parametrize(
    "gone",
    [
        ("Hop/v_Hop_g01_c01.avi",),
        ("Squat/v_Squat_g04_c01.avi", "Hop/v_Hop_g03_c01.avi", "Lunge/v_Lunge_g02_c01.avi"),
    ],
)
def test_nothing_of_erased_clips_is_left_and_all_else_is_the_same(
    run, tmp_path, videos, monkeypatch, clips_a_part, gone
):
    monkeypatch.setattr(extractor, "COMMIT_CLIPS", clips_a_part)
    cache = tmp_path / "cache"
    run()
    before = stored(cache)
    keys = {clip.clip_id: clip.video_sha256 for clip in Cache(cache).clips()}
    secrets = [name.encode() for name in gone] + [keys[name].encode() for name in gone]
    for folder, key in before:
        if key in {keys[name] for name in gone}:
            values = before[folder, key]
            secrets += values[-SMALL["samples"] :] if folder == next(cache.glob("frames/*")).name else values[:1]
    assert len(secrets) == len(gone) * (2 + SMALL["samples"] + 1)
    assert all(holding(cache, secret) for secret in secrets)
    in_index = [path for path in holding(cache, secrets[0]) if path.name.startswith("index-")]
    assert bool(in_index) == (clips_a_part == 1)
    for name in gone:
        (videos / name).rename(tmp_path / name.split("/")[1])
    total = sum(map(len, everything(cache).values()))
    report = run(prune=True, erase=True)
    assert [secret for secret in secrets if holding(cache, secret)] == []
    left = {(folder, key): values for (folder, key), values in before.items() if keys_of(keys, gone).isdisjoint([key])}
    assert len(left) == 2 * (12 - len(gone))
    assert stored(cache) == left
    told, elsewhere = report.notes[-2:]
    assert "still hold their names, or what was learned from them" in elsewhere
    number = f"{len(gone)} clip" + "s" * (len(gone) > 1)
    assert re.fullmatch(rf"erased from disk: {number}, [\d.]+ (bytes|kB|MB) freed", told)
    assert sum(map(len, everything(cache).values())) < total
    assert (check(cache=cache).problems, check(cache=cache).notes) == ((), ())
    assert bool(list(cache.glob("clips/index-*"))) == (clips_a_part == 1)
    files = everything(cache)
    assert not any(note.startswith("erased") for note in run(prune=True, erase=True).notes)
    assert everything(cache) == files  # nothing was left to do
    for name in gone:
        (tmp_path / name.split("/")[1]).rename(videos / name)
    monkeypatch.setattr(extractor, "COMMIT_CLIPS", 32)
    again = run()
    assert (again.done, again.reused) == (len(gone), 12 - len(gone))
    assert stored(cache) == before


def keys_of(keys, names):
    return {keys[name] for name in names}


def test_what_was_taken_out_before_is_erased_too_and_a_renamed_clip_stays(run, tmp_path, videos):
    cache = tmp_path / "cache"
    run()
    (videos / "Hop/v_Hop_g01_c01.avi").unlink()
    run(prune=True)
    assert holding(cache, b"Hop/v_Hop_g01_c01.avi")
    (videos / "Squat/v_Squat_g01_c01.avi").rename(videos / "Squat/7.avi")
    run()
    before = stored(cache)
    report = run(prune=True, erase=True)
    told = next(note for note in report.notes if note.startswith("erased"))
    assert told.startswith("erased from disk: 1 clip, 1 earlier name, ")
    assert holding(cache, b"Hop/v_Hop_g01_c01.avi") == holding(cache, b"Squat/v_Squat_g01_c01.avi") == []
    assert len(before) - len(stored(cache)) == 2
    assert stored(cache).items() <= before.items()
    assert len(used(cache)) == 11
    assert (run().done, run().reused) == (0, 11)


def test_a_file_that_cannot_be_used_now_keeps_what_is_stored_and_other_content_goes(
    run, tmp_path, videos, video_folder, monkeypatch
):
    monkeypatch.setattr(extractor, "COMMIT_CLIPS", 2)
    monkeypatch.setattr(random.SystemRandom, "shuffle", lambda _, blocks: blocks.sort(key=lambda b: b[0].clip_id))
    monkeypatch.setattr(store, "_MOST_READ", -99)  # so that the first part, which is replaced, is read again after that
    cache = tmp_path / "cache"
    run()
    before = stored(cache)
    (videos / "Hop/v_Hop_g01_c01.avi").write_bytes(b"no video")
    (videos / "Hop/v_Hop_g02_c01.avi").unlink()
    shutil.copy(video_folder / "Squat/v_Squat_g01_c01.avi", videos / "Hop/v_Hop_g03_c01.avi")
    report = run(prune=True, erase=True)
    assert [failed.clip_id for failed in report.failed] == ["Hop/v_Hop_g01_c01.avi"]
    assert any(note.startswith("erased from disk: 1 clip, 1 earlier content, ") for note in report.notes)
    assert len(before) - len(stored(cache)) == 4
    assert stored(cache).items() <= before.items()
    assert len(used(cache)) == 11


def test_most_of_a_cache_is_erased_only_after_it_was_pruned(run, tmp_path, videos):
    run()
    kept = next(iter(sorted(videos.glob("Hop/*"))))
    for path in videos.glob("*/*"):
        if path != kept:
            path.unlink()
    files = {p: p.read_bytes() for p in (tmp_path / "cache").rglob("*.h5")}
    with pytest.raises(UsageError, match=r"--erase would remove 11 of 12 clips .*: Hop/v_Hop_g02_c01.avi, .*alone"):
        run(prune=True, erase=True)
    assert {p: p.read_bytes() for p in (tmp_path / "cache").rglob("*.h5")} == files
    run(prune=True)
    assert any("erased from disk: 11 clips" in note for note in run(prune=True, erase=True).notes)
    assert [clip.clip_id for clip in Cache(tmp_path / "cache").entries()] == [f"Hop/{kept.name}"]


@pytest.mark.parametrize("way", ["new name", "another's name", "in two steps", "numbered anew", "not to be read"])
def test_nothing_is_erased_whose_file_is_called_otherwise_in_a_class_not_asked_for(
    run, tmp_path, videos, way, monkeypatch
):
    run()
    names = ("Squat/v_Squat_g01_c01.avi", "Squat/v_Squat_g02_c01.avi")
    moved, why = videos / (names[1] if way == "another's name" else "Squat/moved.avi"), "is a video that"
    if way == "numbered anew":
        (videos / "Hop/v_Hop_g01_c01.avi").rename(moved)
        (videos / "Hop/v_Hop_g02_c01.avi").rename(videos / "Hop/v_Hop_g01_c01.avi")
    else:
        (videos / names[0]).rename(moved)
    if way == "in two steps":
        run(classes="Hop,Lunge", prune=True)
    before = stored(tmp_path / "cache")
    with monkeypatch.context() as patch:
        if way == "not to be read":
            why, hashed = "cannot be read, so it may be a video that", contents.content_hash_once
            patch.setattr(contents, "content_hash_once", lambda p, s: refuse(p) if p == moved else hashed(p, s))
        with pytest.raises(UsageError, match=rf"leave out Squat/.*\.avi, which {why} --erase would remove\. Nothing"):
            run(classes="Hop,Lunge", prune=True, erase=True)
    assert stored(tmp_path / "cache") == before
    run()
    run(classes="Hop,Lunge", prune=True, erase=True)
    assert len(stored(tmp_path / "cache")) == len(before) - 2 * (way == "another's name")


def test_nothing_is_erased_while_a_file_cannot_be_read_that_may_be_what_is_gone(run, tmp_path, videos, monkeypatch):
    run()
    moved = videos / "Hop/moved.avi"
    (videos / "Hop/v_Hop_g01_c01.avi").rename(moved)
    before = stored(tmp_path / "cache")
    with monkeypatch.context() as patch:
        hashed = prefetch.content_hash
        patch.setattr(prefetch, "content_hash", lambda p: refuse(p) if p == moved else hashed(p))
        with pytest.raises(UsageError, match=r"Hop/moved.avi cannot be read, so it may be .* Nothing was removed"):
            run(prune=True, erase=True)
    assert stored(tmp_path / "cache") == before
    run(prune=True, erase=True)
    assert stored(tmp_path / "cache") == before


def test_a_name_that_no_file_can_have_is_a_clip_that_failed_and_in_nobodys_way(run, tmp_path, videos):
    rows = [f"{p.relative_to(videos)},{p.parent.name}" for p in sorted(videos.glob("*/*.avi"))]
    (tmp_path / "m.csv").write_text("\n".join(["path,label", *rows[1:], f"Hop/{'a' * 300}.avi,Hop"]))
    run()
    report = run(tmp_path / "m.csv", root=videos, prune=True, erase=True)
    assert len(report.failed) == 1
    assert any(note.startswith("erased from disk: 1 clip, ") for note in report.notes)


def test_what_another_extract_added_meanwhile_is_not_taken_out(run, tmp_path, videos, monkeypatch):
    run()
    (videos / "Hop/v_Hop_g01_c01.avi").unlink()
    work = extractor.Extractor.work

    def beside(self, *args, **settings):
        monkeypatch.undo()
        (videos / "Hop/new.avi").write_bytes((videos / "Hop/v_Hop_g02_c01.avi").read_bytes() + b"\0")
        run()
        work(self, *args, **settings)

    monkeypatch.setattr(extractor.Extractor, "work", beside)
    notes = run(prune=True).notes
    assert any(note.startswith("removed, as not among these videos: 1 clip: Hop/v_Hop_g01_c01.avi") for note in notes)
    assert "Hop/new.avi" in used(tmp_path / "cache")


def refuse(path):
    raise VideoError(f"{path} cannot be read")


def test_another_part_of_a_file_is_not_in_the_way_of_erasing_one(run, tmp_path, videos):
    file, manifest = "Hop/v_Hop_g01_c01.avi", tmp_path / "m.csv"
    rows = [f"{file},Hop,0,0.1", f"{file},Lunge,0.1,0.2", f"{file},Lunge,0.15,0.2", f"{file},Squat,0.2,"]
    manifest.write_text("\n".join(["path,label,start,end", *rows]))
    assert run(manifest, root=videos).done == 4
    manifest.write_text("\n".join(["path,label,start,end", *rows[:2], rows[3]]))
    notes = run(manifest, root=videos, classes="Lunge", prune=True, erase=True).notes
    assert any(note.startswith("erased from disk: 1 clip, ") for note in notes)


def test_of_classes_that_were_never_asked_for_nothing_is_in_the_way_of_erasing(run, tmp_path, videos):
    run(classes="Hop,Lunge")
    (videos / "Hop/v_Hop_g01_c01.avi").unlink()
    notes = run(classes="Hop,Lunge", prune=True, erase=True).notes
    assert any(note.startswith("erased from disk: 1 clip, ") for note in notes)
    assert used(tmp_path / "cache") == [str(p.relative_to(videos)) for p in sorted(videos.glob("[HL]*/*"))]


def test_clips_that_were_renamed_twice_are_none_that_would_be_lost(run, tmp_path, videos):
    run()
    for name in ("once", "twice"):
        for path in sorted(videos.glob("*/*.avi")):
            path.rename(path.with_name(f"{name}-{path.name.rpartition('-')[2]}"))
        run()
    before = stored(tmp_path / "cache")
    assert any("24 earlier names" in note for note in run(prune=True, erase=True).notes)
    assert stored(tmp_path / "cache") == before
    for path in sorted(videos.glob("*/*.avi")):
        path.rename(path.with_name(path.name.removeprefix("twice-")))
    with pytest.raises(UsageError, match=r"would remove 12 of 12 clips .* or if files were renamed"):
        run(prune=True, erase=True)


def test_a_class_of_bad_clips_only_is_named_beside_what_was_erased(run, videos):
    run()
    (videos / "Hop/v_Hop_g01_c01.avi").unlink()
    (videos / "Row").mkdir()
    (videos / "Row/a.avi").write_bytes(b"no video")
    *_, erased, _, lost = run(prune=True, erase=True).notes
    assert erased.startswith("erased from disk: 1 clip, ")
    assert lost == "class Row: none of its clips can be used, so it will not be recognised"


def test_it_goes_with_prune_only(run):
    with pytest.raises(UsageError, match="give --prune too, or leave it out"):
        run(erase=True)


def test_beside_another_extract_it_is_refused_before_anything_is_done(run, tmp_path, videos, inline):
    cache = tmp_path / "cache"
    run()
    (videos / "Hop/v_Hop_g01_c01.avi").unlink()
    claim = cache / "claims" / "0123456789abcdef"
    for process in (os.getppid(), os.getpid()):  # another one that lives; another thread of this one
        claim.write_text(f"{host_id()} {process}")
        before = everything(cache)
        with pytest.raises(UsageError, match=r"another extract works on .*nothing was erased"):
            run(prune=True, erase=True)
        with pytest.raises(UsageError, match="another extract works on"):
            erase_taken_out(cache)
        assert everything(cache) == before
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    claim.write_text(f"{host_id()} {dead.pid}")
    assert any(note.startswith("erased from disk: 1 clip") for note in run(prune=True, erase=True).notes)


# --- caches made by hand ---


def clip(name, key, label="Squat", **more):
    return HeldClip(clip_id=name, video_sha256=key, label=label, group=more.pop("group", None), **more)


def pictures(key):
    return [f"<{key}, picture {i}>".encode() * (len(key) + i) for i in range(2)]


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", create=True)


def fill(cache, *keys):
    """Commit made-up frames and features of some keys as one part each."""
    jpegs = [pictures(key) for key in keys]
    ends = np.cumsum([[len(j) for j in of_clip] for of_clip in jpegs]).reshape(-1, 2)
    data = np.frombuffer(b"".join(j for of_clip in jpegs for j in of_clip), dtype=np.uint8)
    plain = {"key": text_column(keys), "pts_seconds": np.arange(2.0 * len(keys)).reshape(-1, 2)}
    ledger = text_column([f'{{"of": "{key}"}}' for key in keys])
    frame_index = np.arange(2 * len(keys)).reshape(-1, 2)
    arrays = {"jpeg_bytes": data, "jpeg_end": ends, "frame_index": frame_index, "ledger": ledger}
    cache.frame_store(FRAMES).write_part(plain | arrays)
    features = np.arange(6 * len(keys), dtype=np.float16).reshape(-1, 2, 3)
    cache.feature_store(FEATURES).write_part(plain | {"features": features})


def test_what_stays_and_what_goes(cache):
    """A clip and a part of its file, a copy, a failed clip, an earlier content, and one that nobody names."""
    fill(cache, "anna", "ben", "shared")
    fill(cache, "failed", "before", "nameless", "ben#t=0,2", "anna#t=2")
    fill(cache, "anna", "after")
    cache.write_clips([clip("A", "anna", group="mail@anna"), clip("B", "ben"), clip("old.mp4", "shared")])
    cache.write_clips([clip("A", "anna", label="Lunge"), clip("copy.mp4", "shared"), clip("C", "before")])
    cache.write_clips([clip("F", "failed", problem="cannot be embedded"), clip("C", "after")])
    cache.write_clips([clip("B#t=0,2", "ben#t=0,2"), clip("A#t=2", "anna#t=2"), clip("bad", "", problem="not a file")])
    cache.write_clips([clip("worse", "", problem="not a file")])
    before = stored(cache.folder)
    gone = ("A", "old.mp4", "A#t=2", "worse")
    cache.write_clips([replace(each, problem=TAKEN_OUT) for each in cache.entries() if each.clip_id in gone])
    size_before = sum(map(len, everything(cache.folder).values()))
    told, _ = erase_taken_out(cache.folder)
    freed = size(size_before - sum(map(len, everything(cache.folder).values())))
    assert told == f"erased from disk: 3 clips, 1 earlier name, 2 earlier contents, {freed} freed"
    kept = {"ben", "shared", "failed", "ben#t=0,2", "after"}
    assert stored(cache.folder) == {place: values for place, values in before.items() if place[1] in kept}
    assert len(stored(cache.folder)) == 2 * len(kept)
    secrets = [b"mail@anna", b"old.mp4", b"A#t=2", b"anna", b"Lunge", b"nameless"]
    assert [s for s in secrets + pictures("anna") if holding(cache.folder, s)] == []
    left = Cache(cache.folder)
    assert [c.clip_id for c in left.entries()] == ["B", "B#t=0,2", "C", "F", "bad", "copy.mp4"]
    for key in kept:
        assert left.frame_store(FRAMES).jpegs(key) == pictures(key)
    assert (check(cache=cache.folder).problems, check(cache=cache.folder).notes) == ((), ())


def test_what_came_last_still_counts(cache):
    """An old part that is written again comes after no other: neither its entries nor its names of a content."""
    cache.write_clips([clip("A", "same", label="Hop"), clip("C", "gone"), clip("D", "d", label="old")])
    cache.write_clips([clip("B", "same", label="Squat"), clip("D", "d", label="new")])
    cache.write_clips([clip("C", "gone", problem=TAKEN_OUT)])
    assert newest(cache.entries())["same"].clip_id == "B"
    erase_taken_out(cache.folder)
    left = Cache(cache.folder)
    assert newest(left.entries())["same"].clip_id == "B"
    assert [(c.clip_id, c.label) for c in left.entries()] == [("A", "Hop"), ("B", "Squat"), ("D", "new")]
    left.write_clips([clip("A", "same", label="Hop")])
    assert newest(Cache(cache.folder).entries())["same"].clip_id == "A"  # and what comes now is later


def test_what_was_told_of_clips_that_stay_before_goes(cache):
    """Of a wrong person who was corrected, and of a name that a video had before, nothing is left."""
    fill(cache, "one", "two")
    cache.write_clips([clip("A", "one", group="Zebulon", extra={"who": "Zebulon"}), clip("B", "two", group="Yrsa")])
    cache.write_clips([clip("A", "one", group="Xanthippe")])
    cache.write_clips([clip("C", "two", group="Yrsa"), clip("B", "one", group="Xanthippe")])
    entries, before = cache.entries(), stored(cache.folder)
    told, _ = erase_taken_out(cache.folder)
    assert told.startswith("erased from disk: earlier entries of clips, ")
    assert holding(cache.folder, b"Zebulon") == []
    assert Cache(cache.folder).entries() == entries
    assert sorted(Cache(cache.folder).all_entries(), key=lambda each: each.clip_id) == entries
    assert stored(cache.folder) == before
    assert erase_taken_out(cache.folder) == []


def test_entries_that_another_program_spelled_otherwise_stay(cache):
    fill(cache, "one")
    columns = {"key": "A", "video_sha256": "one", "label": "Squat", "group": "", "problem": ""}
    columns |= {"extra": '{"who": "Anna",  "at": "home"}'}
    cache.clip_store.write_part({name: text_column([columns[name]]) for name in SCHEMAS["clips"]})
    before = everything(cache.folder)
    assert erase_taken_out(cache.folder) == []
    assert everything(cache.folder) == before


def test_an_index_that_is_written_late_goes_by_the_next_call(cache, monkeypatch):
    """By a process that saw the parts before they were erased."""
    monkeypatch.setattr(store, "FEWEST_AT_END", 1)
    cache.write_clips([clip("A", "one", group="Zebulon")])
    cache.write_clips([clip("A", "one", group="Xanthippe")])
    late = Cache(cache.folder)
    monkeypatch.setattr(late.clip_store, "refresh", lambda: None)  # it has just looked
    erase_taken_out(cache.folder)
    late.clip_store.write_index(at_end=True)
    assert holding(cache.folder, b"Zebulon")
    erase_taken_out(cache.folder)
    assert holding(cache.folder, b"Zebulon") == []


def test_an_index_that_is_not_sound_goes_with_the_names_in_it(cache, monkeypatch):
    monkeypatch.setattr(store, "FEWEST_AT_END", 1)
    cache.write_clips([clip("A", "one", group="Zebulon")])
    cache.clip_store.write_index(at_end=True)
    cache.write_clips([clip("A", "one", group="Xanthippe")])
    (index,) = cache.folder.glob("clips/index-*")
    index.write_bytes(index.read_bytes() + b"\0")
    erase_taken_out(cache.folder)
    assert holding(cache.folder, b"Zebulon") == []


def mixed(cache):
    """Two clips that stay and one that goes, which has three entries."""
    for _ in range(2):
        fill(cache, "anna", "ben")
        cache.write_clips([clip("A", "anna"), clip("B", "ben")])
    fill(cache, "anna", "carl")
    cache.write_clips([clip("C", "carl"), clip("A", "anna", problem=TAKEN_OUT)])


class Killed(BaseException):
    """In place of a kill: nothing catches it."""


def test_a_kill_at_any_point_loses_nothing_and_a_second_call_finishes(tmp_path, monkeypatch):
    steps, kill_at, seen = [], [0], set()

    def stop_at(name, function):
        def call(*given):
            steps.append(name)
            if len(steps) == kill_at[0]:
                raise Killed
            return function(*given)

        return call

    mixed(Cache(tmp_path / "origin", create=True))
    (tmp_path / "origin" / "unfinished-0.json").write_text('{"clips": ["A"]}')
    before = {place: v for place, v in stored(tmp_path / "origin").items() if place[1] != "anna"}
    for module, name in ((store, "write_atomic"), (store, "remove"), (erase, "remove")):
        monkeypatch.setattr(module, name, stop_at(name, getattr(module, name)))
    done = False
    while not done:
        folder = shutil.copytree(tmp_path / "origin", tmp_path / f"cache{kill_at[0]}")
        kill_at[0] += 1
        steps.clear()
        try:
            erase_taken_out(folder)
            done = True
        except Killed:
            seen.add(steps[-1])
        assert used(folder) == ["B", "C"]  # above all the erased one is back at no time
        assert Cache(folder).clip("A") or not holding(folder, b"<anna")  # it is counted as long as it is seen
        assert {place: v for place, v in stored(folder).items() if place[1] != "anna"} == before
        steps.clear()
        steps += ["no more"] * kill_at[0]
        erase_taken_out(folder)
        assert used(folder) == ["B", "C"]
        assert stored(folder) == before
        assert [s for s in [b"anna", *pictures("anna")] if holding(folder, s)] == []
        assert holding(folder, b'"A"') == []
        assert (check(cache=folder).problems, check(cache=folder).notes) == ((), ())
    assert seen == {"write_atomic", "remove"}
    assert kill_at[0] > 18  # nine parts, each written and removed


def test_a_part_goes_once_the_other_is_on_disk(cache, monkeypatch):
    mixed(cache)
    events = []
    fsync, rename, unlink = os.fsync, Path.replace, Path.unlink

    def synced(descriptor):
        events.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")  # noqa: PTH112
        fsync(descriptor)

    def removed(self, **settings):
        events.extend(["remove"] * self.name.startswith("part-"))
        unlink(self, **settings)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", lambda self, target: events.append("rename") or rename(self, target))
    monkeypatch.setattr(Path, "unlink", removed)
    erase_taken_out(cache.folder)
    assert events == ["file", "rename", "folder", "remove", "folder"] * 9


def test_an_index_of_a_part_that_is_gone_holds_no_erased_names_either(cache, monkeypatch):
    monkeypatch.setattr(store, "FEWEST_AT_END", 1)
    cache.write_clips([clip("A", "anna", group="mail@anna")])
    cache.clip_store.write_index(at_end=True)
    next(cache.folder.glob("clips/part-*")).unlink()  # as `check --repair` does with a damaged one
    Cache(cache.folder).write_clips([clip("A", "anna", problem=TAKEN_OUT), clip("B", "ben")])
    assert holding(cache.folder, b"mail@anna")
    erase_taken_out(cache.folder)
    assert holding(cache.folder, b"anna") == []
    assert used(cache.folder) == ["B"]
    assert len(list(cache.folder.glob("clips/index-*"))) == 1
    (index,) = cache.folder.glob("clips/index-*")
    erase_taken_out(cache.folder)
    assert index.exists()  # it names nobody who was taken out


@pytest.mark.parametrize("kind", ["frames", "features", "clips"])
def test_a_damaged_part_ends_it_and_nothing_else_is_lost(cache, kind):
    mixed(cache)
    before = stored(cache.folder)
    part = sorted(cache.folder.glob(f"{kind}/part-*" if kind == "clips" else f"{kind}/*/part-*"))[1]
    data = bytearray(part.read_bytes())
    place = data.rindex(b"ben")
    data[place] ^= 1
    part.write_bytes(bytes(data))
    with pytest.raises(StoreCorrupt, match=r"is damaged.*check --cache DIR --repair"):
        erase_taken_out(cache.folder)
    assert part.read_bytes() == bytes(data)
    part.write_bytes(bytes(data[:place]) + bytes([data[place] ^ 1]) + bytes(data[place + 1 :]))
    kept = {where: values for where, values in before.items() if where[1] != "anna"}
    assert {where: values for where, values in stored(cache.folder).items() if where[1] != "anna"} == kept
    part.write_bytes(bytes(data))
    check(cache=cache.folder, repair=True)
    notes = erase_taken_out(cache.folder)
    assert f"{cache.folder / 'set-aside'} holds damaged files that may show erased clips: delete it yourself" in notes
    aside = cache.folder / "set-aside"
    assert [path for path in holding(cache.folder, b"anna") if not path.is_relative_to(aside)] == []
    shutil.rmtree(aside)
    assert erase_taken_out(cache.folder) == []


@pytest.mark.parametrize("kind", ["frames", "features"])
def test_parts_that_no_settings_belong_to_are_not_passed_over(cache, kind):
    mixed(cache)
    (next(cache.folder.glob(f"{kind}/*")) / "identity.json").unlink()
    before = everything(cache.folder)
    with pytest.raises(StoreCorrupt, match=r"has parts and no identity\.json: nothing was erased"):
        erase_taken_out(cache.folder)
    assert everything(cache.folder) == before
    check(cache=cache.folder, repair=True)
    assert erase_taken_out(cache.folder)
    assert holding(cache.folder, b"anna") == []


def test_impossible_offsets_of_frames_are_refused(cache):
    mixed(cache)
    frames = cache.frame_store(FRAMES)
    arrays = read_part(frames.part_paths()[0], "frames")
    bad = frames.write_part(arrays | {"jpeg_end": arrays["jpeg_end"][::-1]})
    with pytest.raises(StoreCorrupt, match="impossible offsets"):
        erase_taken_out(cache.folder)
    assert bad.exists()


def test_half_written_files_go_unless_somebody_may_be_writing_them(cache):
    mixed(cache)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = next(cache.folder.glob("frames/*"))
    left, living = folder / f".tmp-{host_id()}-{dead.pid}-aa", folder / f".tmp-{host_id()}-{os.getppid()}-bb"
    for path in (left, living, cache.folder / left.name):
        path.write_bytes(pictures("anna")[0])
    *_, told = erase_taken_out(cache.folder)
    assert told.startswith(f"1 half-written file may still have a writer and hold erased clips: {living}. Run")
    assert holding(cache.folder, b"anna") == [living]


def test_where_a_part_cannot_be_removed_the_reason_is_told(cache, monkeypatch):
    mixed(cache)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    before = stored(cache.folder)
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", refuse)
        with pytest.raises(StoreError, match=r"cannot remove .*Permission denied. Make its folder writable"):
            erase_taken_out(cache.folder)
    assert stored(cache.folder) == before


@pytest.mark.parametrize("clips_a_part", [1, 32])
def test_who_had_a_name_before_that_another_video_has_now_is_erased_too(
    run, tmp_path, videos, monkeypatch, clips_a_part
):
    monkeypatch.setattr("fitrec_cache.extraction.extractor.COMMIT_CLIPS", clips_a_part)
    first, second, *_ = sorted(videos.rglob("*.avi"))
    manifest, cache = tmp_path / "m.csv", tmp_path / "cache"
    rows = [f"{path.relative_to(videos)},{path.parent.name}" for path in sorted(videos.rglob("*.avi"))]
    people = ["Anna Ashby", *(f"other{i}" for i in range(1, len(rows)))]
    manifest.write_text("path,label,group\n" + "".join(f"{r},{who}\n" for r, who in zip(rows, people, strict=True)))
    run(manifest, root=videos)
    assert holding(cache, b"Anna Ashby")
    away = first.rename(tmp_path / "away.avi")
    second.rename(first)
    run(prune=True, erase=True)
    assert not holding(cache, b"Anna Ashby")
    away.rename(videos / "Hop" / "back.avi")
    run()
    groups = {clip.clip_id: clip.group for clip in Cache(cache).clips()}
    assert groups["Hop/back.avi"] is None
    assert groups[str(first.relative_to(videos))] == "other1"


@pytest.mark.parametrize("clips_a_part", [1, 32])
def test_who_was_replaced_under_the_same_name_is_erased_from_indexes_too(
    run, tmp_path, videos, monkeypatch, clips_a_part
):
    monkeypatch.setattr("fitrec_cache.extraction.extractor.COMMIT_CLIPS", clips_a_part)
    paths = sorted(videos.rglob("*.avi"))
    manifest, cache = tmp_path / "m.csv", tmp_path / "cache"
    for person in ("Anna Ashby", "Berta Bell"):
        rows = [f"{p.relative_to(videos)},{p.parent.name},{person if p == paths[0] else ''}\n" for p in paths]
        manifest.write_text("path,label,group\n" + "".join(rows))
        run(manifest, root=videos)
        paths[0].write_bytes(paths[0].read_bytes() + b"\0")  # another video to the byte
    assert holding(cache, b"Anna Ashby")
    run(manifest, root=videos, prune=True, erase=True)
    assert not holding(cache, b"Anna Ashby")
    assert holding(cache, b"Berta Bell")
    assert (check(cache=cache).problems, check(cache=cache).notes) == ((), ())


def test_each_part_with_such_rows_is_read_whole_once_and_no_other(cache, monkeypatch):
    mixed(cache)
    fill(cache, "ben", "carl")
    read = Counter()
    monkeypatch.setattr(erase, "read_part", lambda path, kind: read.update([path]) or read_part(path, kind))
    erase_taken_out(cache.folder)
    assert len(read) == 9
    assert set(read.values()) == {1}


def test_what_another_process_commits_meanwhile_stays(cache, monkeypatch):
    """It may have been asked to work after its claim was looked for, and enters a clip after its frames."""
    mixed(cache)

    def meanwhile(folder):
        fill(Cache(folder), "dora")

    monkeypatch.setattr(erase, "refuse_beside_others", meanwhile)
    erase_taken_out(cache.folder)
    assert {key for _, key in stored(cache.folder)} == {"ben", "carl", "dora"}


def test_a_folder_that_is_another_caches_is_left_alone(tmp_path, cache_folder):
    """Its rows are no clips of this one, so they would all go."""
    mine, theirs = (Path(shutil.copytree(cache_folder, tmp_path / name)) for name in ("mine", "theirs"))
    shutil.rmtree(mine / "frames")
    (mine / "frames").symlink_to(theirs / "frames")
    before = everything(theirs)
    with pytest.raises(UsageError, match=r"leads out of the cache, to .*theirs/frames.*No file was touched"):
        erase_taken_out(mine)
    with pytest.raises(UsageError, match="--repair would move files that are there"):
        check(cache=mine, repair=True)
    assert everything(theirs) == before
    assert check(cache=mine).problems == ()  # to look is no harm


def test_a_link_out_of_a_cache_is_refused_before_anything_is_done(
    tmp_path, cache_folder, video_folder, weights, inline
):
    cache = Path(shutil.copytree(cache_folder, tmp_path / "cache"))
    shutil.move(cache / "frames", tmp_path / "elsewhere")
    (cache / "frames").symlink_to(tmp_path / "elsewhere")
    videos = Path(shutil.copytree(video_folder, tmp_path / "videos"))
    next(videos.rglob("*.avi")).unlink()  # which would be entered as taken out
    before = everything(cache)
    with pytest.raises(UsageError, match="leads out of the cache"):
        extract(videos, cache=cache, prune=True, erase=True, backbone=[weights("test_resnet")], **SMALL)
    assert everything(cache) == before


def test_a_link_in_a_cache_does_not_let_repair_take_other_files(tmp_path, cache_folder):
    cache = Path(shutil.copytree(cache_folder, tmp_path / "cache"))
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "thesis.txt").write_text("mine")
    (cache / "frames" / "0123456789abcdef").symlink_to(tmp_path / "private")
    with pytest.raises(UsageError, match="leads out of the cache"):
        check(cache=cache, repair=True)
    assert (tmp_path / "private" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("inner", ["set-aside", "set-aside/features", "cache.json", "identity.json"])
def test_links_in_a_cache_do_not_let_repair_write_elsewhere(tmp_path, cache_folder, inner):
    cache = Path(shutil.copytree(cache_folder, tmp_path / "cache"))
    (features,) = (cache / "features").iterdir()
    (features / "login.pth").write_text("not of this cache")  # which would be set aside
    private = tmp_path / "private"
    private.mkdir()
    (private / "thesis.txt").write_text("mine")
    link = (features if inner == "identity.json" else cache) / inner
    link.unlink(missing_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to({"cache.json": private / "new.json", "identity.json": private / "thesis.txt"}.get(inner, private))
    with pytest.raises(UsageError, match=f"{inner}.* leads out of the cache, to .*--repair would write there"):
        check(cache=cache, repair=True)
    assert [(path.name, path.read_text()) for path in private.rglob("*")] == [("thesis.txt", "mine")]


def test_half_of_the_clips_may_be_erased_and_not_one_more(cache_folder):
    cache = Cache(cache_folder)
    names = sorted(clip.clip_id for clip in cache.clips())
    refuse_most(cache, names[:6])
    with pytest.raises(UsageError, match="--erase would remove 7 of 12 clips"):
        refuse_most(cache, names[:5])


def test_nothing_is_erased_whose_file_is_back_in_a_class_not_asked_for(run, tmp_path, videos):
    run()
    path = videos / "Squat/v_Squat_g01_c01.avi"
    path.rename(tmp_path / "away.avi")
    run(prune=True)
    (tmp_path / "away.avi").rename(path)
    before = stored(tmp_path / "cache")
    with pytest.raises(UsageError, match=r"leave out Squat/v_Squat_g01_c01\.avi, which is a video that --erase would"):
        run(classes="Hop,Lunge", prune=True, erase=True)
    assert stored(tmp_path / "cache") == before
