"""The victim of an attack: answers scripts of edits on hundreds of texts at once, and does nothing else.

An attack asks about edits of a known text, so almost nothing has to be read again. A text is laid out once as one
sequence: the rows of its tokens piece by piece between blanks, or n-gram by n-gram, or its characters for a function of
texts. An edit rewrites a stretch of it, reads only that anew, and is remembered. A script is then a few joins of bytes,
and those bytes are at once the input that the artefact computes on and the key under which its answer is kept: scripts
that read alike (a typo that becomes the unknown word, a change beyond the last token the model reads) cost one
evaluation. What is left goes to the artefact in batches of similar length.

An answer does not depend on what else is in the batch: exactly so for an exact artefact; the logits of others
are rounded to five significant digits of the row's largest, so that texts which differ by nothing but the
noise of a batched float product tie, as they should.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, Protocol, runtime_checkable

import numpy as np

from grit.bench.sentence import Text
from grit.bench.text import ngram_count, ngrams, tokenize
from grit.bench.types import Artefact, Edit, Gain, MalformedInput, Script

ROWS = 512  # texts a forward pass: small enough for the cache, large enough that its overhead is spread thin
SIGNIFICANT_DIGITS = 5  # kept of the logits of an artefact that is not exact
_REMEMBERED_PIECES = 200_000  # strings and their rows, about 40 MB, then forgotten all at once
_INTERNED = 500_000  # rows of a growing table, some 500 bytes each
_LONG_KEY = 256  # bytes; longer keys are kept as their digest
_ROW_BYTES = 4


class GainSource(Protocol):
    """Where gradients come from: the float twin of the artefact."""

    def gains(self, asked: Sequence[tuple[Text, Gain, int]]) -> list[np.ndarray]:
        """For each (sentence, question, label) the first-order gains, float64 [edits]."""
        ...


@runtime_checkable
class Forgetful(Protocol):
    """An artefact whose table of tokens grows with every word it reads: one that hashes words and keeps their codes."""

    @property
    def interned(self) -> int:
        """Rows in its table now."""
        ...

    def forget(self) -> None:
        """Empty the table: rows handed out before mean nothing any more. No answer changes."""
        ...


@runtime_checkable
class OfNgrams(Protocol):
    """An artefact whose tokens may be word n-grams, so that an edit reaches a known number of words further."""

    @property
    def order(self) -> int:
        """Its tokens are the n-grams up to this order of :func:`grit.bench.text.tokenize`; 0: they are no n-grams."""
        ...


@runtime_checkable
class Worded(Protocol):
    """A source of gradients whose model knows a list of words."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The words, without the unknown one; none of a model that hashes."""
        ...


class Respondent(Protocol):
    """What the engine attacks: a :class:`Victim` or a :class:`CallableVictim`."""

    classes: int
    digest: str
    exact: bool
    vocabulary: tuple[str, ...]  # that attacks over the model's own words write from; () where it is not known

    @property
    def has_gradients(self) -> bool: ...

    @property
    def crowded(self) -> bool:
        """Whether it remembers so much that it should forget as soon as no subject is open."""
        ...

    def forget(self) -> None:
        """Drop all that was remembered; subjects opened before must not be asked again. No answer changes."""
        ...

    def open(self, sentence: Text) -> Subject:
        """Read a text, once, before the questions about it."""
        ...

    def answer(self, asked: Sequence[Asked]) -> list[np.ndarray]:
        """The logits of every prepared question, float64 [scripts classes] each, from one pooled evaluation."""
        ...

    def gains(self, asked: Sequence[tuple[Subject, Gain, int]]) -> list[np.ndarray]:
        """For each (subject, question, label) the first-order gains, float64 [edits]."""
        ...

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """A fresh evaluation of whole texts, with nothing remembered: float64 [texts classes]."""
        ...


# --- what a victim makes of one text -----------------------------------------------------------------


class Reader(Protocol):
    """Turns scripts over one text into what the model reads."""

    def read(self, scripts: Sequence[Script]) -> tuple[list[Any], bytes]:
        """One key a script (equal keys read alike) and the scripts spelled out, for a digest of what was asked.

        Raises ValueError for a script that makes no sense on the text.
        """
        ...


