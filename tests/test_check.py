"""The contract of models: the house's own keep it, and each way to break it is found and named in words."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from grit.bench import check, registry, text
from grit.bench.check import Finding
from grit.bench.types import Dense, Mean, Program, Reading, Recipe, Rows, UsageError


def broken(findings: Sequence[Finding]) -> dict[str, str]:
    return {finding.name: finding.message for finding in findings if not finding.ok}


# --- the house's own ------------------------------------------------------------------------------------


# A transformer is nothing without its source: tests/test_transformer.py makes one and holds it to the same contract.
@pytest.mark.parametrize("name", sorted(registry.names("models").keys() - {"transformer"}))
def test_our_models_keep_the_contract(name: str) -> None:
    assert broken(check.check("models", name)) == {}


# --- a small honest model, and what can be wrong with it ----------------------------------------------------


class Honest(nn.Module):
    """The mean of the word embeddings, and a linear layer."""

    @dataclass(frozen=True)
    class Config:
        width: int = 4
        max_tokens: int = 50
        shape: tuple[int, ...] = (1, 2)

    recipe: ClassVar[Recipe] = Recipe()
    separable: ClassVar[bool] = True

    def __init__(self, config: Any, vocabulary: tuple[str, ...], classes: int) -> None:
        super().__init__()
        self.config, self.vocabulary, self.classes = config, vocabulary, classes
        self.max_tokens = config.max_tokens
        self.rows = {word: row for row, word in enumerate(vocabulary)}
        self.table = nn.Parameter(torch.zeros(len(vocabulary), config.width))
        self.weight = nn.Parameter(torch.zeros(classes, config.width))
        self.bias = nn.Parameter(torch.zeros(classes))

    @classmethod
    def build(cls, config: Any, texts: Sequence[str], classes: int, seed: int) -> Any:
        words = sorted({token for raw in texts for token in text.tokenize(raw)})
        model = cls(config, ("", *words), classes)
        generator = torch.Generator().manual_seed(seed)
        for weight in (model.table, model.weight):
            nn.init.normal_(weight, generator=generator)
        return model

    def tokenize(self, raw: str) -> list[str]:
        return text.tokenize(raw)

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        return np.array([self.rows.get(token, 0) for token in tokens], np.int64)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(codes, self.table)

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        inside = (torch.arange(features.shape[1]) < lengths[:, None])[:, :, None]
        return Reading(features, (features * inside).sum(1) / lengths[:, None])

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return state @ self.weight.T + self.bias

    def constrain(self, progress: float) -> None: ...

    def program(self) -> Program | None:
        table, weight, bias = (p.detach().numpy().copy() for p in (self.table, self.weight, self.bias))
        return Program(Rows(table), Mean(), Dense(weight, bias), self.vocabulary, self.max_tokens)


def test_an_honest_model_keeps_the_contract() -> None:
    findings = check.check("models", Honest)
    assert broken(findings) == {}
    assert len(findings) == 11


class Traced(Honest):
    def program(self) -> Program | None:
        return None


def test_a_model_without_a_program_is_exported_by_tracing() -> None:
    assert broken(check.check("models", Traced)) == {}


class ConfigThatChanges(Honest):
    @dataclass
    class Config(Honest.Config.__mro__[-1]):  # type: ignore[misc]  # a plain class
        width: int = 4
        max_tokens: int = 50


class ConfigOfObjects(Honest):
    @dataclass(frozen=True)
    class Config:
        width: int = 4
        max_tokens: int = 50
        device: Any = field(default_factory=object)


class ConfigOfSets(Honest):
    @dataclass(frozen=True)
    class Config:
        width: int = 4
        max_tokens: int = 50
        places: Any = frozenset({1})


class GlobalSeed(Honest):
    @classmethod
    def build(cls, config: Any, texts: Sequence[str], classes: int, seed: int) -> Any:
        model = super().build(config, texts, classes, seed)
        nn.init.normal_(model.weight)
        return model


class WrongClasses(Honest):
    @classmethod
    def build(cls, config: Any, texts: Sequence[str], classes: int, seed: int) -> Any:
        model = super().build(config, texts, classes, seed)
        model.vocabulary = model.vocabulary[1:]
        return model


class LooksAcrossBlanks(Honest):
    def tokenize(self, raw: str) -> list[str]:
        return text.ngrams(text.tokenize(raw), 2)


class TokensOfBytes(Honest):
    def tokenize(self, raw: str) -> Any:
        return raw.encode("utf-8", "replace").split()


class AfraidOfEmptiness(Honest):
    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        return super().codes([token for token in tokens if token])


class FailsOnEmoji(Honest):
    def tokenize(self, raw: str) -> list[str]:
        raw.encode("latin-1")
        return text.tokenize(raw)


class NotANumber(Honest):
    def head(self, state: torch.Tensor) -> torch.Tensor:
        return (state @ self.weight.T + self.bias) / (state.sum(1, keepdim=True) != 0)


class ReadsPadding(Honest):
    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        return Reading(features, features.mean(1))


class LooksAtTheBatch(Honest):
    def head(self, state: torch.Tensor) -> torch.Tensor:
        return super().head(state - state.mean(0))


class Detached(Honest):
    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        return super().read(features.detach() + 0 * features, lengths)


class NoReading(Honest):
    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Any:
        return super().read(features, lengths).state


class HeadNeverTrained(Honest):
    """The trap of a well-known trainer: the last layer stays as it was drawn."""

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return state @ self.weight.detach().T + self.bias


class PutsWeightsBack(Honest):
    def constrain(self, progress: float) -> None:
        with torch.no_grad():
            for name, weight in self.named_parameters():
                weight.copy_(self.__dict__.setdefault("_kept", {}).get(name, weight * 0))

    @classmethod
    def build(cls, config: Any, texts: Sequence[str], classes: int, seed: int) -> Any:
        model = super().build(config, texts, classes, seed)
        model.__dict__["_kept"] = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        return model


class KeepsItsScaleToItself(Honest):
    scale = 1.0

    @classmethod
    def build(cls, config: Any, texts: Sequence[str], classes: int, seed: int) -> Any:
        model = super().build(config, texts, classes, seed)
        model.scale = 2.0
        return model

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return self.scale * super().head(state)

    def program(self) -> Program | None:
        return None


class ForgetsItsBias(Honest):
    def program(self) -> Program | None:
        program = super().program()
        assert program is not None
        head = Dense(program.head.weight, program.head.bias + 1)
        return Program(program.words, program.body, head, program.vocabulary, program.max_tokens)


class CutsOtherwise(Honest):
    """Cuts at blanks alone; what is exported would cut at punctuation too."""

    def tokenize(self, raw: str) -> list[str]:
        return raw.split()


@pytest.mark.parametrize(
    ("cls", "clause", "message"),
    [
        (ConfigThatChanges, "it has the shape of the noun", "frozen=True"),
        (ConfigOfObjects, "its configuration is a value that can be pasted back", "cannot be pasted back"),
        (ConfigOfSets, "its configuration is a value that can be pasted back", "JSON cannot hold"),
        (GlobalSeed, "its weights come from the seed alone", "weight differs between two builds with the same seed"),
        (WrongClasses, "its attributes say what it is", "row 0 of a vocabulary is the unknown word"),
        (LooksAcrossBlanks, "its tokens are separable, or it says they are not", "do not look across white space"),
        (TokensOfBytes, "its tokens are separable, or it says they are not", "must give a list of strings"),
        (AfraidOfEmptiness, "any text has finite logits", "an empty text"),
        (FailsOnEmoji, "any text has finite logits", "emoji raised UnicodeEncodeError"),
        (ReadsPadding, "logits of a text do not depend on its batch", "mask what lies behind its length"),
        (LooksAtTheBatch, "logits of a text do not depend on its batch", "no statistics of the batch"),
        (Detached, "gradients reach the features", "is zero for a text"),
        (NoReading, "gradients reach the features", "read must give a types.Reading, got Tensor"),
        (HeadNeverTrained, "training changes the weights, all of them reached", "no gradient reaches weight"),
        (PutsWeightsBack, "training changes the weights, all of them reached", "check that constrain does not put"),
        (KeepsItsScaleToItself, "saving and loading keep every bit", "parameters, buffers, config or vocabulary"),
        (ForgetsItsBias, "what is exported answers as the model does", r"logits of program\(\) differ"),
        (CutsOtherwise, "what is exported answers as the model does", "into other tokens than the model does"),
    ],
)  # fmt: skip
def test_each_way_to_break_a_model_is_found(cls: type, clause: str, message: str) -> None:
    found = broken(check.check("models", cls))
    assert clause in found
    assert re.search(message, found[clause]), found[clause]
    assert all("\n" not in line for line in found.values())


def test_logits_that_are_no_numbers_are_found() -> None:
    class Divides(Honest):
        def head(self, state: torch.Tensor) -> torch.Tensor:
            return super().head(state) / (state[:, :1] * 0)

    assert "first training step is nan" in broken(check.check("models", Divides))["any text has finite logits"]


def test_what_is_no_model_at_all_gets_one_finding() -> None:
    for cls, message in ((int, "no class of torch.nn.Module"), (nn.Linear, "the class has no 'Config'")):
        (finding,) = check.check("models", cls)
        assert not finding.ok and message in finding.message


# --- names, kinds, and how findings are shown -------------------------------------------------------------


def test_only_models_and_attacks_have_a_contract() -> None:
    with pytest.raises(UsageError, match="unknown kind with a contract 'targets': there is one for models and attacks"):
        check.check("targets", "local")


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown model or attack 'pwsw': did you mean 'pwws'\?"):
        check.check_name("pwsw")


def test_findings_are_shown_in_words_and_as_json() -> None:
    findings = [Finding("one", True), Finding("two", False, "it broke; mend it"), Finding("three", True, "not checked")]
    assert check.render(findings) == "ok    one\nFAIL  two: it broke; mend it\nok    three: not checked\n1 of 3 broken"
    assert check.render(findings[:1]) == "ok    one\nall 1 kept"
    assert check.as_json(findings)[1] == {"name": "two", "ok": False, "message": "it broke; mend it"}


def test_whatever_a_class_raises_is_a_finding_with_its_place() -> None:
    class Surprise(Honest):
        def head(self, state: torch.Tensor) -> torch.Tensor:
            raise KeyError("surprise")

    found = broken(check.check("models", Surprise))
    assert "KeyError: 'surprise'" in found["gradients reach the features"]
    assert "test_check.py:" in found["gradients reach the features"]


def test_the_command_line_says_ok_or_what_broke_and_needs_no_torch_for_an_attack() -> None:
    code = (
        "import sys\nfrom grit.bench.cli import main\n"
        "try:\n    main(['check', 'random_search'])\n"
        "except SystemExit as left:\n    print(left.code, 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = ran.stdout.splitlines()
    assert lines[0] == "ok    it has the shape of the noun"
    assert lines[-2:] == ["all 10 kept", "0 False"]
