"""What the parts of both stages share: which clips, how time is taken, on which machine."""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL
import timm
import torch
from numpy.typing import NDArray

from fitrec_cache.common.devices import cores
from fitrec_cache.video.decoding import DecodeJob, DecoderPool, decode_clip
from fitrec_cache.video.jpeg import decode_frames

BACKBONES = ("resnet50", "tf_efficientnet_b0", "vit_tiny_patch16_224")
SAMPLES, FRAME_SIZE, RATE = 20, 288, 25

#: Seconds that a network may take for the clips of one repeat.
A_REPEAT = 25


def list_rules(lists: Path) -> dict[str, str]:
    """Return the split rules of UCF101-style ``trainlist01`` to ``03`` and ``testlist01`` to ``03``."""
    return {f"list {k}": f"list:{lists / f'trainlist{k:02}.txt'},{lists / f'testlist{k:02}.txt'}" for k in (1, 2, 3)}


def on_lists(doc: str | None, *, leave_one: bool = False) -> argparse.Namespace:
    """Return what a benchmark of heads on UCF101-style lists was called with; ``leave_one``: also a column's name."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--lists", type=Path, required=True, help="folder with trainlist01.txt, testlist01.txt, ...")
    if leave_one:
        parser.add_argument("--leave-one", required=True, metavar="COLUMN")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def digits(right: Iterable[bool]) -> str:
    """Return which clips are right as text, a digit a clip, so that a JSON can hold all answers."""
    return "".join("01"[bool(hit)] for hit in right)


def answers(text: str) -> NDArray[np.bool_]:
    """Return what :func:`digits` wrote."""
    return np.array([digit == "1" for digit in text])


def spread(values: Sequence[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "all": list(values)}


def ratio(these: Sequence[float], those: Sequence[float]) -> dict[str, Any]:
    """Return the spread of what these are over those, repeat by repeat."""
    return spread([a / b for a, b in zip(these, those, strict=True)])


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


def write_parts(
    parts: Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]], names: Iterable[str], args: argparse.Namespace
) -> None:
    """Measure these parts; each replaces its entry in ``args.out``, with the machine and the time it took."""
    for folder in (args.out.parent, args.work):
        folder.mkdir(parents=True, exist_ok=True)
    result = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name in names:
        started = time.perf_counter()
        result[name] = parts[name](args) | {"machine": machine()}
        result.setdefault("seconds", {})[name] = time.perf_counter() - started
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def stored_frames(clips: Iterable[Path]) -> list[torch.Tensor]:
    """Return the frames of each clip as a cache stores them."""
    jobs = [DecodeJob(path=c, samples=SAMPLES, short_side=FRAME_SIZE) for c in clips]
    return [decode_frames(decode_clip(job).jpegs) for job in jobs]


def decode_all(clips: Sequence[Path]) -> float:
    """Decode with nothing beside it, on all cores: what embedding leaves no room for. Return seconds a clip."""
    jobs = [DecodeJob(path=c, samples=SAMPLES, short_side=FRAME_SIZE) for c in clips]
    workers = cores()
    with DecoderPool(workers=workers, time_limit=120) as pool:
        for wait in [pool.submit(job) for job in jobs[: 2 * workers]]:  # until all processes have started
            wait()
        started = time.perf_counter()
        for wait in [pool.submit(job) for job in jobs]:
            if isinstance(outcome := wait(), str):
                raise SystemExit(outcome)
        return (time.perf_counter() - started) / len(jobs)


def divide(clips: Sequence[Path], repeats: int, seconds_a_clip: float) -> list[list[Path]]:
    """Return the clips of each repeat: the next ones, for :data:`A_REPEAT` or more, so that all are taken."""
    n = min(len(clips), max(math.ceil(len(clips) / repeats), round(A_REPEAT / seconds_a_clip)))
    return [[clips[(i * n + k) % len(clips)] for k in range(n)] for i in range(repeats)]


def clip_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine between all features of a clip, twenty frames in a row."""
    x, y = a.ravel(), b.astype(np.float64).ravel()
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def manifest(clips: Sequence[Path], path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([str(c.resolve()), c.parent.name] for c in clips)
    return path


def encode(pictures: Iterable[av.VideoFrame], target: Path, *, width: int, height: int) -> Path:
    """Encode pictures as x264 does by default but faster, 25 a second."""
    with av.open(str(target), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number, picture in enumerate(pictures):
            frame = picture.reformat(width=width, height=height, format="yuv420p")
            frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, RATE), 0
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return target


def on_these_cores() -> dict[str, str]:
    """Return an environment in which another program computes with as many threads as this one."""
    return os.environ | {"OMP_NUM_THREADS": str(cores())}


def machine() -> dict[str, Any]:
    """Say what this runs on, and which version of the program it is."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()]
    cpu = {name.strip(): value.strip() for name, _, value in lines}
    flags = cpu.get("flags", "").split()
    commit = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    return {
        "cores": cores(),
        "processor": cpu.get("model name", ""),
        "generation": [int(cpu[name]) for name in ("cpu family", "model", "stepping") if name in cpu],
        "bf16_instructions": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags],
        "commit": subprocess.run(commit, capture_output=True, text=True, check=False).stdout.strip(),
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
