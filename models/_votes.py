"""Every token votes for every class, and the mean vote decides: the shape that the linear models share."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from grit.bench.types import Dense, Mean, Program, Reading, Rows
from grit.models import _pool


class VotesConfig(Protocol):
    """What the layers below need to know; the public classes add their defaults."""

    @property
    def max_tokens(self) -> int: ...


class Votes(nn.Module):
    """Everything but the tokens and what their rows say; nothing here is overridden."""

    def __init__(self, config: VotesConfig, vocabulary: tuple[str, ...], classes: int, rows: int) -> None:
        """``rows``: how many tokens can be told apart."""
        super().__init__()
        self.config: Any = config
        self.vocabulary = vocabulary
        self.classes = classes
        self.max_tokens = config.max_tokens
        self.rows = nn.Parameter(torch.zeros(rows, classes))
        self.bias = nn.Parameter(torch.zeros(classes))

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        return Reading(features, _pool.mean(features, lengths))

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return state + self.bias

    def constrain(self, progress: float) -> None:
        """Nothing to hold."""

    def counted(self, votes: Rows) -> Program:
        """The program in which the tokens have these votes."""
        head = Dense(np.eye(self.classes, dtype=np.float32), self.bias.detach().cpu().numpy().copy())
        return Program(votes, Mean(), head, self.vocabulary, self.max_tokens)
