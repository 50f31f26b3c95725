"""Models for tests of explanations: small, in double precision, and known inside and out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from grit.bench.explain.cut import Cut, CutText
from grit.bench.text import ngrams, tokenize
from grit.bench.types import Reading

WORDS = ("good", "bad", "film", "a", "not", "plot", "very", "dull", "oh", "-", ",", ".")


class Words(torch.nn.Module):
    """What the models below share: a table of word vectors, row 0 for any other word, and a head."""

    def __init__(self, seed: int = 0, *, width: int = 3, classes: int = 3, max_tokens: int = 32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.separable = True
        self.classes = classes
        self.max_tokens = max_tokens
        self.table = torch.nn.Parameter(torch.randn(len(WORDS) + 1, width, generator=generator))
        self.out = torch.nn.Parameter(torch.randn(classes, width, generator=generator))

    def tokenize(self, text: str) -> list[str]:
        return tokenize(text)

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        return np.array([WORDS.index(token) + 1 if token in WORDS else 0 for token in tokens], np.int64)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(codes, self.table)

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return state @ self.out.T


class Linear(Words):
    """Sums word vectors: an explanation has one right answer."""

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        return Reading(features, real(features, lengths).sum(1))


class Bumpy(Words):
    """Each place weighs otherwise and bends its features, and neighbours multiply: order and company matter."""

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        inside = real(features, lengths)
        place = torch.arange(features.shape[1]).to(features.dtype)
        weight = 1 + torch.cos(place * 1.7)[:, None] / 2
        pairs = inside[:, 1:] * inside[:, :-1] if features.shape[1] > 1 else inside[:, :0]
        return Reading(features, (weight * torch.tanh(inside)).sum(1) + 0.3 * pairs.sum(1))


class Saturated(Words):
    """Bends the sum of all words: every word matters to what every other does."""

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        return Reading(features, torch.tanh(real(features, lengths).sum(1)))


class Bigrams(Bumpy):
    """Reads words and pairs of neighbours, so its tokenizer looks across blanks, backwards."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.separable = False

    def tokenize(self, text: str) -> list[str]:
        return ngrams(tokenize(text), 2)

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        return np.array([sum(map(ord, token)) % (len(WORDS) + 1) for token in tokens], np.int64)


def real(features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """features [batch seq feat] with zeros beyond the lengths."""
    inside = torch.arange(features.shape[1]) < lengths[:, None]
    return torch.where(inside[:, :, None], features, 0.0)


def opened(model: torch.nn.Module, text: str) -> CutText:
    untyped: Any = model
    return Cut(untyped).open(text)


def logits_of(model: Any, tokens: Sequence[str]) -> np.ndarray:
    """The plain way, one text at a time: float64 [classes]."""
    twin = type(model).__new__(type(model))
    twin.__dict__.update(model.__dict__)
    codes = torch.from_numpy(twin.codes(list(tokens)[: model.max_tokens] or [""]))
    with torch.no_grad():
        features = twin.features(codes[None]).double()
        state = twin.read(features, torch.tensor([features.shape[1]])).state
        return (state @ twin.out.double().T)[0].numpy()


def evidence_of(model: Any, tokens: Sequence[str], label: int) -> float:
    found = logits_of(model, tokens)
    return float(found[label] - found.mean())


def all_masks(n: int) -> np.ndarray:
    """bool [2^n n]"""
    return np.array(list(itertools.product([False, True], repeat=n)), bool).reshape(-1, n)
