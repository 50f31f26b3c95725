"""Arms as functions and as models: what each may touch, what its copy is exported as, where a device would stop."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from grit.bench.export import words
from grit.bench.personalize import arms, leakage, meta, protocol, robust, users
from grit.bench.personalize.protocol import Training
from grit.bench.personalize.texts import Base, Texts, weights_by_part
from grit.bench.sentence import Text
from grit.bench.train import predict
from grit.bench.twin import Twin
from grit.bench.types import Edit, Example, Gain, Model, Threat
from grit.models.fastgrnn import FastGRNN
from grit.models.prado import Prado
from grit.models.student import Student

PLACES = "pier lane mill barn cove ford glen moor".split()
TOLD = (("ripe", "sweet", "crisp"), ("stale", "sour", "limp"))
MODELS: dict[str, tuple[Any, Any]] = {
    "student": (Student, Student.Config(minimum_count=1, max_tokens=6)),
    "fastgrnn": (FastGRNN, FastGRNN.Config(embedding=4, hidden=6, minimum_count=1, max_tokens=6)),
    "prado": (Prado, Prado.Config(width=8, maps=4, bigrams=4, trigrams=0)),
}
RECURRENT = ("student", "fastgrnn")
LEARNING = tuple(key for key in arms.ARMS if key != "none")
LONG = "pier ripe lane sour mill limp barn stale cove crisp"  # more words than a model reads


def rows(n: int, first: int = 0) -> tuple[Example, ...]:
    return tuple(
        Example(
            f"{i:016x}", f"{PLACES[i % 8]} {TOLD[i % 2][i % 3]} {PLACES[i // 8 % 8]} {TOLD[i % 2][i // 3 % 3]}", i % 2
        )
        for i in range(first, first + n)
    )


_bases: dict[str, Base] = {}


def base_of(name: str) -> Base:
    """One base a kind of model: nothing may change it."""
    if name not in _bases:
        cls, config = MODELS[name]
        _bases[name] = Base(cls.build(config, [*(e.text for e in rows(40)), LONG], 2, 0))
    return _bases[name]


def learned(name: str, key: str, n: int = 8, rate: float = 0.5, epochs: int = 4) -> arms.Weights:
    arm, base = arms.get(key), base_of(name)
    *_, weights = protocol.epochs(arm, base, base.texts(rows(n)), rate, Training(epochs, 4), 0)
    return weights


# --- functions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", arms.ARMS)
def test_every_arm_says_in_words_what_it_trains(key: str) -> None:
    arm = arms.get(key)
    assert arm.key == key and arm.trains and "\n" not in arm.trains
    assert all(rate > 0 for rate in arm.rates) or key == "none"
    assert list(arm.rates) == sorted(arm.rates), "of equals the gentlest is tried first"


@pytest.mark.parametrize("key", LEARNING)
@pytest.mark.parametrize("name", MODELS)
def test_a_start_is_the_same_for_the_same_seed(name: str, key: str) -> None:
    arm, base = arms.get(key), base_of(name)
    one, other = arm.start(base, 3), arm.start(base, 3)
    assert one.keys() == other.keys() and all(one[part].equal(other[part]) for part in one)
    assert all(weight.dtype == torch.float32 and not weight.requires_grad for weight in one.values())
    if key in ("cell", "fused"):
        assert any(not weight.equal(one[part]) for part, weight in arm.start(base, 4).items()), "drawn from the seed"


@pytest.mark.parametrize("key", LEARNING)
@pytest.mark.parametrize("name", MODELS)
def test_answers_do_not_depend_on_the_batch(name: str, key: str) -> None:
    arm, base = arms.get(key), base_of(name)
    weights = learned(name, key)
    texts = base.texts((*rows(7), Example("f" * 16, LONG, 0), Example("e" * 16, "", 1)))
    with torch.no_grad():
        whole = arm.logits(base, weights, texts, np.arange(len(texts)))
        for at in range(len(texts)):
            assert torch.allclose(arm.logits(base, weights, texts, np.array([at]))[0], whole[at], atol=1e-5)
    assert np.allclose(protocol.logits(arm, base, weights, texts), whole.numpy(), atol=1e-5)


@pytest.mark.parametrize("key", LEARNING)
def test_learning_leaves_the_base_and_the_start_alone(key: str) -> None:
    base, arm = base_of("student"), arms.get(key)
    before = copy.deepcopy(cast(nn.Module, base.model).state_dict())
    start = arm.start(base, 0)
    kept = {name: weight.clone() for name, weight in start.items()}
    learned("student", key)
    arm.model(base, learned("student", key))
    assert all(weight.equal(before[name]) for name, weight in cast(nn.Module, base.model).state_dict().items())
    assert all(weight.equal(kept[name]) for name, weight in start.items())


@pytest.mark.parametrize("name", MODELS)
def test_parts_of_a_model_are_trained_by_the_arms_that_say_so(name: str) -> None:
    base = base_of(name)
    parts = weights_by_part(base.copied())
    assert set(arms.get("all").start(base, 0)) == set(parts)
    assert {part for key, part in parts.items() if key in arms.get("but-embedding").start(base, 0)} == {"body", "head"}
    for key in arms.get("cell").start(base, 0):
        assert parts[key.rpartition(" ")[0]] == "body"


@pytest.mark.parametrize("name", RECURRENT)
def test_what_is_added_to_the_cell_has_the_rank_it_is_said_to_have(name: str) -> None:
    base = base_of(name)
    own = dict(cast(nn.Module, base.model).named_parameters())
    for key, matrix in arms.cell_weights(base, learned(name, "cell", rate=2.0)).items():
        added = (matrix - own[key]).detach().reshape(len(matrix), -1)
        singular = torch.linalg.svdvals(added)
        assert singular[0] > 1e-6 and (singular[arms.RANK :] < 1e-5 * singular[0]).all()


def test_a_low_rank_step_is_the_chain_rule() -> None:
    """The slopes of the factors are those of the whole matrix times the other factor."""
    base, texts = base_of("fastgrnn"), base_of("fastgrnn").texts(rows(6))
    weights = {key: weight.requires_grad_() for key, weight in learned("fastgrnn", "cell").items()}
    index = np.arange(6)
    loss = nn.functional.cross_entropy(arms.get("cell").logits(base, weights, texts, index), texts.labels)
    slopes = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
    whole = {key: matrix.detach().requires_grad_() for key, matrix in arms.cell_weights(base, weights).items()}
    loss = nn.functional.cross_entropy(arms.under(base.model, whole, *texts.codes(index)), texts.labels)
    for key, slope in zip(whole, torch.autograd.grad(loss, list(whole.values())), strict=True):
        slope = slope.reshape(len(slope), -1)
        assert torch.allclose(slopes[f"{key} left"], slope @ weights[f"{key} right"].T, atol=1e-6)
        assert torch.allclose(slopes[f"{key} right"], weights[f"{key} left"].T @ slope, atol=1e-6)


@pytest.mark.parametrize("name", RECURRENT)
def test_the_users_word_is_read_before_all_others(name: str) -> None:
    base = base_of(name)
    texts = base.texts(rows(5))
    row = dict(cast(nn.Module, base.model).named_parameters())["table"][1].detach()
    word = base.model.vocabulary[1]
    given = protocol.logits(arms.get("token"), base, {"token": row}, texts)
    spelled = predict(base.model, [f"{word} {e.text}" for e in texts.examples])
    assert np.allclose(given, spelled, atol=1e-5)


def test_an_extractor_adds_what_its_formula_says() -> None:
    base, texts = base_of("student"), base_of("student").texts(rows(6))
    weights = learned("student", "fused", rate=3.0)
    mean = texts.frozen.words.numpy()
    inner, shift, outer = (weights[key].detach().numpy() for key in ("inner", "shift", "outer"))
    wanted = texts.frozen.logits.numpy() + np.tanh(mean @ inner.T + shift) @ outer.T
    assert np.allclose(protocol.logits(arms.get("fused"), base, weights, texts), wanted, atol=1e-5)
    assert np.abs(outer).max() > 0


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 3)), max_size=30))
def test_stored_bytes_never_exceed_all_numbers_and_grow_with_what_changes(changed: list[tuple[int, int]]) -> None:
    start = {"table": torch.zeros(20, 4), "bias": torch.zeros(2)}
    found = [0]
    now = {name: weight.clone() for name, weight in start.items()}
    for row, column in changed:
        now["table"][row, column] = 1.0
        found.append(arms.stored_bytes(start, now))
    assert all(later >= earlier for earlier, later in itertools.pairwise(found))
    assert found[-1] <= 4 * 20 * 4 and found[-1] == min(320, 20 * len({row for row, _ in changed}))


# --- models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", arms.ARMS)
@pytest.mark.parametrize("name", RECURRENT)
def test_a_copy_has_gradients_at_the_feature_cut_as_every_model(name: str, key: str) -> None:
    """First-order gains of the copy against the change in margin that an edit makes, for a small step."""
    base, arm = base_of(name), arms.get(key)
    model = arm.model(base, learned(name, key) if key != "none" else {})
    text = Text(rows(1)[0].text, Threat(spaces=("any",)), None, stop_words=frozenset())
    edits = [Edit("replace", 1, word) for word in ("sour", "sweet", "pier")]
    (gains,) = Twin(model).gains([(text, Gain((), edits), 0)])
    assert gains.shape == (3,) and np.isfinite(gains).all() and np.abs(gains).max() > 0


@pytest.mark.parametrize("key", arms.ARMS)
@pytest.mark.parametrize("name", RECURRENT)
def test_what_ships_reads_no_further_than_the_model(name: str, key: str) -> None:
    base, arm = base_of(name), arms.get(key)
    model = arm.model(base, learned(name, key) if key != "none" else {})
    calibration = [e.text for e in rows(30)]
    artefact = robust.shipped(model, calibration)
    cut = " ".join(LONG.split()[: base.model.max_tokens])
    assert np.array_equal(words.answer(artefact, [LONG]), words.answer(artefact, [cut]))
    assert artefact.max_tokens == base.model.max_tokens
    assert artefact.intern(artefact.tokenize("ripe"))[0] == artefact.intern(["ripe"])[0]
    assert artefact.token(int(artefact.intern(["ripe"])[0])) == "ripe"
    assert artefact.separable and artefact.classes == 2


def test_copies_of_different_users_are_different_bytes() -> None:
    base, arm = base_of("student"), arms.get("all")
    calibration = [e.text for e in rows(30)]
    digests = {
        robust.shipped(arm.model(base, learned("student", "all", n=n, rate=1.0)), calibration).digest for n in (4, 8)
    }
    assert len(digests) == 2


def test_the_bytes_of_a_copy_are_those_of_the_model_and_of_what_was_added() -> None:
    base = base_of("student")
    calibration = [e.text for e in rows(30)]
    own = robust.shipped(base.copied(), calibration)
    fused = robust.shipped(arms.get("fused").model(base, learned("student", "fused")), calibration)
    extra = sum(4 * weight.numel() for weight in arms.get("fused").start(base, 0).values())
    assert sum(fused.sizes_bytes.values()) == sum(own.sizes_bytes.values()) + extra
    assert extra <= arms.EXTRACTOR_BYTES and not fused.exact and own.exact
    last = robust.shipped(arms.get("last").model(base, learned("student", "last")), calibration)
    assert sum(last.sizes_bytes.values()) == sum(own.sizes_bytes.values()), "the update is merged"


def test_a_users_word_cannot_be_edited() -> None:
    """The attacked text has no such word: only the artefact knows it."""
    base = base_of("student")
    artefact = robust.shipped(arms.get("token").model(base, learned("student", "token", rate=3.0)), [LONG])
    rows_of, lengths = np.array([artefact.intern(artefact.tokenize("ripe pier"))]), np.array([2])
    assert artefact.tokenize("ripe pier") == ["ripe", "pier"] and rows_of.shape == (1, 2)
    assert artefact.logits(rows_of, lengths).shape == (1, 2)


# --- the protocol ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["bias", "last", "private", "fused", "but-embedding"])
def test_an_epoch_does_not_depend_on_how_many_follow(key: str) -> None:
    base, arm = base_of("student"), arms.get(key)
    texts = base.texts(rows(6))
    short = list(protocol.epochs(arm, base, texts, 0.3, Training(2, 4), 0))
    long = list(protocol.epochs(arm, base, texts, 0.3, Training(4, 4), 0))
    assert len(short) == 2 and len(long) == 4
    for one, other in zip(short, long, strict=False):
        assert all(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize("batch", [1, 2, 3, 6])
def test_a_step_is_of_at_most_a_batch(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    base, seen = base_of("student"), []
    honest = protocol.descended

    def watched(arm: Any, base: Any, weights: Any, texts: Any, index: np.ndarray, *rest: Any) -> Any:
        seen.append(index.tolist())
        return honest(arm, base, weights, texts, index, *rest)

    monkeypatch.setattr(protocol, "descended", watched)
    list(protocol.epochs(arms.get("bias"), base, base.texts(rows(5)), 0.3, Training(1, batch), 0))
    assert max(map(len, seen)) <= batch and [at for index in seen for at in index] == list(range(5))


def person(name: str, pool: Sequence[Example], held: Sequence[Example]) -> protocol.Person:
    base = base_of("student")
    return protocol.Person(name, base.texts(pool), base.texts(held))


def test_a_choice_is_never_worse_on_validation_than_no_training() -> None:
    base = base_of("student")
    people = [person(f"p{i}", rows(4, 9 * i), rows(5, 9 * i + 4)) for i in range(4)]
    before = np.mean([protocol.right(arms.get("none"), base, None, p.held_out) / 5 for p in people])
    for key in ("none", "bias", "last", "token"):
        choice = protocol.choose(arms.get(key), base, people, 4, Training(3, 4), 0)
        assert choice.score >= before - 1e-12 and (choice.epoch == 0) == (choice.score <= before + 1e-12)
        assert choice.rate in arms.get(key).rates and 0 <= choice.epoch <= 3 and choice.users == 4


def test_users_with_fewer_texts_do_not_vote() -> None:
    base = base_of("student")
    people = [person("rich", rows(8), rows(4, 20)), person("poor", rows(3), rows(4, 30))]
    assert protocol.choose(arms.get("bias"), base, people, 8, Training(1, 4), 0).users == 1
    assert protocol.choose(arms.get("bias"), base, people, 3, Training(1, 4), 0).users == 2
    assert people[0].able(8) and not people[1].able(8)


def test_the_first_k_texts_are_learned_from_and_no_other() -> None:
    base, arm = base_of("student"), arms.get("all")
    texts = base.texts(rows(12))
    weights = protocol.personalised(arm, base, texts.first(3), protocol.Choice(0.5, 2, 1.0, 1), Training(4, 4), 0)
    told = {token for tokens in texts.first(3).tokens for token in tokens}
    assert leakage.recovered(base, weights) == frozenset(told - {""})


def test_without_a_vocabulary_no_word_is_recovered() -> None:
    base = base_of("prado")
    assert leakage.recovered(base, learned("prado", "all")) == frozenset()
    assert leakage.read_words(base.texts(rows(3))) == frozenset()


@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=12),
    st.integers(1, 11),
    st.floats(0.1, 5),
)
def test_membership_is_blind_to_scale_and_turns_with_the_sign(fall: list[float], members: int, scale: float) -> None:
    if members >= len(fall):
        return
    zero, drop = np.zeros(len(fall)), np.round(np.array(fall), 6)
    found = leakage.membership([drop, zero], members)
    assert found is not None and 0.0 <= found <= 1.0
    assert leakage.membership([np.zeros(len(fall)), drop], members) == pytest.approx(1 - found)
    if np.unique(np.abs(np.subtract.outer(drop, drop))).size == 1 or np.diff(np.unique(drop)).min(initial=1) > 1e-5:
        assert leakage.membership([drop * scale, zero], members) == pytest.approx(found)


# --- a start to personalize from ----------------------------------------------------------------------------------


def tasks(n: int) -> tuple[users.User, ...]:
    return tuple(users.cut_user(f"t{i}", rows(9, 9 * i), users.Cut()) for i in range(n))


def test_no_rounds_leave_the_model_as_it_was() -> None:
    base = base_of("student")
    same = meta.meta_trained(base.model, tasks(3), meta.Meta(rounds=0), 0)
    for one, other in zip(cast(nn.Module, same).parameters(), cast(nn.Module, base.model).parameters(), strict=True):
        assert one.equal(other)


@pytest.mark.parametrize("name", MODELS)
def test_rounds_change_it_by_no_more_than_the_clip_allows(name: str) -> None:
    base = base_of(name)
    settings = meta.Meta(rounds=2, outer_rate=0.05)
    after = meta.meta_trained(base.model, tasks(4), settings, 0)
    moved = torch.sqrt(
        sum(
            (
                (one - other).square().sum()
                for one, other in zip(
                    cast(nn.Module, after).parameters(), cast(nn.Module, base.model).parameters(), strict=True
                )
            ),
            torch.zeros(()),
        )
    )
    assert 0 < float(moved.detach()) <= 2 * 0.05 * (1 + 1e-4)
    assert type(after) is type(base.model) and after.vocabulary == base.model.vocabulary


def test_a_radius_of_nought_makes_the_robust_term_the_clean_one() -> None:
    base, index = base_of("fastgrnn"), np.arange(6)
    texts: Texts = base.texts(rows(6))
    whole = {key: weight.detach() for key, weight in cast(nn.Module, base.copied()).named_parameters()}
    clean = meta.outer_gradient(base, whole, texts, index, meta.Meta(robust=0.0))
    still = meta.outer_gradient(base, whole, texts, index, meta.Meta(robust=0.5, radius=0.0))
    for key in clean:
        assert torch.allclose(still[key], 1.5 * clean[key], atol=1e-6)


def test_moved_words_raise_the_loss() -> None:
    """The outer loop's texts are harder than the clean ones: that is what robust means here."""
    base, index = base_of("fastgrnn"), np.arange(8)
    texts = base.texts(rows(8))
    whole = {key: weight.detach() for key, weight in cast(nn.Module, base.copied()).named_parameters()}
    settings = meta.Meta(radius=0.5)
    seen: list[float] = []
    honest = meta.cross_entropy

    def watched(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = honest(logits, labels)
        seen.append(float(loss.detach()))
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meta, "cross_entropy", watched)
        meta.outer_gradient(base, whole, texts, index, settings)
    assert len(seen) == 2 and seen[1] > seen[0]


