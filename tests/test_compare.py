from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import safetensors.numpy
from scipy.stats import binomtest
from scipy.stats import t as student
from test_metrics import wilson_closed_formula

from fitrec_cache.compare import compare
from fitrec_cache.compare_tables import write_tables
from fitrec_cache.errors import FitrecError, StoreCorrupt, UsageError
from fitrec_cache.evaluation.metrics import interval_by_unit, wilson
from fitrec_cache.evaluation.paired import interval_of_difference
from fitrec_cache.runs.results import average_runs, pool_folds
from fitrec_cache.runs.run_files import find_runs
from fitrec_cache.runs.scored import per_clip, read_scored
from fitrec_cache.settings.recipes import get_recipe
from fitrec_cache.texts import compare_text

LABELS = ["Hop", "Lunge", "Squat"]


def made_by(preset="native", **more):
    """What ``run.json`` says of features."""
    frames = {"samples": 20, "short_side": 288}
    identity = {"backbone": "net", "preprocessing": {"preset": preset}, "precision": "fp32", "frames": frames}
    return [{"kind": "features", "identity": identity | more}]


def write_run(folder, right, *, variant="mean", backbone="net", seed=0, fold="", split="group", first=0, **more):
    """Write a run folder whose head has the test clips right where ``right`` says so; two clips a group."""
    right = np.asarray(right, dtype=bool)
    clips = [f"c{i:04d}" for i in range(first, first + len(right))]
    val = more.pop("val", ["w"])
    val_targets = more.pop("val_targets", [0] * len(val))
    truth = np.array([i % 3 for i in range(first, first + len(right))])
    logits = np.zeros((len(right), 3), np.float32)
    logits[np.arange(len(right)), np.where(right, truth, (truth + 1) % 3)] = 2
    groups = [f"g{i // 2}" for i in range(first, first + len(right))]
    run = {
        "run_version": 2,
        "head": {"variant": variant, "n_classes": 3, "input_dim": 4, "attention": more.pop("attention", None)}
        | {"frames": more.pop("frames", 20)},
        "labels": more.pop("labels", LABELS),
        "training": more.pop("training", {"learning_rate": more.pop("learning_rate", 0.001), "device": "cpu"}),
        "seed": seed,
        "fold": fold,
        "split": {
            "rule": split,
            "train": [],
            "val": list(val),
            "test": clips,
            "test_groups": more.pop("groups", groups),
            "unknown_classes": [],
        },
        "recipe": "paper",
        "data_sha256": "d",
        "sources": made_by(weights=more.pop("weights", "w")),
        "backbone": backbone,
        **more,
    }
    folder.mkdir(parents=True)
    outputs = {"test_logits": logits, "test_targets": truth.astype(np.int64), "test_attention": np.ones_like(logits)}
    outputs |= {"val_logits": np.eye(1, 3, dtype=np.float32).repeat(len(val), axis=0)}
    outputs |= {"val_attention": np.ones((len(val), 3), np.float32), "val_targets": np.asarray(val_targets, np.int64)}
    safetensors.numpy.save_file(outputs, folder / "logits.safetensors")
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def pattern(both, only_a, only_b, neither):
    """Return what two models have right: of 100 clips, 60 both, and so on."""
    a = [1] * both + [1] * only_a + [0] * only_b + [0] * neither
    b = [1] * both + [0] * only_a + [1] * only_b + [0] * neither
    return a, b


def test_seeds_of_one_split_and_seeds_with_their_own_are_two_models(tmp_path):
    a, b = pattern(50, 30, 6, 14)
    apart = write_run(tmp_path / "apart", a, seed=0)
    one = write_run(tmp_path / "one", b, seed=0)
    run = json.loads((one / "run.json").read_text())
    run["split"]["seed"] = 0
    (one / "run.json").write_text(json.dumps(run))
    report = compare([apart, one])
    assert len(report.models) == 2
    assert any("split seed 0" in model.name for model in report.models)
    assert report.tried == 1  # they test the same clips


def test_models_are_compared_and_adjusted_within_their_family_only(tmp_path, monkeypatch):
    a, b = pattern(50, 30, 6, 14)
    runs = [
        write_run(tmp_path / name, right, variant=variant, learning_rate=rate)
        for name, variant, right, rate in (
            ("a", "vit-lstm", a, 0.1),
            ("b", "mean", b, 0.1),
            ("c", "vit-lstm", b, 0.2),
            ("d", "mean", a, 0.2),
        )
    ]
    all_pairs = compare(runs)
    assert all_pairs.tried == 6
    report = compare(runs, families=[runs[:2], runs[2:]])
    assert [p.p_holm for p in report.pairs] == [p.p for p in report.pairs]
    named = {tuple(sorted((p.a[:8], p.b[:8]))): {p.a[-3:], p.b[-3:]} for p in report.pairs}
    assert len(report.pairs) == 2
    assert all(len(rates) == 1 for rates in named.values())
    by_names = {(p.a, p.b): p for p in all_pairs.pairs}
    assert all(by_names[p.a, p.b].p_holm > p.p_holm for p in report.pairs)
    monkeypatch.chdir(tmp_path)
    assert compare(runs, families=[[Path("a"), Path("b")], [Path("c"), Path("d")]]).pairs == report.pairs


def test_a_clear_winner_beats_the_other_with_mcnemars_p(tmp_path):
    a, b = pattern(50, 30, 6, 14)
    runs = [write_run(tmp_path / "a", a, variant="vit-lstm"), write_run(tmp_path / "b", b)]
    report = compare(runs)
    assert [(m.name, m.accuracy, m.n, m.n_groups) for m in report.models] == [
        ("vit-lstm on net", 0.8, 100, 50),
        ("mean on net", 0.56, 100, 50),
    ]
    pair = report.pairs[0]
    assert (pair.a, pair.b, pair.n, pair.only_a, pair.only_b) == ("vit-lstm on net", "mean on net", 100, 30, 6)
    assert pair.difference == pytest.approx(0.24)
    # Two clips a group, so 15 groups gain two and 3 lose two.
    assert pair.p == pytest.approx(2 * sum(math.comb(18, k) for k in range(4)) / 2**18)
    assert pair.p_holm == pair.p
    assert pair.text.startswith("vit-lstm on net beats mean on net by 24.0 points (95 % ")
    low, high = pair.ci95
    # Pairs of clips share their fate here: the standard deviation of a mean over 50 groups.
    gains = (np.array(a) - np.array(b)).reshape(50, 2).mean(axis=1)
    assert (low, high) == pytest.approx(
        (0.24 - 1.96 * gains.std() / 50**0.5, 0.24 + 1.96 * gains.std() / 50**0.5), abs=0.015
    )
    assert report.to_dict()["pairs"][0]["seeds"] == [0]
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_small_difference_is_not_distinguishable_and_the_better_is_named_first(tmp_path):
    a, b = pattern(50, 6, 9, 35)
    pair = compare([write_run(tmp_path / "a", a, variant="lrcn"), write_run(tmp_path / "b", b)]).pairs[0]
    assert (pair.a, pair.only_a, pair.only_b) == ("mean on net", 9, 6)
    assert pair.text.startswith("mean on net and lrcn on net are not distinguishable at n = 100 (3.0 points, 95 % -")


