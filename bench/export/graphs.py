"""Programs -> ONNX graphs, built node by node: nothing is traced, so the same program is the same bytes.

Inputs: ``rows`` int32 [batch seq] of the word table, or ``codes`` int8 [batch seq feat] of a hash projection; and
``lengths`` int32 [batch] >= 1. What stands beyond a length is not read, but must be a legal row. Output: ``logits``
float32 [batch classes].

The int8 graph computes the integers of :mod:`grit.bench.export.fixed` in floating point that never rounds: sums
below 2^24 in float32, products of two 16-bit numbers in float64, a shift as a product with a power of two and Floor.
Any runtime that follows IEEE 754 gives the same bits. Weights are int8 in the file; a runtime that folds constants
unpacks them once. Activation tables are built in the graph from their 64 segments, for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from grit.bench.export import fixed
from grit.bench.export.fixed import Affine, FixedFastGrnn, FixedLstm, FixedMean, FixedPool, FixedProgram, Product
from grit.bench.types import AttentionPool, Dense, FastGrnn, Lstm, Mean, Program, Rows, Ternary

OPSET = 17
IR_VERSION = 8  # what onnxruntime has read since 1.11
_LAST = np.iinfo(np.int64).max


class _Graph:
    """Nodes in order; a name for each value. Constants live in the outermost graph, where inner ones see them."""

    def __init__(self, outer: _Graph | None = None) -> None:
        self.nodes: list[NodeProto] = []
        self._outer = outer
        self._constants: dict[tuple[bytes, str, tuple[int, ...]], str] = {}
        self.initializers: list[TensorProto] = []
        self._count = 0

    def fresh(self, hint: str) -> str:
        if self._outer is not None:
            return self._outer.fresh(hint)
        self._count += 1
        return f"{hint}_{self._count}"

    def constant(self, value: np.ndarray, hint: str = "constant") -> str:
        if self._outer is not None:
            return self._outer.constant(value, hint)
        key = (value.tobytes(), value.dtype.str, value.shape)
        if key not in self._constants:
            self._constants[key] = self.fresh(hint)
            self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), self._constants[key]))
        return self._constants[key]

    def scalar(self, value: float, dtype: type) -> str:
        return self.constant(np.array(value, dtype), "scalar")

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64), "ints")

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        names = [self.fresh(kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def cast(self, value: str, to: int) -> str:
        return self.op("Cast", value, to=to)

    def clip(self, value: str, low: float, high: float, dtype: type) -> str:
        return self.op("Clip", value, self.scalar(low, dtype), self.scalar(high, dtype))

    def index(self, value: str, cells: int, dtype: type) -> str:
        """The cell of a table of this many cells that a non-integer value falls into; clipped, so the cast floors."""
        return self.cast(self.clip(value, 0, cells - 1, dtype), TensorProto.INT32)

    def rounded(self, value: str, dtype: type) -> str:
        return self.op("Floor", self.op("Add", value, self.scalar(0.5, dtype)))

    def saturated(self, value: str, bits: int, dtype: type) -> str:
        return self.clip(value, -(1 << bits), (1 << bits) - 1, dtype)


def build(program: Program | FixedProgram) -> ModelProto:
    """The ONNX model of a program: fp32 of a :class:`Program`, bit-exact int8 of a :class:`FixedProgram`."""
    g = _Graph()
    layer = program.words
    if isinstance(layer, Ternary):
        words_in = helper.make_tensor_value_info("codes", TensorProto.INT8, ["batch", "seq", layer.width])
        x = "codes"
    else:
        words_in = helper.make_tensor_value_info("rows", TensorProto.INT32, ["batch", "seq"])
        x = g.op("Gather", g.constant(layer.table, "table"), "rows", axis=0)  # [batch seq feat]
    x = x if isinstance(layer, Rows) and layer.table.dtype == np.float32 else g.cast(x, TensorProto.FLOAT)
    if isinstance(program, FixedProgram):
        logits = _fixed_head(g, program, _fixed_body(g, program, x))
    else:
        logits = _dense(g, program.head, _body(g, program, x))
    g.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
    graph = helper.make_graph(
        g.nodes,
        "gritbench",
        [words_in, helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(program.head.bias)])],
        g.initializers,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="gritbench"
    )


# --- shared pieces ------------------------------------------------------------------------------------


def _within(g: _Graph, x: str, dtype: int) -> str:
    """[batch seq 1]: 1 for tokens of a text, 0 beyond its end."""
    return g.cast(g.op("Unsqueeze", _inside(g, x), g.ints(2)), dtype)


def _inside(g: _Graph, x: str) -> str:
    """Booleans [batch seq] for x [batch seq feat]."""
    seq = g.cast(g.op("Squeeze", g.op("Shape", x, start=1, end=2), g.ints(0)), TensorProto.INT32)
    places = g.op("Range", g.scalar(0, np.int32), seq, g.scalar(1, np.int32))
    return g.op("Less", places, g.op("Unsqueeze", "lengths", g.ints(1)))


def _windows(g: _Graph, x: str, width: int) -> str:
    """x [batch seq feat] -> [batch seq width*feat]: each token's features and those of the next ones."""
    if width == 1:
        return x
    padded = g.op("Pad", x, g.ints(0, 0, 0, 0, width - 1, 0))
    ends = [*range(-(width - 1), 0), _LAST]
    taps = [g.op("Slice", padded, g.ints(k), g.ints(end), g.ints(1)) for k, end in enumerate(ends)]
    return g.op("Concat", *taps, axis=2)


