"""The fast lane: does the candidate fall for what broke the baseline?

The stored breaks of the baseline are replayed on the candidate's bytes: seconds instead of a search. What stands
then is an upper bound of robust accuracy, since nobody searched for breaks of the candidate itself; so a loss
seen here is real, and a pass here is a promise that a full run has to keep.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from grit.bench import compare, datasets, operands
from grit.bench.gate import Check
from grit.bench.gate.accuracy import ALPHA, MARGIN, judged
from grit.bench.operands import Operand
from grit.bench.types import CouldNotMeasure, Threat


def checks(
    baseline: str, candidate: str, margin: float = MARGIN, alpha: float = ALPHA, data: str | None = None
) -> Iterator[Check]:
    """Clean accuracy and the upper bound of worst-case accuracy, for every row of the baseline.

    data: a name or file to read instead of what the baseline's records name.
    """
    try:
        before = operands.rows(baseline)
        after = operands.artefacts(candidate)
        if len(before) == len(after) == 1:
            after = {before[0].label: next(iter(after.values()))}
        for row in before:
            if row.label not in after:
                raise CouldNotMeasure(f"no row {row.label!r} in {candidate}, which has {', '.join(after)}")
            yield from _of_row(row, after[row.label], margin, alpha, data)
    except CouldNotMeasure as error:
        yield Check(row="all", lane="fast", measure="replay", verdict="could not measure", message=str(error))


def _of_row(row: Operand, artefact: bytes, margin: float, alpha: float, data: str | None) -> Iterator[Check]:
    before = compare.right(row)
    after = replayed(row, artefact, data)
    for measure, shown in (("clean", "clean"), (compare.WORST, f"{compare.WORST}, upper bound by replay")):
        verdict, message, values = judged(before[measure], after[measure], margin, alpha / 2)
        yield Check(row=row.label, lane="fast", measure=shown, verdict=verdict, message=message, values=values)


def replayed(row: Operand, artefact: bytes, data: str | None = None) -> dict[str, dict[str, bool]]:
    """clean, worst case -> example id -> whether these bytes are right there, and on every stored break of it.

    Raises CouldNotMeasure: no evidence, the data is not here or is another revision, bytes that cannot be run.
    """
    from grit.bench.export import packing, words
    from grit.bench.sentence import Text

    if packing.is_bundle(artefact):
        raise CouldNotMeasure(f"{row.label} is a traced graph that leaves its tokenizer to code; compare full runs")
    if row.evidence is None:
        raise CouldNotMeasure(f"no evidence beside the record of {row.label} in {row.place}: attack it again")
    dataset = datasets.load(data or row.record.data.name)
    examples = {example.id: example for example in getattr(dataset, row.record.data.split)}
    if missing := [line.id for line in row.evidence.clean if line.id not in examples]:
        raise CouldNotMeasure(f"{dataset.name} lacks {len(missing)} examples of {row.label}: another revision of it")
    texts = [(line.id, examples[line.id].text) for line in row.evidence.clean]
    for outcomes in row.evidence.attacks.values():
        for outcome in outcomes:
            if outcome.outcome == "broken":
                original = Text(examples[outcome.id].text, Threat(), None)
                texts.append((outcome.id, original.apply(outcome.script)))
    answers = np.argmax(words.answer(packing.artefact(artefact), [text for _, text in texts]), axis=1)
    n = len(row.evidence.clean)
    is_right = [int(answer) == examples[id].label for (id, _), answer in zip(texts, answers, strict=True)]
    clean = {id: right for (id, _), right in zip(texts[:n], is_right[:n], strict=True)}
    standing = dict(clean)
    for (id, _), right in zip(texts[n:], is_right[n:], strict=True):
        standing[id] &= right
    return {"clean": clean, compare.WORST: standing}
