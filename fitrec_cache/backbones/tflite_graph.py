"""Networks from TensorFlow Lite files as PyTorch modules: the layers of image networks in float, nothing else."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tflite
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fitrec_cache.backbones.frozen_conv import same_zeros

#: Exceptions from reading a damaged file: its offsets may point anywhere.
DAMAGED = (struct.error, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError)

_MOST_LAYERS = 10_000

_TYPES = {tflite.TensorType.FLOAT32: "<f4", tflite.TensorType.FLOAT16: "<f2", tflite.TensorType.INT32: "<i4"}
_ACTIVATIONS: dict[int, Callable[[], nn.Module]] = {
    tflite.ActivationFunctionType.NONE: nn.Identity,
    tflite.ActivationFunctionType.RELU: lambda: nn.ReLU(inplace=True),
    tflite.ActivationFunctionType.RELU6: lambda: nn.ReLU6(inplace=True),
}
_OPERATORS = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}


class TFLiteGraph(nn.Module):
    """The network in a TensorFlow Lite file, computed layer by layer.

    Channels come first here and last in the file. Weights in float16 are taken to float32. Layers on which none of the
    wanted outputs depends are left out.

    Args:
        file: The content of the file: one subgraph with one input, ``(1, h, w, c)``.
        outputs: Shapes of the wanted outputs without the batch, each of which exactly one output has.

    Raises:
        ValueError: If it holds a layer that is not known here, or lacks an output; other exceptions of
            :data:`DAMAGED` if it is no such file.

    Source:
        The schema of TensorFlow Lite, and its reference kernels for padding and the order of channels.
    """

    def __init__(self, file: bytes, outputs: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self._file = tflite.Model.GetRootAs(file, 0)
        self._graph = self._file.Subgraphs(0)
        (self._input,) = (int(i) for i in self._graph.InputsAsNumpy())
        self._outputs = [self._output_of(shape) for shape in outputs]
        self._constants: dict[int, NDArray[Any]] = {}
        if (n := self._graph.OperatorsLength()) > _MOST_LAYERS:  # a damaged length
            raise ValueError(f"{n} layers, expected at most {_MOST_LAYERS}")
        operators = [self._graph.Operators(i) for i in range(n)]
        layers = nn.ModuleList()
        self._steps: list[tuple[list[int], int]] = []  # of each layer: the numbers of its inputs and of its output
        for operator in _needed(operators, self._outputs):
            taken, (given,) = _inputs(operator), _numbers(operator.OutputsAsNumpy())
            name = _OPERATORS.get(code := self._code(operator), str(code))
            if name in ("DEQUANTIZE", "DENSIFY"):  # of weights; both are done where a constant is read
                self._constants[given] = self.constant(taken[0])
                continue
            if name not in _LAYERS:
                raise ValueError(f"a layer {name}, expected one of {', '.join(sorted(_LAYERS))}")
            layers.append(_LAYERS[name](self, operator))
            self._steps.append(([i for i in taken if not self._is_constant(i)], given))
        self.layers = layers
        self._done_with = _last_uses([taken for taken, _ in self._steps], keep=self._outputs)
        _, height, width, _ = self.shape(self._input)
        self.size = height, width
        del self._file, self._graph, self._constants

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the wanted outputs ``(B, ...)`` for ``(B, c, h, w)``, float32."""
        values = {self._input: x}
        for layer, (taken, given), done_with in zip(self.layers, self._steps, self._done_with, strict=True):
            values[given] = layer(*(values[i] for i in taken))
            for number in done_with:  # or all maps of all layers would be in memory at once
                del values[number]
        return tuple(values[i] for i in self._outputs)

    def shape(self, number: int) -> tuple[int, ...]:
        """Return the shape of a tensor in the file's own order: batch, height, width, channels."""
        return tuple(map(int, self._graph.Tensors(number).ShapeAsNumpy()))

    def constant(self, number: int) -> NDArray[Any]:
        """Return a tensor that the file holds, such as a layer's weights; float16 as float32."""
        if number in self._constants:
            return self._constants[number]
        tensor = self._graph.Tensors(number)
        if tensor.Type() not in _TYPES or not self._data(number):
            raise ValueError(f"no constant of a known type where one is needed (tensor {number})")
        raw = self._file.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
        values: NDArray[Any] = np.frombuffer(raw, _TYPES[tensor.Type()])
        values = values.astype(np.float32) if values.dtype == np.float16 else values
        sparsity = tensor.Sparsity()
        return values.reshape(self.shape(number)) if sparsity is None else _dense(values, sparsity, self.shape(number))

    def _output_of(self, shape: tuple[int, ...]) -> int:
        found = [i for i in _numbers(self._graph.OutputsAsNumpy()) if self.shape(i)[1:] == shape]
        if len(found) != 1:
            raise ValueError(f"{len(found)} outputs of shape {shape}, expected one")
        return found[0]

    def _code(self, operator: Any) -> int:
        code = self._file.OperatorCodes(operator.OpcodeIndex())
        return max(int(code.BuiltinCode()), int(code.DeprecatedBuiltinCode()))

    def _is_constant(self, number: int) -> bool:
        return number in self._constants or self._data(number) > 0

    def _data(self, number: int) -> int:
        return int(self._file.Buffers(self._graph.Tensors(number).Buffer()).DataLength())


