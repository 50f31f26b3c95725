"""The experiment value: rows, names, settings, digest and folder."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from grit.bench import cli, datasets, experiment, lexicons, registry
from grit.bench.experiment import Experiment, Folder
from grit.bench.types import MalformedInput, StorageError, UsageError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def corpus() -> object:
    return datasets.load("pings")


def test_rows_are_models_times_schemes_in_the_order_asked() -> None:
    names = [plan.name for plan in experiment.rows(Experiment(models=("student", "tfidf"), seed=3))]
    assert names == ["student.natural.s3", "student.proposed.s3", "tfidf.natural.s3", "tfidf.proposed.s3"]


def test_a_configuration_that_differs_shows_in_the_name() -> None:
    wanted = Experiment(models=("student[hidden=10,embedding=10]",), schemes=("natural",), settings=(("epochs", "2"),))
    (plan,) = experiment.rows(wanted)
    assert plan.name == "student[embedding=10,hidden=10,epochs=2].natural.s0"
    assert (plan.config.hidden, plan.recipe.epochs) == (10, 2)


def test_a_setting_reaches_the_models_that_have_it() -> None:
    student, prado = experiment.rows(
        Experiment(models=("student", "prado"), schemes=("natural",), settings=(("hidden", "7"),))
    )
    assert student.config.hidden == 7
    assert prado.name == "prado.natural.s0"


def test_a_setting_with_an_owner_reaches_only_it() -> None:
    wanted = Experiment(models=("student", "fastgrnn"), schemes=("natural",), settings=(("student.epochs", "2"),))
    student, fastgrnn = experiment.rows(wanted)
    assert student.recipe.epochs == 2
    assert fastgrnn.recipe == dataclasses.replace(type(fastgrnn.recipe)(), **dataclasses.asdict(fastgrnn.recipe))
    assert fastgrnn.name == "fastgrnn.natural.s0"


def test_a_setting_of_an_objective_changes_the_scheme_and_its_name() -> None:
    wanted = Experiment(models=("student",), schemes=("distil",), settings=(("distil.temperature", "2.0"),))
    (plan,) = experiment.rows(wanted)
    assert plan.scheme.terms[1].options["temperature"] == 2.0
    assert "distil.temperature=2.0" in plan.name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"models": ("studnet",)}, "unknown model 'studnet': did you mean 'student'?"),
        ({"schemes": ("propose",)}, "unknown scheme 'propose': did you mean 'proposed'?"),
        ({"settings": (("epcohs", "3"),)}, "unknown setting 'epcohs': did you mean 'epochs'?"),
        ({"settings": (("epochs", "many"),)}, "epochs='many': expected int"),
        ({"models": ("student[hidden]",)}, "expected field=value, got 'hidden'"),
        ({"models": ("student[hidden=2",)}, "expected a name, or name[field=value,...]"),
        ({"models": ("student", "student")}, "names a row twice"),
    ],
)
def test_bad_words_are_refused_before_any_work(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as error:
        experiment.rows(Experiment(**fields))  # type: ignore[arg-type]  # wrong on purpose
    assert message in str(error.value)


def test_attack_names_are_written_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIT_DATA", "")
    monkeypatch.delenv("NLTK_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/nonexistent")
    found = experiment.attacks(Experiment(attacks=("pwws", "deepwordbug")))
    assert list(found) == ["pwws.strong+thesaurus", "deepwordbug.strong"]
    with pytest.raises(UsageError, match="twice"):
        experiment.attacks(Experiment(attacks=("pwws", "pwws.strong")))


def test_the_teacher_is_a_row_of_its_own_and_only_where_one_is_needed() -> None:
    wanted = Experiment(models=("student",), schemes=("natural",))
    assert experiment.teacher_plan(wanted, experiment.rows(wanted)) is None
    wanted = Experiment(models=("student",), schemes=("proposed",), settings=(("teacher.epochs", "1"),))
    plan = experiment.teacher_plan(wanted, experiment.rows(wanted))
    assert plan is not None
    assert plan.name == "teacher[epochs=1].natural.s0"


def test_the_digest_changes_with_every_field_and_with_the_data(corpus: datasets.Dataset) -> None:
    base = Experiment()
    changed = [
        dataclasses.replace(base, **change)
        for change in (
            {"seed": 1},
            {"n": 10},
            {"models": ("student",)},
            {"settings": (("epochs", "1"),)},
            {"attacks": ("pwws",)},
            {"n_train": 100},
        )
    ]
    digests = {experiment.digest(each, corpus) for each in (base, *changed)}
    digests.add(experiment.digest(base, dataclasses.replace(corpus, revision="0" * 64)))
    assert len(digests) == 8


def test_a_folder_of_another_experiment_is_refused(tmp_path: Path, corpus: datasets.Dataset) -> None:
    Folder(tmp_path / "run").open(Experiment(), corpus)
    Folder(tmp_path / "run").open(Experiment(), corpus)
    with pytest.raises(UsageError, match="holds another experiment"):
        Folder(tmp_path / "run").open(Experiment(seed=1), corpus)


def test_what_a_name_stands_for_is_part_of_the_digest(
    monkeypatch: pytest.MonkeyPatch, corpus: datasets.Dataset
) -> None:
    """A changed file, lexicon, engine or version makes another experiment of the same words."""
    base = Experiment(models=("student",), attacks=("pwws",))
    found = {experiment.digest(base, corpus)}
    with monkeypatch.context() as changed:
        changed.setattr(experiment, "__version__", "9")
        found.add(experiment.digest(base, corpus))
    with monkeypatch.context() as changed:
        changed.setattr(experiment.suites, "BEHAVIOUR", 99)
        found.add(experiment.digest(base, corpus))
    for kind, name in (("models", "student"), ("models", "teacher"), ("attacks", "pwws"), ("objectives", "gradmask")):
        with monkeypatch.context() as changed:
            true = registry.code_digest
            changed.setattr(
                registry,
                "code_digest",
                lambda k, n, kind=kind, name=name, true=true: "other" if (k, n) == (kind, name) else true(k, n),
            )
            found.add(experiment.digest(base, corpus))
    with monkeypatch.context() as changed:
        changed.setenv("GRIT_DATA", "")
        changed.delenv("NLTK_DATA", raising=False)
        changed.setenv("XDG_DATA_HOME", "/nonexistent")
        without = experiment.digest(base, corpus)
    assert len(found) == 7
    assert without in found or lexicons.load("default").name != "thesaurus"
    other = dataclasses.replace(base, attacks=("pwws+thesaurus",))
    assert experiment.digest(other, corpus) not in found, "asked for by name, it stays where a default moves"


def test_a_callable_is_known_by_its_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, corpus: datasets.Dataset
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "my_model_of_this_test.py"
    wanted = Experiment(models=("my_model_of_this_test:f",), schemes=(), targets=())
    found = set()
    for body in ("return 1", "return 2"):
        file.write_text(f"def f(texts):\n    {body}\n")
        found.add(experiment.digest(wanted, corpus))
    assert len(found) == 2


def test_the_lexicon_of_the_training_is_written_out() -> None:
    (plan,) = experiment.rows(Experiment(models=("student",), schemes=("proposed",)))
    (written,) = [term.options["lexicon"] for term in plan.scheme.terms if term.objective == "gradmask"]
    assert written == lexicons.load("default").name != "default"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((("epochs", "0"),), "recipe: epochs=0: expected 1 or more"),
        ((("batch_size", "-1"),), "recipe: batch_size=-1: expected 1 or more"),
        ((("learning_rate", "-1"),), "learning_rate=-1.0: expected 0 or more"),
        ((("prado.epochs", "3"),), "unknown setting 'prado.epochs'"),
        ((("gradmask.top", "9"),), "unknown setting 'gradmask.top'"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(settings: tuple[tuple[str, str], ...], message: str) -> None:
    with pytest.raises(UsageError) as error:
        experiment.rows(Experiment(models=("student",), schemes=("natural",), settings=settings))
    assert message in str(error.value)


def test_a_setting_of_the_teacher_is_its_own() -> None:
    wanted = Experiment(models=("student",), schemes=("proposed",), settings=(("teacher.epohcs", "1"),))
    with pytest.raises(UsageError, match=r"unknown setting 'teacher\.epohcs'"):
        experiment.teacher_plan(wanted, experiment.rows(wanted))
    plain = Experiment(models=("student",), schemes=("natural",), settings=(("teacher.epochs", "1"),))
    with pytest.raises(UsageError, match="unknown setting"):
        experiment.rows(plain)


def test_what_a_killed_write_left_is_no_content(tmp_path: Path, corpus: datasets.Dataset) -> None:
    (tmp_path / ".config.json.77.part").write_bytes(b"{")
    folder = Folder(tmp_path)
    folder.open(Experiment(), corpus)
    with folder.lock():
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["config.json", "lock"]


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path, corpus: datasets.Dataset) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not empty"):
        Folder(tmp_path).open(Experiment(), corpus)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_configuration_reads_back(tmp_path: Path, corpus: datasets.Dataset) -> None:
    wanted = Experiment(models=("student[hidden=10]",), n=20, settings=(("epochs", "2"),))
    Folder(tmp_path / "run").open(wanted, corpus)
    assert experiment.from_config(tmp_path / "run") == wanted


@pytest.mark.parametrize("content", ["", "{", "[]", '{"experiment": {"colour": 1}}'])
def test_a_broken_configuration_is_one_clear_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(MalformedInput, match=r"config\.json"):
        experiment.from_config(tmp_path)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with Folder(tmp_path).lock(), pytest.raises(UsageError, match="in use"), Folder(tmp_path).lock():
        pass
    with Folder(tmp_path).lock():
        pass


def test_the_default_folder_names_dataset_and_digest(corpus: datasets.Dataset) -> None:
    name = experiment.default_folder(Experiment(), dataclasses.replace(corpus, name="attack_eval_1k/ag")).name
    assert name.startswith("attack_eval_1k_ag-")


def test_n_is_capped_by_the_test_split(corpus: datasets.Dataset) -> None:
    assert experiment.n_test(Experiment(), corpus) == 300
    assert experiment.n_test(Experiment(n=9999), corpus) == 500
    assert experiment.n_test(Experiment(n=7), corpus) == 7


def test_n_train_takes_a_stratified_subset() -> None:
    cut = experiment.load_data(Experiment(n_train=100))
    assert len(cut.train) == 100
    assert sum(example.label for example in cut.train) == 50


def test_json_of_the_experiment_is_plain(tmp_path: Path, corpus: datasets.Dataset) -> None:
    Folder(tmp_path / "run").open(Experiment(), corpus)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["revision"] == corpus.revision


# --- names and values that are easily confused ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("student", ("student", ())),
        ("student[]", ("student", ())),
        ("student[hidden=10]", ("student", (("hidden", "10"),))),
        ("student[hidden=10,,embedding=a=b]", ("student", (("hidden", "10"), ("embedding", "a=b")))),
        ("module:callable", ("module:callable", ())),
    ],
)
def test_a_model_is_a_name_with_its_fields(spec: str, parsed: object) -> None:
    assert experiment._parse_spec(spec) == parsed


@pytest.mark.parametrize("spec", ["", "[]", "a]", "a[b=1]]", "a[b=1][c=2]", "a[b=1]c"])
def test_what_is_no_model_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="expected a name, or name"):
        experiment._parse_spec(spec)


def test_a_setting_goes_before_what_the_name_says_and_both_show_once() -> None:
    wanted = Experiment(models=("student[hidden=10]",), schemes=("natural",), settings=(("student.hidden", "12"),))
    (plan,) = experiment.rows(wanted)
    assert plan.config.hidden == 12 and plan.name == "student[hidden=12].natural.s0"


def test_a_setting_to_the_default_leaves_the_name_alone() -> None:
    (plain,) = experiment.rows(Experiment(models=("student",), schemes=("natural",)))
    wanted = Experiment(
        models=("student",), schemes=("natural",), settings=(("hidden", str(plain.config.hidden)), ("epochs", "77"))
    )
    (plan,) = experiment.rows(wanted)
    assert plan.name == "student[epochs=77].natural.s0" and plan.config == plain.config


def test_the_same_row_by_two_spellings_is_the_same_row() -> None:
    (plain,) = experiment.rows(Experiment(models=("student",), schemes=("natural",)))
    default = f"student[hidden={plain.config.hidden}]"
    with pytest.raises(UsageError, match=r"names a row twice: student\.natural\.s0"):
        experiment.rows(Experiment(models=("student", default), schemes=("natural",)))


def test_a_setting_for_one_objective_says_nothing_of_another() -> None:
    wanted = Experiment(models=("student",), schemes=("distil", "natural"), settings=(("distil.temperature", "2.0"),))
    distilled, natural = experiment.rows(wanted)
    assert "temperature=2.0" in distilled.name and natural.name == "student.natural.s0"


def test_names_of_rows_are_files_of_their_own() -> None:
    wanted = Experiment(models=("student", "student[hidden=7]", "tfidf"), settings=(("learning_rate", "0.5"),))
    names = [plan.name for plan in experiment.rows(wanted)]
    assert len(set(names)) == 6 and not [name for name in names if "/" in name or name.startswith(".")]


def test_a_callable_comes_without_a_scheme() -> None:
    assert experiment.is_callable(Experiment(models=("module:f",), schemes=()))
    assert not experiment.is_callable(Experiment())


# --- attacks and suites --------------------------------------------------------------------------------------


def test_the_members_of_a_suite_by_hand_are_the_suite() -> None:
    suite = experiment.attacks(Experiment(attacks=("std@1+thesaurus",)))
    apart = experiment.attacks(Experiment(attacks=("pwws+thesaurus", "deepwordbug", "hotflip+thesaurus")))
    assert list(suite) == ["pwws.strong+thesaurus", "deepwordbug.strong", "hotflip.strong+thesaurus"]
    name, digest = experiment.suite(suite)
    assert name == "std@1+thesaurus" and len(digest) == 64
    assert set(apart) == set(suite)
    assert experiment.suite(apart)[0] in ("", name)  # deepwordbug alone names no lexicon: where one differs, no suite


@pytest.mark.parametrize("change", ["fewer", "more", "weaker"])
def test_what_differs_from_a_suite_is_none(change: str) -> None:
    found = experiment.attacks(Experiment(attacks=("std@1+thesaurus",)))
    if change == "fewer":
        found.popitem()
    elif change == "more":
        found |= experiment.attacks(Experiment(attacks=("random_search+thesaurus",)))
    else:
        name = "pwws.strong+thesaurus"
        threat = dataclasses.replace(found[name].threat, max_words=0.1)
        found[name] = dataclasses.replace(found[name], threat=threat)  # type: ignore[type-var]  # a dataclass by contract
    assert experiment.suite(found) == ("", "")


def test_a_suite_over_a_table_of_ones_own_reads_that_table(tmp_path: Path) -> None:
    """The name of a table is not where it lies: by its name alone nobody finds it again."""
    (tmp_path / "mine.json").write_text('{"glad": ["happy"]}')
    path = str(tmp_path / "mine.json")
    found = experiment.attacks(Experiment(attacks=(f"std@1+{path}",)))
    assert {attack.threat.lexicon for attack in found.values()} == {path}
    for attack in found.values():
        assert lexicons.load(attack.threat.lexicon).synonyms("glad") == ("happy",)
    _, own = experiment.suite(found)
    assert own and own != experiment.suite(experiment.attacks(Experiment(attacks=("std@1+thesaurus",))))[1]


def test_an_attack_of_a_suite_is_not_asked_for_again() -> None:
    with pytest.raises(UsageError, match=r"attack pwws\.strong\+thesaurus is asked for twice"):
        experiment.attacks(Experiment(attacks=("std@1+thesaurus", "pwws+thesaurus")))
    with pytest.raises(UsageError, match="did you mean 'std@1'"):
        experiment.attacks(Experiment(attacks=("sdt@1",)))
    with pytest.raises(UsageError, match="there is no such file"):
        experiment.attacks(Experiment(attacks=("pwws+none.json",)))


# --- the folder ---------------------------------------------------------------------------------------------


def test_rows_of_a_folder_are_those_that_were_exported(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.rows == []
    for name in ("b.natural.s0", "a.natural.s0", "c.natural.s0"):
        folder.model(name).mkdir(parents=True)
        if not name.startswith("c"):
            (folder.model(name) / experiment.ARTEFACT).write_bytes(b"")
    (tmp_path / "model" / "stray").write_text("a file")
    assert folder.rows == ["a.natural.s0", "b.natural.s0"]


def test_a_lock_is_given_back_by_work_that_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Folder(tmp_path / "new").lock():
        assert (tmp_path / "new").is_dir()
        raise ZeroDivisionError
    with Folder(tmp_path / "new").lock():
        pass


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path, corpus: datasets.Dataset) -> None:
    (tmp_path / "file").write_text("in the way")
    for work in (
        Folder(tmp_path / "file" / "run").lock().__enter__,
        lambda: Folder(tmp_path / "file").lock().__enter__(),
    ):
        with pytest.raises(StorageError, match="give another folder with -o"):
            work()
    with pytest.raises(StorageError, match="give another folder with -o"):
        Folder(tmp_path / "file" / "run").open(Experiment(), corpus)


def test_a_configuration_of_lists_reads_back_as_tuples(tmp_path: Path) -> None:
    """JSON has no tuples, and an experiment of lists would have another digest or none."""
    wanted = Experiment(attacks=("pwws",), settings=(("epochs", "2"), ("student.hidden", "3")), n=None, seed=9)
    (tmp_path / "config.json").write_text(json.dumps({"experiment": dataclasses.asdict(wanted)}))
    found = experiment.from_config(tmp_path)
    assert found == wanted and hash(found) == hash(wanted)


# --- files ------------------------------------------------------------------------------------------


def test_a_file_gives_the_fields_it_names(tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    file.write_text(
        'models = ["student"]\nn = 20\n[settings]\nepochs = 3\nstudent.hidden = 7\ndistil.temperature = 2.5\n'
    )
    assert experiment.read(file) == {
        "models": ("student",),
        "n": 20,
        "settings": (("epochs", "3"), ("student.hidden", "7"), ("distil.temperature", "2.5")),
    }


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ('modles = ["student"]', UsageError, "did you mean 'models'"),
        ('models = "student"', MalformedInput, "Expected `array`"),
        ("n = 2.5", MalformedInput, "Expected `int"),
        ("settings = 3", MalformedInput, "settings is a table"),
        ("n = ", MalformedInput, "is not TOML"),
        ("n = '\xff'", MalformedInput, "is not TOML"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, error: type[Exception], said: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(error, match=re.escape(said)) as raised:
        experiment.read(file)
    assert "\n" not in str(raised.value) and str(file) in str(raised.value)


def test_a_file_that_is_not_there_and_a_folder(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(UsageError, match="no experiment file"):
            experiment.read(place)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "leaderboards" / "experiments").glob("*.toml")), ids=lambda file: file.stem
)
def test_the_committed_experiments_name_what_there_is(file: Path) -> None:
    wanted = Experiment(**experiment.read(file))
    assert experiment.rows(wanted)
    assert wanted.dataset == file.stem.partition("-")[0]


def test_options_replace_what_a_file_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.toml"
    file.write_text(
        'models = ["hashed"]\nschemes = ["natural"]\nattacks = ["deepwordbug"]\nn = 9\n[settings]\nepochs = 1\n'
    )
    with pytest.raises(SystemExit, match="0"):
        cli.main(
            [
                "train",
                str(file),
                "--seed",
                "4",
                "--set",
                "buckets=256",
                "--n-train",
                "60",
                "-q",
                "-o",
                str(tmp_path / "out"),
            ]
        )
    capsys.readouterr()
    told = experiment.from_config(tmp_path / "out")
    assert (told.models, told.n, told.seed, told.n_train) == (("hashed",), 9, 4, 60)
    assert told.settings == (("epochs", "1"), ("buckets", "256"))
