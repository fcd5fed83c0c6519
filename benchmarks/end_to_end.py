"""Training end to end, as tutorials write it: every epoch decodes and embeds again; the backbone is frozen.

    python benchmarks/end_to_end.py WEIGHTS CLIP...

The same OpenCV loop and transforms as in plain.py, in a DataLoader with a process a core. Prints seconds a clip of one
epoch, from the first batch on.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from plain import load, read_clip, transform_for
from torch.utils.data import DataLoader, Dataset

from fitrec_cache.common.devices import cores
from fitrec_cache.heads.head import build_head
from fitrec_cache.settings.variants import HeadConfig

NAME, BATCH = "resnet50", 8


class Clips(Dataset):
    def __init__(self, paths: list[str], transform: object) -> None:
        self.paths, self.transform = paths, transform
        self.classes = sorted({Path(p).parent.name for p in paths})

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        path = Path(self.paths[i])
        return read_clip(path, self.transform), self.classes.index(path.parent.name)


def main() -> None:
    weights, *paths = sys.argv[1:]
    backbone = load(NAME, Path(weights))
    clips = Clips(paths, transform_for(backbone))
    head = build_head(HeadConfig(variant="resnet50-lstm-attention", n_classes=len(clips.classes), input_dim=2048))
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-4)
    with torch.no_grad():
        backbone(torch.zeros(20, 3, 224, 224))
    started = time.perf_counter()
    for x, y in DataLoader(clips, batch_size=BATCH, shuffle=True, num_workers=cores()):
        with torch.no_grad():
            features = backbone(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # (B, T, d)
        loss = F.cross_entropy(head(features)[0], y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    print((time.perf_counter() - started) / len(clips))


if __name__ == "__main__":
    main()
