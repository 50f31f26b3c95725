"""Adversarial training in the space of word features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch.nn.functional import cross_entropy

from grit.bench.objectives._fields import AMOUNT, COUNT, check, check_kind, check_rise
from grit.bench.objectives._passes import slope
from grit.bench.objectives._step import Scene, Step

Kind = Literal["fgm", "pgd", "freelb"]


@dataclass(frozen=True)
class Perturb:
    """Cross-entropy at features moved against the label, each word within ``radius`` of its own feature norm.

    kind: ``fgm``, one step of full length (Miyato, Dai, Goodfellow, ICLR 2017, section 3); ``pgd``, ``steps``
        steps from the clean text and the loss at the last (Madry et al., ICLR 2018, section 2); ``freelb``,
        from a random start, the mean loss over all points passed, so that no pass is for the attack alone
        (Zhu et al., ICLR 2020, section 3.2; K = 3).
        The start is ours: a random direction, exactly half the radius long; the paper's is uniform in the ball.
    The first two climb the margin (largest other logit minus gold logit), whose slope other terms need too.
    A radius relative to the word's own features means the same for a trained embedding and for the ternary
    features of a projection model; there the moved features belong to no string.
    calm, full: shares of the training: no perturbation before the first, the whole radius after the second.
    """

    kind: Kind = "fgm"
    steps: int = 3
    radius: float = 0.3
    calm: float = 0.2
    full: float = 0.5

    needs_teacher: ClassVar[bool] = False
    adversarial: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check(self, steps=COUNT, radius=AMOUNT)
        check_kind(self, *get_args(Kind))
        check_rise(self)

    def helper(self, scene: Scene) -> None:
        return None

    def __call__(self, step: Step) -> torch.Tensor:
        strength = step.strength(self.calm, self.full)
        if not strength:
            return torch.zeros(())
        features = step.over(step.rows)
        limit = radii(step, features, strength * self.radius)
        if self.kind == "fgm":
            tilt = step.tilt * (limit / length(step.slope))
            return cross_entropy(step.reread(step.projected(step.rows) + step.along(tilt)), step.labels)
        if self.kind == "pgd":
            moved, uphill = torch.zeros_like(features), step.slope
            for number in range(self.steps):
                if number:
                    uphill = slope(step.student, features + moved, step.lengths, step.labels)
                moved = climbed(moved, uphill, limit, 1.5 / self.steps)
            return cross_entropy(step.again(features + moved), step.labels)
        start = torch.randn(features.shape, generator=step.generator, dtype=features.dtype)
        moved = limit * start / start.norm(dim=-1, keepdim=True) / 2
        losses = []
        for number in range(self.steps):
            moved.requires_grad_()
            losses.append(cross_entropy(step.again(features + moved), step.labels))
            if number + 1 < self.steps:
                (gradient,) = torch.autograd.grad(losses[-1], moved, retain_graph=True)
                moved = climbed(moved.detach(), gradient, limit, 1.5 / self.steps)
        return torch.stack(losses).mean()


def radii(step: Step, features: torch.Tensor, radius: float) -> torch.Tensor:
    """How far each word may move: ``radius`` of its feature norm, nothing behind the text; [batch seq 1]."""
    return radius * features.detach().norm(dim=-1, keepdim=True) * step.mask[..., None]


def climbed(moved: torch.Tensor, gradient: torch.Tensor, limit: torch.Tensor, reach: float) -> torch.Tensor:
    """A step of ``reach`` times the limit up the gradient, each word by itself, then back into its ball."""
    moved = torch.addcmul(moved, gradient, reach * limit / length(gradient))
    return moved * (limit / length(moved)).clamp(max=1)


def length(vectors: torch.Tensor) -> torch.Tensor:
    """Euclidean, and no less than squares can tell from zero, so that it may divide: [... feat] -> [... 1]."""
    return vectors.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny ** 0.5)
