"""Are the attacks strong enough to be believed on this model? Tests that a weak search cannot pass.

Robust accuracy is what an attack failed to do, so a weak attack makes a strong row. Each check here runs on a
sample of the very model that is ranked, and puts counts into its record; :mod:`grit.bench.records` says which
counts raise a flag, and what the flag means. (After the tests of Croce and Hein's AutoAttack, ICML 2020, and the
checklist of Carlini et al., "On Evaluating Adversarial Robustness", 2019, sections 4 and 5.)

The sample is drawn by hash of the example's id among those right before any attack: :data:`LEAST` of them, a
twentieth of all where that is more, a quarter where that is less. The logit scale is tried on :data:`SCALED` of
them, the search without bounds on :data:`UNBOUNDED`, and brute force on the first words of as many.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from grit.bench import lexicons, registry
from grit.bench.evaluate import answers, attack_all, margins
from grit.bench.records import CheckPart, Evidence
from grit.bench.sentence import Text, words_of
from grit.bench.types import Attack, Edit, Example, Gain, Outcome, Script, Threat
from grit.bench.victim import Asked, Respondent, Subject

CONTROL = "random_search"  # what every guided search must beat
SEARCH = "pwws"  # searches without bounds: it needs no gradient, so none can be hidden from it
CANARIES = ("pcl",)  # schemes whose robustness is known to be an illusion (perturbed class logits, see its objective)
NATURAL = "natural"
LEAST, SCALED, UNBOUNDED = 10, 5, 10  # examples
SCALES = (1e3, 1e-3)
_LARGEST_BUDGET = 5000  # queries of a control; the suite's own
_TELLING = 8  # words a class
_FREQUENT = 1000  # words among which the telling ones are sought
_WORDS, _CHOICES = 6, 5  # of a text that is short enough to try everything: words, and candidates of each
_CHANGED = 0.34  # of the words: two of six

Report = Callable[[str, int, int], None]
"""report(what, done, total): how far the checks are."""


@dataclass(frozen=True)
class Trial:
    """What was attacked, with what, and what came of it: outcomes by attack, of all examples or what still stood."""

    victim: Respondent
    attacks: Mapping[str, Attack]
    examples: Sequence[Example]
    outcomes: Mapping[str, Sequence[Outcome]]
    seed: int


def checks(trial: Trial, report: Report = lambda what, done, total: None) -> tuple[CheckPart, ...]:
    """Every check that can be made of these attacks; another tool's recipes are left alone, which do not bend."""
    attacks = {name: attack for name, attack in trial.attacks.items() if not hasattr(attack, "recipe")}
    total = 5 * len(attacks) + 1
    some = sample(trial.examples, trial.outcomes)
    closed = Closed(trial, some[:UNBOUNDED])
    found: list[CheckPart] = []
    whole: dict[str, list[Outcome]] = {}
    for done, (name, attack) in enumerate(attacks.items()):
        report("checks", 5 * done, total)
        whole[name] = _whole(trial, name, attack, some)
        report("checks", 5 * done + 1, total)
        found += _scale(trial, name, attack, some[:SCALED], whole[name])
        report("checks", 5 * done + 2, total)
        found += _budget(trial, name, attack, some, whole[name])
        report("checks", 5 * done + 3, total)
        found += _control(trial, name, attack, some, whole[name])
        report("checks", 5 * done + 4, total)
        found += closed.oracle(name, attack)
    found += _boxes(attacks, whole)
    report("checks", total - 1, total)
    found.append(unbounded(trial, some[:UNBOUNDED]))
    report("checks", total, total)
    return tuple(found)


