import math
import re
from dataclasses import replace
from itertools import pairwise

import av
import pytest
from make_video import read_number, write_video
from test_splits import make_split
from test_video import cut, remux

from fitrec_cache.cache import TAKEN_OUT, Cache, HeldClip, parts_apart
from fitrec_cache.dataset.clips import columns
from fitrec_cache.dataset.find_clips import find_clips
from fitrec_cache.dataset.folds import make_folds
from fitrec_cache.errors import ManifestError, VideoError
from fitrec_cache.features import clips_in
from fitrec_cache.video.container import Video
from fitrec_cache.video.decoding import DecodeJob, decode_clip
from fitrec_cache.video.sampling import frame_indices
from fitrec_cache.video.spans import Span, file_of, parted, seconds_of
from fitrec_cache.video.video import read_frames

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


@pytest.mark.parametrize(
    "text", ["", "-1", "1e3", "ten", "1:", ":5", "1:2:3:4", "1:75", "1:90:00", "2024-01-01 10:00", "٣"]
)
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
    assert clip.ledger["starts_at_seconds"] == 0.04
    assert not any("ends after" in warning for warning in read(path, Span(1, 3.8)).ledger["warnings"])
    assert any("ends after" in warning for warning in read(path, Span(1, 4)).ledger["warnings"])


def damage(whole, path, frames):
    """Copy a video with zeros in the packets of some frames."""
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(p for p in old.demux(old.streams.video[0]) if p.size):
            copy = av.Packet(bytes(packet.size) if number in frames else bytes(packet))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            new.mux(copy)
    return path


def test_packets_that_do_not_decode_are_told(tmp_path):
    ledger = read(damage(write_video(tmp_path / "w.mkv", 48), tmp_path / "v.mkv", range(30, 36)), None).ledger
    assert (ledger["frames_corrupt"], ledger["packets_undecodable"]) == (0, 6)
    assert ledger["warnings"] == ["0 damaged frames left out, 6 packets did not decode"]


@pytest.mark.parametrize("end", [150, 200, 250])
def test_a_part_of_which_less_than_half_decodes_fails_and_the_others_do_not(tmp_path, end):
    """Also where that is more than half of the file."""
    path = damage(write_video(tmp_path / "whole.mkv", 250, gop=50), tmp_path / "v.mkv", range(50, end))
    assert numbers(read(path, Span(0, 2))) == [10, 20, 30, 40]
    with pytest.raises(VideoError, match=r"only 0 of 50 frames of its part decode, 50% are needed"):
        read(path, Span(4, 6))
    if end == 150:
        assert numbers(read(path, Span(8))) == [210, 220, 230, 240]
    else:
        with pytest.raises(VideoError, match=r"only \d+ of 250 frames decode"):
            read(path, None)


