"""Decoding only what is needed gives what decoding everything gives; where it might not, everything is decoded."""

from __future__ import annotations

import functools
from collections import Counter

import av
import numpy as np
import pytest
from make_video import read_number, write_video
from test_video import claiming, eq1, read, remux

from fitrec_cache.video import container, video
from fitrec_cache.video.container import Video
from fitrec_cache.video.keyframes import Note, packet_reader, presentation_order, stretches

N_FRAMES = 240
SAMPLES = 4  # 48 frames apart
X264_OPEN = {"preset": "veryfast", "x264-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0:scenecut=0"}
X265 = {"preset": "ultrafast", "crf": "18"}
HEVC_OPEN = "log-level=none:open-gop=1:keyint=12:bframes=3:b-adapt=0"
HEVC_CLOSED = "log-level=none:open-gop=0:keyint=12:bframes=3:b-adapt=0"

#: File name: how it is written, and whether less than all of it is decoded.
CASES = {
    "h264.mp4": ({}, True),
    "b-frames.mp4": ({"b_frames": 3}, True),
    "pyramid.mkv": ({"b_frames": 3, "options": {"preset": "veryfast"}}, True),
    "open-gop.mp4": ({"options": X264_OPEN, "b_frames": 3}, False),
    "open-gop.mkv": ({"options": X264_OPEN, "b_frames": 3}, False),
    "intra-refresh.mp4": ({"options": {"preset": "veryfast", "x264-params": "intra-refresh=1:keyint=12"}}, False),
    "h264.ts": ({"b_frames": 2}, True),
    "hevc-closed.mp4": ({"codec": "libx265", "options": {**X265, "x265-params": HEVC_CLOSED}}, True),
    "hevc-open.mp4": ({"codec": "libx265", "options": {**X265, "x265-params": HEVC_OPEN}}, True),
    "hevc-open.mkv": ({"codec": "libx265", "options": {**X265, "x265-params": HEVC_OPEN}}, True),
    "vp9.webm": ({"codec": "libvpx-vp9"}, True),
    "vp8.webm": ({"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8", "b": "2M"}}, True),
    "mpeg4.avi": ({"codec": "mpeg4"}, True),
    "mpeg4-b.avi": ({"codec": "mpeg4", "b_frames": 2}, None),
    "mpeg4-b.mp4": ({"codec": "mpeg4", "b_frames": 2}, True),
    "one-key-frame.mp4": ({"gop": 1000}, False),
    "variable.mp4": ({"pts": np.cumsum([10 + 7 * (k % 9) for k in range(N_FRAMES)]).tolist(), "b_frames": 2}, True),
    "mjpeg.avi": ({"codec": "mjpeg", "pix_fmt": "yuvj420p"}, False),
}


@pytest.fixture(autouse=True)
def short_is_long(monkeypatch):
    monkeypatch.setattr(video, "LONG_PACKETS", 100)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """``case(NAME)`` gives the video of a case. Not to be changed."""
    folder = tmp_path_factory.mktemp("cases")
    return functools.cache(lambda name: write_video(folder / name, N_FRAMES, **CASES[name][0]))


def both_ways(path, monkeypatch, samples=SAMPLES):
    part = read(path, samples=samples)
    with monkeypatch.context() as patch:
        patch.setattr(video, "_plan", lambda *_: None)
        return part, read(path, samples=samples)


@pytest.mark.parametrize("samples", [SAMPLES, 3, 5])
@pytest.mark.parametrize("name", CASES)
def test_what_is_needed_gives_the_same_as_everything(case, monkeypatch, name, samples):
    partly = CASES[name][1]
    part, whole = both_ways(case(name), monkeypatch, samples)
    assert [read_number(f) for f in part.frames] == eq1(N_FRAMES, samples)
    assert np.array_equal(part.frames, whole.frames)
    assert np.array_equal(part.frame_index, whole.frame_index)
    assert np.array_equal(part.pts_seconds, whole.pts_seconds)
    verified = part.ledger.pop("frames_verified")
    assert whole.ledger.pop("frames_verified") == whole.ledger["frames_decoded"] == N_FRAMES
    assert part.ledger == whole.ledger
    if partly is not None:
        assert (verified < N_FRAMES) == partly
        assert verified <= N_FRAMES // 2 or not partly


