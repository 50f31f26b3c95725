"""First-order gains: against slopes measured by finite differences, at places that all have slopes of their own."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grit.bench import twin
from grit.bench.sentence import Text, composed
from grit.bench.text import tokenize
from grit.bench.twin import Twin
from grit.bench.types import Edit, Gain, Grid, Reading, Script, Threat
from grit.models.hashed import Hashed

ANY = Threat(spaces=("any",), max_words=1.0, protect_stop_words=False)
WORDS = ("good", "bad", "film", "a", "not", "plot", "very", "dull", "re", "do", "-", ",", "'", "(", ")", ".")


class Bumpy(torch.nn.Module):
    """Each place weighs otherwise and bends its features, and neighbours multiply: no two places share a slope."""

    def __init__(self, separable: bool = True, max_tokens: int = 64, classes: int = 3) -> None:
        super().__init__()
        self.separable = separable
        self.max_tokens = max_tokens
        generator = torch.Generator().manual_seed(4)
        self.table = torch.nn.Parameter(torch.randn(len(WORDS) + 1, 3, generator=generator))
        self.out = torch.nn.Parameter(torch.randn(classes, 3, generator=generator))

    def tokenize(self, text: str) -> list[str]:
        return tokenize(text)

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        return np.array([WORDS.index(token) + 1 if token in WORDS else 0 for token in tokens], np.int64)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(codes, self.table)

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        place = torch.arange(features.shape[1])
        real = torch.where((place < lengths[:, None])[:, :, None], features, 0.0)
        weight = 1 + torch.cos(place.to(features.dtype) * 1.7)[:, None] / 2
        pairs = real[:, 1:] * real[:, :-1] if features.shape[1] > 1 else real[:, :0]
        return Reading(features, (weight * torch.tanh(real)).sum(1) + 0.3 * pairs.sum(1))

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return state @ self.out.T

    def program(self) -> None:
        return None


BUMPY: Any = Bumpy().double().eval()


def rows_of(tokens: Sequence[str]) -> torch.Tensor:
    return BUMPY.features(torch.from_numpy(BUMPY.codes(list(tokens)))[None])[0].detach()


@functools.cache
def slopes_of(tokens: tuple[str, ...], label: int) -> np.ndarray:
    """d margin / d feature by central differences, the same for every Bumpy: [seq feat]."""
    rows = rows_of(tokens)

    def margin(x: torch.Tensor) -> float:
        with torch.no_grad():
            logits = BUMPY.head(BUMPY.read(x[None], torch.tensor([len(x)])).state)[0].tolist()
        return max(logit for k, logit in enumerate(logits) if k != label) - logits[label]

    found = np.zeros(rows.shape)
    for place in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            step = torch.zeros_like(rows)
            step[place, k] = 1e-5
            found[place, k] = (margin(rows + step) - margin(rows - step)) / 2e-5
    return found


def cut(text: Text, span: tuple[int, int], script: Script) -> list[str]:
    """The tokens of a span under a script; between two segments stands the unknown word."""
    first, *others = text.segments(*span, script)
    return [*tokenize(first), *(token for other in others for token in ["", *tokenize(other)])]


def plain(model: Any, text: Text, base: Script, edit: Edit, label: int) -> float:
    """The rule of the twin's first page for one edit, in the plainest words that it can be said in."""
    spans = text.piece_spans if model.separable else ((0, len(text.text)),)
    where = text.piece_of if model.separable else lambda index: 0
    here = where(edit.index)
    pieces = [cut(text, span, tuple(e for e in base if where(e.index) == k)) for k, span in enumerate(spans)]
    tokens = [token for piece in pieces for token in piece]
    start = sum(map(len, pieces[:here]))
    old = pieces[here]
    new = cut(text, spans[here], composed(tuple(e for e in base if where(e.index) == here), edit))
    if len(tokens) == len(old):  # the piece is all there is: without tokens it reads as one unknown word
        old, new, tokens = old or [""], new or [""], tokens or [""]
    tokens = tokens[: model.max_tokens]
    slopes, now = slopes_of(tuple(tokens), label), rows_of(tokens).numpy()
    head = tail = 0
    if len(old) != len(new):
        while head < min(len(old), len(new)) and old[head] == new[head]:
            head += 1
        while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
            tail += 1
    gone = list(range(start + head, start + len(old) - tail))
    came = new[head : len(new) - tail]
    total = -sum(slopes[place] @ now[place] for place in gone if place < len(tokens))
    for k, token in enumerate(came):
        if k < len(gone):
            places = [gone[k]]
        else:  # no place of its own: the mean of those that changed, or of the two it stands between
            places = gone or [place for place in (start + head - 1, start + head) if place >= 0]
            places = [place for place in places if place < len(tokens)]
        for place in places:
            if place < len(tokens):
                total += slopes[place] @ rows_of([token])[0].numpy() / len(places)
    return float(total)


