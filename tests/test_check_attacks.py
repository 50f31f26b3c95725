"""The contract of attacks: the house's own keep it, and each way to break it is found and named in words.

This file imports no torch, since one clause asks just that of the module that holds the attack.
"""

from __future__ import annotations

import importlib
import json
import random
import re
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from grit.bench import check, registry
from grit.bench.check import Finding
from grit.bench.types import BudgetSpent, CouldNotMeasure, Edit, Gain, Score, Script, Sentence, Threat


def broken(findings: Sequence[Finding]) -> dict[str, str]:
    return {finding.name: finding.message for finding in findings if not finding.ok}


# --- a small honest attack, and what can be wrong with it ------------------------------------------------

Steps = Generator[Any, np.ndarray, Any]


@dataclass(frozen=True)
class Tries:
    """Every candidate of every word alone, in order."""

    threat: Threat = Threat(spaces=("typos",), protect_stop_words=False)
    tier: str = "strong"

    tiers: ClassVar[Mapping[str, Mapping[str, Any]]] = {"strong": {}}

    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Steps:
        scripts = [
            (Edit("replace", index, word),)
            for index in range(len(sentence.words))
            for word in sentence.candidates(index)
        ]
        try:
            logits = yield Score(scripts)
        except BudgetSpent:
            return ()
        for script, row in zip(scripts, logits, strict=False):
            if row.argmax() != label:
                return script
        return ()


def test_an_honest_attack_keeps_the_contract() -> None:
    findings = check.check("attacks", Tries)
    assert broken(findings) == {}
    assert len(findings) == 10


@dataclass(frozen=True)
class White(Tries):
    """Asks for gains; a victim without gradients scores the edits instead."""

    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Steps:
        edits = [
            Edit("replace", index, word) for index in range(len(sentence.words)) for word in sentence.candidates(index)
        ]
        if not edits:
            return ()
        try:
            gains = yield Gain((), edits)
            if len(gains):
                best = (edits[int(gains.argmax())],)
                logits = yield Score([best])
                return best if len(logits) and logits[0].argmax() != label else ()
        except BudgetSpent:
            pass
        return ()


def test_a_white_box_attack_keeps_the_contract() -> None:
    assert broken(check.check("attacks", White)) == {}


@dataclass
class Thaws:
    threat: Threat = field(default_factory=Threat)
    tier: str = "strong"
    tiers: ClassVar[Mapping[str, Mapping[str, Any]]] = {"strong": {}}

    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Steps:
        yield Score([()])
        return ()


@dataclass(frozen=True)
class NoGenerator(Tries):
    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Any:
        return ()


@dataclass(frozen=True)
class UnknownSpace(Tries):
    threat: Threat = Threat(spaces=("anything",))


@dataclass(frozen=True)
class TierOfNothing(Tries):
    tiers: ClassVar[Mapping[str, Mapping[str, Any]]] = {"strong": {"depth": 3}}


@dataclass(frozen=True)
class FieldsThatAreNoValues(Tries):
    tool: Any = field(default_factory=object)


@dataclass(frozen=True)
class WeakOnly(Tries):
    tier: str = "weak"
    tiers: ClassVar[Mapping[str, Mapping[str, Any]]] = {"weak": {}}


@dataclass(frozen=True)
class MisnamedTier(Tries):
    tiers: ClassVar[Mapping[str, Mapping[str, Any]]] = {"strong": {}, "paper": {}}


@dataclass(frozen=True)
class AsksInWords(Tries):
    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Steps:
        yield "what would you say to this?"
        return ()


@dataclass(frozen=True)
class ReturnsText(Tries):
    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Steps:
        yield Score([()])
        return sentence.text


@dataclass(frozen=True)
class LeavesTheThreat(Tries):
    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Steps:
        yield Score([()])
        return (Edit("replace", 0, "elephant"),)


@dataclass(frozen=True)
class ForgetsTheBudget(Tries):
    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Steps:
        script: Script = ()
        for word in sentence.candidates(0):
            logits = yield Score([(Edit("replace", 0, word),), ()])
            if logits[1].argmax() != label or logits[0].argmax() != label:  # the second answer may be cut off
                script = (Edit("replace", 0, word),)
        return script


