"""C compilers: which are here, what they are called in a record, and running one.

``zig`` (the wheel ``ziglang``, in the extra ``arm``) is clang with every target in it, and knows the cores by name; for
this machine any gcc or clang will do. Two compilers give two counts, so a compiler and its flags stand in each record.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from grit.bench import machine
from grit.bench.types import CouldNotMeasure

FLAGS = ("-std=c99", "-O2", "-ffp-contract=off", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables")
REMEDY = "pip install 'gritbench[arm]'"
HOST_REMEDY = f"{REMEDY}, or your system's gcc or clang"
LIMIT_S = 600.0


@dataclass(frozen=True)
class Compiler:
    """How to call it, and what it calls itself."""

    command: tuple[str, ...]
    version: str

    def run(self, arguments: Sequence[str], folder: Path) -> None:
        """One call in ``folder``; CouldNotMeasure with its first complaint where it fails."""
        done = _run([*self.command, *arguments], folder)
        if done.returncode:
            said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
            raise CouldNotMeasure(
                f"{self.version} could not compile: {said}; report this, with your compiler's version"
            )


def _run(command: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise CouldNotMeasure(f"{command[0]} did not end within {LIMIT_S:g} s") from None
    except OSError as error:
        raise CouldNotMeasure(f"{command[0]} does not start ({error.strerror}): {HOST_REMEDY}") from None


def missing() -> str | None:
    """What to install for the cross compiler, if anything."""
    return None if importlib.util.find_spec("ziglang") else f"no cross compiler: {REMEDY}"


@lru_cache(maxsize=1)
def zig() -> Compiler:
    """The cross compiler; CouldNotMeasure with the remedy where it is not installed."""
    if lacking := missing():
        raise CouldNotMeasure(lacking)
    command = (sys.executable, "-m", "ziglang")
    number = _run([*command, "version"]).stdout.strip()
    clang = _run([*command, "cc", "--version"]).stdout.partition("\n")[0]
    return Compiler((*command, "cc"), f"zig {number} ({clang})")


@lru_cache(maxsize=1)
def host() -> Compiler:
    """A compiler for this machine: $CC, clang, zig, gcc or cc; CouldNotMeasure where there is none.

    In this order, since gcc 12 keeps arrays of vectors in memory that clang keeps in registers: a fifth of the speed.
    """
    for name in (os.environ.get("CC", ""), "clang", "zig", "gcc", "cc"):
        if name == "zig" and importlib.util.find_spec("ziglang"):
            return zig()
        path = shutil.which(name) if name and name != "zig" else None
        if path:
            return Compiler((path,), _run([path, "--version"]).stdout.partition("\n")[0])
    raise CouldNotMeasure(f"no C compiler: {HOST_REMEDY}")


def native() -> str:
    """The argument that tunes code to this very processor."""
    return "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"


def cached(compiler: Compiler, files: Mapping[str, str], arguments: Sequence[str], output: str) -> Path:
    """The file ``output`` that the arguments make of ``files`` (name -> text), compiled once a content and compiler.

    Lies in the user's cache folder under the digest of all that goes in, this processor among it where the code is
    tuned to it; built beside it and moved there whole. Raises CouldNotMeasure where nothing can be written.
    """
    tuned = machine.facts() if native() in arguments else {}
    processor = tuned.get("cpu"), tuned.get("instruction_sets")
    key = hashlib.sha256(repr((compiler.version, tuple(arguments), output, processor)).encode())
    for name, text in sorted(files.items()):
        key.update(f"{name}\0{len(text)}\0{text}".encode())
    place = _cache() / key.hexdigest()[:32] / output
    if place.is_file():
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as name:
            folder = Path(name)
            for file, text in files.items():
                (folder / file).write_text(text, encoding="utf-8")
            compiler.run(arguments, folder)
            (folder / output).replace(place)
    except OSError as error:
        raise CouldNotMeasure(f"cannot compile into {place.parent}: {error.strerror or error}; free it") from error
    return place


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gritbench" / "compiled"
