"""Measuring: equality before numbers, honest spreads, and a reason where there is no number."""

from __future__ import annotations

import gc
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import measure, registry
from grit.bench.export import build, onnx, packing, quantise, words
from grit.bench.export.c import compiler
from grit.bench.export.floating import FloatArtefact
from grit.bench.records import CostPart
from grit.bench.targets import _spread
from grit.bench.targets.local import Local
from grit.bench.types import Artefact, CouldNotMeasure, Dense, Example, Lstm, Mean, Program, Rows, UsageError

WORDS = ("", "the", "plot", "is", "good", "bad", "not", "film", "and")
TEXTS = ["the plot is good", "not good", "the film is bad and not good", "unheard of", ""]


class Brief(Local):
    """This machine, for engine ``ort`` alone."""

    engines = ("ort",)


QUICK = Brief(least_s=0.02, most_s=0.2, starts=1)
SPREAD = ("n_calls", "min_us", "p50_us", "p90_us", "p99_us", "iqr_us")


def program(seed: int = 0) -> Program:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return Program(Rows(draw(9, 4)), Lstm(draw(12, 4), draw(12, 3), draw(12)), Dense(draw(2, 3), draw(2)), WORDS, 16)


def averages() -> Program:
    rng = np.random.default_rng(5)
    table = rng.standard_normal((9, 2)).astype(np.float32)
    return Program(Rows(table), Mean(), Dense(np.eye(2, dtype=np.float32), np.zeros(2, np.float32)), WORDS, 16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "artefact.safetensors"
    file.write_bytes(packing.pack(quantise.quantise(program(), TEXTS)))
    return file


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """``local`` takes no longer than it must."""
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, name: (lambda: QUICK) if name == "local" else load(kind, name))


# --- spreads --------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=200))
def test_a_spread_is_ordered_and_inside_its_samples(samples: list[int]) -> None:
    found = _spread.times(samples)
    assert tuple(found) == SPREAD
    assert found["n_calls"] == len(samples)
    assert found["min_us"] == round(min(samples) / 1000, 3)
    assert found["min_us"] <= found["p50_us"] <= found["p90_us"] <= found["p99_us"] <= round(max(samples) / 1000, 3)
    assert 0 <= found["iqr_us"] <= round(max(samples) / 1000 - min(samples) / 1000, 3) + 1e-9


def test_a_spread_of_known_samples() -> None:
    assert _spread.times([k * 1000 for k in range(101)]) == {
        "n_calls": 101,
        "min_us": 0,
        "p50_us": 50,
        "p90_us": 90,
        "p99_us": 99,
        "iqr_us": 50,
    }


class Watch:
    """A clock that every call of the timed work pushes on by what it costs."""

    def __init__(self, costs: Iterator[int]) -> None:
        self.now = 0
        self.calls = 0
        self._costs = costs

    def __call__(self) -> int:
        return self.now

    def work(self) -> None:
        self.calls += 1
        self.now += next(self._costs)


def endless(cost: Callable[[int], int]) -> Iterator[int]:
    k = 0
    while True:
        yield cost(k)
        k += 1


def test_sampling_goes_on_for_the_least_time() -> None:
    watch = Watch(endless(lambda k: 1_000_000))
    samples = Local(least_s=0.5, most_s=5, warm_up_rounds=3)._samples([watch.work] * 10, watch)
    assert len(samples) == 500 and set(samples) == {1_000_000}
    assert watch.calls == 500 + 30  # the warm-up is not among the samples


def test_sampling_goes_on_while_the_best_times_fall() -> None:
    # each round of one call is 5 % faster than the one before, for 100 rounds
    watch = Watch(endless(lambda k: int(10_000_000 * 0.95 ** min(k, 100))))
    samples = Local(least_s=0.01, most_s=60, warm_up_rounds=0)._samples([watch.work], watch)
    assert len(samples) == 102


def test_sampling_ends_at_the_most_time() -> None:
    watch = Watch(endless(lambda k: int(1e9 * 0.95**k)))
    samples = Local(least_s=0.01, most_s=3.5, warm_up_rounds=0)._samples([watch.work], watch)
    assert 3.5 <= sum(samples) / 1e9 < 5
    slow = Watch(endless(lambda k: 10**12))
    assert len(Local(warm_up_rounds=0)._samples([slow.work], slow)) == 1


