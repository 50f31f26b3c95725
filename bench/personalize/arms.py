"""What may change on the device: one arm a line of :data:`ARMS`, from nothing to everything.

An arm is three pure functions over a frozen global model: the numbers it begins with, the logits under such numbers,
and the personal model that they make. At its start every arm but the user token answers what the global model
answers; and no arm is ever asked at epoch 0, where the global model stands for it (:mod:`.protocol`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from grit.bench.personalize.private import Private
from grit.bench.personalize.texts import Base, Texts
from grit.bench.registry import unknown
from grit.bench.types import Dense, Model, Program, Reading

Weights = dict[str, torch.Tensor]  # what an arm trains, by name

EXTRACTOR_BYTES = 1024  # of a user's own extractor, as float32
RANK = 1  # of what is added to each matrix of the cell


@dataclass(frozen=True)
class Arm:
    """One answer to the question what a device may learn."""

    key: str
    trains: str  # for readers
    start: Callable[[Base, int], Weights]
    logits: Callable[[Base, Weights, Texts, np.ndarray], torch.Tensor]  # [batch classes]
    model: Callable[[Base, Weights], Model]
    rates: tuple[float, ...] = (0.1, 1.0)  # of plain gradient descent; one is chosen on validation users
    private: Private | None = None  # its gradients are clipped and noised


def get(key: str) -> Arm:
    """The arm of a name; a UsageError names the nearest."""
    if key not in ARMS:
        raise unknown("arm", key, ARMS, f"the arms are {', '.join(ARMS)}")
    return ARMS[key]


def stored_bytes(start: Weights, learned: Weights) -> int:
    """What has to be kept of an update, as float32: all its numbers, or its changed rows and their places."""
    total = 0
    for name, after in learned.items():
        changed = (after != start[name]).reshape(len(after), -1).any(1) if after.ndim else (after != start[name])[None]
        rows, width = int(changed.sum()), after[0].numel() if after.ndim else 1
        total += min(4 * after.numel(), rows * (4 * width + 4))
    return total


# --- logits that only add to those of the frozen model -------------------------------------------------


def _no_start(base: Base, seed: int) -> Weights:
    return {}


def _as_it_is(base: Base, weights: Weights, texts: Texts, index: np.ndarray) -> torch.Tensor:
    return texts.frozen.logits[index]


def _bias_start(base: Base, seed: int) -> Weights:
    return {"bias": torch.zeros(base.classes)}


def _bias_logits(base: Base, weights: Weights, texts: Texts, index: np.ndarray) -> torch.Tensor:
    return texts.frozen.logits[index] + weights["bias"]


def _bias_model(base: Base, weights: Weights) -> Model:
    return personal(WithHead(base, torch.zeros(base.classes, state_width(base)), weights["bias"]))


def _last_start(base: Base, seed: int) -> Weights:
    return {"weight": torch.zeros(base.classes, state_width(base)), "bias": torch.zeros(base.classes)}


def _last_logits(base: Base, weights: Weights, texts: Texts, index: np.ndarray) -> torch.Tensor:
    frozen = texts.frozen
    return frozen.logits[index] + frozen.state[index] @ weights["weight"].T + weights["bias"]


def _last_model(base: Base, weights: Weights) -> Model:
    return personal(WithHead(base, weights["weight"], weights["bias"]))


def _fused_start(base: Base, seed: int) -> Weights:
    """As many units as the bytes allow; nothing is added to the logits yet."""
    feat = words_width(base)
    units = max(1, EXTRACTOR_BYTES // 4 // (feat + 1 + base.classes))
    drawn = torch.randn(units, feat, generator=torch.Generator().manual_seed(seed)) / feat**0.5
    return {"inner": drawn, "shift": torch.zeros(units), "outer": torch.zeros(base.classes, units)}


def extracted(weights: Mapping[str, torch.Tensor], words: torch.Tensor) -> torch.Tensor:
    """What a user's extractor adds to the logits: mean word vectors [batch feat] -> [batch classes]."""
    return torch.tanh(words @ weights["inner"].T + weights["shift"]) @ weights["outer"].T


