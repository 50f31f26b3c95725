"""The gate: it finds what it should with the power that theory gives, and rarely cries wolf."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import gate, machine, operands, records, submission
from grit.bench.gate import Check, accuracy, clock, fast, limits, outputs
from grit.bench.types import CouldNotMeasure, UsageError

sys.path.append(str(Path(__file__).parent))

from golden_bundles import apart, by_chance_artefact, honest, put_together
from made_rows import row_of
from test_compare import run_folder

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def vectors(before: np.ndarray, after: np.ndarray) -> tuple[dict[str, bool], dict[str, bool]]:
    return (
        {str(at): bool(hit) for at, hit in enumerate(before)},
        {str(at): bool(hit) for at, hit in enumerate(after)},
    )


def verdicts(found: list[Check]) -> dict[str, str]:
    return {check.measure: check.verdict for check in found}


def check(verdict: Any, measure: str = "clean", **values: float) -> Check:
    return Check(row="student", lane="accuracy", measure=measure, verdict=verdict, message="a | b", values=values)


# --- the whole report ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "verdict", "code"),
    [
        (["pass"], "pass", 0),
        (["pass", "fail"], "fail", 1),
        (["inconclusive", "pass"], "inconclusive", 3),
        (["inconclusive", "could not measure"], "could not measure", 4),
        (["could not measure", "fail", "inconclusive"], "fail", 1),
        ([], "could not measure", 4),
    ],
)
def test_the_gravest_check_decides_and_nothing_checked_is_no_pass(found: list[str], verdict: str, code: int) -> None:
    report = gate.report("a", "b", map(check, found))
    assert (report.verdict, report.code) == (verdict, code)
    assert gate.render(report).endswith(f"gate: {verdict}")
    assert json.loads(gate.encode(report))["code"] == code


# --- accuracy -----------------------------------------------------------------------------------------------


def test_equal_answers_pass_at_once_even_without_a_margin() -> None:
    before, after = vectors(np.arange(100) < 60, np.arange(100) < 60)
    verdict, message, _ = accuracy.judged(before, after, 0.0, 0.05)
    assert verdict == "pass" and "alike on every example" in message


def test_a_large_loss_fails_a_small_one_passes_and_a_doubtful_one_says_what_would_settle_it() -> None:
    before = np.arange(1000) < 600
    lost = before & ~((np.arange(1000) >= 500) & (np.arange(1000) < 600))
    assert accuracy.judged(*vectors(before, lost), 0.02, 0.05)[0] == "fail"
    assert accuracy.judged(*vectors(lost, before), 0.02, 0.05)[0] == "pass"
    slight = before & ~((np.arange(1000) >= 595) & (np.arange(1000) < 600))
    assert accuracy.judged(*vectors(before, slight), 0.02, 0.05)[0] == "pass"
    doubtful = before & ~((np.arange(1000) >= 575) & (np.arange(1000) < 600))
    verdict, message, values = accuracy.judged(*vectors(before, doubtful), 0.02, 0.05)
    assert verdict == "inconclusive" and "would settle it" in message
    assert values["loss"] == 0.025 and values["loss_low"] < 0.02 < values["loss_high"]


def test_a_loss_just_at_the_margin_is_settled_by_no_n() -> None:
    before = np.arange(100) < 60
    after = before & ~((np.arange(100) >= 58) & (np.arange(100) < 60))
    verdict, message, _ = accuracy.judged(*vectors(before, after), 0.02, 0.05)
    assert verdict == "inconclusive" and "no n would settle it" in message


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.sampled_from([0.0, 0.02, 0.2]))
def test_a_larger_margin_never_makes_a_verdict_worse(pairs: list[tuple[bool, bool]], margin: float) -> None:
    before, after = vectors(*np.array(pairs).T)
    order = ["pass", "inconclusive", "fail"]
    strict, lax = (accuracy.judged(before, after, each, 0.05)[0] for each in (margin, margin + 0.1))
    assert order.index(lax) <= order.index(strict)


def drawn(rng: np.random.Generator, n: int, loss: float, discordant: float) -> tuple[np.ndarray, np.ndarray]:
    """Two rows that differ on a share of the examples, the second worse by ``loss``."""
    kind = rng.random(n)
    lost, won = (discordant + loss) / 2, (discordant - loss) / 2
    right = rng.random(n) < 0.6
    return np.where(kind < lost, True, np.where(kind < lost + won, False, right)), np.where(
        kind < lost, False, np.where(kind < lost + won, True, right)
    )


def test_two_trainings_that_are_worth_the_same_rarely_fail() -> None:
    """400 pairs whose true loss is the whole margin: at most alpha of them may fail, but for the luck of 400."""
    rng = np.random.default_rng(0)
    pairs, alpha, margin = 400, 0.05, 0.02
    failed = sum(
        accuracy.judged(*vectors(*drawn(rng, 1000, margin, 0.08)), margin, alpha)[0] == "fail" for _ in range(pairs)
    )
    assert failed <= alpha * pairs + 3 * math.sqrt(pairs * alpha * (1 - alpha))
    rng = np.random.default_rng(1)
    failed = sum(
        accuracy.judged(*vectors(*drawn(rng, 1000, 0.0, 0.08)), margin, alpha)[0] == "fail" for _ in range(200)
    )
    assert failed == 0, "equals are two points away from the margin"


def test_a_true_loss_of_three_points_is_found_with_the_power_that_theory_gives() -> None:
    rng = np.random.default_rng(2)
    pairs, n, loss, discordant, alpha = 400, 1000, 0.03, 0.06, 0.05
    found = sum(
        accuracy.judged(*vectors(*drawn(rng, n, loss, discordant)), 0.0, alpha)[0] == "fail" for _ in range(pairs)
    )
    spread = math.sqrt((discordant - loss * loss) / n)
    null = math.sqrt(discordant / n)
    from statistics import NormalDist

    power = 1 - NormalDist().cdf((NormalDist().inv_cdf(1 - alpha) * null - loss) / spread)
    assert power > 0.98
    assert abs(found / pairs - power) < 4 * math.sqrt(power * (1 - power) / pairs) + 0.01
    passed = sum(
        accuracy.judged(*vectors(*drawn(rng, n, loss, discordant)), 0.02, alpha)[0] == "pass" for _ in range(pairs)
    )
    assert passed <= 0.01 * pairs, "a loss beyond the margin is at most called inconclusive"


def test_rows_of_two_folders_are_paired_and_judged(tmp_path: Path) -> None:
    old = run_folder(tmp_path / "old", row_of("student", robust=0.5), row_of("prado", robust=0.5))
    new = run_folder(tmp_path / "new", row_of("prado", robust=0.5), row_of("student", robust=0.3))
    found = list(accuracy.checks(str(old), str(new)))
    by_row = {(each.row.split()[0], each.measure): each.verdict for each in found}
    assert by_row == {
        ("student", "clean"): "pass",
        ("student", "worst case"): "fail",
        ("prado", "clean"): "pass",
        ("prado", "worst case"): "pass",
    }


def test_what_cannot_be_paired_or_compared_is_not_measured(tmp_path: Path) -> None:
    old = run_folder(tmp_path / "old", row_of("student"), row_of("prado"))
    new = run_folder(tmp_path / "new", row_of("student"), row_of("tfidf"))
    (only,) = accuracy.checks(str(old), str(new))
    assert only.verdict == "could not measure" and "no row 'prado natural seed 0'" in only.message
    other = run_folder(tmp_path / "other", row_of("student", n=500), row_of("prado", evidence=False))
    found = list(accuracy.checks(str(old), str(other)))
    assert [each.verdict for each in found] == ["could not measure"] * 2
    assert "n of the data is 1000 in one and 500" in found[0].message
    assert "no evidence beside the record" in found[1].message


# --- limits -------------------------------------------------------------------------------------------------


def test_bytes_are_compared_to_the_byte(tmp_path: Path) -> None:
    folder = str(run_folder(tmp_path, row_of(size=100_000, n=40)))
    (at,) = limits.checks(folder, 100_000, {})
    (above,) = limits.checks(folder, 99_999, {})
    assert (at.verdict, above.verdict) == ("pass", "fail")
    assert "100,000 bytes, limit 99,999: 1 too many" in above.message
    assert list(limits.checks(folder, None, {})) == []


def test_instructions_are_those_of_the_record_or_not_measured(tmp_path: Path) -> None:
    row = row_of(n=40)
    cells = tuple(
        records.CostPart(target="emu://cortex-m4", engine=engine, kind="emulated", values={"p50_instructions": count})
        for engine, count in (("c", 3_000_000), ("c-fp32", 9_000_000))
    )
    record = msgspec.structs.replace(row.record, cost=cells)
    folder = str(run_folder(tmp_path, records.Row(record, row.evidence)))
    asked = limits.parse(["emu://cortex-m4=3000000", "emu://cortex-a53=1"])
    found = list(limits.checks(folder, None, asked))
    assert [each.verdict for each in found] == ["pass", "could not measure"]
    assert "grit run --target emu://cortex-a53" in found[1].message
    (tight,) = limits.checks(folder, None, {"emu://cortex-m4": 2_999_999})
    assert tight.verdict == "fail"


@pytest.mark.parametrize("pair", ["emu://cortex-m4", "emu://cortex-m4=", "emu://cortex-m4=many", "=-3"])
def test_a_limit_that_is_none_is_refused(pair: str) -> None:
    with pytest.raises(UsageError, match="expected TARGET=COUNT"):
        limits.parse([pair])


def test_a_folder_without_rows_has_no_counts(tmp_path: Path) -> None:
    (only,) = limits.checks(str(tmp_path), 10, {})
    assert only.verdict == "could not measure"


# --- replay -------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    submission.write(tmp_path / "base", honest())
    return tmp_path / "base"


def test_a_row_falls_for_its_own_breaks_and_for_nothing_else(bundle: Path) -> None:
    (row,) = operands.rows(str(bundle))
    assert row.artefact is not None and row.evidence is not None
    found = fast.replayed(row, row.artefact)
    assert found["clean"] == {line.id: line.right for line in row.evidence.clean}
    assert found["worst case"] == row.evidence.robust()
    assert verdicts(list(fast.checks(str(bundle), str(bundle)))) == {
        "clean": "pass",
        "worst case, upper bound by replay": "pass",
    }


def test_other_bytes_are_judged_by_their_own_answers(bundle: Path, tmp_path: Path) -> None:
    (row,) = operands.rows(str(bundle))
    parts = apart(honest())
    parts.model["artefact.safetensors"] = by_chance_artefact()
    submission.write(tmp_path / "other", put_together(parts))
    found = fast.replayed(row, by_chance_artefact())
    clean, standing = found["clean"], found["worst case"]
    assert all(clean[id] for id, stands in standing.items() if stands), "nothing stands that was wrong before"
    checks = list(fast.checks(str(bundle), str(tmp_path / "other")))
    assert [each.values["after"] for each in checks] == [
        pytest.approx(sum(each.values()) / len(each)) for each in (clean, standing)
    ]


def test_data_that_is_another_revision_is_not_replayed(bundle: Path, tmp_path: Path) -> None:
    (row,) = operands.rows(str(bundle))
    file = tmp_path / "mine.csv"
    file.write_text("text,label\n" + "\n".join(f"some words here {at},{at % 2}" for at in range(60)) + "\n")
    with pytest.raises(CouldNotMeasure, match="another revision of it"):
        fast.replayed(row, row.artefact or b"", str(file))


def test_without_evidence_nothing_is_replayed(tmp_path: Path) -> None:
    folder = str(run_folder(tmp_path, row_of(n=40, evidence=False)))
    (only,) = fast.checks(folder, folder)
    assert only.verdict == "could not measure"


# --- the clock ----------------------------------------------------------------------------------------------


def turns(before: float, after: float, noise: float, rng: np.random.Generator, rounds: int = 30) -> clock.Turns:
    """Times as a machine makes them: a common drift, and each round's own luck, which only adds."""
    drift = 1 + 0.2 * rng.random()
    times = [(level * drift * (1 + noise * rng.exponential(size=rounds))).tolist() for level in (before, after)]
    return clock.Turns(before_us=tuple(times[0]), after_us=tuple(times[1]))


