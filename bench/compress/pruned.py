"""Magnitude pruning, then fine-tuning (Han et al., NeurIPS 2015): what stays goes on from where it was."""

from __future__ import annotations

from dataclasses import dataclass

from grit.bench.compress._draft import Course, Draft
from grit.bench.compress._tuning import arm, check_epochs, check_share


@dataclass(frozen=True)
class Pruned:
    """Keeps ``density`` of the weights, the largest, at their trained values, and trains on for ``epochs``."""

    density: float = 0.5
    epochs: int = 10

    def __post_init__(self) -> None:
        check_share("pruned", "density", self.density)
        check_epochs("pruned", epochs=self.epochs)

    def compress(self, draft: Draft, course: Course) -> Draft:
        return arm("pruned", draft, course, draft.program, self.density, self.epochs)
