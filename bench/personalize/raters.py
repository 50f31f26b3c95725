"""Made people of known taste over real texts: the truth that a method has to find, and the traps it must show.

Every rater reads the same kind of texts and disagrees with the data's labels in one way that we chose:

    agreeing   gives the label of the data: there is nothing to gain, whatever a table says
    leaning    has a favourite label and gives it to so many texts whatever they say: a number added to one logit is
               all there is to gain, and a last layer that gains as much has learned no more
    contrary   gives another label than the data's: nothing is gained but by reading the text otherwise

What the best reader of a rater would get right is known (:meth:`Rater.ceiling`), and so is what the best constant
answer would.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from grit.bench import datasets
from grit.bench.personalize.users import Cut, Fold, User, cut_user, ranked
from grit.bench.types import Dataset, Example, UsageError

Kind = Literal["agreeing", "leaning", "contrary"]
KINDS: tuple[Kind, ...] = ("agreeing", "leaning", "contrary")
PREFIX = "raters:"


@dataclass(frozen=True)
class Rater:
    """One made person. ``strength``: how often the taste decides; else the data's label is given."""

    name: str
    kind: Kind
    favourite: int
    strength: float
    classes: int

    def label(self, truth: int, rng: random.Random) -> int:
        """What the rater calls a text of this label."""
        decides = rng.random() < self.strength
        if self.kind == "agreeing" or not decides:
            return truth
        return self.favourite if self.kind == "leaning" else (truth + 1) % self.classes

    def ceiling(self, shares: Sequence[float]) -> float:
        """Accuracy of the best answers to texts whose labels have these shares, by who reads every text rightly."""
        if self.kind == "agreeing":
            return 1.0
        if self.kind == "contrary":
            return max(self.strength, 1 - self.strength)
        surer = max(self.strength, 1 - self.strength)
        return sum(share * (1.0 if truth == self.favourite else surer) for truth, share in enumerate(shares))


def drawn(users: int, classes: int, kinds: Sequence[Kind], strength: float, seed: int) -> tuple[Rater, ...]:
    """So many raters, the kinds in turn, their favourites at random."""
    rng = random.Random(f"raters {seed}")
    return tuple(
        Rater(f"rater{i:03d}", kinds[i % len(kinds)], rng.randrange(classes), strength, classes) for i in range(users)
    )


def fold(
    dataset: Dataset,
    cut: Cut,
    *,
    users: int = 240,
    texts: int = 96,
    kinds: Sequence[Kind] = KINDS,
    strength: float = 0.8,
    seed: int = 0,
) -> Fold:
    """A quarter of the raters to practise on, over training texts; a quarter validates, half tests.

    The texts of the last two come from one half of the test split, by hash rank; the other half tests the global model.
    Raters share texts and not labels: no text of theirs was trained on.
    """
    order = ranked(dataset.test, dataset.name)
    theirs, rest = order[: len(order) // 2], order[len(order) // 2 :]
    if len(theirs) < 2 * cut.least_texts:
        raise UsageError(f"dataset {dataset.name!r} has {len(order)} test texts: too few for raters; take another")
    people = drawn(users, len(dataset.labels), kinds, strength, seed)
    quarter = users // 4

    def user(rater: Rater, source: Sequence[Example]) -> User:
        rng = random.Random(f"{seed} {rater.name}")
        mine = rng.sample(list(source), min(texts, len(source)))
        rated = [dataclasses.replace(e, label=rater.label(e.label, rng), user=rater.name) for e in mine]
        return cut_user(rater.name, rated, cut)

    data = dataclasses.replace(
        dataset,
        train=datasets.subset(dataset.train, cut.n_train, dataset.name),
        test=rest,
        notes=(*dataset.notes, f"{users} made raters ({', '.join(kinds)}) over {len(theirs)} texts of the test split"),
    )
    return Fold(
        "raters",
        f"{PREFIX}{dataset.name}",
        data,
        tuple(user(rater, dataset.train) for rater in people[:quarter]),
        tuple(user(rater, theirs) for rater in people[quarter : 2 * quarter])[: cut.most_users],
        tuple(user(rater, theirs) for rater in people[2 * quarter :])[: cut.most_users],
    )
