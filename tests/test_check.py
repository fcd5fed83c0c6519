from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import SMALL
from test_extract import everything

from fitrec_cache.cache import TAKEN_OUT, Cache
from fitrec_cache.check import _distance, check
from fitrec_cache.common.files import digest, host_id
from fitrec_cache.errors import NoCacheError, StoreCorrupt, StoreError, UsageError
from fitrec_cache.extract import extract
from fitrec_cache.features import load_cached
from fitrec_cache.info import info
from fitrec_cache.storage.parts import read_part
from fitrec_cache.storage.store import Store
from fitrec_cache.texts import check_text


@pytest.fixture
def cache(tmp_path, cache_folder):
    return shutil.copytree(cache_folder, tmp_path / "cache")


@pytest.fixture
def redo(cache, video_folder, weights, inline):
    return lambda: extract(video_folder, cache=cache, backbone=[weights("test_resnet")], **SMALL)


def part(cache, kind):
    return next(cache.glob({"clips": "clips/part-*", "frames": "frames/*/part-*"}.get(kind, "features/*/part-*")))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def reasons(report):
    return [p["reason"] for p in report.problems]


def test_a_sound_cache_has_no_problems(cache):
    report = check(cache=cache)
    assert (report.parts, report.rows, report.problems, report.repaired) == (3, 36, (), 0)


def test_how_far_it_is_can_be_shown(cache, capsys):
    check(cache=cache)
    assert capsys.readouterr().err == ""
    check(cache=cache, progress=True)
    assert "check: 100%" in (shown := capsys.readouterr().err)
    assert "3/3" in shown


@pytest.mark.parametrize("kind", ["clips", "frames", "features"])
@pytest.mark.parametrize("damage", [flip, lambda p: p.write_bytes(p.read_bytes()[:200]), lambda p: p.write_bytes(b"")])
def test_damage_is_named_set_aside_and_redone(cache, cache_folder, redo, kind, damage):
    path = part(cache, kind)
    damage(path)
    broken = path.read_bytes()
    found = check(cache=cache)
    why = "its bytes are not those that were written (sha256 differs from the one in its name)"
    assert found.problems == ({"path": str(path), "reason": f"damaged: {why}"},)
    assert found.rows == 24
    assert path.exists()  # nothing is moved without --repair
    repaired = check(cache=cache, repair=True)
    assert repaired.repaired == 1
    assert not path.exists()
    assert (cache / "set-aside" / path.relative_to(cache)).read_bytes() == broken
    left = check(cache=cache)
    lost = f"missing: {kind} of 12 finished clips such as Hop/v_Hop_g01_c01.avi; `extract` makes them"
    assert list(reasons(left)) == ([] if kind == "clips" else [lost])
    assert bool(left.notes) == (kind == "clips")  # names are not missed, only videos without one are seen
    report = redo()
    assert (report.done, report.reused, report.failed) == ((0, 12, ()) if kind == "clips" else (12, 0, ()))
    assert everything(cache) == everything(cache_folder)
    assert (check(cache=cache).problems, check(cache=cache).notes) == ((), ())


def test_damage_stops_extract_with_the_remedy_instead_of_being_used(cache, redo, weights):
    flip(part(cache, "frames"))
    with pytest.raises(StoreCorrupt, match="check --cache DIR --repair"):
        extract(None, cache=cache, backbone=[weights("test_vit")], device="cpu", precision="fp32")


def test_a_part_that_cannot_be_read_is_named_and_stays(cache, monkeypatch):
    path, opened = part(cache, "frames"), os.open

    def refused(asked, *how, **more):
        if Path(asked) == path:
            raise PermissionError(13, "Permission denied")
        return opened(asked, *how, **more)

    monkeypatch.setattr(os, "open", refused)
    report = check(cache=cache, repair=True)
    assert path.exists()
    assert (len(report.problems), report.repaired) == (1, 0)
    assert "Nothing says that it is damaged" in reasons(report)[0]


def test_both_folders_are_flushed_where_a_part_is_set_aside(cache, monkeypatch):
    flushed, path = [], part(cache, "frames")
    path.write_bytes(b"")
    monkeypatch.setattr(sys.modules["fitrec_cache.check"], "sync_folder", flushed.append)
    check(cache=cache, repair=True)
    assert flushed == [cache / "set-aside" / path.relative_to(cache).parent, path.parent]


