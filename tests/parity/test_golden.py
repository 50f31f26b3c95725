"""TextAttack agrees with the golden files that the default tests compare us with; GRIT_REGENERATE=1 writes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from grit.attacks._textattack import UNKNOWN
from grit.attacks.textattack import script_between
from grit.bench import bridge
from grit.bench.sentence import Text, words_of
from grit.bench.types import Threat

pytestmark = pytest.mark.parity


def bent_model(golden: Any) -> Any:
    """The golden victim with gradients as TextAttack takes it: it asks for its own LSTM class."""
    import torch
    from textattack.models.helpers import LSTMForClassification
    from textattack.models.wrappers import PyTorchModelWrapper

    words, pad = golden.vocabulary(), len(golden.vocabulary())

    class Model(LSTMForClassification):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            rows = torch.cat([torch.tensor(golden.embedding()), torch.zeros(1, golden.FEAT)])
            self.rows = torch.nn.Embedding(len(rows), golden.FEAT, _weight=rows)

        def get_input_embeddings(self) -> Any:
            return self.rows

        def forward(self, ids: Any) -> Any:
            loud = torch.tensor(golden.loudness(ids.shape[1]))
            return torch.tanh((self.rows(ids) * loud[None, :, None]).sum(1)) @ torch.tensor(golden.head()).T

    class Tokenizer:
        pad_token_id = pad

        def __call__(self, texts: list[str]) -> list[list[int]]:
            rows = [golden.rows_of(text) for text in texts]
            return [each + [pad] * (golden.SEQ - len(each)) for each in rows]

        def convert_id_to_word(self, row: int) -> str:
            return words[row] if row < pad else "[PAD]"

    return PyTorchModelWrapper(Model().eval(), Tokenizer())


@pytest.mark.parametrize("name", ["pwws", "deepwordbug", "hotflip"])
def test_golden(
    name: str, harness: Any, golden: Any, note: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import nltk

    from grit.attacks import _textattack

    assert golden.vocabulary()[0] == UNKNOWN
    _textattack._tag.cache_clear()
    monkeypatch.setattr(nltk, "pos_tag", golden.pos_tag)
    victim = golden.VICTIMS[name]()
    if name == "hotflip":
        recipe = harness.hotflip(bent_model(golden), *golden.vectors())
    elif name == "pwws":
        recipe = harness.pwws(bridge.to_textattack(victim), golden.Table())
    else:
        recipe = harness.deepwordbug(bridge.to_textattack(victim))
    lexicon = golden.Table() if name == "pwws" else None
    some = golden.examples(victim)
    attack = golden.attack(name, tmp_path)
    found = harness.compare(victim, attack, recipe, some, lexicon=lexicon, vocabulary=golden.vocabulary())
    _textattack._tag.cache_clear()
    note(found.line(f"{name}, embedded corpus, golden"))
    lines = []
    for example, result in zip(some, found.theirs.results, strict=True):
        script = script_between(Text(example.text, Threat(spaces=("any",))), result.text, words_of(result.text))
        edits = tuple((edit.index, edit.word) for edit in script)
        lines.append(golden.Line(example.id, result.status, result.queries, edits))
    if os.environ.get("GRIT_REGENERATE") == "1":
        golden.write(name, lines)
    assert golden.read(name) == lines
    assert found.different == []
