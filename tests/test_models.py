"""The models: what holds for all six, then each against its paper's numbers."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from grit.bench import text
from grit.bench.types import AttentionPool, FastGrnn, Lstm, Mean, Program, Recipe, Rows
from grit.models import _vocabulary
from grit.models.bag import Bag
from grit.models.fastgrnn import FastGRNN, largest, run_cell
from grit.models.hashed import Hashed
from grit.models.prado import Prado
from grit.models.student import Student
from grit.models.teacher import Teacher
from grit.models.tfidf import TfIdf

TEXTS = (
    "The soup was warm and good, we came back twice.",
    "Cold soup, slow waiter; we never came back!",
    "I can't say it was bad, but it wasn't good either...",
    "A warm room and a good bed: we slept well",
    "The bed was cold and the room was bad, so we left",
    "Caf\u00e9 au lait \u2603 for two, twice",
)
CLASSES = 3
TOLERANCE = 1e-5  # of a logit in float32: batch size and padding choose among a library's kernels

EVERY: dict[str, tuple[Any, Any]] = {
    "student": (Student, Student.Config()),
    "teacher": (Teacher, Teacher.Config()),
    "fastgrnn": (FastGRNN, FastGRNN.Config()),
    "fastgrnn[low rank, sparse]": (
        FastGRNN,
        FastGRNN.Config(embedding=8, hidden=16, rank_w=3, rank_u=4, density_w=0.3, density_u=0.5),
    ),
    "prado": (Prado, Prado.Config()),
    "prado[all kernels]": (
        Prado,
        Prado.Config(48, 8, 3, 4, 5, fourgrams=2, fivegrams=3, skip_one_bigrams=4, skip_two_bigrams=2),
    ),
    "tfidf": (TfIdf, TfIdf.Config()),
    "bag": (Bag, Bag.Config()),
    "hashed": (Hashed, Hashed.Config(buckets=1024)),
}
every = pytest.mark.parametrize("name", EVERY)


def built(name: str, seed: int = 0, texts: Sequence[str] = TEXTS) -> Any:
    cls, config = EVERY[name]
    return cls.build(config, texts, CLASSES, seed)


def coded(model: Any, texts: Sequence[str], extra: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """codes [batch seq (feat)], padded by zeros and ``extra`` places more, and lengths [batch]."""
    codes = [model.codes((model.tokenize(raw) or [""])[: model.max_tokens]) for raw in texts]
    lengths = torch.tensor([len(one) for one in codes])
    padded = np.zeros((len(codes), int(lengths.max()) + extra, *codes[0].shape[1:]), codes[0].dtype)
    for row, one in zip(padded, codes, strict=True):
        row[: len(one)] = one
    return torch.from_numpy(padded), lengths


def exercised(name: str, steps: int = 6) -> Any:
    """A model a few training steps away from its first weights, in evaluation mode; deterministic."""
    model = built(name, seed=1)
    codes, lengths = coded(model, TEXTS)
    labels = torch.arange(len(TEXTS)) % CLASSES
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    for step in range(steps):
        optimiser.zero_grad()
        functional.cross_entropy(model(codes, lengths), labels).backward()
        optimiser.step()
        model.constrain((step + 1) / steps)
    return model.eval()


@functools.cache
def finished(name: str) -> Any:
    """The same, one for all tests that only read it."""
    return exercised(name)


# --- what holds for all -----------------------------------------------------------------------------


@every
def test_says_what_the_house_asks(name: str) -> None:
    model = built(name)
    cls = type(model)
    assert isinstance(cls.recipe, Recipe)
    assert isinstance(cls.separable, bool)
    assert dataclasses.is_dataclass(cls.Config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.config.max_tokens = 1
    assert eval(repr(model.config), {cls.__name__: cls}) == model.config  # its repr can be pasted back
    assert model.max_tokens == model.config.max_tokens
    assert model.classes == CLASSES
    assert model.vocabulary == () or model.vocabulary[0] == ""


@every
def test_a_seed_makes_the_weights_and_no_global_generator_is_read(name: str) -> None:
    before = torch.get_rng_state(), random.getstate()
    one, same, other = built(name, 3), built(name, 3), built(name, 4)
    one.train()(*coded(one, TEXTS))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    one, same, other = (dict(model.named_parameters()) for model in (one, same, other))
    assert all(torch.equal(weight, same[key]) for key, weight in one.items())
    if not name.startswith(("tfidf", "bag", "hashed")):  # convex: they start at zero
        assert not all(torch.equal(weight, other[key]) for key, weight in one.items())


@every
def test_tokens_cut_at_white_space_when_separable(name: str) -> None:
    model = built(name)
    left, right = "a good soup", "was cold!"
    together = model.tokenize(left + " " + right) == model.tokenize(left) + model.tokenize(right)
    assert together == model.separable


@every
def test_codes_have_one_row_a_token(name: str) -> None:
    model = built(name)
    tokens = ["soup", "never-seen", "", "\U0001f600"]
    codes = model.codes(tokens)
    assert len(codes) == 4
    assert codes.dtype.kind == "i"
    assert (model.codes(["soup"]) == codes[:1]).all()
    assert model.codes([]).shape == (0, *codes.shape[1:])
    if model.vocabulary:
        assert codes.tolist() == [model.vocabulary.index("soup"), 0, 0, 0]


@every
def test_shapes_of_a_reading(name: str) -> None:
    model = built(name).eval()
    codes, lengths = coded(model, TEXTS)
    features = model.features(codes)
    reading = model.read(features, lengths)
    assert features.shape[:2] == codes.shape[:2] == reading.words.shape[:2]
    assert features.dtype == torch.float32
    assert len(reading.state) == len(TEXTS)
    assert model.head(reading.state).shape == (len(TEXTS), CLASSES)
    assert reading.words.requires_grad  # objectives map it onto a teacher's


words = st.sampled_from("soup warm good cold bad we was the bed zzz , ! can't \u2603".split())
raw_texts = st.one_of(st.lists(words, max_size=30).map(" ".join), st.text(max_size=20))


@every
@settings(max_examples=15, deadline=None)
@given(texts=st.lists(raw_texts, min_size=1, max_size=6), extra=st.integers(0, 9))
def test_logits_do_not_depend_on_batch_or_padding(name: str, texts: list[str], extra: int) -> None:
    model = finished(name)
    with torch.no_grad():
        together = model(*coded(model, texts, extra))
        alone = torch.cat([model(*coded(model, [raw])) for raw in texts])
    assert together.isfinite().all()
    torch.testing.assert_close(together, alone, atol=TOLERANCE, rtol=TOLERANCE)


@every
def test_what_stands_behind_a_text_is_ignored(name: str) -> None:
    model = finished(name)
    codes, lengths = coded(model, TEXTS, extra=3)
    garbage = codes.clone()
    for row, length in zip(garbage, lengths, strict=True):
        row[length:] = 1
    with torch.no_grad():
        assert torch.equal(model(codes, lengths), model(garbage, lengths))


@every
@pytest.mark.parametrize("raw", ["", "   ", "\u2603", "zzz " * 10_000])
def test_any_text_has_finite_logits(name: str, raw: str) -> None:
    model = finished(name)
    with torch.no_grad():
        logits = model(*coded(model, [text.normalise(raw)]))
    assert logits.shape == (1, CLASSES)
    assert logits.isfinite().all()


@every
def test_the_gradient_meets_the_text_at_the_features(name: str) -> None:
    model = exercised(name).double()
    codes, lengths = coded(model, TEXTS[:3])
    features = model.features(codes).detach().requires_grad_()
    margin = model.head(model.read(features, lengths).state)[:, 0].sum()
    (gradient,) = torch.autograd.grad(margin, features)
    assert gradient.shape == features.shape
    for row, length in zip(gradient, lengths, strict=True):
        assert row[:length].abs().sum() > 0
        assert row[length:].abs().sum() == 0
    generator = torch.Generator().manual_seed(0)
    step = 1e-6 * torch.randn(features.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        ahead = model.head(model.read(features + step, lengths).state)[:, 0].sum()
        behind = model.head(model.read(features - step, lengths).state)[:, 0].sum()
    # PRADO's ReLUs may have a corner inside the step; all else is smooth
    assert float((gradient * step).sum()) == pytest.approx(float(ahead - behind) / 2, rel=1e-3, abs=1e-12)


@every
def test_attributions_can_be_trained(name: str) -> None:
    """A loss over d logits / d features has itself a gradient, checked along one direction of the weights."""
    model = exercised(name).double()
    codes, lengths = coded(model, TEXTS[:3])
    weights = list(model.parameters())

    def penalty() -> torch.Tensor:
        features = model.features(codes)
        if not features.requires_grad:  # of a hash
            features.requires_grad_()
        logits = model.head(model.read(features, lengths).state)
        (gradient,) = torch.autograd.grad(logits.square().sum(), features, create_graph=True)
        return (gradient * features).sum(-1).square().sum()

    gradients = torch.autograd.grad(penalty(), weights, allow_unused=True, materialize_grads=True)
    generator = torch.Generator().manual_seed(0)
    steps = [1e-7 * torch.randn(weight.shape, generator=generator, dtype=torch.float64) for weight in weights]
    values = []
    for sign in (1, -2):
        for weight, step in zip(weights, steps, strict=True):
            weight.data += sign * step
        values.append(float(penalty().detach()))
    expected = sum(float((gradient * step).sum()) for gradient, step in zip(gradients, steps, strict=True))
    assert expected != 0
    assert (values[0] - values[1]) / 2 == pytest.approx(expected, rel=1e-3)


@every
def test_learns_a_simple_task(name: str) -> None:
    """One word of seven says the class."""
    rng = random.Random(0)
    filler = "we came to the room and had some soup then went home again".split()
    marks = ("warm", "cold", "loud")
    labels = [i % CLASSES for i in range(48)]
    texts = [" ".join(rng.sample([*rng.choices(filler, k=6), marks[label]], 7)) for label in labels]
    model = built(name, texts=texts)
    codes, lengths = coded(model, texts)
    linear = name in ("tfidf", "bag", "hashed")
    optimiser = torch.optim.Adam(model.parameters(), 0.3 if linear else 0.02)
    for step in range(50):
        optimiser.zero_grad()
        functional.cross_entropy(model.train()(codes, lengths), torch.tensor(labels)).backward()
        optimiser.step()
        model.constrain((step + 1) / 50)
    with torch.no_grad():
        found = model.eval()(codes, lengths).argmax(1).tolist()
    assert sum(map(int.__eq__, found, labels)) >= 43


# --- programs: a plain evaluation of the data that ships ---------------------------------------------

sigmoid: Callable[[np.ndarray], np.ndarray] = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731


def evaluated(program: Program, tokens: Sequence[str]) -> np.ndarray:
    """logits [classes] of a token sequence, in float64 and word by word as bench/types.py describes a program."""
    if isinstance(program.words, Rows):
        table = program.words.table.astype(np.float64)
        if program.words.ngrams:
            x = table[[text.bucket(token, len(table)) for token in tokens]]
        else:
            x = table[[program.vocabulary.index(t) if t in program.vocabulary else 0 for t in tokens]]
    else:
        x = text.ternary(tokens, program.words.width).astype(np.float64)
    body = program.body
    if isinstance(body, Mean):
        state = x.mean(0)
    elif isinstance(body, Lstm):
        state = cell = np.zeros(body.state_weight.shape[1])
        for row in x:
            i, f, g, o = np.split(body.input_weight @ row + body.state_weight @ state + body.bias, 4)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            state = sigmoid(o) * np.tanh(cell)
    elif isinstance(body, FastGrnn):
        state = np.zeros(len(body.bias_gate))
        for row in x:
            p = body.input_weight @ row + body.state_weight @ state
            z, c = sigmoid(p + body.bias_gate), np.tanh(p + body.bias_update)
            state = z * state + (body.zeta * (1 - z) + body.nu) * c
    else:
        assert isinstance(body, AttentionPool)
        value = np.maximum(x @ body.value.weight.T + body.value.bias, 0)
        attention = np.maximum(x @ body.attention.weight.T + body.attention.bias, 0)
        pooled = []
        for kernel in body.kernels:
            convolved = []
            for signal, weight, bias in (
                (attention, kernel.attention_weight, kernel.attention_bias),
                (value, kernel.value_weight, kernel.value_bias),
            ):
                width = weight.shape[1]
                long = np.concatenate([signal, np.zeros((width - 1, signal.shape[1]))])
                convolved.append([np.einsum("oki,ki->o", weight, long[t : t + width]) + bias for t in range(len(x))])
            scores, values = np.array(convolved)
            share = np.exp(scores - scores.max(0))
            pooled.append((share / share.sum(0) * values).sum(0))
        state = np.concatenate(pooled)
    return program.head.weight @ state + program.head.bias


@every
def test_a_program_evaluates_as_its_model(name: str) -> None:
    model = finished(name)
    program = model.program()
    assert program.vocabulary == model.vocabulary
    assert program.max_tokens == model.max_tokens
    for raw in (*TEXTS, "", "zzz", "soup"):
        tokens = (model.tokenize(raw) or [""])[: model.max_tokens]
        with torch.no_grad():
            logits = model(*coded(model, [raw]))[0].numpy()
        np.testing.assert_allclose(evaluated(program, tokens), logits, atol=TOLERANCE, rtol=TOLERANCE)


def arrays(value: Any) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, tuple):
        return [array for item in value for array in arrays(item)]
    if dataclasses.is_dataclass(value):
        return [array for field in dataclasses.fields(value) for array in arrays(getattr(value, field.name))]
    return []


@every
def test_a_program_is_its_own_float32_copy(name: str) -> None:
    model = exercised(name)
    program = model.program()
    kept = [array.copy() for array in arrays(program)]
    assert {array.dtype for array in kept} == {np.dtype(np.float32)}
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    assert all((array == same).all() for array, same in zip(arrays(program), kept, strict=True))


# --- vocabulary -------------------------------------------------------------------------------------


def test_vocabulary_by_falling_count_then_alphabet() -> None:
    texts = ["b a c", "b A d", "c e B"]
    assert _vocabulary.learn(texts, 10, 1) == ("", "b", "a", "c", "d", "e")
    assert _vocabulary.learn(texts, 10, 2) == ("", "b", "a", "c")
    assert _vocabulary.learn(texts, 3, 2) == ("", "b", "a")
    assert _vocabulary.learn([], 3, 2) == ("",)


@given(st.lists(st.text(max_size=20)), st.integers(1, 8), st.integers(1, 3), st.randoms())
def test_vocabulary_does_not_depend_on_the_order_of_texts(
    texts: list[str], size: int, minimum: int, rng: random.Random
) -> None:
    found = _vocabulary.learn(texts, size, minimum)
    rng.shuffle(texts)
    assert _vocabulary.learn(texts, size, minimum) == found
    assert len(set(found)) == len(found) <= size
    assert _vocabulary.rows(_vocabulary.index(found), list(found)).tolist() == list(range(len(found)))


# --- student and teacher ----------------------------------------------------------------------------

TWENTY_THOUSAND = [" ".join(f"w{i}" for i in range(19_999))] * 2


def size(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def test_student_and_teacher_have_the_published_sizes() -> None:
    student = Student.build(Student.Config(), TWENTY_THOUSAND, 4, 0)
    assert len(student.vocabulary) == 20_000
    assert size(student) == 100_264  # "100K"
    assert student.table.numel() / size(student) == pytest.approx(0.9975, abs=2e-4)  # the paper's share
    assert size(Teacher.build(Teacher.Config(), TWENTY_THOUSAND, 4, 0)) == 2_081_204  # "2M"


@pytest.mark.parametrize("width", [5, 10, 20])
def test_student_widths(width: int) -> None:
    model = Student.build(Student.Config(embedding=width, hidden=width), TEXTS, 2, 0)
    program = model.program()
    assert isinstance(program.body, Lstm)
    assert program.body.input_weight.shape == (4 * width, width)
    assert program.head.weight.shape == (2, width)


# --- FastGRNN ---------------------------------------------------------------------------------------


def reference_cell() -> list[torch.Tensor]:
    """The setup of the recorded outputs: W, U, gate bias, update bias filled by sines, scalars at their defaults."""
    shapes = [(3, 4), (4, 4), (1, 4), (1, 4)]
    return [
        torch.tensor(
            [0.5 * math.sin((0.7 + 0.1 * i) * n + 0.2 * i) for n in range(math.prod(shape))], dtype=torch.float64
        ).reshape(shape)
        for i, shape in enumerate(shapes)
    ]


def test_fastgrnn_reproduces_the_official_cell() -> None:
    w, u, bias_gate, bias_update = reference_cell()
    x = torch.tensor([[[math.cos(0.37 * (3 * t + i)) for i in range(3)]] for t in range(5)], dtype=torch.float64)
    zeta, nu = (torch.sigmoid(torch.tensor([value], dtype=torch.float64)) for value in (1.0, -4.0))
    states = run_cell(x @ w, u, bias_gate, bias_update, zeta, nu)
    assert states.shape == (6, 1, 4)
    assert states[5, 0].tolist() == pytest.approx([0.2094829, 0.3408076, 0.1693432, -0.1886104], abs=1e-6)


def cell_arguments(seq: int, batch: int, hidden: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(seq, batch, hidden), (hidden, hidden), (hidden,), (hidden,), (1,), (1,)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).mul(0.5).requires_grad_() for shape in shapes]


def test_fastgrnn_equals_the_plain_loop() -> None:
    drive, u, bias_gate, bias_update, zeta, nu = arguments = cell_arguments(7, 3, 5)
    h = torch.zeros(3, 5, dtype=torch.float64)
    for t in range(7):
        p = drive[t] + h @ u
        z, c = torch.sigmoid(p + bias_gate), torch.tanh(p + bias_update)
        h = z * h + (zeta * (1 - z) + nu) * c
    torch.testing.assert_close(run_cell(*arguments)[-1], h)


def test_fastgrnn_gradients_by_finite_differences() -> None:
    arguments = cell_arguments(4, 2, 3)
    assert torch.autograd.gradcheck(run_cell, arguments)
    assert torch.autograd.gradgradcheck(run_cell, arguments)


def test_fastgrnn_starts_as_the_authors_code() -> None:
    model = FastGRNN.build(FastGRNN.Config(), TWENTY_THOUSAND, 40, 0)
    assert model.table.shape == (20_000, 32)
    assert float(model.w_factors[0].detach().std()) == pytest.approx(0.1, rel=0.1)
    assert float(model.u_factors[0].detach().std()) == pytest.approx(0.1, rel=0.1)
    assert float(model.head_weight.detach().std()) == pytest.approx(1.0, rel=0.1)
    assert model.bias_gate.unique().tolist() == model.bias_update.unique().tolist() == [1.0]
    body = model.program().body
    assert isinstance(body, FastGrnn)
    assert (body.zeta, body.nu) == pytest.approx((0.731, 0.018), abs=5e-4)


def test_fastgrnn_size_of_the_published_usps_example() -> None:
    model = FastGRNN(FastGRNN.Config(embedding=16, hidden=32), ("",), 10)
    values = size(model) - model.table.numel()
    assert values == 1932
    assert values * 4 / 1024 == 7.546875  # KB, as printed in both of the authors' read-mes


def test_fastgrnn_low_rank_parameters() -> None:
    model = FastGRNN.build(FastGRNN.Config(rank_w=4, rank_u=8), TEXTS, 2, 0)
    assert [tuple(factor.shape) for factor in model.w_factors] == [(32, 4), (4, 64)]
    assert [tuple(factor.shape) for factor in model.u_factors] == [(64, 8), (8, 64)]
    body = model.program().body
    assert isinstance(body, FastGrnn)
    assert np.linalg.matrix_rank(body.input_weight) == 4
    assert np.linalg.matrix_rank(body.state_weight) == 8


def test_fastgrnn_trains_its_head() -> None:
    before, after = built("fastgrnn", 1), exercised("fastgrnn", steps=1)
    assert (before.head_weight != after.head_weight).all()
    assert (before.head_bias != after.head_bias).all()


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([0.1, -0.4, 0.2, 0.3], 0.5, [False, True, False, True]),
        ([0.1, -0.4, 0.2, 0.3], 0.25, [False, True, False, False]),
        ([0.1, -0.4, 0.2, 0.3], 0.6, [False, True, False, True]),  # between two: the higher threshold
        ([0.1, -0.4, 0.2, 0.3], 1.0, [True] * 4),
        ([0.5, 0.5, 0.5, 0.5], 0.25, [True] * 4),  # equals stay together
    ],
)
def test_hard_threshold(values: list[float], share: float, expected: list[bool]) -> None:
    assert largest(torch.tensor([values]), share).tolist() == [expected]


SPARSE = FastGRNN.Config(embedding=8, hidden=16, density_w=0.25, density_u=0.5)


def shaken(model: FastGRNN, generator: torch.Generator) -> None:
    """Stands for an optimiser's step: every weight moves, the support is lost."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.05)


