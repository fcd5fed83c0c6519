from __future__ import annotations

import contextlib
import csv
import functools
import http.server
import io
import itertools
import json
import os
import re
import shutil
import socket
import sys
import threading
import time
import types
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from conftest import SMALL, InlinePool
from make_video import _audio_stream, _encode, _encode_tone, _video_stream, frame_image, read_number, write_video
from PIL import Image
from test_keyframes import damage
from test_train import toy
from test_video import remux
from typer.testing import CliRunner

from fitrec_cache import predict as predicting
from fitrec_cache import watch as module
from fitrec_cache import watcher
from fitrec_cache.cache import Cache
from fitrec_cache.cli import app
from fitrec_cache.common.progress import progress_bar
from fitrec_cache.dataset.find_clips import find_clips
from fitrec_cache.errors import FitrecError, StoreError, UsageError, VideoError, earlier
from fitrec_cache.extract import extract
from fitrec_cache.live import stream as streaming
from fitrec_cache.live.assembly import WindowClip
from fitrec_cache.live.continued import Continued
from fitrec_cache.live.stream import Stream, find_source, without_password
from fitrec_cache.live.timeline import (
    Moment,
    Segment,
    Smoother,
    Timeline,
    clock,
)
from fitrec_cache.live.timeline_files import WatchFiles, write_subtitles, write_table
from fitrec_cache.live.timeline_picture import _columns, timeline_png
from fitrec_cache.live.windows import Windows
from fitrec_cache.pipeline import Pipeline
from fitrec_cache.predict import predict
from fitrec_cache.recogniser import Recogniser
from fitrec_cache.texts import watch_text
from fitrec_cache.train import train_head
from fitrec_cache.video.jpeg import decode_frames
from fitrec_cache.video.sampling import frame_indices
from fitrec_cache.video.spans import Span
from fitrec_cache.video.video import read_frames
from fitrec_cache.watch import watch
from fitrec_cache.watcher import FrameWatch, Watch

LOSSLESS = {"codec": "ffv1", "width": 80, "height": 64, "fps": 25}


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache_folder):
    out = tmp_path_factory.mktemp("runs") / "run"
    train_head(out=out, cache=cache_folder, variant="mean", backbone=["test_resnet"], epochs=3)
    return out


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """Sixty numbered frames, 2.4 s."""
    return write_video(tmp_path_factory.mktemp("long") / "long.avi", 60, **LOSSLESS)


def windows(seconds, every, samples=4):
    return Windows(seconds=watcher._number("seconds", seconds), every=watcher._number("every", every), samples=samples)


def numbers(clip, side=64):
    frames = decode_frames(clip.jpegs[side]).permute(0, 2, 3, 1).numpy()
    return [read_number(np.ascontiguousarray(frame)) for frame in frames]


def look(source, run, **settings):
    with Watch(str(source), run=run, **settings) as watching:
        return list(watching)


def test_a_window_is_answered_as_its_piece_is_as_a_file(run, long_video, tmp_path, monkeypatch):
    monkeypatch.setattr(predicting, "DecoderPool", InlinePool)
    shutil.copytree(run, tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "run.json").read_text())
    middle = sorted(moment.top[0][1] for moment in look(long_video, run, seconds=0.8, every=0.4))[2]
    settings["calibration"]["threshold"] = middle  # so that some are unknown
    (tmp_path / "run" / "run.json").write_text(json.dumps(settings))
    run = tmp_path / "run"
    found = look(long_video, run, seconds=0.8, every=0.4)  # 20 frames, 10 from one to the next
    assert {moment.unknown for moment in found} == {True, False}
    assert [m.start for m in found] == pytest.approx([0.4 * k for k in range(5)])
    assert [m.end for m in found] == pytest.approx([0.4 * k + 0.8 for k in range(5)])
    for k, moment in enumerate(found):
        piece = write_video(tmp_path / f"{k}.avi", 20, numbers=range(10 * k, 10 * k + 20), **LOSSLESS)
        (expected,) = predict([piece], run=run)
        assert moment.top[:3] == expected.top
        assert moment.unknown == expected.unknown


def test_frames_of_two_windows_are_embedded_once(run, long_video, monkeypatch):
    """Of T = 4 samples, two are those of the window before, which began 2/5 of a window earlier."""
    embed, embedded = Pipeline.__call__, []

    def counted(self, frames):
        embedded.append(len(frames))
        return embed(self, frames)

    monkeypatch.setattr(Pipeline, "__call__", counted)
    found = look(long_video, run, seconds=1.0)
    assert [m.start for m in found] == pytest.approx([0.4 * k for k in range(4)])
    assert embedded == [4, 2, 2, 2]
    embedded.clear()
    seen: dict = {}
    recogniser = watcher.Recogniser(run)
    with Stream(find_source(str(long_video))) as stream:
        for clip in stream.windows(windows(1.0, 0.4), recogniser.short_sides):
            recogniser(clip.jpegs, seen=seen)
            assert len(seen) == 4  # those of the frames before go
    embedded.clear()
    monkeypatch.setattr(Pipeline, "embeds_each_alone", False)  # as on a GPU
    again = look(long_video, run, seconds=1.0)
    assert embedded == [4, 4, 4, 4]
    for one, other in zip(found, again, strict=True):
        assert dict(one.top) == pytest.approx(dict(other.top), abs=1e-4)


def test_frames_are_embedded_once_for_each_of_two_backbones(
    long_video, cache_folder, video_folder, weights, tmp_path, inline
):
    backbones = ["test_resnet", "test_efficientnet"]
    shutil.copytree(cache_folder, tmp_path / "cache")
    extract(video_folder, cache=tmp_path / "cache", backbone=[weights(name) for name in backbones], **SMALL)
    train_head(out=tmp_path / "two", cache=tmp_path / "cache", variant="mean", backbone=backbones, epochs=3)
    both, seen = watcher.Recogniser(tmp_path / "two"), {}
    with Stream(find_source(str(long_video))) as stream:
        for clip in stream.windows(windows(1.0, 0.4), both.short_sides):
            again, anew = both(clip.jpegs, seen=seen), both(clip.jpegs)
            assert dict(again.top) == pytest.approx(dict(anew.top), abs=1e-4)


def test_below_which_probability_a_window_is_unknown_can_be_said(run, long_video):
    found = look(long_video, run, seconds=0.8, every=0.4)
    middle = sorted(moment.top[0][1] for moment in found)[2]
    again = look(long_video, run, seconds=0.8, every=0.4, unknown_below=middle)
    assert [moment.unknown for moment in again] == [moment.top[0][1] < middle for moment in found]
    assert {moment.unknown for moment in again} == {True, False}


def test_the_frames_are_those_of_the_sampling_formula(long_video):
    with Stream(find_source(str(long_video))) as stream:
        clips = list(stream.windows(windows(0.8, 0.4), [64, 32]))
    for k, clip in enumerate(clips):
        taken = 10 * k + frame_indices(20, samples=4)
        assert numbers(clip) == taken.tolist()
        assert decode_frames(clip.jpegs[32]).shape[2] == 32


def test_frames_that_stay_on_display_are_taken_again(tmp_path):
    times = [0, 40, 80, 700, 1500, 1540]
    video = write_video(tmp_path / "pauses.mkv", 6, width=80, height=64, pts=times)
    with Stream(find_source(str(video))) as stream:
        (clip,) = stream.windows(windows(1.5, 1.5), [64])
    assert numbers(clip) == [2, 2, 3, 3]  # at 0.3, 0.6, 0.9 and 1.2 s


def test_a_frame_on_display_for_longer_than_a_short_window_is_no_gap(tmp_path):
    """One stays for 0.3 s, where 0.04 s are usual."""
    times = [40 * k + (260 if k >= 10 else 0) for k in range(30)]
    video = write_video(tmp_path / "stays.mkv", 30, width=80, height=64, pts=times)
    with Stream(find_source(str(video))) as stream:
        clips = list(stream.windows(windows(0.2, 0.2, 1), [64]))
    assert [clip.start for clip in clips] == pytest.approx([0.2 * k for k in range(7)])
    assert [numbers(clip)[0] for clip in clips][:3] == [2, 7, 9]


def test_the_length_of_a_window_is_that_of_the_clips_trained_on(run, long_video, cache_folder):
    # clips of 6 to 10 frames at 25 a second; 4 samples tell their length to a frame or so
    assert 6 / 25 <= json.loads((run / "run.json").read_text())["clip_seconds"] <= 11 / 25
    with Watch(str(long_video), run=run) as watching:
        assert watching.seconds == json.loads((run / "run.json").read_text())["clip_seconds"]
        assert watching.every == pytest.approx(watching.seconds * 2 / 5)  # T = 4: a window's samples are fifths apart


def test_without_times_the_length_must_be_given(run, tmp_path, long_video):
    train_head(out=tmp_path / "toy", features=toy(tmp_path / "toy.h5"), variant="mean", epochs=1)
    assert json.loads((tmp_path / "toy" / "run.json").read_text())["clip_seconds"] is None
    shutil.copytree(run, tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(settings | {"clip_seconds": None}))
    with pytest.raises(UsageError, match="does not say how long its training clips were: give --seconds"):
        Watch(str(long_video), run=tmp_path / "run")
    with Watch(str(long_video), run=tmp_path / "run", seconds=0.8, every=0.4) as watching:
        assert watching.seconds == 0.8


def test_a_live_stream_loses_what_comes_too_fast_and_a_file_nothing(run, long_video, monkeypatch):
    answer = watcher.Recogniser.__call__

    def slow(self, *args, **settings):
        time.sleep(0.1)
        return answer(self, *args, **settings)

    monkeypatch.setattr(watcher.Recogniser, "__call__", slow)
    settings = {"seconds": 0.4, "every": 0.08}
    everything = look(long_video, run, **settings)
    assert [m.skipped for m in everything] == [0] * 26
    assert {m.to_dict()["model"] for m in everything} == {Recogniser(run).model}
    live = look(long_video, run, live=True, **settings)
    assert len(live) < 26
    assert len(live) + sum(m.skipped for m in live) == 26
    assert live[-1].start == everything[-1].start  # the newest is answered
    skipped = np.cumsum([m.skipped for m in live])
    assert [m.start for m in live] == pytest.approx([0.08 * (k + before) for k, before in enumerate(skipped)])
    monkeypatch.setattr(Stream, "in_segments", True)  # seconds come at once, and then nothing for as long
    assert [m.skipped for m in look(long_video, run, live=True, **settings)] == [0] * 26


