"""The whole path: one command from texts to a board row, killed and resumed, and the same twice."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grit.bench import records, run
from grit.bench.experiment import Experiment
from grit.bench.types import MalformedInput, UsageError

pytestmark = pytest.mark.xdist_group("one run")  # which most tests here look at, and takes half a minute

SMALL = Experiment(
    models=("tfidf", "student"),
    schemes=("natural", "proposed"),
    attacks=("pwws+thesaurus", "deepwordbug"),
    n=12,
    n_train=120,
    targets=(),  # whose measuring takes as long as the rest together
    settings=(("epochs", "2"),),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> run.Finished:
    return run.run(SMALL, tmp_path_factory.mktemp("run") / "out", jobs=1, quiet=True)


def lasting(folder: Path) -> list[dict[str, object]]:
    """The records of a folder without the part that two identical runs may not share."""
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "run"} for line in lines]


def test_every_row_is_recorded_with_every_attack(finished: run.Finished) -> None:
    rows = [(row.record.model.name, row.record.scheme.name) for row in finished.rows]
    assert sorted(rows) == [
        ("student", "natural"),
        ("student", "proposed"),
        ("tfidf", "natural"),
        ("tfidf", "proposed"),
    ]
    for row in finished.rows:
        assert [attack.name for attack in row.record.attacks] == ["deepwordbug.strong", "pwws.strong+thesaurus"]
        assert row.record.clean.n == row.record.data.n == 12
        assert row.record.worst.low <= min(attack.robust.low for attack in row.record.attacks)


def test_size_and_latency_are_of_the_artefact_that_was_attacked(tmp_path: Path) -> None:
    from grit.bench.export import build

    few = dataclasses.replace(SMALL, models=("tfidf",), schemes=("natural",), attacks=("deepwordbug",), n=4)
    found = run.run(dataclasses.replace(few, targets=("local",)), tmp_path / "out", jobs=1, quiet=True)
    (row,) = found.rows
    files = (found.folder / "model").glob(f"*/{run.ARTEFACT}")
    assert row.record.artefact.digest in {build.load(file).digest for file in files}
    assert row.record.artefact.total_bytes == sum(row.record.artefact.sizes_bytes.values())
    assert {"vocabulary"} <= set(row.record.artefact.sizes_bytes)
    assert any(cell.target == "local" and cell.kind == "measured" for cell in row.record.costs)


def test_small_and_embedded_rows_are_unranked_with_the_reason(finished: run.Finished) -> None:
    for row in finished.rows:
        assert {"small", "embedded"} <= {flag.name for flag in row.record.unranked}


def test_evidence_replays_on_the_artefact(finished: run.Finished) -> None:
    """Every claimed break misclassifies, every survivor's nearest miss does not."""
    from grit.bench import datasets
    from grit.bench.export import build, words
    from grit.bench.sentence import Text
    from grit.bench.types import Threat

    texts = {example.id: example for example in datasets.load("pings").test}
    checked = 0
    for home in sorted((finished.folder / "model").iterdir()):
        place = finished.folder / "evidence" / home.name
        if not place.is_dir():
            continue  # the teacher is trained and not attacked
        artefact = build.load(home / run.ARTEFACT)
        for outcomes in records.read_evidence(place).attacks.values():
            for outcome in outcomes:
                if outcome.outcome == "broken":
                    example = texts[outcome.id]
                    text = Text(example.text, Threat()).apply(outcome.script)
                    assert int(words.answer(artefact, [text])[0].argmax()) == outcome.predicted != example.label
                    checked += 1
    assert checked > 4


def test_the_folder_holds_the_board_as_files(finished: run.Finished) -> None:
    assert "UNRANKED" in (finished.folder / "board.md").read_text()
    page = (finished.folder / "index.html").read_text()
    assert "student" in page
    assert "deepwordbug.strong" in (finished.folder / "curves.svg").read_text()
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)  # it loads nothing from anywhere


def test_no_text_of_the_data_is_in_the_folder_but_in_the_vocabulary(finished: run.Finished) -> None:
    from grit.bench import datasets

    some = [example.text for example in datasets.load("pings").test if len(example.text) > 60][:200]
    for file in finished.folder.rglob("*"):
        if file.is_file() and file.suffix in (".jsonl", ".json", ".md", ".html", ".svg", ".txt"):
            content = file.read_text(errors="replace")
            assert not any(text in content for text in some), file


def test_the_same_command_again_changes_nothing(finished: run.Finished) -> None:
    before = lasting(finished.folder)
    run.run(SMALL, finished.folder, jobs=1, quiet=True)
    assert lasting(finished.folder) == before


def test_two_folders_and_two_processes_give_the_same_records(finished: run.Finished, tmp_path: Path) -> None:
    run.run(SMALL, tmp_path / "other", jobs=2, quiet=True)
    assert lasting(tmp_path / "other") == lasting(finished.folder)


