"""Scores of explanations: pinned definitions, exact bounds, agreement, and what attacks do to reasons."""

from __future__ import annotations

import itertools
import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from grit.bench.explain import attacked, scores, survey
from grit.bench.explain.agreement import kendall, overlap, top
from grit.bench.explain.explainers import EXPLAINERS
from grit.bench.explain.faithfulness import (
    SHARES,
    Faithfulness,
    _grown,
    exact_bounds,
    order_of,
    prefix_size,
)
from grit.bench.explain.scores import RANDOM
from grit.bench.explain.survey import Speaker
from grit.bench.explain.texts import Told
from grit.bench.sentence import Text
from grit.bench.types import Edit, Example, Outcome, Script, Threat, UsageError

sys.path.append(str(Path(__file__).parent))

from explained_models import Bumpy, Saturated, opened

NUMBERS = st.floats(-5, 5).map(lambda value: round(value, 2))


class Table:
    """A text whose model is a table: the logits of every set of words that is left."""

    def __init__(self, n: int, seed: int, classes: int = 2, scale: float = 1.5) -> None:
        self.words = tuple(f"w{at}" for at in range(n))
        self._table = np.random.default_rng(seed).normal(size=(1 << n, classes)) * scale

    def logits(self, kept: np.ndarray, hide: str) -> np.ndarray:
        return self._table[(kept * (1 << np.arange(kept.shape[1]))).sum(1)]

    def p(self, kept: Sequence[int], label: int) -> float:
        row = np.exp(self._table[sum(1 << at for at in kept)])
        return float(row[label] / row.sum())

    def answer(self, kept: Sequence[int]) -> int:
        return int(self._table[sum(1 << at for at in kept)].argmax())


# --- bounds ------------------------------------------------------------------------------------------------


def aopc_of(subject: Table, order: Sequence[int], label: int) -> float:
    n = len(subject.words)
    whole = subject.p(range(n), label)
    return sum(whole - subject.p(sorted(set(range(n)) - set(order[:k])), label) for k in range(1, n + 1)) / n


@given(st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=30)
def test_the_bounds_are_those_of_all_orders(n: int, seed: int) -> None:
    subject: Any = Table(n, seed)
    judge = Faithfulness(subject)
    every = [aopc_of(subject, order, judge.label) for order in itertools.permutations(range(n))]
    assert judge.bounds == (pytest.approx(min(every)), pytest.approx(max(every)), True)


