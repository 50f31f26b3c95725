"""The deployed int8 program: one text is the same bits on every machine.

A :class:`FixedProgram` is integers only. It is executed here by numpy, many texts at once; emitted as ONNX by
:mod:`grit.bench.export.onnx`; and small enough in its needs (8-bit weights, 16-bit states, 32-bit sums, shifts, one
division a feature) to be compiled for a microcontroller. All of them give the same logits, bit for bit, in every batch,
order and padding. What follows is the specification; the code below is its fast batched form.

**Words.** Integers are two's complement; ``>>`` is the arithmetic shift, so it floors; ``sat(v, a, b)`` is v
limited to a..b; Qn means "times 2^-n". Each text is read to at most ``max_tokens`` tokens.

**Affine layer.** For input x (int8, or ternary digits) and row r::

    P_r = multiplier_r * sum_j weight_rj x_j + bias_r        y_r = P_r >> shift

weight int8 in -127..127, multiplier int16 > 0, bias int32 (half a step for rounding is part of it). A recurrent layer
adds two such products before the shift, of the input and of the state, each with its own multipliers. The bytes are
such that ``multiplier_r * sum_j |weight_rj| * max|x_j| + |bias_r| < 2^24`` (2^31 for the head). So no order of
summation overflows 32 bits, and every partial sum is exact in a float32 multiply-add as well, which is how numpy and
ONNX do it: in IEEE arithmetic without rounding there is nothing that a BLAS, a batch or a thread could change.
Every row has a scale of its own: the multiplier is chosen first and the weights are rounded to what it makes of
them, so it costs no accuracy (:mod:`grit.bench.export.quantise`).

**Activations.** One table of 64 segments serves both. For i = sat(i, -2048, 2047), a pre-activation in Q8::

    j = i if i >= 0 else ~i                                   # 0..2047; cell j is the interval [j, j+1) / 256
    s = BASE[j >> 5] + (SLOPE[j >> 5] * (j & 31) >> 3)        # 16-bit and 8-bit entries
    sigma(i) = s if i >= 0 else 32768 - s                     # Q15
    tau(i) = 2 sigma(i) - 32768                               # tanh of a pre-activation in Q9, in Q15

**Lstm** (gates in the order input, forget, cell, output; h int8 Q7 and c int16 Q11 start at 0)::

    y = (input(x) + state(h) + bias) >> shift                 # Q8 for the three sigmoids, Q9 for the cell gate
    c = sat((sigma(y_f) c + sigma(y_i) (tau(y_g) >> 4) + 2^14) >> 15, -2^15, 2^15 - 1)
    product = sigma(y_o) tau(c >> 2)                          # Q30
    h = sat((product + 2^22) >> 23, -128, 127)                state = product >> 15 after the last token

**FastGrnn** (h int16 Q(state_bits) starts at 0; state_bits <= 14; zeta and nu in Q14)::

    u = sat((h copy_multiplier + 2^14) >> 15, -128, 127)      # the int8 copy that the matrix sees
    P = input(x) + state(u)
    z = sigma((P + bias_gate) >> (shift + 1))                 t = tau((P + bias_update) >> shift)
    r = nu + (zeta (32768 - z) >> 15)
    h = sat((z h + r (t >> (14 - state_bits)) + 2^14) >> 15, -2^15, 2^15 - 1)
    state = h after the last token

**AttentionPool** (per token v = value(x), a = attention(x), each sat(., 0 or -127, 127)). For each kernel of width k
at each token, over v (a) of this token and the next k - 1, zeros beyond the end::

    v' = sat(value(...), -127, 127)                           i = sat(attention(...), -6144, 6143)   # 64 to an octave
    top = max over time (i >> 6)                              e = POWER[i & 63] >> (top - (i >> 6))
    S = sum over time e                                       s = sum over time e (v' + 128)
    state = ((s // S) << 7) + (((s % S) << 7) // S) - 2^14    # the weighted mean of v' in Q7

POWER[f] = round(2^(power_bits + (f + 1/2) / 64)), 16 bits; power_bits is the largest up to 15 for which
255 * max_tokens * 2^(power_bits + 1) < 2^31.

**Mean**: ``state = (((sum over time x + 128 n) << 7) + n // 2) // n - 2^14`` for n tokens.

**Head**: an affine layer over the state (int16); logit = y * 2^-logit_bits, |y| < 2^24, so a float32 holds it exactly.
A ``relu`` layer takes max(y, 0).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from grit.bench.export import words
from grit.bench.export.floating import MAX_ORDER
from grit.bench.types import MalformedInput, Rows, Ternary

TABLE = 2048  # cells of a table on either side of 0
EXACT = 1 << 24  # below it every integer is a float32
WORD = 1 << 31  # below it every integer is an int32
MAX_TOKENS = 4096  # of one text: the sums of the poolings stay below 2^31
OCTAVES = 96  # the attention logits span this many octaves on either side of 0
ATTENTION_BITS = 6  # steps of an octave, as a power of two
TEXTS_AT_ONCE = 512  # of these the states of all layers stay in the second-level cache
CELLS_AT_ONCE = 1 << 17  # likewise, of a pooling: texts times tokens times channels
NGRAMS_KEPT = 1 << 17  # outputs of distinct n-grams that a pooling remembers before it starts afresh


# --- the program ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Product:
    """``multiplier * (weight @ x)``."""

    weight: np.ndarray  # int8 [out in]
    multiplier: np.ndarray  # int16 [out]

    def reach(self, largest: np.ndarray) -> np.ndarray:
        """The largest magnitude of any part of each row's sum, int64 [out]; ``largest`` [in] bounds the inputs."""
        return self.multiplier.astype(np.int64) * (np.abs(self.weight.astype(np.int64)) @ largest.astype(np.int64))

    def matrix(self, shift: int, dtype: type = np.float32) -> np.ndarray:
        """The weights with multiplier and shift in them, [in out]: products with integers are exact."""
        return np.ascontiguousarray(self.weight.T * self.multiplier.astype(np.float64) * 2.0**-shift, dtype)


