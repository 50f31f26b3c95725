"""The sections of an int8 program: its numbers, then the chapters that compute with them.

What some kernels move into the biases (the w0 w1 of Winograd's inner product, the 128 that makes the inputs of VNNI
unsigned) is moved here, once.
"""

from __future__ import annotations

import numpy as np

from grit.bench.export import fixed
from grit.bench.export.c import _layout
from grit.bench.export.c._layout import Packed, Section, chapter, define, padded
from grit.bench.export.fixed import Affine, FixedFastGrnn, FixedLstm, FixedPool, FixedProgram, Product
from grit.bench.types import Ternary


def sections(program: FixedProgram) -> list[Section]:
    """Head and body; the words are the same for all programs."""
    body = program.body
    features = program.words.width if isinstance(program.words, Ternary) else program.words.table.shape[1]
    # ternary digits come in words of 32
    stride = padded(features, 32 if isinstance(program.words, Ternary) else _layout.GROUP)
    head = _head(program.head, program.logit_bits)
    if isinstance(body, FixedLstm):
        return [head, _lstm(body, stride)]
    if isinstance(body, FixedFastGrnn):
        return [head, _fastgrnn(body, stride)]
    if isinstance(body, FixedPool):
        return [head, _pool(body, stride, program.max_tokens)]
    return [head, _mean(stride, program.head.product.weight.shape[1])]


def _head(head: Affine, logit_bits: int) -> Section:
    weight = head.product.weight
    numbers = define(STATE=weight.shape[1], HEAD_SHIFT=head.shift, HEAD_RELU=int(head.relu))
    arrays = [
        _layout.array("int8_t", "grit_head_weight", weight.ravel()),
        _layout.array("int16_t", "grit_head_multiplier", head.product.multiplier),
        _layout.array("int32_t", "grit_head_bias", head.bias),
    ]
    state = f"int16_t state[{padded(weight.shape[1], _layout.PANEL)}];"
    return Section("head", [numbers, *arrays, chapter("head")], [state])


# --- recurrent bodies ---------------------------------------------------------------------------------


def _lstm(body: FixedLstm, stride: int) -> Section:
    units = body.state.weight.shape[1]
    order = _layout.gates(units)
    inputs, state = _packed(body.input, order), _packed(body.state, order)
    text = [
        define(LSTM=1),
        *_recurrent(units, body.shift, stride, inputs, state, _layout.place(body.bias, order)),
        chapter("lstm"),
    ]
    width = padded(units, _layout.PANEL)
    return Section("body", text, [f"grit_cell c[{width}];", *_memory(width, stride, inputs, state)], "rnn")


def _fastgrnn(body: FixedFastGrnn, stride: int) -> Section:
    units = body.state.weight.shape[1]
    order = _layout.straight(units)
    inputs, state = _packed(body.input, order), _packed(body.state, order)
    gate = body.bias_gate.astype(np.int64) - body.bias_update
    text = [
        define(STATE_BITS=body.state_bits, ZETA=body.zeta, NU=body.nu, COPY=body.copy_multiplier),
        *_recurrent(units, body.shift, stride, inputs, state, _layout.place(body.bias_update, order)),
        _layout.array("int32_t", "grit_gate_offset", _layout.place(gate, order)),
        chapter("fastgrnn"),
    ]
    return Section("body", text, _memory(padded(units, _layout.PANEL), stride, inputs, state), "rnn")


def _recurrent(units: int, shift: int, stride: int, inputs: Packed, state: Packed, bias: np.ndarray) -> list[str]:
    """What both recurrent bodies begin with."""
    sizes = define(
        UNITS=units,
        PADDED=padded(units, _layout.PANEL),
        SHIFT=shift,
        STRIDE=stride,
        ROWS_INPUT=inputs.rows,
        STATE_GROUPS=state.groups,
        PADDED_STATE=padded(max(padded(units, _layout.PANEL), 4 * state.groups), 16),
        MOST_GROUPS=max(inputs.groups, state.groups),
    )
    return [
        sizes,
        _tables(),
        _matrix("state", state),
        _matrix("input", inputs),
        _bias("input", bias, [inputs, state]),
        chapter("scalar"),
        chapter("product"),
        _layer("input", inputs, "grit_input_bias"),
        chapter("sigmoid"),
    ]


def _memory(width: int, stride: int, inputs: Packed, state: Packed) -> list[str]:
    return [
        f"int32_t drive[GRIT_TOKENS * {inputs.rows}];",
        f"grit_byte h[2][{padded(max(width, 4 * state.groups), 16)}];",
        *_inputs(stride, max(inputs.groups, state.groups)),
    ]


def _inputs(stride: int, groups: int) -> list[str]:
    return [f"grit_byte x[GRIT_TOKENS * {stride}];", f"uint32_t pairs[GRIT_PAIRS({groups})];"]


def _tables() -> str:
    """The sigmoid in the three forms of sigmoid.c."""
    base, slope = fixed.segments()
    octet = (base.astype(np.int64) - 16384 - 4 * slope.astype(np.int64) * (np.arange(64) & 7)) & 0xFFFF
    low, high = (octet & 0xFF).astype(np.uint8), (octet >> 8).astype(np.uint8)
    return "\n".join(
        [
            "#if defined(GRIT_NEON) || defined(GRIT_AVX2)",
            _layout.array("uint8_t", "grit_base_low", low),
            _layout.array("uint8_t", "grit_base_high", high),
            _layout.array("uint8_t", "grit_slope", slope),
            "#elif defined(GRIT_SMALL)",
            _layout.array("int16_t", "grit_base", base),
            _layout.array("uint8_t", "grit_slope", slope),
            "#else",
            _layout.array("int16_t", "grit_cells", fixed.sigma() - 16384),
            "#endif",
        ]
    )