@pytest.mark.parametrize("kind", ["frames", "features"])
def test_a_folder_that_is_missing_as_a_whole_is_named(cache, kind):
    shutil.rmtree(cache / kind)
    reasons_of = {p["path"]: p["reason"] for p in check(cache=cache).problems}
    assert reasons_of[str(cache / kind)].startswith(f"missing: {kind} of 12 finished clips such as Hop/v_Hop_g01_c01")


def test_exactly_the_clips_of_a_missing_part_are_redone(cache, cache_folder, video_folder, weights, inline):
    manifest = cache.parent / "two.csv"
    for names in (("Hop/v_Hop_g01_c01.avi", "Hop/v_Hop_g02_c01.avi"), ("Squat/v_Squat_g01_c01.avi",)):
        manifest.write_text("path,label\n" + "".join(f"{n},{n.split('/')[0]}\n" for n in names))
        settings = SMALL | {"root": video_folder, "backbone": [weights("test_resnet")]}
        extract(manifest, cache=cache.parent / "other", **settings)
    sorted((cache.parent / "other").glob("frames/*/part-*"))[0].unlink()
    sorted((cache.parent / "other").glob("features/*/part-*"))[0].unlink()
    named = [(p["path"], p["reason"]) for p in check(cache=cache.parent / "other").problems]
    assert len(named) == 2
    assert all("missing: " in reason and "of 2 finished clips" in reason for _, reason in named)
    report = extract(video_folder, cache=cache.parent / "other", **{**settings, "root": None})
    assert (report.done, report.reused) == (11, 1)
    assert everything(cache.parent / "other") == everything(cache_folder)


def test_foreign_files_are_named(cache):
    folder = part(cache, "features").parent
    (folder / "holiday.jpg").write_bytes(b"\xff\xd8")
    shutil.copy(part(cache, "frames"), folder)
    report = check(cache=cache, repair=True)
    assert len(report.problems) == report.repaired == 2
    assert check(cache=cache).problems == ()


PLACES = {
    "history/2026.json": "",
    "unfinished-0.json": "",
    "features/*/origin.json": "",
    "clips/part-00000000000000000001-00000000000000000000000000000000.h5": "not a file",
    "features/*/index-00000000000000000001-00000000000000000000000000000000.h5": "not a file",
    "frames/*/identity.json": "not a file",
}


