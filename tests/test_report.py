from __future__ import annotations

import hashlib
import html
import importlib.resources
import json
import math
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy
from conftest import SMALL, write_class_folders
from make_video import write_video
from scipy.stats import binomtest, sem
from scipy.stats import t as student
from typer.testing import CliRunner

from fitrec_cache.auditing.near_duplicates import NearDuplicates
from fitrec_cache.cache import Cache, HeldClip
from fitrec_cache.cli import app
from fitrec_cache.compare import compare
from fitrec_cache.errors import NoCacheError, StoreCorrupt, UsageError
from fitrec_cache.evaluation.metrics import wilson
from fitrec_cache.extract import extract
from fitrec_cache.extraction.history import history
from fitrec_cache.report import build, charts, leaks, pictures, report, views
from fitrec_cache.report.attention import Attention, attention
from fitrec_cache.report.calibration import _errors
from fitrec_cache.report.leaks import Auditor
from fitrec_cache.report.models import gather
from fitrec_cache.report.records import read_records
from fitrec_cache.report.repeat import how_to
from fitrec_cache.report.words import (
    attention_says,
    calibration_says,
    classes_say,
    confusions_say,
    curves_say,
    duration,
    headline,
    percent,
    results_say,
    split_says,
)
from fitrec_cache.settings import paper
from fitrec_cache.settings.recipes import RECIPES
from fitrec_cache.train import train_head
from fitrec_cache.video.jpeg import encode_frames

HOSTILE = '<script>console.error("owned")</script><img src=http://127.0.0.1/x onerror=alert(1)>'


# --- runs to report on ---


def write_run(folder, *, truth, guesses, labels=("Hop", "Lunge", "Squat"), test=None, val=(3, 3), steps=4, **run):
    """Write a run folder by hand, as train-head does, from chosen answers; 3 epochs of history.

    ``val``: how many validation clips are right, of how many.
    """
    truth, guesses, k = np.asarray(truth), np.asarray(guesses), len(labels)
    test = [f"{labels[t]}/{i}.avi" for i, t in enumerate(truth)] if test is None else test
    logits = np.where(np.arange(k) == guesses[:, None], 3.0, 0.0).astype(np.float32)
    weights = np.linspace(1, 3, steps, dtype=np.float32)
    attention = np.tile(weights / weights.sum(), (len(truth), 1)).astype(np.float32)
    variant, seed = run.pop("variant", "resnet50-lstm-attention"), run.pop("seed", 0)
    split, notes = run.pop("split", "group"), run.pop("notes", [])
    wrong = {"sharing": run.pop("sharing", 0), "untrained": run.pop("untrained", [])}
    rows = [
        {"epoch": e, "train_loss": 2 / e, "val_loss": 2.2 / e, "train_accuracy": 1 - 0.5 / e, "val_accuracy": 0.5}
        for e in (1, 2, 3)
    ]
    metrics = {
        "best_epoch": 3, "parameters": 1234, "seconds": 65.0, "history": rows,
        "unknown": {"false_alarms": 0.075, "n": 8, "auroc": 0.8, "detected": 0.625},
    }  # fmt: skip
    document = {
        "run_version": 2, "labels": list(labels), "seed": seed, "backbone": "resnet50", "sources": [],
        "head": {"variant": variant, "n_classes": k, "frames": 20, "attention": "additive"},
        "training": {"epochs": 200, "learning_rate": 1e-4, "device": "cpu"}, "recipe": "paper", "fold": "",
        "split": {
            "rule": split, "notes": notes, "train": [f"t{i}" for i in range(9)],
            "val": [f"v{i}" for i in range(val[1])], "test": test,
        },
        "calibration": {"temperature": 1.5, "threshold": 0.33, "false_alarm_rate": 0.05},
        "versions": {"fitrec-cache": "0", "torch": "2"}, "threads": 1, "false_alarm_rate": 0.05, "data_sha256": "d",
        **run,
    }  # fmt: skip
    own = {"test_groups": [f"g{i}" for i in range(len(truth))], "unknown_classes": [], **wrong}
    document["split"] = own | document.pop("split_document", document["split"])
    document["split"]["val"] = document["split"].get("val") or document["split"].get("train", ["b"])[:1]
    n_val = len(document["split"]["val"])
    folder.mkdir(parents=True)
    tensors = {"test_logits": logits, "test_targets": truth.astype(np.int64), "test_attention": attention}
    tensors |= {"val_logits": np.zeros((n_val, k), np.float32), "val_targets": (np.arange(n_val) >= val[0]).astype(int)}
    tensors["val_attention"] = np.full((n_val, steps), 1 / steps, np.float32)
    safetensors.numpy.save_file(tensors, folder / "logits.safetensors")
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "run.json").write_text(json.dumps(document))
    return folder


def change(path, part, **values):
    """Change some values of a part of a JSON file."""
    document = json.loads(path.read_text())
    document[part] |= values
    path.write_text(json.dumps(document))


