"""Nothing taken away: the trained weights as they are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from grit.bench.compress._draft import Course, Draft


@dataclass(frozen=True)
class Fp32:
    """Weights and arithmetic of 32-bit floats: what the other rungs are held against."""

    def compress(self, draft: Draft, course: Course) -> Draft:
        return dataclasses.replace(draft, precision="fp32")