@dataclass(frozen=True)
class Affine:
    """``(product(x) + bias) >> shift``, and not below 0 with ``relu``."""

    product: Product
    bias: np.ndarray  # int32 [out]
    shift: int
    relu: bool = False

    def reach(self, largest: np.ndarray) -> int:
        """The largest magnitude before the shift."""
        return int((self.product.reach(largest) + np.abs(self.bias.astype(np.int64))).max())

    def matrix(self) -> np.ndarray:
        return self.product.matrix(self.shift)

    def offset(self) -> np.ndarray:
        return scaled(self.bias, self.shift)


@dataclass(frozen=True)
class FixedLstm:
    input: Product
    state: Product
    bias: np.ndarray  # int32 [4h]
    shift: int


@dataclass(frozen=True)
class FixedFastGrnn:
    input: Product
    state: Product
    bias_gate: np.ndarray  # int32 [h]
    bias_update: np.ndarray  # int32 [h]
    shift: int
    zeta: int  # Q14
    nu: int  # Q14
    state_bits: int
    copy_multiplier: int  # Q15


@dataclass(frozen=True)
class FixedKernel:
    """A convolution of ``width`` tokens: its layers read their features side by side."""

    width: int
    value: Affine
    attention: Affine


@dataclass(frozen=True)
class FixedPool:
    value: Affine
    attention: Affine
    kernels: tuple[FixedKernel, ...]


@dataclass(frozen=True)
class FixedMean:
    pass


Body = FixedLstm | FixedFastGrnn | FixedPool | FixedMean


@dataclass(frozen=True)
class FixedProgram:
    """A quantised :class:`grit.bench.types.Program`; the table of :class:`Rows` is int8 here."""

    words: Rows | Ternary
    body: Body
    head: Affine
    logit_bits: int
    vocabulary: tuple[str, ...]
    max_tokens: int

    def check(self) -> None:
        """Every shape, type and bound of the specification, or MalformedInput: a file is not believed."""
        _check(self)


def scaled(bias: np.ndarray, shift: int) -> np.ndarray:
    """A bias at the scale of :meth:`Product.matrix`, float32 and exact."""
    return (bias * 2.0**-shift).astype(np.float32)