def test_a_group_that_decides_alone_is_no_evidence(tmp_path):
    """Eight clips differ, all of one group: by clips p would be 0.008."""
    a, b = pattern(40, 8, 0, 52)
    groups = ["one" if 40 <= i < 48 else f"g{i}" for i in range(100)]
    runs = [write_run(tmp_path / n, r, variant=n, groups=groups) for n, r in (("x", a), ("y", b))]
    pair = compare(runs).pairs[0]
    assert pair.p == 1
    assert pair.ci95[0] < 0
    assert "not distinguishable" in pair.text


@pytest.mark.parametrize("without", ["a", "b"])
def test_groups_that_only_one_model_knows_count_for_both(tmp_path, without):
    """Whichever of the two was trained before groups were known."""
    a, b = pattern(50, 30, 6, 14)
    unknown = {"groups": [None] * 100}
    runs = [
        write_run(tmp_path / "a", a, variant="vit-lstm", **unknown if without == "a" else {}),
        write_run(tmp_path / "b", b, **unknown if without == "b" else {}),
    ]
    report = compare(runs)
    assert report.pairs[0].p == pytest.approx(2 * sum(math.comb(18, k) for k in range(4)) / 2**18)  # 15 gain, 3 lose
    assert not any("name other groups" in note for note in report.notes)


def test_groups_that_differ_are_told(tmp_path):
    runs = [
        write_run(tmp_path / "a", [1, 0, 1, 1], variant="vit-lstm"),
        write_run(tmp_path / "b", [1, 0, 0, 1], groups=["g0", "g0", "other", "other"]),
    ]
    told = r"(mean|vit-lstm) on net and (mean|vit-lstm) on net name other groups of 2 test clips: those of .*"
    (note,) = (note for note in compare(runs).notes if "groups" in note)
    first, other = re.fullmatch(told, note).groups()
    assert {first, other} == {"mean", "vit-lstm"}


def test_seeds_are_one_model_and_a_clip_counts_for_who_has_it_right_more_often(tmp_path):
    for seed, (right_a, right_b) in enumerate(([[1, 1, 0, 1], [1, 0, 0, 1]], [[1, 1, 0, 0], [0, 0, 1, 1]])):
        write_run(tmp_path / "a" / f"seed{seed}", right_a, variant="vit-lstm", seed=seed)
        write_run(tmp_path / "b" / f"seed{seed}", right_b, seed=seed)
    report = compare([tmp_path / "a", tmp_path / "b"])
    best, other = report.models
    assert (best.name, best.seeds, best.accuracies) == ("vit-lstm on net", (0, 1), (0.75, 0.5))
    assert best.accuracy == 0.625
    assert best.sd == pytest.approx(0.25 / 2**0.5)
    assert other.accuracies == (0.5, 0.5)
    pair = report.pairs[0]
    # A less B by clip, over two seeds: +1, +2, -1, -1
    assert (pair.only_a, pair.only_b, pair.n, pair.seeds) == (2, 2, 4, (0, 1))
    assert pair.difference == pytest.approx(1 / 8)


def test_folds_are_pooled_by_clip_not_averaged(tmp_path):
    write_run(tmp_path / "r" / "01-seed0", [1, 1, 1, 1, 1, 1], fold="01", split="kfold:2")
    write_run(tmp_path / "r" / "02-seed0", [0, 0], fold="02", split="kfold:2", first=6)
    model = compare([tmp_path]).models[0]
    assert (model.accuracy, model.n, model.folds, model.sd) == (0.75, 8, 2, None)


def test_a_seed_without_all_folds_is_left_out_and_named(tmp_path):
    for seed, folds in ((0, ("01", "02")), (1, ("01",))):
        for fold in folds:
            write_run(tmp_path / f"{fold}-seed{seed}", [1, 0], fold=fold, seed=seed, first=2 * int(fold))
    report = compare([tmp_path])
    assert report.models[0].seeds == (0,)
    assert report.notes == ("mean on net: seed 1 lacks some of the 2 folds: left out",)


@pytest.mark.parametrize("rule", ["kfold:4", "leave-one:room"])
def test_folds_that_are_missing_are_told(tmp_path, rule):
    for seed, folds in ((0, ("01", "02")), (1, ("03", "04"))):
        for fold in folds:
            where = tmp_path / f"{fold}-seed{seed}"
            write_run(where, [1, 0], fold=fold, seed=seed, first=2 * int(fold), split=rule, val=["t5", "t6"])
            run = json.loads((where / "run.json").read_text())
            run["split"] |= {"train": ["t1", "t2", "t3", "t4"]}  # of eight clips
            (where / "run.json").write_text(json.dumps(run))
    report = compare([tmp_path])
    assert report.models[0].seeds == (0,)
    assert report.models[0].n == 4
    assert report.notes == (
        "mean on net: seed 1 lacks some of the 4 folds: left out",
        "mean on net: folds are missing, 4 of 8 clips were tested",
    )


def test_where_all_folds_are_there_none_is_said_to_be_missing(tmp_path):
    for fold, first, val in (("01", 0, ["c0002", "c0003"]), ("02", 2, ["c0000", "c0001"])):
        write_run(tmp_path / fold, [1, 0], fold=fold, split="kfold:2", first=first, val=val)
    report = compare([tmp_path])
    assert (report.models[0].n, report.notes) == (4, ())


def test_seeds_of_a_call_that_did_not_come_to_its_end_are_told(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / "a" / f"seed-{seed}", [1, 0, 1], seed=seed)
    write_run(tmp_path / "b", [1, 0, 1], variant="other")
    assert not any("finished" in note for note in compare([tmp_path]).notes)
    (tmp_path / "a" / "seed-2").mkdir()
    (tmp_path / "b" / "notes").mkdir()
    (note,) = (note for note in compare([tmp_path]).notes if "finished" in note)
    assert note == f"{tmp_path / 'a'} is not finished: seed-2 missing. Run the same train-head again"


def test_folds_of_a_call_that_did_not_come_to_its_end_are_told(tmp_path):
    write_run(tmp_path / "a" / "fold-01-seed-0", [1, 0], fold="01", split="kfold:2")
    (tmp_path / "a" / "fold-02-seed-0").mkdir()
    (note,) = (note for note in compare([tmp_path]).notes if "finished" in note)
    assert note == f"{tmp_path / 'a'} is not finished: fold-02-seed-0 missing. Run the same train-head again"


def test_several_pairs_are_adjusted_for_their_number(tmp_path):
    rng = np.random.default_rng(0)
    rights = {"a": rng.random(200) < 0.9, "b": rng.random(200) < 0.8, "c": rng.random(200) < 0.3}
    for name, right in rights.items():
        write_run(tmp_path / name, right, variant=name)
    report = compare([tmp_path])
    assert report.tried == len(report.pairs) == 3
    by_size = sorted(report.pairs, key=lambda p: p.p)
    assert [p.p_holm for p in by_size] == pytest.approx(
        [min(1, 3 * by_size[0].p), max(3 * by_size[0].p, 2 * by_size[1].p), max(2 * by_size[1].p, by_size[2].p)]
    )


