"""Checks of the attacks: a strong search passes every one of them, and each kind of weak one fails at its own."""

from __future__ import annotations

import random
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest

from grit.bench import adequacy, leaderboard, records, registry
from grit.bench.adequacy import Scaled, Trial
from grit.bench.evaluate import attack_all, margins
from grit.bench.records import CheckPart, Clean, Evidence
from grit.bench.sentence import Text, composed
from grit.bench.text import tokenize
from grit.bench.types import Edit, Example, Gain, Outcome, Question, Score, Script, Threat
from grit.bench.victim import CallableVictim, Victim

sys.path.append(str(Path(__file__).parent))

from made_rows import row_of

# --- a naturally trained model, as far as an attack can tell: words speak for classes ---------------------


@lru_cache
def vocabulary() -> tuple[str, ...]:
    rng = random.Random(7)
    return tuple(dict.fromkeys("".join(rng.choice("bdkmst") + rng.choice("aeo") for _ in range(2)) for _ in range(150)))


class Speaking:
    """logits = sum of the whole-number weights of the words: exact, and linear."""

    separable = True
    exact = True
    classes = 3
    max_tokens = 40
    digest = "speaking"
    sizes_bytes: ClassVar[dict[str, int]] = {"rows": 1}

    def __init__(self, seed: int = 0) -> None:
        self.weights = np.random.default_rng(seed).integers(-5, 6, (len(vocabulary()) + 1, self.classes)).astype(float)
        self.weights[0] = 0
        self.rows = {word: row for row, word in enumerate(vocabulary(), 1)}

    def tokenize(self, text: str) -> list[str]:
        return tokenize(text)

    def intern(self, tokens: Sequence[str]) -> np.ndarray:
        return np.array([self.rows.get(token, 0) for token in tokens], np.int32)

    def token(self, row: int) -> str:
        return vocabulary()[row - 1] if row else ""

    def logits(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        real = np.arange(rows.shape[1]) < lengths[:, None]
        return (self.weights[np.where(real, rows, 0)] * real[:, :, None]).sum(1)


class Rises:
    """The gains of that victim, exact since it is linear; ``sign`` -1 points them the wrong way."""

    def __init__(self, sign: float = 1.0) -> None:
        self.victim = Victim(Speaking())
        self.sign = sign

    def gains(self, asked: Sequence[tuple[Text, Gain, int]]) -> list[np.ndarray]:
        found = []
        for sentence, gain, label in asked:
            scripts = [gain.base, *(composed(gain.base, edit) for edit in gain.edits)]
            (logits,) = self.victim.answer([self.victim.open(sentence).ask(scripts)])
            rises = margins(logits, label)
            found.append(self.sign * (rises[1:] - rises[0]))
        return found


def examples(count: int = 40, words: int = 10) -> list[Example]:
    rng = random.Random(3)
    texts = [" ".join(rng.choice(vocabulary()) for _ in range(words)) for _ in range(count)]
    labels = Victim(Speaking()).logits(texts).argmax(1).tolist()
    return [Example(f"{n:04d}", text, label) for n, (text, label) in enumerate(zip(texts, labels, strict=True))]


def strong(key: str = "deepwordbug", queries: int = 600, **threat: Any) -> Any:
    attack: Any = registry.attack(key)
    spaces = ("typos",)
    return replace(attack, threat=replace(attack.threat, spaces=spaces, max_queries=queries, **threat))


def trial(victim: Any, some: Sequence[Example], attacks: dict[str, Any]) -> Trial:
    outcomes = {name: attack_all(victim, attack, some, seed=0, name=name) for name, attack in attacks.items()}
    return Trial(victim, attacks, some, outcomes, 0)


def flagged(checks: Sequence[CheckPart]) -> dict[str, str]:
    """The flags of a row with these checks and nothing else to say."""
    label = records.DataPart(
        name="d",
        revision="0" * 64,
        split="test",
        n=1000,
        selection="all",
        labels=("a", "b"),
        label_counts=(500, 500),
    )
    clean = records.CleanPart(k=900, n=1000, predicted=(500, 500), evidence_sha256="0" * 64)
    return {flag.name: flag.reason for flag in records.flags(label, clean, (), embedded=False, checks=checks)}


@dataclass(frozen=True)
class Told:
    """An attack of a test's own; ``story`` names it below."""

    story: str = ""
    threat: Threat = Threat(spaces=("typos",), max_queries=600)
    tier: str = "strong"
    tiers: ClassVar[dict[str, dict[str, Any]]] = {"strong": {}}

    def attack(self, sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        return STORIES[self.story](sentence, label, self.threat.max_queries)


Story = Generator[Question, np.ndarray, Script]


def lazy(sentence: Any, label: int, budget: int) -> Story:
    """It looks at one candidate and gives up."""
    yield Score([(Edit("replace", 0, sentence.candidates(0)[0]),)])
    return ()


def fooled(sentence: Any, label: int, budget: int) -> Story:
    """It follows probabilities, in single precision as tools do, which saturate."""
    best: Script = ()
    for index in range(len(sentence.words)):
        scripts: list[Script] = [(Edit("replace", index, word),) for word in sentence.candidates(index)[:20]]
        logits = yield Score(scripts)
        powers = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float32))
        gold = powers[:, label] / powers.sum(axis=1)
        if (logits.argmax(1) != label).any() and gold.min() < 0.5:
            return scripts[int(gold.argmin())]
        if gold.min() < np.float32(0.999):
            best = scripts[int(gold.argmin())]
    return best