@pytest.mark.parametrize("error", [None, VideoError("lost")])
def test_the_end_of_a_live_stream_pushes_no_window_out(run, long_video, monkeypatch, error):
    read, found = Stream.windows, []

    def windows(self, *args, **more):
        yield from read(self, *args, **more)
        if error is not None:
            raise error

    monkeypatch.setattr(Stream, "windows", windows)
    with Watch(str(long_video), run=run, live=True, seconds=0.4, every=0.08) as watching:
        while watching.skipped < 26 - 2:  # two wait to be answered, and nobody asks for them
            time.sleep(0.01)
        time.sleep(0.3)
        with contextlib.nullcontext() if error is None else pytest.raises(VideoError, match="lost"):
            found.extend(watching)
    assert len(found) == 2


@pytest.mark.parametrize("pause", [60, 72_000])
def test_a_pause_in_the_times_is_not_looked_at(tmp_path, run, pause):
    times = [40 * k + (1000 * pause if k >= 30 else 0) for k in range(60)]  # ms; 30 frames, a pause, 30 frames
    video = write_video(tmp_path / "pause.mkv", 60, width=80, height=64, pts=times)
    with Stream(find_source(str(video))) as stream:
        clips = list(stream.windows(windows(0.8, 0.4), [64]))
    assert [clip.start for clip in clips] == pytest.approx([0, 0.4, pause + 1.2, pause + 1.6])
    assert [numbers(clip) for clip in clips] == [
        [4, 8, 12, 16],  # at 0.16, 0.32, 0.48 and 0.64 s of the window
        [14, 18, 22, 26],
        [30 + k for k in (4, 8, 12, 16)],
        [30 + k for k in (14, 18, 22, 26)],
    ]
    segments = module.watch(str(video), run=run, seconds=0.8, every=0.4).segments
    assert segments[-1].start >= pause
    assert max(s.end for s in segments if s.start < 2) <= 1.2


def test_a_stream_from_the_network_is_watched(run, tmp_path):
    video = write_video(tmp_path / "sent.ts", 60, width=80, height=64)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send():
            connection, _ = server.accept()
            with connection:
                connection.sendall(video.read_bytes())

        sender = threading.Thread(target=send)
        sender.start()
        source = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        assert find_source(source).live
        found = look(source, run, seconds=0.8, every=0.8, live=False)
        sender.join()
    assert [m.start for m in found] == pytest.approx([0.0, 0.8, 1.6])


class Endless(http.server.SimpleHTTPRequestHandler):
    """Sends files without saying how large they are."""

    def send_header(self, name, value):
        if name != "Content-Length":
            super().send_header(name, value)


