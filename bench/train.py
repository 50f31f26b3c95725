"""A scheme at work on a model: from texts to trained weights.

The same call trains teachers, students and baselines. What a model does with a text is its own affair, what
is asked of it is the scheme's; here stand the loop, the choice of the best epoch (on the dev split only) and
the checkpoint that lets a killed training go on as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import nn

from grit.bench import schemes
from grit.bench.objectives._adam import Adam
from grit.bench.objectives._flips import Flips
from grit.bench.objectives._lessons import Lessons, digest_of
from grit.bench.objectives._passes import answer, margin, quiet, slope
from grit.bench.objectives._step import Objective as Objective  # the nouns of a loss term, for its authors
from grit.bench.objectives._step import Scene as Scene
from grit.bench.objectives._step import Step as Step
from grit.bench.objectives._words import Codebook, Split, Words
from grit.bench.types import (
    CouldNotMeasure,
    Dataset,
    Example,
    MalformedInput,
    Model,
    Recipe,
    Scheme,
    StorageError,
    UsageError,
)

ATTACKED = 300  # dev texts attacked after each epoch of a scheme that trains for robustness
ATTACK_ROUNDS = 6  # gradient passes of that attack
ATTACK_SHARE = 0.25  # of the words, as in the ranked threat model
CHECKPOINT = "checkpoint.pt"
_BUCKETS = 50  # batches sorted by length together: wider saves padding, narrower mixes better
_EVALUATION_BATCH = 256
_FORMAT = 1  # of the checkpoint


@dataclass(frozen=True)
class Epoch:
    """One pass over the training split: what was lost, and what the dev split says after it."""

    number: int  # from 1
    epochs: int  # at most
    seconds: float
    learning_rate: float
    losses: Mapping[str, float]  # term -> its mean, before its weight
    dev_accuracy: float
    dev_attacked: float | None  # accuracy on attacked dev texts, where the scheme trains for robustness
    score: float  # what the best epoch is chosen by; see Trained.criterion
    best: bool  # the best so far


@dataclass(frozen=True)
class Trained:
    """A model with the weights of its best epoch, in evaluation mode, and how it came to be."""

    model: Model
    history: tuple[Epoch, ...]
    criterion: str
    helpers: Mapping[str, nn.Module]  # term -> what was trained beside the model; nothing of it ships

    @property
    def best(self) -> Epoch:
        return [epoch for epoch in self.history if epoch.best][-1]


@runtime_checkable
class Settling(Protocol):
    """A model whose ``constrain`` makes another model of it half-way, as sparsity does."""

    def settled(self, progress: float) -> bool:
        """Whether an epoch that ends at this share of the training may count as the best."""
        ...


@runtime_checkable
class Replaying(Protocol):
    """An objective that wants each batch several times in a row; an epoch then shows as many times fewer texts."""

    @property
    def replays(self) -> int: ...


@runtime_checkable
class Rising(Protocol):
    """An objective that attacks harder until this share of the training: no epoch before it counts as the best."""

    @property
    def full(self) -> float: ...


@runtime_checkable
class Writing(Protocol):
    """An objective that writes synonyms over words: the attack that judges an epoch writes from the same lexicon."""

    @property
    def lexicon(self) -> str: ...


def train(
    model_class: type[Model],
    config: Any,
    recipe: Recipe,
    dataset: Dataset,
    scheme: Scheme,
    *,
    seed: int,
    teacher: Model | None = None,
    folder: Path | None = None,
    progress: Callable[[Epoch], None] | None = None,
    cache: Path | None = None,
    threads: int = 1,
) -> Trained:
    """A fresh model of ``model_class`` trained on ``dataset`` under ``scheme``.

    Best epoch and early stopping are chosen on the dev split: by clean accuracy, or, where a term of the scheme
    trains for robustness, by the mean of clean and attacked accuracy. With ``folder``, every epoch ends in a
    checkpoint there and the same call goes on from it; a resumed training ends with the same bits. ``cache``
    keeps the teacher's answers for other students. Equal arguments give equal weights on one machine at one
    number of ``threads``.

    Raises UsageError (a term needs a teacher or more classes; the folder holds another training), MalformedInput
    (an empty split, a label outside the classes), StorageError, and CouldNotMeasure when the loss is not a number.
    """
    terms = _terms(dataset, scheme, teacher)
    identity = _identity([_name(model_class), config], recipe, dataset, scheme, seed, teacher, threads)
    with _exact(threads):
        run = _Run(_fresh(model_class, config, dataset, seed), recipe, dataset, terms, seed, teacher, cache)
        run.go_on(folder, identity, progress)
        return run.result()


def refine(
    model: Model,
    recipe: Recipe,
    dataset: Dataset,
    scheme: Scheme,
    *,
    seed: int,
    teacher: Model | None = None,
    folder: Path | None = None,
    progress: Callable[[Epoch], None] | None = None,
    cache: Path | None = None,
    threads: int = 1,
) -> Trained:
    """Like :func:`train`, from the weights that ``model`` has; it is changed in place.

    What its ``constrain`` remembers from step to step has to lie in buffers: a checkpoint holds nothing else of it.
    """
    terms = _terms(dataset, scheme, teacher)
    identity = _identity([digest_of(model)], recipe, dataset, scheme, seed, teacher, threads)
    with _exact(threads):
        _reseed(_derived(seed, "beside"))
        run = _Run(model, recipe, dataset, terms, seed, teacher, cache, begun=True)
        run.go_on(folder, identity, progress)
        return run.result()


def early(
    model_class: type[Model],
    config: Any,
    recipe: Recipe,
    dataset: Dataset,
    scheme: Scheme,
    *,
    seed: int,
    epochs: int,
    teacher: Model | None = None,
    folder: Path | None = None,
    cache: Path | None = None,
    threads: int = 1,
) -> Model:
    """The model that :func:`train` with these arguments has after its first ``epochs``; after none, as drawn."""
    terms = _terms(dataset, scheme, teacher)
    identity = _identity([_name(model_class), config, epochs], recipe, dataset, scheme, seed, teacher, threads)
    with _exact(threads):
        model = _fresh(model_class, config, dataset, seed)
        run = _Run(model, recipe, dataset, terms, seed, teacher, cache)  # a term may settle weights before any step
        if epochs:
            run.go_on(folder, identity, until=epochs)
        return model


def _terms(dataset: Dataset, scheme: Scheme, teacher: Model | None) -> list[tuple[str, float, Objective]]:
    """The terms of a scheme that can be trained with what is there."""
    _check(dataset)
    schemes.check_classes(scheme, len(dataset.labels))
    terms = schemes.objectives(scheme)
    if teacher is None and any(objective.needs_teacher for _, _, objective in terms):
        needing = ", ".join(name for name, _, objective in terms if objective.needs_teacher)
        raise UsageError(f"scheme {scheme.name} needs a teacher for {needing}, got none; train one or take `natural`")
    return terms


def _fresh(model_class: type[Model], config: Any, dataset: Dataset, seed: int) -> Model:
    """Within :func:`_exact` only: a model may draw from torch's own generator."""
    _reseed(_derived(seed, "weights"))
    return model_class.build(config, [example.text for example in dataset.train], len(dataset.labels), seed)


