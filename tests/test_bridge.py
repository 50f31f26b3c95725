"""Bridges to other tools' models, whole-text questions, grids of edits, and places that are not aligned."""

from __future__ import annotations

import pickle
import random
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from grit.attacks import _textattack
from grit.attacks.hotflip import HotFlip
from grit.bench import bridge, checkpoint, registry
from grit.bench.evaluate import attack_all
from grit.bench.export import build
from grit.bench.sentence import Text
from grit.bench.twin import Twin
from grit.bench.types import CouldNotMeasure, Edit, Example, Gain, Grid, Outcome, Question, Script, Texts, Threat
from grit.bench.victim import CallableVictim
from grit.models.student import Student

TEXTS = ("the small boat left the harbour", "a loud violin, again", "boat or violin?", "")
ANY = Threat(spaces=("any",), protect_stop_words=False)


def student() -> Student:
    return Student.build(Student.Config(embedding=4, hidden=4, minimum_count=1), [*TEXTS, "we left early"], 3, seed=1)


# --- our models for others -----------------------------------------------------------------------------


@pytest.fixture
def wrappers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package ``textattack`` that has no more than its class of model wrappers."""
    for name in ("textattack", "textattack.models", "textattack.models.wrappers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["textattack.models.wrappers"].ModelWrapper = object  # type: ignore[attr-defined]


def constant(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), 1.0] for text in texts]


def test_a_victim_is_a_model_wrapper(wrappers: None) -> None:
    victim = CallableVictim(constant, name="length", classes=2)
    wrapper = bridge.to_textattack(victim)
    assert wrapper(("ab", "abcd")).tolist() == [[2.0, 1.0], [4.0, 1.0]]
    again = pickle.loads(pickle.dumps(wrapper))
    assert again(["abc"]).tolist() == [[3.0, 1.0]] and again.model.digest == victim.digest


def test_without_textattack_there_is_no_bridge_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textattack.models.wrappers", None)
    with pytest.raises(CouldNotMeasure, match=r"no bridge to TextAttack.*gritbench\[textattack\]"):
        bridge.to_textattack(CallableVictim(constant, name="length", classes=2))


def test_a_saved_row_answers_as_its_artefact(tmp_path: Path) -> None:
    model = student()
    checkpoint.save_model(model, tmp_path)
    (tmp_path / bridge.ARTEFACT).write_bytes(build.deployed(model, list(TEXTS)))
    of_folder, of_file = bridge.saved(tmp_path), bridge.saved(str(tmp_path / bridge.ARTEFACT))
    assert np.array_equal(of_folder.logits(TEXTS), of_file.logits(TEXTS)) and of_folder.digest == of_file.digest


# --- others' models for us -------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [lambda rows: rows, np.array, lambda rows: torch.tensor(rows, requires_grad=True)])
def test_a_model_wrapper_is_a_victim(answer: Any) -> None:
    """Whatever its rows are made of: lists, arrays, tensors with their graph."""
    victim = bridge.from_textattack(lambda texts: answer(constant(texts)), name="length", classes=2)
    assert victim.logits(["ab", "abcd"]).tolist() == [[2.0, 1.0], [4.0, 1.0]]
    assert not victim.has_gradients and victim.name == "length"


class Lengths(torch.nn.Module):
    """A classifier of Hugging Face's form: it reads the sum of its inputs."""

    device = torch.device("cpu")
    config = SimpleNamespace(num_labels=2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        assert not torch.is_grad_enabled() and not self.training
        total = (input_ids * attention_mask).sum(1).float()
        return SimpleNamespace(logits=torch.stack([total, -total], 1))


class Batch(dict):  # type: ignore[type-arg]
    def to(self, device: torch.device) -> Batch:
        return self


class Letters:
    unk_token = "<unk>"
    model_max_length = 10**30  # what tokenizers say that know no limit

    def __call__(
        self, texts: list[str], padding: bool, truncation: bool, max_length: int, return_tensors: str
    ) -> Batch:
        assert padding and truncation and max_length == 512 and return_tensors == "pt"
        width = max(map(len, texts))
        ids = [[ord(letter) for letter in text] + [7] * (width - len(text)) for text in texts]
        mask = [[1] * len(text) + [0] * (width - len(text)) for text in texts]
        return Batch(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))


