"""Text -> rows: how every exported program reads text.

The three word layers of :mod:`grit.bench.types` number tokens differently, and nothing above needs to know:
a vocabulary has a row a word, a hashed table a row a bucket, a hash projection a growing row a code seen so far.
Tokens that a program cannot tell apart share a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from typing import Protocol

import numpy as np

from grit.bench import text
from grit.bench.types import Artefact, Rows, Ternary

_REMEMBERED = 200_000  # tokens whose rows are kept at hand, about 40 MB; then all are found anew


class Words(Protocol):
    """Tokens in and out of rows."""

    separable: bool
    order: int  # tokens are the word n-grams up to this order of text.tokenize; 0: they need not be

    def tokenize(self, raw: str) -> list[str]: ...

    def intern(self, tokens: Sequence[str]) -> np.ndarray:
        """tokens -> int32 rows [tokens]."""
        ...

    def token(self, row: int) -> str:
        """A token that interns to this row."""
        ...


class Vocabulary:
    """One row a word; row 0 is the unknown word, written ``""``."""

    separable = True
    order = 1

    def __init__(self, words: Sequence[str]) -> None:
        self._words = tuple(words)
        self._rows = _Numbered(zip(self._words, range(len(self._words)), strict=True))

    def tokenize(self, raw: str) -> list[str]:
        return text.tokenize(raw)

    def intern(self, tokens: Sequence[str]) -> np.ndarray:
        return np.fromiter(map(self._rows.__getitem__, tokens), np.int32, len(tokens))

    def token(self, row: int) -> str:
        return self._words[row]


class _Numbered(dict[str, int]):
    def __missing__(self, word: str) -> int:
        return 0


class Buckets:
    """Word n-grams up to ``order``, hashed into ``rows`` rows."""

    def __init__(self, rows: int, order: int) -> None:
        self.separable = order == 1  # a longer n-gram looks across white space
        self.order = order
        self._size = rows
        self._rows: dict[str, int] = {}
        self._tokens: dict[int, str] = {}

    def tokenize(self, raw: str) -> list[str]:
        return text.ngrams(text.tokenize(raw), self.order)

    def intern(self, tokens: Sequence[str]) -> np.ndarray:
        return np.fromiter((self._row(token) for token in tokens), np.int32, len(tokens))

    def token(self, row: int) -> str:
        return self._tokens[row]

    def _row(self, token: str) -> int:
        row = self._rows.get(token)
        if row is None:
            if len(self._rows) >= _REMEMBERED:
                self._rows.clear()
            row = self._rows[token] = text.bucket(token, self._size)
            self._tokens.setdefault(row, token)
        return row


class Codes:
    """One row a distinct code, in the order in which they turn up; row 0 is the unknown word's.

    ``codes``: tokens -> one code each, [tokens] or [tokens feat].
    """

    order = 0

    def __init__(
        self,
        codes: Callable[[Sequence[str]], np.ndarray],
        tokenize: Callable[[str], list[str]] = text.tokenize,
        *,
        separable: bool = True,
    ) -> None:
        self.separable = separable
        self.tokenize = tokenize
        self._codes = codes
        self.forget()

    def forget(self) -> None:
        """Back to the unknown word alone: typos come by the million, and each would stay for ever."""
        self._rows: dict[str, int] = {}
        self._tokens: list[str] = []
        self._by_code: dict[bytes, int] = {}  # digest of a code -> row
        self._fresh: list[np.ndarray] = []
        self.intern([""])

    def __len__(self) -> int:
        """Rows in the table; or tokens that share them, where those are more."""
        return max(len(self._tokens), len(self._rows))

    def intern(self, tokens: Sequence[str]) -> np.ndarray:
        rows = self._rows
        missing = [token for token in dict.fromkeys(tokens) if token not in rows]
        if missing:
            for token, code in zip(missing, self._codes(missing), strict=True):
                key = blake2b(code.tobytes(), digest_size=16).digest()
                row = self._by_code.setdefault(key, len(self._tokens))
                if row == len(self._tokens):
                    self._tokens.append(token)
                    self._fresh.append(code)
                rows[token] = row
        return np.fromiter(map(rows.__getitem__, tokens), np.int32, len(tokens))

    def token(self, row: int) -> str:
        return self._tokens[row]

    def fresh(self) -> np.ndarray | None:
        """Codes of the rows that came up since the last call, [rows] or [rows feat]; each is handed out once."""
        codes = np.stack(self._fresh) if self._fresh else None
        self._fresh.clear()
        return codes


class Growing:
    """An array that rows are added to; its capacity doubles when it runs out."""

    def __init__(self, start: np.ndarray) -> None:
        self.array = self._room = start

    def add(self, rows: np.ndarray) -> None:
        used = len(self.array)
        if used + len(rows) > len(self._room):
            self._room = np.empty((max(2 * used, used + len(rows)), *self.array.shape[1:]), self.array.dtype)
            self._room[:used] = self.array
        self._room[used : used + len(rows)] = rows
        self.array = self._room[: used + len(rows)]


def of(layer: Rows | Ternary, vocabulary: Sequence[str]) -> Vocabulary | Buckets | Codes:
    """The reader of a program's word layer."""
    if isinstance(layer, Ternary):
        return Codes(partial(text.ternary, width=layer.width))
    if layer.ngrams:
        return Buckets(len(layer.table), layer.ngrams)
    return Vocabulary(vocabulary)


