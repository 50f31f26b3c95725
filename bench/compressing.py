"""The compression ladder of one trained row: every rung made, attacked anew, measured, and held against the others.

    compress -> attack -> check -> measure -> record -> board, ladder

From the attack on these are the steps of :mod:`grit.bench.run`, on the rung's own bytes: adversarial texts are written
against each rung and not carried over from the dense row. What does carry over is what the transfer matrix counts.
"""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grit.bench import compress, experiment, leaderboard, records, registry, run
from grit.bench.executor import run_all
from grit.bench.experiment import ARTEFACT, Experiment, RowPlan
from grit.bench.progress import Report, display
from grit.bench.records import Count, Record, Row
from grit.bench.run import Saved
from grit.bench.types import Artefact, Example, Threat, UsageError

STEPS = ("fp32", "fp16", "int8", "vocabulary", "products", "low_rank")  # those that train nothing
LADDER, TRANSFER = "ladder.md", "transfer.json"

Transfer = Mapping[str, Mapping[str, Count]]
"""Rung whose adversarial texts they are -> rung that reads them -> how many of those it would read rightly it misreads.

A rung is asked only about texts whose originals it reads rightly, so that no error of its own counts as a transfer.
"""


@dataclass(frozen=True)
class Ladder:
    """A ladder that was climbed: its rows in the order asked for, and what transfers between them."""

    folder: Path
    rows: tuple[Row, ...]
    transfer: Transfer


def climb(
    operand: str,
    steps: Sequence[str],
    changes: Mapping[str, Any],
    output: Path | None = None,
    *,
    jobs: int | None = None,
    quiet: bool = False,
) -> Ladder:
    """The rungs ``steps`` of the saved row ``operand``, whose own run folder stays as it is.

    Rungs that lie in the folder already are not made again, and others join them. ``changes``: fields of the row's
    experiment, as for :func:`run.attack`. Raises UsageError for what is no row, or has no program.
    """
    rungs = [compress.parse(words) for words in steps]
    names = [rung.name for rung in rungs]
    if len(set(names)) < len(names):
        raise UsageError(f"a rung is asked for twice among {', '.join(names)}")
    for name in ("models", "schemes", "n_train", "settings", "seed"):
        if name in changes:
            raise UsageError(f"{operand} is trained already: --{name.rstrip('s').replace('_', '-')} cannot change it")
    source, trained, plan = _row(operand)
    wanted = replace(trained, **changes)
    attacks = experiment.attacks(wanted)
    run.check_targets(wanted.targets)
    plans = [replace(plan, name=f"{plan.name}.{name}") for name in names]
    with (
        run.opened(wanted, output or Path("runs") / f"compress-{plan.name}") as (folder, dataset),
        display(sys.stderr, quiet=quiet) as shown,
    ):
        homes = {name: folder.model(each.name) for name, each in zip(names, plans, strict=True)}
        cache = folder.path / "lessons"
        making = [functools.partial(_make, source, trained, plan, rung, homes[rung.name], cache) for rung in rungs]
        run_all(making, run.processes(jobs), shown.report)
        learned = experiment.load_data(trained)
        run.finish_rows(wanted, plans, attacks, folder, dataset, learned, jobs, shown.report)
        run.write_board(folder)
        rows = _ordered(records.read_rows(folder.path), {name: home / ARTEFACT for name, home in homes.items()})
        ladder = Ladder(folder.path, tuple(rows.values()), _transfer(rows, homes, dataset.test))
        records.write(folder.path / TRANSFER, records.encode(ladder.transfer) + b"\n")
        records.write(folder.path / LADDER, markdown(ladder).encode())
        return ladder


# --- making a rung ------------------------------------------------------------------------------------------


def _row(operand: str) -> tuple[Saved, Experiment, RowPlan]:
    """The one row of an operand, the experiment that trained it, and its plan there; a teacher is a row, too."""
    rows = run.saved(operand)
    if len(rows) != 1:
        names = ", ".join(each.row for each in rows) or "none yet"
        raise UsageError(f"{operand} holds {len(rows)} rows ({names}): name one, as RUN/ROW")
    trained = experiment.from_config(rows[0].folder.path)
    plans = experiment.rows(trained)
    teacher = experiment.teacher_plan(trained, plans)
    for plan in (*plans, *([teacher] if teacher else ())):
        if plan.name == rows[0].row:
            return rows[0], trained, plan
    raise UsageError(f"{operand} is no row as it was trained: a ladder starts from the row that was compressed")


def _make(
    source: Saved, trained: Experiment, plan: RowPlan, rung: compress.Rung, home: Path, cache: Path, report: Report
) -> None:
    """The files of one rung, unless they are there."""
    from grit.bench import checkpoint
    from grit.bench.export import build

    dense = source.folder.model(source.row)
    files = {file.name: records.read(file) for file in (dense / run.HISTORY, dense / run.TIMES)}
    origin = records.digest(records.read(dense / ARTEFACT))
    if compress.is_made(home, rung, origin):
        return
    report(home.name, "compressing", 0, 1)
    program = checkpoint.load_model(dense).program()
    if program is None:
        raise UsageError(f"{source.row} has no program, it is exported through torch's tracer: nothing to compress")
    teacher = experiment.teacher_plan(trained, [plan])
    lessons = source.folder.model(teacher.name) if teacher else None
    dataset = experiment.load_data(trained)
    course = compress.Course(
        registry.load("models", plan.model),
        plan.config,
        plan.recipe,
        plan.scheme,
        dataset,
        plan.seed,
        checkpoint.load_model(lessons) if lessons and lessons.is_dir() else None,
        cache,
        home / "training",
        lambda epoch: report(home.name, "training", epoch.number, epoch.epochs),
    )
    for name, content in compress.make(rung, program, course, build.calibration(dataset), origin, files).items():
        records.write(home / name, content)
    shutil.rmtree(home / "training", ignore_errors=True)  # the checkpoints have done their service
    report(home.name, "compressing", 1, 1)


