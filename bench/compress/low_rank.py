"""Low rank: the word table and the matrix that reads it, as factors of fewer features."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from grit.bench.compress._draft import Course, Draft, counts, input_weight, table_of, with_input_weight, with_table
from grit.bench.types import UsageError


@dataclass(frozen=True)
class LowRank:
    """Words get ``share`` of their features: those along which what the body makes of them differs most.

    What a body reads of word w is W e(w). The best rank r of all these vectors, by singular values and weighted by how
    often the training texts read a word (and one), is U (V e'), so a table of r features read by V does the same
    work. Nothing is added to the program and nothing expanded: the table is as much narrower where it runs.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"low_rank: share={self.share}: expected a share of the features in (0, 1]")

    def compress(self, draft: Draft, course: Course) -> Draft:
        program = draft.program
        table = table_of(program, "low_rank").astype(np.float64)
        rank = max(1, round(self.share * table.shape[1]))
        drive = table @ input_weight(program).astype(np.float64).T  # [rows out]
        weight = counts(program, course.dataset) + 1.0
        _, sizes, axes = np.linalg.svd(drive * np.sqrt(weight)[:, None], full_matrices=False)
        if rank > len(axes):
            raise UsageError(f"low_rank: {rank} features for a body that reads {len(axes)}: take a smaller share")
        factored = with_input_weight(with_table(program, drive @ axes[:rank].T), axes[:rank].T)
        kept = float((sizes[:rank] ** 2).sum() / ((sizes**2).sum() or 1))
        noted = dataclasses.replace(draft, program=factored)
        return noted.noted("low_rank", features=table.shape[1], rank=rank, kept_variance=round(kept, 6))