@dataclass(frozen=True)
class NeverBreaks(Tries):
    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Steps:
        yield Score([()])
        return ()


@dataclass(frozen=True)
class GlobalDice(Tries):
    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Steps:
        steps = super().attack(sentence, label, rng)
        sites = [index for index in range(len(sentence.words)) if sentence.candidates(index)]
        if sites:
            site = random.choice(sites)
            yield Score([(Edit("replace", site, random.choice(sentence.candidates(site))),)])
        return (yield from steps)


_seen: list[str] = []


@dataclass(frozen=True)
class Remembers(Tries):
    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Steps:
        _seen.append(sentence.text)
        yield Score([()] * (1 + len(_seen) % 3))
        return (yield from super().attack(sentence, label, rng))


@dataclass(frozen=True)
class WritesInItself(Tries):
    notes: tuple[str, ...] = ()

    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Steps:
        object.__setattr__(self, "notes", (*self.notes[:3], "seen"))
        return (yield from super().attack(sentence, label, rng))


@dataclass(frozen=True)
class NeedsWords(Tries):
    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Steps:
        assert sentence.words[0]
        return (yield from super().attack(sentence, label, rng))


@pytest.mark.parametrize(
    ("cls", "clause", "message"),
    [
        (Thaws, "it has the shape of the noun", "a dataclass with frozen=True"),
        (NoGenerator, "it has the shape of the noun", "no generator method attack"),
        (UnknownSpace, "it has the shape of the noun", "unknown space 'anything'"),
        (TierOfNothing, "it has the shape of the noun", "tiers\\['strong'\\] does not make an attack"),
        (FieldsThatAreNoValues, "it is a value that can be pasted back", "cannot be pasted back"),
        (WeakOnly, "its tiers name themselves, 'strong' among them", "there is no tier 'strong'"),
        (MisnamedTier, "its tiers name themselves, 'strong' among them", "whose tier is 'strong'"),
        (AsksInWords, "it asks questions and returns a script", "not a Score or a Gain"),
        (ReturnsText, "it asks questions and returns a script", "return a tuple of types.Edit"),
        (LeavesTheThreat, "threat and budget are kept", "outside its threat"),
        (ForgetsTheBudget, "threat and budget are kept", "with 1 queries: the attack raised IndexError"),
        (NeverBreaks, "a fragile victim breaks", "broke none of 4 texts"),
        (GlobalDice, "outcomes come from the seed and the text alone", "draw from the rng it is given"),
        (Remembers, "outcomes come from the seed and the text alone", "differ|depends on what was attacked before"),
        (WritesInItself, "attacking changes nothing", "changed the attack itself"),
        (NeedsWords, "odd texts are survived", "on an empty text: the attack raised IndexError"),
    ],
)  # fmt: skip
def test_each_way_to_break_an_attack_is_found(cls: type, clause: str, message: str) -> None:
    found = broken(check.check("attacks", cls))
    assert clause in found, found
    assert re.search(message, found[clause]), found[clause]


def test_an_attack_file_that_imports_torch_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    honest = source[source.index("from __future__") : source.index("def test_an_honest" + "_attack")]
    (tmp_path / "heavy_attack.py").write_text(honest.replace("import pytest", "import torch", 1))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = broken(check.check("attacks", importlib.import_module("heavy_attack").Tries))
    assert list(found) == ["it does not import torch"]
    assert "importing heavy_attack imports torch" in found["it does not import torch"]


# --- the house's own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(registry.names("attacks")))
def test_our_attacks_keep_the_contract(name: str) -> None:
    try:
        findings = check.check("attacks", name)
    except CouldNotMeasure as missing:
        pytest.skip(str(missing))
    assert broken(findings) == {}


def test_what_the_machine_lacks_is_no_verdict(no_data: Path) -> None:
    """A tier that needs a tagger is left out with its reason; the others are checked. (nltk remembers a tagger.)"""
    code = "import json; from grit.bench import check; print(json.dumps(check.as_json(check.check('attacks', 'pwws'))))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    findings = json.loads(ran.stdout)
    assert all(finding["ok"] for finding in findings)
    (left_out,) = [finding for finding in findings if "not checked" in finding["name"]]
    assert left_out["name"] == "tier paper: not checked"
    assert "tagger" in left_out["message"]
