"""What the paper says, and prints of its results: Nishat, Deb and Ahmed, arXiv 2509.02511; Table I is in ``params``."""

from __future__ import annotations

from dataclasses import dataclass

CITATION = "Nishat, Deb and Ahmed, arXiv 2509.02511"
ADDRESS = "https://arxiv.org/abs/2509.02511"

#: Height and width in pixels of the frames that the paper keeps (section III-B).
FRAME_SIDE = 64

#: How many classes of UCF101 it takes.
CLASSES = 35

#: Test clips of Table II: the only number (below 1,352) of which all its percentages are whole clips. It is no fifth of
#: 35 classes of UCF101, whose 35 smallest have 3,923 clips: 16 % of 4,225, as a validation side has (section IV-A).
TEST_CLIPS = 676


@dataclass(frozen=True, kw_only=True)
class PaperResult:
    """A row of Table II; rates in ``[0, 1]`` as printed, one run on 35 UCF101 classes.

    Precision, recall and F1 are weighted by class support, as recall = accuracy in every row shows.
    """

    variant: str
    model: str
    accuracy: float
    top5_accuracy: float
    precision: float
    recall: float
    f1: float


TABLE_II = (
    PaperResult(
        variant="lrcn", model="LRCN", accuracy=0.7382, top5_accuracy=0.9112, precision=0.7549, recall=0.7382, f1=0.7357
    ),
    PaperResult(
        variant="vit-lstm",
        model="ViT+LSTM",
        accuracy=0.8861,
        top5_accuracy=0.9571,
        precision=0.8922,
        recall=0.8861,
        f1=0.8853,
    ),
    PaperResult(
        variant="efficientnet-lstm-attention",
        model="EffNet+Attn",
        accuracy=0.9201,
        top5_accuracy=0.9704,
        precision=0.9237,
        recall=0.9201,
        f1=0.9188,
    ),
    PaperResult(
        variant="resnet50-lstm-attention",
        model="ResNet50+Attn",
        accuracy=0.9334,
        top5_accuracy=0.9704,
        precision=0.9359,
        recall=0.9334,
        f1=0.9323,
    ),
)