@pytest.fixture
def made(tmp_path):
    """A run of twelve clips, nine of them right: one Hop and two Squats are taken for Lunge."""
    truth = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    return write_run(tmp_path / "run", truth=truth, guesses=[0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 1, 1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache_folder):
    """A real run of two seeds on the cache, with the answers of the test side."""
    out = tmp_path_factory.mktemp("runs") / "lstm"
    train_head(
        out=out, cache=cache_folder, variant="resnet50-lstm-attention", backbone=["test_resnet"], epochs=2, seed=(0, 1)
    )
    return out


# --- a page as a reader sees it ---

_VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Parses strictly: every element is closed by its own tag; keeps what the tests ask for."""

    def __init__(self, path):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.source = path.read_text()
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.text).replace("\u00a0", " ").split())

    @property
    def rows(self):
        """The text of the cells of each table row; the last one is what follows the last cell, nothing."""
        rows = re.findall(r"<tr.*?</tr>", self.source, flags=re.DOTALL)
        cells = [[re.sub(r"<.*?>", " ", c).replace("\u00a0", " ") for c in re.split(r"</t[hd]>", r)] for r in rows]
        return [[" ".join(c.split()) for c in row] for row in cells]

    def row(self, *starts_with):
        """Return the cells of the first table row that begins with these words."""
        return next(row for row in self.rows if row[: len(starts_with)] == list(starts_with))


@pytest.fixture
def page(tmp_path):
    """``page(*runs, cache=None)`` writes a report and reads it."""

    def make(*runs, cache=None):
        made = report(list(runs), out=tmp_path / "report.html", cache=cache)
        assert made.bytes == (tmp_path / "report.html").stat().st_size
        return made, Page(tmp_path / "report.html")

    return make


def assert_loads_nothing(page):
    for tag, attrs in page.elements:
        assert tag not in ("script", "iframe", "object", "embed", "base", "audio", "video")
        for name in ("src", "srcset", "poster", "data", "background", "action"):
            assert (attrs.get(name) or "data:").startswith("data:"), (tag, attrs)
        assert tag != "link" or attrs["href"] == "data:,"
        assert not any(name.startswith("on") for name in attrs)
        assert "url(" not in (attrs.get("style") or "")
    styles = "".join(re.findall(r"<style>(.*?)</style>", page.source, flags=re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles


# --- what it says ---


def test_the_figures_are_those_of_the_run(page, made):
    found, seen = page(made)
    assert (found.models, found.runs) == (1, 1)
    assert "resnet50-lstm-attention on resnet50 recognises 75.0 % of 12 clips" in seen.words
    interval = binomtest(9, 12).proportion_ci(method="wilson")
    row = seen.row("resnet50-lstm-attention resnet50")
    assert row[1:3] == ["75.0 %", f"{interval.low:.1%} to {interval.high:.1%}".replace("%", " %")]
    # By hand: precision Hop 3/3, Lunge 4/7, Squat 2/2, four clips each; F1 6/7, 8/11, 4/6.
    assert row[6] == "85.7 %"
    assert row[8] == "75.0 %"
    assert seen.row("Hop", "")[2] == "75 %"
    assert "Most frequent mistake, in 2 of 4 answers: Squat taken for Lunge" in seen.words
    assert "Squat taken for Lunge : 2 of 4 answers" in seen.words
    assert "95 % interval 47 % to 91 %" in seen.words
    assert "95 % interval is 47 % to 91 %" in seen.words
    assert "1 model, 1 training run. Accuracy" in seen.words  # of one alone, none was chosen
    assert "chosen on validation" not in seen.words
    assert "1 min 5 s" in seen.words
    assert "group : 9 clips to train on, 3 for validation, 12 to test" in seen.words


def test_calibration_and_the_threshold_are_told(page, made):
    words = page(made)[1].words
    # By hand: logits 3, 0, 0 over 1.5 are e^2 / (e^2 + 2) = 78.7 % sure, 9 of 12 are right; undivided 90.9 %.
    assert "These clips do not show its confidence to be wrong: off by 3.7 %" in words
    # One bin of 12 clips: sqrt(2 / pi x 12 x 0.787 x 0.213) / 12
    assert "chance alone would make it some 9.4 % if all confidence were right" in words
    assert "Expected calibration error 3.7 %, before temperature scaling 15.9 %" in words
    assert "The temperature (1.50) was fitted" in words
    assert "less than 33.0 % sure" in words
    assert "on test clips it happens to 7.5 %" in words
    assert "Of 8 clips of exercises it was never shown, 62.5 % are answered “unknown” (AUROC 0.800: how often" in words
    assert "Accuracies on this page are those of the most probable class, also where" in words


def test_unknown_exercises_that_are_never_noticed_are_told(page, made):
    change(made / "metrics.json", "unknown", auroc=0.0, detected=0.0)
    assert "never shown, 0.0 % are answered “unknown” (AUROC 0.000: how often a test" in page(made)[1].words


def test_over_folds_the_interval_of_a_class_is_that_of_all_clips_where_there_is_no_other(tmp_path):
    for fold in "12":
        test = [f"Hop/{fold}{i}.avi" for i in range(6)]
        write_run(tmp_path / fold, truth=[0] * 6, guesses=[0, 0, 0, 1, 0, 2], test=test, split="kfold:2", fold=fold)
    (model,) = gather(read_records([tmp_path]))
    assert model.interval_of([run.tested.targets for run in model.runs], 0) == model.interval
    (row,) = model.classes()
    assert (row.low, row.high) == model.interval


def test_calibration_of_folds_is_that_of_all_their_clips(page, tmp_path):
    """A fold of one wrong clip and one of nine right ones: 9 of 10 are right, at 78.7 %."""
    for name, n, guess in (("A", 1, 1), ("B", 9, 0)):
        write_run(
            tmp_path / name,
            truth=[0] * n,
            guesses=[guess] * n,
            test=[f"{name}{i}" for i in range(n)],
            fold=name,
            split="leave-one:room",
        )
        change(tmp_path / name / "metrics.json", "unknown", false_alarms=float(guess))
        change(tmp_path / name / "run.json", "calibration", threshold=0.2 + 0.1 * guess)
    words = page(tmp_path)[1].words
    assert "Expected calibration error 11.3 %" in words
    assert "An answer less than 20.0 % to 30.0 % sure is given as “unknown”, by the threshold of each run" in words
    assert "on test clips it happens to 10.0 %" in words
    assert "of 2 folds" in words
    assert "one fold" in words


def test_clips_of_unknown_exercises_are_the_same_for_every_seed(page, tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / str(seed), truth=[0], guesses=[0], seed=seed)
    words = page(tmp_path)[1].words
    assert "Of 8 clips of exercises it was never shown" in words
    assert "so that this happens to at most 5 % of clips of new recordings" in words


def test_without_a_threshold_no_answer_is_said_to_be_unknown(page, made):
    change(made / "run.json", "calibration", threshold=0.0)
    words = page(made)[1].words
    assert "No answer is “unknown”" in words
    assert "less than 0.0 %" not in words
    assert "answered “unknown”, as none is (AUROC" in words
    assert "Accuracies on this page are" not in words


def test_models_of_other_validation_clips_are_not_said_to_be_ranked(page, tmp_path):
    for folder, other in (("same", "v"), ("apart", "w")):
        common = {"truth": [0, 1], "guesses": [0, 1]}
        write_run(tmp_path / folder / "a", **common)
        write_run(tmp_path / folder / "b", **common, variant="vit-lstm")
        change(tmp_path / folder / "b" / "run.json", "split", val=[f"{other}{i}" for i in range(3)])
    said = "Not all were validated on the same clips, so another may be better"
    assert [said in page(tmp_path / folder)[1].words for folder in ("same", "apart")] == [False, True]
    write_run(tmp_path / "same" / "c", **common, split="random", val=(1, 2))  # ranked by itself
    assert said not in page(tmp_path / "same")[1].words


def test_leaks_that_nobody_looked_for_are_not_denied(page, tmp_path):
    split = {"rule": "random", "notes": [], "train": ["x"], "val": [], "test": ["p", "q"], "test_groups": ["a", None]}
    run = write_run(tmp_path / "a", truth=[0, 1], guesses=[0, 1], test=["p", "q"], split_document=split)
    words = page(run)[1].words
    assert "no leak was found" not in words.lower()
    assert "whether it leaks was not looked at" in words
    words = page(write_run(tmp_path / "b", truth=[0, 1], guesses=[0, 1], split="group"))[1].words
    assert "no leak was found" not in words.lower()
    assert "no group is on both sides; likeness was not looked at" in words


def test_without_groups_and_too_many_clips_to_compare_no_leak_is_denied(
    page, trained, cache_folder, tmp_path, monkeypatch
):
    cache = shutil.copytree(cache_folder, tmp_path / "cache")
    held = [replace(clip, group=None) for clip in Cache(cache).clips()]
    Cache(cache).write_clips(held)
    monkeypatch.setattr("fitrec_cache.features._COMPARED", 1)
    words = page(trained, cache=cache)[1].words
    assert "no leak was found" not in words.lower()


def test_a_seed_that_lacks_a_fold_is_in_no_figure_and_named_above_them(page, tmp_path):
    for seed, fold, guess in ((0, "A", 0), (0, "B", 0), (1, "A", 1)):
        write_run(
            tmp_path / f"{fold}{seed}",
            truth=[0, 0],
            guesses=[guess] * 2,
            test=[f"{fold}0", f"{fold}1"],
            fold=fold,
            seed=seed,
            split="kfold:2",
        )
    found, seen = page(tmp_path)
    assert seen.row("resnet50-lstm-attention resnet50")[1] == "100.0 %"
    assert seen.row("resnet50-lstm-attention resnet50")[5] == "1 × 2 folds"
    note = "seed 1 lacks some of the 2 folds: left out"
    assert any(note in line for line in found.notes)
    assert seen.words.index(note) < seen.words.index("Precision")


def test_a_pair_is_named_as_in_the_tables(page, tmp_path):
    """Lists of one name: the best on validation are of two sides, and are not compared."""
    rng = np.random.default_rng(0)
    for place in "xy":
        test = [f"{place}{i}" for i in range(60)]
        split = {"rule": f"list:{place}/a.txt,{place}/b.txt", "notes": [], "train": ["t"], "val": ["v"], "test": test}
        truth = rng.integers(0, 3, 60)
        for variant, right in (("mean", 0.4), ("vit-lstm", 0.9)):
            guesses = np.where(rng.random(60) < right, truth, (truth + 1) % 3)
            settings = {"split": split["rule"], "split_document": split, "variant": variant, "test": test}
            write_run(tmp_path / f"{place}-{variant}", truth=truth, guesses=guesses, **settings)
    _, seen = page(tmp_path)
    accuracies = {}
    for variant in ("mean", "vit-lstm"):
        for number in (1, 2):
            accuracies[variant, number] = seen.row(f"{variant} resnet50; sides no. {number}")[1]
    for number in (1, 2):
        gain = float(accuracies["vit-lstm", number][:-2]) - float(accuracies["mean", number][:-2])
        said = f"vit-lstm on resnet50, sides no. {number} beats mean on resnet50, sides no. {number} by "
        assert float(seen.words.split(said)[1].split()[0]) == pytest.approx(gain, abs=0.11)  # both are rounded


def test_commands_for_one_variant_twice_go_to_two_folders(page, tmp_path):
    for name, rate in (("a", 0.1), ("b", 0.2)):
        write_run(tmp_path / name, truth=[0], guesses=[0], training={"learning_rate": rate, "device": "cpu"})
    words = page(tmp_path)[1].words
    assert "--out RUNS/1-resnet50-lstm-attention" in words
    assert "--out RUNS/2-resnet50-lstm-attention" in words


def test_commands_for_one_model_on_two_splits_have_headings_of_their_own(page, tmp_path):
    for split in ("official1", "official2"):
        write_run(tmp_path / split, truth=[0], guesses=[0], split=split)
    _, seen = page(tmp_path)
    titles = re.findall(r"<h3>(.*?)</h3>", seen.source[seen.source.index('id="repeat"') :])
    assert titles[:2] == [f"resnet50-lstm-attention on resnet50, split official{k}" for k in (1, 2)]


def test_a_bins_interval_minds_that_clips_are_of_one_recording(page, tmp_path):
    def rows(groups):
        test = [f"Hop/{i}.avi" for i in range(6)]
        split = {"rule": "group", "notes": [], "train": ["a"], "val": ["b"], "test": test, "test_groups": groups}
        folder = tmp_path / "-".join(dict.fromkeys(groups))
        write_run(folder, truth=[0] * 6, guesses=[0, 0, 0, 1, 1, 1], test=test, split_document=split)
        return page(folder)[1].row("73 % to 80 %", "6", "78.7 %", "50.0 %")  # e^2 / (e^2 + 2)

    alone = binomtest(3, 6).proportion_ci(method="wilson")
    assert rows(list("abcdef"))[4] == f"{alone.low:.1%} to {alone.high:.1%}".replace("%", " %")
    # One recording all right, one all wrong: two that scatter so say nearly nothing of others.
    assert rows(list("gggwww"))[4] == "0.2 % to 99.8 %"


def test_both_tables_of_the_paper_stand_beside_ours(page, made):
    _, seen = page(made)
    assert seen.row("ResNet50+Attn")[2:7] == ["93.34 %", "97.04 %", "93.59 %", "93.34 %", "93.23 %"]
    assert seen.row("resnet50-lstm-attention", "ours, split group, 1 seed, resnet50")[2] == "75.0 %"
    assert seen.row("ResNet50+LSTM", "paper")[2:5] == ["27,852,579", "27,799,459", "53,120"]
    ours = seen.row("ResNet50+LSTM", "ours")
    assert ours[5] == "1,234"
    total, trainable, frozen = (int(cell.replace(",", "")) for cell in ours[2:5])
    assert total - trainable == frozen
    assert seen.row("LRCN", "ours: no run of variant lrcn was given")


def test_averages_are_weighted_by_how_many_clips_a_class_has(page, tmp_path):
    """By hand: precision Hop 1/2, Lunge 2/2; recall 1/1 and 2/3; F1 2/3 and 4/5; one clip and three."""
    _, seen = page(write_run(tmp_path / "r", truth=[0, 1, 1, 1], guesses=[0, 0, 1, 1]))
    assert seen.row("resnet50-lstm-attention resnet50")[6:9] == ["87.5 %", "76.7 %", "73.3 %"]
    beside_the_paper = seen.row("resnet50-lstm-attention", "ours, split group, 1 seed, resnet50")
    assert beside_the_paper[4:7] == ["87.5 %", "75.0 %", "76.7 %"]


def test_of_other_peoples_exercises_neither_paper_nor_top_five_is_told(page, tmp_path):
    answers = {"truth": [0, 1, 2], "guesses": [0, 1, 2]}
    own = write_run(tmp_path / "own", **answers, recipe="native")
    _, seen = page(own)
    assert "paper" not in seen.words
    assert "Top five" not in seen.words
    many = write_run(tmp_path / "many", **answers, recipe="native", labels=[f"class {i}" for i in range(11)])
    assert "Top five" in page(many)[1].words
    papers = write_run(tmp_path / "papers", **answers, recipe="native", labels=[f"class {i}" for i in range(35)])
    assert "Beside the paper" in page(papers)[1].words
    more = write_run(tmp_path / "more", **answers, recipe="native", labels=[f"class {i}" for i in range(36)])
    assert "paper" not in page(more)[1].words
    frames = {"samples": 20, "short_side": 64}
    document = json.loads((own / "run.json").read_text())
    for preset, told in (("table1", True), ("paper", True), ("native", False)):
        preprocessing = {"preset": preset}
        identity = {"backbone": "resnet50", "preprocessing": preprocessing, "precision": "fp32", "frames": frames}
        (own / "run.json").write_text(json.dumps(document | {"sources": [{"kind": "features", "identity": identity}]}))
        assert ("Beside the paper" in page(own)[1].words) == told


def test_of_few_classes_the_right_one_is_not_said_to_be_among_five(page, tmp_path):
    few = write_run(tmp_path / "few", truth=[0], guesses=[0])
    many = write_run(tmp_path / "many", truth=[0], guesses=[0], labels=[f"c{i}" for i in range(11)], split="random")
    assert "among five answers" not in page(few, many)[1].words
    assert "among five answers" in page(many, few)[1].words


def test_top_five_and_validation_have_columns_of_their_own(page, tmp_path):
    labels = [f"class {i:02}" for i in range(11)]  # equal scores rank in this order
    _, seen = page(write_run(tmp_path / "r", truth=[0, 1, 9, 9], guesses=[0] * 4, labels=labels, val=(3, 4)))
    row = seen.row("resnet50-lstm-attention resnet50")
    assert (row[1], row[6], row[10]) == ("25.0 %", "50.0 %", "75.0 %")
    assert "Top five 50.0 %" in seen.words
    assert seen.row("resnet50-lstm-attention", "ours, split group, 1 seed, resnet50")[3] == "50.0 %"


def test_every_percentage_of_table_two_is_a_whole_number_of_its_clips():
    for row in paper.TABLE_II:
        for rate in (row.accuracy, row.top5_accuracy, row.recall):
            correct = round(rate * paper.TEST_CLIPS)
            assert round(correct / paper.TEST_CLIPS, 4) == rate


def test_clips_of_one_recording_add_less(page, tmp_path):
    """Ten recordings of two clips each, nine of them right."""
    truth = [0] * 10 + [1] * 10
    groups = [f"g{i // 2}" for i in range(20)]
    test = [f"{i}.avi" for i in range(20)]
    split = {"rule": "group", "notes": [], "train": ["a"], "val": ["b"], "test": test, "test_groups": groups}
    guesses = [*truth[:18], 2, 2]
    write_run(tmp_path / "run", truth=truth, guesses=guesses, test=test, split_document=split)
    _, seen = page(tmp_path / "run")
    low, high = seen.row("resnet50-lstm-attention resnet50")[2].replace(" %", "").split(" to ")
    # Nine independent clips would scatter so; Student's t of nine degrees is 2.262.
    expected = wilson(0.9, 9 * (1.959964 / 2.262157) ** 2)
    assert (float(low), float(high)) == pytest.approx([round(100 * e, 1) for e in expected])
    assert "for 20 test clips of 10 groups" in seen.words


def test_seeds_are_one_model_and_add_no_clips(page, tmp_path):
    truth = [0] * 10 + [1] * 10
    for seed, right in enumerate((16, 18, 20)):
        guesses = [t if i < right else 2 for i, t in enumerate(truth)]
        write_run(tmp_path / "many" / f"seed{seed}", truth=truth, guesses=guesses, seed=seed)
    found, seen = page(tmp_path / "many")
    assert (found.models, found.runs) == (1, 3)
    row = seen.row("resnet50-lstm-attention resnet50")
    assert row[1] == "90.0 ± 10.0 %"  # of 80, 90 and 100
    interval = binomtest(18, 20).proportion_ci(method="wilson")  # 20 clips, not 60
    assert row[2] == f"{interval.low:.1%} to {interval.high:.1%}".replace("%", " %")
    assert row[4:6] == ["20", "3"]
    assert seen.row("Hop", "")[4] == "10"
    assert "a clip tested by several runs counts once" in seen.words
    assert "--seed 0 --seed 1 --seed 2" in seen.words


def test_how_sure_all_seeds_are_together_is_told(page, tmp_path, cache_folder):
    settings = {"cache": cache_folder, "variant": "mean", "backbone": ["test_resnet"], "epochs": 2, "seed": [0, 1]}
    report = train_head(out=tmp_path / "one", split_seed=0, false_alarm_rate=0.5, **settings)
    _, seen = page(tmp_path / "one")
    e = report.ensemble
    ece, threshold, share = (f"{e[name]:.1%}".replace("%", " %") for name in ("ece", "threshold", "false_alarms"))
    assert seen.row("mean test_resnet")[6] == f"{e['accuracy']:.1%}".replace("%", " %")
    assert f"Together the 2 seeds, which is how predict answers, are off by {ece}" in seen.words
    assert f"({e['temperature']:.2f}) on their mean" in seen.words
    assert f"less than {threshold} sure is then given as “unknown”: {share} of the test clips" in seen.words
    train_head(out=tmp_path / "one", split_seed=0, false_alarm_rate=0.5, final=True, **settings)
    assert f"Together the 2 seeds are off by {ece}" in page(tmp_path / "one")[1].words  # predict has other heads
    train_head(out=tmp_path / "apart", **settings)
    assert "Together the 2 seeds" not in page(tmp_path / "apart")[1].words


def test_what_all_seeds_answer_together_is_told(page, tmp_path):
    for seed, guesses in enumerate(([0, 1, 2, 2], [0, 1, 0, 0], [0, 2, 0, 1])):  # two of three: 0 1 0 and a tie
        write_run(tmp_path / "many" / f"seed{seed}", truth=[0, 1, 2, 2], guesses=guesses, seed=seed)
    _, seen = page(tmp_path / "many")
    row = seen.row("resnet50-lstm-attention resnet50")
    assert (row[1], row[6]) == ("58.3 ± 38.2 %", "50.0 %")
    assert "mean ± standard deviation of 3 seeds; together 50.0 %" in seen.words
    write_run(tmp_path / "other", truth=[0, 1], guesses=[0, 1], variant="mean")
    _, seen = page(tmp_path / "many", tmp_path / "other")
    assert seen.row("mean resnet50")[6] == ""  # a single seed has nobody beside it
    _, seen = page(tmp_path / "other")
    assert "Together" not in seen.words


def test_extractions_of_the_cache_are_told(page, made, cache_folder):
    _, seen = page(made, cache=cache_folder)
    (entry,) = history(cache_folder)
    assert f"{entry.ended[:16].replace('T', ' ')} UTC" in seen.words
    assert "test_resnet, preset native, fp32" in seen.words


def test_folds_are_pooled_and_listed(page, tmp_path):
    shared = {"split": "leave-one:series"}
    one = {"test": ["a1", "a2", "a3", "a4"], "fold": "A"}
    two = {"test": ["b1"], "fold": "B"}
    write_run(tmp_path / "f" / "A-seed0", truth=[0, 1, 0, 1], guesses=[0, 1, 0, 1], **one, **shared)
    write_run(tmp_path / "f" / "B-seed0", truth=[0], guesses=[1], **two, **shared)
    _, seen = page(tmp_path / "f")
    row = seen.row("resnet50-lstm-attention resnet50")
    assert row[1] == "80.0 %"  # 4 of 5 clips, not the mean of 100 % and 0 %
    assert row[4:6] == ["5", "1 × 2 folds"]
    assert seen.row("B", "0", "1")[3] == "0.0 %"


def test_an_accuracy_is_in_the_middle_of_its_interval_where_seeds_test_other_numbers_of_clips(page, tmp_path):
    more = {"test": [f"a{i}" for i in range(8)]}
    write_run(tmp_path / "seed-0", truth=[0, 1] * 4, guesses=[0, 1] * 4, seed=0, **more)
    write_run(tmp_path / "seed-1", truth=[0], guesses=[1], test=["b1"], seed=1)
    _, seen = page(tmp_path)
    assert seen.row("resnet50-lstm-attention resnet50")[1].startswith("88.9 ")  # 8 of 9, not the mean of 100 % and 0 %


def test_models_that_differ_in_a_setting_are_told_apart_and_ranked_by_validation(tmp_path):
    a = write_run(tmp_path / "a", truth=[0, 1], guesses=[0, 0], val=(9, 10))  # worse on test, better on validation
    settings = {"training": {"learning_rate": 0.5, "device": "cpu"}, "val": (5, 10)}
    b = write_run(tmp_path / "b", truth=[0, 1], guesses=[0, 1], **settings)
    models = gather(read_records([b, a]))
    assert [m.first.folder for m in models] == [a, b]
    assert "learning rate 0.0001" in models[0].name
    assert "learning rate 0.5" in models[1].name


def test_models_of_more_classes_come_first_as_fewer_are_easier(tmp_path, page):
    few = write_run(tmp_path / "few", truth=[0, 1], guesses=[0, 1], labels=("Hop", "Lunge"), val=(3, 3))
    many = write_run(tmp_path / "many", truth=[0, 1], guesses=[0, 1], val=(2, 3))
    assert [m.first.folder for m in gather(read_records([few, many]))] == [many, few]
    words = page(few, many)[1].words
    assert "the best validation accuracy of those with the most classes; no test clip chose it" in words
    assert "Most classes first, then best validation." in words
    assert "Best validation first." in page(many)[1].words


def test_models_that_have_as_many_validation_clips_right_are_told_by_their_loss(tmp_path):
    """Shares of 8, 7 and 6 of 10 add up to more than those of 7, 7 and 7, in single precision and in double."""
    for variant, right, val_loss in (("mean", (8, 7, 6), 2.0), ("vit-lstm", (7, 7, 7), 1.0)):
        for seed, n in enumerate(right):
            run = {"variant": variant, "seed": seed, "val": (n, 10)}
            folder = write_run(tmp_path / f"{variant}-{seed}", truth=[0, 1], guesses=[0, 1], **run)
            metrics = json.loads((folder / "metrics.json").read_text())
            metrics["history"][2] |= {"val_loss": val_loss, "val_accuracy": float(np.float32(n / 10))}
            (folder / "metrics.json").write_text(json.dumps(metrics))
    assert [m.first.variant for m in gather(read_records([tmp_path]))] == ["vit-lstm", "mean"]
    assert all(m.chosen and m.val_accuracy == 0.7 for m in compare([tmp_path]).models)


def test_models_on_other_features_are_told_apart_by_their_preset(tmp_path):
    for preset in ("native", "grid"):
        frames = {"samples": 20, "short_side": 64}
        identity = {"backbone": "b", "preprocessing": {"preset": preset}, "precision": "fp32", "frames": frames}
        sources = [{"kind": "features", "identity": identity}]
        write_run(tmp_path / preset, truth=[0, 1], guesses=[0, 1], sources=sources, data_sha256=f"of {preset}")
    names = {m.name for m in gather(read_records([tmp_path]))}
    assert names == {f"resnet50-lstm-attention on resnet50, preset {preset}" for preset in ("native", "grid")}
    assert names == {m.name for m in compare([tmp_path]).models}


def test_a_split_that_leaks_is_never_the_headline(page, tmp_path):
    write_run(tmp_path / "a", truth=[0, 1], guesses=[0, 1], split="random", sharing=2)
    write_run(tmp_path / "b", truth=[0, 1], guesses=[0, 2], split="group")
    models = gather(read_records([tmp_path / "a", tmp_path / "b"]))
    assert [m.first.split for m in models] == ["group", "random"]
    _, seen = page(tmp_path / "a", tmp_path / "b")
    assert "recognises 50.0 % of 2 clips from groups it had not seen" in seen.words


def test_nor_is_a_split_of_which_only_the_audit_finds_that_it_leaks(page, tmp_path, monkeypatch):
    for split, guess in (("random", 1), ("group", 2)):
        write_run(tmp_path / split, truth=[0, 1], guesses=[0, guess], split=split)
    leaks_all = {"n_splits": 1, "n_leaking": 1, "looked": True, "n_pairs": 0, "pairs": ()}
    said = SimpleNamespace(leaks=True, sure=True, text="split leaks: 2 of 2 test clips")

    def audited(_, models):
        return {"random": SimpleNamespace(record=models[0].first, verdict=said, **leaks_all)}

    monkeypatch.setattr(build._Seen, "_audits", audited)
    _, seen = page(tmp_path / "random", tmp_path / "group")
    assert "recognises 50.0 % of 2 clips from groups it had not seen" in seen.words
    headings = r'<h2 id="model\d-h">.*?, split (\w+)<'
    assert re.findall(headings, seen.source) == ["group", "random"]
    monkeypatch.setattr(build, "MOST_MODELS", 1)
    assert re.findall(headings, page(tmp_path / "random", tmp_path / "group")[1].source) == ["group"]


@pytest.mark.parametrize(("sure", "said"), [(True, "leak"), (False, "may leak")])
def test_of_several_divisions_no_more_is_said_than_of_the_worst(page, tmp_path, monkeypatch, sure, said):
    write_run(tmp_path / "a", truth=[0, 1], guesses=[0, 1])
    worst = SimpleNamespace(leaks=True, sure=sure, text=f"split {said}s")
    found = {"verdict": worst, "n_splits": 2, "n_leaking": 2, "looked": True, "n_pairs": 0, "pairs": ()}
    audited = lambda _, models: {"group": SimpleNamespace(record=models[0].first, **found)}  # noqa: E731
    monkeypatch.setattr(build._Seen, "_audits", audited)
    assert f"2 of its 2 different divisions {said}. The worst is seed 0" in page(tmp_path / "a")[1].words


@pytest.mark.parametrize(("groups", "more"), [(["a", "b"], {}), ([None, None], {}), (["a", "b"], {"without_group": 1})])
def test_recordings_are_said_to_be_apart_only_where_they_are_known(page, tmp_path, groups, more):
    split = {"rule": "kfold:2", "notes": [], "train": ["x"], "val": [], "test": ["p", "q"], "test_groups": groups}
    split |= more
    write_run(tmp_path / "a", truth=[0, 1], guesses=[0, 1], test=["p", "q"], split_document=split)
    _, seen = page(tmp_path / "a")
    known = groups[0] is not None and not more
    assert ("groups it had not seen" in seen.words) == known
    assert ("No group is on both sides" in seen.words) == known
    assert ("No group of a test clip is in training or validation." in seen.words) == known


@pytest.mark.parametrize(("without", "sharing"), [(0, 0), (1, 0), (0, 1), (None, 0)])
def test_of_any_rule_recordings_are_said_to_be_apart_where_that_is_known(page, tmp_path, without, sharing):
    """Also of sides that somebody else made; clips without a group may be on the side of training only.

    Older runs do not say whether there are any.
    """
    split = {"rule": "manifest", "train": ["x"], "val": [], "test": ["p", "q"], "test_groups": ["a", "b"]}
    split |= {"notes": [], "sharing": sharing}
    run = {"split_document": split} | ({} if without is None else {"without_group": without})
    _, seen = page(write_run(tmp_path / "a", truth=[0, 1], guesses=[0, 1], test=["p", "q"], **run))
    known = without == 0 and not sharing
    assert ("groups it had not seen" in seen.words) == known
    assert ("No group of a test clip is in training or validation." in seen.words) == known


@pytest.mark.parametrize(
    ("group", "said"),
    [("b", "No group of a test clip is in training or validation."), (None, "Whether groups are on both")],
)
def test_of_a_random_split_it_is_told_what_is_known_of_groups(page, tmp_path, group, said):
    split = {"rule": "random", "notes": [], "train": ["x"], "val": [], "test": ["p", "q"], "test_groups": ["a", group]}
    run = {"split": "random", "test": ["p", "q"], "split_document": split, "without_group": int(group is None)}
    _, seen = page(write_run(tmp_path / "a", truth=[0, 1], guesses=[0, 1], **run))
    assert f", 2 to test (seed 0). {said}" in seen.words


def test_what_a_killed_writer_left_is_no_run(tmp_path):
    run = write_run(tmp_path / "a", truth=[0, 1], guesses=[0, 1])
    (run / ".tmp-123").mkdir()
    (run / ".tmp-123" / "run.json").write_text("{}")
    assert len(read_records([tmp_path])) == 1


def test_pairs_are_compared_clip_by_clip(page, tmp_path):
    truth = [0, 1] * 10
    write_run(tmp_path / "a", truth=truth, guesses=truth, variant="vit-lstm")
    write_run(tmp_path / "b", truth=truth, guesses=[*[2] * 10, *truth[10:]], variant="mean")
    write_run(tmp_path / "c", truth=truth, guesses=[*truth[:19], 2], variant="lrcn")
    _, seen = page(*(tmp_path / name for name in "abc"))
    assert "3 pairs compared clip by clip" in seen.words
    row = next(r for r in seen.rows if "vit-lstm" in r[0] and "mean" in r[0])
    p = 3 * binomtest(0, 10).pvalue  # of three pairs, by Holm
    assert (row[1], row[3:]) == ("+50.0 points", ["10", "0", "20", f"{p:.2g}", ""])
    reach = student.ppf(0.975, 19) * np.hypot(sem([1.0] * 10 + [0.0] * 10), 1 / 20)
    assert row[2] == f"{50 - 100 * reach:+.1f} to {50 + 100 * reach:+.1f}"
    assert re.search("vit-lstm .*and lrcn .*are not distinguishable at n = 20", seen.words)


def test_a_leak_is_in_the_headings(page, tmp_path):
    note = "leaks: 1 of 2 test clips share a group with a training clip"
    _, seen = page(write_run(tmp_path / "r", truth=[0, 1], guesses=[0, 1], split="random", sharing=1))
    assert "Split random leaks: test clips have siblings or near-duplicates in training" in seen.words
    assert f"(seed 0). {note} ." in seen.words
    assert note in seen.words


def test_the_split_that_was_used_is_audited(page, tmp_path, weights, inline):
    videos = write_class_folders(tmp_path / "videos", groups=2, clips=2)
    cache = Cache(tmp_path / "cache", create=True)
    extract(videos, cache=cache.folder, backbone=[weights("test_resnet")], **SMALL)
    clips = [clip.clip_id for clip in Cache(cache.folder).clips()]
    train, test = ([c for c in clips if c.endswith(f"_c0{i}.avi")] for i in (1, 2))  # siblings on both sides
    sources = [{"kind": "features", "identity": s.identity} for s in Cache(cache.folder).feature_stores()]
    split = {"rule": "group", "notes": [], "train": train, "val": [], "test": test}
    truth = [0, 0, 1, 1, 2, 2]
    write_run(tmp_path / "r", truth=truth, guesses=truth, split_document=split, sources=sources, test=test)
    _, seen = page(tmp_path / "r", cache=cache.folder)
    assert "Split group leaks: test clips have siblings or near-duplicates in training" in seen.words
    assert "split leaks (accuracy probably too high): 6 of 6 test clips share a group with training" in seen.words


def test_every_fold_is_audited_not_only_the_one_that_is_shown(page, tmp_path, weights, inline):
    videos = write_class_folders(tmp_path / "videos", groups=2, clips=2)
    cache = Cache(tmp_path / "cache", create=True)
    extract(videos, cache=cache.folder, backbone=[weights("test_resnet")], **SMALL)
    clips = [clip.clip_id for clip in Cache(cache.folder).clips()]
    sources = [{"kind": "features", "identity": s.identity} for s in Cache(cache.folder).feature_stores()]
    apart = ([c for c in clips if "_g01_" in c], [c for c in clips if "_g02_" in c])
    siblings = ([c for c in clips if c.endswith("_c01.avi")], [c for c in clips if c.endswith("_c02.avi")])
    truth = [0, 0, 1, 1, 2, 2]
    for fold, (train, test), guesses in (("01", apart, truth), ("02", siblings, truth[::-1])):
        document = {"rule": "kfold:2", "notes": [], "train": train, "val": [], "test": test}
        run = {"split": "kfold:2", "fold": fold, "split_document": document, "sources": sources, "test": test}
        write_run(tmp_path / "r" / fold, truth=truth, guesses=guesses, **run)
        metrics = json.loads((tmp_path / "r" / fold / "metrics.json").read_text())
        metrics["history"][2]["val_loss"] = 0.1 if fold == "01" else 1.0  # the sound one is shown
        (tmp_path / "r" / fold / "metrics.json").write_text(json.dumps(metrics))
    _, seen = page(tmp_path / "r", cache=cache.folder)
    assert "Split kfold:2 leaks" in seen.words
    assert (
        "1 of its 2 different divisions leak. The worst is seed 0, fold 02: split leaks (accuracy "
        "probably too high): 6 of 6 test clips share" in seen.words
    )
    assert "no leak was found" not in seen.words


def test_the_heading_compares_the_two_that_are_best_on_validation(page, tmp_path):
    truth = [0, 1] * 10
    for name, variant, right, val in (("a", "vit-lstm", 20, 2), ("b", "mean", 10, 9), ("c", "lrcn", 12, 8)):
        guesses = [*truth[:right], *[2] * (20 - right)]
        write_run(tmp_path / name, truth=truth, guesses=guesses, variant=variant, val=(val, 10))
        run = json.loads((tmp_path / name / "run.json").read_text())
        (tmp_path / name / "run.json").write_text(json.dumps(run | {"backbone": "clips (1)"}))  # as of a file's name
    _, seen = page(*(tmp_path / name for name in "abc"))
    heading = re.search(r'id="results-h">(.*?)</h2>', seen.source)[1]
    claim = "lrcn on clips (1) and mean on clips (1) are not distinguishable at n = 20"
    assert heading == f"{claim}: they differ in only 2 clips, too few to tell"


def test_the_heading_finds_its_pair_where_a_seed_lacks_a_fold(page, tmp_path):
    shared = {"split": "kfold:2"}
    for variant in ("vit-lstm", "mean"):
        for seed, fold in ((0, "01"), (0, "02"), (1, "01")):
            if (variant, seed) != ("mean", 1):
                run = {"seed": seed, "fold": fold, "test": [f"{fold}-{i}" for i in range(4)], "variant": variant}
                write_run(
                    tmp_path / "r" / f"{variant}{seed}{fold}", truth=[0, 1, 0, 1], guesses=[0, 1, 0, 0], **run, **shared
                )
    _, seen = page(tmp_path / "r")
    heading = re.search(r'id="results-h">(.*?)</h2>', seen.source)[1]
    assert "are not distinguishable" in heading


def test_a_class_of_few_recordings_has_a_wide_interval(tmp_path):
    """Two recordings of Hop with ten clips each, one all right and one all wrong: nearly nothing of others."""
    groups = [f"g{i // 10}" for i in range(20)]
    test = [f"{i}.avi" for i in range(20)]
    split = {"rule": "group", "notes": [], "train": ["a"], "val": ["b"], "test": test, "test_groups": groups}
    write_run(tmp_path / "r", truth=[0] * 20, guesses=[0] * 10 + [1] * 10, test=test, split_document=split)
    (model,) = gather(read_records([tmp_path / "r"]))
    (row,) = model.classes()
    assert (row.n, row.recall) == (20, 0.5)
    assert row.low < 0.01
    assert row.high > 0.99


def test_an_interval_that_is_not_wilsons_is_not_called_so(page, tmp_path):
    _, seen = page(write_run(tmp_path / "r", truth=[0, 1, 1], guesses=[0, 1, 1]))
    assert seen.row("Hop", "")[3] == "0 % to 100 %"
    assert seen.words.count(", and 0 to 100 % where all are of one, or there is one clip alone") == 2


def test_features_of_a_compiled_backbone_are_made_so_again(tmp_path):
    frames = {"samples": 20, "short_side": 288}
    identity = {"backbone": "resnet50", "preprocessing": {"preset": "native"}, "precision": "bf16", "frames": frames}
    for name, more in (("a", {"compiled": "inductor"}), ("b", {})):
        sources = [{"kind": "features", "identity": identity | more}]
        write_run(tmp_path / name, truth=[0, 1], guesses=[0, 1], sources=sources)
        (model,) = gather(read_records([tmp_path / name]))
        assert ("--compile" in how_to(model, 1).commands[0]) == bool(more)


def test_of_folds_only_what_is_wrong_is_told_and_of_random_splits_only_where_there_is_one(page, tmp_path):
    usual, wrong = "4 classes have no test clip: a, b, c, d", "1 class has no training clip: e"
    for fold, said in (("1", {"notes": [usual]}), ("2", {"untrained": ["e"]})):
        write_run(tmp_path / fold, truth=[0], guesses=[0], test=[fold], split="leave-one:day", fold=fold, **said)
    words = page(tmp_path)[1].words
    assert wrong in words
    assert usual not in words
    assert "A random split of clips" not in words


def test_two_feature_sets_of_one_backbone_are_named_by_their_folders(tmp_path, cache_folder, video_folder, weights):
    cache = shutil.copytree(cache_folder, tmp_path / "cache")
    extract(cache=cache, backbone=[weights("test_resnet")], preset="paper")
    stores = [store.folder.name for store in Cache(cache).feature_stores()]
    train_head(out=tmp_path / "run", cache=cache, variant="mean", backbone=stores, epochs=1, split_seed=3)
    (model,) = gather(read_records([tmp_path / "run"]))
    words = shlex.split(how_to(model, 1).commands[-1])
    again = {"CACHE": str(cache), f"RUNS/1-{model.first.variant}": str(tmp_path / "again")}
    done = CliRunner().invoke(app, [again.get(word, word) for word in words[1:]])
    assert done.exit_code == 0, done.output
    one, other = ((tmp_path / n / "head.safetensors").read_bytes() for n in ("run", "again"))
    assert one == other
    assert "--preset" not in words


def test_splits_come_in_the_order_given_and_those_that_leak_after_the_others(tmp_path):
    for name, sharing in (("random", 1), ("ucf101:2", 0), ("group", 0)):
        write_run(tmp_path / name.replace(":", "-"), truth=[0, 1], guesses=[0, 1], split=name, sharing=sharing)
    records = read_records([tmp_path / name for name in ("random", "ucf101-2", "group")])
    assert [model.split for model in gather(records)] == ["ucf101:2", "group", "random"]


def test_a_final_head_is_made_again_too(tmp_path):
    for name, more in (("a", {"final": True}), ("b", {"final": False}), ("c", {})):  # the last is of before
        write_run(tmp_path / name, truth=[0, 1], guesses=[0, 1], **more)
        (model,) = gather(read_records([tmp_path / name]))
        how = how_to(model, 1)
        assert ("--final" in how.commands[-1]) == (name == "a") == ("final head" in dict(how.settings))


def test_the_surest_clips_are_those_whose_printed_confidence_is_highest(tmp_path):
    """One rival 3 below, or two rivals 3.85 below: the second is surer by logits, the first by half of them."""
    folder = write_run(tmp_path / "r", truth=[0, 0], guesses=[0, 0], test=["one rival", "two rivals"])
    tensors = safetensors.numpy.load_file(folder / "logits.safetensors")
    tensors["test_logits"] = np.array([[3, 0, -60], [3.85, 0, 0]], dtype=np.float32)
    safetensors.numpy.save_file(tensors, folder / "logits.safetensors")
    shown = {}
    for temperature in (1.0, 2.0):
        change(folder / "run.json", "calibration", temperature=temperature)
        (record,) = read_records([folder])
        (strip,) = attention(record, None).strips  # one a class
        shown[temperature] = strip.clip_id, strip.confidence
    assert shown[1.0] == ("two rivals", pytest.approx(1 / (1 + 2 * np.exp(-3.85))))
    assert shown[2.0] == ("one rival", pytest.approx(1 / (1 + np.exp(-1.5))))


def test_the_command_is_what_differs_from_the_recipe(page, tmp_path):
    training = {**RECIPES["native"].to_dict(), "epochs": 7, "dropout": 0.5, "device": "cuda:0"}
    split = {
        "rule": "kfold:3",
        "notes": [],
        "train": ["b"],
        "test": ["a"],
        "unknown": ["videos/1.avi"],
        "unknown_classes": ["Row"],
    }
    write_run(
        tmp_path / "r", truth=[0], guesses=[0], test=["a"], training=training, recipe="native", split="kfold:3",
        split_document=split, some_classes=["A", "B b"],
    )  # fmt: skip
    command = (
        "fitrec-cache train-head --features FILE --variant resnet50-lstm-attention --classes 'A,B b' "
        "--split kfold:3 --seed 0 --recipe native --set epochs=7 --set steps=1000 --set dropout=0.5 --device cuda:0 "
        "--attention additive --unknown Row --out RUNS/1-resnet50-lstm-attention"
    )
    assert command in page(tmp_path / "r")[1].words


# --- what may be missing ---


def test_frames_come_from_the_cache_and_their_absence_is_told(page, trained, cache_folder, tmp_path):
    found, seen = page(trained, cache=cache_folder)
    assert not any("frames" in line for line in found.missing)
    pictures = [i for i in seen.all("img") if i["src"].startswith("data:image/jpeg")]
    assert len(pictures) > 4
    assert all(i["width"] and i["height"] for i in pictures)
    found, seen = page(trained)
    assert not [i for i in seen.all("img") if i["src"].startswith("data:image/jpeg")]
    assert "What is not on this page" in seen.words
    assert "no cache was given" in seen.words


def test_a_video_that_took_anothers_place_is_not_shown_as_what_was_tested(page, tmp_path, weights, inline):
    videos = write_class_folders(tmp_path / "videos")
    cache, made = tmp_path / "cache", {"backbone": [weights("test_resnet")], **SMALL}
    extract(videos, cache=cache, **made)
    train_head(out=tmp_path / "r", cache=cache, variant="mean", backbone=["test_resnet"], epochs=1)

    def pictures(seen):
        return {i["src"] for i in seen.all("img") if i["src"].startswith("data:image/jpeg")}

    found, seen = page(tmp_path / "r", cache=cache)
    old = pictures(seen)
    assert found.missing == ()
    test = json.loads((tmp_path / "r" / "run.json").read_text())["split"]["test"]
    for number, name in enumerate(test):
        write_video(videos / name, 9, width=80, height=64, codec="mpeg4", numbers=range(900 + 9 * number, 1000))
    extract(videos, cache=cache, **made)
    found, seen = page(tmp_path / "r", cache=cache)
    audit = "No audit of split group by likeness: "
    assert f"{audit}{len(test)} clips of it are not in the cache, or another video by now, such as {test[0]}" in (
        found.missing
    )
    (lost,) = (line for line in found.missing if line.startswith("No frames of"))
    assert "the cache does not hold them, or another video by now" in lost
    assert lost.split(" such as ")[1] in test
    new = pictures(seen)
    assert new < old  # those of training clips, which are what they were


def test_what_was_taken_out_is_not_shown_any_more_but_an_earlier_name_is(page, tmp_path, weights, inline):
    videos = write_class_folders(tmp_path / "videos")
    cache, made = tmp_path / "cache", {"backbone": [weights("test_resnet")], **SMALL}
    extract(videos, cache=cache, **made)
    train_head(out=tmp_path / "r", cache=cache, variant="mean", backbone=["test_resnet"], epochs=1)
    first, *others = json.loads((tmp_path / "r" / "run.json").read_text())["split"]["test"]
    for name in others:
        (videos / name).rename(videos / name.replace("v_", "renamed_"))
    extract(videos, cache=cache, prune=True, **made)
    assert page(tmp_path / "r", cache=cache)[0].missing == ()
    (videos / first).unlink()
    extract(videos, cache=cache, prune=True, **made)
    found, _ = page(tmp_path / "r", cache=cache)
    audit = "No audit of split group by likeness: 1 clip of it is not in the cache"
    assert any(line.startswith(audit) and line.endswith(f"such as {first}") for line in found.missing)
    (lost,) = (line for line in found.missing if line.startswith("No frames of"))
    assert lost.endswith(f" such as {first}")


def test_an_earlier_name_is_audited_by_the_group_that_is_known_now(tmp_path):
    cache = Cache(tmp_path / "c", create=True)
    cache.write_clips([HeldClip(clip_id="old", video_sha256="a", label="A", group=None)])
    cache.write_clips([HeldClip(clip_id="new", video_sha256="a", label="A", group="ann")])
    assert {name: clip.group for name, clip in Auditor(cache)._known.items()} == {"old": "ann", "new": "ann"}


def test_one_audit_asks_all_runs_of_its_split_which_videos_they_knew(page, cache_folder, tmp_path):
    same = {"variant": "mean", "backbone": ["test_resnet"], "epochs": 1, "seed": (0, 1), "split_seed": 0}
    train_head(out=tmp_path / "r", cache=cache_folder, **same)
    assert not any(line.startswith("No audit") for line in page(tmp_path / "r", cache=cache_folder)[0].missing)
    path = tmp_path / "r" / "seed-1" / "run.json"
    run = json.loads(path.read_text())
    run["contents"]["val"][0] = "0" * 16
    path.write_text(json.dumps(run))
    assert any("another video by now" in line for line in page(tmp_path / "r", cache=cache_folder)[0].missing)


def test_a_damaged_frame_costs_only_its_picture(page, trained, cache_folder, tmp_path):
    cache = shutil.copytree(cache_folder, tmp_path / "cache")
    for part in cache.glob("frames/*/part-*"):
        part.write_bytes(part.read_bytes()[:-1] + b"?")
    found, seen = page(trained, cache=cache)
    assert any("damaged" in line for line in found.missing)
    assert "Attention" in seen.words


def test_wrong_use_and_damage_are_named(tmp_path, made):
    out = tmp_path / "r.html"
    with pytest.raises(UsageError, match="no run in"):
        report([tmp_path / "none"], out=out)
    with pytest.raises(UsageError, match="no run named"):
        report([], out=out)
    with pytest.raises(NoCacheError, match="no cache at"):
        report([made], out=out, cache=tmp_path / "none")
    for folder, reason in ((tmp_path / "none", "there is no folder"), ("/proc", "No such file")):
        with pytest.raises(UsageError, match=rf"--out .*r\.html cannot be written: {reason}"):
            report([made], out=f"{folder}/r.html", cache=tmp_path / "none")  # told first
    (tmp_path / "thesis.html").write_text("<h1>mine</h1>")
    with pytest.raises(UsageError, match=r"expected a name that ends in \.html or \.htm"):
        report([made], out=tmp_path / "report.pdf")
    with pytest.raises(UsageError, match="is not a report"):
        report([made], out=tmp_path / "thesis.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UsageError, match=r"folder\.html exists and is not a file"):
        report([made], out=tmp_path / "folder.html")
    assert (tmp_path / "thesis.html").read_text() == "<h1>mine</h1>"
    (made / "metrics.json").write_text("{}")
    with pytest.raises(StoreCorrupt, match="damaged"):
        report([made], out=out)
    assert not out.exists()


@pytest.mark.parametrize("key", ["logits", "targets", "attention"])
def test_answers_that_do_not_fit_the_run_are_damage(tmp_path, made, key):
    path = made / "logits.safetensors"
    stored = safetensors.numpy.load_file(path)
    stored[f"test_{key}"] = np.ascontiguousarray(stored[f"test_{key}"][1:])
    safetensors.numpy.save_file(stored, path)
    with pytest.raises(StoreCorrupt, match=r"logits\.safetensors"):
        report([made], out=tmp_path / "r.html")


@pytest.mark.parametrize(
    "lacking",
    ["recipe", "sources", "data_sha256", "fold", "threads", "false_alarm_rate", "calibration", "head attention",
     "split test_groups", "split unknown_classes", "training device"],
)  # fmt: skip
def test_a_setting_that_every_run_has_and_this_one_lacks_is_damage(tmp_path, made, lacking):
    run = json.loads((made / "run.json").read_text())
    *within, name = lacking.split()
    del (run[within[0]] if within else run)[name]
    (made / "run.json").write_text(json.dumps(run))
    with pytest.raises(StoreCorrupt, match=rf"is damaged.*KeyError.*'{name}'"):
        report([made], out=tmp_path / "r.html")


@pytest.mark.parametrize(
    ("place", "odd"),
    [
        (("split", "test_groups", 0), []),
        (("split", "val", 0), {}),
        (("versions",), []),
        (("sources",), [{"kind": "features", "identity": {"backbone": "b"}}]),
    ],
)
def test_a_value_of_another_type_than_any_run_has_is_damage(tmp_path, made, place, odd):
    run = json.loads((made / "run.json").read_text())
    inner = run
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = odd
    (made / "run.json").write_text(json.dumps(run))
    with pytest.raises(StoreCorrupt, match=r"is damaged.*Train the head again"):
        report([made], out=tmp_path / "r.html")


@pytest.mark.parametrize(
    "lacking", ["logits.safetensors", "calibration", "unknown", "threshold", "auroc", "n", "train"]
)
def test_a_run_that_lacks_what_every_run_has_is_damage(tmp_path, made, lacking):
    metrics, run = (json.loads((made / name).read_text()) for name in ("metrics.json", "run.json"))
    if lacking.endswith(".safetensors"):
        (made / lacking).unlink()
    for document in (metrics, run):
        for part in (document, *(document.get(name, {}) for name in ("unknown", "calibration", "split"))):
            part.pop(lacking, None)
    for name, document in (("metrics.json", metrics), ("run.json", run)):
        (made / name).write_text(json.dumps(document))
    if lacking == "auroc":  # of a run without --unknown
        assert report([made], out=tmp_path / "r.html").runs == 1
        return
    with pytest.raises(StoreCorrupt, match=r"is (damaged|missing)"):
        report([made], out=tmp_path / "r.html")


def test_an_empty_report_of_a_killed_call_is_replaced(tmp_path):
    made = write_run(tmp_path / "r", truth=[0, 1, 2], guesses=[0, 1, 2])
    (tmp_path / "report.html").touch()
    report([made], out=tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size


def test_an_earlier_report_is_replaced_and_equal_runs_give_equal_bytes(tmp_path, made):
    report([made], out=tmp_path / "r.html")
    first = (tmp_path / "r.html").read_bytes()
    report([made], out=tmp_path / "r.html")
    assert (tmp_path / "r.html").read_bytes() == first


# --- how it is built ---


def test_hostile_names_are_text(page, tmp_path):
    labels, test = (HOSTILE, "'\"&</style></table>", "Squat"), [HOSTILE, "</td>", "{{ 7 * 7 }}"]
    notes = [HOSTILE]
    _, seen = page(write_run(tmp_path / "r", truth=[0, 1, 2], guesses=[1, 1, 0], labels=labels, test=test, notes=notes))
    assert_loads_nothing(seen)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in {
        m.get("content") for m in seen.all("meta")
    }
    assert HOSTILE in "".join(seen.text)
    assert "{{ 7 * 7 }}" in "".join(seen.text)


def test_names_written_from_right_to_left_keep_what_follows_in_place(page, tmp_path):
    """Else a browser shows "X, 98 % sure" as "98 ,X % sure" for an Arabic X."""
    names = ("\u0633\u062d\u0628", "\u062f\u0641\u0639")
    test = [f"{names[0]}/{i}.avi" for i in range(2)]
    notes = [f"1 class has no validation clip: {names[1]}", "2 clips are short"]
    settings = {"labels": names, "test": test, "notes": notes, "split": f"leave-one:{names[0]}"}
    _, seen = page(write_run(tmp_path / "r", truth=[0, 0], guesses=[0, 1], **settings))
    inline = re.sub(r'<bdi dir="ltr">[^<]*</bdi>', "", seen.source)
    assert inline != seen.source
    lines = html.unescape(re.sub(r"<.*?>", "\n", re.sub(r"</?strong>", "", inline)))
    assert not re.findall(r"[\u0600-\u06ff][^\w\n]{0,3}\d", lines)


def test_it_loads_nothing_and_is_small(page, trained, cache_folder):
    found, seen = page(trained, cache=cache_folder)
    assert_loads_nothing(seen)
    assert found.bytes < 1_000_000


def test_a_screen_reader_finds_its_way(page, trained, cache_folder):
    _, seen = page(trained, cache=cache_folder)
    assert seen.all("html")[0]["lang"] == "en"
    assert [len(seen.all(tag)) for tag in ("main", "header", "nav", "footer", "h1")] == [1] * 5
    levels = [int(tag[1]) for tag, _ in seen.elements if re.fullmatch("h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert len(seen.all("caption")) == len(seen.all("table")) > 4
    assert all("scope" in attrs for attrs in seen.all("th"))
    assert all("alt" in attrs for attrs in seen.all("img"))
    ids = [attrs["id"] for _, attrs in seen.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    pointed = [a["href"][1:] for a in seen.all("a") if a["href"].startswith("#")]
    labelled = [attrs["aria-labelledby"] for _, attrs in seen.elements if "aria-labelledby" in attrs]
    assert {*pointed, *labelled} <= set(ids)


def test_a_screen_reader_has_a_name_for_each_place_of_two_models(page, tmp_path):
    for rate in (1e-3, 1e-4):
        settings = {"training": {"learning_rate": rate, "device": "cpu"}, "split": "kfold:2"}
        for fold in "12":
            settings |= {"fold": fold, "test": [f"{fold}-{i}" for i in range(3)]}
            write_run(tmp_path / "m" / f"{rate}-{fold}", truth=[0, 1, 2], guesses=[0, 1, 1], **settings)
    _, seen = page(tmp_path / "m")
    named = {a["id"]: a for _, a in seen.elements if "id" in a}
    places = [a["aria-label"] for _, a in seen.elements if a.get("role") == "region"]
    headings = [a["aria-labelledby"] for a in seen.all("section") if "aria-labelledby" in a]
    places += [re.search(rf'id="{name}">(.*?)<', seen.source)[1] for name in headings]
    assert len(places) == len(set(places)) > 10
    assert set(headings) <= named.keys()
    heads = re.findall(r"<th[ >].*?</th>", seen.source, flags=re.DOTALL)
    heard = [re.sub(r'<[^>]*aria-hidden="true".*?</|<.*?>', "", head).strip() for head in heads]
    assert all(heard)


def test_dark_colours_are_for_screens_alone(page, made):
    """On paper, which is white, a reader of dark pages had light letters."""
    _, seen = page(made)
    style = seen.source.partition("<style>")[2].partition("</style>")[0]
    asked = re.findall(r"@media ([^{]*prefers-color-scheme[^{]*)\{", style)
    assert [media.split()[0] for media in asked] == ["screen"]


def test_many_classes_and_models_stay_bounded(page, tmp_path):
    rng, k = np.random.default_rng(0), 101
    labels = [f"Class{i}" for i in range(k)]
    for i in range(6):
        truth, guesses = rng.integers(k, size=400), rng.integers(k, size=400)
        training = {"learning_rate": i + 1.0, "device": "cpu"}
        write_run(tmp_path / "m" / str(i), truth=truth, guesses=guesses, labels=labels, training=training)
    found, seen = page(tmp_path / "m")
    assert found.bytes < 3_000_000
    assert "2 further models are in the tables only" in seen.words
    assert "41 classes with the fewest errors are left out" in seen.words
    assert seen.source.count('<table class="matrix" style="--k:60">') == 4  # by which it is as wide as paper


def test_one_that_is_left_out_is_told_as_one(page, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "MOST_MODELS", 1)
    monkeypatch.setattr(views, "MOST_CLASSES", 2)
    for variant in ("mean", "vit-lstm"):
        write_run(tmp_path / variant, truth=[0, 1, 2], guesses=[0, 1, 1], variant=variant)
    words = page(tmp_path)[1].words
    assert "1 further model is in the tables only" in words
    assert "1 class with the fewest errors is left out" in words


def test_the_templates_are_in_the_package():
    folder = importlib.resources.files("fitrec_cache.report") / "templates"
    assert (folder / "page.html").is_file()
    assert (folder / "style.css").is_file()


# --- in a browser ---

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")


def browse(path, profile, *options):
    """Open a file with the network cut; return the page as the browser has it, and its console."""
    command = [
        CHROMIUM, "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=http://127.0.0.1:9", "--proxy-bypass-list=<-loopback>",
        "--enable-logging=stderr", *(["--no-sandbox"] if os.geteuid() == 0 else []), *options, "--dump-dom",
        path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@needs_browser
def test_the_probe_sees_errors_and_attempts_to_load(page, made, tmp_path):
    """The page's own policy makes each attempt to load something an error in the console."""
    _, seen = page(made)
    policy = re.search(r"<meta http-equiv=.Content-Security-Policy.*?>", seen.source)[0]
    (tmp_path / "bad.html").write_text(f'{policy}<img src="http://localhost/x.png"><p>here</p>')
    dom, console = browse(tmp_path / "bad.html", tmp_path / "profile")
    assert "<p>here</p>" in dom
    assert len(console) == 1
    assert "http://localhost/x.png" in console[0]
    (tmp_path / "bad.html").write_text("<script>oops()</script>")
    assert "oops is not defined" in browse(tmp_path / "bad.html", tmp_path / "profile")[1][0]


@needs_browser
@pytest.mark.parametrize("options", [(), ("--force-dark-mode", "--window-size=390,800")], ids=["light", "dark phone"])
def test_it_opens_in_a_browser_without_network_or_errors(page, trained, cache_folder, tmp_path, options):
    page(trained, cache=cache_folder)
    dom, console = browse(tmp_path / "report.html", tmp_path / "profile", *options)
    assert "These commands make the same runs again" in dom
    assert console == []


@needs_browser
def test_hostile_names_do_nothing_in_a_browser(page, tmp_path):
    page(write_run(tmp_path / "r", truth=[0, 1], guesses=[1, 1], labels=(HOSTILE, "b"), test=[HOSTILE, "c"]))
    dom, console = browse(tmp_path / "report.html", tmp_path / "profile")
    assert "<script" not in dom
    assert console == []


@needs_browser
@pytest.mark.parametrize("long_names", [False, True], ids=["as usual", "folds and long names"])
def test_on_a_phone_nothing_is_wider_than_the_screen(page, trained, cache_folder, tmp_path, long_names):
    if long_names:
        truth, labels = [0, 0, 1, 1, 2, 2], [f"{c}_exercise_with_a_name_that_no_phone_shows_in_a_line" for c in "abc"]
        for fold in ("1", "2"):
            test = [f"{fold}/{labels[t]}/{i}.mp4" for i, t in enumerate(truth)]
            write_run(
                tmp_path / "m" / fold, truth=truth, guesses=[0, 1, 1, 2, 2, 0], labels=labels, test=test, fold=fold,
                backbone="a_network_with_a_name_of_more_than_fifty_letters_patch16_224", split="kfold:2",
            )  # fmt: skip
        page(tmp_path / "m")
    else:
        page(trained, cache=cache_folder)
    text = (tmp_path / "report.html").read_text()
    text = re.sub(r"<meta http-equiv.*?>", "", text)  # which forbids scripts, this test's too
    probe = """<script>
      const names = document.querySelectorAll('.matrix thead th'), range = document.createRange();
      const long = name => (range.selectNodeContents(name), range.getBoundingClientRect().height);
      const beyond = [...names].filter(name => long(name) > name.offsetHeight).length;
      const wide = [document.documentElement.scrollWidth, document.querySelector('.matrix tbody th').offsetWidth];
      document.title = [...wide, innerWidth, beyond];
    </script>"""
    (tmp_path / "probe.html").write_text(text.replace("</body>", f"{probe}</body>"))
    dom, _ = browse(tmp_path / "probe.html", tmp_path / "profile", "--window-size=390,800")
    wide, name, screen, beyond = map(int, re.search(r"<title>(\d+),(\d+),(\d+),(\d+)</title>", dom).groups())
    assert wide <= screen <= 500
    assert beyond == 0  # no name of a column runs over what is above it
    assert name < screen / 2  # the name of a row stays in sight: beside it there must be room for its cells


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        (16.7, 15.2, "Of 20 frames about 17 count where it is right, about 15 count where it is wrong"),
        (None, 3.4, "Of 20 frames about 3 count where it is wrong"),
    ],
)
def test_how_far_attention_chooses_is_said_in_frames(right, wrong, said):
    assert attention_says(Attention(frames=20, right=right, wrong=wrong, strips=(), even=False)) == said