def gate_offset(body: FixedFastGrnn) -> np.ndarray:
    """What turns the update's index (with its offset, in Q9) into the gate's (with twice the offset), float32 [h]."""
    return scaled(body.bias_gate.astype(np.int64) - body.bias_update, body.shift) + np.float32(TABLE)


def power_bits(max_tokens: int) -> int:
    """The exponent of the largest weight of a pooling over at most this many tokens."""
    return min(((WORD - 1) // (255 * max_tokens)).bit_length() - 2, 15)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise MalformedInput(f"not a fixed-point program: {what}; export the model again")


def _check_product(name: str, product: Product, largest: np.ndarray) -> None:
    _require(
        product.weight.dtype == np.int8
        and product.multiplier.dtype == np.int16
        and product.weight.ndim == 2
        and product.multiplier.shape == product.weight.shape[:1],
        f"{name} is not int8 [out in] times int16 [out]",
    )
    out, features = product.weight.shape
    _require(features == len(largest), f"{name} reads {features} features, not {len(largest)}")
    _require(out > 0, f"{name} has no outputs")
    _require(
        bool((product.multiplier > 0).all()) and bool((product.weight >= -127).all()), f"{name} has an illegal weight"
    )


def _check_bias(name: str, bias: np.ndarray, out: int, shift: int) -> None:
    _require(bias.dtype == np.int32 and bias.shape == (out,), f"{name}'s bias is not int32 [{out}]")
    _require(0 <= shift <= 30, f"{name} shifts by {shift}")


def _check_affine(name: str, layer: Affine, largest: np.ndarray, limit: int = EXACT) -> None:
    _check_product(name, layer.product, largest)
    _check_bias(name, layer.bias, len(layer.product.weight), layer.shift)
    _require(layer.reach(largest) < limit, f"{name} can overflow")


def _check_recurrent(body: FixedLstm | FixedFastGrnn, largest: np.ndarray, units: int, gates: int) -> None:
    name = type(body).__name__
    limits = np.full(units, 128)
    _check_product(name, body.input, largest)
    _check_product(name, body.state, limits)
    _require(len(body.input.weight) == len(body.state.weight) == gates * units, f"{name} has gates of different sizes")
    biases = (body.bias,) if isinstance(body, FixedLstm) else (body.bias_gate, body.bias_update)
    for bias in biases:
        _check_bias(name, bias, gates * units, body.shift)
    # beside a sum stand its bias and the offset into the table
    reach = body.input.reach(largest) + body.state.reach(limits)
    offset = TABLE * len(biases) << body.shift
    _require(
        int((reach + sum(np.abs(bias.astype(np.int64)) for bias in biases)).max()) + offset < EXACT,
        f"{name} can overflow",
    )


def _check(program: FixedProgram) -> None:
    _require(1 <= program.max_tokens <= MAX_TOKENS, f"max_tokens is {program.max_tokens}, not 1 to {MAX_TOKENS}")
    _require(-64 <= program.logit_bits <= 64, f"logit_bits is {program.logit_bits}")
    layer = program.words
    if isinstance(layer, Ternary):
        _require(1 <= layer.width <= 4096, f"{layer.width} ternary features")
        largest = np.ones(layer.width, np.int64)
    else:
        _require(layer.table.dtype == np.int8 and layer.table.ndim == 2, "the word table is not int8 [rows feat]")
        _require(
            min(layer.table.shape) > 0 and bool((layer.table >= -127).all()), "the word table is empty or not symmetric"
        )
        _require(0 <= layer.ngrams <= MAX_ORDER, f"n-grams of order {layer.ngrams}")
        largest = np.full(layer.table.shape[1], 127)
    if isinstance(layer, Ternary) or layer.ngrams:
        _require(not program.vocabulary, "a hashing program has a vocabulary")
    else:
        _require(len(program.vocabulary) == len(layer.table), "vocabulary and word table differ in length")
        _require(program.vocabulary[0] == "", "row 0 of the vocabulary is not the unknown word")
        _require(len(set(program.vocabulary)) == len(program.vocabulary), "a word stands twice in the vocabulary")
    body = program.body
    if isinstance(body, FixedLstm):
        units = body.state.weight.shape[-1]
        _check_recurrent(body, largest, units, 4)
        state = np.full(units, 32768)
    elif isinstance(body, FixedFastGrnn):
        units = body.state.weight.shape[-1]
        _check_recurrent(body, largest, units, 1)
        _require(min(body.zeta, body.nu) >= 0 and body.zeta + body.nu < 32768, "zeta or nu is out of range")
        _require(0 <= body.state_bits <= 14, f"the state has {body.state_bits} bits")
        _require(0 < body.copy_multiplier < 32768, f"the copy multiplier is {body.copy_multiplier}")
        state = np.full(units, 32768)
    elif isinstance(body, FixedPool):
        _check_affine("value", body.value, largest)
        _check_affine("attention", body.attention, largest)
        _require(1 <= len(body.kernels) <= 64, f"{len(body.kernels)} kernels")
        for kernel in body.kernels:
            _require(1 <= kernel.width <= 16, f"a kernel of width {kernel.width}")
            _require(kernel.value.bias.shape == kernel.attention.bias.shape, "values and attention differ in channels")
            for name, below, conv in (
                ("value", body.value, kernel.value),
                ("attention", body.attention, kernel.attention),
            ):
                _check_affine(f"{name} kernel", conv, np.full(kernel.width * len(below.bias), 127))
        state = np.full(sum(len(kernel.value.bias) for kernel in body.kernels), 1 << 14)
    else:
        state = np.full(len(largest), 1 << 14)
    _check_affine("head", program.head, state, WORD)
    _require(program.head.reach(state) >> program.head.shift < EXACT - 1, "a logit can exceed 24 bits")


# --- tables -----------------------------------------------------------------------------------------


def segments() -> tuple[np.ndarray, np.ndarray]:
    """BASE (int16) and SLOPE (uint8) of the 64 segments of the sigmoid over [0, 8)."""
    ends = [math.floor(32768 / (1 + math.exp(-(32 * k + 0.5) / 256)) + 0.5) for k in range(65)]
    base = np.array(ends[:64], np.int16)
    slope = np.array([(right - left) >> 2 for left, right in pairwise(ends)], np.uint8)
    return base, slope


def sigma() -> np.ndarray:
    """sigma(i) for i = -2048..2047, int32 [4096] in Q15."""
    base, slope = segments()
    cell = np.arange(2048)
    right = base[cell >> 5].astype(np.int32) + (slope[cell >> 5].astype(np.int32) * (cell & 31) >> 3)
    return np.concatenate([(32768 - right)[::-1], right]).astype(np.int32)


def tau() -> np.ndarray:
    """tau(i) for i = -2048..2047, int32 [4096] in Q15."""
    return 2 * sigma() - 32768


def powers(bits: int) -> np.ndarray:
    """POWER, int32 [64]: an octave from 2^bits up, each entry the middle of its cell."""
    steps = 1 << ATTENTION_BITS
    return np.array([math.floor(2.0 ** (bits + (f + 0.5) / steps) + 0.5) for f in range(steps)], np.int32)


# --- the bodies, batched ----------------------------------------------------------------------------
# Each is told of new rows by ``learn(features int8 [rows feat])`` and keeps what depends on a row alone.
# ``states(rows, lengths)``: rows int32 [batch seq], lengths [batch] -> int32 [batch feat].
# The matrices carry the shift, so a float here is the integer of the specification times 2^-shift, still exact.
# Casting to an index drops the fraction towards zero, not down: the offset makes legal indices positive,
# and all others end at the edge of the table anyway (``mode="clip"``).

# (numpy clips faster to numbers of its own)
_INT8, _INT16 = ((np.int32(-(1 << bits)), np.int32((1 << bits) - 1)) for bits in (7, 15))


class _Level(NamedTuple):
    """One step of all texts of a batch: each state is computed once for all texts that begin alike."""

    tokens: np.ndarray  # [nodes] the row read
    parents: np.ndarray | None  # [nodes] the node before it, in the level before; None: each its own, in order
    ended: np.ndarray  # [texts] the texts whose last token this is
    last: np.ndarray  # [texts] and their nodes


def _levels(rows: np.ndarray, lengths: np.ndarray) -> Iterator[_Level]:
    """The tree of beginnings of a batch, a level a token; before the first level stands one node."""
    seq = np.arange(rows.shape[1])
    inside = np.where(seq < lengths[:, None], rows, np.int32(-1))
    # any order will do that puts equal beginnings side by side: that of the bytes is the cheapest
    order = np.argsort(inside.view(f"V{4 * inside.shape[1]}").ravel(), kind="stable")
    inside, ends = inside[order], lengths[order]
    differ = inside[1:] != inside[:-1]
    common = np.where(differ.any(axis=1), differ.argmax(axis=1), len(seq))  # tokens shared with the text before
    fresh = (np.concatenate([[0], common]) <= seq[:, None]) & (seq[:, None] < ends)  # [seq batch]
    nodes = np.cumsum(fresh, axis=1) - 1
    # the nodes of all levels in one line, level t from starts[t] to starts[t + 1]
    level, first = np.nonzero(fresh)
    counts = np.count_nonzero(fresh, axis=1)
    starts = np.concatenate([[0], np.cumsum(counts)])
    tokens = inside[first, level]
    parents = np.where(level > 0, nodes[level - 1, first], 0)
    own = np.logical_and.reduceat(parents == np.arange(len(level)) - starts[level], starts[:-1])
    kept = own & (counts == np.concatenate([[1], counts[:-1]]))
    by_end = np.argsort(ends, kind="stable")
    last = nodes[ends[by_end] - 1, by_end]
    cuts = np.searchsorted(ends[by_end], seq + 1, side="right")
    ended, begin = order[by_end], 0
    for t, cut in enumerate(cuts.tolist()):
        here = slice(starts[t], starts[t + 1])
        yield _Level(tokens[here], None if kept[t] else parents[here], ended[begin:cut], last[begin:cut])
        begin = cut


def _cut(room: np.ndarray, *shape: int) -> np.ndarray:
    """The beginning of a flat array, as an array of ``shape``."""
    return room[: math.prod(shape)].reshape(shape)


class _LstmStates:
    def __init__(self, body: FixedLstm) -> None:
        self._units = units = body.state.weight.shape[1]

        def gates(rows: np.ndarray) -> np.ndarray:
            """[... 4h] -> [4 ... h], the three sigmoids side by side."""
            return np.stack([rows[..., k * units : (k + 1) * units] for k in (0, 1, 3, 2)])

        self._input, self._state = gates(body.input.matrix(body.shift)), gates(body.state.matrix(body.shift))
        self._offset = gates(scaled(body.bias, body.shift))[:, None] + np.float32(TABLE)
        self._drives = [words.Growing(np.zeros((0, units), np.float32)) for _ in range(4)]
        self._sigma, self._cell, self._tau = sigma(), tau() >> 4, tau()

    def learn(self, features: np.ndarray) -> None:
        fresh = np.matmul(features.astype(np.float32), self._input) + self._offset  # [4 rows h]
        for drive, rows in zip(self._drives, fresh, strict=True):
            drive.add(rows)

    def states(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        units, cells = self._units, 4 * len(rows) * self._units
        state = np.empty((len(rows), units), np.int32)
        h, c = np.zeros((1, units), np.float32), np.zeros((1, units), np.int32)
        drives, sums = np.empty(cells, np.float32), np.empty(cells, np.float32)
        indices, gates = np.empty(cells, np.intp), np.empty(cells, np.int32)
        for tokens, parents, ended, last in _levels(rows, lengths):
            if parents is not None:
                h, c = h.take(parents, axis=0, mode="clip"), c.take(parents, axis=0, mode="clip")
            n = len(tokens)
            drive, pre = _cut(drives, 4, n, units), _cut(sums, 4, n, units)
            index, gate = _cut(indices, 4, n, units), _cut(gates, 4, n, units)
            for k, known in enumerate(self._drives):
                known.array.take(tokens, axis=0, out=drive[k], mode="clip")
            np.matmul(h, self._state, out=pre)
            pre += drive
            np.copyto(index, pre, casting="unsafe")
            self._sigma.take(index[:3], out=gate[:3], mode="clip")
            self._cell.take(index[3], out=gate[3], mode="clip")
            inward, forget, outward, cell = gate
            c *= forget
            cell *= inward
            c += cell
            c += 1 << 14
            c >>= 15
            np.clip(c, *_INT16, out=c)
            np.right_shift(c, 2, out=index[0])
            index[0] += TABLE
            self._tau.take(index[0], out=cell, mode="clip")
            outward *= cell
            state[ended] = outward[last] >> 15
            outward += 1 << 22
            outward >>= 23
            np.minimum(outward, 127, out=h)
        return state


class _FastGrnnStates:
    def __init__(self, body: FixedFastGrnn) -> None:
        self._body = body
        self._input, self._state = body.input.matrix(body.shift), body.state.matrix(body.shift)
        self._offset = scaled(body.bias_update, body.shift) + np.float32(TABLE)
        self._gate = gate_offset(body)
        self._drive = words.Growing(np.zeros((0, len(self._state)), np.float32))
        self._sigma = np.repeat(sigma(), 2)  # indexed in Q9, as the update is
        self._tau = tau() >> 14 - body.state_bits

    def learn(self, features: np.ndarray) -> None:
        self._drive.add(features.astype(np.float32) @ self._input + self._offset)

    def states(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        body, units = self._body, len(self._state)
        state = np.empty((len(rows), units), np.int32)
        h, u = np.zeros((1, units), np.int32), np.zeros((1, units), np.float32)
        cells = state.size
        drives, sums, indices = np.empty(cells, np.float32), np.empty(cells, np.float32), np.empty(cells, np.intp)
        gates, rests, updates = (np.empty(cells, np.int32) for _ in range(3))
        for tokens, parents, ended, last in _levels(rows, lengths):
            if parents is not None:
                h, u = h.take(parents, axis=0, mode="clip"), u.take(parents, axis=0, mode="clip")
            drive, pre, index, z, r, t = (
                _cut(room, *h.shape) for room in (drives, sums, indices, gates, rests, updates)
            )
            self._drive.array.take(tokens, axis=0, out=drive, mode="clip")
            np.matmul(u, self._state, out=pre)
            pre += drive
            np.copyto(index, pre, casting="unsafe")
            self._tau.take(index, out=t, mode="clip")
            pre += self._gate
            np.copyto(index, pre, casting="unsafe")
            self._sigma.take(index, out=z, mode="clip")
            np.subtract(32768, z, out=r)
            r *= body.zeta
            r >>= 15
            r += body.nu
            h *= z
            t *= r
            h += t
            h += 1 << 14
            h >>= 15
            np.clip(h, *_INT16, out=h)
            state[ended] = h[last]
            np.multiply(h, body.copy_multiplier, out=r)
            r += 1 << 14
            r >>= 15
            np.clip(r, *_INT8, out=r)
            np.copyto(u, r, casting="unsafe")
        return state


class _MeanStates:
    def __init__(self, features: int) -> None:
        self._table = words.Growing(np.zeros((1, features), np.int32))  # entry 0: beyond the end

    def learn(self, features: np.ndarray) -> None:
        self._table.add(features.astype(np.int32))

    def states(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        entries = rows + 1
        entries[np.arange(rows.shape[1]) >= lengths[:, None]] = 0
        n = lengths[:, None].astype(np.int32)
        sums = np.add.reduce(self._table.array[entries], axis=1, dtype=np.int32) + 128 * n
        return ((sums << 7) + n // 2) // n - (1 << 14)


class _PoolStates:
    """Outputs of a convolution depend on an n-gram alone: texts that differ in a word share nearly all of them."""

    def __init__(self, body: FixedPool, max_tokens: int) -> None:
        self._layers = [
            (layer.matrix(), layer.offset(), 0 if layer.relu else -127) for layer in (body.value, body.attention)
        ]
        self._features = [
            words.Growing(np.zeros((1, len(layer.bias)), np.int8)) for layer in (body.value, body.attention)
        ]
        self._bits = power_bits(max_tokens)
        self._power = powers(self._bits)
        self._kernels = [_KernelOutputs(kernel, self._power) for kernel in body.kernels]
        self._ngrams = _Ngrams(max(kernel.width for kernel in body.kernels))

    def learn(self, features: np.ndarray) -> None:
        inputs = features.astype(np.float32)
        for known, (matrix, offset, low) in zip(self._features, self._layers, strict=True):
            known.add(np.clip(np.floor(inputs @ matrix + offset), low, 127).astype(np.int8))

    def states(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        entries = rows + 1
        entries[np.arange(rows.shape[1]) >= lengths[:, None]] = 0
        if self._ngrams.full():
            self._ngrams.forget()
            for kernel in self._kernels:
                kernel.forget()
        names = self._ngrams.names(entries)
        return np.concatenate([self._pooled(kernel, names[kernel.width - 1]) for kernel in self._kernels], axis=1)

    def _pooled(self, kernel: _KernelOutputs, names: np.ndarray) -> np.ndarray:
        kernel.learn(self._ngrams.members[kernel.width - 1].array, self._features)
        batch, seq = names.shape
        channels = kernel.value.array.shape[1]
        state = np.empty((batch, channels), np.int32)
        step = max(1, CELLS_AT_ONCE // (seq * channels))
        for start in range(0, batch, step):
            part = names[start : start + step].T
            part = part[: np.count_nonzero(part, axis=0).max()]
            weight = kernel.weight.array.take(part, axis=0)  # [seq part feat]: time first is what adds up fastest
            _, exponent = np.frexp(weight.max(axis=0))
            weight *= np.ldexp(np.float32(1), self._bits + 1 - exponent)
            share = weight.astype(np.int32)
            total = np.add.reduce(share, axis=0, dtype=np.int32)
            share *= kernel.value.array.take(part, axis=0)
            mean = (np.add.reduce(share, axis=0, dtype=np.int32).astype(np.int64) << 7) // total
            state[start : start + step] = mean - (1 << 14)
        return state


class _KernelOutputs:
    """Value + 128 and attention weight (POWER[i & 63] 2^(i >> 6), exact in float32) of every n-gram seen; 0 outside."""

    def __init__(self, kernel: FixedKernel, power: np.ndarray) -> None:
        self.width = kernel.width
        self._power = power.astype(np.float32)
        self._value = kernel.value.matrix(), kernel.value.offset(), 0 if kernel.value.relu else -127
        self._attention = kernel.attention.matrix(), kernel.attention.offset(), kernel.attention.relu
        self.forget()

    def forget(self) -> None:
        channels = self._value[0].shape[1]
        self.value = words.Growing(np.zeros((1, channels), np.int32))
        self.weight = words.Growing(np.zeros((1, channels), np.float32))

    def learn(self, members: np.ndarray, features: Sequence[words.Growing]) -> None:
        """members [ngrams width]: entries of the token features; those beyond the known ones are computed."""
        fresh = members[len(self.value.array) :]
        if not len(fresh):
            return
        values, attention = (
            known.array.take(fresh, axis=0).reshape(len(fresh), -1).astype(np.float32) for known in features
        )
        matrix, offset, low = self._value
        value = np.clip(np.floor(values @ matrix + offset), low, 127)
        matrix, offset, relu = self._attention
        edge = OCTAVES << ATTENTION_BITS
        index = np.clip(np.floor(attention @ matrix + offset), 0 if relu else -edge, edge - 1).astype(np.int32)
        self.weight.add(np.ldexp(self._power[index & (1 << ATTENTION_BITS) - 1], index >> ATTENTION_BITS))
        self.value.add((value + 128).astype(np.int32))


class _Ngrams:
    """Names (small integers) for the n-grams of token entries up to an order; name 0 is "beyond the end".

    The name of an n-gram is that of the pair (name of its first n - 1 entries, last entry), found in a table of one
    slot a hash value. A pair that was pushed out of its slot is named anew: wasteful, and harmless.
    """

    SLOTS = 20  # as a power of two

    def __init__(self, order: int) -> None:
        self._order = order
        self.forget()

    def forget(self) -> None:
        self.members = [words.Growing(np.zeros((1, width), np.int32)) for width in range(1, self._order + 1)]
        """For each order, int32 [names order]: the entries that a name stands for."""
        self._keys = [np.zeros(1 << self.SLOTS, np.int64) for _ in range(1, self._order)]
        self._names = [np.zeros(1 << self.SLOTS, np.int32) for _ in range(1, self._order)]

    def full(self) -> bool:
        return any(len(members.array) > NGRAMS_KEPT for members in self.members[1:])

    def names(self, entries: np.ndarray) -> list[np.ndarray]:
        """entries int32 [batch seq], 0 beyond the end -> for each order the names of the n-grams that start there."""
        words = self.members[0]
        words.add(np.arange(len(words.array), int(entries.max()) + 1, dtype=np.int32)[:, None])  # an entry names itself
        names = [entries]
        after = entries
        for order in range(1, self._order):
            after = np.concatenate([after[:, 1:], np.zeros((len(after), 1), np.int32)], axis=1)
            keys = names[-1].astype(np.int64) << 32 | after
            names.append(np.where(entries > 0, self._named(order, keys.ravel()).reshape(keys.shape), 0))
        return names

    def _named(self, order: int, keys: np.ndarray) -> np.ndarray:
        slots = (keys.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(64 - self.SLOTS)).view(np.int64)
        table, values = self._keys[order - 1], self._names[order - 1]
        names = values[slots]
        missing = np.flatnonzero(table[slots] != keys)
        if len(missing):
            fresh, inverse = np.unique(keys[missing], return_inverse=True)
            names[missing] = len(self.members[order].array) + inverse
            table[slots[missing]], values[slots[missing]] = keys[missing], names[missing]
            before = self.members[order - 1].array[fresh >> 32]
            last = (fresh & 0xFFFFFFFF).astype(np.int32)[:, None]
            self.members[order].add(np.concatenate([before, last], axis=1))
        return names


# --- the artefact -----------------------------------------------------------------------------------


class FixedArtefact(words.Reader):
    """A fixed-point program at work (:class:`grit.bench.types.Artefact`); ``exact``: bit-identical everywhere.

    ``digest`` and ``sizes_bytes`` are those of the file it came from (:mod:`grit.bench.export.packing`).
    """

    exact = True

    def __init__(self, program: FixedProgram, digest: str, sizes_bytes: Mapping[str, int]) -> None:
        program.check()
        super().__init__(words.of(program.words, program.vocabulary))
        self.program = program
        self.digest = digest
        self.sizes_bytes: Mapping[str, int] = dict(sizes_bytes)
        self.classes = len(program.head.bias)
        self.max_tokens = program.max_tokens
        self._head = program.head.product.matrix(0, np.float64)
        self._body = self._states(program)
        if isinstance(program.words, Rows):
            self._body.learn(program.words.table)

    def _clear(self) -> None:
        self._body = self._states(self.program)

    @staticmethod
    def _states(program: FixedProgram) -> _LstmStates | _FastGrnnStates | _PoolStates | _MeanStates:
        body = program.body
        if isinstance(body, FixedLstm):
            return _LstmStates(body)
        if isinstance(body, FixedFastGrnn):
            return _FastGrnnStates(body)
        if isinstance(body, FixedPool):
            return _PoolStates(body, program.max_tokens)
        return _MeanStates(program.head.product.weight.shape[1])

    def logits(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """rows [batch seq], lengths [batch] >= 1 -> float64 [batch classes]; nothing beyond max_tokens is read."""
        if (fresh := self._fresh()) is not None:
            self._body.learn(fresh)
        lengths = np.minimum(lengths, self.max_tokens)
        order = np.argsort(-lengths, kind="stable")
        answers = np.empty((len(rows), self.classes))
        for start in range(0, len(rows), TEXTS_AT_ONCE):
            part = order[start : start + TEXTS_AT_ONCE]
            longest = int(lengths[part[0]])
            answers[part] = self._answer(self._body.states(rows[part, :longest], lengths[part]))
        return answers

    def _answer(self, states: np.ndarray) -> np.ndarray:
        """The head: float64 sums of integers below 2^31 are exact."""
        head = self.program.head
        raw = (states.astype(np.float64) @ self._head).astype(np.int64) + head.bias >> head.shift
        return (np.maximum(raw, 0) if head.relu else raw) * 2.0**-self.program.logit_bits
