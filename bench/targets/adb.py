"""A phone on the cable: measured time of the compiled program there, over adb.

``adb://SERIAL`` as ``adb devices`` lists it. The phone needs USB debugging and nothing else: one static file is pushed
to /data/local/tmp, run and removed.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from grit.bench import records
from grit.bench.export.c import compiler
from grit.bench.targets import _compiled, _device
from grit.bench.types import Artefact, CouldNotMeasure, UsageError

_NO_ADB = "no adb: install Android's platform tools (Debian: apt install adb)"


@dataclass(frozen=True)
class Adb:
    """One phone, by its serial."""

    serial: str = ""
    least_s: float = 1.0  # sampled at least this long
    most_s: float = 5.0  # and at most
    engines: ClassVar[tuple[str, ...]] = (_compiled.ENGINE,)
    places: ClassVar[tuple[str, ...]] = ("adb://SERIAL",)

    @classmethod
    def missing(cls) -> str | None:
        """What to install, if anything."""
        return _NO_ADB if not shutil.which("adb") else compiler.missing()

    @property
    def link(self) -> _Link:
        """The way there; UsageError for what is no serial."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.:-]*", self.serial):
            raise UsageError(f"adb://{self.serial}: expected adb://SERIAL, as 'adb devices' lists it")
        return _Link(self.serial)

    def probe(self) -> Mapping[str, Any]:
        """What the phone says of itself."""
        return _device.probe(self.link)

    def measure(self, artefact: Artefact, texts: Iterable[str]) -> Mapping[str, Any]:
        """The values of :meth:`cost`."""
        return self.cost(artefact, texts).values

    def cost(self, artefact: Artefact, texts: Iterable[str]) -> records.CostPart:
        """Times of text to logits, and of the network alone (``neural_``), by the phone's own clock."""
        return _device.cost(f"adb://{self.serial}", self.link, artefact, texts, self.least_s, self.most_s)


@dataclass(frozen=True)
class _Link:
    serial: str
    folder: ClassVar[str] = "/data/local/tmp"

    def ask(self, command: str) -> bytes:
        # exec-out is the shell without a terminal, so bytes stay bytes
        return self._run("exec-out", command)

    def push(self, data: bytes, place: str) -> None:
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "pushed"
            file.write_bytes(data)
            self._run("push", str(file), place)

    def _run(self, *words: str) -> bytes:
        if not shutil.which("adb"):
            raise CouldNotMeasure(_NO_ADB)
        try:
            return _compiled.run(["adb", "-s", self.serial, *words], b"", _device.LIMIT_S)
        except CouldNotMeasure as error:
            raise CouldNotMeasure(f"adb://{self.serial}: {error}; check that 'adb devices' lists it") from None