class Subject:
    """One text in a victim's hands, with every answer given about it so far."""

    __slots__ = ("_answers", "_known", "_reader", "classes", "sentence")

    def __init__(self, sentence: Text, reader: Reader, classes: int) -> None:
        self.sentence = sentence
        self.classes = classes
        self._reader = reader
        self._known: dict[Hashable, int] = {}  # key -> row of the answers
        self._answers = np.empty((16, classes))

    def ask(self, scripts: Sequence[Script]) -> Asked:
        """Prepare a question: find what was answered before and what must be evaluated."""
        keys, transcript = self._reader.read(scripts)
        known, start = self._known, len(self._known)
        fresh: dict[Hashable, int] = {}
        inputs: list[Any] = []
        places = []
        for key in keys:
            short = _digested(key) if isinstance(key, bytes) and len(key) > _LONG_KEY else key
            place = known.get(short)
            if place is None:
                place = fresh.get(short)
                if place is None:
                    place = fresh[short] = start + len(inputs)
                    inputs.append(key)
            places.append(place)
        return Asked(self, places, start, fresh, inputs, transcript)

    def learn(self, asked: Asked, logits: np.ndarray) -> np.ndarray:
        """Keep the logits of what was fresh; the answer to the whole question, [scripts classes]."""
        start = len(self._known)
        needed = start + len(logits)
        if needed > len(self._answers):
            grown = np.empty((max(needed, 2 * len(self._answers)), self._answers.shape[1]))
            grown[:start] = self._answers[:start]
            self._answers = grown
        self._answers[start:needed] = logits
        self._known.update(asked.fresh)
        return self._answers[asked.places]


@dataclass(frozen=True, slots=True)
class Asked:
    """A prepared question about one subject; ``inputs`` are what must be evaluated for it."""

    subject: Subject
    places: list[int]  # among the answers about the subject
    known: int  # answers there were before
    fresh: dict[Hashable, int]
    inputs: list[Any]
    transcript: bytes

    @property
    def hits(self) -> int:
        """Scripts that need no evaluation: answered before, or alike to another of this question."""
        return len(self.places) - len(self.inputs)

    def is_fresh(self, script: int) -> bool:
        """Whether script number ``script`` was not answered before this question."""
        return self.places[script] >= self.known


def _digested(key: bytes) -> bytes:
    """A long key's digest; its 17 bytes are no whole number of rows, so it is never taken for a short key."""
    return hashlib.blake2b(key, digest_size=17).digest()


def _spelled(edit: Edit) -> bytes:
    op, index, word = edit
    return f"{op} {index} {word}\x1f".encode("utf-8", "surrogatepass")


_Spliced = tuple[int, int, Any, bytes]
"""One edit, read: the places it rewrites (from, to), what stands there under it, and the edit spelled out."""


class _Layout(Protocol):
    """A text as one sequence that an edit rewrites a stretch of; what lies elsewhere reads as it did."""

    @property
    def base(self) -> Any:
        """Bytes of rows, or a string."""
        ...

    @property
    def starts(self) -> Sequence[int]:
        """Where each place begins in the base; places beyond the last begin at its end."""
        ...

    def windows(self, edits: Sequence[Edit]) -> Iterator[tuple[int, int, Any]]:
        """Of every well-formed edit the places (from, to) that it rewrites, and what stands there instead."""
        ...


class _SplicedReader:
    """Reads an edit once; a script is then a few joins. Where edits reach into one another, all is read anew."""

    def __init__(self, sentence: Text, layout: _Layout, whole: Callable[[list[str]], Any], limit: int | None) -> None:
        self._sentence = sentence
        self._layout = layout
        self._whole = whole  # segments between unknown words -> what the model reads
        self._limit = limit  # of a key; None: none
        self._empty = whole([""])
        self._edits: dict[Edit, _Spliced] = {}

    def read(self, scripts: Sequence[Script]) -> tuple[list[Any], bytes]:
        edits, base, starts, limit = self._edits, self._layout.base, self._layout.starts, self._limit
        keys = []
        spelled = []
        for script in scripts:
            try:
                if len(script) == 1:  # nearly all that is ever asked
                    first, after, rows, spelling = edits[script[0]]
                    key = base[: starts[first]] + rows + base[starts[after] :]
                    spelled.append(spelling)
                else:
                    key = self._joined(script, spelled)
            except KeyError:  # an edit never seen: read all new ones of the question together, then go on
                self._read_new(scripts)
                key = self._joined(script, spelled)
            spelled.append(b"\x1e")
            keys.append(key[:limit] or self._empty)
        return keys, b"".join(spelled)

    def _joined(self, script: Script, spelled: list[bytes]) -> Any:
        edits, base, starts = self._edits, self._layout.base, self._layout.starts
        parts: list[Any] = []
        spellings: list[bytes] = []
        place, free, apart = 0, 0, True
        for edit in script:
            first, after, rows, spelling = edits[edit]
            spellings.append(spelling)
            apart = apart and first >= free
            parts += (base[place : starts[first]], rows)
            place, free = starts[after], after
        spelled += spellings
        if not apart:
            self._check(script)
            return self._whole(self._sentence.segments(0, len(self._sentence.text), script))
        parts.append(base[place:])
        return base[:0].join(parts)

    def _read_new(self, scripts: Iterable[Script]) -> None:
        known, words = self._edits, len(self._sentence.words)
        new = list({edit: None for script in scripts for edit in script if edit not in known})
        for edit in new:
            op, index, word = edit
            if not (op == "replace" and 0 <= index < words and word.split() == [word]):
                self._check((edit,))
        for edit, window in zip(new, self._layout.windows(new), strict=True):
            known[edit] = (*window, _spelled(edit))

    def _check(self, script: Script) -> None:
        reason = self._sentence.malformed(script)
        if reason is not None:
            raise ValueError(f"asked about a malformed script: {reason}")


