"""Write TensorFlow Lite files with the schema's own builders."""

from __future__ import annotations

import zipfile
from itertools import count

import flatbuffers
import numpy as np
import tflite

_TYPES = {"f4": tflite.TensorType.FLOAT32, "f2": tflite.TensorType.FLOAT16, "i4": tflite.TensorType.INT32}


class Writer:
    """A network that is written layer by layer; tensors are known by their numbers."""

    def __init__(self, height, width, channels):
        self.tensors, self.operators, self.codes, self.numbers = [], [], [], count()
        self.input = self.tensor((1, height, width, channels))

    def tensor(self, shape, values=None, sparsity=None):
        self.tensors.append((tuple(shape), values, sparsity))
        return next(self.numbers)

    def constant(self, values):
        values = np.asarray(values)
        return self.tensor(values.shape, values)

    def sparse(self, values):
        """A constant whose last dimension is stored as compressed rows."""
        values = np.asarray(values)
        rows = values.reshape(-1, values.shape[-1])
        places = [np.flatnonzero(row) for row in rows]
        ends = np.cumsum([0, *map(len, places)])
        kept = np.concatenate([row[at] for row, at in zip(rows, places, strict=True)])
        return self.tensor(values.shape, kept, (ends, np.concatenate(places)))

    def layer(self, name, inputs, shape, *, options=None, **fields):
        """Add an operator; ``options`` is the schema's name of its options, ``fields`` their values."""
        given = self.tensor(shape)
        self.operators.append((name, list(inputs), given, options, fields))
        return given

    def write(self, *outputs):
        b = flatbuffers.Builder(1024)
        blobs = [b""] + [
            b"" if values is None else np.ascontiguousarray(values).tobytes() for _, values, _ in self.tensors
        ]
        buffers = []
        for blob in blobs:
            data = b.CreateByteVector(blob) if blob else None
            tflite.BufferStart(b)
            if data is not None:
                tflite.BufferAddData(b, data)
            buffers.append(tflite.BufferEnd(b))
        tensors = [self._tensor(b, i + 1, *each) for i, each in enumerate(self.tensors)]
        names = sorted({name for name, *_ in self.operators})
        codes = []
        for name in names:
            tflite.OperatorCodeStart(b)
            code = getattr(tflite.BuiltinOperator, name)
            tflite.OperatorCodeAddDeprecatedBuiltinCode(b, code)  # converters write both fields
            tflite.OperatorCodeAddBuiltinCode(b, code)
            codes.append(tflite.OperatorCodeEnd(b))
        operators = [self._operator(b, names, *each) for each in self.operators]
        ins, outs = _numbers(b, [self.input]), _numbers(b, outputs)
        tensor_table, operator_table = _tables(b, tensors), _tables(b, operators)
        tflite.SubGraphStart(b)
        tflite.SubGraphAddTensors(b, tensor_table)
        tflite.SubGraphAddOperators(b, operator_table)
        tflite.SubGraphAddInputs(b, ins)
        tflite.SubGraphAddOutputs(b, outs)
        graph = tflite.SubGraphEnd(b)
        graph_table, code_table, buffer_table = _tables(b, [graph]), _tables(b, codes), _tables(b, buffers)
        tflite.ModelStart(b)
        tflite.ModelAddVersion(b, 3)
        tflite.ModelAddOperatorCodes(b, code_table)
        tflite.ModelAddSubgraphs(b, graph_table)
        tflite.ModelAddBuffers(b, buffer_table)
        b.Finish(tflite.ModelEnd(b), b"TFL3")
        return bytes(b.Output())

    def _tensor(self, b, buffer, shape, values, sparsity):
        dims, held = _numbers(b, shape), None if sparsity is None else _sparsity(b, shape, *sparsity)
        tflite.TensorStart(b)
        tflite.TensorAddShape(b, dims)
        tflite.TensorAddType(b, _TYPES["f4" if values is None else np.asarray(values).dtype.str[1:]])
        tflite.TensorAddBuffer(b, buffer if values is not None else 0)
        if held is not None:
            tflite.TensorAddSparsity(b, held)
        return tflite.TensorEnd(b)

    def _operator(self, b, names, name, inputs, given, options, fields):
        ins, outs, table = _numbers(b, inputs), _numbers(b, [given]), None
        if options:
            getattr(tflite, f"{options}Start")(b)
            for field, value in fields.items():
                getattr(tflite, f"{options}Add{field}")(b, value)
            table = getattr(tflite, f"{options}End")(b)
        tflite.OperatorStart(b)
        tflite.OperatorAddOpcodeIndex(b, names.index(name))
        tflite.OperatorAddInputs(b, ins)
        tflite.OperatorAddOutputs(b, outs)
        if table is not None:
            tflite.OperatorAddBuiltinOptionsType(b, getattr(tflite.BuiltinOptions, options))
            tflite.OperatorAddBuiltinOptions(b, table)
        return tflite.OperatorEnd(b)


