"""A text in words, and what a model answers when some of them are hidden.

A *word* here is what stands between blanks: every model of this house tokenises inside it or by it, a teacher and
its student share it whatever their tokens are, and punctuation, which speaks too, belongs to some word. A set of
kept words is a row of booleans; the model is asked about many rows at once.

Hiding is one of two things. *Delete*: the text is shorter. *Occlude*: the text keeps its length, and the model reads
its unknown word in the place of every token of a hidden one: what happens at the feature cut, and the baseline of
integrated gradients and Shapley values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from grit.bench.text import normalise
from grit.bench.types import Artefact, CouldNotMeasure
from grit.bench.victim import settled

Hide = Literal["delete", "occlude"]

ROWS = 8192  # rows of kept words a forward pass: many, since an artefact computes common beginnings once
UNKNOWN = "[UNK]"  # how a function of texts is shown an unknown word


class Subject(Protocol):
    """One text in the hands of a model."""

    @property
    def words(self) -> tuple[str, ...]: ...

    def logits(self, kept: np.ndarray, hide: Hide) -> np.ndarray:
        """kept bool [rows words] -> float64 [rows classes]. No row's answer depends on the others."""
        ...


class Source(Protocol):
    """A model that reads texts with words hidden."""

    def open(self, text: str) -> Subject: ...


def evidence(logits: np.ndarray, label: int) -> np.ndarray:
    """The logit of a label minus the mean logit, [rows]: what attributions explain. Blind to a shift of all logits.

    Of two classes it is half the log-odds; the objective that trains for a teacher's reasons uses the same.
    """
    return logits[:, label] - logits.mean(axis=1)


def probability(logits: np.ndarray, label: int) -> np.ndarray:
    """Softmax of the logits at a label, [rows]: what faithfulness is measured in."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised[:, label] / raised.sum(axis=1)


# --- words and their tokens --------------------------------------------------------------------------


@dataclass(frozen=True)
class Cutting:
    """The words of a text, all of its tokens, and the number of the word that each token belongs to."""

    words: tuple[str, ...]
    tokens: tuple[str, ...]
    owner: np.ndarray  # [tokens]


def cutting(text: str, tokenize: Callable[[str], list[str]], separable: bool) -> Cutting:
    """Which word every token belongs to; a token that spans words, as a bigram does, belongs to the last of them.

    Raises CouldNotMeasure for a tokenizer that looks ahead: whose tokens of a text's beginning are not the beginning
    of its tokens.
    """
    words = tuple(normalise(text).split(" ")) if normalise(text) else ()
    tokens: list[str] = []
    owner: list[int] = []
    for number, word in enumerate(words):
        here = tokenize(word) if separable else tokenize(" ".join(words[: number + 1]))
        if separable:
            fresh = here
        elif here[: len(tokens)] == tokens:
            fresh = here[len(tokens) :]
        else:
            raise CouldNotMeasure(
                "this model's tokenizer looks ahead, so no token belongs to a word; explain it as module:callable, "
                "which hides words in the text itself"
            )
        tokens += fresh
        owner += [number] * len(fresh)
    return Cutting(words, tuple(tokens), np.array(owner, np.intp))


def sequences(cut: Cutting, kept: np.ndarray, hide: Hide, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """What is read of the tokens of a separable text: places [rows seq], -1 for the unknown word, lengths [rows].

    Of a text with nothing left one unknown word is read.
    """
    inside = kept[:, cut.owner]  # [rows tokens]
    if hide == "occlude" and len(cut.tokens):
        places = np.where(inside, np.arange(len(cut.tokens)), -1)[:, :limit]
        return places, np.full(len(kept), places.shape[1])
    lengths = np.minimum(inside.sum(axis=1), limit)
    places = np.full((len(kept), max(int(lengths.max(initial=0)), 1)), -1)
    if len(cut.tokens):
        order = np.argsort(~inside, axis=1, kind="stable")[:, : places.shape[1]]  # the kept ones first, as they stood
        places = np.where(np.arange(places.shape[1]) < lengths[:, None], order, -1)
    return places, np.maximum(lengths, 1)


def joined(words: Sequence[str], kept: np.ndarray) -> list[str]:
    """The texts of the kept words alone: for readers that look across blanks."""
    return [" ".join(word for word, stays in zip(words, row, strict=True) if stays) for row in kept.tolist()]


# --- models that are only asked ----------------------------------------------------------------------


class Shipped:
    """The deployed bytes, read with words hidden."""

    def __init__(self, artefact: Artefact) -> None:
        self._artefact = artefact

    def open(self, text: str) -> Subject:
        return _ShippedText(self._artefact, cutting(text, self._artefact.tokenize, self._artefact.separable))


class _ShippedText:
    def __init__(self, artefact: Artefact, cut: Cutting) -> None:
        self.words = cut.words
        self._artefact = artefact
        self._cut = cut
        # One row more, which a place of -1 finds: the unknown word.
        self._rows = np.asarray(artefact.intern([*cut.tokens, ""]), np.int32)

    def logits(self, kept: np.ndarray, hide: Hide) -> np.ndarray:
        logits = np.empty((len(kept), self._artefact.classes))
        for start in range(0, len(kept), ROWS):
            rows, lengths = self._read(kept[start : start + ROWS], hide)
            logits[start : start + ROWS] = self._artefact.logits(rows, lengths)
        return logits if self._artefact.exact else settled(logits)

    def _read(self, kept: np.ndarray, hide: Hide) -> tuple[np.ndarray, np.ndarray]:
        limit = self._artefact.max_tokens
        if self._artefact.separable or hide == "occlude":
            places, lengths = sequences(self._cut, kept, hide, limit)
            return self._rows[places], lengths
        read = [self._artefact.tokenize(text)[:limit] or [""] for text in joined(self.words, kept)]
        lengths = np.array([len(tokens) for tokens in read], np.int64)
        flat = np.asarray(self._artefact.intern([token for tokens in read for token in tokens]), np.int32)
        rows = np.full((len(read), lengths.max(initial=1)), self._rows[-1], np.int32)
        rows[np.arange(rows.shape[1]) < lengths[:, None]] = flat
        return rows, lengths


class Told:
    """Any function from texts to logits: words are hidden in the text itself, an occluded one reads ``[UNK]``."""

    def __init__(self, logits: Callable[[Sequence[str]], np.ndarray]) -> None:
        self._logits = logits

    def open(self, text: str) -> Subject:
        return _ToldText(self._logits, tuple(normalise(text).split()))


class _ToldText:
    def __init__(self, logits: Callable[[Sequence[str]], np.ndarray], words: tuple[str, ...]) -> None:
        self.words = words
        self._logits = logits

    def logits(self, kept: np.ndarray, hide: Hide) -> np.ndarray:
        if hide == "delete":
            return self._logits(joined(self.words, kept))
        shown = [" ".join(np.where(row, self.words, UNKNOWN).tolist()) for row in kept]
        return self._logits(shown)