def test_the_garbage_collector_sleeps_only_while_sampling() -> None:
    seen = []

    def work() -> None:
        seen.append(gc.isenabled())
        if len(seen) > 30:
            raise KeyboardInterrupt

    assert gc.isenabled()
    with pytest.raises(KeyboardInterrupt):
        Local(warm_up_rounds=1)._samples([work])
    assert gc.isenabled()
    assert seen[0] and not any(seen[1:])


# --- this machine ---------------------------------------------------------------------------------------


def test_local_is_a_target() -> None:
    assert registry.load("targets", "local") is Local
    assert isinstance(Local(), measure.Starts)
    with pytest.raises(UsageError, match="did you mean 'local'"):
        registry.load("targets", "locl")


def test_a_probe_tells_what_the_system_tells() -> None:
    facts = Local().probe()
    assert facts["cores"] >= 1 and facts["architecture"]
    assert all(value is not None for value in facts.values())
    assert "governor" not in facts or isinstance(facts["governor"], str)
    assert 0 <= facts.get("load_1min", 0)


@pytest.mark.parametrize("kind", ["numpy int8", "numpy fp32", "onnx int8", "onnx fp32"])
def test_times_of_every_artefact(kind: str) -> None:
    exact, quantised = program(), quantise.quantise(program(), TEXTS)
    artefact: Artefact
    if kind.startswith("onnx"):
        artefact = onnx.OnnxArtefact(onnx.files(quantised if kind.endswith("int8") else exact))
    elif kind == "numpy int8":
        artefact = packing.artefact(packing.pack(quantised))
    else:
        artefact = FloatArtefact(exact, "", {})
    values = QUICK.measure(artefact, TEXTS)
    assert set(values) == {*SPREAD, *(f"neural_{name}" for name in SPREAD)}
    assert all(math.isfinite(value) and value >= 0 for value in values.values())
    assert values["n_calls"] >= len(TEXTS)
    assert values["min_us"] <= values["p50_us"] <= values["p99_us"]


def test_nothing_to_time() -> None:
    with pytest.raises(CouldNotMeasure, match="no texts"):
        QUICK.measure(FloatArtefact(program(), "", {}), [])


def test_a_start_from_nothing(path: Path) -> None:
    parts = QUICK.start(path, TEXTS[0])
    assert tuple(parts) == ("import_us", "load_us", "first_us", "cold_us")
    assert all(value > 0 for value in parts.values())
    # the process itself has to start too
    assert parts["import_us"] + parts["load_us"] + parts["first_us"] < parts["cold_us"]


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(CouldNotMeasure, match=r"could not answer a text: .*cannot read") as caught:
        QUICK.start(tmp_path / "none", "x")
    assert "\n" not in str(caught.value)


def test_a_start_that_never_ends(path: Path) -> None:
    with pytest.raises(CouldNotMeasure, match=r"within 0\.001 s"):
        Local(start_limit_s=0.001).start(path, "x")


# --- cells ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_a_cell_has_values_facts_and_the_error(path: Path) -> None:
    (cell,) = measure.cells(path, "local", TEXTS)
    assert (cell.target, cell.engine, cell.kind, cell.reason) == ("local", "ort", "measured", "")
    starts = {"import_us", "load_us", "first_us", "cold_us"}
    assert set(cell.values) == {*SPREAD, *(f"neural_{name}" for name in SPREAD), *starts}
    assert cell.facts["output_error"] == 0.0
    assert {"onnxruntime", "numpy", "python", "cores"} <= set(cell.facts)


@pytest.mark.usefixtures("quick")
def test_a_float_artefact_is_compared_within_its_tolerance(tmp_path: Path) -> None:
    file = tmp_path / "artefact.safetensors"
    file.write_bytes(packing.pack(program()))
    (cell,) = measure.cells(file, "local", TEXTS)
    assert cell.kind == "measured"
    assert 0 <= cell.facts["output_error"] < 1e-4


@pytest.mark.usefixtures("quick")
def test_a_graph_is_measured_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "artefact.safetensors"
    file.write_bytes(packing.bundle(onnx.files(quantise.quantise(averages(), TEXTS))))
    (cell,) = measure.cells(file, "local", TEXTS)
    assert cell.kind == "measured"
    assert "cold_us" not in cell.values