def model(split="group", groups=("a", "b"), name="m", sharing=0):
    run = SimpleNamespace(run_json={"without_group": groups.count(None)}, sharing=sharing)
    return SimpleNamespace(name=name, split=split, n_distinct=4, runs=[run], mean=lambda _: 0.5)


@pytest.mark.parametrize(
    ("one", "leaky", "end"),
    [
        (model(), (), "from groups it had not seen"),
        (model(), ("group",), "it was not trained on"),
        (model(), ("random",), "from groups it had not seen"),
        (model(groups=("a", None)), (), "it was not trained on"),
        (model(split="random"), (), "from groups it had not seen"),
        (model(split="leave-one:room", sharing=1), (), "it was not trained on"),
    ],
)
def test_a_headline_says_new_groups_only_where_none_is_on_both_sides(one, leaky, end):
    assert headline(one, leaky).replace("\u00a0", " ") == f"m recognises 50.0 % of 4 clips {end}"


def test_the_first_finding_is_of_the_split_it_stands_for():
    models = [model(name="x"), model(name="y")]
    random, group = (SimpleNamespace(a="x", b="y", split=s, claim=f"x beats y on {s}") for s in ("random", "group"))
    assert results_say(models, [random, group]) == "x beats y on group"
    assert results_say(models, [random]).startswith("These models were not tested on the same clips")


