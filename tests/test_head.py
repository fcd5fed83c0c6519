"""The heads against second implementations in numpy, and against counts worked out by hand."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from fitrec_cache.errors import DivergedError, UsageError
from fitrec_cache.heads.convolutional import ConvLSTM2d, FrameConvolutions
from fitrec_cache.heads.head import (
    AdditiveAttention,
    FrameDropout,
    NormalisedHead,
    add_differences,
    build_head,
    count_trainable,
    dot_weights,
)
from fitrec_cache.heads.normalisation import Normalisation, PosesApart, _principal
from fitrec_cache.heads.recurrence import KerasLSTM
from fitrec_cache.settings.variants import ATTENTIONS, VARIANTS, HeadConfig

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def weights_of(module: nn.Module) -> dict[str, Array]:
    return {name: value.detach().numpy().astype(np.float64) for name, value in module.state_dict().items()}


def numpy_lstm(x: Array, w: dict[str, Array], units: int) -> Array:
    """One clip (T, d) -> states (T, u), one bias, gates in the order input, forget, candidate, output."""
    h, c, states = np.zeros(units), np.zeros(units), []
    for step in x:
        z = w["lstm.weight_ih_l0"] @ step + w["lstm.weight_hh_l0"] @ h + w["lstm.bias_ih_l0"]
        i, f, g, o = (z[k * units : (k + 1) * units] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.stack(states)


def clip_batch(name: str, batch: int, *, dim: int = 6, frames: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if VARIANTS[name].takes_pixels:
        return torch.randint(0, 256, (batch, frames, 64, 64, 3), generator=generator, dtype=torch.uint8)
    return torch.randn(batch, frames, dim, generator=generator)


def make(name: str, *, attention: str | None = None, classes: int = 4, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_head(HeadConfig(variant=name, n_classes=classes, input_dim=6, attention=attention, frames=5))


def randomise(head: nn.Module) -> None:
    """Move biases off zero, so that a bias used wrongly shows; the LSTM's second one stays as it is."""
    with torch.no_grad():
        for parameter in head.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_vector_head_equals_numpy(attention: str) -> None:
    head = make("vit-lstm", attention=attention)
    randomise(head)
    w = weights_of(head)
    x = clip_batch("vit-lstm", 3)
    logits, attended = head(x)
    for clip, got, got_weights in zip(x.double().numpy(), logits, attended, strict=True):
        states = numpy_lstm(clip, w, 64)
        if attention == "additive":
            hidden = np.maximum(states @ w["attend.hidden.weight"].T + w["attend.hidden.bias"], 0)
            a = softmax((hidden @ w["attend.score.weight"].T + w["attend.score.bias"])[:, 0])
            pooled = (a[:, None] * states).mean(axis=0)  # Eq. 9, then global average pooling
        elif attention == "dot":
            rows = softmax(states @ states.T)
            a, pooled = rows.mean(axis=0), (rows @ states).mean(axis=0)
        else:
            a, pooled = np.array([0, 0, 0, 0, 1.0]), states[-1]
        expected = w["classify.0.weight"] @ pooled + w["classify.0.bias"]
        np.testing.assert_allclose(got.detach().numpy(), expected, atol=2e-6)
        np.testing.assert_allclose(got_weights.detach().numpy(), a, atol=1e-6)


def test_additive_attention_by_hand() -> None:
    """Two states of two units, W_h the identity, W_a = (1, 2): scores 1 and 1 + ln 3, so odds of 1 to 3."""
    attend = AdditiveAttention(2)
    with torch.no_grad():
        attend.hidden.weight.copy_(torch.eye(2))
        attend.score.weight.copy_(torch.tensor([[1.0, 2.0]]))
    half_log3 = float(np.log(3)) / 2
    states = torch.tensor([[[1.0, -1.0], [-3.0, 0.5 + half_log3]]])  # scores 1 and 1 + ln 3
    torch.testing.assert_close(attend(states), torch.tensor([[0.25, 0.75]]))


