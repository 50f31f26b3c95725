"""What a word on the command line means by saved rows: run folders, one row of one, bundles, and rows that pair."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import experiment, operands, records, submission
from grit.bench.experiment import Experiment
from grit.bench.operands import Operand
from grit.bench.records import Row
from grit.bench.types import CouldNotMeasure, UsageError

sys.path.append(str(Path(__file__).parent))

from golden_bundles import honest
from made_rows import row_of


def with_bytes(row: Row, data: bytes) -> Row:
    """The row, its record naming these bytes as its artefact."""
    part = msgspec.structs.replace(row.record.artefact, digest=records.digest(data))
    return Row(msgspec.structs.replace(row.record, artefact=part), row.evidence)


def recorded(folder: Path, *rows: Row) -> Path:
    for number, row in enumerate(rows):
        records.append(folder / records.RECORDS, row.record)
        if row.evidence is not None:
            records.write_evidence(folder / "evidence" / str(number), row.evidence)
    return folder


def exported(folder: Path, wanted: Experiment, *left_out: str) -> Path:
    """A run folder whose rows are trained and exported, but those left out; its bytes are the names of the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / experiment.CONFIG).write_text(json.dumps({"experiment": dataclasses.asdict(wanted)}))
    for plan in experiment.rows(wanted):
        if plan.name not in left_out:
            home = experiment.Folder(folder).model(plan.name)
            home.mkdir(parents=True)
            (home / experiment.ARTEFACT).write_bytes(plan.name.encode())
    return folder


WANTED = Experiment(models=("student", "tfidf"), schemes=("natural",), seed=4)
NAMES = [plan.name for plan in experiment.rows(WANTED)]

# --- rows -------------------------------------------------------------------------------------------------


def test_bytes_belong_to_the_record_that_names_their_digest_wherever_they_lie(tmp_path: Path) -> None:
    rows = [with_bytes(row_of(model, n=30), model.encode()) for model in ("student", "prado", "tfidf")]
    recorded(tmp_path, *rows)
    for name, data in (("a", b"prado"), ("b", b"student"), ("c", b"nobody's")):
        (tmp_path / "model" / name).mkdir(parents=True)
        (tmp_path / "model" / name / experiment.ARTEFACT).write_bytes(data)
    found = operands.rows(str(tmp_path))
    assert [(row.record.model.name, row.artefact) for row in found] == [
        ("student", b"student"),
        ("prado", b"prado"),
        ("tfidf", None),
    ]
    assert all(row.place == tmp_path for row in found)


def test_a_folder_of_bundles_is_its_bundles_and_only_they(tmp_path: Path) -> None:
    for place in ("one", "below/two"):
        submission.write(tmp_path / place, honest())
    (tmp_path / "notes.txt").write_text("not a bundle")
    found = operands.rows(str(tmp_path))
    assert sorted(row.place.relative_to(tmp_path).as_posix() for row in found) == ["below/two", "one"]


def test_a_row_of_a_folder_without_records_was_not_attacked_yet(tmp_path: Path) -> None:
    exported(tmp_path, WANTED)
    with pytest.raises(CouldNotMeasure, match=r"trained and not attacked yet; 'grit run' with its words continues it"):
        operands.rows(str(tmp_path / "model" / NAMES[0]))


def test_two_records_of_the_same_bytes_are_both_that_row(tmp_path: Path) -> None:
    """Trained once, attacked twice, as with two suites."""
    rows = [with_bytes(row_of("student", n=30, beam=beam), b"same") for beam in (2, 3)]
    recorded(tmp_path, *rows, with_bytes(row_of("prado", n=30), b"other"))
    home = tmp_path / "model" / "r"
    home.mkdir(parents=True)
    (home / experiment.ARTEFACT).write_bytes(b"same")
    found = operands.rows(str(home))
    assert [row.record.model.name for row in found] == ["student", "student"]
    assert {row.artefact for row in found} == {b"same"} and {row.place for row in found} == {home}


def test_a_label_names_model_scheme_and_seed_and_no_seed_where_nothing_was_trained() -> None:
    row = row_of("student", "proposed", seed=3, n=20)
    assert Operand(row.record, None, None, Path()).label == "student proposed seed 3"
    called = msgspec.structs.replace(row.record, training=None)
    assert Operand(called, None, None, Path()).label == "student proposed"


