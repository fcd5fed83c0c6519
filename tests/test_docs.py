"""What the documentation shows can be typed: every command parses, every call in Python fits its function."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer.main

from fitrec_cache.cli import app
from fitrec_cache.dataset.find_clips import find_clips
from fitrec_cache.dataset.folds import folds_of_clips
from fitrec_cache.evaluation.paired import exact_p
from fitrec_cache.predict import predict
from fitrec_cache.runs.scored import read_scored
from fitrec_cache.train import train_head

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def shown(page, language):
    """Return the blocks of a page in a language; of none where nothing is said. They may be indented."""
    blocks, inside = [], None
    for line in page.read_text().splitlines():
        if inside is None and line.strip().startswith("```"):
            inside = line.strip()[3:], []
        elif inside is not None and line.strip() == "```":
            blocks += ["\n".join(inside[1]) + "\n"] if inside[0] == language else []
            inside = None
        elif inside is not None:
            inside[1].append(line)
    assert inside is None
    return blocks


def commands():
    for page in PAGES:
        text = page.read_text()
        lines = [line.strip().removeprefix("$ ") for block in shown(page, "") for line in block.splitlines()]
        lines += re.findall(r"`(fitrec-cache [^`]*)`", text)
        for line in dict.fromkeys(lines):
            if line.startswith("fitrec-cache ") and "..." not in line:
                yield pytest.param(line.split("  #")[0], id=f"{page.name}: {line[13:60]}")


def test_commands_are_found():
    assert len(list(commands())) > 20
    for page in PAGES:
        found = {param.id for param in commands()}
        for line in page.read_text().splitlines():
            command = line.strip().removeprefix("$ ")
            if command.startswith("fitrec-cache ") and "..." not in command:
                assert f"{page.name}: {command[13:60]}" in found


@pytest.mark.parametrize("line", list(commands()))
def test_a_command_that_is_shown_parses(line):
    group = typer.main.get_command(app)
    _, name, *given = shlex.split(line)
    command = group.commands[name]
    if not given:  # a command that is only named
        return
    context = command.make_context(name, given, resilient_parsing=False)
    assert not context.args


def test_the_folders_that_the_readme_shows_can_be_split_by_group(tmp_path):
    (tree,) = (block for block in shown(ROOT / "README.md", "") if block.startswith("VIDEOS/\n"))
    for line in tree.splitlines()[1:]:
        label, *rest = line.split()
        for name in rest:
            if name.endswith("/"):
                folder = tmp_path / label / name
                folder.mkdir(parents=True)
            else:
                (folder / name).write_bytes(b"")
    clips = find_clips(tmp_path, group_by="folder").clips
    (fold,) = folds_of_clips("group", clips, seed=0)
    for side in (fold.split.train, fold.split.val, fold.split.test):
        assert {clips[i].label for i in side} == {"Squat", "Lunge"}


def test_the_table_of_commands_has_all_in_the_order_of_help():
    cells = re.findall(r"^\| (`[a-z`, -]+`) \|", (ROOT / "README.md").read_text().split("| command |")[1], flags=re.M)
    listed = [name for cell in cells for name in re.findall(r"`([a-z-]+)`", cell)]
    assert listed == list(typer.main.get_command(app).commands)


def test_calls_in_python_that_are_shown_fit_their_functions():
    block, *_ = shown(ROOT / "docs" / "guide.md", "python")
    tree = ast.parse(block)
    names: dict = {}
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), "guide.md", "exec"), names)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    called = {node.func.id for node in calls} & names.keys()
    assert called == {"Path", "extract", "train_head"}
    for node in calls:
        if node.func.id in called - {"Path"}:
            keywords = {keyword.arg: None for keyword in node.keywords}
            inspect.signature(names[node.func.id]).bind(*node.args, **keywords)


def test_ones_own_classifier_works_as_shown(cache_folder, tmp_path, monkeypatch, capsys):
    _, block, *_ = shown(ROOT / "docs" / "guide.md", "python")
    settings = {"cache": cache_folder, "variant": "mean", "backbone": "test_resnet", "epochs": 3, "split": "random"}
    train_head(out=tmp_path / "run", **settings)
    for shown_name, here in (('"cache"', cache_folder), ('"runs/resnet50"', tmp_path / "run")):
        assert shown_name in block
        block = block.replace(shown_name, repr(str(here)))
    names: dict = {"Path": Path}
    exec(compile(block.replace("resnet50", "test_resnet"), "guide.md", "exec"), names)
    figures, difference = capsys.readouterr().out.splitlines()
    assert figures == f"{names['figures'].accuracy} {names['figures'].accuracy_ci95}"
    assert sorted(names["train"] + names["test"]) == list(range(len(names["y"])))
    assert list(names["head"].clips) == [names["clips"].clip_ids[i] for i in names["test"]]
    assert difference.startswith(str(exact_p(names["gain"], names["head"].units)))


def test_a_server_answers_as_shown(cache_folder, video_folder, tmp_path, capsys):
    _, _, block, *_ = shown(ROOT / "docs" / "guide.md", "python")
    train_head(cache=cache_folder, variant="mean", backbone="test_resnet", epochs=3, out=tmp_path / "run")
    video = next(video_folder.rglob("*.avi"))
    for shown_name, here in (('"runs/resnet50"', tmp_path / "run"), ('"new-clip.mp4"', video)):
        assert shown_name in block
        block = block.replace(shown_name, repr(str(here)))
    exec(compile(block, "guide.md", "exec"), {})
    (wanted,) = predict([video], run=tmp_path / "run")
    found = ast.literal_eval(capsys.readouterr().out)
    assert found["top"] == wanted.to_dict()["top"]


def test_a_program_with_its_own_camera_works_as_shown(cache_folder, tmp_path, capsys):
    _, _, _, block, *_ = shown(ROOT / "docs" / "guide.md", "python")
    train_head(cache=cache_folder, variant="mean", backbone="test_resnet", epochs=3, out=tmp_path / "run")
    assert '"runs/lstm"' in block
    pictures = ((k / 25, np.full((48, 64, 3), k, np.uint8)) for k in range(100))
    exec(
        compile(block.replace('"runs/lstm"', repr(str(tmp_path / "run"))), "guide.md", "exec"),
        {"camera": lambda: pictures},
    )
    answers = [line.split() for line in capsys.readouterr().out.splitlines()]
    step = json.loads((tmp_path / "run" / "run.json").read_text())["clip_seconds"] * 2 / 5  # T = 4
    assert [float(start) for start, _, _ in answers] == pytest.approx([step * k for k in range(len(answers))])
    assert len(answers) > 9


def test_features_made_elsewhere_train_as_shown(tmp_path, monkeypatch):
    *_, block, answering = shown(ROOT / "docs" / "guide.md", "python")
    monkeypatch.chdir(tmp_path)
    np.save("values.npy", np.random.default_rng(0).random((40, 3, 5), np.float32))
    for what, each in (("names", "clip {}"), ("labels", "AB"), ("people", "person {}")):
        lines = [each[i % 2] if what == "labels" else each.format(i // 4 if what == "people" else i) for i in range(40)]
        Path(f"{what}.txt").write_text("\n".join(lines))
    exec(compile(block, "guide.md", "exec"), {})
    run = json.loads(Path("runs/mine/run.json").read_text())
    assert {side: len(run["split"][side]) for side in ("train", "val", "test")} == {"train": 24, "val": 8, "test": 8}
    names: dict = {}
    exec(compile(answering, "guide.md", "exec"), names)
    scored = read_scored(Path("runs/mine"))
    rows = [int(clip.removeprefix("clip ")) for clip in scored.clips]
    assert (names["probabilities"][rows].argmax(dim=1).numpy() == scored.tested.logits.argmax(axis=1)).all()


def test_lists_with_class_numbers_become_a_manifest_as_shown(tmp_path, monkeypatch):
    block, _ = shown(ROOT / "docs" / "switching.md", "python")
    monkeypatch.chdir(tmp_path)
    Path("labels.txt").write_text("Lunge\nPush, up\n")
    for side, line in (("train", "all/a b.mp4 1"), ("val", "all/c.mp4 0"), ("test", "all/d.mp4 1")):
        Path(f"{side}.txt").write_text(f"{line}\n")
    exec(compile(block, "switching.md", "exec"), {})
    found = [(clip.clip_id, clip.label, dict(clip.extra)) for clip in find_clips(Path("manifest.csv")).clips]
    assert found == [
        ("all/a b.mp4", "Push, up", {"split": "train"}),
        ("all/c.mp4", "Lunge", {"split": "val"}),
        ("all/d.mp4", "Push, up", {"split": "test"}),
    ]


def test_figures_are_computed_again_as_shown(cache_folder, tmp_path, monkeypatch, capsys):
    _, block = shown(ROOT / "docs" / "switching.md", "python")
    train_head(cache=cache_folder, variant="mean", backbone="test_resnet", epochs=3, out=tmp_path / "runs/mean")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "switching.md", "exec"), {})
    figures = json.loads(Path("runs/mean/metrics.json").read_text())
    accuracy, *matrix = capsys.readouterr().out.splitlines()
    assert float(accuracy) == figures["accuracy"]
    assert [[int(n) for n in re.findall(r"\d+", row)] for row in matrix] == figures["confusion"]
    assert len(Path("split.csv").read_text().splitlines()) == sum(figures[f"n_{s}"] for s in ("train", "val", "test"))


def anchors(page):
    """Return the anchors of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"https?:", target):
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target
