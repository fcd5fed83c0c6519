import math
from itertools import pairwise

import av
import pytest
from make_video import read_number, write_video
from test_video import remux

from fitrec_cache.decoding import DecodeJob, decode_clip
from fitrec_cache.errors import ManifestError, VideoError
from fitrec_cache.find_clips import find_clips
from fitrec_cache.sampling import frame_indices
from fitrec_cache.spans import Span, file_of, parted, seconds_of
from fitrec_cache.splits import make_split
from fitrec_cache.video import read_frames

RATE = 25


def read(path, span, samples=4):
    return read_frames(path, sampler=lambda n: frame_indices(n, samples=samples), short_side=96, span=span)


def numbers(clip):
    return [read_number(frame) for frame in clip.frames]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("12.5", 12.5),
        ("12,5", 12.5),
        ("1:02", 62),
        ("75:30", 4530),
        ("90", 90),
        ("1:02:03.5", 3723.5),
        ("0.0004", 0),
    ],
)
def test_times_are_read_as_people_write_them(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1e3", "ten", "1:", ":5", "1:2:3:4", "1:75", "2024-01-01 10:00", "٣"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="expected a time in seconds, such as"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("span", "text"),
    [(Span(12.5, 20), "#t=12.5,20"), (Span(3723.512), "#t=3723.512"), (Span(0, 0.001), "#t=0,0.001")],
)
def test_a_part_is_written_as_the_fragment_that_it_is_read_from(span, text):
    assert str(span) == text
    assert parted(f"A/1.mp4{text}") == ("A/1.mp4", span)
    assert file_of(f"A/1.mp4{text}") == "A/1.mp4"


@pytest.mark.parametrize("name", ["A/1.mp4", "A/#t=1.mp4", "A/1.mp4#t=", "A/1.mp4#t=a", "A/1.mp4#t=,"])
def test_other_names_are_of_whole_files(name):
    assert parted(name) == (name, None)
    assert file_of(name) == name


@pytest.mark.parametrize("text", ["#t=0", "#t=0.000"])
def test_all_of_a_file_is_no_part(text):
    assert parted(f"a.mp4{text}") == ("a.mp4", None)


@pytest.mark.parametrize("ends", [(5, 5), (5, 4), (-1, 2), (math.nan, 2), (math.inf, math.inf)])
def test_a_part_has_something_in_it(ends):
    with pytest.raises(ValueError, match="expected an end after the start"):
        Span(*ends)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.webm", "v.avi", "v.mpg"])
