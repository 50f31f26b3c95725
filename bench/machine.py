"""What a number was measured on: processor, cores, system, Python, libraries, threads.

Facts that a reader needs to judge a time, read without root and without running anything for long; a fact
that the system does not tell is left out, never guessed. No host name, user or path is read.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from grit import __version__

LIBRARIES = (
    "numpy",
    "torch",
    "onnx",
    "onnxruntime",
    "nltk",
    "pandas",
    "msgspec",
    "safetensors",
    "textattack",
    "unicorn",
    "ziglang",
)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Instruction sets that change how fast small integer and float kernels run.
_ISA = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "neon", "asimd", "asimddp", "i8mm", "sve")
# ARM processors give numbers instead of names (Arm, "Main ID Register", part numbers of implementer 0x41).
ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse N1",
    "0xd40": "Neoverse V1",
    "0xd49": "Neoverse N2",
    "0xd4f": "Neoverse V2",
}


def facts(cpuinfo: str | None = None) -> dict[str, Any]:
    """This machine, as JSON values. ``cpuinfo``: the text of /proc/cpuinfo, read if not given."""
    text = _read("/proc/cpuinfo") if cpuinfo is None else cpuinfo
    found: dict[str, Any] = {
        "cpu": cpu(text),
        "board": _read("/sys/firmware/devicetree/base/model").strip("\0\n ") or None,
        "architecture": platform.machine() or None,
        "instruction_sets": [name for name in _ISA if re.search(rf"^(?:flags|Features)\s*:.*\b{name}\b", text, re.M)],
        "cores": os.cpu_count(),
        "cores_usable": _usable_cores(),
        "memory_bytes": _memory_bytes(),
        "os": operating_system(),
        "kernel": f"{platform.system()} {platform.release()}",
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
    }
    return {name: value for name, value in found.items() if value not in (None, [], {})}


def versions() -> dict[str, str]:
    """gritbench, Python, and the libraries that are installed; none is imported for it."""
    found = {"gritbench": __version__, "python": f"{platform.python_implementation()} {platform.python_version()}"}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether times of two machines may be compared: same processor, cores, system and thread settings."""
    keys = ("cpu", "board", "architecture", "cores", "cores_usable", "os", "threads")
    return bool(a.get("cpu")) and all(a.get(key) == b.get(key) for key in keys)


def cpu(cpuinfo: str) -> str | None:
    """The processor's name from the text of /proc/cpuinfo; each kind of core once on big.LITTLE chips."""
    names = re.findall(r"^(?:model name|Model Name|Processor)\s*:\s*(.+?)\s*$", cpuinfo, re.M)
    parts = re.findall(r"^CPU part\s*:\s*(\S+)", cpuinfo, re.M)
    cores = [ARM_CORES.get(part, f"ARM part {part}") for part in parts]
    for found in (cores, names):
        if found:
            return " + ".join(dict.fromkeys(found))
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string")
    return platform.processor() or None


def operating_system() -> str:
    """The distribution's name with its version, or the system's."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name, _, _ = platform.mac_ver()
        return f"macOS {name}" if name else f"{platform.system()} {platform.release()}"


def _usable_cores() -> int | None:
    """Cores this process may run on: a container or taskset may grant fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _sysctl(name: str) -> str | None:
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