@given(st.integers(1, 8), st.integers(0, 1000), st.integers(1, 6))
@settings(max_examples=30)
def test_a_beam_stays_within_the_exact_bounds_and_a_wide_one_reaches_them(n: int, seed: int, beam: int) -> None:
    subject: Any = Table(n, seed)
    exact = Faithfulness(subject).bounds
    narrow = Faithfulness(subject, exact=0, beam=beam).bounds
    assert exact.low - 1e-12 <= narrow.low <= narrow.high <= exact.high + 1e-12 and not narrow.exact
    wide = Faithfulness(subject, exact=0, beam=math.comb(n, n // 2)).bounds
    assert wide == (pytest.approx(exact.low), pytest.approx(exact.high), False)


def test_a_beam_of_five_is_close_on_a_smooth_model() -> None:
    text = "not a very dull plot , oh a good film - bad"
    subject = opened(Saturated(3), text)
    exact, beam = Faithfulness(subject).bounds, Faithfulness(subject, exact=0).bounds
    assert beam.low == pytest.approx(exact.low, abs=0.02) and beam.high == pytest.approx(exact.high, abs=0.02)


@given(st.sampled_from([3, 6, 63, 64, 65, 130]), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=30)
def test_a_beam_grows_every_set_by_every_word_and_keeps_the_better_way(n: int, beam: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gone = np.zeros((beam, n), bool)
    for row in gone:  # near each other, so that two ways lead to one set
        row[rng.choice(min(n, 6), size=2, replace=False)] = True
    gone = np.unique(gone, axis=0)
    sums = rng.integers(-3, 3, len(gone)).astype(float)
    expected: dict[tuple[bool, ...], float] = {}
    for row, sum_ in zip(gone, sums, strict=True):
        for word in np.flatnonzero(~row):
            larger = tuple((row | (np.arange(n) == word)).tolist())
            expected[larger] = max(sum_, expected.get(larger, -np.inf))
    grown, best = _grown(gone, sums)
    found = [tuple(row) for row in grown.tolist()]
    assert found == sorted(expected) and best.tolist() == [expected[row] for row in found]


def test_sixteen_words_are_exact_and_seventeen_are_not() -> None:
    for n, exact in ((16, True), (17, False)):
        subject: Any = _Counted(n)
        assert Faithfulness(subject).bounds.exact is exact
        assert (subject.asked > 1 << 16) is exact


class _Counted:
    """A model of n words that adds them up, and counts what it is asked."""

    def __init__(self, n: int) -> None:
        self.words = tuple(f"w{at}" for at in range(n))
        self.asked = 0

    def logits(self, kept: np.ndarray, hide: str) -> np.ndarray:
        self.asked += len(kept)
        sums = kept @ np.linspace(-1, 2, kept.shape[1])
        return np.stack([sums, -sums], 1)


def test_a_path_is_scored_by_the_sets_on_its_way() -> None:
    # Two words: drops of {0}, {1}, {0, 1}. The better path goes by {1}.
    assert exact_bounds(np.array([0.0, 0.1, 0.5, 0.4])) == (pytest.approx(0.25), pytest.approx(0.45))
    assert exact_bounds(np.array([9.0, 0.3])) == (pytest.approx(0.3), pytest.approx(0.3))
    assert exact_bounds(np.arange(4.0)) == (pytest.approx(2.0), pytest.approx(2.5))


@given(st.integers(1, 7), st.integers(0, 500), st.integers(0, 99))
@settings(max_examples=30)
def test_a_normalised_score_is_a_place_between_worst_and_best(n: int, seed: int, guess: int) -> None:
    subject: Any = Table(n, seed)
    judge = Faithfulness(subject)
    found = judge.scores(np.random.default_rng(guess).normal(size=n))
    low, high, _ = judge.bounds
    assert low - 1e-12 <= found.aopc <= high + 1e-12
    if high - low > 1e-6:
        assert found.normalised == pytest.approx((found.aopc - low) / (high - low))
    assert judge.normalised(high) in (pytest.approx(1.0), None) and judge.normalised(low) in (pytest.approx(0.0), None)


def test_where_no_order_matters_there_is_no_normalised_score() -> None:
    same: Any = Told(lambda texts: np.tile([1.0, 0.0], (len(texts), 1))).open("one two three")
    found = Faithfulness(same).scores(np.array([3.0, 2.0, 1.0]))
    assert found.normalised is None and found.aopc == 0 and found.flip == 1.0
    one: Any = Table(1, 0)
    assert Faithfulness(one).scores(np.array([1.0])).normalised is None


def test_normalising_forgets_how_far_probabilities_move() -> None:
    """The same model with logits a tenth the size: plain scores shrink, the normalised one hardly does."""
    loud: Any = Table(6, 4, scale=1.0)
    soft: Any = Table(6, 4, scale=0.1)
    attribution = np.arange(6.0)
    strong, weak = (Faithfulness(each).scores(attribution) for each in (loud, soft))
    assert abs(weak.aopc) < 0.3 * abs(strong.aopc)
    assert weak.normalised == pytest.approx(strong.normalised, abs=0.12)


# --- definitions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(1, [1, 1, 1, 1, 1]), (10, [1, 1, 1, 2, 5]), (20, [1, 1, 2, 4, 10]), (100, [1, 5, 10, 20, 50])],
)
def test_shares_of_words_are_rounded_up(n: int, sizes: list[int]) -> None:
    assert [prefix_size(n, share) for share in SHARES] == sizes


@given(st.integers(1, 7), st.integers(0, 500), st.data())
@settings(max_examples=30)
def test_every_score_is_its_definition(n: int, seed: int, data: st.DataObject) -> None:
    subject: Any = Table(n, seed, classes=3)
    attribution = np.array(data.draw(st.lists(NUMBERS, min_size=n, max_size=n)))
    order = sorted(range(n), key=lambda at: (-attribution[at], at))
    assert order_of(attribution).tolist() == order
    label = subject.answer(range(n))
    whole = subject.p(range(n), label)

    def left(k: int) -> list[int]:
        return sorted(order[k:])

    found = Faithfulness(subject).scores(attribution)
    sizes = [max(1, math.ceil(share * n - 1e-9)) for share in (0.01, 0.05, 0.1, 0.2, 0.5)]
    assert found.comprehensiveness == pytest.approx(sum(whole - subject.p(left(k), label) for k in sizes) / 5)
    assert found.sufficiency == pytest.approx(sum(whole - subject.p(sorted(order[:k]), label) for k in sizes) / 5)
    flips = [k for k in range(n + 1) if subject.answer(left(k)) != label]
    assert found.flip == pytest.approx(flips[0] / n if flips else 1.0)
    assert found.aopc == pytest.approx(aopc_of(subject, order, label))


def test_the_scores_of_a_model_that_reads_one_word() -> None:
    def logits(texts: Sequence[str]) -> np.ndarray:
        return np.array([[4.0, 0.0] if "yes" in text.split() else [0.0, 1.0] for text in texts])

    subject = Told(logits).open("well yes of course it is so I am told")  # ten words
    judge = Faithfulness(subject)
    right, wrong = (judge.scores(sign * np.eye(10)[1]) for sign in (1.0, -1.0))
    drop = 1 / (1 + math.exp(-4)) - 1 / (1 + math.exp(1))
    assert right.comprehensiveness == pytest.approx(drop) and right.sufficiency == pytest.approx(0)
    assert right.flip == pytest.approx(0.1) and right.normalised == pytest.approx(1)
    assert wrong.comprehensiveness == pytest.approx(0) and wrong.sufficiency == pytest.approx(drop)
    assert wrong.flip == pytest.approx(1.0) and wrong.normalised == pytest.approx(0)


# --- many texts ------------------------------------------------------------------------------------------

TEXTS = ["a very good film , not bad .", "dull plot , oh", "good - very good", "not a good plot , a bad film"]


def speaker(model: Any, name: str = "made", seed: int = 0, methods: Sequence[str] = ()) -> Speaker:
    from grit.bench.explain.cut import Cut

    cut = Cut(model)
    return Speaker(name, "0" * 64, cut, cut, survey.chosen(methods), seed)


def silent(stage: str, done: float, total: float) -> None:
    assert 0 <= done <= total and stage


def test_random_and_reversed_stand_beside_every_score() -> None:
    found, exact, by_text = survey.faithfulness(speaker(Saturated(1)), [*TEXTS, ""], silent)
    assert exact == len(TEXTS)
    of_texts = [value for value in by_text if value is not None]
    assert by_text[-1] is None and len(of_texts) == len(TEXTS)
    assert found[0].explainer == "integrated" and found[0].normalised == scores.mean(of_texts)
    rows = [(part.explainer, part.reversed) for part in found]
    assert rows == [*itertools.product(EXPLAINERS, (False, True)), (RANDOM, False)]
    by_row = dict(zip(rows, found, strict=True))
    chance = by_row[RANDOM, False].normalised
    for name in EXPLAINERS:
        itself, turned = by_row[name, False].normalised, by_row[name, True].normalised
        assert itself is not None and turned is not None and chance is not None
        assert turned.value < 0.4 and turned.value < chance.value < itself.value and itself.value > 0.7, name
        assert itself.low <= itself.value <= itself.high and itself.n == len(TEXTS)


def test_a_speaker_says_the_same_twice_and_remembers() -> None:
    one, other = speaker(Bumpy(2)), speaker(Bumpy(2))
    for text in TEXTS:
        label, probability = one.answer(text)
        assert 1 / 3 <= probability <= 1
        first = one.attributions(text, label)
        assert first is one.attributions(text, label)
        for name, values in other.attributions(text, label).items():
            assert (values == first[name]).all(), name
    assert (one.chance(TEXTS[0], 8) == other.chance(TEXTS[0], 8)).all()
    assert (one.chance(TEXTS[0], 8) != speaker(Bumpy(2), seed=1).chance(TEXTS[0], 8)).all()


def test_explainers_are_chosen_by_name() -> None:
    assert list(survey.chosen(())) == list(EXPLAINERS)
    assert list(survey.chosen(("shapley", "gradient"))) == ["shapley", "gradient"]
    assert list(survey.chosen((), gradients=False)) == ["leave_one_out", "occlusion", "shapley"]
    with pytest.raises(UsageError, match="unknown explainer 'lime'"):
        survey.chosen(("lime",))
    with pytest.raises(UsageError, match="integrated needs gradients"):
        survey.chosen(("integrated",), gradients=False)


def test_the_boards_explainer_colours_sentences_unless_another_is_asked_for() -> None:
    assert speaker(Bumpy()).headline == "integrated"
    assert speaker(Bumpy(), methods=("occlusion", "integrated")).headline == "occlusion"
    assert speaker(Bumpy(), methods=("gradient",)).headline == "gradient"


# --- agreement --------------------------------------------------------------------------------------------

PAIRS = st.integers(1, 12).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-3, 3).map(float), min_size=n, max_size=n)] * 2)
)


