from __future__ import annotations

import os
import re
from contextlib import nullcontext

import pytest
import torch

from fitrec_cache.backbones.backbone import best_precision, load_backbone
from fitrec_cache.common.devices import (
    cores,
    find_device,
    fuses_slowly,
    in_full_float32,
    is_slow,
    mkl_is_held_back,
    overlooked_gpu,
    room_on,
    seed_random_numbers,
)
from fitrec_cache.errors import UsageError


@pytest.mark.parametrize(
    "name", ["meta", "xpu", "vulkan", "cpu:3", "cuda:", "cuda:-1", "cuda:1000", "cuda:\u0663", "CPU", ""]
)
def test_what_is_no_device_for_us_is_refused_with_those_that_are(name):
    with pytest.raises(UsageError, match=r"expected auto, cpu, cuda, cuda:N or mps"):
        find_device(name)


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs, of which the one numbered 1 is current: what is asked of torch about them, as it answers."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr("fitrec_cache.common.devices._refusal", lambda device: "")


def test_a_device_that_is_not_present_is_refused(monkeypatch, gpus):
    with pytest.raises(UsageError, match="'cuda:2' is not present"):
        find_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:0"):
        with pytest.raises(UsageError, match="is not present"):
            find_device(name)


def test_a_gpu_always_has_its_number_as_threads_may_have_another_current_one(gpus):
    assert find_device("cuda") == "cuda:1"
    assert find_device("auto") == "cuda:1"
    assert find_device("cuda:0") == "cuda:0"


def test_a_gpu_on_which_this_torch_cannot_compute_is_refused_and_never_chosen(monkeypatch):
    def ones(*_, device):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore of it")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch, "ones", ones)
    with pytest.raises(UsageError, match=r"'cuda:0' is there, but .*no kernel image .* the device\): .*--device cpu"):
        find_device("cuda")
    assert find_device("auto") == "cpu"
    assert re.fullmatch(r"torch \S+ cannot compute on it \(CUDA error: no kernel .*\): install .*", overlooked_gpu())


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


def test_a_training_on_the_processor_seeds_no_gpu(monkeypatch):
    def seeded(*_):
        raise AssertionError

    for name in ("manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, seeded)
    with torch.random.fork_rng(devices=[]):
        seed_random_numbers(7, torch.device("cpu"))
        found = torch.rand(3)
        torch.default_generator.manual_seed(7)
        assert torch.equal(torch.rand(3), found)


def test_a_training_on_a_gpu_seeds_that_one(monkeypatch):
    told = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: told.append(str(device)) or nullcontext())
    monkeypatch.setattr(torch.cuda, "manual_seed", told.append)
    with torch.random.fork_rng(devices=[]):
        seed_random_numbers(7, torch.device("cuda:1"))
        assert torch.initial_seed() == 7
    assert told == ["cuda:1", 7]


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
        "fitrec_cache.common.devices._processor_has", lambda name: matrix_instructions and name == "amx_tile"
    )
    assert fuses_slowly("bf16", "cpu") is not matrix_instructions
    assert not any(fuses_slowly(*of) for of in (("fp32", "cpu"), ("fp16", "cpu"), ("bf16", "cuda:0"), ("bf16", "mps")))


@pytest.mark.parametrize(
    ("has", "fp16", "held_back"),
    [({"avx512_bf16"}, False, True), ({"avx512_bf16", "amx_tile"}, True, False), ({}, False, False)],
)
def test_mkl_is_held_back_where_avx512_has_bf16_and_no_fp16(monkeypatch, has, fp16, held_back):
    """As AMD's processors since Zen 4; not Intel's with matrix instructions, not those with AVX2 only."""
    monkeypatch.setattr("fitrec_cache.common.devices._processor_has", lambda name: name in has)
    monkeypatch.setattr("fitrec_cache.common.devices._has_fp16", lambda: fp16)
    assert mkl_is_held_back() is held_back


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (torch.cuda.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError, "CUDA out of memory"),  # of pinned memory
        (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        (RuntimeError, "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        (RuntimeError, "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ],
)
def test_a_gpu_that_is_full_is_said_to_be(kind, words):
    said = re.escape(f"resnet50 does not fit into the memory of cuda:0 ({words}): end")
    with pytest.raises(UsageError, match=f"^{said}"), room_on(torch.device("cuda:0"), "resnet50"):
        raise kind(f"{words}\nand more")


def test_other_errors_are_not_taken_for_a_full_gpu():
    with pytest.raises(RuntimeError, match="another"), room_on(torch.device("cuda:0"), "resnet50"):
        raise RuntimeError("another")


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
    ("of_machine", "of_container", "chosen", "threads"),
    [(64, 2, None, 2), (64, 64, None, 3), (64, 2, "3", 3), (2, 2, None, 3)],
)
def test_threads_are_no_more_than_a_container_has_cores_for_unless_chosen(
    weights, monkeypatch, of_machine, of_container, chosen, threads
):
    """Three threads that PyTorch took by itself, or somebody chose: by the variable, or as there are fewer cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    monkeypatch.setattr("fitrec_cache.common.devices.cores", lambda: of_container)
    monkeypatch.setattr("os.cpu_count", lambda: of_machine)
    used = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        load_backbone(weights("test_resnet"), device="cpu")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(used)


def test_cores_are_those_this_process_may_use():
    allowed, before = os.sched_getaffinity(0), cores()  # a container may have fewer than that
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert cores() == before


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
    monkeypatch.setattr("fitrec_cache.common.devices._has_fp16", lambda: "fp16" in has.split())
    assert best_precision("auto", "cpu") == ("bf16" if bf16_is_fast else "fp32")
    assert is_slow("bf16", "cpu") is not bf16_is_fast
    assert is_slow("fp16", "cpu") is not fp16_is_fast
    assert not is_slow("fp32", "cpu")
    assert not is_slow("bf16", "mps")
    assert best_precision("auto", "mps") == "fp32"


@pytest.mark.parametrize(("cuda", "mps", "best"), [(True, True, "cuda:1"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_best_one_present(monkeypatch, gpus, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert find_device() == best
    assert find_device("cpu") == "cpu"


def test_a_processor_without_room_is_told():
    with (
        pytest.raises(UsageError, match=r"^training mean does not fit into the memory of cpu .*: end .* fewer clips"),
        room_on(torch.device("cpu"), "training mean"),
    ):
        torch.empty(1 << 58, dtype=torch.uint8)


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