@pytest.mark.parametrize("name", ["hevc-open.mp4", "b-frames.mp4", "mpeg4-b.mp4"])
def test_every_single_frame_can_be_had_alone(tmp_path, monkeypatch, name):
    path = write_video(tmp_path / name, 120, **CASES[name][0])
    whole = video.read_frames(path, sampler=np.arange, short_side=288).frames
    used = Counter()
    for number in range(0, 120, 7):
        clip = video.read_frames(path, sampler=lambda n, k=number: np.array([k]), short_side=288)
        used[clip.ledger["frames_verified"] < 120] += 1
        assert np.array_equal(clip.frames[0], whole[number])
    assert used[True] > 10


@pytest.mark.parametrize("name", CASES)
def test_what_is_needed_of_large_files_is_sought_instead_of_kept(case, monkeypatch, name):
    both = both_ways(case(name), monkeypatch)
    monkeypatch.setattr(container, "KEPT_BYTES", 10)
    for again, kept in zip(both_ways(case(name), monkeypatch), both, strict=True):
        assert np.array_equal(again.frames, kept.frames)
        assert again.ledger == kept.ledger


def damage(path, *numbers):
    """Overwrite the content of packets with zeros."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as opened:
        packets = [p for p in opened.demux(video=0) if p.size]
    for packet in (packets[n] for n in numbers):
        start = data.index(bytes(packet)[:20])
        data[start + 20 : start + packet.size] = bytes(packet.size - 20)
    path.write_bytes(bytes(data))
    return path


def test_damage_that_is_met_leads_to_decoding_everything(tmp_path, monkeypatch):
    path = damage(write_video(tmp_path / "v.mkv", N_FRAMES, gop=12), 100, 101)
    part, whole = both_ways(path, monkeypatch, samples=6)  # 102 is wanted, and 96 its key frame
    assert part.ledger == whole.ledger
    assert np.array_equal(part.frames, whole.frames)
    assert whole.ledger["frames_corrupt"] == 2


def test_damage_elsewhere_is_not_met_and_the_ledger_says_how_much_was_looked_at(tmp_path, monkeypatch):
    path = damage(write_video(tmp_path / "v.mkv", N_FRAMES, gop=12), 93, 94)
    part, whole = both_ways(path, monkeypatch)
    assert whole.ledger["frames_verified"] == whole.ledger["frames_decoded"] == N_FRAMES - 2
    assert part.ledger["frames_decoded"] == N_FRAMES
    assert part.ledger["frames_verified"] == 4 + 12 + 1  # four key frames, the last group, the first packet


def test_a_cut_end_is_met(tmp_path, monkeypatch):
    whole_file = write_video(tmp_path / "w.mkv", N_FRAMES, gop=12)
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole_file.read_bytes()[: int(whole_file.stat().st_size * 0.9)])
    part, whole = both_ways(path, monkeypatch)
    assert part.ledger == whole.ledger
    assert part.ledger["frames_decoded"] < N_FRAMES
    assert np.array_equal(part.frames, whole.frames)


def test_damage_that_the_container_marks_leads_to_decoding_everything(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.ts", N_FRAMES)
    data = bytearray(path.read_bytes())
    places = [i for i in range(0, len(data), 188) if int.from_bytes(data[i + 1 : i + 3], "big") & 0x1FFF == 0x100]
    data[places[len(places) * 5 // 12] + 1] |= 0x80  # transport_error_indicator
    path.write_bytes(data)
    part, whole = both_ways(path, monkeypatch)
    assert part.ledger == whole.ledger
    assert np.array_equal(part.frames, whole.frames)


def test_a_header_that_claims_another_number_of_frames_leads_to_decoding_everything(tmp_path):
    path = write_video(tmp_path / "v.avi", 120, codec="mpeg4")
    assert read(path, samples=3).ledger["frames_verified"] < 120
    assert read(claiming(path, 900), samples=3).ledger["frames_verified"] == 120


def test_frames_lost_before_the_first_key_frame_are_not_counted(tmp_path, monkeypatch):
    whole_file = write_video(tmp_path / "w.mkv", N_FRAMES, gop=12)
    path = remux(whole_file, tmp_path / "headless.mkv", keep=lambda k: k >= 5)
    part, whole = both_ways(path, monkeypatch)
    assert part.ledger == whole.ledger
    assert np.array_equal(part.frames, whole.frames)


def test_short_videos_are_decoded_whole(tmp_path):
    clip = read(write_video(tmp_path / "v.mp4", 99, gop=5), samples=2)
    assert clip.ledger["frames_verified"] == clip.ledger["frames_decoded"] == 99


def notes(*clean, times=None, n=20):
    return [Note(t, k in clean) for k, t in enumerate(times or range(n))]


def test_stretches_begin_at_clean_starts_and_end_at_the_wanted_frame():
    found = stretches(notes(0, 5, 10, 15), [7])
    assert [(s.start, s.stop) for s in found] == [(0, 1), (5, 8), (15, 20)]
    assert found[1].expected == (5, 6, 7)


#: Decoding order with times: key 0, 3, 1, 2; key 6, 4, 5; 7, 8, ... 4 and 5 lead the second key frame.
LEADING = notes(0, 4, 12, 29, times=[0, 3, 1, 2, 6, 4, 5, *range(7, 30)])


def test_a_frame_shown_before_its_key_frame_begins_one_earlier():
    assert presentation_order(LEADING) == list(range(30))
    assert [(s.start, s.stop) for s in stretches(LEADING, [4])] == [(0, 6), (29, 30)]
    found = stretches(LEADING, [6])
    assert [(s.start, s.stop) for s in found] == [(0, 1), (4, 5), (29, 30)]
    assert found[1].expected == (6,)
    assert [s.expected for s in stretches(LEADING, [7])][1] == (6, 7)  # 4 and 5 need not come


def test_a_frame_shown_before_two_key_frames_begins_two_earlier():
    some = notes(0, 2, 3, 29, times=[0, 1, 5, 6, 4, *range(7, 32)])
    assert [(s.start, s.stop) for s in stretches(some, [4])] == [(0, 5), (29, 30)]


def test_a_stretch_within_another_does_not_end_it():
    """5 is shown before its key frame and needs all from 0; what is wanted from the key frame on ends before it."""
    assert [(s.start, s.stop) for s in stretches(LEADING, [5, 6])] == [(0, 7), (29, 30)]


def test_the_last_group_is_decoded_to_its_end():
    assert [(s.start, s.stop) for s in stretches(notes(0, 5, 10, 15), [16])] == [(0, 1), (15, 20)]


def test_more_than_half_means_all():
    assert stretches(notes(0, 5, 10, 15), [9, 14]) is None
    assert sum(s.stop - s.start for s in stretches(notes(0, 5, 10, 15), [8])) == 10  # of 20


@pytest.mark.parametrize(
    "some",
    [
        [],
        notes(1),
        notes(0, times=[0, None, 2]),
        notes(0, times=[0, 1, 1]),
        notes(0, times=[1, 0, 2]),
        [Note(0, True), Note(1, False, usable=False)],
        [Note(0, True, parameters=(b"a",)), Note(1, True, parameters=(b"b",))],
        [Note(0, True), Note(1, False, parameters=(b"a",))],
    ],
)
def test_without_certainty_there_is_no_order(some):
    assert presentation_order(some) is None


def test_packets_are_read_by_the_letter_of_the_specifications():
    length = packet_reader("h264", b"\x01\x64\x00\x1e\xff")
    assert length(b"\x00\x00\x00\x02\x67\x01\x00\x00\x00\x03\x65\x88\x80") == (True, (b"\x67\x01",))
    assert length(b"\x00\x00\x00\x02\x41\x9a") == (False, ())
    codes = packet_reader("h264", None)
    assert codes(b"\x00\x00\x00\x01\x68\xee\x00\x00\x01\x65\x88") == (True, (b"\x68\xee",))
    assert codes(b"\x00\x00\x01\x06\x05\x00\x00\x01\x41\x9a") == (False, ())
    hevc = packet_reader("hevc", None)
    assert hevc(b"\x00\x00\x01" + bytes([21 << 1, 1, 0x80]))[0]  # CRA
    assert not hevc(b"\x00\x00\x01" + bytes([8 << 1, 1, 0x80]))[0]  # RASL
    vp9 = packet_reader("vp9", None)
    assert vp9(b"\x82\x49\x83\x42")[0]
    assert not vp9(b"\x86\x00")[0]  # inter
    assert not vp9(b"\x88")[0]  # shows an existing frame
    assert packet_reader("vp8", None)(b"\x10\x02\x00\x9d\x01\x2a")[0]
    assert not packet_reader("vp8", None)(b"\x11\x02\x00")[0]
    mpeg4 = packet_reader("mpeg4", None)
    assert mpeg4(b"\x00\x00\x01\xb6\x10")[0]
    assert not mpeg4(b"\x00\x00\x01\xb6\x50")[0]
    assert packet_reader("theora", None) is None


def test_vp9_of_profile_3_has_a_reserved_bit():
    vp9 = packet_reader("vp9", None)
    assert vp9(b"\xb0\x49\x83\x42")[0]  # 10 1 1 0 0 0: profile 3, reserved, shows no existing frame, key
    assert not vp9(b"\xb2\x00")[0]  # inter
    assert not vp9(b"\xb4")[0]  # shows an existing frame
    assert vp9(b"\xa0\x49\x83\x42")[0]  # profile 1 has none
    assert not vp9(b"\xa4\x00")[0]


@pytest.mark.parametrize(("codec", "data"), [("mpeg4", b"\x00\x00\x01\xb6"), ("vp8", b""), ("vp9", b"")])
def test_what_is_too_short_is_no_clean_start(codec, data):
    assert not packet_reader(codec, None)(data)[0]


def test_where_a_configuration_record_is_too_short_units_follow_start_codes():
    hevc = packet_reader("hevc", b"\x01\x02")
    assert hevc(b"\x00\x00\x01" + bytes([19 << 1, 1, 0x80]))[0]  # IDR


def test_how_a_long_video_is_turned_is_told_though_little_of_it_is_decoded(tmp_path):
    clip = read(write_video(tmp_path / "v.mp4", 120, rotation=90, width=96, height=128), samples=3)
    assert clip.ledger["frames_verified"] < 120
    assert clip.frames.shape[1:] == (128, 96, 3)
    assert clip.ledger["rotation_degrees"] in (90, 270)


def test_an_end_that_gives_less_than_it_must_leads_to_decoding_everything(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mp4", 120)
    between = Video.packets_between
    monkeypatch.setattr(Video, "packets_between", lambda self, start, stop: between(self, start, min(stop, 118)))
    assert read(path, samples=3).ledger["frames_verified"] == 120


@pytest.mark.parametrize("kind", [32, 33, 34])
def test_each_kind_of_parameter_set_of_hevc_is_seen(kind):
    unit = bytes([kind << 1, 1, 5])
    assert packet_reader("hevc", None)(b"\x00\x00\x01" + unit) == (False, (unit,))