def perverse(sentence: Any, label: int, budget: int) -> Story:
    """With a small budget it searches, with a large one it does not."""
    if budget > 100:
        return ()
    scripts: list[Script] = [
        (Edit("replace", i, w),) for i in range(len(sentence.words)) for w in sentence.candidates(i)
    ]
    logits = yield Score(scripts[:budget])
    wrong = np.flatnonzero(logits.argmax(1) != label)
    return scripts[wrong[0]] if len(wrong) else ()


STORIES = {"lazy": lazy, "fooled": fooled, "perverse": perverse}


def made(check: str, found: Sequence[CheckPart], **of: str) -> CheckPart:
    (part,) = [
        each for each in found if each.check == check and all(getattr(each, key) == value for key, value in of.items())
    ]
    return part


# --- what a strong search passes ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound() -> tuple[CheckPart, ...]:
    some = examples()
    victim = Victim(Speaking(), Rises())
    return adequacy.checks(trial(victim, some, {"black": strong(), "white": strong("hotflip")}))


def test_strong_attacks_raise_no_flag(sound: tuple[CheckPart, ...]) -> None:
    assert flagged(sound) == {}
    assert {part.check for part in sound} == {"scale", "budget", "control", "box", "unbounded"}


def test_strong_attacks_do_not_see_the_scale(sound: tuple[CheckPart, ...]) -> None:
    for name in ("black", "white"):
        part = made("scale", sound, attack=name)
        assert (part.k, part.n, part.lost) == (adequacy.SCALED, adequacy.SCALED, 0)


def test_without_bounds_nothing_withstands(sound: tuple[CheckPart, ...]) -> None:
    part = made("unbounded", sound)
    assert (part.k, part.n) == (adequacy.UNBOUNDED, adequacy.UNBOUNDED)


def test_guided_search_beats_random_and_white_beats_black(sound: tuple[CheckPart, ...]) -> None:
    for name in ("black", "white"):
        part = made("control", sound, attack=name)
        assert part.lost <= part.won and part.against == f"random_search as {name}"
    part = made("box", sound)
    assert (part.attack, part.against) == ("white", "black") and part.lost <= part.won


@pytest.mark.parametrize("key", ["pwws", "hotflip", "relax"])
def test_where_everything_can_be_tried_strong_searches_find_every_break(key: str) -> None:
    some, victim = examples(400, words=6), Victim(Speaking(), Rises())
    surest = sorted(some, key=lambda each: float(margins(victim.logits([each.text]), each.label)[0]))[:40]
    closed = adequacy.Closed(Trial(victim, {}, some, {}, 0), surest)
    (part,) = closed.oracle(key, registry.attack(f"{key}+thesaurus"))
    assert (part.check, part.attack, part.n, part.lost) == ("oracle", key, 40, 0)
    assert 10 < part.k < 40  # not all can be broken
    assert closed.oracle("typos", strong()) == []


def test_brute_force_tries_each_script_once() -> None:
    text = Text("one two three four five six", Threat(max_words=0.5), adequacy.Drawn(vocabulary()))
    scripts = adequacy.every(text)
    assert len(scripts) == len(set(scripts)) == 6 * 5 + 15 * 5**2 + 20 * 5**3
    assert all(map(text.allows, scripts))


