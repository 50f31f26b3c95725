"""A robust word layer: what a word may say is settled first, and stays; it has no loss, so its weight is 1 or 0."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, embedding

from grit.bench.objectives._adam import Adam
from grit.bench.objectives._fields import AMOUNT, COUNT, POSITIVE, check
from grit.bench.objectives._step import Scene, Step
from grit.bench.objectives._words import Codebook
from grit.bench.objectives.bound import Bound
from grit.bench.types import Model, Reading


@runtime_checkable
class Tabled(Protocol):
    """A model whose word vectors are the rows of a table of its own: [vocabulary feat]."""

    table: nn.Parameter


@dataclass(frozen=True)
class WordLayer:
    """The student's word vectors are the votes of a bag of words that was trained against :class:`Bound`; frozen.

    A recurrent network that is attacked in training learns what the attacks of the day write and little of what they
    might; a bag of words can be trained against all at once. So the bag settles what each word may say, with its
    synonyms and misspellings heard alike, and the student learns on top of that what order says. After Jia et al.,
    "Certified Robustness to Adversarial Word Substitutions" (EMNLP 2019), whose word layer, trained with interval
    bounds and frozen, leaves a network behind it little that an attack could move; nothing is certified here.

    The votes are centred over the classes, turned so that the first feature tells most, brought to unit variance over
    all features used, and fill the table as far as it is wide. Nothing is added to the loss, so a weight other than 1,
    or 0 to leave it out, is refused. A model that computes its word vectors, as those that hash, has no table to freeze
    and is left as it is; one that is trained on keeps its own.

    bound: weight of the bound beside the bag's cross-entropy.
    batches, batch_size, learning_rate: of the bag's training, with Adam; the bound sets in as :class:`Bound` says.
    """

    bound: float = 0.25
    batches: int = 600
    batch_size: int = 256
    learning_rate: float = 2.5e-2
    lexicon: str = "default"

    needs_teacher: ClassVar[bool] = False
    adversarial: ClassVar[bool] = True
    weighs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(self, bound=AMOUNT, batches=COUNT, batch_size=COUNT, learning_rate=POSITIVE)

    def helper(self, scene: Scene) -> None:
        if not isinstance(scene.student, Tabled):
            return
        table = scene.student.table
        table.requires_grad = False
        if scene.begun:
            return
        heard = turned(self.bag(scene).table.detach())[:, : table.shape[1]]
        with torch.no_grad():
            table.zero_()[:, : heard.shape[1]] = heard / heard.square().mean().sqrt().clamp(min=1e-12)

    def __call__(self, step: Step) -> torch.Tensor:
        return torch.zeros(())

    def bag(self, scene: Scene) -> Any:
        """What every word of the student's vocabulary says for each class: a model, ``table`` [vocabulary classes]."""
        bag: Any = _Votes(scene.student, scene.classes)  # as much of a model as the terms of a step ask for
        own = Scene(bag, scene.words, Codebook(scene.words, bag), scene.train, scene.classes, scene.seed)
        bound = Bound(lexicon=self.lexicon)
        weights = [bag.table, bag.bias]
        optimiser = Adam(weights, weight_decay=0.0)
        rng, generator = random.Random(scene.seed), torch.Generator().manual_seed(scene.seed)
        order = np.random.default_rng(scene.seed)
        waiting = np.empty(0, np.int64)  # texts of this pass over the training split that are still to come
        for batch in range(1, self.batches + 1):
            if not len(waiting):
                waiting = order.permutation(len(scene.train.lengths))
                own.epoch += batch > 1
            index, waiting = waiting[: self.batch_size], waiting[self.batch_size :]
            step = Step(own, index, batch / self.batches, generator, rng)
            loss = cross_entropy(step.logits, step.labels) + self.bound * bound(step)
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.grad = gradient
            optimiser.step(self.learning_rate)
        return bag


def turned(votes: torch.Tensor) -> torch.Tensor:
    """Votes in the coordinates that tell most, the first one first: [vocabulary classes] -> [vocabulary classes - 1].

    What all classes are given alike is left out; distances are kept.
    """
    centred = votes - votes.mean(1, keepdim=True)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    return centred @ axes[: votes.shape[1] - 1].T


class _Votes(nn.Module):
    """A bag over the words of another model: logits are the mean vote of the words, plus a bias."""

    separable: ClassVar[bool] = True

    def __init__(self, student: Model, classes: int) -> None:
        super().__init__()
        assert isinstance(student, Tabled)
        self.vocabulary, self.classes, self.max_tokens = student.vocabulary, classes, student.max_tokens
        self.tokenize, self.codes = student.tokenize, student.codes
        self.table = nn.Parameter(torch.zeros(len(student.table), classes))
        self.bias = nn.Parameter(torch.zeros(classes))

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return embedding(codes, self.table)

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        inside = torch.arange(features.shape[1]) < lengths[:, None]
        return Reading(features, (features * inside[..., None]).sum(1) / lengths[:, None])

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return state + self.bias
