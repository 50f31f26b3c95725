"""Rows -> tables for people: per number of examples one line an arm, with everything that the gain cost.

The same rules as on the main board: counts stand behind every ratio, an interval beside every mean, every seed is
shown, and a percentile only where there are people enough for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from grit.bench.personalize import protocol
from grit.bench.personalize.results import Row, UserPart
from grit.bench.personalize.summary import Summary, captured, summarise
from grit.bench.statistics import Interval, over_seeds, wilson

HEADINGS = (
    *("arm", "users", "accuracy", "p10", "p25", "hurt", "gain over best floor", "of it bias", "global", "loyal"),
    *("prob.", "robust", "rare broken", "words", "member", "bytes", "rate x epoch"),
)


def groups(rows: Iterable[Row]) -> dict[tuple[Any, ...], dict[str, Row]]:
    """(dataset, model, scheme, start, seed, k) -> arm -> row."""
    found: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        key = (row.dataset, row.model, row.scheme, row.start, row.seed, row.k)
        found.setdefault(key, {})[row.arm] = row
    return found


def summary(group: dict[str, Row], arm: str) -> Summary:
    """The arm of a group against the floors of the same group."""
    people = group[arm].users
    return summarise(
        [each.right for each in people],
        [each.before for each in people],
        [each.n for each in people],
        {floor: [each.right for each in group[floor].users] for floor in protocol.FLOORS},
    )


def markdown(rows: Sequence[Row]) -> str:
    """Every table, and below it the users where there are too few for percentiles, and what was not measured."""
    lines: list[str] = []
    for (dataset, model, scheme, start, seed, k), group in groups(rows).items():
        people = next(iter(group.values())).users
        lines += [
            "",
            f"### {dataset}: {model} {scheme}, start {start}, seed {seed}, k = {k}, "
            f"{len(people)} test users, {sum(each.n for each in people):,} held-out texts",
            "",
            _line(HEADINGS),
            _line(["---"] * len(HEADINGS)),
        ]
        lines += [_line(cells(group, arm)) for arm in group]
        if all(summary(group, arm).p10 is None for arm in group):
            lines += ["", _line(["user", "n", *group]), _line(["---"] * (2 + len(group)))]
            for place, each in enumerate(people):
                lines.append(
                    _line([each.user, f"{each.n}", *(_share(r.users[place].right, each.n) for r in group.values())])
                )
        lines += [f"\n{note}" for note in dict.fromkeys(note for row in group.values() for note in row.notes)]
    lines += ["", *_over_seeds(rows), *_costs(rows), *_legend(rows)]
    return "\n".join(lines).strip() + "\n"


def cells(group: dict[str, Row], arm: str) -> list[str]:
    """One line of a table, in the order of :data:`HEADINGS`."""
    row, found = group[arm], summary(group, arm)
    people = row.users
    share = captured(
        [each.right for each in people],
        [each.right for each in group["bias"].users],
        [each.before for each in people],
        [each.n for each in people],
    )
    return [
        arm,
        f"{found.users}",
        f"{100 * found.mean:.1f}{_interval(found.interval)}",
        "-" if found.p10 is None else f"{100 * found.p10:.0f}",
        "-" if found.p25 is None else f"{100 * found.p25:.0f}",
        f"{found.hurt}/{found.users} [{100 * found.hurt_interval.low:.0f}, {100 * found.hurt_interval.high:.0f}]",
        f"{100 * found.gain:+.1f}{_interval(found.gain_interval)} over {found.floor}",
        "-" if share is None or arm in protocol.FLOORS else f"{100 * share:.0f} %",
        *_probe(people),
        *_robust(people),
        _words(people),
        _mean_of([each.membership_auc for each in people], "{:.2f}"),
        f"{max((each.update_bytes for each in people), default=0):,}",
        ", ".join(dict.fromkeys(f"{choice.rate:g} x {choice.epoch}" for choice in row.choices)) or "-",
    ]


def _probe(people: Sequence[UserPart]) -> list[str]:
    """Forgetting, in points of accuracy on the global test texts, and both loyalties."""
    n = sum(each.probe_n for each in people)
    if not n:
        return ["-", "-", "-"]
    change = sum(each.probe_right - each.probe_before for each in people) / n
    same = sum(each.probe_same for each in people) / n
    return [f"{100 * change:+.1f}", f"{100 * same:.1f}", _mean_of([e.probability_loyalty for e in people], "{:.3f}")]


def _robust(people: Sequence[UserPart]) -> list[str]:
    """Worst case over all attacked texts, and what share of the rarer labels' right answers was broken."""
    parts = [each.attacked for each in people if each.attacked is not None]
    if not parts:
        return ["-", "-"]
    robust, n = sum(part.robust for part in parts), sum(part.n for part in parts)
    broken, reached = sum(part.minority_broken for part in parts), sum(part.minority_attacked for part in parts)
    found = wilson(robust, n)
    return [
        f"{robust}/{n} = {100 * robust / n:.1f} [{100 * found.low:.0f}, {100 * found.high:.0f}]",
        f"{broken}/{reached} of {sum(part.minority for part in parts)}",
    ]


