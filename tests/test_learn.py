from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from conftest import unseal
from make_tflite import make_task
from typer.testing import CliRunner

from fitrec_cache import learn as module
from fitrec_cache.cache import Cache, HeldClip
from fitrec_cache.cli import app
from fitrec_cache.errors import StoreCorrupt, StoreError, UsageError
from fitrec_cache.extract import extract
from fitrec_cache.extraction.extract_report import FailedClip
from fitrec_cache.info import info
from fitrec_cache.learn import learn
from fitrec_cache.predict import predict
from fitrec_cache.reproduce import reproduce
from fitrec_cache.runs.learned import time_of_last
from fitrec_cache.runs.run import read_runs
from fitrec_cache.runs.run_files import read_run_settings
from fitrec_cache.settings.variants import heads_for
from fitrec_cache.texts import learn_text

pytestmark = pytest.mark.usefixtures("undrawn")

FAST = {"seed": [0, 1], "epochs": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def learned(tmp_path_factory, video_folder, weights):
    """Twelve clips learned on two backbones; not to be changed."""
    out = tmp_path_factory.mktemp("learned") / "my exercises"
    told = []
    backbones = [weights("test_resnet"), weights("test_vit")]
    return learn(video_folder, out=out, backbone=backbones, **FAST, tell=told.append), out, backbones, told


def val_accuracy(folder):
    """Share of validation clips that a model's heads have right, by what is stored of each."""
    stored = [safetensors.numpy.load_file(path) for path in sorted(folder.glob("seed-*/logits.safetensors"))]
    assert len(stored) == 2
    return np.mean([(s["val_logits"].argmax(axis=1) == s["val_targets"]).mean() for s in stored])


def test_the_model_with_most_validation_clips_right_is_taken_and_learns_from_all(learned):
    report, out, _, _ = learned
    (all_runs,) = (out / "runs").iterdir()
    assert all_runs.name.startswith("12-clips-")
    folders = sorted(path for path in all_runs.iterdir() if path.is_dir())
    stores = sorted(report.extracted.features.values())
    assert [store.split("-native-")[0] for store in stores] == ["test_resnet", "test_vit"]
    heads = ("mean", "resnet50-lstm-attention")
    assert [folder.name for folder in folders] == [f"{head}-{store}" for head in heads for store in stores]
    assert val_accuracy(report.run) == max(map(val_accuracy, folders)) == pytest.approx(report.chosen.val_accuracy)
    assert report.run.name == f"{report.variant}-{report.extracted.features[report.backbone]}"
    for folder in folders:
        finals = sorted(folder.glob("seed-*/final.safetensors"))
        assert len(finals) == 2 * (folder == report.run)
    runs = [json.loads(path.read_text()) for path in all_runs.glob("*/seed-*/run.json")]
    assert len(runs) == 8
    assert len({json.dumps(run["split"]) for run in runs}) == 1  # else they would be chosen on different clips
    assert report.n_learned == len(Cache(out / "cache").clips()) == 12
    assert report.page == all_runs / "report.html"
    assert report.page.read_text().startswith("<!doctype html>")
    told = json.loads((all_runs / "learn.json").read_text())
    assert abs(time.time() - told.pop("ended")) < 600
    assert told == json.loads(json.dumps(report.to_dict()))


def test_all_of_it_needs_no_network_and_its_files_are_private_under_a_umask(
    video_folder, weights, tmp_path, inline, monkeypatch
):
    """As README and guide promise."""

    def refuse(*_):
        raise AssertionError("the network is used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("fitrec_cache.predict.DecoderPool", inline)
    out, before = tmp_path / "out", os.umask(0o077)
    try:
        learn(video_folder, out=out, backbone=[weights("test_resnet")], seed=[0], epochs=1, device="cpu")
        files = {"table": out / "t.csv", "picture": out / "t.png"}
        assert predict([next(video_folder.rglob("*.avi"))], run=out, device="cpu", **files)[0].top
    finally:
        os.umask(before)
    made = list(out.rglob("*"))
    assert len(made) > 20
    assert [path for path in made if path.lstat().st_mode & 0o077] == []


def test_about_how_long_it_trains_is_told_before_and_kept_nowhere(learned):
    report, _, _, told = learned
    (said,) = (note for note in told if note.startswith("training takes "))
    assert re.fullmatch("training takes (less than a|about .*) minutes?: 4 models, each with 2 seeds", said)
    assert said not in report.notes


def test_what_is_taken_answers_videos(learned, video_folder, inline):
    report, _, _, _ = learned
    (answer,) = predict([next(iter(sorted(video_folder.glob("Squat/*.avi"))))], run=report.run, device="cpu")
    assert {label for label, _ in answer.top} == {"Hop", "Lunge", "Squat"}
    assert (answer.heads, answer.trained_on) == (2, True)


def test_the_folder_stands_for_the_model_that_was_taken_last(learned, tmp_path):
    report, out, _, _ = learned
    shutil.copytree(out, tmp_path / "out")
    (first,) = (tmp_path / "out" / "runs").iterdir()
    for folder in (tmp_path / "out", first):
        assert {run.folder.parent for run in read_runs(folder)} == {first / report.run.name}
    other = next(f.name for f in first.iterdir() if f.is_dir() and f.name != report.run.name)
    later = tmp_path / "out" / "runs" / "13-clips"
    shutil.copytree(first, later)
    told = json.loads((later / "learn.json").read_text())
    (later / "learn.json").write_text(json.dumps(told | {"run": f"elsewhere/{other}", "ended": told["ended"] + 1e6}))
    os.utime(later / "learn.json", ns=(1, 1))  # copies have times of their own
    (tmp_path / "out" / "runs" / "14-clips").mkdir()  # of a call that was interrupted
    last = later / other
    shutil.copytree(first / report.run.name, last, dirs_exist_ok=True)  # with final heads
    for folder in (tmp_path / "out", tmp_path / "out" / "runs", later):
        assert {run.folder.parent for run in read_runs(folder)} == {last}
    assert time_of_last(tmp_path / "out") == told["ended"] + 1e6 + 1  # whatever the clock says
    (later / "learn.json").write_text(json.dumps(told | {"ended": time.time() - 1e6}))
    assert time_of_last(tmp_path / "out") == pytest.approx(time.time(), abs=60)
    (later / "learn.json").write_text("{}")
    assert time_of_last(tmp_path / "out") == pytest.approx(time.time(), abs=60)
    with pytest.raises(StoreCorrupt, match=r"learn\.json is damaged: KeyError 'run'. Run the same `learn` again"):
        read_runs(tmp_path / "out")
    with pytest.raises(StoreError, match=r"no cache at .*There is one in .*/cache$"):
        info(cache=out)


def test_an_earlier_result_that_cannot_be_read_does_not_cost_the_new_one(learned, tmp_path, monkeypatch):
    def locked(path):
        raise PermissionError(13, "Permission denied", str(path))

    shutil.copytree(learned[1], tmp_path / "out")
    monkeypatch.setattr("fitrec_cache.runs.run_files.read_file", locked)
    assert time_of_last(tmp_path / "out") == pytest.approx(time.time(), abs=60)


def test_why_clips_cannot_be_split_is_told_before(video_folder, tmp_path):
    shutil.copytree(video_folder, tmp_path / "videos")
    (tmp_path / "videos" / "Squat").rename(tmp_path / "videos" / "hop")
    for folder in (tmp_path / "videos").iterdir():
        for path in sorted(folder.iterdir())[1:]:
            path.unlink()
    told: list[str] = []
    with pytest.raises(UsageError, match="leaves no clips"):
        learn(tmp_path / "videos", out=tmp_path / "out", tell=told.append, **FAST)
    assert any("differ in capitals or spaces only" in note for note in told)
    with pytest.raises(UsageError, match=r"leaves no clips.*Found: .*differ in capitals or spaces only"):
        learn(tmp_path / "videos", out=tmp_path / "out", **FAST)  # as with --json, where nobody is told
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file: expected a folder"):
        learn(tmp_path / "videos", out=tmp_path / "file", **FAST)


def turn(run, *, right, val_loss):
    """Let all validation clips of a run be right, none or all of its test clips, and the kept epoch have this loss."""
    unseal(run)
    stored = safetensors.numpy.load_file(run / "logits.safetensors")
    stored["val_logits"] = np.eye(3, dtype=np.float32)[stored["val_targets"]]
    shown = stored["test_targets"] if right else (stored["test_targets"] + 1) % 3
    stored["test_logits"] = np.eye(3, dtype=np.float32)[shown]
    (run / "logits.safetensors").write_bytes(safetensors.numpy.save(stored))
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["history"][metrics["best_epoch"] - 1] |= {"val_loss": val_loss, "val_accuracy": 1.0}
    (run / "metrics.json").write_text(json.dumps(metrics))


def test_test_clips_choose_nothing(learned, video_folder, tmp_path):
    """Of models with as many validation clips right that of the lowest loss is taken, though no test clip is right."""
    report, out, backbones, _ = learned
    shutil.copytree(out, tmp_path / "out")
    folders = sorted((tmp_path / "out" / "runs").glob("*/*-*"))
    meant = next(folder for folder in folders if folder.name != report.run.name)
    for folder in folders:
        for run in folder.glob("seed-*"):
            turn(run, right=folder != meant, val_loss=0.5 if folder == meant else 1.0)
    again = learn(video_folder, out=tmp_path / "out", backbone=backbones, **FAST)
    assert again.run == meant
    assert {m.val_accuracy for m in again.models} == {1.0}
    assert again.chosen == again.models[-1]  # the last on test clips
    headline = again.page.read_text().split("<h1", 1)[1].split("</h1>")[0]
    assert again.variant in headline
    assert again.backbone in headline


def test_its_summary_says_what_it_is_worth_and_how_to_use_it(learned):
    report, out, _, told = learned
    text = learn_text(report)
    assert f"on test clips, which had no part in that: accuracy {report.answers['accuracy']:.1%} of 3 clips (" in text
    alone = f"one alone {report.chosen.accuracy:.1%} on average"
    assert f"by 2 seeds together, as predict answers; {alone}" in text
    assert report.answers == report.trained.ensemble
    assert "then it was trained again on 12 clips, these included" in text
    assert f"use it: fitrec-cache predict --run '{report.out}' VIDEO" in text
    assert list(report.notes) == [note for note in told if not note.startswith("training takes ")]
    assert len(told) == len(set(told))
    assert not any("were there already" in note for note in told)
    assert not report.leaks
    assert "too high" not in text
    assert report.to_dict()["extracted"]["done"] == 12
    assert str(out) in text


@pytest.mark.parametrize(("other", "close"), [(0.82, False), (0.83, True)])
def test_its_summary_says_where_so_few_validation_clips_hardly_choose(learned, other, close):
    report = learned[0]
    first, *rest = report.trained.runs
    best = replace(report.chosen, val_accuracy=0.9, val_ci95=(0.826, 0.945))
    models = (best, replace(report.models[0], name="another", val_accuracy=other))
    trained = replace(report.trained, runs=(replace(first, n_val=100), *rest))
    text = learn_text(replace(report, chosen=best, models=models, trained=trained))
    assert f"on 100 validation clips (accuracy, mean of its seeds: 90.0%; others: another {other:.1%}" in text
    low, high = report.answers["accuracy_ci95"]
    interval = f"95 % interval {low:.1%} to {high:.1%}; guessing 33.3%"
    told = f"{report.answers['accuracy']:.1%} of 3 clips ({interval}) by 2 seeds"
    assert told in text
    assert ("so close that other clips might have led to another choice)" in text) == close


def test_where_few_clips_say_little_a_command_tests_all_of_them(learned, tmp_path, monkeypatch):
    report, out, *_ = learned
    monkeypatch.setattr(module, "_FOLDS", "kfold:2")  # there are four groups
    features = [report.extracted.features[report.backbone]]
    call = {"cache": out / "cache", "variant": "mean", "backbone": features, "classes": None, "epochs": 1}
    told = module._in_folds(Cache(out / "cache").clips(), "auto", (0.2, 0.9), **call, out=tmp_path / "folds")
    text = learn_text(replace(report, in_folds=told))
    assert f"that interval is wide: `{told}` tests all 12 clips, each by a head that did not" in text
    done = CliRunner().invoke(app, shlex.split(told)[1:])
    assert re.search(r"\nall 2 folds, seed 0: accuracy [\d.]+% of 12 clips", done.output)
    assert report.in_folds is None
    assert "interval is wide" not in learn_text(report)


@pytest.mark.parametrize(
    ("interval", "split", "groups", "told"),
    [
        ((0.5, 0.71), "auto", "abcde", True),
        ((0.5, 0.69), "auto", "abcde", False),
        ((0.5, 0.71), "manifest", "abcde", False),
        ((0.5, 0.71), "random", "aabbb", False),  # two groups cannot be in five folds
    ],
)
def test_the_command_is_told_only_where_it_tells_more_and_can_be_run(interval, split, groups, told):
    clips = [
        HeldClip(clip_id=f"{label}/{i}.avi", label=label, group=group, video_sha256=f"{label}{i}")
        for label in ("Hop", "Squat")
        for i, group in enumerate(groups)
    ]
    found = module._in_folds(clips, split, interval, cache=Path("c"), variant="mean", epochs=None)
    assert found == ("fitrec-cache train-head --cache c --variant mean --split kfold:5" if told else None)


@pytest.mark.parametrize(("low", "told"), [(1 / 3, True), (0.34, False)])
def test_what_is_not_shown_to_be_better_than_guessing_is_said_to_be(learned, low, told):
    report = learned[0]
    trained = replace(report.trained, ensemble=report.trained.ensemble | {"accuracy_ci95": (low, 0.9)})
    assert trained.runs[0].metrics.guessing == 1 / 3
    assert ("not shown to be better than guessing" in learn_text(replace(report, trained=trained))) == told


def test_moved_videos_are_said_to_cost_nothing(learned, tmp_path):
    _, out, backbones, _ = learned
    with pytest.raises(UsageError, match=r"no such file or folder: .*If you moved your videos, give the new place"):
        learn(tmp_path / "before", out=out, backbone=backbones, **FAST)


def test_a_second_call_makes_nothing_again(learned, video_folder):
    report, out, backbones, _ = learned
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    again = learn(video_folder, out=out, backbone=backbones, **FAST | {"seed": FAST["seed"][::-1]})  # in any order
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")} == times
    assert (again.run, again.chosen, again.extracted.done) == (report.run, report.chosen, 0)


def test_how_long_it_trains_is_by_its_own_clips_heads_and_settings(learned, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "training_seconds", lambda heads, **settings: asked.append((heads, settings)) or 700.0)
    _, out, _, _ = learned
    clips = Cache(out / "cache").clips()
    heads = [("mean", 96), ("vit-lstm", 64)]
    said = module._how_long(heads, clips, 3, 7)
    assert said == "training takes about 10 minutes: 2 models, each with 3 seeds"
    ((got, settings),) = asked
    assert got == heads
    assert sum(settings["sides"]) == len(clips) == 12
    assert (settings["n_classes"], settings["frames"], settings["seeds"]) == (3, 20, 3)
    assert (settings["recipe"].epochs, settings["recipe"].steps) == (7, 0)


def test_after_videos_were_added_or_removed_another_recogniser_is_made_beside(learned, video_folder, tmp_path, inline):
    report, out, backbones, _ = learned
    shutil.copytree(out, tmp_path / "out")
    shutil.copytree(video_folder, tmp_path / "videos")
    old = {p: p.read_bytes() for p in (tmp_path / "out" / "runs").rglob("*.safetensors")}
    hops = sorted((tmp_path / "videos" / "Hop").glob("*.avi"))
    (hops[0].parent / "v_Hop_g09_c01.avi").write_bytes(hops[0].read_bytes() + b"\0")  # another content to the byte
    common = {"out": tmp_path / "out", "backbone": backbones, **FAST}
    more = learn(tmp_path / "videos", **common)
    assert (more.n_learned, more.extracted.done, more.extracted.reused) == (13, 1, 12)
    assert more.run.parent != tmp_path / report.run.parent.relative_to(out.parent)
    assert {p: p.read_bytes() for p in old} == old
    hops[0].unlink()
    less = learn(tmp_path / "videos", **common)
    assert any(note == "removed, as not among these videos: 1 clip: Hop/v_Hop_g01_c01.avi" for note in less.notes)
    assert (less.n_learned, less.extracted.done) == (12, 0)
    assert less.run.parent not in (report.run.parent, more.run.parent)
    shutil.copy(video_folder / "Hop" / hops[0].name, hops[0])
    again = learn(tmp_path / "videos", **common)  # nothing is lost: neither features nor heads are made again
    assert (again.n_learned, again.extracted.done, again.run) == (13, 0, more.run)


def test_clips_that_may_only_seem_to_be_missing_are_used(learned, video_folder, tmp_path, inline):
    _, out, backbones, _ = learned
    shutil.copytree(out, tmp_path / "out")
    shutil.copytree(video_folder, tmp_path / "videos")
    (lost := next((tmp_path / "videos" / "Hop").iterdir())).unlink()
    (tmp_path / "videos" / "Hop" / "more").symlink_to(tmp_path / "drive")
    less = learn(tmp_path / "videos", out=tmp_path / "out", backbone=backbones, **FAST)
    assert (less.n_learned, less.extracted.unread) == (12, (str(tmp_path / "videos" / "Hop" / "more"),))
    used = "training will also use 1 clip of the cache not among these videos"
    assert any(note.startswith(f"{used}: Hop/{lost.name}. If") for note in less.notes)


def test_files_renamed_all_at_once_are_split_by_the_groups_that_they_had(learned, video_folder, tmp_path, inline):
    report, out, backbones, _ = learned
    shutil.copytree(out, tmp_path / "out")
    shutil.copytree(video_folder, tmp_path / "videos")
    for number, path in enumerate(sorted((tmp_path / "videos").rglob("*.avi"))):
        path.rename(path.with_name(f"{number}.avi"))  # which says no group
    with pytest.raises(UsageError, match="group"):
        learn(tmp_path / "videos", out=tmp_path / "other", backbone=backbones, split="group", **FAST)
    again = learn(tmp_path / "videos", out=tmp_path / "out", backbone=backbones, split="group", **FAST)
    assert (again.extracted.done, again.n_learned) == (0, report.n_learned)
    groups = {clip.clip_id: clip.group for clip in Cache(tmp_path / "out" / "cache").clips()}
    split = read_run_settings(again.run / "seed-0")["split"]
    sides = [{groups[name] for name in split[side]} for side in ("train", "val", "test")]
    assert None not in set().union(*sides)
    assert not sides[2] & (sides[0] | sides[1])


def test_clips_that_cannot_be_split_take_none_out(learned, video_folder, tmp_path, inline):
    _, out, backbones, _ = learned
    shutil.copytree(out, tmp_path / "out")
    shutil.copytree(video_folder / "Squat", tmp_path / "videos" / "Squat")
    for path in (tmp_path / "videos" / "Squat").iterdir():
        path.rename(path.with_name(path.name.replace("_c01", "_c07")))
    common = {"out": tmp_path / "out", "backbone": backbones, **FAST}
    for classes in (None, "Squat"):
        with pytest.raises(UsageError, match="got one class, 'Squat'"):
            learn(tmp_path / "videos", **common, classes=classes)
    clips = Cache(tmp_path / "out" / "cache").clips()
    assert (len(clips), any(clip.problem for clip in clips)) == (12, False)


def test_a_file_that_fails_now_is_not_said_to_be_useless_where_its_earlier_video_is_used(
    learned, video_folder, tmp_path, inline
):
    report, out, backbones, _ = learned
    shutil.copytree(out, tmp_path / "out")
    shutil.copytree(video_folder, tmp_path / "videos")
    (tmp_path / "videos/Hop/v_Hop_g01_c01.avi").write_bytes(b"no video")
    again = learn(tmp_path / "videos", out=tmp_path / "out", backbone=backbones, **FAST)
    assert (len(again.extracted.failed), again.n_learned, again.left_out) == (1, report.n_learned, ())
    assert not any("cannot be used" in note for note in again.notes)
    assert any("training still uses what is cached" in note for note in again.notes)
    assert learn_text(again).startswith("failed: Hop/v_Hop_g01_c01.avi: a text, not a video")
    assert "left out" not in learn_text(again)


def test_what_a_further_backbone_needs_is_trained_and_nothing_again(learned, video_folder, weights, tmp_path, inline):
    report, out, backbones, _ = learned
    shutil.copytree(out, tmp_path / "out")
    old = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "runs").rglob("head.safetensors")}
    third = [*backbones, weights("test_efficientnet")]
    more = learn(video_folder, out=tmp_path / "out", backbone=third, **FAST)
    assert {p: p.stat().st_mtime_ns for p in old} == old
    assert len(more.models) == len(report.models) + 2