# --- poolings -----------------------------------------------------------------------------------------


def _mean(stride: int, features: int) -> Section:
    memory = [f"int32_t sum[{features}];", f"grit_byte x[{stride}];"]
    return Section("body", [chapter("mean")], memory, "mean")


def _pool(body: FixedPool, stride: int, max_tokens: int) -> Section:
    maps = {"VALUE": body.value, "ATTENTION": body.attention}
    strides = {name: padded(len(layer.bias), _layout.GROUP) for name, layer in maps.items()}
    widest = max(kernel.width for kernel in body.kernels)
    beyond = widest - 1 + 3  # tokens that a kernel reads behind the last: zeros, and what vectors read in vain
    arrays, layers, groups, sums = [], [], [], [_layout.CHUNK]
    for name, layer in maps.items():
        packed = _packed(layer.product, _layout.straight(len(layer.bias)))
        arrays.append(_affine(name.lower(), layer, packed))
        layers.append(_layer(name.lower(), packed, f"grit_{name.lower()}_bias"))
        groups.append(packed.groups)
        sums.append(packed.rows)
        low = 0 if layer.relu else -127
        shape = {
            "S": len(layer.bias),
            "S_STRIDE": strides[name],
            "S_ROWS": packed.rows,
            "_SHIFT": layer.shift,
            "_LOW": low,
        }
        arrays.append(define(**{name + key: value for key, value in shape.items()}))
    entries = []
    for k, kernel in enumerate(body.kernels):
        named = {}
        for name, layer in (("VALUE", kernel.value), ("ATTENTION", kernel.attention)):
            packed = _packed(_spread(layer.product, kernel.width, strides[name]), _layout.straight(len(layer.bias)))
            arrays.append(_affine(f"{name.lower()}{k}", layer, packed))
            named[name] = _entry(f"{name.lower()}{k}", packed, f"grit_{name.lower()}{k}_bias")
            groups.append(packed.groups)
        edge = fixed.OCTAVES << fixed.ATTENTION_BITS
        numbers = [len(kernel.value.bias), kernel.width, kernel.value.shift, kernel.attention.shift]
        numbers += [0 if kernel.value.relu else -127, 0 if kernel.attention.relu else -edge]
        entries.append("    {" + ", ".join([named["VALUE"], named["ATTENTION"], *map(str, numbers)]) + "},")
    text = [
        define(
            STRIDE=stride,
            KERNELS=len(body.kernels),
            WIDEST=widest,
            BEYOND=beyond,
            POWER_BITS=fixed.power_bits(max_tokens),
            MOST_ROWS=max(sums),
            MOST_GROUPS=max(groups),
        ),
        _layout.array("uint32_t", "grit_power", fixed.powers(fixed.power_bits(max_tokens))),
        *arrays,
        chapter("scalar"),
        chapter("product"),
        *layers,
        chapter("pool"),
        "static const grit_kernel grit_kernels[GRIT_KERNELS] = {\n" + "\n".join(entries) + "\n};\n",
    ]
    outputs = (max_tokens + 3) * _layout.CHUNK
    memory = [
        f"grit_byte values[{(max_tokens + beyond) * strides['VALUE']}];",
        f"grit_byte attentions[{(max_tokens + beyond) * strides['ATTENTION']}];",
        f"int32_t sums[GRIT_TOKENS * {max(sums)}];",
        f"uint8_t value[{outputs}];",
        f"int16_t index[{outputs}];",
        *_inputs(stride, max(groups)),
    ]
    return Section("body", text, memory, "pool")


def _spread(product: Product, width: int, stride: int) -> Product:
    """The layer of a kernel, its taps ``stride`` inputs apart."""
    out, inputs = product.weight.shape
    taps = product.weight.reshape(out, width, inputs // width)
    return Product(np.pad(taps, ((0, 0), (0, 0), (0, stride - taps.shape[2]))).reshape(out, -1), product.multiplier)


# --- layers -------------------------------------------------------------------------------------------


def _packed(product: Product, order: np.ndarray) -> Packed:
    return _layout.pack(product.weight, product.multiplier, order)


def _matrix(name: str, packed: Packed) -> str:
    return _layout.array("int8_t", f"grit_{name}_weight", packed.weight) + _layout.array(
        "int16_t", f"grit_{name}_multiplier", packed.multiplier
    )


def _bias(name: str, bias: np.ndarray, products: list[Packed]) -> str:
    """The bias of a layer, or of the two products of a recurrent one, for each way of multiplying."""
    winograd = bias - sum(packed.even_odd for packed in products)
    unsigned = bias - sum(128 * packed.total for packed in products)
    by_kernel = [("GRIT_SMLAD", _wrapped(winograd)), ("GRIT_VNNI", _wrapped(unsigned)), ("", bias.astype(np.int32))]
    return _layout.variants("int32_t", f"grit_{name}_bias", by_kernel)


def _wrapped(values: np.ndarray) -> np.ndarray:
    """int64 -> int32, modulo 2^32, as the sums are."""
    return values.astype(np.uint64).astype(np.uint32).view(np.int32)


def _affine(name: str, layer: Affine, packed: Packed) -> str:
    return _matrix(name, packed) + _bias(name, _layout.place(layer.bias, _layout.straight(len(layer.bias))), [packed])


def _layer(name: str, packed: Packed, bias: str) -> str:
    return f"static const grit_layer grit_{name} = {_entry(name, packed, bias)};\n"


def _entry(name: str, packed: Packed, bias: str) -> str:
    """A ``grit_layer``."""
    return f"{{grit_{name}_weight, grit_{name}_multiplier, {bias}, {packed.rows}, {packed.groups}}}"
