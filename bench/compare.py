"""Two rows over the same examples: what differs, whether chance could have done it, and what only one survives.

Paired tests see what two separate intervals cannot: at n = 1,000 two accuracies two points apart are told apart
seven times of ten if the models differ on 6 % of the examples, and almost never if they are taken for strangers.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from grit.bench import records
from grit.bench.operands import Operand
from grit.bench.records import Evidence, Record
from grit.bench.types import CouldNotMeasure

ALPHA = 0.05  # family-wise, over the lines of one comparison
WORST = "worst case"
# Costs for people; the rest is in the JSON.
_SHOWN = ("total_bytes", "p50_us", "p50_instructions", "ram_bytes", "stack_bytes")


class Difference(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One measure of both rows on the same ``n`` examples."""

    measure: str  # clean, an attack's full name, or the worst case
    n: int
    first: int  # right in the first row
    second: int
    only_first: int
    only_second: int
    p: float  # exact McNemar, after Holm over all lines
    low: float  # second minus first: 95 % paired bootstrap interval
    high: float

    @property
    def change(self) -> float:
        return (self.second - self.first) / self.n

    @property
    def significant(self) -> bool:
        return self.p <= ALPHA


class Cost(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One cost that both rows state."""

    name: str  # total_bytes, or target:engine:value:kind
    first: float
    second: float


class Comparison(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``only_first``, ``only_second``: ids of the examples that one row alone survives, under every attack."""

    first: str
    second: str
    data: str
    n: int
    differences: tuple[Difference, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    costs: tuple[Cost, ...]
    sentence: str


def compare(first: Operand, second: Operand) -> Comparison:
    """The paired comparison of two rows. Raises CouldNotMeasure where they are not over the same things."""
    import numpy as np

    from grit.bench import statistics

    names = _names(first, second)
    one, other = right(first), right(second)
    found = []
    for measure in one:
        a = np.array([one[measure][id] for id in sorted(one[measure])])
        b = np.array([other[measure][id] for id in sorted(other[measure])])
        interval = statistics.paired_bootstrap(b, a)
        lost, won = int((a & ~b).sum()), int((b & ~a).sum())
        found.append((measure, int(a.sum()), int(b.sum()), lost, won, statistics.mcnemar(lost, won), interval))
    adjusted = statistics.holm([line[5] for line in found])
    differences = tuple(
        Difference(
            measure=measure,
            n=first.record.data.n,
            first=a,
            second=b,
            only_first=lost,
            only_second=won,
            p=float(p),
            low=interval.low,
            high=interval.high,
        )
        for (measure, a, b, lost, won, _, interval), p in zip(found, adjusted, strict=True)
    )
    worst = {id: (one[WORST][id], other[WORST][id]) for id in sorted(one[WORST])}
    return Comparison(
        first=names[0],
        second=names[1],
        data=first.record.data.name,
        n=first.record.data.n,
        differences=differences,
        only_first=tuple(id for id, stands in worst.items() if stands == (True, False)),
        only_second=tuple(id for id, stands in worst.items() if stands == (False, True)),
        costs=_costs(first.record, second.record),
        sentence=_sentence(names, differences, first.record, second.record),
    )


def right(operand: Operand) -> dict[str, dict[str, bool]]:
    """measure -> example id -> whether the row is right there: clean, each attack that saw all, the worst case."""
    evidence = operand.evidence
    if evidence is None:
        raise CouldNotMeasure(f"no evidence beside the record of {operand.label} in {operand.place}: attack it again")
    found: dict[str, dict[str, bool]] = {"clean": {line.id: line.right for line in evidence.clean}}
    for name, outcomes in sorted(evidence.attacks.items()):
        found[name] = _under(evidence, {outcome.id: outcome.outcome == "survived" for outcome in outcomes})
    return {**found, WORST: evidence.robust()}


def _under(evidence: Evidence, survived: Mapping[str, bool]) -> dict[str, bool]:
    """An example that an attack did not see had fallen to one before it."""
    return {line.id: survived.get(line.id, False) for line in evidence.clean}


def same_measure(first: Record, second: Record) -> str:
    """Why two rows are not over the same examples and attacks, or nothing."""
    a, b = first.data, second.data
    for what in ("name", "revision", "split", "n", "selection"):
        if getattr(a, what) != getattr(b, what):
            return f"{what} of the data is {getattr(a, what)!r} in one and {getattr(b, what)!r} in the other"
    attacks = [
        {attack.name: (attack.parameters_sha256, attack.lexicon_sha256) for attack in record.attacks}
        for record in (first, second)
    ]
    for name in sorted({*attacks[0], *attacks[1]}):
        if attacks[0].get(name) != attacks[1].get(name):
            return f"attack {name} " + (
                "is set up otherwise" if name in attacks[0] and name in attacks[1] else "was made on one of them only"
            )
    return ""


def _names(first: Operand, second: Operand) -> tuple[str, str]:
    if reason := same_measure(first.record, second.record):
        raise CouldNotMeasure(
            f"{first.label} and {second.label} cannot be compared: {reason}; run both with the same words"
        )
    if first.label != second.label:
        return first.label, second.label
    return f"{first.label} ({first.place})", f"{second.label} ({second.place})"


def _costs(first: Record, second: Record) -> tuple[Cost, ...]:
    def stated(record: Record) -> dict[str, float]:
        cells = {
            f"{cell.target}:{cell.engine}:{name}:{cell.kind}": value
            for cell in record.costs
            for name, value in sorted(cell.values.items())
        }
        total = record.artefact.total_bytes
        return cells if total is None else {"total_bytes": total, **cells}

    a, b = stated(first), stated(second)
    return tuple(Cost(name=name, first=a[name], second=b[name]) for name in a if name in b)


def _sentence(names: tuple[str, str], differences: tuple[Difference, ...], first: Record, second: Record) -> str:
    """What a reader may take away, and no more."""
    by_name = {difference.measure: difference for difference in differences}
    worst, clean = by_name[WORST], by_name["clean"]
    text = f"{names[1]} {_said(worst, 'more robust', 'less robust')} than {names[0]}"
    text += f", and {_said(clean, 'more accurate', 'less accurate')} on clean text"
    sizes = first.artefact.total_bytes, second.artefact.total_bytes
    if sizes[0] and sizes[1] and sizes[0] != sizes[1]:
        text += f"; it takes {sizes[1] / sizes[0]:.2f} times the bytes"
    return f"{text} (n = {worst.n})."


def _said(difference: Difference, more: str, less: str) -> str:
    points = f"{abs(100 * difference.change):.1f} points"
    if not difference.only_first and not difference.only_second:
        return f"is neither {more} nor {less}, answering alike on every example,"
    if not difference.significant:
        return f"cannot be told to be {more} or {less} ({100 * difference.change:+.1f} points, p = {difference.p:.2g})"
    return f"is {points} {more if difference.change > 0 else less} (p = {difference.p:.2g})"


def render(comparison: Comparison) -> str:
    """Lines for people."""
    lines = [
        f"first   {comparison.first}",
        f"second  {comparison.second}",
        f"{comparison.data}, n = {comparison.n}; second - first with its 95 % paired interval, exact McNemar, Holm",
        "",
        f"{'':32} {'first':>7} {'second':>7} {'change':>7} {'95 %':>15} {'only 1st':>8} {'only 2nd':>8} {'p':>8}",
    ]
    for line in comparison.differences:
        shares = f"{100 * line.first / line.n:7.1f} {100 * line.second / line.n:7.1f} {100 * line.change:+7.1f}"
        interval = f"[{100 * line.low:+.1f}, {100 * line.high:+.1f}]"
        only = f"{line.only_first:8d} {line.only_second:8d}"
        lines.append(
            f"{line.measure:32} {shares} {interval:>15} {only} {line.p:8.2g}{' *' if line.significant else ''}"
        )
    shown = [cost for cost in comparison.costs if any(name in _SHOWN for name in cost.name.split(":"))]
    if shown:
        lines.append("")
        for cost in shown:
            ratio = f"x {cost.second / cost.first:.3g}" if cost.first else ""
            lines.append(f"{cost.name:52} {cost.first:>14,.6g} {cost.second:>14,.6g} {ratio:>9}")
    lines += ["", comparison.sentence]
    return "\n".join(lines)


def encode(comparison: Comparison) -> bytes:
    """Canonical JSON."""
    return records.encode(comparison)
