"""Who is learned from and who is not, made people of known taste, and what may be said over users: laws."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grit.bench import datasets
from grit.bench.personalize import loyalty, raters, summary, users
from grit.bench.types import Dataset, Example, UsageError

LABELS = ("low", "middle", "high")


def of_users(counts: Sequence[int], labels: int = 2) -> Dataset:
    """Users u00, u01, ... with so many texts each, no text twice, dealt over the three splits."""
    rows = [
        Example(f"{(number << 16) + i:016x}", f"word{number} thing{i}", (number + i) % labels, f"u{number:02d}")
        for number, count in enumerate(counts)
        for i in range(count)
    ]
    return Dataset("set", "0" * 64, LABELS[:labels], tuple(rows[::3]), tuple(rows[1::3]), tuple(rows[2::3]))


def names(people: Sequence[users.User]) -> list[str]:
    return [user.name for user in people]


# --- the cut ------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.lists(st.integers(1, 14), min_size=13, max_size=24))
def test_every_user_is_in_one_part_and_every_text_in_one_place(counts: list[int]) -> None:
    cut = users.Cut()
    able = [f"u{number:02d}" for number, count in enumerate(counts) if count >= cut.least_texts]
    if len(able) < 3:
        with pytest.raises(UsageError, match="three are needed"):
            users.folds(of_users(counts), cut)
        return
    for fold in users.folds(of_users(counts), cut):
        tested, validated = set(names(fold.test)), set(names(fold.validation))
        trained = {str(e.user) for split in (fold.data.train, fold.data.dev, fold.data.test) for e in split}
        assert tested and validated and not tested & validated and not trained & (tested | validated)
        assert tested | validated <= set(able)
        everything = [e.id for split in (fold.data.train, fold.data.dev, fold.data.test) for e in split]
        everything += [e.id for user in (*fold.test, *fold.validation) for e in (*user.pool, *user.held_out)]
        assert len(everything) == len(set(everything)) <= sum(counts)


@given(st.lists(st.integers(5, 20), min_size=3, max_size=12))
def test_few_users_are_each_tested_once_and_each_validate_once(counts: list[int]) -> None:
    folds = users.folds(of_users(counts), users.Cut())
    assert sorted(names([fold.test[0] for fold in folds])) == [f"u{n:02d}" for n in range(len(counts))]
    assert sorted(names([fold.validation[0] for fold in folds])) == [f"u{n:02d}" for n in range(len(counts))]
    assert len({fold.data.revision for fold in folds}) == len(folds), "each fold's training is data of its own"


@given(st.integers(5, 120), st.integers(1, 64), st.integers(1, 64))
def test_held_out_texts_are_the_same_for_every_number_of_examples(n: int, small: int, large: int) -> None:
    rows = tuple(Example(f"{i:016x}", f"t{i}", 0, "u") for i in range(n))
    one, other = (users.cut_user("u", rows, users.Cut(most_pool=pool)) for pool in sorted((small, large)))
    assert one.held_out == other.held_out and other.pool[: len(one.pool)] == one.pool


def test_a_third_is_held_out_and_two_texts_at_the_least() -> None:
    sizes = {}
    for n in (5, 6, 9, 12, 30):
        user = users.cut_user("u", [Example(f"{i:016x}", f"t{i}", 0, "u") for i in range(n)], users.Cut())
        sizes[n] = (len(user.pool), len(user.held_out))
    assert sizes == {5: (3, 2), 6: (4, 2), 9: (6, 3), 12: (8, 4), 30: (20, 10)}


def test_the_order_of_a_users_texts_is_that_of_a_hash_and_not_of_labels_or_rows() -> None:
    rows = tuple(Example(f"{i:016x}", f"text number {i}", int(i >= 50), "u") for i in range(100))
    data = Dataset("mail", "0" * 64, LABELS[:2], rows, (), ())
    (found,) = users.by_user(data).values()
    assert found != rows and set(found) == set(rows)
    assert found == users.by_user(dataclasses.replace(data, train=rows[::-1]))["u"]
    first = sum(e.label for e in found[:50])
    assert 12 < first < 38, "rows that come sorted by label are not learned from one label first"
    assert users.by_user(dataclasses.replace(data, name="other"))["u"] != found, "another set, another order"


def test_a_cap_on_users_takes_the_first_of_each_part() -> None:
    data = of_users([8] * 30)
    (all_of_them,) = users.folds(data, users.Cut())
    (some,) = users.folds(data, users.Cut(most_users=4))
    assert names(some.test) == names(all_of_them.test)[:4]
    assert names(some.validation) == names(all_of_them.validation)[:4]
    assert some.data == all_of_them.data, "the global model does not change with how many are asked"


def test_users_of_few_texts_go_to_the_training_alone() -> None:
    (fold,) = users.folds(of_users([4] * 10 + [8] * 15), users.Cut())
    apart = {*names(fold.test), *names(fold.validation)}
    assert not apart & {f"u{n:02d}" for n in range(10)}
    assert not {user.name for user in fold.tasks} & {f"u{n:02d}" for n in range(10)}


def test_a_training_is_parted_into_tenths_and_its_revision_tells_it() -> None:
    rows = [e for split in (of_users([10] * 10).train, of_users([10] * 10).dev) for e in split]
    data = users.parted("n", "free", LABELS[:2], rows, None, "why")
    assert (len(data.train), len(data.dev), len(data.test)) == (len(rows) - 2 * (len(rows) // 10), 6, 6)
    assert data.notes == ("why",) and data.licence == "free"
    assert users.parted("n", "free", LABELS[:2], rows[::-1], None, "why") == data
    changed = [dataclasses.replace(rows[0], label=1 - rows[0].label), *rows[1:]]
    assert users.parted("n", "free", LABELS[:2], changed, None, "why").revision != data.revision
    assert len(users.parted("n", "free", LABELS[:2], rows, 7, "why").train) == 7


def test_texts_without_a_user_belong_to_nobody() -> None:
    named = of_users([6, 6, 6])
    extra = tuple(Example(f"{1 << 40 | i:016x}", f"nobody {i}", 0) for i in range(9))
    assert users.by_user(dataclasses.replace(named, train=named.train + extra)) == users.by_user(named)


def test_copies_that_differ_in_case_and_marks_are_one_text() -> None:
    rows = [
        Example("0" * 15 + "1", "Cheap watches, now!", 1, "a"),
        Example("0" * 15 + "2", "cheap WATCHES now", 1, "b"),
        Example("0" * 15 + "3", "see you at noon", 0, "a"),
        Example("0" * 15 + "4", "see you at noon.", 0, "a"),
        Example("0" * 15 + "5", "the report", 0, "b"),
    ]
    people = users.by_user(Dataset("d", "0" * 64, LABELS[:2], tuple(rows), (), ()))
    assert {user: len(texts) for user, texts in people.items()} == {"a": 1, "b": 1}


# --- made people ----------------------------------------------------------------------------------------------


@given(st.integers(0, 2), st.floats(0.0, 1.0), st.integers(0, 2), st.integers(0, 1000))
def test_what_a_rater_says_is_a_label_and_follows_the_kind(truth: int, strength: float, mine: int, seed: int) -> None:
    for kind in raters.KINDS:
        rater = raters.Rater("r", kind, mine, strength, 3)
        said = rater.label(truth, random.Random(seed))
        allowed = {"agreeing": {truth}, "leaning": {truth, mine}, "contrary": {truth, (truth + 1) % 3}}[kind]
        assert said in allowed
        assert rater.label(truth, random.Random(seed)) == said


@pytest.mark.parametrize("kind", raters.KINDS)
@pytest.mark.parametrize("strength", [0.0, 0.6, 1.0])
def test_ceilings_are_what_the_best_answer_to_each_label_reaches(kind: raters.Kind, strength: float) -> None:
    rater, rng = raters.Rater("r", kind, 1, strength, 3), random.Random(5)
    shares = (0.5, 0.3, 0.2)
    reached = 0.0
    for truth, share in enumerate(shares):
        said = [rater.label(truth, rng) for _ in range(4000)]
        reached += share * max(said.count(label) for label in range(3)) / len(said)
    assert rater.ceiling(shares) == pytest.approx(reached, abs=0.02)


def test_raters_come_in_turn_with_favourites_of_all_labels() -> None:
    people = raters.drawn(90, 3, raters.KINDS, 0.8, 0)
    assert [rater.kind for rater in people[:4]] == ["agreeing", "leaning", "contrary", "agreeing"]
    assert {rater.favourite for rater in people} == {0, 1, 2}
    assert len({rater.name for rater in people}) == 90
    assert people != raters.drawn(90, 3, raters.KINDS, 0.8, 1)


def test_raters_over_the_embedded_corpus_are_hundreds() -> None:
    data = datasets.load(datasets.EMBEDDED)
    fold = raters.fold(data, users.Cut())
    assert fold.dataset == f"raters:{datasets.EMBEDDED}" and fold.data.labels == data.labels
    assert len(fold.tasks) + len(fold.validation) + len(fold.test) == 240
    assert all(len(user.pool) == 64 and len(user.held_out) == 32 for user in fold.test)
    assert len({user.pool for user in fold.test}) == len(fold.test), "no two read the same"
    assert any("made raters" in note for note in fold.data.notes)


def test_too_few_texts_for_raters_are_refused() -> None:
    rows = of_users([10] * 3)
    with pytest.raises(UsageError, match="too few for raters"):
        raters.fold(dataclasses.replace(rows, test=rows.test[:6]), users.Cut())


# --- over users -------------------------------------------------------------------------------------------------

_people = st.lists(
    st.tuples(st.integers(1, 30), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40
)


def counted(rows: Sequence[tuple[int, float, float, float]]) -> tuple[list[int], list[int], list[int], list[int]]:
    n = [size for size, *_ in rows]
    after, before, bias = ([round(row[0] * row[at]) for row in rows] for at in (1, 2, 3))
    return after, before, bias, n


@settings(max_examples=20)
@given(_people, st.randoms(use_true_random=False))
def test_a_summary_does_not_depend_on_the_order_of_users(
    rows: list[tuple[int, float, float, float]], rng: random.Random
) -> None:
    turned = rng.sample(rows, len(rows))

    def of(given: Sequence[tuple[int, float, float, float]]) -> summary.Summary:
        after, before, bias, n = counted(given)
        return summary.summarise(after, before, n, {"none": before, "bias": bias})

    one, other = of(rows), of(turned)
    assert (one.users, one.examples, one.hurt, one.floor) == (other.users, other.examples, other.hurt, other.floor)
    assert one.mean == pytest.approx(other.mean) and one.gain == pytest.approx(other.gain)
    assert (one.p10 is None) == (other.p10 is None)


@settings(max_examples=20)
@given(_people)
def test_bounds_of_a_summary(rows: list[tuple[int, float, float, float]]) -> None:
    after, before, bias, n = counted(rows)
    found = summary.summarise(after, before, n, {"none": before, "bias": bias})
    assert 0 <= found.mean <= 1 and -1 <= found.strict <= found.gain + 1e-12 <= 1 + 1e-12
    assert 0 <= found.hurt <= found.users == len(rows) and found.examples == sum(n)
    assert found.hurt_interval.low <= found.hurt / found.users <= found.hurt_interval.high
    if found.p10 is not None and found.p25 is not None:
        assert len(rows) >= summary.PERCENTILE_USERS and found.p10 <= found.p25
        assert min(a / size for a, size in zip(after, n, strict=True)) <= found.p10
    if found.gain_interval is not None:
        assert found.gain_interval.low - 1e-9 <= found.gain <= found.gain_interval.high + 1e-9


@settings(max_examples=20)
@given(_people)
def test_an_arm_that_does_nothing_gains_nothing_hurts_nobody_and_a_floor_is_no_gain(
    rows: list[tuple[int, float, float, float]],
) -> None:
    _, before, bias, n = counted(rows)
    nothing = summary.summarise(before, before, n, {"none": before, "bias": bias})
    assert nothing.hurt == 0 and nothing.gain <= 1e-12
    floor = summary.summarise(bias, before, n, {"none": before, "bias": bias})
    assert floor.gain <= 1e-12, "no floor beats the best floor"


def test_one_more_floor_never_raises_a_gain() -> None:
    rng = random.Random(0)
    n = [10] * 12
    after = [rng.randrange(11) for _ in n]
    floors = {name: [rng.randrange(11) for _ in n] for name in ("none", "bias", "majority")}
    gains = []
    for size in range(1, 4):
        for chosen in itertools.combinations(floors, size):
            gains.append(
                (set(chosen), summary.summarise(after, after, n, {name: floors[name] for name in chosen}).gain)
            )
    for (one, gain), (other, more) in itertools.product(gains, gains):
        if one < other:
            assert more <= gain + 1e-12


def test_the_interval_of_a_mean_narrows_with_people() -> None:
    def width(people: int) -> float:
        right = [i % 11 for i in range(people)]
        found = summary.summarise(right, right, [10] * people, {"none": [0] * people}).interval
        assert found is not None
        return found.high - found.low

    assert width(11) > width(44) > width(176)
    assert width(44) == pytest.approx(width(176) * 2, rel=0.15), "as one over the root of their number"


def test_a_bootstrap_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Users drawn from a known world, again and again: the interval of the mean gain covers it."""
    rng = np.random.default_rng(3)
    hits, trials = 0, 80
    for _ in range(trials):
        ability = rng.beta(6, 3, size=60)
        after = rng.binomial(20, ability)
        before = rng.binomial(20, np.clip(ability - 0.1, 0, 1))
        found = summary.summarise(after.tolist(), before.tolist(), [20] * 60, {"none": before.tolist()}).gain_interval
        assert found is not None
        hits += found.low <= 0.1 <= found.high
    assert 0.87 <= hits / trials <= 1.0


