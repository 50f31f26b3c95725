"""What a board says of personalization in one line, and of which arm it may say it.

The best of ten arms on test users is partly the luckiest one. So a line is of the arm that *validation* users liked
best, at the largest number of examples that test users enough for percentiles have (of few users: the largest). All
seeds are put together user by user. The global model of such a line has seen other users of the same data; a row of
the board that was trained alike, and tested on the data's own split, stands beside it and is not the same model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from grit.bench.personalize import board
from grit.bench.personalize.results import Row
from grit.bench.personalize.summary import FLOORS, PERCENTILE_USERS, Ratio, Summary

HEADINGS = (
    *("Data", "Model", "Scheme", "Start", "Seeds", "k", "Users", "Majority", "Global", "Bias", "Arm", "Accuracy"),
    *("Gain over best floor", "Hurt", "Epoch 0", "Global test", "Global by seed", "Worst copy"),
    *("Robust", "Change", "Rare broken"),
)


class Headline(NamedTuple):
    """One global model's line: what the arm that validation users chose does to test users."""

    dataset: str
    model: str
    scheme: str
    start: str
    k: int
    arm: str
    group: board.Group  # arm -> row, all seeds together
    apart: Mapping[int, board.Group]  # each seed's own

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted(self.apart))

    @property
    def row(self) -> Row:
        return self.group[self.arm]

    @property
    def summary(self) -> Summary:
        return board.summary(self.group, self.arm)

    def accuracy(self, arm: str) -> float:
        """Mean over users."""
        return board.summary(self.group, arm).mean


def headlines(rows: Sequence[Row]) -> tuple[Headline, ...]:
    """A line for every dataset, model, scheme and start in which an arm learned; in that order."""
    found: dict[tuple[str, ...], dict[int, tuple[board.Group, dict[int, board.Group]]]] = {}
    for (*setting, k), groups in board.over_seeds(rows).items():
        found.setdefault(tuple(setting), {})[k] = groups
    lines = []
    for (dataset, model, scheme, start), by_k in sorted(found.items()):
        k = _k({k: len(group["none"].users) for k, (group, _) in by_k.items()})
        group, seeds = by_k[k]
        learned = [arm for arm in group if arm not in FLOORS]
        if learned:
            arm = max(learned, key=lambda arm: _liking(group[arm]))  # of equals the first, that with least to learn
            lines.append(Headline(dataset, model, scheme, start, k, arm, group, seeds))
    return tuple(lines)


def _k(users: Mapping[int, int]) -> int:
    return max([k for k, n in users.items() if n >= PERCENTILE_USERS] or users)


def _liking(row: Row) -> float:
    """Mean accuracy over the validation users of all folds and seeds, at what they chose."""
    return sum(choice.score * choice.users for choice in row.choices) / sum(choice.users for choice in row.choices)


def of(
    lines: Iterable[Headline],
    dataset: str,
    model: str,
    scheme: str,
    config: Mapping[str, Any],
    recipe: Mapping[str, Any],
) -> Headline | None:
    """The line of a model trained like a row of the board, which knows no other start than the plain one."""
    wanted = (dataset, model, scheme, "plain", config, recipe)
    for line in lines:
        if (line.dataset, line.model, line.scheme, line.start, line.row.config, line.row.recipe) == wanted:
            return line
    return None


# --- cells ------------------------------------------------------------------------------------------------


def cells(line: Headline) -> list[str]:
    """In the order of :data:`HEADINGS`, as text."""
    found = dict(zip(board.HEADINGS, board.cells(line.group, line.arm), strict=True))
    _, forgotten = board.by_seed(line.apart, line.arm)
    return [
        *(line.dataset, line.model, line.scheme, line.start, ", ".join(map(str, line.seeds)), f"{line.k}"),
        f"{line.summary.users}",
        *(f"{100 * line.accuracy(floor):.1f}" for floor in FLOORS),
        *(line.arm, found["accuracy"], found["gain over best floor"], found["hurt"]),
        *(found["epoch 0"], found["global"], forgotten, board.worst_copy(line.apart, line.arm)),
        *(found["robust"], found["change"], found["rare broken"]),
    ]


def values(line: Headline) -> dict[str, Any]:
    """The same as ratios with their intervals, for programs; columns of a row of the board."""
    found = line.summary
    left, against_global = board.robustness(line.group, line.arm)
    shown: dict[str, Any] = {
        "personal_start": line.start,
        "personal_k": line.k,
        "personal_seeds": len(line.seeds),
        "personal_users": found.users,
        "personal_arm": line.arm,
        "personal_accuracy": found.mean,
        "personal_floor": found.floor,
        "personal_gain": found.gain,
        "personal_hurt": found.hurt,
        **{f"personal_{floor}": line.accuracy(floor) for floor in FLOORS},
    }
    for name, interval in (("accuracy", found.interval), ("gain", found.gain_interval)):
        if interval is not None:
            shown |= {f"personal_{name}_low": interval.low, f"personal_{name}_high": interval.high}
    ratios: tuple[tuple[str, Ratio | None], ...] = (
        ("forgetting", board.forgetting(line.row.users)),
        ("robust", left),
        ("robust_change", against_global),
    )
    for name, ratio in ratios:
        if ratio is not None:
            shown[f"personal_{name}"] = ratio.value
            if ratio.interval is not None:
                shown |= {f"personal_{name}_low": ratio.interval.low, f"personal_{name}_high": ratio.interval.high}
    return shown


def as_json(lines: Iterable[Headline]) -> list[dict[str, Any]]:
    return [
        {"dataset": line.dataset, "model": line.model, "scheme": line.scheme, **values(line), "cells": cells(line)}
        for line in lines
    ]


NOTE = (
    "Of users whom the global model has never seen; the arm is the one that validation users liked best, k the largest "
    "that enough test users have, seeds together. What a column means: the legend of personal.md."
)


def text(lines: Sequence[Headline]) -> str:
    """The same for a terminal, a paragraph a line; empty without lines."""
    told = []
    for each in lines:
        found = dict(zip(HEADINGS, cells(each), strict=True))
        told.append(
            f"{each.dataset}: {each.model} {each.scheme}, start {each.start}, k = {each.k}, {found['Users']} users, "
            f"seeds {found['Seeds']}\n"
            f"  {each.arm} is right in {found['Accuracy']} %, gain {found['Gain over best floor']}; "
            f"hurt {found['Hurt']}; nothing learned in {found['Epoch 0']} choices\n"
            f"  global test {found['Global test']}, by seed {found['Global by seed']}, "
            f"worst copy {found['Worst copy']}\n"
            f"  robust {found['Robust']}, change {found['Change']}; rare labels broken {found['Rare broken']}\n"
        )
    return "\n".join(["\nPersonal", *told, NOTE, ""]) if told else ""


def markdown(lines: Sequence[Headline]) -> str:
    """The section of a board; empty without lines."""
    if not lines:
        return ""
    table = [board.line(HEADINGS), board.line(["---"] * len(HEADINGS)), *(board.line(cells(each)) for each in lines)]
    return "\n".join(["## Personal", "", NOTE, "", *table, ""])
