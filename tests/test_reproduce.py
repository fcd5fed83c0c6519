from __future__ import annotations

import html
import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fitrec_cache.auditing.near_duplicates import find_near_duplicates
from fitrec_cache.cache import TAKEN_OUT, Cache, pick_features
from fitrec_cache.errors import UsageError
from fitrec_cache.extract import extract
from fitrec_cache.features import load_cached
from fitrec_cache.reproduce import MODELS, _Job, _refuse_other_clips, _row, reproduce
from fitrec_cache.settings.paper import TABLE_II
from fitrec_cache.storage.parts import text_column
from fitrec_cache.texts import reproduce_text
from fitrec_cache.training.loading import load_clips

NAMES = ("test_resnet", "test_efficientnet", "test_vit")
SMALL = {"seed": [0], "split": ["random", "group"], "preset": ["paper", "native"], "epochs": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory, video_folder, weights):
    """One whole reproduction on twelve clips; not to be changed."""
    out = tmp_path_factory.mktemp("reproduced") / "out"
    backbones = [weights(name) for name in NAMES]
    return reproduce(video_folder, out=out, backbone=backbones, **SMALL), out, backbones


def test_a_folder_that_is_no_cache_yet_holds_no_other_clips(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".tmp-0-1-x").touch()  # of a call that was killed
    _refuse_other_clips(tmp_path / "cache", [], tmp_path)


def test_every_model_is_there_under_every_preset_and_split(reproduced):
    report, out, _ = reproduced
    rows = {(r.split, r.preset, r.variant, r.backbone) for r in report.table2}
    expected = {
        (split, preset, variant, name)
        for split in ("random", "group")
        for preset in ("paper", "native")
        for model, name in zip(MODELS, NAMES, strict=True)
        for variant in (model, "mean")
    }
    assert rows == expected
    assert len(report.table2) == len(expected)
    for row in report.table2:
        found = list((out / "runs" / row.preset / row.split).glob(f"{row.variant}-{row.backbone}/metrics.json"))
        assert [json.loads(p.read_text())["accuracy"] for p in found] == [row.figures["accuracy"]]
        run = json.loads((found[0].parent / "run.json").read_text())
        assert run["sources"][0]["identity"]["preprocessing"]["preset"] == row.preset
        assert run["recipe"] == row.preset
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert json.loads((out / "reproduce.json").read_text())["table2"][0]["variant"] == MODELS[0]


def test_the_page_says_of_the_first_pairs_what_the_summary_says(reproduced):
    """Within a preset and split, so 15 pairs each of four times six models: p-values depend on how many there are."""
    report, out, _ = reproduced
    page = html.unescape((out / "report.html").read_text())
    assert len(report.comparisons) == 4 * 15
    assert "60 pairs compared clip by clip" in page
    assert [text in page for text in report.comparisons] == [True] * 6 + [False] * 54  # the first ones in words


def test_what_the_paper_prints_stands_beside_it(reproduced):
    report, _, _ = reproduced
    printed = {row.variant: row.accuracy for row in TABLE_II}
    assert {r.printed for r in report.table2 if r.variant == "mean"} == {None}
    assert all(r.printed == printed[r.variant] for r in report.table2 if r.variant != "mean")
    assert report.table1["variants"][0]["paper_total"] > 0


def test_only_what_is_wrong_with_a_split_is_noted(reproduced):
    """Twelve clips of twelve recordings: nothing leaks, and every class is trained."""
    report, out, _ = reproduced
    splits = [json.loads(path.read_text())["split"] for path in out.glob("runs/**/run.json")]
    assert {(split["sharing"], *split["untrained"]) for split in splits} == {(0,)}
    # What looks alike to networks with made-up weights depends on the version of PyTorch.
    assert not [note for note in report.notes if "near-duplicate" not in note]


def test_the_gap_is_random_less_group(reproduced):
    report, _, _ = reproduced
    assert len(report.gap) == 12
    for name, gap in report.gap.items():
        preset, rest = name.split(": ")
        variant, backbone = rest.split(",")[0].split(" on ")
        of = {
            r.split: r.figures["accuracy"]
            for r in report.table2
            if (r.preset, r.variant, r.backbone) == (preset, variant, backbone)
        }
        assert gap == pytest.approx(of["random"] - of["group"])