def _numbers(b, values):
    return b.CreateNumpyVector(np.asarray(values, np.int32))


def _tables(b, offsets):
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return b.EndVector()


def _sparsity(b, shape, ends, columns):
    levels = []
    for size in shape[:-1]:
        tflite.DimensionMetadataStart(b)
        tflite.DimensionMetadataAddFormat(b, tflite.DimensionType.DENSE)
        tflite.DimensionMetadataAddDenseSize(b, size)
        levels.append(tflite.DimensionMetadataEnd(b))
    tables = []
    for values, kind in ((ends, np.uint16), (columns, np.uint8)):
        name = "Uint16Vector" if kind is np.uint16 else "Uint8Vector"
        vector = b.CreateNumpyVector(np.asarray(values, kind))
        getattr(tflite, f"{name}Start")(b)
        getattr(tflite, f"{name}AddValues")(b, vector)
        tables.append(getattr(tflite, f"{name}End")(b))
    tflite.DimensionMetadataStart(b)
    tflite.DimensionMetadataAddFormat(b, tflite.DimensionType.SPARSE_CSR)
    tflite.DimensionMetadataAddArraySegmentsType(b, tflite.SparseIndexVector.Uint16Vector)
    tflite.DimensionMetadataAddArraySegments(b, tables[0])
    tflite.DimensionMetadataAddArrayIndicesType(b, tflite.SparseIndexVector.Uint8Vector)
    tflite.DimensionMetadataAddArrayIndices(b, tables[1])
    levels.append(tflite.DimensionMetadataEnd(b))
    order, table = _numbers(b, range(len(shape))), _tables(b, levels)
    tflite.SparsityParametersStart(b)
    tflite.SparsityParametersAddTraversalOrder(b, order)
    tflite.SparsityParametersAddDimMetadata(b, table)
    return tflite.SparsityParametersEnd(b)


def conv(w, x, kernel, bias, shape, *, stride=1, same=False, activation=tflite.ActivationFunctionType.NONE):
    """Add a convolution with a kernel (outputs, height, width, inputs)."""
    padding = tflite.Padding.SAME if same else tflite.Padding.VALID
    fields = {"Padding": padding, "StrideW": stride, "StrideH": stride, "FusedActivationFunction": activation}
    fields |= {"DilationWFactor": 1, "DilationHFactor": 1}
    taken = [x, kernel if isinstance(kernel, int) else w.constant(kernel), w.constant(bias)]
    return w.layer("CONV_2D", taken, shape, options="Conv2DOptions", **fields)


def make_task(path, seed=0):
    """Write a file like MediaPipe's pose landmarkers, with small networks of random weights."""
    random = np.random.default_rng(seed)

    def draw(*shape):
        return random.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype("<f4")

    detector, boxes, scores = Writer(224, 224, 3), [], []
    for side, each in ((28, 2), (14, 2), (7, 6)):
        step = 224 // side
        for values, found in ((12, boxes), (1, scores)):
            kernel, bias = draw(each * values, step, step, 3), 30 * draw(each * values)
            y = conv(detector, detector.input, kernel, bias, (1, side, side, each * values), stride=step)
            n = side * side * each
            shape = detector.constant(np.array([1, n, values], "<i4"))
            found.append(detector.layer("RESHAPE", [y, shape], (1, n, values)))
    joined = [
        detector.layer("CONCATENATION", parts, (1, 2254, values), options="ConcatenationOptions", Axis=1)
        for parts, values in ((boxes, 12), (scores, 1))
    ]
    landmarks, given = Writer(256, 256, 3), []
    small = conv(landmarks, landmarks.input, draw(8, 32, 32, 3), draw(8), (1, 8, 8, 8), stride=32)
    for values in (195, 1, 117):
        scale = 128.0 if values == 195 else 1.0
        y = conv(landmarks, small, scale * draw(values, 8, 8, 8), scale * draw(values), (1, 1, 1, values))
        given.append(landmarks.layer("RESHAPE", [y, landmarks.constant(np.array([1, values], "<i4"))], (1, values)))
    given[1] = landmarks.layer("LOGISTIC", [given[1]], (1, 1))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pose_detector.tflite", detector.write(*joined))
        archive.writestr("pose_landmarks_detector.tflite", landmarks.write(*given))
    return path
