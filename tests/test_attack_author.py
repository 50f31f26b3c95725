"""An author's first hour: one file of at most forty lines, known by its name, passes ``grit check`` and attacks."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grit.bench import check

FILE = '''"""Drop the vowel that hurts most, word by word."""

import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from grit.bench.types import Edit, Question, Score, Script, Sentence, Threat


@dataclass(frozen=True)
class DropVowels:
    """``vowels`` are the letters that may go."""

    threat: Threat = Threat(spaces=("typos",))
    tier: str = "strong"
    vowels: str = "aeiou"
    tiers: ClassVar = {"strong": {}, "y": {"tier": "y", "vowels": "aeiouy"}}

    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        best, script = -np.inf, ()
        for index, word in enumerate(sentence.words):
            shorter = [word[:i] + word[i + 1 :] for i in range(len(word)) if word[i] in self.vowels]
            tries = [(*script, Edit("replace", index, each)) for each in shorter]
            tries = [each for each in tries if sentence.allows(each)]
            if tries:
                logits = yield Score(tries)
                rises = np.delete(logits, label, axis=1).max(axis=1) - logits[:, label]
                if rises.max(initial=-np.inf) > best:
                    best, script = rises.max(), tries[rises.argmax()]
                if best > 0:
                    return script
        return script
'''

VICTIM = '''"""Texts to logits: one that knows a single word."""

def logits(texts):
    return [[1.0, 2.0 * (" the " in text.lower())] for text in texts]
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder that holds the file as an installed package does: a module and its entry point."""
    (tmp_path / "theirs.py").write_text(FILE, encoding="utf-8")
    (tmp_path / "victim.py").write_text(VICTIM, encoding="utf-8")
    told = tmp_path / "theirs-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n", encoding="utf-8")
    (told / "entry_points.txt").write_text("[gritbench.attacks]\ndrop_vowels = theirs:DropVowels\n", encoding="utf-8")
    return tmp_path


def grit(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "grit", *arguments]
    environment = {**os.environ, "PYTHONPATH": path, "GRIT_DATA": ""}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=package, env=environment)


def test_forty_lines_pass_the_contract(package: Path) -> None:
    assert len(FILE.splitlines()) <= 40
    found = grit(package, "check", "drop_vowels")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "FAIL" not in found.stdout and " kept" in found.stdout.splitlines()[-1]


def test_it_is_listed_with_its_origin_and_attacks_a_function(package: Path) -> None:
    listed = grit(package, "list", "attacks", "--json")
    assert "drop_vowels" in listed.stdout and "theirs:DropVowels" in listed.stdout
    found = grit(package, "attack", "victim:logits", "--attack", "drop_vowels.y", "--dataset", "pings", "--n", "12")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "drop_vowels.y" in found.stdout


def written(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    """The class in a file of this text."""
    (folder / "written.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "written", raising=False)
    found: type = importlib.import_module("written").DropVowels
    return found


@pytest.mark.parametrize(
    ("slips", "said"),
    [
        ({"shorter = [": 'shorter = ["pepper"] + [', " if sentence.allows(each)": ""}, "outside its threat"),
        ({"best > 0:": "best > random.random() - 0.5:"}, "use the rng it is given"),
        ({"return script\n": "return ()\n"}, "does it return what it found?"),
        ({"yield Score(tries)": "yield tries"}, "not a Score or a Gain, nor Texts"),
        ({'"strong": {}': '"soft": {"tier": "soft"}'}, "there is no tier 'strong'"),
    ],
    ids=["illegal", "global generator", "nothing returned", "no question", "no strong tier"],
)
def test_a_slip_is_told_in_words(
    slips: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FILE
    for right, wrong in slips.items():
        assert right in text
        text = text.replace(right, wrong)
    findings = check.check("attacks", written(text, tmp_path, monkeypatch))
    assert said in " ".join(finding.message for finding in findings if not finding.ok)