def audited(monkeypatch, sides, pairs, frames=None, by=("sees", "sees")):
    """Audit splits of the clips a to d, whose groups nobody knows; ``pairs`` look alike, by features that see it."""
    by = by[: len(sides)]
    held = [HeldClip(clip_id=name, group=None, label="A", video_sha256=name) for name in "abcd"]
    found = NearDuplicates(
        threshold=0.9,
        pairs=np.array(pairs),
        similarity=np.linspace(1, 0.9, len(pairs)),
        halves_found=None,
        strangers_found=None,
    )
    none = replace(found, pairs=np.empty((0, 2), np.int64), similarity=np.empty(0))
    seen = {"sees": found, "sees nothing": none, "cannot tell": "near-duplicates not looked for"}
    monkeypatch.setattr(Auditor, "_look", lambda _, record, __: seen[record.sources[0]["identity"]])
    records = [
        SimpleNamespace(
            split="random",
            contents={},
            run_json={"split": {"train": [s[0]], "val": [s[1]], "test": [*s[2:]]}},
            sources=[{"identity": name}],
        )
        for s, name in zip(sides, by, strict=True)
    ]
    cache = SimpleNamespace(clips=lambda: held)
    return records, Auditor(cache).audit(records, frames)


def test_the_split_is_shown_that_leaks_most_by_what_looks_alike(monkeypatch):
    """Of both splits together the page needs all four clips: each leaves one out."""
    records, found = audited(monkeypatch, ["abc", "abd"], [[0, 3]])
    assert found.record is records[1]
    assert (found.n_splits, found.n_leaking, found.n_pairs) == (2, 1, 1)


