from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, TimeoutError
from pathlib import Path
from types import SimpleNamespace

import pytest
from make_video import read_number, write_video

from fitrec_cache.common.files import file_stamp
from fitrec_cache.errors import UsageError, VideoError
from fitrec_cache.video import decoding
from fitrec_cache.video.contents import content_hash, content_hash_once
from fitrec_cache.video.decoding import DecodeJob, DecoderPool, StoredClip, decode_clip
from fitrec_cache.video.jpeg import decode_frames


class KillsItsReader(type(Path())):
    """A path whose reader dies as a crashing decoder does."""

    def stat(self, **_):
        os.kill(os.getpid(), signal.SIGKILL)


class FailsOnce(type(Path())):
    """A path that does something to its first reader only."""

    def stat(self, **_):
        flag = self.with_suffix(".read")
        if not os.path.exists(flag):  # noqa: PTH110 - Path would come back here
            os.close(os.open(flag, os.O_CREAT))
            self.fail()
        return os.stat(str(self))  # noqa: PTH116


class ExitsOnce(FailsOnce):
    """Its first reader exits as a worker does that gave up waiting for its pool's lock."""

    def fail(self):
        os._exit(1)


class AlwaysExits(type(Path())):
    def stat(self, **_):
        os._exit(3)


class HangsItsReader(type(Path())):
    def stat(self, **_):
        time.sleep(600)


class HangsOnce(FailsOnce):
    """Its first reader waits for longer than its time, as one does while a laptop sleeps."""

    def fail(self):
        time.sleep(600)


class FailsItsReader(type(Path())):
    def stat(self, **_):
        raise OverflowError("from deep inside a decoder")


def job(path, samples=3):
    return DecodeJob(path=path, samples=samples, short_side=96)


def numbers(stored):
    return [read_number(f) for f in decode_frames(stored.jpegs).permute(0, 2, 3, 1).numpy()]


def test_a_clip_is_kept_as_jpeg_with_numbers_times_and_ledger(tmp_path):
    stored = decode_clip(job(write_video(tmp_path / "v.mp4", 9, width=128, height=96)))
    assert numbers(stored) == [2, 4, 6] == stored.frame_index
    assert stored.pts_seconds == pytest.approx([0.08, 0.16, 0.24])
    assert all(data[:2] == b"\xff\xd8" for data in stored.jpegs)
    assert stored.ledger["frames_decoded"] == 9


def test_crash_hang_and_surprise_cost_one_clip_each_and_the_pool_goes_on(tmp_path):
    good = write_video(tmp_path / "v.mp4", 9, width=128, height=96)
    started = time.monotonic()
    with DecoderPool(workers=1, time_limit=4) as pool:
        waits = [pool.submit(job(p)) for p in (good, KillsItsReader(good), good, HangsItsReader(good), good)]
        waits += [pool.submit(job(p)) for p in (FailsItsReader(good), tmp_path / "gone.mp4", good)]
        found = [wait() for wait in waits]
    assert time.monotonic() - started < 30  # the one that hangs would have taken ten minutes
    assert found[1] == "decoder crashed (exit code -9)"
    assert found[3] == "decoder did not finish within 4 s (time-limit), twice, and was stopped"
    assert found[5] == "decoder failed: OverflowError: from deep inside a decoder"
    assert found[6] == "file not found"
    for outcome in (found[0], found[2], found[4], found[7]):
        assert isinstance(outcome, StoredClip)
        assert numbers(outcome) == [2, 4, 6]


def test_a_clip_whose_time_passed_without_work_is_tried_again(tmp_path):
    good = write_video(tmp_path / "v.mp4", 9, width=128, height=96)
    with DecoderPool(workers=1, time_limit=4) as pool:
        assert numbers(pool.submit(job(HangsOnce(good)))()) == [2, 4, 6]


@pytest.mark.parametrize("pause", [0, 1])
def test_workers_killed_while_they_have_no_work_cost_nothing(tmp_path, pause):
    good = write_video(tmp_path / "v.mp4", 9, width=128, height=96)
    with DecoderPool(workers=2, time_limit=30) as pool:
        assert numbers(pool.submit(job(good))()) == [2, 4, 6]
        time.sleep(0.5)  # until they hold no lock any more
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGKILL)
        time.sleep(pause)
        found = [wait() for wait in [pool.submit(job(good)) for _ in range(4)]]
        assert [f if isinstance(f, str) else numbers(f) for f in found] == [[2, 4, 6]] * 4


def test_a_worker_that_exits_by_itself_is_given_the_clip_again(tmp_path):
    good = write_video(tmp_path / "v.mp4", 9, width=128, height=96)
    with DecoderPool(workers=1, time_limit=30) as pool:
        waits = [pool.submit(job(p)) for p in (ExitsOnce(good), good, AlwaysExits(good), good)]
        found = [wait() for wait in waits]
    assert [f if isinstance(f, str) else numbers(f) for f in found] == [
        [2, 4, 6],
        [2, 4, 6],
        "decoder crashed (exit code 3)",
        [2, 4, 6],
    ]


def test_a_pool_in_which_nothing_moves_is_replaced(tmp_path, monkeypatch):
    """A worker that is killed while it holds the lock of its pool blocks the others for ever."""
    monkeypatch.setattr(decoding, "_START_SECONDS", 8.0)
    good = write_video(tmp_path / "v.mp4", 9, width=128, height=96)
    with DecoderPool(workers=1, time_limit=10) as pool:  # the pause is the sum; a busy machine needs the time
        assert numbers(pool.submit(job(good))()) == [2, 4, 6]
        mutex = pool._pool._pool_manager.worker_manager.workers_channel.mutex
        assert mutex.acquire(timeout=5)
        assert numbers(pool.submit(job(good))()) == [2, 4, 6]


