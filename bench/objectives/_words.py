"""Texts as rows, rows as codes: every token string of a training run is stored once.

A word that stands in ten thousand texts is tokenised, looked up or hashed a single time; a batch is then a
gather. Rows beyond the texts' own words hold what training writes over them: synonyms and misspellings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from grit.bench.objectives._passes import quiet
from grit.bench.types import Example, Model

UNKNOWN = 0  # the row of the token "", which every model reads as its unknown word


class Words:
    """Token strings <-> rows. Interned rows never change; a reserved block is rewritten as a whole."""

    def __init__(self) -> None:
        self.strings: list[str] = [""]
        self.changes: list[tuple[int, int]] = [(0, 1)]  # every range of rows ever written, oldest first
        self._rows = {"": UNKNOWN}

    def __len__(self) -> int:
        return len(self.strings)

    def intern(self, tokens: Sequence[str]) -> np.ndarray:
        """The rows of tokens, new ones appended: int32 [tokens]."""
        before = len(self.strings)
        rows = np.empty(len(tokens), np.int32)
        for place, token in enumerate(tokens):
            row = self._rows.get(token)
            if row is None:
                row = self._rows[token] = len(self.strings)
                self.strings.append(token)
            rows[place] = row
        if len(self.strings) > before:
            self.changes.append((before, len(self.strings)))
        return rows

    def find(self, token: str) -> int | None:
        """The row of an interned token, None for any other."""
        return self._rows.get(token)

    def reserve(self, n: int) -> int:
        """The first of ``n`` rows kept for :meth:`rewrite`; they read as the unknown word until then."""
        start = len(self.strings)
        self.strings.extend([""] * n)
        self.changes.append((start, start + n))
        return start

    def rewrite(self, start: int, tokens: Sequence[str]) -> None:
        """Puts other tokens into a reserved block."""
        self.strings[start : start + len(tokens)] = tokens
        self.changes.append((start, start + len(tokens)))


class Codebook:
    """The codes of one model for every row of :class:`Words`, kept up to date as rows appear or change."""

    def __init__(self, words: Words, model: Model) -> None:
        self.words = words
        self.model = model
        with quiet(model):
            self._table = model.codes([""])[:0]
        self._seen = 0  # changes of the words already taken over

    @property
    def table(self) -> np.ndarray:
        """The model's codes: [rows] or [rows feat]."""
        if self._seen == len(self.words.changes):
            return self._table
        changes = self.words.changes[self._seen :]
        self._seen = len(self.words.changes)
        if len(self._table) < len(self.words):
            room = np.zeros((len(self.words) - len(self._table), *self._table.shape[1:]), self._table.dtype)
            self._table = np.concatenate([self._table, room])
        with quiet(self.model):  # what a word is coded as must not depend on training noise
            for start, stop in _merged(changes):
                self._table[start:stop] = self.model.codes(self.words.strings[start:stop])
        return self._table

    def codes(self, rows: np.ndarray) -> torch.Tensor:
        """rows [...] -> codes [... (feat)]."""
        return torch.from_numpy(self.table[rows])

    def spell(self, texts: Sequence[Sequence[str]]) -> torch.Tensor:
        """Token lists, of which many may be no row yet and need not become one -> codes [batch seq (feat)].

        Shorter lists are padded with the unknown word.
        """
        table = self.table
        longest = max(len(tokens) for tokens in texts)
        rows = np.zeros((len(texts), longest), np.int32)
        fresh: list[tuple[int, int, str]] = []
        for number, tokens in enumerate(texts):
            for place, token in enumerate(tokens):
                row = self.words.find(token)
                if row is None:
                    fresh.append((number, place, token))
                else:
                    rows[number, place] = row
        codes = table[rows]
        if fresh:
            numbers, places, strings = zip(*fresh, strict=True)
            with quiet(self.model):
                codes[list(numbers), list(places)] = self.model.codes(strings)
        return torch.from_numpy(codes)


def _merged(changes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges with neighbours joined and repeats dropped, so that each row is coded once."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(set(changes)):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


class Split:
    """Examples as a model reads them: rows of tokens, and for each token the piece of text it came from.

    A piece is what stands between white space. Two models that cut pieces differently still agree on the
    pieces, so a student's word can be compared with its teacher's. A model that looks across white space
    (``separable`` False) has no pieces.
    """

    def __init__(self, model: Model, words: Words, examples: Sequence[Example]) -> None:
        self.labels = np.array([example.label for example in examples], np.int64)
        self.separable = model.separable
        memo: dict[str, list[str]] = {}
        tokens: list[str] = []
        pieces: list[int] = []
        ends = [0]
        for example in examples:
            mine: list[str] = []
            if model.separable:
                for number, piece in enumerate(example.text.split()):
                    cut = memo.get(piece)
                    if cut is None:
                        cut = memo[piece] = model.tokenize(piece)
                    mine += cut
                    pieces += [number] * len(cut)
                    if len(mine) >= model.max_tokens:
                        break
            else:
                mine += model.tokenize(example.text)
                pieces += [0] * len(mine)
            surplus = len(mine) - model.max_tokens
            if surplus > 0:
                del mine[model.max_tokens :], pieces[-surplus:]
            if not mine:
                mine, pieces = [""], [*pieces, 0]
            tokens += mine
            ends.append(len(tokens))
        self._rows = words.intern(tokens)
        self._pieces = np.array(pieces, np.int32)
        self._ends = np.array(ends, np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every text: int64 [texts]."""
        return np.diff(self._ends)

    def counts(self, n: int) -> np.ndarray:
        """How often each of the first ``n`` rows occurs: int64 [n]."""
        return np.bincount(self._rows, minlength=n)[:n]

    def rows(self, index: np.ndarray) -> np.ndarray:
        """int32 [batch seq], padded with the unknown word."""
        return padded(self._rows, self._ends, index)

    def pieces(self, index: np.ndarray) -> np.ndarray:
        """int32 [batch seq], padded with 0: mask by the lengths."""
        return padded(self._pieces, self._ends, index)

    def batches(self, size: int) -> list[np.ndarray]:
        """All texts in order of length: for evaluation, where order does not matter and padding costs."""
        order = np.argsort(self.lengths, kind="stable")
        return [order[start : start + size] for start in range(0, len(order), size)]


def padded(flat: np.ndarray, ends: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Ragged rows (``flat`` cut at ``ends``) as one array padded with zeros: [batch longest ...]."""
    starts, stops = ends[index], ends[index + 1]
    places = starts[:, None] + np.arange((stops - starts).max(initial=0))
    inside = places < stops[:, None]
    chosen = flat[np.where(inside, places, 0)]
    chosen[~inside] = 0
    return chosen
