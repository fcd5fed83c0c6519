"""Rebuild the steps from stored frames to the head's input exactly as in training; refuse if they would differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from fitrec_cache.backbones.backbone import Backbone, load_backbone
from fitrec_cache.errors import MismatchError, UsageError, WeightsError, unknown_name
from fitrec_cache.extraction.identity import backbone_identity, frame_identity, what_changed
from fitrec_cache.runs.run import Run
from fitrec_cache.settings.variants import VARIANTS, HeadConfig, plain_name
from fitrec_cache.storage.sources import frames_of
from fitrec_cache.training.pixels import to_pixels

#: Fields of an identity that describe how the network was made fast; irrelevant for an exported one, run elsewhere.
_HOW_FAST = ("rounding", "folded", "compiled")


def sources_of(run: Run) -> list[dict[str, Any]]:
    """Return how the features of a run were made, one entry per backbone.

    Raises:
        UsageError: If that is not known.
    """
    sources: list[dict[str, Any]] = run.run_json["sources"]
    if not sources:
        raise UsageError(
            f"{run.folder} was trained on features made elsewhere: how to make them from a video is not known. "
            "Train on a cache, or on a file that `fitrec-cache pack` wrote"
        )
    return sources


class Pipeline:
    """Turns stored frames into one part of the head's input, exactly as for training.

    Args:
        source: The entry of ``sources`` in ``run.json`` that describes this part.
        given: ``NAME=WEIGHTS`` by backbone name, for weights that have moved.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        force: Continue although something differs here.
        exported: Whether the network will run elsewhere, on frames decoded by other programs; it is then in fp32 and
            not compiled, whatever the features were made with.

    Attributes:
        frames: Identity of the stored frames.
        backbone: The backbone; None if the head takes small frames directly.

    Raises:
        MismatchError: If the pipeline would differ; it names each differing field, old -> new.
        WeightsError: If the weights cannot be loaded.
    """

    def __init__(
        self, source: Mapping[str, Any], given: Mapping[str, str], *, device: str, force: bool, exported: bool = False
    ) -> None:
        pixels, identity = source["kind"] == "pixels", source["identity"]
        self.frames = frames_of(source)
        if not exported:
            here = frame_identity(samples=self.frames["samples"], frame_size=self.frames["short_side"])
            _refuse_if_different("frames", self.frames, here, force=force)
        elif not pixels:
            identity = _as_anywhere(identity) | {"precision": "fp32"}
        self.backbone: Backbone | None = None
        if pixels:
            return
        name, command = identity["backbone"], "export" if exported else "predict"
        origin = source.get("origin", {})
        self.backbone = rebuild_backbone(identity, origin, given=given.get(name), device=device, command=command)
        then, now = backbone_identity(identity), self.backbone.identity()
        _refuse_if_different(f"backbone {name}", then, _as_anywhere(now) if exported else now, force=force)

    @property
    def embeds_each_alone(self) -> bool:
        """Whether a frame's values hardly depend on how many frames are given with it."""
        return self.backbone is None or self.backbone.embeds_each_alone

    def __call__(self, frames: Tensor) -> NDArray[Any]:
        """Return the input of the head: float16 ``(T, d)``, or uint8 ``(T, 64, 64, 3)``."""
        return to_pixels(frames) if self.backbone is None else self.backbone.embed(frames)


def rebuild_backbone(
    identity: Mapping[str, Any],
    origin: Mapping[str, Any],
    *,
    given: str | None = None,
    device: str = "auto",
    command: str,
) -> Backbone:
    """Load the backbone that made features with this identity, from its recorded weights or from ``given``.

    ``command`` is the command that accepts ``--backbone NAME=FILE``, named in the error if the weights have moved.
    """
    name = identity["backbone"]
    weights = origin.get("weights")
    if not given and not isinstance(weights, str):
        raise WeightsError(f"it is not known where the weights of {name} are: give `{command} --backbone {name}=FILE`")
    text = given or f"{name}={weights}"
    preset, precision = identity["preprocessing"]["preset"], identity["precision"]
    compiled = "compiled" in identity
    try:
        return load_backbone(text, preset=preset, precision=precision, device=device, compiled=compiled)
    except WeightsError as error:
        if given:
            raise
        raise WeightsError(f"{error}. Say where they are now: `{command} --backbone {name}=FILE`") from error


def _as_anywhere(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in _HOW_FAST}


def _refuse_if_different(what: str, then: Mapping[str, Any], here: Mapping[str, Any], *, force: bool) -> None:
    if not force and (changed := what_changed(then, here)):
        raise MismatchError(
            f"the head was trained on other features ({what}): {changed}. Use the versions and weights of that "
            "training, extract and train again, or accept the difference with --force"
        )


def open_pipelines(
    run: Run, backbone: Sequence[str], *, device: str, force: bool, exported: bool = False
) -> list[Pipeline]:
    """Rebuild the pipelines of all parts of a run's input; the arguments are those of :class:`Pipeline`.

    Raises:
        UsageError: If it is not known how the features were made, or a given backbone was not used.
        MismatchError: If a pipeline would differ, or does not fit the head.
    """
    given = {plain_name(b).partition("=")[0]: b for b in backbone}
    if len(given) < len(backbone):
        raise UsageError(f"--backbone {' --backbone '.join(backbone)}: one is given twice, expected each once")
    found = [Pipeline(s, given, device=device, force=force, exported=exported) for s in sources_of(run)]
    _check_fit(run, found)
    used = {p.backbone.name for p in found if p.backbone is not None}
    if given and not used:
        raise UsageError(f"{run.folder} learned from frames, without a backbone: leave --backbone {backbone[0]} out")
    for name in sorted(given.keys() - used):
        raise unknown_name("backbone of this run", name, used)
    return found


def _check_fit(run: Run, pipelines: Sequence[Pipeline]) -> None:
    """Raise MismatchError if the sources cannot be combined, or the head does not accept their values."""
    takes, backbones = HeadConfig.from_dict(run.run_json["head"]), [p.backbone for p in pipelines]
    dims = [b.dim for b in backbones if b is not None]
    lengths = sorted({p.frames["samples"] for p in pipelines})
    variant = VARIANTS[takes.variant]
    pixels = variant.takes_pixels
    fits = len(pipelines) == 1 and not dims if pixels else len(dims) == len(pipelines) and sum(dims) == takes.input_dim
    if not fits or len(lengths) != 1 or (variant.needs_all_frames and lengths != [takes.frames]):
        raise MismatchError(
            f"{run.folder}/run.json names sources with {sum(dims) or 'pixels'} values per frame and T = {lengths}; its "
            f"head takes {'pixels' if pixels else takes.input_dim} and T = {takes.frames}. Train the head again"
        )
