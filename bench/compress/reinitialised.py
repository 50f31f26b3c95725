"""Random re-initialisation: the control of the lottery ticket, its mask over weights of another draw."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from grit.bench.compress._draft import Course, Draft
from grit.bench.compress._tuning import arm, check_epochs, check_share, earlier


@dataclass(frozen=True)
class Reinitialised:
    """As ``lottery``, from fresh weights of the next seed: what the mask alone is worth."""

    density: float = 0.5
    epochs: int = 10

    def __post_init__(self) -> None:
        check_share("reinitialised", "density", self.density)
        check_epochs("reinitialised", epochs=self.epochs)

    def compress(self, draft: Draft, course: Course) -> Draft:
        start = earlier(dataclasses.replace(course, seed=course.seed + 1), 0)
        return arm("reinitialised", draft, course, start, self.density, self.epochs)
