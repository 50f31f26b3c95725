"""A study, start to end: a global model a fold, every arm at every number of examples, records, a board.

What is finished lies in the folder and is not done again: the global models, one file of rows a model, seed, fold and
start, and of the one in work every row. The same command goes on where it was killed, and a folder of another study
is refused.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from grit.bench import checkpoint, datasets, machine, records, registry, schemes
from grit.bench.export import build
from grit.bench.personalize import (
    arms,
    costs,
    leakage,
    loyalty,
    meta,
    private,
    protocol,
    raters,
    results,
    robust,
    users,
)
from grit.bench.personalize.protocol import Person, Training
from grit.bench.personalize.summary import MAJORITY, PERCENTILE_USERS
from grit.bench.personalize.texts import Base, Texts
from grit.bench.progress import Report
from grit.bench.train import train
from grit.bench.types import Artefact, Attack, CouldNotMeasure, Dataset, MalformedInput, Model, UsageError

CONFIG = "study.json"
STARTS = ("plain", "meta")
DEFAULT = f"{raters.PREFIX}{datasets.EMBEDDED}"


@dataclass(frozen=True)
class Study:
    """What is asked. ``probe``: global test texts on which copies are compared with the global model."""

    dataset: str = DEFAULT
    models: tuple[str, ...] = ("student",)
    scheme: str = "natural"
    arms: tuple[str, ...] = tuple(arms.ARMS)
    starts: tuple[str, ...] = ("plain",)
    ks: tuple[int, ...] = (1, 4, 16, 64)
    seeds: tuple[int, ...] = (0,)
    attacks: tuple[str, ...] = ("hotflip", "deepwordbug")
    robust_users: int = 8  # test users of a fold whose copies are attacked, at one k (:func:`attacked_k`)
    robust_texts: int = 20  # of each
    probe: int = 200
    n_train: int | None = None
    most_users: int = 120  # of validation, and of test
    cores: tuple[str, ...] = costs.TARGETS  # emulated, on which learning is counted
    training: Training = field(default_factory=Training)
    meta: meta.Meta = field(default_factory=meta.Meta)
    settings: tuple[tuple[str, str], ...] = ()  # fields of a model's configuration or recipe


@dataclass(frozen=True, eq=False)
class Cell:
    """One global model in one fold: all that a row needs to know but its arm and its k."""

    study: Study
    model: str
    seed: int
    start: str
    fold: users.Fold
    base: Base
    config: Any
    recipe: Any
    attacks: Mapping[str, Attack]
    folder: Path  # where rows lie until all are there
    untouched: dict[str, robust.Withstood] = field(default_factory=dict)  # user -> the global model under attack


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one cell leaves in its file."""

    rows: tuple[results.Row, ...]
    missing: tuple[records.CostPart, ...]
    seconds: float


def run(study: Study, folder: Path, report: Report) -> list[results.Document]:
    """All rows of a study, written to ``folder``.

    Raises UsageError (an unknown name, a folder of another study), CouldNotMeasure, MalformedInput, StorageError.
    """
    _check(study)
    cut = users.Cut(most_pool=max(study.ks), most_users=study.most_users, n_train=study.n_train)
    folds = parted(study.dataset, cut)
    most = min(map(_most, folds))
    if min(study.ks) > most:
        raise CouldNotMeasure(f"no user has {min(study.ks)} texts to learn from: ask for {most} at most with --k")
    _open(study, folder, folds)
    attacks = {spec: registry.attack(spec) for spec in study.attacks}
    found: list[_Kept] = []
    for model in study.models:
        for seed in study.seeds:
            for fold in folds:
                for start in study.starts:
                    found.append(_cell(study, model, seed, start, fold, attacks, folder, report))
    rows = results.joined([row for kept in found for row in kept.rows])
    documents = [results.Document(row=row, run=_run_part(found, row)) for row in rows]
    results.write(folder / results.FILE, documents)
    return documents


def parted(name: str, cut: users.Cut) -> tuple[users.Fold, ...]:
    """The folds behind a name: ``raters:NAME`` for made people over a dataset, else the users of its rows."""
    if name.startswith(raters.PREFIX):
        return (raters.fold(datasets.load(name.removeprefix(raters.PREFIX)), cut),)
    return users.folds(datasets.load(name), cut)


def _most(fold: users.Fold) -> int:
    """The largest k that a validation user and a test user have texts for."""
    return min(max(len(user.pool) for user in part) for part in (fold.validation, fold.test))


