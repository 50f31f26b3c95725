"""A linear model over hashed words and word pairs: no vocabulary to ship, collisions instead.

The hashing trick of Weinberger et al. (ICML 2009), without its sign hash, over the words and bigrams of
fastText (Joulin et al., EACL 2017) and without its hidden layer.
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
from grit.models._votes import Votes


class Hashed(Votes):
    """logits = mean over n-grams of row(hash(n-gram)), plus a bias. Its tokens are the n-grams."""

    @dataclass(frozen=True)
    class Config:
        buckets: int = 1 << 14  # rows; ours
        order: int = 2  # words and bigrams (Joulin et al.)
        max_tokens: int = 255  # n-grams: what 128 words make

    recipe: ClassVar[Recipe] = Recipe(epochs=20, batch_size=64, learning_rate=5e-2)
    separable: ClassVar[bool] = False  # a bigram looks across white space

    def __init__(self, config: Config, vocabulary: tuple[str, ...], classes: int) -> None:
        """The layers, weights still to be loaded; ``vocabulary`` is ``()``."""
        if vocabulary:
            raise ValueError(f"a hashed model has no vocabulary, got {len(vocabulary)} words")
        super().__init__(config, vocabulary, classes, config.buckets)

    @classmethod
    def build(cls, config: Config, texts: Sequence[str], classes: int, seed: int) -> Self:
        """Nothing is learned from ``texts``; weights start at zero, whatever the seed: the loss is convex."""
        return cls(config, (), classes)

    def tokenize(self, raw: str) -> list[str]:
        return text.ngrams(text.tokenize(raw), self.config.order)

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        return np.fromiter((text.bucket(token, self.config.buckets) for token in tokens), np.int64, len(tokens))

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return functional.embedding(codes, self.rows)

    def forward(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(self.features(codes), lengths).state)

    @torch.no_grad()
    def program(self) -> Program:
        return self.counted(Rows(self.rows.cpu().numpy().copy(), self.config.order))
