"""Our ``.textattack`` tiers give what TextAttack 0.3.11 gave, recorded on the embedded corpus.

The files in tests/golden/textattack hold one line a text: what became of it, the queries, and the edits that lead
to where the search ended. tests/parity/test_golden.py finds TextAttack itself in agreement with them, and writes
them anew with

    GRIT_REGENERATE=1 tox -e parity -- tests/parity/test_golden.py

The victims compute on whole numbers, or nearly, and their weights grow with the place in the text: no two words
tie, so no outcome hangs on how a machine rounds or how numpy sorts equal numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grit.attacks import _textattack
from grit.bench import datasets, registry
from grit.bench.evaluate import attack_all
from grit.bench.sentence import Text, words_of
from grit.bench.text import tokenize
from grit.bench.types import Attack, Example, Gain, Grid, Question, Script, Threat
from grit.bench.victim import CallableVictim, Subject

FOLDER = Path(__file__).parent / "golden" / "textattack"
CLASSES = 3
TEXTS = 150
BIAS = np.array([0.5, 0.0, 0.0])  # what is left when nothing is read
SEQ, FEAT = 64, 8  # of the victim with gradients


def number(*what: object) -> int:
    """A number below 2 ** 32 that belongs to these words, everywhere and always."""
    return int.from_bytes(hashlib.sha256(" ".join(map(str, what)).encode()).digest()[:4], "big")


# --- victims -----------------------------------------------------------------------------------------


@cache
def weights(token: str) -> tuple[int, ...]:
    """Of a token of the corpus, one a class; another weighs nothing, so most typos of a word read alike."""
    known = token in corpus_tokens()
    return tuple((number("weight", c, token) % 4096 - 2048) * known for c in range(CLASSES))


@cache
def corpus_tokens() -> frozenset[str]:
    return frozenset(token for example in datasets.load("pings").test for token in tokenize(example.text))


class Whole(CallableVictim):
    """Its logits are as exact as its function and are not rounded."""

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        return np.array(self._function(list(texts)), np.float64).reshape(len(texts), self.classes)


def victim() -> CallableVictim:
    """logits = bias + sum over places of (64 + place) weight(token, class) / 2 ** 18: exact in double precision."""

    def logits(texts: list[str]) -> list[np.ndarray]:
        found = []
        for text in texts:
            tokens = np.array([weights(token) for token in tokenize(text) or [""]])
            found.append((tokens * (64 + np.arange(len(tokens)))[:, None]).sum(0) / 2**18 + BIAS)
        return found

    return Whole(logits, name="golden", classes=CLASSES)


@cache
def vocabulary() -> tuple[str, ...]:
    """Words of the corpus; row 0 of the victim with gradients is the unknown word."""
    words = {word.lower() for example in datasets.load("pings").test for word in words_of(example.text)}
    return ("[UNK]", *sorted(word for word in words if _textattack.writable((word,))))


@cache
def places() -> dict[str, int]:
    return {word: row for row, word in enumerate(vocabulary())}


@cache
def embedding() -> np.ndarray:
    """[words feat], whole numbers of sixteenths."""
    return np.array([[number("row", k, word) % 33 - 16 for k in range(FEAT)] for word in vocabulary()]) / 16


@cache
def head() -> np.ndarray:
    """[classes feat]"""
    return np.array([[number("head", c, k) % 33 - 16 for k in range(FEAT)] for c in range(CLASSES)]) / 8


def rows_of(text: str) -> list[int]:
    """The rows of the words between blanks, in lower case."""
    return [places().get(word, 0) for word in text.lower().split()[:SEQ]]


def loudness(seq: int) -> np.ndarray:
    return (SEQ + np.arange(seq)) / (2 * SEQ)


class Bent(Whole):
    """logits = head . tanh(sum over places of loudness(place) row(word)), with the gradients TextAttack would read."""

    has_gradients = True

    def __init__(self) -> None:
        super().__init__(
            lambda texts: [head() @ np.tanh(self.sum(text)) for text in texts], name="bent", classes=CLASSES
        )

    def sum(self, text: str) -> np.ndarray:
        rows = rows_of(text)
        return loudness(len(rows)) @ embedding()[rows] if rows else np.zeros(FEAT)

    def gains(self, asked: Sequence[tuple[Subject, Gain, int]]) -> list[np.ndarray]:
        return [self.gain(subject.sentence, question) for subject, question, _ in asked]

    def gain(self, sentence: Text, question: Gain) -> np.ndarray:
        """Rise of the cross entropy of its own prediction: the word's number is taken for the token's."""
        assert isinstance(question.edits, Grid) and not question.aligned
        text = sentence.apply(question.base)
        state = np.tanh(self.sum(text))
        logits = head() @ state
        powers = np.exp(logits - logits.max())
        error = powers / powers.sum() - np.eye(CLASSES)[logits.argmax()]
        slope = (error @ head()) * (1 - state**2)  # [feat]
        rows, loud = rows_of(text), loudness(SEQ)
        written = embedding()[[places()[word] for word in question.edits.words]] @ slope
        gains = np.zeros((len(question.edits.sites), len(written)))
        for row, site in enumerate(question.edits.sites):
            if site < len(rows):
                gains[row] = loud[site] * (written - embedding()[rows[site]] @ slope)
        return gains.ravel()


# --- what the attacks are given --------------------------------------------------------------------------


class Table:
    """An injected lexicon: four words of the corpus for three words of four, one of them in capitals."""

    name = digest = "golden"

    def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
        words = vocabulary()[1:]
        if number("covered", word) % 4 == 0:
            return ()
        found = [words[number("synonym", k, word) % len(words)] for k in range(4)]
        return tuple(other for other in dict.fromkeys([*found[:3], found[3].upper()]) if other != word)


def vectors() -> tuple[list[str], np.ndarray]:
    """Of three words of five, in three bundles: words [words], vectors [words feat]."""
    words = [word for word in vocabulary() if number("known", word) % 5 < 3]
    centres = [[number("centre", c, k) % 33 - 16 for k in range(8)] for c in range(3)]
    found = [
        [centres[number("bundle", word) % 3][k] + number("noise", k, word) % 13 - 6 for k in range(8)] for word in words
    ]
    return words, np.array(found, np.float64)


def pos_tag(tokens: Sequence[str], tagset: str | None = None, lang: str = "eng") -> list[tuple[str, str]]:
    """A tagger in place of nltk's: a word's tag, and another one behind a word that begins with a vowel."""
    tags = ("NOUN", "VERB", "NOUN", "ADJ", "VERB")
    before = ("x", *tokens)
    return [(token, tags[number("tag", token, before[k][:1] in "aeiou") % 5]) for k, token in enumerate(tokens)]


@pytest.fixture
def tagger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import nltk

    _textattack._tag.cache_clear()
    monkeypatch.setattr(nltk, "pos_tag", pos_tag)
    yield
    _textattack._tag.cache_clear()


def attack(name: str, folder: Path) -> Attack:
    found = registry.attack(f"{name}.textattack")
    if name != "hotflip":
        return found
    words, rows = vectors()
    np.savez(folder / "vectors.npz", words=np.array(words), vectors=rows)
    return replace(found, embedding=str(folder / "vectors.npz"))


def examples(victim: CallableVictim) -> tuple[Example, ...]:
    """Texts of the embedded test split; gold is what the victim says, but for every tenth, which it gets wrong."""
    chosen = datasets.subset(datasets.load("pings").test, TEXTS, "pings")
    said = victim.logits([example.text for example in chosen]).argmax(axis=1).tolist()
    return tuple(
        replace(example, label=(label + (place % 10 == 0)) % CLASSES)
        for place, (example, label) in enumerate(zip(chosen, said, strict=True))
    )


# --- the files -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    id: str
    status: str
    queries: int
    edits: tuple[tuple[int, str], ...]  # words written, wherever the search ended


def read(name: str) -> list[Line]:
    lines = [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [Line(row["id"], row["status"], row["queries"], tuple(map(tuple, row["edits"]))) for row in lines]


def write(name: str, lines: Sequence[Line]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = [{"id": line.id, "status": line.status, "queries": line.queries, "edits": line.edits} for line in lines]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (FOLDER / f"{name}.jsonl").write_text(text, encoding="utf-8")


class Ended:
    """An attack that remembers the script with which it ended on every text."""

    def __init__(self, attack: Attack) -> None:
        self.threat, self.tier, self.tiers = attack.threat, attack.tier, attack.tiers
        self.scripts: dict[str, Script] = {}
        self._attack = attack

    def attack(self, sentence: Any, label: int, rng: Any) -> Generator[Question, np.ndarray, Script]:
        self.scripts[sentence.text] = yield from self._attack.attack(sentence, label, rng)
        return self.scripts[sentence.text]


VICTIMS: dict[str, Callable[[], CallableVictim]] = {"pwws": victim, "deepwordbug": victim, "hotflip": Bent}


@pytest.mark.parametrize("name", VICTIMS)
def test_golden(name: str, tagger: None, tmp_path: Path) -> None:
    target = VICTIMS[name]()
    some = examples(target)
    ended = Ended(attack(name, tmp_path))
    outcomes = attack_all(
        target,
        ended,
        some,
        seed=11,
        name="parity",
        lexicon=Table() if name == "pwws" else None,
        vocabulary=vocabulary(),
    )
    found = []
    for example, outcome in zip(some, outcomes, strict=True):
        script = ended.scripts.get(example.text, ())
        edits = tuple((edit.index, edit.word) for edit in script)
        found.append(Line(example.id, outcome.outcome, outcome.queries, edits))
    assert found == read(name)


@pytest.mark.parametrize("name", VICTIMS)
def test_golden_files_are_worth_comparing_with(name: str) -> None:
    """Every outcome stands in them, and every edit changes a word of the corpus as it is."""
    lines = read(name)
    statuses = [line.status for line in lines]
    assert {"broken", "survived", "skipped"} == set(statuses) and len(lines) == TEXTS
    assert statuses.count("skipped") == TEXTS / 10
    texts = {example.id: example.text for example in datasets.load("pings").test}
    for line in lines:
        sentence = Text(texts[line.id], Threat(spaces=("any",)))
        assert all(sentence.words[index] != word for index, word in line.edits)
        assert line.edits or line.status != "broken"


def test_golden_words_do_not_tie() -> None:
    """Were two words of a text equally important, the files would hang on numpy's sort of equal numbers."""
    target = victim()
    for example in examples(target):
        sentence = Text(example.text, Threat(spaces=("any",)))
        scripts = _textattack.without(range(len(sentence.words)))
        logits = target.logits([sentence.apply(script) for script in scripts])
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = 1 - powers[:, example.label] / powers.sum(axis=1)
        assert len(np.unique(np.round(scores, 12))) == len(scores)