@pytest.mark.parametrize("by", [("sees nothing", "sees"), ("sees", "sees nothing")])
def test_a_leak_that_the_features_of_one_model_show_is_found(monkeypatch, by):
    """As that model's training found it."""
    _, found = audited(monkeypatch, ["abcd", "abcd"], [[0, 3]], by=by)
    assert (found.verdict.leaks, found.n_splits, found.n_leaking, found.n_pairs) == (True, 1, 1, 1)


@pytest.mark.parametrize("by", [("cannot tell", "sees nothing"), ("sees nothing", "cannot tell")])
def test_features_that_cannot_tell_do_not_undo_what_others_saw(monkeypatch, by):
    _, found = audited(monkeypatch, ["abcd", "abcd"], [[0, 3]], by=by)
    assert found.looked
    assert found.verdict.text.startswith("no near-duplicate found: 0 of 2 test clips have a near-duplicate")
    _, found = audited(monkeypatch, ["abcd"], [[0, 3]], by=("cannot tell",))
    assert not found.looked
    assert found.verdict.text.endswith("near-duplicates not looked for")


def test_of_a_pair_the_training_clip_is_called_so(monkeypatch):
    _, found = audited(monkeypatch, ["dbac"], [[0, 3], [1, 2]], SimpleNamespace(glimpse=lambda name: name))
    assert [(pair.train, pair.test) for pair in found.pairs] == [("d", "a"), ("b", "c")]


