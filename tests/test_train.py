from __future__ import annotations

import contextlib
import copy
import csv
import errno
import json
import math
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from conftest import SMALL
from sklearn.metrics import confusion_matrix

from fitrec_cache import train as module
from fitrec_cache.cache import Cache
from fitrec_cache.common import png
from fitrec_cache.common.files import TEMPORARY
from fitrec_cache.compare import compare
from fitrec_cache.dataset.folds import Fold
from fitrec_cache.dataset.splits import Split
from fitrec_cache.errors import DivergedError, FitrecError, StoreCorrupt, StoreError, UsageError
from fitrec_cache.evaluation.calibration import calibration_error
from fitrec_cache.extract import extract
from fitrec_cache.features import Features
from fitrec_cache.heads.head import build_head
from fitrec_cache.heads.normalisation import Normalisation
from fitrec_cache.pack import read_pack
from fitrec_cache.runs import run_files, run_pictures
from fitrec_cache.runs.results import TrainReport
from fitrec_cache.runs.run import read_run, read_runs
from fitrec_cache.runs.scored import read_scored
from fitrec_cache.settings.poses import POSE, POSE_DIM
from fitrec_cache.settings.recipes import Recipe, get_recipe
from fitrec_cache.settings.variants import HeadConfig
from fitrec_cache.texts import train_text
from fitrec_cache.train import train_head
from fitrec_cache.training import fit as fit_module
from fitrec_cache.training import train_notes
from fitrec_cache.training.adamw import AdamW
from fitrec_cache.training.fit import Side, fit, fit_again, with_precision
from fitrec_cache.training.problem import Problem, accuracy
from fitrec_cache.training.trainer import Job, Trainer

pytestmark = pytest.mark.usefixtures("undrawn")

CLASSES = ("Hop", "Lunge", "Squat")
FAST = {"epochs": 40, "patience": 40, "learning_rate": 0.05}


def toy(path, *, n=60, t=4, d=6, noise=0.3, seed=0, labels=None):
    """Write features of three classes whose means lie 2 apart; ten groups, each with clips of all classes."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 3
    values = rng.normal(0, noise, (n, t, d)) + 2 * np.eye(3, d)[truth][:, None]
    names = [CLASSES[k] for k in truth] if labels is None else labels
    with h5py.File(path, "w") as file:
        file["features"] = values.astype(np.float16)
        file["clip_id"] = np.array([f"{CLASSES[k]}/{i}.avi".encode() for i, k in enumerate(truth)])
        file["label"] = np.array([name.encode() for name in names])
        file["group"] = np.array([f"g{i // 6}".encode() for i in range(n)])
    return path


@pytest.fixture
def features(tmp_path):
    return toy(tmp_path / "toy.h5")


def weights_of(folder):
    return safetensors.torch.load_file(folder / "head.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def run_of(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize("variant", ["mean", "resnet50-lstm-attention", "efficientnet-lstm-attention", "vit-lstm"])
def test_separable_classes_are_learned(tmp_path, features, variant):
    report = train_head(out=tmp_path / "run", features=features, variant=variant, **FAST)
    run = report.runs[0]
    assert run.metrics.accuracy == 1.0
    assert (run.n_train, run.n_val, run.n_test) == (36, 12, 12)
    assert run.split == "group"


def moving_poses():
    """Return clips of two classes, with the same means: in one of them the first five values move."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(80, 1, POSE_DIM)).repeat(6, axis=1)
    values[40:, ::2, :5] += 1
    values[40:, 1::2, :5] -= 1
    given = {"labels": ["Hold"] * 40 + ["Move"] * 40, "clip_ids": [f"{i}.mp4" for i in range(80)]}
    identity = {
        "backbone": "blazepose_full",
        "preprocessing": {"preset": "native", "output": POSE},
        "precision": "fp32",
    }
    sources = [{"kind": "features", "identity": identity | {"frames": {"samples": 6, "short_side": 36}}, "origin": {}}]
    return Features(values=values.astype(np.float32), **given), sources


@pytest.mark.parametrize("images", [0, 7])
def test_an_exercise_is_known_by_what_moves_in_poses(tmp_path, images):
    clips, sources = moving_poses()
    values = np.concatenate([np.ones((80, 6, images), np.float32), clips.values], axis=2)
    settings = {"variant": "mean", "split": "random"}
    plain = train_head(out=tmp_path / "plain", features=replace(clips, values=values), **settings)
    poses = train_head(out=tmp_path / "poses", features=replace(clips, values=values, sources=sources), **settings)
    assert plain.accuracies[0] <= 0.75  # a mean over time is the same in both classes
    assert poses.accuracies == [1.0]
    heads = [run_of(tmp_path / name)["head"] for name in ("plain", "poses")]
    assert ["pose_dim" in head for head in heads] == [False, True]  # as in runs of earlier versions
    head = read_run(tmp_path / "poses").head
    with torch.inference_mode():
        logits, _ = head(torch.from_numpy(values[:3]))
    assert logits.argmax(dim=1).tolist() == [0, 0, 0]  # also when a stored head is read


def test_a_search_and_the_recipe_without_normalisation_take_poses_too(tmp_path):
    clips, sources = moving_poses()
    data = replace(clips, sources=sources)
    problem, plain = (
        Problem.of(each, variant="mean", split=["random"], seed=[0], epochs=40)
        for each in (data, replace(clips, name=data.name))
    )
    assert problem.name != plain.name  # trials of earlier versions are not taken up
    assert accuracy(problem.judge(get_recipe("native"), None, [0])) == 1.0
    train_head(out=tmp_path / "run", features=data, variant="mean", split="random", recipe="paper", epochs=2)
    assert "pose_dim" not in run_of(tmp_path / "run")["head"]


def test_clips_in_memory_are_trained_on_as_those_of_a_file(tmp_path, features):
    data = read_pack(features)
    train_head(out=tmp_path / "file", features=features, variant="mean", epochs=2)
    train_head(out=tmp_path / "memory", features=data, variant="mean", epochs=2)
    assert same(weights_of(tmp_path / "file"), weights_of(tmp_path / "memory"))
    assert run_of(tmp_path / "file") == run_of(tmp_path / "memory")
    train_head(out=tmp_path / "mixed", features=data.take(np.arange(60)[::-1]), variant="mean", epochs=2)
    assert same(weights_of(tmp_path / "file"), weights_of(tmp_path / "mixed"))
    assert run_of(tmp_path / "file") == run_of(tmp_path / "mixed")
    told = {"values": data.values, "clip_ids": data.clip_ids, "labels": data.labels}
    least = train_head(out=tmp_path / "least", features=Features(**told), variant="mean", epochs=2)
    assert (least.runs[0].n_test, least.runs[0].backbone) == (12, "features")
    bare = train_head(out=tmp_path / "bare", features=replace(data, name=""), variant="mean", epochs=2)
    assert bare.runs[0].backbone == "features"
    with pytest.raises(UsageError, match="leave --backbone and --preset out"):
        train_head(out=tmp_path / "both", features=data, variant="mean", backbone=["net"])
    with pytest.raises(UsageError, match=r"lrcn learns from frames .*: got values of shape \(60, 4, 6\)"):
        train_head(out=tmp_path / "other", features=data, variant="lrcn")


def test_labels_without_meaning_are_not_learned(tmp_path):
    names = np.random.default_rng(1).permutation([CLASSES[i % 3] for i in range(60)]).tolist()
    path = toy(tmp_path / "toy.h5", labels=names)
    report = train_head(out=tmp_path / "run", features=path, variant="mean", split="random", **FAST)
    assert report.runs[0].metrics.accuracy < 0.8


@pytest.mark.parametrize("variant", ["mean", "resnet50-lstm-attention"])
def test_a_seed_gives_the_same_bits_and_another_seed_others(tmp_path, features, variant):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.manual_seed(ord(name))  # what the caller's generator is at does not matter
        train_head(out=tmp_path / name, features=features, variant=variant, seed=[seed], split="random", epochs=3)
    assert same(weights_of(tmp_path / "a"), weights_of(tmp_path / "b"))
    a, b = (metrics_of(tmp_path / n) for n in "ab")
    assert a["history"] == b["history"]
    assert not same(weights_of(tmp_path / "a"), weights_of(tmp_path / "c"))


def test_seeds_of_one_split_begin_each_with_its_own_values(tmp_path, features):
    train_head(out=tmp_path, features=features, variant="mean", seed=[0, 1], split_seed=0, epochs=1)
    assert not same(*(weights_of(tmp_path / f"seed-{seed}") for seed in (0, 1)))


def test_a_device_that_cannot_promise_the_same_bits_is_named(tmp_path, features):
    report = train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1)
    assert not any("same seed" in note for note in report.notes)
    assert (
        "trained on cuda:1: there the same seed may give other" in train_notes.device_notes(torch.device("cuda:1"))[0]
    )
    with pytest.raises(UsageError, match="expected auto, cpu, cuda, cuda:N or mps"):
        train_head(out=tmp_path / "other", features=features, variant="mean", device="meta")
    assert not (tmp_path / "other").exists()


def test_training_leaves_the_callers_random_numbers_alone(tmp_path, features):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_head(out=tmp_path / "run", features=features, variant="mean", epochs=2)
    assert torch.equal(torch.rand(3), expected)


def test_the_best_epochs_weights_are_kept(tmp_path):
    path = toy(tmp_path / "toy.h5", noise=3.0)
    settings = {"epochs": 40, "patience": 6, "learning_rate": 0.05, "settings": ["keep=best", "refit=false"]}
    train_head(out=tmp_path / "run", features=path, variant="resnet50-lstm-attention", **settings)
    run, metrics = json.loads((tmp_path / "run" / "run.json").read_text()), metrics_of(tmp_path / "run")
    losses = [e["val_loss"] for e in metrics["history"]]
    best = int(np.argmin(losses))
    assert metrics["best_epoch"] == best + 1
    assert len(losses) == best + 1 + 6 < 40  # patience was what ended it, and the best is not the last
    head = build_head(HeadConfig.from_dict(run["head"]))
    head.load_state_dict(weights_of(tmp_path / "run"))
    with h5py.File(path) as file:
        ids = [i.decode() for i in file["clip_id"][()]]
        rows = [ids.index(i) for i in run["split"]["val"]]
        x = torch.from_numpy(file["features"][()][rows]).float()
        y = torch.tensor([run["labels"].index(file["label"][i].decode()) for i in rows])
    with torch.inference_mode():
        loss = F.cross_entropy(head.eval()(x)[0], y)
    assert float(loss) == pytest.approx(min(losses), rel=1e-5)


def test_of_epochs_that_are_equally_good_the_first_is_kept(tmp_path, features):
    """So small a step changes no weight; then there is nothing to wait for."""
    settings = {"epochs": 20, "patience": 3, "learning_rate": 1e-30, "settings": ["keep=best", "refit=false"]}
    (run,) = train_head(out=tmp_path / "run", features=features, variant="mean", **settings).runs
    assert (run.best_epoch, run.epochs) == (1, 4)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_learning_rate_follows_torchs_schedule_by_epochs(features, monkeypatch, schedule):
    rates, steps = [], AdamW.step

    def step(self, learning_rate):
        rates.append(learning_rate)
        return steps(self, learning_rate)

    monkeypatch.setattr(AdamW, "step", step)
    recipe = get_recipe("native").change(epochs=7, batch_size=60, learning_rate=0.02, schedule=schedule, refit=False)
    fit_once(features, "mean", recipe, None)
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=0.02)
    if schedule == "cosine":
        follow = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=7)
    else:
        follow = torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1)
    expected = []
    for _ in range(7):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        follow.step()
    assert rates == pytest.approx(expected)


def test_a_setting_without_effect_is_named_and_makes_no_other_model(tmp_path, features):
    idle = ["bidirectional=true", "pooling=average", "normalise=standard", "components=7"]
    train_head(out=tmp_path / "a", features=features, variant="mean", epochs=2, settings=["normalise=standard"])
    made = train_head(
        out=tmp_path / "b", features=features, variant="mean", epochs=2, patience=5, settings=idle, seed=[1]
    )
    assert [note for note in made.notes if "changes nothing" in note] == [
        "patience changes nothing with keep=last: left out",
        "bidirectional changes nothing for variant mean: left out",
        "pooling changes nothing for variant mean: left out",
        "components changes nothing with normalise=standard: left out",
    ]
    assert len(compare([tmp_path / "a", tmp_path / "b"]).models) == 1
    made = train_head(out=tmp_path / "c", features=features, variant="vit-lstm", epochs=1, settings=["pooling=average"])
    assert "pooling changes nothing without additive attention: left out" in made.notes


def test_what_changes_nothing_trains_the_same_bits(tmp_path, features):
    """Each setting that is said to change nothing is tried by itself."""
    changed = {"patience": 3, "components": 9, "pooling": "average", "differences": True, "bidirectional": True}
    changed |= {"skip_mean": False, "dropout": 0.9, "clips_per_component": 7.0}
    for variant, attention in (("mean", None), ("vit-lstm", "dot")):
        base = get_recipe("native").change(normalise="standard", components=6, epochs=2)
        for name in base.idle(variant, attention):
            heads = [
                fit_once(features, variant, recipe, attention)
                for recipe in (base, base.change(**{name: changed[name]}))
            ]
            assert same(*heads), (variant, name)


@pytest.mark.parametrize(("settings", "epochs"), [(["steps=60"], 30), (["steps=1000"], 500), (["steps=4"], 2), ([], 2)])
def test_steps_beside_given_epochs_count(tmp_path, features, settings, epochs):
    """36 training clips are two steps an epoch; epochs that are given ask for no steps."""
    made = train_head(out=tmp_path / "run", features=features, variant="mean", epochs=2, settings=settings)
    assert made.runs[0].epochs == epochs


def fit_once(features, variant, recipe, attention):
    data = read_pack(features)
    names = sorted(set(data.labels))
    targets = np.array([names.index(label) for label in data.labels])
    side = Side(values=data.values, targets=targets, clips=np.arange(len(targets)))
    config = recipe.head_config(variant, data.values.shape, n_classes=len(names), n_train=10_000, attention=attention)
    fitted = fit(side, side, config=config, recipe=with_precision(recipe, "cpu", variant), seed=0)
    return fitted.head.state_dict()


def taught(path, folder, sides, **changes):
    """Weights that a run's head has after training on the clips of some of its sides together."""
    run = run_of(folder)
    with h5py.File(path) as file:
        ids, labels = ([v.decode() for v in file[name][()]] for name in ("clip_id", "label"))
        values = file["features"][()]
    rows = np.array([ids.index(i) for side in sides for i in run["split"][side]])
    side = Side(values=values, targets=np.array([run["labels"].index(label) for label in labels]), clips=rows)
    recipe = get_recipe("native").change(refit=False, **changes)
    return fit(side, side, config=HeadConfig.from_dict(run["head"]), recipe=recipe, seed=0).head.state_dict()


def test_a_setting_given_twice_is_refused(tmp_path, features):
    with pytest.raises(UsageError, match="epochs is given twice"):
        train_head(out=tmp_path / "run", features=features, variant="mean", epochs=5, settings=["epochs=7"])


