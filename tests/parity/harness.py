"""TextAttack 0.3.11 itself beside our ``.textattack`` tiers: the same model, texts, seeds and rounding on both sides.

One victim answers both. It evaluates a text the same whatever stands in the batch (integer arithmetic, or double
precision rounded to 1e-8), so a difference between the two sides is a difference between the two searches. Ours
runs first and leaves, for every text, the state of its random generator; TextAttack's two global generators are
then set from that state before it attacks the text.

TextAttack's PWWS ranks words by a softmax in single precision, whose last bit depends on torch's kernel for this
processor; where two words are as important to seven digits, that bit decides which comes first. A text on which
the sides differ is therefore attacked by TextAttack once more with the softmax that we compute, and only what
differs still counts as different; the others are counted apart.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from grit.bench import datasets, live
from grit.bench.evaluate import attack_all
from grit.bench.export import build
from grit.bench.sentence import Lexicon
from grit.bench.types import Attack, Dataset, Example, Outcome, Question, Recipe, Script
from grit.bench.victim import CallableVictim, Respondent, Victim

SEED = 11


# --- one attack on both sides ------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What one side did to one text; ``text`` is where its search ended, broken or not."""

    status: str
    text: str
    queries: int


@dataclass(frozen=True)
class Side:
    results: tuple[Result, ...]
    seconds: float
    model_seconds: float  # of those, inside the victim: cutting a text into tokens, and computing on them
    arithmetic_seconds: float  # of those, computing; 0 for a victim that :data:`ARITHMETIC` is not put around

    @property
    def queries(self) -> int:
        return sum(result.queries for result in self.results)

    @property
    def overhead_us(self) -> float:
        """Microseconds a query outside the victim."""
        return 1e6 * (self.seconds - self.model_seconds) / max(self.queries, 1)


Difference = tuple[str, Result, Result]
"""A text, what we made of it, what they did."""


@dataclass(frozen=True)
class Compared:
    examples: tuple[Example, ...]
    ours: Side
    theirs: Side
    different: list[Difference]
    last_bit: list[Difference]  # equal where both sides compute the same softmax

    def line(self, name: str) -> str:
        counts = collections.Counter(result.status for result in self.theirs.results)
        said = ", ".join(f"{counts[status]} {status}" for status in ("broken", "survived", "skipped"))
        return (
            f"{name}: {len(self.examples)} texts ({said}), {self.theirs.queries} queries, "
            f"{len(self.different)} different"
            + (f", {len(self.last_bit)} by the last bit of a softmax" if self.last_bit else "")
        )


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


