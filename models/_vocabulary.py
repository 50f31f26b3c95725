"""Vocabularies of the models that look words up: learned from training texts, read by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from grit.bench.text import tokenize

UNKNOWN = ""  # row 0 of every vocabulary


def learn(texts: Sequence[str], size: int, minimum_count: int) -> tuple[str, ...]:
    """At most ``size`` words, the unknown one first, then by falling count; equal counts in the order of the alphabet.

    A word seen fewer than ``minimum_count`` times in ``texts`` stays out, so that training meets the unknown word.
    """
    counts = Counter(token for text in texts for token in tokenize(text))
    frequent = sorted((-count, word) for word, count in counts.items() if count >= minimum_count)
    return (UNKNOWN, *(word for _, word in frequent[: size - 1]))


def index(vocabulary: Sequence[str]) -> dict[str, int]:
    """word -> row."""
    return {word: row for row, word in enumerate(vocabulary)}


def rows(words: Mapping[str, int], tokens: Sequence[str]) -> np.ndarray:
    """tokens -> int64 rows [tokens]; what is not in the vocabulary reads row 0."""
    return np.fromiter((words.get(token, 0) for token in tokens), np.int64, len(tokens))
