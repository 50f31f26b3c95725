"""Engine ``c`` on a target: an artefact's source, its program there, and whether it answers what the artefact does.

Every target that runs compiled code builds it here, so equality is asked of all of them in the same words.
"""

from __future__ import annotations

import hashlib
import struct
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from grit.bench import records, text
from grit.bench.export import words
from grit.bench.export.c import compiler, emitter
from grit.bench.targets import _equality, _spread
from grit.bench.types import Artefact, CouldNotMeasure

ENGINE = "c"
TEXTS = 256  # that runner.c has room for
TEXT_BYTES = 1 << 20  # likewise


def emitted(artefact: Artefact) -> emitter.Emission:
    """The C source of an artefact; CouldNotMeasure for one that is no program of ours."""
    program = getattr(artefact, "program", None)
    if program is None:
        raise CouldNotMeasure("engine c compiles our own programs only: this artefact is a graph, measured by ort")
    return emitter.emit(program, digest=artefact.digest)


def chosen(texts: Iterable[str], most: int) -> list[str]:
    """The first ``most`` texts in normal form; CouldNotMeasure where there is none."""
    found = [text.normalise(raw) for raw, _ in zip(texts, range(most), strict=False)]
    if not found:
        raise CouldNotMeasure("no texts to measure on: pass some of the dev split")
    return found


def compare(artefact: Artefact, texts: Sequence[str], raw: Sequence[bytes]) -> dict[str, Any]:
    """What :func:`_equality.compare` says of a program's logits, and the artefact that they should be of."""
    program = artefact.program  # type: ignore[attr-defined]  # emitted() refuses artefacts without one
    logits = np.array([emitter.logits(program, one) for one in raw])
    found = _equality.compare(logits, words.answer(artefact, texts), artefact.exact)
    return found | {"artefact": artefact.digest}


# --- runner.c: a program that answers and times itself -----------------------------------------------------


@dataclass(frozen=True)
class Runner:
    """The compiled program and what a record says of it."""

    path: Path
    compiler: str
    flags: str

    @property
    def facts(self) -> dict[str, Any]:
        data = self.path.read_bytes()
        return {
            "compiler": self.compiler,
            "flags": self.flags,
            "binary_sha256": hashlib.sha256(data).hexdigest(),
            "binary_bytes": len(data),
        }


@dataclass(frozen=True)
class Times:
    """What a runner wrote: raw logits and tokens a text, nanoseconds a call, rounds over the texts."""

    logits: Sequence[bytes]
    tokens: Sequence[int]
    whole_ns: np.ndarray
    neural_ns: np.ndarray
    clock_ns: int  # between two readings of the clock: part of every sample


def runner(artefact: Artefact, cc: compiler.Compiler, arguments: Sequence[str]) -> Runner:
    """model.c and runner.c in one program, built once a source and compiler."""
    source = (files("grit.bench.targets") / "runner.c").read_text(encoding="utf-8")
    flags = [*compiler.FLAGS, *arguments]
    sources = dict(emitted(artefact).files) | {"runner.c": source}
    path = compiler.cached(cc, sources, [*flags, "model.c", "runner.c", "-o", "runner"], "runner")
    return Runner(path, cc.version, " ".join(flags))


def static(triple: str, cpu: str) -> tuple[str, ...]:
    """Arguments of the cross compiler for a program that needs a Linux kernel and nothing else."""
    return ("-target", triple, f"-mcpu={cpu}", "-ffreestanding", "-nostdlib", "-static", "-DGRIT_LINUX=1", "-s")


def job(texts: Sequence[str], *, rounds: tuple[int, int] = (2, 2), least_s: float = 1.0, most_s: float = 5.0) -> bytes:
    """What a runner reads; ``rounds`` warm up text to logits, and the network alone."""
    raw = [one.encode() for one in texts[:TEXTS]]
    if sum(map(len, raw)) > TEXT_BYTES:
        raise CouldNotMeasure(f"texts of {sum(map(len, raw)):,} bytes: a runner takes {TEXT_BYTES:,}; pass fewer")
    head = struct.pack("<5I", len(raw), *rounds, round(1000 * least_s), round(1000 * most_s))
    return head + b"".join(struct.pack("<I", len(one)) + one for one in raw)


def run(command: Sequence[str], work: bytes, limit_s: float) -> bytes:
    """What a program makes of its standard input; CouldNotMeasure with its last words where it fails."""
    try:
        done = subprocess.run(command, input=work, capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise CouldNotMeasure(f"{command[0]} did not end within {limit_s:g} s") from None
    except OSError as error:
        raise CouldNotMeasure(f"{command[0]} does not start: {error.strerror}") from None
    if done.returncode:
        said = (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise CouldNotMeasure(f"{command[0]} ended with code {done.returncode}: {said[:200]}")
    return done.stdout


def parse(data: bytes) -> Times:
    """What a runner wrote; CouldNotMeasure where that is not whole."""
    try:
        width, classes, texts, clock = struct.unpack_from("<4I", data)
        at, logits, tokens = 16, [], []
        for _ in range(texts):
            tokens.append(struct.unpack_from("<I", data, at)[0])
            logits.append(data[at + 4 : at + 4 + width * classes])
            at += 4 + width * classes
        samples = []
        for _ in range(2):
            (n,) = struct.unpack_from("<I", data, at)
            samples.append(np.frombuffer(data, "<u4", n, at + 4))
            at += 4 + 4 * n
    except (struct.error, ValueError):
        raise CouldNotMeasure(f"the program broke off after {len(data)} bytes of its answer; try again") from None
    return Times(logits, tokens, samples[0], samples[1], clock)


def cell(
    target: str, artefact: Artefact, texts: Sequence[str], times: Times, facts: dict[str, Any]
) -> records.CostPart:
    """A measured cell: equality first, then the spread of text to logits and of the network alone."""
    said = facts | compare(artefact, texts, times.logits) | {"clock_ns": times.clock_ns}
    said["p50_tokens"] = sorted(times.tokens)[len(times.tokens) // 2]
    values = _spread.times(times.whole_ns)
    values |= {f"neural_{name}": value for name, value in _spread.times(times.neural_ns).items()}
    return records.CostPart(target=target, engine=ENGINE, kind="measured", values=values, facts=said)
