"""A bare H.264 stream of which every field is a picture of its own (PAFF), as camcorders write and x264 does not."""

from __future__ import annotations

WIDTH, ROWS = 4, 2  # macroblocks across, and down in a field: frames of 64 x 64


class Bits:
    """Bits of a syntax structure, ITU-T H.264 section 7.3."""

    def __init__(self):
        self.bits = ""

    def u(self, value, width):
        self.bits += f"{value:0{width}b}"
        return self

    def ue(self, *values):
        for value in values:
            self.u(value + 1, 2 * (value + 1).bit_length() - 1)
        return self

    def aligned(self):
        self.bits += "0" * (-len(self.bits) % 8)
        return self

    def unit(self, importance, kind):
        """Close the structure and return it as a NAL unit with a start code."""
        self.bits += "1"
        self.aligned()
        payload = bytes(int(self.bits[i : i + 8], 2) for i in range(0, len(self.bits), 8))
        found, zeros = bytearray(), 0
        for byte in payload:
            if zeros >= 2 and byte <= 3:
                found.append(3)
                zeros = 0
            found.append(byte)
            zeros = zeros + 1 if byte == 0 else 0
        return b"\0\0\0\1" + bytes([importance << 5 | kind]) + bytes(found)


def _sequence():
    head = Bits().u(77, 8).u(0, 8).u(30, 8).ue(0, 4, 0, 4, 1).u(0, 1).ue(WIDTH - 1, ROWS - 1)
    return head.u(0, 1).u(0, 1).u(1, 1).u(0, 1).u(0, 1).unit(3, 7)


def _picture():
    return Bits().ue(0, 0).u(0, 1).u(0, 1).ue(0, 0, 0).u(0, 1).u(0, 2).ue(0, 0, 0).u(0, 3).unit(3, 8)


def _field(number, bottom):
    first = number == 0 and not bottom
    slice_ = Bits().ue(0, 7, 0).u(number % 256, 8).u(1, 1).u(bottom, 1)
    if first:
        slice_.ue(0)
    slice_.u((2 * number + bottom) % 256, 8).u(0, 2 if first else 1).ue(0)
    for _ in range(WIDTH * ROWS):  # each macroblock as plain samples: one grey a frame
        slice_.ue(25).aligned()
        for value in [40 + number] * 256 + [128] * 128:
            slice_.u(value, 8)
    return slice_.unit(3, 5 if first else 1)


def write_fields(path, n_frames, *, lost=()):
    """Write ``n_frames`` grey frames, each of a top and a bottom field; ``lost`` are pairs of frame and field."""
    data = b""
    for number in range(n_frames):
        for bottom in (0, 1):
            if (number, bottom) not in lost:
                delimiter = b"\0\0\0\1\x09\x10"
                head = _sequence() + _picture() if (number, bottom) == (0, 0) else b""
                data += delimiter + head + _field(number, bottom)
    path.write_bytes(data)
    return path