def test_poses_are_taken_beside_each_backbone(learned, video_folder, weights, tmp_path, inline):
    _, out, backbones, _ = learned
    shutil.copytree(out, tmp_path / "out")
    all_of_them = [f"blazepose_full={make_task(tmp_path / 'pose.task')}", *backbones]
    told = []
    report = learn(video_folder, out=tmp_path / "out", backbone=all_of_them, poses=True, **FAST, tell=told.append)
    names = [choice.partition("=")[0] for choice in backbones]
    assert len(report.models) == 4  # the head with an LSTM, and mean, of each backbone
    for name in names:
        assert sum(f"{name}+blazepose_full" in model.name for model in report.models) == 2
    assert "blazepose_full wants" not in "".join(told)  # frames keep their proportions in its square
    widths = report.extracted.backbones
    head = read_run_settings(next(report.run.glob("seed-*")))["head"]
    assert head["input_dim"] == widths[report.backbone.removesuffix("+blazepose_full")] + 225
    assert head["pose_dim"] == 225
    assert report.run.parent.name != learned[0].run.parent.name  # which earlier versions gave models with poses, too
    assert "--poses" not in learn_text(report)
    answer = predict([next(video_folder.glob("Hop/*"))], run=report.run)[0]
    assert len(answer.attention) == 20


