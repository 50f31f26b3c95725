"""Complement objective training, a comparison row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from grit.bench.objectives._step import Scene, Step


@dataclass(frozen=True)
class Cot:
    """Minus the entropy of the wrong classes among themselves, divided by their number: low where it is flat.

    Chen et al. (ICLR 2019), "Complement Objective Training", section 2.2, equations 2 and 4. The paper takes
    turns between cross-entropy and this; here both are terms of one sum. With two classes one wrong class
    remains, its entropy is zero whatever the weights, and the objective refuses.
    """

    needs_teacher: ClassVar[bool] = False
    adversarial: ClassVar[bool] = False
    least_classes: ClassVar[int] = 3

    def helper(self, scene: Scene) -> None:
        return None

    def __call__(self, step: Step) -> torch.Tensor:
        gold = torch.nn.functional.one_hot(step.labels, step.logits.shape[-1]).bool()
        wrong = step.logits[~gold].reshape(len(step.labels), -1)  # [batch classes-1]
        log = wrong.log_softmax(-1)
        return (log.exp() * log).sum(-1).mean() / wrong.shape[-1]
