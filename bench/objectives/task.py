"""The task itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy

from grit.bench.objectives._step import Scene, Step


@dataclass(frozen=True)
class Task:
    """Cross-entropy of the student's logits with the labels."""

    needs_teacher: ClassVar[bool] = False
    adversarial: ClassVar[bool] = False

    def helper(self, scene: Scene) -> None:
        return None

    def __call__(self, step: Step) -> torch.Tensor:
        return cross_entropy(step.logits, step.labels)
