from __future__ import annotations

import csv
import os
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from fitrec_cache.common.files import as_given, write_csv
from fitrec_cache.dataset.clips import Clip, group_number
from fitrec_cache.dataset.find_clips import FITNESS35, find_clips
from fitrec_cache.dataset.manifests import read_ucf_list
from fitrec_cache.errors import ManifestError, UsageError

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "videos"
    touch(root, "Squat/v_Squat_g01_c01.avi", "Squat/deep/v_Squat_g02_c01.MP4", "Lunge/a.mkv", "Lunge/b.webm")
    return root


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write(path, text):
    path.write_bytes(text.encode())
    return path


def ids(found):
    return [clip.clip_id for clip in found.clips]


def said(found, text):
    return any(text in note for note in found.notes)


def test_of_very_many_classes_an_error_lists_some_and_the_nearest(tmp_path):
    touch(tmp_path, *(f"Class{k:03d}/a.avi" for k in range(101)))
    with pytest.raises(UsageError) as raised:
        find_clips(tmp_path, classes="Class1000")
    text = str(raised.value)
    assert text.startswith("unknown class 'Class1000'. Did you mean 'Class100'? Expected one of Class000, ")
    assert text.endswith(", Class029 and 71 more")
    with pytest.raises(UsageError) as raised:
        find_clips(tmp_path, classes=",".join(f"Classs{k:03d}" for k in range(20)))
    text = str(raised.value)
    assert text.startswith("20 unknown classes: 'Classs000' (did you mean 'Class000'?), ")
    assert " and 10 more. Expected some of Class000, Class001, " in text
    assert text.endswith(", Class029 and 71 more")


def test_folder_gives_sorted_relative_ids_first_folder_as_label_and_groups_by_name(folder):
    found = find_clips(folder)
    assert ids(found) == ["Lunge/a.mkv", "Lunge/b.webm", "Squat/deep/v_Squat_g02_c01.MP4", "Squat/v_Squat_g01_c01.avi"]
    assert [clip.label for clip in found.clips] == ["Lunge", "Lunge", "Squat", "Squat"]
    assert [clip.group for clip in found.clips] == [None, None, "Squat_g02", "Squat_g01"]
    assert found.clips[2].path == folder / "Squat/deep/v_Squat_g02_c01.MP4"
    assert said(found, "2 groups, named like Squat_g01, 2 of 4 clips have none")


def test_folder_passes_over_hidden_loose_and_other_files_and_says_so(folder):
    touch(folder, ".cache/x.avi", "Lunge/.hidden.avi", "Lunge/notes.txt", "Lunge/readme", "loose.avi", "Row/a.TXT")
    found = find_clips(folder)
    assert len(found.clips) == 4
    endings = ".avi .mp4 .m4v .mov .3gp .mkv .webm .mpg .mpeg .mts .m2ts .ts .wmv .asf .flv .f4v .3g2 .ogv .vob"
    assert said(found, f"skipped 3 files that are not {endings} (2 .txt, 1 without ending): Lunge/notes.txt, ")
    assert said(found, "skipped 1 file that is in no class folder: loose.avi")


def test_videos_of_recorders_older_phones_and_discs_are_found(folder):
    names = ["Row/a.flv", "Row/b.3g2", "Row/c.ogv", "Row/d.VOB", "Row/e.asf", "Row/f.f4v"]
    touch(folder, *names)
    assert [name for name in ids(find_clips(folder)) if name.startswith("Row")] == names


def test_class_folders_without_a_video_are_named(folder):
    touch(folder, "Plank/a.rm", "Row/deep/b.txt", ".git/config")
    (folder / "Empty").mkdir()
    assert said(find_clips(folder), "3 class folders hold no video: Empty, Plank, Row")


def test_root_with_a_folder_is_refused_instead_of_ignored(folder, tmp_path):
    with pytest.raises(UsageError, match=r"--root .* goes with a manifest or list, got the folder"):
        find_clips(folder, root=tmp_path)


@pytest.mark.parametrize("between", [";", "\t"])
def test_a_manifest_may_have_semicolons_or_tabs_as_spreadsheets_write_them(tmp_path, between):
    text = "path|label|group\na.avi|Squat, deep|x\n".replace("|", between)
    found = find_clips(write(tmp_path / "m.csv", text))
    assert [(c.clip_id, c.label, c.group) for c in found.clips] == [("a.avi", "Squat, deep", "x")]


def test_columns_are_in_one_spelling_as_groups_are(tmp_path):
    both = [unicodedata.normalize(form, "Zo\u00eb") for form in ("NFC", "NFD")]
    rows = "".join(f"{number}.avi,A,{name},{name}\n" for number, name in enumerate(both))
    first, second = find_clips(write(tmp_path / "m.csv", f"path,label,group,person\n{rows}")).clips
    assert first.group == second.group == first.extra["person"] == second.extra["person"] == both[0]


def test_commas_within_a_quoted_column_name_separate_nothing(tmp_path):
    text = 'path;label;"seen from left, right, or behind"\na.avi;Squat;left\n'
    (clip,) = find_clips(write(tmp_path / "m.csv", text)).clips
    assert (clip.clip_id, clip.label, clip.extra) == ("a.avi", "Squat", {"seen from left, right, or behind": "left"})


def test_a_manifest_none_of_whose_files_is_there_names_the_folder_and_root(tmp_path):
    path = write(tmp_path / "m.csv", "path,label\na.avi,A\nb.avi,B\n")
    hint = f"no file that m.csv names is there, looked for in {tmp_path}: --root names another folder"
    assert said(find_clips(path), hint)
    touch(tmp_path, "b.avi")
    assert not said(find_clips(path), "--root")