def test_a_model_of_hugging_face_is_a_victim() -> None:
    victim = bridge.from_transformers(Lengths(), Letters(), name="bert")
    assert victim.logits(["a", "ab"]).tolist() == [[97.0, -97.0], [195.0, -195.0]]
    assert victim.classes == 2
    subject = victim.open(Text("a b", ANY))
    (asked,) = victim.answer([subject.ask([(Edit("unknown", 0),)])])
    assert asked.tolist() == victim.logits(["<unk> b"]).tolist()  # its own unknown word


class LSTMForClassification(torch.nn.Module):
    """Of TextAttack's name and form: words between blanks, a row each."""

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__()
        self.rows = torch.nn.Embedding.from_pretrained(torch.tensor(rows))

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.rows


class Wrapper:
    """Answers gradients that are the same for every text: place, then feature."""

    def __init__(self) -> None:
        self.words = ["[UNK]", "boat", "violin", "violin,", "red", "left"]
        self.table = np.random.default_rng(3).normal(size=(len(self.words), 3)).astype(np.float32)
        self.model = LSTMForClassification(self.table)
        self.gradient = np.random.default_rng(4).normal(size=(4, 3)).astype(np.float32)

    def tokenizer(self, texts: list[str]) -> list[list[int]]:
        return [
            [self.words.index(word) if word in self.words else 0 for word in text.lower().split()] for text in texts
        ]

    def get_grad(self, text: str) -> dict[str, Any]:
        return {"ids": self.tokenizer([text])[0][:4], "gradient": self.gradient}

    def __call__(self, texts: list[str]) -> list[list[float]]:
        return constant(texts)


def test_the_word_lstm_answers_gains() -> None:
    """gradient at a place . (row of the new word - row of the old token), in single precision as it computes."""
    wrapper = Wrapper()
    victim: Any = bridge.from_textattack(wrapper, name="lstm", classes=2)
    assert victim.has_gradients
    sentence = Text(", boat violin, LEFT late", ANY)  # words 0 boat, 1 violin, 2 LEFT, 3 late; pieces from 0
    base = (Edit("replace", 0, "red"),)
    row = {word: wrapper.table[place].astype(float) for place, word in enumerate(wrapper.words)}
    grad = wrapper.gradient.astype(float)

    def gains(edits: Sequence[Edit], aligned: bool) -> list[float]:
        (found,) = victim.gains([(victim.open(sentence), Gain(base, edits, aligned), 0)])
        assert found.dtype == np.float64
        return found.tolist()

    edits = [
        Edit("replace", 1, "boat"),
        Edit("replace", 2, "red"),
        Edit("replace", 0, "left"),
        Edit("replace", 3, "red"),
    ]
    # Aligned: the piece "violin," becomes "boat,", which no row holds; word 3 is the fifth token, which is not read.
    wanted = [
        grad[2] @ (row["[UNK]"] - row["violin,"]),
        grad[3] @ (row["red"] - row["left"]),
        grad[1] @ (row["left"] - row["red"]),
        0.0,
    ]
    assert gains(edits, aligned=True) == pytest.approx(wanted, abs=1e-5)
    # Not aligned: word 1 is taken for token 1, which is "red" under the base.
    wanted = [
        grad[1] @ (row["boat"] - row["red"]),
        grad[2] @ (row["red"] - row["violin,"]),
        grad[0] @ (row["left"] - row["[UNK]"]),
        grad[3] @ (row["red"] - row["left"]),
    ]
    assert gains(edits, aligned=False) == pytest.approx(wanted, abs=1e-5)
    grid = Grid((2, 0, 9), ("red", "left", "boat"))
    assert gains(grid, aligned=False) == gains(list(grid), aligned=False)
    assert gains(grid, aligned=False)[6:] == [0.0] * 3


# --- grids, and places that are not aligned ----------------------------------------------------------------


def test_a_grid_is_the_list_of_its_edits() -> None:
    grid = Grid((4, 1), ("a", "b", "c"))
    edits = [Edit("replace", site, word) for site in (4, 1) for word in "abc"]
    assert len(grid) == 6 and list(grid) == edits and [grid[i] for i in range(6)] == edits
    assert grid[-1] == edits[-1] and grid[2:5] == edits[2:5] and grid[:100] == edits and grid[::-2] == edits[::-2]
    with pytest.raises(IndexError):
        grid[6]
    assert list(Grid((), ("a",))) == list(Grid((1,), ())) == []