def sample(examples: Sequence[Example], outcomes: Mapping[str, Sequence[Outcome]]) -> list[Example]:
    """Examples right before any attack and without errors, by hash."""
    wrong = {o.id for found in outcomes.values() for o in found if o.outcome in ("skipped", "error")}
    right = [example for example in examples if example.id not in wrong]
    right.sort(key=lambda example: hashlib.sha256(f"adequacy\0{example.id}".encode()).digest())
    return right[: max(min(LEAST, -(-len(examples) // 4)), len(examples) // 20)]


def _run(
    trial: Trial, name: str, attack: Attack, some: Sequence[Example], victim: Respondent | None = None
) -> list[Outcome]:
    return attack_all(victim or trial.victim, attack, some, seed=trial.seed, name=name)


def _whole(trial: Trial, name: str, attack: Attack, some: Sequence[Example]) -> list[Outcome]:
    """Outcomes on the sample, those of an attack that was run on what others left standing completed."""
    known = {outcome.id: outcome for outcome in trial.outcomes[name]}
    missing = [example for example in some if example.id not in known]
    known |= {outcome.id: outcome for outcome in _run(trial, name, attack, missing)}
    return [known[example.id] for example in some]


def _budgeted(attack: Attack, queries: int) -> Attack:
    return dataclasses.replace(attack, threat=dataclasses.replace(attack.threat, max_queries=queries))  # type: ignore[type-var]  # a dataclass by contract


def _fell(outcomes: Sequence[Outcome], within: int | None = None) -> list[bool]:
    return [o.outcome == "broken" and (within is None or o.queries <= within) for o in outcomes]


def _alone(one: Sequence[bool], other: Sequence[bool]) -> int:
    return sum(a and not b for a, b in zip(one, other, strict=True))


# --- the checks --------------------------------------------------------------------------------------


def _scale(
    trial: Trial, name: str, attack: Attack, some: Sequence[Example], known: Sequence[Outcome]
) -> list[CheckPart]:
    """An attack that sees margins takes the same course whatever the logits are multiplied with."""
    courses = [
        [
            (o.outcome, o.script, o.queries, o.trace)
            for o in _run(trial, name, attack, some, victim=Scaled(trial.victim, scale))
        ]
        for scale in SCALES
    ]
    same = sum(
        all(course[at] == (o.outcome, o.script, o.queries, o.trace) for course in courses)
        for at, o in enumerate(known[: len(some)])
    )
    return [CheckPart(check="scale", attack=name, k=same, n=len(some), lost=len(some) - same)]


def _budget(
    trial: Trial, name: str, attack: Attack, some: Sequence[Example], known: Sequence[Outcome]
) -> list[CheckPart]:
    """More queries never break less."""
    limit = attack.threat.max_queries // 10
    if not 1 <= limit <= _LARGEST_BUDGET:
        return []  # no budget to speak of
    small, large = _fell(_run(trial, name, _budgeted(attack, limit), some)), _fell(known)
    return [
        CheckPart(
            check="budget",
            attack=name,
            k=sum(small),
            n=len(some),
            lost=_alone(small, large),
            won=_alone(large, small),
        )
    ]


def _control(
    trial: Trial, name: str, attack: Attack, some: Sequence[Example], known: Sequence[Outcome]
) -> list[CheckPart]:
    """Random search in the same space with as many queries."""
    if "any" in attack.threat.spaces or attack.threat.max_text_distance is not None:
        return []  # nothing there to draw from, or a bound over the whole text that single draws cannot keep
    limit = min(attack.threat.max_queries, _LARGEST_BUDGET)
    random = dataclasses.replace(  # type: ignore[type-var]  # a dataclass by contract
        registry.attack(CONTROL), threat=dataclasses.replace(attack.threat, max_queries=limit)
    )
    against = f"{CONTROL} as {name}"
    control, fell = _fell(_run(trial, against, random, some)), _fell(known, limit)
    return [
        CheckPart(
            check="control",
            attack=name,
            against=against,
            k=len(some) - sum(control),
            n=len(some),
            lost=_alone(control, fell),
            won=_alone(fell, control),
        )
    ]


def _boxes(attacks: Mapping[str, Attack], whole: Mapping[str, Sequence[Outcome]]) -> list[CheckPart]:
    """An attack that sees gradients against every one that does not, in a space no larger and with no more queries."""
    found = []
    white = [name for name in attacks if any(o.gradients for o in whole[name])]
    for name in white:
        for other in attacks:
            if other not in white and within(attacks[other].threat, attacks[name].threat):
                one, two = _fell(whole[name]), _fell(whole[other])
                found.append(
                    CheckPart(
                        check="box",
                        attack=name,
                        against=other,
                        k=len(two) - sum(two),
                        n=len(one),
                        lost=_alone(two, one),
                        won=_alone(one, two),
                    )
                )
    return found


def within(small: Threat, large: Threat) -> bool:
    """Whether one threat allows nothing that the other does not."""
    return (
        set(small.spaces) <= set(large.spaces)
        and small.lexicon == large.lexicon
        and small.max_words <= large.max_words
        and small.typo_distance <= large.typo_distance
        and small.max_queries <= large.max_queries
        and (small.protect_stop_words or not large.protect_stop_words)
        and (large.max_text_distance is None or small.max_text_distance == large.max_text_distance)
    )


def unbounded(trial: Trial, some: Sequence[Example]) -> CheckPart:
    """Any word may become any word that the model finds telling: whoever still withstands does not hear the words."""
    attack = registry.attack(SEARCH)
    free = Threat(
        spaces=("vocabulary",), max_words=1.0, protect_stop_words=False, max_queries=_LARGEST_BUDGET, lexicon="none"
    )
    attack = dataclasses.replace(attack, threat=free)  # type: ignore[type-var]  # a dataclass by contract
    name = f"{SEARCH} without bounds"
    vocabulary = telling(trial.victim, trial.examples)
    fell = _fell(attack_all(trial.victim, attack, some, seed=trial.seed, name=name, vocabulary=vocabulary))
    return CheckPart(check="unbounded", attack=name, k=sum(fell), n=len(some), lost=len(some) - sum(fell))


def _frequent(examples: Sequence[Example]) -> list[str]:
    """The words of the texts that are no stop words, the most frequent first."""
    stop_words = lexicons.stop_words()
    counts = Counter(word for example in examples for word in words_of(example.text) if word not in stop_words)
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_FREQUENT]]


def telling(victim: Respondent, examples: Sequence[Example]) -> tuple[str, ...]:
    """Of the most frequent words of the texts, those that alone speak loudest for each class of a model."""
    frequent = _frequent(examples)
    logits, failed = answers(victim, frequent)
    chosen: dict[str, None] = {}
    heard = np.array([at for at in range(len(frequent)) if at not in failed], np.intp)
    for label in range(victim.classes):
        loudest = np.argsort(margins(logits[heard], label), kind="stable")[:_TELLING]
        chosen.update((frequent[heard[at]], None) for at in loudest.tolist())
    return tuple(chosen)


# --- where everything can be tried ---------------------------------------------------------------------


class Drawn:
    """A lexicon in which every word has the same few synonyms each time, of a list that has nothing to do with it."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
        return tuple(random.Random(word.lower()).sample(self._words, min(_CHOICES, len(self._words))))


class Closed:
    """Texts of at most six words, of which two may become one of five others: some 400 scripts each, all tried.

    The words are the first of the examples that are no stop words, the label is what the model answers to them.
    """

    def __init__(self, trial: Trial, some: Sequence[Example]) -> None:
        self._trial = trial
        self._some = some
        self._lexicon = Drawn(_frequent(trial.examples))
        self._short: list[Example] = []
        self._breakable: list[bool] = []

    def oracle(self, name: str, attack: Attack) -> list[CheckPart]:
        """A search for synonyms against brute force: where there is a break, it finds one."""
        if not registry.LEXICAL_SPACES & set(attack.threat.spaces):
            return []  # typos are too many to try them all
        if not self._short:
            self._try_everything()
        threat = self._threat(min(attack.threat.max_queries, _LARGEST_BUDGET))
        attack = dataclasses.replace(attack, threat=threat)  # type: ignore[type-var]  # a dataclass by contract
        trial, name_here = self._trial, f"{name} against brute force"
        fell = _fell(
            attack_all(trial.victim, attack, self._short, seed=trial.seed, name=name_here, lexicon=self._lexicon)
        )
        lost = _alone(self._breakable, fell)
        return [CheckPart(check="oracle", attack=name, k=sum(fell), n=len(fell), lost=lost)]

    def _try_everything(self) -> None:
        victim, stop_words = self._trial.victim, lexicons.stop_words()
        texts = [[word for word in words_of(example.text) if word not in stop_words][:_WORDS] for example in self._some]
        logits, failed = answers(victim, [" ".join(words) for words in texts])
        self._short = [
            Example(example.id, " ".join(words), int(logits[at].argmax()))
            for at, (example, words) in enumerate(zip(self._some, texts, strict=True))
            if words and at not in failed
        ]
        for example in self._short:
            text = Text(example.text, self._threat(_LARGEST_BUDGET), self._lexicon, stop_words=stop_words)
            logits, failed = answers(victim, [text.apply(script) for script in every(text)])
            wrong = set(np.flatnonzero(logits.argmax(axis=1) != example.label).tolist())
            self._breakable.append(bool(wrong - set(failed)))

    @staticmethod
    def _threat(queries: int) -> Threat:
        return Threat(spaces=("synonyms",), max_words=_CHANGED, max_queries=queries, lexicon="none")


def every(text: Text) -> list[Script]:
    """All scripts of replacements that the threat of a text holds."""
    sites = [[Edit("replace", index, word) for word in text.candidates(index)] for index in range(len(text.words))]
    return [
        script
        for count in range(1, text.max_edits + 1)
        for chosen in combinations(sites, count)
        for script in product(*chosen)
    ]


# --- checks that need other rows -----------------------------------------------------------------------


Pool = Mapping[str, tuple[Script, ...]]
"""Example id -> scripts that broke some other model on it, within the threat of one of the attacks."""


def pool(rows: Sequence[Evidence]) -> dict[str, tuple[Script, ...]]:
    """The breaks of several rows by the same attacks, by example."""
    found: dict[str, dict[Script, None]] = {}
    for evidence in rows:
        for outcomes in evidence.attacks.values():
            for outcome in outcomes:
                if outcome.outcome == "broken":
                    found.setdefault(outcome.id, {})[outcome.script] = None
    return {id: tuple(sorted(scripts)) for id, scripts in sorted(found.items())}


def transfer(victim: Respondent, examples: Sequence[Example], evidence: Evidence, others: Pool) -> CheckPart:
    """What broke other rows, tried on what withstood every attack here."""
    standing = evidence.robust()
    asked = [
        (example, Text(example.text, Threat()).apply(script))
        for example in examples
        if standing.get(example.id)
        for script in others.get(example.id, ())
    ]
    logits, failed = answers(victim, [text for _, text in asked])
    fallen = {
        example.id
        for at, (example, _) in enumerate(asked)
        if at in failed or int(logits[at].argmax()) != example.label  # a text on which it fails is none it withstands
    }
    withstood = sum(standing.values())
    return CheckPart(check="transfer", k=withstood - len(fallen), n=len(standing), lost=len(fallen))


def canary(here: Evidence, natural: Evidence) -> CheckPart:
    """A defence known to be broken beside the natural row of the same model."""
    ours, theirs = here.robust(), natural.robust()
    ids = sorted(set(ours) & set(theirs))
    return CheckPart(
        check="canary",
        k=sum(ours[id] for id in ids),
        n=len(ids),
        won=sum(ours[id] and not theirs[id] for id in ids),
        lost=sum(theirs[id] and not ours[id] for id in ids),
    )


# --- the same victim, louder ---------------------------------------------------------------------------


class Scaled:
    """A victim whose logits, and gradients, are all multiplied by one number: it predicts what it predicted."""

    def __init__(self, victim: Respondent, scale: float) -> None:
        self.classes = victim.classes
        self.digest = f"{victim.digest} times {scale}"
        self.exact = victim.exact
        self.vocabulary = victim.vocabulary
        self._victim = victim
        self._scale = scale

    @property
    def has_gradients(self) -> bool:
        return self._victim.has_gradients

    @property
    def crowded(self) -> bool:
        return self._victim.crowded

    def forget(self) -> None:
        self._victim.forget()

    def open(self, sentence: Text) -> Subject:
        return self._victim.open(sentence)

    def answer(self, asked: Sequence[Asked]) -> list[np.ndarray]:
        return [logits * self._scale for logits in self._victim.answer(asked)]

    def gains(self, asked: Sequence[tuple[Subject, Gain, int]]) -> list[np.ndarray]:
        return [gains * self._scale for gains in self._victim.gains(asked)]

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        return self._victim.logits(texts) * self._scale
