from __future__ import annotations

import csv
import json
import os
import random
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import SMALL, InlinePool, more_memory_at_most, unseal
from hostile import odd_runs
from make_video import write_video
from test_train import medium_precision, toy
from test_video import remux
from typer.testing import CliRunner

from fitrec_cache import predict as module
from fitrec_cache.cache import Cache
from fitrec_cache.cli import app
from fitrec_cache.common.devices import own_random_numbers
from fitrec_cache.errors import FitrecError, MismatchError, StoreCorrupt, StoreError, UsageError, VideoError
from fitrec_cache.evaluation.metrics import interval_by_unit, wilson
from fitrec_cache.extract import extract
from fitrec_cache.pipeline import Pipeline
from fitrec_cache.predict import Prediction, figures, predict, units
from fitrec_cache.recogniser import Recogniser
from fitrec_cache.runs.run import read_run, read_runs
from fitrec_cache.runs.scored import read_scored
from fitrec_cache.texts import labelled_text, predict_text
from fitrec_cache.train import train_head
from fitrec_cache.training.pixels import load_pixels
from fitrec_cache.video.decoding import DecodeJob, decode_clip
from fitrec_cache.video.jpeg import decode_frames, encode_frames
from fitrec_cache.video.sampling import frame_indices


@pytest.fixture(autouse=True)
def inline_decoding(monkeypatch):
    monkeypatch.setattr(module, "DecoderPool", InlinePool)


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache_folder):
    out = tmp_path_factory.mktemp("runs") / "run"
    settings = {"variant": "resnet50-lstm-attention", "backbone": ["test_resnet"], "epochs": 3}
    train_head(out=out, cache=cache_folder, **settings)
    return out


def changed_run(run, target, change):
    """Copy a run with its first source changed."""
    shutil.copytree(run, target)
    settings = json.loads((target / "run.json").read_text())
    change(settings["sources"][0])
    (target / "run.json").write_text(json.dumps(settings))
    return target


def held(cache_folder, path):
    """Cached features and times of a clip, float16 (T, d)."""
    cache = Cache(cache_folder)
    clip = next(c for c in cache.clips() if c.clip_id.endswith(path.name))
    return cache.feature_stores()[0].row(clip.video_sha256)


def test_live_features_are_the_cached_ones_bit_for_bit(run, cache_folder, video_folder):
    source = read_run(run).run_json["sources"][0]
    pipeline = Pipeline(source, {}, device="cpu", force=False)
    for path in sorted(video_folder.rglob("*.avi")):
        job = DecodeJob(path=path, samples=pipeline.frames["samples"], short_side=pipeline.frames["short_side"])
        live = pipeline(decode_frames(decode_clip(job).jpegs))
        assert live.tobytes() == held(cache_folder, path)["features"].tobytes()


def test_live_pixels_are_the_cached_ones_bit_for_bit(tmp_path, video_folder, weights, inline):
    for classes in ("Lunge,Squat", None):  # so that parts hold clips in another order than that of their names
        extract(video_folder, cache=tmp_path, backbone=[weights("test_resnet")], classes=classes, **SMALL)
    pixels = load_pixels(Cache(tmp_path))
    pipeline = Pipeline(pixels.sources[0], {}, device="cpu", force=False)
    for path in sorted(video_folder.rglob("*.avi"))[:3]:
        stored = decode_clip(DecodeJob(path=path, samples=4, short_side=64))
        number = next(k for k, i in enumerate(pixels.clip_ids) if i.endswith(path.name))
        assert np.array_equal(pipeline(decode_frames(stored.jpegs)), pixels.values[number])
        assert pixels.pts_seconds[number].tolist() == list(stored.pts_seconds)


def test_a_prediction_is_what_the_head_says_of_the_cached_features(run, cache_folder, video_folder):
    videos = sorted(video_folder.rglob("*.avi"))[::4]
    found = predict(videos, run=run, device="cpu")
    opened = read_run(run)
    for video, prediction in zip(videos, found, strict=True):
        row = held(cache_folder, video)
        with torch.inference_mode():
            logits, attention = opened.head(torch.from_numpy(row["features"])[None].float())
        calibration = opened.run_json["calibration"]
        exp = np.exp(logits[0].double().numpy() / calibration["temperature"])
        expected = dict(zip(["Hop", "Lunge", "Squat"], exp / exp.sum(), strict=True))
        assert prediction.path == str(video)
        assert dict(prediction.top) == pytest.approx(expected, abs=1e-6)
        assert [p for _, p in prediction.top] == sorted((p for _, p in prediction.top), reverse=True)
        assert [t for t, _ in prediction.attention] == row["pts_seconds"].tolist()
        assert [w for _, w in prediction.attention] == pytest.approx(attention[0].tolist(), abs=1e-7)
        assert sum(w for _, w in prediction.attention) == pytest.approx(1, abs=1e-5)


def test_times_are_those_of_a_player(run, tmp_path):
    """Of a camcorder's file the clock begins at some other time; frame i is shown at i / 25 s, also of a part."""
    video = write_video(tmp_path / "a.mkv", 60, pts=[10_000 + 40 * i for i in range(60)])
    for name, numbers in (("a.mkv", 60), ("a.mkv#t=0.4,2", 40)):
        (found,) = predict([tmp_path / name], run=run, device="cpu")
        first = 0 if numbers == 60 else 10
        shown = [(first + i) / 25 for i in frame_indices(numbers, samples=len(found.attention)).tolist()]
        assert [t for t, _ in found.attention] == pytest.approx(shown, abs=1e-3)
    cut = remux(video, tmp_path / "cut.mkv", keep=lambda number: number >= 5)  # nothing decodes until frame 12
    whole, part = predict([cut, f"{cut}#t=0,3"], run=run, device="cpu")
    assert [t for t, _ in whole.attention] == pytest.approx([t for t, _ in part.attention])
    assert whole.attention[0][0] > 7 / 25
    with av.open(str(video)) as container:
        assert container.start_time > av.time_base  # so that this says something


def with_threshold(run, folder, threshold):
    """A copy of a run that answers "unknown" below another probability."""
    shutil.copytree(run, folder)
    settings = json.loads((folder / "run.json").read_text())
    settings["calibration"]["threshold"] = threshold
    (folder / "run.json").write_text(json.dumps(settings))
    return folder


def test_below_the_threshold_of_its_run_an_answer_is_unknown(run, tmp_path, video_folder):
    videos = sorted(video_folder.rglob("*.avi"))[::4]
    highest = [p.top[0][1] for p in predict(videos, run=run, device="cpu")]
    middle = sorted(highest)[1]
    found = predict(videos, run=with_threshold(run, tmp_path / "run", middle), device="cpu")
    assert [p.unknown for p in found] == [h < middle for h in highest]
    assert {p.unknown for p in found} == {True, False}


