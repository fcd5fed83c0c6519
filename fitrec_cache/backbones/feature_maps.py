"""Outputs taken from a backbone's last feature map instead of its own pooled vector."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fitrec_cache.errors import UsageError

#: Number of cells of a grid in each direction.
GRID = 3


class LastMap(nn.Module):
    """The last feature map, flattened; for transformers their class token, which is what Table I counts."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(T, C h w)``, or ``(T, C)`` of a transformer, for frames ``(T, 3, H, W)``.

        Raises:
            UsageError: If it is a transformer without class token.
        """
        y: Tensor = self.model.forward_features(x)  # type: ignore[operator]
        if y.ndim == 4:
            return y.flatten(1)
        if not getattr(self.model, "num_prefix_tokens", 0):
            raise UsageError(f"{type(self.model).__name__} has no class token to take: leave --preset table1 out")
        return y[:, 0]


class GridMap(nn.Module):
    """The last feature map averaged over each cell of a 3 x 3 grid, which keeps information about positions.

    A map of 7 x 7 gives cells of 3 x 3 that overlap by one. Of a transformer, tokens without a position (the class
    token) are left out.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(T, C 3 3)``, float32, for frames ``(T, 3, H, W)``: each channel's cells in reading order.

        Raises:
            UsageError: If the backbone has no map.
        """
        y: Tensor = self.model.forward_features(x)  # type: ignore[operator]
        cells = self._map(y).float()
        if cells.device.type == "mps":  # it can pool only maps whose size is divisible by the grid's
            cells = cells.cpu()
        return F.adaptive_avg_pool2d(cells, GRID).flatten(1)

    def _map(self, y: Tensor) -> Tensor:
        channels = int(self.model.num_features)  # type: ignore[arg-type]
        if y.ndim == 4 and y.shape[1] == channels:
            return y  # (T, C, h, w)
        if y.ndim == 4 and y.shape[3] == channels:
            return y.permute(0, 3, 1, 2)
        grid = getattr(getattr(self.model, "patch_embed", None), "grid_size", None)
        if y.ndim == 3 and grid is not None:
            height, width = grid
            tokens = y[:, -height * width :]  # (T, h w, C): tokens without a position come first
            return tokens.transpose(1, 2).reshape(len(y), -1, height, width)
        raise UsageError(
            f"{type(self.model).__name__} gives no feature map (its last features are {tuple(y.shape)}): leave "
            "--preset grid out"
        )