@pytest.mark.parametrize(("lasts", "large", "live"), [(False, False, True), (False, True, False), (True, False, False)])
def test_of_addresses_those_without_an_end_are_live(run, tmp_path, lasts, large, live):
    """A camera or broadcast over HTTP says neither how long nor how large it is; a video that lies on a server does."""
    whole = write_video(tmp_path / "whole.mkv", 60, width=80, height=64)
    remux(whole, tmp_path / "v.mkv", options={} if lasts else {"live": "1"})
    kind = http.server.SimpleHTTPRequestHandler if large else Endless
    handler = functools.partial(kind, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            source = f"http://127.0.0.1:{server.server_port}/v.mkv"
            for asked, expected in ((None, live), (not live, not live)):
                with module.Watch(source, run=run, seconds=0.8, every=0.4, live=asked) as found:
                    next(iter(found))
                    assert found.live is expected
        finally:
            server.shutdown()


class Untimed(http.server.BaseHTTPRequestHandler):
    """A camera that sends pictures as they are, as many do."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        for number in range(16):
            Image.fromarray(frame_image(number, 80, 64)).save(data := io.BytesIO(), "JPEG", quality=95)
            jpeg = data.getvalue()
            self.wfile.write(b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg))
            self.wfile.write(jpeg + b"\r\n")

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(("live", "shown"), [(True, [1, 3, 4, 6]), (False, [])])
def test_of_a_live_camera_that_tells_no_times_those_of_arrival_count(monkeypatch, live, shown):
    """Sixteen pictures, ten a second; FFmpeg makes up 25, by which they do not fill a window of 0.8 s."""
    ticks = itertools.count(10**12, 10**8)
    monkeypatch.setattr(streaming.time, "monotonic_ns", lambda: next(ticks))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Untimed) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            with Stream(find_source(f"http://127.0.0.1:{server.server_port}/video")) as stream:
                assert stream.endless
                kept: list[int] = []
                with contextlib.suppress(VideoError):  # as it breaks off in front of a boundary
                    kept += numbers(next(stream.windows(windows(0.8, 0.8), [64], live=live)))
        finally:
            server.shutdown()
    assert kept == shown


@pytest.mark.parametrize(("timed", "ending"), [((), "avi"), ((0, 20, 40), "ts")])  # whose clock begins later than 0
def test_frames_of_a_file_without_times_come_at_its_rate(tmp_path, monkeypatch, timed, ending):
    video = write_video(tmp_path / f"v.{ending}", 60, width=80, height=64)
    read = Stream._frames

    def untimed(self):
        for number, frame in enumerate(read(self)):
            frame.pts = frame.pts if number in timed else None
            yield frame

    monkeypatch.setattr(Stream, "_frames", untimed)
    with Stream(find_source(str(video))) as stream:
        assert [clip.end for clip in stream.windows(windows(0.8, 0.8), [64])] == pytest.approx([0.8, 1.6, 2.4])


def test_one_time_far_ahead_moves_no_other(long_video, monkeypatch):
    read = Stream._frames

    def frames(self):
        for number, frame in enumerate(read(self)):
            frame.pts += (number == 20) * round(36_000 / frame.time_base)  # ten hours, as one damaged packet has
            yield frame

    monkeypatch.setattr(Stream, "_frames", frames)
    with Stream(find_source(str(long_video))) as stream:
        found = list(stream.windows(windows(0.8, 0.8), [64]))
        assert stream.damaged == 1
    assert [clip.end for clip in found] == pytest.approx([0.8, 1.6, 2.4])


class Segments(http.server.SimpleHTTPRequestHandler):
    """Serves ``live.m3u8`` too: that of ``list.m3u8`` as it grows, two segments at first and the last at the end."""

    asked = 0

    def do_GET(self):
        if self.path != "/live.m3u8":
            super().do_GET()
            return
        lines = Path(self.directory, "list.m3u8").read_text().splitlines(keepends=True)
        segments = [i for i, line in enumerate(lines) if line.startswith("#EXTINF")]
        assert len(segments) == 3
        data = "".join(lines if type(self).asked else lines[: segments[2]]).encode()
        type(self).asked += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(("name", "endless"), [("list", False), ("live", True)])
def test_a_list_of_segments_is_watched_and_endless_while_it_grows(run, tmp_path, monkeypatch, name, endless):
    whole = write_video(tmp_path / "whole.mp4", 60, width=80, height=64, codec="libx264", options={"g": "20"})
    remux(whole, tmp_path / "list.m3u8", options={"hls_time": "0.8", "hls_list_size": "0"})
    monkeypatch.setattr(Segments, "asked", 0)
    handler = functools.partial(Segments, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            source = f"http://127.0.0.1:{server.server_port}/{name}.m3u8"
            with Stream(find_source(source)) as stream:
                assert (stream.endless, stream.in_segments) == (endless, True)
                found = list(stream.windows(windows(0.8, 0.8), [64]))
        finally:
            server.shutdown()
    assert [numbers(clip) for clip in found] == [[4 + k, 8 + k, 12 + k, 16 + k] for k in (0, 20, 40)]
    assert Segments.asked == 2 * endless


def test_stopped_before_the_first_answer_it_is_no_success(run, long_video, monkeypatch):
    def stopped(self):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(module.Watch, "__iter__", stopped)
    with pytest.raises(KeyboardInterrupt):
        module.watch(str(long_video), run=run)


def test_a_network_that_is_silent_is_given_up(run, monkeypatch):
    monkeypatch.setattr(streaming, "SILENCE", (0.3, 0.3))
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(VideoError, match=r"^tcp://127.0.0.1:\d+ sent nothing for 0\.3 s$"):
            look(source, run, seconds=1)


def test_silence_that_a_protocol_takes_for_the_end_is_told(run, long_video, monkeypatch):
    monkeypatch.setattr(streaming, "SILENCE", (10.0, 0.3))

    class Quiet:
        def demux(self):
            *packets, last = opened.demux()
            yield from packets
            time.sleep(0.3)
            yield last

        def __getattr__(self, name):
            return getattr(opened, name)

    with Stream(find_source(str(long_video))) as stream:
        opened = stream._container
        stream._container, stream._remote = Quiet(), True
        with pytest.raises(VideoError, match=r"sent nothing for 0\.3 s"):
            list(stream.windows(windows(0.8, 0.8), [64]))


def test_sources(monkeypatch, tmp_path):
    monkeypatch.setattr(streaming.sys, "platform", "linux")
    assert find_source("camera") == streaming.Source("/dev/video0", "v4l2", live=True)
    assert find_source("camera:2").name == "/dev/video2"
    monkeypatch.setattr(streaming.sys, "platform", "darwin")
    assert find_source("camera:1").format == "avfoundation"
    monkeypatch.setattr(streaming.sys, "platform", "freebsd14")
    with pytest.raises(UsageError, match="give --format and FFmpeg"):
        find_source("camera")
    assert find_source("video=Cam", format="v4l2") == streaming.Source("video=Cam", "v4l2", live=True)
    assert find_source("rtsp://host/1").live
    assert find_source("RTSP://host/1").live
    assert not find_source("https://host/a.mp4").live
    with pytest.raises(UsageError, match=r"no such file.*Expected a video, camera"):
        find_source(str(tmp_path / "none.mp4"))


def test_a_name_with_a_colon_is_that_of_a_file(tmp_path, monkeypatch):
    write_video(tmp_path / "concat:1.avi", 30, **LOSSLESS)
    monkeypatch.chdir(tmp_path)
    with Stream(find_source("concat:1.avi")) as stream:
        assert len(list(stream.windows(windows(0.8, 0.8), [64]))) == 1


def test_what_cannot_be_watched_is_told(run, long_video, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    seldom = write_video(tmp_path / "seldom.mkv", 32, width=80, height=64, pts=[0, 20, *range(40, 60_000, 2000)])
    for source, reason, settings in (
        (text, "cannot be opened", {}),
        (long_video, r"ends after 2.4 s, before a window of 9 s is full: give fewer --seconds", {"seconds": 9}),
        (seldom, r"ends after 58.\d s, before a window of 1 s is full: it has gaps or .*give other", {"seconds": 1}),
    ):
        with pytest.raises(VideoError, match=reason):
            look(source, run, **settings)
    for settings in ({"seconds": 0}, {"every": -1}, {"seconds": float("nan")}, {"every": 1e-9}):
        with pytest.raises(UsageError, match=r"expected 0.05 to 3600 seconds"):
            Watch(str(long_video), run=tmp_path / "none", **settings)  # before it is opened


@pytest.fixture
def jumbled(long_video, monkeypatch):
    """``jumbled(shifts, seconds)``: windows of the long video with each frame's time moved by so many frames."""
    read = Stream._frames

    def clips(shifts, seconds):
        def frames(self):
            for number, frame in enumerate(read(self)):
                frame.pts += shifts.get(number, 0)
                yield frame

        monkeypatch.setattr(Stream, "_frames", frames)
        with Stream(find_source(str(long_video))) as stream:
            return list(stream.windows(windows(seconds, seconds), [64])), stream.damaged

    return clips


SELDOM = dict.fromkeys(range(5, 60, 3), -1)  # 19 over the whole video
TWICE = dict.fromkeys(range(30, 39), -30) | dict.fromkeys(range(39, 48), -39)  # 18, but never 17 in a row


@pytest.mark.parametrize("shifts", [{8: -1}, {8: -5}, {8: -5, 40: -40}, {50: -40, 52: -40}, TWICE, SELDOM])
def test_frames_that_come_late_are_left_out(jumbled, shifts):
    """However late, or with the time of the one before: after a dropout a decoder still holds some from before it."""
    found, damaged = jumbled(shifts, 0.8)
    assert damaged == len(shifts)
    assert len(found) == 3
    assert numbers(found[0]) == [4, 7 if 8 in shifts else 8, 12, 16]  # the frame before stays on display


def test_frames_that_do_not_decode_are_counted(tmp_path):
    path = damage(write_video(tmp_path / "v.mkv", 60, gop=12), 30, 31)
    with Stream(find_source(str(path))) as stream:
        list(stream.windows(windows(0.8, 0.8), [64]))
        assert stream.damaged == 2


def test_damage_is_told_while_it_goes_on(run, tmp_path, monkeypatch):
    path = damage(write_video(tmp_path / "v.mkv", 60, gop=12), 30, 31)
    read, seen = Stream.windows, threading.Event()

    def windows(self, *args, **more):
        found = read(self, *args, **more)
        yield from itertools.islice(found, 2)
        assert seen.wait(60)
        yield from found

    monkeypatch.setattr(Stream, "windows", windows)
    with Watch(str(path), run=run, seconds=0.8, every=0.8) as watching:
        moments = iter(watching)
        next(moments), next(moments)
        told = watching.damaged
        seen.set()
        assert len(list(moments)) == 1
    assert told == 2


def test_where_the_clock_is_set_back_time_goes_on_and_no_window_looks_across(jumbled):
    """Two recordings in one file: seventeen frames of the second tell, and count as time."""
    found, damaged = jumbled(dict.fromkeys(range(30, 60), -30), 0.4)
    assert damaged == 17 - 1
    assert [clip.start for clip in found] == pytest.approx([0.0, 0.4, 0.8, 2.0])
    assert numbers(found[2]) == [22, 24, 26, 28]
    assert numbers(found[3]) == [52, 54, 56, 58]


def test_times_of_a_file_that_is_cut_off_in_front_are_those_that_its_parts_go_by(tmp_path):
    """Until its first key frame nothing decodes; a table of segments is a manifest for ``extract``."""
    whole = write_video(tmp_path / "whole.ts", 90, gop=30)
    path = remux(whole, tmp_path / "cut.ts", keep=lambda number: number >= 5)
    with Stream(find_source(str(path))) as stream:
        found = list(stream.windows(windows(0.4, 0.4), [64]))
        assert stream.offset == 0  # a player's time begins there too, where the file's clock says 1.4 s or more
    assert [clip.start for clip in found] == pytest.approx([1.2, 1.6, 2.0, 2.4, 2.8])  # frame 30 is the first
    for clip in found:
        part = Span(start=clip.start, end=clip.end)
        same = read_frames(path, sampler=lambda n: frame_indices(n, samples=4), short_side=64, span=part)
        assert numbers(clip) == [read_number(frame) for frame in same.frames]
    with (
        Stream(find_source(str(path))) as stream,
        pytest.raises(VideoError, match=r"ends after 3.4 s, before a window of 3 s is full: give fewer --seconds"),
    ):
        list(stream.windows(windows(3, 3), [64]))


def test_times_of_a_file_whose_beginning_is_hidden_count_from_what_a_player_shows_first(tmp_path):
    """As where a cut begins between key frames: an edit list hides what is only needed for decoding."""
    whole = write_video(tmp_path / "whole.mp4", 60, gop=30)
    path = remux(whole, tmp_path / "cut.mp4", earlier=10 * 512)  # a frame lasts for 512 / 12,800 s
    with Stream(find_source(str(path))) as stream:
        found = list(stream.windows(windows(0.4, 0.4), [64]))
    assert [clip.start for clip in found] == pytest.approx([0.0, 0.4, 0.8, 1.2, 1.6])
    assert numbers(found[0]) == [12, 14, 16, 18]
    part = read_frames(path, sampler=lambda n: frame_indices(n, samples=4), short_side=64, span=Span(start=0, end=0.4))
    assert [read_number(frame) for frame in part.frames] == [12, 14, 16, 18]


@pytest.mark.parametrize(
    ("name", "settings", "shape"),
    [
        ("larger.avi", LOSSLESS | {"width": 160, "height": 96}, (64, 107)),
        ("turned.mp4", {"width": 64, "height": 80, "rotation": 90}, (80, 64)),  # 80 x 64 pixels, as before
    ],
)
def test_no_window_looks_across_a_change_of_the_pictures_size(long_video, tmp_path, monkeypatch, name, settings, shape):
    read, other_video = Stream._frames, write_video(tmp_path / name, 60, **settings)

    def frames(self):
        yield from read(self)
        with Stream(find_source(str(other_video))) as other:
            for number, frame in enumerate(read(other), start=60):
                frame.pts, frame.time_base = number, Fraction(1, 25)
                yield frame

    monkeypatch.setattr(Stream, "_frames", frames)
    with Stream(find_source(str(long_video))) as stream:
        found = list(stream.windows(windows(1.0, 0.5), [64]))
    assert [clip.start for clip in found] == pytest.approx([0, 0.5, 1, 1.5, 2.5, 3, 3.5])
    shapes = [tuple(decode_frames(clip.jpegs[64]).shape[2:]) for clip in found]
    assert shapes == [(64, 80)] * 4 + [shape] * 3


def test_a_table_is_written_of_a_video_whose_name_is_no_text(tmp_path):
    video = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.avi"))
    video.touch()
    segment = Segment(start=0, end=1, label="\u00dcbung", probability=1, windows=1)
    write_table([segment], tmp_path / "t.csv", video=video)
    read = find_clips(tmp_path / "t.csv").clips
    assert [(clip.clip_id, clip.label) for clip in read] == [(r"a\xff.avi#t=0,1", "\u00dcbung")]
    assert (tmp_path / "t.csv").read_bytes().startswith(b"\xef\xbb\xbf")  # else Excel takes the label for another


def test_a_pipe_is_not_opened_again_at_its_end(long_video, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(long_video.read_bytes()))
    writer.start()
    with Stream(find_source(str(tmp_path / "pipe"))) as stream:
        assert len(list(stream.windows(windows(0.8, 0.8), [64]))) == 3
    writer.join()


def test_an_mp4_file_through_a_pipe_that_has_its_index_behind_is_told_what_helps(tmp_path):
    video = write_video(tmp_path / "v.mp4", 2000, width=64, height=64)  # too much to be found in what is read at first
    os.mkfifo(tmp_path / "pipe")

    def write():
        with contextlib.suppress(BrokenPipeError):
            (tmp_path / "pipe").write_bytes(video.read_bytes())

    writer = threading.Thread(target=write)
    writer.start()
    told = r"pipe cannot be .*an MP4 file needs its index in front \(-movflags faststart\)"
    with pytest.raises(VideoError, match=told), Stream(find_source(str(tmp_path / "pipe"))) as stream:
        list(stream.windows(windows(0.8, 0.8), [64]))
    writer.join()


def test_a_disk_that_is_away_for_a_while_ends_no_watch(run, long_video, tmp_path, monkeypatch):
    failed = []

    def fails_once(*given, **named):
        if not failed:
            failed.append(True)
            raise StoreError("the drive is away")
        return write_table(*given, **named)

    monkeypatch.setattr("fitrec_cache.live.timeline_files.write_table", fails_once)
    monkeypatch.setattr(module, "_SAVE_SECONDS", 0.0)
    assert module.watch(str(long_video), run=run, seconds=0.8, every=0.4, table=tmp_path / "t.csv").windows == 5
    assert failed
    assert (tmp_path / "t.csv").exists()


@pytest.mark.parametrize("ending", [".avi", ".mkv"])
def test_a_file_that_ends_early_is_said_to(run, tmp_path, ending):
    whole = write_video(tmp_path / f"whole{ending}", 100, **LOSSLESS)
    cut = tmp_path / f"cut{ending}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert module.watch(str(whole), run=run, seconds=0.8, every=0.4).missing == pytest.approx(0, abs=0.05)
    report = module.watch(str(cut), run=run, seconds=0.8, every=0.4)
    assert report.segments
    assert report.missing == pytest.approx(2, abs=0.4)
    assert f"ends {report.missing:.1f} s before its header says" in watch_text(report)


def with_sound(path, *, seconds, first):
    """Write 50 numbered frames, 2 s from the frame time ``first`` on, beside so many seconds of sound from 0 on."""
    with av.open(str(path), "w") as container:
        sound, pictures = _audio_stream(container, "aac"), _video_stream(container, "libx264", 25, (80, 64))
        container.start_encoding()
        _encode_tone(container, sound, seconds)
        _encode(container, pictures, (frame_image(k, 80, 64) for k in range(50)), range(first, first + 50))
    return path


def test_of_a_whole_file_nothing_is_missing_where_the_sound_lasts_longer(tmp_path):
    with Stream(find_source(str(with_sound(tmp_path / "v.mkv", seconds=6, first=0)))) as stream:
        assert len(list(stream.windows(windows(0.8, 0.8), [64]))) == 2
    assert stream.missing == 0


def test_subtitles_are_for_the_file_where_the_sound_begins_first(run, tmp_path):
    video = with_sound(tmp_path / "v.mkv", seconds=4, first=50)
    report = module.watch(str(video), run=run, seconds=0.8, every=0.4, subtitles=tmp_path / "v.srt")
    assert report.segments[0].start == 0
    assert (tmp_path / "v.srt").read_text().startswith("1\n00:00:02,0")


def test_what_was_answered_before_an_error_is_shown_and_written(run, long_video, tmp_path, monkeypatch):
    read = Stream._frames

    def frames(self):
        for number, frame in enumerate(read(self)):
            if number == 45:
                raise VideoError("the network is gone")
            yield frame

    monkeypatch.setattr(Stream, "_frames", frames)
    result = call(long_video, "--run", run, "--seconds", 0.8, "--every", 0.4, "--table", tmp_path / "t.csv")
    assert isinstance(result.exception, FitrecError)
    assert str(result.exception) == "the network is gone"
    assert "0:00:00.0 to " in result.output
    assert f"written: {tmp_path / 't.csv'}" in result.output
    assert (tmp_path / "t.csv").stat().st_size


def test_tables_are_written_while_it_goes_on_and_answers_only_kept_for_a_picture(
    run, long_video, tmp_path, monkeypatch
):
    kept = []

    class Ending(Timeline):
        def add(self, moment):
            kept.append(len(self.moments))
            return super().add(moment)

    monkeypatch.setattr(module, "Timeline", Ending)
    monkeypatch.setattr(module, "_SAVE_SECONDS", 0.0)
    there = []
    settings = {"run": run, "seconds": 0.8, "table": tmp_path / "t.csv"}
    report = module.watch(str(long_video), tell=lambda *_: there.append((tmp_path / "t.csv").exists()), **settings)
    assert all(there)
    assert (len(there), kept) == (report.windows, [0] * report.windows)


def test_what_a_picture_fails_of_loses_no_table(tmp_path, monkeypatch):
    timeline = Timeline()
    timeline.add(moment(0, 4, "Squat", 0.6))
    files = WatchFiles(table=tmp_path / "t.csv", subtitles=tmp_path / "t.srt", picture=tmp_path / "t.png")
    monkeypatch.setitem(sys.modules, "fitrec_cache.live.timeline_picture", None)
    with pytest.raises(ImportError):
        files.write(timeline, title="")
    assert (tmp_path / "t.csv").exists()
    assert (tmp_path / "t.srt").exists()


def test_a_reader_that_dies_is_noticed(run, long_video, monkeypatch):
    monkeypatch.setattr(module.Watch, "_read", lambda *_: None)
    with pytest.raises(FitrecError, match="reading ended"):
        look(long_video, run)


def moment(start, end, label, probability, *, unknown=False):
    return Moment(start=start, end=end, top=((label, probability), ("Other", 0.1)), unknown=unknown, heads=1)


def averaged(moments, windows, *, every=1, **more):
    smoother = Smoother(windows, every=every, **more)
    return [*(given for m in moments for given in smoother.add(m)), *smoother.rest(), *smoother.rest()]


def test_answers_averaged_over_neighbours_by_hand():
    def answer(start, a, **more):
        top = tuple(sorted({"A": a, "B": 1 - a}.items(), key=lambda pair: -pair[1]))
        return Moment(start=start, end=start + 2, top=top, unknown=False, heads=1, **more)

    given = [answer(0, 0.9), answer(1, 0.2), answer(2, 0.7), answer(3, 0.8), answer(7, 0.1, skipped=3), answer(8, 0.3)]
    found = averaged(given, 3)
    assert [(m.start, m.end, m.skipped) for m in found] == [(m.start, m.end, m.skipped) for m in given]
    assert [dict(m.top)["A"] for m in found] == pytest.approx([0.55, 0.6, 17 / 30, 0.75, 0.2, 0.2])
    assert [m.top[0][0] for m in found] == ["A", "A", "A", "A", "B", "B"]
    assert [sum(p for _, p in m.top) for m in found] == pytest.approx([1] * 6)
    wide = [dict(m.top)["A"] for m in averaged(given, 5)]
    assert wide == pytest.approx([0.6, 0.65, 0.65, 17 / 30, 0.2, 0.2])
    assert averaged(given, 1) == given
    assert averaged([], 3) == []
    unknown = [replace(m, unknown=i in (1, 2)) for i, m in enumerate(given[:4])]
    assert [m.unknown for m in averaged(unknown, 3)] == [False, True, True, False]
    said = averaged(unknown, 3, unknown_below=0.59)  # of the averages 0.55, 0.6, 17 / 30 and 0.75
    assert [m.unknown for m in said] == [True, False, True, False]


def test_an_answer_has_every_class():
    top = tuple((f"class {k}", 0.1) for k in range(10))
    found = Moment(start=0, end=2, top=top, unknown=False, heads=1).to_dict()
    assert [(each["label"], each["probability"]) for each in found["top"]] == list(top)


def test_windows_that_are_skipped_steadily_are_averaged_all_the_same():
    """One overlaps the next, so nothing between them was not looked at."""
    given = [moment(2 * k, 2 * k + 4, "Squat", 0.2 * k) for k in range(4)]
    assert [m.top[0][1] for m in averaged(given, 3, every=1)] == pytest.approx([0.1, 0.2, 0.4, 0.5])


@pytest.mark.parametrize("ending", [KeyboardInterrupt, VideoError("gone")])
def test_however_it_ends_no_answer_is_held_back(run, long_video, tmp_path, monkeypatch, ending):
    real, seen = watcher.Recogniser.__call__, []

    def answer(self, *args, **settings):
        seen.append(real(self, *args, **settings))
        if len(seen) == 5:
            raise ending
        return seen[-1]

    monkeypatch.setattr(watcher.Recogniser, "__call__", answer)
    settings = {"run": run, "seconds": 0.4, "every": 0.2, "table": tmp_path / "t.csv"}
    told, segments = [], []

    def tell(moment, ended):
        told.append(moment)
        segments.extend([ended] if ended else [])

    report = module.watch(str(long_video), smooth=5, tell=tell, **settings)
    assert report.windows == len(told) == 4
    assert (*segments, report.segments[-1]) == report.segments
    assert report.segments[-1].end == pytest.approx(3 * 0.2 + 0.4)
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert sum(int(row["windows"]) for row in rows) == 4


def test_an_interruption_while_an_answer_is_told_loses_none(run, long_video, tmp_path):
    told = []

    def tell(moment, _):
        told.append(moment)
        if len(told) == 3:
            raise KeyboardInterrupt

    whole = module.watch(str(long_video), run=run, seconds=0.4, every=0.2)
    report = module.watch(str(long_video), run=run, seconds=0.4, every=0.2, smooth=5, tell=tell)
    assert report.windows == 5  # the third can be told when the fifth is answered
    assert len(told) == 5
    assert whole.windows > 5


def test_watching_can_average_and_gives_every_window_once(run, long_video, tmp_path):
    plain, smooth = [], []
    settings = {"run": run, "seconds": 0.4, "every": 0.2}
    module.watch(str(long_video), tell=lambda m, _: plain.append(m), **settings)
    report = module.watch(str(long_video), tell=lambda m, _: smooth.append(m), smooth=3, **settings)
    assert [m.start for m in smooth] == [m.start for m in plain]
    assert report.windows == len(plain) > 5
    for k in range(1, len(plain) - 1):
        for label, probability in smooth[k].top:
            assert probability == pytest.approx(sum(dict(m.top)[label] for m in plain[k - 1 : k + 2]) / 3)
    for windows in (0, 2, -3):
        with pytest.raises(UsageError, match=f"smooth is {windows}: expected an odd number"):
            module.watch(str(long_video), smooth=windows, **settings)


def test_segments_by_hand():
    timeline = Timeline()
    ended = [
        timeline.add(moment(*each))
        for each in ((0, 4, "Squat", 0.6), (2, 6, "Squat", 0.8), (4, 8, "Hop", 0.5), (8, 12, "Hop", 0.7))
    ]
    # middles at 2, 4, 6 and 10 s: the answer changes between 4 and 6
    assert timeline.segments == [
        Segment(start=0, end=5, label="Squat", probability=pytest.approx(0.7), windows=2),
        Segment(start=5, end=12, label="Hop", probability=pytest.approx(0.6), windows=2),
    ]
    assert ended == [None, None, timeline.segments[0], None]
    timeline.add(moment(10, 14, "Hop", 0.2, unknown=True))
    assert [(s.start, s.end, s.text) for s in timeline.segments[1:]] == [(5, 11, "Hop 60%"), (11, 14, "unknown")]


def test_the_probability_of_a_segment_is_the_mean_of_its_windows():
    timeline = Timeline()
    for k, probability in enumerate((0.3, 0.6, 0.9)):
        timeline.add(moment(k, k + 2, "Squat", probability))
    assert timeline.segments[0].probability == pytest.approx(0.6)


def test_what_nobody_looked_at_is_in_no_segment():
    timeline = Timeline(every=2)
    ended = [timeline.add(moment(start, start + 4, "Squat", 0.5)) for start in (0, 2, 10)]
    assert [(s.start, s.end, s.windows) for s in timeline.segments] == [(0, 6, 2), (10, 14, 1)]
    assert ended == [None, None, timeline.segments[0]]


@pytest.mark.parametrize(
    ("every", "starts", "length"),
    [
        (5, (0, 5, 10), 4),  # further apart than long, as was asked for
        (0.7, (0.0, 0.7, 1.4, 2.1), 0.5),  # no exact binary numbers: 2.1 - 1.4 is a little more
        (2, (0, 4), 4),  # one was skipped, yet what it showed is in these two
    ],
)
def test_windows_between_which_nothing_was_missed_are_one_segment(every, starts, length):
    timeline = Timeline(every=every)
    for start in starts:
        timeline.add(moment(start, start + length, "Squat", 0.5))
    assert [(s.start, s.end, s.windows) for s in timeline.segments] == [(0, starts[-1] + length, len(starts))]


def test_of_several_files_one_that_cannot_be_written_costs_none_of_the_others(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    files = WatchFiles(table=gone / "t.csv", subtitles=tmp_path / "t.srt", picture=tmp_path / "t.png")
    none = WatchFiles(table=gone / "t.csv", subtitles=gone / "t.srt", picture=gone / "t.png")
    gone.rmdir()
    timeline = Timeline()
    timeline.add(moment(0, 4, "Squat", 0.6))
    with pytest.raises(StoreError, match=r"t\.csv"):
        files.write(timeline, title="x")
    assert (tmp_path / "t.srt").exists()
    assert (tmp_path / "t.png").exists()
    with pytest.raises(StoreError, match=r"t\.png") as last:
        none.write(timeline, title="x")
    assert [re.search(r"t\.\w+", said)[0] for said in earlier(last.value)] == ["t.csv", "t.srt"]


def test_what_was_answered_is_told_although_a_file_cannot_be_written(run, long_video, tmp_path, monkeypatch):
    def full(*_, **__):
        raise StoreError("cannot write t.csv: No space left on device")

    monkeypatch.setattr("fitrec_cache.live.timeline_files.write_table", full)
    report = module.watch(str(long_video), run=run, seconds=0.8, every=0.4, table=tmp_path / "t.csv")
    assert (report.windows, report.error, report.files) == (5, "", ())
    assert report.unwritten == "cannot write t.csv: No space left on device"
    assert report.segments


def test_passwords_in_addresses_are_not_shown(run):
    with pytest.raises(VideoError, match=r"rtsp://127\.0\.0\.1:1/x cannot be opened") as error:
        look("rtsp://me:secret@127.0.0.1:1/x", run)
    assert "secret" not in str(error.value)
    assert without_password("rtsp://me:secret@camera.local/1") == "rtsp://camera.local/1"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://me:sec/ret@h/1", "rtsp://h/1"),
        ("rtsp://me:sec@ret@h/1", "rtsp://h/1"),
        ("rtsp://h/1?user=me&password=secret", "rtsp://h/1"),
        ("rtsp://me:secret@h/1?token=secret", "rtsp://h/1"),
        ("rtsp://me:sec?ret@h/1", "rtsp://"),  # where each ends cannot be told: nothing is shown
        ("rtsp://h/1?password=sec@ret", "rtsp://"),
        ("a@b/what?.mp4", "a@b/what?.mp4"),  # a file
    ],
)
def test_passwords_with_odd_characters_and_in_queries_are_not_shown(address, shown):
    assert without_password(address) == shown