def test_clips_that_the_head_has_seen_are_told(run, tmp_path, cache_folder, video_folder, monkeypatch):
    split = read_run(run).run_json["split"]
    learned, tested = split["train"][0], split["test"][0]
    copy = tmp_path / "elsewhere" / learned
    copy.parent.mkdir(parents=True)
    shutil.copy(video_folder / learned, copy)
    alone = tmp_path / "new" / Path(learned).name  # of the same name in another folder
    alone.parent.mkdir()
    alone.write_bytes((video_folder / learned).read_bytes() + b"\0")
    videos = [video_folder / learned, video_folder / split["val"][0], copy, video_folder / tested, alone]
    assert [p.trained_on for p in predict(videos, run=run, device="cpu")] == [True, True, True, False, False]
    other = tmp_path / "other" / learned  # a new video, numbered as one of the training
    (other.parent / "sub").mkdir(parents=True)
    other.write_bytes(alone.read_bytes())
    assert not predict([other], run=run, device="cpu")[0].trained_on
    everything = tmp_path / "final"
    train_head(out=everything, cache=cache_folder, backbone=["test_resnet"], variant="mean", epochs=1, final=True)
    assert [p.trained_on for p in predict(videos, run=everything, device="cpu")] == [True, True, True, True, False]
    bare = json.loads((everything / "run.json").read_text())
    del bare["contents"]  # as of features that were made elsewhere: then only names are known
    (everything / "run.json").write_text(json.dumps(bare))
    up = other.parent / "sub" / ".." / other.name  # as given from a folder in it
    found = predict([*videos, other, up], run=everything, device="cpu")
    assert [p.trained_on for p in found] == [True, True, True, True, False, True, True]
    for rename, seen in ((lambda i: f"deep/{i}", False), (lambda i: Path(i).name, True)):
        sides = {side: [rename(i) for i in bare["split"][side]] for side in ("train", "val", "test")}
        (everything / "run.json").write_text(json.dumps(bare | {"split": sides}))
        assert predict([other], run=everything, device="cpu")[0].trained_on == seen
    monkeypatch.chdir(copy.parent)
    said = CliRunner().invoke(app, ["predict", "--run", str(run), "--device", "cpu", copy.name]).output
    assert (
        said.splitlines()[0] == f"{copy.name} (the head was trained on this video: this says nothing about new videos)"
    )


def test_a_video_that_was_renamed_is_known_as_one_of_the_training_by_its_bytes(run, tmp_path, video_folder):
    split = read_run(run).run_json["split"]
    seen = [shutil.copy(video_folder / split["train"][0], tmp_path / "phone_1.avi")]
    seen.append(shutil.copy(video_folder / split["val"][0], tmp_path / "odd#t=1.avi#t=0,1"))
    new = [shutil.copy(video_folder / split["test"][0], tmp_path / "phone_2.avi"), tmp_path / "phone_3.avi"]
    new[1].write_bytes(Path(seen[0]).read_bytes() + b"\0")  # the same pictures in another file: not told
    found = predict([*seen, f"{seen[0]}#t=0,0.2", *new], run=run, device="cpu")
    assert [p.trained_on for p in found] == [True, True, True, False, False]
    bare = json.loads((run / "run.json").read_text())
    del bare["contents"]  # as of features that were made elsewhere, or a run of before
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(json.dumps(bare))
    assert not predict(seen[:1], run=tmp_path / "run", device="cpu")[0].trained_on
    (tmp_path / "run" / "run.json").write_text(json.dumps(bare | {"contents": {"train": []}}))
    with pytest.raises(StoreCorrupt, match=r"'contents' in run\.json is damaged"):
        predict(seen[:1], run=tmp_path / "run", device="cpu")


def test_several_seeds_answer_together(tmp_path, cache_folder, video_folder):
    out = tmp_path / "runs"
    train_head(out=out, cache=cache_folder, backbone=["test_resnet"], variant="mean", seed=[0, 1, 2], epochs=2)
    video = sorted(video_folder.rglob("*.avi"))[0]
    (together,) = predict([video], run=out, device="cpu")
    alone = [predict([video], run=out / f"seed-{s}", device="cpu")[0] for s in (0, 1, 2)]
    expected = {label: sum(dict(a.top)[label] for a in alone) / 3 for label in ("Hop", "Lunge", "Squat")}
    assert dict(together.top) == pytest.approx(expected)
    assert (together.heads, alone[0].heads) == (3, 1)
    for unsure in range(4):  # seeds with a threshold above what they say; of an "unknown" most have a say
        votes = tmp_path / f"{unsure}-of-3"
        for seed in range(3):
            with_threshold(out / f"seed-{seed}", votes / f"seed-{seed}", float(seed < unsure))
        (found,) = predict([video], run=votes, device="cpu")
        assert found.unknown == (unsure >= 2)
    said = CliRunner().invoke(app, ["predict", "--run", str(out), "--device", "cpu", str(video)]).output
    assert "(mean of 3 seeds)" in said


def test_answers_name_the_model_by_all_that_it_answers_by(tmp_path, cache_folder, video_folder):
    out, settings = tmp_path / "runs", {"cache": cache_folder, "backbone": ["test_resnet"], "variant": "mean"}
    train_head(out=out, seed=[0, 1], split_seed=0, epochs=2, **settings)
    copied, other = (shutil.copytree(out / "seed-0", tmp_path / name) for name in ("copied", "other"))
    told = json.loads((other / "run.json").read_text())
    told["calibration"]["temperature"] *= 2
    (other / "run.json").write_text(json.dumps(told))
    video = next(video_folder.rglob("*.avi"))

    def model(run):
        (found,) = predict([video], run=run, device="cpu")
        assert found.to_dict()["model"] == found.model == Recogniser(run, device="cpu").model
        return found.model

    names = [model(run) for run in (out, out / "seed-0", out / "seed-1", other)]
    assert len(set(names)) == 4
    assert model(copied) == names[1]
    train_head(out=out, seed=[0, 1, 2], split_seed=0, epochs=2, **settings)  # of all, every run keeps a calibration
    assert model(out / "seed-0") == names[1]
    assert model(out) not in names
    shutil.rmtree(out / "seed-2")
    assert model(out) == names[0]


def test_seeds_of_one_split_answer_as_their_test_says(tmp_path, cache_folder, video_folder):
    out = tmp_path / "runs"
    settings = {"cache": cache_folder, "backbone": ["test_resnet"], "variant": "mean", "seed": [0, 1], "split_seed": 0}
    report = train_head(out=out, epochs=2, false_alarm_rate=0.4, **settings)
    answers = {p.path: p for p in predict([video_folder], run=out, device="cpu", top=3) if p.top}
    tested = json.loads((out / "seed-0" / "run.json").read_text())["split"]["test"]
    mine = [answers[str(video_folder / clip)] for clip in tested]
    right = [p.top[0][0] == Path(clip).parent.name for p, clip in zip(mine, tested, strict=True)]
    assert np.mean(right) == pytest.approx(report.ensemble["accuracy"])
    assert np.mean([p.unknown for p in mine]) == pytest.approx(report.ensemble["false_alarms"])
    assert all(p.unknown == (p.top[0][1] < report.ensemble["threshold"]) for p in answers.values())
    alone = [{p.path: dict(p.top) for p in predict([video_folder], run=out / f"seed-{s}", top=3)} for s in (0, 1)]
    for path, p in answers.items():
        raised = {
            k: ((alone[0][path][k] + alone[1][path][k]) / 2) ** (1 / report.ensemble["temperature"])
            for k in dict(p.top)
        }
        assert dict(p.top) == pytest.approx({k: v / sum(raised.values()) for k, v in raised.items()}, rel=1e-4)


def test_below_which_probability_an_answer_is_unknown_can_be_said(tmp_path, cache_folder, video_folder):
    out, video = tmp_path / "runs", sorted(video_folder.rglob("*.avi"))[0]
    train_head(out=out, cache=cache_folder, backbone=["test_resnet"], variant="mean", seed=[0, 1], epochs=2)
    (usual,) = predict([video], run=out, device="cpu")
    highest = usual.top[0][1]  # of the mean of both seeds, which is what is shown
    for threshold, unknown in ((highest - 1e-6, False), (highest + 1e-6, True), (0, False), (1, True)):
        (answer,) = predict([video], run=out, device="cpu", unknown_below=threshold)
        assert (answer.unknown, answer.top) == (unknown, usual.top)
        assert answer.answer == answer.to_dict()["answer"] == (None if unknown else usual.top[0][0])
    for odd in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="expected a probability, 0 to 1"):
            predict([video], run=out, device="cpu", unknown_below=odd)
    command = ["predict", "--run", str(out), "--device", "cpu", "--unknown-below", "0.99", str(video)]
    assert "unknown: no class is probable enough" in CliRunner().invoke(app, command).output


