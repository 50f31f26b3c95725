"""Free adversarial training, a comparison row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from grit.bench.objectives._fields import AMOUNT, COUNT, check
from grit.bench.objectives._passes import answer
from grit.bench.objectives._step import Scene, Step
from grit.bench.objectives.perturb import climbed, radii


@dataclass(frozen=True)
class Free:
    """Cross-entropy at perturbed features; each batch comes ``replays`` times, and one backward pass moves both.

    Shafahi et al. (NeurIPS 2019), "Adversarial Training for Free!", algorithm 1: the gradient that trains the
    student in one replay moves the perturbation for the next. The trainer shows 1 / ``replays`` of the texts
    an epoch, so that an epoch costs what it costs without. Each batch starts from its clean features; the
    radius is relative to each word's feature norm. Stands in the place of ``task``.
    """

    replays: int = 4
    radius: float = 0.3

    needs_teacher: ClassVar[bool] = False
    adversarial: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check(self, replays=COUNT, radius=AMOUNT)

    def helper(self, scene: Scene) -> nn.Module:
        return _Carried()

    def __call__(self, step: Step) -> torch.Tensor:
        carried = step.scene.helpers[self]
        assert isinstance(carried, _Carried)
        features = step.over(step.rows)
        limit = radii(step, features, self.radius)
        moved = torch.zeros_like(features)
        if carried.moved is not None and carried.moved.grad is not None and np.array_equal(carried.index, step.index):
            moved = climbed(carried.moved.detach(), carried.moved.grad, limit, 1.0)
        carried.moved, carried.index = moved.detach().requires_grad_(), step.index
        # The only pass there is: running statistics move with it.
        return cross_entropy(answer(step.student, features + carried.moved, step.lengths), step.labels)


class _Carried(nn.Module):
    """The perturbation on its way from one replay to the next; it never outlives an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: torch.Tensor | None = None
        self.index = np.empty(0, np.int64)
