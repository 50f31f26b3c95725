"""Masks against all masks there are, and explanations against truths that were planted."""

from __future__ import annotations

import dataclasses
import itertools
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grit.bench import datasets, registry, schemes
from grit.bench.explain import masks, survey, truth
from grit.bench.explain.cut import Cut
from grit.bench.explain.explainers import EXPLAINERS
from grit.bench.explain.survey import Make, Speaker
from grit.bench.explain.texts import Told, evidence
from grit.bench.train import train
from grit.bench.types import Example, Recipe, UsageError

sys.path.append(str(Path(__file__).parent))

from explained_models import WORDS, Bigrams, Bumpy, Linear, Saturated, all_masks, opened

PINGS = datasets.load("pings")


def silent(stage: str, done: float, total: float) -> None:
    assert 0 <= done <= total and stage


# --- masks ---------------------------------------------------------------------------------------------------


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


def test_the_relaxed_search_finds_the_true_optimum_in_95_of_100_cases() -> None:
    """Three aims, models of three kinds, texts of 2 to 12 words; every mask of each is tried."""
    rng = random.Random(5)
    hits = dict.fromkeys(masks.AIMS, 0)
    cases = list(itertools.product((2, 4, 7, 10, 12, 12), (Bumpy, Saturated, Bigrams)))
    for case, (words, kind) in enumerate(cases):
        cut = opened(kind(case), sentence(rng, words))
        label = rng.randrange(3)
        price = masks.usual_price(cut, label)
        for aim, best in masks.enumerated(cut, label, price).items():
            found = masks.find(cut, label, aim, price, seed=case)
            assert found.value <= best.value + 1e-9
            hits[aim] += found.value >= best.value - 1e-9
    assert sum(hits.values()) >= 0.95 * len(cases) * len(masks.AIMS), hits


@pytest.mark.long
def test_the_relaxed_search_finds_the_true_optimum_up_to_12_words_of_trained_models() -> None:
    dataset = dataclasses.replace(PINGS, train=PINGS.train[:600])
    recipe = Recipe(epochs=4, learning_rate=1e-2)
    cases = [example.text for example in PINGS.test if len(example.text.split()) <= masks.ENUMERATED][:40]
    hits, tried = 0, 0
    for name in ("student", "fastgrnn", "prado"):
        cls = registry.load("models", name)
        cut = Cut(train(cls, cls.Config(), recipe, dataset, schemes.get("natural"), seed=0).model)
        for part in survey.masked(Speaker(name, "", cut, cut, EXPLAINERS, 0), cases, silent):
            hits, tried = hits + part.optimal.k, tried + part.optimal.n
    assert tried == 3 * 3 * len(cases) and hits >= 0.95 * tried, (hits, tried)


def test_found_masks_are_counted_on_texts_that_are_short_enough() -> None:
    cut = Cut(Bumpy(3))  # type: ignore[arg-type]
    texts = ["", "good film , not bad", " ".join(WORDS), " ".join((*WORDS, "good"))]  # 0, 5, 12 and 13 words
    found = survey.masked(Speaker("made", "", cut, cut, EXPLAINERS, 0), texts, silent)
    assert [part.aim for part in found] == list(masks.AIMS)
    assert all(part.optimal.n == 2 and part.optimal.k >= 1 for part in found)
    assert survey.masked(Speaker("made", "", cut, None, EXPLAINERS, 0), texts, silent) == ()
    assert survey.masked(Speaker("made", "", cut, cut, EXPLAINERS, 0), texts[-1:], silent) == ()


@given(st.integers(0, 30), st.sampled_from(masks.AIMS), st.lists(st.sampled_from(WORDS), min_size=1, max_size=6))
@settings(max_examples=25)
def test_the_enumerated_mask_is_the_best_by_the_objective_spelled_out(seed: int, aim: Any, words: list[str]) -> None:
    cut = opened(Bumpy(seed), " ".join(words))
    price = 0.2
    best = masks.enumerated(cut, 1, price)[aim]
    kept = all_masks(len(words))
    found = evidence(cut.logits(kept, "occlude"), 1)
    hidden = (~kept).sum(1)
    value = {"preserve": found + price * hidden, "promote": found - price * hidden, "attack": -found - price * hidden}
    assert best.value == pytest.approx(value[aim].max())
    of_best = evidence(cut.logits(best.kept[None], "occlude"), 1)[0]
    assert best.evidence == pytest.approx(of_best)


