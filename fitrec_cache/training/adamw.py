"""AdamW with PyTorch's own update function, but without its optimizer class, which would load the whole compiler."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.adamw import adamw


class AdamW:
    """Adam with decoupled weight decay, to the same bits as ``torch.optim.AdamW(..., fused=True)``.

    The first use of that class imports ``torch._dynamo``, which takes longer than a short training
    (docs/performance.md).

    Args:
        parameters: The parameters to train; one without a gradient is left unchanged.
        weight_decay: Decoupled from the gradient, in [0, 10].

    Source:
        Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, weight_decay: float) -> None:
        self.weight_decay = weight_decay
        self._states = [
            (p, torch.zeros_like(p), torch.zeros_like(p), torch.zeros((), dtype=torch.float32, device=p.device))
            for p in parameters
        ]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update the parameters by their gradients, then delete the gradients."""
        learned = [state for state in self._states if state[0].grad is not None]  # T = 1: recurrent weights have none
        parameters, means, squares, steps = (list(part) for part in zip(*learned, strict=True))
        adamw(
            parameters,
            [p.grad for p in parameters],
            means,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )
        for parameter in parameters:
            parameter.grad = None
