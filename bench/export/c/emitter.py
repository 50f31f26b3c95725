"""Writes the C source of a program: a section a layer, in each its numbers and the chapters that compute with them.

The emitted int8 program answers the same bits as :mod:`grit.bench.export.fixed` on every core and compiler. It needs no
library, no heap and no global variable: all memory that it writes is the ``NAME_scratch`` that its caller passes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grit import __version__
from grit.bench.export import floating
from grit.bench.export.c import _fixed, _float, _layout
from grit.bench.export.c._layout import Section, chapter, define
from grit.bench.export.fixed import FixedProgram
from grit.bench.types import Program, Ternary, UsageError


@dataclass(frozen=True)
class Emission:
    """The source of a program, and where its rows went."""

    files: Mapping[str, str]  # file name -> text
    rows: np.ndarray | None
    """int64 [rows]: the number in C of each row of the program's word table; None where words are hashed to digits."""

    def write(self, folder: Path) -> None:
        """The files into an existing or new folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (folder / name).write_text(text, encoding="utf-8")


def emit(
    program: Program | FixedProgram, name: str = "model", *, licence: str = "unknown", digest: str = ""
) -> Emission:
    """``NAME.h``, ``NAME.c`` and an example, ``main.c``; ``name`` begins all that they export.

    licence: of the data that the weights were learned from; the code itself is Apache-2.0. digest: sha256 of the
    artefact, for the record. Raises UsageError for a name that C cannot have, MalformedInput for a program that breaks
    its bounds.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UsageError(f"C name {name!r}: expected a lower-case letter, then letters, digits and underscores")
    words, rows = _words(program)
    if isinstance(program, FixedProgram):
        program.check()
        sections, style = [words, *_fixed.sections(program)], ""
    else:
        floating.check(program)
        sections, style = [words, *_float.sections(program)], "float_"
    parts = [f'#include "{name}.h"\n', chapter("includes"), chapter("text")]
    for section in sections:
        parts += section.text
    parts += [chapter(f"{style}run_{section.run}") for section in sections if section.run]
    parts.append(chapter("run_text"))
    origin = (
        f"Written by gritbench {__version__}" + (f" from artefact {digest}" if digest else "") + "; not to be edited."
    )
    banner = (
        f"/* {origin}\n *\n * SPDX-License-Identifier: Apache-2.0\n"
        f" * That is the code; the weights were learned from data under the licence: {_comment(licence)}\n */\n"
    )
    files = {
        f"{name}.h": banner + _header(program, sections, _constant_bytes("".join(parts))),
        f"{name}.c": banner + "\n".join(parts),
        "main.c": banner + chapter("main"),
    }
    return Emission({file: _renamed(text, name) for file, text in files.items()}, rows)


def emit_batch(program: FixedProgram) -> str:
    """One source file with ``grit_batch`` and ``grit_batch_bytes`` (batch.c): rows of tokens to logits, many texts."""
    program.check()
    layer = program.words
    features = layer.width if isinstance(layer, Ternary) else layer.table.shape[1]
    sections = _fixed.sections(program)
    parts = [
        "#include <stdint.h>\n",
        define(FEATURES=features),
        f"#define MODEL_CLASSES {len(program.head.bias)}\ntypedef int32_t model_logit;\n",
        chapter("isa"),
        chapter("includes"),
    ]
    for section in sections:
        parts += section.text
    run = next(section.run for section in sections if section.run)
    return "\n".join([*parts, chapter("batch"), chapter(f"batch_{run}")])


def logits(program: Program | FixedProgram, raw: bytes) -> np.ndarray:
    """float64 [classes] from the bytes of a ``model_logit`` array of a little-endian machine."""
    if isinstance(program, Program):
        return np.frombuffer(raw, "<f4").astype(np.float64)
    return np.frombuffer(raw, "<i4") * 2.0**-program.logit_bits


def _comment(words: str) -> str:
    """Words of others, safe inside a comment of a file in ASCII."""
    return words.encode("ascii", "replace").decode().replace("*/", "* /").replace("\n", " ")


