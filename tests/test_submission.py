"""Bundles: what goes in, the same bytes every time, and nothing read that was not checked."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import challenge, cli, leaderboard, records, submission, verify
from grit.bench.site.overview import overview
from grit.bench.submission import Life, Seeds
from grit.bench.types import MalformedInput, UsageError

sys.path.append(str(Path(__file__).parent))

from golden_bundles import FLIPS, apart, graph, honest, of, put_together, texts

ROOT = Path(__file__).resolve().parent.parent
OLD = Path(__file__).parent / "schemas"


# --- writing and reading ----------------------------------------------------------------------------


def test_a_bundle_holds_what_a_reader_needs_and_no_code() -> None:
    assert set(honest()) == {
        "submission.json",
        "README.md",
        "SHA256SUMS",
        "model/artefact.safetensors",
        "model/model.safetensors",
        "model/config.json",
        "model/vocabulary.txt",
        "evidence/clean.jsonl.gz",
        "evidence/deepwordbug.strong.jsonl.gz",
        "evidence/hotflip.strong+thesaurus.jsonl.gz",
        "evidence/pwws.strong+thesaurus.jsonl.gz",
    }


def test_coreutils_check_the_sums(tmp_path: Path) -> None:
    submission.write(tmp_path / "row", honest())
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=tmp_path / "row", capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_digest_is_that_of_the_sums(tmp_path: Path) -> None:
    digest = submission.write(tmp_path / "row", honest())
    assert digest == hashlib.sha256((tmp_path / "row" / "SHA256SUMS").read_bytes()).hexdigest()
    assert submission.read_bundle(tmp_path / "row").digest == digest


def test_folder_and_archive_are_one_bundle(tmp_path: Path) -> None:
    files = honest()
    submission.write(tmp_path / "row", files)
    (tmp_path / "row.tar").write_bytes(submission.archive(files))
    assert submission.read_bundle(tmp_path / "row").files == submission.read_bundle(tmp_path / "row.tar").files == files


def test_the_archive_is_the_same_bytes_whatever_the_order_and_the_clock() -> None:
    files = honest()
    backwards = dict(sorted(files.items(), reverse=True))
    assert submission.archive(files) == submission.archive(backwards)


def test_tar_reads_the_archive(tmp_path: Path) -> None:
    (tmp_path / "row.tar").write_bytes(submission.archive(honest()))
    with tarfile.open(tmp_path / "row.tar") as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == sorted(honest())
        assert {(member.mtime, member.uid, member.uname, member.mode) for member in members} == {(0, 0, "", 0o644)}


@given(st.dictionaries(st.from_regex(r"[a-z]{1,20}", fullmatch=True), st.binary(max_size=2000), max_size=6))
def test_every_set_of_files_comes_back_from_its_archive(files: dict[str, bytes]) -> None:
    entries = submission._unpacked(submission.archive(files), Path("x.tar"))
    assert {entry.name: entry.data for entry in entries} == files


@pytest.mark.parametrize("cut", [1, 100, 511, 513, 10240])
def test_a_cut_archive_is_refused(tmp_path: Path, cut: int) -> None:
    (tmp_path / "row.tar").write_bytes(submission.archive(honest())[:-cut][: -10240 if cut == 1 else None])
    with pytest.raises(MalformedInput, match="archive"):
        submission.read_bundle(tmp_path / "row.tar")


def test_a_folder_with_something_else_in_it_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "row").mkdir()
    (tmp_path / "row" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="something else"):
        submission.write(tmp_path / "row", honest())
    assert [entry.name for entry in (tmp_path / "row").iterdir()] == ["thesis.tex"]


def test_writing_twice_is_no_error(tmp_path: Path) -> None:
    assert submission.write(tmp_path / "row", honest()) == submission.write(tmp_path / "row", honest())


def test_links_are_not_followed(tmp_path: Path) -> None:
    submission.write(tmp_path / "row", honest())
    (tmp_path / "secret").write_text("the labels")
    (tmp_path / "row" / "model" / "vocabulary.txt").unlink()
    (tmp_path / "row" / "model" / "vocabulary.txt").symlink_to(tmp_path / "secret")
    (tmp_path / "row" / "deep").symlink_to(tmp_path)
    bundle = submission.read_bundle(tmp_path / "row")
    assert {entry.name for entry in bundle.entries if entry.kind == "link"} == {"model/vocabulary.txt", "deep"}
    assert b"the labels" not in b"".join(entry.data for entry in bundle.entries)


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    submission.write(tmp_path / "row", honest())
    os.mkfifo(tmp_path / "row" / "evidence" / "x.jsonl.gz")
    report = verify.verify(submission.read_bundle(tmp_path / "row"), verify.Setting(level="lint"))
    assert (report.code, report.findings[0].check) == (6, "layout")


def test_an_oversize_file_is_not_read(tmp_path: Path) -> None:
    submission.write(tmp_path / "row", honest())
    with (tmp_path / "row" / "model" / "model.safetensors").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    report = verify.verify(submission.read_bundle(tmp_path / "row"), verify.Setting(level="lint"))
    assert (report.code, report.findings[0].check) == (6, "sizes")


def test_a_folder_full_of_files_is_refused_early(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / str(number)).touch()
    with pytest.raises(MalformedInput, match="entries"):
        submission.read_bundle(tmp_path)


@pytest.mark.parametrize("name", ["nonesuch", "nonesuch.tar"])
def test_no_bundle_is_one_clear_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(MalformedInput, match="grit pack"):
        submission.read_bundle(tmp_path / name)


def test_no_text_of_the_data_is_in_a_bundle() -> None:
    parts = apart(honest())
    content = b"".join(
        records.decompress(data, name) if name.endswith(".gz") else data for name, data in honest().items()
    )
    for id in parts.clean:
        assert texts()[id].encode() not in content


# --- submission.json --------------------------------------------------------------------------------


def test_the_schema_accepts_what_is_written_and_refuses_what_is_not() -> None:
    schema = records.schema(submission.Submission, "gritbench submission")
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    tree = json.loads(honest()[submission.SUBMISSION])
    assert validator.is_valid(tree)
    assert not validator.is_valid({**tree, "colour": "blue"})
    assert not validator.is_valid({**tree, "adaptive": ""})
    assert not validator.is_valid({key: value for key, value in tree.items() if key != "seeds"})


def test_the_schema_on_the_board_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """For tools without Python: `grit schema submission > leaderboards/submission.schema.json`."""
    from grit.bench.cli import main

    with pytest.raises(SystemExit):
        main(["schema", "submission"])
    assert (ROOT / "leaderboards" / "submission.schema.json").read_text(encoding="utf-8") == capsys.readouterr().out


def test_reading_is_the_inverse_of_writing() -> None:
    claim = of(honest()).submission
    assert submission.decode(submission.encode(claim)) == claim


def test_the_row_says_all_that_the_board_asks_for() -> None:
    claim = of(honest()).submission
    assert claim.record.suite == "std@1+thesaurus"
    assert claim.record.training is not None
    assert claim.record.training.licence.startswith("Apache-2.0")
    assert (claim.seeds.attacks, claim.seeds.training, claim.seeds.reported, claim.seeds.runs) == (0, 0, (0,), 1)
    assert claim.determinism.exact
    assert claim.adaptive == submission.NO_ADAPTIVE_ATTACK
    assert claim.record.run.command == ""


# tests/schemas holds what earlier releases wrote, a file a document and version; old files stay when a version is
# added. `python tests/golden_bundles.py tests/schemas` writes those of the present version anew.


@pytest.mark.parametrize("file", sorted(OLD.glob("bundle-*.tar")), ids=lambda file: file.stem)
def test_old_bundles_still_load_and_say_what_they_are(file: Path) -> None:
    bundle = submission.read_bundle(file)
    version = json.loads(bundle.file(submission.SUBMISSION))["schema_version"]
    assert version == int(file.stem.rpartition("-")[2])
    report = verify.verify(bundle, verify.Setting(level="lint"))
    assert report.code == 0, report.findings  # its card too: a card that looks otherwise is a new version
    assert bundle.submission.record.suite.startswith("std@1")
    assert bundle.evidence.robust()
    assert f"schema_version {version + 1}" in unreadable(bundle, version + 1)


def unreadable(bundle: submission.Bundle, version: int) -> str:
    """What is said of the same submission under a version that this release does not know."""
    text = bundle.file(submission.SUBMISSION)
    with pytest.raises(MalformedInput) as refused:
        submission.decode(text.replace(b'\n "schema_version": 1,', b'\n "schema_version": %d,' % version))
    return str(refused.value)


def test_old_verdicts_and_rulings_still_load() -> None:
    for file in sorted(OLD.glob("verdict-*.json")):
        assert verify.decode(file.read_bytes(), file.name).says == "verified"
    for file in sorted(OLD.glob("ruling-*.json")):
        assert records.decoded(file.read_bytes(), challenge.Ruling, file.name).upheld


def test_there_is_a_fixture_of_every_schema_version() -> None:
    assert {int(file.stem.rpartition("-")[2]) for file in OLD.glob("bundle-*.tar")} == set(submission.VERSIONS)
    assert {file.stem for file in OLD.iterdir()} >= {"verdict-1", "ruling-1"}


def test_a_field_that_a_later_release_adds_refuses_no_old_row() -> None:
    """Canonical is the form of what is there: a field with a default may be missing."""
    tree = json.loads(honest()[submission.SUBMISSION])
    del tree["paper"], tree["record"]["checks"]
    data = msgspec.json.format(msgspec.json.encode(tree, order="sorted"), indent=1) + b"\n"
    assert submission.decode(data).paper == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attacks": 0, "training": 3, "reported": (0, 1), "runs": 2}, "not among the reported"),
        ({"attacks": 0, "reported": (0, 1, 2), "runs": 2}, "3 runs are reported, 2 were made"),
    ],
)
def test_seeds_must_agree(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Seeds(**fields)  # type: ignore[arg-type]  # wrong on purpose


def test_a_folder_name_is_safe() -> None:
    assert (
        submission.folder_name("student[hidden=10,epochs=2].proposed.s0") == "student-hidden=10-epochs=2-.proposed.s0"
    )
    assert submission.folder_name("../..") == "row"


# --- the card ---------------------------------------------------------------------------------------


def test_the_card_is_what_the_hub_reads() -> None:
    claim = of(honest()).submission
    _, front, body = submission.card(claim).split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["pipeline_tag"] == "text-classification"
    assert matter["datasets"] == ["pings"]
    (result,) = matter["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == round(claim.record.clean.k / claim.record.clean.n, 4)
    assert f"| clean | {claim.record.clean.k} | {claim.record.clean.n} |" in body
    assert "licence of the training data: Apache-2.0" in body
    assert "grit verify" in body


def test_foreign_words_do_nothing_in_a_card() -> None:
    claim = of(honest()).submission
    nasty = "<script>alert(1)</script> ![x](http://example.org) | --- |\n# Best\n---\nlicense: mit"
    changed = msgspec.structs.replace(claim, adaptive=nasty, licence=nasty)
    text = submission.card(changed)
    front, body = text.split("---\n", 2)[1:]
    assert yaml.safe_load(front)["license_name"] == nasty
    assert "<script>" not in body.replace("\\<script\\>", "")
    assert "\n# Best" not in body


def test_a_plug_in_is_marked_as_one() -> None:
    claim = of(honest()).submission
    record = msgspec.structs.replace(claim.record, model=msgspec.structs.replace(claim.record.model, origin="mine 1.0"))
    assert "architecture of a plug-in" in submission.card(msgspec.structs.replace(claim, record=record))
    assert "plug-in" not in submission.card(claim)


# --- a row's life -----------------------------------------------------------------------------------


def test_a_row_is_corrected_withdrawn_and_never_rewritten() -> None:
    first = of(honest())
    second = of(
        submission.amended(
            first, Life(status="corrected", supersedes=first.digest, reason="a typing error"), adaptive="x"
        )
    )
    third = of(submission.amended(second, Life(status="withdrawn", supersedes=second.digest, reason="test in train")))
    claims = {bundle.digest: bundle.submission for bundle in (first, second, third)}
    assert list(submission.standing(claims).values()) == ["superseded", "superseded", "withdrawn"]
    assert first.evidence == third.evidence
    assert third.submission.adaptive == "x"
    assert len(claims) == 3
    del claims[third.digest]
    assert list(submission.standing(claims).values()) == ["superseded", "current"]


def grit(*words: str) -> int:
    """The exit code of a command, in this process."""
    from grit.bench.cli import main

    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


def test_a_whole_life_by_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Packed, corrected, migrated to other attacks, withdrawn: four bundles side by side, and one chain."""
    board = tmp_path / "board"
    folder = str(attacked(tmp_path / "run", "deepwordbug"))
    assert grit("pack", folder, "-o", str(board), "--runs", "3", "--licence", "MIT") == 0
    (first,) = board.iterdir()
    claim = submission.read_bundle(first).submission
    assert claim.seeds.runs == 3
    assert [flag.name for flag in claim.record.flags if "not reported" in flag.reason] == ["runs"]
    assert grit("pack", str(first), "-o", str(board)) == 2
    assert "--reason" in capsys.readouterr().err
    assert grit("pack", str(first), "--status", "corrected", "--reason", "a better card", "-o", str(board)) == 0
    corrected = board / f"{first.name}-corrected"
    (again,) = (attacked(tmp_path / "again", "deepwordbug,pwws+thesaurus") / "model").iterdir()
    words = ("--supersedes", str(corrected), "--status", "migrated", "--reason", "one attack more", "-o", str(board))
    assert grit("pack", str(again), *words) == 0
    migrated = board / f"{first.name}-migrated"
    assert [len(row.record.attacks) for row in submission.rows(board)] == [2]
    assert grit("pack", str(migrated), "--status", "withdrawn", "--reason", "trained on test", "-o", str(board)) == 0
    assert submission.rows(board) == []
    for place in sorted(board.iterdir()):
        assert grit("lint", str(place)) == 0
    said = capsys.readouterr().out
    assert "migrated, in the place of bundle" in said
    assert "withdrawn, in the place of bundle" in said
    assert grit("pack", str(migrated), "--status", "withdrawn", "--reason", "why", "-o", str(board)) == 2
    assert "holds something else" in capsys.readouterr().err


