"""A program as a torch model: the float twin of compressed bytes, and what is trained on when a step trains.

It computes what :mod:`grit.bench.export.floating` computes, layer by layer, with gradients; its weights are the
arrays of the program, by their paths. Batch normalisation is folded and dropout gone, as in the program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, assert_never

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from grit.bench import text
from grit.bench.compress._draft import arrays, mapped
from grit.bench.export import words
from grit.bench.types import AttentionPool, FastGrnn, Lstm, Mean, Program, Reading, Recipe, Ternary

Rule = Callable[["Network", float], None]
"""rule(network, progress): called after every optimiser step, as a model's ``constrain``."""

_TABLE = "words.table"


class Network(nn.Module):
    """A trainable :class:`grit.bench.types.Program` (a :class:`grit.bench.types.Model`).

    rule: holds the weights to something after each step of the optimiser; one that remembers is a module with buffers.
    settles: the share of a training before which its epochs do not count, as what the rule holds is not yet there.
    rounded: every pass reads weights as int8 would have them, and gradients pass the rounding as if it were not there
    (straight-through: Bengio et al. 2013).
    """

    Config: ClassVar[type] = Program
    recipe: ClassVar[Recipe] = Recipe()

    def __init__(
        self, program: Program, *, rule: Rule | None = None, settles: float = 0.0, rounded: bool = False
    ) -> None:
        super().__init__()
        self.config = self._like = program
        self.classes = len(program.head.bias)
        self.vocabulary = program.vocabulary
        self.max_tokens = program.max_tokens
        self._reader = words.of(program.words, program.vocabulary)
        self.separable = self._reader.separable
        self._rule, self._settles, self._rounded = rule, settles, rounded
        self.weights = nn.ParameterDict(
            {key(path): nn.Parameter(torch.from_numpy(array.copy())) for path, array in arrays(program).items()}
        )
        if isinstance(program.body, FastGrnn):
            self.mix = nn.Parameter(torch.tensor([program.body.zeta, program.body.nu]))

    @classmethod
    def build(cls, config: Program, texts: Sequence[str], classes: int, seed: int) -> Network:
        """Nothing is drawn: a program has its weights."""
        return cls(config)

    @property
    def table(self) -> nn.Parameter:
        """The word vectors, where they are a table [vocabulary feat]; AttributeError for words that are hashed."""
        if isinstance(self._like.words, Ternary):
            raise AttributeError("table")
        found = self.weights[key(_TABLE)]
        assert isinstance(found, nn.Parameter)
        return found

    def tokenize(self, raw: str) -> list[str]:
        return self._reader.tokenize(raw)

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        if isinstance(self._like.words, Ternary):
            return text.ternary(tokens, self._like.words.width)
        return self._reader.intern(tokens).astype(np.int64)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        if isinstance(self._like.words, Ternary):
            return codes.to(self.weights[key("head.bias")].dtype)
        return functional.embedding(codes, self.weight(_TABLE))

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        """Words: the features, of a pooling its value map, as in the models that have one."""
        match self._like.body:
            case Lstm():
                outputs = _lstm(features, *(self.weight(f"body.{n}") for n in ("input_weight", "state_weight", "bias")))
                return Reading(features, outputs[torch.arange(len(lengths)), lengths - 1])
            case FastGrnn():
                return Reading(features, self._fastgrnn(features, lengths))
            case AttentionPool() as pool:
                return self._pooled(pool, features, lengths)
            case Mean():
                inside = _within(lengths, features.shape[1])
                return Reading(features, (features * inside[..., None]).sum(1) / lengths[:, None])
            case body:
                assert_never(body)

    def head(self, state: torch.Tensor) -> torch.Tensor:
        logits = functional.linear(state, self.weight("head.weight"), self.weight("head.bias"))
        return logits.relu() if self._like.head.relu else logits

    def forward(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(self.features(codes), lengths).state)

    @torch.no_grad()
    def constrain(self, progress: float) -> None:
        if isinstance(self._like.body, FastGrnn):
            self.mix.clamp_(0, 1)  # a program's zeta and nu are shares
        if self._rule is not None:
            self._rule(self, progress)

    def settled(self, progress: float) -> bool:
        """Whether the rule holds at this share of a training."""
        return progress >= self._settles

    def program(self) -> Program:
        """The program with the weights as they are now."""
        now = mapped(self._like, lambda path, _: self.weights[key(path)].detach().cpu().float().numpy().copy())
        if isinstance(now.body, FastGrnn):
            zeta, nu = self.mix.detach().tolist()
            now = dataclasses.replace(now, body=dataclasses.replace(now.body, zeta=zeta, nu=nu))
        return now

    @torch.no_grad()
    def hold(self, kept: Mapping[str, torch.Tensor]) -> None:
        """Sets weights to zero: path -> which ones stay."""
        for path, mask in kept.items():
            self.weights[key(path)].mul_(mask)

    def weight(self, path: str) -> torch.Tensor:
        """An array of the program by its path, as a pass reads it."""
        weight: torch.Tensor = self.weights[key(path)]
        if not self._rounded or weight.ndim < 2:
            return weight
        return weight + (rounded(weight, by_column=path == _TABLE) - weight).detach()

    # --- bodies ---------------------------------------------------------------------------------------

    def _fastgrnn(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        drive = features.transpose(0, 1) @ self.weight("body.input_weight").T  # [seq batch hidden]
        state_weight = self.weight("body.state_weight").T
        bias_gate, bias_update = self.weight("body.bias_gate"), self.weight("body.bias_update")
        zeta, nu = self.mix
        h = drive.new_zeros(drive.shape[1:])
        passed = []
        for each in drive:
            pre = torch.addmm(each, h, state_weight)
            z, c = torch.sigmoid(pre + bias_gate), torch.tanh(pre + bias_update)
            h = z * h + (zeta * (1 - z) + nu) * c
            passed.append(h)
        return torch.stack(passed)[lengths - 1, torch.arange(len(lengths))]

    def _pooled(self, pool: AttentionPool, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        inside = _within(lengths, features.shape[1])[..., None]
        maps = []
        for name, layer in (("value", pool.value), ("attention", pool.attention)):
            found = functional.linear(features, self.weight(f"body.{name}.weight"), self.weight(f"body.{name}.bias"))
            maps.append((found.relu() if layer.relu else found) * inside)
        states = []
        for number in range(len(pool.kernels)):
            value, logit = (
                self._convolved(f"body.kernels.{number}.{name}", each)
                for name, each in zip(("value", "attention"), maps, strict=True)
            )
            share = logit.masked_fill(inside == 0, -torch.inf).softmax(1)
            states.append((share * value).sum(1))
        return Reading(maps[0], torch.cat(states, 1))

    def _convolved(self, path: str, x: torch.Tensor) -> torch.Tensor:
        """A kernel over tokens, with zeros beyond the end: [batch seq out]."""
        weight = self.weight(f"{path}_weight")  # [out k in]
        width, seq = weight.shape[1], x.shape[1]
        padded = functional.pad(x, (0, 0, 0, width - 1))
        windows = torch.cat([padded[:, place : place + seq] for place in range(width)], 2)
        return functional.linear(windows, weight.flatten(1), self.weight(f"{path}_bias"))


def rounded(weight: torch.Tensor, *, by_column: bool) -> torch.Tensor:
    """The nearest of 255 steps: of each column's largest magnitude, or of each first axis's (an output's)."""
    over = [0] if by_column else list(range(1, weight.ndim))
    step = weight.detach().abs().amax(over, keepdim=True) / 127
    return (weight / step.where(step > 0, torch.ones_like(step))).round() * step


def _lstm(x: torch.Tensor, input_weight: torch.Tensor, state_weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """All states of an LSTM from state zero: [batch seq h]."""
    start = x.new_zeros(1, len(x), state_weight.shape[1])
    weights = [input_weight, state_weight, bias, torch.zeros_like(bias)]
    outputs: torch.Tensor = torch.lstm(x, [start, start], weights, True, 1, 0.0, False, False, True)[0]
    return outputs


def _within(lengths: torch.Tensor, seq: int) -> torch.Tensor:
    return torch.arange(seq) < lengths[:, None]


def key(path: str) -> str:
    """The name of an array's weight, by its path in the program."""
    return path.replace(".", "/")  # torch keeps the point for itself
