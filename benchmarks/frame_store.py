"""The part ``frames`` of stage_one.py: ways of keeping frames, against decoding the video again to the same frames."""

from __future__ import annotations

import argparse
import hashlib
import io
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import zstandard
from parts import FRAME_SIZE, SAMPLES, choose, encode, seconds, spread
from PIL import Image

from fitrec_cache.video import video
from fitrec_cache.video.jpeg import decode_frames
from fitrec_cache.video.sampling import frame_indices

SMALL = 224

#: Heights to which some clips are enlarged: what a phone records. None: as it is.
HEIGHTS = (None, 720, 1080)
OURS = f"JPEG q90 {FRAME_SIZE} (this program)"
LOSSLESS = f"differences, zstd {FRAME_SIZE}"


class Way(NamedTuple):
    """Frames of this short side, written and read so."""

    short_side: int
    write: Callable[[np.ndarray], Any]
    read: Callable[[Any], Any]


def saved(clip: np.ndarray, kind: str, **options: Any) -> list[bytes]:
    buffers = [io.BytesIO() for _ in clip]
    for frame, buffer in zip(clip, buffers, strict=True):
        Image.fromarray(frame).save(buffer, kind, **options)
    return [b.getvalue() for b in buffers]


def pillow(data: list[bytes]) -> np.ndarray:
    return np.stack([np.array(Image.open(io.BytesIO(d)).convert("RGB")) for d in data])


def differences(clip: np.ndarray) -> bytes:
    """Compress the first frame and each frame's change from the one before: zero where a video copied its pixels."""
    changes = clip.copy()
    changes[1:] -= clip[:-1]  # modulo 256, so that nothing is lost
    shape = np.array(clip.shape, dtype=np.int64)
    return shape.tobytes() + zstandard.ZstdCompressor(level=1).compress(changes.tobytes())


def summed(data: bytes) -> np.ndarray:
    """Return the frames that :func:`differences` kept."""
    shape = np.frombuffer(data, dtype=np.int64, count=4)
    raw = zstandard.ZstdDecompressor().decompress(memoryview(data)[shape.nbytes :])
    changes = np.frombuffer(raw, dtype=np.uint8).reshape(shape)
    clip = np.empty_like(changes)
    clip[0] = changes[0]
    for number in range(1, len(clip)):
        np.add(clip[number - 1], changes[number], out=clip[number])
    return clip


jpeg = partial(saved, kind="JPEG", quality=90, subsampling="4:2:0")

WAYS = {
    f"raw {FRAME_SIZE}": Way(FRAME_SIZE, np.ndarray.tobytes, lambda d: np.frombuffer(d, dtype=np.uint8).copy()),
    f"PNG {FRAME_SIZE}": Way(FRAME_SIZE, partial(saved, kind="PNG", compress_level=1), pillow),
    f"WebP lossless {FRAME_SIZE}": Way(
        FRAME_SIZE, partial(saved, kind="WEBP", lossless=True, quality=0, method=0), pillow
    ),
    LOSSLESS: Way(FRAME_SIZE, differences, summed),
    f"JPEG q90 {FRAME_SIZE}, Pillow": Way(FRAME_SIZE, jpeg, pillow),
    OURS: Way(FRAME_SIZE, jpeg, decode_frames),
    f"JPEG q90 {SMALL}": Way(SMALL, jpeg, decode_frames),
}


def decoder(path: Path, short_side: int) -> Callable[[], video.DecodedClip]:
    return partial(video.read_frames, path, sampler=partial(frame_indices, samples=SAMPLES), short_side=short_side)


def best(work: Callable[[], Any]) -> float:
    return min(seconds(work) for _ in range(3))


def size(data: bytes | list[bytes]) -> int:
    return len(data) if isinstance(data, bytes) else sum(map(len, data))


def check(data: bytes | list[bytes]) -> str:
    return hashlib.sha256(data if isinstance(data, bytes) else b"".join(data)).hexdigest()


