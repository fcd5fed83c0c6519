"""The part of stage_one.py that asks whether OpenVINO would embed faster than PyTorch's compiler; needs openvino."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts import BACKBONES, SAMPLES, choose, clip_cosine, ratio, seconds, spread, stored_frames
from torch import Tensor, nn

from fitrec_cache.backbones.backbone import Backbone, load_backbone
from fitrec_cache.backbones.pretrained import EMBEDDED
from fitrec_cache.common.memory import keep_freed_memory

#: Clips of a repeat.
CLIPS = 20


class AsItLies(nn.Module):
    """A backbone's network on frames as they lie in memory, ``(T, h, w, 3)``: nothing is rearranged between both."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        return self.network(frames.permute(0, 3, 1, 2))


class OpenVino:
    """A backbone's network, computed by OpenVINO in fp32 on as many threads as PyTorch takes."""

    def __init__(self, backbone: Backbone) -> None:
        sys.modules.setdefault("openvino_telemetry", None)  # it would tell its makers that it is used
        import openvino

        size = backbone.preprocessing.size
        with torch.no_grad():
            frames = torch.zeros(SAMPLES, *size, 3, dtype=torch.uint8)
            translated = openvino.convert_model(torch.export.export(AsItLies(backbone.network), (frames,)))
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self.network = openvino.Core().compile_model(translated, "CPU", settings)
        self.version = str(openvino.__version__)

    def embed_prepared(self, x: Tensor) -> np.ndarray:
        return self.network([x.permute(0, 2, 3, 1).numpy()])[0].astype(np.float16)


def openvino(args: argparse.Namespace) -> dict[str, Any]:
    """Embed ready tensors in fp32: by PyTorch, by PyTorch compiled, and by OpenVINO, in turns."""
    keep_freed_memory()
    clips = choose(args.videos, CLIPS)
    texts = {name: f"{name}={args.weights / name}.safetensors" for name in BACKBONES} | {EMBEDDED: EMBEDDED}
    return {"clips": CLIPS, "backbones": {name: _one(text, clips, args.repeats) for name, text in texts.items()}}


def _one(text: str, clips: list[Path], repeats: int) -> dict[str, Any]:
    eager, compiled = (load_backbone(text, precision="fp32", device="cpu", compiled=c) for c in (False, True))
    ready = [eager.prepare(frames) for frames in stored_frames(clips)]
    ways: dict[str, Any] = {"eager": eager, "compiled": compiled}
    preparing = {
        "compiled": seconds(lambda: compiled.compile_for(SAMPLES)),
        "openvino": seconds(lambda: ways.update(openvino=OpenVino(eager))),
    }
    rows: dict[str, list[float]] = {way: [] for way in ways}
    made: dict[str, list[np.ndarray]] = {}
    for _ in range(repeats):
        for way, network in ways.items():
            made[way] = []
            spent = seconds(lambda: made[way].extend(map(network.embed_prepared, ready)))  # noqa: B023 - called at once
            rows[way].append(spent / len(ready))
        print(text.split("=")[0], {way: round(taken[-1], 4) for way, taken in rows.items()}, flush=True)
    return {
        "version": ways["openvino"].version,
        "seconds_per_clip": {way: spread(taken) for way, taken in rows.items()},
        "preparing_seconds": preparing,
        "eager_over_openvino": ratio(rows["eager"], rows["openvino"]),
        "compiled_over_openvino": ratio(rows["compiled"], rows["openvino"]),
        "cosine_to_eager_min": min(
            clip_cosine(a.astype(np.float64), b) for a, b in zip(made["eager"], made["openvino"], strict=True)
        ),
    }
