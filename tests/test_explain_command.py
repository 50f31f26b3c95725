"""`grit explain` from a saved run to a coloured sentence, a page, lines beside the records and columns of the board."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from grit.bench import cli, datasets, explaining, leaderboard, records, run, site
from grit.bench.experiment import ARTEFACT, Experiment
from grit.bench.explain import scores, show
from grit.bench.explain.scores import Asked, Count, Explanation, Faithful, Loyal, Mean
from grit.bench.explain.show import Sentence
from grit.bench.explaining import Explained, Wanted
from grit.bench.types import MalformedInput, UsageError

sys.path.append(str(Path(__file__).parent))

from made_rows import row_of, sha

SMALL = Experiment(
    models=("student",),
    schemes=("distil",),
    attacks=("deepwordbug",),
    targets=(),
    n=8,
    n_train=60,
    settings=(("epochs", "1"), ("teacher.epochs", "1"), ("teacher.hidden", "8"), ("teacher.embedding", "8")),
)
QUICK = Wanted(n=4, methods=("integrated", "occlusion"), show=0)


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Said]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)

    def called(*words: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        return Said(int(ended.value.code or 0), *capsys.readouterr())

    return called


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one row and its teacher."""
    return run.run(SMALL, tmp_path_factory.mktemp("explain") / "out", jobs=1, quiet=True).folder


@pytest.fixture(scope="module")
def home(folder: Path) -> Path:
    """The student's own folder."""
    return next(home for home in (folder / "model").iterdir() if ".distil." in home.name)


@pytest.fixture(scope="module")
def explained(folder: Path) -> Explained:
    """Every row of the run explained, in the run's own folder."""
    return explaining.explain(str(folder), QUICK, quiet=True)


# --- on a run ------------------------------------------------------------------------------------------------


def test_every_row_is_explained_and_the_teacher_too(explained: Explained) -> None:
    assert [each.asked.row.partition("[")[0] for each in explained.explanations] == ["student", "teacher"]
    for each in explained.explanations:
        assert each.asked.n == 4 and 0 <= each.exact <= 4 and each.asked.data == "pings"
        assert each.trained and each.asked.row.startswith(each.trained.model) and each.trained.seed == 0
        assert each.trained.scheme in ("distil", "natural")
        normalised, taus = zip(*each.texts.values(), strict=True)
        assert each.normalised("integrated") == scores.mean_or_none(normalised)
        assert each.loyalty("integrated") == scores.mean_or_none(taus)
        assert set(each.texts) <= {example.id for example in datasets.load("pings").test}
        rows = [(part.explainer, part.reversed) for part in each.faithful]
        assert rows == [
            *((name, way) for name in ("integrated", "occlusion") for way in (False, True)),
            ("random", False),
        ]
        assert (
            set(each.asked.explainers) == {"integrated", "occlusion"}
            and each.asked.explainers["integrated"] == "Integrated(steps=50)"
        )


def test_students_are_measured_against_the_teacher_its_twin_and_chance(explained: Explained) -> None:
    for each in explained.explanations:
        if each.asked.row.startswith("teacher"):
            assert each.teacher is None and each.loyal == ()
            continue
        assert each.teacher and each.teacher.endswith(".natural.s0") and each.twin and each.twin.endswith(".natural.s1")
        assert {(part.explainer, part.who) for part in each.loyal} == {
            (name, who) for name in ("integrated", "occlusion") for who in ("student", "ceiling", "floor")
        }


def test_what_attacks_did_is_told_of_rows_that_were_attacked(explained: Explained) -> None:
    for each in explained.explanations:
        attacks = {part.attack for part in each.attacked}
        assert attacks == (set() if each.asked.row.startswith("teacher") else {"deepwordbug.strong"})


def test_the_scores_lie_beside_the_records_by_the_digest_of_the_bytes(folder: Path, explained: Explained) -> None:
    assert explained.folder == folder / "explain"
    known = scores.below([folder])
    assert known == {each.asked.artefact: each for each in explained.explanations}
    digests = {row.record.artefact.digest for row in records.read_rows(folder)}
    assert digests < set(known)  # and the teacher's
    text = (folder / "explain" / scores.EXPLAINED).read_text()
    (row,) = records.read_rows(folder)
    assert row.evidence is not None
    examples = {example.id: example for example in datasets.load("pings").test}
    words = {word for line in row.evidence.clean for word in examples[line.id].text.split() if len(word) > 7}
    assert words and not [word for word in words if word in text]