def frames(args: argparse.Namespace) -> dict[str, Any]:
    """Compare ways of keeping frames by bytes and seconds to read with decoding to the same frames; best of three.

    To read is to check the bytes, as the store checks each part by its sha256, and to turn them into pixels.
    """
    clips = choose(args.videos, min(args.clips, 40))
    ucf101 = sorted(args.ucf101.rglob("*.avi")) if args.ucf101 else []
    rows: dict[str, dict[str, list[float]]] = {
        name: {k: [] for k in ("bytes", "seconds", "check", "video")} for name in WAYS
    }
    counts, same = [], 0
    for path in clips:
        read = {side: decoder(path, side) for side in (FRAME_SIZE, SMALL)}
        taken = {side: best(work) for side, work in read.items()}
        held = {side: work() for side, work in read.items()}
        counts.append(held[FRAME_SIZE].ledger["frames_decoded"])
        for name, way in WAYS.items():
            data = way.write(held[way.short_side].frames)
            rows[name]["bytes"].append(size(data))
            rows[name]["check"].append(best(partial(check, data)))
            rows[name]["seconds"].append(rows[name]["check"][-1] + best(partial(way.read, data)))
            rows[name]["video"].append(taken[way.short_side])
        if not np.array_equal(summed(differences(held[FRAME_SIZE].frames)), held[FRAME_SIZE].frames):
            raise SystemExit(f"{path}: differences do not give its frames back")
        data = jpeg(held[FRAME_SIZE].frames)
        same += np.array_equal(decode_frames(data).permute(0, 2, 3, 1).numpy(), pillow(data))
    order = np.argsort(counts)
    thirds = [order[i * len(order) // 3 : (i + 1) * len(order) // 3] for i in range(3)]
    return {
        "clips": len(clips),
        "video": {
            "seconds": spread(rows[OURS]["video"]),
            "bytes_median": statistics.median(p.stat().st_size for p in clips),
            "frames_median": statistics.median(counts),
        },
        "clips_with_the_bits_of_pillow": same,
        "ways": {
            name: {
                "bytes_median": statistics.median(r["bytes"]),
                "seconds_median": statistics.median(r["seconds"]),
                "check_seconds_median": statistics.median(r["check"]),
                "times_faster": sum(r["video"]) / sum(r["seconds"]),
                "times_faster_by_length": [
                    {
                        "frames_median": float(np.median(np.array(counts)[t])),
                        "times_faster": float(np.array(r["video"])[t].sum() / np.array(r["seconds"])[t].sum()),
                    }
                    for t in thirds
                ],
            }
            for name, r in rows.items()
        },
        "larger": [by_height(clips[: max(2, 6 * len(clips) // 40)], height, args.work) for height in HEIGHTS],
        "ucf101": against_video(ucf101) if ucf101 else None,
    }


def by_height(clips: Sequence[Path], height: int | None, folder: Path) -> dict[str, Any]:
    """Compare the frame store with decoding where the same pictures come in larger videos."""
    if height is None:
        return {"height": None} | against_video(clips)
    larger = [enlarged(path, folder / f"larger-{number}.mp4", height) for number, path in enumerate(clips)]
    found = {"height": height} | against_video(larger)
    for path in larger:
        path.unlink()
    return found


def against_video(paths: Sequence[Path]) -> dict[str, Any]:
    """Compare the frame store as it is with decoding, on each of some videos."""
    decoded, read, kept, lossless = [], [], [], []
    for path in paths:
        decode = decoder(path, FRAME_SIZE)
        decoded.append(best(decode))
        frames = decode().frames
        data = jpeg(frames)
        read.append(best(partial(check, data)) + best(partial(decode_frames, data)))
        kept.append(size(data))
        lossless.append(len(differences(frames)))
    return {
        "clips": len(paths),
        "video_seconds_median": statistics.median(decoded),
        "video_bytes_median": statistics.median(p.stat().st_size for p in paths),
        "bytes_median": statistics.median(kept),
        "lossless_bytes_median": statistics.median(lossless),
        "seconds_median": statistics.median(read),
        "times_faster": sum(decoded) / sum(read),
    }


def enlarged(source: Path, target: Path, height: int) -> Path:
    """Encode a clip's pictures again at another height."""
    with av.open(str(source)) as opened:
        shown = opened.streams.video[0]
        width = round(shown.width * height / shown.height / 2) * 2
        return encode(opened.decode(shown), target, width=width, height=height)
