"""Files of a few bytes, as the specifications of their containers have them."""

from __future__ import annotations

import pytest

from fitrec_cache.video.truncation import is_cut


def box(name, content=b""):
    return (8 + len(content)).to_bytes(4, "big") + name.encode() + content


MP4 = box("ftyp", b"isom" + bytes(4))
MKV = bytes.fromhex("1A45DFA3") + b"\x84" + bytes(4) + bytes.fromhex("18538067")  # the header, and a segment's name

WHOLE = {
    "riff": b"RIFF" + (20).to_bytes(4, "little") + bytes(20),
    "riff, in several chunks": 2 * (b"RIFF" + (20).to_bytes(4, "little") + bytes(20)),
    "mp4": MP4 + box("mdat", bytes(10)),
    "mp4, a size of 64 bits": MP4 + (1).to_bytes(4, "big") + b"mdat" + (26).to_bytes(8, "big") + bytes(10),
    "mkv": MKV + b"\x8a" + bytes(10),
    "mkv, a size of 8 bytes": MKV + b"\x01" + (10).to_bytes(7, "big") + bytes(10),
} | {
    f"QuickTime, {name} first": box(name) + box("mdat", bytes(10))
    for name in ("moov", "mdat", "wide", "free", "skip", "pnot")
}
WHOLE["mp4, a box that nobody knows"] = MP4 + box("xyzw", bytes(7)) + box("mdat", bytes(10))
ENDLESS = {
    "riff": b"RIFF" + b"\xff" * 4 + b"AVI LIST" + bytes(10),
    "riff, in several chunks": WHOLE["riff"] + b"RIFF" + b"\xff" * 4 + b"AVIX" + bytes(10),
    "mp4": MP4 + bytes(4) + b"mdat" + bytes(10),
    "QuickTime": box("wide") + bytes(4) + b"mdat" + bytes(10),
    "mkv": MKV + b"\xff" + bytes(10),
    "mkv, a size of 8 bytes": MKV + b"\x01" + b"\xff" * 7 + bytes(10),
    "other": b"OggS" + bytes(20),
    "nothing": b"",
}


@pytest.fixture
def file(tmp_path):
    def write(data):
        (tmp_path / "v").write_bytes(data)
        return tmp_path / "v"

    return write


@pytest.mark.parametrize("name", WHOLE)
def test_a_byte_less_than_it_says_is_cut_and_more_is_not(file, name):
    assert not is_cut(file(WHOLE[name]))
    assert is_cut(file(WHOLE[name][:-1]))
    assert not is_cut(file(WHOLE[name] + b"abc"))


def test_what_stands_behind_the_last_chunk_of_an_avi_file_is_none_of_it(file):
    assert not is_cut(file(WHOLE["riff"] + b"JUNK" + b"\xff" * 20))


def test_a_tag_behind_the_last_box_of_an_mp4_file_is_none_of_it(file):
    assert not is_cut(file(WHOLE["mp4"] + b"TAGsquats".ljust(128, b"\0")))


@pytest.mark.parametrize("name", ENDLESS)
def test_what_says_no_end_is_not_cut(file, name):
    assert not is_cut(file(ENDLESS[name]))


@pytest.mark.parametrize("name", ["moof", "mdat"])
def test_a_fragment_that_is_cut_is_told(tmp_path, name):
    whole = MP4 + box("moov", bytes(4)) + box("moof", bytes(30)) + box("mdat", bytes(30))
    end = whole.index(name.encode()) + 14
    (tmp_path / "v.mp4").write_bytes(whole[:end])
    assert is_cut(tmp_path / "v.mp4")
    (tmp_path / "v.mp4").write_bytes(whole)
    assert not is_cut(tmp_path / "v.mp4")
