"""What a word of the command line means by a saved row: a run folder, one row of it, or a bundle.

Comparing and gating take rows wherever they lie. A row is found by what its record says, never by a folder's
name: the bytes beside a record are its artefact only if their digest is the one in the record.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grit.bench import experiment, records, submission
from grit.bench.records import Record, Row
from grit.bench.types import CouldNotMeasure, UsageError


@dataclass(frozen=True)
class Operand:
    """One row on disk. ``artefact``: the bytes that were attacked, None where they do not lie beside the record."""

    record: Record
    evidence: records.Evidence | None
    artefact: bytes | None
    place: Path

    @property
    def label(self) -> str:
        """student proposed seed 0"""
        seed = f" seed {self.record.training.seed}" if self.record.training else ""
        return f"{self.record.model.name} {self.record.scheme.name}{seed}"


def rows(operand: str) -> list[Operand]:
    """The rows of a run folder (RUN), one row of it (RUN/model/ROW), or a bundle (a folder, a .tar, a folder of some).

    Raises UsageError where there is no such place, CouldNotMeasure where it holds no row yet.
    """
    path = Path(operand)
    if not path.exists():
        raise UsageError(f"nothing at {operand!r}: name a run folder, RUN/model/ROW, or a bundle")
    if path.is_file() or (path / submission.SUBMISSION).is_file():
        return [_bundled(path)]
    if (path / records.RECORDS).is_file():
        return _of_run(path)
    if (path / experiment.ARTEFACT).is_file() and path.parent.name == "model":
        return _one_of_run(path)
    if bundles := submission.bundles_below(path):
        return [_bundled(place) for place in bundles]
    raise CouldNotMeasure(f"{operand} holds no record and no bundle; 'grit run -o {operand}' writes records there")


def _bundled(path: Path) -> Operand:
    bundle = submission.read_bundle(path)
    record = bundle.submission.record
    return Operand(record, bundle.evidence, bundle.file(submission.ARTEFACT), path)


def _of_run(folder: Path) -> list[Operand]:
    bytes_of = {records.digest(data): data for data in map(records.read, folder.glob(f"model/*/{experiment.ARTEFACT}"))}
    found = [_operand(row, bytes_of, folder) for row in records.read_rows(folder)]
    if not found:
        raise CouldNotMeasure(f"{folder} holds no finished row yet; the same 'grit run' continues it")
    return found


def _one_of_run(home: Path) -> list[Operand]:
    folder, data = home.parent.parent, records.read(home / experiment.ARTEFACT)
    digest = records.digest(data)
    found = [
        _operand(row, {digest: data}, home)
        for row in (records.read_rows(folder) if (folder / records.RECORDS).is_file() else [])
        if row.record.artefact.digest == digest
    ]
    if not found:
        raise CouldNotMeasure(f"{home} was trained and not attacked yet; 'grit run' with its words continues it")
    return found


def _operand(row: Row, bytes_of: dict[str, bytes], place: Path) -> Operand:
    return Operand(row.record, row.evidence, bytes_of.get(row.record.artefact.digest), place)


def paired(first: list[Operand], second: list[Operand]) -> list[tuple[Operand, Operand]]:
    """Rows that answer to each other: the only two, or those of one model, scheme and seed.

    Raises CouldNotMeasure where a row of ``first`` has no counterpart, UsageError where it has several.
    """
    if len(first) == len(second) == 1:
        return [(first[0], second[0])]
    pairs = []
    for one in first:
        others = [other for other in second if other.label == one.label]
        if len(others) > 1:
            raise UsageError(
                f"{len(others)} rows are called {one.label!r} in {others[0].place}: name one, RUN/model/ROW"
            )
        if not others:
            raise CouldNotMeasure(
                f"no row {one.label!r} in {second[0].place}, which has {', '.join(other.label for other in second)}"
            )
        pairs.append((one, others[0]))
    return pairs


def artefacts(operand: str) -> dict[str, bytes]:
    """Label -> deployed bytes of every row there, attacked or only trained."""
    path = Path(operand)
    home = path if (path / experiment.ARTEFACT).is_file() and path.parent.name == "model" else None
    folder = home.parent.parent if home else path
    if not (folder / experiment.CONFIG).is_file():
        return _named(operand, [(row.label, row.artefact) for row in rows(operand) if row.artefact is not None])
    found = []
    for plan in experiment.rows(experiment.from_config(folder)):
        file = experiment.Folder(folder).model(plan.name) / experiment.ARTEFACT
        if file.is_file() and home in (None, file.parent):
            found.append((f"{plan.model} {plan.scheme.name} seed {plan.seed}", records.read(file)))
    if not found:
        raise CouldNotMeasure(f"{operand} holds no exported row yet; the same 'grit run' or 'grit train' continues it")
    return _named(operand, found)


def _named(operand: str, found: list[tuple[str, bytes]]) -> dict[str, bytes]:
    """Label -> bytes. Two rows of one label, as of two configurations of a model, cannot answer for each other."""
    table = dict(found)
    if len(table) != len(found):
        labels = [label for label, _ in found]
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UsageError(f"{labels.count(twice)} rows are called {twice!r} in {operand}: name one, RUN/model/ROW")
    return table
