"""FastGRNN (Kusupati et al., "FastGRNN: A Fast, Accurate, Stable and Tiny Kilobyte Sized Gated RNN", NeurIPS 2018).

One matrix pair drives both the gate and the update, so the cell is a third of a GRU's size; the factors may be
of low rank and are made sparse by iterative hard thresholding. One repair to the authors' PyTorch trainer, which
hands its optimiser the cell alone: here the classifier is trained too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from grit.bench import text
from grit.bench.types import Dense, FastGrnn, Program, Reading, Recipe, Rows
from grit.models import _vocabulary

THRESHOLD_EVERY = 15  # batches between two choices of the support (the authors' trainer)


class FastGRNN(nn.Module):
    """Embedding - FastGRNN cell - linear layer on the last state.

    What ships holds W and U whole: rank and density make a model that can be smaller, not yet smaller bytes.
    """

    @dataclass(frozen=True)
    class Config:
        embedding: int = 32  # D; ours; the paper's Yelp-5 embeds in 128, far larger than its cell
        hidden: int = 64  # H; table 11 has 32 to 256
        rank_w: int = 0  # r_w: W = W1 W2 of this rank; 0 is full (table 11: 1 to 64)
        rank_u: int = 0  # r_u, the same for U (table 11: 15 to 64)
        density_w: float = 1.0  # s_w: share of the weights of W that stay (table 11: 0.15 to 1)
        density_u: float = 1.0  # s_u, the same for U (table 11: 0.05 to 0.3)
        vocabulary_size: int = 20_000  # rows of the table, the unknown word's among them (paper, Yelp-5: 20K)
        minimum_count: int = 2  # ours: words seen once teach the unknown row
        max_tokens: int = 128  # ours; paper, Yelp-5: 300
        embedding_std: float = 0.1  # ours: on dev splits 0.1 learns faster and ends higher than 1

    recipe: ClassVar[Recipe] = Recipe(epochs=20, batch_size=64, learning_rate=1e-2)  # Adam 1e-2 (authors' trainer)
    separable: ClassVar[bool] = True

    def __init__(self, config: Config, vocabulary: tuple[str, ...], classes: int) -> None:
        """The layers, their weights still to be drawn or loaded."""
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.classes = classes
        self.max_tokens = config.max_tokens
        self._index = _vocabulary.index(vocabulary)
        d, h = config.embedding, config.hidden
        self.table = nn.Parameter(torch.zeros(len(vocabulary), d))
        self.w_factors = _factors(d, h, config.rank_w)  # x W, as the authors lay it out
        self.u_factors = _factors(h, h, config.rank_u)
        self.bias_gate = nn.Parameter(torch.zeros(h))
        self.bias_update = nn.Parameter(torch.zeros(h))
        self.zeta = nn.Parameter(torch.zeros(1))  # before the sigmoid, as nu
        self.nu = nn.Parameter(torch.zeros(1))
        self.head_weight = nn.Parameter(torch.zeros(classes, h))
        self.head_bias = nn.Parameter(torch.zeros(classes))
        # A sparse cell keeps its place in the schedule with its weights, so that a resumed training goes on alike.
        self._sparse = min(config.density_w, config.density_u) <= 0.99  # the authors call the rest dense
        if self._sparse:
            self.sparse_batches: torch.Tensor
            self.register_buffer("sparse_batches", torch.zeros((), dtype=torch.int64))
            for name, factor, _ in self._densities():
                self.register_buffer(f"support_{name}", torch.ones_like(factor, dtype=torch.bool))

    @classmethod
    def build(cls, config: Config, texts: Sequence[str], classes: int, seed: int) -> Self:
        """Weights as the authors' code draws them: 0.1 N(0, 1) for the cell, N(0, 1) for the head, biases 1."""
        vocabulary = _vocabulary.learn(texts, config.vocabulary_size, config.minimum_count)
        model = cls(config, vocabulary, classes)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(model.table, std=config.embedding_std, generator=generator)
        for factor in (*model.w_factors, *model.u_factors):
            nn.init.normal_(factor, std=0.1, generator=generator)
        nn.init.ones_(model.bias_gate)
        nn.init.ones_(model.bias_update)
        nn.init.constant_(model.zeta, 1.0)
        nn.init.constant_(model.nu, -4.0)
        nn.init.normal_(model.head_weight, generator=generator)
        nn.init.normal_(model.head_bias, generator=generator)
        return model

    def tokenize(self, raw: str) -> list[str]:
        return text.tokenize(raw)

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        return _vocabulary.rows(self._index, tokens)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return functional.embedding(codes, self.table)

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        """Words: the embeddings; state: the cell's at the last real token, which padding behind cannot reach."""
        drive = features.transpose(0, 1) @ _product(self.w_factors)  # [seq batch hidden]
        states = run_cell(
            drive,
            _product(self.u_factors),
            self.bias_gate,
            self.bias_update,
            torch.sigmoid(self.zeta),
            torch.sigmoid(self.nu),
        )
        return Reading(features, states[lengths, torch.arange(len(lengths), device=lengths.device)])

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return functional.linear(state, self.head_weight, self.head_bias)

    def forward(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(self.features(codes), lengths).state)

    def _densities(self) -> list[tuple[str, nn.Parameter, float]]:
        return [
            (f"{letter}{i}", factor, density)
            for letter, factors, density in (
                ("w", self.w_factors, self.config.density_w),
                ("u", self.u_factors, self.config.density_u),
            )
            for i, factor in enumerate(factors)
        ]

    @torch.no_grad()
    def constrain(self, progress: float) -> None:
        """Three equal thirds of all batches: dense; hard thresholding; the support fixed (paper, training of FastGRNN).

        In the second third every 15th batch keeps the largest weights of each factor, and the batches between
        keep to that support.
        """
        if not self._sparse or progress <= 1 / 3:
            return
        choose = progress <= 2 / 3 and int(self.sparse_batches) % THRESHOLD_EVERY == 0
        for name, factor, density in self._densities():
            support: torch.Tensor = getattr(self, f"support_{name}")
            if choose:
                support.copy_(largest(factor, density))
            factor.mul_(support)
        self.sparse_batches += 1

    def settled(self, progress: float) -> bool:
        """Whether the weights at this share of training may be kept: not before they are sparse (authors' trainer)."""
        return not self._sparse or progress > 1 / 3

    @torch.no_grad()
    def program(self) -> Program:
        """Low-rank factors are multiplied out: the program's cell is always full."""

        def array(weight: torch.Tensor) -> np.ndarray:
            return weight.detach().cpu().numpy().copy()

        body = FastGrnn(
            array(_product(self.w_factors).T),
            array(_product(self.u_factors).T),
            array(self.bias_gate),
            array(self.bias_update),
            float(torch.sigmoid(self.zeta)),
            float(torch.sigmoid(self.nu)),
        )
        head = Dense(array(self.head_weight), array(self.head_bias))
        return Program(Rows(array(self.table)), body, head, self.vocabulary, self.max_tokens)


