"""Texts as the global model reads them: tokens are cut and looked up once, and what stays frozen is computed once.

An arm that leaves the body alone needs no pass through it: the state of every text is the same in all epochs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch import nn

from grit.bench.objectives._words import Codebook, Split, Words
from grit.bench.types import Example, Model

_BATCH = 256


@dataclass(frozen=True, eq=False)
class Frozen:
    """What the global model makes of texts."""

    words: torch.Tensor  # [texts feat] the mean over a text's tokens of what the body reads
    state: torch.Tensor  # [texts feat] what its head reads
    logits: torch.Tensor  # [texts classes]


class Base:
    """A global model, frozen, in evaluation mode, and the tokens it has met."""

    def __init__(self, model: Model) -> None:
        frozen = copy.deepcopy(model)
        cast(nn.Module, frozen).eval().requires_grad_(False)
        self.model: Model = frozen
        self.classes = model.classes
        self.codebook = Codebook(Words(), frozen)

    def texts(self, examples: Sequence[Example]) -> Texts:
        return Texts(self, examples)

    def copied(self) -> Model:
        """A model of its own, every weight of which may be trained; no dropout, no moving statistics."""
        mine = copy.deepcopy(self.model)
        cast(nn.Module, mine).eval().requires_grad_(True)
        return mine

    @cached_property
    def parts(self) -> dict[str, str]:
        """Name of each weight -> the part it belongs to."""
        return weights_by_part(self.copied())

    @cached_property
    def own(self) -> dict[str, torch.Tensor]:
        """Name of each weight -> the weight."""
        return dict(cast(nn.Module, self.model).named_parameters())

    @cached_property
    def widths(self) -> tuple[int, int]:
        """Numbers in a word that the body has read, and in the state that the head reads."""
        with torch.no_grad():
            features = self.model.features(torch.from_numpy(self.model.codes([""]))[None])
            reading = self.model.read(features, torch.ones(1, dtype=torch.long))
        return reading.words.shape[-1], reading.state.shape[-1]


class Texts:
    """Some examples, ready for any arm over one :class:`Base`."""

    def __init__(self, base: Base, examples: Sequence[Example]) -> None:
        self.base = base
        self.examples = tuple(examples)
        self._split = Split(base.model, base.codebook.words, examples)
        self.labels = torch.from_numpy(self._split.labels)
        self._firsts: dict[int, Texts] = {}

    def __len__(self) -> int:
        return len(self.examples)

    def codes(self, index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes [batch seq (feat)] and lengths [batch] of some of the texts."""
        rows = self.base.codebook.codes(self._split.rows(index))
        return rows, torch.from_numpy(self._split.lengths[index])

    def batches(self, size: int = _BATCH) -> list[np.ndarray]:
        """All places, texts of like length together."""
        return self._split.batches(size)

    def first(self, k: int) -> Texts:
        """The first ``k``, read once: every arm learns from the same ones."""
        if k not in self._firsts:
            self._firsts[k] = Texts(self.base, self.examples[:k])
        return self._firsts[k]

    @cached_property
    def tokens(self) -> tuple[frozenset[str], ...]:
        """The distinct tokens that the model read of each text."""
        strings = self.base.codebook.words.strings
        return tuple(
            frozenset(strings[row] for row in self._split.rows(np.array([at]))[0]) for at in range(len(self.examples))
        )

    @cached_property
    def frozen(self) -> Frozen:
        model = self.base.model
        words: list[torch.Tensor] = [torch.zeros(0)] * len(self)
        state, logits = list(words), list(words)
        with torch.no_grad():
            for index in self.batches():
                codes, lengths = self.codes(index)
                features = model.features(codes)
                reading = model.read(features, lengths)
                real = (torch.arange(features.shape[1]) < lengths[:, None])[..., None]
                mean = (reading.words * real).sum(1) / lengths[:, None]
                answered = model.head(reading.state)
                for place, at in enumerate(index.tolist()):
                    words[at], state[at], logits[at] = mean[place], reading.state[place], answered[place]
        return Frozen(torch.stack(words), torch.stack(state), torch.stack(logits))


def weights_by_part(model: Model) -> dict[str, str]:
    """Name of each trainable weight -> the part of the arrow it belongs to: embedding, body or head.

    Asked of the gradients, so that any model answers: what moves the features is embedding, what moves the logits at a
    given state is head, all others are body.
    """
    module = cast(nn.Module, model)
    named = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    features = model.features(torch.from_numpy(model.codes(["", ""]))[None])
    reading = model.read(features.detach(), torch.tensor([2]))
    parts = dict.fromkeys(named, "body")
    for part, output in (("embedding", features), ("head", model.head(reading.state.detach()))):
        if output.requires_grad:
            gradients = torch.autograd.grad(output.sum(), list(named.values()), allow_unused=True)
            parts.update({name: part for name, found in zip(named, gradients, strict=True) if found is not None})
    return parts