@given(PAIRS)
def test_kendalls_tau_is_scipys(pair: tuple[list[float], list[float]]) -> None:
    a, b = map(np.array, pair)
    expected = kendalltau(a, b).statistic if len(a) > 1 else math.nan
    found = kendall(a, b)
    assert (found is None) == math.isnan(expected)
    assert found is None or found == pytest.approx(expected)


@given(PAIRS)
def test_agreement_is_symmetric_and_whole_with_itself(pair: tuple[list[float], list[float]]) -> None:
    a, b = map(np.array, pair)
    assert kendall(a, b) == kendall(b, a) and overlap(a, b) == overlap(b, a)
    assert 0 <= overlap(a, b) <= 1 and overlap(a, a) == 1
    assume(len(set(pair[0])) > 1)
    assert kendall(a, a) == pytest.approx(1) and kendall(a, -a) == pytest.approx(-1)


def test_the_top_is_a_fifth_of_the_words_rounded_up() -> None:
    assert top(np.array([0.0, 3, 1, 2, -5])) == {1}
    assert top(np.array([0.0, 3, 1, 2, -5, 9])) == {1, 5}
    assert top(np.array([1.0])) == {0}
    assert top(np.zeros(10)) == {0, 1}  # of equals, the earlier
    assert overlap(np.arange(10.0), np.arange(10.0)[::-1]) == 0


