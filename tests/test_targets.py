"""Targets: emulated cores count exactly and answer the same bits; devices are believed only where they agree."""

from __future__ import annotations

import dataclasses
import getpass
import importlib.util
import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import measure, registry
from grit.bench.export import packing, quantise, words
from grit.bench.export.fixed import FixedArtefact, FixedProgram
from grit.bench.export.floating import FloatArtefact
from grit.bench.records import CostPart
from grit.bench.targets import _calibration, _compiled, _device, _spread
from grit.bench.targets._cores import CORES
from grit.bench.targets.adb import Adb
from grit.bench.targets.emu import Emu
from grit.bench.targets.qemu import Qemu
from grit.bench.targets.ssh import Ssh
from grit.bench.types import (
    AttentionPool,
    CouldNotMeasure,
    Dense,
    FastGrnn,
    Kernel,
    Lstm,
    MalformedInput,
    Mean,
    Program,
    Rows,
    Ternary,
    UsageError,
)

LINUX = sys.platform == "linux"
ARM = all(importlib.util.find_spec(name) for name in ("ziglang", "unicorn", "elftools"))
needs_arm = pytest.mark.skipif(not ARM, reason="the extra arm is not installed")
WORDS = ("", *(a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "un")), "naïve", "ça", "it's", "7", "!")
TEXTS = ["ba be naïve", "", "ÇA va it's 7 !", "日本語 \U0001f600 ba", " ".join(WORDS[1:]), "ba " * 10_000]


def draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def program(body: str, seed: int = 0) -> Program:
    rng = np.random.default_rng(seed)
    table = Rows(draw(rng, len(WORDS), 9))
    if body == "lstm":
        lstm = Lstm(draw(rng, 44, 9), draw(rng, 44, 11), draw(rng, 44))
        return Program(table, lstm, Dense(draw(rng, 3, 11), draw(rng, 3)), WORDS, 30)
    if body == "fastgrnn":
        cell = FastGrnn(draw(rng, 11, 9), draw(rng, 11, 11), draw(rng, 11), draw(rng, 11), 0.9, 0.05)
        return Program(table, cell, Dense(draw(rng, 3, 11), draw(rng, 3)), WORDS, 30)
    if body == "pool":  # over hashed n-grams: products of 64 bits and divisions, which a Cortex-M0 does not have
        maps = [Dense(draw(rng, 5, 9), draw(rng, 5), relu=True) for _ in range(2)]
        kernel = Kernel(draw(rng, 6, 3, 5), draw(rng, 6), draw(rng, 6, 3, 5), draw(rng, 6))
        inside = AttentionPool(maps[0], maps[1], (kernel,))
        return Program(Rows(draw(rng, 37, 9), 2), inside, Dense(draw(rng, 3, 6), draw(rng, 3)), (), 30)
    return Program(Ternary(12), Mean(), Dense(draw(rng, 3, 12), draw(rng, 3)), (), 30)


def artefact(body: str, seed: int = 0) -> FixedArtefact:
    data = packing.pack(quantise.quantise(program(body, seed), TEXTS[:5]))
    found = packing.artefact(data)
    assert isinstance(found, FixedArtefact)
    return found


# --- spreads and the words of a runner ------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300))
def test_counts_are_samples_and_ordered(samples: list[int]) -> None:
    found = _spread.counts("instructions", samples)
    values = list(found.values())
    assert values == sorted(values) and set(values) <= set(samples)
    assert found["min_instructions"] == min(samples) and found["max_instructions"] == max(samples)
    below = sum(sample <= found["p90_instructions"] for sample in samples)
    assert below / len(samples) >= 0.9 - 1 / len(samples)


def answer_of(logits: np.ndarray, tokens: list[int], whole: list[int], neural: list[int]) -> bytes:
    """What runner.c writes."""
    out = struct.pack("<4I", 4, logits.shape[1], len(logits), 25)
    for row, n in zip(logits.astype("<i4"), tokens, strict=True):
        out += struct.pack("<I", n) + row.tobytes()
    for samples in (whole, neural):
        out += struct.pack("<I", len(samples)) + np.array(samples, "<u4").tobytes()
    return out


