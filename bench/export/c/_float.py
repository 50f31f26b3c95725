"""The sections of an fp32 program. Numbers are the program's own to the last bit, the order of sums the chapters'."""

from __future__ import annotations

from typing import assert_never

import numpy as np

from grit.bench.export.c import _layout
from grit.bench.export.c._layout import Section, chapter, define, padded
from grit.bench.types import AttentionPool, Dense, FastGrnn, Lstm, Mean, Program, Ternary


def sections(program: Program) -> list[Section]:
    """Head and body; the words are the same for all programs."""
    features = program.words.width if isinstance(program.words, Ternary) else program.words.table.shape[1]
    stride = padded(features, 32) if isinstance(program.words, Ternary) else features  # digits come in words of 32
    head = _head(program.head)
    match program.body:
        case Lstm() as body:
            return [head, _lstm(body, stride)]
        case FastGrnn() as body:
            return [head, _fastgrnn(body, stride)]
        case AttentionPool() as body:
            return [head, _pool(body, stride, program.max_tokens)]
        case Mean():
            return [head, Section("body", [], [f"float state[{features}];", f"float x[{stride}];"], "mean")]
        case _:
            assert_never(program.body)


def _head(head: Dense) -> Section:
    text = [
        define(STATE=head.weight.shape[1], HEAD_RELU=int(head.relu)),
        _layout.array("float", "grit_head_weight", head.weight.ravel()),
        _layout.array("float", "grit_head_bias", head.bias),
        chapter("float_vectors"),
        chapter("float_head"),
    ]
    return Section("head", text)


def _lstm(body: Lstm, stride: int) -> Section:
    units = body.state_weight.shape[1]
    order = _layout.gates(units)
    text = [
        define(LSTM=1),
        *_recurrent(units, stride, body.input_weight, body.state_weight, body.bias, order),
        chapter("float_lstm"),
    ]
    width = padded(units, _layout.PANEL)
    return Section("body", text, [f"float c[{width}];", *_memory(width, stride, len(order))], "rnn")


def _fastgrnn(body: FastGrnn, stride: int) -> Section:
    units = body.state_weight.shape[1]
    order = _layout.straight(units)
    gate = (body.bias_gate.astype(np.float64) - body.bias_update).astype(np.float32)
    constants = f"#define GRIT_ZETA {np.float32(body.zeta)!s}f\n#define GRIT_NU {np.float32(body.nu)!s}f\n"
    text = [
        constants,
        *_recurrent(units, stride, body.input_weight, body.state_weight, body.bias_update, order),
        _layout.array("float", "grit_gate_offset", _layout.place(gate, order)),
        chapter("float_fastgrnn"),
    ]
    return Section("body", text, _memory(padded(units, _layout.PANEL), stride, len(order)), "rnn")


def _recurrent(
    units: int, stride: int, inputs: np.ndarray, state: np.ndarray, bias: np.ndarray, order: np.ndarray
) -> list[str]:
    """What both recurrent bodies begin with."""
    return [
        define(UNITS=units, PADDED=padded(units, _layout.PANEL), STRIDE=stride, ROWS_INPUT=len(order)),
        _layout.array("float", "grit_state_weight", _layout.columns(state, order)),
        _layout.array("float", "grit_input_weight", _layout.columns(inputs, order)),
        _layout.array("float", "grit_input_bias", _layout.place(bias, order)),
        chapter("float_product"),
        _layer("input", len(order), inputs.shape[1]),
    ]


def _memory(width: int, stride: int, rows: int) -> list[str]:
    return [f"float drive[GRIT_TOKENS * {rows}];", f"float h[2][{width}];", f"float x[GRIT_TOKENS * {stride}];"]


def _pool(body: AttentionPool, stride: int, max_tokens: int) -> Section:
    maps = {"VALUE": body.value, "ATTENTION": body.attention}
    beyond = max(kernel.value_weight.shape[1] for kernel in body.kernels) - 1 + 3
    text = [define(STRIDE=stride, KERNELS=len(body.kernels), BEYOND=beyond), chapter("float_product")]
    rows = [_layout.CHUNK]
    for name, layer in maps.items():
        text.append(_dense(name.lower(), layer.weight, layer.bias))
        text.append(_layer(name.lower(), padded(len(layer.bias), _layout.PANEL), layer.weight.shape[1]))
        text.append(define(**{f"{name}S": len(layer.bias), f"{name}_RELU": int(layer.relu)}))
        rows.append(padded(len(layer.bias), _layout.PANEL))
    entries = []
    for k, kernel in enumerate(body.kernels):
        out, width = kernel.value_weight.shape[:2]
        parts = []
        for name, weight, bias in (
            (f"value{k}", kernel.value_weight, kernel.value_bias),
            (f"attention{k}", kernel.attention_weight, kernel.attention_bias),
        ):
            flat = weight.reshape(out, -1)
            text.append(_dense(name, flat, bias))
            parts.append(_entry(name, padded(out, _layout.PANEL), flat.shape[1]))
        entries.append(f"    {{{', '.join(parts)}, {out}, {width}}},")
    text.append(chapter("float_pool"))
    text.append("static const grit_kernel grit_kernels[GRIT_KERNELS] = {\n" + "\n".join(entries) + "\n};\n")
    outputs = (max_tokens + 3) * _layout.CHUNK
    memory = [
        f"float values[{(max_tokens + beyond) * len(body.value.bias)}];",
        f"float attentions[{(max_tokens + beyond) * len(body.attention.bias)}];",
        f"float sums[GRIT_TOKENS * {max(rows)}];",
        f"float value[{outputs}];",
        f"float logit[{outputs}];",
        f"float x[GRIT_TOKENS * {stride}];",
        f"float state[{sum(len(kernel.value_bias) for kernel in body.kernels)}];",
    ]
    return Section("body", text, memory, "pool")


def _dense(name: str, weight: np.ndarray, bias: np.ndarray) -> str:
    order = _layout.straight(len(bias))
    return _layout.array("float", f"grit_{name}_weight", _layout.columns(weight, order)) + _layout.array(
        "float", f"grit_{name}_bias", _layout.place(bias, order)
    )


def _layer(name: str, rows: int, inputs: int) -> str:
    return f"static const grit_layer grit_{name} = {_entry(name, rows, inputs)};\n"


def _entry(name: str, rows: int, inputs: int) -> str:
    """A ``grit_layer``."""
    return f"{{grit_{name}_weight, grit_{name}_bias, {rows}, {inputs}}}"
