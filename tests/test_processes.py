from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from test_train import same, toy, weights_of

from fitrec_cache.common import processes, spawning
from fitrec_cache.common.files import is_process
from fitrec_cache.common.processes import map_in_processes
from fitrec_cache.errors import FitrecError, UsageError
from fitrec_cache.train import train_head
from fitrec_cache.video.decoding import DecoderPool


def waits_for_the_other(folder, item):
    """The first item waits until another process has begun one."""
    (folder / f"{os.getpid()}").touch()
    for _ in range(6000 if item == 0 else 0):
        if len(list(folder.iterdir())) > 1:
            break
        time.sleep(0.01)
    return 10 + item, os.getpid(), torch.get_num_threads()


def refuse(common, item):
    if item == 1:
        raise UsageError(f"{common} cannot do {item}")
    return item


def die(common, item):
    os.kill(os.getpid(), signal.SIGKILL)


def test_answers_come_in_order_from_processes_with_their_threads(tmp_path):
    done, items = [], [0, 1, 2]
    found = map_in_processes(
        waits_for_the_other, tmp_path, items, processes=2, threads=3, advance=lambda: done.append(1)
    )
    assert [value for value, _, _ in found] == [10, 11, 12]
    assert len({process for _, process, _ in found}) == 2
    assert os.getpid() not in {process for _, process, _ in found}
    assert {threads for _, _, threads in found} == {3}
    assert len(done) == 3


def test_processes_that_other_code_started_meanwhile_go_on():
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    with pytest.raises(UsageError, match="cannot do 1"):
        map_in_processes(refuse, "it", [0, 1], processes=2, threads=1, advance=other.start)
    try:
        assert other.is_alive()
    finally:
        other.kill()
        other.join()


class Deadly:
    """Ends the process that receives it, before that has taken an item."""

    def __reduce__(self):
        return os._exit, (3,)


def test_processes_that_cannot_begin_are_an_error_with_advice():
    with pytest.raises(FitrecError, match=r"a process ended.*--jobs 1"):
        map_in_processes(refuse, Deadly(), [0, 1], processes=2, threads=1)


def test_a_worker_of_a_pool_that_may_start_none_is_told_so(monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(FitrecError, match=r"not allowed to have children.*ProcessPoolExecutor"):
        map_in_processes(refuse, None, [0, 1], processes=2, threads=1)
    with pytest.raises(FitrecError, match=r"not allowed to have children.*ProcessPoolExecutor"):
        DecoderPool(workers=1, time_limit=1)


def test_what_goes_wrong_there_is_raised_here():
    with pytest.raises(UsageError, match="nobody cannot do 1"):
        map_in_processes(refuse, "nobody", [0, 1], processes=2, threads=1)
    with pytest.raises(FitrecError, match=r"a process ended with code -9: too little memory, .*, or killed.*--jobs 1"):
        map_in_processes(die, None, [0, 1], processes=2, threads=1)


_SLEEPING = """
import os, time
from pathlib import Path

def sleep(folder, item):
    Path(folder, str(os.getpid())).touch()
    time.sleep(60)
"""

_WITHOUT_GUARD = """
import sys
from fitrec_cache.common.processes import map_in_processes
from sleeping import sleep

map_in_processes(sleep, sys.argv[1], [0, 1], processes=2, threads=1)
"""


def test_processes_end_at_once_where_the_one_that_started_them_is_killed(tmp_path):
    (tmp_path / "sleeping.py").write_text(_SLEEPING)
    (tmp_path / "script.py").write_text(_WITHOUT_GUARD)
    (begun := tmp_path / "begun").mkdir()
    with subprocess.Popen([sys.executable, tmp_path / "script.py", begun]) as parent:
        try:
            wait_until(lambda: len(list(begun.iterdir())) == 2, seconds=60)
        finally:
            parent.kill()
    workers = [int(path.name) for path in begun.iterdir()]
    wait_until(lambda: not any(map(_works, workers)), seconds=20)


def _works(pid):
    """Say whether a process is there and not a zombie: nobody may wait for one whose parent is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, *, seconds):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_no_room_for_what_processes_are_given_is_an_error_with_advice(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(FitrecError, match=r"temporary file: No such file or directory\..*TMPDIR.*--jobs 1"):
        map_in_processes(refuse, None, [0, 1], processes=2, threads=1)


SLOW = """
import pathlib, time

class Slow:
    def __reduce__(self):
        return begin, ()

def begin():
    pathlib.Path("begun").touch()
    time.sleep(60)

def work(common, item):
    return item
"""

INTERRUPTED = """
import signal
from fitrec_cache.common.processes import map_in_processes
from slow import Slow, work

for each in (signal.SIGINT, signal.SIGHUP):
    signal.signal(each, signal.default_int_handler)  # a shell's background jobs have Ctrl-C ignored
try:
    map_in_processes(work, Slow(), [0, 1], processes=2, threads=1)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_processes_that_are_starting_leave_quietly_at_an_interruption(tmp_path, number):
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "script.py").write_text(INTERRUPTED)
    begun = tmp_path / "begun"
    command = [sys.executable, "script.py"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **pipes) as process:
        while process.poll() is None and not begun.exists():
            time.sleep(0.05)
        os.killpg(process.pid, number)  # as a terminal does
        out, err = process.communicate(timeout=30)  # it does not wait for what they are doing
    assert (out, err) == ("interrupted\n", "")