@given(st.integers(1, 5), st.integers(1, 4), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20), st.data())
def test_what_a_runner_writes_is_read_back_and_nothing_less(
    texts: int, classes: int, samples: list[int], data: st.DataObject
) -> None:
    logits = np.arange(texts * classes).reshape(texts, classes) - 3
    raw = answer_of(logits, list(range(1, texts + 1)), samples, samples[::-1])
    times = _compiled.parse(raw)
    np.testing.assert_array_equal(np.frombuffer(b"".join(times.logits), "<i4").reshape(logits.shape), logits)
    assert times.tokens == list(range(1, texts + 1)) and times.clock_ns == 25
    assert times.whole_ns.tolist() == samples and times.neural_ns.tolist() == samples[::-1]
    with pytest.raises(CouldNotMeasure, match="broke off"):
        _compiled.parse(raw[: data.draw(st.integers(0, len(raw) - 1))])


def test_a_job_is_bounded() -> None:
    work = _compiled.job(["é", ""], rounds=(3, 4), least_s=0.5, most_s=2)
    assert work == struct.pack("<5I", 2, 3, 4, 500, 2000) + struct.pack("<I", 2) + "é".encode() + struct.pack("<I", 0)
    assert struct.unpack_from("<I", _compiled.job(["a"] * 400))[0] == _compiled.TEXTS
    with pytest.raises(CouldNotMeasure, match="pass fewer"):
        _compiled.job(["a" * 600_000] * 2)


def test_no_texts_no_number() -> None:
    with pytest.raises(CouldNotMeasure, match="no texts"):
        _compiled.chosen([], 5)
    assert _compiled.chosen(iter([" a  b", "e\u0301", "c"]), 2) == ["a b", "é"]


def test_logits_that_differ_by_a_bit_are_refused() -> None:
    one = artefact("lstm")
    raw = np.round(words.answer(one, TEXTS) * 2.0**one.program.logit_bits).astype("<i4")
    facts = _compiled.compare(one, TEXTS, [row.tobytes() for row in raw])
    assert (facts["output_error"], facts["output_allowed"], facts["compared_texts"]) == (0.0, 0.0, len(TEXTS))
    assert facts["artefact"] == one.digest
    raw[-1, 0] ^= 1
    with pytest.raises(CouldNotMeasure, match="logits differ"):
        _compiled.compare(one, TEXTS, [row.tobytes() for row in raw])


def test_a_program_that_fails_or_hangs_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(CouldNotMeasure, match="ended with code 3: so it is"):
        _compiled.run([sys.executable, "-c", "import sys; print('so it is', file=sys.stderr); sys.exit(3)"], b"", 20)
    with pytest.raises(CouldNotMeasure, match=r"within 0\.2 s"):
        _compiled.run([sys.executable, "-c", "import time; time.sleep(9)"], b"", 0.2)
    with pytest.raises(CouldNotMeasure, match="does not start"):
        _compiled.run([str(tmp_path / "none")], b"", 1)


# --- emulated cores ---------------------------------------------------------------------------------------


def test_cores_are_the_agreed_ones_and_generic_ones_say_so() -> None:
    assert set(CORES) == {f"cortex-{name}" for name in ("a53", "a72", "a76", "m0", "m4", "m7")}
    assert registry.load("targets", "emu") is Emu
    assert CORES["cortex-a76"].label == "cortex-a76 code, generic core"
    assert CORES["cortex-a53"].label == "cortex-a53"
    assert [name for name, core in CORES.items() if core.cache is None] == ["cortex-m0", "cortex-m4"]
    with pytest.raises(UsageError, match="unknown core 'cortex-x9'"):
        Emu("cortex-x9").probe()