# --- artefacts --------------------------------------------------------------------------------------------


def test_what_was_trained_is_found_before_it_was_attacked(tmp_path: Path) -> None:
    exported(tmp_path, WANTED)
    assert operands.artefacts(str(tmp_path)) == {
        "student natural seed 4": NAMES[0].encode(),
        "tfidf natural seed 4": NAMES[1].encode(),
    }


def test_one_row_of_a_run_is_that_row_alone(tmp_path: Path) -> None:
    exported(tmp_path, WANTED)
    assert operands.artefacts(str(tmp_path / "model" / NAMES[1])) == {"tfidf natural seed 4": NAMES[1].encode()}


def test_rows_still_to_come_are_left_out_and_none_at_all_says_so(tmp_path: Path) -> None:
    exported(tmp_path / "half", WANTED, NAMES[0])
    assert list(operands.artefacts(str(tmp_path / "half"))) == ["tfidf natural seed 4"]
    exported(tmp_path / "none", WANTED, *NAMES)
    with pytest.raises(CouldNotMeasure, match=r"none holds no exported row yet; the same 'grit run' or 'grit train'"):
        operands.artefacts(str(tmp_path / "none"))


def test_artefacts_of_bundles_are_those_of_their_records(tmp_path: Path) -> None:
    submission.write(tmp_path / "row", honest())
    (row,) = operands.rows(str(tmp_path / "row"))
    assert operands.artefacts(str(tmp_path)) == {row.label: row.artefact}


def test_a_record_whose_bytes_are_gone_has_no_artefact(tmp_path: Path) -> None:
    recorded(tmp_path, with_bytes(row_of("student", n=30), b"gone"))
    assert operands.artefacts(str(tmp_path)) == {}


def test_two_configurations_of_a_model_do_not_answer_for_each_other(tmp_path: Path) -> None:
    """Both are called by model, scheme and seed: a gate that took the last for all would pass a broken first."""
    both = Experiment(models=("student", "student[hidden=7]"), schemes=("natural",))
    exported(tmp_path, both)
    with pytest.raises(UsageError, match=r"2 rows are called 'student natural seed 0' in .*: name one, RUN/model/ROW"):
        operands.artefacts(str(tmp_path))
    for plan in experiment.rows(both):
        home = tmp_path / "model" / plan.name
        assert operands.artefacts(str(home)) == {"student natural seed 0": plan.name.encode()}


def test_two_bundles_of_one_label_do_not_answer_for_each_other(tmp_path: Path) -> None:
    for place in ("one", "two"):
        submission.write(tmp_path / place, honest())
    with pytest.raises(UsageError, match="2 rows are called"):
        operands.artefacts(str(tmp_path))


# --- pairs ------------------------------------------------------------------------------------------------

LABELS = st.lists(st.tuples(st.sampled_from(["student", "prado", "tfidf"]), st.integers(0, 2)), unique=True, max_size=6)
MADE = {
    (model, seed): Operand(row_of(model, seed=seed, n=4).record, None, None, Path(f"{model}{seed}"))
    for model in ("student", "prado", "tfidf")
    for seed in range(3)
}


@given(LABELS, st.randoms(use_true_random=False), LABELS)
def test_every_row_meets_its_namesake_in_the_first_ones_order(
    labels: list[tuple[str, int]], rng: object, more: list[tuple[str, int]]
) -> None:
    first = [MADE[label] for label in labels]
    second = [dataclasses.replace(MADE[label], place=Path("second")) for label in {*labels, *more}]
    rng.shuffle(second)  # type: ignore[attr-defined]  # a random.Random of hypothesis
    pairs = operands.paired(first, second)
    assert [one for one, _ in pairs] == first
    assert all(one.label == other.label and other.place == Path("second") for one, other in pairs)


def test_one_row_against_several_needs_its_namesake() -> None:
    student, prado, tfidf = (MADE[model, 0] for model in ("student", "prado", "tfidf"))
    assert operands.paired([student], [prado, student]) == [(student, student)]
    with pytest.raises(CouldNotMeasure, match="which has prado natural seed 0, tfidf natural seed 0"):
        operands.paired([student], [prado, tfidf])
    assert operands.paired([], [prado]) == []