def test_of_too_many_classes_those_with_the_most_mistakes_are_shown(monkeypatch):
    monkeypatch.setattr(views, "MOST_CLASSES", 2)
    confusion = np.array([[10, 0, 0], [0, 1, 2], [0, 0, 3]])
    found = views._matrix(SimpleNamespace(confusion=confusion, first=SimpleNamespace(labels=("a", "b", "c"))))
    assert (found.labels, found.left_out) == (("b", "c"), 1)
    assert [[cell.count for cell in row] for _, row in found.rows] == [[1, 2], [0, 3]]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(59, "59.0 s"), (60, "1 min 0 s"), (119.6, "2 min 0 s"), (3599, "59 min 59 s"), (90_300, "25 h 5 min")],
)
def test_a_duration_is_told_in_two_units_at_most(seconds, said):
    assert duration(seconds).replace("\u00a0", " ") == said


@pytest.mark.parametrize(
    ("share", "said"),
    [
        *[(0, "0 %"), (1e-17, "0 %"), (0.001, "0.1 %"), (0.005, "0.5 %"), (0.006, "1 %")],
        *[(0.994, "99 %"), (0.995, "99.5 %"), (0.999, "99.9 %"), (wilson(1, 10)[1], "100 %"), (1, "100 %")],
    ],
)
def test_few_mistakes_are_not_rounded_away(share, said):
    """199 of 200 were "100 %", beside what the other one was taken for."""
    assert percent(share, 0).replace("\u00a0", " ") == said


@pytest.mark.parametrize(
    ("trained", "validated", "said"),
    [
        (0.9, [0.6], "It knows its training clips 30 points better than those it has not seen"),
        (0.9, [0.8, 0.4], "It knows its training clips 30 points better than those it has not seen"),
        (0.4, [0.35], "It has not learned its training clips: 40 % right at the end"),
        (0.4, [0.1], "It has not learned its training clips: 40 % right at the end"),
        (0.8, [0.7], "Training and validation stay together"),
        (0.6, [0.9], "Training and validation stay together"),
    ],
)
def test_how_training_went_is_said(trained, validated, said):
    """Of all runs that the chart shows, not of the one that did best."""
    runs = []
    for right in validated:
        rows = [{"train_accuracy": 0.0, "val_accuracy": right}, {"train_accuracy": trained, "val_accuracy": 0.0}]
        runs.append(SimpleNamespace(metrics={"history": rows}, best=rows[0]))
    found = curves_say(SimpleNamespace(model=SimpleNamespace(runs=runs, shown=runs[0])))
    assert found.replace("\u00a0", " ") == said


@pytest.mark.parametrize(
    ("recalls", "said"),
    [
        ([0.5, 0.5], "All classes that were tested are recognised equally often: 50 %"),
        ([0.9, 0.5, 0.1], "A is recognised best, C worst"),
        ([0.9, 0.5, 0.0], "A is recognised best, C never"),
        ([0.9, 0.0, 0.0], "A is recognised best; 2 never are"),
        ([1.0, 1.0, 0.0, 0.0], "2 of 4 classes are always recognised (from 2 clips on); 2 never are"),
        ([1.0, 1.0, 0.9, 0.5], "2 of 4 classes are always recognised (from 2 clips on), D worst"),
        ([0.9, 0.9, 0.5, 0.5], "2 of 4 classes are recognised best; 2 worst: 50 % each"),
        ([1.0], "All classes that were tested are recognised equally often: 100 %"),
    ],
)
def test_the_best_and_the_worst_class_are_named(recalls, said):
    rows = [SimpleNamespace(label=a, recall=b, n=n) for a, b, n in zip("ABCD", recalls, (3, 2, 1, 1), strict=False)]
    assert classes_say(SimpleNamespace(classes=rows)).replace("\u00a0", " ") == said


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([3, 1], "Most frequent mistake, in 3 of 9 answers: Squat taken for Lunge"),
        ([1, 1], "One of the most frequent mistakes, in 1 of 9 answers: Squat taken for Lunge"),
        ([], "No clip was taken for another class"),
    ],
)
def test_the_most_frequent_mistake_is_said_with_how_often_it_was_made(times, said):
    """Of nine answers one was wrong, and the heading had it that Squat is most often taken for Lunge."""
    found = [SimpleNamespace(true="Squat", guess="Lunge", times=n, of=9) for n in times]
    assert confusions_say(SimpleNamespace(confusions=found)) == said


@pytest.mark.parametrize(
    ("ece", "by_chance", "gap", "said"),
    [
        (0.02, 0.0, 0.02, "These clips do not show its confidence to be wrong: off by 2.0 %"),
        (0.15, 0.1, 0.15, "These clips do not show its confidence to be wrong: off by 15.0 %, by chance alone "),
        (0.15, 0.09, 0.1, "It is 10 points more sure than it is right, on average"),
        (0.15, 0.09, -0.1, "It is 10 points less sure than it is right, on average"),
        (0.15, 0.09, 0.01, "It is as sure as it is right overall, but off by 15.0 % from answer to answer"),
    ],
)
def test_how_far_confidence_can_be_trusted_is_said(ece, by_chance, gap, said):
    found = calibration_says(SimpleNamespace(ece=ece, ece_expected=by_chance, gap=gap)).replace("\u00a0", " ")
    assert found.removesuffix("some 10.0 %") == said


@pytest.mark.parametrize(
    ("splits", "leaky", "audited", "said"),
    [
        (["a"], ["a"], ["a"], "Split a leaks: test clips have siblings or near-duplicates in training"),
        (["d"], ["d"], ["d"], "Split d may leak: test clips have siblings or near-duplicates in training"),
        (["a", "b", "c"], ["a", "b", "c"], [], "Split a, b and c leak: test clips have siblings or near-duplicates"),
        (["a", "d"], ["a", "d"], [], "Split a leaks, d may leak: test clips have siblings or near-duplicates"),
        (["group", "random"], [], ["group", "random"], "No leak was found"),
        (["group", "kfold:2"], [], ["group"], "No group is on both sides of a split; whether other clips look alike"),
        (["group", "unknown"], [], ["group"], "Whether every split is free of leaks was not looked at"),
    ],
)
def test_what_is_known_of_leaks_is_said(splits, leaky, audited, said):
    models = [model(split=name, groups=("a", None if name == "unknown" else "b")) for name in splits]
    assert split_says(models, leaky, "abc", audited).startswith(said)


