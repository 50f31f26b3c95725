"""Comparing two rows: paired counts, what only one survives, and a sentence that says no more than they do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from grit.bench import compare, operands, records, submission
from grit.bench.operands import Operand
from grit.bench.types import CouldNotMeasure, UsageError

sys.path.append(str(Path(__file__).parent))

from golden_bundles import honest
from made_rows import BUG, PWWS, row_of


def operand(*words: object, place: str = "out", **options: object) -> Operand:
    row = row_of(*words, **options)  # type: ignore[arg-type]
    return Operand(row.record, row.evidence, None, Path(place))


def run_folder(folder: Path, *rows: records.Row) -> Path:
    """A run folder as far as records and evidence go."""
    for number, row in enumerate(rows):
        records.append(folder / records.RECORDS, row.record)
        if row.evidence is not None:
            records.write_evidence(folder / "evidence" / str(number), row.evidence)
    return folder


# --- operands ----------------------------------------------------------------------------------------------


def test_a_run_folder_gives_its_rows_with_their_evidence(tmp_path: Path) -> None:
    run_folder(tmp_path, row_of("student", n=40), row_of("prado", n=40))
    found = operands.rows(str(tmp_path))
    assert [each.label for each in found] == ["student natural seed 0", "prado natural seed 0"]
    assert all(each.evidence is not None and each.artefact is None for each in found)


def test_a_bundle_is_a_row_with_its_bytes(tmp_path: Path) -> None:
    files = honest()
    submission.write(tmp_path / "row", files)
    (tmp_path / "row.tar").write_bytes(submission.archive(files))
    for place in ("row", "row.tar", "."):
        folder = tmp_path / place if place != "." else tmp_path
        (found,) = operands.rows(str(folder))
        assert found.artefact is not None
        assert records.digest(found.artefact) == found.record.artefact.digest


def test_a_row_of_a_run_is_found_by_its_bytes(tmp_path: Path) -> None:
    row = row_of(n=40)
    digest = records.digest(b"weights")
    record = msgspec.structs.replace(row.record, artefact=msgspec.structs.replace(row.record.artefact, digest=digest))
    run_folder(tmp_path, row_of("prado", n=40), records.Row(record, row.evidence))
    home = tmp_path / "model" / "any-name"
    home.mkdir(parents=True)
    (home / "artefact.safetensors").write_bytes(b"weights")
    (found,) = operands.rows(str(home))
    assert found.label == "student natural seed 0" and found.artefact == b"weights"
    (home / "artefact.safetensors").write_bytes(b"other")
    with pytest.raises(CouldNotMeasure, match="trained and not attacked yet"):
        operands.rows(str(home))


def test_no_place_and_an_empty_place_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing at 'nowhere'"):
        operands.rows("nowhere")
    with pytest.raises(CouldNotMeasure, match="holds no record and no bundle"):
        operands.rows(str(tmp_path))
    (tmp_path / records.RECORDS).write_bytes(b"")
    with pytest.raises(CouldNotMeasure, match="no finished row yet"):
        operands.rows(str(tmp_path))


def test_rows_answer_to_each_other_by_model_scheme_and_seed() -> None:
    student, prado, other = operand("student"), operand("prado"), operand("student", "proposed")
    assert operands.paired([student], [prado]) == [(student, prado)], "the only two are a pair whatever they are"
    assert operands.paired([student, prado], [prado, student]) == [(student, student), (prado, prado)]
    with pytest.raises(CouldNotMeasure, match="no row 'student natural seed 0' in out, which has student proposed"):
        operands.paired([student, other], [other, prado])
    with pytest.raises(UsageError, match="2 rows are called 'student natural seed 0'"):
        operands.paired([student, prado], [student, student, prado])


# --- the comparison ----------------------------------------------------------------------------------------


def test_every_line_counts_what_the_evidence_says() -> None:
    first, second = operand("student", robust=0.3, n=400), operand("prado", robust=0.5, n=400)
    found = compare.compare(first, second)
    assert [line.measure for line in found.differences] == ["clean", BUG, PWWS, compare.WORST]
    for line in found.differences:
        a, b = compare.right(first)[line.measure], compare.right(second)[line.measure]
        assert (line.first, line.second) == (sum(a.values()), sum(b.values()))
        assert line.only_first == sum(a[id] and not b[id] for id in a)
        assert line.second - line.first == line.only_second - line.only_first
        assert line.low <= line.change <= line.high
    worst = found.differences[-1]
    assert (worst.first, worst.second) == (first.record.worst.low, second.record.worst.low)
    assert (len(found.only_first), len(found.only_second)) == (worst.only_first, worst.only_second)
    assert not set(found.only_first) & set(found.only_second)


def test_p_values_are_those_of_the_exact_test_after_holm() -> None:
    found = compare.compare(operand("student", robust=0.40, n=300), operand("prado", robust=0.45, n=300))
    raw = np.array(
        [
            stats.binomtest(line.only_first, n).pvalue if (n := line.only_first + line.only_second) else 1.0
            for line in found.differences
        ]
    )
    order = np.argsort(raw, kind="stable")
    expected = np.empty(len(raw))
    expected[order] = np.minimum(1, np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)))
    assert [line.p for line in found.differences] == pytest.approx(expected.tolist())


@settings(max_examples=20)
@given(st.sampled_from([0.2, 0.4, 0.41, 0.6]), st.sampled_from([0.2, 0.4, 0.41, 0.6]))
def test_the_other_way_round_says_the_opposite(a: float, b: float) -> None:
    first, second = operand("student", robust=a, n=200), operand("prado", robust=b, n=200)
    there, back = compare.compare(first, second), compare.compare(second, first)
    for one, other in zip(there.differences, back.differences, strict=True):
        assert one.change == -other.change and one.p == other.p
        assert (one.only_first, one.only_second) == (other.only_second, other.only_first)
    assert there.only_first == back.only_second


def test_a_row_against_itself_is_alike_everywhere() -> None:
    row = operand()
    found = compare.compare(row, row)
    assert all(line.p == 1.0 and line.low == line.high == 0.0 for line in found.differences)
    assert found.sentence.count("answering alike on every example") == 2
    assert not found.only_first and not found.only_second


def test_the_sentence_claims_a_difference_only_where_the_test_does() -> None:
    clear = compare.compare(operand("student", robust=0.2), operand("prado", robust=0.5, size=50_000))
    assert "prado natural seed 0 is " in clear.sentence and "points more robust (p = " in clear.sentence
    assert "it takes 0.50 times the bytes (n = 1000)." in clear.sentence
    worse = compare.compare(operand("prado", robust=0.5), operand("student", robust=0.2))
    assert "points less robust" in worse.sentence
    hardly = compare.compare(operand("student", robust=0.4, n=100), operand("prado", robust=0.4, n=100))
    assert "cannot be told to be more robust or less robust" in hardly.sentence or "alike" in hardly.sentence


def test_equal_names_are_told_apart_by_their_place() -> None:
    found = compare.compare(operand(place="old"), operand(place="new"))
    assert (found.first, found.second) == ("student natural seed 0 (old)", "student natural seed 0 (new)")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n": 500}, "n of the data is 1000 in one and 500 in the other"),
        ({"dataset": "other"}, "name of the data is 'made' in one and 'other' in the other"),
        ({"beam": 4}, f"attack {BUG} is set up otherwise"),
        ({"attacks": (BUG,)}, f"attack {PWWS} was made on one of them only"),
    ],
)
def test_rows_over_other_things_are_not_compared(change: dict[str, object], reason: str) -> None:
    with pytest.raises(CouldNotMeasure) as raised:
        compare.compare(operand(), operand(**change))
    assert reason in str(raised.value)


def test_a_record_without_evidence_cannot_be_compared() -> None:
    with pytest.raises(CouldNotMeasure, match="no evidence beside the record"):
        compare.compare(operand(), operand(evidence=False))


def test_costs_stand_side_by_side_where_both_have_them() -> None:
    found = compare.compare(operand(p50_us=20.0), operand("prado", p50_us=30.0, size=200_000))
    costs = {cost.name: (cost.first, cost.second) for cost in found.costs}
    assert costs["total_bytes"] == (100_000, 200_000)
    assert costs["local:fixed:p50_us:measured"] == (20.0, 30.0)
    without = compare.compare(operand(p50_us=None), operand("prado"))
    assert [cost.name for cost in without.costs] == ["total_bytes"]


def test_lines_for_people_and_json_hold_the_same_counts() -> None:
    found = compare.compare(operand("student", robust=0.3), operand("prado", robust=0.5))
    text = compare.render(found)
    assert found.sentence in text and "total_bytes" in text and "p50_us" in text and "p90_us" not in text
    value = json.loads(compare.encode(found))
    assert [line["second"] for line in value["differences"]] == [line.second for line in found.differences]
    assert text.count(" *") == sum(line.significant for line in found.differences)


def test_the_command_line_compares_two_folders(tmp_path: Path) -> None:
    run_folder(tmp_path / "a", row_of("student", robust=0.3, n=200))
    run_folder(tmp_path / "b", row_of("student", robust=0.6, n=200))
    words = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]
    code = f"from grit.bench.cli import main; main({words!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (value,) = json.loads(done.stdout)
    assert value["n"] == 200 and "more robust" in value["sentence"]
