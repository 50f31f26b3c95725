"""TF-IDF with logistic regression: the classical reference that compact networks must beat.

Textbook weights: the share of the text that a word makes up, times its smoothed inverse document frequency; no
normalisation of the whole vector. So the logits are the mean over tokens of one learned, scaled row each, and
the model is separable like any embedding model.
"""

from __future__ import annotations

import math
from collections import Counter
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


class TfIdf(Votes):
    """logits = mean over tokens of idf(word) * row(word), plus a bias; a word never seen weighs nothing."""

    @dataclass(frozen=True)
    class Config:
        vocabulary_size: int = 20_000  # words, the unknown one among them; ours, as the other models
        minimum_count: int = 2  # ours
        max_tokens: int = 128  # ours

    recipe: ClassVar[Recipe] = Recipe(epochs=20, batch_size=64, learning_rate=2e-2)
    separable: ClassVar[bool] = True

    def __init__(self, config: Config, vocabulary: tuple[str, ...], classes: int) -> None:
        """The layers, idf and weights still to be learned or loaded."""
        super().__init__(config, vocabulary, classes, len(vocabulary))
        self._index = _vocabulary.index(vocabulary)
        self.idf: torch.Tensor
        self.register_buffer("idf", torch.zeros(len(vocabulary), 1))

    @classmethod
    def build(cls, config: Config, texts: Sequence[str], classes: int, seed: int) -> Self:
        """Weights start at zero, whatever the seed: the loss is convex."""
        vocabulary = _vocabulary.learn(texts, config.vocabulary_size, config.minimum_count)
        model = cls(config, vocabulary, classes)
        documents = Counter(word for raw in texts for word in set(text.tokenize(raw)))
        smoothed = [math.log((1 + len(texts)) / (1 + documents[word])) + 1 for word in vocabulary[1:]]
        model.idf[1:, 0] = torch.tensor(smoothed)  # row 0, the unknown word, stays 0
        return model

    def tokenize(self, raw: str) -> list[str]:
        return text.tokenize(raw)

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        return _vocabulary.rows(self._index, tokens)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return functional.embedding(codes, self.rows) * functional.embedding(codes, self.idf)

    def forward(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(self.features(codes), lengths).state)

    @torch.no_grad()
    def program(self) -> Program:
        return self.counted(Rows((self.rows * self.idf).cpu().numpy()))