@pytest.mark.parametrize(
    ("given", "extracted"),
    [
        (["resnet50"], ["resnet50", "blazepose_full"]),
        (["blazepose_lite=x.task"], ["tf_efficientnet_lite0", "blazepose_lite=x.task"]),
        (["resnet50", "blazepose_lite"], ["resnet50", "blazepose_lite"]),
        (["tf_efficientnet_lite0"], ["tf_efficientnet_lite0", "blazepose_full"]),
    ],
)
def test_the_usual_poses_and_backbone_stand_in_for_those_not_named(
    video_folder, tmp_path, monkeypatch, given, extracted
):
    def stop(*args, backbone, **settings):
        raise StoreError(" ".join(backbone))

    monkeypatch.setattr(module, "extract", stop)
    with pytest.raises(StoreError, match=f"^{' '.join(extracted)}$"):
        learn(video_folder, out=tmp_path / "out", backbone=given, poses=True)


def test_backbones_that_know_different_clips_are_not_compared(learned, video_folder, weights, tmp_path, inline):
    _, out, backbones, _ = learned
    shutil.copytree(out, tmp_path / "out")
    shutil.copytree(video_folder, tmp_path / "videos")
    shutil.rmtree(hops := tmp_path / "videos" / "Hop")
    hops.symlink_to(tmp_path / "drive")
    common = {"out": tmp_path / "out", "backbone": [backbones[0], weights("test_efficientnet")], **FAST}
    with pytest.raises(
        UsageError, match="4 clips have no features of test_efficientnet, from an earlier call: make readable"
    ):
        learn(tmp_path / "videos", **common)
    hops.unlink()
    report = learn(tmp_path / "videos", **common)
    assert report.n_learned == 8
    assert {m.n for m in report.models} == {report.trained.runs[0].n_test}


