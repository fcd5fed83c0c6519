from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_imports import loaded
from test_near_duplicates import as_set, recordings
from test_splits import make_split
from typer.testing import CliRunner

from fitrec_cache.audit import _fold, audit
from fitrec_cache.auditing.leaks import pairs_across, verdict
from fitrec_cache.auditing.near_duplicates import NearDuplicates, embed, find_near_duplicates
from fitrec_cache.auditing.pair_picture import pairs_png
from fitrec_cache.cache import Cache, HeldClip
from fitrec_cache.cli import app
from fitrec_cache.dataset.find_clips import find_clips
from fitrec_cache.dataset.splits import Split
from fitrec_cache.errors import StoreError, UsageError
from fitrec_cache.features import Features, load_cached
from fitrec_cache.report.leaks import Auditor
from fitrec_cache.settings.poses import POSE, POSE_DIM
from fitrec_cache.storage.parts import text_column
from fitrec_cache.texts import audit_text
from fitrec_cache.train import train_head
from fitrec_cache.video.jpeg import encode_frames

LEAKS = "split leaks (accuracy probably too high)"


def identity(backbone, t):
    """What a feature store must say of itself."""
    frames = {"samples": t, "short_side": 36}
    return {"backbone": backbone, "precision": "fp32", "preprocessing": {"preset": "native"}, "frames": frames}


def make_cache(folder, values, labels, groups, *, frames=True, backbones=("net",), extra=None):
    """Write a cache whose clip number i has the features ``values[i]``; features lie in another order than clip ids."""
    n, t, _ = values.shape
    keys = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]
    cache = Cache(folder, create=True)
    cache.write_clips(
        [
            HeldClip(clip_id=f"{label}/{i:03d}.avi", video_sha256=key, label=label, group=group, extra=more)
            for i, (key, label, group, more) in enumerate(zip(keys, labels, groups, extra or [{}] * n, strict=True))
        ]
    )
    for name in backbones:
        store = cache.feature_store(identity(name, t))
        for part in np.array_split(np.random.default_rng(5).permutation(n), 3):
            columns = {"features": values[part].astype(np.float16), "pts_seconds": np.zeros((len(part), t))}
            store.write_part({"key": text_column(keys[i] for i in part), **columns})
    if frames:
        write_frames(cache, keys, t)
    return folder


def write_frames(cache, keys, t):
    """Give clip number i frames of one grey value, ``2 * i``."""
    data = [encode_frames(np.full((t, 36, 64, 3), 2 * i % 256, np.uint8)) for i in range(len(keys))]
    sizes = np.array([[len(frame) for frame in clip] for clip in data])
    cache.frame_store({"samples": t, "short_side": 36}).write_part(
        {
            "key": text_column(keys),
            "jpeg_bytes": np.frombuffer(b"".join(b"".join(clip) for clip in data), dtype=np.uint8),
            "jpeg_end": sizes.cumsum().reshape(sizes.shape),
            "frame_index": np.zeros(sizes.shape, np.int64),
            "pts_seconds": np.zeros(sizes.shape),
            "ledger": text_column(["{}"] * len(keys)),
        }
    )


def truth(split, recording):
    """Test clips that have a clip of their own recording in training or validation, worked out clip by clip."""
    trained = {recording[i] for i in [*split.train, *split.val]}
    return sum(recording[i] in trained for i in split.test)


@pytest.fixture(scope="module")
def data():
    """120 clips of 40 recordings, in the order of their clip ids."""
    values, labels, recording = recordings()
    order = sorted(range(120), key=lambda i: f"{labels[i]}/{i:03d}.avi")
    return values, labels, recording, order


@pytest.fixture(scope="module")
def unknown(tmp_path_factory, data):
    values, labels, _, _ = data
    return make_cache(tmp_path_factory.mktemp("audit") / "cache", values, labels, [None] * 120)