def test_tables_and_subtitles(tmp_path):
    segments = [
        Segment(start=0, end=5.25, label="Jump, high", probability=0.7),
        Segment(start=5.25, end=3725.5, label=None, probability=0.2),
    ]
    write_table(segments, tmp_path / "t.csv")
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert rows[0] == {
        "start": "0.000",
        "end": "5.250",
        "label": "Jump, high",
        "probability": "0.7000",
        "windows": "1",
    }
    assert rows[1]["label"] == ""
    write_subtitles(segments, tmp_path / "t.srt")
    assert (tmp_path / "t.srt").read_text() == (
        "1\n00:00:00,000 --> 00:00:05,250\nJump, high 70%\n\n2\n00:00:05,250 --> 01:02:05,500\nunknown\n"
    )
    assert clock(3725.5) == "1:02:05.5"


@pytest.mark.parametrize(
    ("offset", "times"), [(0.0, "00:00:00,000 --> 00:00:01,001"), (2.0, "00:00:02,000 --> 00:00:03,001")]
)
def test_subtitles_are_moved_at_both_ends_and_rounded(tmp_path, offset, times):
    """1.001 s are a little less than 1001 ms in binary."""
    write_subtitles([Segment(start=0, end=1.001, label="Hop", probability=0.7)], tmp_path / "t.srt", offset=offset)
    assert (tmp_path / "t.srt").read_text() == f"1\n{times}\nHop 70%\n"