def test_dot_weights_by_hand() -> None:
    """H = [a, 0] with a^2 = ln 3: rows softmax(ln 3, 0) = (3/4, 1/4) and softmax(0, 0) = (1/2, 1/2)."""
    a = float(np.sqrt(np.log(3)))
    torch.testing.assert_close(dot_weights(torch.tensor([[[a], [0.0]]])), torch.tensor([[0.625, 0.375]]))


def test_mean_head_is_a_mean_and_a_dense_layer() -> None:
    head = make("mean")
    w = weights_of(head)
    x = clip_batch("mean", 2)
    logits, attended = head(x)
    expected = x.double().numpy().mean(axis=1) @ w["classify.weight"].T + w["classify.bias"]
    np.testing.assert_allclose(logits.detach().numpy(), expected, atol=1e-6)
    assert torch.allclose(attended, torch.full((2, 5), 0.2))
    assert torch.allclose(head(x.flip(1))[0], logits, atol=1e-6)  # order cannot matter


def test_hidden_dense_layer_has_a_relu() -> None:
    head = make("efficientnet-lstm-attention", attention="none")
    w = weights_of(head)
    x = clip_batch("efficientnet-lstm-attention", 1)
    state = numpy_lstm(x[0].double().numpy(), w, 256)[-1]
    hidden = np.maximum(w["classify.0.weight"] @ state + w["classify.0.bias"], 0)
    assert (hidden == 0).any()
    expected = w["classify.2.weight"] @ hidden + w["classify.2.bias"]
    np.testing.assert_allclose(head(x)[0][0].detach().numpy(), expected, atol=1e-6)


def naive_convolution(image: Array, kernel: Array, pad: int) -> Array:
    image = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    height, width = image.shape[1] - 2, image.shape[2] - 2
    out = np.zeros((kernel.shape[0], height, width))
    for f in range(kernel.shape[0]):
        for y in range(height):
            for x in range(width):
                out[f, y, x] = (image[:, y : y + 3, x : x + 3] * kernel[f]).sum()
    return out


def test_convlstm_equals_a_naive_loop() -> None:
    torch.manual_seed(1)
    layer = ConvLSTM2d(2, 3)
    randomise(layer)
    w = weights_of(layer)
    x = torch.randn(2, 4, 2, 6, 5)
    for clip, got in zip(x.double().numpy(), layer(x), strict=True):
        h, c = np.zeros((3, 4, 3)), np.zeros((3, 4, 3))
        for frame, state in zip(clip, got, strict=True):
            z = naive_convolution(frame, w["input.weight"], 0) + w["input.bias"][:, None, None]
            z += naive_convolution(h, w["recurrent.weight"], 1)
            i, f, g, o = z[0:3], z[3:6], z[6:9], z[9:12]
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            np.testing.assert_allclose(state.detach().numpy(), h, atol=1e-6)


def test_convlstm_sizes_and_counts_are_table_ones() -> None:
    head = build_head(HeadConfig(variant="convlstm", n_classes=35))
    layers = [count_trainable(module) for module in head.modules() if isinstance(module, ConvLSTM2d)]
    assert layers == [1_024, 3_488, 11_144, 17_344]
    assert count_trainable(head) == 133_835


@pytest.mark.parametrize(("inputs", "units"), [(768, 64), (2048, 128), (3, 5)])
def test_lstm_has_keras_count(inputs: int, units: int) -> None:
    assert count_trainable(KerasLSTM(inputs, units)) == 4 * (inputs * units + units**2 + units)


def test_lstm_starts_as_keras_does() -> None:
    torch.manual_seed(0)
    w = {name: value.detach() for name, value in KerasLSTM(40, 16).named_parameters()}
    assert w["bias_ih_l0"].tolist() == [0.0] * 16 + [1.0] * 16 + [0.0] * 32
    torch.testing.assert_close(w["weight_hh_l0"].T @ w["weight_hh_l0"], torch.eye(16), atol=1e-5, rtol=0)
    limit = (6 / (40 + 4 * 16)) ** 0.5  # Glorot uniform on Keras' (inputs, 4 units) kernel
    assert 0.95 * limit < float(w["weight_ih_l0"].abs().max()) <= limit


