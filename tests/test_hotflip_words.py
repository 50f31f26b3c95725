"""HotFlip's word level: near words of one part of speech, by gain, one or two; what it lacks it says first."""

from __future__ import annotations

import pickle
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grit.attacks import _textattack
from grit.attacks.hotflip import HotFlip
from grit.bench import experiment, records, registry
from grit.bench.adequacy import Scaled
from grit.bench.evaluate import attack_all
from grit.bench.experiment import Experiment
from grit.bench.sentence import Text
from grit.bench.types import CouldNotMeasure, Example, Gain, Score, UsageError
from grit.bench.victim import CallableVictim

ROWS = {
    "good": [1.0, 0.0, 0.0],
    "fine": [0.9, 0.1, 0.0],
    "decent": [0.85, 0.2, 0.0],
    "grand": [0.81, 0.58, 0.0],
    "awful": [-1.0, 0.0, 0.0],  # far
    "boat": [0.0, 1.0, 0.0],
    "ship": [0.0, 1.0, 0.1],
    "sail": [0.0, 1.0, 0.2],  # another part of speech
    "vessel": [0.0, 1.0, 0.05],  # not in the vocabulary
    "the": [0.0, 0.0, 1.0],
    "this": [0.0, 0.0, 1.0],
}
VOCABULARY = ("[UNK]", "fine", "decent", "awful", "ship", "sail", "this", "good", "boat")
TAGS = {"sail": "ADV", "good": "ADJ", "fine": "ADJ", "decent": "ADJ", "grand": "ADJ", "awful": "ADJ"}


@pytest.fixture
def attack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    import nltk

    _textattack._tag.cache_clear()
    monkeypatch.setattr(nltk, "pos_tag", lambda tokens, tagset: [(t, TAGS.get(t, "NOUN")) for t in tokens])
    path = tmp_path / "vectors.npz"
    np.savez(path, words=np.array(list(ROWS)), vectors=np.array(list(ROWS.values())))
    yield replace(registry.attack("hotflip.words"), embedding=str(path))  # type: ignore[type-var]  # a dataclass by contract
    _textattack._tag.cache_clear()


def weights(text: str) -> list[float]:
    """A victim that is hard to move: only two words together turn it."""
    words = text.lower().split()
    moved = 2.0 * ("decent" in words) + 1.5 * ("fine" in words) + 1.0 * ("ship" in words)
    return [2.5, moved]


def victim() -> CallableVictim:
    return CallableVictim(lambda texts: np.array([weights(text) for text in texts]), name="toy", classes=2)


def test_two_near_words_of_the_vocabulary_are_written(attack: Any) -> None:
    example = Example("0" * 16, "The good boat", 0)
    (outcome,) = attack_all(victim(), attack, [example], seed=0, stop_words=frozenset(), vocabulary=VOCABULARY)
    assert outcome.outcome == "broken"
    assert [(edit.index, edit.word) for edit in outcome.script] == [(1, "decent"), (2, "ship")]


def test_the_words_are_the_models_own_where_none_are_given(attack: Any) -> None:
    example = Example("0" * 16, "The good boat", 0)
    knowing = victim()
    knowing.vocabulary = VOCABULARY
    given = attack_all(victim(), attack, [example], seed=0, stop_words=frozenset(), vocabulary=VOCABULARY)
    assert attack_all(knowing, attack, [example], seed=0, stop_words=frozenset()) == given
    assert attack_all(Scaled(knowing, 10.0), attack, [example], seed=0, stop_words=frozenset())[0].script


def test_the_pool_holds_what_the_paper_allows(attack: Any) -> None:
    """Cosine 0.8 and more, of the vocabulary, one part of speech, no stop words, never the word itself."""
    text = Text("the good boat", attack.threat, stop_words=frozenset({"the"}), vocabulary=VOCABULARY)
    steps = attack.attack(text, 0, random.Random(1))
    assert isinstance(next(steps), Score)
    question = steps.send(np.array([[1.0, 0.0]]))
    assert isinstance(question, Gain) and question.aligned and question.base == ()
    assert [(edit.index, edit.word) for edit in question.edits] == [(1, "fine"), (1, "decent"), (2, "ship")]


def test_no_more_than_two_words_are_written_and_no_word_twice(attack: Any) -> None:
    text = Text("good good boat good", attack.threat, vocabulary=VOCABULARY)
    steps = attack.attack(text, 0, random.Random(1))
    question = next(steps)
    sizes = []
    with pytest.raises(StopIteration) as stop:
        while True:
            if isinstance(question, Gain):
                question = steps.send(np.arange(float(len(question.edits))))
            else:
                sizes += [len(script) for script in question.scripts]
                assert all(len({edit.index for edit in script}) == len(script) for script in question.scripts)
                question = steps.send(np.tile([1.0, 0.0], (len(question.scripts), 1)))
    assert stop.value.value == () and set(sizes) == {0, 1, 2}


