"""How TextAttack 0.3.11 searches, where its outcome depends on it: scores, order of words and of candidates.

Its greedy search by word importance ranks the words that are no stop words, walks them in that order and
takes the best candidate of each if it beats the text so far, testing success on that one only. Ties are
decided by the order of texts, of a Python set of integers and of numpy's default sort: all are repeated here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np

from grit.bench.types import Edit, Question, Score, Script, Sentence

UNKNOWN = "[UNK]"  # a literal string to the victim, whatever its own unknown word is


class Scores(NamedTuple):
    score: np.ndarray  # [scripts] 1 - P(gold)
    predicted: np.ndarray  # [scripts]


def scores(scripts: Sequence[Script], label: int) -> Generator[Question, np.ndarray, Scores]:
    """The score of each script; rows that already sum to one are taken for probabilities, as TextAttack does."""
    if not scripts:
        return Scores(np.empty(0), np.empty(0, np.intp))
    outputs = yield Score(scripts)
    if not (np.abs(outputs.sum(axis=1) - 1) < 1e-6).all():
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        outputs = powers / powers.sum(axis=1, keepdims=True)
    return Scores(1 - outputs[:, label], outputs.argmax(axis=1))


def modifiable(sentence: Sentence) -> list[int]:
    """The words that are no stop words, in the order in which the set of them is walked.

    That order is not ascending for long texts, and the sort that follows is not stable, so the set is made by
    the same three operations: all words, without the (no) changed ones, without the stop words.
    """
    every = set(range(len(sentence.words)))
    free = set()
    for index in range(len(sentence.words)):
        if not sentence.protected(index):
            free.add(index)
    return list((every & (every - set())) & free)


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
    # Texts that differ in one word are ordered by that word and what follows it.
    rest = sentence.apply((*before, Edit("replace", index, "\0"), *after)).partition("\0")[2]
    distinct = dict.fromkeys(word for word in words if word != sentence.words[index])
    return [(*before, Edit("replace", index, word), *after) for word in sorted(distinct, key=lambda word: word + rest)]


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
