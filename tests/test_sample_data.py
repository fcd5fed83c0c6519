"""The committed sample clips are what data/README.md says, and the helpers of make_video tell the truth."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from make_video import (
    Image,
    frame_image,
    read_corners,
    read_number,
    write_audio_only,
    write_video,
    write_video_with_second_stream,
    write_with_cover_art,
)
from PIL import Image as Pillow

DATA = Path(__file__).parents[1] / "data"
SAMPLES = sorted((DATA / "samples").rglob("*.mp4"))
UPRIGHT = ("red", "green", "blue", "yellow")


def decode(path: Path, stream: int = 0) -> list[tuple[Image, float]]:
    """Return (frame as coded, time in seconds) of one video stream."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=stream))
    return [(np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8), float(frame.time or 0)) for frame in frames]


def numbers(path: Path, stream: int = 0) -> list[int]:
    return [read_number(frame) for frame, _ in decode(path, stream)]


# --- the committed clips


def test_samples_are_named_as_ucf101_and_every_class_has_the_groups_and_clips_the_readme_claims() -> None:
    names = [re.fullmatch(r"v_([A-Za-z]+)_g(\d\d)_c(\d\d)\.mp4", path.name) for path in SAMPLES]
    assert all(name and name[1] == path.parent.name for name, path in zip(names, SAMPLES, strict=True))
    groups = Counter((name[1], int(name[2])) for name in names if name)
    classes = {name for name, _ in groups}
    assert len(classes) == 8
    assert groups == Counter({(name, group): 2 for name in classes for group in range(1, 7)})
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    assert all(name in readme for name in classes)


def test_samples_stay_within_two_megabytes_and_the_readme_names_the_total() -> None:
    sizes = [path.stat().st_size for path in (DATA / "samples").rglob("*") if path.is_file()]
    assert sum(sizes) <= 2_000_000
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    assert f"{sum(sizes):,} bytes" in readme
    assert f"{max(sizes):,}" in readme


@pytest.mark.parametrize("folder", sorted({path.parent.name for path in SAMPLES}))
def test_samples_decode_as_h264_with_frames_that_move(folder: str) -> None:
    for path in (path for path in SAMPLES if path.parent.name == folder):
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
            assert container.streams.video[0].average_rate == 25
        frames = np.stack([frame for frame, _ in decode(path)]).astype(np.int16)
        assert 40 <= len(frames) <= 60
        assert (176, 132) <= (frames.shape[2], frames.shape[1]) <= (208, 156)
        assert (np.abs(frames - frames[0]).max(axis=(1, 2, 3)) > 60).any()


# --- the generator


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DATA))
    return importlib.import_module("generate")


def first_frames(generate: ModuleType, *, group: int = 1, clip: int = 1, seed: int = 0) -> Image:
    return np.stack(list(islice(generate.draw_clip("PushUp", group, clip, seed=seed), 4)))


def test_drawing_is_the_same_for_the_same_seed_only(generate: ModuleType) -> None:
    frames = first_frames(generate)
    np.testing.assert_array_equal(frames, first_frames(generate))
    assert not np.array_equal(frames[0], first_frames(generate, clip=2)[0])
    other = first_frames(generate, seed=1)
    assert other.shape != frames.shape or not np.array_equal(frames, other)


def test_the_committed_clip_shows_what_the_generator_draws(generate: ModuleType) -> None:
    drawn = list(generate.draw_clip("PushUp", 1, 1))
    stored = [frame for frame, _ in decode(DATA / "samples/PushUp/v_PushUp_g01_c01.mp4")]
    assert len(drawn) == len(stored)
    errors = [np.abs(a.astype(float) - b).mean() for a, b in zip(drawn, stored, strict=True)]
    assert max(errors) < 8  # of 255: x264 at crf 28


def test_bones_keep_their_length_and_feet_stay_on_the_floor(generate: ModuleType) -> None:
    person = generate.draw_person(np.random.default_rng(5))
    for name, exercise in generate.EXERCISES.items():
        for effort in np.linspace(0, 1, 9):
            joints = exercise.pose(person, float(effort), 0, {"a": 0.5, "b": 0.2}).joints
            for side in ("left", "right"):
                leg = [joints[f"{side} {joint}"] for joint in ("hip", "knee", "ankle")]
                arm = [joints[f"{side} {joint}"] for joint in ("shoulder", "elbow", "hand")]
                for limb, length in ((leg, person.leg), (arm, person.arm)):
                    np.testing.assert_allclose([np.linalg.norm(b - a) for a, b in pairwise(limb)], length)
                assert joints[f"{side} toe"][1] > -0.01, name
                if name in ("Squat", "BicepsCurl", "ShoulderPress", "SitUp"):
                    assert joints[f"{side} ankle"][1] == pytest.approx(0.045, abs=0.002), name


def test_the_command_writes_the_classes_groups_and_clips_asked_for(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "draw_clip", lambda *_, **__: (np.full((32, 48, 3), n, np.uint8) for n in range(3)))
    arguments = "generate.py --classes Squat SitUp --groups 3 --clips 1 --out"
    monkeypatch.setattr("sys.argv", [*arguments.split(), str(tmp_path)])
    generate.main()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.mp4")) == [
        f"{name}/v_{name}_g0{group}_c01.mp4" for name in ("SitUp", "Squat") for group in (1, 2, 3)
    ]
    assert "6 clips, 2 classes" in capsys.readouterr().out