def default_folder(study: Study) -> Path:
    safe = "".join(letter if letter.isalnum() else "_" for letter in study.dataset)
    return Path("runs") / f"personal-{safe}-{records.digest(records.encode(study))[:12]}"


# --- one global model ----------------------------------------------------------------------------------------


def _cell(
    study: Study,
    model: str,
    seed: int,
    start: str,
    fold: users.Fold,
    attacks: Mapping[str, Attack],
    folder: Path,
    report: Report,
) -> _Kept:
    name = f"{model}.{study.scheme}.{fold.name}.s{seed}"
    file = folder / "cells" / f"{name}.{start}.json"
    if file.is_file():
        return records.decoded(records.read(file), _Kept, str(file))
    began = time.perf_counter()
    config, recipe = _configured(model, study.settings)
    trained = _global(study, model, config, recipe, seed, fold, folder / "models" / name, report)
    if start == "meta":
        report(name, "meta-training", 0, 1)
        trained = meta.meta_trained(trained, fold.tasks, study.meta, seed)
        report(name, "meta-training", 1, 1)
    cell = Cell(study, model, seed, start, fold, Base(trained), config, recipe, attacks, file.with_suffix(""))
    rows, missing = _rows(cell, f"{name} {start}", report)
    kept = _Kept(rows=tuple(rows), missing=missing, seconds=round(time.perf_counter() - began, 3))
    records.write(file, records.encode(kept))
    shutil.rmtree(cell.folder)
    return kept


def _global(
    study: Study, model: str, config: Any, recipe: Any, seed: int, fold: users.Fold, home: Path, report: Report
) -> Model:
    """The model that knows no user of validation and test, trained once a folder."""
    if (home / "done").is_file():
        return checkpoint.load_model(home)
    scheme = schemes.get(study.scheme)
    teacher = None
    if schemes.needs_teacher(scheme):
        cls = registry.load("models", scheme.teacher)
        natural = dataclasses.replace(study, scheme="natural")
        place = home.with_name(f"{scheme.teacher}.teaches.{fold.name}.s{seed}")
        teacher = _global(natural, scheme.teacher, cls.Config(), cls.recipe, seed, fold, place, report)
    trained = train(
        registry.load("models", model),
        config,
        recipe,
        fold.data,
        scheme,
        seed=seed,
        teacher=teacher,
        folder=home / "training",
        progress=lambda epoch: report(home.name, "training", epoch.number, epoch.epochs),
    )
    checkpoint.save_model(trained.model, home, fold.data.labels)
    records.write(home / "done", b"")
    return trained.model


def _rows(cell: Cell, job: str, report: Report) -> tuple[list[results.Row], tuple[records.CostPart, ...]]:
    """Every arm at every k that both validation and test users have; and what it costs that could not be measured."""
    base, fold, study = cell.base, cell.fold, cell.study
    validation = protocol.people(base, fold.validation)
    tested = protocol.people(base, fold.test)
    probe = base.texts(datasets.subset(fold.data.test, study.probe, fold.data.name))
    ks = [k for k in study.ks if k <= _most(fold)]
    keys = list(dict.fromkeys(("none", "bias", *study.arms)))
    rows, done = [], 0
    for k in ks:
        rows.append(_majority_row(cell, tested, k))
        for key in keys:
            report(job, "personalizing", done, len(ks) * len(keys))
            kept = cell.folder / f"{key}.{k}.json"
            if kept.is_file():
                rows.append(records.decoded(records.read(kept), results.Row, str(kept)))
            else:
                attack = k == attacked_k(tested, ks)
                rows.append(_row(cell, arms.get(key), k, validation, tested, probe, attack=attack))
                records.write(kept, records.encode(rows[-1]))
            done += 1
    missing: tuple[records.CostPart, ...] = ()
    if cell.study.cores and (cell.seed, cell.start) == (study.seeds[0], study.starts[0]):
        report(job, "counting", 0, 1)
        lasting, missing = _costs(cell, next(p for p in tested if p.able(max(ks))).pool.first(max(ks)))
        at = max(i for i, row in enumerate(rows) if row.arm == "last") if "last" in keys else len(rows) - 1
        rows[at] = msgspec.structs.replace(rows[at], cost=lasting)
        report(job, "counting", 1, 1)
    return rows, missing


def attacked_k(tested: Sequence[Person], ks: Sequence[int]) -> int:
    """The number of examples at which copies are attacked: the largest that users enough for percentiles have.

    Where none has so many users, the largest of all.
    """
    many = [k for k in ks if sum(person.able(k) for person in tested) >= PERCENTILE_USERS]
    return max(many or ks)


