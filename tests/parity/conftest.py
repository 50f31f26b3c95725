"""TextAttack 0.3.11 itself beside our ``.textattack`` tiers: the same model, texts, seeds and rounding on both sides.

One victim answers both. It evaluates a text the same whatever stands in the batch (integer arithmetic, or double
precision rounded to 1e-8), so a difference between the two sides is a difference between the two searches. Ours
runs first and leaves, for every text, the state of its random generator; TextAttack's two global generators are
then set from that state before it attacks the text.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import importlib.util
import json
import os
import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grit.bench import datasets, registry
from grit.bench.evaluate import attack_all
from grit.bench.sentence import Lexicon, Text
from grit.bench.types import Attack, CouldNotMeasure, Dataset, Example, Outcome, Question, Script, Threat
from grit.bench.victim import CallableVictim, Respondent, Victim

SEED = 11


@pytest.fixture(scope="session")
def textattack() -> Any:
    """The module, from the pins of the extra; skips where it is not installed."""
    if importlib.util.find_spec("textattack") is None:
        pytest.skip("textattack is not installed: pip install 'gritbench[textattack]'")
    _find_nltk_data()
    import textattack

    return textattack


def _find_nltk_data() -> None:
    for folder in datasets.data_folders():
        os.environ.setdefault("NLTK_DATA", str(folder / "nltk_data"))


# --- one attack on both sides ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Result:
    """What one side did to one text; ``text`` is where its search ended, broken or not."""

    status: str
    text: str
    queries: int


@dataclasses.dataclass(frozen=True)
class Compared:
    examples: tuple[Example, ...]
    ours: tuple[Result, ...]
    theirs: tuple[Result, ...]
    seconds: tuple[float, float]  # ours, theirs
    model_seconds: tuple[float, float]  # of those, inside the model

    @property
    def different(self) -> list[tuple[str, Result, Result]]:
        return [
            (example.text, ours, theirs)
            for example, ours, theirs in zip(self.examples, self.ours, self.theirs, strict=True)
            if ours != theirs
        ]

    @property
    def counts(self) -> dict[str, int]:
        statuses = [each.status for each in self.theirs]
        return {"texts": len(statuses), **{status: statuses.count(status) for status in sorted(set(statuses))}}


class Recorded:
    """An attack that remembers, text by text, the generator it was given and where its search ended."""

    def __init__(self, attack: Attack) -> None:
        self.threat = attack.threat
        self.tier = attack.tier
        self.tiers: Mapping[str, Mapping[str, Any]] = {}
        self.states: dict[str, Any] = {}
        self.ends: dict[str, str] = {}
        self._attack = attack

    def attack(self, sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        self.states[sentence.text] = rng.getstate()
        script = yield from self._attack.attack(sentence, label, rng)
        self.ends[sentence.text] = sentence.apply(script)
        return script


class Timed:
    """A victim that says how long its model computed."""

    def __init__(self, victim: Respondent) -> None:
        self._victim = victim
        self.seconds = 0.0
        self.classes = victim.classes
        self.digest = victim.digest
        self.exact = victim.exact
        self.has_gradients = victim.has_gradients

    def __getattr__(self, name: str) -> Any:
        return getattr(self._victim, name)

    def _clocked(self, call: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        answer = call(*arguments)
        self.seconds += time.perf_counter() - started
        return answer

    def answer(self, asked: Any) -> Any:
        return self._clocked(self._victim.answer, asked)

    def gains(self, asked: Any) -> Any:
        return self._clocked(self._victim.gains, asked)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        return self._clocked(self._victim.logits, texts)


def compare(
    victim: Respondent,
    attack: Attack,
    build: Callable[[Any], Any],
    wrapper: Any,
    examples: Sequence[Example],
    *,
    lexicon: Lexicon | None = None,
    vocabulary: Sequence[str] = (),
) -> Compared:
    """``attack`` of ours and the one that ``build(wrapper)`` makes, on the same examples of the same victim."""
    examples = tuple({example.text: example for example in examples}.values())
    recorded, timed = Recorded(attack), Timed(victim)
    started = time.perf_counter()
    outcomes = attack_all(
        timed, recorded, examples, seed=SEED, name="parity", lexicon=lexicon, vocabulary=vocabulary
    )
    ours = time.perf_counter() - started
    theirs, their_seconds, their_model = _theirs(build, wrapper, examples, recorded.states)
    return Compared(
        examples,
        tuple(_ours(outcome, example, recorded) for outcome, example in zip(outcomes, examples, strict=True)),
        tuple(theirs),
        (ours, their_seconds),
        (timed.seconds, their_model),
    )


def _ours(outcome: Outcome, example: Example, recorded: Recorded) -> Result:
    if outcome.outcome == "error":
        raise AssertionError(f"{example.id}: {outcome.reason}")
    return Result(outcome.outcome, recorded.ends.get(example.text, example.text), outcome.queries)


def _theirs(
    build: Callable[[Any], Any], wrapper: Any, examples: Sequence[Example], states: Mapping[str, Any]
) -> tuple[list[Result], float, float]:
    names = {"Successful": "broken", "Failed": "survived", "Skipped": "skipped"}
    clock = Clock(wrapper)
    attack = build(clock)
    results = []
    seconds = 0.0
    for example in examples:
        if example.text in states:
            random.setstate(states[example.text])
            np.random.seed(random.getrandbits(32))  # noqa: NPY002  it draws from the global generator
        started = time.perf_counter()
        found = attack.attack(example.text, example.label)
        seconds += time.perf_counter() - started
        status = names[type(found).__name__.removesuffix("AttackResult")]
        # Its clean evaluation of a text that is skipped is no query of an attack to us.
        queries = 0 if status == "skipped" else found.perturbed_result.num_queries
        results.append(Result(status, found.perturbed_result.attacked_text.text, queries))
    return results, seconds, clock.seconds


def Clock(wrapper: Any) -> Any:  # noqa: N802  TextAttack asks for an instance of its own class
    """The wrapper with a clock around its calls and gradients."""

    class Clocked(type(wrapper)):  # type: ignore[misc]
        def __init__(self) -> None:
            self.__dict__.update(wrapper.__dict__)
            self.seconds = 0.0

        def __call__(self, texts: list[str], **rest: Any) -> Any:
            started = time.perf_counter()
            answer = wrapper(texts, **rest)
            self.seconds += time.perf_counter() - started
            return answer

        def get_grad(self, text: str, *rest: Any) -> Any:
            started = time.perf_counter()
            answer = wrapper.get_grad(text, *rest)
            self.seconds += time.perf_counter() - started
            return answer

    return Clocked()


def pwws(wrapper: Any, lexicon: Lexicon | None) -> Any:
    """TextAttack's PWWS; with a lexicon, its words are written instead of WordNet's."""
    from textattack.attack_recipes import PWWSRen2019
    from textattack.transformations import WordSwap

    class Table(WordSwap):
        def _get_replacement_words(self, word: str) -> list[str]:
            return list(lexicon.synonyms(word))

    attack = PWWSRen2019.build(wrapper)
    if lexicon is not None:
        attack.transformation = Table()
    return attack


def rounded(model: Any) -> CallableVictim:
    """A torch model in double precision, its logits rounded to 1e-8: alike in every batch."""
    import torch

    double = model.double().eval()

    @torch.no_grad()
    def logits(texts: list[str]) -> np.ndarray:
        tokens = [(double.tokenize(text) or [""])[: double.max_tokens] for text in texts]
        lengths = [len(each) for each in tokens]
        codes = torch.zeros(len(texts), max(lengths), dtype=torch.long)
        for row, each in enumerate(tokens):
            codes[row, : len(each)] = torch.from_numpy(np.asarray(double.codes(each)))
        return double.head(double.read(double.features(codes), torch.tensor(lengths)).state).numpy()

    class Rounded(CallableVictim):
        def logits(self, texts: Sequence[str]) -> np.ndarray:
            parts = [logits(list(texts[i : i + 128])) for i in range(0, len(texts), 128)]
            return np.round(np.concatenate(parts), 8) if parts else np.empty((0, self.classes))

    return Rounded(logits, name="rounded", classes=model.classes)


def loaded(model, dataset):
    import tempfile

    from grit.bench.export import build

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "artefact"
        path.write_bytes(build.deployed(model, [example.text for example in dataset.train[:200]]))
        return build.load(path)


# --- HotFlip: TextAttack's own LSTM, small, and word vectors of our making -----------------------------


def word_lstm(examples: Sequence[Example], classes: int, seed: int) -> Any:
    """TextAttack's LSTM class around an embedding of our own, trained for a moment: a PyTorchModelWrapper."""
    import torch
    from textattack.models import helpers
    from textattack.models.helpers import lstm_for_classification
    from textattack.models.helpers.glove_embedding_layer import EmbeddingLayer
    from textattack.models.wrappers import PyTorchModelWrapper

    counts = collections.Counter(word for example in examples for word in example.text.lower().split())
    words = sorted(word for word, count in counts.items() if count > 1)
    matrix = np.random.default_rng(seed).normal(size=(len(words), 24)).astype(np.float32)
    original = lstm_for_classification.GloveEmbeddingLayer
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # noqa: TID251  its layers draw from the global generator
        lstm_for_classification.GloveEmbeddingLayer = lambda emb_layer_trainable: EmbeddingLayer(
            embedding_matrix=matrix, word_list=words
        )
        try:
            model = helpers.LSTMForClassification(hidden_size=32, num_labels=classes, max_seq_length=256)
        finally:
            lstm_for_classification.GloveEmbeddingLayer = original
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        for epoch in range(3):
            order = np.random.default_rng(epoch).permutation(len(examples))
            for start in range(0, len(order), 32):
                some = [examples[i] for i in order[start : start + 32]]
                ids = torch.tensor(model.tokenizer([example.text for example in some]))
                loss = torch.nn.functional.cross_entropy(model(ids), torch.tensor([e.label for e in some]))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return PyTorchModelWrapper(model.eval(), model.tokenizer)


def clustered(words: Sequence[str], seed: int) -> tuple[list[str], np.ndarray]:
    """Vectors for half of the words, in bundles within which the cosine is about 0.8."""
    rng = np.random.default_rng(seed)
    known = [word for word in words if rng.random() < 0.5]
    centres = rng.normal(size=(4, 16))
    vectors = centres[rng.integers(0, 4, len(known))] + 0.45 * rng.normal(size=(len(known), 16))
    return known, vectors.astype(np.float32)


def hotflip(wrapper: Any, words: Sequence[str], vectors: np.ndarray) -> Any:
    """TextAttack's HotFlip, comparing words by the given vectors."""
    from textattack.attack_recipes import HotFlipEbrahimi2017
    from textattack.shared import WordEmbedding, utils

    rows = {word: row for row, word in enumerate(words)}
    name = "textattack_counterfitted_GLOVE_embedding"
    before = utils.GLOBAL_OBJECTS.get(name)
    utils.GLOBAL_OBJECTS[name] = WordEmbedding(vectors, rows, dict(enumerate(words)))
    try:
        return HotFlipEbrahimi2017.build(wrapper)
    finally:
        utils.GLOBAL_OBJECTS[name] = before
