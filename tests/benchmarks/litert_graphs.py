"""Recurrent programs as LiteRT models, put together with the schema that its wheel carries.

No converter is needed, which would bring a gigabyte. The steps are unrolled, since all of them then run in XNNPACK;
LiteRT's fused sequence LSTM took twice as long. The input is the rows of one text, int32 [tokens]; the output logits
[1 classes]. int8 is LiteRT's dynamic-range scheme: matrices in int8 a channel, activations quantised as they come; the
embedding, which is only looked up, stays fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from grit.bench.types import Dense, FastGrnn, Lstm, Program, Rows

Operator, Kind = schema.BuiltinOperator, schema.TensorType
_KINDS = {np.dtype(np.float32): Kind.FLOAT32, np.dtype(np.int32): Kind.INT32, np.dtype(np.int8): Kind.INT8}


def model(program: Program, tokens: int, *, int8: bool) -> bytes:
    """The model file of a program that looks words up, for texts of this many tokens."""
    assert isinstance(program.words, Rows) and not program.words.ngrams
    graph = _Graph(int8)
    rows = graph.tensor((tokens,), np.int32)
    x = graph.op(Operator.GATHER, [graph.constant(program.words.table), rows], (tokens, program.words.table.shape[1]))
    assert isinstance(program.body, Lstm | FastGrnn)
    read = graph.lstm if isinstance(program.body, Lstm) else graph.fastgrnn
    return graph.file(rows, graph.dense(read(program.body, x, tokens), program.head))


class _Graph:
    """Tensors and operators, each known by its number."""

    def __init__(self, int8: bool) -> None:
        self._int8 = int8
        self._buffers = [schema.BufferT()]  # the first is that of tensors without data
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[int, int] = {}

    def tensor(self, shape: Sequence[int], kind: type = np.float32, **more: Any) -> int:
        self._tensors.append(
            schema.TensorT(shape=list(shape), type=_KINDS[np.dtype(kind)], name=f"t{len(self._tensors)}", **more)
        )
        return len(self._tensors) - 1

    def constant(self, value: np.ndarray, **more: Any) -> int:
        self._buffers.append(schema.BufferT(data=np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)))
        return self.tensor(value.shape, value.dtype.type, buffer=len(self._buffers) - 1, **more)

    def matrix(self, weight: np.ndarray) -> int:
        """Weights [out in], in int8 with a scale an output where that is asked for."""
        if not self._int8:
            return self.constant(weight.astype(np.float32))
        scale = (np.abs(weight).max(axis=1) / 127).astype(np.float32)
        integers = np.round(weight / scale[:, None]).astype(np.int8)
        about = schema.QuantizationParametersT(scale=scale, zeroPoint=np.zeros(len(scale), np.int64))
        return self.constant(integers, quantization=about)

    def op(self, code: int, inputs: Sequence[int], *shapes: Sequence[int], options: Any = None) -> Any:
        """The output, or the outputs where there are more."""
        outputs = [self.tensor(shape) for shape in shapes]
        kind = type(options).__name__.removesuffix("T") if options else "NONE"
        self._operators.append(
            schema.OperatorT(
                opcodeIndex=self._codes.setdefault(code, len(self._codes)),
                inputs=list(inputs),
                outputs=outputs,
                builtinOptionsType=getattr(schema.BuiltinOptions, kind),
                builtinOptions=options,
            )
        )
        return outputs if len(outputs) > 1 else outputs[0]

    def file(self, source: int, target: int) -> bytes:
        codes = [schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=code) for code in self._codes]
        graph = schema.SubGraphT(
            tensors=self._tensors, inputs=[source], outputs=[target], operators=self._operators, name="main"
        )
        whole = schema.ModelT(version=3, operatorCodes=codes, subgraphs=[graph], buffers=self._buffers)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(whole.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    # --- what the programs are made of ------------------------------------------------------------------

    def add(self, a: int, b: int, units: int) -> int:
        return self.op(Operator.ADD, [a, b], (1, units), options=schema.AddOptionsT())

    def times(self, a: int, b: int, units: int) -> int:
        return self.op(Operator.MUL, [a, b], (1, units), options=schema.MulOptionsT())

    def product(self, x: int, weight: int, bias: int, rows: int, out: int) -> int:
        return self.op(
            Operator.FULLY_CONNECTED, [x, weight, bias], (rows, out), options=schema.FullyConnectedOptionsT()
        )

    def dense(self, x: int, layer: Dense) -> int:
        return self.product(x, self.matrix(layer.weight), self.constant(layer.bias), 1, len(layer.bias))

    def steps(self, x: int, tokens: int, units: int) -> list[int]:
        """[tokens units] -> one [1 units] a token."""
        size = self.constant(np.array([1, units], np.int32))
        slices = [self.constant(np.array([t, 0], np.int32)) for t in range(tokens)]
        options = schema.SliceOptionsT
        return [self.op(Operator.SLICE, [x, begin, size], (1, units), options=options()) for begin in slices]

    def lstm(self, body: Any, x: int, tokens: int) -> int:
        units = body.state_weight.shape[1]
        whole = self.product(x, self.matrix(body.input_weight), self.constant(body.bias), tokens, 4 * units)
        weight, nothing = self.matrix(body.state_weight), self.constant(np.zeros(4 * units, np.float32))
        axis = self.constant(np.array(1, np.int32))
        state = memory = self.constant(np.zeros((1, units), np.float32))
        for step in self.steps(whole, tokens, 4 * units):
            gates = self.add(step, self.product(state, weight, nothing, 1, 4 * units), 4 * units)
            shapes = [(1, units)] * 4
            parts = self.op(Operator.SPLIT, [axis, gates], *shapes, options=schema.SplitOptionsT(numSplits=4))
            taken, kept, given = (self.op(Operator.LOGISTIC, [parts[k]], (1, units)) for k in (0, 1, 3))
            fresh = self.times(taken, self.op(Operator.TANH, [parts[2]], (1, units)), units)
            memory = self.add(self.times(kept, memory, units), fresh, units)
            state = self.times(given, self.op(Operator.TANH, [memory], (1, units)), units)
        return state

    def fastgrnn(self, body: Any, x: int, tokens: int) -> int:
        units = len(body.state_weight)
        nothing = self.constant(np.zeros(units, np.float32))
        whole = self.product(x, self.matrix(body.input_weight), nothing, tokens, units)
        weight = self.matrix(body.state_weight)
        gate, update = self.constant(body.bias_gate), self.constant(body.bias_update)
        # zeta (1 - z) + nu, in one product and one sum
        slope, offset = (self.constant(np.full(1, v, np.float32)) for v in (-body.zeta, body.zeta + body.nu))
        state = self.constant(np.zeros((1, units), np.float32))
        for step in self.steps(whole, tokens, units):
            both = self.add(step, self.product(state, weight, nothing, 1, units), units)
            z = self.op(Operator.LOGISTIC, [self.add(both, gate, units)], (1, units))
            fresh = self.op(Operator.TANH, [self.add(both, update, units)], (1, units))
            share = self.add(self.times(z, slope, units), offset, units)
            state = self.add(self.times(z, state, units), self.times(share, fresh, units), units)
        return state
