"""Bridges to TextAttack and to Hugging Face: our models as their victims, their models as ours.

    from grit.bench import bridge
    wrapper = bridge.to_textattack(bridge.saved("runs/mine/model/student"))  # for any recipe of TextAttack
    victim = bridge.from_textattack(wrapper, name="lstm-mr", classes=2)       # for any attack of ours
    victim = bridge.from_transformers(model, tokenizer, name="bert-mr")

TextAttack is imported when the bridge to it is crossed, which takes ten seconds and more; transformers never is:
its models are called as they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grit.bench.export import build
from grit.bench.sentence import Text, composed
from grit.bench.types import CouldNotMeasure, Edit, Gain, Grid, Script
from grit.bench.victim import CallableVictim, Respondent, Subject, Victim

ARTEFACT = "artefact.safetensors"  # the deployed bytes in the folder of a saved row


def saved(path: str | Path) -> Victim:
    """The victim in the folder of a saved row (RUN/model/ROW), in an artefact file or in an ONNX folder.

    Raises MalformedInput for anything else.
    """
    place = Path(path)
    if not (place / ARTEFACT).is_file():
        return Victim(build.load(place))
    from grit.bench import checkpoint

    return Victim(build.load(place / ARTEFACT, checkpoint.load_model(place)))


def to_textattack(victim: Respondent) -> Any:
    """A ``textattack.models.wrappers.ModelWrapper`` around a victim: texts -> its logits, float64 [texts classes].

    TextAttack takes rows that sum to one for probabilities and softens all others. There are no gradients: it
    takes them from its own LSTM class alone. Raises CouldNotMeasure where TextAttack is not installed.
    """
    try:
        from textattack.models.wrappers import ModelWrapper
    except ImportError as error:
        raise CouldNotMeasure(
            f"no bridge to TextAttack: {error}; pip install 'gritbench[textattack]' has the versions that work"
        ) from error

    class Bridged(ModelWrapper):
        model = victim

        def __call__(self, texts: Sequence[str]) -> np.ndarray:
            return victim.logits(list(texts))

        def __reduce__(self) -> tuple[Any, ...]:  # a class in a function has no name that pickle could find
            return to_textattack, (victim,)

    return Bridged()


def from_textattack(wrapper: Any, *, name: str, classes: int, unknown: str = "[UNK]") -> CallableVictim:
    """A TextAttack ModelWrapper as a victim; with gradients if it wraps TextAttack's own LSTM.

    ``name`` is all that its digest and its records will know of it.
    """
    if hasattr(wrapper, "get_grad") and type(getattr(wrapper, "model", None)).__name__ == "LSTMForClassification":
        return _WordLstm(wrapper, name=name, classes=classes, unknown=unknown)
    return CallableVictim(_plain(wrapper), name=name, classes=classes, unknown=unknown)


def from_transformers(model: Any, tokenizer: Any, *, name: str) -> CallableVictim:
    """A sequence classifier of Hugging Face and its tokenizer as a victim, on the device the model lies on.

    The tokenizer cuts a text at the length its model takes, or at 512 tokens where it names none.
    """
    import torch

    longest = min(getattr(tokenizer, "model_max_length", 512), 512)
    model.eval()

    @torch.no_grad()
    def logits(texts: list[str]) -> np.ndarray:
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        return model(**inputs.to(model.device)).logits.double().cpu().numpy()

    return CallableVictim(logits, name=name, classes=model.config.num_labels, unknown=tokenizer.unk_token or "[UNK]")


def _plain(wrapper: Any) -> Any:
    """The wrapper, its answer brought from torch's side to numpy's."""

    def logits(texts: list[str]) -> np.ndarray:
        answer = wrapper(texts)
        return np.asarray(answer.detach().cpu() if hasattr(answer, "detach") else answer, np.float64)

    return logits


class _WordLstm(CallableVictim):
    """TextAttack's LSTM over whole words cut at blanks, with the gradients that TextAttack's own HotFlip reads.

    A gain is the rise of its loss on its own prediction: for two classes the same order as that of the margin.
    """

    has_gradients = True

    def __init__(self, wrapper: Any, *, name: str, classes: int, unknown: str) -> None:
        super().__init__(_plain(wrapper), name=name, classes=classes, unknown=unknown)
        self._wrapper = wrapper
        self._row_of: dict[str, int] = {}  # string -> its row of the embedding
        self._written: tuple[Sequence[str], np.ndarray] | None = None  # words of a grid, their rows

    def gains(self, asked: Sequence[tuple[Subject, Gain, int]]) -> list[np.ndarray]:
        return [self._gains(subject.sentence, question) for subject, question, _ in asked]

    def _gains(self, sentence: Text, question: Gain) -> np.ndarray:
        import torch

        base, edits = question.base, question.edits
        found = self._wrapper.get_grad(self._unknown.join(sentence.segments(0, len(sentence.text), base)))
        table = self._wrapper.model.get_input_embeddings().weight.data.cpu()
        gradients, tokens = torch.tensor(found["gradient"]), found["ids"]

        def rises(place: int) -> np.ndarray:
            """Of the loss, for every row of the table in place of a token; none beyond the last token: [rows]."""
            if place >= len(tokens):
                return np.zeros(len(table), np.float32)
            products = table.mv(gradients[place])
            return (products - products[tokens[place]]).float().numpy()  # single precision: TextAttack's own

        if isinstance(edits, Grid) and not question.aligned:
            if self._written is None or self._written[0] is not edits.words:
                self._written = edits.words, self._rows_of(edits.words)
            gains = np.empty((len(edits.sites), len(edits.words)))
            for row, site in enumerate(edits.sites):
                gains[row] = rises(site)[self._written[1]]
            return gains.ravel()
        places = [sentence.piece_of(edit.index) if question.aligned else edit.index for edit in edits]
        strings = [
            self._piece(sentence, place, base, edit) if question.aligned else edit.word
            for place, edit in zip(places, edits, strict=True)
        ]
        of_place = {place: rises(place) for place in set(places)}
        rows = self._rows_of(strings).tolist()
        return np.array([of_place[place][row] for place, row in zip(places, rows, strict=True)], np.float64)

    def _piece(self, sentence: Text, place: int, base: Script, edit: Edit) -> str:
        """The piece of an edit as it reads under the base and the edit."""
        of_piece = tuple(other for other in base if sentence.piece_of(other.index) == place)
        return self._unknown.join(sentence.segments(*sentence.piece_spans[place], composed(of_piece, edit)))

    def _rows_of(self, strings: Sequence[str]) -> np.ndarray:
        """Rows of the embedding, [strings]."""
        new = [string for string in dict.fromkeys(strings) if string not in self._row_of]
        if new:
            self._row_of.update(zip(new, (ids[0] for ids in self._wrapper.tokenizer(new)), strict=True))
        return np.array([self._row_of[string] for string in strings], np.intp)
