from __future__ import annotations

import pytest
import torch

from fitrec_cache.backbones.backbone import best_precision
from fitrec_cache.common.precision import fuses_slowly, in_full_float32, is_slow, mkl_is_held_back


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("NVIDIA GeForce GTX 1660 Ti", "fp32"),
        ("Quadro T1000", "fp32"),
        ("NVIDIA GeForce MX450", "fp32"),
        ("Tesla T4", "fp16"),
        ("RTX 2080", "fp16"),
    ],
)
def test_fp16_is_not_chosen_where_convolutions_may_give_no_numbers(monkeypatch, name, precision):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert best_precision("auto", "cuda:0") == precision


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_a_gpu_that_only_emulates_bf16_computes_in_fp16(monkeypatch, capability, precision):
    """Asked of the GPU that is meant: the other one here is of another generation."""
    other = (9, 0) if capability < (8, 0) else (7, 5)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability if device == "cuda:1" else other)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert best_precision("auto", "cuda:1") == precision
    assert is_slow("bf16", "cuda:1") is (precision == "fp16")
    assert not is_slow("fp16", "cuda:1")
    assert best_precision("auto", "cuda:0") != precision


@pytest.mark.parametrize("matrix_instructions", [True, False])
def test_fused_attention_is_slow_in_bf16_without_matrix_instructions_alone(monkeypatch, matrix_instructions):
    monkeypatch.setattr(
        "fitrec_cache.common.precision._processor_has", lambda name: matrix_instructions and name == "amx_tile"
    )
    assert fuses_slowly("bf16", "cpu") is not matrix_instructions
    assert not any(fuses_slowly(*of) for of in (("fp32", "cpu"), ("fp16", "cpu"), ("bf16", "cuda:0"), ("bf16", "mps")))


@pytest.mark.parametrize(
    ("has", "fp16", "held_back"),
    [({"avx512_bf16"}, False, True), ({"avx512_bf16", "amx_tile"}, True, False), ({}, False, False)],
)
def test_mkl_is_held_back_where_avx512_has_bf16_and_no_fp16(monkeypatch, has, fp16, held_back):
    """As AMD's processors since Zen 4; not Intel's with matrix instructions, not those with AVX2 only."""
    monkeypatch.setattr("fitrec_cache.common.precision._processor_has", lambda name: name in has)
    monkeypatch.setattr("fitrec_cache.common.precision._has_fp16", lambda: fp16)
    assert mkl_is_held_back() is held_back


def test_on_a_gpu_float32_keeps_all_bits_and_settings_come_back(monkeypatch):
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "deterministic", True)
    with in_full_float32(torch.device("cpu")):
        assert cudnn.allow_tf32
    with in_full_float32(torch.device("cuda:0")):
        assert not cudnn.allow_tf32
        assert cudnn.deterministic
    assert cudnn.allow_tf32


def tf32_settings():
    """Return every way in which torch is asked; None where it will not say, as different ways were mixed."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul

    def ask(question):
        try:
            return question()
        except RuntimeError:
            return None

    newer = [each.fp32_precision for each in (cudnn.conv, cudnn.rnn, matmul, torch.backends.mkldnn.matmul)]
    return [ask(lambda: cudnn.allow_tf32), ask(torch.get_float32_matmul_precision), *newer]


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9")
@pytest.mark.parametrize("place", ["conv", "rnn", "cudnn", "everything", "medium"])
def test_whichever_way_tf32_was_allowed_it_is_off_inside_and_as_before_after(place):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    places = {"conv": cudnn.conv, "rnn": cudnn.rnn, "cudnn": cudnn, "everything": torch.backends}
    first, known = torch.get_float32_matmul_precision(), [*places.values(), matmul, torch.backends.mkldnn.matmul]
    before = [each.fp32_precision for each in known]
    try:
        if place == "medium":
            torch.set_float32_matmul_precision("medium")
        else:
            places[place].fp32_precision = "ieee" if place in ("conv", "rnn") else "tf32"
        allowed = tf32_settings()
        with in_full_float32(torch.device("cuda:0")):
            assert tf32_settings() == [False, "highest", "ieee", "ieee", "ieee", "ieee"]
        assert tf32_settings() == allowed
    finally:
        for each, value in zip(known, before, strict=True):
            each.fp32_precision = value
        torch.set_float32_matmul_precision(first)
        torch.backends.cudnn.allow_tf32 = True


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
    monkeypatch.setattr("fitrec_cache.common.precision._has_fp16", lambda: "fp16" in has.split())
    assert best_precision("auto", "cpu") == ("bf16" if bf16_is_fast else "fp32")
    assert is_slow("bf16", "cpu") is not bf16_is_fast
    assert is_slow("fp16", "cpu") is not fp16_is_fast
    assert not is_slow("fp32", "cpu")
    assert not is_slow("bf16", "mps")
    assert best_precision("auto", "mps") == "fp32"


def test_of_several_that_need_all_bits_the_last_that_leaves_takes_the_settings_back():
    cudnn, gpu = torch.backends.cudnn, torch.device("cuda:0")
    assert cudnn.allow_tf32
    first, second = in_full_float32(gpu), in_full_float32(gpu)  # as of two threads
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    try:
        assert not cudnn.allow_tf32
    finally:
        second.__exit__(None, None, None)
    assert cudnn.allow_tf32


@pytest.mark.parametrize("device", ["cpu", "cuda:0", "mps"])
@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
def test_in_full_float32_a_callers_autocast_has_no_effect(device, kind):
    """Nor has that of the processor where a GPU computes: features are prepared on the processor."""
    torch.set_autocast_enabled(kind, True)
    try:
        with in_full_float32(torch.device(device)):
            assert torch.is_autocast_enabled(kind) is (kind not in ("cpu", torch.device(device).type))
        assert torch.is_autocast_enabled(kind)
    finally:
        torch.set_autocast_enabled(kind, False)