def test_a_copy_is_a_model_by_the_contract_but_for_its_making() -> None:
    base = base_of("student")
    model: Model = arms.get("last").model(base, learned("student", "last"))
    assert model.tokenize("Ripe pier") == base.model.tokenize("Ripe pier") and model.vocabulary == base.model.vocabulary
    model.constrain(0.5)
    program = model.program()
    own = base.model.program()
    assert program is not None and own is not None and program.vocabulary == own.vocabulary
    added = learned("student", "last")
    assert np.allclose(program.head.weight - own.head.weight, added["weight"].detach().numpy(), atol=1e-6)
    assert dataclasses.replace(program, head=own.head).max_tokens == own.max_tokens


# --- other weights in a model's place -------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_model_under_other_weights_answers_as_one_that_has_them(name: str) -> None:
    base = base_of(name)
    texts, index = base.texts(rows(5)), np.arange(5)
    generator = torch.Generator().manual_seed(1)
    weights = {
        key: weight + 0.1 * torch.randn(weight.shape, generator=generator)
        for key, weight in arms.get("all").start(base, 0).items()
    }
    codes, lengths = texts.codes(index)
    mine = arms.merged(base, weights)
    with torch.no_grad():
        wanted = mine.head(mine.read(mine.features(codes), lengths).state)
        assert torch.allclose(arms.under(base.model, weights, codes, lengths), wanted, atol=1e-6)
        assert torch.allclose(arms.under(base.model, {}, codes, lengths), texts.frozen.logits, atol=1e-5)
        still = torch.zeros_like(base.model.features(codes))
        assert torch.allclose(arms.under(base.model, weights, codes, lengths, still), wanted, atol=1e-6)
        assert not torch.allclose(arms.under(base.model, weights, codes, lengths, still + 1.0), wanted, atol=1e-3)
    assert not any(weight.requires_grad for weight in cast(nn.Module, mine).parameters())