def test_subtitles_and_table_say_the_same_millisecond(tmp_path):
    """3.0035 s are a little less in binary and 4.0045 a little more; 1000 times as many are neither."""
    segments = [Segment(start=3.0035, end=4.0045, label="Hop", probability=0.7)]
    write_table(segments, tmp_path / "t.csv")
    (row,) = csv.DictReader((tmp_path / "t.csv").read_text().splitlines())
    assert (row["start"], row["end"]) == ("3.003", "4.005")
    write_subtitles(segments, tmp_path / "t.srt")
    assert "00:00:03,003 --> 00:00:04,005" in (tmp_path / "t.srt").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "1\n00:00:00,000 --> 00:00:02,000\nNow squat!\n",
        "1\n00:00:00,000 --> 00:00:02,000\nSquat 87%\n\n2\n00:00:02,000 --> 00:00:03,000\nby hand\n",
        "\n\n\n\nnotes\n",
    ],
)
def test_subtitles_of_others_are_not_replaced_and_its_own_are(tmp_path, text):
    path = tmp_path / "training.srt"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"training\.srt exists, and has other subtitles"):
        WatchFiles(subtitles=path)
    assert path.read_text() == text
    for answer in ([moment(0, 2, "Squat", 0.5)], [moment(0, 2, "Squat", 0.1, unknown=True)]):
        timeline = Timeline()
        timeline.add(answer[0])
        write_subtitles(timeline.segments, path)
        WatchFiles(subtitles=path)
    path.write_text("")
    WatchFiles(subtitles=path)


