"""One training step, as a loss term sees it.

What lasts for the whole training is the :class:`Scene`; what changes with the batch is the :class:`Step`.
Everything that costs a pass through a network is computed when a term first asks for it, and only once.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.functional import embedding, linear

from grit.bench.objectives._flips import Flips
from grit.bench.objectives._lessons import Lessons
from grit.bench.objectives._passes import Projecting, answer, evidence, margin, quiet, reply, unmoved
from grit.bench.objectives._words import Codebook, Split, Words
from grit.bench.types import Model, Reading, UsageError


class Objective(Protocol):
    """A loss term: a frozen dataclass whose fields are its hyper-parameters, each checked when one is made.

    It may say ``least_classes``: with fewer it is refused before any training; and ``weighs = False`` where nothing is
    added to the loss, so that it can be left out but not weighed.
    """

    @property
    def needs_teacher(self) -> bool: ...

    @property
    def adversarial(self) -> bool:
        """Whether it trains for robustness: then the best epoch is chosen on attacked dev texts too."""
        ...

    def helper(self, scene: Scene) -> nn.Module | None:
        """Parameters trained beside the student and thrown away after; raises UsageError where it cannot apply."""
        ...

    def __call__(self, step: Step) -> torch.Tensor:
        """The loss of one step: a scalar."""
        ...


@dataclass(eq=False)
class Scene:
    """What stays the same from the first step to the last."""

    student: Model
    words: Words
    codebook: Codebook  # the student's codes
    train: Split
    classes: int
    seed: int
    teaching: Lessons | None = None
    helpers: Mapping[Objective, nn.Module] = field(default_factory=dict)
    begun: bool = False  # the student came with trained weights and goes on from them
    epoch: int = 0
    _flips: dict[str, Flips] = field(default_factory=dict)

    @property
    def lessons(self) -> Lessons:
        """The teacher's answers; a UsageError where there is no teacher."""
        if self.teaching is None:
            raise UsageError("this scheme has a term that needs a teacher, got none; give one or use another scheme")
        return self.teaching

    def flips(self, lexicon: str) -> Flips:
        """What an attacker may write over each word, redrawn every epoch; ``lexicon`` "" allows no synonyms."""
        if lexicon not in self._flips:
            self._flips[lexicon] = Flips(self.codebook, self.train, lexicon, self.seed)
        flips = self._flips[lexicon]
        flips.renew(self.epoch)
        return flips

    @cached_property
    def widths(self) -> tuple[int, int]:
        """Features of the student's word vectors and of its state."""
        with quiet(self.student), torch.no_grad():
            reading = self.student.read(
                self.student.features(self.codebook.codes(np.zeros((1, 1), np.int32))), torch.ones(1, dtype=torch.long)
            )
        return reading.words.shape[-1], reading.state.shape[-1]


