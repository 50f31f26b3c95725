"""Rows -> tables for people: per number of examples one line an arm, with everything that the gain cost.

The same rules as on the main board: counts stand behind every ratio, an interval beside every mean, every seed is
shown, and a percentile only where there are people enough for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from grit.bench.personalize.results import Row, UserPart, asked, together
from grit.bench.personalize.summary import (
    FLOORS,
    PERCENTILE_USERS,
    STILL,
    Ratio,
    Summary,
    captured,
    change,
    share,
    summarise,
)
from grit.bench.statistics import Interval

HEADINGS = (
    *("arm", "users", "accuracy", "p10", "p25", "hurt", "gain over best floor", "of it bias", "global", "loyal"),
    *("prob.", "robust", "change", "rare broken", "words", "member", "bytes", "rate x epoch", "epoch 0"),
)
BY_SEED = ("gain by seed", "global by seed")  # of several seeds
Group = dict[str, Row]  # arm -> row


def groups(rows: Iterable[Row]) -> dict[tuple[Any, ...], Group]:
    """(dataset, model, scheme, start, seed, k) -> arm -> row."""
    found: dict[tuple[Any, ...], Group] = {}
    for row in rows:
        key = (row.dataset, row.model, row.scheme, row.start, row.seed, row.k)
        found.setdefault(key, {})[row.arm] = row
    return found


def over_seeds(rows: Sequence[Row]) -> dict[tuple[Any, ...], tuple[Group, dict[int, Group]]]:
    """(dataset, model, scheme, start, k) -> the seeds put together, and each seed's own group.

    Put together are the arms that every seed has, so that an arm and its floors are over the same seeds.
    """
    apart: dict[tuple[Any, ...], dict[int, Group]] = {}
    for (*setting, seed, k), group in groups(rows).items():
        apart.setdefault((*setting, k), {})[seed] = group
    return {setting: (_together([*seeds.values()]), seeds) for setting, seeds in apart.items()}


def _together(seeds: Sequence[Group]) -> Group:
    everywhere = [arm for arm in seeds[0] if all(arm in group for group in seeds)]
    return {arm: together([group[arm] for group in seeds]) for arm in everywhere}


def summary(group: Group, arm: str) -> Summary:
    """The arm of a group against the floors of the same group."""
    people = group[arm].users
    return summarise(
        [each.right for each in people],
        [each.before for each in people],
        [each.n for each in people],
        {floor: [each.right for each in group[floor].users] for floor in FLOORS},
    )


def markdown(rows: Sequence[Row]) -> str:
    """Every table, and below it the users where there are too few for percentiles, and what was not measured."""
    lines: list[str] = []
    for (dataset, model, scheme, start, seed, k), group in groups(rows).items():
        lines += _table(f"{dataset}: {model} {scheme}, start {start}, seed {seed}, k = {k}", group, {seed: group})
        lines += [f"\n{note}" for note in dict.fromkeys(note for row in group.values() for note in row.notes)]
    lines += ["", *seeds_table(rows), *costs(rows), *legend(rows)]
    return "\n".join(lines).strip() + "\n"


def _table(title: str, group: Group, seeds: Mapping[int, Group]) -> list[str]:
    """A line an arm below a heading: of one seed, or of several put together and each by itself."""
    texts = [each.n // asked(group["none"]) for each in group["none"].users]
    headings = (*HEADINGS, "worst copy", *(BY_SEED if len(seeds) > 1 else ()))
    lines = [
        "",
        f"### {title}, {len(texts)} test users, {sum(texts):,} held-out texts, {median(texts):g} a user (median)",
        "",
        line(headings),
        line(["---"] * len(headings)),
    ]
    for arm in group:
        apart = by_seed(seeds, arm) if len(seeds) > 1 else []
        lines.append(line([*cells(group, arm), worst_copy(seeds, arm), *apart]))
    return lines + everyone(group)


def by_seed(seeds: Mapping[int, Group], arm: str) -> list[str]:
    """In the order of :data:`BY_SEED`; a star where a seed's validation users chose that nothing be learned."""
    found = []
    for group in seeds.values():
        mark = "*" if arm not in STILL and untaught(group[arm]) == len(group[arm].choices) else ""
        forgotten = forgetting(group[arm].users)
        globally = "-" if forgotten is None else f"{100 * forgotten.value:+.1f}{mark}"
        found.append((f"{100 * summary(group, arm).gain:+.1f}{mark}", globally))
    return [" ".join(each) for each in zip(*found, strict=True)]


