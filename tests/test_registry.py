"""Names: the file in the folder, or the entry point of an installed package; and what is said of wrong ones."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import grit
from grit.bench import registry
from grit.bench.types import CouldNotMeasure, Recipe, UsageError

MODEL = '''
"""The student, seven wide."""

from dataclasses import dataclass

from grit.models import student


class Mine(student.Student):
    @dataclass(frozen=True)
    class Config(student.Student.Config):
        hidden: int = 7
'''

MEAN = '''
"""The mean of seven numbers a word; no exporter knows it as layers."""

from dataclasses import dataclass

import torch

from grit.bench.types import Reading
from grit.models import student


class Mine(student.Student):
    @dataclass(frozen=True)
    class Config(student.Student.Config):
        embedding: int = 7
        hidden: int = 7

    def read(self, features, lengths):
        inside = (torch.arange(features.shape[1]) < lengths[:, None])[:, :, None]
        return Reading(features, torch.tanh((features * inside).sum(1) / lengths[:, None]))

    def program(self):
        return None
'''

ATTACK = '''
"""A plug-in attack: takes words away one by one, longest first, and hands in what broke."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from grit.bench.types import BudgetSpent, Edit, Score, Threat


@dataclass(frozen=True)
class Chop:
    threat: Threat = Threat(spaces=("typos",), protect_stop_words=False)
    tier: str = "strong"
    tiers: ClassVar[Mapping[str, Mapping[str, Any]]] = {"strong": {}}

    def attack(self, sentence, label, rng):
        sites = sorted(range(len(sentence.words)), key=lambda i: -len(sentence.words[i]))
        try:
            for site in sites:
                for word in sentence.candidates(site)[:5]:
                    script = (Edit("replace", site, word),)
                    logits = yield Score([script])
                    if len(logits) and logits[0].argmax() != label:
                        return script
        except BudgetSpent:
            pass
        return ()