@dataclass(eq=False)
class Step:
    """One batch of the training split under the student as it is now."""

    scene: Scene
    index: np.ndarray  # [batch] places in the training split
    progress: float  # share of the training done, in (0, 1]
    generator: torch.Generator
    random: random.Random

    @property
    def student(self) -> Model:
        return self.scene.student

    @property
    def epoch(self) -> int:
        return self.scene.epoch

    @property
    def lessons(self) -> Lessons:
        return self.scene.lessons

    def strength(self, calm: float, full: float) -> float:
        """How hard to attack now: 0 until ``calm`` of the training is done, 1 from ``full`` on, rising in between.

        A small model that is attacked in full before it has learned anything settles on a constant answer,
        which no attack can change, and never leaves it.
        """
        return min(1.0, max(0.0, (self.progress - calm) / max(full - calm, 1e-9)))

    @cached_property
    def rows(self) -> np.ndarray:
        """int32 [batch seq]; what a row's token is: ``scene.words.strings``."""
        return self.scene.train.rows(self.index)

    @cached_property
    def lengths(self) -> torch.Tensor:
        return torch.from_numpy(self.scene.train.lengths[self.index])

    @cached_property
    def labels(self) -> torch.Tensor:
        return torch.from_numpy(self.scene.train.labels[self.index])

    @cached_property
    def mask(self) -> torch.Tensor:
        """bool [batch seq]: the tokens that are there."""
        return torch.arange(self.rows.shape[1]) < self.lengths[:, None]

    @cached_property
    def features(self) -> torch.Tensor:
        return self.over(self.rows)

    @cached_property
    def reading(self) -> Reading:
        if isinstance(self.student, Projecting):
            return self.student.read_projected(self.projected(self.rows), self.lengths)
        return self.student.read(self.features, self.lengths)

    @cached_property
    def logits(self) -> torch.Tensor:
        return self.student.head(self.reading.state)

    @cached_property
    def deployed(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The projections, and the logits at them of the student as it would be deployed, graph kept."""
        with quiet(self.student):
            projected = self.projected(self.rows)
            if not isinstance(self.student, Projecting):  # features: a leaf, none of their own weights behind it
                projected = projected.detach().requires_grad_()
            return projected, self.reread(projected)

    @cached_property
    def tilt(self) -> torch.Tensor:
        """Gradient of the attack margin at the projections of the deployed student: [batch seq narrow]."""
        projected, logits = self.deployed
        return torch.autograd.grad(margin(logits, self.labels).sum(), projected, retain_graph=True)[0]

    @cached_property
    def slope(self) -> torch.Tensor:
        """Gradient of the attack margin at the features of the deployed student: [batch seq feat]."""
        tilt = self.tilt
        with torch.no_grad():
            return self.at_features(tilt)

    @cached_property
    def attributions(self) -> torch.Tensor:
        """Gradient times input a token, of the evidence for the label, deployed student: [batch seq]; no graph."""
        projected, logits = self.deployed
        (gradient,) = torch.autograd.grad(evidence(logits, self.labels).sum(), projected, retain_graph=True)
        return (gradient * projected.detach()).sum(-1)  # a linear map between the two leaves the product as it is

    def again(self, features: torch.Tensor) -> torch.Tensor:
        """The student's logits on other features of the same texts, its running statistics unmoved: [batch classes]."""
        with unmoved(self.student):
            return answer(self.student, features, self.lengths)

    def reread(self, projected: torch.Tensor) -> torch.Tensor:
        """Like :meth:`again`, on other projections."""
        with unmoved(self.student):
            return reply(self.student, projected, self.lengths)

    def over(self, rows: np.ndarray) -> torch.Tensor:
        """The student's features of other words in the same places: [batch seq feat]."""
        return self.student.features(self.scene.codebook.codes(rows))

    def projected(self, rows: np.ndarray) -> torch.Tensor:
        """:meth:`over` as the student's ``read`` begins with it, each word once: [batch seq narrow].

        The features themselves where the student is not :class:`Projecting`.
        """
        if not isinstance(self.student, Projecting):
            return self.over(rows)
        return self._projected if rows is self.rows else self._project(self.student, rows)

    @cached_property
    def _projected(self) -> torch.Tensor:
        assert isinstance(self.student, Projecting)
        return self._project(self.student, self.rows)

    def _project(self, student: Projecting, rows: np.ndarray) -> torch.Tensor:
        distinct, places = np.unique(rows, return_inverse=True)
        table = linear(self.over(distinct), student.projection())
        return embedding(torch.from_numpy(places.reshape(rows.shape)), table)

    def at_features(self, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient at the features from that at their projections: [batch seq narrow] -> [batch seq feat]."""
        return gradient @ self.student.projection() if isinstance(self.student, Projecting) else gradient

    def along(self, gradient: torch.Tensor) -> torch.Tensor:
        """Where projections go when the features go by :meth:`at_features` of a gradient: [batch seq narrow], as it is.

        The way of the features is fixed; where it leads moves with the weights.
        """
        if not isinstance(self.student, Projecting):
            return gradient
        projection = self.student.projection()
        return gradient @ (projection.detach() @ projection.T)  # two narrow products, nothing as wide as features

    def pool(self, tokens: torch.Tensor, *, mean: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens summed or averaged over pieces of text: [batch seq feat] -> [batch pieces feat], and which exist.

        Only for separable students.
        """
        pieces = torch.from_numpy(self.scene.train.pieces(self.index)).long().where(self.mask, torch.tensor(-1)) + 1
        n = int(pieces.max()) + 1  # slot 0 takes the padding
        sums = tokens.new_zeros(len(tokens), n, tokens.shape[-1])
        sums = sums.scatter_add(1, pieces[..., None].expand_as(tokens), tokens)[:, 1:]
        counts = torch.zeros(len(tokens), n, dtype=tokens.dtype)
        counts = counts.scatter_add(1, pieces, torch.ones_like(pieces, dtype=tokens.dtype))[:, 1:]
        return (sums / counts.clamp(min=1)[..., None] if mean else sums), counts > 0
