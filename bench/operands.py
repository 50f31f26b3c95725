"""What a word of the command line means: by a saved row, and by a model that comes without its run.

Comparing and gating take rows wherever they lie: a run folder, one row of it, or a bundle. A row is found by what its
record says, never by a folder's name: the bytes beside a record are its artefact only if their digest is the one in
the record. Attacking takes whatever answers texts: beside rows, a bundle, an exported artefact, a function.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, UnsetType

from grit.bench import experiment, records, submission
from grit.bench.export import packing
from grit.bench.records import Record, Row
from grit.bench.types import Artefact, CouldNotMeasure, UsageError

if TYPE_CHECKING:
    from grit.bench.submission import Bundle
    from grit.bench.victim import Respondent


@dataclass(frozen=True)
class Operand:
    """One row on disk. ``artefact``: the bytes that were attacked, None where they do not lie beside the record."""

    record: Record
    evidence: records.Evidence | None
    artefact: bytes | None
    place: Path

    @property
    def label(self) -> str:
        """student proposed seed 0; of a compressed row its steps, too"""
        seed = f" seed {self.record.training.seed}" if self.record.training else ""
        steps = f" {self.record.steps}" if self.record.steps else ""
        return f"{self.record.model.name} {self.record.scheme.name}{seed}{steps}"


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


# --- models that come without their run ----------------------------------------------------------------

_PROGRAM, _GRAPH = "program.safetensors", "model.onnx"  # what 'grit export' writes
_GIVEN = records.SchemePart(name="given", terms=())


@dataclass(frozen=True)
class Given:
    """A model under attack, and what its record will say of it."""

    victim: Respondent
    model: records.ModelPart
    artefact: records.ArtefactPart
    scheme: records.SchemePart = _GIVEN
    training: records.TrainingPart | None = None
    flags: tuple[records.FlagPart, ...] = ()  # known of the model, whatever attacks it
    compression: records.CompressionPart | UnsetType = UNSET
    files: Mapping[str, bytes] = field(default_factory=dict)  # of model/ROW/ in a run folder; a function has none


def is_function(operand: str) -> bool:
    """Whether a word names module:callable: something stands on both sides of its colon, and no file is called so."""
    return ":" in operand and not Path(operand).exists()


def is_given(operand: str) -> bool:
    """Whether a word names a model without its run: a function, a bundle, an exported artefact."""
    path = Path(operand)
    files = (submission.SUBMISSION, _PROGRAM, _GRAPH)
    return is_function(operand) or path.is_file() or any((path / name).is_file() for name in files)


def hint(path: Path) -> str:
    """What a folder that cannot be attacked holds instead, for the end of an error; "" for nothing known."""
    if not path.exists():
        return ": there is nothing of that name"
    if (path / "model.c").is_file():
        return ": it holds C, which is compiled into firmware; give the row or the program it was exported from"
    if bundles := submission.bundles_below(path) if path.is_dir() else []:
        return f": it holds {len(bundles)} bundles; give one, as {bundles[0]}"
    return ""


def row_name(operand: str) -> str:
    """What the folder of its evidence is called: a function with a point for its colon, or the folder of the model."""
    if is_function(operand):
        return operand.replace(":", ".")
    place = Path(operand).resolve()
    return submission.folder_name((place.parent if place.suffix == ".safetensors" else place).name.removesuffix(".tar"))


def data_of(operand: str) -> dict[str, str]:
    """The dataset that a bundle was attacked on, as a field of an experiment; nothing where none is known."""
    bundle = _as_bundle(Path(operand))
    return {} if bundle is None else {"dataset": bundle.submission.record.data.name}


@contextmanager
def given(operand: str, classes: int) -> Iterator[Given]:
    """The model that a word names, ready to be attacked. ``classes``: of a function, which does not say.

    A bundle's program has gradients if its float weights came along; its graph answers from the sandbox. An exported
    artefact has none. Raises UsageError, MalformedInput, CouldNotMeasure.
    """
    path = Path(operand)
    if is_function(operand):
        yield _function(operand, classes)
    elif (bundle := _as_bundle(path)) is not None:
        with _bundled_model(bundle) as found:
            yield found
    else:
        yield _exported(path)


def _as_bundle(path: Path) -> Bundle | None:
    if (path / submission.SUBMISSION).is_file() or path.suffix == ".tar":
        return submission.read_bundle(path)
    return None


@contextmanager
def _bundled_model(bundle: Bundle) -> Iterator[Given]:
    from grit.bench.export import build
    from grit.bench.twin import Twin
    from grit.bench.verify.case import Case, Setting
    from grit.bench.victim import Victim

    case = Case(bundle, Setting())
    record = bundle.submission.record
    with case.artefact() as artefact:
        yield Given(
            Victim(build.quickest(artefact), Twin(case.float_model()) if case.has_weights else None),
            record.model,
            record.artefact,
            record.scheme,
            record.training,
            tuple(flag for flag in record.flags if flag.name in ("overlap", "runs")),
            record.compression,
            _kept(bundle.model),
        )


def _exported(path: Path) -> Given:
    from grit.bench.export import build, onnx
    from grit.bench.victim import Victim

    place = path / _PROGRAM if (path / _PROGRAM).is_file() else path
    artefact: Artefact = build.load(place)
    sizes = dict(artefact.sizes_bytes)
    return Given(
        Victim(build.quickest(artefact)),
        records.ModelPart(name=(name := row_name(str(path))), config={}, repr=name, origin="exported"),
        records.ArtefactPart(
            format="onnx" if isinstance(artefact, onnx.OnnxArtefact) else "gritbench.program",
            precision="int8" if artefact.exact else "unknown",
            digest=artefact.digest,
            sizes_bytes=sizes,
            total_bytes=sum(sizes.values()),
            logit_tolerance=0.0 if artefact.exact else 1e-4,
        ),
        files=_kept(onnx.read(place)) if place.is_dir() else {experiment.ARTEFACT: records.read(place)},
    )


def _kept(files: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """The files of a model as a run folder keeps them: those of a graph are one container there."""
    return files if experiment.ARTEFACT in files else {experiment.ARTEFACT: packing.bundle(files)}


def _function(operand: str, classes: int) -> Given:
    """A model of any make. Its bytes and time are not ours to count."""
    from grit.bench.victim import CallableVictim

    victim = CallableVictim(callable_of(operand), name=operand, classes=classes)
    return Given(
        victim,
        records.ModelPart(name=operand, config={}, repr=operand, origin=operand.partition(":")[0]),
        records.ArtefactPart(format="callable", precision="unknown", digest=victim.digest),
    )


def callable_of(operand: str) -> Callable[[list[str]], Any]:
    """The function that module:callable names."""
    module, _, name = operand.partition(":")
    if os.getcwd() not in sys.path:  # as python itself does for a script: the user's own file is found
        sys.path.insert(0, os.getcwd())
    try:
        imported = importlib.import_module(module)
    # Somebody's file is run here for the first time, and may fail in any way.
    except Exception as error:
        reason = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise UsageError(f"{operand!r}: cannot import {module!r} ({reason}); give module:callable") from error
    if not hasattr(imported, name):
        raise UsageError(f"{operand!r}: {module} has no {name!r}; give module:callable")
    found = getattr(imported, name)
    if not callable(found):
        raise UsageError(f"{operand!r} is {type(found).__name__}, expected a function from texts to logits")
    return found