class Clock:
    """Adds up the time of the processor inside the calls that it is put around."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.process_time()
            answer = call(*arguments, **named)
            self.seconds += time.process_time() - started
            return answer

        return timed


ARITHMETIC = Clock()
"""What a model computes on rows of tokens, whichever side asks."""


class Timed:
    """A victim that says how long it took to read texts and to answer, which is what a model wrapper does too."""

    def __init__(self, victim: Respondent) -> None:
        self._victim = victim
        self.clock = Clock()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._victim, name)
        return self.clock.around(found) if name in ("answer", "gains", "logits") else found

    def open(self, sentence: Any) -> Any:
        subject: Any = self.clock.around(self._victim.open)(sentence)
        subject._reader = SimpleNamespace(read=self.clock.around(subject._reader.read))
        return subject


def compare(
    victim: Respondent,
    attack: Attack,
    recipe: Any,
    examples: Sequence[Example],
    *,
    lexicon: Lexicon | None = None,
    vocabulary: Sequence[str] = (),
) -> Compared:
    """``attack`` of ours and a built ``recipe`` of theirs on the same examples; times are of the processor."""
    examples = tuple({example.text: example for example in examples}.values())
    recorded, timed = Recorded(attack), Timed(victim)
    started, computed = time.process_time(), ARITHMETIC.seconds
    outcomes = attack_all(timed, recorded, examples, seed=SEED, name="parity", lexicon=lexicon, vocabulary=vocabulary)
    seconds = time.process_time() - started
    found = [_ours(outcome, example, recorded) for outcome, example in zip(outcomes, examples, strict=True)]
    ours = Side(tuple(found), seconds, timed.clock.seconds, ARITHMETIC.seconds - computed)
    theirs = _theirs(recipe, examples, recorded.states)
    unequal = [i for i, result in enumerate(theirs.results) if result != ours.results[i]]
    with _our_softmax():
        again = _theirs(recipe, [examples[i] for i in unequal], recorded.states).results
    different: list[Difference] = []
    last_bit: list[Difference] = []
    for i, result in zip(unequal, again, strict=True):
        kind = last_bit if result == ours.results[i] else different
        kind.append((examples[i].text, ours.results[i], theirs.results[i]))
    return Compared(examples, ours, theirs, different, last_bit)


def _ours(outcome: Outcome, example: Example, recorded: Recorded) -> Result:
    assert outcome.outcome != "error", f"{example.id}: {outcome.reason}"
    return Result(outcome.outcome, recorded.ends.get(example.text, example.text), outcome.queries)


def _theirs(recipe: Any, examples: Sequence[Example], states: Mapping[str, Any]) -> Side:
    names = {"Successful": "broken", "Failed": "survived", "Skipped": "skipped"}
    results = []
    with _clock(type(recipe.goal_function.model)) as clock:
        started, computed = time.process_time(), ARITHMETIC.seconds
        for example in examples:
            if example.text in states:
                random.setstate(states[example.text])
                np.random.seed(random.getrandbits(32))  # noqa: NPY002, TID251  it draws from the global generator
            found = recipe.attack(example.text, example.label)
            status = names[type(found).__name__.removesuffix("AttackResult")]
            # To us the clean evaluation of a text that is skipped is no query of an attack.
            queries = 0 if status == "skipped" else found.perturbed_result.num_queries
            results.append(Result(status, found.perturbed_result.attacked_text.text, queries))
        seconds = time.process_time() - started
    return Side(tuple(results), seconds, clock.seconds, ARITHMETIC.seconds - computed)


@contextlib.contextmanager
def _our_softmax() -> Iterator[None]:
    """TextAttack's ranking of words with the softmax of ours, which numpy computes."""
    import torch
    from textattack.search_methods import greedy_word_swap_wir as search

    from grit.attacks._textattack import softmax32

    before = search.softmax
    search.softmax = lambda scores, dim: torch.from_numpy(softmax32(scores.double().numpy()))
    try:
        yield
    finally:
        search.softmax = before


@contextlib.contextmanager
def _clock(wrapper: type) -> Iterator[Clock]:
    """Adds up the time inside the calls and the gradients of a class of model wrappers."""
    clock = Clock()
    originals = {name: getattr(wrapper, name) for name in ("__call__", "get_grad")}
    for name, method in originals.items():
        setattr(wrapper, name, clock.around(method))
    try:
        yield clock
    finally:
        for name, method in originals.items():
            setattr(wrapper, name, method)


# --- their recipes -----------------------------------------------------------------------------------


def deepwordbug(wrapper: Any) -> Any:
    from textattack.attack_recipes import DeepWordBugGao2018

    return DeepWordBugGao2018.build(wrapper)


def pwws(wrapper: Any, lexicon: Lexicon | None = None) -> Any:
    """TextAttack's PWWS over its own reading of WordNet, or over the words of a lexicon."""
    from textattack.attack_recipes import PWWSRen2019

    with contextlib.nullcontext() if lexicon is None else lexicon_for_wordnet(lexicon):
        return PWWSRen2019.build(wrapper)


@contextlib.contextmanager
def lexicon_for_wordnet(lexicon: Lexicon) -> Iterator[None]:
    """Whatever TextAttack builds meanwhile takes its synonyms from a lexicon; WordNet need not be here."""
    from textattack.attack_recipes import pwws_ren_2019
    from textattack.shared import utils
    from textattack.transformations import WordSwap

    class Table(WordSwap):
        def _get_replacement_words(self, word: str) -> list[str]:
            # What its WordNet swap leaves out too: phrases, and whatever does not read as one word.
            return [other for other in lexicon.synonyms(word) if "_" not in other and utils.is_one_word(other)]

    before = pwws_ren_2019.WordSwapWordNet
    pwws_ren_2019.WordSwapWordNet = Table
    try:
        yield
    finally:
        pwws_ren_2019.WordSwapWordNet = before


def hotflip(wrapper: Any, words: Sequence[str], vectors: np.ndarray) -> Any:
    """TextAttack's HotFlip, comparing words by the given vectors."""
    from textattack.attack_recipes import HotFlipEbrahimi2017
    from textattack.shared import WordEmbedding, utils

    rows = {word: row for row, word in enumerate(words)}
    name = "textattack_counterfitted_GLOVE_embedding"  # where it looks before it fetches
    before = utils.GLOBAL_OBJECTS.get(name)
    utils.GLOBAL_OBJECTS[name] = WordEmbedding(vectors, rows, dict(enumerate(words)))
    try:
        return HotFlipEbrahimi2017.build(wrapper)
    finally:
        utils.GLOBAL_OBJECTS[name] = before


