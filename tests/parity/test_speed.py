"""Both sides by the clock, in one run: the same model, texts and outcomes; one thread, times of the processor.

``outside`` is what a query costs outside the model: neither in cutting a text into tokens nor in computing on
them. It is small samples on a machine that may be busy with other things; only orders of magnitude are asserted.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grit.bench import bridge, datasets, lexicons, registry
from grit.bench.sentence import words_of

pytestmark = pytest.mark.parity

TEXTS = {"sst2": 40, "ag_news": 25, "imdb": 6}


@pytest.fixture(scope="module")
def victims(harness: Any, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("artefacts")
    makers = {"lstm": harness.lstm, "hashed": lambda dataset: harness.hashed(dataset, folder)}
    return cache(lambda model, name: makers[model](datasets.load(name)))


def told(note: Any, what: str, found: Any) -> None:
    ours, theirs = found.ours, found.theirs
    note(
        f"{what:<32} outside {theirs.overhead_us:7.0f} -> {ours.overhead_us:6.1f} us a query "
        f"({theirs.overhead_us / ours.overhead_us:5.0f}x), total {theirs.seconds:6.2f} -> {ours.seconds:5.2f} s "
        f"({theirs.seconds / ours.seconds:5.1f}x), in the model {ours.model_seconds / ours.seconds:4.0%} of ours, "
        f"{theirs.model_seconds / theirs.seconds:4.0%} of theirs; {ours.queries} queries"
    )


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("model", ["lstm", "hashed"])
@pytest.mark.parametrize("attack", ["pwws", "deepwordbug"])
def test_black_box(attack: str, model: str, name: str, harness: Any, victims: Any, note: Any) -> None:
    victim = victims(model, name)
    some = datasets.subset(datasets.load(name).test, TEXTS[name], name)
    lexicon = lexicons.load("wordnet3.0") if attack == "pwws" else None
    if lexicon is not None:
        for word in {word for example in some for word in words_of(example.text)}:
            lexicon.synonyms(word)  # looked up once a machine; theirs are in nltk's memory as well
    wrapper = bridge.to_textattack(victim)
    recipe = harness.pwws(wrapper) if attack == "pwws" else harness.deepwordbug(wrapper)
    found = harness.compare(victim, registry.attack(f"{attack}.textattack"), recipe, some, lexicon=lexicon)
    told(note, f"{attack}, {name}, {model}", found)
    assert found.different == []
    assert found.theirs.overhead_us > 5 * found.ours.overhead_us


@pytest.mark.parametrize("name", TEXTS)
def test_hotflip(name: str, harness: Any, real_data: Path, note: Any, tmp_path: Path) -> None:
    dataset = datasets.load(name)
    wrapper = harness.word_lstm(datasets.subset(dataset.train, 600, name), len(dataset.labels), seed=3)
    victim = bridge.from_textattack(wrapper, name="its own lstm", classes=len(dataset.labels))
    vocabulary = harness.vocabulary_of(wrapper)
    words, vectors = harness.clustered(vocabulary, seed=1)
    np.savez(tmp_path / "vectors.npz", words=np.array(words), vectors=vectors)
    attack = replace(registry.attack("hotflip.textattack"), embedding=str(tmp_path / "vectors.npz"))  # type: ignore[type-var]
    some = datasets.subset(dataset.test, TEXTS[name], name)
    recipe = harness.hotflip(wrapper, words, vectors)
    harness.compare(victim, attack, recipe, some[:2], vocabulary=vocabulary)  # the tagger is loaded
    found = harness.compare(victim, attack, recipe, some, vocabulary=vocabulary)
    told(note, f"hotflip, {name}, its own lstm", found)
    assert found.different == []
