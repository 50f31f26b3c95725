"""The project's attacks on the artefact that a user's copy becomes: its bytes, not its float weights.

A copy that gives one label to everything is broken by nobody. So beside the worst case over all held-out texts stands
what the attacks do to texts of other labels than the majority of those it learned from: there such a copy is wrong
before any attack.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from grit.bench import evaluate
from grit.bench.export import packing
from grit.bench.export.quantise import quantise
from grit.bench.personalize.arms import WithExtractor, WithToken
from grit.bench.twin import Twin
from grit.bench.types import Artefact, Attack, CouldNotMeasure, Example, MalformedInput, Model, Outcome, Program, Rows
from grit.bench.victim import Victim

USER_WORD = "\ue000"  # a private-use character: one token, and in no text that was normalised and meant to be read


@dataclass(frozen=True)
class Withstood:
    """Counts over ``n`` held-out texts; of the ``minority`` of them whose label is not the favourite."""

    n: int
    clean: int  # right before any attack
    robust: int  # right after every attack
    minority: int
    minority_attacked: int  # right before any attack
    minority_broken: int


def attacked(
    model: Model,
    examples: Sequence[Example],
    favourite: int,
    attacks: Mapping[str, Attack],
    texts: Sequence[str],
    seed: int,
) -> Withstood:
    """Every attack on what the ones before it left. ``texts`` calibrate the artefact.

    favourite: the most frequent label of the texts that were learned from (:func:`.protocol.majority`).

    Raises CouldNotMeasure for a model that has no artefact of ours.
    """
    victim = Victim(shipped(model, texts), Twin(model))
    outcomes: dict[str, Sequence[Outcome]] = {}
    for name, attack in attacks.items():
        standing = evaluate.standing(examples, outcomes.values())
        outcomes[name] = evaluate.attack_all(victim, attack, standing, seed=seed, name=name)
    found = [outcome for each in outcomes.values() for outcome in each]
    skipped = {outcome.id for outcome in found if outcome.outcome == "skipped"}
    lost = {outcome.id for outcome in found if outcome.outcome in ("broken", "error")}
    rare = {example.id for example in examples if example.label != favourite}
    return Withstood(
        n=len(examples),
        clean=len(examples) - len(skipped),
        robust=len(examples) - len(skipped | lost),
        minority=len(rare),
        minority_attacked=len(rare - skipped),
        minority_broken=len((rare & lost) - skipped),
    )


def shipped(model: Model, texts: Sequence[str]) -> Artefact:
    """The int8 artefact of a personal model; CouldNotMeasure for one that has none."""
    if isinstance(model, WithToken):
        return Prefixed(_artefact(with_word(_program(model.under), model.token), [f"{USER_WORD} {t}" for t in texts]))
    if isinstance(model, WithExtractor):
        return Fused(_artefact(_program(model.under), texts), model)
    return _artefact(_program(model), texts)


def _program(model: Model) -> Program:
    program = model.program()
    if program is None:
        raise CouldNotMeasure("the model states no program, so its personal copy has no artefact to attack")
    return program


def _artefact(program: Program, texts: Sequence[str]) -> Artefact:
    try:
        return packing.artefact(packing.pack(quantise(program, texts)))
    except MalformedInput as error:  # a copy that learned itself out of all bounds ends no study
        raise CouldNotMeasure(f"the personal copy has no artefact: {error}") from error


def with_word(program: Program, vector: torch.Tensor) -> Program:
    """The program with one more word, :data:`USER_WORD`, whose row is the user's vector."""
    if not isinstance(program.words, Rows) or program.words.ngrams:
        raise CouldNotMeasure("a user's word needs a row of a word table; this model hashes its words")
    table = np.concatenate([program.words.table, vector.detach().numpy()[None]]).astype(np.float32)
    return dataclasses.replace(
        program,
        words=Rows(table),
        vocabulary=(*program.vocabulary, USER_WORD),
        max_tokens=program.max_tokens + 1,
    )


class Prefixed:
    """An artefact that reads the user's word before every text. Nobody who writes texts can change that word."""

    def __init__(self, inner: Artefact) -> None:
        self._inner = inner
        self._row = int(inner.intern([USER_WORD])[0])
        self.separable, self.exact, self.classes = inner.separable, inner.exact, inner.classes
        self.max_tokens, self.digest, self.sizes_bytes = inner.max_tokens - 1, inner.digest, inner.sizes_bytes
        self.tokenize, self.intern, self.token = inner.tokenize, inner.intern, inner.token

    def logits(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        first = np.full((len(rows), 1), self._row, rows.dtype)
        return self._inner.logits(np.concatenate([first, rows], 1), np.minimum(lengths, self.max_tokens) + 1)


class Fused:
    """The untouched artefact of the global model, and the user's extractor in float beside it."""

    exact = False

    def __init__(self, inner: Artefact, model: WithExtractor) -> None:
        self._inner, self._model = inner, model
        self.separable, self.classes, self.max_tokens = inner.separable, inner.classes, inner.max_tokens
        self.sizes_bytes: Mapping[str, int] = {**inner.sizes_bytes, "extractor": model.bytes}
        self.digest = f"{inner.digest}+extractor"
        self.tokenize, self.intern, self.token = inner.tokenize, inner.intern, inner.token

    def logits(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        lengths = np.minimum(lengths, self.max_tokens)
        model = self._model.under
        distinct, places = np.unique(rows, return_inverse=True)
        codes = model.codes([self.token(int(row)) for row in distinct])[places.reshape(rows.shape)]
        with torch.no_grad():
            reached = torch.from_numpy(lengths.astype(np.int64))
            words = model.read(model.features(torch.from_numpy(codes)), reached).words
            real = (torch.arange(rows.shape[1]) < reached[:, None])[..., None]
            added = self._model.added((words * real).sum(1) / reached[:, None])
        return self._inner.logits(rows, lengths) + added.numpy()
