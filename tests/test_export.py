"""What is exported answers as this program does, by ONNX Runtime and a script that shares no code with it."""

from __future__ import annotations

import builtins
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import SMALL, InlinePool
from make_tflite import make_task
from make_video import (
    MIRRORED,
    read_corners,
    read_number,
    with_matrix,
    write_audio_only,
    write_video,
    write_video_with_second_stream,
)
from torch import nn
from typer.testing import CliRunner

import fitrec_cache
from fitrec_cache import export as module
from fitrec_cache import predict as predicting
from fitrec_cache.backbones.backbone import load_backbone
from fitrec_cache.backbones.frozen_conv import FrozenConv
from fitrec_cache.cache import Cache
from fitrec_cache.cli import app
from fitrec_cache.errors import FitrecError, MismatchError, StoreError, UsageError, WeightsError
from fitrec_cache.export import export
from fitrec_cache.extract import extract
from fitrec_cache.features import Features
from fitrec_cache.pipeline import Pipeline
from fitrec_cache.predict import predict
from fitrec_cache.recogniser import Recogniser
from fitrec_cache.runs.ensemble import HeadEnsemble
from fitrec_cache.runs.run import read_runs
from fitrec_cache.texts import export_text
from fitrec_cache.train import train_head
from fitrec_cache.video.decoding import DecodeJob, decode_clip
from fitrec_cache.video.jpeg import decode_frames

EXAMPLE = Path(__file__).parents[1] / "examples" / "recognise_onnx.py"


def example():
    spec = importlib.util.spec_from_file_location("recognise_onnx", EXAMPLE)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def answer(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: x}), strict=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache_folder):
    """Two seeds; the second is less sure, so that their mean is of both."""
    out = tmp_path_factory.mktemp("runs") / "runs"
    settings = {"variant": "resnet50-lstm-attention", "backbone": ["test_resnet"], "epochs": 2, "seed": [0, 1]}
    train_head(out=out, cache=cache_folder, false_alarm_rate=0.5, **settings)
    return out


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "recogniser"
    return out, export(run=run, out=out)


@pytest.fixture
def quickly(exported, monkeypatch):
    """Copy the networks of ``exported`` where a test is not about them: PyTorch takes seconds to write one."""
    monkeypatch.setattr(module, "_to_onnx", lambda _, __, path, *___: shutil.copy(exported[0] / path.name, path))


def test_an_exported_head_answers_any_number_of_clips_as_the_seeds_do(run, exported, cache_folder):
    out, report = exported
    assert report.heads == 2
    assert report.difference < 1e-5
    runs = read_runs(run)
    store = Cache(cache_folder).feature_stores()[0]
    clips = np.stack([store.row(key)["features"] for key in store]).astype(np.float32)
    for n in (1, 2, 12):
        found = answer(out / "head.onnx", clips[:n])
        expected, votes, weights = [], [], []
        for one in runs:
            with torch.inference_mode():
                logits, attention = one.head(torch.from_numpy(clips[:n]))
            scaled = np.exp(logits.double().numpy() / one.calibration.temperature)
            expected.append(scaled / scaled.sum(axis=1, keepdims=True))
            votes.append(expected[-1].max(axis=1) < one.calibration.threshold)
            weights.append(attention.numpy())
        np.testing.assert_allclose(found["probabilities"], np.mean(expected, axis=0), atol=1e-5)
        np.testing.assert_allclose(found["attention"], np.mean(weights, axis=0), atol=1e-5)
        assert found["unknown"].tolist() == np.all(votes, axis=0).tolist()  # most of two is both