def test_the_last_epochs_weights_are_kept_if_asked(tmp_path, features):
    report = train_head(out=tmp_path / "run", features=features, variant="mean", settings=["keep=last"], patience=1)
    result = report.runs[0]
    assert result.best_epoch == result.epochs == len(metrics_of(tmp_path / "run")["history"]) > 2


def test_refitting_is_training_on_both_sides_and_leaves_validation_to_the_first_head(tmp_path, features):
    common = {"features": features, "variant": "resnet50-lstm-attention", "epochs": 4}
    train_head(out=tmp_path / "once", settings=["refit=false"], **common)
    train_head(out=tmp_path / "again", settings=["refit=true"], **common)
    once, again = (safetensors.torch.load_file(tmp_path / n / "logits.safetensors") for n in ("once", "again"))
    assert torch.equal(once["val_logits"], again["val_logits"])
    assert not torch.equal(once["test_logits"], again["test_logits"])
    calibrations = [json.loads((tmp_path / n / "run.json").read_text())["calibration"] for n in ("once", "again")]
    assert calibrations[0] == calibrations[1]

    by_hand = taught(features, tmp_path / "again", ("train", "val"), epochs=4)
    assert same(weights_of(tmp_path / "again"), by_hand)


def test_the_final_head_learns_from_all_clips_and_changes_no_figure(tmp_path, features):
    common = {"features": features, "variant": "resnet50-lstm-attention", "epochs": 3}
    train_head(out=tmp_path / "tested", **common)
    report = train_head(out=tmp_path / "run", final=True, **common)
    assert any("heads trained on all 60 clips" in note for note in report.notes)
    assert same(weights_of(tmp_path / "tested"), weights_of(tmp_path / "run"))
    one, other = (metrics_of(tmp_path / n) for n in ("tested", "run"))
    assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}

    sides = ("train", "val", "test")
    assert sum(len(run_of(tmp_path / "run")["split"][side]) for side in sides) == 60
    by_hand = taught(features, tmp_path / "run", sides, epochs=3)
    assert same(read_run(tmp_path / "run").head.state_dict(), by_hand)
    assert same(read_run(tmp_path / "tested").head.state_dict(), weights_of(tmp_path / "tested"))


def test_a_final_head_belongs_to_its_run(tmp_path, features):
    common = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1}
    train_head(final=True, **common)
    made = (tmp_path / "run" / "final.safetensors").stat().st_mtime_ns
    assert any("kept" in note for note in train_head(final=True, **common).notes)
    assert (tmp_path / "run" / "final.safetensors").stat().st_mtime_ns == made
    assert any("kept" in note for note in train_head(**common).notes)  # the tested head is the same
    assert (tmp_path / "run" / "final.safetensors").exists()
    (tmp_path / "run" / "final.safetensors").unlink()
    with pytest.raises(StoreCorrupt, match=r"final\.safetensors"):
        read_run(tmp_path / "run")
    train_head(final=True, **common)  # a run that lacks a file is made again
    assert same(
        read_run(tmp_path / "run").head.state_dict(),
        safetensors.torch.load_file(tmp_path / "run" / "final.safetensors"),
    )
    train_head(**common, overwrite=True)
    assert not (tmp_path / "run" / "final.safetensors").exists()
    assert same(read_run(tmp_path / "run").head.state_dict(), weights_of(tmp_path / "run"))
    with pytest.raises(UsageError, match="give one split"):
        train_head(out=tmp_path / "folds", features=features, variant="mean", split="kfold:2", final=True, **FAST)


def test_to_add_final_heads_nothing_is_trained_or_written_again(tmp_path, features, monkeypatch):
    """With another number of threads the tested heads would be others."""
    common = {"out": tmp_path / "run", "features": features, "variant": "vit-lstm", "epochs": 2, "seed": [0, 1]}
    train_head(**common)
    train_head(**common | {"out": tmp_path / "other"}, final=True)
    files = [p for p in (tmp_path / "run").glob("seed-*/*") if p.name != "run.json"]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    with monkeypatch.context() as patch:
        patch.setattr("fitrec_cache.training.trainer.fit", lambda *_, **__: pytest.fail("trained again"))
        report = train_head(**common, final=True)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == before
    assert "2 of 2 runs were there already, made by the same settings: kept" in report.notes
    for seed in (0, 1):
        one, other = (tmp_path / name / f"seed-{seed}" / "final.safetensors" for name in ("run", "other"))
        assert one.read_bytes() == other.read_bytes()
    path = tmp_path / "run" / "seed-1" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"final": False}))
    with pytest.raises(UsageError, match=r"not all seeds have their final head yet: run the same train-head --final"):
        read_runs(tmp_path / "run")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_another_call_made_otherwise_meanwhile_is_not_replaced(tmp_path, features, monkeypatch, overwrite):
    common = {"out": tmp_path / "run", "features": features, "variant": "mean"}

    def other_call_first(*args, **settings):
        monkeypatch.setattr("fitrec_cache.training.trainer.fit", fit)
        train_head(**common, epochs=1)
        return fit(*args, **settings)

    monkeypatch.setattr("fitrec_cache.training.trainer.fit", other_call_first)
    if overwrite:
        train_head(**common, epochs=2, overwrite=True)
    else:
        with pytest.raises(UsageError, match=r"already holds a run made with other settings \(epochs\)"):
            train_head(**common, epochs=2)
    assert metrics_of(tmp_path / "run")["epochs"] == 1 + overwrite


def test_a_final_head_is_not_added_to_a_run_that_another_call_made_otherwise_meanwhile(tmp_path, features, monkeypatch):
    common = {"out": tmp_path / "run", "features": features, "variant": "mean"}
    train_head(**common, epochs=2)

    def other_call_first(*args, **settings):
        train_head(**common, epochs=1, overwrite=True)
        return fit_again(*args, **settings)

    monkeypatch.setattr("fitrec_cache.training.trainer.fit_again", other_call_first)
    with pytest.raises(UsageError, match=r"already holds a run made with other settings \(epochs\)"):
        train_head(**common, epochs=2, final=True)
    assert not (tmp_path / "run" / "final.safetensors").exists()


def test_what_was_put_into_the_folder_meanwhile_does_not_cost_the_training(tmp_path, features, monkeypatch):
    def looked_at_meanwhile(*args, **settings):
        (tmp_path / "run" / ".DS_Store").touch()
        return fit(*args, **settings)

    monkeypatch.setattr("fitrec_cache.training.trainer.fit", looked_at_meanwhile)
    train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1)
    read_run(tmp_path / "run")


@pytest.mark.parametrize("final", [False, True])
def test_files_of_two_runs_that_were_copied_over_each_other_are_refused_and_made_again(tmp_path, features, final):
    common = {"features": features, "variant": "mean", "epochs": 1, "split_seed": 0, "seed": [0, 1], "final": final}
    train_head(out=tmp_path / "runs", **common)
    first, second = tmp_path / "runs" / "seed-0", tmp_path / "runs" / "seed-1"
    for name in ("head.safetensors", "logits.safetensors", *["final.safetensors"] * final):
        whole = (first / name).read_bytes()
        shutil.copy(second / name, first / name)
        readers = {"logits.safetensors": compare, "head.safetensors": None if final else read_runs}
        if (read := readers.get(name, read_runs)) is not None:
            with pytest.raises(StoreCorrupt, match=f"{name} is damaged or of another run.*Copy the whole run folder"):
                read([tmp_path / "runs"] if read is compare else tmp_path / "runs")
        notes = train_head(out=tmp_path / "runs", **common).notes
        assert f"1 of 2 runs had missing or damaged files, such as {first}: trained again" in notes
        assert (first / name).read_bytes() == whole


def test_a_final_head_that_is_added_later_is_told_from_others_too(tmp_path, features):
    common = {"features": features, "variant": "mean", "epochs": 1, "split_seed": 0, "seed": [0, 1]}
    train_head(out=tmp_path / "runs", **common)
    train_head(out=tmp_path / "runs", **common, final=True)
    shutil.copy(tmp_path / "runs" / "seed-1" / "final.safetensors", tmp_path / "runs" / "seed-0")
    with pytest.raises(StoreCorrupt, match=r"final\.safetensors is damaged or of another run"):
        read_runs(tmp_path / "runs")


def test_the_figures_of_a_run_that_is_there_are_those_of_its_answers(tmp_path, features):
    """Nothing seals metrics.json: it may be another run's, or say anything."""
    common = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1, "unknown": [CLASSES[2]]}
    first = train_head(**common).runs[0]
    forged = metrics_of(tmp_path / "run") | {"variant": "mean: accuracy 100%", "accuracy": 1.0, "accuracy_ci95": [1, 1]}
    for part in ("calibration", "unknown"):
        forged[part] = dict.fromkeys(forged[part], 0.99)
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(forged))
    report = train_head(**common)
    assert any("kept" in note for note in report.notes)
    (again,) = report.runs
    assert again.to_dict() == first.to_dict()
    assert again.metrics.to_dict() == first.metrics.to_dict()
    assert again.calibration == first.calibration
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(forged | {"epochs": "1\naccuracy 100%"}))
    assert any("trained again" in note for note in train_head(**common).notes)


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "head.safetensors", "logits.safetensors"])
def test_a_pipe_in_a_run_keeps_nobody_waiting(tmp_path, features, name):
    common = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1}
    train_head(**common)
    (tmp_path / "run" / name).unlink()
    os.mkfifo(tmp_path / "run" / name)
    with pytest.raises(StoreError, match=f"{name} cannot be read.*not a file"):
        train_head(**common)


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "head.safetensors", "logits.safetensors"])
def test_a_file_of_a_run_that_the_system_cannot_read_is_not_called_damaged(tmp_path, features, name, monkeypatch):
    common = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1}
    train_head(**common)
    read = run_files.read_file

    def locked(path):
        if path.name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(run_files, "read_file", locked)
    with pytest.raises(StoreError, match=rf"{name} cannot be read: Permission denied") as error:
        train_head(**common)
    assert not isinstance(error.value, StoreCorrupt)


def test_a_damaged_run_is_made_again(tmp_path, features):
    common = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1}
    train_head(**common)
    for name in ("head.safetensors", "logits.safetensors", "metrics.json"):
        path = tmp_path / "run" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:50] if name != "metrics.json" else b"{}")
        notes = train_head(**common).notes
        assert f"1 of 1 runs had missing or damaged files, such as {tmp_path / 'run'}: trained again" in notes
        assert not any("kept" in note for note in notes)
        assert path.stat().st_size == pytest.approx(len(whole), rel=0.02)  # metrics.json has the seconds
    for text, what in (("{", "JSONDecodeError .*"), ("[]", "ValueError it has no JSON object")):
        (tmp_path / "run" / "run.json").write_text(text)
        advice = r"\. Train the head again\. Add --overwrite to train, or remove "
        with pytest.raises(StoreCorrupt, match=rf"run\.json is damaged: {what}{advice}"):
            train_head(**common)
    assert train_head(**common, overwrite=True).runs


def test_what_was_taken_for_what_is_told_over_all_runs(tmp_path, features):
    report = train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1)
    counts = [[[5, 1, 0], [4, 0, 2], [0, 0, 3]], [[6, 0, 0], [3, 0, 0], [1, 0, 2]]]  # rows: Hop, Lunge, Squat
    runs = [
        replace(report.runs[0], metrics=replace(report.runs[0].metrics, confusion=np.array(matrix)))
        for matrix in counts
    ]
    lines = train_text(replace(report, runs=tuple(runs))).splitlines()
    joint = report.runs[0].answers | {"false_alarms": 0.0}
    a, b, c = CLASSES
    said = f"most often mistaken: {b} taken for {a} (7 of 9), {b} taken for {c} (2 of 9), {a} taken for {b} (1 of 12)"
    assert said in lines
    assert f"never right: {b} (0 of 9)" in lines
    right = replace(report.runs[0], metrics=replace(report.runs[0].metrics, confusion=np.diag([2, 1, 3])))
    said = train_text(replace(report, runs=(right,)))
    assert "mistaken" not in said
    assert "never right" not in said
    said = train_text(replace(report, runs=tuple(runs), ensemble=joint)).splitlines()
    assert f"never right, by 2 seeds one by one: {b} (0 of 9)" in said


def test_what_folds_and_seeds_reach_together_is_told():
    pooled = tuple(
        {"folds": 4, "seed": seed, "accuracy": right, "accuracy_ci95": (0.4, 0.6), "n": 60, "f1_macro": 0.25}
        for seed, right in enumerate((0.5, 0.7))
    )
    together = {"accuracy": 0.8, "n": 20, "accuracy_ci95": (0.584, 0.919), "f1_macro": 0.1}
    together |= {"ece": 0.11, "ece_expected": 0.2, "false_alarms": 0.3}
    together |= {"detected": 0.9, "n_unknown": 8, "auroc": 0.75}
    settings = {"final": False, "leaks": False, "wrong": (), "notes": (), "stages": {}}
    report = TrainReport(runs=(), pooled=pooled, ensemble=together, **settings)
    assert train_text(report).splitlines() == [
        "all 4 folds, seed 0: accuracy 50.0% of 60 clips (95 % interval 40.0% to 60.0%), macro F1 25.0%",
        "all 4 folds, seed 1: accuracy 70.0% of 60 clips (95 % interval 40.0% to 60.0%), macro F1 25.0%",
        "mean of 2 seeds: accuracy 60.0%, standard deviation 14.1%",
        "all seeds together, as predict answers: accuracy 80.0% of 20 clips (95 % interval 58.4% to 91.9%), macro F1 "
        "10.0%, probabilities off by 11.0% (calibration error; by chance alone some 20.0%), 30.0% of the test clips "
        "answered 'unknown'",
        "  unknown classes: 90.0% of 8 clips; AUROC 0.750",
    ]


def test_the_mean_accuracy_of_seeds_that_test_more_or_fewer_clips_is_of_all_tests():
    pooled = ({"accuracy": 0.5, "n": 10}, {"accuracy": 1.0, "n": 30})
    report = TrainReport(runs=(), pooled=pooled, ensemble={}, final=False, leaks=False, wrong=(), notes=(), stages={})
    assert report.to_dict()["accuracy_mean"] == 35 / 40


def test_a_damaged_run_that_had_a_final_head_gets_one_again(tmp_path, features):
    """Also by a call that does not ask for one: predict would answer by another head else, and nothing would say so."""
    common = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1, "seed": [0, 1]}
    train_head(final=True, **common)
    head = (tmp_path / "run" / "seed-1" / "final.safetensors").read_bytes()
    (tmp_path / "run" / "seed-1" / "curves.png").unlink()
    (tmp_path / "run" / "seed-1" / "final.safetensors").unlink()
    assert any("1 of 2 runs had missing or damaged files" in note for note in train_head(**common).notes)
    assert (tmp_path / "run" / "seed-1" / "final.safetensors").read_bytes() == head
    assert all(one.run_json["final"] for one in read_runs(tmp_path / "run"))


