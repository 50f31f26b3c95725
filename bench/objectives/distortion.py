"""Misspelt words as training noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy

from grit.bench.objectives._fields import SHARE, check
from grit.bench.objectives._step import Scene, Step
from grit.bench.text import distort


@dataclass(frozen=True)
class Distortion:
    """Cross-entropy on texts whose tokens are misspelt with ``probability``.

    The word distorter of PRADO (Kaliamoorthi, Ravi, Kozareva, EMNLP 2019, and its authors' code, which trains
    with 0.25): one character lost, moved or inserted. A model that hashes whole words reads every misspelling
    as a new word, so this is where its robustness to typos comes from.
    """

    probability: float = 0.25

    needs_teacher: ClassVar[bool] = False
    adversarial: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check(self, probability=SHARE)

    def helper(self, scene: Scene) -> None:
        return None

    def __call__(self, step: Step) -> torch.Tensor:
        strings = step.scene.words.strings
        texts = [
            distort([strings[row] for row in line[:length]], step.random, self.probability)
            for line, length in zip(step.rows.tolist(), step.lengths.tolist(), strict=True)
        ]
        features = step.student.features(step.scene.codebook.spell(texts))
        return cross_entropy(step.again(features), step.labels)