@pytest.mark.parametrize(
    ("variant", "attention", "count"),
    [
        ("vit-lstm", "none", 213_248 + 2_275),
        ("vit-lstm", "additive", 213_248 + (64 * 64 + 64) + (64 + 1) + 2_275),
        ("vit-lstm", "dot", 213_248 + 2_275),
        ("mean", None, 769 * 35),
    ],
)
def test_counts_by_hand(variant: str, attention: str | None, count: int) -> None:
    config = HeadConfig(variant=variant, attention=attention, n_classes=35, input_dim=768)
    assert count_trainable(build_head(config)) == count


@pytest.mark.parametrize("variant", [name for name, variant in VARIANTS.items() if variant.lstm_units])
def test_second_bias_stays_zero(variant: str) -> None:
    head = make(variant)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.1, weight_decay=0.1)
    before = {name: value.clone() for name, value in head.named_parameters()}
    logits, _ = head(clip_batch(variant, 2))
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    optimiser.step()
    after = dict(head.named_parameters())
    assert not after["lstm.bias_hh_l0"].any()
    assert not torch.equal(after["lstm.bias_ih_l0"], before["lstm.bias_ih_l0"])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_clip_is_the_same_alone_and_in_a_batch(name: str) -> None:
    head = make(name).eval()
    x = clip_batch(name, 3)
    with torch.inference_mode():
        logits, attention = head(x)
        for index in range(3):
            alone, weights = head(x[index : index + 1])
            torch.testing.assert_close(alone[0], logits[index], atol=1e-6, rtol=0)
            torch.testing.assert_close(weights[0], attention[index], atol=1e-6, rtol=0)
    assert logits.shape == (3, 4)
    assert not torch.allclose(logits[0], logits[1], atol=1e-5)
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(3))


@pytest.mark.parametrize("name", ["lrcn", "convlstm"])
def test_pixels_are_divided_by_255_once(name: str) -> None:
    head = make(name).eval()
    x = clip_batch(name, 1)
    with torch.inference_mode():
        torch.testing.assert_close(head(x)[0], head(x / 255)[0], atol=1e-6, rtol=0)
        changed = x.clone()
        changed[0, -1] = 0
        assert not torch.allclose(head(changed)[0], head(x)[0])


def test_lrcn_reads_colours_and_rows_in_their_order() -> None:
    """A filter that looks at red only answers at the place of the red pixel, and nowhere else."""
    embed = FrameConvolutions()
    first = embed.layers[0]
    assert isinstance(first, nn.Conv2d)
    with torch.no_grad():
        first.weight.zero_()
        first.weight[0, 0, 1, 1] = 1  # output 0 = red at the same place
    frames = torch.zeros(1, 1, 64, 64, 3, dtype=torch.uint8)
    frames[0, 0, 10, 20] = torch.tensor([255, 7, 9], dtype=torch.uint8)
    seen: list[torch.Tensor] = []
    first.register_forward_hook(lambda module, args, output: seen.append(output.clone()))
    embed(frames)
    assert seen[0][0, 0].nonzero().tolist() == [[10, 20]]
    assert float(seen[0][0, 0, 10, 20].detach()) == 1.0


def test_the_same_seed_builds_the_same_head() -> None:
    for name in VARIANTS:
        one, two, other = make(name), make(name), make(name, seed=1)
        x = clip_batch(name, 1)
        assert torch.equal(one(x)[0], two(x)[0])
        assert not torch.equal(one(x)[0], other(x)[0])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_trainable_parameter_learns(name: str) -> None:
    head = make(name)
    logits, _ = head(clip_batch(name, 3))
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    idle = [
        parameter_name
        for parameter_name, parameter in head.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.abs().max() > 1e-9)
    ]
    assert set(idle) <= {"attend.score.bias"}  # Eq. 9's b_a, which softmax cancels


