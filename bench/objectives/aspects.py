"""Explainable feature mapping by aspects: a state is a mixture of a few named directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import normalize

from grit.bench.objectives._fields import AMOUNT, COUNT, check
from grit.bench.objectives._step import Scene, Step


@dataclass(frozen=True)
class Aspects:
    """|| sg(s) - sum_k w_k(s) v_k ||^2 + pull || s - sg(sum_k w_k(s) v_k) ||^2 over normalised student states s.

    Pan, Li, Li, Zhu (IJCAI 2020), "Explainable Recommendation via Interpretable Feature Mapping and Evaluation
    of Explainability", section 3: states are mapped to aspects, and the weights w of a text on the unit
    vectors v are its explanation. sg stops the gradient: the first part fits the aspects to the student; the
    second, of weight ``pull``, asks the student for states that the aspects can explain.

    Two things are ours: states are normalised first, so that ``pull`` weighs alike in all models, and w is the softmax
    of a linear map of the state, so that an explanation is made of shares. Nothing shows w to anybody: aspects and
    weights are thrown away after the training, and what they leave in the student is what this row measures.
    """

    aspects: int = 8
    pull: float = 0.1

    needs_teacher: ClassVar[bool] = False
    adversarial: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(self, aspects=COUNT, pull=AMOUNT)

    def helper(self, scene: Scene) -> nn.ModuleDict:
        _, state = scene.widths
        vectors = nn.Linear(self.aspects, state, bias=False)
        return nn.ModuleDict({"weights": nn.Linear(state, self.aspects), "vectors": vectors})

    def __call__(self, step: Step) -> torch.Tensor:
        mapping = step.scene.helpers[self]
        assert isinstance(mapping, nn.ModuleDict)
        state = normalize(step.reading.state, dim=-1)
        directions = mapping["vectors"]
        assert isinstance(directions, nn.Linear)
        vectors = normalize(directions.weight, dim=0)  # [feat aspects], unit columns
        explained = mapping["weights"](state.detach()).softmax(-1) @ vectors.T
        fit = (state.detach() - explained).square().sum(-1).mean()
        pulled = (state - explained.detach()).square().sum(-1).mean()
        return fit + self.pull * pulled