@given(st.integers(2, 40), st.integers(0, 19))
def test_the_share_of_a_gain_that_is_bias_is_one_for_bias_itself(people: int, before: int) -> None:
    bias = [min(20, before + 1 + i % 3) for i in range(people)]
    assert summary.captured(bias, bias, [before] * people, [20] * people) == pytest.approx(1.0)
    nothing = summary.captured(bias, [before] * people, [before] * people, [20] * people)
    assert nothing == pytest.approx(0.0)


# --- loyalty ------------------------------------------------------------------------------------------------------


def test_loyalty_falls_as_logits_move_away() -> None:
    base = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    step = np.array([[-1.0, 1.0, 0.0], [1.0, -1.0, 0.0]])
    found = [loyalty.probability_loyalty(base, base + size * step) for size in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert found[0] == 1.0 and all(later < earlier for earlier, later in itertools.pairwise(found))
    same = [loyalty.label_loyalty(base, base + size * step) for size in (0.0, 0.4, 4.0)]
    assert same == [2, 2, 0]


def test_labels_may_stay_while_probabilities_go() -> None:
    sure, unsure = np.array([[9.0, -9.0]]), np.array([[0.1, -0.1]])
    assert loyalty.label_loyalty(sure, unsure) == 1 and loyalty.probability_loyalty(sure, unsure) < 0.6
