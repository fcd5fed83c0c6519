from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fitrec_cache"


def loaded(statement, *names):
    """Return which of ``names`` a fresh interpreter has loaded after ``statement``."""
    program = f"import sys\n{statement}\nprint(*(n for n in {names!r} if n in sys.modules))"
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", program]
    return set(
        subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.split("\n")[-2].split()
    )


def test_the_probe_sees_what_is_loaded():
    assert loaded("import json.decoder, av", "json", "av", "timm") == {"json", "av"}


@pytest.mark.parametrize("module", ["train", "heads.head", "cache", "pack", "training.pixels", "runs.run"])
def test_stage_two_cannot_touch_video(module):
    heavy = ("av", "timm", "pebble", "fitrec_cache.video.video", "fitrec_cache.backbones", "fitrec_cache.extract")
    heavy += ("fitrec_cache.extraction",)
    assert loaded(f"import fitrec_cache.{module}", *heavy) == set()


def test_the_command_line_starts_without_heavy_libraries():
    heavy = ("torch", "h5py", "av", "timm", "numpy", "matplotlib", "sklearn", "fitrec_cache.extraction")
    assert loaded("import fitrec_cache.cli", *heavy) == set()
    asking = "import fitrec_cache.cli\nsys.argv = ['x', 'extract', '--help']\n"
    asking += "try: fitrec_cache.cli.main()\nexcept SystemExit: pass"
    assert loaded(asking, *heavy) & set(heavy) == set()


def test_what_predict_and_watch_need_loads_no_scikit_learn():
    assert loaded("import fitrec_cache.runs.run, fitrec_cache.dataset.splits", "sklearn", "matplotlib") == set()


def test_only_poses_need_the_reader_of_their_file():
    assert loaded("import fitrec_cache.extract, fitrec_cache.recogniser", "tflite", "flatbuffers") == set()


def test_decoder_processes_load_no_torch():
    needed = "import fitrec_cache.video.decoding, fitrec_cache.video.jpeg, fitrec_cache.video.video"
    assert loaded(needed, "torch", "timm", "h5py") == set()


def lines_of_the_drawing():
    """Return the modules of each package in the drawing of docs/design.md, and the line of each package and module."""
    text = (PACKAGE.parent / "docs" / "design.md").read_text().split("## Modules")[1].split("```")[1]
    drawn: dict[str, set[str]] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.replace("standard library only", "").strip().splitlines()):
        first, *others = line.split()
        if first.endswith("/"):
            drawn[first[:-1]] = set(others)
            lines[first[:-1]] = number
        else:
            lines |= dict.fromkeys([first, *others], number)
    return drawn, lines


def imported(path):
    """Return the modules of the package that a file imports, those inside functions too: packages by their name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "fitrec_cache":
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("fitrec_cache."):
            found.append(node.module.split(".")[1])
    return [name for name in found if not name.startswith("__")]


def test_imports_go_up_the_drawing_of_modules():
    drawn, lines = lines_of_the_drawing()
    modules = [path for path in PACKAGE.glob("**/*.py") if not path.stem.startswith("__")]
    there = {path.parent.name: {p.stem for p in modules if p.parent == path.parent} for path in modules}
    assert {name: there[name] for name in drawn} == drawn
    assert there["fitrec_cache"] | drawn.keys() == lines.keys()
    above = {path: path.stem if path.parent == PACKAGE else path.parent.name for path in modules}
    wrong = [
        f"{path} -> {other}" for path, name in above.items() for other in imported(path) if lines[other] > lines[name]
    ]
    assert wrong == []
