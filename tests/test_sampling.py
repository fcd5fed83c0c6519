from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitrec_cache.video.sampling import frame_indices


@pytest.mark.parametrize(
    ("n_frames", "samples", "expected"),
    [
        (21, 20, list(range(1, 21))),
        (42, 20, list(range(2, 42, 2))),
        (1, 3, [0, 0, 0]),
        (2, 3, [0, 1, 1]),
        (100, 4, [20, 40, 60, 80]),
        (10, 1, [5]),
        (20, 20, list(range(20))),  # floor(20 i / 21) = i - 1 for i = 1 .. 20
    ],
)
def test_values_worked_out_by_hand(n_frames, samples, expected):
    assert frame_indices(n_frames, samples=samples).tolist() == expected


def test_whole_numbers_of_numpy_are_taken():
    assert frame_indices(np.int32(42), samples=np.int64(20)).tolist() == list(range(2, 42, 2))


def test_twenty_samples_by_default_and_int64():
    indices = frame_indices(150)
    assert indices.shape == (20,)
    assert indices.dtype == np.int64


@given(st.integers(1, 10**9), st.integers(1, 300))
def test_follows_equation_1_in_exact_arithmetic(n_frames, samples):
    exact = [math.floor(Fraction(i * n_frames, samples + 1)) for i in range(1, samples + 1)]
    indices = frame_indices(n_frames, samples=samples)
    assert indices.tolist() == exact
    assert indices[0] >= 0
    assert indices[-1] < n_frames
    assert (np.diff(indices) >= 0).all()


@given(st.integers(1, 5000), st.integers(1, 50))
def test_no_frame_is_repeated_when_there_are_more_frames_than_samples(n_frames, samples):
    distinct = len(set(frame_indices(n_frames, samples=samples).tolist()))
    assert distinct == samples or n_frames <= samples


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, None, "20"])
def test_bad_arguments_are_named(bad):
    with pytest.raises(ValueError, match="n_frames is"):
        frame_indices(bad)
    with pytest.raises(ValueError, match="samples is"):
        frame_indices(10, samples=bad)
