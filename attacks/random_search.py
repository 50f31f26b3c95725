"""The control of every board: random candidates at random places, with as many queries as any attack has.

A guided search that finds fewer breaks than this one is broken itself.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from grit.bench.types import Edit, Question, Score, Script, Sentence, Threat

_UNION = Threat(spaces=("synonyms", "typos"))


@dataclass(frozen=True)
class RandomSearch:
    """Draws scripts with one to all of the allowed changes until one breaks; ``batch`` of them at a time."""

    threat: Threat = _UNION
    tier: str = "strong"
    batch: int = 64

    tiers: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "strong": {},
        "synonyms": {"tier": "synonyms", "threat": Threat(spaces=("synonyms",))},
        "typos": {"tier": "typos", "threat": Threat(spaces=("typos",))},
    }

    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        sites = [index for index in range(len(sentence.words)) if sentence.candidates(index)]
        while sites:  # until the budget is spent
            scripts = [self._draw(sentence, sites, rng) for _ in range(self.batch)]
            logits = yield Score(scripts)
            wrong = np.flatnonzero(logits.argmax(axis=1) != label)
            if len(wrong):
                return scripts[wrong[0]]
        return ()

    def _draw(self, sentence: Sentence, sites: list[int], rng: random.Random) -> Script:
        count = rng.randint(1, min(sentence.max_edits, len(sites)))
        chosen = sorted(rng.sample(sites, count))
        return tuple(Edit("replace", site, rng.choice(sentence.candidates(site))) for site in chosen)
