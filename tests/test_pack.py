from __future__ import annotations

import json
import shutil
import tracemalloc
from dataclasses import replace
from itertools import count

import h5py
import numpy as np
import pytest
from test_train import toy

from fitrec_cache.cache import Cache
from fitrec_cache.errors import StoreError, UsageError
from fitrec_cache.features import load_cached
from fitrec_cache.pack import pack, read_pack
from fitrec_cache.pipeline import sources_of
from fitrec_cache.runs.run import read_run
from fitrec_cache.storage import hdf5
from fitrec_cache.texts import pack_text
from fitrec_cache.train import train_head


@pytest.fixture
def packed(tmp_path, cache_folder):
    pack(cache=cache_folder, backbone=["test_resnet"], out=tmp_path / "packed.h5")
    return tmp_path / "packed.h5"


def test_a_pack_is_plain_hdf5_with_the_features_of_the_cache(packed, cache_folder):
    cache = Cache(cache_folder)
    store = cache.feature_stores()[0]
    with h5py.File(packed) as file:
        assert set(file) == {"features", "clip_id", "label", "group", "pts_seconds", "extra"}
        assert file["features"].shape == (12, 4, 96)
        assert file["features"].dtype == np.float16
        for row, clip in enumerate(cache.clips()):
            assert file["clip_id"][row].decode() == clip.clip_id
            assert file["label"][row].decode() == clip.label
            assert file["group"][row].decode() == clip.group
            stored = store.row(clip.video_sha256)
            assert np.array_equal(file["features"][row], stored["features"])
            assert np.array_equal(file["pts_seconds"][row], stored["pts_seconds"])


def test_a_part_of_the_clips_is_not_packed_without_a_word(tmp_path, cache_folder):
    shutil.copytree(cache_folder, tmp_path / "cache")
    Cache(tmp_path / "cache").begin(["Hop/new.avi", *(c.clip_id for c in Cache(tmp_path / "cache").clips())])
    report = pack(cache=tmp_path / "cache", backbone=["test_resnet"], out=tmp_path / "some.h5")
    (note,) = report.notes
    assert note.startswith("an extract of 13 clips did not finish, and 1 of them is not")
    assert f"note: {note}" in pack_text(report)


def test_training_on_a_pack_is_training_on_the_cache(tmp_path, packed, cache_folder):
    settings = {"variant": "mean", "epochs": 2}
    train_head(out=tmp_path / "a", features=packed, **settings)
    train_head(out=tmp_path / "b", cache=cache_folder, backbone=["test_resnet"], **settings)
    heads = [(tmp_path / n / "head.safetensors").read_bytes() for n in "ab"]
    assert heads[0] == heads[1]
    assert sources_of(read_run(tmp_path / "a")) == sources_of(read_run(tmp_path / "b"))


def test_columns_of_a_manifest_go_along(tmp_path):
    """Rows come in any order; columns stay with their clips."""
    path = toy(tmp_path / "toy.h5")
    with h5py.File(path, "r+") as file:
        ids = [i.decode() for i in file["clip_id"][()]]
        rooms = {clip: f"room {i % 3}" for i, clip in enumerate(ids)}
        file["extra"] = [json.dumps({"room": rooms[clip]}) for clip in ids]
    data = read_pack(path)
    assert [columns["room"] for columns in data.extra] == [rooms[clip] for clip in data.clip_ids]
    report = train_head(out=tmp_path / "run", features=path, variant="mean", epochs=1, split="leave-one:room")
    assert len(report.runs) == 3
    said = "validation clips are of a room that training has too"
    assert any(said in note for note in report.notes)
    with h5py.File(path, "r+") as file:
        file["group"][...] = [f"{rooms[clip][-1]}{i % 2}".encode() for i, clip in enumerate(ids)]
        file["extra"][...] = [json.dumps({"room": g.decode()}) for g in file["group"][()]]
    apart = train_head(out=tmp_path / "apart", features=path, variant="mean", epochs=1, split="leave-one:room")
    assert not any(said in note for note in apart.notes)
    for wrong in ("[1]", '{"room": 1}', "{"):
        with h5py.File(path, "r+") as file:
            del file["extra"]
            file["extra"] = [wrong] * len(ids)
        with pytest.raises(UsageError, match=r"toy\.h5"):
            read_pack(path)


def test_several_backbones_are_put_side_by_side_each_once(tmp_path, two_backbones):
    report = pack(cache=two_backbones, backbone=["test_resnet", "other"], out=tmp_path / "two.h5")
    assert (report.clips, report.frames, report.dim) == (12, 4, 192)
    values = read_pack(tmp_path / "two.h5").values
    assert np.array_equal(values[..., :96], values[..., :95:-1])
    folder = next((two_backbones / "features").glob("test_resnet-*")).name
    for again in ("test_resnet", "timm/test_resnet", folder):
        with pytest.raises(UsageError, match=rf"backbone {again} is named twice"):
            pack(cache=two_backbones, backbone=["test_resnet", "other", again], out=tmp_path / "x.h5")