def worst_copy(seeds: Mapping[int, Group], arm: str) -> str:
    """Of all copies, one a user and seed, the largest loss on the global test, in points."""
    people = [each for group in seeds.values() for each in group[arm].users if each.probe_n]
    lost = [(each.probe_right - each.probe_before) / each.probe_n for each in people]
    return f"{100 * min(lost):+.1f}" if lost else "-"


def untaught(row: Row) -> int:
    """Choices, one a fold and seed, of epoch 0: the copy is the global model."""
    return sum(not choice.epoch for choice in row.choices)


def everyone(group: Group) -> list[str]:
    """Every user's accuracy under every arm, where there are too few users for percentiles."""
    if len(group["none"].users) >= PERCENTILE_USERS:
        return []
    lines = ["", line(["user", "texts", *group]), line(["---"] * (2 + len(group)))]
    for place, each in enumerate(group["none"].users):
        shares = [percent(row.users[place].right, each.n) for row in group.values()]
        lines.append(line([each.user, f"{each.n // asked(group['none'])}", *shares]))
    return lines


def cells(group: Group, arm: str) -> list[str]:
    """One line of a table, in the order of :data:`HEADINGS`."""
    row, found = group[arm], summary(group, arm)
    people = row.users
    captured_share = captured(
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
        "-" if captured_share is None or arm in FLOORS else f"{100 * captured_share:.0f} %",
        *_probe(people),
        *_robust(group, arm),
        _words(people),
        _mean_of([each.membership_auc for each in people], "{:.2f}"),
        f"{max((each.update_bytes for each in people), default=0):,}",
        ", ".join(dict.fromkeys(f"{choice.rate:g} x {choice.epoch}" for choice in row.choices)) or "-",
        "-" if arm in STILL else f"{untaught(row)}/{len(row.choices)}",
    ]


def forgetting(people: Sequence[UserPart]) -> Ratio | None:
    """Change in right answers on the global test texts."""
    return change([each.probe_right - each.probe_before for each in people], [each.probe_n for each in people])


def _probe(people: Sequence[UserPart]) -> list[str]:
    """Forgetting, in points of accuracy on the global test texts, and both loyalties."""
    found = forgetting(people)
    if found is None:
        return ["-", "-", "-"]
    same = sum(each.probe_same for each in people) / found.n
    return [_points(found), f"{100 * same:.1f}", _mean_of([e.probability_loyalty for e in people], "{:.3f}")]


def robustness(group: Group, arm: str) -> tuple[Ratio | None, Ratio | None]:
    """Worst case over all attacked texts, and its change against the global model, for users attacked under both."""
    bare = {each.user: each.attacked for each in group["none"].users}
    pairs = [(part, bare[each.user]) for each in group[arm].users if (part := each.attacked) is not None]
    both = [(part, other) for part, other in pairs if other is not None]
    return (
        share([part.robust for part, _ in pairs], [part.n for part, _ in pairs], asked(group[arm])),
        change([part.robust - other.robust for part, other in both], [part.n for part, _ in both]),
    )


def _robust(group: Group, arm: str) -> list[str]:
    """Robust accuracy, its change, and what share of the rarer labels' right answers was broken."""
    parts = [each.attacked for each in group[arm].users if each.attacked is not None]
    left, against_global = robustness(group, arm)
    if left is None:
        return ["-", "-", "-"]
    times = asked(group[arm])
    broken = share([part.minority_broken for part in parts], [part.minority_attacked for part in parts], times)
    rare = f"{broken.k}/{broken.n} = {100 * broken.value:.0f}{_interval(broken.interval, 0)}" if broken else "0/0"
    minority = sum(part.minority for part in parts)
    return [
        f"{left.k}/{left.n} = {100 * left.value:.1f}{_interval(left.interval)}{_texts(left.n, times)}",
        "-" if against_global is None else _points(against_global),
        f"{rare} of {minority}{_texts(minority, times)}",
    ]


def _texts(n: int, times: int) -> str:
    """How many texts stand behind so many answers."""
    return f", {n // times} texts" if times > 1 else ""


def _points(found: Ratio) -> str:
    """A change; where there is none, of how many users."""
    return f"{100 * found.value:+.1f}{_interval(found.interval)}" if found.moved else f"0 of {found.users} users"


def _words(people: Sequence[UserPart]) -> str:
    read = sum(each.words_read for each in people)
    return percent(sum(each.words_recovered for each in people), read)


