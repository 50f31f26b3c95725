"""onnxruntime under qemu: the system it runs in, the marks it is counted by, and answers compared before numbers."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from grit.bench import catalogue, machine, measure
from grit.bench.export import onnx, packing, quantise
from grit.bench.export.c import compiler
from grit.bench.targets import _equality, _sysroot, qemu
from grit.bench.targets.qemu import Qemu
from grit.bench.types import CouldNotMeasure, Dense, FastGrnn, Mean, Program, Rows

WORDS = ("", "ba", "be", "bi", "naïve", "!")
TEXTS = ["ba be naïve", "", "bi ! bi !", "unheard of " * 20]


def program(seed: int = 0) -> Program:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    cell = FastGrnn(draw(11, 9), draw(11, 11), draw(11), draw(11), 0.9, 0.05)
    return Program(Rows(draw(len(WORDS), 9)), cell, Dense(draw(3, 11), draw(3)), WORDS, 30)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A deployed artefact."""
    file = tmp_path / "artefact.safetensors"
    file.write_bytes(packing.pack(quantise.quantise(program(), TEXTS)))
    return file


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's data folder that is empty; gives the place of the arm64 system."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "gritbench" / "arm64"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Lays programs in a folder that stands first in the path."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def lay(name: str, text: str) -> Path:
        (folder / name).write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
        (folder / name).chmod(0o700)
        return folder / name

    return lay


# --- the arm64 system -----------------------------------------------------------------------------------


def test_a_core_reads_of_itself_where_onnxruntime_looks(home: Path, tmp_path: Path) -> None:
    """Without the file onnxruntime crashes; with another core's it runs instructions that are not there."""
    (home / "usr").mkdir(parents=True)
    (home / "lib").symlink_to("usr")
    place = tmp_path / "system"
    place.mkdir()
    found = _sysroot.prefix("0xd0b", ["fp", "asimd", "asimddp"], place)
    text = (found / "proc" / "cpuinfo").read_text(encoding="ascii")
    assert machine.cpu(text) == "Cortex-A76"
    assert re.search(r"^Features\s*: fp asimd asimddp$", text, re.MULTILINE)
    assert (found / "usr").resolve() == (found / "lib").resolve() == home / "usr"
    assert set(qemu._MODELS) <= {name.lower() for name in machine.ARM_CORES.values()}