def test_the_board_gains_columns_where_a_row_was_explained(folder: Path, explained: Explained) -> None:
    rows = leaderboard.load([folder])
    (plain,) = leaderboard.board(rows)
    assert not {"faithful", "loyal"} & set(leaderboard.columns(plain))
    (section,) = leaderboard.board(rows, explained=scores.below([folder]))
    shown = leaderboard.columns(section)
    for line in section.lines:
        found = next(each for each in explained.explanations if each.asked.artefact == line.record.artefact.digest)
        value = found.normalised("integrated")
        assert value is not None and shown["faithful"].cell(line) == f"{value.value:.2f}"
        cells = leaderboard.cells(line)
        assert cells["normalised_aopc"] == value.value and cells["explained_n"] == 4
        assert cells["normalised_aopc_low"] <= value.value <= cells["normalised_aopc_high"]
        assert {"normalised_aopc_random", "loyalty_tau", "loyalty_tau_ceiling"} <= set(cells)
    notes = leaderboard.notes(section)
    assert any(note.startswith("Faithful: normalised AOPC of integrated gradients over 4 texts") for note in notes)
    assert any(note.startswith("Loyal:") and "another seed" in note for note in notes)
    assert "Faithful" in (folder / "board.md").read_text()
    page = (folder / "index.html").read_text()
    assert 'data-key="normalised_aopc"' in page and 'data-key="loyalty_tau"' in page
    assert "normalised_aopc" in leaderboard.comma_separated([section])


def test_the_same_command_twice_asks_nothing_twice(folder: Path, explained: Explained) -> None:
    files = [folder / "explain" / scores.EXPLAINED, *(folder / "explain" / explaining.TWIN / "model").rglob("*")]
    before = {file: file.stat().st_mtime_ns for file in files}
    again = explaining.explain(str(folder), QUICK, quiet=True)
    assert again == explained
    assert {file: file.stat().st_mtime_ns for file in files} == before


def test_the_rows_that_are_missing_are_explained_alike_and_the_others_kept(folder: Path, explained: Explained) -> None:
    file = folder / "explain" / scores.EXPLAINED
    first, second = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(second)  # as if killed, or made by other words
    again = explaining.explain(str(folder), QUICK, quiet=True)
    assert len(file.read_bytes().splitlines()) == 2 and first != second
    for old, new in zip(explained.explanations, again.explanations, strict=True):
        assert old.faithful == new.faithful and old.loyal == new.loyal and old.attacked == new.attacked
    assert second in file.read_bytes()


def test_scores_answer_the_very_question_only() -> None:
    one = made("a" * 64)
    assert one.answers(one.asked)
    for change in (
        {"n": 11},
        {"seed": 1},
        {"explainers": {}},
        {"teacher": None},
        {"planted": True},
        {"twin": "d" * 64},
    ):
        assert not one.answers(msgspec.structs.replace(one.asked, **change)), change
    assert not msgspec.structs.replace(one, version="0").answers(one.asked)
    known = msgspec.structs.replace(one, asked=msgspec.structs.replace(one.asked, planted=True))
    assert known.answers(one.asked)  # and more than was asked