def support(model: FastGRNN) -> list[torch.Tensor]:
    return [factor != 0 for factor in (*model.w_factors, *model.u_factors)]


def test_fastgrnn_sparsity_comes_in_three_thirds() -> None:
    model = FastGRNN.build(SPARSE, TEXTS, 2, 0)
    generator = torch.Generator().manual_seed(0)
    supports = []
    for batch in range(1, 181):
        shaken(model, generator)
        model.constrain(batch / 180)
        supports.append(support(model))
    assert all(place.all() for batch in supports[:60] for place in batch)  # dense
    for w, u in supports[60:]:
        assert float(w.float().mean()) <= 0.25
        assert float(u.float().mean()) <= 0.5
        assert float(w.float().mean()) > 0.24
    changes = [
        i
        for i in range(61, 180)
        if any(not torch.equal(a, b) for a, b in zip(supports[i], supports[i - 1], strict=True))
    ]
    assert changes == [75, 90, 105]  # chosen anew every 15th batch of the second third, fixed in the last


def test_fastgrnn_sparsity_survives_a_resume() -> None:
    straight = FastGRNN.build(SPARSE, TEXTS, 2, 0)
    generator = torch.Generator().manual_seed(0)
    for batch in range(1, 100):
        if batch == 80:  # in the middle of a round of 15
            resumed = FastGRNN(SPARSE, straight.vocabulary, 2)
            resumed.load_state_dict(straight.state_dict())
            again = torch.Generator()
            again.set_state(generator.get_state())
        shaken(straight, generator)
        straight.constrain(batch / 120)
        if batch >= 80:
            shaken(resumed, again)
            resumed.constrain(batch / 120)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_fastgrnn_is_kept_only_once_it_is_sparse() -> None:
    sparse, dense = FastGRNN(SPARSE, ("",), 2), FastGRNN(FastGRNN.Config(), ("",), 2)
    assert [sparse.settled(progress) for progress in (0.1, 1 / 3, 0.34, 1.0)] == [False, False, True, True]
    assert dense.settled(0.1)


