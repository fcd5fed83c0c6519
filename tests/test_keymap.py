"""A map that holds no keys gives what a dict of them gives."""

from __future__ import annotations

import random
import sys
import threading
import tracemalloc

import pytest

from fitrec_cache.storage import keymap
from fitrec_cache.storage.keymap import KeyMap


def test_it_gives_what_a_dict_gives(monkeypatch):
    monkeypatch.setattr(keymap, "_FEWEST", 8)
    order = random.Random(0)
    made, same = KeyMap(), {}
    for n in range(3000):
        key = f"clip {order.randrange(1000)}".encode()
        made.put(key, (n, n % 32))
        same[key] = (n, n % 32)
        assert len(made) == len(same)
    assert {key: made.find(key) for key in same} == same
    assert [tuple(place) for place in made.places().tolist()] == sorted(same.values())
    assert made.find(b"clip 1000") is None
    assert made.find(b"") is None


def test_keys_whose_digests_begin_alike_are_told_apart(monkeypatch):
    monkeypatch.setattr(keymap, "_FEWEST", 0)
    monkeypatch.setattr(keymap, "_digest", lambda key: (2**64 - 1 if key > b"b" else 0, int(key.hex(), 16)))
    made = KeyMap()
    for n, key in enumerate([b"a", b"aa", b"ab", b"c", b"ca", b"aa"]):
        made.put(key, (n, 0))
    assert [made.find(key) for key in (b"a", b"aa", b"ab", b"c", b"ca")] == [(0, 0), (5, 0), (2, 0), (3, 0), (4, 0)]
    assert made.find(b"ac") is None
    assert made.find(b"cb") is None


def test_a_place_is_never_read_half_changed(monkeypatch):
    monkeypatch.setattr(keymap, "_FEWEST", 0)
    made, keys, torn, stop = KeyMap(), [b"%d" % n for n in range(4)], [], threading.Event()
    for key in keys:
        made.put(key, (0, 0))

    def read():
        while not stop.is_set():
            torn.extend(place for key in keys if (place := made.find(key)) is None or place[0] != place[1])

    between = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    readers = [threading.Thread(target=read) for _ in range(2)]
    try:
        for reader in readers:
            reader.start()
        for n in range(30_000):
            made.put(keys[n % 4], (n, n))
    finally:
        stop.set()
        for reader in readers:
            reader.join()
        sys.setswitchinterval(between)
    assert torn == []


def test_an_empty_one_holds_nothing():
    assert KeyMap().find(b"a") is None
    assert KeyMap().places().shape == (0, 2)


@pytest.mark.parametrize("many", [20_000, 80_000])
def test_a_key_takes_some_24_bytes(many):
    tracemalloc.start()
    try:
        made = KeyMap()
        for n in range(many):
            made.put(f"{n:064d}".encode(), (n // 32, n % 32))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(made) == many
    assert 24 <= held / many < 45  # the newest, a sixteenth at most, take more
