"""Iterative hard thresholding (Jin et al. 2016), with the schedule of FastGRNN (NeurIPS 2018), for any program."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn

from grit.bench.compress._draft import Course, Draft
from grit.bench.compress._network import Network, key
from grit.bench.compress._tuning import check_epochs, check_share, masks, tuned
from grit.bench.types import Program

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
        rule = _Thirds(draft.program, self.density)
        program, said = tuned("iht", draft.program, course, self.epochs, rule=rule, settles=1 / 3 + 1e-9)
        sparse = dataclasses.replace(draft, program=program).shipped_as("sparse")
        return sparse.noted("iht", density=self.density, **said)


class _Thirds(nn.Module):
    """The rule; what stays and how often it was asked are buffers, so that a checkpoint holds them."""

    steps: torch.Tensor  # since the dense third

    def __init__(self, program: Program, density: float) -> None:
        super().__init__()
        self.density = density
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        whole = masks(program, 1.0)
        for path, mask in whole.items():
            self.register_buffer(key(path), torch.from_numpy(mask))
        self._paths = tuple(whole)

    @property
    def kept(self) -> dict[str, torch.Tensor]:
        """path -> which weights stay."""
        return {path: self.get_buffer(key(path)) for path in self._paths}

    def forward(self, network: Network, progress: float) -> None:
        if progress <= 1 / 3:
            return
        if self.steps == 0 or (progress <= 2 / 3 and self.steps % EVERY == 0):
            chosen = masks(network.program(), self.density)
            for path, mask in self.kept.items():
                mask.copy_(torch.from_numpy(chosen[path]))
        network.hold(self.kept)
        self.steps += 1
