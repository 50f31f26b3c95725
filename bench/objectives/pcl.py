"""Probabilistically compact loss with logit constraints, a comparison row and a canary: strong attacks break it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy, one_hot

from grit.bench.objectives._fields import AMOUNT, SHARE, check
from grit.bench.objectives._step import Scene, Step


@dataclass(frozen=True)
class Pcl:
    """sum_j max(0, p_j + gap - p_gold) over the wrong classes, plus ``constraint`` times the soft logit margin.

    Li, Li, Pan, Zhu (AAAI 2021), "Improving Adversarial Robustness via Probabilistically Compact Loss with
    Logit Constraints", section 4: gap xi = 0.995, constraint 0.05. The logit constraint is the margin
    of the gold logit over the wrong ones, weighted by the softmax among the wrong: it keeps the probability
    gap from being bought with large logits. Stands in the place of ``task``: until ``warm_up`` of the training
    is done it is the cross-entropy, as flat probabilities give the gap no gradient to speak of.
    """

    gap: float = 0.995
    constraint: float = 0.05
    warm_up: float = 0.25

    needs_teacher: ClassVar[bool] = False
    adversarial: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(self, gap=SHARE, constraint=AMOUNT, warm_up=SHARE)

    def helper(self, scene: Scene) -> None:
        return None

    def __call__(self, step: Step) -> torch.Tensor:
        if step.progress <= self.warm_up:
            return cross_entropy(step.logits, step.labels)
        gold = one_hot(step.labels, step.logits.shape[-1]).bool()
        chances = step.logits.softmax(-1)
        short = (chances + self.gap - chances[gold][:, None]).clamp(min=0).masked_fill(gold, 0.0).sum(-1)
        rival = step.logits.masked_fill(gold, -torch.inf).softmax(-1)
        margin = (rival * (step.logits[gold][:, None] - step.logits).clamp(min=0)).sum(-1)
        return (short + self.constraint * margin).mean()
