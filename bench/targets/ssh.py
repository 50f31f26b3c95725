"""A board on the network: measured time of the compiled program there, over ssh.

``ssh://user@host`` or ``ssh://user@host:port``. The board needs Linux, a shell and a key that lets you in without a
password; one static file is sent, run and removed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from grit.bench import records
from grit.bench.export.c import compiler
from grit.bench.targets import _compiled, _device
from grit.bench.types import Artefact, CouldNotMeasure, UsageError

_NO_SSH = "no ssh: install OpenSSH's client (Debian: apt install openssh-client)"


@dataclass(frozen=True)
class Ssh:
    """One board, by the name that ssh knows it by."""

    where: str = ""
    least_s: float = 1.0  # sampled at least this long
    most_s: float = 5.0  # and at most
    engines: ClassVar[tuple[str, ...]] = (_compiled.ENGINE,)
    places: ClassVar[tuple[str, ...]] = ("ssh://user@host",)

    @classmethod
    def missing(cls) -> str | None:
        """What to install, if anything."""
        return _NO_SSH if not shutil.which("ssh") else compiler.missing()

    @property
    def link(self) -> _Link:
        """The way there; UsageError for what is no name of a board."""
        named = re.fullmatch(r"(\w[\w.@-]*)(?::(\d+))?", self.where, re.ASCII)
        if not named:
            raise UsageError(f"ssh://{self.where}: expected ssh://user@host or ssh://user@host:port")
        return _Link(named[1], named[2] or "")

    def probe(self) -> Mapping[str, Any]:
        """What the board says of itself."""
        return _device.probe(self.link)

    def measure(self, artefact: Artefact, texts: Iterable[str]) -> Mapping[str, Any]:
        """The values of :meth:`cost`."""
        return self.cost(artefact, texts).values

    def cost(self, artefact: Artefact, texts: Iterable[str]) -> records.CostPart:
        """Times of text to logits, and of the network alone (``neural_``), by the board's own clock."""
        return _device.cost(f"ssh://{self.where}", self.link, artefact, texts, self.least_s, self.most_s)


@dataclass(frozen=True)
class _Link:
    host: str
    port: str
    folder: ClassVar[str] = "/tmp"

    def ask(self, command: str) -> bytes:
        return self._run(command, b"")

    def push(self, data: bytes, place: str) -> None:
        self._run(f"cat > {place}", data)

    def _run(self, command: str, data: bytes) -> bytes:
        if not shutil.which("ssh"):
            raise CouldNotMeasure(_NO_SSH)
        options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", *(["-p", self.port] if self.port else [])]
        try:
            return _compiled.run(["ssh", *options, self.host, command], data, _device.LIMIT_S)
        except CouldNotMeasure as error:
            raise CouldNotMeasure(f"ssh://{self.host}: {error}; check that 'ssh {self.host} true' works") from None
