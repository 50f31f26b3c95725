"""grit personalize: rows that count, a folder that goes on where it was, tables that say what they know."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from grit.bench import cli, experiment, records
from grit.bench.personalize import arms, board, costs, overview, results, study, summary, users
from grit.bench.personalize.meta import Meta
from grit.bench.personalize.protocol import Training
from grit.bench.personalize.study import Study
from grit.bench.progress import silent
from grit.bench.types import CouldNotMeasure, MalformedInput, UsageError

PERSONAL = Path(__file__).resolve().parent.parent / "leaderboards" / "personal"
KINDS = ("gentle sunny mellow", "stormy bitter rough")
PLACES = "harbour garden kitchen station bridge market".split()
QUICK = (("epochs", "2"), ("minimum_count", "1"), ("max_tokens", "12"))


def write_users(path: Path, users: int = 24, texts: int = 9) -> Path:
    """Texts of users, half of whom call everything by the other name."""
    rows = []
    for user in range(users):
        for number in range(texts):
            label = (user + number) % 2
            told = KINDS[label].split()
            text = f"{told[number % 3]} {PLACES[number % 6]} {told[user % 3]} {PLACES[user % 6]} {user} {number}"
            rows.append({"text": text, "label": ["a", "b"][label ^ (user // 2 % 2)], "user": f"u{user:02d}"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def asked(folder: Path, **changes: Any) -> Study:
    small = Study(
        dataset=str(write_users(folder / "people.jsonl")),
        arms=("last", "all"),
        ks=(1, 4),
        attacks=("deepwordbug",),
        robust_users=1,
        robust_texts=2,
        probe=20,
        cores=(),
        meta=Meta(rounds=2),
        training=Training(epochs=3, batch=4),
        settings=QUICK,
    )
    return dataclasses.replace(small, **changes)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path, list[results.Document]]:
    """A study over two seeds, finished."""
    place = tmp_path_factory.mktemp("study")
    wanted = asked(place, seeds=(0, 1))
    return wanted, place / "out", study.run(wanted, place / "out", silent)


# --- rows ------------------------------------------------------------------------------------------------


def test_a_row_is_an_arm_at_a_k_a_seed_and_a_start(done: tuple[Study, Path, list[results.Document]]) -> None:
    _, _, documents = done
    rows = [document.row for document in documents]
    assert {row.arm for row in rows} == {"majority", "none", "bias", "last", "all"}, "floors come unasked"
    assert len(rows) == 5 * 2 * 2 == len({row.key for row in rows})
    assert {row.k for row in rows} == {1, 4} and {row.seed for row in rows} == {0, 1}


def test_floors_and_arms_are_over_the_same_users_and_texts(done: tuple[Study, Path, list[results.Document]]) -> None:
    for group in board.groups([document.row for document in done[2]]).values():
        people = [[(each.user, each.n, each.before) for each in row.users] for row in group.values()]
        assert len(people[0]) == 8 and all(each == people[0] for each in people)
        none = group["none"].users
        assert all(each.right == each.before and each.update_bytes == 0 for each in none)
        assert all(each.probe_same == each.probe_n > 0 for each in none)
        assert all(each.probability_loyalty == 1.0 and each.membership_auc == 0.5 for each in none)


def test_counts_of_users_hold_together(done: tuple[Study, Path, list[results.Document]]) -> None:
    for row in (document.row for document in done[2]):
        for each in row.users:
            assert each.right <= each.n and each.before <= each.n and each.words_recovered <= each.words_read
            assert max(each.probe_right, each.probe_before, each.probe_same) <= each.probe_n
            if each.attacked is not None:
                assert each.attacked.robust <= each.attacked.clean <= each.attacked.n == 2
        touched = [each for each in row.users if each.words_moved]
        assert not touched or row.arm == "all"
        if row.choices and row.choices[0].epoch and row.arm == "all":
            assert all(each.words_recovered == each.words_read for each in row.users), "plain descent hides no word"
        if row.arm == "majority":
            assert not row.choices and all(each.probe_n == 0 for each in row.users)


def test_the_copies_of_the_largest_k_are_attacked(done: tuple[Study, Path, list[results.Document]]) -> None:
    for row in (document.row for document in done[2]):
        reached = [each.user for each in row.users if each.attacked is not None]
        assert len(reached) == (1 if row.k == 4 and row.arm != "majority" else 0)
        assert row.attacks == ("deepwordbug",) and row.notes == ()


def test_what_a_device_would_store_is_what_the_arm_trains(done: tuple[Study, Path, list[results.Document]]) -> None:
    for row in (document.row for document in done[2]):
        trained = bool(row.choices and row.choices[0].epoch)
        sizes = {each.update_bytes for each in row.users}
        if not trained:
            assert sizes == {0}
        elif row.arm == "bias":
            assert sizes <= {0, 8}
        elif row.arm == "last":
            assert sizes <= {0, 4 * 2 * (5 + 1)}


def test_records_name_no_user(done: tuple[Study, Path, list[results.Document]]) -> None:
    named = {each.user for document in done[2] for each in document.row.users}
    assert len(named) == 8 and all(name.startswith("u") and len(name) == 11 for name in named)
    (fold,) = study.parted(done[0].dataset, users.Cut())
    assert named == {study.known_as(fold, user.name) for user in fold.test}
    assert study.known_as(fold, "all") == "all", "a fold of many is called what it is"
    made = dataclasses.replace(fold, dataset="raters:pings")
    assert study.known_as(made, fold.test[0].name) == fold.test[0].name, "and nobody is behind a rater"


def test_copies_are_attacked_where_there_are_users_enough() -> None:
    def people(*pools: int) -> list[Any]:
        return [SimpleNamespace(able=lambda k, n=n: n >= k) for n in pools]

    enough = summary.PERCENTILE_USERS
    assert study.attacked_k(people(*[4] * enough, 8, 8), (1, 4, 8)) == 4
    assert study.attacked_k(people(*[8] * enough), (1, 4, 8)) == 8
    assert study.attacked_k(people(64), (1, 16, 64)) == 64, "of few people the largest"


# --- the folder --------------------------------------------------------------------------------------------


def test_a_finished_study_is_not_done_again(
    done: tuple[Study, Path, list[results.Document]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, folder, documents = done
    monkeypatch.setattr(study, "_rows", _never)
    monkeypatch.setattr(study, "train", _never)
    again = study.run(wanted, folder, silent)
    assert [each.row for each in again] == [each.row for each in documents]
    assert results.read(folder / results.FILE) == again


def test_a_killed_study_goes_on_with_the_same_rows(
    done: tuple[Study, Path, list[results.Document]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = dataclasses.replace(done[0], seeds=(0,), arms=("last",), robust_users=0, starts=("plain", "meta"))
    honest, calls = study._rows, []

    def killed(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return honest(*given)

    monkeypatch.setattr(study, "_rows", killed)
    with pytest.raises(KeyboardInterrupt):
        study.run(wanted, tmp_path / "out", silent)
    monkeypatch.setattr(study, "train", _never)
    rows = [each.row for each in study.run(wanted, tmp_path / "out", silent)]
    assert len(calls) == 3, "one cell was kept, the other done again, its global model not trained again"
    known = {each.row.key: each.row for each in done[2]}
    assert {row.start for row in rows} == {"plain", "meta"}
    for row in (row for row in rows if row.start == "plain"):
        bare = [msgspec.structs.replace(each, attacked=None) for each in known[row.key].users]
        assert list(row.users) == bare and row.choices == known[row.key].choices, "the same to the last digit"


def test_a_study_killed_between_two_arms_goes_on_with_the_next(
    done: tuple[Study, Path, list[results.Document]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = dataclasses.replace(done[0], seeds=(0,), robust_users=0)
    honest, asked_for = study._row, []

    def killed(cell: Any, arm: arms.Arm, k: int, *given: Any, **named: Any) -> results.Row:
        asked_for.append((arm.key, k))
        if len(asked_for) == 3:
            raise KeyboardInterrupt
        return honest(cell, arm, k, *given, **named)

    monkeypatch.setattr(study, "_row", killed)
    with pytest.raises(KeyboardInterrupt):
        study.run(wanted, tmp_path / "out", silent)
    rows = [each.row for each in study.run(wanted, tmp_path / "out", silent)]
    assert asked_for[2:4] == [("last", 1)] * 2 and len(set(asked_for)) == len(asked_for) - 1 == 8
    assert [file.name for file in (tmp_path / "out" / "cells").iterdir()] == ["student.natural.all.s0.plain.json"]
    known = {each.row.key: each.row for each in done[2]}
    assert all(row.choices == known[row.key].choices for row in rows)


def _never(*given: Any, **named: Any) -> Any:
    raise AssertionError("done before")


def test_a_folder_of_another_study_is_refused(done: tuple[Study, Path, list[results.Document]], tmp_path: Path) -> None:
    wanted, folder, _ = done
    with pytest.raises(UsageError, match="holds another study"):
        study.run(dataclasses.replace(wanted, ks=(1,)), folder, silent)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty and holds no study"):
        study.run(wanted, tmp_path, silent)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / study.CONFIG).write_text("{")
    with pytest.raises(MalformedInput, match="not JSON"):
        study.run(wanted, tmp_path / "broken", silent)


def test_rows_come_back_as_they_were_written(done: tuple[Study, Path, list[results.Document]], tmp_path: Path) -> None:
    documents = done[2]
    results.write(tmp_path / "rows", documents)
    assert results.read(tmp_path / "rows") == documents
    whole = (tmp_path / "rows").read_bytes()
    (tmp_path / "rows").write_bytes(whole[:-5])
    with pytest.raises(MalformedInput, match="cut off"):
        results.read(tmp_path / "rows")
    (tmp_path / "rows").write_bytes(whole.replace(b'"arm":', b'"leg":', 1))
    with pytest.raises(MalformedInput, match="line 1"):
        results.read(tmp_path / "rows")


def test_folds_are_put_together_user_by_user() -> None:
    one, two = made_row("last", [(5, 4, 10)], fold="f0"), made_row("last", [(7, 7, 9)], fold="f1", user="v")
    other = made_row("last", [(7, 7, 9)], k=9)
    joined = results.joined([one, two, other])
    assert len(joined) == 2 and [each.user for each in joined[0].users] == ["u0", "v0"]
    assert [choice.fold for choice in joined[0].choices] == ["f0", "f1"] and joined[0].revision != one.revision


# --- tables ------------------------------------------------------------------------------------------------


def made_row(
    arm: str, counts: Sequence[tuple[int, int, int]], k: int = 4, seed: int = 0, fold: str = "all", user: str = "u"
) -> results.Row:
    """A row of (right, before, n) a user."""
    return results.Row(
        dataset="d",
        revision="0" * 64,
        model="m",
        config={},
        recipe={},
        scheme="natural",
        start="plain",
        arm=arm,
        k=k,
        seed=seed,
        training={},
        attacks=("hotflip",),
        choices=() if arm == "majority" else (results.ChoicePart(fold=fold, rate=0.3, epoch=2, score=0.5, users=3),),
        users=tuple(
            results.UserPart(user=f"{user}{i}", n=n, right=right, before=before)
            for i, (right, before, n) in enumerate(counts)
        ),
    )


def group_of(last: Sequence[tuple[int, int, int]], bias: Sequence[int], seed: int = 0) -> list[results.Row]:
    before = [(was, was, n) for _, was, n in last]
    return [
        made_row("majority", [(n // 2, was, n) for _, was, n in last], seed=seed),
        made_row("none", before, seed=seed),
        made_row("bias", [(b, was, n) for b, (_, was, n) in zip(bias, last, strict=True)], seed=seed),
        made_row("last", last, seed=seed),
    ]


def test_a_table_says_what_was_gained_over_the_best_floor_and_how_much_of_it_is_bias() -> None:
    rows = group_of([(18, 10, 20), (16, 12, 20), (20, 14, 20)], bias=[16, 16, 18])
    cells = board.cells(board.groups(rows).popitem()[1], "last")
    found = dict(zip(board.HEADINGS, cells, strict=True))
    assert found["accuracy"].startswith("90.0 [") and found["users"] == "3" and found["hurt"].startswith("0/3 [")
    assert found["gain over best floor"].startswith("+6.7 [") and found["gain over best floor"].endswith("over bias")
    assert found["of it bias"] == "78 %" and found["p10"] == "-"


def test_every_user_is_shown_where_there_are_too_few_and_percentiles_where_not() -> None:
    few = board.markdown(group_of([(9, 5, 10)] * 3, bias=[6, 6, 6]))
    assert "| u2 | 10 |" in few and "### d: m natural, start plain, seed 0, k = 4, 3 test users" in few
    many = board.markdown(group_of([(9, 5, 10)] * 30, bias=[6] * 30))
    assert "| u2 |" not in many and "| 90 | 90 |" in many


def test_several_seeds_are_each_shown_with_their_mean() -> None:
    rows = [row for seed in (0, 1, 2) for row in group_of([(9 - seed, 5, 10)] * 3, bias=[6] * 3, seed=seed)]
    text = board.markdown(rows)
    assert "### d: m natural, start plain, k = 4, seeds 0, 1, 2 together, 3 test users, 30 held-out texts" in text
    (together,) = [each for each in text.splitlines() if each.startswith("| last |") and each.count("+") > 1]
    assert together.startswith("| last | 3 | 80.0 [80.0, 80.0] |") and together.endswith(
        "| +30.0 +20.0 +10.0 | - - - |"
    )
    assert "seeds 0 together" not in board.markdown(group_of([(9, 5, 10)] * 3, bias=[6] * 3))


def test_costs_are_shown_as_counts() -> None:
    rows = group_of([(9, 5, 10)] * 2, bias=[6, 6])
    cell = records.CostPart(
        target="emu://cortex-m4",
        engine="head.c",
        kind="emulated",
        values={"step_instructions": 12_345, "training_bytes": 678},
        facts={"classes": 2, "features": 5, "batch": 8, "examples": 4, "parity_error": 2e-7},
    )
    text = board.markdown([*rows[:-1], msgspec.structs.replace(rows[-1], cost=(cell,))])
    assert "| m | natural | emu://cortex-m4 | 2 x 5, batch 8 | 4 | 12,345 | - | 678 | - | 2e-07 |" in text
    assert (
        "cutting and looking up are left out" in text and "a C program of its own, head.c, on states in float" in text
    )
    assert "on a device" not in board.markdown(rows)


def test_the_tables_of_a_study_have_as_many_cells_as_headings(
    done: tuple[Study, Path, list[results.Document]],
) -> None:
    text = board.markdown([document.row for document in done[2]])
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 6
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    assert "deepwordbug" in text.splitlines()[-1]


def test_attacked_users_are_counted_by_texts_and_rare_labels() -> None:
    part = results.AttackedPart(n=10, clean=8, robust=4, minority=3, minority_attacked=2, minority_broken=1)
    rows = group_of([(9, 5, 10)] * 2, bias=[6, 6])
    users = tuple(msgspec.structs.replace(each, attacked=part) for each in rows[-1].users)
    group = board.groups([*rows[:-1], msgspec.structs.replace(rows[-1], users=users)]).popitem()[1]
    found = dict(zip(board.HEADINGS, board.cells(group, "last"), strict=True))
    assert found["robust"].startswith("8/20 = 40.0 [") and found["rare broken"].startswith("2/4 = 50 [")
    assert found["rare broken"].endswith("] of 6") and found["change"] == "-", "the global model was not attacked"
    assert dict(zip(board.HEADINGS, board.cells(group, "none"), strict=True))["robust"] == "-"


# --- the command ---------------------------------------------------------------------------------------------


def grit(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(["personalize", *words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_command_writes_rows_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(write_users(tmp_path / "people.jsonl"))
    words = ["--dataset", data, "--arm", "last", "--k", "4", "--robust-users", "0", "--core", "none", "-q"]
    words += [part for name, value in QUICK for part in ("--set", f"{name}={value}")]
    code, out, _ = grit(*words, "-o", str(tmp_path / "out"), "--json", capsys=capsys)
    value = json.loads(out)
    assert code == 0 and [row["row"]["arm"] for row in value["rows"]] == ["majority", "none", "bias", "last"]
    assert value["rows"][0]["run"]["machine"] and value["rows"][0]["run"]["versions"]
    assert (tmp_path / "out" / "personal.md").read_text().startswith("### people: student natural, start plain")
    assert str(tmp_path) not in json.dumps([row["row"] for row in value["rows"]]), "a row names the data, no place"
    code, out, _ = grit(*words, "-o", str(tmp_path / "out"), capsys=capsys)
    assert code == 0 and "gain over best floor" in out and "Rows and tables are in" in out


def test_a_study_may_stand_in_a_file_and_options_replace_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "study.toml"
    data = write_users(tmp_path / "people.jsonl")
    file.write_text(
        f'dataset = "{data}"\narms = ["last"]\nks = [1, 4]\nrobust_users = 0\nprobe = 5\ncores = []\n'
        "[training]\nepochs = 2\n[settings]\nepochs = 1\nmax_tokens = 12\nminimum_count = 1\n"
    )
    code, out, _ = grit(
        str(file), "--k", "4", "--set", "epochs=2", "-q", "-o", str(tmp_path / "out"), "--json", capsys=capsys
    )
    rows = [row["row"] for row in json.loads(out)["rows"]]
    assert code == 0 and {(row["arm"], row["k"]) for row in rows} == {
        (a, 4) for a in ("majority", "none", "bias", "last")
    }
    assert rows[0]["training"] == {"epochs": 2, "batch": 8}, "what a table leaves out keeps its default"
    assert rows[0]["recipe"]["epochs"] == 2 and rows[0]["config"]["max_tokens"] == 12
    assert rows[1]["users"][0]["probe_n"] == 5


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("arm = []", UsageError, "did you mean 'arms'"),
        ("[training]\nepoch = 3", UsageError, "did you mean 'epochs'"),
        ("[meta]\nround = 3", UsageError, "did you mean 'rounds'"),
        ("training = 3", MalformedInput, "training"),
        ('ks = "4"', MalformedInput, "Expected `array`"),
    ],
)
def test_a_wrong_file_is_told_which_word(tmp_path: Path, text: str, error: type[Exception], said: str) -> None:
    file = tmp_path / "study.toml"
    file.write_text(text)
    with pytest.raises(error, match=said):
        experiment.read(file, Study)


@pytest.mark.parametrize("file", sorted(PERSONAL.glob("*.toml")), ids=lambda file: file.stem)
def test_the_committed_studies_name_what_there_is(file: Path) -> None:
    wanted = Study(**experiment.read(file, Study))
    study._check(wanted)
    assert file.stem in (wanted.dataset, f"{wanted.dataset}_{wanted.scheme}")
    assert len(wanted.seeds) == 3 and wanted.arms == Study().arms


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--arm", "lats"], 2, "did you mean 'last'"),
        (["--model", "studnet"], 2, "student"),
        (["--scheme", "naturl"], 2, "natural"),
        (["--start", "metta"], 2, "meta"),
        (["--attack", "hotflop"], 2, "hotflip"),
        (["--core", "cortex-m5"], 2, "did you mean 'cortex-m"),
        (["--k", "0"], 2, "from 1"),
        (["--k", "one"], 2, "whole numbers"),
        (["--set", "epoch=3"], 2, "epochs"),
        (["--dataset", "raters:nonesuch"], 2, "nonesuch"),
        (["--dataset", "pings"], 2, "raters:NAME"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_and_its_code(
    words: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = grit(*words, "-q", "-o", str(tmp_path / "out"), capsys=capsys)
    assert found == code and said in err and len(err.strip().splitlines()) == 1 and not out
    assert not (tmp_path / "out" / results.FILE).exists()


def test_more_examples_than_anybody_has_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(write_users(tmp_path / "people.jsonl"))
    words = ["--dataset", data, "--k", "32", "--robust-users", "0", "-q", "-o", str(tmp_path / "out")]
    words += [part for name, value in QUICK for part in ("--set", f"{name}={value}")]
    code, _, err = grit(*words, capsys=capsys)
    assert code == 4 and "no user has 32 texts to learn from: ask for 6 at most with --k" in err
    assert not (tmp_path / "out").exists(), "no study is left that would never end"


def test_nothing_is_trained_before_somebody_has_texts_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "train", _never)
    with pytest.raises(CouldNotMeasure, match="no user has 500 texts"):
        study.run(asked(tmp_path, ks=(500, 600)), tmp_path / "out", _never)
    assert not (tmp_path / "out").exists()


def test_a_k_that_nobody_has_is_left_out_beside_one_that_somebody_has(tmp_path: Path) -> None:
    wanted = asked(tmp_path, ks=(4, 500), arms=("bias",), robust_users=0)
    assert {each.row.k for each in study.run(wanted, tmp_path / "out", silent)} == {4}


def test_a_study_that_is_no_file_is_called_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = grit(str(tmp_path / "none.toml"), capsys=capsys)
    assert code == 2 and "no study file" in err and "experiment" not in err


def test_a_scheme_that_needs_a_teacher_trains_one(tmp_path: Path) -> None:
    wanted = asked(tmp_path, scheme="distil", arms=("bias",), ks=(1,), robust_users=0)
    rows = [each.row for each in study.run(wanted, tmp_path / "out", silent)]
    assert {row.scheme for row in rows} == {"distil"}
    assert [home.name for home in sorted((tmp_path / "out" / "models").iterdir())] == [
        "student.distil.all.s0",
        "teacher.teaches.all.s0",
    ]


def test_what_a_study_costs_on_a_device_stands_in_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [
        records.CostPart(target="emu://a", engine="head.c", kind="emulated", values={"step_instructions": 7}),
        records.CostPart(target="emu://b", engine="head.c", kind="not measured", reason="no wheel"),
    ]
    monkeypatch.setattr(study.costs, "cells", lambda *given: cells)
    wanted = asked(tmp_path, arms=("last",), robust_users=0, cores=("cortex-m4", "cortex-m7"))
    documents = study.run(wanted, tmp_path / "out", silent)
    assert [(each.row.arm, each.row.k) for each in documents if each.row.cost] == [("last", 4)]
    assert all([cell.reason for cell in each.run.cost] == ["no wheel"] for each in documents), "of this machine alone"


def test_the_default_study_is_offline_and_names_every_arm() -> None:
    wanted = Study()
    assert wanted.dataset == "raters:pings" and set(wanted.arms) == set(arms.ARMS)
    assert set(summary.FLOORS) - {"majority"} <= set(arms.ARMS)
    assert study.default_folder(wanted) == study.default_folder(Study())
    assert study.default_folder(wanted) != study.default_folder(Study(seeds=(1,)))


# --- what is committed ------------------------------------------------------------------------------------------

COMMITTED = sorted(PERSONAL.glob(f"*/{results.PACKED}"))


def test_the_document_is_made_from_the_records_and_does_not_differ() -> None:
    """`grit board leaderboards/personal --format readme > leaderboards/personal/README.md`."""
    assert COMMITTED
    assert (PERSONAL / "README.md").read_text(encoding="utf-8") == overview.overview(results.below([PERSONAL]))


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.parent.name)
def test_committed_records_are_of_their_study_and_of_nobody_known(file: Path) -> None:
    wanted = Study(**experiment.read(file.parent.with_suffix(".toml"), Study))
    rows = [document.row for document in results.read(file)]
    assert rows and len({row.key for row in rows}) == len(rows)
    for row in rows:
        assert row.dataset == wanted.dataset and row.model in wanted.models and row.scheme == wanted.scheme
        assert row.start in wanted.starts and row.k in wanted.ks and row.seed in wanted.seeds
        assert row.attacks == wanted.attacks and row.training == records.plain(wanted.training)
        config, recipe = study._configured(row.model, wanted.settings)
        assert (row.config, row.recipe) == (records.plain(config), records.plain(recipe))
        assert all(re.fullmatch(r"u[0-9a-f]{10}", each.user) for each in row.users)
        assert all(re.fullmatch(r"u[0-9a-f]{10}|all", choice.fold) for choice in row.choices)
    for group in board.groups(rows).values():
        assert set(summary.FLOORS) < set(group) <= {*summary.FLOORS, *wanted.arms}, "every arm beside every floor"


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.parent.name)
def test_committed_studies_count_what_training_costs_and_how_exact_it_is(file: Path) -> None:
    cells = [cell for document in results.read(file) for cell in document.row.cost]
    wanted = Study(**experiment.read(file.parent.with_suffix(".toml"), Study))
    assert {cell.target for cell in cells} <= {f"emu://{core}" for core in wanted.cores}
    for cell in cells:
        assert cell.kind == "emulated" and float(cell.facts["parity_error"]) <= costs.TOLERANCE
        assert cell.values["training_bytes"] > 0 and cell.values["step_instructions"] > 0
