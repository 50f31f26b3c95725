"""A program in floating point: what its integers are calibrated on and compared with, and an artefact of its own.

A program is computed in float32, as its deployed fp32 bytes are; the layers take whatever floats they are given.
Logits agree between machines and batches to rounding only; the artefact says so (``exact`` is False).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from grit.bench.export import words
from grit.bench.text import MAX_WIDTH
from grit.bench.types import AttentionPool, Dense, FastGrnn, Kernel, Lstm, MalformedInput, Mean, Program, Rows, Ternary

TEXTS_AT_ONCE = 256
MAX_ORDER = 8  # of hashed n-grams


# --- layers: x [batch seq feat], zero beyond the lengths [batch] ---------------------------------------


def dense(layer: Dense, x: np.ndarray) -> np.ndarray:
    """x [... in] -> [... out]."""
    y = x @ layer.weight.T + layer.bias
    return np.maximum(y, 0) if layer.relu else y


def windows(x: np.ndarray, width: int) -> np.ndarray:
    """Each token's features and those of the next ones, zeros beyond the end: [batch seq width*feat]."""
    seq = x.shape[1]
    padded = np.pad(x, ((0, 0), (0, width - 1), (0, 0)))
    return np.concatenate([padded[:, k : k + seq] for k in range(width)], axis=2)