def _scanned(
    g: _Graph, inner: _Graph, states: Sequence[tuple[str, str, int]], x: str, drive: str, seen: str, units: int
) -> str:
    """Runs ``inner`` over drive [seq batch feat]; ``seen`` [batch units] at the last token of each text.

    states: (name inside, name of its next value inside, type); all begin at zero. ``x`` [batch seq feat] gives the
    batch.
    """
    batch = g.op("Shape", x, start=0, end=1)
    shape = g.op("Concat", batch, g.ints(units), axis=0)
    zeros = [g.op("Expand", g.scalar(0, helper.tensor_dtype_to_np_dtype(kind).type), shape) for _, _, kind in states]
    kinds = [kind for _, _, kind in states]
    results = [inner.op("Identity", name) for name in (*(after for _, after, _ in states), seen)]
    inputs = [(name, kind, units) for name, _, kind in states] + [("drive", TensorProto.FLOAT, "gates")]
    outputs = [(name, kind, units) for name, kind in zip(results, [*kinds, kinds[-1]], strict=True)]
    body = helper.make_graph(
        inner.nodes, "step", [_matrix_info(*i) for i in inputs], [_matrix_info(*o) for o in outputs]
    )
    *_, history = g.ops("Scan", len(states) + 1, *zeros, drive, body=body, num_scan_inputs=1)
    last = g.op("Sub", g.cast("lengths", TensorProto.INT64), g.ints(1))
    texts = g.op("Range", g.scalar(0, np.int64), g.op("Squeeze", batch, g.ints(0)), g.scalar(1, np.int64))
    place = g.op("Concat", *(g.op("Unsqueeze", v, g.ints(1)) for v in (last, texts)), axis=1)
    return g.op("GatherND", history, place)  # [batch units]


