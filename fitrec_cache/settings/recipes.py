"""Recipes: all settings of a training, and named sets of them; uses the standard library only."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fitrec_cache.common.files import Plain
from fitrec_cache.errors import UsageError, unknown_name
from fitrec_cache.settings.variants import (
    NORMALISATIONS,
    OPTIONAL,
    POOLINGS,
    PROJECTIONS,
    VARIANTS,
    HeadConfig,
    get_variant,
)

SCHEDULES = ("constant", "cosine")

#: Types for matrix products in training: ``auto`` is ``bf16`` if the processor is faster in it, else ``fp32``.
PRECISIONS = ("auto", "fp32", "bf16")

#: Which epoch's weights are kept: those of the lowest validation loss, or of the last epoch.
KEEPS = ("best", "last")

#: Setting -> another setting, which becomes 0 if the first is given and the other is not.
GOES_WITH = MappingProxyType({"epochs": "steps", "components": "clips_per_component"})


@dataclass(frozen=True, kw_only=True)
class Recipe(Plain):
    """All settings that determine how a head is trained, and those parts of its shape that belong to the recipe.

    Attributes:
        learning_rate: Learning rate of Adam; with ``cosine`` the highest one.
        schedule: ``constant``, or ``cosine``: falls to zero over ``epochs``.
        epochs: The greatest number of epochs.
        patience: Stop after this many epochs without a lower validation loss; no effect with ``keep="last"``.
        keep: ``best``: keep the weights of the epoch with the lowest validation loss. ``last``: train to the end.
        refit: Afterwards train a new head on training and validation clips together, for the number of epochs that was
            kept, and use that head. What is determined on validation clips (epochs, temperature, threshold) comes from
            the first head.
        steps: At least this many steps are allowed in total: with few clips, ``epochs`` and ``patience`` grow by the
            same factor. Epochs that are given explicitly (:meth:`change`) are not changed.
        batch_size: Clips per step.
        weight_decay: Weight decay, decoupled from the gradient (AdamW); 0 is plain Adam.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        balance: Exponent with which a class's rarity weights it in the loss: 0 no weighting, 1 every class counts the
            same.
        precision: Type for matrix products in training on the CPU (``torch.autocast``), one of :data:`PRECISIONS`.
            Weights are always float32, and so is everything that is computed outside training.
        draw: Number of frames drawn at random from each clip, in order, for a training step; 0 takes all. Testing takes
            all.
        normalise, components, differences, bidirectional, pooling, skip_mean, input_dropout, dropout: See
            :class:`~fitrec_cache.settings.variants.HeadConfig`. ``components`` is an upper limit here: fewer are kept
            if there are no more.
        clips_per_component: Least number of training clips per component; 0 for no limit. The frames of a clip are
            similar: with many components from few clips, the last components merely distinguish single clips.
    """

    learning_rate: float = 1e-4
    schedule: str = "constant"
    epochs: int = 200
    patience: int = 20
    keep: str = "best"
    refit: bool = False
    steps: int = 0
    batch_size: int = 32
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    balance: float = 0.0
    precision: str = "fp32"
    draw: int = 0
    normalise: str = "none"
    components: int = 0
    clips_per_component: float = 0.0
    differences: bool = False
    bidirectional: bool = False
    pooling: str = "average"
    skip_mean: bool = False
    input_dropout: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if not 0 < self.learning_rate < 10:
            raise UsageError(f"learning_rate is {self.learning_rate}: expected above 0 and below 10, such as 1e-4")
        for name, most in (("weight_decay", 10.0), ("label_smoothing", 0.99), ("balance", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise UsageError(f"{name} is {getattr(self, name)}: expected a number from 0 to {most:g}")
        choices = {"schedule": SCHEDULES, "keep": KEEPS, "precision": PRECISIONS}
        choices |= {"normalise": NORMALISATIONS, "pooling": POOLINGS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise unknown_name(name, str(getattr(self, name)), known)
        for name in ("input_dropout", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: expected a share of at least 0 and below 1")
        for name, what in (
            ("components", "principal components"),
            ("clips_per_component", "training clips, or 0 for any"),
            ("draw", "frames, or 0 for all"),
            ("steps", "steps, or 0 for any"),
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} is {getattr(self, name)}: expected a number of {what}")

    def change(self, **values: Any) -> Recipe:
        """Return the recipe with some settings changed; None leaves a setting unchanged.

        A given number of epochs or components is used as it is, regardless of the number of clips: ``steps`` or
        ``clips_per_component`` is then set to 0 unless given too.

        Raises:
            UsageError: If a name is unknown (the nearest valid one is named) or a value is out of range.
        """
        fields = [field.name for field in dataclasses.fields(self)]
        for key in values:
            if key not in fields:
                raise unknown_name("recipe setting", key, fields)
        given = {k: v for k, v in values.items() if v is not None}
        for name, other in GOES_WITH.items():
            if name in given:
                given.setdefault(other, type(getattr(self, other))(0))
        return dataclasses.replace(self, **given)

    def idle(self, variant: str, attention: str | None) -> dict[str, str]:
        """Return the settings that have no effect with this variant and attention, each with the reason.

        Args:
            variant: A key of :data:`~fitrec_cache.settings.variants.VARIANTS`.
            attention: One of :data:`~fitrec_cache.settings.variants.ATTENTIONS`; None for the variant's own.
        """
        head = VARIANTS[variant]
        found: dict[str, str] = {}
        if self.keep == "last":
            found["patience"] = "with keep=last"
        if self.normalise not in PROJECTIONS:
            found |= dict.fromkeys(("components", "clips_per_component"), f"with normalise={self.normalise}")
        if (attention or head.attention) != "additive":
            found["pooling"] = "without additive attention"
        if "components" not in head.settings:
            found["clips_per_component"] = f"for variant {variant}"
        return found | dict.fromkeys(OPTIONAL - head.settings, f"for variant {variant}")

    def fitted_to(self, n_clips: int) -> Recipe:
        """Return the recipe with as many epochs as ``steps`` requires for this number of training clips."""
        here = self.epochs * math.ceil(n_clips / self.batch_size)
        longer = max(1.0, self.steps / here)
        return dataclasses.replace(
            self, epochs=math.ceil(self.epochs * longer), patience=math.ceil(self.patience * longer)
        )

    def head_config(
        self,
        variant: str,
        shape: Sequence[int],
        *,
        n_classes: int,
        n_train: int,
        attention: str | None,
        pose_dim: int = 0,
    ) -> HeadConfig:
        """Return the head configuration for a variant; settings that the variant does not have are left out.

        Args:
            variant: A key of :data:`~fitrec_cache.settings.variants.VARIANTS`.
            shape: Shape of the data of all clips: features ``(N, T, d)``, or frames ``(N, T, H, W, 3)``.
            n_classes: Number of classes K.
            n_train: Number of training clips; see ``clips_per_component``.
            attention: One of :data:`~fitrec_cache.settings.variants.ATTENTIONS`; None for the variant's own.
            pose_dim: How many of the d values are poses, the last ones; with ``normalise`` they are treated apart.

        Raises:
            UsageError: If the variant or a setting is unknown.
        """
        head = get_variant(variant)
        frames, dim = shape[1], 0 if head.takes_pixels else shape[2]
        pose_dim = pose_dim if self.normalise != "none" else 0
        chosen = {name: getattr(self, name) for name in head.settings}
        if "components" in chosen:
            most = n_train * frames
            if self.clips_per_component:
                most = max(1, int(min(n_train / self.clips_per_component, most)))
            chosen["components"] = min(self.components, dim - pose_dim, most) if self.normalise in PROJECTIONS else 0
        return HeadConfig(
            variant=variant,
            n_classes=n_classes,
            input_dim=dim,
            pose_dim=pose_dim,
            attention=attention,
            frames=frames,
            **chosen,
        )


#: ``paper``: Adam at 1e-4, batches of 32, as in the paper. ``native``: the recipe that was best on validation clips;
#: docs/results.md describes the search.
RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "paper": Recipe(),
        "native": Recipe(
            learning_rate=3e-3,
            schedule="cosine",
            epochs=40,
            keep="last",
            refit=True,
            steps=1000,
            weight_decay=0.05,
            label_smoothing=0.1,
            precision="auto",
            normalise="pca",
            components=512,
            clips_per_component=1.5,
            pooling="sum",
            skip_mean=True,
            input_dropout=0.3,
            dropout=0.3,
        ),
    }
)


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        UsageError: If there is none of that name.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    return RECIPES[name]


def given_settings(options: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Return the settings that were given, by their own options (None: not given) or as ``NAME=VALUE``.

    Raises:
        UsageError: As for :func:`read_settings`, or if a setting is given in both ways.
    """
    given = {name: value for name, value in options.items() if value is not None}
    further = read_settings(settings)
    if twice := sorted(set(further) & set(given)):
        raise UsageError(f"{twice[0]} is given twice, by its own option and by --set: give it once")
    return given | further


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Turn ``NAME=VALUE`` texts into recipe settings of the right types.

    Raises:
        UsageError: If a text is not of that form, the name is unknown or the value has another type.
    """
    known = Recipe().to_dict()
    found: dict[str, Any] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text!r}: expected NAME=VALUE, such as dropout=0.5")
        if name not in known:
            raise unknown_name("recipe setting", name, known)
        if name in found:
            raise UsageError(f"--set {name} is given twice: give it once")
        kind = type(known[name])
        try:
            found[name] = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError) as error:
            what = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            raise UsageError(f"--set {text!r}: expected {what}") from error
    return found