def calibrated(rng: np.random.Generator, noise: float) -> float:
    return max(abs(turns(100, 100, noise, rng).effect) for _ in range(clock.PAIRS))


def test_equals_rarely_look_slower() -> None:
    """Above 200 A/A pairs: two in a hundred at most, on quiet and on restless machines."""
    rng = np.random.default_rng(0)
    for noise in (0.01, 0.3):
        alarms = sum(
            clock.judged("student", turns(100, 100, noise, rng), calibrated(rng, noise)).verdict == "fail"
            for _ in range(200)
        )
        assert alarms <= 4


def test_a_real_slow_down_is_found_where_the_machine_allows_it() -> None:
    rng = np.random.default_rng(1)
    least = calibrated(rng, 0.02)
    assert clock.judged("student", turns(100, 120, 0.02, rng), least).verdict == "fail"
    assert clock.judged("student", turns(100, 80, 0.02, rng), least).verdict == "pass"
    few = turns(100, 120, 0.02, rng, rounds=3)
    assert clock.judged("student", few, least).verdict == "inconclusive"


def test_turns_are_fair_and_timed_by_the_text() -> None:
    data = apart(honest()).model["artefact.safetensors"]
    ticks = iter(range(0, 10**9, 1000))
    found = clock.in_turns(clock.runnable(data), clock.runnable(data), ["one", "two words"], 5, lambda: next(ticks))
    assert found.before_us == found.after_us == (1.0,) * 5
    assert found.effect == 0.0