def attacked(place: Path, attacks: str) -> Path:
    from unittest import mock

    from grit.bench import run
    from grit.bench.experiment import Experiment

    wanted = Experiment(
        models=("tfidf",), schemes=("natural",), attacks=tuple(attacks.split(",")), targets=(), n=4, n_train=60,
        settings=(("epochs", "1"),),
    )  # fmt: skip
    with mock.patch("grit.bench.adequacy.checks", lambda *_: ()):
        return run.run(wanted, place, jobs=1, quiet=True).folder


@pytest.mark.parametrize("fields", [{"supersedes": "0" * 64}, {"status": "withdrawn", "reason": "x"}])
def test_a_life_must_make_sense(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="names a bundle"):
        Life(**fields)  # type: ignore[arg-type]  # wrong on purpose


def test_the_board_shows_the_rows_that_stand(tmp_path: Path) -> None:
    first = of(honest())
    submission.write(tmp_path / "pings" / "a", honest())
    assert len(leaderboard.board(submission.rows(tmp_path))[0].lines) == 1
    life = Life(status="withdrawn", supersedes=first.digest, reason="wrong data")
    submission.write(tmp_path / "pings" / "b", submission.amended(first, life))
    assert submission.rows(tmp_path) == []


def test_rows_of_bundles_carry_their_evidence(tmp_path: Path) -> None:
    submission.write(tmp_path / "a", honest())
    (row,) = submission.rows(tmp_path)
    assert row.evidence is not None
    assert FLIPS in row.evidence.attacks


