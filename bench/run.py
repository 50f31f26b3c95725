"""One experiment, start to end: the page a reviewer reads first.

    train -> export -> attack -> check -> measure -> record -> board

Each step reads what the one before left in the run folder and is skipped where its own result already lies
there, so a killed run goes on with the same command and ends with the same records.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from grit.bench import datasets, experiment, lexicons, machine, operands, records, registry, schemes
from grit.bench.executor import run_all
from grit.bench.experiment import Experiment, Folder, RowPlan
from grit.bench.progress import Report, display
from grit.bench.types import Artefact, Attack, Dataset, Example, MalformedInput, Model, Outcome, UsageError

if TYPE_CHECKING:
    from grit.bench.diffs import Break
    from grit.bench.measure import Precision
    from grit.bench.victim import Respondent

ARTEFACT = experiment.ARTEFACT
HISTORY = "history.json"
TIMES = "times.json"
COST = "cost.json"
CHECKS = "checks.json"
BLOCKS = "blocks"  # folder of the evidence of examples attacked so far
BLOCK = 10, 250  # examples attacked by one process at a time: at least, at most, a quarter of all between

Named = tuple[tuple[str, Attack], ...]
"""Attacks by their full names, in their order."""


@dataclass(frozen=True)
class Finished:
    """A run that has ended: where it lies, and its rows."""

    folder: Path
    rows: tuple[records.Row, ...]


def run(wanted: Experiment, output: Path | None = None, *, jobs: int | None = None, quiet: bool = False) -> Finished:
    """The whole experiment. Rows are trained and attacked ``jobs`` at a time, and measured one by one, alone."""
    plans, attacks = experiment.rows(wanted), experiment.attacks(wanted)
    check_targets(wanted.targets)
    with opened(wanted, output, plans) as (folder, dataset), display(sys.stderr, quiet=quiet) as shown:
        _train_rows(wanted, plans, folder, jobs, shown.report)
        finish_rows(wanted, plans, attacks, folder, dataset, dataset, jobs, shown.report)
        write_board(folder)
        return _finished(folder)


def check_targets(targets: Sequence[str]) -> None:
    """Every target is made once before any work, so that a wrong word does not wait for the end of a training."""
    from grit.bench import measure

    for target in targets:
        measure.target_of(target)


def finish_rows(
    wanted: Experiment,
    plans: Sequence[RowPlan],
    attacks: Mapping[str, Attack],
    folder: Folder,
    dataset: Dataset,
    learned: Dataset,
    jobs: int | None,
    report: Report,
) -> None:
    """Attack, check, measure and record rows trained on ``learned``; nothing else runs while a row is measured."""
    names, named = tuple(plan.name for plan in plans), tuple(attacks.items())
    blocks = _blocks(wanted, dataset)
    attacked = [
        functools.partial(_attack_block, wanted, row, named, folder, block)
        for row in names
        if not (folder.evidence(row) / TIMES).is_file()
        for block in blocks
    ]
    run_all(attacked, processes(jobs), report)
    for row in names:
        _join_blocks(folder.evidence(row), len(blocks))
    examples = [example for block in blocks for example in block.examples]
    checked = [functools.partial(_check_row, wanted, row, names, named, folder, examples) for row in names]
    run_all(checked, processes(jobs), report)
    for plan in plans:
        _measure_row(wanted, plan.name, folder, dataset, report)
    for plan in plans:
        found = _checks(folder, plan.name, _natural_beside(plan, plans))
        record = _record(wanted, plan, attacks, folder, dataset, learned, found)
        records.append(folder.path / records.RECORDS, record)


def train(wanted: Experiment, output: Path | None = None, *, jobs: int | None = None, quiet: bool = False) -> Path:
    """The first step alone: every row trained and exported."""
    plans = experiment.rows(wanted)
    with opened(wanted, output, plans) as (folder, _), display(sys.stderr, quiet=quiet) as shown:
        _train_rows(wanted, plans, folder, jobs, shown.report)
        return folder.path


@contextmanager
def opened(wanted: Experiment, output: Path | None, plans: Sequence[RowPlan] = ()) -> Iterator[tuple[Folder, Dataset]]:
    """The run folder, made or found to hold this very experiment, and ours alone; and the data.

    plans: rows still to be trained; a scheme that cannot be trained on these labels is refused before all else.
    """
    dataset = experiment.load_data(wanted)
    for plan in plans:
        schemes.check_classes(plan.scheme, len(dataset.labels))
    folder = Folder(output or experiment.default_folder(wanted, dataset))
    folder.open(wanted, dataset)  # first, so that a folder of somebody's is refused untouched
    with folder.lock():
        yield folder, dataset


def processes(jobs: int | None) -> int:
    """How many may run at once: as many as there are cores, if nothing else is asked."""
    return jobs or os.cpu_count() or 1


# --- train and export --------------------------------------------------------------------------------


def _train_rows(wanted: Experiment, plans: Sequence[RowPlan], folder: Folder, jobs: int | None, report: Report) -> None:
    """The teacher first, since others learn from it; then all rows side by side."""
    teacher = experiment.teacher_plan(wanted, list(plans))
    for plan in (*plans, *([teacher] if teacher else ())):
        _check_plan(plan)
    rows = [functools.partial(_train_row, wanted, plan, teacher.name if teacher else None, folder) for plan in plans]
    if teacher is not None and teacher.name not in {plan.name for plan in plans}:
        _train_row(wanted, teacher, None, folder, report)
    elif teacher is not None:  # it is a row itself, and still comes first
        rows.sort(key=lambda job: job.args[1].name != teacher.name)
        rows.pop(0)(report)
    run_all(rows, processes(jobs), report)


def _check_plan(plan: RowPlan) -> None:
    """A model of this configuration can be built and answers a text; if not, that is said before any training."""
    from grit.bench.train import predict

    try:
        predict(registry.load("models", plan.model).build(plan.config, ["one text"], 2, plan.seed), ["one text"])
    # Somebody's configuration of somebody's model may fail in any way.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"{plan.name}: {plan.config!r} makes no model: {reason}; correct the field") from error


def _train_row(wanted: Experiment, plan: RowPlan, teacher: str | None, folder: Folder, report: Report) -> None:
    """One row's weights, history and deployed bytes."""
    home = folder.model(plan.name)
    if not (home / HISTORY).is_file():
        from grit.bench import checkpoint
        from grit.bench.train import Epoch, train

        dataset = experiment.load_data(wanted)
        started = time.perf_counter()
        mine: set[int] = set()  # epochs of this process; those before a kill took their time too

        def passed(epoch: Epoch) -> None:
            mine.add(epoch.number)
            report(plan.name, "training", epoch.number, epoch.epochs)

        report(plan.name, "training", 0, plan.recipe.epochs)
        learns = teacher is not None and schemes.needs_teacher(plan.scheme)
        trained = train(
            registry.load("models", plan.model),
            plan.config,
            plan.recipe,
            dataset,
            plan.scheme,
            seed=plan.seed,
            teacher=checkpoint.load_model(folder.model(teacher)) if learns and teacher else None,
            folder=home / "training",
            progress=passed,
            cache=folder.path / "lessons",
        )
        checkpoint.save_model(trained.model, home, dataset.labels)
        before = sum(epoch.seconds for epoch in trained.history if epoch.number not in mine)
        _write_json(home / TIMES, {"train": round(before + time.perf_counter() - started, 3)})
        history = {
            "criterion": trained.criterion,
            "best": trained.best.number,
            "data": dataset.name,
            "revision": dataset.revision,
            "n_train": len(dataset.train),
            "licence": dataset.licence,
            "epochs": [
                {
                    key: value
                    for key, value in dataclasses.asdict(epoch).items()
                    if key not in ("seconds", "epochs", "best")
                }
                for epoch in trained.history
            ],
        }
        _write_json(home / HISTORY, history)
        shutil.rmtree(home / "training", ignore_errors=True)  # the checkpoint has done its service
        report(plan.name, "training", plan.recipe.epochs, plan.recipe.epochs)
    if not (home / ARTEFACT).is_file():
        _export_row(wanted, plan, folder)