def test_labels_and_groups_of_files_made_elsewhere_are_spelled_as_what_is_typed(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["features"] = np.ones((2, 4, 3), dtype=np.float16)
        file["clip_id"] = [b"1", b"2"]
        file["label"] = [b"Squat ", "U\u0308bung".encode()]
        file["group"] = [b" anna", b""]
    found = read_pack(tmp_path / "f.h5")
    assert (found.labels, found.groups) == (["Squat", "\u00dcbung"], ["anna", None])


def test_packing_refuses_what_it_cannot_do(tmp_path, packed, cache_folder, two_backbones):
    before = packed.read_bytes()
    with pytest.raises(UsageError, match="exists: choose another --out"):
        pack(cache=cache_folder, backbone=["test_resnet"], out=packed)
    assert packed.read_bytes() == before
    with pytest.raises(UsageError, match="holds features of other, test_resnet: choose with --backbone"):
        pack(cache=two_backbones, out=tmp_path / "x.h5")
    with pytest.raises(StoreError, match="holds no features: run"):
        pack(cache=Cache(tmp_path / "new", create=True).folder, out=tmp_path / "x.h5")
    with pytest.raises(UsageError, match="unknown backbone 'vit'"):
        pack(cache=cache_folder, backbone=["vit"], out=tmp_path / "x.h5")
    with pytest.raises(StoreError, match="no cache at"):
        pack(cache=tmp_path / "none", backbone=["test_resnet"], out=tmp_path / "x.h5")
    with pytest.raises(UsageError, match=r"--out .* cannot be written: there is no folder .*/no/folder. Make it"):
        pack(cache=cache_folder, backbone=["test_resnet"], out=tmp_path / "no" / "folder" / "x.h5")


# --- features made elsewhere ---


def elsewhere(path, **changed):
    """Write a pack as another program may: gzip, float32, strings of variable length, attributes of its own."""
    values = {
        "features": np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3),
        "clip_id": [f"Hop/klip-{'ä' * k}.avi" for k in range(5)],
        "label": ["Hop", "Squat", "Hop", "Squat", "Hop"],
        **changed,
    }
    with h5py.File(path, "w") as file:
        file.attrs["frame_rate"] = 29.97
        file.attrs["authors"] = ["a", "b"]
        file["notes"] = np.zeros(17)
        for name, value in values.items():
            if value is not None:
                packing = {"compression": "gzip"} if name == "features" else {}
                file.create_dataset(name, data=value, **packing)
    return path


def test_an_empty_file_of_a_killed_call_is_replaced(tmp_path, cache_folder):
    out = tmp_path / "p.h5"
    out.touch()  # it was killed as it tried the name
    assert pack(cache=cache_folder, out=out).clips == len(read_pack(out).clip_ids)


def test_features_made_elsewhere_are_read_as_they_are(tmp_path):
    got = read_pack(elsewhere(tmp_path / "theirs.h5"))
    assert got.values.dtype == np.float32
    assert got.values.ravel().tolist() == list(range(30))
    assert got.clip_ids == [f"Hop/klip-{'ä' * k}.avi" for k in range(5)]
    assert got.labels == ["Hop", "Squat", "Hop", "Squat", "Hop"]
    assert got.groups == [None] * 5
    assert got.name == "theirs"
    grouped = read_pack(elsewhere(tmp_path / "grouped.h5", group=["a", "b", "", "b", "c"]))
    assert grouped.groups == ["a", "b", None, "b", "c"]


def test_a_run_on_features_made_elsewhere_cannot_predict_and_says_why(tmp_path):
    train_head(out=tmp_path / "run", features=toy(tmp_path / "toy.h5"), variant="mean", epochs=1)
    with pytest.raises(UsageError, match="features made elsewhere"):
        sources_of(read_run(tmp_path / "run"))


def test_attributes_of_many_texts_are_left_unread(tmp_path):
    """In a file that wants to do harm, thousands of texts are the same one of megabytes."""
    path = elsewhere(tmp_path / "f.h5")
    with h5py.File(path, "a") as file:
        file.attrs["history"] = ["x" * 10**6] * 20
    tracemalloc.start()
    try:
        assert len(read_pack(path).clip_ids) == 5
        assert tracemalloc.get_traced_memory()[1] < 2 * 10**6
    finally:
        tracemalloc.stop()
    with pytest.raises(hdf5.Unreadable, match=r"attribute .* is neither a whole number nor text"):
        hdf5.decode(path, {})