@needs_arm
@pytest.mark.parametrize(
    ("core", "body"),
    [
        ("cortex-m4", "lstm"),
        ("cortex-m0", "pool"),
        ("cortex-a53", "fastgrnn"),
        ("cortex-a76", "lstm"),
        *(
            pytest.param(core, body, marks=pytest.mark.long)
            for core in CORES
            for body in ("lstm", "fastgrnn", "mean", "pool")
            if f"{core[-2:]} {body}" not in ("m4 lstm", "m0 pool", "53 fastgrnn", "76 lstm")
        ),
    ],
)
def test_an_emulated_core_gives_the_bits_of_the_reference(core: str, body: str) -> None:
    """A signed char, an unaligned word or another order of sums would show; each core has its own kernels."""
    cell = Emu(core, cached_texts=1).cost(artefact(body), TEXTS)
    values, facts = cell.values, cell.facts
    assert (cell.kind, cell.engine, cell.target) == ("emulated", "c", f"emu://{core}")
    assert facts["output_error"] == 0.0 and facts["compared_texts"] == len(TEXTS)
    assert {"compiler", "flags", "emulator", "core", "artefact"} <= set(facts)
    assert not any(name.endswith(("_us", "_ms", "_ns", "_s")) for name in values)
    assert values["min_neural_instructions"] < values["max_neural_instructions"]  # one token and thirty
    assert values["p50_instructions"] > values["p50_neural_instructions"]
    assert values["ram_bytes"] >= values["scratch_bytes"] + values["stack_bytes"]
    assert values["flash_bytes"] > values["code_bytes"] > 500
    assert ("p50_neural_misses" in values) == (CORES[core].cache is not None)


@needs_arm
def test_a_count_is_the_same_in_every_process() -> None:
    one = artefact("lstm")
    first, second = (Emu("cortex-m4").cost(one, TEXTS[:2]).values for _ in range(2))
    assert first == second


@needs_arm
def test_texts_that_are_not_counted_are_compared() -> None:
    one = artefact("pool")
    every = Emu("cortex-m4", cached_texts=0).cost(one, TEXTS)
    few = Emu("cortex-m4", counted_texts=2, cached_texts=0).cost(one, TEXTS)
    assert few.facts["compared_texts"] == every.facts["compared_texts"] == len(TEXTS)
    assert (few.values["n_samples"], every.values["n_samples"]) == (2, len(TEXTS))
    assert few.values == Emu("cortex-m4", texts=2, cached_texts=0).cost(one, TEXTS).values


@needs_arm
@pytest.mark.long
def test_a_count_is_the_same_after_a_rebuild_and_under_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = artefact("fastgrnn")
    found = []
    for run in range(10):
        if run % 5 == 0:
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / str(run)))  # nothing compiled is there
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3 * (run % 2))]
        try:
            found.append(Emu("cortex-a53").cost(one, TEXTS[:3]).values)
        finally:
            for process in busy:
                process.kill()
                process.wait()
    assert all(values == found[0] for values in found)


@needs_arm
def test_fp32_on_a_core_is_within_its_tolerance() -> None:
    one = program("fastgrnn")
    cell = Emu("cortex-a53", cached_texts=0).cost(FloatArtefact(one, "", {}), TEXTS[:4])
    assert 0 <= cell.facts["output_error"] <= cell.facts["output_allowed"] < 0.01


@needs_arm
def test_other_answers_get_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = artefact("mean", 0), artefact("mean", 1)
    monkeypatch.setattr(_compiled, "emitted", lambda _: _emission(other.program))
    with pytest.raises(CouldNotMeasure, match="logits differ"):
        Emu("cortex-m4").cost(one, TEXTS)


def _emission(of: FixedProgram) -> Any:
    from grit.bench.export.c import emitter

    return emitter.emit(of)


def test_without_the_extra_there_is_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "unicorn" else find(name))
    with pytest.raises(CouldNotMeasure, match=r"no unicorn: pip install 'gritbench\[arm\]'"):
        Emu("cortex-m4").probe()


