"""The same descent with clipped and noised gradients, and what that promises to each text (DP-SGD).

Every text's gradient is cut to a norm, Gaussian noise of that norm times ``noise`` is added to their sum (Abadi et al.,
CCS 2016, algorithm 1). Batches are not drawn at random here: each text is in one step an epoch, always the same, so an
epoch is one Gaussian mechanism and E epochs are one of noise / sqrt(E), whose epsilon is known exactly (Balle and
Wang, ICML 2018, theorem 8; neighbours: a text is there or gives no gradient). No accountant's bound is as tight; the
one of opacus (the extra ``private``) stands beside it in the tests. Rate and epoch come from other users, so choosing
them costs this one nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch

DELTA = 1e-5
Gradients = list[torch.Tensor]  # one a weight


@dataclass(frozen=True)
class Private:
    """clip: the largest norm of one text's gradient; noise: of its sum, in units of ``clip``."""

    noise: float = 1.0
    clip: float = 1.0


def noised(each: Sequence[Gradients], private: Private, generator: torch.Generator) -> Gradients:
    """The mean over a batch of texts' gradients, each clipped, and noise on their sum."""
    sums = [torch.zeros_like(gradient) for gradient in each[0]]
    for gradients in each:
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        share = min(1.0, private.clip / norm) if norm else 1.0
        for total, gradient in zip(sums, gradients, strict=True):
            total += share * gradient
    sigma = private.noise * private.clip
    return [
        (total + sigma * torch.randn(total.shape, generator=generator, dtype=total.dtype)) / len(each) for total in sums
    ]


def epsilon(private: Private, epochs: int, delta: float = DELTA) -> float:
    """The least epsilon at ``delta`` after so many epochs; 0.0 for none, infinite without noise."""
    if not epochs:
        return 0.0
    if not private.noise:
        return math.inf
    sigma = private.noise / math.sqrt(epochs)
    low, high = 0.0, 1.0
    while spent(sigma, high) > delta:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(sigma, middle) > delta else (low, middle)
    return high


def spent(sigma: float, epsilon: float) -> float:
    """The delta of one Gaussian mechanism of sensitivity 1 at an epsilon."""
    below = NormalDist().cdf
    tail = below(-1 / (2 * sigma) - epsilon * sigma)
    # e^epsilon overflows long before the product of the two does
    second = math.exp(min(epsilon + math.log(tail), 0.0)) if tail > 0 else 0.0
    return below(1 / (2 * sigma) - epsilon * sigma) - second
