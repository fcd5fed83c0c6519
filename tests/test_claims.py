from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from fitrec_cache.common.files import host_id
from fitrec_cache.dataset.clips import Clip
from fitrec_cache.extraction import claims as module
from fitrec_cache.extraction.claims import Claims, others_at_work

CLIPS = [Clip(clip_id=f"A/{n:02d}.avi", label="A") for n in range(24)]


@pytest.fixture
def claims(tmp_path):
    def make(clips=CLIPS, **settings):
        given = {"size": 4, "purpose": "x", "refresh": lambda: None, **settings}
        return Claims(tmp_path / "claims", clips, **given)

    return make


def take(iterator, n):
    return [next(iterator).clip_id for _ in range(n)]


def everything(claims):
    return [clip.clip_id for clip in claims]


def claim_all(folder, text, age=0.0):
    for path in folder.iterdir():
        path.write_text(text)
        os.utime(path, (time.time() - age,) * 2)


def test_every_clip_comes_once_in_whole_blocks(claims):
    mine = claims()
    assert mine.more()
    got = everything(mine)
    assert not mine.more()
    assert sorted(got) == [c.clip_id for c in CLIPS]
    assert all(got[i : i + 4] == sorted(got[i : i + 4]) for i in range(0, 24, 4))


def test_a_block_of_another_living_process_is_waited_for(claims, tmp_path, monkeypatch):
    theirs = take(iter(claims()), 3)
    name = next(p for p in (tmp_path / "claims").iterdir())
    name.write_text(f"{host_id()} {os.getppid()}")  # of another process that lives
    mine = claims()
    assert mine.more()
    first = everything(mine)
    assert len(first) == 20
    assert not set(first) & set(theirs)
    waited = []
    monkeypatch.setattr(time, "sleep", lambda seconds: waited.append(seconds) or name.unlink())
    told = []
    assert mine.more(told.append)
    assert len(waited) == 1
    assert told == [4]  # the clips of the one block that is left
    assert set(theirs) < set(everything(mine))
    assert not mine.more()


@pytest.mark.parametrize(
    ("owner", "age", "void"),
    [
        (f"{host_id()} DEAD", 0, True),
        ("0123abcd DEAD", 10, False),  # the process numbers of another machine say nothing
        (f"{host_id()} {os.getppid()}", 10, False),
        (f"{host_id()} {os.getppid()}", 7200, True),  # it hangs, or the number is another process's by now
        ("0123abcd 1", 10, False),
        ("0123abcd 1", 7200, True),
        ("0123abcd 1", -30, False),  # its clock is ahead a little
        ("0123abcd 1", -3 * 3600, True),  # of before a clock was set right
        ("", 1, False),  # its owner is just about to write its name
        ("", 10, True),  # its owner was killed before that
    ],
)
def test_claims_of_the_dead_and_silent_are_void(claims, tmp_path, owner, age, void):
    if owner.endswith("DEAD"):
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait()
        owner = owner.replace("DEAD", str(child.pid))
    theirs = set(take(iter(claims(CLIPS[:8])), 1))
    claim_all(tmp_path / "claims", owner, age)
    got = everything(claims(CLIPS[:8]))
    assert len(got) == (8 if void else 4)
    assert (theirs <= set(got)) == void
    claims = {p.read_text() for p in (tmp_path / "claims").iterdir()}
    assert (owner in claims) != void


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda p: p.touch(0), marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")),
        lambda p: p.mkdir(),
        lambda p: p.symlink_to("nowhere"),
        os.mkfifo,
    ],
    ids=["forbidden", "folder", "link", "pipe"],
)
def test_of_a_claim_that_may_not_be_read_the_age_tells(claims, tmp_path, made):
    """As of one that another user made for himself alone."""
    take(iter(claims(CLIPS[:4])), 1)
    (path,) = (tmp_path / "claims").iterdir()
    path.unlink()
    made(path)
    mine = claims(CLIPS[:4])
    assert others_at_work(tmp_path)
    assert everything(mine) == []
    os.utime(path, (time.time() - 700,) * 2, follow_symlinks=False)
    assert not others_at_work(tmp_path)
    assert mine.more()
    assert len(everything(mine)) == 4