def test_answers_of_unknown_have_a_row_of_their_own(tmp_path):
    timeline = Timeline()
    for k in range(40):
        timeline.add(moment(k, k + 2, f"Class $_{k % 20}$", 0.5, unknown=k == 3))
    timeline_png(timeline.moments, timeline.segments, tmp_path / "t.png", title="odd $name_.mp4")
    timeline = Timeline()
    for k in range(40):
        timeline.add(moment(k, k + 2, f"Class $_{k % 20}$", 0.5))
    timeline_png(timeline.moments, timeline.segments, tmp_path / "known.png", title="odd $name_.mp4")
    with Image.open(tmp_path / "known.png") as known, Image.open(tmp_path / "t.png") as whole:
        assert known.height < whole.height  # without a row that nothing is in


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, instead of files."""
    figures = []
    monkeypatch.setattr("fitrec_cache.live.timeline_picture.save_png", lambda figure, *_, **__: figures.append(figure))
    return figures


@pytest.mark.parametrize(
    ("length", "next_one"), [(2.4, "0:00:00.3"), (4.8, "0:00:00.6"), (5, "0:00:01"), (90, "0:00:20")]
)
def test_each_mark_of_the_picture_has_a_time_of_its_own(drawn, length, next_one):
    timeline_png([moment(0, length, "A", 0.5)], [], "t.png", title="")
    drawn[0].draw_without_rendering()
    times = [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert len(times) == len(set(times)) > 3
    assert times[1] == next_one


def test_the_picture_shades_each_class_by_its_probability_and_outlines_the_answers(drawn):
    timeline = Timeline()
    for start, label in ((0, "A"), (4, "B")):
        timeline.add(moment(start, start + 4, label, 0.5))
    timeline_png(timeline.moments, timeline.segments, "t.png", title="")
    shades, *bars = drawn[0].axes[0].collections
    assert np.reshape(shades.get_array(), (3, 2)).tolist() == [[0.5, 0], [0, 0.5], [0.1, 0.1]]  # A, B and Other
    boxes = [bar.get_paths()[0].get_extents().extents for bar in bars]
    assert np.allclose(boxes, [[0, 0.08, 4, 0.92], [4, 1.08, 8, 1.92]])


def test_below_the_answers_the_picture_has_the_most_probable_of_the_other_classes(drawn):
    answer = Moment(start=0, end=4, top=(("A", 0.5), ("B", 0.1), ("C", 0.4)), unknown=False, heads=1)
    timeline = Timeline()
    timeline.add(answer)
    timeline_png([answer], timeline.segments, "t.png", title="")
    assert [label.get_text() for label in drawn[0].axes[0].get_yticklabels()] == ["A", "C", "B"]


def test_the_picture_shows_what_nobody_looked_at():
    moments = [moment(0, 4, "A", 0.5), moment(2, 6, "A", 0.5), moment(10, 14, "A", 0.5)]
    timeline = Timeline(every=2)
    for each in moments:
        timeline.add(each)
    edges, seen = _columns(moments, timeline.segments)
    assert edges == [0, 3, 6, 10, 14]
    assert seen == [*moments[:2], None, moments[2]]


def call(*words):
    return CliRunner().invoke(app, ["watch", *map(str, words)])


def test_the_command_writes_what_was_asked_for(run, long_video, tmp_path):
    files = [tmp_path / "t.csv", tmp_path / "t.srt", tmp_path / "t.png"]
    files[2].write_text("of before")  # is replaced
    options = ("--table", files[0], "--subtitles", files[1], "--picture", files[2])
    result = call(long_video, "--run", run, "--seconds", 0.8, "--every", 0.4, *options)
    assert result.exit_code == 0, result.output
    assert "5 windows of 0.8 s, one every 0.4 s" in result.output
    assert all(path.stat().st_size for path in files)
    assert not files[2].read_bytes().startswith(b"of before")
    rows = list(csv.DictReader(files[0].read_text().splitlines()))
    assert sum(int(row["windows"]) for row in rows) == 5
    assert (float(rows[0]["start"]), float(rows[-1]["end"])) == (0, pytest.approx(2.4))
    lines = call(long_video, "--run", run, "--seconds", 0.8, "--every", 0.4, "--json").output.splitlines()
    told = [json.loads(line) for line in lines]
    assert [len(each["top"]) for each in told] == [3] * 5
    assert told[1]["start"] == 0.4
    assert "not answered" not in result.output


def test_what_was_skipped_or_damaged_is_told(run, long_video, monkeypatch):
    monkeypatch.setattr(Watch, "skipped", property(lambda _: 3, lambda *_: None), raising=False)
    report = module.watch(str(long_video), run=run, seconds=0.8, every=0.4)
    assert watch_text(replace(report, windows=1, damaged=7, may_be_unknown=True, answer_seconds=0.1)).splitlines()[
        -2:
    ] == [
        "1 window of 0.8 s, one every 0.4 s; 3 skipped, as they came faster than answers",
        "damaged or misplaced frames and packets, left out: 7",
    ]


def test_the_end_that_no_window_reaches_is_told(run, long_video, monkeypatch):
    """Of 2.4 s, windows of 0.5 s each 0.7 s reach 0.5, 1.2 and 1.9 s."""
    report = module.watch(str(long_video), run=run, seconds=0.5, every=0.7)
    assert (report.windows, report.rest) == (3, pytest.approx(0.5))
    with module.Watch(str(long_video), run=run, seconds=0.5, every=0.7) as watching:
        assert (len(list(watching)), watching.expected) == (3, 3)
    bars = []
    monkeypatch.setattr(module, "progress_bar", lambda **given: bars.append(progress_bar(**given)) or bars[-1])
    module.watch(str(long_video), run=run, seconds=0.5, every=0.7)
    assert bars[0].total == 3
    result = call(long_video, "--run", run, "--seconds", 0.5, "--every", 0.7)
    assert "the last 0.5 s are in no window: not answered" in result.output
    result = call(long_video, "--run", run, "--seconds", 0.5, "--every", 0.7, "--json")
    assert [json.loads(line)["start"] for line in result.stdout.splitlines()] == [0, 0.7, 1.4]
    assert "the last 0.5 s are in no window: not answered" in result.stderr


def test_what_lies_between_windows_is_told(run, long_video):
    result = call(long_video, "--run", run, "--seconds", 0.5, "--every", 0.7)
    assert "0.2 s between consecutive windows were not examined" in result.output
    assert "between consecutive windows" not in call(long_video, "--run", run, "--seconds", 0.5, "--every", 0.5).output
    assert "between consecutive windows" not in call(long_video, "--run", run, "--seconds", 0.5, "--every", 9).output


def test_a_folder_is_no_video(run, tmp_path):
    folder = tmp_path / "my clips"
    folder.mkdir()
    with pytest.raises(UsageError, match=f"is a folder: .* `fitrec-cache predict '{folder}' --run RUN`"):
        find_source(str(folder))


def test_ctrl_c_ends_it_and_keeps_what_was_answered(run, long_video, tmp_path, monkeypatch):
    answer, answered = watcher.Recogniser.__call__, []

    def interrupted(self, *args, **settings):
        if len(answered) == 2:
            raise KeyboardInterrupt
        answered.append(answer(self, *args, **settings))
        return answered[-1]

    monkeypatch.setattr(watcher.Recogniser, "__call__", interrupted)
    result = call(long_video, "--run", run, "--seconds", 0.4, "--table", tmp_path / "t.csv")
    assert result.exit_code == 0, result.output
    assert "2 windows of 0.4 s" in result.output
    assert "stopped at 0:00:00.6: what comes after it was not examined" in result.output  # 0.2 s apart
    assert (tmp_path / "t.csv").exists()
    answered.clear()
    assert "stopped at" not in call(long_video, "--run", run, "--seconds", 0.4, "--live").output
    monkeypatch.undo()
    assert "stopped at" not in call(long_video, "--run", run, "--seconds", 0.4).output


def test_files_that_cannot_be_written_are_told_before(run, long_video, tmp_path):
    for option, name, reason in (
        ("--table", "t.txt", r"ends in .csv"),
        ("--picture", "t.jpg", r"ends in .png"),
        ("--subtitles", "none/t.srt", "cannot be written"),
    ):
        result = call(long_video, "--run", run, option, tmp_path / name)
        assert isinstance(result.exception, UsageError)
        assert re.search(reason, str(result.exception))


def test_of_a_file_in_the_home_folder_the_table_is_a_manifest_too(run, long_video, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(long_video.parent))
    module.watch(f"~/{long_video.name}", run=run, seconds=0.8, every=0.4, table=tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().startswith("path,start,end,label")
    module.watch(f"file://{long_video}", run=run, seconds=0.8, every=0.4, table=tmp_path / "u.csv")
    assert (tmp_path / "u.csv").read_text() == (tmp_path / "t.csv").read_text()
    odd = tmp_path / "my \u00fcbung 100%25.avi"
    odd.touch()
    for text in (odd.as_uri(), f"file://{odd}", f"FILE://Localhost{odd}"):
        assert find_source(text).name == str(odd)


def test_what_was_seen_in_a_file_can_be_corrected_and_trained_on(run, tmp_path, weights, inline):
    """The table is a manifest: parts that were named become clips, the unknown ones are left out."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "out").mkdir()
    video = write_video(tmp_path / "videos" / "day.avi", 60, **LOSSLESS)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "deep").mkdir()
    (tmp_path / "deeper").symlink_to(tmp_path / "out" / "deep")
    module.watch(str(video), run=run, seconds=0.4, every=0.2, table=tmp_path / "deeper" / "t.csv")
    assert (tmp_path / "out" / "deep" / "t.csv").read_text().splitlines()[1].startswith("../../videos/day.avi,")
    table = tmp_path / "link" / "t.csv"
    module.watch(str(video), run=run, seconds=0.4, every=0.2, table=table)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {row["path"] for row in rows} == {"../videos/day.avi"}
    with pytest.raises(UsageError, match=r"t\.csv exists, and may hold corrections"):
        module.watch(str(video), run=run, seconds=0.4, every=0.2, table=table)
    lines = ["path,start,end,label,probability,windows", "../videos/day.avi,0.000,1.000,Row,0.9,4"]
    lines += ["../videos/day.avi,1.000,1.600,,0.3,2", "../videos/day.avi,1.600,2.400,Hop,0.8,3"]
    table.write_text("\n".join(lines))
    report = extract(table, cache=tmp_path / "cache", backbone=[weights("test_resnet")], **SMALL)
    assert (report.done, report.failed) == (2, ())
    assert "1 part without a label left out" in report.notes
    clips = {c.label: c for c in Cache(tmp_path / "cache").clips()}
    store = Cache(tmp_path / "cache").frame_stores()[0]
    assert {label: store.row(c.video_sha256)["frame_index"].tolist()[0] // 25 for label, c in clips.items()} == {
        "Row": 0,
        "Hop": 1,
    }
    assert clips["Row"].group == clips["Hop"].group is not None  # of one file
    with pytest.raises(UsageError, match=r"t\.csv exists, and may hold corrections"):
        module.watch(str(video), run=run, seconds=0.4, every=0.2, table=table, live=True)
    table.unlink()
    module.watch(str(video), run=run, seconds=0.4, every=0.2, table=table, live=True)
    assert table.read_text().startswith("start,end,label")  # of what is live there is no file


def test_a_file_that_was_not_written_to_its_end_is_said_to_be_so(run, long_video, tmp_path):
    (tmp_path / "cut.mp4").write_bytes(write_video(tmp_path / "whole.mp4", 20).read_bytes()[:1000])
    with pytest.raises(
        VideoError, match=r"cut\.mp4 cannot be opened: cut off, as the file ends before its header says"
    ):
        module.watch(str(tmp_path / "cut.mp4"), run=run, seconds=0.4)
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 9)
    with pytest.raises(VideoError, match=r"cannot be opened: .*: not a video by its content, of an unsupported kind"):
        module.watch(str(tmp_path / "noise.mp4"), run=run, seconds=0.4)


def test_it_gives_its_answers_once_and_inside(run, long_video):
    watching = Watch(long_video, run=run, seconds=0.8, every=0.4)  # a Path does as well
    with pytest.raises(UsageError, match="answers once, inside `with Watch"):
        list(watching)
    with watching:
        assert len(list(watching)) == 5
        with pytest.raises(UsageError, match="answers once"):
            list(watching)
    with pytest.raises(UsageError, match="entered twice"), watching:
        pass