def _numbers(values: Any) -> list[int]:
    return [int(value) for value in np.atleast_1d(values)]


def _inputs(operator: Any) -> list[int]:
    return [i for i in _numbers(operator.InputsAsNumpy()) if i >= 0]  # -1: an optional one that is left out


def _needed(operators: Sequence[Any], outputs: Sequence[int]) -> list[Any]:
    """Return the operators on which the outputs depend, in their order."""
    wanted, found = set(outputs), []
    for operator in reversed(operators):
        if wanted.intersection(_numbers(operator.OutputsAsNumpy())):
            wanted.update(_inputs(operator))
            found.append(operator)
    return found[::-1]


def _last_uses(taken: Sequence[Sequence[int]], keep: Sequence[int]) -> list[set[int]]:
    """Return for each layer the numbers of its inputs that no later layer takes, except those to keep."""
    seen, found = set(keep), []
    for inputs in reversed(taken):
        found.append(set(inputs) - seen)
        seen.update(inputs)
    return found[::-1]


def _dense(values: NDArray[Any], sparsity: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a sparse constant in full; only its last dimension may be sparse (compressed rows)."""
    levels = [sparsity.DimMetadata(i) for i in range(sparsity.DimMetadataLength())]
    kinds = [level.Format() for level in levels]
    plain = sparsity.BlockMapLength() == 0 and _numbers(sparsity.TraversalOrderAsNumpy()) == list(range(len(shape)))
    if not plain or kinds != [tflite.DimensionType.DENSE] * (len(shape) - 1) + [tflite.DimensionType.SPARSE_CSR]:
        raise ValueError("weights that are sparse in another way than by compressed rows")
    ends = _index_vector(levels[-1].ArraySegmentsType(), levels[-1].ArraySegments())
    columns = _index_vector(levels[-1].ArrayIndicesType(), levels[-1].ArrayIndices())
    rows = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    full = np.zeros((int(np.prod(shape[:-1])), shape[-1]), values.dtype)
    full[rows, columns] = values
    return full.reshape(shape)


def _index_vector(kind: int, table: Any) -> NDArray[np.int64]:
    kinds = tflite.SparseIndexVector
    vectors = {kinds.Int32Vector: tflite.Int32Vector, kinds.Uint16Vector: tflite.Uint16Vector}
    vector = vectors.get(kind, tflite.Uint8Vector)()
    vector.Init(table.Bytes, table.Pos)
    return np.asarray(vector.ValuesAsNumpy(), np.int64)


def _options(operator: Any, kind: type[Any]) -> Any:
    options = kind()
    options.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
    return options


class _Layer(nn.Module):
    """A layer that is a plain function of its inputs."""

    def __init__(self, function: Callable[..., Tensor], activation: nn.Module | None = None) -> None:
        super().__init__()
        self._function, self.activation = function, activation or nn.Identity()

    def forward(self, *x: Tensor) -> Tensor:
        y: Tensor = self.activation(self._function(*x))
        return y


def _activation(options: Any) -> nn.Module:
    kind = options.FusedActivationFunction()
    if kind not in _ACTIVATIONS:
        raise ValueError(f"activation {kind}, expected none, ReLU or ReLU6")
    return _ACTIVATIONS[kind]()  # in place: nothing else sees what it is given


def _convolution(graph: TFLiteGraph, operator: Any) -> nn.Module:
    x, kernel, *bias = _inputs(operator)
    weight = torch.from_numpy(graph.constant(kernel).copy()).permute(0, 3, 1, 2)  # (outputs, inputs, kh, kw)
    return _convolve(graph, _options(operator, tflite.Conv2DOptions), x, weight, bias, groups=1)


def _depthwise(graph: TFLiteGraph, operator: Any) -> nn.Module:
    x, kernel, *bias = _inputs(operator)
    weight = torch.from_numpy(graph.constant(kernel).copy()).permute(3, 0, 1, 2)  # (channels, 1, kh, kw)
    options = _options(operator, tflite.DepthwiseConv2DOptions)
    return _convolve(graph, options, x, weight, bias, groups=graph.shape(x)[3])


def _convolve(
    graph: TFLiteGraph, options: Any, x: int, weight: Tensor, bias: Sequence[int], *, groups: int
) -> nn.Module:
    if options.DilationHFactor() != 1 or options.DilationWFactor() != 1:
        raise ValueError("a dilated convolution, expected none")
    kernel, stride = (weight.shape[2], weight.shape[3]), (options.StrideH(), options.StrideW())
    same = options.Padding() == tflite.Padding.SAME
    rows, columns = (_around(graph.shape(x)[1 + i], kernel[i], stride[i]) if same else (0, 0) for i in (0, 1))
    conv = nn.Conv2d(weight.shape[1] * groups, len(weight), kernel, stride, groups=groups, bias=bool(bias))
    conv.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias:
        conv.bias = nn.Parameter(torch.from_numpy(graph.constant(bias[0]).copy()), requires_grad=False)
    if rows[0] == rows[1] and columns[0] == columns[1]:
        conv.padding = (rows[0], columns[0])
        return nn.Sequential(conv, _activation(options))
    return nn.Sequential(nn.ZeroPad2d((*columns, *rows)), conv, _activation(options))


def _around(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return how many zeros TensorFlow's padding SAME puts before and after; of an odd number one more after."""
    total = same_zeros(length, kernel, stride)
    return total // 2, total - total // 2


def _add(graph: TFLiteGraph, operator: Any) -> nn.Module:
    first, second = _inputs(operator)
    if graph.shape(first) != graph.shape(second):
        raise ValueError(f"a sum of {graph.shape(first)} and {graph.shape(second)}, expected equal shapes")
    return _Layer(torch.add, _activation(_options(operator, tflite.AddOptions)))


def _pad(graph: TFLiteGraph, operator: Any) -> nn.Module:
    (_, rows, columns, channels) = graph.constant(_inputs(operator)[1]).tolist()
    around = [*columns, *rows, *channels]
    return _Layer(lambda x: F.pad(x, around))


def _max_pool(graph: TFLiteGraph, operator: Any) -> nn.Module:
    options = _options(operator, tflite.Pool2DOptions)
    size, stride = (options.FilterHeight(), options.FilterWidth()), (options.StrideH(), options.StrideW())
    if size != stride or any(n % k for n, k in zip(graph.shape(_inputs(operator)[0])[1:3], size, strict=True)):
        raise ValueError("a maximum over windows that overlap or do not fit, expected ones that tile the map")
    return nn.Sequential(nn.MaxPool2d(size, stride), _activation(options))


def _enlarge(graph: TFLiteGraph, operator: Any) -> nn.Module:
    options = _options(operator, tflite.ResizeBilinearOptions)
    if options.AlignCorners() or not options.HalfPixelCenters():
        raise ValueError("an enlargement whose corners are aligned, expected centres of pixels")
    size = tuple(graph.constant(_inputs(operator)[1]).tolist())
    return _Layer(lambda x: F.interpolate(x, size=size, mode="bilinear", align_corners=False))


def _reshape(graph: TFLiteGraph, operator: Any) -> nn.Module:
    x, (given,) = _inputs(operator)[0], _numbers(operator.OutputsAsNumpy())
    shape, spatial = graph.shape(given)[1:], len(graph.shape(x)) == 4
    if len(shape) == 3:
        raise ValueError("values that become a map again, expected vectors")
    return _Layer(lambda x: (x.permute(0, 2, 3, 1) if spatial else x).reshape(x.shape[0], *shape))


def _concatenate(graph: TFLiteGraph, operator: Any) -> nn.Module:
    options = _options(operator, tflite.ConcatenationOptions)
    if len(graph.shape(_inputs(operator)[0])) == 4:
        raise ValueError("maps side by side, expected vectors")
    return _Layer(lambda *x: torch.cat(x, options.Axis()), _activation(options))


def _depth_to_space(_: TFLiteGraph, operator: Any) -> nn.Module:
    block = int(_options(operator, tflite.DepthToSpaceOptions).BlockSize())

    def spread(x: Tensor) -> Tensor:  # in the file the place within a block comes before the channel
        batch, _, height, width = x.shape
        x = x.view(batch, block, block, -1, height, width).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(batch, -1, height * block, width * block)

    return _Layer(spread)


_LAYERS: dict[str, Callable[[TFLiteGraph, Any], nn.Module]] = {
    "ADD": _add,
    "CONCATENATION": _concatenate,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEPTH_TO_SPACE": _depth_to_space,
    "LOGISTIC": lambda *_: nn.Sigmoid(),
    "MAX_POOL_2D": _max_pool,
    "PAD": _pad,
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _enlarge,
}
