"""Writes the C source of a program: what it is (constants, from the program) before how it runs (chapters, fixed).

The emitted program answers the same bits as :mod:`grit.bench.export.fixed` on every core and compiler. It uses no heap,
no library and no global variable: all memory it writes is the ``model_scratch`` that the caller passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from grit import __version__
from grit.bench.export import fixed
from grit.bench.export.fixed import Affine, FixedFastGrnn, FixedLstm, FixedPool, FixedProgram, Product
from grit.bench.types import Rows, Ternary

BLOCK = 16  # words of the vocabulary that share a place in the directory
PANEL, CHUNK, GROUP = 8, 32, 4  # rows, rows, inputs: how product.c wants weights
LINE = 110  # characters


@dataclass(frozen=True)
class Emission:
    """The source files of a program by name, and where its rows went."""

    files: Mapping[str, str]
    rows: np.ndarray | None
    """int64 [vocabulary]: the number in C of each row of the program; None: hashed, the same number or none."""


def emit(program: FixedProgram, name: str = "model", *, licence: str = "Apache-2.0") -> Emission:
    """``NAME.h``, ``NAME.c`` and an example ``main.c``."""
    program.check()
    words, order = _words(program)
    body = _body(program)
    constants = _Constants()
    source = [
        f'#include "{name}.h"\n',
        _INCLUDES,
        *words.source,
        *body.source,
    ]
    del constants
    header = _header(program, name, words, body, licence)
    text = "\n".join(source)
    return Emission({f"{name}.h": _named(header, name), f"{name}.c": _named(text, name)}, order)
