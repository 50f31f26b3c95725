"""What a step of learning costs on the device: head.c, compiled for a core, run on it emulated, and counted.

The same step stands here in numpy (:func:`stepped`) and in the arms in torch; the C program is believed only where its
numbers are theirs to :data:`TOLERANCE`. What is trained is what the arm ``last`` trains: numbers added to a frozen
head, from states that are read once and remembered. A count is of instructions, never a time.

The int8 program of the engine does not hand out its state yet, so the pass that reads a text is counted as it ships.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from grit.bench import records
from grit.bench.export.c import compiler
from grit.bench.personalize.protocol import Training
from grit.bench.personalize.texts import Texts
from grit.bench.registry import unknown
from grit.bench.targets import emu
from grit.bench.targets._cores import CORES
from grit.bench.types import Artefact, CouldNotMeasure

TOLERANCE = 1e-6  # of a weight, relative to the largest or to 1
TARGETS = ("cortex-m4", "cortex-a53")
_READ = 8  # texts read and counted


@dataclass(frozen=True)
class Shape:
    """The sizes that head.c is compiled for."""

    classes: int
    features: int
    batch: int

    @property
    def source(self) -> str:
        """head.c with its sizes in front."""
        sizes = f"#define CLASSES {self.classes}u\n#define FEATURES {self.features}u\n#define BATCH {self.batch}u\n"
        return sizes + (files("grit.bench.personalize") / "head.c").read_text(encoding="utf-8")

    @property
    def example(self) -> np.dtype:
        """grit_example, as numpy lays it out."""
        fields = [("state", "<f4", self.features), ("logit", "<f4", self.classes), ("label", "<u4")]
        return np.dtype(fields)

    @property
    def head(self) -> np.dtype:
        """grit_head, likewise."""
        fields = [
            ("rate", "<f4"),
            ("weight", "<f4", (self.classes, self.features)),
            ("bias", "<f4", self.classes),
            ("slope", "<f4", (self.batch, self.classes)),
        ]
        return np.dtype(fields)


def known(core: str) -> None:
    """Raises UsageError for a core that is not emulated here."""
    if core not in CORES:
        raise unknown("core", core, CORES, f"the cores are {', '.join(CORES)}, or none")


def shape_of(texts: Texts, batch: int) -> Shape:
    return Shape(texts.frozen.logits.shape[1], texts.frozen.state.shape[1], batch)


def remembered(texts: Texts, shape: Shape) -> np.ndarray:
    """Texts as the device keeps them."""
    found = np.zeros(len(texts), shape.example)
    found["state"], found["logit"] = texts.frozen.state.numpy(), texts.frozen.logits.numpy()
    found["label"] = texts.labels.numpy()
    return found


def fresh(shape: Shape, rate: float) -> np.ndarray:
    """A head that adds nothing yet: one row."""
    head = np.zeros(1, shape.head)
    head["rate"] = rate
    return head


def batches(examples: np.ndarray, training: Training) -> list[np.ndarray]:
    """The steps of a training, one after the other."""
    starts = range(0, len(examples), training.batch)
    return [examples[at : at + training.batch] for _ in range(training.epochs) for at in starts]


def stepped(head: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """The head after one step: numpy, float32."""
    after = head.copy()
    logits = batch["logit"] + batch["state"] @ head["weight"][0].T + head["bias"][0]
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    slope = scores / scores.sum(axis=1, keepdims=True)
    slope[np.arange(len(batch)), batch["label"]] -= 1
    rate = head["rate"][0] / np.float32(len(batch))
    after["bias"] -= rate * slope.sum(axis=0)
    after["weight"] -= rate * slope.T @ batch["state"]
    return after


def here(shape: Shape, head: np.ndarray, steps: list[np.ndarray]) -> np.ndarray:
    """The head after steps of the C program compiled for this machine; CouldNotMeasure without a compiler."""
    arguments = [*compiler.FLAGS, "-shared", "-fPIC", "head.c", "-o", "head.so"]
    path = compiler.cached(compiler.host(), {"head.c": shape.source}, arguments, "head.so")
    step = ctypes.CDLL(str(path)).grit_head_step
    step.restype, step.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32]
    after = head.copy()
    for batch in steps:
        rows = np.ascontiguousarray(batch)
        step(after.ctypes.data, rows.ctypes.data, len(rows))
    return after


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of two heads, relative to the largest weight or to 1; NaN where a number is none."""
    found = []
    for name in ("weight", "bias"):
        size = max(1.0, float(np.abs(one[name]).max()))
        found.append(float(np.abs(one[name].astype(np.float64) - other[name]).max()) / size)
    return float(np.max(found))  # unlike Python's, it lets no NaN go under


