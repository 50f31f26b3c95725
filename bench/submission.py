"""A submission bundle: one row of the board as a folder that anyone can check, and that holds no code.

    submission.json        the row: its record of counts, and what a record alone does not say
    model/                 the bytes that were measured and attacked, and the weights they were exported from
    evidence/              clean answers and edit scripts, one line an example
    README.md              a model card for people, made from submission.json and never read back
    SHA256SUMS             every file but itself; its own sha256 is the digest of the bundle
    verdict.json           a verifier's, if there is one: not part of the bundle, never sent with it

A bundle is read once, into memory, from a folder or from its archive; whatever is checked afterwards is checked
on those bytes. Reading follows no link and writes nothing. The archive is a plain tar of the same files in the
same order with no time and no owner, so equal bundles are equal archives.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct

from grit.bench import records
from grit.bench.records import Evidence, Record, Sha256
from grit.bench.types import MalformedInput, StorageError, UsageError

if TYPE_CHECKING:
    from grit.bench.experiment import Folder

SUBMISSION = "submission.json"
SUMS = "SHA256SUMS"
CARD = "README.md"
VERDICT = "verdict.json"
MODEL = "model/"
EVIDENCE = "evidence/"
ARTEFACT = "model/artefact.safetensors"
WEIGHTS = ("model/model.safetensors", "model/config.json", "model/vocabulary.txt")
RUNG = (TWIN, MADE) = ("model/twin.safetensors", "model/compression.json")  # what a compressed row has in their place
ONNX = ("model/model.onnx", "model/tokenizer.json", "model/vocabulary.txt")

LARGEST_FILE_BYTES = 64 << 20
LARGEST_BUNDLE_BYTES = 128 << 20
MOST_FILES = 64
LONGEST_NAME = 100  # of a file, with its folder: what the archive's format holds in one field
LOOSEST_TOLERANCE = 1e-3  # of logits between machines: beyond it a replay proves nothing
NO_ADAPTIVE_ATTACK = "No attack beyond the suite was adapted to this model."

# --- submission.json --------------------------------------------------------------------------------


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


class Seeds(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What chance was fed: of this row, and of every run made with its configuration, reported or not."""

    attacks: Annotated[int, Meta(ge=0)]
    training: int | None = None  # None: the model came trained
    reported: tuple[int, ...] = ()  # training seeds of the runs whose rows are submitted, this one's among them
    runs: Annotated[int, Meta(ge=1)] = 1  # runs made, with any seed

    @property
    def unreported(self) -> int:
        return self.runs - max(1, len(set(self.reported)))

    def __post_init__(self) -> None:
        _must(self.runs >= len(set(self.reported)), f"{len(self.reported)} runs are reported, {self.runs} were made")
        _must(self.training is None or self.training in self.reported, "the seed of this row is not among the reported")


