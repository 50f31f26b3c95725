"""The clock lane: both rows answer the same texts in turns, in one process on one machine.

Two times of one program differ by load, clock rate and luck. Turns share these between the rows; what is left is
measured by `grit calibrate`, which runs a row against itself: a slow-down counts only above the largest difference
that was seen between equals, and only if a rank test sees it too.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from grit.bench import datasets, machine, operands, records
from grit.bench.gate import Check
from grit.bench.statistics import mann_whitney
from grit.bench.types import Artefact, CouldNotMeasure, UsageError

ROUNDS = 30  # of all texts, a comparison
TEXTS = 30
PAIRS = 50  # A/A comparisons of a calibration: one of 51 equals exceeds the largest of 50
ALPHA = 0.01


class Calibration(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="schema_version", tag=1):
    """How far two equal programs were apart on one machine: the log of the ratio of median times, each A/A pair."""

    row: str
    machine: records.Fields
    rounds: Annotated[int, Meta(ge=2)]
    effects: Annotated[tuple[float, ...], Meta(min_length=1)]

    @property
    def least(self) -> float:
        """The smallest slow-down that counts, as the log of a ratio."""
        return max(map(abs, self.effects))


class Turns(Struct, frozen=True, kw_only=True):
    """Times in microseconds, one a round of all texts, of two rows that took turns."""

    before_us: tuple[float, ...]
    after_us: tuple[float, ...]

    @property
    def effect(self) -> float:
        """log(median after / median before): 0.05 is 5 % slower."""
        return math.log(_median(self.after_us) / _median(self.before_us))


def checks(
    baseline: str, candidate: str, calibration: Calibration | None, data: str | None = None
) -> Iterator[tuple[Check, Turns | None]]:
    """Every row of the baseline against its counterpart, and the times behind each check."""
    try:
        if calibration is None:
            raise CouldNotMeasure("no calibration of this machine; make one with 'grit calibrate MODEL -o FILE'")
        if not machine.same(calibration.machine, machine.facts()):
            raise CouldNotMeasure("the calibration is of another machine; run 'grit calibrate' on this one")
        before = operands.rows(baseline)
        after = operands.artefacts(candidate)
        if len(before) == len(after) == 1:
            after = {before[0].label: next(iter(after.values()))}
        for row in before:
            if row.label not in after or row.artefact is None:
                raise CouldNotMeasure(f"{row.label} has no bytes in {candidate if row.artefact else row.place}")
            texts = sample(data or row.record.data.name)
            turns = in_turns(runnable(row.artefact), runnable(after[row.label]), texts, calibration.rounds)
            yield judged(row.label, turns, calibration.least), turns
    except CouldNotMeasure as error:
        check = Check(row="all", lane="clock", measure="time", verdict="could not measure", message=str(error))
        yield check, None


def judged(row: str, turns: Turns, least: float) -> Check:
    """fail: slower by more than equals ever were, and by a rank test too; pass: not slower by that much."""
    test = mann_whitney(turns.after_us, turns.before_us)
    ratio = math.exp(turns.effect)
    message = (
        f"{_median(turns.before_us):.4g} -> {_median(turns.after_us):.4g} us a text, x {ratio:.3f}, p = {test.p:.2g}; "
        f"equals differ by up to x {math.exp(least):.3f}"
    )
    values = {"ratio": ratio, "before_us": _median(turns.before_us), "after_us": _median(turns.after_us), "p": test.p}
    if turns.effect <= least:
        verdict = "pass"
    else:
        verdict = "fail" if test.p <= ALPHA else "inconclusive"
    return Check(row=row, lane="clock", measure="time", verdict=verdict, message=message, values=values)  # type: ignore[arg-type]  # one of three


def calibrate(operand: str, pairs: int = PAIRS, rounds: int = ROUNDS, data: str | None = None) -> Calibration:
    """A row against itself, ``pairs`` times. Raises UsageError where the operand names several rows."""
    rows = operands.rows(operand)
    if len(rows) > 1:
        raise UsageError(f"{operand} holds {len(rows)} rows: name one, RUN/model/ROW")
    row = rows[0]
    if row.artefact is None:
        raise CouldNotMeasure(f"{row.label} has no bytes in {row.place}")
    texts = sample(data or row.record.data.name)
    # Two copies, as a baseline and a candidate would be: each with memory of its own.
    first, second = runnable(row.artefact), runnable(row.artefact)
    effects = [in_turns(first, second, texts, rounds).effect for _ in range(pairs)]
    return Calibration(
        row=row.label, machine=machine.facts(), rounds=rounds, effects=tuple(round(effect, 6) for effect in effects)
    )


def read(path: Path) -> Calibration:
    """The file of a calibration. Raises MalformedInput, StorageError."""
    return records.decoded(records.read(path), Calibration, str(path))


def sample(name: str) -> list[str]:
    """The texts to time: some of the dev split."""
    dataset = datasets.load(name)
    return [example.text for example in datasets.subset(dataset.dev, TEXTS, dataset.name)]


def runnable(data: bytes) -> Artefact:
    from grit.bench.export import packing

    if packing.is_bundle(data):
        raise CouldNotMeasure("a traced graph leaves its tokenizer to code: its time is not comparable here")
    return packing.artefact(data)


def in_turns(
    before: Artefact,
    after: Artefact,
    texts: Sequence[str],
    rounds: int,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Turns:
    """Each text by both, the first mover changing from text to text and from round to round."""
    from grit.bench.export import words

    def timed(artefact: Artefact, raw: str) -> int:
        start = clock()
        words.answer(artefact, [raw])
        return clock() - start

    for artefact in (before, after):  # warm: all words are known, all memory is touched
        for raw in texts:
            words.answer(artefact, [raw])
    spent: dict[str, list[float]] = {"before": [], "after": []}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            total = {"before": 0, "after": 0}
            for place, raw in enumerate(texts):
                order: Any = [("before", before), ("after", after)]
                for side, artefact in order if (turn + place) % 2 else reversed(order):
                    total[side] += timed(artefact, raw)
            for side, nanoseconds in total.items():
                spent[side].append(nanoseconds / 1000 / len(texts))
    finally:
        if collecting:
            gc.enable()
    return Turns(before_us=tuple(spent["before"]), after_us=tuple(spent["after"]))


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return (ordered[half] + ordered[-half - 1]) / 2
