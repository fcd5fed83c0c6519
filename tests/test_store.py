from __future__ import annotations

import errno
import hashlib
import json
import os
import pathlib
import pickle
import subprocess
import sys
import time
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from conftest import more_memory_at_most
from hostile import HOSTILE, with_circular_heap

from fitrec_cache.cache import Cache
from fitrec_cache.common import files
from fitrec_cache.common.files import digest, holds_nothing, is_sealed, sealed_name
from fitrec_cache.errors import StoreCorrupt, StoreError, UsageError
from fitrec_cache.storage import hdf5
from fitrec_cache.storage.parts import SCHEMAS, read_part, text_column, text_values
from fitrec_cache.storage.root import open_root
from fitrec_cache.storage.store import Store

IDENTITY = {"what": "a test", "backbone": "none"}


def features(*keys, value=0.0, t=2, d=3):
    rows = np.arange(len(keys) * t * d, dtype=np.float16).reshape(len(keys), t, d) + np.float16(value)
    return {"key": text_column(keys), "features": rows, "pts_seconds": np.zeros((len(keys), t))}


def clips(*keys, label="Squat"):
    columns = ("video_sha256", "label", "group", "problem")
    rows = {"key": text_column(keys), **{c: text_column([label] * len(keys)) for c in columns}}
    return rows | {"extra": text_column(["{}"] * len(keys))}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", "features", IDENTITY)


def plant(store, data):
    """Put bytes into a store as a committed part whose checksum is right."""
    store.folder.mkdir(parents=True, exist_ok=True)
    path = store.folder / f"part-{time.time_ns():020d}-{hashlib.sha256(data).hexdigest()[:32]}.h5"
    path.write_bytes(data)
    return path


def plant_hdf5(store, tmp_path, build):
    """Plant what ``build(file)`` writes, with a sound head and keys."""
    path = tmp_path / "hostile.h5"
    with h5py.File(path, "w") as file:
        file.attrs["format_version"] = 1
        file.attrs["kind"] = np.void(b"features")
        file.attrs["identity_sha256"] = np.void(digest(IDENTITY).encode())
        file.attrs["identity"] = np.void(json.dumps(IDENTITY).encode())
        file["key"] = np.array([b"x"], dtype="S1")
        build(file)
    return plant(store, path.read_bytes())


# --- what is written ---


def test_of_a_key_that_a_part_has_twice_the_later_row_holds(store):
    arrays = features("a", "b", "a")
    store.write_part(arrays)
    reopened = Store(store.folder, "features", IDENTITY)
    assert len(reopened) == 2
    for opened in (store, reopened):
        assert np.array_equal(opened.row("a")["features"], arrays["features"][2])
        assert np.array_equal(opened.rows(["b", "a"], ["features"])["features"], arrays["features"][[1, 2]])


def test_a_part_is_plain_hdf5_named_by_its_sha256(store):
    arrays = features("a", "b")
    path = store.write_part(arrays)
    assert path.name.split("-")[2] == hashlib.sha256(path.read_bytes()).hexdigest()[:32] + ".h5"
    with h5py.File(path) as file:
        assert set(file) == {"key", "features", "pts_seconds"}
        assert file["key"][()].tolist() == [b"a", b"b"]
        assert np.array_equal(file["features"][()], arrays["features"])
        assert file["features"].dtype == np.float16
        assert file["features"].chunks is None
        assert file.attrs["format_version"] == 1
        assert file.attrs["kind"].tobytes() == b"features"
        assert json.loads(file.attrs["identity"].tobytes()) == IDENTITY
        assert file.attrs["identity_sha256"].tobytes() == digest(IDENTITY).encode()
    assert json.loads((store.folder / "identity.json").read_text()) == IDENTITY


def test_texts_are_declared_as_utf8_and_read_by_other_programs(store):
    keys = np.array(["é".encode(), b"a"])
    with h5py.File(store.write_part(features("a", "b") | {"key": keys})) as file:
        assert file["key"].id.get_type().get_cset() == h5py.h5t.CSET_UTF8
        assert file["key"].asstr()[()].tolist() == ["é", "a"]  # decodes as the file declares
        assert file["features"].dtype == np.float16
    assert list(Store(store.folder, "features", IDENTITY)) == ["é", "a"]