def test_config_survives_json_values() -> None:
    config = HeadConfig(variant="lrcn", n_classes=3)
    assert config.to_dict() == {
        "variant": "lrcn",
        "n_classes": 3,
        "input_dim": 0,
        "attention": "additive",  # spelled out, so a changed default cannot change a stored run
        "frames": 20,
        "normalise": "none",
        "components": 0,
        "differences": False,
        "bidirectional": False,
        "pooling": "average",
        "skip_mean": False,
        "input_dropout": 0.0,
        "dropout": 0.0,
    }
    assert HeadConfig.from_dict(config.to_dict()) == config


#: Of eight values per frame the last three are poses.
POSES = {
    "variant": "mean",
    "n_classes": 3,
    "input_dim": 8,
    "normalise": "pca",
    "components": 2,
    "pose_dim": 3,
}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"variant": "resnet50-lstm-atention", "n_classes": 3}, "Did you mean 'resnet50-lstm-attention'"),
        ({"variant": "mean", "n_classes": 3, "inputdim": 8}, "unknown head setting 'inputdim'.*'input_dim'"),
        ({"variant": "vit-lstm", "n_classes": 3, "input_dim": 8, "attention": "dott"}, "Did you mean 'dot'"),
        ({"variant": "mean", "n_classes": 3, "input_dim": 8, "attention": "dot"}, "'mean': it has no LSTM"),
        ({"variant": "convlstm", "n_classes": 3, "attention": "additive"}, "'convlstm': it has no LSTM"),
        ({"variant": "mean", "n_classes": 1, "input_dim": 8}, "n_classes 1: expected .* at least 2"),
        ({"variant": "mean", "n_classes": "3", "input_dim": 8}, "n_classes '3'"),
        ({"variant": "mean", "n_classes": 3}, "input_dim 0: expected .* at least 1"),
        ({"variant": "convlstm", "n_classes": 3, "frames": 0}, "frames 0"),
        ({"variant": "mean"}, "lack n_classes"),
        ({"variant": "mean", "n_classes": 3, "input_dim": 8, "pose_dim": 3}, "pose_dim 3 with normalise 'none' and 8"),
        (POSES | {"pose_dim": 9}, "pose_dim 9 with normalise 'pca' and 8 values per frame: expected at most all"),
        (POSES | {"components": 6}, "components 6: features have only 5 values per frame"),
        (POSES | {"components": 0}, "normalise 'pca' needs components"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        HeadConfig.from_dict(values)


@pytest.mark.parametrize(
    ("name", "x", "message"),
    [
        ("mean", torch.zeros(2, 5, 7), r"\(2, 5, 7\): expected \(B, T, 6\)"),
        ("vit-lstm", torch.zeros(5, 6), r"\(5, 6\)"),
        ("vit-lstm", torch.zeros(2, 5, 6, dtype=torch.int64), "features of type torch.int64"),
        ("lrcn", torch.zeros(2, 5, 3, 64, 64), r"expected \(B, T, 64, 64, 3\)"),
        ("lrcn", torch.zeros(1, 5, 64, 64, 3, dtype=torch.int64), "frames of type torch.int64"),
        ("convlstm", torch.zeros(1, 4, 64, 64, 3), "clips of 4 frames: expected 5"),
    ],
)
def test_wrong_input_is_refused(name: str, x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name)(x)


def test_stage_two_does_not_touch_video_or_backbones() -> None:
    code = "import sys, fitrec_cache.heads.head; print(sorted({'av', 'timm', 'h5py'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_do_not_need_torch() -> None:
    code = "import sys, fitrec_cache.settings.variants; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def frames_of(n: int, d: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator)
    return torch.randn(n, d, generator=generator) @ mix + 5 * torch.randn(d, generator=generator)


def test_standard_normalisation_has_mean_0_and_variance_1() -> None:
    x = frames_of(400, 6)
    layer = Normalisation("standard", 6, 0)
    layer.fit(x.clone())
    y = layer(x[None])[0]
    torch.testing.assert_close(y.mean(dim=0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(dim=0, unbiased=False), torch.ones(6))
    constant = Normalisation("standard", 2, 0)
    constant.fit(torch.tensor([[1.0, 3.0], [2.0, 3.0]]))
    assert constant(torch.tensor([[[1.0, 3.1]]])).tolist() == [[[-1, 0]]]  # the second never changed
    uneven = Normalisation("standard", 2, 0)
    uneven.fit(torch.tensor([[-4000.0, -1.0], [4000.0, 1.0]]))
    assert uneven(torch.tensor([[[4000.0, 1.0]]])).tolist() == [[[1, 0.25]]]  # made at most 1000 times larger


def test_a_value_that_differs_by_rounding_only_has_no_effect() -> None:
    """Of 1000 the next number in float32 is 6e-5 away: as much as the other value varies."""
    layer = Normalisation("standard", 2, 0)
    layer.fit(torch.tensor([[1000.0, -6e-5], [1000.0 + 2**-14, 6e-5]]))
    assert layer(torch.tensor([[[1001.0, 6e-5]]])).tolist() == [[[0, pytest.approx(1)]]]


def test_the_largest_entry_of_each_component_is_positive() -> None:
    """Whichever sign LAPACK gives it."""
    layer = Normalisation("pca", 12, 8)
    layer.fit(frames_of(400, 12))
    largest = layer.scale.gather(0, layer.scale.abs().argmax(dim=0, keepdim=True))
    assert (largest > 0).all()


def test_a_direction_in_which_training_clips_do_not_differ_has_no_effect() -> None:
    """As of three vectors, whose differences lie in a plane."""
    layer = Normalisation("whiten", 5, 3)
    layer.fit(frames_of(3, 5))
    found = layer(frames_of(50, 5, seed=1)[None])[0]  # (50, 3)
    assert found[:, :2].std(dim=0).min() > 0.1
    assert not found[:, 2].any()


def test_directions_of_few_clips_are_found_in_float64() -> None:
    """In float32 they are less square to each other, and where many have no variance LAPACK may fail."""
    torch.manual_seed(0)
    clips = torch.relu(torch.randn(6, 1, 512) + 0.05 * torch.randn(6, 20, 512)).reshape(-1, 512)
    _, basis = _principal(clips - clips.mean(dim=0), 100)
    assert basis.dtype == torch.float32
    products = basis.double().T @ basis.double()
    assert float((products - torch.eye(100)).abs().max()) < 2e-7


@pytest.mark.parametrize(
    ("kind", "inputs"), [("standard", 6), ("pca", 6), ("whiten", 6), ("pca", 5000), ("whiten", 5000)]
)
def test_features_too_large_to_be_normalised_are_refused(kind, inputs) -> None:
    with pytest.raises(DivergedError, match=r"features up to .*e\+2\d are too large to be normalised"):
        Normalisation(kind, inputs, 3).fit(frames_of(40, inputs) * 1e25)


def test_more_components_than_vectors_are_refused_in_words() -> None:
    with pytest.raises(UsageError, match="components is 50, but for features this long only 40 vectors are used"):
        Normalisation("pca", 5000, 50).fit(frames_of(40, 5000))


def test_the_projection_of_long_vectors_leaves_the_random_numbers_of_gpus_alone(monkeypatch) -> None:
    """A training on one draws from them after its seed was set."""
    seeded: list[int] = []
    monkeypatch.setattr("torch.cuda.manual_seed_all", seeded.append)
    torch.manual_seed(7)
    Normalisation("pca", 5000, 3).fit(frames_of(40, 5000))
    assert seeded == [7]


def test_leading_components_of_long_vectors_are_those_of_an_exact_decomposition() -> None:
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(5000, 3)))[0]  # (d, 3)
    x = rng.normal(size=(200, 3)) * [9, 5, 3] @ directions.T + rng.normal(0, 0.005, (200, 5000))
    normalise = Normalisation("pca", 5000, 3)
    normalise.fit(torch.from_numpy(x).float())
    exact = PCA(3, svd_solver="full").fit(x)
    scale = np.sqrt((exact.singular_values_**2 / 200).mean())
    expected = exact.transform(x) / scale
    found = normalise(torch.from_numpy(x).float()[None])[0].numpy()
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=2e-3)
    again = Normalisation("pca", 5000, 3)
    torch.manual_seed(99)
    again.fit(torch.from_numpy(x).float())
    assert torch.equal(again.scale, normalise.scale)