def test_an_exported_head_has_the_temperature_and_threshold_of_the_mean(tmp_path):
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 3
    clips = (2 * np.eye(3, 6)[truth][:, None] + rng.normal(0, 3, (60, 4, 6))).astype(np.float16)
    with h5py.File(tmp_path / "clips.h5", "w") as file:
        file["features"], file["clip_id"] = clips, [f"{k}/{i}.avi" for i, k in enumerate(truth)]
        file["label"] = [str(k) for k in truth]
    settings = {"variant": "mean", "epochs": 5, "seed": [0, 1], "split_seed": 0, "split": "random"}
    report = train_head(out=tmp_path / "runs", features=tmp_path / "clips.h5", false_alarm_rate=0.4, **settings)
    x = torch.from_numpy(clips).float()
    module._to_onnx(
        HeadEnsemble(read_runs(tmp_path / "runs"), dtype=torch.float32),
        x[:2],
        tmp_path / "head.onnx",
        "clips",
        ["probabilities", "attention", "unknown"],
    )
    mean = 0
    for one in read_runs(tmp_path / "runs"):
        with torch.inference_mode():
            logits, _ = one.head(x)
        mean = mean + (logits.double() / one.calibration.temperature).softmax(dim=1).numpy() / 2
    assert report.ensemble["temperature"] != 1
    expected = mean ** (1 / report.ensemble["temperature"])
    expected /= expected.sum(axis=1, keepdims=True)
    unknown = expected.max(axis=1) < report.ensemble["threshold"]
    found = answer(tmp_path / "head.onnx", x.numpy())
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    far = abs(expected.max(axis=1) - report.ensemble["threshold"]) > 1e-5
    assert set(unknown[far].tolist()) == {False, True}
    assert (found["unknown"] == unknown)[far].all()


def test_an_exported_backbone_embeds_any_number_of_frames_as_was_cached(exported, cache_folder):
    out, _ = exported
    cache = Cache(cache_folder)
    frames_of, store = cache.frame_stores()[0], cache.feature_stores()[0]
    source = json.loads((out / "recogniser.json").read_text())["inputs"][0]
    script = example()
    for key in list(store)[:2]:
        frames = [script.Image.fromarray(f) for f in decode_frames(frames_of.jpegs(key)).permute(0, 2, 3, 1).numpy()]
        pixels = script.resize(frames, source["resize"]).transpose(0, 3, 1, 2)
        cached = store.row(key)["features"].astype(np.float32)
        for part in (pixels, pixels[:1]):
            found = answer(out / source["file"], part)["embeddings"]
            assert found.shape == (len(part), source["embedding"])
            # Pillow resizes for this, PyTorch did for that: some values differ by one.
            np.testing.assert_allclose(found, cached[: len(part)], atol=0.02 * np.abs(cached).max())


def kinds_in(path):
    return {node.op_type for node in onnx.load(path).graph.node}


def test_padding_as_tensorflow_does_and_an_activation_in_place_are_a_convolution_and_an_activation(tmp_path):
    """Dropped outputs would be copies, and written in place they took longer than all convolutions."""
    network = nn.Sequential(
        FrozenConv.like(nn.Conv2d(3, 4, 3, stride=2), same=True), nn.ReLU6(inplace=True), nn.Flatten()
    )
    x = torch.rand(2, 3, 8, 9)  # along which one zero is needed and two
    with torch.inference_mode():
        expected = network(x).numpy()
    module._to_onnx(network, x, tmp_path / "small.onnx", "frames", ["embeddings"])
    assert answer(tmp_path / "small.onnx", x.numpy())["embeddings"] == pytest.approx(expected, abs=1e-6)
    assert kinds_in(tmp_path / "small.onnx").isdisjoint({"Pad", "Slice", "ScatterND", "Transpose"})