def convolved(kernel: Kernel, values: np.ndarray, attention: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and attention logits of a kernel, each [batch seq out]."""
    out, width = kernel.value_weight.shape[:2]
    return (
        windows(values, width) @ kernel.value_weight.reshape(out, -1).T + kernel.value_bias,
        windows(attention, width) @ kernel.attention_weight.reshape(out, -1).T + kernel.attention_bias,
    )


def token_maps(body: AttentionPool, x: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the kernels of a pooling read: value and attention features [batch seq feat], zero beyond the lengths."""
    inside = within(x, lengths)
    return dense(body.value, x) * inside, dense(body.attention, x) * inside


def within(x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """float32 [batch seq 1]: 1 for tokens of a text, 0 beyond its end."""
    return (np.arange(x.shape[1]) < lengths[:, None]).astype(np.float32)[:, :, None]


def states(body: Lstm | FastGrnn | AttentionPool | Mean, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """What the head reads: [batch feat]."""
    match body:
        case Lstm():
            return _lstm(body, x, lengths)
        case FastGrnn():
            return fastgrnn(body, x, lengths)[-1]
        case AttentionPool():
            return _pooled(body, x, lengths)
        case Mean():
            return (x * within(x, lengths)).sum(axis=1) / lengths[:, None].astype(np.float32)
        case _:
            assert_never(body)


def _lstm(body: Lstm, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    units = body.state_weight.shape[1]
    drive = x @ body.input_weight.T + body.bias
    h = np.zeros((len(x), units), np.float32)
    c = np.zeros_like(h)
    for t in range(x.shape[1]):
        pre = drive[:, t] + h @ body.state_weight.T
        inward, forget, cell, outward = (pre[:, k * units : (k + 1) * units] for k in range(4))
        now = (t < lengths)[:, None]
        c = np.where(now, _sigmoid(forget) * c + _sigmoid(inward) * np.tanh(cell), c)
        h = np.where(now, _sigmoid(outward) * np.tanh(c), h)
    return h


def fastgrnn(body: FastGrnn, x: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """The state after each token, [batch h]; past its end a text keeps its last."""
    drive = x @ body.input_weight.T
    h = np.zeros((len(x), len(body.state_weight)), x.dtype)
    passed = []
    for t in range(x.shape[1]):
        pre = drive[:, t] + h @ body.state_weight.T
        z, c = _sigmoid(pre + body.bias_gate), np.tanh(pre + body.bias_update)
        new = z * h + (body.zeta * (1 - z) + body.nu) * c
        h = np.where((t < lengths)[:, None], new, h)
        passed.append(h)
    return passed


def _pooled(body: AttentionPool, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    values, attention = token_maps(body, x, lengths)
    outside = within(x, lengths) == 0
    pooled = []
    for kernel in body.kernels:
        value, logit = convolved(kernel, values, attention)
        logit = np.where(outside, -np.inf, logit)
        share = np.exp(logit - logit.max(axis=1, keepdims=True))
        pooled.append((share * value).sum(axis=1) / share.sum(axis=1))
    return np.concatenate(pooled, axis=1)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * np.tanh(0.5 * x) + 0.5  # never overflows


# --- a program's own features and logits ---------------------------------------------------------------


class FloatArtefact(words.Reader):
    """An fp32 program at work (:class:`grit.bench.types.Artefact`)."""

    exact = False

    def __init__(self, program: Program, digest: str, sizes_bytes: Mapping[str, int]) -> None:
        super().__init__(words.of(program.words, program.vocabulary))
        self.program = program
        self.digest = digest
        self.sizes_bytes: Mapping[str, int] = dict(sizes_bytes)
        self.classes = len(program.head.weight)
        self.max_tokens = program.max_tokens
        self._table = words.table(self.program.words)

    def _clear(self) -> None:
        self._table = words.table(self.program.words)

    def features(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The word layer: float32 [batch seq feat], zero beyond the lengths."""
        if (fresh := self._fresh()) is not None:
            self._table.add(fresh)
        inside = np.arange(rows.shape[1]) < lengths[:, None]
        return self._table.array[np.where(inside, rows, 0)].astype(np.float32) * inside[:, :, None]

    def logits(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        lengths = np.minimum(lengths, self.max_tokens)
        order = np.argsort(-lengths, kind="stable")  # texts of like length share a batch
        answers = np.empty((len(rows), self.classes))
        for start in range(0, len(rows), TEXTS_AT_ONCE):
            part = order[start : start + TEXTS_AT_ONCE]
            x = self.features(rows[part, : lengths[part[0]]], lengths[part])
            answers[part] = dense(self.program.head, states(self.program.body, x, lengths[part]))
        return answers


# --- what a program must be ----------------------------------------------------------------------------


def check(program: Program) -> None:
    """MalformedInput unless the arrays of a program are finite float32 of shapes that fit together."""
    layer, body, head = program.words, program.body, program.head
    _require(program.max_tokens >= 1, f"max_tokens is {program.max_tokens}")
    if isinstance(layer, Ternary):
        features = layer.width
        _require(1 <= features <= MAX_WIDTH, f"it has {features} ternary features, not 1 to {MAX_WIDTH}")
    else:
        features = layer.table.shape[-1]
        _array("word table", layer.table, (len(layer.table), features))
        _require(layer.table.size > 0, "its word table is empty")
        _require(0 <= layer.ngrams <= MAX_ORDER, f"its n-grams are of order {layer.ngrams}, not 0 to {MAX_ORDER}")
    if isinstance(layer, Rows) and not layer.ngrams:
        _require(len(program.vocabulary) == len(layer.table), "vocabulary and word table differ in length")
        _require(program.vocabulary[0] == "", 'row 0 of the vocabulary is not the unknown word ""')
        _require(len(set(program.vocabulary)) == len(program.vocabulary), "a word stands twice in the vocabulary")
    else:
        _require(not program.vocabulary, "it hashes its words and has a vocabulary")
    match body:
        case Lstm():
            state = body.state_weight.shape[-1]
            _array("input weight", body.input_weight, (4 * state, features))
            _array("state weight", body.state_weight, (4 * state, state))
            _array("bias", body.bias, (4 * state,))
        case FastGrnn():
            state = body.state_weight.shape[-1]
            _array("input weight", body.input_weight, (state, features))
            _array("state weight", body.state_weight, (state, state))
            _array("gate bias", body.bias_gate, (state,))
            _array("update bias", body.bias_update, (state,))
            _require(bool(np.isfinite([body.zeta, body.nu]).all()), "zeta or nu is not finite")
        case AttentionPool():
            state = sum(len(kernel.value_bias) for kernel in body.kernels)
            _require(len(body.kernels) > 0, "it has no kernels")
            _dense("value layer", body.value, features)
            _dense("attention layer", body.attention, features)
            for kernel in body.kernels:
                out, width = (
                    len(kernel.value_bias),
                    kernel.value_weight.shape[1] if kernel.value_weight.ndim == 3 else 0,
                )
                _require(out > 0 and width > 0, "a kernel is empty")
                _array("value kernel", kernel.value_weight, (out, width, len(body.value.bias)))
                _array("value kernel's bias", kernel.value_bias, (out,))
                _array("attention kernel", kernel.attention_weight, (out, width, len(body.attention.bias)))
                _array("attention kernel's bias", kernel.attention_bias, (out,))
        case Mean():
            state = features
        case _:
            assert_never(body)
    _require(state > 0, "its state has no features")
    _dense("head", head, state)


def _dense(name: str, layer: Dense, features: int) -> None:
    _array(name, layer.weight, (len(layer.bias), features))
    _array(f"{name}'s bias", layer.bias, (len(layer.bias),))
    _require(len(layer.bias) > 0, f"{name} has no outputs")


def _array(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    _require(array.dtype == np.float32, f"{name} is {array.dtype}, not float32")
    _require(array.shape == shape, f"{name} has shape {array.shape}, not {shape}")
    _require(bool(np.isfinite(array).all()), f"{name} holds NaN or infinity: train again with a lower learning rate")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise MalformedInput(f"not a program: {what}")