def test_fastgrnn_without_sparsity_is_never_touched() -> None:
    model = built("fastgrnn")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for progress in (0.1, 0.5, 0.9, 1.0):
        model.constrain(progress)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# --- PRADO ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "expected"), [(4, 108_172), (7, 108_565), (28, 111_316)])
def test_prado_has_the_released_sizes(classes: int, expected: int) -> None:
    assert size(Prado.build(Prado.Config(), (), classes, 0)) == expected


def test_prado_reads_the_ternary_projection() -> None:
    model = built("prado")
    tokens = model.tokenize("hello world")
    assert (model.codes(tokens) == text.ternary(["hello", "world"], 512)).all()
    assert model.codes(tokens)[0, :4].tolist() == [0, 1, 1, 0]
    assert (model.features(torch.from_numpy(model.codes(tokens))[None]) == torch.from_numpy(model.codes(tokens))).all()


def plain_prado(**changes: Any) -> Any:
    return Prado.build(Prado.Config(width=64, maps=8, bigrams=6, trigrams=5, dropout=0.0, **changes), (), CLASSES, 0)


def test_prado_training_statistics_see_no_padding() -> None:
    tight, loose = plain_prado().train(), plain_prado().train()
    for _ in range(3):
        torch.testing.assert_close(tight(*coded(tight, TEXTS)), loose(*coded(loose, TEXTS, extra=40)))
    for key, value in tight.state_dict().items():
        torch.testing.assert_close(value, loose.state_dict()[key])


