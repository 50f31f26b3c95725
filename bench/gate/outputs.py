"""What continuous integration reads: JUnit XML, a Markdown summary, benchmark JSON, and a history in a plain file."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from msgspec import Struct

from grit import __version__
from grit.bench import machine, records
from grit.bench.gate import Check, Report
from grit.bench.gate.clock import Turns
from grit.bench.statistics import change_points

_MARKS = {"pass": "pass", "fail": "**fail**", "inconclusive": "*inconclusive*", "could not measure": "*not measured*"}


def junit(report: Report) -> bytes:
    """A test case a check: fail is a failure, could not measure an error, inconclusive a skip with its reason."""
    counts = {verdict: sum(check.verdict == verdict for check in report.checks) for verdict in _MARKS}
    suite = ElementTree.Element(
        "testsuite",
        name="grit gate",
        tests=str(len(report.checks)),
        failures=str(counts["fail"]),
        errors=str(counts["could not measure"]),
        skipped=str(counts["inconclusive"]),
    )
    for check in report.checks:
        case = ElementTree.SubElement(suite, "testcase", classname=f"grit.gate.{check.lane}", name=_name(check))
        match check.verdict:
            case "fail":
                ElementTree.SubElement(case, "failure", message=check.message)
            case "could not measure":
                ElementTree.SubElement(case, "error", message=check.message)
            case "inconclusive":
                ElementTree.SubElement(case, "skipped", message=f"inconclusive: {check.message}")
            case "pass":
                ElementTree.SubElement(case, "system-out").text = check.message
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def markdown(report: Report, trends: Sequence[str] = ()) -> str:
    """A summary for the page of a job."""
    lines = [f"### grit gate: {report.verdict}", "", f"`{report.baseline}` -> `{report.candidate}`", ""]
    lines += ["| row | check | verdict | |", "| --- | --- | --- | --- |"]
    for check in report.checks:
        cells = (check.row, check.measure, _MARKS[check.verdict], check.message)
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    if trends:
        lines += ["", *(f"- {trend}" for trend in trends)]
    return "\n".join(lines) + "\n"


def action_benchmark(report: Report) -> bytes:
    """Entries for github-action-benchmark's tool customSmallerIsBetter; accuracy appears as its error, in percent."""
    entries = []
    for check in report.checks:
        match check.values:
            case {"after": after}:
                entries.append(_entry(check, "% wrong", round(100 * (1 - after), 4)))
            case {"value": value}:
                entries.append(_entry(check, "bytes" if check.measure == "total_bytes" else "instructions", value))
            case {"after_us": time_us}:
                entries.append(_entry(check, "us", round(time_us, 3)))
    return json.dumps(entries, indent=2).encode() + b"\n"


def _entry(check: Check, unit: str, value: float) -> dict[str, Any]:
    return {"name": _name(check), "unit": unit, "value": value, "extra": check.message}


def _name(check: Check) -> str:
    return f"{check.row}: {check.measure}"


def pytest_benchmark(times: Mapping[str, Turns], now: datetime | None = None) -> bytes:
    """The times of the clock lane as pytest-benchmark stores them, for its `compare`: two benchmarks a row."""
    benchmarks = [
        _benchmark(f"{row}[{side}]", row, [value / 1e6 for value in values])
        for row, turns in times.items()
        for side, values in (("baseline", turns.before_us), ("candidate", turns.after_us))
    ]
    document = {
        "machine_info": machine.facts() | {"python_version": machine.versions()["python"].split()[-1]},
        "commit_info": {},
        "benchmarks": benchmarks,
        "datetime": (now or datetime.now(UTC)).isoformat(),
        "version": f"gritbench {__version__}",
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def _benchmark(name: str, group: str, seconds: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(seconds)
    q1, median, q3 = statistics.quantiles(ordered, n=4, method="inclusive")
    mean = statistics.fmean(ordered)
    return {
        "group": group,
        "name": name,
        "fullname": f"grit gate::{name}",
        "params": None,
        "param": None,
        "extra_info": {},
        "options": {"timer": "perf_counter_ns", "disable_gc": True, "warmup": True},
        "stats": {
            "min": ordered[0],
            "max": ordered[-1],
            "mean": mean,
            "stddev": statistics.stdev(ordered),
            "rounds": len(ordered),
            "median": median,
            "iqr": q3 - q1,
            "q1": q1,
            "q3": q3,
            "iqr_outliers": sum(not q1 - 1.5 * (q3 - q1) <= value <= q3 + 1.5 * (q3 - q1) for value in ordered),
            "stddev_outliers": sum(abs(value - mean) > statistics.stdev(ordered) for value in ordered),
            "outliers": "",
            "ld15iqr": ordered[0],
            "hd15iqr": ordered[-1],
            "ops": 1 / mean,
            "total": sum(ordered),
            "iterations": 1,
            "data": list(seconds),
        },
    }


# --- history ------------------------------------------------------------------------------------------


class Entry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="schema_version", tag=1):
    """One gate in the history: ``label`` names the candidate, such as a commit."""

    label: str
    created: str  # UTC, ISO 8601
    verdict: str
    values: dict[str, float]  # 'row: measure' -> the candidate's number


def remember(path: Path, report: Report, label: str, now: datetime | None = None) -> list[Entry]:
    """Adds a gate to a history, a JSON line each, and gives it whole. Raises MalformedInput, StorageError."""
    history = [*read_history(path), _remembered(report, label, now or datetime.now(UTC))]
    records.write(path, b"".join(records.encode(entry) + b"\n" for entry in history))
    return history


def read_history(path: Path) -> list[Entry]:
    """The entries of a history; none where there is no file yet."""
    lines = records.read(path).splitlines() if path.exists() else []
    return [records.decoded(line, Entry, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _remembered(report: Report, label: str, now: datetime) -> Entry:
    values = {
        _name(check): check.values[key]
        for check in report.checks
        for key in ("after", "value", "after_us")
        if key in check.values
    }
    return Entry(label=label, created=now.isoformat(timespec="seconds"), verdict=report.verdict, values=values)


def trends(history: Sequence[Entry]) -> list[str]:
    """A line for every place where a number changed its level for good."""
    found = []
    for name in sorted({name for entry in history for name in entry.values}):
        known = [(entry.label, entry.values[name]) for entry in history if name in entry.values]
        cuts = change_points([value for _, value in known])
        for start, cut, stop in zip((0, *cuts), cuts, (*cuts[1:], len(known)), strict=False):
            before = statistics.median(value for _, value in known[start:cut])
            after = statistics.median(value for _, value in known[cut:stop])
            found.append(f"{name} changed its level at {known[cut][0]}: {before:.4g} -> {after:.4g}")
    return found
