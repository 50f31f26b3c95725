"""The parts that models share, each alone: the mean over real tokens, vocabularies, the LSTM classifier."""

from __future__ import annotations

import dataclasses
import math
import string
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grit.bench.text import tokenize
from grit.bench.types import Lstm, Rows
from grit.models import _pool, _vocabulary
from grit.models._lstm import LstmClassifier
from grit.models.student import Student
from grit.models.teacher import Teacher

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)

# --- the mean over real tokens ----------------------------------------------------------------------------


@given(LENGTHS, st.integers(0, 3))
def test_a_mask_is_true_where_a_token_stands(lengths: list[int], extra: int) -> None:
    seq = max(lengths) + extra
    found = _pool.mask(torch.tensor(lengths), seq)
    assert found.dtype == torch.bool
    assert found.tolist() == [[place < n for place in range(seq)] for n in lengths]


@given(LENGTHS, st.integers(0, 3), st.sampled_from([torch.nan, torch.inf, -torch.inf, 1e30]))
def test_a_mean_reads_nothing_behind_a_text(lengths: list[int], extra: int, junk: float) -> None:
    """A product with zero would let NaN through."""
    generator = torch.Generator().manual_seed(sum(lengths))
    features = torch.randn(len(lengths), max(lengths) + extra, 3, generator=generator, dtype=torch.float64)
    expected = [features[k, :n].mean(0).tolist() for k, n in enumerate(lengths)]
    features[~_pool.mask(torch.tensor(lengths), features.shape[1])] = junk
    assert _pool.mean(features, torch.tensor(lengths)).tolist() == [pytest.approx(row) for row in expected]


def test_the_slope_of_a_mean_is_shared_by_real_tokens_alone() -> None:
    features = torch.zeros(2, 4, 1, requires_grad=True)
    _pool.mean(features, torch.tensor([4, 1])).sum().backward()
    assert features.grad is not None
    assert features.grad[..., 0].tolist() == [[0.25] * 4, [1.0, 0.0, 0.0, 0.0]]


# --- vocabularies -----------------------------------------------------------------------------------------


@given(
    st.lists(st.text("aAbB', \u00e9", max_size=12), max_size=8),
    st.integers(1, 6),
    st.integers(1, 4),
)
def test_a_vocabulary_is_the_most_frequent_words_and_no_others(texts: list[str], size: int, minimum: int) -> None:
    counts = Counter(token for text in texts for token in tokenize(text))
    unknown, *known = _vocabulary.learn(texts, size, minimum)
    assert unknown == "" and len(known) <= size - 1
    assert all(counts[word] >= minimum for word in known)
    left = [word for word in counts if counts[word] >= minimum and word not in known]
    if left:
        assert len(known) == size - 1
    for before, after in pairwise(known):
        assert (-counts[before], before) < (-counts[after], after)
    for word in left:
        assert not known or (-counts[known[-1]], known[-1]) < (-counts[word], word)


def test_frequency_is_counted_over_tokens_not_texts() -> None:
    assert _vocabulary.learn(["a a a", "b", "b"], 2, 1) == ("", "a")
    assert _vocabulary.learn(["a a"], 9, 2) == ("", "a")  # twice in one text is twice


@given(st.lists(st.text("abc", max_size=2), unique=True, max_size=6), st.lists(st.text("abc", max_size=2), max_size=8))
def test_rows_name_words_and_everything_else_is_row_zero(known: list[str], tokens: list[str]) -> None:
    vocabulary = ("", *(word for word in known if word))
    rows = _vocabulary.rows(_vocabulary.index(vocabulary), tokens)
    assert rows.dtype == np.int64 and rows.shape == (len(tokens),)
    for token, row in zip(tokens, rows, strict=True):
        assert vocabulary[row] == (token if token in vocabulary else "")


def test_rows_of_any_iterable_of_nothing() -> None:
    assert _vocabulary.rows({"": 0}, []).shape == (0,)


# --- the LSTM classifier ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Config:
    embedding: int = 4
    hidden: int = 3
    max_tokens: int = 8
    embedding_std: float = 0.5


VOCABULARY = ("", *string.ascii_lowercase[:6])


def classifier(seed: int = 1, **changed: Any) -> LstmClassifier:
    return LstmClassifier(Config(**changed), VOCABULARY, 2).drawn(seed)


