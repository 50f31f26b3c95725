"""PWWS: synonyms, the words ranked by how much they matter times how well they can be replaced.

Ren, Deng, He, Che: "Generating Natural Language Adversarial Examples through Probability Weighted Word
Saliency", ACL 2019. Tiers: ``strong``, the suite's; ``paper``, its section 3; ``textattack``, what
TextAttack 0.3.11 does under this name, with its own reading of the score.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from grit.attacks import _textattack
from grit.attacks._search import LOOK, Broken, Search, Steps, logits_of, options
from grit.bench.types import Edit, Question, Script, Sentence, Threat

_UNLIMITED = 10_000_000  # queries; neither the paper nor TextAttack stops before the words end

_STRONG = Threat(spaces=("synonyms",))


@dataclass(frozen=True)
class Pwws:
    """Probability weighted word saliency.

    beam_width, beam_top: of the strong tier's last stage, as in the suite's HotFlip (Ebrahimi et al. use a
        beam of 10).
    """

    threat: Threat = _STRONG
    tier: str = "strong"
    beam_width: int = 10
    beam_top: int = 50

    tiers: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "strong": {},
        "paper": {
            "tier": "paper",
            "threat": Threat(
                spaces=("synonyms_same_pos",), max_words=1.0, protect_stop_words=False, max_queries=_UNLIMITED
            ),
        },
        "textattack": {
            "tier": "textattack",
            "threat": Threat(spaces=("lemmas",), max_words=1.0, max_queries=_UNLIMITED),
        },
    }

    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        if self.tier == "textattack":
            return (yield from self._textattack(sentence, label))
        if self.tier == "paper":
            return (yield from self._paper(sentence, label))
        try:
            yield from self._strong(sentence, label)
        except Broken as found:
            return found.script
        return ()

    def _strong(self, sentence: Sentence, label: int) -> Steps:
        """Every synonym alone; the best together; PWWS's greedy walk by margin; a beam; exchanges at its end."""
        search = Search(sentence, label)
        synonyms = options(sentence)
        saliency = yield from search.begin(synonyms, self.threat.max_queries // LOOK)
        by_saliency = sorted(synonyms, key=lambda site: -saliency[site])
        yield from search.sweep([edit for site in by_saliency for edit in synonyms[site]])
        if sentence.max_edits < 2:
            return
        ranked = search.ranked()
        yield from search.additive(ranked)
        weight = _weights(search, synonyms, saliency)
        yield from search.greedy(sorted(synonyms, key=lambda site: -weight[site]), synonyms)
        yield from search.beam(ranked, self.beam_width, self.beam_top)
        yield from search.exchange(synonyms, ranked, self.beam_top)

    def _paper(self, sentence: Sentence, label: int) -> Generator[Question, np.ndarray, Script]:
        """Section 3: w* of each word fixed on the original text, written in the order of H until the label flips.

        A step that does not help is taken all the same. The paper zeroes a word's vector for its saliency; here
        the word is read as unknown. The paper's swaps of named entities, which need a recogniser with types, are left
        out; what that may miss was counted: .github/decisions/pwws-named-entities.md.
        """
        words = range(len(sentence.words))
        logits = yield from logits_of([(), *((Edit("unknown", index),) for index in words)])
        gold = _softmax(logits)[:, label]
        saliency = dict(zip(words, gold[0] - gold[1:], strict=True))
        order = []
        shares = _softmax(np.array([list(saliency.values())]))[0] if saliency else np.empty(0)
        for index, edits in options(sentence).items():
            logits = yield from logits_of([(edit,) for edit in edits])
            rises = gold[0] - _softmax(logits)[:, label]
            best = int(rises.argmax())
            order.append((-shares[index] * rises[best], index, edits[best]))
        script: Script = ()
        for _, _, edit in sorted(order):
            script = tuple(sorted((*script, edit)))
            logits = yield from logits_of([script])
            if logits[0].argmax() != label:
                break
        return script

    def _textattack(self, sentence: Sentence, label: int) -> Generator[Question, np.ndarray, Script]:
        """TextAttack's reading: the ranking multiplies saliency by the best *score*, not by its rise."""
        initial = yield from _textattack.scores([()], label)
        indices = _textattack.modifiable(sentence)
        unknown = yield from _textattack.scores(_textattack.without(indices), label)
        groups = [_textattack.candidates(sentence, (), index, sentence.candidates(index)) for index in indices]
        found = yield from _textattack.scores_of_each(groups, label)
        best = [each.score.max() if len(each.score) else 0.0 for each in found]
        order = _textattack.ranked(indices, _textattack.softmax32(unknown.score) * np.array(best))
        return (yield from _textattack.greedy(sentence, label, float(initial.score[0]), order, sentence.candidates))


def _weights(search: Search, synonyms: Mapping[int, list[Edit]], saliency: Mapping[int, float]) -> dict[int, float]:
    """softmax(saliency) times the best gain a site, with saliencies over the largest, so that no scale matters."""
    largest = max((abs(value) for value in saliency.values()), default=0.0) or 1.0
    share = _softmax(np.array([[saliency[site] / largest for site in synonyms]]))[0] if synonyms else np.empty(0)
    best = {site: max(search.gains[edit] for edit in edits) for site, edits in synonyms.items()}
    return {site: float(share[place]) * best[site] for place, site in enumerate(synonyms)}


def _softmax(rows: np.ndarray) -> np.ndarray:
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
