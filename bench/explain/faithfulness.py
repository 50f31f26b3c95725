"""Does the model depend on the words that an explanation names? Asked of the model, by deleting them.

With p(S) the probability, for the label that the whole text is given, of the text of the words S alone, N all n
words, and top(k) the k words of largest attribution (of equals, the earlier):

- *comprehensiveness*: p(N) - p(N without top(k)), the mean over k = 1, 5, 10, 20 and 50 % of n, rounded up. High is
  good: nothing was left out. DeYoung et al., "ERASER" (ACL 2020), section 4.2, who divide by six, not by five.
- *sufficiency*: p(N) - p(top(k)), the mean over the same k. Low is good: the words alone would do. (Same place.)
- *flip*: the share of words, most important first, that must go until the answer is another; 1 if it never is. Low
  is good. Serrano and Smith, "Is Attention Interpretable?" (ACL 2019), of sets of words.
- *aopc*: p(N) - p(N without top(k)), the mean over k = 1 to n. Samek et al., "Evaluating the Visualization of What a
  Deep Neural Network Has Learned" (TNNLS 2017), without its step that removes nothing.
- *normalised*: aopc, scaled so that 0 is the worst and 1 the best of all n! orders for this very model and text.
  Edin et al., "Normalized AOPC" (ACL 2025, arXiv 2408.08137). The others cannot compare two models: one whose
  probabilities hardly move has low scores whatever explains it. None where no order differs from another.

The bounds are exact up to :data:`EXACT` words. An order is a path from the whole text to the empty one that loses a
word a step, and its aopc the sum over the sets on its way: so the best path to a set extends the best to one of its
subsets, and a table of all 2^n sets gives both bounds. Longer texts are searched with a beam, which may miss the best
order, never beat it: bounds are then too tight, and a normalised score is cut to [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from grit.bench.explain.texts import Subject, probability

EXACT = 16  # words up to which all 2^n sets are asked
BEAM = 5  # as in Edin et al. (2025)
SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)


class Scores(NamedTuple):
    comprehensiveness: float
    sufficiency: float
    flip: float
    aopc: float
    normalised: float | None


class Bounds(NamedTuple):
    """The worst and the best aopc of any order; ``exact`` or found by a beam."""

    low: float
    high: float
    exact: bool


def order_of(attribution: np.ndarray) -> np.ndarray:
    """Numbers of the words, largest attribution first, of equals the earlier: [words]."""
    return np.argsort(-attribution, kind="stable")


def prefix_size(n: int, share: float) -> int:
    """How many words a share of ``n`` is: rounded up, at least one."""
    return max(1, math.ceil(share * n - 1e-9))


@dataclass(frozen=True)
class Curves:
    """What deleting words in one order does: after k = 0 to n of them."""

    without: np.ndarray  # [n + 1] p of what is left
    alone: np.ndarray  # [n + 1] p of the first k alone; alone[0] is of the empty text
    answers: np.ndarray  # [n + 1] the label given to what is left


class Faithfulness:
    """One text, one model: every score of any attribution. ``exact``: words up to which bounds are exact."""

    def __init__(self, subject: Subject, *, exact: int = EXACT, beam: int = BEAM) -> None:
        self._subject = subject
        self._exact = exact
        self._beam = beam
        self.n = len(subject.words)
        logits = subject.logits(np.ones((1, self.n), bool), "delete")
        self.label = int(logits[0].argmax())
        self.whole = float(probability(logits, self.label)[0])

    def scores(self, attribution: np.ndarray) -> Scores:
        """Of one attribution for :attr:`label`, [words]; a text needs a word."""
        curves = self.curves(order_of(attribution))
        sizes = [prefix_size(self.n, share) for share in SHARES]
        aopc = float((self.whole - curves.without[1:]).mean())
        flipped = np.flatnonzero(curves.answers != self.label)
        return Scores(
            float(np.mean([self.whole - curves.without[k] for k in sizes])),
            float(np.mean([self.whole - curves.alone[k] for k in sizes])),
            float(flipped[0] / self.n) if len(flipped) else 1.0,
            aopc,
            self.normalised(aopc),
        )

    def normalised(self, aopc: float) -> float | None:
        """Where an aopc stands between the bounds; None where they are one."""
        low, high, _ = self.bounds
        return min(max((aopc - low) / (high - low), 0.0), 1.0) if high - low > 1e-9 else None

    def curves(self, order: np.ndarray) -> Curves:
        gone = np.argsort(order) < np.arange(self.n + 1)[:, None]  # [k words]: the first k of the order
        logits = self._subject.logits(np.concatenate([~gone, gone]), "delete")
        p = probability(logits, self.label)
        return Curves(p[: self.n + 1], p[self.n + 1 :], logits[: self.n + 1].argmax(axis=1))

    @cached_property
    def bounds(self) -> Bounds:
        if self.n <= self._exact:
            low, high = exact_bounds(self._drops(~every_set(self.n)))
            return Bounds(low, high, True)
        low, high = self._searched()
        return Bounds(low, high, False)

    def _drops(self, kept: np.ndarray) -> np.ndarray:
        """p(N) - p(of the kept words): kept bool [rows words] -> [rows]."""
        return self.whole - probability(self._subject.logits(kept, "delete"), self.label)

    def _searched(self) -> tuple[float, float]:
        """The least and the largest aopc that two beams find, which ask the model side by side."""
        signs = (-1.0, 1.0)
        beams = [(np.zeros((1, self.n), bool), np.zeros(1)) for _ in signs]  # sets of words gone, sign x sum of drops
        for _ in range(self.n):
            grown = [_grown(*beam) for beam in beams]
            drops = self._drops(~np.concatenate([gone for gone, _ in grown]))
            for at, ((gone, best), here) in enumerate(zip(grown, np.split(drops, [len(grown[0][0])]), strict=True)):
                total = best + signs[at] * here
                kept = np.argsort(-total, kind="stable")[: self._beam]
                beams[at] = gone[kept], total[kept]
        low, high = (float(sign * sums[0] / self.n) for sign, (_, sums) in zip(signs, beams, strict=True))
        return low, high


def _grown(gone: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every set with one word more, gone bool [sets words] -> [more words], and the best sum that leads to it."""
    parent, word = np.nonzero(~gone)
    grown = gone[parent]
    grown[np.arange(len(word)), word] = True
    # 64 words make one number: sorts as numpy.unique sorts rows, many times as fast
    padded = np.pad(grown, ((0, 0), (0, -grown.shape[1] % 64)))
    keys = np.packbits(padded, axis=1).view(">u8").astype(np.uint64)
    order = np.lexsort(keys.T[::-1])
    fresh = np.concatenate([[True], (keys[order[1:]] != keys[order[:-1]]).any(axis=1)])
    best = np.maximum.reduceat(sums[parent[order]], np.flatnonzero(fresh))  # of two ways to one set the better
    return grown[order[fresh]], best


def every_set(n: int) -> np.ndarray:
    """All sets of n words, bool [2^n n]: the place's bits, the highest the first word.

    So texts that begin alike stand side by side, and an artefact reads a common beginning once.
    """
    return (np.arange(1 << n)[:, None] >> np.arange(n)[::-1] & 1).astype(bool)


def exact_bounds(drops: np.ndarray) -> tuple[float, float]:
    """The least and the largest mean of ``drops`` [2^n] along any path that adds a bit a step, from 0 to all bits.

    drops[0], of which every path would have the same share, is left out.
    """
    n = len(drops).bit_length() - 1
    sets = np.arange(len(drops))
    size = np.bitwise_count(sets)
    low, high = np.zeros(len(drops)), np.zeros(len(drops))
    for level in range(1, n + 1):
        here = sets[size == level]
        below = here[:, None] ^ (1 << np.arange(n))  # a bit less, or, where it was not set, a bit more
        smaller = below < here[:, None]
        low[here] = drops[here] + np.where(smaller, low[below], np.inf).min(axis=1)
        high[here] = drops[here] + np.where(smaller, high[below], -np.inf).max(axis=1)
    return float(low[-1] / n), float(high[-1] / n)