if ARM:
    from grit.bench.targets import _unicorn

    @given(st.lists(st.sampled_from([b"\x00\xbf", b"\xaf\xf3\x00\x80", b"\x08\x44", b"\x2d\xe9\xf0\x4f"]), max_size=40))
    def test_thumb_instructions_have_two_lengths(code: list[bytes]) -> None:
        assert _unicorn.thumb_instructions(b"".join(code)) == len(code)

    @given(st.lists(st.tuples(st.integers(0, 4000), st.sampled_from([1, 2, 4, 8, 16])), max_size=200))
    def test_a_cache_is_least_recently_used(accesses: list[tuple[int, int]]) -> None:
        """Against the definition: a line is there if fewer than ``ways`` others of its set were used since."""
        cache, used, misses = _unicorn.Cache(512, 2, 32), [], 0
        for address, size in accesses:
            cache.access(address, size)
            for line in range(address // 32, (address + size - 1) // 32 + 1):
                since = []
                for earlier in reversed(used):
                    if earlier == line:
                        break
                    if earlier % 8 == line % 8:
                        since.append(earlier)
                misses += line not in used or len(set(since)) >= 2
                used.append(line)
        assert cache.misses == misses
        assert cache.accesses == len(used)


# --- devices: a line that really carries the bytes, and a device that is this machine ---------------------

FAKE = """#!{python}
import os, re, shutil, subprocess, sys
words = sys.argv[1:]
home = {home!r}
def there(text):
    return re.sub(r"/(data/local/tmp|tmp)/", home + "/", text)
if {push}:
    if words[:2] != ["-s", "serial-1"]:
        sys.exit("adb: device not found")
    words = words[2:]
    if words[0] == "push":
        shutil.copyfile(words[1], there(words[2]))
        sys.exit(0)
    assert words[0] == "exec-out", words
elif "nobody@nowhere" in words:
    sys.exit("ssh: Could not resolve hostname nowhere")
command = words[-1]
if {probe!r} and "uname -m" in command:
    sys.stdout.write({probe!r})
    sys.exit(0)
command = re.sub(r"^(\\S*/runner) <", {run!r} + r" \\1 <", there(command))
sys.exit(subprocess.run(["sh", "-c", command]).returncode)
"""
BOARD = "aarch64\n@\nprocessor\t: 0\nprocessor\t: 1\nFeatures\t: fp asimd crc32\nCPU part\t: 0xd08\n@\nLinux 6.1\n@\n"
BOARD += "performance\n@\n1800000\n@\n45123\n@\n0.25 0.10 0.05 1/99 1\n"
TARGETS = {"ssh": "ssh://pi@board", "adb": "adb://serial-1"}


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts a fake ssh or adb first in the path; returns the folder that is the device's own."""

    def lay(name: str, probe: str = "", run: str = "") -> Path:
        home, tools = tmp_path / "device", tmp_path / "tools"
        home.mkdir()
        tools.mkdir()
        text = FAKE.format(python=sys.executable, home=str(home), push=name == "adb", probe=probe, run=run)
        (tools / name).write_text(text, encoding="utf-8")
        (tools / name).chmod(0o700)
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        return home

    return lay


def target(name: str) -> Any:
    found: Any = measure.target_of(TARGETS[name])
    return dataclasses.replace(found, least_s=0.02, most_s=0.2)


@needs_arm
@pytest.mark.skipif(not LINUX, reason="a runner needs a Linux kernel")
@pytest.mark.parametrize("name", TARGETS)
def test_a_device_answers_and_is_left_clean(line: Callable[..., Path], name: str) -> None:
    home = line(name)
    one = artefact("lstm")
    cell = target(name).cost(one, TEXTS)
    assert (cell.target, cell.engine, cell.kind) == (TARGETS[name], "c", "measured")
    assert cell.facts["output_error"] == 0.0 and cell.facts["compared_texts"] == len(TEXTS)
    assert cell.facts["architecture"] == platform.machine() and cell.facts["binary_bytes"] > 1000
    assert cell.values["n_calls"] >= len(TEXTS) and cell.values["min_us"] <= cell.values["p99_us"]
    assert not list(home.iterdir())


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need_tool: Callable[[str], str]) -> Iterator[str]:
    """A server of OpenSSH on loopback with keys of its own; gives the address that ssh:// takes."""
    server, client = need_tool("sshd"), shutil.which("ssh")
    if not client or not shutil.which("ssh-keygen"):
        pytest.skip("OpenSSH's client is not installed")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it shuts itself in, without rights
    # ours to write: keys and known hosts, which a user has in ~/.ssh
    tools = tmp_path / "tools"
    tools.mkdir()
    known = f"-i {tmp_path}/user -o UserKnownHostsFile={tmp_path}/known -o StrictHostKeyChecking=accept-new"
    (tools / "ssh").write_text(f'#!/bin/sh\nexec {client} -F none {known} "$@"\n', encoding="ascii")
    (tools / "ssh").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    said = tmp_path / "log"
    process = subprocess.Popen([server, "-D", "-f", tmp_path / "config", "-E", said])
    try:
        for _ in range(100):
            if said.exists() and "listening" in said.read_text(errors="replace"):
                break
            time.sleep(0.05)
        yield f"{getpass.getuser()}@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@needs_arm