def test_without_it_there_is_a_remedy(
    home: Path, path: Path, tools: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tools("qemu-aarch64", "print('qemu of a test')")
    monkeypatch.setattr(Qemu, "engines", (qemu.ORT,))
    assert not home.exists()
    assert "grit doctor --install" in str(_sysroot.missing())
    with pytest.raises(CouldNotMeasure, match="grit doctor --install"):
        _sysroot.python()
    assert catalogue.doctor()["targets"]["qemu://cortex-a53"].endswith(str(_sysroot.missing()))
    (cell,) = measure.cells(path, "qemu://cortex-a53", TEXTS)
    assert cell.kind == "not measured" and cell.reason == _sysroot.missing()


APT = """
import pathlib, sys
settings = dict(word[2:].split("=", 1) for word in sys.argv if word.startswith("-o"))
assert settings["APT::Architecture"] == settings["APT::Architectures"] == "arm64"
assert not pathlib.Path(settings["Dir::State::status"]).read_text()  # as if nothing were installed
if "install" in sys.argv:
    assert "--download-only" in sys.argv
    for name in ("libc6", "python3"):
        (pathlib.Path(settings["Dir::Cache"]) / "archives" / f"{name}_arm64.deb").touch()
"""
DPKG = """
import pathlib, sys
option, package, root = sys.argv[1:]
assert option == "-x"
binaries = pathlib.Path(root) / "usr" / "bin"
binaries.mkdir(parents=True, exist_ok=True)
if "python3" in package:
    (binaries / "python3.42").touch()
    (binaries / "python3").symlink_to("python3.42")
"""
PIP = """
import pathlib, sys
options = dict(word.split("=", 1) for word in sys.argv if word.startswith("--") and "=" in word)
assert options["--python-version"] == "3.42" and "--no-deps" in sys.argv
target = pathlib.Path(options["--target"])
target.mkdir()
for pin in sys.argv[-2:]:
    name, _, number = pin.partition("==")
    (target / f"{name}-{number}.dist-info").mkdir()
"""


def test_it_is_built_from_packages_and_wheels_of_the_versions_here(
    home: Path, tools: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tools("apt-get", APT)
    tools("dpkg-deb", DPKG)
    home.mkdir(parents=True)
    (home / "old").touch()
    with monkeypatch.context() as patched:
        patched.setattr(_sysroot.sys, "executable", str(tools("python", PIP)))
        lines = list(catalogue.install())
    assert lines[0].startswith("qemu: fetching python3") and lines[-1] == f"qemu: ready in {home}"
    assert _sysroot.missing() is None and _sysroot.python() == home / "usr" / "bin" / "python3.42"
    assert _sysroot.versions() == {name: version(name) for name in ("onnxruntime", "numpy")} | {"python": "3.42"}
    assert (home / "lib").readlink() == Path("usr/lib")
    assert not (home / "old").exists() and list(home.parent.iterdir()) == [home]


@pytest.mark.parametrize(
    ("apt", "reason"),
    [
        ("import sys; sys.exit('W: a warning\\nE: Unable to locate package python3')", "apt-get failed: E: Unable to"),
        ("import sys; sys.exit(3)", "apt-get failed: it said nothing"),
    ],
)
def test_what_fails_is_named_and_the_old_one_stays(
    home: Path, tools: Callable[..., Path], apt: str, reason: str
) -> None:
    tools("apt-get", apt)
    tools("dpkg-deb", DPKG)
    home.mkdir(parents=True)
    (home / "old").touch()
    with pytest.raises(CouldNotMeasure, match=reason):
        list(_sysroot.install())
    assert [path.name for path in home.parent.rglob("*")] == ["arm64", "old"]


def test_other_systems_are_told_what_it_takes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(CouldNotMeasure, match="no apt-get and no dpkg-deb"):
        list(_sysroot.install())
    assert not home.exists()


# --- a qemu that is none: the guest's program runs here, and every mark counts 1,000 ---------------------------

FAKE = """
import os, pathlib, runpy, sys
if "--version" in sys.argv:
    print("qemu of a test")
    sys.exit()
assert sys.argv[1:3] == ["-cpu", "cortex-a76"] and "-plugin" in sys.argv
system = pathlib.Path(sys.argv[sys.argv.index("-L") + 1])
assert "0xd0b" in (system / "proc" / "cpuinfo").read_text() and (system / "usr").is_dir()
known = {{"PATH", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED", "PYTHONPATH", "LC_CTYPE"}}
assert set(os.environ) <= known, set(os.environ) - known
sys.argv = sys.argv[sys.argv.index("-s") + 1 :]
counted = 0
def mark():
    global counted
    counted += 1000 + {extra}
    print(counted, file=sys.stderr)
os.sched_yield = mark
{break_}
runpy.run_path(sys.argv[0], run_name="__main__")
print(counted + 5, file=sys.stderr)
"""


@pytest.fixture
def emulated(home: Path, tools: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A target whose emulator and arm64 system are made up, and whose onnxruntime is the one of this machine."""
    (home / "usr" / "bin").mkdir(parents=True)
    (home / "usr" / "bin" / "python3.42").touch()
    (home / "usr" / "bin" / "python3").symlink_to("python3.42")
    (home / "lib").mkdir()
    (home / "wheels" / "onnxruntime-9.8.dist-info").mkdir(parents=True)
    monkeypatch.setattr(compiler, "cached", lambda *arguments: Path("count.so"))
    monkeypatch.setattr(compiler, "host", lambda: None)
    monkeypatch.setattr(Qemu, "engines", (qemu.ORT,))

    def lay(extra: str = "0", break_: str = "") -> None:
        tools("qemu-aarch64", FAKE.format(extra=extra, break_=break_))

    return lay


def test_a_call_is_counted_between_its_marks(emulated: Callable[..., None], path: Path) -> None:
    """Every fourth mark is three times as far: what happens now and then is no part of the median."""
    emulated("(500 if counted else 0) + 9000 * (counted % 4 == 0)")
    (cell,) = measure.cells(path, "qemu://cortex-a76", TEXTS)
    assert (cell.kind, cell.target, cell.reason) == ("emulated", "qemu://cortex-a76", "")
    assert cell.values["n_samples"] == len(TEXTS)
    assert cell.values["p50_neural_instructions"] == 0  # a call is a mark here, and a mark is taken off
    assert not any(name.endswith(("_us", "_ms", "_ns", "_s")) for name in cell.values)
    facts = cell.facts
    assert (facts["output_error"], facts["compared_texts"], facts["counted_calls"]) == (0.0, len(TEXTS), qemu.CALLS)
    assert (facts["onnxruntime"], facts["python"], facts["emulator"]) == ("9.8", "3.42", "qemu of a test")


def test_other_answers_get_no_number(emulated: Callable[..., None], path: Path) -> None:
    emulated(break_="import numpy; save = numpy.save; numpy.save = lambda to, x: save(to, x + 1)")
    (cell,) = measure.cells(path, "qemu://cortex-a76", TEXTS)
    assert cell.kind == "not measured" and "logits differ from the artefact's own by 1, allowed 0" in cell.reason


@pytest.mark.parametrize(
    ("break_", "reason"),
    [
        ("sys.exit('Illegal instruction')", "ended with code 1: Illegal instruction"),
        ("mark()", "marks"),
        ("print('what is this', file=sys.stderr); os._exit(0)", "what is this"),
    ],
)
def test_an_emulator_that_fails_is_a_reason(
    emulated: Callable[..., None], path: Path, break_: str, reason: str
) -> None:
    emulated(break_=break_)
    (cell,) = measure.cells(path, "qemu://cortex-a76", TEXTS)
    assert cell.kind == "not measured" and reason in cell.reason


def test_a_stranger_s_graph_is_served_and_not_compiled(
    emulated: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulated()
    monkeypatch.setattr(Qemu, "engines", ("c", qemu.ORT))
    file = tmp_path / "bundle.safetensors"
    rows = Rows(np.random.default_rng(5).standard_normal((len(WORDS), 3)).astype(np.float32))
    averages = Program(rows, Mean(), Dense(np.eye(3, dtype=np.float32), np.zeros(3, np.float32)), WORDS, 16)
    file.write_bytes(packing.bundle(onnx.files(averages)))
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in onnx.files(averages).items():
        (folder / name).write_bytes(content)
    for place in (file, folder):
        cells = {cell.engine: cell for cell in measure.cells(place, "qemu://cortex-a76", TEXTS)}
        assert cells["ort"].kind == "emulated", cells["ort"].reason
        assert cells["ort"].facts["output_error"] <= cells["ort"].facts["output_allowed"] > 0
        assert cells["c"].kind == "not measured" and "our own programs only" in cells["c"].reason


# --- equality -------------------------------------------------------------------------------------------


def test_equality_is_of_bits_or_within_the_tolerance() -> None:
    logits = np.array([[1.0, -20.0]])
    assert _equality.compare(logits, logits, exact=True) == {
        "output_error": 0.0,
        "output_allowed": 0.0,
        "compared_texts": 1,
    }
    near = logits + 1.9e-3
    assert _equality.compare(near, logits, exact=False)["output_allowed"] == pytest.approx(2e-3)
    for wrong, exact in ((near, True), (logits + 2.1e-3, False), (logits * np.nan, False)):
        with pytest.raises(CouldNotMeasure, match="logits differ"):
            _equality.compare(wrong, logits, exact)
    with pytest.raises(CouldNotMeasure, match="no texts"):
        _equality.compare(logits[:0], logits[:0], exact=True)


# --- the real thing -------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a76"])
def test_onnxruntime_for_arm_gives_the_bits_and_much_the_same_count(need_tool: Callable[[str], str], core: str) -> None:
    """int8 as it is deployed, bit for bit; fp32 within the tolerance."""
    need_tool("qemu-aarch64")
    if reason := _sysroot.missing():
        pytest.skip(reason)
    for of in (quantise.quantise(program(), TEXTS), program()):
        artefact = packing.artefact(packing.pack(of))
        cells = [Qemu(core).serve(onnx.files(of), artefact, TEXTS, None) for _ in range(2)]
        first, second = (cell.values["p50_neural_instructions"] for cell in cells)
        assert abs(first - second) <= 0.01 * first and first > 10_000
        assert cells[0].facts["output_error"] <= cells[0].facts["output_allowed"]
        assert artefact.exact == (cells[0].facts["output_allowed"] == 0)
        assert cells[0].facts["onnxruntime"] == version("onnxruntime")


@pytest.mark.long
def test_the_system_is_built_here(home: Path, need_tool: Callable[[str], str], path: Path) -> None:
    """The documented command on a Debian system with its archive and a package index; without them it says why."""
    need_tool("qemu-aarch64")
    try:
        list(_sysroot.install())
    except CouldNotMeasure as error:
        pytest.skip(str(error))
    cells = {cell.engine: cell for cell in measure.cells(path, "qemu://cortex-a53", TEXTS)}
    assert cells["ort"].kind == "emulated", cells["ort"].reason
    assert cells["ort"].facts["output_error"] == 0.0
