"""Files that want to do harm: parts, run.json and manifests, each given to the command that reads it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torture_runs import command, some_videos

if TYPE_CHECKING:
    from torture import Job

#: A command that takes longer hangs. It needs a second or two.
PATIENCE = 120

Case = tuple[str, Callable[[], int]]


def hostile(job: Job, _: dict[str, Any]) -> dict[str, Any]:
    """Run every case in a process of its own; count how they end and what memory they take."""
    import h5py  # noqa: F401 - before the fork

    import fitrec_cache.extract
    import fitrec_cache.predict
    import fitrec_cache.train  # noqa: F401

    folder = job.work / "hostile"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "outside").mkdir(parents=True)
    _make_base(job, folder)
    rng = random.Random(job.seed)
    found: dict[str, Any] = {}
    for kind, cases in (
        ("hdf5_parts", _parts(job, folder)),
        ("mutated_hdf5_parts", _mutated(job, folder, rng)),
        ("run_json", _runs(job, folder, rng)),
        ("manifests", _manifests(job, folder)),
    ):
        outcomes, peak, slowest = Counter(), 0, 0.0
        for name, call in cases:
            outcome, kilobytes, seconds = _in_child(call, folder / "said")
            outcomes[outcome] += 1
            peak, slowest = max(peak, kilobytes), max(slowest, seconds)
            if outcome not in ("refused", "harmless"):
                print(kind, name, outcome, (folder / "said").read_text(errors="replace")[-1500:])
        found[kind] = {
            "tried": sum(outcomes.values()),
            **outcomes,
            "peak_mb": peak // 1024,
            "slowest_s": round(slowest, 1),
        }
        print(kind, found[kind], flush=True)
    found["written_outside"] = len(list((folder / "outside").iterdir()))
    return found


def _in_child(call: Callable[[], int], said: Path, patience: int = PATIENCE) -> tuple[str, int, float]:
    """Return how a call ended (refused, harmless, traceback, hang, signal N), its peak memory in kB, and seconds."""
    started = time.monotonic()
    pid = os.fork()
    if not pid:
        code = 97
        try:
            descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            signal.alarm(patience)
            code = call()
        finally:
            os._exit(code)
    _, status, usage = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    text = said.read_text(errors="replace")
    if code == -signal.SIGALRM:
        outcome = "hang"
    elif code < 0:
        outcome = f"signal {-code}"
    elif "Traceback" in text or code > 2:
        outcome = "traceback"
    else:
        outcome = "harmless" if code == 0 else "refused"
    return outcome, usage.ru_maxrss, time.monotonic() - started


def _make_base(job: Job, folder: Path) -> None:
    """Extract the clips under two labels, so that a head can be trained."""
    videos = some_videos(job, job.clips)
    paths = sorted(p.relative_to(videos) for p in videos.rglob("*") if p.is_file())
    rows = [f"{path},{'AB'[number % 2]}" for number, path in enumerate(paths)]
    (folder / "base.csv").write_text("\n".join(["path,label", *rows]))
    arguments = ["extract", folder / "base.csv", "--root", videos, "--cache", folder / "base"]
    arguments += ["--backbone", job.backbone, "--preset", job.preset]
    calls = (lambda: command(arguments), lambda: _train(folder / "base", folder))
    if any(_in_child(call, folder / "said", 900)[0] != "harmless" for call in calls):
        raise RuntimeError((folder / "said").read_text())


def _cache(job: Job, folder: Path) -> tuple[Path, Path]:
    """Return a fresh copy of the sound cache and its folder of features."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    shutil.copytree(folder / "base", cache)
    return cache, next((cache / "features").iterdir())


def _plant(folder: Path, data: bytes) -> None:
    """Commit bytes as a part whose checksum is right."""
    path = folder / f"part-{time.time_ns():020d}-{hashlib.sha256(data).hexdigest()[:32]}.h5"
    path.write_bytes(data)


def _train(cache: Path, folder: Path) -> int:
    out = folder / "trained"
    shutil.rmtree(out, ignore_errors=True)
    return command(
        ["train-head", "--cache", cache, "--variant", "mean", "--epochs", 1, "--split", "random", "--out", out]
    )