def test_loyalty_lies_between_chance_and_the_teachers_twin() -> None:
    teacher = Bumpy(1)
    near, far = Bumpy(1), Bumpy(30)
    near.table.data *= 1.05
    parts, by_text = survey.loyalty(speaker(far, "far"), speaker(teacher), speaker(near, "near"), TEXTS, silent)
    taus = {(part.explainer, part.who): part.tau.value for part in parts}
    assert {who for _, who in taus} == {"student", "ceiling", "floor"}
    for name in EXPLAINERS:
        assert taus[name, "ceiling"] > 0.8, name
        assert taus[name, "ceiling"] > taus[name, "student"], name
        assert abs(taus[name, "floor"]) < 0.6, name
    student = next(part for part in parts if (part.explainer, part.who) == ("integrated", "student"))
    assert student.tau == scores.mean_or_none(by_text)
    same, by_text = survey.loyalty(speaker(teacher, "copy"), speaker(teacher), None, TEXTS, silent)
    assert by_text == pytest.approx([1.0] * len(TEXTS))
    copies = [part for part in same if part.who == "student"]
    assert [part.tau.value for part in copies] == pytest.approx([1.0] * len(EXPLAINERS))
    assert [part.overlap.value for part in copies] == [1.0] * len(EXPLAINERS)
    assert not [part for part in same if part.who == "ceiling"]


