"""The sections of an int8 program: its numbers, then the chapters that compute with them.

What the kernels for single cores move into the biases (the w0 w1 of Winograd's inner product, the 128 that makes VNNI's
inputs unsigned) is moved here, once, at compile time.
"""

from __future__ import annotations

from typing import assert_never

import numpy as np

from grit.bench.export import fixed
from grit.bench.export.c import _layout
from grit.bench.export.c._layout import Packed
from grit.bench.export.c._section import Section, define
from grit.bench.export.fixed import Affine, FixedFastGrnn, FixedKernel, FixedLstm, FixedPool, FixedProgram, Product
from grit.bench.types import Ternary

TOKENS = "GRIT_TOKENS"  # that an input layer reads at once: 4 with vectors, else 1


def sections(program: FixedProgram) -> list[Section]:
    """Body and head; the words are :mod:`grit.bench.export.c._words`."""
    features = program.words.width if isinstance(program.words, Ternary) else program.words.table.shape[1]
    body = program.body
    if isinstance(body, FixedLstm):
        return [_head(program), _lstm(body, features, program)]
    if isinstance(body, FixedFastGrnn):
        return [_head(program), _fastgrnn(body, features, program)]
    if isinstance(body, FixedPool):
        return [_head(program), _pool(body, features, program)]
    return [_head(program), _mean(features)]


# --- bodies -----------------------------------------------------------------------------------------


def _lstm(body: FixedLstm, program: FixedProgram, stride: int) -> Section:
    units = body.state.weight.shape[1]
    order = _layout.gates(units)
    inputs, state = _packed(body.input, order), _packed(body.state, order)
    bias = _layout.place(body.bias, order)
    return Section(
        "body",
        [
            _recurrent_sizes(units, body.shift, inputs, state),
            define(LSTM=1),
            _sigmoid(),
            _matrix("state", state),
            _matrix("input", inputs),
            _bias("input", bias, inputs, state),
        ],
        ["scalar.c", "product.c", _layer("input", inputs), "sigmoid.c", "lstm.c", "rnn.c"],
        [],
    )
