"""Adam by hand, for all that trains here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # as the paper proposes


class Adam:
    """Adam (Kingma and Ba, ICLR 2015, algorithm 1) with weight decay added to the gradient.

    Torch's own does the same arithmetic, but importing its compiler costs seconds at the first step.
    """

    def __init__(self, weights: Sequence[torch.Tensor], weight_decay: float) -> None:
        self.weights = weights
        self.weight_decay = weight_decay
        self.first = [torch.zeros_like(weight) for weight in weights]
        self.second = [torch.zeros_like(weight) for weight in weights]
        self.steps = [0] * len(weights)  # a weight that no loss reached has not moved

    def state(self) -> dict[str, Any]:
        return {"first": self.first, "second": self.second, "steps": self.steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.first, self.second, self.steps = state["first"], state["second"], state["steps"]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for place, weight in enumerate(self.weights):
            if weight.grad is None:
                continue
            gradient = weight.grad.add(weight, alpha=self.weight_decay) if self.weight_decay else weight.grad
            self.steps[place] += 1
            first = self.first[place].lerp_(gradient, 1 - _BETA1)
            second = self.second[place].mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
            shrink1, shrink2 = 1 - _BETA1 ** self.steps[place], 1 - _BETA2 ** self.steps[place]
            size = second.sqrt().div_(shrink2**0.5).add_(_EPSILON)
            weight.addcdiv_(first, size, value=-rate / shrink1)