def test_a_graph_is_a_bundle_too(tmp_path: Path) -> None:
    submission.write(tmp_path / "row", graph())
    report = verify.verify(submission.read_bundle(tmp_path / "row"), verify.Setting(level="lint"))
    assert report.code == 0, report.findings


# --- the committed bundles --------------------------------------------------------------------------

COMMITTED = submission.bundles_below(ROOT / "leaderboards")


@pytest.mark.parametrize("place", COMMITTED, ids=lambda place: str(place.relative_to(ROOT)))
def test_committed_bundles_are_whole_and_small(place: Path) -> None:
    bundle = submission.read_bundle(place)
    assert sum(entry.size for entry in bundle.entries) <= 3 << 20
    report = verify.verify(bundle, verify.Setting(level="lint"))
    assert report.code == 0, report.findings


# Replaying takes seconds a row: the rows of one scheme always, the others in the long tests.
REPLAYED = [
    pytest.param(place, marks=() if ".proposed." in place.name else pytest.mark.long, id=str(place.relative_to(ROOT)))
    for place in COMMITTED
]


@pytest.mark.parametrize("place", REPLAYED)
def test_committed_bundles_replay(place: Path, real_data: Path) -> None:
    report = verify.verify(submission.read_bundle(place), verify.Setting(respond=verify.unguarded))
    assert report.code == 0, report.findings


