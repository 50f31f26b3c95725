"""A torch model under attack as it stands: what it answers is the model's own, and training attacks it each epoch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from grit.bench import lexicons, live, registry
from grit.bench.evaluate import attack_all
from grit.bench.export import build, words
from grit.bench.types import Example, Outcome
from grit.bench.victim import Victim, settled

TEXTS = (
    "The soup was warm and good, we came back twice.",
    "Cold soup, slow waiter; we never came back!",
    "I can't say it was bad, but it wasn't good either...",
    "A warm room and a good bed: we slept well",
    "The bed was cold and the room was bad, so we left",
    "",
)
MODELS = ("student", "fastgrnn", "prado", "tfidf", "hashed")


def built(name: str, seed: int = 0) -> Any:
    cls = registry.load("models", name)
    model = cls.build(cls.Config(), TEXTS, 3, seed)
    with torch.no_grad():  # some start from zeros, which would answer every text alike
        generator = torch.Generator().manual_seed(seed)
        for weight in model.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return model.train()


def own(model: Any, text: str) -> np.ndarray:
    """The model's logits of one text, by the steps of its contract, in double precision."""
    tokens = (model.tokenize(text) or [""])[: model.max_tokens]
    codes = torch.from_numpy(np.asarray(model.codes(tokens)))[None]
    with torch.no_grad():
        read = model.read(model.features(codes).double(), torch.tensor([len(tokens)]))
        found: np.ndarray = model.head(read.state)[0].numpy()
    return found


@pytest.mark.parametrize("name", MODELS)
def test_it_answers_as_the_model(name: str) -> None:
    model = built(name)
    victim = live.victim(model)
    expected = np.array([own(model.double().eval(), text) for text in TEXTS])
    assert len({tuple(row) for row in expected.round(6)}) > 3
    assert np.array_equal(victim.logits(TEXTS), settled(expected))
    assert np.array_equal(np.concatenate([victim.logits([text]) for text in TEXTS]), victim.logits(TEXTS))


def test_training_on_does_not_move_it_and_makes_another_digest() -> None:
    model = built("student")
    victim = live.victim(model)
    before = victim.logits(TEXTS)
    assert model.training and all(weight.dtype == torch.float32 for weight in model.parameters())
    with torch.no_grad():
        for weight in model.parameters():
            weight += 1.0
    assert np.array_equal(victim.logits(TEXTS), before)
    moved = live.victim(model)
    assert moved.digest != victim.digest and not np.array_equal(moved.logits(TEXTS), before)
    assert live.victim(built("student")).digest == victim.digest != live.victim(built("student", seed=1)).digest


@pytest.mark.parametrize("name", ["student", "prado"])
def test_it_forgets_its_words_and_answers_alike(name: str) -> None:
    artefact = live.LiveArtefact(built(name))
    before = settled(words.answer(artefact, TEXTS))
    assert artefact.interned > 1
    assert artefact.token(int(artefact.intern(["soup"])[0])) == "soup"
    artefact.forget()
    assert artefact.interned == 1  # the unknown word
    assert np.array_equal(settled(words.answer(artefact, TEXTS[::-1])), before[::-1])


def test_beyond_the_longest_text_nothing_is_read() -> None:
    artefact = live.LiveArtefact(built("tfidf"))
    rows = np.resize(artefact.intern(["soup", "good", "cold"]), (1, artefact.max_tokens + 9))
    long, cut = np.array([rows.shape[1]]), np.array([artefact.max_tokens])
    assert np.array_equal(artefact.logits(rows, long), artefact.logits(rows[:, : artefact.max_tokens], cut))


def labelled(victim: Victim) -> list[Example]:
    """Every text under the label that the victim gives it, so that all are attacked."""
    said = victim.logits(TEXTS).argmax(axis=1).tolist()
    return [Example(f"{place:016d}", text, label) for place, (text, label) in enumerate(zip(TEXTS, said, strict=True))]


def attacked(victim: Victim, attack: str, some: Sequence[Example], seed: int = 0) -> dict[str, Outcome]:
    lexicon = lexicons.load("thesaurus")
    return {o.id: o for o in attack_all(victim, registry.attack(attack), some, seed=seed, lexicon=lexicon)}


@pytest.mark.parametrize("name", ["student", "prado"])
@pytest.mark.parametrize("attack", ["pwws+thesaurus", "hotflip+thesaurus"])
def test_outcomes_depend_on_no_batch_and_no_order(name: str, attack: str) -> None:
    model = built(name)
    whole = live.victim(model)
    some = labelled(whole)
    expected = attacked(whole, attack, some)
    assert {outcome.outcome for outcome in expected.values()} <= {"broken", "survived"}
    assert (sum(outcome.gradients for outcome in expected.values()) > 0) == attack.startswith("hotflip")
    small = live.victim(model)
    small._rows = 3
    assert attacked(small, attack, random.Random(1).sample(some, len(some))) == expected


def test_training_attacks_each_epoch() -> None:
    """What breaks the model of this epoch is what the next one trains on, and the next one is attacked anew."""
    model, label = built("student", seed=2), 1
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-2)
    survived = []
    for epoch in range(6):
        victim = live.victim(model.eval())
        examples = [Example(f"{place:016d}", text, label) for place, text in enumerate(TEXTS[:-1])]
        outcomes = attacked(victim, "deepwordbug", examples, seed=epoch).values()
        survived.append(sum(outcome.outcome == "survived" for outcome in outcomes))
        model.train()
        for text in TEXTS[:-1]:
            codes = torch.from_numpy(np.asarray(model.codes(model.tokenize(text))))[None]
            logits = model.head(model.read(model.features(codes), torch.tensor([codes.shape[1]])).state)
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(logits, torch.tensor([label])).backward()
            optimiser.step()
    assert survived[0] < survived[-1] == len(TEXTS) - 1


def test_the_exported_bytes_answer_nearly_alike(tmp_path: Any) -> None:
    model = built("student").eval()
    (tmp_path / "artefact").write_bytes(build.deployed(model, list(TEXTS)))
    shipped = Victim(build.load(tmp_path / "artefact")).logits(TEXTS)
    standing = live.victim(model).logits(TEXTS)
    assert np.abs(shipped - standing).max() < 0.1 * np.abs(standing).max()