def test_what_is_known_of_a_split_is_told_before_training(tmp_path, features, monkeypatch):
    events = []
    run_all = Trainer.run_all
    monkeypatch.setattr(Trainer, "run_all", lambda *args: (events.append("trained"), run_all(*args))[1])
    report = train_head(out=tmp_path / "run", features=features, variant="mean", tell=events.append, epochs=1)
    first = events.index("trained")
    assert any("near-duplicate" in note for note in events[:first])
    assert any("rejecting only 5% of known clips" in note for note in events[first:])
    assert [event for event in events if event != "trained"] == list(report.notes)


def test_groups_are_proposed_only_where_some_are_unknown(tmp_path, features):
    cache = tmp_path / "my cache"
    given = {"cache": cache, "split": "random", "groups": ["a", "b"], "backbone": []}
    given |= {"classes": None, "preset": None, "split_seed": None}
    proposes = module._how_to_look(7, **given | {"groups": ["a", None], "backbone": ["a", "b"]})
    assert proposes.startswith(f"`fitrec-cache audit --cache '{cache}' --manifest groups.csv` proposes groups")
    shows = module._how_to_look(7, **given | {"classes": "fitness35", "backbone": ["net"], "preset": "grid"})
    assert shows.startswith(
        f"`fitrec-cache audit --cache '{cache}' --backbone net --preset grid --split random --classes fitness35 "
        "--seed 7 --out audit` shows which"
    )
    shows = module._how_to_look(7, **given | {"split_seed": 0})  # the split's seed counts
    assert shows.startswith(f"`fitrec-cache audit --cache '{cache}' --split random --out audit` shows which")
    with h5py.File(features, "r+") as file:
        file["features"][30:] = file["features"][:30]  # a copy of each clip, in another group
    notes = " ".join(
        train_head(out=tmp_path / "run", features=features, variant="mean", split="random", epochs=1).notes
    )
    assert "have a near-duplicate" in notes
    assert "audit" not in notes  # there is no cache to look into


def test_what_a_killed_writer_left_beside_a_head_is_no_model(tmp_path, features):
    train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1, seed=[0, 1], split_seed=0)
    left = tmp_path / "run" / "seed-0" / f"{TEMPORARY}1-folder"
    shutil.copytree(tmp_path / "run" / "seed-1", left)
    assert [run.run_json["seed"] for run in read_runs(tmp_path / "run")] == [0, 1]


def test_a_folder_of_several_models_is_not_answered_by_one_of_them(tmp_path, features):
    common = {"features": features, "variant": "mean", "epochs": 1}
    train_head(out=tmp_path / "runs" / "lstm", seed=[0, 1], **common)
    train_head(out=tmp_path / "runs" / "trial", **common)
    with pytest.raises(UsageError, match=r"runs holds runs of several models, trial, lstm: name one"):
        read_runs(tmp_path / "runs")
    assert len(read_runs(tmp_path / "runs" / "lstm")) == 2


def test_seeds_of_two_split_rules_do_not_answer_together(tmp_path, features):
    common = {"features": features, "variant": "mean", "epochs": 1}
    train_head(out=tmp_path / "runs" / "seed-0", split="random", seed=[0], **common)
    train_head(out=tmp_path / "runs" / "seed-1", split="group", seed=[1], **common)
    with pytest.raises(UsageError, match="holds runs of different split"):
        read_runs(tmp_path / "runs")


def test_only_runs_of_one_model_answer_together(tmp_path, features):
    train_head(out=tmp_path / "runs", features=features, variant="mean", epochs=1, seed=[0, 1])
    path = tmp_path / "runs" / "seed-1" / "run.json"
    good = json.loads(path.read_text())
    for changed, said in (
        ({"recipe": "paper"}, "recipe"),
        ({"training": good["training"] | {"epochs": 9, "dropout": 0.9}}, "epochs, dropout"),
        ({"labels": ["x", *good["labels"][1:]]}, "labels"),
        ({"data_sha256": "x"}, "data"),
    ):
        path.write_text(json.dumps(good | changed))
        with pytest.raises(UsageError, match=f"runs holds runs of different {said}: expected seeds of one call"):
            read_runs(tmp_path / "runs")
    path.write_text(json.dumps({name: value for name, value in good.items() if name != "training"}))
    with pytest.raises(StoreCorrupt, match="KeyError 'training'"):
        read_runs(tmp_path / "runs")
    path.write_text(json.dumps(good | {"training": good["training"] | {"device": "cuda"}}))  # changes last bits only
    assert len(read_runs(tmp_path / "runs")) == 2


def test_a_run_of_before_final_heads_is_kept(tmp_path, features):
    train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    del run["final"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(run))
    again = train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1)
    assert any("kept" in note for note in again.notes)


def test_a_final_head_is_added_to_runs_of_before_and_seeds_still_answer_together(tmp_path, features):
    common = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1}
    train_head(**common, seed=[0, 1])
    tested = weights_of(tmp_path / "run" / "seed-0")
    run = run_of(tmp_path / "run" / "seed-0")
    del run["final"]
    (tmp_path / "run" / "seed-0" / "run.json").write_text(json.dumps(run))
    train_head(**common, seed=[0, 1, 2])
    assert len(read_runs(tmp_path / "run")) == 3
    train_head(**common, seed=[0, 1, 2], final=True)
    assert same(weights_of(tmp_path / "run" / "seed-0"), tested)
    assert all((tmp_path / "run" / f"seed-{s}" / "final.safetensors").exists() for s in (0, 1, 2))
    assert len(read_runs(tmp_path / "run")) == 3
    assert len(compare([tmp_path]).models) == 1


def test_what_the_test_labels_are_changes_no_weight_and_no_temperature(tmp_path, features):
    train_head(out=tmp_path / "a", features=features, variant="mean", epochs=1)
    tested = set(json.loads((tmp_path / "a" / "run.json").read_text())["split"]["test"])
    lists = {}
    with h5py.File(features, "r+") as file:
        ids = [i.decode() for i in file["clip_id"][()]]
        for name, keep in (("train.txt", lambda i: i not in tested), ("test.txt", lambda i: i in tested)):
            lists[name] = tmp_path / name
            lists[name].write_text("".join(f"{i}\n" for i in ids if keep(i)))
    split = f"list:{lists['train.txt']},{lists['test.txt']}"
    train_head(out=tmp_path / "b", features=features, variant="mean", split=split, **FAST)
    with h5py.File(features, "r+") as file:
        rows = [k for k, i in enumerate(ids) if i in tested]
        file["label"][rows] = np.roll(file["label"][()][rows], 1)
        values = file["features"][()]
        values[rows] = values[rows][::-1] * 3
        file["features"][...] = values
    train_head(out=tmp_path / "c", features=features, variant="mean", split=split, **FAST)
    assert same(weights_of(tmp_path / "b"), weights_of(tmp_path / "c"))
    assert run_of(tmp_path / "b")["calibration"] == run_of(tmp_path / "c")["calibration"]
    b, c = (safetensors.torch.load_file(tmp_path / name / "logits.safetensors") for name in "bc")
    assert torch.equal(b["val_logits"], c["val_logits"])
    assert metrics_of(tmp_path / "b")["history"] == metrics_of(tmp_path / "c")["history"]
    assert metrics_of(tmp_path / "b")["confusion"] != metrics_of(tmp_path / "c")["confusion"]


def test_the_order_of_clips_in_the_file_changes_no_split(tmp_path, features):
    train_head(out=tmp_path / "a", features=features, variant="mean", epochs=1)
    with h5py.File(features, "r+") as file:
        for name in ("features", "clip_id", "label", "group"):
            file[name][...] = file[name][()][::-1]
    train_head(out=tmp_path / "b", features=features, variant="mean", epochs=1)
    a, b = (json.loads((tmp_path / n / "run.json").read_text())["split"] for n in "ab")
    assert {k: sorted(a[k]) for k in ("train", "val", "test")} == {k: sorted(b[k]) for k in ("train", "val", "test")}


@pytest.mark.parametrize("classes", [10, 11])
def test_the_text_says_what_guessing_gives_and_top_5_of_many_classes_only(tmp_path, classes):
    few = toy(tmp_path / "few.h5", n=90, labels=[f"class{i % classes:02d}" for i in range(90)])
    report = train_head(out=tmp_path / "run", features=few, variant="mean", split="random", epochs=1)
    truth = safetensors.torch.load_file(tmp_path / "run" / "logits.safetensors")["test_targets"]
    most = torch.bincount(truth).max().item() / len(truth)
    said = train_text(report)
    assert re.search(rf"accuracy [0-9.]+% of {len(truth)} clips \(95 % interval .*; guessing {most:.1%}\), ", said)
    assert ("top-5" in said) == (classes == 11)


def test_a_run_folder_holds_what_it_promises(tmp_path, features, monkeypatch):
    monkeypatch.setattr(run_pictures, "save_png", png.save_png)  # its pictures are drawn
    train_head(out=tmp_path / "run", features=features, variant="vit-lstm", epochs=2, seed=[7])
    names = {p.name for p in (tmp_path / "run").iterdir()}
    files = {"head.safetensors", "logits.safetensors", "run.json", "metrics.json", "curves.png", "confusion.png"}
    files |= {"answers.csv"}
    assert names == files
    assert all((tmp_path / "run" / n).read_bytes()[:4] == b"\x89PNG" for n in names if n.endswith("png"))
    run, metrics = json.loads((tmp_path / "run" / "run.json").read_text()), metrics_of(tmp_path / "run")
    assert run["labels"] == metrics["labels"] == sorted(CLASSES)
    assert run["seed"] == 7
    sides = [run["split"][s] for s in ("train", "val", "test")]
    assert sorted(i for side in sides for i in side) == sorted(f"{CLASSES[i % 3]}/{i}.avi" for i in range(60))
    assert len(metrics["history"]) == 2
    assert metrics["accuracy"] == sum(metrics["confusion"][k][k] for k in range(3)) / metrics["n_test"]


def test_every_answer_of_every_run_is_in_a_table(tmp_path, features):
    settings = {"features": features, "variant": "mean", "split": "kfold:3", "seed": [0, 1], "epochs": 2}
    out = tmp_path / "runs"
    report = train_head(out=out, false_alarm_rate=0.4, **settings)
    rows = list(csv.DictReader((out / "answers.csv").read_text().splitlines()))
    assert len(rows) == 120  # 60 clips, each tested once a seed
    assert list(rows[0])[:5] == ["fold", "seed", "clip_id", "group", "label"]
    for run in report.runs:
        written = json.loads((run.out / "run.json").read_text())
        mine = [row for row in rows if (row["fold"], row["seed"]) == (run.fold, str(run.seed))]
        assert [row["clip_id"] for row in mine] == written["split"]["test"]
        right = [row["nearest"] == row["label"] == row["clip_id"].split("/")[0] for row in mine]
        assert sum(right) / len(mine) == pytest.approx(run.metrics.accuracy)
        logits = safetensors.torch.load_file(run.out / "logits.safetensors")["test_logits"].double()
        expected = (logits / written["calibration"]["temperature"]).softmax(dim=1)
        got = [[float(row[f"p_{label}"]) for label in written["labels"]] for row in mine]
        assert torch.allclose(torch.tensor(got, dtype=torch.float64), expected, atol=6e-7, rtol=0)  # for top-5 accuracy
        assert [float(row["probability"]) for row in mine] == [max(row) for row in got]
        sure = expected.amax(dim=1) >= written["calibration"]["threshold"]
        assert [bool(row["answer"]) for row in mine] == sure.tolist()
        assert run.unknown["false_alarms"] == pytest.approx(1 - float(sure.double().mean()))
    (out / "answers.csv").unlink()  # as of runs made before there was one
    train_head(out=out, false_alarm_rate=0.4, **settings)
    assert list(csv.DictReader((out / "answers.csv").read_text().splitlines())) == rows


