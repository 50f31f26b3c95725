"""Every command on one small finished run, as a user gives it: what it prints, what it writes, how it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from grit.bench import cli, records
from grit.bench.experiment import ARTEFACT

ROW = "student.natural.s0"
WORDS = (
    *("run", "--model", "student", "--scheme", "natural", "--attack", "pwws+thesaurus,deepwordbug", "--n", "12"),
    *("--n-train", "400", "--set", "epochs=6", "--jobs", "1", "-q"),
)


class Said(NamedTuple):
    """How a command ended: its exit code, and its two streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Said]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one row; its student is student[epochs=6]."""
    place = tmp_path_factory.mktemp("commands") / "out"
    with pytest.raises(SystemExit) as ended:
        cli.main([*WORDS, "-o", str(place)])
    assert ended.value.code == 0
    return place


@pytest.fixture
def row(folder: Path) -> Path:
    (home,) = [home for home in (folder / "model").iterdir() if (home / ARTEFACT).is_file()]
    return home


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)

    def called(*words: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Said(int(ended.value.code or 0), out, err)

    return called


def refused(said: Said, code: int, *parts: str) -> None:
    """One line on the error stream, the code, nothing on the other stream."""
    assert said.code == code, said
    lines = [line for line in said.err.splitlines() if line.startswith("grit: ")]
    assert len(lines) == 1 and not said.out
    for part in parts:
        assert part in lines[0]


# --- run, train ---------------------------------------------------------------------------------------------


def test_the_same_run_again_prints_the_same_board_and_writes_nothing(call: Call, folder: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (folder / "model").rglob("*") if file.is_file()}
    said = call(*WORDS, "-o", folder)
    assert said.code == 0
    assert "student" in said.out and "UNRANKED" in said.out and str(folder) in said.out
    assert {file: file.stat().st_mtime_ns for file in (folder / "model").rglob("*") if file.is_file()} == before


def test_a_run_as_json_is_its_records(call: Call, folder: Path) -> None:
    said = call(*WORDS, "-o", folder, "--json")
    stored = [json.loads(line) for line in (folder / records.RECORDS).read_text().splitlines()]
    assert said.json == {"folder": str(folder), "records": stored}


def test_other_words_do_not_write_into_a_run(call: Call, folder: Path) -> None:
    refused(call(*WORDS, "--seed", "1", "-o", folder), 2, "holds another experiment", "-o")


def test_train_alone_ends_with_an_artefact_that_run_goes_on_with(call: Call, tmp_path: Path) -> None:
    said = call("train", *WORDS[1:], "-o", tmp_path / "trained")
    assert said.code == 0 and said.out.strip() == str(tmp_path / "trained")
    (artefact,) = (tmp_path / "trained").glob(f"model/*/{ARTEFACT}")
    before = artefact.read_bytes()
    assert not (tmp_path / "trained" / records.RECORDS).exists()
    assert call(*WORDS, "-o", tmp_path / "trained").code == 0
    assert artefact.read_bytes() == before
    assert not list((tmp_path / "trained").glob("model/*/training")), "the checkpoint has done its service"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (("--set", "hidden=0"), ("makes no model", "correct the field")),
        (("--set", "epochs=0"), ("epochs=0", "1 or more")),
        (("--target", "local://x"), ("local takes nothing behind its name",)),
        (("--target", "emu://cortex-m5"), ("unknown core 'cortex-m5'", "cortex-m4")),
        (("--attack", "pwws+thesaurus,pwws+thesaurus"), ("asked for twice",)),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(
    call: Call, tmp_path: Path, change: tuple[str, str], parts: tuple[str, ...]
) -> None:
    said = call(*WORDS, *change, "-o", tmp_path / "new")
    refused(said, 2, *parts)
    assert not list((tmp_path / "new").glob("model/*/history.json"))


# --- attack, measure, export ---------------------------------------------------------------------------------


def test_attack_prints_a_board_and_curves_of_the_saved_row(call: Call, folder: Path, tmp_path: Path) -> None:
    said = call("attack", folder, "--attack", "random_search+thesaurus", "--n", "6", "-q", "-o", tmp_path / "again")
    assert said.code == 0, said.err
    assert "random_search" in said.out and "edits" in said.out
    (record,) = records.read_records(tmp_path / "again" / records.RECORDS)
    assert record.data.n == 6 and [attack.name for attack in record.attacks] == ["random_search.strong+thesaurus"]
    (original,) = records.read_records(folder / records.RECORDS)
    assert record.artefact.digest == original.artefact.digest
    assert (tmp_path / "again" / "curves.svg").read_text().startswith("<svg")


def test_attack_shows_adversarial_texts_only_when_asked(call: Call, folder: Path, tmp_path: Path) -> None:
    words = ("attack", folder, "--attack", "deepwordbug", "--n", "12", "-q", "-o", tmp_path / "shown")
    plain, shown = call(*words), call(*words, "--show", "2")
    assert shown.code == plain.code == 0
    assert "deepwordbug.strong" in shown.out and len(shown.out) > len(plain.out)
    files = [file for file in (tmp_path / "shown").rglob("*") if file.is_file()]
    added = [line for line in shown.out.splitlines() if line not in plain.out.splitlines() and len(line.split()) > 6]
    for line in added:
        assert all(line.encode() not in file.read_bytes() for file in files), "texts go to the terminal alone"
    refused(call(*words, "--show", "2", "--json"), 2, "--show prints texts for people")


def test_what_was_trained_cannot_be_changed_by_attacking(call: Call, folder: Path) -> None:
    refused(call("attack", folder, "--scheme", "proposed"), 2, "is trained already", "--scheme cannot change it")
    refused(call("attack", folder, "--set", "epochs=3"), 2, "is trained already")


def test_measure_prints_a_cell_an_engine(call: Call, row: Path) -> None:
    said = call("measure", row, "--target", "local", "-q", "--json")
    assert said.code == 0, said.err
    ((name, cells),) = said.json.items()
    assert name == row.name
    assert {cell["engine"] for cell in cells} == {"ort", "c"}
    for cell in cells:
        assert (cell["kind"] == "not measured") == bool(cell["reason"])
        if cell["kind"] == "measured":
            assert 0 < cell["values"]["min_us"] <= cell["values"]["p50_us"] <= cell["values"]["p99_us"]
    name, heading, *lines = call("measure", row, "-q").out.splitlines()
    assert name == row.name and heading.split()[:3] == ["target", "engine", "kind"]
    assert lines[0].split()[:3] == ["local", "ort", "measured"]


def test_measure_compares_int8_with_fp32_on_the_test_split(call: Call, row: Path) -> None:
    said = call("measure", row, "--precision", "--json")
    assert said.code == 0, said.err
    found = said.json[row.name]
    assert set(found) == {"n", "int8", "fp32", "agreed"} and found["n"] == 500  # of the embedded corpus
    assert 0.5 < found["int8"] / 500 and abs(found["int8"] - found["fp32"]) <= 500 - found["agreed"] < 50
    assert f"{row.name}: of 500 texts int8 gets" in call("measure", row, "--precision").out
    refused(call("measure", row, "--precision", "--target", "local"), 2, "leave --target out")


@pytest.mark.parametrize(
    ("form", "file"), [("onnx", "model.onnx"), ("program", "program.safetensors"), ("c", "model.c")]
)
def test_export_writes_what_it_says_it_writes(call: Call, row: Path, tmp_path: Path, form: str, file: str) -> None:
    said = call("export", row, "--to", form, "-o", tmp_path / form, "--json")
    assert said.code == 0, said.err
    sizes = said.json["sizes_bytes"]
    assert file in sizes
    assert {path.name: path.stat().st_size for path in (tmp_path / form).iterdir()} == sizes


def test_export_needs_a_place_and_one_row(call: Call, folder: Path, row: Path) -> None:
    refused(call("export", row, "--to", "onnx"), 2, "needs -o DIR")
    refused(call("export", folder.parent, "--to", "onnx", "-o", "x"), 2, "is no run folder")


# --- board, compare, gate ------------------------------------------------------------------------------------


def test_the_board_says_the_same_in_every_form(call: Call, folder: Path, tmp_path: Path) -> None:
    (record,) = records.read_records(folder / records.RECORDS)
    (line,) = csv.DictReader(io.StringIO(call("board", folder, "--format", "csv").out))
    assert (int(line["worst_k"]), int(line["clean_k"]), int(line["n"])) == (record.worst.low, record.clean.k, 12)
    section = call("board", folder, "--json").json["sections"][0]
    assert section["rows"][0]["worst_k"] == record.worst.low
    table = call("board", folder, "--format", "markdown").out
    assert f"{100 * record.worst.low / 12:.1f}" in table
    assert f"{100 * record.worst.low / 12:.1f}" in call("board", folder).out
    assert call("board", folder, "-o", tmp_path / "site").out.strip() == str(tmp_path / "site" / "index.html")


def test_a_board_of_nothing_could_not_be_measured(call: Call, tmp_path: Path) -> None:
    refused(call("board"), 4, "no folder runs/ here")
    refused(call("board", tmp_path), 4, "no records in")


def test_a_row_is_compared_and_gated_with_itself(call: Call, folder: Path, row: Path) -> None:
    (comparison,) = call("compare", folder, row, "--json").json
    assert all(line["p"] == 1.0 for line in comparison["differences"])
    said = call("gate", "--baseline", folder, "--candidate", row, "--max-bytes", "10000000")
    assert said.code == 0 and said.out.splitlines()[-1] == "gate: pass"
    tight = call("gate", "--baseline", folder, "--candidate", row, "--max-bytes", "10", "--json")
    assert tight.code == 1 and tight.json["verdict"] == "fail"
    fast = call("gate", "--baseline", folder, "--candidate", row, "--fast")
    assert fast.code == 0 and "upper bound by replay" in fast.out


def test_the_clock_needs_a_calibration_and_takes_the_one_that_was_written(
    call: Call, folder: Path, tmp_path: Path
) -> None:
    without = call("gate", "--baseline", folder, "--candidate", folder, "--clock")
    assert without.code == 4 and "no calibration of this machine" in without.out
    file = tmp_path / "calibration.json"
    made = call("calibrate", folder, "--pairs", "2", "--rounds", "5", "-o", file)
    assert made.code == 0 and "pairs of equals differ by up to" in made.out
    value = json.loads(file.read_text())
    file.write_text(json.dumps({**value, "effects": [5.0]}))  # whatever this machine's load: equals may differ so much
    times = tmp_path / "times.json"
    said = call(
        *("gate", "--baseline", folder, "--candidate", folder, "--clock", "--calibration", file),
        *("--pytest-benchmark", times),
    )
    assert said.code == 0, said.out
    assert len(json.loads(times.read_text())["benchmarks"]) == 2
    refused(call("gate", "--baseline", folder, "--candidate", folder, "--max-instructions", "emu"), 2, "TARGET=COUNT")
    refused(call("gate", "--baseline", folder, "--candidate", folder, "--margin", "2"), 2, "a ratio in [0, 1)")


# --- pack, lint, verify --------------------------------------------------------------------------------------


def test_a_run_is_packed_linted_and_replayed(call: Call, folder: Path, tmp_path: Path) -> None:
    packed = call("pack", folder, "-o", tmp_path / "bundles", "--archive")
    assert packed.code == 0, packed.err
    place = Path(packed.out.split()[0])
    assert re.search(rf"check it: grit verify {re.escape(str(place))}", packed.out)
    for operand in (place, place.with_name(place.name + ".tar")):
        linted = call("lint", operand, "--json")
        assert linted.code == 0, linted.out
    replayed = call("verify", place, "--sandbox", "none", "--json")
    assert replayed.code == 0, replayed.out
    refused(call("pack", folder), 2, "needs -o DIR")
    refused(call("pack", place, "-o", tmp_path / "more"), 2, "needs --reason")


def test_a_changed_byte_is_malformed(call: Call, folder: Path, tmp_path: Path) -> None:
    place = Path(call("pack", folder, "-o", tmp_path / "bundles").out.split()[0])
    file = place / "model" / ARTEFACT
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert call("lint", place).code == 6
    assert call("verify", place, "--sandbox", "none").code == 6


# --- what the machine can do ---------------------------------------------------------------------------------


@pytest.mark.parametrize("document", ["record", "submission", "verdict", "ruling"])
def test_schemas_are_json_schemas(call: Call, document: str) -> None:
    value = call("schema", document).json
    assert value["$schema"].endswith("2020-12/schema") and value["title"] == f"gritbench {document}"


def test_doctor_and_data_end_well_whatever_is_missing(call: Call) -> None:
    assert call("doctor").code == 0 and call("data").code == 0
    assert call("list", "attacks").out.startswith("attacks")


@pytest.mark.parametrize("words", [("list",), ("--help",), ("list", "--help"), ("board",), ("list", "unheard-of")])
def test_a_closed_pipe_ends_quietly_and_is_no_verdict(words: tuple[str, ...], tmp_path: Path) -> None:
    """Written by click, by click before a command begins, by rich, and on the way out with an error."""
    if words == ("board",):
        words = ("board", str(Path(__file__).parent.parent / "leaderboards" / "sst2"))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        streams: dict[str, Any] = {"stdout": writer, "stderr": writer if "unheard-of" in words else subprocess.PIPE}
        done = subprocess.run([sys.executable, "-m", "grit", *words], cwd=tmp_path, check=False, timeout=300, **streams)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr or b"") == (141, b"")


def test_a_bug_leaves_a_report_and_no_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from grit.bench import catalogue

    def broken(kind: str | None) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(catalogue, "everything", broken)
    said = call("list")
    refused(said, 7, "internal error: RuntimeError: unforeseen", "the report is in")
    place = Path(said.err.rpartition(" ")[2].strip())
    assert "Traceback" in place.read_text() and "Traceback" not in said.err
    place.unlink()
    assert "Traceback" in call("list", "--debug").err


def test_an_interrupt_says_how_to_go_on(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from grit.bench import catalogue

    def interrupted(kind: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(catalogue, "everything", interrupted)
    refused(call("list"), 130, "the same command continues")
