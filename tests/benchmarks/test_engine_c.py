"""Engine c beside its opponents, one text, one thread: the compiled program, onnxruntime, LiteRT, PyTorch eager.

The models are those of the ARM figures: a vocabulary of 4,000 words, 32 features, 64 units, texts of 64 words, 4
classes. Ratios are of one run, equality comes first. Instructions on emulated cores stand beside what arithmetic alone
would take there. And the artefact that attacks ask, compiled, beside the same bits in numpy.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grit.bench.export import onnx, packing, quantise, words
from grit.bench.export.c import compiler
from grit.bench.export.c.compiled import CompiledArtefact
from grit.bench.export.fixed import FixedArtefact
from grit.bench.targets import _compiled
from grit.bench.targets.emu import Emu
from grit.bench.types import Artefact, CouldNotMeasure, Dense, FastGrnn, Lstm, Program, Rows

sys.path.append(str(Path(__file__).parent))

pytestmark = pytest.mark.benchmark
VOCABULARY, FEATURES, UNITS, TOKENS, CLASSES = 4000, 32, 64, 64, 4
WORDS = ("", *(f"w{k}" for k in range(1, VOCABULARY)))
LITERT = "LiteRT is not installed: pip install 'gritbench[litert]'"
# core -> most multiplications of 8 bits that one instruction does there (sdot; smull and smlal; smlad), and what others
# have generated for these models, in instructions
CORES = {
    "cortex-a76": (16, {"Lstm": 347e3, "FastGrnn": 128e3}),
    "cortex-a53": (8, {"Lstm": 551e3, "FastGrnn": 177e3}),
    "cortex-m4": (2, {"Lstm": 3.55e6, "FastGrnn": 1.10e6}),
}


def texts(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{k}" for k in rng.integers(1, VOCABULARY, TOKENS)) for _ in range(n)]


def program(body: str) -> Program:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    lstm = Lstm(draw(4 * UNITS, FEATURES), draw(4 * UNITS, UNITS), draw(4 * UNITS))
    cell = FastGrnn(draw(UNITS, FEATURES), draw(UNITS, UNITS), draw(UNITS), draw(UNITS), 0.9, 0.05)
    head = Dense(draw(CLASSES, UNITS), draw(CLASSES))
    return Program(Rows(5 * draw(VOCABULARY, FEATURES)), lstm if body == "lstm" else cell, head, WORDS, TOKENS)


@pytest.fixture(scope="module", params=["lstm", "fastgrnn"])
def trained(request: pytest.FixtureRequest) -> Program:
    return program(request.param)


@pytest.fixture(scope="module")
def deployed(trained: Program) -> FixedArtefact:
    found = packing.artefact(packing.pack(quantise.quantise(trained, texts(20))))
    assert isinstance(found, FixedArtefact)
    return found


def eager(of: Program) -> Callable[[np.ndarray], np.ndarray]:
    """The network in PyTorch, as its users write it: nn.LSTM, or a loop over the FastGRNN cell."""
    import torch

    body, tensor = of.body, torch.from_numpy
    table, head, bias = tensor(of.words.table), tensor(of.head.weight), tensor(of.head.bias)  # type: ignore[union-attr]
    lstm = torch.nn.LSTM(FEATURES, UNITS, batch_first=True)
    if isinstance(body, Lstm):
        lstm.weight_ih_l0.data, lstm.weight_hh_l0.data = tensor(body.input_weight), tensor(body.state_weight)
        lstm.bias_ih_l0.data, lstm.bias_hh_l0.data = tensor(body.bias), torch.zeros(4 * UNITS)

    def state(x: torch.Tensor) -> torch.Tensor:
        if isinstance(body, Lstm):
            return lstm(x)[1][0][0]
        assert isinstance(body, FastGrnn)
        w, u, gate, update = map(tensor, (body.input_weight, body.state_weight, body.bias_gate, body.bias_update))
        h = torch.zeros(1, UNITS)
        for t in range(x.shape[1]):
            p = x[:, t] @ w.T + h @ u.T
            z = torch.sigmoid(p + gate)
            h = z * h + (body.zeta * (1 - z) + body.nu) * torch.tanh(p + update)
        return h

    def logits(rows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(state(table[torch.from_numpy(rows)]) @ head.T + bias)

    return logits


def compiled_us(of: Program | FixedArtefact) -> float:
    """Smallest time of the network alone in the compiled program, by its own clock."""
    from grit.bench.export.floating import FloatArtefact

    artefact: Artefact = FloatArtefact(of, "", {}) if isinstance(of, Program) else of
    try:
        built = _compiled.runner(artefact, compiler.host(), [compiler.native()])
    except CouldNotMeasure as error:
        pytest.skip(str(error))
    some = texts(5)
    times = _compiled.parse(_compiled.run([str(built.path)], _compiled.job(some, least_s=0.2, most_s=1), 60))
    _compiled.compare(artefact, some, times.logits)
    return float(times.neural_ns.min()) / 1000


def smallest_us(call: Callable[[], Any], least_s: float = 0.5) -> float:
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < least_s:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best * 1e6


def litert(of: Program, int8: bool) -> Callable[[np.ndarray], np.ndarray]:
    """The network in LiteRT, by XNNPACK; skips where it is not installed."""
    if not importlib.util.find_spec("ai_edge_litert"):
        pytest.skip(LITERT)
    import litert_graphs
    from ai_edge_litert.interpreter import Interpreter

    engine = Interpreter(model_content=litert_graphs.model(of, TOKENS, int8=int8), num_threads=1)
    engine.allocate_tensors()
    (source,), (target,) = engine.get_input_details(), engine.get_output_details()

    def logits(rows: np.ndarray) -> np.ndarray:
        engine.set_tensor(source["index"], rows[0])
        engine.invoke()
        return np.asarray(engine.get_tensor(target["index"]))

    return logits


def say(capsys: pytest.CaptureFixture[str], heading: str, lines: list[str]) -> None:
    with capsys.disabled():
        sys.stdout.write("\n".join([f"\n{heading}", *(f"  {line}" for line in lines)]) + "\n")


def test_ratios_in_one_run(trained: Program, deployed: FixedArtefact, capsys: pytest.CaptureFixture[str]) -> None:
    """Equality first, then the smallest time of the network alone, rows in and logits out, of each engine."""
    import torch

    torch.set_num_threads(1)
    rows, lengths = words.batch(deployed, texts(1))
    found = {"c int8": compiled_us(deployed), "c fp32": compiled_us(trained)}
    exact = onnx.OnnxArtefact(onnx.files(trained)).logits(rows, lengths)
    for name, of in (("onnxruntime, the same bits", deployed.program), ("onnxruntime fp32", trained)):
        engine = onnx.OnnxArtefact(onnx.files(of))
        np.testing.assert_allclose(engine.logits(rows, lengths), exact, atol=0.2)
        found[name] = smallest_us(lambda engine=engine: engine.logits(rows, lengths))
    opponents: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"PyTorch eager": eager(trained)}
    if importlib.util.find_spec("ai_edge_litert"):
        opponents = {"LiteRT int8": litert(trained, True), "LiteRT fp32": litert(trained, False), **opponents}
    for name, network in opponents.items():
        np.testing.assert_allclose(network(rows), exact, atol=0.05 if name.endswith("int8") else 1e-4)
        found[name] = smallest_us(lambda network=network: network(rows))
    kind = type(trained.body).__name__
    lines = [f"{name:<26} {us:9.1f} us  {us / found['c int8']:7.1f} times c int8" for name, us in found.items()]
    lines += [] if "LiteRT int8" in found else [LITERT]
    say(capsys, f"{kind}, network alone, one text of {TOKENS} tokens, one thread, smallest of many:", lines)
    others = [us for name, us in found.items() if not name.startswith("c ")]
    assert found["c int8"] < min(others) and found["c fp32"] < found["PyTorch eager"]


@pytest.mark.parametrize("int8", [False, True])
def test_litert_runs_the_same_network(trained: Program, int8: bool) -> None:
    """On other texts than the one that is timed; its int8 is its own scheme, so it is near and not equal."""
    network, reference = litert(trained, int8), onnx.OnnxArtefact(onnx.files(trained))
    rows, lengths = words.batch(reference, texts(8, seed=1))
    answers = np.concatenate([network(one[None]) for one in rows])
    np.testing.assert_allclose(answers, reference.logits(rows, lengths), atol=0.05 if int8 else 1e-5)


def test_instructions_beside_the_limit_of_arithmetic(
    trained: Program, deployed: FixedArtefact, capsys: pytest.CaptureFixture[str]
) -> None:
    """The int8 network's count on each core, and how many times the multiplications alone that is."""
    if lacking := Emu.missing():
        pytest.skip(lacking)
    kind = type(trained.body).__name__
    gates = 4 if kind == "Lstm" else 1
    products = TOKENS * gates * UNITS * (FEATURES + UNITS) + CLASSES * UNITS
    lines = []
    for core, (at_once, others) in CORES.items():
        count = Emu(core, cached_texts=0).cost(deployed, texts(1)).values["p50_neural_instructions"]
        limit = products / at_once
        lines.append(
            f"{core:<12} {count:>11,}, multiplications alone {limit:>9,.0f}: {count / limit:.1f} times the limit"
        )
        assert count <= others[kind]
    say(capsys, f"{kind}, instructions of the int8 network on a text of {TOKENS} tokens:", lines)


@pytest.mark.parametrize("engine", ["numpy", "compiled"])
def test_what_attacks_ask(benchmark: Any, deployed: FixedArtefact, engine: str) -> None:
    """512 texts that differ from one in a word: what a search asks at once."""
    try:
        artefact: Artefact = deployed if engine == "numpy" else CompiledArtefact(deployed)
    except CouldNotMeasure as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(1)
    rows = np.repeat(words.batch(deployed, texts(1))[0], 512, axis=0)
    rows[np.arange(512), rng.integers(0, TOKENS, 512)] = rng.integers(1, VOCABULARY, 512)
    lengths = np.full(512, TOKENS, np.int32)
    expected = deployed.logits(rows, lengths)
    np.testing.assert_array_equal(benchmark(artefact.logits, rows, lengths), expected)
