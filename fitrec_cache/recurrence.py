"""An LSTM over features: its gradients go to the weights alone, for nothing is to be learned in front of it.

oneDNN's LSTM, which PyTorch uses on the CPU, also computes the gradient of its input. That is a third of all
multiplications where the input is much wider than the state, as features are, and nobody needs it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def lstm_states(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    *,
    backwards: bool = False,
    product: torch.dtype | None = None,
) -> Tensor:
    """Return the states of one direction of an LSTM that begins at zero.

    Args:
        x: ``(B, T, d)`` float; it gets no gradient.
        weight_ih: ``(4 u, d)``: input gate, forget gate, candidate, output gate, as PyTorch orders them.
        weight_hh: ``(4 u, u)``.
        bias: ``(4 u,)``.
        backwards: Begin at the last frame.
        product: Type of what is multiplied in the products of all frames at once: ``x`` with ``weight_ih``, and the
            gradients of both kernels; None for that of the weights. The recurrence itself is in theirs always.

    Returns:
        ``(B, T, u)``, in the order of the frames.
    """
    x = x.detach()
    if product is None:
        projected = F.linear(x, weight_ih, bias)  # (B, T, 4 u): all frames in one product
    else:
        projected = F.linear(x.to(product), weight_ih.to(product)).to(bias.dtype) + bias
    projected = projected.transpose(0, 1)  # (T, B, 4 u)
    if backwards:
        return _recur(projected.flip(0), weight_hh, product).flip(0).transpose(0, 1)
    return _recur(projected, weight_hh, product).transpose(0, 1)


def _recur(projected: Tensor, weight_hh: Tensor, product: torch.dtype | None) -> Tensor:
    states: Tensor = _Recurrence.apply(projected, weight_hh, product)
    return states


class _Recurrence(torch.autograd.Function):
    """``c' = f c + i a``, ``h' = o tanh(c')``, with gates ``i f a o`` from the projected input plus ``W h``.

    Written out, since the graph that PyTorch would record of it costs more than the arithmetic of so small a state.
    """

    @staticmethod
    def forward(ctx: Any, projected: Tensor, weight: Tensor, product: torch.dtype | None) -> Tensor:
        frames, clips, _ = projected.shape
        units = weight.shape[1]
        weight_t = weight.t().contiguous()  # (u, 4 u)
        gates = torch.empty_like(projected, memory_format=torch.contiguous_format)  # (T, B, 4 u)
        cells, states = projected.new_zeros(2, frames + 1, clips, units)  # at 0 those before the first frame
        for t in range(frames):
            g = torch.addmm(projected[t], states[t], weight_t, out=gates[t])
            g[:, : 2 * units].sigmoid_()
            g[:, 2 * units : 3 * units].tanh_()
            g[:, 3 * units :].sigmoid_()
            i, f, a, o = g.chunk(4, dim=1)  # (B, u) each
            torch.mul(f, cells[t], out=cells[t + 1]).addcmul_(i, a)
            torch.tanh(cells[t + 1], out=states[t + 1]).mul_(o)
        ctx.save_for_backward(gates, cells, states, weight)
        ctx.product = product or weight.dtype
        found: Tensor = states[1:]
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        gates, cells, states, weight = ctx.saved_tensors
        i, f, a, o = gates.chunk(4, dim=2)  # (T, B, u) each
        tanh = cells[1:].tanh()
        of_sigmoid, of_tanh = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward  # g y (1 - y), g (1 - y^2)
        by_cell = torch.stack([of_sigmoid(a, i), of_sigmoid(cells[:-1], f), of_tanh(i, a)], dim=2)  # (T, B, 3, u)
        by_state, through = of_sigmoid(tanh, o), of_tanh(o, tanh)  # (T, B, u)
        found = torch.empty(*gates.shape[:2], 4, weight.shape[1], dtype=gates.dtype)  # (T, B, 4, u)
        state, cell = grad[-1], torch.zeros_like(grad[-1])  # gradients of h and c
        for t in range(len(gates) - 1, -1, -1):
            cell = torch.addcmul(cell, state, through[t])
            torch.mul(cell.unsqueeze(1), by_cell[t], out=found[t, :, :3])
            torch.mul(state, by_state[t], out=found[t, :, 3])
            if t:
                state, cell = torch.addmm(grad[t - 1], found[t].flatten(1), weight), cell * f[t]
        found = found.flatten(2)  # (T, B, 4 u)
        before = states[:-1].flatten(0, 1).to(ctx.product)  # (T B, u)
        of_weight = found.flatten(0, 1).to(ctx.product).t() @ before  # (4 u, u)
        return found, of_weight.to(weight.dtype), None
