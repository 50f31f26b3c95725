"""Outcomes and records <-> disk: what was counted, in a form that others can check.

A *record* is one row of the board, one line of ``records.jsonl``. It holds counts, never percentages, and
everything that two identical runs may not share (times, machine, versions) stands apart in its ``run`` part:
two runs of one command write the same bytes but for that part. *Evidence* lies beside it: one JSON line an
example and attack, as edit scripts over the words of the original text, so that it carries nobody's text.

A file is only ever replaced whole: a kill or a full disk leaves the old one or the new one. Nothing here
imports torch.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote, unquote

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from grit.bench.types import Edit, MalformedInput, Outcome, OutcomeKind, StorageError

if TYPE_CHECKING:
    import numpy as np

    from grit.bench.types import Example

RANKED_N = 1000  # examples below which a row is shown, and not ranked: 60 % of 1,000 is +-3 points
RECORDS = "records.jsonl"
CLEAN_EVIDENCE = "clean.jsonl.gz"
EVIDENCE_LIMIT_BYTES = 1 << 28  # of one evidence file, unpacked: a few thousand times what an honest one takes
QUERY_GRID = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)

Natural = Annotated[int, Meta(ge=0)]
Ratio = Annotated[float, Meta(ge=0.0, le=1.0)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
Id = Annotated[str, Meta(pattern="^[0-9a-f]{16}$", max_length=16)]
Fields = dict[str, Any]  # JSON values

# --- the parts of a record --------------------------------------------------------------------------


class Count(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``k`` of ``n``."""

    k: Natural
    n: Natural

    def __post_init__(self) -> None:
        _must(self.k <= self.n, f"a count needs k <= n, got {self.k} of {self.n}")