def test_a_pool_that_is_renewed_while_it_is_closed_is_stopped_too(monkeypatch):
    """The new pool appears only once the one before is gone, which may take a while."""

    class Pool:
        def __init__(self):
            self.stopped = False
            made.append(self)

        def schedule(self, *_, **__):
            future = Future()
            future.set_result(True)
            return future

        def stop(self):
            self.stopped = True

        def join(self):
            joining.set()
            time.sleep(0.3)

    made: list[Pool] = []
    joining = threading.Event()
    monkeypatch.setattr(decoding, "ProcessPool", lambda **_: Pool())
    pool = DecoderPool(workers=1, time_limit=1)
    renewing = threading.Thread(target=pool._renew, args=[made[0]])
    renewing.start()
    assert joining.wait(60)
    pool.__exit__()
    renewing.join()
    assert len(made) == 2
    assert all(each.stopped for each in made)


INTERRUPTED = """
import signal
from fitrec_cache.video.decoding import DecoderPool

for each in (signal.SIGINT, signal.SIGHUP):
    signal.signal(each, signal.default_int_handler)  # a shell's background jobs have Ctrl-C ignored
try:
    DecoderPool(workers=2, time_limit=60)
except KeyboardInterrupt:
    print("interrupted")
"""

SLOW_TO_START = """
import pathlib, time
pathlib.Path("begun").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_decoders_that_are_starting_leave_quietly_at_an_interruption(tmp_path, number):
    (tmp_path / "av.py").write_text(SLOW_TO_START)  # which only decoders import
    (tmp_path / "script.py").write_text(INTERRUPTED)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "script.py"]
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **pipes) as process:
        while process.poll() is None and not (tmp_path / "begun").exists():
            time.sleep(0.05)
        os.killpg(process.pid, number)  # as a terminal does
        out, err = process.communicate(timeout=30)
    assert (out, err) == ("interrupted\n", "")


class TellsItsNiceness(type(Path())):
    def stat(self, **_):
        raise OverflowError(f"niceness {os.nice(0)}")


def test_decoders_give_way(tmp_path):
    with DecoderPool(workers=1, time_limit=20) as pool:
        found = pool.submit(job(TellsItsNiceness(tmp_path)))()
    assert found == f"decoder failed: OverflowError: niceness {min(19, os.nice(0) + 5)}"


def test_content_hash_is_the_sha256_of_the_bytes(tmp_path):
    path = tmp_path / "v.avi"
    path.write_bytes(b"abc")
    assert content_hash(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(bytes(3_000_000))
    assert content_hash(path) == hashlib.sha256(bytes(3_000_000)).hexdigest()


def test_content_hash_of_what_is_no_file_fails_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path, reason in (
        (tmp_path / "gone.mp4", "file not found"),
        (tmp_path, "not a file"),
        (tmp_path / "pipe.mp4", "not a file"),
        (Path("/dev/zero"), "not a file"),
    ):
        with pytest.raises(VideoError, match=reason):
            content_hash(path)


def test_a_file_of_parts_that_was_written_anew_is_hashed_anew(tmp_path):
    path = tmp_path / "v.avi"
    for data in (b"abc", b"other bytes"):
        path.write_bytes(data)
        assert content_hash_once(path, file_stamp(path)) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_a_time_limit_that_ends_nothing_is_refused(seconds):
    with pytest.raises(UsageError, match=f"time_limit is {seconds}: expected a positive number"):
        DecoderPool(workers=1, time_limit=seconds)


class Slow:
    """A job that is not done yet when it is asked for the first time."""

    def __init__(self):
        self.asked = 0

    def exception(self, timeout):
        self.asked += 1
        if self.asked == 1:
            raise TimeoutError


@pytest.fixture
def idle(monkeypatch):
    """Pools without processes."""
    pool = SimpleNamespace(schedule=lambda *_, **__: SimpleNamespace(result=lambda: True), stop=bool, join=bool)
    monkeypatch.setattr(decoding, "ProcessPool", lambda **_: pool)


@pytest.mark.usefixtures("idle")
def test_a_pool_in_which_others_end_is_not_stuck(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(decoding, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Last(Slow):
        def exception(self, timeout):
            now[0] += 40  # seconds, in which another job ends
            pool._note_end(object())
            self.asked += 1
            if self.asked < 9:
                raise TimeoutError

    with DecoderPool(workers=1, time_limit=1) as pool:
        assert pool._error(SimpleNamespace(active=True), Last()) is None


@pytest.mark.usefixtures("idle")
def test_a_pool_that_had_no_work_for_long_is_not_stuck():
    with DecoderPool(workers=1, time_limit=1) as pool:
        pool._last_life = time.monotonic() - 3600
        assert pool._error(SimpleNamespace(active=True), Slow()) is None


@pytest.mark.parametrize("how", ["written into", "replaced", "grown"])
def test_other_bytes_are_hashed_anew_however_they_came(tmp_path, how):
    """Into room that a copy took beforehand; by another file as old and as long; with its time set back."""
    path, other = tmp_path / "v.avi", tmp_path / "other.avi"
    for each, data in ((path, b"abc"), (other, b"xyz")):
        each.write_bytes(data)
        os.utime(each, ns=(10**18, 10**18))
    before = content_hash_once(path, file_stamp(path))
    if how == "written into":
        with path.open("r+b") as file:
            file.write(b"xyz")
    elif how == "replaced":
        other.replace(path)
    else:
        path.write_bytes(b"abcxyz")
        os.utime(path, ns=(10**18, 10**18))
    found = content_hash_once(path, file_stamp(path))
    assert found == hashlib.sha256(path.read_bytes()).hexdigest() != before
