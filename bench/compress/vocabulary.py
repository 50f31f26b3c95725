"""Vocabulary selection: words that a model hardly hears become its unknown word."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from grit.bench.compress._draft import Course, Draft, counts, input_weight, table_of, with_table
from grit.bench.types import UsageError


@dataclass(frozen=True)
class Vocabulary:
    """Keeps ``share`` of the words, and always the unknown one; nothing is trained.

    How much of a vocabulary a classifier needs is the question of Chen et al. ("How Large a Vocabulary Does Text
    Classification Need?", NAACL 2019), who learn it; here it is read off the trained weights.

    by: ``effect``, how often the training texts read a word times how far what the body makes of its row is from
        what it makes of the unknown one; ``count``, how often alone.
    """

    share: float = 0.5
    by: Literal["effect", "count"] = "effect"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"vocabulary: share={self.share}: expected a share of the words in (0, 1]")

    def compress(self, draft: Draft, course: Course) -> Draft:
        program = draft.program
        table = table_of(program, "vocabulary", hashed=False)
        weight: np.ndarray = counts(program, course.dataset).astype(np.float64)
        if self.by == "effect":
            weight = weight * np.linalg.norm((table - table[0]) @ input_weight(program).T, axis=1)
        keeps = math.ceil(self.share * (len(table) - 1))
        loudest = 1 + np.argsort(-weight[1:], kind="stable")[:keeps]
        rows = np.sort(np.concatenate([[0], loudest]))
        kept = with_table(program, table[rows], tuple(program.vocabulary[row] for row in rows.tolist()))
        return dataclasses.replace(draft, program=kept).noted("vocabulary", words=len(table), kept=len(rows))
