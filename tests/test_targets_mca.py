"""Modelled cycles: the line that ran, cycles from a difference, and a range that never passes for a measurement."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import catalogue, measure, registry
from grit.bench.export import packing, quantise
from grit.bench.export.fixed import FixedArtefact
from grit.bench.targets import _compiled, emu, mca
from grit.bench.targets._cores import CORES
from grit.bench.targets.mca import Mca
from grit.bench.types import CouldNotMeasure, Dense, FastGrnn, Program, Rows, UsageError

ARM = all(importlib.util.find_spec(name) for name in ("ziglang", "unicorn", "elftools"))
needs_arm = pytest.mark.skipif(not ARM, reason="the extra arm is not installed")
needs_llvm = pytest.mark.skipif(Mca.missing() is not None, reason=str(Mca.missing()))
WORDS = ("", "ba", "be", "bi")
TEXTS = ["ba be bi ba", "be", "bi be ba be bi"]


@pytest.fixture(scope="module")
def artefact() -> FixedArtefact:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    cell = FastGrnn(draw(11, 9), draw(11, 11), draw(11), draw(11), 0.9, 0.05)
    program = Program(Rows(draw(len(WORDS), 9)), cell, Dense(draw(3, 11), draw(3)), WORDS, 30)
    found = packing.artefact(packing.pack(quantise.quantise(program, TEXTS)))
    assert isinstance(found, FixedArtefact)
    return found


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Lays programs in a folder that stands first in the path."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def lay(name: str, text: str) -> None:
        (tmp_path / name).write_text(f"#!{sys.executable}\nimport sys\n{text}", encoding="utf-8")
        (tmp_path / name).chmod(0o700)

    return lay


# --- words and remedies -----------------------------------------------------------------------------------


def test_it_is_a_target_of_cores_that_have_a_schedule() -> None:
    assert registry.load("targets", "mca") is Mca
    assert set(mca.MODELS) < set(CORES)
    assert mca.MODELS["cortex-a76"].cpu == "neoverse-n1"  # LLVM's cortex-a76 is the Cortex-A57's schedule
    for name in ("cortex-m0", "cortex-m7", "max"):
        with pytest.raises(UsageError, match="unknown core"):
            measure.target_of(f"mca://{name}")


def test_without_llvm_there_is_a_remedy(monkeypatch: pytest.MonkeyPatch, artefact: FixedArtefact) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    assert Mca.missing() == "no llvm-mca and no llvm-objdump: apt install llvm (Debian)"
    with pytest.raises(CouldNotMeasure, match="apt install llvm"):
        Mca("cortex-a53").cost(artefact, TEXTS)
    assert catalogue.doctor()["targets"]["mca://cortex-m4"] == Mca.missing()


LISTING = """
model.elf:      file format elf64-littleaarch64

Disassembly of section .text:

0000000000210158 <model_run>:
  210158:       mov     x0, x1
  21015c:       b.ne    0x210124 <model_run+0x20>  // =0x210124
  210160:       ldr     q0, 0x2101f0 <table>
  210164:       ldr     x1, [x0, #8]
   3adfa:      \tbhs.w\t0x3b1ee <model_read+0x42e> @ imm = #1008
   3adfe:      \tcbz\tr3, 0x3ae10 <model_read+0x50> @ imm = #12
"""


def test_a_listing_is_read_without_comments_and_places() -> None:
    assert {at: " ".join(text.split()) for at, text in mca.instructions(LISTING).items()} == {
        0x210158: "mov x0, x1",
        0x21015C: "b.ne anywhere",
        0x210160: "ldr q0, anywhere",
        0x210164: "ldr x1, [x0, #8]",
        0x3ADFA: "bhs.w anywhere",
        0x3ADFE: "cbz r3, anywhere",
    }


@given(st.dictionaries(st.integers(0, 2**32).map(lambda k: 4 * k), st.sampled_from(["add x0, x0, #1", "ret", "nop"])))
def test_every_instruction_of_a_listing_is_found(code: dict[int, str]) -> None:
    listing = "".join(f"{at:>8x}:      \t{text}\n" for at, text in sorted(code.items()))
    assert mca.instructions(f"\n<main>:\n{listing}") == code


# --- what ran ---------------------------------------------------------------------------------------------


@needs_arm
@needs_llvm
@pytest.mark.parametrize("name", ["cortex-a53", "cortex-m4"])
def test_the_line_is_what_was_counted(artefact: FixedArtefact, name: str) -> None:
    """Every instruction of the call, in Thumb's two lengths too, and no other."""
    core = CORES[name]
    elf, _ = emu.build(artefact, core)
    found = emu.run(elf, core, ["ba be bi"], traced=(1, 3, 9))
    one, three, all_ = (mca._line(elf, core, mca.MODELS[name], blocks) for blocks in found["traces"])
    assert len(three) == len(all_) == found["neural_instructions"][0] > len(one)
    assert all(line and "<" not in line for line in three)


@needs_arm
@needs_llvm
@pytest.mark.parametrize(
    "name", ["cortex-m4", *(pytest.param(name, marks=pytest.mark.long) for name in mca.MODELS if name != "cortex-m4")]
)
def test_cycles_are_a_labelled_range(artefact: FixedArtefact, name: str) -> None:
    cell = Mca(name).cost(artefact, TEXTS)
    assert (cell.kind, cell.target, cell.engine) == ("modelled", f"mca://{name}", "c")
    assert all(key.startswith(("low_", "high_", "n_")) for key in cell.values)  # no number that looks like the truth
    low, high = (cell.values[f"{end}_p50_neural_cycles"] for end in ("low", "high"))
    assert high == pytest.approx(mca.FACTOR**2 * low, rel=1e-3)
    count = sorted(
        emu.Emu(name, cached_texts=0).cost(artefact, [text]).values["p50_neural_instructions"] for text in TEXTS
    )
    assert high / mca.FACTOR == pytest.approx(count[1] * cell.facts["cycles_per_instruction"], rel=2e-3)
    assert 0.2 < cell.facts["cycles_per_instruction"] < 4
    assert cell.values["low_neural_p50_us"] == pytest.approx(low / cell.facts["clock_mhz"], rel=1e-3)
    assert "not validated" in cell.facts["validated"] and "llvm-mca" in cell.facts["schedule"]
    assert cell.facts["output_error"] == 0.0


# --- a model that is none -----------------------------------------------------------------------------------

OBJDUMP = """
for at in range(0x100, 0x200, 4):
    print(f"  {at:x}:\\tnop")
"""
CYCLES = """
if "--version" in sys.argv:
    print("Debian LLVM version 99.1")
    sys.exit()
n = len(sys.stdin.read().split())
print(f"Instructions:      {n}\\nTotal Cycles:      {100 + 3 * n}")
"""


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the emulator is made to say: 8 and 24 instructions in the two traces."""
    said: dict[str, Any] = {
        "logits": ["", "", ""],
        "tokens": [1, 4, 5],
        "neural_instructions": [10, 40, 50],
        "traces": [[(0x100, 32)], [(0x100, 32), (0x140, 64)]],
        "emulator": "made up",
    }
    monkeypatch.setattr(emu.Emu, "missing", classmethod(lambda cls: None))
    monkeypatch.setattr(emu, "build", lambda artefact, core: (Path("model.elf"), "-O2"))
    monkeypatch.setattr(emu, "run", lambda *arguments, **more: said)
    monkeypatch.setattr(_compiled, "compare", lambda *arguments: {"output_error": 0.0})
    return said


def test_what_a_call_begins_with_falls_out(
    traced: dict[str, Any], tools: Callable[[str, str], None], artefact: FixedArtefact
) -> None:
    """100 cycles at the start and 3 an instruction: 40 instructions of the median text are 120 cycles."""
    tools("llvm-objdump", OBJDUMP)
    tools("llvm-mca", CYCLES)
    cell = Mca("cortex-a53").cost(artefact, TEXTS)
    assert (cell.values["low_p50_neural_cycles"], cell.values["high_p50_neural_cycles"]) == (60, 240)
    assert (cell.values["low_neural_p50_us"], cell.values["high_neural_p50_us"]) == (0.05, 0.2)
    assert cell.facts["schedule"] == "llvm-mca 99.1, cortex-a53" and cell.facts["clock_mhz"] == 1200


@pytest.mark.parametrize(
    ("change", "answer", "reason"),
    [
        ({"tokens": [1, 1, 2]}, CYCLES, "no text has 3 tokens"),
        ({"traces": [[(0x100, 32)], [(0x100, 64)] * 30_000]}, CYCLES, "too many to model"),
        ({}, "print('version 1')", "said nothing of cycles"),
        ({}, "print('version 1')\nif '-iterations=1' in sys.argv: sys.exit('unsupported')", "code 1: unsupported"),
    ],
)
def test_what_cannot_be_modelled_is_a_reason(
    traced: dict[str, Any],
    tools: Callable[[str, str], None],
    artefact: FixedArtefact,
    change: dict[str, Any],
    answer: str,
    reason: str,
) -> None:
    tools("llvm-objdump", OBJDUMP)
    tools("llvm-mca", answer)
    traced |= change
    with pytest.raises(CouldNotMeasure, match=reason):
        Mca("cortex-a53").cost(artefact, TEXTS)


def test_other_answers_get_no_cycles(
    traced: dict[str, Any],
    tools: Callable[[str, str], None],
    artefact: FixedArtefact,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def differ(*_: object) -> dict[str, Any]:
        raise CouldNotMeasure("logits differ")

    tools("llvm-objdump", OBJDUMP)
    tools("llvm-mca", CYCLES)
    monkeypatch.setattr(_compiled, "compare", differ)
    with pytest.raises(CouldNotMeasure, match="logits differ"):
        Mca("cortex-a53").cost(artefact, TEXTS)