def test_a_seed_that_is_not_finished_is_told(tmp_path, cache_folder, video_folder):
    out = tmp_path / "runs"
    train_head(out=out, cache=cache_folder, backbone=["test_resnet"], variant="mean", seed=[0, 1], epochs=2)
    (out / "seed-1" / "run.json").unlink()
    video = sorted(video_folder.rglob("*.avi"))[0]
    with pytest.raises(UsageError, match="not finished: seed-1, so not all seeds can answer"):
        predict([video], run=out, device="cpu")
    assert predict([video], run=out / "seed-0", device="cpu")


def test_runs_of_other_calls_do_not_answer_together(tmp_path, cache_folder, video_folder):
    out = tmp_path / "runs"
    train_head(out=out, cache=cache_folder, backbone=["test_resnet"], variant="mean", seed=[0, 1], epochs=2)
    video = sorted(video_folder.rglob("*.avi"))[0]
    path = out / "seed-1" / "run.json"
    sound = json.loads(path.read_text())
    training = sound["training"] | {"learning_rate": 0.5}
    labels = ["Hop", "Squat", "Lunge"]
    changes = (("labels", labels, "labels"), ("training", training, "learning_rate"), ("data_sha256", "00", "data"))
    for name, change, said in changes:
        path.write_text(json.dumps(sound | {name: change}))
        with pytest.raises(UsageError, match=f"runs of different {said}: expected"):
            predict([video], run=out, device="cpu")
    path.write_text(json.dumps(sound | {"seed": 0}))
    with pytest.raises(UsageError, match="two runs of one seed"):
        predict([video], run=out, device="cpu")
    (out / "seed-1").rename(out / ".seed-0-old")  # hidden, so it is no run, as to `compare` and `report`
    assert predict([video], run=out, device="cpu")[0].top
    shutil.copytree(out / ".seed-0-old", tmp_path / "all" / "model" / ".old")
    with pytest.raises(FitrecError) as told:
        predict([video], run=tmp_path / "all", device="cpu")
    assert "model" not in str(told.value)  # it has no run to be named


def test_seeds_whose_sides_give_other_numbers_of_components_answer_together(tmp_path):
    """With few clips the number of principal components is that of a seed's training frames."""
    features, out = toy(tmp_path / "toy.h5"), tmp_path / "runs"
    for seed, components in ((0, 6), (1, 5)):
        settings = [f"components={components}"]
        folder = out / f"seed-{seed}"
        train_head(out=folder, features=features, variant="mean", seed=[seed], epochs=1, settings=settings)
        run = json.loads((folder / "run.json").read_text())
        assert run["head"]["components"] == components
        run["training"]["components"] = 512  # what was asked for
        (folder / "run.json").write_text(json.dumps(run))
    assert [r.run_json["seed"] for r in read_runs(out)] == [0, 1]


@pytest.mark.parametrize("variant", ["lrcn", "convlstm", "mean"])
def test_every_kind_of_run_predicts(tmp_path, cache_folder, video_folder, variant):
    backbone = ["test_resnet"] if variant == "mean" else []
    train_head(out=tmp_path / "run", cache=cache_folder, variant=variant, backbone=backbone, epochs=1)
    found = predict([next(video_folder.rglob("*.avi"))], run=tmp_path / "run", device="cpu", top=2)
    assert len(found[0].top) == 2
    assert len(found[0].attention) == 4


def test_it_works_after_the_cache_is_gone_and_with_several_seeds(tmp_path, cache_folder, video_folder):
    shutil.copytree(cache_folder, tmp_path / "cache")
    out = tmp_path / "runs"
    train_head(out=out, cache=tmp_path / "cache", variant="mean", backbone=["test_resnet"], seed=[0, 1], epochs=2)
    shutil.rmtree(tmp_path / "cache")
    assert predict([next(video_folder.rglob("*.avi"))], run=out, device="cpu")[0].top


def test_a_run_is_opened_while_a_head_is_trained_and_leaves_random_numbers_alone(run):
    before, opened = torch.get_rng_state(), []
    with own_random_numbers():  # as a training holds them
        (reading := threading.Thread(target=lambda: opened.append(read_run(run)))).start()
        reading.join(timeout=60)
    assert opened
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_videos_have_a_reason_and_cost_themselves_only(run, tmp_path, video_folder):
    (tmp_path / "empty.mp4").touch()
    good = next(video_folder.rglob("*.avi"))
    found = predict([tmp_path / "gone.mp4", tmp_path / "empty.mp4", good], run=run, device="cpu")
    assert [p.reason for p in found] == ["file not found", "file is empty (0 bytes): copy or download it again", ""]
    assert [bool(p.top) for p in found] == [False, False, True]
    assert found[0].to_dict() == {
        "path": str(tmp_path / "gone.mp4"),
        "answer": None,
        "top": [],
        "attention": [],
        "unknown": False,
        "may_be_unknown": False,
        "heads": 1,
        "model": found[2].model,
        "trained_on": False,
        "median_lengths": None,
        "warnings": [],
        "reason": "file not found",
    }


def test_a_part_of_a_video_is_answered_by_its_own_frames(run, tmp_path, video_folder):
    (tmp_path / "Squat").mkdir()
    video = tmp_path / "Squat" / "long.mp4"
    write_video(video, 60, width=64, height=64)  # 25 frames a second
    shutil.copy(video, odd := tmp_path / "odd#t=1.mp4#t=1,2")
    samples = read_run(run).run_json["sources"][0]["identity"]["frames"]["samples"]
    asked = [video, Path(f"{video}#t=0.4,2"), odd, Path(f"{video}#t=2,1")]
    asked += [Path("#t=1,2"), tmp_path / ("x" * 300)]
    whole, part, named, bad, none, long = predict(asked, run=run, device="cpu")
    expected = [(10 + i * 40 // (samples + 1)) / 25 for i in range(1, samples + 1)]
    assert [t for t, _ in part.attention] == pytest.approx(expected)
    assert part.path == f"{video}#t=0.4,2"
    assert part.warnings == ()
    (past,) = predict([Path(f"{video}#t=2,9")], run=run, device="cpu")
    assert past.warnings == ("its part #t=2,9 (seconds) ends after the last frame, which is at 2.36 s",)
    assert f"  {past.warnings[0]}" in predict_text(past).splitlines()
    assert [t for t, _ in named.attention] == [t for t, _ in whole.attention]
    assert (bad.top, bad.reason) == ((), "got 2 to 1 s: expected an end after the start")
    assert none.reason == "got '#t=1,2': expected a file before the times"
    assert "name too long" in long.reason.lower()


def test_a_video_whose_embeddings_are_no_numbers_costs_itself_only(run, video_folder, monkeypatch):
    real, videos = Pipeline.__call__, sorted(video_folder.rglob("*.avi"))[:2]
    seen = []

    def embed(self, frames):
        seen.append(len(seen))
        if len(seen) == 1:
            raise VideoError("embeddings are not finite in fp16")
        return real(self, frames)

    monkeypatch.setattr(Pipeline, "__call__", embed)
    bad, good = predict(videos, run=run, device="cpu")
    assert (bad.reason, bad.top) == ("embeddings are not finite in fp16", ())
    assert good.top


def test_memory_that_was_freed_is_kept_for_the_next_video(run, video_folder, monkeypatch):
    """By `predict` and `watch`, which both make a recogniser; test_memory says what that does."""
    calls = []
    monkeypatch.setattr("fitrec_cache.recogniser.keep_freed_memory", lambda: calls.append(1))
    predict([next(video_folder.rglob("*.avi"))], run=run, device="cpu")
    assert calls == [1]


def test_a_recogniser_answers_a_file_as_predict_does(run, tmp_path, video_folder):
    video, recogniser = next(video_folder.rglob("*.avi")), Recogniser(run, device="cpu")
    (found,) = predict([video], run=run, device="cpu", top=3)
    for path in (video, str(video)):
        answer = recogniser.answer(path)
        assert (answer.top, answer.weights) == (found.top, tuple(weight for _, weight in found.attention))
    (tmp_path / "note.mp4").write_text("no video")
    with pytest.raises(VideoError, match="not a video"):
        recogniser.answer(tmp_path / "note.mp4")


def test_several_threads_may_ask_one_recogniser(run):
    recogniser = Recogniser(run, device="cpu")
    (side,) = recogniser.short_sides
    rng = np.random.default_rng(0)
    clips = [encode_frames(rng.integers(0, 256, (recogniser.samples, 48, side, 3), np.uint8)) for _ in range(6)]
    alone = [recogniser({side: frames}) for frames in clips]
    assert len({answer.top[0][1] for answer in alone}) == 6
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda frames: recogniser({side: frames}), clips * 5)) == alone * 5


