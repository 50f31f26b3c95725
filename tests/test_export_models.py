"""Export of every model of the house: torch, float program, ONNX and int8 say the same, within what each promises."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grit.bench import measure, registry, text
from grit.bench.export import build, onnx, packing, quantise, words
from grit.bench.export.fixed import FixedProgram
from grit.bench.export.floating import FloatArtefact
from grit.bench.types import Artefact, Program, Rows, Ternary

CLASSES = 4
# name -> (registry key, fields of its configuration): small, and every branch of every program
MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "student": ("student", {"vocabulary_size": 60}),
    "student, wide": ("student", {"vocabulary_size": 40, "embedding": 20, "hidden": 20, "max_tokens": 9}),
    "teacher": ("teacher", {"vocabulary_size": 60, "embedding": 24, "hidden": 40}),
    "fastgrnn": ("fastgrnn", {"vocabulary_size": 60, "embedding": 8, "hidden": 24}),
    "fastgrnn, low rank": ("fastgrnn", {"vocabulary_size": 60, "rank_w": 3, "rank_u": 5, "hidden": 16}),
    "fastgrnn, sparse": ("fastgrnn", {"vocabulary_size": 60, "density_w": 0.3, "density_u": 0.3, "hidden": 16}),
    "prado": ("prado", {"width": 96, "maps": 16, "bigrams": 12, "trigrams": 12}),
    "prado, all kernels": (
        "prado",
        {
            "width": 33,
            "maps": 8,
            "unigrams": 3,
            "bigrams": 4,
            "trigrams": 4,
            "fourgrams": 2,
            "fivegrams": 2,
            "skip_one_bigrams": 3,
            "skip_two_bigrams": 3,
            "max_tokens": 11,
        },
    ),
    "hashed": ("hashed", {"buckets": 64}),
    "hashed, single words": ("hashed", {"buckets": 32, "order": 1, "max_tokens": 7}),
    "tfidf": ("tfidf", {"vocabulary_size": 60}),
}
SYLLABLES = ("ba", "do", "fi", "gu", "ke", "lo", "mi", "nu", "pa", "re")


def sentences(seed: int, n: int) -> list[str]:
    """Nonsense of our own with frequent and rare words, capitals, signs and letters beyond ASCII."""
    rng = random.Random(seed)

    def word() -> str:
        made = "".join(rng.choices(SYLLABLES, weights=range(10, 0, -1), k=rng.choice((1, 1, 2))))
        return rng.choice((made, made, made.capitalize(), made + "'s", made + "\u00e9", rng.choice("!?,.7")))

    return [" ".join(word() for _ in range(rng.randint(1, 25))) for _ in range(n - 2)] + ["", "wholly-unheard OF"]


@cache
def model(name: str) -> Any:
    """The model as if trained: every weight drawn, statistics of its normalisations too."""
    key, fields = MODELS[name]
    cls = registry.load("models", key)
    built = cls.build(cls.Config(**fields), sentences(1, 200), CLASSES, 0)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor_name, tensor in [*built.named_parameters(), *built.named_buffers()]:
            if tensor_name.endswith(("variance", "scale")):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif tensor.is_floating_point() and not tensor_name.endswith("idf"):
                tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
    return built.eval()


@cache
def texts() -> tuple[str, ...]:
    return tuple(sentences(2, 60))


@cache
def by_torch(name: str) -> np.ndarray:
    """The torch model's own logits, a text at a time."""
    net = model(name)
    answers = []
    with torch.no_grad():
        for raw in texts():
            tokens = (net.tokenize(text.normalise(raw)) or [""])[: net.max_tokens]
            codes = torch.from_numpy(np.asarray(net.codes(tokens)))[None]
            state = net.read(net.features(codes), torch.tensor([len(tokens)])).state
            answers.append(net.head(state)[0].numpy())
    return np.array(answers, np.float64)


@cache
def program(name: str) -> Program:
    found: Program = model(name).program()
    return found


@cache
def integers(name: str) -> FixedProgram:
    return quantise.quantise(program(name), sentences(3, 100))


def close(a: np.ndarray, b: np.ndarray, share: float) -> bool:
    return float(np.abs(a - b).max()) <= share * max(1.0, float(np.abs(b).max()))


def unpacked(kept: Program | FixedProgram) -> Artefact:
    return packing.artefact(packing.pack(kept))


everywhere = pytest.mark.parametrize("name", MODELS)


@everywhere
def test_the_float_program_is_the_torch_model(name: str) -> None:
    assert close(words.answer(unpacked(program(name)), texts()), by_torch(name), 2e-5)


@everywhere
def test_the_fp32_graph_is_the_torch_model(name: str) -> None:
    assert close(words.answer(onnx.OnnxArtefact(onnx.files(program(name))), texts()), by_torch(name), 2e-5)


@everywhere
def test_int8_stays_close_and_agrees_on_labels(name: str) -> None:
    exact = by_torch(name)
    logits = words.answer(unpacked(integers(name)), texts())
    assert close(logits, exact, 0.06)
    # where the labels differ, the float model was undecided
    margins = np.sort(exact, axis=1)[:, -1] - np.sort(exact, axis=1)[:, -2]
    differ = logits.argmax(axis=1) != exact.argmax(axis=1)
    assert differ.mean() < 0.1
    assert (margins[differ] < 0.1 * np.abs(exact).max()).all()


@everywhere
def test_onnxruntime_gives_the_bits_of_numpy(name: str) -> None:
    runtime = onnx.OnnxArtefact(onnx.files(integers(name)))
    assert np.array_equal(words.answer(runtime, texts()), words.answer(unpacked(integers(name)), texts()))


