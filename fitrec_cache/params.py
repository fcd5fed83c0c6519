"""The paper's Table I beside the parameter counts of the models that this package builds.

Only the paper's own numbers are written down here: ours are counted in built modules (on the meta device, so nothing is
computed or allocated). Keras' counts differ from PyTorch's in four known ways, see :class:`TableRow`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import Plain
from fitrec_cache.errors import UsageError
from fitrec_cache.heads.head import build_head, count_trainable
from fitrec_cache.settings.paper import CLASSES, FRAME_SIDE
from fitrec_cache.settings.variants import VARIANTS, HeadConfig


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row of Table I, and the properties that the model must have had to give these counts.

    Keras' models differ from timm's: its ResNet50 has a bias in each convolution, its EfficientNetB0 counts the
    normalisation of its input (a mean and a variance per channel, one counter); it counts batch-norm statistics as
    (untrainable) parameters; its LSTM has one bias vector, where PyTorch has two.

    Args:
        variant: The variant that follows this row.
        total: The paper's total; None if Table I has no such row.
        trainable: The paper's trainable part.
        attention: The attention implied by the count.
        fine_tuned: Whether the backbone was trained as well.
        conv_biases: Whether Keras' backbone has convolution biases that timm's lacks.
        input_constants: Whether Keras' backbone counts the normalisation of its input.
        why: The properties that our model needs to give the count.
    """

    variant: str
    total: int | None
    trainable: int | None
    attention: str = "none"
    fine_tuned: bool = False
    conv_biases: bool = False
    input_constants: bool = False
    why: str


TABLE = (
    TableRow(
        variant="convlstm",
        total=133_835,
        trainable=133_835,
        why="ConvLSTM2D layers on 20 frames of 64x64, all states flattened into one dense layer.",
    ),
    TableRow(
        variant="vit-lstm",
        total=87_636_195,
        trainable=215_523,
        why="A frozen ViT-B/32 at 64x64 (not the text's 224), class token into the LSTM, no attention.",
    ),
    TableRow(
        variant="resnet50-lstm-attention",
        total=27_852_579,
        trainable=27_799_459,
        attention="dot",
        fine_tuned=True,
        conv_biases=True,
        why="ResNet50 fine-tuned at 64x64, last map flattened into the LSTM, attention without parameters (not Eq. 9).",
    ),
    TableRow(
        variant="efficientnet-lstm-attention",
        total=9_595_590,
        trainable=9_553_567,
        attention="dot",
        fine_tuned=True,
        input_constants=True,
        why="EfficientNetB0 fine-tuned at 64x64, last map flattened into the LSTM, attention without parameters.",
    ),
    TableRow(variant="lrcn", total=None, trainable=None, why="Not in Table I; the widths are this project's."),
)


@dataclass(frozen=True, kw_only=True)
class VariantParams:
    """Parameter counts of one variant.

    Args:
        name: The variant.
        paper_row: The paper's name of the model.
        paper_total: Table I's total; None if the table has no such row.
        paper_trainable: Table I's trainable part.
        total: Our count in Keras' convention, for the model that Table I describes.
        trainable: The trainable part of it; includes the backbone if the paper trained it.
        torch_total: Our count for the same model in PyTorch's convention (all parameters, no buffers).
        torch_trainable: The trainable part of it.
        head_trainable: The part that this program trains: the variant's head, with its own attention, on the pooled
            features of its default backbone, which stays frozen.
        note: The causes of the differences.
    """

    name: str
    paper_row: str
    paper_total: int | None
    paper_trainable: int | None
    total: int
    trainable: int
    torch_total: int
    torch_trainable: int
    head_trainable: int
    note: str


@dataclass(frozen=True, kw_only=True)
class ParamsReport(Plain):
    """The counts of all rows.

    Args:
        classes: Number of classes for our counts; the paper's are always for 35.
        variants: One entry per row, Table I's first.
    """

    classes: int
    variants: tuple[VariantParams, ...]


@plain_arguments
def params(*, classes: int = CLASSES) -> ParamsReport:
    """Count the parameters of the paper's models as built here, for comparison with Table I.

    Args:
        classes: Number of classes K, at least 2; Table I has 35.

    Returns:
        One entry for each row of Table I, and one for ``lrcn``, which that table lacks.

    Raises:
        UsageError: If ``classes`` is below 2.

    Source:
        Table I of Nishat et al., arXiv 2509.02511; ``TableRow.why`` says which model each total implies.
    """
    if classes < 2:
        raise UsageError(f"classes {classes}: expected at least 2; Table I has {CLASSES}")
    with torch.device("meta"):
        return ParamsReport(classes=classes, variants=tuple(_count(row, classes) for row in TABLE))


