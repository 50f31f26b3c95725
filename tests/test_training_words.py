"""The rows that training stands on, against models of them in plain lists: words, codes, pieces, candidates."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from grit.bench import lexicons
from grit.bench.objectives import _flips
from grit.bench.objectives._flips import Flips, misspelt, one_typo
from grit.bench.objectives._lessons import _by_piece
from grit.bench.objectives._words import Codebook, Split, Words, _merged, padded
from grit.bench.text import tokenize
from grit.bench.types import Example

TOKENS = st.text("abc", max_size=3)


class Lengths(torch.nn.Module):
    """Codes a token as its length and first letter; counts what it is asked to code, and whether it was training."""

    def __init__(self, separable: bool = True, max_tokens: int = 8, vocabulary: tuple[str, ...] = ("",)) -> None:
        super().__init__()
        self.separable = separable
        self.max_tokens = max_tokens
        self.vocabulary = vocabulary
        self.asked: list[str] = []

    def tokenize(self, text: str) -> list[str]:
        return tokenize(text)

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        assert not self.training
        self.asked += tokens
        return np.array([[len(token), ord(token[0]) if token else 0] for token in tokens], np.int64).reshape(-1, 2)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return codes.double()


# --- words and codes --------------------------------------------------------------------------------------


class TrainingWords(RuleBasedStateMachine):
    """Interning, reserving and rewriting in any order; a codebook that is asked at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.words = Words()
        self.model: Any = Lengths()
        self.book = Codebook(self.words, self.model)
        self.strings = [""]
        self.rows = {"": 0}
        self.blocks: list[tuple[int, int]] = []

    @rule(tokens=st.lists(TOKENS, max_size=4))
    def intern(self, tokens: list[str]) -> None:
        for token in tokens:
            if token not in self.rows:
                self.rows[token] = len(self.strings)
                self.strings.append(token)
        found = self.words.intern(tokens)
        assert found.dtype == np.int32 and found.tolist() == [self.rows[token] for token in tokens]

    @rule(n=st.integers(0, 3))
    def reserve(self, n: int) -> None:
        assert self.words.reserve(n) == len(self.strings)
        self.blocks.append((len(self.strings), n))
        self.strings += [""] * n

    @rule(data=st.data())
    def rewrite(self, data: st.DataObject) -> None:
        if self.blocks:
            start, n = data.draw(st.sampled_from(self.blocks))
            tokens = data.draw(st.lists(TOKENS, max_size=n))
            self.words.rewrite(start, tokens)
            self.strings[start : start + len(tokens)] = tokens

    @rule(train=st.booleans())
    def read(self, train: bool) -> None:
        self.model.train(train)
        table = self.book.table
        assert self.model.training == train
        assert np.array_equal(table, Lengths().eval().codes(self.strings))
        self.model.asked.clear()
        assert self.book.table is table and not self.model.asked  # nothing changed, so nothing is coded again

    @invariant()
    def a_name_is_never_lost(self) -> None:
        assert len(self.words) == len(self.strings)
        for token, row in self.rows.items():
            assert self.words.find(token) == row
        for start, n in self.blocks:  # what stands in a block can be read and not be found
            for string_ in self.words.strings[start : start + n]:
                assert self.words.find(string_) not in range(start, start + n)


TrainingWords.TestCase.settings = settings(max_examples=25, stateful_step_count=15)
test_training_words_are_lists_with_names = TrainingWords.TestCase


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), max_size=12))
def test_merged_ranges_cover_the_same_rows_once(spans: list[tuple[int, int]]) -> None:
    changes = [(start, start + n) for start, n in spans]
    merged = _merged(changes)
    covered = [row for start, stop in merged for row in range(start, stop)]
    assert covered == sorted({row for start, stop in changes for row in range(start, stop)})
    assert all(one[1] < other[0] for one, other in pairwise(merged))


def test_each_new_row_is_coded_once_however_it_came_and_changed() -> None:
    words, model = Words(), Lengths()
    book = Codebook(words, model)  # type: ignore[arg-type]
    words.intern(["aa", "b"])
    block = words.reserve(3)
    for tokens in (["x", "y", "z"], ["xx"], ["xxx", "yyy"]):
        words.rewrite(block, tokens)
    model.asked.clear()
    assert book.table[block:, 0].tolist() == [3, 3, 1]
    assert sorted(model.asked) == sorted(["", "aa", "b", "xxx", "yyy", "z"])


