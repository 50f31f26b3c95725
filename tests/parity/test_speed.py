"""Both sides by the clock, in one run: the same victim, texts and outcomes; one thread, times of the processor.

``outside`` is what a query costs outside the victim, neither in cutting a text into tokens nor in computing on them;
``computing`` is the share of the total in the model's arithmetic alone. Both gain from the texts in flight and from the
candidates of a question, so a few texts show less than many. That outcomes are equal and ours the quicker is asserted,
no factor. ``tox -e parity`` times a few texts;

    GRIT_PARITY_KEPT=speed.jsonl tox -e parity -- -m "parity and long" -k test_speed

times as many as an attack holds in flight, 25 of the long ones, for about half an hour, and goes on where it was
stopped. The victims: the student in torch, in double precision; its int8 artefact, compiled for this machine; the
hashed linear model, deployed.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grit.bench import bridge, datasets, registry
from grit.bench.export.c import compiler
from grit.bench.sentence import words_of
from grit.bench.types import CouldNotMeasure, Example

pytestmark = pytest.mark.parity
load = cache(datasets.load)

VICTIMS = ("torch", "compiled", "linear")
TEXTS = {"some": {"sst2": 5, "ag_news": 2}, "all": {"sst2": 256, "ag_news": 128, "imdb": 25}}
CASES = [
    pytest.param(name, n, marks=[pytest.mark.long] if size == "all" else [], id=f"{name}-{size}")
    for size, texts in TEXTS.items()
    for name, n in texts.items()
]


@pytest.fixture(scope="module")
def victims(harness: Any, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("artefacts")

    @cache
    def student(name: str) -> Any:
        return harness.student(load(name))

    @cache
    def made(victim: str, name: str) -> Any:
        dataset = load(name)
        if victim == "torch":
            return harness.as_it_stands(student(name))
        try:
            compiler.host()
        except CouldNotMeasure as error:
            pytest.skip(str(error))
        if victim == "linear":
            return harness.hashed(dataset, folder)
        return harness.deployed(student(name), [example.text for example in dataset.train[:200]], folder / name)

    return made


def right(victim: Any, name: str, n: int) -> list[Example]:
    """Texts that the victim gets right, so that every one is attacked."""
    some = datasets.subset(load(name).test, 10 * n, name)
    said = victim.logits([example.text for example in some]).argmax(axis=1).tolist()
    return [example for example, label in zip(some, said, strict=True) if example.label == label][:n]


def told(note: Any, what: str, found: Any) -> None:
    ours, theirs = found.ours, found.theirs
    outside, total = theirs.overhead_us / ours.overhead_us, theirs.seconds / ours.seconds
    shares = [f"{side.arithmetic_seconds / side.seconds:3.0%}" for side in (ours, theirs) if side.arithmetic_seconds]
    note(
        f"{what:<29} outside {theirs.overhead_us:6.0f} -> {ours.overhead_us:6.1f} us a query ({outside:4.0f}x), "
        f"total {theirs.seconds:7.2f} -> {ours.seconds:6.3f} s ({total:5.1f}x), "
        f"computing {' of ours, '.join(shares) + ' of theirs' if shares else 'not apart'}; "
        f"{len(found.examples)} texts, {ours.queries} queries, {len(found.last_bit)} by a last bit, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    assert found.different == []
    assert outside > 1


@pytest.mark.parametrize(("name", "n"), CASES)
@pytest.mark.parametrize("kind", VICTIMS)
@pytest.mark.parametrize("attack", ["pwws", "deepwordbug"])
def test_black_box(
    attack: str,
    kind: str,
    name: str,
    n: int,
    harness: Any,
    victims: Any,
    note: Any,
    request: pytest.FixtureRequest,
) -> None:
    victim = victims(kind, name)
    some = right(victim, name, n)
    lexicon = request.getfixturevalue("wordnet") if attack == "pwws" else None
    if lexicon is not None:
        for word in {word for example in some for word in words_of(example.text)}:
            lexicon.synonyms(word)  # looked up once a machine; theirs are in nltk's memory as well
    wrapper = bridge.to_textattack(victim)
    recipe = harness.pwws(wrapper) if attack == "pwws" else harness.deepwordbug(wrapper)
    tier = registry.attack(f"{attack}.textattack")
    harness.compare(victim, tier, recipe, some[:1], lexicon=lexicon)  # whatever is made but once
    told(note, f"{attack}, {name}, {kind}", harness.compare(victim, tier, recipe, some, lexicon=lexicon))


@pytest.mark.parametrize(("name", "n"), CASES)
def test_hotflip(
    name: str,
    n: int,
    harness: Any,
    real_data: Path,
    tagger: None,
    note: Any,
    tmp_path: Path,
) -> None:
    dataset = load(name)
    wrapper = harness.word_lstm(datasets.subset(dataset.train, 600, name), len(dataset.labels), seed=3)
    victim = bridge.from_textattack(wrapper, name="its own lstm", classes=len(dataset.labels))
    vocabulary = harness.vocabulary_of(wrapper)
    words, vectors = harness.clustered(vocabulary, seed=1)
    np.savez(tmp_path / "vectors.npz", words=np.array(words), vectors=vectors)
    attack = replace(registry.attack("hotflip.textattack"), embedding=str(tmp_path / "vectors.npz"))
    some = right(victim, name, n)
    recipe = harness.hotflip(wrapper, words, vectors)
    harness.compare(victim, attack, recipe, some[:2], vocabulary=vocabulary)  # the tagger is loaded
    found = harness.compare(victim, attack, recipe, some, vocabulary=vocabulary)
    told(note, f"hotflip, {name}, its own lstm", found)