class _Pieces:
    """Rows piece by piece, for artefacts whose tokens never look across a blank: an edit rewrites its piece."""

    def __init__(self, sentence: Text, rows_of: Callable[[Sequence[str]], list[bytes]], unknown: bytes) -> None:
        self._sentence = sentence
        self._rows_of = rows_of
        self._unknown = unknown
        pieces = rows_of(sentence.pieces)
        self.base = b"".join(pieces)
        self.starts = [0, *accumulate(map(len, pieces))]
        self._around: dict[int, tuple[int, str, str]] = {}

    def windows(self, edits: Sequence[Edit]) -> Iterator[tuple[int, int, bytes]]:
        places: list[int] = []
        segments: list[str] = []  # of all edits; between two of one edit stands an unknown word
        counts: list[int] = []
        for edit in edits:
            if edit.op == "replace":
                piece, before, after = self._around.get(edit.index) or self._surroundings(edit.index)
                segments.append(before + edit.word + after)
                counts.append(1)
            else:
                piece = self._sentence.piece_of(edit.index)
                found = self._sentence.segments(*self._sentence.piece_spans[piece], (edit,))
                segments += found
                counts.append(len(found))
            places.append(piece)
        rows = iter(self._rows_of(segments))
        for piece, count in zip(places, counts, strict=True):
            yield piece, piece + 1, self._unknown.join(islice(rows, count))

    def _surroundings(self, index: int) -> tuple[int, str, str]:
        """The piece of a word, and what stands before and behind the word in it."""
        sentence = self._sentence
        piece = sentence.piece_of(index)
        (start, stop), (begin, end) = sentence.piece_spans[piece], sentence.spans[index]
        self._around[index] = piece, sentence.text[start:begin], sentence.text[end:stop]
        return self._around[index]


class _Ngrams:
    """Rows of the n-grams up to an order, word by word: an edit rewrites those of its piece and of the next few words.

    The n-grams of a place are those that end there (:func:`grit.bench.text.ngrams`); none reaches over an unknown word.
    """

    def __init__(
        self, sentence: Text, rows_of: Callable[[Sequence[Sequence[str]]], list[bytes]], unknown: bytes, order: int
    ) -> None:
        self._sentence = sentence
        self._rows_of = rows_of
        self._unknown = unknown
        self._order = order
        pieces = [tokenize(piece) for piece in sentence.pieces]
        self._tokens = [token for piece in pieces for token in piece]
        self._places = [0, *accumulate(map(len, pieces))]  # of the first word of each piece
        (self.base,) = rows_of([ngrams(self._tokens, order)])
        words = len(self._tokens)
        self.starts = [_ROW_BYTES * ngram_count(min(place, words), order) for place in range(words + order)]

    def windows(self, edits: Sequence[Edit]) -> Iterator[tuple[int, int, bytes]]:
        reach = self._order - 1
        found: list[list[str]] = []  # of all edits; between two of one edit stands an unknown word
        shapes: list[tuple[int, int, int]] = []
        for edit in edits:
            piece = self._sentence.piece_of(edit.index)
            segments = self._sentence.segments(*self._sentence.piece_spans[piece], (edit,))
            first, after = self._places[piece], self._places[piece + 1]
            before = self._tokens[max(0, first - reach) : first]
            runs = [tokenize(segment) for segment in segments]
            runs[0] = before + runs[0]
            runs[-1] = runs[-1] + self._tokens[after : after + reach]
            grams = [ngrams(run, self._order) for run in runs]
            del grams[0][: ngram_count(len(before), self._order)]
            found += grams
            shapes.append((first, after + reach, len(grams)))
        rows = iter(self._rows_of(found))
        for first, after, count in shapes:
            yield first, after, self._unknown.join(islice(rows, count))


