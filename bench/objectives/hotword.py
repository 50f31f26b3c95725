"""Adversarial training on texts with changed words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch.nn.functional import cross_entropy

from grit.bench.objectives._fields import PART, check, check_kind, check_rise
from grit.bench.objectives._step import Scene, Step
from grit.bench.objectives.gradmask import attacked

Kind = Literal["hotflip", "random"]


@dataclass(frozen=True)
class Hotword:
    """Cross-entropy on the batch with some words replaced.

    kind: ``hotflip``, the replacements of highest first-order gain against the present student, one gradient
        pass a batch: cheap adversarial training in the manner of A2T (Yoo and Qi, Findings of EMNLP 2021,
        section 3), whose word-by-word search it replaces by one step; ``random``, random candidates: the
        control, plain augmentation.
    share: 1 to this share of the words of each text change, the number drawn anew each time.
    calm, full: shares of the training: no attack before the first, all of ``share`` after the second.
    """

    kind: Kind = "hotflip"
    share: float = 0.25
    calm: float = 0.2
    full: float = 0.5
    lexicon: str = "default"

    needs_teacher: ClassVar[bool] = False
    adversarial: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check(self, share=PART)
        check_kind(self, *get_args(Kind))
        check_rise(self)

    def helper(self, scene: Scene) -> None:
        return None

    def __call__(self, step: Step) -> torch.Tensor:
        strength = step.strength(self.calm, self.full)
        if not strength:
            return torch.zeros(())
        if self.kind == "hotflip":
            rows = attacked(step, self.lexicon, strength * self.share)
        else:
            flips = step.scene.flips(self.lexicon)
            budgets = flips.budgets(step.rows, step.lengths, strength * self.share)
            rows = flips.scatter(step.rows, step.lengths, budgets, step.random)
        return cross_entropy(step.reread(step.projected(rows)), step.labels)