def _matrix_info(name: str, kind: int, last: str | int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", last])


# --- fp32 ---------------------------------------------------------------------------------------------


def _dense(g: _Graph, layer: Dense, x: str) -> str:
    y = _linear(g, layer.weight, layer.bias, x)
    return g.op("Relu", y) if layer.relu else y


def _linear(g: _Graph, weight: np.ndarray, bias: np.ndarray, x: str) -> str:
    """x [... in] -> [... out]."""
    return g.op("Add", g.op("MatMul", x, g.constant(weight.T, "weight")), g.constant(bias, "bias"))


def _body(g: _Graph, program: Program, x: str) -> str:
    match program.body:
        case Lstm() as body:
            return _lstm(g, body, x)
        case FastGrnn() as body:
            return _fastgrnn(g, body, x)
        case AttentionPool() as body:
            return _pool(g, body, x)
        case Mean():
            real = g.op("Where", g.op("Unsqueeze", _inside(g, x), g.ints(2)), x, g.scalar(0, np.float32))
            count = g.op("Unsqueeze", g.cast("lengths", TensorProto.FLOAT), g.ints(1))
            return g.op("Div", g.op("ReduceSum", real, g.ints(1), keepdims=0), count)
        case _:
            assert_never(program.body)


def _lstm(g: _Graph, body: Lstm, x: str) -> str:
    units = body.state_weight.shape[1]
    order = np.concatenate([np.arange(units) + k * units for k in (0, 3, 1, 2)])  # ONNX: input, output, forget, cell
    biases = np.concatenate([body.bias[order], np.zeros(4 * units, np.float32)])
    _, last = g.ops(
        "LSTM",
        2,
        g.op("Transpose", x, perm=[1, 0, 2]),
        g.constant(body.input_weight[order][None], "weight"),
        g.constant(body.state_weight[order][None], "weight"),
        g.constant(biases[None], "bias"),
        "lengths",
        hidden_size=units,
    )
    return g.op("Squeeze", last, g.ints(0))


def _fastgrnn(g: _Graph, body: FastGrnn, x: str) -> str:
    drive = _linear(g, body.input_weight, body.bias_gate, g.op("Transpose", x, perm=[1, 0, 2]))
    s = _Graph(g)
    pre = s.op("Add", s.op("MatMul", "h", s.constant(body.state_weight.T, "weight")), "drive")
    z = s.op("Sigmoid", pre)
    c = s.op("Tanh", s.op("Add", pre, s.constant(body.bias_update - body.bias_gate, "bias")))
    # z h + (zeta (1 - z) + nu) c, with the gate factored out
    kept = s.op("Mul", z, s.op("Sub", "h", s.op("Mul", c, s.scalar(body.zeta, np.float32))))
    h = s.op("Add", kept, s.op("Mul", c, s.scalar(body.zeta + body.nu, np.float32)))
    return _scanned(g, s, [("h", h, TensorProto.FLOAT)], x, drive, h, len(body.state_weight))


def _pool(g: _Graph, body: AttentionPool, x: str) -> str:
    within = _within(g, x, TensorProto.FLOAT)
    real = g.op("Unsqueeze", _inside(g, x), g.ints(2))
    values = g.op("Mul", _dense(g, body.value, x), within)
    attention = g.op("Mul", _dense(g, body.attention, x), within)
    pooled = []
    for kernel in body.kernels:
        out, width = kernel.value_weight.shape[:2]
        value = _linear(g, kernel.value_weight.reshape(out, -1), kernel.value_bias, _windows(g, values, width))
        logit = _linear(
            g, kernel.attention_weight.reshape(out, -1), kernel.attention_bias, _windows(g, attention, width)
        )
        share = g.op("Softmax", g.op("Where", real, logit, g.scalar(-np.inf, np.float32)), axis=1)
        pooled.append(g.op("ReduceSum", g.op("Mul", share, value), g.ints(1), keepdims=0))
    return g.op("Concat", *pooled, axis=1)


# --- int8 ---------------------------------------------------------------------------------------------


def _matrix(g: _Graph, product: Product, shift: int, kind: int = TensorProto.FLOAT) -> str:
    """The weights with multiplier and shift in them, [in out], unpacked from int8 in the graph."""
    scale = g.cast(g.constant(product.multiplier[:, None], "multiplier"), kind)
    scale = g.op("Mul", scale, g.scalar(2.0**-shift, helper.tensor_dtype_to_np_dtype(kind).type))
    return g.op("Transpose", g.op("Mul", g.cast(g.constant(product.weight, "weight"), kind), scale), perm=[1, 0])


def _affine(g: _Graph, layer: Affine, x: str, low: int, high: int) -> str:
    """x [... in] -> the layer's integers within low..high, as float32."""
    y = g.op("Add", g.op("MatMul", x, _matrix(g, layer.product, layer.shift)), g.constant(layer.offset(), "bias"))
    return g.clip(g.op("Floor", y), max(low, 0) if layer.relu else low, high, np.float32)


def _sigma(g: _Graph) -> str:
    """The table of fixed.sigma(), float64 [4096]."""
    base, slope = (g.cast(g.constant(part, "segments"), TensorProto.INT32) for part in fixed.segments())
    cell = g.op("Range", *(g.scalar(v, np.int32) for v in (0, 2048, 1)))
    segment = g.op("Div", cell, g.scalar(32, np.int32))
    rise = g.op("Mul", g.op("Gather", slope, segment), g.op("Sub", cell, g.op("Mul", segment, g.scalar(32, np.int32))))
    right = g.op("Add", g.op("Gather", base, segment), g.op("Div", rise, g.scalar(8, np.int32)))
    mirrored = g.op("Gather", right, g.op("Range", *(g.scalar(v, np.int32) for v in (2047, -1, -1))))
    left = g.op("Sub", g.scalar(32768, np.int32), mirrored)
    return g.cast(g.op("Concat", left, right, axis=0), TensorProto.DOUBLE)


def _scaled(g: _Graph, table: str, scale: float, offset: float = 0.0) -> str:
    product = g.op("Mul", table, g.scalar(scale, np.float64))
    return g.op("Add", product, g.scalar(offset, np.float64)) if offset else product


def _drive(g: _Graph, body: FixedLstm | FixedFastGrnn, x: str, bias: np.ndarray) -> str:
    """What the input alone adds to the sums, with the offset into the table, [seq batch out]."""
    drive = g.op("MatMul", g.op("Transpose", x, perm=[1, 0, 2]), _matrix(g, body.input, body.shift))
    return g.op("Add", drive, g.constant(fixed.scaled(bias, body.shift) + np.float32(fixed.TABLE), "bias"))


def _fixed_body(g: _Graph, program: FixedProgram, x: str) -> str:
    """The state, float64 [batch feat]."""
    match program.body:
        case FixedLstm() as body:
            return _fixed_lstm(g, body, x)
        case FixedFastGrnn() as body:
            return _fixed_fastgrnn(g, body, x)
        case FixedPool() as body:
            return _fixed_pool(g, body, x, fixed.power_bits(program.max_tokens))
        case FixedMean():
            return _fixed_mean(g, x)
        case _:
            assert_never(program.body)


def _fixed_lstm(g: _Graph, body: FixedLstm, x: str) -> str:
    units = body.state.weight.shape[1]
    drive, state = _drive(g, body, x, body.bias), _matrix(g, body.state, body.shift)
    sigma = _sigma(g)
    tau = _scaled(g, sigma, 2.0, -32768.0)
    cell_table = g.op("Floor", _scaled(g, tau, 2.0**-4))
    table = g.op("Concat", _scaled(g, sigma, 2.0**-15), cell_table, axis=0)
    which = np.repeat(np.array([0, 0, 4096, 0], np.int32), units)
    s = _Graph(g)
    pre = s.op("Add", s.op("MatMul", "h", state), "drive")
    place = s.op("Add", s.index(pre, 4096, np.float32), s.constant(which, "tables"))
    gates = s.op("Gather", table, place)
    inward, forget, cell, outward = s.ops("Split", 4, gates, axis=1)
    c = s.op("Add", s.op("Mul", forget, "c"), s.op("Mul", inward, cell))
    c = s.saturated(s.rounded(c, np.float64), 15, np.float64)
    place = s.index(
        s.op("Add", s.op("Mul", c, s.scalar(0.25, np.float64)), s.scalar(2048, np.float64)), 4096, np.float64
    )
    product = s.op("Mul", outward, s.op("Gather", _scaled(g, tau, 2.0**-8), place))  # in units of the int8 h
    h = s.cast(s.op("Min", s.rounded(product, np.float64), s.scalar(127, np.float64)), TensorProto.FLOAT)
    states = [("h", h, TensorProto.FLOAT), ("c", c, TensorProto.DOUBLE)]
    last = _scanned(g, s, states, x, drive, product, units)
    return g.op("Floor", _scaled(g, last, 2.0**8))


def _fixed_fastgrnn(g: _Graph, body: FixedFastGrnn, x: str) -> str:
    drive, state = _drive(g, body, x, body.bias_update), _matrix(g, body.state, body.shift)
    sigma = _sigma(g)
    tau = g.op("Floor", _scaled(g, _scaled(g, sigma, 2.0, -32768.0), 2.0 ** (body.state_bits - 14)))
    # the gate's table, and r's beside it, are indexed in Q9 as the update's is: every entry stands twice
    half = g.op("Range", *(g.scalar(v, np.int32) for v in (0, 8192, 1)))
    z_table = g.op("Gather", sigma, g.op("Div", half, g.scalar(2, np.int32)))
    rest = _scaled(g, z_table, -float(body.zeta), 32768.0 * body.zeta)
    r_table = _scaled(g, g.op("Floor", _scaled(g, rest, 2.0**-15)), 1.0, float(body.nu))
    s = _Graph(g)
    pre = s.op("Add", s.op("MatMul", "u", state), "drive")
    t = s.op("Gather", tau, s.index(pre, 4096, np.float32))
    place = s.index(s.op("Add", pre, s.constant(fixed.gate_offset(body), "bias")), 8192, np.float32)
    z = s.op("Gather", _scaled(g, z_table, 2.0**-15), place)
    r = s.op("Gather", _scaled(g, r_table, 2.0**-15), place)
    h = s.op("Add", s.op("Mul", z, "h"), s.op("Mul", r, t))
    h = s.saturated(s.rounded(h, np.float64), 15, np.float64)
    u = s.op("Mul", h, s.scalar(body.copy_multiplier * 2.0**-15, np.float64))
    u = s.cast(s.saturated(s.rounded(u, np.float64), 7, np.float64), TensorProto.FLOAT)
    states = [("u", u, TensorProto.FLOAT), ("h", h, TensorProto.DOUBLE)]
    return _scanned(g, s, states, x, drive, h, len(body.bias_gate))


def _fixed_pool(g: _Graph, body: FixedPool, x: str, bits: int) -> str:
    within = _within(g, x, TensorProto.FLOAT)
    real = g.op("Unsqueeze", _inside(g, x), g.ints(2))
    values = g.op("Mul", _affine(g, body.value, x, -127, 127), within)
    attention = g.op("Mul", _affine(g, body.attention, x, -127, 127), within)
    power = g.constant(fixed.powers(bits).astype(np.float32), "powers")
    halvings = g.constant(2.0 ** -np.arange(32, dtype=np.float32), "halvings")
    steps = 1 << fixed.ATTENTION_BITS
    edge = fixed.OCTAVES * steps
    pooled = []
    for kernel in body.kernels:
        value = _affine(g, kernel.value, _windows(g, values, kernel.width), -127, 127)
        index = _affine(g, kernel.attention, _windows(g, attention, kernel.width), -edge, edge - 1)
        octave = g.op("Floor", g.op("Mul", index, g.scalar(1 / steps, np.float32)))
        step = g.op("Sub", index, g.op("Mul", octave, g.scalar(steps, np.float32)))
        weight = g.op("Gather", power, g.cast(step, TensorProto.INT32))
        seen = g.op("Where", real, octave, g.scalar(-2 * fixed.OCTAVES, np.float32))
        below = g.op("Sub", g.op("ReduceMax", seen, axes=[1], keepdims=1), seen)
        factor = g.op("Gather", halvings, g.index(below, 32, np.float32))
        share = g.op("Mul", g.op("Floor", g.op("Mul", weight, factor)), within)
        total = _summed(g, share)
        part = _summed(g, g.op("Mul", share, g.op("Add", value, g.scalar(128, np.float32))))
        mean = g.op("Div", g.op("Mul", part, g.scalar(128, np.int64)), total)
        pooled.append(g.op("Sub", mean, g.scalar(1 << 14, np.int64)))
    return g.cast(g.op("Concat", *pooled, axis=1), TensorProto.DOUBLE)


def _summed(g: _Graph, x: str) -> str:
    """Integers [batch seq feat] over time, int64 [batch feat]."""
    return g.op("ReduceSum", g.cast(x, TensorProto.INT64), g.ints(1), keepdims=0)


def _fixed_mean(g: _Graph, x: str) -> str:
    count = g.op("Unsqueeze", g.cast("lengths", TensorProto.INT64), g.ints(1))
    total = _summed(g, g.op("Mul", x, _within(g, x, TensorProto.FLOAT)))
    raised = g.op("Add", total, g.op("Mul", count, g.scalar(128, np.int64)))
    half = g.op("Div", count, g.scalar(2, np.int64))
    mean = g.op("Div", g.op("Add", g.op("Mul", raised, g.scalar(128, np.int64)), half), count)
    return g.cast(g.op("Sub", mean, g.scalar(1 << 14, np.int64)), TensorProto.DOUBLE)


def _fixed_head(g: _Graph, program: FixedProgram, state: str) -> str:
    head = program.head
    matrix = _matrix(g, head.product, head.shift, TensorProto.DOUBLE)
    y = g.op("Add", g.op("MatMul", state, matrix), g.constant(head.bias * 2.0**-head.shift, "bias"))
    y = g.op("Floor", y)
    if head.relu:
        y = g.op("Max", y, g.scalar(0, np.float64))
    return g.cast(_scaled(g, y, 2.0**-program.logit_bits), TensorProto.FLOAT)
