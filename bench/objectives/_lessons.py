"""What the teacher says: over the training split once, then looked up; over changed texts as they come.

Word vectors and attributions are kept a piece of text (between white space), so that a student that cuts
words otherwise can still compare. With a cache folder the answers are kept on disk by the hash of all that
they depend on, and serve every student and seed that learns from this teacher.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from grit.bench.objectives._passes import answer, evidence
from grit.bench.objectives._words import Codebook, Split, Words, padded
from grit.bench.types import Example, Model, StorageError

_BATCH = 128  # texts a pass: sorted by length, so padding stays small


class Lessons:
    """A teacher's answers about one training split; the teacher is left in evaluation mode."""

    def __init__(self, teacher: Model, examples: tuple[Example, ...], words: Words, cache: Path | None = None) -> None:
        assert isinstance(teacher, nn.Module)  # by the contract of Model
        teacher.eval()
        self.teacher = teacher
        self.separable = teacher.separable
        self._examples = examples
        self._words = words
        self._cache = cache
        self._plain: tuple[int, bool] = (0, True)  # strings checked, and whether all are tokens of the teacher
        self._spelling = lru_cache(maxsize=1 << 17)(lambda token: tuple(teacher.tokenize(token)) or ("",))

    # --- over the training split, once --------------------------------------------------------------

    def logits(self, index: np.ndarray) -> torch.Tensor:
        """[batch classes]"""
        return torch.from_numpy(self._answers["logits"][index])

    def state(self, index: np.ndarray) -> torch.Tensor:
        """[batch feat]"""
        return torch.from_numpy(self._answers["state"][index])

    def word_vectors(self, index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean vector of every piece, [batch pieces feat], and where the teacher read one, [batch pieces]."""
        ends = self._answers["ends"]
        vectors = padded(self._answers["words"], ends, index)
        inside = np.arange(vectors.shape[1]) < np.diff(ends)[index][:, None]
        return torch.from_numpy(vectors.astype(self._answers["state"].dtype)), torch.from_numpy(inside)

    def attributions(self, index: np.ndarray) -> torch.Tensor:
        """Summed gradient times input of every piece, 0 beyond the end: [batch pieces]."""
        return torch.from_numpy(padded(self._attributions["values"], self._attributions["ends"], index))

    @cached_property
    def widths(self) -> tuple[int, int]:
        """Features of a word vector and of a state."""
        return self._answers["words"].shape[-1], self._answers["state"].shape[-1]

    @cached_property
    def _split(self) -> tuple[Split, Codebook]:
        words = Words()  # its own: the teacher may cut texts otherwise
        split = Split(self.teacher, words, self._examples)
        return split, Codebook(words, self.teacher)

    @cached_property
    def _answers(self) -> dict[str, np.ndarray]:
        return self._kept("answers", self._ask)

    @cached_property
    def _attributions(self) -> dict[str, np.ndarray]:
        return self._kept("attributions", self._explain)

    def _ask(self) -> dict[str, np.ndarray]:
        split, codebook = self._split
        logits: list[np.ndarray] = [np.empty(0)] * len(split)
        states, vectors = list(logits), list(logits)
        for index in split.batches(_BATCH):
            lengths = split.lengths[index]
            with torch.no_grad():
                features = self.teacher.features(codebook.codes(split.rows(index)))
                reading = self.teacher.read(features, torch.from_numpy(lengths))
                scores = self.teacher.head(reading.state)
            for place, number in enumerate(index):
                logits[number] = scores[place].numpy()
                states[number] = reading.state[place].numpy()
            if self.separable:
                for place, vector in enumerate(_by_piece(reading.words, split, index, mean=True)):
                    vectors[index[place]] = vector.astype(np.float16)  # directions of vectors need no more
            else:
                for number in index:
                    vectors[number] = np.empty((0, reading.words.shape[-1]), np.float16)
        return {
            "logits": np.stack(logits),
            "state": np.stack(states),
            "words": np.concatenate(vectors),
            "ends": np.cumsum([0, *map(len, vectors)]),
        }

    def _explain(self) -> dict[str, np.ndarray]:
        split, codebook = self._split
        values: list[np.ndarray] = [np.empty(0, np.float32)] * len(split)
        for index in split.batches(_BATCH) if self.separable else ():
            features = self.teacher.features(codebook.codes(split.rows(index)))
            lengths = torch.from_numpy(split.lengths[index])
            features = features.detach().requires_grad_()
            score = evidence(answer(self.teacher, features, lengths), torch.from_numpy(split.labels[index]))
            (gradient,) = torch.autograd.grad(score.sum(), features)
            found = (gradient * features.detach()).sum(-1)
            for place, vector in enumerate(_by_piece(found[..., None], split, index, mean=False)):
                values[index[place]] = vector[:, 0]
        return {"values": np.concatenate(values), "ends": np.cumsum([0, *map(len, values)])}

    # --- over changed texts -------------------------------------------------------------------------

    def logits_of(self, rows: np.ndarray, lengths: torch.Tensor) -> torch.Tensor:
        """The teacher's logits on rows of the student's words; row 0 is read as the teacher's unknown word."""
        with torch.no_grad():
            if self._reads_rows():
                return answer(self.teacher, self.teacher.features(self._codebook.codes(rows)), lengths)
            texts = [
                [token for row in line[:length] for token in self._spell(row)][: self.teacher.max_tokens]
                for line, length in zip(rows.tolist(), lengths.tolist(), strict=True)
            ]
            features = self.teacher.features(self._codebook.spell(texts))
            return answer(self.teacher, features, torch.tensor([len(tokens) for tokens in texts]))

    @cached_property
    def _codebook(self) -> Codebook:
        return Codebook(self._words, self.teacher)

    def _spell(self, row: int) -> tuple[str, ...]:
        token = self._words.strings[row]
        return self._spelling(token) if token else ("",)

    def _reads_rows(self) -> bool:
        """Whether every row so far is one token of the teacher's too, which makes a batch a plain gather."""
        checked, plain = self._plain
        if plain and checked < len(self._words):
            tokens = self._words.strings[checked:]
            plain = all(token == "" or self.teacher.tokenize(token) == [token] for token in tokens)
            self._plain = (len(self._words), plain)
        return plain

    # --- on disk ----------------------------------------------------------------------------------------

    def _kept(self, kind: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        if self._cache is None:
            return make()
        file = self._cache / f"{kind}-{self._digest[:32]}.npz"
        try:
            with np.load(file, allow_pickle=False) as found:
                return dict(found)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            pass  # not there, or damaged: asked again
        made = make()
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._cache, suffix=".part", delete=False) as part:
                np.savez(part, **made)  # type: ignore[arg-type]  # its other argument is a bool
            os.replace(part.name, file)
        except OSError as error:
            raise StorageError(f"cannot keep the teacher's answers in {self._cache}: {error.strerror}") from error
        return made

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(digest_of(self.teacher).encode())
        for example in self._examples:
            digest.update(f"{example.id} {example.label}\n".encode())
        return digest.hexdigest()


def digest_of(model: Model) -> str:
    """sha256 over a model's class, configuration, vocabulary and weights."""
    assert isinstance(model, nn.Module)  # by the contract of Model
    kind = type(model)
    digest = hashlib.sha256(repr((kind.__module__, kind.__qualname__, model.config, model.vocabulary)).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _by_piece(tokens: torch.Tensor, split: Split, index: np.ndarray, *, mean: bool) -> list[np.ndarray]:
    """tokens [batch seq feat] -> for every text the sums or means over its pieces, [pieces feat]."""
    pieces, lengths = split.pieces(index), split.lengths[index]
    found = []
    for vectors, places, length in zip(tokens.numpy(), pieces, lengths, strict=True):
        starts = np.flatnonzero(np.diff(places[:length], prepend=-1))
        sums = np.add.reduceat(vectors[:length], starts)
        counts = np.diff(starts, append=length)
        # A piece without a token of its own keeps its place, as zeros.
        filled = np.zeros((places[length - 1] + 1, vectors.shape[-1]), np.float32)
        filled[places[starts]] = sums / counts[:, None] if mean else sums
        found.append(filled)
    return found