def test_prado_training_statistics_are_centred() -> None:
    model = plain_prado(momentum=1.0).train()
    codes, lengths = coded(model, TEXTS)
    model(codes, lengths)
    real = torch.cat([row[:length] for row, length in zip(codes, lengths, strict=True)]).float()
    outputs = real @ model.value.weight[:, 0].T + model.value.bias
    torch.testing.assert_close(model.value.mean, outputs.mean(0))
    torch.testing.assert_close(model.value.variance, outputs.var(0, unbiased=False))


def test_prado_statistics_start_as_a_plain_mean() -> None:
    model = plain_prado(momentum=0.3).train()
    means = []
    for raw in ("soup", "warm bed", "cold room", "bad", "good soup"):
        codes, lengths = coded(model, [raw])
        model(codes, lengths)
        means.append((model.features(codes)[0] @ model.value.weight[:, 0].T).mean(0).detach())
    expected = torch.stack(means[:3]).mean(0)
    for mean in means[3:]:  # 1/4 and 1/5 are below the momentum
        expected = 0.7 * expected + 0.3 * mean
    torch.testing.assert_close(model.value.mean, expected)


def test_prado_channels_attend_over_time() -> None:
    """The state of a text of one token is that token's value: all attention must go to it."""
    model = plain_prado().eval()
    codes, lengths = coded(model, ["soup"], extra=5)
    reading = model.read(model.features(codes), lengths)
    value = (model.features(codes)[:, :1] @ model.value.weight[:, 0].T * (1 + 1e-5) ** -0.5).relu()
    expected = [value[:, 0] @ kernel.weight[:, 0].T * (1 + 1e-5) ** -0.5 for kernel in model.value_kernels]
    torch.testing.assert_close(reading.state, torch.cat(expected, 1))
    torch.testing.assert_close(reading.words[:, 0], value[:, 0])
    assert (reading.words[:, 1:] == 0).all()


