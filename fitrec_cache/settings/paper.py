"""The paper's settings and printed results: Nishat, Deb and Ahmed, arXiv 2509.02511; Table I is in ``params``."""

from __future__ import annotations

from typing import NamedTuple

CITATION = "Nishat, Deb and Ahmed, arXiv 2509.02511"
ADDRESS = "https://arxiv.org/abs/2509.02511"

#: Height and width in pixels of the frames in the paper (section III-B); Table I's totals imply the same, although its
#: text says 224.
FRAME_SIDE = 64

#: Number of UCF101 classes in the paper, which Table I's totals imply too.
CLASSES = 35

#: Number of test clips behind Table II: the only number (below 1,352) for which all its percentages are whole clips. It
#: cannot be a fifth of 35 classes of UCF101, whose 35 smallest have 3,923 clips; it is 16 % of 4,225, the share of a
#: validation side (section IV-A).
TEST_CLIPS = 676


class PaperResult(NamedTuple):
    """A row of Table II; rates in ``[0, 1]`` as printed, from one run on 35 UCF101 classes.

    Precision, recall and F1 are weighted by class support; recall = accuracy in every row shows this.
    """

    variant: str
    model: str
    accuracy: float
    top5_accuracy: float
    precision: float
    recall: float
    f1: float


TABLE_II = (
    PaperResult("lrcn", "LRCN", 0.7382, 0.9112, 0.7549, 0.7382, 0.7357),
    PaperResult("vit-lstm", "ViT+LSTM", 0.8861, 0.9571, 0.8922, 0.8861, 0.8853),
    PaperResult("efficientnet-lstm-attention", "EffNet+Attn", 0.9201, 0.9704, 0.9237, 0.9201, 0.9188),
    PaperResult("resnet50-lstm-attention", "ResNet50+Attn", 0.9334, 0.9704, 0.9359, 0.9334, 0.9323),
)
