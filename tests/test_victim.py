"""The victim reads only what an edit changes, and answers as if it had read the whole text; its twin's gains."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grit.bench import datasets, registry
from grit.bench.evaluate import attack_all
from grit.bench.export import build, packing
from grit.bench.export.floating import FloatArtefact
from grit.bench.sentence import Text
from grit.bench.text import ngrams, tokenize
from grit.bench.twin import Twin
from grit.bench.types import Edit, Example, Gain, MalformedInput, Reading, Threat
from grit.bench.victim import CallableVictim, Forgetful, Victim, _WholeReader, settled
from grit.models.hashed import Hashed
from grit.models.prado import Prado
from grit.models.student import Student

ANY = Threat(spaces=("characters",), max_words=1.0, protect_stop_words=False)
WORDS = ("good", "bad", "film", "a", "not", "plot", "very", "dull")


class Ordered:
    """An artefact that reads whole numbers off the order of its tokens: any slip of a row shows in its logits.

    logits = sum over places t of (t + 1) * row(token), exact in float64. It counts what it evaluates.
    """

    classes = 3
    exact = True
    digest = "ordered"
    sizes_bytes: ClassVar[dict[str, int]] = {"rows": 1}

    def __init__(self, max_tokens: int = 64, order: int = 1) -> None:
        self.max_tokens = max_tokens
        self.order = order
        self.separable = order == 1
        self.evaluated = 0
        self.interned_tokens = 0
        self.widest = 0
        self.known = [""]

    def tokenize(self, text: str) -> list[str]:
        return ngrams(tokenize(text), self.order)

    def intern(self, tokens: Sequence[str]) -> np.ndarray:
        self.interned_tokens += len(tokens)
        for token in tokens:
            if token in WORDS or " " in token or token in ".,()!'":
                if token not in self.known:
                    self.known.append(token)
        return np.array([self.known.index(token) if token in self.known else 0 for token in tokens], np.int32)

    def token(self, row: int) -> str:
        return self.known[row]

    def row(self, token: str) -> np.ndarray:
        return np.array([len(token), sum(map(ord, token)) % 7, -len(token) * 2], float)

    def logits(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        assert rows.dtype == np.int32 and len(rows) == len(lengths) and lengths.min() >= 1
        self.evaluated += len(rows)
        self.widest = max(self.widest, rows.shape[1])
        out = np.zeros((len(rows), self.classes))
        for text, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            for place in range(length):
                out[text] += (place + 1) * self.row(self.known[row[place]])
        return out


def written(text: Text, script: tuple[Edit, ...], artefact: Ordered) -> np.ndarray:
    """The logits of a script by joining the text, tokenising it all, and evaluating it alone."""
    tokens: list[str] = []
    for number, segment in enumerate(text.segments(0, len(text.text), script)):
        tokens += ([""] if number else []) + artefact.tokenize(segment)
    rows = artefact.intern((tokens or [""])[: artefact.max_tokens])
    return artefact.logits(rows[None], np.array([len(rows)]))[0]


def scripts_over(text: Text, rng: random.Random, count: int) -> list[tuple[Edit, ...]]:
    """Random well-formed scripts of every operation, several in one piece among them."""
    scripts: list[tuple[Edit, ...]] = [()]
    for _ in range(count):
        script: list[Edit] = []
        for index in range(len(text.words) + 1):
            if rng.random() < 0.2:
                script.append(Edit("insert", index, rng.choice(WORDS)))
            if index < len(text.words) and rng.random() < 0.3:
                op = rng.choice(["replace", "delete", "unknown"])
                script.append(Edit(op, index, rng.choice((*WORDS, "b-d", "zzz")) if op == "replace" else ""))  # type: ignore[arg-type]
        scripts.append(tuple(script))
    return scripts


RAW = st.lists(st.sampled_from(["good ", "bad", " film", ".", "(a)", "not-", " ", "!", "é"]), max_size=8).map("".join)


# --- reading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3], ids=["separable", "bigrams", "trigrams"])
@pytest.mark.parametrize("max_tokens", [64, 5])
@given(raws=st.lists(RAW, min_size=1, max_size=4), seed=st.integers(0, 10**6))
def test_scripts_are_answered_as_the_joined_text(order: int, max_tokens: int, raws: list[str], seed: int) -> None:
    artefact = Ordered(max_tokens, order)
    victim = Victim(artefact, rows=3)
    rng = random.Random(seed)
    texts = [Text(raw, ANY) for raw in raws]
    subjects = [victim.open(text) for text in texts]
    for _ in range(2):  # the second time, some is known
        asked = [scripts_over(text, rng, 4) for text in texts]
        answers = victim.answer([subject.ask(scripts) for subject, scripts in zip(subjects, asked, strict=True)])
        for text, scripts, answer in zip(texts, asked, answers, strict=True):
            assert answer.dtype == np.float64
            for script, logits in zip(scripts, answer, strict=True):
                assert logits.tolist() == written(text, script, artefact).tolist(), (text.text, script)


@given(st.lists(st.sampled_from(["good film .", "", "  ", "not-bad", "dull dull"]), min_size=1, max_size=7))
def test_whole_texts_are_evaluated_anew(texts: list[str]) -> None:
    artefact = Ordered()
    victim = Victim(artefact, rows=2)
    first, evaluated = victim.logits(texts), artefact.evaluated
    assert (victim.logits(texts) == first).all() and artefact.evaluated == 2 * evaluated
    for text, logits in zip(texts, first, strict=True):
        assert logits.tolist() == written(Text(text, ANY), (), artefact).tolist()


def test_no_text_and_no_question() -> None:
    victim = Victim(Ordered())
    assert victim.logits([]).shape == (0, 3)
    assert victim.answer([]) == []
    (answer,) = victim.answer([victim.open(Text("good", ANY)).ask([])])
    assert answer.shape == (0, 3)


def test_what_reads_alike_is_evaluated_once() -> None:
    artefact = Ordered(max_tokens=3)
    victim = Victim(artefact)
    subject = victim.open(Text("good film , bad", ANY))
    scripts: list[tuple[Edit, ...]] = [
        (),
        (Edit("replace", 0, "goood"),),  # both read as the unknown word
        (Edit("unknown", 0),),
        (Edit("replace", 2, "good"),),  # beyond the third token
        (Edit("replace", 0, "bad"),),
    ]
    asked = subject.ask(scripts)
    (answer,) = victim.answer([asked])
    assert asked.hits == 2 and artefact.evaluated == 3
    assert (answer[1] == answer[2]).all() and (answer[0] == answer[3]).all()
    again = subject.ask(scripts)
    assert again.hits == 5 and (victim.answer([again])[0] == answer).all() and artefact.evaluated == 3


class Unreached(Ordered):
    """As :class:`Ordered`; nobody knows how far its tokens reach."""

    @property
    def order(self) -> int:
        return 0

    @order.setter
    def order(self, order: int) -> None:
        self._order = order

    def tokenize(self, text: str) -> list[str]:
        return ngrams(tokenize(text), self._order)


@pytest.mark.parametrize("order", [2, 3])
@given(raw=RAW, seed=st.integers(0, 10**6))
def test_a_window_of_ngrams_is_read_as_the_whole_text_is(order: int, raw: str, seed: int) -> None:
    """The same keys and transcripts, so the same answers, hits and traces: no outcome can tell."""
    text = Text(raw, ANY)
    few, whole = Ordered(order=order), Unreached(order=order)
    whole.separable = False
    rng = random.Random(seed)
    one, other = Victim(few).open(text), Victim(whole).open(text)
    assert type(one._reader) is not type(other._reader)
    for _ in range(2):
        scripts = scripts_over(text, rng, 5)
        first, second = one.ask(scripts), other.ask(scripts)
        assert (first.places, first.known, first.hits) == (second.places, second.known, second.hits)
        assert first.transcript == second.transcript
        for a, b in zip(first.inputs, second.inputs, strict=True):
            tokens = [
                [artefact.token(row) for row in np.frombuffer(key, np.int32)]
                for artefact, key in ((few, a), (whole, b))
            ]
            assert tokens[0] == tokens[1]
        for subject, asked in ((one, first), (other, second)):
            subject.learn(asked, np.zeros((len(asked.inputs), 3)))


@pytest.mark.parametrize("name", ["pwws+thesaurus", "deepwordbug", "hotflip+thesaurus", "deepwordbug.textattack"])
def test_an_attack_on_ngrams_ends_as_if_all_were_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Hashed.build(Hashed.Config(buckets=1024, max_tokens=60), [], 3, 0)
    with torch.no_grad():
        model.rows.normal_(generator=torch.Generator().manual_seed(1))
    texts = [example.text for example in datasets.load("pings").test[:8]]
    (tmp_path / "artefact").write_bytes(build.deployed(model, texts))
    attack: Any = registry.attack(name)
    attack = replace(attack, threat=replace(attack.threat, max_queries=150))

    def attacked(twin: Twin) -> Any:
        victim = Victim(build.load(tmp_path / "artefact"), twin)
        labels = victim.logits(texts).argmax(1).tolist()
        some = [Example(str(n), text, label) for n, (text, label) in enumerate(zip(texts, labels, strict=True))]
        return attack_all(victim, attack, some, seed=0)

    found = attacked(Twin(model))
    slow = Twin(model)
    slow._order = 0
    monkeypatch.setattr(Victim, "_reader", lambda self, sentence: _WholeReader(sentence, self._input))
    assert attacked(slow) == found
    assert {"broken"} <= {outcome.outcome for outcome in found} <= {"broken", "survived"}


@pytest.mark.parametrize("order", [1, 2, 3])
def test_an_edit_reads_what_it_reaches_and_no_more(order: int) -> None:
    artefact = Ordered(4096, order)
    subject = Victim(artefact).open(Text("good film " * 200, ANY))
    before = artefact.interned_tokens
    scripts: list[tuple[Edit, ...]] = [(Edit("replace", index, "bad"),) for index in range(10, 390, 10)]
    scripts += [(first[0], second[0]) for first, second in pairwise(scripts)]
    subject.ask(scripts)
    reach = sum(range(1, order + 1)) + (order - 1) * order  # n-grams over one word, and those of the words behind it
    assert artefact.interned_tokens - before <= 38 * reach


def test_long_texts_are_kept_by_their_digest() -> None:
    victim = Victim(Ordered(max_tokens=4096))
    text = Text("film " * 500, ANY)
    subject = victim.open(text)
    scripts = [(Edit("replace", index, word),) for index in (0, 499) for word in ("good", "bad")]
    first = victim.answer([subject.ask([(), *scripts])])[0]
    second = subject.ask(scripts)
    assert second.hits == 4 and (victim.answer([second])[0] == first[1:]).all()
    assert len({tuple(logits) for logits in first.tolist()}) == 5


def test_batches_hold_texts_of_like_length() -> None:
    artefact = Ordered()
    Victim(artefact, rows=2).logits(["good", "good film a plot", "bad", "very dull plot a"])
    assert artefact.widest == 4 and artefact.evaluated == 4


def test_the_transcript_spells_the_question_not_the_reading() -> None:
    """The same question has the same transcript at any victim, so that traces can be compared."""
    scripts = [(Edit("replace", 0, "bad"),), (), (Edit("unknown", 0), Edit("delete", 1))]
    text = Text("good film", ANY)
    transcripts = {Victim(Ordered(order=order)).open(text).ask(scripts).transcript for order in (1, 2)} | {
        CallableVictim(lambda texts: np.zeros((len(texts), 2)), name="f", classes=2).open(text).ask(scripts).transcript
    }
    assert len(transcripts) == 1
    assert Victim(Ordered()).open(text).ask(scripts[:2]).transcript not in transcripts


@pytest.mark.parametrize("order", [1, 2])
def test_a_malformed_question_is_refused(order: int) -> None:
    subject = Victim(Ordered(order=order)).open(Text("good film", ANY))
    for script in ((Edit("replace", 5, "x"),), (Edit("replace", 0, "a b"),), (Edit("replace", -1, "x"),)):
        with pytest.raises(ValueError, match="malformed script"):
            subject.ask([(), script])


def test_an_unsorted_script_in_one_piece_is_refused() -> None:
    subject = Victim(Ordered()).open(Text("good.film", ANY))
    with pytest.raises(ValueError, match="not sorted"):
        subject.ask([(Edit("replace", 1, "bad"), Edit("replace", 0, "bad"))])


def test_pieces_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grit.bench.victim._REMEMBERED_PIECES", 3)
    victim = Victim(Ordered())
    subject = victim.open(Text("good film", ANY))
    scripts = [(Edit("replace", 0, word),) for word in WORDS[1:]]
    (answer,) = victim.answer([subject.ask(scripts)])
    assert [a.tolist() for a in answer] == [written(subject.sentence, script, Ordered()).tolist() for script in scripts]


# --- memory ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hashing() -> Prado:
    config = Prado.Config(width=32, maps=6, bigrams=4, trigrams=4)
    return Prado.build(config, ["good bad film a not plot very dull"] * 3, 3, 0)


def artefacts_of(model: Prado) -> list[Any]:
    """Its deployed bytes and its float program at work: both keep a row for every token they have read."""
    program = model.program()
    assert program is not None
    texts = [" ".join(WORDS), "good film", "not a dull plot"]
    return [packing.artefact(build.deployed(model, texts)), FloatArtefact(program, "float", {"all": 1})]


@pytest.mark.parametrize("kind", [0, 1], ids=["fixed", "float"])
def test_a_table_of_hashed_tokens_can_be_emptied_and_answers_the_same_bits(hashing: Prado, kind: int) -> None:
    artefact = artefacts_of(hashing)[kind]
    assert isinstance(artefact, Forgetful)
    victim = Victim(artefact)
    rng = random.Random(0)
    texts = ["", *(" ".join("".join(rng.choices("abcde", k=4)) for _ in range(rng.randint(1, 9))) for _ in range(40))]
    first = victim.logits(texts)
    assert artefact.interned > 100
    victim.forget()
    assert artefact.interned == 1 and artefact.token(0) == ""
    assert (victim.logits(texts[::-1])[::-1] == first).all()  # the tokens have other rows now


def test_an_attack_with_typos_keeps_a_hashing_artefact_small(hashing: Prado, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a bound its table ends with every typo ever asked about; with one, at a flight's more than the bound."""
    attack = registry.attack("deepwordbug")
    attack = replace(attack, threat=replace(attack.threat, max_queries=150))  # type: ignore[type-var]
    rng = random.Random(1)
    texts = [" ".join("".join(rng.choices("abcdefgh", k=6)) for _ in range(8)) for _ in range(12)]

    def attacked() -> tuple[Any, int]:
        artefact = artefacts_of(hashing)[0]
        victim = Victim(artefact)
        labels = victim.logits(texts).argmax(1).tolist()
        some = [Example(str(n), text, label) for n, (text, label) in enumerate(zip(texts, labels, strict=True))]
        largest = 0

        def seen(done: int, total: int) -> None:
            nonlocal largest
            largest = max(largest, artefact.interned)

        outcomes = attack_all(victim, attack, some, seed=0, stop_words=frozenset(), window=2, progress=seen)
        return outcomes, largest

    expected, unbounded = attacked()
    monkeypatch.setattr("grit.bench.victim._INTERNED", 50)
    outcomes, bounded = attacked()
    assert outcomes == expected
    assert bounded < 50 + 2 * 2 * 150 < unbounded