def test_digest_is_the_sha256_of_sorted_compact_json():
    assert digest({"b": 1, "a": [True, "x"]}) == hashlib.sha256(b'{"a":[true,"x"],"b":1}').hexdigest()


def test_rows_come_in_the_asked_order_from_all_parts(store):
    store.write_part(features("a", "b", "c"))
    store.write_part(features("d", "e", value=100))
    again = Store(store.folder, "features", IDENTITY)
    assert list(again) == ["a", "b", "c", "d", "e"]
    got = again.rows(["e", "a", "d", "c", "a"], ("features",))["features"]
    assert got[:, 0, 0].tolist() == [106, 0, 100, 12, 0]
    assert again.row("b")["features"].tolist() == [[6, 7, 8], [9, 10, 11]]


def test_a_key_written_again_gives_its_latest_row(store):
    store.write_part(features("a", "b"))
    store.write_part(features("b", value=50))
    for s in (store, Store(store.folder, "features", IDENTITY)):
        assert s.rows(["a", "b"], ("features",))["features"][:, 0, 0].tolist() == [0, 50]


def test_texts_of_different_length_in_different_parts_come_back_whole(tmp_path):
    store = Store(tmp_path / "clips", "clips", IDENTITY)
    store.write_part(clips("a", label="Run"))
    store.write_part(clips("b", label="BodyWeightSquats and möre"))
    store.write_part(clips("c", label="Hop"))
    for order in (["a", "b", "c"], ["b", "c", "a"]):
        labels = dict(zip(order, text_values(store.rows(order, ("label",))["label"]), strict=True))
        assert labels == {"a": "Run", "b": "BodyWeightSquats and möre", "c": "Hop"}


def test_refresh_takes_in_what_another_writer_committed(store):
    other = Store(store.folder, "features", IDENTITY)
    other.write_part(features("a"))
    assert "a" not in store
    store.refresh()
    assert list(store) == ["a"]


def test_what_was_removed_by_another_process_is_gone_after_refresh(store):
    store.write_part(features("a"))
    store.write_part(features("b")).unlink()
    assert "b" in store
    store.refresh()
    assert list(store) == ["a"]
    assert store.row("a")["features"].shape == features("a")["features"][0].shape


def test_a_store_sent_to_another_process_is_opened_there(store):
    store.write_part(features("a"))
    sent = pickle.loads(pickle.dumps(store))
    assert (list(sent), sent.kind, sent.identity) == (["a"], store.kind, store.identity)


def test_unfinished_files_are_never_looked_at(store):
    store.write_part(features("a"))
    (store.folder / ".tmp-1-abc").write_bytes(b"half")
    (store.folder / "part-oops.h5.partial").write_bytes(b"half")
    assert list(Store(store.folder, "features", IDENTITY)) == ["a"]


def test_unknown_key_is_an_error(store):
    with pytest.raises(StoreError, match="z is not in"):
        store.row("z")
    with pytest.raises(StoreError, match="z is not in"):
        store.rows(["z"], ("features",))


