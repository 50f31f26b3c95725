"""Post-training quantisation: what every row of the board is deployed in."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from grit.bench.compress._draft import Course, Draft


@dataclass(frozen=True)
class Int8:
    """The fixed-point program of the trained weights, in integers only; a rung ends so unless a step says otherwise."""

    def compress(self, draft: Draft, course: Course) -> Draft:
        return dataclasses.replace(draft, precision="int8")
