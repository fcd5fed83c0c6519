from __future__ import annotations

import subprocess
import sys


def test_a_bar_makes_nothing_that_a_killed_process_leaves_behind():
    """A lock between processes is a semaphore of the system, which Python starts a process to watch over."""
    program = (
        "from multiprocessing import resource_tracker, set_start_method\n"
        "from fitrec_cache.progress import print_above, progress_bar\n"
        "set_start_method('spawn')\n"  # as in processes that `--jobs` starts
        "for show in (False, True):\n"
        "    with progress_bar(total=1, unit='clip', what='', show=show) as bar: bar.update(), print_above('note')\n"
        "print(resource_tracker._resource_tracker._fd)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["note", "note", "None"]
