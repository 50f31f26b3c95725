"""What a study of personalization leaves on disk: counts a user, one line a row, everything of one run apart.

As in :mod:`grit.bench.records`, two runs of one command write the same bytes but for the ``run`` part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from grit.bench import records
from grit.bench.records import Fields, Natural, Ratio, Sha256
from grit.bench.types import MalformedInput

FILE = "personal.jsonl"
PACKED = f"{FILE}.gz"  # for what is committed


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
    """``path`` ends as :data:`FILE` or :data:`PACKED`."""
    lines = b"".join(records.encode(document) + b"\n" for document in documents)
    records.write(path, records.compress(lines) if path.suffix == ".gz" else lines)


def read(path: Path) -> list[Document]:
    """Raises MalformedInput for anything that :func:`write` did not write, StorageError where nothing can be read."""
    content = records.read(path)
    lines = (records.decompress(content, str(path)) if path.suffix == ".gz" else content).split(b"\n")
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


def together(rows: Sequence[Row]) -> Row:
    """Rows of the seeds of one question put together: every user once, with the counts of all seeds.

    An interval over users is then one over people, and no text counts as new because it was asked again. The row keeps
    the first seed. Users that a seed lacks are left out.
    """
    by_user = [{each.user: each for each in row.users} for row in rows]
    names = [user for user in by_user[0] if all(user in people for people in by_user)]
    return msgspec.structs.replace(
        rows[0],
        choices=tuple(choice for row in rows for choice in row.choices),
        users=tuple(_one_user([people[name] for people in by_user]) for name in names),
        notes=tuple(dict.fromkeys(note for row in rows for note in row.notes)),
    )


def asked(row: Row) -> int:
    """How often each text was asked: once a seed, and every seed leaves a choice a fold."""
    return max(Counter(choice.fold for choice in row.choices).values(), default=1)


_COUNTS = (
    *("n", "right", "before", "probe_n", "probe_right", "probe_before", "probe_same"),
    *("words_read", "words_moved", "words_recovered"),
)


def _one_user(parts: list[UserPart]) -> UserPart:
    attacked = [part.attacked for part in parts if part.attacked is not None]
    return UserPart(
        user=parts[0].user,
        **{name: sum(getattr(part, name) for part in parts) for name in _COUNTS},
        probability_loyalty=_mean([part.probability_loyalty for part in parts]),
        membership_auc=_mean([part.membership_auc for part in parts]),
        update_bytes=max(part.update_bytes for part in parts),
        attacked=AttackedPart(
            **{name: sum(getattr(part, name) for part in attacked) for name in AttackedPart.__struct_fields__}
        )
        if len(attacked) == len(parts)
        else None,
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def below(folders: Iterable[Path]) -> list[Row]:
    """The rows of every such file in or below folders, plain or packed; a row found twice counts once."""
    files = [file for folder in folders if folder.is_dir() for name in (FILE, PACKED) for file in folder.rglob(name)]
    found: dict[bytes, Row] = {}
    for document in (document for file in sorted(files) for document in read(file)):
        found.setdefault(records.encode(document.row), document.row)
    return list(found.values())


def _both(one: Row, other: Row) -> Row:
    return msgspec.structs.replace(
        one,
        revision=records.digest(f"{one.revision}{other.revision}".encode()),
        choices=(*one.choices, *other.choices),
        users=(*one.users, *other.users),
        cost=one.cost or other.cost,
        notes=tuple(dict.fromkeys((*one.notes, *other.notes))),
    )
