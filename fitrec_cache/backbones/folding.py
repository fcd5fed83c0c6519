"""Fold batch normalisations into the convolutions before them: what they did is then done by the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode

#: Part of the identity of features from a network with such convolutions.
FOLDING = "batch normalisations into the convolutions before them"

#: What a function returns that only asks what a tensor is like.
_DESCRIPTIONS = (int, str, torch.Size, torch.dtype, torch.device, torch.layout)

#: A frame's features may move by so much of their length; rounding moved those of three real networks by a millionth.
_MOST_MOVED = 1e-3


def fold_norms(model: nn.Module, frame: Tensor, rest: Mapping[type, Callable[[Any], nn.Module]]) -> int:
    """Let convolutions do what the batch normalisations behind them do, where nothing else takes what is between.

    A frozen normalisation multiplies each channel by a number and adds one, which the convolution's own weights and
    bias can do at no cost. Which convolution stands before it is seen by watching the model compute. What is not seen
    (code that is not Python's, hooks) shows in what comes out afterwards: then the model stays as it was.

    Args:
        model: In evaluation mode, float32; changed in place.
        frame: What it takes, with values that are not all alike.
        rest: By class of normalisation, what else such a module does, as its activation.

    Returns:
        How many were folded.
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
    """Return its modules with their names, but those that have two: they cannot be replaced in one place."""
    named = list(model.named_modules(remove_duplicate=False))
    names = Counter(id(module) for _, module in named)
    return [(name, module) for name, module in named if names[id(module)] == 1]


class _Dataflow(TorchFunctionMode):
    """Watches a model compute: what comes out of which convolution, and what takes it."""

    def __init__(self) -> None:
        super().__init__()
        self._uses: Counter[int] = Counter()
        self._weight_of: dict[int, int] = {}
        self._norms: list[tuple[int, int]] = []
        self._alive: list[Tensor] = []  # what convolutions gave, so that no later tensor has the id of one

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, and note which tensors it took."""
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
        """Yield the ``id`` of a kernel and of a running mean, where what is between them goes nowhere else."""
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
