"""The parts of stage_two.py."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from parts import BACKBONES, choose, manifest, on_these_cores, ratio, seconds, spread
from process_memory import kilobytes

from fitrec_cache.cache import Cache
from fitrec_cache.common.devices import cores
from fitrec_cache.common.precision import computes_in_bf16
from fitrec_cache.dataset.folds import make_folds
from fitrec_cache.extract import extract
from fitrec_cache.features import Features, load_cached
from fitrec_cache.train import train_head

HERE = Path(__file__).parent

#: Heads on features, and which.
ON_FEATURES = (
    ("mean", "resnet50"),
    ("resnet50-lstm-attention", "resnet50"),
    ("mean", "tf_efficientnet_b0"),
    ("efficientnet-lstm-attention", "tf_efficientnet_b0"),
    ("mean", "vit_tiny_patch16_224"),
    ("vit-lstm", "vit_tiny_patch16_224"),
)

#: The one of a short look.
QUICK = ("efficientnet-lstm-attention", "tf_efficientnet_b0")

#: Epochs against end-to-end training.
EPOCHS = 50


def ensure_cache(args: argparse.Namespace) -> None:
    """Extract what is missing; with ``--quick`` six clips of each of four classes."""
    videos, clips = args.videos, choose(args.videos, 10_000)
    if args.quick:
        classes = sorted({c.parent.name for c in clips})[:4]
        clips = [c for name in classes for c in [c for c in clips if c.parent.name == name][:6]]
        args.work.mkdir(parents=True, exist_ok=True)
        videos = manifest(clips, args.work / "quick.csv")
    if args.cache.exists() and len(Cache(args.cache).clips()) >= len(clips):
        return
    texts = [f"{n}={args.weights / n}.safetensors" for n in ([QUICK[1]] if args.quick else BACKBONES)]
    extract(videos, cache=args.cache, backbone=texts, compile=not args.quick, device="cpu")


def run_json(command: Sequence[object]) -> dict[str, Any]:
    """Run a program that prints one JSON object."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def write_arrays(args: argparse.Namespace) -> tuple[Path, dict[str, int]]:
    """Write the ResNet50 features of the three sides of split ``group``, seed 0, for programs of any kind."""
    data: Features = load_cached(Cache(args.cache), ["resnet50"])
    names = sorted(set(data.labels))
    targets = np.array([names.index(label) for label in data.labels])
    split = make_folds("group", **data.columns, seed=0)[0].split
    sides = {side: getattr(split, side) for side in ("train", "val", "test")}
    arrays = {f"{k}_x": data.values[v] for k, v in sides.items()} | {f"{k}_y": targets[v] for k, v in sides.items()}
    np.savez(args.work / "arrays.npz", classes=len(names), **arrays)
    return args.work / "arrays.npz", {k: len(v) for k, v in sides.items()}


def keras(args: argparse.Namespace) -> dict[str, Any]:
    """Train the same head by Keras and by this program, in turns, a seed each; in bf16 too where it is faster."""
    arrays, clips = write_arrays(args)
    epochs, seeds, rate = 15, 3, 1e-3
    ways = {
        f"{name}_{precision}": [python, HERE / script, arrays, "--precision", precision]
        for precision in ("fp32", *["bf16"] * computes_in_bf16("cpu"))
        for name, python, script in (
            ("keras", args.keras_python, "keras_head.py"),
            ("ours", sys.executable, "our_head.py"),
        )
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for seed in range(seeds):
        for name, way in ways.items():
            runs[name].append(run_json([*way, "--epochs", epochs, "--seed", seed, "--learning-rate", rate]))
        print({k: (statistics.median(v[-1]["epoch_seconds"]), v[-1]["accuracy"]) for k, v in runs.items()}, flush=True)
    # Keras traces its graph in the first epoch, which counts for neither.
    every = {k: [statistics.median(r["epoch_seconds"][1:]) for r in v] for k, v in runs.items()}
    return {
        "clips": clips,
        "epochs": epochs,
        "learning_rate": rate,
        "split": "group, seed 0",
        "seeds": seeds,
        "epoch_seconds": {k: spread(v) for k, v in every.items()},
        "first_epoch_seconds": {k: spread([r["epoch_seconds"][0] for r in v]) for k, v in runs.items()},
        "ratio": {k: ratio(every["keras_fp32"], v) for k, v in every.items()},
        "accuracy": {k: [r["accuracy"] for r in v] for k, v in runs.items()},
        "versions": runs["keras_fp32"][0]["versions"],
    }


def command_train(args: argparse.Namespace, *options: object) -> tuple[dict[str, Any], float, int]:
    """Run ``train-head`` as a user does; return its report, seconds of the whole process and its peak in bytes."""
    out = args.work / "run"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "fitrec_cache", "train-head", "--cache", args.cache, "--out", out, "--json"]
    with (args.work / "report.json").open("w+") as report:
        started = time.perf_counter()
        child = subprocess.Popen([*map(str, command), *map(str, options)], stdout=report, stderr=subprocess.PIPE)
        peak = 0
        while child.poll() is None:
            peak = max(peak, 1024 * kilobytes(child.pid, "VmHWM"))
            time.sleep(0.02)
        whole = time.perf_counter() - started
        if child.returncode:
            raise SystemExit(child.stderr.read().decode()[-2000:])
        report.seek(0)
        return json.load(report), whole, peak