def _export_row(wanted: Experiment, plan: RowPlan, folder: Folder) -> None:
    from grit.bench import checkpoint
    from grit.bench.export import build

    home = folder.model(plan.name)
    dataset = experiment.load_data(wanted)
    records.write(home / ARTEFACT, build.deployed(checkpoint.load_model(home), build.calibration(dataset)))


# --- attack ------------------------------------------------------------------------------------------
# Examples are attacked in blocks, so that one row keeps many processes busy; no outcome depends on the cut.


@dataclass(frozen=True)
class Block:
    """Examples ``number`` of ``count``, and how many labels their data has: all that a process must be told."""

    number: int
    count: int
    examples: tuple[Example, ...]
    labels: int


def _blocks(wanted: Experiment, dataset: Dataset) -> list[Block]:
    chosen = datasets.subset(dataset.test, experiment.n_test(wanted, dataset), dataset.name)
    least, most = BLOCK
    size = max(least, min(most, -(-len(chosen) // 4)))
    parts = [chosen[start : start + size] for start in range(0, len(chosen), size)] or [()]
    return [Block(number, len(parts), tuple(part), len(dataset.labels)) for number, part in enumerate(parts)]


def _attack_block(wanted: Experiment, row: str, attacks: Named, folder: Folder, block: Block, report: Report) -> None:
    place = folder.evidence(row)
    if (place / BLOCKS / str(block.number) / TIMES).is_file():
        return
    _attack_examples(_victim(folder, row), row, wanted, attacks, place, block, report)


def _victim(folder: Folder, row: str) -> Respondent:
    """A saved row under attack: its deployed bytes, and its float weights for gradients."""
    from grit.bench.export import build
    from grit.bench.twin import Twin
    from grit.bench.victim import Victim

    home = folder.model(row)
    model = _trained_model(home)
    return Victim(build.quickest(build.load(home / ARTEFACT, model)), Twin(model))


def _attack_examples(
    victim: Respondent, row: str, wanted: Experiment, attacks: Named, place: Path, block: Block, report: Report
) -> None:
    """Clean answers and every attack's outcomes on one block of the examples, as evidence of its own.

    The attacks of a suite run one after the other, each on what still stands; any others see all examples.
    """
    from grit.bench import evaluate

    examples = block.examples
    if victim.classes != block.labels:
        raise UsageError(
            f"{row} answers {victim.classes} classes, {wanted.dataset} has {block.labels} labels; "
            "name the data it was trained for with --dataset"
        )
    logits, failed = evaluate.answers(victim, [example.text for example in examples])
    if examples and len(failed) == len(examples):
        raise MalformedInput(f"{row} fails on each of {len(examples)} texts, as on the first: {failed[0]}")
    here = place / BLOCKS / str(block.number)
    label = row if block.count == 1 else f"{row} [{block.number + 1}/{block.count}]"
    seconds: dict[str, float] = {}
    outcomes: dict[str, tuple[Outcome, ...]] = {}
    for name, attack in attacks:
        started = time.perf_counter()
        found = evaluate.attack_all(
            victim,
            attack,
            evaluate.standing(examples, outcomes.values()) if _in_sequence(wanted) else examples,
            seed=wanted.seed,
            name=name,
            journal=here / f"{records.evidence_name(name)}.journal",
            progress=functools.partial(report, label, name),
        )
        outcomes[name] = tuple(sorted(found, key=lambda outcome: outcome.id))
        seconds[name] = round(time.perf_counter() - started, 3)
    lexicons.keep()
    clean = sorted(records.clean_lines(examples, logits), key=lambda line: line.id)
    records.write_evidence(here, records.Evidence(tuple(clean), outcomes))
    for name in outcomes:
        (here / f"{records.evidence_name(name)}.journal").unlink(missing_ok=True)
    _write_json(here / TIMES, seconds)


def _in_sequence(wanted: Experiment) -> bool:
    return any(experiment.is_suite(spec) for spec in wanted.attacks)


def _join_blocks(place: Path, count: int) -> None:
    """The evidence of a row, once all of its blocks are there."""
    if not (place / TIMES).is_file():
        homes = [place / BLOCKS / str(block) for block in range(count)]
        parts = [records.read_evidence(home) for home in homes]
        records.write_evidence(
            place,
            records.Evidence(
                tuple(sorted((line for part in parts for line in part.clean), key=lambda line: line.id)),
                {
                    name: tuple(sorted((o for part in parts for o in part.attacks[name]), key=lambda o: o.id))
                    for name in parts[0].attacks
                },
            ),
        )
        times = [_read_json(home / TIMES) for home in homes]
        _write_json(place / TIMES, {name: round(sum(each[name] for each in times), 3) for name in times[0]})
    shutil.rmtree(place / BLOCKS, ignore_errors=True)


# --- check -------------------------------------------------------------------------------------------


def _check_row(
    wanted: Experiment,
    row: str,
    rows: tuple[str, ...],
    attacks: Named,
    folder: Folder,
    examples: Sequence[Example],
    report: Report,
) -> None:
    if not (folder.evidence(row) / CHECKS).is_file():
        _check_victim(_victim(folder, row), row, rows, wanted, attacks, folder, examples, report)


def _check_victim(
    victim: Respondent,
    row: str,
    rows: tuple[str, ...],
    wanted: Experiment,
    attacks: Named,
    folder: Folder,
    examples: Sequence[Example],
    report: Report,
) -> None:
    """Whether the attacks are strong enough to be believed on this row; and what broke the others, tried on it."""
    from grit.bench import adequacy

    evidence = records.read_evidence(folder.evidence(row))
    started = time.perf_counter()
    trial = adequacy.Trial(victim, dict(attacks), examples, evidence.attacks, wanted.seed)
    found = list(adequacy.checks(trial, functools.partial(report, row)))
    others = [records.read_evidence(folder.evidence(other)) for other in rows if other != row]
    if others:
        found.append(adequacy.transfer(victim, examples, evidence, adequacy.pool(others)))
    _write_json(
        folder.evidence(row) / CHECKS,
        {"seconds": round(time.perf_counter() - started, 3), "checks": [records.plain(check) for check in found]},
    )


def _checks(folder: Folder, row: str, natural: str | None = None) -> tuple[records.CheckPart, ...]:
    """What the checks of a row found; ``natural``: the row beside which a canary is held."""
    import msgspec

    from grit.bench import adequacy

    found = msgspec.convert(_read_json(folder.evidence(row) / CHECKS)["checks"], tuple[records.CheckPart, ...])
    if natural is None:
        return found
    pair = [records.read_evidence(folder.evidence(each)) for each in (row, natural)]
    return (*found, adequacy.canary(*pair))


def _natural_beside(plan: RowPlan, plans: Sequence[RowPlan]) -> str | None:
    """The natural row of a canary's model, if the run has one."""
    from grit.bench import adequacy

    if plan.scheme.name not in adequacy.CANARIES:
        return None
    twins = [
        other.name
        for other in plans
        if other.scheme.name == adequacy.NATURAL and (other.model, other.config) == (plan.model, plan.config)
    ]
    return twins[0] if twins else None


# --- measure -----------------------------------------------------------------------------------------


def _measure_row(wanted: Experiment, row: str, folder: Folder, dataset: Dataset, report: Report) -> None:
    """What the deployed bytes cost on every target; a place that cannot measure leaves its reason."""
    home = folder.model(row)
    path = home / COST
    if path.is_file():
        return
    from grit.bench import measure

    cells = []
    for number, target in enumerate(wanted.targets):
        report(row, f"measuring on {target}", number, len(wanted.targets))
        cells += measure.cells(home / ARTEFACT, target, _texts(dataset), _model(home))
    report(row, "measuring", len(wanted.targets), len(wanted.targets))
    _write_json(path, [records.plain(cell) for cell in cells])


def _model(home: Path) -> Model | None:
    """The float model beside deployed bytes, where it came along: as it was trained, or as compression left it."""
    from grit.bench import checkpoint, compress

    if (home / compress.TWIN).is_file():
        return compress.twin(records.read(home / compress.TWIN))
    return checkpoint.load_model(home) if (home / experiment.CONFIG).is_file() else None


def _trained_model(home: Path) -> Model:
    model = _model(home)
    if model is None:
        raise UsageError(f"{home.name} came without its weights, as deployed bytes alone: give the run that made them")
    return model


def _texts(dataset: Dataset) -> list[str]:
    """Typical texts to time: the dev split's, so that the test split is read by attacks alone."""
    return [example.text for example in datasets.subset(dataset.dev, 200, dataset.name)]


# --- record ------------------------------------------------------------------------------------------


def _record(
    wanted: Experiment,
    plan: RowPlan,
    attacks: Mapping[str, Attack],
    folder: Folder,
    dataset: Dataset,
    learned: Dataset,
    checks: tuple[records.CheckPart, ...],
) -> records.Record:
    """What the finished steps left, as one row of the board."""
    from grit.bench import compress
    from grit.bench.export import build

    home, place = folder.model(plan.name), folder.evidence(plan.name)
    evidence = records.read_evidence(place)
    by_id = {example.id: example for example in dataset.test}
    examples = [by_id[line.id] for line in evidence.clean]
    model = _trained_model(home)
    artefact = build.load(home / ARTEFACT, model)
    made = compress.made(home)
    data = _data_part(wanted, dataset, examples)
    clean = records.clean_part(evidence.clean, len(dataset.labels), build.logits(artefact, examples))
    parts = _attack_parts(attacks, evidence)
    lasting, measured = records.place_costs(_cells(home))
    history = _read_json(home / HISTORY)
    overlapping = datasets.overlap((*learned.train, *learned.dev), examples)
    epochs = tuple(records.EpochPart(**epoch) for epoch in history["epochs"])
    suite, suite_digest = experiment.suite(attacks)
    return records.Record(
        suite=suite,
        suite_sha256=suite_digest or None,
        model=records.ModelPart(
            name=plan.model,
            config=records.plain(plan.config),
            repr=repr(plan.config),
            parameters=build.parameters(model),
        ),
        scheme=records.SchemePart(name=plan.scheme.name, terms=_terms(plan), teacher=_teacher(wanted, plan)),
        training=records.TrainingPart(
            recipe=records.plain(plan.recipe),
            seed=plan.seed,
            epochs=len(epochs),
            best_epoch=history["best"],
            dev_score=epochs[history["best"] - 1].score,
            selection=history["criterion"],
            data=history["data"],
            revision=history["revision"],
            n_train=history["n_train"],
            licence=history["licence"],
            history=epochs,
        ),
        data=data,
        compression=made.part if made else UNSET,
        artefact=_artefact_part(artefact, made.precision if made else "int8"),
        clean=clean,
        attacks=parts,
        worst=records.worst_case(evidence),
        checks=checks,
        flags=records.flags(
            data,
            clean,
            parts,
            embedded=wanted.dataset == datasets.EMBEDDED,
            overlapping=len(overlapping),
            checks=checks,
        ),
        cost=lasting,
        run=_run_part({**_read_json(home / TIMES), **_read_json(place / TIMES)}, measured),
    )


def _attack_parts(attacks: Mapping[str, Attack], evidence: records.Evidence) -> tuple[records.AttackPart, ...]:
    return tuple(
        records.attack_part(name, attacks[name], evidence.attacks[name], _lexicon(attacks[name]))
        for name in sorted(attacks)
    )


def _data_part(wanted: Experiment, dataset: Dataset, examples: Sequence[Example]) -> records.DataPart:
    labels = range(len(dataset.labels))
    return records.DataPart(
        name=dataset.name,
        revision=dataset.revision,
        split="test",
        n=len(examples),
        selection="all"
        if len(examples) == len(dataset.test)
        else "stratified by label, by rank of sha256(dataset, id)",
        labels=dataset.labels,
        label_counts=tuple(sum(example.label == label for example in examples) for label in labels),
        notes=dataset.notes,
        licence=dataset.licence,
    )


def _terms(plan: RowPlan) -> tuple[records.TermPart, ...]:
    return tuple(
        records.TermPart(objective=name, weight=weight, options=records.plain(objective))
        for name, weight, objective in schemes.objectives(plan.scheme)
    )


def _teacher(wanted: Experiment, plan: RowPlan) -> str | None:
    """The teacher with the fields that are not its defaults, as in ``transformer[source=...]``."""
    taught = experiment.teacher_plan(wanted, [plan])
    return taught.name.removesuffix(f".{taught.scheme.name}.s{taught.seed}") if taught else None


def _artefact_part(artefact: Artefact, precision: str) -> records.ArtefactPart:
    from grit.bench.export.onnx import OnnxArtefact

    return records.ArtefactPart(
        format="onnx" if isinstance(artefact, OnnxArtefact) else "gritbench.program",
        precision=precision,
        digest=artefact.digest,
        sizes_bytes=dict(artefact.sizes_bytes),
        total_bytes=sum(artefact.sizes_bytes.values()) or None,
        logit_tolerance=0.0 if artefact.exact else 1e-4,
    )


def _lexicon(attack: Attack) -> tuple[str, str] | None:
    if not registry.LEXICAL_SPACES & set(attack.threat.spaces):
        return None
    lexicon = lexicons.load(attack.threat.lexicon)
    return lexicon.name, lexicon.digest


def _run_part(seconds: Mapping[str, float], cost: tuple[records.CostPart, ...]) -> records.RunPart:
    return records.RunPart(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=dict(seconds),
        machine=machine.facts(),
        versions=machine.versions(),
        cost=cost,
        command=shlex.join(["grit", *sys.argv[1:]]),
    )


def _cells(home: Path) -> list[records.CostPart]:
    import msgspec

    return msgspec.convert(_read_json(home / COST), list[records.CostPart])


def _finished(folder: Folder) -> Finished:
    return Finished(folder.path, tuple(records.read_rows(folder.path)))


# --- the steps on saved results ----------------------------------------------------------------------


@dataclass(frozen=True)
class Saved:
    """One saved row: its run folder and its name there."""

    folder: Folder
    row: str


def saved(operand: str) -> list[Saved]:
    """The rows that an operand names: a run folder, or one row in it (RUN/model/ROW, or RUN/ROW for short)."""
    path = Path(operand)
    if _is_run(path):
        return [Saved(Folder(path), row) for row in Folder(path).rows]
    if (path / ARTEFACT).is_file() and path.parent.name == "model":
        return [Saved(Folder(path.parent.parent), path.name)]
    if not path.exists() and _is_run(path.parent):
        return [Saved(Folder(path.parent), _row_named(path.name, Folder(path.parent)))]
    raise UsageError(
        f"{operand!r} is no run folder and no row of one (RUN/model/ROW){operands.hint(path)}; "
        "'grit run' or 'grit train' makes them"
    )


def _is_run(path: Path) -> bool:
    return (path / experiment.CONFIG).is_file() and (path / "model").is_dir()


def _row_named(key: str, folder: Folder) -> str:
    """The one row of a run that is called ``key``, or whose name without its settings begins with it, part by part."""
    rows = folder.rows
    plain = {row: re.sub(r"\[[^\]]*\]", "", row) for row in rows}
    found = [row for row in rows if row == key] or [row for row in rows if f"{plain[row]}.".startswith(f"{key}.")]
    if len(found) > 1:
        raise UsageError(f"{len(found)} rows of {folder.path} are called {key!r}: name one of {', '.join(found)}")
    if not found:
        there = ", ".join(rows) or "not trained yet"
        raise registry.unknown("row", key, plain.values(), f"the rows of {folder.path} are {there}")
    return found[0]


def attack(
    operand: str,
    changes: Mapping[str, Any],
    output: Path | None = None,
    *,
    jobs: int | None = None,
    quiet: bool = False,
) -> Finished:
    """Other attacks, examples or data on saved rows, or attacks on any model that comes without its run.

    The results go to a run folder of their own; the saved one stays as it is.
    """
    if operands.is_given(operand):
        return _attack_given(operand, changes, output, jobs, quiet)
    rows = saved(operand)
    if not rows:
        raise UsageError(f"{operand} holds no trained row yet; the command that began it goes on")
    source = rows[0].folder
    for name in ("models", "schemes", "n_train", "settings"):
        if name in changes:
            raise UsageError(f"{operand} is trained already: --{name.rstrip('s').replace('_', '-')} cannot change it")
    trained = experiment.from_config(source.path)
    if experiment.is_callable(trained):
        raise UsageError(f"{operand} holds attacks on {trained.models[0]}, which came without its run: attack that")
    wanted = dataclasses.replace(trained, **changes)
    plans = {plan.name: plan for plan in experiment.rows(trained)}
    chosen = [plan for each in rows if (plan := _plan_of(each, plans)) is not None]
    if not chosen:
        raise UsageError(f"{operand} holds a teacher and no row of its own yet; the command that began it goes on")
    attacks = experiment.attacks(wanted)
    check_targets(wanted.targets)
    learned = experiment.load_data(trained)
    with opened(wanted, output) as (folder, dataset), display(sys.stderr, quiet=quiet) as shown:
        for plan in chosen:
            _copy_row(source.model(plan.name), folder.model(plan.name))
        finish_rows(wanted, chosen, attacks, folder, dataset, learned, jobs, shown.report)
        write_board(folder)
        return _finished(folder)


def _plan_of(saved: Saved, plans: Mapping[str, RowPlan]) -> RowPlan | None:
    """How a saved row was trained, under its own name: of a compressed one, the row that it was made from."""
    from grit.bench import compress

    made = compress.made(saved.folder.model(saved.row))
    plan = plans.get(saved.row.removesuffix(f".{made.part.name}") if made else saved.row)
    return None if plan is None else dataclasses.replace(plan, name=saved.row)


def _copy_row(source: Path, target: Path) -> None:
    if source.resolve() == target.resolve():
        return
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file():
            records.write(target / file.name, file.read_bytes())


def _attack_given(
    operand: str, changes: Mapping[str, Any], output: Path | None, jobs: int | None, quiet: bool
) -> Finished:
    """A model without its run: a bundle, an exported artefact, or a function, which costs what nobody can count."""
    function = operands.is_function(operand)
    for name in ("models", "schemes", "n_train", "settings", *(["targets"] if function else [])):
        if name in changes:
            raise UsageError(f"{operand} comes as it is: --{name.rstrip('s').replace('_', '-')} says nothing about it")
    said = {**operands.data_of(operand), **({"targets": ()} if function else {}), **changes}
    wanted = Experiment(**{**said, "models": (operand,), "schemes": ()})
    attacks, row = experiment.attacks(wanted), operands.row_name(operand)
    check_targets(wanted.targets)
    with opened(wanted, output) as (folder, dataset), display(sys.stderr, quiet=quiet) as shown:
        place, labels = folder.evidence(row), len(dataset.labels)
        named, blocks = tuple(attacks.items()), _blocks(wanted, dataset)
        # A function is asked in this process: it may hold what no other can.
        at_once = 1 if function else processes(jobs)
        attacked = [functools.partial(_attack_given_block, wanted, row, named, folder, block) for block in blocks]
        if not (place / TIMES).is_file():
            run_all(attacked, at_once, shown.report)
        _join_blocks(place, len(blocks))
        with operands.given(operand, labels) as given:
            for name, content in given.files.items():
                records.write(folder.model(row) / name, content)
            if not (place / CHECKS).is_file():
                examples = [example for block in blocks for example in block.examples]
                _check_victim(given.victim, row, (row,), wanted, named, folder, examples, shown.report)
            evidence, checks = records.read_evidence(place), _checks(folder, row)
            by_id = {example.id: example for example in dataset.test}
            evaluated = [by_id[line.id] for line in evidence.clean]
            data = _data_part(wanted, dataset, evaluated)
            # Nobody knows what another question to a function costs; bytes are asked again.
            logits = None if function else given.victim.logits([each.text for each in evaluated])
            clean = records.clean_part(evidence.clean, labels, logits)
            parts = _attack_parts(attacks, evidence)
            raised = records.flags(data, clean, parts, embedded=wanted.dataset == datasets.EMBEDDED, checks=checks)
            suite, suite_digest = experiment.suite(attacks)
            if not function:
                _measure_row(wanted, row, folder, dataset, shown.report)
            lasting, measured = records.place_costs([] if function else _cells(folder.model(row)))
            record = records.Record(
                suite=suite,
                suite_sha256=suite_digest or None,
                model=given.model,
                scheme=given.scheme,
                training=given.training,
                compression=given.compression,
                data=data,
                artefact=given.artefact,
                clean=clean,
                attacks=parts,
                worst=records.worst_case(evidence),
                checks=checks,
                flags=tuple(sorted((*raised, *given.flags), key=lambda flag: list(records.FLAGS).index(flag.name))),
                cost=lasting,
                run=_run_part(_read_json(place / TIMES), measured),
            )
        records.append(folder.path / records.RECORDS, record)
        write_board(folder)
        return _finished(folder)


def _attack_given_block(
    wanted: Experiment, row: str, attacks: Named, folder: Folder, block: Block, report: Report
) -> None:
    place = folder.evidence(row)
    if not (place / BLOCKS / str(block.number) / TIMES).is_file():
        with operands.given(wanted.models[0], block.labels) as given:
            _attack_examples(given.victim, row, wanted, attacks, place, block, report)


def measure(operand: str, targets: Sequence[str], *, quiet: bool = False) -> dict[str, list[records.CostPart]]:
    """row -> cells: what each saved row costs on each target, measured anew."""
    from grit.bench import measure as cost

    found: dict[str, list[records.CostPart]] = {}
    check_targets(targets)
    with display(sys.stderr, quiet=quiet) as shown:
        for each in saved(operand):
            dataset = experiment.load_data(experiment.from_config(each.folder.path))
            for number, target in enumerate(targets):
                shown.report(each.row, f"measuring on {target}", number, len(targets))
                home = each.folder.model(each.row)
                cells = cost.cells(home / ARTEFACT, target, _texts(dataset), _model(home))
                found.setdefault(each.row, []).extend(cells)
            shown.report(each.row, "measuring", len(targets), len(targets))
    return found


def precision(operand: str) -> dict[str, Precision]:
    """row -> int8 beside fp32 on the whole test split."""
    from grit.bench import measure as cost

    found = {}
    for each in saved(operand):
        dataset = experiment.load_data(experiment.from_config(each.folder.path))
        home = each.folder.model(each.row)
        found[each.row] = cost.precision(home / ARTEFACT, _trained_model(home), dataset.test)
    return found


def export(operand: str, format_: str, precision: str, output: Path) -> dict[str, int]:
    """One saved row as files that ship: part -> bytes."""
    from grit.bench.export import build

    rows = saved(operand)
    if len(rows) != 1:
        names = ", ".join(each.row for each in rows)
        raise UsageError(f"{operand} holds {len(rows)} rows ({names}): name one, as {operand}/model/{rows[0].row}")
    home = rows[0].folder.model(rows[0].row)
    model = _trained_model(home)
    licence = _read_json(home / HISTORY)["licence"] if (home / HISTORY).is_file() else "unknown"
    return build.export(model, home / ARTEFACT, format_, precision, output, licence=licence)


def breaks(finished: Finished, count: int) -> tuple[tuple[str, ...], list[Break]]:
    """The names of the labels, and the first ``count`` texts that every attack broke in every row."""
    from grit.bench import diffs

    dataset = experiment.load_data(experiment.from_config(finished.folder))
    examples = {example.id: example for example in dataset.test}
    found: list[Break] = []
    for row in finished.rows:
        if row.evidence is not None:
            name = f"{row.record.model.name} {row.record.scheme.name}"
            found += diffs.breaks(name, row.evidence, examples, count)
    return dataset.labels, found


# --- the board -----------------------------------------------------------------------------------


def write_board(folder: Folder) -> None:
    """The run's own board beside its records: board.md, the page index.html, and the attacks' curves.svg."""
    from grit.bench import curves, leaderboard
    from grit.bench.explain import scores
    from grit.bench.site import write_page

    rows = leaderboard.load([folder.path])
    records.write(folder.path / curves.FILE, curves.svg([row.record for row in rows]).encode())
    sections = leaderboard.board(rows, explained=scores.below([folder.path]))
    records.write(folder.path / "board.md", leaderboard.markdown(sections).encode())
    write_page(sections, folder.path)


# --- small things ------------------------------------------------------------------------------------


def _write_json(path: Path, value: Any) -> None:
    records.write(path, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MalformedInput(f"{path}: not JSON ({error}); remove it and repeat the command") from error
