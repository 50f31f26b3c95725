"""The compression ladder: steps that make a trained program smaller, one a file, and what each costs in robustness.

A step takes a :class:`~grit.bench.compress._draft.Draft`, a float program on its way to its bytes, and gives another.
It knows layers, not models, so every model that has a program can be compressed, a stranger's too. Steps are chained
with ``+`` to a rung, as in ``vocabulary[share=0.25]+products``; what a rung ends as is attacked, measured and put on
the board like any trained row.

A rung lies in a run folder as a row does, ``model/ROW/``: its deployed bytes, the float program that they were made
from (the twin that gradients are taken of) and what was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from grit.bench import records
from grit.bench.compress._draft import Course as Course
from grit.bench.compress._draft import Draft as Draft
from grit.bench.compress._draft import Precision
from grit.bench.compress._rung import Rung as Rung
from grit.bench.compress._rung import parse as parse
from grit.bench.export import packing
from grit.bench.types import MalformedInput, Model, Program, UsageError

if TYPE_CHECKING:
    from grit.bench.records import CompressionPart

TWIN = "twin.safetensors"
MADE = "compression.json"


class Made(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What compression.json says of a rung; it is written last, so that it marks a whole one."""

    part: records.CompressionPart
    precision: Precision
    code: records.Sha256  # of the steps' code


def make(
    rung: Rung, program: Program, course: Course, texts: Sequence[str], source: str, files: dict[str, bytes]
) -> dict[str, bytes]:
    """The files of a rung: name -> bytes, compression.json last.

    texts: of the training split, set the ranges of int8. source: digest of the deployed bytes of the row that is
    compressed. files: what a row keeps beside them, taken over.
    """
    draft = rung.climbed(Draft(program), course)
    made = Made(part=part(rung, source, draft), precision=draft.precision, code=rung.code)
    artefact = draft.deployed(texts)
    return {
        **files,
        "artefact.safetensors": artefact,
        TWIN: packing.pack(draft.program),
        MADE: records.encode(made) + b"\n",
    }


def part(rung: Rung, source: str, draft: Draft | None = None) -> CompressionPart:
    """What a record says of a rung; without a draft, before anything was done."""
    return records.CompressionPart(
        name=rung.name,
        steps=tuple(records.StepPart(step=key, options=records.plain(step)) for key, step in rung.steps),
        facts={key: dict(facts) for key, facts in draft.facts.items()} if draft else {},
        source=source,
    )


def made(home: Path) -> Made | None:
    """What was done to the row in a folder; None for one as it was trained."""
    file = home / MADE
    if not file.is_file():
        return None
    return records.decoded(records.read(file), Made, str(file))


def is_made(home: Path, rung: Rung, source: str) -> bool:
    """Whether a folder holds this very rung already. UsageError where it holds another of its name."""
    found = made(home)
    if found is None:
        return False
    asked = Made(part=part(rung, source), precision=found.precision, code=rung.code)
    if msgspec.structs.replace(found, part=msgspec.structs.replace(found.part, facts={})) != asked:
        raise UsageError(f"{home} was made from another row or by other code of its steps; give another folder with -o")
    return True


def twin(data: bytes) -> Model:
    """The torch model of a float program's file."""
    from grit.bench.compress._network import Network

    return cast(Model, Network(twin_program(data)).eval())


def twin_program(data: bytes) -> Program:
    """The float program in a file, for those who need no gradients. Raises MalformedInput."""
    program = packing.unpack(data)
    if not isinstance(program, Program):
        raise MalformedInput("a twin is a program of floats, got one of integers; make the rung again")
    return program