def test_several_seeds_give_a_folder_each_with_mean_and_deviation(tmp_path):
    path = toy(tmp_path / "toy.h5", noise=3.0)
    report = train_head(out=tmp_path / "run", features=path, variant="mean", seed=[0, 1, 2], epochs=3, split="random")
    values = [metrics_of(tmp_path / "run" / f"seed-{s}")["accuracy"] for s in (0, 1, 2)]
    figures = report.to_dict()
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == figures
    assert figures["accuracy_mean"] == pytest.approx(sum(values) / 3)
    mean = sum(values) / 3
    assert figures["accuracy_std"] == pytest.approx((sum((v - mean) ** 2 for v in values) / 2) ** 0.5)
    assert [run.run_json["seed"] for run in read_runs(tmp_path / "run")] == [0, 1, 2]
    with pytest.raises(UsageError, match="run holds no run itself, but there are some in seed-0, seed-1, seed-2: name"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize("variant", ["lrcn", "convlstm"])
def test_pixel_variants_learn_from_the_frame_store(tmp_path, cache_folder, variant):
    report = train_head(out=tmp_path / "run", cache=cache_folder, variant=variant, epochs=1, batch_size=4)
    run = report.runs[0]
    assert run.n_train + run.n_val + run.n_test == 12
    assert run.backbone == "pixels64"


def test_cached_features_train_and_concatenate(tmp_path, two_backbones):
    folder = next((two_backbones / "features").glob("test_resnet-*")).name
    for backbone, dim in ((["test_resnet"], 96), (["other", folder], 192)):
        train_head(out=tmp_path / str(dim), cache=two_backbones, variant="mean", backbone=backbone, epochs=1)
        assert json.loads((tmp_path / str(dim) / "run.json").read_text())["head"]["input_dim"] == dim
    with pytest.raises(UsageError, match="test_resnet is named twice"):
        train_head(out=tmp_path / "x", cache=two_backbones, variant="mean", backbone=["test_resnet"] * 2)


def test_the_only_cached_backbone_serves_where_none_is_named(tmp_path, cache_folder):
    report = train_head(out=tmp_path / "run", cache=cache_folder, variant="mean", epochs=1)
    assert report.runs[0].backbone == "test_resnet"
    assert any("test_resnet is used" in note for note in report.notes)


def test_where_none_is_named_a_variant_takes_its_own_backbone_if_that_is_cached(tmp_path, two_backbones):
    cache = Cache(two_backbones)
    first = cache.feature_stores()[0]
    own = cache.feature_store(first.identity | {"backbone": "resnet50"})
    own.write_part(first.rows(list(first), ("key", "features", "pts_seconds")))
    common = {"cache": two_backbones, "variant": "resnet50-lstm-attention", "epochs": 1}
    assert train_head(out=tmp_path / "run", **common).runs[0].backbone == "resnet50"


def test_a_loss_that_is_no_number_ends_training_with_the_best_so_far(tmp_path, features, monkeypatch):
    from fitrec_cache.training.loop import Loop

    losses = iter([0.9, 0.5, float("nan"), 0.1])
    monkeypatch.setattr(Loop, "_look", lambda self: (next(losses), 0.0))
    settings = {"features": features, "variant": "mean", "epochs": 4}
    report = train_head(out=tmp_path / "run", recipe="paper", **settings)
    assert (report.runs[0].epochs, report.runs[0].best_epoch) == (2, 2)
    losses = iter([float("nan")])
    with pytest.raises(DivergedError, match="training diverged"):
        train_head(out=tmp_path / "other", recipe="paper", **settings)
    losses = iter([0.9, 0.5, float("nan"), 0.1])  # native keeps the last epoch, and there is none
    with pytest.raises(DivergedError, match="training diverged"):
        train_head(out=tmp_path / "native", **settings)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_training_loss_that_is_no_number_ends_training_too(features, monkeypatch, loss):
    data, recipe = read_pack(features), get_recipe("paper").change(epochs=3)
    targets = np.array([CLASSES.index(label) for label in data.labels])
    side = Side(values=data.values, targets=targets, clips=np.arange(60))
    config = recipe.head_config("mean", data.values.shape, n_classes=3, n_train=60, attention=None)
    monkeypatch.setattr(fit_module.Loop, "learn", lambda _, epoch: (loss if epoch == 3 else 0.5, 0.0))
    assert len(fit(side, side, config=config, recipe=recipe, seed=0).history) == 2
    fit_again(side, recipe, 2, config=config, seed=0)
    with pytest.raises(DivergedError, match="training diverged"):  # there is no side that says which epoch to keep
        fit_again(side, recipe, 3, config=config, seed=0)


def test_one_class_without_a_number_is_no_answer():
    def head(x):
        return torch.tensor([[1.0, 0.0], [math.inf, 0.0], [0.0, 1.0]]), torch.full((3, 4), 0.25)

    with pytest.raises(DivergedError, match="answer to 1 of 3 clips is no number: to b"):
        fit_module.apply_head(head, np.zeros((9, 4, 6)), np.array([8, 2, 5]), ["a", "b", "c"])


def test_a_test_clip_that_gets_no_numbers_for_an_answer_is_told_in_words(tmp_path, features):
    data = read_pack(features)
    train_head(out=tmp_path / "run", features=data, variant="mean", epochs=1)
    values = data.values.astype(np.float32) / 1000
    far_off = run_of(tmp_path / "run")["split"]["test"][0]
    values[data.clip_ids.index(far_off)] = 5e37  # still a float32
    with pytest.raises(DivergedError, match=f"answer to 1 of 12 clips is no number: to {re.escape(far_off)}. Their"):
        train_head(out=tmp_path / "other", features=replace(data, values=values), variant="mean", epochs=1)


def test_what_computed_the_features_changes_no_run(tmp_path, cache_folder):
    folder = tmp_path / "cache"
    shutil.copytree(cache_folder, folder)
    settings = {"cache": folder, "variant": "mean", "backbone": ["test_resnet"], "epochs": 2}
    train_head(out=tmp_path / "run", seed=[0], **settings)
    (origin,) = folder.glob("features/*/origin.json")
    origin.write_text(json.dumps(json.loads(origin.read_text()) | {"torch": "9.9"}))
    train_head(out=tmp_path / "run", seed=[0], **settings)  # not refused as made with other settings
    for seed in (0, 1):  # one before, one after: seeds of one model
        shutil.copytree(tmp_path / "run", tmp_path / "both" / f"seed-{seed}")
    train_head(out=tmp_path / "both" / "seed-1", seed=[1], overwrite=True, **settings)
    assert len(read_runs(tmp_path / "both")) == 2


def test_folds_say_that_near_duplicates_were_not_looked_for(tmp_path, features, monkeypatch):
    monkeypatch.setattr("fitrec_cache.features._COMPARED", 1)
    report = train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1, split="kfold:2")
    assert any(
        n.endswith("no leak found in 2 of 2 folds; near-duplicates not looked for: run audit") for n in report.notes
    )
    bare = replace(read_pack(features), groups=[None] * 60)
    report = train_head(out=tmp_path / "bare", features=bare, variant="mean", epochs=1, split="kfold:2")
    assert "not known whether the 2 folds leak: groups are unknown, near-duplicates not looked for: run audit" in (
        report.notes
    )


def test_of_several_cached_backbones_one_must_be_named(tmp_path, video_folder, weights, inline):
    extract(video_folder, cache=tmp_path / "c", backbone=[weights("test_resnet"), weights("test_vit")], **SMALL)
    with pytest.raises(
        UsageError, match=r"mean takes tf_efficientnet_lite0 unless .* of test_resnet, test_vit: choose"
    ):
        train_head(out=tmp_path / "run", cache=tmp_path / "c", variant="mean")


def test_wrong_use_is_refused(tmp_path, features, cache_folder):
    def refused(reason, **settings):
        with pytest.raises(UsageError, match=reason):
            train_head(**{"out": tmp_path / "run", "variant": "mean", **settings})
        assert not (tmp_path / "run" / "run.json").exists()

    refused("unknown variant 'meen'.*Did you mean 'mean'", features=features, variant="meen")
    refused("unknown attention 'dott'", features=features, variant="vit-lstm", attention="dott")
    refused("unknown split 'grup'", features=tmp_path / "none.h5", split="grup")  # before anything is read
    refused("either --cache DIR or --features FILE")
    refused("either --cache DIR or --features FILE", features=features, cache=cache_folder)
    refused("learns from frames", features=features, variant="lrcn")
    refused("leave --backbone", cache=cache_folder, variant="lrcn", backbone=["test_resnet"])
    refused("choose from a cache", features=features, backbone=["test_resnet"])
    refused("unknown backbone 'test_resne'", cache=cache_folder, backbone=["test_resne"])
    refused(
        "by preset native, not paper. To make them: .*--preset paper",
        cache=cache_folder,
        backbone=["test_resnet"],
        preset="paper",
    )
    refused("unknown preset 'papr'. Did you mean 'paper'", cache=cache_folder, backbone=["test_resnet"], preset="papr")
    refused("epochs is 0", features=features, epochs=0)
    refused("learning_rate is 0", features=features, learning_rate=0)
    for rate in (-0.1, 1):
        refused(f"false_alarm_rate is {rate}: expected a share", features=features, false_alarm_rate=rate)
    refused("seeds", features=features, seed=[1, 1])
    refused("one class", features=toy(tmp_path / "one.h5", labels=["Hop"] * 60))
    with pytest.raises(StoreError, match="no cache at"):
        train_head(out=tmp_path / "run", cache=tmp_path / "none")


def test_a_run_is_not_overwritten_unless_asked(tmp_path, features):
    train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1)
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(UsageError, match=r"already holds a run.*--overwrite"):
        train_head(out=tmp_path / "run", features=features, variant="mean", epochs=2)
    with pytest.raises(UsageError, match=r"made with other settings \(false_alarm_rate\)"):
        train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1, false_alarm_rate=0.2)
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    train_head(out=tmp_path / "run", features=features, variant="mean", epochs=2, overwrite=True)
    assert len(metrics_of(tmp_path / "run")["history"]) == 2
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="something that is not a run"):
        train_head(out=tmp_path / "home", features=features, variant="mean", overwrite=True)


@pytest.mark.parametrize(
    ("names", "of_a_run"),
    [
        ("metrics.json", False),
        ("curves.png", False),
        ("head.safetensors", False),
        ("logits.safetensors", False),
        ("final.safetensors", False),
        ("confusion.png metrics.json", False),
        ("confusion.png", True),
        ("confusion.png curves.png final.safetensors", True),
        ("confusion.png curves.png head.safetensors", True),
        ("confusion.png curves.png final.safetensors head.safetensors logits.safetensors metrics.json", True),
    ],
)
def test_remains_of_a_run_are_the_files_that_come_first(tmp_path, features, names, of_a_run):
    """The files of a run come into place in order of name, and run.json last."""
    (tmp_path / "run").mkdir()
    for name in names.split():
        (tmp_path / "run" / name).write_text("precious")
    settings = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1}
    if of_a_run:
        assert train_head(**settings).runs
    else:
        with pytest.raises(UsageError, match="something that is not a run"):
            train_head(**settings)
        assert all((tmp_path / "run" / name).read_text() == "precious" for name in names.split())


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_a_table_or_summary_of_the_users_own_is_not_replaced(tmp_path, features, seeds):
    common = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1, "seed": seeds}
    mine = {"answers.csv": "path,answer,nearest,probability,problem\n", "summary.json": '{"mine": 1}'}
    for name, text in mine.items():
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_text(text)
        with pytest.raises(UsageError, match=rf"{name} exists and is not .* of `train-head`|not a run"):
            train_head(**common, overwrite=True)
        assert (tmp_path / "run" / name).read_text() == text
        shutil.rmtree(tmp_path / "run")
    train_head(**common)
    assert train_head(**common, overwrite=True).runs  # its own are replaced


def test_a_final_head_added_later_is_the_one_made_at_once(tmp_path, features):
    common = {"features": features, "variant": "mean", "settings": ["epochs=2", "steps=60", "batch_size=12"]}
    train_head(out=tmp_path / "once", final=True, **common)
    made = train_head(out=tmp_path / "later", **common)
    assert made.runs[0].epochs == 20  # 60 steps, 3 an epoch of the 36 training clips; of all 60 it would be 12
    train_head(out=tmp_path / "later", final=True, **common)
    once, later = ((tmp_path / name / "final.safetensors").read_bytes() for name in ("once", "later"))
    assert once == later
    sides, changes = ("train", "val", "test"), {"epochs": 20, "batch_size": 12}  # 60 steps by hand
    by_hand = taught(features, tmp_path / "once", sides, **changes)
    assert same(safetensors.torch.load_file(tmp_path / "once" / "final.safetensors"), by_hand)


def test_where_a_final_head_cannot_be_written_the_run_stays_what_it_was(tmp_path, features, monkeypatch):
    common = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1}
    train_head(**common)

    def fails(path, data):
        raise StoreError("no room")

    monkeypatch.setattr("fitrec_cache.runs.run.write_atomic", fails)
    with pytest.raises(StoreError, match="no room"):
        train_head(final=True, **common)
    assert not run_of(tmp_path / "run").get("final")
    read_run(tmp_path / "run")


def test_damaged_runs_are_refused(tmp_path, features):
    train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1)
    path = tmp_path / "run" / "run.json"
    good, tensors = json.loads(path.read_text()), (tmp_path / "run" / "head.safetensors").read_bytes()
    read_run(tmp_path / "run")
    huge = good["head"] | {"input_dim": 10**9}
    for text in (
        "",
        "[]",
        "{" * 100_000,
        json.dumps(good | {"labels": ["a"]}),
        json.dumps(good | {"head": huge}),
        json.dumps(good | {"head": good["head"] | {"frames": "x"}}),
        json.dumps({k: v for k, v in good.items() if k != "head"}),
        json.dumps({k: v for k, v in good.items() if k != "calibration"}),
    ):
        path.write_text(text)
        with pytest.raises(StoreCorrupt):
            read_run(tmp_path / "run")
    for version, advice in ((99, "Update this one, or train again into another folder"), (1, "--overwrite")):
        path.write_text(json.dumps(good | {"run_version": version}))
        with pytest.raises(FitrecError, match=f"version {version}, this program reads 2.*{advice}"):
            read_run(tmp_path / "run")
    for told in (good, {k: v for k, v in good.items() if k != "sums"}):  # which runs of before do not have
        path.write_text(json.dumps(told))
        for data in (b"", tensors[:-5], tensors[:20], b"\xff" * 50):
            (tmp_path / "run" / "head.safetensors").write_bytes(data)
            with pytest.raises(StoreCorrupt, match="damaged"):
                read_run(tmp_path / "run")
    with pytest.raises(UsageError, match="no run at"):
        read_run(tmp_path / "none")


def test_a_run_that_cannot_be_replaced_stays(tmp_path, features, monkeypatch):
    train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_pictures, "confusion_png", full)
    with pytest.raises(StoreError, match="No space left on device"):
        train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1, overwrite=True, seed=[3])
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