def test_a_run_killed_at_random_moments_ends_with_the_same_records(tmp_path: Path) -> None:
    wanted = dataclasses.replace(SMALL, models=("student",), schemes=("natural",), settings=(("epochs", "6"),))
    run.run(wanted, tmp_path / "whole", jobs=1, quiet=True)
    words = [
        *("run", "--model", "student", "--scheme", "natural", "--attack", "pwws+thesaurus,deepwordbug", "--n", "12"),
        *("--n-train", "120", "--set", "epochs=6", "--target", "none", "--jobs", "2"),
        *("-q", "-o", str(tmp_path / "killed")),
    ]
    moments, kills, shortest = random.Random(7), 0, 1.0
    while True:
        process = subprocess.Popen([sys.executable, "-m", "grit", *words], stdout=subprocess.DEVNULL)
        try:
            code = process.wait(timeout=moments.uniform(shortest, shortest + 4.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            shortest *= 1.6  # so that a slow machine ends it too
        else:
            assert code == 0
            break
    assert kills >= 2
    assert lasting(tmp_path / "killed") == lasting(tmp_path / "whole")


def test_the_time_of_training_counts_what_a_killed_process_had_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grit.bench import checkpoint, train

    judged, saved = train._Run.judge, checkpoint.save_model

    def an_hour(self: Any, *args: Any) -> Any:
        judged(self, *args)
        self.history[-1] = dataclasses.replace(self.history[-1], seconds=3600.0)
        return self.history[-1]

    def killed(*args: object) -> None:
        monkeypatch.setattr(checkpoint, "save_model", saved)
        raise KeyboardInterrupt

    monkeypatch.setattr(train._Run, "judge", an_hour)
    wanted = dataclasses.replace(SMALL, models=("tfidf",), schemes=("natural",), settings=(("epochs", "3"),))
    times = Path("model") / "tfidf[epochs=3].natural.s0" / run.TIMES
    run.train(wanted, tmp_path / "whole", jobs=1, quiet=True)
    assert json.loads((tmp_path / "whole" / times).read_text())["train"] < 3600  # its own clock, not the epochs'
    monkeypatch.setattr(checkpoint, "save_model", killed)
    with pytest.raises(KeyboardInterrupt):
        run.train(wanted, tmp_path / "killed", jobs=1, quiet=True)
    run.train(wanted, tmp_path / "killed", jobs=1, quiet=True)
    assert 3 * 3600 <= json.loads((tmp_path / "killed" / times).read_text())["train"] < 4 * 3600


def test_every_row_is_checked_and_tried_with_what_broke_the_others(finished: run.Finished) -> None:
    for row in finished.rows:
        made = {check.check for check in row.record.checks}
        assert made == {"scale", "budget", "control", "unbounded", "oracle", "transfer"}
        assert {
            flag.name
            for flag in records.flags(
                row.record.data, row.record.clean, row.record.attacks, embedded=True, checks=row.record.checks
            )
        } <= {flag.name for flag in row.record.flags}
        assert all(check.lost == 0 for check in row.record.checks if check.check == "scale")


def test_neither_blocks_nor_processes_change_an_outcome(
    finished: run.Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process and one block, one process and blocks of three, two processes and the blocks of that size."""
    row = next(str(path) for path in (finished.folder / "model").iterdir() if path.name.startswith("student"))
    changes = {"attacks": ("pwws+thesaurus", "deepwordbug"), "n": 20}
    run.attack(row, changes, tmp_path / "two", jobs=2, quiet=True)
    monkeypatch.setattr(run, "BLOCK", (3, 3))
    run.attack(row, changes, tmp_path / "threes", jobs=1, quiet=True)
    monkeypatch.setattr(run, "BLOCK", (999, 999))
    run.attack(row, changes, tmp_path / "one", jobs=1, quiet=True)
    assert lasting(tmp_path / "one") == lasting(tmp_path / "two") == lasting(tmp_path / "threes")
    evidence = [sorted(folder.rglob("*.jsonl.gz")) for folder in (tmp_path / "one", tmp_path / "threes")]
    assert [file.read_bytes() for file in evidence[0]] == [file.read_bytes() for file in evidence[1]]
    assert not list(tmp_path.rglob("blocks"))


def test_a_suite_runs_on_what_still_stands_and_says_the_same_worst_case(finished: run.Finished, tmp_path: Path) -> None:
    row = next(str(path) for path in (finished.folder / "model").iterdir() if path.name.startswith("tfidf"))
    members = ("pwws+thesaurus", "deepwordbug+thesaurus", "hotflip+thesaurus")
    (suite,) = run.attack(row, {"attacks": ("std@1+thesaurus",), "n": 12}, tmp_path / "suite", jobs=1, quiet=True).rows
    (apart,) = run.attack(row, {"attacks": members, "n": 12}, tmp_path / "apart", jobs=1, quiet=True).rows
    assert suite.record.suite == apart.record.suite == "std@1+thesaurus"
    assert suite.record.suite_sha256 == apart.record.suite_sha256
    assert suite.record.worst == apart.record.worst
    seen = {attack.name: attack.robust.n for attack in suite.record.attacks}
    assert seen["pwws.strong+thesaurus"] == 12 > seen["deepwordbug.strong"] >= seen["hotflip.strong+thesaurus"]
    assert {attack.robust.n for attack in apart.record.attacks} == {12}
    assert suite.record.checks == apart.record.checks  # the sample is completed


def test_a_folder_without_a_trained_row_is_refused(tmp_path: Path) -> None:
    from grit.bench import experiment

    wanted = dataclasses.replace(SMALL, models=("tfidf",))
    experiment.Folder(tmp_path / "begun").open(wanted, experiment.load_data(wanted))
    (tmp_path / "begun" / "model").mkdir()
    with pytest.raises(UsageError, match="no trained row yet"):
        run.attack(str(tmp_path / "begun"), {}, tmp_path / "out", quiet=True)


def test_other_attacks_run_on_saved_rows(finished: run.Finished, tmp_path: Path) -> None:
    changes = {"attacks": ("hotflip+thesaurus",), "n": 5}
    found = run.attack(str(finished.folder), changes, tmp_path / "more", jobs=1, quiet=True)
    assert {attack.name for row in found.rows for attack in row.record.attacks} == {"hotflip.strong+thesaurus"}
    assert {row.record.data.n for row in found.rows} == {5}
    with pytest.raises(UsageError, match="trained already"):
        run.attack(str(finished.folder), {"schemes": ("natural",)}, tmp_path / "no", quiet=True)


def test_any_callable_is_a_victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shouting.py").write_text(
        "import numpy as np\n"
        "def logits(texts):\n"
        "    urgent = {'now', 'stuck', 'help', 'minutes'}\n"
        "    loud = np.array([sum(w.lower() in urgent for w in t.split()) for t in texts])\n"
        "    return np.stack([np.full(len(texts), 0.5), loud], axis=1)\n"
    )
    monkeypatch.chdir(tmp_path)
    found = run.attack("shouting:logits", {"attacks": ("deepwordbug",), "n": 20}, tmp_path / "out", quiet=True)
    (row,) = found.rows
    assert row.record.artefact.total_bytes is None
    assert row.record.training is None
    assert row.record.clean.n == 20


SICK = """
import numpy as np
def some(texts):
    answers = np.array([[0.0, 1.0 + len(t)] for t in texts])
    return np.where(np.array([["e" in t[:3]] for t in texts]), {bad}, answers)
def every(texts):
    return np.full((len(texts), 2), {bad})
def raising(texts):
    raise RuntimeError("out of order")
"""


@pytest.mark.parametrize("bad", ["np.nan", "np.inf"])
def test_a_model_of_nan_is_never_robust(bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a logit is no number the example is an error: in the outcomes, the counts, the flags and the worst case."""
    name = f"sick_{bad[3:]}"
    (tmp_path / f"{name}.py").write_text(SICK.format(bad=bad))
    monkeypatch.chdir(tmp_path)
    changes = {"attacks": ("deepwordbug",), "n": 30}
    (row,) = run.attack(f"{name}:some", changes, tmp_path / "out", quiet=True).rows
    (attack,) = row.record.attacks
    assert row.evidence is not None
    failed = {line.id for line in row.evidence.clean if line.predicted == -1}
    assert 0 < len(failed) < 30
    outcomes = row.evidence.attacks["deepwordbug.strong"]
    assert failed <= {outcome.id for outcome in outcomes if outcome.outcome == "error"}
    assert all("NaN or infinite" in outcome.reason for outcome in outcomes if outcome.outcome == "error")
    assert attack.errors >= len(failed) and attack.robust.low + attack.errors <= attack.robust.high
    assert not any(row.evidence.robust()[id] for id in failed)
    assert "errors" in {flag.name for flag in row.record.unranked}
    with pytest.raises(MalformedInput, match=rf"{name}.every fails on each of 10 texts.*NaN or infinite"):
        run.attack(f"{name}:every", {**changes, "n": 10}, tmp_path / "every", quiet=True)
    with pytest.raises(MalformedInput, match=r"fails on each of 10 texts.*RuntimeError: out of order"):
        run.attack(f"{name}:raising", {**changes, "n": 10}, tmp_path / "raising", quiet=True)


def test_breaks_are_shown_from_the_evidence_and_the_data(finished: run.Finished) -> None:
    labels, found = run.breaks(finished, 1)
    assert labels == ("later", "now") and found
    for each in found:
        assert each.script and each.predicted != each.example.label
    assert len({(each.row, each.attack) for each in found}) == len(found)


def test_one_row_is_exported_and_measured(finished: run.Finished, tmp_path: Path) -> None:
    row = next(path for path in (finished.folder / "model").iterdir() if path.name.startswith("student"))
    for precision in ("fp32", "int8"):
        sizes = run.export(str(row), "onnx", precision, tmp_path / precision)
        assert sizes == {file.name: file.stat().st_size for file in (tmp_path / precision).iterdir()}
    with pytest.raises(UsageError, match="name one"):
        run.export(str(finished.folder), "onnx", "int8", tmp_path / "x")
