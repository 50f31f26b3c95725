"""Challenges and the pool: true breaks lower a row, whoever found them; false ones do not."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grit.bench import challenge, records, submission, verify
from grit.bench.types import CouldNotMeasure, Edit, MalformedInput, Outcome, SandboxViolation, Verdict
from grit.bench.verify import Setting

sys.path.append(str(Path(__file__).parent))

import golden_bundles as corpus
from golden_bundles import apart, honest, of, put_together

SETTING = Setting(respond=verify.unguarded)


def hidden() -> tuple[corpus.Files, str, Outcome]:
    """A row that hides one break, its id, and the break as an outsider finds it."""
    parts, id = corpus._hidden()
    return put_together(parts), id, apart(honest()).attacks[corpus.TYPOS][id]


def handed_in(place: Path, *outcomes: Outcome) -> Path:
    file = place / "found.jsonl.gz"
    file.write_bytes(records.compress(records.encode_outcomes(outcomes)))
    return file


def test_a_true_break_lowers_the_row(tmp_path: Path) -> None:
    files, id, found = hidden()
    ruling, lines = challenge.challenge(of(files), handed_in(tmp_path, found), SETTING)
    assert (ruling.code, ruling.upheld, ruling.refused) == (0, (id,), ())
    assert ruling.after.low == ruling.before.low - 1
    (held,) = records.decode_outcomes(lines, "x")
    assert (held.id, held.script, held.predicted, held.margin) == (id, found.script, found.predicted, found.margin)
    assert f"broken: {id}" in challenge.render(ruling)


def test_what_the_challenger_says_about_margins_counts_for_nothing(tmp_path: Path) -> None:
    files, id, found = hidden()
    boast = dataclasses.replace(found, margin=99.0, predicted=0, queries=1)
    ruling, lines = challenge.challenge(of(files), handed_in(tmp_path, boast), SETTING)
    assert ruling.upheld == (id,)
    assert records.decode_outcomes(lines, "x")[0].margin == found.margin


def test_a_break_that_is_none_is_refused(tmp_path: Path) -> None:
    parts = apart(honest())
    id = next(id for id in parts.survivors() if parts.attacks[corpus.FLIPS][id].script)
    missed = dataclasses.replace(parts.attacks[corpus.FLIPS][id], outcome="broken")
    ruling, lines = challenge.challenge(of(honest()), handed_in(tmp_path, missed), SETTING)
    assert (ruling.code, ruling.upheld, lines) == (1, (), b"")
    assert ruling.refused[0].reason == "the model is right on the text under this script"
    assert ruling.after == ruling.before


def test_a_break_outside_every_threat_is_refused(tmp_path: Path) -> None:
    parts = apart(honest())
    id = parts.survivors()[0]
    script = tuple(corpus._foreign_word(parts, id))
    words = parts.attacks[corpus.PWWS][id].words
    ruling, _ = challenge.challenge(
        of(honest()), handed_in(tmp_path, Outcome(id, "broken", script, 1, 1.0, words=words)), SETTING
    )
    assert ruling.code == 1
    assert "outside the threat of every attack" in ruling.refused[0].reason


def test_what_does_not_stand_cannot_fall(tmp_path: Path) -> None:
    parts = apart(honest())
    known = parts.attacks[corpus.PWWS][parts.of_kind(corpus.PWWS, "broken")[0]]
    stranger = dataclasses.replace(known, id="f" * 16)
    ruling, _ = challenge.challenge(of(honest()), handed_in(tmp_path, known, stranger), SETTING)
    assert ruling.code == 1
    assert {each.reason for each in ruling.refused} == {"this example does not stand in the claim"}


def test_survivors_in_the_evidence_say_nothing(tmp_path: Path) -> None:
    survivor = next(o for o in of(honest()).evidence.attacks[corpus.PWWS] if o.outcome == "survived")
    with pytest.raises(MalformedInput, match="no line that says broken"):
        challenge.challenge(of(honest()), handed_in(tmp_path, survivor), SETTING)


def test_a_break_twice_counts_once(tmp_path: Path) -> None:
    _, _, found = hidden()
    file = tmp_path / "twice.jsonl.gz"
    line = records.encode_outcomes([found])
    file.write_bytes(records.compress(line + line))
    with pytest.raises(MalformedInput, match="there twice"):
        challenge.challenge(of(honest()), file, SETTING)


@pytest.mark.parametrize("content", [b"", b"nonsense", records.compress(b"{}\n"), records.compress(b"x")])
def test_evidence_that_is_none_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(content)
    with pytest.raises(MalformedInput, match=r"x\.jsonl\.gz"):
        challenge.challenge(of(honest()), tmp_path / "x.jsonl.gz", SETTING)


def test_a_row_that_cannot_be_read_is_not_challenged(tmp_path: Path) -> None:
    files, _, found = hidden()
    with pytest.raises(MalformedInput, match="SHA256SUMS"):
        challenge.challenge(of({**files, "SHA256SUMS": b""}), handed_in(tmp_path, found), SETTING)


def test_a_row_of_other_examples_is_refuted_at_once(tmp_path: Path) -> None:
    _, _, found = hidden()
    easy: corpus.Files = corpus.GOLDEN["the easy examples"].build()  # type: ignore[assignment]  # files, by name
    with pytest.raises(Verdict, match="without a challenge"):
        challenge.challenge(of(easy), handed_in(tmp_path, found), SETTING)


def test_without_the_data_nothing_is_ruled(tmp_path: Path) -> None:
    _, _, found = hidden()
    elsewhere: corpus.Files = corpus.GOLDEN["data that is not here"].build()  # type: ignore[assignment]  # files
    with pytest.raises(CouldNotMeasure, match="not here"):
        challenge.challenge(of(elsewhere), handed_in(tmp_path, found), SETTING)


def test_a_model_that_breaks_out_is_reported(tmp_path: Path) -> None:
    files, _, found = hidden()
    setting = Setting(respond=corpus._violating())
    with pytest.raises(SandboxViolation):
        challenge.challenge(of(files), handed_in(tmp_path, found), setting)


# --- the pool ---------------------------------------------------------------------------------------


def test_what_holds_joins_the_pool_and_lowers_the_row_from_then_on(tmp_path: Path) -> None:
    files, id, found = hidden()
    _, lines = challenge.challenge(of(files), handed_in(tmp_path, found), SETTING)
    file = challenge.join(tmp_path / "pool", lines)
    assert file == challenge.join(tmp_path / "pool", lines)
    assert file.name == f"{records.digest(lines)[:16]}.jsonl.gz"
    pool = challenge.read_pool(tmp_path / "pool")
    assert pool == {id: (found.script,)}
    report = verify.verify(of(files), dataclasses.replace(SETTING, pool=pool))
    worst = of(files).submission.record.worst
    assert report.code == 0
    assert report.lowered == records.Robust(low=worst.low - 1, high=worst.high - 1, n=worst.n)
    assert verify.verdict.badge(report, report.key) == "challenged"
    assert "lowered to" in verify.render(report)


def test_a_break_of_one_model_is_tried_on_every_other(tmp_path: Path) -> None:
    """The evidence of the other rows of a dataset is a pool as it stands."""
    files, id, _ = hidden()
    submission.write(tmp_path / "pings" / "other", honest())
    submission.write(tmp_path / "pings" / "this", files)
    pool = challenge.read_pool(tmp_path / "pings")
    report = verify.verify(of(files), dataclasses.replace(SETTING, pool=pool))
    assert report.lowered is not None
    assert id not in [i for i, stands in of(honest()).evidence.robust().items() if stands]


def test_the_pool_lowers_nothing_that_holds() -> None:
    pool = {id: ((Edit("replace", 0, "zzz"),), (Edit("insert", 10**6, "x"),)) for id in apart(honest()).clean}
    report = verify.verify(of(honest()), dataclasses.replace(SETTING, pool=pool))
    assert (report.code, report.lowered) == (0, None)


def test_an_empty_pool_is_a_pool(tmp_path: Path) -> None:
    assert challenge.read_pool(tmp_path) == {}


def test_a_damaged_pool_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(b"nonsense")
    with pytest.raises(MalformedInput, match=r"x\.jsonl\.gz"):
        challenge.read_pool(tmp_path)


def test_the_verdict_knows_its_pool() -> None:
    files, id, found = hidden()
    with_pool = verify.verify(of(files), dataclasses.replace(SETTING, pool={id: (found.script,)})).key
    without = verify.verify(of(files), SETTING).key
    assert without.pool_sha256 is None
    assert with_pool.pool_sha256 is not None
    assert verify.verdict.pool_digest({id: (found.script,)}) == with_pool.pool_sha256


# --- the command ------------------------------------------------------------------------------------


def test_the_command_joins_the_pool_and_says_so(tmp_path: Path) -> None:
    files, id, found = hidden()
    submission.write(tmp_path / "row", files)
    words = ["challenge", str(tmp_path / "row"), str(handed_in(tmp_path, found)), "--sandbox", "none", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "grit", *words, "--pool", str(tmp_path / "pool")],
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["upheld"] == [id]
    assert len(list((tmp_path / "pool").iterdir())) == 1
