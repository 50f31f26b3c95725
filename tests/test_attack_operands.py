"""``grit attack`` on a model in every form in which it may lie on a disk: the same bytes meet the same fate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grit.bench import adequacy, bridge, cli, operands, records, run, submission, verify
from grit.bench.experiment import ARTEFACT, Experiment
from grit.bench.types import CouldNotMeasure, MalformedInput, UsageError

ATTACKS = ("deepwordbug",)
TFIDF, STUDENT = "tfidf[epochs=2].natural.s0", "student[epochs=2].natural.s0"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rows in ``out``, its bundles in ``packed``, and one of its models in every exported form."""
    place = tmp_path_factory.mktemp("operands")
    small = Experiment(
        models=("tfidf", "student"),
        schemes=("natural",),
        attacks=ATTACKS,
        targets=(),
        n=12,
        n_train=120,
        settings=(("epochs", "2"),),
    )
    run.run(small, place / "out", jobs=1, quiet=True)
    for form in ("program", "onnx", "c"):
        run.export(str(place / "out" / "tfidf"), form, "int8", place / form)
    run.export(str(place / "out" / "student"), "program", "fp32", place / "floats")
    with pytest.raises(SystemExit) as ended:
        cli.main(["pack", str(place / "out"), "-o", str(place / "packed"), "--archive"])
    assert ended.value.code == 0
    return place