class _Characters:
    """The text itself, for functions of texts: an edit rewrites its span."""

    def __init__(self, sentence: Text, unknown: str) -> None:
        self._sentence = sentence
        self._unknown = unknown
        self.base = sentence.text
        self.starts = range(len(sentence.text) + 1)

    def windows(self, edits: Sequence[Edit]) -> Iterator[tuple[int, int, str]]:
        end = len(self.base)
        for op, index, word in edits:
            if op != "insert":
                yield (
                    *self._sentence.spans[index],
                    self._unknown if op == "unknown" else word if op == "replace" else "",
                )
            elif index < len(self._sentence.words):
                begin = self._sentence.spans[index][0]
                yield begin, begin, word + " "
            else:
                yield end, end, " " + word if self.base else word


class _WholeReader:
    """Reads the whole text anew under every script: for models that look across blanks, nobody knows how far."""

    def __init__(self, sentence: Text, key: Callable[[list[str]], Any]) -> None:
        self._sentence = sentence
        self._key = key  # segments between unknown words -> what the model reads

    def read(self, scripts: Sequence[Script]) -> tuple[list[Any], bytes]:
        keys = []
        spelled = []
        for script in scripts:
            reason = self._sentence.malformed(script)
            if reason is not None:
                raise ValueError(f"asked about a malformed script: {reason}")
            keys.append(self._key(self._sentence.segments(0, len(self._sentence.text), script)))
            spelled += [*map(_spelled, script), b"\x1e"]
        return keys, b"".join(spelled)


# --- victims ----------------------------------------------------------------------------------------


class Victim:
    """An exported artefact under attack, and its float twin where gradients are asked for.

    ``rows`` texts go through one forward pass; no answer depends on it.
    """

    def __init__(self, artefact: Artefact, twin: GainSource | None = None, *, rows: int = ROWS) -> None:
        self.classes = artefact.classes
        self.digest = artefact.digest
        self.exact = artefact.exact
        self.vocabulary: tuple[str, ...] = twin.vocabulary if isinstance(twin, Worded) else ()
        self._artefact = artefact
        self._twin = twin
        self._rows = rows
        self._pieces: dict[str, bytes] = {}
        self._unknown = np.asarray(artefact.intern([""]), np.int32).tobytes()
        # Looked up once: to ask a protocol of an object takes longer than to read a short text.
        self._forgetful = artefact if isinstance(artefact, Forgetful) else None
        self._order = artefact.order if isinstance(artefact, OfNgrams) else 0

    @property
    def has_gradients(self) -> bool:
        return self._twin is not None

    @property
    def crowded(self) -> bool:
        return self._forgetful is not None and self._forgetful.interned > _INTERNED

    def forget(self) -> None:
        self._pieces.clear()
        if self._forgetful is not None:
            self._forgetful.forget()
            self._unknown = np.asarray(self._artefact.intern([""]), np.int32).tobytes()

    def open(self, sentence: Text) -> Subject:
        return Subject(sentence, self._reader(sentence), self.classes)

    def _reader(self, sentence: Text) -> Reader:
        limit = self._artefact.max_tokens * _ROW_BYTES
        if self._artefact.separable:
            return _SplicedReader(sentence, _Pieces(sentence, self._remembered, self._unknown), self._input, limit)
        if self._order:
            layout = _Ngrams(sentence, self._interned, self._unknown, self._order)
            return _SplicedReader(sentence, layout, self._input, limit)
        return _WholeReader(sentence, self._input)

    def answer(self, asked: Sequence[Asked]) -> list[np.ndarray]:
        return _pooled(asked, self._forward)

    def gains(self, asked: Sequence[tuple[Subject, Gain, int]]) -> list[np.ndarray]:
        if self._twin is None:
            raise ValueError("this victim has no gradients: score the edits instead")
        return self._twin.gains([(subject.sentence, question, label) for subject, question, label in asked])

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        return self._forward([self._input([text]) for text in texts])

    def _input(self, segments: Sequence[str]) -> bytes:
        rows = self._unknown.join(self._read(segments))
        return rows[: self._artefact.max_tokens * _ROW_BYTES] or self._unknown

    def _remembered(self, pieces: Sequence[str]) -> list[bytes]:
        known = self._pieces
        new = [piece for piece in dict.fromkeys(pieces) if piece not in known]
        if new:
            if len(known) + len(new) > _REMEMBERED_PIECES:
                known.clear()
                new = list(dict.fromkeys(pieces))
            known.update(zip(new, self._read(new), strict=True))
        return [known[piece] for piece in pieces]

    def _read(self, strings: Sequence[str]) -> list[bytes]:
        """The rows of each string, as bytes; none where an artefact says the string reads as an empty text."""
        tokenize = self._artefact.tokenize
        return self._interned([[] if (found := tokenize(string)) == [""] else found for string in strings])

    def _interned(self, tokens: Sequence[Sequence[str]]) -> list[bytes]:
        """The rows of each list of tokens, as bytes."""
        flat = [token for found in tokens for token in found]
        if not flat:
            return [b""] * len(tokens)
        rows = np.asarray(self._artefact.intern(flat), np.int32).tobytes()
        cut = []
        start = 0
        for found in tokens:
            stop = start + len(found) * _ROW_BYTES
            cut.append(rows[start:stop])
            start = stop
        return cut

    def _forward(self, inputs: Sequence[bytes]) -> np.ndarray:
        logits = np.empty((len(inputs), self.classes))
        lengths = np.array([len(rows) for rows in inputs], np.int64) // _ROW_BYTES
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), self._rows):
            chosen = order[start : start + self._rows]
            width = int(lengths[chosen[-1]]) * _ROW_BYTES
            batch = bytearray().join([inputs[i].ljust(width, b"\0") for i in chosen.tolist()])
            rows = np.frombuffer(batch, np.int32).reshape(len(chosen), -1)
            logits[chosen] = _checked(self._artefact.logits(rows, lengths[chosen]), len(chosen), self.classes)
        return logits if self.exact else settled(logits)


