"""A float program -> the fixed-point program of :mod:`grit.bench.export.fixed`.

Weights are rounded once, to nearest, at scales that the integers can carry exactly; ranges of activations that the
weights do not bound are read off calibration texts (training or dev, never test). Nothing is drawn, and calibration
runs in float64, where what a machine's own order of summation does is far below any rounding here: the same program
and texts give the same bytes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from grit.bench.export import floating, words
from grit.bench.export.fixed import (
    ATTENTION_BITS,
    EXACT,
    MAX_TOKENS,
    TABLE,
    WORD,
    Affine,
    Body,
    FixedFastGrnn,
    FixedKernel,
    FixedLstm,
    FixedMean,
    FixedPool,
    FixedProgram,
    Product,
)
from grit.bench.export.floating import FloatArtefact
from grit.bench.types import (
    AttentionPool,
    Dense,
    FastGrnn,
    Kernel,
    Lstm,
    MalformedInput,
    Mean,
    Program,
    Rows,
    Ternary,
    UsageError,
)

Q8 = 2.0**-8  # a step of a sigmoid's pre-activation
Q9 = 2.0**-9  # and of a tanh's
LARGEST_SHIFT = 20
HEADROOM = 1.25  # texts under attack go beyond calibration; saturating there costs more than a third of a bit here
TEXTS_AT_ONCE = 64

Layer = TypeVar("Layer", bound=AttentionPool | Dense | FastGrnn | Kernel)


def quantise(program: Program, texts: Sequence[str]) -> FixedProgram:
    """The int8 program; ``texts`` calibrate its activations (a few hundred are plenty).

    Raises UsageError without texts, MalformedInput for weights that are not finite or too large for 24-bit sums.
    """
    if not texts:
        raise UsageError("calibration got no texts: pass some of the training split")
    floating.check(program)
    if program.max_tokens > MAX_TOKENS:
        raise MalformedInput(f"max_tokens is {program.max_tokens}: the fixed-point sums hold at most {MAX_TOKENS}")
    layer, scale = _words(program.words)
    body, state_scale, state_limit = _body(program, scale, texts)
    head, logit_bits = _head(program.head, state_scale, state_limit)
    quantised = FixedProgram(layer, body, head, logit_bits, program.vocabulary, program.max_tokens)
    quantised.check()
    return quantised


# --- layers -----------------------------------------------------------------------------------------


def product(weight: np.ndarray, shift: int) -> Product | None:
    """``weight`` [out in] times 2^shift as integers; None where its multipliers do not fit into 16 bits.

    A row whose largest weight is 127 units of u gets the multiplier ceil(u 2^shift), and its weights are rounded in
    the unit that the multiplier makes. Rows of small weights, whose multipliers are coarse, err little in the output.
    """
    raised = weight * 2.0**shift
    multiplier = np.maximum(np.ceil(np.abs(raised).max(axis=1, initial=0) / 127 * (1 - 1e-12)), 1)
    if multiplier.max() > np.iinfo(np.int16).max:
        return None
    integers = np.clip(np.round(raised / multiplier[:, None]), -127, 127)
    return Product(integers.astype(np.int8), multiplier.astype(np.int16))


def fit(
    name: str,
    weights: Sequence[tuple[np.ndarray, np.ndarray]],
    biases: Sequence[np.ndarray],
    step: np.ndarray,
    *,
    limit: int = EXACT,
    spare: int = 0,
) -> tuple[list[Product], list[np.ndarray], int]:
    """The integers of sums ``weight @ x + ... + bias`` in units of ``step`` [out]: products, int32 biases, their shift.

    weights: pairs of (weight [out in], the largest integer of each input [in]). The shift is the largest that leaves
    room below ``limit`` for all products, all biases and ``spare`` steps. MalformedInput where none does.
    """
    scaled = [(weight.astype(np.float64) / step[:, None], largest) for weight, largest in weights]
    offsets = [bias.astype(np.float64) / step for bias in biases]
    for shift in range(LARGEST_SHIFT, -1, -1):
        integers = [np.round(offset * 2.0**shift) for offset in offsets]
        products = [product(weight, shift) for weight, _ in scaled]
        fitting = [p for p in products if p is not None]
        if len(fitting) < len(products):
            continue
        reach = sum(p.reach(largest) for p, (_, largest) in zip(fitting, scaled, strict=True))
        if float((reach + sum(np.abs(i) for i in integers)).max()) + spare * 2.0**shift < limit:
            return fitting, [i.astype(np.int32) for i in integers], shift
    highest = max(float(np.abs(weight).max(initial=0)) for weight, _ in weights)
    raise MalformedInput(
        f"{name} has weights up to {highest:.3g}, too large for {limit.bit_length() - 1}-bit sums: "
        "train with weight decay"
    )


def affine(
    name: str,
    weight: np.ndarray,
    bias: np.ndarray,
    step: np.ndarray,
    largest: np.ndarray,
    *,
    limit: int = EXACT,
    rounded: bool = True,
    relu: bool = False,
) -> Affine:
    """One layer by :func:`fit`; ``rounded`` to the nearest step, or without it to the cell that a value lies in."""
    half = step / 2 if rounded else 0.0
    (only,), (offset,), shift = fit(name, [(weight, largest)], [bias + half], step, limit=limit)
    return Affine(only, offset, shift, relu)


def _words(layer: Rows | Ternary) -> tuple[Rows | Ternary, np.ndarray]:
    """The int8 word layer and what one unit of each feature is worth, [feat]."""
    if isinstance(layer, Ternary):
        return layer, np.ones(layer.width)
    table = layer.table.astype(np.float64)
    scale = np.abs(table).max(axis=0) / 127
    scale[scale == 0] = 1.0
    return Rows(np.round(table / scale).astype(np.int8), layer.ngrams), scale


def _limits(layer: Rows | Ternary, features: int) -> np.ndarray:
    return np.full(features, 1 if isinstance(layer, Ternary) else 127)


def _body(program: Program, scale: np.ndarray, texts: Sequence[str]) -> tuple[Body, np.ndarray, int]:
    """The body, what one unit of each state feature is worth [feat], and how many units a state can have."""
    limits = _limits(program.words, len(scale))
    match program.body:
        case Lstm() as body:
            return _lstm(body, scale, limits)
        case FastGrnn() as body:
            return _fastgrnn(_wide(body), scale, limits, _calibration(program, texts))
        case AttentionPool() as body:
            return _pool(_wide(body), scale, limits, _calibration(program, texts))
        case Mean():
            return FixedMean(), scale / 128, 1 << 14


def _lstm(body: Lstm, scale: np.ndarray, limits: np.ndarray) -> tuple[FixedLstm, np.ndarray, int]:
    units = body.state_weight.shape[1]
    weights = [(body.input_weight * scale, limits), (body.state_weight / 128, np.full(units, 128))]
    step = np.repeat([Q8, Q8, Q9, Q8], units)
    (inputs, state), (bias,), shift = fit("the LSTM", weights, [body.bias], step, spare=TABLE)
    return FixedLstm(inputs, state, bias, shift), np.full(units, 2.0**-15), 1 << 15


def _fastgrnn(
    body: FastGrnn, scale: np.ndarray, limits: np.ndarray, calibration: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[FixedFastGrnn, np.ndarray, int]:
    if not (0 <= body.zeta <= 1 and 0 <= body.nu <= 1):
        raise MalformedInput(f"FastGRNN has zeta {body.zeta} and nu {body.nu}: both lie in [0, 1], after the sigmoid")
    units = len(body.state_weight)
    highest = max(float(np.abs(h).max()) for x, lengths in calibration for h in floating.fastgrnn(body, x, lengths))
    # int16 keeps at least twice what calibration saw, the int8 copy that and its headroom
    state_bits = min(max(14 - math.ceil(math.log2(max(highest, 2.0**-6))), 0), 14)
    highest_units = max(highest * 2.0**state_bits, 128.0)
    copy = min(math.floor(127 * 2**15 / (HEADROOM * highest_units)), 32767)
    copy_scale = 2.0 ** (15 - state_bits) / copy
    weights = [(body.input_weight * scale, limits), (body.state_weight * copy_scale, np.full(units, 128))]
    biases = [body.bias_gate, body.bias_update]
    (inputs, state), (gate, update), shift = fit("FastGRNN", weights, biases, np.full(units, Q9), spare=2 * TABLE)
    zeta = round(body.zeta * 2**14)
    nu = min(round(body.nu * 2**14), 32767 - zeta)
    quantised = FixedFastGrnn(inputs, state, gate, update, shift, zeta, nu, state_bits, copy)
    return quantised, np.full(units, 2.0**-state_bits), 1 << 15


def _pool(
    body: AttentionPool, scale: np.ndarray, limits: np.ndarray, calibration: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[FixedPool, np.ndarray, int]:
    maps = [(*floating.token_maps(body, x, lengths), lengths) for x, lengths in calibration]
    value_step = _steps([values for values, _, _ in maps])
    attention_step = _steps([attention for _, attention, _ in maps])
    octave = math.log(2) / (1 << ATTENTION_BITS)
    kernels, scales = [], []
    for kernel in body.kernels:
        out, width = kernel.value_weight.shape[:2]
        step = _steps([_inside(floating.convolved(kernel, v, a)[0], lengths) for v, a, lengths in maps])
        value = affine(
            "a value kernel",
            (kernel.value_weight * value_step).reshape(out, -1),
            kernel.value_bias,
            step,
            np.full(width * len(value_step), 127),
        )
        attention = affine(
            "an attention kernel",
            (kernel.attention_weight * attention_step).reshape(out, -1),
            kernel.attention_bias,
            np.full(out, octave),
            np.full(width * len(attention_step), 127),
            rounded=False,
        )
        kernels.append(FixedKernel(width, value, attention))
        scales.append(step / 128)
    token_value, token_attention = (
        affine(f"the {name} layer", layer.weight * scale, layer.bias, step, limits, relu=layer.relu)
        for name, layer, step in (
            ("value", body.value, value_step),
            ("attention", body.attention, attention_step),
        )
    )
    return FixedPool(token_value, token_attention, tuple(kernels)), np.concatenate(scales), 1 << 14


def _head(head: Dense, scale: np.ndarray, largest: int) -> tuple[Affine, int]:
    """The head and its logit_bits: logits as fine as 24 bits allow."""
    weight = head.weight.astype(np.float64) * scale
    reach = float((np.abs(weight).sum(axis=1) * largest + np.abs(head.bias)).max())
    logit_bits = min(22 - math.ceil(math.log2(max(reach, 2.0**-20))), 30)
    step = np.full(len(weight), 2.0**-logit_bits)
    limits = np.full(weight.shape[1], largest)
    return affine("the head", weight, head.bias, step, limits, limit=WORD, relu=head.relu), logit_bits


# --- calibration ------------------------------------------------------------------------------------


def _calibration(program: Program, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Float features [batch seq feat] and lengths [batch] of the calibration texts, a batch at a time."""
    artefact = FloatArtefact(program, "", {})
    parts = [
        words.batch(artefact, texts[start : start + TEXTS_AT_ONCE]) for start in range(0, len(texts), TEXTS_AT_ONCE)
    ]
    return [(artefact.features(rows, lengths).astype(np.float64), lengths) for rows, lengths in parts]


def _wide(layer: Layer) -> Layer:
    """The layer with its arrays in float64."""

    def wide(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.astype(np.float64)
        if isinstance(value, tuple):
            return tuple(map(wide, value))
        return _wide(value) if isinstance(value, Dense | Kernel) else value

    parts = {field.name: wide(getattr(layer, field.name)) for field in dataclasses.fields(layer)}
    return dataclasses.replace(layer, **parts)


def _inside(x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return x * floating.within(x, lengths)


def _steps(activations: list[np.ndarray]) -> np.ndarray:
    """For each feature of [batch seq feat], the step that spreads its largest magnitude, and headroom, over 127."""
    largest = np.max([np.abs(a).max(axis=(0, 1)) for a in activations], axis=0).astype(np.float64)
    # a feature that calibration never saw gets the coarsest step: it may appear later
    return np.where(largest > 0, largest, largest.max() or 1.0) * HEADROOM / 127
