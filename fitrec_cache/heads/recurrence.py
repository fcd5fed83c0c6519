"""The LSTM of the heads: PyTorch's, with the parameters and initial values of Keras'."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fitrec_cache.common.devices import mkl_is_held_back


class KerasLSTM(nn.LSTM):
    """PyTorch's LSTM with Keras' parameters: ``4 (i u + u^2 + u)`` trainable ones for ``u`` units on ``i`` inputs.

    PyTorch adds two bias vectors where one does all they can do: the second is held at zero and not trained, which
    changes nothing that the layer can compute.
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
        """Return the states ``(B, T, u)`` for ``x (B, T, d)``, of both directions side by side where there are two.

        In training on the CPU, inputs that are much wider than the state take a shorter way to the same result, up to
        rounding. Where it wins was measured (docs/performance.md).
        """
        learns = torch.is_grad_enabled() and not x.requires_grad and x.device.type == "cpu"
        wins = self.input_size >= 16 * self.hidden_size and (torch.is_autocast_enabled("cpu") or not mkl_is_held_back())
        if not (learns and wins):
            states: Tensor = self(x)[0]
            return states
        return torch.cat([self._states_of_wide(x, way) for way in self.ways], dim=2)

    def _states_of_wide(self, x: Tensor, way: str) -> Tensor:
        """Return the states ``(B, T, u)`` of one direction, with the input's product taken out of the LSTM.

        On the CPU an LSTM also computes the gradient of its input. That is a third of all multiplications where the
        input is wide, and nothing in front of it is to be learned. So the LSTM is given the product, and the identity
        as kernel.
        """
        kernel, recurrent, *biases = self._parameters_of(way)
        backwards = way.endswith("reverse")
        projected = F.linear(x.flip(1) if backwards else x, kernel)  # (B, T, 4 u): all frames in one product
        start = projected.new_zeros(1, len(x), self.hidden_size)
        weights = [torch.eye(len(kernel), dtype=projected.dtype), recurrent, *biases]
        states, _, _ = torch.lstm(projected, (start, start), weights, True, 1, 0.0, self.training, False, True)
        return states.flip(1) if backwards else states
