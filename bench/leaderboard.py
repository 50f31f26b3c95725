"""Records -> the board: sorted sections, significance-aware ranks, and tables for people and programs.

A *section* holds the rows that may be compared: one revision of one dataset, the same examples, the same
attacks. Rows are sorted by worst case; a rank is given on paired evidence only. Everything here is a pure
function of records and evidence: counts come in, and only the last step, text, rounds.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from grit.bench.records import (
    FLAGS,
    RECORDS,
    AttackPart,
    Count,
    Evidence,
    Record,
    Robust,
    Row,
    encode,
    read_rows,
    row_digest,
)
from grit.bench.types import CouldNotMeasure, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from grit.bench.explain.scores import Explanation, Mean
    from grit.bench.personalize.headline import Headline
    from grit.bench.statistics import Interval, Rank, Seeds

LATENCY_TARGET = "local"  # whose median time stands in the table; other targets are in CSV, JSON and the page
_TO_US = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}
CORES = {"a53": "emu://cortex-a53", "a76": "emu://cortex-a76", "m4": "emu://cortex-m4"}  # with a column each
# Costs with a front of their own: keys of cells().
COSTS = ("total_bytes", *(f"instructions_{core}" for core in CORES))


# --- the board as data ------------------------------------------------------------------------------


class Verified(NamedTuple):
    """What a verifier has said about a row, and whether that still holds."""

    state: Literal["current", "stale", "challenged", "refuted", "unverified"]
    level: str  # lint, replay, spot, full
    on: str  # date, UTC
    floor: float | None  # on the worst case, as a ratio: what a spot check has proved
    lowered: int | None  # worst case of a challenged row, as a count


@dataclass(frozen=True)
class Line:
    """One row, placed. ``unranked``: why it has no rank; empty for a ranked row."""

    record: Record
    model: str  # name, with the fields in which rows of this name differ, and the steps of a compressed row
    rank: Rank | None
    fronts: Mapping[str, bool]  # cost -> on the front of robustness against it; absent: not comparable
    unranked: tuple[str, ...]
    evidence: Evidence | None = None  # over the same examples as that of the section's other lines
    verified: Verified | None = None
    explained: Explanation | None = None
    personal: Headline | None = None  # of a model trained alike on other users of the same data

    @property
    def front(self) -> bool | None:
        """On the front of robustness against bytes; None: not comparable."""
        return self.fronts.get("total_bytes")

    @property
    def seed(self) -> int | None:
        return self.record.training.seed if self.record.training else None


class SeedLine(NamedTuple):
    """Several seeds of one experiment, as ratios."""

    model: str
    scheme: str
    seeds: tuple[int, ...]
    clean: Seeds
    worst: Seeds


@dataclass(frozen=True)
class Section:
    """Rows over the same examples and attacks, best worst case first."""

    lines: tuple[Line, ...]
    seeds: tuple[SeedLine, ...]

    @property
    def data(self) -> Any:
        return self.lines[0].record.data

    @property
    def attacks(self) -> tuple[AttackPart, ...]:
        """The attacks of its rows: of the first, which differs from the others in counts only."""
        return self.lines[0].record.attacks

    @property
    def headings(self) -> dict[str, str]:
        """Attack's full name -> its key, where that says which."""
        names = [attack.name for attack in self.attacks]
        keys = [name.split(":")[-1].split("+")[0].split(".")[0] for name in names]
        return {name: key if keys.count(key) == 1 else name for name, key in zip(names, keys, strict=True)}

    @property
    def several_seeds(self) -> bool:
        return len({line.seed for line in self.lines}) > 1

    @property
    def majority_label(self) -> str:
        return str(self.data.labels[self.data.label_counts.index(self.data.majority.k)])

    @property
    def title(self) -> str:
        suite = self.lines[0].record.suite
        return f"{self.data.name} ({self.data.split}, n = {self.data.n}{', ' + suite if suite else ''})"

    @property
    def reasons(self) -> dict[str, tuple[str, ...]]:
        """Why rows are unranked -> the rows it holds for."""
        found: dict[str, list[str]] = {}
        for line in self.lines:
            for reason in line.unranked:
                found.setdefault(reason, []).append(_name(line, self.several_seeds))
        return {reason: tuple(rows) for reason, rows in found.items()}