@pytest.fixture(autouse=True)
def unchecked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks of the attacks have tests of their own, and take most of the time."""
    if "checked" not in request.fixturenames:
        monkeypatch.setattr(adequacy, "checks", lambda *_: ())


@pytest.fixture
def checked() -> None:
    """Asked for by a test that wants them."""


def attacked(operand: Path | str, out: Path, **changes: Any) -> records.Row:
    asked = {"attacks": ATTACKS, "n": 12, "targets": (), **changes}
    (row,) = run.attack(str(operand), asked, out, jobs=1, quiet=True).rows
    return row


FORMS: dict[str, Callable[[Path], Path]] = {
    "row": lambda place: place / "out" / "model" / TFIDF,
    "row by its model": lambda place: place / "out" / "tfidf",
    "row by its parts": lambda place: place / "out" / "tfidf.natural",
    "row in full": lambda place: place / "out" / TFIDF,
    "bundle": lambda place: place / "packed" / "tfidf-epochs=2-.natural.s0",
    "archive": lambda place: place / "packed" / "tfidf-epochs=2-.natural.s0.tar",
    "program": lambda place: place / "program",
    "program file": lambda place: place / "program" / "program.safetensors",
    "deployed bytes": lambda place: place / "out" / "model" / TFIDF / ARTEFACT,
    "graph": lambda place: place / "onnx",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_model_meets_the_same_fate(form: str, made: Path, tmp_path: Path) -> None:
    known = {row.record.model.name: row for row in run.Finished(made, tuple(records.read_rows(made / "out"))).rows}
    expected, found = known["tfidf"], attacked(FORMS[form](made), tmp_path / "out")
    assert found.evidence == expected.evidence
    assert found.record.clean == expected.record.clean
    assert found.record.worst == expected.record.worst
    if form != "graph":  # other bytes, which answer alike
        assert found.record.artefact.digest == expected.record.artefact.digest
        assert found.record.artefact.total_bytes == expected.record.artefact.total_bytes
    assert str(made) not in records.encode_record(found.record).decode().replace(found.record.run.command, "")
    for file in ("curves.svg", "board.md", "index.html"):
        assert (tmp_path / "out" / file).stat().st_size > 0


def test_a_bundle_keeps_its_words_and_its_gradients(made: Path, tmp_path: Path) -> None:
    """Its weights came along, so a search by gradient takes the same course as on the row in its run."""
    bundle = made / "packed" / "student-epochs=2-.natural.s0"
    changes = {"attacks": ("hotflip+thesaurus",), "n": 4}
    packed = attacked(bundle, tmp_path / "packed", **changes)
    row = attacked(made / "out" / "student", tmp_path / "row", **changes)
    assert packed.evidence == row.evidence
    assert packed.record.attacks[0].gradients > 0
    for part in ("model", "scheme", "training", "artefact", "data"):
        assert getattr(packed.record, part) == getattr(row.record, part)
    assert attacked(made / "floats", tmp_path / "floats", **changes).record.attacks[0].gradients == 0


def test_a_model_without_its_run_is_checked_like_any_row(made: Path, tmp_path: Path, checked: None) -> None:
    found = attacked(FORMS["program"](made), tmp_path / "out").record
    (known,) = [each for each in records.read_records(made / "out" / records.RECORDS) if each.model.name == "tfidf"]
    assert found.checks == tuple(check for check in known.checks if check.check != "transfer")


def test_a_bundle_brings_the_name_of_its_data(made: Path) -> None:
    assert operands.data_of(str(FORMS["bundle"](made))) == operands.data_of(str(FORMS["archive"](made)))
    assert operands.data_of(str(FORMS["archive"](made))) == {"dataset": "pings"}
    assert operands.data_of(str(FORMS["program"](made))) == operands.data_of("module:function") == {}


def test_the_same_command_goes_on_where_it_was_killed(made: Path, tmp_path: Path) -> None:
    whole = attacked(FORMS["program"](made), tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.records, "append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            attacked(FORMS["program"](made), tmp_path / "killed")
        patch.setattr(run, "_attack_examples", lambda *_: pytest.fail("attacked again"))
        patch.setattr(run, "_check_victim", lambda *_: pytest.fail("checked again"))
        patch.undo()
    assert attacked(FORMS["program"](made), tmp_path / "killed").evidence == whole.evidence


@pytest.mark.long
def test_blocks_in_two_processes_end_as_in_one(made: Path, tmp_path: Path) -> None:
    changes = {"attacks": ATTACKS, "n": 12}
    (row,) = run.attack(str(FORMS["bundle"](made)), changes, tmp_path / "two", jobs=2, quiet=True).rows
    assert row.evidence == attacked(FORMS["bundle"](made), tmp_path / "one").evidence


def test_other_bytes_under_a_path_are_another_experiment(made: Path, tmp_path: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(made / "program", place)
    attacked(place, tmp_path / "out")
    shutil.copy(made / "floats" / "program.safetensors", place)
    with pytest.raises(UsageError, match="holds another experiment"):
        attacked(place, tmp_path / "out")


# --- what is no model ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operand", "said"),
    [
        ("out/stud", "unknown row 'stud'"),
        ("out/tfidf.proposed", "unknown row 'tfidf.proposed'"),
        ("c", "it holds C, which is compiled into firmware"),
        ("packed", "it holds 2 bundles; give one, as"),
        ("nowhere", "there is nothing of that name"),
    ],
)
def test_what_cannot_be_attacked_is_said_in_one_line(operand: str, said: str, made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        attacked(made / operand, tmp_path / "out")
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_key_of_several_rows_names_none(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(made / "out", other)
    shutil.copytree(other / "model" / TFIDF, other / "model" / "tfidf[epochs=3].natural.s0")
    with pytest.raises(UsageError, match=r"2 rows of .* are called 'tfidf': name one of tfidf"):
        attacked(other / "tfidf", tmp_path / "out")
    assert attacked(other / TFIDF, tmp_path / "out").record.model.name == "tfidf"


def test_files_that_hold_no_model_are_malformed(made: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(MalformedInput, match="not a program file"):
        attacked(tmp_path / "notes.txt", tmp_path / "one")
    archive = FORMS["archive"](made).read_bytes()
    (tmp_path / "cut.tar").write_bytes(archive[: len(archive) // 2])
    with pytest.raises(MalformedInput, match="cut off or damaged"):
        attacked(tmp_path / "cut.tar", tmp_path / "two")


def test_words_that_say_nothing_about_a_given_model_are_refused(made: Path, tmp_path: Path) -> None:
    for name, value in (("schemes", ("natural",)), ("n_train", 9), ("settings", (("epochs", "3"),))):
        with pytest.raises(UsageError, match="comes as it is: --"):
            attacked(made / "program", tmp_path / "out", **{name: value})


@pytest.mark.parametrize("form", ["graph", "bundle"])
def test_a_model_without_its_run_becomes_a_bundle_that_replays(form: str, made: Path, tmp_path: Path) -> None:
    row = attacked(FORMS[form](made), tmp_path / "out")
    with pytest.raises(SystemExit, match="0"):
        cli.main(["pack", str(tmp_path / "out"), "-o", str(tmp_path / "packed")])
    (place,) = (tmp_path / "packed").iterdir()
    bundle = submission.read_bundle(place)
    assert bundle.submission.record.artefact == row.record.artefact
    assert ("model/model.safetensors" in bundle.files) == (form == "bundle")
    report = verify.verify(bundle, verify.Setting(respond=verify.unguarded))
    assert report.code == 0, report.findings


def test_a_program_without_its_weights_is_not_submitted(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attacked(made / "program", tmp_path / "out")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["pack", str(tmp_path / "out"), "-o", str(tmp_path / "packed")])
    assert "came without its weights" in capsys.readouterr().err


def test_a_strangers_graph_is_measured_by_onnxruntime_alone(made: Path, tmp_path: Path) -> None:
    row = attacked(made / "onnx", tmp_path / "out", targets=("local",))
    cells = {cell.engine: cell for cell in (*row.record.cost, *row.record.run.cost)}
    assert cells["ort"].kind == "measured" and cells["ort"].values["p50_us"] > 0
    assert not cells["c"].values and "our own programs only" in cells["c"].reason
    again = run.measure(str(tmp_path / "out"), ("local",), quiet=True)
    assert [cell.engine for cell in again["onnx"] if cell.values] == ["ort"]


def test_a_run_of_attacks_on_a_model_from_elsewhere_names_that_model(made: Path, tmp_path: Path) -> None:
    attacked(made / "onnx", tmp_path / "out")
    with pytest.raises(UsageError, match="came without its run: attack that"):
        attacked(tmp_path / "out", tmp_path / "again")
    with pytest.raises(UsageError, match="came without its weights"):
        run.export(str(tmp_path / "out"), "c", "int8", tmp_path / "c")
    with pytest.raises(UsageError, match="came without its weights"):
        run.precision(str(tmp_path / "out"))


def test_data_of_other_labels_is_refused_with_the_way_out(made: Path, tmp_path: Path) -> None:
    rows = [{"text": f"text number {n}", "label": n % 3} for n in range(60)]
    (tmp_path / "three.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UsageError, match=r"answers 2 classes.* has 3 labels; name the data .* --dataset"):
        attacked(made / "program", tmp_path / "out", dataset=str(tmp_path / "three.jsonl"))


def test_a_bundle_over_data_that_is_not_here_could_not_be_measured(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRIT_DATA", str(tmp_path / "empty"))
    monkeypatch.setattr(operands, "data_of", lambda operand: {"dataset": "sst2"})
    with pytest.raises((CouldNotMeasure, UsageError), match="sst2"):
        attacked(FORMS["bundle"](made), tmp_path / "out")


def test_the_bridge_reads_the_same_bytes(made: Path) -> None:
    with operands.given(str(FORMS["bundle"](made)), 2) as given:
        texts = ["call me now", "see you later", ""]
        assert (given.victim.logits(texts) == bridge.saved(FORMS["row"](made)).logits(texts)).all()
