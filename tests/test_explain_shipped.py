"""Explanations of what ships: the deployed bytes of every model of the house, read with words hidden."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grit.bench import registry
from grit.bench.explain import survey
from grit.bench.explain.attacked import changed
from grit.bench.explain.cut import Cut
from grit.bench.explain.explainers import EXPLAINERS, Case, Integrated, LeaveOneOut, Occlusion, Shapley
from grit.bench.explain.faithfulness import Faithfulness, order_of
from grit.bench.explain.scores import RANDOM
from grit.bench.explain.survey import Speaker
from grit.bench.explain.texts import ROWS, Shipped, Told, evidence, probability
from grit.bench.export import build, packing
from grit.bench.types import Edit, Example, Outcome
from grit.bench.victim import Victim

WORDS = ("alpha", "beta", "gamma", "delta", "it's", "no", "way", "home,", "(now)", "-", "café", "unheard-of")
MODELS: dict[str, dict[str, Any]] = {
    "student": {},
    "fastgrnn": {"embedding": 6, "hidden": 7},
    "prado": {"width": 32, "maps": 6, "bigrams": 4, "trigrams": 4},
    "hashed": {"buckets": 64},
    "tfidf": {},
    "bag": {},
}


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


@cache
def deployed(name: str) -> tuple[Any, Any]:
    """A model of the house with weights as drawn (zeros are stirred), and its artefact."""
    rng = random.Random(name)
    texts = [sentence(rng, 8) for _ in range(40)]
    cls = registry.load("models", name)
    model = cls.build(cls.Config(**MODELS[name]), texts, 3, 1)
    generator = np.random.default_rng(2)
    for weight in model.parameters():
        if not weight.detach().any():
            weight.data += 0.3 * weight.new_tensor(generator.normal(size=tuple(weight.shape)))
    model.eval()
    return model, packing.artefact(build.deployed(model, texts))


def logits_of(artefact: Any, text: str) -> np.ndarray:
    return Victim(artefact).logits([text])[0]


@pytest.mark.parametrize("name", MODELS)
def test_deleted_words_are_another_text_to_the_bit(name: str) -> None:
    _, artefact = deployed(name)
    rng = random.Random(3)
    for words in (1, 4, 9):
        text = sentence(rng, words)
        kept = np.random.default_rng(words).random((6, words)) < 0.5
        kept[0], kept[1] = True, False
        found = Shipped(artefact).open(text).logits(kept, "delete")
        for row, keeps in zip(found, kept, strict=True):
            left = " ".join(word for word, stays in zip(text.split(), keeps, strict=True) if stays)
            assert (row == logits_of(artefact, left)).all(), left


@pytest.mark.parametrize("name", MODELS)
def test_occluded_words_read_as_unknown_ones_in_the_same_places(name: str) -> None:
    _, artefact = deployed(name)
    rng = random.Random(4)
    text = sentence(rng, 6)
    kept = np.random.default_rng(1).random((6, 6)) < 0.5
    kept[0], kept[1] = True, False
    subject = Shipped(artefact).open(text)
    found = subject.logits(kept, "occlude")
    assert (found[0] == logits_of(artefact, text)).all()
    if artefact.separable:
        for row, keeps in zip(found, kept, strict=True):
            tokens = []
            for word, stays in zip(text.split(), keeps, strict=True):
                tokens += artefact.tokenize(word) if stays else [""] * len(artefact.tokenize(word))
            rows = np.asarray(artefact.intern(tokens), np.int32)[None]
            assert (row == artefact.logits(rows, np.array([len(tokens)]))[0]).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_float_model_and_what_ships_are_asked_the_same(name: str) -> None:
    """Up to quantisation: a mask read otherwise by one of them would be far off."""
    model, artefact = deployed(name)
    rng = random.Random(5)
    text = sentence(rng, 7)
    kept = np.random.default_rng(3).random((20, 7)) < 0.6
    for hide in ("delete", "occlude"):
        shipped = Shipped(artefact).open(text).logits(kept, hide)
        floats = Cut(model).open(text).logits(kept, hide)
        spread = np.abs(floats - floats.mean(0)).max() + 1e-6
        assert np.abs(shipped - floats).max() < 0.35 * max(spread, 0.1), hide


@pytest.mark.parametrize("name", ["student", "hashed"])
def test_whole_texts_and_rows_of_tokens_answer_alike(name: str) -> None:
    """A model without its run is shown texts; in its run, rows. Deleting is the same to the bit."""
    _, artefact = deployed(name)
    text = "alpha beta (now) it's no way home,"
    kept = np.random.default_rng(8).random((9, 7)) < 0.5
    by_text = Told(Victim(artefact).logits).open(text).logits(kept, "delete")
    assert (by_text == Shipped(artefact).open(text).logits(kept, "delete")).all()


def test_many_masks_are_answered_in_parts_and_no_answer_depends_on_the_others() -> None:
    _, artefact = deployed("student")
    subject = Shipped(artefact).open(sentence(random.Random(6), 14))
    every = (np.arange(1 << 14)[:, None] >> np.arange(14) & 1).astype(bool)
    assert len(every) > ROWS
    found = subject.logits(every, "delete")
    some = np.random.default_rng(0).choice(len(every), 40, replace=False)
    assert (found[some] == subject.logits(every[some], "delete")).all()


@settings(max_examples=15)
@given(st.sampled_from(sorted(MODELS)), st.integers(1, 7), st.integers(0, 99))
def test_what_is_asked_of_the_bytes_is_complete_on_the_bytes(name: str, words: int, seed: int) -> None:
    """Shapley values share out the int8 model's own difference, not the float model's."""
    _, artefact = deployed(name)
    subject = Shipped(artefact).open(sentence(random.Random(seed), words))
    case = Case(subject, None, 1)
    total = Shapley(orders=2)(case, np.random.default_rng(seed)).sum()
    ends = evidence(subject.logits(np.array([[True] * words, [False] * words]), "occlude"), 1)
    assert total == pytest.approx(ends[0] - ends[1], abs=1e-9)


def test_windows_of_all_words_and_single_deletions_agree_with_whole_texts() -> None:
    _, artefact = deployed("fastgrnn")
    text = "alpha beta gamma"
    case = Case(Shipped(artefact).open(text), None, 0)
    rng = np.random.default_rng(0)
    whole = evidence(logits_of(artefact, text)[None], 0)[0]
    unknown = evidence(case.shipped.logits(np.zeros((1, 3), bool), "occlude"), 0)[0]
    assert Occlusion(window=3)(case, rng) == pytest.approx([whole - unknown] * 3)
    lost = [
        whole - evidence(logits_of(artefact, left)[None], 0)[0] for left in ("beta gamma", "alpha gamma", "alpha beta")
    ]
    assert LeaveOneOut()(case, rng) == pytest.approx(lost)


@pytest.mark.parametrize("name", ["fastgrnn", "prado", "hashed"])
def test_integrated_gradients_of_every_kind_of_model_are_complete(name: str) -> None:
    model, _ = deployed(name)
    cut = Cut(model).open("alpha beta gamma no way home,")
    total = Integrated(steps=200)(Case(cut, cut, 2), np.random.default_rng(0)).sum()
    ends = evidence(cut.logits(np.array([[True] * 6, [False] * 6]), "occlude"), 2)
    # PRADO's ReLUs put corners into the path, where quadrature is no longer exact.
    assert total == pytest.approx(ends[0] - ends[1], abs=2e-2 * max(1.0, abs(ends[0] - ends[1])))


# --- scores of shipped models ----------------------------------------------------------------------------------


def speaker(name: str, methods: tuple[str, ...] = ()) -> Speaker:
    model, artefact = deployed(name)
    return Speaker(name, artefact.digest, Shipped(artefact), Cut(model), survey.chosen(methods), 0)


@pytest.mark.parametrize("name", ["student", "prado", "hashed"])
def test_faithfulness_is_of_the_bytes(name: str) -> None:
    _, artefact = deployed(name)
    text = "alpha it's no way home, café"
    judge = Faithfulness(Shipped(artefact).open(text))
    logits = logits_of(artefact, text)[None]
    assert judge.label == int(logits.argmax()) and judge.whole == float(probability(logits, judge.label)[0])
    attribution = np.array([0.3, -1, 2, 0, 0.1, 5])
    order = order_of(attribution).tolist()
    assert order == [5, 2, 0, 4, 3, 1]
    drops = []
    for k in range(1, 7):
        left = " ".join(word for at, word in enumerate(text.split()) if at not in order[:k])
        drops.append(judge.whole - probability(logits_of(artefact, left)[None], judge.label)[0])
    assert judge.scores(attribution).aopc == pytest.approx(np.mean(drops))


def test_the_best_order_that_was_found_is_reached_by_some_attribution() -> None:
    """Normalised 1 is no empty promise: an attribution with the bound's own order has it."""
    _, artefact = deployed("fastgrnn")
    subject = Shipped(artefact).open("alpha beta gamma delta no way")
    judge = Faithfulness(subject)
    best: tuple[float, tuple[int, ...]] = (-np.inf, ())
    sets = {}
    every = (np.arange(64)[:, None] >> np.arange(6) & 1).astype(bool)
    p = probability(subject.logits(~every, "delete"), judge.label)
    for place, row in enumerate(every):
        sets[frozenset(np.flatnonzero(row).tolist())] = judge.whole - p[place]
    for order in itertools.permutations(range(6)):
        best = max(best, (sum(sets[frozenset(order[:k])] for k in range(1, 7)) / 6, order))
    attribution = np.zeros(6)
    attribution[list(best[1])] = np.arange(6, 0, -1)
    assert judge.scores(attribution).normalised == pytest.approx(1.0)
    assert judge.bounds.high == pytest.approx(best[0])


