"""Is the candidate less accurate, on clean text or at worst, than a project is ready to lose?

The loss is paired: examples that only the baseline gets right, less those that only the candidate does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from grit.bench import compare, operands
from grit.bench.gate import Check, Verdict
from grit.bench.operands import Operand
from grit.bench.statistics import loss_bound, settling_n
from grit.bench.types import CouldNotMeasure

MARGIN = 0.02  # of accuracy: a loss up to two points is let through
ALPHA = 0.05  # chance that a row which lost no more than the margin fails, over both measures of a row
MEASURES = ("clean", compare.WORST)


def checks(baseline: str, candidate: str, margin: float = MARGIN, alpha: float = ALPHA) -> Iterator[Check]:
    """Clean and worst case of every row of the baseline against its counterpart.

    A missing counterpart is a check that could not be measured. Raises UsageError, CouldNotMeasure.
    """
    try:
        pairs = operands.paired(operands.rows(baseline), operands.rows(candidate))
    except CouldNotMeasure as error:
        yield Check(row="all", lane="accuracy", measure="pairing", verdict="could not measure", message=str(error))
        return
    for before, after in pairs:
        yield from _of_pair(before, after, margin, alpha)


def _of_pair(before: Operand, after: Operand, margin: float, alpha: float) -> Iterator[Check]:
    try:
        if reason := compare.same_measure(before.record, after.record):
            raise CouldNotMeasure(f"not the same measure: {reason}; run both with the same words")
        right_before, right_after = compare.right(before), compare.right(after)
    except CouldNotMeasure as error:
        yield Check(row=after.label, lane="accuracy", measure="both", verdict="could not measure", message=str(error))
        return
    for measure in MEASURES:
        verdict, message, values = judged(right_before[measure], right_after[measure], margin, alpha / len(MEASURES))
        yield Check(row=after.label, lane="accuracy", measure=measure, verdict=verdict, message=message, values=values)


def judged(
    before: Mapping[str, bool], after: Mapping[str, bool], margin: float, alpha: float
) -> tuple[Verdict, str, dict[str, float]]:
    """Verdict, words and numbers on one measure, from example id -> right.

    fail: the loss is significantly above the margin; pass: its upper bound is within; else inconclusive.
    Each bound is one-sided at ``alpha``. Equal vectors pass at once, whatever the margin.
    """
    n = len(before)
    lost = sum(before[id] and not after[id] for id in before)
    won = sum(after[id] and not before[id] for id in before)
    shares = f"{sum(before.values())}/{n} -> {sum(after.values())}/{n}"
    values = {"before": sum(before.values()) / n, "after": sum(after.values()) / n, "n": float(n)}
    if not lost and not won:
        return "pass", f"{shares}, alike on every example", values
    bounds = loss_bound(lost, won, n, 1 - alpha)
    values |= {"loss": (lost - won) / n, "loss_low": bounds.low, "loss_high": bounds.high}
    said = (
        f"{shares}, {lost} lost and {won} won; loss {_points(lost - won, n)}, "
        f"bounds {100 * bounds.low:+.1f} to {100 * bounds.high:+.1f} points, margin {100 * margin:.1f}"
    )
    if bounds.low > margin:
        return "fail", said, values
    if bounds.high <= margin:
        return "pass", said, values
    needed = settling_n(lost, won, n, margin, 1 - alpha)
    settle = "no n would settle it" if needed is None else f"about n = {needed:,} would settle it"
    return "inconclusive", f"{said}; {settle}", values


def _points(difference: int, n: int) -> str:
    return f"{100 * difference / n:+.1f}"
