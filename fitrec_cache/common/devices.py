"""Where to compute."""

from __future__ import annotations

import os
import platform
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from fitrec_cache.errors import UsageError

#: Others that torch knows are not tried by anyone here.
EXPECTED = "auto, cpu, cuda, cuda:N or mps"

#: What a GPU without room says: itself, or cuBLAS and cuDNN, which cannot even begin (``cublasCreate``).
_FULL_GPU = ("out of memory", "STATUS_ALLOC_FAILED", "ALLOCATION_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")

#: GPUs of compute capability 7.5 without matrix units, whose convolutions in fp16 are slow and may give no numbers
#: (issues 58123 and 77955 of PyTorch).
_WITHOUT_FP16 = re.compile(r"GTX 16\d\d|\bMX[45]50\b|\bT(400|500|550|600|1000|1200|2000)\b")

_ONE_AT_A_TIME = threading.RLock()

#: What the driver of an NVIDIA GPU makes for the first one.
_FIRST_GPU = Path("/dev/nvidia0")


def computes_in_bf16(device: str) -> bool:
    """Say whether ``device``, such as ``cpu``, computes products of bfloat16 faster than of float32.

    A processor does in matrix instructions (AMX), or in those of AVX-512 unless it was built for AMX, as Intel's are
    since Sapphire Rapids: where a virtual machine hides AMX from such a one, bf16 is half as fast as fp32
    (docs/performance.md). What tells those is AVX512-FP16, which came with AMX.
    """
    if torch.device(device).type == "cuda":  # torch.cuda.is_bf16_supported asks the current GPU, whichever is meant
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    if device != "cpu":
        return False
    return _processor_has("amx_tile") or _has_bf16_alone()


def mkl_is_held_back() -> bool:
    """Say whether MKL, which multiplies PyTorch's float32 matrices, leaves half of the processor unused.

    It gives AMD's AVX2 only, where oneDNN, which computes PyTorch's LSTM, gives them their AVX-512
    (docs/performance.md).
    """
    return _has_bf16_alone()


def fuses_slowly(precision: str, device: str) -> bool:
    """Say whether PyTorch's fused attention takes longer on ``device`` than its products one by one.

    It does in bf16 on a processor without matrix instructions, where it multiplies no faster than in fp32
    (docs/performance.md).
    """
    return precision == "bf16" and device == "cpu" and not _processor_has("amx_tile")


def is_good_at_fp16(device: str) -> bool:
    """Say whether convolutions of a CUDA device can be relied on in fp16."""
    return not _WITHOUT_FP16.search(torch.cuda.get_device_name(device))


def is_slow(precision: str, device: str) -> bool:
    """Say whether ``device``, a processor or a CUDA device, takes longer in this precision than in fp32."""
    kind = torch.device(device).type
    if precision == "fp32" or kind not in ("cpu", "cuda"):
        return False
    if precision == "bf16":
        return not computes_in_bf16(device)
    return kind == "cpu" and (not _has_fp16() or (_processor_has("avx512") and not _processor_has("amx_fp16")))


def _processor_has(instructions: str) -> bool:
    found = getattr(torch.cpu, f"_is_{instructions}_supported", None)
    return found is not None and bool(found())


def _has_bf16_alone() -> bool:
    """Say whether it has AVX-512 for bf16 and not for fp16, as AMD's since Zen 4 (and Intel's Cooper Lake)."""
    return _processor_has("avx512_bf16") and not _has_fp16()


def _has_fp16() -> bool:
    found = getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", None)
    return found is not None and bool(found())


def find_device(name: str = "auto") -> str:
    """Return ``name``, or the best device present for ``auto``.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Returns:
        Of CUDA devices always ``cuda:N``: which one ``cuda`` is differs between threads.

    Raises:
        UsageError: If it is another, not present, or one on which this torch cannot compute.
    """
    if name == "auto":
        usable = torch.cuda.is_available() and not _refusal("cuda")
        name = "cuda" if usable else "mps" if torch.backends.mps.is_available() else "cpu"
    found = re.fullmatch(r"cpu|mps|cuda(?::(\d{1,3}))?", name, re.ASCII)
    if found is None:
        raise UsageError(f"unknown device {name[:80]!r}: expected {EXPECTED}")
    if name.startswith("cuda"):
        present = torch.cuda.is_available() and int(found[1] or 0) < torch.cuda.device_count()
    else:
        present = name == "cpu" or torch.backends.mps.is_available()
    if not present:
        raise UsageError(f"device {name!r} is not present on this machine; expected {EXPECTED}")
    if not name.startswith("cuda"):
        return name
    device = f"cuda:{found[1] or torch.cuda.current_device()}"
    if reason := _refusal(device):
        raise UsageError(f"device {device!r} is there, but {reason}, or give --device cpu")
    return device


def _refusal(device: str) -> str:
    """Return why one addition on a CUDA device fails, as torch is built for some generations only; empty if it works.

    Raises:
        UsageError: If it has no room.
    """
    try:
        with room_on(torch.device(device), "anything"):
            (torch.ones(1, device=device) + 1).item()
    except RuntimeError as error:
        return f"torch {torch.__version__} cannot compute on it ({first_line(error)}): install a torch for it"
    return ""


