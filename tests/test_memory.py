from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from fitrec_cache.common.memory import keep_freed_memory

#: Take and free a large block twice; print how many pages the second time had to fetch from the system.
SCRIPT = """
import resource, sys
from fitrec_cache.common.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
bytearray(50_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(50_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_that_was_freed_is_used_again():
    faults = {
        way: int(subprocess.run([sys.executable, "-c", SCRIPT, way], capture_output=True, text=True, check=True).stdout)
        for way in ("keep", "plain")
    }
    assert faults["keep"] < 100 < faults["plain"]


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False
