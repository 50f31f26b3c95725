"""A start that was trained to be personalized: first-order MAML with the robust term in its outer loop.

Inner loop: a copy of the head takes a few steps of plain descent on one training user's texts. Outer loop: the loss of
that user's other texts, clean and with their features moved against the label, is brought down by its gradient at the
adapted weights, as if they did not depend on the start (Finn, Abbeel, Levine, ICML 2017, section 5.2, the first-order
form). The robust term stands in the outer loop alone: the inner one is what a device can afford.

Users of the training only; dev texts decide nothing here, so that a start is chosen by nobody but its user.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from grit.bench.objectives._passes import margin
from grit.bench.objectives.perturb import climbed
from grit.bench.personalize.arms import merged, under
from grit.bench.personalize.texts import Base, Texts
from grit.bench.personalize.users import User
from grit.bench.types import CouldNotMeasure, Model


@dataclass(frozen=True)
class Meta:
    """Ours, all of them: the paper's are for images."""

    rounds: int = 100  # steps of the outer loop
    users: int = 4  # a round
    examples: int = 8  # texts of the inner loop, and as many of the outer
    inner_steps: int = 3
    inner_rate: float = 0.3
    outer_rate: float = 0.03
    robust: float = 0.5  # weight of the moved texts in the outer loss
    radius: float = 0.3  # how far a word moves, of its feature norm


def meta_trained(model: Model, tasks: Sequence[User], meta: Meta, seed: int) -> Model:
    """The model after the outer loop; CouldNotMeasure where no user has texts enough."""
    base = Base(model)
    able = [user for user in tasks if len(user.pool) >= 2 and len(user.held_out) >= 2]
    if len(able) < 2:
        raise CouldNotMeasure(f"{len(able)} training users have texts to practise on: start plain, with --start plain")
    texts = [(base.texts(user.pool), base.texts(user.held_out)) for user in able]
    whole = {name: weight.detach().clone() for name, weight in base.own.items()}
    head = [name for name, part in base.parts.items() if part == "head"]
    rng = random.Random(f"meta {seed}")
    for _ in range(meta.rounds):
        total = {name: torch.zeros_like(weight) for name, weight in whole.items()}
        for pool, query in rng.sample(texts, min(meta.users, len(texts))):
            adapted = dict(whole)
            for _ in range(meta.inner_steps):
                index = _drawn(pool, meta.examples, rng)
                leaves = {name: adapted[name].detach().requires_grad_() for name in head}
                logits = under(base.model, {**adapted, **leaves}, *pool.codes(index))
                gradients = torch.autograd.grad(cross_entropy(logits, pool.labels[index]), list(leaves.values()))
                for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
                    adapted[name] = (leaf - meta.inner_rate * gradient).detach()
            index = _drawn(query, meta.examples, rng)
            for name, gradient in outer_gradient(base, adapted, query, index, meta).items():
                total[name] += gradient / meta.users
        norm = torch.sqrt(sum((gradient.square().sum() for gradient in total.values()), torch.zeros(())))
        scale = meta.outer_rate * min(1.0, 1.0 / max(float(norm), 1e-12))  # clipped to 1, as in ordinary training
        whole = {name: weight - scale * total[name] for name, weight in whole.items()}
    return merged(base, whole)


def outer_gradient(
    base: Base, adapted: dict[str, torch.Tensor], texts: Texts, index: np.ndarray, meta: Meta
) -> dict[str, torch.Tensor]:
    """Gradient of the outer loss at adapted weights: clean texts, and the same with words moved against the label."""
    leaves = {name: weight.detach().requires_grad_() for name, weight in adapted.items()}
    codes, lengths = texts.codes(index)
    labels = texts.labels[index]
    loss = cross_entropy(under(base.model, leaves, codes, lengths), labels)
    if meta.robust:
        features = base.model.features(codes)
        moved = torch.zeros_like(features, requires_grad=True)
        climb = margin(under(base.model, leaves, codes, lengths, moved), labels).sum()
        (uphill,) = torch.autograd.grad(climb, moved)
        real = (torch.arange(features.shape[1]) < lengths[:, None])[..., None]
        limit = meta.radius * features.norm(dim=-1, keepdim=True) * real
        away = climbed(torch.zeros_like(features), uphill, limit, 1.0).detach()
        loss = loss + meta.robust * cross_entropy(under(base.model, leaves, codes, lengths, away), labels)
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
    }


def _drawn(texts: Texts, n: int, rng: random.Random) -> np.ndarray:
    return np.array(rng.sample(range(len(texts)), min(n, len(texts))))
