from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitrec_cache.auditing import near_duplicates
from fitrec_cache.auditing.near_duplicates import Embeddings, clusters, embed, find_near_duplicates
from fitrec_cache.errors import AllAlikeError, UsageError
from fitrec_cache.features import quick_look


def recordings(n_recordings=40, clips_each=3, *, t=6, d=64, wobble=0.05, seed=0):
    """Clips cut from recordings that have nothing in common: (features, label of each, recording of each)."""
    rng = np.random.default_rng(seed)
    scenes = rng.normal(size=(n_recordings, d))
    recording = np.repeat(np.arange(n_recordings), clips_each)
    values = scenes[recording][:, None] + rng.normal(0, wobble, (len(recording), t, d))
    return values.astype(np.float16), [f"K{r % 4}" for r in recording], recording


def as_set(found):
    return {tuple(pair) for pair in found.pairs.tolist()}


def same_recording(recording):
    n = len(recording)
    return {(a, b) for a in range(n) for b in range(a + 1, n) if recording[a] == recording[b]}


def cosine(a, b):
    return float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)))


def test_vectors_are_centred_means_of_length_one_and_halves_are_compared_by_cosine():
    values = np.random.default_rng(1).normal(size=(7, 5, 4))
    made = embed([values[:3], values[3:]])
    centre = values.mean(axis=(0, 1))
    for i, clip in enumerate(values):
        expected = clip.mean(axis=0) - centre
        np.testing.assert_allclose(made.vectors[i], expected / np.linalg.norm(expected), atol=1e-5)
        halves = clip[:3].mean(axis=0) - centre, clip[3:].mean(axis=0) - centre  # of five frames, three are the first
        assert made.halves[i] == pytest.approx(cosine(*halves), abs=1e-5)


@pytest.mark.parametrize("scale", [1, 1e25])  # whose squares are more than float32 holds
def test_vectors_have_length_one_however_large_the_values_are(scale):
    values = np.random.default_rng(1).normal(size=(7, 5, 4)).astype(np.float32)
    made, plain = embed([values * np.float32(scale)]), embed([values])
    np.testing.assert_allclose(made.vectors, plain.vectors, atol=1e-5)
    np.testing.assert_allclose(made.halves, plain.halves, atol=1e-5)


def test_of_values_whose_sums_float32_does_not_hold_nothing_is_said():
    """Not that no clip has a near-duplicate."""
    values = np.random.default_rng(1).normal(size=(7, 5, 4)).astype(np.float32)
    values[3] = 3e38
    labels = list("AABBAAB")
    with pytest.raises(AllAlikeError, match="too large to be compared"):
        find_near_duplicates(embed([values]), labels=labels, groups=[None] * 7)
    assert quick_look(lambda: embed([values]), labels, [None] * 7) is None


def test_means_of_stored_values_are_not_rounded_as_these_are():
    """Near 20, float16 has steps of 1/64: a mean rounded so is off by as much as clips here differ."""
    values = (20 + np.random.default_rng(0).normal(0, 0.02, (7, 6, 4))).astype(np.float16)
    wide = values.astype(np.float64)
    expected = wide.mean(axis=1) - wide.mean(axis=(0, 1))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(embed([values]).vectors, expected, atol=1e-3)


def test_one_frame_has_no_halves():
    assert len(embed([np.random.default_rng(0).normal(size=(4, 1, 3))]).halves) == 0


def test_frames_are_compared_as_small_pictures():
    frames = np.random.default_rng(0).integers(0, 256, (6, 4, 64, 64, 3), dtype=np.uint8)
    small = frames.reshape(6, 4, 16, 4, 16, 4, 3).mean(axis=(3, 5)).reshape(6, 4, -1)
    np.testing.assert_allclose(embed([frames]).vectors, embed([small]).vectors, atol=1e-4)


@pytest.mark.parametrize("known", [True, False])
def test_clips_of_one_recording_are_found_and_no_others(known):
    values, labels, recording = recordings()
    groups = [f"g{r}" for r in recording] if known else [None] * len(recording)
    found = find_near_duplicates(embed([values]), labels=labels, groups=groups)
    assert as_set(found) == same_recording(recording)
    assert (found.similarity >= found.threshold).all()
    assert (np.diff(found.similarity) <= 0).all()
    assert found.halves_found >= 1 - near_duplicates.HALVES_MISSED
    assert found.strangers_found == 0