def test_the_projection_keeps_the_variance_where_it_falls_slowly() -> None:
    """As that of images does, by a power of the number of the component."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(4500, 300)))[0]  # (d, 300)
    x = rng.normal(size=(600, 300)) * np.arange(1, 301) ** -0.5 @ directions.T
    x -= x.mean(axis=0)
    _, basis = _principal(torch.from_numpy(x).float(), 20)
    best = (np.linalg.svd(x, compute_uv=False)[:20] ** 2).sum()
    assert float((torch.from_numpy(x).float() @ basis).square().sum()) >= 0.999 * best


def test_principal_components_are_those_of_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    x = frames_of(500, 8)
    layer = Normalisation("whiten", 8, 3)
    layer.fit(x.clone())
    theirs = torch.from_numpy(PCA(3, whiten=True, svd_solver="full").fit_transform(x.numpy())) * (500 / 499) ** 0.5
    ours = layer(x[None])[0]
    torch.testing.assert_close(ours.abs(), theirs.abs(), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(ours.T @ ours / 500, torch.eye(3), atol=1e-3, rtol=0)
    plain = Normalisation("pca", 8, 3)
    plain.fit(x.clone())
    y = plain(x[None])[0]
    assert float(y.square().mean()) == pytest.approx(1, rel=1e-3)  # one scale for all: the first stays the largest
    assert y.std(dim=0).tolist() == sorted(y.std(dim=0).tolist(), reverse=True)


def test_a_head_behind_a_normalisation_takes_features_as_they_are_cached() -> None:
    config = HeadConfig(variant="vit-lstm", n_classes=3, input_dim=6, normalise="pca", components=2)
    head = build_head(config)
    assert isinstance(head, NormalisedHead)
    x = torch.randn(4, 5, 6)
    head.normalise.fit(x.flatten(0, 1).clone())
    logits, weights = head(x)
    torch.testing.assert_close(logits, head.head(head.normalise(x))[0])
    assert (logits.shape, weights.shape) == ((4, 3), (4, 5))
    assert not any(p.requires_grad for p in head.normalise.parameters())


def test_poses_are_scaled_by_themselves_and_their_variation_is_added() -> None:
    """By hand: both values have mean 5 and deviation 3 over all frames, and in the clips 4 and 0, or 0 and 4."""
    clips = torch.tensor([[[0.0, 6.0], [8.0, 6.0]], [[6.0, 0.0], [6.0, 8.0]]])  # (2, 2, 2)
    layer = PosesApart(None, 2)
    layer.fit(clips.flatten(0, 1).clone())
    layer.fit_variation(clips)
    assert (layer.inputs, layer.outputs) == (2, 4)
    varied = [2 * (4 / 3 - 2 / 3), 2 * (0 - 2 / 3)]
    expected = [[-5 / 3, 1 / 3, *varied], [3 / 3, 1 / 3, *varied]]
    assert layer(clips)[0].tolist() == [pytest.approx(row, abs=1e-6) for row in expected]


def test_features_of_images_are_normalised_as_without_poses_but_count_less() -> None:
    images, poses = frames_of(400, 6).reshape(20, 20, 6), frames_of(400, 3, seed=1).reshape(20, 20, 3)
    both = torch.cat([images, poses], dim=2)
    alone, layer = Normalisation("pca", 6, 4), PosesApart(Normalisation("pca", 6, 4), 3)
    alone.fit(images.flatten(0, 1).clone())
    layer.fit(both.flatten(0, 1).clone())
    layer.fit_variation(poses)
    found = layer(both)
    assert found.shape == (20, 20, layer.outputs)
    torch.testing.assert_close(found[..., :4], 0.15 * alone(images), atol=1e-5, rtol=1e-5)
    own = PosesApart(None, 3)
    own.fit(poses.flatten(0, 1).clone())
    own.fit_variation(poses)
    torch.testing.assert_close(found[..., 4:], own(poses))
    with pytest.raises(ValueError, match=r"expected \(B, T, 9\)"):
        layer(images)


@pytest.mark.parametrize("variant", ["mean", "vit-lstm"])
@pytest.mark.parametrize(("images", "kind"), [(0, "pca"), (5, "pca"), (5, "standard")])
def test_a_head_with_poses_sees_as_many_values_as_its_config_says(variant: str, images: int, kind: str) -> None:
    config = HeadConfig(
        variant=variant,
        n_classes=3,
        input_dim=images + 3,
        pose_dim=3,
        normalise=kind,
        components=min(images, 2) if kind == "pca" else 0,
    )
    head = build_head(config)
    assert isinstance(head, NormalisedHead)
    assert head.normalise.outputs == config.seen_dim == {0: 6, 2: 8, 5: 11}[min(images, 2) if kind == "pca" else images]
    assert HeadConfig.from_dict(config.to_dict()) == config
    logits, _ = head(torch.randn(2, 4, images + 3))
    assert logits.shape == (2, 3)


def test_differences_are_each_frames_change() -> None:
    x = torch.tensor([[[1.0, 5.0], [2.0, 3.0], [2.0, 4.0]]])
    assert add_differences(x).tolist() == [[[1, 5, 0, 0], [2, 3, 1, -2], [2, 4, 0, 1]]]


def test_frame_dropout_drops_the_same_values_in_all_frames() -> None:
    torch.manual_seed(0)
    layer = FrameDropout(0.25)
    y = layer(torch.ones(50, 7, 40))
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert float((y == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(layer.eval()(torch.ones(2, 3, 4)), torch.ones(2, 3, 4))


@pytest.mark.parametrize("where", ["dropout", "input_dropout"])
def test_each_dropout_has_an_effect_while_a_head_learns(where: str) -> None:
    settings = {"variant": "resnet50-lstm-attention", "n_classes": 3, "input_dim": 6}
    torch.manual_seed(0)
    head = build_head(HeadConfig(**settings, **{where: 0.5})).train()
    x = torch.randn(4, 5, 6)
    assert not torch.equal(head(x)[0], head(x)[0])
    assert torch.equal(*(head.eval()(x)[0] for _ in range(2)))


def test_the_dropout_of_a_mean_is_of_its_values_and_only_while_it_learns() -> None:
    torch.manual_seed(0)
    head = build_head(HeadConfig(variant="mean", input_dim=400, n_classes=2, input_dropout=0.25))
    with torch.no_grad():  # so that the logits count what is left, each 4 / 3 times as large
        head.classify.weight.copy_(torch.tensor([[1.0], [0.0]]).expand(2, 400))
        head.classify.bias.zero_()
    left = head.train()(torch.ones(50, 3, 400))[0][:, 0].detach() * 3 / 4
    assert left.numpy() == pytest.approx(left.round().numpy(), abs=1e-2)
    assert float(left.mean()) == pytest.approx(300, abs=5)
    assert float(left.std()) == pytest.approx((400 * 0.25 * 0.75) ** 0.5, rel=0.4)
    assert head.eval()(torch.ones(1, 3, 400))[0].tolist() == [[400, 0]]


def test_sum_pooling_is_the_papers_without_its_share_of_time() -> None:
    settings = {"variant": "resnet50-lstm-attention", "n_classes": 3, "input_dim": 6}
    torch.manual_seed(0)
    average = build_head(HeadConfig(**settings)).eval()
    total = build_head(HeadConfig(**settings, pooling="sum")).eval()
    total.load_state_dict(average.state_dict())
    x = torch.randn(2, 10, 6)
    bias = average.classify[0].bias
    torch.testing.assert_close(total(x)[0] - bias, 10 * (average(x)[0] - bias))


def test_both_directions_meet_where_each_has_read_everything() -> None:
    head = build_head(HeadConfig(variant="vit-lstm", n_classes=3, input_dim=4, bidirectional=True)).eval()
    x = torch.randn(2, 6, 4)
    states, _ = head.lstm(x)
    expected = torch.cat([states[:, -1, :64], states[:, 0, 64:]], dim=1)
    torch.testing.assert_close(head(x)[0], head.classify(expected))
    plain = build_head(HeadConfig(variant="vit-lstm", n_classes=3, input_dim=4, skip_mean=True)).eval()
    last = plain.lstm(x)[0][:, -1]
    torch.testing.assert_close(plain(x)[0], plain.classify(torch.cat([last, x.mean(dim=1)], dim=1)))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"normalise": "pcb"}, "unknown normalise"),
        ({"normalise": "pca"}, "normalise 'pca' needs components: set it to 1 or more"),
        ({"normalise": "pca", "components": 9}, "only 6 values"),
        ({"pooling": "max"}, "unknown pooling"),
        ({"dropout": 1.0}, "below 1"),
        ({"bidirectional": {"a": []}}, "expected true or false"),
        ({"variant": "lrcn", "normalise": "standard"}, "learns from frames"),
    ],
)
def test_impossible_recipes_are_refused(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        HeadConfig(**{"variant": "vit-lstm", "n_classes": 3, "input_dim": 6, **wrong})


def test_principal_components_are_those_of_torchs_threads_whatever_scipy_would_take():
    """Scipy brings threads of its own, as many as there are cores: another machine would give other bits."""
    program = """