# --- make_video


@pytest.mark.parametrize("size", [(128, 96), (64, 64), (63, 47), (320, 200)])
def test_numbers_and_corners_are_read_back_and_not_from_a_turned_frame(size: tuple[int, int]) -> None:
    for number in (0, 1, 2, 40, 255, 999, 2730, 4095):
        frame = frame_image(number, *size)
        assert frame.shape == (size[1], size[0], 3)
        assert read_number(frame) == number
        assert read_corners(frame) == UPRIGHT
    assert read_corners(np.rot90(frame_image(7, *size), -1)) == ("yellow", "red", "green", "blue")  # turned clockwise
    for number in range(200):
        with contextlib.suppress(ValueError):
            assert read_number(np.rot90(frame_image(number, *size))) != number


def test_the_number_survives_scaling_to_64_px_and_jpeg() -> None:
    for number in range(0, 4096, 97):
        picture = Pillow.fromarray(frame_image(number, 176, 132)).resize((64, 64))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=60)
        again = np.asarray(Pillow.open(buffer).convert("RGB"))
        assert read_number(again) == number
        assert read_corners(again) == UPRIGHT


def test_two_blended_frames_are_refused() -> None:
    blend = (frame_image(5, 64, 64) // 2) + (frame_image(6, 64, 64) // 2)
    with pytest.raises(ValueError, match="expected black or white"):
        read_number(blend)


@pytest.mark.parametrize(
    ("ending", "codec", "pix_fmt", "size", "b_frames"),
    [
        (".mp4", "libx264", "yuv420p", (128, 96), 0),
        (".mp4", "libx264", "yuv420p", (128, 96), 2),
        (".mp4", "libx264", "yuv444p", (77, 51), 0),
        (".mov", "libx264", "yuv420p", (64, 64), 0),
        (".mkv", "libx264", "yuv420p", (128, 96), 0),
        (".avi", "mpeg4", "yuv420p", (128, 96), 0),
        (".webm", "libvpx-vp9", "yuv420p", (128, 96), 0),
    ],
)
def test_written_videos_give_their_frames_back_in_order(
    tmp_path: Path, ending: str, codec: str, pix_fmt: str, size: tuple[int, int], b_frames: int
) -> None:
    path = write_video(
        tmp_path / f"clip{ending}", 26, width=size[0], height=size[1], codec=codec, pix_fmt=pix_fmt, b_frames=b_frames
    )
    frames = decode(path)
    assert [read_number(frame) for frame, _ in frames] == list(range(26))
    assert {frame.shape for frame, _ in frames} == {(size[1], size[0], 3)}
    assert [time for _, time in frames] == pytest.approx([number / 25 for number in range(26)], abs=0.001)


def test_b_frames_and_gop_are_what_was_asked_for(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 30, gop=10, b_frames=2)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert [number for number, frame in enumerate(frames) if frame.key_frame] == [0, 10, 20]
    assert any(frame.pict_type == av.video.frame.PictureType.B for frame in frames)


def test_frame_times_may_be_uneven(tmp_path: Path) -> None:
    pts = [0, 10, 100, 330, 1000]
    for ending in (".mp4", ".mkv"):
        frames = decode(write_video(tmp_path / f"clip{ending}", 5, pts=pts))
        assert [round(1000 * time) for _, time in frames] == pts
    with pytest.raises(ValueError, match="avi"):
        write_video(tmp_path / "clip.avi", 5, pts=pts, codec="mpeg4")


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_video_is_upright_after_turning_clockwise(tmp_path: Path, rotation: int, ending: str) -> None:
    path = write_video(tmp_path / f"clip{ending}", 3, rotation=rotation)
    coded = decode(path)[1][0]
    assert coded.shape == ((96, 128, 3) if rotation == 180 else (128, 96, 3))
    assert read_corners(coded) != UPRIGHT
    upright = np.rot90(coded, -rotation // 90)
    assert read_corners(upright) == UPRIGHT
    assert read_number(upright) == 1
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).rotation % 360 == -rotation % 360  # PyAV counts counter-clockwise
    if ending != ".mkv":
        # The first two rows of the matrix in the track header, as phones write them (QuickTime file format, 16.16).
        data = path.read_bytes()
        start = data.index(b"tkhd") + 4 + 40
        matrix = np.frombuffer(data[start : start + 36], ">i4").reshape(3, 3)[:2, :2] // 65536
        assert matrix.tolist() == {90: [[0, 1], [-1, 0]], 180: [[-1, 0], [0, -1]], 270: [[0, -1], [1, 0]]}[rotation]


def test_other_streams_are_where_the_helpers_say(tmp_path: Path) -> None:
    with av.open(str(write_audio_only(tmp_path / "tone.mp4"))) as container:
        assert [stream.type for stream in container.streams] == ["audio"]
    path = write_video_with_second_stream(tmp_path / "sound.mp4", 6)
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["audio", "video"]
    assert numbers(path) == list(range(6))
    path = write_video_with_second_stream(tmp_path / "two.mkv", 6, kind="video")
    assert numbers(path) == list(range(6))
    assert numbers(path, stream=1) == list(range(1000, 1006))
    path = write_with_cover_art(tmp_path / "cover.mp4", 6)
    assert numbers(path) == list(range(6))
    with av.open(str(path)) as container:
        assert [bool(stream.disposition & 1024) for stream in container.streams] == [False, True]
