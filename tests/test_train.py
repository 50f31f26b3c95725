"""Training: repeatable, resumable, judged on the dev split alone, for every model under every scheme."""

from __future__ import annotations

import copy
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import registry, schemes, train
from grit.bench.objectives import _flips
from grit.bench.objectives._adam import Adam
from grit.bench.objectives._words import Codebook, Split, Words
from grit.bench.train import Epoch, Trained
from grit.bench.types import (
    CouldNotMeasure,
    Dataset,
    Example,
    MalformedInput,
    Recipe,
    Scheme,
    StorageError,
    Term,
    UsageError,
)
from grit.models.bag import Bag
from grit.models.fastgrnn import FastGRNN
from grit.models.hashed import Hashed
from grit.models.prado import Prado
from grit.models.student import Student
from grit.models.teacher import Teacher
from grit.models.tfidf import TfIdf

TOPICS = (
    ("kettle", "oven", "spoon", "recipe", "butter", "flour"),
    ("tulip", "spade", "hedge", "seedling", "compost", "lawn"),
    ("harbour", "anchor", "sail", "gull", "tide", "deck"),
)
FILLERS = ("beside the old", "under a small", "with another", "not far from the", "and then the")
SYNONYMS = {"oven": ("stove", "cooker"), "sail": ("canvas",), "lawn": ("grass", "turf", "green"), "old": ("aged",)}

MODELS: dict[str, tuple[Any, Any]] = {
    "student": (Student, Student.Config(minimum_count=1)),
    "teacher": (Teacher, Teacher.Config(embedding=8, hidden=8)),
    "fastgrnn": (FastGRNN, FastGRNN.Config(embedding=6, hidden=8, density_w=0.5, density_u=0.5)),
    "prado": (Prado, Prado.Config(width=32, maps=8, bigrams=8, trigrams=8)),
    "tfidf": (TfIdf, TfIdf.Config()),
    "bag": (Bag, Bag.Config()),
    "hashed": (Hashed, Hashed.Config(buckets=256)),
}
QUICK = Recipe(epochs=2, batch_size=16, learning_rate=1e-2)
THREE = Recipe(epochs=3, batch_size=16, learning_rate=1e-2, patience=0)
LONG = Recipe(epochs=24, batch_size=48, learning_rate=1e-2, patience=0)


def split(name: str, n: int, seed: int) -> tuple[Example, ...]:
    rng = random.Random(seed)
    made = []
    for number in range(n):
        label = number % len(TOPICS)
        text = " ".join(f"{rng.choice(FILLERS)} {rng.choice(TOPICS[label])}" for _ in range(rng.randint(1, 3)))
        made.append(Example(f"{name}{number:03x}", text, label))
    return tuple(made)


DATA = Dataset("topics", "0" * 64, ("kitchen", "garden", "sea"), split("a", 48, 1), split("b", 18, 2), split("c", 6, 3))


class Table:
    def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
        return SYNONYMS.get(word, ())