def test_a_class_folder_that_seems_to_hold_the_classes_is_told(tmp_path):
    touch(tmp_path, "all/Squat/1.mp4", "all/Lunge/2.mp4", "new/3.mp4")
    (note,) = (n for n in find_clips(tmp_path).notes if "holds" in n)
    assert note == (
        "class folder 'all' holds 2 folders of videos, such as Lunge, Squat, and all of these count as 'all': if they "
        f"are the classes, give {tmp_path / 'all'}"
    )
    assert not said(find_clips(tmp_path, group_by="folder"), "holds 2 folders")
    assert not said(find_clips(tmp_path, classes="new"), "holds")  # 'all' is not asked for
    touch(tmp_path, "all/4.mp4")
    assert not said(find_clips(tmp_path), "holds")


def test_people_inside_every_class_folder_are_no_classes(tmp_path):
    touch(tmp_path, *(f"{label}/{who}/1.mp4" for label in ("Squat", "Lunge") for who in ("anna", "ben")))
    assert not said(find_clips(tmp_path), "holds")
    assert not said(find_clips(tmp_path, classes="Squat"), "holds")
    names = write(tmp_path / "part-01.txt", "Squat/anna/1.mp4\nSquat/ben/1.mp4\n")
    assert not said(find_clips(tmp_path, lists=[names]), "holds")


def test_folder_with_a_link_in_a_circle_ends(folder):
    (folder / "Squat" / "again").symlink_to(folder, target_is_directory=True)
    assert len(find_clips(folder).clips) == 4


def test_linked_class_folder_is_read(folder, tmp_path):
    touch(tmp_path, "elsewhere/p.avi")
    (folder / "Plank").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert "Plank/p.avi" in ids(find_clips(folder))