def seeds_table(rows: Sequence[Row], *, least: int = 2) -> list[str]:
    """A table for every question that ``least`` seeds have answered: all seeds put together, and each by itself."""
    lines: list[str] = []
    for (dataset, model, scheme, start, k), (group, seeds) in over_seeds(rows).items():
        if len(seeds) >= least:
            numbers = ", ".join(map(str, seeds))
            title = f"{dataset}: {model} {scheme}, start {start}, k = {k}, seeds {numbers} together"
            lines += _table(title, group, seeds)
    return lines


COST_HEADINGS = (
    *("model", "scheme", "core", "head", "texts kept", "instructions a step", "to read a text", "RAM to train"),
    *("peak RAM", "off numpy by"),
)


def costs(rows: Sequence[Row]) -> list[str]:
    """Training the last layer on a device: counts, no times."""
    lines: list[str] = []
    for row in rows:
        for cell in row.cost:
            values, facts = cell.values, cell.facts
            shown = [row.model, row.scheme, cell.target]
            shown += [f"{facts['classes']} x {facts['features']}, batch {facts['batch']}", f"{facts['examples']}"]
            shown += [_count(values.get(name)) for name in ("step_instructions", "reading_instructions")]
            shown += [_count(values.get(name)) for name in ("training_bytes", "peak_bytes")]
            lines.append(line([*shown, f"{facts['parity_error']:.1g}"]))
    if not lines:
        return []
    return [
        *("", "### Training the last layer on a device (head.c, emulated: counts, no times)", ""),
        *(line(COST_HEADINGS), line(["---"] * len(COST_HEADINGS)), *dict.fromkeys(lines), ""),
        "What is trained is a C program of its own, head.c, on states in float; the int8 program that ships hands "
        "out no state yet. To read a text: the median over texts of the instructions of that program, once the text "
        "is cut into words and they are looked up; cutting and looking up are left out. RAM in bytes: the remembered "
        "texts and the head; peak: with what reading a text needs. Off numpy by: the largest difference of a weight "
        "after all steps from the same descent in numpy, of the largest weight or 1.",
    ]


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def legend(rows: Sequence[Row]) -> list[str]:
    attacks = ", ".join(dict.fromkeys(attack for row in rows for attack in row.attacks)) or "none"
    probes = ", ".join(map(str, sorted({each.probe_n for row in rows for each in row.users if each.probe_n}))) or "0"
    return [
        "",
        "Accuracy: mean over test users, in percent; p10, p25: percentiles over users, which fall on the few values "
        "that users of few texts can have: of two texts 0, 50 and 100. All intervals are 95 % and resample users "
        "(bootstrap; with fewer than ten users too narrow); that of hurt is Wilson's, those of robust and broken are "
        "never narrower than his. hurt: users served worse than by the global model. Gain: over the best of the "
        "floors majority (the most frequent label of the k texts that were learned from; of equals the one more "
        "frequent in training), none (the global model) and bias, by their means; of it bias: the share of the gain "
        "over the global model that one number a label has as well, - where the interval of that gain holds nought. "
        f"global: over users, change on the same texts of the global test ({probes}), in points; worst copy: the "
        "largest loss there of a single copy, one user's at one seed. loyal, prob.: label and probability loyalty to "
        f"the global model. robust: right after all attacks ({attacks}) on the personal int8 artefact, of the "
        "attacked users' texts; change: against the global model on the same texts, in points. 0 of so many users: "
        "no user's count changed, which is no interval. rare broken: broken of those right before, of texts whose "
        "label is not the majority's, as it stands under majority. words: the user's words that the update gives "
        "away. member: AUC of telling learned from held-out texts. bytes: the largest update. epoch 0: of the "
        "choices, one a fold and seed, those in which validation users chose the global model as it is: nothing was "
        "learned, and every change is nought by construction; a star marks a seed of such choices alone. Seeds "
        "together: a user's counts of all seeds are added, so that a text counts once a seed; an interval is still "
        "over people, and where it is over texts, over so many texts as stand beside it: none is new for being asked "
        "again.",
    ]


def _mean_of(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(sum(known) / len(known)) if known else "-"


def _interval(found: Interval | None, digits: int = 1) -> str:
    return "" if found is None else f" [{100 * found.low:.{digits}f}, {100 * found.high:.{digits}f}]"


def percent(k: int, n: int, form: str = ".1f") -> str:
    """75.0; of nothing a dash."""
    return f"{100 * k / n:{form}}" if n else "-"


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
