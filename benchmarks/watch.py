"""How much faster `watch` answers because windows share frames that are embedded once.

    python benchmarks/watch.py VIDEO RUN [--repeats 3]

A video is watched with the default windows, in turns as it is and with every frame embedded for every window. Results:
results/watch.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from parts import machine

from fitrec_cache.pipeline import Pipeline
from fitrec_cache.recogniser import Recogniser
from fitrec_cache.watcher import Watch

RESULT = Path(__file__).parent / "results" / "watch.json"


def what(run: Path) -> dict[str, object]:
    """Return what answers: backbone and precision, variant, number of heads, frames of a window."""
    recogniser = Recogniser(run, device="cpu")
    settings = recogniser.runs[0].run_json
    return {
        "backbone": settings["backbone"],
        "precision": settings["sources"][0]["identity"]["precision"],
        "variant": settings["head"]["variant"],
        "heads": len(recogniser.runs),
        "samples": recogniser.samples,
    }


def answering(video: Path, run: Path, *, reuse: bool) -> tuple[float, list[str]]:
    """Return the seconds that an answer takes, and the labels."""
    shares = Pipeline.embeds_each_alone
    if not reuse:
        Pipeline.embeds_each_alone = False
    try:
        with Watch(video, run=run, device="cpu") as watching:
            labels = [moment.top[0][0] for moment in watching]
            return watching.answering / len(labels), labels
    finally:
        Pipeline.embeds_each_alone = shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    answering(args.video, args.run, reuse=True)  # warm up
    pairs = [[answering(args.video, args.run, reuse=reuse) for reuse in (True, False)] for _ in range(args.repeats)]
    ratios = [anew[0] / shared[0] for shared, anew in pairs]
    found = {
        **what(args.run),
        "windows": len(pairs[0][0][1]),
        "repeats": args.repeats,
        "seconds_shared": statistics.median(shared[0] for shared, _ in pairs),
        "seconds_anew": statistics.median(anew[0] for _, anew in pairs),
        "ratio": statistics.median(ratios),
        "ratio_least": min(ratios),
        "ratio_most": max(ratios),
        "other_labels": sum(a != b for a, b in zip(pairs[0][0][1], pairs[0][1][1], strict=True)),
        "machine": machine(),
    }
    print(json.dumps(found, indent=1))
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
