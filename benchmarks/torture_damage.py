"""Damage to parts: found, named, set aside, and exactly their clips redone."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torture_runs import bits, start, undisturbed

if TYPE_CHECKING:
    from torture import Job

Damage = Callable[[Path, Path, random.Random], Path]


def truncated(part: Path, cache: Path, rng: random.Random) -> Path:
    part.write_bytes(part.read_bytes()[: rng.randrange(part.stat().st_size)])
    return part


def bit_flipped(part: Path, cache: Path, rng: random.Random) -> Path:
    data = bytearray(part.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    part.write_bytes(data)
    return part


def missing(part: Path, cache: Path, rng: random.Random) -> Path:
    part.unlink()
    return part


def foreign(part: Path, cache: Path, rng: random.Random) -> Path:
    kinds = [k for k in ("clips", "frames", "features") if k not in part.relative_to(cache).parts]
    other = rng.choice(sorted((cache / rng.choice(kinds)).rglob("part-*")))
    return Path(shutil.copy(other, part.parent))


def half_written(part: Path, cache: Path, rng: random.Random) -> Path:
    from fitrec_cache.common.files import host_id

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = part.with_name(f".tmp-{host_id()}-{dead.pid}-00ff00ff")
    left.write_bytes(part.read_bytes()[: rng.randrange(part.stat().st_size)])
    return left


DAMAGES: tuple[Damage, ...] = (truncated, bit_flipped, missing, foreign, half_written)


def damage(job: Job, _: dict[str, Any]) -> dict[str, Any]:
    """Try each damage on a random part of each kind."""
    videos, reference, _took = undisturbed(job, job.clips)
    rng = random.Random(job.seed)
    cases = []
    for kind in ("clips", "frames", "features"):
        for hurt in DAMAGES:
            cases.append({"kind": kind, "damage": hurt.__name__, **_one(job, videos, reference, kind, hurt, rng)})
            print(cases[-1], flush=True)
    good = {"named": True, "kept": True, "redone_exactly": True, "differs": False, "sound_afterwards": True}
    return {"cases": cases, "tried": len(cases), "as_promised": sum(good.items() <= c.items() for c in cases)}


def _one(job: Job, videos: Path, reference: Any, kind: str, hurt: Damage, rng: random.Random) -> dict[str, bool]:
    from fitrec_cache.check import check

    cache = job.work / "damaged"
    shutil.rmtree(cache, ignore_errors=True)
    shutil.copytree(job.work / f"undisturbed-{job.clips}", cache)
    part = rng.choice(sorted((cache / kind).rglob("part-*")))
    keys = set() if hurt in (foreign, half_written) else _keys(part, kind)
    path = hurt(part, cache, rng)
    content = path.read_bytes() if path.exists() else b""
    found = check(cache=cache)
    told = [(p["path"], p["reason"]) for p in found.problems]
    if hurt is missing:
        named = any(str(part.parent).startswith(p) and "missing: " in r for p, r in told) or bool(found.notes)
    else:
        named = [p for p, _ in told] == [str(path)]
    check(cache=cache, repair=True)
    aside = cache / "set-aside" / path.relative_to(cache)
    kept = hurt is missing or (not path.exists() and aside.read_bytes() == content)
    run = start(job, videos, cache, name="damaged")
    run.wait()
    redone = {k: set(run.stored(k)) for k in ("clips", "frames", "features")}
    return {
        "named": named,
        "kept": kept,
        "redone_exactly": redone == {"clips": set(), "frames": set(), "features": set(), kind: keys},
        "differs": bits(cache) != reference,
        "sound_afterwards": check(cache=cache).problems == (),
    }


def _keys(part: Path, kind: str) -> set[str]:
    from fitrec_cache.storage.parts import read_part, text_values

    keys = text_values(read_part(part, kind)["key"])
    return {hashlib.sha256(os.fsencode(k)).hexdigest() for k in keys} if kind == "clips" else set(keys)
