"""How numbers and words lie in the emitted source: panels of weights, the front-coded vocabulary, arrays as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

PANEL, CHUNK, GROUP = 8, 32, 4  # rows, rows, inputs: what product.c expects
BLOCK = 16  # words of the vocabulary behind one entry of its directory
LINE = 112  # characters


def padded(count: int, to: int) -> int:
    """The next multiple of ``to``."""
    return -(-count // to) * to


# --- weights ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packed:
    """An int8 matrix as product.c reads it: [chunk][inputs / 4][panel][8 rows][4 inputs], padded with zeros."""

    weight: np.ndarray  # int8, flat
    multiplier: np.ndarray  # int16 [rows]
    even_odd: np.ndarray  # int64 [rows]: multiplier times the sum of w0 w1 + w2 w3 + ...
    total: np.ndarray  # int64 [rows]: multiplier times the sum of all weights
    rows: int
    groups: int


def pack(weight: np.ndarray, multiplier: np.ndarray, order: Sequence[int] | np.ndarray) -> Packed:
    """weight int8 [out in]; ``order`` names the row at each place, -1 for none; its length is a multiple of 8."""
    order = np.asarray(order)
    rows, groups = len(order), padded(weight.shape[1], GROUP) // GROUP
    there = order >= 0
    full = np.zeros((rows, groups * GROUP), np.int8)
    full[there, : weight.shape[1]] = weight[order[there]]
    scale = np.zeros(rows, np.int16)
    scale[there] = multiplier[order[there]]
    chunks = [
        full[start : start + CHUNK].reshape(-1, PANEL, groups, GROUP).transpose(2, 0, 1, 3).ravel()
        for start in range(0, rows, CHUNK)
    ]
    wide = full.astype(np.int64)
    return Packed(
        np.concatenate(chunks),
        scale,
        scale * (wide[:, 0::2] * wide[:, 1::2]).sum(axis=1),
        scale * wide.sum(axis=1),
        rows,
        groups,
    )


def columns(weight: np.ndarray, order: np.ndarray) -> np.ndarray:
    """weight float32 [out in] as float_product.c reads it: [chunk][input][rows of the chunk], flat."""
    full = np.zeros((len(order), weight.shape[1]), np.float32)
    full[order >= 0] = weight[order[order >= 0]]
    return np.concatenate([full[start : start + CHUNK].T.ravel() for start in range(0, len(order), CHUNK)])


def place(values: np.ndarray, order: Sequence[int] | np.ndarray) -> np.ndarray:
    """values [out], one a row, at the places of ``order``; 0 at empty ones."""
    order = np.asarray(order)
    placed = np.zeros(len(order), values.dtype)
    placed[order >= 0] = values[order[order >= 0]]
    return placed


def straight(rows: int) -> np.ndarray:
    """The order of a plain layer: its rows, padded to whole panels."""
    return np.concatenate([np.arange(rows), np.full(padded(rows, PANEL) - rows, -1)])


def gates(units: int) -> np.ndarray:
    """The order of an LSTM: blocks of 8 units, in each 8 rows of every gate."""
    places = np.arange(padded(units, PANEL)).reshape(-1, 1, PANEL)  # [block 1 unit]
    gate = np.arange(4).reshape(1, 4, 1)
    return np.where(places < units, gate * units + places, -1).ravel()


# --- words ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vocabulary:
    """Words sorted by their UTF-8 bytes and front-coded (vocabulary.c)."""

    letters: bytes
    blocks: np.ndarray  # int64: where each block of BLOCK words begins
    rows: np.ndarray  # int64 [words]: the place of each word of the program


def front_coded(words: Sequence[str]) -> Vocabulary:
    """``words`` are distinct, and the empty one is among them: it sorts first and is row 0."""
    coded = [word.encode() for word in words]
    order = sorted(range(len(coded)), key=coded.__getitem__)
    letters, blocks = bytearray(), []
    before = b""
    for place, index in enumerate(order):
        word = coded[index]
        if place % BLOCK == 0:
            blocks.append(len(letters))
            before = b""
        shared = _common(before, word)
        rest = word[shared:]
        letters.append(min(shared, 15) << 4 | min(len(rest), 15))
        letters += _more(shared) + _more(len(rest)) + rest
        before = word
    rows = np.empty(len(order), np.int64)
    rows[order] = np.arange(len(order))
    return Vocabulary(bytes(letters), np.array(blocks), rows)


def _common(a: bytes, b: bytes) -> int:
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _more(count: int) -> bytes:
    """What of a count does not fit its nibble: bytes of 255 and a smaller one."""
    if count < 15:
        return b""
    return bytes([255] * ((count - 15) // 255) + [(count - 15) % 255])


# --- text -------------------------------------------------------------------------------------------


def array(kind: str, name: str, values: Sequence[float] | np.ndarray | bytes) -> str:
    """``static const kind name[n] = {...};``, aligned so that whole words and vectors may be read."""
    listed = _shortest(values) if isinstance(values, np.ndarray) else list(values)
    return f"static const {kind} {name}[{len(listed)}] GRIT_ALIGNED = {{\n{_lines(listed)}\n}};\n"


def variants(kind: str, name: str, by_kernel: Sequence[tuple[str, np.ndarray]]) -> str:
    """An array whose numbers depend on the kernels in use: (macro, numbers), the last for all others."""
    lines = []
    for k, (macro, values) in enumerate(by_kernel):
        condition = "#else" if k + 1 == len(by_kernel) else f"#{'elif' if k else 'if'} defined({macro})"
        lines += [condition, _lines(values.tolist())]
    size = len(by_kernel[0][1])
    return f"static const {kind} {name}[{size}] GRIT_ALIGNED = {{\n" + "\n".join(lines) + "\n#endif\n};\n"


def _shortest(values: np.ndarray) -> list[Any]:
    """Python numbers; a float32 as the shortest decimal that reads back as it."""
    if values.dtype == np.float32:
        return [float(str(value)) for value in values]
    return values.tolist()


def _lines(numbers: Sequence[float]) -> str:
    words = [f"{number!r}f" if isinstance(number, float) else str(number) for number in numbers]
    each = max(1, LINE // (max(map(len, words), default=1) + 2))
    return ",\n".join(", ".join(words[start : start + each]) for start in range(0, len(words), each))


@dataclass(frozen=True)
class Section:
    """What one part of a program adds to the source: text in its order, and members of the scratch memory."""

    part: str  # words, body or head
    text: Sequence[str]
    scratch: Sequence[str] = ()
    run: str = (
        ""  # of a body: the chapter that takes a text through it; of the same name behind "batch_" the one for many
    )


def chapter(name: str) -> str:
    """A ``.c`` file of this folder."""
    return (files(__package__) / f"{name}.c").read_text(encoding="utf-8")


def define(**constants: int) -> str:
    """``#define GRIT_NAME value`` lines."""
    return "".join(f"#define GRIT_{name} {value}\n" for name, value in constants.items())
