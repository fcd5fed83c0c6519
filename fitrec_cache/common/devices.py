"""Devices to compute on: which there are, their memory and random numbers, and how many cores may be used."""

from __future__ import annotations

import os
import platform
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from fitrec_cache.errors import UsageError

#: torch knows other devices too, but this package has not been tried on them.
EXPECTED = "auto, cpu, cuda, cuda:N or mps"

#: Parts of the error messages of a GPU that is out of memory: from CUDA itself, or from cuBLAS and cuDNN, which then
#: fail even to initialise (``cublasCreate``).
_FULL_GPU = ("out of memory", "STATUS_ALLOC_FAILED", "ALLOCATION_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")

_ONE_AT_A_TIME = threading.RLock()

#: The device file that NVIDIA's driver creates for the first GPU.
_FIRST_GPU = Path("/dev/nvidia0")


def find_device(name: str = "auto") -> str:
    """Return ``name``, or the best device present for ``auto``.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Returns:
        The device; a CUDA device always as ``cuda:N``, since ``cuda`` may mean another one in another thread.

    Raises:
        UsageError: If the name is none of these, or the device is not present, or this torch cannot compute on it. Also
            if the caller has changed torch's default dtype or device, with which networks are built.
    """
    usual = torch.empty(0)  # torch 2.8 has no default device to ask for where it was set to None
    if usual.dtype != torch.float32 or usual.device.type != "cpu":
        raise UsageError(
            f"torch makes tensors of {usual.dtype} on {usual.device} by default, expected torch.float32 on cpu: undo "
            "torch.set_default_dtype and torch.set_default_device first"
        )
    if name == "auto":
        usable = torch.cuda.is_available() and not _refusal("cuda")
        name = "cuda" if usable else "mps" if torch.backends.mps.is_available() else "cpu"
    found = re.fullmatch(r"cpu|mps|cuda(?::(\d{1,3}))?", name, re.ASCII)
    if found is None:
        raise UsageError(f"unknown device {name[:80]!r}: expected {EXPECTED}")
    if name == "cpu" or (name == "mps" and torch.backends.mps.is_available()):
        return name
    if name == "mps" or not torch.cuda.is_available() or int(found[1] or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name!r} is not present on this machine; expected {EXPECTED}")
    device = f"cuda:{found[1] or torch.cuda.current_device()}"
    if reason := _refusal(device):
        raise UsageError(f"device {device!r} is there, but {reason}, or give --device cpu")
    return device


def _refusal(device: str) -> str:
    """Return why a trial addition on a CUDA device fails; empty if it works.

    A build of torch supports only some generations of GPUs.

    Raises:
        UsageError: If the device is out of memory.
    """
    try:
        with room_on(torch.device(device), "anything"):
            (torch.ones(1, device=device) + 1).item()
    except RuntimeError as error:
        return f"torch {torch.__version__} cannot compute on it ({first_line(error)}): install a torch for it"
    return ""


@contextmanager
def room_on(device: torch.device, what: str) -> Iterator[None]:
    """Turn torch's out-of-memory errors into a UsageError that says what did not fit.

    Args:
        device: Where the computation runs.
        what: What is computed, such as ``resnet50 on clips of 20 frames``.

    Raises:
        UsageError: In place of torch's own error.
    """
    try:
        yield
    except RuntimeError as error:
        # By message, not by type: a GPU's context, pinned memory or a library's workspace raises a plain RuntimeError.
        on_gpu, on_processor = any(words in str(error) for words in _FULL_GPU), "can't allocate memory" in str(error)
        if not on_gpu and not on_processor:
            raise
        instead = "give --device cpu" if on_gpu else "take fewer clips or a smaller backbone"
        raise UsageError(
            f"{what} does not fit into the memory of {device} ({first_line(error)}): end what else uses it, or "
            f"{instead}"
        ) from error


def seed_random_numbers(seed: int, device: torch.device) -> None:
    """Seed torch's random numbers on the processor and on ``device`` (``torch.manual_seed`` would seed all GPUs)."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def own_random_numbers(device: torch.device | None = None) -> Iterator[None]:
    """Restore torch's random number generators, which belong to the caller, on exit; one thread at a time.

    Other threads that draw random numbers would change the ones drawn here, so those that use this function wait: a
    thread that loads a network, for instance, waits for the end of a training.

    Args:
        device: A device besides the processor on which numbers are drawn.
    """
    kind = "cpu" if device is None else device.type
    with _ONE_AT_A_TIME, torch.random.fork_rng([device] if kind == "cuda" else []):
        before = torch.mps.get_rng_state() if kind == "mps" else None  # fork_rng does not know this device
        try:
            yield
        finally:
            if before is not None:
                torch.mps.set_rng_state(before)


def gpu_of(device: str) -> tuple[str, int]:
    """Return a GPU's name and its memory in bytes (0 if unknown); the name is empty if the device is a processor."""
    if not device.startswith("cuda"):
        return ("Apple's", 0) if device == "mps" else ("", 0)
    found = torch.cuda.get_device_properties(device)
    return str(found.name), int(found.total_memory)


def overlooked_gpu() -> str:
    """Return why torch does not use a GPU that seems to be present; empty if torch uses it or there is none."""
    if torch.cuda.is_available():
        with suppress(UsageError):  # the GPU is out of memory
            return _refusal("cuda")
        return ""
    if not (_FIRST_GPU.exists() or shutil.which("nvidia-smi")):
        return ""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is made for processors only: install one for CUDA (pytorch.org says how)"
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is not None and shown.strip() in ("", "-1"):
        return "the variable CUDA_VISIBLE_DEVICES hides it: unset it"
    return (
        f"torch {torch.__version__}, made for CUDA {torch.version.cuda}, cannot use it: see whether `nvidia-smi` shows "
        "it, and update its driver"
        + (f"; or the variable CUDA_VISIBLE_DEVICES ({shown}) names none that is here" if shown else "")
    )


def processor_name() -> str:
    """Return the processor's model name, or its architecture if the name is unknown."""
    with suppress(OSError):
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
        if named:
            return named[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return how many cores this process may use.

    Fewer than the machine has if the process is bound to some of them, or runs in a container whose processor time is
    limited (as by ``docker --cpus``).
    """
    from joblib.externals.loky import cpu_count  # joblib's own says 1 where /dev/shm is not writable

    return int(cpu_count())


def threads_are_chosen() -> bool:
    """Say whether the user chose the number of PyTorch's threads: by the variable, or as there are fewer cores."""
    return "OMP_NUM_THREADS" in os.environ or torch.get_num_threads() > (os.cpu_count() or 1)


def keep_to_cores() -> None:
    """Limit PyTorch's threads to the cores that this process may use: more would wait for each other.

    PyTorch takes as many as the machine has, even in a container with less processor time. A number that the user chose
    is kept, because the last bits of a result depend on it.
    """
    if not threads_are_chosen() and torch.get_num_threads() > cores():
        torch.set_num_threads(cores())


def first_line(error: BaseException) -> str:
    """Return the first line of a torch error, whose message may be pages long, or empty: then the type's name."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def check_jobs(jobs: int, device: str = "cpu") -> None:
    """Raise UsageError unless this many heads can be trained at the same time on the device."""
    if jobs < 1:
        raise UsageError(f"jobs is {jobs}: expected 1 or more heads at the same time")
    if device != "cpu" and jobs > 1:
        raise UsageError(f"jobs is {jobs}, but on {device} heads are trained one after the other: leave jobs out")
