"""Joint relaxation: which words to change and what to write there, chosen together by projected gradient steps.

Hou, Jia, Zhang, Zhang, Zhang, Liu, Chang: "TextGrad: Advancing Robustness Evaluation in NLP by Gradient-Driven
Optimization", ICLR 2023. Every word has a weight in [0, 1] (is it changed?), the weights together at most the
number of changes allowed; and its candidates have weights on a simplex (by which?). Scripts are drawn from these
weights, scored, and the gradient at the best of them moves the weights as if it were theirs (straight-through).
Searches that add one change to another stop where no single change helps; this one moves all of them at once.

No mixture of words is ever evaluated, so the first-order gains of whole words are all it asks for: for embeddings
and hash projections alike the derivative of the relaxed margin by a candidate's weight is that candidate's gain.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from grit.attacks._search import Broken, Search, Steps, must_be_whole, options
from grit.bench.types import Edit, Gain, Question, Script, Sentence, Threat

_UNION = Threat(spaces=("synonyms", "typos"))
_DIGITS = 9  # decimals of weights and steps: below them lies the noise of floating point


@dataclass(frozen=True)
class Relax:
    """Projected gradient ascent on site and word weights, with restarts.

    restarts, iterations: the paper's; step: of both weights, gradients scaled to at most 1.
    samples: scripts drawn and scored an iteration; the first is the most likely one.
    per_site: candidates of a word that take part, by their gain on the original text; of those that read alike, one.
    exchanged: candidates tried in other places for each change of the best script at the end.
    """

    threat: Threat = _UNION
    tier: str = "strong"
    restarts: int = 10
    iterations: int = 20
    samples: int = 4
    per_site: int = 20
    step: float = 0.5
    exchanged: int = 50

    tiers: ClassVar[Mapping[str, Mapping[str, Any]]] = {"strong": {}}

    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        search = Search(sentence, label)
        try:
            yield from self._search(search, rng)
        except Broken as found:
            return found.script
        return ()

    def _search(self, search: Search, rng: random.Random) -> Steps:
        yield from search.begin(())
        choices, gains = yield from self._choices(search.sentence)
        if not choices:
            return
        known: dict[Script, float] = {}
        for restart in range(self.restarts):
            weights = _Weights.begin(choices, gains if restart == 0 else None, search.sentence.max_edits, rng)
            for _ in range(self.iterations):
                drawn = [weights.likeliest(), *(weights.drawn(rng) for _ in range(self.samples - 1))]
                fresh = list(dict.fromkeys(script for script in drawn if script not in known))
                margins = yield from search.ask(fresh)
                known.update(zip(fresh, margins.tolist(), strict=True))
                best = max(drawn, key=lambda script: known[script])
                slopes = yield from _slopes(search.sentence, choices, best)
                weights.move(slopes, self.step)
        kept = {edits[0].index: list(edits) for edits in choices}
        ranked = [edits[0] for _, edits in sorted(zip(gains, choices, strict=True), key=lambda pair: -pair[0][0])]
        yield from search.exchange(kept, ranked, self.exchanged)

    def _choices(
        self, sentence: Sentence
    ) -> Generator[Question, np.ndarray, tuple[list[tuple[Edit, ...]], list[np.ndarray]]]:
        """Of every word that may change its best candidates and their gains, the best first."""
        candidates = options(sentence)
        edits = [edit for of_site in candidates.values() for edit in of_site]
        if not edits:
            return [], []
        answer = yield Gain((), edits)
        must_be_whole(answer, len(edits))
        choices, gains = [], []
        start = 0
        for of_site in candidates.values():
            here = answer[start : start + len(of_site)]
            order = np.argsort(-here, kind="stable")
            distinct = np.concatenate(([True], here[order[1:]] != here[order[:-1]]))  # equal gains read alike
            first = order[distinct][: self.per_site]
            choices.append(tuple(of_site[at] for at in first.tolist()))
            gains.append(here[first])
            start += len(of_site)
        return choices, gains


def _slopes(
    sentence: Sentence, choices: Sequence[tuple[Edit, ...]], base: Script
) -> Generator[Question, np.ndarray, list[np.ndarray]]:
    """First-order rise of the margin for every candidate in its place against the original word there, at ``base``."""
    changed = [edit.index for edit in base]
    undone = [Edit("replace", index, sentence.words[index]) for index in changed]
    edits = [*undone, *(edit for of_site in choices for edit in of_site)]
    answer = yield Gain(base, edits)
    must_be_whole(answer, len(edits))
    undoing = dict(zip(changed, answer[: len(undone)].tolist(), strict=True))
    slopes = []
    start = len(undone)
    for of_site in choices:
        stop = start + len(of_site)
        slopes.append(answer[start:stop] - undoing.get(of_site[0].index, 0.0))
        start = stop
    return slopes


@dataclass
class _Weights:
    """The relaxed script: ``sites`` [sites] in [0, 1], adding up to at most ``most``; ``words`` on a simplex a site."""

    choices: Sequence[tuple[Edit, ...]]
    most: int
    sites: np.ndarray
    words: list[np.ndarray]

    @classmethod
    def begin(
        cls, choices: Sequence[tuple[Edit, ...]], gains: Sequence[np.ndarray] | None, most: int, rng: random.Random
    ) -> _Weights:
        """Weights of the best gains, or random ones."""
        if gains is not None:
            sites = _scaled(np.array([each[0] for each in gains]))
            words = [_simplex(_scaled(each)) for each in gains]
        else:
            sites = np.array([rng.random() for _ in choices])
            words = [_simplex(np.array([rng.random() for _ in of_site])) for of_site in choices]
        return cls(choices, most, _capped(sites, most), words)

    def likeliest(self) -> Script:
        """The heaviest sites, each with its heaviest word."""
        order = np.argsort(-self.sites, kind="stable")[: self.most].tolist()
        chosen = [site for site in order if self.sites[site] > 0.5] or order[:1]
        return tuple(sorted(self.choices[site][int(self.words[site].argmax())] for site in chosen))

    def drawn(self, rng: random.Random) -> Script:
        """A script by the weights: sites as coins, heavier ones first where too many fall, words as dice."""
        fallen = [site for site in range(len(self.sites)) if rng.random() < self.sites[site]]
        fallen = sorted(fallen, key=lambda site: -self.sites[site])[: self.most] or [int(self.sites.argmax())]
        dice = {site: rng.random() for site in sorted(fallen)}
        script = []
        for site, face in dice.items():
            place = int(np.searchsorted(np.cumsum(self.words[site]), face))
            script.append(self.choices[site][min(place, len(self.choices[site]) - 1)])
        return tuple(sorted(script))

    def move(self, slopes: Sequence[np.ndarray], step: float) -> None:
        """One projected step uphill."""
        by_site = np.array([float(weights @ slope) for weights, slope in zip(self.words, slopes, strict=True)])
        by_word = [weight * slope for weight, slope in zip(self.sites.tolist(), slopes, strict=True)]
        steepest = max((float(np.abs(slope).max()) for slope in by_word), default=0.0)
        if steepest > 0:
            self.words = [
                _simplex(weights + step * np.round(slope / steepest, _DIGITS))
                for weights, slope in zip(self.words, by_word, strict=True)
            ]
        self.sites = _capped(self.sites + step * _scaled(by_site), self.most)


def _scaled(values: np.ndarray) -> np.ndarray:
    """Values over the largest magnitude, so that no scale of the logits matters."""
    largest = float(np.abs(values).max(initial=0.0))
    return np.round(values / largest, _DIGITS) if largest > 0 else np.zeros(len(values))


def _simplex(values: np.ndarray) -> np.ndarray:
    """The nearest point whose entries are at least 0 and add up to 1 (Duchi et al., ICML 2008, figure 1)."""
    falling = np.sort(values)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, len(values) + 1)
    last = int(np.flatnonzero(falling > excess)[-1])
    return np.round(np.maximum(values - excess[last], 0.0), _DIGITS)


def _capped(values: np.ndarray, most: int) -> np.ndarray:
    """The nearest point whose entries lie in [0, 1] and add up to at most ``most``, by bisection."""
    capped = np.clip(values, 0.0, 1.0)
    if capped.sum() <= most:
        return np.round(capped, _DIGITS)
    low, high = 0.0, float(values.max())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(values - middle, 0.0, 1.0).sum() > most else (low, middle)
    return np.round(np.clip(values - high, 0.0, 1.0), _DIGITS)