def test_a_file_in_the_place_of_its_folders_is_told_before_anything_is_decoded(video_folder, weights, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "runs").write_text("mine")
    with pytest.raises(UsageError, match="runs is a file: expected a folder"):
        learn(video_folder, out=tmp_path / "out", backbone=[weights("test_resnet")], **FAST)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["runs"]


def test_a_call_that_was_killed_before_its_cache_was_one_can_be_made_again(video_folder, weights, tmp_path, inline):
    (tmp_path / "out" / "cache").mkdir(parents=True)
    (tmp_path / "out" / "cache" / ".tmp-0-1-x").touch()
    assert learn(video_folder, out=tmp_path / "out", backbone=weights("test_resnet"), **FAST).extracted.done == 12


def test_other_settings_make_another_recogniser_beside(learned, video_folder, tmp_path):
    _, out, backbones, _ = learned
    shutil.copytree(out, tmp_path / "out")
    runs = tmp_path / "out" / "runs"
    for settings in ({"seed": [1]}, {"epochs": 1}, {"split": "random"}, {"variant": ["mean"], "epochs": 3}):
        before = set(runs.iterdir())
        report = learn(video_folder, out=tmp_path / "out", backbone=backbones, **{**FAST, **settings})
        assert {report.run.parent} == set(runs.iterdir()) - before
        assert len(read_runs(report.run)) == len(settings.get("seed", FAST["seed"]))