@pytest.mark.skipif(not LINUX, reason="a runner needs a Linux kernel")
def test_a_server_on_loopback_is_a_board(sshd: str) -> None:
    """OpenSSH on both ends: bytes stay bytes, and nothing is left behind."""
    before = set(Path("/tmp").glob("grit-*"))
    cell = Ssh(sshd, least_s=0.02, most_s=0.2).cost(artefact("fastgrnn"), TEXTS)
    assert (cell.target, cell.kind) == (f"ssh://{sshd}", "measured")
    assert cell.facts["output_error"] == 0.0 and cell.facts["compared_texts"] == len(TEXTS)
    assert cell.facts["architecture"] == platform.machine() and cell.facts["kernel"].startswith("Linux")
    assert 0 < cell.values["neural_min_us"] <= cell.values["p50_us"]
    assert not [path for path in set(Path("/tmp").glob("grit-*")) - before if path.is_dir()]
    with pytest.raises(CouldNotMeasure, match="Permission denied"):
        Ssh(f"nobody@{sshd.partition('@')[2]}").probe()


@needs_arm
@pytest.mark.parametrize("name", TARGETS)
def test_a_board_of_another_make_gets_code_for_its_core(
    line: Callable[..., Path], need_tool: Callable[[str], str], name: str
) -> None:
    home = line(name, BOARD, f"{need_tool('qemu-aarch64')} -cpu cortex-a72")
    place = target(name)
    facts = place.probe()
    assert (facts["cpu"], facts["cores"], facts["governor"]) == ("Cortex-A72", 2, "performance")
    assert (facts["frequency_mhz"], facts["temperature_c"], facts["load_1min"]) == (1800.0, 45.123, 0.25)
    cell = place.cost(artefact("fastgrnn"), TEXTS[:3])
    assert cell.facts["output_error"] == 0.0
    assert "-mcpu=cortex_a72" in cell.facts["flags"]
    assert not list(home.iterdir())


@pytest.mark.parametrize(
    ("architecture", "sets", "cpu", "expected"),
    [
        ("aarch64", ["asimd"], None, "cortex_a53"),
        ("aarch64", ["asimd", "asimddp"], "Cortex-X9", "cortex_a76"),
        ("arm64", ["asimd"], "Cortex-A72", "cortex_a72"),
        ("x86_64", ["avx2", "fma"], "Cortex", "x86_64_v3"),
        ("x86_64", ["fma"], None, "x86_64"),
    ],
)
def test_code_fits_what_answers(architecture: str, sets: list[str], cpu: str | None, expected: str) -> None:
    facts = {"architecture": architecture, "instruction_sets": sets, "cpu": cpu}
    assert _device.processor(facts)[1] == expected


def test_other_devices_are_refused(line: Callable[..., Path]) -> None:
    with pytest.raises(CouldNotMeasure, match="armv7l"):
        _device.processor({"architecture": "armv7l", "instruction_sets": []})
    line("ssh", "go away\n")
    with pytest.raises(CouldNotMeasure, match="does not answer as a Linux shell"):
        target("ssh").probe()
    with pytest.raises(CouldNotMeasure, match=r"Could not resolve.*check that 'ssh nobody@nowhere true' works"):
        Ssh("nobody@nowhere").probe()


def test_a_serial_that_is_not_there_is_a_reason(line: Callable[..., Path]) -> None:
    line("adb")
    with pytest.raises(CouldNotMeasure, match="adb devices"):
        Adb("serial-2").probe()


