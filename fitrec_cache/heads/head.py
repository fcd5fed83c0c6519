"""The trainable heads: they map features or small frames of a clip to class logits and one weight per frame.

Every head maps ``(B, T, ...)`` to ``(logits (B, K), attention (B, T))``. Initial values are Keras' (Glorot uniform
kernels, orthogonal recurrent kernels, biases 0, except 1 for the forget gate), because the paper used Keras. Nothing
here sets a seed: call :func:`torch.manual_seed` before :func:`build_head` for reproducible initial values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fitrec_cache.heads.convolutional import ConvLSTMStack, FrameConvolutions, init_like_keras
from fitrec_cache.heads.normalisation import Normalisation, PosesApart, checked_features
from fitrec_cache.heads.recurrence import KerasLSTM
from fitrec_cache.settings.variants import VARIANTS, HeadConfig


class AdditiveAttention(nn.Module):
    """The weight of each state by Eq. 9: ``A = softmax(W_a ReLU(W_h H + b_h) + b_a)`` over time.

    ``W_h`` is square, because the paper gives no other width; ``b_a`` shifts all scores equally, so softmax cancels it.

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


class FrameDropout(nn.Module):
    """Dropout of the same features in all frames of a clip, so that other frames cannot supply what was dropped.

    Source:
        Gal and Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks", 2016.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x (B, T, d)``; in training, a share of its columns is set to 0 and the others are scaled up."""
        if not self.training or not self.share:
            return x
        keep = x.new_full((x.shape[0], 1, x.shape[2]), 1 - self.share)  # (B, 1, d)
        return x * torch.bernoulli(keep) / (1 - self.share)


def add_differences(x: Tensor) -> Tensor:
    """Return ``(B, T, 2 d)``: each frame's vector and its change from the frame before, 0 for the first."""
    change = torch.diff(x, dim=1, prepend=x[:, :1])  # (B, T, d)
    return torch.cat([x, change], dim=2)  # (B, T, 2 d)


