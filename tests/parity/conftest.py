"""Live parity needs the extra ``textattack``; everything here skips with that reason where it is not installed.

Nothing here reaches for a network. What TextAttack would fetch from nltk is taken from where NLTK_DATA points or
from the folder of real data; its stop words are ours, since the list that nltk fetches today is another one.

GRIT_PARITY_KEPT names a file in which the line of every test that passed is kept. The same command with the same file
goes on where the last one stopped; its lines are those of the code that ran, so a change asks for another file.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from grit.bench import lexicons, machine
from grit.bench.datasets import data_folders
from grit.bench.types import CouldNotMeasure

HERE = Path(__file__).parent
KEPT = os.environ.get("GRIT_PARITY_KEPT", "")
_lines: list[str] = []


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The functions that run both sides."""
    if importlib.util.find_spec("textattack") is None:
        pytest.skip("textattack is not installed: pip install 'gritbench[textattack]'")
    # TextAttack fetches six packages of nltk when it is first imported, unless this file says it has.
    cache = Path(os.environ.setdefault("TA_CACHE_DIR", str(tmp_path_factory.mktemp("textattack"))))
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "post_install_check_3").touch()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    folders = [str(folder / "nltk_data") for folder in data_folders() if (folder / "nltk_data").is_dir()]
    if folders:
        os.environ.setdefault("NLTK_DATA", folders[0])
    import nltk

    nltk.data.path += [folder for folder in folders if folder not in nltk.data.path]
    nltk.corpus.stopwords = _StopWords()
    nltk.download = lambda *packages, **options: False  # its PWWS fetches translations of WordNet whenever it is built
    return _module("parity_harness", HERE / "harness.py")


class _StopWords:
    def words(self, language: str) -> list[str]:
        assert language == "english"
        return sorted(lexicons.stop_words())


@pytest.fixture(scope="session")
def wordnet(harness: Any) -> lexicons.Lexicon:
    """WordNet, where both sides find it."""
    try:
        return lexicons.load("wordnet3.0")
    except CouldNotMeasure as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tagger(harness: Any) -> None:
    """nltk's tagger, which a HotFlip over real texts asks; skips where it is missing."""
    from grit.attacks._textattack import need_tagger

    try:
        need_tagger()
    except CouldNotMeasure as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def golden() -> Any:
    """The cases whose outcomes are kept in golden files, as the default tests know them."""
    return _module("golden_cases", HERE.parent / "test_golden_textattack.py")


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Iterator[Callable[[str], None]]:
    """note(line): a line for the end of the run, where counts and times are read."""
    test, failed = request.node.nodeid, request.session.testsfailed
    lines = _kept().get(test, [])
    if lines:
        _lines.extend(lines)
        pytest.skip(f"its lines are kept in {KEPT}")
    yield lines.append
    _lines.extend(lines)
    if KEPT and lines and request.session.testsfailed == failed:
        with open(KEPT, "a", encoding="utf-8") as file:
            file.write(json.dumps({"test": test, "lines": lines}) + "\n")


def _kept() -> dict[str, list[str]]:
    if not KEPT or not Path(KEPT).exists():
        return {}
    each = [json.loads(line) for line in Path(KEPT).read_text(encoding="utf-8").splitlines()]
    return {one["test"]: one["lines"] for one in each}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _lines:
        terminalreporter.section("parity with TextAttack")
        here = machine.facts()
        terminalreporter.write_line(f"{here['cpu']}, {here['cores']} cores, {here['os']}")
        for line in _lines:
            terminalreporter.write_line(line)