@pytest.fixture(autouse=True)
def small_lexicon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Synonyms of our own, so that no test opens WordNet."""
    monkeypatch.setattr(_flips.lexicons, "load", lambda name: Table())


@pytest.fixture(scope="module")
def teacher() -> Any:
    cls, config = MODELS["teacher"]
    return train.train(cls, config, QUICK, DATA, schemes.get("natural"), seed=9).model


def run(
    name: str, scheme: str | Scheme, teacher: Any = None, *, seed: int = 0, recipe: Recipe = QUICK, **more: Any
) -> Trained:
    cls, config = MODELS[name]
    scheme = schemes.get(scheme) if isinstance(scheme, str) else scheme
    more.setdefault("dataset", DATA)
    dataset = more.pop("dataset")
    return train.train(cls, config, recipe, dataset, scheme, seed=seed, teacher=teacher, **more)


def weights(trained: Trained) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in trained.model.state_dict().items()}  # type: ignore[attr-defined]


def timeless(history: Sequence[Epoch]) -> list[Epoch]:
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in history]


class Killed(BaseException):
    """Stands for a signal: nothing in the house catches it."""


# --- every model under every scheme ----------------------------------------------------------------------


NAMED = ("natural", "distil", "mapped", "adversarial", "proposed")
PAIRS = [
    *((name, scheme) for name in MODELS for scheme in NAMED),
    *(("student", scheme) for scheme in schemes.names() if scheme not in NAMED),
    *(("prado", scheme) for scheme in ("free", "sprout", "distortion", "pgd")),  # what treats codes its own way
]


@pytest.mark.parametrize(("name", "scheme"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_every_model_trains_under_every_scheme(name: str, scheme: str, teacher: Any) -> None:
    small = dataclasses.replace(DATA, train=DATA.train[:24], dev=DATA.dev[:6])
    trained = run(name, scheme, teacher, dataset=small, recipe=dataclasses.replace(QUICK, epochs=1))
    (epoch,) = trained.history
    assert set(epoch.losses) == {key for key, _, _ in schemes.objectives(schemes.get(scheme))}
    assert all(np.isfinite(loss) for loss in epoch.losses.values())
    assert 0 <= epoch.dev_accuracy <= 1
    assert not trained.model.training  # type: ignore[attr-defined]


def test_every_model_of_the_house_is_tested_here() -> None:
    assert registry.names("models").keys() - {"transformer"} <= set(MODELS)  # which is nothing without its source


@pytest.mark.parametrize("name", ["student", "fastgrnn", "prado", "tfidf"])
def test_topics_are_learned(name: str) -> None:
    recipe = Recipe(epochs=12, batch_size=8, learning_rate=3e-2, patience=0)
    assert run(name, "natural", recipe=recipe).best.dev_accuracy > 0.9


# --- the choice of the best epoch ------------------------------------------------------------------------


def test_the_model_handed_back_is_that_of_the_best_epoch() -> None:
    trained = run("student", "natural", recipe=Recipe(epochs=8, batch_size=8, learning_rate=0.3, patience=0))
    found = train.predict(trained.model, [example.text for example in DATA.dev]).argmax(1)
    accuracy = float((found == [example.label for example in DATA.dev]).mean())
    assert accuracy == trained.best.dev_accuracy == max(epoch.dev_accuracy for epoch in trained.history)
    assert trained.criterion == "accuracy on 18 dev texts"


def test_a_robust_scheme_is_judged_under_attack_too() -> None:
    trained = run("student", "hotword", recipe=Recipe(epochs=6, batch_size=8, learning_rate=3e-2))
    for epoch in trained.history:
        assert epoch.dev_attacked is not None and epoch.dev_attacked <= epoch.dev_accuracy
        assert epoch.score == (epoch.dev_accuracy + epoch.dev_attacked) / 2
    assert trained.best.score == max(epoch.score for epoch in trained.history)
    assert "under a gradient attack" in trained.criterion
    assert all(epoch.dev_attacked is None for epoch in run("student", "smoothing").history)


def test_the_test_split_is_never_looked_at() -> None:
    class Trap(tuple):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            raise AssertionError("the test split was read")

        __len__ = __getitem__ = __iter__  # type: ignore[assignment]

    guarded = dataclasses.replace(DATA, test=Trap())
    assert weights(run("student", "adversarial", dataset=guarded)) == weights(run("student", "adversarial"))


def test_patience_ends_a_training_that_no_longer_gains() -> None:
    still = Recipe(epochs=20, batch_size=16, learning_rate=0.0, patience=3)
    assert len(run("student", "natural", recipe=still).history) == 4
    assert len(run("student", "natural", recipe=dataclasses.replace(still, patience=0, epochs=6)).history) == 6


def test_the_learning_rate_falls_in_steps() -> None:
    recipe = Recipe(epochs=5, batch_size=16, learning_rate=1.0, decay_every=2, decay=0.5, patience=0)
    assert [epoch.learning_rate for epoch in run("tfidf", "natural", recipe=recipe).history] == [1, 1, 0.5, 0.5, 0.25]


def test_epochs_count_only_once_the_model_has_settled() -> None:
    class Late(Student):
        def settled(self, progress: float) -> bool:
            return progress > 0.5

    recipe = Recipe(epochs=6, batch_size=16, learning_rate=0.0, patience=1)
    trained = train.train(Late, Late.Config(), recipe, DATA, schemes.get("natural"), seed=0)
    # Nothing is learned, so the first epoch that counts is the best, and one more without a gain ends it.
    assert [epoch.best for epoch in trained.history] == [False, False, False, True, False]
    with pytest.raises(IndexError):
        Trained(trained.model, trained.history[:3], "", {}).best  # noqa: B018


def test_a_sparse_model_is_sparse_in_its_best_epoch() -> None:
    trained = run("fastgrnn", "natural", recipe=Recipe(epochs=6, batch_size=16, learning_rate=1e-2, patience=0))
    assert isinstance(trained.model, train.Settling)
    assert [epoch.best for epoch in trained.history][:2] == [False, False]
    (factor,) = trained.model.u_factors  # type: ignore[attr-defined]
    assert (factor == 0).float().mean() >= 0.45


# --- repeatability ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wholes(teacher: Any) -> dict[str, tuple[dict[str, bytes], list[Epoch]]]:
    """Every model trained under ``proposed`` without a break: weights and history."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_flips.lexicons, "load", lambda name: Table())
        trained = {name: run(name, "proposed", teacher, recipe=THREE) for name in MODELS}
    return {name: (weights(found), timeless(found.history)) for name, found in trained.items()}


