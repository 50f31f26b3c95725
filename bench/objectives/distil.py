"""Knowledge distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from grit.bench.objectives._fields import POSITIVE, check
from grit.bench.objectives._passes import divergence
from grit.bench.objectives._step import Scene, Step


@dataclass(frozen=True)
class Distil:
    """T^2 KL(softmax(z_T / T) || softmax(z_S / T)): Hinton, Vinyals, Dean (2015), "Distilling the Knowledge in a
    Neural Network", section 2. T = 3 as in "Tiny RNN Model with Certified Robustness" (IJCNN 2022).
    """

    temperature: float = 3.0

    needs_teacher: ClassVar[bool] = True
    adversarial: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(self, temperature=POSITIVE)

    def helper(self, scene: Scene) -> None:
        return None

    def __call__(self, step: Step) -> torch.Tensor:
        return divergence(step.lessons.logits(step.index), step.logits, self.temperature)
