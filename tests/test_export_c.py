"""Engine C: every program, compiled with every kernel this machine can run, gives the bits of the reference."""

from __future__ import annotations

import ctypes
import itertools
import math
import platform
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grit.bench import registry, text
from grit.bench.export import fixed, packing, quantise, words
from grit.bench.export.c import compiler, emitter
from grit.bench.export.c.compiled import CompiledArtefact
from grit.bench.export.fixed import Affine, FixedArtefact, FixedFastGrnn, FixedLstm, FixedMean, FixedProgram, Product
from grit.bench.export.floating import FloatArtefact
from grit.bench.targets._cores import CORES
from grit.bench.targets._equality import FLOAT_TOLERANCE
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


def _compiler() -> compiler.Compiler | None:
    """gcc where it is, since it starts fastest: nothing here depends on which one it is."""
    gcc = shutil.which("gcc")
    try:
        return compiler.Compiler((gcc,), "gcc") if gcc else compiler.host()
    except CouldNotMeasure:
        return None


HOST = _compiler()
needs_compiler = pytest.mark.skipif(HOST is None, reason="no C compiler")
X86 = platform.machine() in ("x86_64", "AMD64")
FEATURES = (
    Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    if X86 and Path("/proc/cpuinfo").exists()
    else ""
)
# VNNI's dot product in terms of AVX2, so that the code around it is tested where no processor has it
FAKE_VNNI = """#include <immintrin.h>
static inline __m256i fake_dpbusd(__m256i sum, __m256i u, __m256i s)
{
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i u_even = _mm256_and_si256(u, _mm256_set1_epi16(255));
    const __m256i s_even = _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8);
    const __m256i even = _mm256_mullo_epi16(u_even, s_even);
    const __m256i odd = _mm256_mullo_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(even, ones), _mm256_madd_epi16(odd, ones)));
}
#define GRIT_VNNI 1
#define GRIT_DPBUSD fake_dpbusd
"""
KERNELS = {"portable": ["-DGRIT_PORTABLE"], "small": ["-DGRIT_PORTABLE", "-DGRIT_SMALL"]}
if " avx2 " in FEATURES and " fma " in FEATURES:
    KERNELS |= {"avx2": ["-mavx2", "-mfma"], "vnni": ["-mavx2"]}
elif not X86:
    KERNELS |= {"native": ["-mcpu=native"]}
# read ahead of the source; intrinsics are most of what there is to compile, so they are compiled once
AHEAD = {"avx2": "#include <immintrin.h>\n", "vnni": FAKE_VNNI}
HEADERS = tempfile.TemporaryDirectory(prefix="grit-headers-")
VECTORS = ("avx2", "vnni", "native")  # slow to compile: the default run takes them where they differ


def kernels(*names: str, beside: Sequence[str] = ("portable",)) -> list[Any]:
    """All kernels of this machine as parameters; those not named wait for the long run."""
    chosen = (*beside, *names)
    return [name if name in chosen else pytest.param(name, marks=pytest.mark.long) for name in KERNELS]


WORDS = (
    "",
    *(a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "un", "ay")),
    "naïve",
    "ça",
    "it's",
    "7",
    "!",
)
BODIES = ("lstm", "fastgrnn", "pool", "mean")
LAYERS = ("vocabulary", "buckets", "ternary")
Build = Callable[..., "Compiled"]


def make(
    body: str,
    layer: str = "vocabulary",
    *,
    seed: int = 0,
    features: int = 6,
    units: int = 5,
    classes: int = 3,
    scale: float = 1.0,
    max_tokens: int = 24,
    widths: Sequence[int] = (1, 3),
    relu: bool = True,
    order: int = 2,
) -> Program:
    rng = np.random.default_rng(seed)
    spread = 1 / math.sqrt(units)

    def draw(*shape: int, of: float = 1.0) -> np.ndarray:
        return (rng.standard_normal(shape) * scale * of).astype(np.float32)

    words_in: Rows | Ternary = {
        "ternary": lambda: Ternary(features),
        "buckets": lambda: Rows(draw(37, features), order),
        "vocabulary": lambda: Rows(draw(len(WORDS), features)),
    }[layer]()
    inside: Lstm | FastGrnn | AttentionPool | Mean
    state = units
    if body == "lstm":
        inside = Lstm(draw(4 * units, features, of=spread), draw(4 * units, units, of=spread), draw(4 * units))
    elif body == "fastgrnn":
        zeta, nu = (float(v) for v in rng.uniform(0, 1, 2))
        inside = FastGrnn(
            draw(units, features, of=spread), draw(units, units, of=spread), draw(units), draw(units), zeta, nu
        )
    elif body == "pool":
        kernels = [
            Kernel(
                draw(units + k, k, units, of=spread),
                draw(units + k),
                draw(units + k, k, units, of=spread),
                draw(units + k),
            )
            for k in widths
        ]
        value, attention = (Dense(draw(units, features, of=spread), draw(units), relu) for _ in range(2))
        inside, state = AttentionPool(value, attention, tuple(kernels)), sum(units + k for k in widths)
    else:
        inside, state = Mean(), features
    vocabulary = WORDS if layer == "vocabulary" else ()
    return Program(words_in, inside, Dense(draw(classes, state), draw(classes), relu), vocabulary, max_tokens)