@pytest.mark.parametrize("where", ["", "-oProxyCommand=x", "a b", "host;rm", "host:", "host:22x", "$(x)"])
def test_names_that_a_shell_could_read_otherwise_are_refused(where: str) -> None:
    for place in (Ssh(where), Adb(where)):
        if isinstance(place, Ssh) or ":" not in where:  # a serial may be an address with a port
            with pytest.raises(UsageError, match="expected"):
                place.probe()


def test_a_port_is_passed_on(line: Callable[..., Path]) -> None:
    home = line("ssh", BOARD)
    assert Ssh("pi@board:2222").probe()["architecture"] == "aarch64"
    assert Ssh("pi@board:2222").link.port == "2222"
    assert not list(home.iterdir())


def test_without_the_tools_there_is_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    for place, remedy in ((Ssh("a"), "openssh-client"), (Adb("a"), "install adb"), (Qemu(), "qemu-user")):
        with pytest.raises(CouldNotMeasure, match=remedy):
            place.probe()
        assert remedy in str(type(place).missing())


# --- a second emulator ------------------------------------------------------------------------------------


@needs_arm
@pytest.mark.skipif(not LINUX, reason="qemu's user mode needs a Linux kernel")
def test_two_emulators_count_alike(need_tool: Callable[[str], str]) -> None:
    """qemu counts the call from outside too: some instructions more, and never fewer."""
    need_tool("qemu-aarch64")
    one = artefact("lstm")
    counted = Emu("cortex-a53", cached_texts=0).cost(one, TEXTS[4:5]).values
    cell = Qemu("cortex-a53").cost(one, TEXTS[4:5])
    assert (cell.kind, cell.target) == ("emulated", "qemu://cortex-a53")
    assert cell.facts["output_error"] == 0.0
    for name in ("instructions", "neural_instructions"):
        assert 0 <= cell.values[f"mean_{name}"] - counted[f"p50_{name}"] <= 40


def test_qemu_is_given_no_generic_core() -> None:
    for name in ("max", "cortex-m4"):
        with pytest.raises(UsageError, match="unknown core"):
            Qemu(name).probe()


# --- calibration ------------------------------------------------------------------------------------------


@given(st.floats(0.05, 20), st.lists(st.integers(1000, 10**7), min_size=3, max_size=9), st.integers(0, 99))
def test_a_fit_finds_the_factor_and_its_error(factor: float, counts: list[int], seed: int) -> None:
    exact = [factor * count for count in counts]
    found, median, worst = _calibration.fit(counts, exact)
    assert found == pytest.approx(factor) and worst < 1e-9 and median <= worst
    noise = np.exp(np.random.default_rng(seed).uniform(-0.1, 0.1, len(counts)))
    found, median, worst = _calibration.fit(counts, list(np.array(exact) * noise))
    assert factor * np.exp(-0.1) <= found <= factor * np.exp(0.1)
    assert 0 <= median <= worst <= np.expm1(0.2) + 1e-9


def test_a_fit_needs_programs_to_leave_out() -> None:
    with pytest.raises(CouldNotMeasure, match="2 programs"):
        _calibration.fit([1, 2], [1.0, 2.0])


def calibrated(monkeypatch: pytest.MonkeyPatch, home: Path, cpu: str = "Cortex-A53") -> _calibration.Calibration:
    """A board at half a nanosecond an instruction, give or take."""
    monkeypatch.setenv("XDG_DATA_HOME", str(home))

    def count(artefact: FixedArtefact, texts: Any) -> CostPart:
        n = 100_000 + len(artefact.program.head.product.weight.ravel())
        return CostPart(target="emu", engine="c", kind="emulated", values={"p50_neural_instructions": n})

    def measured(artefact: FixedArtefact, texts: Any) -> CostPart:
        n = count(artefact, texts).values["p50_neural_instructions"]
        facts = {"cpu": cpu, "frequency_mhz": 1400.0, "governor": "performance", "output_error": 0.0}
        values = {"neural_min_us": n * 0.0005 * (1.1 if n % 2 else 1.0)}
        return CostPart(target="ssh://pi", engine="c", kind="measured", values=values, facts=facts)

    return _calibration.calibrate("ssh://pi", measured, lambda core: count)