@pytest.fixture(scope="module")
def known(tmp_path_factory, data):
    values, labels, recording, _ = data
    groups = [f"r{r}" for r in recording]
    return make_cache(tmp_path_factory.mktemp("audit") / "cache", values, labels, groups)


def test_a_random_split_of_clips_without_groups_leaks_as_many_as_there_are(unknown, data):
    _, labels, recording, order = data
    report = audit(cache=unknown, split="random", seed=3)
    ids = [f"{labels[i]}/{i:03d}.avi" for i in order]
    split = make_split("random", clip_ids=ids, labels=[labels[i] for i in order], groups=[None] * 120, seed=3)
    expected = truth(split, [recording[i] for i in order])
    assert expected > 10
    assert report.leaks
    fold = report.folds[0]
    assert (fold["near_duplicate"], fold["share_group"], fold["groups_on_both_sides"]) == (expected, 0, 0)
    assert (report.pairs, report.pairs_across_labels, report.clips) == (120, 0, 120)
    assert (report.clusters, report.clustered, report.largest_cluster) == (40, 120, 3)
    assert sum(fold["pairs"].values()) <= 120
    told = f"{LEAKS}: {expected} of {len(split.test)} test clips have a near-duplicate in training (similarity 0."
    assert fold["text"].startswith(told)
    assert fold["text"].endswith("; groups are unknown")


def test_each_number_of_the_summary_has_its_place(known):
    found = dataclasses.replace(
        audit(cache=known, split="random"), notes=(), clips=20, pairs=6, pairs_across_labels=2, threshold=0.86,
        halves_found=0.9, strangers_found=0.01, same_group={"pairs": 7, "found": 5}, clusters=3, clustered=9,
        largest_cluster=4,
    )  # fmt: skip
    assert audit_text(found, Path("cache"), None).splitlines()[:4] == [
        "20 clips by net: 6 near-duplicate pairs, 2 of them between two classes",
        "near-duplicate: similarity 0.860000 or more, taken from the data; 90% of the clips match their own other "
        "half at this threshold, 1.0% match a clip of another class",
        "5 of 7 pairs of one group are near-duplicates",
        "near-duplicates and groups make 3 clusters with 9 clips, the largest of 4",
    ]


def test_some_classes_are_looked_at_alone(known, data):
    _, labels, _, _ = data
    some = sorted(set(labels))[:2]
    report = audit(cache=known, split="random", seed=3, classes=",".join(some))
    assert report.clips == sum(label in some for label in labels) < len(labels)
    ids = [f"{label}/{i:03d}.avi" for i, label in enumerate(labels) if label in some]
    split = make_split("random", clip_ids=ids, labels=[n.split("/")[0] for n in ids], groups=[None] * len(ids), seed=3)
    assert (report.folds[0]["n_train"], report.folds[0]["n_test"]) == (len(split.train), len(split.test))
    with pytest.raises(UsageError, match="unknown class 'Nothing'"):
        audit(cache=known, classes="Nothing")


def test_groups_on_both_sides_are_counted_and_the_pairs_found_are_held_against_them(known, data):
    random = audit(cache=known, split="random", seed=3)
    fold = random.folds[0]
    assert fold["share_group"] == fold["near_duplicate"] > 0
    assert 0 < fold["groups_on_both_sides"] <= fold["share_group"]
    assert random.same_group == {"pairs": 120, "found": 120, "recall": 1.0, "precision": 1.0}
    group = audit(cache=known, split="group", seed=3)
    assert not group.leaks
    assert group.folds[0]["text"].startswith("no leak found: 0 of ")
    assert group.folds[0]["pairs"]["train-test"] == 0


def test_of_pairs_whose_groups_are_unknown_none_confirms_the_others(tmp_path, data):
    values, labels, recording, _ = data
    groups = [f"g{r}" if r % 2 else None for r in recording]
    report = audit(cache=make_cache(tmp_path / "cache", values, labels, groups), split="random")
    assert report.pairs == 120
    assert report.same_group == {"pairs": 60, "found": 60, "recall": 1.0, "precision": 1.0}


