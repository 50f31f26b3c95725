"""Rewinding (Frankle et al., ICML 2020): what stays goes back to the weights of an early epoch."""

from __future__ import annotations

from dataclasses import dataclass

from grit.bench.compress._draft import Course, Draft
from grit.bench.compress._tuning import arm, check_epochs, check_share, earlier


@dataclass(frozen=True)
class Rewind:
    """As ``lottery``, from the weights after the first ``back`` epochs of the row's own training, which is run again.

    The arm's own budget is ``epochs``, as of every arm; the epochs run again were the dense row's.
    """

    density: float = 0.5
    epochs: int = 10
    back: int = 2

    def __post_init__(self) -> None:
        check_share("rewind", "density", self.density)
        check_epochs("rewind", epochs=self.epochs, back=self.back)

    def compress(self, draft: Draft, course: Course) -> Draft:
        start = earlier(course, self.back)
        return arm("rewind", draft, course, start, self.density, self.epochs, back=self.back)
