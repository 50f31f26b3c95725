"""A trained model -> the bytes that ship, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from grit.bench.export import packing, words
from grit.bench.export.quantise import quantise
from grit.bench.types import Artefact, Example, Model, UsageError

if TYPE_CHECKING:
    pass


def deployed(model: Model, texts: Sequence[str]) -> bytes:
    """The int8 artefact of a trained model; ``texts`` of the training split set its static ranges."""
    program = model.program()
    assert program is not None
    return packing.pack(quantise(program, texts))


def load(path: Path) -> Artefact:
    return packing.artefact(path.read_bytes())


def logits(artefact: Artefact, examples: Sequence[Example]) -> np.ndarray:
    return words.answer(artefact, [example.text for example in examples])


def parameters(model: Model) -> int:
    import torch

    assert isinstance(model, torch.nn.Module)
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
