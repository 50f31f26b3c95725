"""One saved model, many texts: every score of this room, with what would be there by chance beside it.

A :class:`Speaker` is a model that can be explained: its deployed bytes, and its float weights where there are any.
Attributions are remembered, since a teacher's serve all of its students.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from grit.bench.explain import attacked, scores
from grit.bench.explain.agreement import kendall, overlap
from grit.bench.explain.explainers import EXPLAINERS, Case, Explainer
from grit.bench.explain.faithfulness import EXACT, Faithfulness, Scores, order_of
from grit.bench.explain.scores import Attacked, Faithful, Loyal, Masked, Shuffled, Truth, Who, mean, mean_or_none
from grit.bench.explain.texts import Source, probability
from grit.bench.records import Count
from grit.bench.types import Dataset, Example, Model, Outcome, Recipe, UsageError

if TYPE_CHECKING:
    from grit.bench.explain.cut import Cut
    from grit.bench.explain.truth import Kind, Planted

Progress = Callable[[str, float, float], None]
"""progress(stage, done, total)"""

SAME = 1e-9  # evidence: sums of other batches may differ in the last bits


def chosen(names: Sequence[str], *, gradients: bool = True) -> dict[str, Explainer]:
    """The explainers of these names, all for none; ``gradients``: whether the model has any."""
    for name in names:
        if name not in EXPLAINERS:
            raise UsageError(f"unknown explainer {name!r}: they are {', '.join(EXPLAINERS)}")
    able = [name for name in EXPLAINERS if gradients or not EXPLAINERS[name].needs_gradients]
    for name in names:
        if name not in able:
            raise UsageError(f"{name} needs gradients, which this model does not give; explain it by {', '.join(able)}")
    return {name: EXPLAINERS[name] for name in (names or able)}


@dataclass
class Speaker:
    """A model to be explained. ``cut``: None for a function of texts."""

    name: str
    digest: str  # of what ships
    shipped: Source
    cut: Cut | None
    explainers: Mapping[str, Explainer]
    seed: int
    _known: dict[tuple[str, int], dict[str, np.ndarray]] = field(default_factory=dict)

    @property
    def headline(self) -> str:
        """The explainer that colours its sentences: the first that was asked for, of all the board's."""
        return next(iter(self.explainers))

    def answer(self, text: str) -> tuple[int, float]:
        """The label it gives, and its probability."""
        subject = self.shipped.open(text)
        logits = subject.logits(np.ones((1, len(subject.words)), bool), "delete")
        label = int(logits[0].argmax())
        return label, float(probability(logits, label)[0])

    def masks(self, text: str, label: int) -> dict[str, tuple[bool, ...]] | None:
        """Aim -> for every word whether the mask keeps it; None without gradients."""
        if self.cut is None:
            return None
        from grit.bench.explain import masks

        cut = self.cut.open(text)
        price = masks.usual_price(cut, label)
        found = {aim: masks.find(cut, label, aim, price, seed=self.seed) for aim in masks.AIMS}
        return {aim: tuple(mask.kept.tolist()) for aim, mask in found.items()}

    def attributions(self, text: str, label: int) -> dict[str, np.ndarray]:
        """Explainer -> what every word did for a label, [words]."""
        key = text, label
        if key not in self._known:
            case = Case(self.shipped.open(text), self.cut.open(text) if self.cut else None, label)
            self._known[key] = {
                name: explainer(case, _generator(self.seed, name, text)) for name, explainer in self.explainers.items()
            }
        return self._known[key]

    def chance(self, text: str, words: int) -> np.ndarray:
        """A random attribution, [words]: what an explainer that knows nothing would say."""
        return _generator(self.seed, scores.RANDOM, text).standard_normal(words)


def _generator(seed: int, name: str, text: str) -> np.random.Generator:
    key = hashlib.sha256(f"{seed}\0{name}\0{text}".encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(key[:16], "big"))


# --- faithfulness -------------------------------------------------------------------------------------


ByText = list[float | None]
"""What the board's explainer scores on each text; None where there is no such score, or another explainer."""


