"""Precision: which types a processor or GPU computes fast in, and float32 that is not rounded on the way."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

#: GPUs of compute capability 7.5 without matrix units: their convolutions in fp16 are slow and may give NaN
#: (PyTorch issues 58123 and 77955).
_WITHOUT_FP16 = re.compile(r"GTX 16\d\d|\bMX[45]50\b|\bT(400|500|550|600|1000|1200|2000)\b")


def computes_in_bf16(device: str) -> bool:
    """Say whether ``device``, such as ``cpu``, multiplies matrices faster in bfloat16 than in float32.

    A processor does so if it has matrix instructions (AMX), or bf16 instructions in AVX-512 and was not designed for
    AMX, as Intel's are since Sapphire Rapids: where a virtual machine hides AMX from such a processor, bf16 is slower
    than fp32 (docs/performance.md). Those processors are recognised by AVX512-FP16, which was introduced together
    with AMX.
    """
    if torch.device(device).type == "cuda":  # torch.cuda.is_bf16_supported asks the current GPU, whichever is meant
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    if device != "cpu":
        return False
    return _processor_has("amx_tile") or _has_bf16_alone()


def mkl_is_held_back() -> bool:
    """Say whether MKL, which multiplies PyTorch's float32 matrices, leaves half of the processor unused.

    On AMD's processors MKL uses only AVX2, whereas oneDNN, which computes PyTorch's LSTM, uses their AVX-512
    (docs/performance.md).
    """
    return _has_bf16_alone()


def fuses_slowly(precision: str, device: str) -> bool:
    """Say whether PyTorch's fused attention is slower on ``device`` than the separate matrix products.

    In bf16 on a processor without matrix instructions it multiplies no faster than in fp32: slower than the products
    on AMD's, as fast on Intel's (docs/performance.md).
    """
    return precision == "bf16" and device == "cpu" and not _processor_has("amx_tile")


def is_good_at_fp16(device: str) -> bool:
    """Say whether a CUDA device computes convolutions in fp16 reliably."""
    return not _WITHOUT_FP16.search(torch.cuda.get_device_name(device))


def is_slow(precision: str, device: str) -> bool:
    """Say whether ``device``, a processor or a CUDA device, is slower in this precision than in fp32."""
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
    """Say whether the processor has AVX-512 for bf16 but not for fp16: AMD since Zen 4, and Intel's Cooper Lake."""
    return _processor_has("avx512_bf16") and not _has_fp16()


def _has_fp16() -> bool:
    found = getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", None)
    return found is not None and bool(found())


@contextmanager
def in_full_float32(device: torch.device) -> Iterator[None]:
    """Compute float32 in float32: whatever the caller has set, and although a CUDA device rounds convolutions to TF32.

    A caller may compute under ``torch.autocast``, and may have lowered the precision of products with
    ``torch.set_float32_matmul_precision``. That setting applies to the whole process, as does TF32: the first thread
    that enters changes them, the last one that leaves restores them.
    """
    _FULL.enter(device)
    try:
        # What a GPU computes with is prepared on the processor.
        with torch.autocast("cpu", enabled=False), torch.autocast(device.type, enabled=False):
            yield
    finally:
        _FULL.leave()


class _Full:
    """Counts the threads that need full float32."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._back: list[Callable[[], None]] = []

    def enter(self, device: torch.device) -> None:
        with self._lock:
            self._inside += 1
            if (device.type == "cuda" and not self._back) or not _products_are_exact():
                self._back.append(_set_full())

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            while self._back and not self._inside:
                self._back.pop()()


_FULL = _Full()


def _newer_settings() -> list[Any]:
    """Return the objects that hold torch's second set of precision settings (since 2.9), which overrides the first."""
    cudnn = torch.backends.cudnn
    places = [getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None), torch.backends.cuda.matmul, *_processors_own()]
    return [each for each in places if hasattr(each, "fp32_precision")]


def _processors_own() -> list[Any]:
    return [getattr(torch.backends.mkldnn, name, None) for name in ("matmul", "conv", "rnn")]


def _products_are_exact() -> bool:
    """Say whether float32 products on the processor keep all bits, as they do unless a caller changed a setting."""
    with suppress(RuntimeError):  # raised if it was set through the other interface
        newer = {getattr(each, "fp32_precision", "none") for each in _processors_own()}
        return torch.get_float32_matmul_precision() == "highest" and newer <= {"none", "ieee"}
    return False


def _set_full() -> Callable[[], None]:
    """Set full precision through both interfaces; return the function that restores the earlier settings.

    Both are set because reading the first raises where the two differ.
    """
    cudnn, newer = torch.backends.cudnn, _newer_settings()
    before = [each.fp32_precision for each in newer]
    convolutions = products = None
    with suppress(RuntimeError):  # raised where only the second interface was used
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
