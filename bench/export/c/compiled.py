"""An artefact compiled for this machine: the same bits as :mod:`grit.bench.export.fixed`, many times as fast.

What attacks ask. Texts of one call share all that can be shared exactly: the products of a token with the weights, and
the states of a recurrent body after a common beginning.
"""

from __future__ import annotations

import ctypes

import numpy as np

from grit.bench.export import words
from grit.bench.export.c import compiler, emitter
from grit.bench.export.fixed import FixedArtefact

_FLAGS = ("-std=c99", "-O3", "-ffp-contract=off", "-fPIC", "-shared")
TEXTS_AT_ONCE = 512  # of a call; bounds the memory


class CompiledArtefact(words.Reader):
    """A :class:`grit.bench.types.Artefact` over a shared library; not for two threads at once."""

    exact = True

    def __init__(self, artefact: FixedArtefact) -> None:
        """Compiles, or finds in the cache; CouldNotMeasure where no compiler is."""
        program = artefact.program
        super().__init__(words.of(program.words, program.vocabulary))
        self.program = program
        self.digest = artefact.digest
        self.sizes_bytes = artefact.sizes_bytes
        self.classes = artefact.classes
        self.max_tokens = artefact.max_tokens
        self._table = words.table(program.words)
        self._memory = np.empty(0, np.uint8)
        self._library = library(emitter.emit_batch(program))

    def _clear(self) -> None:
        self._table = words.table(self.program.words)

    def logits(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """rows [batch seq], lengths [batch] >= 1 -> float64 [batch classes]; beyond max_tokens nothing is read."""
        if (fresh := self._fresh()) is not None:
            self._table.add(fresh)
        tokens = np.ascontiguousarray(rows[:, : self.max_tokens], np.int32)
        sizes = np.ascontiguousarray(np.minimum(lengths, self.max_tokens), np.int32)
        raw = np.empty((len(tokens), self.classes), np.int32)
        for start in range(0, len(tokens), TEXTS_AT_ONCE):
            part = slice(start, start + TEXTS_AT_ONCE)
            self._answer(tokens[part], sizes[part], raw[part])
        return raw * 2.0**-self.program.logit_bits

    def _answer(self, tokens: np.ndarray, lengths: np.ndarray, raw: np.ndarray) -> None:
        n, seq = tokens.shape
        table = self._table.array
        needed = self._library.grit_batch_bytes(n, seq, len(table))
        if needed + 64 > len(self._memory):
            self._memory = np.empty(needed + 64, np.uint8)
        begin = (self._memory.ctypes.data + 63) // 64 * 64
        self._library.grit_batch(
            table.ctypes.data, len(table), tokens.ctypes.data, lengths.ctypes.data, n, seq, raw.ctypes.data, begin
        )


def library(source: str) -> ctypes.CDLL:
    """The shared library of a source file of :func:`emitter.emit_batch`, compiled once for this machine."""
    cc = compiler.host()
    # the cache is this machine's, so the code may be too
    arguments = [*_FLAGS, compiler.native(), "batch.c", "-o", "batch.so"]
    path = compiler.cached(cc, {"batch.c": source}, arguments, "batch.so")
    loaded = ctypes.CDLL(str(path))
    loaded.grit_batch_bytes.restype = ctypes.c_int64
    loaded.grit_batch_bytes.argtypes = [ctypes.c_int64] * 3
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    loaded.grit_batch.restype = None
    loaded.grit_batch.argtypes = [pointer, integer, pointer, pointer, integer, integer, pointer, pointer]
    return loaded
