"""Personalization: users never seen, floors that cannot be fooled, arms that begin where the global model stands."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from grit.bench import datasets, registry
from grit.bench.personalize import arms, leakage, loyalty, meta, private, protocol, raters, robust, summary, users
from grit.bench.personalize.private import Private
from grit.bench.personalize.protocol import Training
from grit.bench.personalize.texts import Base, Texts, weights_by_part
from grit.bench.train import predict
from grit.bench.types import CouldNotMeasure, Dataset, Example, Model, UsageError
from grit.models.fastgrnn import FastGRNN
from grit.models.hashed import Hashed
from grit.models.prado import Prado
from grit.models.student import Student

WORDS = ("good fine warm calm bright", "bad cold harsh grim dull")
FILLERS = "the a of and one two some other tea rain road lamp".split()
SHORT = Training(epochs=6, batch=4)
MODELS: dict[str, tuple[Any, Any]] = {
    "student": (Student, Student.Config(minimum_count=1)),
    "fastgrnn": (FastGRNN, FastGRNN.Config(embedding=6, hidden=8, minimum_count=1)),
    "prado": (Prado, Prado.Config(width=16, maps=6, bigrams=6, trigrams=6)),
    "hashed": (Hashed, Hashed.Config(buckets=64)),
}


def text_of(label: int, number: int) -> str:
    told = WORDS[label].split()
    return f"{FILLERS[number % 12]} {told[number % 5]} {FILLERS[number // 5 % 12]} {told[number // 3 % 5]} {number}"


def examples(n: int, first: int = 0, user: str | None = None) -> tuple[Example, ...]:
    return tuple(Example(f"{first + i:016x}", text_of(i % 2, first + i), i % 2, user) for i in range(n))


def made_dataset(train: int = 60, test: int = 80) -> Dataset:
    rows = examples(train + 20 + test)
    return Dataset("made", "0" * 64, ("no", "yes"), rows[:train], rows[train : train + 20], rows[train + 20 :])


class Counting(nn.Module):
    """A model that has nothing to learn: its state is how many words of each kind a text has, its head is right."""

    Config = type("Config", (), {})
    separable = True
    recipe: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.config, self.classes, self.max_tokens = None, 2, 32
        told = [word for words in WORDS for word in words.split()]
        self.vocabulary: tuple[str, ...] = ("", *told)
        table = torch.zeros(len(self.vocabulary), 2)
        for row, word in enumerate(told, 1):
            table[row, int(word in WORDS[1].split())] = 1.0
        self.table = nn.Parameter(table)
        self.matrix = nn.Parameter(torch.eye(2))
        self.weight = nn.Parameter(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        self.bias = nn.Parameter(torch.zeros(2))

    def tokenize(self, raw: str) -> list[str]:
        return raw.split()

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        known = {word: row for row, word in enumerate(self.vocabulary)}
        return np.array([known.get(token, 0) for token in tokens], np.int64)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(codes, self.table)

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Any:
        from grit.bench.types import Reading

        real = (torch.arange(features.shape[1]) < lengths[:, None])[..., None]
        return Reading(features, torch.tanh((features * real).sum(1)) @ self.matrix)

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return state @ self.weight.T + self.bias

    def constrain(self, progress: float) -> None:
        """Nothing to hold."""

    def program(self) -> None:
        return None


def counting() -> Base:
    return Base(cast(Model, Counting()))


def answers(model: Model, texts: Texts, index: np.ndarray) -> torch.Tensor:
    """A whole pass of any model that reads what the base reads: [batch classes]."""
    codes, lengths = texts.codes(index)
    return model.head(model.read(model.features(codes), lengths).state)


def small(name: str) -> Base:
    cls, config = MODELS[name]
    return Base(cls.build(config, [text_of(i % 2, i) for i in range(60)], 2, 0))


# --- users ---------------------------------------------------------------------------------------------


def peopled(counts: Sequence[int]) -> Dataset:
    rows: list[Example] = []
    for number, count in enumerate(counts):
        rows += examples(count, len(rows), f"u{number:02d}")
    return Dataset("people", "0" * 64, ("no", "yes"), tuple(rows[::2]), tuple(rows[1::4]), tuple(rows[3::4]))


def ids(people: Sequence[users.User]) -> set[str]:
    return {example.id for user in people for example in (*user.pool, *user.held_out)}


def test_no_text_of_a_tested_user_is_trained_on_or_validated_on() -> None:
    (fold,) = users.folds(peopled([9] * 30 + [3] * 20), users.Cut())
    learned = {e.id for split in (fold.data.train, fold.data.dev, fold.data.test) for e in split}
    assert not learned & (ids(fold.test) | ids(fold.validation)) and not ids(fold.test) & ids(fold.validation)
    assert ids(fold.tasks) <= {e.id for e in fold.data.train}
    assert len(fold.test) == len(fold.validation) == 10
    assert {e.user for e in fold.data.train} >= {f"u{n:02d}" for n in range(30, 50)}, "users of few texts train"


def test_few_users_are_left_out_one_by_one() -> None:
    folds = users.folds(peopled([20] * 6), users.Cut())
    assert [len(fold.test) for fold in folds] == [1] * 6
    assert {fold.test[0].name for fold in folds} == {f"u{n:02d}" for n in range(6)}
    for fold in folds:
        seen = {e.user for e in fold.data.train}
        assert fold.test[0].name not in seen and fold.validation[0].name not in seen and len(seen) == 4


def test_texts_that_two_users_share_belong_to_none_and_copies_count_once() -> None:
    own = examples(8, 0, "a") + examples(8, 8, "b") + examples(8, 16, "c")
    shared = tuple(Example(f"{900 + i:016x}", "The SAME offer, again!", 1, user) for i, user in enumerate("ab"))
    copies = tuple(Example(f"{910 + i:016x}", "my own   words" + "!" * i, 0, "c") for i in range(3))
    people = users.by_user(Dataset("d", "0" * 64, ("no", "yes"), own + shared + copies, (), ()))
    assert all("offer" not in e.text for texts in people.values() for e in texts)
    assert sum("own" in e.text for e in people["c"]) == 1 and len(people["a"]) == 8


@given(st.integers(5, 300), st.integers(1, 64), st.integers(2, 50))
def test_a_cut_user_keeps_both_parts_apart(n: int, pool: int, held: int) -> None:
    rows = tuple(Example(f"{i:016x}", f"w{i}", 0, "u") for i in range(n))
    user = users.cut_user("u", rows, users.Cut(most_pool=pool, most_held_out=held))
    assert not {e.id for e in user.pool} & {e.id for e in user.held_out}
    assert 0 < len(user.pool) <= pool and 2 <= len(user.held_out) <= max(2, held)
    assert user.pool == rows[: len(user.pool)] and user.held_out == rows[n - len(user.held_out) :]


def test_a_set_without_users_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"0 users with 5 or more texts.*raters:NAME"):
        users.folds(made_dataset(), users.Cut())


def test_training_texts_can_be_fewer_and_folds_do_not_depend_on_the_order_of_rows() -> None:
    data = peopled([12] * 15)
    turned = dataclasses.replace(data, train=data.train[::-1], dev=data.dev[::-1], test=data.test[::-1])
    (one,), (other,) = users.folds(data, users.Cut(n_train=20)), users.folds(turned, users.Cut(n_train=20))
    assert one == other and len(one.data.train) == 20


# --- made raters: known truth --------------------------------------------------------------------------


def test_raters_disagree_as_they_are_made_to() -> None:
    fold = raters.fold(made_dataset(test=200), users.Cut(most_held_out=40), users=60, texts=60, strength=0.8)
    truth = {example.id: example.label for example in made_dataset(test=200).test}
    kinds = {r.name: r for r in raters.drawn(60, 2, raters.KINDS, 0.8, 0)}
    agreed: dict[str, list[bool]] = {}
    for user in fold.test:
        agreed.setdefault(kinds[user.name].kind, []).extend(
            e.label == truth[e.id] for e in (*user.pool, *user.held_out)
        )
    share = {kind: float(np.mean(found)) for kind, found in agreed.items()}
    assert share["agreeing"] == 1.0
    assert abs(share["leaning"] - 0.6) < 0.05, "a favourite that decides four times in five, over even labels"
    assert abs(share["contrary"] - 0.2) < 0.05


def test_raters_texts_were_never_trained_on() -> None:
    fold = raters.fold(made_dataset(), users.Cut(), users=20, texts=20)
    learned = {e.id for split in (fold.data.train, fold.data.dev, fold.data.test) for e in split}
    assert not learned & (ids(fold.test) | ids(fold.validation)) and ids(fold.tasks) <= learned
    assert raters.fold(made_dataset(), users.Cut(), users=20, texts=20) == fold
    assert raters.fold(made_dataset(), users.Cut(), users=20, texts=20, seed=1) != fold


def test_ceilings_are_those_of_the_best_reader() -> None:
    even = (0.5, 0.5)
    assert raters.Rater("r", "agreeing", 0, 0.8, 2).ceiling(even) == 1.0
    assert raters.Rater("r", "contrary", 0, 0.8, 2).ceiling(even) == 0.8
    assert raters.Rater("r", "leaning", 0, 0.8, 2).ceiling(even) == pytest.approx(0.9)
    assert raters.Rater("r", "leaning", 1, 0.8, 2).ceiling((1.0, 0.0)) == 0.8


def gains(kind: raters.Kind, arm: str, k: int = 32) -> tuple[summary.Summary, float | None]:
    """The whole protocol over raters of one kind, under a global model that reads every text rightly."""
    base, training = counting(), Training(epochs=6, batch=8)
    cut = users.Cut(most_pool=64, most_held_out=32)
    fold = raters.fold(made_dataset(test=240), cut, users=64, texts=96, kinds=(kind,), strength=0.8)
    validation, tested = protocol.people(base, fold.validation), protocol.people(base, fold.test)
    prior = [e.label for e in fold.data.train]
    right: dict[str, list[int]] = {
        summary.MAJORITY: [
            int((p.held_out.labels == protocol.majority(p.pool.labels[:k].tolist(), prior)).sum()) for p in tested
        ]
    }
    for key in ("none", "bias", arm):
        each = arms.get(key)
        choice = protocol.choose(each, base, validation, k, training, 0)
        right[key] = [
            protocol.right(
                each, base, protocol.personalised(each, base, p.pool.first(k), choice, training, 0), p.held_out
            )
            for p in tested
        ]
    n = [len(p.held_out) for p in tested]
    floors: dict[str, Sequence[int]] = {name: right[name] for name in summary.FLOORS}
    return summary.summarise(right[arm], right["none"], n, floors), summary.captured(
        right[arm], right["bias"], right["none"], n
    )


def test_where_there_is_nothing_to_gain_nothing_is_gained() -> None:
    found, _ = gains("agreeing", "last")
    assert found.gain == 0.0 and found.hurt == 0 and found.mean == 1.0, "epoch 0 is chosen"


def test_the_trap_is_visible_a_last_layer_that_learned_only_a_bias_gains_nothing() -> None:
    found, by_bias = gains("leaning", "last")
    assert found.floor in ("bias", "majority") and found.users == 32 and found.p10 is not None
    assert by_bias is not None and by_bias > 0.85, "one number a label has nearly all of the gain"
    assert found.gain < 0.03 and found.gain_interval is not None and found.gain_interval.low <= 0.01


def test_a_true_gain_is_found_where_only_reading_otherwise_helps() -> None:
    found, by_bias = gains("contrary", "last")
    assert found.gain > 0.15 and found.gain_interval is not None and found.gain_interval.low > 0.1
    assert by_bias is not None and by_bias < 0.7
    assert found.mean == pytest.approx(0.8, abs=0.06), "the ceiling of such a rater"


# --- texts, and what belongs to which part -------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_frozen_answers_are_those_of_the_model(name: str) -> None:
    base = small(name)
    texts = base.texts(examples(20))
    expected = predict(base.model, [e.text for e in texts.examples])
    assert np.allclose(texts.frozen.logits.numpy(), expected, atol=1e-5)
    assert np.allclose(base.model.head(texts.frozen.state).detach().numpy(), texts.frozen.logits.numpy(), atol=1e-5)
    index = np.array([3, 0, 7])
    assert np.allclose(answers(base.model, texts, index).numpy(), expected[index], atol=1e-5)


def test_weights_are_parted_by_what_they_move() -> None:
    parts = weights_by_part(counting().copied())
    assert parts == {"table": "embedding", "matrix": "body", "weight": "head", "bias": "head"}
    student = weights_by_part(small("student").copied())
    assert {name for name, part in student.items() if part == "head"} == {"head_weight", "head_bias"}
    assert student["table"] == "embedding" and student["lstm.weight_hh_l0"] == "body"
    assert "embedding" not in weights_by_part(small("prado").copied()).values(), "a projection learns no words"


# --- arms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", arms.ARMS)
@pytest.mark.parametrize("name", MODELS)
def test_every_arm_begins_at_the_global_model_and_learns(name: str, key: str) -> None:
    base, arm = small(name), arms.get(key)
    texts = base.texts(tuple(dataclasses.replace(e, label=int(i % 3 > 0)) for i, e in enumerate(examples(12))))
    start = arm.start(base, 0)
    index = np.arange(len(texts))
    if key != "token":  # which reads one word more
        assert torch.allclose(arm.logits(base, start, texts, index), texts.frozen.logits, atol=1e-5)
    if not start:
        assert key == "none" or (key == "cell" and name == "hashed")
        return
    labels = texts.labels
    losses = []
    if arm.private:
        arm = dataclasses.replace(arm, private=Private(noise=0.0, clip=99.0))  # noise may go uphill
    for weights in protocol.epochs(arm, base, texts, 0.1, SHORT, 0):
        losses.append(float(nn.functional.cross_entropy(arm.logits(base, weights, texts, index), labels)))
    assert np.isfinite(losses).all()
    blank = name == "hashed" and key in ("fused", "token")  # its fresh word rows are all zero: nothing to read yet
    assert losses[-1] <= losses[0] if blank else losses[-1] < losses[0]
    assert base.texts(examples(12)).frozen.logits.equal(texts.frozen.logits), "the global model itself stays"


@pytest.mark.parametrize("key", arms.ARMS)
@pytest.mark.parametrize("name", ["student", "fastgrnn", "prado"])
def test_the_personal_model_answers_as_its_arm_does(name: str, key: str) -> None:
    base, arm = small(name), arms.get(key)
    texts = base.texts(examples(10))
    weights = arm.start(base, 0)
    if weights:
        *_, weights = protocol.epochs(arm, base, texts, 0.3, SHORT, 0)
    wanted = protocol.logits(arm, base, weights, texts)
    assert np.allclose(predict(arm.model(base, weights), [e.text for e in texts.examples]), wanted, atol=1e-5)


def test_what_each_arm_may_change() -> None:
    base = small("student")
    sizes = {key: sum(w.numel() for w in arm.start(base, 0).values()) for key, arm in arms.ARMS.items()}
    module = cast(nn.Module, base.model)
    whole = sum(weight.numel() for weight in module.parameters())
    table = dict(module.named_parameters())["table"].numel()
    assert sizes["none"] == 0 and sizes["bias"] == 2 and sizes["last"] == 2 * (5 + 1)
    assert sizes["cell"] == 2 * (20 + 5) and sizes["token"] == 5
    assert sizes["all"] == whole and sizes["but-embedding"] == whole - table
    assert 4 * sizes["fused"] <= arms.EXTRACTOR_BYTES < 4 * (sizes["fused"] + 5 + 1 + 2)


def test_stored_bytes_are_the_smaller_of_all_numbers_and_changed_rows() -> None:
    start = {"table": torch.zeros(100, 4), "bias": torch.zeros(3)}
    learned = {name: weight.clone() for name, weight in start.items()}
    assert arms.stored_bytes(start, learned) == 0
    learned["table"][7] += 1
    assert arms.stored_bytes(start, learned) == 4 * 4 + 4
    learned["table"] += 1
    learned["bias"] += 1
    assert arms.stored_bytes(start, learned) == 4 * 400 + 4 * 3


def test_an_unknown_arm_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"lost.*last"):
        arms.get("lost")


# --- protocol ------------------------------------------------------------------------------------------


def test_an_epoch_is_every_text_once_and_a_step_is_plain_descent() -> None:
    base, arm = counting(), arms.get("last")
    texts = base.texts(examples(3))
    (after,) = protocol.epochs(arm, base, texts, 0.5, Training(epochs=1, batch=2), 0)
    weight, bias = np.zeros((2, 2)), np.zeros(2)
    state, logits = texts.frozen.state.numpy().astype(float), texts.frozen.logits.numpy().astype(float)
    for batch in ([0, 1], [2]):
        found = logits[batch] + state[batch] @ weight.T + bias
        share = np.exp(found) / np.exp(found).sum(1, keepdims=True)
        slope = (share - np.eye(2)[texts.labels[batch]]) / len(batch)
        weight, bias = weight - 0.5 * slope.T @ state[batch], bias - 0.5 * slope.sum(0)
    assert np.allclose(after["weight"].numpy(), weight, atol=1e-6)
    assert np.allclose(after["bias"].numpy(), bias, atol=1e-6)


def person(base: Base, pool: Sequence[Example], held: Sequence[Example], name: str = "p") -> protocol.Person:
    return protocol.Person(name, base.texts(pool), base.texts(held))


def flipped(rows: Sequence[Example]) -> tuple[Example, ...]:
    return tuple(dataclasses.replace(e, label=1 - e.label) for e in rows)


def test_no_training_wins_where_it_does_not_help_and_ties_go_to_the_least() -> None:
    base = counting()
    agreeing = [person(base, examples(8), examples(10, 50))]
    assert protocol.choose(arms.get("last"), base, agreeing, 8, SHORT, 0).epoch == 0
    against = [person(base, flipped(examples(8)), flipped(examples(10, 50)))]
    choice = protocol.choose(arms.get("last"), base, against, 8, Training(epochs=40, batch=2), 0)
    assert choice.epoch > 0 and choice.score == 1.0
    again = protocol.epochs(
        arms.get("last"), base, against[0].pool, choice.rate, Training(epochs=choice.epoch, batch=2), 0
    )
    scores = [protocol.right(arms.get("last"), base, weights, against[0].held_out) for weights in again]
    assert scores[-1] == 10 and all(score < 10 for score in scores[:-1]), "the first of the best epochs"


def test_each_validation_user_counts_once_however_many_texts() -> None:
    base = counting()
    many = person(base, examples(8), examples(60, 50), "many")
    few = [person(base, flipped(examples(8)), flipped(examples(2, 50)), f"few{i}") for i in range(3)]
    choice = protocol.choose(arms.get("last"), base, [many, *few], 8, Training(epochs=40, batch=2), 0)
    assert choice.epoch > 0 and choice.users == 4 and choice.score >= 0.75


def test_validation_without_enough_texts_is_said() -> None:
    with pytest.raises(CouldNotMeasure, match="no validation user has 9"):
        protocol.choose(arms.get("last"), counting(), [person(counting(), examples(8), examples(2))], 9, SHORT, 0)


def test_what_was_chosen_is_what_is_trained() -> None:
    base, arm = counting(), arms.get("last")
    texts = base.texts(examples(8))
    assert protocol.personalised(arm, base, texts, protocol.Choice(0.3, 0, 1.0, 1), SHORT, 0) is None
    third = list(protocol.epochs(arm, base, texts, 0.3, SHORT, 0))[2]
    found = protocol.personalised(arm, base, texts, protocol.Choice(0.3, 3, 1.0, 1), SHORT, 0)
    assert found is not None and all(found[name].equal(third[name]) for name in third)


def test_weights_that_blew_up_are_right_nowhere() -> None:
    base = counting()
    texts = base.texts(examples(6))
    broken = {"weight": torch.full((2, 2), torch.nan), "bias": torch.zeros(2)}
    assert protocol.right(arms.get("last"), base, broken, texts) == 0


@given(st.lists(st.integers(0, 2), min_size=1, max_size=9))
def test_majority_is_a_most_frequent_label(labels: list[int]) -> None:
    found = protocol.majority(labels, [2, 2, 1])
    counts = np.bincount(labels, minlength=3)
    assert counts[found] == counts.max()
    assert protocol.majority([0, 2], [2, 2, 1]) == 2 and protocol.majority([0, 1], [2, 1]) == 1


# --- over users ----------------------------------------------------------------------------------------


def test_a_summary_counts_users_and_not_texts() -> None:
    floors: dict[str, Sequence[int]] = {"majority": [5, 50], "none": [6, 20], "bias": [4, 40]}
    found = summary.summarise([8, 60], [6, 20], [10, 100], floors)
    assert found.mean == pytest.approx(0.7) and found.examples == 110 and found.users == 2
    assert found.floor == "majority" and found.gain == pytest.approx(0.2)
    assert found.strict == pytest.approx(((0.8 - 0.6) + (0.6 - 0.5)) / 2)
    assert found.p10 is None and found.p25 is None and found.hurt == 0


def test_percentiles_need_thirty_users() -> None:
    right = list(range(30))
    n = [30] * 30
    floors: dict[str, Sequence[int]] = {"none": right}
    found = summary.summarise(right, right, n, floors)
    assert found.p10 == pytest.approx(np.quantile(np.arange(30) / 30, 0.1)) and found.p25 is not None
    assert summary.summarise(right[:29], right[:29], n[:29], {"none": right[:29]}).p10 is None


def test_hurt_users_are_those_served_worse_than_before() -> None:
    found = summary.summarise([3, 5, 4, 4], [4, 5, 3, 5], [5] * 4, {"none": [4, 5, 3, 5]})
    assert found.hurt == 2 and found.hurt_interval.low < 0.5 < found.hurt_interval.high


def test_a_single_user_has_no_interval_of_a_mean() -> None:
    found = summary.summarise([7], [5], [9], {"none": [5]})
    assert found.interval is None and found.gain_interval is None and found.gain == pytest.approx(2 / 9)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=12))
def test_gains_over_the_best_floor_are_never_above_those_over_any(rows: list[tuple[int, int, int]]) -> None:
    n = [size for size, _, _ in rows]
    right, other = ([min(row[at], row[0]) for row in rows] for at in (1, 2))
    floors: dict[str, Sequence[int]] = {"none": other, "majority": [size // 2 for size in n]}
    found = summary.summarise(right, other, n, floors)
    shares = np.array(n, float)
    assert found.strict <= found.gain + 1e-12
    assert found.gain <= float(((np.array(right) - np.array(other)) / shares).mean()) + 1e-12
    assert found.interval is not None and found.interval.low - 1e-9 <= found.mean <= found.interval.high + 1e-9


def test_the_part_of_a_gain_that_is_bias() -> None:
    assert summary.captured([9, 9], [8, 8], [5, 5], [10, 10]) == pytest.approx(0.75)
    assert summary.captured([5, 5], [8, 8], [5, 5], [10, 10]) is None, "no gain, no share of it"


# --- loyalty, leakage ----------------------------------------------------------------------------------


def test_loyalty_is_one_to_oneself_and_near_nought_to_the_opposite() -> None:
    logits = np.array([[3.0, -1.0], [0.5, 0.25]])
    assert loyalty.label_loyalty(logits, logits) == 2 and loyalty.probability_loyalty(logits, logits) == 1.0
    opposite = np.array([[50.0, -50.0]])
    assert loyalty.probability_loyalty(opposite, -opposite) == pytest.approx(0.0, abs=1e-9)
    assert loyalty.label_loyalty(opposite, -opposite) == 0


@given(st.lists(st.tuples(*[st.floats(-9, 9)] * 4), min_size=1, max_size=8))
def test_probability_loyalty_is_symmetric_blind_to_shifts_and_a_ratio(rows: list[tuple[float, ...]]) -> None:
    a, b = np.array(rows)[:, :2], np.array(rows)[:, 2:]
    found = loyalty.probability_loyalty(a, b)
    assert 0.0 <= found <= 1.0
    assert found == pytest.approx(loyalty.probability_loyalty(b, a), abs=1e-9)
    assert found == pytest.approx(loyalty.probability_loyalty(a + 3.0, b), abs=1e-6)


def test_probability_loyalty_against_scipy() -> None:
    spatial = pytest.importorskip("scipy.spatial.distance")
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (a, b))
    wanted = np.mean([1 - spatial.jensenshannon(x, y, base=2) for x, y in zip(p, q, strict=True)])
    assert loyalty.probability_loyalty(a, b) == pytest.approx(float(wanted), abs=1e-9)


@pytest.mark.parametrize("name", ["student", "fastgrnn"])
def test_an_update_of_the_word_table_gives_every_known_word_away_and_no_other_arm_does(name: str) -> None:
    base = small(name)
    texts = base.texts(examples(6))
    words = leakage.read_words(texts)
    assert "good" in words and "" not in words
    for key, arm in arms.ARMS.items():
        weights = arm.start(base, 0)
        if weights:
            *_, weights = protocol.epochs(arm, base, texts, 0.3, SHORT, 0)
        assert leakage.recovered(base, weights) == (words if key == "all" else frozenset()), key
    assert leakage.recovered(base, None) == frozenset()


def test_membership_is_a_coin_without_learning_and_sure_with_much() -> None:
    base, arm = small("fastgrnn"), arms.get("all")
    odd = tuple(dataclasses.replace(e, label=i // 3 % 2) for i, e in enumerate(examples(24)))
    members, others = base.texts(odd[:12]), base.texts(odd[12:])

    def losses(weights: arms.Weights | None) -> np.ndarray:
        return np.concatenate(
            [leakage.loss(protocol.logits(arm, base, weights, t), t.labels.numpy()) for t in (members, others)]
        )

    assert leakage.membership([losses(None), losses(None)], 12) == 0.5
    *_, learned = protocol.epochs(arm, base, members, 0.5, Training(epochs=40, batch=4), 0)
    assert (leakage.membership([losses(None), losses(learned)], 12) or 0) > 0.8
    assert leakage.membership([np.ones(3), np.ones(3)], 0) is None
    assert leakage.membership([np.ones(3), np.ones(3)], 3) is None


def test_losses_are_those_of_torch() -> None:
    logits = np.array([[2.0, -1.0, 0.5], [100.0, -100.0, 0.0]], np.float32)
    labels = np.array([2, 1])
    wanted = nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), reduction="none").numpy()
    assert np.allclose(leakage.loss(logits, labels), wanted, atol=1e-5)
    assert math.isfinite(float(leakage.loss(logits, labels)[1]))


# --- attacks on the personal artefact ------------------------------------------------------------------


@pytest.mark.parametrize("key", arms.ARMS)
def test_what_ships_answers_as_the_personal_model(key: str) -> None:
    base, arm = small("fastgrnn"), arms.get(key)
    texts = base.texts(examples(16))
    weights = arm.start(base, 0)
    if weights:
        *_, weights = protocol.epochs(arm, base, texts, 0.5, Training(epochs=20, batch=4), 0)
    raw = [e.text for e in texts.examples]
    model = arm.model(base, weights)
    artefact = robust.shipped(model, raw)
    from grit.bench.export import words

    found, wanted = words.answer(artefact, raw), predict(model, raw)
    assert np.abs(found - wanted).max() < 0.1 * max(1.0, float(np.abs(wanted).max())), "int8 beside float"
    alone = words.answer(artefact, raw[:1])
    assert np.allclose(alone, found[:1], atol=1e-6), "no text's answer depends on its batch"


def test_a_users_word_is_a_row_that_no_text_can_reach() -> None:
    base, arm = small("student"), arms.get("token")
    model = arm.model(base, arm.start(base, 0))
    plain = base.model.program()
    assert plain is not None
    program = robust.with_word(plain, torch.ones(5))
    assert program.vocabulary[-1] == robust.USER_WORD and program.max_tokens == plain.max_tokens + 1
    artefact = robust.shipped(model, ["good tea"])
    assert artefact.max_tokens == plain.max_tokens
    with pytest.raises(CouldNotMeasure, match="hashes its words"):
        robust.shipped(arms.get("token").model(small("prado"), arms.get("token").start(small("prado"), 0)), ["tea"])


def test_a_model_without_a_program_is_said_to_have_no_artefact() -> None:
    with pytest.raises(CouldNotMeasure, match="states no program"):
        robust.shipped(counting().model, ["good tea"])


@pytest.mark.parametrize("weight", [float("nan"), 1e12])
def test_a_copy_that_learned_itself_out_of_all_bounds_ends_no_study(weight: float) -> None:
    """A study notes what could not be measured, and goes on."""
    model = small("fastgrnn").copied()
    with torch.no_grad():
        for parameter in cast(torch.nn.Module, model).parameters():
            parameter.fill_(weight)
    with pytest.raises(CouldNotMeasure, match="the personal copy has no artefact"):
        robust.shipped(model, ["good tea"])


def test_attacks_are_counted_on_all_texts_and_on_the_rare_labels() -> None:
    base = small("fastgrnn")
    attack = registry.attack("deepwordbug")
    rows = examples(10)
    found = robust.attacked(base.copied(), rows, 1, {"deepwordbug": attack}, [e.text for e in rows], 0)
    predicted = predict(base.model, [e.text for e in rows]).argmax(1)
    assert found.n == 10 and found.minority == 5
    assert abs(found.clean - int((predicted == [e.label for e in rows]).sum())) <= 1, "int8 may differ on a close call"
    assert 0 <= found.robust <= found.clean and found.minority_broken <= found.minority_attacked <= found.minority


def test_a_constant_copy_is_robust_on_the_favourite_and_reaches_no_rare_label() -> None:
    base, arm = small("fastgrnn"), arms.get("bias")
    model = arm.model(base, {"bias": torch.tensor([-99.0, 99.0])})
    rows = examples(10)
    found = robust.attacked(model, rows, 1, {"deepwordbug": registry.attack("deepwordbug")}, [e.text for e in rows], 0)
    assert (found.clean, found.robust) == (5, 5), "the trap: unbreakable, and half of the texts are wrong"
    assert (found.minority, found.minority_attacked, found.minority_broken) == (5, 0, 0)


# --- privacy ------------------------------------------------------------------------------------------


def test_without_noise_and_clipping_a_private_step_is_a_plain_one() -> None:
    base = small("fastgrnn")
    texts = base.texts(examples(10))
    plain = arms.get("last")
    bare = dataclasses.replace(arms.get("private"), private=Private(noise=0.0, clip=1e6))
    for one, other in zip(
        protocol.epochs(plain, base, texts, 0.3, SHORT, 0),
        protocol.epochs(bare, base, texts, 0.3, SHORT, 0),
        strict=True,
    ):
        assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_one_text_moves_a_clipped_sum_by_no_more_than_the_clip() -> None:
    generator = torch.Generator().manual_seed(0)
    each = [[torch.randn(3, 4, generator=generator) * 10, torch.randn(3, generator=generator)] for _ in range(6)]
    quiet = Private(noise=0.0, clip=0.7)
    whole = private.noised(each, quiet, generator)
    for left in range(6):
        silenced = [g if at != left else [torch.zeros_like(w) for w in g] for at, g in enumerate(each)]
        other = private.noised(silenced, quiet, generator)
        moved = math.sqrt(sum(float(((a - b) * 6).square().sum()) for a, b in zip(whole, other, strict=True)))
        assert moved <= 0.7 + 1e-5


def test_noise_is_as_large_as_was_said_and_each_users_own() -> None:
    nothing = [[torch.zeros(20_000)] for _ in range(4)]
    (found,) = private.noised(nothing, Private(noise=2.0, clip=0.5), torch.Generator().manual_seed(1))
    assert float(found.std()) == pytest.approx(2.0 * 0.5 / 4, rel=0.03)
    base, arm = counting(), arms.get("private")

    def learned(first: int, seed: int) -> torch.Tensor:
        *_, weights = protocol.epochs(arm, base, base.texts(examples(4, first)), 0.1, SHORT, seed)
        return weights["weight"]

    assert learned(0, 0).equal(learned(0, 0)) and not learned(0, 0).equal(learned(0, 1))


@given(st.floats(0.3, 8.0), st.integers(1, 20))
def test_epsilon_is_the_least_at_its_delta_and_grows_with_epochs(noise: float, epochs: int) -> None:
    found = private.epsilon(Private(noise=noise), epochs)
    sigma = noise / math.sqrt(epochs)
    assert private.spent(sigma, found) <= private.DELTA * (1 + 1e-6)
    assert private.spent(sigma, found * 0.999) > private.DELTA
    assert private.epsilon(Private(noise=noise), epochs + 1) > found > private.epsilon(Private(noise=noise * 2), epochs)


def test_epsilon_at_its_ends_and_at_a_known_point() -> None:
    assert private.epsilon(Private(), 0) == 0.0 and private.epsilon(Private(noise=0.0), 3) == math.inf
    scipy = pytest.importorskip("scipy.stats")
    sigma, at = 1.5, 2.0
    wanted = scipy.norm.cdf(1 / (2 * sigma) - at * sigma) - math.exp(at) * scipy.norm.cdf(-1 / (2 * sigma) - at * sigma)
    assert private.spent(sigma, at) == pytest.approx(wanted, rel=1e-9)


def test_an_accountants_bound_is_never_below_the_exact_epsilon() -> None:
    accountants = pytest.importorskip("opacus.accountants")
    for noise, epochs in ((1.0, 1), (1.0, 10), (4.0, 3)):
        accountant = accountants.RDPAccountant()
        for _ in range(epochs):
            accountant.step(noise_multiplier=noise, sample_rate=1.0)
        exact, bound = private.epsilon(Private(noise=noise), epochs), accountant.get_epsilon(delta=private.DELTA)
        assert exact <= bound < 1.5 * exact


# --- a start made to be personalized -------------------------------------------------------------------


def turncoats(base: Base, n: int) -> tuple[users.User, ...]:
    """Half of the users call everything by the other name: no single model serves all of them."""
    found = []
    for i in range(n):
        rows = examples(24, 40 * i)
        rows = flipped(rows) if i % 2 else rows
        found.append(users.cut_user(f"t{i}", rows, users.Cut()))
    return tuple(found)


def adapted_loss(model: Model, tasks: Sequence[users.User], training: Training, rate: float) -> float:
    base, arm = Base(model), arms.get("last")
    total = 0.0
    for task in tasks:
        *_, weights = protocol.epochs(arm, base, base.texts(task.pool[:8]), rate, training, 0)
        held = base.texts(task.held_out)
        total += float(leakage.loss(protocol.logits(arm, base, weights, held), held.labels.numpy()).mean())
    return total / len(tasks)


def test_a_start_that_was_trained_for_it_adapts_better() -> None:
    base = small("fastgrnn")
    tasks = turncoats(base, 12)
    settings = meta.Meta(rounds=15, robust=0.0, outer_rate=0.5)
    trained = meta.meta_trained(base.model, tasks[:8], settings, 0)
    inner = Training(epochs=3, batch=8)
    before, after = (adapted_loss(model, tasks[8:], inner, settings.inner_rate) for model in (base.model, trained))
    assert after < before
    again = meta.meta_trained(base.model, tasks[:8], settings, 0)
    for one, other in zip(cast(nn.Module, trained).parameters(), cast(nn.Module, again).parameters(), strict=True):
        assert one.equal(other), "the same seed, the same start"


@pytest.mark.parametrize("name", MODELS)
def test_the_robust_term_stands_in_the_outer_gradient(name: str) -> None:
    base = small(name)
    texts, index = base.texts(examples(8)), np.arange(8)
    whole = {key: weight.detach() for key, weight in cast(nn.Module, base.copied()).named_parameters()}
    plain = meta.outer_gradient(base, whole, texts, index, meta.Meta(robust=0.0))
    both = meta.outer_gradient(base, whole, texts, index, meta.Meta(robust=0.5))
    assert set(plain) == set(both) == set(whole)
    assert any(not torch.allclose(plain[key], both[key]) for key in plain)
    assert all(torch.isfinite(gradient).all() for gradient in both.values())


def test_the_outer_gradient_without_the_robust_term_is_that_of_the_loss() -> None:
    base = counting()
    texts, index = base.texts(examples(6)), np.arange(6)
    whole = {key: weight.detach() for key, weight in cast(nn.Module, base.copied()).named_parameters()}
    found = meta.outer_gradient(base, whole, texts, index, meta.Meta(robust=0.0))
    mine = base.copied()
    nn.functional.cross_entropy(answers(mine, texts, index), texts.labels).backward()
    for key, weight in cast(nn.Module, mine).named_parameters():
        assert weight.grad is not None and torch.allclose(found[key], weight.grad, atol=1e-6)


def test_without_users_to_practise_on_that_is_said() -> None:
    with pytest.raises(CouldNotMeasure, match="start plain"):
        meta.meta_trained(small("student").model, (), meta.Meta(), 0)


# --- real users ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_two_real_sets_of_users_are_cut_as_their_texts_allow(real_data: Any) -> None:
    mail = users.folds(datasets.load("users_enron_spam"), users.Cut())
    assert len(mail) == 6 and all(len(f.test) == 1 and len(f.test[0].pool) == 64 for f in mail)
    assert all(len(f.test[0].held_out) == 200 for f in mail)
    (tweets,) = users.folds(datasets.load("users_airline_tweets"), users.Cut())
    assert len(tweets.test) > 100 and max(len(u.pool) for u in tweets.test) >= 8


def test_texts_may_be_cut_to_the_first() -> None:
    texts = counting().texts(examples(6))
    assert isinstance(texts.first(2), Texts) and len(texts.first(2)) == 2 and texts.first(9).examples == texts.examples
