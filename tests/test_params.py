from __future__ import annotations

import json

import pytest
import torch

from fitrec_cache.errors import UsageError
from fitrec_cache.params import ParamsReport, params
from fitrec_cache.texts import params_text


@pytest.fixture(scope="module")
def report() -> ParamsReport:
    return params()


def test_table_one_is_reproduced_where_it_can_be(report: ParamsReport) -> None:
    got = {row.name: (row.paper_total, row.total, row.paper_trainable, row.trainable) for row in report.variants}
    assert got["convlstm"] == (133_835,) * 4
    assert got["vit-lstm"] == (87_636_195, 87_636_195, 215_523, 215_523)
    assert got["resnet50-lstm-attention"] == (27_852_579, 27_852_579, 27_799_459, 27_799_459)
    assert got["efficientnet-lstm-attention"] == (9_595_590, 9_593_030, 9_553_567, 9_551_007)
    assert got["lrcn"][0] is None
    assert got["lrcn"][2] is None


def test_parts_are_what_keras_reports(report: ParamsReport) -> None:
    """Keras' published counts: ResNet50 23,587,712 and EfficientNetB0 4,049,571 without top; heads by hand."""
    rows = {row.name: row for row in report.variants}
    resnet_head = 4 * (8192 * 128 + 128 * 128 + 128) + 128 * 35 + 35
    assert rows["resnet50-lstm-attention"].total - resnet_head == 23_587_712
    efficient_head = 4 * (5120 * 256 + 256 * 256 + 256) + (256 * 128 + 128) + (128 * 35 + 35)
    assert rows["efficientnet-lstm-attention"].total - efficient_head == 4_049_571
    assert rows["vit-lstm"].total - 215_523 == 87_420_672


def test_torch_counts_differ_by_biases_statistics_and_second_bias(report: ParamsReport) -> None:
    rows = {row.name: row for row in report.variants}
    assert rows["resnet50-lstm-attention"].torch_total == 27_852_579 - 26_560 - 53_120 + 4 * 128
    assert rows["efficientnet-lstm-attention"].torch_total == 9_593_030 - 42_016 - 7 + 4 * 256
    assert rows["vit-lstm"].torch_total == 87_636_195 + 4 * 64
    assert rows["vit-lstm"].torch_trainable == 215_523


def test_head_trainable_is_what_the_program_trains(report: ParamsReport) -> None:
    got = {row.name: row.head_trainable for row in report.variants}
    eq9 = {units: units * units + 2 * units + 1 for units in (64, 128, 256)}
    assert got == {
        "convlstm": 133_835,
        "vit-lstm": 215_523,
        "resnet50-lstm-attention": 4 * (2048 * 128 + 128 * 128 + 128) + eq9[128] + 129 * 35,
        "efficientnet-lstm-attention": 4 * (1280 * 256 + 256 * 256 + 256) + eq9[256] + 257 * 128 + 129 * 35,
        "lrcn": (27 * 16 + 16)
        + (144 * 32 + 32)
        + (288 * 64 + 64)
        + (576 * 64 + 64)
        + 4 * (64 * 64 + 64 * 64 + 64)
        + eq9[64]
        + 65 * 35,
    }


def test_each_difference_is_explained(report: ParamsReport) -> None:
    notes = {row.name: row.note for row in report.variants}
    assert "2,560 short" in notes["efficientnet-lstm-attention"]
    assert "2 x 1,280 = 20 x 128" in notes["efficientnet-lstm-attention"]
    assert all("Equals the table" in notes[name] for name in ("convlstm", "vit-lstm", "resnet50-lstm-attention"))


def test_json_and_text_show_the_same_numbers(report: ParamsReport) -> None:
    rows = json.loads(json.dumps(report.to_dict()))["variants"]
    needed = {"name", "paper_total", "paper_trainable", "total", "trainable", "head_trainable"}
    lines = {line.split()[0]: line for line in reversed(params_text(report).splitlines()) if line}
    for row in rows:
        assert needed <= row.keys()
        for key in needed - {"name"}:
            assert ("-" if row[key] is None else f"{row[key]:,}") in lines[row["name"]].split()
    assert max(map(len, params_text(report).splitlines()[:8])) <= 120


def test_every_number_is_below_its_title(report: ParamsReport) -> None:
    lines = params_text(report).splitlines()
    assert " ".join(lines[1].split()) == "variant total ours trainable ours total trainable head only"
    line = next(line for line in lines if line.startswith("efficientnet-lstm-attention "))
    row = next(row for row in report.variants if row.name == "efficientnet-lstm-attention")
    expected = [9_595_590, 9_593_030, 9_553_567, 9_551_007, row.torch_total, row.torch_trainable, row.head_trainable]
    assert line.split()[1:] == [f"{n:,}" for n in expected]


def test_what_pytorch_counts_otherwise_is_told(report: ParamsReport) -> None:
    (note,) = (row.note for row in report.variants if row.name == "resnet50-lstm-attention")
    assert note.endswith(
        "PyTorch: 26,560 convolution biases fewer, 53,120 untrainable statistics (batch norm, input) fewer, "
        "512 more for the LSTM's second bias (held at zero)."
    )


def test_other_numbers_of_classes_change_only_the_last_layer() -> None:
    rows = {row.name: row for row in params(classes=101).variants}
    assert rows["vit-lstm"].total == 87_636_195 + (101 - 35) * 65
    assert rows["convlstm"].total == 133_835 + (101 - 35) * 2881
    assert "Counted for 101 classes" in rows["vit-lstm"].note
    with pytest.raises(UsageError, match="Table I has 35"):
        params(classes=1)


def test_counting_leaves_the_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    params()
    assert torch.equal(before, torch.random.get_rng_state())
