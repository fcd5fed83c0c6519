"""Parts of the two heads that are trained on pixels: convolutions per frame (LRCN) and ConvLSTM; used only by ``head``.

Both take frames of 64x64 pixels and fold time into the batch wherever frames do not depend on each other.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fitrec_cache.settings.paper import FRAME_SIDE

#: (filters, pooling) of LRCN's convolutions. The paper does not give them; these are from the tutorial from which its
#: ConvLSTM comes (Bleed AI, "Human Activity Recognition using TensorFlow (CNN + LSTM)", 2021), without its dropout.
LRCN_LAYERS = ((16, 4), (32, 4), (64, 2), (64, 2))

#: Filters of the ConvLSTM baseline; the total in Table I implies them, and the tutorial has the same (with dropout).
CONVLSTM_FILTERS = (4, 8, 14, 16)


def frames_to_planes(frames: Tensor) -> Tensor:
    """Return frames as float planes, without moving them in memory (which leaves them channels-last, the fast layout).

    Args:
        frames: ``(B, T, 64, 64, 3)`` RGB, uint8 in 0 to 255, or floating point already in 0 to 1.

    Returns:
        ``(B * T, 3, 64, 64)`` in 0 to 1; float32 for uint8 frames, else the type given.

    Raises:
        ValueError: If the shape or the type is different.
    """
    if frames.dim() != 5 or tuple(frames.shape[2:]) != (FRAME_SIDE, FRAME_SIDE, 3):
        raise ValueError(
            f"frames of shape {tuple(frames.shape)}: expected (B, T, {FRAME_SIDE}, {FRAME_SIDE}, 3); "
            "pixel variants learn from the frame store at that size"
        )
    planes = frames.flatten(0, 1).permute(0, 3, 1, 2)  # (B*T, 3, 64, 64)
    if frames.dtype == torch.uint8:
        return planes.float().div_(255)
    if not frames.is_floating_point():
        raise ValueError(f"frames of type {frames.dtype}: expected uint8 in 0 to 255, or float in 0 to 1")
    return planes


def init_like_keras(layer: nn.Linear | nn.Conv2d) -> None:
    """Initialise a layer as Keras does: Glorot uniform kernel, bias zero."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class FrameConvolutions(nn.Module):
    """Embeds each frame by four convolutions, 3x3, "same", ReLU, each followed by max pooling.

    Source:
        The architecture (a network per frame, then an LSTM) is LRCN: Donahue et al., CVPR 2015; for the widths see
        :data:`LRCN_LAYERS`.
    """

    #: Length of the vector that each frame becomes.
    dim = LRCN_LAYERS[-1][0]

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for filters, pooling in LRCN_LAYERS:
            convolution = nn.Conv2d(channels, filters, 3, padding=1)
            init_like_keras(convolution)
            layers += [convolution, nn.ReLU(inplace=True), nn.MaxPool2d(pooling)]
            channels = filters
        self.layers = nn.Sequential(*layers)

    def forward(self, frames: Tensor) -> Tensor:
        """Embed frames ``(B, T, 64, 64, 3)``, uint8 or float in 0 to 1, as ``(B, T, 64)``."""
        planes = frames_to_planes(frames)  # (B*T, 3, 64, 64)
        maps: Tensor = self.layers(planes)  # (B*T, 64, 1, 1): 64 pixels / 4 / 4 / 2 / 2 = 1
        return maps.reshape(*frames.shape[:2], self.dim)  # (B, T, 64)


class ConvLSTM2d(nn.Module):
    """Keras' ConvLSTM2D, returning sequences: 3x3, input convolution "valid", recurrent one "same", one bias.

    Gates are sigmoid (Keras 3's default; Keras 2 had a hard sigmoid), cell and output are tanh; they are stacked as
    input, forget, candidate, output. With ``f`` filters on ``c`` channels it has ``4 f (9 (c + f) + 1)`` parameters.
    Initial values are Keras': Glorot uniform kernel, orthogonal recurrent kernel, bias 0, except 1 for the forget gate.

    Args:
        channels: Channels of the input, at least 1.
        filters: Channels of the state, at least 1.

    Source:
        Shi et al., NeurIPS 2015, without peepholes, as Keras has it.
    """

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.filters = filters
        self.input = nn.Conv2d(channels, 4 * filters, 3)
        self.recurrent = nn.Conv2d(filters, 4 * filters, 3, padding=1, bias=False)
        init_like_keras(self.input)
        nn.init.orthogonal_(self.recurrent.weight)
        if self.input.bias is not None:
            nn.init.ones_(self.input.bias.detach()[filters : 2 * filters])

    def forward(self, maps: Tensor) -> Tensor:
        """Run over time: ``(B, T, c, H, W)`` float to the states ``(B, T, f, H - 2, W - 2)``."""
        folded = self.input(maps.flatten(0, 1))  # (B*T, 4f, H-2, W-2): all frames at once; only states are sequential
        drives = folded.view(*maps.shape[:2], *folded.shape[1:]).unbind(1)  # T of (B, 4f, H-2, W-2)
        states: list[Tensor] = []
        cell: Tensor | None = None
        for drive in drives:
            gates = drive + self.recurrent(states[-1]) if states else drive  # (B, 4f, H-2, W-2); starts at zero
            entry, forget, candidate, output = gates.chunk(4, dim=1)  # 4 of (B, f, H-2, W-2)
            new = torch.sigmoid(entry) * torch.tanh(candidate)
            cell = new if cell is None else torch.sigmoid(forget) * cell + new
            states.append(torch.sigmoid(output) * torch.tanh(cell))
        return torch.stack(states, dim=1)  # (B, T, f, H-2, W-2)


class ConvLSTMStack(nn.Module):
    """ConvLSTM layers, each followed by max pooling of 2x2 in space with Keras' "same" padding (odd sizes round up)."""

    #: Length of each frame's vector. The side shrinks 64 px -> 62, 31 -> 29, 15 -> 13, 7 -> 5, 3; so 3 x 3 x 16.
    dim = 3 * 3 * CONVLSTM_FILTERS[-1]

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvLSTM2d(c, f) for c, f in pairwise((3, *CONVLSTM_FILTERS)))

    def forward(self, frames: Tensor) -> Tensor:
        """Turn frames ``(B, T, 64, 64, 3)``, uint8 or float in 0 to 1, into the last states ``(B, T, 144)``."""
        batch = frames.shape[:2]
        maps = frames_to_planes(frames).contiguous()  # (B*T, 3, 64, 64); measured faster here than channels-last
        for layer in self.layers:
            states = layer(maps.view(*batch, *maps.shape[1:]))  # (B, T, f, H-2, W-2)
            maps = F.max_pool2d(states.flatten(0, 1), 2, ceil_mode=True)  # (B*T, f, ceil((H-2)/2), ceil((W-2)/2))
        return maps.reshape(*batch, -1)  # (B, T, 144)
