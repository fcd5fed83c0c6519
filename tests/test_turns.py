from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from fitrec_cache.clips import Clip
from fitrec_cache.files import host_id
from fitrec_cache.turns import Turns

CLIPS = [Clip(clip_id=f"A/{n:02d}.avi", path=None, label="A") for n in range(24)]


@pytest.fixture
def turns(tmp_path):
    def make(clips=CLIPS, **settings):
        given = {"size": 4, "purpose": "x", "refresh": lambda: None, **settings}
        return Turns(tmp_path / "claims", clips, **given)

    return make


def take(iterator, n):
    return [next(iterator).clip_id for _ in range(n)]


def claim_all(folder, text, age=0.0):
    for path in folder.iterdir():
        path.write_text(text)
        os.utime(path, (time.time() - age,) * 2)


def test_every_clip_comes_once_in_whole_blocks(turns):
    got = take(iter(turns()), 24)
    assert sorted(got) == [c.clip_id for c in CLIPS]
    assert all(got[i : i + 4] == sorted(got[i : i + 4]) for i in range(0, 24, 4))


def test_a_block_that_another_living_process_claimed_comes_last(turns, tmp_path):
    first = turns()
    theirs = take(iter(first), 3)
    name = next(p for p in (tmp_path / "claims").iterdir())
    name.write_text(f"{host_id()} {os.getppid()}")  # of another process that lives
    assert set(theirs) <= set(take(iter(turns()), 24)[-4:])


@pytest.mark.parametrize(
    ("owner", "age", "void"),
    [
        ("dead", 0, True),
        (f"{host_id()} {os.getppid()}", 7200, False),
        ("0123abcd 1", 10, False),
        ("0123abcd 1", 7200, True),
        ("", 7200, True),
    ],
)
def test_claims_of_the_dead_and_silent_are_void(turns, tmp_path, owner, age, void):
    if owner == "dead":
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait()
        owner = f"{host_id()} {child.pid}"
    clips = CLIPS[:8]
    held = turns(clips)
    theirs = set(take(iter(held), 1))
    claim_all(tmp_path / "claims", owner, age)
    runs = [take(iter(turns(clips)), 8) for _ in range(1)]
    claims = {p.read_text() for p in (tmp_path / "claims").iterdir()}
    assert (owner not in claims) == void
    assert void or theirs <= set(runs[0][4:])


def test_claims_are_given_back_when_their_clips_are_committed(turns, tmp_path):
    mine = turns()
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


def test_where_claims_cannot_be_kept_the_work_goes_on(turns, tmp_path):
    (tmp_path / "claims").write_text("a file in the way")
    mine = turns()
    assert len(take(iter(mine), 24)) == 24
    mine.finished(CLIPS[0])
    mine.committed()
    mine.close()


def test_what_others_finished_is_looked_up_before_each_block(turns):
    looked = []
    take(iter(turns(refresh=lambda: looked.append(1))), 24)
    assert len(looked) == 6
