"""Every seed of a row, kept beside the bundle of one: a line each in seeds.jsonl.

A bundle holds evidence and weights, and one seed of a row is enough of them. Of every seed the record is kept, and
two bits an example: was it right, and did it stand. So schemes are compared over the same examples and the same
seeds, which counts alone could not tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from grit.bench import leaderboard, records
from grit.bench.records import Evidence, Record, Row
from grit.bench.types import CouldNotMeasure, MalformedInput, UsageError

if TYPE_CHECKING:
    from grit.bench.statistics import Interval

SEEDS = "seeds.jsonl"


class Kept(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One seed of one row; bits are hexadecimal, an example each in the order of ids, the last ones padding."""

    record: Record
    right: str
    robust: str

    @property
    def seed(self) -> int:
        return self.record.training.seed if self.record.training else -1

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What was asked for: of two with one key the newer is kept. Seeds differ in the last part alone."""
        record, training = self.record, self.record.training
        trained = (training.recipe, training.revision, training.n_train) if training else ()
        attacks = [(each.name, each.parameters_sha256, each.lexicon_sha256) for each in record.attacks]
        asked = (trained, record.scheme.terms, record.data.revision, record.data.split, record.data.n, attacks)
        return record.model.repr, record.scheme.name, records.encode(asked).decode(), self.seed


class Scheme(NamedTuple):
    """One model under one scheme: its seeds, and for each question bits [seeds examples]."""

    model: str
    name: str
    seeds: tuple[int, ...]
    right: np.ndarray
    robust: np.ndarray
    minutes: tuple[float | None, ...] = ()  # of training, by the clock, a seed each; None: not timed


class Difference(NamedTuple):
    mean: float
    interval: Interval


def keep(rows: Iterable[Row], folder: Path) -> int:
    """Adds rows to the folder's file, which is written anew in the order of its keys; how many it then holds.

    Raises CouldNotMeasure for a row without its evidence, UsageError for a rung of a ladder, MalformedInput for a
    file that is none.
    """
    file = folder / SEEDS
    held = {each.key: each for each in (read(file) if file.is_file() else [])}
    for row in rows:
        made = _kept(row)
        held[made.key] = made
    lines = [msgspec.json.encode(held[key]) for key in sorted(held)]
    records.write(file, b"".join(line + b"\n" for line in lines))
    return len(lines)


def _kept(row: Row) -> Kept:
    name = f"{row.record.model.name} {row.record.scheme.name}"
    if row.record.steps:
        raise UsageError(f"{name} is a rung of a ladder, which is no seed of a row; give the run that it was made from")
    if row.evidence is None:
        raise CouldNotMeasure(f"{name}: its evidence is not beside it or was changed; give the run folder that made it")
    ids = sorted(line.id for line in row.evidence.clean)
    # The command line may hold local paths.
    record = msgspec.structs.replace(row.record, run=msgspec.structs.replace(row.record.run, command=""))
    return Kept(record=record, right=_bits(_right(row.evidence), ids), robust=_bits(row.evidence.robust(), ids))


def _right(evidence: Evidence) -> dict[str, bool]:
    return {line.id: line.right for line in evidence.clean}


def _bits(holds: dict[str, bool], ids: Sequence[str]) -> str:
    return np.packbits([holds[id] for id in ids]).tobytes().hex()


def read(file: Path) -> list[Kept]:
    """Raises MalformedInput for a line that is no row, or whose bits do not add up to its counts."""
    found = []
    for at, line in enumerate(records.read(file).splitlines(), 1):
        try:
            kept = msgspec.json.decode(line, type=Kept)
            bits = [_unpacked(each, kept.record.clean.n) for each in (kept.right, kept.robust)]
        except (msgspec.MsgspecError, ValueError) as error:
            raise MalformedInput(f"{file}, line {at}: {error}; 'grit pack RUN --records' writes it") from error
        if [int(each.sum()) for each in bits] != [kept.record.clean.k, kept.record.worst.low]:
            raise MalformedInput(f"{file}, line {at}: the bits of its examples do not add up to its counts")
        found.append(kept)
    return found


def _unpacked(bits: str, n: int) -> np.ndarray:
    """bool [examples]"""
    packed = np.frombuffer(bytes.fromhex(bits), np.uint8)
    if len(packed) != -(-n // 8):
        raise ValueError(f"{len(packed)} bytes of bits for {n} examples")
    return np.unpackbits(packed, count=n).astype(bool)


# --- the table ---------------------------------------------------------------------------------------

_HEADINGS = (
    "Model",
    "Scheme",
    "Seeds",
    "Clean",
    "By seed",
    "Worst case",
    "By seed",
    "Behind, clean",
    "Behind, worst case",
    "Training, min",
)
_BELOW = """\
- Behind: by how many points the scheme with the model's best worst case is above this one, over the seeds that both
  have; 95 % by a paired bootstrap over the examples. What a seed does is seen beside it.
