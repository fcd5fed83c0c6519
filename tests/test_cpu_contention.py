from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from test_train import toy

from fitrec_cache.common import cpu_contention as module
from fitrec_cache.common.cpu_contention import CpuContention, _Times, _times
from fitrec_cache.texts import train_text
from fitrec_cache.train import train_head


def others(monkeypatch, *, seconds, cores, idle, ours, threads=2):
    """What is said if this machine did so from one look to the next."""
    looks = [
        _Times(clock=5.0, all=100.0, idle=60.0, ours=1.0),
        _Times(clock=5.0 + seconds, all=100.0 + seconds * cores, idle=60.0 + idle, ours=1.0 + ours),
    ]
    monkeypatch.setattr(module, "_times", lambda: looks.pop(0))
    return CpuContention(threads).others()


@pytest.mark.parametrize(
    ("idle", "ours", "told"),
    [
        (0, 20, None),  # all of two cores for ten seconds
        (0, 11, 0.9),
        (1, 4, 1.5),
        (3, 4, None),  # cores were idle: who wanted one had it
        (0, 18, None),  # little
    ],
)
def test_others_are_told_where_they_held_this_program_up(monkeypatch, idle, ours, told):
    found = others(monkeypatch, seconds=10, cores=2, idle=idle, ours=ours)
    assert found == (None if told is None else pytest.approx(told))


def test_one_thread_that_had_a_core_was_not_held_up(monkeypatch):
    assert others(monkeypatch, seconds=10, cores=2, idle=0, ours=10, threads=1) is None
    assert others(monkeypatch, seconds=10, cores=2, idle=0, ours=6, threads=1) == pytest.approx(1.4)


def test_where_nothing_is_known_nothing_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_STAT", tmp_path / "none")
    assert _times() is None
    assert CpuContention(2).others() is None
    assert CpuContention(2).used_by_others() is None


def test_what_others_use_is_told_whether_or_not_it_did_harm(monkeypatch):
    looks = [_Times(clock=5.0, all=10.0, idle=6.0, ours=1.0), _Times(clock=15.0, all=50.0, idle=31.0, ours=3.0)]
    monkeypatch.setattr(module, "_times", lambda: looks.pop(0))
    waited = []
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 5.05, sleep=waited.append))
    assert CpuContention(2).used_by_others() == pytest.approx(1.3)  # of 40 s, 25 were idle and 2 ours, in 10 s
    assert waited == [pytest.approx(0.15)]


def test_times_are_read_in_seconds(monkeypatch, tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 200 300 4000 50 6 7 80 9 10\ncpu0 1 2 3\n")
    monkeypatch.setattr(module, "_STAT", stat)
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_CLK_TCK": 100}[name])
    found = _times()
    assert (found.all, found.idle) == pytest.approx((47.43, 40.5))
    assert 0 < found.ours < found.clock + 1e9


def test_what_train_head_prints_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(CpuContention, "others", lambda self: 0.94)
    report = train_head(out=tmp_path / "run", features=toy(tmp_path / "toy.h5"), variant="mean", epochs=1)
    assert report.to_dict()["others"] == 0.94
    said = "other programs used 0.9 cores at the same time, which slowed this down"
    for threads, advice in ((2, ": beside them OMP_NUM_THREADS=1 is faster (docs/performance.md)"), (1, "")):
        assert train_text(replace(report, threads=threads)).splitlines()[-1] == said + advice
