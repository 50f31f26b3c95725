"""A bag of words: each word votes for every class, and the mean vote decides.

The smallest model that learns, and the one whose answer to a changed word is known exactly: a word moves the mean
by its own votes and nothing else. So training against the worst words that an attacker may write (the objective
``bound``) is training against the attack itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch.nn import functional

from grit.bench import text
from grit.bench.types import Program, Recipe, Rows
from grit.models import _vocabulary
from grit.models._votes import Votes


class Bag(Votes):
    """logits = mean over tokens of row(word), plus a bias; words it does not know share one row."""

    @dataclass(frozen=True)
    class Config:
        vocabulary_size: int = 20_000  # words, the unknown one among them; ours, as the other models
        minimum_count: int = 2  # ours
        max_tokens: int = 128  # ours

    # Large batches and few steps: under attack the votes of rare words are what is learned by heart first.
    recipe: ClassVar[Recipe] = Recipe(epochs=20, batch_size=256, learning_rate=2.5e-2, patience=0)
    separable: ClassVar[bool] = True

    def __init__(self, config: Config, vocabulary: tuple[str, ...], classes: int) -> None:
        """The layers, weights still to be learned or loaded."""
        super().__init__(config, vocabulary, classes, len(vocabulary))
        self._index = _vocabulary.index(vocabulary)

    @classmethod
    def build(cls, config: Config, texts: Sequence[str], classes: int, seed: int) -> Self:
        """Weights start at zero, whatever the seed: the loss is convex."""
        return cls(config, _vocabulary.learn(texts, config.vocabulary_size, config.minimum_count), classes)

    def tokenize(self, raw: str) -> list[str]:
        return text.tokenize(raw)

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        return _vocabulary.rows(self._index, tokens)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return functional.embedding(codes, self.rows)

    def forward(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(self.features(codes), lengths).state)

    @torch.no_grad()
    def program(self) -> Program:
        return self.counted(Rows(self.rows.cpu().numpy().copy()))