def sentences(seed: int, n: int, longest: int = 30) -> list[str]:
    """Texts of our own: known words, unknown ones, other scripts, punctuation; one of them empty."""
    rng = random.Random(seed)
    strange = [
        "zzz",
        "!?",
        "NAÏVE",
        "\U0001f600",
        "It's",
        "9th",
        "שלום",
        "日本語",
        "a\u00a0b",
        "\u2003",
        "x\u3000y",
        "\x1c",
    ]
    made = [" ".join(rng.choice([*WORDS[1:], *strange]) for _ in range(rng.randint(1, longest))) for _ in range(n - 1)]
    return [*made, ""]


def integers(program: Program, seed: int = 0) -> FixedProgram:
    return quantise.quantise(program, sentences(seed + 1, 12))


class Compiled:
    """model.c in a shared library."""

    def __init__(self, program: Program | FixedProgram, library: Path) -> None:
        self.program = program
        self.classes = len(program.head.bias)
        self.library = ctypes.CDLL(str(library))
        self._scratch = ctypes.create_string_buffer(1 << 21)

    def text(self, raw: str | bytes) -> np.ndarray:
        """float64 [classes]"""
        data = raw.encode() if isinstance(raw, str) else raw
        out = ctypes.create_string_buffer(4 * self.classes)
        self.library.model_text(data, ctypes.c_size_t(len(data)), out, self._scratch)
        return emitter.logits(self.program, out.raw)

    def texts(self, raws: Sequence[str]) -> np.ndarray:
        return np.array([self.text(raw) for raw in raws])

    def read(self, raw: bytes, dtype: str) -> np.ndarray:
        """The tokens of a text."""
        room = ctypes.create_string_buffer(self.program.max_tokens * 16)
        n = self.library.model_read(raw, ctypes.c_size_t(len(raw)), room)
        assert 1 <= n <= self.program.max_tokens
        return np.frombuffer(room.raw, dtype)[:n]


@lru_cache
def ahead(kernel: str, *arguments: str) -> list[str]:
    """The arguments that read a kernel's header, precompiled for just these other arguments."""
    assert HOST is not None
    folder = Path(HEADERS.name)
    header = folder / f"{kernel}{ahead.cache_info().misses}.h"
    header.write_text(AHEAD[kernel], encoding="ascii")
    HOST.run([*arguments, "-x", "c-header", str(header), "-o", f"{header}.gch"], folder)
    return ["-include", str(header)]


def builder(folder: Path) -> Build:
    """Compiles programs into folders of their own below ``folder``."""
    numbers = itertools.count()

    def compiled(program: Program | FixedProgram, kernel: str = "portable", *flags: str) -> Compiled:
        place = folder / str(next(numbers))
        emitter.emit(program).write(place)
        arguments = ["-std=c99", "-O1", "-ffp-contract=off", "-fno-math-errno", "-fPIC", *KERNELS[kernel], *flags]
        if kernel in AHEAD:
            arguments += ahead(kernel, *arguments)
        assert HOST is not None
        HOST.run([*arguments, "-shared", "model.c", "-o", "model.so"], place)
        return Compiled(program, place / "model.so")

    return compiled


@pytest.fixture
def build(tmp_path: Path) -> Build:
    if HOST is None:
        pytest.skip("no C compiler")
    return builder(tmp_path)


