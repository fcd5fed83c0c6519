from __future__ import annotations

import os
import re
from contextlib import nullcontext

import pytest
import torch

from fitrec_cache.backbones.backbone import load_backbone
from fitrec_cache.common.devices import (
    cores,
    find_device,
    overlooked_gpu,
    own_random_numbers,
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


def test_the_random_numbers_of_apples_gpu_are_the_callers_again_afterwards(monkeypatch):
    state = ["callers"]
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state[0])
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda to: state.__setitem__(0, to))
    with own_random_numbers(torch.device("mps")):
        state[0] = "ours"
    assert state == ["callers"]


@pytest.mark.parametrize("change", ["dtype", "device"])
def test_other_defaults_of_torch_are_told(change):
    back = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64 if change == "dtype" else back)
        torch.set_default_device("meta" if change == "device" else None)
        with pytest.raises(
            UsageError, match=r"by default, expected torch.float32 on cpu: undo torch.set_default_dtype"
        ):
            find_device("cpu")
    finally:
        torch.set_default_dtype(back)
        torch.set_default_device(None)
    assert find_device("cpu") == "cpu"
