"""The LSTM of the heads: PyTorch's, with the parameters and initial values of Keras'."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fitrec_cache.common.precision import mkl_is_held_back


class KerasLSTM(nn.LSTM):
    """PyTorch's LSTM with Keras' parameters: ``4 (i u + u^2 + u)`` trainable ones for ``u`` units on ``i`` inputs.

    PyTorch has two bias vectors, which are only ever added; here the second is fixed at zero and not trained, which
    does not restrict what the layer can compute.
    """

    def __init__(self, inputs: int, units: int, *, bidirectional: bool = False) -> None:
        super().__init__(inputs, units, batch_first=True, bidirectional=bidirectional)
        self.ways = ("l0", "l0_reverse") if bidirectional else ("l0",)
        for way in self.ways:
            kernel, recurrent, bias, second = self._parameters_of(way)
            nn.init.xavier_uniform_(kernel)
            nn.init.orthogonal_(recurrent)
            nn.init.zeros_(bias)
            nn.init.ones_(bias.detach()[units : 2 * units])  # forget gate
            nn.init.zeros_(second.requires_grad_(False))

    def _parameters_of(self, way: str) -> list[nn.Parameter]:
        return [self.get_parameter(f"{name}_{way}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

    def states(self, x: Tensor) -> Tensor:
        """Return the states ``(B, T, u)`` for ``x (B, T, d)``; two directions are concatenated.

        In training on the CPU, a faster method with the same result up to rounding is used for inputs that are much
        wider than the state. When it is faster was measured (docs/performance.md).
        """
        learns = torch.is_grad_enabled() and not x.requires_grad and x.device.type == "cpu"
        wins = self.input_size >= 16 * self.hidden_size and (torch.is_autocast_enabled("cpu") or not mkl_is_held_back())
        if not (learns and wins):
            states: Tensor = self(x)[0]
            return states
        return torch.cat([self._states_of_wide(x, way) for way in self.ways], dim=2)

    def _states_of_wide(self, x: Tensor, way: str) -> Tensor:
        """Return the states ``(B, T, u)`` of one direction, with the input projection computed outside the LSTM.

        On the CPU an LSTM also computes the gradient of its input. For wide inputs that is a third of all
        multiplications, although nothing before it is trained. So the LSTM is given the projected input, and the
        identity as its kernel.
        """
        kernel, recurrent, *biases = self._parameters_of(way)
        backwards = way.endswith("reverse")
        projected = F.linear(x.flip(1) if backwards else x, kernel)  # (B, T, 4 u): all frames in one product
        start = projected.new_zeros(1, len(x), self.hidden_size)
        weights = [torch.eye(len(kernel), dtype=projected.dtype), recurrent, *biases]
        states, _, _ = torch.lstm(projected, (start, start), weights, True, 1, 0.0, self.training, False, True)
        return states.flip(1) if backwards else states