def test_different_test_clips_are_not_compared_and_it_says_so(tmp_path):
    write_run(tmp_path / "a", [1] * 10, variant="vit-lstm")
    write_run(tmp_path / "b", [0] * 10, first=4)
    report = compare([tmp_path])
    assert report.pairs == ()
    assert report.notes == (
        "vit-lstm on net and mean on net have different test clips in 1 run (seed 0: 10 and 10, 6 in common): "
        "not compared on these",
    )
    write_run(tmp_path / "more", [1] * 10, variant="vit-lstm", seed=2)
    (note,) = compare([tmp_path / "a", tmp_path / "more", tmp_path / "b"]).notes  # that nothing is shared is told once
    assert note.endswith("(seed 0: 10 and 10, 6 in common): not compared on these")
    write_run(tmp_path / "c", [1] * 10, seed=1, variant="lrcn")
    notes = compare([tmp_path / "a", tmp_path / "c"]).notes
    assert notes == ("vit-lstm on net and lrcn on net share no run of the same seed and fold: not compared",)


def test_ties_on_validation_are_all_named_and_folders_are_found_from_anywhere(tmp_path, monkeypatch):
    for name in ("a", "b"):
        write_run(tmp_path / name, [1, 0], variant=f"x{name}")
    write_run(tmp_path / "far" / "seed-1", [1, 0], variant="xa", seed=1)
    monkeypatch.chdir(tmp_path)
    assert all(m.chosen for m in compare([tmp_path / "a", tmp_path / "b"]).models)
    report = compare([Path("a"), tmp_path / "far", tmp_path / "b"])
    assert {m.folder for m in report.models} == {".", "b"}
    monkeypatch.chdir(tmp_path / "far")
    assert {m.folder for m in compare([tmp_path / "b"]).models} == {str(tmp_path / "b")}


def test_models_of_other_numbers_of_seeds_are_chosen_between_on_the_same_validation_clips(tmp_path):
    """As one split for all seeds gives them; where each seed has its own, other seeds are other clips."""
    val, splits = list("wxyz"), {0: list("wxyz"), 1: list("stuv")}
    for seed in (0, 1):
        write_run(tmp_path / "one" / "a" / f"seed-{seed}", [1], seed=seed, val=val, val_targets=[0, 0, 0, 1])
        write_run(tmp_path / "own" / "a" / f"seed-{seed}", [1], seed=seed, val=splits[seed], val_targets=[0, 0, 0, 1])
    write_run(tmp_path / "one" / "b", [1], variant="vit-lstm", val=val, val_targets=[0, 0, 1, 1])
    write_run(tmp_path / "own" / "b", [1], variant="vit-lstm", val=splits[0], val_targets=[0, 0, 1, 1])
    found = {m.name: (m.chosen, m.apart) for m in compare([tmp_path / "one"]).models}
    assert found == {"mean on net": (True, False), "vit-lstm on net": (False, False)}
    found = {m.name: (m.chosen, m.apart) for m in compare([tmp_path / "own"]).models}
    assert found == {"mean on net": (False, True), "vit-lstm on net": (False, True)}


def test_validation_accuracy_is_the_mean_of_the_runs_whatever_their_sides(tmp_path):
    write_run(tmp_path / "a", [1], seed=0, val=list("wx"), val_targets=[0, 1])  # answers are all 0
    write_run(tmp_path / "b", [1], seed=1, val=list("wxyz"), val_targets=[0, 1, 1, 1])
    (model,) = compare([tmp_path]).models
    assert model.val_accuracy == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert not model.apart  # from none


def test_the_interval_on_validation_clips_minds_their_groups(tmp_path):
    val = [f"v{i}" for i in range(8)]
    settings = {"val": val, "val_targets": [0] * 4 + [1] * 4}  # answers are all 0
    write_run(tmp_path / "alone", [1], **settings)
    write_run(tmp_path / "grouped", [1], variant="vit-lstm", val_groups=["a"] * 4 + ["b"] * 4, **settings)
    found = {m.name: m.val_ci95 for m in compare([tmp_path]).models}
    assert found["mean on net"] == pytest.approx(wilson(0.5, 8))
    low, high = found["vit-lstm on net"]
    assert low < 0.1
    assert high > 0.9


def test_runs_of_another_precision_are_another_model(tmp_path):
    for name in ("fp32", "bf16"):
        write_run(tmp_path / name, [1, 0], training={"learning_rate": 0.001, "precision": name})
    assert {m.name for m in compare([tmp_path]).models} == {
        "mean on net, precision bf16",
        "mean on net, precision fp32",
    }
    write_run(tmp_path / "faster", [1, 0], training={"learning_rate": 0.002, "precision": "bf16"})
    assert {m.name for m in compare([tmp_path]).models} == {
        "mean on net, learning rate 0.001, precision bf16",
        "mean on net, learning rate 0.001, precision fp32",
        "mean on net, learning rate 0.002, precision bf16",
    }
    names = {m.name for m in compare([tmp_path / "fp32", tmp_path / "faster"]).models}  # the machine's own choice
    assert names == {"mean on net, learning rate 0.001", "mean on net, learning rate 0.002"}


def test_seeds_are_in_their_order_and_not_in_that_of_their_folders(tmp_path):
    for seed, right in ((2, [1, 1, 1, 1]), (10, [1, 0, 0, 0])):
        write_run(tmp_path / f"seed-{seed}", right, seed=seed)
    (model,) = compare([tmp_path]).models
    assert (model.seeds, model.accuracies) == ((2, 10), (1.0, 0.25))


def test_the_best_on_validation_is_named_not_the_best_on_test(tmp_path):
    val = list("wxyz")
    write_run(tmp_path / "a", [1, 1, 1, 0], variant="vit-lstm", val=val, val_targets=[0, 0, 1, 1])  # answers are all 0
    write_run(tmp_path / "b" / "seed-0", [1, 0, 0, 0], val=val, val_targets=[0, 0, 0, 1])
    write_run(tmp_path / "c", [1, 0, 0, 0], variant="lrcn", val=["v"], val_targets=[0])  # of other clips
    report = compare([tmp_path])
    found = {m.name: (m.accuracy, m.val_accuracy, m.chosen) for m in report.models}
    assert found["vit-lstm on net"] == (0.75, 0.5, False)
    assert found["mean on net"] == (0.25, 0.75, True)
    assert found["lrcn on net"] == (0.25, 1.0, False)
    assert {m.name: m.apart for m in report.models} == dict.fromkeys(found, False) | {"lrcn on net": True}
    assert "validation 100.0%, on different clips from the others)" in compare_text(report)
    lines = compare_text(report).splitlines()
    (best,) = (line for line in lines if "best: choose by this" in line)
    low, high = next(m.ci95 for m in report.models if m.chosen)
    assert best.startswith(f" 25.0% (95 % {low:.1%} to {high:.1%}, n = 4; validation 75.0%, best")
    assert best.endswith(f"mean on net, split group <- {tmp_path / 'b' / 'seed-0'}")
    compare([tmp_path], out=tmp_path / "t.md")
    assert "| mean on net | group | 75.0 (best) | 25.0 | one seed |" in (tmp_path / "t.md").read_text()
    write_run(tmp_path / "d", [1, 0, 0, 0], variant="convlstm", val=val, val_targets=[0, 0, 0, 1])
    assert compare_text(compare([tmp_path])).count("75.0%, tied for best: choose the simplest of these)") == 2
    shutil.rmtree(tmp_path / "d")
    compare([tmp_path], out=tmp_path / "t.md")  # an earlier one is replaced
    compare([tmp_path], out=tmp_path / "T.MD")
    assert (tmp_path / "T.MD").read_text() == (tmp_path / "t.md").read_text()
    compare([tmp_path], out=tmp_path / "t.csv")
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [float(r["validation"]) for r in rows if r["a"] == "mean on net" and r["kind"] == "model"] == [0.75]
    compare([tmp_path], out=tmp_path / "t.csv")
    for name in ("mine.md", "mine.csv"):
        (tmp_path / name).write_text("path,label\n")
        with pytest.raises(UsageError, match=r"exists and is not a comparison"):
            compare([tmp_path], out=tmp_path / name)
        assert (tmp_path / name).read_text() == "path,label\n"