@given(st.lists(st.lists(TOKENS, max_size=5), min_size=1, max_size=4), st.lists(TOKENS, max_size=5))
def test_spelling_equals_interning_without_keeping(texts: list[list[str]], known: list[str]) -> None:
    if not any(texts):
        return
    words, model = Words(), Lengths().eval()
    words.intern(known)
    before = len(words)
    found = Codebook(words, model).spell(texts)  # type: ignore[arg-type]
    assert len(words) == before
    longest = max(map(len, texts))
    for line, tokens in zip(found, texts, strict=True):
        assert np.array_equal(line, model.codes([*tokens, *[""] * (longest - len(tokens))]))


# --- texts as rows ----------------------------------------------------------------------------------------


@given(st.lists(st.text("ab,' ", max_size=20), min_size=1, max_size=6), st.integers(1, 5), st.booleans())
def test_a_split_is_tokenize_text_by_text(texts: list[str], limit: int, separable: bool) -> None:
    model, words = Lengths(separable, limit), Words()
    split = Split(model, words, [Example(str(k), text, k) for k, text in enumerate(texts)])  # type: ignore[arg-type]
    index = np.array(random.Random(limit).choices(range(len(texts)), k=5))
    rows, pieces = split.rows(index), split.pieces(index)
    assert rows.shape == pieces.shape and rows.dtype == np.int32
    for line, places, number in zip(rows, pieces, index, strict=True):
        tokens, owners = [], []
        for piece, part in enumerate(texts[number].split() if separable else [texts[number]]):
            cut = tokenize(part)
            tokens += cut
            owners += [piece] * len(cut)
        tokens, owners = tokens[:limit] or [""], owners[:limit] or [0]
        n = split.lengths[number]
        assert [words.strings[row] for row in line[:n]] == tokens and not line[n:].any()
        assert places[:n].tolist() == owners and not places[n:].any()
    counted = [words.strings[row] for k in range(len(texts)) for row in split.rows(np.array([k]))[0]]
    assert split.counts(len(words)).tolist() == [counted.count(token) for token in words.strings]
    assert split.labels.tolist() == list(range(len(texts)))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 5))
def test_batches_hold_every_text_once_shortest_first(lengths: list[int], size: int) -> None:
    model = Lengths(max_tokens=20)
    texts = [Example(str(k), " ".join("a" * n), 0) for k, n in enumerate(lengths)]
    split = Split(model, Words(), texts)  # type: ignore[arg-type]
    batches = split.batches(size)
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1) and 0 < len(batches[-1]) <= size
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(len(texts)))
    assert order.tolist() == sorted(range(len(texts)), key=lambda k: lengths[k])  # equal ones as they stood


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.data())
def test_padding_picks_lines_in_any_order_and_keeps_features(sizes: list[int], data: st.DataObject) -> None:
    flat = np.arange(1, 3 * sum(sizes) + 4, dtype=np.float32).reshape(-1, 3)
    ends = np.cumsum([0, *sizes])
    index = np.array(data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=6)))
    kept = flat.copy()
    found = padded(flat, ends, index)
    assert found.shape == (len(index), max(sizes[k] for k in index), 3)
    for line, k in zip(found, index, strict=True):
        assert np.array_equal(line[: sizes[k]], flat[ends[k] : ends[k + 1]]) and not line[sizes[k] :].any()
    assert np.array_equal(flat, kept)


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=4),
    st.booleans(),
    st.integers(0, 99),
)
def test_pieces_sum_or_average_their_own_tokens(gaps: list[list[int]], mean: bool, seed: int) -> None:
    """``gaps``: by how much the piece number rises from token to token; a piece may have no token of its own."""
    numbers = [np.cumsum(text) for text in gaps]
    longest = max(map(len, numbers))
    pieces = np.array([[*text, *[7] * (longest - len(text))] for text in numbers])
    lengths = np.array([len(text) for text in numbers])
    split: Any = SimpleNamespace(pieces=lambda index: pieces[index], lengths=lengths)
    tokens = np.random.default_rng(seed).standard_normal((len(numbers), longest, 2)).astype(np.float32)
    found = _by_piece(torch.from_numpy(tokens), split, np.arange(len(numbers)), mean=mean)
    for vectors, mine, own in zip(tokens, numbers, found, strict=True):
        assert own.shape == (mine[-1] + 1, 2)
        for piece, vector in enumerate(own):
            those = vectors[: len(mine)][mine == piece]
            expected = those.sum(0) / (len(those) if mean else 1) if len(those) else np.zeros(2)
            assert vector == pytest.approx(expected, abs=1e-5)


