"""Beginnings of files as the specifications of their kinds have them."""

from __future__ import annotations

import io
import zipfile

import pytest
from PIL import Image

from fitrec_cache.video.no_video import is_encrypted, why_no_video


def picture(kind):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    return file.getvalue()


def archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a.mp4", "x")
    return file.getvalue()


def box(name, content=b""):
    return (8 + len(content)).to_bytes(4, "big") + name + content


FTYP = box(b"ftyp", b"isom" + bytes(4))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WebP"])
def test_a_picture_is_said_to_be_one(tmp_path, kind):
    (tmp_path / "v.mp4").write_bytes(picture(kind))
    assert why_no_video(tmp_path / "v.mp4") == (
        f"a picture ({kind}), not a video: put the video in its place, or remove it"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "file is empty (0 bytes): copy or download it again"),
        (bytes(100), "nothing but zeros"),
        (bytes(100_000), "nothing but zeros"),
        (box(b"ftyp", b"heic" + bytes(4)), "a picture (HEIC)"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "sound only (WAV)"),
        (b"ID3\x04\0\0", "sound only (MP3)"),
        (b"fLaC\0\0\0\x22", "sound only (FLAC)"),
        (archive(), "an archive or document (ZIP)"),
        (b"%PDF-1.7\n", "a document (PDF)"),
        (bytes.fromhex("0005160700020000") + bytes(80), "what a Mac writes beside a file"),
        (b"\n <!DOCTYPE html>\n<title>Sign in", "a web page (HTML)"),
        (b"\xef\xbb\xbf<HTML lang=de>", "a web page (HTML)"),
        (b"#EXTM3U\n#EXTINF:1,\na.ts\n", "a playlist"),
        ("Kniebeuge für Anna: 3 × 12".encode(), "a text, not a video"),
        ("ü".encode() * 3000, "a text, not a video"),  # of which the last letter looked at is cut
        (b'{"error": "not found"}', "a text, not a video"),
        (FTYP + box(b"mdat", bytes(90))[:-1], "cut off, as the file ends before its header says"),
        (b"RIFF\xff\0\0\0AVI LIST", "cut off, as the file ends before its header says"),
        (FTYP + box(b"mdat", bytes(90)), "not written to its end, as its index (moov) is missing"),
        (FTYP + bytes(4) + b"mdat" + bytes(90), "not written to its end, as its index (moov) is missing"),
        (FTYP + box(b"mdat", bytes(90)) + box(b"moov"), ""),
        (b"\x1a", ""),
        (b"Kniebeuge f\xfcr", ""),
        (bytes(range(256)), ""),
        (bytes(20) + b"x", ""),
    ],
)
def test_what_can_be_told_by_its_beginning_is_told_and_nothing_else(tmp_path, content, said):
    (tmp_path / "v.mp4").write_bytes(content)
    found = why_no_video(tmp_path / "v.mp4")
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_of_a_file_that_is_gone_nothing_is_said(tmp_path):
    assert why_no_video(tmp_path / "gone.mp4") == ""
    assert not is_encrypted(tmp_path / "gone.mp4")


def test_encryption_is_told_by_the_sample_entry(tmp_path):
    for kind in (b"encv", b"avc1"):
        entry = box(b"stsd", bytes(4) + (1).to_bytes(4, "big") + box(kind, bytes(78)))
        mdat = (1).to_bytes(4, "big") + b"mdat" + (116).to_bytes(8, "big") + b"stsd" + bytes(12) + b"encv" + bytes(80)
        (tmp_path / "v.mp4").write_bytes(FTYP + mdat + box(b"moov", entry))
        assert is_encrypted(tmp_path / "v.mp4") == (kind == b"encv")