@pytest.mark.parametrize("set_by_caller", [lambda: torch.autocast("cpu", torch.bfloat16), medium_precision])
def test_what_a_caller_set_of_torch_changes_no_answer(run, set_by_caller):
    recogniser = Recogniser(run, device="cpu")
    (side,) = recogniser.short_sides
    noise = np.random.default_rng(0).integers(0, 256, (recogniser.samples, 48, side, 3), np.uint8)
    frames = {side: encode_frames(noise)}
    alone = recogniser(frames)
    with set_by_caller():
        assert recogniser(frames) == alone
        assert Recogniser(run, device="cpu")(frames) == alone


def test_a_folder_that_cannot_be_read_is_told_so_also_where_labels_are_asked_for(run, monkeypatch):
    error = PermissionError(13, "Permission denied", "videos")
    monkeypatch.setattr(module, "_files", lambda *_: ([], [error]))
    (found,) = predict(["videos"], run=run, device="cpu", labelled=True)
    assert (found.path, found.reason) == ("videos", "folder cannot be read: Permission denied")


def test_frames_in_memory_that_are_no_clip_are_refused(run):
    recogniser = Recogniser(run, device="cpu")
    (side,) = recogniser.short_sides
    frames = encode_frames(np.zeros((recogniser.samples, 48, side, 3), np.uint8))
    assert len(recogniser({side: frames}).top) == len(recogniser.labels)
    for given, got in (
        (frames, "a list"),
        ({side + 1: frames}, rf"short sides \[{side + 1}\]"),
        ({}, r"short sides \[\]"),
    ):
        wanted = rf"got {got}, expected {recogniser.samples} JPEG files for each of the short sides \[{side}\]"
        with pytest.raises(UsageError, match=wanted):
            recogniser(given)
    as_views = {side: [*map(memoryview, frames[:2]), *map(bytearray, frames[2:])]}
    assert recogniser(as_views | {side + 1: []}) == recogniser({side: frames})
    with pytest.raises(UsageError, match="frames of one clip: it is no JPEG file"):
        recogniser({side: [*frames[1:], b"\x89PNG\r\n"]})
    for given in ({side: frames[1:]}, {side: [None] * recogniser.samples}):
        with pytest.raises(UsageError, match=f"expected {recogniser.samples} JPEG files"):
            recogniser(given)
    for items, got in (
        (frames[1:], f"got {len(frames) - 1} \\(bytes\\)"),
        ([*frames[1:], None], f"got {len(frames)} \\(NoneType, bytes\\)"),
        (None, "got none"),
        (np.zeros(len(frames)), "got a ndarray"),
        (iter(frames), "got a list_iterator"),
    ):
        with pytest.raises(UsageError, match=f"^frames of one clip: {got} of a short side of {side} pixels, expected"):
            recogniser({side: items})
    small = encode_frames(np.zeros((1, 40, side, 3), np.uint8))
    for item in (b"no picture", frames[0][:50], *small):
        with pytest.raises(UsageError, match=r"^frames of one clip: .*Expected JPEG files of one size$"):
            recogniser({side: [*frames[1:], item]})
    large = encode_frames(np.zeros((recogniser.samples, side + 2, side + 1, 3), np.uint8))
    with pytest.raises(UsageError, match=f"expected a short side of at most {side}"):
        recogniser({side: large})


def test_an_answer_is_plain_json_and_a_recogniser_a_line(run):
    recogniser = Recogniser(run, device="cpu")
    (side,), n = recogniser.short_sides, len(recogniser.labels)
    told = f"Recogniser({n} classes, 1 head, samples={recogniser.samples}, short_sides=[{side}])"
    assert repr(recogniser) == told
    answer = recogniser({side: encode_frames(np.zeros((recogniser.samples, 48, side, 3), np.uint8))})
    found = json.loads(json.dumps(answer.to_dict()))
    assert found.keys() == {"answer", "top", "weights", "unknown"}
    assert [(each["label"], each["probability"]) for each in found["top"]] == list(answer.top)
    assert found["weights"] == list(answer.weights)
    assert found["answer"] == answer.answer == answer.top[0][0]
    assert replace(answer, unknown=True).to_dict()["answer"] is None


def test_a_video_without_an_answer_says_of_the_model_what_others_do(run, video_folder, tmp_path):
    good = next(video_folder.rglob("*.avi"))
    found = predict([tmp_path / "gone.avi", good], run=run, device="cpu")
    assert [bool(each.reason) for each in found] == [True, False]
    assert {(each.heads, each.may_be_unknown) for each in found} == {(1, False)}


def test_a_backbone_that_the_run_does_not_use_is_refused(run, tmp_path, cache_folder, video_folder):
    video = [next(video_folder.rglob("*.avi"))]
    with pytest.raises(UsageError, match="one is given twice, expected each once"):
        predict(video, run=run, device="cpu", backbone=["test_resnet=a", "test_resnet=b"])
    train_head(out=tmp_path / "run", cache=cache_folder, variant="lrcn", epochs=1)
    with pytest.raises(UsageError, match="learned from frames, without a backbone: leave --backbone test_resnet=a out"):
        predict(video, run=tmp_path / "run", device="cpu", backbone=["test_resnet=a"])


def test_a_folder_that_cannot_be_read_is_told_and_costs_no_other_answer(run, tmp_path, video_folder, monkeypatch):
    shutil.copytree(video_folder / "Hop", tmp_path / "videos" / "open")
    (tmp_path / "videos" / "closed").mkdir()
    walk = os.walk

    def closed(top, onerror=None, **more):  # root can read every folder
        for where, folders, files in walk(top, onerror=onerror, **more):
            if where.endswith("closed"):
                onerror(PermissionError(13, "Permission denied", where))
            else:
                yield where, folders, files

    monkeypatch.setattr(os, "walk", closed)
    found = predict([tmp_path / "videos"], run=run, device="cpu")
    assert found[0].path == str(tmp_path / "videos" / "closed")
    assert found[0].reason == "folder cannot be read: Permission denied"
    assert [bool(p.top) for p in found[1:]] == [True] * len(list((video_folder / "Hop").iterdir()))


def test_a_name_that_is_no_text_is_shown_as_text(run, tmp_path, video_folder):
    path = tmp_path / os.fsdecode(b"\xfcbung.avi")
    shutil.copy(next(video_folder.rglob("*.avi")), path)
    said = predict_text(predict([path], run=run, device="cpu")[0])
    assert said.encode()
    assert r"\xfcbung.avi" in said


def test_the_picture_says_unknown_where_the_answer_does(run, tmp_path, video_folder, monkeypatch):
    titles = []
    monkeypatch.setattr(
        "fitrec_cache.runs.attention_picture.attention_png", lambda strips, _: titles.extend(s.title for s in strips)
    )
    modest = shutil.copytree(run, tmp_path / "modest")
    settings = json.loads((modest / "run.json").read_text())
    settings["calibration"]["threshold"] = 1.0  # nothing is sure enough
    (modest / "run.json").write_text(json.dumps(settings))
    video = sorted(video_folder.rglob("*.avi"))[0]
    predict([video], run=modest, device="cpu", picture=tmp_path / "p.png")
    assert titles == [f"{video.parent.name}/{video.name}: unknown"]


