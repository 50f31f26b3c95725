"""What an update tells about the texts it was made from, to somebody who has it and the global model.

Words: plain gradient descent moves the rows of a word table that were read, and no other; who compares two tables reads
the user's vocabulary off. Membership: a text that was learned from has lost more of its loss than one that was not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from grit.bench.personalize.arms import Weights
from grit.bench.personalize.texts import Base, Texts
from grit.bench.statistics import mann_whitney


def recovered(base: Base, learned: Weights | None) -> frozenset[str]:
    """The words whose rows an update has moved; none where the word table is not part of it."""
    if learned is None or not base.model.vocabulary:
        return frozenset()
    found: set[str] = set()
    for name, weight in learned.items():
        if base.parts.get(name) == "embedding" and len(weight) == len(base.model.vocabulary):
            moved = (weight != base.own[name]).reshape(len(weight), -1).any(1)
            found |= {base.model.vocabulary[row] for row in torch.nonzero(moved)[:, 0].tolist()}
    return frozenset(found - {""})


def read_words(texts: Texts) -> frozenset[str]:
    """The distinct words of texts that the model knows: what could be recovered at all."""
    known = set(texts.base.model.vocabulary) - {""}
    return frozenset(token for tokens in texts.tokens for token in tokens if token in known)


def membership(losses: Sequence[np.ndarray], n_members: int) -> float | None:
    """AUC of the fall in loss (before, after: [texts], members first) as a sign of having been learned from.

    0.5: no sign; None without members or without others.
    """
    before, after = losses
    if not 0 < n_members < len(before):
        return None
    fall = before - after
    # to nine digits: differences of rounding between two ways to the same logits are no sign of anything
    fall = np.round(fall, 9)
    return mann_whitney(fall[:n_members], fall[n_members:]).effect


def loss(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy a text; logits [texts classes]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    found: np.ndarray = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return found