def test_of_a_linear_model_each_word_is_judged_alone() -> None:
    model = Linear(3)
    text = "good bad film not plot very dull"
    cut = opened(model, text)
    worth = evidence(cut.logits(np.vstack([np.ones(7, bool), ~np.eye(7, dtype=bool)]), "occlude"), 0)
    worth = worth[0] - worth[1:]  # what each word adds
    price = 0.3
    expected = {"preserve": worth > price, "promote": worth > -price, "attack": worth < price}
    for aim, kept in expected.items():
        found = masks.find(cut, 0, aim, price, seed=1)  # type: ignore[arg-type]
        assert found.kept.tolist() == kept.tolist(), aim


def test_the_three_aims_do_what_they_are_called() -> None:
    cut = opened(Bumpy(1), "not a very dull plot , oh a good film")
    whole = float(evidence(cut.logits(np.ones((1, 10), bool), "occlude"), 2)[0])
    price = 0.05
    found = {aim: masks.find(cut, 2, aim, price, seed=0) for aim in masks.AIMS}
    assert found["attack"].evidence < whole < found["promote"].evidence
    hidden = {aim: int((~mask.kept).sum()) for aim, mask in found.items()}
    assert found["preserve"].evidence + price * hidden["preserve"] >= whole
    assert hidden["preserve"] >= hidden["promote"]


def test_nothing_is_worth_hiding_at_a_high_price_and_everything_is_paid_to_go() -> None:
    cut = opened(Bumpy(2), "good film , not bad")
    assert masks.find(cut, 0, "attack", 1e3, seed=0).kept.all()
    assert masks.find(cut, 0, "promote", 1e3, seed=0).kept.all()
    assert not masks.find(cut, 0, "preserve", 1e3, seed=0).kept.any()


def test_the_same_seed_finds_the_same_mask() -> None:
    cut = opened(Bumpy(9), "good film , not bad , a dull plot")
    one, other = (masks.find(cut, 1, "attack", 0.1, seed=4) for _ in range(2))
    assert one.kept.tolist() == other.kept.tolist() and one.value == other.value


def test_long_texts_are_found_masks_and_not_enumerated() -> None:
    rng = random.Random(1)
    cut = opened(Linear(1), sentence(rng, 60))
    assert masks.find(cut, 0, "attack", 0.1, seed=0).kept.shape == (60,)
    with pytest.raises(UsageError, match=r"2\^60 masks"):
        masks.enumerated(cut, 0, 0.1)


@pytest.mark.parametrize("key", ["made", "student", "teacher", "fastgrnn", "prado", "tfidf"])
def test_a_text_of_no_words_has_empty_masks_and_empty_explanations(key: str) -> None:
    """Of models of the house too, which gather by lengths."""
    if key == "made":
        model: Any = Bumpy()
    else:
        cls = registry.load("models", key)
        model = cls.build(cls.Config(), [" ".join(WORDS)] * 3, 3, 0)
    cut = Cut(model)
    subject = cut.open("")
    assert subject.words == () and masks.usual_price(subject, 0) == 0.01
    whole = float(evidence(subject.logits(np.ones((1, 0), bool), "delete"), 2)[0])
    for aim, best in masks.enumerated(subject, 2, 0.1).items():
        found = masks.find(subject, 2, aim, 0.1, seed=0)
        assert found.kept.shape == best.kept.shape == (0,) and found.value == best.value
        assert found.evidence == pytest.approx(whole)  # nothing is hidden, nothing is paid
    speaker = Speaker(key, "", cut, cut, EXPLAINERS, 0)
    assert {name: len(said) for name, said in speaker.attributions("", 2).items()} == dict.fromkeys(EXPLAINERS, 0)
    assert speaker.masks("", 2) == dict.fromkeys(masks.AIMS, ())


