"""Explainable feature mapping by regression: the student's features, projected, lie where the teacher's lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import normalize

from grit.bench.objectives._fields import AMOUNT, check
from grit.bench.objectives._step import Scene, Step


@dataclass(frozen=True)
class Regress:
    """|| P s / |P s|  -  t / |t| ||^2 for word vectors and for states; the projections P are thrown away after.

    Projected hints: Romero et al. (ICLR 2015), "FitNets", section 2.2; the normalised distance: Sun et al.
    (EMNLP 2019), "Patient Knowledge Distillation", section 3.2. Words are averaged over what stands between
    white space; for models that look across white space only the states are compared.
    """

    words: float = 1.0
    state: float = 1.0

    needs_teacher: ClassVar[bool] = True
    adversarial: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(self, words=AMOUNT, state=AMOUNT)

    def helper(self, scene: Scene) -> nn.ModuleDict:
        words, state = scene.widths
        teacher_words, teacher_state = scene.lessons.widths
        return nn.ModuleDict({"words": nn.Linear(words, teacher_words), "state": nn.Linear(state, teacher_state)})

    def __call__(self, step: Step) -> torch.Tensor:
        project = step.scene.helpers[self]
        assert isinstance(project, nn.ModuleDict)
        loss = self.state * _distance(project["state"](step.reading.state), step.lessons.state(step.index)).mean()
        if self.words and step.student.separable and step.lessons.separable:
            mine, here = step.pool(step.reading.words, mean=True)
            theirs, there = step.lessons.word_vectors(step.index)
            n = min(mine.shape[1], theirs.shape[1])
            both = here[:, :n] & there[:, :n]
            loss = loss + self.words * _distance(project["words"](mine[:, :n][both]), theirs[:, :n][both]).mean()
        return loss


def _distance(mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    return (normalize(mine, dim=-1) - normalize(theirs, dim=-1)).square().sum(-1)
