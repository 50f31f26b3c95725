"""Bytes -> what they cost: their size by part, and their time or instructions on a target, an engine a cell.

Engine ``ort`` is onnxruntime on the exported graph, ``c`` the compiled program of :mod:`grit.bench.export.c`. Equality
comes before numbers: an engine that does not give the artefact's own logits gets no number but a reason.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from msgspec import Struct

from grit.bench import machine, records, registry
from grit.bench.export import build, packing, words
from grit.bench.export.floating import FloatArtefact
from grit.bench.records import CostPart
from grit.bench.targets import _calibration, _equality
from grit.bench.targets._calibration import Calibration
from grit.bench.types import Artefact, CouldNotMeasure, Example, Model, Target, UsageError

ENGINES = ("ort",)  # of a target that names none
COMPARED_TEXTS = 100


@runtime_checkable
class Starts(Protocol):
    """A target that can also say what a start from nothing costs."""

    def start(self, path: Path, raw: str) -> Mapping[str, float]: ...


@runtime_checkable
class Compiles(Protocol):
    """A target that runs engine ``c``: it builds the program, compares its answers and makes the cell."""

    engines: ClassVar[tuple[str, ...]]

    def cost(self, artefact: Artefact, texts: Iterable[str]) -> CostPart: ...


@runtime_checkable
class Serves(Protocol):
    """A target that runs engine ``ort`` where it is, and not in this process: it is given the ONNX folder's files."""

    def serve(
        self, files: Mapping[str, bytes], artefact: Artefact, texts: Iterable[str], model: Model | None
    ) -> CostPart: ...


@runtime_checkable
class Estimates(Protocol):
    """A target that counts, and can say what a count is worth in time."""

    def estimate(self, cell: CostPart) -> CostPart | None: ...


def cells(path: Path, target: str, texts: Sequence[str], model: Model | None = None) -> list[CostPart]:
    """What the artefact at ``path`` costs on ``target`` (a registry key, or ``key://rest``), an engine a cell.

    ``texts`` are compared and timed. A cell that cannot be measured says why in ``reason``.
    """
    there = target_of(target)
    found = []
    for engine in getattr(there, "engines", ENGINES):
        try:
            cell = _cell(there, engine, path, target, texts, model)
        except CouldNotMeasure as error:
            cell = CostPart(target=target, engine=engine, kind="not measured", reason=str(error))
        found.append(cell)
        if cell.kind == "emulated" and isinstance(there, Estimates) and (timed := there.estimate(cell)):
            found.append(timed)
    return found


def calibrate(target: str) -> tuple[Calibration, Path]:
    """What a real device says of its core, and the file it is kept in: emulated counts of that core get a time."""
    place = target_of(target)
    if not isinstance(place, Compiles):
        raise UsageError(f"{target} runs no compiled programs: calibrate ssh://user@host or adb://SERIAL")
    emulated = registry.load("targets", "emu")

    def counted(core: str) -> _calibration.Cost:
        counter: _calibration.Cost = emulated(core, cached_texts=0).cost
        return counter

    found = _calibration.calibrate(target, place.cost, counted)
    return found, _calibration.keep(found)


def target_of(word: str) -> Target:
    """The configured target behind ``key`` or ``key://rest``. Raises UsageError for a word that means none."""
    key, _, rest = word.partition("://")
    cls = registry.load("targets", key)
    first = next((each.annotation for each in inspect.signature(cls).parameters.values()), None)
    if rest and first not in (str, "str"):
        raise UsageError(f"target {word!r}: {key} takes nothing behind its name, write {key}")
    found: Target = cls(rest) if rest else cls()
    return found


def _cell(place: Target, engine: str, path: Path, target: str, texts: Sequence[str], model: Model | None) -> CostPart:
    if engine == "c" and isinstance(place, Compiles):
        return place.cost(build.load(path, model), texts)
    if isinstance(place, Serves):
        return place.serve(_graph(path), build.load(path, model), texts, model)
    values, facts = _measured(place, path, texts, model)
    return CostPart(target=target, engine=engine, kind="measured", values=values, facts=facts)