@pytest.mark.parametrize("made", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
@pytest.mark.parametrize("place", PLACES)
def test_pipes_and_devices_in_a_cache_keep_nobody_waiting(cache, place, made):
    folder, _, name = place.rpartition("/")
    path = next(cache.parent.glob(f"cache/{folder}")) / name
    path.unlink(missing_ok=True)
    made(path)
    if not PLACES[place]:
        assert info(cache=cache).clips
        assert load_cached(Cache(cache), []).clip_ids
        assert check(cache=cache).problems == ()
    else:
        assert [name in p["path"] and "not a file" in p["reason"] for p in check(cache=cache).problems] == [True]
        if name.startswith("index"):
            assert info(cache=cache).clips  # without it
        else:
            with pytest.raises(StoreError, match="cannot be read: not a file"):
                info(cache=cache)


def test_half_written_files_are_problems_once_their_writer_is_gone(cache):
    folder = part(cache, "features").parent
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ages = {  # of files that a dead and a living process here left, and one on another machine, in seconds
        f".tmp-{host_id()}-{dead.pid}-aa": 0,
        f".tmp-{host_id()}-{os.getpid()}-bb": 0,
        f".tmp-{host_id()}-{os.getpid()}-cc": 7200,
        f".tmp-0123abcd-{dead.pid}-dd": 7200,
        f".tmp-0123abcd-{os.getpid()}-ee": 3 * 24 * 3600,
        ".tmp-odd": 0,
    }
    for name, age in ages.items():
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    report = check(cache=cache, repair=True)
    assert {Path(p["path"]).name[-2:] for p in report.problems} == {"aa", "cc", "ee"}
    assert set(reasons(report)) == {"half-written: its writer is gone"}
    assert {p.name[-2:] for p in folder.glob(".tmp-*")} == {"bb", "dd"}  # .tmp-odd, too, ends in dd
    assert report.rows == 36


@pytest.mark.parametrize("kind", ["clips", "frames", "features"])
@pytest.mark.parametrize("text", ["", "{}", None])
def test_a_damaged_identity_is_rebuilt_from_a_part(cache, cache_folder, redo, kind, text):
    path = part(cache, kind).parent / "identity.json"
    good = json.loads(path.read_text())
    path.unlink() if text is None else path.write_text(text)
    assert len(check(cache=cache).problems) == 1
    assert check(cache=cache, repair=True).repaired == 1
    assert json.loads(path.read_text()) == good
    assert check(cache=cache).problems == ()
    assert redo().reused == 12


def test_the_identity_of_a_strange_part_is_no_folders(cache, redo):
    """Were it, all parts of the folder's own would be set aside."""
    path = part(cache, "frames")
    strange = Store(cache.parent / "strange", "frames", {"samples": 4, "short_side": 64}).write_part(
        read_part(path, "frames")
    )
    shutil.copy(strange, path.parent / re.sub(r"part-\d{20}", f"part-{0:020d}", strange.name))
    good = json.loads((path.parent / "identity.json").read_text())
    (path.parent / "identity.json").unlink()
    check(cache=cache, repair=True)
    assert json.loads((path.parent / "identity.json").read_text()) == good
    check(cache=cache, repair=True)  # the strange part is set aside
    assert check(cache=cache).problems == ()
    assert redo().reused == 12


def test_a_lost_part_with_entries_is_said_to_take_changes_with_it(cache):
    """The clip that was taken out last is back, as what took it out is lost."""
    opened = Cache(cache)
    gone = opened.entries()[0]
    opened.write_clips([replace(gone, problem=TAKEN_OUT)])
    latest = max(cache.glob("clips/part-*"))
    latest.write_bytes(latest.read_bytes()[:-1])
    report = check(cache=cache, repair=True)
    assert Cache(cache).entries()[0] == gone
    assert "clips that --prune removed are back. Run `extract` with all your videos" in " ".join(report.notes)
    (frames, *_) = cache.glob("frames/*/part-*")
    frames.write_bytes(b"")
    assert "are back" not in " ".join(check(cache=cache, repair=True).notes)


def test_a_part_that_is_erased_while_it_is_looked_at_is_no_damage(cache, monkeypatch):
    """Its rows are in another part by then."""
    sound = check(cache=cache)

    def late(path, *args):
        if path.name.startswith("part-") and path.name.endswith(first.name):
            first.unlink(missing_ok=True)
        return read_part(path, *args)

    opened = Cache(cache)
    first = next(cache.glob("clips/part-*"))
    opened.write_clips(opened.entries())  # the other part
    monkeypatch.setattr("fitrec_cache.check.read_part", late)
    assert check(cache=cache).problems == sound.problems == ()
    assert not first.exists()


@pytest.mark.parametrize("text", ["", "{", None])
def test_a_lost_or_damaged_marker_is_made_again(cache, redo, text):
    marker = cache / "cache.json"
    good = marker.read_text()
    marker.unlink() if text is None else marker.write_text(text)
    with pytest.raises(StoreError):
        check(cache=cache)
    with pytest.raises(StoreError, match="check --cache DIR --repair"):
        redo()
    report = check(cache=cache, repair=True)
    assert [p["path"] for p in report.problems] == [str(marker)]
    assert (report.repaired, report.rows) == (1, 36)
    assert marker.read_text() == good
    assert (cache / "set-aside" / "cache.json").exists() == (text is not None)
    assert redo().reused == 12


def test_what_never_was_a_cache_is_not_made_one(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "thesis.tex").write_text("years of work")
    with pytest.raises(NoCacheError):
        check(cache=tmp_path, repair=True)
    assert [p.name for p in tmp_path.iterdir()] == ["clips"]


def test_another_version_is_refused_by_repair_too(cache):
    (cache / "cache.json").unlink()
    with pytest.raises(StoreError, match=r"its cache\.json is lost: `fitrec-cache check --cache DIR --repair`"):
        check(cache=cache)
    (cache / "cache.json").write_text('{"format_version": 2}')
    with pytest.raises(StoreError, match="version 2, this program reads version 1"):
        check(cache=cache, repair=True)
    assert not (cache / "set-aside").exists()


@pytest.mark.parametrize("repair", [False, True])
def test_a_part_of_another_version_is_no_damage(cache, repair):
    """Such as one that was copied from a cache of a newer program."""
    path = part(cache, "clips")
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 2
    path.rename(path.with_name(f"{path.name[:-35]}{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}.h5"))
    before = sorted(cache.glob("**/*"))
    with pytest.raises(StoreError, match="version 2, this program reads version 1"):
        check(cache=cache, repair=repair)
    assert sorted(cache.glob("**/*")) == before


@pytest.mark.parametrize("renamed", [False, True])
def test_nor_does_repair_take_a_lost_marker_for_one_of_this_version(cache, renamed):
    """Otherwise an older program would set the whole of a newer cache aside."""
    (cache / "cache.json").unlink()
    for path in cache.glob("**/*.h5"):
        with h5py.File(path, "r+") as file:
            file.attrs["format_version"] = 2
            if renamed and "key" in file:  # a new version mostly has other datasets
                file.move("key", "name")
        path.rename(path.with_name(f"{path.name[:-35]}{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}.h5"))
    before = sorted(cache.glob("**/*"))
    with pytest.raises(StoreError, match="version 2, this program reads version 1"):
        check(cache=cache, repair=True)
    assert sorted(cache.glob("**/*")) == before


def test_repair_is_advised_where_it_would_do_something(cache):
    flip(part(cache, "features"))
    (part(cache, "frames").parent / "identity.json").write_text("{")
    report = check(cache=cache)
    assert (report.repairable, report.repaired) == (2, 0)
    assert "add --repair" in check_text(report)
    report = check(cache=cache, repair=True)
    assert (report.repairable, report.repaired) == (0, 2)
    left = check(cache=cache)  # the features are missing, which --repair cannot make
    assert (len(left.problems), left.repairable) == (1, 0)
    assert "add --repair" not in check_text(left)


def test_an_identity_that_cannot_be_rebuilt_is_set_aside(cache, cache_folder, redo):
    path = part(cache, "features")
    (path.parent / "identity.json").write_text("{")
    flip(path)
    check(cache=cache, repair=True)
    assert check(cache=cache, repair=True).repaired == 0
    assert redo().done == 12
    assert check(cache=cache).problems == ()
    assert everything(cache) == everything(cache_folder)


def test_an_identity_that_says_nothing_of_use_is_refused(cache, tmp_path):
    for kind, identity in (("features", {"backbone": "x"}), ("frames", {"samples": 10**9, "short_side": 288})):
        folder = cache / kind / f"x-native-{digest(identity)[:16]}"
        folder.mkdir()
        (folder / "identity.json").write_text(json.dumps(identity))
        with pytest.raises(StoreCorrupt, match=r"identity\.json is damaged: .*check --repair"):
            info(cache=cache)
        assert len(check(cache=cache, repair=True).problems) == 1
        assert info(cache=cache).clips == 12


def test_setting_aside_twice_keeps_both(cache, redo):
    folder = part(cache, "features").parent
    for content in (b"one", b"two"):
        (folder / "x").write_bytes(content)
        check(cache=cache, repair=True)
    kept = {p.read_bytes() for p in (cache / "set-aside").rglob("x*") if p.is_file()}
    assert kept == {b"one", b"two"}


def test_a_folder_inside_a_store_is_left_alone_and_told(cache):
    (part(cache, "features").parent / "@eaDir").mkdir()
    report = check(cache=cache, recompute=1)
    assert (report.problems, report.recomputed) == ((), 1)
    assert any("@eaDir is a folder, which no part of a cache is" in note for note in report.notes)


def test_recompute_finds_features_that_are_not_those_of_the_weights(cache):
    report = check(cache=cache, recompute=5)
    assert (report.recomputed, report.largest_distance) == (5, 0.0)
    assert check(cache=cache, recompute=500).recomputed == 12
    assert check(cache=cache).largest_distance is None


def test_a_backbone_that_cannot_be_had_is_noted(cache, tmp_path):
    (path,) = cache.glob("features/*/origin.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": str(tmp_path / "gone.safetensors")}))
    report = check(cache=cache, recompute=2)
    assert (report.recomputed, report.problems) == (0, ())
    assert f"`extract --cache {cache} --backbone test_resnet=FILE`" in report.notes[-1]