def _costs(cell: Cell, texts: Texts) -> tuple[tuple[records.CostPart, ...], tuple[records.CostPart, ...]]:
    """What training the last layer costs on each core: what every machine would count, and what this one could not."""
    try:
        artefact: Artefact | None = robust.shipped(cell.base.model, build.calibration(cell.fold.data))
    except CouldNotMeasure:  # a model without a program: learning is counted, reading is not
        artefact = None
    rate = arms.get("last").rates[-1]
    return records.place_costs(costs.cells(cell.study.cores, texts, rate, cell.study.training, artefact))


def _row(
    cell: Cell,
    arm: arms.Arm,
    k: int,
    validation: Sequence[Person],
    tested: Sequence[Person],
    probe: Texts,
    *,
    attack: bool,
) -> results.Row:
    base, training = cell.base, cell.study.training
    choice = protocol.choose(arm, base, validation, k, training, cell.seed)
    able = [person for person in tested if person.able(k)]
    calibration = build.calibration(cell.fold.data) if attack else []
    found, notes = [], []
    for number, person in enumerate(able):
        learned = protocol.personalised(arm, base, person.pool.first(k), choice, training, cell.seed)
        part = _user(cell, arm, person, k, learned, probe)
        if attack and number < cell.study.robust_users and cell.attacks:
            try:
                part = _attacked(cell, arm, person, k, learned, calibration, part)
            except CouldNotMeasure as reason:
                notes.append(f"robustness of {arm.key} not measured: {reason}")
        found.append(part)
    fold_name = known_as(cell.fold, cell.fold.name)
    chosen = results.ChoicePart(
        fold=fold_name, rate=choice.rate, epoch=choice.epoch, score=choice.score, users=choice.users
    )
    if arm.private is not None:
        epsilon = private.epsilon(arm.private, choice.epoch)
        notes.append(
            f"{arm.key}, fold {fold_name}: noise {arm.private.noise:g}, clip {arm.private.clip:g}, {choice.epoch} "
            f"epochs: each text has epsilon {epsilon:.2f} at delta {private.DELTA:g}"
        )
    return _as_row(cell, arm.key, k, (chosen,), found, tuple(dict.fromkeys(notes)))


def known_as(fold: users.Fold, name: str) -> str:
    """What records call a user, or a fold named after one: whose mail it was stays with the data."""
    people = {user.name for user in (*fold.validation, *fold.test)}
    if name not in people or fold.dataset.startswith(raters.PREFIX):
        return name
    return "u" + records.digest(f"{fold.dataset}\n{name}".encode())[:10]


def _user(
    cell: Cell, arm: arms.Arm, person: Person, k: int, learned: arms.Weights | None, probe: Texts
) -> results.UserPart:
    base = cell.base
    held, pool = person.held_out, person.pool.first(k)
    before, after = (protocol.logits(arm, base, weights, probe) for weights in (None, learned))
    labels = probe.labels.numpy()
    moved, read = leakage.recovered(base, learned), leakage.read_words(pool)
    return results.UserPart(
        user=known_as(cell.fold, person.name),
        n=len(held),
        right=protocol.right(arm, base, learned, held),
        before=protocol.right(arm, base, None, held),
        probe_n=len(probe),
        probe_right=int((after.argmax(1) == labels).sum()),
        probe_before=int((before.argmax(1) == labels).sum()),
        probe_same=loyalty.label_loyalty(before, after),
        probability_loyalty=round(loyalty.probability_loyalty(before, after), 6),
        membership_auc=_membership(arm, base, learned, pool, held),
        words_read=len(read),
        words_moved=len(moved),
        words_recovered=len(moved & read),
        update_bytes=0 if learned is None else arms.stored_bytes(arm.start(base, cell.seed), learned),
    )


def _membership(arm: arms.Arm, base: Base, learned: arms.Weights | None, pool: Texts, held: Texts) -> float | None:
    """AUC of telling the texts that were learned from; 0.5 where nothing was learned."""

    def losses(weights: arms.Weights | None) -> np.ndarray:
        return np.concatenate(
            [leakage.loss(protocol.logits(arm, base, weights, part), part.labels.numpy()) for part in (pool, held)]
        )

    found = leakage.membership([losses(None), losses(learned)], len(pool))
    return None if found is None else round(found, 6)


