"""Loss terms: what each must be by algebra, and the words and answers that they stand on."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self, get_args, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from grit.bench import registry, schemes
from grit.bench.objectives import _flips, distortion
from grit.bench.objectives._flips import Flips, misspelt, one_typo
from grit.bench.objectives._lessons import Lessons, digest_of
from grit.bench.objectives._passes import answer, divergence, evidence, margin, quiet
from grit.bench.objectives._step import Scene, Step
from grit.bench.objectives._words import UNKNOWN, Codebook, Split, Words, padded
from grit.bench.objectives.aspects import Aspects
from grit.bench.objectives.attribution import Attribution
from grit.bench.objectives.bound import Bound
from grit.bench.objectives.cot import Cot
from grit.bench.objectives.distil import Distil
from grit.bench.objectives.distortion import Distortion
from grit.bench.objectives.free import Free
from grit.bench.objectives.gradmask import Gradmask, attacked, mask
from grit.bench.objectives.hotword import Hotword
from grit.bench.objectives.hotword import Kind as Augmentation
from grit.bench.objectives.infomax import Infomax
from grit.bench.objectives.pcl import Pcl
from grit.bench.objectives.perturb import Kind, Perturb, climbed
from grit.bench.objectives.regress import Regress
from grit.bench.objectives.smoothing import Smoothing
from grit.bench.objectives.sprout import Sprout
from grit.bench.objectives.task import Task
from grit.bench.objectives.word_layer import WordLayer, turned
from grit.bench.types import Example, Reading, Recipe, Scheme, StorageError, Term, UsageError

TOPICS = (
    ("kettle", "oven", "spoon", "recipe", "butter", "flour"),
    ("tulip", "spade", "hedge", "seedling", "compost", "lawn"),
    ("harbour", "anchor", "sail", "gull", "tide", "deck"),
)
FILLERS = ("beside the old", "under a small", "with another", "not far from the", "and then the")


def examples(n: int = 36, classes: int = 3, seed: int = 0) -> tuple[Example, ...]:
    """Short texts of three topics, words of the topic between fillers."""
    rng = random.Random(seed)
    made = []
    for number in range(n):
        label = number % classes
        nouns = rng.choices(TOPICS[label], k=rng.randint(2, 4))
        text = " ".join(f"{rng.choice(FILLERS)} {noun}{rng.choice(('', ',', '!'))}" for noun in nouns)
        made.append(Example(f"{number:04x}", text, label))
    return tuple(made)


class Bag(nn.Module):
    """The mean of word vectors through a linear layer, in float64: small enough for exact statements."""

    @dataclasses.dataclass(frozen=True)
    class Config:
        width: int = 4

    recipe: ClassVar[Recipe] = Recipe()
    separable: ClassVar[bool] = True
    max_tokens = 24

    def __init__(self, vocabulary: tuple[str, ...], classes: int, width: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.config = self.Config(width)
        self.vocabulary = vocabulary
        self.classes = classes
        self.rows = {word: row for row, word in enumerate(vocabulary)}
        self.table = nn.Parameter(torch.randn(len(vocabulary), width, generator=generator, dtype=torch.float64))
        self.weight = nn.Parameter(torch.randn(classes, width, generator=generator, dtype=torch.float64))

    @classmethod
    def build(cls, config: Config, texts: Sequence[str], classes: int, seed: int) -> Self:
        words = sorted({token for text in texts for token in re.findall(r"\w+|[^\w ]", text)})
        return cls(("", *words), classes, config.width, seed)

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+|[^\w ]", text)

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        return np.array([self.rows.get(token, 0) for token in tokens], np.int64)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return self.table[codes]

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        inside = torch.arange(features.shape[1]) < lengths[:, None]
        return Reading(features, (features * inside[..., None]).sum(1) / lengths[:, None])

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return state @ self.weight.T

    def constrain(self, progress: float) -> None:
        return None

    def program(self) -> None:
        return None


class Letters(Bag):
    """A teacher that cuts every word into letters."""

    max_tokens = 200

    @classmethod
    def build(cls, config: Bag.Config, texts: Sequence[str], classes: int, seed: int) -> Self:
        return cls(("", *sorted({c for text in texts for c in text if c != " "})), classes, config.width, seed)

    def tokenize(self, text: str) -> list[str]:
        return [character for character in text if character != " "]


class Pairs(Bag):
    """A model that looks across white space."""

    separable = False

    def tokenize(self, text: str) -> list[str]:
        words = text.split()
        return [f"{a} {b}" for a, b in itertools.pairwise(words)] or words


class Whole(Bag):
    """Words meet a linear map, then a bend."""

    def __init__(self, vocabulary: tuple[str, ...], classes: int, width: int, seed: int) -> None:
        super().__init__(vocabulary, classes, width, seed)
        self.map = nn.Parameter(torch.linspace(-1, 1, width * width, dtype=torch.float64).view(width, width))

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        return super().read((features @ self.map.T).tanh(), lengths)


class Narrow(Whole):
    """The same, and says so."""

    def projection(self) -> torch.Tensor:
        return self.map

    def read_projected(self, projected: torch.Tensor, lengths: torch.Tensor) -> Reading:
        return Bag.read(self, projected.tanh(), lengths)


def built(kind: type[Bag] = Bag, seed: int = 0, data: Sequence[Example] = examples(), width: int = 4) -> Any:
    classes = max(example.label for example in data) + 1
    return kind.build(kind.Config(width), [example.text for example in data], classes, seed)


def scene_of(student: Any, data: tuple[Example, ...], teacher: Any = None, seed: int = 0) -> Scene:
    words = Words()
    codebook = Codebook(words, student)
    split = Split(student, words, data)
    lessons = Lessons(teacher, data, words) if teacher is not None else None
    return Scene(student, words, codebook, split, student.classes, seed, lessons)


def step_of(scene: Scene, n: int = 12, *, progress: float = 0.9, seed: int = 0, objective: Any = None) -> Step:
    """A step over the first ``n`` texts; with ``objective``, its helper is built first."""
    if objective is not None:
        helper = objective.helper(scene)
        if helper is not None:
            scene.helpers = {**scene.helpers, objective: helper.double()}
    generator = torch.Generator().manual_seed(seed)
    return Step(scene, np.arange(n), progress, generator, random.Random(seed))


def loss_of(objective: Any, student: Any = None, teacher: Any = None, **options: Any) -> torch.Tensor:
    data = examples(classes=student.classes) if student is not None else examples()
    step = step_of(scene_of(student or built(), data, teacher), objective=objective, **options)
    return objective(step)


def gradients(loss: torch.Tensor, student: nn.Module) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(student.parameters()), allow_unused=True, materialize_grads=True))


# --- words -----------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=4), max_size=20))
def test_interned_rows_name_their_tokens(tokens: list[str]) -> None:
    words = Words()
    rows = words.intern(tokens)
    assert [words.strings[row] for row in rows] == tokens
    assert np.array_equal(rows, words.intern(tokens))
    assert len(words) == len({"", *tokens})
    assert words.strings[UNKNOWN] == ""


def test_a_codebook_follows_words_as_they_come_and_change() -> None:
    model = built()
    words = Words()
    book = Codebook(words, model)
    first = words.intern(["oven", "spade"])
    assert np.array_equal(book.codes(first), model.codes(["oven", "spade"]))
    block = words.reserve(2)
    assert book.codes(np.array([block])).item() == UNKNOWN
    later = words.intern(["tide"])
    words.rewrite(block, ["gull", "deck"])
    assert np.array_equal(book.codes(np.array([block, block + 1])), model.codes(["gull", "deck"]))
    assert np.array_equal(book.codes(later), model.codes(["tide"]))
    words.rewrite(block, ["sail"])
    assert np.array_equal(book.codes(np.array([block, block + 1])), model.codes(["sail", "deck"]))


def test_spelling_is_coding_padded_with_the_unknown_word() -> None:
    model = built()
    words = Words()
    book = Codebook(words, model)
    words.intern(["oven"])
    found = book.spell([["oven", "tide", "oven"], ["nosuchword"]])
    assert found.tolist() == [model.codes(["oven", "tide", "oven"]).tolist(), [0, 0, 0]]
    assert len(words) == 2  # spelling keeps nothing


def test_a_split_cuts_at_the_limit_and_reads_nothing_as_the_unknown_word() -> None:
    model = built()
    words = Words()
    long = " ".join(["oven"] * 30)
    split = Split(model, words, (Example("a", long, 0), Example("b", "", 1), Example("c", "tide sail", 2)))
    assert split.lengths.tolist() == [model.max_tokens, 1, 2]
    rows = split.rows(np.array([1, 2]))
    assert rows[0].tolist() == [UNKNOWN, UNKNOWN]
    assert [words.strings[row] for row in rows[1]] == ["tide", "sail"]
    assert sorted(np.concatenate(split.batches(2)).tolist()) == [0, 1, 2]


def test_pieces_are_what_stands_between_white_space() -> None:
    split = Split(built(Letters), Words(), (Example("a", "ab c def", 0),))
    assert split.pieces(np.array([0])).tolist() == [[0, 0, 1, 2, 2, 2]]


@given(st.lists(st.lists(st.integers(1, 9), max_size=5), min_size=1, max_size=5))
def test_padding_ragged_rows_loses_nothing(ragged: list[list[int]]) -> None:
    flat = np.array([value for row in ragged for value in row] or [0])
    ends = np.cumsum([0, *map(len, ragged)])
    found = padded(flat, ends, np.arange(len(ragged)))
    assert [[value for value in row if value] for row in found.tolist()] == ragged


# --- passes ----------------------------------------------------------------------------------------------


def test_margin_and_evidence() -> None:
    logits = torch.tensor([[3.0, 1.0, -1.0], [0.0, 0.0, 6.0]])
    labels = torch.tensor([0, 1])
    assert margin(logits, labels).tolist() == [-2.0, 6.0]
    assert evidence(logits, labels).tolist() == [2.0, -2.0]
    assert torch.allclose(evidence(logits + 7, labels), evidence(logits, labels))


class Normal(Bag):
    """A bag whose state is normalised by the mean of the batch in training, and by a running mean when deployed."""

    def __init__(self, vocabulary: tuple[str, ...], classes: int, width: int, seed: int) -> None:
        super().__init__(vocabulary, classes, width, seed)
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        words, state = super().read(features, lengths)
        if not self.training:
            return Reading(words, state - self.mean)
        with torch.no_grad():
            self.mean.lerp_(state.mean(0), 0.1)
        return Reading(words, state - state.mean(0))


@pytest.mark.parametrize(
    "objective", [Gradmask(hard=1.0, lexicon=""), Perturb(), Perturb(kind="pgd"), Hotword(lexicon="")]
)
def test_attacked_texts_leave_no_trace_in_running_statistics(objective: Any) -> None:
    student = built(Normal)
    student.train()
    step = step_of(scene_of(student, examples()), objective=objective)
    assert torch.isfinite(objective(step)) and not student.mean.any()
    step.logits  # noqa: B018  # the pass over the texts as they are
    assert student.mean.any()


def test_the_only_pass_of_a_scheme_moves_them() -> None:
    student, objective = built(Normal), Free()
    student.train()
    objective(step_of(scene_of(student, examples()), objective=objective))
    assert student.mean.any()


@pytest.mark.parametrize("name", ["task", "attribution", "gradmask", "perturb", "hotword"])
def test_a_model_that_projects_is_trained_as_one_that_keeps_it_to_itself(name: str) -> None:
    objective = ALL[name]
    losses, moves, slopes = [], [], []
    for kind in (Whole, Narrow):
        student = built(kind)
        step = step_of(scene_of(student, examples(), built(seed=1)), objective=objective)
        losses.append(objective(step))
        moves.append(gradients(losses[-1], student))
        slopes.append((step.slope, step.attributions, step.logits, step.reading.words))
    assert losses[0] > 0
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*moves)
    torch.testing.assert_close(*slopes)


def test_quiet_puts_the_mode_back() -> None:
    model = built()
    for mode in (True, False):
        model.train(mode)
        with quiet(model):
            assert not model.training
            with quiet(model):
                assert not model.training
            assert not model.training
        assert model.training == mode


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.lists(st.floats(-5, 5), min_size=3, max_size=3))
def test_divergence_is_zero_only_between_equals_and_blind_to_shifts(a: list[float], b: list[float]) -> None:
    left, right = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    assert divergence(left, left + 3, 3.0).item() == pytest.approx(0, abs=1e-12)
    expected = (left / 2).softmax(-1) * ((left / 2).log_softmax(-1) - (right / 2).log_softmax(-1))
    assert divergence(left, right, 2.0).item() == pytest.approx(4 * expected.sum().item(), abs=1e-9)
    assert divergence(left, right, 3.0).item() >= -1e-12


# --- the teacher's answers -------------------------------------------------------------------------------


def test_lessons_are_the_teachers_own_answers() -> None:
    # Without punctuation, so that every piece is one token.
    data = tuple(dataclasses.replace(example, text=re.sub("[,!]", "", example.text)) for example in examples())
    teacher = built(seed=5, width=6)
    scene = scene_of(built(), data, teacher)
    index = np.array([7, 3])
    for place, number in enumerate(index):
        tokens = teacher.tokenize(data[number].text)[: teacher.max_tokens]
        features = teacher.features(torch.from_numpy(teacher.codes(tokens)))[None].detach().requires_grad_()
        reading = teacher.read(features, torch.tensor([len(tokens)]))
        logits = teacher.head(reading.state)
        assert torch.allclose(scene.lessons.logits(index)[place], logits[0])
        assert torch.allclose(scene.lessons.state(index)[place], reading.state[0])
        vectors, present = scene.lessons.word_vectors(index)
        assert present[place].sum() == len(tokens)
        assert torch.allclose(vectors[place, : len(tokens)], features[0], atol=2e-3)
        (gradient,) = torch.autograd.grad(evidence(logits, torch.tensor([data[number].label])).sum(), features)
        found = scene.lessons.attributions(index)[place, : len(tokens)].double()
        assert torch.allclose(found, (gradient * features).sum(-1)[0], atol=1e-6)
    step = step_of(scene)
    assert torch.allclose(scene.lessons.logits_of(step.rows, step.lengths), scene.lessons.logits(step.index))


def test_a_teacher_that_cuts_words_otherwise_speaks_of_the_same_pieces() -> None:
    data = examples()
    scene = scene_of(built(), data, built(Letters))
    step = step_of(scene)
    mine, here = step.pool(step.reading.words, mean=True)
    theirs, there = scene.lessons.word_vectors(step.index)
    n = min(mine.shape[1], theirs.shape[1])
    assert torch.equal(here[:, :n], there[:, :n])
    # Asked about changed rows, it spells them in its own tokens, and row 0 is its unknown word.
    rows = step.rows.copy()
    assert torch.allclose(scene.lessons.logits_of(rows, step.lengths), scene.lessons.logits(step.index))
    rows[0, 0] = UNKNOWN
    spelt = [token for word in scene.student.tokenize(data[0].text)[1:] for token in word]
    codes = torch.from_numpy(scene.lessons.teacher.codes(["", *spelt]))[None]
    expected = answer(scene.lessons.teacher, scene.lessons.teacher.features(codes), torch.tensor([codes.shape[1]]))
    assert torch.allclose(scene.lessons.logits_of(rows, step.lengths)[0], expected[0])


def test_answers_are_kept_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, teacher, words = examples(), built(seed=5), Words()
    first = Lessons(teacher, data, words, tmp_path / "cache").logits(np.arange(4))
    files = list((tmp_path / "cache").iterdir())
    assert len(files) == 1
    assert not [file for file in files if file.suffix == ".part"]
    with monkeypatch.context() as patch:
        patch.setattr(Lessons, "_ask", lambda self: pytest.fail("asked again"))
        assert torch.equal(Lessons(teacher, data, words, tmp_path / "cache").logits(np.arange(4)), first)
    with torch.no_grad():
        teacher.weight.add_(1)
    assert not torch.equal(Lessons(teacher, data, words, tmp_path / "cache").logits(np.arange(4)), first)
    Lessons(teacher, data[:-1], words, tmp_path / "cache").logits(np.arange(4))
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(StorageError, match="cannot keep the teacher's answers"):
        Lessons(built(), examples(), Words(), tmp_path / "cache").logits(np.arange(4))


def test_a_damaged_cache_is_asked_again(tmp_path: Path) -> None:
    data, teacher = examples(), built(seed=5)
    first = Lessons(teacher, data, Words(), tmp_path).logits(np.arange(4))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(Lessons(teacher, data, Words(), tmp_path).logits(np.arange(4)), first)


def test_a_digest_names_the_weights() -> None:
    one, same, other = built(seed=1), built(seed=1), built(seed=2)
    assert digest_of(one) == digest_of(same) != digest_of(other)


# --- flips -----------------------------------------------------------------------------------------------


def flips_of(scene: Scene, lexicon: str = "") -> Flips:
    return scene.flips(lexicon)


def _osa(a: str, b: str) -> int:
    """Edit distance with swaps of neighbours, straight from its definition."""

    @functools.cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        best = min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (a[i - 1] != b[j - 1]))
        if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
            best = min(best, distance(i - 2, j - 2) + 1)
        return best

    return distance(len(a), len(b))


@given(st.text("ab", max_size=5), st.text("ab", max_size=5))
def test_one_typo_is_edit_distance_one(a: str, b: str) -> None:
    assert one_typo(a, b) == (_osa(a, b) == 1)


@given(st.text("abcdef", min_size=1, max_size=8), st.integers(0, 999))
def test_a_misspelling_is_at_most_one_typo_away(token: str, seed: int) -> None:
    other = misspelt(token, random.Random(seed))
    assert other
    assert other == token or one_typo(token, other)


def test_candidates_follow_the_threat_model() -> None:
    data = (*examples(), Example("x", "the sails and sail , !", 0), Example("y", "the sails and sail , !", 0))
    scene = scene_of(built(data=data), data)
    flips = flips_of(scene)

    def candidates(token: str) -> set[str]:
        row = scene.words.find(token)
        return {scene.words.strings[other] for other in flips.table[row]}

    assert candidates("the") == {"the"}  # a stop word stands
    assert candidates(",") == {","}
    assert candidates("sails") >= {"", "sail"}  # to a vocabulary a typo is the unknown word, or a neighbour
    assert flips.budgets(np.array([scene.train.rows(np.array([36]))[0]]), torch.tensor([6]), 0.25).tolist() == [1]
    assert flips.budgets(np.array([scene.train.rows(np.array([36]))[0]]), torch.tensor([6]), 0.5).tolist() == [2]


def test_synonyms_come_from_the_lexicon(monkeypatch: pytest.MonkeyPatch) -> None:
    class Table:
        def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
            return {"oven": ("stove", "two words", "oven"), "tide": tuple(f"tide{n}" for n in range(20))}.get(word, ())

    monkeypatch.setattr(_flips.lexicons, "load", lambda name: Table())
    scene = scene_of(built(), examples())
    flips = flips_of(scene, "mine")

    def candidates(token: str) -> set[str]:
        return {scene.words.strings[other] for other in flips.table[scene.words.find(token)]}

    assert candidates("oven") == {"oven", "", "stove"}
    first = candidates("tide")
    assert len(first - {"tide", ""}) == _flips.SYNONYMS
    flips.renew(1)
    second = candidates("tide")
    flips.renew(0)
    assert candidates("tide") == first != second


def test_a_hashing_model_gets_fresh_misspellings_every_epoch() -> None:
    class Hash(Bag):
        def codes(self, tokens: Sequence[str]) -> np.ndarray:
            return np.array([sum(map(ord, token)) % len(self.table) for token in tokens], np.int64)

    student = built(Hash)
    student.vocabulary = ()
    scene = scene_of(student, examples())
    flips = flips_of(scene)
    row = scene.words.find("harbour")

    def candidates() -> set[str]:
        return {scene.words.strings[other] for other in flips.table[row]} - {"harbour"}

    first = candidates()
    assert first and all(one_typo("harbour", other) for other in first)
    assert "" not in first
    scene.epoch = 1
    flips_of(scene)
    assert candidates() != first
    assert np.array_equal(scene.codebook.table, student.codes(scene.words.strings))


def test_writing_raises_the_margin_within_the_budget() -> None:
    scene = scene_of(built(), examples())
    step = step_of(scene)
    flips = flips_of(scene)
    budgets = np.array([1, 2] * 6)
    rows = flips.write(step.rows, step.lengths, step.slope, budgets)
    changed = rows != step.rows
    assert (changed.sum(1) <= budgets).all() and changed.any()
    assert flips.open[step.rows[changed]].all()
    before = margin(step.logits, step.labels)
    # In a linear model with two classes in play the first-order gain is exact, so no text gets easier.
    exact = step_of(scene_of(built(data=examples(classes=2)), examples(classes=2)))
    harder = exact.scene.flips("").write(exact.rows, exact.lengths, exact.slope, budgets)
    after = margin(exact.again(exact.over(harder)), exact.labels)
    assert (after >= margin(exact.logits, exact.labels) - 1e-12).all()
    assert after.sum() > margin(exact.logits, exact.labels).sum() + 0.1
    assert (margin(step.again(step.over(rows)), step.labels) > before).any()


def test_the_best_single_flip_is_found_in_a_linear_model() -> None:
    data = examples(classes=2)
    step = step_of(scene_of(built(data=data), data), n=6)
    flips = step.scene.flips("")
    rows = flips.write(step.rows, step.lengths, step.slope, np.ones(6, np.int64))
    found = margin(step.again(step.over(rows)), step.labels)
    for line in range(6):
        best = margin(step.logits, step.labels)[line].item()
        for place in range(int(step.lengths[line])):
            for other in flips.table[step.rows[line, place]]:
                tried = step.rows.copy()
                tried[line, place] = other
                best = max(best, margin(step.again(step.over(tried)), step.labels)[line].item())
        # In a mean of words all places are equally steep, so all are looked at.
        assert found[line].item() == pytest.approx(best)


def test_standing_words_are_not_touched_again() -> None:
    step = step_of(scene_of(built(), examples()))
    flips = step.scene.flips("")
    everything = np.ones(step.rows.shape, bool)
    rows = flips.write(step.rows, step.lengths, step.slope, np.full(12, 3), everything)
    assert np.array_equal(rows, step.rows)


def test_random_words_stay_within_the_budget() -> None:
    step = step_of(scene_of(built(), examples()))
    flips = step.scene.flips("")
    rows = flips.scatter(step.rows, step.lengths, np.full(12, 2), random.Random(0))
    assert ((rows != step.rows).sum(1) == 2).all()
    assert np.array_equal(rows, flips.scatter(step.rows, step.lengths, np.full(12, 2), random.Random(0)))


# --- the terms -------------------------------------------------------------------------------------------

ALL: dict[str, Any] = {
    "task": Task(),
    "distil": Distil(),
    "regress": Regress(),
    "attribution": Attribution(),
    "infomax": Infomax(),
    "gradmask": Gradmask(lexicon=""),
    "gradmask, labels": Gradmask(hard=1.0, lexicon=""),
    "perturb": Perturb(),
    "perturb, pgd": Perturb("pgd"),
    "perturb, freelb": Perturb("freelb"),
    "hotword": Hotword(lexicon=""),
    "hotword, random": Hotword("random", lexicon=""),
    "distortion": Distortion(),
    "aspects": Aspects(aspects=3),
    "smoothing": Smoothing(),
    "pcl": Pcl(),
    "sprout": Sprout(),
    "cot": Cot(),
    "free": Free(),
    "bound": Bound(lexicon=""),
    "word_layer": WordLayer(batches=4, batch_size=12, lexicon=""),
}


def test_every_file_holds_a_term_and_every_term_is_tested() -> None:
    assert set(registry.names("objectives")) == {name.partition(",")[0] for name in ALL}
    for name, objective in ALL.items():
        assert registry.load("objectives", name.partition(",")[0]) is type(objective)
        assert type(objective).__doc__ and dataclasses.is_dataclass(objective)
        assert eval(repr(objective)) == objective  # what a record prints can be pasted back


def _nonsense() -> list[tuple[str, str, Any]]:
    """Every field of every term with values that no field of its type may have."""
    wrong = {int: (-1, 1.5, math.inf), float: (-1.0, math.inf, math.nan), Kind: ("nosuch",), Augmentation: ("nosuch",)}
    return [
        *(
            (name, field, value)
            for name in registry.names("objectives")
            for field, hint in get_type_hints(registry.load("objectives", name)).items()
            for value in wrong.get(hint, ())
        ),
        *((name, field, 2.0) for name in ("perturb", "gradmask", "hotword", "bound") for field in ("calm", "full")),
        *((name, "share", 0.0) for name in ("gradmask", "hotword", "bound")),
        *(("perturb", "calm", 0.9), ("free", "replays", 0), ("gradmask", "samples", 0), ("distil", "temperature", 0.0)),
    ]


@pytest.mark.parametrize(("name", "field", "value"), _nonsense())
def test_nonsense_is_refused_before_any_training(name: str, field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^objective {name}: {field}={value}: expected .*, as in {field}="):
        schemes.objectives(Scheme("mine", (Term(name, 1.0, {field: value}),)))


def test_every_field_of_every_term_is_checked_but_the_lexicon_which_is_opened() -> None:
    checked = {(name, field) for name, field, _ in _nonsense()}
    for name in registry.names("objectives"):
        fields = {field.name for field in dataclasses.fields(registry.load("objectives", name))}
        assert fields - {"lexicon"} == {field for term, field in checked if term == name}


@pytest.mark.parametrize("name", set(ALL) - {"word_layer"})
def test_every_term_is_a_scalar_that_moves_the_student(name: str) -> None:
    objective, student = ALL[name], built(seed=1)
    loss = loss_of(objective, student, built(seed=2, width=6))
    assert loss.shape == () and torch.isfinite(loss)
    moved = gradients(loss, student)
    assert sum(gradient.abs().sum() for gradient in moved) > 0


@pytest.mark.parametrize("name", ALL)
def test_every_term_says_the_same_twice(name: str) -> None:
    def loss() -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)  # noqa: TID251  # for the first weights of helpers, as a training seeds them
            return loss_of(ALL[name], built(seed=1), built(seed=2))

    assert torch.equal(loss(), loss())


@pytest.mark.parametrize("name", [name for name, objective in ALL.items() if objective.needs_teacher])
def test_a_term_that_needs_a_teacher_says_so(name: str) -> None:
    with pytest.raises(UsageError, match="needs a teacher"):
        loss_of(ALL[name], built())


@pytest.mark.parametrize("name", [name for name, objective in ALL.items() if not objective.needs_teacher])
def test_the_other_terms_never_ask_one(name: str) -> None:
    assert torch.isfinite(loss_of(ALL[name], built()))


def test_task_is_the_cross_entropy() -> None:
    student = built()
    with torch.no_grad():
        student.weight.zero_()
    assert loss_of(Task(), student).item() == pytest.approx(math.log(3))


def test_distil_is_zero_where_the_student_is_the_teacher() -> None:
    student = built()
    assert loss_of(Distil(), student, built()).item() == pytest.approx(0, abs=1e-12)
    assert loss_of(Distil(), student, built(seed=9)).item() > 0.01


def test_a_large_temperature_distils_squared_logit_differences() -> None:
    student, teacher = built(seed=1), built(seed=2)
    step = step_of(scene_of(student, examples(), teacher))
    difference = step.lessons.logits(step.index) - step.logits
    difference = difference - difference.mean(-1, keepdim=True)
    expected = difference.square().sum(-1).mean() / (2 * 3)
    assert Distil(temperature=1000.0)(step).item() == pytest.approx(expected.item(), rel=1e-2)


def test_regress_is_zero_under_the_identity_and_blind_to_scale() -> None:
    objective = Regress()
    for scale in (1.0, 5.0):
        teacher = built()
        with torch.no_grad():
            teacher.table.mul_(scale)
        step = step_of(scene_of(built(), examples(), teacher), objective=objective)
        helper: Any = step.scene.helpers[objective]
        for layer in (helper["words"], helper["state"]):
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
        assert objective(step).item() == pytest.approx(0, abs=1e-5)  # the teacher's words are kept in half precision
        nn.init.constant_(helper["words"].bias, 3.0)
        assert objective(step).item() > 0.1


def test_regress_lies_between_zero_and_four_a_level() -> None:
    assert 0 < loss_of(Regress(words=0.0), built(), built(seed=3)).item() < 4
    assert 0 < loss_of(Regress(state=0.0), built(), built(seed=3)).item() < 4


def test_attribution_is_zero_where_the_student_is_the_teacher_at_any_scale() -> None:
    assert loss_of(Attribution(), built(), built()).item() == pytest.approx(0, abs=1e-6)
    louder = built()
    with torch.no_grad():
        louder.weight.mul_(100)
    assert loss_of(Attribution(), built(), louder).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        louder.weight.neg_()
    assert loss_of(Attribution(), built(), louder).item() == pytest.approx(2, abs=1e-6)


def test_attribution_has_the_gradient_of_double_differentiation() -> None:
    from grit.models.student import Student

    data = examples()
    texts = [example.text for example in data]
    student: Any = Student.build(Student.Config(), texts, 3, 0).double()
    teacher = Student.build(Student.Config(embedding=7, hidden=7), texts, 3, 1).double()
    step = step_of(scene_of(student, data, teacher))
    found = gradients(Attribution()(step), student)

    features = step.over(step.rows)
    (slope,) = torch.autograd.grad(evidence(step.again(features), step.labels).sum(), features, create_graph=True)
    mine, _ = step.pool((slope * features).sum(-1)[..., None], mean=False)
    theirs = step.lessons.attributions(step.index)
    n = min(mine.shape[1], theirs.shape[1])
    exact = (1 - torch.cosine_similarity(mine[:, :n, 0], theirs[:, :n].double(), dim=-1)).mean()
    assert Attribution()(step).item() == pytest.approx(exact.item(), abs=1e-6)
    for ours, expected in zip(found, gradients(exact, student), strict=True):
        assert torch.allclose(ours, expected, atol=2e-4 * expected.abs().max().item() + 1e-9)


def test_infomax_falls_where_the_vectors_can_be_told_apart() -> None:
    objective = Infomax(words=0.0, width=4)

    def loss(teacher: Any) -> float:
        step = step_of(scene_of(built(), examples(), teacher), objective=objective)
        helper: Any = step.scene.helpers[objective]
        for layer in helper.values():
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
        return objective(step).item()

    mute = built()
    with torch.no_grad():
        mute.table.fill_(1.0)
    assert loss(built()) < 0.5 * math.log(12)
    assert loss(mute) > math.log(12) - 1e-6  # nothing can be told apart: the bound on the information is 0
    assert loss(built(seed=8)) > loss(built())


def test_masks_are_nested_and_take_the_steepest_words() -> None:
    step = step_of(scene_of(built(), examples()))
    gradient = torch.randn(*step.rows.shape, 4, generator=step.generator)
    before = step.rows
    for depth in range(1, 6):
        rows = mask(step.rows, step.lengths, gradient, depth)
        changed = (rows == UNKNOWN) & (step.rows != UNKNOWN)
        assert (changed.sum(1) <= depth).all()
        assert ((rows == before) | (rows == UNKNOWN)).all()
        before = rows
    steepest = gradient.norm(dim=-1).masked_fill(~step.mask, -1).argmax(1).numpy()
    assert (mask(step.rows, step.lengths, gradient, 1)[np.arange(12), steepest] == UNKNOWN).all()


def test_gradmask_is_zero_where_teacher_and_student_say_the_same_of_everything() -> None:
    def silent(seed: int) -> Any:
        model = built(seed=seed)
        with torch.no_grad():
            model.weight.zero_()
        return model

    soft = Gradmask(hard=0.0, lexicon="")
    assert loss_of(soft, silent(0), silent(1)).item() == pytest.approx(0, abs=1e-12)
    assert loss_of(soft, built(), built(seed=3)).item() > 0


def test_gradmask_distils_the_mean_over_the_masked_texts() -> None:
    objective = Gradmask(top=3, samples=3, hard=0.0, lexicon="")
    scene = scene_of(built(), examples(), built(seed=4))
    step = step_of(scene)
    rows = attacked(step, "", objective.share)
    features = step.over(rows)
    logits = step.again(features)
    (gradient,) = torch.autograd.grad(margin(logits, step.labels).sum(), features)
    answers = [scene.lessons.logits_of(mask(rows, step.lengths, gradient, k), step.lengths) for k in (1, 2, 3)]
    expected = divergence(torch.stack(answers).mean(0), logits, 3.0)
    assert objective(step_of(scene)).item() == pytest.approx(expected.item())
    # Half of the label and half of the teacher is the mean of both losses.
    label = cross_entropy(logits, step.labels)
    halves = dataclasses.replace(objective, hard=0.5)
    assert halves(step_of(scene)).item() == pytest.approx((expected + label).item() / 2)


def test_gradmask_with_labels_is_the_task_where_nobody_may_touch_a_word() -> None:
    data = (Example("a", "the", 0), Example("b", "and", 1), Example("c", "not", 2)) * 4
    step = step_of(scene_of(built(data=data), data))
    assert Gradmask(hard=1.0, lexicon="")(step).item() == pytest.approx(Task()(step).item())


@pytest.mark.parametrize("name", ["gradmask", "hotword", "perturb", "perturb, freelb", "bound"])
def test_attacks_wait_until_something_is_learned(name: str) -> None:
    objective = ALL[name]
    early = loss_of(objective, built(), built(seed=2), progress=objective.calm)
    assert early.item() == 0 and not early.requires_grad
    assert loss_of(objective, built(), built(seed=2), progress=objective.full).item() > 0


def test_the_strength_of_an_attack_rises_from_calm_to_full() -> None:
    scene = scene_of(built(), examples())
    strengths = [step_of(scene, progress=progress).strength(0.2, 0.6) for progress in (0.1, 0.2, 0.3, 0.6, 1.0)]
    assert strengths == [0, 0, pytest.approx(0.25), 1, 1]
    assert step_of(scene, progress=0.5).strength(0.5, 0.5) == 0
    assert step_of(scene, progress=0.51).strength(0.5, 0.5) == 1


@pytest.mark.parametrize(
    ("name", "room"),
    [
        ("gradmask", "share"),
        ("gradmask, labels", "share"),
        ("hotword", "share"),
        ("hotword, random", "share"),
        ("perturb", "radius"),
        ("perturb, pgd", "radius"),
        ("perturb, freelb", "radius"),
    ],
)
def test_half_way_from_calm_to_full_an_attack_has_half_its_room(name: str, room: str) -> None:
    whole, half = (dataclasses.replace(ALL[name], **{room: size}) for size in (0.5, 0.25))

    def loss(objective: Any, progress: float) -> float:
        return loss_of(objective, built(seed=1), built(seed=2), progress=progress).item()

    assert loss(whole, 0.35) == pytest.approx(loss(half, 0.9)) != pytest.approx(loss(whole, 0.9))


@pytest.mark.parametrize("kind", ["fgm", "pgd", "freelb"])
def test_no_perturbation_is_the_task_and_more_is_worse(kind: Any) -> None:
    data = examples(classes=2)
    losses = [loss_of(Perturb(kind, radius=radius), built(data=data)).item() for radius in (0.0, 0.1, 0.3)]
    assert losses[0] == pytest.approx(loss_of(Task(), built(data=data)).item())
    # In a linear model of two classes the margin's slope is exact. FreeLB's first point is random.
    assert losses[0] < losses[1] < losses[2] if kind != "freelb" else losses[2] != losses[0]


def test_pgd_asks_anew_for_the_slope_where_it_has_come_to() -> None:
    bent = examples(classes=2)
    fgm, pgd = (loss_of(Perturb(kind, radius=1.0), built(Whole, data=bent)).item() for kind in get_args(Kind)[:2])
    assert pgd > 1.05 * fgm  # up the first slope alone, three steps end where one of full length does


def test_freelb_starts_half_way_out_climbs_and_pays_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    step = step_of(scene_of(built(Whole), examples()))
    passed: list[tuple[torch.Tensor, float]] = []
    again = step.again

    def seen(features: torch.Tensor) -> torch.Tensor:
        logits = again(features)
        passed.append((features.detach(), cross_entropy(logits, step.labels).item()))
        return logits

    monkeypatch.setattr(step, "again", seen)
    loss = Perturb("freelb", radius=0.2)(step)
    points, losses = zip(*passed, strict=True)
    plain = step.over(step.rows).detach()
    torch.testing.assert_close((points[0] - plain).norm(dim=-1), 0.1 * plain.norm(dim=-1) * step.mask)
    assert losses[0] < losses[1] < losses[2]
    assert loss.item() == pytest.approx(sum(losses) / 3)


@given(st.integers(0, 99), st.floats(0.01, 3.0))
def test_a_climb_never_leaves_its_ball(seed: int, reach: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    limit = torch.rand(2, 3, 1, generator=generator)
    limit[0, 0] = 0
    moved = torch.zeros(2, 3, 4)
    for _ in range(3):
        moved = climbed(moved, torch.randn(2, 3, 4, generator=generator), limit, reach)
        assert (moved.norm(dim=-1, keepdim=True) <= limit * (1 + 1e-5)).all()
    assert torch.equal(moved[0, 0], torch.zeros(4))
    assert torch.equal(climbed(moved, torch.zeros(2, 3, 4), limit, reach).isnan().any(), torch.tensor(False))
    level, far = torch.zeros(2, 3, 4), torch.full((2, 3, 1), 1e3)
    assert not climbed(level, level, far, reach).any()  # nowhere to climb to, and no 0 times infinity


def test_words_behind_the_text_are_not_perturbed() -> None:
    short = (Example("a", "oven", 0), Example("b", "tide sail deck gull", 1), Example("c", "tide", 2)) * 4
    student = built(data=short)
    seen: list[torch.Tensor] = []
    plain = student.read
    student.read = lambda features, lengths: seen.append(features.detach()) or plain(features, lengths)
    step = step_of(scene_of(student, short))
    Perturb("pgd")(step)
    behind = ~step.mask
    assert torch.equal(seen[-1][behind], step.over(step.rows)[behind])
    assert not torch.equal(seen[-1], step.over(step.rows))


def test_hotword_without_candidates_is_the_task() -> None:
    data = (Example("a", "the", 0), Example("b", "and", 1), Example("c", "not", 2)) * 4
    step = step_of(scene_of(built(data=data), data))
    for kind in ("hotflip", "random"):
        assert Hotword(kind, lexicon="")(step).item() == pytest.approx(Task()(step).item())  # type: ignore[arg-type]


def test_hotword_finds_harder_texts_than_chance() -> None:
    data = examples(classes=2)
    task = loss_of(Task(), built(data=data)).item()
    hot = loss_of(Hotword(lexicon=""), built(data=data)).item()
    chance = loss_of(Hotword("random", lexicon=""), built(data=data)).item()
    assert hot > max(task, chance)


# --- the bound ---------------------------------------------------------------------------------------------


def test_without_candidates_or_before_its_time_the_bound_is_the_task() -> None:
    data = (Example("a", "the", 0), Example("b", "and", 1), Example("c", "not", 2)) * 4
    step = step_of(scene_of(built(data=data), data))
    assert Bound(lexicon="")(step).item() == pytest.approx(Task()(step).item())
    soon = step_of(scene_of(built(), examples()), progress=0.1 + 1e-9)
    assert Bound(lexicon="")(soon).item() == pytest.approx(Task()(soon).item())


@pytest.mark.parametrize("classes", [2, 3])
def test_the_bound_rises_with_the_budget_and_with_the_strength(classes: int) -> None:
    student = built(data=examples(classes=classes))
    task = loss_of(Task(), student).item()
    by_share = [loss_of(Bound(share=share, lexicon=""), student).item() for share in (0.1, 0.2, 0.4, 1.0)]
    assert task < by_share[0] < by_share[3] and by_share == sorted(by_share)
    by_time = [loss_of(Bound(lexicon=""), student, progress=progress).item() for progress in (0.15, 0.25, 0.4, 0.9)]
    assert task < by_time[0] < by_time[1] < by_time[2] == by_time[3]


@given(st.integers(0, 10**6), st.sampled_from([2, 3]))
def test_no_choice_of_candidates_is_worse_than_the_bound_of_a_linear_model(seed: int, classes: int) -> None:
    data, rng = examples(classes=classes, seed=seed % 7), random.Random(seed)
    step = step_of(scene_of(built(data=data, seed=seed % 5), data))
    flips = flips_of(step.scene)
    flat, ends = flips._every
    rows = step.rows.copy()
    for line, budget in enumerate(flips.budgets(step.rows, step.lengths, 0.25).tolist()):
        free = [place for place in range(int(step.lengths[line])) if flips.open[rows[line, place]]]
        for place in rng.sample(free, min(budget, len(free))):
            row = rows[line, place]
            rows[line, place] = rng.choice(flat[ends[row] : ends[row + 1]].tolist())
    written = cross_entropy(step.again(step.over(rows)), step.labels).item()
    assert written <= Bound(lexicon="")(step).item() + 1e-12


def test_with_two_classes_the_bound_of_a_linear_model_is_reached() -> None:
    data = examples(classes=2)
    step = step_of(scene_of(built(data=data), data))
    flips = flips_of(step.scene)
    rows = flips.write(step.rows, step.lengths, step.slope, flips.budgets(step.rows, step.lengths, 0.25))
    reached = cross_entropy(step.again(step.over(rows)), step.labels).item()
    assert Bound(lexicon="")(step).item() == pytest.approx(reached)


def test_the_bound_teaches_the_candidates_and_not_only_the_words_of_the_text() -> None:
    student = built(data=examples(classes=2))
    table = gradients(loss_of(Bound(lexicon=""), student), student)[0]
    assert table[UNKNOWN].abs().sum() > 0  # no text holds the unknown word
    assert gradients(loss_of(Task(), student), student)[0][UNKNOWN].abs().sum() == 0


def layered(student: Any, **fields: Any) -> WordLayer:
    """A student whose words were settled first."""
    layer = WordLayer(**{"batches": 60, "batch_size": 36, "lexicon": "", **fields})
    layer.helper(scene_of(student, examples(classes=student.classes)))
    return layer


def test_settled_words_stay_and_add_nothing_to_the_loss() -> None:
    student, twin = built(seed=1), built(seed=2)
    layered(student), layered(twin)
    assert torch.equal(student.table, twin.table)  # whatever the student's own weights were
    assert not student.table.requires_grad and student.weight.requires_grad
    assert loss_of(ALL["word_layer"], student).item() == 0
    used = student.table[:, :2]  # three classes: what they are given alike is left out
    assert used.square().mean().item() == pytest.approx(1) and not student.table[:, 2:].any()


@given(st.integers(0, 99), st.integers(2, 5))
def test_turning_votes_keeps_their_distances_and_puts_first_what_tells_most(seed: int, classes: int) -> None:
    votes = torch.randn(9, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found, centred = turned(votes), votes - votes.mean(1, keepdim=True)
    assert found.shape == (9, classes - 1)
    assert torch.allclose(torch.cdist(found, found), torch.cdist(centred, centred))
    lengths = found.square().sum(0)
    assert (lengths[:-1] >= lengths[1:] - 1e-12).all()


def test_a_narrow_table_keeps_what_tells_most() -> None:
    narrow, wide = built(width=1), built(width=4)
    layered(narrow), layered(wide)
    told = wide.table[:, 0]
    assert torch.allclose(narrow.table[:, 0] / narrow.table[:, 0].norm(), told / told.norm())


def test_words_settled_against_the_bound_give_an_attacker_less() -> None:
    layers = [WordLayer(bound=bound, batches=300, batch_size=36, lexicon="") for bound in (0.0, 4.0)]
    bags = [layer.bag(scene_of(built(), examples())) for layer in layers]
    careless, careful = (Bound(lexicon="")(step_of(scene_of(bag, examples()), n=36)).item() for bag in bags)
    assert careful < 0.95 * careless


def test_a_model_that_trains_on_keeps_its_own_words() -> None:
    student = built()
    before = student.table.detach().clone()
    WordLayer(lexicon="").helper(dataclasses.replace(scene_of(student, examples()), begun=True))
    assert torch.equal(student.table, before) and not student.table.requires_grad


def test_a_model_that_hashes_keeps_its_own_words() -> None:
    class Hashing(Bag):
        def __init__(self, *values: Any) -> None:
            super().__init__(*values)
            self.hashed = self.table
            del self.table

    student = built(Hashing)
    before = student.hashed.detach().clone()
    layered(student)
    assert torch.equal(student.hashed, before) and student.hashed.requires_grad


def test_the_best_of_all_candidates_is_found_in_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    class Table:
        def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
            return tuple(other for topic in TOPICS for other in topic) if word in ("oven", "tide") else ()

    monkeypatch.setattr(_flips.lexicons, "load", lambda name: Table())
    step = step_of(scene_of(built(), examples()), n=36)
    flips = flips_of(step.scene, "mine")
    best = flips.best(step.rows, step.lengths, step.slope)
    words, topics = step.scene.words, [step.scene.words.find(other) for topic in TOPICS for other in topic]
    for line, place in itertools.product(range(36), range(step.rows.shape[1])):
        row = step.rows[line, place]
        allowed = [row]
        if step.mask[line, place] and flips.open[row]:
            # A word may have more synonyms than an epoch draws.
            allowed += [UNKNOWN, *(topics if words.strings[row] in ("oven", "tide") else ())]
        heights = (step.over(np.array(allowed)) @ step.slope[line, place]).tolist()
        assert heights[allowed.index(best[line, place])] == pytest.approx(max(heights))


def test_every_candidate_of_a_hashing_model_is_a_misspelling_of_the_epoch() -> None:
    class Hash(Bag):
        def codes(self, tokens: Sequence[str]) -> np.ndarray:
            return np.array([sum(map(ord, token)) % len(self.table) for token in tokens], np.int64)

    student = built(Hash)
    student.vocabulary = ()
    scene = scene_of(student, examples())
    for scene.epoch in (0, 1):
        flips = flips_of(scene)
        flat, ends = flips._every
        for row in range(flips.base):
            others = set(flat[ends[row] : ends[row + 1]].tolist())
            assert others == set(flips.table[row].tolist()) | {row}


def test_no_distortion_is_the_task_and_full_distortion_is_not() -> None:
    task = loss_of(Task(), built()).item()
    assert loss_of(Distortion(probability=0.0), built()).item() == pytest.approx(task)
    assert loss_of(Distortion(probability=1.0), built()).item() != pytest.approx(task)


def test_as_many_words_are_misspelt_as_the_probability_says(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(distortion, "distort", lambda tokens, rng, probability: asked.append(probability) or tokens)
    loss_of(Distortion(probability=0.3), built())
    assert asked == [0.3] * 12


def test_no_smoothing_is_the_task_and_full_smoothing_wants_nothing_known() -> None:
    assert loss_of(Smoothing(share=0.0), built()).item() == pytest.approx(loss_of(Task(), built()).item())
    mute = built()
    with torch.no_grad():
        mute.weight.zero_()
    assert loss_of(Smoothing(share=1.0), mute).item() == pytest.approx(math.log(3))
    assert loss_of(Smoothing(share=1.0), built()).item() > math.log(3)


def test_cot_is_lowest_where_the_wrong_classes_are_equal() -> None:
    mute = built()
    with torch.no_grad():
        mute.weight.zero_()
    lowest = -math.log(2) / 2
    assert loss_of(Cot(), mute).item() == pytest.approx(lowest)
    assert lowest < loss_of(Cot(), built()).item() <= 0
    assert loss_of(Cot(), built(data=examples(classes=2))).item() == 0  # which is why a scheme with it refuses two


def test_pcl_warms_up_with_the_task_and_then_asks_for_the_whole_gap() -> None:
    assert loss_of(Pcl(), built(), progress=0.1).item() == pytest.approx(loss_of(Task(), built()).item())
    mute = built()
    with torch.no_grad():
        mute.weight.zero_()
    assert loss_of(Pcl(), mute, progress=0.9).item() == pytest.approx(2 * 0.995)
    # At equal probabilities the constraint is idle; where the gold logit leads, it pays for the lead.
    free = loss_of(Pcl(constraint=0.0), built(), progress=0.9)
    assert loss_of(Pcl(), built(), progress=0.9) > free


def test_pcl_of_three_logits_by_hand() -> None:
    # Probabilities 0.6 (gold), 0.3, 0.1; among the wrong ones 0.75 and 0.25, which gold leads by log 2 and log 6.
    step: Any = SimpleNamespace(progress=0.9, labels=torch.tensor([0]), logits=torch.tensor([[6.0, 3.0, 1.0]]).log())
    assert Pcl(gap=0.5, constraint=0.0)(step).item() == pytest.approx(0.2, abs=1e-6)
    lead = 0.75 * math.log(2) + 0.25 * math.log(6)
    assert Pcl(gap=0.5, constraint=0.1)(step).item() == pytest.approx(0.2 + 0.1 * lead, abs=1e-6)


def test_sprout_without_its_parts_is_the_task_and_its_labels_climb() -> None:
    words = (Example("a", "oven", 0), Example("b", "tulip", 1), Example("c", "tide", 2)) * 4
    still = Sprout(smoothing=0.0, noise=0.0, mixing=1e-9)  # such a Beta draws 0 or 1: nothing is mixed
    step = step_of(scene_of(built(data=words), words), objective=still)
    assert still(step).item() == pytest.approx(Task()(step).item())
    objective = Sprout(smoothing=0.5, noise=0.0)
    step = step_of(scene_of(built(), examples()), objective=objective)
    concentration: Any = step.scene.helpers[objective]
    before = objective(step)
    (turned,) = torch.autograd.grad(before, [concentration["concentration"]])
    with torch.no_grad():
        concentration["concentration"] -= 0.1 * turned  # what an optimiser does
    again = step_of(step.scene)
    assert objective(again) > before


def test_the_noise_of_sprout_is_a_share_of_each_words_length() -> None:
    same = tuple(dataclasses.replace(example, text="oven under a tulip") for example in examples())  # mixed, the same
    student, seen = built(data=same), []
    plain = student.read
    student.read = lambda features, lengths: seen.append(features.detach()) or plain(features, lengths)
    objective = Sprout(noise=0.3)
    step = step_of(scene_of(student, same), n=36, objective=objective)
    seen.clear()
    objective(step)
    (noisy,) = seen
    moved = (noisy - step.features).norm(dim=-1) / step.features.norm(dim=-1)
    assert moved.square().mean().sqrt().item() == pytest.approx(0.3, rel=0.1)


def test_free_climbs_from_replay_to_replay_and_starts_each_batch_anew() -> None:
    objective, data = Free(), examples(classes=2)
    student = built(data=data)
    scene = scene_of(student, data)
    losses = []
    for _ in range(3):
        step = step_of(scene, objective=objective if not scene.helpers else None)
        loss = objective(step)
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(loss_of(Task(), student).item())
    assert losses[0] < losses[1] <= losses[2] + 1e-9
    assert objective(step_of(scene, n=11)).item() < losses[1]


def test_one_replay_takes_the_perturbation_to_the_end_of_its_ball() -> None:
    objective, student = Free(radius=0.2), built()
    step = step_of(scene_of(student, examples()), objective=objective)
    carried: Any = step.scene.helpers[objective]
    objective(step).backward()
    assert not carried.moved.any()
    objective(step_of(step.scene))
    torch.testing.assert_close(carried.moved.norm(dim=-1), 0.2 * step.features.norm(dim=-1) * step.mask)


def test_aspects_are_fitted_to_the_student_which_feels_only_the_pull() -> None:
    student = built()
    step = step_of(scene_of(student, examples()), objective=Aspects(aspects=3, pull=0.0))
    loss = Aspects(aspects=3, pull=0.0)(step)
    assert not any(gradient.any() for gradient in gradients(loss, student))
    helper: Any = step.scene.helpers[Aspects(aspects=3, pull=0.0)]
    assert all(gradient.any() for gradient in torch.autograd.grad(loss, list(helper.parameters())))
    # A student whose states all lie on one aspect is explained in full.
    with torch.no_grad():
        student.table.copy_(student.table[1].expand_as(student.table))
        helper["vectors"].weight.copy_(student.table[1][:, None].expand(4, 3))
    again = step_of(step.scene)
    assert Aspects(aspects=3, pull=0.0)(again).item() == pytest.approx(0, abs=1e-12)


def test_the_pull_of_aspects_draws_the_student_towards_what_they_explain() -> None:
    student, objective = built(), Aspects(aspects=3, pull=0.7)
    step = step_of(scene_of(student, examples()), objective=objective)
    helper: Any = step.scene.helpers[objective]
    state = nn.functional.normalize(step.reading.state, dim=-1)
    shares = helper["weights"](state).softmax(-1)
    explained = (shares @ nn.functional.normalize(helper["vectors"].weight, dim=0).T).detach()
    distance = (state - explained).square().sum(-1).mean()
    expected = [0.7 * gradient for gradient in gradients(distance, student)]
    torch.testing.assert_close(gradients(objective(step_of(step.scene)), student), expected)
    assert any(gradient.any() for gradient in expected)


@pytest.mark.parametrize("name", ["regress", "attribution", "infomax", "gradmask", "hotword", "distortion", "perturb"])
def test_models_that_look_across_white_space_are_taught_what_can_be_taught(name: str) -> None:
    loss = loss_of(ALL[name], built(Pairs), built(seed=2))
    assert torch.isfinite(loss)
    if name == "attribution":
        assert loss.item() == 0 and not loss.requires_grad
