"""The float twin: first-order gains of edits, from gradients at the feature cut of the torch model.

The gain of an edit is grad_i . (features(new token) - features(old token)), summed over the tokens that the
edit changes, where grad_i is the gradient of the attack margin (largest other logit minus the gold one) at
the features of token i (Ebrahimi et al. 2018, equation 1, with the margin for the loss). It is exact where
the margin is linear in the features, and the first-order term of any other model. The formula needs no more
than ``features``, so it is the same for embeddings and for hash projections.

Words are aligned with tokens through the pieces between blanks: an edit changes the tokens of its piece, and
of those only the ones between the common start and the common end of the old and the new list. Where the
two differ in length, tokens are paired from the left; an old token left over counts as leaving its place,
-grad_i . features(old); a new token left over is read with the mean gradient of the changed places (of its
two neighbours where nothing was removed), since a first-order term knows no place between two tokens. The
shift of all later tokens is not first order and is left to the scores. An edit that is not aligned changes the
token whose number is that of its word.

Everything runs in double precision and gains are rounded to nine significant digits of the largest of their
answer, so that they do not depend on which texts share a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, groupby
from operator import itemgetter

import numpy as np
import torch

from grit.bench.sentence import Text, composed
from grit.bench.text import ngram_count, ngrams, tokenize
from grit.bench.types import Edit, Gain, Grid, MalformedInput, Model, Rows, Script

TEXTS = 64  # a backward pass
SIGNIFICANT_DIGITS = 9
_TOKENS = 8192  # whose features are computed at once
_PAIRS = 8192  # of gradient and feature multiplied at once; 512 features of 8 bytes: 32 MB
_REMEMBERED_STRINGS = 200_000


class Twin:
    """A trained torch model that answers gains. It keeps a copy of its own, in double precision and eval mode."""

    def __init__(self, model: Model, *, texts: int = TEXTS) -> None:
        twin = copy.deepcopy(model)
        assert isinstance(twin, torch.nn.Module)  # by contract of Model
        twin.double().eval().requires_grad_(False)
        self._model: Model = twin
        self._texts = texts
        program = None if self._model.separable else self._model.program()
        self._order = program.words.ngrams if program is not None and isinstance(program.words, Rows) else 0
        self._strings: dict[str, tuple[str, ...]] = {}
        self._written: tuple[Sequence[str], np.ndarray] | None = None  # words of a grid, their features

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The words that the model knows, without the unknown one; none of a model that hashes."""
        return tuple(word for word in self._model.vocabulary if word)

    def gains(self, asked: Sequence[tuple[Text, Gain, int]]) -> list[np.ndarray]:
        """For each (sentence, question, label) the first-order gains of its edits, float64 [edits]."""
        readings = [self._read(sentence, question) for sentence, question, _ in asked]
        order = sorted(range(len(asked)), key=lambda i: len(readings[i].tokens))
        answers: dict[int, np.ndarray] = {}
        for start in range(0, len(order), self._texts):
            chosen = order[start : start + self._texts]
            found = self._batch([readings[i] for i in chosen], [asked[i][2] for i in chosen])
            answers.update(zip(chosen, found, strict=True))
        return [answers[i] for i in range(len(asked))]

    def _read(self, sentence: Text, question: Gain) -> _Reading:
        """Tokens of the base text, and which tokens each edit takes out and writes in."""
        base = question.base
        _check(sentence, base)
        if self._order > 1 and question.aligned and all(edit[0] != "unknown" for edit in chain(base, question.edits)):
            return self._read_ngrams(sentence, question)
        if self._model.separable:
            spans = sentence.piece_spans
            place_of: Callable[[int], int] = sentence.piece_of
        else:
            spans = ((0, len(sentence.text)),)
            place_of = _first
        by_piece: dict[int, list[Edit]] = {}
        for edit in base:
            by_piece.setdefault(place_of(edit.index), []).append(edit)
        limit = self._model.max_tokens
        pieces = [self._tokens(sentence, span, tuple(by_piece.get(i, ()))) for i, span in enumerate(spans)]
        starts = [0]
        for piece in pieces:
            starts.append(starts[-1] + len(piece))
        reading = _Reading([token for piece in pieces for token in piece][:limit] or [""], len(question.edits))
        if isinstance(question.edits, Grid) and not question.aligned:
            reading.grid = question.edits
            return reading
        number = 0
        for (op, index), group in groupby(question.edits, key=itemgetter(0, 1)):
            edits = list(group)
            _check(sentence, edits[:1])
            if not question.aligned:
                if index < len(reading.tokens):
                    new = [self._tokenized(edit.word) or ("",) for edit in edits]
                    reading.put(number, index, new)
                number += len(edits)
                continue
            place = place_of(index)
            here = by_piece.get(place, ())
            # A text without tokens reads as one unknown word, before the edit or after it.
            old = pieces[place] if starts[-1] else ("",)
            last = starts[-1] <= len(old)
            if op == "replace" and all(other.index == index and other.op == op for other in here):
                start, stop = spans[place]
                before, after = (
                    sentence.text[start : sentence.spans[index][0]],
                    sentence.text[sentence.spans[index][1] : stop],
                )
                tokenized = self._tokenized
                written = [tokenized(before + edit.word + after) for edit in edits]
            else:
                written = [self._tokens(sentence, spans[place], composed(tuple(here), edit)) for edit in edits]
            if last:
                written = [new or ("",) for new in written]
            reading.change(number, starts[place], old, written)
            number += len(edits)
        return reading

    def _read_ngrams(self, sentence: Text, question: Gain) -> _Reading:
        """As :meth:`_read` of whole texts whose tokens are n-grams: only those that an edit reaches are cut anew."""
        order = self._order
        by_piece: dict[int, list[Edit]] = {}
        for edit in question.base:
            by_piece.setdefault(sentence.piece_of(edit.index), []).append(edit)

        def cut(place: int, edits: Script) -> list[str]:
            return tokenize(sentence.segments(*sentence.piece_spans[place], edits)[0])

        pieces = [cut(place, tuple(by_piece.get(place, ()))) for place in range(len(sentence.pieces))]
        starts = [0, *accumulate(map(len, pieces))]
        words = [word for piece in pieces for word in piece]
        whole = ngrams(words, order)
        reading = _Reading(whole[: self._model.max_tokens] or [""], len(question.edits))
        number = 0
        for (_, index), group in groupby(question.edits, key=itemgetter(0, 1)):
            edits = list(group)
            _check(sentence, edits[:1])
            place = sentence.piece_of(index)
            here, first, after = tuple(by_piece.get(place, ())), starts[place], starts[place + 1]
            before, behind = words[max(0, first - order + 1) : first], words[after : after + order - 1]
            common, start = ngram_count(len(before), order), ngram_count(first, order)
            old = ngrams([*before, *pieces[place], *behind], order)[common:]
            rest = whole[start + len(old) :]
            for edit in edits:
                new = ngrams([*before, *cut(place, composed(here, edit)), *behind], order)[common:]
                if len(new) == len(old):
                    reading.change(number, start, tuple(old), [tuple(new)])
                else:  # what both texts have in common at the end may reach into what was cut anew
                    all_new = (*new, *rest) if start or new or rest else ("",)
                    reading.change(number, start, (*old, *rest) if words else ("",), [all_new])
                number += 1
        return reading

    def _tokens(self, sentence: Text, span: tuple[int, int], edits: Script) -> tuple[str, ...]:
        segments = sentence.segments(*span, edits)
        if len(segments) == 1:
            return self._tokenized(segments[0])
        tokens = list(self._tokenized(segments[0]))
        for segment in segments[1:]:
            tokens += ("", *self._tokenized(segment))
        return tuple(tokens)

    def _tokenized(self, string: str) -> tuple[str, ...]:
        tokens = self._strings.get(string)
        if tokens is None:
            if len(self._strings) >= _REMEMBERED_STRINGS:
                self._strings.clear()
            tokens = tuple(self._model.tokenize(string))
            self._strings[string] = tokens = () if tokens == ("",) else tokens
        return tokens

    def _batch(self, readings: Sequence[_Reading], labels: Sequence[int]) -> list[np.ndarray]:
        tokens = dict.fromkeys(chain.from_iterable((*reading.tokens, *reading.written) for reading in readings))
        ids = {token: number for number, token in enumerate(tokens)}
        table = self._features(list(ids))  # [tokens feat]
        seq = max(len(reading.tokens) for reading in readings)
        features = torch.zeros(len(readings), seq, table.shape[1], dtype=torch.float64)
        for row, reading in enumerate(readings):
            features[row, : len(reading.tokens)] = table[[ids[token] for token in reading.tokens]]
        gradients = self._gradients(features, [len(reading.tokens) for reading in readings], labels)
        values = table.numpy()
        found = []
        for row, reading in enumerate(readings):
            here = features[row, : len(reading.tokens)].detach().numpy()
            if reading.grid is None:
                found.append(reading.gains(gradients[row], here, values, ids))
            else:
                found.append(self._products(reading.grid, gradients[row], here))
        return found

    def _products(self, grid: Grid, gradients: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Every word of a grid in place of every token whose number is that of a site; beyond the last, nothing."""
        if self._written is None or self._written[0] is not grid.words:
            tokens = [self._tokenized(word) or ("",) for word in grid.words]
            each = self._features([token for of_word in tokens for token in of_word]).numpy()
            starts = np.cumsum([0, *map(len, tokens)])[:-1]
            self._written = grid.words, np.add.reduceat(each, starts)  # [words feat]
        gains = np.zeros((len(grid.sites), len(grid.words)))
        for row, site in enumerate(grid.sites):
            if site < len(features):
                gains[row] = self._written[1] @ gradients[site] - gradients[site] @ features[site]
        return _rounded(gains.ravel())

    def _gradients(self, features: torch.Tensor, lengths: Sequence[int], labels: Sequence[int]) -> np.ndarray:
        """Of the margins, at the features: float64 [batch seq feat]."""
        with torch.enable_grad():
            features.requires_grad_(True)
            state = self._model.read(features, torch.tensor(lengths)).state
            logits = self._model.head(state)  # [batch classes]
            gold = torch.tensor(labels)[:, None]
            others = logits.scatter(1, gold, -torch.inf)
            margins = others.amax(1) - logits.gather(1, gold)[:, 0]
            (gradients,) = torch.autograd.grad(margins.sum(), features)
        if not torch.isfinite(gradients).all():
            raise MalformedInput("the float twin gives NaN or infinite gradients; check its weights")
        return gradients.numpy()

    @torch.no_grad()
    def _features(self, tokens: list[str]) -> torch.Tensor:
        """tokens -> features, float64 [tokens feat]."""
        parts = []
        for start in range(0, len(tokens), _TOKENS):
            codes = torch.from_numpy(np.ascontiguousarray(self._model.codes(tokens[start : start + _TOKENS])))
            parts.append(self._model.features(codes[None])[0].double())
        return torch.cat(parts)


@dataclass
class _Reading:
    """The tokens of one base text, and the changes its edits make, as flat lists over (edit, place, token)."""

    tokens: list[str]
    edits: int
    leaving_edit: list[int] = field(default_factory=list)  # an old token leaves a place
    leaving_place: list[int] = field(default_factory=list)
    written_edit: list[int] = field(default_factory=list)  # a new token is read with the gradient of a place
    written_place: list[int] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    grid: Grid | None = None  # instead of all lists

    def change(self, first: int, start: int, old: tuple[str, ...], written: Sequence[tuple[str, ...]]) -> None:
        """Note what edits number ``first`` and on make of tokens ``old``, which begin at place ``start``."""
        if len(old) == 1 and start < len(self.tokens) and all(map(_is_one, written)):  # nearly always
            numbers = range(first, first + len(written))
            places = [start] * len(written)
            self.leaving_edit += numbers
            self.leaving_place += places
            self.written_edit += numbers
            self.written_place += places
            self.written += [new[0] for new in written]
            self.weight += [1.0] * len(written)
            return
        for edit, new in enumerate(written, first):
            self._change(edit, start, old, new)

    def put(self, first: int, place: int, written: Sequence[tuple[str, ...]]) -> None:
        """Note that edits number ``first`` and on read all their tokens at one place, as a grid does."""
        for edit, new in enumerate(written, first):
            self._leave(edit, place)
            for token in new:
                self._write(edit, place, token, 1.0)

    def _change(self, edit: int, start: int, old: tuple[str, ...], new: tuple[str, ...]) -> None:
        if len(old) == len(new):  # paired as they stand
            for place, (left, token) in enumerate(zip(old, new, strict=True), start):
                if left != token:
                    self._leave(edit, place)
                    self._write(edit, place, token, 1.0)
            return
        shorter = min(len(old), len(new))
        head = 0
        while head < shorter and old[head] == new[head]:
            head += 1
        tail = 0
        while tail < shorter - head and old[-1 - tail] == new[-1 - tail]:
            tail += 1
        removed, added = len(old) - head - tail, len(new) - head - tail
        first = start + head
        for k in range(removed):
            self._leave(edit, first + k)
        for k in range(min(removed, added)):
            self._write(edit, first + k, new[head + k], 1.0)
        if added > removed:
            places = range(first, first + removed) if removed else range(max(first - 1, 0), first + 1)
            places = range(places.start, min(places.stop, len(self.tokens)))
            for k in range(removed, added):
                for place in places:
                    self._write(edit, place, new[head + k], 1 / len(places))

    def _leave(self, edit: int, place: int) -> None:
        if place < len(self.tokens):  # beyond is not read
            self.leaving_edit.append(edit)
            self.leaving_place.append(place)

    def _write(self, edit: int, place: int, token: str, weight: float) -> None:
        if place < len(self.tokens):
            self.written_edit.append(edit)
            self.written_place.append(place)
            self.written.append(token)
            self.weight.append(weight)

    def gains(self, gradients: np.ndarray, features: np.ndarray, table: np.ndarray, ids: dict[str, int]) -> np.ndarray:
        """gradients, features [seq feat] of the base; table [tokens feat], its rows named by ids -> [edits]."""
        here = (gradients[: len(features)] * features).sum(1)  # [seq]
        leaving = np.array(self.leaving_place, np.intp)
        gains = np.zeros(self.edits)
        gains -= np.bincount(np.array(self.leaving_edit, np.intp), weights=here[leaving], minlength=self.edits)
        tokens = list(map(ids.__getitem__, self.written))
        for start in range(0, len(tokens), _PAIRS):
            some = slice(start, start + _PAIRS)
            products = (gradients[self.written_place[some]] * table[tokens[some]]).sum(1) * self.weight[some]
            gains += np.bincount(self.written_edit[some], weights=products, minlength=self.edits)
        return _rounded(gains)


def _rounded(gains: np.ndarray) -> np.ndarray:
    largest = np.abs(gains).max(initial=0.0)
    if largest == 0:
        return np.zeros(len(gains))
    # beyond 300 the power itself overflows: a slope of 1e-300 is that of a gate all but shut
    decimals = min(SIGNIFICANT_DIGITS - 1 - int(np.floor(np.log10(largest))), 300)
    return np.round(gains * 10.0**decimals) / 10.0**decimals


def _first(index: int) -> int:
    return 0


def _is_one(tokens: tuple[str, ...]) -> bool:
    return len(tokens) == 1


def _check(sentence: Text, script: Sequence[Edit]) -> None:
    reason = sentence.malformed(tuple(script))
    if reason is not None:
        raise ValueError(f"asked about a malformed script: {reason}")