def _fused_logits(base: Base, weights: Weights, texts: Texts, index: np.ndarray) -> torch.Tensor:
    return texts.frozen.logits[index] + extracted(weights, texts.frozen.words[index])


# --- logits of a pass of their own -----------------------------------------------------------------------


class Whole(nn.Module):
    """The arrow of a model as one call, so that other weights may stand in for its own."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = cast(nn.Module, model)

    def forward(self, codes: torch.Tensor, lengths: torch.Tensor, moved: torch.Tensor | None = None) -> torch.Tensor:
        """``moved`` [batch seq feat] is added to the features."""
        model = cast(Model, self.model)
        features = model.features(codes)
        return model.head(model.read(features if moved is None else features + moved, lengths).state)


def under(model: Model, weights: Mapping[str, torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    """The model's logits with some of its weights replaced."""
    found: torch.Tensor = functional_call(
        Whole(model), {f"model.{name}": weight for name, weight in weights.items()}, inputs
    )
    return found


def merged(base: Base, weights: Mapping[str, torch.Tensor]) -> Model:
    """A model of the base's kind with these weights in place of its own."""
    mine = base.copied()
    module = cast(nn.Module, mine)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if name in weights:
                weight.copy_(weights[name])
    module.requires_grad_(False)
    return mine


def _clones(base: Base, *kept: str) -> Weights:
    return {name: weight.clone() for name, weight in base.own.items() if base.parts[name] in kept}


def _all_start(base: Base, seed: int) -> Weights:
    return _clones(base, "embedding", "body", "head")


def _but_embedding_start(base: Base, seed: int) -> Weights:
    return _clones(base, "body", "head")


def _whole_logits(base: Base, weights: Weights, texts: Texts, index: np.ndarray) -> torch.Tensor:
    return under(base.model, weights, *texts.codes(index))


def _cell_start(base: Base, seed: int) -> Weights:
    """LoRA's start: one factor drawn, the other zero (Hu et al., ICLR 2022, section 4.1)."""
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = {}
    for name, matrix in _clones(base, "body").items():
        if matrix.ndim >= 2:
            inputs = matrix[0].numel()
            weights[f"{name} left"] = torch.zeros(len(matrix), RANK)
            weights[f"{name} right"] = torch.randn(RANK, inputs, generator=generator) / inputs**0.5
    return weights


def cell_weights(base: Base, weights: Mapping[str, torch.Tensor]) -> Weights:
    """The matrices of the cell with their low-rank parts added."""
    own = base.own
    names = [name.removesuffix(" left") for name in weights if name.endswith(" left")]
    return {
        name: own[name] + (weights[f"{name} left"] @ weights[f"{name} right"]).reshape(own[name].shape)
        for name in names
    }


def _cell_logits(base: Base, weights: Weights, texts: Texts, index: np.ndarray) -> torch.Tensor:
    return under(base.model, cell_weights(base, weights), *texts.codes(index))


def _cell_model(base: Base, weights: Weights) -> Model:
    return merged(base, cell_weights(base, weights))


def _token_start(base: Base, seed: int) -> Weights:
    """The token is the unknown word to begin with: something the model has read in many first places."""
    unknown = base.model.features(torch.from_numpy(base.model.codes([""]))[None])[0, 0]
    return {"token": unknown.detach().clone().float()}


