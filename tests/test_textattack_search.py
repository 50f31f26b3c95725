"""What decides ties in TextAttack's greedy search: the order of candidates, of words, and single precision."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TypeVar

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from grit.attacks._textattack import Scores, candidates, ranked, scores, scores_of_each, softmax32
from grit.bench.sentence import Text
from grit.bench.types import Edit, Question, Score, Script, Threat

ANY = Threat(spaces=("any",))
WORDS = st.text("ab-B\u00e9", min_size=1, max_size=4)  # many begin another, some with a sign that sorts before letters


@given(
    st.lists(WORDS, max_size=8),
    st.sampled_from([" ", ", ", "-", "a ", ""]),
    st.integers(0, 2),
    st.sets(st.integers(0, 2)),
)
def test_candidates_stand_in_the_order_of_their_texts(
    words: list[str], behind: str, index: int, changed: set[int]
) -> None:
    """Also where one word begins another and what follows decides; no double, and never the word itself."""
    text = Text(f"zero{behind} one{behind} two{behind}", ANY)
    script: Script = tuple(Edit("replace", other, "x") for other in sorted(changed - {index}))
    found = candidates(text, script, index, [*words, text.words[index]])
    texts = [text.apply(each) for each in found]
    assert texts == sorted(texts) and len(set(texts)) == len(set(words) - {text.words[index]}) == len(found)
    for each in found:
        assert set(each) >= set(script) and text.malformed(each) is None


def test_what_follows_a_word_decides_where_it_begins_another() -> None:
    text = Text("so~ it goes", ANY)  # a tilde sorts behind all letters
    found = candidates(text, (), 0, ["be", "bee"])
    assert [edit.word for ((edit),) in found] == ["bee", "be"]


_Found = TypeVar("_Found")
ROWS = st.sampled_from([(0.25, 0.75), (1.0, 0.0), (0.5, 0.5), (2.0, -1.0), (3.0, 1.0), (-0.5, 0.25), (7.0, 7.5)])


def answered(
    search: Generator[Question, np.ndarray, _Found], rows: Mapping[Script, tuple[float, float]]
) -> tuple[_Found, list[Score]]:
    """What a search finds where these are the logits, and what it asked."""
    asked: list[Score] = []
    try:
        question = next(search)
        while True:
            assert isinstance(question, Score)
            asked.append(question)
            question = search.send(np.array([rows[script] for script in question.scripts]))
    except StopIteration as stop:
        return stop.value, asked


@given(st.lists(st.lists(ROWS, max_size=3), max_size=4), st.integers(0, 1))
def test_groups_in_one_question_are_looked_at_apart(groups: list[list[tuple[float, float]]], label: int) -> None:
    """A group whose rows all sum to one is taken for probabilities, whatever its neighbours are."""
    scripts: list[list[Script]] = [
        [(Edit("replace", site, f"w{k}"),) for k in range(len(rows))] for site, rows in enumerate(groups)
    ]
    known = {
        script: row
        for group, rows in zip(scripts, groups, strict=True)
        for script, row in zip(group, rows, strict=True)
    }
    together, asked = answered(scores_of_each(scripts, label), known)
    assert len(asked) == any(groups)
    apart: list[Scores] = [answered(scores(group, label), known)[0] for group in scripts]
    for one, other in zip(together, apart, strict=True):
        assert np.array_equal(one.score, other.score) and np.array_equal(one.predicted, other.predicted)


@given(st.lists(st.floats(0, 1), max_size=40))
def test_softmax_in_single_precision(values: list[float]) -> None:
    found = softmax32(np.array(values))
    assert found.dtype == np.float32 and len(found) == len(values)
    if values:
        powers = np.exp(np.array(values) - max(values))
        assert np.allclose(found, powers / powers.sum(), rtol=1e-6)


def test_the_most_important_word_comes_first() -> None:
    assert ranked([7, 3, 9], np.array([0.1, 0.3, 0.2])) == [3, 9, 7]
    assert ranked([], np.empty(0)) == []