def test_loyalty_is_for_the_teachers_answer_not_the_students() -> None:
    """A student that always answers otherwise but for the same reasons, turned round, is not loyal."""
    teacher, contrary = Bumpy(4), Bumpy(4)
    contrary.out.data.neg_()
    parts, _ = survey.loyalty(speaker(contrary), speaker(teacher), None, TEXTS, silent)
    assert [part.tau.value for part in parts if part.who == "student"] == pytest.approx([-1.0] * len(EXPLAINERS))


# --- under attack -------------------------------------------------------------------------------------------

WORDS = ("good", "bad", "film", "not", "plot,", "well-known", "(oh)", "-", "a")


def script_over(text: Text, seed: int) -> Script:
    rng = random.Random(seed)
    script: list[Edit] = []
    for index in range(len(text.words) + 1):
        if rng.random() < 0.2:
            script.append(Edit("insert", index, "new"))
        if index < len(text.words) and rng.random() < 0.4:
            op: Any = rng.choice(["replace", "delete"])
            script.append(Edit(op, index, "other" if op == "replace" else ""))
    return tuple(script)


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join), st.integers(0, 10**6))
def test_every_word_of_an_attacked_text_has_an_origin(raw: str, seed: int) -> None:
    text = Text(raw, Threat(spaces=("any",), max_words=1.0))
    script = script_over(text, seed)
    assume(script)
    example = Example("0" * 16, raw, 0)
    outcomes = [Outcome(example.id, "broken", script), Outcome(example.id, "survived", script)]
    (broken, survived) = attacked.changed([example], outcomes)
    assert broken.broken and not survived.broken
    assert broken.text.split() == text.apply(script).split()
    assert len(broken.origin) == len(broken.text.split())
    assert broken.origin.tolist() == sorted(broken.origin)
    assert broken.edited == {text.piece_of(edit.index) for edit in script}
    words = raw.split()
    for word, origin in zip(broken.text.split(), broken.origin, strict=True):
        assert origin in broken.edited or word == words[origin]


def test_texts_without_a_change_and_outcomes_of_other_texts_are_left_out() -> None:
    example = Example("a" * 16, "good film", 1)
    edit = (Edit("replace", 0, "bad"),)
    outcomes = [
        Outcome(example.id, "survived"),  # nothing was tried
        Outcome(example.id, "skipped", edit),
        Outcome(example.id, "error", edit),
        Outcome("b" * 16, "broken", edit),
    ]
    assert list(attacked.changed([example], outcomes)) == []


def test_attributions_of_an_attacked_text_go_back_to_the_words_they_came_from() -> None:
    origin = np.array([0, 0, 2, 3])
    assert attacked.carried_back(np.array([1.0, 2, 3, 4]), origin, 5).tolist() == [3, 0, 3, 4, 0]
    assert attacked.carried_back(np.zeros(0), np.zeros(0, np.intp), 2).tolist() == [0, 0]


def test_aim_counts_edited_words_at_the_top_and_what_chance_would() -> None:
    before = np.array([5.0, 0, 1, 4, 0, 0, 0, 0, 0, 0])
    assert attacked.aim(before, frozenset({0, 1, 2})) == (1, 3, pytest.approx(3 * 2 / 10))
    assert attacked.aim(before, frozenset({0, 3})) == (2, 2, pytest.approx(0.4))


