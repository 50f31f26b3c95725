"""A second emulator: Linux processes on qemu's model of an ARM core, counted by a plugin. No time is given.

Engine ``c``: ``qemu://cortex-a76`` confirms ``emu://``, by another emulator, another operating environment, and for the
Cortex-A76 its own model where ``emu://`` has a generic one. The count of a call is the difference of two processes that
make different numbers of calls, so that start, input and output fall out.

Engine ``ort``: onnxruntime's own arm64 build, in the system of :mod:`grit.bench.targets._sysroot`. Each call is marked
for the plugin, and the count of a text is the median of a few: other threads of the process, and Python while it warms
up, add now and then. Two processes differ by less than 1 %, not by nothing: onnxruntime's memory moves.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from grit.bench import machine, records
from grit.bench.export import onnx, words
from grit.bench.export.c import compiler
from grit.bench.targets import _compiled, _equality, _spread, _sysroot
from grit.bench.targets._cores import CORES, Core
from grit.bench.types import Artefact, CouldNotMeasure, Model, UsageError

REMEDY = "apt install qemu-user (Debian; qemu-user-static takes no plugins)"
LIMIT_S = 900.0
FEW, MORE = 1, 6  # rounds of the two processes
ORT = "ort"
CALLS = 9  # of engine ort on a text, counted one by one
# cores that qemu's user mode has models of; ``max`` has computed wrong int8 results and is never used
_MODELS = ("cortex-a53", "cortex-a72", "cortex-a76")


@dataclass(frozen=True)
class Qemu:
    """One core, by its name."""

    core: str = "cortex-a53"
    texts: int = 10  # compared and counted
    engines: ClassVar[tuple[str, ...]] = (_compiled.ENGINE, ORT)
    places: ClassVar[tuple[str, ...]] = tuple(f"qemu://{core}" for core in _MODELS)

    @classmethod
    def missing(cls) -> str | None:
        """What to install, if anything."""
        if not shutil.which("qemu-aarch64"):
            return f"no qemu-aarch64: {REMEDY}"
        lacking = {_compiled.ENGINE: compiler.missing(), ORT: _sysroot.missing()}
        wanting = [f"for engine {engine}: {reason}" for engine, reason in lacking.items() if reason]
        ready = [f"engine {engine} is ready" for engine, reason in lacking.items() if not reason]
        return "; ".join(ready + wanting) if wanting else None

    @classmethod
    def install(cls) -> Iterator[str]:
        """What engine ``ort`` runs in; says what it does."""
        return _sysroot.install()

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
        return self._cell(_compiled.ENGINE, values, facts)

    def serve(
        self, files: Mapping[str, bytes], artefact: Artefact, texts: Iterable[str], model: Model | None
    ) -> records.CostPart:
        """Instructions of onnxruntime from rows to logits (``neural_``), over the texts, one text a call.

        ``files`` are the ONNX folder of ``artefact``; its tokenizer is no part of onnxruntime. The marks and the loop
        around a call are taken off, Python's call into onnxruntime is in.
        """
        core = self._core()
        facts = {**self.probe(), **_sysroot.versions(), "artefact": artefact.digest}
        some = _compiled.chosen(texts, self.texts)
        graph = onnx.OnnxArtefact(files, model)
        feeds = [graph.feed(*words.batch(graph, [one])) for one in some]
        counts, logits = _served(files["model.onnx"], feeds, core)
        facts |= _equality.compare(logits, words.answer(artefact, some), artefact.exact)
        values: dict[str, int | float] = {"n_samples": len(some), **_spread.counts("neural_instructions", counts)}
        return self._cell(ORT, values, facts | {"counted_calls": CALLS})

    def _cell(self, engine: str, values: dict[str, int | float], facts: dict[str, Any]) -> records.CostPart:
        where = f"qemu://{self.core}"
        return records.CostPart(target=where, engine=engine, kind="emulated", values=values, facts=facts)

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
    """Instructions of a whole process, and what it wrote."""
    counts, said = _process([str(runner)], core, plugin, work)
    return counts[-1], _compiled.parse(said)


def _process(
    command: Sequence[str],
    core: Core,
    plugin: Path,
    work: bytes,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> tuple[list[int], bytes]:
    """The counts of a process, at its marks and its end, and what it wrote.

    Its environment is empty but for what is said, and its addresses are fixed: both move the counts of what allocates
    memory.
    """
    command = [_emulator(), "-cpu", core.name, "-plugin", str(plugin), *arguments, *command]
    if fixed := shutil.which("setarch"):
        command = [fixed, "-R", *command]
    surroundings = {"PATH": os.environ.get("PATH", ""), **(environment or {})}
    try:
        done = subprocess.run(command, input=work, capture_output=True, timeout=LIMIT_S, check=False, env=surroundings)
    except subprocess.TimeoutExpired:
        raise CouldNotMeasure(f"qemu did not end within {LIMIT_S:g} s: pass fewer texts") from None
    said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
    if done.returncode or not said[-1].isdecimal():
        reason = ([line for line in said if not line.isdecimal()] or ["nothing"])[-1]
        raise CouldNotMeasure(f"qemu's {core.name} ended with code {done.returncode}: {reason[:200]}; {REMEDY}")
    return [int(line) for line in said if line.isdecimal()], done.stdout


# --- engine ort -----------------------------------------------------------------------------------------


def _served(graph: bytes, feeds: Sequence[Mapping[str, np.ndarray]], core: Core) -> tuple[list[int], np.ndarray]:
    """Instructions of onnxruntime for each feed, and its logits [texts classes]."""
    interpreter, plugin = _sysroot.python(), _plugin()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(graph)
        arrays = {f"{k}.{key}": value for k, feed in enumerate(feeds) for key, value in feed.items()}
        np.savez(folder / "feeds.npz", **arrays)  # type: ignore[arg-type]  # no name here is savez's own
        system = folder / "system"
        system.mkdir()
        part = next(part for part, name in machine.ARM_CORES.items() if name.lower() == core.name)
        features = ["fp", "asimd", *(["asimddp"] if "sdot" in core.features else [])]
        _sysroot.prefix(part, features, system)
        # one thread, the same hashes in every process, and no folder of packages but ours
        environment = {"OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYTHONPATH": str(_sysroot.wheels())}
        guest = Path(__file__).with_name("_guest.py")
        command = [str(interpreter), "-P", "-S", "-s", str(guest), str(folder), str(CALLS)]
        marks, _ = _process(command, core, plugin, b"", environment, ["-L", str(system)])
        logits = np.load(folder / "logits.npy")
    if len(marks) != 2 + len(feeds) * (CALLS + 1) + 1:
        raise CouldNotMeasure(f"qemu counted {len(marks)} marks of {len(feeds)} texts: report this; {REMEDY}")
    empty = marks[1] - marks[0]
    texts = np.array(marks[2:-1]).reshape(len(feeds), CALLS + 1)
    return [int(statistics.median(calls)) - empty for calls in np.diff(texts).tolist()], logits