def load(folders: Sequence[Path]) -> list[Row]:
    """The rows of run folders, and of run folders below them; a row found twice counts once.

    Raises UsageError (no such folder), CouldNotMeasure (no records there), MalformedInput, StorageError.
    """
    rows: dict[str, Row] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"no folder {folder}: give run folders, or a folder that holds some")
        for file in sorted(folder.rglob(RECORDS)):
            for row in read_rows(file.parent):
                rows.setdefault(row_digest(row.record), row)
    if not rows:
        raise CouldNotMeasure(f"no records in {', '.join(map(str, folders))}; 'grit run' writes some")
    return list(rows.values())


def board(
    rows: Iterable[Row],
    alpha: float = 0.05,
    verified: Mapping[str, Verified] | None = None,
    explained: Mapping[str, Explanation] | None = None,
    personal: Sequence[Headline] = (),
) -> tuple[Section, ...]:
    """The sections of the board, by dataset, the larger n first.

    alpha: family-wise error of a section's ranks; verified: digest of a row -> what its verdict says; explained:
    digest of deployed bytes -> what was found out about their explanations, shown where it is on the row's own data;
    personal: lines on personalization, each shown beside rows of the same data, model, scheme and recipe.
    """
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(_comparable(row.record), []).append(row)
    sections = [_section(members, alpha, verified or {}, explained or {}, personal) for members in groups.values()]
    return tuple(sorted(sections, key=lambda section: (section.data.name, -section.data.n, _comparable_text(section))))


def _comparable(record: Record) -> Any:
    attacks = tuple((attack.name, attack.parameters_sha256, attack.lexicon_sha256) for attack in record.attacks)
    data = record.data
    return data.name, data.revision, data.split, data.n, data.selection, record.suite, attacks


def _comparable_text(section: Section) -> str:
    return repr(_comparable(section.lines[0].record))


def _section(
    rows: Sequence[Row],
    alpha: float,
    verified: Mapping[str, Verified],
    explained: Mapping[str, Explanation],
    personal: Sequence[Headline],
) -> Section:
    digests = {id(row): row_digest(row.record) for row in rows}
    verdicts = {id(row): verified.get(digests[id(row)]) for row in rows}
    # The order must not depend on the order of the files read: the digest decides between equals.
    placed = sorted(
        rows,
        key=lambda row: (_demoted(row.record) or _refuted(verdicts[id(row)]), *_merit(row.record), digests[id(row)]),
    )
    standing = [None if row.evidence is None else row.evidence.robust() for row in placed]
    examples = next((set(found) for row, found in zip(placed, standing, strict=True) if found is not None), set())
    paired = [found is not None and set(found) == examples for found in standing]
    unranked = [
        _unranked(row.record, found, examples, verdicts[id(row)]) for row, found in zip(placed, standing, strict=True)
    ]
    ranked = [at for at, why in enumerate(unranked) if not why]
    fronted = [
        at
        for at, row in enumerate(placed)
        if paired[at] and not _demoted(row.record) and not _refuted(verdicts[id(row)])
    ]
    ranks, fronts = _places(placed, standing, ranked, fronted, alpha)
    labels = _labels([row.record for row in placed])
    lines = tuple(
        Line(
            row.record,
            labels[at],
            ranks.get(at),
            fronts.get(at, {}),
            unranked[at],
            row.evidence if paired[at] else None,
            verdicts[id(row)],
            _explained(row.record, explained),
            _personal(row.record, personal),
        )
        for at, row in enumerate(placed)
    )
    return Section(lines, _seed_lines(lines))


def _merit(record: Record) -> tuple[float, ...]:
    """Best first, for rows of equal n."""
    return -record.worst.low, -record.clean.k, record.artefact.total_bytes or float("inf")


def _demoted(record: Record) -> bool:
    return any(FLAGS[flag.name].demotes for flag in record.flags)


def _refuted(verified: Verified | None) -> bool:
    return verified is not None and verified.state == "refuted"


