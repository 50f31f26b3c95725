"""How a user's copy is trained, when it stops, and what it is compared with.

Plain gradient descent over the user's texts in their order, batch by batch, as a device without room for an
optimiser's memory would do it. Every epoch is judged; rate and epoch are chosen once, on validation users, as the pair
with the best mean over users, and epoch 0, the global model untouched, may win. Only then are test users looked at.

Three floors need no learning from texts: the most frequent label of the k texts, the global model, and one number a
label on top of it. A gain is what an arm adds to the best of the three.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from grit.bench.personalize.arms import Arm, Weights
from grit.bench.personalize.private import noised
from grit.bench.personalize.texts import Base, Texts
from grit.bench.personalize.users import User
from grit.bench.types import CouldNotMeasure


@dataclass(frozen=True)
class Training:
    """How a device learns."""

    epochs: int = 10
    batch: int = 8


@dataclass(frozen=True, eq=False)
class Person:
    """A user as one global model reads the texts."""

    name: str
    pool: Texts
    held_out: Texts

    def able(self, k: int) -> bool:
        return len(self.pool) >= k


@dataclass(frozen=True)
class Choice:
    """What validation users chose for an arm at one number of examples."""

    rate: float
    epoch: int  # 0: the global model as it is
    score: float  # mean accuracy over ``users``
    users: int


def people(base: Base, users: Sequence[User]) -> list[Person]:
    return [Person(user.name, base.texts(user.pool), base.texts(user.held_out)) for user in users]


def epochs(arm: Arm, base: Base, texts: Texts, rate: float, training: Training, seed: int) -> Iterator[Weights]:
    """The weights after each epoch on all of ``texts``."""
    weights = {name: weight.clone() for name, weight in arm.start(base, seed).items()}
    places = np.arange(len(texts))
    generator = torch.Generator().manual_seed(_noise_seed(seed, texts))
    for _ in range(training.epochs):
        for start in range(0, len(texts), training.batch):
            index = places[start : start + training.batch]
            weights = descended(arm, base, weights, texts, index, rate, generator)
        yield weights


def _noise_seed(seed: int, texts: Texts) -> int:
    """Noise of its own for every user."""
    ids = " ".join(example.id for example in texts.examples)
    return int.from_bytes(hashlib.sha256(f"noise {seed} {ids}".encode()).digest()[:8], "big") >> 1


def descended(
    arm: Arm, base: Base, weights: Weights, texts: Texts, index: np.ndarray, rate: float, generator: torch.Generator
) -> Weights:
    """One step down the mean cross-entropy of some texts; ``generator`` draws the noise of a private arm."""
    leaves = {name: weight.requires_grad_() for name, weight in weights.items()}

    def slopes(part: np.ndarray) -> list[torch.Tensor]:
        loss = cross_entropy(arm.logits(base, leaves, texts, part), texts.labels[part])
        return list(torch.autograd.grad(loss, list(leaves.values())))

    if arm.private is None:
        gradients = slopes(index)
    else:
        gradients = noised([slopes(index[at : at + 1]) for at in range(len(index))], arm.private, generator)
    with torch.no_grad():
        return {
            name: weight - rate * gradient for (name, weight), gradient in zip(leaves.items(), gradients, strict=True)
        }


def logits(arm: Arm, base: Base, weights: Weights | None, texts: Texts) -> np.ndarray:
    """float32 [texts classes]; None: of the global model."""
    if weights is None:
        return texts.frozen.logits.numpy()
    found = np.zeros((len(texts), base.classes), np.float32)
    with torch.no_grad():
        for index in texts.batches():
            found[index] = arm.logits(base, weights, texts, index).numpy()
    return found


def right(arm: Arm, base: Base, weights: Weights | None, texts: Texts) -> int:
    """Texts answered with their label. Logits that are no numbers any more are right nowhere."""
    found = logits(arm, base, weights, texts)
    return int((np.isfinite(found).all(1) & (found.argmax(1) == texts.labels.numpy())).sum())


def choose(arm: Arm, base: Base, validation: Sequence[Person], k: int, training: Training, seed: int) -> Choice:
    """The rate and the epoch with the best mean accuracy over validation users; of equals the least training."""
    able = [person for person in validation if person.able(k)]
    if not able:
        raise CouldNotMeasure(f"no validation user has {k} texts to learn from: ask for fewer with --k")
    before = float(np.mean([right(arm, base, None, each.held_out) / len(each.held_out) for each in able]))
    best = Choice(arm.rates[0], 0, before, len(able))
    if not arm.start(base, seed):
        return best
    for rate in arm.rates:
        sums = np.zeros(training.epochs)
        for person in able:
            learning = epochs(arm, base, person.pool.first(k), rate, training, seed)
            sums += [right(arm, base, weights, person.held_out) / len(person.held_out) for weights in learning]
        for number, total in enumerate(sums / len(able), 1):
            if total > best.score + 1e-12:
                best = Choice(rate, number, float(total), len(able))
    return best


def personalised(arm: Arm, base: Base, texts: Texts, choice: Choice, training: Training, seed: int) -> Weights | None:
    """The weights that a user ends with; None where the global model was chosen."""
    if not choice.epoch:
        return None
    return next(itertools.islice(epochs(arm, base, texts, choice.rate, training, seed), choice.epoch - 1, None))


def majority(labels: Sequence[int], prior: Sequence[int]) -> int:
    """The most frequent of a user's labels; of equals the one most frequent in ``prior``, the training labels."""
    counts, before = np.bincount(labels, minlength=1), np.bincount(prior, minlength=1)
    return max(range(len(counts)), key=lambda label: (counts[label], before[label] if label < len(before) else 0))