'''


@dataclass(frozen=True)
class House:
    """A copy of the package in which a test may do what it likes."""

    folder: Path

    def put(self, place: str, source: str) -> None:
        (self.folder / "grit" / place).write_text(textwrap.dedent(source), encoding="utf-8")

    def python(self, code: str, *further: Path) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(str(folder) for folder in (self.folder, *further))
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
        )

    def grit(self, *words: str, also: Path | None = None) -> subprocess.CompletedProcess[str]:
        code = f"from grit.bench.cli import main; main({list(words)!r})"
        return self.python(code, *([also] if also else []))


@pytest.fixture
def house(tmp_path: Path) -> House:
    source = Path(grit.__file__).parent
    shutil.copytree(source, tmp_path / "house" / "grit", ignore=shutil.ignore_patterns("__pycache__"))
    return House(tmp_path / "house")


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], Path]:
    """``install(name, entry points, source)`` builds and installs a real package of one module, without a network."""

    def installed(name: str, points: str, source: str) -> Path:
        project = tmp_path_factory.mktemp(f"project-{name}")
        module = name.replace("-", "_")
        (project / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        (project / "pyproject.toml").write_text(
            textwrap.dedent(
                f"""
                [build-system]
                requires = ["setuptools"]
                build-backend = "setuptools.build_meta"
                [project]
                name = "{name}"
                version = "1"
                [tool.setuptools]
                py-modules = ["{module}"]
                """
            )
            + textwrap.dedent(points),
            encoding="utf-8",
        )
        target = tmp_path_factory.mktemp(f"site-{name}")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
        subprocess.run([*pip, "--target", str(target), str(project)], check=True, capture_output=True)
        return target

    return installed


@pytest.fixture(scope="module")
def chop(install: Callable[[str, str, str], Path]) -> Path:
    return install("grit-chop", '[project.entry-points."gritbench.attacks"]\nchop = "grit_chop:Chop"\n', ATTACK)


# --- the house's own -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in registry.KINDS for name in sorted(registry.names(kind))]
)
def test_every_file_is_a_name_and_holds_one_class(kind: str, name: str) -> None:
    try:
        cls = registry.load(kind, name)
    except CouldNotMeasure as missing:
        pytest.skip(str(missing))
    assert isinstance(cls, type)
    assert registry.key_of(kind, cls) == name


def test_what_the_readme_names_is_there() -> None:
    assert {"fastgrnn", "prado", "student", "teacher"} <= set(registry.names("models"))
    assert {"hotflip", "pwws", "deepwordbug"} <= set(registry.names("attacks"))


def test_private_files_are_no_names() -> None:
    for kind in registry.KINDS:
        assert not [name for name in registry.names(kind) if name.startswith("_")]


def test_names_are_listed_without_importing_them() -> None:
    code = (
        "import sys; from grit.bench import registry\n"
        "for kind in registry.KINDS: registry.names(kind)\n"
        "print([m for m in sys.modules if m.startswith(('grit.models.', 'grit.attacks.', 'torch', 'numpy'))])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown model 'studnet': did you mean 'student'\? 'grit list models' shows"):
        registry.load("models", "studnet")


def test_a_name_like_no_other_gets_no_guess() -> None:
    with pytest.raises(UsageError, match=r"unknown attack 'zzzzzz': 'grit list attacks' shows them all"):
        registry.load("attacks", "zzzzzz")


def test_a_class_that_no_name_leads_to_has_no_key() -> None:
    with pytest.raises(UsageError, match="no model is registered with the class House"):
        registry.key_of("models", House)


# --- attacks by their full name --------------------------------------------------------------------------


def test_no_tier_means_strong() -> None:
    assert registry.attack("deepwordbug").tier == "strong"
    assert registry.attack("deepwordbug") == registry.attack("deepwordbug.strong")


def test_a_lexicon_is_part_of_an_attack_that_reads_one() -> None:
    attack = registry.attack("pwws.strong+thesaurus")
    assert attack.threat.lexicon == "thesaurus"
    assert registry.attack_name(attack) == "pwws.strong+thesaurus"
    assert registry.attack_name(registry.attack("deepwordbug")) == "deepwordbug.strong"


@pytest.mark.parametrize("key", sorted(registry.names("attacks")))
def test_a_full_name_leads_back_to_the_attack(key: str) -> None:
    try:
        tiers = registry.load("attacks", key).tiers
    except CouldNotMeasure as missing:
        pytest.skip(str(missing))
    for tier in tiers:
        attack = registry.attack(f"{key}.{tier}")
        assert registry.attack(registry.attack_name(attack)) == attack


@pytest.mark.parametrize(
    "name",
    [
        "deepwordbug.paper[scoring=temporal_tail,transform=swap]",
        "pwws.strong[beam_width=3]+thesaurus",
    ],
)
def test_fields_in_brackets_are_part_of_the_name(name: str) -> None:
    assert registry.attack_name(registry.attack(name)) == name


def test_fields_as_the_tier_has_them_are_left_out_of_the_name() -> None:
    assert registry.attack_name(registry.attack("hotflip.paper[top=10]")) == "hotflip.paper"
    assert registry.attack_name(registry.attack("hotflip[top=10]+thesaurus")) == "hotflip.strong[top=10]+thesaurus"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("pwws[beam_with=3]", "unknown field of attack pwws 'beam_with': did you mean 'beam_width'"),
        ("pwws[beam_width=wide]", "beam_width='wide': expected int"),
        ("deepwordbug.paper[transform=swop]", "unknown value of transform 'swop': did you mean 'swap'"),
        ("pwws[tier=paper]", "expected field=value of its own fields in brackets, got 'tier=paper'"),
        ("pwws[beam_width]", "expected field=value of its own fields"),
        ("pwws[beam_width=3", r"expected name.tier, or name.tier\[field=value,...\]"),
    ],
)
def test_wrong_fields_of_an_attack_are_told_in_words(spec: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        registry.attack(spec)


def test_an_unknown_tier_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown tier of pwws 'papr': did you mean 'paper'\? it has .*strong"):
        registry.attack("pwws.papr")


# --- settings ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    count: int = 3
    share: float = 0  # an int on purpose: the field is a float all the same
    fast: bool = False
    word: str = "plain"
    side: Literal["left", "right"] = "left"
    limit: int | None = None
    spaces: tuple[str, ...] = ("typos",)


def changed(name: str, text: str) -> Settings:
    return registry.override(Settings(), {name: text}, owner="test")


@given(st.integers())
def test_a_whole_number_is_read_back(number: int) -> None:
    assert changed("count", str(number)).count == number
    assert changed("limit", str(number)).limit == number


@given(st.floats(allow_nan=False))
def test_a_number_is_read_back(number: float) -> None:
    assert changed("share", repr(number)).share == number


@given(st.text())
def test_a_string_is_taken_as_it_is(text: str) -> None:
    assert changed("word", text).word == text


def test_other_types_are_read() -> None:
    assert changed("fast", "True").fast is True
    assert changed("limit", "none").limit is None
    assert changed("spaces", "typos,synonyms").spaces == ("typos", "synonyms")
    assert changed("side", "right").side == "right"
    assert isinstance(changed("share", "1").share, float)


@pytest.mark.parametrize(
    ("name", "text"),
    [("count", "3.5"), ("count", "x"), ("share", "half"), ("share", "nan"), ("fast", "1"), ("limit", "2.5")],
)
def test_a_changed_type_is_refused(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=rf"{name}='{text}': expected .*, as in {name}="):
        changed(name, text)


def test_a_value_outside_a_choice_is_told_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"unknown value of side 'rigth': did you mean 'right'\? it is one of left, right"
    ):
        changed("side", "rigth")


def test_an_unknown_field_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown field of recipe 'epoch': did you mean 'epochs'\? it has batch_size"):
        registry.override(Recipe(), {"epoch": "3"}, owner="recipe")


def test_several_fields_change_at_once_and_the_value_stays() -> None:
    before = Recipe()
    after = registry.override(before, {"epochs": "3", "learning_rate": "1e-2"}, owner="recipe")
    assert (after.epochs, after.learning_rate) == (3, 0.01)
    assert before == Recipe()
    assert dataclasses.replace(after, epochs=before.epochs, learning_rate=before.learning_rate) == before


# --- a file more ---------------------------------------------------------------------------------------


def test_one_file_more_is_one_model_more_everywhere(house: House) -> None:
    house.put("models/mine.py", MODEL)
    listed = house.grit("list", "models")
    assert listed.returncode == 0, listed.stderr
    assert "mine" in listed.stdout and "The student, seven wide." in listed.stdout
    made = house.python(
        "from grit.bench import registry\n"
        "mine = registry.load('models', 'mine')\n"
        "print(mine.build(mine.Config(), ['a b a b'], 2, 0).config.hidden)"
    )
    assert made.stdout == "7\n", made.stderr
    checked = house.grit("check", "mine")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "all 11 kept" in checked.stdout


def test_a_model_that_no_exporter_knows_walks_the_whole_path(house: House) -> None:
    house.put("models/mine.py", MEAN)
    out = house.folder / "out"
    words = (
        *("run", "--model", "mine", "--scheme", "natural", "--attack", "hotflip+thesaurus,mine_too", "--n", "6"),
        *("--n-train", "60", "--set", "epochs=1", "--jobs", "1", "-q", "-o", str(out)),
    )
    ran = house.grit(*words)
    assert ran.returncode == 2 and "unknown attack 'mine_too'" in ran.stderr, (
        "nothing is trained before names are known"
    )
    house.put("attacks/mine_too.py", ATTACK)
    ran = house.grit(*words)
    assert ran.returncode == 0, ran.stderr
    (record,) = [json.loads(line) for line in (out / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {attack["name"] for attack in record["attacks"]} == {"hotflip.strong+thesaurus", "mine_too.strong"}
    assert record["artefact"]["format"] == "onnx"
    page = house.grit("board", str(out), "-o", str(house.folder / "site"))
    assert page.returncode == 0, page.stderr
    assert "mine" in (house.folder / "site" / "index.html").read_text(encoding="utf-8")


def test_a_file_without_its_class_says_so(house: House) -> None:
    house.put("models/mine.py", "class Mine:\n    pass\n")
    ran = house.grit("check", "mine")
    assert ran.returncode == 2
    assert "mine.py must hold exactly one public class with a method 'build', got none" in ran.stderr


def test_a_file_with_two_classes_says_so(house: House) -> None:
    house.put("attacks/mine.py", "class A:\n    def attack(self): ...\nclass B:\n    def attack(self): ...\n")
    ran = house.grit("check", "mine")
    assert ran.returncode == 2
    assert "exactly one public class with a method 'attack', got A, B" in ran.stderr


def test_a_file_that_does_not_run_says_so(house: House) -> None:
    house.put("attacks/mine.py", "def attack(:\n")
    listed = house.grit("list", "models")
    assert listed.returncode == 0, "other kinds must not suffer"
    ran = house.grit("check", "mine")
    assert ran.returncode == 2
    assert "mine.py cannot be loaded: SyntaxError" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


def test_a_missing_library_is_something_missing(house: House) -> None:
    house.put("attacks/mine.py", "import no_such_library\n")
    ran = house.grit("check", "mine")
    assert ran.returncode == 4
    assert "mine.py needs the module 'no_such_library', which is not installed" in ran.stderr


# --- strangers -------------------------------------------------------------------------------------------


def test_an_installed_package_adds_its_attack(house: House, chop: Path) -> None:
    listed = house.grit("list", "attacks", also=chop)
    assert "chop" in listed.stdout and "plug-in: grit-chop (grit_chop:Chop)" in listed.stdout
    named = house.python("from grit.bench import registry; print(registry.attack_name(registry.attack('chop')))", chop)
    assert named.stdout == "chop.strong\n", named.stderr


def test_an_installed_attack_passes_the_contract(house: House, chop: Path) -> None:
    checked = house.grit("check", "chop", also=chop)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_clash_names_both_origins(house: House, install: Callable[[str, str, str], Path]) -> None:
    site = install(
        "grit-clash",
        '[project.entry-points."gritbench.models"]\nstudent = "grit_clash:Student"\n',
        "class Student: ...",
    )
    ran = house.grit("list", "models", also=site)
    assert ran.returncode == 2
    assert "two models are called 'student'" in ran.stderr
    assert "student.py" in ran.stderr and "grit-clash (grit_clash:Student)" in ran.stderr


def test_an_entry_point_that_leads_nowhere_is_told_so(house: House, install: Callable[[str, str, str], Path]) -> None:
    site = install(
        "grit-nowhere", '[project.entry-points."gritbench.attacks"]\nnowhere = "grit_nowhere:Gone"\n', "x = 1"
    )
    assert house.grit("list", "attacks", also=site).returncode == 0
    ran = house.grit("check", "nowhere", also=site)
    assert ran.returncode == 2
    assert "grit-nowhere (grit_nowhere:Gone) cannot be loaded: AttributeError" in ran.stderr
