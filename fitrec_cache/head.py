"""The trainable heads: features or small frames of a clip in, class logits and one weight per frame out.

Every head maps ``(B, T, ...)`` to ``(logits (B, K), attention (B, T))``. Initial values are Keras' (Glorot uniform
kernels, orthogonal recurrent kernels, biases zero but one for the forget gate), since the paper's models were Keras'.
Nothing here seeds: call :func:`torch.manual_seed` before :func:`build_head` for the same initial values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fitrec_cache.convolutional import ConvLSTMStack, FrameConvolutions, init_like_keras
from fitrec_cache.variants import ATTENTIONS, PIXELS, VARIANTS, HeadConfig, Variant

__all__ = [
    "ATTENTIONS",
    "PIXELS",
    "VARIANTS",
    "AdditiveAttention",
    "ConvLSTMHead",
    "HeadConfig",
    "KerasLSTM",
    "MeanHead",
    "SequenceHead",
    "Variant",
    "build_head",
    "count_trainable",
    "dot_weights",
    "last_weights",
]


class KerasLSTM(nn.LSTM):
    """PyTorch's LSTM with Keras' parameters: ``4 (i u + u^2 + u)`` trainable ones for ``u`` units on ``i`` inputs.

    PyTorch adds two bias vectors where one does all they can do: the second is held at zero and not trained, which
    changes nothing that the layer can compute.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(inputs, units, batch_first=True)
        parameters = dict(self.named_parameters())
        nn.init.xavier_uniform_(parameters["weight_ih_l0"])
        nn.init.orthogonal_(parameters["weight_hh_l0"])
        nn.init.zeros_(parameters["bias_ih_l0"])
        nn.init.ones_(parameters["bias_ih_l0"].detach()[units : 2 * units])  # forget gate
        nn.init.zeros_(parameters["bias_hh_l0"].requires_grad_(False))


class AdditiveAttention(nn.Module):
    """The weight of each state by Eq. 9: ``A = softmax(W_a ReLU(W_h H + b_h) + b_a)`` over time.

    ``W_h`` is square, as the paper gives no other width; ``b_a`` moves all scores alike, so softmax cancels it.

    Args:
        units: Length u of a state; there are ``u^2 + 2 u + 1`` parameters.

    Source:
        Eq. 9 of Nishat et al., arXiv 2509.02511.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.hidden = _dense(units, units)
        self.score = _dense(units, 1)

    def forward(self, states: Tensor) -> Tensor:
        """Return the weights ``(B, T)`` of states ``(B, T, u)``; each row sums to 1."""
        scores: Tensor = self.score(torch.relu(self.hidden(states)))  # (B, T, 1)
        return scores.squeeze(-1).softmax(dim=-1)  # (B, T)


def dot_weights(states: Tensor) -> Tensor:
    """Return each state's weight under dot-product self-attention without parameters, averaged over time.

    Keras' ``Attention()([H, H])`` (unscaled) followed by averaging over time is ``mean_t softmax(H H^T)_t H``, so a
    state's weight is the mean of its column over the T queries.

    Args:
        states: ``(B, T, u)`` float.

    Returns:
        ``(B, T)``, each row summing to 1.
    """
    scores = states @ states.transpose(1, 2)  # (B, T, T): queries x states
    return scores.softmax(dim=-1).mean(dim=1)  # (B, T)


def last_weights(states: Tensor) -> Tensor:
    """Return weights ``(B, T)`` for states ``(B, T, u)`` that keep the last state and drop the others."""
    weights = states.new_zeros(states.shape[:2])  # (B, T)
    weights[:, -1] = 1
    return weights


class SequenceHead(nn.Module):
    """LSTM over the frames' vectors, pooling over time, dense layers.

    With additive attention the pooled vector is the paper's: the weighted states ``A_t H_t`` go through global
    *average* pooling, ``(1/T) sum_t A_t H_t``. As the weights sum to 1 already, this 1/T makes the vector T times
    smaller than a weighted mean. The dense layer could undo it, so the models are the same; training is slower at
    first. The other two poolings have no such factor: Keras' dot attention is averaged once, ``none`` not at all.

    Args:
        inputs: Length d of a frame's vector.
        config: The head's settings; its variant has an LSTM.
        embed: Turns what the head is given into ``(B, T, d)``; None where it is given that.
    """

    def __init__(self, inputs: int, config: HeadConfig, embed: nn.Module | None = None) -> None:
        super().__init__()
        variant = VARIANTS[config.variant]
        self.inputs = inputs
        self.kind = config.attention
        self.embed = embed
        self.lstm = KerasLSTM(inputs, variant.lstm_units)
        self.attend = AdditiveAttention(variant.lstm_units) if self.kind == "additive" else None
        self.classify = _classifier(variant.lstm_units, variant.dense_units, config.n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(B, K)`` and weights ``(B, T)`` for features ``(B, T, d)`` or frames ``(B, T, 64, 64, 3)``.

        Raises:
            ValueError: If ``x`` has another shape or type.
        """
        vectors = _checked_features(x, self.inputs) if self.embed is None else self.embed(x)  # (B, T, d)
        states, _ = self.lstm(vectors)  # (B, T, u)
        if self.attend is not None:
            weights = self.attend(states)  # (B, T)
            pooled = _weighted_sum(weights, states) / states.shape[1]  # (B, u)
        else:
            weights = dot_weights(states) if self.kind == "dot" else last_weights(states)  # (B, T)
            pooled = _weighted_sum(weights, states)  # (B, u)
        return self.classify(pooled), weights  # (B, K), (B, T)


