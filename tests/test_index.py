"""An index changes how much is read, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import SMALL

from fitrec_cache.cache import Cache, HeldClip
from fitrec_cache.check import check
from fitrec_cache.errors import StoreCorrupt, StoreError
from fitrec_cache.extract import extract
from fitrec_cache.storage import index, store
from fitrec_cache.storage.parts import text_column
from fitrec_cache.storage.store import Store

IDENTITY = {"what": "a test"}


def test_an_index_that_a_writer_replaced_meanwhile_is_no_damage(tmp_path):
    assert index.index_problem(tmp_path / f"index-{0:020d}-{0:032x}.h5") == ""


def test_an_index_that_is_gone_says_nothing(tmp_path):
    assert index.parts_in(tmp_path / f"index-{0:020d}-{0:032x}.h5", {}, ("key",)) == {}


def test_an_index_that_cannot_be_read_is_told(tmp_path):
    path = tmp_path / f"index-{0:020d}-{0:032x}.h5"
    path.mkdir()
    assert index.index_problem(path).startswith("cannot be read (")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(store, "FEWEST_PARTS", 4)


@pytest.fixture
def reads(monkeypatch):
    """Names of the parts that were opened."""
    seen = []

    def spy(function):
        def call(path, *rest):
            seen.append(path.name)
            return function(path, *rest)

        return call

    for name in ("read_keys", "read_part"):
        monkeypatch.setattr(store, name, spy(getattr(store, name)))
    return seen


def part(*keys):
    return {
        "key": text_column(keys),
        "features": np.array([[[float(k)]] for k in keys], dtype=np.float16),
        "pts_seconds": np.zeros((len(keys), 1)),
    }


def fill(folder, numbers):
    made = Store(folder, "features", IDENTITY)
    for n in numbers:
        made.write_part(part(str(2 * n), str(2 * n + 1)))
    return made


def opened(folder):
    return Store(folder, "features", IDENTITY)


def indexes(folder):
    return sorted(p for p in folder.iterdir() if index.INDEX.fullmatch(p.name))


def test_an_index_saves_reading_the_parts_it_lists(tmp_path, reads):
    made = fill(tmp_path, range(5))
    made.write_index()
    fill(tmp_path, [5])
    reads.clear()
    found = opened(tmp_path)
    assert len(reads) == 1  # the part that came later
    assert list(found) == [str(n) for n in range(12)]
    assert [float(found.row(str(n))["features"][0, 0]) for n in range(12)] == list(range(12))
    assert len(indexes(tmp_path)) == 1


def test_one_is_written_of_the_parts_that_are_in_none_when_they_are_many(tmp_path, reads):
    made = fill(tmp_path, range(3))
    made.write_index()
    assert indexes(tmp_path) == []
    made = fill(tmp_path, range(3, 40))
    made.write_index()
    (first,) = indexes(tmp_path)
    made = fill(tmp_path, range(40, 43))
    made.write_index()
    assert indexes(tmp_path) == [first]
    made = fill(tmp_path, [43])
    made.write_index()
    _, second = indexes(tmp_path)
    listed = index.parts_in(second, {"columns": "key"}, ("key",))
    assert [columns["key"].tolist() for columns in listed.values()] == [
        [b"%d" % (2 * n), b"%d" % (2 * n + 1)] for n in range(40, 44)
    ]
    reads.clear()
    assert list(opened(tmp_path)) == [str(n) for n in range(88)]
    assert reads == []


def test_what_another_process_indexed_is_not_indexed_again(tmp_path):
    ours = fill(tmp_path, range(4))
    theirs = opened(tmp_path)
    theirs.write_index()
    ours.write_index()
    assert len(indexes(tmp_path)) == 1


def test_no_part_is_listed_twice_by_one_writer(tmp_path):
    made = Store(tmp_path, "features", IDENTITY)
    for n in range(12):
        made.write_part(part(str(n)))
        made.write_index()
    listed = [name for path in indexes(tmp_path) for name in index.parts_in(path, {"columns": "key"}, ("key",))]
    assert listed == [path.name for path in made.part_paths()]


def test_an_index_whose_keys_are_no_text_is_not_believed(tmp_path):
    made = fill(tmp_path, range(4))
    names = [path.name for path in made.part_paths()]
    index.write_index(tmp_path, {name: {"key": np.array([b"\xff", b"\xfe"])} for name in names}, made._index_head())
    assert list(opened(tmp_path)) == [str(n) for n in range(8)]


def test_an_index_that_lists_less_of_a_part_than_another_ends_no_reading(tmp_path):
    made = fill(tmp_path, range(4))
    made.write_index()
    found = opened(tmp_path)
    less = index.write_index(tmp_path, {made.part_paths()[-1].name: {"key": text_column(["6"])}}, made._index_head())
    (tmp_path / less).rename(tmp_path / f"index-{0:020d}-{less[27:]}")
    found.refresh()
    assert list(found) == [str(n) for n in range(8)]


def test_at_the_end_of_a_run_fewer_parts_are_indexed(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(store, "FEWEST_PARTS", 64)
    made = Store(tmp_path / "s", "features", IDENTITY)
    for n in range(7):
        made.write_part(part(str(n)))
    made.write_index(at_end=True)
    assert not list((tmp_path / "s").glob("index-*"))
    made.write_part(part("7"))
    made.write_index()
    assert not list((tmp_path / "s").glob("index-*"))
    made.write_index(at_end=True)
    reads.clear()
    found = Store(tmp_path / "s", "features", IDENTITY)
    assert (list(found), reads) == ([str(n) for n in range(8)], [])


def test_an_extraction_leaves_its_stores_indexed(tmp_path, inline, video_folder, weights, monkeypatch):
    monkeypatch.setattr(store, "FEWEST_PARTS", 64)
    monkeypatch.setattr(store, "FEWEST_AT_END", 2)
    monkeypatch.setattr("fitrec_cache.extraction.extractor.COMMIT_CLIPS", 2)
    extract(video_folder, cache=tmp_path / "c", backbone=[weights("test_resnet")], **SMALL)
    for folder in ("clips", "frames/*", "features/*"):
        assert len(list(tmp_path.glob(f"c/{folder}/part-*"))) > 2
        assert len(list(tmp_path.glob(f"c/{folder}/index-*"))) >= 1
    monkeypatch.setattr(store, "write_index", refuse)  # as of a cache that can only be read
    (tmp_path / "c" / "clips" / next(p.name for p in (tmp_path / "c" / "clips").glob("index-*"))).unlink()
    assert extract(video_folder, cache=tmp_path / "c", backbone=[weights("test_resnet")], **SMALL).reused == 12


def refuse(*_):
    raise StoreError("read-only")


def test_an_entry_is_held_if_it_is_the_latest_of_its_clip(tmp_path):
    def entry(label, extra=None, problem=""):
        return HeldClip(clip_id="a/é", video_sha256="0", label=label, group=None, extra=extra or {}, problem=problem)

    made = Cache(tmp_path / "c", create=True)
    assert not made.holds(entry("x"))
    assert made.clip("a/é") is None
    for written in (entry("x"), entry("y"), entry("x"), *[entry("x", {"n": str(n)}) for n in range(4)]):
        made.write_clips([written])
        made.clip_store.write_index()
        for cache in (made, Cache(tmp_path / "c")):
            assert cache.holds(written)
            assert cache.clip("a/é") == written
            others = [entry("x"), entry("y"), entry("x", {"n": "0"}), entry(written.label, written.extra, "bad")]
            assert not any(cache.holds(other) for other in others if other != written)


def test_an_entry_that_two_wrote_is_held_whoever_is_asked(tmp_path):
    ours = Cache(tmp_path / "c", create=True)
    clip = HeldClip(clip_id="a", video_sha256="0", label="x", group=None)
    Cache(tmp_path / "c").write_clips([clip])
    ours.write_clips([clip])  # before it has seen that of the other
    ours.clip_store.refresh()
    assert ours.holds(clip)


def test_clips_of_one_content_are_found(tmp_path):
    cache = Cache(tmp_path / "c", create=True)
    contents = {"A/1": "x", "B/1": "y", "B/2": "x", "C/1": "z", "C/2": "z", "C/3": "x"}
    bad = {"C/2", "C/3"}
    cache.write_clips(
        [
            HeldClip(clip_id=name, video_sha256=content, label="l", group=None, problem="bad" if name in bad else "")
            for name, content in contents.items()
        ]
    )
    assert [sorted(clip.clip_id for clip in clips) for clips in cache.same_content()] == [["A/1", "B/2"]]
    cache.write_clips([HeldClip(clip_id="B/2", video_sha256="w", label="l", group=None)])
    assert cache.same_content() == []


def test_of_a_key_that_two_indexes_list_the_later_part_holds(tmp_path):
    for n in range(2):
        made = opened(tmp_path)
        for k in range(4):
            made.write_part(part(str(k)) | {"features": np.full((1, 1, 1), n, dtype=np.float16)})
        made.write_index()
    one, _other = indexes(tmp_path)
    one.rename(tmp_path / f"index-{10**19:020d}-{one.name[27:]}")  # as by a process whose clock is ahead
    found = opened(tmp_path)
    assert list(found) == ["0", "1", "2", "3"]
    assert len(found) == 4
    assert {float(found.row(str(k))["features"][0, 0]) for k in range(4)} == {1.0}


def test_an_index_that_puts_keys_where_they_are_not_is_found_out(tmp_path):
    made = fill(tmp_path, range(4))
    names = sorted(made.part_paths())
    wrong = {path.name: {"key": text_column([f"x{n}", f"y{n}"])} for n, path in enumerate(names)}
    index.write_index(tmp_path, wrong, made._index_head())
    found = opened(tmp_path)
    for read in (lambda: found.row("x1"), lambda: found.rows(["y2"], ("features",))):
        with pytest.raises(StoreCorrupt, match=r"an index says that .* holds .* where it does not. Delete the index"):
            read()


def test_an_index_of_another_store_says_nothing(tmp_path):
    fill(tmp_path, range(4)).write_index()
    (path,) = indexes(tmp_path)
    assert len(index.parts_in(path, {"columns": "key"}, ("key",))) == 4
    assert index.parts_in(path, {"columns": "key", "identity": "another"}, ("key",)) == {}


def damaged(path):
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def of_another_store(path):
    other = Store(path.parent / "other", "features", {"what": "another"})
    for n in range(4):
        other.write_part(part(str(90 + n)))
    other.write_index()
    made = indexes(path.parent / "other")[0]
    path.unlink()
    made.rename(path.parent / made.name)


@pytest.mark.parametrize("change", [damaged, of_another_store, lambda p: p.unlink()])
def test_without_a_sound_index_the_parts_are_read(tmp_path, reads, change):
    fill(tmp_path, range(5)).write_index()
    change(indexes(tmp_path)[0])
    reads.clear()
    assert list(opened(tmp_path)) == [str(n) for n in range(10)]
    assert len(reads) == 5


def test_a_part_that_is_gone_is_not_believed(tmp_path):
    made = fill(tmp_path, range(5))
    made.write_index()
    made.part_paths()[2].unlink()
    assert list(opened(tmp_path)) == ["0", "1", "2", "3", "6", "7", "8", "9"]


def test_entries_of_clips_come_from_the_index_and_the_last_holds(tmp_path, reads):
    cache = Cache(tmp_path / "c", create=True)
    for n in range(6):
        cache.write_clips(
            [HeldClip(clip_id=f"a/{k}", video_sha256=str(n), label="x" * n, group=None) for k in range(3)]
        )
    before = cache.clips()
    cache.clip_store.write_index()
    assert len(indexes(tmp_path / "c" / "clips")) == 1
    reads.clear()
    assert Cache(tmp_path / "c").clips() == before
    assert {c.video_sha256 for c in before} == {"5"}
    assert reads == []


def test_check_finds_a_damaged_index_and_sets_it_aside(tmp_path):
    cache = Cache(tmp_path / "c", create=True)
    for n in range(6):
        cache.write_clips([HeldClip(clip_id=str(n), video_sha256=str(n), label="x", group=None)])
    cache.clip_store.write_index()
    missing = check(cache=tmp_path / "c").problems  # entries alone
    assert [p["reason"][:8] for p in missing] == ["missing:"] * 2
    damaged(indexes(tmp_path / "c" / "clips")[0])
    assert "not those that were written" in check(cache=tmp_path / "c", repair=True).problems[0]["reason"]
    assert check(cache=tmp_path / "c").problems == missing
    assert len(Cache(tmp_path / "c").clips()) == 6