def test_the_twin_takes_words_for_tokens_where_places_are_not_aligned() -> None:
    """Word 1 of a text whose first token is a comma: the gain is that of token 1, which is word 0."""
    twin, sentence = Twin(student()), Text(", boat violin left", ANY)
    (unaligned,) = twin.gains([(sentence, Gain((), [Edit("replace", 1, "harbour")], aligned=False), 0)])
    (aligned,) = twin.gains([(sentence, Gain((), [Edit("replace", 0, "harbour")]), 0)])
    assert unaligned[0] == aligned[0] != 0
    (beyond,) = twin.gains([(Text("boat", ANY), Gain((), Grid((0, 7), ("violin",)), aligned=False), 0)])
    assert beyond[0] != 0 == beyond[1]


def test_the_twin_answers_a_grid_as_the_list_of_its_edits() -> None:
    """Also with words that read as several tokens or as none the model knows, and under a base."""
    twin, words = Twin(student()), ("violin", "re-do", "zebra", "left", "boat")
    asked = []
    for text in TEXTS[:3]:
        sentence = Text(text, ANY)
        for base in ((), (Edit("replace", 1, "boat"),)):
            grid = Grid(range(len(sentence.words)), words)
            asked += [(sentence, Gain(base, edits, aligned=False), 1) for edits in (grid, list(grid))]
    found = twin.gains(asked)
    for grid_gains, list_gains in zip(found[::2], found[1::2], strict=True):
        assert grid_gains == pytest.approx(list_gains, rel=1e-6, abs=1e-9)
        assert np.abs(grid_gains).max() > 0


# --- questions about whole texts ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Asks:
    """Asks about these texts, twice; returns a script."""

    threat: Threat = ANY
    tier: str = "strong"
    texts: tuple[str, ...] = ("x", "yy", "x", "zzz")
    script: Script = ()
    answers: ClassVar[list[list[list[float]]]] = []
    tiers: ClassVar[dict[str, Any]] = {"strong": {}}

    def attack(self, sentence: Any, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        for _ in range(2):
            self.answers.append((yield Texts(self.texts)).tolist())
        return self.script


def ask(attack: Asks) -> Outcome:
    victim = CallableVictim(constant, name="length", classes=2)
    attack.answers.clear()
    (outcome,) = attack_all(victim, attack, [Example("0" * 16, "good boat", 0)], seed=1, name="asks")
    return outcome


def test_whole_texts_are_answered_and_counted() -> None:
    outcome = ask(Asks())
    assert Asks.answers == [[[1.0, 1.0], [2.0, 1.0], [1.0, 1.0], [3.0, 1.0]]] * 2
    assert (outcome.outcome, outcome.queries, outcome.cache_hits) == ("survived", 8, 5)
    assert outcome.trace != ask(Asks(texts=("x", "yy", "x", "zz"))).trace


@pytest.mark.parametrize("budget", [1, 3, 4, 6])
def test_whole_texts_are_cut_where_the_budget_ends(budget: int) -> None:
    outcome = ask(Asks(threat=replace(ANY, max_queries=budget)))
    assert outcome.queries == budget and sum(map(len, Asks.answers)) == budget


def test_a_text_that_the_model_fails_on_is_an_error() -> None:
    def picky(texts: list[str]) -> list[list[float]]:
        if "yy" in texts:
            raise ValueError("no y")
        return constant(texts)

    victim = CallableVictim(picky, name="picky", classes=2)
    examples = [Example(f"{place:016d}", "good boat", 0) for place in range(2)]
    outcomes = attack_all(victim, Asks(), examples, seed=1, name="asks")
    assert all(outcome.outcome == "error" and "no y" in outcome.reason for outcome in outcomes)


def test_a_script_that_is_handed_in_and_fails_is_the_nearest_miss() -> None:
    """Its search asked about texts alone, so no other script is known."""
    outcome = ask(Asks(script=(Edit("replace", 0, "go"),)))
    assert (outcome.outcome, outcome.script, outcome.margin) == ("survived", (Edit("replace", 0, "go"),), -6.0)


# --- the threat that lets anything be written ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ((Edit("replace", 0, "x"), Edit("insert", 1, "y"), Edit("delete", 1)), None),
        ((Edit("insert", 2, "end"),), None),
        ((Edit("unknown", 0),), "unknown is no change"),
        ((Edit("replace", 0, "good"),), "replaced by itself"),
        ((Edit("insert", 0, "two words"),), "not one word"),
        (tuple(Edit("insert", 0, "x") for _ in range(5)), "5 words changed, at most 4"),
    ],
)
def test_any_word_may_be_written_inserted_and_deleted(script: Script, reason: str | None) -> None:
    found = Text("good boat", replace(ANY, max_words=2.0)).violation(script)
    assert found is None if reason is None else found is not None and reason in found