def test_bytes_are_synced_before_the_name_and_the_name_before_done(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, type(tmp_path).replace

    def logged_fsync(descriptor):
        events.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")  # noqa: PTH112
        fsync(descriptor)

    def logged_replace(self, target):
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(type(tmp_path), "replace", logged_replace)
    files.write_atomic(tmp_path / "x", b"data")
    assert events == ["file", "rename", "folder"]


@pytest.mark.parametrize("knows_it", [True, False])
def test_on_a_mac_the_drive_is_told_to_write_too(tmp_path, monkeypatch, knows_it):
    events = []

    def fcntl(_, command):
        events.append(command)
        if not knows_it:
            raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(files.sys, "platform", "darwin")
    monkeypatch.setitem(sys.modules, "fcntl", SimpleNamespace(fcntl=fcntl, F_FULLFSYNC=51))
    monkeypatch.setattr(files, "sync_folder", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: events.append("fsync"))
    files.write_atomic(tmp_path / "x", b"data")
    assert events == ([51] if knows_it else [51, "fsync"])


def test_a_new_folder_and_its_parents_are_on_disk_before_it_is_used(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    files.make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]
    files.make_folder(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_a_file_system_that_cannot_flush_folders_is_no_error(tmp_path, monkeypatch):
    fsync = os.fsync

    def only_files(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    files.write_atomic(tmp_path / "x", b"data")
    assert (tmp_path / "x").read_bytes() == b"data"


@pytest.mark.parametrize(
    ("umask", "before", "after"), [(0o022, 0o600, 0o600), (0o022, 0o664, 0o664), (0o077, 0o644, 0o644)]
)
def test_a_file_that_is_written_anew_keeps_its_permissions(tmp_path, monkeypatch, umask, before, after):
    (tmp_path / "x").write_bytes(b"before")
    (tmp_path / "x").chmod(before)
    seen, flush = [], files._flush_to_disk
    monkeypatch.setattr(files, "_flush_to_disk", lambda file: (seen.append(os.fstat(file).st_mode), flush(file)))
    usual = os.umask(umask)
    try:
        files.write_atomic(tmp_path / "x", b"after")
    finally:
        os.umask(usual)
    assert [mode & 0o777 for mode in (seen[0], (tmp_path / "x").stat().st_mode)] == [after, after]  # while written, too
    assert (tmp_path / "x").read_bytes() == b"after"


@pytest.mark.parametrize("before", [b"before", None])
def test_what_a_link_leads_to_is_written_and_the_link_stays(tmp_path, before):
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "link", tmp_path / "elsewhere" / "x"
    link.symlink_to(target)
    if before is not None:
        target.write_bytes(before)
    files.write_atomic(link, b"after")
    assert link.is_symlink()
    assert target.read_bytes() == b"after"
    assert [p.name for p in target.parent.iterdir()] == ["x"]


def test_what_killed_writers_left_beside_a_file_goes_but_nothing_of_others(tmp_path):
    mine = files.unfinished(tmp_path / "x")
    dead = [tmp_path / ".tmp-00000000-1-0000aaaa", tmp_path / ".tmp-00000000-1-0000bbbb"]
    others = [tmp_path / ".tmp-of-another-program", tmp_path / ".tmp-folder"]
    for path in (mine, dead[0], others[0]):
        path.touch()
    for folder in (dead[1], others[1]):
        folder.mkdir()
    for path in (*dead, *others):
        os.utime(path, (0, 0))
    files.check_writable(tmp_path / "report.html", "--out")
    assert sorted(tmp_path.iterdir()) == sorted([mine, *others])


def test_what_cannot_be_removed_keeps_nothing_else(tmp_path, monkeypatch):
    dead = [tmp_path / f".tmp-00000000-1-0000000{i}" for i in range(4)]
    for path in dead:
        path.touch()
        os.utime(path, (0, 0))
    stays, unlink = next(tmp_path.iterdir()), pathlib.Path.unlink

    def refused(path, **how):
        if path == stays:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path, **how)

    monkeypatch.setattr(pathlib.Path, "unlink", refused)  # of others, in a folder as /tmp
    files.remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [stays]


def test_temporary_names_say_which_machine_and_process_writes(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(files, "sync_folder", lambda folder: None)
    monkeypatch.setattr(type(tmp_path), "replace", lambda self, target: seen.append(self.name))
    files.write_atomic(tmp_path / "x", b"data")
    assert seen[0].startswith(f".tmp-{files.host_id()}-{os.getpid()}-")
    assert len(files.host_id()) == 8
    command = [sys.executable, "-c", "from fitrec_cache.common.files import host_id; print(host_id())"]
    other = subprocess.run(command, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == files.host_id()


# --- damage ---


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_flipped_bit_anywhere_is_found_before_use(store, share):
    path = store.write_part(features("a", "b", t=20, d=50))
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 4
    path.write_bytes(bytes(data))
    with pytest.raises(StoreCorrupt, match=r"is damaged.*check --cache DIR --repair"):
        Store(store.folder, "features", IDENTITY).row("a")


@pytest.mark.parametrize("keep", [0, 1, 100, 1500, -1])
def test_a_truncated_part_is_found(store, keep):
    path = store.write_part(features("a", t=20, d=50))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreCorrupt, match="is damaged"):
        Store(store.folder, "features", IDENTITY).row("a")


def test_a_missing_part_is_found(store):
    store.write_part(features("a")).unlink()
    with pytest.raises(StoreCorrupt, match=r"is not there any more.*Run the same command again"):
        store.row("a")


def test_a_part_of_other_settings_or_kind_is_refused(store, tmp_path):
    foreign = Store(tmp_path / "other", "features", {"what": "other"}).write_part(features("a"))
    plant(store, foreign.read_bytes())
    with pytest.raises(StoreCorrupt, match="made with other settings"):
        Store(store.folder, "features", IDENTITY)
    with pytest.raises(StoreCorrupt, match="a part of kind 'features' among clips"):
        Store(store.folder, "clips", IDENTITY)


def test_another_format_version_is_refused_with_the_remedy(tmp_path, store):
    head = {"format_version": 2, "kind": "features", "identity_sha256": digest(IDENTITY), "identity": "{}"}
    plant(store, hdf5.encode(features("a"), head))
    with pytest.raises(StoreError, match=r"version 2, this program reads version 1\. Use .* another --cache folder"):
        Store(store.folder, "features", IDENTITY)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache.json").write_text('{"format_version": 99}')
    with pytest.raises(StoreError, match="version 99, this program reads version 1"):
        open_root(tmp_path / "cache", create=True)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", "{", "\x00"])
def test_a_damaged_marker_is_an_error(tmp_path, text):
    (tmp_path / "cache.json").write_text(text)
    with pytest.raises(StoreError, match=r"cache\.json is damaged"):
        open_root(tmp_path, create=True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"what": "other"}', "7"])
def test_a_damaged_identity_is_an_error(tmp_path, text):
    frames = {"samples": 2, "short_side": 64}
    made_by = {"backbone": "none", "precision": "fp32", "preprocessing": {"preset": "native"}, "frames": frames}
    store = Cache(tmp_path / "cache", create=True).feature_store(made_by)
    store.write_part(features("a"))
    assert [list(s) for s in Cache(tmp_path / "cache").feature_stores()] == [["a"]]
    (store.folder / "identity.json").write_text(text)
    with pytest.raises(StoreCorrupt, match=r"identity\.json is damaged"):
        Cache(tmp_path / "cache").feature_stores()


def test_a_name_tells_whether_its_file_is_whole():
    name = sealed_name("part", 7, b"data")
    assert name == f"part-00000000000000000007-{hashlib.sha256(b'data').hexdigest()[:32]}.h5"
    assert is_sealed(name, b"data")
    assert not is_sealed(name, b"date")


@pytest.mark.parametrize("name", [".DS_Store", "._videos", "desktop.ini", "Thumbs.db", ".directory"])
def test_a_folder_that_was_only_looked_at_in_a_file_manager_is_an_empty_one(tmp_path, name):
    (tmp_path / name).write_text("icons")
    assert holds_nothing(tmp_path)
    open_root(tmp_path, create=True)
    open_root(tmp_path, create=False)


def test_a_folder_that_is_no_cache_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="exists and is not a cache"):
        open_root(tmp_path, create=True)
    with pytest.raises(StoreError, match="no cache at"):
        open_root(tmp_path / "none", create=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]


def test_a_first_run_that_was_killed_before_its_marker_does_not_block_the_next(tmp_path):
    (tmp_path / ".tmp-123-00ff").write_bytes(b"{")
    open_root(tmp_path, create=True)
    open_root(tmp_path, create=False)
    assert (tmp_path / "cache.json").is_file()


@pytest.mark.parametrize("again", [True, False])
def test_what_is_written_last_counts_also_after_the_clock_was_set_back(tmp_path, monkeypatch, again):
    store, now = Store(tmp_path / "store", "clips", IDENTITY), time.time_ns()
    store.write_part(clips("a", label="Squat"))
    monkeypatch.setattr("fitrec_cache.storage.store.time.time_ns", lambda: now - 5 * 10**9)
    store = Store(store.folder, "clips", IDENTITY) if again else store
    store.write_part(clips("a", label="Lunge"))
    assert text_values(Store(store.folder, "clips", IDENTITY).rows(["a"], ("label",))["label"]) == ["Lunge"]


# --- hostile parts ---


@pytest.mark.parametrize("build", HOSTILE)
def test_a_hostile_part_is_refused_quickly(store, tmp_path, build):
    path = plant_hdf5(store, tmp_path, build)
    started = time.monotonic()
    with more_memory_at_most(100_000):
        with pytest.raises(StoreCorrupt, match="is damaged"):
            read_part(path, "features", digest(IDENTITY))
        with pytest.raises(StoreCorrupt, match="is damaged"):
            Store(store.folder, "features", IDENTITY).row("x")
    assert time.monotonic() - started < 10


def decode_apart(path, schema, source="p"):
    """Decode a file in a process of its own, which prints why it is refused: the library might never end."""
    script = (
        f"from pathlib import Path; from fitrec_cache.storage import hdf5; p = Path({str(path)!r})\n"
        f"try: hdf5.decode({source}, {schema!r})\nexcept hdf5.Unreadable as error: print(error)"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("libver", [None, "latest"])
@pytest.mark.parametrize("userblock", [0, 512])
def test_a_circular_heap_is_refused_before_the_library_loops(tmp_path, libver, userblock):
    """In a process of its own: the library would not end, nor heed an interruption."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", userblock_size=userblock, libver=libver) as file:
        file["key"] = np.array([b"x"])
        file.create_group("old")
    data = path.read_bytes()
    schema = {"key": ("S", 1)}
    assert hdf5.decode(data, schema)[1]["key"].tolist() == [b"x"]
    assert hdf5.decode(path, schema)[1]["key"].tolist() == [b"x"]
    if b"HEAP" not in data:
        return  # this layout has none
    broken = data[:userblock] + with_circular_heap(data[userblock:])  # places count from the end of the user block
    path.write_bytes(broken)
    for source in ("p", "p.read_bytes()"):
        done = decode_apart(path, schema, source)
        assert "its list of free space is circular" in done.stdout, done.stderr


def test_a_signature_where_no_file_begins_hides_no_circle(tmp_path):
    """The library looks at 0, 512, 1024, ...: a block of the user's in front may hold anything."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", userblock_size=8192) as file:
        file["key"] = np.array([b"x"])
        file.create_group("old")
    decoy = bytearray(b"\1\0\0\0\0\0\0\0" * 1024)  # as the end of a list, wherever one is read from here
    decoy[8:16] = b"\x89HDF\r\n\x1a\n"
    path.write_bytes(bytes(decoy) + with_circular_heap(path.read_bytes()[8192:]))
    done = decode_apart(path, {"key": ("S", 1)})
    assert "its list of free space is circular" in done.stdout, done.stderr


def test_a_virtual_dataset_is_refused_before_its_shape_is_asked_for(tmp_path):
    """Of one without an end the library opens the other file for that: here a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "pipe")
    layout = h5py.VirtualLayout((1, 2, 1), "f2", maxshape=(None, 2, 1))
    source = h5py.VirtualSource(str(tmp_path / "pipe"), "features", (1, 2, 1), maxshape=(None, 2, 1))
    layout[: h5py.h5s.UNLIMITED, :, :] = source[: h5py.h5s.UNLIMITED, :, :]
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("features", layout)
    done = decode_apart(tmp_path / "x.h5", {"features": ("f", 3)})
    assert "features is stored in other files" in done.stdout, done.stderr


def test_bits_flipped_in_the_structure_end_as_read_or_unreadable(store):
    """With checksums that fit, as a forger can make them; found: an OverflowError of h5py."""
    good = store.write_part(features("a", "b")).read_bytes()
    rng, outcomes = np.random.default_rng(0), {True: 0, False: 0}
    for _ in range(1500):
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 8))):
            data[int(rng.integers(min(len(data), 4096)))] ^= 1 << int(rng.integers(8))
        try:
            hdf5.decode(bytes(data), SCHEMAS["features"])
            outcomes[True] += 1
        except hdf5.Unreadable:
            outcomes[False] += 1
    assert min(outcomes.values()) > 50


def test_the_hostile_parts_are_refused_for_what_is_hostile(store, tmp_path):
    def harmless(file):
        file["features"] = np.ones((1, 2, 3), dtype=np.float16)
        file["pts_seconds"] = np.zeros((1, 2))

    plant_hdf5(store, tmp_path, harmless)
    assert Store(store.folder, "features", IDENTITY).row("x")["features"].sum() == 6


@pytest.mark.parametrize("ends", [[[8, 4]], [[4, 99]], [[-4, 8]], [[]], [[2, 4], [3, 6]], [[2, 4], [6, 9]]])
def test_impossible_offsets_of_frames_are_refused(tmp_path, ends):
    store = Store(tmp_path / "frames", "frames", IDENTITY)
    store.write_part(
        {
            "key": text_column(["x", "y"][: len(ends)]),
            "jpeg_bytes": np.zeros(8, dtype=np.uint8),
            "jpeg_end": np.array(ends, dtype=np.int64),
            "frame_index": np.zeros((len(ends), 2), dtype=np.int64),
            "pts_seconds": np.zeros((len(ends), 2)),
            "ledger": text_column(["{}"] * len(ends)),
        }
    )
    with pytest.raises(StoreCorrupt, match="impossible offsets"):
        store.jpegs("x")


@pytest.mark.parametrize("extra", ["", "{", "[]", '{"a": 1}', '{"a": ' * 2000, '{"a": NaN}', "7" * 5000])
def test_columns_that_should_be_json_and_are_not_are_damage(tmp_path, extra):
    store = Store(tmp_path / "clips", "clips", IDENTITY)
    store.write_part(clips("a") | {"extra": text_column([extra])})
    with pytest.raises(StoreCorrupt, match=r"is damaged.*check --cache DIR --repair"):
        Store(store.folder, "clips", IDENTITY).rows(["a"], ("label",))


def test_frames_of_another_number_than_their_settings_say_are_refused(tmp_path):
    store = Store(tmp_path / "frames", "frames", {"samples": 3})
    arrays = {"jpeg_end": np.array([[1, 2]]), "frame_index": np.zeros((1, 2), int), "pts_seconds": np.zeros((1, 2))}
    texts = {"key": text_column(["x"]), "ledger": text_column(["{}"])}
    store.write_part({**arrays, **texts, "jpeg_bytes": np.zeros(2, np.uint8)})
    with pytest.raises(StoreCorrupt, match="x has 2 frames, expected 3"):
        store.jpegs("x")


@pytest.mark.parametrize("text", ['{"a": 1e999}', '{"a": Infinity}', "[" * 100_000, "9" * 5000, "\ud800"])
def test_json_of_others_is_read_or_refused_with_a_value_error(text):
    with pytest.raises(ValueError):
        files.parse_json(text)


def test_a_part_that_may_not_be_read_is_not_called_damaged(store, monkeypatch):
    store.write_part(features("a"))
    real = os.open

    def refuse(path, *given, **more):
        if pathlib.Path(path).name.startswith("part-"):
            raise PermissionError(13, "Permission denied")
        return real(path, *given, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match=r"Permission denied\. Nothing says that it is damaged") as raised:
        Store(store.folder, "features", IDENTITY)
    assert not isinstance(raised.value, StoreCorrupt)


# --- a disk that is full or read-only ---


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failing_disk_loses_nothing_that_was_stored(store, monkeypatch, code):
    store.write_part(features("a"))
    before = sorted(p.name for p in store.folder.iterdir())

    def fail(_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreError, match=f"{os.strerror(code)}. What was stored before is intact"):
            store.write_part(features("b"))
    assert "b" not in store
    assert sorted(p.name for p in store.folder.iterdir()) == before
    store.write_part(features("b"))
    assert list(Store(store.folder, "features", IDENTITY)) == ["a", "b"]


def test_a_real_file_size_limit_gives_a_store_error(store):
    store.write_part(features("a"))
    program = f"""
import numpy as np, resource, signal
from pathlib import Path
from fitrec_cache.errors import StoreError
from fitrec_cache.storage.parts import text_column
from fitrec_cache.storage.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
store = Store(Path({str(store.folder)!r}), "features", {IDENTITY!r})
try:
    store.write_part({{"key": text_column(["b"]), "features": np.zeros((1, 20, 9999), np.float16),
                      "pts_seconds": np.zeros((1, 20))}})
except StoreError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "File too large. What was stored before is intact" in done.stdout
    assert list(Store(store.folder, "features", IDENTITY)) == ["a"]
    assert [p.name for p in store.folder.iterdir() if p.name.startswith(".tmp-")] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_gives_a_store_error(store):
    store.write_part(features("a"))
    store.folder.chmod(0o500)
    with pytest.raises(StoreError, match="Permission denied"):
        store.write_part(features("b"))
    store.folder.chmod(0o700)
    assert list(Store(store.folder, "features", IDENTITY)) == ["a"]


@pytest.fixture
def listed(monkeypatch):
    """Folders that were listed."""
    found, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: found.append(folder) or listdir(folder))
    return found


def set_back(folder):
    os.utime(folder, ns=(0, 10**18))


def test_a_folder_that_nobody_else_changed_is_not_listed_again(store, listed):
    store.write_part(features("a"))
    set_back(store.folder)
    store.refresh()
    listed.clear()
    store.refresh()
    store.write_part(features("b"))
    store.refresh()
    assert listed == []
    set_back(store.folder)
    store.refresh()
    listed.clear()
    Store(store.folder, "features", IDENTITY).write_part(features("c"))
    listed.clear()
    store.refresh()
    assert "c" in store
    assert len(listed) == 1


def test_what_others_wrote_before_our_own_part_is_seen(store):
    store.write_part(features("a"))
    set_back(store.folder)
    store.refresh()
    Store(store.folder, "features", IDENTITY).write_part(features("b"))
    store.write_part(features("c"))
    store.refresh()
    assert "b" in store


def test_what_others_write_while_a_folder_is_listed_is_seen_the_next_time(store, monkeypatch):
    store.write_part(features("a"))
    again, listdir = Store(store.folder, "features", IDENTITY), os.listdir

    def then_another(folder):
        names = listdir(folder)
        monkeypatch.undo()
        time.sleep(0.02)  # clocks of file systems are coarse
        store.write_part(features("c"))
        return names

    store.write_part(features("b"))
    monkeypatch.setattr(os, "listdir", then_another)
    again.refresh()
    again.refresh()
    assert list(again) == ["a", "b", "c"]


def test_a_folder_whose_time_never_changes_is_listed_now_and_then(store, monkeypatch):
    store.write_part(features("a"))
    set_back(store.folder)
    store.refresh()
    Store(store.folder, "features", IDENTITY).write_part(features("b"))
    set_back(store.folder)
    monkeypatch.setattr("fitrec_cache.storage.store._LONGEST_TRUST", 0.0)
    store.refresh()
    assert "b" in store


def test_processes_of_two_macs_of_one_name_are_told_apart(monkeypatch):
    """There /proc does not tell which machine this is."""
    monkeypatch.setattr(pathlib.Path, "read_text", lambda self: (_ for _ in ()).throw(FileNotFoundError()))
    found = []
    for node in (1, 2, 1):
        monkeypatch.setattr(files.uuid, "getnode", lambda node=node: node)
        found.append(files.host_id.__wrapped__())
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("reason", [errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF])
def test_a_drive_that_cannot_flush_a_folder_is_used_all_the_same(monkeypatch, tmp_path, reason):
    def refuse(descriptor):
        raise OSError(reason, "no")

    monkeypatch.setattr(files, "_flush_to_disk", refuse)
    files.sync_folder(tmp_path)
    monkeypatch.setattr(files, "_NO_FOLDER_SYNC", ())
    with pytest.raises(OSError, match="no"):
        files.sync_folder(tmp_path)


@pytest.mark.parametrize("check", [files.check_writable, lambda *given: files.refuse_others(*given, "mark", "a table")])
def test_a_pipe_in_the_place_of_a_file_to_write_is_refused_at_once(tmp_path, check):
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(UsageError, match=r"--table .*t\.csv exists and is not a file"):
        check(tmp_path / "t.csv", "--table")
