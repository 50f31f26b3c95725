"""Five ways to give every word of a text a number: how much it spoke for an answer.

Each is a frozen value, called on one text: positive is for the label, negative against it. What is shared out is
:func:`grit.bench.explain.texts.evidence`. Two read gradients of the float model; three only ask, and so explain the
shipped bytes, or any function of texts.

What holds (property tests hold it): *completeness*, the numbers sum to evidence of the text minus evidence of the
text all unknown: Shapley exactly, integrated gradients up to quadrature. *Sensitivity*: a text that differs from its
baseline in one word only, and is answered differently, gives that word all of the difference; and a word that is not
read gets nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from grit.bench.explain.texts import Hide, Subject, evidence
from grit.bench.types import UsageError

if TYPE_CHECKING:
    from grit.bench.explain.cut import CutText


@dataclass(frozen=True)
class Case:
    """One text to be explained, as two models see it: the float one, where there is one, and the one that ships."""

    shipped: Subject
    cut: CutText | None
    label: int

    @property
    def words(self) -> tuple[str, ...]:
        return self.shipped.words

    def evidence(self, kept: np.ndarray, hide: Hide) -> np.ndarray:
        """Of the shipped model, for the label: kept bool [rows words] -> [rows]."""
        return evidence(self.shipped.logits(kept, hide), self.label)


class Explainer(Protocol):
    needs_gradients: ClassVar[bool]

    def __call__(self, case: Case, rng: np.random.Generator) -> np.ndarray:
        """The attribution of every word for the case's label: float64 [words]."""
        ...


@dataclass(frozen=True)
class Gradient:
    """Gradient times input, summed over the features and tokens of a word.

    Shrikumar et al., "Not Just a Black Box" (2016): the first-order term of what the word adds to a text in which its
    features are zero. It is what the objective ``attribution`` matches between student and teacher.
    """

    needs_gradients: ClassVar[bool] = True

    def __call__(self, case: Case, rng: np.random.Generator) -> np.ndarray:
        cut = _cut(case)
        gradient = cut.gradients(cut.features[None], case.label)[0]
        return cut.by_word((gradient * cut.features).sum(-1))


@dataclass(frozen=True)
class Integrated:
    """Integrated gradients: the path from the text all unknown to the text itself, straight through feature space.

    Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks" (ICML 2017), equation 1, by Gauss-Legendre
    quadrature of ``steps`` points, which is exact for polynomials of degree 2 steps - 1 along the path.
    """

    steps: int = 50
    needs_gradients: ClassVar[bool] = True

    def __call__(self, case: Case, rng: np.random.Generator) -> np.ndarray:
        import torch

        cut = _cut(case)
        points, weights = np.polynomial.legendre.leggauss(self.steps)
        share = torch.from_numpy((points + 1) / 2)[:, None, None]
        change = cut.features - cut.blank
        gradients = cut.gradients(cut.blank + share * change, case.label)  # [steps seq feat]
        mean = (gradients * torch.from_numpy(weights / 2)[:, None, None]).sum(0)
        return cut.by_word((mean * change).sum(-1))


@dataclass(frozen=True)
class LeaveOneOut:
    """What is lost when the word is deleted: Li, Monroe, Jurafsky, "Understanding Neural Networks through
    Representation Erasure" (2016), as a difference of evidence instead of a relative one.
    """

    needs_gradients: ClassVar[bool] = False

    def __call__(self, case: Case, rng: np.random.Generator) -> np.ndarray:
        n = len(case.words)
        found = case.evidence(np.vstack([np.ones(n, bool), ~np.eye(n, dtype=bool)]), "delete")
        return found[0] - found[1:]


@dataclass(frozen=True)
class Occlusion:
    """What is lost when a window of words becomes unknown: Zeiler and Fergus (ECCV 2014), section 4.2.

    A word's number is the mean over the windows that hold it.
    """

    window: int = 1
    needs_gradients: ClassVar[bool] = False

    def __call__(self, case: Case, rng: np.random.Generator) -> np.ndarray:
        n = len(case.words)
        if n == 0:
            return np.zeros(0)
        window = min(self.window, n)
        places = np.arange(n)
        starts = np.arange(n - window + 1)[:, None]
        hidden = (starts <= places) & (places < starts + window)  # [windows words]
        found = case.evidence(np.vstack([np.ones(n, bool), ~hidden]), "occlude")
        lost = found[0] - found[1:]
        return (hidden * lost[:, None]).sum(0) / hidden.sum(0)


@dataclass(frozen=True)
class Shapley:
    """What a word adds on average when the words come in random order, starting from a text all unknown.

    Strumbelj and Kononenko, "An Efficient Explanation of Individual Classifications using Game Theory" (JMLR 2010),
    algorithm 1. Orders are drawn in pairs, each with its reverse (antithetic sampling: Mitchell et al., "Sampling
    Permutations for Shapley Value Estimation", JMLR 2022), so ``orders`` is even. Each shares out the whole difference.
    """

    orders: int = 32
    needs_gradients: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.orders < 2 or self.orders % 2:
            raise UsageError(f"shapley: orders={self.orders}: expected an even number of 2 or more")

    def __call__(self, case: Case, rng: np.random.Generator) -> np.ndarray:
        n = len(case.words)
        drawn = np.array([rng.permutation(n) for _ in range(self.orders // 2)], np.intp)
        orders = np.concatenate([drawn, drawn[:, ::-1]])  # [orders words]
        rank = np.argsort(orders, axis=1)
        kept = rank[:, None, :] < np.arange(n + 1)[:, None]  # [orders steps words]: the first so many have come
        found = case.evidence(kept.reshape(self.orders * (n + 1), n), "occlude").reshape(self.orders, n + 1)
        added = np.diff(found, axis=1)  # by the word that comes at each step
        return np.take_along_axis(added, rank, axis=1).mean(0)


EXPLAINERS: Mapping[str, Explainer] = {
    "integrated": Integrated(),
    "gradient": Gradient(),
    "leave_one_out": LeaveOneOut(),
    "occlusion": Occlusion(),
    "shapley": Shapley(),
}


def _cut(case: Case) -> CutText:
    if case.cut is None:
        asked = ", ".join(name for name, explainer in EXPLAINERS.items() if not explainer.needs_gradients)
        raise UsageError(f"this model has no gradients here; explain it by {asked}")
    return case.cut
