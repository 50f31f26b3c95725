"""Example by example: status, final text and queries of our ``.textattack`` tiers against TextAttack's own.

``tox -e parity`` compares some texts of each set, in about a minute; all of them, more than 300 texts an attack, in
some five minutes, are compared by

    tox -e parity -- -m "parity and long"
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grit.bench import bridge, datasets, lexicons, registry
from grit.bench.types import Example

pytestmark = pytest.mark.parity

# Texts of a set; most of them are short, since TextAttack needs minutes for long ones.
PWWS = {  # for each of the four combinations below, and no text twice
    "some": {"sst2": 6, "ag_news": 3},
    "all": {"sst2": 45, "ag_news": 30, "imdb": 12},
}
COMBINATIONS = [(model, lexicon) for model in ("lstm", "hashed") for lexicon in ("wordnet3.0", "table")]
DEEPWORDBUG = {  # for each of two models, and no text twice
    "some": {"sst2": 15, "ag_news": 8},
    "all": {"sst2": 80, "ag_news": 60, "imdb": 20},
}
HOTFLIP = {
    "some": {"sst2": 30, "ag_news": 15},
    "all": {"sst2": 160, "ag_news": 120, "imdb": 40},
}


def cases(sizes: dict[str, dict[str, int]]) -> Any:
    """Parameters ``name`` and ``n``: the few texts of every run, the many of a long one."""
    found = [
        pytest.param(name, n, marks=[pytest.mark.long] if size == "all" else [], id=f"{name}-{size}")
        for size, texts in sizes.items()
        for name, n in texts.items()
    ]
    return pytest.mark.parametrize(("name", "n"), found)


@pytest.fixture(scope="session")
def sets(real_data: Path) -> Any:
    return cache(datasets.load)


@pytest.fixture(scope="session")
def victims(harness: Any, sets: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("artefacts")
    makers = {"lstm": harness.lstm, "hashed": lambda dataset: harness.hashed(dataset, folder)}
    return cache(lambda model, name: makers[model](sets(name)))


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> lexicons.Lexicon:
    """An injected lexicon: other words of the embedded thesaurus, some in capitals, some that no attack may write."""
    source: Any = lexicons.load("thesaurus")
    entries: dict[str, list[str]] = {}
    for head in source.entries:
        names = source.synonyms(head)
        entries[head] = [*names, *(name.capitalize() for name in names[:1]), f"{head}_too", f"U.S. {head}", "Dr."]
    path = tmp_path_factory.mktemp("lexicon") / "table.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return lexicons.load(str(path))


def sample(dataset: Any, n: int, part: int = 0) -> tuple[Example, ...]:
    """``n`` texts of the test split, others for every part."""
    return datasets.subset(dataset.test, n * (part + 1), dataset.name)[n * part :]


@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
@cases(PWWS)
def test_pwws(
    name: str,
    n: int,
    combination: tuple[str, str],
    harness: Any,
    victims: Any,
    sets: Any,
    table: Any,
    note: Any,
    request: pytest.FixtureRequest,
) -> None:
    model, lexicon = combination
    words = table if lexicon == "table" else request.getfixturevalue("wordnet")
    victim = victims(model, name)
    recipe = harness.pwws(bridge.to_textattack(victim), words if lexicon == "table" else None)
    some = sample(sets(name), n, COMBINATIONS.index(combination))
    found = harness.compare(victim, registry.attack("pwws.textattack"), recipe, some, lexicon=words)
    note(found.line(f"pwws, {name}, {model}, {lexicon}"))
    assert found.different == []
    assert len(found.last_bit) <= 1 + len(some) // 30


@pytest.mark.parametrize("model", ["lstm", "hashed"])
@cases(DEEPWORDBUG)
def test_deepwordbug(name: str, n: int, model: str, harness: Any, victims: Any, sets: Any, note: Any) -> None:
    victim = victims(model, name)
    recipe = harness.deepwordbug(bridge.to_textattack(victim))
    some = sample(sets(name), n, ["lstm", "hashed"].index(model))
    found = harness.compare(victim, registry.attack("deepwordbug.textattack"), recipe, some)
    note(found.line(f"deepwordbug, {name}, {model}"))
    assert found.different == [] == found.last_bit


@cases(HOTFLIP)
def test_hotflip(name: str, n: int, harness: Any, sets: Any, tagger: None, note: Any, tmp_path: Path) -> None:
    """Its own LSTM class, and word vectors of our making in place of those it fetches."""
    dataset = sets(name)
    wrapper = harness.word_lstm(datasets.subset(dataset.train, 1000, name), len(dataset.labels), seed=3)
    victim = bridge.from_textattack(wrapper, name="its own lstm", classes=len(dataset.labels))
    vocabulary = harness.vocabulary_of(wrapper)
    words, vectors = harness.clustered(vocabulary, seed=1)
    np.savez(tmp_path / "vectors.npz", words=np.array(words), vectors=vectors)
    attack = replace(registry.attack("hotflip.textattack"), embedding=str(tmp_path / "vectors.npz"))
    recipe = harness.hotflip(wrapper, words, vectors)
    found = harness.compare(victim, attack, recipe, sample(dataset, n), vocabulary=vocabulary)
    note(found.line(f"hotflip, {name}, its own lstm"))
    assert found.different == [] == found.last_bit
    asked = {result.queries for result in found.theirs.results}
    assert {1, 2, 3} <= asked or n < 40  # every place where it can give up was seen


ODD = (
    "Don't re-read the U.S. report, it's 3.5 pages of well-known stuff.",
    "'Quoted' -- and *starred* _words_ @home, e_mail me: a.b@c.de!",
    "the the the the of of of and and",
    "a",
    "I",
    "Go",
    "!!! ... --",
    "na\u00efve caf\u00e9 \u00fcber \u0430\u0431\u0432 \u03b1\u03b2\u03b3 \u05e9\u05dc\u05d5\u05dd",
    "code `ls -l` 3\u00d74 \u02d7minus \U0001f642 ok",
    "Dr. Smith said [UNK] is not a word, Dr. Smith did",
    "good good good bad bad bad good bad good",
    "WORD Word word wOrD'S words'",
    "it's its' 'its it''s rock'n'roll",
    "tab-separated-by-hyphens and under_scored and mid*star",
)


@pytest.mark.parametrize("attack", ["pwws", "deepwordbug"])
def test_odd_texts(attack: str, harness: Any, golden: Any, table: Any, note: Any) -> None:
    """Signs in and around words, repetitions that tie, one word, no word; gold is whatever the victim says."""
    victim = golden.victim()
    labels = victim.logits(list(ODD)).argmax(axis=1).tolist()
    examples = [
        Example(f"{place:016d}", text, label) for place, (text, label) in enumerate(zip(ODD, labels, strict=True))
    ]
    wrapper = bridge.to_textattack(victim)
    recipe = harness.pwws(wrapper, table) if attack == "pwws" else harness.deepwordbug(wrapper)
    lexicon = table if attack == "pwws" else None
    found = harness.compare(victim, registry.attack(f"{attack}.textattack"), recipe, examples, lexicon=lexicon)
    note(found.line(f"{attack}, odd texts, a linear victim"))
    assert found.different == []
