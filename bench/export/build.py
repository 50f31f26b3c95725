"""A trained model -> the bytes that are attacked, measured and ranked; and those bytes -> an artefact at work.

The deployed artefact is int8. A model with a program becomes a program file; one without becomes an ONNX graph by
torch's tracer, its folder's files side by side in one container.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from grit.bench import datasets, records
from grit.bench.export import packing, words
from grit.bench.export.fixed import FixedArtefact
from grit.bench.export.quantise import quantise
from grit.bench.types import Artefact, CouldNotMeasure, Dataset, Example, Model, UsageError

FORMATS = ("program", "onnx", "c")
PRECISIONS = ("int8", "fp32")
CALIBRATION_TEXTS = 256  # of the training split, by hash rank
TRACED_TEXTS = 8  # that a traced graph is compared on


def deployed(model: Model, texts: Sequence[str]) -> bytes:
    """The int8 artefact of a trained model; ``texts`` of the training split set the ranges of its activations."""
    program = model.program()
    if program is not None:
        return packing.pack(quantise(program, texts))
    from grit.bench.export import onnx

    return packing.bundle(onnx.traced(model, texts[:TRACED_TEXTS], int8=True))


def calibration(dataset: Dataset) -> list[str]:
    """The texts that set the static ranges of the int8 artefact."""
    return [example.text for example in datasets.subset(dataset.train, CALIBRATION_TEXTS, dataset.name)]


def load(path: Path, model: Model | None = None, *, threads: int = 1) -> Artefact:
    """The artefact in a program file, a container of :func:`deployed`, or an ONNX folder.

    ``model`` supplies the tokenizer where a traced graph leaves it to its model's code; ``threads`` are onnxruntime's.
    """
    if path.is_dir():
        from grit.bench.export import onnx

        return onnx.OnnxArtefact(onnx.read(path), model, threads=threads)
    data = packing.read_file(path)
    if not packing.is_bundle(data):
        return packing.artefact(data)
    from grit.bench.export import onnx

    return onnx.OnnxArtefact(packing.unbundle(data), model, threads=threads)


def quickest(artefact: Artefact) -> Artefact:
    """The artefact compiled for this machine where it is a fixed-point program and a compiler is here; else itself.

    The same bits either way, so nothing that is asked of it can tell. That is tried before it is believed: a compiler
    that makes other bits of it is named on the error stream, and not used.
    """
    from grit.bench.export.c.compiled import CompiledArtefact

    if not isinstance(artefact, FixedArtefact):
        return artefact
    try:
        compiled = CompiledArtefact(artefact)
    except CouldNotMeasure:  # no compiler, or one that cannot do it
        return artefact
    tried = _trial_texts(artefact)
    if not np.array_equal(words.answer(compiled, tried), words.answer(artefact, tried)):
        sys.stderr.write("grit: the C compiler makes another program of the artefact, so it is not used; report this\n")
        return artefact
    compiled.forget()
    artefact.forget()
    return compiled


def _trial_texts(artefact: FixedArtefact) -> list[str]:
    """Texts of all lengths, of the artefact's own words and of others."""
    rng = random.Random(artefact.digest)
    known = [*artefact.program.vocabulary[1:], *"abcdefgh", "don't", "\u00e9t\u00e9", "?"]
    return [" ".join(rng.choice(known) for _ in range(length)) for length in (*range(24), 64, artefact.max_tokens + 5)]


def export(
    model: Model, artefact: Path, format_: str, precision: str, output: Path, *, licence: str = "unknown"
) -> dict[str, int]:
    """Writes a trained model's files to the folder ``output``: name -> bytes.

    int8 is written from the deployed ``artefact`` itself, so it is what was attacked and ranked; fp32 from the model.
    ``licence`` is that of the data it was trained on; a format that has a place for it says so.
    """
    if format_ not in FORMATS or precision not in PRECISIONS:
        raise UsageError(
            f"cannot export {precision} {format_}: formats are {', '.join(FORMATS)} in {', '.join(PRECISIONS)}"
        )
    from grit.bench.export import onnx
    from grit.bench.export.c import emitter

    program = model.program()
    data = packing.read_file(artefact)
    if program is None:
        if format_ != "onnx":
            raise UsageError(f"this model has no program, so no {format_}: export it --to onnx")
        files = packing.unbundle(data)
        if precision == "fp32":
            raise UsageError("a traced model is exported as it was deployed, in int8")
    elif format_ == "c":
        if precision == "int8":
            digest = hashlib.sha256(data).hexdigest()
            emission = emitter.emit(packing.unpack(data), licence=licence, digest=digest)
        else:
            emission = emitter.emit(program, licence=licence)
        files = {name: text.encode() for name, text in emission.files.items()}
    elif format_ == "onnx":
        files = onnx.files(packing.unpack(data) if precision == "int8" else program)
    else:
        files = {"program.safetensors": data if precision == "int8" else packing.pack(program)}
    for name, content in files.items():
        records.write(output / name, content)
    return {name: len(content) for name, content in files.items()}


def logits(artefact: Artefact, examples: Sequence[Example]) -> np.ndarray:
    """float64 [examples classes]."""
    return words.answer(artefact, [example.text for example in examples])


def parameters(model: Model) -> int:
    """How many numbers training may change."""
    import torch

    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"{type(model).__name__} is no torch.nn.Module: its parameters cannot be counted")
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