def test_a_class_folder_that_is_a_dead_link_is_told(folder, tmp_path):
    (folder / "Plank").symlink_to(tmp_path / "gone", target_is_directory=True)
    found = find_clips(folder)
    assert said(found, "Plank is a link that leads nowhere")
    assert found.unread == (str(folder / "Plank"),)
    (folder / "Squat" / "notes.txt").symlink_to(tmp_path / "gone")
    assert find_clips(folder).unread == (str(folder / "Plank"),)  # no folder of clips was there
    (folder / "Curl 1.5kg").symlink_to(tmp_path / "gone", target_is_directory=True)
    assert find_clips(folder).unread == (str(folder / "Curl 1.5kg"), str(folder / "Plank"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads every folder")
def test_unreadable_folder_is_a_note(folder):
    (folder / "Squat").chmod(0)
    try:
        found = find_clips(folder)
        assert said(found, "cannot read folder")
        assert found.unread == (str(folder / "Squat"),)
    finally:
        (folder / "Squat").chmod(0o755)


def test_only_loose_files_is_an_error_that_names_them(tmp_path):
    touch(tmp_path, "one.avi", "two.mp4")
    with pytest.raises(ManifestError, match=r"no class folders.*one\.avi, two\.mp4"):
        find_clips(tmp_path)


def test_folders_that_link_to_each_other_are_no_circle(tmp_path):
    touch(tmp_path, "A/a.avi", "B/b.avi")
    (tmp_path / "A" / "to_b").symlink_to(tmp_path / "B")
    (tmp_path / "B" / "to_a").symlink_to(tmp_path / "A")
    found = [clip.clip_id for clip in find_clips(tmp_path).clips]
    assert found == ["A/a.avi", "A/to_b/b.avi", "B/b.avi", "B/to_a/a.avi"]


def test_folders_named_as_sides_of_a_split_hold_the_class_folders(tmp_path):
    touch(tmp_path, "train/Hop/a.avi", "Valid/Squat/anna/v_Squat_g07_c01.avi", "test/Hop/b.avi")
    found = find_clips(tmp_path)
    assert [(c.clip_id, c.label, c.group, dict(c.extra)) for c in found.clips] == [
        ("Valid/Squat/anna/v_Squat_g07_c01.avi", "Squat", "Squat_g07", {"split": "val"}),
        ("test/Hop/b.avi", "Hop", None, {"split": "test"}),
        ("train/Hop/a.avi", "Hop", None, {"split": "train"}),
    ]
    assert said(found, "folders named as sides of a split hold the class folders")
    grouped = find_clips(tmp_path, group_by="folder").clips
    assert [clip.group for clip in grouped] == ["anna", None, None]


@pytest.mark.parametrize(("one_more", "told"), [("train/c.avi", True), ("Squat/c.avi", False)])
def test_folders_named_as_sides_are_classes_where_not_all_is_in_class_folders_inside(tmp_path, one_more, told):
    touch(tmp_path, "train/Hop/a.avi", "val/Squat/b.avi", one_more)
    found = find_clips(tmp_path)
    assert {clip.label for clip in found.clips} == {"train", "val", one_more.split("/")[0]}
    assert not any(clip.extra for clip in found.clips)
    assert said(found, "called as sides of a split, and taken for classes as videos lie in them: train/c.avi") == told


def test_folders_named_as_sides_that_are_taken_for_classes_are_told(tmp_path):
    touch(tmp_path, "train/Hop/a.avi", "train/Squat/b.avi", "val/Hop/c.avi", "val/Squat/d.avi")
    assert not said(find_clips(tmp_path), "hold folders, but")
    touch(tmp_path, "demo/e.avi")
    assert said(
        find_clips(tmp_path),
        "folders named as sides of a split (train, val) hold folders, but are taken for classes because of demo beside "
        "them: if they are sides, move that elsewhere, or name it train, val or test",
    )
    touch(tmp_path, "val/f.avi")
    assert not said(find_clips(tmp_path), "hold folders, but")


def test_sides_may_have_the_names_that_data_sets_give_them(tmp_path):
    names = ["Training", "train", "valid", "VALIDATION", "validate", "val", "testing", "test", "other"]
    rows = "".join(f"{i}.avi,A,{name}\n" for i, name in enumerate(names))
    found = find_clips(write(tmp_path / "m.csv", f"path,label,split\n{rows}")).clips
    assert [clip.extra["split"] for clip in found] == ["train"] * 2 + ["val"] * 4 + ["test"] * 2 + ["other"]


def test_of_sides_taken_for_classes_none_is_advised_as_the_folder_to_give(tmp_path):
    touch(
        tmp_path,
        "train/Hop/a.avi",
        "train/Squat/b.avi",
        "val/Hop/c.avi",
        "demo/e.avi",
        "Gym/Hop/f.avi",
        "Gym/Sit/g.avi",
    )
    notes = "".join(find_clips(tmp_path).notes)
    assert "class folder 'Gym' holds 2 folders" in notes
    assert "class folder 'train'" not in notes


def test_folders_named_as_sides_inside_class_folders_are_no_people(tmp_path):
    touch(
        tmp_path, *(f"{label}/{side}/{n}.avi" for label in ("Hop", "Squat") for side in ("train", "test") for n in "ab")
    )
    _, hint = find_clips(tmp_path).about_groups
    assert hint == (
        "folders such as 'test' inside the class folders do not count as sides of a split: for --split manifest, have "
        "them around the class folders, as in train/Squat/a.mp4, or write a manifest"
    )


def test_names_that_are_no_text_are_shown_as_text(tmp_path):
    touch(tmp_path, "Hop/a.avi")
    (tmp_path / os.fsdecode(b"\xfcbung.avi")).touch()
    note = next(note for note in find_clips(tmp_path).notes if "in no class folder" in note)
    assert note.encode()
    assert r"\xfcbung.avi" in note


@pytest.mark.parametrize("made", [[], ["Squat/readme.md"]])
def test_folder_without_videos_is_an_error(tmp_path, made):
    touch(tmp_path, *made)
    with pytest.raises(ManifestError, match="no videos in"):
        find_clips(tmp_path)


def test_folders_of_frames_are_told_to_become_videos_first(tmp_path):
    touch(tmp_path, "Squat/0001/000001.jpg", "Squat/0001/000002.JPG", "Squat/readme.md")
    with pytest.raises(ManifestError, match=r"no videos in .*2 pictures such as Squat/0001/000001\.jpg: make a video"):
        find_clips(tmp_path)


def test_missing_and_unsupported_inputs(tmp_path):
    with pytest.raises(UsageError, match="no such file or folder"):
        find_clips(tmp_path / "nowhere")
    touch(tmp_path, "one.mp4")
    with pytest.raises(UsageError, match="expected a folder of class folders"):
        find_clips(tmp_path / "one.mp4")
    with pytest.raises(UsageError, match="no such folder"):
        find_clips(write(tmp_path / "m.csv", "path,label\na.avi,A\n"), root=tmp_path / "nowhere")


def test_absent_groups_are_noted(tmp_path):
    touch(tmp_path, "A/1.avi", "B/1.avi", "B/2.avi")
    assert find_clips(tmp_path).notes == ()
    assert find_clips(tmp_path).about_groups == ("no groups known",)


def test_file_names_that_are_no_plain_text_get_ids_that_are(tmp_path):
    touch(tmp_path, os.fsdecode(b"A/\xff.avi"), "A/two\nlines.avi", "B/ünï cödé.avi")
    found = find_clips(tmp_path)
    assert ids(found) == ["A/\\xff.avi", "A/two\\x0alines.avi", "B/ünï cödé.avi"]
    assert all(clip.path.exists() for clip in found.clips)


def test_file_names_that_cannot_be_ids_cost_themselves_only(tmp_path):
    deep = "A/" + "/".join(["x" * 200] * 6) + "/a.avi"
    touch(tmp_path, deep, "A/\\xff.avi", os.fsdecode(b"A/\xff.avi"), "A/good.avi")
    found = find_clips(tmp_path)
    assert ids(found) == ["A/\\xff.avi", "A/good.avi"]
    assert said(found, "skipped A/xxx")
    assert said(found, "skipped A/\\xff.avi..: its name is too long or is that of another")


def test_misspelt_columns_are_pointed_at(tmp_path):
    with pytest.raises(ManifestError, match=r"no column label\. Got path, lable;.* Is 'lable' meant to be 'label'\?"):
        find_clips(write(tmp_path / "m.csv", "path,lable\na.avi,A\n"))
    found = find_clips(write(tmp_path / "m.csv", "path,label,gruop,splt,place\na.avi,A,g1,test,gym\n"))
    assert said(found, "column 'gruop' is kept but not used: is it meant to be 'group'?")
    assert said(found, "column 'splt' is kept but not used: is it meant to be 'split'?")
    assert not said(found, "place")
    with pytest.raises(ManifestError, match=r"Is 'Video' meant to be 'path'\? Is 'exercise' meant to be 'label'\?"):
        find_clips(write(tmp_path / "m.csv", "Video,exercise\na.avi,A\n"))
    told = "column 'Subset' is kept but not used: is it meant to be 'split'?"
    assert said(find_clips(write(tmp_path / "m.csv", "path,label,Subset\na.avi,A,train\n")), told)
    assert not said(find_clips(write(tmp_path / "m.csv", "path,label,Subset,split\na.avi,A,x,train\n")), told)
    assert not any(
        n.startswith("column") for n in find_clips(write(tmp_path / "n.csv", "path,label,split\na,A,train\n")).notes
    )


def test_manifest_with_every_column(tmp_path):
    touch(tmp_path, "Squat/v_Squat_g03_c01.avi")
    row = './Squat//v_Squat_g03_c01.avi,Squat,g9,test,"gym, left"'
    text = f"\ufeffpath, label,group,split,place\r\n{row}\r\nb.avi,Lunge,,,\r\n"
    found = find_clips(write(tmp_path / "m.csv", text))
    assert found.clips[0] == Clip(
        clip_id="Squat/v_Squat_g03_c01.avi",
        file="Squat/v_Squat_g03_c01.avi",
        folder=tmp_path,
        label="Squat",
        group="g9",
        extra={"split": "test", "place": "gym, left"},
    )
    assert found.clips[1].group is None
    assert said(found, "1 file that is missing, of 2: b.avi")


def test_missing_files_are_counted_not_their_parts(tmp_path):
    touch(tmp_path, "here.mp4")
    rows = ["here.mp4,Hop,0,1", "here.mp4,Hop,1,2", "a.mp4,Hop,0,1", "a.mp4,Squat,1,2", "b.mp4,Squat,,"]
    found = find_clips(write(tmp_path / "m.csv", "\n".join(["path,label,start,end", *rows])))
    assert said(found, "2 files that are missing, of 3: a.mp4, b.mp4")


def test_an_empty_cell_of_the_group_column_says_that_there_is_none(tmp_path):
    rows = "path,label,group\nv_Squat_g03_c01.avi,Squat,\nv_Squat_g04_c01.avi,Squat,anna\n"
    assert [clip.group for clip in find_clips(write(tmp_path / "m.csv", rows)).clips] == [None, "anna"]


def test_manifest_without_group_column_reads_groups_off_names(tmp_path):
    found = find_clips(write(tmp_path / "m.csv", "label,path\nSquat,x\\v_Squat_g03_c01.avi\n"))
    assert (found.clips[0].clip_id, found.clips[0].group) == ("x/v_Squat_g03_c01.avi", "Squat_g03")


def test_manifest_paths_outside_are_known_by_label_and_file(tmp_path):
    text = f"path,label\n{tmp_path}/far/a.avi,Squat\n../up/b.avi,Lunge\n"
    found = find_clips(write(tmp_path / "m.csv", text), root=tmp_path / ".")
    assert ids(found) == ["Lunge/b.avi", "Squat/a.avi"]
    assert [clip.path for clip in found.clips] == [tmp_path / "../up/b.avi", tmp_path / "far/a.avi"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column path and label. Got no header"),
        ("file,label\na,b\n", "no column path. Got file, label"),
        ("path|label\na|b\n", "separated by commas"),
        ("path,label\n", "no rows"),
        ("path,label\na.avi,A\n\nb.avi, \n", "line 4: empty label"),
        ("path,label\n,A\n", "line 2: empty path"),
        ("path,label,start\na.avi,A,\nb.avi,,\n", "line 3: empty label"),
        ("path,label,start\na.avi,,1\n", "has a header but no rows with a label"),
        ("path,label\n'a.avi#t=3,4',\n".replace("'", '"'), "has a header but no rows with a label"),
        ("path,label,start\na.avi,A,\n,,5\n", "line 3: empty path"),
        ("path,label,start\na.avi,A,\nb.avi,,bad\n", "line 3"),
        ("path,label\na.avi,A,x\n", "line 2: more cells than columns"),
        ("path,label,,\na.avi,A,,x\n", "line 2: more cells than columns"),
        ("path,label,label\na.avi,A,B\n", "label occurs more than once"),
        ("path,label\na.avi,A\nb.avi,A\n./a.avi,B\n", "lines 2 and 4 both give the clip 'a.avi'"),
        ("path,label\na\x01.avi,A\n", "control or undecodable"),
        ("path,label\na\x00.avi,A\n", "control or undecodable|not a CSV file"),
        ("path,label\n" + "a" * 1001 + ",A\n", "clip id of 1001 characters"),
        ('path,label\n"a.avi,A\n', "not a CSV file"),
    ],
)
def test_manifest_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(ManifestError, match=message):
        find_clips(write(tmp_path / "m.csv", text))


def test_groups_are_what_one_says_they_are(tmp_path):
    for name in ("Squat/anna/v_Squat_g01_c01.avi", "Squat/ben/day 2/a.avi", "Row/anna/b.avi", "Row/c.avi"):
        (tmp_path / "v" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "v" / name).touch()
    found = find_clips(tmp_path / "v", group_by="folder")
    assert {c.clip_id.split("/")[-1]: c.group for c in found.clips} == {
        "v_Squat_g01_c01.avi": "anna",
        "a.avi": "ben/day 2",
        "b.avi": "anna",
        "c.avi": None,
    }
    rows = "path,label,person,group\na.avi,A,anna,g1\nb.avi,B,anna,g2\nc.avi,B,,g3\n"
    found = find_clips(write(tmp_path / "m.csv", rows), group_by="person")
    assert [(c.group, c.extra["person"]) for c in found.clips] == [("anna", "anna"), ("anna", "anna"), (None, "")]
    with pytest.raises(UsageError, match=r"unknown column 'persn'.*person"):
        find_clips(tmp_path / "m.csv", group_by="persn")
    assert [c.group for c in find_clips(tmp_path / "m.csv", group_by="PERSON").clips] == ["anna", "anna", None]
    assert [c.group for c in find_clips(tmp_path / "m.csv", group_by="group").clips] == ["g1", "g2", "g3"]
    with pytest.raises(
        UsageError, match=r"--group-by folder gives no clip a group, such as 'a\.avi': expected folders"
    ):
        find_clips(tmp_path / "m.csv", group_by="folder")
    empty = write(tmp_path / "e.csv", "path,label,person\nv_A_g01_c01.avi,A,\nb.avi,B,\n")
    with pytest.raises(UsageError, match=r"--group-by person gives no clip a group.*expected a value for some"):
        find_clips(empty, group_by="person")


def test_of_columns_alike_but_for_capitals_the_exact_one_counts(tmp_path):
    rows = write(tmp_path / "m.csv", "path,label,person,Person\na.avi,A,x,y\nb.avi,B,x,y\n")
    for name, group in (("person", "x"), ("Person", "y")):
        assert {c.group for c in find_clips(rows, group_by=name).clips} == {group}


def test_columns_without_a_name_are_left_out(tmp_path):
    """Pandas writes the number of each row in front, under no name."""
    touch(tmp_path, "Hop/1.avi")
    (tmp_path / "m.csv").write_text(",path,label,person,\n0,Hop/1.avi,Hop,ann,\n")
    (clip,) = find_clips(tmp_path / "m.csv").clips
    assert dict(clip.extra) == {"person": "ann"}


def test_quotes_behind_a_space_are_quotes(tmp_path):
    (clip,) = find_clips(write(tmp_path / "m.csv", 'path, label\na.avi, "Squat, deep"\n')).clips
    assert (clip.clip_id, clip.label) == ("a.avi", "Squat, deep")


def test_an_empty_column_of_groups_is_none_to_go_by(tmp_path):
    rows = write(tmp_path / "m.csv", "path,label,group\na.avi,A,\nb.avi,B,\n")
    with pytest.raises(UsageError, match="--group-by group gives no clip a group"):
        find_clips(rows, group_by="group")


def test_class_folders_that_lie_deeper_are_no_groups(tmp_path):
    rows = "path,label\nvideos/Squat/1.mp4,Squat\nvideos/Lunge/1.mp4,Lunge\nvideos/Lunge/2.mp4,Lunge\n"
    assert find_clips(write(tmp_path / "m.csv", rows)).about_groups == ("no groups known",)
    with pytest.raises(UsageError, match="gives no clip a group"):
        find_clips(tmp_path / "m.csv", group_by="folder")
    deeper = rows.replace("/1", "/anna/1").replace("/2", "/ben/2")
    found = find_clips(write(tmp_path / "d.csv", deeper), group_by="folder")
    assert [c.group for c in found.clips] == ["anna", "ben", "anna"]
    found = find_clips(write(tmp_path / "l.csv", deeper.replace(",Lunge", ",lunge")), group_by="folder")
    assert [c.group for c in found.clips] == ["anna", "ben", "anna"]


def test_of_folders_that_are_called_as_the_class_the_nearest_is_its_folder(tmp_path):
    rows = "path,label\nSquat/2026/Squat/anna/1.mp4,Squat\nLunge/2.mp4,Lunge\n"
    found = find_clips(write(tmp_path / "m.csv", rows), group_by="folder")
    assert {c.clip_id[-5:]: c.group for c in found.clips} == {"1.mp4": "anna", "2.mp4": None}


def test_what_may_tell_groups_is_pointed_at_where_none_are_known(tmp_path):
    for name in ("Squat/anna/1.avi", "Squat/ben/1.avi", "Row/anna/1.avi"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    hint = (
        "clips lie in folders such as 'anna' inside their class folders: if these are people or recordings, "
        "--group-by folder takes them as groups"
    )
    assert hint in find_clips(tmp_path).about_groups
    assert hint not in find_clips(tmp_path, group_by="folder").about_groups
    (tmp_path / "Row" / "2.avi").touch()  # then the folders are something else
    assert hint not in find_clips(tmp_path).about_groups
    rows = write(tmp_path / "m.csv", "path,label,Person\na.avi,A,anna\nb.avi,B,ben\n")
    hint = "column 'Person' may say which clips belong together: --group-by Person takes it as group"
    assert hint in find_clips(rows).about_groups
    assert hint not in find_clips(rows, group_by="Person").about_groups


def test_columns_of_times_by_other_names_are_said_to_be_of_no_use(tmp_path):
    rows = write(tmp_path / "m.csv", "path,label,start_frame,Ends,grup\na.avi,A,0,9,x\n")
    notes = find_clips(rows).notes
    assert (
        "columns start_frame, Ends are kept but not used: for clips that are parts of their files the columns "
        "are start and end, in seconds (a frame's number divided by the frames per second)"
    ) in notes
    assert any("is it meant to be 'group'?" in note for note in notes)


@pytest.mark.parametrize(
    "columns",
    [
        "time_start,time_end",
        "Start Frame,End Frame",
        "t-start,t-end",
        "start (s),end_ms",
        "Begin Time - ss.msec,End Time - hh:mm:ss.ms",
        "start_timestamp,stop_timestamp",
        "first_frame,Last Frame",
        "onset,offset",
    ],
)
def test_a_file_in_several_rows_with_times_by_other_names_is_told_what_columns_count(tmp_path, columns):
    rows = write(tmp_path / "m.csv", f"path,label,{columns}\na.avi,A,0,80\na.avi,B,100,180\n")
    with pytest.raises(
        ManifestError, match=r"lines 2 and 3 both give.*the columns are start and end, in seconds"
    ) as told:
        find_clips(rows)
    assert all(each in str(told.value) for each in columns.split(","))


def test_a_part_that_is_named_twice_is_not_laid_to_further_columns(tmp_path):
    rows = write(tmp_path / "m.csv", "path,label,start,end,start_frame\na.avi,A,0,2,0\na.avi,A,0,2,0\n")
    with pytest.raises(ManifestError, match=r"both give the clip 'a\.avi#t=0,2'\. Expected each once: remove one"):
        find_clips(rows)


def test_one_column_of_times_is_told_as_one(tmp_path):
    rows = write(tmp_path / "m.csv", "path,label,to\na.avi,A,9\n")
    assert any(note.startswith("column to is kept but not used: for clips") for note in find_clips(rows).notes)
    write(tmp_path / "m.csv", "path,label,to\na.avi,A,9\na.avi,A,9\n")
    with pytest.raises(ManifestError, match=r"the clip 'a\.avi'; column to is not used: for clips"):
        find_clips(rows)


def test_further_columns_that_are_no_times_are_not_taken_for_some(tmp_path):
    rows = write(
        tmp_path / "m.csv", "path,label,trend,weekend,backend,tempo,total,first,Friend - 1\na.avi,A,1,2,3,4,5,6,7\n"
    )
    assert not any("kept but not used" in note for note in find_clips(rows).notes)


@pytest.mark.parametrize(
    "text",
    [
        "path,label,,\na.avi,A,,\n",
        "path,label\na.avi,A,,\n",
        "path,label,,\na.avi,A\n",
        "path,label\na.avi,A\n,\n , ,\n",
    ],
)
def test_empty_columns_and_rows_that_spreadsheets_add_are_none(tmp_path, text):
    (clip,) = find_clips(write(tmp_path / "m.csv", text)).clips
    assert (clip.clip_id, clip.label, dict(clip.extra)) == ("a.avi", "A", {})


def test_capitals_of_columns_and_sides_do_not_matter(tmp_path):
    touch(tmp_path, "a.avi", "b.avi", "c.avi")
    rows = "Path;LABEL;Group;Split\na.avi;A;g1;Train\nb.avi;B;g2;TEST\nc.avi;B;g3;tset\n"
    found = find_clips(write(tmp_path / "m.csv", rows))
    assert [(c.clip_id, c.label, c.group, c.extra["split"]) for c in found.clips] == [
        ("a.avi", "A", "g1", "train"),
        ("b.avi", "B", "g2", "test"),
        ("c.avi", "B", "g3", "tset"),
    ]
    assert said(found, "column split: 1 clip has a value that is none of train, val and test, such as 'tset' of c.avi")
    with pytest.raises(ManifestError, match=r"column path occurs more than once"):
        find_clips(write(tmp_path / "n.csv", "path,Path,label\na.avi,b.avi,A\n"))


def test_labels_in_two_spellings_of_the_same_letters_are_one_class(tmp_path):
    composed, apart = "Kniebeug\u00e9", "Kniebeuge\u0301"
    touch(
        tmp_path,
        f"{composed}/v_{composed}_g01_c01.avi",
        f"{apart}/v_{apart}_g01_c02.avi",
        "PullUp/c.avi",
        "PullUp /d.avi",
        "pullup/e.avi",
    )
    found = find_clips(tmp_path)
    assert {c.label for c in found.clips} == {composed, "PullUp", "pullup"}
    assert all(c.path.is_file() for c in found.clips)
    assert {c.group for c in found.clips} == {f"{composed}_g01", None}
    assert len(find_clips(tmp_path, classes=apart).clips) == 2
    assert said(found, "classes 'PullUp', 'pullup' differ in capitals or spaces only: are they one class?")


def test_a_class_that_is_called_as_no_answer_is_told(tmp_path):
    touch(tmp_path, "Squat/a.avi", "Unknown/b.avi")
    assert said(find_clips(tmp_path), "no head takes a class 'Unknown', which is an answer")
    assert not said(find_clips(tmp_path, classes="Squat"), "no head takes")


def test_names_are_found_in_whichever_spelling_the_disk_has_them(tmp_path):
    """A Mac may write ü in two characters, and an archive brings such names along; bytes that are no text have ids."""
    two, one = "Squat/U\u0308bung/u\u0308.avi", "Squat/\u00dcbung/\u00fc.avi"
    touch(tmp_path, two, "Squat/a.avi")
    touch(tmp_path, os.fsdecode(b"Squat/caf\xe9.avi"))
    by_folder = find_clips(tmp_path)
    assert ids(by_folder) == ["Squat/a.avi", r"Squat/caf\xe9.avi", one]
    rows = "".join(f"{name},Squat\n" for name in ids(by_folder))
    for name, text in (("m.csv", "path,label\n" + rows), ("l.txt", f"{one} 1\nSquat/a.avi 1\n")):
        found = find_clips(write(tmp_path / name, text))
        assert all(clip.path.exists() for clip in found.clips)
        assert [clip for clip in by_folder.clips if clip.clip_id in ids(found)] == [
            replace(clip, folder=tmp_path) for clip in found.clips
        ]
        assert not said(found, "missing")
    assert ids(find_clips(tmp_path, lists=[write(tmp_path / "some.txt", f"{two}\n")])) == [one]


def test_a_backslash_is_what_windows_has_between_folders_unless_a_file_is_called_so(tmp_path):
    touch(tmp_path, "Squat/a.avi", "Squat/b\\c.avi")
    found = find_clips(write(tmp_path / "m.csv", "path,label\nSquat\\a.avi,Squat\nSquat/b\\c.avi,Squat\n"))
    assert [(clip.clip_id, clip.path.exists()) for clip in found.clips] == [
        ("Squat/a.avi", True),
        ("Squat/b\\c.avi", True),
    ]


@pytest.mark.parametrize("path", ["C:\\Users\\me\\Squat\\a.mp4", "c:/Users/me/Squat/a.mp4"])
@pytest.mark.parametrize("as_list", [False, True])
def test_a_path_with_the_letter_of_a_windows_drive_is_refused_and_where_it_is_in_wsl_told(tmp_path, path, as_list):
    given = write(
        tmp_path / ("l.txt" if as_list else "m.csv"), f"{path}\n" if as_list else f"path,label\n{path},Squat\n"
    )
    with pytest.raises(ManifestError, match=r"line \d.* is a path of Windows\. In WSL, .:\\ is the folder /mnt/c"):
        read_ucf_list(given) if as_list else find_clips(given)


def test_a_file_called_as_a_windows_path_is_taken(tmp_path):
    touch(tmp_path, "C:/a.avi")
    (clip,) = find_clips(write(tmp_path / "m.csv", "path,label\nC:/a.avi,Squat\n")).clips
    assert clip.path.exists()


def test_manifest_in_another_encoding(tmp_path):
    (tmp_path / "m.csv").write_bytes("path,label\na.avi,Squat\nä.avi,Ü\n".encode("latin-1"))
    with pytest.raises(ManifestError, match=r"m\.csv is not in UTF-8, see line 3: save it as 'CSV UTF-8'"):
        find_clips(tmp_path / "m.csv")


def test_list_in_another_encoding(tmp_path):
    (tmp_path / "list.txt").write_bytes("A/a.avi\nÜ/ä.avi\n".encode("latin-1"))
    with pytest.raises(ManifestError, match=r"list\.txt is not text in UTF-8, see line 2: save it as plain text"):
        find_clips(tmp_path / "list.txt")


def test_manifest_with_a_path_too_long_for_the_system_is_a_missing_file(tmp_path):
    assert said(find_clips(write(tmp_path / "m.csv", f"path,label\n{'a' * 900},A\n")), "missing, of 1")


def test_ucf_list_with_and_without_numbers(tmp_path):
    path = write(tmp_path / "list.txt", "Squat/v_Squat_g01_c01.avi 1\r\n\r\nJump Rope/clip 2.avi\r\n")
    assert read_ucf_list(path) == ["Squat/v_Squat_g01_c01.avi", "Jump Rope/clip 2.avi"]
    found = find_clips(path, root=tmp_path)
    assert ids(found) == ["Jump Rope/clip 2.avi", "Squat/v_Squat_g01_c01.avi"]
    assert [clip.label for clip in found.clips] == ["Jump Rope", "Squat"]
    assert found.clips[1].group == "Squat_g01"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no clip"),
        ("A/a.avi\nb.avi 2\n", "line 2: got 'b.avi'"),
        ("/A/a.avi\n", "line 1"),
        ("A/a.avi\n/\n", "line 2: got '/'"),
        ("A/../a.avi", "line 1"),
    ],
)
def test_ucf_list_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(ManifestError, match=message):
        read_ucf_list(write(tmp_path / "list.txt", text))


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ("1 2 1 2", True),
        ("take_g1 take_g2 take_g1 take_g2", True),
        ("1 1 2 2", False),
        ("take_g1 take_g1 take_g2 take_g2", False),
        ("ann ann ann bob", False),
    ],
)
def test_group_numbers_that_begin_again_in_each_class_are_told(tmp_path, groups, told):
    names = ["Hop/a.mp4", "Hop/b.mp4", "Squat/a.mp4", "Squat/b.mp4"]
    rows = [f"{name},{name[:-6]},{group}" for name, group in zip(names, groups.split(), strict=True)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,group", *rows, ""]))
    notes = find_clips(tmp_path / "clips.csv").notes
    assert (
        any("2 groups of a number with clips of several classes" in n and "write Hop_g01" in n for n in notes) is told
    )


@pytest.mark.parametrize("folder", ["videos_train", "./videos_train", "videos_train\\deep"])
def test_a_list_whose_numbers_contradict_its_folders_is_refused(tmp_path, folder):
    """MMAction2's lists have the class as a number, and often all videos in one folder."""
    path = write(tmp_path / "list.txt", f"{folder}/a.mp4 10\n{folder}/b.mp4 2\nother/c.mp4 10\n")
    with pytest.raises(ManifestError, match=r"in the folder 'videos_train' have several numbers, 2, 10\. .*manifest"):
        find_clips(path)
    assert len(find_clips(write(path, f"{folder}/a.mp4 2\n{folder}/b.mp4\nother/c.mp4 2\n")).clips) == 3


def test_ucf_list_names_both_lines_of_a_duplicate(tmp_path):
    with pytest.raises(ManifestError, match="lines 1 and 3"):
        find_clips(write(tmp_path / "list.txt", "A/a.avi 1\nA/b.avi 1\nA/a.avi 1\n"))


def test_missing_list_is_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        read_ucf_list(tmp_path / "none.txt")


def test_lists_restrict_a_folder_whatever_the_file_type(folder, tmp_path):
    first = write(tmp_path / "1.txt", "Squat/v_Squat_g01_c01.mp4 1\nSquat/gone.avi 1\n")
    second = write(tmp_path / "2.txt", "Lunge/a.mkv\n")
    found = find_clips(folder, lists=[first, second])
    assert ids(found) == ["Lunge/a.mkv", "Squat/v_Squat_g01_c01.avi"]
    assert said(found, "1 clip named in")
    with pytest.raises(ManifestError, match="no clip is in"):
        find_clips(folder, lists=[write(tmp_path / "3.txt", "Plank/a.mkv\n")])


def test_a_number_that_belongs_to_a_class_name_stays_in_a_file_of_classes(tmp_path):
    for name in ("3 Squat", "Squat", "01", "Push, Up"):
        touch(tmp_path / "v", f"{name}/1.avi", f"{name}/2.avi")
    (tmp_path / "c.txt").write_text("3 squat\n7 Push, Up\n01\n")
    found = find_clips(tmp_path / "v", classes=str(tmp_path / "c.txt"))
    assert {clip.label for clip in found.clips} == {"3 Squat", "Push, Up", "01"}


def test_classes_by_name_and_by_file_whatever_the_case(folder, tmp_path):
    assert ids(find_clips(folder, classes="lunge")) == ["Lunge/a.mkv", "Lunge/b.webm"]
    assert len(find_clips(folder, classes=" Lunge, SQUAT,").clips) == 4
    assert len(find_clips(folder, classes=str(write(tmp_path / "c.txt", "1 Lunge\r\n2 Squat\r\n"))).clips) == 4
    assert len(find_clips(folder, classes=str(write(tmp_path / "d.txt", "Squat\n"))).clips) == 2


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("Squats", "unknown class 'Squats'.*Did you mean 'Squat'"),
        (
            "Lunge,Squats,Plank",
            r"2 unknown classes: 'Squats' \(did you mean 'Squat'\?\), 'Plank'. Expected some of Lunge",
        ),
        (",".join(FITNESS35), "35 unknown classes"),  # longer than a file name may be
        (" , ", "no class name"),
        ("none.txt", "no such file"),
        ("fitness35", "35 unknown classes"),
    ],
)
def test_unknown_classes(folder, classes, message):
    with pytest.raises(UsageError, match=message):
        find_clips(folder, classes=classes)