def test_the_picture_shows_each_video(run, tmp_path, video_folder):
    video = next(video_folder.rglob("*.avi"))
    predict([video], run=run, device="cpu", picture=tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
    (tmp_path / "empty.mp4").touch()
    found = predict([tmp_path / "empty.mp4"], run=run, device="cpu", picture=tmp_path / "q.png")
    assert found[0].reason == "file is empty (0 bytes): copy or download it again"
    (tmp_path / "folder.png").mkdir()
    refused = dict.fromkeys(("none/q.png", "q" * 300 + ".png"), "cannot be written") | {"folder.png": "is not a file"}
    for name, message in (refused | {"p.gif": r"expected a name that ends in \.png"}).items():
        InlinePool.decoded = []
        with pytest.raises(UsageError, match=f"--picture .*{message}"):
            predict([video], run=run, device="cpu", picture=tmp_path / name)
        assert InlinePool.decoded == []  # found before the work
    with pytest.raises(UsageError, match="backbone of this run 'resnet50'"):
        predict([video], run=run, device="cpu", backbone=["resnet50=x.pth"])
    assert not (tmp_path / "q.png").exists()


def test_a_folder_stands_for_the_videos_below_it_and_answers_come_one_by_one(run, tmp_path, video_folder):
    folder = shutil.copytree(video_folder / "Hop", tmp_path / "new" / "Hop").parent
    (folder / "notes.txt").write_text("no video")
    (folder / "broken.mp4").write_bytes(b"x")
    (folder / "._broken.mp4").write_bytes(b"x")
    (folder / ".trash").mkdir()
    (folder / ".trash" / "old.mp4").write_bytes(b"x")
    (folder / "folder.mp4").mkdir()
    shutil.move(folder / "Hop", tmp_path / "Hop")
    (folder / "Hop").symlink_to(tmp_path / "Hop")
    told, table = [], tmp_path / "answers.csv"
    found = predict([folder], run=run, device="cpu", table=table, tell=lambda p: told.append((p, table.exists())))
    assert [Path(p.path).name for p, _ in told] == [*(f"v_Hop_g0{i}_c01.avi" for i in (1, 2, 3, 4)), "broken.mp4"]
    assert [p for p, _ in told] == found
    assert not any(exists for _, exists in told)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["path"] for row in rows] == [p.path for p in found]
    assert [row["nearest"] for row in rows] == [*(p.top[0][0] for p in found[:4]), ""]
    assert [float(row["probability"] or -1) for row in rows] == pytest.approx(
        [*(p.top[0][1] for p in found[:4]), -1], abs=1e-4
    )
    assert rows[4]["problem"] == found[4].reason
    classes = [f"p_{label}" for label in read_run(run).labels]
    assert list(rows[0]) == ["path", "answer", "nearest", "probability", "problem", "model", *classes]
    predict([folder / "broken.mp4"], run=run, device="cpu", table=table)  # an earlier one is replaced
    assert len(table.read_text().splitlines()) == 2
    trained = (run / "answers.csv").read_text()  # a table of answers, too, but of the training
    for text in ("path,label\n", trained):
        (tmp_path / "mine.csv").write_text(text)
        with pytest.raises(UsageError, match=r"--table .*mine\.csv exists and is not a table of answers"):
            predict([folder], run=run, device="cpu", table=tmp_path / "mine.csv")
        assert (tmp_path / "mine.csv").read_text() == text
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match=r"no video in .*none: expected files of type \.avi"):
        predict([tmp_path / "none"], run=run, device="cpu")


def test_as_many_videos_are_decoded_at_once_as_there_are_cores(run, tmp_path, monkeypatch, video_folder):
    events, started = [], []

    class Pool(InlinePool):
        def __init__(self, *, workers: int, time_limit: float) -> None:
            super().__init__(workers=workers, time_limit=time_limit)
            started.append(workers)

        def submit(self, job):
            events.append(("queued", job.path.name))
            outcome = super().submit(job)
            return lambda: (events.append(("awaited", job.path.name)), outcome())[1]

    monkeypatch.setattr(module, "DecoderPool", Pool)
    monkeypatch.setattr(module, "cores", lambda: 3)
    videos = sorted(video_folder.rglob("*.avi"))[:4]
    (tmp_path / "bad.avi").write_bytes(b"no video")
    videos.insert(1, tmp_path / "bad.avi")
    found = predict(videos, run=run, device="cpu", tell=lambda p: events.append(("told", Path(p.path).name)))
    assert [p.path for p in found] == [str(v) for v in videos]
    assert [bool(p.reason) for p in found] == [False, True, False, False, False]
    names = [v.name for v in videos]
    turns = [
        [(what, name) for what in ("queued", "awaited", "told") for name in some] for some in (names[:3], names[3:])
    ]
    assert events == [*turns[0], *turns[1]]
    assert [p.top for p in found if p.top] == [
        predict([v], run=run, device="cpu")[0].top for v in videos if v.parent != tmp_path
    ]
    assert started == [3, 1, 1, 1, 1]


def test_labelled_videos_say_how_many_answers_are_right(run, tmp_path, cache_folder, video_folder):
    labels = read_run(run).labels
    videos = sorted(video_folder.rglob("*.avi"))
    new = tmp_path / "new"
    for i, path in enumerate(videos):  # names that the head has not seen, and a class that it does not know
        target = new / (path.parent.name if i else "Row") / f"{i}.avi"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes() + b"\0")
    table = tmp_path / "t.csv"
    found = predict([new, videos[0]], run=run, device="cpu", labelled=True, table=table, top=1)
    *copies, strange, seen = sorted(found, key=lambda p: (p.path.startswith(str(video_folder)), "Row" in p.path))
    assert all(len(p.top) == 1 for p in found)
    assert [p.right for p in copies] == [p.top[0][0] == Path(p.path).parent.name for p in copies]
    assert (strange.label, strange.right) == ("Row", None)
    right = sum(p.right for p in copies)
    said = labelled_text(found)
    n = len(copies) + (not seen.trained_on)
    right += bool(seen.right) and not seen.trained_on
    assert said.startswith(f"right: {right} of {n} labelled videos: {right / n:.1%} (")
    assert "left out, of classes that the head does not know: Row" in said
    rows = {row["path"]: row for row in csv.DictReader(table.read_text().splitlines())}
    assert rows[strange.path]["label"] == "Row"
    for p in found:
        chances = [float(rows[p.path][f"p_{label}"]) for label in labels]
        assert sum(chances) == pytest.approx(1, abs=1e-3)
        assert max(chances) == pytest.approx(p.top[0][1], abs=1e-4)
    (new / labels[0].upper() / "anna").mkdir(parents=True)
    deep = Path(shutil.copy(videos[1], new / labels[0].upper() / "anna" / "1.avi"))
    assert predict([deep], run=run, device="cpu", labelled=True)[0].label == labels[0]
    unknown = tmp_path / labels[0] / "2026" / "Biking"
    unknown.mkdir(parents=True)
    shutil.copy(videos[1], unknown / "2.avi")
    both = [tmp_path / labels[0] / "2026", deep]
    assert [p.label for p in predict(both, run=run, device="cpu", labelled=True)] == ["Biking", labels[0]]
    (deep.parent / "sub").mkdir()
    up = deep.parent / "sub" / ".." / "1.avi"  # as given from a folder in it
    assert predict([up], run=run, device="cpu", labelled=True)[0].label == labels[0]
    (within := new / labels[0] / labels[1]).mkdir(parents=True, exist_ok=True)  # the nearest counts
    within = Path(shutil.copy(videos[1], within / "3.avi"))
    assert {p.path: p.label for p in predict([new], run=run, device="cpu", labelled=True)}[str(within)] == labels[1]
    with pytest.raises(
        UsageError, match=f"no video is labelled as a class of this head.*got Row, .*such as {labels[0]}"
    ):
        predict([new / "Row"], run=run, device="cpu", labelled=True)