def test_an_exported_backbone_moves_no_pixels(exported):
    """Channels last, which serves PyTorch, is not written."""
    assert kinds_in(exported[0] / "test_resnet.onnx").isdisjoint({"Transpose", "Slice", "Range", "Gather"})


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14), reason="PyTorch 2.8 writes computed shapes"
)
def test_an_exported_transformer_computes_no_shapes(tmp_path, weights):
    """As WebNN, for one, needs it; fused attention, which serves PyTorch, is not written."""
    backbone = load_backbone(weights("test_vit"), precision="fp32", device="cpu")
    frames = module._frames(backbone, 3)
    expected = backbone.embed_prepared(frames)
    module._to_onnx(module._Portable(backbone), frames, tmp_path / "vit.onnx", "frames", ["embeddings"])
    assert answer(tmp_path / "vit.onnx", frames.numpy())["embeddings"] == pytest.approx(expected, abs=1e-2)
    graph = onnx.load(tmp_path / "vit.onnx").graph
    constants = {each.name for each in graph.initializer}
    assert {node.input[1] for node in graph.node if node.op_type == "Reshape"} <= constants


def test_the_weights_of_an_exported_lstm_are_constants(exported):
    """Of parts put together on loading, ONNX Runtime would quantise nothing."""
    graph = onnx.load(exported[0] / "head.onnx").graph
    constants = {each.name for each in graph.initializer}
    layers = [node for node in graph.node if node.op_type == "LSTM"]
    assert len(layers) == 2
    assert all(set(node.input[1:4]) <= constants for node in layers)


def test_a_bias_that_is_looked_up_for_each_pair_of_places_is_not_written_out(tmp_path):
    class Looked(nn.Module):
        def __init__(self):
            super().__init__()
            self.tables = nn.ParameterList(torch.rand(100) for _ in range(4))
            self.register_buffer("places", torch.arange(600 * 600).reshape(600, 600) % 100)

        def forward(self, x):
            return sum(x @ table[self.places] for table in self.tables)

    module._to_onnx(Looked(), torch.rand(2, 600), tmp_path / "x.onnx", "frames", ["embeddings"])
    kept = sum(len(each.raw_data) for each in onnx.load(tmp_path / "x.onnx").graph.initializer)
    assert kept < 1.1 * 600 * 600 * 8  # the places alone


def test_the_example_takes_the_video_stream_that_players_show_as_extract_does(tmp_path):
    path = write_video_with_second_stream(tmp_path / "v.mp4", 30, kind="video", second_is_default=True)
    frames, _ = example().sample_frames(path, 4)
    assert [read_number(frame.to_ndarray(format="rgb24")) for frame in frames] == [1006, 1012, 1018, 1024]


@pytest.mark.parametrize("variant", ["resnet50-lstm-attention", "lrcn"])
def test_the_example_answers_as_predict_does(tmp_path, cache_folder, video_folder, monkeypatch, variant):
    monkeypatch.setattr(predicting, "DecoderPool", InlinePool)
    backbone = [] if variant == "lrcn" else ["test_resnet"]
    train_head(out=tmp_path / "run", cache=cache_folder, variant=variant, backbone=backbone, epochs=2)
    export(run=tmp_path / "run", out=tmp_path / "out")
    video = sorted(video_folder.rglob("*.avi"))[5]
    (expected,) = predict([video], run=tmp_path / "run", device="cpu")
    found, unknown = example().recognise(tmp_path / "out", video)
    assert found == pytest.approx(dict(expected.top), abs=0.01)
    assert unknown == expected.unknown


