"""A torch model as it stands, under attack: for training that attacks each epoch, and for a look before an export.

    victim = live.victim(model)                      # a copy; training on does not move it
    outcomes = attack_all(victim, attack, examples, seed=epoch)

What is ranked is what ships; a model in training ships nothing yet. The copy computes in double precision, so that what
is left of its logits after rounding (:func:`grit.bench.victim.settled`) does not depend on the batch.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping

import numpy as np
import torch

from grit.bench.export import words
from grit.bench.twin import Twin
from grit.bench.types import Model
from grit.bench.victim import Victim


def victim(model: Model) -> Victim:
    """The model as it is now, with its gradients."""
    return Victim(LiveArtefact(model), Twin(model))


class LiveArtefact(words.Reader):
    """A copy of a torch model (:class:`grit.bench.types.Artefact`); the features of a word are computed once."""

    exact = False
    sizes_bytes: Mapping[str, int] = {}

    def __init__(self, model: Model) -> None:
        twin = copy.deepcopy(model)
        assert isinstance(twin, torch.nn.Module)  # by contract of Model
        weights = hashlib.sha256()
        for name, weight in twin.state_dict().items():
            weights.update(f"{name} {weight.dtype} {list(weight.shape)}".encode() + weight.numpy(force=True).tobytes())
        self.digest = weights.hexdigest()
        twin.double().eval().requires_grad_(False)
        self._model: Model = twin
        super().__init__(words.Codes(twin.codes, twin.tokenize, separable=model.separable))
        self.classes, self.max_tokens = model.classes, model.max_tokens
        self._table = torch.empty(0, 0)

    def _clear(self) -> None:
        self._table = torch.empty(0, 0)

    @torch.no_grad()
    def logits(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """rows [batch seq], lengths [batch] >= 1 -> float64 [batch classes]; beyond max_tokens nothing is read."""
        if (fresh := self._fresh()) is not None:
            new = self._model.features(torch.from_numpy(fresh)[None])[0].double()
            self._table = torch.cat([self._table, new]) if len(self._table) else new
        lengths = np.minimum(lengths, self.max_tokens)
        inside = np.where(np.arange(rows.shape[1]) < lengths[:, None], rows, 0)[:, : lengths.max(initial=1)]
        state = self._model.read(self._table[inside], torch.from_numpy(lengths.astype(np.int64))).state
        return self._model.head(state).numpy()