def _count(row: TableRow, classes: int) -> VariantParams:
    variant = VARIANTS[row.variant]
    backbone, flat, pooled = (None, 0, 0) if variant.takes_pixels else _backbone(variant.backbone)
    attention = variant.attention if variant.takes_pixels else row.attention
    head = build_head(HeadConfig(variant=row.variant, n_classes=classes, input_dim=flat, attention=attention))
    ours = build_head(HeadConfig(variant=row.variant, n_classes=classes, input_dim=pooled))
    extra, fixed = (0, 0) if backbone is None else keras_extra(backbone, row)
    weights = 0 if backbone is None else _numel(backbone)
    tuned = count_trainable(head) + (weights if row.fine_tuned else 0)
    counts = VariantParams(
        name=row.variant,
        paper_row=variant.paper_row,
        paper_total=row.total,
        paper_trainable=row.trainable,
        total=count_trainable(head) + weights + extra + fixed,
        trainable=tuned + (extra if row.fine_tuned else 0),
        torch_total=_numel(head) + weights,
        torch_trainable=tuned,
        head_trainable=count_trainable(ours),
        note="",
    )
    second_bias = _numel(head) - count_trainable(head)
    notes = (row.why, _against_paper(counts, classes), _against_torch(extra, fixed, second_bias))
    return replace(counts, note=" ".join(note for note in notes if note))


def _backbone(name: str) -> tuple[nn.Module, int, int]:
    """Return a timm model as used in Table I, and the lengths of its flattened last map and of its pooled vector."""
    from fitrec_cache.backbones.pretrained import build_empty  # timm takes a second to import

    is_vit = name.startswith("vit_")
    model: Any = build_empty(name, img_size=FRAME_SIDE if is_vit else None)
    model.eval()
    frame = torch.empty(1, 3, FRAME_SIDE, FRAME_SIDE)  # (1, 3, 64, 64)
    pooled = model(frame).shape[1]  # (1, d)
    flat = pooled if is_vit else model.forward_features(frame).flatten(1).shape[1]  # (1, 2 * 2 * d)
    return model, flat, pooled


def keras_extra(backbone: nn.Module, row: TableRow) -> tuple[int, int]:
    """Return how many parameters Keras counts that PyTorch's backbone does not have.

    Args:
        backbone: The timm model.
        row: The row that says which of Keras' peculiarities this backbone has.

    Returns:
        The number of trainable ones (convolution biases), and of untrainable ones (batch-norm statistics, input
        normalisation).
    """
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    biases = sum(layer.out_channels for layer in convolutions if layer.bias is None) if row.conv_biases else 0
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    statistics = sum(2 * norm.num_features for norm in norms)  # mean and variance
    constants = 2 * convolutions[0].in_channels + 1 if row.input_constants else 0  # mean and variance, one counter
    return biases, statistics + constants


def _numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _against_paper(counts: VariantParams, classes: int) -> str:
    if counts.paper_total is None or counts.paper_trainable is None:
        return ""
    if classes != CLASSES:
        return f"Counted for {classes} classes, the table for {CLASSES}."
    short, short_trainable = counts.paper_total - counts.total, counts.paper_trainable - counts.trainable
    if not short and not short_trainable:
        return "Equals the table."
    shares = " = ".join(f"{short // width:,} x {width:,}" for width in (1280, 128) if short % width == 0)
    return (
        f"{short:,} short of the table ({short_trainable:,} of them trainable), "
        f"which the text does not explain{f'; they equal {shares}' if shares else ''}."
    )


def _against_torch(biases: int, fixed: int, second_bias: int) -> str:
    parts = [
        f"{biases:,} convolution biases fewer" if biases else "",
        f"{fixed:,} untrainable statistics (batch norm, input) fewer" if fixed else "",
        f"{second_bias:,} more for the LSTM's second bias (held at zero)" if second_bias else "",
    ]
    listed = ", ".join(part for part in parts if part)
    return f"PyTorch: {listed}." if listed else ""
