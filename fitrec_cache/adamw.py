"""AdamW by PyTorch's own update, without the class around it, which loads the whole compiler when it is first used."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw


class AdamW:
    """Adam with decoupled weight decay, to the same bits as ``torch.optim.AdamW(..., fused=True)``.

    The first use of that class imports ``torch._dynamo``, which takes longer than a short training
    (docs/performance.md).

    Args:
        parameters: What is learned; each has a gradient at every step.
        weight_decay: Decoupled from the gradient, in [0, 10].

    Source:
        Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, weight_decay: float) -> None:
        self.weight_decay = weight_decay
        self._parameters: list[Tensor] = list(parameters)
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._steps = [torch.zeros((), dtype=torch.float32, device=p.device) for p in self._parameters]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Change the parameters by their gradients, which are gone afterwards."""
        adamw(
            self._parameters,
            [p.grad for p in self._parameters if p.grad is not None],
            self._means,
            self._squares,
            [],
            self._steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )
        for parameter in self._parameters:
            parameter.grad = None
