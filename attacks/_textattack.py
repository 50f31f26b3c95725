"""How TextAttack 0.3.11 searches, where its outcome depends on it: scores, order of words and of candidates.

Its greedy search by word importance ranks the words that are no stop words, walks them in that order and
takes the best candidate of each if it beats the text so far, testing success on that one only. Ties are
decided by the order of texts, of a Python set of integers and of numpy's default sort: all are repeated here.
Its HotFlip is another search, with two constraints on words that stand at the end.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Generator, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from grit.attacks._search import logits_of
from grit.bench.types import CouldNotMeasure, Edit, Question, Script, Sentence

UNKNOWN = "[UNK]"  # a literal string to the victim, whatever its own unknown word is


class Scores(NamedTuple):
    score: np.ndarray  # [scripts] 1 - P(gold)
    predicted: np.ndarray  # [scripts]


def scores(scripts: Sequence[Script], label: int) -> Generator[Question, np.ndarray, Scores]:
    """The score of each script."""
    (found,) = yield from scores_of_each([scripts], label)
    return found


def scores_of_each(groups: Sequence[Sequence[Script]], label: int) -> Generator[Question, np.ndarray, list[Scores]]:
    """As :func:`scores` of every group, in one question: TextAttack asks group by group, and looks at them apart."""
    scripts = [script for group in groups for script in group]
    outputs = (yield from logits_of(scripts)) if scripts else np.empty((0, label + 1))
    ends = np.cumsum([len(group) for group in groups]).tolist()
    return [_scores(outputs[end - len(group) : end], label) for group, end in zip(groups, ends, strict=True)]


def _scores(outputs: np.ndarray, label: int) -> Scores:
    """Rows that already sum to one, all of a group, are taken for probabilities, as TextAttack does."""
    if not (np.abs(outputs.sum(axis=1) - 1) < 1e-6).all():
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        outputs = powers / powers.sum(axis=1, keepdims=True)
    return Scores(1 - outputs[:, label], outputs.argmax(axis=1))


def modifiable(sentence: Sentence, changed: Collection[int] = ()) -> list[int]:
    """The words that are no stop words and not ``changed``, in the order in which the set of them is walked.

    That order is not ascending for long texts, and the sort that follows is not stable, so the set is made by
    the same three operations: all words, without the changed ones, without the stop words.
    """
    every = set(range(len(sentence.words)))
    free = set()
    for index in range(len(sentence.words)):
        if not sentence.protected(index):
            free.add(index)
    return list((every & (every - set(changed))) & free)


def without(indices: Sequence[int]) -> list[Script]:
    """For every word the text with ``[UNK]`` in its place."""
    return [(Edit("replace", index, UNKNOWN),) for index in indices]


def ranked(indices: Sequence[int], importance: np.ndarray) -> list[int]:
    """Most important first; equal ones as numpy's default, unstable sort leaves them."""
    return [indices[i] for i in (-importance).argsort().tolist()]


def softmax32(values: np.ndarray) -> np.ndarray:
    """Softmax in single precision, [words]."""
    if not len(values):
        return np.empty(0, np.float32)
    single = values.astype(np.float32)
    powers = np.exp(single - single.max())
    return np.asarray(powers / powers.sum(dtype=np.float32))


def candidates(sentence: Sentence, script: Script, index: int, words: Sequence[str]) -> list[Script]:
    """``script`` and each replacement of word ``index``, in the order of the resulting texts, without doubles."""
    before = tuple(edit for edit in script if edit.index < index)
    after = tuple(edit for edit in script if edit.index > index)
    distinct = sorted({word for word in words if word != sentence.words[index]})
    # Texts that differ in one word are ordered by that word; what follows it decides where one begins another.
    if any(later.startswith(word) for word, later in pairwise(distinct)):
        rest = sentence.apply((*before, Edit("replace", index, "\0"), *after)).partition("\0")[2]
        distinct.sort(key=lambda word: word + rest)
    return [(*before, Edit("replace", index, word), *after) for word in distinct]


def greedy(
    sentence: Sentence, label: int, score: float, order: Sequence[int], words: Callable[[int], Sequence[str]]
) -> Generator[Question, np.ndarray, Script]:
    """Word by word: the candidate with the highest score, first in order of text among equals, if strictly better."""
    script: Script = ()
    for index in order:
        scripts = candidates(sentence, script, index, words(index))
        scripts = [each for each in scripts if sentence.allows(each)]
        found = yield from scores(scripts, label)
        if not scripts:
            continue
        best = int(found.score.argmax())
        if found.score[best] > score:
            script, score = scripts[best], float(found.score[best])
            if found.predicted[best] != label:
                break
    return script