def _measured(
    place: Target, path: Path, texts: Sequence[str], model: Model | None
) -> tuple[dict[str, float], dict[str, Any]]:
    facts = dict(place.probe())
    reference = build.load(path, model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runnable = _onnx(path, folder, reference)
        engine = build.load(runnable, model) if runnable else reference
        compared = list(texts[:COMPARED_TEXTS])
        facts["output_error"] = agreement(engine, compared, words.answer(reference, compared))
        values = dict(place.measure(engine, texts))
        if runnable and isinstance(place, Starts):
            values |= place.start(runnable, compared[0])
    versions = machine.versions()
    return values, facts | {name: versions[name] for name in ("onnxruntime", "numpy", "python") if name in versions}


def _onnx(path: Path, folder: Path, artefact: Artefact) -> Path | None:
    """The ONNX folder of a program file, written to ``folder``; None where the artefact is a graph already."""
    from grit.bench.export import onnx

    if isinstance(artefact, onnx.OnnxArtefact):
        return None
    for name, content in _graph(path).items():
        records.write(folder / name, content)
    return folder


def _graph(path: Path) -> Mapping[str, bytes]:
    """The files of the ONNX folder that an artefact is, holds or becomes."""
    from grit.bench.export import onnx

    if path.is_dir():
        return onnx.read(path)
    data = packing.read_file(path)
    return packing.unbundle(data) if packing.is_bundle(data) else onnx.files(packing.unpack(data))


def agreement(artefact: Artefact, texts: Sequence[str], reference: np.ndarray) -> float:
    """The largest difference of an artefact's logits from ``reference`` [texts classes].

    Raises CouldNotMeasure beyond the tolerance: none for exact artefacts.
    """
    error: float = _equality.compare(words.answer(artefact, texts), reference, artefact.exact)["output_error"]
    return error


class Precision(Struct, frozen=True, kw_only=True):
    """What int8 costs in answers: of ``n`` texts, how many it and fp32 get right, and on how many they agree."""

    n: int
    int8: int
    fp32: int
    agreed: int


def precision(path: Path, model: Model, examples: Sequence[Example]) -> Precision:
    """The deployed artefact beside the model as it was trained, both without torch's own arithmetic."""
    from grit.bench.export import onnx

    texts = [example.text for example in examples]
    if not texts:
        raise CouldNotMeasure("no texts to compare on: the test split is empty")
    program = model.program()
    fp32: Artefact = (
        onnx.OnnxArtefact(onnx.traced(model, texts[: build.TRACED_TEXTS]), model)
        if program is None
        else FloatArtefact(program, "", {})
    )
    labels = np.array([example.label for example in examples])
    deployed, trained = (words.answer(each, texts).argmax(axis=1) for each in (build.load(path, model), fp32))
    return Precision(
        n=len(texts),
        int8=int((deployed == labels).sum()),
        fp32=int((trained == labels).sum()),
        agreed=int((deployed == trained).sum()),
    )


def sizes(artefact: Artefact) -> Mapping[str, int]:
    """part -> bytes, and their sum as ``total``."""
    parts = dict(artefact.sizes_bytes)
    return parts | {"total": sum(parts.values())}


# --- in words -------------------------------------------------------------------------------------------

# heading -> the values that stand under it, whichever a cell has
_COLUMNS = {
    "p50 us": ("p50_us",),
    "network": ("neural_p50_us",),
    "instructions": ("p50_instructions", "mean_instructions"),
    "of network": ("p50_neural_instructions", "mean_neural_instructions"),
    "cycles": ("p50_neural_cycles",),
    "L1D misses": ("p50_neural_misses",),
    "RAM bytes": ("ram_bytes",),
    "flash bytes": ("flash_bytes",),
}


def render(cells: Sequence[CostPart]) -> str:
    """Cells as a table, a line each, and below it why some have no number. A time that is a range is shown as one."""
    lines = [["target", "engine", "kind", *_COLUMNS]]
    lines += [
        [cell.target, cell.engine, cell.kind, *(_shown(cell.values, names) for names in _COLUMNS.values())]
        for cell in cells
    ]
    columns = [column for column in zip(*lines, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    table = [
        "  ".join(
            word.ljust(width) if at < 3 else word.rjust(width)
            for at, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in zip(*columns, strict=True)
    ]
    return "\n".join(table + [f"{cell.target} x {cell.engine}: {cell.reason}" for cell in cells if cell.reason])


def _shown(values: Mapping[str, int | float], names: Sequence[str]) -> str:
    for name in names:
        ends = [end for end in (f"low_{name}", f"high_{name}") if end in values] or [name]
        if ends[0] in values:
            return " to ".join(f"{values[end]:,.1f}" if end.endswith("_us") else f"{values[end]:,}" for end in ends)
    return ""