def test_a_calibration_is_kept_and_gives_counts_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = calibrated(monkeypatch, tmp_path)
    assert (found.core, found.engine, found.programs) == ("cortex-a53", "c", 6)
    assert found.ns_per_instruction == pytest.approx(0.5, rel=0.1)
    assert found.cycles_per_instruction == pytest.approx(0.7, rel=0.1)
    cell = CostPart(target="emu://cortex-a53", engine="c", kind="emulated", values={"p50_instructions": 200_000})
    assert Emu("cortex-a53").estimate(cell) is None
    path = _calibration.keep(found)
    assert path.is_relative_to(tmp_path) and _calibration.known("cortex-a53") == found
    timed = Emu("cortex-a53").estimate(cell)
    assert timed is not None and (timed.kind, timed.target) == ("calibrated", cell.target)
    values = timed.values
    assert values["low_p50_us"] <= values["p50_us"] <= values["high_p50_us"]
    assert values["p50_us"] == pytest.approx(100, rel=0.1)
    assert timed.facts["calibrated_on"] == "ssh://pi" and timed.facts["worst_error_share"] == found.worst_error_share
    assert Emu("cortex-a76").estimate(cell) is None


def test_only_a_core_that_is_emulated_can_be_calibrated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for cpu in ("AMD EPYC", "Cortex-A53 + Cortex-A73", "Cortex-M4"):
        with pytest.raises(CouldNotMeasure, match="counts for cortex-a53, cortex-a72, cortex-a76 only"):
            calibrated(monkeypatch, tmp_path, cpu)
    with pytest.raises(UsageError, match="calibrate ssh://"):
        monkeypatch.setattr(measure, "target_of", lambda _: object())
        measure.calibrate("mine")


def test_a_calibration_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    path = _calibration.place("cortex-a53")
    path.parent.mkdir(parents=True)
    path.write_text("{}", encoding="ascii")
    with pytest.raises(MalformedInput, match="no calibration"):
        _calibration.known("cortex-a53")


# --- real texts -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thousand(real_data: Path) -> list[str]:
    """More than 1,000 real texts; AG News itself comes in ASCII, so those of two other sets that do not come first."""
    from grit.bench import datasets

    others = [datasets.load(other) for other in ("banking77", "clinc150")]
    foreign = [example.text for other in others for example in other.train if not example.text.isascii()]
    assert foreign
    return [*foreign, *(example.text for example in datasets.load("ag_news").test[:1000])]


def same_bits_on_a_microcontroller(one: Any, texts: list[str]) -> None:
    cell = Emu("cortex-m4", texts=len(texts), counted_texts=1, cached_texts=0).cost(one, texts)
    assert cell.facts["output_error"] == 0.0 and cell.facts["compared_texts"] == len(texts) > 1000


@needs_arm
@pytest.mark.long
@pytest.mark.parametrize("name", ["fastgrnn", "student", "prado", "hashed"])
def test_a_thousand_real_texts_are_the_same_bits_on_a_microcontroller(thousand: list[str], name: str) -> None:
    """The deployed bytes of models that have read a real vocabulary, and learned nothing yet."""
    from grit.bench import datasets
    from grit.bench.export import build

    dataset = datasets.load("ag_news")
    cls = registry.load("models", name)
    train = [example.text for example in dataset.train[:5000]]
    model = cls.build(cls.Config(), train, len(dataset.labels), 0).eval()
    same_bits_on_a_microcontroller(packing.artefact(build.deployed(model, train[:100])), thousand)


@needs_arm
@pytest.mark.long
@pytest.mark.parametrize("name", ["fastgrnn", "student", "prado"])
def test_trained_models_are_the_same_bits_on_a_microcontroller(thousand: list[str], name: str) -> None:
    """Of the run folder that GRIT_TRAINED names: ``grit train --dataset ag_news --model fastgrnn,student,prado``."""
    found = sorted(Path(os.environ.get("GRIT_TRAINED", "")).glob(f"model/{name}*.s*/artefact.safetensors"))
    if not found:
        pytest.skip(f"GRIT_TRAINED names no run folder with a trained {name}")
    for path in found:
        same_bits_on_a_microcontroller(packing.artefact(path.read_bytes()), thousand)
