"""The step of the last layer: numpy, C and torch do the same arithmetic; its price on emulated cores."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grit.bench.export.c import compiler
from grit.bench.personalize import arms, costs, protocol
from grit.bench.personalize.costs import Shape
from grit.bench.personalize.protocol import Training
from grit.bench.personalize.texts import Base, Texts
from grit.bench.targets._cores import CORES
from grit.bench.types import CouldNotMeasure, Example, UsageError
from grit.models.fastgrnn import FastGRNN
from grit.models.student import Student

LEARNED = Training(epochs=5, batch=8)
TEXTS = [f"{'warm kind note' if i % 3 else 'cold grim bill'} number {i} {'again' * (i % 2)}" for i in range(20)]


@pytest.fixture(scope="module")
def host() -> None:
    """A C compiler for this machine."""
    try:
        compiler.host()
    except CouldNotMeasure as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def arm() -> None:
    """A cross compiler and an emulator."""
    for module in ("unicorn", "elftools", "ziglang"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"no {module}: pip install 'gritbench[arm]'")


def texts_of(cls: Any, config: Any, classes: int = 2, n: int = 20) -> Texts:
    base = Base(cls.build(config, TEXTS, classes, 0))
    return base.texts([Example(f"{i:016x}", text, i * 7 % classes) for i, text in enumerate(TEXTS[:n])])


def drawn(shape: Shape, n: int, seed: int, size: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = np.zeros(n, shape.example)
    found["state"] = rng.uniform(-size, size, (n, shape.features))
    found["logit"] = rng.normal(0, 2 * size, (n, shape.classes))
    found["label"] = rng.integers(0, shape.classes, n)
    return found


def by_numpy(head: np.ndarray, steps: Sequence[np.ndarray]) -> np.ndarray:
    for batch in steps:
        head = costs.stepped(head, batch)
    return head


def by_torch(shape: Shape, rate: float, steps: Sequence[np.ndarray]) -> np.ndarray:
    weight, bias = torch.zeros(shape.classes, shape.features), torch.zeros(shape.classes)
    for batch in steps:
        leaves = [weight.requires_grad_(), bias.requires_grad_()]
        logits = torch.from_numpy(batch["logit"].copy()) + torch.from_numpy(batch["state"].copy()) @ weight.T + bias
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch["label"].astype(np.int64)))
        slopes = torch.autograd.grad(loss, leaves)
        weight, bias = ((leaf - rate * slope).detach() for leaf, slope in zip(leaves, slopes, strict=True))
    head = costs.fresh(shape, rate)
    head["weight"], head["bias"] = weight.numpy(), bias.numpy()
    return head


# --- parity --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("shape", [Shape(2, 5, 8), Shape(3, 64, 8), Shape(4, 16, 1), Shape(2, 1, 3)], ids=repr)
@pytest.mark.parametrize("rate", [0.03, 0.3])
def test_numpy_c_and_torch_train_the_same_head(shape: Shape, rate: float) -> None:
    steps = costs.batches(drawn(shape, 20, 1), Training(epochs=5, batch=shape.batch))
    head = costs.fresh(shape, rate)
    one, two, three = by_numpy(head, steps), costs.here(shape, head, steps), by_torch(shape, rate, steps)
    assert costs.difference(one, two) <= costs.TOLERANCE
    assert costs.difference(one, three) <= costs.TOLERANCE
    assert costs.difference(two, three) <= costs.TOLERANCE
    assert np.abs(one["weight"]).max() > 0.01, "something was learned"


@pytest.mark.usefixtures("host")
@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([0.01, 1.0, 8.0, 40.0]))
def test_one_step_of_c_is_one_of_numpy_at_any_size_of_logits(seed: int, size: float) -> None:
    shape = Shape(3, 4, 6)
    batch = drawn(shape, 6, seed, size)
    head = costs.fresh(shape, 0.1)
    assert costs.difference(costs.stepped(head, batch), costs.here(shape, head, [batch])) <= costs.TOLERANCE


@pytest.mark.usefixtures("host")
def test_logits_that_are_far_apart_neither_overflow_nor_vanish() -> None:
    shape = Shape(2, 1, 2)
    batch = drawn(shape, 2, 0)
    batch["logit"] = [[300.0, -300.0], [-86.5, 0.0]]
    batch["label"] = [1, 0]
    head = costs.fresh(shape, 1.0)
    found = costs.here(shape, head, [batch])
    assert np.isfinite(found["weight"]).all()
    # both are sure and wrong: each pulls its own way with all its weight
    assert costs.difference(costs.stepped(head, batch), found) <= costs.TOLERANCE
    assert float(found["bias"][0].sum()) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.usefixtures("host")
def test_the_exponential_is_within_three_units_in_the_last_place() -> None:
    """Read off a head of two labels: the slope of label 1 is e^x / (1 + e^x) for logits 0 and x."""
    shape = Shape(2, 1, 1)
    for x in np.linspace(-20, 0, 201, dtype=np.float32):
        batch = np.zeros(1, shape.example)
        batch["logit"], batch["label"] = [[0.0, x]], 0
        found = float(costs.here(shape, costs.fresh(shape, 1.0), [batch])["slope"][0, 0, 1])
        wanted = 1 / (1 + math.exp(-float(x)))
        assert abs(found - wanted) <= 4e-7 * wanted, x


@pytest.mark.parametrize(
    ("cls", "config"),
    [(Student, Student.Config(minimum_count=1)), (FastGRNN, FastGRNN.Config(embedding=6, hidden=64, minimum_count=1))],
    ids=["student", "fastgrnn"],
)
@pytest.mark.usefixtures("host")
def test_the_arm_last_is_what_the_device_trains(cls: Any, config: Any) -> None:
    texts = texts_of(cls, config, classes=3)
    shape = costs.shape_of(texts, LEARNED.batch)
    steps = costs.batches(costs.remembered(texts, shape), LEARNED)
    *_, learned = protocol.epochs(arms.get("last"), texts.base, texts, 0.3, LEARNED, 0)
    wanted = costs.fresh(shape, 0.3)
    wanted["weight"], wanted["bias"] = learned["weight"].numpy(), learned["bias"].numpy()
    for found in (by_numpy(costs.fresh(shape, 0.3), steps), costs.here(shape, costs.fresh(shape, 0.3), steps)):
        assert costs.difference(wanted, found) <= costs.TOLERANCE


def test_a_step_goes_down_and_leaves_what_it_was_given() -> None:
    shape = Shape(2, 3, 4)
    batch, head = drawn(shape, 4, 3), costs.fresh(shape, 0.5)
    before = head.copy()

    def loss(of: np.ndarray) -> float:
        logits = batch["logit"] + batch["state"] @ of["weight"][0].T + of["bias"][0]
        shifted = logits - logits.max(1, keepdims=True)
        return float((np.log(np.exp(shifted).sum(1)) - shifted[np.arange(4), batch["label"]]).mean())

    assert loss(costs.stepped(head, batch)) < loss(head)
    assert (head == before).all()


def test_batches_are_epochs_of_all_texts_in_their_order() -> None:
    shape = Shape(2, 1, 4)
    examples = drawn(shape, 10, 0)
    found = costs.batches(examples, Training(epochs=2, batch=4))
    assert [len(batch) for batch in found] == [4, 4, 2, 4, 4, 2]
    assert (np.concatenate(found[:3]) == examples).all() and (np.concatenate(found[3:]) == examples).all()


# --- what it costs ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("arm")
@pytest.mark.parametrize("core", costs.TARGETS)
def test_instructions_and_bytes_of_a_step_on_a_core(core: str) -> None:
    texts = texts_of(Student, Student.Config(minimum_count=1), n=16)
    found = costs.cost(core, texts, 0.3, LEARNED)
    values, shape = found.values, costs.shape_of(texts, 8)
    assert found.kind == "emulated" and found.target == f"emu://{core}"
    assert found.facts["parity_error"] <= costs.TOLERANCE and found.facts["steps"] == 10
    assert values["head_bytes"] == shape.head.itemsize == 4 * (1 + 2 * 5 + 2 + 8 * 2)
    assert values["remembered_bytes"] == 16 * shape.example.itemsize == 16 * 4 * (5 + 2 + 1)
    assert values["training_bytes"] == values["remembered_bytes"] + values["head_bytes"] + values["stack_bytes"]
    multiplications = 8 * 2 * (2 * 5)  # once forward and once back, a text, a label, a feature
    assert multiplications < values["step_instructions"] < 60 * multiplications
    assert costs.cost(core, texts, 0.3, LEARNED) == found, "a count, not a time"


@pytest.mark.usefixtures("arm")
def test_more_features_take_more_instructions_and_more_room() -> None:
    small = costs.cost("cortex-m4", texts_of(Student, Student.Config(minimum_count=1)), 0.1, LEARNED).values
    config = FastGRNN.Config(embedding=6, hidden=64, minimum_count=1)
    large = costs.cost("cortex-m4", texts_of(FastGRNN, config), 0.1, LEARNED).values
    assert large["step_instructions"] > 5 * small["step_instructions"]
    assert large["training_bytes"] > 5 * small["training_bytes"]


@pytest.mark.usefixtures("arm")
def test_reading_a_text_is_counted_with_the_deployed_model() -> None:
    from grit.bench.personalize import robust

    texts = texts_of(Student, Student.Config(minimum_count=1), n=8)
    artefact = robust.shipped(texts.base.model, TEXTS)
    values = costs.cost("cortex-m4", texts, 0.1, LEARNED, artefact).values
    assert values["peak_bytes"] >= values["training_bytes"] and values["reading_instructions"] > 1000


@pytest.mark.usefixtures("arm")
def test_a_core_that_rounds_otherwise_gets_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_of(Student, Student.Config(minimum_count=1), n=8)
    honest = costs.stepped
    monkeypatch.setattr(costs, "stepped", lambda head, batch: _shifted(honest(head, batch)))
    with pytest.raises(CouldNotMeasure, match="differs from numpy's by"):
        costs.cost("cortex-m4", texts, 0.1, LEARNED)
    cells = costs.cells(costs.TARGETS, texts, 0.1, LEARNED, None)
    assert {cell.kind for cell in cells} == {"not measured"} and all(cell.reason for cell in cells)


def _shifted(head: np.ndarray) -> np.ndarray:
    head["bias"] += 1e-4
    return head


def test_without_its_tools_a_cost_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs.emu.Emu, "missing", classmethod(lambda cls: "no unicorn: pip install it"))
    texts = texts_of(Student, Student.Config(minimum_count=1), n=8)
    cells = costs.cells(costs.TARGETS, texts, 0.1, LEARNED, None)
    assert [cell.target for cell in cells] == [f"emu://{core}" for core in costs.TARGETS]
    assert all(cell.reason == "no unicorn: pip install it" and not cell.values for cell in cells)


@pytest.mark.usefixtures("arm")
def test_a_job_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_of(Student, Student.Config(minimum_count=1), n=4)
    monkeypatch.setattr(costs.emu, "json", _Crooked())
    with pytest.raises(CouldNotMeasure, match="did not run on the emulated cortex-m4"):
        costs.cost("cortex-m4", texts, 0.1, LEARNED)


class _Crooked:
    """Writes a job without a program."""

    def dumps(self, job: Any) -> str:
        return json.dumps({**job, "elf": "/nowhere"})

    def loads(self, text: str) -> Any:
        return json.loads(text)


def test_the_source_needs_no_library_and_names_its_sizes() -> None:
    source = Shape(3, 7, 8).source
    assert "#define CLASSES 3u" in source and "#define FEATURES 7u" in source and "malloc" not in source
    assert source.count("#include") == 1 and "math.h" not in source
    assert set(costs.TARGETS) <= set(CORES)


# --- what a device remembers -----------------------------------------------------------------------------


def test_a_remembered_text_is_its_state_its_logits_and_its_label() -> None:
    texts = texts_of(Student, Student.Config(minimum_count=1), classes=3, n=6)
    shape = costs.shape_of(texts, 4)
    assert shape == Shape(classes=3, features=5, batch=4)
    kept = costs.remembered(texts, shape)
    assert np.array_equal(kept["state"], texts.frozen.state.numpy())
    assert np.array_equal(kept["logit"], texts.frozen.logits.numpy())
    assert kept["label"].tolist() == texts.labels.tolist()
    assert kept.tobytes() == kept[:3].tobytes() + kept[3:].tobytes(), "texts lie one behind the other, without gaps"


def test_a_fresh_head_adds_nothing() -> None:
    shape = Shape(3, 5, 2)
    head = costs.fresh(shape, 0.25)
    assert float(head["rate"][0]) == 0.25 and not head["weight"].any() and not head["bias"].any()
    assert costs.difference(head, head) == 0.0
    other = head.copy()
    other["weight"][0, 0, 0] = 8.0
    assert costs.difference(head, other) == 8.0, "of small weights the difference itself"
    assert costs.difference(other, head) == 1.0, "of large ones its share of the largest"


def test_a_head_that_is_no_number_is_never_within_the_tolerance() -> None:
    head = costs.fresh(Shape(2, 1, 1), 0.1)
    broken = head.copy()
    broken["weight"][:] = np.nan
    assert not costs.difference(head, broken) <= costs.TOLERANCE
    assert not costs.difference(broken, head) <= costs.TOLERANCE


@pytest.mark.parametrize("core", costs.TARGETS)
def test_cores_are_known_by_name(core: str) -> None:
    costs.known(core)
    with pytest.raises(UsageError, match=core):
        costs.known(core[:-1])


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_slopes_of_a_text_add_up_to_nought_so_biases_keep_their_sum(classes: int) -> None:
    shape = Shape(classes, 4, 5)
    head = costs.fresh(shape, 0.5)
    for seed in range(4):
        head = costs.stepped(head, drawn(shape, 5, seed))
    assert abs(float(head["bias"].sum())) < 1e-5 and np.abs(head["weight"][0].sum(0)).max() < 1e-5
