"""The facts beside a number: what each system tells, what is left out where it tells nothing, whose times compare."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit import __version__
from grit.bench import machine

BIG_LITTLE = "".join(f"processor\t: {k}\nCPU part\t: {part}\n" for k, part in enumerate(["0xd05"] * 4 + ["0xd0b"] * 4))


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A system that tells nothing: no /proc, no /sys, no distribution, no affinity, no memory."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no such thing here")

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(platform, "freedesktop_os_release", refuse)
    monkeypatch.setattr(os, "sysconf", refuse)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    for name in machine.THREADS:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


# --- facts ------------------------------------------------------------------------------------------------


def test_a_system_that_tells_nothing_gets_no_guesses(bare: pytest.MonkeyPatch) -> None:
    bare.setattr(sys, "platform", "linux")
    assert set(machine.facts()) == {"os", "kernel"}


def test_what_is_left_out_is_only_what_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fact of zero or False would be a fact; only None and empty collections are left out."""
    monkeypatch.setattr(machine, "_memory_bytes", lambda: 0)
    assert machine.facts("")["memory_bytes"] == 0


def test_thread_settings_are_those_of_the_environment(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("OMP_NUM_THREADS", "3")
    bare.setenv("OPENBLAS_NUM_THREADS", "")
    assert machine.facts("")["threads"] == {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": ""}


def test_a_board_is_named_without_the_zero_that_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: str) -> str:
        return "Some Board Model 4\0\n" if path.endswith("base/model") else ""

    monkeypatch.setattr(machine, "_read", read)
    assert machine.facts("")["board"] == "Some Board Model 4"


@pytest.mark.parametrize("data", [b"\xff\xfeCPU", b"model name\t: \xc3( 3000\n"])
def test_bytes_that_are_no_text_are_no_error(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_bytes(data)
    found = machine._read(str(tmp_path / "cpuinfo"))
    assert "\ufffd" in found
    machine.facts(found)


def test_what_cannot_be_read_is_empty(tmp_path: Path) -> None:
    assert machine._read(str(tmp_path / "none")) == machine._read(str(tmp_path)) == ""


def test_memory_is_pages_times_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(os, "sysconf", lambda name: asked[name])
    assert machine.facts("")["memory_bytes"] == 4_096_000

    def unknown(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert "memory_bytes" not in machine.facts("")


def test_usable_cores_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    found = machine.facts("")
    assert (found["cores"], found["cores_usable"]) == (64, 3)


# --- the processor ----------------------------------------------------------------------------------------


def test_part_numbers_go_before_names_and_each_core_is_named_once() -> None:
    assert machine.cpu("model name\t: ARMv8 Processor rev 3 (v8l)\nCPU part\t: 0xd08\n") == "Cortex-A72"
    assert machine.cpu(BIG_LITTLE) == "Cortex-A55 + Cortex-A76"
    assert machine.cpu("".join(reversed(BIG_LITTLE.splitlines(keepends=True)))) == "Cortex-A76 + Cortex-A55"


@given(st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), min_size=1, max_size=20), st.integers(1, 9))
def test_any_name_is_read_back(name: str, cores: int) -> None:
    lines = [f"processor\t: {k}\nmodel name\t: {name}  \nflags\t\t: fpu\n" for k in range(cores)]
    assert machine.cpu("\n".join(lines)) == name


def test_a_name_inside_another_line_is_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert machine.cpu("x model name : X\nCPU parts : 0xd05\nmodel name :\n") is None


def test_other_systems_are_asked_in_their_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(platform, "processor", lambda: "Some Family 6")
    assert machine.cpu("") == "Some Family 6"
    monkeypatch.setattr(sys, "platform", "darwin")
    called: list[list[str]] = []

    def run(command: list[str], **options: object) -> SimpleNamespace:
        called.append(command)
        assert options["timeout"] and options["check"]
        return SimpleNamespace(stdout="Apple M9\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert machine.cpu("") == "Apple M9"
    assert called == [["sysctl", "-n", "machdep.cpu.brand_string"]]


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(), subprocess.TimeoutExpired("sysctl", 5), subprocess.CalledProcessError(1, "sysctl")],
)
def test_a_command_that_fails_tells_nothing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def run(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    assert machine._sysctl("any") is None
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="\n"))
    assert machine._sysctl("any") is None


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("flags\t\t: fpu avx2 avx512f amx_int8", ["avx2", "avx512f", "amx_int8"]),
        ("Features\t: fp asimd asimddp i8mm sve", ["asimd", "asimddp", "i8mm", "sve"]),
        ("vmx flags\t: avx2", []),  # what a guest may do, in a line that only ends like ours
        ("bugs\t\t: avx2\nflags : fpu", []),
        ("flags : avx512_vnni", ["avx512_vnni"]),
    ],
)
def test_instruction_sets_come_from_their_own_line(line: str, found: list[str]) -> None:
    assert machine.facts(f"processor : 0\n{line}\n").get("instruction_sets", []) == found


# --- the system -------------------------------------------------------------------------------------------


def test_the_distribution_names_itself_or_the_system_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"PRETTY_NAME": "Some Linux 12"})
    assert machine.operating_system() == "Some Linux 12"
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "some"})
    monkeypatch.setattr(platform, "mac_ver", lambda: ("", ("", "", ""), ""))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "release", lambda: "6.1")
    assert machine.operating_system() == "Linux 6.1"
    monkeypatch.setattr(platform, "mac_ver", lambda: ("14.5", ("", "", ""), "arm64"))
    assert machine.operating_system() == "macOS 14.5"


def test_libraries_that_are_not_here_have_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "numpy":
            return "9.9"
        raise PackageNotFoundError(name)

    monkeypatch.setattr(machine, "version", version)
    found = machine.versions()
    assert found.pop("python").split()[-1] == platform.python_version()
    assert found == {"gritbench": __version__, "numpy": "9.9"}


# --- whose times compare ----------------------------------------------------------------------------------

HERE = {"cpu": "X", "board": "B", "architecture": "arm64", "cores": 4, "cores_usable": 2, "os": "L 1", "threads": {}}


@pytest.mark.parametrize("key", HERE)
def test_each_fact_that_moves_a_time_parts_two_machines(key: str) -> None:
    other = {**HERE, key: "something else"}
    without = {name: value for name, value in HERE.items() if name != key}
    assert machine.same(HERE, dict(HERE))
    assert not machine.same(HERE, other) and not machine.same(other, HERE)
    assert not machine.same(HERE, without) and not machine.same(without, HERE)


def test_a_fact_that_moves_no_time_does_not() -> None:
    assert machine.same(HERE | {"memory_bytes": 1, "kernel": "a"}, HERE | {"memory_bytes": 2, "kernel": "b"})
    assert not machine.same({**HERE, "cpu": ""}, {**HERE, "cpu": ""})  # two processors without a name
