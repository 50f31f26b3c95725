"""Export: one fixed-point program, the same bits in numpy and in onnxruntime, and files that believe nothing."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import pickle
import random
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_library
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from grit.bench import text
from grit.bench.export import build, fixed, graphs, onnx, packing, quantise, words
from grit.bench.export.fixed import FixedArtefact, FixedFastGrnn, FixedLstm, FixedMean, FixedPool, FixedProgram
from grit.bench.export.floating import FloatArtefact
from grit.bench.types import (
    Artefact,
    AttentionPool,
    CouldNotMeasure,
    Dense,
    FastGrnn,
    GritError,
    Kernel,
    Lstm,
    MalformedInput,
    Mean,
    Program,
    Reading,
    Rows,
    StorageError,
    Ternary,
    UsageError,
)

WORDS = ("", *(a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "un", "ay")))
BODIES = ("lstm", "fastgrnn", "pool", "mean")
LAYERS = ("vocabulary", "buckets", "ternary")


# --- random programs ----------------------------------------------------------------------------------


def make(
    body: str = "lstm",
    layer: str = "vocabulary",
    *,
    seed: int = 0,
    features: int = 6,
    units: int = 5,
    classes: int = 3,
    scale: float = 1.0,
    max_tokens: int = 24,
    order: int = 2,
    relu: bool = True,
    widths: Sequence[int] = (1, 3),
) -> Program:
    """A program with weights drawn around ``scale``; every choice of it is an argument."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int, of: float = 1.0) -> np.ndarray:
        return (rng.standard_normal(shape) * scale * of).astype(np.float32)

    words_in: Rows | Ternary
    vocabulary: tuple[str, ...] = ()
    if layer == "ternary":
        words_in = Ternary(features)
    elif layer == "buckets":
        words_in = Rows(draw(17, features), order)
    else:
        words_in, vocabulary = Rows(draw(len(WORDS), features)), WORDS
    inside: Lstm | FastGrnn | AttentionPool | Mean
    state = units
    spread = 1 / math.sqrt(units)
    if body == "lstm":
        inside = Lstm(draw(4 * units, features, of=spread), draw(4 * units, units, of=spread), draw(4 * units))
    elif body == "fastgrnn":
        inside = FastGrnn(
            draw(units, features, of=spread),
            draw(units, units, of=spread),
            draw(units),
            draw(units),
            float(rng.uniform(0, 1)),
            float(rng.uniform(0, 1)),
        )
    elif body == "pool":
        kernels = tuple(
            Kernel(draw(units, k, units, of=spread), draw(units), draw(units, k, units, of=spread), draw(units))
            for k in widths
        )
        inside = AttentionPool(
            Dense(draw(units, features, of=spread), draw(units), relu),
            Dense(draw(units, features, of=spread), draw(units), relu),
            kernels,
        )
        state = units * len(widths)
    else:
        inside, state = Mean(), features
    return Program(words_in, inside, Dense(draw(classes, state), draw(classes)), vocabulary, max_tokens)


def sentences(seed: int, n: int, longest: int = 30) -> list[str]:
    """Texts of our own: known words, unknown ones, punctuation; one of them empty."""
    rng = random.Random(seed)
    strange = ["zzz", "!", "na\u00efve", "\U0001f600", "it's", "7", "\u05e9\u05dc\u05d5\u05dd"]
    made = [" ".join(rng.choice([*WORDS[1:], *strange]) for _ in range(rng.randint(1, longest))) for _ in range(n - 1)]
    return [*made, ""]


def integers(program: Program, seed: int = 0) -> FixedProgram:
    return quantise.quantise(program, sentences(seed + 1, 12))


def fixed_artefact(program: FixedProgram) -> FixedArtefact:
    return FixedArtefact(program, "", {})


@st.composite
def programs(draw: st.DrawFn, largest_scale: float = 8.0) -> Program:
    """Every body over every word layer, any small shape, weights from tiny to saturating."""
    return make(
        draw(st.sampled_from(BODIES)),
        draw(st.sampled_from(LAYERS)),
        seed=draw(st.integers(0, 2**32 - 1)),
        features=draw(st.integers(1, 40)),
        units=draw(st.integers(1, 12)),
        classes=draw(st.integers(1, 6)),
        scale=draw(st.sampled_from([1e-4, 0.02, 0.3, 1.0, largest_scale])),
        max_tokens=draw(st.integers(1, 40)),
        order=draw(st.integers(1, 3)),
        relu=draw(st.booleans()),
        widths=draw(st.lists(st.integers(1, 4), min_size=1, max_size=2)),
    )


# --- the specification, one text at a time, in Python's endless integers --------------------------------