def test_only_some_weights_may_be_replaced() -> None:
    base = base_of("fastgrnn")
    own = dict(cast(nn.Module, base.model).named_parameters())
    mine = dict(cast(nn.Module, arms.merged(base, {"head_bias": own["head_bias"] + 1.0})).named_parameters())
    for key, weight in own.items():
        assert torch.allclose(mine[key], weight + (1.0 if key == "head_bias" else 0.0))


@pytest.mark.parametrize("name", MODELS)
def test_an_empty_text_and_one_too_long_are_read_as_the_model_reads_them(name: str) -> None:
    base = base_of(name)
    odd = (Example("a" * 16, "", 0), Example("b" * 16, " ".join([LONG] * 30), 1), *rows(2))
    texts = base.texts(odd)
    assert np.allclose(texts.frozen.logits.numpy(), predict(base.model, [e.text for e in odd]), atol=1e-5)
    assert texts.frozen.words.isfinite().all() and len(texts.tokens) == 4
    assert texts.tokens[0] <= {""} and len(texts.tokens[1]) <= base.model.max_tokens


# --- counting what attacks do ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Writes:
    """Writes one word over the second word, whatever the model says of it."""

    word: str
    threat: Threat = Threat(spaces=("any",), max_words=1.0)
    tier: str = "strong"

    def attack(self, sentence: Any, label: int, rng: Any) -> Any:
        yield from ()
        return (Edit("replace", 1, self.word),)