@pytest.mark.parametrize("name", ["student", "prado"])
def test_the_same_call_gives_the_same_bits(name: str, teacher: Any, wholes: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)  # noqa: TID251  # a caller's own generator must not matter
        again = run(name, "proposed", teacher, recipe=THREE)
    assert (weights(again), timeless(again.history)) == wholes[name]


def test_another_seed_gives_another_model() -> None:
    assert weights(run("student", "natural")) != weights(run("student", "natural", seed=1))


def test_the_surroundings_are_left_as_they_were() -> None:
    def surroundings() -> tuple[Any, ...]:
        filled = torch.utils.deterministic.fill_uninitialized_memory
        return torch.get_num_threads(), torch.get_deterministic_debug_mode(), filled, random.getstate()

    drawn, before = torch.get_rng_state(), surroundings()
    run("prado", "fgm", threads=2)
    assert torch.equal(torch.get_rng_state(), drawn) and surroundings() == before


def test_a_teacher_that_no_term_asks_changes_nothing(teacher: Any) -> None:
    assert weights(run("student", "natural", teacher)) == weights(run("student", "natural"))


def test_kept_answers_of_the_teacher_change_nothing(teacher: Any, tmp_path: Path) -> None:
    plain = weights(run("student", "mapped", teacher))
    assert weights(run("student", "mapped", teacher, cache=tmp_path)) == plain
    assert weights(run("student", "mapped", teacher, cache=tmp_path)) == plain
    assert len(list(tmp_path.glob("*.npz"))) == 2


# --- checkpoints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_stopped_training_goes_on_to_the_same_bits(name: str, teacher: Any, wholes: Any, tmp_path: Path) -> None:
    stop = 1 + len(name) % 2

    def stopper(epoch: Epoch) -> None:
        if epoch.number == stop:
            raise Killed

    with pytest.raises(Killed):
        run(name, "proposed", teacher, recipe=THREE, folder=tmp_path, progress=stopper)
    seen: list[int] = []
    resumed = run(
        name, "proposed", teacher, recipe=THREE, folder=tmp_path, progress=lambda epoch: seen.append(epoch.number)
    )
    assert seen == list(range(stop + 1, 4))
    assert (weights(resumed), timeless(resumed.history)) == wholes[name]


@pytest.mark.parametrize("scheme", ["sprout", "free", "infomax", "aspects", "freelb", "distortion"])
def test_what_trains_beside_the_student_is_resumed_too(scheme: str, teacher: Any, tmp_path: Path) -> None:
    def stopper(epoch: Epoch) -> None:
        raise Killed

    with pytest.raises(Killed):
        run("student", scheme, teacher, folder=tmp_path, progress=stopper)
    assert weights(run("student", scheme, teacher, folder=tmp_path)) == weights(run("student", scheme, teacher))


def test_training_on_depends_on_nothing_drawn_before_and_goes_on(tmp_path: Path) -> None:
    scheme = Scheme("beside", (Term("task"), Term("aspects")))  # layers beside the student, which are drawn
    first = run("student", "natural").model

    def refined(**more: Any) -> Trained:
        return train.refine(copy.deepcopy(first), THREE, DATA, scheme, seed=0, **more)

    def stopper(epoch: Epoch) -> None:
        raise Killed

    whole = refined()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)  # noqa: TID251  # a caller's own generator must not matter
        with pytest.raises(Killed):
            refined(folder=tmp_path, progress=stopper)
    resumed = refined(folder=tmp_path)
    assert (weights(resumed), timeless(resumed.history)) == (weights(whole), timeless(whole.history))
    with pytest.raises(UsageError, match="belongs to another training"):
        train.refine(whole.model, THREE, DATA, scheme, seed=0, folder=tmp_path)


