from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from fitrec_cache import learn as module
from fitrec_cache.cache import Cache
from fitrec_cache.errors import UsageError
from fitrec_cache.learn import learn
from fitrec_cache.predict import predict
from fitrec_cache.texts import learn_text

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
    folders = sorted((out / "runs").iterdir())
    names = ["mean-test_resnet", "mean-test_vit", "resnet50-lstm-attention-test_resnet", "vit-lstm-test_vit"]
    assert [folder.name for folder in folders] == names
    assert val_accuracy(report.run) == max(map(val_accuracy, folders)) == pytest.approx(report.chosen.val_accuracy)
    assert report.run.name == f"{report.variant}-{report.backbone}"
    for folder in folders:
        finals = sorted(folder.glob("seed-*/final.safetensors"))
        assert len(finals) == 2 * (folder == report.run)
    runs = [json.loads(path.read_text()) for path in out.glob("runs/*/seed-*/run.json")]
    assert len({json.dumps(run["split"]) for run in runs}) == 1  # else they would be chosen on different clips
    assert report.n_learned == len(Cache(out / "cache").clips()) == 12
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert json.loads((out / "learn.json").read_text()) == json.loads(json.dumps(report.to_dict()))


def test_what_is_taken_answers_videos(learned, video_folder, inline):
    report, _, _, _ = learned
    (answer,) = predict([next(iter(sorted(video_folder.glob("Squat/*.avi"))))], run=report.run, device="cpu")
    assert {label for label, _ in answer.top} == {"Hop", "Lunge", "Squat"}
    assert (answer.heads, answer.trained_on) == (2, True)


def test_test_clips_choose_nothing(learned, video_folder, monkeypatch, tmp_path):
    """Where the order by validation is the reverse of that by test clips, the model that is last on these is taken."""
    _, out, backbones, _ = learned
    shutil.copytree(out, tmp_path / "out")
    compare = module.compare

    def turned(folders):
        found = compare(folders)
        models = [replace(m, accuracy=1 - i / 9, val_accuracy=i / 9) for i, m in enumerate(found.models)]
        return replace(found, models=tuple(models))

    monkeypatch.setattr(module, "compare", turned)
    report = learn(video_folder, out=tmp_path / "out", backbone=backbones, **FAST)
    assert report.chosen == report.models[-1]
    assert Path(report.models[-1].folder).absolute() == report.run.absolute()


def test_its_summary_says_what_it_is_worth_and_how_to_use_it(learned):
    report, out, _, told = learned
    text = learn_text(report)
    assert (
        f"on test clips, which had no part in that: 2 seeds together: accuracy {report.answers['accuracy']:.1%}" in text
    )
    assert report.answers["accuracy"] == report.trained.ensemble["accuracy"]
    assert "since then it has learned from all 12 clips" in text
    assert f"use it: fitrec-cache predict --run '{report.run}' VIDEO" in text
    assert list(report.notes) == told
    assert len(told) == len(set(told))
    assert not any("were there already" in note for note in told)
    assert report.to_dict()["extracted"]["done"] == 12
    assert str(out) in text


def test_a_second_call_makes_nothing_again(learned, video_folder):
    report, out, backbones, _ = learned
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    again = learn(video_folder, out=out, backbone=backbones, **FAST)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")} == times
    assert (again.run, again.chosen, again.extracted.done) == (report.run, report.chosen, 0)


def test_after_further_videos_it_learns_again_if_told(learned, video_folder, tmp_path, inline):
    _, out, backbones, _ = learned
    shutil.copytree(out, tmp_path / "out")
    shutil.copytree(video_folder, tmp_path / "videos")
    more = next(iter(sorted((tmp_path / "videos" / "Hop").glob("*.avi"))))
    data = more.read_bytes()
    (more.parent / "v_Hop_g09_c01.avi").write_bytes(data + b"\0")  # another content to the byte
    with pytest.raises(UsageError, match="add --overwrite"):
        learn(tmp_path / "videos", out=tmp_path / "out", backbone=backbones, **FAST)
    report = learn(tmp_path / "videos", out=tmp_path / "out", backbone=backbones, overwrite=True, **FAST)
    assert (report.n_learned, report.extracted.reused) == (13, 13)  # the call before had extracted it


def test_other_heads_and_classes_can_be_asked_for(video_folder, weights, tmp_path, inline):
    settings = {**FAST, "seed": [3], "variant": ["mean"], "classes": "Hop,Squat"}
    report = learn(video_folder, out=tmp_path / "out", backbone=[weights("test_resnet")], **settings)
    assert [folder.name for folder in (tmp_path / "out" / "runs").iterdir()] == ["mean-test_resnet"]
    assert (report.n_learned, report.chosen.seeds) == (8, (3,))
    assert report.answers["accuracy"] == report.trained.runs[0].metrics.accuracy
    assert "others" not in learn_text(report)
    assert "seeds together" not in learn_text(report)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"variant": ["lrcn"]}, "unknown variant on features 'lrcn'"),
        ({"variant": ["men"]}, "Did you mean 'mean'"),
        ({"split": "kfold:3"}, "split kfold:3 tests by heads of several folds"),
        ({"split": "official1"}, "official"),
        ({"seed": [0, 0]}, "seed"),
        ({"jobs": 0}, "jobs is 0"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_made(video_folder, weights, tmp_path, settings, words):
    with pytest.raises(UsageError, match=words):
        learn(video_folder, out=tmp_path / "out", backbone=[weights("test_resnet")], **{**FAST, **settings})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        ("resnet50", "resnet50-lstm-attention"),
        ("convnext_tiny", "resnet50-lstm-attention"),
        ("tf_efficientnet_lite0", "efficientnet-lstm-attention"),
        ("vit_base_patch32_224", "vit-lstm"),
    ],
)
def test_which_head_goes_with_a_backbone(backbone, head):
    assert module._with_lstm(backbone) == head