def test_where_groups_are_not_known_an_audit_does_not_rule_leaks_out():
    models = [model(split="random"), model(split="random", groups=("a", None))]
    assert split_says(models, [], [], ["random"]) == "No near-duplicate was found; not all groups are known"


def test_of_attention_it_is_said_how_many_frames_count():
    """Even where nearly all do: single clips may have frames that count far more than others."""

    def said(right, wrong):
        return attention_says(SimpleNamespace(even=False, frames=20, right=right, wrong=wrong))

    assert said(None, 19.4) == "Of 20 frames about 19 count where it is wrong"
    assert said(16.9, 20.0) == "Of 20 frames about 17 count where it is right, about 20 count where it is wrong"


def drawn(monkeypatch, draw, *args):
    """Return what a chart draws: label of the axes, and by label of a line, or its number, its points."""
    monkeypatch.setattr(charts, "_svg", lambda figure: figure)
    (axes,) = draw(*args).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}
    return axes, lines


def test_a_reliability_chart_draws_accuracy_over_confidence(monkeypatch):
    axes, lines = drawn(monkeypatch, charts.reliability_svg, [(0.8, 0.6, 0.3, 0.7, 1.0)])
    assert list(lines.values()) == [[[0, 0], [1, 1]], [[0.8, 0.3], [0.8, 0.7]], [[0.8, 0.6]]]
    assert "sure" in axes.get_xlabel()
    assert "right" in axes.get_ylabel()


def test_no_line_of_a_reliability_chart_crosses_its_legend(monkeypatch):
    axes, _ = drawn(monkeypatch, charts.reliability_svg, [(0.2, 0.9, 0.5, 1.0, 1.0)])
    axes.figure.draw_without_rendering()
    assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1


def test_a_dot_on_the_edge_of_a_reliability_chart_is_whole():
    """Most dots of a good model lie at 100 %."""
    svg = charts.reliability_svg([(0.9, 1.0, 0.5, 1.0, 0.5)])
    assert re.search(r"<use [^>]*var\(--train\)", svg)
    assert not re.search(r"<g clip-path[^>]*>\s*<use", svg)


def test_curves_are_drawn_of_each_run_and_named_once(monkeypatch):
    def history(n):
        return [{"epoch": e, "train_loss": 2 / e, "val_loss": 3 / e} for e in range(1, n + 1)]

    axes, lines = drawn(monkeypatch, charts.curve_svg, [(history(2), 1), (history(4), 2)], "loss")
    assert lines["training"] == [[1, 2], [2, 1]]
    assert lines["validation"] == [[1, 3], [2, 1.5]]
    assert lines["kept epoch"] == [[1, 3]]
    assert [2, 1.5] in [line.get_xydata().tolist()[0] for line in axes.get_lines()]  # the second run's
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "validation", "kept epoch"]
    assert axes.get_ylim()[0] == 0


def test_a_chart_has_the_readers_colours_and_the_same_bytes_every_time():
    made = [charts.reliability_svg([(0.8, 0.6, 0.3, 0.7, 1.0)]) for _ in range(2)]
    assert made[0] == made[1]
    assert "var(--train)" in made[0]
    assert not re.findall("#[0-9a-f]{6}", made[0].split("</style>", 1)[1])


@pytest.mark.parametrize(("part", "card"), [(0, "ffffff"), (1, "1a212a")], ids=["light", "dark"])
def test_charts_stand_out_from_the_card_they_lie_on(part, card):
    """``card`` is its colour in style.css."""
    found = charts._STYLE.split("@media (prefers-color-scheme:dark)")[part]
    for name, colour in re.findall(r"--(\w+):#(\w+);", found):
        assert name == "grid" or contrast(*([*bytes.fromhex(c)] for c in (colour, card))) > 3


def test_curves_are_of_every_run(tmp_path, monkeypatch):
    for seed in (0, 1):
        write_run(tmp_path / str(seed), truth=[0], guesses=[0], seed=seed)
    asked = []
    monkeypatch.setattr(views, "curve_svg", lambda runs, measure: asked.append((len(runs), measure)) or "")
    (model,) = gather(read_records([tmp_path]))
    views._curves(model)
    assert asked == [(2, "loss"), (2, "accuracy")]
    assert dict(how_to(model, 1).settings)["seeds"] == "0, 1"


@pytest.mark.parametrize("refit", [True, False])
def test_that_a_head_learned_once_more_is_told(page, tmp_path, refit):
    training = {"learning_rate": 1e-4, "device": "cpu", "refit": refit}
    words = page(write_run(tmp_path / "r", truth=[0], guesses=[0], training=training))[1].words
    assert ("then learned from training and validation clips together" in words) == refit


def test_what_curves_show_is_told_of_the_kept_epoch(page, made):
    metrics = json.loads((made / "metrics.json").read_text())
    metrics["history"][1] |= {"val_accuracy": 0.75}
    (made / "metrics.json").write_text(json.dumps(metrics | {"best_epoch": 2}))
    alts = [img["alt"] for img in page(made)[1].all("img")]
    assert "Loss over the epochs: from 0.67 in training to 1.10 in validation at the kept epoch (seed 0)." in alts
    assert "Accuracy over the epochs: 83% in training at the end, 75% in validation at the kept epoch (seed 0)." in alts


def test_the_alternative_of_the_reliability_chart_says_which_way_it_is_off(page, made, tmp_path):
    (said,) = [img["alt"] for img in page(made)[1].all("img") if img["alt"].startswith("Reliability")]
    assert said == "Reliability diagram of 1 bin: confidence is on average 3.7% too high."
    right = write_run(tmp_path / "right", truth=[0, 1, 2], guesses=[0, 1, 2])
    (said,) = [img["alt"] for img in page(right)[1].all("img") if img["alt"].startswith("Reliability")]
    assert said == "Reliability diagram of 1 bin: confidence is on average 21.3% too low."


def looked(folder, truth, logits, weights):
    """Return the attention of a run with these answers."""
    write_run(folder, truth=truth, guesses=truth, steps=np.shape(weights)[1])
    tensors = safetensors.numpy.load_file(folder / "logits.safetensors")
    tensors |= {"test_logits": np.array(logits, np.float32), "test_attention": np.array(weights, np.float32)}
    safetensors.numpy.save_file(tensors, folder / "logits.safetensors")
    (record,) = read_records([folder])
    return attention(record, None)


def test_the_surest_right_and_wrong_clips_of_different_classes_are_shown_with_their_attention(tmp_path):
    logits = [[3, 0, 0], [4, 0, 0], [0, 2, 0], [0, 0, 1], [0, 0, 5]]  # the last is of class 1, taken for class 2
    weights = [[1, 0, 0, 0]] * 4 + [[0.4, 0.4, 0.2, 0]]
    found = looked(tmp_path / "r", [0, 0, 1, 2, 1], logits, weights)
    assert [s.clip_id for s in found.strips] == ["Hop/1.avi", "Lunge/2.avi", "Squat/3.avi", "Lunge/4.avi"]
    assert [s.right for s in found.strips] == [True, True, True, False]
    wrong = found.strips[-1]
    assert (wrong.true, wrong.guess) == ("Lunge", "Squat")
    assert [step.number for step in wrong.steps] == [1, 2, 3, 4]
    assert [step.weight for step in wrong.steps] == pytest.approx([0.4, 0.4, 0.2, 0])
    assert [step.relative for step in wrong.steps] == pytest.approx([1, 1, 0.5, 0])
    assert [step.stands_out for step in wrong.steps] == [True, True, False, False]
    entropy = -2 * 0.4 * np.log(0.4) - 0.2 * np.log(0.2)
    assert (found.right, found.wrong) == pytest.approx((1, np.exp(entropy)))
    assert not found.even


def test_of_many_frames_those_are_shown_that_span_the_clip(tmp_path):
    found = looked(tmp_path / "r", [0], [[3, 0, 0]], [np.linspace(1, 2, 41) / 61.5])
    numbers = [step.number for step in found.strips[0].steps]
    assert (len(numbers), numbers[0], numbers[-1]) == (20, 1, 41)
    assert found.wrong is None


def test_above_a_bar_of_attention_is_the_frame_of_that_clip(tmp_path):
    looked(tmp_path / "r", [0, 1], [[1, 0, 0], [0, 2, 0]], [[0.1, 0.2, 0.3, 0.4]] * 2)
    (record,) = read_records([tmp_path / "r"])
    frames = SimpleNamespace(strip=lambda clip, picked, width: [(clip, i) for i in picked])
    strips = attention(record, frames).strips
    shown = [[step.picture for step in strip.steps] for strip in strips]
    assert shown == [[(strip.clip_id, i) for i in range(4)] for strip in strips]


def test_a_head_of_its_last_state_alone_has_no_attention_to_show(tmp_path):
    found = looked(tmp_path / "r", [0, 1], [[1, 0, 0], [0, 2, 0]], [[0, 0, 0, 1]] * 2)
    assert (found.even, found.strips) == (True, ())


def test_the_weight_of_a_frame_is_told_beside_a_bar_relative_to_the_largest(page, made):
    _, seen = page(made)
    assert "frame 1 12.5 % frame 2 20.8 % frame 3 29.2 % frame 4 37.5 %" in seen.words
    bars = [i["style"] for i in seen.all("i") if "style" in i]
    assert bars[:4] == ["--v:33.3%", "--v:55.6%", "--v:77.8%", "--v:100.0%"]


def test_classes_are_told_best_first_with_what_they_are_taken_for(page, made):
    _, seen = page(made)
    rows = [row for row in seen.rows if row[0] in ("Hop", "Lunge", "Squat") and len(row) == 7 and row[1] == ""]
    expected, bars = [], []
    for label, right, taken in (("Lunge", 4, "–"), ("Hop", 3, "Lunge"), ("Squat", 2, "Lunge")):
        low, high = binomtest(right, 4).proportion_ci(method="wilson")
        expected.append([label, "", f"{25 * right} %", f"{100 * low:.0f} % to {100 * high:.0f} %", "4", taken, ""])
        bars.append(f"--v:{25.0 * right}%;--lo:{100 * low:.1f}%;--hi:{100 * high:.1f}%")
    assert rows == expected
    assert re.findall(r"taken for \w+ : (\d) of 4 answers", seen.words) == ["2", "1"]
    assert "a clip tested by several runs" not in seen.words
    low, high = binomtest(9, 12).proportion_ci(method="wilson")
    whole = f"--v:75.0%;--lo:{100 * low:.1f}%;--hi:{100 * high:.1f}%"
    assert [span["style"] for span in seen.all("span") if span.get("class") == "bar"] == [whole, *bars]


def test_colour_is_the_share_of_the_true_class_and_right_answers_are_framed(page, made):
    cells = [(td["class"], td["style"]) for td in page(made)[1].all("td") if "style" in td]
    hop, lunge = [("right", "--p:75"), ("", "--p:25")], [("right", "--p:100")]
    assert cells == [*hop, *lunge, ("", "--p:50"), ("right", "--p:50")]


def contrast(one, other):
    """Return how far two colours, three parts of 0 to 255 each, stand apart, as WCAG 2 has it."""
    parts = np.array([one, other]) / 255
    light = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    return (light.max() + 0.05) / (light.min() + 0.05)


def test_numbers_of_the_confusion_matrix_stand_out_from_every_depth_of_colour(page, made):
    """White on the colour of 56 % had a contrast of 2.5."""
    style = page(made)[1].source.partition("<style>")[2].partition("</style>")[0]
    assert "var(--accent) calc(var(--p, 0) * var(--deepest) * 1%), var(--card)" in style
    light = dict(re.findall(r"--(\w+): ([#.\w]+);", style.partition("@media")[0]))
    dark = dict(re.findall(r"--(\w+): ([#.\w]+);", style.partition("dark) {")[2].partition("@media")[0]))
    for colours in (light, dark):
        accent, card, ink = (
            np.array([*bytes.fromhex(h * 2 if len(h) == 3 else h)])
            for h in (colours[name].removeprefix("#") for name in ("accent", "card", "ink"))
        )
        depths = float(colours["deepest"]) * np.linspace(0, 1, 101)
        assert min(contrast(ink, depth * accent + (1 - depth) * card) for depth in depths) > 4.5


def test_names_of_columns_lie_on_their_side_in_every_script(page, made):
    """Turned letters that stand upright, as Chinese ones do in a column, would be upside down."""
    turned = re.search(r"\.matrix thead th \{([^}]*rotate\(180deg\)[^}]*)\}", page(made)[1].source)[1]
    assert "text-orientation: sideways;" in turned


def test_a_class_without_clips_that_others_are_taken_for_has_a_column():
    confusion = np.array([[1, 0, 1], [0, 0, 0], [0, 0, 0]])
    found = views._matrix(SimpleNamespace(confusion=confusion, first=SimpleNamespace(labels=("a", "b", "c"))))
    assert (found.labels, found.left_out) == (("a", "c"), 0)
    assert [[(cell.count, cell.share) for cell in row] for _, row in found.rows] == [[(1, 50), (1, 50)], [(0, 0)] * 2]


