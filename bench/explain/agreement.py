"""Do two explanations agree? The same words, two attributions: of a teacher and its student, of a text and its copy.

Loyalty is asked for the label that the teacher gives: do both count the same words for it? A number between two
models means nothing alone, so it stands beside a floor, random attributions, and a ceiling, the teacher against itself
trained from another seed. The ceiling is what training alone agrees on, not a bound: a student that was trained on the
attributions of this very teacher may come closer to it than the teacher's own twin, which never saw them.
"""

from __future__ import annotations

import math

import numpy as np

from grit.bench.explain.faithfulness import order_of, prefix_size

TOP = 0.2  # of the words, rounded up: the "top k" of every overlap here


def kendall(a: np.ndarray, b: np.ndarray) -> float | None:
    """Kendall's tau-b, with its correction for ties (Biometrika 1945); None where one of them is all ties.

    a, b [words]. From all pairs at once: a text has few words.
    """
    first, second = np.sign(a[:, None] - a[None, :]), np.sign(b[:, None] - b[None, :])
    untied = float(np.abs(first).sum()) * float(np.abs(second).sum())
    return float((first * second).sum()) / math.sqrt(untied) if untied else None


def top(attribution: np.ndarray, share: float = TOP) -> frozenset[int]:
    """The words of largest attribution, a share of them, rounded up."""
    return frozenset(order_of(attribution)[: prefix_size(len(attribution), share)].tolist())


def overlap(a: np.ndarray, b: np.ndarray, share: float = TOP) -> float:
    """Share of the top words of one attribution that are among those of the other."""
    mine, theirs = top(a, share), top(b, share)
    return len(mine & theirs) / len(mine)