@pytest.mark.parametrize(("split", "code"), [("random", 1), ("group", 0)])
def test_the_exit_code_says_whether_a_split_leaks(known, split, code):
    said = CliRunner().invoke(app, ["audit", "--cache", str(known), "--split", split, "--seed", "3", "--json"])
    assert (said.exit_code, json.loads(said.stdout)["leaks"]) == (code, bool(code))


def test_groups_proposed_for_some_classes_are_no_groups_of_others(tmp_path, data):
    values, labels, recording, _ = data
    groups = [None] * 120
    for number, classes in enumerate(("K0,K1", "K2,K3")):
        cache = make_cache(tmp_path / f"cache-{number}", values, labels, groups)
        audit(cache=cache, split="random", classes=classes, manifest=tmp_path / f"{number}.csv")
        for clip in find_clips(tmp_path / f"{number}.csv", root=tmp_path).clips:
            groups[int(clip.clip_id[-7:-4])] = clip.group
    assert len({(group, recording[i]) for i, group in enumerate(groups)}) == len(set(groups)) == 40


@pytest.mark.parametrize("found", [0.8871, 0.88715, 0.9999999])
def test_the_threshold_that_is_printed_finds_no_more_than_the_one_that_was_used(known, monkeypatch, found):
    report = dataclasses.replace(audit(cache=known, split="group"), threshold=found)
    said = re.search(r"similarity (\S+) or more", audit_text(report, known, None))
    assert found <= float(said[1]) < found + 2e-6


def test_groups_that_a_proposal_would_join_are_told_and_too_few_as_well(tmp_path, data):
    values, labels, recording, _ = data
    people = [f"p{'ab'[r % 2]}{i % 3}" for i, r in enumerate(recording)]  # the clips of a recording are of three
    folder = make_cache(tmp_path / "cache", values, labels, people)
    notes = audit(cache=folder, split="random", manifest=tmp_path / "p.csv").notes
    assert "the groups proposed join 6 groups that you gave into 2, such as pa0, pa1, pa2: look at" in " ".join(notes)
    assert "the groups proposed are 2, too few to train, validate and test by" in notes
    assert not any("proposed" in note for note in audit(cache=folder, split="random").notes)


def test_a_manifest_with_the_proposed_groups_makes_the_group_split_clean(tmp_path, unknown, data):
    values, labels, recording, _ = data
    report = audit(cache=unknown, split="random", manifest=tmp_path / "proposed.csv")
    assert report.files == (str(tmp_path / "proposed.csv"),)
    proposed = {c.clip_id: c.group for c in find_clips(tmp_path / "proposed.csv", root=tmp_path).clips}
    together = {}
    for i, r in enumerate(recording):
        together.setdefault(r, set()).add(proposed[f"{labels[i]}/{i:03d}.avi"])
    assert all(len(names) == 1 for names in together.values())
    assert len(set.union(*together.values())) == 40
    groups = [proposed[f"{labels[i]}/{i:03d}.avi"] for i in range(120)]
    said = CliRunner().invoke(app, ["audit", "--cache", str(unknown), "--manifest", str(tmp_path / "b.csv")]).output
    assert f"fitrec-cache extract {tmp_path / 'b.csv'} --root VIDEOS --cache {unknown} " in said
    again = make_cache(tmp_path / "again", values, labels, groups)
    assert not audit(cache=again, split="group").leaks


def test_a_proposed_group_keeps_known_names_and_columns(tmp_path):
    values, labels, recording = recordings(20, 2)
    groups = ["old" if r == 0 else f"recording-{r:05d}" if r == 5 else None for r in recording]
    groups[1] = None  # the sibling of a clip with a group
    extra = [{"camera": str(i)} for i in range(40)]
    cache = make_cache(tmp_path / "c", values, labels, groups, extra=extra)
    audit(cache=cache, split="random", manifest=tmp_path / "p.csv")
    with (tmp_path / "p.csv").open() as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert rows["K0/000.avi"]["group"] == rows["K0/001.avi"]["group"] == "old"
    assert rows["K1/010.avi"]["group"] == "recording-00005"
    assert len({row["group"] for row in rows.values()}) == 20
    assert rows["K1/011.avi"]["camera"] == "11"