def faithfulness(
    speaker: Speaker, texts: Sequence[str], progress: Progress, *, exact: int = EXACT
) -> tuple[tuple[Faithful, ...], int, ByText]:
    """Every explainer, itself and reversed, and chance, over texts; how many bounds are exact; each normalised."""
    found: dict[tuple[str, bool], list[Scores]] = {}
    bounded = 0
    by_text: ByText = []
    for number, text in enumerate(texts):
        progress("faithfulness", number, len(texts))
        subject = speaker.shipped.open(text)
        by_text.append(None)
        if not subject.words:
            continue
        judge = Faithfulness(subject, exact=exact)
        attributions = speaker.attributions(text, judge.label)
        found.setdefault((scores.RANDOM, False), []).append(judge.scores(speaker.chance(text, judge.n)))
        for name, attribution in attributions.items():
            found.setdefault((name, False), []).append(judge.scores(attribution))
            # The reverse of the very order, ties and all: the other way round, not another guess.
            backwards = np.argsort(order_of(attribution)).astype(np.float64)
            found.setdefault((name, True), []).append(judge.scores(backwards))
            if name == scores.HEADLINE:
                by_text[-1] = found[name, False][-1].normalised
        bounded += judge.bounds.exact
    progress("faithfulness", len(texts), len(texts))
    names = [(name, way) for name in speaker.explainers for way in (False, True)] + [(scores.RANDOM, False)]
    return tuple(_faithful(*row, found[row]) for row in names if row in found), bounded, by_text


def _faithful(name: str, way: bool, of_texts: Sequence[Scores]) -> Faithful:
    return Faithful(
        explainer=name,
        reversed=way,
        comprehensiveness=mean([each.comprehensiveness for each in of_texts]),
        sufficiency=mean([each.sufficiency for each in of_texts]),
        flip=mean([each.flip for each in of_texts]),
        normalised=mean_or_none(each.normalised for each in of_texts),
    )


# --- loyalty ------------------------------------------------------------------------------------------


def loyalty(
    student: Speaker, teacher: Speaker, twin: Speaker | None, texts: Sequence[str], progress: Progress
) -> tuple[tuple[Loyal, ...], ByText]:
    """How far the student's reasons are the teacher's, for the teacher's answer; ``twin``: the ceiling; each tau."""
    found: dict[tuple[str, Who], list[tuple[float, float]]] = {}
    by_text: ByText = []
    for number, text in enumerate(texts):
        progress("loyalty", number, len(texts))
        label, _ = teacher.answer(text)
        theirs = teacher.attributions(text, label)
        others: dict[Who, Mapping[str, np.ndarray]] = {"student": student.attributions(text, label)}
        if twin is not None:
            others["ceiling"] = twin.attributions(text, label)
        others["floor"] = {name: student.chance(text, len(values)) for name, values in theirs.items()}
        by_text.append(None)
        for who, attributions in others.items():
            for name, values in attributions.items():
                if name in theirs and (tau := kendall(theirs[name], values)) is not None:
                    found.setdefault((name, who), []).append((tau, overlap(theirs[name], values)))
                    if (name, who) == (scores.HEADLINE, "student"):
                        by_text[-1] = tau
    progress("loyalty", len(texts), len(texts))
    rows = (
        Loyal(explainer=name, who=who, tau=mean([tau for tau, _ in pairs]), overlap=mean([top for _, top in pairs]))
        for (name, who), pairs in found.items()
    )
    return tuple(rows), by_text


# --- under attack -------------------------------------------------------------------------------------


def under_attack(
    speaker: Speaker, examples: Sequence[Example], outcomes: Mapping[str, Sequence[Outcome]], progress: Progress
) -> tuple[Attacked, ...]:
    """Drift and aim, attack by attack, over the attacked ones of the examples."""
    found = []
    for number, (attack, of_attack) in enumerate(outcomes.items()):
        progress("attacked texts", number, len(outcomes))
        texts = list(attacked.changed(examples, of_attack))
        found += [_of_attack(speaker, attack, name, texts) for name in speaker.explainers]
    progress("attacked texts", len(outcomes), len(outcomes))
    return tuple(found)


def _of_attack(speaker: Speaker, attack: str, name: str, texts: Sequence[attacked.Changed]) -> Attacked:
    taus: list[float | None] = []
    tops = []
    hit, edited, chance = 0, 0, 0.0
    for each in texts:
        before = speaker.attributions(each.example.text, each.example.label)[name]
        if each.broken:
            k, n, expected = attacked.aim(before, each.edited)
            hit, edited, chance = hit + k, edited + n, chance + expected
        else:
            after = speaker.attributions(each.text, each.example.label)[name]
            after = attacked.carried_back(after, each.origin, len(before))
            taus.append(kendall(before, after))
            tops.append(overlap(before, after))
    return Attacked(
        attack=attack,
        explainer=name,
        tau=mean_or_none(taus),
        overlap=mean_or_none(tops),
        aimed=Count(k=hit, n=edited),
        chance=chance,
    )


