"""The attacks are as strong as brute force where that can be tried, blind to the scale of logits, and repeatable."""

from __future__ import annotations

import inspect
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from string import ascii_letters
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grit.attacks import _textattack
from grit.attacks._search import Search, extended
from grit.attacks.deepwordbug import DeepWordBug
from grit.attacks.hotflip import HotFlip
from grit.attacks.pwws import Pwws
from grit.attacks.random_search import RandomSearch
from grit.attacks.relax import Relax, _capped, _simplex
from grit.bench import registry
from grit.bench.evaluate import attack_all, margins
from grit.bench.sentence import Text, levenshtein, typos, words_of
from grit.bench.text import tokenize
from grit.bench.twin import Twin
from grit.bench.types import Edit, Example, Gain, Outcome, Question, Reading, Score, Script, Threat
from grit.bench.victim import CallableVictim, Victim

STOP_WORDS = frozenset({"the", "of"})

# --- victims ----------------------------------------------------------------------------------------


@lru_cache
def vocabulary(size: int = 240) -> tuple[str, ...]:
    """Made-up words, one letter of some within one letter of others, so that typos now and then hit a word."""
    rng = random.Random(7)
    found: dict[str, None] = {}
    while len(found) < size:
        found["".join(rng.choice("bdkmst") + rng.choice("aeo") for _ in range(rng.randint(2, 3)))] = None
    return tuple(found)


