"""Engine c beside its opponents, one text, one thread: the compiled program, onnxruntime, PyTorch eager.

The models are those of the ARM figures: a vocabulary of 4,000 words, 32 features, 64 units, texts of 64 words, 4
classes. Ratios are of one run, equality comes first. And the artefact that attacks ask, compiled, beside the same bits
in numpy.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grit.bench.export import onnx, packing, quantise, words
from grit.bench.export.c import compiler
from grit.bench.export.c.compiled import CompiledArtefact
from grit.bench.export.fixed import FixedArtefact
from grit.bench.targets import _compiled
from grit.bench.types import Artefact, CouldNotMeasure, Dense, FastGrnn, Lstm, Program, Rows

pytestmark = pytest.mark.benchmark
VOCABULARY, FEATURES, UNITS, TOKENS, CLASSES = 4000, 32, 64, 64, 4
WORDS = ("", *(f"w{k}" for k in range(1, VOCABULARY)))


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


def test_ratios_in_one_run(trained: Program, deployed: FixedArtefact, capsys: pytest.CaptureFixture[str]) -> None:
    """Equality first, then the smallest time of the network alone, rows in and logits out, of each engine."""
    import torch

    torch.set_num_threads(1)
    rows, lengths = words.batch(deployed, texts(1))
    found = {"c int8": compiled_us(deployed), "c fp32": compiled_us(trained)}
    reference = words.answer(deployed, texts(1))
    for name, of in (("onnxruntime, the same bits", deployed.program), ("onnxruntime fp32", trained)):
        engine = onnx.OnnxArtefact(onnx.files(of))
        np.testing.assert_allclose(engine.logits(rows, lengths), reference, atol=0.2)
        found[name] = smallest_us(lambda engine=engine: engine.logits(rows, lengths))
    network = eager(trained)
    np.testing.assert_allclose(network(rows), onnx.OnnxArtefact(onnx.files(trained)).logits(rows, lengths), atol=1e-4)
    found["PyTorch eager"] = smallest_us(lambda: network(rows))
    kind = type(trained.body).__name__
    with capsys.disabled():
        lines = [f"\n{kind}, network alone, one text of {TOKENS} tokens, one thread, smallest of many:"]
        lines += [f"  {name:<26} {us:9.1f} us  {us / found['c int8']:7.1f} times c int8" for name, us in found.items()]
        sys.stdout.write("\n".join(lines) + "\n")
    assert found["c int8"] < found["onnxruntime, the same bits"] and found["c fp32"] < found["PyTorch eager"]


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
