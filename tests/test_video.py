from __future__ import annotations

import os
import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.stream import Disposition
from fields import write_fields
from make_video import (
    MIRRORED,
    _audio_stream,
    _encode,
    _encode_tone,
    _video_stream,
    frame_image,
    read_corners,
    read_number,
    with_matrix,
    write_audio_only,
    write_video,
    write_video_with_second_stream,
    write_with_cover_art,
)

from fitrec_cache.errors import VideoError
from fitrec_cache.live.stream import Stream, find_source
from fitrec_cache.video import container, video
from fitrec_cache.video.sampling import frame_indices
from fitrec_cache.video.spans import Span
from fitrec_cache.video.video import Converter, _in_order, _is_set_back, read_frames

UPRIGHT = ("red", "green", "blue", "yellow")


def read(path, *, short_side=288, samples=20):
    return read_frames(path, sampler=lambda n: frame_indices(n, samples=samples), short_side=short_side)


def numbers(clip):
    return [read_number(frame) for frame in clip.frames]


def eq1(n_frames, samples=20):
    return [i * n_frames // (samples + 1) for i in range(1, samples + 1)]


def remux(source, target, *, keep=lambda number: True, earlier=0, options=None):
    """Copy packets without encoding them anew, so many units earlier; those that ``keep`` refuses are left out."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options or {}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [p for p in old.demux(old.streams.video[0]) if p.size]
        for number, packet in enumerate(packets):
            if keep(number):
                packet.stream = stream
                if earlier:
                    packet.pts, packet.dts = packet.pts - earlier, packet.dts - earlier
                new.mux(packet)
    return target


CASES = {
    "h264.mp4": {},
    "b-frames.mp4": {"b_frames": 3},
    "h264.mov": {"b_frames": 2},
    "h264.mkv": {"b_frames": 2},
    "hevc.mp4": {"codec": "libx265"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "phone.3gp": {"b_frames": 2},
    "clip.m4v": {"b_frames": 2},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "camcorder.mts": {"b_frames": 2},
    "stream.ts": {"codec": "mpeg2video"},
    "old.wmv": {"codec": "wmv2"},
    "h264.avi": {"b_frames": 2},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4-b.avi": {"codec": "mpeg4", "b_frames": 2},
    "one-key-frame.mp4": {"gop": 1000},
    "ten-bit.mp4": {"pix_fmt": "yuv420p10le"},
    "ten-bit.mkv": {"codec": "libx265", "pix_fmt": "yuv420p10le"},
    "grey.mkv": {"pix_fmt": "gray"},
    "444.mp4": {"pix_fmt": "yuv444p"},
    "odd.mkv": {"width": 131, "height": 97, "pix_fmt": "yuv444p"},
    "odd.avi": {"width": 131, "height": 97, "codec": "mpeg4"},
    "tall.mp4": {"width": 96, "height": 160},
    "a name with spaces ünï.mp4": {},
}


@pytest.mark.parametrize("name", CASES)
def test_the_frames_of_eq_1_are_taken_with_their_times(tmp_path, name):
    settings = {"width": 128, "height": 96, **CASES[name]}
    clip = read(write_video(tmp_path / name, 47, **settings))
    assert numbers(clip) == eq1(47) == clip.frame_index.tolist()
    assert clip.frames.shape == (20, settings["height"], settings["width"], 3)
    assert clip.frames.dtype == np.uint8
    assert clip.ledger["frames_decoded"] == 47
    assert clip.ledger["rotation_degrees"] == 0
    assert not clip.ledger["variable_frame_rate"]
    assert np.allclose(clip.pts_seconds - clip.pts_seconds[0], (np.array(eq1(47)) - eq1(47)[0]) / 25, atol=0.0011)
    if settings.get("pix_fmt") != "gray":
        assert all(read_corners(frame) == UPRIGHT for frame in clip.frames)


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.avi", "vp9.webm"])
def test_the_first_frame_has_time_zero(tmp_path, name):
    clip = read(write_video(tmp_path / name, 5, **CASES[name]))
    assert clip.frame_index[0] == 0
    assert clip.pts_seconds[0] == 0


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_variable_frame_rate_keeps_the_encoded_times(tmp_path, name):
    times = np.cumsum([0] + [10 + 7 * (k % 9) for k in range(46)])  # ms
    clip = read(write_video(tmp_path / name, 47, pts=times.tolist()))
    assert numbers(clip) == eq1(47)
    assert clip.pts_seconds == pytest.approx(times[eq1(47)] / 1000, abs=0.0011)
    assert clip.ledger["variable_frame_rate"]


def test_interlaced_video_is_read_whole_and_said_to_be(tmp_path):
    options = {"x264-params": "tff=1"}
    clip = read(write_video(tmp_path / "v.mp4", 30, width=128, height=96, options=options))
    assert numbers(clip) == eq1(30)
    assert clip.ledger["interlaced"]
    assert not read(write_video(tmp_path / "p.mp4", 30)).ledger["interlaced"]


def test_fields_that_are_packets_of_their_own_are_not_taken_for_frames(tmp_path):
    clip = read(write_fields(tmp_path / "v.h264", 30))
    assert clip.ledger["frames_decoded"] == 30
    assert clip.ledger["interlaced"]
    greys = (40 + np.array(eq1(30)) - 16) * 255 / 219  # studio range
    assert clip.frames.mean(axis=(1, 2, 3)) == pytest.approx(greys, abs=1.5)
    for lost in ((29, 1), (10, 0)):  # then fewer than half of the packets become frames
        assert read(write_fields(tmp_path / "v.h264", 30, lost=[lost])).ledger["frames_decoded"] == 29


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_open_groups_of_pictures_give_what_a_sequential_decode_gives(tmp_path, name):
    options = {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=8:min-keyint=8:scenecut=0"}
    clip = read(write_video(tmp_path / name, 47, gop=8, b_frames=3, options=options))
    assert numbers(clip) == eq1(47)
    assert clip.ledger["frames_decoded"] == 47


def test_video_without_time_stamps_gets_times_by_its_rate_and_a_warning(tmp_path):
    with av.open(str(tmp_path / "v.h264"), "w", format="h264") as container:  # a bare stream, no container
        stream = _video_stream(container, "libx264", 25, (128, 96))
        _encode(container, stream, (frame_image(k, 128, 96) for k in range(30)), range(30))
    clip = read(tmp_path / "v.h264")
    assert numbers(clip) == eq1(30)
    assert clip.pts_seconds - clip.pts_seconds[0] == pytest.approx((np.array(eq1(30)) - eq1(30)[0]) / 25)
    assert any("no time stamps" in w for w in clip.ledger["warnings"])


def test_a_title_in_another_encoding_fails_no_video(tmp_path):
    path = tmp_path / "t.mp4"
    with av.open(str(write_video(tmp_path / "v.mp4", 30))) as old, av.open(str(path), "w") as new:
        new.metadata["title"] = "Uebung"
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in [p for p in old.demux(video=0) if p.size]:
            packet.stream = stream
            new.mux(packet)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"Uebung", "\u00dcbung!".encode("latin-1")))
    assert path.read_bytes() != whole
    assert numbers(read(path)) == eq1(30)


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("name", ["r.mp4", "r.mov"])
def test_rotated_video_is_turned_upright(tmp_path, rotation, name):
    clip = read(write_video(tmp_path / name, 25, rotation=rotation, width=128, height=96))
    assert clip.frames.shape[1:] == (96, 128, 3)
    assert numbers(clip) == eq1(25)
    assert read_corners(clip.frames[3]) == UPRIGHT
    assert clip.ledger["rotation_degrees"] in (rotation, 360 - rotation)
    assert not clip.ledger["mirrored"]


@pytest.mark.parametrize(
    ("rotation", "matrix", "shown"),
    [
        (180, (-1, 0, 0, 1), ("yellow", "blue", "green", "red")),  # shown upside down: only mirrored left to right
        *((0, *each) for each in MIRRORED),
    ],
)
def test_mirrored_video_is_shown_as_players_show_it(tmp_path, rotation, matrix, shown):
    path = write_video(tmp_path / "m.mp4", 5, rotation=rotation, width=128, height=96)
    clip = read(with_matrix(path, matrix))
    assert clip.frames.shape[1:] == ((128, 96, 3) if not matrix[0] else (96, 128, 3))
    assert read_corners(clip.frames[2]) == shown
    assert clip.ledger["mirrored"]


def test_rotated_video_obeys_the_short_side(tmp_path):
    clip = read(write_video(tmp_path / "r.mp4", 5, rotation=90, width=96, height=192), short_side=64, samples=3)
    assert clip.frames.shape[1:] == (128, 64, 3)
    assert numbers(clip) == eq1(5, 3)


def test_non_square_pixels_are_made_square(tmp_path):
    clip = read(write_video(tmp_path / "anamorphic.mp4", 21, width=64, height=96, pixel=Fraction(2, 1)))
    assert clip.frames.shape[1:] == (96, 128, 3)
    assert numbers(clip) == eq1(21)


@pytest.mark.parametrize("ratio", [Fraction(9, 1), Fraction(1, 9)])
def test_pixels_of_a_shape_that_cannot_be_are_refused(tmp_path, ratio):
    path = write_video(tmp_path / "v.mp4", 21, width=64, height=96, pixel=ratio)
    with pytest.raises(VideoError, match=rf"a pixel is {float(ratio):.3g} times as wide as high"):
        read(path)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((128, 96), 96, (96, 128)), ((128, 96), 500, (96, 128)), ((128, 96), 72, (72, 96)), ((96, 240), 64, (160, 64))],
)
def test_frames_shrink_to_the_short_side_and_are_never_enlarged(tmp_path, size, short_side, expected):
    clip = read(write_video(tmp_path / "v.mp4", 4, width=size[0], height=size[1]), short_side=short_side, samples=2)
    assert clip.frames.shape[1:3] == expected
    assert numbers(clip) == eq1(4, 2)


@pytest.mark.parametrize("short_side", [64, 96, 288])
def test_each_frame_is_what_pyav_makes_of_it_alone(tmp_path, short_side):
    path = write_video(tmp_path / "v.mp4", 20, width=160, height=96)
    with av.open(str(path)) as container:
        alone = [
            frame.reformat(
                width=round(160 * min(short_side, 96) / 96),
                height=min(short_side, 96),
                format="rgb24",
                interpolation="BICUBIC",
            ).to_ndarray()
            for frame in container.decode(video=0)
        ]
    assert np.array_equal(read(path, short_side=short_side).frames, np.stack(alone)[frame_indices(20, samples=20)])


def test_one_scaler_serves_frames_of_several_kinds(tmp_path):
    small = write_video(tmp_path / "s.mp4", 1, width=160, height=96)
    large = write_video(tmp_path / "l.avi", 1, codec="mpeg4", width=320, height=200)
    frames = []
    for path in (small, large):
        with av.open(str(path)) as container:
            frames.append(next(container.decode(video=0)))
    frames += [frames[1].reformat(format="yuv444p"), frames[1].reformat(format="gray")]
    full, bt709 = frames[1].reformat(format="yuvj420p"), frames[1].reformat(format="yuv422p")
    bt709.colorspace = 1
    with av.open(str(small)) as container:
        converter = Converter(container.streams.video[0], 64)
        for frame in (*frames, full, bt709, *frames):
            width = round(frame.width * 64 / frame.height)
            alone = frame.reformat(width=width, height=64, format="rgb24", interpolation="BICUBIC").to_ndarray()
            assert np.array_equal(converter.picture(frame), alone)


def test_colours_are_rgb(tmp_path):
    clip = read(write_video(tmp_path / "v.mp4", 2), samples=1)
    red, blue = clip.frames[0, 5, 5], clip.frames[0, -5, -5]
    assert red[0] > red[2] + 100
    assert blue[2] > blue[0] + 100


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("matrix", "red_weight", "blue_weight"),
    [("undef", 0.299, 0.114), ("smpte170m", 0.299, 0.114), ("bt709", 0.2126, 0.0722), ("bt2020nc", 0.2627, 0.0593)],
)
def test_colours_are_those_that_the_file_names(tmp_path, matrix, red_weight, blue_weight, full):
    """The formulas are of ITU-R BT.601, BT.709 and BT.2020; phones and cameras write the second, in limited range."""
    red, green, blue = 200, 60, 30
    luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    differences = (blue - luma) / (2 - 2 * blue_weight), (red - luma) / (2 - 2 * red_weight)
    scale = (1, 1) if full else (219 / 255, 224 / 255)
    planes = round((0 if full else 16) + scale[0] * luma), *(round(128 + scale[1] * d) for d in differences)
    frame = av.VideoFrame(128, 96, "yuv420p")
    for plane, value in zip(frame.planes, planes, strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    options = {"qp": "0", "x264-params": f"colormatrix={matrix}:fullrange={'on' if full else 'off'}"}
    with av.open(str(tmp_path / "v.mp4"), "w") as file:
        stream = _video_stream(file, "libx264", 25, (128, 96), options=options)
        file.mux([*stream.encode(frame), *stream.encode(None)])
    shown = read(tmp_path / "v.mp4", samples=1).frames[0].reshape(-1, 3)
    assert np.abs(shown - np.array([red, green, blue])).max() <= 4


@pytest.mark.parametrize("n_frames", [1, 2, 7, 20])
def test_a_clip_shorter_than_the_samples_repeats_frames(tmp_path, n_frames):
    clip = read(write_video(tmp_path / "short.mp4", n_frames))
    assert numbers(clip) == eq1(n_frames)
    different = len(set(eq1(n_frames)))
    assert clip.ledger["repeated_samples"] == 20 - different
    told = [w for w in clip.ledger["warnings"] if "so short" in w]
    assert told == [f"so short that its 20 samples show only {different} frame{'s' * (different > 1)}"] * (
        n_frames < 20
    )


def claiming(path, n_frames):
    """Let the header of an AVI file claim another number of frames."""
    data = bytearray(path.read_bytes())
    strh = data.index(b"strh") + 8
    data[strh + 32 : strh + 36] = n_frames.to_bytes(4, "little")  # dwLength
    avih = data.index(b"avih") + 8
    data[avih + 16 : avih + 20] = n_frames.to_bytes(4, "little")  # dwTotalFrames
    path.write_bytes(bytes(data))
    return path


def test_a_wrong_frame_count_in_the_header_is_recorded_and_not_believed(tmp_path):
    clip = read(claiming(write_video(tmp_path / "v.avi", 30, codec="mpeg4"), 900))
    assert numbers(clip) == eq1(30)
    assert clip.ledger["frames_claimed"] == 900
    assert clip.ledger["frames_decoded"] == 30
    assert any("900" in w and "30" in w for w in clip.ledger["warnings"])


def test_packets_lost_from_the_middle_give_the_frames_that_decode(tmp_path):
    whole = write_video(tmp_path / "whole.mkv", 48, gop=12)
    clip = read(remux(whole, tmp_path / "gap.mkv", keep=lambda k: not 24 <= k < 36))
    left = [*range(24), *range(36, 48)]
    assert numbers(clip) == [left[i] for i in eq1(36)]
    assert clip.ledger["frames_decoded"] == 36


def test_a_number_of_frames_that_differs_each_time_is_an_error(tmp_path, monkeypatch):
    path = remux(write_video(tmp_path / "w.mkv", 48, gop=12), tmp_path / "v.mkv", keep=lambda k: k >= 5)
    decode, left = video._decode, iter((36, 35))  # more packets than frames: decoded twice

    def shorter_each_time(*given):
        seen = decode(*given)
        del seen.times[next(left) :]
        return seen

    monkeypatch.setattr(video, "_decode", shorter_each_time)
    with pytest.raises(VideoError, match="decoding is not repeatable: 36 frames, then 35"):
        read(path)


@pytest.mark.parametrize("first", [200, 150, 100])
def test_a_cut_without_encoding_anew_shows_what_a_player_shows(tmp_path, first):
    """As ``ffmpeg -ss T -c copy`` does: packets from the key frame on, those in front of the cut hidden."""
    whole = write_video(tmp_path / "whole.mp4", 250, gop=250, b_frames=2)
    with av.open(str(whole)) as old, av.open(str(tmp_path / "cut.mp4"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in (p for p in old.demux(old.streams.video[0]) if p.size):
            packet.pts, packet.dts = (round(t - first / 25 / packet.time_base) for t in (packet.pts, packet.dts))
            packet.stream = stream
            new.mux(packet)
    clip = read(tmp_path / "cut.mp4")
    assert numbers(clip) == [first + i for i in eq1(250 - first)]
    assert clip.ledger["frames_hidden"] == first
    assert clip.ledger["frames_claimed"] == clip.ledger["frames_decoded"] == 250 - first
    assert clip.ledger["warnings"] == []


@pytest.fixture
def failing_after_50(monkeypatch):
    """``failing_after_50(error)``: reading packets ends in an error."""

    class Failing:
        def __init__(self, opened, error):
            self.opened, self.error = opened, error

        def __getattr__(self, name):
            return getattr(self.opened, name)

        def demux(self, stream):
            for number, packet in enumerate(self.opened.demux(stream)):
                if number == 50:
                    raise self.error
                yield packet

    real = container._open
    return lambda error: monkeypatch.setattr(container, "_open", lambda path: Failing(real(path), error))


@pytest.mark.parametrize(
    "error", [av.error.OSError(5, "Input/output error"), av.error.MemoryError(12, "Cannot allocate memory")]
)
def test_a_read_error_is_no_end_of_the_file(tmp_path, failing_after_50, error):
    path = write_video(tmp_path / "v.mp4", 60)
    failing_after_50(error)
    with pytest.raises(VideoError, match=f"cannot be read to its end: {error.strerror}"):
        read(path)


def test_what_a_decoder_holds_back_where_packets_end_in_an_error_comes_out(tmp_path, failing_after_50):
    path = write_video(tmp_path / "v.mp4", 60, b_frames=3)
    failing_after_50(av.error.InvalidDataError(1, "Invalid data", str(path)))
    clip = read(path)
    assert clip.ledger["frames_decoded"] == 50
    assert clip.ledger["warnings"][0] == "cut short: Invalid data"
    assert clip.ledger["duration_seconds"] >= 49 / 25  # what came out last is not at 0 s


def test_a_folder_above_a_link_is_that_of_its_target(tmp_path, monkeypatch):
    (tmp_path / "far" / "inner").mkdir(parents=True)
    write_video(tmp_path / "v.mp4", 25, numbers=range(100, 125))
    write_video(tmp_path / "far" / "v.mp4", 25)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "inner")
    assert numbers(read(tmp_path / "link" / ".." / "v.mp4")) == eq1(25)


def test_a_name_with_a_colon_is_a_file(tmp_path, monkeypatch):
    write_video(tmp_path / "12:30:45.mp4", 25)
    monkeypatch.chdir(tmp_path)
    assert numbers(read(Path("12:30:45.mp4"))) == eq1(25)


def test_a_display_matrix_of_zeros_turns_nothing(tmp_path):
    path = write_video(tmp_path / "v.mp4", 25)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 4 * 5 + 8 + 8
    assert struct.unpack(">9i", data[matrix : matrix + 36])[:5] == (65536, 0, 0, 0, 65536)
    data[matrix : matrix + 36] = bytes(36)
    path.write_bytes(data)
    clip = read(path)
    assert numbers(clip) == eq1(25)
    assert (clip.ledger["rotation_degrees"], clip.ledger["mirrored"]) == (0, False)


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


@pytest.mark.parametrize("name", ["cut.avi", "cut.mkv", "cut.webm", "cut.mp4"])
def test_a_truncated_file_gives_true_frames_and_says_so(tmp_path, name):
    codec = {".avi": "mpeg4", ".webm": "libvpx-vp9"}.get(Path(name).suffix, "libx264")
    whole = write_video(tmp_path / f"whole-{name}", 60, codec=codec)
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = cut(remux(whole, tmp_path / name, options=options), 0.8)
    clip = read(path)
    decoded = clip.ledger["frames_decoded"]
    assert 30 <= decoded < 60
    assert numbers(clip) == eq1(decoded)
    assert any(w.startswith("cut short") for w in clip.ledger["warnings"])
    assert not any(w.startswith("cut short") for w in read(whole).ledger["warnings"])


@pytest.mark.parametrize("ending", ["avi", "matroska"])
def test_a_file_that_was_written_to_a_pipe_is_whole(tmp_path, ending):
    """As ``ffmpeg -f avi - > v.avi`` does: nobody could go back to its header to say how long it is."""
    whole, written = write_video(tmp_path / "whole.avi", 60, codec="mpeg4"), bytearray()
    pipe = SimpleNamespace(write=lambda data: written.extend(data) or len(data))
    with av.open(str(whole)) as old, av.open(pipe, "w", format=ending) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    (tmp_path / "v.avi").write_bytes(written)
    clip = read(tmp_path / "v.avi")
    assert numbers(clip) == eq1(60)
    assert not any("cut short" in warning for warning in clip.ledger["warnings"])


@pytest.mark.parametrize("name", ["cut.avi", "cut.mp4", "cut.mkv", "cut.webm"])
def test_less_than_half_of_what_the_header_claims_is_a_failure(tmp_path, name):
    codec = {".avi": "mpeg4", ".webm": "libvpx-vp9"}.get(Path(name).suffix, "libx264")
    whole = write_video(tmp_path / f"whole-{name}", 60, codec=codec)
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    with pytest.raises(VideoError, match=r"only \d+ of 60 frames decode, at least 50%"):
        read(cut(remux(whole, tmp_path / name, options=options), 0.35))


def test_mp4_without_its_index_fails(tmp_path):
    with pytest.raises(VideoError, match="cut off, as the file ends before its header says: copy or download it again"):
        read(cut(write_video(tmp_path / "v.mp4", 60), 0.8))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.mp4", b"", r"file is empty \(0 bytes\)"),
        (
            "text.mp4",
            b"not a video, only some words\n" * 50,
            "a text, not a video: put the video in its place",
        ),
        ("zeros.avi", bytes(5000), "nothing but zeros where a video begins"),
        ("noise.avi", bytes(range(256)) * 20, "cannot be decoded: not a video by its content, of an unsupported kind"),
        ("one-byte.mkv", b"\x1a", "cannot be decoded"),
    ],
)
def test_what_is_not_a_video_fails_with_the_reason(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VideoError, match=reason):
        read(path)


@pytest.mark.parametrize(("number", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG"), ("bt709", "")])
def test_high_dynamic_range_is_a_warning(tmp_path, number, name):
    options = {"x264-params": f"transfer={number}"}
    clip = read(write_video(tmp_path / "v.mp4", 21, pix_fmt="yuv420p10le", options=options))
    found = [w for w in clip.ledger["warnings"] if "high dynamic range" in w]
    assert found == [f"high dynamic range ({name}): colours are not mapped to a common screen's"] * bool(name)


def test_missing_file_and_folder_fail_with_the_reason(tmp_path):
    with pytest.raises(VideoError, match="file not found"):
        read(tmp_path / "gone.mp4")
    with pytest.raises(VideoError, match="not a file"):
        read(tmp_path)
    (tmp_path / "link.mp4").symlink_to(tmp_path / "gone.mp4")
    with pytest.raises(VideoError, match="a link that leads nowhere"):
        read(tmp_path / "link.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_fails_with_the_reason(tmp_path):
    path = write_video(tmp_path / "v.mp4", 3)
    path.chmod(0)
    with pytest.raises(VideoError, match="cannot be read: Permission denied"):
        read(path)


def test_audio_only_fails_and_says_what_is_there(tmp_path):
    with pytest.raises(VideoError, match=r"no video stream \(streams found: audio\): it is sound only"):
        read(write_audio_only(tmp_path / "song.mp4"))


@pytest.mark.parametrize("kind", ["audio", "video"])
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_the_first_video_stream_is_taken(tmp_path, kind, name):
    clip = read(write_video_with_second_stream(tmp_path / name, 30, kind=kind))
    assert numbers(clip) == eq1(30)
    assert clip.ledger["video_streams"] == (2 if kind == "video" else 1)
    assert clip.ledger["warnings"] == ["2 video streams: only number 1 is used"] * (kind == "video")


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_the_video_stream_that_players_show_is_taken(tmp_path, name):
    """A container may say that its first video, such as a small preview, is not the one to show."""
    path = write_video_with_second_stream(tmp_path / name, 30, kind="video", second_is_default=True)
    clip = read(path)
    assert numbers(clip) == [1000 + number for number in eq1(30)]
    assert clip.ledger["warnings"] == ["2 video streams: only number 2 is used"]


def test_cover_art_is_not_the_video(tmp_path):
    clip = read(write_with_cover_art(tmp_path / "v.mp4", 30))
    assert numbers(clip) == eq1(30)


def test_a_song_with_cover_art_is_not_a_video(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        sound, cover = _audio_stream(container, "aac"), _video_stream(container, "mjpeg", 25, (32, 32), "yuvj420p")
        cover.disposition = Disposition.attached_pic
        _encode(container, cover, [np.full((32, 32, 3), 200, dtype=np.uint8)], range(1))
        _encode_tone(container, sound, 0.5)
    with pytest.raises(VideoError, match=r"\(streams found: audio, cover picture\): it is sound only"):
        read(tmp_path / "song.mp4")


def test_encrypted_pictures_are_said_to_be(tmp_path):
    """As of a film that was bought: hardly a frame of it decodes, by chance, and none of one damaged throughout."""
    key = {"encryption_key": "76a6c65c5ea762046bd749a2e632ccbb", "encryption_kid": "a7e61c373e219033c21091fa607bf3b8"}
    whole = write_video(tmp_path / "whole.mp4", 40)
    locked = remux(whole, tmp_path / "locked.mp4", options={"encryption_scheme": "cenc-aes-ctr", **key})
    with pytest.raises(
        VideoError, match=r"^(no|only \d of 40) frames? decode.*, as its pictures are encrypted: give a copy"
    ):
        read(locked)
    data = bytearray(whole.read_bytes())
    start = data.index(b"mdat") + 4
    data[start : data.index(b"moov") - 4] = bytes(data.index(b"moov") - 4 - start)
    whole.write_bytes(data)
    with pytest.raises(VideoError, match=r"40 packets, 0 gave a picture: copy or download it again"):
        read(whole)


def test_the_same_file_gives_the_same_bits(tmp_path):
    path = write_video(tmp_path / "v.mp4", 30, b_frames=2)
    assert np.array_equal(read(path, short_side=70).frames, read(path, short_side=70).frames)


@pytest.mark.parametrize(
    ("given", "expected"), [(None, 0), ((0, 0), 0), ((3, 0), 0), ((30000, 1001), Fraction(30000, 1001))]
)
def test_rates_that_mean_nothing_are_zero(given, expected):
    """PyAV 19 gives 0/0, which no fraction can be."""
    rational = given and SimpleNamespace(numerator=given[0], denominator=given[1])
    assert container.fraction(rational) == expected


def test_parts_of_a_file_whose_clock_is_set_back_are_refused(tmp_path):
    """As of two recordings of a camcorder, joined: a time means two frames."""
    first, second = (write_video(tmp_path / f"{n}.ts", 50, codec="mpeg2video") for n in (1, 2))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    assert len(read_frames(joined, sampler=np.arange, short_side=64).frames) > 90
    with pytest.raises(VideoError, match=r"its time stamps jump back part-way.*cut the file there"):
        read_frames(joined, sampler=np.arange, short_side=64, span=Span(start=0.4, end=0.8))


@pytest.mark.parametrize(
    ("times", "again"),
    [
        ([*range(50), *range(50)], True),
        ([*range(200), *range(150, 260)], True),  # by little, and late
        ([*range(100)], False),
        ([*range(50), 9999, *range(50, 200)], False),  # one damaged time
        ([*range(50), *[9999] * 3, *range(50, 200)], False),  # as many as may be
        ([*range(50), 9999, *range(50, 200), *range(100, 200)], True),
        ([i + (8 if i % 9 == 0 else -1) for i in range(200)], False),  # pictures between others come after them
        ([*range(5), *range(5)], False),  # not enough to tell
    ],
)
def test_a_clock_that_is_set_back_is_told_from_reordering_and_damage(times, again):
    assert _is_set_back(times) == again


@pytest.mark.parametrize("times", [[*range(50), 9999, *range(51, 200)], [*range(50), *range(50)], []])
def test_times_of_damage_and_of_a_clock_that_is_set_back_stay_with_their_frames(times):
    assert _in_order(np.array(times, dtype=float)).tolist() == times


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile secret.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_what_names_other_files_or_the_network_is_no_video(tmp_path, text):
    """Whose hash would be that of the list, not of what is seen."""
    write_video(tmp_path / "secret.mp4", 5)
    path = tmp_path / "list.mp4"
    path.write_text(text)
    with pytest.raises(VideoError, match=r"(a playlist|a text), "):
        read(path)
    with pytest.raises(VideoError, match=r"cannot be opened: (a playlist|a text), "):
        Stream(find_source(str(path)))


def test_frames_too_large_to_be_kept_are_refused_before_one_is_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "large.mp4", 3)
    monkeypatch.setattr(container, "LARGEST", 128 * 96 - 1)
    with pytest.raises(VideoError, match="frames of 128 x 96 pixels are too large"):
        read(path)


def test_frames_that_grow_on_the_way_cost_no_memory(tmp_path):
    """FFmpeg's own limit, which holds for each frame; a header tells of the first only."""
    path = write_video(tmp_path / "a.mp4", 3)
    with av.open(str(path)) as opened:
        stream = container.video_stream(opened)
        assert int(stream.codec_context.options["max_pixels"]) == container.LARGEST
        stream.codec_context.options = {"max_pixels": str(128 * 96 - 1)}
        with pytest.raises(av.FFmpegError):
            list(opened.decode(stream))


@pytest.mark.parametrize(("ratio", "expected"), [(Fraction(2, 1), (72, 96)), (Fraction(1, 2), (108, 72))])
def test_the_short_side_is_that_of_square_pixels(tmp_path, ratio, expected):
    """Coded 64 x 96: shown 128 x 96, or 32 x 96."""
    width = 64 if ratio > 1 else 144
    height = 96 if ratio > 1 else 108
    path = write_video(tmp_path / "anamorphic.mp4", 21, width=width, height=height, pixel=ratio)
    clip = read(path, short_side=72)
    assert clip.frames.shape[1:3] == expected
    assert numbers(clip) == eq1(21)


def test_times_rounded_to_milliseconds_are_no_variable_rate(tmp_path):
    clip = read(write_video(tmp_path / "v.mkv", 60, fps=30))
    gaps = {round(b - a, 3) for a, b in zip(clip.pts_seconds, clip.pts_seconds[1:], strict=False)}
    assert len(gaps) > 1  # 33 and 34 ms a frame
    assert not clip.ledger["variable_frame_rate"]


def test_a_matrix_that_is_a_turn_but_for_rounding_is_one(tmp_path):
    path = write_video(tmp_path / "r.mp4", 5, rotation=90, width=96, height=128)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    matrix = list(struct.unpack(">9i", data[start : start + 36]))
    assert matrix[0] == matrix[4] == 0
    matrix[0], matrix[4] = 3, -3  # of 65536: what a cosine in floats leaves
    data[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    assert numbers(read(path, samples=3)) == eq1(5, 3)


def test_a_picture_that_changes_its_shape_on_the_way_is_refused(tmp_path):
    parts = [write_video(tmp_path / f"{w}.ts", 12, width=w, height=96) for w in (128, 160)]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(VideoError, match=r"size changes within the clip, .* 128 x 96 to 160 x 96 pixels: .*FFmpeg"):
        read(path)
