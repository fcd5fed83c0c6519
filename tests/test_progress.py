from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest

from fitrec_cache.common.progress import print_above, progress_bar
from fitrec_cache.extraction.extractor import _show_waiting


def test_a_bar_makes_nothing_that_a_killed_process_leaves_behind():
    """A lock between processes is a semaphore of the system, which Python starts a process to watch over."""
    program = (
        "from multiprocessing import resource_tracker, set_start_method\n"
        "from fitrec_cache.common.progress import print_above, progress_bar\n"
        "set_start_method('spawn')\n"  # as in processes that `--jobs` starts
        "for show in (False, True):\n"
        "    with progress_bar(total=1, unit='clip', what='', show=show) as bar: bar.update(), print_above('note')\n"
        "print(resource_tracker._resource_tracker._fd)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["note", "note", "None"]


def refuse(_):
    raise OSError(28, "No space left on device")


def test_a_stream_that_is_closed_or_full_stops_no_work(monkeypatch):
    full = io.StringIO()
    monkeypatch.setattr(full, "write", refuse)
    monkeypatch.setattr(sys, "stderr", full)
    with progress_bar(total=2, unit="clip", what="x", show=True) as bar:
        bar.update()
    for name in ("stderr", "stdout"):
        monkeypatch.setattr(sys, name, None)
    with progress_bar(total=2, unit="clip", what="x", show=True) as bar:
        bar.update()
        print_above("note")


@pytest.mark.parametrize(("seconds", "shown"), [(0.9, False), (1.1, True)])
def test_what_takes_no_time_needs_no_bar(monkeypatch, seconds, shown):
    now, log = [100.0], io.StringIO()
    log.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with progress_bar(total=2, unit="clip", what="load", show=True, after=1) as bar:
        now[0] += seconds
        bar.update()
    assert ("load:" in log.getvalue()) == shown


def test_waiting_for_others_is_a_line_in_a_log_each_time_that_it_changes(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress_bar(total=2, unit="clip", what="x", show=True) as bar:
        begun = len(log.getvalue())
        for n in (9, 9, 9, 5, 5):
            _show_waiting(bar, f"{n} left, waiting")
        said = log.getvalue()[begun:]
    assert (said.count("9 left"), said.count("5 left")) == (1, 1)
    with progress_bar(total=2, unit="clip", what="x", show=False) as bar:
        _show_waiting(bar, "9 left, waiting")


def test_a_bar_is_cleared_for_what_is_printed_above_it(monkeypatch, capsys):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress_bar(total=2, unit="clip", what="x", show=True):
        begun = len(log.getvalue())
        print_above("note")
        assert re.match(r"\r +\r+x: ", log.getvalue()[begun:])  # cleared, then shown again
    assert capsys.readouterr().out == "note\n"


@pytest.mark.parametrize(
    ("module", "terminal", "seconds"), [("io", True, 0.2), ("io", False, 15), ("ipykernel.iostream", False, 1)]
)
def test_a_bar_moves_often_where_it_is_drawn_in_place_as_in_a_notebook(monkeypatch, module, terminal, seconds):
    stream = type("OutStream", (io.StringIO,), {"__module__": module, "isatty": lambda self: terminal})()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(total=2, unit="clip", what="x", show=True) as bar:
        assert bar.mininterval == seconds
