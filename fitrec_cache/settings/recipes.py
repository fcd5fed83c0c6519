"""How heads are trained: every setting of a training, and named sets of them; standard library only."""

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

#: In what a head multiplies in training: ``auto`` is ``bf16`` where the processor is faster in it, else ``fp32``.
PRECISIONS = ("auto", "fp32", "bf16")

#: Which epoch's weights are kept: the one with the lowest validation loss, or the last.
KEEPS = ("best", "last")


@dataclass(frozen=True, kw_only=True)
class Recipe(Plain):
    """Everything that decides how a head learns, and the parts of its shape that belong to the recipe.

    Attributes:
        learning_rate: Of Adam; with ``cosine`` the highest.
        schedule: ``constant``, or ``cosine``: falls to zero over ``epochs``.
        epochs: At most this many.
        patience: Stop after this many epochs without a lower validation loss; nothing to ``keep="last"``.
        keep: ``best``: keep the weights of the epoch with the lowest validation loss. ``last``: train to the end.
        refit: Afterwards train a new head on training and validation clips together, for as many epochs as were kept,
            and use that one. What validation clips decide (epochs, temperature, threshold) comes from the first.
        steps: At least this many steps are allowed in all: with few clips, ``epochs`` and ``patience`` grow alike.
            Epochs that are given by hand (:meth:`change`) stay as given.
        batch_size: Clips per step.
        weight_decay: Decoupled from the gradient (AdamW); 0 is plain Adam.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        balance: Power of a class's rarity in its weight in the loss: 0 none, 1 every class counts the same.
        precision: Of the products in training on the CPU (``torch.autocast``), one of :data:`PRECISIONS`. Weights are
            float32 always, and so is all that is computed without learning.
        draw: Frames drawn from each clip at random, in order, for a training step; 0 takes all. Testing takes all.
        normalise, components, differences, bidirectional, pooling, skip_mean, input_dropout, dropout: See
            :class:`~fitrec_cache.settings.variants.HeadConfig`. ``components`` is a highest number here: fewer are
            kept where there are no more.
        clips_per_component: Training clips for each component at least; 0 for any. Frames of a clip are alike: with
            many components of few clips, the last ones tell single clips apart.
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
        """Return the recipe with some settings changed; those given as None stay.

        A number of epochs or components that is given is one, however few the clips: see ``steps`` and
        ``clips_per_component``.

        Raises:
            UsageError: If a name is unknown (the nearest valid one is named) or a value is out of range.
        """
        fields = [field.name for field in dataclasses.fields(self)]
        for key in values:
            if key not in fields:
                raise unknown_name("recipe setting", key, fields)
        given = {k: v for k, v in values.items() if v is not None}
        if "epochs" in given:
            given.setdefault("steps", 0)
        if "components" in given:
            given.setdefault("clips_per_component", 0.0)
        return dataclasses.replace(self, **given)

    def idle(self, variant: str, attention: str | None) -> dict[str, str]:
        """Return the settings that change nothing, whatever the clips are, each with the reason.

        Args:
            variant: A key of :data:`~fitrec_cache.settings.variants.VARIANTS`.
            attention: One of the ways of attention; None for the variant's own.
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
        """Return the recipe with as many epochs as ``steps`` asks for on this many training clips."""
        here = self.epochs * math.ceil(n_clips / self.batch_size)
        longer = max(1.0, self.steps / here)
        return dataclasses.replace(
            self, epochs=math.ceil(self.epochs * longer), patience=math.ceil(self.patience * longer)
        )

    def head_config(
        self, variant: str, shape: Sequence[int], *, n_classes: int, n_train: int, attention: str | None
    ) -> HeadConfig:
        """Return the head that this recipe gives a variant; what a variant has no place for is left at its default.

        Args:
            variant: A key of :data:`~fitrec_cache.settings.variants.VARIANTS`.
            shape: Of what all clips are to it: features ``(N, T, d)``, or frames ``(N, T, H, W, 3)``.
            n_classes: Number of classes K.
            n_train: Training clips; see ``clips_per_component``.
            attention: One of the ways of attention; None for the variant's own.

        Raises:
            UsageError: If the variant or a setting is unknown.
        """
        head = get_variant(variant)
        frames, dim = shape[1], 0 if head.takes_pixels else shape[2]
        chosen = {name: getattr(self, name) for name in head.settings}
        if "components" in chosen:
            most = n_train * frames
            if self.clips_per_component:
                most = max(1, int(min(n_train / self.clips_per_component, most)))
            chosen["components"] = min(self.components, dim, most) if self.normalise in PROJECTIONS else 0
        return HeadConfig(
            variant=variant, n_classes=n_classes, input_dim=dim, attention=attention, frames=frames, **chosen
        )


#: ``paper``: Adam at 1e-4, batches of 32, as the paper has it. ``native``: what did best on validation; see
#: docs/results.md for the search.
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
    """Return what was given: by options of their own, where None is nothing, and as ``NAME=VALUE``.

    Raises:
        UsageError: As for :func:`read_settings`, or if something is given both ways.
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