class Net:
    """logits = scale * (relu(bag @ first) @ second + bag @ skip), over whole numbers: the same in every batch.

    ``bend`` 0 leaves the linear part alone.
    """

    separable = True
    exact = True
    max_tokens = 40
    sizes_bytes: ClassVar[dict[str, int]] = {"rows": 1}

    def __init__(self, classes: int = 3, bend: int = 1, scale: float = 1.0, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        width, hidden = 6, 12
        self.classes = classes
        self.digest = f"net {classes} {bend} {scale} {seed}"
        self.table = rng.integers(-4, 5, (len(vocabulary()) + 1, width)).astype(float)
        self.first = rng.integers(-3, 4, (width, hidden)).astype(float)
        self.second = bend * rng.integers(-3, 4, (hidden, classes)).astype(float)
        self.skip = rng.integers(-9, 10, (width, classes)).astype(float)
        self.scale = scale
        self.rows = {word: row for row, word in enumerate(vocabulary(), 1)}

    def tokenize(self, text: str) -> list[str]:
        return tokenize(text)

    def intern(self, tokens: Sequence[str]) -> np.ndarray:
        return np.array([self.rows.get(token, 0) for token in tokens], np.int32)

    def token(self, row: int) -> str:
        return vocabulary()[row - 1] if row else ""

    def logits(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        real = np.arange(rows.shape[1]) < lengths[:, None]
        bag = (self.table[np.where(real, rows, 0)] * real[:, :, None]).sum(1)
        return (np.maximum(bag @ self.first, 0) @ self.second + bag @ self.skip) * self.scale


class TorchNet(torch.nn.Module):
    """The float twin of a :class:`Net`."""

    separable = True
    vocabulary: ClassVar[tuple[str, ...]] = ()

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        self.max_tokens = net.max_tokens
        for name in ("table", "first", "second", "skip"):
            setattr(self, name, torch.nn.Parameter(torch.from_numpy(getattr(net, name))))

    def tokenize(self, text: str) -> list[str]:
        return tokenize(text)

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        return self.net.intern(tokens).astype(np.int64)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(codes, self.table)

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        real = torch.arange(features.shape[1]) < lengths[:, None]
        return Reading(features, torch.where(real[:, :, None], features, 0.0).sum(1))

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return ((state @ self.first).relu() @ self.second + state @ self.skip) * self.net.scale


def victim_of(net: Net, rows: int = 512) -> Victim:
    return Victim(net, Twin(TorchNet(net)), rows=rows)  # type: ignore[arg-type]


class Table:
    """One to five made-up synonyms a word."""

    name = "table"
    digest = "table"

    def __init__(self, most: int = 5) -> None:
        rng = random.Random(3)
        self.entries = {word: tuple(rng.sample(vocabulary(), rng.randint(1, most))) for word in vocabulary()}

    def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
        return tuple(other for other in self.entries.get(word.lower(), ()) if other != word)


def examples(net: Net, count: int, words: tuple[int, int], seed: int = 0) -> list[Example]:
    """Texts that the net is right about, the surest of twice as many, with stop words and punctuation among them."""
    rng = random.Random(seed)
    texts = []
    for _ in range(2 * count):
        chosen = [rng.choice(vocabulary()) for _ in range(rng.randint(*words))]
        if len(chosen) > 6:
            chosen[3] = "the"
            chosen[5] += ","
            chosen[0] = chosen[0].capitalize()
        texts.append(" ".join(chosen))
    logits = Victim(net).logits(texts)
    sorted_logits = np.sort(logits, axis=1)
    surest = np.argsort(sorted_logits[:, -2] - sorted_logits[:, -1], kind="stable")[:count].tolist()
    return [Example(f"{n:04d}", texts[n], int(logits[n].argmax())) for n in surest]


def run(victim: Any, attack: Any, some: Sequence[Example], **options: Any) -> list[Outcome]:
    given: dict[str, Any] = {"seed": 0, "lexicon": Table(), "stop_words": STOP_WORDS}
    return attack_all(victim, attack, some, **{**given, **options})


def kinds(outcomes: Sequence[Outcome]) -> Counter[str]:
    return Counter(outcome.outcome for outcome in outcomes)


STRONG = (Pwws(), DeepWordBug(), HotFlip(), Relax(restarts=4))
EVERY = [  # but two of HotFlip, which need word vectors and a tagger
    cls(**fields)
    for cls in (Pwws, DeepWordBug, HotFlip, Relax, RandomSearch)
    for tier, fields in cls.tiers.items()
    if (cls, tier) not in ((HotFlip, "words"), (HotFlip, "textattack"))
]


def name_of(attack: Any) -> str:
    return f"{type(attack).__name__}.{attack.tier}"


# --- the oracle ---------------------------------------------------------------------------------------


def optimum(net: Net, text: Text, label: int) -> tuple[bool, float]:
    """By brute force over every legal script of enumerable candidates: can it break, and the largest margin.

    Candidates that read alike are tried once.
    """
    tokens = tokenize(text.text)
    base = net.intern(tokens)
    choices: list[list[tuple[int, int]]] = []  # a word: (its place, a row it can be made to read as)
    for index, word in enumerate(text.words):
        place = tokens.index(word.lower())
        read = set(net.intern([candidate.lower() for candidate in text.candidates(index)]).tolist())
        choices.append([(place, row) for row in sorted(read - {int(base[place])})])
    rows = [base]
    for count in range(1, text.max_edits + 1):
        for sites in itertools.combinations(choices, count):
            for chosen in itertools.product(*sites):
                row = base.copy()
                for place, new in chosen:
                    row[place] = new
                rows.append(row)
    logits = net.logits(np.array(rows), np.full(len(rows), len(base)))
    return bool((logits.argmax(1) != label).any()), float(margins(logits, label).max())


@pytest.mark.parametrize("bend", [0, 1], ids=["linear", "bent"])
@pytest.mark.parametrize("attack", STRONG, ids=name_of)
def test_strong_tiers_reach_the_optimum_of_brute_force(attack: Any, bend: int) -> None:
    """At most six words, five candidates each, half of the words: 95 % of what can be broken is, and on linear all."""
    net = Net(bend=bend, seed=bend)
    attack = replace(attack, threat=replace(attack.threat, max_words=0.5))
    lexicon = Table(2 if isinstance(attack, HotFlip | Relax) else 5)  # its space holds the typos too
    distinct = {example.text: example for example in examples(net, 70, (3, 6), seed=1)}
    some = [e for e in distinct.values() if len(set(e.text.lower().split())) == len(e.text.split())]
    outcomes = run(victim_of(net), attack, some, lexicon=lexicon)
    reached, missed, worse = 0, 0, 0
    for example, outcome in zip(some, outcomes, strict=True):
        text = Text(example.text, attack.threat, lexicon, stop_words=STOP_WORDS)
        breakable, margin = optimum(net, text, example.label)
        if outcome.outcome == "broken":
            reached += 1  # DeepWordBug's second edits can break what single ones cannot
        elif breakable:
            missed += 1
        elif outcome.margin < margin:
            worse += 1
    assert 15 < reached < len(some) - 2
    assert missed <= (0.05 * (reached + missed) if bend else 0)
    assert worse <= 0.1 * len(some)


# --- laws ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", STRONG, ids=name_of)
@pytest.mark.parametrize("scale", [0.1, 10, 100])
def test_strong_tiers_do_not_see_the_scale_of_logits(attack: Any, scale: float) -> None:
    plain, scaled = Net(seed=4), Net(seed=4, scale=scale)
    some = examples(plain, 15, (6, 14))
    attack = replace(attack, threat=replace(attack.threat, max_queries=1500, max_words=0.15))
    before, after = run(victim_of(plain), attack, some), run(victim_of(scaled), attack, some)
    assert len(kinds(before)) == 2
    for a, b in zip(before, after, strict=True):
        assert (a.outcome, a.script, a.queries, a.trace) == (b.outcome, b.script, b.queries, b.trace)
        assert b.margin == pytest.approx(a.margin * scale)


@pytest.mark.parametrize("attack", [*STRONG, RandomSearch()], ids=name_of)
def test_success_rises_with_the_budget(attack: Any) -> None:
    net = Net(seed=2)
    some = examples(net, 25, (8, 14))
    broken = []
    for queries in (2 if isinstance(attack, Relax) else 10, 50, 250, 2500):  # one gradient goes a long way
        outcomes = run(victim_of(net), replace(attack, threat=replace(attack.threat, max_queries=queries)), some)
        assert max(outcome.queries for outcome in outcomes) <= queries
        broken.append(kinds(outcomes)["broken"])
    assert broken == sorted(broken) and broken[0] < broken[-1]


@pytest.mark.parametrize("attack", [Pwws(), HotFlip()], ids=name_of)
def test_more_words_break_more(attack: Any) -> None:
    net = Net(seed=2)
    some = examples(net, 25, (8, 14))
    broken = [
        kinds(run(victim_of(net), replace(attack, threat=replace(attack.threat, max_words=share)), some))["broken"]
        for share in (0.1, 0.25, 0.5)
    ]
    assert broken == sorted(broken) and broken[0] < broken[-1]


def test_guided_search_is_no_weaker_than_random_at_equal_queries() -> None:
    net = Net(seed=5)
    some = examples(net, 25, (8, 14))
    controls = [RandomSearch(**RandomSearch.tiers[tier]) for tier in ("synonyms", "typos")]
    for queries in (100, 1000):
        robust = {}
        for attack in (*STRONG, RandomSearch(), *controls):
            limited = replace(attack, threat=replace(attack.threat, max_queries=queries))
            robust[name_of(attack)] = kinds(run(victim_of(net), limited, some))["survived"]
        assert robust["HotFlip.strong"] <= min(robust["RandomSearch.strong"], robust["Pwws.strong"])
        assert robust["Relax.strong"] <= min(robust["RandomSearch.strong"], robust["Pwws.strong"])
        assert robust["Pwws.strong"] <= robust["RandomSearch.synonyms"]
        assert robust["DeepWordBug.strong"] <= robust["RandomSearch.typos"]


@pytest.mark.parametrize("attack", EVERY, ids=name_of)
def test_outcomes_do_not_depend_on_batches_windows_or_order(attack: Any) -> None:
    if "synonyms_same_pos" in attack.threat.spaces:
        attack = replace(attack, threat=replace(attack.threat, spaces=("synonyms",)))
    net = Net(seed=2)
    attack = replace(attack, threat=replace(attack.threat, max_queries=min(attack.threat.max_queries, 400)))
    some = examples(net, 14, (3, 12))
    expected = run(victim_of(net), attack, some)
    assert not kinds(expected)["error"], [outcome.reason for outcome in expected]
    for rows in (1, 7):
        assert run(victim_of(net, rows), attack, some, window=rows) == expected
    shuffled = random.Random(0).sample(range(len(some)), len(some))
    assert run(victim_of(net), attack, [some[i] for i in shuffled]) == [expected[i] for i in shuffled]


ODD = [
    "",
    " ",
    "...",
    "the of the",
    "x",
    "I",
    "1999",
    "don't",
    "🙂🙂",
    "שלום עולם",
    "THE END OF IT",
    "a.b.c",
    "word " * 300,
]


@pytest.mark.parametrize("attack", EVERY, ids=name_of)
def test_odd_texts_are_no_errors(attack: Any) -> None:
    if "synonyms_same_pos" in attack.threat.spaces:
        attack = replace(attack, threat=replace(attack.threat, spaces=("synonyms",)))
    attack = replace(attack, threat=replace(attack.threat, max_queries=min(attack.threat.max_queries, 200)))
    net = Net(seed=2)
    labels = Victim(net).logits(ODD).argmax(1)
    some = [Example(str(n), text, int(label)) for n, (text, label) in enumerate(zip(ODD, labels, strict=True))]
    outcomes = run(victim_of(net), attack, some)
    assert not [outcome.reason for outcome in outcomes if outcome.outcome == "error"]
    assert not [outcome for outcome in outcomes[:4] if outcome.script]


@pytest.mark.parametrize("attack", EVERY, ids=name_of)
def test_a_configuration_can_be_pasted_back(attack: Any) -> None:
    names = {cls.__name__: cls for cls in (Pwws, DeepWordBug, HotFlip, Relax, RandomSearch, Threat)}
    assert eval(repr(attack), names) == attack
    assert hash(attack) == hash(eval(repr(attack), names))


@pytest.mark.parametrize("key", ["pwws", "deepwordbug", "hotflip", "relax", "random_search"])
def test_the_registry_finds_every_tier_by_name(key: str) -> None:
    cls = registry.load("attacks", key)
    assert registry.attack(key) == registry.attack(f"{key}.strong") == cls()
    for tier in cls.tiers:
        attack = registry.attack(f"{key}.{tier}")
        assert attack.tier == tier and registry.attack_name(attack).startswith(f"{key}.{tier}")


def test_a_callable_can_be_attacked_by_all() -> None:
    """No gradients, no pieces: HotFlip's gains are answered by scoring, within the same budget."""
    net = Net(seed=2)
    some = examples(net, 8, (8, 10))
    inner = Victim(net)
    victim = CallableVictim(inner.logits, name="tests:net", classes=net.classes)
    for attack in (*STRONG, RandomSearch()):
        attack = replace(attack, threat=replace(attack.threat, max_queries=300))
        outcomes = run(victim, attack, some)
        assert not kinds(outcomes)["error"]
        assert all(outcome.gradients == 0 and outcome.queries <= 300 for outcome in outcomes)


# --- pieces of the search -----------------------------------------------------------------------------


def test_extended_keeps_scripts_in_order_and_one_edit_a_word() -> None:
    edits = [Edit("replace", index, "x") for index in (2, 0, 3, 1)]
    script: Script = ()
    for edit in edits:
        script = extended(script, edit)
    assert [edit.index for edit in script] == [0, 1, 2, 3]
    assert extended(script, Edit("replace", 2, "y"))[2].word == "y" and len(extended(script, edits[0])) == 4


def test_ranked_leaves_out_what_reads_alike() -> None:
    search = Search(Text("one two", Threat(spaces=("typos",))), 0)
    a, b, c, d = (Edit("replace", index, word) for index, word in [(0, "a"), (0, "b"), (1, "c"), (0, "d")])
    search.gains = {a: 5.0, b: 5.0, c: 5.0, d: 7.0}
    assert search.ranked() == [d, a, c]


def test_a_break_with_fewer_changes_is_preferred() -> None:
    search = Search(Text("one two", Threat(spaces=("typos",), max_words=1.0)), 0)
    one, two = Edit("replace", 0, "on"), Edit("replace", 1, "to")
    asking = search.ask([(one, two), (one,), (two,)])
    next(asking)
    with pytest.raises(Exception) as broken:
        asking.send(np.array([[0.0, 9.0], [0.0, 1.0], [0.0, 2.0]]))
    assert broken.value.script == (two,)  # type: ignore[attr-defined]


vectors = st.lists(st.floats(-3, 3), min_size=1, max_size=8).map(np.array)


@given(vectors)
def test_the_projection_on_the_simplex_is_the_nearest_point(values: np.ndarray) -> None:
    found = _simplex(values)
    assert (found >= 0).all() and found.sum() == pytest.approx(1, abs=1e-6)
    rng = np.random.default_rng(0)
    others = rng.dirichlet(np.ones(len(values)), 50)
    assert ((found - values) ** 2).sum() <= ((others - values) ** 2).sum(axis=1).min() + 1e-6


@given(vectors, st.integers(1, 4))
def test_the_projection_on_capped_boxes_is_the_nearest_point(values: np.ndarray, most: int) -> None:
    found = _capped(values, most)
    assert (found >= 0).all() and (found <= 1).all() and found.sum() <= most + 1e-6
    others = np.random.default_rng(0).uniform(0, 1, (50, len(values)))
    others *= np.minimum(1, most / others.sum(axis=1, keepdims=True))
    assert ((found - values) ** 2).sum() <= ((others - values) ** 2).sum(axis=1).min() + 1e-6


def test_the_relaxation_asks_for_gains_on_drawn_scripts_against_the_original_words() -> None:
    """The slope of a candidate at a changed site is its gain less that of the word that stood there."""
    text = Text("badoko temase", Relax().threat, Table(), stop_words=STOP_WORDS)
    steps = Relax(restarts=1, iterations=1, samples=1).attack(text, 0, random.Random(0))
    next(steps)
    question = steps.send(np.array([[9.0, 0.0]]))
    assert isinstance(question, Gain) and question.base == ()
    scored = steps.send(np.linspace(1, 2, len(question.edits)))
    assert isinstance(scored, Score) and len(scored.scripts) == 1
    slopes = steps.send(np.array([[9.0, 1.0]]))
    assert isinstance(slopes, Gain) and slopes.base == scored.scripts[0] != ()
    assert slopes.edits[0] == Edit("replace", slopes.base[0].index, text.words[slopes.base[0].index])


# --- the paper tiers ------------------------------------------------------------------------------------


def play(
    attack: Any, text: Text, label: int, logits_of: Callable[[Script], Sequence[float]], seed: int = 0
) -> tuple[Script, list[Question]]:
    """Drive an attack by hand; the script it returns, and what it asked."""
    steps: Iterator[Question] | Any = attack.attack(text, label, random.Random(seed))
    asked: list[Question] = []
    answer: np.ndarray | None = None
    while True:
        try:
            question = next(steps) if answer is None else steps.send(answer)
        except StopIteration as stop:
            return stop.value, asked
        asked.append(question)
        assert isinstance(question, Score)
        answer = np.array([logits_of(script) for script in question.scripts], float)


def two_class(gold: float) -> tuple[float, float]:
    """Logits with P(class 0) = gold."""
    return math.log(gold), math.log(1 - gold)


def test_pwws_paper_writes_fixed_choices_in_the_order_of_h_even_when_a_step_does_not_help() -> None:
    """Three words; the second choice in order raises P(gold) on the current text and is taken all the same."""
    lexicon = Table(1)
    lexicon.entries = {"one": ("uno", "un"), "two": ("due",), "three": ("tre",)}
    threat = Threat(spaces=("synonyms",), max_words=1.0, protect_stop_words=False)
    text = Text("one two three", threat, lexicon)
    gold = {
        "one two three": 0.9,
        "uno two three": 0.8, "un two three": 0.7,  # w* of "one" is "un"
        "one due three": 0.6,
        "one two tre": 0.85,
        "un due three": 0.65,  # worse for the attacker than "one due three"
        "un due tre": 0.4,
    }  # fmt: skip
    unknown = {0: 0.5, 1: 0.5, 2: 0.5}  # equal saliencies: the order is that of the falls

    def logits_of(script: Script) -> tuple[float, float]:
        if script and script[0].op == "unknown":
            return two_class(unknown[script[0].index])
        return two_class(gold[text.apply(script)])

    script, asked = play(Pwws(**{**Pwws.tiers["paper"], "threat": threat}), text, 0, logits_of)
    assert text.apply(script) == "un due tre"
    single = [question.scripts for question in asked[4:]]  # after the saliencies and three candidate sets
    assert [text.apply(scripts[0]) for scripts in single] == ["one due three", "un due three", "un due tre"]


def test_pwws_paper_weighs_falls_by_saliency() -> None:
    lexicon = Table(1)
    lexicon.entries = {"one": ("uno",), "two": ("due",)}
    threat = Threat(spaces=("synonyms",), max_words=1.0, protect_stop_words=False)
    text = Text("one two", threat, lexicon)

    def logits_of(script: Script) -> tuple[float, float]:
        if script and script[0].op == "unknown":
            return two_class((0.1, 0.9)[script[0].index])  # "one" is the salient one
        return two_class({"one two": 0.95, "uno two": 0.80, "one due": 0.75, "uno due": 0.3}[text.apply(script)])

    _, asked = play(Pwws(**{**Pwws.tiers["paper"], "threat": threat}), text, 0, logits_of)
    # softmax(.85, .05) x (.15, .20): .69 x .15 = .10 against .31 x .20 = .06
    assert [text.apply(question.scripts[0]) for question in asked[3:]] == ["uno two", "uno due"]


@pytest.mark.parametrize(
    ("scoring", "order"),
    [("replace_one", "bca"), ("temporal_head", "acb"), ("temporal_tail", "bac"), ("combined", "abc")],
)
def test_deepwordbug_paper_scores(scoring: Any, order: str) -> None:
    """P(gold) of every part of the text is given; each scoring must find its own order of words."""
    threat = Threat(spaces=("characters",), max_words=1.0)
    present = {"": 0.3, "a": 0.6, "ab": 0.55, "abc": 0.8, "bc": 0.7, "c": 0.33, "?bc": 0.75, "a?c": 0.2, "ab?": 0.5}

    def logits_of(script: Script) -> tuple[float, float]:
        gone = {edit.index: edit.op for edit in script}
        shown = "".join({"delete": "", "unknown": "?"}.get(gone.get(i, ""), "abc"[i]) for i in range(3))
        return two_class(present[shown])

    attack = DeepWordBug(**{**DeepWordBug.tiers["paper"], "threat": threat}, scoring=scoring, transform="delete")
    found = ""
    for words in (1, 2, 3):  # one edit a word, so a distance of two is the first two words
        limited = replace(threat, max_text_distance=words)
        script, asked = play(replace(attack, threat=limited), Text("aa bb cc", limited), 0, logits_of)
        assert len(script) == words and len(asked) == {"combined": 2}.get(scoring, 1)
        found += next("abc"[edit.index] for edit in script if "abc"[edit.index] not in found)
    assert found == order


@pytest.mark.parametrize("transform", ["look_alike", "swap", "substitute", "delete", "insert"])
def test_deepwordbug_paper_edits_each_word_once_until_the_distance_is_spent(transform: Any) -> None:
    threat = Threat(spaces=("characters",), max_words=1.0, max_text_distance=5, protect_stop_words=False)
    attack = DeepWordBug(**{**DeepWordBug.tiers["paper"], "threat": threat}, transform=transform)
    text = Text("alpha beta gamma delta epsilon zeta eta theta", threat)
    script, _ = play(attack, text, 0, lambda script: (1.0, 0.0))
    written = text.apply(script)
    assert text.allows(script) and 2 <= len(script) <= 5
    assert levenshtein(text.text, written) == (4 if transform == "swap" else 5)
    for edit in script:
        word = text.words[edit.index]
        if transform == "look_alike":
            assert len(edit.word) == len(word) and not edit.word.isascii()
        elif transform == "swap":
            assert sorted(edit.word) == sorted(word)
        else:
            assert len(edit.word) - len(word) == {"substitute": 0, "delete": -1, "insert": 1}[transform]


def test_hotflip_paper_flips_characters_within_its_share() -> None:
    net = Net(bend=0, seed=3)
    some = examples(net, 15, (6, 12))
    attack = HotFlip(**HotFlip.tiers["paper"])
    outcomes = run(victim_of(net), attack, some)
    assert kinds(outcomes)["broken"] > 3 and not kinds(outcomes)["error"]
    for example, outcome in zip(some, outcomes, strict=True):
        text = Text(example.text, attack.threat)
        assert levenshtein(example.text, text.apply(outcome.script)) <= max(1, int(0.1 * len(example.text)))
        assert outcome.gradients > 0


# --- the TextAttack tiers -------------------------------------------------------------------------------
# TextAttack's search told once more, on strings and one text at a time, as a reader of its documentation would.


class Plain:
    """A metered model of texts and TextAttack's goal: score 1 - P(gold), success when another class wins."""

    def __init__(self, net: Net, label: int) -> None:
        self.victim = Victim(net)
        self.label = label
        self.queries = 0

    def score(self, text: str) -> tuple[float, bool]:
        self.queries += 1
        logits = self.victim.logits([text])[0]
        powers = np.exp(logits - logits.max())
        return float(1 - (powers / powers.sum())[self.label]), int(logits.argmax()) != self.label


def swapped(text: str, index: int, word: str) -> str:
    """Word number ``index`` replaced, spans found from left to right."""
    place = 0
    for number, each in enumerate(words_of(text)):
        place = text.index(each, place)
        if number == index:
            return text[:place] + word + text[place + len(each) :]
        place += len(each)
    raise AssertionError("no such word")


def plain_textattack(
    plain: Plain, text: str, offer: Callable[[str], list[str]], weighted: bool, limit: int | None
) -> tuple[str, bool]:
    start, _ = plain.score(text)
    indices = _textattack.modifiable(Text(text, Threat(spaces=("typos",)), stop_words=STOP_WORDS))

    def texts(current: str, index: int) -> list[str]:
        offered = {swapped(current, index, word) for word in offer(words_of(current)[index])} - {current}
        return sorted(each for each in offered if limit is None or levenshtein(text, each) <= limit)

    importance = np.array([plain.score(swapped(text, index, "[UNK]"))[0] for index in indices])
    if weighted:
        single = np.exp(importance.astype(np.float32) - importance.astype(np.float32).max(initial=0))
        best = [max((plain.score(each)[0] for each in texts(text, index)), default=0.0) for index in indices]
        importance = single / single.sum(dtype=np.float32) * np.array(best)
    current, score = text, start
    for rank in (-importance).argsort():
        found = sorted(((each, *plain.score(each)) for each in texts(current, indices[rank])), key=lambda f: -f[1])
        if found and found[0][1] > score:
            current, score, success = found[0]
            if success:
                return current, True
    assert len(words_of(current)) == len(words_of(text))
    return current, False


@pytest.mark.parametrize("words", [(3, 8), (10, 30)])
def test_pwws_textattack_is_that_search(words: tuple[int, int]) -> None:
    net = Net(seed=6, scale=0.02)
    lexicon = Table()
    some = examples(net, 12, words, seed=4)
    attack = Pwws(**Pwws.tiers["textattack"])
    for example, outcome in zip(some, run(victim_of(net), attack, some, lexicon=lexicon), strict=True):
        plain = Plain(net, example.label)
        final, success = plain_textattack(plain, example.text, lambda word: list(lexicon.synonyms(word)), True, None)
        assert (outcome.outcome == "broken") == success
        assert outcome.queries == plain.queries
        if success:
            assert Text(example.text, attack.threat).apply(outcome.script) == final


@pytest.mark.parametrize("words", [(3, 8), (10, 30)])
def test_deepwordbug_textattack_is_that_search_with_the_same_draws(words: tuple[int, int]) -> None:
    """Its draws: places from numpy's legacy generator, letters from Python's, each seeded an example."""
    net = Net(seed=6, scale=0.02)
    some = examples(net, 12, words, seed=5)
    attack = DeepWordBug(**DeepWordBug.tiers["textattack"])

    class Seeded(DeepWordBug):
        def attack(self, sentence: Any, label: int, rng: random.Random) -> Any:
            return super().attack(sentence, label, random.Random(sentence.text))

    outcomes = run(victim_of(net), Seeded(**DeepWordBug.tiers["textattack"]), some, name="seeded")
    statuses = set()
    for example, outcome in zip(some, outcomes, strict=True):
        letters = random.Random(example.text)
        places = np.random.RandomState(letters.getrandbits(32))

        def offer(word: str, places: Any = places, letters: random.Random = letters) -> list[str]:
            if len(word) <= 1:
                return []
            i = places.randint(0, len(word) - 1)
            made = [word[:i] + word[i + 1] + word[i] + word[i + 2 :]]
            i = places.randint(0, len(word))
            made.append(word[:i] + letters.choice(ascii_letters) + word[i + 1 :])
            i = places.randint(0, len(word))
            made.append(word[:i] + word[i + 1 :])
            i = places.randint(0, len(word))
            made.append(word[:i] + letters.choice(ascii_letters) + word[i:])
            return made

        plain = Plain(net, example.label)
        final, success = plain_textattack(plain, example.text, offer, False, 30)
        statuses.add(success)
        assert (outcome.outcome == "broken", outcome.queries) == (success, plain.queries)
        if success:
            assert Text(example.text, attack.threat).apply(outcome.script) == final
    assert True in statuses


def test_textattack_keeps_to_thirty_edits() -> None:
    text = Text(" ".join(["abcdefgh"] * 60), DeepWordBug.tiers["textattack"]["threat"])
    falling = iter(np.linspace(0.99, 0.55, 100_000))
    script, _ = play(
        DeepWordBug(**DeepWordBug.tiers["textattack"]), text, 0, lambda script: two_class(float(next(falling)))
    )
    assert 15 <= len(script) <= 30 and levenshtein(text.text, text.apply(script)) <= 30


def test_the_walk_of_the_set_is_not_ascending_for_long_texts() -> None:
    """Why the order is made by set operations and not by sorting: CPython walks a sparse set by its table."""
    text = Text(" ".join("word" if i in (3, 40, 100) else "the" for i in range(120)), Threat(), stop_words=STOP_WORDS)
    assert sorted(_textattack.modifiable(text)) == [3, 40, 100]
    every = set(range(120))
    free = set()
    for index in (3, 40, 100):
        free.add(index)
    assert _textattack.modifiable(text) == list(every & free)


def test_probabilities_are_taken_as_they_are() -> None:
    asking = _textattack.scores([(), ()], 0)
    next(asking)
    with pytest.raises(StopIteration) as stop:
        asking.send(np.array([[0.75, 0.25], [0.5, 0.5]]))
    assert stop.value.value.score.tolist() == [0.25, 0.5]


# --- a stranger's attack ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vowels:
    """Drop the vowel that hurts most, word by word: all that an attack author has to write."""

    threat: Threat = Threat(spaces=("typos",), max_words=0.5)
    tier: str = "strong"
    tiers: ClassVar[dict[str, dict[str, Any]]] = {"strong": {}}

    def attack(self, sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        script: Script = ()
        for index, word in enumerate(sentence.words):
            shorter = [word[:i] + word[i + 1 :] for i, letter in enumerate(word) if letter in "aeiou"]
            tries = [(*script, Edit("replace", index, each)) for each in shorter]
            tries = [each for each in tries if sentence.allows(each)]
            if not tries:
                continue
            logits = yield Score([script, *tries])
            gold = logits[:, label]
            if len(logits) > 1 and gold[1:].min() < gold[0]:
                script = tries[int(gold[1:].argmin())]
                if logits[1:].argmax(1)[gold[1:].argmin()] != label:
                    return script
        return script


def test_an_attack_takes_forty_lines_at_most() -> None:
    net = Net(seed=2)
    some = examples(net, 40, (6, 12))
    outcomes = run(victim_of(net), Vowels(), some, name="vowels")
    assert kinds(outcomes)["broken"] > 3 and not kinds(outcomes)["error"]
    assert len(inspect.getsource(Vowels).splitlines()) <= 40


def test_hotflip_asks_for_gains_of_typos_and_synonyms_alike() -> None:
    text = Text("badoko temase", HotFlip().threat, Table(), stop_words=STOP_WORDS)
    steps = HotFlip().attack(text, 0, random.Random(0))
    assert next(steps) == Score([()])
    question = steps.send(np.array([[1.0, 0.0]]))
    assert isinstance(question, Gain) and question.base == ()
    written = {edit.word for edit in question.edits if edit.index == 0}
    assert written >= set(typos("badoko"))


@pytest.mark.parametrize("name", ["pwws.strong+thesaurus", "deepwordbug.strong"])
def test_looking_around_a_long_text_leaves_queries_for_the_search(name: str) -> None:
    """One word decides among thousands: the budget must not be gone before it is tried."""

    def asked(texts: list[str]) -> np.ndarray:
        return np.array([[0.0, 1.0] if text.startswith("happy ") else [1.0, 0.0] for text in texts])

    example = Example("0" * 16, "happy " + " ".join(["quick"] * 5500), 1)
    (outcome,) = attack_all(CallableVictim(asked, name="first", classes=2), registry.attack(name), [example], seed=0)
    assert outcome.outcome == "broken"
    assert len(outcome.script) == 1 and outcome.queries < 5000