def test_one_row_alone_still_has_its_teacher(home: Path, tmp_path: Path) -> None:
    wanted = Wanted(n=2, methods=("gradient",), ceiling=False, show=0)
    found = explaining.explain(str(home), wanted, tmp_path / "out", quiet=True)
    (only,) = found.explanations
    assert only.asked.row == home.name and only.teacher and only.twin is None
    assert {part.who for part in only.loyal} == {"student", "floor"}
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [scores.EXPLAINED, show.PAGE]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models that were trained and not attacked, without a teacher; one of them looks across blanks."""
    wanted = Experiment(models=("tfidf", "hashed"), schemes=("natural",), n_train=60, settings=(("epochs", "1"),))
    return run.train(wanted, tmp_path_factory.mktemp("trained") / "out", jobs=1, quiet=True)


def test_a_folder_that_was_trained_alone_is_explained_without_teacher_attacks_or_board(trained: Path) -> None:
    found = explaining.explain(str(trained), Wanted(n=3, methods=("gradient", "leave_one_out"), show=0), quiet=True)
    assert [each.asked.row.partition("[")[0] for each in found.explanations] == ["hashed", "tfidf"]
    for each in found.explanations:
        assert each.loyal == () and each.attacked == () and each.teacher is None and each.asked.attacks == {}
        assert {part.explainer for part in each.faithful} == {"gradient", "leave_one_out", "random"}
    assert found.folder == trained / "explain" and not (trained / "board.md").exists()
    assert not (trained / "explain" / explaining.TWIN).exists()  # no teacher, so no twin of one


def test_a_question_about_other_texts_is_asked_anew(trained: Path) -> None:
    wanted = Wanted(n=2, methods=("occlusion",), show=0)
    first = explaining.explain(str(trained), wanted, quiet=True)
    other = explaining.explain(str(trained), dataclasses.replace(wanted, n=1), quiet=True)
    for old, new in zip(first.explanations, other.explanations, strict=True):
        assert old.asked.artefact == new.asked.artefact and not old.answers(new.asked)
    lines = (trained / "explain" / scores.EXPLAINED).read_text().splitlines()
    assert len(lines) == 2  # the last question's, a line a row


def test_other_data_than_that_of_the_training_is_named(trained: Path, tmp_path: Path) -> None:
    """Rows of two labels, explained on a table of one's own; its scores are not those of the board's data."""
    table = tmp_path / "mine.jsonl"
    lines = [{"text": f"word{at} and so on", "label": ("later", "now")[at % 2]} for at in range(40)]
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    wanted = Wanted(dataset=str(table), n=3, methods=("leave_one_out",), show=1)
    found = explaining.explain(str(trained), wanted, tmp_path / "out", quiet=True)
    assert "pings" not in {each.asked.data for each in found.explanations}
    assert all("and so on" in " ".join(sentence.words) for sentence in found.sentences)
    assert {sentence.gold for sentence in found.sentences} <= {"later", "now"}
    assert b">and</span>" in (tmp_path / "out" / show.PAGE).read_bytes()
    assert "word1" not in (tmp_path / "out" / scores.EXPLAINED).read_text()


# --- as a user calls it --------------------------------------------------------------------------------------


def test_a_text_of_ones_own_is_printed_word_by_word(call: Call, home: Path) -> None:
    found = call("explain", home, "--text", "the boiler is on fire, come now", "--text", "no hurry")
    assert found.code == 0, found.err
    lines = found.out.splitlines()
    assert len([line for line in lines if " says " in line and "by integrated" in line]) == 2
    shown = re.sub(r"\[[+-][\d.e-]+\]", "", lines[1])
    assert shown == "the boiler is on fire, come now" and "[+" in lines[1]
    assert [line.split()[0] for line in lines[2:5]] == ["preserve", "promote", "attack"]
    assert not list(Path().iterdir())  # nothing was asked to be written


@pytest.mark.parametrize("blank", ["", " \t\n"])
def test_a_text_of_no_words_is_explained_as_no_words(call: Call, home: Path, blank: str) -> None:
    found = call("explain", home, "--text", "some text", "--text", blank, "--json")
    assert found.code == 0, found.err
    some, none = found.json["sentences"]
    assert some["words"] == ["some", "text"] and none["words"] == none["attribution"] == []
    assert none["answer"] in ("now", "later") and 0.5 <= none["probability"] <= 1
    assert none["masks"] == {"preserve": [], "promote": [], "attack": []}
    shown = call("explain", home, "--text", blank)
    assert shown.code == 0 and " says " in shown.out and "preserve" not in shown.out  # there is nothing to hide


def test_json_holds_what_is_printed(call: Call, folder: Path) -> None:
    found = call("explain", folder, "--text", "come now", "--method", "shapley", "--json")
    value = json.loads(found.out)
    assert value["folder"] is None and value["explanations"] == []
    assert len(value["sentences"]) == 2
    for sentence in value["sentences"]:
        assert sentence["words"] == ["come", "now"] and len(sentence["attribution"]) == 2
        assert sentence["explainer"] == "shapley" and sentence["answer"] in ("now", "later")
        assert set(sentence["masks"]) == {"preserve", "promote", "attack"}


def test_a_run_is_scored_and_a_page_written(call: Call, home: Path, tmp_path: Path) -> None:
    words = ("explain", home, "--n", 3, "--method", "occlusion", "--no-ceiling", "-q", "-o", tmp_path / "o")
    found = call(*words, "--show", 1)
    assert found.code == 0, found.err
    assert "occlusion reversed" in found.out and "random" in found.out and "loyal to teacher" in found.out
    assert found.out.count("; by occlusion") == 1 and "index.html" in found.out
    value = json.loads(call(*words, "--show", 0, "--json").out)
    assert value["explanations"][0]["asked"]["n"] == 3 and value["explanations"][0]["schema_version"] == 1


def test_grit_board_shows_the_columns_in_every_format(call: Call, folder: Path, explained: Explained) -> None:
    shown = call("board", folder, "--format", "markdown")
    assert shown.code == 0 and "| Faithful | Loyal |" in shown.out and "normalised AOPC" in shown.out
    table = call("board", folder, "--format", "csv").out.splitlines()
    assert {"normalised_aopc", "normalised_aopc_random", "loyalty_tau", "explained_n"} <= set(table[0].split(","))
    (section,) = call("board", folder, "--json").json["sections"]
    (cells,) = section["rows"]
    student = next(each for each in explained.explanations if each.asked.artefact == cells["artefact"])
    faithful = student.normalised("integrated")
    assert faithful is not None and cells["normalised_aopc"] == faithful.value
    assert cells["explainer"] == "integrated" and cells["explained_n"] == 4
    assert cells["loyalty_tau_low"] <= cells["loyalty_tau"] <= cells["loyalty_tau_high"]


def test_planted_shortcuts_and_shuffled_weights_on_demand(
    call: Call, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "PLANTED_N", 40)
    words = ("explain", home, "--n", 4, "--method", "occlusion", "--planted", "--no-ceiling", "--show", 0, "-q")
    found = call(*words, "-o", tmp_path / "o")
    assert found.code == 0, found.err
    for kind in ("word", "pair"):  # not from so few in one epoch, and that is said
        assert f"planted {kind}: a model of this make did not learn it" in found.out
    assert "shuffled weights, occlusion: tau" in found.out


def test_any_function_of_texts_is_explained_by_asking(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "def answer(texts):\n    return [[0.0, 3.0] if 'now' in text.split() else [1.0, 0.0] for text in texts]\n"
    (tmp_path / "hasty.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    found = call("explain", "hasty:answer", "--text", "come home now")
    assert found.code == 0, found.err
    assert "come home now[+2]" in found.out and "says 1" in found.out and "preserve" not in found.out
    found = call("explain", "hasty:answer", "--dataset", "pings", "--n", 4, "--show", 1, "-q", "-o", tmp_path / "o")
    assert found.code == 0, found.err
    (explanation,) = scores.below([tmp_path / "o"]).values()
    assert explanation.asked.row == "hasty.answer" and list(explanation.asked.explainers) == [
        "leave_one_out",
        "occlusion",
        "shapley",
    ]
    refused = call("explain", "hasty:answer", "--text", "come", "--method", "gradient")
    assert refused.code == 2 and "needs gradients" in refused.err


def test_bytes_alone_are_explained_by_asking_as_in_their_run(call: Call, home: Path) -> None:
    """Whole texts in, logits out: the same leave-one-out as of the row, and no gradients."""
    text = ("--text", "the boiler is on fire", "--method", "leave_one_out", "--json")
    found = call("explain", home / ARTEFACT, *text)
    assert found.code == 0, found.err
    (alone,), (beside,) = (json.loads(said.out)["sentences"] for said in (found, call("explain", home, *text)))
    assert alone["attribution"] == beside["attribution"] and alone["probability"] == beside["probability"]
    assert alone["masks"] == {} and alone["answer"] in ("0", "1") and beside["answer"] in ("now", "later")
    refused = call("explain", home / ARTEFACT, "--text", "come", "--method", "integrated")
    assert refused.code == 2 and "needs gradients" in refused.err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("nowhere",), ("nowhere",)),
        (("{run}", "--method", "lime", "--text", "a"), ("unknown explainer 'lime'", "shapley")),
        (("{run}", "--dataset", "pinks", "--text", "a"), ("unknown dataset 'pinks'",)),
        (("{run}", "--dataset", "pinks", "--method", "lime"), ("unknown explainer 'lime'",)),
        (("no_such_module:f", "--text", "a"), ("cannot import",)),
        (("{run}", "--n", "0"), ("--n",)),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(call: Call, folder: Path, words: Any, parts: Any) -> None:
    found = call("explain", *(str(folder) if word == "{run}" else word for word in words))
    assert found.code == 2 and "Traceback" not in found.err
    (line,) = [line for line in found.err.splitlines() if line.startswith("grit: ")]
    assert all(part in line for part in parts), line


def test_a_folder_without_rows_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        explaining.explain(str(tmp_path), QUICK, quiet=True)


# --- scores on disk -------------------------------------------------------------------------------------------


def mean(value: float, n: int = 10) -> Mean:
    return Mean(value=value, low=value - 0.1, high=value + 0.1, n=n)


def made(artefact: str, data: str = "made", **more: Any) -> Explanation:
    part = {"comprehensiveness": mean(0.3), "sufficiency": mean(0.1), "flip": mean(0.4)}
    return Explanation(
        asked=Asked(
            row="student.natural.s0",
            artefact=artefact,
            data=data,
            revision=sha(data),
            n=10,
            seed=0,
            explainers={"integrated": "Integrated(steps=50)"},
            teacher="c" * 64,
        ),
        exact=7,
        teacher="teacher.natural.s0",
        twin="teacher.natural.s1",
        faithful=(
            Faithful(explainer="integrated", normalised=mean(0.9), **part),
            Faithful(explainer="integrated", reversed=True, normalised=mean(0.1), **part),
            Faithful(explainer="random", normalised=mean(0.45), **part),
        ),
        loyal=tuple(
            Loyal(explainer="integrated", who=who, tau=mean(tau), overlap=mean(tau))  # type: ignore[arg-type]
            for who, tau in (("student", 0.5), ("ceiling", 0.7), ("floor", 0.0))
        ),
        **more,
    )


def test_lines_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    one, other = made("a" * 64), made("b" * 64, unlearned=("pair",))
    scores.save(tmp_path, [one])
    scores.save(tmp_path, [other])
    assert scores.below([tmp_path]) == {"a" * 64: one, "b" * 64: other}
    changed = made("a" * 64, run={"seconds": 1.0})
    scores.save(tmp_path, [changed])
    assert scores.below([tmp_path])["a" * 64] == changed and len(scores.below([tmp_path])) == 2
    assert scores.below([tmp_path / "nowhere"]) == {}


def test_a_row_that_was_trained_anew_replaces_its_old_line_and_no_other(tmp_path: Path) -> None:
    trained = scores.Trained(model="student", scheme="natural", seed=0)
    old = made("a" * 64, trained=trained)
    others = [
        made("b" * 64, trained=msgspec.structs.replace(trained, scheme="distil")),
        made("c" * 64, trained=msgspec.structs.replace(trained, model="student[hidden=10]")),
        made("d" * 64, trained=msgspec.structs.replace(trained, seed=1)),
        made("e" * 64, "other", trained=trained),
        msgspec.structs.replace(made("f" * 64, trained=trained), teacher="bert.natural.s0"),
        made("0" * 64),
        made("1" * 64),  # two models without their runs
    ]
    scores.save(tmp_path, [old, *others])
    assert len(scores.below([tmp_path])) == 8
    anew = made("2" * 64, trained=trained)
    anew = msgspec.structs.replace(
        anew, asked=msgspec.structs.replace(anew.asked, teacher="9" * 64)
    )  # also trained anew
    scores.save(tmp_path, [anew])
    assert list(scores.below([tmp_path]).values()) == [*others, anew]


@pytest.mark.parametrize(
    "line", [b"{}", b"not JSON", b'{"schema_version":1}', records.encode(made("a" * 64)).replace(b'"n":10', b'"n":-1')]
)
def test_a_line_that_is_none_is_refused_by_its_place(tmp_path: Path, line: bytes) -> None:
    (tmp_path / scores.EXPLAINED).write_bytes(line + b"\n")
    with pytest.raises(MalformedInput, match=r"explained\.jsonl, line 1"):
        scores.below([tmp_path])


def test_a_line_without_its_version_is_refused(tmp_path: Path) -> None:
    line = records.encode(made("a" * 64)).replace(b'"schema_version":1,', b"")
    (tmp_path / scores.EXPLAINED).write_bytes(line + b"\n")
    with pytest.raises(MalformedInput, match="schema_version"):
        scores.below([tmp_path])


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_a_mean_lies_in_its_interval_and_is_the_same_each_time(values: list[float]) -> None:
    found = scores.mean(values)
    assert found.low <= found.value <= found.high and found.n == len(values)
    assert found.value == pytest.approx(sum(values) / len(values))
    assert found == scores.mean(values)
    assert scores.mean_or_none([None, *values, None]) == found and scores.mean_or_none([None]) is None


def test_an_explanation_is_the_rows_only_by_bytes_and_data() -> None:
    row = row_of("student", "proposed")
    digest = row.record.artefact.digest
    for known, there in (({digest: made(digest)}, True), ({digest: made(digest, "other")}, False), ({}, False)):
        (section,) = leaderboard.board([row, row_of("student", "natural")], explained=known)
        assert [line.explained is not None for line in section.lines].count(True) == int(there)
        assert ("faithful" in leaderboard.columns(section)) is there
    (section,) = leaderboard.board([row, row_of("prado", "natural")], explained={digest: made(digest)})
    cells = {line.record.scheme.name: leaderboard.columns(section)["loyal"].cell(line) for line in section.lines}
    assert cells == {"proposed": "0.50", "natural": "-"}
    assert "0.45" in " ".join(leaderboard.notes(section)) and "0.70" in " ".join(leaderboard.notes(section))
    page = site.render([section]).decode()
    assert ">Faithful<" in page and "<td>0.90" in page and "<td>0.50" in page


def test_a_narrow_terminal_drops_the_columns_on_explanations_early() -> None:
    row = row_of()
    sections = leaderboard.board([row], explained={row.record.artefact.digest: made(row.record.artefact.digest)})
    for width, there in ((200, True), (60, False)):
        text = io.StringIO()
        leaderboard.show(sections, Console(file=text, width=width, color_system=None))
        heading = text.getvalue().split("──")[0]
        assert ("Faithful" in heading) is there


# --- for the eyes --------------------------------------------------------------------------------------------

SENTENCE = Sentence(
    row="student.natural.s0",
    explainer="integrated",
    words=("not", "<b>good</b>", "\x1b[31mat", "all"),
    attribution=(2.0, -1.0, 0.1, 0.3),
    answer="later",
    probability=0.9712,
    gold="now",
    masks={"attack": (False, True, True, True)},
)


def test_a_sentence_without_colours_says_its_numbers() -> None:
    assert show.heading(SENTENCE) == "student.natural.s0 says later (97.1 %), labelled now; by integrated"
    assert show.plain(SENTENCE) == "not[+2] <b>good</b>[-1] \\x1b[31mat all[+0.3]"
    assert list(show.masked(SENTENCE)) == ["  attack  · <b>good</b> \\x1b[31mat all"]


def test_a_sentence_with_colours_holds_the_same_words() -> None:
    shown = show.coloured(SENTENCE)
    assert shown.plain == "not <b>good</b> \\x1b[31mat all"
    styles = {shown.plain[span.start : span.end]: str(span.style) for span in shown.spans if str(span.style)}
    assert styles["not"] == "bold white on rgb(0,114,178)" and styles["<b>good</b>"] == "bold rgb(213,94,0)"
    assert styles["all"] == "rgb(0,114,178)" and "\\x1b[31mat" not in styles


def test_a_sentence_of_equal_words_has_no_colour_and_no_error() -> None:
    flat = Sentence("row", "gradient", ("a", "b"), (0.0, 0.0), "now", 0.5)
    assert show.plain(flat) == "a b" and flat.strengths == (0.0, 0.0)
    assert list(show.masked(flat)) == [] and show.as_json(flat)["masks"] == {}
    assert show.plain(Sentence("row", "gradient", (), (), "now", 0.5)) == ""


SENTENCES = st.lists(
    st.tuples(st.text(st.characters(exclude_categories=("Zs", "Zl", "Zp", "Cs", "Cc")), min_size=1), st.floats(-9, 9)),
    max_size=8,
).map(
    lambda pairs: Sentence(
        "row", "shapley", tuple(word for word, _ in pairs), tuple(value for _, value in pairs), "now", 0.5
    )
)


@given(SENTENCES)
def test_every_way_of_showing_holds_every_word_in_its_order(sentence: Sentence) -> None:
    words = [show.printable(word) for word in sentence.words]
    assert show.coloured(sentence).plain == " ".join(words)
    bare = re.sub(r"\[[+-](\d+(\.\d+)?|[\d.]+e[+-]\d+)\](?= |$)", "", show.plain(sentence))
    assert bare == " ".join(words) or any(re.search(r"\[[+-]", word) for word in words)
    assert all(-1 <= strength <= 1 for strength in sentence.strengths)
    assert max(map(abs, sentence.strengths), default=1.0) in (0.0, 1.0)
    found = _Page()
    found.feed(show.page([], [sentence]).decode())
    spans = [attrs for tag, attrs in found.tags if tag == "span"]
    assert [float(attrs["title"] or 0) for attrs in spans] == [round(value, 3) for value in sentence.attribution]
    assert " ".join(words) in "".join(found.text)
    value = show.as_json(sentence)
    assert json.loads(json.dumps(value))["words"] == list(sentence.words)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_asks_for_nothing_and_runs_nothing() -> None:
    found = _Page()
    page = show.page([made("a" * 64)], [SENTENCE]).decode()
    found.feed(page)
    tags = [tag for tag, _ in found.tags]
    assert "script" not in tags and "img" not in tags and "link" not in tags and "b" not in tags
    policies = [attrs["content"] for tag, attrs in found.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert "http:" not in page and "https:" not in page
    assert "\x1b" not in page and "<b>good</b>" in "".join(found.text)
    titles = [attrs["title"] for tag, attrs in found.tags if tag == "span"]
    assert titles == ["+2.000", "-1.000", "+0.100", "+0.300"]
    assert tags.count("tr") == len(show.table(made("a" * 64)))


def test_the_table_holds_every_score_with_reversed_chance_and_ceiling_beside_it() -> None:
    rows = show.table(made("a" * 64))
    assert [row[0] for row in rows] == [
        *("explainer", "integrated", "integrated reversed", "random"),
        *("integrated: teacher, other seed", "integrated: random"),
    ]
    assert rows[1][1] == "0.90 [0.80, 1.00]" and rows[1][5] == "0.50 [0.40, 0.60]"
    assert {len(row) for row in rows} == {7}


def test_the_notes_say_what_every_number_stands_on() -> None:
    whole = made(
        "a" * 64,
        attacked=(
            scores.Attacked(
                attack="pwws", explainer="integrated", tau=mean(0.6, 4), overlap=None, aimed=Count(k=3, n=5), chance=1.2
            ),
        ),
        truth=(scores.Truth(explainer="integrated", kind="word", hits=Count(k=9, n=10), chance=0.8),),
        unlearned=("pair",),
        shuffled=(scores.Shuffled(explainer="integrated", tau=mean(0.02)),),
    )
    text = "\n".join(show.lines(whole))
    assert "10 texts of made" in text and "exact on 7" in text
    assert "loyal to teacher.natural.s0; teacher.natural.s1 is its ceiling" in text
    assert "3 of 5 words" in text and "1 by chance" in text and "on 4" in text
    assert "planted word, integrated: 9 of 10 found" in text and "planted pair: a model" in text
    assert "shuffled weights, integrated: tau 0.02" in text