def test_what_a_killed_comparison_left_beside_its_table_goes(tmp_path):
    run = write_run(tmp_path / "runs" / "a", [1, 0, 0, 0])
    left = tmp_path / ".tmp-00000000-1-0000aaaa"
    left.touch()
    os.utime(left, (0, 0))
    compare([run], out=tmp_path / "t.md")
    assert not left.exists()


def test_only_shared_seeds_and_the_same_split_rule_are_compared(tmp_path):
    for seed in range(3):
        write_run(tmp_path / f"a{seed}", [1, 0], variant="vit-lstm", seed=seed)
    write_run(tmp_path / "b", [1, 1], seed=1)
    write_run(tmp_path / "c", [1, 1], seed=1, split="random", variant="vit-lstm")
    report = compare([tmp_path])
    assert [(p.seeds, p.split) for p in report.pairs] == [((1,), "group")]
    assert any("2 runs without a counterpart" in n for n in report.notes)
    assert "models on different splits are not compared with each other" in report.notes
    assert [m.split for m in report.models] == ["group", "group", "random"]


def test_the_mean_over_the_official_splits_is_told_of_models_that_have_all_three(tmp_path):
    for number, right in ((1, 6), (2, 7), (3, 5)):
        split = f"official{number}"
        for seed, more in ((0, 0), (1, 2)):  # the mean of each split first, whatever its number of clips
            right_of = pattern(right + more, 0, 0, 10 * number - right - more)[0]
            write_run(tmp_path / split / f"seed-{seed}", right_of, split=split, seed=seed, first=100 * number)
        other = {"variant": "vit-lstm", "seed": number}  # no mean of these: their seeds differ
        write_run(tmp_path / f"lstm-{number}", [True] * 4, split=split, first=100 * number, **other)
    mean = (0.7 + 0.4 + 0.2) / 3
    told = f"mean accuracy over official1, official2, official3: mean on net {mean:.1%}"
    assert told in compare([tmp_path]).notes
    assert not any("mean accuracy" in note for note in compare([tmp_path / "official1", tmp_path / "official2"]).notes)


def test_the_better_one_is_better_on_the_shared_runs_not_on_all(tmp_path):
    write_run(tmp_path / "a0", [1, 1, 1, 1], variant="vit-lstm", seed=0)
    write_run(tmp_path / "a1", [1, 0, 0, 0], variant="vit-lstm", seed=1)
    write_run(tmp_path / "b1", [0, 0, 1, 1], seed=1)
    report = compare([tmp_path])
    assert report.models[0].name == "vit-lstm on net"
    pair = report.pairs[0]
    assert (pair.a, pair.only_a, pair.only_b, pair.difference) == ("mean on net", 2, 1, 0.25)


def test_clips_may_be_in_any_order(tmp_path):
    a, b = pattern(3, 4, 0, 5)
    run = write_run(tmp_path / "a", a, variant="vit-lstm")
    write_run(tmp_path / "b", b)
    settings = json.loads((run / "run.json").read_text())
    outputs = safetensors.numpy.load_file(run / "logits.safetensors")
    order = np.random.default_rng(0).permutation(12)
    for name in ("test", "test_groups"):
        settings["split"][name] = [settings["split"][name][i] for i in order]
    (run / "run.json").write_text(json.dumps(settings))
    shuffled = {k: np.ascontiguousarray(v[order]) if "test" in k else v for k, v in outputs.items()}
    safetensors.numpy.save_file(shuffled, run / "logits.safetensors")
    pair = compare([tmp_path]).pairs[0]
    assert (pair.only_a, pair.only_b) == (4, 0)


def test_lists_of_one_name_in_two_places_are_two_splits_to_adjust_for(tmp_path):
    a, b = pattern(50, 30, 6, 14)
    for place, first in (("x", 0), ("y", 500)):
        split = f"list:{place}/train.txt,{place}/test.txt"
        write_run(tmp_path / place / "a", a, variant="vit-lstm", split=split, first=first)
        write_run(tmp_path / place / "b", b, split=split, first=first)
    report = compare([tmp_path])
    assert [pair.split for pair in report.pairs] == ["list:train.txt,test.txt"] * 2
    assert all(pair.p_holm == pair.p for pair in report.pairs)


def test_sides_have_one_number_whatever_the_variant_and_the_order(tmp_path):
    """Two lists of one name; of each variant the other list comes first."""
    a, b = pattern(50, 30, 6, 14)
    split, places = "list:train.txt,test.txt", (("x", 0), ("y", 500))
    names = []
    for order in (places, places[::-1]):
        runs = []
        for variant, mine in (("mean", order), ("vit-lstm", order[::-1])):
            for place, first in mine:
                folder = tmp_path / f"{place}-{variant}"
                if not folder.exists():
                    write_run(folder, b if variant == "mean" else a, variant=variant, split=split, first=first)
                runs.append(folder)
        report = compare(runs)
        names.append({m.name for m in report.models})
        for pair in report.pairs:
            assert pair.a.rpartition("sides no. ")[2] == pair.b.rpartition("sides no. ")[2]
    assert names[0] == names[1]
    assert len(names[0]) == 4


def test_a_recipe_alone_names_a_model_only_where_the_rest_is_its_own(tmp_path):
    own = {name: {**get_recipe(name).to_dict(), "precision": "fp32"} for name in ("paper", "native")}
    write_run(tmp_path / "1", [1, 0], recipe="paper", training=own["paper"])
    write_run(tmp_path / "2", [1, 0], recipe="native", training=own["native"])
    assert {m.name for m in compare([tmp_path]).models} == {"mean on net, recipe paper", "mean on net, recipe native"}
    write_run(tmp_path / "3" / "x", [1, 0], recipe="paper", training=own["paper"])
    write_run(tmp_path / "3" / "y", [1, 0], recipe="native", training=own["native"] | {"epochs": 4})
    names = {m.name for m in compare([tmp_path / "3"]).models}
    assert names == {"mean on net, recipe paper, epochs 200", "mean on net, recipe native, epochs 4"}


