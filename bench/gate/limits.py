"""Counts against limits: deployed bytes, instructions on a core. Counts have no noise, so nothing is tested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from grit.bench import operands
from grit.bench.gate import Check
from grit.bench.operands import Operand
from grit.bench.types import CouldNotMeasure, UsageError

INSTRUCTIONS = "p50_instructions"  # of the median text


def parse(pairs: Sequence[str]) -> dict[str, int]:
    """('emu://cortex-m4=3000000',) -> target to limit."""
    found = {}
    for pair in pairs:
        target, equals, limit = pair.rpartition("=")
        if not equals or not limit.isdecimal():
            raise UsageError(f"instruction limit {pair!r}: expected TARGET=COUNT, as emu://cortex-m4=3000000")
        found[target] = int(limit)
    return found


def checks(candidate: str, max_bytes: int | None, max_instructions: Mapping[str, int]) -> Iterator[Check]:
    """Every row of the candidate against every limit."""
    try:
        if max_bytes is not None:
            for label, size in _sizes(candidate).items():
                yield _check(label, "total_bytes", size, max_bytes, "bytes")
        for target, limit in max_instructions.items():
            for row in operands.rows(candidate):
                yield _check(row.label, f"instructions on {target}", _instructions(row, target), limit, "instructions")
    except CouldNotMeasure as error:
        yield Check(row="all", lane="limits", measure="counts", verdict="could not measure", message=str(error))


def _sizes(candidate: str) -> dict[str, int | None]:
    """Deployed bytes of each row as recorded; of a row that was only trained, as its artefact states them."""
    from grit.bench.export import packing

    try:
        return {row.label: row.record.artefact.total_bytes for row in operands.rows(candidate)}
    except CouldNotMeasure:
        found = operands.artefacts(candidate)
        return {
            label: None if packing.is_bundle(data) else sum(packing.artefact(data).sizes_bytes.values())
            for label, data in found.items()
        }


def _check(row: str, measure: str, value: int | None, limit: int, unit: str) -> Check:
    if value is None:
        message = f"not in the record; 'grit run --target {measure.split()[-1]}' or 'grit measure' counts it"
        return Check(row=row, lane="limits", measure=measure, verdict="could not measure", message=message)
    within = value <= limit
    message = f"{value:,} {unit}, limit {limit:,}" + ("" if within else f": {value - limit:,} too many")
    values = {"value": float(value), "limit": float(limit)}
    return Check(
        row=row, lane="limits", measure=measure, verdict="pass" if within else "fail", message=message, values=values
    )


def _instructions(row: Operand, target: str) -> int | None:
    """Of the median text, by the cheapest engine that was counted."""
    found = [
        int(cell.values[INSTRUCTIONS])
        for cell in row.record.costs
        if cell.target == target and INSTRUCTIONS in cell.values
    ]
    return min(found, default=None)