@pytest.mark.parametrize("training", [False, True])
def test_prado_reads_projections_as_it_reads_features(training: bool) -> None:
    first, second = (exercised("prado").double().train(training) for _ in range(2))
    codes, lengths = coded(first, TEXTS, extra=2)
    features = first.features(codes)
    whole, parts = first.read(features, lengths), second.read_projected(features @ second.projection().T, lengths)
    torch.testing.assert_close(whole.words, parts.words)
    torch.testing.assert_close(whole.state, parts.state)


def test_prado_forgets_no_gradient_when_its_statistics_move_on() -> None:
    """A step asks for the gradient of a deployed pass after passes in training."""
    moved, still = (exercised("prado") for _ in range(2))
    codes, lengths = coded(moved, TEXTS)
    gradients = []
    for model in (moved, still):
        loss = model.eval()(codes, lengths).square().sum()
        if model is moved:
            model.train()(codes, lengths)
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_prado_skip_kernels_leave_the_middle_out() -> None:
    model = Prado.build(Prado.Config(16, 4, 0, 0, 0, skip_one_bigrams=3, skip_two_bigrams=2), (), 2, 0)
    body = model.program().body
    assert isinstance(body, AttentionPool)
    one, two = body.kernels
    assert one.value_weight.shape == (3, 3, 4)
    assert two.attention_weight.shape == (2, 4, 4)
    assert (one.value_weight[:, 1] == 0).all()
    assert (one.value_weight[:, [0, 2]] != 0).all()
    assert (two.attention_weight[:, 1:3] == 0).all()


