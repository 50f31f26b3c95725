"""The seeds that are kept beside bundles: what a line holds, what it must add up to, what the table says of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grit.bench import cli, leaderboard, records, seeds
from grit.bench.records import Row
from grit.bench.site.overview import overview
from grit.bench.types import CouldNotMeasure, MalformedInput, UsageError

sys.path.append(str(Path(__file__).parent))

from made_rows import row_of


def kept(folder: Path, *rows: Row) -> list[seeds.Kept]:
    seeds.keep(rows, folder)
    return seeds.read(folder / seeds.SEEDS)


def grouped(found: list[seeds.Kept]) -> list[seeds.Scheme]:
    (section,) = leaderboard.board(Row(each.record, None) for each in found)
    return seeds.schemes(section, {records.row_digest(each.record): each for each in found})


def test_a_line_holds_the_record_and_who_was_right_and_who_stood(tmp_path: Path) -> None:
    row = row_of(n=37)
    assert row.evidence is not None
    (found,) = kept(tmp_path, row)
    assert records.row_digest(found.record) == records.row_digest(row.record)
    (scheme,) = grouped([found])
    standing = row.evidence.robust()
    assert scheme.robust[0].tolist() == [standing[id] for id in sorted(standing)]
    assert scheme.right[0].tolist() == [line.right for line in sorted(row.evidence.clean, key=lambda line: line.id)]


def test_the_command_line_is_not_kept(tmp_path: Path) -> None:
    row = row_of(n=10)
    run = msgspec.structs.replace(row.record.run, command="grit run -o somebody/out")
    (found,) = kept(tmp_path, row._replace(record=msgspec.structs.replace(row.record, run=run)))
    assert found.record.run.command == "" and "somebody" not in (tmp_path / seeds.SEEDS).read_text()


def test_lines_are_ordered_and_a_seed_made_again_takes_the_old_ones_place(tmp_path: Path) -> None:
    first = [row_of(seed=seed, n=20, robust=0.3) for seed in (2, 0)]
    assert [each.seed for each in kept(tmp_path, *first)] == [0, 2]
    before = (tmp_path / seeds.SEEDS).read_bytes()
    assert len(kept(tmp_path, first[0])) == 2 and (tmp_path / seeds.SEEDS).read_bytes() == before
    again = kept(tmp_path, row_of(seed=2, n=20, robust=0.6), row_of(seed=1, n=20))
    assert [each.seed for each in again] == [0, 1, 2]
    assert again[2].record.worst.low >= 10 > first[0].record.worst.low


def test_rows_that_were_asked_for_otherwise_stand_beside_each_other(tmp_path: Path) -> None:
    row = row_of(n=20)
    assert row.record.training is not None
    longer = msgspec.structs.replace(row.record.training, recipe={"epochs": 3})
    fewer = msgspec.structs.replace(row.record.training, n_train=50)
    others = [row._replace(record=msgspec.structs.replace(row.record, training=each)) for each in (longer, fewer)]
    heavier = records.TermPart(objective="task", weight=2.0, options={})
    scheme = msgspec.structs.replace(row.record.scheme, terms=(heavier,))  # of the same name
    others.append(row._replace(record=msgspec.structs.replace(row.record, scheme=scheme)))
    found = kept(tmp_path, row, *others, row_of(n=30), row_of(n=20, beam=5))
    assert len(found) == 6 and len({each.key for each in found}) == 6
    table = seeds.markdown(found).splitlines()
    assert all(" | 0 | " in line for line in table if line.startswith("| student"))  # none is a seed of another


def test_a_rung_of_a_ladder_is_refused(tmp_path: Path) -> None:
    row = row_of(n=10)
    part = records.CompressionPart(name="fp16", steps=(), source=row.record.artefact.digest)
    rung = row._replace(record=msgspec.structs.replace(row.record, compression=part))
    with pytest.raises(UsageError, match="student natural is a rung of a ladder"):
        seeds.keep([rung], tmp_path)


def test_a_row_without_evidence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CouldNotMeasure, match="student natural: its evidence is not beside it"):
        seeds.keep([row_of(n=10, evidence=False)], tmp_path)
    assert not (tmp_path / seeds.SEEDS).exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda line: {**line, "robust": line["right"]}, "do not add up"),
        (lambda line: {**line, "right": line["right"][2:]}, "1 bytes of bits for 16 examples"),
        (lambda line: {**line, "right": "no hex"}, "non-hexadecimal"),
        (lambda line: {**line, "more": 1}, "unknown field"),
        (lambda line: {"record": line["record"]}, "missing required field"),
    ],
)
def test_a_line_that_was_changed_is_refused(change: object, said: str, tmp_path: Path) -> None:
    kept(tmp_path, row_of(n=16))
    file = tmp_path / seeds.SEEDS
    file.write_text(json.dumps(change(json.loads(file.read_text()))) + "\n")  # type: ignore[operator]  # one of the above
    with pytest.raises(MalformedInput, match=said):
        seeds.read(file)


# --- the comparison -----------------------------------------------------------------------------------------

bits = st.integers(1, 40).flatmap(
    lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=2, max_size=2)
)


def scheme(name: str, seeds_of: tuple[int, ...], rows: list[list[bool]]) -> seeds.Scheme:
    table = np.array(rows)
    return seeds.Scheme("model", name, seeds_of, table, table)


@given(bits, bits)
@settings(max_examples=40)
def test_a_difference_is_that_of_the_means_and_turns_its_sign_with_the_order(
    one: list[list[bool]], other: list[list[bool]]
) -> None:
    n = min(len(one[0]), len(other[0]))
    a, b = scheme("a", (0, 1), [row[:n] for row in one]), scheme("b", (0, 1), [row[:n] for row in other])
    ahead, back = seeds.difference(a, b, robust=True), seeds.difference(b, a, robust=True)
    assert ahead is not None and back is not None
    assert ahead.mean == pytest.approx(b.robust.mean() - a.robust.mean()) == pytest.approx(-back.mean)
    assert ahead.interval.low <= ahead.mean + 1e-9 and ahead.mean - 1e-9 <= ahead.interval.high
    same = seeds.difference(a, a, robust=False)
    assert same is not None and same.mean == 0 and same.interval.low == same.interval.high == 0


def test_only_seeds_that_both_have_are_compared() -> None:
    a, b = scheme("a", (0, 1), [[True], [False]]), scheme("b", (1, 2), [[True], [False]])
    found = seeds.difference(a, b, robust=True)
    assert found is not None and found.mean == 1.0
    assert seeds.difference(a, scheme("c", (7,), [[True]]), robust=True) is None


def test_the_table_shows_every_seed_and_the_best_scheme_first(tmp_path: Path) -> None:
    rows = [
        row_of(scheme=name, seed=seed, n=200, robust=robust + seed / 100)
        for name, robust in (("natural", 0.1), ("proposed", 0.4))
        for seed in (0, 1)
    ]
    table = seeds.markdown(kept(tmp_path, *rows)).splitlines()
    lines = [line for line in table if line.startswith("| student")]
    assert [line.split(" | ")[1] for line in lines] == ["proposed", "natural"]
    assert lines[0].endswith("| - | - | - / - |") and "0, 1" in lines[0]  # no difference to itself, and not timed
    by_seed = [f"{100 * row.record.worst.low / 200:.1f}" for row in rows[2:]]
    assert " / ".join(by_seed) in lines[0]
    assert lines[1].split(" | ")[-3].startswith("0.0")  # as right without attack


def test_the_table_says_how_long_each_seed_trained_and_on_what(tmp_path: Path) -> None:
    rows = [row_of(seed=seed, n=20) for seed in (0, 1)]
    facts = {"cpu": "some|processor", "cores": 2}
    timed = msgspec.structs.replace(rows[1].record.run, seconds={"train": 90.0, "pwws": 600.0}, machine=facts)
    rows[1] = rows[1]._replace(record=msgspec.structs.replace(rows[1].record, run=timed))
    table = seeds.markdown(kept(tmp_path, *rows))
    (line,) = (line for line in table.splitlines() if line.startswith("| student"))
    assert line.endswith("| - / 1.5 |")
    assert "on one thread of some\\|processor (2 cores);" in table


def test_pack_keeps_the_rows_of_a_run_and_the_overview_shows_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = row_of(n=30)
    assert row.evidence is not None
    records.append(tmp_path / "out" / records.RECORDS, row.record)
    records.write_evidence(tmp_path / "out" / "evidence" / "0", row.evidence)
    place = tmp_path / "boards" / "made"
    with pytest.raises(SystemExit, match="0"):
        cli.main(["pack", str(tmp_path / "out"), "--records", "-o", str(place)])
    assert capsys.readouterr().out.endswith("seeds.jsonl: 1 row\n")
    assert "## made (test, n = 30), over seeds" in overview(tmp_path / "boards")