def test_recipe_and_preset_are_both_named_where_both_differ(tmp_path):
    for name in ("paper", "native"):
        run = write_run(
            tmp_path / name, [1, 0], recipe=name, training={**get_recipe(name).to_dict(), "precision": "fp32"}
        )
        settings = json.loads((run / "run.json").read_text())
        settings["sources"][0]["identity"]["preprocessing"]["preset"] = name
        (run / "run.json").write_text(json.dumps(settings))
    names = {m.name for m in compare([tmp_path]).models}
    assert names == {f"mean on net, recipe {name}, preset {name}" for name in ("paper", "native")}


def test_a_run_of_another_version_is_refused(tmp_path):
    write_run(tmp_path / "a", [1, 0], run_version=99)
    with pytest.raises(FitrecError, match="has version 99, this program reads 2"):
        compare([tmp_path])


def test_recipe_and_preset_together_name_models_whose_other_settings_are_the_recipes_own(tmp_path):
    for preset in ("native", "paper"):
        sources = made_by(preset)
        for recipe in ("native", "paper"):
            settings = {"training": get_recipe(recipe).to_dict() | {"device": "cpu"}, "recipe": recipe}
            write_run(tmp_path / f"{preset}-{recipe}", [1, 0], sources=sources, **settings)
    names = {m.name for m in compare([tmp_path]).models}
    assert names == {f"mean on net, recipe {r}, preset {p}" for r in ("native", "paper") for p in ("native", "paper")}


def test_runs_of_another_rate_of_false_alarms_are_another_model(tmp_path):
    for rate in (0.05, 0.2):
        write_run(tmp_path / str(rate), [1, 0], false_alarm_rate=rate)
    assert {m.name for m in compare([tmp_path]).models} == {
        "mean on net, false alarm rate 0.05",
        "mean on net, false alarm rate 0.2",
    }


