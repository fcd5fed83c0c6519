"""The models that can be trained, by name, and the settings of a model; :mod:`fitrec_cache.heads.head` builds them.

Uses the standard library only, so that ``--help`` is fast.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fitrec_cache.common.files import Plain
from fitrec_cache.errors import UsageError, unknown_name

#: Ways to prepare frames for a backbone.
PRESETS = ("native", "grid", "paper", "table1")

#: ``Variant.backbone`` of the variants that are trained on frames of 64x64 pixels instead of features.
PIXELS = "pixels64"

#: Ways to turn the T states into one vector: Eq. 9, dot product without parameters, last state only.
ATTENTIONS = ("additive", "dot", "none")

#: Normalisation of features before the head, fitted on the training clips: none; mean 0 and variance 1 for each of the
#: d values; the leading principal components, with a common scale or each scaled to variance 1.
NORMALISATIONS = ("none", "standard", "pca", "whiten")

#: The normalisations that use ``components``.
PROJECTIONS = ("pca", "whiten")

#: How weighted states become one vector: the paper's global average of A_t H_t, or their sum (a weighted mean).
POOLINGS = ("average", "sum")


#: Settings of heads on features, and of heads with an LSTM; heads without an LSTM have no ``dropout``.
OF_FEATURES = ("normalise", "components", "input_dropout")
OF_SEQUENCES = ("differences", "bidirectional", "pooling", "skip_mean", "dropout")
OPTIONAL = frozenset((*OF_FEATURES, *OF_SEQUENCES))

#: The default head with an LSTM, by the beginning of the backbone's name; the first entry is for all other backbones.
_WITH_LSTM = {
    "": "resnet50-lstm-attention",
    "efficientnet": "efficientnet-lstm-attention",
    "tf_efficientnet": "efficientnet-lstm-attention",
    "vit_": "vit-lstm",
    "deit": "vit-lstm",
}

#: The prefix of timm's models in model cards.
_ON_THE_HUB = re.compile(r"^(hf[-_]hub:)?(timm/)?")


def plain_name(text: str) -> str:
    """Return the name of a backbone, or ``NAME=WEIGHTS``, without the prefix of model cards, as timm expects it.

    Example:
        >>> plain_name("hf-hub:timm/resnet18.a1_in1k"), plain_name("resnet50=x.pth")
        ('resnet18.a1_in1k', 'resnet50=x.pth')
    """
    return _ON_THE_HUB.sub("", text)


def heads_for(backbone: str) -> tuple[str, str]:
    """Return the default variants to choose from for a backbone: the matching one with an LSTM, and ``mean``."""
    return next(head for begins, head in reversed(_WITH_LSTM.items()) if backbone.startswith(begins)), "mean"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One of the models that can be trained.

    Args:
        name: The value of ``--variant``.
        backbone: Default backbone as timm names it, or :data:`PIXELS`.
        lstm_units: Width of the LSTM's state; 0 without an LSTM.
        attention: Default way of pooling over time, one of :data:`ATTENTIONS`.
        dense_units: Width of the hidden dense layer with ReLU; 0 without one.
        paper_row: The paper's name of the model; empty if it has none.
        needs_all_frames: Whether it accepts only as many frames as in training.
    """

    name: str
    backbone: str
    lstm_units: int = 0
    attention: str = "none"
    dense_units: int = 0
    paper_row: str = ""
    needs_all_frames: bool = False

    @property
    def takes_pixels(self) -> bool:
        """Whether the head takes frames ``(B, T, 64, 64, 3)`` instead of features ``(B, T, d)``."""
        return self.backbone == PIXELS

    @property
    def attentions(self) -> tuple[str, ...]:
        """The kinds of :data:`ATTENTIONS` that the head can have; only LSTM states can be attended to."""
        return ATTENTIONS if self.lstm_units else ("none",)

    @property
    def settings(self) -> frozenset[str]:
        """Names of the settings in :data:`OPTIONAL` that the head has."""
        of_features = () if self.takes_pixels else OF_FEATURES
        return frozenset((*of_features, *(OF_SEQUENCES if self.lstm_units else ())))


#: All variants by name. Widths are those implied by the totals in Table I (for EfficientNet all but 2,560 parameters);
#: LRCN's are not from the paper, which does not give them.
VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        variant.name: variant
        for variant in (
            Variant(
                name="resnet50-lstm-attention",
                backbone="resnet50",
                lstm_units=128,
                attention="additive",
                paper_row="ResNet50+LSTM",
            ),
            Variant(
                name="efficientnet-lstm-attention",
                backbone="tf_efficientnet_b0",
                lstm_units=256,
                attention="additive",
                dense_units=128,
                paper_row="EfficientNet+LSTM",
            ),
            Variant(name="vit-lstm", backbone="vit_base_patch32_224", lstm_units=64, paper_row="ViT+LSTM"),
            Variant(name="lrcn", backbone=PIXELS, lstm_units=64, attention="additive", paper_row="LRCN"),
            Variant(name="convlstm", backbone=PIXELS, paper_row="ConvLSTM", needs_all_frames=True),
            Variant(name="mean", backbone="tf_efficientnet_lite0"),
        )
    }
)


def get_variant(name: str) -> Variant:
    """Return a variant by name.

    Raises:
        UsageError: If there is none of that name.
    """
    if name not in VARIANTS:
        raise unknown_name("variant", str(name), VARIANTS)
    return VARIANTS[name]