# --- candidates -------------------------------------------------------------------------------------------


@given(st.lists(st.text("abc", min_size=1, max_size=4), unique=True, max_size=14), st.data())
def test_neighbours_are_all_pairs_one_typo_apart(strings: list[str], data: st.DataObject) -> None:
    counts = np.array(data.draw(st.lists(st.integers(0, 5), min_size=len(strings), max_size=len(strings))))
    common = np.array([row for row in range(len(strings)) if data.draw(st.booleans())], int)
    found = _flips._neighbours(strings, common, counts)
    for row in common.tolist():
        near = [other for other in common.tolist() if one_typo(strings[row], strings[other])]
        near.sort(key=lambda other: (-counts[other], other))
        assert found.get(row, []) == near
    assert set(found) <= set(common.tolist())


@given(st.text("abcd", max_size=5), st.text("abcd", max_size=5))
def test_a_typo_can_be_undone_by_a_typo(a: str, b: str) -> None:
    assert one_typo(a, b) == one_typo(b, a)
    assert not one_typo(a, a)
    assert one_typo(a + "x", b + "x") == one_typo("x" + a, "x" + b) == one_typo(a, b)


def test_the_four_kinds_of_misspelling_come_about_equally_often() -> None:
    rng, kinds = random.Random(0), {"swap": 0, "drop": 0, "replace": 0, "insert": 0}
    for _ in range(2000):
        other = misspelt("harbours", rng)
        if len(other) != 8:
            kinds["drop" if len(other) == 7 else "insert"] += 1
        elif sorted(other) == sorted("harbours"):
            kinds["swap"] += 1
        else:
            kinds["replace"] += 1
    assert all(400 < n < 600 for n in kinds.values()), kinds
    assert all(misspelt("a", random.Random(seed)) for seed in range(50))  # a letter is never dropped to nothing


def flips_over(texts: Sequence[str], vocabulary: tuple[str, ...] = ("",)) -> tuple[Flips, Split]:
    words, model = Words(), Lengths(max_tokens=20, vocabulary=vocabulary)
    split = Split(model, words, [Example(str(k), text, 0) for k, text in enumerate(texts)])  # type: ignore[arg-type]
    return Flips(Codebook(words, model), split, "", 3), split  # type: ignore[arg-type]


SENTENCES = [" ".join(f"{word}, {word}s" for word in ("kettle", "oven", "spade", "tide", "gull"))] * 3


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30)
def test_written_words_are_the_most_gainful_of_the_steepest_places(seed: int) -> None:
    rng = np.random.default_rng(seed)
    flips, split = flips_over([*SENTENCES, "the tide , oven ! gull"])
    rows = split.rows(np.array([0, 3]))
    lengths = torch.from_numpy(split.lengths[[0, 3]])
    gradient = torch.from_numpy(rng.standard_normal((*rows.shape, 2)))
    budgets = rng.integers(1, 4, 2)
    written = flips.write(rows, lengths, gradient, budgets)
    codes = flips.codebook.table.astype(float)
    for line in range(2):
        steep = [
            (-float(gradient[line, place].norm()), place)
            for place in range(int(lengths[line]))
            if flips.open[rows[line, place]]
        ]
        places = [place for _, place in sorted(steep)][: 2 * budgets.max()]

        def rises(place: int, line: int = line) -> np.ndarray:
            return (codes[flips.table[rows[line, place]]] - codes[rows[line, place]]) @ gradient[line, place].numpy()

        best = sorted(((rises(place).max(), place) for place in places), reverse=True)[: budgets[line]]
        expected = {place: rise for rise, place in best if rise > 1e-9}
        changed = np.flatnonzero(written[line] != rows[line]).tolist()
        assert sorted(changed) == sorted(expected)
        for place in changed:
            new = written[line, place]
            assert new in flips.table[rows[line, place]]
            rise = (codes[new] - codes[rows[line, place]]) @ gradient[line, place].numpy()
            assert rise == pytest.approx(expected[place])


