"""Fold batch normalisations into the convolutions before them: the weights then do the normalisation's work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode

#: Value in the identity of features from a network with such convolutions.
FOLDING = "batch normalisations into the convolutions before them"

#: Return types of functions that only describe a tensor.
_DESCRIPTIONS = (int, str, torch.Size, torch.dtype, torch.device, torch.layout)

#: The greatest accepted change of a frame's features, relative to their norm; rounding changed those of three real
#: networks by a millionth.
_MOST_MOVED = 1e-3


def fold_norms(model: nn.Module, frame: Tensor, rest: Mapping[type, Callable[[Any], nn.Module]]) -> int:
    """Fold batch normalisations into the preceding convolutions where nothing else uses the value in between.

    A frozen normalisation multiplies each channel by a number and adds a number, which the convolution's own weights
    and bias can do at no cost. The preceding convolution is found by tracing the model on one input. Dependencies that
    the trace cannot see (code outside Python, hooks) change the output; in that case the model is restored.

    Args:
        model: A model in evaluation mode, float32; changed in place.
        frame: An input for it, with values that differ.
        rest: By class of normalisation, a function that returns what else such a module does, such as its activation.

    Returns:
        The number of normalisations that were folded.
    """
    named = _plainly_named(model)
    norms = {id(m.running_mean): (name, m) for name, m in named if type(m) in rest}
    if not norms:
        return 0
    convs = {id(m.weight): m for _, m in named if isinstance(m, nn.Conv2d)}
    with torch.inference_mode(), _Dataflow() as seen:
        before = model(frame).double()  # squares of more than 1e19 are infinite in float32
    pairs = [(convs[w], *norms[mean]) for w, mean in seen.pairs() if w in convs and mean in norms]
    parameters = [(conv.weight, conv.bias) for conv, _, _ in pairs]
    for conv, name, norm in pairs:
        scale_and_shift = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *scale_and_shift)
        model.set_submodule(name, rest[type(norm)](norm).eval())
    with torch.inference_mode():
        moved = (model(frame).double() - before).norm()
    if moved <= _MOST_MOVED * before.norm():
        return len(pairs)
    for (conv, name, norm), (weight, bias) in zip(pairs, parameters, strict=True):
        conv.weight, conv.bias = weight, bias
        model.set_submodule(name, norm)
    return 0


def _plainly_named(model: nn.Module) -> list[tuple[str, Any]]:
    """Return a model's modules with their names, except those with two names, which cannot be replaced in one place."""
    named = list(model.named_modules(remove_duplicate=False))
    names = Counter(id(module) for _, module in named)
    return [(name, module) for name, module in named if names[id(module)] == 1]


class _Dataflow(TorchFunctionMode):
    """Traces a model: records the output of each convolution and which functions use it."""

    def __init__(self) -> None:
        super().__init__()
        self._uses: Counter[int] = Counter()
        self._weight_of: dict[int, int] = {}
        self._norms: list[tuple[int, int]] = []
        self._alive: list[Tensor] = []  # outputs of convolutions, kept so that their ids are not reused

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, and record which tensors it used."""
        given = kwargs or {}
        out = func(*args, **given)
        if isinstance(out, _DESCRIPTIONS):
            return out
        taken = [id(tensor) for tensor in _tensors([*args, *given.values()])]
        self._uses.update(taken)
        if func is F.conv2d:
            self._alive.append(out)
            self._weight_of[id(out)], self._uses[id(out)] = taken[1], 0
        elif func is F.batch_norm and len(taken) > 1 and taken[0] in self._weight_of:
            self._norms.append((taken[0], taken[1]))
        return out

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield the ``id`` of a kernel and of a running mean, if the value between them is used nowhere else."""
        for between, mean in self._norms:
            weight = self._weight_of[between]
            if self._uses[between] == self._uses[weight] == self._uses[mean] == 1:
                yield weight, mean


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