def predict(model: Model, texts: Sequence[str]) -> np.ndarray:
    """The model's logits on texts, as deployed: float32 [texts classes]."""
    if not texts:
        return np.zeros((0, model.classes), np.float32)
    words = Words()
    split = Split(model, words, [Example(str(place), text, 0) for place, text in enumerate(texts)])
    return _logits(model, split, Codebook(words, model))


class _Run:
    """A training under way: all that a checkpoint has to bring back, and the loop over one epoch."""

    def __init__(
        self,
        student: Model,
        recipe: Recipe,
        dataset: Dataset,
        terms: list[tuple[str, float, Objective]],
        seed: int,
        teacher: Model | None,
        cache: Path | None,
        begun: bool = False,
    ) -> None:
        words = Words()
        codebook = Codebook(words, student)
        self.student = student
        self.module = cast(nn.Module, student)  # by the contract of Model
        self.recipe = recipe
        self.terms = terms
        self.seed = seed
        self.robust = any(objective.adversarial for _, _, objective in terms)
        train_split = Split(student, words, dataset.train)
        self.dev = Split(student, words, dataset.dev)
        self.attacked = Split(student, words, _drawn(dataset.dev, ATTACKED, seed)) if self.robust else None
        self.lexicon = next((o.lexicon for _, _, o in terms if isinstance(o, Writing)), "default")
        lessons = Lessons(teacher, dataset.train, words, cache) if teacher is not None else None
        self.scene = Scene(student, words, codebook, train_split, len(dataset.labels), seed, lessons, begun=begun)
        helpers = {objective: objective.helper(self.scene) for _, _, objective in terms}
        self.scene.helpers = {objective: helper for objective, helper in helpers.items() if helper is not None}
        self.helpers = nn.ModuleList(self.scene.helpers.values())
        self.weights = [w for w in (*self.module.parameters(), *self.helpers.parameters()) if w.requires_grad]
        self.optimiser = Adam(self.weights, recipe.weight_decay)
        self.history: list[Epoch] = []
        self.best: dict[str, torch.Tensor] = {}

    @property
    def criterion(self) -> str:
        if self.attacked is None:
            return f"accuracy on {len(self.dev)} dev texts"
        return (
            f"mean of accuracy on {len(self.dev)} dev texts and on {len(self.attacked)} of them under a gradient "
            f"attack ({ATTACK_ROUNDS} passes, {ATTACK_SHARE:.0%} of the words)"
        )

    @property
    def finished(self) -> bool:
        done, patience = len(self.history), self.recipe.patience
        last_best = max((epoch.number for epoch in self.history if epoch.best), default=done)
        return done >= self.recipe.epochs or 0 < patience <= done - last_best

    def go_on(
        self,
        folder: Path | None,
        identity: str,
        progress: Callable[[Epoch], None] | None = None,
        *,
        until: int | None = None,
    ) -> None:
        """Every epoch that is still to come, ``until`` so many are done or to the end; each leaves a checkpoint."""
        if folder is not None:
            self.restore(folder, identity)
        while not self.finished if until is None else len(self.history) < until:
            epoch = self.epoch()
            if folder is not None:
                self.save(folder, identity)
            if progress is not None:
                progress(epoch)

    def epoch(self) -> Epoch:
        """Trains one epoch and judges it."""
        started = time.perf_counter()
        number = len(self.history)
        _reseed(_derived(self.seed, "noise", number))
        generator = torch.Generator().manual_seed(_derived(self.seed, "generator", number))
        rng = random.Random(_derived(self.seed, "random", number))
        batches = _batches(self.scene.train.lengths, self.recipe.batch_size, _derived(self.seed, "batches", number))
        replays = max((o.replays for _, _, o in self.terms if isinstance(o, Replaying)), default=1)
        batches = [index for index in batches[::replays] for _ in range(replays)]
        rate = self.recipe.learning_rate
        if self.recipe.decay_every:
            rate *= self.recipe.decay ** (number // self.recipe.decay_every)
        self.scene.epoch = number
        self.module.train()
        sums = dict.fromkeys((name for name, _, _ in self.terms), 0.0)
        for place, index in enumerate(batches, 1):
            share = (number + place / len(batches)) / self.recipe.epochs
            step = Step(self.scene, index, share, generator, rng)
            for name, loss in self.learn(step, rate).items():
                sums[name] += loss * len(index)
        losses = {name: total / sum(map(len, batches)) for name, total in sums.items()}
        return self.judge(number, rate, losses, started)

    def learn(self, step: Step, rate: float) -> dict[str, float]:
        """One step of the optimiser; the losses before it."""
        losses = {name: objective(step) for name, _, objective in self.terms}
        total = sum((weight * losses[name] for name, weight, _ in self.terms), torch.zeros(()))
        found = {name: float(loss.detach()) for name, loss in losses.items()}
        if not torch.isfinite(total):
            shown = ", ".join(f"{name} {value:g}" for name, value in found.items())
            raise CouldNotMeasure(
                f"the loss of {type(self.student).__name__} is {float(total.detach()):g} in epoch {step.epoch + 1} "
                f"({shown}); lower learning_rate ({rate:g}) or the weight of the term that grew"
            )
        for weight in self.weights:
            weight.grad = None
        if total.requires_grad:
            total.backward()
            if self.recipe.clip_norm:
                nn.utils.clip_grad_norm_(self.weights, self.recipe.clip_norm)
            self.optimiser.step(rate)
        self.student.constrain(step.progress)
        return found

    def judge(self, number: int, rate: float, losses: Mapping[str, float], started: float) -> Epoch:
        clean = float((_logits(self.student, self.dev, self.scene.codebook).argmax(1) == self.dev.labels).mean())
        attacked, score = None, clean
        if self.attacked is not None:
            flips = self.scene.flips(self.lexicon)
            attacked = attacked_accuracy(self.student, self.attacked, self.scene.codebook, flips)
            score = (clean + attacked) / 2
        progress = (number + 1) / self.recipe.epochs
        ripe = progress >= max((o.full for _, _, o in self.terms if isinstance(o, Rising)), default=0.0) and (
            not isinstance(self.student, Settling) or self.student.settled(progress)
        )
        best = ripe and score > max((epoch.score for epoch in self.history if epoch.best), default=-1.0)
        if best or not self.history:
            self.best = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        seconds = time.perf_counter() - started
        epoch = Epoch(number + 1, self.recipe.epochs, seconds, rate, losses, clean, attacked, score, best)
        self.history.append(epoch)
        return epoch

    def result(self) -> Trained:
        self.module.load_state_dict(self.best)
        self.module.eval()
        beside = {name: self.scene.helpers[o] for name, _, o in self.terms if o in self.scene.helpers}
        return Trained(self.student, tuple(self.history), self.criterion, beside)

    # --- checkpoint ---------------------------------------------------------------------------------------

    def save(self, folder: Path, identity: str) -> None:
        """Replaces the checkpoint in one motion: a kill leaves the old one or the new one."""
        state = {
            "format": _FORMAT,
            "identity": identity,
            "model": self.module.state_dict(),
            "best": self.best,
            "helpers": self.helpers.state_dict(),
            "optimiser": self.optimiser.state(),
            "history": [asdict(epoch) for epoch in self.history],
        }
        part: str | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=CHECKPOINT, suffix=".part", delete=False) as file:
                part = file.name
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, folder / CHECKPOINT)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            if part is not None:
                Path(part).unlink(missing_ok=True)
            remedy = "free some space or name another folder"
            raise StorageError(f"cannot write {folder / CHECKPOINT}: {error}; {remedy}") from error

    def restore(self, folder: Path, identity: str) -> None:
        """Goes on from the folder's checkpoint, if there is one, and clears what a killed save left."""
        for part in folder.glob(f"{CHECKPOINT}*.part"):
            part.unlink(missing_ok=True)
        file = folder / CHECKPOINT
        if not file.is_file():
            return
        try:
            state = torch.load(file, weights_only=True)
            known, found = state["format"] == _FORMAT, state["identity"]
        except Exception as error:  # damaged bytes fail in many ways inside torch, zip and pickle
            raise StorageError(f"cannot read {file}: {error}; delete it to train from the start") from error
        if not known or found != identity:
            raise UsageError(f"{file} belongs to another training; name another folder or delete it")
        self.module.load_state_dict(state["model"])
        self.helpers.load_state_dict(state["helpers"])
        self.optimiser.restore(state["optimiser"])
        self.best = state["best"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]


