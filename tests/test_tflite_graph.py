from __future__ import annotations

import numpy as np
import pytest
import tflite
import torch
from make_tflite import Writer, conv

from fitrec_cache.backbones.tflite_graph import DAMAGED, TFLiteGraph

RELU, RELU6 = tflite.ActivationFunctionType.RELU, tflite.ActivationFunctionType.RELU6
RANDOM = np.random.default_rng(0)


def draw(*shape):
    return RANDOM.normal(0, 1, shape).astype("<f4")


def run(writer, output, x):
    """The output, channels last as in the file, for one picture ``(h, w, c)``."""
    shape = tuple(writer.tensors[output][0])[1:]
    graph = TFLiteGraph(writer.write(output), [shape])
    (y,) = graph(torch.from_numpy(x).permute(2, 0, 1)[None])
    return (y.permute(0, 2, 3, 1) if y.ndim == 4 else y)[0].detach().numpy()


def slow_conv(x, kernel, bias, stride, *, depthwise=False):
    """Convolution by its definition, without anything around the picture."""
    kh, kw = kernel.shape[1:3]
    rows, columns = (x.shape[0] - kh) // stride + 1, (x.shape[1] - kw) // stride + 1
    y = np.zeros((rows, columns, kernel.shape[3] if depthwise else kernel.shape[0]))
    for i, j in np.ndindex(rows, columns):
        patch = x[i * stride : i * stride + kh, j * stride : j * stride + kw]
        y[i, j] = (patch * kernel[0]).sum((0, 1)) if depthwise else (patch * kernel).sum((1, 2, 3))
    return y + bias