def named(backbone):
    """Sources of a backbone."""
    identity = {"backbone": backbone, "precision": "fp32", "preprocessing": {"preset": "native"}}
    return json.dumps([{"kind": "features", "identity": identity | {"frames": {"samples": 2, "short_side": 64}}}])


@pytest.mark.parametrize("name", ["resnet50: accuracy 99.9%", "resnet50\nnote: no leak found", "\x1b[2J", "", 3])
def test_a_features_file_cannot_put_figures_into_the_name_of_its_backbone(tmp_path, name):
    path = elsewhere(tmp_path / "f.h5")
    with h5py.File(path, "a") as file:
        file.attrs["backbone"] = name
    with pytest.raises(UsageError, match=r"f\.h5: attribute backbone is .*expected a model's name without any of ,;%"):
        read_pack(path)


def test_nor_into_its_own(tmp_path):
    assert read_pack(elsewhere(tmp_path / "a\nb.h5")).name == "a\\x0ab"


@pytest.mark.parametrize(
    ("sources", "reason"),
    [
        ('{"name": "mine"}', "expected a list"),
        ('["mine"]', "no kind"),
        ('[{"name": "mine"}]', "no kind"),
        ('[{"kind": "features", "identity": null}]', "no identity"),
        ('[{"kind": "features", "identity": {}, "origin": []}]', "origin is no object"),
        ('[{"kind": "features", "identity": {}}]', "by which backbone, preset and precision"),
        (named("resnet50\nnote: no leak found"), "by which backbone, preset and precision"),
        ('[{"kind": "pixels", "identity": {"samples": 20}}]', "short_side is None"),
        (json.dumps([{"kind": "pixels", "identity": {"samples": 1, "short_side": 1}}] * 33), "at most 32"),
    ],
)
def test_sources_that_do_not_say_how_features_were_made_are_refused_before_a_training(tmp_path, sources, reason):
    path = elsewhere(tmp_path / "f.h5")
    with h5py.File(path, "a") as file:
        file.attrs["sources"] = sources
    with pytest.raises(UsageError, match=rf"f\.h5: sources: .*{reason}.*Leave them out"):
        train_head(out=tmp_path / "run", features=path, variant="mean", epochs=1)


def test_features_without_columns_are_split_by_none(tmp_path):
    bare = replace(read_pack(toy(tmp_path / "toy.h5")), extra=[])
    with pytest.raises(UsageError, match="reads the manifest's column split, which no clip has: extract"):
        train_head(out=tmp_path / "run", features=bare, variant="mean", epochs=1, split="manifest")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"label": None}, "dataset label is missing"),
        ({"features": None}, "dataset features is missing"),
        ({"features": np.zeros((5, 6), np.float32)}, "features has dtype float32 and 2 axes"),
        ({"features": np.zeros((5, 2, 3), np.int64)}, "features has dtype int64"),
        ({"features": np.zeros((4, 2, 3), np.float32)}, "different numbers of rows"),
        ({"features": np.full((5, 2, 3), np.nan, np.float32)}, "not finite"),
        ({"features": np.full((5, 2, 3), 1e300)}, "not finite"),
        ({"clip_id": ["a", "b", "c", "d", "a"]}, "1 clip ids are repeated"),
        ({"clip_id": ["x" * 5000, "b", "c", "d", "e"]}, "more than 4096 bytes"),
        ({"label": np.arange(5)}, "label has dtype int64"),
        ({"label": np.array([b"\xff"] * 5)}, "can't decode"),
        ({"group": ["a"]}, "different numbers of rows"),
        ({"features": np.zeros((5, 0, 3), np.float32)}, "empty|holds"),
        ({"pts_seconds": np.zeros((5, 9))}, r"pts_seconds of shape \(5, 9\), expected \(N, T\) = \(5, 2\)"),
        ({"pts_seconds": np.zeros((5, 1))}, r"pts_seconds of shape \(5, 1\)"),
    ],
)
def test_bad_files_are_refused_with_the_reason(tmp_path, changed, reason):
    path = tmp_path / "bad.h5"
    if "features" in changed and changed["features"] is not None and not changed["features"].size:
        elsewhere(path, features=None)
        with h5py.File(path, "r+") as file:
            file["features"] = changed["features"]
    else:
        elsewhere(path, **changed)
    with pytest.raises(UsageError, match=reason) as caught:
        read_pack(path)
    assert "bad.h5" in str(caught.value)


