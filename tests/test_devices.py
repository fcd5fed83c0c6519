from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fitrec_cache.backbone import best_precision
from fitrec_cache.devices import find_device, is_slow
from fitrec_cache.errors import UsageError


@pytest.mark.parametrize(
    "name", ["meta", "xpu", "vulkan", "cpu:3", "cuda:", "cuda:-1", "cuda:1000", "cuda:\u0663", "CPU", ""]
)
def test_what_is_no_device_for_us_is_refused_with_those_that_are(name):
    with pytest.raises(UsageError, match=r"expected auto, cpu, cuda, cuda:N or mps"):
        find_device(name)


def test_a_device_that_is_not_present_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda") == "cuda"
    assert find_device("cuda:1") == "cuda:1"
    with pytest.raises(UsageError, match="'cuda:2' is not present"):
        find_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:0"):
        with pytest.raises(UsageError, match="is not present"):
            find_device(name)


@pytest.mark.parametrize(("major", "precision"), [(7, "fp16"), (8, "bf16")])
def test_a_gpu_that_only_emulates_bf16_computes_in_fp16(monkeypatch, major, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    properties = SimpleNamespace(major=major, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert best_precision("auto", "cuda") == precision


@pytest.mark.parametrize(
    ("has", "bf16_is_fast", "fp16_is_fast"),
    [
        ("avx2", False, False),
        ("avx512", False, False),
        ("avx512 avx512_bf16", True, False),  # as AMD's Zen 4
        ("avx512 avx512_bf16 fp16", False, False),  # Intel's Emerald Rapids in a virtual machine: measured
        ("avx512 avx512_bf16 fp16 amx_tile", True, False),
        ("avx512 avx512_bf16 fp16 amx_tile amx_fp16", True, True),
        ("fp16", False, True),  # another architecture
    ],
)
def test_a_processor_computes_in_what_it_is_fast_in(monkeypatch, has, bf16_is_fast, fp16_is_fast):
    for name in ("avx512", "avx512_bf16", "amx_tile", "amx_fp16"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name in has.split(), raising=False)
    monkeypatch.setattr("fitrec_cache.devices._has_fp16", lambda: "fp16" in has.split())
    assert best_precision("auto", "cpu") == ("bf16" if bf16_is_fast else "fp32")
    assert is_slow("bf16", "cpu") is not bf16_is_fast
    assert is_slow("fp16", "cpu") is not fp16_is_fast
    assert not is_slow("fp32", "cpu")
    assert not is_slow("bf16", "mps")
    assert best_precision("auto", "mps") == "fp32"


@pytest.mark.parametrize(("cuda", "mps", "best"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_best_one_present(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert find_device() == best
    assert find_device("cpu") == "cpu"