def test_a_text_without_near_words_survives(attack: Any) -> None:
    some = [Example(f"{place:016d}", text, 0) for place, text in enumerate(["", "unheard of", "awful"])]
    outcomes = attack_all(victim(), attack, some, seed=0, vocabulary=VOCABULARY)
    assert [outcome.outcome for outcome in outcomes] == ["survived"] * 3


def test_the_nearest_words_come_first(attack: Any) -> None:
    vectors = _textattack.vectors(attack.embedding)
    assert vectors.nearest("Good", 0.8) == ["fine", "decent", "grand"]
    assert vectors.nearest("good", 0.98) == ["fine"] and vectors.nearest("unheard", 0.1) == []
    for word in ROWS:
        assert all(vectors.near(word, other, 0.8) for other in vectors.nearest(word, 0.8))


@pytest.mark.parametrize("vocabulary", [(), ("...", "17")])
def test_what_it_lacks_it_says_before_it_asks(attack: Any, vocabulary: tuple[str, ...]) -> None:
    text = Text("good boat", attack.threat, vocabulary=vocabulary)
    with pytest.raises(CouldNotMeasure, match=r"hotflip\.words writes words of the model's vocabulary"):
        next(attack.attack(text, 0, random.Random(1)))
    without = HotFlip(**HotFlip.tiers["words"])
    with pytest.raises(CouldNotMeasure, match=r"given none; give hotflip\.TIER\[embedding=FILE\.npz\]"):
        next(without.attack(text, 0, random.Random(1)))


def test_vectors_that_cannot_be_read_are_asked_for_as_they_are_written(attack: Any, tmp_path: Path) -> None:
    for name in ("missing.npz", "vectors", ".", "vectors-0123456789abcdef"):
        with pytest.raises(CouldNotMeasure, match=rf"{name}'.*give hotflip\.TIER\[embedding=FILE\.npz\]"):
            HotFlip(embedding=str(tmp_path / name) if name == "." else name)
    (tmp_path / "odd.npz").write_text("no arrays")
    odd = replace(attack, embedding=str(tmp_path / "odd.npz"))
    with pytest.raises(CouldNotMeasure, match=r"odd\.npz.*give hotflip\.TIER\[embedding=FILE\.npz\]"):
        next(odd.attack(Text("good boat", odd.threat, vocabulary=VOCABULARY), 0, random.Random(1)))


# --- what names the vectors -------------------------------------------------------------------------------


def configured(path: Path) -> dict[str, Any]:
    """The attacks of an experiment that compares words by a file."""
    return experiment.attacks(Experiment(attacks=(f"hotflip.words[embedding={path}]",)))


def test_vectors_are_named_by_what_they_hold_and_not_by_where_they_lie(attack: Any, tmp_path: Path) -> None:
    ((name, found),) = configured(tmp_path / "vectors.npz").items()
    assert re.fullmatch(r"hotflip\.words\[embedding=vectors-[0-9a-f]{16}\]", name)
    assert found.embedding == attack.embedding and registry.attack_name(found) == name  # type: ignore[attr-defined]  # of HotFlip
    assert records.plain(found)["embedding"] == found.embedding  # type: ignore[attr-defined]  # of HotFlip
    other = tmp_path / "a@b+c"  # a suite has an @ too
    other.mkdir()
    shutil.copy(tmp_path / "vectors.npz", other)
    assert configured(other / "vectors.npz") == {name: found}
    for said in (repr(found), records.encode(records.attack_part(name, found, ())).decode()):
        assert str(tmp_path) not in said
    for known in (pickle.loads(pickle.dumps(found)), replace(found, top=3)):  # type: ignore[type-var]  # a dataclass by contract
        assert _textattack.vectors(known.embedding).nearest("good", 0.98) == ["fine"]


def test_changed_vectors_are_another_attack_whose_outcomes_are_found_anew(attack: Any, tmp_path: Path) -> None:
    path, journal = tmp_path / "vectors.npz", tmp_path / "journal"
    example = Example("0" * 16, "The good boat", 0)

    def outcomes(attack: Any) -> Any:
        return attack_all(
            victim(), attack, [example], seed=0, stop_words=frozenset(), vocabulary=VOCABULARY, journal=journal
        )

    assert outcomes(attack)[0].script and outcomes(replace(attack, embedding=str(path))) == outcomes(attack)
    np.savez(path, words=np.array(["good", "boat"]), vectors=np.eye(2))
    changed = replace(attack, embedding=str(path))
    assert changed != attack
    with pytest.raises(UsageError, match="journal"):
        outcomes(changed)
    journal.unlink()
    assert not outcomes(changed)[0].script


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("std@1", True),
        ("std@2+thesaurus", True),
        ("pwws+/a@b/table.json", False),
        ("hotflip.words[embedding=/a@b/c.npz]", False),
        ("hotflip", False),
    ],
)
def test_an_at_sign_in_a_path_makes_no_suite(spec: str, expected: bool) -> None:
    assert experiment.is_suite(spec) == expected
