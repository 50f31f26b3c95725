"""Targets: emulated cores count exactly and answer the same bits; devices are believed only where they agree."""

from __future__ import annotations

import importlib.util
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import registry
from grit.bench.export import packing, quantise, words
from grit.bench.export.fixed import FixedArtefact, FixedProgram
from grit.bench.export.floating import FloatArtefact
from grit.bench.targets import _compiled, _spread
from grit.bench.targets._cores import CORES
from grit.bench.targets.emu import Emu
from grit.bench.types import CouldNotMeasure, Dense, FastGrnn, Lstm, Mean, Program, Rows, Ternary, UsageError

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
        ("cortex-m4", "mean"),
        ("cortex-a53", "fastgrnn"),
        ("cortex-a76", "lstm"),
        *(
            pytest.param(core, body, marks=pytest.mark.long)
            for core in CORES
            for body in ("lstm", "fastgrnn", "mean")
            if (core, body) not in {("cortex-m4", "lstm"), ("cortex-m4", "mean"), ("cortex-a76", "lstm")}
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


# --- real texts -------------------------------------------------------------------------------------------


@needs_arm
@pytest.mark.long
@pytest.mark.parametrize("name", ["fastgrnn", "student", "prado", "hashed"])
def test_a_thousand_real_texts_are_the_same_bits_on_a_microcontroller(real_data: Path, name: str) -> None:
    """The deployed bytes of models that have read a real vocabulary; some of the texts are not ASCII."""
    from grit.bench import datasets
    from grit.bench.export import build

    dataset = datasets.load("ag_news")
    others = [datasets.load(other) for other in ("banking77", "clinc150")]  # AG News itself comes in ASCII
    foreign = [example.text for other in others for example in other.train if not example.text.isascii()]
    chosen = [*foreign, *(example.text for example in dataset.test[:1000])]
    assert len(chosen) > 1000 and foreign
    cls = registry.load("models", name)
    train = [example.text for example in dataset.train[:5000]]
    model = cls.build(cls.Config(), train, len(dataset.labels), 0).eval()
    reference = packing.artefact(build.deployed(model, train[:100]))
    cell = Emu("cortex-m4", texts=len(chosen)).cost(reference, chosen)
    assert cell.facts["output_error"] == 0.0 and cell.facts["compared_texts"] == len(chosen)
