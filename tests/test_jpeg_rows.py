from __future__ import annotations

import numpy as np
import pytest

from fitrec_cache.storage.parts import joined, row_of

CLIPS = [[b"one", b"", b"three"], [b"4", b"55", b"666"], [b"", b"", b""]]


def test_what_is_joined_comes_back_row_by_row():
    data, ends = joined(CLIPS)
    assert bytes(data) == b"onethree455666"
    assert ends.tolist() == [[3, 3, 8], [9, 11, 14], [14, 14, 14]]
    assert (data.dtype, ends.dtype) == (np.uint8, np.int64)
    assert [row_of(data, ends, row) for row in range(3)] == CLIPS


@pytest.mark.parametrize("ends", [[[]], [[-1, 3]], [[5, 4]], [[2, 4], [3, 6]], [[2, 4], [6, 9]]])
@pytest.mark.parametrize("row", [0, -1])
def test_offsets_that_cannot_be_are_refused_whatever_row_is_asked_for(ends, row):
    ends = np.array(ends, dtype=np.int64).reshape(len(ends), -1)
    with pytest.raises(ValueError, match="frames have impossible offsets"):
        row_of(np.zeros(8, np.uint8), ends, row % len(ends))