@pytest.fixture(autouse=True)
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same compiler behind :func:`compiler.host`."""
    if HOST is not None and HOST.version == "gcc":
        monkeypatch.setenv("CC", "gcc")
    compiler.host.cache_clear()
    yield
    compiler.host.cache_clear()


# --- int8: the same bits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", kernels(*VECTORS))
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(("features", "units"), [pytest.param(6, 5, marks=pytest.mark.long), (33, 40)])
def test_every_body_gives_the_bits_of_the_reference(
    build: Build, body: str, kernel: str, features: int, units: int
) -> None:
    program = integers(make(body, features=features, units=units))
    texts = sentences(3, 60)
    np.testing.assert_array_equal(
        build(program, kernel).texts(texts), words.answer(FixedArtefact(program, "", {}), texts)
    )


@pytest.mark.parametrize("layer", LAYERS[1:])  # the vocabulary has had its turn
@pytest.mark.parametrize("body", BODIES)
def test_every_word_layer_gives_the_bits_of_the_reference(build: Build, body: str, layer: str) -> None:
    program = integers(make(body, layer, features=37))
    texts = sentences(4, 60)
    np.testing.assert_array_equal(build(program).texts(texts), words.answer(FixedArtefact(program, "", {}), texts))


@pytest.mark.parametrize(
    "name", ["fastgrnn", "student", pytest.param("teacher", marks=pytest.mark.long), "prado", "hashed", "tfidf", "bag"]
)
def test_every_model_of_the_house_compiles_to_its_own_bits(build: Build, name: str) -> None:
    """As its author configured it, on short texts, an empty one, and one of 10,000 words; fp32 within the tolerance."""
    cls = registry.load("models", name)
    program = cls.build(cls.Config(), sentences(9, 60), 3, 0).eval().program()
    exact = quantise.quantise(program, sentences(10, 12))
    texts = [*sentences(11, 12), " ".join(["ba", "na\u00efve"] * 5000)]
    np.testing.assert_array_equal(build(exact).texts(texts), words.answer(FixedArtefact(exact, "", {}), texts))
    reference = words.answer(FloatArtefact(program, "", {}), texts)
    error = np.abs(build(program).texts(texts) - reference).max()
    assert error <= FLOAT_TOLERANCE * max(1.0, np.abs(reference).max())


@given(
    st.sampled_from(BODIES),
    st.sampled_from(LAYERS),
    st.sampled_from(["portable", "small"]),
    st.integers(1, 70),
    st.integers(1, 45),
    st.sampled_from([1e-4, 0.02, 0.3, 1.0, 8.0]),
    st.integers(1, 40),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=10)
@needs_compiler
def test_any_program_gives_the_bits_of_the_reference(
    tmp_path_factory: pytest.TempPathFactory,
    body: str,
    layer: str,
    kernel: str,
    features: int,
    units: int,
    scale: float,
    max_tokens: int,
    relu: bool,
    seed: int,
) -> None:
    program = integers(
        make(body, layer, seed=seed, features=features, units=units, scale=scale, max_tokens=max_tokens, relu=relu)
    )
    texts = sentences(seed, 20, 45)
    compiled = builder(tmp_path_factory.mktemp("c"))
    np.testing.assert_array_equal(
        compiled(program, kernel).texts(texts), words.answer(FixedArtefact(program, "", {}), texts)
    )


def direct(body: str, shift: int, units: int = 9, seed: int = 0) -> FixedProgram:
    """A recurrent program of integers at the edge of what the specification allows, for any shift."""
    rng = np.random.default_rng(seed)
    features, gates = 7, 4 if body == "lstm" else 1
    # |P| + 2 * 2048 << shift < 2^24 bounds the shift to 11; multipliers take what is left
    room = ((1 << 24) - (4096 << shift)) // 4

    def product(inputs: int, largest: int) -> Product:
        weight = rng.integers(-127, 128, (gates * units, inputs)).astype(np.int8)
        reach = np.abs(weight.astype(np.int64)).sum(axis=1) * largest
        return Product(weight, np.clip(room // np.maximum(reach, 1), 1, 32767).astype(np.int16))

    bias = [rng.integers(-room, room, gates * units).astype(np.int32) for _ in range(2)]
    inputs, state = product(features, 127), product(units, 128)
    inside = (
        FixedLstm(inputs, state, bias[0], shift)
        if body == "lstm"
        else FixedFastGrnn(inputs, state, bias[0] // 2, bias[1] // 2, shift, 20000, 12767, seed % 15, 32767)
    )
    table = rng.integers(-127, 128, (len(WORDS), features)).astype(np.int8)
    head = Affine(
        Product(rng.integers(-127, 128, (3, units)).astype(np.int8), np.ones(3, np.int16)), np.zeros(3, np.int32), 7
    )
    return FixedProgram(Rows(table), inside, head, 10, WORDS, 24)


@pytest.mark.parametrize("kernel", kernels("avx2", "native"))
@pytest.mark.parametrize("shift", [3, 11, *(pytest.param(shift, marks=pytest.mark.long) for shift in (0, 1, 4, 5, 9))])
@pytest.mark.parametrize("body", ["lstm", "fastgrnn"])
def test_all_shifts_and_saturations(build: Build, body: str, shift: int, kernel: str) -> None:
    program = direct(body, shift, seed=shift)
    program.check()
    texts = sentences(shift, 30)
    np.testing.assert_array_equal(
        build(program, kernel).texts(texts), words.answer(FixedArtefact(program, "", {}), texts)
    )


def test_calls_leave_nothing_behind(build: Build) -> None:
    """The scratch memory of one text is dirt to the next."""
    program = integers(make("lstm"))
    compiled, texts = build(program), sentences(5, 30)
    first = compiled.texts(texts)
    compiled._scratch.raw = b"\xff" * len(compiled._scratch.raw)
    np.testing.assert_array_equal(compiled.texts(texts[::-1])[::-1], first)


# --- text -> tokens ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hashing(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """A program whose tokens are 128-bit hashes: two texts that read alike are the same tokens."""
    if HOST is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("hashing")
    program = integers(make("mean", "ternary", max_tokens=64))
    emitter.emit(program).write(folder)
    HOST.run(["-std=c99", "-O1", "-shared", "-fPIC", "model.c", "-o", "model.so"], folder)
    return Compiled(program, folder / "model.so")


def hashes(raw: str, most: int) -> list[tuple[int, int]]:
    return [text.hash128(token) for token in (text.tokenize(text.normalise(raw)) or [""])[:most]]


SPACES = st.sampled_from(" \t\n\v\f\r\x1c\x1f\x85\xa0\u1680\u2000\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff")
LETTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]), st.sampled_from("aZ09'_-.\x00\x7f\x80éßİ日\U0001f600"), SPACES
)


@given(st.text(LETTERS, max_size=60))
@settings(max_examples=400)
def test_any_text_reads_as_in_python(hashing: Compiled, raw: str) -> None:
    import unicodedata

    raw = unicodedata.normalize("NFC", raw)  # the one thing that is left to the caller
    room = ctypes.create_string_buffer(hashing.program.max_tokens * 16)
    n = hashing.library.model_read(raw.encode(), ctypes.c_size_t(len(raw.encode())), room)
    read = np.frombuffer(room.raw, "<u8").reshape(-1, 2)[:n]
    assert [tuple(map(int, pair)) for pair in read] == hashes(raw, hashing.program.max_tokens)


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_bytes_that_are_no_utf8_are_read_somehow(hashing: Compiled, raw: bytes) -> None:
    room = ctypes.create_string_buffer(hashing.program.max_tokens * 16)
    assert 1 <= hashing.library.model_read(raw, ctypes.c_size_t(len(raw)), room) <= hashing.program.max_tokens
    assert np.isfinite(hashing.text(raw)).all()


@pytest.mark.parametrize(("order", "rows"), [(1, 64), (2, 1000), (3, 65_537), (2, 1)])
def test_ngrams_fall_into_the_buckets_of_the_reference(build: Build, order: int, rows: int) -> None:
    table = Rows(np.zeros((rows, 1), np.int8), order)
    head = Affine(Product(np.ones((1, 1), np.int8), np.ones(1, np.int16)), np.zeros(1, np.int32), 0)
    program = FixedProgram(table, FixedMean(), head, 0, (), 100)
    compiled, reader = build(program), words.of(table, ())
    for raw in sentences(order, 40):
        expected = reader.intern((reader.tokenize(text.normalise(raw)) or [""])[:100])
        np.testing.assert_array_equal(compiled.read(raw.encode(), "<u4" if rows > 65_536 else "<u2"), expected)


PREFIXES = st.text(st.sampled_from("ab'é0"), min_size=1, max_size=24)


@given(st.sets(PREFIXES, min_size=1, max_size=80), st.lists(PREFIXES, max_size=40))
@settings(max_examples=6)
@needs_compiler
def test_every_word_of_a_vocabulary_is_found_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, known: set[str], asked: list[str]
) -> None:
    vocabulary = ("", *sorted(known, key=lambda word: word[::-1]))
    table = Rows(np.zeros((len(vocabulary), 1), np.int8))
    head = Affine(Product(np.ones((1, 1), np.int8), np.ones(1, np.int16)), np.zeros(1, np.int32), 0)
    program = FixedProgram(table, FixedMean(), head, 0, vocabulary, 1000)
    compiled = builder(tmp_path_factory.mktemp("v"))(program)
    rows = emitter.emit(program).rows
    assert rows is not None
    tokens = [
        *vocabulary[1:],
        *asked,
        *(word[:-1] or "a" for word in vocabulary[1:]),
        *(word + "b" for word in vocabulary),
    ]
    read = compiled.read(" ".join(tokens).upper().lower().encode(), "<u2")
    expected = [rows[vocabulary.index(token)] if token in vocabulary else 0 for token in tokens]
    np.testing.assert_array_equal(read, expected)


def test_a_text_is_cut_at_the_limit(build: Build) -> None:
    program = integers(make("mean", max_tokens=3))
    compiled = build(program)
    assert len(compiled.read(b"ba be bi bo", "<u2")) == 3
    np.testing.assert_array_equal(compiled.text("ba be bi bo"), compiled.text("ba be bi"))


# --- fp32 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if kernel not in ("small", "vnni")])
@pytest.mark.parametrize(
    ("body", "layer"),
    [
        *(("lstm", "vocabulary"), ("fastgrnn", "buckets"), ("pool", "ternary")),
        *(pytest.param("mean", layer, marks=pytest.mark.long) for layer in LAYERS),
    ],
)
def test_fp32_is_the_float_program_within_its_tolerance(build: Build, body: str, layer: str, kernel: str) -> None:
    program = make(body, layer, features=33, units=19)
    texts = sentences(6, 40)
    reference = words.answer(FloatArtefact(program, "", {}), texts)
    error = np.abs(build(program, kernel).texts(texts) - reference).max()
    assert error <= FLOAT_TOLERANCE / 20 * max(1.0, np.abs(reference).max())


def test_fp32_activations_saturate(build: Build) -> None:
    program = make("lstm", scale=200.0)
    texts = sentences(7, 30)
    reference = words.answer(FloatArtefact(program, "", {}), texts)
    got = build(program).texts(texts)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, reference, atol=1e-4 * np.abs(reference).max())


# --- what is emitted --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", ["lstm", "pool", *(pytest.param(body, marks=pytest.mark.long) for body in BODIES[1::2])]
)
@pytest.mark.parametrize("floats", [False, True])
def test_source_is_plain_c99_without_a_warning(tmp_path: Path, body: str, floats: bool) -> None:
    program = make(body, "ternary" if body == "pool" else "vocabulary")
    emitter.emit(program if floats else integers(program)).write(tmp_path)
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-O1", "-c"]
    found = [path for path in map(shutil.which, ("gcc", "clang")) if path]
    if not found:
        pytest.skip("neither gcc nor clang")
    for path, kernel in itertools.product(found, KERNELS):
        if kernel not in ("vnni", "small"):
            subprocess.run([path, *strict, *KERNELS[kernel], "model.c", "-o", "model.o"], cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    ("body", "core"),
    [
        pytest.param(body, core, marks=() if (body, core) == ("pool", "cortex-m4") else pytest.mark.long)
        for body in BODIES
        for core in ("cortex-m0", "cortex-m4", "cortex-a53", "cortex-a76", "")
    ],
)
def test_source_has_no_warning_where_it_is_meant_to_run(tmp_path: Path, body: str, core: str) -> None:
    """clang for each core, and for this machine: its helpers that a program does not need are no complaint."""
    try:
        cross = compiler.zig()
    except CouldNotMeasure as error:
        pytest.skip(str(error))
    tuned = ["-target", CORES[core].triple, f"-mcpu={CORES[core].cpu}"] if core else ["-march=native"]
    program = make(body, "ternary" if body == "pool" else "buckets", features=33, units=40)
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-O1", "-ffreestanding", "-c"]
    for name, of in (("integers", integers(program)), ("floats", program)):
        emitter.emit(of, name).write(tmp_path)
        cross.run([*strict, *tuned, f"{name}.c", "-o", f"{name}.o"], tmp_path)


@pytest.mark.parametrize("body", BODIES)
def test_nothing_is_needed_but_the_source(tmp_path: Path, body: str) -> None:
    """No heap, no library, no variable: the object file asks for no symbol and writes no memory of its own."""
    if HOST is None or not shutil.which("nm"):
        pytest.skip("no C compiler or no nm")
    emitter.emit(integers(make(body))).write(tmp_path)
    HOST.run(
        [*compiler.FLAGS, "-ffreestanding", "-fno-pie", "-fno-stack-protector", "-c", "model.c", "-o", "model.o"],
        tmp_path,
    )
    listed = subprocess.run(["nm", "model.o"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    kinds = dict(reversed(line.split()[-2:]) for line in listed.splitlines())
    # compilers may ask for these four of any freestanding implementation
    assert {name for name, kind in kinds.items() if kind == "U"} <= {"memcpy", "memset", "memmove", "memcmp"}
    assert not {name for name, kind in kinds.items() if kind in "bBdD"}
    assert {name for name, kind in kinds.items() if kind == "T"} == {"model_read", "model_run", "model_text"}


@needs_compiler
def test_the_example_prints_the_logits(tmp_path: Path) -> None:
    program = integers(make("fastgrnn"))
    emitter.emit(program, "tiny_1").write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["main.c", "tiny_1.c", "tiny_1.h"]
    assert HOST is not None
    HOST.run(["-std=c99", "-O1", "main.c", "tiny_1.c", "-o", "tiny"], tmp_path)
    done = subprocess.run([tmp_path / "tiny"], input="ba naïve !", capture_output=True, text=True, check=True)
    expected = words.answer(FixedArtefact(program, "", {}), ["ba naïve !"])[0]
    printed = [float(line.split("\t")[1]) for line in done.stdout.splitlines()]
    np.testing.assert_allclose(printed, expected, rtol=1e-8)


def test_a_name_is_the_prefix_of_all_that_is_exported() -> None:
    emission = emitter.emit(integers(make("lstm")), "mood")
    assert not re.search(r"\b(model|MODEL)_", "".join(emission.files.values()))
    assert "void mood_text(" in emission.files["mood.h"]
    assert "#define MOOD_CLASSES 3" in emission.files["mood.h"]


@pytest.mark.parametrize("name", ["", "Model", "1st", "a-b", "a b", "é"])
def test_a_name_that_c_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="C name"):
        emitter.emit(integers(make("mean")), name)


def test_the_header_names_licence_digest_and_memory() -> None:
    header = emitter.emit(integers(make("mean")), licence="CC-BY-4.0", digest="ab" * 32).files["model.h"]
    assert "SPDX-License-Identifier: Apache-2.0\n" in header
    assert "weights were learned from data under the licence: CC-BY-4.0\n" in header
    assert "ab" * 32 in header
    assert "#define MODEL_MAX_TOKENS 24" in header


def test_a_licence_stays_in_its_comment() -> None:
    files = emitter.emit(integers(make("mean")), licence="ours */ int x;\nnaïve").files
    assert files["model.h"].count("*/", 0, files["model.h"].index("#")) == 1
    assert all(text.isascii() for text in files.values())


@pytest.mark.parametrize("body", BODIES)
@needs_compiler
def test_the_header_states_memory_and_constants(tmp_path: Path, body: str) -> None:
    """MODEL_CONSTANT_BYTES bounds what the object file holds; MODEL_RAM_BYTES is the scratch."""
    program = integers(make(body))
    emitter.emit(program).write(tmp_path)
    (tmp_path / "say.c").write_text(
        '#include <stdio.h>\n#include "model.h"\n'
        'int main(void) { printf("%zu %zu", (size_t)MODEL_CONSTANT_BYTES, MODEL_RAM_BYTES); return 0; }\n',
        encoding="ascii",
    )
    assert HOST is not None
    HOST.run(["-std=c99", "-O1", "-DGRIT_PORTABLE", "say.c", "model.c", "-o", "say"], tmp_path)
    said = subprocess.run([tmp_path / "say"], capture_output=True, text=True, check=True).stdout
    constants, memory = map(int, said.split())
    assert isinstance(program.words, Rows)
    assert program.words.table.nbytes + program.head.product.weight.nbytes < constants < 20_000
    assert memory >= 2 * program.max_tokens  # the tokens are in it


def test_the_same_program_is_the_same_source() -> None:
    one, two = (emitter.emit(integers(make("pool", "ternary"))) for _ in range(2))
    assert one.files == two.files


def test_a_program_that_breaks_its_bounds_is_refused() -> None:
    program = integers(make("mean"))
    broken = FixedProgram(program.words, program.body, program.head, 1000, program.vocabulary, program.max_tokens)
    with pytest.raises(MalformedInput):
        emitter.emit(broken)


# --- many texts a call ------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize(
    ("body", "layer"),
    [
        pytest.param(body, layer, marks=() if layer == usual else pytest.mark.long)
        for body, usual in zip(BODIES, ("vocabulary", "ternary", "ternary", "buckets"), strict=True)
        for layer in LAYERS
    ],
)
def test_a_compiled_artefact_answers_as_the_reference(body: str, layer: str) -> None:
    reference = FixedArtefact(integers(make(body, layer, features=33, units=11)), "d" * 64, {"body": 1})
    compiled = CompiledArtefact(reference)
    texts = sentences(8, 90)
    texts += [raw + " ba" for raw in texts[:50]] + texts[:10]
    expected = words.answer(reference, texts)
    np.testing.assert_array_equal(words.answer(compiled, texts), expected)
    np.testing.assert_array_equal(words.answer(compiled, texts[::-1])[::-1], expected)
    for size in (1, 7, 64):
        np.testing.assert_array_equal(words.answer(compiled, texts[:70], size), expected[:70])
    assert (compiled.classes, compiled.max_tokens, compiled.separable) == (
        reference.classes,
        reference.max_tokens,
        reference.separable,
    )
    assert compiled.exact
    assert (compiled.digest, compiled.sizes_bytes) == (reference.digest, reference.sizes_bytes)


@needs_compiler
def test_a_compiled_artefact_takes_what_the_reference_takes() -> None:
    """Longer rows than max_tokens, more texts than one call takes, tokens that turn up later."""
    reference = FixedArtefact(integers(make("pool", "ternary", max_tokens=5)), "", {})
    compiled = CompiledArtefact(reference)
    rng = np.random.default_rng(0)
    names = [f"w{k}" for k in range(300)]
    for round_ in range(3):
        known = names[: 100 * (round_ + 1)]
        rows = reference.intern(known)
        np.testing.assert_array_equal(compiled.intern(known), rows)
        batch = rng.choice(rows, (600, 9)).astype(np.int32)
        lengths = rng.integers(1, 10, 600).astype(np.int32)
        np.testing.assert_array_equal(compiled.logits(batch, lengths), reference.logits(batch, lengths))
    assert compiled.token(int(rows[-1])) == names[-1]


@needs_compiler
def test_a_library_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reference = FixedArtefact(integers(make("mean")), "", {})
    CompiledArtefact(reference)
    (library,) = tmp_path.rglob("batch.so")
    before = library.stat().st_mtime_ns
    CompiledArtefact(reference)
    assert library.stat().st_mtime_ns == before
    assert len(list(tmp_path.rglob("*.so"))) == 1


def test_source_that_does_not_compile_is_a_reason(tmp_path: Path) -> None:
    if HOST is None:
        pytest.skip("no C compiler")
    (tmp_path / "x.c").write_text("int x = ;", encoding="ascii")
    with pytest.raises(CouldNotMeasure, match="could not compile"):
        HOST.run(["-c", "x.c"], tmp_path)


def test_without_a_compiler_there_is_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compiler.shutil, "which", lambda name: None)
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: None)
    compiler.host.cache_clear()
    compiler.zig.cache_clear()
    try:
        with pytest.raises(CouldNotMeasure, match=r"pip install 'gritbench\[arm\]'"):
            compiler.host()
        with pytest.raises(CouldNotMeasure, match=r"pip install 'gritbench\[arm\]'"):
            compiler.zig()
    finally:
        compiler.host.cache_clear()
        compiler.zig.cache_clear()


@pytest.mark.long
def test_real_texts_read_alike(real_data: Path, build: Build) -> None:
    """Thousands of texts of a real set, among them its non-ASCII ones."""
    from grit.bench import datasets

    texts = [example.text for example in datasets.load("ag_news").test[:3000]]
    program = quantise.quantise(make("fastgrnn", "ternary", features=64, units=16, max_tokens=64), texts[:50])
    np.testing.assert_array_equal(build(program).texts(texts), words.answer(FixedArtefact(program, "", {}), texts))
    assert packing.pack(program)
    assert fixed.TABLE == 2048