def _attacked(
    cell: Cell,
    arm: arms.Arm,
    person: Person,
    k: int,
    learned: arms.Weights | None,
    calibration: Sequence[str],
    part: results.UserPart,
) -> results.UserPart:
    found = cell.untouched.get(person.name) if learned is None else None  # arms that chose epoch 0 ship the same bytes
    if found is None:
        model = cell.base.copied() if learned is None else arm.model(cell.base, learned)
        given = person.pool.labels[:k].tolist()
        favourite = protocol.majority(given, _prior(cell.fold.data))
        texts = person.held_out.examples[: cell.study.robust_texts]
        found = robust.attacked(model, texts, favourite, cell.attacks, calibration, cell.seed)
    if learned is None:
        cell.untouched[person.name] = found
    return msgspec.structs.replace(part, attacked=results.AttackedPart(**dataclasses.asdict(found)))


def _majority_row(cell: Cell, tested: Sequence[Person], k: int) -> results.Row:
    """The floor that reads nothing: the most frequent label of the texts that a user learns from."""
    prior = _prior(cell.fold.data)
    found = []
    for person in tested:
        if person.able(k):
            label = protocol.majority(person.pool.labels[:k].tolist(), prior)
            none = arms.get("none")
            found.append(
                results.UserPart(
                    user=known_as(cell.fold, person.name),
                    n=len(person.held_out),
                    right=int((person.held_out.labels == label).sum()),
                    before=protocol.right(none, cell.base, None, person.held_out),
                )
            )
    return _as_row(cell, MAJORITY, k, (), found, ())


def _prior(data: Dataset) -> list[int]:
    return [example.label for example in data.train]


def _as_row(
    cell: Cell,
    arm: str,
    k: int,
    choices: tuple[results.ChoicePart, ...],
    found: Sequence[results.UserPart],
    notes: tuple[str, ...],
) -> results.Row:
    study = cell.study
    return results.Row(
        dataset=cell.fold.dataset,
        revision=cell.fold.data.revision,
        model=cell.model,
        config=records.plain(cell.config),
        recipe=records.plain(cell.recipe),
        scheme=study.scheme,
        start=cell.start,
        arm=arm,
        k=k,
        seed=cell.seed,
        training=records.plain(study.training),
        attacks=study.attacks,
        choices=choices,
        users=tuple(found),
        notes=notes,
    )


# --- the folder, and what is asked --------------------------------------------------------------------------


def _check(study: Study) -> None:
    """Every name and number, before any work."""
    for key in study.arms:
        arms.get(key)
    for model in study.models:
        _configured(model, study.settings)
    schemes.get(study.scheme)
    for start in study.starts:
        if start not in STARTS:
            raise registry.unknown("start", start, STARTS, f"the starts are {', '.join(STARTS)}")
    if not study.ks or min(study.ks) < 1:
        raise UsageError(f"k={','.join(map(str, study.ks))}: expected whole numbers from 1")
    for spec in study.attacks:
        registry.attack(spec)
    for core in study.cores:
        costs.known(core)


def _configured(model: str, settings: Sequence[tuple[str, str]]) -> tuple[Any, Any]:
    """A model's configuration and recipe with the settings that name their fields."""
    cls = registry.load("models", model)
    config, recipe = cls.Config(), cls.recipe
    fields = {field.name for field in dataclasses.fields(config)}
    mine = {name: value for name, value in settings if name in fields}
    rest = {name: value for name, value in settings if name not in fields}
    return (
        registry.override(config, mine, owner=f"model {model}"),
        registry.override(recipe, rest, owner=f"the recipe of {model}"),
    )


def _open(study: Study, folder: Path, folds: Sequence[users.Fold]) -> None:
    """The folder, made or found to hold this very study on this very data."""
    mine = {"study": records.plain(study), "revisions": [fold.data.revision for fold in folds]}
    file = folder / CONFIG
    if file.is_file():
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise MalformedInput(f"{file}: not JSON ({error}); remove it and repeat the command") from error
        if kept != mine:
            raise UsageError(f"{folder} holds another study, or this one on other data; give another folder with -o")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty and holds no study; give another folder with -o")
    records.write(file, json.dumps(mine, indent=1, sort_keys=True).encode() + b"\n")


def _run_part(found: Sequence[_Kept], row: results.Row) -> records.RunPart:
    mine = [kept for kept in found if any(each.key == row.key for each in kept.rows)]
    missing = {cell.target: cell for kept in mine for cell in kept.missing}
    return records.RunPart(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds={"cells": round(sum(kept.seconds for kept in mine), 3)},  # of all arms and k together
        machine=machine.facts(),
        versions=machine.versions(),
        cost=tuple(missing.values()),
        command=shlex.join(["grit", *sys.argv[1:]]),
    )
