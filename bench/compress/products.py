"""Product quantisation of the word table (Jegou, Douze, Schmid, TPAMI 2011): rows put together from shared parts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from grit.bench.compress._draft import Course, Draft, counts, table_of, with_table
from grit.bench.types import UsageError


@dataclass(frozen=True)
class Products:
    """Columns are cut into parts, and each part of a row becomes the nearest of ``codes`` centroids.

    The centroids are k-means of the rows, each as heavy as the training texts read it (and one), drawn by k-means++
    (Arthur and Vassilvitskii, SODA 2007). The file holds codes and centroids; a program at work the whole table.

    width: features of a part, or the next width above that divides the row.
    """

    width: int = 4
    codes: int = 256  # a byte a code
    rounds: int = 25

    def __post_init__(self) -> None:
        for name in ("width", "codes", "rounds"):
            if getattr(self, name) < 1:
                raise UsageError(f"products: {name}={getattr(self, name)}: expected 1 or more")

    def compress(self, draft: Draft, course: Course) -> Draft:
        table = table_of(draft.program, "products")
        features = table.shape[1]
        width = next((each for each in range(self.width, features) if features % each == 0), features)
        weight = counts(draft.program, course.dataset) + 1.0
        rng = np.random.default_rng(course.seed)
        parts = [
            clustered(table[:, start : start + width], weight, self.codes, self.rounds, rng)
            for start in range(0, features, width)
        ]
        near = np.concatenate(parts, axis=1)
        lost = float(np.average(((near - table) ** 2).sum(1), weights=weight))
        spread = float(np.average(((table - np.average(table, 0, weight)) ** 2).sum(1), weights=weight))
        product = dataclasses.replace(draft, program=with_table(draft.program, near)).shipped_as("codebook")
        return product.noted(
            "products", width=width, parts=len(parts), codes=self.codes, lost_variance=round(lost / (spread or 1), 6)
        )


def clustered(points: np.ndarray, weight: np.ndarray, codes: int, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Each of ``points`` [rows feat] replaced by its centroid; themselves where they are no more than ``codes``."""
    if len(np.unique(points, axis=0)) <= codes:
        return points
    wide = points.astype(np.float64)
    centroids = _drawn(wide, weight, codes, rng)
    for _ in range(rounds):
        nearest = _nearest(wide, centroids)
        mass = np.bincount(nearest, weight, codes)
        sums = np.stack([np.bincount(nearest, weight * column, codes) for column in wide.T], axis=1)
        filled = mass > 0  # an empty cluster stays where it was
        centroids[filled] = sums[filled] / mass[filled, None]
    return centroids.astype(np.float32)[_nearest(wide, centroids)]


def _drawn(points: np.ndarray, weight: np.ndarray, codes: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: each further centroid by its squared distance to those drawn before."""
    chosen = [int(rng.choice(len(points), p=weight / weight.sum()))]
    gap = ((points - points[chosen[0]]) ** 2).sum(1)
    while len(chosen) < codes:
        share = weight * gap
        chosen.append(int(rng.choice(len(points), p=share / share.sum())))
        gap = np.minimum(gap, ((points - points[chosen[-1]]) ** 2).sum(1))
    return points[chosen]


def _nearest(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """|x - c|^2 without the |x|^2 that all centroids share."""
    return ((centroids**2).sum(1) - 2 * points @ centroids.T).argmin(1)