# --- the dev split -----------------------------------------------------------------------------------------


def attacked_accuracy(model: Model, split: Split, codebook: Codebook, flips: Flips) -> float:
    """Share of texts read rightly before and after each round of a cheap first-order attack.

    A yardstick for choosing epochs, not a measure of robustness: the attack is weaker than the ranked ones and
    knows only what stands in ``flips``.
    """
    right = 0
    for index in split.batches(_EVALUATION_BATCH):
        rows, labels = split.rows(index), torch.from_numpy(split.labels[index])
        lengths = torch.from_numpy(split.lengths[index])
        before, left = rows, flips.budgets(rows, lengths, ATTACK_SHARE)
        standing = np.ones(len(index), bool)
        for turn in range(ATTACK_ROUNDS + 1):
            with quiet(model), torch.no_grad():
                features = model.features(codebook.codes(rows))
                standing &= (margin(answer(model, features, lengths), labels) < 0).numpy()
            if turn == ATTACK_ROUNDS:
                break
            spend = -(-left // (ATTACK_ROUNDS - turn))
            rows = flips.write(rows, lengths, slope(model, features, lengths, labels), spend, rows != before)
            left = left - spend
        right += int(standing.sum())
    return right / len(split)


def _logits(model: Model, split: Split, codebook: Codebook) -> np.ndarray:
    found = np.zeros((len(split), model.classes), np.float32)
    with quiet(model), torch.no_grad():
        for index in split.batches(_EVALUATION_BATCH):
            features = model.features(codebook.codes(split.rows(index)))
            found[index] = answer(model, features, torch.from_numpy(split.lengths[index])).numpy()
    return found


def _drawn(examples: Sequence[Example], n: int, seed: int) -> list[Example]:
    """At most ``n`` examples, by rank of a hash of seed and id: the same ones in any order of the split."""
    return sorted(examples, key=lambda example: _derived(seed, example.id))[:n]


# --- what makes a training repeatable ----------------------------------------------------------------------


def _batches(lengths: np.ndarray, size: int, seed: int) -> list[np.ndarray]:
    """A shuffled cover of all texts by batches of similar length."""
    rng = np.random.Generator(np.random.PCG64(seed))
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), size * _BUCKETS):
        bucket = order[start : start + size * _BUCKETS]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches += [bucket[first : first + size] for first in range(0, len(bucket), size)]
    return [batches[place] for place in rng.permutation(len(batches))]