@dataclass(frozen=True, kw_only=True)
class HeadConfig(Plain):
    """All settings that determine a head's shape; validated on creation.

    Args:
        variant: A key of :data:`VARIANTS`.
        n_classes: Number of classes K, at least 2.
        input_dim: Length d of a frame's feature vector, at least 1; not used by pixel variants.
        attention: One of :data:`ATTENTIONS`; None is replaced by the variant's own, so that a stored config keeps its
            meaning. Variants without an LSTM (``mean``, ``convlstm``) have only ``none``.
        frames: Number of frames per clip, T, at least 1; only ``convlstm`` depends on it, because its dense layer takes
            all frames.
        normalise: One of :data:`NORMALISATIONS`; heads on features only.
        components: Number of principal components kept, ``p`` of ``(T, p)``, for ``pca`` and ``whiten``.
        differences: Concatenate each frame's vector with its change from the frame before; ``d`` becomes ``2 d``.
        bidirectional: Add a second LSTM that runs backwards in time.
        pooling: One of :data:`POOLINGS`; affects additive attention only.
        skip_mean: Concatenate the mean of the features over time to the pooled states.
        input_dropout: Share of features dropped in training, the same ones in all frames of a clip; in [0, 1).
        dropout: Share of the dense layers' input that is dropped in training; in [0, 1).
        pose_dim: How many of the d values, the last ones, are poses that are normalised by themselves
            (:class:`fitrec_cache.heads.normalisation.PosesApart`); 0 for none.

    The last nine are off by default: the paper has none of them.

    Raises:
        UsageError: If a value is not one of the above.
    """

    variant: str
    n_classes: int
    input_dim: int = 0
    attention: str | None = None
    frames: int = 20
    normalise: str = "none"
    components: int = 0
    differences: bool = False
    bidirectional: bool = False
    pooling: str = "average"
    skip_mean: bool = False
    input_dropout: float = 0.0
    dropout: float = 0.0
    pose_dim: int = 0

    def __post_init__(self) -> None:
        variant = get_variant(self.variant)
        object.__setattr__(self, "attention", _checked_attention(variant, self.attention))
        _check_at_least("n_classes", self.n_classes, 2)
        _check_at_least("frames", self.frames, 1)
        _check_at_least("input_dim", self.input_dim, 0 if variant.takes_pixels else 1)
        self._check_recipe(variant)

    def _check_recipe(self, variant: Variant) -> None:
        for name, known in (("normalise", NORMALISATIONS), ("pooling", POOLINGS)):
            if getattr(self, name) not in known:
                raise unknown_name(name, str(getattr(self, name)), known)
        if self.normalise != "none" and variant.takes_pixels:
            raise UsageError(
                f"normalise '{self.normalise}' is for features: variant '{variant.name}' learns from frames"
            )
        projected = self.normalise in PROJECTIONS
        _check_at_least("components", self.components, 0)
        _check_at_least("pose_dim", self.pose_dim, 0)
        if self.pose_dim > self.input_dim or (self.pose_dim and self.normalise == "none"):
            raise UsageError(
                f"pose_dim {self.pose_dim} with normalise '{self.normalise}' and {self.input_dim} values per frame: "
                "expected at most all of them, and a normalisation; correct the head's settings"
            )
        images = self.input_dim - self.pose_dim
        if projected and not self.components and (images or not self.pose_dim):
            raise UsageError(f"normalise '{self.normalise}' needs components: set it to 1 or more, such as 512")
        if projected and self.components > images:
            raise UsageError(f"components {self.components}: features have only {images} values per frame")
        for name in ("differences", "bidirectional", "skip_mean"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} {getattr(self, name)!r}: expected true or false; correct the head's settings")
        for name in ("input_dropout", "dropout"):
            if not isinstance(getattr(self, name), int | float) or not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)!r}: expected a share of at least 0 and below 1")

    @property
    def seen_dim(self) -> int:
        """Number of values per frame that are left after normalisation."""
        images = self.input_dim - self.pose_dim
        return (self.components if self.normalise in PROJECTIONS else images) + 2 * self.pose_dim

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON values; without ``pose_dim`` if it is 0, as in earlier versions."""
        values = super().to_dict()
        return values if self.pose_dim else {name: value for name, value in values.items() if name != "pose_dim"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HeadConfig:
        """Return the config with these values.

        Args:
            values: Field names and values; ``variant`` and ``n_classes`` are required.

        Returns:
            The validated config.

        Raises:
            UsageError: If a key is unknown (the nearest valid one is named) or missing, or a value is wrong.
        """
        fields = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in fields:
                raise unknown_name("head setting", str(key), fields)
        missing = [key for key in ("variant", "n_classes") if key not in values]
        if missing:
            raise UsageError(f"head settings lack {', '.join(missing)}: got only {sorted(values)}; add them")
        return cls(**values)


def _checked_attention(variant: Variant, attention: str | None) -> str:
    if attention is None:
        return variant.attention
    if attention not in ATTENTIONS:
        raise unknown_name("attention", str(attention), ATTENTIONS)
    if attention not in variant.attentions:
        raise UsageError(
            f"attention '{attention}' with variant '{variant.name}': it has no LSTM states to attend to; "
            "expected 'none', or choose a variant with an LSTM"
        )
    return attention


def _check_at_least(name: str, got: object, least: int) -> None:
    if not isinstance(got, int) or isinstance(got, bool) or got < least:
        raise UsageError(f"{name} {got!r}: expected a whole number of at least {least}; correct the head's settings")