def test_a_finished_training_is_only_read(tmp_path: Path) -> None:
    first = run("student", "natural", folder=tmp_path)
    calls: list[Epoch] = []
    again = run("student", "natural", folder=tmp_path, progress=calls.append)
    assert not calls
    assert weights(first) == weights(again)
    assert first.history == again.history


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_train as t
from grit.bench.objectives import _flips
_flips.lexicons.load = lambda name: t.Table()
t.run("student", "adversarial", recipe=t.LONG, folder=Path({folder!r}), progress=lambda e: print(e.number, flush=True))
"""


def test_kill_nine_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "9":
                break
        time.sleep(random.SystemRandom().random() * 0.05)  # in one of the next epochs, perhaps within a save
        os.kill(process.pid, signal.SIGKILL)
    seen: list[int] = []
    resumed = run(
        "student", "adversarial", recipe=LONG, folder=tmp_path, progress=lambda epoch: seen.append(epoch.number)
    )
    assert 9 < seen[0] <= LONG.epochs
    assert weights(resumed) == weights(run("student", "adversarial", recipe=LONG))
    assert [file.name for file in tmp_path.iterdir()] == [train.CHECKPOINT]


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"recipe": dataclasses.replace(QUICK, epochs=3)},
        {"scheme": "smoothing"},
        {"dataset": dataclasses.replace(DATA, revision="1" * 64)},
        {"name": "tfidf"},
        {"threads": 2},
    ],
    ids=lambda other: next(iter(other)),
)
def test_the_checkpoint_of_another_training_is_refused(other: dict[str, Any], tmp_path: Path) -> None:
    run("student", "natural", folder=tmp_path)
    with pytest.raises(UsageError, match="belongs to another training; name another folder or delete it"):
        run(**{"name": "student", "scheme": "natural", "folder": tmp_path, **other})


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    run("student", "natural", folder=tmp_path)
    file = tmp_path / train.CHECKPOINT
    whole = file.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"not a checkpoint", whole[:-200] + bytes(200)):
        file.write_bytes(damaged)
        with pytest.raises(StorageError, match="delete it to train from the start"):
            run("student", "natural", folder=tmp_path)
    file.unlink()
    run("student", "natural", folder=tmp_path)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.write_text, (tmp_path / "exploded", "boom"))

    torch.save({"format": 1, "identity": Bomb()}, tmp_path / train.CHECKPOINT)
    with pytest.raises(StorageError):
        run("student", "natural", folder=tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        run("student", "natural", folder=tmp_path / "file")


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    def filling(epoch: Epoch) -> None:
        if epoch.number == 1:
            monkeypatch.setattr(torch, "save", full)

    with pytest.raises(StorageError, match="No space left on device"):
        run("student", "natural", folder=tmp_path, progress=filling)
    assert [file.name for file in tmp_path.iterdir()] == [train.CHECKPOINT]
    monkeypatch.undo()
    monkeypatch.setattr(_flips.lexicons, "load", lambda name: None)
    assert weights(run("student", "natural", folder=tmp_path)) == weights(run("student", "natural"))


# --- what can be wrong -----------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_is_one_clear_line() -> None:
    class Broken(Student):
        def head(self, state: torch.Tensor) -> torch.Tensor:
            return super().head(state) * float("nan")

    with pytest.raises(CouldNotMeasure) as caught:
        train.train(Broken, Broken.Config(), QUICK, DATA, schemes.get("natural"), seed=0)
    assert str(caught.value).startswith("the loss of Broken is nan in epoch 1 (task nan); lower learning_rate")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train": ()}, "dataset topics has no train texts"),
        ({"dev": ()}, "dataset topics has no dev texts"),
        ({"dev": (Example("x", "tide", 3),)}, "example x has label 3, expected 0 to 2"),
        ({"train": (Example("x", "tide", -1),)}, "example x has label -1, expected 0 to 2"),
    ],
)
def test_a_dataset_that_cannot_be_trained_on_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(MalformedInput, match=message):
        run("student", "natural", dataset=dataclasses.replace(DATA, **wrong))


def test_a_scheme_without_its_teacher_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="scheme proposed needs a teacher for distil, regress, attribution, got"):
        run("student", "proposed")


def test_odd_texts_are_trained_on() -> None:
    odd = ("", " ", "\u2603\u2603", "\u05e9\u05dc\u05d5\u05dd", "a" * 5000, "word " * 10_000, "!", "\U0001f600 :)")
    examples = tuple(Example(f"{place:x}", text, place % 3) for place, text in enumerate(odd))
    data = dataclasses.replace(DATA, train=examples, dev=examples)
    for name in MODELS:
        trained = run(name, "adversarial", dataset=data, recipe=dataclasses.replace(QUICK, epochs=1))
        assert np.isfinite(train.predict(trained.model, odd)).all()


# --- the parts -------------------------------------------------------------------------------------------


def test_predictions_do_not_depend_on_the_company_of_a_text() -> None:
    model = run("student", "natural").model
    texts = [example.text for example in DATA.train] + [""]
    together = train.predict(model, texts)
    alone = np.concatenate([train.predict(model, [text]) for text in texts])
    assert together.shape == (49, 3) and together.dtype == np.float32
    assert np.allclose(together, alone, atol=1e-5)
    assert train.predict(model, []).shape == (0, 3)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 17), st.integers(0, 9))
def test_batches_cover_every_text_once(lengths: list[int], size: int, seed: int) -> None:
    batches = train._batches(np.array(lengths), size, seed)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert max(map(len, batches)) <= size
    again = train._batches(np.array(lengths), size, seed)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_batches_hold_texts_of_like_length_in_a_shuffled_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 2000)
    batches = train._batches(lengths, 20, 1)
    assert np.mean([np.ptp(lengths[batch]) for batch in batches]) < 10  # of the 99 that chance would give
    middle = [lengths[batch].mean() for batch in batches]
    assert abs(np.corrcoef(middle, range(len(middle)))[0, 1]) < 0.3


def test_adam_is_adam() -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(4, 3, generator=generator), torch.randn(2, generator=generator), torch.ones(2)]
    ours = [tensor.clone().requires_grad_() for tensor in start]
    theirs = [tensor.clone().requires_grad_() for tensor in start]
    mine = Adam(ours, 0.1)
    means = [(torch.zeros_like(tensor), torch.zeros_like(tensor)) for tensor in start]
    steps = [0, 0, 0]
    for turn in range(5):
        for place, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            idle = place == 2 or (place == 1 and turn == 0)  # a weight that no loss reaches stays
            a.grad = None if idle else torch.randn(a.shape, generator=generator)
            if a.grad is None:
                continue
            gradient = a.grad + 0.1 * b.detach()
            steps[place] += 1
            first, second = means[place]
            first.copy_(0.9 * first + 0.1 * gradient)
            second.copy_(0.999 * second + 0.001 * gradient**2)
            steady = first / (1 - 0.9 ** steps[place])
            spread = second / (1 - 0.999 ** steps[place])
            b.data -= 0.01 * steady / (spread.sqrt() + 1e-8)
        mine.step(0.01)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert torch.equal(ours[2], start[2])


def test_clipping_bounds_a_step() -> None:
    scheme = Scheme("loud", (Term("task", 1e6),))
    loose = run("tfidf", scheme, recipe=dataclasses.replace(QUICK, epochs=1, clip_norm=0.0))
    tight = run("tfidf", scheme, recipe=dataclasses.replace(QUICK, epochs=1, clip_norm=1e-12))
    assert tight.model.rows.abs().max() < loose.model.rows.abs().max()  # type: ignore[attr-defined]


def test_replays_show_each_batch_several_times_and_fewer_texts() -> None:
    seen: list[int] = []

    class Watched(Student):
        def constrain(self, progress: float) -> None:
            seen.append(round(progress * 6))

    scheme = Scheme("free", (Term("free", 1.0, {"replays": 3}),))
    train.train(Watched, Watched.Config(), dataclasses.replace(QUICK, batch_size=8), DATA, scheme, seed=0)
    assert len(seen) == 2 * 6  # two epochs: six batches, of which every third comes three times


def test_progress_runs_to_one_in_equal_steps() -> None:
    seen: list[float] = []

    class Watched(Student):
        def constrain(self, progress: float) -> None:
            seen.append(progress)

    train.train(Watched, Watched.Config(), QUICK, DATA, schemes.get("natural"), seed=0)
    assert seen == [pytest.approx(number / 6) for number in range(1, 7)]


def test_the_attack_on_dev_texts_needs_what_it_may_write() -> None:
    model = run("student", "natural", recipe=Recipe(epochs=20, batch_size=8, learning_rate=3e-2)).model
    words = Words()
    codebook = Codebook(words, model)
    texts = Split(model, words, DATA.dev)
    train_split = Split(model, words, DATA.train)
    flips = _flips.Flips(codebook, train_split, "default", 0)
    found = train.attacked_accuracy(model, texts, codebook, flips)
    clean = float((train.predict(model, [e.text for e in DATA.dev]).argmax(1) == texts.labels).mean())
    assert found < clean
    flips.table = np.tile(np.arange(len(flips.table), dtype=np.int32)[:, None], 3)
    assert train.attacked_accuracy(model, texts, codebook, flips) == clean


def test_helpers_are_handed_back_for_those_who_want_them(teacher: Any) -> None:
    trained = run("student", "aspects", teacher)
    assert set(trained.helpers) == {"aspects"}
    assert not set(weights(trained)) & {"weights.weight", "vectors.weight"}
