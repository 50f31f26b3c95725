"""The rules of the house, read from its own files: who imports whom, what is quick, what must not be in the tree."""

from __future__ import annotations

import ast
import importlib.util
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from grit.bench import datasets
from grit.bench.text import tokenize

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("bench", "attacks", "models")
SOURCES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(("grit", *(part for part in parts if part != "__init__")))


def imports(file: Path, *, at_import_only: bool = False) -> Iterator[str]:
    """Dotted names that a file imports; ``at_import_only`` leaves out those inside functions and for typing."""
    module = module_of(file)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif at_import_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        elif at_import_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        else:
            for child in ast.iter_child_nodes(node):
                yield from walk(child)

    return walk(ast.parse(file.read_text(encoding="utf-8")))


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that is, or is about to be, in the repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    files = [ROOT / name for name in listed.split("\0") if name]
    return tuple(file for file in files if file.is_file() and not file.is_symlink())


@cache
def text_of(file: Path) -> str:
    """The text of a tracked file, "" of a binary one."""
    content = file.read_bytes()
    return "" if b"\0" in content else content.decode("utf-8", "replace")


# --- arrows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_models_and_attacks_know_the_nouns_and_the_rules_of_text_alone(file: Path) -> None:
    folder = file.relative_to(ROOT).parts[0]
    for name in imports(file):
        if folder == "bench":
            assert not name.startswith(("grit.models", "grit.attacks")), f"the engine names {name}"
        elif name.startswith("grit."):
            allowed = name.startswith(("grit.bench.types", "grit.bench.text"))
            private = re.match(rf"grit\.{folder}\._", name)
            assert allowed or private, (
                f"{name} is neither grit.bench.types, grit.bench.text nor a private file beside it"
            )


def test_attacks_import_no_torch() -> None:
    for file in sorted((ROOT / "attacks").glob("*.py")):
        assert not [name for name in imports(file) if name.split(".")[0] == "torch"], file.name


def test_nobody_imports_the_folders_by_their_bare_names() -> None:
    for file in [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]:
        tops = {name.split(".")[0] for name in imports(file)} if ROOT in file.parents else set()
        assert not tops & set(FOLDERS), file


def test_types_import_nothing_of_the_house() -> None:
    assert not [name for name in imports(ROOT / "bench" / "types.py") if name.startswith("grit")]
    assert {name for name in imports(ROOT / "bench" / "text.py") if name.startswith("grit")} <= {"grit.bench.types"}


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "core"}
    assert not [file for file in SOURCES if file.stem.strip("_") in drawers]


def test_every_file_says_what_it_is_for() -> None:
    for file in SOURCES:
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file


# --- what is quick -------------------------------------------------------------------------------------

LIGHT = (
    "types",
    "text",
    "registry",
    "datasets",
    "lexicons",
    "sentence",
    "records",
    "statistics",
    "leaderboard",
    "site",
    "catalogue",
    "cli",
    "export.fixed",
    "victim",
    "evaluate",
    "check",
)
HEAVY = ("torch", "pandas", "nltk", "onnxruntime", "onnx", "transformers", "datasets", "textattack", "scipy")


@pytest.mark.parametrize("module", LIGHT)
def test_light_rooms_import_nothing_heavy(module: str) -> None:
    if importlib.util.find_spec(f"grit.bench.{module}") is None:
        pytest.skip(f"no room {module} yet")
    code = f"import sys, grit.bench.{module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "[]", ran.stderr


@pytest.mark.parametrize("words", [["list"], ["list", "attacks"], ["--version"], ["data"], ["check", "nonesuch"]])
def test_the_command_line_starts_without_anything_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom grit.bench.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ran.stdout.splitlines()[-1] == "[]"
    if words[0] == "list":
        # Half a second of the processor; the bound is wide, since this runs on any machine, and a torch would not fit.
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3.0


# --- dependencies -------------------------------------------------------------------------------------------

MODULE_OF = {  # distribution -> the module it is imported by, where the two differ
    "pyelftools": "elftools",
    "huggingface-hub": "huggingface_hub",
    "pytest-xdist": "xdist",
}


def modules(requirements: list[str]) -> set[str]:
    found = {re.split(r"[\s<>=!~\[;]", requirement)[0] for requirement in requirements}
    return {MODULE_OF.get(name.replace("_", "-"), name.replace("-", "_")) for name in found}


def outside(at_import_only: bool) -> dict[str, set[str]]:
    """Third-party top-level modules -> the files that import them."""
    found: dict[str, set[str]] = {}
    for file in SOURCES:
        for name in imports(file, at_import_only=at_import_only):
            top = name.split(".")[0]
            if top != "grit" and top not in sys.stdlib_module_names:
                found.setdefault(top, set()).add(str(file.relative_to(ROOT)))
    return found


