"""HotFlip: the white-box search. One gradient ranks every candidate of every word; the best are scored.

Ebrahimi, Rao, Lowd, Dou: "HotFlip: White-Box Adversarial Examples for Text Classification", ACL 2018. The gain
of writing word w at place i is grad_i . (features(w) - features(x_i)), over whatever the model's feature cut
is: an embedding row or a hash projection, a synonym or a typo. Tiers: ``strong``, the suite's, over words;
``paper``, the character level of sections 3 and 4 by the same formula; ``words``, the word level of section 5;
``textattack``, what TextAttack 0.3.11 makes of that, with its places that are not aligned with the tokens.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from grit.attacks import _textattack
from grit.attacks._search import Broken, Search, Steps, extended, options
from grit.bench.types import CouldNotMeasure, Edit, Gain, Grid, Question, Script, Sentence, Threat

_STRONG = Threat(spaces=("synonyms", "typos"))
_UNLIMITED = 10_000_000  # queries
_PAPER = Threat(spaces=("characters",), max_words=1.0, protect_stop_words=False, max_queries=_UNLIMITED)
_WORDS = Threat(spaces=("vocabulary",), max_words=1.0, max_queries=_UNLIMITED)
_MOST_WORDS, _COSINE = 2, 0.8  # section 5: words changed, and similarity to the word written over
_AT_ONCE = 1 << 18  # of its candidates in one question: 2 MB of gains a text


@dataclass(frozen=True)
class HotFlip:
    """First-order gains propose, scores decide.

    beam_width, top: scripts kept, and candidates of each that are scored (paper: a beam of 10).
    sweep_share: of the query budget, for single words in the strong tier, in the order of their gains.
    pool: candidates of single words that are ranked again for every script of the beam.
    max_characters: share of the characters of the text that the paper tier may change (section 4.3: 10 %).
    embedding: of the words and textattack tiers, an .npz file with the arrays ``words`` and ``vectors``, by which
        words are compared with those they are written over. The paper takes the vectors of its model, TextAttack
        counter-fitted ones, which it fetches.
    """

    threat: Threat = _STRONG
    tier: str = "strong"
    beam_width: int = 10
    top: int = 50
    sweep_share: float = 0.5
    pool: int = 1000
    max_characters: float = 0.1
    embedding: str = ""

    tiers: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "strong": {},
        "paper": {"tier": "paper", "threat": _PAPER, "top": 10},
        "words": {"tier": "words", "threat": _WORDS, "top": 10},
        "textattack": {"tier": "textattack", "threat": _WORDS},
    }

    def __post_init__(self) -> None:
        """A path is told from a file that is known already: names and records hold the digest of what it holds."""
        if self.embedding and not isinstance(self.embedding, _textattack.VectorFile):
            object.__setattr__(self, "embedding", _textattack.VectorFile.at(self.embedding))

    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        if self.tier == "textattack":
            return (yield from self._textattack(sentence, label))
        search = Search(sentence, label)
        searches = {"strong": self._strong, "paper": self._paper, "words": self._words}
        try:
            yield from searches[self.tier](search)
        except Broken as found:
            return found.script
        return ()

    def _strong(self, search: Search) -> Steps:
        """Every word alone, by gain; the best together; a beam whose growth gradients propose; exchanges."""
        sentence = search.sentence
        candidates = options(sentence)
        yield from search.begin(())
        edits = [edit for of_site in candidates.values() for edit in of_site]
        if not edits:
            return
        gains = yield Gain((), edits)
        by_gain = _distinct(edits[: len(gains)], gains)
        yield from search.sweep(by_gain[: int(self.sweep_share * self.threat.max_queries)])
        if sentence.max_edits < 2:
            return
        ranked = search.ranked()
        yield from search.additive(ranked)
        singles: list[Script] = [(edit,) for edit in ranked[: self.beam_width]]
        yield from self._beam(search, singles, ranked[: self.pool], sentence.max_edits - 1)
        kept: dict[int, list[Edit]] = {}
        for edit in ranked:
            kept.setdefault(edit.index, []).append(edit)
        yield from search.exchange(kept, ranked, self.top)

    def _beam(self, search: Search, scripts: list[Script], pool: list[Edit], steps: int) -> Steps:
        """Grow every script by those edits of a pool that gain most on top of it; keep the best by score."""
        for _ in range(steps):
            grown: dict[Script, None] = {}
            for script in scripts:
                taken = {edit.index for edit in script}
                free = [edit for edit in pool if edit.index not in taken]
                if free:
                    gains = yield Gain(script, free)
                    grown.update((extended(script, free[i]), None) for i in _first(gains, self.top))
            asked = list(grown)
            found = yield from search.ask(asked)
            scripts = [asked[i] for i in _first(found, self.beam_width)]

    def _paper(self, search: Search) -> Steps:
        """Flips, insertions and deletions of characters, the same word more than once if that gains most.

        Of words not yet changed, the ``pool`` best of the first gradient are ranked again at every step.
        """
        sentence = search.sentence
        yield from search.begin(())
        single = [
            Edit("replace", site, word)
            for site, original in enumerate(sentence.words)
            if sentence.candidates(site)
            for word in _one_character(sentence, original)
        ]
        if not single:
            return
        gains = yield Gain((), single)
        pool = [single[i] for i in _first(gains, self.pool)]
        scripts: list[Script] = [()]
        for _ in range(max(1, int(self.max_characters * len(sentence.text)))):
            grown: dict[Script, None] = {}
            for script in scripts:
                written = {edit.index: edit.word for edit in script}
                edits = [edit for edit in pool if edit.index not in written]
                for site, changed in written.items():
                    again = _one_character(sentence, changed)
                    edits += [Edit("replace", site, word) for word in again if word != sentence.words[site]]
                gains = yield Gain(script, edits)
                grown.update((extended(script, edits[i]), None) for i in _first(gains, self.top))
            asked = list(grown)
            found = yield from search.ask(asked)
            scripts = [asked[i] for i in _first(found, self.beam_width)]

    def _words(self, search: Search) -> Steps:
        """One or two words for others of the vocabulary: near in meaning, of the same part of speech, no stop words."""
        sentence = search.sentence
        vectors, vocabulary = self._resources(sentence)
        yield from search.begin(())
        known = frozenset(vocabulary)
        pool = [
            Edit("replace", site, word)
            for site, original in enumerate(sentence.words)
            if not sentence.protected(site)
            for word in vectors.nearest(original, _COSINE)
            if word in known and _textattack.same_part_of_speech(sentence.words, site, word)
        ]
        yield from self._beam(search, [()], pool, _MOST_WORDS)

    def _resources(self, sentence: Sentence) -> tuple[_textattack.Vectors, list[str]]:
        """Word vectors and the words to write; raises CouldNotMeasure for what is missing, before anything is asked."""
        if not isinstance(self.embedding, _textattack.VectorFile):
            raise CouldNotMeasure(
                f"hotflip.{self.tier} compares words by their vectors, and was given none; {_textattack.GIVE_VECTORS}"
            )
        vectors = _textattack.vectors(self.embedding)
        _textattack.need_tagger()
        vocabulary = _textattack.writable(tuple(sentence.vocabulary))
        if not vocabulary:
            raise CouldNotMeasure(f"hotflip.{self.tier} writes words of the model's vocabulary, and was given none")
        return vectors, vocabulary

    def _textattack(self, sentence: Sentence, label: int) -> Generator[Question, np.ndarray, Script]:
        """The one best candidate of the whole text, then the constraints: the first that fails them ends the search.

        With a single candidate a step, its beam of ten never holds more than one text.
        """
        vectors, vocabulary = self._resources(sentence)
        yield from _textattack.scores([()], label)
        script: Script = ()
        while True:
            free = _textattack.modifiable(sentence, [edit.index for edit in script])
            edit, most = None, -np.inf
            some = max(1, _AT_ONCE // len(vocabulary))
            for first in range(0, len(free), some):
                edits = Grid(free[first : first + some], vocabulary)
                gains = yield Gain(script, edits, aligned=False)
                if gains.max(initial=-np.inf) > most:
                    edit, most = edits[int(gains.argmax())], gains.max()
            if edit is None:
                return script
            before, written = sentence.words[edit.index], _textattack.reads(edit.word)
            changed = [
                other for other in (*script, edit) if _textattack.reads(other.word) != sentence.words[other.index]
            ]
            if (
                edit.word == before
                or len(changed) > _MOST_WORDS
                or not vectors.near(before, written, _COSINE)
                or not _textattack.same_part_of_speech(sentence.words, edit.index, written)
            ):
                return script
            script = extended(script, edit)
            found = yield from _textattack.scores([script], label)
            if found.predicted[0] != label:
                return script


def _distinct(edits: list[Edit], gains: np.ndarray) -> list[Edit]:
    """Edits by falling gain; of those of one word with one gain to the last bit, which read alike, the first."""
    sites = np.array([edit.index for edit in edits])
    order = np.lexsort((sites, -gains))
    sites, gains = sites[order], gains[order]
    same = (sites[1:] == sites[:-1]) & (gains[1:] == gains[:-1])
    return [edits[i] for i in order[np.concatenate(([True], ~same))].tolist()]


def _first(values: np.ndarray, count: int) -> list[int]:
    """The places of the largest values, the earlier one among equals."""
    return np.argsort(-values, kind="stable")[:count].tolist()


def _one_character(sentence: Sentence, word: str) -> list[str]:
    """Words one flip, insertion or deletion away: no transpositions, which are two flips."""
    return [
        typo
        for typo in sentence.typos(word)
        if len(typo) != len(word) or sum(a != b for a, b in zip(typo, word, strict=True)) == 1
    ]
