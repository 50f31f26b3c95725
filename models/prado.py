"""PRADO (Kaliamoorthi, Ravi, Kozareva, "PRADO: Projection Attention Networks for Document Classification
On-Device", EMNLP 2019), at the configuration of the authors' released code.

There is no embedding table: a token is hashed to a ternary vector, and all that is learned is how to look at it.
Two things differ from that code on purpose. Its normalisation of padded batches takes the mean square for the
variance; here the variance is centred. And its statistics move by 0.1 % a step, over 100,000 steps; here by 1 %,
and faster in the first hundred. It is trained in floats and quantised after, not with quantisation simulated.
Its training noise on words, the distorter, is an objective of its own that any model can be trained with.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from grit.bench import text
from grit.bench.types import AttentionPool, Dense, Kernel, Program, Reading, Recipe, Ternary
from grit.models import _pool


class Prado(nn.Module):
    """Ternary projection - value and attention maps - n-gram kernels pooled by attention - linear layer.

    The defaults have 108,172 trainable parameters at four classes.
    """

    @dataclass(frozen=True)
    class Config:
        width: int = 512  # B: ternary features a token (released configuration)
        maps: int = 64  # d: value and attention map, each (released configuration)
        unigrams: int = 0  # channels of each kernel; released configuration: 64 bigrams, 64 trigrams
        bigrams: int = 64
        trigrams: int = 64
        fourgrams: int = 0
        fivegrams: int = 0
        skip_one_bigrams: int = 0  # two words with one between
        skip_two_bigrams: int = 0
        dropout: float = 0.5  # on both maps (released configuration: keep 0.5)
        momentum: float = 0.01  # ours: see above
        epsilon: float = 1e-5  # ours: the released 1e-9 blows a dead channel up
        max_tokens: int = 128  # released configuration

    # Adam 1e-3 and 1e-4 of L2 as released, for far fewer steps
    recipe: ClassVar[Recipe] = Recipe(epochs=12, batch_size=64, learning_rate=1e-3, weight_decay=1e-4)
    separable: ClassVar[bool] = True

    def __init__(self, config: Config, vocabulary: tuple[str, ...], classes: int) -> None:
        """The layers, their weights still to be drawn or loaded; ``vocabulary`` is ``()``."""
        super().__init__()
        if vocabulary:
            raise ValueError(f"a projection model has no vocabulary, got {len(vocabulary)} words")
        self.config = config
        self.vocabulary = vocabulary
        self.classes = classes
        self.max_tokens = config.max_tokens
        kernels = [
            ((0,), config.unigrams),
            ((0, 1), config.bigrams),
            ((0, 1, 2), config.trigrams),
            ((0, 1, 2, 3), config.fourgrams),
            ((0, 1, 2, 3, 4), config.fivegrams),
            ((0, 2), config.skip_one_bigrams),
            ((0, 3), config.skip_two_bigrams),
        ]
        kernels = [(taps, channels) for taps, channels in kernels if channels]

        def layer(inputs: int, outputs: int, taps: tuple[int, ...] = (0,)) -> _Layer:
            return _Layer(inputs, outputs, taps, config.momentum, config.epsilon)

        self.value = layer(config.width, config.maps)
        self.attention = layer(config.width, config.maps)
        self.value_kernels = nn.ModuleList([layer(config.maps, channels, taps) for taps, channels in kernels])
        self.attention_kernels = nn.ModuleList([layer(config.maps, channels, taps) for taps, channels in kernels])
        self.logits = layer(sum(channels for _, channels in kernels), classes)
        # Noise of training is a function of (seed, draws so far), both kept with the weights: a resumed training
        # draws on alike, and no global generator is read.
        self.noise: torch.Tensor
        self.register_buffer("noise", torch.zeros(2, dtype=torch.int64))

    @classmethod
    def build(cls, config: Config, texts: Sequence[str], classes: int, seed: int) -> Self:
        """Nothing is learned from ``texts``; weights are Glorot uniform, biases 0."""
        model = cls(config, (), classes)
        generator = torch.Generator().manual_seed(seed)
        for module in model.modules():
            if isinstance(module, _Layer):
                outputs, taps, inputs = module.weight.shape
                bound = (6 / (taps * (inputs + outputs))) ** 0.5
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
        model.noise[0] = seed
        return model

    def tokenize(self, raw: str) -> list[str]:
        return text.tokenize(raw)

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        """Ternary features, int8 [tokens width]."""
        return text.ternary(tokens, self.config.width)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return codes.to(self.value.weight.dtype)

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        """Words: the value map; state: the attended values of all kernels."""
        return self.read_projected(functional.linear(features, self.projection()), lengths)

    def projection(self) -> torch.Tensor:
        """The value map over the attention map, [2*maps width]: what a word becomes before it has neighbours."""
        return torch.cat([self.value.weight[:, 0], self.attention.weight[:, 0]])

    def read_projected(self, projected: torch.Tensor, lengths: torch.Tensor) -> Reading:
        """:meth:`read` from ``features @ projection().T`` on: [batch seq 2*maps]."""
        real = _pool.mask(lengths, projected.shape[1])[:, :, None]  # [batch seq 1]
        share = (real / real.sum()).flatten().to(projected.dtype)  # [batch*seq]: the weight of each place in a mean
        hidden = torch.zeros_like(share).view_as(real).masked_fill(~real, -torch.inf)
        inside = real.to(
            projected.dtype
        )  # zero behind the text, so that a kernel that reaches over its end reads nothing
        value, attention = (
            self._dropped(layer.settled(part, share).relu() * inside)
            for layer, part in zip((self.value, self.attention), projected.chunk(2, 2), strict=True)
        )  # [batch seq maps]
        pooled = []
        for value_kernel, attention_kernel in self._kernels():
            weight = (attention_kernel(attention, share) + hidden).softmax(1)
            pooled.append((weight * value_kernel(value, share)).sum(1))  # over time, a channel
        return Reading(value, torch.cat(pooled, 1))

    def head(self, state: torch.Tensor) -> torch.Tensor:
        share = state.new_full((len(state),), 1 / len(state))
        return self.logits(state[:, None, :], share)[:, 0]

    def forward(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(self.features(codes), lengths).state)

    def constrain(self, progress: float) -> None:
        """Nothing to hold."""

    def program(self) -> Program:
        value, attention, logits = self.value.folded(), self.attention.folded(), self.logits.folded()
        kernels = tuple(Kernel(*one.folded(), *other.folded()) for one, other in self._kernels())
        body = AttentionPool(
            Dense(value[0][:, 0], value[1], relu=True), Dense(attention[0][:, 0], attention[1], relu=True), kernels
        )
        return Program(Ternary(self.config.width), body, Dense(logits[0][:, 0], logits[1]), (), self.max_tokens)

    def _kernels(self) -> list[tuple[_Layer, _Layer]]:
        """(value, attention) of each kernel."""
        pairs = zip(self.value_kernels, self.attention_kernels, strict=True)
        return cast("list[tuple[_Layer, _Layer]]", list(pairs))

    def _dropped(self, values: torch.Tensor) -> torch.Tensor:
        rate = self.config.dropout
        if not self.training or rate == 0:
            return values
        self.noise[1] += 1
        seed, draws = self.noise.tolist()
        generator = torch.Generator().manual_seed(random.Random(f"{seed} {draws}").getrandbits(63))
        kept = torch.rand(values.shape, generator=generator).to(values.device) >= rate
        return values * (kept.to(values.dtype) / (1 - rate))


class _Layer(nn.Module):
    """A linear map over tokens at given distances, then batch normalisation over the places that hold tokens.

    ``taps`` (0,) is a dense layer, (0, 1) a bigram kernel, (0, 2) a bigram that skips a word; what lies beyond
    the last place reads as zero.
    """

    def __init__(self, inputs: int, outputs: int, taps: tuple[int, ...], momentum: float, epsilon: float) -> None:
        super().__init__()
        self.taps = taps
        self.momentum = momentum
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.zeros(outputs, len(taps), inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = nn.Parameter(torch.ones(outputs))
        self.shift = nn.Parameter(torch.zeros(outputs))
        self.mean: torch.Tensor
        self.variance: torch.Tensor
        self.batches: torch.Tensor
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("variance", torch.ones(outputs))

    def forward(self, values: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """values [batch seq inputs], share [batch*seq] (see :meth:`normalised`) -> [batch seq outputs]."""
        if self.taps != (0,):
            seq = values.shape[1]
            values = functional.pad(values, (0, 0, 0, self.taps[-1]))
            values = torch.cat([values[:, tap : tap + seq] for tap in self.taps], 2)
        if self.training:
            return self.normalised(functional.linear(values, self.weight.flatten(1), self.bias), share)
        gain, offset = self._fixed()
        return functional.linear(values, self.weight.flatten(1) * gain[:, None], self.bias * gain + offset)

    def settled(self, product: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """:meth:`forward` from values times weight on: [batch seq outputs] -> [batch seq outputs]."""
        if self.training:
            return self.normalised(product + self.bias, share)
        gain, offset = self._fixed()
        return torch.addcmul(self.bias * gain + offset, product, gain)

    def normalised(self, outputs: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """Training: [batch seq outputs] by its statistics over all places, each weighing its ``share`` of 1."""
        mean = share @ outputs.flatten(0, 1)
        centred = outputs - mean
        variance = share @ centred.square().flatten(0, 1)
        with torch.no_grad():
            self.batches += 1
            rate = max(
                self.momentum, 1 / int(self.batches)
            )  # a plain mean first, so that the start values leave no trace
            self.mean.lerp_(mean, rate)
            self.variance.lerp_(variance, rate)
        return torch.addcmul(self.shift, centred, (variance + self.epsilon).rsqrt() * self.scale)

    def _fixed(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalisation by the running statistics is one gain and one offset a channel."""
        gain = (self.variance + self.epsilon).rsqrt() * self.scale
        mean = self.mean.clone()  # for the gradient, which may be asked for after the statistics have moved
        return gain, self.shift - mean * gain

    @torch.no_grad()
    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """weight [outputs width inputs] and bias [outputs] of the same map without normalisation, as it evaluates."""
        gain, _ = self._fixed()
        weight = self.weight.new_zeros(len(gain), self.taps[-1] + 1, self.weight.shape[2])
        weight[:, list(self.taps)] = self.weight * gain[:, None, None]
        bias = (self.bias - self.mean) * gain + self.shift
        return weight.cpu().numpy(), bias.cpu().numpy()