def drawn(rng: random.Random, longest: int = 7) -> Text:
    parts = (*WORDS[:10], "re-do", "(dull)", "film.", "zzz", "not,bad", ",")
    return Text(" ".join(rng.choice(parts) for _ in range(rng.randint(1, longest))), ANY)


def every_edit(text: Text, rng: random.Random) -> list[Edit]:
    written = ("bad", "re-do", "plot's", "zzz", "a-b-a", "good")
    edits = [Edit("replace", i, rng.choice(written)) for i in range(len(text.words)) for _ in range(2)]
    edits += [Edit("insert", i, rng.choice(written)) for i in range(len(text.words) + 1)]
    edits += [Edit("delete", i) for i in range(len(text.words))]
    return edits + [Edit("unknown", i) for i in range(len(text.words))]


def gains(model: Any, text: Text, question: Gain, label: int = 0) -> np.ndarray:
    return Twin(model).gains([(text, question, label)])[0]


# --- the formula ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separable", [True, False])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_every_kind_of_edit_gains_what_the_measured_slopes_say(separable: bool, seed: int) -> None:
    rng = random.Random(seed)
    model = Bumpy(separable)
    text, label = drawn(rng), rng.randrange(3)
    base: Script = ()
    if text.words and rng.random() < 0.6:
        base = (rng.choice([edit for edit in every_edit(text, rng) if edit.op != "insert"]),)
    edits = rng.sample(pool := every_edit(text, rng), min(8, len(pool)))
    found = gains(model, text, Gain(base, edits), label)
    for edit, gain in zip(edits, found, strict=True):
        assert gain == pytest.approx(plain(model, text, base, edit, label), rel=1e-5, abs=1e-6), (base, edit)


