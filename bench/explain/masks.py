"""Which words to hide: masks that preserve, promote or attack an answer. One optimiser, three signs.

With E(H) the evidence for a label when the words H read as unknown, each aim is the largest

    sign x E(H) - price x |H|

    preserve   +E, and hiding is paid for: hide all that is not needed, leave the reasons
    promote    +E, and hiding costs: hide the few words that speak against the answer
    attack     -E, and hiding costs: hide the few words that the answer stands on

Fong and Vedaldi (ICCV 2017) have the first and the last for images, as the preservation and the deletion game. The
price is in evidence a word: a word is hidden, or kept, only if it moves the evidence by more.

The evidence is that of the float model, whose gradients the search follows, not of the bytes that ship.

The search relaxes each word to a strength in [0, 1] between its features and the unknown word's, follows the gradient
from several starts, rounds, and then mends the best roundings by single and double changes until none helps. Which
masks are truly best is known for short texts, where all can be tried (:func:`enumerated`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import torch

from grit.bench.explain.cut import CutText
from grit.bench.explain.faithfulness import every_set
from grit.bench.explain.texts import evidence
from grit.bench.types import UsageError

Aim = Literal["preserve", "promote", "attack"]

_SIGNS: Mapping[Aim, tuple[float, float]] = {  # of the evidence, and of the words hidden
    "preserve": (1.0, 1.0),
    "promote": (1.0, -1.0),
    "attack": (-1.0, -1.0),
}
AIMS: tuple[Aim, ...] = tuple(_SIGNS)
ENUMERATED = 12  # words up to which all masks are tried
PAIRED = 40  # words up to which double changes are tried: there are n (n - 1) / 2 of them


class Mask(NamedTuple):
    kept: np.ndarray  # bool [words]
    value: float  # of the objective
    evidence: float  # for the label, under the mask


@dataclass(frozen=True)
class Relaxed:
    """The optimiser's settings; every one of them is ours."""

    starts: int = 4  # random ones, beside one in the middle, all kept, and all hidden
    steps: int = 40
    rate: float = 0.3  # of Adam, on the logits of the strengths
    mended: int = 3  # roundings that are mended


def objective(found: np.ndarray, kept: np.ndarray, aim: Aim, price: float) -> np.ndarray:
    """What the aim says of each mask: kept bool [rows words] and the evidence under them, found [rows] -> [rows]."""
    of_evidence, of_hidden = _SIGNS[aim]
    return of_evidence * found + of_hidden * price * (~kept).sum(axis=1)


def usual_price(cut: CutText, label: int) -> float:
    """A quarter of what a word is worth on average: |E(all words) - E(none)| / n / 4, at least 0.01."""
    n = len(cut.words)
    both = evidence(cut.logits(np.stack([np.ones(n, bool), np.zeros(n, bool)]), "occlude"), label)
    return max(abs(float(both[0] - both[1])) / max(n, 1) / 4, 0.01)


def enumerated(cut: CutText, label: int, price: float) -> Mapping[Aim, Mask]:
    """The best of all 2^n masks for every aim, of up to 12 words. The model is asked once for all of them."""
    n = len(cut.words)
    if n > ENUMERATED:
        raise UsageError(f"a text of {n} words has 2^{n} masks; up to {ENUMERATED} words are enumerated: use find()")
    kept = every_set(n)
    found = evidence(cut.logits(kept, "occlude"), label)
    return {aim: _chosen(found, kept, aim, price) for aim in AIMS}


def find(cut: CutText, label: int, aim: Aim, price: float, *, seed: int, settings: Relaxed | None = None) -> Mask:
    """A mask for an aim by the relaxed search; for the same seed the same mask."""
    settings = settings or Relaxed()
    if not cut.words:
        return _best(cut, label, aim, price, np.ones((1, 0), bool))
    strengths = _relaxed(cut, label, aim, price, seed, settings)
    rounded = np.unique(
        np.vstack([strengths > 0.5, np.ones((1, len(cut.words)), bool), np.zeros((1, len(cut.words)), bool)]), axis=0
    )
    values = objective(evidence(cut.logits(rounded, "occlude"), label), rounded, aim, price)
    chosen = rounded[np.argsort(-values, kind="stable")[: settings.mended]]
    return max((_mended(cut, label, aim, price, kept) for kept in chosen), key=lambda mask: mask.value)


def _relaxed(cut: CutText, label: int, aim: Aim, price: float, seed: int, settings: Relaxed) -> np.ndarray:
    """Strengths in [0, 1] after following the gradient from every start: [starts words]."""
    of_evidence, of_hidden = _SIGNS[aim]
    n = len(cut.words)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(settings.starts, n, generator=generator, dtype=torch.float64)
    ends = torch.tensor([[0.0], [2.0], [-2.0]], dtype=torch.float64).expand(3, n)
    logits = torch.cat([ends, drawn])
    owner = torch.from_numpy(cut.owner)
    change = cut.features - cut.blank
    # Adam (Kingma and Ba 2015) in three lines: torch's own brings its compiler along, seconds of import.
    first, second = torch.zeros_like(logits), torch.zeros_like(logits)
    for step in range(1, settings.steps + 1):
        with torch.enable_grad():
            here = logits.detach().requires_grad_()
            strength = here.sigmoid()  # [starts words]
            features = cut.blank + strength[:, owner, None] * change
            value = of_evidence * cut.evidence(features, label) + of_hidden * price * (1 - strength).sum(1)
            (slope,) = torch.autograd.grad(value.sum(), here)
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        logits = logits + settings.rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    return logits.sigmoid().numpy()


def _mended(cut: CutText, label: int, aim: Aim, price: float, kept: np.ndarray) -> Mask:
    """Changes of one word and of two, the best first, until none helps."""
    n = len(kept)
    singles = np.eye(n, dtype=bool)
    both = combinations(range(n if n <= PAIRED else 0), 2)
    pairs = np.array([singles[a] | singles[b] for a, b in both], bool).reshape(-1, n)
    here = _best(cut, label, aim, price, kept[None])
    while True:
        for changes in (singles, pairs):
            there = _best(cut, label, aim, price, here.kept ^ changes) if len(changes) else here
            if there.value > here.value + 1e-12:
                here = there
                break
        else:
            return here


def _best(cut: CutText, label: int, aim: Aim, price: float, kept: np.ndarray) -> Mask:
    return _chosen(evidence(cut.logits(kept, "occlude"), label), kept, aim, price)


def _chosen(found: np.ndarray, kept: np.ndarray, aim: Aim, price: float) -> Mask:
    values = objective(found, kept, aim, price)
    at = int(values.argmax())
    return Mask(kept[at], float(values[at]), float(found[at]))