def test_answers_of_the_attention_are_marked_right_and_wrong(page, made):
    words = page(made)[1].words
    assert words.count("✓ right Hop , 79 % sure") == 1  # logits 3, 0, 0 over 1.5
    assert words.count("✗ wrong Hop , taken for Lunge , 79 % sure") == 1
    assert "✗ wrong Lunge" not in words


def test_guessing_is_by_the_commonest_class(page, tmp_path):
    assert "Guessing 75.0 %" in page(write_run(tmp_path / "r", truth=[0, 1, 1, 1], guesses=[0] * 4))[1].words


@pytest.mark.parametrize(("wrong", "told"), [(0, False), (8, True)])
def test_what_is_not_shown_to_be_better_than_guessing_is_told(page, tmp_path, wrong, told):
    """Of twenty clips, ten a class: 84 to 100 %, and 39 to 78 %."""
    truth = [0] * 10 + [1] * 10
    run = write_run(tmp_path / "r", truth=truth, guesses=[1] * wrong + truth[wrong:])
    assert ("that the accuracy is higher is not shown" in page(run)[1].words) == told


def test_of_several_seeds_times_add_up_and_pictures_are_of_the_best_on_validation(page, tmp_path):
    """Seed 0: all four right at 78.7 %, e^2 / (e^2 + 2), off by 21.3 points; seed 1: none, by 78.7: 50 on average."""
    for seed, loss, temperature in ((0, 0.9, 1.5), (1, 0.7, 1.5)):
        folder = write_run(tmp_path / str(seed), truth=[0] * 4, guesses=[seed] * 4, seed=seed, threads=seed + 1)
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics["history"][2]["val_loss"] = loss
        (folder / "metrics.json").write_text(json.dumps(metrics))
        change(folder / "run.json", "calibration", temperature=temperature)
    _, seen = page(tmp_path)
    assert seen.row("resnet50-lstm-attention resnet50, split group")[1:5] == ["2", "3", "2 min 10 s", "1 min 5 s"]
    assert "Training all heads took 2 min 10 s" in seen.words
    assert "with the lowest validation loss: seed 1." in seen.words
    assert "Expected calibration error 50.0 %" in seen.words
    assert "threads 1, 2 " in seen.words
    change(tmp_path / "1" / "run.json", "calibration", temperature=2.0)
    assert "The temperatures (1.50 to 2.00, one per run) were fitted" in page(tmp_path)[1].words


def test_what_repeats_a_run_by_hand(tmp_path):
    frames, test = {"samples": 20, "short_side": 64}, ["b.avi", "a.avi"]
    sources = [
        {
            "kind": "features",
            "identity": {
                "backbone": backbone, "preprocessing": {"preset": preset}, "precision": "fp32", "frames": frames
            },
            "origin": {"weights": weights},
        }
        for backbone, preset, weights in (("vit", "native", "a b.pth"), ("resnet", "grid", None))
    ]  # fmt: skip
    split = {"rule": "group", "notes": [], "train": ["x"], "test": test, "seed": 7}
    more = {"false_alarm_rate": 0.1, "some_classes": ["Hop, high", "Lunge"], "split_document": split}
    write_run(tmp_path / "r", truth=[0, 1], guesses=[0, 1], test=test, sources=sources, **more)
    (model,) = gather(read_records([tmp_path / "r"]))
    how = how_to(model, 3)
    common = "--precision fp32 --samples 20 --frame-size 64"
    extracting = "fitrec-cache extract VIDEOS --cache CACHE --backbone"
    assert how.commands[:2] == (
        f"{extracting} 'vit=a b.pth' --preset native {common}",
        f"{extracting} resnet --preset grid {common}",
    )
    command = how.commands[2]
    assert "--preset" not in command  # the folders of the features tell it
    assert "--classes FILE-OF-THESE-CLASSES --split group --seed 0 --split-seed 7 --recipe paper" in command
    assert "--false-alarm-rate 0.1" in command
    assert command.endswith("--out RUNS/3-resnet50-lstm-attention")
    assert how.test_sha256 == hashlib.sha256(b"a.avi\nb.avi\n").hexdigest()


def test_the_command_to_train_names_backbone_and_preset(tmp_path):
    frames = {"samples": 20, "short_side": 64}
    identity = {"backbone": "vit", "preprocessing": {"preset": "grid"}, "precision": "fp32", "frames": frames}
    write_run(tmp_path / "r", truth=[0], guesses=[0], sources=[{"kind": "features", "identity": identity}])
    (model,) = gather(read_records([tmp_path / "r"]))
    how = how_to(model, 1)
    assert "--variant resnet50-lstm-attention --backbone vit --preset grid --split group" in how.commands[1]
    assert ("clips (training, validation, test)", "9, 3, 1") in how.settings


def test_runs_on_frames_are_made_again_and_shown_by_the_frames_themselves(tmp_path):
    frames = {"samples": 20, "short_side": 64}
    sources = [{"kind": "pixels", "identity": frames}]
    write_run(tmp_path / "r", truth=[0], guesses=[0], variant="lrcn", sources=sources)
    (model,) = gather(read_records([tmp_path / "r"]))
    extracting, training = how_to(model, 1).commands
    assert extracting == "fitrec-cache extract VIDEOS --cache CACHE --samples 20 --frame-size 64"
    assert training.startswith("fitrec-cache train-head --cache CACHE --variant lrcn --split group")
    asked = []
    cache = SimpleNamespace(frame_store=lambda identity: asked.append(identity) or ["a clip"])
    pictures._frame_store(cache, model.first)
    assert asked == [frames]


def test_the_settings_of_a_head_are_its_own(tmp_path):
    """With few clips a head has fewer components than its recipe allows."""
    head = {"variant": "mean", "n_classes": 3, "frames": 20, "attention": "none", "components": 42}
    training = {"components": 512, "device": "cpu"}
    write_run(tmp_path / "r", truth=[0], guesses=[0], head=head, training=training)
    (model,) = gather(read_records([tmp_path / "r"]))
    assert [value for name, value in how_to(model, 1).settings if name == "components"] == ["42"]


class Stored(dict):
    """Frames by content, for a store: the number of a frame is twice its time since the video began, at 10 s."""

    def __init__(self, **held):
        super().__init__(held)
        self.identity = {"samples": 20}

    def jpegs(self, content):
        return self[content]

    def row(self, content):
        return {"pts_seconds": 10 + np.arange(20) / 2, "ledger": np.bytes_(b'{"starts_at_seconds": 10.0}')}


def test_a_glimpse_is_spread_over_the_clip(monkeypatch):
    store = Stored(a=encode_frames(np.zeros((20, 30, 40, 3), np.uint8)))
    held = [HeldClip(clip_id=i, group=None, label=label, video_sha256=i) for i, label in ("aA", "bB", "cA")]
    monkeypatch.setattr(pictures, "_frame_store", lambda *_: store)
    frames = pictures.Frames(None, {clip.clip_id: clip for clip in held}, None)
    found = frames.glimpse("a")
    assert [picture.pts_seconds for picture in found.frames] == [2, 4, 5.5, 7.5]  # frames 4, 8, 11 and 15 of 0 to 19
    assert {(picture.width, picture.height) for picture in found.frames} == {(40, 30)}
    assert frames.glimpse("b") is frames.glimpse("none") is None
    assert frames.lost == {"b", "none"}
    assert [frames.of_class("A", list("zbca")), frames.of_class("B", list("abc"))] == ["a", ""]


def test_the_most_alike_pairs_are_shown_whose_frames_are_there(monkeypatch):
    pairs, glimpses = [[0, 3], [1, 2], [2, 3]], SimpleNamespace(glimpse=lambda name: None if name == "b" else name)
    _, found = audited(monkeypatch, ["dbac"], pairs, glimpses)
    assert ([(pair.train, pair.test) for pair in found.pairs], found.n_pairs) == ([("d", "a"), ("d", "c")], 3)
    monkeypatch.setattr(leaks, "MOST_PAIRS", 1)
    _, found = audited(monkeypatch, ["dbac"], pairs, glimpses)
    assert [(pair.train, pair.test, pair.similarity) for pair in found.pairs] == [("d", "a", 1.0)]


def test_every_split_is_audited_also_of_models_that_are_not_shown_in_full(monkeypatch):
    sound = SimpleNamespace(leaks=False, sure=False)
    asked = []
    auditor = SimpleNamespace(frames=asked.append, audit=lambda runs, _: SimpleNamespace(runs=runs, verdict=sound))
    for name, value in (("MOST_MODELS", 1), ("Auditor", lambda *_, **__: auditor), ("history", lambda _: ())):
        monkeypatch.setattr(build, name, value)
    monkeypatch.setattr(build, "view", lambda model, _: model.name)
    models = [
        SimpleNamespace(name=name, split=split, shown=name, runs=[SimpleNamespace(name=name, split=split, sharing=0)])
        for name, split in (("a", "group"), ("b", "group"), ("c", "random"))
    ]
    seen = build._Seen(models, SimpleNamespace(folder=None), progress=False)
    assert seen.views == ["a"]
    assert asked == ["a", "c"]  # once each: frames know which of them were lost
    audited = {rule: [run.name for run in found.runs] for rule, found in seen.audits.items()}
    assert audited == {"group": ["a", "b"], "random": ["c"]}
    assert seen.missing == ["2 further models are in the tables only"]


def test_a_confusion_is_shown_by_its_clips_and_one_of_the_other_class(made):
    frames = SimpleNamespace(glimpse=lambda name: name, of_class=lambda label, among: f"{label} of {len(among)}")
    (model,) = gather(read_records([made]))
    found = list(views._confusions(model, frames))
    assert [(c.true, c.guess, c.times, c.of) for c in found] == [("Squat", "Lunge", 2, 4), ("Hop", "Lunge", 1, 4)]
    assert [c.clips for c in found] == [("Squat/10.avi", "Squat/11.avi"), ("Hop/3.avi",)]
    assert {c.example for c in found} == {"Lunge of 9"}  # training clips


def test_the_reliability_chart_is_of_the_bins(made, monkeypatch):
    points = []
    monkeypatch.setattr("fitrec_cache.report.calibration.reliability_svg", lambda given: points.extend(given) or "")
    (model,) = gather(read_records([made]))
    found = views.calibration(model)
    sure, (low, high) = np.exp(2) / (np.exp(2) + 2), binomtest(9, 12).proportion_ci(method="wilson")
    assert points == [pytest.approx((sure, 0.75, low, high, 1.0))]
    assert found.gap == pytest.approx(sure - 0.75)


def test_bins_count_by_their_clips(made, monkeypatch):
    """Of twelve clips one is sure at 1 / 3, the others at 78.7 %."""
    tensors = safetensors.numpy.load_file(made / "logits.safetensors")
    tensors["test_logits"][0] = 0
    safetensors.numpy.save_file(tensors, made / "logits.safetensors")
    points = []
    monkeypatch.setattr("fitrec_cache.report.calibration.reliability_svg", lambda given: points.extend(given) or "")
    (model,) = gather(read_records([made]))
    sure = np.exp(2) / (np.exp(2) + 2)
    assert views.calibration(model).gap == pytest.approx((11 * sure + 1 / 3 - 9) / 12)
    assert [point[4] for point in points] == pytest.approx([1 / 12, 11 / 12])


def test_likeness_is_by_the_runs_own_embeddings_where_these_hold_all(monkeypatch):
    other, own = Stored(a=[], b=[]), Stored(a=[], b=[])
    other.identity, own.identity = ({"backbone": name, "preprocessing": {}} for name in ("other", "own"))
    other.folder, own.folder = "others", "its own"
    monkeypatch.setattr(leaks, "stored_embeddings", lambda store, clips, progress: store.folder)
    monkeypatch.setattr(leaks, "quick_look", lambda embeddings, *_, **__: embeddings())
    clips = [HeldClip(clip_id=name, group=None, label="A", video_sha256=name) for name in "ab"]
    record, cache = (
        SimpleNamespace(sources=[{"identity": own.identity}]),
        SimpleNamespace(filled_features=lambda: [other, own]),
    )
    assert Auditor(cache)._look(record, clips) == "its own"
    del own["b"]
    assert Auditor(cache)._look(record, clips) == "others"


@pytest.mark.parametrize(("then", "same"), [({}, True), ({"c": "a" * 16}, True), ({"c": "b" * 16}, False)])
def test_a_video_is_another_only_where_the_run_knew_one(then, same):
    clip = HeldClip(clip_id="c", group=None, label="A", video_sha256="a" * 64)
    assert leaks._is_as_then(clip, then) is same


def test_chance_on_the_page_minds_recordings():
    """Fifty recordings of two clips that come out alike, over two folds: twice the variance of single clips."""
    sure = np.repeat([[0.8, 0.2]] * 30 + [[0.2, 0.8]] * 20, 2, axis=0)
    folds = [
        SimpleNamespace(
            units=[f"g{i // 2}" for i in range(at, at + 50)],
            probabilities=sure[at : at + 50],
            tested=SimpleNamespace(targets=np.zeros(50, int), logits=sure[at : at + 50]),
        )
        for at in (0, 50)
    ]
    assert _errors(folds)[1] == pytest.approx(math.sqrt(2 / math.pi * 200 * 0.8 * 0.2) / 100)
