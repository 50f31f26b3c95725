"""What is installed is what is in the tree: wheel, sdist, links, version, and the words of the test command."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import grit

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("bench", "attacks", "models")
BUILD = ("bench", "attacks", "models", "src", "pyproject.toml", "setup.py", "README.md", "LICENSE")

pytestmark = pytest.mark.skipif(not (ROOT / "README.md").is_file(), reason="no README.md, which a build needs")


def copy_of_the_tree(to: Path) -> Path:
    """The files of a build, links kept as links, nothing that an earlier build left."""
    to.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in BUILD:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(source, to / name)
    return to


def build(what: str, tree: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """``what`` is wheel or sdist; setuptools is called as pip calls it, in this environment and without a network."""
    out.mkdir(parents=True, exist_ok=True)
    code = f"from setuptools import build_meta; print(build_meta.build_{what}({str(out)!r}))"
    return subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    ran = build("wheel", copy_of_the_tree(place / "tree"), place / "out")
    assert ran.returncode == 0, ran.stderr
    (built,) = (place / "out").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sdist")
    ran = build("sdist", copy_of_the_tree(place / "tree"), place / "out")
    assert ran.returncode == 0, ran.stderr
    (built,) = (place / "out").glob("*.tar.gz")
    return built


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def tree_files() -> dict[str, bytes]:
    """What an installed package must hold, from the folders themselves."""
    found = {f"grit/{file.name}": file for file in (ROOT / "src" / "grit").iterdir() if file.is_file()}
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                found[f"grit/{file.relative_to(ROOT).as_posix()}"] = file
    return {name: file.read_bytes() for name, file in found.items()}


# --- wheel and sdist -------------------------------------------------------------------------------------


def test_the_wheel_holds_every_file_of_the_three_folders_and_no_other(wheel: Path) -> None:
    packed, wanted = contents(wheel), tree_files()
    assert set(wanted) - set(packed) == set(), "not in the wheel"
    assert set(packed) - set(wanted) == set(), "not in the tree"
    assert packed == wanted


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("dist-info/METADATA")]
        metadata = archive.read(name).decode()
        entry_points = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
        for file in ("LICENSE", "bench/site/vendored.txt"):
            assert archive.read(name.replace("METADATA", f"licenses/{file}")) == (ROOT / file).read_bytes()
    assert re.search(r"^Name: gritbench$", metadata, re.MULTILINE)
    assert re.search(rf"^Version: {re.escape(grit.__version__)}$", metadata, re.MULTILINE)
    assert re.search(r"^License-Expression: Apache-2\.0 AND ISC$", metadata, re.MULTILINE)
    assert re.search(r"^Requires-Python: <3\.14,>=3\.11$", metadata, re.MULTILINE)
    assert "grit = grit.bench.cli:main" in entry_points
    for extra in ("textattack", "hub", "teacher", "arm", "explain", "private"):
        assert f"Provides-Extra: {extra}" in metadata


def test_an_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    assert (tree / "LICENSE").is_file() and (tree / "setup.py").is_file()
    ran = build("wheel", tree, tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    (again,) = (tmp_path / "out").glob("*.whl")
    assert contents(again) == contents(wheel)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with the wheel in it; its libraries are those of this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_every_module_imports_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = (
        "import pkgutil, importlib, grit, pathlib\n"
        "from grit.bench.types import CouldNotMeasure\n"
        "home = pathlib.Path(grit.__file__).parent\n"
        "names = [m.name for m in pkgutil.walk_packages([str(home)], 'grit.')]\n"
        "for name in names:\n"
        "    try:\n        module = importlib.import_module(name)\n"
        "    except CouldNotMeasure:\n        continue\n"
        "    assert home in pathlib.Path(module.__file__).parents, module.__file__\n"
        "print(len(names), home)"
    )
    ran = subprocess.run([installed, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    count, home = ran.stdout.split()
    assert int(count) >= len([name for name in tree_files() if name.endswith(".py")]) - 1
    assert ROOT not in Path(home).parents


def test_the_command_and_the_data_work_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    command = installed.parent / "grit"
    environment = {**os.environ, "GRIT_DATA": "", "HOME": str(tmp_path)}

    def said(*words: str) -> str:
        ran = subprocess.run(
            [command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    assert grit.__version__ in said("--version")
    listed = said("list")
    assert "student" in listed and "pwws" in listed and "pings" in listed
    code = (
        "from grit.bench import datasets, lexicons\n"
        "print(len(datasets.load('pings').test), len(lexicons.load('thesaurus').entries) > 2500)"
    )
    ran = subprocess.run(
        [installed, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["500", "True"]


# --- guards ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["wheel", "sdist", "editable"])
@pytest.mark.parametrize("lost", FOLDERS)
def test_a_tree_that_lost_a_link_is_not_built(tmp_path: Path, lost: str, what: str) -> None:
    tree = copy_of_the_tree(tmp_path / "tree")
    link = tree / "src" / "grit" / lost
    target = os.readlink(link)
    link.unlink()
    link.write_text(target)  # as git writes it with core.symlinks=false
    ran = build(what, tree, tmp_path / "out")
    assert ran.returncode != 0
    said = ran.stderr.strip().splitlines()[-1]
    assert f"gritbench cannot be built: src/grit/{lost} is not the link to the folder {lost}/" in said
    assert "git clone -c core.symlinks=true" in said
    assert list((tmp_path / "out").glob("*")) == []


def test_a_link_to_nothing_is_not_built(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path / "tree")
    shutil.rmtree(tree / "models")
    ran = build("wheel", tree, tmp_path / "out")
    assert ran.returncode != 0 and "src/grit/models is not the link" in ran.stderr


def test_a_deleted_file_is_not_packed_again(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path / "tree")
    (tree / "models" / "gone.py").write_text('"""Not for long."""\n')
    assert build("wheel", tree, tmp_path / "one").returncode == 0
    (tree / "models" / "gone.py").unlink()
    assert build("wheel", tree, tmp_path / "two").returncode == 0

    def packed(place: str) -> list[str]:
        (built,) = (tmp_path / place).glob("*.whl")
        return list(contents(built))

    assert "grit/models/gone.py" in packed("one")
    assert "grit/models/gone.py" not in packed("two")


def test_the_links_are_relative() -> None:
    for folder in FOLDERS:
        link = ROOT / "src" / "grit" / folder
        assert link.is_symlink() and os.readlink(link) == f"../../{folder}"


def test_src_holds_the_links_and_nothing_else() -> None:
    held = {entry.name for entry in (ROOT / "src" / "grit").iterdir()} - {"__pycache__"}
    assert held == {"__init__.py", "__main__.py", "py.typed", *FOLDERS}


# --- one version, one command ------------------------------------------------------------------------------


def test_the_tests_run_against_the_installed_package() -> None:
    if os.environ.get("GRIT_TEST_INSTALLED") != "1":
        pytest.skip("only tox promises it")
    assert "site-packages" in Path(grit.__file__).resolve().parts
    assert importlib.metadata.version("gritbench") == grit.__version__


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"] and "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "grit.__version__"}
    assert re.search(rf"^version: {re.escape(grit.__version__)}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert re.search(rf"^## {re.escape(grit.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_licence_is_the_plain_one() -> None:
    lines = (ROOT / "LICENSE").read_text().split("\n")
    assert lines[1].strip() == "Apache License" and lines[2].strip() == "Version 2.0, January 2004"
    assert "   END OF TERMS AND CONDITIONS" in lines
    assert "[yyyy] [name of copyright owner]" in "".join(lines)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert script.rstrip().splitlines()[-1] == "pip install tox && tox"
    assert "pip install tox && tox" in (ROOT / "README.md").read_text()
    assert "pip install tox && tox -e" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    mode = (ROOT / ".ci" / "run").stat().st_mode
    assert mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)


@pytest.fixture
def fake_ci(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """.ci/run with fakes of pip, tox and apt-get, which say how they were called."""

    def run(code: int = 0, data: str | None = None) -> subprocess.CompletedProcess[str]:
        checkout = tmp_path / "top" / "checkout"
        (checkout / ".ci").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / ".ci" / "run", checkout / ".ci" / "run")
        (tmp_path / "top" / "shared" / "data").mkdir(parents=True, exist_ok=True)
        fakes = tmp_path / "fakes"
        fakes.mkdir(exist_ok=True)
        for name, body in {
            "python3": 'mkdir -p "$3/bin"; cp "$FAKES/pip" "$FAKES/tox" "$3/bin/"',
            "pip": 'echo "pip $*"',
            "tox": f'echo "tox in $(basename "$PWD") GRIT_DATA=$GRIT_DATA TOOLS=${{GRIT_REQUIRE_TOOLS-}}"; exit {code}',
            "id": "echo 1000",
        }.items():
            (fakes / name).write_text(f"#!/bin/bash\n{body}\n")
            (fakes / name).chmod(0o755)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GRIT_")}
        environment |= {"PATH": f"{fakes}:{os.environ['PATH']}", "FAKES": str(fakes)}
        if data is not None:
            environment["GRIT_DATA"] = data
        return subprocess.run(
            [checkout / ".ci" / "run"], cwd="/", env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_ci_works_from_anywhere_and_finds_the_data(fake_ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    ran = fake_ci()
    assert ran.returncode == 0, ran.stderr
    assert "pip install tox" in ran.stdout
    found = re.search(r"tox in checkout GRIT_DATA=(\S*) TOOLS=$", ran.stdout, re.MULTILINE)
    assert found and Path(found.group(1)).parts[-3:] == ("top", "shared", "data")


def test_ci_leaves_a_given_data_folder_alone(fake_ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "GRIT_DATA=/elsewhere " in fake_ci(data="/elsewhere").stdout
    assert "GRIT_DATA= " in fake_ci(data="").stdout


def test_ci_exits_as_tox_does(fake_ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert fake_ci(code=3).returncode == 3


def test_the_workflow_calls_tox_environments_that_exist() -> None:
    named = set(
        re.findall(r"environment: (\w+)|\[([\w, ]+)\]\n\s+include", (ROOT / ".github/workflows/ci.yml").read_text())
    )
    environments = {name.strip() for pair in named for part in pair for name in part.split(",") if name.strip()}
    sections = set(re.findall(r"^\[testenv:(\w+)\]", (ROOT / "tox.ini").read_text(), re.MULTILINE)) | {"tests"}
    assert environments and environments <= sections
    default = re.search(r"^env_list = (.*)$", (ROOT / "tox.ini").read_text(), re.MULTILINE)
    assert default and default.group(1).split(", ") == ["lint", "benchmarks", "parity", "tests"]