def cost(
    core: str, texts: Texts, rate: float, training: Training, artefact: Artefact | None = None
) -> records.CostPart:
    """Instructions a step and peak bytes of training the last layer on ``texts``, on an emulated core.

    ``artefact``: the deployed model, whose RAM and instructions for reading a text are counted too. Raises
    CouldNotMeasure where a tool is missing, or where the core's numbers are not those of numpy.
    """
    if lacking := emu.Emu.missing():
        raise CouldNotMeasure(lacking)
    shape = shape_of(texts, training.batch)
    examples, head = remembered(texts, shape), fresh(shape, rate)
    steps = batches(examples, training)
    elf, flags = _built(shape, core)
    found = _emulated(elf, core, head, steps)
    wanted = head
    for batch in steps:
        wanted = stepped(wanted, batch)
    after = np.frombuffer(bytes.fromhex(found["head"]), shape.head)
    error = difference(wanted, after)
    if not error <= TOLERANCE:
        raise CouldNotMeasure(f"the head trained on {core} differs from numpy's by {error:.3g}, allowed {TOLERANCE:g}")
    whole = [len(batch) == len(steps[0]) for batch in steps]  # the last step of an epoch may be of fewer texts
    instructions = sorted(count for count, is_whole in zip(found["instructions"], whole, strict=True) if is_whole)
    kept = len(texts) * found["example_bytes"]
    own = found["head_bytes"] + found["stack_bytes"] + found["static_ram_bytes"]
    values: dict[str, int | float] = {
        "step_instructions": instructions[len(instructions) // 2],
        "head_bytes": found["head_bytes"],
        "stack_bytes": found["stack_bytes"],
        "code_bytes": found["code_bytes"],
        "remembered_bytes": kept,
        "training_bytes": kept + own,
    }
    if artefact is not None:
        raw = [example.text for example in texts.examples[:_READ]]
        reading = emu.Emu(core, texts=_READ, cached_texts=0).cost(artefact, raw).values
        values["reading_instructions"] = reading["p50_neural_instructions"]
        values["peak_bytes"] = kept + max(int(reading["ram_bytes"]) + found["head_bytes"], own)
    facts = {
        "classes": shape.classes,
        "features": shape.features,
        "batch": len(steps[0]),
        "examples": len(texts),
        "steps": len(steps),
        "parity_error": error,
        "flags": flags,
        "compiler": compiler.zig().version,
    }
    return records.CostPart(target=f"emu://{core}", engine="head.c", kind="emulated", values=values, facts=facts)


def cells(
    cores: Sequence[str], texts: Texts, rate: float, training: Training, artefact: Artefact | None
) -> list[records.CostPart]:
    """A cell a core; where there is no number, why."""
    found = []
    for core in cores:
        try:
            found.append(cost(core, texts, rate, training, artefact))
        except CouldNotMeasure as reason:
            found.append(
                records.CostPart(target=f"emu://{core}", engine="head.c", kind="not measured", reason=str(reason))
            )
    return found


def _built(shape: Shape, core: str) -> tuple[Path, str]:
    target = CORES[core]
    arguments = ["-target", target.triple, f"-mcpu={target.cpu}", *compiler.FLAGS, "-ffreestanding", "-nostdlib"]
    arguments += ["-Wl,-e,grit_head_step", "-Wl,--no-gc-sections"]
    flags = " ".join(arguments)
    elf = compiler.cached(
        compiler.zig(), {"head.c": shape.source}, [*arguments, "head.c", "-o", "head.elf"], "head.elf"
    )
    return elf, flags


def _emulated(elf: Path, core: str, head: np.ndarray, steps: list[np.ndarray]) -> dict[str, Any]:
    target = CORES[core]
    job = {
        "elf": str(elf),
        "wide": target.wide,
        "model": target.model,
        "head": head.tobytes().hex(),
        "batches": [[len(batch), np.ascontiguousarray(batch).tobytes().hex()] for batch in steps],
    }
    return emu.emulated("grit.bench.personalize._emulated", job, core)
