"""Tokens as rows in every exported program: what is remembered, what is forgotten, and that neither shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from grit.bench import text
from grit.bench.export import fixed, floating, onnx, quantise, words
from grit.bench.export.fixed import FixedArtefact
from grit.bench.export.floating import FloatArtefact
from grit.bench.types import AttentionPool, Dense, FastGrnn, Kernel, Lstm, Mean, Program, Rows, Ternary

TOKENS = st.lists(st.text("abcd' ", max_size=4), max_size=12)


def program(body: str = "mean", layer: str = "ternary", *, max_tokens: int = 12, order: int = 2) -> Program:
    """A small program with weights of a cosine, the same on every machine."""
    features, units = 7, 3

    def draw(*shape: int, phase: float = 0.0) -> np.ndarray:
        return np.cos(np.arange(np.prod(shape)) * 2.3 + phase).reshape(shape).astype(np.float32)

    vocabulary = ("", "a", "b", "ab", "caf\u00e9", "'") if layer == "vocabulary" else ()
    words_in: Rows | Ternary = Ternary(features)
    if layer != "ternary":
        words_in = Rows(draw(len(vocabulary) or 11, features), order if layer == "buckets" else 0)
    bodies: dict[str, Lstm | FastGrnn | AttentionPool | Mean] = {
        "lstm": Lstm(draw(4 * units, features), draw(4 * units, units, phase=1), draw(4 * units, phase=2)),
        "fastgrnn": FastGrnn(
            draw(units, features), draw(units, units, phase=1), draw(units), draw(units, phase=2), 0.9, 0.2
        ),
        "pool": AttentionPool(
            Dense(draw(units, features), draw(units)),
            Dense(draw(units, features, phase=1), draw(units)),
            (Kernel(draw(units, 2, units), draw(units), draw(units, 2, units, phase=1), draw(units)),),
        ),
        "mean": Mean(),
    }
    state = features if body == "mean" else units
    head = Dense(draw(3, state, phase=3), draw(3))
    return Program(words_in, bodies[body], head, vocabulary, max_tokens)


def artefacts(kept: Program) -> dict[str, Callable[[], Any]]:
    """The four ways to run a program, each afresh."""
    integers = quantise.quantise(kept, ["a b ab", "b"])
    return {
        "numpy int8": lambda: FixedArtefact(integers, "", {}),
        "numpy fp32": lambda: FloatArtefact(kept, "", {}),
        "onnx int8": lambda: onnx.OnnxArtefact(onnx.files(integers)),
        "onnx fp32": lambda: onnx.OnnxArtefact(onnx.files(kept)),
    }


WAYS = tuple(artefacts(program()))
LAYERS = ("vocabulary", "buckets", "ternary")


# --- readers ----------------------------------------------------------------------------------------------


class Coded(RuleBasedStateMachine):
    """Rows of codes that collide (the length of a token), with forgetting at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.reader = words.Codes(self.code)
        self.table: list[int] = []
        self.firsts: dict[int, str] = {0: ""}  # code -> the first token that had it, in the order of rows

    def code(self, tokens: Sequence[str]) -> np.ndarray:
        self.asked += tokens
        return np.array([[len(token) % 4] for token in tokens], np.int8)

    @rule(tokens=TOKENS)
    def intern(self, tokens: list[str]) -> None:
        self.asked.clear()
        rows = self.reader.intern(tokens)
        assert len(set(self.asked)) == len(self.asked)  # each string is coded once
        for token in tokens:
            self.firsts.setdefault(len(token) % 4, token)
        codes = list(self.firsts)
        assert rows.dtype == np.int32 and rows.tolist() == [codes.index(len(token) % 4) for token in tokens]
        assert [self.reader.token(row) for row in rows] == [self.firsts[len(token) % 4] for token in tokens]
        self.asked.clear()
        assert self.reader.intern(tokens).tolist() == rows.tolist() and not self.asked

    @rule()
    def hand_out(self) -> None:
        fresh = self.reader.fresh()
        self.table += [] if fresh is None else fresh[:, 0].tolist()
        assert self.table == list(self.firsts)
        assert self.reader.fresh() is None

    @rule()
    def forget(self) -> None:
        self.reader.forget()
        self.firsts, self.table = {0: ""}, []
        assert len(self.reader) == 1 and self.reader.token(0) == ""


