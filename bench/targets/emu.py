"""An emulated ARM core: exact instruction counts, simulated cache misses and memory of the compiled program.

``emu://cortex-m4`` needs nothing but wheels (the extra ``arm``): a cross compiler and an emulator. What is counted is
exact, the same to the digit in every process and on every machine that has the same compiler. It is no time, and none
is given: how fast an emulator runs says nothing about the core.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from grit.bench import records
from grit.bench.export.c import compiler
from grit.bench.targets import _calibration, _compiled, _spread
from grit.bench.targets._cores import CORES, Core
from grit.bench.types import Artefact, CouldNotMeasure, UsageError

LIMIT_S = 1800.0


@dataclass(frozen=True)
class Emu:
    """One core, by its name."""

    core: str = "cortex-m4"
    texts: int = 50  # compared
    counted_texts: int = 50  # of these, whose instructions are counted
    cached_texts: int = 3  # of these, whose data accesses go through the simulated cache
    engines: ClassVar[tuple[str, ...]] = (_compiled.ENGINE,)
    places: ClassVar[tuple[str, ...]] = tuple(f"emu://{core}" for core in CORES)

    @classmethod
    def missing(cls) -> str | None:
        """What to install, if anything."""
        for module in ("unicorn", "elftools"):
            if not importlib.util.find_spec(module):
                return f"no {module}: {compiler.REMEDY}"
        return compiler.missing()

    def __post_init__(self) -> None:
        if self.core not in CORES:
            raise UsageError(f"unknown core {self.core!r}: emu:// has {', '.join(CORES)}")

    def probe(self) -> Mapping[str, Any]:
        """The core and what stands in for it; CouldNotMeasure with the remedy where a wheel is missing."""
        core = self._core()
        if lacking := self.missing():
            raise CouldNotMeasure(lacking)
        facts: dict[str, Any] = {
            "core": core.label,
            "architecture": "A64" if core.wide else "Thumb",
            "features": list(core.features),
            "emulator": f"unicorn {version('unicorn')}, model {core.model}",
            "compiler": compiler.zig().version,
        }
        if core.cache:
            cache = core.cache
            facts["l1d"] = f"{cache.size_bytes >> 10} KB, {cache.ways} ways, {cache.line_bytes}-byte lines, simulated"
        return facts

    def measure(self, artefact: Artefact, texts: Iterable[str]) -> Mapping[str, Any]:
        """The values of :meth:`cost`."""
        return self.cost(artefact, texts).values

    def cost(self, artefact: Artefact, texts: Iterable[str]) -> records.CostPart:
        """Instructions of text in, logits out, and of the network alone (``neural_``), L1D misses and memory.

        Every text's logits are compared first; a CouldNotMeasure says by how much they differ.
        """
        facts = dict(self.probe())
        core = self._core()
        chosen = _compiled.chosen(texts, self.texts)
        elf, flags = build(artefact, core)
        found = run(elf, core, chosen, self.cached_texts, self.counted_texts)
        facts |= {
            "flags": flags,
            **_compiled.compare(artefact, chosen, [bytes.fromhex(raw) for raw in found["logits"]]),
        }
        values: dict[str, int | float] = {"n_samples": len(found["instructions"])}
        for name in ("instructions", "neural_instructions"):
            values |= _spread.counts(name, found[name])
        if "neural_misses" in found:
            values |= _spread.counts("neural_misses", found["neural_misses"])
        values |= {
            "code_bytes": found["code_bytes"],
            "flash_bytes": found["flash_bytes"],
            "scratch_bytes": found["scratch_bytes"],
            "stack_bytes": found["stack_bytes"],
            "ram_bytes": found["scratch_bytes"] + found["stack_bytes"] + found["static_ram_bytes"],
        }
        facts["p50_tokens"] = statistics.median_low(found["tokens"])
        return records.CostPart(
            target=f"emu://{core.name}", engine=_compiled.ENGINE, kind="emulated", values=values, facts=facts
        )

    def estimate(self, cell: records.CostPart) -> records.CostPart | None:
        """A calibrated time for a counted cell; None where nobody has calibrated the core."""
        found = _calibration.known(self._core().name)
        return found.estimate(cell) if found else None

    def _core(self) -> Core:
        return CORES[self.core]


def build(artefact: Artefact, core: Core) -> tuple[Path, str]:
    """The program of an artefact for a core: ELF file and the flags it was compiled with."""
    files = dict(_compiled.emitted(artefact).files) | {"sizes.c": _SIZES}
    arguments = ["-target", core.triple, f"-mcpu={core.cpu}", *compiler.FLAGS, "-ffreestanding", "-nostdlib"]
    arguments += ["-Wl,-e,model_text", "-Wl,--no-gc-sections"]
    elf = compiler.cached(compiler.zig(), files, [*arguments, "model.c", "sizes.c", "-o", "model.elf"], "model.elf")
    return elf, " ".join(arguments)


_SIZES = """#include "model.h"
const uint32_t grit_scratch_bytes = sizeof(model_scratch), grit_token_bytes = sizeof(model_token);
const uint32_t grit_logits_bytes = sizeof(model_logit) * MODEL_CLASSES, grit_tokens = MODEL_MAX_TOKENS;
"""


def run(
    elf: Path,
    core: Core,
    texts: Sequence[str],
    cached_texts: int = 0,
    counted_texts: int | None = None,
    traced: Sequence[int] = (),
) -> dict[str, Any]:
    """The answers and counts of :mod:`grit.bench.targets._unicorn`."""
    job = {
        "elf": str(elf),
        "wide": core.wide,
        "model": core.model,
        "cache": [core.cache.size_bytes, core.cache.ways, core.cache.line_bytes]
        if core.cache and cached_texts
        else None,
        "cached_texts": cached_texts,
        "texts": [text.encode().hex() for text in texts],
        "counted": len(texts) if counted_texts is None else counted_texts,
        "traced": list(traced),
    }
    return emulated("grit.bench.targets._unicorn", job, core.name)


def emulated(module: str, job: Mapping[str, Any], core: str) -> dict[str, Any]:
    """What ``python -m module`` answers to a job: the emulator has a process of its own, where it may crash or hang.

    Raises CouldNotMeasure where it does.
    """
    command = [sys.executable, "-m", module]
    try:
        done = subprocess.run(
            command, input=json.dumps(job), capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise CouldNotMeasure(f"the emulation did not end within {LIMIT_S:g} s: pass fewer texts") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise CouldNotMeasure(f"the program did not run on the emulated {core}: {said[:200]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
