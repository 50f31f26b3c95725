"""DeepWordBug: typos in the words that matter most, found without gradients.

Gao, Lanchantin, Soffa, Qi: "Black-box Generation of Adversarial Text Sequences to Evade Deep Learning
Classifiers", 2018. Tiers: ``strong``, the suite's; ``paper``, sections III-B and III-C with the authors' code
where they leave a choice; ``textattack``, what TextAttack 0.3.11 does under this name.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from string import ascii_letters
from typing import Any, ClassVar, Literal

import numpy as np

from grit.attacks import _textattack
from grit.attacks._search import LOOK, Broken, Search, Steps, extended, logits_of, options
from grit.bench.types import Edit, Question, Script, Sentence, Threat

_UNLIMITED = 10_000_000  # queries

# Letters and others that look like them, by Unicode's list of confusables: Cyrillic, Armenian, Greek, IPA.
_LOOK_ALIKE = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyzABCEHIJKMNOPSTXYZ",
        "\u0430\u044c\u0441\u0501\u0435\u0192\u0261\u04bb\u0456\u0458\u043a\u04cf\u217f\u0578\u043e\u0440\u051b"
        "\u0433\u0455\u03c4\u057d\u0475\u051d\u0445\u0443\u1d22"
        "\u0410\u0412\u0421\u0415\u041d\u0406\u0408\u041a\u041c\u039d\u041e\u0420\u0405\u0422\u0425\u04ae\u0396",
        strict=True,
    )
)

_STRONG = Threat(spaces=("typos",))


@dataclass(frozen=True)
class DeepWordBug:
    """Rank the words, misspell the first.

    sweep_share: of the query budget, for typos of single words in the strong tier; what exceeds it is swept on
        the best words only. The rest of the budget joins them.
    beam_width, beam_top, rescored, two_edit: of the strong tier's later stages; typos kept a word, and two-edit
        typos tried a word of the best script.
    scoring, transform: of the paper tier; the authors' code combines temporal head and tail and writes
        look-alike letters by default.
    """

    threat: Threat = _STRONG
    tier: str = "strong"
    sweep_share: float = 0.5
    beam_width: int = 10
    beam_top: int = 50
    rescored: int = 10
    two_edit: int = 64
    scoring: Literal["replace_one", "temporal_head", "temporal_tail", "combined"] = "combined"
    transform: Literal["look_alike", "swap", "substitute", "delete", "insert"] = "look_alike"

    tiers: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "strong": {},
        "paper": {
            "tier": "paper",
            "threat": Threat(
                spaces=("characters",),
                max_words=1.0,
                protect_stop_words=False,
                max_text_distance=30,  # epsilon of section IV
                max_queries=_UNLIMITED,
            ),
        },
        "textattack": {
            "tier": "textattack",
            "threat": Threat(spaces=("characters",), max_words=1.0, max_text_distance=30, max_queries=_UNLIMITED),
        },
    }

    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        if self.tier == "textattack":
            return (yield from self._textattack(sentence, label, rng))
        if self.tier == "paper":
            return (yield from self._paper(sentence, label, rng))
        try:
            yield from self._strong(sentence, label, rng)
        except Broken as found:
            return found.script
        return ()

    def _strong(self, sentence: Sentence, label: int, rng: random.Random) -> Steps:
        """Typos alone, likely words first; the best together; a greedy walk; a beam; typos of typos at its end."""
        search = Search(sentence, label)
        typos = options(sentence)
        saliency = yield from search.begin(typos, self.threat.max_queries // LOOK)
        left = int(self.sweep_share * self.threat.max_queries)
        # Deletions and transpositions come first among the typos of a word: fewer than twice its length.
        early = {site: 2 * len(sentence.words[site]) for site in typos}
        by_saliency = sorted(typos, key=lambda site: -saliency[site])
        first = [edit for site in by_saliency for edit in typos[site][: early[site]]]
        yield from search.sweep(first[:left])
        swept = {site: [edit for edit in edits if edit in search.gains] for site, edits in typos.items()}
        best = {site: max((search.gains[edit] for edit in swept[site]), default=-np.inf) for site in typos}
        by_gain = sorted(typos, key=lambda site: -best[site])
        rest = [edit for site in by_gain for edit in typos[site] if edit not in search.gains]
        yield from search.sweep(rest[: max(0, left - len(search.gains))])
        if sentence.max_edits > 1:
            ranked = search.ranked()
            yield from search.additive(ranked)
            kept: dict[int, list[Edit]] = {}
            for edit in ranked:
                of_site = kept.setdefault(edit.index, [])
                if len(of_site) < self.rescored:
                    of_site.append(edit)
            yield from search.greedy(list(kept), kept)
            yield from search.beam(ranked, self.beam_width, self.beam_top)
        for edit in search.best:
            yield from self._second_edits(search, edit.index, rng)

    def _second_edits(self, search: Search, site: int, rng: random.Random) -> Steps:
        """Misspell a misspelt word once more, if the threat allows two edits in it."""
        word = {edit.index: edit.word for edit in search.best}[site]
        twice = [Edit("replace", site, typo) for typo in search.sentence.typos(word)]
        legal = [edit for edit in twice if search.sentence.allows((edit,)) and edit not in search.gains]
        chosen = rng.sample(legal, min(self.two_edit, len(legal)))
        yield from search.ask([extended(search.best, edit) for edit in chosen])

    def _paper(self, sentence: Sentence, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        """One unqueried edit a word, most important words first, until the edit distance is used up."""
        count = len(sentence.words)
        importance = np.zeros(count)
        if self.scoring == "replace_one":
            gold = yield from _gold([(), *((Edit("unknown", index),) for index in range(count))], label)
            importance = gold[0] - gold[1:]
        if self.scoring in ("temporal_head", "combined"):  # the first i words against the first i - 1
            gold = yield from _gold([_without(range(stop, count)) for stop in range(count + 1)], label)
            importance = importance + gold[1:] - gold[:-1]
        if self.scoring in ("temporal_tail", "combined"):  # the words from i against those from i + 1
            gold = yield from _gold([_without(range(start)) for start in range(count + 1)], label)
            importance = importance + gold[:-1] - gold[1:]
        script: Script = ()
        for index in np.argsort(-importance, kind="stable").tolist():
            written = self._transformed(sentence.words[index], rng)
            if written in ("", sentence.words[index]):
                continue
            longer = extended(script, Edit("replace", index, written))
            if not sentence.allows(longer):
                break
            script = longer
        return script

    def _transformed(self, word: str, rng: random.Random) -> str:
        place = rng.randrange(len(word))
        if self.transform == "look_alike":
            return word[:place] + _LOOK_ALIKE.get(word[place], word[place]) + word[place + 1 :]
        if self.transform == "swap":
            place = rng.randrange(max(1, len(word) - 1))
            return word[:place] + word[place + 1 : place + 2] + word[place] + word[place + 2 :]
        letter = rng.choice(ascii_letters[:26])
        kept = {"substitute": letter, "delete": "", "insert": letter + word[place]}[self.transform]
        return word[:place] + kept + word[place + 1 :]

    def _textattack(
        self, sentence: Sentence, label: int, rng: random.Random
    ) -> Generator[Question, np.ndarray, Script]:
        """Words ranked by ``[UNK]``; four random typos each, in TextAttack's order of draws."""
        places = np.random.RandomState(rng.getrandbits(32))
        initial = yield from _textattack.scores([()], label)
        indices = _textattack.modifiable(sentence)
        unknown = yield from _textattack.scores(_textattack.without(indices), label)
        order = _textattack.ranked(indices, unknown.score)

        def four(index: int) -> list[str]:
            word = sentence.words[index]
            if len(word) < 2:
                return []
            swap = places.randint(0, len(word) - 1)
            swapped = word[:swap] + word[swap + 1] + word[swap] + word[swap + 2 :]
            place = places.randint(0, len(word))
            substituted = word[:place] + rng.choice(ascii_letters) + word[place + 1 :]
            place = places.randint(0, len(word))
            deleted = word[:place] + word[place + 1 :]
            place = places.randint(0, len(word))
            return [swapped, substituted, deleted, word[:place] + rng.choice(ascii_letters) + word[place:]]

        return (yield from _textattack.greedy(sentence, label, float(initial.score[0]), order, four))


def _gold(scripts: list[Script], label: int) -> Generator[Question, np.ndarray, np.ndarray]:
    """P(gold) under each script, [scripts]."""
    logits = yield from logits_of(scripts)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers[:, label] / powers.sum(axis=1))


def _without(indices: range) -> Script:
    return tuple(Edit("delete", index) for index in indices)