@pytest.mark.parametrize("n", [5, 12, 24, 63, 96])
def test_nine_of_ten_clips_or_more_find_their_own_other_half(n):
    values, _, recording = recordings(n, 1, wobble=3.0)  # halves that are less alike than strangers may be
    found = find_near_duplicates(embed([values]), labels=["K"] * n, groups=[f"{r}" for r in recording])
    assert 0.9 <= found.halves_found < 0.9 + 1 / n


def test_nothing_is_found_where_no_two_clips_are_of_one_recording():
    values, labels, _ = recordings(120, 1)
    assert as_set(find_near_duplicates(embed([values]), labels=labels, groups=[None] * 120)) == set()


def test_classes_that_are_far_apart_do_not_make_every_clip_of_a_class_a_duplicate():
    rng = np.random.default_rng(0)
    values, labels, recording = recordings(60, 2, wobble=0.02)
    apart = 3 * rng.normal(size=(4, 64))[[int(name[1]) for name in labels]]
    made = embed([values + apart[:, None]])
    found = find_near_duplicates(made, labels=labels, groups=[None] * 120)
    hits = as_set(found) & same_recording(recording)
    assert len(hits) > 0.9 * 60  # of 60 pairs
    assert len(hits) > 0.9 * len(found.pairs)  # by the strangers alone it would be 60 of the 1,740 pairs of one class
    assert found.threshold == pytest.approx(np.quantile(made.halves, 0.1), abs=1e-6)


def test_the_threshold_is_what_the_rule_says_by_hand():
    """Six clips in a plane: two classes, distances to nearest strangers worked out from the angles."""
    degrees = np.array([0, 50, 100, 180, 240, 310])
    vectors = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1).astype(np.float32)
    labels = ["A", "B", "A", "B", "A", "B"]
    made = Embeddings(vectors=vectors, halves=np.array([0.1] * 6, dtype=np.float32))
    found = find_near_duplicates(made, labels=labels, groups=[None] * 6)
    nearest = np.array([50, 50, 50, 60, 60, 50])  # degrees to the nearest of the other class
    logs = np.log(1 - np.cos(np.radians(nearest)))
    # Four of six are equal: the median is theirs and the deviation is zero, so near is nearer than 50 degrees.
    assert found.threshold == pytest.approx(1 - np.exp(np.median(logs)), abs=1e-5)
    degrees = np.array([0, 10, 90, 120, 200, 260])
    vectors = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1).astype(np.float32)
    made = Embeddings(vectors=vectors, halves=made.halves)
    logs = sorted(np.log(1 - np.cos(np.radians([10, 10, 30, 30, 60, 60]))))
    middle = (logs[2] + logs[3]) / 2
    away = sorted(abs(x - middle) for x in logs)
    expected = 1 - np.exp(middle - 2.5 * 1.4826 * (away[2] + away[3]) / 2)
    found = find_near_duplicates(made, labels=labels, groups=[None] * 6)
    assert found.threshold == pytest.approx(max(expected, 0.1), abs=1e-5)
    assert found.strangers_found == 0


def test_a_clip_of_the_same_known_group_is_no_stranger_even_in_another_class():
    values, _, recording = recordings(30, 2)
    labels = ["A", "B"] * 30  # each recording holds both
    groups = [f"g{r}" for r in recording]
    assert as_set(find_near_duplicates(embed([values]), labels=labels, groups=groups)) == same_recording(recording)
    assert len(as_set(find_near_duplicates(embed([values]), labels=labels, groups=[None] * 60))) < 3


def test_a_chosen_threshold_is_used_and_a_wrong_one_refused():
    values, labels, recording = recordings(10, 2)
    made, clips = embed([values]), {"labels": labels, "groups": [None] * 20}
    every = find_near_duplicates(made, **clips, threshold=-0.999999)
    assert (len(every.pairs), every.threshold) == (190, -0.999999)
    assert as_set(find_near_duplicates(made, **clips, threshold=0.9)) == same_recording(recording)
    values[1] = values[0]
    copies = find_near_duplicates(embed([values]), **clips, threshold=1)
    assert as_set(copies) == {(0, 1)}
    for wrong in (1.5, -1.0, float("nan")):
        with pytest.raises(UsageError, match="threshold"):
            find_near_duplicates(made, **clips, threshold=wrong)