def test_the_folder_has_every_pair_as_a_table_and_a_picture(tmp_path, unknown, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "fitrec_cache.auditing.pair_picture.pairs_png",
        lambda pairs, *a, **k: shown.append(pairs) or pairs_png(pairs, *a, **k),
    )
    report = audit(cache=unknown, split="random", out=tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"audit.json", "pairs.csv", "pairs.png"}
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == json.loads(json.dumps(report.to_dict()))
    with (tmp_path / "out" / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    across = [r for r in rows if {r["side_a"], r["side_b"]} in ({"train", "test"}, {"val", "test"})]
    assert len(across) == report.folds[0]["pairs"]["train-test"] + report.folds[0]["pairs"]["val-test"]
    alike = [e["similarity"] for e in report.examples]
    assert [r["similarity"] for r in across[:20]] == [f"{value:.4f}" for value in alike]
    assert [pair[2] for pair in shown[0]] == alike[: len(shown[0])]  # rounded once, where it is shown
    drawn = [[clip.caption.rpartition(", ")[2] for clip in pair[:2]] for pair in shown[0]]
    assert {"val", "train"} == {left for left, _ in drawn}
    assert {right for _, right in drawn} == {"test"}
    with Image.open(tmp_path / "out" / "pairs.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    first = report.examples[0]
    for name in "ab":  # each clip is drawn, in its own grey
        grey = 2 * int(first[f"clip_{name}"][3:6])
        assert (np.abs(pixels.astype(int) - grey).max(axis=2) < 4).sum() > 2000
    audit(cache=unknown, split="random", out=tmp_path / "out", threshold=1.0)
    assert not (tmp_path / "out" / "pairs.png").exists()  # nothing is left of the earlier audit


def test_an_audit_that_cannot_write_its_verdict_can_be_made_again(tmp_path, unknown, monkeypatch):
    wanted = {"cache": unknown, "split": "random", "out": tmp_path / "out", "manifest": tmp_path / "m.csv"}
    with monkeypatch.context() as full:
        full.setattr("fitrec_cache.audit.write_json", lambda *_: (tmp_path / "gone").unlink())
        with pytest.raises(FileNotFoundError):
            audit(**wanted)
    assert (tmp_path / "out" / "pairs.csv").exists()
    report = audit(**wanted)
    assert report.files[-1] == str(tmp_path / "m.csv")
    assert all(Path(path).exists() for path in report.files)


def test_a_manifest_in_the_place_of_the_pairs_is_refused(tmp_path, unknown):
    with pytest.raises(UsageError, match=r"where --out writes the pairs"):
        audit(cache=unknown, out=tmp_path / "a", manifest=tmp_path / "b" / ".." / "a" / "pairs.csv")
    assert not (tmp_path / "a").exists()


def test_what_a_killed_audit_left_beside_its_manifest_goes(tmp_path, unknown):
    left = tmp_path / ".tmp-00000000-1-0000aaaa"
    left.touch()
    os.utime(left, (0, 0))
    audit(cache=unknown, split="random", manifest=tmp_path / "m.csv")
    assert not left.exists()


def test_an_interrupted_audit_leaves_no_verdict_of_an_earlier_one(tmp_path, unknown, monkeypatch):
    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    audit(cache=unknown, split="random", out=tmp_path)
    monkeypatch.setattr("fitrec_cache.auditing.pair_picture.pairs_png", interrupted)
    with pytest.raises(KeyboardInterrupt):
        audit(cache=unknown, split="random", out=tmp_path, seed=1)
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.csv"]


def test_without_frames_there_is_no_picture_and_it_says_so(tmp_path, data):
    values, labels, _, _ = data
    cache = make_cache(tmp_path / "c", values, labels, [None] * 120, frames=False)
    report = audit(cache=cache, split="random", out=tmp_path / "out")
    assert "no picture: the cache holds no frames of these clips" in report.notes
    assert not (tmp_path / "out" / "pairs.png").exists()


def test_every_fold_is_judged(known, unknown):
    clean = audit(cache=known, split="kfold:4")
    assert [(f["fold"], f["leaks"]) for f in clean.folds] == [(f"{k:02d}", False) for k in range(1, 5)]
    assert sum(f["n_test"] for f in clean.folds) == 120
    report = audit(cache=unknown, split="kfold:4")
    assert report.leaks
    assert all(f["near_duplicate"] for f in report.folds)
    assert report.examples[0]["side_a"] == ""  # a clip is on another side in each fold


def test_a_pair_of_two_classes_is_counted(tmp_path):
    values, labels, _ = recordings(60, 2)
    labels = ["K9" if i == 7 else label for i, label in enumerate(labels)]  # mislabelled
    labels[9] = "K9"
    report = audit(cache=make_cache(tmp_path / "c", values, labels, [None] * 120), split="random", threshold=0.9)
    assert report.pairs_across_labels == 2
    assert report.strangers_found == pytest.approx(4 / 120)


def test_the_backbone_with_the_most_clips_is_taken(tmp_path, data):
    values, labels, _, _ = data
    folder = make_cache(tmp_path / "c", values, labels, [None] * 120, backbones=("all",))
    store = Cache(folder).feature_store(identity("few", 6))
    key = text_column([hashlib.sha256(b"0").hexdigest()])
    store.write_part({"key": key, "features": np.ones((1, 6, 3), np.float16), "pts_seconds": np.zeros((1, 6))})
    assert audit(cache=folder, split="random").backbone == "all"
    with pytest.raises(UsageError, match="unknown backbone 'non'"):
        audit(cache=folder, backbone="non")
    with pytest.raises(StoreError, match="holds no features of preset paper"):
        audit(cache=folder, preset="paper")
    with pytest.raises(UsageError, match=r"unknown preset 'papr'. Did you mean 'paper'"):
        audit(cache=folder, preset="papr")


def test_what_is_in_the_way_is_refused_before_any_work(tmp_path, unknown):
    (tmp_path / "there.csv").touch()
    with pytest.raises(UsageError, match="exists"):
        audit(cache=unknown, manifest=tmp_path / "there.csv")
    with pytest.raises(UsageError, match=r"--manifest .*groups\.txt: expected a name that ends in \.csv"):
        audit(cache=unknown, manifest=tmp_path / "groups.txt")
    with pytest.raises(UsageError, match="is a file"):
        audit(cache=unknown, out=tmp_path / "there.csv")


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.png", "audit.json"])
def test_files_of_others_are_not_replaced(tmp_path, unknown, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=rf"--out .*{name} exists and is not an audit's: choose another name"):
        audit(cache=unknown, split="random", out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


# --- the line that train-head prints ---


def sides(train, val, test):
    parts = {"train": train, "val": val, "test": test}
    return Split(rule="r", notes=(), **{k: np.array(v, dtype=np.int64) for k, v in parts.items()})


def test_the_verdict_counts_test_clips_near_training_or_validation():
    values, labels, recording = recordings(20, 2)
    found = find_near_duplicates(embed([values]), labels=labels, groups=[None] * 40)
    groups = [f"g{r}" for r in recording]
    apart = verdict(sides(range(20), [20, 21], range(22, 40)), groups, found)
    assert (apart.leaks, apart.share_group, apart.near_duplicate, apart.n_test) == (False, 0, 0, 18)
    assert apart.text.startswith(
        "no leak found: 0 of 18 test clips share a group with training, 0 have a near-duplicate"
    )
    val = verdict(sides(range(20), [20, 22], [21, 23, *range(24, 40)]), groups, found)  # val and test share two
    assert (val.leaks, val.share_group, val.near_duplicate) == (True, 2, 2)
    mixed = verdict(sides([*range(20), 20], [], [21, *range(22, 40)]), [None] * 40, found)
    assert (mixed.leaks, mixed.share_group, mixed.near_duplicate) == (True, 0, 1)
    both = verdict(sides([0, 2, 3], [], [1, 4]), groups, found)
    assert (both.leaks, both.share_group, both.near_duplicate) == (True, 1, 1)
    only_groups = verdict(sides([0], [], [1, 4]), groups, None)
    assert (only_groups.leaks, only_groups.share_group) == (True, 1)
    told = f"{LEAKS}: 1 of 2 test clips share a group with training; near-duplicates not looked for: run audit"
    assert only_groups.text == told
    part = verdict(sides([0], [], [1, 4]), [*groups[:4], None, *groups[5:]], None)
    assert part.text == f"{told}; the group of 1 of 3 clips is unknown"
    neither = verdict(sides([0], [], [1, 4]), [None] * 40, None)
    assert (
        neither.text
        == "not known whether the split leaks: groups are unknown, near-duplicates not looked for: run audit"
    )


def test_where_all_groups_are_known_and_apart_clips_that_look_alike_are_to_be_seen_first():
    """Two clips of one class may look alike without being of one recording."""
    values, labels, _ = recordings(20, 2)
    found = find_near_duplicates(embed([values]), labels=labels, groups=[None] * 40)
    split = sides([*range(20), 20], [], [21, *range(22, 40)])
    alone = [f"g{i}" for i in range(40)]
    one = "1 of 19 test clips"
    assert verdict(split, alone, found).text.startswith("split may leak (accuracy may be too high): 0 of")
    assert verdict(split, [*alone[:39], None], found).text.startswith(f"{LEAKS}: 0 of 19")
    assert verdict(split, [None] * 40, found).text.startswith(f"{LEAKS}: {one} have a near-duplicate in training")
    sound = verdict(sides(range(20), [], range(20, 40)), [None] * 40, found)
    assert sound.text.startswith("no near-duplicate found: 0 of 20 test clips have a near-duplicate in training")
    assert sound.text.endswith("; groups are unknown")


def test_the_groups_of_clips_on_no_side_do_not_matter():
    told = f"{LEAKS}: 1 of 2 test clips share a group with training; near-duplicates not looked for: run audit"
    assert verdict(sides([0], [], [1, 2]), ["a", "a", "b", None], None).text == told
    unknown = verdict(sides([0], [], [1, 2]), [None, None, None, "a"], None)
    assert unknown.text.startswith("not known whether the split leaks: groups are unknown, near-duplicates not looked")


def test_a_test_clip_that_is_like_several_in_training_counts_once():
    found = NearDuplicates(
        threshold=0.9876,
        pairs=np.array([[0, 2], [1, 2], [2, 4]]),  # clip 4 is on no side
        similarity=np.ones(3, np.float32),
        halves_found=None,
        strangers_found=None,
    )
    told = verdict(sides([0], [1], [2, 3]), list("abcde"), found)
    assert (told.leaks, told.near_duplicate) == (True, 1)
    assert told.text.endswith(
        "0 of 2 test clips share a group with training, 1 have a near-duplicate there (similarity 0.988 or more)"
    )


def test_a_pair_counts_that_is_across_in_any_of_the_splits():
    pairs = np.array([[0, 1], [2, 3], [0, 2]])
    found = NearDuplicates(
        threshold=0.9,
        pairs=pairs,
        similarity=np.ones(3, np.float32),
        halves_found=None,
        strangers_found=None,
    )
    first, second = sides([0], [2], [1]), sides([0, 1], [2], [3])
    for splits in ([first, second], [second, first]):
        assert pairs_across(splits, found, 4).tolist() == [0, 1]


def test_features_in_memory_give_the_same_pairs_as_the_cache(known, monkeypatch):
    data = load_cached(Cache(known), ["net"])
    assert len(data.near_duplicates().pairs) == audit(cache=known).pairs == 120
    monkeypatch.setattr("fitrec_cache.features._COMPARED", 119)
    assert load_cached(Cache(known), ["net"]).near_duplicates() is None


def test_poses_are_not_searched_as_they_are_alike_in_different_recordings(tmp_path, data):
    values, labels, _, _ = data
    folder = make_cache(tmp_path / "c", values, labels, [None] * 120, backbones=())
    with_output = {"preprocessing": {"preset": "native", "output": POSE}}
    store = Cache(folder).feature_store(identity("pose", 6) | with_output)
    alike = np.random.default_rng(1).normal(size=(60, 6, POSE_DIM)).astype(np.float16).repeat(2, axis=0)
    keys = text_column(hashlib.sha256(str(i).encode()).hexdigest() for i in range(120))
    store.write_part({"key": keys, "features": alike, "pts_seconds": np.zeros((120, 6))})
    record = SimpleNamespace(sources=[{"identity": store.identity}])
    clips = sorted(Cache(folder).clips(), key=lambda clip: clip.clip_id)

    assert load_cached(Cache(folder), ["pose"]).near_duplicates() is None
    unlooked = "near-duplicates not looked for, as poses do not show them: run audit with another backbone"
    assert Auditor(Cache(folder))._look(record, clips) == unlooked
    told = train_head(out=tmp_path / "run", cache=folder, backbone="pose", variant="mean", split="random", epochs=1)
    assert f"not known whether the split leaks: groups are unknown, {unlooked}" in told.notes
    for given in ({}, {"backbone": "pose"}):
        with pytest.raises(UsageError, match=r"alike in different recordings .* expected features of another backbone"):
            audit(cache=folder, split="random", **given)

    make_cache(folder, values, labels, [None] * 120)
    assert audit(cache=folder, split="random").backbone == "net"
    wanted = as_set(load_cached(Cache(folder), ["net"]).near_duplicates())
    assert len(wanted) == 120
    for names in (["net", "pose"], ["pose", "net"]):
        assert as_set(load_cached(Cache(folder), names).near_duplicates()) == wanted
    assert as_set(Auditor(Cache(folder))._look(record, clips)) == wanted


def test_clips_that_all_look_alike_do_not_stop_a_training(known, monkeypatch):
    monkeypatch.setattr("fitrec_cache.auditing.near_duplicates.MOST_PAIRS", 10)
    assert load_cached(Cache(known), ["net"]).near_duplicates() is None


def test_frames_can_be_looked_through_too():
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 256, (30, 1, 64, 64, 3))
    values = np.clip(np.repeat(scenes, 2, axis=0) + rng.integers(-3, 4, (60, 4, 64, 64, 3)), 0, 255).astype(np.uint8)
    ids = [str(i) for i in range(60)]
    labels = [f"K{i // 2 % 3}" for i in range(60)]
    made = Features(values=values, pts_seconds=np.zeros((60, 4)), clip_ids=ids, labels=labels, groups=[None] * 60)
    assert {tuple(p) for p in made.near_duplicates().pairs.tolist()} == {(i, i + 1) for i in range(0, 60, 2)}


def test_the_verdict_loads_nothing_heavy():
    heavy = ("matplotlib", "av", "timm", "fitrec_cache.auditing.pair_picture")
    assert loaded("import fitrec_cache.auditing.leaks, fitrec_cache.audit", *heavy) == set()


def test_a_group_of_validation_and_test_is_on_both_sides():
    """Validation says when training stops, so it counts as training."""
    found = NearDuplicates(
        threshold=0.9,
        pairs=np.empty((0, 2), dtype=np.int64),
        similarity=np.empty(0),
        halves_found=None,
        strangers_found=None,
    )
    split = Split(rule="random", train=np.array([0]), val=np.array([1]), test=np.array([2, 3]), notes=())
    told = _fold("", split, ["a", "b", "b", "c"], found)
    assert (told["share_group"], told["groups_on_both_sides"], told["leaks"]) == (1, 1, True)
