"""Broken copies of real clips through the decoder processes: each ends as done, or failed with its reason."""

from __future__ import annotations

import random
import re
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from process_memory import kilobytes

if TYPE_CHECKING:
    from torture import Job

#: Name: codec and its options; original bytes are taken where the data is of that format.
FORMATS: dict[str, tuple[str, dict[str, str]]] = {
    "h264.mp4": ("libx264", {"preset": "veryfast"}),
    "mpeg4.avi": ("mpeg4", {"qmin": "2", "qmax": "8"}),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "b": "0", "crf": "35"}),
    "hevc.mp4": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none"}),
}

CLIP_SECONDS = 20.0
WORKERS = 2
CHUNK = 100

Mutation = Callable[[bytearray, random.Random, list[bytes]], bytearray]


def truncation(data: bytearray, rng: random.Random, others: list[bytes]) -> bytearray:
    return data[: rng.randrange(len(data))]


def bit_flips(data: bytearray, rng: random.Random, others: list[bytes]) -> bytearray:
    for _ in range(2 ** rng.randrange(9)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def header_edit(data: bytearray, rng: random.Random, others: list[bytes]) -> bytearray:
    """Overwrite up to four numbers near the beginning or the end, where containers keep their structure."""
    extremes = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\1", b"\1\0\0\0")
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(min(2048, len(data) - 4))
        place = place if rng.random() < 0.6 else len(data) - 4 - place
        data[place : place + 4] = rng.choice((*extremes, rng.randbytes(4)))
    return data


def splice(data: bytearray, rng: random.Random, others: list[bytes]) -> bytearray:
    """Put a piece of this or another file in the place of a piece, of equal length or not."""
    other = rng.choice(others)
    start, length = rng.randrange(len(other)), rng.randrange(1, len(other))
    place, gone = rng.randrange(len(data)), rng.choice((0, length, rng.randrange(len(data))))
    data[place : place + gone] = other[start : start + length]
    return data


MUTATIONS: tuple[Mutation, ...] = (truncation, bit_flips, header_edit, splice)


def fuzz(job: Job, before: dict[str, Any]) -> dict[str, Any]:
    """Decode mutations until ``job.mutations`` are counted."""
    from fitrec_cache.video.decoding import DecoderPool

    sources = _sources(job)
    outcomes = {name: Counter(counts) for name, counts in before.get("outcomes", {}).items()}
    reasons = Counter(before.get("reasons", {}))
    rss = list(before.get("main_process_mb", []))
    done = before.get("mutations", 0)
    decoders = list(before.get("largest_decoder_process_mb", []))
    slowest = before.get("slowest_seconds", 0.0)
    with DecoderPool(workers=WORKERS, time_limit=CLIP_SECONDS) as pool:
        while done < job.mutations and job.time_left():
            count = min(CHUNK, job.mutations - done)
            for name, outcome, seconds in _decode(job, pool, sources, range(done, done + count)):
                failed = isinstance(outcome, str)
                outcomes.setdefault(name, Counter())["failed" if failed else "done"] += 1
                slowest = max(slowest, seconds)
                if failed:
                    reasons[_kind(outcome)] += 1
            done += count
            rss.append(kilobytes("self", "VmRSS") // 1024)
            decoders.append(max(kilobytes(pid, "VmHWM") for pid in _children()) // 1024)
            print(f"{done} mutations, {rss[-1]} MB, decoders at most {decoders[-1]} MB, {dict(reasons)}", flush=True)
    crashes = {k: v for k, v in reasons.items() if k.startswith("decoder crashed")}
    hangs = {k: v for k, v in reasons.items() if k.startswith("decoder did not finish")}
    return {
        "mutations": done,
        "outcomes": {name: dict(counts) for name, counts in outcomes.items()},
        "done": sum(c["done"] for c in outcomes.values()),
        "failed_with_reason": sum(c["failed"] for c in outcomes.values()),
        "crashes_contained": sum(crashes.values()),
        "hangs_contained": sum(hangs.values()),
        "other_exceptions": sum(v for k, v in reasons.items() if k.startswith("decoder failed")),
        "reasons": dict(reasons.most_common()),
        "main_process_mb": rss,
        "largest_decoder_process_mb": decoders,
        "slowest_seconds": round(slowest, 1),
        "clip_seconds": CLIP_SECONDS,
        "sources": {name: f"{len(data)} bytes" for name, data in sources.items()},
    }


def _decode(job: Job, pool: Any, sources: dict[str, bytes], numbers: range) -> Any:
    from fitrec_cache.video.decoding import DecodeJob

    folder = job.work / "fuzz"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    waiting: deque[tuple[str, Path, float, Any]] = deque()
    for number in (*numbers, *[None] * 2 * WORKERS):
        if number is not None:
            name, data = mutant(job.seed, number, sources)
            path = folder / f"{number}-{name}"
            path.write_bytes(data)
            queued = pool.submit(DecodeJob(path=path, samples=20, short_side=288))
            waiting.append((name, path, time.monotonic(), queued))
        if waiting and (number is None or len(waiting) > 2 * WORKERS):
            name, path, since, wait = waiting.popleft()
            outcome = wait()
            yield name, outcome, time.monotonic() - since
            path.unlink()


def mutant(seed: int, number: int, sources: dict[str, bytes]) -> tuple[str, bytes]:
    """Return mutation ``number``: the format's name and the bytes; the same for the same seed."""
    rng = random.Random(f"{seed}-{number}")
    name = list(sources)[number % len(sources)]
    mutate = MUTATIONS[number // len(sources) % len(MUTATIONS)]
    return name, bytes(mutate(bytearray(sources[name]), rng, list(sources.values())))


def _kind(reason: str) -> str:
    """Return a reason without its numbers, so that equal ones count together."""
    return re.sub(r"(?<!code )-?\d+(\.\d+)?", "N", reason) if "crashed" not in reason else reason


def _sources(job: Job) -> dict[str, bytes]:
    """Return one small clip a format: real frames, and original bytes where the data is of that format."""
    folder = job.work / "fuzz-sources"
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted((p.stat().st_size, p) for p in job.videos.rglob("*.mp4"))
    original = found[len(found) // 3][1]
    other = sorted(job.videos.parent.glob("ucf101_samples/*/*.avi"))
    sources = {}
    for name, (codec, options) in FORMATS.items():
        path = folder / name
        if not path.exists():
            if codec == "libx264":
                shutil.copy(original, path)
            elif codec == "mpeg4" and other:
                shutil.copy(min(other, key=lambda p: p.stat().st_size), path)
            else:
                transcode(original, path, codec, options)
        sources[name] = path.read_bytes()
    return sources


def transcode(source: Path, target: Path, codec: str, options: dict[str, str]) -> None:
    import av

    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        given = old.streams.video[0]
        stream = new.add_stream(codec, rate=Fraction(25), options=options)
        stream.width, stream.height, stream.pix_fmt = given.width // 4 * 2, given.height // 4 * 2, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for number, frame in enumerate(old.decode(given)):
            small = frame.reformat(width=stream.width, height=stream.height)
            small.pts, small.time_base = number, Fraction(1, 25)
            new.mux(stream.encode(small))
        new.mux(stream.encode(None))


def _children() -> list[str]:
    return Path(f"/proc/self/task/{Path('/proc/self').resolve().name}/children").read_text().split()