class Life(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a row stands. A bundle never changes: a step of its life is a new bundle that names the one before."""

    status: Literal["submitted", "corrected", "migrated", "withdrawn"] = "submitted"
    supersedes: Sha256 | None = None  # digest of the bundle that this one replaces
    reason: Annotated[str, Meta(max_length=2000)] = ""

    def __post_init__(self) -> None:
        _must((self.status == "submitted") == (self.supersedes is None), f"{self.status}: names a bundle or must not")
        _must(self.status == "submitted" or bool(self.reason), f"{self.status}: say why")


class Determinism(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bit-exact logits on every machine, or how far they may lie apart."""

    exact: bool
    logit_tolerance: Annotated[float, Meta(ge=0.0, le=LOOSEST_TOLERANCE)] = 0.0

    def __post_init__(self) -> None:
        _must(self.exact == (self.logit_tolerance == 0.0), "exact means a tolerance of 0, and nothing else does")


class Submission(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="schema_version", tag=1):
    """One row of the board, as it is submitted."""

    record: Record  # model, data, suite, claims as counts, cost, environment, created
    seeds: Seeds
    determinism: Determinism
    life: Life = Life()
    adaptive: Annotated[str, Meta(min_length=1, max_length=4000)]  # which attacks knew the defence
    licence: str = "unknown"  # of the model's weights
    paper: str = ""  # where it is described
    authors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        tolerance = self.record.artefact.logit_tolerance
        _must(self.determinism.logit_tolerance == tolerance, f"the record has logit_tolerance {tolerance}")
        _must(self.record.artefact.format in FORMATS, f"format {self.record.artefact.format!r}: {', '.join(FORMATS)}")
        training = self.record.training
        _must(self.seeds.training == (training.seed if training else None), "seeds.training is not the record's")
        _must(not self.record.run.command, "the command line is no part of a submission: it may hold local paths")


FORMATS = ("gritbench.program", "onnx")
VERSIONS = (1,)  # of submission.json that this release reads


class _Versioned(Struct):
    schema_version: int


def encode(submission: Submission) -> bytes:
    """Canonical and readable: sorted keys, one a line. Raises MalformedInput for what could not be read back."""
    data = msgspec.json.format(records.encode(submission), indent=1) + b"\n"
    decode(data)
    return data


def decode(data: bytes, where: str = SUBMISSION) -> Submission:
    """The inverse of :func:`encode`; anything else, down to the order of keys, is MalformedInput."""
    version = records.decoded(data, _Versioned, where).schema_version
    if version not in VERSIONS:
        raise MalformedInput(
            f"{where}: schema_version {version}, this release reads {', '.join(map(str, VERSIONS))}; "
            "use the release that wrote it"
        )
    submission = records.decoded(data, Submission, where)
    # Of the tree, not of the submission: a field that a later release adds, with a default, must not refuse old rows.
    if msgspec.json.format(records.encode(msgspec.json.decode(data)), indent=1) + b"\n" != data:
        raise MalformedInput(f"{where}: not in canonical form (sorted keys, one a line, no copies); write it with grit")
    return submission


# --- a bundle in memory -----------------------------------------------------------------------------


class Entry(NamedTuple):
    """One thing found in a bundle; the ``data`` of a file beyond the size limit, and of what is no file, is empty."""

    name: str
    kind: Literal["file", "link", "other"]
    size: int
    data: bytes


@dataclass(frozen=True)
class Bundle:
    """What lies in a bundle, as found: nothing is checked yet."""

    where: str
    entries: tuple[Entry, ...]

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        return {entry.name: entry.data for entry in self.entries if entry.kind == "file"}

    @cached_property
    def digest(self) -> str:
        """sha256 of SHA256SUMS."""
        return records.digest(self.file(SUMS))

    @cached_property
    def submission(self) -> Submission:
        return decode(self.file(SUBMISSION))

    @cached_property
    def evidence(self) -> Evidence:
        """Decoded; whether its lines agree is not asked."""
        packed = {n.removeprefix(EVIDENCE): data for n, data in self.files.items() if n.startswith(EVIDENCE)}
        return records.decode_evidence(packed, LARGEST_FILE_BYTES)

    @property
    def model(self) -> Mapping[str, bytes]:
        """The files of model/, by their bare names."""
        return {n.removeprefix(MODEL): data for n, data in self.files.items() if n.startswith(MODEL)}

    def file(self, name: str) -> bytes:
        if name not in self.files:
            raise MalformedInput(f"{self.where}: {name} is missing; pack the run again")
        return self.files[name]


def read_bundle(path: Path) -> Bundle:
    """The bundle in a folder, or in the archive of one. Raises MalformedInput, StorageError."""
    try:
        if path.is_dir():
            entries = tuple(sorted(_walk(path, "", 0), key=lambda entry: entry.name))
        elif path.is_file():
            if path.stat().st_size > LARGEST_BUNDLE_BYTES + MOST_FILES * 1024:
                raise MalformedInput(f"{path} has {path.stat().st_size} bytes, the limit is {LARGEST_BUNDLE_BYTES}")
            entries = tuple(_unpacked(path.read_bytes(), path))
        else:
            raise MalformedInput(f"{path} is no folder and no archive; give a bundle that 'grit pack' wrote")
    except OSError as error:
        raise StorageError(f"cannot read {error.filename or path}: {error.strerror}") from error
    return Bundle(str(path), entries)


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[Entry]:
    """Everything below a folder; no link is followed, and nothing that is no plain file is opened."""
    found = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            found += 1
            if found > 4 * MOST_FILES:
                raise MalformedInput(f"{folder} holds more than {4 * MOST_FILES} entries; is this a bundle?")
            name = prefix + entry.name
            mode = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(mode.st_mode) and depth < 2:
                yield from _walk(folder / entry.name, f"{name}/", depth + 1)
            elif stat.S_ISREG(mode.st_mode):
                yield Entry(name, "file", mode.st_size, _content(folder / entry.name, mode.st_size))
            elif not (prefix == "" and name == VERDICT):
                yield Entry(name, "link" if stat.S_ISLNK(mode.st_mode) else "other", mode.st_size, b"")


def _content(file: Path, size: int) -> bytes:
    if size > LARGEST_FILE_BYTES:
        return b""
    handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as opened:
        return opened.read(LARGEST_FILE_BYTES + 1)


# --- the archive ------------------------------------------------------------------------------------

_BLOCK = 512


def archive(files: Mapping[str, bytes]) -> bytes:
    """The same bytes for the same files: plain tar (ustar), names sorted, no time, no owner."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(files[name]), 0o644
            tar.addfile(member, io.BytesIO(files[name]))
    return packed.getvalue()


def _unpacked(data: bytes, path: Path) -> Iterator[Entry]:
    """The members of an archive. Names are as they stand there: whether they are fit to use is for the checks."""
    place = 0
    while place + _BLOCK <= len(data) and data[place : place + _BLOCK].strip(b"\0"):
        header = data[place : place + _BLOCK]
        try:
            name = header[:100].rstrip(b"\0").decode()
            size = int(header[124:136].rstrip(b"\0 ") or b"0", 8)
            said = int(header[148:156].rstrip(b"\0 "), 8)
        except ValueError as error:
            raise MalformedInput(f"{path}: no member at byte {place} ({error}); pack the run again") from error
        summed = sum(header) - sum(header[148:156]) + 8 * ord(" ")
        if said != summed or size < 0 or place + _BLOCK + size > len(data) or header[345:500].strip(b"\0"):
            raise MalformedInput(f"{path}: the archive is cut off or damaged at byte {place}; pack the run again")
        kind = header[156:157]
        start = place + _BLOCK
        if kind in (b"0", b"\0"):
            yield Entry(name, "file", size, data[start : start + size] if size <= LARGEST_FILE_BYTES else b"")
        elif kind != b"5":  # a folder says nothing that its files do not say
            yield Entry(name, "link" if kind in (b"1", b"2") else "other", size, b"")
        place = start + size + -size % _BLOCK
    if data[place:].strip(b"\0") or len(data) < place + 2 * _BLOCK or len(data) % tarfile.RECORDSIZE:
        raise MalformedInput(f"{path} is no archive of a bundle, or it is cut off; pack the run again")


# --- writing ----------------------------------------------------------------------------------------


def files_of(submission: Submission, model: Mapping[str, bytes], evidence: Evidence) -> dict[str, bytes]:
    """Every file of a bundle, by name. ``model``: the files of model/ by their bare names."""
    found = {
        SUBMISSION: encode(submission),
        CARD: card(submission).encode(),
        EVIDENCE + records.CLEAN_EVIDENCE: records.compress(records.encode_clean(evidence.clean)),
    }
    for name, outcomes in evidence.attacks.items():
        found[EVIDENCE + records.evidence_name(name)] = records.compress(records.encode_outcomes(outcomes))
    found |= {MODEL + name: data for name, data in model.items()}
    found[SUMS] = sums(found)
    return found


def sums(files: Mapping[str, bytes]) -> bytes:
    """SHA256SUMS as ``sha256sum`` of coreutils writes and checks it, by name."""
    covered = sorted(set(files) - {SUMS, VERDICT})
    return "".join(f"{records.digest(files[name])}  {name}\n" for name in covered).encode()


def write(folder: Path, files: Mapping[str, bytes]) -> str:
    """Writes a bundle to a new folder, SHA256SUMS last; its digest. A folder with anything else is refused."""
    if folder.exists():
        there = read_bundle(folder).files if folder.is_dir() else {}
        if {**there, VERDICT: b""} != {**files, VERDICT: b""}:
            raise UsageError(f"{folder} exists and holds something else; give another folder, or remove it")
    for name in sorted(files, key=lambda name: (name == SUMS, name)):
        records.write(folder / name, files[name])
    return records.digest(files[SUMS])


def pack(
    run: Folder,
    row: str,
    *,
    adaptive: str = NO_ADAPTIVE_ATTACK,
    runs: int | None = None,
    reported: tuple[int, ...] = (),
    licence: str = "unknown",
    life: Life | None = None,
) -> dict[str, bytes]:
    """The files of the bundle of one row of a finished run.

    runs: how many were made with this configuration, whatever became of them; reported: the training seeds of
    those that are submitted. By default this one alone. Raises UsageError for a row that is not finished.
    """
    from grit.bench import experiment, registry

    home, place = run.model(row), run.evidence(row)
    if not (home / experiment.ARTEFACT).is_file() or not (place / records.CLEAN_EVIDENCE).is_file():
        raise UsageError(f"{row} of {run.path} was not attacked, or has no exported bytes; 'grit run' finishes it")
    evidence = records.read_evidence(place)
    record = _record_of(run, row, evidence)
    known = registry.names("models")
    point = known[record.model.name].entry_point if record.model.name in known else None
    if point is not None:
        origin = point.dist.name if point.dist else "an unnamed distribution"
        record = msgspec.structs.replace(record, model=msgspec.structs.replace(record.model, origin=origin))
    record = msgspec.structs.replace(record, run=msgspec.structs.replace(record.run, command=""))
    seed = record.training.seed if record.training else None
    mine = tuple(sorted({*reported, *([] if seed is None else [seed])}))
    tolerance = record.artefact.logit_tolerance
    seeds = Seeds(
        attacks=experiment.from_config(run.path).seed,
        training=seed,
        reported=mine,
        runs=runs or max(1, len(mine)),
    )
    if seeds.unreported:
        flag = records.FlagPart(name="runs", reason=f"{seeds.unreported} runs of this configuration are not reported")
        raised = sorted((*record.flags, flag), key=lambda each: list(records.FLAGS).index(each.name))
        record = msgspec.structs.replace(record, flags=tuple(raised))
    submission = Submission(
        record=record,
        seeds=seeds,
        determinism=Determinism(exact=tolerance == 0.0, logit_tolerance=tolerance),
        life=life or Life(),
        adaptive=adaptive,
        licence=licence,
    )
    return files_of(submission, _model_files(home, record), evidence)


def allowed(record: Record) -> tuple[str, ...]:
    """The files that model/ of a record may hold: all of them, but of a graph."""
    if record.artefact.format != "gritbench.program":
        return ONNX
    return (ARTEFACT, *(RUNG if record.steps else WEIGHTS))


def _model_files(home: Path, record: Record) -> dict[str, bytes]:
    """What goes into model/: deployed bytes and weights, or of a traced graph its own files."""
    if record.artefact.format == "gritbench.program":
        names = [Path(each).name for each in allowed(record)]
        if not all((home / name).is_file() for name in names):
            raise UsageError(
                f"{home.name} came without its weights, and a program is made again from them when it is verified: "
                "pack the run that trained it, or attack its ONNX folder and pack that"
            )
        return {name: records.read(home / name) for name in names}
    from grit.bench.export import onnx, packing

    files = packing.unbundle(records.read(home / Path(ARTEFACT).name))
    onnx.OnnxArtefact(files)  # MalformedInput where its tokenizer is code, which no bundle holds
    return files


def _record_of(run: Folder, row: str, evidence: Evidence) -> Record:
    """The record that names the row's very bytes, this very evidence, and what was done to come to them."""
    from grit.bench import compress, experiment

    home = run.model(row)
    made = compress.made(home)
    answers = records.digest(records.encode_clean(evidence.clean))
    attacks = {name: records.digest(records.encode_outcomes(found)) for name, found in evidence.attacks.items()}
    deployed = _digest(records.read(home / experiment.ARTEFACT))
    for record in records.read_records(run.path / records.RECORDS):
        if (
            record.artefact.digest == deployed
            and record.compression == (made.part if made else UNSET)
            and record.clean.evidence_sha256 == answers
            and {attack.name: attack.evidence_sha256 for attack in record.attacks} == attacks
        ):
            return record
    raise UsageError(f"{run.path} holds no record of {row} as it lies there; repeat the 'grit run' that made it")


def _digest(artefact: bytes) -> str:
    """The digest of deployed bytes; of a graph, that of its files."""
    from grit.bench.export import onnx, packing

    return onnx.digest(packing.unbundle(artefact)) if packing.is_bundle(artefact) else records.digest(artefact)


def folder_name(row: str) -> str:
    """A row's name as a folder name that no shell and no system minds."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", row).strip("-.") or "row"


# --- a row's life -----------------------------------------------------------------------------------


def amended(bundle: Bundle, life: Life, *, adaptive: str | None = None) -> dict[str, bytes]:
    """The files of the bundle that takes another's place, with the same model and evidence: withdrawn, or corrected."""
    old = bundle.submission
    new = msgspec.structs.replace(old, life=life, adaptive=adaptive or old.adaptive)
    return files_of(new, bundle.model, bundle.evidence)


Standing = Literal["current", "superseded", "withdrawn"]


def standing(bundles: Mapping[str, Submission]) -> dict[str, Standing]:
    """digest -> where the row stands among these: a bundle that another one names is superseded by it."""
    replaced = {submission.life.supersedes for submission in bundles.values()}
    found: dict[str, Standing] = {}
    for digest, submission in bundles.items():
        if digest in replaced:
            found[digest] = "superseded"
        else:
            found[digest] = "withdrawn" if submission.life.status == "withdrawn" else "current"
    return found


def bundles_below(folder: Path) -> list[Path]:
    """The folders of bundles in and below a folder, in order."""
    return sorted(file.parent for file in folder.rglob(SUBMISSION))


def rows(folder: Path) -> list[records.Row]:
    """The rows of the bundles below a folder that stand: neither withdrawn nor superseded. Raises MalformedInput."""
    found = {(bundle := read_bundle(place)).digest: bundle for place in bundles_below(folder)}
    stands = standing({digest: bundle.submission for digest, bundle in found.items()})
    return [
        records.Row(bundle.submission.record, bundle.evidence)
        for digest, bundle in found.items()
        if stands[digest] == "current"
    ]


# --- the model card ---------------------------------------------------------------------------------


def card(submission: Submission) -> str:
    """README.md as the Hugging Face hub reads it: front matter, then the same counts for people.

    The values of the front matter are JSON, which is YAML, so that no name can break out of its place.
    """
    record = submission.record
    metrics = [
        {"type": "accuracy", "name": "clean accuracy", "value": _ratio(record.clean.k, record.clean.n)},
        {"type": "accuracy", "name": "worst-case robust accuracy", "value": _ratio(record.worst.low, record.worst.n)},
    ]
    front = {
        "license": "other",
        "license_name": submission.licence,
        "library_name": "gritbench",
        "pipeline_tag": "text-classification",
        "tags": ["adversarial-robustness", "tinyml", record.model.name, record.scheme.name],
        "datasets": [record.data.name],
        "model-index": [
            {
                "name": ".".join(filter(None, (record.model.name, record.scheme.name, record.steps))),
                "results": [
                    {
                        "task": {"type": "text-classification"},
                        "dataset": {"type": record.data.name, "name": record.data.name, "split": record.data.split},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }
    matter = "".join(f"{key}: {json.dumps(value, ensure_ascii=True)}\n" for key, value in front.items())
    return f"---\n{matter}---\n\n{_card_body(submission)}"


def _card_body(submission: Submission) -> str:
    record, life, seeds = submission.record, submission.life, submission.seeds
    size = f"{record.artefact.total_bytes:,} bytes" if record.artefact.total_bytes is not None else "size not measured"
    tolerance = submission.determinism.logit_tolerance
    lines = [
        f"# {_plain(' '.join(filter(None, (record.model.name, record.steps))))} ({_plain(record.scheme.name)}) "
        f"on {_plain(record.data.name)}",
        "",
        "Made from `submission.json` by `grit pack`; nothing reads it back. Check it with",
        "`grit verify . --level replay`.",
        "",
        "| claim | right | of |",
        "| --- | ---: | ---: |",
        f"| clean | {record.clean.k} | {record.clean.n} |",
        f"| worst case over the attacks | {record.worst.low} | {record.worst.n} |",
        *(f"| {_plain(attack.name)} | {attack.robust.low} | {attack.robust.n} |" for attack in record.attacks),
        "",
        f"- deployed: {size}, {record.artefact.precision}, {record.artefact.format}; logits "
        + ("bit-exact" if submission.determinism.exact else f"within {tolerance:g} between machines"),
        f"- suite: {_plain(record.suite) or 'none pinned, so not comparable with rows of one'}",
        f"- data: {_plain(record.data.name)}, revision `{record.data.revision[:16]}`, {record.data.split}, "
        f"{_plain(record.data.selection)}",
    ]
    if record.training is not None:
        lines.append(
            f"- trained on {_plain(record.training.data)}, {record.training.n_train} examples; "
            f"licence of the training data: {_plain(record.training.licence)}"
        )
    if record.compression is not UNSET:
        lines.append(f"- compressed by {_plain(record.steps)} from the bytes `{record.compression.source[:16]}`")
    if record.model.origin != "gritbench":
        lines.append(f"- **architecture of a plug-in**: {_plain(record.model.origin)}; its code is not gritbench's")
    reported = ", ".join(map(str, seeds.reported)) or "none"
    lines += [
        f"- runs made with this configuration: {seeds.runs}; seeds reported: {reported}; attack seed {seeds.attacks}",
        f"- adaptive attacks: {_plain(submission.adaptive)}",
        *(f"- raised: {flag.name} ({_plain(flag.reason)})" for flag in record.flags),
    ]
    if life.status != "submitted":
        lines.append(f"- **{life.status}**: {_plain(life.reason)} (takes the place of `{life.supersedes}`)")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Foreign text on one line, with nothing in it that Markdown or HTML would act on."""
    return re.sub(r"([\\`*_{}\[\]<>|#!&])", r"\\\1", " ".join(text.split()))


def _ratio(k: int, n: int) -> float:
    return round(k / n, 4) if n else 0.0
