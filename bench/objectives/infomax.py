"""Explainable feature mapping by mutual information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from grit.bench.objectives._fields import AMOUNT, COUNT, POSITIVE, check
from grit.bench.objectives._step import Scene, Step


@dataclass(frozen=True)
class Infomax:
    """InfoNCE between the student's and the teacher's features of a batch: which student vector is whose?

    van den Oord, Li, Vinyals (2018), "Contrastive Predictive Coding", section 2.3: log(batch) minus this loss
    bounds the mutual information from below, and it can be trained, where the nearest-neighbour estimate
    printed in "Tiny RNN Model with Certified Robustness" (IJCNN 2022) is piecewise constant. Both sides are
    projected to ``width`` dimensions by maps that are thrown away. Words are compared with at most ``sample``
    others of the batch; models that look across white space are compared by state only.

    The averaged estimate is not computed as a monitor beside the loss either: nothing would be chosen by it, and the
    loss of every epoch, which bounds the same information, stands in the history of a training.
    """

    words: float = 1.0
    state: float = 1.0
    width: int = 32
    temperature: float = 0.1
    sample: int = 256

    needs_teacher: ClassVar[bool] = True
    adversarial: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(self, words=AMOUNT, state=AMOUNT, width=COUNT, temperature=POSITIVE, sample=COUNT)

    def helper(self, scene: Scene) -> nn.ModuleDict:
        names = ("words", "state")
        mine = {f"student_{name}": nn.Linear(size, self.width) for name, size in zip(names, scene.widths, strict=True)}
        theirs = {
            f"teacher_{name}": nn.Linear(size, self.width)
            for name, size in zip(names, scene.lessons.widths, strict=True)
        }
        return nn.ModuleDict({**mine, **theirs})

    def __call__(self, step: Step) -> torch.Tensor:
        loss = self.state * self._confusion(step, "state", step.reading.state, step.lessons.state(step.index))
        if self.words and step.student.separable and step.lessons.separable:
            mine, here = step.pool(step.reading.words, mean=True)
            theirs, there = step.lessons.word_vectors(step.index)
            n = min(mine.shape[1], theirs.shape[1])
            both = here[:, :n] & there[:, :n]
            mine, theirs = mine[:, :n][both], theirs[:, :n][both]
            drawn = torch.randperm(len(mine), generator=step.generator)[: self.sample]
            loss = loss + self.words * self._confusion(step, "words", mine[drawn], theirs[drawn])
        return loss

    def _confusion(self, step: Step, name: str, mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        project = step.scene.helpers[self]
        assert isinstance(project, nn.ModuleDict)
        left = normalize(project[f"student_{name}"](mine), dim=-1)
        right = normalize(project[f"teacher_{name}"](theirs), dim=-1)
        scores = left @ right.T / self.temperature
        own = torch.arange(len(scores))
        return (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2