def test_nothing_is_written_where_nothing_rises_or_nothing_may_change() -> None:
    flips, split = flips_over(SENTENCES)
    rows, lengths = split.rows(np.array([0])), torch.from_numpy(split.lengths[:1])
    flat = torch.zeros(*rows.shape, 2, dtype=torch.float64)
    assert np.array_equal(flips.write(rows, lengths, flat, np.array([3])), rows)
    assert np.array_equal(flips.write(rows, lengths, flat + 1, np.array([0])), rows)
    beyond = np.pad(rows, ((0, 0), (0, 3)), constant_values=rows[0, 0])  # real words behind the end of the text
    slopes = torch.full((*beyond.shape, 2), -1.0, dtype=torch.float64)
    slopes[:, rows.shape[1] :] = -100  # steepest of all there
    written = flips.write(beyond, lengths, slopes, np.array([2]))
    assert np.array_equal(written[:, rows.shape[1] :], beyond[:, rows.shape[1] :])
    assert (written != beyond).sum() == 2


def test_a_budget_counts_words_and_is_never_none() -> None:
    flips, split = flips_over([*SENTENCES, ", !", ""])
    rows, lengths = split.rows(np.array([0, 3, 4])), torch.from_numpy(split.lengths[[0, 3, 4]])
    assert (split.lengths[0], flips.budgets(rows, lengths, 0.3).tolist()) == (15, [3, 1, 1])  # of ten words
    assert flips.budgets(rows, lengths, 1.0).tolist() == [10, 1, 1]
    assert flips.budgets(rows, lengths, 0.7).tolist() == [7, 1, 1]  # though 0.7 * 10 is 7.000000000000001 or 6.999...


def test_stop_words_punctuation_and_rare_words_keep_to_themselves() -> None:
    flips, _ = flips_over(["the tide , the tides !", "the tide , the tides ? once"], ())
    strings = flips.codebook.words.strings

    def candidates(token: str) -> set[str]:
        row = flips.codebook.words.find(token)
        assert row is not None
        return {strings[other] for other in flips.table[row]} - {token}

    assert not candidates("the") and not candidates(",") and not candidates("!")
    assert not candidates("once")  # seen a single time: to a model that hashes no typo of it is worth learning
    assert "tides" in candidates("tide") and candidates("tide") - {"tides"}
    assert all(set(other) <= set(string.ascii_lowercase) for other in candidates("tide"))


def test_scattered_words_are_drawn_from_all_places_and_all_candidates() -> None:
    flips, split = flips_over(SENTENCES, ())
    rows, lengths = split.rows(np.array([0])), torch.from_numpy(split.lengths[:1])
    rng, seen = random.Random(1), set()
    for _ in range(300):
        written = flips.scatter(rows, lengths, np.array([2]), rng)
        places = np.flatnonzero(written != rows)
        assert len(places) == 2
        seen |= {(int(place), int(written[0, place])) for place in places}
    possible = {
        (place, int(other))
        for place in range(rows.shape[1])
        if flips.open[rows[0, place]]
        for other in flips.table[rows[0, place]]
        if other != rows[0, place]
    }
    assert seen <= possible and len(seen) > 0.9 * len(possible)


def test_an_epoch_is_drawn_once_and_a_seed_draws_it_again() -> None:
    flips, _ = flips_over(SENTENCES, ())

    def misspellings() -> list[str]:
        return flips.codebook.words.strings[flips.base :]

    first = list(misspellings())
    flips.renew(0)
    assert misspellings() == first
    flips.renew(1)
    assert misspellings() != first
    flips.renew(0)
    assert misspellings() == first
    assert misspellings() == flips_over(SENTENCES, ())[0].codebook.words.strings[flips.base :]


def test_synonyms_of_several_tokens_and_the_word_itself_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Source:
        def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
            return ("Stove", "stove", "gas-cooker", "", word.upper(), "range") if word == "oven" else ()

    monkeypatch.setattr(lexicons, "load", lambda name: Source())
    words, model = Words(), Lengths().eval()
    common = words.intern(["oven", "tide"])
    found = _flips._synonyms(Codebook(words, model), common, "any name")  # type: ignore[arg-type]
    assert {words.strings[row]: [words.strings[k] for k in others] for row, others in found.items()} == {
        "oven": ["stove", "range"]
    }
    assert _flips._synonyms(Codebook(words, model), common, "") == {}  # type: ignore[arg-type]