def _explained(record: Record, explained: Mapping[str, Explanation]) -> Explanation | None:
    found = explained.get(record.artefact.digest)
    return found if found is not None and found.asked.revision == record.data.revision else None


def _personal(record: Record, lines: Sequence[Headline]) -> Headline | None:
    if not lines or record.training is None:
        return None
    from grit.bench.personalize import headline

    model, recipe = record.model, record.training.recipe
    return headline.of(lines, record.data.name, model.name, record.scheme.name, model.config, recipe)


def _unranked(
    record: Record, standing: Mapping[str, bool] | None, examples: set[str], verified: Verified | None
) -> tuple[str, ...]:
    reasons = [flag.reason for flag in record.unranked]
    if verified is not None and _refuted(verified):
        reasons.append(f"its claim was refuted on {verified.on}")
    if standing is None:
        reasons.append("no evidence beside the record")
    elif set(standing) != examples:
        reasons.append("its evidence is over other examples")
    return tuple(reasons)


def _places(
    rows: Sequence[Row],
    standing: Sequence[Mapping[str, bool] | None],
    ranked: Sequence[int],
    fronted: Sequence[int],
    alpha: float,
) -> tuple[dict[int, Rank], dict[int, dict[str, bool]]]:
    """Rank by row, and of each cost that a row states, whether it is on the front of robustness against that."""
    import numpy as np

    from grit.bench.statistics import pareto, tie_groups

    def vectors(chosen: Sequence[int]) -> Any:
        found = [standing[at] or {} for at in chosen]
        return np.array([[row[example] for example in sorted(found[0])] for row in found])

    ranks = tie_groups(vectors(ranked), alpha) if ranked else ()
    fronts: dict[int, dict[str, bool]] = {at: {} for at in fronted}
    for cost in COSTS:
        known = {at: value for at in fronted if (value := _cost(rows[at].record, cost)) is not None}
        if known:
            front = pareto(vectors(list(known)), np.array([[value] for value in known.values()], np.float64), alpha)
            for at, on in zip(known, front, strict=True):
                fronts[at][cost] = on
    return dict(zip(ranked, ranks, strict=True)), fronts


def _labels(records: Sequence[Record]) -> list[str]:
    """name[field=value,...]: the fields in which rows of one name differ, as one would write them in a command."""
    shown = []
    for record in records:
        peers = [other for other in records if other.model.name == record.model.name]
        known = _settings(record)
        fields = [
            f"{field}={known[field]}"
            for field in known
            if any(_settings(other).get(field) != known[field] for other in peers)
        ]
        if not record.steps and any(_bytes_kind(other) != _bytes_kind(record) for other in peers if not other.steps):
            fields.append(_bytes_kind(record))
        name = f"{record.model.name}[{','.join(fields)}]" if fields else record.model.name
        shown.append(f"{name} {record.steps}" if record.steps else name)
    return shown


def _settings(record: Record) -> dict[str, Any]:
    return {**record.model.config, **(record.training.recipe if record.training else {})}


def _bytes_kind(record: Record) -> str:
    return f"{record.artefact.format} {record.artefact.precision}"


def _seed_lines(lines: Sequence[Line]) -> tuple[SeedLine, ...]:
    from grit.bench.statistics import over_seeds

    groups: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.model, line.record.scheme.name), []).append(line)
    found = []
    for (model, scheme), members in groups.items():
        by_seed = {line.seed: line.record for line in members if line.seed is not None}
        if len(by_seed) > 1 and len(by_seed) == len(members):
            records = [by_seed[seed] for seed in sorted(by_seed)]
            found.append(
                SeedLine(
                    model,
                    scheme,
                    tuple(sorted(by_seed)),
                    over_seeds([record.clean.k / record.clean.n for record in records]),
                    over_seeds([record.worst.low / record.worst.n for record in records]),
                )
            )
    return tuple(found)


# --- cells ------------------------------------------------------------------------------------------


def interval(robust: Robust | Count) -> Interval:
    """95 % Wilson interval; errors widen that of a robust count, since its high end may be true."""
    from grit.bench.statistics import Interval, wilson

    if isinstance(robust, Count):
        return wilson(robust.k, robust.n)
    return Interval(wilson(robust.low, robust.n).low, wilson(robust.high, robust.n).high)