def test_the_same_trial_gives_the_same_checks(sound: tuple[CheckPart, ...]) -> None:
    some = examples()
    again = trial(Victim(Speaking(), Rises(), rows=7), some, {"black": strong(), "white": strong("hotflip")})
    shuffled = Trial(again.victim, again.attacks, some[::-1], {k: v[::-1] for k, v in again.outcomes.items()}, 0)
    assert adequacy.checks(shuffled) == sound


# --- what weak ones fail at -----------------------------------------------------------------------------


def weak(story: str) -> tuple[CheckPart, ...]:
    return adequacy.checks(trial(Victim(Speaking()), examples(140), {"told": Told(story)}))


def test_a_lazy_search_loses_to_random() -> None:
    found = weak("lazy")
    assert "alone" in flagged(found)["weak"] and set(flagged(found)) == {"weak"}


def test_a_lazy_search_misses_what_brute_force_finds() -> None:
    told = Told("lazy", threat=Threat(max_queries=600, lexicon="thesaurus"))
    assert "breaks" in flagged(adequacy.checks(trial(Victim(Speaking()), examples(), {"told": told})))["oracle"]


def test_a_search_by_probabilities_is_found_out_by_the_scale() -> None:
    assert "took another course" in flagged(weak("fooled"))["scale"]


def test_a_search_that_wastes_its_budget_is_found_out() -> None:
    assert "only with a tenth" in flagged(weak("perverse"))["budget"]


def test_gradients_that_point_the_wrong_way_are_found_out() -> None:
    """Masked gradients: the white box loses to the black one, and to random search."""
    queries = 40  # a budget that blind order cannot make up for
    victim = Victim(Speaking(), Rises(-1.0))
    attacks = {"black": strong(queries=queries), "white": strong("hotflip", queries=queries)}
    found = adequacy.checks(Trial(victim, attacks, examples(600), {"black": (), "white": ()}, 0))
    part = made("box", found)
    assert part.lost > part.won and "weak" in flagged([part])


@pytest.mark.parametrize("masked", ["deaf", "rounded"])
def test_a_model_that_masks_its_answers_withstands_even_without_bounds(masked: str) -> None:
    inner = Victim(Speaking())

    def function(texts: list[str]) -> Any:
        if masked == "deaf":  # one label whatever is said
            return np.tile([0.0, 1.0, 0.0], (len(texts), 1))
        winner = inner.logits([" ".join(text.split()[:2]) for text in texts]).argmax(1)
        return np.eye(3)[np.where([len(text.split()) == 10 for text in texts], 1, winner)]

    victim = CallableVictim(function, name="tests:masked", classes=3)
    some = [replace(example, label=1) for example in examples(30)]
    found = adequacy.checks(trial(victim, some, {"black": strong(queries=100)}))
    assert flagged(found).keys() >= {"unbounded"}


def test_the_canary_of_over_confidence_fools_the_stock_objective_and_no_strong_one() -> None:
    """Logits times 1,000 change no prediction. Softmax saturates, and an attack that follows it sees nothing move."""
    some = examples(40)
    stock = replace(registry.attack("deepwordbug.textattack"), threat=Threat(spaces=("characters",), max_words=0.5))  # type: ignore[type-var]  # a dataclass by contract
    robust = {
        (name, scale): sum(
            outcome.outcome == "survived"
            for outcome in attack_all(Scaled(Victim(Speaking()), scale), attack, some, seed=0, name=name)
        )
        for name, attack in (("stock", stock), ("strong", strong(queries=2000, max_words=0.5)))
        for scale in (0.01, 1e3)
    }
    assert robust["stock", 1e3] > robust["stock", 0.01] + 3
    assert robust["strong", 1e3] == robust["strong", 0.01] <= robust["stock", 0.01]


# --- how it is done --------------------------------------------------------------------------------------


def test_a_louder_victim_predicts_what_it_predicted() -> None:
    victim = Victim(Speaking(), Rises())
    loud = Scaled(victim, 1e3)
    some = examples(5)
    texts = [example.text for example in some]
    assert (loud.logits(texts) == 1e3 * victim.logits(texts)).all() and loud.has_gradients and not loud.crowded
    text = Text(texts[0], Threat(spaces=("typos",)))
    gain = Gain((), [Edit("replace", 0, "xx")])
    assert loud.gains([(loud.open(text), gain, 0)])[0] == 1e3 * victim.gains([(victim.open(text), gain, 0)])[0]
    assert loud.digest != victim.digest
    loud.forget()