def test_lists_of_other_content_make_another_recogniser_beside(learned, video_folder, tmp_path):
    _, out, backbones, _ = learned
    shutil.copytree(out, tmp_path / "out")
    names = sorted(path.relative_to(video_folder).as_posix() for path in video_folder.glob("*/*.avi"))
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    settings = {**FAST, "variant": ["mean"], "split": f"list:{train},{test}"}
    found = []
    for n in (2, 3):
        test.write_text("\n".join(names[::4][:n]))
        train.write_text("\n".join(name for name in names if name not in names[::4]))
        found.append(learn(video_folder, out=tmp_path / "out", backbone=backbones[:1], **settings))
    assert found[0].run.parent != found[1].run.parent
    again = learn(video_folder, out=tmp_path / "out", backbone=backbones[:1], **settings)
    assert (again.run, again.earlier, found[1].earlier) == (found[1].run, None, found[0].run)
    assert f"--run {tmp_path / 'out'} meant {found[0].run}, which can still be given" in learn_text(found[1])
    assert "which can still be given" not in learn_text(again)


def test_what_failed_and_what_leaks_is_told(learned, video_folder, weights, tmp_path, inline):
    _, _, backbones, _ = learned
    shutil.copytree(video_folder, tmp_path / "videos")
    broken = tmp_path / "videos" / "Hop" / "v_Hop_g01_c01.avi"
    broken.write_bytes(b"no video")
    common = {"out": tmp_path / "out", "backbone": backbones, **FAST, "split": "random"}
    for path in sorted((tmp_path / "videos").glob("*/*_g02_*")):  # each group twice: a random split parts some
        (path.parent / path.name.replace("_c01", "_c02")).write_bytes(path.read_bytes() + b"\0")
    told = []
    report = learn(tmp_path / "videos", **common, tell=told.append)
    failed = next(note for note in told if "cannot be used" in note)
    assert failed.startswith("1 clip cannot be used (Hop/v_Hop_g01_c01.avi): a text, not a video")
    verdicts = [note for note in told if "leak" in note and "audit" not in note]
    assert {note.split(":")[0] for note in verdicts} == {"test_resnet", "test_vit"}
    assert any("split leaks" in note for note in verdicts)
    assert report.leaks
    assert "probably too high: some test clips share a group with training or look like" in learn_text(report)
    assert "left out: 1 clip that cannot be used (see the notes)\n" in learn_text(report)
    assert report.groups_known
    without = replace(report, leaks=False, groups_known=False)
    assert "; clips of one person or recording may be on both sides, as not all groups are" in learn_text(without)
    assert "a text, not a video" not in learn_text(report)  # which was told before training
    advice = [note for note in told if "shows which clips look alike" in note]
    assert advice
    assert all(f"`fitrec-cache audit --cache {tmp_path / 'out' / 'cache'} --backbone" in note for note in advice)