def test_every_model_of_the_house_is_surveyed_from_end_to_end() -> None:
    texts = ["alpha beta gamma no", "(now) it's delta way home,"]
    student, teacher = speaker("student", ("integrated", "occlusion")), speaker("fastgrnn", ("integrated", "occlusion"))

    def silent(stage: str, done: float, total: float) -> None:
        assert done <= total

    faithful, exact, by_text = survey.faithfulness(student, texts, silent)
    assert len(by_text) == 2 and None not in by_text
    assert exact == 2 and [part.explainer for part in faithful] == ["integrated"] * 2 + ["occlusion"] * 2 + [RANDOM]
    loyal, _ = survey.loyalty(student, teacher, speaker("prado", ("integrated", "occlusion")), texts, silent)
    assert {part.who for part in loyal} <= {"student", "ceiling", "floor"} and loyal
    examples = [Example("a" * 16, texts[0], 0)]
    outcome = Outcome("a" * 16, "survived", (Edit("replace", 1, "delta"),))
    (one, two) = survey.under_attack(student, examples, {"a": [outcome]}, silent)
    assert (one.explainer, two.explainer) == ("integrated", "occlusion") and one.aimed.n == 0
    assert next(changed(examples, [outcome])).text == "alpha delta gamma no"


def test_masks_come_with_gradients_and_not_without() -> None:
    found = speaker("student").masks("alpha beta gamma", 0)
    assert found is not None and set(found) == {"preserve", "promote", "attack"}
    assert all(len(kept) == 3 for kept in found.values())
    _, artefact = deployed("student")
    asked = Speaker("asked", "", Shipped(artefact), None, survey.chosen((), gradients=False), 0)
    assert asked.masks("alpha beta gamma", 0) is None


def test_an_explainer_asks_the_bytes_and_the_floats_only_where_it_says_so() -> None:
    """With a float model that is another one, explainers without gradients do not notice."""
    _, artefact = deployed("student")
    other, _ = deployed("fastgrnn")
    text = "alpha beta no way"
    subject = Shipped(artefact).open(text)
    for name, explainer in EXPLAINERS.items():
        if not explainer.needs_gradients:
            beside = explainer(Case(subject, Cut(other).open(text), 0), np.random.default_rng(0))
            assert (explainer(Case(subject, None, 0), np.random.default_rng(0)) == beside).all(), name


# --- what the room costs those who do not use it ----------------------------------------------------------------


def test_boards_read_scores_without_torch() -> None:
    code = (
        "import sys\n"
        "import grit.bench.explain.scores, grit.bench.explain.show, grit.bench.explain.survey\n"
        "print([name for name in ('torch', 'scipy', 'nltk', 'onnxruntime', 'rich', 'captum') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "[]", ran.stderr


def test_captum_is_the_tests_and_never_the_engines() -> None:
    folder = Path(__file__).resolve().parent.parent / "bench"
    assert not [file for file in folder.rglob("*.py") if "import captum" in file.read_text(encoding="utf-8")]
