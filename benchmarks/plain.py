"""The plain way to features, as tutorials write it: OpenCV, one clip at a time, fp32, one transform a frame."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision import transforms


def load(name: str, weights: Path) -> torch.nn.Module:
    model = timm.create_model(name)
    model.load_state_dict(load_file(weights / f"{name}.safetensors"))
    model.reset_classifier(0)
    return model.eval()


def transform_for(model: torch.nn.Module) -> transforms.Compose:
    config = timm.data.resolve_model_data_config(model)
    return transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(config["mean"], config["std"]),
        ]
    )


def read_clip(path: Path, transform: transforms.Compose, samples: int = 20) -> torch.Tensor:
    """Return (T, 3, 224, 224): all frames decoded, T of them at even distances transformed one by one."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        found, frame = capture.read()
        if not found:
            break
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    capture.release()
    chosen = [frames[i * len(frames) // (samples + 1)] for i in range(1, samples + 1)]
    return torch.stack([transform(Image.fromarray(frame)) for frame in chosen])


def clip_features(path: Path, model: torch.nn.Module, transform: transforms.Compose) -> np.ndarray:
    """Return (T, d): the frames of one clip embedded."""
    with torch.no_grad():
        return model(read_clip(path, transform)).numpy()


def main() -> None:
    """Print the seconds a clip that this takes, in a process of its own: nothing here is tuned by this program."""
    name, weights, *paths = sys.argv[1:]
    model = load(name, Path(weights))
    transform = transform_for(model)
    clip_features(Path(paths[0]), model, transform)
    started = time.perf_counter()
    for path in paths:
        clip_features(Path(path), model, transform)
    print((time.perf_counter() - started) / len(paths))


if __name__ == "__main__":
    main()
