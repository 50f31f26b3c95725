"""The gate of continuous integration: may a candidate take the place of a baseline?

A gate that cries wolf is switched off, and one that sleeps is worse. So a loss is tested on the same examples,
against the margin that a project is ready to lose; what cannot be told is called inconclusive, with the number
of examples that would tell; and what was not measured never passes. Counts are compared exactly, and a clock is
only believed when both rows ran in turns on one machine.

Lanes: `accuracy` (clean and worst case, from two full runs), `fast` (the stored breaks replayed on new bytes),
`limits` (bytes, instructions), `clock` (interleaved times). What comes out of them is written by `outputs`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from grit.bench import records

Verdict = Literal["pass", "fail", "inconclusive", "could not measure"]
_CODES: dict[Verdict, int] = {"fail": 1, "could not measure": 4, "inconclusive": 3, "pass": 0}  # the gravest first


class Check(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One question to one row, and its answer in words and numbers. Ratios lie in [0, 1]."""

    row: str
    lane: Literal["accuracy", "fast", "limits", "clock"]
    measure: str
    verdict: Verdict
    message: str
    values: dict[str, float] = {}


class Report(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="schema_version", tag=1):
    """All checks of one gate; its code is that of the gravest."""

    baseline: str
    candidate: str
    verdict: Verdict
    code: int
    checks: tuple[Check, ...]


def report(baseline: str, candidate: str, checks: Iterable[Check]) -> Report:
    """The checks, judged together: a gate that checked nothing could not measure."""
    done = tuple(checks)
    verdicts = {check.verdict for check in done} or {"could not measure"}
    verdict = next(verdict for verdict in _CODES if verdict in verdicts)
    return Report(baseline=baseline, candidate=candidate, verdict=verdict, code=_CODES[verdict], checks=done)


def encode(found: Report) -> bytes:
    """Canonical JSON."""
    return records.encode(found)


def render(found: Report) -> str:
    """Lines for people, the gravest check first."""
    order = list(_CODES)
    lines = [
        f"{check.verdict:17} {check.row}: {check.measure}: {check.message}"
        for check in sorted(found.checks, key=lambda check: order.index(check.verdict))
    ]
    return "\n".join([*lines, f"gate: {found.verdict}"])
