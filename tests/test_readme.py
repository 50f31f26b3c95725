"""What the README shows is run here: its example, its commands, its table of exit codes."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grit.bench import check, cli, types
from grit.bench.evaluate import attack_all
from grit.bench.types import Example
from grit.bench.victim import CallableVictim

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The class of the README's one block of Python."""
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    folder = tmp_path_factory.mktemp("readme")
    (folder / "example_of_the_readme.py").write_text(block, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("example_of_the_readme").Greedy


def test_the_example_keeps_the_contract(example: type) -> None:
    findings = check.check("attacks", example)
    assert [finding for finding in findings if not finding.ok] == []


def test_the_example_finds_a_break(example: Any) -> None:
    def asked(texts: list[str]) -> np.ndarray:
        return np.array([[1.0, 2.0] if "happy" in text.split() else [2.0, 1.0] for text in texts])

    victim = CallableVictim(asked, name="words", classes=2)
    attack = example(threat=types.Threat(lexicon="thesaurus"))
    (outcome,) = attack_all(
        victim, attack, [Example("0" * 16, "we are happy with the quick answer", 1)], seed=0, name="greedy"
    )
    assert outcome.outcome == "broken" and len(outcome.script) == 1


def test_every_command_it_names_exists() -> None:
    named = set(re.findall(r"`?grit ([a-z][a-z-]+)", README))
    assert {"run", "list", "check", "board", "compare", "gate", "verify"} <= named
    assert named - set(cli.grit.commands) <= {"run"}


def test_the_exit_codes_are_those_of_the_errors() -> None:
    codes = {int(code) for code in re.findall(r"\| (\d+) \|", README)}
    errors = {
        error.exit_code
        for error in vars(types).values()
        if isinstance(error, type) and issubclass(error, types.GritError)
    }
    assert codes == errors | {0, 130, 141}


def test_links_lead_to_files() -> None:
    for place in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / place).exists(), place