def by_hand(model: LstmClassifier, tokens: list[str]) -> np.ndarray:
    """The logits from the published equations in float64; torch's order of gates is input, forget, cell, output."""
    weights = {name: weight.detach().double().numpy() for name, weight in model.named_parameters()}
    hidden = model.config.hidden
    h, c = np.zeros(hidden), np.zeros(hidden)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    for token in tokens:
        x = weights["table"][VOCABULARY.index(token) if token in VOCABULARY else 0]
        pre = weights["lstm.weight_ih_l0"] @ x + weights["lstm.bias_ih_l0"]
        pre = pre + weights["lstm.weight_hh_l0"] @ h + weights["lstm.bias_hh_l0"]
        i, f, g, o = pre.reshape(4, hidden)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return weights["head_weight"] @ h + weights["head_bias"]


@given(st.lists(st.sampled_from([*VOCABULARY[1:], "unknown"]), min_size=1, max_size=8), st.integers(0, 20))
def test_logits_follow_the_equations(tokens: list[str], seed: int) -> None:
    model = classifier(seed)
    with torch.no_grad():
        found = model(torch.from_numpy(model.codes(tokens))[None], torch.tensor([len(tokens)]))[0]
    assert found.numpy() == pytest.approx(by_hand(model, tokens), abs=1e-5)


def test_the_last_token_of_each_text_is_read_and_not_the_last_place() -> None:
    model = classifier()
    texts = [["a", "b"], ["c", "d", "e", "f"], ["f"]]
    codes = np.zeros((3, 6), np.int64)
    for line, tokens in zip(codes, texts, strict=True):
        line[: len(tokens)] = model.codes(tokens)
    with torch.no_grad():
        reading = model.read(model.features(torch.from_numpy(codes)), torch.tensor([2, 4, 1]))
    assert reading.words.shape == (3, 6, 4) and reading.state.shape == (3, 3)
    for state, tokens in zip(model.head(reading.state), texts, strict=True):
        assert state.detach().numpy() == pytest.approx(by_hand(model, tokens), abs=1e-5)


def test_fresh_weights_lie_where_the_recipe_says() -> None:
    model = LstmClassifier(Config(embedding=40, hidden=25), tuple(map(str, range(500))), 3).drawn(0)
    bound = 1 / math.sqrt(25)
    for name, weight in model.named_parameters():
        if name == "table":
            assert weight.std().item() == pytest.approx(0.5, rel=0.03) and abs(weight.mean().item()) < 0.02
        else:
            assert weight.abs().max().item() <= bound
            assert weight.numel() < 100 or weight.abs().max().item() > 0.95 * bound
    assert not torch.equal(model.lstm.bias_ih_l0, model.lstm.bias_hh_l0)


def test_weights_are_drawn_as_one_stream_so_that_no_two_are_alike() -> None:
    """A generator made anew for every tensor would begin each with the same numbers."""
    model = classifier(embedding=3, hidden=3)
    assert not torch.equal(model.lstm.weight_ih_l0, model.lstm.weight_hh_l0)
    assert not torch.allclose(model.head_weight.flatten()[:2], model.lstm.weight_ih_l0.flatten()[:2])


def test_a_program_adds_the_two_biases_and_copies_the_weights() -> None:
    model = classifier()
    program = model.program()
    assert isinstance(program.body, Lstm) and isinstance(program.words, Rows)
    both = (model.lstm.bias_ih_l0 + model.lstm.bias_hh_l0).detach().numpy().copy()
    table = program.words.table.copy()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    assert np.array_equal(program.body.bias, both) and np.array_equal(program.words.table, table)
    assert program.vocabulary == VOCABULARY and program.max_tokens == 8 and program.words.ngrams == 0


def test_a_model_read_back_is_the_model(tmp_path: Any) -> None:
    one, other = classifier(), LstmClassifier(Config(), VOCABULARY, 2)
    torch.save(one.state_dict(), tmp_path / "weights")
    other.load_state_dict(torch.load(tmp_path / "weights", weights_only=True))
    codes, lengths = torch.from_numpy(one.codes(["a", "b", "zz"]))[None], torch.tensor([3])
    assert torch.equal(one(codes, lengths), other(codes, lengths))


@pytest.mark.parametrize("kind", [Student, Teacher])
def test_what_a_vocabulary_leaves_out_is_read_alike(kind: Any) -> None:
    model = kind.build(kind.Config(), ["seen words only", "seen words only"], 2, 0)
    assert model.codes(["never", "", "nowhere"]).tolist() == [0, 0, 0]
    assert len(set(model.codes(["seen", "words", "only"]).tolist())) == 3
    assert model.tokenize("SEEN, words!") == ["seen", ",", "words", "!"]