- Training, min: minutes by the clock, a seed each, on one thread of {machines}; other work may have
  run beside it. The first student of a run also waits for its teacher's lessons; training the teacher is not counted.
"""


def markdown(kept: Sequence[Kept]) -> str:
    """A table for each data set: means over seeds, each seed's value, and the distance to the model's best scheme."""
    by_digest = {records.row_digest(each.record): each for each in kept}
    blocks = []
    for section in leaderboard.board(Row(each.record, None) for each in kept):
        found = schemes(section, by_digest)
        best = {each.model: each for each in reversed(found)}
        rows = [_cells(each, best[each.model]) for each in found]
        lines = [_HEADINGS, ("---", "---", *["---:"] * (len(_HEADINGS) - 2)), *rows]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        below = _BELOW.format(machines=_machines(by_digest[records.row_digest(line.record)] for line in section.lines))
        blocks.append(f"## {leaderboard.escaped(section.title)}, over seeds\n\nIn %.\n\n{table}\n\n{below}")
    return "\n".join(blocks)


def _machines(kept: Iterable[Kept]) -> str:
    """``a processor (2 cores)`` for each that trained a row; ``an unknown machine`` where no record says."""
    found = (each.record.run.machine for each in kept)
    named = {f"{facts['cpu']} ({facts['cores']} cores)" for facts in found if {"cpu", "cores"} <= facts.keys()}
    return leaderboard.escaped(", ".join(sorted(named)) or "an unknown machine")


def schemes(section: leaderboard.Section, by_digest: Mapping[str, Kept]) -> list[Scheme]:
    """Model by model, the best mean worst case first."""
    groups: dict[tuple[str, ...], list[Kept]] = {}
    for line in section.lines:
        kept = by_digest[records.row_digest(line.record)]
        groups.setdefault((line.model, *kept.key[:3]), []).append(kept)
    found = []
    for (model, _, name, _), members in groups.items():
        members.sort(key=lambda kept: kept.key)
        right = np.stack([_unpacked(kept.right, section.data.n) for kept in members])
        robust = np.stack([_unpacked(kept.robust, section.data.n) for kept in members])
        spent = (kept.record.run.seconds.get("train") for kept in members)
        minutes = tuple(None if seconds is None else seconds / 60 for seconds in spent)
        found.append(Scheme(model, name, tuple(kept.seed for kept in members), right, robust, minutes))
    return sorted(found, key=lambda each: (each.model, -each.robust.mean(), each.name))


def difference(scheme: Scheme, best: Scheme, *, robust: bool) -> Difference | None:
    """How far ``best`` is above, over the seeds that both have; None where there are none."""
    from grit.bench.statistics import paired_bootstrap

    common = set(scheme.seeds) & set(best.seeds)
    if not common:
        return None
    above, below = (
        (each.robust if robust else each.right)[[seed in common for seed in each.seeds]].mean(0)
        for each in (best, scheme)
    )
    return Difference(float((above - below).mean()), paired_bootstrap(above, below))


def _cells(scheme: Scheme, best: Scheme) -> list[str]:
    cells = [scheme.model, scheme.name, ", ".join(map(str, scheme.seeds))]
    for bits in (scheme.right, scheme.robust):
        cells += [f"{100 * bits.mean():.1f}", " / ".join(f"{100 * share:.1f}" for share in bits.mean(1))]
    for robust in (False, True):
        behind = None if scheme is best else difference(scheme, best, robust=robust)
        cells.append(f"{100 * behind.mean:.1f} {leaderboard.percent_interval(behind.interval)}" if behind else "-")
    cells.append(" / ".join("-" if minutes is None else f"{minutes:.1f}" for minutes in scheme.minutes))
    return [leaderboard.escaped(cell) for cell in cells]
