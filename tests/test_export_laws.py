"""Export, from first principles: programs written by hand whose answers anybody can work out."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from grit.bench import text
from grit.bench.export import fixed, floating, graphs, packing, quantise, words
from grit.bench.export.fixed import FixedArtefact, FixedPool, FixedProgram
from grit.bench.export.floating import FloatArtefact
from grit.bench.types import AttentionPool, Dense, FastGrnn, Kernel, Lstm, MalformedInput, Mean, Program, Rows, Ternary

LETTERS = ("", "a", "b", "c", "d")


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def eye(n: int, value: float = 1.0) -> np.ndarray:
    return np.eye(n, dtype=np.float32) * np.float32(value)


def program(table: np.ndarray, body: Lstm | FastGrnn | AttentionPool | Mean, head: Dense) -> Program:
    return Program(Rows(table), body, head, LETTERS[: len(table)], 256)


def artefact(kept: Program, texts: Sequence[str] = ("a b c d",)) -> FixedArtefact:
    return FixedArtefact(quantise.quantise(kept, texts), "", {})


def lstm(
    inward: float = 0, forget: float = 0, cell: float = 0, outward: float = 0, x_to_cell: float = 0, h: float = 0
) -> Program:
    """One unit; its gates have constant drives, the cell's also the token's value and the state."""
    body = Lstm(column(0, 0, x_to_cell, 0)[:, None], column(0, 0, h, 0)[:, None], column(inward, forget, cell, outward))
    return program(column(0, 1, -1, 0.5, 0.25)[:, None], body, Dense(column(1)[:, None], column(0)))


def state(kept: Program, raw: str) -> float:
    return float(words.answer(artefact(kept), [raw])[0, 0])


# --- LSTM -----------------------------------------------------------------------------------------------


def test_an_lstm_that_writes_and_shows_nothing() -> None:
    assert abs(state(lstm(outward=-20, cell=20, inward=20), "a a a")) < 1e-3
    assert abs(state(lstm(inward=-20, cell=20, outward=20), "a")) < 2e-3


def test_an_lstm_of_one_step_is_its_formula() -> None:
    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    for value, word in ((1, "a"), (-1, "b"), (0.5, "c"), (0.25, "d"), (0, "")):
        expected = sigmoid(0.3) * math.tanh(sigmoid(0.7) * math.tanh(1.5 * value + 0.1))
        got = state(lstm(inward=0.7, forget=-0.2, cell=0.1, outward=0.3, x_to_cell=1.5), word)
        assert abs(got - expected) < 4e-3


def test_a_closed_forget_gate_sees_the_last_token_only() -> None:
    kept = lstm(inward=3, forget=-20, cell=0, outward=3, x_to_cell=2)
    alone = state(kept, "c")
    for before in ("a a a a", "b b", "a b a b d"):
        assert abs(state(kept, f"{before} c") - alone) < 2e-3


def test_an_open_forget_gate_counts() -> None:
    kept = lstm(inward=20, forget=20, outward=20, x_to_cell=0.1)
    counts = [state(kept, " ".join("a" * n)) for n in range(1, 30)]
    assert (np.diff(counts) > 0).all()
    assert abs(counts[9] - math.tanh(10 * math.tanh(0.1))) < 0.02
    assert abs(state(kept, "a b a b a b")) < 2e-3  # what is added is taken away again


def test_the_cell_stops_at_sixteen_and_comes_back() -> None:
    kept = lstm(inward=20, forget=20, outward=20, x_to_cell=20)
    full = " ".join("a" * 100)
    assert state(kept, full) > 0.998
    back = " ".join("b" * 16)  # sixteen tokens down from sixteen
    assert abs(state(kept, f"{full} {back}")) < 0.2
    assert state(kept, f"{full} {back} b b b") < -0.9


def test_the_state_feeds_back() -> None:
    kept = lstm(inward=2, forget=1, outward=2, x_to_cell=0.5, h=-1.5)
    exact = FloatArtefact(kept, "", {})
    for raw in ("a", "a a", "a b c d", "b b b b b b b b", "a " * 100):
        assert abs(state(kept, raw) - float(words.answer(exact, [raw])[0, 0])) < 0.01


# --- FastGRNN -------------------------------------------------------------------------------------------


def fastgrnn(gate: float, zeta: float, nu: float, x: float = 2.0, u: float = 0.0) -> Program:
    body = FastGrnn(column(x)[:, None], column(u)[:, None], column(gate), column(0), zeta, nu)
    return program(column(0, 1, -1, 0.5, 0.25)[:, None], body, Dense(column(1)[:, None], column(0)))


def test_a_closed_gate_passes_the_update_on() -> None:
    kept = fastgrnn(-20, zeta=1, nu=0)
    for word, value in (("a", 1), ("b", -1), ("c", 0.5), ("d", 0.25)):
        assert abs(state(kept, f"b a {word}") - math.tanh(2 * value)) < 8e-3


def test_an_open_gate_keeps_the_state() -> None:
    kept = fastgrnn(20, zeta=0.7, nu=0.05)
    # every token adds nu tanh(2 x): the gate loses a three-thousandth a step
    assert abs(state(kept, "a " * 10) - 10 * 0.05 * math.tanh(2)) < 5e-3
    assert abs(state(kept, "a b " * 20)) < 2e-3


def test_a_state_above_one_is_held() -> None:
    kept = fastgrnn(20, zeta=0.5, nu=0.9)
    quantised = quantise.quantise(kept, ["a a a a a"])
    assert isinstance(quantised.body, fixed.FixedFastGrnn)
    assert quantised.body.state_bits <= 11  # calibration saw 4.3, int16 keeps room for twice that
    got = float(words.answer(FixedArtefact(quantised, "", {}), ["a a a a a"])[0, 0])
    assert abs(got - 5 * 0.9 * math.tanh(2)) < 0.03


def test_a_state_beyond_calibration_saturates_and_does_not_wrap() -> None:
    quantised = quantise.quantise(fastgrnn(20, zeta=0.5, nu=0.9), ["a"])
    answers = words.answer(FixedArtefact(quantised, "", {}), ["a " * n for n in (1, 4, 30, 200)])[:, 0]
    assert (np.diff(answers) >= -1e-6).all() and answers[-1] > 1.5
    assert words.answer(FixedArtefact(quantised, "", {}), ["b " * 200])[0, 0] < -1.5


# --- mean -----------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(LETTERS[1:]), min_size=1, max_size=60))
def test_the_mean_is_the_rounded_mean(tokens: list[str]) -> None:
    table = np.array([[0, 0], [127, -3], [-64, 1], [5, 0], [-127, 127]], np.float32)
    quantised = quantise.quantise(program(table, Mean(), Dense(eye(2), column(0, 0))), ["a"])
    assert isinstance(quantised.words, Rows) and quantised.words.table.tolist() == table.astype(int).tolist()
    body = fixed._MeanStates(2)
    body.learn(quantised.words.table)
    rows = np.array([[LETTERS.index(token) for token in tokens]], np.int32)
    got = body.states(rows, np.array([len(tokens)], np.int32))[0]
    for k in range(2):
        exact = Fraction(sum(int(table[row, k]) for row in rows[0]) * 128, len(tokens))
        assert abs(Fraction(int(got[k])) - exact) <= Fraction(1, 2)
    order = np.random.default_rng(len(tokens)).permutation(len(tokens))
    assert np.array_equal(body.states(rows[:, order], np.array([len(tokens)], np.int32))[0], got)


@given(st.sampled_from(LETTERS), st.integers(1, 100))
def test_repeating_a_word_changes_no_mean(word: str, times: int) -> None:
    table = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
    kept = artefact(program(table, Mean(), Dense(eye(3), column(0, 0, 0))))
    row = int(kept.intern([word])[0])
    once, often = (kept.logits(np.full((1, n), row, np.int32), np.array([n], np.int32)) for n in (1, times))
    assert np.array_equal(once, often)


# --- projected attention --------------------------------------------------------------------------------


def pool(attention: float, width: int = 1, value_bias: float = 0.0) -> Program:
    """One channel: the value is the token's own (the window's first), attention ``attention`` times its value."""
    weight = np.zeros((1, width, 1), np.float32)
    weight[0, 0, 0] = 1
    kernel = Kernel(weight, column(value_bias), weight * np.float32(attention), column(0))
    linear = Dense(column(1)[:, None], column(0))
    body = AttentionPool(linear, linear, (kernel,))
    return program(column(0, 1, -1, 0.5, 0.25)[:, None], body, Dense(column(1)[:, None], column(0)))


def test_one_token_is_its_own_value() -> None:
    for attention in (0, 3, -3):
        for word, value in (("a", 1), ("b", -1), ("c", 0.5), ("d", 0.25)):
            assert abs(state(pool(attention), word) - value) < 1e-2


def test_equal_attention_is_the_mean() -> None:
    for raw, mean in (("a b", 0), ("a a c", 2.5 / 3), ("a b c d", 0.1875), ("a " * 200 + "b", 199 / 201)):
        assert abs(state(pool(0), raw.strip()) - mean) < 8e-3


def test_strong_attention_is_the_winner() -> None:
    for raw in ("a b", "b b b a b", "c d a d", "d d d a"):
        assert abs(state(pool(60), raw) - 1) < 1e-2
        assert abs(state(pool(-60), raw) - min({"a": 1, "b": -1, "c": 0.5, "d": 0.25}[w] for w in raw.split())) < 1e-2


def test_softmax_is_softmax() -> None:
    values = {"a": 1.0, "b": -1.0, "c": 0.5, "d": 0.25}
    for raw in ("a b", "a b c d", "b b b b b b b b c", "d c b a d c b"):
        v = np.array([values[w] for w in raw.split()])
        share = np.exp(2.5 * v)
        assert abs(state(pool(2.5), raw) - (share * v).sum() / share.sum()) < 0.015


def test_kernels_see_zeros_beyond_the_end() -> None:
    weight = np.zeros((1, 3, 1), np.float32)
    weight[0, :, 0] = 1, 10, 100
    kernel = Kernel(weight, column(0), weight * 0, column(0))
    linear = Dense(column(1)[:, None], column(0))
    kept = program(column(0, 1, -1, 0.5, 0.25)[:, None], AttentionPool(linear, linear, (kernel,)), pool(0).head)
    exact = FloatArtefact(kept, "", {})
    for raw, sums in (("a", [1]), ("a b", [-9, -1]), ("a b a", [91, 9, 1])):
        assert abs(float(words.answer(exact, [raw])[0, 0]) - np.mean(sums)) < 1e-4
        got = float(words.answer(artefact(kept, ["a b a", "a a a"]), [raw])[0, 0])
        assert abs(got - np.mean(sums)) < 1.5


@given(st.lists(st.sampled_from(LETTERS[1:]), min_size=1, max_size=12), st.integers(-20, 20), st.integers(0, 99))
@settings(max_examples=40)
def test_whole_octaves_of_attention_change_no_bit(tokens: list[str], octaves: int, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    body = AttentionPool(
        Dense(draw(3, 2), draw(3)),
        Dense(draw(3, 2), draw(3)),
        (Kernel(draw(4, 2, 3), draw(4), draw(4, 2, 3), draw(4)),),
    )
    kept = quantise.quantise(program(draw(5, 2), body, Dense(draw(2, 4), draw(2))), ["a b c d"])
    assert isinstance(kept.body, FixedPool)
    kernel = kept.body.kernels[0]
    raised = kernel.attention.bias + (octaves * 64 << kernel.attention.shift)
    attention = dataclasses.replace(kernel.attention, bias=raised.astype(np.int32))
    try:
        moved = dataclasses.replace(
            kept, body=dataclasses.replace(kept.body, kernels=(dataclasses.replace(kernel, attention=attention),))
        )
        moved.check()
    except MalformedInput:
        return  # the sums have no room for so much
    raw = [" ".join(tokens)]
    assert np.array_equal(
        words.answer(FixedArtefact(moved, "", {}), raw), words.answer(FixedArtefact(kept, "", {}), raw)
    )


@given(st.lists(st.sampled_from(LETTERS[1:]), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_unigram_attention_reads_a_bag_of_words(tokens: list[str], rng: object) -> None:
    kept = artefact(pool(1.5))
    raw = words.answer(kept, [" ".join(tokens), " ".join(sorted(tokens)), " ".join(reversed(tokens))])
    assert np.array_equal(raw[0], raw[1]) and np.array_equal(raw[0], raw[2])


# --- the head -------------------------------------------------------------------------------------------


def test_a_head_of_identity_gives_the_state_back() -> None:
    table = column(0, 1, -1, 0.5, 0.25)[:, None]
    kept = artefact(program(table, Mean(), Dense(column(3)[:, None], column(-0.75))))
    assert np.abs(words.answer(kept, ["a", "b", "a b", ""])[:, 0] - [2.25, -3.75, -0.75, -0.75]).max() < 0.02


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 1e3, 1e5])
def test_logits_of_any_size_keep_their_precision(size: float) -> None:
    table = np.random.default_rng(3).standard_normal((5, 8)).astype(np.float32)
    weight = (np.random.default_rng(4).standard_normal((3, 8)) * size).astype(np.float32)
    kept = program(table, Mean(), Dense(weight, column(0, 0, 0)))
    quantised = quantise.quantise(kept, ["a"])
    texts = ["a", "b c", "a b c d", "d d a"]
    exact = words.answer(FloatArtefact(kept, "", {}), texts)
    assert np.abs(words.answer(FixedArtefact(quantised, "", {}), texts) - exact).max() < 0.02 * np.abs(exact).max()


def test_logits_are_float32_without_rounding() -> None:
    rng = np.random.default_rng(8)
    table, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 8), (3, 8)))
    kept = artefact(program(table, Mean(), Dense(weight, column(1, 2, 3))))
    logits = words.answer(kept, ["a", "b c", "a b c d"])
    assert np.array_equal(logits, logits.astype(np.float32))


# --- layers in floating point ---------------------------------------------------------------------------


def test_windows_by_hand() -> None:
    x = np.arange(1, 7, dtype=np.float32).reshape(1, 3, 2)
    assert floating.windows(x, 1).tolist() == x.tolist()
    assert floating.windows(x, 2).tolist() == [[[1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 0, 0]]]
    assert floating.windows(x, 5)[0, 2].tolist() == [5, 6, 0, 0, 0, 0, 0, 0, 0, 0]


def test_states_stop_at_the_end_of_a_text() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3, 6, 2)).astype(np.float32)
    lengths = np.array([6, 1, 4])

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    bodies: list[Lstm | FastGrnn | AttentionPool | Mean] = [
        Lstm(draw(12, 2), draw(12, 3), draw(12)),
        FastGrnn(draw(3, 2), draw(3, 3), draw(3), draw(3), 0.7, 0.1),
        AttentionPool(
            Dense(draw(3, 2), draw(3), True),
            Dense(draw(3, 2), draw(3)),
            (Kernel(draw(4, 2, 3), draw(4), draw(4, 2, 3), draw(4)),),
        ),
        Mean(),
    ]
    for body in bodies:
        together = floating.states(body, x, lengths)
        assert together.dtype == np.float32
        for k, n in enumerate(lengths):
            alone = floating.states(body, x[k : k + 1, :n], lengths[k : k + 1])[0]
            assert np.abs(together[k] - alone).max() < 1e-6


def test_huge_inputs_do_not_overflow_the_sigmoid() -> None:
    body = Lstm(np.full((4, 1), 1e30, np.float32), np.zeros((4, 1), np.float32), np.zeros(4, np.float32))
    with np.errstate(over="raise", invalid="raise"):
        found = floating.states(body, np.array([[[1.0], [-1.0]]], np.float32), np.array([2]))
    assert np.isfinite(found).all()


# --- another runtime, and bytes that do not move ------------------------------------------------------------


def waves(*shape: int, phase: float = 0.0) -> np.ndarray:
    """Numbers that need no generator: a cosine over the flat index, at a scale that four digits hold."""
    n = math.prod(shape)
    values = [round(math.cos(0.7 * k + phase) * 0.8, 4) for k in range(n)]
    return np.array(values, np.float32).reshape(shape)


def written(body: str) -> Program:
    """A program whose every weight is a written-down number."""
    head = Dense(waves(3, 4, phase=0.1), waves(3, phase=0.2))
    if body == "lstm":
        inside: Lstm | FastGrnn | AttentionPool | Mean = Lstm(waves(16, 4), waves(16, 4, phase=1), waves(16, phase=2))
    elif body == "fastgrnn":
        inside = FastGrnn(waves(4, 4), waves(4, 4, phase=1), waves(4, phase=2), waves(4, phase=3), 0.73, 0.018)
    elif body == "pool":
        kernels = tuple(
            Kernel(waves(2, k, 3, phase=k), waves(2), waves(2, k, 3, phase=-k), waves(2, phase=1)) for k in (2, 3)
        )
        first, second = (Dense(waves(3, 8, phase=p), waves(3, phase=p), True) for p in (0.3, 0.6))
        return Program(Ternary(8), AttentionPool(first, second, kernels), head, (), 32)
    else:
        inside = Mean()
    return Program(Rows(waves(5, 4, phase=4)), inside, head, LETTERS, 32)


SPOKEN = ["a", "b c", "a b c d", "d d a unheard b", "", "c a b d a b c d d c b a"]


@pytest.mark.parametrize("body", ["lstm", "fastgrnn", "pool", "mean"])
def test_a_third_executor_gives_the_same_bits(body: str) -> None:
    """The ONNX project's own reference evaluator, plain numpy by other hands."""
    quantised = quantise.quantise(written(body), SPOKEN)
    kept = FixedArtefact(quantised, "", {})
    evaluator = ReferenceEvaluator(graphs.build(quantised))
    rows, lengths = words.batch(kept, SPOKEN)
    feed: dict[str, np.ndarray] = {"lengths": lengths}
    if isinstance(quantised.words, Ternary):
        codes = np.zeros((*rows.shape, quantised.words.width), np.int8)
        for line, its_rows, n in zip(codes, rows, lengths, strict=True):
            tokens = [kept.token(row) for row in its_rows[:n]]
            line[:n] = text.ternary(tokens, quantised.words.width)
        feed["codes"] = codes
    else:
        feed["rows"] = rows
    (logits,) = evaluator.run(None, feed)
    assert np.array_equal(logits, kept.logits(rows, lengths))


