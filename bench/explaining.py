"""Saved rows -> their explanations, scored: what ``grit explain`` does, start to end.

    the rows and their teacher -> a second teacher -> attributions -> scores -> lines beside the records, and a page

Everything that is known about an explanation is asked in the room ``explain``; here it is only fetched and kept.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from grit.bench import datasets, experiment, machine, records
from grit.bench.experiment import ARTEFACT, Folder, RowPlan
from grit.bench.operands import callable_of, data_of, given, is_function, is_given, row_name
from grit.bench.progress import Report, display
from grit.bench.run import TIMES, saved, write_board
from grit.bench.run import train as train_rows
from grit.bench.types import Dataset, Example, UsageError

if TYPE_CHECKING:
    from grit.bench.explain.scores import Asked, Explanation, Loyal, Masked, Shuffled, Trained, Truth
    from grit.bench.explain.show import Sentence
    from grit.bench.explain.survey import Progress, Speaker

EXPLAIN = "explain"  # the folder beside a run's records that holds what was found out about its explanations
TWIN = "twin"  # in it: the run that trained the teacher from another seed
PLANTED_N = 8000  # training texts of a model with planted shortcuts: of 2,000 the words are learned by half


@dataclass(frozen=True)
class Wanted:
    """What is asked about explanations.

    texts: explain these alone, and score nothing. dataset: None is what the rows were trained on. methods: explainers,
    none for all. show: sentences a row. ceiling: train the teacher from another seed, once, to say how loyal it is to
    itself. planted: train models with planted shortcuts and shuffle the rows' own weights: a known truth.
    """

    texts: tuple[str, ...] = ()
    dataset: str | None = None
    n: int = 100
    methods: tuple[str, ...] = ()
    show: int = 1
    ceiling: bool = True
    planted: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Explained:
    """Explanations of rows: their scores, some sentences, and the folder that holds them, if they were written."""

    folder: Path | None
    explanations: tuple[Explanation, ...]
    sentences: tuple[Sentence, ...]


def explain(operand: str, wanted: Wanted, output: Path | None = None, *, quiet: bool = False) -> Explained:
    """Explains saved rows (a run folder, one row of it), or a model that comes without its run, by asking it alone."""
    from grit.bench.explain.survey import chosen

    if is_given(operand):
        return _given(operand, wanted, output, quiet)
    chosen(wanted.methods)  # a mistake in their names is told before anything is read
    found = saved(operand)
    if not found:
        raise UsageError(f"{operand} holds no trained row yet; the command that began it goes on")
    folder = found[0].folder
    data = datasets.load(wanted.dataset or experiment.from_config(folder.path).dataset)
    rows = [_speaker(folder, each.row, wanted) for each in found]
    if wanted.texts:
        return _sentences_only(rows, data.labels, wanted, output)
    place = output or folder.path / EXPLAIN
    teachers = _teachers(folder, place, rows, wanted, quiet)
    with display(sys.stderr, quiet=quiet) as shown:
        explained = _scored(rows, folder, teachers, data, wanted, place, shown.report)
    if output is None and (folder.path / records.RECORDS).is_file():
        write_board(folder)  # with the columns that are known now
    return explained


def _given(operand: str, wanted: Wanted, output: Path | None, quiet: bool) -> Explained:
    """A function, a bundle, an exported artefact: asked with whole texts, explained without gradients."""
    from grit.bench.explain.survey import Speaker, chosen
    from grit.bench.explain.texts import Told

    explainers = chosen(wanted.methods, gradients=False)
    named = wanted.dataset or data_of(operand).get("dataset")
    data = datasets.load(named or datasets.EMBEDDED)
    labels = data.labels if named or not wanted.texts else ()
    # A function does not say how many classes it has: where no data does, it is asked.
    classes = len(labels) or (len(callable_of(operand)([wanted.texts[0]])[0]) if is_function(operand) else 0)
    with given(operand, classes) as found, display(sys.stderr, quiet=quiet) as shown:
        name = row_name(operand)
        row = Speaker(name, found.victim.digest, Told(found.victim.logits), None, explainers, wanted.seed)
        if wanted.texts:
            return _sentences_only([row], labels, wanted, output)
        return _scored([row], None, None, data, wanted, output or Path("runs") / f"{EXPLAIN}-{name}", shown.report)


def _sentences_only(rows: Sequence[Speaker], labels: Sequence[str], wanted: Wanted, output: Path | None) -> Explained:
    from grit.bench.explain.show import PAGE, page

    sentences = tuple(_sentence(row, text, labels, None) for text in wanted.texts for row in rows)
    if output is not None:
        records.write(output / PAGE, page((), sentences))
    return Explained(output, (), sentences)


def _scored(
    rows: Sequence[Speaker],
    folder: Folder | None,
    teachers: Teachers | None,
    data: Dataset,
    wanted: Wanted,
    place: Path,
    report: Report,
) -> Explained:
    from grit.bench.explain.scores import below, save
    from grit.bench.explain.show import PAGE, page

    examples = datasets.subset(data.test, wanted.n, data.name)
    known = below([place])
    explanations = []
    for row in rows:
        asked = _asked(row, folder, teachers, data, examples, wanted)
        found = known.get(row.digest)
        if found is None or not found.answers(asked):  # a killed command goes on with the next row
            found = _explanation(row, asked, folder, teachers, data, examples, functools.partial(report, row.name))
            save(place, [found])
        explanations.append(found)
    sentences = tuple(
        _sentence(row, example.text, data.labels, example.label) for example in examples[: wanted.show] for row in rows
    )
    records.write(place / PAGE, page(explanations, sentences))
    return Explained(place, tuple(explanations), sentences)


# --- who is explained ---------------------------------------------------------------------------------


def _speaker(folder: Folder, row: str, wanted: Wanted) -> Speaker:
    """A saved row: asked in its deployed bytes, differentiated in its float weights."""
    from grit.bench import checkpoint
    from grit.bench.explain.cut import Cut
    from grit.bench.explain.survey import Speaker, chosen
    from grit.bench.explain.texts import Shipped
    from grit.bench.export import build

    home = folder.model(row)
    model = checkpoint.load_model(home)
    artefact = build.quickest(build.load(home / ARTEFACT, model))
    return Speaker(row, artefact.digest, Shipped(artefact), Cut(model), chosen(wanted.methods), wanted.seed)


@dataclass(frozen=True)
class Teachers:
    """The teacher of a run, and the same from another seed: what a student's loyalty is measured against."""

    teacher: Speaker
    twin: Speaker | None


