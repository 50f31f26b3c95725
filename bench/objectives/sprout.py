"""Self-progressing robust training, a comparison row: robustness without attacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import one_hot

from grit.bench.objectives._fields import AMOUNT, POSITIVE, SHARE, check
from grit.bench.objectives._step import Scene, Step


@dataclass(frozen=True)
class Sprout:
    """Cross-entropy of mixed, noisy features with mixed, smoothed labels; the smoothing is learned against the student.

    Cheng, Chen, Liu, et al. (AAAI 2021), "Self-Progressing Robust Training", section 3: Dirichlet label
    smoothing with trained concentrations, Gaussian augmentation, mixup. The paper draws its labels from the
    Dirichlet distribution; the loss is linear in the label, so its mean gives the same expectation without
    the noise. Noise is relative to each word's feature norm. Stands in the place of ``task``.

    smoothing: share of the label that the trained distribution takes. noise: standard deviation of the noise,
        in feature norms. mixing: both parameters of the Beta distribution that mixes a text with another one.
    """

    smoothing: float = 0.1
    noise: float = 0.1
    mixing: float = 0.2

    needs_teacher: ClassVar[bool] = False
    adversarial: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(self, smoothing=SHARE, noise=AMOUNT, mixing=POSITIVE)

    def helper(self, scene: Scene) -> nn.Module:
        return nn.ParameterDict({"concentration": nn.Parameter(torch.zeros(scene.classes))})

    def __call__(self, step: Step) -> torch.Tensor:
        trained = step.scene.helpers[self]
        assert isinstance(trained, nn.ParameterDict)
        concentration = trained["concentration"]
        # The student descends and the labels ascend the same loss: the gradient that arrives here is turned round.
        climbing = 2 * concentration.detach() - concentration
        labels = one_hot(step.labels, step.scene.classes).to(step.features.dtype)
        labels = (1 - self.smoothing) * labels + self.smoothing * climbing.softmax(-1)
        share = step.random.betavariate(self.mixing, self.mixing)
        other = torch.randperm(len(labels), generator=step.generator)
        features = share * step.features + (1 - share) * step.features[other]
        noise = torch.randn(features.shape, generator=step.generator, dtype=features.dtype)
        size = features.detach().norm(dim=-1, keepdim=True) / features.shape[-1] ** 0.5
        features = features + self.noise * size * noise
        lengths = torch.maximum(step.lengths, step.lengths[other])
        logits = step.student.head(step.student.read(features, lengths).state)
        mixed = share * labels + (1 - share) * labels[other]
        return -(mixed * logits.log_softmax(-1)).sum(-1).mean()