@pytest.mark.parametrize(("start", "end"), [(0, 2), (1, 2), (0.98, 3.01), (2, math.inf)])
def test_frames_of_a_part_are_those_of_eq_1_within_it(tmp_path, name, start, end):
    codec = {"v.webm": "libvpx-vp9", "v.avi": "mpeg4", "v.mpg": "mpeg2video"}.get(name, "libx264")
    path = write_video(tmp_path / name, 100, codec=codec, b_frames=2 if codec == "libx264" else 0)
    first = math.ceil(start * RATE - 1e-9)
    count = min(math.ceil(end * RATE - 1e-9) if end < math.inf else 100, 100) - first
    expected = [first + i * count // 5 for i in (1, 2, 3, 4)]
    clip = read(path, Span(start, end))
    assert numbers(clip) == clip.frame_index.tolist() == expected


def test_parts_that_meet_share_no_frame_and_leave_none_out(tmp_path):
    path = write_video(tmp_path / "v.mp4", 60, fps=30)
    borders = [0, 7, 8, 20, 41, 60]
    for first, last in pairwise(borders):
        clip = read(path, Span(seconds_of(f"{first / 30:.3f}"), seconds_of(f"{last / 30:.3f}")), samples=100)
        assert sorted(set(numbers(clip))) == list(range(first, last))


def test_a_start_that_does_not_decode_moves_no_part(tmp_path):
    whole = write_video(tmp_path / "whole.mkv", 75)
    path = remux(whole, tmp_path / "v.mkv", keep=lambda number: number > 0)  # its key frame is gone
    clip = read(path, Span(1, 2))
    assert clip.ledger["frames_decoded"] < 70
    assert numbers(clip) == [31, 36, 41, 46]  # of 26 to 50: the first packet is at 0.04 s
    assert not any("ends after" in warning for warning in read(path, Span(1, 3.8)).ledger["warnings"])
    assert any("ends after" in warning for warning in read(path, Span(1, 4)).ledger["warnings"])


def test_a_part_of_which_less_than_half_decodes_fails_and_the_others_do_not(tmp_path):
    whole, path = write_video(tmp_path / "whole.mkv", 200, gop=50), tmp_path / "v.mkv"
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(p for p in old.demux(old.streams.video[0]) if p.size):
            sound = not 100 <= number < 150
            copy = av.Packet(bytes(packet) if sound else bytes(packet.size))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            new.mux(copy)
    assert numbers(read(path, Span(2, 4))) == [60, 70, 80, 90]
    with pytest.raises(VideoError, match=r"only 0 of 50 frames of its part decode, 50% are needed"):
        read(path, Span(4, 6))
    assert numbers(read(path, Span(6, 8))) == [160, 170, 180, 190]


def test_a_part_of_a_long_video_decodes_only_what_it_needs(tmp_path):
    path = write_video(tmp_path / "v.mp4", 1500, width=96, height=96, gop=50, b_frames=2)
    clip = read(path, Span(20, 22))
    assert numbers(clip) == [510, 520, 530, 540]
    assert clip.ledger["frames_decoded"] == 1500
    assert clip.ledger["frames_verified"] < 200


def test_times_of_parts_count_from_the_first_frame_whenever_it_is_shown(tmp_path):
    path = write_video(tmp_path / "v.mkv", 50, pts=[5000 + 40 * i for i in range(50)])
    clip = read(path, Span(1, 2))
    assert numbers(clip) == [30, 35, 40, 45]
    assert clip.pts_seconds.tolist() == [6.2, 6.4, 6.6, 6.8]


def test_a_part_that_the_video_ends_before_says_so(tmp_path):
    path = write_video(tmp_path / "v.mp4", 50)
    assert read(path, Span(1, 2.9)).ledger["warnings"] == []
    assert read(path, Span(1, 20)).ledger["warnings"] == [
        "its part #t=1,20 (seconds) ends after the last frame, which is at 1.96 s"
    ]
    with pytest.raises(
        VideoError, match=r"no frame in its part #t=12,20 \(seconds\): the last of the file is at 1\.96 s"
    ):
        read(path, Span(12, 20))


def test_a_part_is_found_where_packets_have_no_times(tmp_path):
    path = write_video(tmp_path / "v.h264", 50)
    assert read(path, Span()).ledger["warnings"] == ["no time stamps: times are frame number / 25"]
    assert numbers(read(path, Span(1, 2))) == [30, 35, 40, 45]


def test_decoders_take_the_part(tmp_path):
    path = write_video(tmp_path / "v.mp4", 50)
    stored = decode_clip(DecodeJob(path=path, samples=4, short_side=96, span=Span(1, 2)))
    assert stored.frame_index == [30, 35, 40, 45]


def rows(path, text):
    path.write_text(text)
    return find_clips(path)


def test_rows_with_times_are_parts_of_their_file_and_of_one_recording(tmp_path):
    found = rows(
        tmp_path / "m.csv",
        "path,label,Start,end\na.mp4,Squat,0,5\n./a.mp4,Lunge,0:05,\nb.mp4,Squat,,\nv_Row_g03_c01.avi,Row,,2\n",
    )
    assert [(c.clip_id, c.file, c.span, c.group) for c in found.clips] == [
        ("a.mp4#t=0,5", "a.mp4", Span(0, 5), "a.mp4"),
        ("a.mp4#t=5", "a.mp4", Span(5), "a.mp4"),
        ("b.mp4", "b.mp4", None, "b.mp4"),
        ("v_Row_g03_c01.avi#t=0,2", "v_Row_g03_c01.avi", Span(0, 2), "Row_g03"),
    ]
    assert all(not clip.extra for clip in found.clips)
    assert "3 clips are parts of 2 files" in found.notes


def test_one_file_is_one_recording_however_its_path_is_written(tmp_path):
    found = rows(tmp_path / "m.csv", "path,label,end\na.mp4,A,1\nb/../a.mp4,B,2\n")
    assert {(clip.clip_id, clip.group) for clip in found.clips} == {
        ("a.mp4#t=0,1", "a.mp4"),
        ("B/a.mp4#t=0,2", "a.mp4"),
    }


def test_a_whole_file_is_of_the_recording_of_its_parts(tmp_path):
    found = rows(tmp_path / "m.csv", 'path,label\na.mp4,A\n"a.mp4#t=1,2",B\n')
    assert {clip.group for clip in found.clips} == {"a.mp4"}


def test_groups_that_a_manifest_gives_hold_and_are_those_of_the_files_other_parts(tmp_path):
    found = rows(tmp_path / "m.csv", "path,label,start,group\na.mp4,A,1,anna\na.mp4,A,2,\nb.mp4,A,2,\n")
    assert [clip.group for clip in found.clips] == ["anna", "anna", "b.mp4"]


def test_times_behind_a_path_are_those_of_columns(tmp_path):
    (clip,) = rows(tmp_path / "m.csv", 'path,label,group\n"a.mp4#t=0:1.50,2",A,g\n').clips
    assert (clip.clip_id, clip.file, clip.span, clip.group) == ("a.mp4#t=1.5,2", "a.mp4", Span(1.5, 2), "g")


def test_a_list_of_files_selects_their_parts(tmp_path):
    (tmp_path / "m.csv").write_text("path,label,start\nA/a.mp4,A,1.5\nA/b.mp4,A,2\n")
    (tmp_path / "list.txt").write_text("A/a.avi\n")
    (clip,) = find_clips(tmp_path / "m.csv", lists=[tmp_path / "list.txt"]).clips
    assert clip.clip_id == "A/a.mp4#t=1.5"
    (tmp_path / "m.csv").write_text("path,label,start\nA/a.mp4,A,1.5\nA/a.mp4,A,1.7\n")
    (tmp_path / "list.txt").write_text("A/a.mp4#t=1.7\n")
    (clip,) = find_clips(tmp_path / "m.csv", lists=[tmp_path / "list.txt"]).clips
    assert clip.clip_id == "A/a.mp4#t=1.7"
    with pytest.raises(ManifestError, match=r"names a part of a file, 'A/a\.mp4#t=1\.7': expected whole files"):
        find_clips(tmp_path / "list.txt")


def test_a_split_by_lists_takes_parts_by_their_file_or_their_times_and_no_others(tmp_path):
    ids = [f"A/{name}" for name in ("a.mp4#t=1.2,3", "a.mp4#t=4,5", "b.mp4#t=1.2,3", "c.mp4#t=1.2,3", "d.mp4")]
    (tmp_path / "train.txt").write_text("A/a.mp4\nA/b.mp4#t=1.2,3\n")
    (tmp_path / "test.txt").write_text("A/d.mp4\nA/c.mp4#t=1.9,3\n")
    rule = f"list:{tmp_path / 'train.txt'},{tmp_path / 'test.txt'}"
    split = make_split(rule, clip_ids=ids, labels=[*"ABABA"], groups=[None] * 5, seed=0)
    assert sorted([*split.train, *split.val]) == [0, 1, 2]
    assert split.test.tolist() == [4]


def test_groups_that_are_asked_for_keep_parts_of_one_file_together(tmp_path):
    (tmp_path / "m.csv").write_text("path,label,start,end,person\na.mp4,A,1,2,\na.mp4,A,2,3,\nb.mp4,A,1,2,anna\n")
    found = find_clips(tmp_path / "m.csv", group_by="person").clips
    assert [clip.group for clip in found] == ["a.mp4", "a.mp4", "anna"]


@pytest.mark.parametrize("other", ["duration", "End_Time", "stop"])
def test_a_start_whose_end_is_told_otherwise_is_refused(tmp_path, other):
    with pytest.raises(ManifestError, match=f"of the columns start and end only start, but {other}"):
        rows(tmp_path / "m.csv", f"path,label,start,{other}\na.mp4,A,5,3\n")
    with pytest.raises(ManifestError, match="only end, but begin"):
        rows(tmp_path / "m.csv", "path,label,begin,end\na.mp4,A,5,8\n")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.mp4,A,5,5", r"m\.csv, line 2: got 5 to 5 s: expected an end after the start"),
        ("a.mp4,A,soon,5", r"m\.csv, line 2: got 'soon': expected a time in seconds, such as 12\.5"),
        ("a.mp4#t=3,A,1,", r"m\.csv, line 2: got times behind the path, #t=3, and in a column"),
        ("a.mp4#t=3.3.3,A,,", r"m\.csv, line 2: got '3\.3\.3': expected a time"),
        ("a.mp4,A,1,2\na.mp4,A,1.0,2", r"lines 2 and 3 both give the clip 'a\.mp4#t=1,2'"),
    ],
)
def test_times_that_cannot_be_used_are_refused_by_their_line(tmp_path, row, message):
    with pytest.raises(ManifestError, match=message):
        rows(tmp_path / "m.csv", f"path,label,start,end\n{row}\n")