# --- what transfers -----------------------------------------------------------------------------------------


def _ordered(found: Sequence[Row], files: Mapping[str, Path]) -> dict[str, Row]:
    """Rung -> its row; the ladders of several dense rows may lie in one folder."""
    by_key = {(row.record.steps, row.record.artefact.digest): row for row in found}
    return {name: by_key[name, records.digest(records.read(file))] for name, file in files.items()}


def _transfer(rows: Mapping[str, Row], homes: Mapping[str, Path], examples: Sequence[Example]) -> Transfer:
    from grit.bench.export import build

    readers = {name: build.quickest(build.load(home / ARTEFACT)) for name, home in homes.items()}
    by_id = {example.id: example for example in examples}
    return {
        name: {other: carried(row, rows[other], reader, by_id) for other, reader in readers.items()}
        for name, row in rows.items()
    }


def carried(broken: Row, reading: Row, reader: Artefact, examples: Mapping[str, Example]) -> Count:
    """Of the adversarial texts found on ``broken`` whose originals ``reading`` reads rightly, those it misreads.

    ``reader`` is the artefact of ``reading``.
    """
    from grit.bench.export import words
    from grit.bench.sentence import Text

    assert broken.evidence is not None and reading.evidence is not None  # both were just written
    right = {line.id for line in reading.evidence.clean if line.right}
    asked = [
        (examples[outcome.id], outcome.script)
        for outcomes in broken.evidence.attacks.values()
        for outcome in outcomes
        if outcome.outcome == "broken" and outcome.id in right
    ]
    texts = [Text(example.text, Threat()).apply(script) for example, script in asked]
    answers = words.answer(reader, texts).argmax(axis=1).tolist()
    misread = sum(answer != example.label for answer, (example, _) in zip(answers, asked, strict=True))
    return Count(k=misread, n=len(asked))


# --- in words -----------------------------------------------------------------------------------------------


def markdown(ladder: Ladder) -> str:
    """The ladder and its transfer matrix, as ladder.md."""
    record = ladder.rows[0].record
    trained = [line for row in ladder.rows if (line := _training(row))]
    lines = [
        f"## {record.model.name} {record.scheme.name} on {record.data.name} "
        f"({record.data.split}, n = {record.data.n}{', ' + record.suite if record.suite else ''})",
        "",
        "Accuracies in %, with 95 % intervals. kB is the file that was attacked, vocabulary and all; flash is what "
        "engine c takes on a Cortex-M4, which holds every table expanded.",
        "",
        *_table([_HEADINGS, *(_cells(row.record) for row in ladder.rows)]),
        "",
        *(["Trained on, epochs chosen on dev:", "", *trained, ""] if trained else []),
        "Transfer: of the adversarial texts found on the rung of the line whose originals the rung of the column reads "
        "rightly, the share that it misreads, in %.",
        "",
        *_table(
            [
                ["found on \\ read by", *ladder.transfer],
                *(
                    [name, *(leaderboard.percent(count.k, count.n) for count in line.values())]
                    for name, line in ladder.transfer.items()
                ),
            ]
        ),
    ]
    return "\n".join(lines) + "\n"


_HEADINGS = [
    "Rung",
    "kB",
    "Clean",
    "95 %",
    "Worst case",
    "95 %",
    "A53 instr.",
    "A76 instr.",
    "M4 instr.",
    "M4 flash kB",
]


def _cells(record: Record) -> list[str]:
    clean = Count(k=record.clean.k, n=record.clean.n)
    flash = next((c.values["flash_bytes"] for c in record.costs if "flash_bytes" in c.values), None)
    counts = (leaderboard.instructions(record, core) for core in leaderboard.CORES)
    return [
        record.steps,
        leaderboard.kilobytes(record.artefact.total_bytes),
        leaderboard.percent_count(clean),
        leaderboard.percent_interval(leaderboard.interval(clean)),
        leaderboard.percent_robust(record.worst),
        leaderboard.percent_interval(leaderboard.interval(record.worst)),
        *("-" if count is None else f"{count:,}" for count in counts),
        leaderboard.kilobytes(None if flash is None else int(flash)),
    ]


def _training(row: Row) -> str:
    """How long the steps of a rung trained; "" for one that trained nothing."""
    made = row.record.compression
    facts = made.facts if isinstance(made, records.CompressionPart) else {}
    said = [
        f"{step} {each['optimiser_steps']:,} optimiser steps (epoch {each['best_epoch']} of {each['epochs']})"
        for step, each in facts.items()
        if "optimiser_steps" in each
    ]
    return f"- {row.record.steps}: {'; '.join(said)}" if said else ""


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = (f"| {' | '.join(cell.replace('[', chr(92) + '[') for cell in row)} |" for row in rows)
    return [head, f"| --- |{' ---: |' * (len(rows[0]) - 1)}", *body]
