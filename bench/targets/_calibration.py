"""Instructions -> time, for a core that somebody has held in hand.

A real device runs a handful of programs of different kinds and sizes; an emulated core counts their instructions. One
factor a core and engine is what is kept, with its error: how far it misses each program when fitted to the others.
Only with such a file does an emulated core get a time at all, and the time is called calibrated, never measured.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from grit.bench import records
from grit.bench.export import packing, quantise
from grit.bench.export.fixed import FixedArtefact
from grit.bench.targets._cores import CORES
from grit.bench.types import (
    AttentionPool,
    CouldNotMeasure,
    Dense,
    FastGrnn,
    Kernel,
    Lstm,
    MalformedInput,
    Program,
    Rows,
)

WORDS = ("", *(f"w{k}" for k in range(99)))
TEXT = " ".join(f"w{7 * k % 97}" for k in range(64))  # every program reads these 64 words


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one device says of its core."""

    target: str
    core: str
    engine: str
    ns_per_instruction: float
    cycles_per_instruction: float | None = None  # None: the device does not tell its clock rate
    median_error_share: float  # of leave-one-out predictions
    worst_error_share: float
    programs: int
    facts: dict[str, Any] = {}

    def estimate(self, cell: records.CostPart) -> records.CostPart:
        """A time for an emulated cell, as a range: the median text's, and the worst error to both sides."""
        p50 = cell.values["p50_instructions"] * self.ns_per_instruction / 1000
        worst = self.worst_error_share
        values = {"p50_us": p50, "low_p50_us": p50 / (1 + worst), "high_p50_us": p50 * (1 + worst)}
        facts = {
            "calibrated_on": self.target,
            "core": self.core,
            "ns_per_instruction": self.ns_per_instruction,
            "cycles_per_instruction": self.cycles_per_instruction,
            "median_error_share": self.median_error_share,
            "worst_error_share": worst,
            "programs": self.programs,
        }
        return records.CostPart(
            target=cell.target,
            engine=cell.engine,
            kind="calibrated",
            values={name: round(value, 3) for name, value in values.items()},
            facts={name: value for name, value in facts.items() if value is not None},
        )


def fit(instructions: Sequence[float], ns: Sequence[float]) -> tuple[float, float, float]:
    """ns an instruction; and the median and worst relative error of leaving each program out.

    The factor is the geometric mean of the ratios, so that long programs do not outvote short ones; an error of 0.1
    is a prediction that is a tenth too large, or as much too small as a division by 1.1.
    """
    if len(ns) < 3:
        raise CouldNotMeasure(f"{len(ns)} programs cannot be checked against each other: take 3 or more")
    ratios = np.log(np.asarray(ns, np.float64) / np.asarray(instructions, np.float64))
    others = (ratios.sum() - ratios) / (len(ratios) - 1)
    errors = np.expm1(np.abs(ratios - others))
    return float(np.exp(ratios.mean())), float(np.median(errors)), float(errors.max())


def programs(seed: int = 0) -> list[FixedArtefact]:
    """Recurrent ones and poolings of two sizes; their weights are drawn, not trained: cost knows no meaning."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    found = []
    for features, units in ((32, 64), (16, 32)):
        words, head = Rows(draw(len(WORDS), features)), Dense(draw(4, units), draw(4))
        lstm = Lstm(draw(4 * units, features), draw(4 * units, units), draw(4 * units))
        cell = FastGrnn(draw(units, features), draw(units, units), draw(units), draw(units), 0.9, 0.05)
        maps = [Dense(draw(units, features), draw(units), relu=True) for _ in range(2)]
        kernels = tuple(
            Kernel(draw(units, k, units), draw(units), draw(units, k, units), draw(units)) for k in (1, 2, 3)
        )
        pool = AttentionPool(maps[0], maps[1], kernels)
        found += [Program(words, body, head, WORDS, 64) for body in (lstm, cell)]
        found.append(Program(words, pool, Dense(draw(4, 3 * units), draw(4)), WORDS, 64))
    artefacts = [packing.artefact(packing.pack(quantise.quantise(program, [TEXT]))) for program in found]
    return [artefact for artefact in artefacts if isinstance(artefact, FixedArtefact)]


Cost = Callable[[FixedArtefact, Sequence[str]], records.CostPart]


def calibrate(target: str, measured: Cost, counted: Callable[[str], Cost]) -> Calibration:
    """``measured`` asks the device; ``counted`` gives, for a core, who counts there."""
    artefacts = programs()
    cells = [measured(artefact, [TEXT]) for artefact in artefacts]
    facts = cells[0].facts
    core = str(facts.get("cpu", "unknown")).lower()
    if core not in CORES or not CORES[core].wide:
        known = ", ".join(name for name, each in CORES.items() if each.wide)
        raise CouldNotMeasure(f"{target} is {facts.get('cpu', 'an unknown processor')}: emu:// counts for {known} only")
    count = counted(core)
    instructions = [count(artefact, [TEXT]).values["p50_neural_instructions"] for artefact in artefacts]
    factor, median, worst = fit(instructions, [1000 * cell.values["neural_min_us"] for cell in cells])
    clock = facts.get("frequency_mhz")
    kept = ("cpu", "kernel", "governor", "frequency_mhz", "temperature_c", "load_1min", "compiler", "flags")
    return Calibration(
        target=target,
        core=core,
        engine="c",
        ns_per_instruction=factor,
        cycles_per_instruction=factor * clock / 1000 if isinstance(clock, int | float) else None,
        median_error_share=median,
        worst_error_share=worst,
        programs=len(artefacts),
        facts={name: facts[name] for name in kept if name in facts},
    )


# --- where it is kept -----------------------------------------------------------------------------------


def place(core: str) -> Path:
    """The file of a core, in the user's data folder."""
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return home / "gritbench" / "calibrations" / f"{core}.json"


def keep(found: Calibration) -> Path:
    """Written where :func:`known` looks."""
    path = place(found.core)
    records.write(path, msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    return path


def known(core: str) -> Calibration | None:
    """The calibration of a core, if this user has one; MalformedInput for a file that holds something else."""
    path = place(core)
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Calibration)
    except msgspec.DecodeError as error:
        raise MalformedInput(f"{path}: no calibration ({error}); remove it and calibrate again") from None