def test_each_figure_of_the_summary_has_its_place(reproduced):
    report = reproduced[0]
    figures = {"figures": {"accuracy": 0.5, "accuracy_sd": 0.02}, "seeds": 2, "n": 60, "printed": 0.93}
    row = SimpleNamespace(split="group", preset="native", variant="mean", backbone="net", **figures)
    head, told, gap, *_ = reproduce_text(replace(report, notes=(), table2=(row,), gap={"a over b": 0.123})).splitlines()
    assert head.split() == ["split", "preset", "model", "features", "accuracy", "sd", "n", "paper"]
    assert told.split() == ["group", "native", "mean", "net", "50.0%", "2.0%", "60", "93.0%"]
    assert gap == "a over b: +12.3 points"


def test_a_second_call_makes_nothing_again(reproduced, video_folder, monkeypatch):
    report, out, backbones = reproduced
    loaded = []
    monkeypatch.setattr("fitrec_cache.reproduce.load_clips", lambda *a, **k: loaded.append(a) or load_clips(*a, **k))
    searched = []
    monkeypatch.setattr(
        "fitrec_cache.features.find_near_duplicates",
        lambda *a, **k: searched.append(a) or find_near_duplicates(*a, **k),
    )
    times = {p: p.stat().st_mtime_ns for p in out.rglob("run.json")}
    again = reproduce(video_folder, out=out, backbone=backbones, **SMALL)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("run.json")} == times
    assert len(loaded) == 6  # features of three backbones by two presets, for 24 models
    assert len(searched) == 6 + 6  # by each for its trainings, and once more for the report
    assert [again.extract[p]["done"] for p in ("paper", "native")] == [0, 0]
    assert np.array_equal([r.figures["accuracy"] for r in again.table2], [r.figures["accuracy"] for r in report.table2])


def test_other_clips_than_those_of_the_first_call_are_refused(reproduced, video_folder):
    _, out, backbones = reproduced
    before = (out / "reproduce.json").read_bytes()
    some = ",".join(sorted(p.name for p in video_folder.iterdir() if p.is_dir())[:2])
    with pytest.raises(UsageError, match="holds 12 clips of an earlier call, of which this one, with 8 clips"):
        reproduce(video_folder, out=out, backbone=backbones, classes=some, **SMALL)
    assert (out / "reproduce.json").read_bytes() == before


def test_a_split_that_these_clips_cannot_have_is_told_before_anything_is_made(reproduced, video_folder, tmp_path):
    _, _, backbones = reproduced
    rows = [f"{path.relative_to(video_folder)},{path.parent.name}," for path in sorted(video_folder.glob("*/*.avi"))]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,group", *rows]))
    with pytest.raises(UsageError, match="split 'group' needs groups, and none of 12 clips has one"):
        reproduce(tmp_path / "clips.csv", root=video_folder, out=tmp_path / "out", backbone=backbones, **SMALL)
    assert not (tmp_path / "out").exists()