def test_attacks_that_saw_only_what_still_stood_are_completed_on_the_sample() -> None:
    some = examples()
    victim = Victim(Speaking())
    full = trial(victim, some, {"a": strong(), "b": strong("pwws")})
    broken = {outcome.id for outcome in full.outcomes["a"] if outcome.outcome == "broken"}
    left = {**full.outcomes, "b": [outcome for outcome in full.outcomes["b"] if outcome.id not in broken]}
    assert broken
    assert adequacy.checks(replace(full, outcomes=left)) == adequacy.checks(full)


def test_the_sample_is_of_what_was_right_and_of_no_order() -> None:
    some = examples(400)
    outcomes = {"a": [Outcome(e.id, "skipped" if n % 2 else "survived") for n, e in enumerate(some)]}
    chosen = adequacy.sample(some, outcomes)
    assert len(chosen) == 20 and all(int(example.id) % 2 == 0 for example in chosen)
    assert adequacy.sample(some[::-1], outcomes) == chosen
    sizes = {count: len(adequacy.sample(some[:count], {})) for count in (0, 1, 12, 40, 200, 400)}
    assert sizes == {0: 0, 1: 1, 12: 3, 40: 10, 200: 10, 400: 20}


def test_recipes_of_other_tools_are_left_alone() -> None:
    @dataclass(frozen=True)
    class Recipe(Told):
        recipe: str = "other"

    some = examples(12)
    survived = {"other": [Outcome(example.id, "survived") for example in some]}
    found = adequacy.checks(Trial(Victim(Speaking()), {"other": Recipe()}, some, survived, 0))
    assert {part.check for part in found} == {"unbounded"}


def test_a_threat_lies_within_another_if_it_allows_nothing_more() -> None:
    small, large = Threat(spaces=("typos",)), Threat(spaces=("synonyms", "typos"))
    assert adequacy.within(small, large) and adequacy.within(small, small) and not adequacy.within(large, small)
    for change in (
        {"max_words": 0.5},
        {"typo_distance": 3},
        {"max_queries": 9999},
        {"lexicon": "other"},
        {"protect_stop_words": False},
    ):
        assert not adequacy.within(replace(small, **change), large)  # type: ignore[arg-type]


def test_telling_words_speak_for_each_class() -> None:
    victim = Victim(Speaking())
    words = adequacy.telling(victim, examples(60))
    logits = victim.logits(words)
    assert set(logits.argmax(1)) == {0, 1, 2} and set(words) <= set(vocabulary())


# --- beside other rows -----------------------------------------------------------------------------------


def evidence(some: Sequence[Example], scripts: dict[str, Script]) -> Evidence:
    """One attack that broke the examples that have a script."""
    clean = tuple(Clean(id=e.id, label=e.label, predicted=e.label, margin=-1.0) for e in some)
    outcomes = tuple(
        Outcome(e.id, "broken", scripts[e.id], 0) if e.id in scripts else Outcome(e.id, "survived") for e in some
    )
    return Evidence(clean, {"a": outcomes})


def test_breaks_of_other_rows_are_tried_on_what_withstood() -> None:
    some = examples(20)
    victim = Victim(Speaking())
    outcomes = attack_all(victim, strong(), some, seed=0, name="a")
    scripts = {outcome.id: outcome.script for outcome in outcomes if outcome.outcome == "broken"}
    missed = sorted(scripts)[:3]
    here = evidence(some, {id: script for id, script in scripts.items() if id not in missed})
    others = adequacy.pool([evidence(some, scripts), evidence(some, {})])
    part = adequacy.transfer(victim, some, here, others)
    assert (part.lost, part.k, part.n) == (3, len(some) - len(scripts), 20)
    assert "fell to breaks of other rows" in flagged([part])["transfer"]
    assert adequacy.transfer(victim, some, here, {}).lost == 0
    harmless = {example.id: ((Edit("replace", 0, example.text.split()[0] + "x"),),) for example in some[:1]}
    assert adequacy.transfer(victim, some[:1], evidence(some[:1], {}), harmless).n == 1


