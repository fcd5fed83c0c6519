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


@pytest.mark.parametrize("module", ["train", "head", "cache", "pack", "pixels", "runs"])
def test_stage_two_cannot_touch_video(module):
    heavy = ("av", "timm", "pebble", "fitrec_cache.video", "fitrec_cache.backbone", "fitrec_cache.extract")
    heavy += ("fitrec_cache.extractor", "fitrec_cache.identity")
    assert loaded(f"import fitrec_cache.{module}", *heavy) == set()


def test_the_command_line_starts_without_heavy_libraries():
    heavy = ("torch", "h5py", "av", "timm", "numpy", "matplotlib", "sklearn", "fitrec_cache.extractor")
    assert loaded("import fitrec_cache.cli", *heavy) == set()
    asking = "import fitrec_cache.cli\nsys.argv = ['x', 'extract', '--help']\n"
    asking += "try: fitrec_cache.cli.main()\nexcept SystemExit: pass"
    assert loaded(asking, *heavy) & set(heavy) == set()


def test_what_predict_and_watch_need_loads_no_scikit_learn():
    assert loaded("import fitrec_cache.runs, fitrec_cache.splits", "sklearn", "matplotlib") == set()


def test_decoder_processes_load_no_torch():
    needed = "import fitrec_cache.decoding, fitrec_cache.jpeg, fitrec_cache.video"
    assert loaded(needed, "torch", "timm", "h5py") == set()


def lines_of_the_drawing():
    """Return on which line of the drawing in docs/design.md each module stands."""
    text = (PACKAGE.parent / "docs" / "design.md").read_text().split("## Modules")[1].split("```")[1]
    known = {path.stem if path.parent == PACKAGE else path.parent.name for path in PACKAGE.glob("**/*.py")}
    lines: dict[str, int] = {}  # remarks behind the modules may name others: the first place counts
    for number, line in enumerate(text.splitlines()):
        lines = {word: number for word in line.split() if word in known} | lines
    return lines


def imported(path):
    """Return the modules of the package that a file imports, those inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "fitrec_cache":
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("fitrec_cache."):
            found.append(node.module.split(".")[1])
    return [name for name in found if not name.startswith("__")]


def test_imports_go_up_the_drawing_of_modules():
    lines = lines_of_the_drawing()
    files = {path: path.stem if path.parent == PACKAGE else path.parent.name for path in PACKAGE.glob("**/*.py")}
    assert set(files.values()) - {"fitrec_cache", "__init__", "__main__"} <= lines.keys()
    wrong = [
        f"{name} -> {other}"
        for path, name in files.items()
        if not name.startswith("__")
        for other in imported(path)
        if lines[other] > lines[name]
    ]
    assert wrong == []