@dataclasses.dataclass(frozen=True)
class Stumbles:
    """Fails on every text."""

    threat: Threat = Threat(spaces=("any",), max_words=1.0)
    tier: str = "strong"

    def attack(self, sentence: Any, label: int, rng: Any) -> Any:
        yield from ()
        raise RuntimeError("no")


def leaning(weight: float) -> Model:
    """A copy that answers 1 to everything, or 0."""
    base = base_of("student")
    return arms.get("bias").model(base, {"bias": torch.tensor([-weight, weight])})


def test_an_attack_that_fails_is_no_robustness() -> None:
    found = robust.attacked(leaning(9.0), rows(8), 0, {"stumbles": cast(Any, Stumbles())}, [LONG], 0)
    assert (found.n, found.clean, found.robust) == (8, 4, 0)
    assert (found.minority, found.minority_attacked, found.minority_broken) == (4, 4, 4)


def test_what_no_edit_changes_stays_and_the_next_attack_sees_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    honest = robust.evaluate.attack_all

    def watched(victim: Any, attack: Any, examples: Any, *, seed: int, name: str) -> Any:
        seen.append((name, len(examples)))
        return honest(victim, attack, examples, seed=seed, name=name)

    monkeypatch.setattr(robust.evaluate, "attack_all", watched)
    attacks = {"one": cast(Any, Writes("sour")), "fails": cast(Any, Stumbles()), "two": cast(Any, Writes("ripe"))}
    found = robust.attacked(leaning(9.0), rows(8), 1, attacks, [LONG], 0)
    assert seen[0] == ("one", 8) and seen[1][1] <= 8 and seen[2][1] <= seen[1][1]
    assert found.clean == 4 and found.robust == 0 and found.minority_attacked == 0


@pytest.mark.parametrize(("favourite", "rare"), [(0, 4), (1, 4), (7, 8)])
def test_rare_texts_are_those_of_any_other_label(favourite: int, rare: int) -> None:
    found = robust.attacked(leaning(-9.0), rows(8), favourite, {"one": cast(Any, Writes("sour"))}, [LONG], 0)
    assert found.minority == rare and found.minority_broken <= found.minority_attacked <= rare