def test_answers_of_a_run_that_was_replaced_do_not_stay(tmp_path, features, monkeypatch):
    settings = {"out": tmp_path / "run", "features": features, "variant": "mean"}
    train_head(epochs=1, **settings)
    monkeypatch.setattr(module, "write_answers", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_head(epochs=2, overwrite=True, **settings)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["training"]["epochs"] >= 2
    assert not (tmp_path / "run" / "answers.csv").exists()


def test_tables_of_several_runs_go_when_the_first_of_these_is_replaced(tmp_path, features, monkeypatch):
    settings = {"out": tmp_path / "run", "features": features, "variant": "mean", "split_seed": 0}
    train_head(epochs=1, seed=[0, 1], **settings)
    tables = {tmp_path / "run" / name for name in ("answers.csv", "answers-together.csv", "summary.json")}
    real = Trainer.run
    stop_at = 2  # the seed whose training is interrupted

    def run(self, job, *rest):
        if job.seed == stop_at:
            raise KeyboardInterrupt
        return real(self, job, *rest)

    monkeypatch.setattr(Trainer, "run", run)
    with pytest.raises(KeyboardInterrupt):
        train_head(epochs=1, seed=[0, 1, 2], **settings)
    assert all(path.exists() for path in tables)  # nothing was added to what they tell of
    stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        train_head(epochs=1, seed=[0, 1, 2, 3], **settings)
    assert not any(path.exists() for path in tables)  # of fewer runs than there are by now
    train_head(epochs=1, seed=[0, 1, 2], **settings)
    assert all(path.exists() for path in tables)
    stop_at = 0
    with pytest.raises(KeyboardInterrupt):
        train_head(epochs=2, seed=[0, 1, 2], overwrite=True, **settings)
    assert all(path.exists() for path in tables)
    stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        train_head(epochs=2, seed=[0, 1, 2], overwrite=True, **settings)
    assert not any(path.exists() for path in tables)


def test_an_interrupted_call_goes_on_with_the_runs_that_are_missing(tmp_path, features):
    settings = {"features": features, "variant": "mean", "epochs": 2, "seed": [0, 1, 2]}
    whole = train_head(out=tmp_path / "whole", **settings).to_dict()
    train_head(out=tmp_path / "run" / "seed-1", **settings | {"seed": [1]})
    before = (tmp_path / "run" / "seed-1" / "run.json").stat().st_mtime_ns
    report = train_head(out=tmp_path / "run", **settings)
    assert (tmp_path / "run" / "seed-1" / "run.json").stat().st_mtime_ns == before
    assert any("1 of 3 runs were there already" in note for note in report.notes)
    untimed = [
        [{k: v for k, v in r.items() if k not in ("out", "seconds")} for r in x["runs"]]
        for x in (whole, report.to_dict())
    ]
    assert untimed[0] == untimed[1]
    with pytest.raises(UsageError, match=r"made with other settings \(epochs\)"):
        train_head(out=tmp_path / "run", **settings | {"epochs": 3})


def test_folds_are_pooled_over_all_clips(tmp_path):
    path = toy(tmp_path / "toy.h5", noise=3.0)
    report = train_head(out=tmp_path / "run", features=path, variant="mean", split="kfold:4", seed=[0, 1], epochs=2)
    assert len(report.runs) == 8
    assert sorted(p.parent.name for p in (tmp_path / "run").glob("*/run.json"))[0] == "fold-01-seed-0"
    for seed, pooled in enumerate(report.pooled):
        right = sum(round(r.metrics.accuracy * r.n_test) for r in report.runs if r.seed == seed)
        assert (pooled["seed"], pooled["n"], pooled["folds"]) == (seed, 60, 4)
        assert pooled["accuracy"] == pytest.approx(right / 60)
        confusion = sum(r.metrics.confusion for r in report.runs if r.seed == seed)
        assert pooled["confusion"] == confusion.tolist()
        assert [row["n"] for row in pooled["per_class"]] == confusion.sum(axis=1).tolist()
    assert report.to_dict()["accuracy_mean"] == pytest.approx(np.mean([p["accuracy"] for p in report.pooled]))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["pooled"][1]["n"] == 60


def test_one_room_left_out_says_nothing_of_others(tmp_path, features):
    report = train_head(out=tmp_path / "run", features=features, variant="mean", split="leave-one:group", epochs=1)
    assert {run.metrics.accuracy_ci95 for run in report.runs} == {(0.0, 1.0)}
    interval = "95 % interval 0.0% to 100.0%, as there are too few groups or clips; guessing"
    told = f"accuracy {report.runs[0].metrics.accuracy:.1%} of 6 clips ({interval}"
    assert told in train_text(report)
    assert report.pooled[0]["accuracy_ci95"][0] > 0  # ten rooms do


def test_folds_and_lists_of_any_name_are_trained_and_read_again(tmp_path, features):
    """A cell of a spreadsheet may hold a line break, a line of a list a tab."""
    data = read_pack(features)
    data = replace(data, extra=[{"room": f"the {i % 3}.\nroom"} for i in range(len(data.labels))])
    for split in ("leave-one:room", f"list:{tmp_path / 'a'},{tmp_path / 'b'}"):
        for name in ("a", "b"):
            some = data.clip_ids[:40] if name == "a" else data.clip_ids[40:]
            (tmp_path / name).write_text("".join(f"{clip}\n" for clip in some) + "no\tclip.avi\n")
        report = train_head(out=tmp_path / split[:4], features=data, variant="mean", split=split, epochs=1)
        assert "\n" not in "".join(run.fold for run in report.runs)
        assert train_head(out=tmp_path / split[:4], features=data, variant="mean", split=split, epochs=1).accuracies


def test_bars_say_which_of_how_many_heads_is_trained(tmp_path, features, capsys):
    train_head(out=tmp_path / "one", features=features, variant="mean", epochs=1, progress=True)
    assert " of " not in capsys.readouterr().err
    settings = {"split": "kfold:2", "seed": [0, 1], "epochs": 1, "progress": True}
    train_head(out=tmp_path / "run", features=features, variant="mean", **settings)
    said = capsys.readouterr().err
    assert all(f"mean seed {(k - 1) // 2} 0{(k - 1) % 2 + 1} ({k} of 4)" in said for k in range(1, 5))


def test_seeds_can_be_added_to_folds(tmp_path, features):
    settings = {"out": tmp_path / "run", "features": features, "variant": "mean", "split": "kfold:2", "epochs": 1}
    train_head(**settings, seed=[0])
    more = train_head(**settings, seed=[0, 1])
    assert any(note.startswith("2 of 4 runs were there already") for note in more.notes)
    assert [r.out.name for r in more.runs] == [f"fold-0{f}-seed-{s}" for s in (0, 1) for f in (1, 2)]


def test_stored_outputs_are_what_the_stored_head_says(tmp_path, features):
    settings = {"epochs": 2, "settings": ["refit=false"]}  # after it the stored head is not validation's
    train_head(out=tmp_path / "run", features=features, variant="resnet50-lstm-attention", **settings)
    run = read_run(tmp_path / "run")
    outputs = safetensors.torch.load_file(tmp_path / "run" / "logits.safetensors")
    with h5py.File(features) as file:
        ids = [i.decode() for i in file["clip_id"][()]]
        for side in ("val", "test"):
            rows = [ids.index(i) for i in run.run_json["split"][side]]
            with torch.inference_mode():
                logits, attention = run.head(torch.from_numpy(file["features"][()][rows]).float())
            torch.testing.assert_close(outputs[f"{side}_logits"], logits)
            torch.testing.assert_close(outputs[f"{side}_attention"], attention)
            names = [run.labels[k] for k in outputs[f"{side}_targets"]]
            assert names == [file["label"][i].decode() for i in rows]
        groups = [file["group"][ids.index(i)].decode() for i in run.run_json["split"]["test"]]
    assert run.run_json["split"]["test_groups"] == groups


def test_seeds_that_test_the_same_clips_are_averaged(tmp_path):
    path = toy(tmp_path / "toy.h5", noise=3.0)
    with h5py.File(path) as file:
        ids = [i.decode() for i in file["clip_id"][()]]
    for name, rows in (("train.txt", ids[:40]), ("test.txt", ids[40:])):
        (tmp_path / name).write_text("\n".join(rows))
    split = f"list:{tmp_path / 'train.txt'},{tmp_path / 'test.txt'}"
    report = train_head(out=tmp_path / "run", features=path, variant="mean", split=split, seed=[0, 1], epochs=5)
    mean = 0
    for r in report.runs:
        outputs = safetensors.torch.load_file(r.out / "logits.safetensors")
        mean = mean + (outputs["test_logits"].double() / r.calibration["temperature"]).softmax(dim=1)
    right = (mean.argmax(dim=1) == outputs["test_targets"]).double().mean()
    assert report.ensemble["accuracy"] == pytest.approx(float(right))
    assert report.ensemble["temperature"] is None  # each seed has its own validation clips
    assert any("so what they answer together has no temperature of its own" in note for note in report.notes)


def test_folds_do_not_answer_together_but_each_by_itself(tmp_path, features):
    settings = {"features": features, "variant": "mean", "split": "kfold:3", "seed": [0, 1], "epochs": 1}
    report = train_head(out=tmp_path / "run", **settings)
    with pytest.raises(UsageError, match="run holds 3 folds, each of which left clips out: name one of them, or train"):
        read_runs(tmp_path / "run")
    for run in report.runs:
        assert [one.run_json["fold"] for one in read_runs(run.out)] == [run.fold]


def test_what_seeds_of_one_split_answer_together_is_tested(tmp_path):
    settings = {"features": toy(tmp_path / "toy.h5", noise=3.0), "variant": "mean", "split": "random", "epochs": 5}
    settings["false_alarm_rate"] = 0.5
    apart = train_head(out=tmp_path / "apart", seed=[0, 1], **settings)
    assert apart.ensemble == {}
    assert any("is not tested: another --out with --split-seed 0 gives" in note for note in apart.notes)
    report = train_head(out=tmp_path / "run", seed=[0, 1, 2], split_seed=1, **settings)
    assert not any("--split-seed" in note for note in report.notes)
    assert report.to_dict()["accuracy_mean"] == pytest.approx(np.mean(report.accuracies))
    sides = [read_run(r.out).run_json["split"] for r in report.runs]
    assert [s["seed"] for s in sides] == [1, 1, 1]
    assert sides[0]["test"] == sides[2]["test"] == read_run(apart.runs[1].out).run_json["split"]["test"]
    outputs = [safetensors.torch.load_file(r.out / "logits.safetensors") for r in report.runs]
    sure = [
        (o["test_logits"].double() / r.calibration["temperature"]).softmax(dim=1)
        for o, r in zip(outputs, report.runs, strict=True)
    ]
    mean = torch.stack(sure).mean(dim=0).numpy()
    assert report.ensemble["temperature"] != 1
    sharper = mean ** (1 / report.ensemble["temperature"])
    sharper /= sharper.sum(axis=1, keepdims=True)
    unsure = sharper.max(axis=1) < report.ensemble["threshold"]
    assert 0 < unsure.mean() < 1
    assert report.ensemble["false_alarms"] == pytest.approx(unsure.mean())
    truth = outputs[0]["test_targets"].numpy()
    assert report.ensemble["ece"] == pytest.approx(calibration_error(sharper, truth)[0])
    labels = read_run(report.runs[0].out).labels
    rows = list(csv.DictReader((tmp_path / "run" / "answers-together.csv").read_text().splitlines()))
    assert [row["clip_id"] for row in rows] == sides[0]["test"]
    assert [row["label"] for row in rows] == [labels[i] for i in truth]
    np.testing.assert_allclose([[float(row[f"p_{k}"]) for k in labels] for row in rows], sharper, atol=6e-5)
    best = [labels[i] for i in sharper.argmax(axis=1)]
    assert [row["nearest"] for row in rows] == best
    assert [row["answer"] for row in rows] == ["" if odd else k for k, odd in zip(best, unsure, strict=True)]
    assert not (tmp_path / "apart" / "answers-together.csv").exists()
    told = json.loads((tmp_path / "run" / "summary.json").read_text())["ensemble"]
    assert told["confusion"] == confusion_matrix(truth, sharper.argmax(axis=1)).tolist()
    assert [row["n"] for row in told["per_class"]] == np.bincount(truth).tolist()
    assert sum(each["n"] for each in told["bins"]) == len(truth)
    kept = {"seeds": [0, 1, 2]}
    kept["calibration"] = {name: report.ensemble[name] for name in ("temperature", "threshold")}
    kept["calibration"]["false_alarm_rate"] = 0.5
    assert all(run_of(r.out)["together"] == kept for r in report.runs)
    again = train_head(out=tmp_path / "run", seed=[0, 1, 2], split_seed=1, **settings)
    assert any("3 of 3 runs were there already" in note for note in again.notes)
    assert again.ensemble == report.ensemble
    assert ", as predict answers: accuracy" in train_text(again)
    final = train_head(out=tmp_path / "run", seed=[0, 1, 2], split_seed=1, final=True, **settings)
    assert ", as predict answers" not in train_text(final)  # it is by the final heads then
    without = train_head(out=tmp_path / "run", seed=[0, 1, 2], split_seed=1, **settings)  # where they stay
    assert ", as predict answers" not in train_text(without)
    assert all(run_of(r.out)["together"] == kept for r in report.runs)
    with pytest.raises(UsageError, match="which clips are on which side"):
        train_head(out=tmp_path / "run", seed=[0, 1, 2], split_seed=0, **settings)
    with pytest.raises(UsageError, match="seed -1"):
        train_head(out=tmp_path / "other", split_seed=-1, **settings)


def test_some_of_the_classes_are_learned_as_if_there_were_no_others(tmp_path, features):
    labels = [CLASSES[i % 3] for i in range(60)]
    some = [label for label in CLASSES if label != CLASSES[0]]
    report = train_head(
        out=tmp_path / "some", features=features, variant="mean", epochs=2, classes=f"{some[1].upper()},{some[0]}"
    )
    run = json.loads((tmp_path / "some" / "run.json").read_text())
    assert run["labels"] == run["some_classes"] == sorted(some)
    assert "20 clips of other classes left out, as asked by --classes" in report.notes
    with h5py.File(features) as file:
        rows = [i for i, label in enumerate(labels) if label in some]
        data = {name: file[name][:][rows] for name in file}
    with h5py.File(tmp_path / "only.h5", "w") as file:
        for name, values in data.items():
            file[name] = values
    train_head(out=tmp_path / "only", features=tmp_path / "only.h5", variant="mean", epochs=2)
    assert same(weights_of(tmp_path / "some"), weights_of(tmp_path / "only"))
    assert "some_classes" not in json.loads((tmp_path / "only" / "run.json").read_text())
    both = {"classes": ",".join(CLASSES[:2]), "unknown": [CLASSES[2]], "features": features, "variant": "mean"}
    train_head(out=tmp_path / "strange", epochs=1, **both)
    strange = json.loads((tmp_path / "strange" / "run.json").read_text())
    assert strange["labels"] == strange["some_classes"] == sorted(CLASSES[:2])
    assert len(strange["split"]["unknown"]) == 20
    with pytest.raises(UsageError, match="unknown class 'Squatt'"):
        train_head(out=tmp_path / "x", features=features, variant="mean", classes="Squatt")


def test_classes_left_out_are_unknown(tmp_path):
    """Known classes lie on axes 0 and 1; Squat, left out, between them, so that it is not like either."""
    rng = np.random.default_rng(0)
    path = toy(tmp_path / "toy.h5", n=120, noise=0.2)
    with h5py.File(path, "r+") as file:
        squats = file["label"][()] == b"Squat"
        values = file["features"][()]
        values[squats] = 0.0 + rng.normal(0, 0.2, values[squats].shape)
        values[squats, :, :2] += 1
        file["features"][...] = values
    report = train_head(
        out=tmp_path / "run",
        features=path,
        variant="mean",
        unknown=["Squat"],
        settings=["refit=false"],
        false_alarm_rate=0.4,
        **FAST,
    )
    (run,) = report.runs
    assert run.n_val < 19  # too few for a rate of 5 %, see below; their groups are fewer still
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert stored["labels"] == ["Hop", "Lunge"]
    assert {i.split("/")[0] for side in ("train", "val", "test") for i in stored["split"][side]} == {"Hop", "Lunge"}
    assert run.unknown["n"] == 40
    assert run_of(tmp_path / "run")["split"]["unknown_classes"] == ["Squat"]
    assert run.unknown["auroc"] > 0.95
    assert run.unknown["detected"] > 0.8
    assert run.unknown["false_alarms"] <= 0.2
    rows = list(csv.DictReader((tmp_path / "run" / "answers.csv").read_text().splitlines()))
    assert [row["clip_id"] for row in rows] == stored["split"]["test"] + stored["split"]["unknown"]
    apart = rows[run.n_test :]
    assert {(row["label"], row["clip_id"].split("/")[0]) for row in apart} == {("Squat", "Squat")}
    assert {row["group"] for row in apart} == {f"g{i}" for i in range(20)}
    assert sum(not row["answer"] for row in apart) / 40 == pytest.approx(run.unknown["detected"])
    seeds = train_head(
        out=tmp_path / "seeds",
        features=path,
        variant="mean",
        unknown=["Squat"],
        false_alarm_rate=0.1,
        seed=[0, 1],
        split_seed=0,
        **FAST,
    )
    one = seeds.runs[0]
    assert one.unknown["detected"] != one.unknown["auroc"]
    assert [one.answers[name] for name in ("detected", "auroc")] == [
        one.unknown[name] for name in ("detected", "auroc")
    ]
    together = seeds.ensemble
    mean = 0
    for one in seeds.runs:
        logits = safetensors.torch.load_file(one.out / "logits.safetensors")["unknown_logits"].double()
        mean = mean + (logits / one.calibration["temperature"]).softmax(dim=1).numpy() / 2
    sharper = mean ** (1 / together["temperature"])
    sharper /= sharper.sum(axis=1, keepdims=True)
    assert together["n_unknown"] == 40
    assert together["detected"] == pytest.approx((sharper.max(axis=1) < together["threshold"]).mean())
    assert together["auroc"] > 0.95
    rows = list(csv.DictReader((tmp_path / "seeds" / "answers-together.csv").read_text().splitlines()))
    assert [row["label"] for row in rows[-40:]] == ["Squat"] * 40
    assert sum(not row["answer"] for row in rows[-40:]) / 40 == pytest.approx(together["detected"])
    assert list(run.answers) == list(together)  # one seed has its figures under the same names
    assert (run.answers["n"], run.answers["n_unknown"]) == (run.n_test, 40)
    assert f"  unknown classes: {together['detected']:.1%} of 40 clips; AUROC" in train_text(seeds)
    strict = train_head(out=tmp_path / "strict", features=path, variant="mean", unknown=["Squat "], **FAST)
    assert (strict.runs[0].unknown["detected"], strict.runs[0].unknown["false_alarms"]) == (0, 0)
    assert any("needs 19 groups of validation clips" in note for note in strict.notes)
    with pytest.raises(UsageError, match=r"unknown class 'Sqat'.*Squat"):
        train_head(out=tmp_path / "x", features=path, variant="mean", unknown=["Sqat"])


def test_clips_of_classes_left_out_are_judged_by_calibrated_probabilities(tmp_path):
    settings = {"variant": "mean", "unknown": ["Squat"], "epochs": 5, "false_alarm_rate": 0.5}
    (run,) = train_head(out=tmp_path / "run", features=toy(tmp_path / "toy.h5", noise=3.0), **settings).runs
    outputs, temperature = safetensors.torch.load_file(run.out / "logits.safetensors"), run.calibration["temperature"]
    sides = (outputs[f"{side}_logits"].double() / temperature for side in ("test", "unknown"))
    known, strange = (logits.softmax(dim=1).amax(dim=1) for logits in sides)
    shares = {"false_alarms": known < run.unknown["threshold"], "detected": strange < run.unknown["threshold"]}
    shares["auroc"] = known[:, None] > strange  # no two are equal
    expected = {name: float(found.double().mean()) for name, found in shares.items()}
    assert {name: run.unknown[name] for name in expected} == pytest.approx(expected)
    assert all(0 < share < 1 for share in expected.values())


def test_other_videos_of_a_class_that_is_kept_apart_make_another_run(tmp_path):
    settings = {"out": tmp_path / "run", "variant": "mean", "epochs": 1, "unknown": ["Squat"]}
    path = toy(tmp_path / "toy.h5")
    train_head(features=path, **settings)
    assert any("kept" in note for note in train_head(features=path, **settings).notes)
    with h5py.File(path, "r+") as file:
        strange = np.array([label == b"Squat" for label in file["label"][()]])
        file["features"][...] = np.where(strange[:, None, None], 1 - file["features"][()], file["features"][()])
    with pytest.raises(UsageError, match="the clips of classes kept apart"):
        train_head(features=path, **settings)


def test_settings_of_a_recipe_can_be_changed_and_nothing_else(tmp_path, features):
    changes = ["dropout=0.25", "skip_mean=true", "normalise=whiten", "components=500", "draw=3", "epochs=2"]
    train_head(out=tmp_path / "run", features=features, variant="vit-lstm", recipe="native", settings=changes)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["recipe"], run["training"]["draw"], run["training"]["epochs"]) == ("native", 3, 2)
    assert (run["head"]["dropout"], run["head"]["skip_mean"], run["head"]["components"]) == (0.25, True, 6)
    read_run(tmp_path / "run")
    for text, reason in (
        ("dropout", "NAME=VALUE"),
        ("dropuot=1", "Did you mean 'dropout'"),
        ("dropout=much", "expected a number"),
        ("dropout=1.5", "below 1"),
        ("skip_mean=maybe", "true or false"),
        ("schedule=linear", "unknown schedule"),
    ):
        with pytest.raises(UsageError, match=reason):
            train_head(out=tmp_path / "x", features=features, variant="vit-lstm", settings=[text])