def test_other_threats_hold_no_insertions_and_deletions() -> None:
    text = Text("good boat", Threat(spaces=("characters",)))
    assert "insert is no change" in (text.violation((Edit("insert", 0, "x"),)) or "")
    assert "delete is no change" in (text.violation((Edit("delete", 0),)) or "")


# --- the textattack tier of HotFlip ------------------------------------------------------------------------


@pytest.fixture
def tagger(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    _textattack._tag.cache_clear()
    monkeypatch.setattr(nltk, "pos_tag", lambda tokens, tagset: [(t, "NOUN" if t < "n" else "ADJ") for t in tokens])


def vectors(path: Path, **rows: list[float]) -> str:
    np.savez(path / "vectors.npz", words=np.array(list(rows)), vectors=np.array(list(rows.values())))
    return str(path / "vectors.npz")


def start(attack: Any, vocabulary: tuple[str, ...] = ("boat",)) -> None:
    next(attack.attack(Text("good boat", attack.threat, vocabulary=vocabulary), 0, random.Random(1)))


def test_what_hotflip_lacks_it_says_before_it_asks(
    tagger: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = registry.attack("hotflip.textattack")
    with pytest.raises(CouldNotMeasure, match=r"given none; give hotflip\.TIER\[embedding=FILE\.npz\]"):
        start(attack)
    assert isinstance(attack, HotFlip)
    attack = replace(attack, embedding=vectors(tmp_path, boat=[1.0, 0.0]))
    with pytest.raises(CouldNotMeasure, match="given none"):
        start(attack, vocabulary=("...", "17"))
    start(attack)
    import nltk

    def none(tokens: Any, tagset: str) -> Any:
        raise LookupError("Resource averaged_perceptron_tagger_eng not found")

    _textattack._tag.cache_clear()
    monkeypatch.setattr(nltk, "pos_tag", none)
    with pytest.raises(CouldNotMeasure, match="averaged_perceptron_tagger_eng"):
        start(attack)


@pytest.mark.parametrize("row", [[0.81, 0.59], [0.79, 0.61]])
def test_hotflip_writes_near_words_of_the_same_part_of_speech(row: list[float], tagger: None, tmp_path: Path) -> None:
    """One candidate a step; where a constraint refuses it the search is over, at most two words are changed."""
    path = vectors(tmp_path, good=[1.0, 0.0], boat=[1.0, 0.0], fine=row, dusk=row)
    attack = replace(registry.attack("hotflip.textattack"), embedding=path)  # type: ignore[type-var]  # a dataclass by contract
    text = Text("good boat far out", attack.threat, vocabulary=("fine", "tiny", "dusk"))
    steps = attack.attack(text, 0, random.Random(1))
    asked: list[Any] = [next(steps)]
    gains = iter(([9, 1, 1, *[0] * 9], [0] * 9, [0] * 9))
    try:
        while True:
            question = asked[-1]
            answer = np.array(next(gains), float) if isinstance(question, Gain) else np.array([[1.0, 0.0]])
            asked.append(steps.send(answer))
    except StopIteration as stop:
        script = stop.value
    first: tuple[Edit, ...] = (Edit("replace", 0, "fine"),)  # "good" and "fine" have one tag here
    if row[0] < 0.8:
        assert script == () and len(asked) == 2
    else:
        assert script == (*first, Edit("replace", 1, "fine")) and len(asked) == 6


def test_vectors_know_near_words() -> None:
    near = _textattack.Vectors.near
    table = SimpleNamespace(_rows={"a": 0, "b": 1}, _vectors=np.array([[2.0, 0.0], [1.0, 1.0]]))
    assert near(table, "A", "b", 0.7) and not near(table, "a", "B", 0.71)  # type: ignore[arg-type]
    assert near(table, "a", "unheard", 0.99)  # type: ignore[arg-type]


def test_a_tag_is_that_of_the_first_such_word_in_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four words before and three behind; TextAttack looks the word up by its string."""
    import nltk

    seen = []

    def tag(tokens: list[str], tagset: str) -> list[tuple[str, str]]:
        seen.append(tokens)
        return [(token, str(place)) for place, token in enumerate(tokens)]

    _textattack._tag.cache_clear()
    monkeypatch.setattr(nltk, "pos_tag", tag)
    words = "a b c d e f g h i".split()
    assert not _textattack.same_part_of_speech(words, 5, "d")
    assert sorted(seen) == [list("bcdedghi"), list("bcdefghi")]
    assert _textattack._tag(("b", "c", "d", "e"), "d", ("g", "h", "i")) == "2"
    _textattack._tag.cache_clear()
