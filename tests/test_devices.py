from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fitrec_cache.backbone import best_precision
from fitrec_cache.devices import find_device
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


@pytest.mark.parametrize(("cuda", "mps", "best"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_best_one_present(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert find_device() == best
    assert find_device("cpu") == "cpu"
