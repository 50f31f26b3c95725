"""Iterative hard thresholding (Jin et al. 2016), with the schedule of FastGRNN (NeurIPS 2018), for any program."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from grit.bench.compress._draft import Course, Draft
from grit.bench.compress._network import Network
from grit.bench.compress._tuning import check_epochs, check_share, masks, tuned

EVERY = 15  # optimiser steps between two choices of what stays (the trainer of FastGRNN's authors)


@dataclass(frozen=True)
class Iht:
    """Trains on from the trained weights, in three thirds: dense; thresholded; what stays is fixed.

    In the second third the ``density`` largest weights are chosen anew every 15 steps, so one that was taken away
    may come back. As many steps as the arms of pruning take; an epoch counts from where the weights are sparse.
    """

    density: float = 0.5
    epochs: int = 10

    def __post_init__(self) -> None:
        check_share("iht", "density", self.density)
        check_epochs("iht", epochs=self.epochs)

    def compress(self, draft: Draft, course: Course) -> Draft:
        kept: dict[str, torch.Tensor] = {}
        steps = 0

        def rule(network: Network, progress: float) -> None:
            nonlocal steps
            if progress <= 1 / 3:
                return
            if not kept or (progress <= 2 / 3 and steps % EVERY == 0):
                chosen = masks(network.program(), self.density)
                kept.update({path: torch.from_numpy(mask) for path, mask in chosen.items()})
            network.hold(kept)
            steps += 1

        program, said = tuned(draft.program, course, self.epochs, rule=rule, settles=1 / 3 + 1e-9)
        sparse = dataclasses.replace(draft, program=program).shipped_as("sparse")
        return sparse.noted("iht", density=self.density, **said)