def local_cells(file: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, CostPart]:
    """Engine -> cell of this machine as it is, but for the patience."""
    if gcc := shutil.which("gcc"):
        monkeypatch.setenv("CC", gcc)
    compiler.host.cache_clear()
    monkeypatch.setattr(registry, "load", lambda kind, name: lambda: Local(least_s=0.02, most_s=0.2, starts=1))
    try:
        return {cell.engine: cell for cell in measure.cells(file, "local", TEXTS)}
    finally:
        compiler.host.cache_clear()


def test_a_machine_measures_both_engines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = local_cells(path, monkeypatch)
    assert set(cells) == {"ort", "c"}
    compiled = cells["c"]
    if "no C compiler" in compiled.reason:
        pytest.skip(compiled.reason)
    assert set(compiled.values) == {*SPREAD, *(f"neural_{name}" for name in SPREAD)}
    assert compiled.values["min_us"] >= compiled.values["neural_min_us"] * 0.5
    assert compiled.facts["output_error"] == 0.0 and compiled.facts["compared_texts"] == len(TEXTS)
    assert {"compiler", "flags", "binary_sha256", "cpu", "clock_ns"} <= set(compiled.facts)
    assert cells["ort"].kind == "measured"


def test_a_graph_is_measured_but_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "artefact.safetensors"
    file.write_bytes(packing.bundle(onnx.files(quantise.quantise(averages(), TEXTS))))
    cells = local_cells(file, monkeypatch)
    assert cells["ort"].kind == "measured"
    assert cells["c"].kind == "not measured" and "our own programs only" in cells["c"].reason