# --- leaderboards/README.md ---------------------------------------------------------------------------


def test_the_readme_of_the_leaderboards_is_generated_and_does_not_differ() -> None:
    """`grit board leaderboards/ --format readme > leaderboards/README.md`."""
    assert (ROOT / "leaderboards" / "README.md").read_text(encoding="utf-8") == overview(ROOT / "leaderboards")


def test_the_readme_shows_rows_that_stand_and_how_to_verify_each_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "leaderboards" / "pings" / "mine"
    submission.write(place, honest())
    with pytest.raises(SystemExit, match="0"):
        cli.main(["board", str(tmp_path / "leaderboards"), "--format", "readme"])
    said = capsys.readouterr().out
    record = submission.read_bundle(place).submission.record
    assert f"{record.worst.low}/{record.worst.n}" in said
    assert "| [pings/mine](pings/mine) | `grit verify leaderboards/pings/mine --level spot` |" in said
    assert "No row" not in said
    bundle = submission.read_bundle(place)
    gone = Life(status="withdrawn", supersedes=bundle.digest, reason="trained on test")
    submission.write(place.with_name("gone"), submission.amended(bundle, gone))
    assert "No row" in overview(tmp_path / "leaderboards")


def test_the_readme_is_of_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given_folders in ([], [str(tmp_path), str(tmp_path)], [str(tmp_path / "none")]):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["board", *given_folders, "--format", "readme"])
        assert "one folder of bundles" in capsys.readouterr().err
    for elsewhere in (["-o", str(tmp_path / "site")], ["--json"]):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["board", str(tmp_path), "--format", "readme", *elsewhere])
        assert "redirect it" in capsys.readouterr().err


def test_put_together_again_is_the_same_bundle() -> None:
    assert put_together(apart(honest())) == honest()