@pytest.mark.parametrize(("bad", "message"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite")])
def test_weights_that_are_not_numbers_are_one_line(bad: float, message: str) -> None:
    artefact = Ordered()
    artefact.row = lambda token: np.full(3, bad)  # type: ignore[method-assign]
    with pytest.raises(MalformedInput, match=message):
        Victim(artefact).logits(["good"])


# --- rounding ----------------------------------------------------------------------------------------


def test_inexact_logits_are_rounded_so_that_batch_noise_ties() -> None:
    artefact = Ordered()
    artefact.exact = False
    exact_logits = artefact.logits
    noise = np.random.default_rng(0)
    artefact.logits = lambda rows, lengths: exact_logits(rows, lengths) * (1 + 1e-9 * noise.standard_normal())  # type: ignore[method-assign]
    victim = Victim(artefact)
    answers = {tuple(victim.logits(["good film , bad"])[0]) for _ in range(20)}
    assert len(answers) == 1


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=5), st.sampled_from([0.1, 10.0, 100.0]))
def test_rounding_keeps_five_digits_at_any_power_of_ten(row: list[float], scale: float) -> None:
    logits = np.array([row])
    rounded = settled(logits)
    assert np.abs(rounded - logits).max() <= 0.5001e-4 * max(np.abs(logits).max(), 1e-300)
    assert (settled(rounded) == rounded).all()
    assert settled(np.round(logits, 3) * scale) == pytest.approx(settled(np.round(logits, 3)) * scale, rel=2e-4)


