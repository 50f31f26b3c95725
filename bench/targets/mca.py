"""Modelled cycles: what llvm-mca's model of a core makes of the instructions that an emulated one has run.

``mca://cortex-a53`` traces the compiled program on ``emu://`` and gives llvm-mca the straight line of what ran. Cycles
an instruction come from the difference of a long and a short text, so that what a call begins with falls out, and are
multiplied by the exact count of the median text. That is a model of a core that misses no cache and no branch, not
validated on any board, so only a range is given, and nothing is ranked by it. Where it could be compared
(28 builds on an x86 processor) it was off by a factor of 2 at worst: that is the range. ``grit calibrate-target`` on a
board of yours gives a better one.
"""

from __future__ import annotations

import re
import shutil
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from grit.bench import records
from grit.bench.targets import _compiled, emu
from grit.bench.targets._cores import CORES, Core
from grit.bench.types import Artefact, CouldNotMeasure, UsageError

REMEDY = "apt install llvm (Debian)"
TOOLS = ("llvm-mca", "llvm-objdump")
SHORT, LONG = 1, 3  # tokens of the two traces
MOST = 300_000  # instructions that llvm-mca is given at once: seconds, and some hundred megabytes
FACTOR = 2.0  # to both sides
LIMIT_S = 300.0


@dataclass(frozen=True)
class Model:
    """LLVM's names of a core, and the clock rate of a board that many have."""

    triple: str
    cpu: str
    mhz: int


# LLVM has no schedule of its own for the Cortex-A76 and the A72: theirs is the Cortex-A57's. The Neoverse N1 is the A76
# as a server has it; for the A72 the A57's stays. For the Cortex-M0 there is none, and that of the M7 knows no ``it``.
MODELS = {
    "cortex-a53": Model("aarch64", "cortex-a53", 1200),  # Raspberry Pi 3
    "cortex-a72": Model("aarch64", "cortex-a72", 1500),  # Raspberry Pi 4
    "cortex-a76": Model("aarch64", "neoverse-n1", 2400),  # Raspberry Pi 5
    "cortex-m4": Model("thumbv7em-none-eabihf", "cortex-m4", 168),  # STM32F4
}


@dataclass(frozen=True)
class Mca:
    """One core, by its name."""

    core: str = "cortex-m4"
    texts: int = 10  # compared and counted
    engines: ClassVar[tuple[str, ...]] = (_compiled.ENGINE,)
    places: ClassVar[tuple[str, ...]] = tuple(f"mca://{core}" for core in MODELS)

    @classmethod
    def missing(cls) -> str | None:
        """What to install, if anything."""
        lacking = [tool for tool in TOOLS if not shutil.which(tool)]
        return f"no {' and no '.join(lacking)}: {REMEDY}" if lacking else emu.Emu.missing()

    def __post_init__(self) -> None:
        if self.core not in MODELS:
            raise UsageError(f"unknown core {self.core!r}: mca:// has {', '.join(MODELS)}")

    def probe(self) -> Mapping[str, Any]:
        """The core, its model and the clock that times are stated for."""
        if lacking := self.missing():
            raise CouldNotMeasure(lacking)
        said = _compiled.run(["llvm-mca", "--version"], b"", 30).decode()
        number = re.search(r"version (\S+)", said)
        model = MODELS[self.core]
        return {
            "core": CORES[self.core].name,
            "schedule": f"llvm-mca {number[1] if number else 'of unknown version'}, {model.cpu}",
            "clock_mhz": model.mhz,
            "validated": f"not validated: the range is a factor of {FACTOR:g} to both sides",
        }

    def measure(self, artefact: Artefact, texts: Iterable[str]) -> Mapping[str, Any]:
        """The values of :meth:`cost`."""
        return self.cost(artefact, texts).values

    def cost(self, artefact: Artefact, texts: Iterable[str]) -> records.CostPart:
        """Cycles of the network alone on the median text, and their time at a stated clock rate: a range each."""
        facts, core, model = dict(self.probe()), CORES[self.core], MODELS[self.core]
        some = _compiled.chosen(texts, self.texts)
        # traced on the longest text, so that there are as many tokens as it takes
        some.sort(key=lambda text: len(text.split()))
        elf, flags = emu.build(artefact, core)
        found = emu.run(elf, core, some, traced=(SHORT, LONG))
        raw = [bytes.fromhex(logits) for logits in found["logits"]]
        facts |= {"flags": flags, "emulator": found["emulator"], **_compiled.compare(artefact, some, raw)}
        if found["tokens"][-1] < LONG:
            raise CouldNotMeasure(f"no text has {LONG} tokens: the steps of a network cannot be told from its start")
        short, long = (_line(elf, core, model, blocks) for blocks in found["traces"])
        share = (_cycles(long, model) - _cycles(short, model)) / (len(long) - len(short))
        cycles = share * sorted(found["neural_instructions"])[(len(some) - 1) // 2]
        facts["cycles_per_instruction"] = round(share, 3)
        ends = {"low": cycles / FACTOR, "high": cycles * FACTOR}
        values: dict[str, int | float] = {"n_samples": len(some)}
        values |= {f"{end}_p50_neural_cycles": round(value) for end, value in ends.items()}
        values |= {f"{end}_neural_p50_us": round(value / model.mhz, 3) for end, value in ends.items()}
        return records.CostPart(
            target=f"mca://{core.name}", engine=_compiled.ENGINE, kind="modelled", values=values, facts=facts
        )


def _line(elf: Path, core: Core, model: Model, blocks: Sequence[tuple[int, int]]) -> list[str]:
    """The instructions of a trace, in the order in which they ran, as assembly."""
    listed = _compiled.run(["llvm-objdump", "-d", "--no-show-raw-insn", f"--mcpu={model.cpu}", str(elf)], b"", LIMIT_S)
    known = instructions(listed.decode())
    places = sorted(known)
    line: list[str] = []
    for address, size in blocks:
        line += (known[at] for at in places[bisect_left(places, address) : bisect_left(places, address + size)])
        if len(line) > MOST:
            raise CouldNotMeasure(
                f"{LONG} tokens take more than {MOST:,} instructions on {core.name}: too many to model"
            )
    return line


def instructions(listing: str) -> dict[int, str]:
    """address -> instruction, of a listing of llvm-objdump: without comments, and with no place to jump to."""
    found = {}
    for address, text in re.findall(r"^\s*([0-9a-f]+):\s+(\S.*?)\s*$", listing, re.MULTILINE):
        bare = re.sub(r"\s+(?://|@|;).*", "", text)
        found[int(address, 16)] = re.sub(r"#?-?(?:0x)?[0-9a-f]+ <[^>]*>", "anywhere", bare)
    return found


def _cycles(line: Sequence[str], model: Model) -> int:
    command = ["llvm-mca", f"-mtriple={model.triple}", f"-mcpu={model.cpu}", "-iterations=1"]
    command += ["-instruction-info=0", "-resource-pressure=0"]
    said = _compiled.run(command, "\n".join([*line, ""]).encode(), LIMIT_S).decode()
    total = re.search(r"^Total Cycles:\s+(\d+)$", said, re.MULTILINE)
    if not total:
        raise CouldNotMeasure(f"llvm-mca said nothing of cycles: {said[:100]!r}; {REMEDY}")
    return int(total[1])