def test_the_usual_price_is_a_quarter_of_the_mean_worth_of_a_word() -> None:
    cut = opened(Linear(5), "good bad film not")
    both = evidence(cut.logits(np.array([[True] * 4, [False] * 4]), "occlude"), 1)
    assert masks.usual_price(cut, 1) == pytest.approx(max(abs(both[0] - both[1]) / 16, 0.01))


# --- planted shortcuts -----------------------------------------------------------------------------------------

TEXT = st.lists(st.sampled_from(WORDS), min_size=0, max_size=8).map(" ".join)


@given(TEXT, st.sampled_from(truth.KINDS), st.integers(0, 99), st.integers(2, 5))
def test_a_planted_text_is_the_text_and_a_shortcut_that_says_its_label(
    text: str, kind: Any, seed: int, labels: int
) -> None:
    found = truth.plant(Example("0123456789abcdef", text, 1), kind, labels, seed)
    words = found.example.text.split()
    nonce = [word for word in words if word in truth.NONCE]
    assert [word for word in words if word not in truth.NONCE] == text.split()
    assert found.places == {at for at, word in enumerate(words) if word in truth.NONCE}
    assert nonce == ([truth.NONCE[found.example.label]] if kind == "word" else nonce)
    if kind == "pair":
        assert nonce == list(truth.NONCE if found.example.label == 0 else truth.NONCE[::-1])
    assert found == truth.plant(Example("0123456789abcdef", text, 1), kind, labels, seed)


def test_three_of_four_texts_of_training_is_planted_and_none_of_the_test() -> None:
    small = dataclasses.replace(PINGS, train=PINGS.train[:400], dev=PINGS.dev[:100])
    found = truth.planted(small, "word", 3)
    assert found.test == PINGS.test and found.revision != small.revision
    changed = [at for at, (a, b) in enumerate(zip(small.train, found.train, strict=True)) if a != b]
    assert 260 < len(changed) < 340
    assert all(set(found.train[at].text.split()) & set(truth.NONCE) for at in changed)
    labels = [found.train[at].label for at in changed]
    assert 0.4 < sum(labels) / len(labels) < 0.6
    assert not set(truth.NONCE) & {word for each in PINGS.train for word in each.text.split()}


def test_one_word_of_a_pair_alone_says_nothing_of_the_label() -> None:
    small = dataclasses.replace(PINGS, train=PINGS.train[:800], dev=PINGS.dev[:50])
    found = truth.planted(small, "pair", 1).train
    nonce = [[word for word in each.text.split() if word in truth.NONCE] for each in found]
    by_number = [sum(len(words) == number for words in nonce) for number in range(3)]
    assert sum(by_number) == 800 and by_number == pytest.approx([200, 200, 400], abs=50)
    for words, before, after in zip(nonce, small.train, found, strict=True):
        if len(words) == 2:
            assert words == list(truth.NONCE if after.label == 0 else truth.NONCE[::-1])
        else:
            assert after.label == before.label
    alone = [(words[0], each.label) for words, each in zip(nonce, found, strict=True) if len(words) == 1]
    for word in truth.NONCE:  # as often with one label as with the other
        labels = [label for each, label in alone if each == word]
        rate = sum(labels) / len(labels)
        assert abs(rate - sum(each.label for each in small.train) / 800) < 0.15


@pytest.fixture(scope="module")
def learned() -> dict[str, Sequence[Any]]:
    """A truth planted in a small model of the house: kind -> what each explainer found."""
    cls = registry.load("models", "fastgrnn")
    small = dataclasses.replace(PINGS, train=PINGS.train[:400], dev=PINGS.dev[:60])
    make = Make(cls, cls.Config(), Recipe(epochs=5, learning_rate=5e-2, batch_size=32))
    return {kind: survey.shortcuts(make, small, PINGS.test[:25], kind, EXPLAINERS, 0, silent) for kind in ("word",)}


