"""What a study of personalization leaves on disk: counts a user, one line a row, everything of one run apart.

As in :mod:`grit.bench.records`, two runs of one command write the same bytes but for the ``run`` part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct

from grit.bench import records
from grit.bench.records import Fields, Natural, Ratio, Sha256
from grit.bench.types import MalformedInput

FILE = "personal.jsonl"


class AttackedPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Counts over some of a user's held-out texts, on the personal artefact."""

    n: Natural
    clean: Natural
    robust: Natural
    minority: Natural
    minority_attacked: Natural
    minority_broken: Natural


class UserPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One test user. ``right`` of ``n`` held-out texts after, ``before`` with the global model.

    probe: the global test texts; ``probe_right`` after, ``probe_before`` with the global model, ``probe_same`` the
    same label, ``probability_loyalty`` 1 - sqrt(JS). words: read by the user, moved in the update, and both.
    """

    user: str
    n: Natural
    right: Natural
    before: Natural
    probe_n: Natural = 0
    probe_right: Natural = 0
    probe_before: Natural = 0
    probe_same: Natural = 0
    probability_loyalty: Ratio | None = None
    membership_auc: Ratio | None = None
    words_read: Natural = 0
    words_moved: Natural = 0
    words_recovered: Natural = 0
    update_bytes: Natural = 0
    attacked: AttackedPart | None = None


class ChoicePart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the validation users of one fold chose."""

    fold: str
    rate: float
    epoch: Natural
    score: Ratio
    users: Natural


class Row(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="schema_version", tag=1):
    """One arm at one number of examples and one seed, over all test users."""

    dataset: str
    revision: Sha256
    model: str
    config: Fields
    recipe: Fields
    scheme: str
    start: str
    arm: str
    k: Natural
    seed: int
    training: Fields  # of the copies: epochs at most, batch
    attacks: tuple[str, ...]
    choices: tuple[ChoicePart, ...]
    users: tuple[UserPart, ...]
    cost: tuple[records.CostPart, ...] = ()  # of learning on a device: counts, the same on every machine
    notes: tuple[str, ...] = ()  # why something was not measured

    @property
    def key(self) -> tuple[Any, ...]:
        """What a row is of: all but what was found."""
        return (self.dataset, self.model, self.scheme, self.start, self.arm, self.k, self.seed)


class Document(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A row, and everything in which two runs of one command may differ."""

    row: Row
    run: records.RunPart


def write(path: Path, documents: list[Document]) -> None:
    records.write(path, b"".join(records.encode(document) + b"\n" for document in documents))


def read(path: Path) -> list[Document]:
    """Raises MalformedInput for anything that :func:`write` did not write, StorageError where nothing can be read."""
    lines = records.read(path).split(b"\n")
    if lines.pop():
        raise MalformedInput(f"{path}: the last line is cut off; repeat the command that wrote it")
    return [records.decoded(line, Document, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def joined(rows: list[Row]) -> list[Row]:
    """Rows of the folds of one study put together: their users side by side."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        old = found.get(row.key)
        found[row.key] = row if old is None else _both(old, row)
    return list(found.values())


def _both(one: Row, other: Row) -> Row:
    import msgspec

    return msgspec.structs.replace(
        one,
        revision=records.digest(f"{one.revision}{other.revision}".encode()),
        choices=(*one.choices, *other.choices),
        users=(*one.users, *other.users),
        cost=one.cost or other.cost,
        notes=tuple(dict.fromkeys((*one.notes, *other.notes))),
    )