def _factors(rows: int, columns: int, rank: int) -> nn.ParameterList:
    shapes = [(rows, rank), (rank, columns)] if rank else [(rows, columns)]
    return nn.ParameterList([nn.Parameter(torch.zeros(shape)) for shape in shapes])


def _product(factors: nn.ParameterList) -> torch.Tensor:
    return factors[0] @ factors[1] if len(factors) == 2 else factors[0]


def largest(weight: torch.Tensor, share: float) -> torch.Tensor:
    """Where the largest ``share`` of the magnitudes of ``weight`` stand, as booleans of its shape.

    The threshold is the (1 - share) quantile, the higher neighbour where it falls between two.
    """
    magnitudes = weight.abs()
    return magnitudes >= torch.quantile(magnitudes.flatten(), 1 - share, interpolation="higher")


def run_cell(
    drive: torch.Tensor,
    state_weight: torch.Tensor,
    bias_gate: torch.Tensor,
    bias_update: torch.Tensor,
    zeta: torch.Tensor,
    nu: torch.Tensor,
) -> torch.Tensor:
    """All states of a FastGRNN cell from state zero (the gated cell of the paper).

    drive [seq batch hidden] is x W; state_weight [hidden hidden] multiplies from the right (h U); zeta and nu
    [1] are after their sigmoid. Returns [seq+1 batch hidden]: state t is the one after t tokens.
    """
    return _Cell.apply(drive, state_weight, bias_gate, bias_update, zeta, nu)


class _Cell(torch.autograd.Function):
    """The cell with its gradient written out: three operations a step instead of autograd's thirty.

    The backward pass takes gates and updates as the forward pass left them; where it shall be differentiated itself, as
    attribution losses do, it computes them again from inputs and outputs.
    """

    @staticmethod
    def forward(ctx: Any, drive, state_weight, bias_gate, bias_update, zeta, nu) -> torch.Tensor:  # type: ignore[no-untyped-def]
        seq, batch, hidden = drive.shape
        states = drive.new_zeros(seq + 1, batch, hidden)
        gates, updates = torch.empty_like(drive), torch.empty_like(drive)
        offset = bias_update - bias_gate
        scale, both = float(zeta), float(zeta + nu)
        before = states[0]
        steps = zip((drive + bias_gate).unbind(), gates.unbind(), updates.unbind(), states[1:].unbind(), strict=True)
        for gate_drive, gate, update, state in steps:
            pre = torch.addmm(gate_drive, before, state_weight)
            torch.sigmoid(pre, out=gate)
            torch.tanh(pre.add_(offset), out=update)
            # z h + (zeta (1 - z) + nu) c, with the gate factored out
            torch.addcmul(update * both, gate, torch.sub(before, update, alpha=scale), out=state)
            before = state
        ctx.save_for_backward(drive, state_weight, bias_gate, bias_update, zeta, nu, states, gates, updates)
        return states

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        (grad,) = grads  # [seq+1 batch hidden]
        drive, state_weight, bias_gate, bias_update, zeta, nu, states, gate, update = ctx.saved_tensors
        before = states[:-1]
        if torch.is_grad_enabled():
            pre = drive + before @ state_weight
            gate = torch.sigmoid(pre + bias_gate)
            update = torch.tanh(pre + bias_update)
        closed = 1 - gate
        by_gate = torch.addcmul(before, update, zeta, value=-1) * gate * closed  # d state / d gate's argument
        by_pre = torch.addcmul(by_gate, torch.addcmul(nu, zeta, closed), 1 - update * update)
        back = state_weight.T
        flow: list[torch.Tensor] = []  # d loss / d state, from the last step back
        arriving = grad[-1]
        for direct, open_, slope in zip(*(reversed(each.unbind()) for each in (grad[:-1], gate, by_pre)), strict=True):
            flow.append(arriving)
            arriving = torch.addmm(torch.addcmul(direct, arriving, open_), arriving * slope, back)
        through = torch.stack(flow[::-1])  # [seq batch hidden]
        to_pre, to_update = through * by_pre, through * update
        to_bias_gate = (through * by_gate).sum((0, 1))
        return (
            to_pre,
            before.flatten(0, 1).T @ to_pre.flatten(0, 1),
            to_bias_gate,
            to_pre.sum((0, 1)) - to_bias_gate,
            torch.dot(to_update.flatten(), closed.flatten()).reshape(zeta.shape),
            to_update.sum().reshape(nu.shape),
        )