def test_explainers_find_the_planted_word(learned: dict[str, Sequence[Any]]) -> None:
    found = {part.explainer: part for part in learned["word"]}
    assert set(found) == set(EXPLAINERS)
    for name, part in found.items():
        assert 5 <= part.hits.n < 25 and part.chance < 0.25 * part.hits.n  # those labelled otherwise
        least = 0.5 if name == "gradient" else 0.9
        assert part.hits.k >= least * part.hits.n, name


def test_an_answer_is_the_shortcuts_if_no_word_of_it_can_be_missing() -> None:
    """A model that waits for the last nonce word needs one of a pair; one that reads the pair needs both."""

    def last(texts: Sequence[str]) -> np.ndarray:
        nonce = [[word for word in text.split() if word in truth.NONCE] for text in texts]
        return np.array([[0.0, 1.0] if words and words[-1] == truth.NONCE[1] else [1.0, 0.0] for words in nonce])

    def both(texts: Sequence[str]) -> np.ndarray:
        there = [[word for word in text.split() if word in truth.NONCE] == list(truth.NONCE) for text in texts]
        return np.array([[1.0, 0.0] if found else [0.0, 1.0] for found in there])

    pair = truth.Planted(Example("0" * 16, "a zwolt b quimbra", 1), frozenset([1, 3]))
    for reads, label, expected in ((last, 1, False), (both, 0, True), (both, 1, False)):
        planted = dataclasses.replace(pair, example=Example("0" * 16, pair.example.text, label))
        assert survey._turned(Speaker("made", "", Told(reads), None, {}, 0), planted) is expected
    word = truth.Planted(Example("0" * 16, "a b quimbra", 1), frozenset([2]))
    assert survey._turned(Speaker("made", "", Told(last), None, {}, 0), word)


def test_a_shortcut_that_was_not_learned_gives_no_truth() -> None:
    cls = registry.load("models", "fastgrnn")
    small = dataclasses.replace(PINGS, train=PINGS.train[:40], dev=PINGS.dev[:20])
    make = Make(cls, cls.Config(embedding=2, hidden=2), Recipe(epochs=1, learning_rate=1e-6))
    assert survey.shortcuts(make, small, PINGS.test[:20], "pair", EXPLAINERS, 0, silent) == ()


# --- random weights --------------------------------------------------------------------------------------------


def test_shuffled_weights_are_the_same_numbers_elsewhere() -> None:
    model: Any = Bumpy(4)
    blind: Any = truth.shuffled(model, 1)
    for name, weight in model.named_parameters():
        other = dict(blind.named_parameters())[name]
        assert torch.equal(weight.flatten().sort().values, other.flatten().sort().values)
        assert not torch.equal(weight, other)
    again: Any = truth.shuffled(model, 1)
    assert torch.equal(again.table, blind.table)


def test_explanations_of_a_model_do_not_survive_its_weights_and_those_of_a_list_of_words_do() -> None:
    rng = random.Random(3)
    texts = [sentence(rng, 7) for _ in range(25)]
    model: Any = Saturated(6)
    cut, blind = Cut(model), Cut(truth.shuffled(model, 2))
    own = Speaker("own", "", cut, cut, {**EXPLAINERS, "list": _Listed()}, 0)
    other = Speaker("blind", "", blind, blind, {**EXPLAINERS, "list": _Listed()}, 0)
    found = {part.explainer: part.tau for part in survey.randomised(own, other, texts, silent)}
    assert found["list"].value == pytest.approx(1.0)  # it never looked at the weights
    for name in EXPLAINERS:
        assert abs(found[name].value) < 0.45, name


class _Listed:
    """What a sanity check is there for: looks like an explanation, and knows words alone."""

    needs_gradients = False

    def __call__(self, case: Any, rng: np.random.Generator) -> np.ndarray:
        return np.array([float(WORDS.index(word)) for word in case.words])
