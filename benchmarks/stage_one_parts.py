"""The parts of stage_one.py, each a function."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import av
import numpy as np
from frame_store import frames
from openvino_part import openvino
from parts import (
    BACKBONES,
    FRAME_SIZE,
    RATE,
    SAMPLES,
    choose,
    clip_cosine,
    decode_all,
    divide,
    encode,
    manifest,
    on_these_cores,
    ratio,
    seconds,
    spread,
    stored_frames,
)
from precisions import precisions

from fitrec_cache import extract
from fitrec_cache.backbones.backbone import load_backbone
from fitrec_cache.common.memory import keep_freed_memory
from fitrec_cache.video import video
from fitrec_cache.video.sampling import frame_indices


def pipeline(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Compare `extract`, ready tensors in the best configuration, decoding alone, and the plain way."""
    keep_freed_memory()
    clips = choose(args.videos, args.clips)
    text = f"{name}={args.weights / name}.safetensors"
    best = load_backbone(text, compiled=not args.eager, device="cpu")
    ready = [best.prepare(frames) for frames in stored_frames(clips[:20])]
    compiled_in = seconds(lambda: best.compile_for(SAMPLES))
    taken = [seconds(lambda: best.embed_prepared(ready[0])) for _ in range(4)][1:]
    shares = divide(clips, args.repeats, statistics.median(taken))
    eager = best if args.eager else load_backbone(text, device="cpu")
    # What a run does once counts in no figure of `extract`, so networks are loaded and compiled once for all runs.
    extract.load_backbone = lambda *_, compiled, **__: best if compiled else eager
    # What is no part of the limit is measured on fewer of these clips; on too few the first ones would count, which
    # wait for the decoders and find no memory kept. The plain way has had its first one before.
    step = len(shares[0]) // min(len(shares[0]), max(len(clips) // 10, 4))
    third = 3 if len(shares[0]) >= 30 else 1
    rows: defaultdict[str, list[float]] = defaultdict(list)
    stages = []
    of_best: list[np.ndarray] = []
    for repeat, share in enumerate(shares):
        part = share[repeat % step :: step]
        rows["ready"].append(seconds(lambda: of_best.extend(map(best.embed_prepared, ready))) / len(ready))
        rows["decode"].append(decode_all(share))
        some_of = share[repeat % third :: third]
        ways = {"extract_eager": share} if args.eager else {"extract": share, "extract_eager": some_of}
        for key, some in ways.items():
            cache = args.work / "cache-stage-one"
            shutil.rmtree(cache, ignore_errors=True)
            listed = manifest(some, args.work / "clips.csv")
            report = extract.extract(listed, cache=cache, backbone=[text], compile=key == "extract", device="cpu")
            if report.done != len(some):
                raise SystemExit(f"{report}")
            once = report.stages["start"] + report.stages["compile"]
            rows[key].append((report.seconds - once) / len(some))
            stages.append({"way": key, "seconds": report.seconds, "stages": report.stages, "beside": report.beside})
        command = [sys.executable, str(Path(__file__).with_name("plain.py")), name, str(args.weights), *map(str, part)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=on_these_cores())
        rows["plain"].append(float(done.stdout))
        print({k: round(v[-1], 4) for k, v in rows.items()}, flush=True)
    made = {"eager" if args.eager else "compiled": of_best[: len(ready)]}
    if not args.eager:
        made["eager"] = [eager.embed_prepared(x) for x in ready]
    exact = made["eager"] if eager.precision == "fp32" else in_fp32(text, ready)
    per_clip = {k: spread(v) for k, v in rows.items()}
    limit = [r + d for r, d in zip(rows["ready"], rows["decode"], strict=True)]
    found = {
        "clips": len(clips),
        "clips_a_repeat": len(shares[0]),
        "clips_not_compiled": len(shares[0] if args.eager else shares[0][::third]),
        "clips_a_part": len(shares[0][::step]),
        "precision": best.precision,
        "seconds_per_clip": per_clip,
        "images_per_second": {k: SAMPLES / v["median"] for k, v in per_clip.items()},
        "plain_over_extract_eager": ratio(rows["plain"], rows["extract_eager"]),
        "cosine_to_fp32_min": {
            way: min(clip_cosine(x.astype(np.float64), y) for x, y in zip(exact, some, strict=True))
            for way, some in made.items()
        },
        "runs": stages,
    }
    if not args.eager:
        found["compile_seconds"] = compiled_in
        found["extract_over_limit"] = ratio(rows["extract"], limit)
        found["plain_over_extract"] = ratio(rows["plain"], rows["extract"])
    return found


def in_fp32(text: str, ready: list[Any]) -> list[np.ndarray]:
    """Embed these prepared clips in fp32."""
    full = load_backbone(text, precision="fp32", device="cpu")
    return [full.embed_prepared(x) for x in ready]