def test_rounding_leaves_zeros_alone() -> None:
    assert (settled(np.zeros((2, 3))) == 0).all() and settled(np.empty((0, 3))).shape == (0, 3)


# --- callables ---------------------------------------------------------------------------------------


def test_a_callable_reads_whole_texts() -> None:
    seen: list[str] = []

    def lengths(texts: list[str]) -> Any:
        seen.extend(texts)
        return [[len(text), 0.0] for text in texts]

    victim = CallableVictim(lengths, name="tests:lengths", classes=2, rows=2)
    subject = victim.open(Text("good (film)", ANY))
    (answer,) = victim.answer([subject.ask([(), (Edit("unknown", 1),), (Edit("replace", 0, "bad"),), ()])])
    assert seen == ["good (film)", "good ([UNK])", "bad (film)"]
    assert answer[:, 0].tolist() == [11, 12, 10, 11]
    assert not victim.has_gradients and not victim.exact
    with pytest.raises(ValueError, match="no gradients"):
        victim.gains([(subject, Gain((), ()), 0)])


@given(raw=RAW, seed=st.integers(0, 10**6))
def test_a_callable_is_shown_the_joined_text(raw: str, seed: int) -> None:
    text, shown = Text(raw, ANY), []

    def zeros(texts: list[str]) -> Any:
        shown.extend(texts)
        return np.zeros((len(texts), 2))

    victim = CallableVictim(zeros, name="tests:zeros", classes=2)
    rng = random.Random(seed)
    subject = victim.open(text)
    expected: dict[str, None] = {}
    for _ in range(2):
        scripts = scripts_over(text, rng, 5)
        victim.answer([subject.ask(scripts)])
        expected |= dict.fromkeys("[UNK]".join(text.segments(0, len(raw), script)) for script in scripts)
    assert shown == list(expected)