def test_a_later_seed_by_which_a_side_is_empty_is_told_before_anything_is_made(video_folder, tmp_path, monkeypatch):
    def divided(rule, clips, *, seed):
        if seed == 2:
            raise UsageError(f"split {rule!r} leaves no clips to val on")
        return []

    monkeypatch.setattr("fitrec_cache.reproduce.folds_of_clips", divided)
    with pytest.raises(UsageError, match="leaves no clips to val on"):
        reproduce(video_folder, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parts_without_groups_can_be_split_by_their_files(reproduced, video_folder, tmp_path, monkeypatch):
    _, _, backbones = reproduced
    rows = [f"{p.relative_to(video_folder)}#t=0.1,{p.parent.name}," for p in sorted(video_folder.glob("*/*.avi"))]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,group", *rows]))
    monkeypatch.setattr("fitrec_cache.reproduce.extract", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # the check before it passed
        reproduce(tmp_path / "clips.csv", root=video_folder, out=tmp_path / "out", backbone=backbones, **SMALL)


def test_a_call_that_asks_for_other_clips_adds_none(reproduced, video_folder, tmp_path):
    """Once such clips were cached, the right call would be refused for ever."""
    _, out, backbones = reproduced
    other = tmp_path / "videos" / "Other"
    other.mkdir(parents=True)
    video = next(p for p in sorted(video_folder.glob("*/*")))
    (other / f"v_Other_g01_c01{video.suffix}").symlink_to(video)
    with pytest.raises(UsageError, match="choose another folder"):
        reproduce(tmp_path / "videos", out=out, backbone=backbones, **SMALL)
    assert len(Cache(out / "cache").clips()) == 12


def test_features_are_chosen_by_their_store(reproduced, video_folder, tmp_path):
    """The cache may hold others of the same backbone and preset, as from before an upgrade."""
    _, out, backbones = reproduced
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    (store,) = (s for s in Cache(copy / "cache").feature_stores() if s.folder.name.startswith(f"{NAMES[0]}-native"))
    other = "bf16" if store.identity["precision"] == "fp32" else "fp32"
    noted = extract(cache=copy / "cache", backbone=backbones[:1], precision=other, device="cpu").notes
    changed = f"12 clips have features of {NAMES[0]} made with other settings (precision: "
    assert any(changed in n and "embedding again" in n for n in noted)
    with pytest.raises(UsageError, match=r"2 sets of features fit.*\(precision .*; .*\(precision"):
        pick_features(Cache(copy / "cache"), NAMES[0], preset="native")
    again = reproduce(video_folder, out=copy, backbone=backbones, **SMALL)
    assert {r.backbone for r in again.table2} == set(NAMES)


@pytest.mark.parametrize("whole", [True, False])
def test_features_of_another_version_are_used_until_all_are_made_again(reproduced, tmp_path, whole):
    """Clips that were removed meanwhile do not count."""
    _, out, _ = reproduced
    shutil.copytree(out / "cache", tmp_path / "cache")
    cache = Cache(tmp_path / "cache")
    (before,) = (s for s in cache.feature_stores() if s.folder.name.startswith(f"{NAMES[0]}-native"))
    identity = before.identity | {"frames": before.identity["frames"] | {"decoder": "another FFmpeg"}}
    after = cache.feature_store(identity)
    first = cache.clips()[0]
    cache.write_clips([replace(first, problem=TAKEN_OUT)])
    left = [key for key in before if key != first.video_sha256]
    keys = left if whole else left[1:]
    after.write_part({"key": text_column(keys), **before.rows(keys, ("features", "pts_seconds"))})
    chosen, (note,) = pick_features(Cache(tmp_path / "cache"), NAMES[0], preset="native")
    used, other = (after, before) if whole else (before, after)
    assert chosen.folder == used.folder
    assert re.fullmatch(rf"features {used.folder.name} \(.*\) are used, not {other.folder.name} .* made", note)
    data = load_cached(Cache(tmp_path / "cache"), [NAMES[0]], preset="native")
    assert note in data.notes
    assert len(data.clip_ids) == 11


def test_a_grid_of_features_is_trained_by_native(reproduced, video_folder, tmp_path):
    _, out, backbones = reproduced
    copy = tmp_path / "out"
    shutil.copytree(out / "cache", copy / "cache")
    settings = SMALL | {"preset": ["grid"], "split": ["group"]}
    found = reproduce(video_folder, out=copy, backbone=backbones, **settings)
    assert {row.preset for row in found.table2} == {"grid"}
    run = json.loads(next((copy / "runs" / "grid").rglob("run.json")).read_text())
    assert run["recipe"] == "native"
    assert run["sources"][0]["identity"]["preprocessing"]["preset"] == "grid"


def test_a_video_that_failed_may_be_gone(reproduced, video_folder, tmp_path):
    _, out, backbones = reproduced
    shutil.copytree(out / "cache", tmp_path / "out" / "cache")
    bad = tmp_path / "videos" / "Hop" / "bad.mp4"
    bad.parent.mkdir(parents=True)
    bad.touch()
    assert extract(tmp_path / "videos", cache=tmp_path / "out" / "cache", backbone=backbones[:1], device="cpu").failed
    settings = SMALL | {"preset": ["native"], "split": ["group"]}
    found = reproduce(video_folder, out=tmp_path / "out", backbone=backbones, **settings)
    assert {row.n for row in found.table2} == {3}


def test_models_of_earlier_calls_are_named_and_come_back(reproduced, video_folder, tmp_path):
    report, out, backbones = reproduced
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    fewer = reproduce(video_folder, out=copy, backbone=backbones, **SMALL | {"split": ["random"]})
    assert len(fewer.table2) == 12
    assert fewer.gap == {}
    (note,) = (n for n in fewer.notes if "earlier calls" in n)
    assert note.startswith("12 models of earlier calls are not in these tables: group (native), group (paper).")
    again = reproduce(video_folder, out=copy, backbone=backbones, **SMALL)
    assert again.gap == report.gap
    assert not any("earlier calls" in n for n in again.notes)


def test_models_made_otherwise_are_trained_again_when_asked_for(reproduced, video_folder, tmp_path):
    _, out, backbones = reproduced
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    settings = SMALL | {"preset": ["native"], "split": ["group"], "epochs": 2}
    with pytest.raises(
        UsageError, match=r"made with other settings \(epochs\): choose another folder.*or add --overwrite"
    ):
        reproduce(video_folder, out=copy, backbone=backbones, **settings)
    reproduce(video_folder, out=copy, backbone=backbones, overwrite=True, **settings)
    metrics = json.loads(next((copy / "runs" / "native" / "group").glob("mean-*/metrics.json")).read_text())
    assert len(metrics["history"]) == 2


@pytest.mark.parametrize("name", ["reproduce.json", "report.html"])
def test_files_of_the_users_are_refused_before_any_work(tmp_path, video_folder, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=rf"{name} exists and is not a re"):
        reproduce(video_folder, out=tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir() if path.is_file()] == ["mine"]
    assert not (tmp_path / "cache").exists()


def test_wrong_use_is_refused(tmp_path, video_folder):
    with pytest.raises(UsageError, match="no such file or folder"):
        reproduce(tmp_path / "none", out=tmp_path / "x")
    with pytest.raises(UsageError, match="expected three"):
        reproduce(video_folder, out=tmp_path / "x", backbone=["resnet50"])
    with pytest.raises(UsageError, match="presets paper, native, grid"):
        reproduce(video_folder, out=tmp_path / "x", preset=["table1"])
    with pytest.raises(UsageError, match="epochs is 0: expected 1 or more"):
        reproduce(video_folder, out=tmp_path / "x", epochs=0)
    for split, message in ((["grup"], "group"), (["kfold:one"], "whole number"), (["list:a.txt,b.txt"], "cannot read")):
        with pytest.raises(UsageError, match=message):
            reproduce(video_folder, out=tmp_path / "x", split=split)
    for twice in (
        {"seed": [1, 1]},
        {"split": ["group", "group"]},
        {"split": ["group", "auto"]},
        {"preset": ["paper"] * 2},
    ):
        with pytest.raises(UsageError, match="each once"):
            reproduce(video_folder, out=tmp_path / "x", **twice)
    assert not (tmp_path / "x").exists()


FIGURES = ("accuracy", "top5_accuracy", "precision_weighted", "recall_weighted", "f1_weighted", "f1_macro")


def test_a_seed_counts_in_a_row_by_how_many_clips_it_tests():
    """As in compare: one of one clip right and none of three are one of four."""
    runs = [
        {**dict.fromkeys(FIGURES, share), "n_test": n, "backbone": "resnet50", "seconds": seconds}
        for share, n, seconds in ((1.0, 1, 2.0), (0.0, 3, 4.0))
    ]
    row = _row(_Job("native", "group", "mean", "resnet50"), {"pooled": [], "runs": runs, "accuracy_std": 0.5})
    assert row.figures == dict.fromkeys(FIGURES, 0.25) | {"accuracy_sd": 0.5}
    assert (row.seeds, row.seconds) == (2, 3.0)
