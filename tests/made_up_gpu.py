"""A GPU that is not there: its tensors say they are on ``cuda:0`` or ``mps``, and the processor computes with them.

It shows whether all that meets is on one device, what is sent to it and what comes back; not what a GPU's own kernels
give. As on a real one, an operation on tensors of both sides raises, and so do ``numpy()`` on its own and, on Apple's,
float64.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA, MPS, CPU = torch.device("cuda:0"), torch.device("mps"), torch.device("cpu")

_aten = torch.ops.aten
_CROSSING = (_aten._to_copy.default, _aten.copy_.default)


class Stream(torch.Stream):
    """What waited for what, and for which tensors memory stays, in order."""

    def __new__(cls, device=None) -> Stream:
        stream = super().__new__(cls, stream_id=0, device_index=0, device_type=1)
        stream.told = []
        return stream

    def wait_stream(self, other: Stream) -> None:
        self.told.append(other)


class _OfThread(threading.local):
    stream = Stream()


_THREAD = _OfThread()


@contextmanager
def _on(stream: Stream) -> Iterator[None]:
    before, _THREAD.stream = _THREAD.stream, stream
    try:
        yield
    finally:
        _THREAD.stream = before


_PRETENDED = {
    "Stream": Stream,
    "stream": _on,
    "current_stream": lambda device=None: _THREAD.stream,
    "device": lambda device: nullcontext(),
    "get_device_name": lambda device=None: "made up",
    "_lazy_init": lambda: None,
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_capability": lambda device=None: (9, 0),
    "is_bf16_supported": lambda including_emulation=True: True,
    "is_current_stream_capturing": lambda: False,
    "get_rng_state": lambda device=None: torch.zeros(8, dtype=torch.uint8),
    "set_rng_state": lambda state, device=None: None,
}


class Far(torch.Tensor):
    """A tensor on the GPU; ``near`` has its values, ``stream`` is that on which it was made.

    Autograd's engine starts a thread for each real device, so to learn C++ must take these for the processor's, and
    only Python sees the GPU. Autocast asks C++, so to embed in bf16 C++ must see the GPU as well: ``seen_by_all``.
    """

    near: torch.Tensor
    stream: Stream
    made = 0  # how many there were, to be sure that it was used
    gpu = CUDA
    seen_by_all = True
    learning = False

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> Far:
        if cls.gpu == MPS and near.dtype == torch.float64:
            raise TypeError("MPS has no float64")
        with torch.inference_mode(False):
            if cls.seen_by_all:
                far = torch.Tensor._make_wrapper_subclass(
                    cls, near.size(), strides=near.stride(), dtype=near.dtype, device=cls.gpu
                )
            else:
                far = torch.Tensor._make_subclass(cls, near.clone() if near.is_inference() else near.detach())
        far.near, far.stream = near, _THREAD.stream
        Far.made += 1
        return far

    @property
    def device(self) -> torch.device:
        return self.gpu

    def __repr__(self) -> str:
        return f"Far({self.near!r})"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func is torch.Tensor.numpy:
                raise TypeError(f"can't convert {cls.gpu} device type tensor to numpy")
            if func is torch.Tensor.record_stream:
                return args[1].told.append(args[0])
            if func is torch.Tensor.cpu:
                return _aten._to_copy(*args, device=CPU)
            if func is torch.Tensor.to and torch._C._nn._parse_to(*args[1:], **kwargs)[0] == CPU:
                return _aten._to_copy(args[0], device=CPU).to(*args[1:], **kwargs)
            if func is not torch.Tensor.backward:
                return func(*args, **kwargs)
            with patch.object(Far, "learning", True):
                return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


class _AskForCuda(TorchFunctionMode):
    """Asks for ``cuda:0`` in place of ``mps``, which this torch knows nothing of."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is not torch.device:
            args, kwargs = tree_map(lambda x: CUDA if isinstance(x, torch.device) and x == MPS else x, (args, kwargs))
        return func(*args, **kwargs)


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


def _compute(func, args, kwargs):
    """Let the processor do it; what comes out is where the operation was asked to put it, or where its input is."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    far = {id(x.near): x for x in tensors if isinstance(x, Far)}
    near = [tuple(x.shape) for x in tensors if not isinstance(x, Far) and x.dim()]
    crosses = func in _CROSSING or (func is _aten.index.Tensor and isinstance(args[0], Far))  # by its own indices
    if far and near and not crosses:
        raise RuntimeError(f"{func}: tensors on {Far.gpu} and {CPU} (of the latter {near})")
    name = func.overloadpacket.__name__
    if name in ("pin_memory", "_pin_memory"):
        return args[0]
    takes_far = isinstance(args[0], Far) if func is _aten.copy_.default else bool(far)
    target = _target(name, kwargs.get("device"), takes_far, bool(tensors))
    if kwargs.get("device") is not None:
        kwargs = kwargs | {"device": CPU}
    if kwargs.get("pin_memory"):
        kwargs = kwargs | {"pin_memory": False}
    args, kwargs = tree_map(lambda x: x.near if isinstance(x, Far) else x, (args, kwargs))
    found = func(*args, **kwargs)
    if target == CPU:
        return found
    return tree_map(lambda x: _far(x, far) if isinstance(x, torch.Tensor) else x, found)


def _target(name: str, asked: torch.device | None, far: bool, takes_tensors: bool) -> torch.device:
    """Return where the result is. C++ that takes ``Far`` for the processor's says so where it means the same device."""
    meant = far and (name.startswith("new_") or name.endswith("_like"))
    if not Far.seen_by_all and (meant or (Far.learning and not takes_tensors)):
        return Far.gpu
    if asked is not None:
        return CPU if asked == CPU else Far.gpu
    return Far.gpu if far else CPU


def _far(near: torch.Tensor, there: dict[int, Far]) -> Far:
    return there[id(near)] if id(near) in there else Far(near)  # the same where it was changed in place


@contextmanager
def on_this_thread() -> Iterator[None]:
    """Let a thread other than the one of :func:`made_up_gpu` use it too."""
    with _Dispatch():
        yield


@contextmanager
def made_up_gpu(gpu: torch.device = CUDA, *, learns: bool = False) -> Iterator[None]:
    """Let there be this GPU, to embed or to learn on.

    PyTorch's guard of CUDA's devices, where there is none, does nothing from then on: that is for the whole process.
    """
    torch._C._ensureCUDADeviceGuardSet()
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    with ExitStack() as undo:
        if gpu == MPS:
            undo.enter_context(patch.object(torch.backends.mps, "is_available", lambda: True))
            undo.enter_context(patch.object(torch.mps, "get_rng_state", torch.get_rng_state))
            undo.enter_context(patch.object(torch.mps, "set_rng_state", lambda state: None))
            undo.enter_context(_AskForCuda())
        for name, pretended in _PRETENDED.items():
            if gpu == CUDA or name != "is_available":
                undo.enter_context(patch.object(torch.cuda, name, pretended))
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        undo.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        Far.made = 0
        undo.enter_context(patch.object(Far, "gpu", gpu))
        undo.enter_context(patch.object(Far, "seen_by_all", gpu == CUDA and not learns))
        undo.enter_context(_Dispatch())
        yield
