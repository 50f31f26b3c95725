"""What steps hand on: a program on its way to its bytes, and the training that a step may go on with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from grit.bench import text
from grit.bench.export import packing, words
from grit.bench.export.quantise import quantise
from grit.bench.types import (
    AttentionPool,
    Dataset,
    Mean,
    Model,
    Program,
    Recipe,
    Rows,
    Scheme,
    UsageError,
)

if TYPE_CHECKING:
    from grit.bench.train import Epoch

Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class Draft:
    """A program on its way to its bytes.

    forms: shipping forms (:mod:`grit.bench.export.forms`) that its arrays may take. facts: what each step did, by
    its name, for the record.
    """

    program: Program
    precision: Precision = "int8"
    forms: tuple[str, ...] = ()
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def noted(self, step: str, **facts: Any) -> Draft:
        """The same draft with what a step did."""
        return dataclasses.replace(self, facts={**self.facts, step: facts})

    def shipped_as(self, form: str) -> Draft:
        """The same draft with one more form allowed."""
        return dataclasses.replace(self, forms=tuple(sorted({*self.forms, form})))

    def deployed(self, texts: Sequence[str]) -> bytes:
        """The bytes that ship; ``texts`` of the training split set the ranges of int8 activations."""
        program = quantise(self.program, texts) if self.precision == "int8" else self.program
        return packing.pack(program, self.forms)


@dataclass(frozen=True)
class Course:
    """How the row that is compressed was trained, for steps that look at its texts or train on."""

    model: type[Model]
    config: Any
    recipe: Recipe
    scheme: Scheme
    dataset: Dataset
    seed: int
    teacher: Model | None = None
    cache: Path | None = None  # folder of the teacher's answers
    folder: Path | None = None  # for the checkpoints of what trains: a step has one below it, under its key
    progress: Callable[[Epoch], None] | None = None  # is told each epoch of a step that trains


class Step(Protocol):
    """A frozen dataclass whose fields are its settings."""

    def compress(self, draft: Draft, course: Course) -> Draft:
        """The next draft. Raises UsageError where the step cannot apply to the program."""
        ...


# --- programs, array by array -------------------------------------------------------------------------------


def mapped(program: Program, change: Callable[[str, np.ndarray], np.ndarray]) -> Program:
    """The program with each array replaced by ``change(path, array)``; paths are those of a program file."""
    found: Program = _mapped(program, "", change)
    return found


def _mapped(value: Any, path: str, change: Callable[[str, np.ndarray], np.ndarray]) -> Any:
    below = f"{path}." if path else ""
    if isinstance(value, np.ndarray):
        return change(path, value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {
            each.name: getattr(value, each.name) for each in dataclasses.fields(value) if each.name != "vocabulary"
        }
        return dataclasses.replace(value, **{name: _mapped(part, below + name, change) for name, part in parts.items()})
    if isinstance(value, tuple):
        return tuple(_mapped(part, f"{below}{number}", change) for number, part in enumerate(value))
    return value


def arrays(program: Program) -> dict[str, np.ndarray]:
    """path -> array, in the order of the program's fields."""
    found: dict[str, np.ndarray] = {}

    def note(path: str, array: np.ndarray) -> np.ndarray:
        found[path] = array
        return array

    mapped(program, note)
    return found


def table_of(program: Program, step: str, *, hashed: bool = True) -> np.ndarray:
    """The word table [rows feat]. UsageError for a program without one, or one that hashes where that will not do."""
    if not isinstance(program.words, Rows):
        raise UsageError(f"{step} needs a word table, and this model projects its words by a hash: leave the step out")
    if program.words.ngrams and not hashed:
        raise UsageError(f"{step} needs a vocabulary, and this model hashes its words into rows: leave the step out")
    return program.words.table


def with_table(program: Program, table: np.ndarray, vocabulary: tuple[str, ...] | None = None) -> Program:
    """The program over another word table, and its vocabulary if that changes too."""
    assert isinstance(program.words, Rows)
    layer = dataclasses.replace(program.words, table=np.ascontiguousarray(table, np.float32))
    return dataclasses.replace(
        program, words=layer, vocabulary=program.vocabulary if vocabulary is None else vocabulary
    )


def input_weight(program: Program) -> np.ndarray:
    """What reads the words first, as one matrix [out feat]."""
    match program.body:
        case Mean():
            return program.head.weight
        case AttentionPool(value, attention):
            return np.concatenate([value.weight, attention.weight])
        case body:
            return body.input_weight


def with_input_weight(program: Program, weight: np.ndarray) -> Program:
    """The program whose words are read by another matrix [out feat], of any width."""
    weight = np.ascontiguousarray(weight, np.float32)
    match program.body:
        case Mean():
            return dataclasses.replace(program, head=dataclasses.replace(program.head, weight=weight))
        case AttentionPool(value, attention) as pool:
            cut = len(value.weight)
            wider = dataclasses.replace(
                pool,
                value=dataclasses.replace(value, weight=weight[:cut]),
                attention=dataclasses.replace(attention, weight=weight[cut:]),
            )
            return dataclasses.replace(program, body=wider)
        case body:
            return dataclasses.replace(program, body=dataclasses.replace(body, input_weight=weight))


def counts(program: Program, dataset: Dataset) -> np.ndarray:
    """How often the training texts read each row of the word table, int64 [rows]; row 0 is any unknown word."""
    table = table_of(program, "a count of words")
    reader = words.of(program.words, program.vocabulary)
    found = np.zeros(len(table), np.int64)
    for example in dataset.train:
        tokens = reader.tokenize(text.normalise(example.text))[: program.max_tokens]
        np.add.at(found, reader.intern(tokens), 1)
    return found
