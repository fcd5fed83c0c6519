"""The parts of stage_one.py, apart from it: decoder processes import the script that starts them."""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL
import timm
import torch

from fitrec_cache.backbone import load_backbone
from fitrec_cache.decoding import DecodeJob, DecoderPool, decode_clip
from fitrec_cache.extract import extract
from fitrec_cache.jpeg import decode_frames
from fitrec_cache.memory import keep_freed_memory

BACKBONES = ("resnet50", "tf_efficientnet_b0", "vit_tiny_patch16_224")
SAMPLES, FRAME_SIZE = 20, 288


def spread(values: Sequence[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "all": list(values)}


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def choose(videos: Path, count: int) -> list[Path]:
    """Take the same number of clips from each class, the first by name: a fixed, stratified part."""
    by_class: dict[str, list[str]] = {}
    with (videos / "clips.csv").open() as file:
        for row in csv.DictReader(file):
            by_class.setdefault(row["label"], []).append(row["path"])
    rounds = [sorted(paths) for _, paths in sorted(by_class.items())]
    chosen = [paths[i] for i in range(max(map(len, rounds))) for paths in rounds if i < len(paths)]
    return [videos / path for path in chosen[:count]]


def manifest(clips: Sequence[Path], path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([str(c.resolve()), c.parent.name] for c in clips)
    return path


def decode_all(clips: Sequence[Path]) -> float:
    """Decode with nothing beside it, on all cores: what embedding leaves no room for. Return seconds a clip."""
    jobs = [DecodeJob(path=c, samples=SAMPLES, short_side=FRAME_SIZE) for c in clips]
    workers = os.cpu_count() or 1
    with DecoderPool(workers=workers, clip_seconds=120) as pool:
        for wait in [pool.submit(job) for job in jobs[: 2 * workers]]:  # until all processes have started
            wait()
        started = time.perf_counter()
        for wait in [pool.submit(job) for job in jobs]:
            if isinstance(outcome := wait(), str):
                raise SystemExit(outcome)
        return (time.perf_counter() - started) / len(jobs)


def pipeline(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Compare `extract`, ready tensors in the best configuration, decoding alone, and the plain way."""
    import plain

    keep_freed_memory()
    clips = choose(args.videos, args.clips)
    listed = manifest(clips, args.work / "clips.csv")
    text = f"{name}={args.weights / name}.safetensors"
    best = load_backbone(text, compiled=True)
    ready = [
        decode_frames(decode_clip(DecodeJob(path=c, samples=SAMPLES, short_side=FRAME_SIZE)).jpegs) for c in clips[:20]
    ]
    ready = [best.prepare(frames) for frames in ready]
    best.compile_for(SAMPLES)
    eager = load_backbone(text)
    users = plain.load(name, args.weights)
    transform = plain.transform_for(users)
    chunks = [clips[i :: args.repeats] for i in range(args.repeats)]
    rows: dict[str, list[float]] = {k: [] for k in ("ready", "decode", "extract", "extract_eager", "plain")}
    stages, cosine = [], []
    for chunk in chunks:
        rows["ready"].append(seconds(lambda: [best.embed_prepared(x) for x in ready]) / len(ready))
        rows["decode"].append(decode_all(clips))
        for key, compiled in (("extract", True), ("extract_eager", False)):
            cache = args.work / "cache"
            shutil.rmtree(cache, ignore_errors=True)
            report = extract(listed, cache=cache, backbone=[text], compile=compiled)
            if report.done != len(clips):
                raise SystemExit(f"{report}")
            once = report.stages["start"] + report.stages["compile"]
            rows[key].append((report.seconds - once) / len(clips))
            stages.append({"way": key, "seconds": report.seconds, "stages": report.stages, "beside": report.beside})
        rows["plain"].append(
            seconds(lambda chunk=chunk: [plain.clip_features(c, users, transform) for c in chunk]) / len(chunk)
        )
        print({k: round(v[-1], 4) for k, v in rows.items()}, flush=True)
    full = load_backbone(text, precision="fp32")
    for frames in ready:
        reference = full.embed_prepared(frames).astype(np.float64)
        cosine.append([float(cosines(reference, m.embed_prepared(frames)).min()) for m in (best, eager)])
    per_clip = {k: spread(v) for k, v in rows.items()}
    limit = [r + d for r, d in zip(rows["ready"], rows["decode"], strict=True)]
    return {
        "clips": len(clips),
        "precision": best.precision,
        "seconds_per_clip": per_clip,
        "images_per_second": {k: SAMPLES / v["median"] for k, v in per_clip.items()},
        "extract_over_limit": spread([e / x for e, x in zip(rows["extract"], limit, strict=True)]),
        "plain_over_extract": spread([p / e for p, e in zip(rows["plain"], rows["extract"], strict=True)]),
        "plain_over_extract_eager": spread([p / e for p, e in zip(rows["plain"], rows["extract_eager"], strict=True)]),
        "cosine_to_fp32_min": {"compiled": min(c[0] for c in cosine), "eager": min(c[1] for c in cosine)},
        "runs": stages,
    }


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    b = b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def startup(_: argparse.Namespace) -> dict[str, Any]:
    """Time `fitrec-cache --help`, and look whether it loads torch."""
    command = [sys.executable, "-m", "fitrec_cache", "--help"]
    times = [seconds(lambda: subprocess.run(command, capture_output=True, check=True)) for _ in range(7)]
    probe = "import sys, fitrec_cache.cli; print('torch' in sys.modules)"
    loads = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    return {"help_seconds": spread(times), "loads_torch": loads.strip() == "True"}


def machine() -> dict[str, Any]:
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "",
    )
    return {
        "cores": os.cpu_count(),
        "processor": cpu,
        "architecture": platform.machine(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": torch.cuda.is_available(),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "timm": timm.__version__,
            "av": av.__version__,
            "pillow": PIL.__version__,
            "numpy": np.__version__,
        },
    }


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    **{f"pipeline-{name}": partial(pipeline, name) for name in BACKBONES},
    "startup": startup,
}