class Machine:
    """A 32-bit machine: every value it stores is checked to fit."""

    def word(self, value: int) -> int:
        assert -(2**31) <= value < 2**31, f"{value} overflows 32 bits"
        return value

    def product(self, layer: fixed.Product, x: Sequence[int]) -> list[int]:
        rows = []
        for weights, multiplier in zip(layer.weight.tolist(), layer.multiplier.tolist(), strict=True):
            total = 0
            for w, v in zip(weights, x, strict=True):
                total = self.word(total + self.word(w * v))
            rows.append(self.word(multiplier * total))
        return rows

    def affine(self, layer: fixed.Affine, x: Sequence[int]) -> list[int]:
        sums = [self.word(p + b) for p, b in zip(self.product(layer.product, x), layer.bias.tolist(), strict=True)]
        return [max(s >> layer.shift, 0) if layer.relu else s >> layer.shift for s in sums]

    def sigma(self, i: int) -> int:
        base, slope = fixed.segments()
        i = sat(i, -2048, 2047)
        j = i if i >= 0 else ~i
        s = int(base[j >> 5]) + (int(slope[j >> 5]) * (j & 31) >> 3)
        return s if i >= 0 else 32768 - s

    def tau(self, i: int) -> int:
        return 2 * self.sigma(i) - 32768

    def lstm(self, body: FixedLstm, xs: Sequence[Sequence[int]]) -> list[int]:
        units = body.state.weight.shape[1]
        h, c, state = [0] * units, [0] * units, [0] * units
        for x in xs:
            sums = zip(self.product(body.input, x), self.product(body.state, h), body.bias.tolist(), strict=True)
            y = [self.word(self.word(p + q) + b) >> body.shift for p, q, b in sums]
            for k in range(units):
                i, f, g, o = (y[k + gate * units] for gate in range(4))
                kept = self.word(self.sigma(f) * c[k])
                new = self.word(self.sigma(i) * (self.tau(g) >> 4))
                c[k] = sat(self.word(kept + new + 2**14) >> 15, -(2**15), 2**15 - 1)
                product = self.word(self.sigma(o) * self.tau(c[k] >> 2))
                h[k], state[k] = sat(self.word(product + 2**22) >> 23, -128, 127), product >> 15
        return state

    def fastgrnn(self, body: FixedFastGrnn, xs: Sequence[Sequence[int]]) -> list[int]:
        h = [0] * len(body.bias_gate)
        for x in xs:
            u = [sat(self.word(v * body.copy_multiplier + 2**14) >> 15, -128, 127) for v in h]
            sums = zip(self.product(body.input, x), self.product(body.state, u), strict=True)
            for k, total in enumerate([self.word(p + q) for p, q in sums]):
                z = self.sigma(self.word(total + int(body.bias_gate[k])) >> (body.shift + 1))
                t = self.tau(self.word(total + int(body.bias_update[k])) >> body.shift)
                r = body.nu + (self.word(body.zeta * (32768 - z)) >> 15)
                assert r < 2**15
                blend = self.word(self.word(z * h[k]) + self.word(r * (t >> (14 - body.state_bits))))
                h[k] = sat(self.word(blend + 2**14) >> 15, -(2**15), 2**15 - 1)
        return h

    def pool(self, body: FixedPool, xs: Sequence[Sequence[int]], bits: int) -> list[int]:
        power = fixed.powers(bits).tolist()

        def maps(layer: fixed.Affine) -> list[list[int]]:
            return [[sat(v, 0 if layer.relu else -127, 127) for v in self.affine(layer, x)] for x in xs]

        values, attention = maps(body.value), maps(body.attention)
        state = []
        for kernel in body.kernels:

            def window(rows: list[list[int]], t: int, width: int = kernel.width) -> list[int]:
                beyond = [0] * len(rows[0])
                return [v for k in range(width) for v in (rows[t + k] if t + k < len(rows) else beyond)]

            v = [[sat(y, -127, 127) for y in self.affine(kernel.value, window(values, t))] for t in range(len(xs))]
            i = [self.affine(kernel.attention, window(attention, t)) for t in range(len(xs))]
            i = [[sat(y, -6144, 6143) for y in row] for row in i]
            for c in range(len(v[0])):
                top = max(row[c] >> 6 for row in i)
                e = [power[row[c] & 63] >> min(top - (row[c] >> 6), 31) for row in i]
                total = part = 0
                for weight, row in zip(e, v, strict=True):
                    total = self.word(total + weight)
                    part = self.word(part + self.word(weight * (row[c] + 128)))
                whole, rest = divmod(part, total)
                state.append(self.word(whole << 7) + self.word(rest << 7) // total - 2**14)
        return state

    def mean(self, xs: Sequence[Sequence[int]]) -> list[int]:
        n = len(xs)
        return [(self.word((sum(column) + 128 * n) << 7) + n // 2) // n - 2**14 for column in zip(*xs, strict=True)]

    def logits(self, program: FixedProgram, xs: Sequence[Sequence[int]]) -> list[float]:
        xs = xs[: program.max_tokens]
        match program.body:
            case FixedLstm() as body:
                state = self.lstm(body, xs)
            case FixedFastGrnn() as body:
                state = self.fastgrnn(body, xs)
            case FixedPool() as body:
                state = self.pool(body, xs, fixed.power_bits(program.max_tokens))
            case FixedMean():
                state = self.mean(xs)
        assert all(-(2**15) <= s < 2**15 for s in state)
        y = self.affine(program.head, state)
        assert all(abs(v) < 2**24 for v in y)
        return [v * 2.0**-program.logit_bits for v in y]


def sat(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


def inputs(program: FixedProgram, artefact: Artefact, raw: str) -> list[list[int]]:
    """The integer features of a text's tokens."""
    tokens = artefact.tokenize(text.normalise(raw)) or [""]
    if isinstance(program.words, Ternary):
        return text.ternary(tokens, program.words.width).tolist()
    return program.words.table[artefact.intern(tokens)].tolist()


# --- laws of the program --------------------------------------------------------------------------------


@given(programs(), st.integers(0, 10**6))
@settings(max_examples=40)
def test_numpy_follows_the_specification_and_nothing_overflows(program: Program, seed: int) -> None:
    quantised = integers(program)
    artefact = fixed_artefact(quantised)
    texts = sentences(seed, 4)
    got = words.answer(artefact, texts)
    for logits, raw in zip(got, texts, strict=True):
        assert logits.tolist() == Machine().logits(quantised, inputs(quantised, artefact, raw))


@given(programs(), st.integers(0, 10**6))
@settings(max_examples=40)
def test_onnxruntime_gives_the_same_bits(program: Program, seed: int) -> None:
    quantised = integers(program)
    texts = sentences(seed, 9)
    runtime = onnx.OnnxArtefact(onnx.files(quantised))
    assert runtime.exact
    assert np.array_equal(words.answer(runtime, texts), words.answer(fixed_artefact(quantised), texts))


@given(programs(), st.randoms(use_true_random=False))
def test_no_batch_order_or_padding_changes_a_bit(program: Program, rng: random.Random) -> None:
    artefact = fixed_artefact(integers(program))
    rows, lengths = words.batch(artefact, sentences(rng.randrange(10**6), 11))
    whole = artefact.logits(rows, lengths)
    order = np.array(rng.sample(range(len(rows)), len(rows)))
    padded = np.concatenate([rows, np.full((len(rows), 7), -1, np.int32)], axis=1)
    beyond = np.arange(padded.shape[1]) >= lengths[:, None]
    padded[beyond] = np.random.default_rng(rng.randrange(10**6)).integers(-(2**31), 2**31, beyond.sum())
    assert np.array_equal(artefact.logits(padded[order], lengths[order]), whole[order])
    for k, n in enumerate(lengths):
        assert np.array_equal(artefact.logits(rows[k : k + 1, :n], lengths[k : k + 1])[0], whole[k])
    again = fixed_artefact(artefact.program)  # that has seen no other text
    assert np.array_equal(words.answer(again, [""])[0], words.answer(artefact, [""])[0])


@given(programs(largest_scale=3.0), st.integers(0, 10**6))
def test_arguments_are_left_as_they_were(program: Program, seed: int) -> None:
    artefact = fixed_artefact(integers(program))
    rows, lengths = words.batch(artefact, sentences(seed, 5))
    before = rows.copy(), lengths.copy()
    artefact.logits(rows, lengths)
    assert np.array_equal(rows, before[0]) and np.array_equal(lengths, before[1])


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("layer", LAYERS)
def test_more_texts_than_a_pass_takes(body: str, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    artefact = fixed_artefact(integers(make(body, layer)))
    texts = sentences(3, 40)
    whole = words.answer(artefact, texts)
    monkeypatch.setattr(fixed, "TEXTS_AT_ONCE", 7)
    monkeypatch.setattr(fixed, "CELLS_AT_ONCE", 64)
    assert np.array_equal(words.answer(artefact, texts, batch_size=33), whole)


@pytest.mark.parametrize("body", ["lstm", "fastgrnn"])
@given(st.lists(st.lists(st.sampled_from(["ba", "de", "fi"]), min_size=1, max_size=6), min_size=1, max_size=30))
@settings(max_examples=25)
def test_texts_that_begin_alike_share_their_states(body: str, texts: list[list[str]]) -> None:
    artefact = fixed_artefact(integers(make(body, seed=7)))
    joined_texts = [" ".join(tokens) for tokens in texts]
    together = words.answer(artefact, joined_texts)
    assert np.array_equal(together, np.concatenate([words.answer(artefact, [raw]) for raw in joined_texts]))
    rows, lengths = words.batch(artefact, joined_texts)
    nodes = sum(len(level.tokens) for level in fixed._levels(rows, lengths))
    assert nodes == len({tuple(tokens[:k]) for tokens in texts for k in range(1, len(tokens) + 1)})


def test_forgotten_and_crowded_ngrams_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    program = integers(make("pool", "ternary", widths=(1, 2, 4)))
    texts = sentences(5, 60)
    whole = words.answer(fixed_artefact(program), texts)
    monkeypatch.setattr(fixed, "NGRAMS_KEPT", 40)
    monkeypatch.setattr(fixed._Ngrams, "SLOTS", 3)
    artefact = fixed_artefact(program)
    for _ in range(2):
        assert np.array_equal(words.answer(artefact, texts, batch_size=5), whole)


def test_an_artefact_travels_to_another_process() -> None:
    artefact = fixed_artefact(integers(make("pool", "ternary")))
    texts = sentences(6, 5)
    answers = words.answer(artefact, texts)
    assert np.array_equal(words.answer(pickle.loads(pickle.dumps(artefact)), texts), answers)


def test_a_head_with_relu() -> None:
    program = make("mean")
    head = dataclasses.replace(program.head, relu=True)
    quantised = integers(dataclasses.replace(program, head=head))
    logits = words.answer(fixed_artefact(quantised), sentences(1, 20))
    assert logits.min() == 0 and logits.max() > 0
    assert np.array_equal(words.answer(onnx.OnnxArtefact(onnx.files(quantised)), sentences(1, 20)), logits)


# --- integers at the brim: programs that no quantiser writes, and that check() lets in -------------------


def brim(rng: np.random.Generator, out: int, largest: np.ndarray, room: int) -> tuple[fixed.Product, np.ndarray]:
    """Weights of extreme values whose sums fill ``room`` as far as a multiplier can; and what is left of it, [out]."""
    weight = rng.choice([-127, -1, 0, 1, 126, 127], (out, len(largest))).astype(np.int8)
    weight[np.abs(weight.astype(np.int64)) @ largest >= room] //= 127  # -1, 0, 1 where even a multiplier of 1 is loud
    one = fixed.Product(weight, np.ones(out, np.int16))
    multiplier = np.minimum(room // np.maximum(one.reach(largest), 1), 32767).astype(np.int16)
    product = fixed.Product(weight, multiplier)
    return product, room - product.reach(largest)


def brim_affine(
    rng: np.random.Generator, out: int, largest: np.ndarray, limit: int = 1 << 24, shift: int | None = None
) -> fixed.Affine:
    product, left = brim(rng, out, largest, limit - 1)
    bias = (rng.choice([-1, 1], out) * left).astype(np.int32)
    return fixed.Affine(product, bias, int(rng.integers(0, 31)) if shift is None else shift, bool(rng.integers(0, 2)))


def brim_body(
    body: str, rng: np.random.Generator, largest: np.ndarray, units: int
) -> FixedLstm | FixedFastGrnn | FixedPool | FixedMean:
    if body == "mean":
        return FixedMean()
    if body == "pool":
        value, attention = (brim_affine(rng, units, largest) for _ in range(2))
        kernels = []
        for width in (1, 3):
            inside = np.full(width * units, 127)
            kernels.append(fixed.FixedKernel(width, *(brim_affine(rng, units, inside) for _ in range(2))))
        return FixedPool(value, attention, tuple(kernels))
    biases, gates = (1, 4) if body == "lstm" else (2, 1)
    shift = int(rng.integers(0, 12))
    room = (1 << 24) - 1 - (2048 * biases << shift)
    inward, _ = brim(rng, gates * units, largest, room // int(rng.integers(2, 9)))
    state, _ = brim(rng, gates * units, np.full(units, 128), room // int(rng.integers(2, 9)))
    left = (room - inward.reach(largest) - state.reach(np.full(units, 128))) // biases
    first, second = ((rng.choice([-1, 1], gates * units) * left).astype(np.int32) for _ in range(2))
    if body == "lstm":
        return FixedLstm(inward, state, first, shift)
    zeta = int(rng.choice([0, 1, 1 << 14, 32767]))
    bits, copied = int(rng.integers(0, 15)), int(rng.choice([1, 1 << 14, 32767]))
    return FixedFastGrnn(inward, state, first, second, shift, zeta, 32767 - zeta, bits, copied)


@st.composite
def brimming(draw: st.DrawFn) -> FixedProgram:
    """Legal programs whose sums go to the last unit of what check() allows."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    body, layer = draw(st.sampled_from(BODIES)), draw(st.sampled_from(LAYERS))
    features, units, classes = draw(st.integers(1, 9)), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    words_in: Rows | Ternary = Ternary(features)
    if layer != "ternary":
        table = rng.choice([-127, -126, 0, 1, 127], (len(WORDS) if layer == "vocabulary" else 5, features))
        words_in = Rows(table.astype(np.int8), 0 if layer == "vocabulary" else draw(st.integers(1, 3)))
    inside = brim_body(body, rng, np.full(features, 1 if layer == "ternary" else 127), units)
    state = {"mean": (features, 1 << 14), "pool": (2 * units, 1 << 14)}.get(body, (units, 1 << 15))
    shift = draw(st.integers(0, 30))
    limit = min(1 << 31, ((1 << 24) - 1) << shift)
    head = brim_affine(rng, classes, np.full(*state), limit, shift)
    vocabulary = WORDS if layer == "vocabulary" else ()
    return FixedProgram(words_in, inside, head, draw(st.integers(-64, 64)), vocabulary, draw(st.integers(1, 4096)))


@given(brimming(), st.integers(0, 10**6))
def test_whatever_the_checks_let_in_is_computed_to_the_last_bit(program: FixedProgram, seed: int) -> None:
    artefact = packing.artefact(packing.pack(program))
    texts = sentences(seed, 5, longest=12)
    got = words.answer(artefact, texts)
    for logits, raw in zip(got, texts, strict=True):
        assert logits.tolist() == Machine().logits(program, inputs(program, artefact, raw))
    assert np.array_equal(words.answer(onnx.OnnxArtefact(onnx.files(program)), texts), got)


@given(brimming(), st.data())
def test_one_unit_more_is_refused(program: FixedProgram, data: st.DataObject) -> None:
    """The bias of a row that is full to the brim, one further from zero; on a body's layer and on the head."""
    layers: list[fixed.Affine] = [program.head]
    if isinstance(program.body, FixedPool):
        layers += [program.body.value, program.body.attention]
    layer = data.draw(st.sampled_from(layers))
    row = data.draw(st.integers(0, len(layer.bias) - 1))
    bias = layer.bias.astype(np.int64)
    bias[row] += 1 if bias[row] > 0 else -1
    if not -(2**31) < bias[row] < 2**31:
        return  # a row of zero weights, whose bias alone fills the word
    fuller = dataclasses.replace(layer, bias=bias.astype(np.int32))
    spoilt = (
        dataclasses.replace(program, head=fuller)
        if layer is program.head
        else dataclasses.replace(
            program,
            body=dataclasses.replace(program.body, **{"value" if layer is layers[1] else "attention": fuller}),
        )
    )
    with pytest.raises(MalformedInput, match=r"can overflow|exceed 24 bits"):
        spoilt.check()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            lambda body: dataclasses.replace(
                body, input=dataclasses.replace(body.input, weight=body.input.weight[:-1])
            ),
            "int8",
        ),
        (lambda body: dataclasses.replace(body, bias_gate=body.bias_gate[:-1]), "bias is not int32"),
        (lambda body: dataclasses.replace(body, bias_update=body.bias_update.astype(np.int64)), "bias is not int32"),
        (lambda body: dataclasses.replace(body, zeta=20_000, nu=12_768), "zeta or nu"),
        (lambda body: dataclasses.replace(body, copy_multiplier=32_768), "copy multiplier"),
        (lambda body: dataclasses.replace(body, state_bits=-1), "bits"),
        (lambda body: dataclasses.replace(body, shift=-1), "shifts by -1"),
        (lambda body: dataclasses.replace(body, state=body.input), "gates of different sizes"),
    ],
)
def test_each_bound_of_a_recurrent_body_is_checked(change: Callable[[Any], Any], part: str) -> None:
    kept = integers(make("fastgrnn"))
    with pytest.raises(MalformedInput, match=part):
        dataclasses.replace(kept, body=change(kept.body)).check()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda pool: dataclasses.replace(pool, kernels=()), "0 kernels"),
        (lambda pool: dataclasses.replace(pool, kernels=pool.kernels * 33), "66 kernels"),
        (lambda pool: dataclasses.replace(pool, kernels=(dataclasses.replace(pool.kernels[0], width=0),)), "width 0"),
        (lambda pool: dataclasses.replace(pool, kernels=(dataclasses.replace(pool.kernels[0], width=17),)), "width 17"),
        (lambda pool: dataclasses.replace(pool, kernels=(dataclasses.replace(pool.kernels[0], width=2),)), "features"),
        (lambda pool: dataclasses.replace(pool, kernels=pool.kernels[:1]), "head reads 10 features, not 5"),
        (
            lambda pool: dataclasses.replace(
                pool, value=dataclasses.replace(pool.value, bias=np.zeros_like(pool.value.bias[:-1]))
            ),
            "bias is not int32",
        ),
    ],
)
def test_each_bound_of_a_pooling_is_checked(change: Callable[[Any], Any], part: str) -> None:
    kept = integers(make("pool"))
    with pytest.raises(MalformedInput, match=part):
        dataclasses.replace(kept, body=change(kept.body)).check()


def test_weights_below_minus_127_are_refused_wherever_they_stand() -> None:
    """int8 has one number more below zero than above; the sums are bounded for 127 only."""
    kept = integers(make("lstm"))
    assert isinstance(kept.words, Rows) and isinstance(kept.body, FixedLstm)
    table = kept.words.table.copy()
    table[3, 2] = -128
    weight = kept.body.state.weight.copy()
    weight[1, 1] = -128
    for spoilt, part in (
        (dataclasses.replace(kept, words=Rows(table)), "not symmetric"),
        (
            dataclasses.replace(
                kept, body=dataclasses.replace(kept.body, state=dataclasses.replace(kept.body.state, weight=weight))
            ),
            "illegal weight",
        ),
    ):
        with pytest.raises(MalformedInput, match=part):
            spoilt.check()


# --- tables ---------------------------------------------------------------------------------------------


def test_the_sigmoid_table_is_monotone_symmetric_and_close() -> None:
    table = fixed.sigma()
    assert len(table) == 4096 and (np.diff(table) >= 0).all()
    assert np.array_equal(table, 32768 - table[::-1])
    middles = (np.arange(-2048, 2048) + 0.5) / 256
    assert np.abs(table / 32768 - 1 / (1 + np.exp(-middles))).max() < 3e-4
    assert np.abs(fixed.tau() / 32768 - np.tanh(middles / 2)).max() < 6e-4
    assert np.abs(fixed.tau()).max() < 2**15


def test_tables_are_the_same_everywhere() -> None:
    # no entry is near enough to a rounding boundary for another exp() to move it
    for k in range(65):
        exact = 32768 / (1 + math.exp(-(32 * k + 0.5) / 256)) + 0.5
        assert abs(exact - round(exact)) > 1e-6
    for bits in range(10, 16):
        for f in range(64):
            exact = 2.0 ** (bits + (f + 0.5) / 64) + 0.5
            assert abs(exact - round(exact)) > 1e-6
    base, slope = fixed.segments()
    content = base.astype("<i2").tobytes() + slope.tobytes() + fixed.powers(15).astype("<i4").tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "b79bf44791159446"


def test_powers_span_an_octave() -> None:
    for bits in (10, 15):
        table = fixed.powers(bits)
        assert (np.diff(table) > 0).all() and table[0] >= 2**bits and table[-1] < 2 ** (bits + 1)


@pytest.mark.parametrize("tokens", [1, 2, 128, 256, 257, 4096])
def test_pooled_sums_fill_32_bits_and_no_more(tokens: int) -> None:
    bits = fixed.power_bits(tokens)
    assert 255 * tokens * 2 ** (bits + 1) < 2**31
    assert bits == 15 or 255 * tokens * 2 ** (bits + 2) >= 2**31
    assert 255 * int(fixed.powers(bits).max()) < 2**24  # what ONNX multiplies in float32


# --- rounding -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("seed", range(3))
def test_quantised_logits_stay_close(body: str, seed: int) -> None:
    program = make(body, seed=seed, features=16, units=16, scale=0.7)
    texts = sentences(seed, 100)
    exact = words.answer(FloatArtefact(program, "", {}), texts)
    error = np.abs(words.answer(fixed_artefact(quantise.quantise(program, texts[:50])), texts) - exact)
    assert error.mean() < 0.01 * np.abs(exact).max()
    assert error.max() < 0.05 * np.abs(exact).max()


@given(
    st.integers(1, 30),
    st.integers(1, 8),
    st.integers(0, 2**32 - 1),
    st.floats(1e-6, 1e4),
    st.sampled_from([1, 127, 128]),
)
def test_an_affine_layer_rounds_every_weight_to_half_a_unit(
    features: int, outputs: int, seed: int, scale: float, largest: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((outputs, features)) * scale * np.exp(rng.uniform(-6, 0, (outputs, 1)))
    bias = rng.standard_normal(outputs) * scale
    step = np.full(outputs, scale / 3)
    limits = np.full(features, largest)
    layer = quantise.affine("a layer", weight, bias, step, limits)
    unit = layer.product.multiplier * 2.0**-layer.shift
    error = np.abs(layer.product.weight * unit[:, None] - weight / step[:, None])
    assert (error <= unit[:, None] / 2 * (1 + 1e-9)).all()
    # a unit is what 127 of them need, or the finest that the shift has
    needed = np.abs(weight / step[:, None]).max(axis=1) / 127
    assert (unit <= needed + 2.0**-layer.shift * (1 + 1e-9)).all()
    assert layer.reach(limits) < 2**24
    x = rng.integers(-largest, largest + 1, features)
    exact = (weight @ x + bias) / step
    allowed = 0.5 + (unit / 2 * np.abs(x).sum()) + 2.0**-layer.shift
    assert (np.abs(np.array(Machine().affine(layer, x.tolist())) - exact) <= allowed + 1e-9).all()


def test_quantising_twice_gives_the_same_bytes() -> None:
    for body in BODIES:
        program = make(body)
        texts = sentences(4, 30)
        assert packing.pack(quantise.quantise(program, texts)) == packing.pack(quantise.quantise(program, texts))
        assert packing.pack(program) == packing.pack(copy.deepcopy(program))


def test_a_dead_feature_is_no_division_by_zero() -> None:
    program = make("pool", scale=0.5)
    assert isinstance(program.body, AttentionPool) and isinstance(program.words, Rows)
    table, weight = program.words.table.copy(), program.body.value.weight.copy()
    bias, kernel = program.body.value.bias.copy(), program.body.kernels[0].value_weight.copy()
    table[:, 2], weight[1], bias[1], kernel[3] = 0, 0, -1, 0
    first = dataclasses.replace(program.body.kernels[0], value_weight=kernel, value_bias=np.zeros(5, np.float32))
    body = dataclasses.replace(
        program.body, value=Dense(weight, bias, True), kernels=(first, *program.body.kernels[1:])
    )
    program = dataclasses.replace(program, body=body, words=Rows(table))
    texts = sentences(2, 20)
    logits = words.answer(fixed_artefact(quantise.quantise(program, texts)), texts)
    assert np.abs(logits - words.answer(FloatArtefact(program, "", {}), texts)).max() < 0.2


def zero(program: Program) -> Program:
    """The same shapes, every number 0."""

    def walk(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return np.zeros_like(value)
        if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            return tuple(map(walk, value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            parts = {f.name: walk(getattr(value, f.name)) for f in dataclasses.fields(value)}
            return dataclasses.replace(value, **parts)
        return value

    walked: Program = walk(program)
    return walked


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_program_of_zeros(body: str, layer: str) -> None:
    quantised = integers(zero(make(body, layer)))
    assert np.array_equal(words.answer(fixed_artefact(quantised), sentences(1, 5)), np.zeros((5, 3)))


def refused(program: Program, part: str, texts: Sequence[str] = ("ba de",)) -> None:
    with pytest.raises(MalformedInput, match=part):
        quantise.quantise(program, texts)


def test_what_cannot_be_quantised_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="no texts"):
        quantise.quantise(make(), [])
    program = make("lstm")
    assert isinstance(program.body, Lstm)
    spoilt = program.body.state_weight.copy()
    spoilt[0, 0] = np.nan
    refused(dataclasses.replace(program, body=dataclasses.replace(program.body, state_weight=spoilt)), "NaN")
    for body in BODIES:
        refused(make(body, scale=1e7) if body != "mean" else make("mean", max_tokens=5000), "too large|at most 4096")
    gated = make("fastgrnn")
    assert isinstance(gated.body, FastGrnn)
    refused(dataclasses.replace(gated, body=dataclasses.replace(gated.body, nu=1.5)), "zeta .* and nu 1.5")
    refused(dataclasses.replace(program, max_tokens=0), "max_tokens is 0")
    refused(dataclasses.replace(program, vocabulary=WORDS[:-1]), "differ in length")
    refused(dataclasses.replace(program, vocabulary=("x", *WORDS[1:])), "row 0")
    refused(dataclasses.replace(program, vocabulary=(*WORDS[:-1], WORDS[1])), "twice")
    refused(dataclasses.replace(make("mean", "buckets"), vocabulary=("",)), "has a vocabulary")
    refused(dataclasses.replace(program, head=Dense(np.ones((3, 4), np.float32), np.ones(3, np.float32))), "shape")
    refused(dataclasses.replace(program, head=Dense(np.ones((3, 5)), np.ones(3))), "float64, not float32")
    refused(dataclasses.replace(program, words=Ternary(0), vocabulary=()), "ternary features")
    refused(make("pool", "ternary", scale=1e30), "too large")


# --- words ----------------------------------------------------------------------------------------------


def test_a_vocabulary_reads_the_unknown_word_as_row_zero() -> None:
    artefact = fixed_artefact(integers(make()))
    rows = artefact.intern(["ba", "nowhere", "", "de"])
    assert rows.dtype == np.int32
    assert [artefact.token(row) for row in rows] == ["ba", "", "", "de"]
    assert artefact.separable and artefact.tokenize("Ba, DE") == ["ba", ",", "de"]


def test_hash_buckets_are_those_of_the_text_rules() -> None:
    artefact = fixed_artefact(integers(make("mean", "buckets")))
    assert not artefact.separable
    tokens = artefact.tokenize("one two three")
    assert tokens == ["one", "two", "one two", "three", "two three"]
    rows = artefact.intern(tokens)
    assert rows.tolist() == [text.bucket(token, 17) for token in tokens]
    for row in rows:
        assert text.bucket(artefact.token(row), 17) == row
    assert fixed_artefact(integers(make("mean", "buckets", order=1))).separable


@given(st.lists(st.text(max_size=8), max_size=40), st.integers(1, 6))
def test_tokens_share_a_row_exactly_when_their_codes_are_equal(tokens: list[str], width: int) -> None:
    reader = words.of(Ternary(width), ())
    rows = reader.intern(["", *tokens])
    assert rows[0] == 0
    codes = text.ternary(["", *tokens], width)
    for row, code in zip(rows, codes, strict=True):
        assert np.array_equal(text.ternary([reader.token(row)], width)[0], code)
    assert len(set(rows.tolist())) == len({code.tobytes() for code in codes})


def test_each_new_code_is_handed_out_once() -> None:
    reader = words.of(Ternary(64), ())
    assert isinstance(reader, words.Codes)
    first = reader.fresh()
    assert first is not None and first.shape == (1, 64)
    assert reader.fresh() is None
    reader.intern(["a", "b", "a"])
    later = reader.fresh()
    assert later is not None and np.array_equal(later, text.ternary(["a", "b"], 64))


def test_rows_interned_later_are_answered() -> None:
    artefact = fixed_artefact(integers(make("pool", "ternary", features=32)))
    before = words.answer(artefact, ["ba de"])
    words.answer(artefact, ["quite new words", "and more of them"])
    assert np.array_equal(words.answer(artefact, ["ba de"]), before)
    fresh = fixed_artefact(artefact.program)
    assert np.array_equal(words.answer(fresh, ["and more of them"]), words.answer(artefact, ["and more of them"]))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("body", BODIES)
def test_odd_texts(body: str, layer: str) -> None:
    quantised = integers(make(body, layer, max_tokens=9))
    artefact = fixed_artefact(quantised)
    odd = [
        "",
        "   ",
        "\U0001f600\U0001f600",
        "\u05e9\u05dc\u05d5\u05dd \u200f!",
        "\x00",
        "a" * 10_000,
        "\ud800",
        "ba " * 10_000,
    ]
    logits = words.answer(artefact, odd)
    assert np.isfinite(logits).all()
    assert np.array_equal(logits[0], logits[1])
    assert np.array_equal(logits[-1], words.answer(artefact, ["ba " * 9])[0])  # nothing beyond max_tokens is read
    assert np.array_equal(words.answer(onnx.OnnxArtefact(onnx.files(quantised)), odd), logits)
    assert words.answer(artefact, []).shape == (0, 3)


# --- program files --------------------------------------------------------------------------------------


def equal(a: Any, b: Any) -> bool:
    """Equality of programs, arrays with their types."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(
            equal(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a)
        )
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


@given(programs(), st.booleans())
def test_reading_gives_back_what_was_written(program: Program, quantised: bool) -> None:
    kept: Program | FixedProgram = integers(program) if quantised else program
    data = packing.pack(kept)
    assert equal(packing.unpack(data), kept)
    assert packing.pack(packing.unpack(data)) == data
    sizes = packing.sizes_bytes(data)
    assert sum(sizes.values()) == len(data)
    assert set(sizes) == {"embedding", "vocabulary", "body", "head", "header"}
    assert (sizes["embedding"] == 0) == isinstance(program.words, Ternary)
    artefact = packing.artefact(data)
    assert artefact.digest == hashlib.sha256(data).hexdigest()
    assert artefact.sizes_bytes == sizes
    texts = sentences(1, 4)
    direct = fixed_artefact(kept) if isinstance(kept, FixedProgram) else FloatArtefact(kept, "", {})
    assert artefact.exact == direct.exact == quantised
    assert np.array_equal(words.answer(artefact, texts), words.answer(direct, texts))


def test_an_int8_file_is_a_quarter_of_the_fp32_one() -> None:
    program = make("lstm", features=64, units=64)
    small, large = (packing.sizes_bytes(packing.pack(p)) for p in (integers(program), program))
    assert small["embedding"] * 4 == large["embedding"]
    assert small["vocabulary"] == large["vocabulary"] == len("\n".join(WORDS))
    assert small["body"] < large["body"] / 3.5


def test_other_tools_read_the_container(tmp_path: Path) -> None:
    quantised = integers(make())
    path = tmp_path / "program.safetensors"
    path.write_bytes(packing.pack(quantised))
    tensors = safetensors.numpy.load_file(path)
    assert isinstance(quantised.words, Rows)
    assert np.array_equal(tensors["words.table"], quantised.words.table)
    assert tensors["vocabulary"].tobytes().decode().split("\n") == list(WORDS)


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a container."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(header: dict[str, Any], rest: bytes) -> bytes:
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + rest


def malformed(data: bytes, part: str = "export the model again|program file|legal") -> None:
    with pytest.raises(MalformedInput, match=part) as caught:
        packing.artefact(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_every_shorter_file_is_refused() -> None:
    data = packing.pack(integers(make("fastgrnn")))
    for n in [*range(40), *range(40, len(data), 37)]:
        malformed(data[:n])
    malformed(data + b"\0", "accounts for")


def changed(change: Callable[[dict[str, Any], dict[str, Any]], object], body: str = "lstm") -> bytes:
    """A program file after ``change(header, description)``."""
    header, rest = parts(packing.pack(integers(make(body))))
    tree = json.loads(header["__metadata__"]["gritbench"])
    change(header, tree)
    if isinstance(header.get("__metadata__"), dict) and "gritbench" in header["__metadata__"]:
        header["__metadata__"]["gritbench"] = json.dumps(tree)
    return joined(header, rest)


def rename(header: dict[str, Any], old: str, new: str) -> None:
    entries = [(new if name == old else name, entry) for name, entry in header.items()]
    header.clear()
    header.update(entries)


CHANGES: list[tuple[str, Callable[[dict[str, Any], dict[str, Any]], object]]] = [
    ("no gritbench metadata", lambda header, tree: header.pop("__metadata__")),
    ("no gritbench metadata", lambda header, tree: header["__metadata__"].update(other="x")),
    ("no gritbench program", lambda header, tree: tree.update(format="other")),
    ("of version 2", lambda header, tree: tree.update(version=2)),
    ("unknown tokenizer", lambda header, tree: tree.update(tokenizer="other")),
    ("unknown numbers", lambda header, tree: tree.update(numbers="int4")),
    ("unknown numbers", lambda header, tree: tree.update(numbers=["int8"])),
    ("unknown key 'more'", lambda header, tree: tree.update(more=1)),
    ("unknown key 'more' in body", lambda header, tree: tree["body"].update(more=1)),
    ("head is missing", lambda header, tree: tree.pop("head")),
    ("body.shift is missing", lambda header, tree: tree["body"].pop("shift")),
    ("body.shift is '1.5'", lambda header, tree: tree["body"].update(shift=1.5)),
    ("body.shift is 'True'", lambda header, tree: tree["body"].update(shift=True)),
    ("shifts by 31", lambda header, tree: tree["body"].update(shift=31)),
    ("can overflow", lambda header, tree: tree["body"].update(shift=25)),
    ("body is 'Lstm'", lambda header, tree: tree["body"].update(kind="Lstm")),
    ("body is 'None'", lambda header, tree: tree.update(body=7)),
    ("words is 'FixedMean'", lambda header, tree: tree.update(words={"kind": "FixedMean"})),
    ("max_tokens is 0", lambda header, tree: tree.update(max_tokens=0)),
    ("max_tokens is 4097", lambda header, tree: tree.update(max_tokens=4097)),
    ("logit_bits is 100", lambda header, tree: tree.update(logit_bits=100)),
    ("n-grams of order -1", lambda header, tree: tree["words"].update(ngrams=-1)),
    ("has a vocabulary", lambda header, tree: tree["words"].update(ngrams=2)),
    ("words, not 3", lambda header, tree: tree.update(words_in_vocabulary=3)),
    ("vocabulary is missing", lambda header, tree: tree.pop("words_in_vocabulary")),
    ("tensor 'body.bias' is missing", lambda header, tree: rename(header, "body.bias", "body.other")),
    ("unknown tensor 'x.y'", lambda header, tree: rename(header, "body.bias", "x.y")),
    ("is not described", lambda header, tree: header.update(vocabulary=[1])),
    ("illegal type", lambda header, tree: header["body.bias"].update(dtype="F64")),
    ("illegal type", lambda header, tree: header["body.bias"].update(dtype=["I32"])),
    ("illegal type", lambda header, tree: header["body.bias"].update(shape=[-20])),
    ("illegal type", lambda header, tree: header["body.bias"].update(shape=[1 << 60, 1 << 60])),
    ("where it should", lambda header, tree: header["body.bias"].update(shape=[20, 1000])),
    ("where it should", lambda header, tree: header["body.bias"].update(data_offsets=[4, 84])),
    ("bias is not int32", lambda header, tree: header["body.bias"].update(dtype="F32")),
    ("bias is not int32", lambda header, tree: header["body.bias"].update(shape=[4, 5])),
]


@pytest.mark.parametrize(("part", "change"), CHANGES, ids=[f"{k}-{part}" for k, (part, _) in enumerate(CHANGES)])
def test_a_changed_file_is_refused_with_its_reason(
    part: str, change: Callable[[dict[str, Any], dict[str, Any]], object]
) -> None:
    malformed(changed(change), part)


def test_odd_containers_are_refused() -> None:
    header, rest = parts(packing.pack(integers(make())))
    raw = json.dumps(header).encode()
    double = raw.replace(b'"body.bias"', b'"vocabulary"')
    malformed(len(double).to_bytes(8, "little") + double + rest, "stands twice")
    malformed((1 << 62).to_bytes(8, "little") + raw, "cut off")
    for bomb in (b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000, b"\xff\xfe", b"[]", b"NaN", b"null"):
        malformed(len(bomb).to_bytes(8, "little") + bomb)


def test_not_a_number_is_refused_in_fp32_files() -> None:
    program = make("mean")
    data = packing.pack(program)
    weight = program.head.weight.tobytes()
    assert data.count(weight) == 1
    malformed(data.replace(weight, weight[:-4] + np.float32(np.nan).tobytes()), "NaN")
    program = make("fastgrnn")
    assert isinstance(program.body, FastGrnn)
    with pytest.raises(MalformedInput, match="not finite"):
        packing.pack(dataclasses.replace(program, body=dataclasses.replace(program.body, zeta=math.inf)))


def test_integers_that_would_overflow_are_refused() -> None:
    for body in BODIES:
        quantised = integers(make(body))
        head = quantised.head
        loud = dataclasses.replace(head.product, multiplier=np.full_like(head.product.multiplier, 32767))
        with pytest.raises(MalformedInput, match=r"can overflow|24 bits"):
            packing.pack(dataclasses.replace(quantised, head=dataclasses.replace(head, product=loud)))
        dead = dataclasses.replace(head.product, multiplier=np.zeros_like(head.product.multiplier))
        with pytest.raises(MalformedInput, match="illegal weight"):
            packing.pack(dataclasses.replace(quantised, head=dataclasses.replace(head, product=dead)))
    quantised = integers(make("fastgrnn"))
    assert isinstance(quantised.body, FixedFastGrnn)
    for spoilt in (
        dataclasses.replace(quantised.body, zeta=32767),
        dataclasses.replace(quantised.body, nu=-1),
        dataclasses.replace(quantised.body, state_bits=15),
        dataclasses.replace(quantised.body, copy_multiplier=0),
        dataclasses.replace(quantised.body, shift=24),
    ):
        with pytest.raises(MalformedInput):
            packing.pack(dataclasses.replace(quantised, body=spoilt))


def test_a_word_with_a_line_feed_is_refused() -> None:
    with pytest.raises(MalformedInput, match="line feed"):
        packing.pack(dataclasses.replace(make(), vocabulary=(*WORDS[:-1], "a\nb")))


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    malformed(data)


@given(st.integers(0, 2**32), st.sampled_from(BODIES))
@settings(max_examples=150)
def test_no_damage_crashes_the_reader(seed: int, body: str) -> None:
    rng = random.Random(seed)
    data = bytearray(packing.pack(integers(make(body, seed=1))))
    size = int.from_bytes(data[:8], "little")
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(8 + size)] = rng.choice(string.printable.encode())
    try:
        artefact = packing.artefact(bytes(data))
    except MalformedInput:
        return
    words.answer(artefact, ["ba de zzz"])  # damage that leaves a legal program leaves one that runs


# --- ONNX -----------------------------------------------------------------------------------------------


@given(programs(largest_scale=1.5), st.integers(0, 10**6))
@settings(max_examples=30)
def test_the_fp32_graph_is_the_float_program(program: Program, seed: int) -> None:
    texts = sentences(seed, 7)
    expected = words.answer(FloatArtefact(program, "", {}), texts)
    runtime = onnx.OnnxArtefact(onnx.files(program))
    assert not runtime.exact
    assert np.abs(words.answer(runtime, texts) - expected).max() <= 2e-5 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("body", BODIES)
def test_a_graph_is_the_same_bytes_twice_and_passes_the_checker(body: str, layer: str) -> None:
    program = make(body, layer)
    for kept in (program, integers(program)):
        contents = onnx.files(kept)
        assert contents == onnx.files(copy.deepcopy(kept))
        onnx_library.checker.check_model(onnx_library.load_from_string(contents["model.onnx"]), full_check=True)
        assert ("vocabulary.txt" in contents) == (layer == "vocabulary")
        artefact = onnx.OnnxArtefact(contents)
        assert artefact.sizes_bytes == {name.partition(".")[0]: len(data) for name, data in contents.items()}
        assert (artefact.separable, artefact.max_tokens, artefact.classes) == (layer != "buckets", 24, 3)


def test_int8_graphs_hold_int8_weights() -> None:
    program = make("lstm", features=64, units=64)
    small, large = (len(onnx.files(p)["model.onnx"]) for p in (integers(program), program))
    assert small < large / 2.5


def test_a_folder_survives_the_disk(tmp_path: Path) -> None:
    quantised = integers(make())
    contents = onnx.files(quantised)
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    assert onnx.read(tmp_path) == contents
    loaded = build.load(tmp_path)
    assert np.array_equal(
        words.answer(loaded, sentences(1, 5)), words.answer(fixed_artefact(quantised), sentences(1, 5))
    )
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(MalformedInput, match=r"tokenizer\.json"):
        build.load(tmp_path)


def test_threads_change_no_bit() -> None:
    contents = onnx.files(integers(make("pool", features=40, units=12)))
    texts = sentences(8, 70)
    assert np.array_equal(
        words.answer(onnx.OnnxArtefact(contents, threads=2), texts), words.answer(onnx.OnnxArtefact(contents), texts)
    )


def graph_of(contents: dict[str, bytes], change: Callable[[onnx_library.ModelProto], object]) -> dict[str, bytes]:
    model = onnx_library.load_from_string(contents["model.onnx"])
    change(model)
    return contents | {"model.onnx": model.SerializeToString()}


def outside(model: onnx_library.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"


def outside_in_a_node(model: onnx_library.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "hidden")
    tensor.external_data.add().key = "location"
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))


def foreign(model: onnx_library.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node.append(helper.make_node("Gelu", ["logits"], ["unused"], domain="com.microsoft"))


def with_function(model: onnx_library.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("mine", 1))
    node = helper.make_node("Identity", ["a"], ["b"])
    model.functions.append(helper.make_function("mine", "F", ["a"], ["b"], [node], [helper.make_opsetid("", 17)]))


def renamed(model: onnx_library.ModelProto) -> None:
    model.graph.node[-1].output[0] = "scores"
    model.graph.output[0].name = "scores"


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("another file|not an ONNX model", outside),
        ("another file|not an ONNX model", outside_in_a_node),
        (r"com\.microsoft", foreign),
        ("functions of its own", with_function),
        ("gives \\['scores'\\]", renamed),
        ("not an ONNX model", lambda model: model.graph.node[0].ClearField("input")),
        ("not an ONNX model", lambda model: model.ClearField("graph")),
    ],
)
def test_graphs_that_reach_outside_are_refused(part: str, change: Callable[[onnx_library.ModelProto], object]) -> None:
    contents = graph_of(onnx.files(integers(make())), change)
    with pytest.raises(MalformedInput, match=part) as caught:
        onnx.OnnxArtefact(contents)
    assert "\n" not in str(caught.value)


def test_foreign_operators_are_found_inside_loops() -> None:
    def change(model: onnx_library.ModelProto) -> None:
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        scan = next(node for node in model.graph.node if node.op_type == "Scan")
        scan.attribute[0].g.node[0].domain = "com.microsoft"

    with pytest.raises(MalformedInput, match=r"com\.microsoft"):
        onnx.OnnxArtefact(graph_of(onnx.files(integers(make("fastgrnn"))), change))


@pytest.mark.parametrize("data", [b"", b"\x00" * 50, b"PK\x03\x04", b"\x08\x08" + b"\xff" * 40])
def test_bytes_that_are_no_graph_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        onnx.OnnxArtefact(onnx.files(integers(make())) | {"model.onnx": data})


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("format|description", lambda about: about.update(format="x")),
        ("classes is", lambda about: about.update(classes="3")),
        ("classes is", lambda about: about.update(classes=True)),
        ("max_tokens is", lambda about: about.update(max_tokens=0)),
        ("exact is", lambda about: about.update(exact=1)),
        ("unknown key 'more'", lambda about: about.update(more=1)),
        ("unknown input", lambda about: about.update(input="bytes")),
        ("unknown tokenizer", lambda about: about.update(tokenizer="other")),
        ("width is None", lambda about: about.update(input="codes")),
        ("width is 5000", lambda about: about.update(input="codes", width=5000)),
        ("code of its model", lambda about: about.update(tokenizer="model")),
    ],
)
def test_a_changed_description_is_refused(part: str, change: Callable[[dict[str, Any]], object]) -> None:
    contents = onnx.files(integers(make()))
    about = json.loads(contents["tokenizer.json"])
    change(about)
    with pytest.raises(MalformedInput, match=part):
        onnx.OnnxArtefact(contents | {"tokenizer.json": json.dumps(about).encode()})


def test_a_folder_without_its_parts_is_refused() -> None:
    contents = onnx.files(integers(make()))
    for name in contents:
        with pytest.raises(MalformedInput, match=name.replace(".", r"\.")):
            onnx.OnnxArtefact({other: data for other, data in contents.items() if other != name})
    for junk in (b"", b"[" * 50_000, b"\xff", b"[]"):
        with pytest.raises(MalformedInput):
            onnx.OnnxArtefact(contents | {"tokenizer.json": junk})
    with pytest.raises(MalformedInput, match="UTF-8"):
        onnx.OnnxArtefact(contents | {"vocabulary.txt": b"\xff\xfe"})


def test_a_vocabulary_longer_than_the_table_fails_politely() -> None:
    contents = onnx.files(integers(make()))
    longer = contents | {"vocabulary.txt": contents["vocabulary.txt"] + b"\nzzz"}
    with pytest.raises(MalformedInput, match="fails on a text") as caught:
        words.answer(onnx.OnnxArtefact(longer), ["zzz"])
    assert "\n" not in str(caught.value)


# --- models without a program ---------------------------------------------------------------------------


def averaging(separable: bool = True, frozen: bool = False) -> Any:
    """A torch model that no program describes: embeddings, a GRU, a mean; ``frozen`` loops over values."""
    import torch

    class Averaging(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classes, self.max_tokens, self.vocabulary, self.separable = 3, 16, WORDS, separable
            generator = torch.Generator().manual_seed(3)
            self.table = torch.nn.Parameter(torch.randn(len(WORDS), 16, generator=generator))
            self.gate = torch.nn.Parameter(torch.randn(16, 16, generator=generator))
            self.gru = torch.nn.GRU(16, 12, batch_first=True)
            self.out = torch.nn.Linear(12, 3)
            for weight in (*self.gru.parameters(), *self.out.parameters()):
                torch.nn.init.uniform_(weight, -0.4, 0.4, generator=generator)

        def tokenize(self, raw: str) -> list[str]:
            return text.tokenize(raw)

        def codes(self, tokens: Sequence[str]) -> np.ndarray:
            return np.array([WORDS.index(t) if t in WORDS else 0 for t in tokens], np.int64)

        def features(self, codes: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.embedding(codes, self.table)

        def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
            states, _ = self.gru(torch.sigmoid(features @ self.gate) * features)
            inside = (torch.arange(states.shape[1])[None, :] < lengths[:, None]).unsqueeze(2)
            if frozen:  # a Python loop over lengths is unrolled for the lengths of the traced texts
                means = [state[: int(n)].mean(0) for state, n in zip(states, lengths, strict=True)]
                return Reading(features, torch.stack(means))
            return Reading(features, (states * inside).sum(1) / lengths[:, None])

        def head(self, state: torch.Tensor) -> torch.Tensor:
            return self.out(state)

        def program(self) -> None:
            return None

    return Averaging().eval()


def torch_logits(model: Any, texts: Sequence[str]) -> np.ndarray:
    import torch

    answers = []
    with torch.no_grad():
        for raw in texts:
            codes = model.codes((model.tokenize(text.normalise(raw)) or [""])[: model.max_tokens])
            features = model.features(torch.from_numpy(codes)[None])
            answers.append(model.head(model.read(features, torch.tensor([len(codes)])).state)[0].numpy())
    return np.array(answers)


def test_a_model_without_a_program_is_traced() -> None:
    model, texts = averaging(), sentences(3, 12)
    contents = onnx.traced(model, texts[:4])
    assert contents == onnx.traced(model, texts[:4])
    artefact = onnx.OnnxArtefact(contents, model)
    assert not artefact.exact and artefact.separable
    assert np.abs(words.answer(artefact, texts) - torch_logits(model, texts)).max() < 1e-5
    assert artefact.sizes_bytes["vocabulary"] == len("\n".join(WORDS))


def test_a_traced_model_in_int8_is_smaller_and_close() -> None:
    model, texts = averaging(), sentences(3, 40)
    large, small = (onnx.traced(model, texts[:4], int8=int8) for int8 in (False, True))
    assert len(small["model.onnx"]) < len(large["model.onnx"]) / 1.8
    logits, exact = words.answer(onnx.OnnxArtefact(small, model), texts), torch_logits(model, texts)
    assert 0 < np.abs(logits - exact).max() < 0.02 * np.abs(exact).max()


def test_a_graph_that_froze_a_value_is_refused() -> None:
    with pytest.raises(CouldNotMeasure, match="give the model a program"):
        onnx.traced(averaging(frozen=True), sentences(3, 4))
    with pytest.raises(CouldNotMeasure, match="no texts"):
        onnx.traced(averaging(), [])


def test_a_graph_that_differs_is_refused() -> None:
    model, texts = averaging(), sentences(3, 3)
    graph = onnx_library.load_from_string(onnx.traced(model, texts)["model.onnx"])
    codes, lengths = np.zeros((2, 3), np.int64), np.array([3, 2])
    expected = torch_logits(model, ["zzz zzz zzz", "zzz zzz"])
    onnx._compare(graph, codes, lengths, expected)
    for wrong in (expected + 0.01, expected * np.nan):
        with pytest.raises(CouldNotMeasure, match="differ from the model's by"):
            onnx._compare(graph, codes, lengths, wrong)


def test_a_traced_artefact_reads_through_its_model(tmp_path: Path) -> None:
    model, texts = averaging(separable=False), sentences(4, 9)
    path = tmp_path / "artefact.safetensors"
    path.write_bytes(build.deployed(model, texts))
    artefact = build.load(path, model)
    assert not artefact.separable
    assert np.abs(words.answer(artefact, texts) - torch_logits(model, texts)).max() < 0.05
    with pytest.raises(MalformedInput, match="load it together with the model"):
        build.load(path)
    sizes = build.export(model, path, "onnx", "int8", tmp_path / "out")
    assert sizes == {name: (tmp_path / "out" / name).stat().st_size for name in sizes}
    for arguments in (("program", "int8"), ("onnx", "fp32"), ("c", "int8"), ("onnx", "int4")):
        with pytest.raises(UsageError):
            build.export(model, path, *arguments, tmp_path / "out")


# --- the way in -----------------------------------------------------------------------------------------


class Trained:
    """A model that has its program."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def program(self) -> Program:
        return self._program


@pytest.mark.parametrize("body", BODIES)
def test_what_is_deployed_is_what_is_exported(body: str, tmp_path: Path) -> None:
    model: Any = Trained(make(body))
    texts = sentences(2, 20)
    path = tmp_path / "artefact.safetensors"
    path.write_bytes(build.deployed(model, texts))
    answers = words.answer(build.load(path), texts)
    for format_ in ("program", "onnx"):  # C is compiled and held to the same bits in test_export_c
        for precision in build.PRECISIONS:
            out = tmp_path / format_ / precision
            sizes = build.export(model, path, format_, precision, out)
            assert sizes == {file.name: file.stat().st_size for file in out.iterdir()}
            exported = build.load(out if format_ == "onnx" else out / "program.safetensors")
            assert exported.exact == (precision == "int8")
            error = np.abs(words.answer(exported, texts) - answers).max()
            assert error == 0 if precision == "int8" else error < 0.1 * np.abs(answers).max()


def test_loading_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MalformedInput, match="cannot read"):
        build.load(tmp_path / "none.safetensors")
    with pytest.raises(MalformedInput, match=r"model\.onnx"):
        build.load(tmp_path)
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"{}" * 100)
    with pytest.raises(MalformedInput):
        build.load(junk)


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.safetensors"
    path.write_bytes(packing.pack(make()))
    monkeypatch.setattr(packing, "LARGEST_BYTES", 100)
    with pytest.raises(MalformedInput, match="the limit is 100"):
        build.load(path)


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    model: Any = Trained(make())
    path = tmp_path / "artefact.safetensors"
    path.write_bytes(build.deployed(model, sentences(1, 3)))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        build.export(model, path, "onnx", "int8", tmp_path / "file")


@given(st.dictionaries(st.sampled_from(["a", "model.onnx", "x.y"]), st.binary(max_size=50), min_size=1))
def test_a_bundle_gives_back_its_files(files: dict[str, bytes]) -> None:
    data = packing.bundle(files)
    assert packing.is_bundle(data) and packing.unbundle(data) == files
    with pytest.raises(MalformedInput):
        packing.artefact(data)
    with pytest.raises(MalformedInput):
        packing.unbundle(packing.pack(make("mean")))


def test_errors_are_the_house_s_own() -> None:
    assert issubclass(MalformedInput, GritError) and MalformedInput.exit_code == 6


def test_graphs_name_no_machine() -> None:
    for data in onnx.files(integers(make())).values():
        assert str(Path.cwd()).encode() not in data and b"/usr" not in data and b"site-packages" not in data
    assert graphs.build(make()).producer_name == "gritbench"