@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 7), (6, 7)])
def test_a_convolution_is_padded_as_tensorflow_does_with_one_more_zero_after_an_even_side(height, width):
    writer, kernel, bias, x = Writer(height, width, 2), draw(3, 3, 3, 2), draw(3), draw(height, width, 2)
    half = ((height + 1) // 2, (width + 1) // 2)
    y = conv(writer, writer.input, kernel, bias, (1, *half, 3), stride=2, same=True, activation=RELU6)
    around = [(0, 1) if side == 6 else (1, 1) for side in (height, width)]
    expected = slow_conv(np.pad(x, (*around, (0, 0))), kernel, bias, 2).clip(0, 6)
    np.testing.assert_allclose(run(writer, y, x), expected, atol=1e-5)


def test_a_depthwise_convolution_has_a_kernel_for_each_channel():
    writer, kernel, bias, x = Writer(5, 5, 3), draw(1, 3, 3, 3), draw(3), draw(5, 5, 3)
    fields = {"Padding": tflite.Padding.VALID, "StrideW": 1, "StrideH": 1, "DepthMultiplier": 1}
    fields |= {"FusedActivationFunction": RELU, "DilationWFactor": 1, "DilationHFactor": 1}
    taken = [writer.input, writer.constant(kernel), writer.constant(bias)]
    y = writer.layer("DEPTHWISE_CONV_2D", taken, (1, 3, 3, 3), options="DepthwiseConv2DOptions", **fields)
    expected = slow_conv(x, kernel, bias, 1, depthwise=True).clip(0)
    np.testing.assert_allclose(run(writer, y, x), expected, atol=1e-5)


def test_weights_in_half_precision_and_sparse_ones_are_read():
    x, bias = draw(2, 2, 4), np.zeros(3, "<f4")
    kernel = draw(3, 1, 1, 4).astype("<f2") * (RANDOM.random((3, 1, 1, 4)) < 0.5)
    kernel[1] = 0  # a row without any value
    writer = Writer(2, 2, 4)
    dense = writer.layer("DENSIFY", [writer.sparse(kernel)], kernel.shape)
    full = writer.layer("DEQUANTIZE", [dense], kernel.shape)
    y = conv(writer, writer.input, full, bias, (1, 2, 2, 3))
    expected = np.einsum("hwi,oi->hwo", x, kernel[:, 0, 0].astype("f4"))
    np.testing.assert_allclose(run(writer, y, x), expected, atol=1e-5)


def test_layers_without_weights_do_what_tensorflow_lite_does():
    x = np.arange(2 * 2 * 4, dtype="f4").reshape(2, 2, 4)
    writer = Writer(2, 2, 4)
    y = writer.layer("DEPTH_TO_SPACE", [writer.input], (1, 4, 4, 1), options="DepthToSpaceOptions", BlockSize=2)
    spread = run(writer, y, x)[..., 0]
    assert spread.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]

    writer = Writer(2, 2, 1)
    around = writer.constant(np.array([[0, 0], [1, 0], [0, 2], [0, 1]], "<i4"))
    y = writer.layer("PAD", [writer.input, around], (1, 3, 4, 2))
    padded = run(writer, y, np.float32([[[1], [2]], [[3], [4]]]))
    assert padded[..., 0].tolist() == [[0, 0, 0, 0], [1, 2, 0, 0], [3, 4, 0, 0]]
    assert not padded[..., 1].any()

    writer = Writer(2, 4, 1)
    fields = {"FilterWidth": 2, "FilterHeight": 2, "StrideW": 2, "StrideH": 2}
    y = writer.layer("MAX_POOL_2D", [writer.input], (1, 1, 2, 1), options="Pool2DOptions", **fields)
    assert run(writer, y, np.float32([[[1], [5], [2], [0]], [[3], [4], [7], [6]]])).ravel().tolist() == [5, 7]

    writer = Writer(1, 2, 1)
    size = writer.constant(np.array([1, 4], "<i4"))
    fields = {"AlignCorners": False, "HalfPixelCenters": True}
    y = writer.layer("RESIZE_BILINEAR", [writer.input, size], (1, 1, 4, 1), options="ResizeBilinearOptions", **fields)
    assert run(writer, y, np.float32([[[0], [4]]])).ravel().tolist() == [0, 1, 3, 4]

    writer = Writer(1, 2, 2)
    shape = writer.constant(np.array([1, 2, 2], "<i4"))
    rows = writer.layer("RESHAPE", [writer.input, shape], (1, 2, 2))
    total = writer.layer("ADD", [rows, rows], (1, 2, 2), options="AddOptions", FusedActivationFunction=RELU)
    joined = writer.layer("CONCATENATION", [total, rows], (1, 4, 2), options="ConcatenationOptions", Axis=1)
    y = writer.layer("LOGISTIC", [joined], (1, 4, 2))
    found = run(writer, y, np.float32([[[1, -1], [2, -2]]]))  # channels of a place stay together
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-np.float32([[2, 0], [4, 0], [1, -1], [2, -2]]))), atol=1e-6)


def test_layers_that_the_wanted_outputs_do_not_need_are_left_out():
    writer = Writer(2, 2, 1)
    wanted = writer.layer("LOGISTIC", [writer.input], (1, 2, 2, 1))
    other = writer.layer("SQRT", [writer.input], (1, 2, 2, 7))  # not known here
    file = writer.write(wanted, other)
    assert len(TFLiteGraph(file, [(2, 2, 1)]).layers) == 1
    with pytest.raises(ValueError, match="a layer SQRT, expected one of ADD, CONCATENATION"):
        TFLiteGraph(file, [(2, 2, 7)])
    with pytest.raises(ValueError, match=r"0 outputs of shape \(3,\), expected one"):
        TFLiteGraph(file, [(3,)])


def test_a_damaged_file_raises_one_of_the_exceptions_that_are_expected():
    writer = Writer(4, 4, 1)
    file = writer.write(conv(writer, writer.input, draw(2, 3, 3, 1), draw(2), (1, 2, 2, 2)))
    assert len(TFLiteGraph(file, [(2, 2, 2)]).layers) == 1
    failed = 0
    for _ in range(300):
        broken = bytearray(file)
        for place in RANDOM.integers(0, len(file), 3):
            broken[place] = RANDOM.integers(256)
        try:
            TFLiteGraph(bytes(broken), [(2, 2, 2)])
        except DAMAGED:
            failed += 1
    assert failed > 50
    for cut in (0, 3, 40, len(file) // 2):
        with pytest.raises(DAMAGED):
            TFLiteGraph(file[:cut], [(2, 2, 2)])