def _words(people: Sequence[UserPart]) -> str:
    read = sum(each.words_read for each in people)
    return _share(sum(each.words_recovered for each in people), read) if read else "-"


def _over_seeds(rows: Sequence[Row]) -> list[str]:
    """Gains over the best floor, every seed and their mean, where there are several seeds."""
    gains: dict[tuple[Any, ...], dict[str, list[tuple[int, float]]]] = {}
    for (dataset, model, scheme, start, seed, k), group in groups(rows).items():
        for arm in group:
            place = gains.setdefault((dataset, model, scheme, start, k), {})
            place.setdefault(arm, []).append((seed, summary(group, arm).gain))
    lines = []
    for (dataset, model, scheme, start, k), by_arm in gains.items():
        if max(len(values) for values in by_arm.values()) < 2:
            continue
        lines += ["", f"### {dataset}: {model} {scheme}, start {start}, k = {k}: gain over the best floor by seed", ""]
        lines += [_line(["arm", "seeds", "each", "mean", "95 % interval of the mean"]), _line(["---"] * 5)]
        for arm, values in by_arm.items():
            found = over_seeds([gain for _, gain in values])
            each = " ".join(f"{100 * gain:+.1f}" for _, gain in values)
            low_high = "-" if found.interval is None else _interval(found.interval).strip()
            seeds = ",".join(str(seed) for seed, _ in values)
            lines.append(_line([arm, seeds, each, f"{100 * found.mean:+.1f}", low_high]))
    return lines


def _costs(rows: Sequence[Row]) -> list[str]:
    """Training the last layer on a device: counts, no times."""
    lines: list[str] = []
    for row in rows:
        for cell in row.cost:
            values, facts = cell.values, cell.facts
            if not lines:
                lines = ["", "### Training the last layer on a device (head.c, emulated: counts, no times)", ""]
                headings = (
                    "model",
                    "core",
                    "head",
                    "instructions a step",
                    "to read a text",
                    "RAM to train",
                    "peak RAM",
                )
                lines += [_line(headings), _line(["---"] * len(headings))]
            shown = [row.model, cell.target, f"{facts['classes']} x {facts['features']}, batch {facts['batch']}"]
            shown += [_count(values.get(name)) for name in ("step_instructions", "reading_instructions")]
            shown += [_count(values.get(name)) for name in ("training_bytes", "peak_bytes")]
            lines.append(_line(shown))
    if lines:
        lines += [
            "",
            "RAM in bytes: the remembered texts and the head; peak: with what reading a text needs.",
        ]
    return lines


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _legend(rows: Sequence[Row]) -> list[str]:
    attacks = ", ".join(dict.fromkeys(attack for row in rows for attack in row.attacks)) or "none"
    return [
        "",
        "Accuracy: mean over test users, in percent, with a 95 % bootstrap interval over users. hurt: users served "
        "worse than by the global model, Wilson interval in percent. Gain: over the best of the floors majority (the "
        "user's most frequent label), none (the global model) and bias, by their means; of it bias: the share of the "
        "gain over the global model that one number a label has as well. global: change on global test texts, in "
        "points. loyal, prob.: label and probability loyalty to the global model. robust: right after all attacks "
        f"({attacks}) on the personal int8 artefact, of so many texts of so many attacked users. rare broken: broken "
        "of those right before, of texts whose label is not the user's most frequent one. words: the user's words "
        "that the update gives away. member: AUC of telling learned from held-out texts. bytes: the largest update.",
    ]


def _mean_of(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(sum(known) / len(known)) if known else "-"


def _interval(found: Interval | None) -> str:
    return "" if found is None else f" [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _share(k: int, n: int) -> str:
    return f"{100 * k / n:.1f}" if n else "-"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
