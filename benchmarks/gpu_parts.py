"""The parts of gpu.py, each a function."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts import SAMPLES, clip_cosine, manifest, spread, stored_frames

from fitrec_cache.backbones.backbone import Backbone, load_backbone
from fitrec_cache.common.devices import find_device
from fitrec_cache.extract import extract

#: What nvidia-smi is asked, five times a second.
ASKED = {"utilization.gpu": "busy_percent", "memory.used": "memory_mb", "power.draw": "watts"}

#: Clips on which the GPU and the processor are compared.
COMPARED = 10

#: Clips in a batch that are tried beside one.
MORE = (1, 2, 4, 8)


@contextmanager
def watched(device: str, found: dict[str, float]) -> Iterator[None]:
    """Add what nvidia-smi says of the GPU meanwhile, as means; nothing where it is not there or cannot say."""
    device = find_device(device)
    if not device.startswith("cuda") or not shutil.which("nvidia-smi"):
        yield
        return
    gpu = f"GPU-{torch.cuda.get_device_properties(device).uuid}"  # its numbers may be others than nvidia-smi's
    command = [
        "nvidia-smi",
        f"--id={gpu}",
        f"--query-gpu={','.join(ASKED)}",
        "--format=csv,noheader,nounits",
        "-lms",
        "200",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asked:
        try:
            yield
        finally:
            asked.terminate()
            rows = [row for row in csv.reader(asked.stdout or ()) if len(row) == len(ASKED)]
    for number, name in enumerate(ASKED.values()):
        said = [float(row[number]) for row in rows if row[number].strip().replace(".", "", 1).isdecimal()]
        if said:
            found[name] = sum(said) / len(said)


def embed_seconds(model: Backbone, inputs: Sequence[Any]) -> float:
    """Return seconds a batch of the network alone, over one second at least, after two rounds to warm up."""
    for _ in range(2):
        for x in inputs:
            model.embed_prepared(x)
    started, rounds = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < 1:
        for x in inputs:
            model.embed_prepared(x)
        rounds += 1
    return passed / max(1, rounds) / len(inputs)


def one_way(text: str, compiled: bool, clips: Sequence[Path], args: argparse.Namespace) -> dict[str, Any]:
    """Time one backbone: alone, from videos, from stored frames."""
    model = load_backbone(text, device=args.device, compiled=compiled)
    ready = [model.prepare(frames) for frames in stored_frames(clips[:COMPARED])]
    model.compile_for(SAMPLES)
    rows: dict[str, list[float]] = {"ready": [], "videos": [], "frames": []}
    runs = []
    listed, cache = manifest(clips, args.work / "clips.csv"), args.work / "cache-gpu"
    for _ in range(args.repeats):
        rows["ready"].append(embed_seconds(model, ready))
        shutil.rmtree(cache, ignore_errors=True)
        for way, videos in (("videos", listed), ("frames", None)):
            shutil.rmtree(cache / "features", ignore_errors=True)
            busy: dict[str, float] = {}
            with watched(args.device, busy):
                report = extract(videos, cache=cache, backbone=[text], device=args.device, compile=compiled)
            if report.done != len(clips):
                raise SystemExit(f"{report}")
            taken = (report.seconds - report.stages["start"] - report.stages["compile"]) / len(clips)
            rows[way].append(taken)
            runs.append({"way": way, **report.to_dict(), "gpu": busy, "computing": rows["ready"][-1] / taken})
    return {
        "precision": model.precision,
        "seconds_per_clip": {name: spread(values) for name, values in rows.items()},
        "images_per_second": {name: SAMPLES / spread(values)["median"] for name, values in rows.items()},
        "runs": runs,
    } | compared(text, model, ready, batches=not compiled)


def compared(text: str, model: Backbone, ready: Sequence[Any], *, batches: bool) -> dict[str, Any]:
    """Compare with the processor of the same machine, in its best precision and in fp32; try larger batches."""
    here = [x.cpu() for x in ready]
    processor, exact = (load_backbone(text, device="cpu", precision=p) for p in ("auto", "fp32"))
    seconds = embed_seconds(processor, here[:2])
    cosine = [
        clip_cosine(exact.embed_prepared(x).astype(np.float64), model.embed_prepared(y))
        for x, y in zip(here, ready, strict=True)
    ]
    found: dict[str, Any] = {
        "processor": {"precision": processor.precision, "seconds_per_clip": seconds},
        "cosine_to_processor_fp32_min": min(cosine),
    }
    if batches:
        found["images_per_second_by_clips_a_batch"] = {
            n: n * SAMPLES / embed_seconds(model, [torch.cat([*ready][:1] * n)]) for n in MORE
        }
    return found


def at_once(text: str, args: argparse.Namespace) -> dict[int, float]:
    """Return clips a second of several processes that embed the stored frames of one cache."""
    found = {}
    cache = args.work / "cache-gpu"
    for n in args.processes:
        shutil.rmtree(cache / "features", ignore_errors=True)
        command = [sys.executable, "-m", "fitrec_cache", "extract", "--cache", str(cache), "--backbone", text, "--json"]
        command += ["--device", args.device]
        started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(n)]
        reports = [json.loads(process.communicate()[0]) for process in started]
        found[n] = sum(r["done"] for r in reports) / max(r["seconds"] - r["stages"]["start"] for r in reports)
    return found


def gpu() -> dict[str, Any]:

    if not torch.cuda.is_available():
        return {}
    first = torch.cuda.get_device_properties(0)
    return {"name": first.name, "memory_gb": round(first.total_memory / 1e9, 1), "cuda": torch.version.cuda}