class Robust(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Examples of all ``n`` still right after an attack: ``low`` of them, ``high`` if every error had been one.

    An error is never robust: ``low`` is the claim, ``high`` only says how much errors could hide.
    """

    low: Natural
    high: Natural
    n: Natural

    def __post_init__(self) -> None:
        _must(self.low <= self.high <= self.n, f"need low <= high <= n, got {self.low}, {self.high}, {self.n}")


class ModelPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str  # registry key, or module:callable
    config: Fields  # every field of its configuration
    repr: str  # the same, to be pasted back
    parameters: Natural | None = None  # trained numbers; None: not ours to count
    origin: str = "gritbench"  # or the distribution that brought it


class TermPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    objective: str
    weight: float
    options: Fields = {}  # all fields of the objective, defaults written out


class SchemePart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    terms: tuple[TermPart, ...]
    teacher: str | None = None  # None: no term needs one


class EpochPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One epoch; its score is what the best epoch was chosen by."""

    number: Annotated[int, Meta(ge=1)]
    learning_rate: float
    losses: dict[str, float]
    dev_accuracy: Ratio
    dev_attacked: Ratio | None
    score: float


class TrainingPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    recipe: Fields
    seed: int
    epochs: Natural  # epochs run
    best_epoch: Natural
    dev_score: float
    selection: str  # the rule behind dev_score, on the dev split
    data: str
    revision: Sha256
    n_train: Natural
    licence: str = "unknown"  # of the training data
    history: tuple[EpochPart, ...] = ()


class DataPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was evaluated on: ``n`` examples of one split of one revision."""

    name: str
    revision: Sha256
    split: str
    n: Natural
    selection: str  # the rule that picked them
    labels: tuple[str, ...]
    label_counts: tuple[Natural, ...]  # among the n
    notes: tuple[str, ...] = ()  # overlaps, copies, splits made by us
    licence: str = "unknown"

    def __post_init__(self) -> None:
        _must(len(self.labels) == len(self.label_counts), "labels and label_counts differ in length")
        _must(sum(self.label_counts) == self.n, f"label_counts add up to {sum(self.label_counts)}, not to n={self.n}")

    @property
    def majority(self) -> Count:
        """The floor: what always answering the most frequent label gets right."""
        return Count(k=max(self.label_counts, default=0), n=self.n)


class ArtefactPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The exported bytes that were measured, attacked and ranked."""

    format: str
    precision: str
    digest: str  # sha256 of the bytes; of a callable, whatever names it
    sizes_bytes: dict[str, Natural] = {}  # part -> bytes, vocabulary and tokenizer among them
    total_bytes: Natural | None = None  # None: not measured
    logit_tolerance: Annotated[float, Meta(ge=0.0)] = 0.0  # between machines; 0.0 is bit-exact

    def __post_init__(self) -> None:
        total = sum(self.sizes_bytes.values()) if self.sizes_bytes else None
        _must(self.total_bytes == total, f"total_bytes is {self.total_bytes}, its parts add up to {total}")


class StepPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    step: str  # registry key
    options: Fields  # all its fields


class CompressionPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was done to trained weights on their way to the deployed bytes, step by step."""

    name: str  # the steps as one types them
    steps: tuple[StepPart, ...]
    facts: dict[str, Fields] = {}  # by step: what it kept, how long it trained, how its epoch was chosen
    source: Sha256  # of the deployed bytes of the row that was compressed


class CleanPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Before any attack."""

    k: Natural
    n: Natural
    predicted: tuple[Natural, ...]  # how often each label was answered; a failed model answers none
    calibration_error: Ratio | None = None  # expected, 15 bins; None: no logits
    evidence_sha256: Sha256

    def __post_init__(self) -> None:
        _must(self.k <= self.n, f"clean: need k <= n, got {self.k} of {self.n}")
        _must(sum(self.predicted) <= self.n, f"clean: {sum(self.predicted)} answers to {self.n} examples")


class AttackPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one attack did to the ``n`` examples it saw: all, or those that still stood after the ones before it."""

    name: str  # in full: key.tier+lexicon
    parameters: Fields  # every field of the attack but its threat
    threat: Fields
    parameters_sha256: Sha256  # of both
    lexicon: str | None = None
    lexicon_sha256: Sha256 | None = None
    robust: Robust
    success: Count  # broken of those attacked: broken or survived
    skipped: Natural  # misclassified before any attack: not robust
    errors: Natural  # the attack or the model failed: not robust, and never a success
    queries: Natural  # over all examples attacked
    queries_median: float  # an example attacked
    gradients: Natural
    edits: Natural  # over all examples broken
    edits_median: float  # an example broken
    robust_by_edits: tuple[tuple[Natural, Natural], ...]  # (edits allowed, examples still right), where it changes
    robust_by_queries: tuple[tuple[Natural, Natural], ...]  # (queries allowed, examples still right)
    evidence_sha256: Sha256

    def __post_init__(self) -> None:
        attacked = self.robust.low + self.success.k
        _must(self.success.n == attacked, f"{self.name}: {self.success.n} attacked, outcomes add up to {attacked}")
        seen = attacked + self.skipped + self.errors
        _must(self.robust.n == seen, f"{self.name}: n={self.robust.n}, outcomes add up to {seen}")
        _must(self.robust.high == self.robust.low + self.errors, f"{self.name}: robust.high is not low + errors")

    @property
    def queries_mean(self) -> float:
        """Queries an example attacked; NaN where none was."""
        return self.queries / self.success.n if self.success.n else math.nan

    @property
    def edits_mean(self) -> float:
        """Words changed an example broken; NaN where none was."""
        return self.edits / self.success.k if self.success.k else math.nan


_UNITS = ("ns", "us", "ms", "s", "bytes", "instructions", "cycles", "misses", "calls", "samples", "mhz", "c", "share")
CostKind = Literal["measured", "emulated", "modelled", "calibrated", "not measured"]


class CostPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one engine costs on one target. A name in ``values`` ends in its unit: p50_us, instructions."""

    target: str
    engine: str
    kind: CostKind
    values: dict[str, int | float] = {}
    facts: Fields = {}  # compiler, flags, core, governor, output error
    reason: str = ""  # why there is no number, and the remedy

    def __post_init__(self) -> None:
        where = f"cost on {self.target} by {self.engine}"
        _must(
            (self.kind == "not measured") == (not self.values),
            f"{where}: is {self.kind} with {len(self.values)} values",
        )
        _must((self.kind == "not measured") == bool(self.reason), f"{where}: a reason stands where there is no number")
        for name, value in self.values.items():
            _must(name.rpartition("_")[2] in _UNITS, f"{where}: {name!r} names no unit ({', '.join(_UNITS)})")
            _must(math.isfinite(value), f"{where}: {name} is {value}")


class FlagPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sanity flag that was raised: ``name`` is a key of :data:`FLAGS`."""

    name: str
    reason: str

    def __post_init__(self) -> None:
        _must(self.name in FLAGS, f"unknown flag {self.name!r}: the flags are {', '.join(FLAGS)}")


Check = Literal["scale", "budget", "unbounded", "oracle", "control", "box", "transfer", "canary"]


class CheckPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One test of whether the attacks are strong enough to be believed, on ``n`` examples right before any attack.

    scale: ``k`` took the same course with the logits times 1,000 and times 1/1,000; ``lost`` did not.
    budget: ``k`` fell within a tenth of the queries; of all that fell, ``lost`` fell only then, ``won`` only with all.
    unbounded: ``k`` fell when any word might become any of a list that the model finds telling; ``lost`` withstood.
    oracle: of short texts in small spaces ``k`` fell; ``lost`` fell to brute force alone, which tried everything.
    control, box: ``k`` withstood ``against``; ``lost`` fell to it alone and ``won`` to ``attack`` alone, with as many
        queries and no larger a space: random search, and for attacks that ask for gradients any that does not.
    transfer: ``k`` withstood the attacks and what broke the other rows of the run; ``lost`` the attacks alone.
    canary: this row, whose defence is known to be broken, against the natural one: ``won`` withstood here alone,
        ``lost`` there alone.
    """

    check: Check
    attack: str = ""  # "": all of them
    against: str = ""
    k: Natural
    n: Natural
    lost: Natural = 0
    won: Natural = 0

    def __post_init__(self) -> None:
        _must(max(self.k, self.lost, self.won) <= self.n, f"check {self.check}: counts above n={self.n}")


class RunPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything in which two runs of one command may differ."""

    created: str  # UTC, ISO 8601
    seconds: dict[str, float] = {}  # step -> how long it took
    machine: Fields = {}
    versions: dict[str, str] = {}
    cost: tuple[CostPart, ...] = ()  # what a clock said, and what this machine could not say
    command: str = ""


class Record(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="schema_version", tag=1):
    """One row of the board."""

    suite: str = ""  # name of the pinned set of attacks; "": none
    suite_sha256: Sha256 | None = None  # what pins it; None: no suite
    model: ModelPart
    scheme: SchemePart
    training: TrainingPart | None  # None: the model came trained
    compression: CompressionPart | UnsetType = UNSET  # a row that was not compressed says nothing of it
    data: DataPart
    artefact: ArtefactPart
    clean: CleanPart
    attacks: tuple[AttackPart, ...]  # sorted by name
    worst: Robust  # an example counts if it is right after every attack
    checks: tuple[CheckPart, ...] = ()  # of the attacks, on this model
    flags: tuple[FlagPart, ...] = ()
    cost: tuple[CostPart, ...] = ()  # what any run on this machine would say again: counts, models of counts
    run: RunPart

    def __post_init__(self) -> None:
        names = [attack.name for attack in self.attacks]
        _must(names == sorted(set(names)), f"attacks must be sorted and distinct, got {', '.join(names)}")
        _must(self.clean.n == self.worst.n == self.data.n, "clean, worst and data disagree on n")
        _must(self.worst.high <= self.clean.k, f"worst case {self.worst.high} is above clean {self.clean.k}")
        for attack in self.attacks:
            _must(attack.robust.n <= self.data.n, f"{attack.name}: n={attack.robust.n}, the data has n={self.data.n}")
            _must(self.worst.low <= attack.robust.low, f"worst case {self.worst.low} is above that of {attack.name}")
        _must(all(cell.kind not in _OF_THE_RUN for cell in self.cost), "measured cost belongs into the run part")

    @property
    def steps(self) -> str:
        """The steps of compression as one types them; "" for a row as it was trained."""
        return self.compression.name if self.compression is not UNSET else ""

    @property
    def unranked(self) -> tuple[FlagPart, ...]:
        """The flags that keep the row from a rank."""
        return tuple(flag for flag in self.flags if FLAGS[flag.name].unranks)

    @property
    def costs(self) -> tuple[CostPart, ...]:
        """All cost cells, by target and engine."""
        return tuple(sorted((*self.cost, *self.run.cost), key=lambda cell: (cell.target, cell.engine, cell.kind)))


_OF_THE_RUN: tuple[CostKind, ...] = ("measured", "calibrated", "not measured")


def place_costs(cells: Iterable[CostPart]) -> tuple[tuple[CostPart, ...], tuple[CostPart, ...]]:
    """Cells for ``Record.cost`` and for ``RunPart.cost``: a clock never says the same twice, an emulator does."""
    ordered = sorted(cells, key=lambda cell: (cell.target, cell.engine, cell.kind))
    return (
        tuple(cell for cell in ordered if cell.kind not in _OF_THE_RUN),
        tuple(cell for cell in ordered if cell.kind in _OF_THE_RUN),
    )


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


# --- sanity flags -----------------------------------------------------------------------------------


class FlagPage(NamedTuple):
    raised_if: str
    means: str
    do: str
    unranks: bool
    demotes: bool  # the number itself misleads: shown below the rows without such a flag


FLAGS: Mapping[str, FlagPage] = {
    "constant": FlagPage(
        "answers other than the most frequent one are less than a tenth of what the labels would have",
        "the model hardly reads the text; a constant answer is perfectly robust and useless",
        "train again with another seed or a lower learning rate; look at the training curve",
        unranks=True,
        demotes=True,
    ),
    "floor": FlagPage(
        "the 95 % Wilson interval of clean accuracy reaches down to the majority floor",
        "the model cannot be told from one that always answers the most frequent label",
        "train longer, or evaluate on more examples",
        unranks=True,
        demotes=True,
    ),
    "errors": FlagPage(
        "more than 1 % of the examples ended in an error under some attack",
        "robust accuracy is only known as a range",
        "read the reasons in the evidence, correct the model or the attack, run again",
        unranks=True,
        demotes=True,
    ),
    "small": FlagPage(
        f"fewer than {RANKED_N:,} examples were evaluated",
        "intervals are wider than the differences of interest",
        f"evaluate on {RANKED_N:,} examples or more",
        unranks=True,
        demotes=False,
    ),
    "embedded": FlagPage(
        "the data is the corpus that comes with the tool",
        "the corpus serves to try the tool out; nobody's claim rests on it",
        "evaluate on a public dataset",
        unranks=True,
        demotes=False,
    ),
    "overlap": FlagPage(
        "texts of the evaluated split also stand in the training data",
        "some of the accuracy is memory",
        "drop these texts from training",
        unranks=True,
        demotes=False,
    ),
    "runs": FlagPage(
        "more runs were made with this configuration than are reported",
        "the best of several runs looks better than the next one will",
        "submit every run: a mean over seeds is shown beside them",
        unranks=False,
        demotes=False,
    ),
    "scale": FlagPage(
        "an attack takes another course when the logits are multiplied by 1,000 or 1/1,000",
        "the attack can be misled by mere over-confidence: a large part of the robust accuracy may be that",
        "rank by a strong tier, which sees margins and not probabilities",
        unranks=True,
        demotes=False,
    ),
    "unbounded": FlagPage(
        "more than one of a sample stays right although every word may become any of a list of telling ones",
        "a search that cannot win without bounds says nothing within them: answers are masked or deaf to words",
        "look at the logits: are they rounded, saturated or constant? Let the model answer with plain logits",
        unranks=True,
        demotes=False,
    ),
    "oracle": FlagPage(
        "in spaces so small that every change was tried, an attack misses more than one break and one in twenty",
        "the search stops short of what is there, so the robust accuracy under it is too high",
        "rank by a strong tier; if this is one, report it as an error of the attack",
        unranks=False,
        demotes=False,
    ),
    "weak": FlagPage(
        "an attack breaks fewer examples than random search, or one with gradients fewer than one without, with as "
        "many queries and in no larger a space (exact McNemar, 5 %)",
        "the search is misled by what this model answers, so the robust accuracy under it is too high",
        "add the stronger of the two to the attacks; look for masked gradients",
        unranks=False,
        demotes=False,
    ),
    "budget": FlagPage(
        "an attack breaks more of a sample with a tenth of its queries than with all of them",
        "more effort must not help the model: the search wastes what it is given",
        "report it as an error of the attack",
        unranks=False,
        demotes=False,
    ),
    "transfer": FlagPage(
        "of the examples that withstand the attacks, more than one in twenty falls to what broke other rows of the run",
        "breaks are there that the attacks did not find",
        "read the pool's column beside the worst case; add attacks",
        unranks=False,
        demotes=False,
    ),
    "canary": FlagPage(
        "a row whose defence is known to be broken withstands more than the natural row of its model (McNemar, 5 %)",
        "the attacks are too weak for defences of this kind, and other rows may profit likewise",
        "believe no gain of this size until a stronger attack has confirmed it",
        unranks=False,
        demotes=False,
    ),
}


def flags(
    data: DataPart,
    clean: CleanPart,
    attacks: Sequence[AttackPart],
    *,
    embedded: bool,
    overlapping: int = 0,
    checks: Sequence[CheckPart] = (),
) -> tuple[FlagPart, ...]:
    """The flags of a row, in the order of :data:`FLAGS`.

    embedded: the data is the corpus of this house; overlapping: evaluated texts that were trained on.
    """
    from grit.bench.statistics import wilson

    raised: dict[str, str] = {}
    others, other_labels = clean.n - max(clean.predicted, default=0), clean.n - data.majority.k
    if clean.n and 10 * others < other_labels:
        raised["constant"] = f"{clean.n - others} of {clean.n} answers are the same label"
    if clean.n and wilson(clean.k, clean.n).low <= data.majority.k / clean.n:
        raised["floor"] = f"clean {clean.k} of {clean.n} is within its interval of the majority floor {data.majority.k}"
    failing = [attack for attack in attacks if 100 * attack.errors > data.n]
    if failing:
        raised["errors"] = ", ".join(f"{attack.name}: {attack.errors} errors" for attack in failing)
    if data.n < RANKED_N:
        raised["small"] = f"n = {data.n}, ranked from {RANKED_N}"
    if embedded:
        raised["embedded"] = f"{data.name} comes with the tool"
    if overlapping:
        raised["overlap"] = f"{overlapping} evaluated texts were trained on"
    for check in checks:
        if found := doubt(check):
            name, reason = found
            raised[name] = f"{raised[name]}; {reason}" if name in raised else reason
    return tuple(FlagPart(name=name, reason=raised[name]) for name in FLAGS if name in raised)


def doubt(check: CheckPart) -> tuple[str, str] | None:
    """The flag that a check raises, and why; None for a check that is passed."""
    from grit.bench.statistics import mcnemar

    lost, won, n = check.lost, check.won, check.n
    match check.check:
        case "scale" if lost:
            return "scale", f"{check.attack}: {lost} of {n} took another course"
        case "unbounded" if lost > 1:
            return "unbounded", f"{check.attack}: {lost} of {n} withstood"
        case "oracle" if lost > 1 and 20 * lost > check.k + lost:
            return "oracle", f"{check.attack}: missed {lost} of {check.k + lost} breaks"
        case "budget" if lost > won:
            return "budget", f"{check.attack}: {lost} fell only with a tenth of the queries, {won} only with all"
        case "control" | "box" if lost > won and mcnemar(won, lost) < 0.05:
            return "weak", f"{lost} fell to {check.against} alone, {won} to {check.attack} alone"
        case "transfer" if 20 * lost > check.k + lost:
            return "transfer", f"{lost} of {check.k + lost} fell to breaks of other rows"
        case "canary" if won > lost and mcnemar(won, lost) < 0.05:
            return "canary", f"{won} withstood in this row alone, {lost} in the natural one alone"
    return None


def flags_page() -> str:
    """The page that explains every flag, for people: leaderboards/FLAGS.md."""
    lines = [
        "# Sanity flags",
        "",
        "A flag says that a number may not mean what it seems to mean. `grit run` and `grit verify` raise them from",
        "counts; no submitter can take one down. (Made from `bench/records.py`; edit it there.)",
    ]
    for name, page in FLAGS.items():
        effect = "no rank, shown below the others" if page.demotes else "no rank" if page.unranks else "a note"
        lines += ["", f"## {name}", ""]
        lines += [f"- raised if: {page.raised_if}", f"- means: {page.means}", f"- do: {page.do}", f"- effect: {effect}"]
    return "\n".join(lines) + "\n"


# --- evidence: one line an example ------------------------------------------------------------------


class Clean(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the artefact answered to one untouched example.

    ``predicted`` is -1 where it failed. ``margin``: largest other logit minus the gold logit; None where a
    logit is not finite.
    """

    id: Id
    label: Natural
    predicted: Annotated[int, Meta(ge=-1)]
    margin: float | None

    @property
    def right(self) -> bool:
        return self.predicted == self.label


class _Line(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An :class:`~grit.bench.types.Outcome` as JSON."""

    id: Id
    outcome: OutcomeKind
    script: tuple[tuple[Literal["replace", "insert", "delete"], Natural, str], ...]
    predicted: Annotated[int, Meta(ge=-1)]
    margin: float | None
    queries: Natural
    gradients: Natural
    cache_hits: Natural
    words: Natural
    trace: str
    reason: str


class Evidence(NamedTuple):
    """Clean answers to all examples, and the outcomes of every attack, sorted by id.

    An attack covers every example, or at least every one that the other attacks have left standing.
    """

    clean: tuple[Clean, ...]
    attacks: Mapping[str, tuple[Outcome, ...]]

    def robust(self) -> dict[str, bool]:
        """id -> right before and after every attack; an error is never robust."""
        standing = {line.id: line.right for line in self.clean}
        for outcomes in self.attacks.values():
            for outcome in outcomes:
                standing[outcome.id] &= outcome.outcome == "survived"
        return standing


def clean_lines(examples: Sequence[Example], logits: np.ndarray) -> tuple[Clean, ...]:
    """What the artefact answered: logits [examples classes], float64; a text with a logit that is no number fails."""
    import numpy as np

    lines = []
    for example, row in zip(examples, logits, strict=True):
        if np.isfinite(row).all():
            others = np.delete(row, example.label)
            margin = float(others.max() - row[example.label]) if others.size else None
            lines.append(Clean(id=example.id, label=example.label, predicted=int(row.argmax()), margin=margin))
        else:
            lines.append(Clean(id=example.id, label=example.label, predicted=-1, margin=None))
    return tuple(lines)


def clean_part(clean: Sequence[Clean], classes: int, logits: np.ndarray | None = None) -> CleanPart:
    """The counts of clean answers; ``logits`` [examples classes], in the order of ``clean``, add calibration."""
    return CleanPart(
        k=sum(line.right for line in clean),
        n=len(clean),
        predicted=tuple(sum(line.predicted == label for line in clean) for label in range(classes)),
        calibration_error=None if logits is None else _calibration_error(clean, logits),
        evidence_sha256=digest(encode_clean(clean)),
    )


def _calibration_error(clean: Sequence[Clean], logits: np.ndarray) -> float | None:
    import numpy as np

    from grit.bench.statistics import calibration_error

    known = np.isfinite(logits).all(axis=1)
    if not known.any():
        return None
    scores = np.exp(logits[known] - logits[known].max(axis=1, keepdims=True))
    labels = np.array([line.label for line in clean])[known]
    # Six places: the exponential function may differ in its last bit between processors.
    return round(calibration_error(scores / scores.sum(axis=1, keepdims=True), labels), 6)


def attack_part(
    name: str,
    attack: Any,
    outcomes: Sequence[Outcome],
    lexicon: tuple[str, str] | None = None,
) -> AttackPart:
    """The counts of one attack over the examples it saw.

    name: in full. attack: its frozen dataclass. lexicon: name and digest of the one it wrote from.
    """
    fields = plain(attack)
    kinds = [outcome.outcome for outcome in outcomes]
    attacked = [outcome for outcome in outcomes if outcome.outcome in ("broken", "survived")]
    broken = [outcome for outcome in attacked if outcome.outcome == "broken"]
    edits = sorted(len(outcome.script) for outcome in broken)
    queries = sorted(outcome.queries for outcome in broken)
    low, errors = kinds.count("survived"), kinds.count("error")
    most = max((outcome.queries for outcome in attacked), default=0)
    return AttackPart(
        name=name,
        parameters={key: value for key, value in fields.items() if key != "threat"},
        threat=fields.get("threat", {}),
        parameters_sha256=digest(encode(fields)),
        lexicon=lexicon[0] if lexicon else None,
        lexicon_sha256=lexicon[1] if lexicon else None,
        robust=Robust(low=low, high=low + errors, n=len(outcomes)),
        success=Count(k=len(broken), n=len(attacked)),
        skipped=kinds.count("skipped"),
        errors=errors,
        queries=sum(outcome.queries for outcome in attacked),
        queries_median=_median(outcome.queries for outcome in attacked),
        gradients=sum(outcome.gradients for outcome in attacked),
        edits=sum(edits),
        edits_median=_median(edits),
        robust_by_edits=_curve(len(attacked), edits, sorted({0, *edits})),
        robust_by_queries=_curve(len(attacked), queries, [*(at for at in QUERY_GRID if at < most), most]),
        evidence_sha256=digest(encode_outcomes(outcomes)),
    )


def _median(values: Iterable[int]) -> float:
    """0.0 for none. (The library's own costs 30 ms to import.)"""
    ordered = sorted(values)
    half = len(ordered) // 2
    return (ordered[half] + ordered[-half - 1]) / 2 if ordered else 0.0


def _curve(attacked: int, spent: Sequence[int], at: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """(budget, examples still right) for an attacker who may spend no more; spent: by each break."""
    return tuple((budget, attacked - sum(price <= budget for price in spent)) for budget in at)


def worst_case(evidence: Evidence) -> Robust:
    """Examples right after every attack; high: if each error had survived instead."""
    low = sum(evidence.robust().values())
    possible = {line.id for line in evidence.clean if line.right}
    for outcomes in evidence.attacks.values():
        possible -= {outcome.id for outcome in outcomes if outcome.outcome in ("skipped", "broken")}
    return Robust(low=low, high=len(possible), n=len(evidence.clean))


Line = TypeVar("Line", Clean, _Line)
Value = TypeVar("Value")


def encode_clean(clean: Iterable[Clean]) -> bytes:
    """Canonical JSON lines, sorted by id."""
    return b"".join(encode(line) + b"\n" for line in sorted(clean, key=lambda line: line.id))


def encode_outcomes(outcomes: Iterable[Outcome]) -> bytes:
    """Canonical JSON lines, sorted by id. A margin that is not finite becomes null, a reason one short line."""
    return b"".join(encode(_line(outcome)) + b"\n" for outcome in sorted(outcomes, key=lambda outcome: outcome.id))


def _line(outcome: Outcome) -> _Line:
    line = _Line(
        id=outcome.id,
        outcome=outcome.outcome,
        script=tuple((_legal(edit.op), edit.index, edit.word) for edit in outcome.script),
        predicted=outcome.predicted,
        margin=float(outcome.margin) if math.isfinite(outcome.margin) else None,
        queries=outcome.queries,
        gradients=outcome.gradients,
        cache_hits=outcome.cache_hits,
        words=outcome.words,
        trace=outcome.trace,
        reason=" ".join(outcome.reason.split())[:200],
    )
    if odd := _odd(line):
        raise MalformedInput(f"outcome of {line.id}: {odd}; correct the attack")
    return line


def _legal(op: str) -> Literal["replace", "insert", "delete"]:
    match op:
        case "replace" | "insert" | "delete":
            return op
        case _:
            raise MalformedInput(f"an edit {op!r} is no final edit; return replace, insert or delete from the attack")


def decode_clean(data: bytes, where: str) -> tuple[Clean, ...]:
    """The inverse of :func:`encode_clean`; anything else, down to the order of keys, is MalformedInput."""
    return tuple(line for _, line in _lines(data, where, Clean))


def decode_outcomes(data: bytes, where: str) -> tuple[Outcome, ...]:
    """The inverse of :func:`encode_outcomes`; anything else, down to the order of keys, is MalformedInput."""
    outcomes = []
    for number, line in _lines(data, where, _Line):
        if odd := _odd(line):
            raise MalformedInput(f"{where}, line {number}: {odd}; write the evidence again")
        outcomes.append(
            Outcome(
                id=line.id,
                outcome=line.outcome,
                script=tuple(Edit(*edit) for edit in line.script),
                predicted=line.predicted,
                margin=math.nan if line.margin is None else line.margin,
                queries=line.queries,
                gradients=line.gradients,
                cache_hits=line.cache_hits,
                words=line.words,
                trace=line.trace,
                reason=line.reason,
            )
        )
    return tuple(outcomes)


def _odd(line: _Line) -> str:
    """What contradicts itself in a line, or nothing."""
    places = [index for _, index, _ in line.script]
    taken = [index for op, index, _ in line.script if op != "insert"]
    if places != sorted(places) or len(taken) != len(set(taken)):
        return "the script is not sorted by word, or changes a word twice"
    if any(index >= line.words + (op == "insert") for op, index, _ in line.script):
        return f"the script names a word beyond the {line.words} of the text"
    if any(op == "delete" and word for op, _, word in line.script):
        return "a deletion carries a word"
    if line.outcome == "broken" and not line.script:
        return "broken without an edit"
    if line.outcome == "skipped" and line.script:
        return "skipped, yet edited"
    if line.reason and line.outcome != "error":
        return "a reason belongs to an error"
    return ""


def _lines(data: bytes, where: str, kind: type[Line]) -> Iterator[tuple[int, Line]]:
    if data and not data.endswith(b"\n"):
        raise MalformedInput(f"{where}: the last line is cut off; write the evidence again")
    before = ""
    for number, raw in enumerate(data.split(b"\n")[:-1], 1):
        line = decoded(raw, kind, f"{where}, line {number}")
        if encode(line) != raw:
            raise MalformedInput(f"{where}, line {number}: not in canonical form (sorted keys, no spaces, no copies)")
        if line.id <= before:
            raise MalformedInput(f"{where}, line {number}: id {line.id} is out of order or there twice")
        before = line.id
        yield number, line


def write_evidence(folder: Path, evidence: Evidence) -> None:
    """``clean.jsonl.gz`` and one ``<attack>.jsonl.gz`` an attack, the same bytes for the same outcomes."""
    write(folder / CLEAN_EVIDENCE, compress(encode_clean(evidence.clean)))
    for name, outcomes in evidence.attacks.items():
        write(folder / evidence_name(name), compress(encode_outcomes(outcomes)))


def read_evidence(folder: Path) -> Evidence:
    """What :func:`write_evidence` wrote. Raises MalformedInput on anything odd, StorageError if unreadable."""
    files = [folder / CLEAN_EVIDENCE, *_evidence_files(folder)]
    evidence = decode_evidence({file.name: read(file) for file in files})
    for odd in disagreements(evidence):
        raise MalformedInput(odd)
    return evidence


def decode_evidence(files: Mapping[str, bytes], limit_bytes: int = EVIDENCE_LIMIT_BYTES) -> Evidence:
    """Packed evidence files by name -> their lines. Raises MalformedInput; whether the lines agree is not asked."""
    if CLEAN_EVIDENCE not in files:
        raise MalformedInput(f"the evidence lacks {CLEAN_EVIDENCE}; write it again")
    content = {name: decompress(packed, name, limit_bytes) for name, packed in files.items()}
    return Evidence(
        decode_clean(content.pop(CLEAN_EVIDENCE), CLEAN_EVIDENCE),
        {
            unquote(name.removesuffix(".jsonl.gz")): decode_outcomes(data, name)
            for name, data in sorted(content.items())
        },
    )


def disagreements(evidence: Evidence) -> Iterator[str]:
    """What the attacks' outcomes say against the clean answers, or leave out: one line each."""
    right = {line.id: line.right for line in evidence.clean}
    for name, outcomes in evidence.attacks.items():
        where = evidence_name(name)
        for outcome in outcomes:
            if outcome.id not in right:
                yield f"{where}: {outcome.id} is not among the examples of {CLEAN_EVIDENCE}"
            elif outcome.outcome != "error" and (outcome.outcome == "skipped") == right[outcome.id]:
                how = "rightly" if right[outcome.id] else "wrongly"
                yield f"{where}: {outcome.id} is {outcome.outcome}, but was answered {how} before any attack"
    known = {
        name: tuple(outcome for outcome in outcomes if outcome.id in right)
        for name, outcomes in evidence.attacks.items()
    }
    standing = {id for id, stands in Evidence(evidence.clean, known).robust().items() if stands}
    for name, outcomes in known.items():
        if spared := standing - {outcome.id for outcome in outcomes}:
            yield f"{evidence_name(name)}: {min(spared)} still stands and was not attacked; attack it too"


def evidence_name(attack: str) -> str:
    """The file of an attack: characters that a file system may refuse are written as %XX."""
    return quote(attack, safe="+") + ".jsonl.gz"


def _evidence_files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*.jsonl.gz")) if file.name != CLEAN_EVIDENCE]


# --- bytes ------------------------------------------------------------------------------------------


def encode(value: Any) -> bytes:
    """Canonical JSON: keys sorted, no spaces, the shortest decimal that reads back as the same float."""
    return msgspec.json.encode(value, order="sorted")


def digest(data: bytes) -> str:
    """sha256, in hex."""
    return hashlib.sha256(data).hexdigest()


def plain(value: Any) -> Fields:
    """All fields of a dataclass as JSON values, nested ones too; a string that knows more than it says is a string."""
    fields: Fields = msgspec.json.decode(msgspec.json.encode(value, order="sorted", enc_hook=_said))
    return fields


def _said(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} is no value of a record")


def compress(data: bytes) -> bytes:
    """gzip without a name or a time, so that equal content is equal bytes under one build of zlib.

    Digests are taken of the content, since builds of zlib differ.
    """
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(data)
    return packed.getvalue()


def decompress(packed: bytes, where: str, limit_bytes: int = EVIDENCE_LIMIT_BYTES) -> bytes:
    """The content of :func:`compress`; raises MalformedInput if it is broken or unpacks to more than the limit."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        data = unpacker.decompress(packed, limit_bytes + 1)
    except zlib.error as error:
        raise MalformedInput(f"{where}: not gzip ({error}); write it again") from error
    if len(data) > limit_bytes:
        raise MalformedInput(f"{where}: unpacks to more than {limit_bytes} bytes; is this evidence?")
    if not unpacker.eof or unpacker.unused_data:
        raise MalformedInput(f"{where}: {'bytes after the end' if unpacker.eof else 'cut off'}; write it again")
    return data


def decoded(raw: bytes, kind: type[Value], where: str) -> Value:
    """Strict JSON of one kind; MalformedInput says where it is not."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInput(f"{where}: {error}") from error


# --- files ------------------------------------------------------------------------------------------


@contextmanager
def _storage(path: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"cannot {verb} {path}: {reason}; free space or name another folder, nothing was lost"
        ) from error


def write(path: Path, data: bytes) -> None:
    """Replaces a file in one motion, on the disk when this returns; makes its folder.

    Raises StorageError (full disk, read-only), and then the old file stands as it was.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with _storage(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:  # an interrupt too must leave no part behind
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        _settle(path.parent)


def _settle(folder: Path) -> None:
    """Brings the new name itself to the disk, where the system can do that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems refuse it for folders
            os.fsync(handle)
    finally:
        os.close(handle)


def read(path: Path) -> bytes:
    """The bytes of a file; StorageError if it cannot be read."""
    with _storage(path, "read"):
        return path.read_bytes()


def encode_record(record: Record) -> bytes:
    """One line, without its end; raises MalformedInput for what could not be read back (a NaN, a wrong sum)."""
    line = encode(record)
    decode_record(line, "record")
    return line


def decode_record(line: bytes, where: str) -> Record:
    """Strict: an unknown field, a wrong type, a sum that does not add up is MalformedInput."""
    record = decoded(line, Record, where)
    if "schema_version" not in msgspec.json.decode(line, type=dict[str, msgspec.Raw]):  # the decoder does not ask
        raise MalformedInput(f"{where}: no schema_version; was it written by gritbench?")
    return record


def row_digest(record: Record) -> str:
    """sha256 over all of a record but its run part: equal for two runs of one command."""
    fields = msgspec.to_builtins(record)
    del fields["run"]
    return digest(encode(fields))


def read_records(path: Path) -> list[Record]:
    """The records of a file, in its order; a last line that a kill cut short is left out."""
    return [record for record, _ in _records(path)]


def _records(path: Path) -> list[tuple[Record, bytes]]:
    lines = read(path).split(b"\n")
    last = lines.pop()  # what stands behind the last line end: nothing, unless the writer was killed
    found = [(decode_record(line, f"{path}, line {at}"), line) for at, line in enumerate(lines, 1)]
    if last:
        with suppress(MalformedInput):
            found.append((decode_record(last, f"{path}, last line"), last))
    return found


def append(path: Path, record: Record) -> None:
    """Adds a record to a file of records, unless one stands there that is equal but for its run part.

    So a step that is repeated after a kill leaves one row, not two, and that row keeps the time and the machine it
    was made on. One writer at a time.
    """
    line = encode_record(record)
    kept = _records(path) if path.exists() else []
    lines = [old for _, old in kept]
    if row_digest(record) not in {row_digest(other) for other, _ in kept}:
        lines.append(line)
    write(path, b"".join(each + b"\n" for each in lines))


class Row(NamedTuple):
    """A record, and its evidence where that lies beside it unchanged."""

    record: Record
    evidence: Evidence | None


def read_rows(folder: Path) -> list[Row]:
    """The records of a run folder, each with its evidence.

    Evidence may lie in any folder below: what a record names by digest is what belongs to it, so evidence that
    was changed afterwards is not found.
    """
    records = read_records(folder / RECORDS)
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob(CLEAN_EVIDENCE)):
        key = digest(decompress(read(file), str(file)))
        found.setdefault(key, []).append(file.parent)
    return [Row(record, _evidence_of(record, found.get(record.clean.evidence_sha256, []))) for record in records]


def _evidence_of(record: Record, folders: Iterable[Path]) -> Evidence | None:
    wanted = {attack.name: attack.evidence_sha256 for attack in record.attacks}
    for folder in folders:
        evidence = read_evidence(folder)
        if {name: digest(encode_outcomes(outcomes)) for name, outcomes in evidence.attacks.items()} == wanted:
            return evidence
    return None


# --- schema -----------------------------------------------------------------------------------------


def schema(kind: type[Struct] = Record, title: str = "gritbench record") -> dict[str, Any]:
    """The JSON Schema (2020-12) of a record, or of another document."""
    (body,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **body,
        "$defs": {name: _without_code_notes(part) for name, part in sorted(parts.items())},
    }


def _without_code_notes(part: dict[str, Any]) -> dict[str, Any]:
    """Markup of docstrings means nothing to a reader of the schema."""
    if "description" not in part:
        return part
    first = part["description"].split("\n\n")[0]
    return {**part, "description": re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`|``([^`]+)``", r"\1\2", " ".join(first.split()))}
