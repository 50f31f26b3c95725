"""What an attack does to reasons.

*Drift*: texts that an attack changed without changing the answer. If the words that count are then others, the
answer survived and its explanation did not. *Aim*: of the words that breaks changed, how many were among the top of
the attribution before: do attacks hit the words that explanations name, beyond what chance would?
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from grit.bench.explain.agreement import TOP, top
from grit.bench.sentence import Text
from grit.bench.types import Example, Outcome, Threat


@dataclass(frozen=True)
class Changed:
    """One attacked text: what became of it, and which of its words (between blanks) a script touched.

    ``origin`` [words of ``text``]: the number of the original word that each word of the attacked text stands for.
    """

    example: Example
    text: str
    origin: np.ndarray
    edited: frozenset[int]
    broken: bool


def changed(examples: Iterable[Example], outcomes: Iterable[Outcome]) -> Iterator[Changed]:
    """Every text that an attack changed: breaks, and the nearest misses on texts that survived."""
    by_id = {example.id: example for example in examples}
    for outcome in outcomes:
        if outcome.outcome in ("broken", "survived") and outcome.script and outcome.id in by_id:
            yield _apply(by_id[outcome.id], outcome)


def _apply(example: Example, outcome: Outcome) -> Changed:
    text = Text(example.text, Threat(spaces=("any",)))
    pieces, origin, edited = [], [], set()
    for number, (start, stop) in enumerate(text.piece_spans):
        here = tuple(edit for edit in outcome.script if text.piece_of(edit.index) == number)
        (piece,) = text.segments(start, stop, here)
        words = piece.split()
        pieces += words
        origin += [number] * len(words)
        if here:
            edited.add(number)
    return Changed(example, " ".join(pieces), np.array(origin, np.intp), frozenset(edited), outcome.outcome == "broken")


def carried_back(attribution: np.ndarray, origin: np.ndarray, words: int) -> np.ndarray:
    """The attribution of an attacked text, summed over what each original word became: [words]."""
    return np.bincount(origin, weights=attribution, minlength=words) if len(origin) else np.zeros(words)


def aim(before: np.ndarray, edited: frozenset[int], share: float = TOP) -> tuple[int, int, float]:
    """How many edited words were in the top of the attribution, how many there were, and what chance would hit."""
    best = top(before, share)
    return len(best & edited), len(edited), len(edited) * len(best) / len(before)