def test_a_malformed_question_to_a_callable_is_refused() -> None:
    subject = CallableVictim(len, name="tests:len", classes=2).open(Text("good film", ANY))  # type: ignore[arg-type]
    for script in (
        (Edit("replace", 2, "x"),),
        (Edit("replace", 0, "a b"),),
        (Edit("replace", 1, "x"), Edit("replace", 0, "x")),
        (Edit("delete", 1), Edit("replace", 1, "x")),
        (Edit("replace", 0, "x"), Edit("insert", 0, "x")),
    ):
        with pytest.raises(ValueError, match="malformed script"):
            subject.ask([(), script])


@pytest.mark.parametrize(
    ("answer", "message"),
    [([[0.0, 1.0, 2.0]], r"array \[1, 3\]"), ([0.0, 1.0], r"array \[2\]"), ([[0.0, float("nan")]], "NaN")],
)
def test_what_a_callable_answers_is_checked(answer: Any, message: str) -> None:
    victim = CallableVictim(lambda texts: answer, name="tests:wrong", classes=2)
    with pytest.raises(MalformedInput, match=f"tests:wrong.*{message}"):
        victim.logits(["good"])


# --- the twin ---------------------------------------------------------------------------------------


class Linear(torch.nn.Module):
    """logits = sum over tokens of row(token): its margin is linear in the features wherever the ranks stay."""

    def __init__(self, classes: int = 3, separable: bool = True, max_tokens: int = 64) -> None:
        super().__init__()
        self.separable = separable
        self.max_tokens = max_tokens
        generator = torch.Generator().manual_seed(0)
        self.table = torch.nn.Parameter(torch.randn(len(WORDS) + 1, classes, generator=generator))

    def tokenize(self, text: str) -> list[str]:
        return tokenize(text)

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        return np.array([WORDS.index(token) + 1 if token in WORDS else 0 for token in tokens], np.int64)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(codes, self.table)

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        real = torch.arange(features.shape[1]) < lengths[:, None]
        return Reading(features, torch.where(real[:, :, None], features, 0.0).sum(1))

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return state

    def program(self) -> None:
        return None


