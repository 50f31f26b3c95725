"""The lottery ticket (Frankle and Carbin, ICLR 2019): what stays goes back to the weights it was drawn with."""

from __future__ import annotations

from dataclasses import dataclass

from grit.bench.compress._draft import Course, Draft
from grit.bench.compress._tuning import arm, check_epochs, check_share, earlier


@dataclass(frozen=True)
class Lottery:
    """Keeps the ``density`` largest of the trained weights, at their first values, and trains for ``epochs``."""

    density: float = 0.5
    epochs: int = 10

    def __post_init__(self) -> None:
        check_share("lottery", "density", self.density)
        check_epochs("lottery", epochs=self.epochs)

    def compress(self, draft: Draft, course: Course) -> Draft:
        return arm("lottery", draft, course, earlier(course, 0), self.density, self.epochs)