# --- constraints of its HotFlip ------------------------------------------------------------------------

_LETTER = re.compile("[A-Za-z]")
_RUN = re.compile(r"[\w'\-*@\u02D7\u0060\u00D7]+")  # of the characters of a word, as a Sentence cuts it
_BEFORE, _BEHIND = 4, 3  # words of context that its tagger sees


@lru_cache(maxsize=4)
def writable(words: tuple[str, ...]) -> list[str]:
    """Of a vocabulary, what it writes: strings that hold a letter and read as one word."""
    return [word for word in words if _LETTER.search(word) and len(_runs(word)) == 1]


def reads(word: str) -> str:
    """What of a written string is read as its word: ``wrap`` of ``"wrap``."""
    return _runs(word)[0]


def _runs(word: str) -> list[str]:
    return [run for found in _RUN.findall(word) if (run := found.strip("'-_*@"))]


GIVE_VECTORS = "give hotflip.TIER[embedding=FILE.npz] a file with the arrays words [words] and vectors [words feat]"


class VectorFile(str):
    """A file of word vectors by what names and records hold of it: its stem and its digest, not where it lies."""

    path: Path

    @classmethod
    def at(cls, path: str) -> VectorFile:
        """The file as it is now. Raises CouldNotMeasure; no file but an .npz is opened, since records name it too."""
        place = Path(path).resolve()
        if place.suffix != ".npz" or not place.is_file():
            raise CouldNotMeasure(f"{path!r} is no file of word vectors here; {GIVE_VECTORS}")
        with place.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        found = cls(f"{place.stem}-{digest[:16]}")
        found.path = place
        return found


class Vectors:
    """Word vectors from an .npz file with the arrays ``words`` [words] and ``vectors`` [words feat]."""

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                words, self._vectors = file["words"].tolist(), file["vectors"]
        except (OSError, ValueError, KeyError) as error:
            raise CouldNotMeasure(f"no word vectors can be read from {path} ({error}); {GIVE_VECTORS}") from error
        self._words = words
        self._rows = {word: row for row, word in enumerate(words)}

    def near(self, word: str, other: str, cosine: float) -> bool:
        """Whether two words, in lower case, are as near as that; words without a vector are near to all."""
        a, b = self._rows.get(word.lower()), self._rows.get(other.lower())
        if a is None or b is None:
            return True
        first, second = self._vectors[a], self._vectors[b]
        norms = np.linalg.norm(first) * np.linalg.norm(second)
        return bool(first @ second >= cosine * norms)

    def nearest(self, word: str, cosine: float) -> list[str]:
        """The other words as near as that, the nearest first; none for a word without a vector."""
        row = self._rows.get(word.lower())
        if row is None:
            return []
        products = self._vectors @ self._vectors[row]
        shares = products / np.maximum(self._norms * self._norms[row], 1e-30)
        rows = np.argsort(-shares, kind="stable")[: int((shares >= cosine).sum())]
        return [self._words[other] for other in rows.tolist() if other != row]

    @cached_property
    def _norms(self) -> np.ndarray:
        return np.linalg.norm(self._vectors, axis=1)


@lru_cache(maxsize=4)
def vectors(file: VectorFile) -> Vectors:
    """Read once a process."""
    return Vectors(file.path)


def same_part_of_speech(words: Sequence[str], index: int, written: str) -> bool:
    """Whether nltk's universal tags of both words agree in their place; a noun may stand for a verb and back."""
    before, behind = tuple(words[max(index - _BEFORE, 0) : index]), tuple(words[index + 1 : index + 1 + _BEHIND])
    tags = {_tag(before, word, behind) for word in (words[index], written)}
    return len(tags) == 1 or tags == {"NOUN", "VERB"}


@lru_cache(maxsize=1 << 14)
def _tag(before: tuple[str, ...], word: str, behind: tuple[str, ...]) -> str:
    """The tag of a word in its context; of the first such word there, as it looks it up."""
    try:
        import nltk

        tagged = nltk.pos_tag([*before, word, *behind], tagset="universal")
    except (ImportError, LookupError) as error:
        raise CouldNotMeasure(
            "this tier of hotflip needs nltk's tagger, which is not where NLTK_DATA points; run "
            "python -m nltk.downloader averaged_perceptron_tagger_eng universal_tagset"
        ) from error
    return dict(reversed(tagged))[word]


def need_tagger() -> None:
    """Raise CouldNotMeasure, before anything is asked, where the tagger is missing."""
    _tag((), "word", ())