def test_what_the_threshold_finds_is_counted_by_hand():
    """A similarity as large as the threshold is found; all of another class than the first clip are of its group."""
    vectors = np.array([[1, 0], [0.5, 0.75**0.5], [0, 1], [0.5, 0.75**0.5]], dtype=np.float32)
    made = Embeddings(vectors=vectors, halves=np.array([0.25, 0.5, 0.75, 1.0], dtype=np.float32))
    clips = {"labels": ["A", "B", "A", "B"], "groups": ["g", "g", None, "g"]}
    found = find_near_duplicates(made, **clips, threshold=0.5)
    assert found.pairs.tolist() == [[1, 3], [1, 2], [2, 3], [0, 1], [0, 3]]
    assert (found.halves_found, found.strangers_found) == (3 / 4, 3 / 4)
    assert find_near_duplicates(made, **clips, threshold=0.9).strangers_found == 0
    equal = Embeddings(vectors=np.eye(2, dtype=np.float32)[[0, 1, 1, 0]], halves=made.halves)
    assert find_near_duplicates(equal, **clips, threshold=0.9).pairs.tolist() == [[0, 3], [1, 2]]  # by their clips


def test_copies_in_two_classes_are_found_and_move_no_threshold():
    """Strangers at no distance at all: their logarithm is none."""
    values, labels, _ = recordings()
    threshold = find_near_duplicates(embed([values]), labels=labels, groups=[None] * 120).threshold
    values[1] = values[3]  # of another class
    found = find_near_duplicates(embed([values]), labels=labels, groups=[None] * 120)
    assert (1, 3) in as_set(found)
    assert found.threshold == pytest.approx(threshold, abs=0.01)


def test_without_any_yardstick_a_threshold_must_be_given():
    made = embed([np.random.default_rng(0).normal(size=(4, 1, 3))])
    with pytest.raises(UsageError, match="give a --threshold"):
        find_near_duplicates(made, labels=["A"] * 4, groups=[None] * 4)


def test_blocks_of_the_matrix_give_the_same_as_all_at_once(monkeypatch):
    values, labels, _ = recordings()
    made, clips = embed([values]), {"labels": labels, "groups": [None] * 120}
    whole = find_near_duplicates(made, **clips)
    monkeypatch.setattr(near_duplicates, "_CELLS", 120 * 7)
    blocks = find_near_duplicates(made, **clips)
    assert as_set(blocks) == as_set(whole)
    assert len(blocks.pairs) == len(whole.pairs)
    assert blocks.threshold == pytest.approx(whole.threshold, abs=1e-6)


@pytest.mark.parametrize("rows", [120, 7])  # at a time
def test_too_many_pairs_are_refused(monkeypatch, rows):
    values, labels, _ = recordings()
    monkeypatch.setattr(near_duplicates, "MOST_PAIRS", 100)
    monkeypatch.setattr(near_duplicates, "_CELLS", 120 * rows)
    with pytest.raises(UsageError, match="higher --threshold"):
        find_near_duplicates(embed([values]), labels=labels, groups=[None] * 120)


@settings(max_examples=50)
@given(st.data())
def test_clusters_are_what_walking_the_graph_finds(data):
    n = data.draw(st.integers(1, 12))
    pairs = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=10))
    groups = data.draw(st.lists(st.sampled_from([None, "a", "b"]), min_size=n, max_size=n))
    edges = {(a, b) for a, b in pairs} | {
        (a, b) for a in range(n) for b in range(n) if groups[a] is not None and groups[a] == groups[b]
    }
    expected, number = [-1] * n, 0
    for start in range(n):
        if expected[start] < 0:
            todo = [start]
            while todo:
                here = todo.pop()
                expected[here] = number
                todo += [b for a, b in edges if a == here and expected[b] < 0]
                todo += [a for a, b in edges if b == here and expected[a] < 0]
            number += 1
    assert clusters(n, np.array(pairs, dtype=np.int64).reshape(-1, 2), groups).tolist() == expected