def margin_of(model: Any, tokens: list[str], label: int) -> float:
    model = model.double().eval()
    codes = torch.from_numpy(model.codes(tokens[: model.max_tokens] or [""]))[None]
    logits = model.head(model.read(model.features(codes).double(), torch.tensor([codes.shape[1]])).state)[0]
    others = [other for other in range(len(logits)) if other != label]
    return float((logits[others].max() - logits[label]).detach())


@pytest.mark.parametrize("separable", [True, False])
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_gains_of_a_linear_model_are_the_rises_of_its_margin(separable: bool, seed: int) -> None:
    """Two classes, so that the largest other logit is always the same one and the margin is linear."""
    rng = random.Random(seed)
    model = Linear(2, separable)
    raw = " ".join(rng.choice((*WORDS, "not-bad", "(dull)", "film.", "zzz")) for _ in range(rng.randint(1, 9)))
    text = Text(raw, ANY)
    base = scripts_over(text, rng, 1)[1]
    edits = [
        Edit("replace", i, rng.choice((*WORDS, "a-b", "plot's"))) for i in range(len(text.words)) for _ in range(2)
    ]
    edits += [Edit(op, i) for op in ("delete", "unknown") for i in range(len(text.words))]  # type: ignore[arg-type]
    (gains,) = Twin(model).gains([(text, Gain(base, edits), 1)])  # type: ignore[arg-type]

    def margin(script: tuple[Edit, ...]) -> float:
        tokens: list[str] = []
        for number, segment in enumerate(text.segments(0, len(text.text), script)):
            tokens += ([""] if number else []) + tokenize(segment)
        return margin_of(model, tokens, 1)

    for edit, gain in zip(edits, gains, strict=True):
        kept = [old for old in base if old.index != edit.index or old.op == "insert"]
        script = tuple(sorted([*kept, edit], key=lambda e: (e.index, e.op != "insert")))
        assert gain == pytest.approx(margin(script) - margin(base), abs=1e-6)