def table(layer: Rows | Ternary) -> Growing:
    """What a word layer has for its rows before any text is read: of a vocabulary all, of a hash projection nothing."""
    return Growing(
        np.ascontiguousarray(layer.table) if isinstance(layer, Rows) else np.zeros((0, layer.width), np.int8)
    )


class Reader(ABC):
    """What every artefact does with text: it leaves that to its words."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self.separable = words.separable
        self.order = words.order

    def tokenize(self, text: str) -> list[str]:
        return self._words.tokenize(text)

    def intern(self, tokens: Sequence[str]) -> np.ndarray:
        return self._words.intern(tokens)

    def token(self, row: int) -> str:
        return self._words.token(row)

    @property
    def interned(self) -> int:
        """Rows of a table that grows; 0 where the rows are the artefact's own."""
        return len(self._words) if isinstance(self._words, Codes) else 0

    def forget(self) -> None:
        """Empty a table that grows: rows handed out before mean nothing any more."""
        if isinstance(self._words, Codes):
            self._words.forget()
            self._clear()

    def _fresh(self) -> np.ndarray | None:
        """Codes of the rows that a growing table got since the last call, as :meth:`Codes.fresh`."""
        return self._words.fresh() if isinstance(self._words, Codes) else None

    @abstractmethod
    def _clear(self) -> None:
        """Empty what is kept of the rows of a table that grows."""


# --- texts -> what an artefact takes, and what it answers -------------------------------------------


def batch(artefact: Artefact, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """texts -> int32 rows [batch seq] (0 beyond the end) and int32 lengths [batch], cut at the artefact's limit."""
    read = [(artefact.tokenize(text.normalise(raw)) or [""])[: artefact.max_tokens] for raw in texts]
    lengths = np.array([len(tokens) for tokens in read], np.int32)
    rows = np.zeros((len(read), max(lengths, default=1)), np.int32)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = artefact.intern([token for tokens in read for token in tokens])
    return rows, lengths


def answer(artefact: Artefact, texts: Sequence[str], batch_size: int = 512) -> np.ndarray:
    """texts -> float64 logits [texts classes]."""
    parts = [artefact.logits(*batch(artefact, part)) for part in _parts(texts, batch_size)]
    return np.concatenate(parts) if parts else np.zeros((0, artefact.classes))


def _parts(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]
