"""Identities: everything that can change a stored frame or embedding, and nothing else.

Data with different identities are stored separately.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fitrec_cache.cache import flat
from fitrec_cache.storage.parts import FORMAT_VERSION
from fitrec_cache.video.jpeg import codec_version

if TYPE_CHECKING:
    from fitrec_cache.backbones.backbone import Backbone


def frame_identity(*, samples: int, frame_size: int) -> dict[str, Any]:
    """Return everything that can change a stored frame, as plain JSON values."""
    from fitrec_cache.video.container import decoder_version

    return {
        "format_version": FORMAT_VERSION,
        "samples": samples,
        "sampling": "floor(i * n_frames / (samples + 1)), i = 1..samples",
        "short_side": frame_size,
        "geometry": "whole frame, upright, square pixels, bicubic, never enlarged",
        "codec": codec_version(),
        "decoder": decoder_version(),
    }


def feature_identity(frames: dict[str, Any], backbone: Backbone) -> dict[str, Any]:
    """Return everything that can change a stored embedding, as plain JSON values."""
    return {"format_version": FORMAT_VERSION, "frames": frames, "dtype": "float16", **backbone.identity()}


def backbone_identity(features: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a feature identity that describes the backbone, as ``Backbone.identity`` gives it."""
    return {k: v for k, v in features.items() if k not in ("format_version", "frames", "dtype")}


def what_changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return the settings in which two identities differ, such as ``samples: 20 -> 40``, separated by semicolons."""
    before, after = flat(old), flat(new)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return "; ".join(f"{name}: {_short(before.get(name))} -> {_short(after.get(name))}" for name in names)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}..."  # the value may come from a file of any origin