def test_the_example_says_in_a_line_what_is_wrong(tmp_path, exported, video_folder):
    out, _ = exported
    shutil.copytree(out, tmp_path / "without")
    (tmp_path / "without" / "head.onnx").unlink()
    shutil.copytree(out, tmp_path / "damaged")
    os.truncate(tmp_path / "damaged" / "head.onnx", 2000)
    shutil.copytree(out, tmp_path / "mixed")
    about = json.loads((out / "recogniser.json").read_text())
    (tmp_path / "mixed" / "recogniser.json").write_text(json.dumps(about | {"samples": 5}))
    write_audio_only(tmp_path / "sound.mp4")
    (tmp_path / "empty.mp4").touch()
    video = next(video_folder.rglob("*.avi"))
    for folder, path in [
        (tmp_path, video),
        (tmp_path / "without", video),
        (tmp_path / "damaged", video),
        (tmp_path / "mixed", video),
        (out, tmp_path / "none.mp4"),
        (out, tmp_path / "empty.mp4"),
        (out, tmp_path / "sound.mp4"),
    ]:
        command = [sys.executable, str(EXAMPLE), str(folder), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("Error: ")
        assert len(done.stderr.splitlines()) == 1


def test_the_files_name_no_folder_of_this_computer(exported, tmp_path_factory):
    """They are given away; PyTorch writes the stack trace of each operation into them."""
    folders = [Path(fitrec_cache.__file__).parent, Path(torch.__file__).parents[1], tmp_path_factory.getbasetemp()]
    for path in exported[0].iterdir():
        held = path.read_bytes()
        assert [str(folder) for folder in folders if str(folder).encode() in held] == []


def test_the_description_says_how_to_use_the_files(exported, run, cache_folder):
    out, report = exported
    about = json.loads((out / "recogniser.json").read_text())
    assert about["clip_seconds"] == pytest.approx(7.5 / 25, rel=0.2)  # by sampled frames of clips of 6 to 10 frames
    assert about["labels"] == ["Hop", "Lunge", "Squat"]
    assert about["samples"] == SMALL["samples"]
    assert about["model"] == Recogniser(run).model
    assert about["sampling"] == "floor(i * n_frames / (samples + 1)), i = 1..samples"
    identity = Cache(cache_folder).feature_stores()[0].identity
    height, width = identity["preprocessing"]["size"]
    assert about["inputs"] == [
        {
            "file": "test_resnet.onnx",
            "name": "test_resnet",
            "stored_as": {name: identity["frames"][name] for name in ("short_side", "geometry", "codec")},
            "resize": [{"height": height, "width": width, "interpolation": "bilinear, antialiased"}],
            "embedding": 96,
            "weights_sha256": identity["weights_sha256"],
        }
    ]
    assert about["head"] == {"file": "head.onnx", "variant": "resnet50-lstm-attention", "seeds": 2}
    assert report.files.keys() == {"test_resnet.onnx", "head.onnx", "recogniser.json"}
    assert report.files["head.onnx"] == (out / "head.onnx").stat().st_size
    assert {p.name for p in out.iterdir()} == report.files.keys()


def by_the_example(video, samples, short_side=288):
    script = example()
    frames, ratio = script.sample_frames(video, samples)
    return [np.asarray(script.as_stored(frame, ratio, short_side)) for frame in frames]


@pytest.mark.parametrize(("rotation", "wide"), [(0, None), (90, None), (0, Fraction(4, 3))])
def test_the_example_reduces_frames_to_the_same_bits(tmp_path, rotation, wide):
    video = write_video(tmp_path / "v.mp4", 25, rotation=rotation, pixel=wide)
    stored = decode_clip(DecodeJob(path=video, samples=5, short_side=60)).jpegs
    expected = decode_frames(stored).permute(0, 2, 3, 1).numpy()
    assert min(expected.shape[1:3]) == 60
    np.testing.assert_array_equal(np.stack(by_the_example(video, 5, 60)), expected)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_the_example_takes_the_frames_of_damaged_clips_that_extract_takes(tmp_path, codec):
    video = write_video(tmp_path / "12:30.mkv", 60, codec=codec)
    data, rng = bytearray(video.read_bytes()), np.random.default_rng(0)
    for place in rng.integers(len(data) // 2, len(data) * 3 // 4, 12):
        data[place] ^= 0xFF
    video.write_bytes(data)
    decoded = decode_clip(DecodeJob(path=video, samples=20, short_side=60))
    assert decoded.ledger["packets_undecodable"] + decoded.ledger["frames_corrupt"] > 0
    expected = decode_frames(decoded.jpegs).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(np.stack(by_the_example(video, 20, 60)), expected)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_the_example_shows_frames_as_a_player_does(tmp_path, rotation):
    video = write_video(tmp_path / "v.mp4", 25, rotation=rotation, width=128, height=96)
    frames = by_the_example(video, 20)
    assert [read_number(f) for f in frames] == [i * 25 // 21 for i in range(1, 21)]
    assert read_corners(frames[0]) == ("red", "green", "blue", "yellow")


@pytest.mark.parametrize(("matrix", "shown"), MIRRORED)
def test_the_example_mirrors_as_a_player_does(tmp_path, matrix, shown):
    video = with_matrix(write_video(tmp_path / "v.mp4", 25, width=128, height=96), matrix)
    frame = by_the_example(video, 3)[1]
    assert frame.shape == ((128, 96, 3) if not matrix[0] else (96, 128, 3))
    assert read_corners(frame) == shown


def test_of_a_head_that_learned_from_features_in_bf16_it_is_said_that_answers_differ(run, tmp_path, quickly):
    assert export(run=run, out=tmp_path / "fp32").notes == ()
    for folder in ("seed-0", "seed-1"):
        shutil.copytree(run / folder, tmp_path / "runs" / folder)
        path = tmp_path / "runs" / folder / "run.json"
        settings = json.loads(path.read_text())
        settings["sources"][0]["identity"]["precision"] = "bf16"
        path.write_text(json.dumps(settings))
    report = export(run=tmp_path / "runs", out=tmp_path / "bf16", force=True)
    (note,) = report.notes
    assert note.startswith(
        "the head learned from features in bf16, which `predict` uses too; these files compute in fp32"
    )
    assert f"note: {note}" in export_text(report)


def test_what_a_killed_export_left_is_removed(run, tmp_path, quickly):
    out = tmp_path / "out"
    out.mkdir()
    left = out / ".tmp-00000000-1-0000aaaa"
    left.mkdir()
    (left / "head.onnx").touch()
    os.utime(left, (0, 0))
    export(run=run, out=out)
    assert {p.name for p in out.iterdir()} == {"test_resnet.onnx", "head.onnx", "recogniser.json"}


def test_what_is_reported_as_written_is_on_disk(run, tmp_path, quickly, monkeypatch):
    flushed, fsync = set(), os.fsync

    def noted(descriptor):
        flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    out = tmp_path / "out"
    report = export(run=run, out=out)
    assert [path.name for path in (out, *map(out.joinpath, report.files)) if path.stat().st_ino not in flushed] == []


def test_several_backbones_are_several_files_in_the_order_of_the_head(tmp_path, video_folder, weights):
    names = ["test_vit", "test_resnet"]
    cache = tmp_path / "cache"
    extract(video_folder, cache=cache, backbone=[weights(n) for n in names], preset="paper", **SMALL)
    train_head(out=tmp_path / "run", cache=cache, variant="mean", backbone=names, epochs=1)
    report = export(run=tmp_path / "run", out=tmp_path / "out")
    about = json.loads((tmp_path / "out" / "recogniser.json").read_text())
    assert [i["name"] for i in about["inputs"]] == names
    assert [len(i["resize"]) for i in about["inputs"]] == [2, 2]  # the paper's 64x64 first
    assert about["inputs"][0]["resize"][0] == {"height": 64, "width": 64, "interpolation": "bilinear, antialiased"}
    assert report.difference < 1e-4


def test_poses_are_exported_too_and_the_example_answers_as_predict_does(tmp_path, video_folder, inline):
    backbone = [f"blazepose_full={make_task(tmp_path / 'pose.task')}"]
    extract(video_folder, cache=tmp_path / "cache", backbone=backbone, **SMALL)
    settings = {"variant": "mean", "backbone": ["blazepose_full"], "epochs": 20}
    train_head(out=tmp_path / "run", cache=tmp_path / "cache", **settings)
    assert export(run=tmp_path / "run", out=tmp_path / "recogniser").difference < 1e-3
    about = json.loads((tmp_path / "recogniser" / "recogniser.json").read_text())
    (step,) = about["inputs"][0]["resize"]
    assert step == {"height": 512, "width": 512, "interpolation": "bilinear, antialiased", "fit": "inside"}
    video = sorted(video_folder.rglob("*.avi"))[5]
    answers, unknown = example().recognise(tmp_path / "recogniser", video)
    (expected,) = predict([video], run=tmp_path / "run")
    assert answers == pytest.approx(dict(expected.top), abs=1e-3)
    assert unknown == expected.unknown


def test_maps_are_exported_too(tmp_path, video_folder, weights):
    extract(video_folder, cache=tmp_path / "cache", backbone=[weights("test_resnet")], preset="grid", **SMALL)
    train_head(out=tmp_path / "run", cache=tmp_path / "cache", variant="mean", backbone=["test_resnet"], epochs=1)
    assert export(run=tmp_path / "run", out=tmp_path / "out").difference < 1e-4


def test_an_earlier_export_is_replaced_and_nothing_else_is(run, tmp_path, quickly):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("notes")
    with pytest.raises(UsageError, match="is neither empty nor a whole earlier export"):
        export(run=run, out=out)
    with pytest.raises(UsageError, match=r"mine\.txt is a file: expected a new folder"):
        export(run=run, out=out / "mine.txt")
    (out / "recogniser.json").write_text("{}")
    with pytest.raises(UsageError, match="is neither empty nor a whole earlier export"):
        export(run=run, out=out)
    names = {"head": {"file": "head.onnx"}, "inputs": [{"file": "gone.onnx"}, {"file": None}, {"file": "../kept.onnx"}]}
    (out / "recogniser.json").write_text(json.dumps(names))
    for mine in ("gone.onnx", "yolo.onnx", "../kept.onnx"):
        (out / mine).touch()
    export(run=run, out=out)
    written = {"test_resnet.onnx", "head.onnx", "recogniser.json"}
    assert {p.name for p in out.iterdir()} == {"mine.txt", "yolo.onnx", *written}
    assert (tmp_path / "kept.onnx").exists()


def test_networks_of_somebody_else_are_left_alone(run, tmp_path):
    (tmp_path / "yolo.onnx").write_text("theirs")
    with pytest.raises(UsageError, match="is neither empty nor a whole earlier export"):
        export(run=run, out=tmp_path)
    assert (tmp_path / "yolo.onnx").read_text() == "theirs"
    (tmp_path / "test_resnet.onnx").write_text("theirs too")
    (tmp_path / "recogniser.json").write_text(json.dumps({"head": {"file": "head.onnx"}, "inputs": []}))
    with pytest.raises(UsageError, match=r"it holds test_resnet\.onnx, which no earlier export wrote"):
        export(run=run, out=tmp_path)
    assert (tmp_path / "test_resnet.onnx").read_text() == "theirs too"


@pytest.mark.parametrize(("off", "told"), [(0.01, r"0\.01"), (-0.01, r"0\.01"), (np.nan, "nan")])
def test_networks_that_compute_something_else_are_not_kept(run, tmp_path, monkeypatch, quickly, off, told):
    real = module._run
    of_head = {module.HEAD: np.float32(off)}  # of the probabilities, whatever the head makes of the features
    monkeypatch.setattr(module, "_run", lambda path, x: [real(path, x)[0] + of_head.get(path.name, np.float32(0))])
    with pytest.raises(
        MismatchError, match=rf"other probabilities than PyTorch, by up to {told} .*nothing was written"
    ):
        export(run=run, out=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_other_weights_are_refused(run, tmp_path, weights, quickly):
    other = weights("test_resnet", seed=5)
    with pytest.raises(MismatchError, match="weights_sha256"):
        export(run=run, out=tmp_path / "out", backbone=[other])
    assert not (tmp_path / "out").exists()
    with pytest.raises(
        MismatchError, match="other probabilities than PyTorch"
    ):  # goes on; what is copied is not of these
        export(run=run, out=tmp_path / "out", backbone=[other], force=True)


def test_weights_that_were_moved_are_asked_for(run, tmp_path):
    moved = shutil.copytree(run / "seed-0", tmp_path / "run")
    settings = json.loads((moved / "run.json").read_text())
    settings["sources"][0]["origin"]["weights"] = str(tmp_path / "gone.safetensors")
    (moved / "run.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=r"`export --backbone test_resnet=FILE`"):
        export(run=moved, out=tmp_path / "out")


def test_what_is_missing_is_told(run, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "onnxscript":
            raise ModuleNotFoundError("No module named 'onnxscript'", name=name)
        return real(name, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", without)
        with pytest.raises(FitrecError, match="export needs onnxscript: pip install onnx onnxruntime onnxscript"):
            export(run=run, out=tmp_path / "out")
    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    with pytest.raises(UsageError, match=r"test_resnet has .* of weights, one ONNX file holds 2"):
        export(run=run, out=tmp_path / "out")


def test_a_full_disk_is_told(run, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(StoreError, match=r"No space left on device\. Make room"):
        export(run=run, out=tmp_path / "out")


def test_at_the_command_line(run, tmp_path, quickly):
    out = tmp_path / "out"
    said = CliRunner().invoke(app, ["export", "--run", str(run), "--out", str(out)])
    assert said.exit_code == 0, said.output
    assert re.search(rf"{out}/head\.onnx: \d+\.\d kB", said.output)
    assert re.search(
        r"probabilities of 2 seeds together differ from PyTorch's by at most \d\.\de-\d\d on synthetic frames",
        said.output,
    )


@pytest.mark.parametrize("how", [{}, {"precision": "bf16", "rounding": "some way", "compiled": "by some compiler"}])
def test_how_a_network_was_made_fast_is_no_matter_elsewhere(run, how, monkeypatch):
    """Here it is: `predict` refuses features that are not quite those of training."""
    monkeypatch.setattr("fitrec_cache.backbones.backbone.check_compiler", lambda device: None)
    source = read_runs(run)[0].run_json["sources"][0]
    identity = {k: v for k, v in source["identity"].items() if k != "folded"} | how
    assert identity != source["identity"]
    elsewhere = Pipeline(source | {"identity": identity}, {}, device="cpu", force=False, exported=True)
    assert elsewhere.backbone.identity()["precision"] == "fp32"
    with pytest.raises(MismatchError, match="the head was trained on other features"):
        Pipeline(source | {"identity": identity | {"precision": "fp32"}}, {}, device="cpu", force=False)


def test_of_features_made_elsewhere_the_head_is_exported_alone(tmp_path):
    values = np.random.default_rng(0).standard_normal((40, 3, 5)).astype(np.float32)
    clips = Features(values=values, clip_ids=[f"{i:02d}" for i in range(40)], labels=["A", "B"] * 20)
    train_head(features=clips, variant="vit-lstm", epochs=1, out=tmp_path / "run")
    report = export(run=tmp_path / "run", out=tmp_path / "out")
    assert set(report.files) == {"head.onnx", "recogniser.json"}
    with torch.inference_mode():
        expected, *_ = HeadEnsemble(read_runs(tmp_path / "run"))(torch.from_numpy(values))
    np.testing.assert_allclose(answer(tmp_path / "out" / "head.onnx", values)["probabilities"], expected, atol=1e-5)
    told = json.loads((tmp_path / "out" / "recogniser.json").read_text())
    assert (told["inputs"], told["sampling"], told["samples"]) == ([], None, 3)
    with pytest.raises(UsageError, match="trained on features made elsewhere"):
        export(run=tmp_path / "run", out=tmp_path / "out", backbone=["net=w.safetensors"])
