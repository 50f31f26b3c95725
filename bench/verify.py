"""Is a claim true? Everything claimed broken is replayed; of what is claimed to stand, a sample is attacked again.

A bundle goes through checks, small functions with a name, stage by stage; each yields what is wrong in one line.
What a stage found ends the work, since later stages stand on it.

    lint      files, sizes, sums, schema, model files, evidence, card      nothing is run, no data is needed
    replay    totals, suite, data, threat sets; then every clean answer, every break and every nearest miss again
    spot      m survivors, chosen by sha256(bundle digest, nonce, id), attacked again by the same attacks
    full      every example attacked again

A survivor cannot be proved. No hit among m proves, with 95 % confidence, that no more than a share ``bound`` of the
survivors is false; the *verified floor* is the claim times (1 - bound). A hit refutes the claim, and is evidence.

The model answers shuffled texts without ids and labels, in a process of its own. Attacks of spot and full run here:
they read a program, which is data, or a graph of operators from a short list; the weights are read by
gritbench's own code, and by nobody else's.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import random
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

from grit.bench import records, submission
from grit.bench.records import Fields, Sha256
from grit.bench.submission import EVIDENCE, MODEL, Bundle, Submission
from grit.bench.types import (
    Attack,
    CouldNotMeasure,
    Dataset,
    Example,
    GritError,
    MalformedInput,
    Outcome,
    SandboxViolation,
    Script,
    Threat,
    UsageError,
)

if TYPE_CHECKING:
    import numpy as np

    from grit.bench.sentence import Text
    from grit.bench.types import Artefact

Level = Literal["lint", "replay", "spot", "full"]
LEVELS: tuple[Level, ...] = ("lint", "replay", "spot", "full")
SPOT = 100  # survivors attacked again: no hit bounds false survivors below 2.95 %
CONFIDENCE = 0.95
RESTLESS = 0.05  # share of gradient traces that another build of torch may change
TWIN_AGREEMENT = 0.95  # of float weights and int8 bytes, in predictions, where the bytes cannot be made again
SECOND_LOOK = 128  # texts answered twice, in another order and other company
WORDS = {
    0: "verified",
    1: "refuted",
    3: "inconclusive",
    4: "could not measure",
    5: "sandbox violation",
    6: "malformed",
}

# --- who answers ------------------------------------------------------------------------------------


class Answered(NamedTuple):
    logits: np.ndarray  # float64 [texts classes]
    mode: str  # of the sandbox
    weaker: str  # why it is not the strongest; "" if it is


Respond = Callable[[Path, Sequence[str]], Answered]
"""(a program file or an ONNX folder, texts) -> what it answers."""


def sandboxed(artefact: Path, texts: Sequence[str]) -> Answered:
    """In a process that can do no harm."""
    from grit.bench import sandbox

    answer = sandbox.logits(artefact, texts)
    return Answered(answer.logits, answer.mode, answer.weaker)


def unguarded(artefact: Path, texts: Sequence[str]) -> Answered:
    """In this process: for bundles of one's own."""
    from grit.bench.export import build, words

    return Answered(words.answer(build.load(artefact), texts), "none", "asked for")


# --- what comes out ---------------------------------------------------------------------------------


