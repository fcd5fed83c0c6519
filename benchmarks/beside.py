"""Training a head alone and beside a busy process: with all threads, with as many as are chosen, and with one.

    python benchmarks/beside.py CACHE --work DIR --out benchmarks/results/beside.json [--repeats 2]

CACHE has features of the default backbone. All ways are taken in turns, each in a process of its own; the seconds are
those of training, without loading.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parts import machine, spread

from fitrec_cache.backbones.pretrained import EMBEDDED
from fitrec_cache.common.devices import cores
from fitrec_cache.common.files import write_json

VARIANT, EPOCHS = "efficientnet-lstm-attention", 10
EVERY = {"OMP_NUM_THREADS": str(cores())}
WAYS = {
    "all threads": EVERY,
    "all threads, OMP_WAIT_POLICY=passive": EVERY | {"OMP_WAIT_POLICY": "passive"},
    "as many as are chosen": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep some processes busy meanwhile."""
    there = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in there:
            process.kill()
            process.wait()


def train(args: argparse.Namespace, settings: dict[str, str]) -> tuple[float, int]:
    """Train a head in a process with these variables; return the seconds of training and the number of threads."""
    shutil.rmtree(args.work, ignore_errors=True)
    words = ["train-head", "--cache", args.cache, "--backbone", EMBEDDED, "--variant", VARIANT, "--out", args.work]
    words += ["--epochs", EPOCHS, "--set", "refit=false", "--json"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    call = [sys.executable, "-m", "fitrec_cache", *map(str, words)]
    done = subprocess.run(call, env=kept | settings, check=True, capture_output=True, text=True)
    report = json.loads(done.stdout)
    return report["stages"]["train"], report["threads"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    taken: dict[str, dict[str, list[float]]] = {name: {way: [] for way in WAYS} for name in ("alone", "beside")}
    threads: dict[str, dict[str, list[int]]] = {name: {way: [] for way in WAYS} for name in taken}
    for _ in range(args.repeats):
        for name, processes in (("alone", 0), ("beside", 1)):
            with busy(processes):
                for way, settings in WAYS.items():
                    seconds, number = train(args, settings)
                    taken[name][way].append(seconds)
                    threads[name][way].append(number)
                    print(name, way, round(seconds, 1), number, flush=True)
    found: dict[str, Any] = {
        name: {way: {"seconds": spread(taken[name][way]), "threads": threads[name][way]} for way in WAYS}
        for name in taken
    }
    write_json(args.out, {"variant": VARIANT, "epochs": EPOCHS, "machine": machine()} | found)


if __name__ == "__main__":
    main()