def compiling(args: argparse.Namespace) -> dict[str, Any]:
    """Take how long `extract --compile` compiles: where PyTorch has no compiled code of before, and once it has."""
    listed = manifest(choose(args.videos, 1), args.work / "one.csv")
    found: dict[str, dict[str, list[float]]] = {name: {"first": [], "again": []} for name in BACKBONES}
    for _ in range(args.repeats):
        for name in BACKBONES:
            with TemporaryDirectory() as folder:
                for taken in found[name].values():
                    command = [sys.executable, "-m", "fitrec_cache", "extract", str(listed), "--device", "cpu"]
                    command += ["--backbone", f"{name}={args.weights / name}.safetensors", "--compile", "--json"]
                    command += ["--cache", str(Path(mkdtemp(dir=folder), "cache"))]
                    kept = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(Path(folder, "compiled"))}
                    done = subprocess.run(command, capture_output=True, text=True, check=True, env=kept)
                    taken.append(json.loads(done.stdout)["stages"]["compile"])
            print({k: round(v[-1], 1) for k, v in found[name].items()}, flush=True)
    return {"seconds": {name: {k: spread(v) for k, v in rows.items()} for name, rows in found.items()}}


def growth(args: argparse.Namespace) -> dict[str, Any]:
    """Extract more and more tiny clips with a stand-in for decoder and backbone; then run again, reusing all."""
    rows = []
    for n in args.growth:
        folder = args.work / f"growth-{n}"
        shutil.rmtree(folder, ignore_errors=True)
        for _ in range(2):
            command = [sys.executable, str(Path(__file__).with_name("growth.py")), str(n), str(folder)]
            rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
            print({k: v for k, v in rows[-1].items() if k != "stages"}, flush=True)
        shutil.rmtree(folder)
    return {"rows": rows}


def length(args: argparse.Namespace) -> dict[str, Any]:
    """Decode videos of 5 s to 10 min, as `extract` does and all of it; the frames must be the same."""
    source = args.work / "minute.mp4"
    pictures = (f for c in choose(args.videos, 200) for f in av.open(str(c)).decode(video=0))
    encode(islice(pictures, 60 * RATE), source, width=480, height=270)  # a minute of real pictures, clip after clip
    rows = []
    for duration in (5, 10, 30, 60, 120, 300, 600):
        path = repeat(source, args.work / f"length-{duration}.mp4", duration * RATE)
        sampler = partial(frame_indices, samples=SAMPLES)
        part: list[float] = []
        whole: list[float] = []
        for _ in range(args.repeats):
            started = time.perf_counter()
            clip = video.read_frames(path, sampler=sampler, short_side=FRAME_SIZE)
            part.append(time.perf_counter() - started)
            plan, video._plan = video._plan, lambda *_: None
            started = time.perf_counter()
            reference = video.read_frames(path, sampler=sampler, short_side=FRAME_SIZE)
            whole.append(time.perf_counter() - started)
            video._plan = plan
            if not np.array_equal(clip.frames, reference.frames):
                raise SystemExit(f"{path}: the frames differ")
        rows.append(
            {
                "seconds_of_video": duration,
                "frames": clip.ledger["frames_decoded"],
                "frames_decoded_for_it": clip.ledger["frames_verified"],
                "seconds": spread(part),
                "seconds_all_decoded": spread(whole),
            }
        )
        print({k: v["median"] if isinstance(v, dict) else v for k, v in rows[-1].items()}, flush=True)
        path.unlink()
    return {"codec": "h264, key frame every 250 frames at most, 480 px wide", "rows": rows}


def repeat(source: Path, target: Path, n_frames: int) -> Path:
    """Copy the packets of a minute again and again, without encoding, until there are ``n_frames``."""
    with av.open(str(source)) as opened:
        packets = [(bytes(p), p.pts, p.dts, p.is_keyframe, p.time_base) for p in opened.demux(video=0) if p.size]
        minute = len(packets)
        with av.open(str(target), "w") as out:
            stream = out.add_stream_from_template(opened.streams.video[0])
            step = round(Fraction(1, RATE) / packets[0][4])
            for number in range(n_frames):
                data, pts, dts, key, base = packets[number % minute]
                packet = av.Packet(data)
                shift = number // minute * minute * step
                packet.pts, packet.dts, packet.time_base = pts + shift, dts + shift, base
                packet.is_keyframe, packet.stream = key, stream
                out.mux(packet)
    return target


def startup(_: argparse.Namespace) -> dict[str, Any]:
    """Time `fitrec-cache --help`, and look whether it loads torch."""
    command = [sys.executable, "-m", "fitrec_cache", "--help"]
    times = [seconds(lambda: subprocess.run(command, capture_output=True, check=True)) for _ in range(7)]
    probe = "import sys, fitrec_cache.cli; print('torch' in sys.modules)"
    loads = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    return {"help_seconds": spread(times), "loads_torch": loads.strip() == "True"}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    **{f"pipeline-{name}": partial(pipeline, name) for name in BACKBONES},
    "compiling": compiling,
    "openvino": openvino,
    "precisions": precisions,
    "frames": frames,
    "length": length,
    "growth": growth,
    "startup": startup,
}

#: Run only if named: what takes long, or needs a package of its own.
IF_NAMED = ("compiling", "openvino")