@contextmanager
def room_on(device: torch.device, what: str) -> Iterator[None]:
    """Turn what torch raises for want of memory into a refusal that says what did not fit.

    Args:
        device: Where it is computed.
        what: What is, such as ``resnet50 on clips of 20 frames``.

    Raises:
        UsageError: In place of torch's own error.
    """
    try:
        yield
    except RuntimeError as error:
        # Not by type: a GPU's context, pinned memory or a library's workspace fails without the error of its own.
        on_gpu, on_processor = any(words in str(error) for words in _FULL_GPU), "can't allocate memory" in str(error)
        if not on_gpu and not on_processor:
            raise
        instead = "give --device cpu" if on_gpu else "take fewer clips or a smaller backbone"
        raise UsageError(
            f"{what} does not fit into the memory of {device} ({first_line(error)}): end what else uses it, or "
            f"{instead}"
        ) from error


def seed_random_numbers(seed: int, device: torch.device) -> None:
    """Seed torch's random numbers on the processor and on ``device``; ``torch.manual_seed`` would on all GPUs.

    Args:
        seed: 0 or more.
        device: Where else numbers are drawn.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def own_random_numbers(device: torch.device | None = None) -> Iterator[None]:
    """Leave torch's random numbers, which belong to the caller, as they are; one thread at a time.

    Others that draw too would change what each is given, and wait: one that loads a network, for the end of a training.

    Args:
        device: Where else than on the processor numbers are drawn.
    """
    gpus = [device] if device is not None and device.type == "cuda" else []
    with _ONE_AT_A_TIME, torch.random.fork_rng(gpus):
        yield


@contextmanager
def in_full_float32(device: torch.device) -> Iterator[None]:
    """Let float32 keep all bits: on a CUDA device convolutions by default are rounded to TF32's 10.

    On the processor a caller may have asked for fewer, by ``torch.set_float32_matmul_precision``. The settings are the
    whole process's: the first thread that comes makes them, the last that leaves takes them back.
    """
    if device.type not in ("cuda", "cpu"):
        yield
        return
    _FULL.enter(device)
    try:
        yield
    finally:
        _FULL.leave()


class _Full:
    """Counts who needs full float32."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._back: list[Callable[[], None]] = []

    def enter(self, device: torch.device) -> None:
        with self._lock:
            self._inside += 1
            if device.type == "cuda" or not _products_are_exact():
                self._back.append(_set_full())

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            while self._back and not self._inside:
                self._back.pop()()


_FULL = _Full()


def _newer_settings() -> list[Any]:
    """Return where torch since 2.9 has a second way to set how products are computed, which goes before the first."""
    cudnn = torch.backends.cudnn
    places = [getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None), torch.backends.cuda.matmul, *_processors_own()]
    return [each for each in places if hasattr(each, "fp32_precision")]


def _processors_own() -> list[Any]:
    return [getattr(torch.backends.mkldnn, name, None) for name in ("matmul", "conv", "rnn")]


def _products_are_exact() -> bool:
    """Say whether float32 on the processor keeps all bits, as it does unless a caller wished otherwise."""
    with suppress(RuntimeError):  # asked in one way, where it was set in another
        newer = {getattr(each, "fp32_precision", "none") for each in _processors_own()}
        return torch.get_float32_matmul_precision() == "highest" and newer <= {"none", "ieee"}
    return False


def _set_full() -> Callable[[], None]:
    """Set it in both ways, as what reads the first raises where they differ; return what takes it back."""
    cudnn, newer = torch.backends.cudnn, _newer_settings()
    before = [each.fp32_precision for each in newer]
    convolutions = products = None
    with suppress(RuntimeError):  # it cannot be asked where only the second way was used
        convolutions = cudnn.allow_tf32
    with suppress(RuntimeError):
        products = torch.get_float32_matmul_precision()

    def back() -> None:
        if convolutions is not None:
            cudnn.allow_tf32 = convolutions
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for each, value in zip(newer, before, strict=True):
            each.fp32_precision = value

    cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    for each in newer:
        each.fp32_precision = "ieee"
    return back


def gpu_of(device: str) -> tuple[str, int]:
    """Return the name of the GPU that a device is, and its memory in bytes, 0 if unknown; no name of a processor."""
    if not device.startswith("cuda"):
        return ("Apple's", 0) if device == "mps" else ("", 0)
    found = torch.cuda.get_device_properties(device)
    return str(found.name), int(found.total_memory)


def overlooked_gpu() -> str:
    """Return why torch does not use a GPU although there are signs of one; empty if it does, or there are none."""
    if torch.cuda.is_available():
        with suppress(UsageError):  # of one that has no room
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
    """Return what the processor calls itself, or the kind it is of."""
    with suppress(OSError):
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
        if named:
            return named[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return how many cores this process may use.

    Fewer than there are where it is bound to some, or in a container whose time is limited (as by ``docker --cpus``).
    """
    from joblib import cpu_count

    return int(cpu_count())


def keep_to_cores() -> None:
    """Let PyTorch compute by no more threads than there are cores for: they wait for each other, and each for a core.

    It takes as many as the machine has, whatever time a container may have of them. What somebody chose stays: a seed's
    last bits depend on it.
    """
    chosen = "OMP_NUM_THREADS" in os.environ or torch.get_num_threads() > (os.cpu_count() or 1)
    if not chosen and torch.get_num_threads() > cores():
        torch.set_num_threads(cores())


def first_line(error: BaseException) -> str:
    """Return the first line of an error of torch, which may go on for pages, or say nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def check_jobs(jobs: int, device: torch.device) -> None:
    """Raise UsageError unless this many heads can be trained at the same time on the device."""
    if jobs < 1:
        raise UsageError(f"jobs is {jobs}: expected 1 or more heads at the same time")
    if device.type != "cpu" and jobs > 1:
        raise UsageError(f"jobs is {jobs}, but on {device} heads are trained one after the other: leave jobs out")