@pytest.mark.parametrize("build", [Student, Prado])
def test_gains_are_the_derivative_of_the_margin(build: Any) -> None:
    """A small step along the change of one word's features moves the margin by the step times the gain."""
    model = build.build(build.Config(), ["good bad film a not plot very dull"] * 3, 3, 0).double().eval()
    text = Text("not a very good film , (dull) plot", ANY)
    edits = [Edit("replace", index, word) for index in range(len(text.words)) for word in ("bad", "film", "zzz")]
    (gains,) = Twin(model).gains([(text, Gain((), edits), 1)])
    tokens = tokenize(text.text)
    rows = model.features(torch.from_numpy(model.codes(tokens))[None]).double()
    places = {index: tokens.index(word) for index, word in enumerate(text.words)}
    for edit, gain in zip(edits, gains, strict=True):
        new = model.features(torch.from_numpy(model.codes([edit.word]))[None]).double()[0, 0]
        place, step = places[edit.index], 1e-6
        margins = []
        for sign in (1, -1):
            moved = rows.clone()
            moved[0, place] += sign * step * (new - rows[0, place])
            logits = model.head(model.read(moved, torch.tensor([len(tokens)])).state)[0]
            margins.append(float((logits[[0, 2]].max() - logits[1]).detach()))
        assert gain == pytest.approx((margins[0] - margins[1]) / (2 * step), rel=1e-4, abs=1e-7)


