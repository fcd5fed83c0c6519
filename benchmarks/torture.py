"""Do to a cache what happens to caches, and count what survives: kills, full disks, damage, broken and hostile files.

    python benchmarks/torture.py [--only kill,stop,damage,many,fuzz,hostile] [--videos DIR] [--work DIR] [--out JSON]

Sections are added to the JSON one by one; ``kill`` and ``fuzz`` go on where an earlier call stopped (``--seconds``).
docs/reliability.md shows what came out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]

#: Section: module that has a function of its name.
SECTIONS = {
    "kill": "torture_kill",
    "stop": "torture_stop",
    "damage": "torture_damage",
    "many": "torture_many",
    "fuzz": "torture_fuzz",
    "hostile": "torture_hostile",
}

#: These go on where an earlier call stopped, so their seconds add up; the others begin anew.
CONTINUED = ("kill", "fuzz")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a section is given.

    Attributes:
        videos: Folder of class folders.
        work: Folder for everything temporary.
        backbone: ``NAME[=WEIGHTS]``.
        preset: Preset of the backbone.
        clips: How many clips an extraction has.
        kills, mutations, hostile: How many to try in all.
        rounds: How often ``many`` is tried.
        deadline: When to stop, on the monotonic clock.
        seed: Of all that is random.
        keep: Puts what a section has so far into the result file.
    """

    videos: Path
    work: Path
    backbone: str
    preset: str
    clips: int
    kills: int
    mutations: int
    hostile: int
    rounds: int
    deadline: float
    seed: int
    keep: Callable[[dict[str, Any]], None]

    def time_left(self) -> bool:
        return time.monotonic() < self.deadline


os.environ["HF_HUB_OFFLINE"] = "1"  # names that nobody has would be looked up for a minute each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--videos", type=Path, default=ROOT / "data/samples")
    parser.add_argument("--work", type=Path, default=ROOT / "torture")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/torture.json")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--preset", default="table1")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--mutations", type=int, default=2000)
    parser.add_argument("--hostile", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop kill and fuzz after this long; call again")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    unknown = set(args.only.split(",")) - SECTIONS.keys()
    if unknown:
        parser.error(f"unknown section {', '.join(sorted(unknown))}: expected some of {', '.join(SECTIONS)}")
    names = ("videos", "work", "backbone", "preset", "clips", "kills", "mutations", "hostile", "rounds", "seed")
    given = {n: getattr(args, n) for n in names} | {"deadline": time.monotonic() + args.seconds}
    result = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name in args.only.split(","):
        started = time.monotonic()
        before = result.get(name, {})

        def keep(
            section: dict[str, Any], name: str = name, before: dict[str, Any] = before, since: float = started
        ) -> None:
            result.update(
                json.loads(args.out.read_text()) if args.out.exists() else {}
            )  # others may run other sections
            earlier = before.get("seconds", 0) if name in CONTINUED else 0
            result[name] = section | {"seconds": round(earlier + time.monotonic() - since, 1)}
            result["about"] = about(args)
            args.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")

        run = getattr(importlib.import_module(SECTIONS[name]), name)
        keep(run(Job(**given, keep=keep), before))
        print(name, json.dumps({k: v for k, v in result[name].items() if not isinstance(v, list | dict)}))


def about(args: argparse.Namespace) -> dict[str, Any]:
    import av
    import h5py
    import torch

    return {
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "system": platform.system()},
        "versions": {"torch": str(torch.__version__), "h5py": h5py.__version__, "av": av.__version__},
        "videos": args.videos.name,
        "backbone": f"{args.backbone.partition('=')[0]}, preset {args.preset}",
    }


if __name__ == "__main__":
    main()