def test_a_manifest_gives_videos_parts_classes_and_groups(run, tmp_path, video_folder):
    labels = read_run(run).labels
    (tmp_path / labels[0]).mkdir()
    for name in ("a.avi", "b.avi"):
        copied = shutil.copy(next(video_folder.rglob("*.avi")), tmp_path / labels[0] / name)
        Path(copied).write_bytes(Path(copied).read_bytes() + b"\0")
    rows = [
        f"a.avi,{labels[1]},anna,0,0.1",
        f"a.avi,{labels[0]},anna,0.1,",
        f"b.avi,{labels[1]},anna,,",
        "c.avi,Row,,,",
    ]
    manifest = tmp_path / labels[0] / "test.csv"
    manifest.write_text("\n".join(["path,label,group,start,end", *rows]))
    found = predict([manifest], run=run, device="cpu", labelled=True)
    assert [Path(p.path).name for p in found] == ["a.avi#t=0,0.1", "a.avi#t=0.1", "b.avi", "c.avi"]
    assert [p.label for p in found] == [labels[1], labels[0], labels[1], "Row"]
    assert [p.right for p in found] == [*(p.top[0][0] == p.label for p in found[:3]), None]
    assert "not found" in found[3].reason
    assert units(found) == ["group anna"] * 3 + [f"clip {found[3].path}"]
    assert [p.to_dict().get("group") for p in found] == ["anna", "anna", "anna", None]
    (plain,) = predict([manifest], run=run, device="cpu")  # without classes it is no video like another
    assert "not a video" in plain.reason
    told = []
    manifest.write_text(f"path,label,start,end,first_frame\na.avi,{labels[1].upper()},0,0.1,3\nb.avi,,0,0.1,4\n")
    (one,) = predict([manifest], run=run, device="cpu", labelled=True, note=told.append)
    assert one.label == labels[1]
    assert f"{manifest}: 1 part without a label left out" in told
    assert any("column first_frame is kept but not used" in text for text in told)
    table = tmp_path / "t.csv"
    for _ in range(2):  # the second time it lies among the videos
        again = predict([*tmp_path.glob("t.csv"), manifest], run=run, device="cpu", labelled=True, table=table)
    assert [Path(p.path).name for p in again] == ["t.csv", "a.avi#t=0,0.1"]
    manifest.write_text("path,label\nx.avi,Hop\n")
    with pytest.raises(UsageError, match=r"no such file: .*with paths relative to the folder of their manifest"):
        predict([manifest], run=run, device="cpu", labelled=True)


def test_a_video_given_twice_has_each_time_the_class_that_was_given_there(run, tmp_path, video_folder):
    labels = read_run(run).labels
    video = shutil.copy(next(video_folder.rglob("*.avi")), tmp_path / "a.avi")
    for name, label in (("one.csv", labels[0]), ("two.csv", labels[1])):
        (tmp_path / name).write_text(f"path,label,group\na.avi,{label},{name}\n")
    found = predict([tmp_path / "one.csv", tmp_path / "two.csv", video], run=run, device="cpu", labelled=True)
    assert [(p.label, p.group) for p in found[:2]] == [(labels[0], "one.csv"), (labels[1], "two.csv")]
    assert (found[2].label, found[2].group) == (tmp_path.name, None)


def test_a_folder_whose_name_is_no_text_costs_no_answers(run, tmp_path, video_folder):
    label = json.loads((run / "run.json").read_text())["labels"][0]
    for name in (os.fsencode(label), b"K\xfc"):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/new/" + name))
        folder.mkdir(parents=True)
        shutil.copy(next(video_folder.rglob("*.avi")), folder / "1.avi")
    predict([tmp_path / "new"], run=run, device="cpu", labelled=True, table=tmp_path / "t.csv")
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert sorted(row["label"] for row in rows) == sorted([label, r"K\xfc"])


def test_a_video_much_longer_than_the_clips_of_the_training_is_sent_to_watch(run, tmp_path, video_folder):
    other = shutil.copytree(run, tmp_path / "other")
    settings = json.loads((run / "run.json").read_text())
    video = next(video_folder.rglob("*.avi"))
    length = settings["clip_seconds"]
    assert predict([video], run=run, device="cpu")[0].median_lengths == pytest.approx(1, abs=0.3)
    for seconds, told in ((length / 6, True), (length / 2, False), (None, False)):
        (other / "run.json").write_text(json.dumps(settings | {"clip_seconds": seconds}))
        found = predict([video], run=other, device="cpu")[0]
        assert ("times as long as the clips trained on: `watch`" in predict_text(found)) == told
        assert found.to_dict()["median_lengths"] == found.median_lengths


def test_what_labelled_videos_were_taken_for_is_told():
    def answer(label, top, **more):
        right = top == label if label != "Row" else None
        return Prediction(path="v", label=label, top=((top, 0.9),), right=right, **more)

    found = [answer("Hop", "Hop"), answer("Hop", "Clap"), answer("Hop", "Clap", unknown=True), answer("Row", "Hop")]
    found += [answer("Clap", top, trained_on=True) for top in ("Clap", "Hop")]
    found += [Prediction(path="w", label="Hop", reason="file is empty")]
    found = [replace(p, path=f"{i}.mp4") for i, p in enumerate(found)]
    assert labelled_text(found).splitlines() == [
        "right: 1 of 3 labelled videos: 33.3% (95 % interval 6.1% to 79.2% if clips are independent; guessing 100.0%), "
        "macro F1 50.0%",
        "  Hop taken for Clap: 2",
        "  1 of these were answered unknown, and the nearest class counted; of the other 2, 1 are right",
        "  left out, as they are training videos, or named like them where the run does not know their bytes: 2, 1 of "
        "them right",
        "  left out, of classes that the head does not know: Row",
    ]


