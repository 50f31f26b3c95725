"""A second emulator: the compiled program as a Linux process on qemu's model of an ARM core, counted by a plugin.

``qemu://cortex-a76`` confirms ``emu://``: another emulator, another operating environment, and for the Cortex-A76 its
own model where ``emu://`` has a generic one. The count of a call is the difference of two processes that make different
numbers of calls, so that start, input and output fall out. No time is given.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from grit.bench import records
from grit.bench.export.c import compiler
from grit.bench.targets import _compiled
from grit.bench.targets._cores import CORES, Core
from grit.bench.types import Artefact, CouldNotMeasure, UsageError

REMEDY = "apt install qemu-user (Debian; qemu-user-static takes no plugins)"
LIMIT_S = 900.0
FEW, MORE = 1, 6  # rounds of the two processes
# cores that qemu's user mode has models of; ``max`` has computed wrong int8 results and is never used
_MODELS = ("cortex-a53", "cortex-a72", "cortex-a76")


@dataclass(frozen=True)
class Qemu:
    """One core, by its name."""

    core: str = "cortex-a53"
    texts: int = 10  # compared and counted
    engines: ClassVar[tuple[str, ...]] = (_compiled.ENGINE,)
    places: ClassVar[tuple[str, ...]] = tuple(f"qemu://{core}" for core in _MODELS)

    @classmethod
    def missing(cls) -> str | None:
        """What to install, if anything."""
        return f"no qemu-aarch64: {REMEDY}" if not shutil.which("qemu-aarch64") else compiler.missing()

    def probe(self) -> Mapping[str, Any]:
        """Core and emulator; CouldNotMeasure with the remedy where it is not here."""
        core = self._core()
        said = _compiled.run([_emulator(), "--version"], b"", 30).decode().partition("\n")[0]
        return {"core": core.name, "architecture": "A64", "features": list(core.features), "emulator": said}

    def measure(self, artefact: Artefact, texts: Iterable[str]) -> Mapping[str, Any]:
        """The values of :meth:`cost`."""
        return self.cost(artefact, texts).values

    def cost(self, artefact: Artefact, texts: Iterable[str]) -> records.CostPart:
        """Mean instructions of text in, logits out, and of the network alone (``neural_``), over the texts.

        A call and the loop around it count; that is a few instructions more than the call alone.
        """
        facts = dict(self.probe())
        core = self._core()
        some = _compiled.chosen(texts, self.texts)
        built = _compiled.runner(artefact, compiler.zig(), _compiled.static(core.triple, core.cpu))
        plugin = _plugin()
        base, times = _count(built.path, core, plugin, _compiled.job(some, rounds=(FEW, FEW), least_s=0, most_s=0))
        facts |= built.facts | _compiled.compare(artefact, some, times.logits)
        values: dict[str, int | float] = {"n_samples": len(some)}
        for name, rounds in (("mean_instructions", (MORE, FEW)), ("mean_neural_instructions", (FEW, MORE))):
            count, _ = _count(built.path, core, plugin, _compiled.job(some, rounds=rounds, least_s=0, most_s=0))
            values[name] = round((count - base) / (MORE - FEW) / len(some))
        where = f"qemu://{core.name}"
        return records.CostPart(target=where, engine=_compiled.ENGINE, kind="emulated", values=values, facts=facts)

    def _core(self) -> Core:
        if self.core not in _MODELS:
            raise UsageError(f"unknown core {self.core!r}: qemu:// has {', '.join(_MODELS)}")
        return CORES[self.core]


def _emulator() -> str:
    found = shutil.which("qemu-aarch64")
    if not found:
        raise CouldNotMeasure(f"no qemu-aarch64: {REMEDY}")
    return found


def _plugin() -> Path:
    source = Path(__file__).with_name("count.c").read_text(encoding="utf-8")
    arguments = ["-std=c99", "-O2", "-shared", "-fPIC", "count.c", "-o", "count.so"]
    return compiler.cached(compiler.host(), {"count.c": source}, arguments, "count.so")


def _count(runner: Path, core: Core, plugin: Path, work: bytes) -> tuple[int, _compiled.Times]:
    """Instructions of a whole process, and what it wrote; its environment is empty and its addresses are fixed."""
    command: Sequence[str] = [_emulator(), "-cpu", core.name, "-plugin", str(plugin), str(runner)]
    if fixed := shutil.which("setarch"):
        command = [fixed, "-R", *command]
    environment = {"PATH": os.environ.get("PATH", "")}
    try:
        done = subprocess.run(command, input=work, capture_output=True, timeout=LIMIT_S, check=False, env=environment)
    except subprocess.TimeoutExpired:
        raise CouldNotMeasure(f"qemu did not end within {LIMIT_S:g} s: pass fewer texts") from None
    said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
    if done.returncode or not said[-1].isdecimal():
        raise CouldNotMeasure(f"qemu's {core.name} ended with code {done.returncode}: {said[-1][:200]}; {REMEDY}")
    return int(said[-1]), _compiled.parse(done.stdout)