# --- ground truth -------------------------------------------------------------------------------------


def randomised(speaker: Speaker, blind: Speaker, texts: Sequence[str], progress: Progress) -> tuple[Shuffled, ...]:
    """Agreement of a model's attributions with those of ``blind``, the same with its weights shuffled."""
    found: dict[str, list[float]] = {}
    for number, text in enumerate(texts):
        progress("shuffled weights", number, len(texts))
        label, _ = speaker.answer(text)
        there = blind.attributions(text, label)
        for name, values in speaker.attributions(text, label).items():
            if (tau := kendall(values, there[name])) is not None:
                found.setdefault(name, []).append(tau)
    progress("shuffled weights", len(texts), len(texts))
    return tuple(Shuffled(explainer=name, tau=mean(taus)) for name, taus in found.items())


def masked(speaker: Speaker, texts: Sequence[str], progress: Progress) -> tuple[Masked, ...]:
    """How often the search finds the best mask, of the texts short enough to try all; nothing where there are none."""
    from grit.bench.explain import masks

    short = [text for text in texts if 0 < len(speaker.shipped.open(text).words) <= masks.ENUMERATED]
    if speaker.cut is None or not short:
        return ()
    hits = dict.fromkeys(masks.AIMS, 0)
    for number, text in enumerate(short):
        progress("masks", number, len(short))
        label, _ = speaker.answer(text)
        cut = speaker.cut.open(text)
        price = masks.usual_price(cut, label)
        for aim, best in masks.enumerated(cut, label, price).items():
            found = masks.find(cut, label, aim, price, seed=speaker.seed)
            hits[aim] += found.value >= best.value - SAME
    progress("masks", len(short), len(short))
    return tuple(Masked(aim=aim, optimal=Count(k=k, n=len(short))) for aim, k in hits.items())


@dataclass(frozen=True)
class Make:
    """What a model is made of: enough to train another of its kind."""

    model_class: type[Model]
    config: object
    recipe: Recipe


def shortcuts(
    make: Make,
    dataset: Dataset,
    examples: Sequence[Example],
    kind: Kind,
    explainers: Mapping[str, Explainer],
    seed: int,
    progress: Progress,
) -> tuple[Truth, ...]:
    """Trains a model on planted shortcuts and asks each explainer for them; nothing, if they were not learned.

    Those of ``examples`` that are labelled otherwise than their shortcut says are planted and explained, in the float
    weights, if the model answers by the shortcut and without any one word of it does not: then no other word can be
    the reason, and none of these can be missing.
    """
    from grit.bench import schemes
    from grit.bench.explain import truth
    from grit.bench.explain.cut import Cut
    from grit.bench.train import train

    trained = train(
        make.model_class,
        make.config,
        make.recipe,
        truth.planted(dataset, kind, seed),
        schemes.get("natural"),
        seed=seed,
        progress=lambda epoch: progress(f"planted {kind}", epoch.number, epoch.epochs),
    )
    cut = Cut(trained.model)
    speaker = Speaker(kind, "", cut, cut, explainers, seed)
    pairs = [(each, truth.plant(each, kind, len(dataset.labels), seed)) for each in examples]
    contrary = [planted for each, planted in pairs if planted.example.label != each.label]
    turned = [each for each in contrary if _turned(speaker, each)]
    if not turned or len(turned) < truth.LEARNED * len(contrary):
        return ()
    hits = dict.fromkeys(explainers, 0)
    chance, total = 0.0, 0
    for each in turned:
        attributions = speaker.attributions(each.example.text, each.example.label)
        k = len(each.places)
        words = len(each.example.text.split())
        total += k
        chance += k * k / words
        for name, values in attributions.items():
            hits[name] += len(each.places & set(order_of(values)[:k].tolist()))
    return tuple(
        Truth(explainer=name, kind=kind, hits=Count(k=found, n=total), chance=chance) for name, found in hits.items()
    )


def _turned(speaker: Speaker, planted: Planted) -> bool:
    """Whether the answer is the shortcut's, and another as soon as any word of it is deleted."""
    subject = speaker.shipped.open(planted.example.text)
    words = np.arange(len(subject.words))
    answers = subject.logits(words != np.array([[-1], *([place] for place in planted.places)]), "delete").argmax(axis=1)
    return bool(answers[0] == planted.example.label and (answers[1:] != planted.example.label).all())