def test_a_calibration_comes_back_from_its_file_and_belongs_to_its_machine(bundle: Path, tmp_path: Path) -> None:
    found = clock.calibrate(str(bundle), pairs=3, rounds=5)
    assert len(found.effects) == 3 and found.least >= 0 and machine.same(found.machine, machine.facts())
    file = tmp_path / "calibration.json"
    records.write(file, records.encode(found))
    assert clock.read(file) == found
    lax = msgspec.structs.replace(found, effects=(10.0,))
    ((timed, times),) = clock.checks(str(bundle), str(bundle), lax)
    assert timed.verdict == "pass" and times is not None and len(times.before_us) == 5
    foreign = msgspec.structs.replace(found, machine={"cpu": "another"})
    for other, reason in ((None, "no calibration"), (foreign, "of another machine")):
        ((check, _),) = clock.checks(str(bundle), str(bundle), other)
        assert check.verdict == "could not measure" and reason in check.message


def test_only_one_row_is_calibrated(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, row_of("student", n=40), row_of("prado", n=40))
    with pytest.raises(UsageError, match="holds 2 rows: name one"):
        clock.calibrate(str(folder))


# --- outputs ------------------------------------------------------------------------------------------------

FOUND = gate.report(
    "a",
    "b",
    [
        check("pass", after=0.9, before=0.9),
        check("fail", "total_bytes", value=5.0, limit=4.0),
        check("inconclusive", "worst case", after=0.25),
        check("could not measure", "time"),
    ],
)