@pytest.mark.usefixtures("quick")
def test_another_model_s_graph_gets_no_number(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = onnx.files(quantise.quantise(program(1), TEXTS))
    monkeypatch.setattr(onnx, "files", lambda _: other)
    (cell,) = measure.cells(path, "local", TEXTS)
    assert cell.kind == "not measured" and not cell.values
    assert "logits differ" in cell.reason and "\n" not in cell.reason


@pytest.mark.usefixtures("quick")
def test_no_texts_no_number(path: Path) -> None:
    (cell,) = measure.cells(path, "local", [])
    assert cell.kind == "not measured" and "no texts" in cell.reason


def test_an_unknown_target_is_a_usage_error(path: Path) -> None:
    with pytest.raises(UsageError, match="unknown target"):
        measure.cells(path, "toaster", TEXTS)


def test_a_target_takes_what_follows_its_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Board:
        def __init__(self, where: str) -> None:
            self.where = where

        def probe(self) -> dict[str, Any]:
            raise CouldNotMeasure(f"no answer from {self.where}: switch it on")

    monkeypatch.setattr(registry, "load", lambda kind, name: {"ssh": Board}[name])
    (cell,) = measure.cells(path, "ssh://pi@board", TEXTS)
    assert (cell.target, cell.engine) == ("ssh://pi@board", "ort")
    assert cell.reason == "no answer from pi@board: switch it on"


# --- equality and sizes ---------------------------------------------------------------------------------


def test_agreement_is_exact_for_exact_artefacts(path: Path) -> None:
    artefact = build.load(path)
    logits = words.answer(artefact, TEXTS)
    assert measure.agreement(artefact, TEXTS, logits) == 0.0
    nearly = logits.copy()
    nearly[-1, 0] += 2.0**-30
    with pytest.raises(CouldNotMeasure, match="logits differ"):
        measure.agreement(artefact, TEXTS, nearly)


def test_agreement_has_a_tolerance_for_the_others() -> None:
    artefact = FloatArtefact(program(), "", {})
    logits = words.answer(artefact, TEXTS)
    assert 0 < measure.agreement(artefact, TEXTS, logits + 1e-6) < 2e-6
    for wrong in (logits + 0.01, logits * np.nan):
        with pytest.raises(CouldNotMeasure, match="logits differ"):
            measure.agreement(artefact, TEXTS, wrong)
    with pytest.raises(CouldNotMeasure, match="no texts"):
        measure.agreement(artefact, [], logits[:0])


def test_sizes_are_all_the_bytes_there_are(path: Path) -> None:
    sizes = measure.sizes(build.load(path))
    assert sizes["total"] == path.stat().st_size == sum(sizes.values()) - sizes["total"]
    assert sizes["vocabulary"] == len("\n".join(WORDS)) and sizes["embedding"] == 9 * 4


# --- int8 beside fp32 -----------------------------------------------------------------------------------


class Trained:
    """A model that is its program."""

    def __init__(self, of: Program) -> None:
        self._program = of

    def program(self) -> Program:
        return self._program


def test_int8_beside_fp32_counts_what_it_says(path: Path) -> None:
    """Against logits asked one by one; labels that fp32 always, and never, gives."""
    model: Any = Trained(program())
    texts = [f"{a} {b} {c}" for a in WORDS[1:5] for b in WORDS[4:] for c in WORDS[2:6]]
    exact = words.answer(FloatArtefact(program(), "", {}), texts).argmax(axis=1)
    deployed = words.answer(build.load(path), texts).argmax(axis=1)
    for labels, right in ((exact, len(texts)), (1 - exact, 0)):
        examples = [
            Example(id=str(k), text=text, label=int(label))
            for k, (text, label) in enumerate(zip(texts, labels, strict=True))
        ]
        found = measure.precision(path, model, examples)
        assert (found.n, found.fp32, found.agreed) == (len(texts), right, int((exact == deployed).sum()))
        assert found.int8 == int((deployed == labels).sum())
    with pytest.raises(CouldNotMeasure, match="no texts"):
        measure.precision(path, model, [])


# --- the table ------------------------------------------------------------------------------------------

CELLS = [
    CostPart(target="local", engine="ort", kind="measured", values={"p50_us": 1234.56, "neural_p50_us": 9.0}),
    CostPart(target="emu://cortex-m4", engine="c", kind="emulated", values={"p50_instructions": 1_234_567}),
    CostPart(target="qemu://cortex-a53", engine="ort", kind="emulated", values={"mean_neural_instructions": 7}),
    CostPart(
        target="emu://cortex-a53",
        engine="c",
        kind="calibrated",
        values={"p50_us": 3.0, "low_p50_us": 2.0, "high_p50_us": 4.5},
    ),
    CostPart(
        target="mca://cortex-m4",
        engine="c",
        kind="modelled",
        values={"low_p50_neural_cycles": 1000, "high_p50_neural_cycles": 4000},
    ),
    CostPart(target="adb://1", engine="c", kind="not measured", reason="no adb: install it"),
]


def test_a_table_has_a_line_a_cell_and_reasons_below() -> None:
    lines = measure.render(CELLS).splitlines()
    assert len(lines) == 1 + len(CELLS) + 1
    assert lines[0].split() == "target engine kind p50 us network instructions of network cycles".split()
    assert lines[1].split() == ["local", "ort", "measured", "1,234.6", "9.0"]
    assert lines[2].endswith("1,234,567") and lines[3].endswith(" 7")
    assert "2.0 to 4.5" in lines[4]  # a time that was never measured is a range
    assert lines[5].endswith("1,000 to 4,000")
    assert lines[6].endswith("not measured")
    assert lines[7] == "adb://1 x c: no adb: install it"


def test_numbers_stand_under_their_headings() -> None:
    heading, *lines = measure.render(CELLS).splitlines()[:-1]
    ends = {name: heading.index(name) + len(name) for name in ("p50 us", "network", "instructions", "of network")}
    assert lines[0].index("1,234.6") + len("1,234.6") == ends["p50 us"]
    assert len(lines[1]) == ends["instructions"] and len(lines[2]) == ends["of network"]


@pytest.mark.parametrize("kept", [0, 1, 4])
def test_columns_that_nobody_fills_are_left_out(kept: int) -> None:
    table = measure.render(CELLS[kept : kept + 1])
    assert ("p50 us" in table) == (kept == 0) and ("instructions" in table) == (kept == 1)
    assert "RAM" not in table and "L1D" not in table


@pytest.mark.parametrize("word", ["local://here", "emu://cortex-m5", "lokal"])
def test_a_word_that_means_no_target_is_refused_before_any_work(word: str) -> None:
    with pytest.raises(UsageError):
        measure.target_of(word)
