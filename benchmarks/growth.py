"""Extract N tiny clips with a stand-in for decoder and backbone, so that what is left is this program's own cost.

    python benchmarks/growth.py N DIR

Prints one JSON object. Called twice with one DIR, the second call is a run that reuses everything.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from process_memory import kilobytes

SAMPLES, DIM, CLASSES = 4, 64, 100


def write_clips(root: Path, n: int) -> None:
    for number in range(n):
        path = root / f"class{number % CLASSES:03d}" / f"v_{number // CLASSES:05d}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"clip {number}")


class Decoder:
    """Gives every clip the same tiny frames."""

    def __init__(self, *, workers, time_limit):
        from fitrec_cache.video.decoding import StoredClip
        from fitrec_cache.video.jpeg import encode_frames

        jpegs = encode_frames(np.zeros((SAMPLES, 16, 16, 3), dtype=np.uint8))
        times = [float(t) for t in range(SAMPLES)]
        ledger = {"container": "avi", "codec": "h264", "frames_decoded": SAMPLES, "warnings": []}
        clip = StoredClip(jpegs=jpegs, frame_index=list(range(SAMPLES)), pts_seconds=times, ledger=ledger)
        self.wait = lambda: clip

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def submit(self, job):
        return self.wait


class Model:
    """Gives every clip the same features."""

    name, dim, precision, on_cpu, is_slow = "test_resnet", DIM, "fp32", True, False
    preprocessing = SimpleNamespace(preset="native", size=(16, 16), first_size=None, sees_poses=False)

    def identity(self):
        return {"backbone": self.name, "preprocessing": {"preset": "native"}, "precision": self.precision}

    def origin(self):
        return {"weights": "none", "device": "cpu"}

    def prepare(self, frames):
        return frames

    def compile_for(self, samples):
        pass

    def embed_prepared(self, x):
        return np.zeros((SAMPLES, DIM), dtype=np.float16)


def main() -> None:
    n, folder = int(sys.argv[1]), Path(sys.argv[2])
    if not (folder / "videos").exists():
        write_clips(folder / "videos", n)
    from fitrec_cache import extract
    from fitrec_cache.cache import Cache
    from fitrec_cache.extraction import prefetch

    prefetch.DecoderPool = Decoder
    extract.load_backbone = lambda *_, **__: Model()
    before = kilobytes("self", "VmHWM")
    report = extract.extract(folder / "videos", cache=folder / "cache", samples=SAMPLES, frame_size=16)
    peak = kilobytes("self", "VmHWM")
    started = time.perf_counter()
    cache = Cache(folder / "cache")
    held, rows = len(cache.clips()), len(cache.feature_stores()[0])
    opening = time.perf_counter() - started
    files = [p for p in (folder / "cache").rglob("*") if p.is_file()]
    print(
        json.dumps(
            {
                "clips": n,
                "done": report.done,
                "reused": report.reused,
                "held": held,
                "rows": rows,
                "seconds": report.seconds,
                "stages": report.stages,
                "opening_seconds": opening,
                "memory_mb_imports": before / 1000,
                "memory_mb_peak": peak / 1000,
                "files": len(files),
                "bytes": sum(p.stat().st_size for p in files),
                "digest": hashlib.sha256(repr(sorted(c.clip_id for c in cache.clips())).encode()).hexdigest()[:8],
            }
        )
    )


if __name__ == "__main__":
    main()
