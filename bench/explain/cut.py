"""The float model at its feature cut: hidden words, and gradients with respect to what is left.

Everything here meets the text where training, white-box attacks and exporters meet it: features [seq feat], one row
a token, be they embeddings or hash projections. So nothing below knows a model.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from grit.bench.explain.texts import Cutting, Hide, cutting, joined, sequences
from grit.bench.objectives._passes import answer, evidence
from grit.bench.types import Model

TEXTS = 256  # a pass


class Cut:
    """A trained torch model; it keeps a copy of its own, in double precision and evaluation mode."""

    def __init__(self, model: Model) -> None:
        twin = copy.deepcopy(model)
        assert isinstance(twin, torch.nn.Module)  # by the contract of Model
        twin.double().eval().requires_grad_(False)
        self._model: Model = twin

    def open(self, text: str) -> CutText:
        return CutText(self._model, cutting(text, self._model.tokenize, self._model.separable))


class CutText:
    """One text at the cut: a :class:`grit.bench.explain.texts.Subject` with gradients.

    ``features`` [seq feat] are those of the tokens that are read, ``blank`` [feat] those of the unknown word, and
    ``owner`` [seq] says which word a token belongs to.
    """

    def __init__(self, model: Model, cut: Cutting) -> None:
        self.words = cut.words
        self._model = model
        self._cut = cut
        table = _features(model, [*cut.tokens, ""])
        self._table = table  # [tokens + 1 feat]; a place of -1 finds the unknown word
        self.blank = table[-1]
        self.features = table[:-1][: model.max_tokens] if cut.tokens else table[-1:]
        self.owner = cut.owner[: model.max_tokens]

    def logits(self, kept: np.ndarray, hide: Hide) -> np.ndarray:
        found = []
        with torch.no_grad():
            for start in range(0, len(kept), TEXTS):
                found.append(self._answer(kept[start : start + TEXTS], hide).numpy())
        return np.concatenate(found) if found else np.empty((0, self._model.classes))

    def _answer(self, kept: np.ndarray, hide: Hide) -> torch.Tensor:
        limit = self._model.max_tokens
        if self._model.separable or hide == "occlude":
            places, lengths = sequences(self._cut, kept, hide, limit)
            return answer(self._model, self._table[torch.from_numpy(places)], torch.from_numpy(lengths))
        read = [self._model.tokenize(text)[:limit] or [""] for text in joined(self.words, kept)]
        flat = _features(self._model, [token for tokens in read for token in tokens])
        features = torch.nn.utils.rnn.pad_sequence(list(flat.split([len(tokens) for tokens in read])), batch_first=True)
        return answer(self._model, features, torch.tensor([len(tokens) for tokens in read]))

    def evidence(self, features: torch.Tensor, label: int) -> torch.Tensor:
        """features [batch seq feat] in place of this text's -> evidence for a label [batch], with its gradient."""
        lengths = torch.full((len(features),), features.shape[1])
        return evidence(answer(self._model, features, lengths), torch.full((len(features),), label))

    def gradients(self, features: torch.Tensor, label: int) -> torch.Tensor:
        """Of the evidence, at other features [batch seq feat] than this text's: [batch seq feat]."""
        parts = []
        for part in features.split(TEXTS):
            with torch.enable_grad():
                here = part.detach().requires_grad_()
                parts.append(torch.autograd.grad(self.evidence(here, label).sum(), here)[0])
        return torch.cat(parts)

    def by_word(self, values: torch.Tensor) -> np.ndarray:
        """values [seq] of tokens, summed over those of each word: float64 [words]."""
        if not len(self.owner):
            return np.zeros(len(self.words))
        return np.bincount(self.owner, weights=values.numpy(), minlength=len(self.words))


@torch.no_grad()
def _features(model: Model, tokens: list[str]) -> torch.Tensor:
    """tokens -> float64 [tokens feat]"""
    codes = torch.from_numpy(np.ascontiguousarray(model.codes(tokens)))
    return model.features(codes[None])[0].double()