def _derived(seed: int, *parts: object) -> int:
    """A seed of its own for each use: 63 bits of sha256(seed, parts)."""
    return int.from_bytes(hashlib.sha256(repr((seed, *parts)).encode()).digest()[:8], "big") >> 1


@contextmanager
def _exact(threads: int) -> Iterator[None]:
    """A fixed number of threads, deterministic kernels, and torch's global generator as it was, afterwards."""
    before, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    memory: Any = torch.utils.deterministic  # a module whose switch is a property
    filled = memory.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("warn")
    # What an operation is about to write need not be filled first: that is for finding what reads without writing.
    memory.fill_uninitialized_memory = False
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_deterministic_debug_mode(mode)
        memory.fill_uninitialized_memory = filled


def _reseed(seed: int) -> None:
    """Seeds torch's global generator, within :func:`_exact` only: fresh layers and torch's own dropout draw from it."""
    torch.manual_seed(seed)  # noqa: TID251  # _exact forks it and puts it back


def _identity(
    start: Sequence[object],
    recipe: Recipe,
    dataset: Dataset,
    scheme: Scheme,
    seed: int,
    teacher: Model | None,
    threads: int,
) -> str:
    """What a checkpoint belongs to; ``start``: what the training starts from, in words."""
    taught = digest_of(teacher) if teacher is not None and schemes.needs_teacher(scheme) else ""
    parts = (*start, recipe, dataset.name, dataset.revision, scheme, seed, taught, threads)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _name(model_class: type) -> str:
    return f"{model_class.__module__}:{model_class.__qualname__}"


def _check(dataset: Dataset) -> None:
    for split in ("train", "dev"):
        examples: tuple[Example, ...] = getattr(dataset, split)
        if not examples:
            raise MalformedInput(f"dataset {dataset.name} has no {split} texts; training needs both train and dev")
        wrong = next((e for e in examples if not 0 <= e.label < len(dataset.labels)), None)
        if wrong is not None:
            raise MalformedInput(
                f"dataset {dataset.name}, {split}: example {wrong.id} has label {wrong.label}, "
                f"expected 0 to {len(dataset.labels) - 1}"
            )
