"""The main job on the clips in data/samples: extract, train two heads, recognise one clip that no head has seen.

    python examples/demo.py [--out demo]

Every step is a command that you can type yourself; each is shown before it runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: By which a folder is known that this made, and may remove.
MARKER = ".fitrec-demo"


def command(*arguments: str | Path) -> None:
    """Show and run one ``fitrec-cache`` command; stop where it fails."""
    words = [str(a) for a in arguments]
    print(f"\n$ fitrec-cache {shlex.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", "fitrec_cache", *words], check=True, cwd=ROOT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for cache, runs and picture")
    out: Path = parser.parse_args().out
    full = ROOT / out
    if full.exists():
        if not (full / MARKER).is_file():
            sys.exit(f"{full} exists and has no {MARKER}, as a demo leaves: remove it, or choose another --out")
        shutil.rmtree(full)
    full.mkdir(parents=True)
    (full / MARKER).touch()
    started = time.perf_counter()
    samples, cache = Path("data/samples"), out / "cache"
    command("extract", samples, "--cache", cache, "--backbone", "tf_efficientnet_lite0")
    shared = ["--cache", cache, "--backbone", "tf_efficientnet_lite0"]
    for variant in ("mean", "efficientnet-lstm-attention"):
        command("train-head", *shared, "--variant", variant, "--out", out / "runs" / variant)
    run = out / "runs" / "efficientnet-lstm-attention"
    unseen = json.loads((ROOT / run / "run.json").read_text())["split"]["test"][-1]
    picture = out / "attention.png"
    command("predict", "--run", run, samples / unseen, "--picture", picture)
    print(f"\nDone in {time.perf_counter() - started:.0f} s. In {full}:")
    for path, what in (
        (cache, "frames and features; `fitrec-cache info` describes them"),
        (out / "runs", "two trained heads, each with metrics.json, curves.png and confusion.png"),
        (picture, "the frames of that clip with their attention"),
    ):
        print(f"  {path}: {what}")


if __name__ == "__main__":
    main()
