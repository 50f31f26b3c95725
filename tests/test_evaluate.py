"""The engine: lock-step changes nothing, everything is counted, nothing is believed, a kill loses nothing."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grit.bench import evaluate
from grit.bench.evaluate import answers, attack_all, standing
from grit.bench.sentence import Text
from grit.bench.text import tokenize
from grit.bench.types import (
    BudgetSpent,
    CouldNotMeasure,
    Edit,
    Example,
    Gain,
    MalformedInput,
    Outcome,
    Question,
    Score,
    Script,
    StorageError,
    Threat,
    UsageError,
)
from grit.bench.victim import CallableVictim, Victim


@given(st.integers(1, 5), st.integers(0, 6), st.integers(0, 10**6))
def test_a_margin_is_the_largest_other_logit_minus_the_gold_one(classes: int, texts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(-3, 4, (texts, classes)) * 10.0 ** rng.integers(-3, 4)
    before, label = logits.copy(), int(rng.integers(classes))
    expected = [max((row[k] for k in range(classes) if k != label), default=-math.inf) - row[label] for row in logits]
    assert evaluate.margins(logits, label).tolist() == expected
    assert (logits == before).all(), "the logits are the victim's"


# --- a small world ----------------------------------------------------------------------------------
# Words are letters a to t, each with a whole weight a class; two neighbouring letters are synonyms.

LETTERS = "abcdefghijklmnopqrst"
NO_STOP_WORDS: frozenset[str] = frozenset()
THREAT = Threat(spaces=("synonyms",), max_words=0.5, max_queries=60)


class Letters:
    """logits = sum of the letters' weights: whole numbers, so any batch gives the same."""

    separable = True
    exact = True
    classes = 3
    max_tokens = 32
    digest = "letters"
    sizes_bytes: ClassVar[dict[str, int]] = {"rows": 1}

    def __init__(self) -> None:
        steps = np.random.default_rng(5).integers(-4, 5, (len(LETTERS) + 1, self.classes))
        self.weights = np.cumsum(steps, axis=0).astype(float)
        self.batches: list[int] = []

    def tokenize(self, text: str) -> list[str]:
        return tokenize(text)

    def intern(self, tokens: Sequence[str]) -> np.ndarray:
        return np.array([LETTERS.find(token) + 1 if token else 0 for token in tokens], np.int32)

    def token(self, row: int) -> str:
        return LETTERS[row - 1] if row else ""

    def logits(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        self.batches.append(len(rows))
        real = np.arange(rows.shape[1]) < lengths[:, None]
        return (self.weights[np.where(real, rows, 0)] * real[:, :, None]).sum(1)


class Neighbours:
    name = "neighbours"
    digest = "neighbours"

    def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
        place = LETTERS.find(word)
        return tuple(LETTERS[max(0, place - 2) : place] + LETTERS[place + 1 : place + 3])


def examples(count: int, seed: int = 0, wrong: float = 0.1) -> list[Example]:
    """Texts of 2 to 9 letters, labelled by the victim but for a share of them."""
    rng = random.Random(seed)
    texts = [" ".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 9))) for _ in range(count)]
    labels = Victim(Letters()).logits(texts).argmax(1)
    return [
        Example(f"{place:04d}", text, int(label if rng.random() >= wrong else (label + 1) % 3))
        for place, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]