def test_junit_has_a_case_a_check() -> None:
    root = ElementTree.fromstring(outputs.junit(FOUND))
    (suite,) = root
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    assert [case[0].tag for case in suite] == ["system-out", "failure", "skipped", "error"]


def test_the_summary_is_a_table_whose_cells_stay_cells() -> None:
    lines = outputs.markdown(FOUND, ["x changed"]).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 4 and all(line.count("|") == 5 for line in table)
    assert lines[0] == "### grit gate: fail" and lines[-1] == "- x changed"


def test_benchmark_entries_get_smaller_as_things_get_better() -> None:
    entries = json.loads(outputs.action_benchmark(FOUND))
    assert [(entry["name"], entry["unit"], entry["value"]) for entry in entries] == [
        ("student: clean", "% wrong", 10.0),
        ("student: total_bytes", "bytes", 5.0),
        ("student: worst case", "% wrong", 75.0),
    ]


def test_pytest_benchmark_reads_the_times(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    file = tmp_path / "times.json"
    file.write_bytes(outputs.pytest_benchmark({"student": turns(100, 120, 0.1, rng)}, NOW))
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "student[baseline]" in done.stdout and "student[candidate]" in done.stdout


def test_a_history_grows_and_tells_where_a_level_changed(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    rng = np.random.default_rng(0)
    for number in range(24):
        level = 0.6 if number < 12 else 0.5
        report = gate.report("a", "b", [check("pass", after=level + 0.01 * rng.random())])
        history = outputs.remember(file, report, f"c{number}", NOW)
    assert len(history) == 24 and outputs.read_history(file) == history
    (trend,) = outputs.trends(history)
    assert trend.startswith("student: clean changed its level at c12: 0.60")
    assert outputs.trends(history[:12]) == []
    assert outputs.read_history(tmp_path / "none.jsonl") == []


# --- the command --------------------------------------------------------------------------------------------


def grit(*words: str) -> subprocess.CompletedProcess[str]:
    code = f"from grit.bench.cli import main; main({list(words)!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_command_writes_what_a_workflow_reads(tmp_path: Path) -> None:
    old = run_folder(tmp_path / "old", row_of("student", robust=0.5))
    new = run_folder(tmp_path / "new", row_of("student", robust=0.3))
    files = {name: tmp_path / name for name in ("junit.xml", "summary.md", "benchmark.json", "history.jsonl")}
    files["summary.md"].write_text("earlier\n")
    done = grit(
        *("gate", "--baseline", str(old), "--candidate", str(new), "--max-bytes", "99999", "--label", "abc"),
        *("--junit", str(files["junit.xml"]), "--summary", str(files["summary.md"])),
        *("--benchmark", str(files["benchmark.json"]), "--history", str(files["history.jsonl"])),
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "gate: fail"
    assert files["summary.md"].read_text().startswith("earlier\n### grit gate: fail")
    assert all(file.stat().st_size for file in files.values())


def test_no_baseline_is_no_pass(tmp_path: Path) -> None:
    new = run_folder(tmp_path / "new", row_of("student", n=40))
    done = grit("gate", "--baseline", str(tmp_path / "none"), "--candidate", str(new))
    assert done.returncode == 4
    assert "lets nothing through" in done.stderr and len(done.stderr.splitlines()) == 1