def variants(args: argparse.Namespace) -> dict[str, Any]:
    """Train all heads on features with all seeds by the recipe ``native``, a command each, and test them.

    Seeds of heads with an LSTM are trained at the same time, as many as there are cores; ``mean`` is too short.
    """
    rows = []
    for variant, backbone in [QUICK] if args.quick else ON_FEATURES:
        seeds = range(1 if args.quick else 3)
        options = [*("--variant", variant, "--backbone", backbone), *(x for s in seeds for x in ("--seed", s))]
        jobs = 1 if variant == "mean" else cores()
        short = ["--epochs", 3] if args.quick else []
        report, whole, peak = command_train(args, *options, "--jobs", jobs, *short)
        row = {"variant": variant, "backbone": backbone, "seeds": len(seeds), "seconds": whole, "peak_bytes": peak}
        row["jobs"] = jobs
        row["epochs"] = [r["epochs"] for r in report["runs"]]
        rows.append(row | {"stages": report["stages"], "accuracy": [r["accuracy"] for r in report["runs"]]})
        print(variant, backbone, round(whole, 1), flush=True)
    return {"recipe": "native", "split": "group", "rows": rows, "seconds": sum(r["seconds"] for r in rows)}


def pixels(args: argparse.Namespace) -> dict[str, Any]:
    """Train the two heads on frames for an epoch each."""
    rows = []
    for variant in ("lrcn", "convlstm"):
        shutil.rmtree(args.work / "run", ignore_errors=True)
        report = train_head(out=args.work / "run", cache=args.cache, variant=variant, recipe="paper", epochs=1)
        run = report.runs[0]
        row = {"variant": variant, "clips": run.n_train + run.n_val, "epoch_seconds": run.seconds}
        rows.append(row | {"load_seconds": report.stages["load"]})
        print(rows[-1], flush=True)
    return {"rows": rows}


def load(args: argparse.Namespace) -> dict[str, Any]:
    """Load the widest features again and again; and see how much memory a whole ``train-head`` takes."""
    data = load_cached(Cache(args.cache), ["resnet50"])
    times = [seconds(lambda: load_cached(Cache(args.cache), ["resnet50"])) for _ in range(5)]
    memory = {}
    for recipe in ("native", "paper"):
        _, _, memory[recipe] = command_train(args, *("--backbone", "resnet50", "--recipe", recipe, "--epochs", 2))
    return {
        "shape": list(data.values.shape),
        "feature_bytes": data.values.nbytes,
        "seconds": spread(times),
        "peak_bytes": memory,
        "allowed_bytes": 2 * data.values.nbytes + 1_500_000_000,
    }


def end_to_end(args: argparse.Namespace) -> dict[str, Any]:
    """Measure an epoch that decodes and embeds on a part of the clips, and what this program does instead."""
    clips = choose(args.videos, 30)
    command = [sys.executable, HERE / "end_to_end.py", args.weights, *clips]
    command = list(map(str, command))
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=on_these_cores())
    shutil.rmtree(args.work / "part", ignore_errors=True)
    report = extract(
        manifest(clips, args.work / "part.csv"),
        cache=args.work / "part",
        backbone=[f"resnet50={args.weights}/resnet50.safetensors"],
        device="cpu",
    )
    once = (report.seconds - report.stages["start"]) / len(clips)
    arrays, sides = write_arrays(args)
    ours = run_json([sys.executable, HERE / "our_head.py", arrays, "--epochs", 6])
    epoch = statistics.median(ours["epoch_seconds"][1:])
    return {
        "measured_clips": len(clips),
        "clips": {"an_epoch": sides["train"] + sides["val"], "all": sum(sides.values())},
        "epochs": EPOCHS,
        "seconds_per_clip_and_epoch": float(done.stdout),
        "extract_seconds_per_clip": once,
        "our_epoch_seconds": epoch,
    }


def seeds(args: argparse.Namespace) -> dict[str, Any]:
    """Train two seeds of the ResNet50 head one after the other, and at the same time; in turns, twice."""
    found: dict[str, dict[str, Any]] = {}
    for recipe, epochs in (("native", 10),):
        options = [*("--backbone", "resnet50", "--recipe", recipe, "--epochs", epochs), *("--seed", 0, "--seed", 1)]
        rows: dict[str, list[float]] = {"in_turn": [], "at_once": []}
        same = []
        for _ in range(2):
            weights = {}
            for name, jobs in (("in_turn", 1), ("at_once", 2)):
                report, _, _ = command_train(args, *options, "--jobs", jobs)
                rows[name].append(report["stages"]["train"])
                weights[name] = [Path(r["out"], "head.safetensors").read_bytes() for r in report["runs"]]
            same.append(weights["in_turn"] == weights["at_once"])
        found[recipe] = {
            "epochs": epochs,
            "seconds": {k: spread(v) for k, v in rows.items()},
            "same_weights": all(same),
        }
        print(recipe, rows, flush=True)
    return found


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "keras": keras,
    "variants": variants,
    "pixels": pixels,
    "load": load,
    "end_to_end": end_to_end,
    "seeds": seeds,
}

#: What a short look is worth.
QUICK_PARTS = ("variants", "pixels")
