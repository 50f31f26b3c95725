"""Embedding - one LSTM - linear layer: the shape that the student and its teacher share (IJCNN 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from grit.bench import text
from grit.bench.types import Dense, Lstm, Program, Reading, Rows
from grit.models import _vocabulary


class LstmConfig(Protocol):
    """What the layers below need to know; the public classes add their defaults."""

    @property
    def embedding(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...


class LstmClassifier(nn.Module):
    """Everything but the configuration and its defaults; nothing here is overridden."""

    separable: ClassVar[bool] = True

    def __init__(self, config: LstmConfig, vocabulary: tuple[str, ...], classes: int) -> None:
        """The layers, their weights still to be drawn or loaded."""
        super().__init__()
        self.config: Any = config
        self.vocabulary = vocabulary
        self.classes = classes
        self.max_tokens = config.max_tokens
        self._index = _vocabulary.index(vocabulary)
        self.table = nn.Parameter(torch.zeros(len(vocabulary), config.embedding))
        # Made on the meta device first: torch's own initialisation would draw from the global generator.
        self.lstm = nn.LSTM(config.embedding, config.hidden, batch_first=True, device="meta").to_empty(device="cpu")
        self.head_weight = nn.Parameter(torch.zeros(classes, config.hidden))
        self.head_bias = nn.Parameter(torch.zeros(classes))

    def drawn(self, seed: int) -> Self:
        """This model with fresh weights: embeddings normal, the rest uniform within 1/sqrt(hidden), as in torch."""
        generator = torch.Generator().manual_seed(seed)
        bound = 1 / math.sqrt(self.config.hidden)
        nn.init.normal_(self.table, std=self.config.embedding_std, generator=generator)
        for weight in (*self.lstm.parameters(), self.head_weight, self.head_bias):
            nn.init.uniform_(weight, -bound, bound, generator=generator)
        return self

    def tokenize(self, raw: str) -> list[str]:
        return text.tokenize(raw)

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        return _vocabulary.rows(self._index, tokens)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return functional.embedding(codes, self.table)

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        """Words: the embeddings; state: the LSTM's output at the last real token, which padding behind cannot reach."""
        outputs, _ = self.lstm(features)  # [batch seq hidden]
        state = outputs[torch.arange(len(lengths), device=lengths.device), lengths - 1]
        return Reading(features, state)

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return functional.linear(state, self.head_weight, self.head_bias)

    def forward(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(self.features(codes), lengths).state)

    def constrain(self, progress: float) -> None:
        """Nothing to hold."""

    def program(self) -> Program:
        weights = {name: weight.detach().numpy().copy() for name, weight in self.named_parameters()}
        body = Lstm(
            weights["lstm.weight_ih_l0"],
            weights["lstm.weight_hh_l0"],
            weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"],
        )
        head = Dense(weights["head_weight"], weights["head_bias"])
        return Program(Rows(weights["table"]), body, head, self.vocabulary, self.max_tokens)