def test_a_leaking_split_is_never_silent(tmp_path, features):
    """Ten groups of six clips: by clip, every test clip has siblings in training."""
    report = train_head(out=tmp_path / "r", features=features, variant="mean", split="random", epochs=1)
    assert any(
        n.startswith("split leaks (accuracy probably too high): 12 of 12 test clips share a group with training, ")
        for n in report.notes
    )
    assert report.leaks
    assert any(n.startswith("split leaks (accuracy probably too high): ") for n in report.wrong)
    assert run_of(tmp_path / "r")["split"]["sharing"] == 12
    report = train_head(out=tmp_path / "g", features=features, variant="mean", split="group", epochs=1)
    assert any(": 0 of 12 test clips share a group with training, " in n for n in report.notes)
    near = next(int(found[1]) for n in report.notes if (found := re.search(r", (\d+) have a near-duplicate there", n)))
    assert report.leaks == any("split may leak" in n for n in report.notes) == bool(report.wrong) == (near > 0)
    assert run_of(tmp_path / "g")["split"]["sharing"] == 0
    report = train_head(out=tmp_path / "k", features=features, variant="mean", split="kfold:3", seed=[0, 1], epochs=1)
    with h5py.File(features, "r+") as file:
        file["group"][3] = b""
    partly = train_head(out=tmp_path / "p", features=features, variant="mean", split="kfold:3", epochs=1)
    assert "; the group of 1 of 60 clips is unknown" in next(
        n for n in partly.notes if "of 3 folds" in n or "all 3 folds (may) leak" in n
    )
    verdicts = [n for n in report.notes if "leak" in n]
    assert len(verdicts) > 1
    leaking = sum(": split may leak (accuracy may be too high)" in n for n in verdicts)
    assert verdicts[-1] == ("all 6 folds (may) leak" if leaking == 6 else f"no leak found in {6 - leaking} of 6 folds")


@pytest.mark.parametrize("fold", ["", "01"])
def test_of_a_fold_only_what_is_wrong_is_told(tmp_path, fold):
    sides = {name: np.array([i]) for i, name in enumerate(("train", "val", "test"))}
    usual = "1 class has no test clip: C"
    split = Split(rule="r", notes=(usual,), sharing=1, untrained=("B",), **sides)
    jobs = [Job(Fold(name=fold, split=split), seed, tmp_path, False) for seed in (0, 1)]
    notes, untrained = train_notes._fold_notes(jobs)  # it is the same of both seeds
    assert notes == ([] if fold else [usual])
    assert untrained == ["fold 01: " * bool(fold) + "1 class has no training clip: B"]


def test_what_is_to_say_of_one_seed_names_it_and_of_all_alike_none(tmp_path, features):
    data = read_pack(features)
    lists = replace(data, extra=[{"split": ("test" if i < 12 else "train") * (i > 5)} for i in range(60)])
    report = train_head(out=tmp_path / "r", features=lists, variant="mean", split="manifest", seed=[0, 1], epochs=1)
    assert [note for note in report.notes if "left out" in note] == ["left out: 6 of 60 clips are on no side"]
    sides = {name: np.array([i]) for i, name in enumerate(("train", "val", "test"))}
    jobs = [
        Job(Fold(name="", split=Split(rule="r", notes=notes, **sides)), seed, tmp_path, False)
        for seed, notes in enumerate((("a", "b"), ("a",)))
    ]
    assert train_notes._fold_notes(jobs)[0] == ["seed 0: a", "seed 0: b", "seed 1: a"]


def test_the_precision_of_the_machine_is_kept_with_the_run(tmp_path, features, monkeypatch):
    for found, name in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("fitrec_cache.training.fit.computes_in_bf16", lambda _, found=found: found)
        train_head(out=tmp_path / name, features=features, epochs=1)
        assert run_of(tmp_path / name)["training"]["precision"] == name
    made = train_head(out=tmp_path / "mean", features=features, epochs=1, variant="mean", settings=["precision=bf16"])
    assert "precision changes nothing for variant mean on cpu: left out" in made.notes
    assert run_of(tmp_path / "mean")["training"]["precision"] == "fp32"  # there is hardly a product
    train_head(out=tmp_path / "paper", features=features, epochs=1, recipe="paper")
    assert run_of(tmp_path / "paper")["training"]["precision"] == "fp32"
    with pytest.raises(UsageError, match=r"precision 'fp64'.*auto"):
        train_head(out=tmp_path / "other", features=features, settings=["precision=fp64"])


@pytest.mark.parametrize("width", [2048, 16], ids=["wide", "narrow"])
def test_products_in_bfloat16_learn_as_well(tmp_path, width):
    path = toy(tmp_path / "toy.h5", d=width, noise=1.0)
    runs = {}
    for name in ("fp32", "bf16"):
        settings = [f"precision={name}", "normalise=none", "refit=false"]
        train_head(out=tmp_path / name, features=path, settings=settings, epochs=15)
        runs[name] = metrics_of(tmp_path / name)["history"]
    assert runs["bf16"] != runs["fp32"]
    for one, other in zip(*runs.values(), strict=True):
        assert one["val_loss"] == pytest.approx(other["val_loss"], abs=0.02)


def test_what_is_fitted_to_the_same_clips_is_fitted_once(tmp_path, features, monkeypatch):
    fitted, fit_it = [], Normalisation.fit
    monkeypatch.setattr(Normalisation, "fit", lambda self, frames: fitted.append(len(frames)) or fit_it(self, frames))
    common = {"features": features, "variant": "mean", "epochs": 1}
    train_head(out=tmp_path / "own", seed=[0, 1], **common)
    assert len(fitted) == 4  # each seed has a split of its own: training, then training and validation
    fitted.clear()
    both = train_head(out=tmp_path / "shared", seed=[0, 1], split_seed=0, final=True, **common)
    run = both.runs[1]
    assert fitted == [4 * run.n_train, 4 * (run.n_train + run.n_val), 4 * 60]  # and all clips
    train_head(out=tmp_path / "alone", seed=[1], split_seed=0, final=True, **common)
    for name in ("head", "final"):
        assert (run.out / f"{name}.safetensors").read_bytes() == (tmp_path / f"alone/{name}.safetensors").read_bytes()


def test_recipes_of_a_search_share_no_normalisation_of_another_kind_or_length():
    values = np.random.default_rng(0).normal(size=(30, 4, 8)).astype(np.float32)
    side = Side(values=values, targets=np.arange(30) % 2, clips=np.arange(20))
    for kind, components in (("standard", 0), ("pca", 4), ("whiten", 4), ("whiten", 3)):
        recipe = get_recipe("native").change(normalise=kind, components=components, epochs=1, refit=False)
        config = recipe.head_config("mean", values.shape, n_classes=2, n_train=20, attention=None)
        shared, alone = (
            fit(each, each, config=config, recipe=recipe, seed=0).head.state_dict()
            for each in (side, replace(side, normalisations={}))
        )
        assert same(shared, alone)


def test_no_more_normalisations_are_kept_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr("fitrec_cache.training.fit._MOST_KEPT", 2 * (8 + 8 * 4))  # a shift and a basis each
    values = np.random.default_rng(0).normal(size=(30, 4, 8)).astype(np.float32)
    recipe = get_recipe("native").change(components=4, epochs=1, refit=False)
    config = recipe.head_config("mean", values.shape, n_classes=2, n_train=20, attention=None)
    side = Side(values=values, targets=np.arange(30) % 2, clips=np.arange(20))
    for i in range(3):
        fit(replace(side, clips=np.arange(i, 20 + i)), side, config=config, recipe=recipe, seed=0)
    assert [np.frombuffer(clips, np.int64)[0] for _, _, clips in side.normalisations] == [1, 2]


@pytest.mark.parametrize("normalise", ["none", "pca"])
def test_a_mean_head_learns_from_means_what_it_learns_from_frames(tmp_path, normalise):
    """Drawing 4 of 4 frames takes all of them, but in the way that does not average beforehand."""
    path = toy(tmp_path / "toy.h5", noise=1.0)
    runs = []
    for draw in (0, 4):
        settings = [f"draw={draw}", f"normalise={normalise}", "components=3"]
        train_head(out=tmp_path / str(draw), features=path, variant="mean", settings=settings, epochs=5)
        runs.append(weights_of(tmp_path / str(draw)))
    for name, value in runs[0].items():
        torch.testing.assert_close(value, runs[1][name], rtol=1e-4, atol=1e-6)


def test_a_mean_head_learns_from_the_frames_that_are_drawn(features):
    recipe = get_recipe("native").change(normalise="none", epochs=2, input_dropout=0.0, refit=False)
    every, some = (fit_once(features, "mean", recipe.change(draw=draw), None) for draw in (0, 2))
    assert not same(every, some)


@pytest.mark.parametrize("share", [1, 2, 10, 20])
def test_what_a_normalisation_is_fitted_on_is_of_all_frames_evenly(monkeypatch, share):
    clips, frames = 60, 20
    values = np.tile(np.arange(frames, dtype=np.float32), (clips, 1))[:, :, None]  # each frame holds its number
    side = Side(values=values, targets=np.zeros(clips, int), clips=np.arange(clips))
    monkeypatch.setattr(fit_module, "_MOST_FLOATS", clips * frames // share)
    found = fit_module._some_vectors(side).flatten().int()
    assert 0.6 * clips * frames / share <= len(found) <= clips * frames / share
    counts = torch.bincount(found, minlength=frames)
    assert counts.max() - counts.min() <= 1
    if share == 1:
        assert found.tolist() == list(range(frames)) * clips


def test_frames_that_are_drawn_stay_in_order_and_differ_from_clip_to_clip():
    frames = torch.arange(12.0)[None, :, None].expand(200, 12, 1)
    loop = SimpleNamespace(recipe=SimpleNamespace(draw=5))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = fit_module.Loop._draw(loop, frames).squeeze(2)  # (200, 5)
    assert drawn.shape == (200, 5)
    assert (drawn.diff(dim=1) > 0).all()
    counts = torch.bincount(drawn.flatten().long(), minlength=12)
    assert (counts - 200 * 5 / 12).abs().max() < 5 * (200 * 5 / 12 * 7 / 12) ** 0.5  # by binomial scatter


def test_few_clips_are_taken_more_often(tmp_path, features):
    longer = Recipe(epochs=10, patience=5, batch_size=32, steps=100).fitted_to(40)  # 2 steps an epoch
    assert (longer.epochs, longer.patience) == (50, 25)
    same = Recipe(epochs=10, patience=5, steps=20).fitted_to(40)
    assert (same.epochs, same.patience) == (10, 5)
    assert get_recipe("native").change(epochs=3).fitted_to(40).epochs == 3
    report = train_head(out=tmp_path / "run", features=features, variant="mean", settings=["steps=100"])
    assert report.runs[0].epochs == 50  # 36 training clips: 2 steps an epoch


def test_a_run_made_of_other_data_is_not_kept(tmp_path, features):
    settings = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1}
    train_head(**settings)
    with h5py.File(features, "r+") as file:
        file["features"][0, 0, 0] += 1
    with pytest.raises(UsageError, match=r"made with other settings \(the clips in the cache\)"):
        train_head(**settings)


def test_what_an_interrupted_run_left_is_no_obstacle(tmp_path, features):
    settings = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1}
    left = tmp_path / "run" / ".tmp-00000000-1-0000aaaa"
    left.mkdir(parents=True)
    (left / "head.safetensors").write_bytes(b"half")
    (tmp_path / "run" / "confusion.png").write_bytes(b"first")
    os.utime(left, (0, 0))
    train_head(**settings)
    assert not left.exists()
    (tmp_path / "run" / "head.safetensors").unlink()
    train_head(**settings)
    read_run(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text("{}")
    train_head(**settings)  # made again
    assert metrics_of(tmp_path / "run")["n_test"] > 0


def test_what_a_call_left_that_was_killed_in_its_last_steps_goes(tmp_path, features):
    settings = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1, "seed": [0, 1]}
    train_head(**settings)
    half = [tmp_path / "run" / name / ".tmp-00000000-1-0000aaaa" for name in ("", "seed-0", "seed-1")]
    for left in half[:2]:
        left.write_bytes(b"half")  # of answers.csv, run.json
    half[2].mkdir()  # the run is whole
    for left in half:
        os.utime(left, (0, 0))
    train_head(**settings)
    assert [left for left in half if left.exists()] == []