def test_a_part_of_which_most_is_cut_off_fails_and_those_before_it_do_not(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", 100, gop=10)
    path = cut(remux(whole, tmp_path / "v.mp4", options={"movflags": "faststart"}), 0.4)
    assert numbers(read(path, Span(0.2, 0.8))) == [8, 11, 14, 17]
    for span in (Span(0.2, 4), Span(0.2)):
        with pytest.raises(VideoError, match=r"only \d\d of 95 frames of its part decode, 50% are needed"):
            read(path, span)


def test_a_part_before_a_cut_is_judged_by_the_frames_that_it_had(tmp_path):
    """Not by a rate: here it is 25 frames a second at first, then one."""
    times = [40 * k if k < 100 else 4000 + 1000 * (k - 100) for k in range(120)]
    whole = write_video(tmp_path / "whole.mp4", 120, pts=times, gop=10)
    path = cut(remux(whole, tmp_path / "v.mp4", options={"movflags": "faststart"}), 0.95)
    clip = read(path, Span(6, 10), samples=3)
    assert numbers(clip) == [103, 104, 105]
    assert any(note.startswith("cut short") for note in clip.ledger["warnings"])


def test_interlaced_parts_are_judged_by_their_own_frames(tmp_path):
    """Where a packet is a whole frame, as most often."""
    path = write_video(tmp_path / "v.mkv", 250, gop=50, options={"x264-params": "tff=1"})
    damaged = damage(path, tmp_path / "damaged.mkv", range(50, 250))
    clip = read(damaged, Span(0, 2))
    assert clip.ledger["interlaced"]
    assert numbers(clip) == [10, 20, 30, 40]
    with pytest.raises(VideoError, match=r"only 0 of 50 frames of its part decode"):
        read(damaged, Span(4, 6))


def test_packets_of_interlaced_video_without_a_picture_are_no_second_fields_where_frames_are_counted(tmp_path):
    options = {"flags": "+ildct+ilme"}
    whole = write_video(tmp_path / "w.mp4", 100, codec="mpeg2video", gop=10, options=options)
    assert read(whole, None).ledger["interlaced"]
    with pytest.raises(VideoError, match=r"only 40 of (99|100) frames decode"):
        read(damage(whole, tmp_path / "v.mp4", range(40, 100)), None)


def test_packets_of_a_file_that_was_written_anew_are_read_anew(tmp_path):
    path = tmp_path / "v.mkv"
    for start in (0, 5000):
        write_video(path, 100, pts=[start + 40 * i for i in range(100)])
        assert numbers(read(path, Span(2, 4))) == [60, 70, 80, 90]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_packets_are_read_once_for_all_parts_of_a_file(tmp_path, monkeypatch, ending):
    """An hour has some 100,000; after the first part each reads about those that it decodes."""
    path = write_video(tmp_path / f"v.{ending}", 1500, gop=25)
    read_now, demux = [], Video._demux
    monkeypatch.setattr(Video, "_demux", lambda *args: (read_now.append(p.pts) or p for p in demux(*args)))
    for begin in (8, 24, 40):
        assert numbers(read(path, Span(begin, begin + 2))) == [25 * begin + k for k in (10, 20, 30, 40)]
        assert (len(read_now) > 1500) == (begin == 8)
        assert begin == 8 or len(read_now) < 200
        read_now.clear()
    write_video(path, 1500, numbers=range(2000, 3500), gop=25)
    assert numbers(read(path, Span(8, 10))) == [2000 + 200 + k for k in (10, 20, 30, 40)]


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


def test_times_of_parts_count_from_the_earliest_packet_though_another_comes_first(tmp_path):
    """Of frames that are shown before the key frame that comes first, none decodes."""
    options = {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=8:min-keyint=8:scenecut=0"}
    whole = write_video(tmp_path / "whole.mkv", 100, gop=8, b_frames=3, options=options)
    with av.open(str(whole)) as opened:
        packets = [p for p in opened.demux(video=0) if p.size]
    start = next(i for i, p in enumerate(packets) if i and p.is_keyframe)
    earliest = min(p.pts for p in packets[start:])
    assert earliest < packets[start].pts
    path = remux(whole, tmp_path / "v.mkv", keep=lambda number: number >= start)
    first = round(float(earliest * packets[0].time_base) * RATE)
    assert numbers(read(path, Span(1, 2))) == [first + RATE + k for k in (5, 10, 15, 20)]


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


@pytest.mark.parametrize("without", [[0], [40], [99], range(1, 100), range(99)])
def test_a_part_is_found_where_some_packets_have_no_times(tmp_path, without):
    path = write_video(tmp_path / "v.ts", 100, b_frames=2)
    whole, data = read(path, Span(1, 2)), bytearray(path.read_bytes())
    headers = list(re.finditer(rb"\x00\x00\x01\xe0..[\x80-\x8f][\x80-\xff].", bytes(data), re.DOTALL))
    for start in (headers[number].start() for number in without):
        length = data[start + 8]
        data[start + 7] &= 0x3F  # says that no time follows
        data[start + 9 : start + 9 + length] = b"\xff" * length
    path.write_bytes(data)
    clip = read(path, Span(1, 2))
    assert numbers(clip) == numbers(whole) == [30, 35, 40, 45]
    assert clip.pts_seconds == pytest.approx(whole.pts_seconds)
    many = "frame has" if len(without) == 1 else "frames have"
    assert clip.ledger["warnings"] == [f"{len(without)} {many} no time stamp: their times are by those of others"]


def test_decoders_take_the_part(tmp_path):
    path = write_video(tmp_path / "v.mp4", 50)
    stored = decode_clip(DecodeJob(path=path, samples=4, short_side=96, span=Span(1, 2)))
    assert stored.frame_index == [30, 35, 40, 45]


def rows(path, text):
    path.write_text(text)
    return find_clips(path)


def test_rows_with_times_are_parts_of_their_file(tmp_path):
    found = rows(
        tmp_path / "m.csv",
        "path,label,Start,end\na.mp4,Squat,0,5\n./a.mp4,Lunge,0:05,\nb.mp4,Squat,,\nv_Row_g03_c01.avi,Row,,2\n",
    )
    assert [(c.clip_id, c.file, c.span, c.group) for c in found.clips] == [
        ("a.mp4#t=0,5", "a.mp4", Span(0, 5), None),
        ("a.mp4#t=5", "a.mp4", Span(5), None),
        ("b.mp4", "b.mp4", None, None),
        ("v_Row_g03_c01.avi#t=0,2", "v_Row_g03_c01.avi", Span(0, 2), "Row_g03"),
    ]
    assert all(not clip.extra for clip in found.clips)
    assert "3 clips are parts of 2 files" in found.notes


def test_parts_whose_groups_are_not_told_are_said_to_have_those_of_their_files(tmp_path):
    found = rows(tmp_path / "m.csv", "path,label,start,person\na.mp4,A,1,anna\nb.mp4,A,,ben\n")
    assert found.about_groups == (
        "no groups known; parts of one file count as one",
        "column 'person' may say which clips belong together: --group-by person takes it as group",
    )


def test_parts_of_two_classes_that_lie_over_each_other_are_remarked_on(tmp_path):
    table = "path,label,start,end\na.mp4,A,0,5\na.mp4,A,4,6\nb.mp4,B,5,7\na.mp4,A,7,9\na.mp4,B,8,\n./a.mp4,B,6,7\n"
    note = "1 part overlaps one of the same file and of another class, such as a.mp4#t=8 and a.mp4#t=7,9"
    assert [each for each in rows(tmp_path / "m.csv", table).notes if "overlap" in each] == [note]
    table = "path,label,start,end\na.mp4,A,0,100\na.mp4,A,10,20\na.mp4,B,30,40\nb.mp4,A,,\nb.mp4,B,3,4\n"
    note = "2 parts overlap one of the same file and of another class, such as b.mp4#t=3,4 and b.mp4"
    assert [each for each in rows(tmp_path / "m.csv", table).notes if "overlap" in each] == [note]


def held(clip_id, key, group=None, problem=""):
    return HeldClip(clip_id=clip_id, video_sha256=key, label="x", group=group, problem=problem)


def test_clips_of_a_file_that_has_parts_are_one_recording_whatever_their_names(tmp_path):
    cache = Cache(tmp_path / "cache", create=True)
    cache.write_clips([held("A/1.mp4#t=0,1", "aa#t=0,1"), held("1.mp4#t=4", "aa#t=4"), held("A/copy.mp4", "aa")])
    cache.write_clips([held("A/2.mp4#t=0,1", "bb#t=0,1"), held("A/2.mp4#t=1,2", "bb#t=1,2", "anna"), held("A/3", "cc")])
    told = {clip.clip_id: clip.group for clip in cache.clips()}
    assert told == {
        "1.mp4#t=4": "1.mp4",
        "A/1.mp4#t=0,1": "1.mp4",
        "A/copy.mp4": "1.mp4",
        "A/2.mp4#t=0,1": "anna",
        "A/2.mp4#t=1,2": "anna",
        "A/3": None,
    }
    assert {clip.clip_id: clip.group for clip in cache.entries()} == dict.fromkeys(told) | {"A/2.mp4#t=1,2": "anna"}


def test_clips_that_do_not_count_decide_no_group(tmp_path):
    """Parts that were taken out, that failed, or that have another name now."""
    cache = Cache(tmp_path / "cache", create=True)
    cache.write_clips([held("a#t=0,5", "aa#t=0,5", "anna", TAKEN_OUT), held("a#t=0,6", "aa#t=0,6", "ben")])
    cache.write_clips([held("a#t=6,9", "aa#t=6,9"), held("A/b", "bb"), held("0#t=1", "bb#t=1", problem="bad")])
    cache.write_clips([held("a#t=10", "aa#t=10", "anna")])
    cache.write_clips([held("c#t=10", "aa#t=10", "cleo")])  # the same part by another name
    told = {clip.clip_id: clip.group for clip in cache.clips()}
    assert (told["a#t=6,9"], told["A/b"]) == ("ben", None)


@pytest.mark.parametrize("rule", ["auto", "group", "kfold:2"])
def test_no_file_is_on_two_sides_where_only_parts_have_a_group(tmp_path, rule):
    cache = Cache(tmp_path / "cache", create=True)
    names = [(f"{file}.mp4", f"{at},{at + 1}") for file in "abcdefgh" for at in range(8)]
    clips = [held(f"{name}#t={at}", f"{name}#t={at}") for name, at in names]
    clips += [held(f"x/{i}.mp4", f"other {i}") for i in range(10)]
    cache.write_clips([replace(clip, label="AB"[i % 2]) for i, clip in enumerate(clips)])
    for fold in make_folds(rule, **columns(cache.clips()), seed=0):
        files = [{file_of(cache.clips()[i].clip_id) for i in side} for side in fold.split.sides]
        assert sum(map(len, files)) == 18
        assert all(files)


def test_parts_of_one_file_that_were_told_to_be_apart_are_remarked_on(tmp_path):
    cache = Cache(tmp_path / "cache", create=True)
    cache.write_clips(
        [held("a#t=0,1", "aa#t=0,1", "anna"), held("a#t=1,2", "aa#t=1,2", "ben"), held("c", "cc", "anna")]
    )
    assert parts_apart(cache.clips()) == ["1 file has parts in several groups, such as a#t=0,1 and a#t=1,2"]
    assert clips_in(cache, [], "features")[1] == parts_apart(cache.clips())
    cache.write_clips([held("a#t=1,2", "aa#t=1,2", "anna")])
    assert parts_apart(cache.clips()) == []


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


def test_a_split_by_lists_takes_parts_whatever_the_ending_and_folder_of_their_file(tmp_path):
    ids = [*(f"A/a.mp4#t={at},{at + 1}" for at in range(8)), "b.mp4#t=1,3", "c.mp4#t=1,3", "c.mp4#t=3,4"]
    ids += ["A/d.mp4", "B/d.mp4#t=1", "e.mp4#t=1"]
    (tmp_path / "train.txt").write_text("x/A/a.avi\n")
    (tmp_path / "test.txt").write_text("B/b.avi\nB/c.avi\nC/d.avi\nA/e.avi\n")
    rule = f"list:{tmp_path / 'train.txt'},{tmp_path / 'test.txt'}"
    split = make_split(rule, clip_ids=ids, labels=[*"ABABABABBABABB"], groups=[None] * 14, seed=0)
    assert sorted([*split.train, *split.val]) == list(range(8))
    assert sorted(split.test) == [8, 9, 10]  # d may be either, and e is of another class
    assert "2 names of the test list without a clip: C/d.avi, A/e.avi" in split.notes


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
        ('"#t=1,2",A,,', r"m\.csv, line 2: got '#t=1,2': expected a file before the times"),
        ("a.mp4,A,1,2\na.mp4,A,1.0,2", r"lines 2 and 3 both give the clip 'a\.mp4#t=1,2'"),
    ],
)
def test_times_that_cannot_be_used_are_refused_by_their_line(tmp_path, row, message):
    with pytest.raises(ManifestError, match=message):
        rows(tmp_path / "m.csv", f"path,label,start,end\n{row}\n")