class Latency(NamedTuple):
    p50_us: float
    engine: str


def latency(record: Record, target: str = LATENCY_TARGET) -> Latency | None:
    """The smallest measured median time of one text on a target, and the engine that reached it."""
    found = [
        Latency(cell.values[f"p50_{unit}"] * factor, cell.engine)
        for cell in record.costs
        for unit, factor in _TO_US.items()
        if cell.target == target and cell.kind == "measured" and f"p50_{unit}" in cell.values
    ]
    return min(found, default=None)


def instructions(record: Record, core: str) -> int | None:
    """Of the median text on an emulated core, from text to logits: the fewest of any engine."""
    return _emulated(record, CORES[core], "p50_instructions")


def ram_bytes(record: Record) -> int | None:
    """Of the compiled program at work: on the microcontroller, else on the emulated core that needs most."""
    small = _emulated(record, CORES["m4"], "ram_bytes")
    others = [found for core in CORES if (found := _emulated(record, CORES[core], "ram_bytes")) is not None]
    return small if small is not None else max(others, default=None)


def _emulated(record: Record, target: str, value: str) -> int | None:
    found = [
        int(cell.values[value])
        for cell in record.costs
        if cell.target == target and cell.kind == "emulated" and value in cell.values
    ]
    return min(found, default=None)


def _cost(record: Record, cost: str) -> int | None:
    return record.artefact.total_bytes if cost == "total_bytes" else instructions(record, cost.rpartition("_")[2])


def cells(line: Line) -> dict[str, Any]:
    """A row for programs: counts, ratios in [0, 1] and units in the names; the same keys in CSV, JSON and the page."""
    record = line.record
    clean = Count(k=record.clean.k, n=record.clean.n)
    clean_interval, worst_interval, time = interval(clean), interval(record.worst), latency(record)
    found: dict[str, Any] = {
        "dataset": record.data.name,
        "revision": record.data.revision,
        "split": record.data.split,
        "n": record.data.n,
        "suite": record.suite,
        "rank": line.rank.group if line.rank else None,
        "rank_best": line.rank.best if line.rank else None,
        "rank_worst": line.rank.worst if line.rank else None,
        "unranked": "; ".join(line.unranked),
        "model": line.model,
        "parameters": record.model.parameters,
        "scheme": record.scheme.name,
        "steps": record.steps,
        "seed": line.seed,
        "clean_k": clean.k,
        "clean_low": clean_interval.low,
        "clean_high": clean_interval.high,
        "majority_k": record.data.majority.k,
        "worst_k": record.worst.low,
        "worst_k_with_errors": record.worst.high,
        "worst_low": worst_interval.low,
        "worst_high": worst_interval.high,
        "calibration_error": record.clean.calibration_error,
        "format": record.artefact.format,
        "precision": record.artefact.precision,
        "total_bytes": record.artefact.total_bytes,
        "front": line.front,
        "ram_bytes": ram_bytes(record),
        **{f"instructions_{core}": instructions(record, core) for core in CORES},
        **{f"front:{cost}": line.fronts.get(cost) for cost in COSTS[1:]},
        "local_p50_us": time.p50_us if time else None,
        "local_engine": time.engine if time else None,
        "flags": " ".join(flag.name for flag in record.flags),
        "verified": line.verified.state if line.verified else None,
        "verified_level": line.verified.level if line.verified else None,
        "verified_on": line.verified.on if line.verified else None,
        "verified_floor": line.verified.floor if line.verified else None,
        "lowered_k": line.verified.lowered if line.verified else None,
        "data_licence": record.data.licence,
        "training_data": record.training.data if record.training else None,
        "training_n": record.training.n_train if record.training else None,
        "training_licence": record.training.licence if record.training else None,
        "overlap": next((flag.reason for flag in record.flags if flag.name == "overlap"), ""),
        "artefact": record.artefact.digest,
        "row": row_digest(record),
    }
    for attack in record.attacks:
        found[f"robust_k:{attack.name}"] = attack.robust.low
        found[f"robust_n:{attack.name}"] = attack.robust.n
    for key, count in (("random", control(record)), ("pool", pooled(record))):
        if count is not None:
            found[f"{key}_k"], found[f"{key}_n"] = count.k, count.n
    if line.explained is not None:
        found |= _reasons(line.explained)
    if line.personal is not None:
        from grit.bench.personalize import headline

        found |= headline.values(line.personal)
    for part, size in sorted(record.artefact.sizes_bytes.items()):
        found[f"bytes:{part}"] = size
    for cell in record.costs:
        for name, value in sorted(cell.values.items()):
            found[f"{cell.target}:{cell.engine}:{name}:{cell.kind}"] = value
    return found


