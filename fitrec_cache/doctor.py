"""Check whether everything works here, what is missing, and how long things will take."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
import torchvision

from fitrec_cache import __version__
from fitrec_cache.backbones.backbone import (
    best_precision,
    check_compiler,
    check_preset,
    library_versions,
    load_backbone,
)
from fitrec_cache.backbones.pretrained import EMBEDDED, BackboneChoice, weights_are_here
from fitrec_cache.cache import Cache, newest
from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.cpu_contention import CpuContention
from fitrec_cache.common.devices import (
    cores,
    find_device,
    first_line,
    gpu_of,
    keep_to_cores,
    overlooked_gpu,
    processor_name,
)
from fitrec_cache.common.files import Plain, holds_nothing, is_file, is_folder, is_there
from fitrec_cache.common.memory import keep_freed_memory, memory_here
from fitrec_cache.common.precision import computes_in_bf16
from fitrec_cache.dataset.clips import plain_text
from fitrec_cache.errors import FitrecError, NoCacheError, UsageError, VideoError
from fitrec_cache.extract import FRAME_SIZE, SAMPLES
from fitrec_cache.extraction.claims import CLAIMS
from fitrec_cache.extraction.extractor import COMMIT_CLIPS
from fitrec_cache.extraction.history import FOLDER
from fitrec_cache.settings.poses import POSES
from fitrec_cache.settings.recipes import get_recipe
from fitrec_cache.settings.variants import heads_for
from fitrec_cache.storage import hdf5
from fitrec_cache.training.training_time import training_seconds, usual_sides
from fitrec_cache.video import container
from fitrec_cache.video.decoding import TIME_LIMIT, DecodeJob, DecoderPool, StoredClip
from fitrec_cache.wording import plural, size

#: The packages that ``pip install '.[NAME]'`` adds, by NAME.
OPTIONAL: Mapping[str, tuple[str, ...]] = {"export": ("onnx", "onnxruntime", "onnxscript"), "sweep": ("optuna",)}

#: Assumed size of a clip's frames on disk, in bytes, if no video is given: README, Limits.
FRAME_BYTES = 300_000

#: The number of clips for which times are estimated.
MANY = 1000

#: The assumed number of classes of these clips, and the number of seeds with which ``learn`` trains each head.
_CLASSES, _SEEDS = 10, 3

#: The folders in a cache into which ``extract`` writes.
_PLACES = ("clips", "frames", "features", CLAIMS, FOLDER)

#: How often the random clip is embedded after the warm-up.
_TRIES = 3

#: A video that takes less than this to decode, in seconds, is decoded again, to time it without start-up costs.
_QUICK_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Trial(Plain):
    """The result of embedding a random clip.

    Attributes:
        seconds: The median time.
        dim: Length ``d`` of one embedding.
        others: How many cores other programs used meanwhile; None if that slowed nothing down, or nothing is known.
    """

    seconds: float
    dim: int
    others: float | None


@dataclass(frozen=True, kw_only=True)
class Decoded(Plain):
    """The result of decoding a video: its properties, processor seconds, bytes of its sampled frames, and warnings."""

    path: str
    codec: str
    width: int
    height: int
    frames: int
    seconds: float
    bytes: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DoctorReport(Plain):
    """The result of :func:`doctor`.

    Attributes:
        versions: Versions of this program, Python and the libraries, by name.
        processor: Name of the processor.
        cores: Number of cores that this process may use, out of ``cores_there``.
        threads: Number of threads that torch uses.
        bf16_is_fast: Whether the processor is faster in bf16 than in fp32.
        device: The device to compute on; empty if the requested one does not exist.
        precision: The precision used there.
        gpu: Name of the GPU if the device is one; else empty.
        gpu_bytes: Its memory in bytes; 0 if unknown.
        gpu_seen: Whether torch sees a GPU, used or not.
        gpu_overlooked: Why torch sees no GPU although there seems to be one.
        memory: Total memory in bytes, of which ``memory_free`` are free; 0 if unknown.
        disk: Folder whose disk was checked.
        disk_free: Free bytes on that disk.
        clip_bytes: Size of a clip on disk: its frames and, after a trial, its features.
        cache: The given cache; None if none was given.
        cache_clips: Number of clips in the cache; None if it cannot be opened or does not exist yet.
        backbone: Name of the backbone; as given if there is no such backbone.
        weights: ``hub``, ``embedded`` or a path.
        weights_here: True if they are on this machine, False if they can be downloaded; None if neither.
        compiler: Why ``--compile`` cannot work; empty if it can, or if it would compile for Apple's GPU.
        lacking: Packages that are not installed, for each of :data:`OPTIONAL`.
        trial: The trial; None if no clip was embedded.
        video: The decoded video; None if none was given or it cannot be used.
        estimate: Seconds for :data:`MANY` such clips: to ``embed`` them, to ``decode`` them on all cores, and to
            ``train`` on them, as ``learn`` does, with ten classes.
        problems: What prevents ``extract`` from working with these arguments, or damage in the cache, each with what to
            do; by subject: ``device``, ``preset``, ``weights``, ``backbone``, ``video``, ``cache``, ``disk``,
            ``memory``.
    """

    versions: dict[str, str]
    processor: str
    cores: int
    cores_there: int
    threads: int
    bf16_is_fast: bool
    device: str
    precision: str
    gpu: str
    gpu_bytes: int
    gpu_seen: bool
    gpu_overlooked: str
    memory: int
    memory_free: int
    disk: Path
    disk_free: int
    clip_bytes: int
    cache: Path | None
    cache_clips: int | None
    backbone: str
    weights: str
    weights_here: bool | None
    compiler: str
    lacking: dict[str, tuple[str, ...]]
    trial: Trial | None
    video: Decoded | None
    estimate: dict[str, float]
    problems: dict[str, str]


@plain_arguments
def doctor(
    video: Path | None = None,
    *,
    backbone: str = EMBEDDED,
    preset: str = "native",
    device: str = "auto",
    cache: Path | None = None,
) -> DoctorReport:
    """Check whether ``extract`` can work here, what is missing, and how long it will take.

    Nothing is downloaded or written. If the weights are on this machine, a random clip of 20 frames is embedded in the
    precision that ``extract`` would use; a video is decoded in a separate process, as in ``extract``. After this call
    the process keeps freed memory for reuse (:mod:`fitrec_cache.common.memory`).

    Args:
        video: A video file to decode; None for none.
        backbone: ``NAME`` or ``NAME=WEIGHTS``; see :func:`fitrec_cache.backbones.backbone.load_backbone`.
        preset: ``native``, ``grid``, ``paper`` or ``table1``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        cache: Cache folder to check; it need not exist yet.

    Returns:
        The findings. Anything that does not work is reported in ``problems`` and not raised.

    Raises:
        UsageError: If ``video`` is not a file.
    """
    if video is not None and not is_file(video):
        what = "is a folder" if is_folder(video) else "is no file" if is_there(video) else "cannot be found"
        raise UsageError(f"VIDEO {video} {what}: give one video file, or leave it out")
    keep_freed_memory()
    keep_to_cores()
    problems: dict[str, str] = {}
    found, choice, here, trial, decoded, held, free = "", None, None, None, None, None, 0
    with _noted(problems, "device"):
        found = find_device(device)
    with _noted(problems, "preset"):
        check_preset(preset)
    with _noted(problems, "weights"):
        choice = BackboneChoice.parse(backbone)
        here = weights_are_here(choice)
    if found and here and "preset" not in problems:
        with _noted(problems, "backbone"):
            trial = _embed(backbone, preset, found)
    if video is not None:
        with _noted(problems, "video"):
            decoded = _decode(video)
    if cache is not None:
        with _noted(problems, "cache"):
            held = _clips_in(cache)
    folder = _nearest(cache or Path())
    clip_bytes = (decoded.bytes if decoded else FRAME_BYTES) + (2 * SAMPLES * trial.dim if trial else 0)
    with _noted(problems, "disk"):
        free = shutil.disk_usage(folder).free
        _check_room(folder, free, clip_bytes, cache)
    gpu, gpu_bytes = gpu_of(found)
    memory, memory_free = memory_here()
    with _noted(problems, "memory"):
        _check_memory(memory)
    return DoctorReport(
        versions=_versions(),
        processor=processor_name(),
        cores=cores(),
        cores_there=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        bf16_is_fast=computes_in_bf16("cpu"),
        device=found,
        precision=best_precision("auto", found) if found else "",
        gpu=gpu,
        gpu_bytes=gpu_bytes,
        gpu_seen=torch.cuda.is_available() or torch.backends.mps.is_available(),
        gpu_overlooked=overlooked_gpu(),
        memory=memory,
        memory_free=memory_free,
        disk=folder,
        disk_free=free,
        clip_bytes=clip_bytes,
        cache=cache,
        cache_clips=held,
        backbone=choice.name if choice else backbone,
        weights=choice.weights if choice else "",
        weights_here=here,
        compiler=_compiler_problem(found or "cpu"),
        lacking={name: tuple(p for p in packages if find_spec(p) is None) for name, packages in OPTIONAL.items()},
        trial=trial,
        video=decoded,
        estimate=estimate(
            trial.seconds if trial else None,
            decoded.seconds if decoded else None,
            cores(),
            _train(choice.name, trial.dim) if choice and trial else None,
        ),
        problems=problems,
    )


def estimate(embed: float | None, decode: float | None, n_cores: int, train: float | None = None) -> dict[str, float]:
    """Return the seconds to ``embed``, ``decode`` and ``train`` on :data:`MANY` clips, as far as they are known.

    Decoding a clip takes one core, so several are decoded in parallel; embedding a clip takes all cores.

    Args:
        embed: Seconds to embed one clip; None: unknown.
        decode: Seconds to decode one clip on one core; None: unknown.
        n_cores: Number of cores for decoding.
        train: Seconds to train on all clips; None: unknown.

    Example:
        >>> estimate(0.14, 0.06, 2)
        {'embed': 140.0, 'decode': 30.0}
    """
    each = {"embed": embed, "decode": None if decode is None else decode / n_cores}
    found = {name: round(MANY * seconds, 3) for name, seconds in each.items() if seconds is not None}
    return found if train is None else found | {"train": round(train, 3)}


#: Memory that `extract` takes with the default backbone, and of it that of each decoder process, in bytes: measured on
#: 24 clips, in control groups with limits.
_MEMORY, _MEMORY_OF_A_WORKER = 900_000_000, 45_000_000


@contextmanager
def _noted(problems: dict[str, str], what: str) -> Iterator[None]:
    """Record errors as problems, so that the remaining checks still run."""
    try:
        yield
    except FitrecError as error:
        problems[what] = str(error)
    except OSError as error:
        problems[what] = (
            f"{error.filename or what} cannot be reached ({error.strerror}): name another, or make it readable"
        )


def _versions() -> dict[str, str]:
    return {
        "fitrec-cache": __version__,
        "Python": platform.python_version(),
        **library_versions(),
        "torchvision": str(torchvision.__version__),
        "PyAV": container.library_version(),
        "h5py": hdf5.library_version(),
    }


def _compiler_problem(device: str) -> str:
    try:
        check_compiler(device)
    except UsageError as error:
        return str(error)
    return ""


def _embed(backbone: str, preset: str, device: str) -> Trial:
    """Embed a random clip as large as stored ones can be: once to warm up, then several times."""
    model = load_backbone(backbone, preset=preset, device=device)
    clip = torch.randint(0, 256, (SAMPLES, 3, FRAME_SIZE, FRAME_SIZE * 16 // 9), dtype=torch.uint8)
    spent, contention = [], CpuContention(cores())
    try:
        model.embed(clip)
        for _ in range(_TRIES):
            started = time.perf_counter()
            model.embed(clip)
            spent.append(time.perf_counter() - started)
    except RuntimeError as error:  # raised by torch, for example because of an unsuitable driver
        raise UsageError(f"{backbone} cannot compute on {device} ({first_line(error)}): try --device cpu") from error
    return Trial(seconds=statistics.median(spent), dim=model.dim, others=contention.others())


def _train(backbone: str, dim: int) -> float:
    """Return the approximate number of seconds for which ``learn`` trains on :data:`MANY` clips."""
    return training_seconds(
        [(variant, dim, dim if backbone in POSES else 0) for variant in heads_for(backbone)],
        sides=usual_sides(MANY),
        n_classes=_CLASSES,
        frames=SAMPLES,
        seeds=_SEEDS,
        recipe=get_recipe("native"),
    )


def _decode(path: Path) -> Decoded:
    """Decode a video in a worker process; a short one twice, as the first decode in a process takes longer."""
    job = DecodeJob(path=path, samples=SAMPLES, short_side=FRAME_SIZE)
    with DecoderPool(workers=1, time_limit=TIME_LIMIT) as pool:
        clip = pool.submit(job)()
        if isinstance(clip, StoredClip) and clip.seconds < _QUICK_SECONDS:
            clip = pool.submit(job)()
    if isinstance(clip, str):
        raise VideoError(
            f"{plain_text(str(path))} cannot be used ({clip}): give another video file; `extract` leaves such a one out"
        )
    return Decoded(
        path=str(path),
        codec=clip.ledger["codec"],
        width=clip.ledger["width"],
        height=clip.ledger["height"],
        frames=clip.ledger["frames_decoded"],
        seconds=clip.seconds,
        bytes=sum(map(len, clip.jpegs)),
        warnings=tuple(clip.ledger["warnings"]),
    )


def _clips_in(folder: Path) -> int | None:
    """Return the number of clips in a cache; None if it does not exist yet."""
    if not folder.exists() or (folder.is_dir() and holds_nothing(folder)):
        return None
    try:
        cache = Cache(folder)
    except NoCacheError as error:
        raise UsageError(f"{error}; for a new cache name a new or an empty folder") from error
    cache.frame_stores()  # opens each store, which detects damage
    cache.feature_stores()
    return len(newest(cache.entries()))


def _nearest(folder: Path) -> Path:
    """Return a folder, or the nearest existing folder around it."""
    whole = folder.absolute()
    for place in (whole, *whole.parents):
        with suppress(OSError):  # a name that is too long, or in a folder that may not be entered
            if place.is_dir():
                return place
    return whole


def _check_memory(there: int) -> None:
    """Raise UsageError if memory, in bytes, hardly suffices for `extract` with the default backbone; 0: not known."""
    if there and there < (need := _MEMORY + cores() * _MEMORY_OF_A_WORKER):
        fewer = ", or give extract --workers 1" * (there >= _MEMORY + _MEMORY_OF_A_WORKER)
        raise UsageError(
            f"there are {size(there)} of memory, and `extract` takes about {size(need)}: allow more{fewer}"
        )


def _check_room(folder: Path, free: int, clip_bytes: int, cache: Path | None) -> None:
    """Raise UsageError if clips cannot be written; ``folder`` is the cache, or the nearest existing one around it."""
    inside = () if cache is None or folder != cache.absolute() else (folder / name for name in _PLACES)
    for place in () if cache is None else (folder, *inside):  # first the folder itself
        if place.exists() and not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
            raise UsageError(f"nothing can be written into {place}: make it writable, or name another --cache")
    if free < COMMIT_CLIPS * clip_bytes:
        raise UsageError(
            f"there is room for {plural(free // clip_bytes, 'clip')} in {folder}: make room, or name another --cache"
        )