@pytest.mark.parametrize(("stronger", "raised"), [(12, True), (2, False)])
def test_a_canary_that_sings_louder_than_nature_is_flagged(stronger: int, raised: bool) -> None:
    some = examples(30)
    broken = {example.id: (Edit("replace", 0, "x"),) for example in some}
    natural = evidence(some, {id: broken[id] for id in sorted(broken)[:20]})
    canary = evidence(some, {id: broken[id] for id in sorted(broken)[: 20 - stronger]})
    part = adequacy.canary(canary, natural)
    assert (part.k, part.won, part.lost) == (10 + stronger, stronger, 0)
    assert ("canary" in flagged([part])) == raised
    assert "canary" not in flagged([adequacy.canary(natural, canary)])


# --- what the counts mean ---------------------------------------------------------------------------------


def test_the_board_shows_random_search_and_the_pool_beside_the_suite() -> None:
    """The control in the widest space, and a pool with its date; rows without checks have no such columns."""
    found = (
        CheckPart(check="control", attack="pwws", against="random_search as pwws", k=30, n=50),
        CheckPart(check="control", attack="hotflip", against="random_search as hotflip", k=21, n=50),
        CheckPart(check="transfer", k=380, n=1000, lost=20),
    )
    row, plain = row_of(), row_of("prado")
    row = row._replace(record=msgspec.structs.replace(row.record, checks=found))
    (section,) = leaderboard.board([row, plain])
    cells = {line.model: leaderboard.cells(line) for line in section.lines}
    assert (cells["student"]["random_k"], cells["student"]["random_n"], cells["student"]["pool_k"]) == (21, 50, 380)
    assert "random_k" not in cells["prado"]
    columns = leaderboard.columns(section)
    shown = {line.model: (columns["random"].cell(line), columns["pool"].cell(line)) for line in section.lines}
    assert shown == {"student": ("42.0", "38.0"), "prado": ("-", "-")}
    notes = " ".join(leaderboard.notes(section))
    assert "Random: of 50 examples" in notes and "as of 2026-01-01; not ranked" in notes
    (section,) = leaderboard.board([plain])
    assert not {"random", "pool"} & set(leaderboard.columns(section))


@pytest.mark.parametrize(
    ("part", "flag"),
    [
        (CheckPart(check="scale", attack="a", k=4, n=5, lost=1), "scale"),
        (CheckPart(check="scale", attack="a", k=5, n=5), None),
        (CheckPart(check="unbounded", attack="a", k=9, n=10, lost=1), None),
        (CheckPart(check="unbounded", attack="a", k=8, n=10, lost=2), "unbounded"),
        (CheckPart(check="oracle", attack="a", k=1, n=10, lost=1), None),
        (CheckPart(check="oracle", attack="a", k=38, n=50, lost=2), None),
        (CheckPart(check="oracle", attack="a", k=37, n=50, lost=2), "oracle"),
        (CheckPart(check="budget", attack="a", k=8, n=10, lost=2, won=1), "budget"),
        (CheckPart(check="budget", attack="a", k=8, n=10, lost=1, won=1), None),
        (CheckPart(check="control", attack="a", against="b", k=4, n=20, lost=6, won=0), "weak"),
        (CheckPart(check="control", attack="a", against="b", k=4, n=20, lost=5, won=0), None),
        (CheckPart(check="box", attack="a", against="b", k=4, n=20, lost=0, won=9), None),
        (CheckPart(check="transfer", k=94, n=200, lost=6), "transfer"),
        (CheckPart(check="transfer", k=95, n=200, lost=5), None),
        (CheckPart(check="transfer", k=0, n=200), None),
    ],
)
def test_counts_raise_flags(part: CheckPart, flag: str | None) -> None:
    assert set(flagged([part])) == ({flag} if flag else set())


def test_several_checks_of_one_flag_are_named_in_one_reason() -> None:
    parts = [CheckPart(check="scale", attack=name, k=4, n=5, lost=1) for name in ("a", "b")]
    assert flagged(parts)["scale"] == "a: 1 of 5 took another course; b: 1 of 5 took another course"


def test_a_check_cannot_count_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="counts above n=5"):
        CheckPart(check="scale", k=2, n=5, lost=6)


def test_the_page_of_flags_is_made_from_them(root: Any) -> None:
    assert (root / "leaderboards" / "FLAGS.md").read_text(encoding="utf-8") == records.flags_page()
    assert {"scale", "unbounded", "oracle", "weak", "budget", "transfer", "canary"} <= set(records.FLAGS)
