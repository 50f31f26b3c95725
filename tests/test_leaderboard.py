"""The board: what stands together, who is ranked, and that every table says the same."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from grit.bench import leaderboard, records
from grit.bench.records import Row
from grit.bench.types import CouldNotMeasure, Outcome, UsageError

sys.path.append(str(Path(__file__).parent))

from made_rows import BUG, PWWS, Poke, row_of, sha


def printed(rows: list[Row], width: int, **options: Any) -> str:
    text = io.StringIO()
    leaderboard.show(leaderboard.board(rows), Console(file=text, width=width, color_system=None), **options)
    return text.getvalue()


THREE = [row_of("student", robust=0.2), row_of("prado", "proposed", robust=0.5), row_of("fastgrnn", robust=0.498)]


# --- order and ranks ------------------------------------------------------------------------------------


def test_rows_stand_by_worst_case_and_ties_share_a_rank() -> None:
    (section,) = leaderboard.board(THREE)
    assert [line.model for line in section.lines] == ["prado", "fastgrnn", "student"]
    assert [line.rank.group for line in section.lines if line.rank] == [1, 1, 2]
    assert all(not line.unranked for line in section.lines)


@given(st.permutations(range(5)))
def test_the_order_of_files_does_not_matter(order: list[int]) -> None:
    rows = [row_of("m", f"s{at}", robust=share, n=60) for at, share in enumerate((0.3, 0.3, 0.5, 0.1, 0.7))]
    shuffled = [rows[at] for at in order]
    assert leaderboard.as_json_text(leaderboard.board(shuffled)) == leaderboard.as_json_text(leaderboard.board(rows))


def test_a_constant_answer_is_not_first_however_robust() -> None:
    constant = row_of("bounds", robust=1.0, constant=True)
    (section,) = leaderboard.board([*THREE, constant])
    last = section.lines[-1]
    assert last.model == "bounds" and last.record.worst.low > section.lines[1].record.worst.low
    assert last.rank is None and len(last.unranked) == 2
    assert [line.rank.group for line in section.lines[:-1] if line.rank] == [1, 1, 2]


def test_small_runs_are_shown_and_not_ranked() -> None:
    (section,) = leaderboard.board([row_of("a", n=300, robust=0.2), row_of("b", n=300, robust=0.5)])
    assert [(line.model, line.rank) for line in section.lines] == [("b", None), ("a", None)]
    assert list(section.reasons) == ["n = 300, ranked from 1000"]
    assert [line.front for line in section.lines] == [True, False]  # the figure still compares them


def test_the_embedded_corpus_is_never_ranked() -> None:
    (section,) = leaderboard.board([row_of(embedded=True, dataset="pings")])
    assert section.lines[0].unranked == ("pings comes with the tool",)


def test_errors_keep_from_a_rank_and_show_as_a_range() -> None:
    (section,) = leaderboard.board([*THREE, row_of("flaky", robust=0.9, errors=50)])
    flaky = section.lines[-1]
    assert flaky.model == "flaky" and "50 errors" in flaky.unranked[0]
    worst = flaky.record.worst
    assert leaderboard.percent_robust(worst) == f"{worst.low / 10:.1f}-{worst.high / 10:.1f}"
    low, high = leaderboard.interval(flaky.record.worst)
    assert low < flaky.record.worst.low / 1000 < flaky.record.worst.high / 1000 < high


def test_no_evidence_no_rank() -> None:
    (section,) = leaderboard.board([*THREE, row_of("claim", robust=0.8, evidence=False)])
    claim = section.lines[0]
    assert claim.model == "claim" and claim.rank is None and claim.unranked == ("no evidence beside the record",)
    assert claim.front is None
    assert [line.rank.group for line in section.lines[1:] if line.rank] == [1, 1, 2]


def test_evidence_over_other_examples_is_not_paired() -> None:
    stranger = row_of("stranger", robust=0.1)
    assert stranger.evidence
    moved = tuple(msgspec.structs.replace(line, id=sha(line.id)[:16]) for line in stranger.evidence.clean)
    attacks = {
        name: tuple(Outcome(sha(outcome.id)[:16], outcome.outcome) for outcome in found)
        for name, found in stranger.evidence.attacks.items()
    }
    (section,) = leaderboard.board([*THREE, Row(stranger.record, records.Evidence(moved, attacks))])
    assert section.lines[-1].unranked == ("its evidence is over other examples",)


def test_the_front_needs_bytes() -> None:
    rows = [
        row_of("big", robust=0.3, size=900_000),
        row_of("small", robust=0.6, size=50_000),
        row_of("none", size=None),
    ]
    (section,) = leaderboard.board(rows)
    assert {line.model: line.front for line in section.lines} == {"big": False, "small": True, "none": None}


# --- what stands together -----------------------------------------------------------------------------------


def test_only_the_comparable_share_a_section() -> None:
    rows = [
        row_of("a"),
        row_of("b", "proposed"),
        row_of("a", dataset="other"),
        row_of("a", n=500),
        row_of("a", attacks=(BUG,)),
        row_of("a", beam=9),
    ]
    sections = leaderboard.board(rows)
    assert [(section.data.name, section.data.n) for section in sections] == [
        ("made", 1000),
        ("made", 1000),
        ("made", 1000),
        ("made", 500),
        ("other", 1000),
    ]
    assert sorted(len(section.lines) for section in sections) == [1, 1, 1, 1, 2]


def test_rows_of_one_name_show_the_fields_they_differ_in() -> None:
    rows = [
        row_of("student", config={"hidden": 5, "embedding": 5, "cell": "lstm"}),
        row_of("student", "proposed", config={"hidden": 10, "embedding": 10, "cell": "lstm"}),
        row_of("prado", config={"hidden": 7}),
    ]
    (section,) = leaderboard.board(rows)
    assert {line.model for line in section.lines} == {
        "student[hidden=5,embedding=5]",
        "student[hidden=10,embedding=10]",
        "prado",
    }


def test_rows_of_one_name_show_the_recipe_they_differ_in() -> None:
    usual = row_of("student")
    assert usual.record.training
    training = msgspec.structs.replace(usual.record.training, recipe={"epochs": 2})
    brief = Row(msgspec.structs.replace(usual.record, training=training), usual.evidence)
    longer = msgspec.structs.replace(usual.record.training, recipe={"epochs": 20})
    rows = [brief, Row(msgspec.structs.replace(usual.record, training=longer), usual.evidence)]
    (section,) = leaderboard.board(rows)
    assert {line.model for line in section.lines} == {"student[epochs=2]", "student[epochs=20]"}


def test_rows_of_one_name_show_the_artefact_they_differ_in() -> None:
    fixed = row_of("student")
    artefact = msgspec.structs.replace(fixed.record.artefact, format="onnx", precision="fp32")
    onnx = Row(msgspec.structs.replace(fixed.record, artefact=artefact), fixed.evidence)
    (section,) = leaderboard.board([fixed, onnx])
    assert {line.model for line in section.lines} == {"student[fixed int8]", "student[onnx fp32]"}


def test_several_seeds_are_kept_and_averaged() -> None:
    rows = [row_of("student", seed=seed, robust=0.3 + seed / 100) for seed in range(3)] + [row_of("prado")]
    (section,) = leaderboard.board(rows)
    assert len(section.lines) == 4 and section.several_seeds
    (seeds,) = section.seeds
    assert (seeds.model, seeds.scheme, seeds.seeds) == ("student", "natural", (0, 1, 2))
    assert seeds.worst.mean == pytest.approx(np.mean([row.record.worst.low / 1000 for row in rows[:3]]))
    assert seeds.worst.values == tuple(row.record.worst.low / 1000 for row in rows[:3])
    assert "Seed" in leaderboard.markdown([section]) and "on average" in leaderboard.markdown([section])


def test_one_seed_needs_no_column() -> None:
    assert "seed" not in leaderboard.columns(leaderboard.board(THREE)[0])


def test_headings_are_keys_unless_two_attacks_share_one() -> None:
    plain = leaderboard.board([row_of()])[0]
    assert plain.headings == {BUG: "deepwordbug", PWWS: "pwws"}
    mixed = leaderboard.board([row_of(attacks=("pwws.paper+x", "pwws.strong+x", "textattack:bae"))])[0]
    assert mixed.headings == {"pwws.paper+x": "pwws.paper+x", "pwws.strong+x": "pwws.strong+x", "textattack:bae": "bae"}


# --- cells --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (None, "-"),
        (0.5, "0.5 µs"),
        (16.24, "16.2 µs"),
        (999.4, "999 µs"),
        (999.6, "1 ms"),
        (1234, "1.23 ms"),
        (2.5e6, "2.5 s"),
    ],
)
def test_durations(microseconds: float | None, text: str) -> None:
    assert leaderboard.duration(microseconds) == text


@pytest.mark.parametrize(("size", "text"), [(None, "-"), (392, "0.4"), (98_123, "98.1"), (1_234_567, "1,235")])
def test_kilobytes_are_thousands(size: int | None, text: str) -> None:
    assert leaderboard.kilobytes(size) == text


def test_percent_of_nothing() -> None:
    assert leaderboard.percent(0, 0) == "-" and leaderboard.percent(1, 3) == "33.3"


@pytest.mark.parametrize(("unit", "factor"), [("ns", 1000.0), ("us", 1.0), ("ms", 0.001), ("s", 1e-6)])
def test_latency_is_read_in_any_unit_and_the_fastest_engine_counts(unit: str, factor: float) -> None:
    record = row_of(p50_us=50.0).record
    faster = records.CostPart(target="local", engine="c", kind="measured", values={f"p50_{unit}": 20.0 * factor})
    elsewhere = records.CostPart(target="emu://m4", engine="c", kind="emulated", values={"call_instructions": 5})
    run = msgspec.structs.replace(record.run, cost=(*record.run.cost, faster))
    found = leaderboard.latency(msgspec.structs.replace(record, run=run, cost=(elsewhere,)))
    assert found is not None and found.engine == "c" and found.p50_us == pytest.approx(20.0)
    assert leaderboard.latency(row_of(p50_us=None).record) is None


def with_costs(row: Row, *cells: records.CostPart) -> Row:
    lasting, measured = records.place_costs(cells)
    run = msgspec.structs.replace(row.record.run, cost=measured)
    return row._replace(record=msgspec.structs.replace(row.record, cost=lasting, run=run))


def test_instructions_have_columns_and_what_was_not_measured_its_reason() -> None:
    def counted(core: str, count: int) -> records.CostPart:
        values = {"p50_instructions": count, "p50_neural_instructions": count // 2}
        return records.CostPart(target=f"emu://cortex-{core}", engine="c", kind="emulated", values=values)

    reason = "engine c compiles our own programs only"
    lacking = records.CostPart(target="emu://cortex-m4", engine="c", kind="not measured", reason=reason)
    student = with_costs(row_of("student", robust=0.2), counted("m4", 3_550_000), counted("a76", 347_000))
    section = leaderboard.board([student, with_costs(row_of("graph", robust=0.1), lacking)])[0]
    known = leaderboard.columns(section)
    assert [known["m4 instructions"].cell(line) for line in section.lines] == ["3,550,000", "-"]
    assert [known["a76 instructions"].cell(line) for line in section.lines] == ["347,000", "-"]
    assert "a53 instructions" not in known
    assert f"Not measured on emu://cortex-m4 by engine c (graph natural): {reason}." in leaderboard.notes(section)
    assert not any("Not measured" in note for note in leaderboard.notes(leaderboard.board(THREE)[0]))


def test_cells_hold_counts_ratios_and_units() -> None:
    line = leaderboard.board(THREE)[0].lines[0]
    found = leaderboard.cells(line)
    assert found["worst_k"] == line.record.worst.low and found["n"] == 1000
    assert 0 <= found["worst_low"] <= found["worst_k"] / 1000 <= found["worst_high"] <= 1
    assert found["total_bytes"] == found["bytes:weights"] + found["bytes:vocabulary"] == 100_000
    assert found["local:fixed:p90_us:measured"] == 40.0 and found["local_p50_us"] == 20.0
    assert found[f"robust_k:{PWWS}"] <= found[f"robust_n:{PWWS}"] == 1000
    assert not any("%" in key or "percent" in key for key in found)


def test_an_attack_on_what_was_left_shows_counts() -> None:
    row = row_of()
    assert row.evidence
    standing = {
        id_
        for id_, stands in records.Evidence(row.evidence.clean, {BUG: row.evidence.attacks[BUG]}).robust().items()
        if stands
    }
    some = tuple(outcome for outcome in row.evidence.attacks[PWWS] if outcome.id in standing)
    evidence = records.Evidence(row.evidence.clean, {BUG: row.evidence.attacks[BUG], PWWS: some})
    parts = (row.record.attacks[0], records.attack_part(PWWS, Poke(), some))
    record = msgspec.structs.replace(row.record, attacks=parts, worst=records.worst_case(evidence))
    (section,) = leaderboard.board([Row(record, evidence)])
    assert leaderboard.attack_text(section.lines[0], 1) == f"{parts[1].robust.low}/{len(some)}"
    assert "/" not in leaderboard.attack_text(section.lines[0], 0)


# --- tables --------------------------------------------------------------------------------------------------


def test_the_terminal_shows_all_where_it_can() -> None:
    text = printed(THREE, 200, with_parts=True)
    for word in (
        "Rank",
        "case",
        "deepwordbug",
        "pwws",
        "kB",
        "p50",
        "Flags",
        "weights 90.0, vocabulary 10.0",
    ):
        assert word in text
    assert "Left out" not in text and "Majority floor: 50.0 % (500/1000), always answering 'later'." in text


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 40])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    rows = [*THREE, row_of("a_model_with_a_long_name", "proposed-adversarial", constant=True)]
    text = printed(rows, width)
    assert max(map(len, text.splitlines())) <= width
    for heading in ("Model", "Clean", "Worst"):
        assert heading in text
    if width >= 80:  # and no name is broken in two
        assert "a_model_with_a_long_name" in text and "proposed-adversarial" in text


def test_a_narrow_terminal_says_what_it_left_out() -> None:
    text = " ".join(printed(THREE, 60).split())
    assert "Left out at this width: " in text and "pwws" in text.split("Left out at this width: ")[1]
    assert "[4" in printed(THREE, 80)  # the interval of the headline stays at 80 columns


def test_why_rows_are_unranked_is_said_below_every_table() -> None:
    rows = [row_of("a", n=300), row_of("b", n=300, robust=0.6, constant=True)]
    for text in (printed(rows, 200), leaderboard.markdown(leaderboard.board(rows)).replace("\\", "")):
        assert "UNRANKED (all rows): n = 300, ranked from 1000." in text
        assert "UNRANKED (b natural): 300 of 300 answers are the same label." in text


def test_markup_in_names_is_text() -> None:
    rows = [row_of("[red]|x`<b>", "a*b")]
    assert "[red]|x`<b>" in printed(rows, 200)
    table = [line for line in leaderboard.markdown(leaderboard.board(rows)).splitlines() if "red" in line]
    assert table[0].count("|") - table[0].count("\\|") == leaderboard.markdown(leaderboard.board(rows)).splitlines()[
        4
    ].count("|")
    assert "\\[red\\]\\|x\\`\\<b\\>" in table[0]


def test_markdown_is_a_table() -> None:
    lines = leaderboard.markdown(leaderboard.board(THREE)).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 5 and len({line.count(" | ") for line in table}) == 1
    assert lines[0] == "## made (test, n = 1000)"


def test_csv_reads_back() -> None:
    rows = [*THREE, row_of("wide", dataset='other, "quoted"', attacks=(BUG,))]
    found = list(csv.DictReader(io.StringIO(leaderboard.comma_separated(leaderboard.board(rows)))))
    assert [row["model"] for row in found] == ["prado", "fastgrnn", "student", "wide"]
    assert found[-1]["dataset"] == 'other, "quoted"' and found[-1][f"robust_k:{PWWS}"] == ""
    assert int(found[0]["worst_k"]) == leaderboard.board(THREE)[0].lines[0].record.worst.low


def test_json_agrees_with_csv() -> None:
    sections = leaderboard.board(THREE)
    rows = json.loads(leaderboard.as_json_text(sections))["sections"][0]["rows"]
    table = list(csv.DictReader(io.StringIO(leaderboard.comma_separated(sections))))
    for row, text in zip(rows, table, strict=True):
        assert {key: "" if value is None else str(value) for key, value in row.items()} == text


def test_notes_of_the_data_are_shown() -> None:
    assert "Data: 3 texts of train stand in test: dropped from train." in printed(
        [row_of(notes=("3 texts of train stand in test: dropped from train",))], 120
    )


# --- loading ---------------------------------------------------------------------------------------------------


def stored(folder: Path, rows: list[Row]) -> Path:
    for number, row in enumerate(rows):
        records.append(folder / records.RECORDS, row.record)
        if row.evidence:
            records.write_evidence(folder / "evidence" / str(number), row.evidence)
    return folder


def test_run_folders_are_found_below_and_rows_count_once(tmp_path: Path) -> None:
    stored(tmp_path / "runs" / "one", THREE[:2])
    stored(tmp_path / "runs" / "two", THREE[1:])
    rows = leaderboard.load([tmp_path / "runs", tmp_path / "runs" / "one"])
    assert leaderboard.as_json(leaderboard.board(rows)) == leaderboard.as_json(leaderboard.board(THREE))


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no folder .*nowhere"):
        leaderboard.load([tmp_path / "nowhere"])
    with pytest.raises(CouldNotMeasure, match="'grit run' writes some"):
        leaderboard.load([tmp_path])


def test_an_empty_board_is_empty() -> None:
    assert leaderboard.board([]) == ()
    assert leaderboard.markdown(()) == "" and leaderboard.as_json(()) == {"sections": []}


def test_the_board_imports_no_torch_and_little_else() -> None:
    program = (
        "import sys, grit.bench.leaderboard; heavy = ('torch', 'numpy', 'pandas', 'rich', 'jinja2');"
        "sys.exit(', '.join(name for name in heavy if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