# --- victims -----------------------------------------------------------------------------------------


def _small(dataset: Dataset, n: int) -> Dataset:
    train = datasets.subset(dataset.train, n, dataset.name)
    return replace(dataset, train=train, dev=datasets.subset(dataset.dev, 200, dataset.name))


def lstm(dataset: Dataset) -> CallableVictim:
    """A narrow student, in torch."""
    return in_torch(student(dataset, embedding=16, hidden=16))


def student(dataset: Dataset, n: int = 2000, **config: int) -> Any:
    """The student, trained for a moment on ``n`` texts."""
    from grit.bench.schemes import get
    from grit.bench.train import train
    from grit.models.student import Student

    recipe = Recipe(epochs=6, learning_rate=1e-2)
    return train(Student, Student.Config(**config), recipe, _small(dataset, n), get("natural"), seed=0).model


def in_torch(trained: Any) -> CallableVictim:
    """A model in double precision; logits rounded to 1e-8 are alike in every batch."""
    import torch

    model = copy.deepcopy(trained).double().eval()

    @torch.no_grad()
    def logits(texts: list[str]) -> np.ndarray:
        tokens = [(model.tokenize(text) or [""])[: model.max_tokens] for text in texts]
        lengths = [len(each) for each in tokens]
        codes = torch.zeros(len(texts), max(lengths), dtype=torch.long)
        for row, each in enumerate(tokens):
            codes[row, : len(each)] = torch.from_numpy(np.asarray(model.codes(each)))
        return model.head(model.read(model.features(codes), torch.tensor(lengths)).state).numpy()

    return Rounded(logits, name="lstm", classes=model.classes)


def deployed(trained: Any, texts: Sequence[str], path: Path) -> Victim:
    """The int8 artefact of a model, in integer arithmetic: compiled where a compiler is here, else in numpy."""
    path.write_bytes(build.deployed(trained, texts))
    return clocked(build.quickest(build.load(path)))


def as_it_stands(trained: Any) -> Victim:
    """The torch model itself, in double precision."""
    return clocked(live.LiveArtefact(trained))


def clocked(artefact: Any) -> Victim:
    """An artefact under attack whose computing :data:`ARITHMETIC` adds up."""
    artefact.logits = ARITHMETIC.around(artefact.logits)
    return Victim(artefact)


class Rounded(CallableVictim):
    """Its logits are rounded to 1e-8, and to nothing coarser."""

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        parts = [self._function(list(texts[i : i + 128])) for i in range(0, len(texts), 128)]
        return np.round(np.concatenate(parts), 8) if parts else np.empty((0, self.classes))


def hashed(dataset: Dataset, folder: Path, n: int = 2000) -> Victim:
    """The hashed linear model, trained for a moment and deployed."""
    from grit.bench.schemes import get
    from grit.bench.train import train
    from grit.models.hashed import Hashed

    config, recipe = Hashed.Config(buckets=4096), Recipe(epochs=5, learning_rate=5e-2)
    small = _small(dataset, n)
    model = train(Hashed, config, recipe, small, get("natural"), seed=0).model
    texts = [example.text for example in small.train[:200]]
    return deployed(model, texts, folder / f"{dataset.name}.artefact")


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
    lstm_for_classification.GloveEmbeddingLayer = lambda emb_layer_trainable: EmbeddingLayer(
        embedding_matrix=matrix, word_list=words
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # noqa: TID251  its layers draw from the global generator
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


def vocabulary_of(wrapper: Any) -> tuple[str, ...]:
    """What TextAttack's HotFlip may write: the word of every row of the embedding but that of the padding."""
    rows = len(wrapper.model.get_input_embeddings().weight)
    words = wrapper.tokenizer
    return tuple(words.convert_id_to_word(row) for row in range(rows) if row != words.pad_token_id)


def clustered(words: Sequence[str], seed: int) -> tuple[list[str], np.ndarray]:
    """Vectors for half of the words, in bundles within which the cosine is about 0.8."""
    rng = np.random.default_rng(seed)
    known = [word for word in words if rng.random() < 0.5]
    centres = rng.normal(size=(4, 16))
    vectors = centres[rng.integers(0, 4, len(known))] + 0.45 * rng.normal(size=(len(known), 16))
    return known, vectors.astype(np.float32)