@pytest.mark.parametrize(
    ("body", "bytes_sha256", "logits_sha256"),
    [
        ("lstm", "b0326e064c4f0ce3", "aa6cd1d789858bd5"),
        ("fastgrnn", "990d31f1aa557c32", "2a1972df290abca1"),
        ("pool", "35c7d3c48601326e", "94fbfe47f57830ce"),
        ("mean", "31d0b537209a2cbc", "001dee2a482c616d"),
    ],
)
def test_deployed_bytes_and_their_logits_are_pinned(body: str, bytes_sha256: str, logits_sha256: str) -> None:
    """What changes here makes every deployed artefact another one: say so in leaderboards/CHANGES.md."""
    data = packing.pack(quantise.quantise(written(body), SPOKEN))
    logits = words.answer(packing.artefact(data), SPOKEN).astype("<f8").tobytes()
    assert hashlib.sha256(data).hexdigest()[:16] == bytes_sha256
    assert hashlib.sha256(logits).hexdigest()[:16] == logits_sha256


def test_written_programs_answer_as_their_floats() -> None:
    for body in ("lstm", "fastgrnn", "pool", "mean"):
        kept = written(body)
        quantised: FixedProgram = quantise.quantise(kept, SPOKEN)
        exact = words.answer(FloatArtefact(kept, "", {}), SPOKEN)
        assert np.abs(words.answer(FixedArtefact(quantised, "", {}), SPOKEN) - exact).max() < 0.06