def test_other_weights_where_the_old_ones_were_are_not_taken_for_drift(cache, weights):
    (path,) = cache.glob("features/*/origin.json")
    other = weights("test_resnet", seed=1).partition("=")[2]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": other}))
    report = check(cache=cache, recompute=2)
    assert (report.recomputed, report.largest_distance) == (0, None)
    assert re.search(r"recomputed, as .*differ: weights_sha256: [0-9a-f]{64} -> [0-9a-f]{64}$", report.notes[-1])


def test_another_device_than_that_of_the_first_time_is_noted(cache):
    (path,) = cache.glob("features/*/origin.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "cuda:0"}))
    assert any("was made on cuda:0, recomputed on" in note for note in check(cache=cache, recompute=1).notes)


def test_a_setting_that_only_the_stored_features_have_is_seen(cache):
    opened = Cache(cache)
    (plain,) = opened.feature_stores()
    rounded = opened.feature_store(plain.identity | {"rounding": "some way"})
    rounded.write_part(read_part(part(cache, "features"), "features"))
    rounded.write_origin(plain.origin())
    shutil.rmtree(plain.folder)
    report = check(cache=cache, recompute=2)
    assert (report.recomputed, report.largest_distance) == (0, None)
    assert report.notes[-1].endswith("was not recomputed, as weights or versions differ: rounding: some way -> None")


def test_recompute_is_left_out_where_damage_is_left(cache):
    part = next(cache.glob("features/*/part-*.h5"))
    part.write_bytes(part.read_bytes()[:-9])
    report = check(cache=cache, recompute=2)
    assert len(report.problems) == 1
    assert report.notes == ("nothing was recomputed, as damage remains: --repair first",)


def test_recompute_gives_the_cosine_distance(cache, monkeypatch):
    from fitrec_cache.backbones.backbone import Backbone

    embed = Backbone.embed
    monkeypatch.setattr(Backbone, "embed", lambda self, frames: -embed(self, frames))
    assert check(cache=cache, recompute=1).largest_distance == pytest.approx(2, abs=1e-3)


def test_wrong_use_is_refused(cache, tmp_path):
    with pytest.raises(StoreError, match="no cache at"):
        check(cache=tmp_path / "none")
    with pytest.raises(UsageError, match="recompute is -1"):
        check(cache=cache, recompute=-1)
    with pytest.raises(UsageError, match="seed -1: expected 0"):
        check(cache=cache, recompute=1, seed=-1)
    (cache / "cache.json").write_text('{"format_version": 2}')
    with pytest.raises(StoreError, match="version 2, this program reads version 1"):
        check(cache=cache)


def test_info_counts_what_is_there_and_lists_the_ledger(cache):
    report = info(cache=cache, clips=True)
    assert (report.clips, report.failed, report.groups) == (12, 0, 12)
    assert report.classes == {"Hop": 4, "Lunge": 4, "Squat": 4}
    assert [f["clips"] for f in (*report.frames, *report.features)] == [12, 12]
    rows = {c["clip_id"]: c["ledger"] for c in report.clip_list}
    assert rows["Hop/v_Hop_g01_c01.avi"]["frames_decoded"] == 6  # as write_class_folders wrote it
    assert rows["Squat/v_Squat_g04_c01.avi"]["frames_decoded"] == 7
    assert {r["codec"] for r in rows.values()} == {"mpeg4"}


def test_the_distance_of_a_clip_is_that_of_its_worst_frame():
    then, now = np.array([[1, 0], [0, 2], [0, 0]]), np.array([[3, 0], [2, 0], [0, 0]])
    assert _distance(then[:2], now[:2]) == pytest.approx(1.0)  # the first is the same but for its length
    assert _distance(then, then) == 0.0


def test_of_all_that_was_made_again_the_largest_distance_is_told(tmp_path, cache_folder, monkeypatch):
    told = iter([0.1, 0.3, 0.2])
    monkeypatch.setattr(sys.modules["fitrec_cache.check"], "_distance", lambda *_: next(told))
    report = check(cache=shutil.copytree(cache_folder, tmp_path / "cache"), recompute=3)
    assert (report.recomputed, report.largest_distance) == (3, 0.3)


def test_lost_frames_are_named_also_where_there_are_others_of_the_same_clips(cache, video_folder, weights, inline):
    extract(video_folder, cache=cache, backbone=[weights("test_resnet")], **SMALL | {"samples": 3})
    assert check(cache=cache).problems == ()
    (store,) = (s for s in Cache(cache).frame_stores() if s.identity["samples"] == 3)
    for path in store.part_paths():
        path.unlink()
    (problem,) = check(cache=cache).problems
    assert problem["path"] == str(store.folder)
    assert problem["reason"].startswith("missing: frames of 12 finished clips such as Hop/")


@pytest.mark.parametrize("name", [".DS_Store", "._part-1.h5", "desktop.ini"])
def test_what_a_file_manager_left_is_no_damage(cache, name):
    for kind in ("clips", "frames", "features"):
        for folder in (cache / kind, *(cache / kind).glob("*/")):
            (folder / name).write_text("icons")
    assert check(cache=cache, repair=True).problems == ()
    assert len(list(cache.rglob(name))) > 3
