"""Quantisation-aware training (Jacob et al., CVPR 2018): weights learn to live with being rounded."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from grit.bench.compress._draft import Course, Draft
from grit.bench.compress._tuning import check_epochs, check_share, tuned


@dataclass(frozen=True)
class Qat:
    """Trains on with every matrix rounded as int8 rounds it, and the gradient passed through; ends in int8.

    Weights only: activations are calibrated after the training, as without it.

    rate: share of the recipe's learning rate.
    """

    epochs: int = 5
    rate: float = 0.1

    def __post_init__(self) -> None:
        check_epochs("qat", epochs=self.epochs)
        check_share("qat", "rate", self.rate)

    def compress(self, draft: Draft, course: Course) -> Draft:
        program, said = tuned("qat", draft.program, course, self.epochs, rate=self.rate, rounded=True)
        return dataclasses.replace(draft, program=program, precision="int8").noted("qat", **said)