class CallableVictim:
    """Any function from texts to logits under attack: always read as whole texts, without gradients.

    ``name`` says what it is (``module:function``) and is all its digest knows. An unknown word is read as the
    string ``unknown``, since a function of texts has no other way to be shown one.
    """

    exact = False
    has_gradients = False
    vocabulary: tuple[str, ...] = ()
    crowded = False  # it remembers nothing

    def __init__(
        self,
        function: Callable[[list[str]], Any],
        *,
        name: str,
        classes: int,
        unknown: str = "[UNK]",
        rows: int = ROWS,
    ) -> None:
        self.classes = classes
        self.digest = hashlib.sha256(f"callable\0{name}\0{unknown}".encode()).hexdigest()
        self.name = name
        self._function = function
        self._unknown = unknown
        self._rows = rows

    def open(self, sentence: Text) -> Subject:
        layout = _Characters(sentence, self._unknown)
        return Subject(sentence, _SplicedReader(sentence, layout, self._unknown.join, None), self.classes)

    def answer(self, asked: Sequence[Asked]) -> list[np.ndarray]:
        return _pooled(asked, self.logits)

    def forget(self) -> None:
        """There is nothing to forget."""

    def gains(self, asked: Sequence[tuple[Subject, Gain, int]]) -> list[np.ndarray]:
        raise ValueError("a callable has no gradients: score the edits instead")

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        logits = np.empty((len(texts), self.classes))
        for start in range(0, len(texts), self._rows):
            batch = list(texts[start : start + self._rows])
            logits[start : start + len(batch)] = _checked(self._function(batch), len(batch), self.classes, self.name)
        return settled(logits)


def settled(logits: np.ndarray) -> np.ndarray:
    """Logits rounded to five significant decimal digits of the largest of their row, [batch classes]."""
    largest = np.abs(logits).max(axis=1, keepdims=True, initial=0.0)
    with np.errstate(divide="ignore"):
        magnitude = np.floor(np.log10(largest))
    scale = np.power(10.0, SIGNIFICANT_DIGITS - 1 - np.where(largest > 0, magnitude, 0.0))
    return np.round(logits * scale) / scale


def _pooled(asked: Sequence[Asked], forward: Callable[[Sequence[Any]], np.ndarray]) -> list[np.ndarray]:
    inputs = [each for question in asked for each in question.inputs]
    logits = forward(inputs) if inputs else np.empty((0, 0))
    answers = []
    start = 0
    for question in asked:
        stop = start + len(question.inputs)
        fresh = logits[start:stop] if question.inputs else np.empty((0, question.subject.classes))
        answers.append(question.subject.learn(question, fresh))
        start = stop
    return answers


def _checked(logits: Any, texts: int, classes: int, name: str = "the model") -> np.ndarray:
    """Logits as a float64 array, or one line about what is wrong with them."""
    found = np.asarray(logits, np.float64)
    if found.shape != (texts, classes):
        raise MalformedInput(
            f"{name} answered {texts} texts with an array {list(found.shape)}; expected [{texts} {classes}] logits"
        )
    if not np.isfinite(found).all():
        raise MalformedInput(f"{name} answered with NaN or infinite logits; check its weights")
    return found