Coded.TestCase.settings = settings(max_examples=25, stateful_step_count=12)
test_codes_are_rows_in_the_order_of_their_coming = Coded.TestCase


def test_the_size_of_a_table_counts_the_strings_that_share_rows() -> None:
    """Memory goes with the strings: a thousand typos of one code are no small table."""
    reader = words.Codes(lambda tokens: np.zeros((len(tokens), 1), np.int8))
    reader.intern([f"typo{n}" for n in range(1000)])
    assert len(reader) == 1001 and reader.token(0) == ""


@given(TOKENS, st.integers(1, 50), st.integers(1, 3))
def test_buckets_are_the_hash_also_after_the_memory_was_emptied(tokens: list[str], rows: int, order: int) -> None:
    reader = words.Buckets(rows, order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "_REMEMBERED", 2)
        found = reader.intern([*tokens, *reversed(tokens)])
        assert len(reader._rows) <= 2
    expected = [text.bucket(token, rows) for token in tokens]
    assert found.dtype == np.int32 and found.tolist() == [*expected, *reversed(expected)]
    for token, row in zip(tokens, expected, strict=True):
        assert text.bucket(reader.token(row), rows) == text.bucket(token, rows)


@given(st.lists(st.text("abc", min_size=1, max_size=3), unique=True, max_size=8), TOKENS)
def test_a_vocabulary_is_its_index_and_never_grows(known: list[str], tokens: list[str]) -> None:
    reader = words.Vocabulary(["", *known])
    for _ in range(2):  # a dictionary that remembered unknown words would answer otherwise the second time
        assert reader.intern(tokens).tolist() == [known.index(t) + 1 if t in known else 0 for t in tokens]
    assert len(reader._rows) == len(known) + 1


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(0, 3))
def test_a_growing_array_is_a_concatenation(sizes: list[int], start: int) -> None:
    first = np.arange(start * 2, dtype=np.int16).reshape(-1, 2)
    kept = first.copy()
    growing, expected = words.Growing(first), [first]
    for k, n in enumerate(sizes):
        rows = np.full((n, 2), k, np.int16)
        expected.append(rows)
        growing.add(rows)
        assert growing.array.dtype == np.int16 and np.array_equal(growing.array, np.concatenate(expected))
    assert np.array_equal(first, kept)  # the array that it began with belongs to somebody else


def test_a_growing_array_is_not_copied_with_every_row() -> None:
    growing = words.Growing(np.zeros((1, 1), np.int8))
    rooms = [growing._room]
    for _ in range(1000):
        growing.add(np.ones((1, 1), np.int8))
        if growing._room is not rooms[-1]:
            rooms.append(growing._room)
    assert len(growing.array) == 1001 and len(rooms) <= 12


# --- texts -> rows ----------------------------------------------------------------------------------------


@given(st.lists(st.text("ab ,\u00e9\u0301\u00a0", max_size=14), max_size=5), st.sampled_from(LAYERS), st.integers(1, 6))
@settings(max_examples=40)
def test_a_batch_is_each_text_normalised_cut_and_padded(texts: list[str], layer: str, limit: int) -> None:
    artefact = FloatArtefact(program(layer=layer, max_tokens=limit), "", {})
    rows, lengths = words.batch(artefact, texts)
    assert rows.dtype == lengths.dtype == np.int32
    expected = [(artefact.tokenize(text.normalise(raw)) or [""])[:limit] for raw in texts]
    assert lengths.tolist() == [len(tokens) for tokens in expected]
    assert rows.shape == (len(texts), max(map(len, expected), default=1))
    for line, tokens in zip(rows, expected, strict=True):
        assert line[: len(tokens)].tolist() == artefact.intern(tokens).tolist() and not line[len(tokens) :].any()


