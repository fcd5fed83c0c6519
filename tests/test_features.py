from __future__ import annotations

import numpy as np
import pytest
import torch

from fitrec_cache.errors import UsageError
from fitrec_cache.features import Features, as_ours
from fitrec_cache.training.loading import load_clips


def features(**changed):
    given = {
        "values": np.arange(24, dtype=np.float16).reshape(3, 4, 2),
        "pts_seconds": np.zeros((3, 4)),
        "clip_ids": ["a", "b", "c"],
        "labels": ["A", "A", "B"],
        "groups": ["g", None, "h"],
        "extra": [{"room": r} for r in "xyz"],
    }
    return Features(**given | changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"values": features().values + 1},
        {"values": features().values.view(np.uint16)},
        {"clip_ids": ["a", "b", "d"]},
        {"labels": ["A", "B", "B"]},
        {"groups": ["g", None, "g"]},
    ],
)
def test_the_digest_tells_apart_all_that_decides_a_training(changed):
    assert features(**changed).digest() != features().digest()


def test_the_digest_minds_nothing_else():
    assert features(extra=[], pts_seconds=np.ones((3, 4)), name="other", notes=["x"]).digest() == features().digest()


def test_the_length_of_clips_by_hand():
    """Four frames at 1 to 4 fifths: of clips of 5, 10 and 20 s; a still one and one without times tell nothing."""
    fifths = np.arange(1, 5) / 5
    times = np.stack([5 * fifths, 10 * fifths, 20 * fifths, np.zeros(4), np.full(4, np.nan)])
    assert features(pts_seconds=times).clip_seconds() == 10.0


@pytest.mark.parametrize("times", [np.full((3, 4), np.nan), np.ones((3, 1))])
def test_where_no_times_tell_there_is_no_length(times):
    assert features(pts_seconds=times).clip_seconds() is None


def test_some_clips_keep_what_belongs_to_them():
    times = np.arange(12.0).reshape(3, 4)
    some = features(pts_seconds=times, contents=["x", "y", "z"]).take(np.array([2, 0]))
    assert some.pts_seconds.tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]
    assert some.contents == ["z", "x"]
    assert (some.clip_ids, some.labels, some.groups) == (["c", "a"], ["B", "A"], ["h", "g"])
    assert some.extra == [{"room": "z"}, {"room": "x"}]
    assert some.values[:, 0, 0].tolist() == [16, 0]
    assert features(extra=[]).take(np.array([1])).extra == [{}]


@pytest.mark.parametrize("given", [{}, {"pts_seconds": None, "groups": None}])
def test_groups_and_times_need_not_be_known(given):
    known = {"values": np.zeros((3, 4, 2), np.float16), "clip_ids": ["a", "b", "c"], "labels": ["A", "A", "B"]}
    clips = Features(**known, **given)
    assert clips.groups == [None] * 3
    assert clips.pts_seconds.shape == (3, 4)
    assert np.isnan(clips.pts_seconds).all()


def test_it_shows_itself_in_a_line():
    assert repr(features(name="net")) == "Features('net', 3 clips of 2 classes, values float16 (3, 4, 2))"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_tensor_is_as_good_as_an_array(dtype):
    values = torch.arange(24, dtype=dtype).reshape(3, 4, 2).requires_grad_()
    found = features(values=values).values
    assert isinstance(found, np.ndarray)
    assert found.tolist() == np.arange(24).reshape(3, 4, 2).tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_list_of_tensors_is_as_good_as_one(dtype):
    values = torch.arange(24, dtype=dtype).reshape(3, 4, 2).requires_grad_()
    assert features(values=list(values)).values.tolist() == np.arange(24).reshape(3, 4, 2).tolist()


def test_clips_of_several_lengths_are_refused():
    with pytest.raises(UsageError, match=r"values of several shapes: expected \(N, T, d\), the same T.*linspace"):
        features(values=[[[0.0, 1.0]] * 4, [[0.0, 1.0]] * 3, [[0.0, 1.0]] * 4])


def test_values_that_cannot_be_used_are_told_with_what_to_do():
    values = np.zeros((3, 4, 2), np.float32)
    values[1, 2, 0] = np.nan
    with pytest.raises(UsageError, match=r"1 clip has values that are not finite, such as b: replace them"):
        as_ours(features(values=values), "in memory")
    with pytest.raises(UsageError, match=r"got values of object .*Give a list of one array \(T, d\) for each clip"):
        as_ours(features(values={"a": values[0]}, pts_seconds=np.zeros((3, 4))), "in memory")
    landmarks = features(values=np.zeros((3, 4, 33, 4), np.float32), pts_seconds=None)
    with pytest.raises(UsageError, match=r"shape \(3, 4, 33, 4\)\. Give values\.reshape\(N, T, -1\)"):
        load_clips(None, landmarks, "mean", (), None, progress=False)