def test_numbers_of_frames_and_precisions_of_features_name_models(tmp_path):
    for name, frames, precision in (("a", 10, "fp32"), ("b", 20, "fp32"), ("c", 20, "bf16")):
        sources = made_by(weights=name)
        sources[0]["identity"]["precision"] = precision
        write_run(tmp_path / name, [1, 0], frames=frames, sources=sources)
    report = compare([tmp_path])
    assert {m.name: m.folder[-1] for m in report.models} == {
        "mean on net, frames 10, features in fp32": "a",
        "mean on net, frames 20, features in fp32": "b",
        "mean on net, frames 20, features in bf16": "c",
    }
    write_tables(report, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open() as table:
        folders = {row["a"]: row["folder"] for row in csv.DictReader(table) if row["kind"] == "model"}
    assert folders == {m.name: m.folder for m in report.models}


def test_models_are_named_by_what_differs(tmp_path):
    write_run(tmp_path / "1", [1, 0], attention="dot", learning_rate=0.01)
    write_run(tmp_path / "2", [1, 0], attention="none", learning_rate=0.01)
    write_run(tmp_path / "3", [1, 0], variant="lrcn", backbone="pixels")
    write_run(tmp_path / "4", [1, 0], variant="lrcn", backbone="pixels", weights="v")
    names = {m.name for m in compare([tmp_path]).models}
    assert names == {
        "mean on net, attention dot",
        "mean on net, attention none",
        "lrcn on pixels, features no. 1",
        "lrcn on pixels, features no. 2",
    }


def test_who_is_named_better_is_who_the_evidence_is_for(tmp_path):
    """B has 400 clips right in one seed of five, A has 120 others in all: the gain is A's by 200, and its p is A's."""
    for seed in range(5):
        a, b = [0] * 400 + [1] * 120 + [0] * 480, [seed == 0] * 400 + [0] * 600
        single = [None] * 1000
        write_run(tmp_path / "a" / str(seed), a, variant="vit-lstm", seed=seed, groups=single)
        write_run(tmp_path / "b" / str(seed), b, seed=seed, groups=single)
    pair = compare([tmp_path]).pairs[0]
    assert pair.a == "vit-lstm on net"
    assert (pair.only_a, pair.only_b) == (120, 400)
    # 120 signed fives and 400 signed ones have a standard deviation of sqrt(120 x 25 + 400): 200 is 3.43 of them.
    assert pair.p == pytest.approx(2 * NormalDist().cdf(-199.5 / 3400**0.5), rel=0.05)


def test_p_values_are_adjusted_for_the_pairs_of_their_split(tmp_path):
    a, b = pattern(50, 30, 6, 14)
    for split in ("group", "random"):
        write_run(tmp_path / split / "a", a, variant="vit-lstm", split=split)
        write_run(tmp_path / split / "b", b, split=split)
    write_run(tmp_path / "random" / "c", b, variant="lrcn", split="random")
    found = {(p.split, p.a, p.b): p for p in compare([tmp_path]).pairs}
    alone, one_of_three = (
        found["group", "vit-lstm on net", "mean on net"],
        found["random", "vit-lstm on net", "mean on net"],
    )
    assert alone.p_holm == alone.p
    assert one_of_three.p_holm == pytest.approx(3 * one_of_three.p)


def test_a_split_by_lists_is_its_sides_wherever_the_lists_lie(tmp_path):
    for number, (folder, variant) in enumerate((("x", "mean"), ("y", "vit-lstm"), ("z", "lrcn"))):
        run = write_run(tmp_path / variant, [1, 0, 1], variant=variant, split=f"list:/{folder}/a.txt,/{folder}/b.txt")
        settings = json.loads((run / "run.json").read_text())
        settings["split"] |= {"train": ["t1", "t2" if number < 2 else "t3"], "val": ["v"]}
        (run / "run.json").write_text(json.dumps(settings))
    report = compare([tmp_path])
    assert {m.split for m in report.models} == {"list:a.txt,b.txt"}
    (pair,) = report.pairs
    first, second = pair.a.split(", "), pair.b.split(", ")
    assert {first[0], second[0]} == {"mean on net", "vit-lstm on net"}
    assert first[1] == second[1] != next(m.name for m in report.models if "lrcn" in m.name).split(", ")[1]
    assert "models on different splits are not compared with each other" in report.notes


def test_runs_on_other_data_or_without_other_classes_are_other_models(tmp_path):
    write_run(tmp_path / "1", [1, 0], data_sha256="aa")
    write_run(tmp_path / "2", [1, 0], data_sha256="bb", seed=1)
    write_run(tmp_path / "3", [1, 0], variant="lrcn", seed=0)
    strange = write_run(tmp_path / "4", [1, 0], variant="lrcn", seed=0)
    run = json.loads((strange / "run.json").read_text())
    run["split"]["unknown_classes"] = ["Lunge", "Squat"]
    (strange / "run.json").write_text(json.dumps(run))
    report = compare([tmp_path])
    assert {m.name for m in report.models} == {
        "mean on net, data no. 1",
        "mean on net, data no. 2",
        "lrcn on net, unknown classes: none",
        "lrcn on net, unknown classes: Lunge, Squat",
    }


def test_classes_kept_apart_are_named_and_not_by_their_clips(tmp_path):
    for name, split in (("1", {}), ("2", {"unknown": ["Hop/1.avi", "Hop/2.avi"], "unknown_classes": ["Hop"]})):
        run = json.loads((write_run(tmp_path / name, [1, 0]) / "run.json").read_text())
        run["split"] |= split
        (tmp_path / name / "run.json").write_text(json.dumps(run))
    names = {m.name for m in compare([tmp_path]).models}
    assert names == {"mean on net, unknown classes: none", "mean on net, unknown classes: Hop"}


def test_one_recording_says_nothing_of_others(tmp_path):
    for name, right in (("mean", [1, 0, 0, 1]), ("lrcn", [1, 1, 0, 1])):
        write_run(tmp_path / name, right, variant=name, groups=["g"] * 4)
    report = compare([tmp_path])
    assert [m.ci95 for m in report.models] == [(0, 1), (0, 1)]
    assert (report.pairs[0].ci95, report.pairs[0].p) == ((-1, 1), 1)


def test_a_room_that_decides_alone_is_no_evidence_however_many_clips_it_has(tmp_path):
    """Of four rooms left out one by one, one has 60 clips, all of which only the first model has right."""
    first = 0
    for room, (n, ours) in {"01-a": (60, 1), "02-b": (4, 0), "03-c": (4, 0), "04-d": (4, 0)}.items():
        where = {"fold": room, "split": "leave-one:room", "first": first}
        write_run(tmp_path / "ours" / room, [ours] * n, variant="vit-lstm", **where)
        write_run(tmp_path / "theirs" / room, [0] * n, **where)
        first += n
    report = compare([tmp_path])
    (pair,) = report.pairs
    assert (pair.a, pair.n, pair.folds, pair.only_a) == ("vit-lstm on net", 72, 4, 60)
    assert pair.p == 1  # the sign of one room's gain, tossed
    assert pair.ci95 == (-1, 1)  # one room is nearly all
    assert "not distinguishable at n = 72 in 4 folds" in pair.text
    assert report.models[0].ci95[0] < 0.05  # 60 of 72 are right, but of one room


def test_where_every_clip_is_a_group_of_its_own_the_interval_is_that_of_train_head(tmp_path):
    right = [1] * 10 + [0] * 6
    write_run(tmp_path / "a", right, groups=[f"g{i}" for i in range(16)])
    write_run(tmp_path / "b", right, groups=[None] * 16, variant="lrcn")
    truth = binomtest(10, 16).proportion_ci(method="wilson")
    for model in compare([tmp_path]).models:
        assert model.ci95 == pytest.approx((truth.low, truth.high))


def test_models_that_agree_on_every_clip_are_not_proven_equal(tmp_path):
    right = [1] * 10 + [0] * 6
    groups = [f"g{i}" for i in range(16)]
    runs = [write_run(tmp_path / n, right, variant=n, groups=groups) for n in ("mean", "lrcn")]
    (pair,) = compare(runs).pairs
    z = NormalDist().inv_cdf(0.975)
    most = z**2 / (16 + z**2)  # Wilson's for 0 of 16
    assert pair.ci95 == pytest.approx((-most, most))
    assert (pair.difference, pair.p) == (0, 1)
    mixed = [k % 2 for k in range(16)]  # in each group one each
    runs = [
        write_run(tmp_path / f"m{n}", r, variant=n) for n, r in (("vit-lstm", mixed), ("convlstm", [*mixed[1:], 0]))
    ]
    (pair,) = compare(runs).pairs
    most = z**2 / (8 + z**2)
    assert (pair.difference, pair.ci95) == (0, pytest.approx((-most, most)))
    runs = [write_run(tmp_path / f"x{n}", [k] * 16, variant=n) for n, k in (("mean", 1), ("lrcn", 0))]
    (pair,) = compare(runs).pairs
    assert (pair.difference, pair.ci95) == (1, pytest.approx((8 / (8 + z**2), 1)))


def test_where_all_clips_are_right_the_interval_is_wilsons_for_the_groups(tmp_path):
    """However often 20 groups that are all right are drawn, all drawn are right: certainty, where there is none."""
    report = compare([write_run(tmp_path / "a", [1] * 40), write_run(tmp_path / "b", [0] * 40, variant="lrcn")])
    best, worst = report.models
    z2 = 1.959964**2
    assert best.ci95 == pytest.approx((20 / (20 + z2), 1))  # Wilson's for 20 of 20, by its formula
    assert worst.ci95 == pytest.approx((0, z2 / (20 + z2)))


def test_sentences_name_their_split_without_folders(tmp_path):
    a, b = pattern(50, 30, 6, 14)
    for split in ("group", "list:/somewhere/train.txt,/somewhere/test.txt"):
        folder = tmp_path / split[:4]
        write_run(folder / "a", a, variant="vit-lstm", split=split)
        write_run(folder / "b", b, split=split)
    said = [pair.text for pair in compare([tmp_path]).pairs]
    assert [text.rpartition(") ")[2] for text in said] == ["on split group", "on split list:train.txt,test.txt"]


def test_clips_without_groups_are_drawn_one_by_one(tmp_path):
    a, b = pattern(40, 8, 0, 52)
    runs = [write_run(tmp_path / n, r, variant=n, groups=[None] * 100) for n, r in (("x", a), ("y", b))]
    report = compare(runs)
    assert report.models[0].n_groups is None
    assert report.pairs[0].ci95[0] > 0
    assert "beats" in report.pairs[0].text


def test_tables_are_written(tmp_path):
    a, b = pattern(50, 30, 6, 14)
    runs = [write_run(tmp_path / "r" / n, r, variant=f"x{n}") for n, r in (("1", a), ("2", b))]
    compare(runs, out=tmp_path / "t.md")
    page = (tmp_path / "t.md").read_text()
    assert "| x1 on net | group | 100.0 (best) | 80.0 | one seed | " in page
    assert "- x1 on net beats x2 on net by 24.0 points" in page
    assert "1 pair compared" in page
    compare(runs, out=tmp_path / "t.csv")
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["kind"], r["a"], float(r["value"])) for r in rows] == [
        ("model", "x1 on net", 0.8),
        ("model", "x2 on net", 0.56),
        ("pair", "x1 on net", 0.24),
    ]