@given(st.lists(st.text("ab '", max_size=9), max_size=7), st.integers(1, 4))
@settings(max_examples=30)
def test_answers_come_in_the_order_of_the_texts_whatever_the_batch(texts: list[str], size: int) -> None:
    artefact = artefacts(program("lstm", "vocabulary"))["numpy int8"]()
    found = words.answer(artefact, texts, size)
    assert found.shape == (len(texts), 3) and found.dtype == np.float64
    for raw, logits in zip(texts, found, strict=True):
        assert np.array_equal(words.answer(artefact, [raw])[0], logits)


# --- forgetting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["lstm", "fastgrnn", "pool", "mean"])
@pytest.mark.parametrize("way", WAYS)
def test_what_was_forgotten_is_read_again_alike(way: str, body: str) -> None:
    """Rows are handed out anew after forgetting, in another order: old tables must not be read by new rows."""
    artefact = artefacts(program(body))[way]()
    texts = ["a b ab", "cc d a", "", "d d b"]
    before = words.answer(artefact, texts)
    held = artefact.interned
    assert held > 1
    for turned in (texts[::-1], texts[1:] + texts[:1]):
        artefact.forget()
        assert artefact.interned == 1 and artefact.token(0) == ""
        assert words.answer(artefact, turned) == pytest.approx(before[[texts.index(raw) for raw in turned]], abs=1e-6)
    assert artefact.interned == held
    if artefact.exact:
        artefact.forget()
        assert np.array_equal(words.answer(artefact, texts), before)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layer", ["vocabulary", "buckets"])
def test_rows_of_the_program_itself_are_never_forgotten(way: str, layer: str) -> None:
    artefact = artefacts(program(layer=layer))[way]()
    rows, lengths = words.batch(artefact, ["a b ab", "zz"])
    before = artefact.logits(rows, lengths)
    artefact.forget()
    assert artefact.interned == 0
    assert np.array_equal(artefact.logits(rows, lengths), before)  # the very rows of before


@pytest.mark.parametrize("way", WAYS)
def test_a_row_is_learned_though_its_text_is_asked_about_later(way: str) -> None:
    """Victims intern candidates long before they ask: the table must have grown by the time they do."""
    make = artefacts(program("pool"))[way]
    artefact = make()
    early = words.batch(artefact, ["cc d"])
    words.answer(artefact, ["a", "b b", "new words here"])
    artefact.intern(["never asked about"])
    assert artefact.logits(*early) == pytest.approx(words.answer(make(), ["cc d"]), abs=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_rows_and_lengths_beyond_the_limit_are_cut_by_the_artefact_too(way: str) -> None:
    artefact = artefacts(program("lstm", "vocabulary", max_tokens=3))[way]()
    rows = np.array([[1, 2, 3, 4, 5], [2, 0, 0, 0, 0]], np.int32)
    lengths = np.array([5, 1], np.int32)
    cut = artefact.logits(rows[:, :3], np.array([3, 1], np.int32))
    assert np.array_equal(artefact.logits(rows, lengths), cut)
    assert lengths.tolist() == [5, 1]


@pytest.mark.parametrize("way", WAYS)
def test_more_texts_than_a_pass_come_back_in_their_own_order(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fixed, floating, onnx):
        monkeypatch.setattr(module, "TEXTS_AT_ONCE", 3)
    artefact = artefacts(program("fastgrnn", "vocabulary"))[way]()
    texts = [" ".join(("a", "b", "ab")[(k + j) % 3] for j in range(1 + k * 5 % 8)) for k in range(11)]
    together = words.answer(artefact, texts)
    assert together == pytest.approx(np.concatenate([words.answer(artefact, [raw]) for raw in texts]), abs=1e-6)
    assert len({tuple(np.round(row, 4)) for row in together}) > 8  # so that a swap would show