def test_runs_of_another_call_do_not_mix_with_this_ones(tmp_path, features):
    settings = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1}
    train_head(**settings, seed=[0, 1, 2])
    with pytest.raises(UsageError, match="seed-2 holds a run of an earlier call"):
        train_head(**settings, seed=[0, 1], overwrite=True)
    with pytest.raises(UsageError, match="which this one would not replace: choose another folder"):
        train_head(**settings, split="kfold:2")
    with pytest.raises(UsageError, match=r"holds no run itself, but there are some in run: name one of these$"):
        read_runs(tmp_path)
    train_head(**settings | {"out": tmp_path / "one"})
    with pytest.raises(UsageError, match="is itself the run of one seed"):
        train_head(**settings | {"out": tmp_path / "one"}, seed=[0, 1])
    added = train_head(**settings, seed=[0, 1, 2, 3])
    assert [r.seed for r in added.runs] == [0, 1, 2, 3]
    assert any(note.startswith("3 of 4 runs were there already") for note in added.notes)


def test_the_same_sides_by_a_split_seed_are_another_run_and_it_is_named(tmp_path, features):
    """Seeds that are added to it would have the split of that seed, and be another model."""
    settings = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1, "seed": [0]}
    train_head(**settings)
    with pytest.raises(UsageError, match=r"made with other settings \(--split-seed\): choose"):
        train_head(**settings, split_seed=0)
    with pytest.raises(UsageError, match=r"made with other settings \(which clips are on which side\): choose"):
        train_head(**settings, split_seed=1)


def test_lists_may_be_named_by_another_path(tmp_path, features, monkeypatch):
    with h5py.File(features) as file:
        ids = [i.decode() for i in file["clip_id"][()]]
    for name, rows in (("train.txt", ids[:40]), ("test.txt", ids[40:])):
        (tmp_path / name).write_text("\n".join(rows))
    settings = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 1}
    train_head(**settings, split=f"list:{tmp_path / 'train.txt'},{tmp_path / 'test.txt'}")
    monkeypatch.chdir(tmp_path)
    report = train_head(**settings, split="list:train.txt,test.txt")
    assert any("kept" in note for note in report.notes)


@pytest.mark.parametrize("name", ["unknown", "Unknown"])
def test_a_class_that_is_called_as_no_answer_is_refused(tmp_path, name):
    labels = [("Hop", "Squat", name)[i % 3] for i in range(60)]
    data = toy(tmp_path / "odd.h5", labels=labels)
    with pytest.raises(UsageError, match=f"class '{name}' could not be told from the answer.*--unknown {name}"):
        train_head(out=tmp_path / "run", features=data, variant="mean", epochs=1)
    train_head(out=tmp_path / "run", features=data, variant="mean", epochs=1, unknown=[name])
    assert read_run(tmp_path / "run").labels == ["Hop", "Squat"]


@pytest.mark.parametrize("variant", ["mean", "vit-lstm"])
def test_a_class_that_no_side_holds_gets_no_output(tmp_path, features, variant):
    names = [f"{CLASSES[i % 3]}/{i}.avi" for i in range(60) if i % 3 != 1]  # no Lunge
    (tmp_path / "train.txt").write_text("".join(f"{n}\n" for n in names[:30]))
    (tmp_path / "test.txt").write_text("".join(f"{n}\n" for n in names[30:]))
    split = f"list:{tmp_path / 'train.txt'},{tmp_path / 'test.txt'}"
    report = train_head(out=tmp_path / "run", features=features, variant=variant, split=split, final=True, **FAST)
    assert "1 class is on no side and not learned: Lunge" in report.notes
    assert read_run(tmp_path / "run").labels == ["Hop", "Squat"]
    assert safetensors.torch.load_file(tmp_path / "run" / "logits.safetensors")["test_logits"].shape == (10, 2)
    assert report.runs[0].metrics.accuracy == report.runs[0].metrics.top5_accuracy == 1


def test_a_class_without_training_clips_can_be_balanced_too(tmp_path, features):
    with h5py.File(features) as file:
        ids = [i.decode() for i in file["clip_id"][()]]
    sides = {"train.txt": [i for i in ids[:40] if "Squat" not in i], "test.txt": ids[40:]}
    for name, rows in sides.items():
        (tmp_path / name).write_text("\n".join(rows))
    split = f"list:{tmp_path / 'train.txt'},{tmp_path / 'test.txt'}"
    out = tmp_path / "run"
    made = train_head(out=out, features=features, variant="mean", split=split, epochs=1, settings=["balance=0.5"])
    assert np.isfinite(metrics_of(out)["history"][0]["train_loss"])
    assert "1 class has no training clip: Squat" in made.notes
    assert "1 class has no training clip: Squat" in made.wrong
    assert run_of(out)["split"]["untrained"] == ["Squat"]


def test_a_balanced_loss_is_each_clips_own_smoothed_one_times_the_weight_of_its_class(monkeypatch):
    """Also of a class without clips, which smoothing must not favour, and in batches of any size."""
    from fitrec_cache.training import fit as module

    n_classes, smoothing = 4, 0.2
    targets = torch.tensor([0] * 6 + [1] * 2 + [2])
    logits = torch.randn(9, n_classes, generator=torch.Generator().manual_seed(0))
    side = module.Held(values=logits[:, None], targets=targets)
    recipe = get_recipe("paper").change(balance=1.0, label_smoothing=smoothing)
    loop = module.Loop(torch.nn.Linear(1, 1), side, None, n_classes, recipe)
    logs = logits.log_softmax(dim=1)
    expected = []
    for row, k in zip(logs.tolist(), targets.tolist(), strict=True):
        own = (1 - smoothing) * -row[k] + smoothing * -sum(row) / n_classes
        expected.append(own * 3 / [6, 2, 1][k])  # each of three classes has a third of nine clips' weight
    assert float(loop._loss(logits, targets)) == pytest.approx(np.mean(expected), rel=1e-5)
    singles = [float(loop._loss(logits[i : i + 1], targets[i : i + 1])) for i in range(9)]
    assert singles == pytest.approx(expected, rel=1e-5)


def test_features_too_large_for_the_recipe_are_refused(tmp_path, features):
    with h5py.File(features, "r+") as file:
        values = file["features"][()].astype(np.float32) * 1e25
        del file["features"]
        file["features"] = values
    with pytest.raises(UsageError, match="too large to be normalised"):
        train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1)


def test_threads_train_one_after_another_and_give_the_same_bits(tmp_path, features):
    def train(name):
        if name == "load":  # also draws numbers: it waits
            return [read_run(tmp_path / "alone") for _ in range(20)] and alone
        train_head(out=tmp_path / name, features=features, variant="vit-lstm", epochs=3)
        return (tmp_path / name / "head.safetensors").read_bytes()

    torch.manual_seed(5)
    before, alone = torch.get_rng_state(), train("alone")
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(train, ["a", "load", "b", "c"]))
    assert found == [alone] * 4
    assert torch.equal(torch.get_rng_state(), before)


