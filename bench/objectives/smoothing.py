"""Label smoothing, a comparison row: robustness that it seems to give is mostly masked gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy

from grit.bench.objectives._fields import SHARE, check
from grit.bench.objectives._step import Scene, Step


@dataclass(frozen=True)
class Smoothing:
    """Cross-entropy with (1 - share) of the label and ``share`` of the uniform distribution.

    Szegedy et al. (CVPR 2016), "Rethinking the Inception Architecture", section 7: share 0.1. Stands in the
    place of ``task``.
    """

    share: float = 0.1

    needs_teacher: ClassVar[bool] = False
    adversarial: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(self, share=SHARE)

    def helper(self, scene: Scene) -> None:
        return None

    def __call__(self, step: Step) -> torch.Tensor:
        return cross_entropy(step.logits, step.labels, label_smoothing=self.share)