def test_files_that_are_not_hdf5_are_refused(tmp_path):
    (tmp_path / "words.h5").write_text("only words")
    np.save(tmp_path / "a.npy", np.zeros((2, 20, 3)))
    with pytest.raises(UsageError, match=r"not readable as HDF5 .*and docs/switching\.md how to give arrays in Python"):
        read_pack(tmp_path / "a.npy")
    for name, reason in (("words.h5", "not readable as HDF5"), ("none.h5", "not found"), (".", "is a folder")):
        with pytest.raises(UsageError, match=reason):
            read_pack(tmp_path / name)


def test_the_only_backbone_need_not_be_named(tmp_path, packed, cache_folder, capsys, monkeypatch):
    monkeypatch.setattr("tqdm.std.time", count(0, 20).__next__)  # it seems to take minutes, or no bar is shown
    pack(cache=cache_folder, out=tmp_path / "again.h5", progress=True)
    assert "load: 100%" in capsys.readouterr().err
    assert (tmp_path / "again.h5").read_bytes() == packed.read_bytes()
    assert load_cached(Cache(cache_folder), []).name == "test_resnet"


@pytest.mark.parametrize("name", ["features", "label", "group", "clip_id", "pts_seconds", "extra"])
def test_a_packed_file_that_changed_on_its_way_is_refused(tmp_path, packed, name):
    """One bit of one value: HDF5 says nothing, and the figures would only be a little off."""
    path = shutil.copy(packed, tmp_path / "damaged.h5")
    with h5py.File(path, "r+") as file:
        values = file[name][()]
        values.view(np.uint8).reshape(-1)[0] ^= 1
        file[name][...] = values
    reason = (
        "docs/format.md says" if name == "extra" else "is damaged: what it holds is not what its attribute sha256 says"
    )
    with pytest.raises(UsageError, match=reason):
        read_pack(path)
    if name == "extra":  # no JSON any more, which is refused by itself
        return
    with h5py.File(path, "r+") as file:
        del file.attrs["sha256"]  # as of files made elsewhere, or changed on purpose
    assert len(read_pack(path).clip_ids) == 12


def test_rows_in_another_order_are_the_same_data(tmp_path, packed):
    path = shutil.copy(packed, tmp_path / "turned.h5")
    with h5py.File(path, "r+") as file:
        for name in ("features", "clip_id", "label", "group", "pts_seconds", "extra"):
            file[name][...] = file[name][()][::-1]
    assert read_pack(path).digest() == read_pack(packed).digest()


def test_further_columns_are_in_the_sum(tmp_path, packed):
    """They say the sides of a split and the rooms that are left out."""
    path = shutil.copy(packed, tmp_path / "other.h5")
    with h5py.File(path, "r+") as file:
        extra = file["extra"][()]
        del file["extra"]
        file["extra"] = [b'{"room":"attic"}', *extra[1:]]
    with pytest.raises(UsageError, match="is damaged: what it holds is not"):
        read_pack(path)


def test_rows_of_which_only_some_are_in_order_are_sorted_with_all_they_hold(tmp_path):
    names = ["a", "d", "b", "c", "e"]
    times = np.array([[k, k + 1] for k in range(5)], dtype=np.float64)
    got = read_pack(elsewhere(tmp_path / "theirs.h5", clip_id=names, group=names, pts_seconds=times))
    assert got.clip_ids == got.groups == ["a", "b", "c", "d", "e"]
    assert got.values[:, 0, 0].tolist() == [0, 12, 18, 6, 24]  # 6 values a clip, counted on
    assert got.pts_seconds[:, 0].tolist() == [0, 2, 3, 1, 4]
    assert got.labels == ["Hop", "Hop", "Squat", "Squat", "Hop"]


def test_times_that_a_file_does_not_have_are_unknown_and_not_zero(tmp_path):
    got = read_pack(elsewhere(tmp_path / "theirs.h5"))
    assert got.pts_seconds.shape == (5, 2)
    assert np.isnan(got.pts_seconds).all()


@pytest.mark.parametrize("renamed", [False, True])
def test_a_file_packed_in_another_format_version_is_refused(tmp_path, packed, renamed):
    with h5py.File(packed, "r+") as file:
        file.attrs["format_version"] = 2
        if renamed:  # a new version mostly has other datasets: that is not damage
            file.move("clip_id", "clip")
    with pytest.raises(UsageError, match="has format version 2, this program reads version 1"):
        read_pack(packed)


def test_a_version_that_someone_elses_file_has_is_its_own_affair(tmp_path):
    elsewhere(tmp_path / "theirs.h5")
    with h5py.File(tmp_path / "theirs.h5", "r+") as file:
        file.attrs["format_version"] = 2
    assert len(read_pack(tmp_path / "theirs.h5").clip_ids) == 5