class SequenceHead(nn.Module):
    """LSTM over the frames' vectors, pooling over time, dense layers.

    With additive attention the pooled vector is by default the paper's: the weighted states ``A_t H_t`` go through
    global *average* pooling, ``(1/T) sum_t A_t H_t``. As the weights already sum to 1, this 1/T makes the vector T
    times smaller than a weighted mean. The dense layer can undo this, so the models are equivalent, but training is
    slower at first. ``pooling="sum"`` omits the factor. The other two kinds of attention do not have it: Keras' dot
    attention is averaged once, ``none`` takes the last state (of both directions, if there are two).

    Args:
        inputs: Length d of a frame's vector.
        config: The head's settings; its variant must have an LSTM.
        embed: Turns the head's input into ``(B, T, d)``; None if the input already has that form.
    """

    def __init__(self, inputs: int, config: HeadConfig, embed: nn.Module | None = None) -> None:
        super().__init__()
        variant = VARIANTS[config.variant]
        self.inputs = inputs
        self.config = config
        self.embed = embed
        self.drop_inputs = FrameDropout(config.input_dropout)
        seen = inputs * (2 if config.differences else 1)
        self.lstm = KerasLSTM(seen, variant.lstm_units, bidirectional=config.bidirectional)
        units = variant.lstm_units * (2 if config.bidirectional else 1)
        self.attend = AdditiveAttention(units) if config.attention == "additive" else None
        pooled = units + (inputs if config.skip_mean else 0)
        self.drop = nn.Dropout(config.dropout)
        self.classify = _classifier(pooled, variant.dense_units, config.n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(B, K)`` and weights ``(B, T)`` for features ``(B, T, d)`` or frames ``(B, T, 64, 64, 3)``.

        Raises:
            ValueError: If ``x`` has another shape or type.
        """
        vectors = checked_features(x, self.inputs) if self.embed is None else self.embed(x)  # (B, T, d)
        vectors = self.drop_inputs(vectors)
        states = self.lstm.states(add_differences(vectors) if self.config.differences else vectors)  # (B, T, u)
        pooled, weights = self._pool(states)  # (B, u), (B, T)
        if self.config.skip_mean:
            pooled = torch.cat([pooled, vectors.mean(dim=1)], dim=1)  # (B, u + d)
        return self.classify(self.drop(pooled)), weights  # (B, K), (B, T)

    def _pool(self, states: Tensor) -> tuple[Tensor, Tensor]:
        if self.attend is not None:
            weights = self.attend(states)  # (B, T)
            pooled = _weighted_sum(weights, states)  # (B, u)
            return (pooled / states.shape[1] if self.config.pooling == "average" else pooled), weights
        if self.config.attention == "dot":
            weights = dot_weights(states)  # (B, T)
            return _weighted_sum(weights, states), weights
        if self.config.bidirectional:  # the backward LSTM has read all frames when it reaches the first
            forward, backward = states.chunk(2, dim=2)
            return torch.cat([forward[:, -1], backward[:, 0]], dim=1), last_weights(states)
        return states[:, -1], last_weights(states)


class MeanHead(nn.Module):
    """The baseline: the mean over time and one dense layer; it does not use the order of frames."""

    def __init__(self, inputs: int, config: HeadConfig) -> None:
        super().__init__()
        self.inputs = inputs
        self.drop = nn.Dropout(config.input_dropout)
        self.classify = _dense(inputs, config.n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(B, K)`` and weights ``(B, T)``, all ``1/T``, for features ``(B, T, d)``."""
        features = checked_features(x, self.inputs)
        return self.classify(self.drop(features.mean(dim=1))), _equal_weights(features)  # (B, K), (B, T)


class NormalisedHead(nn.Module):
    """A head preceded by its normalisation, so that a stored head takes features as they are cached."""

    def __init__(self, normalise: Normalisation | PosesApart, head: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.head = head

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(B, K)`` and weights ``(B, T)`` for features ``(B, T, d)``."""
        found: tuple[Tensor, Tensor] = self.head(self.normalise(x))
        return found


class ConvLSTMHead(nn.Module):
    """Table I's baseline: ConvLSTM layers, the last layer's states of all T frames in one vector, one dense layer.

    Each frame has its own rows in the dense kernel, so there are no attention weights; ``1/T`` is reported.
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
    """Build the head that ``config`` describes, on the CPU in float32, with new initial values.

    Returns:
        A module whose call takes ``x`` and returns ``(logits (B, K), attention (B, T))``. ``x`` is ``(B, T, d)``
        float32, or for pixel variants ``(B, T, 64, 64, 3)``, uint8 in 0 to 255 or float in 0 to 1. ``attention`` has
        the attention weight of each frame, rows summing to 1; it does not include what the recipe concatenates to the
        pooled states (the mean of the features).

    Example:
        >>> head = build_head(HeadConfig(variant="mean", input_dim=3, n_classes=2))
        >>> logits, attention = head(torch.ones(1, 4, 3))
        >>> logits.shape, attention.tolist()
        (torch.Size([1, 2]), [[0.25, 0.25, 0.25, 0.25]])
    """
    if config.normalise != "none":
        images = config.input_dim - config.pose_dim
        of_images = Normalisation(config.normalise, images, config.components) if images else None
        normalise = PosesApart(of_images, config.pose_dim) if of_images is None or config.pose_dim else of_images
        return NormalisedHead(normalise, _build_plain(config, normalise.outputs))
    return _build_plain(config, config.input_dim)


def _build_plain(config: HeadConfig, inputs: int) -> nn.Module:
    if config.variant == "mean":
        return MeanHead(inputs, config)
    if config.variant == "convlstm":
        return ConvLSTMHead(config)
    if config.variant == "lrcn":
        return SequenceHead(FrameConvolutions.dim, config, FrameConvolutions())
    return SequenceHead(inputs, config)


def count_trainable(module: nn.Module) -> int:
    """Return the number of trainable parameters of ``module``."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _dense(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    init_like_keras(layer)
    return layer


def _classifier(inputs: int, hidden: int, n_classes: int) -> nn.Sequential:
    if not hidden:
        return nn.Sequential(_dense(inputs, n_classes))
    return nn.Sequential(_dense(inputs, hidden), nn.ReLU(), _dense(hidden, n_classes))


def _weighted_sum(weights: Tensor, states: Tensor) -> Tensor:
    return torch.einsum("bt,btu->bu", weights, states)  # (B, u)


def _equal_weights(states: Tensor) -> Tensor:
    frames = states.shape[1]
    return states.new_full((states.shape[0], frames), 1 / frames)  # (B, T)
