from __future__ import annotations

import subprocess
import sys

import pytest


def loaded(statement, *names):
    """Return which of ``names`` a fresh interpreter has loaded after ``statement``."""
    program = f"import sys\n{statement}\nprint(*(n for n in {names!r} if n in sys.modules))"
    command = [sys.executable, "-W", "error", "-c", program]
    return set(
        subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.split("\n")[-2].split()
    )


def test_the_probe_sees_what_is_loaded():
    assert loaded("import json.decoder, av", "json", "av", "timm") == {"json", "av"}


@pytest.mark.parametrize("module", ["train", "head", "cache", "pack", "pixels", "runs"])
def test_stage_two_cannot_touch_video(module):
    heavy = ("av", "timm", "pebble", "fitrec_cache.video", "fitrec_cache.backbone", "fitrec_cache.extract")
    assert loaded(f"import fitrec_cache.{module}", *heavy) == set()


def test_the_command_line_starts_without_heavy_libraries():
    heavy = ("torch", "h5py", "av", "timm", "numpy", "matplotlib", "sklearn", "fitrec_cache.extract")
    assert loaded("import fitrec_cache.cli", *heavy) == set()
    asking = "import fitrec_cache.cli\nsys.argv = ['x', 'extract', '--help']\n"
    asking += "try: fitrec_cache.cli.main()\nexcept SystemExit: pass"
    assert loaded(asking, *heavy) & set(heavy) == set()


def test_decoder_processes_load_no_torch():
    needed = "import fitrec_cache.decoding, fitrec_cache.jpeg, fitrec_cache.video"
    assert loaded(needed, "torch", "timm", "h5py") == set()