def test_claims_are_given_back_when_their_clips_are_committed(claims, tmp_path):
    mine = claims()
    iterator = iter(mine)
    block = [next(iterator) for _ in range(4)]
    next(iterator)
    for clip in block[:3]:
        mine.finished(clip)
    mine.committed()
    assert len(list((tmp_path / "claims").iterdir())) == 2
    mine.finished(block[3])
    mine.committed()
    assert len(list((tmp_path / "claims").iterdir())) == 1
    mine.close()
    assert list((tmp_path / "claims").iterdir()) == []


def test_void_claims_on_other_clips_go_too(claims, tmp_path):
    take(iter(claims(CLIPS[:4])), 1)
    claim_all(tmp_path / "claims", "0123abcd 1", 7200)  # of one that was killed, before videos were added
    (tmp_path / "claims" / "notes.txt").write_text("mine")
    theirs = claims(CLIPS[4:8])
    take(iter(theirs), 1)
    mine = claims(CLIPS[8:])
    everything(mine)
    mine.close()
    assert len(list((tmp_path / "claims").iterdir())) == 2  # that and another's
    theirs.close()
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["notes.txt"]


def test_a_claim_that_went_to_another_is_not_given_back(claims, tmp_path):
    mine = claims()
    take(iter(mine), 1)
    claim_all(tmp_path / "claims", f"{host_id()} 1")
    mine.close()
    assert len(list((tmp_path / "claims").iterdir())) == 1


def test_a_claim_of_this_process_hinders_it_not(claims):
    take(iter(claims()), 1)  # never closed, as after an error
    assert len(everything(claims())) == 24


def test_claims_for_another_purpose_are_other_claims(claims, tmp_path):
    take(iter(claims(CLIPS[:8], purpose="x")), 1)
    claim_all(tmp_path / "claims", "0123abcd 1", 10)
    assert len(everything(claims(CLIPS[:8], purpose="y"))) == 8
    assert len(everything(claims(CLIPS[:8], purpose="x"))) == 4


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, True), (3600.0, False)])
def test_every_claim_shows_now_and_then_that_its_owner_lives(claims, tmp_path, monkeypatch, seconds, shown):
    """Also those of blocks that wait."""
    monkeypatch.setattr(module, "_SIGN_SECONDS", seconds)
    mine = claims()
    iterator = iter(mine)
    given = [next(iterator) for _ in range(9)]  # of three blocks
    for path in (tmp_path / "claims").iterdir():
        os.utime(path, (time.time() - 500,) * 2)
    mine.finished(given[0])
    ages = [time.time() - path.stat().st_mtime for path in (tmp_path / "claims").iterdir()]
    assert len(ages) == 3
    assert (max(ages) < 100) is shown


def test_where_claims_cannot_be_kept_the_work_goes_on(claims, tmp_path):
    (tmp_path / "claims").write_text("a file in the way")
    mine = claims()
    assert mine.more()
    assert len(everything(mine)) == 24
    mine.finished(CLIPS[0])
    mine.committed()
    mine.close()


def test_what_others_finished_is_looked_up_before_each_block_once_it_is_claimed(claims, tmp_path):
    """Else another could finish it in between."""
    order = []
    for _ in claims(refresh=lambda: order.append(len(list((tmp_path / "claims").iterdir())))):
        order.append("clip")
    assert order == [each for claimed in range(1, 7) for each in (claimed, *["clip"] * 4)]


def test_what_a_file_manager_left_beside_the_claims_is_no_process_at_work(claims, tmp_path):
    take(iter(claims(CLIPS[:4])), 1)
    for path in (tmp_path / "claims").iterdir():
        path.unlink()
    (tmp_path / "claims" / ".DS_Store").touch()
    assert not others_at_work(tmp_path)