def test_every_library_that_is_imported_is_declared() -> None:
    core = modules(PROJECT["project"]["dependencies"])
    extras = set().union(*(modules(each) for each in PROJECT["project"]["optional-dependencies"].values()))
    undeclared = {top: files for top, files in outside(at_import_only=False).items() if top not in core | extras}
    assert undeclared == {}
    alone = {"bench/targets/_unicorn.py"}  # a program of its own, started where the extra is installed
    at_start = {top: files - alone for top, files in outside(at_import_only=True).items() if top not in core}
    assert not any(at_start.values()), "what an extra brings is imported where it is used"


def test_every_core_dependency_is_used() -> None:
    assert modules(PROJECT["project"]["dependencies"]) <= set(outside(at_import_only=False))


def test_every_dependency_is_bounded() -> None:
    for requirement in PROJECT["project"]["dependencies"]:
        assert re.search(r"==|<", requirement), requirement


def test_torch_is_imported_where_it_is_used_and_textattack_never_by_the_engine() -> None:
    importers = outside(at_import_only=False).get("textattack", set())
    assert importers <= {"attacks/textattack.py", "bench/bridge.py"}
    assert "textattack" not in outside(at_import_only=True)


# --- what is in the tree -----------------------------------------------------------------------------------


def test_tests_are_as_long_as_the_code() -> None:
    def lines(files: list[Path]) -> int:
        return sum(bool(line.strip()) for file in files for line in file.read_text(encoding="utf-8").splitlines())

    tests, code = lines(sorted((ROOT / "tests").rglob("*.py"))), lines(SOURCES)
    assert tests >= code, f"{tests} lines of tests for {code} of code"


def test_the_top_level_is_the_agreed_one() -> None:
    agreed = {
        "bench", "attacks", "models", "leaderboards", "tests", "src", "tox.ini", "pyproject.toml", "README.md",
        "LICENSE", "CHANGELOG.md", "CITATION.cff", "setup.py", "MANIFEST.in", ".ci", ".github", ".gitignore",
        ".gitattributes", ".pre-commit-config.yaml",
    }  # fmt: skip
    assert {file.relative_to(ROOT).parts[0] for file in tracked()} <= agreed


def test_no_machine_and_no_index_is_named() -> None:
    """A path of somebody's machine, or the host of a package index, has no place in a repository."""
    homes = "|".join(("work", "farm", "root", r"home/\w+", "Users", "tmp/v", "opt/wheels", "opt/pypi"))
    hosts = "|".join(("pypi" r"\.org", "pythonhosted" r"\.org", "download" r"\.pytorch" r"\.org"))
    pattern = re.compile(rf"(?<![\w.-])/(?:{homes})/|{hosts}")
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for file in tracked()
        if file.suffix not in (".md", ".lock")
        and not file.name.endswith(".min.js")
        and file != Path(__file__).resolve()
        for number, line in enumerate(text_of(file).splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_the_folder_beside_the_checkout_is_named_where_it_is_agreed() -> None:
    beside = re.compile(r"\bshared" r"/data")
    naming = {str(file.relative_to(ROOT)) for file in tracked() if beside.search(text_of(file))}
    assert naming <= {".ci/run", "tox.ini", "tests/conftest.py", "tests/test_packaging.py"}


def test_no_file_is_large() -> None:
    large = {str(file.relative_to(ROOT)): file.stat().st_size for file in tracked() if file.stat().st_size > 3 << 20}
    assert large == {}


def test_no_sentence_of_a_data_set_is_in_the_tree(real_data: Path) -> None:
    """Of every real set, thousands of texts of eight words and more: neither their beginning nor their middle is here.

    The names of the seeds of a text are its own words, so that a failure can be looked up.
    """

    def shingle(words: list[str], start: int) -> tuple[str, ...]:
        return tuple(words[start : start + 8])

    def words_of(text: str) -> list[str]:
        return [token for token in tokenize(text) if token[0].isalnum()]

    here: dict[tuple[str, ...], str] = {}
    for file in tracked():
        if file.name.endswith(".min.js") or file.name == "LICENSE":
            continue
        words = words_of(text_of(file))
        name = str(file.relative_to(ROOT))
        here.update((shingle(words, start), name) for start in range(len(words) - 7))
    found = []
    for name in ("ag_news", "sst2", "mr", "sms_spam", "banking77", "clinc150", "users_airline_tweets"):
        if not (real_data / name).is_dir():
            continue
        dataset = datasets.load(name)
        examples = datasets.subset((*dataset.train, *dataset.dev, *dataset.test), 3000, name)
        for example in examples:
            words = words_of(example.text)
            if len(words) >= 8:
                for start in {0, (len(words) - 8) // 2}:
                    if (place := here.get(shingle(words, start))) is not None:
                        found.append((place, name, example.id))
    assert found == []
