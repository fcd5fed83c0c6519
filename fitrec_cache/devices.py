"""Where to compute."""

from __future__ import annotations

import re

import torch

from fitrec_cache.errors import UsageError

#: Others that torch knows are not tried by anyone here.
EXPECTED = "auto, cpu, cuda, cuda:N or mps"


def computes_in_bf16(device: str) -> bool:
    """Say whether ``device``, such as ``cpu``, computes products of bfloat16 faster than of float32.

    A processor does in matrix instructions (AMX), or in those of AVX-512 unless it was built for AMX, as Intel's are
    since Sapphire Rapids: where a virtual machine hides AMX from such a one, bf16 is half as fast as fp32
    (docs/performance.md). What tells those is AVX512-FP16, which came with AMX.
    """
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return False
    return _processor_has("amx_tile") or (_processor_has("avx512_bf16") and not _has_fp16())


def is_slow(precision: str, device: str) -> bool:
    """Say whether ``device`` is a processor that takes longer in this precision than in fp32."""
    if device != "cpu" or precision == "fp32":
        return False
    if precision == "bf16":
        return not computes_in_bf16(device)
    return not _has_fp16() or (_processor_has("avx512") and not _processor_has("amx_fp16"))


def _processor_has(instructions: str) -> bool:
    found = getattr(torch.cpu, f"_is_{instructions}_supported", None)
    return found is not None and bool(found())


def _has_fp16() -> bool:
    found = getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", None)
    return found is not None and bool(found())


def find_device(name: str = "auto") -> str:
    """Return ``name``, or the best device present for ``auto``.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        UsageError: If it is another, or not present.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    found = re.fullmatch(r"cpu|mps|cuda(?::(\d{1,3}))?", name, re.ASCII)
    if found is None:
        raise UsageError(f"unknown device {name[:80]!r}: expected {EXPECTED}")
    if name.startswith("cuda"):
        present = torch.cuda.is_available() and int(found[1] or 0) < torch.cuda.device_count()
    else:
        present = name == "cpu" or torch.backends.mps.is_available()
    if not present:
        raise UsageError(f"device {name!r} is not present on this machine; expected {EXPECTED}")
    return name