def before(token: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Features [batch seq feat] behind one more word."""
    return torch.cat([token.expand(len(features), 1, -1), features], 1)


def _token_logits(base: Base, weights: Weights, texts: Texts, index: np.ndarray) -> torch.Tensor:
    codes, lengths = texts.codes(index)
    features = before(weights["token"], base.model.features(codes))
    return base.model.head(base.model.read(features, lengths + 1).state)


# --- personal models ---------------------------------------------------------------------------------------


class _Over(nn.Module):
    """What the personal models below leave to the global one: how text is cut and looked up."""

    def __init__(self, base: Base) -> None:
        super().__init__()
        inner = base.copied()
        self.separable = inner.separable
        cast(nn.Module, inner).requires_grad_(False)
        self.inner = cast(nn.Module, inner)
        self.config, self.vocabulary = inner.config, inner.vocabulary
        self.classes, self.max_tokens = inner.classes, inner.max_tokens
        self.tokenize, self.codes = inner.tokenize, inner.codes

    @property
    def under(self) -> Model:
        return cast(Model, self.inner)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return self.under.features(codes)

    def constrain(self, progress: float) -> None:
        """Nothing to hold."""


class WithHead(_Over):
    """The global model under a changed last layer."""

    def __init__(self, base: Base, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__(base)
        self.weight, self.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        return self.under.read(features, lengths)

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return self.under.head(state) + state @ self.weight.T + self.bias

    def program(self) -> Program | None:
        program = self.under.program()
        if program is None:
            return None
        weight = (program.head.weight + self.weight.detach().numpy()).astype(np.float32)
        bias = (program.head.bias + self.bias.detach().numpy()).astype(np.float32)
        return dataclasses.replace(program, head=Dense(weight, bias, program.head.relu))


class WithToken(_Over):
    """The global model behind a user's own first word; what ships is :class:`.robust.Prefixed`."""

    def __init__(self, base: Base, weights: Weights) -> None:
        super().__init__(base)
        self.token = nn.Parameter(weights["token"].detach())

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        found = self.under.read(before(self.token, features), lengths + 1)
        return Reading(found.words[:, 1:], found.state)

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return self.under.head(state)

    def program(self) -> None:
        return None


class WithExtractor(_Over):
    """The global model beside a user's extractor; what ships is :class:`.robust.Fused`."""

    def __init__(self, base: Base, weights: Weights) -> None:
        super().__init__(base)
        self.extractor = nn.ParameterDict({name: weight.detach() for name, weight in weights.items()})
        self.bytes = sum(4 * weight.numel() for weight in weights.values())
        self.width = words_width(base)

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        found = self.under.read(features, lengths)
        real = (torch.arange(features.shape[1]) < lengths[:, None])[..., None]
        return Reading(found.words, torch.cat([(found.words * real).sum(1) / lengths[:, None], found.state], 1))

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return self.under.head(state[:, self.width :]) + self.added(state[:, : self.width])

    def added(self, words: torch.Tensor) -> torch.Tensor:
        """What the extractor adds to the logits, of mean word vectors [batch feat]."""
        return extracted(dict(self.extractor.items()), words)

    def program(self) -> None:
        return None


def personal(model: Any) -> Model:
    """One of the classes above, by the contract of Model but for ``build``: it is not made from texts."""
    return cast(Model, model)


def state_width(base: Base) -> int:
    return base.widths[1]


def words_width(base: Base) -> int:
    return base.widths[0]


_STEEP = (0.3, 3.0)  # few numbers, each far from the logits
_GENTLE = (0.05, 0.5)  # many numbers at once

ARMS: dict[str, Arm] = {
    arm.key: arm
    for arm in (
        Arm("none", "nothing: the global model", _no_start, _as_it_is, lambda base, _: base.copied(), (0.0,)),
        Arm("bias", "one number a label", _bias_start, _bias_logits, _bias_model),
        Arm("last", "the last layer", _last_start, _last_logits, _last_model),
        Arm(
            "private",
            "the last layer, by clipped and noised gradients",
            _last_start,
            _last_logits,
            _last_model,
            private=Private(),
        ),
        Arm("cell", f"rank {RANK} on the matrices of the cell", _cell_start, _cell_logits, _cell_model, _STEEP),
        Arm(
            "token",
            "a word vector before every text",
            _token_start,
            _token_logits,
            lambda base, weights: personal(WithToken(base, weights)),
            _STEEP,
        ),
        Arm(
            "fused",
            f"an extractor of the user's own beside the frozen model, {EXTRACTOR_BYTES} bytes",
            _fused_start,
            _fused_logits,
            lambda base, weights: personal(WithExtractor(base, weights)),
            _STEEP,
        ),
        Arm("but-embedding", "all but the word table", _but_embedding_start, _whole_logits, merged, _GENTLE),
        Arm("all", "every weight", _all_start, _whole_logits, merged, _GENTLE),
    )
}
