from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitrec_cache.live.windows import Windows
from fitrec_cache.video.sampling import frame_indices


def taken(windows, times, end):
    """Return the numbers of the frames that each window takes, frame ``i`` on display from ``times[i]`` on."""
    found = {}
    for number, until in enumerate([*times[1:], end]):
        for window, count in windows.due(until).items():
            found.setdefault(window, []).extend([number] * count)
    return found


@given(
    rate=st.integers(1, 60),
    n=st.integers(1, 90),
    step=st.integers(1, 90),
    samples=st.integers(1, 30),
)
def test_a_window_takes_the_frames_that_its_piece_would_give_as_a_clip(rate, n, step, samples):
    windows = Windows(seconds=Fraction(n, rate), every=Fraction(step, rate), samples=samples)
    total = n + 3 * step
    found = taken(windows, [Fraction(i, rate) for i in range(total)], Fraction(total, rate))
    for number in range(4):  # each of these lies within the stream
        assert found[number] == (number * step + frame_indices(n, samples=samples)).tolist()


def test_times_by_hand():
    # 3 samples of 4 s: at 1, 2 and 3 s; the second window begins at 2 s: at 3, 4 and 5 s
    windows = Windows(seconds=Fraction(4), every=Fraction(2), samples=3)
    assert windows.due(Fraction(1)) == {}  # the frame that comes at 1 s is on display at 1 s
    assert windows.due(Fraction(11, 10)) == {0: 1}
    assert windows.due(Fraction(3)) == {0: 1}
    assert windows.due(Fraction(4)) == {0: 1, 1: 1}
    assert windows.due(Fraction(4)) == {}
    assert windows.due(Fraction(100))[1] == 2
    assert windows.span(1) == (2.0, 6.0)


@pytest.mark.parametrize(
    ("seconds", "full"), [(0.5, 0), (2, 0), (3, 0), (3.5, 1), (4, 1), (5, 1), (5.5, 2), (6, 2), (104, 51)]
)
def test_how_many_windows_a_length_holds_by_hand(seconds, full):
    windows = Windows(seconds=Fraction(4), every=Fraction(2), samples=3)  # the last samples at 3, 5, 7 s and so on
    assert windows.within(seconds) == full
    found = taken(windows, [Fraction(i, 4) for i in range(int(seconds * 4))], Fraction(seconds))
    assert sum(len(frames) == 3 for frames in found.values()) == full


def test_a_frame_that_stays_on_display_is_taken_again():
    windows = Windows(seconds=Fraction(4), every=Fraction(4), samples=3)
    assert taken(windows, [Fraction(0), Fraction(5, 2)], Fraction(4)) == {0: [0, 0, 1]}


def test_with_gaps_between_windows_what_lies_in_the_gaps_is_not_taken():
    windows = Windows(seconds=Fraction(1), every=Fraction(3), samples=1)
    times = [Fraction(i, 2) for i in range(14)]
    assert taken(windows, times, Fraction(7)) == {0: [1], 1: [7], 2: [13]}


def test_after_a_gap_windows_that_began_before_it_are_forgotten():
    """3 samples of 4 s, a window every 2 s: those of 0 and 2 s had begun; the first that is whole begins at 8 s."""
    windows = Windows(seconds=Fraction(4), every=Fraction(2), samples=3)
    assert windows.due(Fraction(7, 2)) == {0: 3, 1: 1}
    windows.restart(Fraction(7))
    assert windows.due(Fraction(9)) == {}
    assert windows.due(Fraction(10)) == {4: 1}


def test_a_stream_that_begins_anew_forgets_what_was_taken():
    windows = Windows(seconds=Fraction(4), every=Fraction(2), samples=3)
    assert windows.due(Fraction(5, 2)) == {0: 2}
    windows.restart(Fraction(0))
    assert windows.due(Fraction(5, 2)) == {0: 2}