def test_prado_noise_is_its_own_and_only_in_training() -> None:
    model = built("prado", seed=2)
    codes, lengths = coded(model, TEXTS)
    first, second = model.train()(codes, lengths), model(codes, lengths)
    assert not torch.equal(first, second)
    again = built("prado", seed=2).train()
    assert torch.equal(again(codes, lengths), first)
    resumed = Prado(model.config, (), CLASSES)
    resumed.load_state_dict(again.state_dict())
    assert torch.equal(resumed.train()(codes, lengths), second)  # the noise goes on where it was saved
    model.eval()
    assert torch.equal(model(codes, lengths), model(codes, lengths))


def test_prado_drops_half_of_each_map() -> None:
    model = built("prado").train()
    values = model._dropped(torch.ones(200, 500))
    assert values.unique().tolist() == [0.0, 2.0]
    assert float(values.mean()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("cls", [Prado, Hashed])
def test_hashing_models_take_no_vocabulary(cls: Any) -> None:
    with pytest.raises(ValueError, match="no vocabulary, got 2 words"):
        cls(cls.Config(), ("", "soup"), 2)


# --- the linear models ------------------------------------------------------------------------------


def test_tfidf_is_the_textbook() -> None:
    texts = ["soup soup good", "soup bad", "good good bed"]
    model = TfIdf.build(TfIdf.Config(minimum_count=1), texts, 2, 0)
    with torch.no_grad():
        model.rows.copy_(torch.arange(model.rows.numel()).reshape(model.rows.shape))
        model.bias.copy_(torch.tensor([0.5, -0.5]))
        logits = model(*coded(model, ["soup good soup zzz"]))[0].numpy()
    weights = {
        "soup": 2 / 4 * (math.log((1 + 3) / (1 + 2)) + 1),  # count / length of the text, smoothed idf
        "good": 1 / 4 * (math.log((1 + 3) / (1 + 2)) + 1),
    }
    rows = {word: model.rows[model.vocabulary.index(word)].detach().numpy() for word in weights}
    expected = sum(weight * rows[word] for word, weight in weights.items()) + np.array([0.5, -0.5])
    np.testing.assert_allclose(logits, expected, rtol=1e-6)


def test_tfidf_weighs_rare_words_more_and_unknown_ones_not_at_all() -> None:
    model = TfIdf.build(TfIdf.Config(minimum_count=1), ["the soup", "the bed", "the the"], 2, 0)
    idf = dict(zip(model.vocabulary, model.idf[:, 0].tolist(), strict=True))
    assert idf[""] == 0
    assert idf["the"] == pytest.approx(1.0)
    assert idf["soup"] == idf["bed"] == pytest.approx(math.log(4 / 2) + 1)


def test_in_a_bag_a_word_moves_the_answer_by_its_own_votes() -> None:
    model, words = exercised("bag"), ["soup", "zzz", "bed", "a"]
    with torch.no_grad():
        model.rows[0] = torch.tensor([0.25, -0.5, 1.0])  # unknown words vote, too
        votes = model.rows[model.codes([*words, "the"])]
        before = model(*coded(model, [" ".join(words)]))[0]
        for place in range(4):
            after = model(*coded(model, [" ".join([*words[:place], "the", *words[place + 1 :]])]))[0]
            torch.testing.assert_close(after - before, (votes[4] - votes[place]) / 4)


def test_hashed_tokens_are_words_and_pairs() -> None:
    model = built("hashed")
    assert model.tokenize("We came BACK") == ["we", "came", "we came", "back", "came back"]
    assert model.codes(["we came"]).tolist() == [text.bucket("we came", 1024)]
    words_128 = " ".join(f"w{i}" for i in range(128))
    assert len(model.tokenize(words_128)) == model.max_tokens
