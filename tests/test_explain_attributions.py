"""Attributions: against the plain definition, against captum where it is installed, and against the axioms."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grit.bench.explain import texts
from grit.bench.explain.cut import CutText
from grit.bench.explain.explainers import (
    EXPLAINERS,
    Case,
    Explainer,
    Gradient,
    Integrated,
    LeaveOneOut,
    Occlusion,
    Shapley,
)
from grit.bench.explain.texts import Told, cutting, sequences
from grit.bench.types import CouldNotMeasure, UsageError

sys.path.append(str(Path(__file__).parent))

from explained_models import WORDS, Bigrams, Bumpy, Linear, Saturated, Words, evidence_of, logits_of, opened

TEXT = "a very good film, not bad."  # six words between blanks, eight tokens
SHORT = "good film, not bad."
SENTENCES = st.lists(st.sampled_from([*WORDS, "good,bad", "unheard"]), min_size=1, max_size=7).map(" ".join)
MODELS = st.builds(Bumpy, st.integers(0, 50)) | st.builds(Saturated, st.integers(0, 50))


def said(explainer: Explainer, model: Any, text: str, label: int = 0, seed: int = 0) -> np.ndarray:
    """The attribution of a text of the float model, which is asked as well."""
    cut = opened(model, text)
    return explainer(Case(cut, cut, label), np.random.default_rng(seed))


# --- words, tokens, hiding -------------------------------------------------------------------------------


def test_every_token_belongs_to_the_word_it_stands_in() -> None:
    cut = cutting("  a very\tgood film, not bad. ", Words().tokenize, True)
    assert cut.words == ("a", "very", "good", "film,", "not", "bad.")
    assert cut.tokens == ("a", "very", "good", "film", ",", "not", "bad", ".")
    assert cut.owner.tolist() == [0, 1, 2, 3, 3, 4, 5, 5]


def test_a_token_that_spans_words_belongs_to_the_last_of_them() -> None:
    cut = cutting("good film, bad", Bigrams().tokenize, False)
    assert cut.tokens == ("good", "film", "good film", ",", "film ,", "bad", ", bad")
    assert cut.owner.tolist() == [0, 1, 1, 1, 1, 2, 2]


def test_a_tokenizer_that_looks_ahead_is_refused_with_a_remedy() -> None:
    with pytest.raises(CouldNotMeasure, match=r"looks ahead.*module:callable"):
        cutting("one two three", lambda text: [f"{len(text.split())} words", *text.split()], False)


@pytest.mark.parametrize("text", ["", "   ", "\t\n"])
def test_an_empty_text_has_no_words_and_reads_as_one_unknown_word(text: str) -> None:
    model = Bumpy()
    for name, explainer in EXPLAINERS.items():
        assert said(explainer, model, text).shape == (0,), name
    cut = opened(model, text)
    for hide in ("delete", "occlude"):
        assert cut.logits(np.ones((2, 0), bool), hide) == pytest.approx(np.tile(logits_of(model, [""]), (2, 1)))


@given(SENTENCES, st.integers(0, 1000))
@settings(max_examples=25)
def test_hidden_words_are_read_as_the_definition_says(text: str, seed: int) -> None:
    """Deleting is another text; occluding writes the unknown word over every token of the word."""
    model = Bumpy(3)
    cut = cutting(text, model.tokenize, True)
    kept = np.random.default_rng(seed).random((4, len(cut.words))) < 0.5
    found = {hide: opened(model, text).logits(kept, hide) for hide in ("delete", "occlude")}
    for row, keeps in enumerate(kept):
        left = " ".join(word for word, stays in zip(cut.words, keeps, strict=True) if stays)
        assert found["delete"][row] == pytest.approx(logits_of(model, model.tokenize(left)))
        blanked = [token if keeps[owner] else "" for token, owner in zip(cut.tokens, cut.owner, strict=True)]
        assert found["occlude"][row] == pytest.approx(logits_of(model, blanked))


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join), st.integers(0, 1000))
@settings(max_examples=25)
def test_a_model_that_looks_across_blanks_reads_what_is_left_anew(text: str, seed: int) -> None:
    model = Bigrams(1)
    words = text.split()
    kept = np.random.default_rng(seed).random((3, len(words))) < 0.6
    found = opened(model, text).logits(kept, "delete")
    for row, keeps in enumerate(kept):
        left = " ".join(word for word, stays in zip(words, keeps, strict=True) if stays)
        assert found[row] == pytest.approx(logits_of(model, model.tokenize(left)))


def test_what_lies_beyond_the_last_token_read_comes_into_sight_when_words_are_deleted() -> None:
    model = Bumpy(max_tokens=3)
    text = "good bad film plot"
    kept = np.array([[True] * 4, [True, False, True, True]])
    found = opened(model, text).logits(kept, "delete")
    assert found[0] == pytest.approx(logits_of(model, ["good", "bad", "film"]))
    assert found[1] == pytest.approx(logits_of(model, ["good", "film", "plot"]))
    for name in ("gradient", "integrated", "occlusion", "shapley"):
        assert said(EXPLAINERS[name], model, text)[3] == pytest.approx(0), name


@given(SENTENCES, st.integers(0, 100), st.integers(1, 9))
def test_sequences_never_read_more_than_the_limit_and_always_something(text: str, seed: int, limit: int) -> None:
    cut = cutting(text, Words().tokenize, True)
    kept = np.random.default_rng(seed).random((5, len(cut.words))) < 0.4
    for hide in ("delete", "occlude"):
        places, lengths = sequences(cut, kept, hide, limit)
        assert places.shape[0] == 5 and places.shape[1] <= limit
        assert (lengths >= 1).all() and (lengths <= places.shape[1]).all()
        for row, length, keeps in zip(places, lengths, kept, strict=True):
            shown = [place for place in row[:length] if place >= 0]
            assert shown == sorted(shown) and all(keeps[cut.owner[place]] for place in shown)


def test_a_function_of_texts_is_shown_texts() -> None:
    shown: list[str] = []

    def logits(asked: Any) -> np.ndarray:
        shown.extend(asked)
        return np.zeros((len(asked), 2))

    subject = Told(logits).open("one  two three")
    assert subject.words == ("one", "two", "three")
    kept = np.array([[True, False, True], [False, False, False]])
    assert subject.logits(kept, "delete").shape == (2, 2) and shown == ["one three", ""]
    shown.clear()
    subject.logits(kept, "occlude")
    assert shown == ["one [UNK] three", "[UNK] [UNK] [UNK]"]


def test_evidence_is_blind_to_a_shift_and_half_the_log_odds_of_two() -> None:
    logits = np.array([[2.0, 0.5], [-1.0, 3.0]])
    assert texts.evidence(logits, 0) == pytest.approx(texts.evidence(logits + 7, 0))
    p = texts.probability(logits, 0)
    assert texts.evidence(logits, 0) == pytest.approx(np.log(p / (1 - p)) / 2)
    assert texts.probability(np.array([[1000.0, 0.0]]), 0) == pytest.approx([1.0])


# --- against the plain definition ----------------------------------------------------------------------


def by_hand(cut: CutText, values: torch.Tensor) -> np.ndarray:
    sums = np.zeros(len(cut.words))
    for owner, value in zip(cut.owner.tolist(), values.tolist(), strict=True):
        sums[owner] += value
    return sums


def slopes(cut: CutText, features: torch.Tensor, label: int) -> torch.Tensor:
    """Of the evidence, by central differences: [seq feat]."""
    found = torch.zeros_like(features)
    step = 1e-5
    for place, feature in itertools.product(*map(range, features.shape)):
        up, down = features.clone(), features.clone()
        up[place, feature] += step
        down[place, feature] -= step
        both = cut.evidence(torch.stack([up, down]), label)
        found[place, feature] = (both[0] - both[1]) / (2 * step)
    return found


@pytest.mark.parametrize("model", [Linear(2), Bumpy(1), Bigrams(2)], ids=lambda model: type(model).__name__)
def test_gradient_times_input_is_the_slope_times_the_features(model: Any) -> None:
    cut = opened(model, TEXT)
    expected = by_hand(cut, (slopes(cut, cut.features, 1) * cut.features).sum(-1))
    assert said(Gradient(), model, TEXT, 1) == pytest.approx(expected, abs=1e-7)


def test_integrated_gradients_is_the_path_integral() -> None:
    model = Bumpy(5)
    cut = opened(model, TEXT)
    total = torch.zeros_like(cut.features)
    for step in range(40):
        here = cut.blank + (step + 0.5) / 40 * (cut.features - cut.blank)
        total += slopes(cut, here, 2) / 40
    expected = by_hand(cut, (total * (cut.features - cut.blank)).sum(-1))
    assert said(Integrated(), model, TEXT, 2) == pytest.approx(expected, abs=1e-3)


def test_leave_one_out_is_the_evidence_lost_with_the_word() -> None:
    model = Bumpy(7)
    words = TEXT.split()
    whole = evidence_of(model, model.tokenize(TEXT), 1)
    expected = [
        whole - evidence_of(model, model.tokenize(" ".join(words[:at] + words[at + 1 :])), 1)
        for at in range(len(words))
    ]
    assert said(LeaveOneOut(), model, TEXT, 1) == pytest.approx(expected)


@pytest.mark.parametrize("window", [1, 2, 3, 6, 9])
def test_occlusion_is_the_mean_over_the_windows_that_hold_the_word(window: int) -> None:
    model = Bumpy(8)
    cut = cutting(TEXT, model.tokenize, True)
    n, width = len(cut.words), min(window, len(cut.words))
    whole = evidence_of(model, cut.tokens, 0)
    sums, counts = np.zeros(n), np.zeros(n)
    for start in range(n - width + 1):
        hidden = range(start, start + width)
        tokens = ["" if owner in hidden else token for token, owner in zip(cut.tokens, cut.owner, strict=True)]
        lost = whole - evidence_of(model, tokens, 0)
        for word in hidden:
            sums[word] += lost
            counts[word] += 1
    assert said(Occlusion(window), model, TEXT) == pytest.approx(sums / counts)


def exact_shapley(model: Any, text: str, label: int) -> np.ndarray:
    """The weighted sum over all coalitions (Shapley 1953), nothing drawn."""
    cut = cutting(text, model.tokenize, model.separable)
    n = len(cut.words)

    def value(members: frozenset[int]) -> float:
        return evidence_of(
            model, [t if o in members else "" for t, o in zip(cut.tokens, cut.owner, strict=True)], label
        )

    found = np.zeros(n)
    for word in range(n):
        others = [other for other in range(n) if other != word]
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for chosen in itertools.combinations(others, size):
                members = frozenset(chosen)
                found[word] += weight * (value(members | {word}) - value(members))
    return found


def test_sampled_shapley_values_approach_the_exact_ones() -> None:
    model = Saturated(9)
    text = "not a very dull plot"
    exact = exact_shapley(model, text, 0)
    errors = [np.abs(said(Shapley(orders), model, text) - exact).max() for orders in (4, 64, 2048)]
    assert errors[2] < 0.02 * np.abs(exact).max() and errors[2] < errors[0]


def test_an_order_and_its_reverse_are_enough_where_words_meet_in_pairs_alone() -> None:
    model = Bumpy(9)
    exact = exact_shapley(model, "not a very dull plot", 0)
    assert said(Shapley(orders=2), model, "not a very dull plot") == pytest.approx(exact)


def test_of_a_linear_model_all_that_share_a_baseline_say_the_same() -> None:
    model = Linear(4)
    cut = opened(model, TEXT)
    weights = model.out.double() - model.out.double().mean(0)
    expected = by_hand(cut, (cut.features - cut.blank) @ weights[2].detach())
    for explainer in (Integrated(steps=1), Occlusion(), Shapley(orders=2)):
        assert said(explainer, model, TEXT, 2) == pytest.approx(expected), explainer
    expected = by_hand(cut, cut.features @ weights[2].detach())
    assert said(Gradient(), model, TEXT, 2) == pytest.approx(expected)
    assert said(LeaveOneOut(), model, TEXT, 2) == pytest.approx(expected)


# --- against captum ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def captum() -> Any:
    """captum.attr; skips, with the reason, where it is not installed."""
    return pytest.importorskip("captum.attr", reason="captum is not installed: pip install 'gritbench[explain]'")


@pytest.mark.parametrize(
    ("model", "label"), [(Bumpy(1), 0), (Saturated(11), 2), (Bigrams(3), 1)], ids=["1", "11", "bigrams"]
)
def test_captum_says_the_same(captum: Any, model: Any, label: int) -> None:
    cut = opened(model, SHORT)
    inputs, blank = cut.features[None], cut.blank.expand(1, *cut.features.shape).contiguous()

    def evidence(features: torch.Tensor) -> torch.Tensor:
        return cut.evidence(features, label)

    theirs = captum.InputXGradient(evidence).attribute(inputs.clone().requires_grad_())
    assert said(Gradient(), model, SHORT, label) == pytest.approx(by_hand(cut, theirs[0].detach().sum(-1)))
    theirs = captum.IntegratedGradients(evidence).attribute(inputs, blank, n_steps=50, method="gausslegendre")
    assert said(Integrated(), model, SHORT, label) == pytest.approx(by_hand(cut, theirs[0].sum(-1)))
    # What captum calls a feature is a word here.
    words = torch.from_numpy(cut.owner)[None, :, None].expand(inputs.shape).contiguous()
    firsts = [int((cut.owner == word).argmax()) for word in range(len(cut.words))]
    theirs = captum.FeatureAblation(evidence).attribute(inputs, blank, feature_mask=words)[0, :, 0]
    assert said(Occlusion(), model, SHORT, label) == pytest.approx(theirs[firsts].numpy())
    theirs = captum.ShapleyValues(evidence).attribute(inputs, blank, feature_mask=words)[0, :, 0]
    assert exact_shapley(model, SHORT, label) == pytest.approx(theirs[firsts].numpy(), abs=1e-5)  # it adds in floats


def test_captum_slides_the_same_window(captum: Any) -> None:
    model = Bumpy(6)
    text = "not a very dull plot"  # a token a word
    cut = opened(model, text)
    width = cut.features.shape[1]
    theirs = captum.Occlusion(lambda features: cut.evidence(features, 1)).attribute(
        cut.features[None], (2, width), baselines=cut.blank.expand(1, *cut.features.shape)
    )
    assert said(Occlusion(window=2), model, text, 1) == pytest.approx(theirs[0, :, 0].numpy())


# --- axioms ------------------------------------------------------------------------------------------------


def difference(model: Any, text: str, label: int) -> float:
    """Evidence of the text minus evidence of the text all unknown."""
    n = len(text.split())
    found = texts.evidence(opened(model, text).logits(np.array([[True] * n, [False] * n]), "occlude"), label)
    return float(found[0] - found[1])


@given(SENTENCES, MODELS, st.integers(0, 2), st.integers(0, 99))
@settings(max_examples=25)
def test_completeness_of_shapley_values_whatever_is_drawn(text: str, model: Any, label: int, seed: int) -> None:
    total = said(Shapley(orders=2), model, text, label, seed).sum()
    assert total == pytest.approx(difference(model, text, label), abs=1e-9)


@given(SENTENCES, MODELS, st.integers(0, 2))
@settings(max_examples=25)
def test_completeness_of_integrated_gradients(text: str, model: Any, label: int) -> None:
    total = said(Integrated(), model, text, label).sum()
    assert total == pytest.approx(difference(model, text, label), abs=1e-4)


@given(SENTENCES, MODELS, st.data())
@settings(max_examples=25)
def test_sensitivity_one_word_that_differs_from_the_baseline_has_all_of_the_difference(
    text: str, model: Any, data: st.DataObject
) -> None:
    words = text.split()
    place = data.draw(st.integers(0, len(words) - 1))
    text = " ".join(word if at == place else "unheard" for at, word in enumerate(words))
    for name in ("integrated", "occlusion", "shapley"):
        found = said(EXPLAINERS[name], model, text)
        assert found[place] == pytest.approx(difference(model, text, 0), abs=1e-4), name
        assert np.delete(found, place) == pytest.approx(0, abs=1e-9), name


@given(SENTENCES, MODELS, st.sampled_from(WORDS))
@settings(max_examples=25)
def test_a_word_that_the_model_does_not_read_gets_nothing(text: str, model: Any, deaf: str) -> None:
    with torch.no_grad():
        model.table[WORDS.index(deaf) + 1] = model.table[0]
    words = text.split()
    for name in ("integrated", "occlusion", "shapley"):
        found = said(EXPLAINERS[name], model, text)
        assert found[[at for at, word in enumerate(words) if word == deaf]] == pytest.approx(0, abs=1e-9), name


@given(SENTENCES, st.tuples(st.integers(0, 50), st.integers(0, 50)))
@settings(max_examples=10)
def test_linearity_the_reasons_of_a_sum_are_the_sum_of_reasons(text: str, seeds: tuple[int, int]) -> None:
    """Two heads over one body."""
    one, other, both = Bumpy(seeds[0]).double(), Bumpy(seeds[1]).double(), Bumpy().double()
    with torch.no_grad():
        other.table.copy_(one.table)
        both.table.copy_(one.table)
        both.out.copy_(one.out + other.out)
    for name, explainer in EXPLAINERS.items():
        parts = said(explainer, one, text, 1, 5) + said(explainer, other, text, 1, 5)
        assert said(explainer, both, text, 1, 5) == pytest.approx(parts, abs=1e-8), name


@given(st.lists(st.sampled_from(WORDS), min_size=2, max_size=6), st.integers(0, 20))
@settings(max_examples=25)
def test_symmetry_words_that_do_the_same_get_the_same(words: list[str], seed: int) -> None:
    model = Linear(seed)
    found = {name: said(explainer, model, " ".join(words)) for name, explainer in EXPLAINERS.items()}
    for first, second in itertools.combinations(range(len(words)), 2):
        if words[first] == words[second]:
            for name, values in found.items():
                assert values[first] == pytest.approx(values[second], abs=1e-9), name


@given(SENTENCES, MODELS)
@settings(max_examples=25)
def test_of_two_classes_the_reasons_for_one_are_those_against_the_other(text: str, model: Any) -> None:
    with torch.no_grad():
        model.out = torch.nn.Parameter(model.out[:2])
    model.classes = 2
    for name, explainer in EXPLAINERS.items():
        assert said(explainer, model, text, 0) == pytest.approx(-said(explainer, model, text, 1), abs=1e-9), name


# --- settings -----------------------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_orders() -> None:
    one, same, other = (said(Shapley(orders=4), Bumpy(2), TEXT, seed=seed) for seed in (1, 1, 2))
    assert (one == same).all() and (one != other).any()


@pytest.mark.parametrize("orders", [0, 1, 3, -2])
def test_orders_come_in_pairs(orders: int) -> None:
    with pytest.raises(UsageError, match="even number"):
        Shapley(orders=orders)


def test_a_model_without_gradients_says_which_explainers_are_left() -> None:
    case = Case(opened(Bumpy(), TEXT), None, 0)
    with pytest.raises(UsageError, match="leave_one_out, occlusion, shapley"):
        Integrated()(case, np.random.default_rng(0))
    for name, explainer in EXPLAINERS.items():
        if not explainer.needs_gradients:
            assert explainer(case, np.random.default_rng(0)).shape == (6,), name


def test_an_explainer_is_a_value_that_can_be_pasted_back() -> None:
    for explainer in EXPLAINERS.values():
        assert eval(repr(explainer)) == explainer