def test_under_attack_scores_drift_on_survivors_and_aim_on_breaks() -> None:
    made = speaker(Bumpy(3), methods=("occlusion", "gradient"))
    examples = [Example(f"{at:016x}", text, 0) for at, text in enumerate(TEXTS)]
    unread = (Edit("replace", 0, "unheard"),)
    first = int(top(made.attributions(TEXTS[1], 0)["occlusion"]).__iter__().__next__())
    word = len(Text(" ".join(TEXTS[1].split()[:first]), Threat()).words)
    outcomes = {
        "vain": [Outcome(examples[0].id, "survived", unread), Outcome(examples[2].id, "survived", unread)],
        "sharp": [Outcome(examples[1].id, "broken", (Edit("replace", word, "unheard"),))],
    }
    parts = {(part.attack, part.explainer): part for part in survey.under_attack(made, examples, outcomes, silent)}
    assert set(parts) == set(itertools.product(("vain", "sharp"), ("occlusion", "gradient")))
    vain, sharp = parts["vain", "occlusion"], parts["sharp", "occlusion"]
    assert vain.tau is not None and vain.tau.n == 2 and -1 <= vain.tau.value < 1 and vain.aimed.n == 0
    assert sharp.tau is None and sharp.overlap is None
    assert (sharp.aimed.k, sharp.aimed.n, sharp.chance) == (1, 1, pytest.approx(1 / 4))


# --- laws ---------------------------------------------------------------------------------------------------


@given(st.integers(1, 7), st.integers(0, 300), st.data())
@settings(max_examples=25)
def test_only_the_order_of_the_numbers_counts(n: int, seed: int, data: st.DataObject) -> None:
    attribution = np.array(data.draw(st.lists(NUMBERS, min_size=n, max_size=n)))
    subject: Any = Table(n, seed)
    judge = Faithfulness(subject)
    assert judge.scores(attribution) == judge.scores(3 * attribution + 7) == judge.scores(np.arctan(attribution))


@given(st.integers(1, 7), st.integers(0, 300))
@settings(max_examples=25)
def test_removing_in_reverse_is_keeping_forwards(n: int, seed: int) -> None:
    """What is left after the last n - k words of an order is what its first k are alone."""
    subject: Any = Table(n, seed)
    judge = Faithfulness(subject)
    order = np.random.default_rng(seed).permutation(n)
    forwards, backwards = judge.curves(order), judge.curves(order[::-1])
    assert backwards.without[::-1] == pytest.approx(forwards.alone)
    assert forwards.without[0] == pytest.approx(judge.whole) and forwards.alone[-1] == pytest.approx(judge.whole)


@given(PAIRS)
def test_agreement_does_not_see_how_large_numbers_are(pair: tuple[list[float], list[float]]) -> None:
    a, b = map(np.array, pair)
    assert kendall(a, b) == kendall(np.exp(a), 5 * b - 2)
    assert overlap(a, b) == overlap(np.exp(a), 5 * b - 2)
    turned = kendall(a, -b)
    assert (turned is None) == (kendall(a, b) is None)
    assert turned is None or turned == pytest.approx(-(kendall(a, b) or 0))


@given(PAIRS, st.sampled_from([0.1, 0.2, 0.5, 1.0]))
def test_the_overlap_of_all_words_is_whole_and_of_some_a_share_of_them(
    pair: tuple[list[float], list[float]], share: float
) -> None:
    a, b = map(np.array, pair)
    size = prefix_size(len(a), share)
    assert len(top(a, share)) == size and overlap(a, b, 1.0) == 1.0
    assert (overlap(a, b, share) * size) == pytest.approx(round(overlap(a, b, share) * size))


def test_chance_is_drawn_alike_on_every_machine() -> None:
    """Of a text and a seed, not of what was asked before: pinned, so that scores can be compared over time."""
    made = speaker(Bumpy(), seed=3)
    made.chance("another text", 9)
    assert made.chance("one text", 3).round(6).tolist() == [0.12403, 1.141027, 0.215725]
