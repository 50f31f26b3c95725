"""An arm64 system of one's own, in a folder: Debian's Python and C library, and onnxruntime's wheel for aarch64.

``grit doctor --install`` builds it without root: apt fetches packages of another architecture into folders of the
user's, dpkg-deb unpacks them, and pip fetches the wheels of the very versions that are installed here, so that both
sides of a comparison are one release. Nothing of the running system is touched. About 60 MB come, 190 MB stay.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from grit.bench.types import CouldNotMeasure

COMMAND = "grit doctor --install"
REMEDY = f"{COMMAND} (a Debian system: apt-get and dpkg-deb; no root)"
PACKAGES = ("python3", "libstdc++6")  # and what they depend on
WHEELS = ("onnxruntime", "numpy")
GLIBC = 36  # of the oldest Debian that this is meant for (12): wheels for it and for older ones run
LIMIT_S = 900.0


def folder() -> Path:
    """Where it is, or would be: in the user's data folder."""
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return home / "gritbench" / "arm64"


def wheels() -> Path:
    """The folder of its Python packages."""
    return folder() / "wheels"


def missing() -> str | None:
    """What to do to have it, if it is not there."""
    return None if wheels().is_dir() else f"no arm64 system with onnxruntime: {REMEDY}"


def python() -> Path:
    """Its interpreter; CouldNotMeasure with the remedy where it is not there."""
    if lacking := missing():
        raise CouldNotMeasure(lacking)
    return _python(folder())


def versions() -> dict[str, str]:
    """What runs in it: library -> version, as its wheels say."""
    names = (path.name.removesuffix(".dist-info") for path in wheels().glob("*.dist-info"))
    found = dict(name.split("-", 1) for name in names)
    return {name: found[name] for name in WHEELS if name in found} | {"python": python().name.removeprefix("python")}


def prefix(part: str, features: Sequence[str], place: Path) -> Path:
    """The system as a core sees it, linked in the empty folder ``place``; ``part`` is the core's number.

    onnxruntime reads what it runs on from /proc/cpuinfo: without one it crashes, and with another core's it runs
    instructions that this one does not have.
    """
    for name in ("lib", "usr"):
        (place / name).symlink_to(folder() / name)
    (place / "proc").mkdir()
    said = {
        "processor": "0",
        "Features": " ".join(features),
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": "0x0",
        "CPU part": part,
        "CPU revision": "0",
    }
    text = "".join(f"{name:<15}: {value}\n" for name, value in said.items())
    (place / "proc" / "cpuinfo").write_text(text + "\n", encoding="ascii")
    return place


def install() -> Iterator[str]:
    """Builds it anew, and says what it does; it takes its place when it is whole. CouldNotMeasure with the reason."""
    lacking = [tool for tool in ("apt-get", "dpkg-deb") if not shutil.which(tool)]
    if lacking:
        raise CouldNotMeasure(
            f"no {' and no '.join(lacking)}: an arm64 system is built from Debian's packages, on Debian"
        )
    place = folder()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as name:
        work, fresh = Path(name), Path(name) / "arm64"
        fresh.mkdir()
        yield f"fetching {', '.join(PACKAGES)} for arm64, and what they need"
        packages = _packages(work)
        for package in packages:
            _run(["dpkg-deb", "-x", str(package), str(fresh)])
        if not (fresh / "lib").exists():  # Debian 13 leaves this link to a script
            (fresh / "lib").symlink_to("usr/lib")
        pins = [f"{wheel}=={version(wheel)}" for wheel in WHEELS]
        yield f"{len(packages)} packages unpacked; fetching {', '.join(pins)} for aarch64"
        _run([*_pip(fresh), *pins])
        old = work / "old"
        if place.exists():
            place.replace(old)
        fresh.replace(place)
    yield f"ready in {place}"


def _packages(work: Path) -> list[Path]:
    """The archives, fetched by an apt whose state and cache lie in ``work`` and which has no package installed."""
    state, cache = work / "state", work / "cache"
    for part in (state / "lists" / "partial", cache / "archives" / "partial"):
        part.mkdir(parents=True)
    (state / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": cache,
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    _run([*apt, "update"])
    _run([*apt, "install", "--yes", "--download-only", "--no-install-recommends", *PACKAGES])
    return sorted((cache / "archives").glob("*.deb"))


def _pip(fresh: Path) -> list[str]:
    """pip, told to fetch for the interpreter in ``fresh``."""
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(17, GLIBC + 1)]
    return [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"),
        *(f"--platform={platform}" for platform in (*platforms, "manylinux2014_aarch64")),
        f"--python-version={_python(fresh).name.removeprefix('python')}",
        *("--implementation=cp", f"--target={fresh / 'wheels'}"),
    ]


def _python(root: Path) -> Path:
    """The interpreter with its version in its name, as python3.11."""
    return (root / "usr" / "bin" / "python3").resolve()


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise CouldNotMeasure(f"{command[0]} did not end within {LIMIT_S:g} s; try again") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith(("E:", "ERROR", "dpkg-deb"))]
        reason = (said or done.stderr.strip().splitlines() or ["it said nothing"])[0]
        raise CouldNotMeasure(f"{Path(command[0]).name} failed: {reason[:200]}")
