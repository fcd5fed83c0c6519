"""The LSTM of wide inputs against PyTorch's own LSTM."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fitrec_cache.heads import recurrence
from fitrec_cache.heads.recurrence import KerasLSTM


@pytest.fixture(autouse=True)
def mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the shorter way in float32, too, whichever processor this is."""
    monkeypatch.setattr(recurrence, "mkl_is_held_back", lambda: False)


def trained(lstm: KerasLSTM, states: Tensor, weights: Tensor) -> list[Tensor]:
    """Return states and the gradients of all trained parameters."""
    lstm.zero_grad()
    (states * weights).sum().backward()
    return [states.detach(), *(p.grad.clone() for p in lstm.parameters() if p.grad is not None)]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("inputs", "units", "clips", "frames"), [(80, 5, 3, 7), (2048, 128, 32, 20), (32, 2, 1, 1)])
def test_wide_inputs_learn_as_in_pytorch(inputs: int, units: int, clips: int, frames: int, bidirectional: bool) -> None:
    torch.manual_seed(0)
    lstm = KerasLSTM(inputs, units, bidirectional=bidirectional)
    x = torch.randn(clips, frames, inputs)
    weights = torch.randn(clips, frames, units * (2 if bidirectional else 1)) / clips
    ours = trained(lstm, lstm.states(x), weights)
    theirs = trained(lstm, lstm(x)[0], weights)
    assert len(ours) == len(theirs) == (7 if bidirectional else 4)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_small_steps() -> None:
    torch.manual_seed(1)
    lstm = KerasLSTM(32, 2).double()
    x = torch.randn(2, 4, 32, dtype=torch.float64)
    learned = [p for p in lstm.parameters() if p.requires_grad]
    assert torch.autograd.gradcheck(lambda *_: lstm.states(x), learned)


@pytest.mark.parametrize("inputs", [128, 8])
def test_an_input_that_learns_gets_its_gradient(inputs: int) -> None:
    torch.manual_seed(2)
    lstm = KerasLSTM(inputs, 8)
    x = torch.randn(2, 3, inputs, requires_grad=True)
    lstm.states(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().min() > 0


def test_training_and_evaluation_agree() -> None:
    torch.manual_seed(3)
    lstm = KerasLSTM(160, 10, bidirectional=True)
    x = torch.randn(4, 6, 160)
    with torch.inference_mode():
        tested = lstm.states(x)
    torch.testing.assert_close(lstm.states(x), tested, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("inputs", [512, 64], ids=["wide", "narrow"])
def test_products_in_bfloat16_learn_nearly_the_same_and_test_exactly_the_same(inputs: int) -> None:
    torch.manual_seed(4)
    lstm = KerasLSTM(inputs, 16, bidirectional=True)
    x, weights = torch.randn(8, 5, inputs), torch.randn(8, 5, 32)
    exact = trained(lstm, lstm(x)[0], weights)
    with torch.inference_mode():
        tested = lstm.states(x)
    with torch.autocast("cpu", torch.bfloat16):
        states = lstm.states(x)
    rounded = trained(lstm, states.float(), weights)
    assert [found.dtype for found in rounded] == [torch.float32] * 7
    for mine, other in zip(rounded, exact, strict=True):
        error = float((mine - other).norm() / other.norm())
        assert 1e-5 < error < 1e-2  # bfloat16 keeps 8 bits: 0.004 at most a number, less on average of many
    with torch.inference_mode():
        assert torch.equal(lstm.states(x), tested)


@pytest.mark.parametrize("held_back", [True, False])
def test_where_mkl_is_held_back_only_bfloat16_takes_the_shorter_way(
    monkeypatch: pytest.MonkeyPatch, held_back: bool
) -> None:
    lstm, x = KerasLSTM(64, 4), torch.randn(2, 3, 64)
    ways: list[Tensor] = []
    short = KerasLSTM._states_of_wide

    def noted(self: KerasLSTM, x: Tensor, way: str) -> Tensor:
        ways.append(x)
        return short(self, x, way)

    monkeypatch.setattr(KerasLSTM, "_states_of_wide", noted)
    monkeypatch.setattr(recurrence, "mkl_is_held_back", lambda: held_back)
    plain = lstm.states(x)
    assert len(ways) == (0 if held_back else 1)
    torch.testing.assert_close(plain, lstm(x)[0], rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        lstm.states(x)
    assert len(ways) == (1 if held_back else 2)