@given(seed=st.integers(0, 10**6), limit=st.integers(1, 5))
@settings(max_examples=20)
def test_what_lies_beyond_the_last_token_is_not_read(seed: int, limit: int) -> None:
    rng = random.Random(seed)
    model = Bumpy(max_tokens=limit)
    text = drawn(rng)
    edits = rng.sample(pool := every_edit(text, rng), min(6, len(pool)))
    for edit, gain in zip(edits, gains(model, text, Gain((), edits), 1), strict=True):
        assert gain == pytest.approx(plain(model, text, (), edit, 1), rel=1e-5, abs=1e-6), edit


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_a_token_for_a_token_is_the_product_of_slope_and_change(seed: int) -> None:
    """Not aligned: word ``index`` is token ``index``; of several tokens written, the features add up."""
    rng = random.Random(seed)
    model, text = Bumpy(), drawn(rng)
    words = ("bad", "re-do", "film", "not-re", "zzz", "good")
    edits = [Edit("replace", i, rng.choice(words)) for i in range(len(text.words))]
    tokens = tokenize(text.text)
    slopes, now = slopes_of(tuple(tokens), 2), rows_of(tokens).numpy()
    for edit, gain in zip(edits, gains(model, text, Gain((), edits, aligned=False), 2), strict=True):
        change = rows_of(tokenize(edit.word)).numpy().sum(0) - now[edit.index]
        assert gain == pytest.approx(slopes[edit.index] @ change, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("word", ["re-do", "do-re", "re-do-re", "re", "do"])
@pytest.mark.parametrize("raw", ["re", "do re film", "a re", "re re do"])
def test_a_grid_is_its_list_also_where_a_word_begins_or_ends_as_the_old_token(raw: str, word: str) -> None:
    model, text = Bumpy(), Text(raw, ANY)
    grid = Grid(range(len(text.words)), (word, "bad"))
    as_list = gains(model, text, Gain((), list(grid), aligned=False), 1)
    assert gains(model, text, Gain((), grid, aligned=False), 1) == pytest.approx(as_list, rel=1e-8, abs=1e-12)


def test_a_twin_knows_the_words_of_its_model() -> None:
    model = Bumpy()
    model.vocabulary = ("", "good", "bad")  # type: ignore[assignment]  # it hashes, and has ()
    assert Twin(model).vocabulary == ("good", "bad")


def test_an_aligned_grid_is_its_list_too() -> None:
    text = Text("re-do the film, (dull) not bad", ANY)
    grid = Grid((4, 0, 2), ("good", "re-do", "zzz"))
    assert gains(Bumpy(), text, Gain((), grid)).tolist() == gains(Bumpy(), text, Gain((), list(grid))).tolist()


def test_grids_of_other_words_do_not_answer_for_each_other() -> None:
    text, one, other = Text("good film a plot", ANY), Grid((0, 2), ("bad", "dull")), Grid((0, 2), ("not", "very"))
    asked = [(text, Gain((), grid, aligned=False), 1) for grid in (one, other, one)]
    first, second, third = Twin(Bumpy()).gains(asked)
    assert first.tolist() == third.tolist() != second.tolist()
    assert second == pytest.approx(gains(Bumpy(), text, Gain((), list(other), aligned=False), 1), rel=1e-8)


# --- what must not matter ---------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_the_order_of_edits_and_of_questions_does_not_matter(seed: int) -> None:
    """Edits of one word are answered together; strewn among others they are answered alike."""
    rng = random.Random(seed)
    model, texts = Bumpy(), [drawn(rng) for _ in range(4)]
    asked = [(text, Gain((), every_edit(text, rng)), rng.randrange(3)) for text in texts]
    found = Twin(model, texts=3).gains(asked)
    shuffled = []
    for text, question, label in asked:
        order = rng.sample(range(len(question.edits)), len(question.edits))
        shuffled.append((order, (text, Gain((), [question.edits[k] for k in order]), label)))
    again = Twin(model, texts=2).gains([each for _, each in reversed(shuffled)])[::-1]
    for (order, _), one, other in zip(shuffled, found, again, strict=True):
        assert one[order].tolist() == other.tolist()


def test_small_memories_change_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    asked = [(text := drawn(rng), Gain((), every_edit(text, rng)), rng.randrange(3)) for _ in range(6)]
    before = Twin(Bumpy()).gains(asked)
    for name, size in (("_REMEMBERED_STRINGS", 1), ("_TOKENS", 2), ("_PAIRS", 3)):
        monkeypatch.setattr(twin, name, size)
    after = Twin(Bumpy()).gains(asked)
    assert [one.tolist() for one in before] == [one.tolist() for one in after]


def test_training_on_does_not_move_the_twin() -> None:
    model, text = Bumpy(), Text("good film", ANY)
    double, question = Twin(model), Gain((), (Edit("replace", 0, "bad"),))
    before = double.gains([(text, question, 0)])[0].tolist()
    with torch.no_grad():
        model.table.mul_(3)
    assert double.gains([(text, question, 0)])[0].tolist() == before != gains(model, text, question).tolist()


def test_writing_what_stands_there_gains_nothing() -> None:
    text = Text("Good film, a plot", ANY)
    edits = [Edit("replace", 0, "good"), Edit("replace", 1, "FILM"), Edit("replace", 3, "plot")]
    for aligned in (True, False):
        assert gains(Bumpy(), text, Gain((), edits[:1] if not aligned else edits, aligned=aligned)).tolist() == [
            0.0
        ] * (3 if aligned else 1)


def test_a_base_is_read_before_the_edit_comes() -> None:
    """The gain over a changed text is that of the text that the change makes."""
    model = Bumpy()
    changed, made = Text("good film a plot", ANY), Text("good dull a plot", ANY)
    edits = [Edit("replace", i, "very") for i in (0, 2, 3)]
    over = gains(model, changed, Gain((Edit("replace", 1, "dull"),), edits), 2)
    assert over.tolist() == gains(model, made, Gain((), edits), 2).tolist()
    again = gains(model, changed, Gain((Edit("replace", 1, "dull"),), [Edit("replace", 1, "very")]), 2)
    assert again.tolist() == gains(model, made, Gain((), [Edit("replace", 1, "very")]), 2).tolist()


# --- nine digits ------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.integers(-150, 150))
def test_rounding_keeps_nine_digits_of_the_largest_at_any_scale(values: list[float], exponent: int) -> None:
    given_ = np.array(values) * 2.0**exponent
    found = twin._rounded(given_)
    largest = np.abs(given_).max()
    assert (np.abs(found - given_) <= max(0.51e-8 * largest, 0.51e-300)).all()  # nothing finer than 1e-300
    assert np.array_equal(twin._rounded(found), found) or np.abs(twin._rounded(found) - found).max() <= 1e-15 * largest


@pytest.mark.parametrize("size", [1e300, 1e-290, 1e-300, 1e-307, 1e-310, 5e-324, 0.0])
def test_the_smallest_and_largest_slopes_are_numbers(size: float) -> None:
    """A gate that is nearly shut leaves the first words of a long text slopes that no power of ten can raise."""
    found = twin._rounded(np.array([size, -size, 0.0]))
    assert np.isfinite(found).all() and found[2] == 0
    assert (np.abs(found) <= size * 1.01).all() and found[0] == -found[1]


def test_gains_of_nothing_are_nothing() -> None:
    assert twin._rounded(np.zeros(0)).shape == (0,)
    text = Text("good film", ANY)
    assert gains(Bumpy(), text, Gain((), Grid((), ("bad",)), aligned=False)).shape == (0,)
    assert gains(Bumpy(), text, Gain((), Grid((0, 1), ()))).shape == (0,)


# --- tokens that are n-grams -----------------------------------------------------------------------------


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("max_tokens", [255, 7])
@settings(max_examples=40)
@given(
    pieces=st.lists(st.sampled_from([*WORDS[:8], "not-bad", "(dull)", "film.", "", "!"]), max_size=9),
    seed=st.integers(0, 10**6),
)
def test_what_an_edit_of_ngrams_gains_is_the_same_to_the_bit_where_all_is_read(
    order: int, max_tokens: int, pieces: list[str], seed: int
) -> None:
    rng = random.Random(seed)
    model = Hashed.build(Hashed.Config(buckets=512, order=order, max_tokens=max_tokens), [], 3, 0)
    with torch.no_grad():
        model.rows.normal_(generator=torch.Generator().manual_seed(seed))
    text = Text(" ".join(pieces), ANY)
    base = tuple(
        Edit("replace", index, rng.choice((*WORDS[:8], "b-d"))) if rng.random() < 0.7 else Edit("delete", index)
        for index in range(len(text.words))
        if rng.random() < 0.3
    )
    edits = [
        Edit("replace", index, word)
        for index, own in enumerate(text.words)
        for word in (own, own.upper(), rng.choice(WORDS[:8]), "a-b", "plot's")
    ]
    edits += [Edit("delete", index) for index in range(len(text.words))]
    edits += [Edit("insert", index, "bad") for index in range(len(text.words) + 1)]
    windows, whole = Twin(model), Twin(model)
    assert windows._order == order
    whole._order = 0
    asked = [(text, Gain(base, edits), 1)]
    assert windows.gains(asked)[0].tolist() == whole.gains(asked)[0].tolist()
    with_unknown = [(text, Gain(base, [*edits, *(Edit("unknown", i) for i in range(len(text.words)))]), 1)]
    assert windows.gains(with_unknown)[0][: len(edits)] == pytest.approx(windows.gains(asked)[0], rel=1e-6, abs=1e-9)


def test_an_edit_of_ngrams_cuts_its_own_piece_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Hashed.build(Hashed.Config(buckets=64), [], 2, 0)
    text = Text("good film " * 100, ANY)
    edits = [Edit("replace", index, word) for index in range(0, 200, 5) for word in ("bad", "plot")]
    seen: list[str] = []
    monkeypatch.setattr(twin, "tokenize", lambda string: seen.append(string) or tokenize(string))
    Twin(model).gains([(text, Gain((), edits), 0)])
    assert max(map(len, seen)) == len("good") and len(seen) == len(text.pieces) + len(edits)