class Finding(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    check: str
    code: int  # exit code that it calls for
    reason: str


class Key(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that a verdict depends on: it holds again where every field is the same, and nowhere else."""

    bundle_sha256: Sha256
    level: Level
    suite_sha256: Sha256 | None  # as this release has it
    data_revision: Sha256 | None  # of the data here; None: not asked for, or not here
    pool_sha256: Sha256 | None
    spot: int | None  # survivors to attack again
    nonce: str | None
    sandboxed: bool  # whether the model was kept from doing harm; nothing runs at level lint
    verifier: str  # version
    versions: dict[str, str]  # of what the verifier stands on


class Floor(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the spot check proves about the worst case."""

    claimed: int
    n: int
    drawn: int  # of the claimed, attacked again
    bound: float  # on the share of false survivors, at 95 % confidence
    verified: float  # claimed / n x (1 - bound), in [0, 1]


class Report(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="schema_version", tag=1):
    """verdict.json."""

    key: Key
    code: int  # exit code
    says: str
    findings: tuple[Finding, ...]
    checks: tuple[str, ...]  # that were made
    notes: tuple[str, ...] = ()
    floor: Floor | None = None
    lowered: records.Robust | None = None  # the worst case, where the pool breaks what the row's attacks did not
    hits: tuple[str, ...] = ()  # lines of evidence: survivors that were broken here
    created: str  # UTC, ISO 8601
    seconds: float


def encode(report: Report) -> bytes:
    return msgspec.json.format(records.encode(report), indent=1) + b"\n"


def decode(data: bytes, where: str) -> Report:
    return records.decoded(data, Report, where)


Badge = Literal["current", "stale", "challenged", "refuted", "unverified"]


def badge(report: Report, now: Key) -> Badge:
    """What a verdict of then says about a row today; ``now``: the key under which it would be verified."""
    if report.code == 1:
        return "refuted"
    if report.code != 0:
        return "unverified"
    if msgspec.structs.replace(now, nonce=report.key.nonce) != report.key:
        return "stale"
    return "challenged" if report.lowered is not None else "current"


# --- a case -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """How to verify: the same for every bundle."""

    level: Level = "replay"
    respond: Respond = sandboxed
    data: str | None = None  # a name or file to read instead of what the bundle names
    pool: Mapping[str, tuple[Script, ...]] = field(default_factory=dict)  # example id -> breaks of any model
    spot: int = SPOT
    nonce: str = ""


@dataclass
class Case:
    """One bundle under verification; what checks share is worked out when it is first asked for."""

    bundle: Bundle
    setting: Setting
    notes: list[str] = field(default_factory=list)
    floor: Floor | None = None
    hits: list[tuple[str, Outcome]] = field(default_factory=list)  # attack, what it did to a claimed survivor
    crossed: list[str] = field(default_factory=list)  # ids of survivors that a script of the pool breaks

    @property
    def claim(self) -> Submission:
        return self.bundle.submission

    @property
    def evidence(self) -> records.Evidence:
        return self.bundle.evidence

    @cached_property
    def artefact(self) -> Artefact:
        """The deployed bytes at work, in this process. Raises MalformedInput."""
        from grit.bench.export import packing

        if self.claim.record.artefact.format == "gritbench.program":
            return packing.artefact(self.bundle.file(submission.ARTEFACT))
        from grit.bench.export.onnx import OnnxArtefact

        return OnnxArtefact(self.graph)

    @property
    def graph(self) -> Mapping[str, bytes]:
        """The files of an ONNX model, by their bare names."""
        return {name: data for name, data in self.bundle.model.items() if MODEL + name in submission.ONNX}

    @cached_property
    def dataset(self) -> Dataset:
        """The data that the bundle names, as it is here. Raises CouldNotMeasure where it is not.

        A bundle may name what is installed, and nothing else: no path, and no repository of somebody's.
        """
        from grit.bench import datasets

        name = self.claim.record.data.name
        if self.setting.data is None and name not in {*datasets.available(), *datasets.HUB}:
            raise CouldNotMeasure(f"data {_short(name)} is not here; get it, or name a file that holds it with --data")
        return datasets.load(self.setting.data or name)

    @cached_property
    def examples(self) -> Mapping[str, Example]:
        """Examples of the evaluated split, by id."""
        return {example.id: example for example in self.dataset.test}

    @cached_property
    def threats(self) -> Mapping[str, Threat]:
        return {attack.name: _threat(attack.name, attack.threat) for attack in self.claim.record.attacks}

    @cached_property
    def _kinds(self) -> dict[str, str]:
        return {name: repr(threat) for name, threat in self.threats.items()}

    @cached_property
    def _lexicons(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _texts(self) -> dict[tuple[str, str], Text]:
        return {}

    def text(self, attack: str, id: str) -> Text:
        """An example under an attack's threat; attacks with one threat share it, and all that it remembers."""
        from grit.bench import lexicons, registry
        from grit.bench.sentence import Text

        threat = self.threats[attack]
        key = self._kinds[attack], id
        if key not in self._texts:
            if threat.lexicon not in self._lexicons and registry.LEXICAL_SPACES & set(threat.spaces):
                self._lexicons[threat.lexicon] = _lexicon(threat.lexicon)
            lexicon = self._lexicons.get(threat.lexicon)
            self._texts[key] = Text(self.examples[id].text, threat, lexicon, stop_words=lexicons.stop_words())
        return self._texts[key]

    def joined(self, attack: str, outcome: Outcome) -> str:
        return self.text(attack, outcome.id).apply(outcome.script)

    @cached_property
    def scripted(self) -> list[tuple[str, Outcome]]:
        """Every break and every nearest miss, with its attack."""
        return [
            (name, outcome)
            for name, outcomes in self.evidence.attacks.items()
            for outcome in outcomes
            if outcome.outcome in ("broken", "survived") and outcome.script
        ]

    @cached_property
    def survivors(self) -> list[str]:
        return [id for id, stands in self.evidence.robust().items() if stands]

    @cached_property
    def answers(self) -> Mapping[str, np.ndarray]:
        """text -> logits of every text that the evidence speaks of: asked once, all together, shuffled.

        Raises whatever the model's process ended with.
        """
        wanted = {self.examples[line.id].text for line in self.evidence.clean}
        wanted |= {self.joined(name, outcome) for name, outcome in self.scripted}
        wanted |= {text for _, text in self.crossings}
        return self.ask(sorted(wanted), salt="first")

    @cached_property
    def crossings(self) -> list[tuple[str, str]]:
        """(id, text) for every script of the pool that some attack of this row would have been allowed."""
        found = []
        for id in self.survivors:
            for script in self.setting.pool.get(id, ()):
                for name in self.threats:
                    text = self.text(name, id)
                    if text.violation(script) is None:
                        found.append((id, text.apply(script)))
                        break
        return found

    def ask(self, texts: Sequence[str], *, salt: str) -> dict[str, np.ndarray]:
        """The model's answers; it sees nothing but texts, in an order that the bundle's author could not know."""
        from grit.bench.victim import settled

        order = list(texts)
        random.Random(f"{self.bundle.digest} {self.setting.nonce} {salt}").shuffle(order)
        with self.model_files() as folder:
            program = self.claim.record.artefact.format == "gritbench.program"
            answered = self.setting.respond(folder / Path(submission.ARTEFACT).name if program else folder, order)
        if answered.logits.shape != (len(order), len(self.claim.record.data.labels)):
            raise MalformedInput(
                f"the model answers {list(answered.logits.shape)} logits to {len(order)} texts of "
                f"{len(self.claim.record.data.labels)} labels; submit it with the labels it was trained for"
            )
        self._note(f"the model ran in sandbox mode {answered.mode}" + (f": {answered.weaker}" * bool(answered.weaker)))
        logits = answered.logits if self.claim.determinism.exact else settled(answered.logits)
        return dict(zip(order, logits, strict=True))

    @contextmanager
    def model_files(self) -> Iterator[Path]:
        """model/ as files again, for those who read files."""
        with tempfile.TemporaryDirectory(prefix="grit-") as place:
            for name, data in self.bundle.model.items():
                Path(place, name).write_bytes(data)
            yield Path(place)

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def slack(self, logits: np.ndarray) -> float:
        """How far a margin may lie from the recorded one: nothing for exact models, else both logits' tolerance."""
        tolerance = self.claim.determinism.logit_tolerance
        return 2 * tolerance * max(1.0, float(abs(logits).max()))


_MOST = 10**9  # of anything that a threat counts


def _threat(name: str, fields: Fields) -> Threat:
    try:
        if set(fields) != set(Threat.__dataclass_fields__):
            raise ValueError(f"fields {', '.join(sorted(map(str, fields)))}")
        found = msgspec.convert(fields, Threat)
        if not (0 <= found.max_words <= 1 and 1 <= found.max_queries <= _MOST and 0 <= found.typo_distance <= _MOST):
            raise ValueError("a limit is no limit")
        return found
    except (ValueError, TypeError) as error:
        raise MalformedInput(f"the threat of {_short(name)} cannot be read ({error}); pack the run again") from error


def _lexicon(name: str) -> Any:
    """A lexicon by the name that a stranger wrote: never a file."""
    from grit.bench import lexicons

    if name.endswith(".json"):
        raise CouldNotMeasure(f"lexicon {_short(name)} is somebody's file; use one that comes by name")
    try:
        return lexicons.load(name)
    except UsageError as error:
        raise CouldNotMeasure(str(error)) from error


def _short(text: str) -> str:
    return ascii(text[:60])


# --- checks: lint -----------------------------------------------------------------------------------

Check = Callable[[Case], Iterator[str]]

_TOP = {submission.SUBMISSION, submission.CARD, submission.SUMS}
_MODEL_FILES = {submission.ARTEFACT, *submission.WEIGHTS, *submission.ONNX}
_EVIDENCE_NAME = re.compile(r"evidence/[A-Za-z0-9._+%@~-]+\.jsonl\.gz")
_CODE = (b"\x7fELF", b"MZ", b"#!", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"PK\x03\x04", b"\x80\x02", b"\x80\x03",
         b"\x80\x04", b"\x80\x05")  # programs, archives with programs inside, and pickles  # fmt: skip


def layout(case: Case) -> Iterator[str]:
    """Only the files that a bundle has, under plain names, once each; no link and nothing else that is no file."""
    names = [entry.name for entry in case.bundle.entries if entry.name != submission.VERDICT]
    for entry in case.bundle.entries:
        if entry.name == submission.VERDICT:
            continue
        if entry.kind != "file":
            yield f"{_short(entry.name)} is a {'link' if entry.kind == 'link' else 'thing that is no file'}"
        elif entry.name not in _TOP | _MODEL_FILES and not _EVIDENCE_NAME.fullmatch(entry.name):
            yield f"{_short(entry.name)} has no place in a bundle"
        if len(entry.name) > submission.LONGEST_NAME:
            yield f"{_short(entry.name)}... is a name of {len(entry.name)} characters"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{_short(name)} is there twice"
    for name in sorted(_TOP - set(names)):
        yield f"{name} is missing"


def code(case: Case) -> Iterator[str]:
    """No program, no archive of programs, no pickle, whatever its name says."""
    for name, data in case.bundle.files.items():
        if data.startswith(_CODE):
            yield f"{name} begins like a program, an archive or a pickle"


def sizes(case: Case) -> Iterator[str]:
    """No file and no bundle beyond the limits."""
    entries = case.bundle.entries
    for entry in entries:
        limit = _SMALL.get(entry.name, submission.LARGEST_FILE_BYTES)
        if entry.size > limit:
            yield f"{_short(entry.name)} has {entry.size} bytes, the limit is {limit}"
    total = sum(entry.size for entry in entries)
    if total > submission.LARGEST_BUNDLE_BYTES:
        yield f"the bundle has {total} bytes, the limit is {submission.LARGEST_BUNDLE_BYTES}"
    if len(entries) > submission.MOST_FILES:
        yield f"the bundle has {len(entries)} files, the limit is {submission.MOST_FILES}"


_SMALL = {
    submission.SUBMISSION: 4 << 20,
    submission.CARD: 1 << 20,
    submission.SUMS: 64 << 10,
    "model/config.json": 1 << 20,
    "model/tokenizer.json": 1 << 20,
}


def hashes(case: Case) -> Iterator[str]:
    """SHA256SUMS names every other file, by name, with its sha256."""
    found, expected = case.bundle.file(submission.SUMS), submission.sums(case.bundle.files)
    if found == expected:
        return
    lines, right = set(found.split(b"\n")), expected.decode().splitlines()
    wrong = [line.partition("  ")[2] for line in right if line.encode() not in lines]
    yield f"SHA256SUMS is not the sums of the files{': ' + _short(wrong[0]) + ' differs' if wrong else ''}"


def schema(case: Case) -> Iterator[str]:
    """submission.json is canonical JSON of a known version, with no other keys."""
    yield from _refusal(lambda: case.claim)


def card(case: Case) -> Iterator[str]:
    """README.md says what submission.json says."""
    if case.bundle.file(submission.CARD) != submission.card(case.claim).encode():
        yield "README.md is not the card that 'grit pack' makes of submission.json"


def artefact(case: Case) -> Iterator[str]:
    """The deployed bytes are well-formed, and those whose digest and sizes the record names. Nothing of them is run."""
    said = case.claim.record.artefact
    try:
        digest, sizes_bytes, exact = _deployed(case)
    except MalformedInput as error:
        yield str(error)
        return
    if said.digest != digest:
        yield f"the deployed bytes have digest {digest[:16]}..., the record names {said.digest[:16]}..."
    if dict(said.sizes_bytes) != dict(sizes_bytes):
        yield f"the deployed bytes have sizes {dict(sizes_bytes)}, the record says {said.sizes_bytes}"
    if exact != case.claim.determinism.exact:
        yield f"exact is {case.claim.determinism.exact}, the deployed bytes say {exact}"


def _deployed(case: Case) -> tuple[str, Mapping[str, int], bool]:
    """Digest, sizes and exactness of the deployed bytes. Raises MalformedInput."""
    if case.claim.record.artefact.format == "onnx":
        from grit.bench.export import onnx

        found = onnx.describe(case.graph)
        if foreign := sorted(found.operators - OPERATORS):
            raise MalformedInput(f"model.onnx uses {_short(foreign[0])}, which is not among the operators allowed")
        return found.digest, found.sizes_bytes, found.exact
    from grit.bench.export import fixed, packing

    data = case.bundle.file(submission.ARTEFACT)
    exact = isinstance(packing.unpack(data), fixed.FixedProgram)
    return records.digest(data), packing.sizes_bytes(data), exact


def weights(case: Case) -> Iterator[str]:
    """The float weights are safetensors of finite numbers, for the architecture and configuration of the record."""
    files, said = case.bundle.files, case.claim.record
    allowed = submission.ONNX if said.artefact.format == "onnx" else (submission.ARTEFACT, *submission.WEIGHTS)
    for name in sorted(n for n in files if n.startswith(MODEL) and n not in allowed):
        yield f"{name} does not belong to a model in format {said.artefact.format}"
    if said.artefact.format == "onnx":
        return
    for name in allowed:
        if name not in files:
            yield f"{name} is missing"
            return
    yield from _refusal(lambda: tensors(files["model/model.safetensors"], "model/model.safetensors"))
    yield from _refusal(lambda: _configured(files["model/config.json"], said))
    vocabulary = files["model/vocabulary.txt"]
    try:
        lines = vocabulary.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        yield f"model/vocabulary.txt is not UTF-8 (byte {error.start})"
    else:
        if lines.pop() or len(set(lines)) != len(lines):
            yield "model/vocabulary.txt holds a word twice, or ends inside a line"


def evidence(case: Case) -> Iterator[str]:
    """Evidence files are canonical, hold what the record's digests name, and no line carries foreign text."""
    if problem := next(_refusal(lambda: case.evidence), None):
        yield problem
        return
    record = case.claim.record
    named = {attack.name: attack.evidence_sha256 for attack in record.attacks}
    files = {n for n in case.bundle.files if n.startswith(EVIDENCE)}
    if files != {EVIDENCE + n for n in (records.CLEAN_EVIDENCE, *map(records.evidence_name, named))}:
        yield f"evidence is there for {', '.join(case.evidence.attacks)}; the record names {', '.join(named)}"
    if records.digest(records.encode_clean(case.evidence.clean)) != record.clean.evidence_sha256:
        yield f"{records.CLEAN_EVIDENCE} is not what the record names by digest"
    for name, outcomes in case.evidence.attacks.items():
        if name in named and records.digest(records.encode_outcomes(outcomes)) != named[name]:
            yield f"{_short(name)}: the evidence is not what the record names by digest"
        for outcome in outcomes:
            if not re.fullmatch("[0-9a-f]{64}" if outcome.outcome in ("broken", "survived") else "([0-9a-f]{64})?",
                                outcome.trace):  # fmt: skip
                yield f"{_short(name)}: the trace of {outcome.id} is no digest"


def _refusal(read: Callable[[], object]) -> Iterator[str]:
    """What a reader has against its input."""
    try:
        read()
    except MalformedInput as error:
        yield str(error)


# --- model files, read without torch ------------------------------------------------------------------

_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_LARGEST_HEADER_BYTES = 1 << 20


def tensors(data: bytes, where: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """name -> (type, shape) of a safetensors file whose every byte is accounted for and whose floats are finite."""
    import numpy as np

    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(len(data) - 8, _LARGEST_HEADER_BYTES):
        raise MalformedInput(f"{where}: a header of {size} bytes in a file of {len(data)}; save the model again")
    header = _table(data[8 : 8 + size], f"{where}, header")
    extra = header.pop("__metadata__", {})
    if not isinstance(extra, dict) or not all(isinstance(value, str) for value in extra.values()):
        raise MalformedInput(f"{where}: its metadata are no words; save the model again")
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    places = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise MalformedInput(f"{where}: tensor {_short(name)} is not described; save the model again")
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not (isinstance(kind, str) and kind in _ITEM_BYTES and _naturals(shape) and _naturals(offsets)):
            raise MalformedInput(f"{where}: tensor {_short(name)} has an illegal type or shape; save the model again")
        if len(offsets) != 2 or len(shape) > 8 or math.prod(shape) * _ITEM_BYTES[kind] != offsets[1] - offsets[0]:
            raise MalformedInput(f"{where}: tensor {_short(name)} does not fill its place; save the model again")
        places.append((offsets[0], offsets[1], name))
        found[name] = kind, tuple(shape)
    end = 0
    for start, stop, name in sorted(places):
        if start != end:
            raise MalformedInput(f"{where}: tensor {_short(name)} overlaps or leaves a hole; save the model again")
        end = stop
        if 8 + size + end > len(data):
            raise MalformedInput(f"{where}: it is cut off inside tensor {_short(name)}; save the model again")
        if found[name][0] in ("F32", "F64"):
            kind, shape = found[name]
            values = np.frombuffer(data, f"<f{_ITEM_BYTES[kind]}", math.prod(shape), 8 + size + start)
            if not np.isfinite(values).all():
                raise MalformedInput(f"{where}: tensor {_short(name)} holds NaN or infinite numbers; train again")
    if 8 + size + end != len(data):
        raise MalformedInput(f"{where}: {len(data)} bytes, the header accounts for {8 + size + end}; save it again")
    return found


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v <= submission.LARGEST_FILE_BYTES for v in value)


def _table(data: bytes, where: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(table := dict(pairs)) != len(pairs):
            raise ValueError("a key stands twice")
        return table

    def refused(constant: str) -> float:
        raise ValueError(f"{constant} is no JSON number")

    try:
        found = json.loads(data, object_pairs_hook=unique, parse_constant=refused)
    except (ValueError, RecursionError) as error:
        raise MalformedInput(f"{where}: not JSON ({str(error)[:60]}); save the model again") from error
    if not isinstance(found, dict):
        raise MalformedInput(f"{where}: no table; save the model again")
    return found


def _configured(data: bytes, record: records.Record) -> None:
    found = _table(data, "model/config.json")
    for key, expected in (
        ("model", record.model.name),
        ("config", record.model.config),
        ("classes", len(record.data.labels)),
    ):
        if found.get(key) != expected:
            raise MalformedInput(f"model/config.json: {key} is not that of the record; pack the run again")


# What a small text classifier is made of. Each is arithmetic on its inputs: none reads a file or a clock.
OPERATORS = frozenset(
    "Abs Add And ArgMax ArgMin AveragePool BatchNormalization BitShift BitwiseAnd BitwiseOr Cast Ceil Clip Concat "
    "Constant ConstantOfShape Conv ConvInteger CumSum DequantizeLinear Div DynamicQuantizeLinear Equal Erf Exp Expand "
    "Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual "
    "HardSigmoid Identity If LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop MatMul "
    "MatMulInteger Max MaxPool Mean Min Mod Mul Neg Not Or Pad Pow QLinearConv QLinearMatMul QuantizeLinear RNN Range "
    "Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Round Scan ScatterElements "
    "ScatterND Shape Sigmoid Sign Size Slice Softmax Softplus Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose "
    "Trilu Unsqueeze Where Xor".split()
)


# --- checks: claims against their evidence ----------------------------------------------------------


def totals(case: Case) -> Iterator[str]:
    """Every count of the record is what its evidence adds up to."""
    record, found = case.claim.record, case.evidence
    clean = records.clean_part(found.clean, len(record.data.labels))
    if msgspec.structs.replace(clean, calibration_error=record.clean.calibration_error) != record.clean:
        yield f"clean: the evidence adds up to {clean.k} of {clean.n}, claimed are {record.clean.k} of {record.clean.n}"
    for attack in record.attacks:
        counted = records.attack_part(attack.name, {}, found.attacks[attack.name])
        said = {name: getattr(counted, name) for name in _OF_THE_ATTACK}
        if {name: getattr(attack, name) for name in _OF_THE_ATTACK} != said:
            wrong = next(name for name in _OF_THE_ATTACK if getattr(attack, name) != said[name])
            yield f"{_short(attack.name)}: {wrong} is {getattr(attack, wrong)}, the evidence adds up to {said[wrong]}"
    if (worst := records.worst_case(found)) != record.worst:
        yield f"worst case: the evidence adds up to {worst.low} of {worst.n}, claimed is {record.worst.low}"


_OF_THE_ATTACK = (
    "robust",
    "success",
    "skipped",
    "errors",
    "queries",
    "queries_median",
    "gradients",
    "edits",
    "edits_median",
    "robust_by_edits",
    "robust_by_queries",
)


def coverage(case: Case) -> Iterator[str]:
    """No attack leaves out an example that stands, and none contradicts the clean answers."""
    yield from records.disagreements(case.evidence)


def suite(case: Case) -> Iterator[str]:
    """A pinned suite is the one of that name: its attacks, their parameters, its lexicon, its digest."""
    from grit.bench import suites

    record = case.claim.record
    for attack in record.attacks:
        if attack.parameters_sha256 != records.digest(
            records.encode({**attack.parameters, "threat": attack.threat} if attack.threat else attack.parameters)
        ):
            yield f"{_short(attack.name)}: parameters_sha256 is not that of its parameters"
    for attack in record.attacks:
        lexicon = case.threats[attack.name].lexicon
        if attack.lexicon is not None and (here := _lexicon(lexicon).digest) != attack.lexicon_sha256:
            raise CouldNotMeasure(f"lexicon {lexicon} here is {here[:16]}..., {_short(attack.name)} names another")
    if not record.suite:
        case.notes.append("no pinned suite: the attacks are the submitter's own choice")
        return
    name, _, lexicon = record.suite.partition("+")
    if name not in suites.SUITES:
        raise CouldNotMeasure(f"suite {_short(name)} is none of this release's ({', '.join(suites.SUITES)})")
    _lexicon(lexicon)
    if record.suite_sha256 != suites.digest(suites.load(name), lexicon):
        yield f"{record.suite}: its digest is not that of the suite"
    members = suites.attacks(suites.load(name), lexicon)
    if set(members) != {attack.name for attack in record.attacks}:
        yield f"{record.suite} is {', '.join(members)}; the record has other attacks"
    for attack in record.attacks:
        pinned = records.plain(members[attack.name]) if attack.name in members else None
        if pinned is not None and pinned != {**attack.parameters, "threat": attack.threat}:
            yield f"{attack.name}: its parameters are not those of {record.suite}"


def budget(case: Case) -> Iterator[str]:
    """No example cost more than its attack's budget."""
    for name, outcomes in case.evidence.attacks.items():
        most = case.threats[name].max_queries
        for outcome in outcomes:
            if max(outcome.queries, outcome.gradients) > most:
                yield f"{_short(name)}: {outcome.id} cost {outcome.queries} queries, the budget is {most}"
            if outcome.cache_hits > outcome.queries:
                yield f"{_short(name)}: {outcome.id} has more cache hits than queries"


def raised(case: Case) -> Iterator[str]:
    """The flags that the counts raise stand in the record."""
    from grit.bench import datasets

    record = case.claim.record
    due = records.flags(record.data, record.clean, record.attacks, embedded=record.data.name == datasets.EMBEDDED)
    missing = {flag.name for flag in due} - {flag.name for flag in record.flags}
    for name in sorted(missing):
        yield f"the flag {name!r} is due and not raised"


# --- checks: the data -------------------------------------------------------------------------------


def revision(case: Case) -> Iterator[str]:
    """The data here is the data of the claim; of another revision nothing can be said."""
    said, here = case.claim.record.data, case.dataset
    if said.revision != here.revision:
        raise CouldNotMeasure(
            f"{said.name} is revision {here.revision[:16]}... here, the claim is about {said.revision[:16]}..."
        )
    if said.labels != here.labels or said.notes != here.notes or said.licence != here.licence:
        yield f"labels, notes or licence are not those of {said.name}"


def selection(case: Case) -> Iterator[str]:
    """The examples are those that the rule selects, all of them, with their own labels."""
    from grit.bench import datasets

    said, found = case.claim.record.data, case.evidence.clean
    if said.split != "test":
        yield f"split {_short(said.split)}: claims are about the test split"
    chosen = datasets.subset(case.dataset.test, said.n, case.dataset.name)
    expected = {example.id: example.label for example in chosen}
    if strangers := sorted({line.id for line in found} - set(expected)):
        yield f"{len(strangers)} examples are not among the {said.n} that the rule selects, {strangers[0]} first"
    if missing := sorted(set(expected) - {line.id for line in found}):
        yield f"{len(missing)} examples that the rule selects are missing, {missing[0]} first"
    for line in found:
        if line.id in expected and line.label != expected[line.id]:
            yield f"{line.id} has label {expected[line.id]}, the evidence says {line.label}"
    counts = tuple(sum(example.label == label for example in chosen) for label in range(len(said.labels)))
    if said.label_counts != counts:
        yield f"label_counts are {list(said.label_counts)}, the examples have {list(counts)}"
    rule = "all" if len(chosen) == len(case.dataset.test) else "stratified by label, by rank of sha256(dataset, id)"
    if said.selection != rule:
        yield f"the rule of selection is {_short(said.selection)}, not {rule!r}"


def trained(case: Case) -> Iterator[str]:
    """Training data, its size and licence are what they are called, and no evaluated text was trained on unsaid."""
    from grit.bench import datasets

    said = case.claim.record.training
    if said is None:
        return
    source = _training_data(case)
    if source is None:
        case.notes.append(f"training data {_short(said.data)} is not here: overlap and vocabulary were not checked")
        return
    if said.revision != source.revision or said.licence != source.licence:
        yield f"revision or licence of the training data are not those of {said.data}"
    if said.n_train > len(source.train):
        yield f"{said.n_train} examples trained on, {said.data} has {len(source.train)}"
    if source.name == case.dataset.name:
        return  # the loader drops every text of test from train
    evaluated = [case.examples[line.id] for line in case.evidence.clean]
    both = datasets.overlap((*source.train, *source.dev), evaluated)
    if both and "overlap" not in {flag.name for flag in case.claim.record.flags}:
        yield f"{len(both)} evaluated texts stand in the training data, and the flag 'overlap' is not raised"


def vocabulary(case: Case) -> Iterator[str]:
    """Every word of the vocabulary stands in the training data: a word of the test split alone gives it away."""
    from grit.bench import datasets, text

    said, source = case.claim.record.training, _training_data(case)
    missing = {word for word in _vocabulary(case) if word}
    if said is None or source is None or not missing:
        return
    if case.claim.record.model.origin != "gritbench":
        return  # a plug-in may bring a vocabulary of its own
    examples = source.train
    if said.n_train < len(examples):
        examples = datasets.subset(examples, said.n_train, source.name)
    for example in examples:
        missing.difference_update(text.tokenize(example.text))
        if not missing:
            return
    evaluated = {word for line in case.evidence.clean for word in text.tokenize(case.examples[line.id].text)}
    from_test = sorted(missing & evaluated)
    yield (
        f"{len(missing)} words of the vocabulary stand nowhere in the training data, {len(from_test)} of them in "
        "evaluated texts"
    )


def _vocabulary(case: Case) -> Sequence[str]:
    from grit.bench.export import packing

    if case.claim.record.artefact.format == "onnx":
        return case.graph.get("vocabulary.txt", b"").decode("utf-8", "replace").split("\n")
    return packing.unpack(case.bundle.file(submission.ARTEFACT)).vocabulary


def _training_data(case: Case) -> Dataset | None:
    from grit.bench import datasets

    said = case.claim.record.training
    if said is None:
        return None
    if said.data == case.claim.record.data.name:
        return case.dataset
    return datasets.load(said.data) if said.data in datasets.available() else None


# --- checks: replay ---------------------------------------------------------------------------------


def words(case: Case) -> Iterator[str]:
    """Texts have as many words as the evidence says, and no script that came from an attack leaves them."""
    for name, outcomes in case.evidence.attacks.items():
        for outcome in outcomes:
            count = len(case.text(name, outcome.id).words)
            if outcome.words != count:
                yield f"{_short(name)}: {outcome.id} has {count} words, the evidence says {outcome.words}"


def threat(case: Case) -> Iterator[str]:
    """Every break and every nearest miss lies in its attack's threat set."""
    from grit.bench import lexicons

    for name, outcome in case.scripted:
        reason = case.text(name, outcome.id).violation(outcome.script)
        if reason is not None:
            yield f"{_short(name)}: the {outcome.outcome} script of {outcome.id} is outside the threat: {reason}"
    lexicons.keep()


def effort(case: Case) -> Iterator[str]:
    """An example survived only if something was asked about it, where there was anything to ask."""
    for name, outcomes in case.evidence.attacks.items():
        for outcome in outcomes:
            if outcome.outcome == "survived" and outcome.queries + outcome.gradients == 0:
                text = case.text(name, outcome.id)
                if any(text.candidates(index) for index in range(len(text.words))):
                    yield f"{_short(name)}: {outcome.id} survived without a single question"


def clean(case: Case) -> Iterator[str]:
    """The model answers every untouched text as claimed."""
    for line in case.evidence.clean:
        logits = case.answers[case.examples[line.id].text]
        if problem := _differs(case, logits, line.label, line.predicted, line.margin):
            yield f"{line.id}: {problem}"


def breaks(case: Case) -> Iterator[str]:
    """The model is wrong on every text claimed broken, and says what it is claimed to say."""
    yield from _replayed(case, "broken")


def misses(case: Case) -> Iterator[str]:
    """The model is right on every nearest miss: a script that breaks is no survivor's."""
    yield from _replayed(case, "survived")


def _replayed(case: Case, kind: str) -> Iterator[str]:
    labels = {line.id: line.label for line in case.evidence.clean}
    for name, outcomes in case.evidence.attacks.items():
        for outcome in outcomes:
            if outcome.outcome != kind:
                continue
            logits, label = case.answers[case.joined(name, outcome)], labels[outcome.id]
            margin = margin_of(logits, label)
            if kind == "broken" and int(logits.argmax()) == label and margin < -case.slack(logits):
                yield f"{_short(name)}: {outcome.id} is claimed broken, the model is right on it"
            elif kind == "survived" and int(logits.argmax()) != label and margin > case.slack(logits):
                yield f"{_short(name)}: {outcome.id} is claimed to survive, its own nearest miss breaks it"
            elif problem := _differs(case, logits, label, outcome.predicted, outcome.margin):
                yield f"{_short(name)}: {outcome.id}: {problem}"


def margin_of(logits: np.ndarray, label: int) -> float:
    """Largest other logit minus the gold one: [classes] -> positive if misclassified."""
    others = [float(value) for place, value in enumerate(logits) if place != label]
    return max(others, default=-math.inf) - float(logits[label])


def _differs(case: Case, logits: np.ndarray, label: int, predicted: int, margin: float | None) -> str:
    here, slack = margin_of(logits, label), case.slack(logits)
    if int(logits.argmax()) != predicted and (slack == 0.0 or abs(here) > slack):
        return f"the model answers {int(logits.argmax())}, claimed is {predicted}"
    if margin is None or not math.isfinite(margin) or abs(here - margin) > slack:
        return f"the margin is {here!r}, claimed is {margin!r}"
    return ""


def company(case: Case) -> Iterator[str]:
    """Answers depend neither on the order of the texts, nor on which others are asked, nor on the time of asking."""
    chosen = sorted(case.answers, key=lambda text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    again = case.ask(chosen[:SECOND_LOOK], salt="second")
    for text, logits in again.items():
        if abs(logits - case.answers[text]).max() > case.slack(logits):
            yield "the same text gets another answer in other company: the model depends on batch, order or chance"
            return


def pool(case: Case) -> Iterator[str]:
    """Breaks found for other models are tried on this one. They lower the row: its own attacks missed them."""
    labels = {line.id: line.label for line in case.evidence.clean}
    broken = {
        id
        for id, text in case.crossings
        if int(case.answers[text].argmax()) != labels[id]
        and margin_of(case.answers[text], labels[id]) > case.slack(case.answers[text])
    }
    case.crossed.extend(sorted(broken))
    yield from ()


# --- checks: attack again ---------------------------------------------------------------------------


def twin(case: Case) -> Iterator[str]:
    """The float weights, from which gradients come, are those that were exported."""
    if case.claim.record.artefact.format == "onnx" or case.claim.record.model.origin != "gritbench":
        case.notes.append("no float weights that gritbench's own code could run: attacked without gradients")
        return
    import numpy as np

    from grit.bench import datasets
    from grit.bench.export import build, packing
    from grit.bench.export.floating import FloatArtefact

    model = _float_model(case)
    said, source = case.claim.record.training, _training_data(case)
    if said is not None and source is not None:
        if said.n_train < len(source.train):
            source = dataclasses.replace(source, train=datasets.subset(source.train, said.n_train, source.name))
        if build.deployed(model, build.calibration(source)) == case.bundle.file(submission.ARTEFACT):
            case.notes.append("the deployed bytes were made again from the weights, bit for bit")
            return
    program = model.program()
    if program is None:
        raise CouldNotMeasure("these weights have no program to compare with; verify where they were exported")
    texts = [case.examples[line.id].text for line in case.evidence.clean]
    from grit.bench.export import words as reader

    floats = reader.answer(FloatArtefact(program, "", packing.sizes_bytes(packing.pack(program))), texts).argmax(axis=1)
    fixed = np.array([int(case.answers[text].argmax()) for text in texts])
    agree = float((floats == fixed).mean())
    if agree < TWIN_AGREEMENT:
        yield f"float weights and deployed bytes agree on {agree:.3f} of the examples: they are of two models"
    case.notes.append(f"float weights and deployed bytes agree on {agree:.3f} of the examples")


def _float_model(case: Case) -> Any:
    from grit.bench import checkpoint

    with case.model_files() as folder:
        return checkpoint.load_model(folder)


def spot(case: Case) -> Iterator[str]:
    """A sample of the survivors survives the same attacks again, by the same traces."""
    chosen = drawn(case.bundle.digest, case.setting.nonce, case.survivors, case.setting.spot)
    yield from _attacked_again(case, chosen)


def full(case: Case) -> Iterator[str]:
    """Every example meets the same fate again."""
    yield from _attacked_again(case, [line.id for line in case.evidence.clean])


def drawn(digest: str, nonce: str, ids: Sequence[str], m: int) -> list[str]:
    """The ``m`` ids of the lowest sha256(bundle digest, nonce, id): nobody knows them before the nonce is drawn."""
    return sorted(ids, key=lambda id: hashlib.sha256(f"{digest} {nonce} {id}".encode()).digest())[:m]


def _attacked_again(case: Case, ids: Sequence[str]) -> Iterator[str]:
    from grit.bench import evaluate
    from grit.bench.statistics import upper_bound

    standing, record = set(case.survivors), case.claim.record
    strays = compared = 0
    for part in record.attacks:
        attack = _configured_attack(part)
        claimed = {outcome.id: outcome for outcome in case.evidence.attacks[part.name]}
        examples = [case.examples[id] for id in ids if id in claimed]
        victim, gradients = _victim(case)
        found = evaluate.attack_all(victim, attack, examples, seed=case.claim.seeds.attacks, name=part.name)
        for outcome in found:
            then = claimed[outcome.id]
            if outcome.outcome == "broken" and then.outcome != "broken":
                case.hits.append((part.name, outcome))
                yield f"{part.name} breaks {outcome.id}, which is claimed to have {then.outcome}"
            elif case.claim.determinism.exact and (then.gradients == 0 or gradients):
                compared += then.gradients > 0
                if records.encode_outcomes([outcome]) != records.encode_outcomes([then]):
                    if then.gradients:
                        strays += 1
                    else:
                        yield f"{part.name}: {outcome.id} takes another course than claimed: {_course(then, outcome)}"
            elif outcome.outcome != then.outcome and not case.claim.determinism.exact:
                case.notes.append(f"{part.name}: {outcome.id} is {outcome.outcome} here, {then.outcome} in the claim")
    if strays > RESTLESS * compared:
        if _versions().get("torch") == record.run.versions.get("torch"):
            yield f"{strays} of {compared} attacks by gradient take another course than claimed"
        else:
            case.notes.append(f"{strays} of {compared} attacks by gradient differ: torch is another version here")
    if not case.hits:
        sample = [id for id in ids if id in standing]
        bound = 0.0 if len(sample) == len(standing) else upper_bound(0, len(sample), CONFIDENCE)
        low, n = record.worst.low, record.worst.n
        verified = low / n * (1 - bound) if n else 0.0
        case.floor = Floor(claimed=low, n=n, drawn=len(sample), bound=bound, verified=verified)


def _course(then: Outcome, now: Outcome) -> str:
    name = next(name for name in Outcome.__slots__ if getattr(then, name) != getattr(now, name))
    return f"{name} was {getattr(then, name)!r}, is {getattr(now, name)!r}"


def _victim(case: Case) -> tuple[Any, bool]:
    """A fresh victim, since cache hits are part of the course; and whether it has gradients."""
    from grit.bench.victim import Victim

    if case.claim.record.artefact.format == "onnx" or case.claim.record.model.origin != "gritbench":
        return Victim(case.artefact), False
    from grit.bench.twin import Twin

    return Victim(case.artefact, Twin(_float_model(case))), True


def _configured_attack(part: records.AttackPart) -> Attack:
    """The attack that a record names, if it is still the same attack here."""
    from grit.bench import registry

    key = part.name.partition(":")[0].partition("+")[0].partition(".")[0]
    if key not in registry.names("attacks"):
        raise CouldNotMeasure(f"attack {_short(part.name)} is not installed here")
    attack = registry.attack(part.name)
    if attack.threat.lexicon == "default":  # it was written out, whether or not a space of the threat reads it
        named = dataclasses.replace(attack.threat, lexicon=str(part.threat.get("lexicon")))
        attack = dataclasses.replace(attack, threat=named)  # type: ignore[type-var]  # a dataclass by contract
    if records.plain(attack) != {**part.parameters, "threat": part.threat}:
        raise CouldNotMeasure(f"{part.name} has other parameters in this release: it cannot be repeated")
    return attack


# --- all together -----------------------------------------------------------------------------------


class Stage(NamedTuple):
    level: Level
    code: int  # exit code of what its checks find
    checks: tuple[Check, ...]


STAGES: tuple[Stage, ...] = (
    Stage("lint", 6, (layout, code, sizes, hashes)),
    Stage("lint", 6, (schema,)),
    Stage("lint", 6, (card, artefact, weights, evidence)),
    Stage("replay", 1, (totals, coverage, suite, budget, raised)),
    Stage("replay", 1, (revision, selection)),
    Stage("replay", 1, (trained, vocabulary, words, threat, effort)),
    Stage("replay", 1, (clean, breaks, misses, company, pool)),
    Stage("spot", 1, (twin,)),
    Stage("spot", 1, (spot,)),
    Stage("full", 1, (full,)),
)
CHECKS = tuple(check.__name__ for stage in STAGES for check in stage.checks)
_MOST_REASONS = 5  # of one check in a report
_GRAVITY = (5, 6, 1, 4, 3)


def verify(bundle: Bundle, setting: Setting = Setting(), *, without: frozenset[str] = frozenset()) -> Report:
    """The verdict on a bundle. Whatever is in it, this returns; errors of this machine (a full disk) are raised.

    without: names of checks to leave out; for the tests of the checks.
    """
    if setting.spot < 1:
        raise UsageError(f"a spot check of {setting.spot} survivors proves nothing; give 1 or more")
    started = time.perf_counter()
    case = Case(bundle, setting)
    made: list[str] = []
    findings: list[Finding] = []
    for stage in STAGES:
        if LEVELS.index(stage.level) > LEVELS.index(setting.level) or findings:
            break
        if stage.checks == (spot,) and setting.level == "full":
            continue
        for check in stage.checks:
            if check.__name__ not in without:
                made.append(check.__name__)
                findings += _found(check, stage.code, case)
                if stage.level != "lint" and any(finding.code in (5, 6) for finding in findings):
                    break  # a model that misbehaved is not asked again
    code = min((finding.code for finding in findings), key=_GRAVITY.index, default=0)
    return Report(
        key=key(case),
        code=code,
        says=WORDS[code],
        findings=tuple(findings),
        checks=tuple(made),
        notes=tuple(dict.fromkeys(case.notes)),
        floor=case.floor,
        lowered=_lowered(case) if code == 0 else None,
        hits=tuple(records.encode_outcomes([outcome]).decode().strip() for _, outcome in case.hits),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - started, 3),
    )


def _found(check: Check, code: int, case: Case) -> list[Finding]:
    reasons: list[str] = []
    more = 0
    try:
        for reason in check(case):
            if len(reasons) < _MOST_REASONS:
                reasons.append(reason)
            else:
                more += 1
    except (MalformedInput, SandboxViolation, CouldNotMeasure) as error:
        return [Finding(check=check.__name__, code=error.exit_code, reason=_one_line(str(error)))]
    except UsageError as error:  # a name that the bundle brought, and nobody here knows
        return [Finding(check=check.__name__, code=CouldNotMeasure.exit_code, reason=_one_line(str(error)))]
    if more:
        reasons[-1] += f" (and {more} more like it)"
    return [Finding(check=check.__name__, code=code, reason=_one_line(reason)) for reason in reasons]


def _one_line(reason: str) -> str:
    """A reason may quote a stranger's file: nothing in it may move a terminal's cursor or start a line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(reason.split()))[:600]


def _lowered(case: Case) -> records.Robust | None:
    if not case.crossed:
        return None
    worst = case.claim.record.worst
    gone = len(case.crossed)
    return records.Robust(low=worst.low - gone, high=worst.high - gone, n=worst.n)


def key(case: Case) -> Key:
    """What the verdict on a case depends on."""
    from grit import __version__
    from grit.bench import suites

    setting, lexicon, name = case.setting, "", ""
    revision = suite_sha256 = None
    try:
        name, _, lexicon = case.claim.record.suite.partition("+")
        if setting.level != "lint":
            if name in suites.SUITES:
                _lexicon(lexicon)
                suite_sha256 = suites.digest(suites.load(name), lexicon)
            revision = case.dataset.revision
    except GritError:
        pass  # a bundle that cannot be read, or data that is not here: the report says so
    spotted = setting.level == "spot"
    return Key(
        bundle_sha256=records.digest(case.bundle.files.get(submission.SUMS, b"")),
        level=setting.level,
        suite_sha256=suite_sha256,
        data_revision=revision,
        pool_sha256=pool_digest(setting.pool) if setting.pool else None,
        spot=setting.spot if spotted else None,
        nonce=setting.nonce if spotted else None,
        sandboxed=setting.level == "lint" or setting.respond is sandboxed,
        verifier=__version__,
        versions={} if setting.level == "lint" else dict(_versions()),
    )


@functools.cache
def _versions() -> Mapping[str, str]:
    from grit.bench import machine

    here = machine.versions()
    return {name: here[name] for name in _STANDS_ON if name in here}


_STANDS_ON = ("python", "numpy", "msgspec", "nltk", "onnx", "onnxruntime", "torch")


def pool_digest(pool: Mapping[str, tuple[Script, ...]]) -> str:
    return records.digest(records.encode({id: sorted(pool[id]) for id in sorted(pool)}))


def reusable(old: Report, bundle: Bundle, setting: Setting) -> bool:
    """Whether a verdict holds again: every field of its key is what it would be now.

    A nonce that was not asked for is the old one: a verdict of a spot check stands until it is asked for again.
    """
    if setting.level == "spot" and not setting.nonce and old.key.nonce:
        setting = dataclasses.replace(setting, nonce=old.key.nonce)
    return old.key == key(Case(bundle, setting))


def verify_path(path: Path, setting: Setting, verdict: Path | None = None) -> tuple[Report, bool]:
    """The verdict on a bundle at a path, and whether it is an old one.

    verdict: where an earlier one may lie, and where this one goes. Never a file that came with the bundle.
    """
    bundle = submission.read_bundle(path)
    if verdict is not None and verdict.is_file():
        old = decode(records.read(verdict), str(verdict))
        if reusable(old, bundle, setting):
            return old, True
    if setting.level == "spot" and not setting.nonce:
        setting = dataclasses.replace(setting, nonce=secrets.token_hex(16))
    report = verify(bundle, setting)
    if verdict is not None:
        records.write(verdict, encode(report))
    return report, False


def render(report: Report) -> str:
    """A verdict for people."""
    what = f"bundle {report.key.bundle_sha256[:16]} at level {report.key.level}"
    lines = [f"{report.says}: {what}, {report.seconds:.1f} s"]
    lines += [f"  {finding.check}: {finding.reason}" for finding in report.findings]
    if report.floor is not None:
        floor = report.floor
        lines.append(
            f"  verified floor {floor.verified:.4f}: {floor.claimed} of {floor.n} claimed, {floor.drawn} of them "
            f"attacked again and none broken, so at most {floor.bound:.4f} of them are false"
        )
    if report.lowered is not None:
        lines.append(f"  lowered to {report.lowered.low} of {report.lowered.n} by breaks found for other models")
    lines += [f"  note: {note}" for note in report.notes]
    return "\n".join(lines)
