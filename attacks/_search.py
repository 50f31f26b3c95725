"""What the strong tiers share: a margin that no scale of the logits can move, sweeps, greedy steps, a beam.

All are generators over one text that ask the engine and raise :class:`Broken` at the first script the victim
gets wrong: every script of every answer is tested, because with more than two classes the one that costs the
gold class most need not be the one that flips.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence

import numpy as np

from grit.bench.types import BudgetSpent, Edit, Question, Score, Script, Sentence

LOOK = 4  # a part of the queries at most goes into finding out which words matter
CHUNK = 128  # scripts of a sweep asked at once: a break in the first chunk saves the queries of the others

Asking = Generator[Question, np.ndarray, np.ndarray]
Steps = Generator[Question, np.ndarray, None]


class Broken(Exception):
    """The search is over: ``script`` is misclassified."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.script = script


def margins(logits: np.ndarray, label: int) -> np.ndarray:
    """Largest other logit minus the gold one: [scripts classes] -> [scripts]."""
    others = [other for other in range(logits.shape[1]) if other != label]
    return np.asarray(logits[:, others].max(axis=1) - logits[:, label])


def logits_of(scripts: Sequence[Script]) -> Asking:
    """The logits of every script, [scripts classes]; raises BudgetSpent if the budget ends among them."""
    logits = yield Score(scripts)
    must_be_whole(logits, len(scripts))
    return logits


def must_be_whole(answer: np.ndarray, asked: int) -> None:
    """Raise BudgetSpent for an answer that is shorter than its question."""
    if len(answer) < asked:
        raise BudgetSpent("the answer was cut short")


def extended(script: Script, edit: Edit) -> Script:
    """``script`` with one more replacement, which takes the place of one of the same word."""
    for place, old in enumerate(script):
        if old.index >= edit.index:
            return (*script[:place], edit, *script[place + (old.index == edit.index) :])
    return (*script, edit)


def options(sentence: Sentence) -> dict[int, list[Edit]]:
    """Every site that has candidates, with its replacements."""
    sites = {}
    for index in range(len(sentence.words)):
        words = sentence.candidates(index)
        if words:
            sites[index] = [Edit("replace", index, word) for word in words]
    return sites


class Search:
    """One search on one text: how far every script moved the margin, and the best script so far.

    Margins are counted in units of 1e-10 of the magnitude of the first logits seen and rounded to whole ones,
    so that logits multiplied by 10, 100 or 0.1 make the same search down to its ties.
    """

    def __init__(self, sentence: Sentence, label: int) -> None:
        self.sentence = sentence
        self.label = label
        self.start = 0.0  # margin of the text as it is
        self.gains: dict[Edit, float] = {}  # of single replacements, over the start
        self.best: Script = ()
        self.best_margin = -math.inf
        self._unit = 0.0

    def margins(self, logits: np.ndarray) -> np.ndarray:
        if not self._unit:
            largest = float(np.abs(logits[0]).max())
            self._unit = 10.0 ** (math.floor(math.log10(largest)) - 10 if largest > 0 else -10)
        return np.rint(margins(logits, self.label) / self._unit)

    def begin(self, sites: Iterable[int], most: int = 0) -> Generator[Question, np.ndarray, dict[int, float]]:
        """Score the text and, for every site, the text with its word unknown; the rise of the margin a site.

        Only the first ``most`` sites are scored, the others rise by 0: in a text of thousands of words the look
        around must not spend what the search needs.
        """
        sites = list(sites)
        scored = sites[:most]
        logits = yield Score([(), *((Edit("unknown", site),) for site in scored)])
        found = self.margins(logits)
        self.start = self.best_margin = float(found[0])
        must_be_whole(logits, len(scored) + 1)
        rises = dict(zip(scored, (found[1:] - self.start).tolist(), strict=True))
        return {site: rises.get(site, 0.0) for site in sites}

    def ask(self, scripts: Sequence[Script]) -> Asking:
        """Margins of legal scripts, [scripts]."""
        if not scripts:
            return np.empty(0)
        logits = yield Score(scripts)
        found = self.margins(logits)
        wrong = logits.argmax(axis=1) != self.label
        if wrong.any():
            raise Broken(min((len(scripts[i]), -found[i], i, scripts[i]) for i in np.flatnonzero(wrong).tolist())[3])
        if len(found):
            top = int(found.argmax())
            if found[top] > self.best_margin:
                self.best, self.best_margin = scripts[top], float(found[top])
        must_be_whole(logits, len(scripts))
        return found

    def sweep(self, edits: Sequence[Edit]) -> Steps:
        """Score every edit alone, in the order given; :attr:`gains` remembers them."""
        for first in range(0, len(edits), CHUNK):
            some = edits[first : first + CHUNK]
            found = yield from self.ask([(edit,) for edit in some])
            self.gains.update(zip(some, (found - self.start).tolist(), strict=True))

    def ranked(self) -> list[Edit]:
        """Every edit swept, best first; of those of one site that move the margin alike, the first: they read alike."""
        distinct: dict[tuple[int, float], Edit] = {}
        for edit, gain in self.gains.items():
            distinct.setdefault((edit.index, gain), edit)
        return sorted(distinct.values(), key=lambda edit: -self.gains[edit])

    def additive(self, ranked: Sequence[Edit]) -> Steps:
        """The best edits of the best sites together, as if gains added up: the optimum of a linear victim."""
        chosen: dict[int, Edit] = {}
        for edit in ranked:
            if self.gains[edit] > 0:
                chosen.setdefault(edit.index, edit)
        best = list(chosen.values())[: self.sentence.max_edits]
        yield from self.ask([tuple(sorted(best[:count])) for count in range(2, len(best) + 1)])

    def greedy(self, order: Sequence[int], options: dict[int, list[Edit]]) -> Steps:
        """Site by site on the current text: the best replacement, if it raises the margin."""
        script: Script = ()
        margin = self.start
        for site in order:
            if len(script) == self.sentence.max_edits:
                return
            scripts = [extended(script, edit) for edit in options[site]]
            if not script:  # swept already
                found = np.array([self.start + self.gains[edit] for edit in options[site]])
            else:
                found = yield from self.ask(scripts)
            top = int(found.argmax())
            if found[top] > margin:
                script, margin = scripts[top], float(found[top])

    def beam(self, ranked: Sequence[Edit], width: int, top: int) -> Steps:
        """Keep the ``width`` best scripts; grow each by the ``top`` edits of other words that did best alone."""
        scripts: list[Script] = [(edit,) for edit in ranked[:width]]
        for _ in range(1, self.sentence.max_edits):
            grown: dict[Script, None] = {}
            for script in scripts:
                taken = {edit.index for edit in script}
                free = (edit for edit in ranked if edit.index not in taken)
                grown.update((extended(script, edit), None) for edit, _ in zip(free, range(top), strict=False))
            asked = list(grown)
            found = yield from self.ask(asked)
            scripts = [asked[i] for i in np.argsort(-found, kind="stable")[:width].tolist()]

    def exchange(self, options: dict[int, list[Edit]], ranked: Sequence[Edit], top: int) -> Steps:
        """From the best script: rewrite or move one edit at a time while that raises the margin."""
        while self.best:
            before = self.best_margin
            for edit in self.best:
                if edit not in self.best:
                    continue  # replaced by an earlier round
                rest = tuple(other for other in self.best if other != edit)
                taken = {other.index for other in rest}
                elsewhere = [other for other in ranked if other.index not in taken | {edit.index}][:top]
                yield from self.ask([extended(rest, other) for other in [*options[edit.index], *elsewhere]])
            if self.best_margin <= before:
                return