def test_heads_trained_at_the_same_time_are_those_of_one_thread(tmp_path):
    features = toy(tmp_path / "toy.h5", noise=1.0)
    common = {"features": features, "variant": "vit-lstm", "epochs": 3, "split": "kfold:2", "seed": [4, 9]}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = train_head(out=tmp_path / "alone", **common)
    finally:
        torch.set_num_threads(threads)
    beside = train_head(out=tmp_path / "beside", jobs=2, **common)
    assert [(r.fold, r.seed, r.metrics.accuracy) for r in beside.runs] == [
        (r.fold, r.seed, r.metrics.accuracy) for r in alone.runs
    ]
    for one, other in zip(alone.runs, beside.runs, strict=True):
        assert same(weights_of(one.out), weights_of(other.out))
    assert beside.stages["train"] > 0
    assert sum("runs were there already" in n for n in train_head(out=tmp_path / "beside", jobs=2, **common).notes) == 1


def test_a_head_that_is_left_alone_has_all_threads(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        report = train_head(
            out=tmp_path / "run", features=toy(tmp_path / "toy.h5"), variant="mean", epochs=1, seed=[1, 2, 3], jobs=2
        )
    finally:
        torch.set_num_threads(threads)
    used = [json.loads((run.out / "run.json").read_text())["threads"] for run in report.runs]
    assert used == [2, 2, 4]
    assert [run.seed for run in report.runs] == [1, 2, 3]


def test_processes_divide_what_a_container_gives_not_what_the_machine_has(tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("fitrec_cache.common.devices.cores", lambda: 2)
    torch.set_num_threads(8)
    features = toy(tmp_path / "toy.h5")
    try:
        report = train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1, seed=[1, 2], jobs=2)
    finally:
        torch.set_num_threads(threads)
    assert [json.loads((run.out / "run.json").read_text())["threads"] for run in report.runs] == [1, 1]


@pytest.mark.parametrize(("jobs", "device", "message"), [(0, "cpu", "jobs is 0"), (2, "mps", "one after the other")])
def test_jobs_that_cannot_be_are_refused(tmp_path, monkeypatch, jobs, device, message):
    monkeypatch.setattr("fitrec_cache.train.find_device", lambda name: name)
    with pytest.raises(UsageError, match=message):
        train_head(out=tmp_path / "run", features=toy(tmp_path / "t.h5"), variant="mean", jobs=jobs, device=device)


def files_in(folder, _):
    return sorted(path.name for path in Path(folder).iterdir())


def test_what_processes_are_given_has_no_name_that_a_kill_could_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert map_in_processes(files_in, str(tmp_path), [0, 1], processes=2, threads=1) == [[], []]


def test_a_process_of_another_user_is_one(monkeypatch):
    def kill(pid, signal):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.kill", kill)
    assert is_process(1)


def test_a_process_that_ended_is_none():
    with subprocess.Popen(["true"]) as child:
        assert is_process(child.pid)  # not waited for yet
    assert not is_process(child.pid)


def test_without_proc_what_the_processes_share_is_in_a_file_with_a_name(monkeypatch, tmp_path):
    """As on macOS. The file is gone afterwards."""
    monkeypatch.setattr(processes, "_PROC", tmp_path / "none")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = map_in_processes(files_in, tmp_path, [1, 2], processes=2, threads=1)
    assert list(map(len, found)) == [1, 1]
    assert list(tmp_path.iterdir()) == []


def test_where_processes_cannot_start_the_reason_is_told(monkeypatch):
    def fails(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(processes, "ProcessPool", fails)
    with pytest.raises(FitrecError, match=r"cannot be started \(Read-only file system\).*/dev/shm.*--jobs 1"):
        map_in_processes(len, "x", ["a"], processes=1, threads=1)


def test_why_the_tracker_of_semaphores_cannot_start_is_told(monkeypatch):
    def fails():
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(spawning.resource_tracker, "ensure_running", fails)
    with pytest.raises(FitrecError, match=r"cannot be started \(Too many open files\).*--jobs 1"):
        map_in_processes(waits_for_the_other, Path(), [1, 2], processes=2, threads=1)