def _teachers(folder: Folder, place: Path, rows: Sequence[Speaker], wanted: Wanted, quiet: bool) -> Teachers | None:
    """None where the run has no teacher. The second one is trained once, into ``place``."""
    trained = experiment.from_config(folder.path)
    plan = experiment.teacher_plan(trained, experiment.rows(trained))
    if plan is None or not (folder.model(plan.name) / ARTEFACT).is_file():
        return None
    teacher = next((row for row in rows if row.name == plan.name), None) or _speaker(folder, plan.name, wanted)
    if not wanted.ceiling:
        return Teachers(teacher, None)
    again = dataclasses.replace(
        trained,
        models=(plan.model,),
        schemes=(plan.scheme.name,),
        attacks=(),
        targets=(),
        settings=tuple(pair for pair in trained.settings if pair[0].startswith(f"{plan.model}.")),
        seed=plan.seed + 1,
    )
    (twin,) = saved(str(train_rows(again, place / TWIN, jobs=1, quiet=quiet)))
    return Teachers(teacher, _speaker(twin.folder, twin.row, wanted))


# --- what is found out --------------------------------------------------------------------------------


def _asked(
    row: Speaker,
    folder: Folder | None,
    teachers: Teachers | None,
    data: Dataset,
    examples: Sequence[Example],
    wanted: Wanted,
) -> Asked:
    """What the scores of a row stand on: equal questions have equal answers."""
    from grit.bench.explain.scores import Asked

    above = teachers if teachers is not None and teachers.teacher.name != row.name else None
    attacked = folder is not None and (folder.evidence(row.name) / TIMES).is_file()
    outcomes = records.read_evidence(folder.evidence(row.name)).attacks if folder and attacked else {}
    return Asked(
        row=row.name,
        artefact=row.digest,
        data=data.name,
        revision=data.revision,
        n=len(examples),
        seed=wanted.seed,
        explainers={name: repr(explainer) for name, explainer in row.explainers.items()},
        teacher=above.teacher.digest if above else None,
        twin=above.twin.digest if above and above.twin else None,
        attacks={name: records.digest(records.encode_outcomes(found)) for name, found in outcomes.items()},
        planted=wanted.planted and folder is not None,
    )