@everywhere
def test_an_artefact_reads_as_its_model_does(name: str) -> None:
    net, artefact = model(name), unpacked(integers(name))
    assert (artefact.classes, artefact.max_tokens) == (CLASSES, net.max_tokens)
    assert artefact.separable >= net.separable  # single hashed words are separable, whatever the model says
    for raw in texts():
        tokens = net.tokenize(text.normalise(raw))
        assert artefact.tokenize(text.normalise(raw)) == tokens
        rows = artefact.intern(tokens)
        layer = program(name).words
        if isinstance(layer, Ternary):
            assert np.array_equal(text.ternary([artefact.token(row) for row in rows], layer.width), net.codes(tokens))
        else:
            assert np.array_equal(rows, net.codes(tokens))
    empty = words.answer(artefact, [""])
    assert np.array_equal(artefact.logits(artefact.intern([""])[None], np.array([1], np.int32)), empty)


@everywhere
def test_nothing_beyond_the_limit_is_read(name: str) -> None:
    artefact = unpacked(integers(name))
    long = " ".join(sentences(9, 40))
    tokens = artefact.tokenize(text.normalise(long))
    assert len(tokens) > artefact.max_tokens
    rows = artefact.intern(tokens)[None]
    cut = rows[:, : artefact.max_tokens]
    whole = artefact.logits(rows, np.array([rows.shape[1]], np.int32))
    assert np.array_equal(whole, artefact.logits(cut, np.array([cut.shape[1]], np.int32)))
    assert np.array_equal(whole, words.answer(artefact, [long]))


@everywhere
def test_deployed_bytes_hold_everything(name: str, tmp_path: Path) -> None:
    path = tmp_path / "artefact.safetensors"
    path.write_bytes(build.deployed(model(name), sentences(3, 100)))
    artefact = build.load(path)
    assert artefact.exact
    assert np.array_equal(words.answer(artefact, texts()), words.answer(unpacked(integers(name)), texts()))
    sizes = measure.sizes(artefact)
    assert sizes["total"] == path.stat().st_size
    layer, net = program(name).words, model(name)
    assert sizes["vocabulary"] == len("\n".join(net.vocabulary).encode())
    assert sizes["embedding"] == (layer.table.size if isinstance(layer, Rows) else 0)
    exported = build.export(net, path, "onnx", "int8", tmp_path / "onnx")
    assert set(exported) == {"model.onnx", "tokenizer.json"} | ({"vocabulary.txt"} if net.vocabulary else set())
    assert np.array_equal(words.answer(build.load(tmp_path / "onnx"), texts()), words.answer(artefact, texts()))


def test_parameters_are_those_that_train() -> None:
    cls = registry.load("models", "prado")
    assert build.parameters(cls.build(cls.Config(), [], 4, 0)) == 108_172
    net = model("student")
    assert build.parameters(net) == len(net.vocabulary) * 5 + 4 * 5 * (5 + 5 + 2) + 4 * (5 + 1)


def test_most_of_a_student_is_its_words() -> None:
    """At full size the body of the student is a third of a per cent of what ships."""
    vocabulary = ("", *(f"w{k}" for k in range(19_999)))
    rng = np.random.default_rng(0)
    small = program("student")
    table = rng.standard_normal((20_000, 5)).astype(np.float32)
    full = Program(Rows(table), small.body, small.head, vocabulary, 128)
    sizes = packing.sizes_bytes(packing.pack(quantise.quantise(full, ["w1 w2"])))
    assert sizes["embedding"] == 100_000
    assert sizes["body"] + sizes["head"] < 0.005 * sizes["embedding"]


def test_a_gradient_step_changes_what_is_deployed() -> None:
    cls = registry.load("models", "student")
    net = cls.build(cls.Config(vocabulary_size=60), sentences(1, 100), CLASSES, 3)
    before = build.deployed(net, texts())
    assert build.deployed(net, texts()) == before
    codes = torch.from_numpy(np.asarray(net.codes(["ba", "do"])))[None]
    net.head(net.read(net.features(codes), torch.tensor([2])).state)[0, 0].backward()
    with torch.no_grad():
        for weight in net.parameters():
            weight.sub_(0.1 * weight.grad)
    assert build.deployed(net, texts()) != before


def test_scaled_logits_change_no_label() -> None:
    """Over-confidence is cheap in floating point; here too it moves no label but those that rounding had decided."""
    for name in ("student", "prado"):
        kept = program(name)
        logits = words.answer(unpacked(integers(name)), texts())
        for factor in (0.1, 100.0):
            head = type(kept.head)(kept.head.weight * np.float32(factor), kept.head.bias * np.float32(factor))
            louder = Program(kept.words, kept.body, head, kept.vocabulary, kept.max_tokens)
            scaled = words.answer(unpacked(quantise.quantise(louder, sentences(3, 100))), texts())
            assert close(scaled / factor, logits, 0.02)


def test_labels_on_real_texts(real_data: Path) -> None:
    """Real texts hold what nonsense does not: all executors still agree to the bit."""
    import gzip
    import json

    with gzip.open(real_data / "ag_news" / "dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        real: Sequence[str] = [json.loads(line)["text"] for line, _ in zip(lines, range(200), strict=False)]
    for name in ("student", "fastgrnn", "prado", "hashed"):
        exact = words.answer(FloatArtefact(program(name), "", {}), real)
        quantised = quantise.quantise(program(name), real[:100])
        logits = words.answer(unpacked(quantised), real)
        assert np.array_equal(words.answer(onnx.OnnxArtefact(onnx.files(quantised)), real), logits)
        assert close(logits, exact, 0.06)