@dataclass(frozen=True)
class Wandering:
    """Random single edits, kept if they help: a search with a seed, whose course depends on every answer."""

    threat: Threat = THREAT
    tier: str = "strong"
    tiers: ClassVar[dict[str, dict[str, Any]]] = {"strong": {}}

    def attack(self, sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        script: Script = ()
        best = -math.inf
        while True:
            tries: list[Script] = []
            for _ in range(rng.randint(1, 4)):
                site = rng.randrange(len(sentence.words))
                kept = [edit for edit in script if edit.index != site][: sentence.max_edits - 1]
                tries.append(tuple(sorted([*kept, Edit("replace", site, rng.choice(sentence.candidates(site)))])))
            logits = yield Score(tries)
            margins = evaluate.margins(logits, label)
            top = int(margins.argmax()) if len(margins) else -1
            if top >= 0 and margins[top] > best:
                script, best = tries[top], float(margins[top])
                if logits[top].argmax() != label:
                    return script


def run(victim: Any, attack: Any, some: Sequence[Example], **options: Any) -> list[Outcome]:
    given = {"seed": 0, "name": "test", "lexicon": Neighbours(), "stop_words": NO_STOP_WORDS}
    return attack_all(victim, attack, some, **{**given, **options})


def told(story: Callable[..., Generator[Question, np.ndarray, Any]], threat: Threat = THREAT) -> Any:
    """An attack from a generator function (sentence, label, rng)."""

    @dataclass(frozen=True)
    class Told:
        threat: Threat
        tier: str = "strong"
        tiers: ClassVar[dict[str, dict[str, Any]]] = {"strong": {}}

        def attack(self, sentence: Any, label: int, rng: random.Random) -> Any:
            return story(sentence, label, rng)

    return Told(threat)


def first_break(sentence: Any) -> Script:
    """By force: a script of at most two edits that the victim gets wrong and the threat holds."""
    victim = Victim(Letters())
    label = int(victim.logits([sentence.text])[0].argmax())
    single = [Edit("replace", i, w) for i in range(len(sentence.words)) for w in sentence.candidates(i)]
    pairs = [(a, b) for a in single for b in single if a.index < b.index] if sentence.max_edits > 1 else []
    for script in [*((edit,) for edit in single), *pairs]:
        if victim.logits([sentence.apply(script)])[0].argmax() != label:
            return script
    return ()


# --- lock-step --------------------------------------------------------------------------------------


def test_outcomes_do_not_depend_on_batches_windows_or_order() -> None:
    some = examples(80)
    expected = run(Victim(Letters()), Wandering(), some)
    kinds = [outcome.outcome for outcome in expected]
    assert kinds.count("broken") > 20 and kinds.count("survived") > 5 and kinds.count("skipped") > 2
    for rows in (1, 7, 512):
        assert run(Victim(Letters(), rows=rows), Wandering(), some, window=rows) == expected
    shuffled = random.Random(1).sample(range(len(some)), len(some))
    moved = run(Victim(Letters()), Wandering(), [some[place] for place in shuffled], window=5)
    assert moved == [expected[place] for place in shuffled]
    assert run(Victim(Letters()), Wandering(), some[20:25]) == expected[20:25]


def test_questions_of_many_texts_share_batches() -> None:
    artefact = Letters()
    outcomes = run(Victim(artefact), Wandering(), examples(60))
    asked = sum(outcome.queries - outcome.cache_hits for outcome in outcomes)
    assert len(artefact.batches) < asked / 8


def test_the_seed_is_of_run_attack_and_example() -> None:
    some = examples(30, wrong=0)
    traces = [outcome.trace for outcome in run(Victim(Letters()), Wandering(), some)]
    assert traces == [outcome.trace for outcome in run(Victim(Letters()), Wandering(), some)]
    for change in ({"seed": 1}, {"name": "other"}):
        changed = [outcome.trace for outcome in run(Victim(Letters()), Wandering(), some, **change)]
        assert all(a != b for a, b in zip(traces, changed, strict=True))
    renamed = [replace(example, id="x" + example.id) for example in some]
    assert all(a != b.trace for a, b in zip(traces, run(Victim(Letters()), Wandering(), renamed), strict=True))


def test_a_larger_budget_continues_the_search_of_a_smaller_one() -> None:
    some = examples(60, wrong=0)
    broken: list[set[str]] = []
    for budget in (5, 20, 80, 320):
        attack = Wandering(replace(THREAT, max_queries=budget))
        outcomes = run(Victim(Letters()), attack, some)
        assert max(outcome.queries for outcome in outcomes) <= budget
        broken.append({outcome.id for outcome in outcomes if outcome.outcome == "broken"})
    assert broken[0] <= broken[1] <= broken[2] <= broken[3] and len(broken[0]) < len(broken[3])


def test_progress_is_told_in_examples() -> None:
    told_of: list[tuple[int, int]] = []
    run(
        Victim(Letters()),
        Wandering(),
        examples(30),
        window=4,
        progress=lambda done, total: told_of.append((done, total)),
    )
    assert told_of == sorted(set(told_of)) and told_of[-1] == (30, 30) and len(told_of) > 3


def test_no_examples_and_no_words() -> None:
    assert run(Victim(Letters()), Wandering(), []) == []
    silent = told(lambda sentence, label, rng: iter(()))  # no generator, no question
    label = int(Victim(Letters()).logits([""])[0].argmax())
    (outcome,) = run(Victim(Letters()), silent, [Example("0", "", label)])
    assert outcome.outcome == "error"


def test_a_flight_is_bounded_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    some = examples(60)
    expected = run(Victim(Letters()), Wandering(), some)
    widest: list[int] = []

    class Watched(Victim):
        def answer(self, asked: Any) -> list[np.ndarray]:
            widest.append(sum(len(each.subject.sentence.words) for each in asked))
            return super().answer(asked)

    monkeypatch.setattr("grit.bench.evaluate.WORDS", 30)
    assert run(Watched(Letters()), Wandering(), some) == expected
    assert max(widest) < 30 + 9
    monkeypatch.setattr("grit.bench.evaluate.WORDS", 1)
    assert run(Victim(Letters()), Wandering(), some) == expected


def test_a_growing_table_is_emptied_between_flights_and_no_outcome_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hashing artefact keeps a row for every typo it has read; here each row names its token anew after a while."""

    class Growing(Letters):
        def __init__(self) -> None:
            super().__init__()
            self.seen = [""]
            self.largest = self.forgotten = 0

        @property
        def interned(self) -> int:
            return len(self.seen)

        def forget(self) -> None:
            self.seen = ["z", ""]  # as if the order of turning up had been another
            self.forgotten += 1

        def intern(self, tokens: Sequence[str]) -> np.ndarray:
            self.seen += [token for token in dict.fromkeys(tokens) if token not in self.seen]
            self.largest = max(self.largest, len(self.seen))
            return np.array([self.seen.index(token) for token in tokens], np.int32)

        def logits(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            letters = np.array([LETTERS.find(token) + 1 if token else 0 for token in self.seen])
            return super().logits(letters[np.where(np.arange(rows.shape[1]) < lengths[:, None], rows, 0)], lengths)

    some = examples(60)
    expected = run(Victim(Letters()), Wandering(), some)
    unbounded, bounded = Growing(), Growing()
    assert run(Victim(unbounded), Wandering(), some) == expected and not unbounded.forgotten
    monkeypatch.setattr("grit.bench.victim._INTERNED", 10)
    assert run(Victim(bounded), Wandering(), some, window=3) == expected
    assert bounded.forgotten > 3 and bounded.largest <= unbounded.largest


# --- counting ----------------------------------------------------------------------------------------


def test_queries_are_counted_as_asked_and_hits_apart() -> None:
    def story(sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        yield Score([(), (), (Edit("unknown", 0),)])
        yield Score([()])
        yield Score([])
        return ()

    (outcome,) = run(Victim(Letters()), told(story), examples(1, wrong=0))
    assert (outcome.queries, outcome.cache_hits, outcome.gradients) == (4, 2, 0)
    assert outcome.outcome == "survived" and outcome.script == ()


def test_a_budget_cuts_the_answer_then_throws() -> None:
    lengths: list[int] = []

    def story(sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        for _ in range(2):
            answer = yield Score([()] * 40)
            lengths.append(len(answer))
        try:
            yield Score([()])
        except BudgetSpent:
            return first_break(sentence)
        raise AssertionError("the budget was not enforced")

    some = examples(40, wrong=0)
    outcomes = run(Victim(Letters()), told(story), some)
    assert lengths[:2] == [40] * 2 or set(lengths) == {40, 20}
    assert {outcome.queries for outcome in outcomes} == {60}
    assert {"broken", "survived"} == {outcome.outcome for outcome in outcomes}


@pytest.mark.parametrize("stubborn", [False, True])
def test_an_attack_that_ignores_its_budget_survives(stubborn: bool) -> None:
    def story(sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        while True:
            try:
                yield Score([()] * 50)
            except BudgetSpent:
                if not stubborn:
                    raise

    (outcome,) = run(Victim(Letters()), told(story), examples(1, wrong=0))
    assert (outcome.outcome, outcome.queries) == ("survived", 60)


@pytest.mark.parametrize("question", [Score([]), Gain((), ())])
def test_questions_that_cost_nothing_end_too(question: Question) -> None:
    def story(sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        while True:
            yield question

    (outcome,) = run(Victim(Letters()), told(story), examples(1, wrong=0))
    assert outcome.outcome == "error" and "asked" in outcome.reason


class Slopes:
    """Gradients of a stand-in: every edit gains its place in the question."""

    def gains(self, asked: Sequence[tuple[Text, Gain, int]]) -> list[np.ndarray]:
        return [np.arange(len(gain.edits), dtype=float) for _, gain, _ in asked]


def test_gradient_passes_are_counted_apart_and_bounded() -> None:
    answers: list[np.ndarray] = []

    def story(sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        while True:
            answers.append((yield Gain((), [Edit("unknown", 0), Edit("replace", 1, "a")])))

    (outcome,) = run(Victim(Letters(), Slopes()), told(story), examples(1, wrong=0))
    assert (outcome.queries, outcome.gradients) == (0, 60)
    assert answers[0].tolist() == [0, 1]


def test_without_gradients_a_gain_is_answered_by_scoring_and_each_edit_costs_a_query() -> None:
    answers: list[np.ndarray] = []

    def story(sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        base = (Edit("replace", 0, sentence.candidates(0)[0]),)
        edits = [Edit("replace", place, word) for place in (0, 1) for word in sentence.candidates(place)[:2]]
        before = evaluate.margins((yield Score([base])), label)
        answers.append((yield Gain(base, edits)))
        scripts: list[Script] = [(edit,) if edit.index == 0 else (*base, edit) for edit in edits]
        answers.append(evaluate.margins((yield Score(scripts)), label) - before)
        answers.append((yield Gain((), edits * 30)))
        return ()

    (outcome,) = run(Victim(Letters()), told(story), examples(1, wrong=0))
    assert answers[0].tolist() == answers[1].tolist()
    assert outcome.queries == 60 and len(answers[2]) == 60 - 1 - 4 - 4
    # Fresh: base; 4 edits on it, one of which is the base itself; the text; 4 single edits, one of them the base.
    assert outcome.queries - outcome.cache_hits <= 1 + 3 + 3


def test_traces_digest_the_questions() -> None:
    def asks(*scripts: Script) -> Any:
        def story(sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
            yield Score(scripts)
            return ()

        return told(story)

    def trace(*scripts: Script) -> str:
        return run(Victim(Letters()), asks(*scripts), examples(1, wrong=0))[0].trace

    one, two = (Edit("replace", 0, "a"),), (Edit("replace", 0, "b"),)
    assert trace(one, two) == trace(one, two)
    assert len({trace(one, two), trace(two, one), trace(one), trace((*one,), ()), trace()}) == 5


def test_the_nearest_miss_is_the_best_legal_script_that_was_asked() -> None:
    def story(sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        unknown: list[Script] = [(Edit("unknown", place),) for place in range(len(sentence.words))]
        outside: list[Script] = [(Edit("replace", place, "t"),) for place in range(len(sentence.words))]
        legal: list[Script] = [
            (Edit("replace", place, word),)
            for place in range(len(sentence.words))
            for word in sentence.candidates(place)
        ]
        yield Score([*unknown, *outside, *legal])
        return ()

    some = examples(30, wrong=0)
    for example, outcome in zip(some, run(Victim(Letters()), told(story), some), strict=True):
        assert outcome.outcome == "survived" and outcome.predicted == example.label
        text = Text(example.text, THREAT, Neighbours())
        scripts: list[Script] = [
            (),
            *((Edit("replace", i, w),) for i in range(len(text.words)) for w in text.candidates(i)),
        ]
        logits = Victim(Letters()).logits([text.apply(script) for script in scripts])
        missed = evaluate.margins(logits, example.label)[logits.argmax(1) == example.label]
        assert outcome.margin == missed.max()
        assert text.allows(outcome.script)
        assert evaluate.margins(Victim(Letters()).logits([text.apply(outcome.script)]), example.label) == outcome.margin


# --- judging -----------------------------------------------------------------------------------------


def returning(script_of: Callable[[Any], Any]) -> Any:
    def story(sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Any]:
        yield Score([()])
        return script_of(sentence)

    return told(story)


def test_a_true_break_is_broken_with_its_logits() -> None:
    some = examples(40, wrong=0)
    broken = [o for o in run(Victim(Letters()), returning(first_break), some) if o.outcome == "broken"]
    assert len(broken) > 10
    by_id = {example.id: example for example in some}
    for outcome in broken:
        example = by_id[outcome.id]
        logits = Victim(Letters()).logits([Text(example.text, THREAT).apply(outcome.script)])
        assert outcome.predicted == logits[0].argmax() != example.label
        assert outcome.margin == evaluate.margins(logits, example.label)[0]
        assert outcome.words == len(example.text.split())


@pytest.mark.parametrize(
    ("script_of", "reason"),
    [
        (lambda sentence: (Edit("replace", 0, "zzz"),), "in none of synonyms"),
        (lambda sentence: (Edit("delete", 0),), "no change this threat allows"),
        (lambda sentence: (Edit("unknown", 0),), "no change this threat allows"),
        (lambda sentence: (Edit("replace", 99, "a"),), "malformed script: word 99"),
        (
            lambda sentence: tuple(Edit("replace", i, sentence.candidates(i)[0]) for i in range(len(sentence.words))),
            "words changed, at most",
        ),
        (lambda sentence: 7, "TypeError"),
        (lambda sentence: None, "TypeError"),
        (lambda sentence: ("replace", 0, "a"), "TypeError"),
    ],
)
def test_a_script_outside_its_threat_is_an_error_and_never_a_break(
    script_of: Callable[[Any], Any], reason: str
) -> None:
    outcomes = run(Victim(Letters()), returning(script_of), examples(20, wrong=0))
    assert {outcome.outcome for outcome in outcomes} == {"error"}
    assert all(reason in outcome.reason for outcome in outcomes)
    assert all(math.isnan(outcome.margin) and outcome.script == () for outcome in outcomes)


def test_a_false_claim_survives() -> None:
    """A legal script that is no break, handed in as one."""
    some = [example for example in examples(60, wrong=0) if not first_break(Text(example.text, THREAT, Neighbours()))]
    liar = returning(lambda sentence: (Edit("replace", 0, sentence.candidates(0)[0]),))
    assert some and {outcome.outcome for outcome in run(Victim(Letters()), liar, some)} == {"survived"}


def test_success_is_judged_on_the_joined_text() -> None:
    """A victim that answers edits one way and whole texts another is believed on whole texts alone."""

    class TwoFaced(Victim):
        def answer(self, asked: Any) -> list[np.ndarray]:
            return [-answer for answer in super().answer(asked)]

    some = examples(30, wrong=0)
    for outcome in run(TwoFaced(Letters()), Wandering(), some):
        assert outcome.outcome in ("broken", "survived")
        if outcome.outcome == "broken":
            example = next(example for example in some if example.id == outcome.id)
            text = Text(example.text, THREAT).apply(outcome.script)
            assert Victim(Letters()).logits([text])[0].argmax() != example.label


@pytest.mark.parametrize(
    ("error", "reason"), [(ZeroDivisionError("oops"), "ZeroDivisionError: oops"), (StopIteration(), "StopIteration")]
)
@pytest.mark.parametrize("late", [False, True])
def test_an_attack_that_raises_is_an_error_of_its_example_alone(error: Exception, reason: str, late: bool) -> None:
    def story(sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        if late:
            yield Score([()])
        if len(sentence.words) > 4:
            raise error
        return ()

    some = examples(30, wrong=0)
    for example, outcome in zip(some, run(Victim(Letters()), told(story), some), strict=True):
        expected = "error" if len(example.text.split()) > 4 else "survived"
        assert outcome.outcome == expected
        if expected == "error":
            assert reason in outcome.reason and outcome.queries == int(late)


@pytest.mark.parametrize("answer", [None, 3, "score", Edit("replace", 0, "a")])
def test_an_attack_that_yields_no_question_is_an_error(answer: Any) -> None:
    def story(sentence: Any, label: int, rng: random.Random) -> Generator[Any, Any, Script]:
        yield answer
        return ()

    (outcome,) = run(Victim(Letters()), told(story), examples(1, wrong=0))
    assert outcome.outcome == "error" and "not a Score or a Gain" in outcome.reason


def test_a_malformed_question_is_an_error() -> None:
    def story(sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        yield Score([(Edit("replace", 50, "a"),)])
        return ()

    (outcome,) = run(Victim(Letters()), told(story), examples(1, wrong=0))
    assert outcome.outcome == "error" and "malformed script: word 50" in outcome.reason


def test_what_only_the_user_can_set_right_ends_the_run() -> None:
    def story(sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        raise CouldNotMeasure("no tagger here")
        yield

    with pytest.raises(CouldNotMeasure, match="no tagger"):
        run(Victim(Letters()), told(story), examples(2, wrong=0))


def test_a_model_that_fails_on_one_text_fails_that_example() -> None:
    def lengths(texts: list[str]) -> Any:
        if any("!" in text for text in texts):
            raise RuntimeError("cannot read !")
        return [[len(text), 5.0] for text in texts]

    def story(sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        yield Score([(Edit("replace", 0, "bang!" if sentence.words[0] == "bad" else "fine"),)])
        return (Edit("replace", 0, "worse"),) if sentence.words[0] == "bad" else ()

    victim = CallableVictim(lengths, name="tests:lengths", classes=2)
    some = [Example("0", "good text", 0), Example("1", "bad text", 0), Example("2", "nice text", 0)]
    outcomes = run(victim, told(story, Threat(spaces=("characters",))), some)
    assert [outcome.outcome for outcome in outcomes] == ["survived", "error", "survived"]
    assert "cannot read !" in outcomes[1].reason


def test_a_model_that_fails_on_every_clean_text_has_nothing_but_errors() -> None:
    victim = CallableVictim(lambda texts: [[0.0, np.nan]] * len(texts), name="tests:nan", classes=2)
    outcomes = run(victim, Wandering(), [Example("0", "good", 0), Example("1", "fine", 1)])
    assert [outcome.outcome for outcome in outcomes] == ["error", "error"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_no_number_is_an_error_and_never_survival(bad: float) -> None:
    """On clean texts, and on every edited one: neither the gold class nor any other may win by it."""

    def sick(texts: list[str]) -> Any:
        return [[bad if "sick" in text else 1.0, bad if "ill" in text else 0.0] for text in texts]

    def story(sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        yield Score([(Edit("replace", 0, "ill" if sentence.words[0] == "well" else "fine"),)])
        return ()

    victim = CallableVictim(sick, name="tests:sick", classes=2)
    some = [Example(str(n), text, 0) for n, text in enumerate(["sick dog", "well dog", "old dog", "ill dog"] * 3)]
    outcomes = run(victim, told(story, Threat(spaces=("characters",))), some)
    assert [outcome.outcome for outcome in outcomes] == ["error", "error", "survived", "error"] * 3
    assert all("NaN or infinite" in o.reason for o in outcomes if o.outcome == "error")
    logits, reasons = answers(victim, [example.text for example in some])
    assert sorted(reasons) == [0, 3, 4, 7, 8, 11]
    assert np.isfinite(logits).all(1).tolist() == [False, True, True, False] * 3


def test_a_gradient_that_is_no_number_is_an_error_and_never_survival() -> None:
    class Broken:
        def gains(self, asked: Sequence[tuple[Text, Gain, int]]) -> list[np.ndarray]:
            raise MalformedInput("the float twin gives NaN or infinite gradients; check its weights")

    def story(sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        yield Gain((), [Edit("unknown", 0)])
        return ()

    outcomes = run(Victim(Letters(), Broken()), told(story), examples(4, wrong=0))
    assert {(o.outcome, o.reason.split(" gives")[0]) for o in outcomes} == {("error", "the float twin")}


def test_a_model_that_raises_on_some_clean_texts_fails_those_alone() -> None:
    asked: list[int] = []

    def picky(texts: list[str]) -> Any:
        asked.append(len(texts))
        if any("!" in text for text in texts):
            raise RuntimeError("cannot read !")
        return [[1.0, 0.0]] * len(texts)

    texts = [f"text {n}{'!' * (n == 40)}" for n in range(64)]
    logits, reasons = answers(CallableVictim(picky, name="tests:picky", classes=2), texts)
    assert reasons == {40: "the model raised RuntimeError: cannot read !"} and len(asked) <= 2 * 6 + 1
    assert np.isnan(logits[40]).all() and np.isfinite(np.delete(logits, 40, 0)).all()
    assert answers(CallableVictim(picky, name="tests:picky", classes=2), [])[0].shape == (0, 2)


def test_labels_outside_the_model_are_refused() -> None:
    with pytest.raises(MalformedInput, match="example 7 has label 3, the model has 3 classes"):
        run(Victim(Letters()), Wandering(), [Example("7", "a b", 3)])


def test_a_budget_of_nothing_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="max_queries=0"):
        run(Victim(Letters()), Wandering(replace(THREAT, max_queries=0)), examples(1))


def test_a_tie_goes_to_the_first_class_before_and_after() -> None:
    """argmax decides, so a margin of zero is a break where the other class comes first, and none where it does not."""
    victim = CallableVictim(lambda texts: [[float("x" in text)] * 2 for text in texts], name="tests:tie", classes=2)
    tie = told(lambda sentence, label, rng: iter(()))
    outcomes = run(victim, tie, [Example("0", "x", 0), Example("1", "x", 1)])
    assert [outcome.outcome for outcome in outcomes] == ["error", "skipped"]  # the first was attacked


# --- the journal -------------------------------------------------------------------------------------


def test_a_journal_goes_on_where_it_stopped(tmp_path: Path) -> None:
    some = examples(50)
    journal = tmp_path / "runs" / "journal.jsonl"
    expected = run(Victim(Letters()), Wandering(), some)
    assert run(Victim(Letters()), Wandering(), some, journal=journal) == expected
    whole = journal.read_bytes()
    artefact = Letters()
    assert run(Victim(artefact), Wandering(), some, journal=journal) == expected
    assert artefact.batches == [] and journal.read_bytes() == whole
    assert b" " + some[0].text.encode() not in whole  # no text of anyone's dataset


@settings(max_examples=25)
@given(cut=st.integers(0, 10**6))
def test_a_journal_cut_at_any_byte_ends_in_the_same_outcomes(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    journal = tmp_path_factory.mktemp("cut") / "journal.jsonl"
    some = examples(5)
    expected = run(Victim(Letters()), Wandering(), some, journal=journal, window=3)
    whole = journal.read_bytes()
    journal.write_bytes(whole[: cut % (len(whole) + 1)])
    assert run(Victim(Letters()), Wandering(), some, journal=journal) == expected
    assert sorted(journal.read_bytes().splitlines()[1:]) == sorted(whole.splitlines()[1:])


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"name": "other"},
        {"stop_words": frozenset({"a"})},
        {"vocabulary": ("a",)},
        {"attack": Wandering(replace(THREAT, max_queries=61))},
        {"some": examples(11)},
    ],
    ids=str,
)
def test_a_journal_of_another_run_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    given = {"attack": Wandering(), "some": examples(10)}
    run(Victim(Letters()), given["attack"], given["some"], journal=journal)
    given = {key: change.pop(key, value) for key, value in given.items()}
    with pytest.raises(UsageError, match="belongs to another run"):
        run(Victim(Letters()), given["attack"], given["some"], journal=journal, **change)


@pytest.mark.parametrize("damage", [b"{not json}\n", b"[]\n", b'{"place": 0}\n', b'{"place": 99, "id": "x"}\n'])
def test_a_damaged_journal_is_refused(damage: bytes, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    run(Victim(Letters()), Wandering(), examples(5), journal=journal)
    journal.write_bytes(journal.read_bytes() + damage)
    with pytest.raises(MalformedInput, match="is damaged"):
        run(Victim(Letters()), Wandering(), examples(5), journal=journal)


def test_a_journal_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError, match="choose a folder that can be written"):
        run(Victim(Letters()), Wandering(), examples(2), journal=blocked / "journal.jsonl")


class FullDisk(io.BytesIO):
    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "open", lambda path, mode: FullDisk())
    with pytest.raises(StorageError, match="No space left on device; what it holds is kept"):
        run(Victim(Letters()), Wandering(), examples(2), journal=tmp_path / "journal.jsonl")


def test_errors_and_their_missing_margins_survive_a_round_trip(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    liar = returning(lambda sentence: (Edit("delete", 0),))
    first = run(Victim(Letters()), liar, examples(5), journal=journal)
    again = run(Victim(Letters()), liar, examples(5), journal=journal)
    assert repr(again) == repr(first) and any(math.isnan(outcome.margin) for outcome in again)
    json.loads(journal.read_text().splitlines()[1], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


_CHILD = """
import runpy, sys, time
from pathlib import Path
here = runpy.run_path({file!r})
letters = here["Letters"]()
plain = letters.logits
letters.logits = lambda rows, lengths: (time.sleep(0.002), plain(rows, lengths))[1]
given = dict(journal=Path({journal!r}), window=4)
outcomes = here["run"](here["Victim"](letters), here["Wandering"](), here["examples"](120), **given)
print(repr(outcomes))
"""


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """A real process, a real kill -9, at moments spread over its work; what it left is neither lost nor doubled."""
    journal = tmp_path / "journal.jsonl"
    expected = run(Victim(Letters()), Wandering(), examples(120))
    child = [sys.executable, "-c", _CHILD.format(file=__file__, journal=str(journal))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    sizes = [0]
    for _ in range(3):
        process = subprocess.Popen(child, env=environment, stdout=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if journal.exists() and journal.stat().st_size > sizes[-1] + 2500:
                break
            time.sleep(0.005)
        assert process.poll() is None, "the child ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        sizes.append(journal.stat().st_size)
    assert sizes == sorted(set(sizes))
    last = subprocess.run(child, env=environment, capture_output=True, check=True, text=True)
    assert last.stdout.strip() == repr(expected)
    places = [json.loads(line)["place"] for line in journal.read_text().splitlines()[1:]]
    assert sorted(places) == list(range(120))


# --- what the next attack is run on ----------------------------------------------------------------------


def outcome(number: int, kind: str) -> Outcome:
    return Outcome(str(number), kind)  # type: ignore[arg-type]


def test_the_next_attack_is_run_on_what_still_stands() -> None:
    first = [outcome(0, "broken"), outcome(1, "survived"), outcome(2, "error"), outcome(3, "skipped")]
    second = [outcome(1, "survived"), outcome(2, "broken")]
    some = [Example(str(number), "a", 0) for number in range(5)]
    assert [example.id for example in standing(some, [])] == ["0", "1", "2", "3", "4"]
    assert [example.id for example in standing(some, [first])] == ["1", "2", "4"]
    assert [example.id for example in standing(some, [first, second])] == ["1", "4"]


@given(
    st.lists(st.lists(st.sampled_from(["broken", "survived", "error"]), min_size=5, max_size=5), min_size=1, max_size=4)
)
def test_more_attacks_never_leave_more_standing(kinds: list[list[str]]) -> None:
    attacks = [[outcome(number, kind) for number, kind in enumerate(row)] for row in kinds]
    some = [Example(str(number), "a", 0) for number in range(5)]
    left = [{example.id for example in standing(some, attacks[:count])} for count in range(len(attacks) + 1)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(left))


def test_the_header_of_a_journal_is_a_digest(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    run(Victim(Letters()), Wandering(), examples(2), journal=journal)
    header = json.loads(journal.read_text().splitlines()[0])
    assert header["attack"] == "test" and len(header["key"]) == len(hashlib.sha256().hexdigest())