def test_fitness35_takes_what_is_there_in_either_spelling(tmp_path):
    touch(tmp_path, "HandStandPushups/a.avi", "Archery/a.avi", "Lunges/a.avi")
    found = find_clips(tmp_path, classes="fitness35")
    assert [clip.label for clip in found.clips] == ["HandStandPushups", "Lunges"]
    assert said(found, "33 classes of fitness35 have no clips: BalanceBeam")


def test_group_number():
    assert [group_number(name) for name in ("A_g07", "A_g100", "3", "gym", "")] == [7, 100, 3, None, None]
    proposed = ("recording-00001", "room 3", "A_g07b")  # of which no official list says anything
    assert [group_number(name) for name in proposed] == [None, None, None]


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared folder with UCF101's lists beside the project")
def test_fitness35_are_35_classes_of_ucf101():
    lines = (SHARED / "data/ucfTrainTestlist/classInd.txt").read_text().split()
    assert len(set(FITNESS35)) == 35
    assert {name.casefold() for name in FITNESS35} <= {name.casefold() for name in lines}


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared folder with real clips beside the project")
def test_real_clips_in_ucf101s_layout():
    root = SHARED / "data/exercises30"
    found = find_clips(root)
    assert len(found.clips) == 1332
    assert len({clip.label for clip in found.clips}) == 30
    assert all(clip.group for clip in found.clips)
    from_manifest = find_clips(root / "clips.csv")
    assert ids(from_manifest) == ids(found)
    assert all(clip.extra["frames"].isdigit() for clip in from_manifest.clips)
    parts = [root / "splits/trainlist01.txt", root / "splits/testlist01.txt"]
    assert len(find_clips(root, lists=parts).clips) == 1332


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("v_Squat_g01_c02", "Squat_g01"),
        ("squat_g01_front", "squat_g01"),
        ("squat_g2", "squat_g02"),
        ("squat_g002_c1", "squat_g02"),
        ("squat_gym", None),
    ],
)
def test_groups_are_read_off_any_name_with_a_group_number(tmp_path, name, group):
    touch(tmp_path, f"Squat/{name}.mp4")
    assert find_clips(tmp_path).clips[0].group == group