def test_of_many_clips_and_reasons_some_are_named():
    failed = [FailedClip(clip_id=f"A/{i}.avi", path="", reason=f"reason {i // 8}") for i in range(96)]
    told = module._say_unusable(failed, Path("my cache"))
    names = "A/0.avi, A/1.avi, A/2.avi, A/3.avi, A/4.avi and 3 more"
    assert told[0] == f"8 clips cannot be used ({names}): reason 0"
    assert told[10:] == [
        "16 clips cannot be used for other reasons: `fitrec-cache info --cache 'my cache' --clips` names all"
    ]
    assert len(module._say_unusable(failed[:80], Path("cache"))) == 10


@pytest.mark.parametrize("which", [0, 1, None])
def test_a_leak_that_one_of_the_trainings_found_is_a_leak(learned, video_folder, tmp_path, inline, monkeypatch, which):
    calls, real = [], module.train_head

    def trained(**settings):
        calls.append(settings["variant"])
        return replace(real(**settings), leaks=len(calls) - 1 == which)

    monkeypatch.setattr(module, "train_head", trained)
    _, _, backbones, _ = learned
    assert learn(video_folder, out=tmp_path, backbone=backbones[:1], **FAST).leaks == (which is not None)
    assert len(calls) == 3


def test_where_no_training_can_begin_the_error_says_which_clips_failed(video_folder, weights, tmp_path, inline):
    shutil.copytree(video_folder / "Hop", tmp_path / "videos" / "Hop")
    shutil.copytree(video_folder / "Squat", tmp_path / "videos" / "Squat")
    for path in sorted((tmp_path / "videos" / "Squat").iterdir()):
        path.write_bytes(path.name.encode())
    told, common = [], {"out": tmp_path / "out", "backbone": [weights("test_resnet")], **FAST}
    names = ", ".join(f"Squat/v_Squat_g0{group}_c01.avi" for group in (1, 2, 3, 4))
    failed = f"4 clips cannot be used ({names}): a text, not a video"
    with pytest.raises(UsageError, match=rf"got one class, 'Hop'.*{re.escape(failed)}"):
        learn(tmp_path / "videos", **common)
    with pytest.raises(UsageError, match=r"got one class, 'Hop'.*apart$"):
        learn(tmp_path / "videos", **common, tell=told.append)
    assert [note for note in told if note.startswith(failed)]


