"""A device at the end of a line: what it is, one program pushed to it, and its own clock.

Nothing has to be installed there. A link says how a command is run and how bytes get across; all else is the same for
all of them: the program of :mod:`grit.bench.targets._compiled` is built for the processor that answers, its answers are
compared with the artefact's, and its times are the device's.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Any, Protocol

from grit.bench import machine, records
from grit.bench.export.c import compiler
from grit.bench.targets import _compiled
from grit.bench.targets._cores import CORES
from grit.bench.types import Artefact, CouldNotMeasure

TEXTS = 50  # taken in turn
LIMIT_S = 300.0
_CPUFREQ = "/sys/devices/system/cpu/cpu0/cpufreq"
_THERMAL = "/sys/class/thermal/thermal_zone0/temp"
PROBE = "; echo @; ".join(
    f"{command} 2>/dev/null"
    for command in (
        "uname -m",
        "cat /proc/cpuinfo",
        "uname -sr",
        f"cat {_CPUFREQ}/scaling_governor",
        f"cat {_CPUFREQ}/scaling_cur_freq",
        f"cat {_THERMAL}",
        "cat /proc/loadavg",
    )
)


class Link(Protocol):
    """The way to a device."""

    def ask(self, command: str) -> bytes:
        """What a shell command there writes; CouldNotMeasure with the remedy where nobody answers."""
        ...

    def push(self, data: bytes, place: str) -> None:
        """A file there."""
        ...

    @property
    def folder(self) -> str:
        """Where files may be put and run."""
        ...


def probe(link: Link) -> dict[str, Any]:
    """Architecture, cores and, where it tells them, governor, clock rate, temperature and load; unknown is left out."""
    parts = [part.strip() for part in link.ask(PROBE).decode(errors="replace").split("@\n")]
    if len(parts) != PROBE.count("echo @") + 1 or not parts[0]:
        raise CouldNotMeasure("the device does not answer as a Linux shell does; give it a /bin/sh with uname and cat")
    architecture, cpuinfo, kernel, governor, frequency, temperature, load = parts
    features = set(re.findall(r"\w+", " ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE))))
    found = {
        "architecture": architecture,
        "cpu": machine.cpu(cpuinfo) if re.search(r"^(?:model name|CPU part)\s*:", cpuinfo, re.MULTILINE) else None,
        "cores": len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or None,
        "kernel": kernel or None,
        "governor": governor or None,
        "frequency_mhz": int(frequency) / 1000 if frequency.isdecimal() else None,
        "temperature_c": int(temperature) / 1000 if temperature.isdecimal() else None,
        "load_1min": float(load.split()[0]) if load else None,
        "instruction_sets": sorted(features & {"asimd", "asimddp", "avx2", "fma"}),
    }
    return {name: value for name, value in found.items() if value is not None}


def processor(facts: dict[str, Any]) -> tuple[str, str]:
    """Triple and processor that code for the device is compiled for."""
    features = set(facts["instruction_sets"])
    match facts["architecture"]:
        case "aarch64" | "arm64":
            known = CORES.get(str(facts.get("cpu")).lower())  # the very code that an emulated core counts
            closest = CORES["cortex-a76" if "asimddp" in features else "cortex-a53"]
            return (known or closest).triple, (known or closest).cpu
        case "x86_64":
            return "x86_64-freestanding-none", "x86_64_v3" if {"avx2", "fma"} <= features else "x86_64"
        case other:
            raise CouldNotMeasure(f"the device is {other}: programs are built for aarch64 and x86_64 Linux")


def times(
    link: Link, artefact: Artefact, texts: list[str], least_s: float, most_s: float
) -> tuple[_compiled.Times, dict[str, Any]]:
    """What the program measured there, and the facts about both."""
    facts = probe(link)
    built = _compiled.runner(artefact, compiler.zig(), _compiled.static(*processor(facts)))
    folder = f"{link.folder}/grit-{secrets.token_hex(6)}"
    link.ask(f"mkdir {folder}")
    try:
        link.push(built.path.read_bytes(), f"{folder}/runner")
        link.push(_compiled.job(texts, least_s=least_s, most_s=most_s), f"{folder}/job")
        link.ask(f"chmod 700 {folder}/runner")
        answer = link.ask(f"{folder}/runner < {folder}/job")
    finally:
        link.ask(f"rm -r {folder}")
    return _compiled.parse(answer), {**facts, **built.facts}


def cost(
    target: str, link: Link, artefact: Artefact, texts: Iterable[str], least_s: float, most_s: float
) -> records.CostPart:
    """One measured cell of engine ``c``."""
    some = _compiled.chosen(texts, TEXTS)
    found, facts = times(link, artefact, some, least_s, most_s)
    return _compiled.cell(target, artefact, some, found, facts)
