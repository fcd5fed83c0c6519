"""Scripts are not run again in the processes that they start."""

import multiprocessing
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from fitrec_cache.common import spawning

SCRIPT = """
import sys, pathlib
import torch
from fitrec_cache.video.decoding import DecodeJob, DecoderPool

print("run")
with DecoderPool(workers=1, time_limit=60) as pool:
    print(pool.submit(DecodeJob(path=pathlib.Path("gone.mp4"), samples=2, short_side=64))())
"""


@pytest.mark.parametrize("as_text", [False, True])
def test_a_script_needs_no_guard_and_runs_once(tmp_path, as_text):
    (tmp_path / "script.py").write_text(SCRIPT)
    with (tmp_path / "script.py").open() as text:
        command = [sys.executable, "-" if as_text else "script.py"]
        done = subprocess.run(command, cwd=tmp_path, stdin=text, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("run\nfile not found\n", "")


SEEN = """
import multiprocessing, sys
import torch
from fitrec_cache.common.spawning import WorkerContext
from seeing import names

if __name__ == "__main__":
    for context in (WorkerContext(), multiprocessing.get_context("spawn")):
        queue = context.Queue()
        process = context.Process(target=names, args=[queue])
        process.start()
        print(queue.get())
        process.join()
"""


def test_workers_import_nothing_of_the_script_and_processes_of_others_do(tmp_path):
    (tmp_path / "script.py").write_text(SEEN)
    (tmp_path / "seeing.py").write_text("import sys\ndef names(queue):\n    queue.put('torch' in sys.modules)\n")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("False\nTrue\n", "")


def test_a_start_in_another_thread_at_the_same_time_is_told_of_the_script(monkeypatch):
    """The stand-in asks what another thread would be told just while a worker is being started."""
    told = {}

    def ask(process):
        told["worker"] = multiprocessing.spawn.get_preparation_data("worker")
        other = threading.Thread(target=lambda: told.update(other=multiprocessing.spawn.get_preparation_data("other")))
        other.start()
        other.join()

    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__="script.py", __spec__=None))
    monkeypatch.setattr(spawning.SpawnProcess, "_Popen", staticmethod(ask))
    spawning._Worker._Popen(None)
    told["later"] = multiprocessing.spawn.get_preparation_data("later")
    main = {"init_main_from_name", "init_main_from_path"}
    assert {name: bool(main & data.keys()) for name, data in told.items()} == {
        "worker": False,
        "other": True,
        "later": True,
    }


RELOADED = """
import importlib
from fitrec_cache.common import spawning

importlib.reload(spawning)
process = spawning.WorkerContext().Process(target=print, args=["started"])
process.start()
process.join()
"""


def test_processes_start_after_the_module_was_loaded_again(tmp_path):
    """As by IPython's autoreload."""
    (tmp_path / "script.py").write_text(RELOADED)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("started\n", "")