def test_other_heads_and_classes_can_be_asked_for(video_folder, weights, tmp_path, inline):
    settings = {**FAST, "seed": [3], "variant": ["mean"], "classes": "Hop,Squat"}
    report = learn(video_folder, out=tmp_path / "out", backbone=[weights("test_resnet")], **settings)
    (folder,) = (tmp_path / "out" / "runs").glob("8-clips-*/*-*")
    assert folder.name.startswith("mean-test_resnet-native-")
    assert (report.n_learned, report.chosen.seeds) == (8, (3,))
    first = report.trained.runs[0]
    assert report.answers["accuracy"] == first.metrics.accuracy
    assert (report.answers["ece"], report.answers["seeds"]) == (first.calibration["ece"], [3])
    told = report.to_dict()
    assert (told["answers"], told["n_learned"]) == (report.answers, 8)
    assert "others" not in learn_text(report)
    assert "seeds together" not in learn_text(report)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"variant": ["lrcn"]}, "unknown variant on features 'lrcn'"),
        ({"variant": ["men"]}, "Did you mean 'mean'"),
        ({"split": "kfold:3"}, "split kfold:3 tests each fold by a head of its own"),
        ({"split": "official1"}, "official"),
        ({"split": "randon"}, "Did you mean 'random'"),
        ({"seed": [0, 0]}, "seed"),
        ({"jobs": 0}, "jobs is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"backbone": ["resnt50"]}, "unknown backbone 'resnt50'"),
        ({"preset": "natve"}, "unknown preset 'natve'"),
        ({"poses": True, "preset": "grid"}, "--poses goes with preset native only, got grid: leave one of them out"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_made(video_folder, weights, tmp_path, settings, words):
    with pytest.raises(UsageError, match=words):
        learn(video_folder, out=tmp_path / "out", **{"backbone": [weights("test_resnet")], **FAST, **settings})
    assert not (tmp_path / "out").exists()


def test_a_split_that_there_is_not_is_told_before_files_are_read_anew(learned, video_folder, monkeypatch):
    _, out, backbones, _ = learned
    monkeypatch.setattr("fitrec_cache.video.contents.content_hash_once", lambda *_: pytest.fail("read"))
    with pytest.raises(UsageError, match="Did you mean 'random'"):
        learn(video_folder, out=out, backbone=backbones, **FAST, split="randon")


def test_where_no_clip_can_be_used_the_reason_is_told(tmp_path, weights, inline):
    for label in ("Hop", "Squat"):
        (tmp_path / "videos" / label).mkdir(parents=True)
        for number in range(6):
            (tmp_path / "videos" / label / f"v_{label}_g{number:02d}_c01.avi").write_text(f"{label}{number}")
    three = [weights(name) for name in ("test_resnet", "test_efficientnet", "test_vit")]
    for made in (
        lambda: learn(tmp_path / "videos", out=tmp_path / "out", backbone=[weights("test_resnet")], **FAST),
        lambda: reproduce(tmp_path / "videos", out=tmp_path / "more", backbone=three, split=["random"], seed=[0]),
    ):
        with pytest.raises(UsageError, match=r"no clip can be used with test_resnet.*, such as Hop/v_Hop_g00_c01.avi:"):
            made()


def test_some_classes_need_a_further_backbone_for_their_own_clips_only(
    learned, video_folder, weights, tmp_path, inline
):
    _, out, backbones, _ = learned
    shutil.copytree(out, tmp_path / "out")
    both = [backbones[0], weights("test_vit")]
    made = learn(video_folder, out=tmp_path / "out", backbone=both, classes="Hop,Squat", **FAST)
    assert {m.name.split(" on ")[1].split(",")[0] for m in made.models} >= {"test_vit"}


def test_a_class_that_is_called_as_no_answer_is_refused_before_anything_is_made(video_folder, weights, tmp_path):
    shutil.copytree(video_folder, tmp_path / "videos")
    (tmp_path / "videos" / "Hop").rename(tmp_path / "videos" / "Unknown")
    with pytest.raises(UsageError, match="class 'Unknown' could not be told from the answer"):
        learn(tmp_path / "videos", out=tmp_path / "out", backbone=[weights("test_resnet")], **FAST)
    with pytest.raises(UsageError, match="class 'Unknown' could not be told from the answer"):
        reproduce(tmp_path / "videos", out=tmp_path / "out", backbone=[weights("test_resnet")] * 3)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        ("resnet50", "resnet50-lstm-attention"),
        ("convnext_tiny", "resnet50-lstm-attention"),
        ("tf_efficientnet_lite0", "efficientnet-lstm-attention"),
        ("vit_base_patch32_224", "vit-lstm"),
        ("deit_tiny_patch16_224", "vit-lstm"),
        ("mobilevit_s", "resnet50-lstm-attention"),
    ],
)
def test_which_head_goes_with_a_backbone(backbone, head):
    assert heads_for(backbone) == (head, "mean")