def _parts(job: Job, folder: Path) -> Iterator[Case]:
    import h5py
    import numpy as np
    from hostile import HOSTILE, with_circular_heap

    from fitrec_cache.common.files import digest

    for build in HOSTILE:
        cache, features = _cache(job, folder)
        identity = json.loads((features / "identity.json").read_text())
        path = folder / "built.h5"
        with h5py.File(path, "w") as file:
            file.attrs["format_version"] = 1
            for name, text in (("kind", "features"), ("identity_sha256", digest(identity)), ("identity", "{}")):
                file.attrs[name] = np.void(text.encode())
            first = next(line for line in _keys(cache))
            file["key"] = np.array([first.encode()])
            build(file)
        yield from _read_by_each(build.__name__, folder, cache, features, path.read_bytes())
    cache, features = _cache(job, folder)
    circular = with_circular_heap(next(features.glob("part-*")).read_bytes())
    yield from _read_by_each("circular heap", folder, cache, features, circular)


def _read_by_each(what: str, folder: Path, cache: Path, features: Path, data: bytes) -> Iterator[Case]:
    """Commit a part and yield each command that reads it."""
    _plant(features, data)
    for name, call in (
        ("info", lambda cache=cache: command(["info", "--cache", cache, "--clips"])),
        ("check", lambda cache=cache: command(["check", "--cache", cache])),
        ("train-head", lambda cache=cache: _train(cache, folder)),
    ):
        yield f"{what}, {name}", call


def _keys(cache: Path) -> list[str]:
    from fitrec_cache.cache import Cache

    return [c.video_sha256 for c in Cache(cache).clips()]


def _mutated(job: Job, folder: Path, rng: random.Random) -> Iterator[Case]:
    """Yield sound parts with some bits flipped and a checksum that fits: what a forger can make."""
    for number in range(job.hostile):
        cache, features = _cache(job, folder)
        kind = rng.choice(("features", "frames", "clips"))
        target = features if kind == "features" else cache / "clips"
        target = next((cache / "frames").iterdir()) if kind == "frames" else target
        part = rng.choice(sorted(target.glob("part-*")))
        data = bytearray(part.read_bytes())
        part.unlink()
        for _ in range(2 ** rng.randrange(6)):
            data[rng.randrange(min(len(data), 4096))] ^= 1 << rng.randrange(8)
        _plant(target, bytes(data))
        yield f"mutation {number} of {kind}", lambda cache=cache: command(["check", "--cache", cache])


def _runs(job: Job, folder: Path, rng: random.Random) -> Iterator[Case]:
    from hostile import odd_runs

    _in_child(lambda: _train(folder / "base", folder), folder / "said", 900)
    run = folder / "trained"
    texts = sorted(odd_runs(json.loads((run / "run.json").read_text())))
    video = next(p for p in sorted((job.work / f"videos-{job.clips}").rglob("*")) if p.is_file())
    for number, text in enumerate(rng.sample(texts, min(job.hostile, len(texts)))):
        (run / "run.json").write_text(text)
        yield f"run.json {number}", lambda: command(["predict", "--run", run, video, "--device", "cpu"])


def _manifests(job: Job, folder: Path) -> Iterator[Case]:
    outside = folder / "outside"
    video = next(p for p in sorted((job.work / f"videos-{job.clips}").rglob("*")) if p.is_file()).resolve()
    rows = {
        "parent folders": f"path,label\n../../../../{outside}/../outside/a.mp4,Squat\n{video},Squat\n",
        "absolute path": f"path,label\n{outside}/a.mp4,../../outside/label\n{video},Squat\n",
        "label with parent folders": f"path,label\n{video},../../../outside/x\n",
        "group with parent folders": f"path,label,group\n{video},Squat,../../../outside/x\n",
        "very long id": f"path,label\n{'a' * 5000}.mp4,Squat\n",
        "very long label": f"path,label\n{video},{'a' * 100_000}\n",
        "NUL": f"path,label\na\0b.mp4,Squat\n{video},Squat\n",
        "control characters": f"path,label\n{video},Squat\x1b[2J\n",
        "a device": "path,label\n/dev/zero,Squat\n",
        "a named pipe": f"path,label\n{folder}/pipe,Squat\n",
        "a folder": f"path,label\n{outside},Squat\n",
        "binary": "\0\1\2" * 1000,
        "unclosed quote": f'path,label\n"{video},Squat\n',
        "one huge cell": f"path,label\n{video},{'b' * 3_000_000}\n",
        "100,000 columns": "path,label," + ",".join(f"c{i}" for i in range(100_000)) + f"\n{video},Squat\n",
    }
    os.mkfifo(folder / "pipe")
    for number, (name, text) in enumerate(rows.items()):
        manifest, cache = folder / f"manifest-{number}.csv", folder / f"cache-{number}"
        manifest.write_text(text)
        arguments = ["extract", manifest, "--cache", cache, "--backbone", job.backbone, "--preset", job.preset]
        yield name, lambda arguments=arguments: command([*arguments, "--workers", 1])