def test_gains_do_not_depend_on_the_batch() -> None:
    model = Student.build(Student.Config(), ["good bad film a not plot very dull"] * 3, 3, 0)
    rng = random.Random(3)
    asked = []
    for _ in range(9):
        text = Text(" ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 12))), ANY)
        edits = [Edit("replace", index, rng.choice(WORDS)) for index in range(len(text.words))]
        asked.append((text, Gain((), edits), rng.randrange(3)))
    together = Twin(model, texts=4).gains(asked)
    backwards = Twin(model, texts=9).gains(asked[::-1])[::-1]
    alone = [Twin(model, texts=1).gains([one])[0] for one in asked]
    for a, b, c in zip(together, backwards, alone, strict=True):
        assert a.tolist() == b.tolist() == c.tolist()


def test_more_tokens_are_read_with_the_mean_gradient_and_fewer_leave() -> None:
    model = Linear(2)
    text = Text("good plot film", ANY)
    rows = {word: model.table[WORDS.index(word) + 1].detach().double() for word in ("good", "bad", "plot")}
    unknown = model.table[0].detach().double()

    def rise(change: torch.Tensor) -> float:
        return float(change[0] - change[1])

    edits = [Edit("replace", 0, "bad-bad"), Edit("delete", 1), Edit("insert", 1, "bad"), Edit("insert", 3, "bad")]
    (gains,) = Twin(model).gains([(text, Gain((), edits), 1)])  # type: ignore[arg-type]
    assert gains[0] == pytest.approx(rise(2 * rows["bad"] + unknown - rows["good"]))
    assert gains[1] == pytest.approx(rise(-rows["plot"]))
    assert gains[2] == gains[3] == pytest.approx(rise(rows["bad"]))


def test_words_beyond_the_last_token_gain_nothing() -> None:
    text = Text("good film dull plot", ANY)
    edits = [Edit("replace", index, "bad") for index in range(4)]
    (gains,) = Twin(Linear(max_tokens=2)).gains([(text, Gain((), edits), 0)])  # type: ignore[arg-type]
    assert gains[0] != 0 and gains[2:].tolist() == [0, 0]


def test_gains_of_nothing_and_of_an_empty_text() -> None:
    twin = Twin(Linear())  # type: ignore[arg-type]
    empty = Text("", ANY)
    first, second = twin.gains([(empty, Gain((), ()), 0), (empty, Gain((), (Edit("insert", 0, "good"),)), 0)])
    assert first.shape == (0,) and second.shape == (1,)
    assert twin.gains([]) == []


def test_the_twin_leaves_the_model_as_it_was() -> None:
    model = Linear()
    before = {name: (value.dtype, value.requires_grad) for name, value in model.named_parameters()}
    Twin(model).gains([(Text("good", ANY), Gain((), (Edit("replace", 0, "bad"),)), 0)])  # type: ignore[arg-type]
    assert {name: (value.dtype, value.requires_grad) for name, value in model.named_parameters()} == before
    assert model.training


def test_bad_questions_and_bad_weights() -> None:
    with pytest.raises(ValueError, match="malformed script"):
        Twin(Linear()).gains([(Text("good", ANY), Gain((), (Edit("replace", 7, "x"),)), 0)])  # type: ignore[arg-type]
    broken = Linear()
    broken.head = lambda state: state * torch.nan  # type: ignore[method-assign]
    with pytest.raises(MalformedInput, match="NaN or infinite gradients"):
        Twin(broken).gains([(Text("good", ANY), Gain((), (Edit("replace", 0, "bad"),)), 0)])  # type: ignore[arg-type]


def test_a_victim_passes_gains_on() -> None:
    asked: list[Any] = []
    source = SimpleNamespace(gains=lambda questions: asked.extend(questions) or [np.zeros(1)])
    victim = Victim(Ordered(), source)
    subject = victim.open(Text("good", ANY))
    gain = Gain((), (Edit("replace", 0, "bad"),))
    assert victim.has_gradients and victim.gains([(subject, gain, 2)])[0].tolist() == [0]
    assert asked == [(subject.sentence, gain, 2)]
    assert not Victim(Ordered()).has_gradients
    with pytest.raises(ValueError, match="no gradients"):
        Victim(Ordered()).gains([(subject, gain, 2)])