def test_tables_hold_the_figures_of_the_report(tmp_path):
    """By clip, over two seeds, one has 2, 2, 0 and -1 right more; by seed they have 3 and 2 of 4, and 2 and 0."""
    for seed, (a, b) in enumerate((([1, 1, 1, 0], [0, 0, 1, 1]), ([1, 1, 0, 0], [0, 0, 0, 0]))):
        write_run(tmp_path / "r" / f"a{seed}", a, variant="vit-lstm", seed=seed)
        write_run(tmp_path / "r" / f"b{seed}", b, seed=seed, val_targets=[1])  # its validation clip is wrong
    report = compare([tmp_path / "r"], out=tmp_path / "t.md")
    best, other, pair = *report.models, *report.pairs
    first, second, between = (f"{100 * one.ci95[0]:.1f} to {100 * one.ci95[1]:.1f}" for one in (best, other, pair))
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert f"| vit-lstm on net | group | 100.0 (best) | 62.5 | 17.7 | {first} | 4 | 2 | 2 |" in lines
    assert f"| mean on net | group | 0.0 | 25.0 | 35.4 | {second} | 4 | 2 | 2 |" in lines
    assert f"| vit-lstm on net | mean on net | 37.5 | {between} | 2 | 1 | 1 | 1 |" in lines
    compare([tmp_path / "r"], out=tmp_path / "t.csv")
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    named = ("n", "seeds", "validation", "value", "sd", "low", "high", "only_a", "only_b", "p")
    expected = [
        [4, 2, 1, 0.625, 0.25 / 2**0.5, *best.ci95, None, None, None],
        [4, 2, 0, 0.25, 0.5 / 2**0.5, *other.ci95, None, None, None],
        [4, 2, None, 0.375, None, *pair.ci95, 2, 1, 1],
    ]
    for row, numbers in zip(rows, expected, strict=True):
        assert [float(row[name]) if row[name] else None for name in named] == pytest.approx(numbers)


def test_sentences_say_of_how_many_folds_and_seeds_they_are(tmp_path):
    for seed in (0, 1):
        for fold in ("01", "02"):
            same = {"seed": seed, "fold": fold, "split": "kfold:2", "first": 4 * int(fold)}
            write_run(tmp_path / f"a-{fold}-{seed}", [1, 1, 1, 0], variant="vit-lstm", **same)
            write_run(tmp_path / f"b-{fold}-{seed}", [1, 1, 0, 0], **same)
    (pair,) = compare([tmp_path]).pairs
    assert (pair.folds, pair.seeds, pair.n) == (2, (0, 1), 8)
    assert "are not distinguishable at n = 8 in 2 folds, 2 seeds: " in pair.text


def test_over_folds_the_interval_is_wider_as_their_heads_share_training_clips(tmp_path):
    """By sqrt(1 + J n_test / n_train), Nadeau and Bengio (2003): here sqrt(3). It costs this pair its claim."""
    gains = {"": [1, 0] * 7 + [0, 0] * 5, "01": [1, 0] * 4 + [0, 0] * 2, "02": [1, 0] * 3 + [0, 0] * 3}
    for fold, ours in gains.items():
        where = {"fold": fold, "split": "kfold:2" if fold else "group", "first": 12 * (fold == "02")}
        learned = {"val": [f"v{i}" for i in range(12)]}
        for name, right in (("vit-lstm", ours), ("mean", [0] * len(ours))):
            write_run(tmp_path / (fold or "one") / name, right, variant=name, **where, **learned)
    ones, folds = (compare([tmp_path / name for name in names]).pairs[0] for names in (["one"], ["01", "02"]))
    assert (ones.n, folds.n, ones.difference, ones.p) == (24, 24, folds.difference, folds.p)
    assert np.subtract(folds.ci95, 7 / 24) == pytest.approx(3**0.5 * np.subtract(ones.ci95, 7 / 24))
    assert ones.claim.startswith("vit-lstm on net beats mean on net by 29.2 points")
    assert folds.claim.startswith("vit-lstm on net and mean on net are not distinguishable")


@pytest.mark.parametrize(("seeds", "counted"), [(1, 1), (2, 2), (3, 2)])
def test_seeds_with_a_split_of_their_own_count_as_folds(tmp_path, seeds, counted):
    """As many as it takes to test every clip once: of two halves, two."""
    for seed in range(seeds):
        where = {"seed": seed, "first": 6 * seed, "val": [f"v{i}" for i in range(12)]}
        write_run(tmp_path / f"a{seed}", [1, 0] * 6, variant="vit-lstm", **where)
        write_run(tmp_path / f"b{seed}", [0, 0] * 6, **where)
    report = compare([tmp_path])
    (pair,), (better, _) = report.pairs, report.models
    right, tested, units = per_clip([read_scored(tmp_path / f"a{seed}") for seed in range(seeds)])
    wider = (1 + counted) ** 0.5 if counted > 1 else 1
    for found, plain in (
        (pair.ci95, interval_of_difference(right, tested, list(units.values()))),
        (better.ci95, interval_by_unit(right, tested, list(units.values()))),
    ):
        assert np.subtract(found, 0.5) == pytest.approx(wider * np.subtract(plain, 0.5))


def test_wrong_use_is_refused(tmp_path):
    run = write_run(tmp_path / "a", [1, 0])
    assert len(compare([run, run, tmp_path]).models) == 1  # the same folder named twice is one run
    with pytest.raises(UsageError, match=r"\.md or \.csv"):
        compare([run], out=tmp_path / "x.txt")
    with pytest.raises(UsageError, match="no run in"):
        compare([tmp_path / "none"])
    with pytest.raises(UsageError, match="no run named"):
        compare([])
    copy = write_run(tmp_path / "copy", [1, 1])
    with pytest.raises(UsageError, match="runs of the same model, seed and fold"):
        compare([run, copy])
    other = write_run(tmp_path / "other", [1, 0], variant="lrcn", labels=["Squat", "Hop", "Lunge"])
    with pytest.raises(UsageError, match=r"clip c0000 is of class Hop in .* and of class Squat"):
        compare([run, other])


def test_an_accuracy_is_in_the_middle_of_its_interval_where_seeds_test_other_numbers_of_clips(tmp_path):
    """195 of 200 right in one seed, none of 10 in the other: 195 of 210, not the mean of 97.5 % and 0 %."""
    write_run(tmp_path / "a0", [1] * 195 + [0] * 5)
    write_run(tmp_path / "a1", [0] * 10, seed=1, first=500)
    (model,) = compare([tmp_path]).models
    assert model.accuracies == (0.975, 0.0)
    assert model.accuracy == pytest.approx(195 / 210)
    assert model.ci95[0] < model.accuracy < model.ci95[1]


def test_the_test_that_was_made_is_named_after_what_it_took_together(tmp_path):
    """By the pairs that were compared, whatever splits other models are on."""
    for variant, right in (("mean", [1] * 6), ("lrcn", [0] * 6)):
        write_run(tmp_path / "group" / variant, right, variant=variant)
    write_run(tmp_path / "room" / "mean", [1, 0, 1], split="leave-one:room", fold="01-a")
    assert "by an exact sign-flip test by group, adjusted" in compare_text(compare([tmp_path]))
    write_run(tmp_path / "room" / "lrcn", [1, 1, 1], variant="lrcn", split="leave-one:room", fold="01-a")
    assert "exact sign-flip test by fold and group, adjusted" in compare_text(compare([tmp_path]))
    some = {"groups": ["g", "g", None, None]}  # not every group is known
    runs = [write_run(tmp_path / f"s-{v}", [1, 0, 1, 0], variant=v, **some) for v in ("mean", "lrcn")]
    assert "exact sign-flip test by group, adjusted" in compare_text(compare(runs))
    alone = {"groups": ["g", "h", None, None]}
    runs = [write_run(tmp_path / f"a-{v}", [1, 0, 1, 0], variant=v, **alone) for v in ("mean", "lrcn")]
    report = compare(runs)
    assert "by exact McNemar, adjusted" in compare_text(report)
    assert report.pairs[0].p == mcnemar(report.pairs[0])