def _reasons(explained: Explanation) -> dict[str, Any]:
    """The columns of a row that was explained, by the board's explainer; what stands beside each number is with it."""
    from grit.bench.explain.scores import HEADLINE, RANDOM

    found: dict[str, Any] = {"explained_n": explained.asked.n, "explainer": HEADLINE}
    means = {
        "normalised_aopc": explained.normalised(HEADLINE),
        "normalised_aopc_random": explained.normalised(RANDOM),
        "loyalty_tau": explained.loyalty(HEADLINE),
        "loyalty_tau_ceiling": explained.loyalty(HEADLINE, "ceiling"),
    }
    for name, mean in means.items():
        if mean is not None:
            found |= {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
    return found


def faithful(line: Line) -> Mean | None:
    """Normalised AOPC of the board's explainer."""
    from grit.bench.explain.scores import HEADLINE

    return None if line.explained is None else line.explained.normalised(HEADLINE)


def loyal(line: Line) -> Mean | None:
    """Kendall's tau with the teacher's attributions, by the board's explainer."""
    from grit.bench.explain.scores import HEADLINE

    return None if line.explained is None else line.explained.loyalty(HEADLINE)


def personal(line: Line) -> str:
    """74.0 (+1.2): accuracy of personal copies, mean over users, and the gain over the best floor."""
    if line.personal is None:
        return "-"
    found = line.personal.summary
    return f"{100 * found.mean:.1f} ({100 * found.gain:+.1f})"


def ratio(mean: Mean | None) -> str:
    """0.73: a mean that is no share of anything."""
    return "-" if mean is None else f"{mean.value:.2f}"


def control(record: Record) -> Count | None:
    """Examples of the sample that withstood random search in the widest space of the row's attacks."""
    found = [Count(k=check.k, n=check.n) for check in record.checks if check.check == "control" and check.n]
    return min(found, key=lambda count: count.k / count.n, default=None)


def pooled(record: Record) -> Count | None:
    """Examples that withstood the attacks and, too, what broke the other rows of the run."""
    return next((Count(k=check.k, n=check.n) for check in record.checks if check.check == "transfer"), None)


def percent_count(count: Count | None) -> str:
    return "-" if count is None else percent(count.k, count.n)


def percent(k: int, n: int) -> str:
    """One decimal; an empty count is a dash."""
    return f"{100 * k / n:.1f}" if n else "-"


def percent_interval(found: Interval) -> str:
    return f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"


def percent_robust(robust: Robust) -> str:
    """A range where errors leave one."""
    low, high = percent(robust.low, robust.n), percent(robust.high, robust.n)
    return low if robust.low == robust.high else f"{low}-{high}"


def kilobytes(size: int | None) -> str:
    """Thousands of bytes."""
    if size is None:
        return "-"
    return f"{size / 1000:,.1f}" if size < 100_000 else f"{size / 1000:,.0f}"


def duration(microseconds: float | None) -> str:
    """Three digits and a unit."""
    if microseconds is None:
        return "-"
    for unit, factor in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= 0.9995 * factor:
            return f"{microseconds / factor:.3g} {unit}"
    return f"{microseconds:.3g} µs"


def _timed(found: Latency | None) -> str:
    """494 µs c: the time, and the engine that took it."""
    return duration(None) if found is None else f"{duration(found.p50_us)} {found.engine}"


def parts(record: Record) -> str:
    """Where the bytes are, the largest part first."""
    sizes = sorted(record.artefact.sizes_bytes.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{part} {kilobytes(size)}" for part, size in sizes)


def _name(line: Line, with_seed: bool) -> str:
    seed = f" seed {line.seed}" if with_seed and line.seed is not None else ""
    return f"{line.model} {line.record.scheme.name}{seed}"


# --- tables -----------------------------------------------------------------------------------------


class Column(NamedTuple):
    heading: str
    cell: Callable[[Line], str]
    number: bool = True


def columns(section: Section, *, with_parts: bool = False) -> dict[str, Column]:
    """All columns of a table of text, by key, in their order."""
    found = {
        "rank": Column("Rank", lambda line: str(line.rank.group) if line.rank else "-"),
        "model": Column("Model", lambda line: line.model, number=False),
        "scheme": Column("Scheme", lambda line: line.record.scheme.name, number=False),
        "seed": Column("Seed", lambda line: "-" if line.seed is None else str(line.seed)),
        "clean": Column("Clean", lambda line: percent(line.record.clean.k, line.record.clean.n)),
        "clean interval": Column("95\u00a0%", lambda line: percent_interval(interval(clean_count(line)))),
        "worst": Column("Worst case", lambda line: percent_robust(line.record.worst)),
        "worst interval": Column("95\u00a0%", lambda line: percent_interval(interval(line.record.worst))),
        "k/n": Column("k/n", lambda line: f"{line.record.worst.low}/{line.record.worst.n}"),
    }
    for at, (name, heading) in enumerate(section.headings.items()):
        found[name] = Column(heading, _attack_cell(at))
    if any(control(line.record) for line in section.lines):
        found["random"] = Column("Random", lambda line: percent_count(control(line.record)))
    if any(pooled(line.record) for line in section.lines):
        found["pool"] = Column("Pool", lambda line: percent_count(pooled(line.record)))
    found["kB"] = Column("kB", lambda line: kilobytes(line.record.artefact.total_bytes))
    if with_parts:
        found["parts"] = Column("of which kB", lambda line: parts(line.record), number=False)
    for core in CORES:
        if any(instructions(line.record, core) is not None for line in section.lines):
            found[f"{core} instructions"] = Column(f"{core.upper()} instr.", _instructions_cell(core))
    found["local p50"] = Column("Local p50", lambda line: _timed(latency(line.record)))
    if any(map(faithful, section.lines)):
        found["faithful"] = Column("Faithful", lambda line: ratio(faithful(line)))
    if any(map(loyal, section.lines)):
        found["loyal"] = Column("Loyal", lambda line: ratio(loyal(line)))
    if any(line.personal for line in section.lines):
        found["personal"] = Column("Personal", personal)
    if any(line.verified for line in section.lines):
        found["verified"] = Column("Verified", _verified_cell, number=False)
    found["flags"] = Column("Flags", lambda line: ", ".join(flag.name for flag in line.record.flags), number=False)
    if not section.several_seeds:
        del found["seed"]
    return found


def badge(line: Line) -> str:
    """spot 2026-11-22: what a verifier did and when, and by how much a challenge has lowered the row."""
    if line.verified is None:
        return ""
    said = f"{line.verified.level} {line.verified.on}"
    lowered = line.verified.lowered
    return said if lowered is None else f"{said} lowered to {lowered}/{line.record.worst.n}"


def _verified_cell(line: Line) -> str:
    """stale: spot 2026-11-22; or, of a verdict that holds: spot 2026-11-22, floor 4.1 %."""
    if line.verified is None:
        return "-"
    said = badge(line) if line.verified.state == "current" else f"{line.verified.state}: {badge(line)}"
    return said if line.verified.floor is None else f"{said}, floor {100 * line.verified.floor:.1f} %"


def attack_text(line: Line, at: int) -> str:
    """What attack number ``at`` left robust, in percent."""
    robust = line.record.attacks[at].robust
    # An attack run on what others left standing says nothing of the rest: counts, and no share of all.
    return percent_robust(robust) if robust.n == line.record.data.n else f"{robust.low}/{robust.n}"


def _attack_cell(at: int) -> Callable[[Line], str]:
    return lambda line: attack_text(line, at)


def _instructions_cell(core: str) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        count = instructions(line.record, core)
        return "-" if count is None else f"{count:,}"

    return cell


def clean_count(line: Line) -> Count:
    """Right before any attack."""
    return Count(k=line.record.clean.k, n=line.record.clean.n)


def notes(section: Section) -> list[str]:
    """The sentences below a table: floor, attacks, why rows are unranked, seeds, the data's own notes."""
    floor = section.data.majority
    found = [
        f"Majority floor: {percent(floor.k, floor.n)} % ({floor.k}/{floor.n}), "
        f"always answering {section.majority_label!r}."
    ]
    if section.attacks:
        found.append(f"Worst case over {', '.join(section.headings)}: right after every one of them.")
    if sampled := {count.n for line in section.lines if (count := control(line.record))}:
        of = str(sampled.pop()) if len(sampled) == 1 else f"{min(sampled)} to {max(sampled)}"
        found.append(
            f"Random: of {of} examples that were right, robust to random search with as many queries; not ranked."
        )
    if dates := sorted({line.record.run.created[:10] for line in section.lines if pooled(line.record)}):
        found.append(f"Pool: worst case with what broke the run's other rows, as of {', '.join(dates)}; not ranked.")
    found += _notes_on_reasons(section)
    if any(line.personal for line in section.lines):
        found.append(
            "Personal: mean accuracy over users whom a model trained alike had never seen, after it learned from them, "
            "and the gain over the best floor; the section on personalization has intervals and the price; not ranked."
        )
    if any(line.rank for line in section.lines):
        found.append(
            "Same rank: not told apart from the best row of the group (exact McNemar on the same examples, Holm, 5 %)."
        )
    for reason, rows in section.reasons.items():
        who = "all rows" if len(rows) == len(section.lines) and len(rows) > 1 else ", ".join(rows)
        found.append(f"UNRANKED ({who}): {reason}.")
    for seeds in section.seeds:
        values = ", ".join(f"{100 * value:.1f}" for value in seeds.worst.values)
        spread = f", 95 % interval {percent_interval(seeds.worst.interval)}" if seeds.worst.interval else ""
        found.append(
            f"{seeds.model} {seeds.scheme}, seeds {', '.join(map(str, seeds.seeds))}: "
            f"worst case {100 * seeds.worst.mean:.1f} % on average ({values}){spread}."
        )
    for (target, engine, reason), lacking in _not_measured(section).items():
        who = "all rows" if len(lacking) == len(section.lines) and len(lacking) > 1 else ", ".join(lacking)
        found.append(f"Not measured on {target} by engine {engine} ({who}): {reason}.")
    found += [f"Data: {note}." for note in section.data.notes]
    return found


def _notes_on_reasons(section: Section) -> list[str]:
    """What the columns on explanations mean, and what chance and the teacher's own twin would reach."""
    from grit.bench.explain.scores import HEADLINE, RANDOM

    explained = [line.explained for line in section.lines if line.explained is not None]
    if not explained:
        return []
    texts = _range([each.asked.n for each in explained], "{}")
    by_chance = _range([mean.value for each in explained if (mean := each.normalised(RANDOM))], "{:.2f}")
    found = [
        f"Faithful: normalised AOPC of {HEADLINE} gradients over {texts} texts, 0 the worst order of the words and 1 "
        f"the best; random orders: {by_chance}; not ranked."
    ]
    if any(map(loyal, section.lines)):
        ceilings = [mean.value for each in explained if (mean := each.loyalty(HEADLINE, "ceiling"))]
        ceiling = f"; of the teacher with itself from another seed: {_range(ceilings, '{:.2f}')}" if ceilings else ""
        found.append(f"Loyal: Kendall's tau of these attributions with the teacher's{ceiling}; not ranked.")
    return found


def _range(values: Sequence[float], form: str) -> str:
    """0.21 to 0.25, or the one value."""
    shown = [form.format(value) for value in (min(values, default=math.nan), max(values, default=math.nan))]
    return shown[0] if shown[0] == shown[1] else " to ".join(shown)


def _not_measured(section: Section) -> dict[tuple[str, str, str], list[str]]:
    """(target, engine, reason) -> the rows that have no number there."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for line in section.lines:
        for cell in line.record.costs:
            if not cell.values:
                found.setdefault((cell.target, cell.engine, cell.reason), []).append(_name(line, section.several_seeds))
    return found


_DROPPED_FIRST = (
    "parts",
    "random",
    "pool",
    "faithful",
    "loyal",
    "personal",
    "verified",
    "flags",
    "k/n",
    "clean interval",
    *(f"{core} instructions" for core in CORES),
    "local p50",
    "kB",
    "worst interval",
    "rank",
)


def show(sections: Sequence[Section], console: Console, *, with_parts: bool = False) -> None:
    """The board on a terminal: as many columns as its width allows, and a line that says which were left out."""
    for section in sections:
        known = columns(section, with_parts=with_parts)
        attacks = [name for name in section.headings if name in known]
        split = _DROPPED_FIRST.index("local p50")
        order = [*_DROPPED_FIRST[:split], *reversed(attacks), *_DROPPED_FIRST[split:]]
        left_out: list[str] = []
        for key in (column for column in order if column in known):
            if _width(_table(section, known, left_out), console) <= console.width:
                break
            left_out.append(key)
        console.print()
        console.print(_table(section, known, left_out))
        if left_out:
            hidden = ", ".join(section.headings.get(key, key) for key in known if key in left_out)
            console.print(f"Left out at this width: {hidden}; widen the terminal or use --format csv.", style="dim")
        for note in notes(section):
            console.print(note, style="yellow" if note.startswith("UNRANKED") else "dim", markup=False, highlight=False)


def _table(section: Section, known: Mapping[str, Column], left_out: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=f"{section.title}: accuracies in %",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        padding=(0, 1, 0, 0),
    )
    shown = {key: column for key, column in known.items() if key not in left_out}
    for key, column in shown.items():
        foldable = key in ("model", "scheme", "flags", "parts")
        table.add_column(
            column.heading if foldable else column.heading.replace(" ", "\n"),
            justify="right" if column.number else "left",
            vertical="bottom",
            no_wrap=not foldable,
            overflow="fold",
        )
    for line in section.lines:
        table.add_row(
            *(Text(column.cell(line)) for column in shown.values()), style="dim" if _demoted(line.record) else None
        )
    return table


def _width(table: Table, console: Console) -> int:
    from rich.measure import Measurement

    return Measurement.get(console, console.options.update(width=10_000), table).maximum


def markdown(sections: Sequence[Section], *, with_parts: bool = False) -> str:
    """The board as GitHub tables."""
    blocks = []
    for section in sections:
        known = columns(section, with_parts=with_parts)
        rule = ["---:" if column.number else "---" for column in known.values()]
        rows = [[column.heading for column in known.values()], rule]
        rows += [[escaped(column.cell(line)) for column in known.values()] for line in section.lines]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        below = "\n".join(f"- {escaped(note)}" for note in notes(section))
        blocks.append(f"## {escaped(section.title)}\n\nAccuracies in %.\n\n{table}\n\n{below}\n")
    return "\n".join(blocks)


def escaped(text: str) -> str:
    for letter in "\\|`*_<>[]":
        text = text.replace(letter, "\\" + letter)
    return text


def comma_separated(sections: Sequence[Section]) -> str:
    """The board as CSV: one line a row, :func:`cells` as columns; empty where there is no value."""
    rows = [cells(line) for section in sections for line in section.lines]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_json(sections: Sequence[Section]) -> dict[str, Any]:
    """The board as JSON values."""
    return {
        "sections": [
            {
                "title": section.title,
                "dataset": section.data.name,
                "n": section.data.n,
                "majority_k": section.data.majority.k,
                "attacks": list(section.headings),
                "notes": notes(section),
                "rows": [cells(line) for line in section.lines],
            }
            for section in sections
        ]
    }


def as_json_text(sections: Sequence[Section]) -> str:
    """:func:`as_json`, the same bytes for the same rows."""
    return encode(as_json(sections)).decode() + "\n"