def test_another_thread_ends_it_while_the_source_is_silent(run, long_video, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    silent = threading.Event()

    def write():
        with (tmp_path / "pipe").open("wb") as pipe:
            pipe.write(long_video.read_bytes())
            silent.wait(50)  # the source stays open, and nothing comes any more

    writer = threading.Thread(target=write)
    writer.start()
    with Watch(tmp_path / "pipe", run=run, seconds=0.8, every=0.8) as watching:
        threading.Timer(2, watching.stop).start()
        assert len(list(watching)) <= 3
    assert writer.is_alive()  # so it was stop() that ended the answers, not the end of the pipe
    silent.set()
    writer.join()


def test_a_watch_of_a_file_that_is_stopped_ends_without_an_error(run, long_video):
    with Watch(long_video, run=run, seconds=0.8, every=0.4) as watching:
        answers = 0
        for _ in watching:
            answers += 1
            watching.stop()
    assert answers == 1


def test_where_telling_an_answer_fails_the_table_has_all_that_were_given(run, long_video, tmp_path):
    told = []

    def tell(moment, _):
        told.append(moment)
        if len(told) == 3:
            raise OverflowError

    table = tmp_path / "t.csv"
    with pytest.raises(OverflowError):
        watch(str(long_video), run=run, seconds=0.4, every=0.2, smooth=5, tell=tell, table=table)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert sum(int(row["windows"]) for row in rows) == 5  # the third is told when the fifth is there
    assert float(rows[-1]["end"]) == pytest.approx(4 * 0.2 + 0.4)


def test_windows_that_were_asked_to_be_apart_are_neighbours(run, long_video):
    """0.5 s each 0.7 s: nobody was to look at what is between, so it is no gap."""
    settings, plain, smooth = {"run": run, "seconds": 0.5, "every": 0.7}, [], []
    module.watch(str(long_video), tell=lambda m, _: plain.append(m), **settings)
    highest = max(m.top[0][1] for m in plain[:2])
    module.watch(str(long_video), smooth=3, unknown_below=highest, tell=lambda m, _: smooth.append(m), **settings)
    for label, probability in smooth[0].top:  # the first has one neighbour
        assert probability == pytest.approx(sum(dict(m.top)[label] for m in plain[:2]) / 2)
    assert smooth[0].top[0][1] < highest
    assert smooth[0].unknown  # by the average; one of the two windows alone is sure enough, so by votes it is not
    report = module.watch(str(long_video), unknown_below=1.0, **settings)  # all "unknown": one segment
    assert [(s.start, s.end, s.windows) for s in report.segments] == [(0, pytest.approx(1.9), 3)]


@pytest.fixture
def taken(monkeypatch):
    """The numbers of the frames in each window that is answered."""
    found, answer = [], watcher.Recogniser.__call__

    def answered(self, jpegs, **more):
        found.append(numbers(SimpleNamespace(jpegs=jpegs), self.short_sides[0]))
        return answer(self, jpegs, **more)

    monkeypatch.setattr(watcher.Recogniser, "__call__", answered)
    return found


def push(live, numbers, *, at=0.0, size=(160, 128), rate=25):
    return [m for n in numbers for m in live.add(frame_image(n, *size), at + n / rate)]


@pytest.mark.parametrize("origin", [0.0, 12345.678, 1_700_000_000.0])
@pytest.mark.parametrize("rate", [24, 25, 30])
def test_frames_given_one_by_one_are_answered_as_those_of_a_file(run, tmp_path, taken, origin, rate):
    """Their times are floats, a little beside those of the file, and of the samples."""
    video = write_video(tmp_path / "v.avi", 3 * rate, **LOSSLESS | {"fps": rate})
    expected = look(video, run, seconds=1.0, every=0.4)
    of_file = taken.copy()
    taken.clear()
    live = FrameWatch(run, seconds=1.0, every=0.4)
    assert (live.seconds, live.every, live.labels) == (1.0, 0.4, ["Hop", "Lunge", "Squat"])
    for least in (None, 0.9):
        for each in (FrameWatch(run, unknown_below=least), Watch(str(video), run=run, unknown_below=least)):
            assert (each.labels, each.may_be_unknown) == (live.labels, least is not None)
    found = push(live, range(3 * rate + 1), at=origin, rate=rate)
    assert taken == of_file
    assert len(found) == 6
    assert [m.start for m in found] == pytest.approx([m.start for m in expected])
    assert [m.end for m in found] == pytest.approx([m.end for m in expected])
    for one, other in zip(found, expected, strict=True):  # colours differ a little: the file's are not RGB
        assert dict(one.top) == pytest.approx(dict(other.top), abs=0.02)
        assert 0 < one.delay < 60
    assert found[0].to_dict().keys() == {
        "label",
        "start",
        "end",
        "top",
        "unknown",
        "heads",
        "skipped",
        "delay",
        "model",
    }


def test_several_watches_share_one_recogniser(run, tmp_path, taken):
    """A server answers many cameras with one model; each keeps its own windows, although they come in turns."""
    alone = push(FrameWatch(run, seconds=0.8, every=0.4), range(40))
    recogniser = Recogniser(run)
    one, other = (FrameWatch(recogniser, seconds=0.8, every=0.4) for _ in range(2))
    found = []
    for n in range(40):
        found += push(one, [n])
        push(other, [n + 7], at=100)
    assert [(m.start, m.top) for m in found] == [(m.start, m.top) for m in alone]
    video = write_video(tmp_path / "v.avi", 40, **LOSSLESS)
    with Watch(str(video), run=recogniser, seconds=0.8) as watching:
        shared = list(watching)
    assert [m.top for m in shared] == [m.top for m in look(video, run, seconds=0.8)]
    with pytest.raises(UsageError, match="run is a Recogniser: give backbone, unknown_below, device and force to"):
        FrameWatch(recogniser, unknown_below=0.5)
    with pytest.raises(UsageError, match="run is 5: expected a path"):
        FrameWatch(5)


def test_slow_frames_are_no_gaps_from_the_second_on(run, taken):
    """One a second, for windows of 0.8 s; at first more, as a program does that finds answers too slow."""
    live = FrameWatch(run, seconds=0.8, every=0.8)
    assert push(live, range(10), rate=100) == []
    assert [m.start for m in push(live, range(1, 7), rate=1)] == pytest.approx([1.6 + 0.8 * k for k in range(5)])
    assert push(FrameWatch(run, seconds=0.8, every=0.8), range(3), rate=0.15) != []


def test_after_a_gap_a_longer_one_is_a_gap_too(run, taken):
    """A minute of nothing, one frame, and nothing for less than ten minutes: nobody knows what happened meanwhile."""
    live = FrameWatch(run, seconds=0.8, every=0.4)
    push(live, range(30))
    assert live.add(frame_image(30, 160, 128), 60.0) == []
    assert len(live.add(frame_image(31, 160, 128), 500.0)) == 1  # the one frame counts for a window at most


def test_before_a_gap_the_last_frame_counts_for_a_step(run, taken):
    """At 5 a second, the samples of a window of 0.8 s are at 0.16, 0.32, 0.48 and 0.64 s."""
    live = FrameWatch(run, seconds=0.8, every=0.4)
    assert push(live, range(4), rate=5) == []
    (moment,) = live.add(frame_image(9, 160, 128), 100.0)
    assert (moment.start, taken) == (0, [[0, 1, 2, 3]])


def test_a_window_without_one_of_its_frames_is_not_answered(run, taken, monkeypatch):
    def fails(*_):
        raise OSError("no")

    live = FrameWatch(run, seconds=0.8, every=0.4)
    push(live, range(3))
    with monkeypatch.context() as patch:
        patch.setattr(FrameWatch, "_encode", fails)
        with pytest.raises(OSError, match="no"):
            push(live, range(3, 8))
    assert [m.start for m in push(live, range(8, 40))] == pytest.approx([0.4, 0.8])
    assert min(taken[0]) >= 10


def test_the_delay_counts_from_a_windows_last_frame(run, monkeypatch):
    """A frame a second completes four windows, which are answered one after the other."""
    answer = watcher.Recogniser.__call__
    monkeypatch.setattr(
        watcher.Recogniser, "__call__", lambda *given, **more: (time.sleep(0.1), answer(*given, **more))[1]
    )
    found = push(FrameWatch(run, seconds=1.0, every=0.25), range(3), rate=1)
    delays = [m.delay for m in found[1:4]]  # the first one was complete before
    assert [later - earlier > 0.09 for earlier, later in itertools.pairwise(delays)] == [True, True]


@pytest.mark.parametrize("broken_by", ["a gap", "another size"])
def test_no_window_spans_what_breaks_frames_given_one_by_one(run, taken, broken_by):
    live = FrameWatch(run, seconds=0.8, every=0.4)
    first = push(live, range(30))
    gap, size = (10.0, (160, 128)) if broken_by == "a gap" else (0.0, (320, 256))
    second = push(live, range(30, 60), at=gap, size=size)
    assert [m.start for m in first] == pytest.approx([0, 0.4])
    assert [m.start for m in second] == pytest.approx([gap + 1.2, gap + 1.6])  # full with the samples at 2.24 s
    assert [min(numbers) >= 30 for numbers in taken] == [False, False, True, True]


@pytest.mark.parametrize(
    ("picture", "got"),
    [
        (np.zeros((4, 4), np.uint8), r"uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \(4, 4, 4\)"),
        (np.zeros((4, 4, 3)), r"float64 \(4, 4, 3\)"),
        (np.zeros((1, 70_000, 3), np.uint8), r"uint8 \(1, 70000, 3\)"),
        ([[0]], "list"),
    ],
)
def test_what_is_no_picture_or_not_later_is_refused_and_costs_nothing(run, taken, picture, got):
    live = FrameWatch(run, seconds=0.4, every=0.4)
    push(live, range(5))
    with pytest.raises(UsageError, match=rf"picture is {got}: expected an array uint8 \(H, W, 3\), RGB, no side above"):
        live.add(picture, 0.2)
    for seconds, words in ((0.16, "a later time"), (0.1, "a later time"), (float("nan"), "a time"), (None, "a time")):
        with pytest.raises(UsageError, match=f"expected {words}"):
            live.add(frame_image(5, 160, 128), seconds)
    assert [m.start for m in push(live, range(5, 14))] == [0]
    assert taken == [[2, 4, 6, 8]]  # at 0.08, 0.16, 0.24 and 0.32 s


def test_a_file_that_grows_while_it_is_watched_is_told(run, long_video, tmp_path):
    growing = shutil.copy(long_video, tmp_path / "growing.avi")

    def add(*_):
        with Path(growing).open("ab") as file:
            file.write(bytes(1000))

    report = module.watch(str(growing), run=run, seconds=0.8, every=0.4, tell=add)
    assert report.grew
    assert "growing.avi grew meanwhile: repeat this when it is whole" in watch_text(report)
    assert not module.watch(str(long_video), run=run, seconds=0.8, every=0.4).grew


# After a pause come windows, or too few frames for one; at each pause one of the windows, each 0.4 s, is not full.
@pytest.mark.parametrize(("frames", "pauses", "torn"), [(60, [30], 1), (35, [30], 1), (90, [30, 60], 2)])
def test_windows_at_a_pause_are_counted(run, tmp_path, frames, pauses, torn):
    times = [40 * k + 60_000 * sum(k >= pause for pause in pauses) for k in range(frames)]
    report = module.watch(
        str(write_video(tmp_path / "p.mkv", frames, width=80, height=64, pts=times)), run=run, seconds=0.8, every=0.4
    )
    assert report.torn == torn  # of those that begin at 0, 0.4 and 0.8 s the last is not full at 1.2 s
    assert f"{torn} window{'s' * (torn > 1)} at gaps or where the picture changes: not answered" in watch_text(report)


def test_what_is_too_slow_for_a_live_stream_is_told_in_seconds(run, long_video, monkeypatch):
    answer, now = watcher.Recogniser.__call__, [0.0]

    def pass_time(seconds):
        now[0] += seconds

    monkeypatch.setattr(watcher, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(
        watcher.Recogniser, "__call__", lambda *given, **more: (pass_time(0.25), answer(*given, **more))[1]
    )
    report = module.watch(str(long_video), run=run, seconds=0.8, every=0.4, tell=lambda *_: pass_time(10))
    assert report.answer_seconds == pytest.approx(0.25)  # without what the caller does with the answer
    told = watch_text(replace(report, skipped=3, answer_seconds=1.23))
    assert "an answer took 1.2 s: about as much is needed between windows (--every) to skip none" in told
    assert "an answer took" not in watch_text(report)


def test_standard_input_has_a_name():
    assert find_source("-").name == "/dev/stdin"


def test_in_a_log_progress_is_not_printed_for_each_window(run, long_video, capsys):
    module.watch(str(long_video), run=run, seconds=0.4, every=0.1, progress=True, tell=lambda *_: None)
    assert 1 <= capsys.readouterr().err.count("window/s") < 10  # of 21 windows


@contextlib.contextmanager
def broadcasts(*videos):
    """A server that sends one video after the other, one for each connection; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)

        def send():
            for video in videos:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(video.read_bytes())

        sender = threading.Thread(target=send)
        sender.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        sender.join()


def test_a_lost_stream_is_opened_again_and_its_times_go_on(run, tmp_path, monkeypatch):
    monkeypatch.setattr(watcher, "_PAUSES", (1.0, 2.0))
    monkeypatch.setattr(Stream, "damaged", 1)
    video, short = (write_video(tmp_path / f"{n}.ts", n, width=80, height=64) for n in (60, 5))
    reasons = []
    with broadcasts(video, short, video) as source:
        settings = {"seconds": 0.8, "every": 0.8, "live": False, "reconnect": True, "lost": reasons.append}
        with Watch(source, run=run, **settings) as watching:
            found = list(itertools.islice(watching, 6))
            assert (watching.reconnected, watching.damaged) == (2, 3)
    assert [m.skipped for m in found] == [0] * 6
    assert [m.start for m in found[:3]] == pytest.approx([0.0, 0.8, 1.6])
    assert [m.start - found[3].start for m in found[3:]] == pytest.approx([0.0, 0.8, 1.6])
    # Both pauses, the second twice as long, lie between; the file arrives at once, so at least a step is left out.
    assert 2.4 + 0.8 <= found[3].start < 30
    assert reasons[0] == f"{source} ended"
    assert reasons[1].startswith(f"{source} ends after 0.2 s")


def test_each_pause_before_a_stream_is_opened_again_is_longer_up_to_a_limit_until_one_succeeds(run, monkeypatch):
    results = iter([1, 0, 0, 0, 1, 0, 1])
    watching = Watch("tcp://127.0.0.1:9", run=run, seconds=0.8, reconnect=True)
    pauses = []

    def read(source):
        watching._opened = True
        watching._read_windows += next(results)
        raise VideoError("lost")

    def wait(seconds):
        pauses.append(seconds)
        if len(pauses) == 7:
            watching.stop()

    monkeypatch.setattr(watcher, "_PAUSES", (1.0, 5.0))
    monkeypatch.setattr(watching, "_read_once", read)
    monkeypatch.setattr(watching._stop, "wait", wait)
    watching._read_again_and_again(find_source("tcp://127.0.0.1:9"))
    assert pauses == [1, 2, 4, 5, 1, 2, 1]


def test_what_was_never_there_or_has_an_end_is_not_opened_again(run, long_video, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with pytest.raises(VideoError, match="cannot be opened"):
        look(f"tcp://127.0.0.1:{free}", run, seconds=0.8, reconnect=True)
    with pytest.raises(
        UsageError, match="is a file or pipe, which is read once: reconnect is for cameras and live streams"
    ):
        look(long_video, run, seconds=0.8, reconnect=True)
    write_video(tmp_path / "v.mkv", 60, width=80, height=64)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            with pytest.raises(UsageError, match=r"v\.mkv has an end: reconnect is for"):
                look(f"http://127.0.0.1:{server.server_port}/v.mkv", run, seconds=0.8, reconnect=True)
        finally:
            server.shutdown()


def test_lost_connections_are_told_and_end_a_segment(run, tmp_path, monkeypatch):
    monkeypatch.setattr(watcher, "_PAUSES", (2.0, 2.0))
    video = write_video(tmp_path / "60.ts", 60, width=80, height=64)
    answers = Watch.__iter__

    def six(watching):
        yield from itertools.islice(answers(watching), 6)
        raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "__iter__", six)
    with broadcasts(video, video) as source:
        options = ["--seconds", "0.8", "--every", "0.8", "--no-live", "--reconnect", "--table", str(tmp_path / "t.csv")]
        result = call(source, "--run", str(run), *options)
    assert result.exit_code == 0
    assert "opened again: 1 time; what came meanwhile was not examined" in result.stdout
    assert f"{source} ended: opening it again" in result.stderr
    with (tmp_path / "t.csv").open() as table:
        rows = list(csv.DictReader(table))
    away = [float(b["start"]) - float(a["end"]) for a, b in itertools.pairwise(rows)]
    assert max(away) >= 0.799


def test_sound_that_goes_on_does_not_hide_that_pictures_stopped(tmp_path, monkeypatch):
    video = with_sound(tmp_path / "v.mp4", seconds=2, first=0)

    class Slow:
        def demux(self):
            packets = list(opened.demux())
            sound = [p for p in packets if p.stream.type == "audio" and p.size]
            yield from (p for p in packets if p.stream.type == "video" and p.size)
            for packet in sound:
                now[0] += 0.1
                yield packet

        def __getattr__(self, name):
            return getattr(opened, name)

    now = [0.0]
    monkeypatch.setattr(streaming, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(streaming, "SILENCE", (10.0, 1.0))
    with Stream(find_source(str(video))) as stream:
        opened = stream._container
        stream._container, stream._remote = Slow(), True
        with pytest.raises(VideoError, match=r"sent nothing for 1 s"):
            list(stream.windows(windows(0.8, 0.8), [64]))
    assert now[0] == pytest.approx(1.1)


def test_a_reader_that_is_stopped_reads_no_further_packet(long_video):
    asked = itertools.count()
    with Stream(find_source(str(long_video)), stopped=lambda: next(asked) == 10) as stream:
        with pytest.raises(VideoError, match="was stopped"):
            list(stream.windows(windows(0.8, 0.8), [64]))
        assert stream.rest == 0
    assert next(asked) == 11


def at(ready, start, seconds=2.0):
    return WindowClip(start=start, end=start + seconds, jpegs={}, ready=ready)


def test_what_a_server_has_in_store_does_not_add_up_over_connections():
    """Each connection sends six seconds at once, then four as they pass, and is away for two."""
    times, clock = Continued(1.0), 100.0
    for connection in range(20):
        times.lost()
        placed = [times.place(at(clock + max(0.0, start + 2 - 6), start)) for start in range(9)]
        real = clock + 4 - 100
        ends = [clip.end for clip in placed if clip is not None]
        assert ends == sorted(ends)
        assert abs(ends[-1] - 6 - real) <= 6, connection  # the first frame was six seconds old, too
        clock += 4 + 2


def test_the_zero_of_time_is_that_of_the_window_that_was_delayed_least():
    times = Continued(1.0)
    for ready, start in ((104.0, 0), (104.0, 1), (104.0, 2), (105.1, 3)):
        assert times.place(at(ready, start)).start == start
    times.lost()
    assert times.place(at(112.0, 0)).start == pytest.approx(10.0)  # shown first at 110; at first, at 100
    times.lost()
    assert times.place(at(112.5, 0)) is None  # 10.5 to 12.5: until 12 it has an answer
    assert times.place(at(115.1, 2.6)).start == pytest.approx(13.1)


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("order", ["video first", "sound first"])
def test_the_end_of_a_source_with_sound_is_read(tmp_path, order, remote):
    """At its end each stream sends an empty packet, after which its decoder gives what it held back."""
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        rates = {"libx264": 25, "mp2": 48_000}
        codecs = list(rates) if order == "video first" else list(rates)[::-1]
        streams = {codec: container.add_stream(codec, rate=rates[codec]) for codec in codecs}
        streams["libx264"].width, streams["libx264"].height = 80, 64
        streams["libx264"].options = {"bf": "2", "b_strategy": "0", "crf": "8"}
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1152), np.int16), format="s16", layout="stereo")
        sound.sample_rate = 48_000
        for number in range(50):
            picture = av.VideoFrame.from_ndarray(frame_image(number, 80, 64), format="rgb24")
            container.mux(streams["libx264"].encode(picture))
            container.mux(streams["mp2"].encode(sound))
        for stream in streams.values():
            container.mux(stream.encode(None))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            source = f"http://127.0.0.1:{server.server_port}/v.mkv" if remote else str(tmp_path / "v.mkv")
            with Stream(find_source(source)) as stream:
                found = [numbers(clip) for clip in stream.windows(windows(0.4, 0.4), [64])]
        finally:
            server.shutdown()
    assert found == [[10 * k + 2, 10 * k + 4, 10 * k + 6, 10 * k + 8] for k in range(5)]
    assert stream.rest == pytest.approx(0, abs=0.01)
