"""Where to compute."""

from __future__ import annotations

import re

import torch

from fitrec_cache.errors import UsageError

#: Others that torch knows are not tried by anyone here.
EXPECTED = "auto, cpu, cuda, cuda:N or mps"


def computes_in_bf16(device: str) -> bool:
    """Say whether ``device``, such as ``cpu``, has instructions for products of bfloat16 that are worth using."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device == "cpu" and native is not None and bool(native())


def is_emulated(precision: str, device: str) -> bool:
    """Say whether ``device`` is a processor without instructions for ``bf16`` or ``fp16``: no gain then, but a cost."""
    if device != "cpu" or precision == "fp32":
        return False
    if precision == "bf16":
        return not computes_in_bf16(device)
    native = getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", None)
    return native is None or not native()


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
