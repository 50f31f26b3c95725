"""Training against a bound: every word that the attacker may change has changed to the worst at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from grit.bench.objectives._fields import PART, check, check_rise
from grit.bench.objectives._flips import Flips
from grit.bench.objectives._step import Scene, Step


@dataclass(frozen=True)
class Bound:
    """Cross-entropy of logits of which each wrong one has risen over the right one as far as an attack may lift it.

    The rise of one wrong logit is a sum over words: of each the most gainful candidate by first order,
    slope . (features(new) - features(old)), and of those the ``share`` of the text that gains most. Each wrong logit
    has its own words, as if all were attacked at once. Where the logits are linear in the features, as under a mean
    of word vectors, that bounds what any choice of candidates can do, and with two classes some choice does exactly
    that: interval bounds (Jia et al., "Certified Robustness to Adversarial Word Substitutions", EMNLP 2019) with the
    budget counted. Elsewhere it is a penalty on how steep the student is towards the candidates of its words.
    Nothing is drawn at random, and what a word can lose is learned of all words of the budget in one step, where an
    attacked text teaches one choice of them.

    share: of the words of a text that may change, at least one.
    calm, full: shares of the training: no rise before the first, the whole rise after the second.
    """

    share: float = 0.25
    calm: float = 0.1
    full: float = 0.4
    lexicon: str = "default"

    needs_teacher: ClassVar[bool] = False
    adversarial: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check(self, share=PART)
        check_rise(self)

    def helper(self, scene: Scene) -> None:
        return None

    def __call__(self, step: Step) -> torch.Tensor:
        strength = step.strength(self.calm, self.full)
        if not strength:
            return torch.zeros(())
        flips = step.scene.flips(self.lexicon)
        budgets = flips.budgets(step.rows, step.lengths, self.share)
        words, logits = step.deployed
        lifted, gold = step.logits, step.labels[:, None]
        for further in range(1, step.scene.classes):
            other = (gold + further) % step.scene.classes
            lead = logits.gather(1, other) - logits.gather(1, gold)
            (gradient,) = torch.autograd.grad(lead.sum(), words, create_graph=True)
            slope = step.at_features(gradient)
            lifted = lifted.scatter_add(1, other, strength * rise(step, flips, slope, budgets)[:, None])
        return cross_entropy(lifted, step.labels)


def rise(step: Step, flips: Flips, slope: torch.Tensor, budgets: np.ndarray) -> torch.Tensor:
    """What the ``budgets`` most gainful words of each text lift a logit of this slope by, to first order: [batch]."""
    best = flips.best(step.rows, step.lengths, slope.detach())
    gains = (slope * (step.over(best) - step.features)).sum(-1).relu()  # [batch seq]
    most = min(int(budgets.max()), gains.shape[1])
    spent = torch.arange(most) < torch.from_numpy(budgets)[:, None]
    return (gains.topk(most, 1).values * spent).sum(1)