import hashlib, torch
from fitrec_cache.heads.normalisation import Normalisation
torch.set_num_threads(1)
torch.manual_seed(0)
whiten = Normalisation("whiten", 1200, 512)
whiten.fit(torch.randn(1500, 1200) * torch.linspace(1, 0.01, 1200))
print(hashlib.sha256(whiten.scale.numpy().tobytes()).hexdigest())
"""
    found = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1


def test_dense_and_convolutional_layers_start_as_keras_does() -> None:
    """Glorot uniform by Keras' fans, biases zero but ConvLSTM's forget gate, whose recurrent kernel is orthogonal."""
    torch.manual_seed(0)
    for name in VARIANTS:
        head = build_head(HeadConfig(variant=name, n_classes=40, input_dim=300))
        cells = [module for module in head.modules() if isinstance(module, ConvLSTM2d)]
        forget = {id(cell.input): cell.filters for cell in cells}
        recurrent = {id(cell.recurrent) for cell in cells}
        for layer in head.modules():
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                continue
            weight = layer.weight.detach()
            if id(layer) in recurrent:
                rows = weight.flatten(1)
                torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)
                continue
            limit = (6 / (weight[0].numel() + len(weight) * weight[0, 0].numel())) ** 0.5
            assert 0.8 * limit < float(weight.abs().max()) <= limit * (1 + 1e-6), (name, layer)
            f = forget.get(id(layer), 0)
            assert layer.bias is not None
            assert layer.bias.tolist() == ([0.0] * f + [1.0] * f + [0.0] * 2 * f if f else [0.0] * len(weight)), name