class MeanHead(nn.Module):
    """The yardstick: the mean over time and one dense layer; it cannot know in which order frames came."""

    def __init__(self, inputs: int, config: HeadConfig) -> None:
        super().__init__()
        self.inputs = inputs
        self.classify = _dense(inputs, config.n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(B, K)`` and weights ``(B, T)``, all ``1/T``, for features ``(B, T, d)``."""
        features = _checked_features(x, self.inputs)
        return self.classify(features.mean(dim=1)), _equal_weights(features)  # (B, K), (B, T)


class ConvLSTMHead(nn.Module):
    """Table I's baseline: ConvLSTM layers, all T frames' last states in one long vector, one dense layer.

    Each frame has its own rows of the dense kernel, so there are no weights to report: they are given as ``1/T``.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.frames = config.frames
        self.stack = ConvLSTMStack()
        self.classify = _dense(config.frames * self.stack.dim, config.n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(B, K)`` and weights ``(B, T)``, all ``1/T``, for frames ``(B, T, 64, 64, 3)``.

        Raises:
            ValueError: If ``x`` has another shape, type or number of frames.
        """
        if x.dim() == 5 and x.shape[1] != self.frames:
            raise ValueError(f"clips of {x.shape[1]} frames: expected {self.frames}, the number this head was made for")
        states = self.stack(x)  # (B, T, 144)
        return self.classify(states.flatten(1)), _equal_weights(states)  # (B, K), (B, T)


def build_head(config: HeadConfig) -> nn.Module:
    """Build the head that ``config`` describes, on the CPU in float32, with fresh initial values.

    Args:
        config: The checked settings.

    Returns:
        A module whose call takes ``x`` and returns ``(logits (B, K), attention (B, T))``. ``x`` is ``(B, T, d)``
        float32, or for pixel variants ``(B, T, 64, 64, 3)``, uint8 in 0 to 255 or float in 0 to 1. ``attention`` holds
        each frame's share in the pooled vector, rows summing to 1.

    Example:
        >>> head = build_head(HeadConfig(variant="mean", input_dim=3, n_classes=2))
        >>> logits, attention = head(torch.ones(1, 4, 3))
        >>> logits.shape, attention.tolist()
        (torch.Size([1, 2]), [[0.25, 0.25, 0.25, 0.25]])
    """
    if config.variant == "mean":
        return MeanHead(config.input_dim, config)
    if config.variant == "convlstm":
        return ConvLSTMHead(config)
    if config.variant == "lrcn":
        return SequenceHead(FrameConvolutions.dim, config, FrameConvolutions())
    return SequenceHead(config.input_dim, config)


def count_trainable(module: nn.Module) -> int:
    """Return how many numbers of ``module`` an optimiser may change."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _dense(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    init_like_keras(layer)
    return layer


def _classifier(inputs: int, hidden: int, n_classes: int) -> nn.Sequential:
    if not hidden:
        return nn.Sequential(_dense(inputs, n_classes))
    return nn.Sequential(_dense(inputs, hidden), nn.ReLU(), _dense(hidden, n_classes))


def _checked_features(x: Tensor, inputs: int) -> Tensor:
    if x.dim() != 3 or x.shape[2] != inputs or x.shape[1] < 1:
        raise ValueError(f"features of shape {tuple(x.shape)}: expected (B, T, {inputs}) with T at least 1")
    if not x.is_floating_point():
        raise ValueError(f"features of type {x.dtype}: expected floating point; convert them with .float()")
    return x


def _weighted_sum(weights: Tensor, states: Tensor) -> Tensor:
    return torch.einsum("bt,btu->bu", weights, states)  # (B, u)


def _equal_weights(states: Tensor) -> Tensor:
    frames = states.shape[1]
    return states.new_full((states.shape[0], frames), 1 / frames)  # (B, T)