def test_over_several_seeds_the_test_is_not_called_mcnemars(tmp_path):
    """Its p does not follow from the two counts of clips, as a reader of that name would compute it."""
    for seed in range(3):
        for variant, right in (("mean", [1] * 8 + [0]), ("lrcn", [0] * 8 + [seed == 0])):
            alone = {"groups": [None] * 9, "seed": seed, "variant": variant}
            write_run(tmp_path / f"{variant}-{seed}", [int(r) for r in right], **alone)
    report = compare([tmp_path])
    (pair,) = report.pairs
    assert (pair.only_a, pair.only_b) == (8, 1)
    assert pair.p < mcnemar(pair)
    assert "by an exact sign-flip test over all seeds, adjusted" in compare_text(report)


def mcnemar(pair):
    """Return the p-value of McNemar's exact test from the counts of clips that only one model has right."""
    return binomtest(pair.only_a, pair.only_a + pair.only_b).pvalue if pair.only_a + pair.only_b else 1.0


@pytest.mark.parametrize(("name", "value"), [("test_logits", np.nan), ("test_targets", -1), ("test_targets", 3)])
def test_outputs_that_no_head_gives_are_no_answers(tmp_path, name, value):
    run = write_run(tmp_path / "a", [1, 0, 1])
    outputs = safetensors.numpy.load_file(run / "logits.safetensors")
    outputs[name][0] = value
    safetensors.numpy.save_file(outputs, run / "logits.safetensors")
    with pytest.raises(StoreCorrupt, match=r"(not finite|none of 0 to 2)\. Train the head again"):
        compare([run])


def test_damaged_runs_are_named(tmp_path):
    run = write_run(tmp_path / "a", [1, 0, 1])
    outputs = safetensors.numpy.load_file(run / "logits.safetensors")
    safetensors.numpy.save_file({**outputs, "test_logits": outputs["test_logits"][:2]}, run / "logits.safetensors")
    with pytest.raises(StoreCorrupt, match="Train the head again"):
        compare([run])
    (run / "logits.safetensors").unlink()
    with pytest.raises(StoreCorrupt, match=r"logits\.safetensors"):
        compare([run])
    (run / "run.json").write_text("{")
    with pytest.raises(StoreCorrupt, match="is damaged"):
        compare([run])


def test_runs_behind_a_link_are_found(tmp_path):
    for folder in ("runs/mean", "elsewhere/lstm", "runs/.tmp-1/left"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "run.json").touch()
    (tmp_path / "runs" / "lstm").symlink_to(tmp_path / "elsewhere" / "lstm", target_is_directory=True)
    (tmp_path / "elsewhere" / "lstm" / "again").symlink_to(tmp_path / "runs", target_is_directory=True)
    assert find_runs([tmp_path / "runs"]) == [tmp_path / "runs" / "lstm", tmp_path / "runs" / "mean"]


def test_so_few_differences_that_none_could_be_told_are_said(tmp_path):
    """Five that differ have p = 1 / 16 at least, six 1 / 32; of several pairs as Holm multiplies them."""
    n = 200
    for name, right in (("a", 150), ("b", 145), ("c", 144), ("same", 150)):
        write_run(tmp_path / name, [i < right for i in range(n)], variant=name, groups=[None] * n)
    of = {name: tmp_path / name for name in ("a", "b", "c", "same")}
    (pair,) = compare([of["a"], of["b"]]).pairs
    assert pair.differing == 5
    assert pair.claim.endswith("not distinguishable at n = 200: they differ in only 5 clips, too few to tell")
    (pair,) = compare([of["a"], of["c"]]).pairs
    assert "beats" in pair.claim
    (pair,) = compare([of["a"], of["same"]]).pairs
    assert pair.claim.endswith("not distinguishable at n = 200: no clip has more right by one of them")
    by_names = {(p.a, p.b): p for p in compare([of["a"], of["b"], of["c"]]).pairs}
    assert by_names["a on net", "c on net"].claim.endswith("they differ in only 6 clips, too few to tell")  # 3 / 32


def test_a_small_p_alone_is_no_victory_where_one_recording_is_most_of_the_clips(tmp_path):
    """Six groups all speak for A, p = 2 / 2^6; but 60 of 105 clips are one of them: worth three groups, t of two."""
    groups = ["big"] * 60 + [f"g{i}" for i in range(45)]
    a, b = [1] * 65 + [0] * 40, [0] * 105
    (pair,) = compare([write_run(tmp_path / n, r, variant=n, groups=groups) for n, r in (("x", a), ("y", b))]).pairs
    assert pair.p_holm == pair.p == 2**-5
    assert pair.ci95[0] < 0
    assert "not distinguishable" in pair.claim


def test_figures_of_folds_and_of_seeds_together_mind_recordings(tmp_path):
    """50 recordings of two clips that come out alike, 30 right: they scatter as 49 clips; t of 49 degrees."""
    right = np.repeat([1] * 30 + [0] * 20, 2)
    n = 49 * (1.959964 / student.ppf(0.975, 49)) ** 2
    plain = wilson_closed_formula(0.6 * n, n)
    more = {"calibration": {"temperature": 1.0, "threshold": 0.0, "false_alarm_rate": 0.0}}
    folds = []
    for k in (0, 1):
        settings = {"fold": f"0{k}", "split": "kfold:2", "first": 50 * k, "val": [f"v{i}" for i in range(150)]}
        folds.append(write_run(tmp_path / f"fold{k}", right[50 * k : 50 * k + 50], **settings, **more))
    (pooled,) = pool_folds([read_scored(folder) for folder in folds])
    wider = (1 + 2 * 50 / 150) ** 0.5  # Nadeau and Bengio (2003): two folds, whose heads learn from 150 clips
    assert pooled["accuracy_ci95"] == pytest.approx([0.6 + wider * (end - 0.6) for end in plain], abs=1e-6)
    seeds = [write_run(tmp_path / f"seed{s}", right, seed=s, val=[f"v{s}"], **more) for s in (0, 1)]
    found, together = average_runs([read_scored(folder) for folder in seeds])
    assert together.mean is None  # validated on different clips: the plain mean
    assert found["accuracy_ci95"] == pytest.approx(plain, abs=1e-6)
    sure = math.exp(2) / (math.exp(2) + 2)  # logits 2, 0, 0; one bin, and pairs make its variance twice as large
    by_chance = math.sqrt(2 / math.pi * 200 * sure * (1 - sure)) / 100
    assert found["ece_expected"] == pytest.approx(by_chance)


def test_comparing_loads_no_torch():
    code = "import sys, fitrec_cache.compare; print(sorted({'av', 'h5py', 'timm', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