@contextlib.contextmanager
def medium_precision():
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    "setting",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16),
        medium_precision,
    ],
    ids=["no_grad", "inference_mode", "autocast", "medium"],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_a_caller_set_of_torch_changes_no_bit(tmp_path, features, setting, precision):
    settings = {"features": features, "variant": "vit-lstm", "epochs": 2, "settings": [f"precision={precision}"]}
    train_head(out=tmp_path / "plain", **settings)
    with setting():
        train_head(out=tmp_path / "inside", **settings)
    for name in ("head.safetensors", "logits.safetensors"):
        assert (tmp_path / "inside" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_features_that_a_caller_put_together_are_as_those_of_a_file(tmp_path, features):
    data = read_pack(features)
    settings = {"variant": "mean", "epochs": 2}
    alike = replace(
        data,
        labels=np.array([f" {label}" for label in data.labels]),
        groups=np.array(data.groups),
        values=torch.from_numpy(data.values),
    )
    for name, given in (("file", features), ("alike", alike)):
        train_head(out=tmp_path / name, features=given, **settings)
    assert same(weights_of(tmp_path / "alike"), weights_of(tmp_path / "file"))
    numbered = replace(data, groups=np.arange(60) // 6)  # 0 is a group, too
    train_head(out=tmp_path / "numbered", features=numbered, **settings)
    assert "without_group" not in run_of(tmp_path / "numbered")["split"]  # none has none
    report = train_head(out=tmp_path / "classes", features=replace(data, labels=np.arange(60) % 3), **settings)
    assert [row["label"] for row in report.runs[0].metrics.per_class] == ["0", "1", "2"]  # numbers are names, too
    tensors = replace(data, clip_ids=torch.arange(60), labels=torch.arange(60) % 3, groups=list(torch.arange(60) // 6))
    report = train_head(out=tmp_path / "tensors", features=tensors, **settings)
    assert [row["label"] for row in report.runs[0].metrics.per_class] == ["0", "1", "2"]
    split = run_of(tmp_path / "tensors")["split"]
    assert {*split["train"], *split["val"], *split["test"]} == set(map(str, range(60)))
    assert set(split["test_groups"]) < set(map(str, range(10)))
    bare = replace(data, groups=[""] * 60)  # as a file has unknown ones
    assert not any("share a group" in note for note in train_head(out=tmp_path / "x", features=bare, **settings).notes)


def test_what_a_notebook_shows_of_runs_has_no_list_of_clips_and_no_tables(tmp_path, features):
    report = train_head(out=tmp_path, features=features, variant="mean", epochs=2, seed=[0, 1], split_seed=0)
    clip = read_pack(features).clip_ids[0]
    assert not any(clip in repr(each) for each in [*read_runs(tmp_path), read_scored(tmp_path / "seed-0")])
    assert report.ensemble["confusion"]
    assert "confusion" not in repr(report)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": ["A"] * 59}, "'labels': 59.*expected one of each for every clip"),
        ({"clip_ids": ["a"] * 60}, "clip ids are repeated"),
        ({"values": np.full((60, 4, 6), np.nan, dtype=np.float32)}, "values that are not finite"),
        ({"values": np.ones((60, 4, 6), dtype=np.uint8)}, r"values of uint8 \(60, 4, 6\), expected floats \(N, T, d\)"),
        ({"values": np.ones((60, 4, 64, 64, 3), dtype=np.uint16)}, "values of uint16 .* or uint8 frames"),
        ({"values": np.ones((60, 4, 32, 32, 3), dtype=np.uint8)}, r"values of uint8 \(60, 4, 32, 32, 3\), expected"),
        ({"labels": ["A"] * 58 + [None, float("nan")]}, "2 clips have no label, such as "),
        ({"labels": np.eye(60)[:, :3]}, r"got \[1.0, 0.0, 0.0\] for one clip, expected one name or number"),
        ({"labels": torch.eye(60)[:, :3]}, r"got \[1.0, 0.0, 0.0\] for one clip"),
        ({"clip_ids": [f"{i}\udcff" for i in range(60)]}, r"undecodable characters in '0\\udcff': rename it"),
        ({"values": np.ones((60, 6), dtype=np.float32)}, r"values of float32 \(60, 6\), .* give values\[:, None\]"),
        ({"contents": ["a" * 64] * 59 + [None]}, "contents hold None, expected texts: hashes of videos"),
        ({"values": None}, "values is None, expected one of each for every clip"),
        ({"clip_ids": None}, "clip_ids is None"),
        ({"labels": None}, "labels is None"),
        ({"values": np.zeros((60, 0, 6), dtype=np.float32)}, r"are empty: values of shape \(60, 0, 6\)"),
    ],
)
def test_features_in_memory_that_do_not_fit_are_refused(tmp_path, features, changes, words):
    with pytest.raises(UsageError, match=f"features in memory.*{words}"):
        train_head(out=tmp_path / "x", features=replace(read_pack(features), **changes), variant="mean")


def test_a_training_is_of_clips_as_they_are_when_it_is_called(tmp_path, features):
    """Labels are altered in a copy, and values in place, as in trials of how much noise matters."""
    data = read_pack(features)
    settings = {"variant": "mean", "epochs": 2, "split": "random", "out": tmp_path / "run"}
    train_head(features=data, **settings)
    before = run_of(tmp_path / "run")["data_sha256"]
    noisy = copy.deepcopy(data)
    noisy.labels[:2] = noisy.labels[-2:]
    with pytest.raises(UsageError, match="made with other settings"):
        train_head(features=noisy, **settings)
    data.values[:] = data.values[::-1].copy()
    train_head(features=data, overwrite=True, **settings)
    assert run_of(tmp_path / "run")["data_sha256"] != before


def test_numbers_may_be_values_of_further_columns(tmp_path, features):
    data = read_pack(features)
    folds = [{"person": i % 3 if i % 2 else str(i % 3), "age": None} for i in range(60)]
    report = train_head(
        out=tmp_path / "x", features=replace(data, extra=folds), variant="mean", epochs=1, split="leave-one:person"
    )
    assert [len(run_of(tmp_path / "x" / f"fold-0{n}-{n - 1}-seed-0")["split"]["test"]) for n in (1, 2, 3)] == [20] * 3
    assert len(report.runs) == 3


def test_runs_of_a_split_by_a_column_that_was_corrected_between_calls_are_two_models(tmp_path, features):
    data = read_pack(features)
    first = replace(data, extra=[{"room": "xyz"[i % 3]} for i in range(60)])
    corrected = replace(data, extra=[{"room": "y"}, *first.extra[1:]])
    one = {"features": first, "out": tmp_path / "1", "seed": [0]}
    others = [{"features": now, "out": tmp_path / f"{i}", "seed": [i]} for i, now in ((2, first), (3, corrected))]
    for call in (one, *others):
        train_head(**call, variant="mean", epochs=1, split="leave-one:room")

    def models():
        return {model.name: model.seeds for model in compare([tmp_path]).models}

    def forget(paths):
        for path in paths:
            run = json.loads(path.read_text())
            assert len(run.pop("column_sha256")) == 64
            path.write_text(json.dumps(run))

    told_apart = models()
    assert {name.rpartition(", ")[2][:-1] for name in told_apart} == {"sides no. "}
    assert sorted(told_apart.values()) == [(0, 2), (3,)]
    forget(tmp_path.glob("1/*/run.json"))  # as an earlier version wrote it
    assert len(models()) == 3
    again = train_head(**one, variant="mean", epochs=1, split="leave-one:room")
    assert "3 of 3 runs were there already, made by the same settings: kept" in again.notes
    assert models() == told_apart
    forget(tmp_path.glob("*/*/run.json"))
    assert list(models().values()) == [(0, 2, 3)]


def test_seeds_of_a_killed_call_by_a_column_belong_to_the_model_of_others(tmp_path, features, monkeypatch):
    data = replace(read_pack(features), extra=[{"room": "xyz"[i % 3]} for i in range(60)])
    call = {"features": data, "variant": "mean", "epochs": 1, "split": "leave-one:room"}
    train_head(**call, out=tmp_path / "1", seed=[0])
    judge, judged = Trainer._judge, []

    def killed_at_the_last(self, job, *rest):
        judged.append(job)
        if len(judged) == 6:
            raise KeyboardInterrupt
        return judge(self, job, *rest)

    monkeypatch.setattr(Trainer, "_judge", killed_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        train_head(**call, out=tmp_path / "2", seed=[1, 2])
    assert [model.seeds for model in compare([tmp_path]).models] == [(0, 1)]


@pytest.mark.parametrize("given", [np.zeros((4, 2, 3)), [[0.0] * 9] * 9])
def test_what_is_no_features_is_told_by_its_type(tmp_path, given):
    with pytest.raises(
        UsageError, match=rf"^features is a {type(given).__name__}: expected a file, or a features.Features$"
    ):
        train_head(out=tmp_path / "x", features=given, variant="mean")


def test_convlstm_which_needs_all_frames_draws_none(tmp_path):
    with pytest.raises(UsageError, match="draw is 3, but convlstm needs all frames of a clip"):
        train_head(out=tmp_path / "run", cache=tmp_path, variant="convlstm", settings=["draw=3"])


def test_a_call_that_is_refused_leaves_the_seeds_that_are_there_to_answer(tmp_path, features):
    usual = {"out": tmp_path / "runs", "features": features, "variant": "mean"}
    train_head(**usual, seed=[0, 1], epochs=1)
    with pytest.raises(UsageError, match=r"seed-0 already holds a run made with other settings \(epochs\)"):
        train_head(**usual, seed=[2, 0, 1], epochs=2)
    assert len(read_runs(tmp_path / "runs")) == 2  # not: seed-2 is not finished


def test_seeds_of_which_one_has_no_final_head_are_not_called_final(tmp_path, cache_folder):
    usual = {"out": tmp_path / "runs", "cache": cache_folder, "variant": "mean", "backbone": ["test_resnet"]}
    assert train_head(**usual, seed=[0, 1], epochs=1, final=True).final
    assert train_head(**usual, seed=[0, 1], epochs=1).final  # they are kept
    later = train_head(**usual, seed=[0, 1, 2], epochs=1)
    assert [(run.out / "final.safetensors").exists() for run in later.runs] == [True, True, False]
    assert not later.final


def test_a_head_of_more_clips_is_trained_for_as_many_epochs_as_were_kept(tmp_path):
    """Not for as many as were looked at, nor for all that were allowed; at a constant rate epochs are all alike."""
    path = toy(tmp_path / "toy.h5", noise=3.0)
    settings = ["keep=best", "refit=true", "schedule=constant"]
    common = {"variant": "resnet50-lstm-attention", "epochs": 40, "patience": 6, "learning_rate": 0.05, "final": True}
    (made,) = train_head(out=tmp_path / "run", features=path, settings=settings, **common).runs
    assert made.best_epoch < made.epochs
    changes = {"epochs": made.best_epoch, "learning_rate": 0.05, "schedule": "constant"}  # keep=last
    for name, sides in (("head", ("train", "val")), ("final", ("train", "val", "test"))):
        by_hand = taught(path, tmp_path / "run", sides, **changes)
        assert same(safetensors.torch.load_file(tmp_path / "run" / f"{name}.safetensors"), by_hand)


def test_a_final_head_added_later_is_trained_for_as_many_epochs_as_were_kept(tmp_path, features, monkeypatch):
    """So small a step changes no weight, so that the first of four epochs is kept; 60 clips are two steps an epoch."""
    common = {"out": tmp_path / "run", "features": features, "variant": "mean", "epochs": 20, "patience": 3}
    common |= {"learning_rate": 1e-30, "settings": ["keep=best", "refit=false"]}
    (run,) = train_head(**common).runs
    assert (run.best_epoch, run.epochs) == (1, 4)
    rates, step = [], AdamW.step
    monkeypatch.setattr(AdamW, "step", lambda self, rate: rates.append(rate) or step(self, rate))
    train_head(**common, final=True)
    assert len(rates) == 2


def test_every_seed_has_heads_of_its_own_on_more_clips_too(features):
    """A head that learns again begins as one of that seed does, and takes batches in the same order."""
    data, recipe = read_pack(features), get_recipe("native").change(epochs=2, refit=False)
    targets = np.array([CLASSES.index(label) for label in data.labels])
    side = Side(values=data.values, targets=targets, clips=np.arange(60))
    given = {"config": recipe.head_config("mean", data.values.shape, n_classes=3, n_train=60, attention=None)}
    heads = [fit_again(side, recipe, 2, seed=seed, **given).state_dict() for seed in (0, 1)]
    once = [fit(side, side, recipe=recipe, seed=seed, **given).head.state_dict() for seed in (0, 1)]
    assert [same(*pair) for pair in zip(heads, once, strict=True)] == [True, True]
    assert not same(*heads)


def test_components_are_of_the_training_clips_alone(tmp_path):
    """A component needs 1.5 of them: 36 of 60 allow for 24."""
    path = toy(tmp_path / "toy.h5", d=64)
    for final in (False, True):
        train_head(out=tmp_path / "run", features=path, variant="mean", epochs=1, final=final)
        assert run_of(tmp_path / "run")["head"]["components"] == 24


def test_the_threshold_for_unknown_minds_recordings(tmp_path, features):
    """Of two groups of six validation clips 1 / 3 is the least that can be told, of 12 clips it would be 1 / 13."""
    data = read_pack(features)
    group_of = dict(zip(data.clip_ids, data.groups, strict=True))
    for rate, blind in ((0.3, True), (0.35, False)):
        out, settings = tmp_path / f"{rate}", {"features": data, "variant": "mean", "epochs": 1}
        report = train_head(out=out, false_alarm_rate=rate, **settings)
        run = run_of(out)
        assert run["val_groups"] == [group_of[clip] for clip in run["split"]["val"]]
        assert len(set(run["val_groups"])) == 2
        assert (run["calibration"]["threshold"] == 0) is blind
        assert any("needs 3 groups of validation clips, and there are 2." in note for note in report.notes) is blind


def test_a_run_knows_each_video_by_its_content(tmp_path, features):
    data = read_pack(features)
    contents = [f"{number:064x}"[::-1] for number in range(60)]  # which differ in front
    train_head(out=tmp_path / "run", features=replace(data, contents=contents), variant="mean", epochs=1)
    run, known = run_of(tmp_path / "run"), dict(zip(data.clip_ids, contents, strict=True))
    for side in ("train", "val", "test"):
        pairs = zip(run["contents"][side], run["split"][side], strict=True)
        assert all(known[clip].startswith(content) and 16 <= len(content) < 64 for content, clip in pairs)


def test_a_split_by_groups_says_of_how_many_clips_none_is_known(tmp_path, features):
    data = read_pack(features)
    train_head(out=tmp_path / "all", features=data, variant="mean", epochs=1)
    run = run_of(tmp_path / "all")
    assert "without_group" not in run["split"]
    alone = {run["split"]["train"][0], run["split"]["val"][0]}
    groups = [None if clip in alone else group for clip, group in zip(data.clip_ids, data.groups, strict=True)]
    found = {}
    for split in ("group", "random"):
        settings = {"features": replace(data, groups=groups), "variant": "mean", "epochs": 1, "split": split}
        train_head(out=tmp_path / split, **settings)
        run = run_of(tmp_path / split)
        found[split] = run["split"].get("without_group"), run["without_group"]
    assert found == {"group": (2, 2), "random": (None, 2)}


def test_chance_in_calibration_minds_recordings(tmp_path):
    """Three copies of each video come out as one: Kish's design effect is 3, so chance errs sqrt(3) times as far."""
    rng, n = np.random.default_rng(0), 40
    labels = [CLASSES[k] for k in np.repeat(rng.integers(0, 3, n), 3)]  # without meaning, so that many are wrong
    with h5py.File(tmp_path / "copies.h5", "w") as file:
        file["features"] = np.repeat(rng.normal(size=(n, 4, 6)), 3, axis=0).astype(np.float16)
        file["clip_id"] = np.array([f"{label}/{i}.avi".encode() for i, label in enumerate(labels)])
        file["label"] = np.array([label.encode() for label in labels])
        file["group"] = np.array([f"r{i // 3}".encode() for i in range(3 * n)])
    settings = {"variant": "mean", "split": "group", "epochs": 2}
    (run,) = train_head(out=tmp_path / "run", features=tmp_path / "copies.h5", **settings).runs
    logits = safetensors.torch.load_file(tmp_path / "run" / "logits.safetensors")["test_logits"].double()
    sure = (logits / run.calibration["temperature"]).softmax(dim=1).amax(dim=1).numpy()
    where = np.minimum((15 * sure).astype(int), 14)
    alone = sum(math.sqrt(2 / math.pi * (sure * (1 - sure))[where == b].sum()) for b in set(where.tolist())) / len(sure)
    assert run.calibration["ece_expected"] == pytest.approx(3**0.5 * alone)


def test_errors_of_confidence_are_told_with_and_without_the_temperature(tmp_path):
    path = toy(tmp_path / "toy.h5", noise=3.0)
    (run,) = train_head(out=tmp_path / "run", features=path, variant="mean", epochs=5).runs
    outputs, told = safetensors.torch.load_file(tmp_path / "run" / "logits.safetensors"), run.calibration
    errors = []
    for temperature in (told["temperature"], 1):
        sure, answer = (outputs["test_logits"].double() / temperature).softmax(dim=1).max(dim=1)
        off, where = sure - (answer == outputs["test_targets"]).double(), (15 * sure).floor()
        errors.append(sum(abs(float(off[where == b].sum())) for b in where.unique()) / len(off))
    assert [told["ece"], told["ece_uncalibrated"]] == pytest.approx(errors)
    assert abs(errors[0] - errors[1]) > 0.01
    of_bins = sum(b["n"] * abs(b["confidence"] - b["accuracy"]) for b in told["bins"])
    assert of_bins / run.n_test == pytest.approx(errors[0])


def test_after_a_refit_test_clips_and_strangers_are_answered_by_the_head_that_is_kept(tmp_path, features):
    train_head(out=tmp_path / "run", features=features, variant="mean", unknown=["Squat"], epochs=3)
    run, data = read_run(tmp_path / "run"), read_pack(features)
    assert run.run_json["training"]["refit"]
    outputs = safetensors.torch.load_file(tmp_path / "run" / "logits.safetensors")
    for side in ("test", "unknown"):
        rows = [data.clip_ids.index(i) for i in run.run_json["split"][side]]
        with torch.inference_mode():
            logits, _ = run.head(torch.from_numpy(data.values[rows]).float())
        torch.testing.assert_close(outputs[f"{side}_logits"], logits)


def test_features_too_many_to_be_float32_at_once_train_the_same_bits(features, monkeypatch):
    recipe = get_recipe("paper").change(epochs=2)  # which normalises nothing
    at_once = fit_once(features, "vit-lstm", recipe, None)
    monkeypatch.setattr(fit_module, "_MOST_FLOATS", 1)
    assert same(fit_once(features, "vit-lstm", recipe, None), at_once)


def test_what_a_training_reports_as_written_is_on_disk(tmp_path, features, monkeypatch):
    flushed, fsync = set(), os.fsync

    def noted(descriptor):
        flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1, final=True)
    written = [tmp_path / "run", *(tmp_path / "run").iterdir()]
    assert {"head.safetensors", "final.safetensors", "run.json"} <= {path.name for path in written}
    assert [path.name for path in written if path.stat().st_ino not in flushed] == []


def test_what_the_history_says_is_the_mean_over_clips(features):
    """So small a step changes no weight; 60 clips are batches of 32 and 28."""
    data = read_pack(features)
    targets = np.array([CLASSES.index(label) for label in data.labels])
    side = Side(values=data.values, targets=targets, clips=np.arange(60))
    recipe = get_recipe("paper").change(learning_rate=1e-30, epochs=1)
    config = recipe.head_config("mean", data.values.shape, n_classes=3, n_train=60, attention=None)
    fitted = fit(side, side, config=config, recipe=recipe, seed=0)
    with torch.inference_mode():
        logits, _ = fitted.head(torch.from_numpy(data.values).float())
    truth, (entry,) = torch.from_numpy(targets), fitted.history
    loss, right = float(F.cross_entropy(logits, truth)), float((logits.argmax(dim=1) == truth).float().mean())
    assert [entry["train_loss"], entry["val_loss"]] == pytest.approx([loss, loss], rel=1e-5)
    assert [entry["train_accuracy"], entry["val_accuracy"]] == pytest.approx([right, right])


def test_a_training_is_pytorchs_own_on_shuffled_batches_with_smoothed_targets_and_decay(features):
    data = read_pack(features)
    targets = np.array([CLASSES.index(label) for label in data.labels])
    side = Side(values=data.values, targets=targets, clips=np.arange(60))
    recipe = get_recipe("paper").change(learning_rate=0.05, epochs=3, batch_size=25, keep="last")
    recipe = recipe.change(weight_decay=0.5, label_smoothing=0.2)
    config = recipe.head_config("mean", data.values.shape, n_classes=3, n_train=60, attention=None)
    fitted = fit(side, side, config=config, recipe=recipe, seed=1)
    values, truth = torch.from_numpy(data.values).float(), torch.from_numpy(targets)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        head = build_head(config)
        optimiser = torch.optim.AdamW(head.parameters(), lr=0.05, weight_decay=0.5)
        for batch in [batch for _ in range(3) for batch in torch.randperm(60).split(25)]:
            optimiser.zero_grad()
            F.cross_entropy(head(values[batch])[0], truth[batch], label_smoothing=0.2).backward()
            optimiser.step()
    for name, value in head.state_dict().items():
        torch.testing.assert_close(fitted.head.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    with torch.inference_mode():
        loss = F.cross_entropy(head.eval()(values)[0], truth)  # on validation clips nothing is smoothed
    assert fitted.history[-1]["val_loss"] == pytest.approx(float(loss), rel=1e-4)


def test_the_audit_that_is_proposed_leaves_the_unknown_classes_out_too(tmp_path, cache_folder, monkeypatch):
    """Otherwise it would make another split, and find another threshold."""
    asked = []
    monkeypatch.setattr(module, "_how_to_look", lambda _, **given: asked.append(given["classes"]))
    monkeypatch.setattr(
        module, "judge_splits", lambda *_, look, **__: (look(0), SimpleNamespace(notes=[], leaks=False, wrong=()))[1]
    )
    settings = {"cache": cache_folder, "variant": "mean", "backbone": "test_resnet", "epochs": 1}
    labels = sorted(Cache(cache_folder).classes())
    train_head(out=tmp_path / "all", **settings)
    train_head(out=tmp_path / "some", **settings, unknown=labels[-1:])
    assert asked == [None, ",".join(labels[:-1])]
