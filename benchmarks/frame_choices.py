"""Measure what the frame store's defaults rest on: geometry, size and encoding.

Two questions, each answered on real clips, with training clips only (no test list is read):

* ``geometry``: which way of fitting a whole frame into a backbone's square input keeps the most?
  Mean-pooled frozen features, logistic regression, 5-fold cross-validation that keeps groups together.
* ``encoding``: what do stored size and JPEG quality cost in bytes and in feature cosine, and how much faster than
  decoding the video are the stored frames?

    python benchmarks/frame_choices.py VIDEOS TRAINLIST WEIGHTS_DIR --out benchmarks/results/frame_choices.json
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path

import av
import numpy as np
import timm
import torch
import torch.nn.functional as F
from parts import machine
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fitrec_cache.video.jpeg import decode_frames

BACKBONES = ("vit_tiny_patch16_224", "tf_efficientnet_b0", "resnet50")


def decode(path: Path, samples: int) -> np.ndarray:
    """Return (samples, H, W, 3) uint8 frames by Eq. 1, all frames decoded."""
    with av.open(str(path)) as container:
        frames = list(container.decode(container.streams.video[0]))
    n = len(frames)
    return np.stack([frames[i * n // (samples + 1)].to_ndarray(format="rgb24") for i in range(1, samples + 1)])


def to_square(frames: torch.Tensor, size: int, geometry: str) -> torch.Tensor:
    """(T, 3, H, W) uint8 -> (T, 3, h, w) float in [0, 1]; whole frame kept except for ``crop``."""
    h, w = frames.shape[-2:]
    x = frames.float()
    if geometry == "squash":
        x = F.interpolate(x, (size, size), mode="bicubic", antialias=True)
    elif geometry == "letterbox":
        s = size / max(h, w)
        nh, nw = round(h * s), round(w * s)
        x = F.interpolate(x, (nh, nw), mode="bicubic", antialias=True)
        mean = 127.5
        x = F.pad(
            x,
            ((size - nw) // 2, size - nw - (size - nw) // 2, (size - nh) // 2, size - nh - (size - nh) // 2),
            value=mean,
        )
    elif geometry == "crop":
        s = size / min(h, w)
        nh, nw = round(h * s), round(w * s)
        x = F.interpolate(x, (nh, nw), mode="bicubic", antialias=True)
        x = x[..., (nh - size) // 2 :, (nw - size) // 2 :][..., :size, :size]
    else:
        raise ValueError(geometry)
    return (x / 255).clamp(0, 1)


def load(name: str, weights: Path) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    model = timm.create_model(name, checkpoint_path=str(weights / f"{name}.safetensors"))
    model.reset_classifier(0)
    cfg = timm.data.resolve_model_data_config(model)
    return model.eval(), torch.tensor(cfg["mean"]).view(3, 1, 1), torch.tensor(cfg["std"]).view(3, 1, 1)


@torch.inference_mode()
def embed(model, mean, std, frames: np.ndarray, geometry: str) -> np.ndarray:
    x = to_square(torch.from_numpy(frames).permute(0, 3, 1, 2), 224, geometry)
    return model((x - mean) / std).numpy()


def read_list(path: Path) -> list[str]:
    return [line.split()[0] for line in path.read_text().splitlines() if line.strip()]


def geometry(videos: Path, clips: list[str], weights: Path, samples: int) -> list[dict]:
    labels = np.array([c.split("/")[0] for c in clips])
    groups = np.array([c.rsplit("_c", 1)[0] for c in clips])
    frames = [decode(videos / c, samples) for c in clips]
    rows = []
    for name in BACKBONES:
        model, mean, std = load(name, weights)
        for how in ("squash", "letterbox", "crop"):
            started = time.perf_counter()
            x = np.stack([embed(model, mean, std, f, how).mean(0) for f in frames])
            folds = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(x, labels, groups)
            right = 0
            for train, held in folds:
                head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=0.01))
                right += int((head.fit(x[train], labels[train]).predict(x[held]) == labels[held]).sum())
            rows.append(
                {
                    "backbone": name,
                    "geometry": how,
                    "n": len(clips),
                    "correct": right,
                    "accuracy": right / len(clips),
                    "seconds": time.perf_counter() - started,
                }
            )
            print(rows[-1], flush=True)
    return rows


def jpegs(frames: np.ndarray, short: int, quality: int, subsampling: int) -> list[bytes]:
    h, w = frames.shape[1:3]
    s = min(1.0, short / min(h, w))
    out = []
    for f in frames:
        image = Image.fromarray(f)
        if s < 1:
            image = image.resize((round(w * s), round(h * s)), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
        out.append(buffer.getvalue())
    return out


def encoding(videos: Path, clips: list[str], weights: Path, samples: int) -> dict:
    torch.set_num_threads(1)
    model, mean, std = load("vit_tiny_patch16_224", weights)
    rows = {}
    video_bytes, video_s = [], []
    for c in clips:
        video_bytes.append((videos / c).stat().st_size)
        started = time.perf_counter()
        frames = decode(videos / c, samples)
        video_s.append(time.perf_counter() - started)
        base = embed(model, mean, std, frames, "squash")
        for short in (224, 256, 288):
            for quality in (90, 95):
                for subsampling in (0, 2):
                    data = jpegs(frames, short, quality, subsampling)
                    started = time.perf_counter()
                    back = decode_frames(data)
                    seconds = time.perf_counter() - started
                    x = embed(model, mean, std, back.permute(0, 2, 3, 1).numpy(), "squash")
                    cos = (x * base).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(base, axis=1)
                    key = f"short{short}-q{quality}-{'444' if subsampling == 0 else '420'}"
                    r = rows.setdefault(key, {"bytes": [], "seconds": [], "cos": []})
                    r["bytes"].append(sum(map(len, data)))
                    r["seconds"].append(seconds)
                    r["cos"].append(float(cos.min()))
    out = {
        "n": len(clips),
        "video_bytes_median": float(np.median(video_bytes)),
        "video_decode_seconds_median": float(np.median(video_s)),
        "jpeg": {},
    }
    for key, r in rows.items():
        out["jpeg"][key] = {
            "bytes_per_clip_median": float(np.median(r["bytes"])),
            "decode_seconds_median": float(np.median(r["seconds"])),
            "times_faster_than_video": float(np.sum(video_s) / np.sum(r["seconds"])),
            "cosine_min": float(np.min(r["cos"])),
            "cosine_median": float(np.median(r["cos"])),
        }
        print(key, out["jpeg"][key], flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", type=Path)
    parser.add_argument("trainlist", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only-encoding", action="store_true", help="keep the geometry rows that --out holds")
    parser.add_argument("--step", type=int, default=2, help="use every STEP-th clip of the list for geometry")
    args = parser.parse_args()
    clips = read_list(args.trainlist)
    result = {
        "machine": machine(),
        "list": args.trainlist.name,
    }
    if args.only_encoding:
        result["geometry"] = json.loads(args.out.read_text())["geometry"]
    else:
        result["geometry"] = geometry(args.videos, clips[:: args.step], args.weights, samples=3)
    result["encoding"] = encoding(args.videos, clips[::40], args.weights, samples=20)
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
