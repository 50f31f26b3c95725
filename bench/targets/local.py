"""This machine: measured time of one text, one thread, warm; and apart from it a start from nothing.

A time is a wall-clock time of this process, so it holds for this machine, its clock rate and its load, all of which
are reported with it. Texts are taken in turn, in rounds, because a text's length is most of its cost; what is reported
is the spread over all calls.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from grit.bench import machine, records
from grit.bench.export.c import compiler
from grit.bench.targets import _compiled, _spread
from grit.bench.types import Artefact, CouldNotMeasure

_START = """
import json, sys, time
begun = time.perf_counter_ns()
from pathlib import Path
from grit.bench.export import build, onnx, packing, words
import onnxruntime
imported = time.perf_counter_ns()
artefact = build.load(Path(sys.argv[1]))
loaded = time.perf_counter_ns()
words.answer(artefact, [sys.argv[2]])
answered = time.perf_counter_ns()
print(json.dumps([imported - begun, loaded - imported, answered - loaded]))
"""


class Clock(Protocol):
    def __call__(self) -> int:
        """Nanoseconds that never go back."""
        ...


@dataclass(frozen=True)
class Local:
    """The machine this runs on."""

    least_s: float = 1.0  # sampled at least this long
    most_s: float = 5.0  # and at most
    texts: int = 50  # taken in turn
    warm_up_rounds: int = 2
    steady: float = 0.01  # a round has nothing new to say when it lowers the sum of best times by less
    starts: int = 3  # fresh processes
    engines: ClassVar[tuple[str, ...]] = ("ort", "c")
    places: ClassVar[tuple[str, ...]] = ("local",)

    @classmethod
    def missing(cls) -> str | None:
        """What to install, if anything."""
        if not importlib.util.find_spec("onnxruntime"):
            return "no onnxruntime: pip install gritbench"
        try:
            compiler.host()
        except CouldNotMeasure as error:
            return f"engine ort is ready; for engine c: {error}"
        return None

    start_limit_s: float = 120.0

    def probe(self) -> Mapping[str, Any]:
        """Processor, system and threads; governor, clock rate, temperature and load where the system tells them."""
        cpufreq = Path("/sys/devices/system/cpu/cpu0/cpufreq")
        found: dict[str, Any] = {
            **machine.facts(),
            "governor": _line(cpufreq / "scaling_governor"),
            "frequency_mhz": _thousandth(cpufreq / "scaling_cur_freq"),
            "temperature_c": _thousandth(Path("/sys/class/thermal/thermal_zone0/temp")),
            "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        }
        return {name: value for name, value in found.items() if value is not None}

    def measure(self, artefact: Artefact, texts: Iterable[str]) -> Mapping[str, Any]:
        """Times of text in, logits out (``p50_us``, ...), and of the network alone (``neural_p50_us``, ...).

        The words of the texts are known to the artefact by then: a hash of a new word is not part of it.
        """
        chosen = _compiled.chosen(texts, self.texts)

        def whole(raw: str) -> np.ndarray:
            tokens = (artefact.tokenize(raw) or [""])[: artefact.max_tokens]
            return artefact.logits(artefact.intern(tokens)[None], np.array([len(tokens)], np.int32))

        read = [artefact.intern((artefact.tokenize(raw) or [""])[: artefact.max_tokens])[None] for raw in chosen]
        sequences = [(rows, np.array([rows.shape[1]], np.int32)) for rows in read]
        values = _spread.times(self._samples([partial(whole, raw) for raw in chosen]))
        neural = _spread.times(self._samples([partial(artefact.logits, *sequence) for sequence in sequences]))
        return values | {f"neural_{name}": value for name, value in neural.items()}

    def cost(self, artefact: Artefact, texts: Iterable[str]) -> records.CostPart:
        """The same times of engine ``c``: the program compiled for this very processor, in a process of its own."""
        some = _compiled.chosen(texts, self.texts)
        built = _compiled.runner(artefact, compiler.host(), [compiler.native()])
        work = _compiled.job(
            some, rounds=(self.warm_up_rounds, self.warm_up_rounds), least_s=self.least_s, most_s=self.most_s
        )
        times = _compiled.parse(_compiled.run([str(built.path)], work, self.start_limit_s))
        return _compiled.cell("local", artefact, some, times, {**self.probe(), **built.facts})

    def start(self, path: Path, raw: str) -> Mapping[str, float]:
        """A start from nothing, median of a few fresh processes: libraries, artefact, first answer, and all of it.

        ``cold_us`` is from the request for a process to its first logits. The files are in the page cache.
        """
        phases = []
        for _ in range(self.starts):
            begun = time.perf_counter_ns()
            parts = self._fresh(path, raw)
            phases.append([*parts, time.perf_counter_ns() - begun])
        names = ("import_us", "load_us", "first_us", "cold_us")
        return {
            name: round(statistics.median(column) / 1000, 1)
            for name, column in zip(names, zip(*phases, strict=True), strict=True)
        }

    def _fresh(self, path: Path, raw: str) -> list[int]:
        command = [sys.executable, "-c", _START, str(path), raw]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self.start_limit_s, check=False)
        except subprocess.TimeoutExpired:
            raise CouldNotMeasure(f"a fresh process gave no answer within {self.start_limit_s:g} s") from None
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise CouldNotMeasure(f"a fresh process could not answer a text: {said[:200]}")
        found: list[int] = json.loads(done.stdout)
        return found

    def _samples(self, calls: Sequence[Callable[[], object]], clock: Clock = time.perf_counter_ns) -> list[int]:
        """Nanoseconds of every call, in rounds, until the best times settle; the collector sleeps meanwhile."""
        for _ in range(self.warm_up_rounds):
            for call in calls:
                call()
        samples: list[int] = []
        best = [sys.maxsize] * len(calls)
        collecting = gc.isenabled()
        gc.disable()
        try:
            begun = clock()
            while True:
                before = sum(best)
                for k, call in enumerate(calls):
                    start = clock()
                    call()
                    took = clock() - start
                    samples.append(took)
                    best[k] = min(best[k], took)
                spent_s = (clock() - begun) / 1e9
                settled = sum(best) >= before * (1 - self.steady)
                if spent_s >= self.most_s or (spent_s >= self.least_s and settled):
                    return samples
        finally:
            if collecting:
                gc.enable()


def _line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _thousandth(path: Path) -> float | None:
    try:
        return int(_line(path) or "") / 1000
    except ValueError:
        return None