def _constant_bytes(source: str) -> int:
    """The bytes of all constant arrays; of tables that only some kernels have, all."""
    found = re.findall(r"^static const (?:u?int(\d+)_t|float) \w+\[(\d+)\]", source, re.MULTILINE)
    return sum(int(bits or 32) // 8 * int(count) for bits, count in found)


def _renamed(text: str, name: str) -> str:
    return re.sub(r"\bmodel(?=[_.])", name, re.sub(r"\bMODEL(?=_)", name.upper(), text))


# --- words ------------------------------------------------------------------------------------------


def _words(program: Program | FixedProgram) -> tuple[Section, np.ndarray | None]:
    """Text -> tokens -> features, and where the rows went."""
    layer, floats = program.words, isinstance(program, Program)
    style = "float_" if floats else ""
    if isinstance(layer, Ternary):
        digit = f"typedef {'float' if floats else 'grit_byte'} grit_digit;\n"
        text = [define(WIDTH=layer.width), digit, chapter("hash"), chapter("ternary")]
        return Section("words", [*text, chapter(f"{style}features_ternary")]), None
    count, features = layer.table.shape
    sizes = define(TABLE_ROWS=count, FEATURES=features)
    if layer.ngrams:
        rows = np.arange(count)
        reading = [define(ORDER=layer.ngrams), chapter("hash"), chapter("buckets")]
    else:
        coded = _layout.front_coded(program.vocabulary)
        rows = coded.rows
        kind = "uint16_t" if len(coded.letters) <= 1 << 16 else "uint32_t"
        reading = [
            define(WORDS=count, BLOCK=_layout.BLOCK, BLOCKS=len(coded.blocks)),
            _layout.array("uint8_t", "grit_words", coded.letters),
            _layout.array(kind, "grit_blocks", coded.blocks),
            chapter("vocabulary"),
        ]
    table = np.empty_like(layer.table)
    table[rows] = layer.table
    numbers = _layout.array("float" if floats else "int8_t", "grit_table", table.ravel())
    return Section("words", [sizes, *reading, numbers, chapter(f"{style}features_rows")]), rows


def _token(program: Program | FixedProgram) -> str:
    if isinstance(program.words, Ternary):
        return "typedef struct {\n    uint64_t low, high;\n} model_token; /* the hash of a word */"
    wide = len(program.words.table) > 1 << 16
    return f"typedef uint{32 if wide else 16}_t model_token; /* a row of the word table */"


# --- the header -------------------------------------------------------------------------------------


def _header(program: Program | FixedProgram, sections: Sequence[Section], constant_bytes: int) -> str:
    if isinstance(program, Program):
        unit, logit = "1.0", "float"
    else:
        unit, logit = f"{2.0**-program.logit_bits:.17g}", "int32_t"
    members = ["model_token tokens[MODEL_MAX_TOKENS];", *(line for section in sections for line in section.scratch)]
    return f"""
#ifndef MODEL_H
#define MODEL_H

#include <stddef.h>
#include <stdint.h>

#define MODEL_CLASSES {len(program.head.bias)}
#define MODEL_MAX_TOKENS {program.max_tokens}
#define MODEL_LOGIT_UNIT {unit} /* what one unit of a logit is worth */
#define MODEL_CONSTANT_BYTES {constant_bytes} /* weights, words and tables, at most; code comes on top */
#define MODEL_RAM_BYTES sizeof(model_scratch) /* all that a call writes, but for its stack */

{chapter("isa")}
{_token(program)}
typedef {logit} model_logit;

/* All memory that a call writes; it needs no preparation. Calls may run side by side on scratches of their own. */
typedef struct {{
    {f"{chr(10)}    ".join(members)}
}} model_scratch;

/* The tokens of a UTF-8 text in normal form C; returns how many, 1 to MODEL_MAX_TOKENS. */
uint32_t model_read(const char *text, size_t size, model_token *tokens);

/* Logits of 1 to MODEL_MAX_TOKENS tokens: the network alone. */
void model_run(const model_token *tokens, uint32_t n, model_logit *logits, model_scratch *scratch);

/* Logits of a text. */
void model_text(const char *text, size_t size, model_logit *logits, model_scratch *scratch);

#endif
"""