def test_groups_that_a_cache_has_are_known_to_its_split(learned, video_folder, tmp_path, inline):
    """As of what ``audit`` proposed and ``extract`` took in; the folder of videos says nothing of them."""
    _, out, backbones, _ = learned
    shutil.copytree(out / "cache", tmp_path / "out" / "cache")
    shutil.copytree(video_folder, tmp_path / "videos")
    rows = []
    for label in sorted(each.name for each in (tmp_path / "videos").iterdir()):
        for number, path in enumerate(sorted((tmp_path / "videos" / label).iterdir())):
            path.rename(path.with_name(f"{number}.avi"))
            rows.append(f"{label}/{number}.avi,{label},{label}-{number}\n")
    (tmp_path / "videos" / "groups.csv").write_text("path,label,group\n" + "".join(rows))
    with pytest.raises(UsageError, match="split 'group' needs groups"):
        learn(tmp_path / "videos", out=tmp_path / "other", backbone=backbones, split="group", **FAST)
    extract(tmp_path / "videos" / "groups.csv", cache=tmp_path / "out" / "cache", backbone=backbones)
    found = learn(tmp_path / "videos", out=tmp_path / "out", backbone=backbones, split="group", **FAST)
    assert json.loads((found.run / "seed-0" / "run.json").read_text())["split"]["rule"] == "group"