def _explanation(
    row: Speaker,
    asked: Asked,
    folder: Folder | None,
    teachers: Teachers | None,
    data: Dataset,
    examples: Sequence[Example],
    progress: Progress,
) -> Explanation:
    """Every score of one row."""
    from grit.bench.explain import survey
    from grit.bench.explain.scores import Explanation

    started = time.perf_counter()
    texts = [example.text for example in examples]
    faithful, exact, normalised = survey.faithfulness(row, texts, progress)
    loyal: tuple[Loyal, ...] = ()
    taus: survey.ByText = [None] * len(texts)
    if teachers and asked.teacher:
        loyal, taus = survey.loyalty(row, teachers.teacher, teachers.twin, texts, progress)
    outcomes = records.read_evidence(folder.evidence(row.name)).attacks if folder and asked.attacks else {}
    known = _truth(row, folder, data, examples, progress) if folder and asked.planted else _Known()
    return Explanation(
        asked=asked,
        exact=exact,
        teacher=teachers.teacher.name if teachers and asked.teacher else None,
        twin=teachers.twin.name if teachers and teachers.twin and asked.twin else None,
        faithful=faithful,
        loyal=loyal,
        attacked=survey.under_attack(row, examples, outcomes, progress),
        truth=known.truth,
        unlearned=known.unlearned,
        shuffled=known.shuffled,
        masked=known.masked,
        trained=_trained(_plan(folder, row.name)) if folder else None,
        texts={
            example.id: pair
            for example, pair in zip(examples, zip(normalised, taus, strict=True), strict=True)
            if pair != (None, None)
        },
        run={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - started, 3),
            "machine": machine.facts(),
            "versions": machine.versions(),
        },
    )


class _Known(NamedTuple):
    """What explanations are held against where the truth is known; see Explanation."""

    truth: tuple[Truth, ...] = ()
    unlearned: tuple[str, ...] = ()
    shuffled: tuple[Shuffled, ...] = ()
    masked: tuple[Masked, ...] = ()


def _truth(
    row: Speaker,
    folder: Folder,
    data: Dataset,
    examples: Sequence[Example],
    progress: Progress,
) -> _Known:
    """Models of the row's make that learned a planted shortcut, the row without what it learned, and all its masks."""
    from grit.bench import checkpoint
    from grit.bench.explain import survey, truth
    from grit.bench.explain.cut import Cut

    model = checkpoint.load_model(folder.model(row.name))
    plan = _plan(folder, row.name)
    small = dataclasses.replace(data, train=datasets.subset(data.train, PLANTED_N, data.name))
    make = survey.Make(type(model), plan.config, plan.recipe)
    found: dict[str, tuple[Truth, ...]] = {
        kind: survey.shortcuts(make, small, examples, kind, row.explainers, row.seed, progress) for kind in truth.KINDS
    }
    cut = Cut(truth.shuffled(model, row.seed))
    blind = survey.Speaker(row.name, "", cut, cut, row.explainers, row.seed)
    texts = [example.text for example in examples]
    return _Known(
        truth=tuple(part for parts in found.values() for part in parts),
        unlearned=tuple(kind for kind, parts in found.items() if not parts),
        shuffled=survey.randomised(row, blind, texts, progress),
        masked=survey.masked(row, texts, progress),
    )


def _plan(folder: Folder, row: str) -> RowPlan:
    """How a row of a run, or its teacher, was trained."""
    trained = experiment.from_config(folder.path)
    plans = experiment.rows(trained)
    teacher = experiment.teacher_plan(trained, plans)
    return next(plan for plan in (*plans, *([teacher] if teacher else ())) if plan.name == row)


def _trained(plan: RowPlan) -> Trained:
    from grit.bench.explain.scores import Trained

    scheme = plan.scheme.name
    return Trained(model=plan.name.removesuffix(f".{scheme}.s{plan.seed}"), scheme=scheme, seed=plan.seed)


def _sentence(row: Speaker, text: str, labels: Sequence[str], gold: int | None) -> Sentence:
    """One text, explained by the row's own headline, with its masks where there are gradients."""
    from grit.bench.explain.show import Sentence

    answer, probability = row.answer(text)
    return Sentence(
        row=row.name,
        explainer=row.headline,
        words=row.shipped.open(text).words,
        attribution=tuple(row.attributions(text, answer)[row.headline].tolist()),
        answer=labels[answer] if labels else str(answer),
        probability=probability,
        gold=None if gold is None else labels[gold],
        masks=row.masks(text, answer),
    )
