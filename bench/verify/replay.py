"""Replay: every answer is given again. What is claimed broken must be broken, and by a script that its attack allows.

A break proves itself in one forward pass; so does a lie about one. The nearest miss of a survivor is replayed too: if
it breaks the model, the survivor is none. Some texts are asked twice, in other company; and breaks that were found
for other models are tried on this one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from grit.bench.verify.case import Case, margin, short

if TYPE_CHECKING:
    import numpy as np

SECOND_LOOK = 128  # texts answered twice, in another order and other company

# --- scripts, before the model is asked ---------------------------------------------------------------


def words(case: Case) -> Iterator[str]:
    """Texts have as many words as the evidence says, and no script that came from an attack leaves them."""
    for name, outcomes in case.evidence.attacks.items():
        for outcome in outcomes:
            count = len(case.text(name, outcome.id).words)
            if outcome.words != count:
                yield f"{short(name)}: {outcome.id} has {count} words, the evidence says {outcome.words}"


def threat(case: Case) -> Iterator[str]:
    """Every break and every nearest miss lies in its attack's threat set."""
    from grit.bench import lexicons

    for name, outcome in case.scripted:
        reason = case.text(name, outcome.id).violation(outcome.script)
        if reason is not None:
            yield f"{short(name)}: the {outcome.outcome} script of {outcome.id} is outside the threat: {reason}"
    lexicons.keep()


def effort(case: Case) -> Iterator[str]:
    """An example survived only if something was asked about it, where there was anything to ask."""
    for name, outcomes in case.evidence.attacks.items():
        for outcome in outcomes:
            if outcome.outcome == "survived" and outcome.queries + outcome.gradients == 0:
                text = case.text(name, outcome.id)
                if any(text.candidates(index) for index in range(len(text.words))):
                    yield f"{short(name)}: {outcome.id} survived without a single question"


# --- answers ------------------------------------------------------------------------------------------


def clean(case: Case) -> Iterator[str]:
    """The model answers every untouched text as claimed."""
    for line in case.evidence.clean:
        logits = case.answers[case.examples[line.id].text]
        if problem := _differs(case, logits, line.label, line.predicted, line.margin):
            yield f"{line.id}: {problem}"


def breaks(case: Case) -> Iterator[str]:
    """The model is wrong on every text claimed broken, and says what it is claimed to say."""
    yield from _replayed(case, "broken")


def misses(case: Case) -> Iterator[str]:
    """The model is right on every nearest miss: a script that breaks is no survivor's."""
    yield from _replayed(case, "survived")


def _replayed(case: Case, kind: str) -> Iterator[str]:
    for name, outcomes in case.evidence.attacks.items():
        for outcome in outcomes:
            if outcome.outcome != kind:
                continue
            logits, label = case.answers[case.joined(name, outcome)], case.labels[outcome.id]
            breaks_here = is_break(case, logits, label)
            if kind == "broken" and int(logits.argmax()) == label and margin(logits, label) < -case.slack(logits):
                yield f"{short(name)}: {outcome.id} is claimed broken, the model is right on it"
            elif kind == "survived" and breaks_here:
                yield f"{short(name)}: {outcome.id} is claimed to survive, its own nearest miss breaks it"
            elif problem := _differs(case, logits, label, outcome.predicted, outcome.margin):
                yield f"{short(name)}: {outcome.id}: {problem}"


def is_break(case: Case, logits: np.ndarray, label: int) -> bool:
    """Whether logits [classes] are wrong by more than machines may differ."""
    return int(logits.argmax()) != label and margin(logits, label) > case.slack(logits)


def _differs(case: Case, logits: np.ndarray, label: int, predicted: int, claimed: float | None) -> str:
    here, slack = margin(logits, label), case.slack(logits)
    if int(logits.argmax()) != predicted and (slack == 0.0 or abs(here) > slack):
        return f"the model answers {int(logits.argmax())}, claimed is {predicted}"
    if claimed is None or not math.isfinite(claimed) or abs(here - claimed) > slack:
        return f"the margin is {here!r}, claimed is {claimed!r}"
    return ""


def company(case: Case) -> Iterator[str]:
    """Answers depend neither on the order of the texts, nor on which others are asked, nor on the time of asking."""
    chosen = sorted(case.answers, key=lambda text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    again = case.ask(chosen[:SECOND_LOOK], salt="second")
    for text, logits in again.items():
        if abs(logits - case.answers[text]).max() > case.slack(logits):
            yield "the same text gets another answer in other company: the model depends on batch, order or chance"
            return


def pool(case: Case) -> Iterator[str]:
    """Breaks found for other models are tried on this one. They lower the row: its own attacks missed them."""
    broken = {id for id, text in case.crossings if is_break(case, case.answers[text], case.labels[id])}
    case.crossed.extend(sorted(broken))
    yield from ()