@pytest.mark.parametrize(
    "name",
    ["=1+1", "@SUM(A1)", "+a", "-a", "'=1", "\t=1", "-", "a=b", "'a", "-0.5", "-inf", "-1_0", " 5", " a", "\u3000a"],
)
def test_a_table_holds_no_formula_and_is_read_as_it_was(tmp_path, name):
    write_csv(tmp_path / "t.csv", ("path", "label"), [{"path": f"{name}.mp4", "label": name}])
    (row,) = csv.DictReader((tmp_path / "t.csv").read_text().splitlines())
    for cell in row.values():
        assert cell[0] not in "=+-@\t \u3000" or cell == "-0.5"
    assert as_given(row["label"]) == name
    (tmp_path / f"{name}.mp4").touch()
    if "\t" not in name:  # else it is refused
        (clip,) = find_clips(tmp_path / "t.csv").clips
        assert (clip.file, clip.label) == (f"{name}.mp4", name.strip())


def test_endings_of_manifests_and_lists_may_be_in_capitals(tmp_path):
    found = find_clips(write(tmp_path / "M.CSV", "path,label,person\na.avi,A,anna\n"))
    assert ids(found) == ["a.avi"]
    assert ids(find_clips(write(tmp_path / "L.TXT", "A/a.avi\n"))) == ["A/a.avi"]


@pytest.mark.parametrize("row", ["a\x01.avi,A,g", "a.avi,A\x01,g", "a.avi,A,g\x01"])
def test_control_characters_of_a_manifest_are_refused_wherever_they_stand(tmp_path, row):
    with pytest.raises(ManifestError, match="control or undecodable characters"):
        find_clips(write(tmp_path / "m.csv", f"path,label,group\n{row}\n"))


def test_a_folder_of_its_own_for_each_clip_is_no_sign_of_groups(tmp_path):
    touch(tmp_path, "Squat/1/a.avi", "Squat/2/a.avi", "Row/3/a.avi")
    assert not any("--group-by" in note for note in find_clips(tmp_path).about_groups)
