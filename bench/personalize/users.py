"""Whose texts are learned from, and whose never: the cut that all numbers of this room rest on.

The global model learns from some users; the arms and epochs are chosen on others (validation) and reported on others
again (test). Each user's texts are ordered by hash rank: the first are what the device learns from, the last are held
out, the same ones for every number of examples. Order by time is left alone: none of the three sets has times that do
not reveal the label (the airline tweets have none, the dates of the Enron mail tell spam from ham, raters are made),
and an :class:`~grit.bench.types.Example` carries none.

Copies would leak between users: a text that stands with more than one user is dropped, of copies with one user the
first by hash is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from grit.bench import datasets
from grit.bench.types import Dataset, Example, UsageError


@dataclass(frozen=True)
class User:
    """One person: texts to learn from, in the order in which they come, and texts held out."""

    name: str
    pool: tuple[Example, ...]
    held_out: tuple[Example, ...]


@dataclass(frozen=True)
class Fold:
    """One way to part the users. No user stands in two of its parts, but for ``tasks``, which are of the training."""

    name: str
    dataset: str  # what was parted
    data: Dataset  # what the global model learns from, is chosen on and is tested on
    tasks: tuple[User, ...]  # users of data.train, cut like the others: what meta-learning practises on
    validation: tuple[User, ...]
    test: tuple[User, ...]


@dataclass(frozen=True)
class Cut:
    """How users are cut. A user of n texts keeps a third, at least ``least_held_out``, held out, the rest to learn."""

    most_pool: int = 64  # texts to learn from: the largest number of examples asked about
    most_held_out: int = 200
    least_texts: int = 5  # a user with fewer goes to the training of the global model
    least_held_out: int = 2
    few_users: int = 12  # with so many or fewer each is left out once
    most_users: int = 300  # of each part
    n_train: int | None = None  # texts of the global model's training, None: all


def folds(dataset: Dataset, cut: Cut) -> tuple[Fold, ...]:
    """The folds of a dataset whose examples carry users: one, or with few users one a user.

    Left out one by one, the user after the one left out serves for validation, the others for training. With many,
    those with ``least_texts`` or more are parted into three by hash rank, and all others train.
    """
    people = by_user(dataset)
    able = {name: texts for name, texts in people.items() if len(texts) >= cut.least_texts}
    if len(able) < 3:
        raise UsageError(
            f"dataset {dataset.name!r} has {len(able)} users with {cut.least_texts} or more texts of their own, and "
            "three are needed: train, validate, test; give a set whose rows name a user, or raters:NAME"
        )
    order = sorted(able, key=lambda name: _rank(dataset.name, name))
    if len(order) <= cut.few_users:
        return tuple(
            _fold(order[i], dataset, people, order[i : i + 1], [order[(i + 1) % len(order)]], cut)
            for i in range(len(order))
        )
    third = len(order) // 3
    return (_fold("all", dataset, people, order[:third], order[third : 2 * third], cut),)


def by_user(dataset: Dataset) -> dict[str, tuple[Example, ...]]:
    """User -> distinct texts that no other user has, in hash order."""
    owners: dict[str, set[str]] = {}
    first: dict[tuple[str, str], Example] = {}
    named = [each for each in (*dataset.train, *dataset.dev, *dataset.test) if each.user is not None]
    for example in sorted(named, key=lambda example: _rank(dataset.name, example.id)):
        text, user = datasets.canonical(example.text), str(example.user)
        owners.setdefault(text, set()).add(user)
        first.setdefault((user, text), example)
    people: dict[str, list[Example]] = {}
    for (user, text), example in first.items():
        if len(owners[text]) == 1:
            people.setdefault(user, []).append(example)
    return {user: tuple(texts) for user, texts in people.items()}


def cut_user(name: str, texts: Sequence[Example], cut: Cut) -> User:
    """A user's texts, in the order given: the last third held out, the first of the rest to learn from."""
    held = max(cut.least_held_out, len(texts) // 3)
    held_out = tuple(texts[len(texts) - held :])[-cut.most_held_out :]
    return User(name, tuple(texts[: len(texts) - held])[: cut.most_pool], held_out)


def parted(
    name: str, licence: str, labels: tuple[str, ...], examples: Sequence[Example], n_train: int | None, notes: str
) -> Dataset:
    """Texts of training users as a dataset of its own: a tenth for dev, a tenth for test, by hash rank."""
    order = sorted(examples, key=lambda example: _rank(name, example.id))
    tenth = max(1, len(order) // 10)
    test, dev, train = order[:tenth], order[tenth : 2 * tenth], order[2 * tenth :]
    chosen = datasets.subset(train, n_train, name)
    digest = hashlib.sha256()
    for split, rows in (("train", chosen), ("dev", dev), ("test", test)):
        for example in rows:
            digest.update(f"{split} {example.id} {example.label}\n".encode())
    return Dataset(name, digest.hexdigest(), labels, chosen, tuple(dev), tuple(test), licence, (notes,))


def _fold(
    name: str,
    dataset: Dataset,
    people: dict[str, tuple[Example, ...]],
    test: Sequence[str],
    validation: Sequence[str],
    cut: Cut,
) -> Fold:
    apart = {*test, *validation}
    seen = [example for user, texts in people.items() if user not in apart for example in texts]
    notes = "users of validation and test left out; texts of more than one user dropped"
    data = parted(f"{dataset.name}/{name}", dataset.licence, dataset.labels, seen, cut.n_train, notes)
    return Fold(
        name,
        dataset.name,
        data,
        tasks_of(data, cut),
        tuple(cut_user(user, people[user], cut) for user in validation[: cut.most_users]),
        tuple(cut_user(user, people[user], cut) for user in test[: cut.most_users]),
    )


def tasks_of(data: Dataset, cut: Cut) -> tuple[User, ...]:
    """The users of a training split that have texts enough to practise on."""
    mine: dict[str, list[Example]] = {}
    for example in data.train:
        mine.setdefault(str(example.user), []).append(example)
    able = {user: texts for user, texts in mine.items() if len(texts) >= cut.least_texts}
    return tuple(cut_user(user, able[user], cut) for user in sorted(able)[: cut.most_users])


def ranked(examples: Iterable[Example], name: str) -> tuple[Example, ...]:
    """Examples by rank of sha256(name, id)."""
    return tuple(sorted(examples, key=lambda example: _rank(name, example.id)))


def _rank(name: str, key: str) -> str:
    return hashlib.sha256(f"{name}\n{key}".encode()).hexdigest()