def test_figures_of_labelled_videos_count_recordings():
    """Videos of one group, by their names, and parts of one file are not independent."""

    def answers(paths):
        tops = [(("Hop", 0.7), ("Clap", 0.3)), (("Clap", 0.6), ("Hop", 0.4))]
        return [
            Prediction(path=path, label="Hop", top=tops[i // 4 % 2], right=i // 4 % 2 == 0)
            for i, path in enumerate(paths)
        ]

    names = [f"Hop/v_Hop_g{i // 4 + 1:02}_c{i % 4 + 1:02}.avi" for i in range(24)]
    grouped, parts = answers(names), answers([f"{i // 4}.mp4#t={i},{i + 1}" for i in range(24)])
    alone = answers([f"{i}.mp4" for i in range(24)])
    right = np.array([float(p.right) for p in grouped])
    by_group = interval_by_unit(right, np.ones(24), [str(i // 4) for i in range(24)])
    assert figures(grouped).accuracy_ci95 == figures(parts).accuracy_ci95 == by_group
    assert figures(alone).accuracy_ci95 == wilson(0.5, 24) != by_group
    assert figures(grouped).confusion.tolist() == [[0, 0], [12, 12]]
    assert [(row["label"], row["n"], row["recall"]) for row in figures(grouped).per_class] == [
        ("Clap", 0, 0.0),
        ("Hop", 24, 0.5),
    ]
    low, high = by_group
    said = f"50.0% (95 % interval {low:.1%} to {high:.1%} if the 6 groups are independent; guessing 100.0%)"
    assert said in labelled_text(grouped)
    assert said in labelled_text(parts)
    assert "if clips are independent" in labelled_text(alone)
    assert "(95 % interval 0.0% to 100.0%, as there are too few groups or clips; guess" in labelled_text(grouped[:4])
    tied = Prediction(path="v\udcfc", label="Hop", top=(("Hop", 0.5), ("Clap", 0.5)), right=True)
    assert figures([tied]).accuracy == 1
    assert figures([Prediction(path="w", label="Hop", reason="file is empty")]) is None
    assert labelled_text([Prediction(path="w", label="Hop", reason="file is empty")]) == "right: 0 of 0 labelled videos"


def test_of_several_videos_each_has_a_line(run, video_folder):
    """And that no answer can be "unknown", as with so few clips, is said once."""
    call = ["predict", "--run", str(run), "--device", "cpu", "--labelled"]
    said = CliRunner().invoke(app, [*call, str(video_folder)]).output.splitlines()
    found = predict([video_folder], run=run, device="cpu", labelled=True)
    expected = [f"{p.path}: {p.top[0][0]} {p.top[0][1]:.1%}{', wrong' * (not p.right)}" for p in found]
    assert len(found) == 12
    for line, begins in zip(said, expected, strict=False):
        assert line == begins or line.startswith(f"{begins} (the head was trained on this video")
    assert said[12].startswith("right: ")
    assert [line for line in said if line.startswith('this model never answers "unknown"')] == said[-1:]
    single = CliRunner().invoke(app, [*call[:-1], found[0].path]).output.splitlines()
    manifest = video_folder.parent / "brief.csv"
    manifest.write_text("path,label\n" + "".join(f"{p.path},{p.label}\n" for p in found))
    from_manifest = CliRunner().invoke(app, [*call, str(manifest)]).output.splitlines()
    manifest.unlink()
    assert from_manifest[:12] == said[:12]
    assert single[1:3] == [f"  {p:6.1%}  {label}" for label, p in found[0].top[:2]]
    several = CliRunner().invoke(app, [*call, "--top", "2", str(video_folder)]).output.splitlines()
    assert several[1:3] == single[1:3]
    above = CliRunner().invoke(app, [*call[:-1], "--unknown-below", "0.999999", found[0].path]).output
    assert "never answers" not in above


def test_unknown_and_wrong_stand_on_the_line_of_a_video():
    def line(**more):
        return predict_text(Prediction(path="a/b.mp4", top=(("Hop", 0.4), ("Row", 0.3)), **more), brief=True)

    assert line() == "a/b.mp4: Hop 40.0%"
    assert line(unknown=True) == "a/b.mp4: unknown (nearest Hop 40.0%)"
    assert line(right=False, warnings=("odd",)) == "a/b.mp4: Hop 40.0%, wrong\n  odd"
    assert predict_text(Prediction(path="a/b.mp4", reason="file is empty"), brief=True) == "a/b.mp4: file is empty"


@pytest.mark.parametrize(
    "source", ["camera", "camera:1", "https://example.org/squat.mp4", "rtsp://me:secret@camera.local/1"]
)
def test_what_is_for_watch_is_sent_there_before_a_head_is_read(source):
    with pytest.raises(UsageError, match="cameras and addresses are for `fitrec-cache watch`") as raised:
        predict([Path(source)], run=Path("none"))
    assert "secret" not in str(raised.value)


def test_a_table_holds_any_file_name(run, tmp_path, video_folder):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff.avi"))
    shutil.copy(next(video_folder.rglob("*.avi")), odd)
    predict([odd], run=run, device="cpu", table=tmp_path / "t.csv")
    data = (tmp_path / "t.csv").read_bytes()
    assert b"odd\\xff.avi," in data
    assert b"\r" not in data


def test_a_picture_that_fails_costs_no_table(run, tmp_path, video_folder, monkeypatch):
    def full(*_):
        raise StoreError("cannot write p.png: No space left on device")

    monkeypatch.setattr("fitrec_cache.runs.attention_picture.attention_png", full)
    video, table = next(video_folder.rglob("*.avi")), tmp_path / "t.csv"
    with pytest.raises(StoreError, match="No space left"):
        predict([video], run=run, device="cpu", picture=tmp_path / "p.png", table=table)
    assert len(table.read_text().splitlines()) == 2


def test_the_picture_shows_the_first_videos_only(run, tmp_path, video_folder, monkeypatch):
    monkeypatch.setattr(module, "MOST_PICTURED", 3)
    drawn = []
    monkeypatch.setattr("fitrec_cache.runs.attention_picture.attention_png", lambda strips, _: drawn.extend(strips))
    call = ["predict", "--run", str(run), "--device", "cpu", "--picture", str(tmp_path / "p.png"), str(video_folder)]
    said = CliRunner().invoke(app, call).output
    assert [s.title.split(":")[0] for s in drawn] == [f"Hop/v_Hop_g0{i}_c01.avi" for i in (1, 2, 3)]
    assert f"picture: {tmp_path / 'p.png'} (the first 3 of 12)" in said


def test_an_interruption_keeps_what_was_answered(run, tmp_path, video_folder):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict([video_folder], run=run, device="cpu", table=tmp_path / "t.csv", tell=stop)
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 2


def test_an_interruption_leaves_an_earlier_table_and_picture_whole(run, tmp_path, video_folder):
    def stop(_):
        raise KeyboardInterrupt

    written = {"table": tmp_path / "t.csv", "picture": tmp_path / "p.png"}
    predict([video_folder], run=run, device="cpu", **written)
    before = [path.read_bytes() for path in written.values()]
    with pytest.raises(KeyboardInterrupt):
        predict([video_folder], run=run, device="cpu", **written, tell=stop)
    assert [path.read_bytes() for path in written.values()] == before
    (first, *_) = video_folder.rglob("*.avi")
    predict([first], run=run, device="cpu", **written)
    assert len(written["table"].read_text().splitlines()) == 2


def test_an_interruption_before_the_first_answer_leaves_an_earlier_table(run, tmp_path, video_folder, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt
        yield

    predict([video_folder], run=run, device="cpu", table=tmp_path / "t.csv")
    before = (tmp_path / "t.csv").read_text()
    monkeypatch.setattr(module, "_answers", stop)
    with pytest.raises(KeyboardInterrupt):
        predict([video_folder], run=run, device="cpu", table=tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == before


def test_another_decoder_is_refused_by_name_and_can_be_forced(run, tmp_path, video_folder):
    def older(source):
        source["identity"]["frames"]["decoder"] = "libavcodec 1.2.3"

    video, other = next(video_folder.rglob("*.avi")), changed_run(run, tmp_path / "other", older)
    with pytest.raises(MismatchError, match=r"\(frames\): decoder: libavcodec 1\.2\.3 -> libavcodec \d+.*--force"):
        predict([video], run=other, device="cpu")
    assert predict([video], run=other, device="cpu", force=True)[0].top


def test_other_weights_are_refused_by_name(run, weights, video_folder):
    video = next(video_folder.rglob("*.avi"))
    with pytest.raises(MismatchError, match=r"backbone test_resnet\): weights_sha256: [0-9a-f]{64} -> [0-9a-f]{64}"):
        predict([video], run=run, backbone=[weights("test_resnet", seed=1)], device="cpu")


def test_weights_that_moved_can_be_given(run, weights, tmp_path, video_folder):
    def moved(source):
        source["origin"]["weights"] = str(tmp_path / "gone.safetensors")

    other, video = changed_run(run, tmp_path / "other", moved), next(video_folder.rglob("*.avi"))
    with pytest.raises(UsageError, match=r"gone\.safetensors not found.*`predict --backbone test_resnet=FILE`"):
        predict([video], run=other, device="cpu")
    copy = Path(shutil.copy(weights("test_resnet").partition("=")[2], tmp_path / "here.safetensors"))
    again = predict([video], run=other, backbone=[f"test_resnet={copy}"], device="cpu")
    assert again[0].top == predict([video], run=run, device="cpu")[0].top


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("identity"),
        lambda s: s.pop("kind"),
        lambda s: s["identity"].pop("frames"),
        lambda s: s["identity"].pop("preprocessing"),
        lambda s: s["identity"]["frames"].update(samples="many"),
        lambda s: s.update(identity=7),
    ],
)
def test_a_run_that_does_not_say_how_features_were_made_is_refused(run, tmp_path, video_folder, change):
    with pytest.raises(StoreCorrupt, match=r"run\.json is damaged.*do not say how features were made.*Train"):
        predict([next(video_folder.rglob("*.avi"))], run=changed_run(run, tmp_path / "x", change), device="cpu")


def test_odd_values_anywhere_in_a_run_are_refused_or_harmless(run, tmp_path, video_folder):
    """Whatever stands in ``run.json``: an answer or a clear error, never another exception, and no large memory."""
    other = shutil.copytree(run, tmp_path / "other")
    settings = json.loads((run / "run.json").read_text())
    video = next(video_folder.rglob("*.avi"))
    refused = 0
    with more_memory_at_most(500_000):
        for text in random.Random(0).sample(sorted(odd_runs(settings)), 40):
            (other / "run.json").write_text(text)
            try:
                assert predict([video], run=other, device="cpu")[0].top
            except FitrecError as error:
                refused += len(str(error)) < 5000
    assert refused > 20, "more should be refused, in fewer words"


@pytest.mark.parametrize(
    ("field", "odd"),
    [("n_classes", 10**5), ("input_dim", 10**7), ("input_dim", 10**30), ("variant", "convlstm")],
)
def test_a_head_that_is_not_the_stored_one_is_refused_before_it_is_built(run, tmp_path, field, odd):
    other = shutil.copytree(run, tmp_path / "other")
    settings = json.loads((run / "run.json").read_text())
    settings["head"][field] = odd
    settings["labels"] = [str(i) for i in range(settings["head"]["n_classes"])]
    (other / "run.json").write_text(json.dumps(settings))
    started = time.monotonic()
    with pytest.raises(StoreCorrupt, match=r"is damaged|is not of the head that run\.json describes"):
        read_run(other)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("odd", ["Hop\nnote: no leak found", "\x1b[2J", "\ud800"])
@pytest.mark.parametrize(
    "place",
    [
        *("labels", "backbone", "fold", "recipe", "head variant", "training optimiser", "split rule", "split notes"),
        *("split train", "split val", "split test", "split test_groups", "split unknown", "split unknown_classes"),
    ],
)
def test_names_in_a_run_that_cannot_be_printed_are_damage(run, tmp_path, place, odd):
    """They would forge lines in answers and subtitles, or end in a traceback."""
    folder = shutil.copytree(run, tmp_path / "run")
    settings = json.loads((folder / "run.json").read_text())
    *inside, name = place.split()
    holder = settings[inside[0]] if inside else settings
    if isinstance(holder[name], list):
        holder[name] = [odd, *holder[name]][: max(1, len(holder[name]))]
    else:
        holder[name] = odd
    (folder / "run.json").write_text(json.dumps(settings))
    for read in (read_runs, read_scored):
        with pytest.raises(StoreCorrupt, match="control or undecodable characters"):
            read(folder)


@pytest.mark.parametrize("change", [{"temperature": 0}, {"temperature": -1}, {"threshold": 2}, {"false_alarm_rate": 1}])
def test_a_calibration_that_is_none_is_damage(run, tmp_path, change):
    other = shutil.copytree(run, tmp_path / "other")
    settings = json.loads((run / "run.json").read_text())
    settings["calibration"] |= change
    (other / "run.json").write_text(json.dumps(settings))
    with pytest.raises(StoreCorrupt, match="expected a temperature above 0"):
        read_run(other)


def test_a_head_with_values_that_are_not_finite_is_refused(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    state = safetensors.torch.load_file(other / "head.safetensors")
    unseal(other)
    state[min(state)].view(-1)[0] = float("nan")
    safetensors.torch.save_file(state, other / "head.safetensors")
    with pytest.raises(StoreCorrupt, match="not finite"):
        read_run(other)


def test_wrong_use_is_refused(run, tmp_path):
    (tmp_path / "v.mp4").touch()
    with pytest.raises(UsageError, match="no video given"):
        predict([], run=run)
    with pytest.raises(UsageError, match="top is 0"):
        predict([tmp_path / "v.mp4"], run=run, top=0)
    with pytest.raises(UsageError, match="no run at"):
        predict([tmp_path / "v.mp4"], run=tmp_path / "none")
    with pytest.raises(UsageError, match=rf"run.json is a file: give the run folder {run}"):
        predict([tmp_path / "v.mp4"], run=run / "run.json")


@pytest.mark.parametrize("part", ["", "#t=0,2"])
def test_a_clip_of_the_training_is_known_whichever_way_its_name_is_spelled(run, tmp_path, video_folder, part):
    label = json.loads((run / "run.json").read_text())["labels"][0]
    known = shutil.copytree(run, tmp_path / "other")
    settings = json.loads((run / "run.json").read_text())
    del settings["contents"]
    settings["split"] |= {"train": [f"{label}/\u00fc.avi{part}"]}
    (known / "run.json").write_text(json.dumps(settings))
    (tmp_path / label).mkdir()
    video = Path(shutil.copy(next(video_folder.rglob("*.avi")), tmp_path / label / "u\u0308.avi"))
    assert predict([video], run=known, device="cpu")[0].trained_on


def test_what_any_of_several_seeds_was_trained_on_is_told(tmp_path, cache_folder, video_folder):
    settings = {"cache": cache_folder, "backbone": ["test_resnet"], "variant": "mean", "seed": [0, 1], "epochs": 1}
    train_head(out=tmp_path / "runs", **settings)
    tested = [set(each.run_json["split"]["test"]) for each in read_runs(tmp_path / "runs")]
    assert tested[0] != tested[1]
    names = sorted(str(path.relative_to(video_folder)) for path in video_folder.rglob("*.avi"))
    found = predict([video_folder / name for name in names], run=tmp_path / "runs", device="cpu")
    assert [p.trained_on for p in found] == [name not in tested[0] & tested[1] for name in names]
    renamed = [shutil.copy(video_folder / name, tmp_path / f"{i}.avi") for i, name in enumerate(names)]
    found = predict(renamed, run=tmp_path / "runs", device="cpu")
    assert [p.trained_on for p in found] == [name not in tested[0] & tested[1] for name in names]


def test_backbones_whose_frames_were_stored_in_two_sizes_each_see_their_own(tmp_path, video_folder, weights, inline):
    cache, backbones = tmp_path / "cache", {"test_resnet": 64, "test_vit": 32}
    for name, side in backbones.items():
        extract(video_folder, cache=cache, backbone=[weights(name)], **SMALL | {"frame_size": side})
    train_head(out=tmp_path / "run", cache=cache, backbone=list(backbones), variant="mean", epochs=1)
    opened, videos = read_run(tmp_path / "run"), sorted(video_folder.rglob("*.avi"))[:3]
    stores = {store.identity["backbone"]: store for store in Cache(cache).feature_stores()}
    keys = {clip.clip_id: clip.video_sha256 for clip in Cache(cache).clips()}
    for video, found in zip(videos, predict(videos, run=tmp_path / "run", device="cpu"), strict=True):
        key = keys[str(video.relative_to(video_folder))]
        x = np.concatenate([stores[name].row(key)["features"] for name in backbones], axis=1)
        with torch.inference_mode():
            logits = opened.head(torch.from_numpy(x)[None].float())[0][0].double()
        said = (logits / opened.run_json["calibration"]["temperature"]).softmax(0).tolist()
        assert dict(found.top) == pytest.approx(dict(zip(opened.labels, said, strict=True)), abs=1e-6)
