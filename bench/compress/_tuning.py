"""Training on: what a step does that has to repair what it took away.

All steps that train do so under the row's own scheme, teacher and recipe, and choose their epoch as the row did: on the
dev split. The arms of pruning take the same number of optimiser steps, whatever they start from (as Renda, Frankle,
Carbin compare them, ICLR 2020), so that what differs between them is the start alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch

from grit.bench import train
from grit.bench.compress._draft import Course, Draft, arrays, mapped
from grit.bench.compress._network import Network, Rule
from grit.bench.types import Model, Program, UsageError

HEAD = "head."  # what no pruning touches: a few weights, and the last word


def tuned(
    key: str,
    program: Program,
    course: Course,
    epochs: int,
    *,
    rate: float = 1.0,
    rule: Rule | None = None,
    settles: float = 0.0,
    rounded: bool = False,
) -> tuple[Program, dict[str, Any]]:
    """The program of the best epoch, and what a record says of the training, which goes on where it was killed.

    key: of the step, which a rung has once. rate: share of the recipe's learning rate; the rest as in :class:`Network`.
    No patience: every epoch is taken.
    """
    rate *= course.recipe.learning_rate
    recipe = dataclasses.replace(course.recipe, epochs=epochs, learning_rate=rate, patience=0)
    network = Network(program, rule=rule, settles=settles, rounded=rounded)
    trained = train.refine(
        cast(Model, network),  # separable belongs to its program, not to its class
        recipe,
        course.dataset,
        course.scheme,
        seed=course.seed,
        teacher=course.teacher,
        folder=course.folder and course.folder / key,
        progress=course.progress,
        cache=course.cache,
    )
    batches = -(-len(course.dataset.train) // recipe.batch_size)
    facts = {
        "epochs": epochs,
        "optimiser_steps": epochs * batches,
        "learning_rate": rate,
        "best_epoch": trained.best.number,
        "dev_score": trained.best.score,
        "selection": trained.criterion,
    }
    return network.program(), facts


# --- pruning ------------------------------------------------------------------------------------------------


def masks(program: Program, density: float) -> dict[str, np.ndarray]:
    """path -> which weights stay: the largest ``density`` of all magnitudes together, but for biases and the head."""
    pruned = {path: np.abs(a) for path, a in arrays(program).items() if a.ndim >= 2 and not path.startswith(HEAD)}
    every = np.concatenate([magnitudes.ravel() for magnitudes in pruned.values()])
    keeps = max(1, round(density * len(every)))
    ranks = np.empty(len(every), np.int64)
    ranks[np.argsort(-every, kind="stable")] = np.arange(len(every))
    ends = np.cumsum([magnitudes.size for magnitudes in pruned.values()])[:-1]
    parts = np.split(ranks < keeps, ends)
    return {path: part.reshape(pruned[path].shape) for path, part in zip(pruned, parts, strict=True)}


def masked(program: Program, kept: Mapping[str, np.ndarray]) -> Program:
    """The program with zeros where no weight stays; UsageError where its arrays have other shapes."""

    def zeroed(path: str, array: np.ndarray) -> np.ndarray:
        if path not in kept:
            return array
        if kept[path].shape != array.shape:
            raise UsageError(
                f"the first weights have another shape of {path}: an arm that goes back to them comes first"
            )
        return np.where(kept[path], array, np.float32(0))

    return mapped(program, zeroed)


def arm(key: str, draft: Draft, course: Course, start: Program, density: float, epochs: int, **facts: Any) -> Draft:
    """An arm of pruning: the mask of the draft's trained weights over ``start``, and trained on for ``epochs``."""
    kept = masks(draft.program, density)
    program, said = tuned(key, masked(start, kept), course, epochs, rule=holding(kept))
    return dataclasses.replace(draft, program=program).shipped_as("sparse").noted(key, density=density, **facts, **said)


def earlier(course: Course, epochs: int) -> Program:
    """The program of the row after the first ``epochs`` of its training; after none, of its weights as drawn."""
    model = train.early(
        course.model,
        course.config,
        course.recipe,
        course.dataset,
        course.scheme,
        seed=course.seed,
        epochs=epochs,
        teacher=course.teacher,
        folder=course.folder and course.folder / "earlier",
        cache=course.cache,
    )
    program = model.program()
    assert program is not None  # as what is compressed has one
    return program


def holding(kept: Mapping[str, np.ndarray]) -> Rule:
    """The rule that keeps what was taken away at zero."""
    fixed = {path: torch.from_numpy(mask) for path, mask in kept.items()}

    def rule(network: Network, progress: float) -> None:
        network.hold(fixed)

    return rule


def check_share(key: str, name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise UsageError(f"{key}: {name}={value}: expected a share in (0, 1]")


def check_epochs(key: str, **values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise UsageError(f"{key}: {name}={value}: expected 1 or more")
