"""Bundles that the verifier must accept or refuse, each built from an honest one by what a cheat would do to it.

``GOLDEN`` maps a name to a tampering and the verdict that it must get: exit code and the checks that speak up. The
honest bundles come from runs of seconds on the embedded corpus. A careful cheat makes sums, digests and totals
right again after a change (:func:`put_together`); a careless one does not.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import io
import json
import os
import pickle
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np

from grit.bench import datasets, records, run, submission, verify
from grit.bench.evaluate import margins
from grit.bench.experiment import Experiment, Folder
from grit.bench.export import packing
from grit.bench.sentence import Text
from grit.bench.submission import Bundle, Entry, Submission
from grit.bench.types import Edit, Outcome, SandboxViolation, Threat
from grit.bench.victim import Victim

Files = dict[str, bytes]
PWWS, TYPOS, FLIPS = "pwws.strong+thesaurus", "deepwordbug.strong", "hotflip.strong+thesaurus"
RANDOM = "random_search.strong+thesaurus"


# --- honest bundles ---------------------------------------------------------------------------------


@functools.cache
def _packed(attack: str, n: int) -> Mapping[str, bytes]:
    # Whether the attacks are strong enough is another room's question, and takes longer than all of this.
    with tempfile.TemporaryDirectory() as place, mock.patch("grit.bench.adequacy.checks", lambda *_: ()):
        wanted = Experiment(
            models=("tfidf",),
            schemes=("natural",),
            attacks=(attack,),
            targets=(),
            n=n,
            n_train=300,
            settings=(("epochs", "8"),),
        )
        folder = run.run(wanted, Path(place) / "run", jobs=1, quiet=True).folder
        (row,) = Folder(folder).rows
        return submission.pack(Folder(folder), row)


def honest() -> Files:
    """A row of the pinned suite."""
    return dict(_packed("std@1+thesaurus", 30))


def by_chance() -> Files:
    """A row of an attack whose course depends on its seed."""
    return dict(_packed("random_search+thesaurus", 10))


@dataclass
class Parts:
    """A bundle taken apart, to be tampered with."""

    claim: Submission
    clean: dict[str, records.Clean]
    attacks: dict[str, dict[str, Outcome]]
    model: dict[str, bytes]

    def record(self, **changes: Any) -> None:
        self.claim = msgspec.structs.replace(self.claim, record=msgspec.structs.replace(self.claim.record, **changes))

    def part(self, name: str, /, **changes: Any) -> None:
        """Changes of one part of the record: data, training, artefact, run."""
        self.record(**{name: msgspec.structs.replace(getattr(self.claim.record, name), **changes)})

    def outcome(self, attack: str, id: str, **changes: Any) -> None:
        self.attacks[attack][id] = dataclasses.replace(self.attacks[attack][id], **changes)

    def standing(self, id: str, **changes: Any) -> None:
        """An example made to survive every attack, those of the suite among them that never saw it."""
        words = next(found[id].words for found in self.attacks.values() if id in found)
        for name, found in self.attacks.items():
            if id not in found:
                found[id] = Outcome(id, "skipped", words=words)
            if found[id].outcome != "survived":
                hide(self, name, id, queries=9, cache_hits=0, trace="0" * 64)
            self.outcome(name, id, **changes)

    def of_kind(self, attack: str, kind: str) -> list[str]:
        return [id for id, outcome in self.attacks[attack].items() if outcome.outcome == kind]

    def survivors(self) -> list[str]:
        return [id for id, stands in self.evidence.robust().items() if stands]

    @property
    def evidence(self) -> records.Evidence:
        return records.Evidence(
            tuple(self.clean[id] for id in sorted(self.clean)),
            {name: tuple(found[id] for id in sorted(found)) for name, found in sorted(self.attacks.items())},
        )


def apart(files: Mapping[str, bytes]) -> Parts:
    bundle = of(files)
    return Parts(
        bundle.submission,
        {line.id: line for line in bundle.evidence.clean},
        {name: {outcome.id: outcome for outcome in found} for name, found in bundle.evidence.attacks.items()},
        dict(bundle.model),
    )


def of(files: Mapping[str, bytes]) -> Bundle:
    entries = (Entry(name, "file", len(data), data) for name, data in sorted(files.items()))
    return Bundle("bundle", tuple(entries))


def recounted(parts: Parts) -> Submission:
    """The claim with every count and digest made to fit its evidence and its model."""
    record, evidence = parts.claim.record, parts.evidence
    attacks = []
    for old in record.attacks:
        new = records.attack_part(old.name, {}, evidence.attacks[old.name])
        kept = ("parameters", "threat", "parameters_sha256", "lexicon", "lexicon_sha256")
        attacks.append(msgspec.structs.replace(new, **{name: getattr(old, name) for name in kept}))
    labels = [parts.clean[id].label for id in parts.clean]
    data = msgspec.structs.replace(
        record.data,
        n=len(labels),
        label_counts=tuple(labels.count(label) for label in range(len(record.data.labels))),
    )
    clean = msgspec.structs.replace(
        records.clean_part(evidence.clean, len(data.labels)), calibration_error=record.clean.calibration_error
    )
    bytes_ = parts.model.get("artefact.safetensors", b"")
    artefact = record.artefact
    if records.digest(bytes_) != artefact.digest and bytes_:
        sizes = packing.sizes_bytes(bytes_)
        artefact = msgspec.structs.replace(
            artefact, digest=records.digest(bytes_), sizes_bytes=sizes, total_bytes=sum(sizes.values())
        )
    new_record = msgspec.structs.replace(
        record,
        attacks=tuple(attacks),
        clean=clean,
        data=data,
        worst=records.worst_case(evidence),
        artefact=artefact,
        flags=_flags(record, data, clean, tuple(attacks)),
    )
    return msgspec.structs.replace(parts.claim, record=new_record)


def _flags(
    old: records.Record, data: records.DataPart, clean: records.CleanPart, attacks: tuple[records.AttackPart, ...]
) -> tuple[records.FlagPart, ...]:
    return records.flags(data, clean, attacks, embedded=data.name == datasets.EMBEDDED, checks=old.checks)


def put_together(parts: Parts, *, recount: bool = True) -> Files:
    return submission.files_of(recounted(parts) if recount else parts.claim, parts.model, parts.evidence)


def sealed(files: Files) -> Files:
    """With sums that fit."""
    return {**files, submission.SUMS: submission.sums(files)}


def edited(files: Files, change: Callable[[dict[str, Any]], None]) -> Files:
    """submission.json changed as text, sums made to fit."""
    tree = json.loads(files[submission.SUBMISSION])
    change(tree)
    data = msgspec.json.format(msgspec.json.encode(tree, order="sorted"), indent=1) + b"\n"
    return sealed({**files, submission.SUBMISSION: data})


def lines(files: Files, attack: str, change: Callable[[list[bytes]], list[bytes]]) -> Files:
    """The lines of an evidence file changed; the record names the new digest, sums fit."""
    name = submission.EVIDENCE + records.evidence_name(attack)
    content = b"\n".join(change(gzip.decompress(files[name]).split(b"\n")))

    def named(tree: dict[str, Any]) -> None:
        for part in tree["record"]["attacks"]:
            if part["name"] == attack:
                part["evidence_sha256"] = records.digest(content)

    return edited({**files, name: records.compress(content)}, named)


def answers(parts: Parts, text: str) -> np.ndarray:
    return Victim(packing.artefact(parts.model["artefact.safetensors"])).logits([text])[0]


@functools.cache
def texts() -> Mapping[str, str]:
    return {example.id: example.text for example in datasets.load("pings").test}


# --- what to expect ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Golden:
    """One bundle and its verdict: the exit code, and the checks that find something."""

    build: Callable[[], Files | bytes | tuple[Entry, ...]]
    code: int = 0
    checks: tuple[str, ...] = ()
    level: verify.Level = "replay"
    reason: str = ""  # words that the finding must hold
    responder: Callable[[], verify.Respond] = lambda: verify.unguarded
    pool: Callable[[], Mapping[str, tuple[Any, ...]]] = field(default=dict)
    lowered: int | None = None  # by how many the pool lowers the row
    data: Mapping[str, Callable[[], str]] = field(default_factory=dict)  # files of a data folder
    strength: tuple[records.CheckPart, ...] = ()  # what the checks of the attacks find here


GOLDEN: dict[str, Golden] = {}


def golden(name: str, code: int = 0, *checks: str, **expected: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def enter(build: Callable[[], Any]) -> Callable[[], Any]:
        assert name not in GOLDEN, name
        GOLDEN[name] = Golden(build, code, checks, **expected)
        return build

    return enter


def bundle_of(case: Golden, place: Path) -> Bundle:
    """The bundle of a case; archives are read from a file, so that the reader is under test too."""
    built = case.build()
    if isinstance(built, bytes):
        (place / "bundle.tar").write_bytes(built)
        return submission.read_bundle(place / "bundle.tar")
    return Bundle("bundle", built) if isinstance(built, tuple) else of(built)


# --- good -------------------------------------------------------------------------------------------

for _level in verify.LEVELS:
    golden(f"good, {_level}", level=_level)(honest)
golden("good by chance, full", level="full")(by_chance)


@golden("good archive")
def _() -> bytes:
    return submission.archive(honest())


@golden("good, corrected")
def _() -> Files:
    life = submission.Life(status="corrected", supersedes="0" * 64, reason="a better card")
    return submission.amended(of(honest()), life, adaptive="PWWS with the defence's own synonyms, 3 restarts.")


@golden("good, withdrawn")
def _() -> Files:
    return submission.amended(
        of(honest()), submission.Life(status="withdrawn", supersedes="0" * 64, reason="trained on the wrong split")
    )


@golden("good, an earlier verdict beside it")
def _() -> Files:
    return {**honest(), submission.VERDICT: b'{"code": 0, "says": "believe me"}'}


# --- malformed: files -------------------------------------------------------------------------------


def _with(entry: Entry) -> tuple[Entry, ...]:
    return (*of(honest()).entries, entry)


@golden("a link", 6, "layout", reason="link")
def _() -> tuple[Entry, ...]:
    return _with(Entry("evidence/more.jsonl.gz", "link", 11, b""))


@golden("a device", 6, "layout", reason="no file")
def _() -> tuple[Entry, ...]:
    return _with(Entry("evidence/more.jsonl.gz", "other", 0, b""))


def _slipped(name: str) -> bytes:
    files = honest()
    return submission.archive(sealed({**files, name: b"0 3 * * * root true\n"}))


golden("zip slip", 6, "layout", reason="no place")(lambda: _slipped("../../../etc/cron.d/grit"))
golden("an absolute name", 6, "layout", reason="no place")(lambda: _slipped("/etc/cron.d/grit"))
golden("a name with a line end", 6, "layout", reason="no place")(lambda: _slipped("evidence/a\nb.jsonl.gz"))
golden("code in the model folder", 6, "layout")(lambda: sealed({**honest(), "model/model.py": b"import os\n"}))
golden("a hidden file", 6, "layout")(lambda: sealed({**honest(), ".gitattributes": b"* filter=run\n"}))
golden("another folder", 6, "layout")(lambda: sealed({**honest(), "evidence/deep/x.jsonl.gz": b""}))
golden("no card", 6, "layout", reason="missing")(
    lambda: sealed({name: data for name, data in honest().items() if name != submission.CARD})
)


@golden("a member twice", 6, "layout", "hashes", reason="twice")
def _() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in [*honest().items(), (submission.SUBMISSION, b"{}")]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


@golden("a link in an archive", 6, "layout", reason="link")
def _() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in honest().items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("evidence/labels.jsonl.gz")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return packed.getvalue()


@golden("a pickle in disguise", 6, "code", reason="pickle")
def _() -> Files:
    class Escape:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("true",)

    return sealed({**honest(), "model/model.safetensors": pickle.dumps(Escape())})


golden("a zip in disguise", 6, "code")(
    lambda: sealed({**honest(), "model/model.safetensors": b"PK\x03\x04" + bytes(99)})
)
golden("a script in disguise", 6, "code")(lambda: sealed({**honest(), "model/vocabulary.txt": b"#!/bin/sh\n"}))


@golden("an oversize file", 6, "sizes", "hashes")
def _() -> tuple[Entry, ...]:
    size = submission.LARGEST_FILE_BYTES + 1
    return tuple(
        entry._replace(size=size, data=b"") if entry.name == "model/model.safetensors" else entry
        for entry in of(honest()).entries
    )


golden("an oversize card", 6, "sizes")(lambda: sealed({**honest(), submission.CARD: b"a" * ((1 << 20) + 1)}))


@golden("too much in all", 6, "sizes", "hashes", reason="the bundle has")
def _() -> tuple[Entry, ...]:
    large = ("model/model.safetensors", "model/artefact.safetensors", "model/vocabulary.txt")
    return tuple(
        entry._replace(size=submission.LARGEST_FILE_BYTES, data=b"") if entry.name in large else entry
        for entry in of(honest()).entries
    )


golden("a name without end", 6, "layout", reason="characters")(
    lambda: sealed({**honest(), f"evidence/{'a' * 120}.jsonl.gz": b""})
)
golden("too many files", 6, "sizes")(
    lambda: sealed({**honest(), **{f"evidence/a{k}.jsonl.gz": b"" for k in range(submission.MOST_FILES)}})
)


@golden("a wrong hash", 6, "hashes", reason="differs")
def _() -> Files:
    files = honest()
    return {**files, submission.SUMS: files[submission.SUMS].replace(b"0", b"1", 1)}


@golden("bytes changed after the sums", 6, "hashes", reason="SHA256SUMS")
def _() -> Files:
    files = honest()
    data = bytearray(files["model/artefact.safetensors"])
    data[-1] ^= 1
    return {**files, "model/artefact.safetensors": bytes(data)}


@golden("a file that the sums leave out", 6, "hashes")
def _() -> Files:
    files = honest()
    kept = [line for line in files[submission.SUMS].splitlines(True) if b"vocabulary" not in line]
    return {**files, submission.SUMS: b"".join(kept)}


# --- malformed: submission.json ---------------------------------------------------------------------


def _set(*path: str | int, to: Any) -> Callable[[], Files]:
    def change(tree: Any) -> None:
        for key in path[:-1]:
            tree = tree[key]
        tree[path[-1]] = to

    return lambda: edited(honest(), change)


golden("an unknown key", 6, "schema", reason="unknown field")(_set("colour", to="blue"))
golden("an unknown key deep inside", 6, "schema", reason="unknown field")(_set("record", "clean", "bonus", to=3))
golden("a percent string", 6, "schema")(_set("record", "worst", "low", to="97 %"))
golden("a ratio for a count", 6, "schema")(_set("record", "worst", "low", to=0.97))
golden("a negative count", 6, "schema")(_set("record", "clean", "k", to=-1))
golden("more than all", 6, "schema", reason="of")(_set("record", "clean", "k", to=31))
golden("a newer schema", 6, "schema", reason="schema_version 2")(_set("schema_version", to=2))
golden("no schema", 6, "schema")(lambda: edited(honest(), lambda tree: tree.pop("schema_version")))
golden("an empty adaptive statement", 6, "schema")(_set("adaptive", to=""))
golden("a loose tolerance", 6, "schema")(_set("determinism", to={"exact": False, "logit_tolerance": 100.0}))
golden("withdrawn without a reason", 6, "schema")(
    _set("life", to={"status": "withdrawn", "supersedes": "0" * 64, "reason": ""})
)
golden("fewer runs than reported", 6, "schema")(
    _set("seeds", to={"attacks": 0, "training": 0, "reported": [0, 1, 2], "runs": 1})
)
golden("a command with local paths", 6, "schema")(_set("record", "run", "command", to="grit run -o /home/me"))


def _as_text(old: bytes, new: bytes) -> Callable[[], Files]:
    def build() -> Files:
        files = honest()
        assert old in files[submission.SUBMISSION]
        return sealed({**files, submission.SUBMISSION: files[submission.SUBMISSION].replace(old, new, 1)})

    return build


golden("NaN", 6, "schema")(_as_text(b'"calibration_error": 0.', b'"calibration_error": NaN, "x": 0.'))
golden("a key twice", 6, "schema", reason="canonical")(
    _as_text(b'{\n "adaptive"', b'{\n "adaptive": "x",\n "adaptive"')
)
golden("white space", 6, "schema", reason="canonical")(_as_text(b"{\n ", b"{\n  "))
golden("not UTF-8", 6, "schema")(_as_text(b'"adaptive": "', b'"adaptive": "\xff'))
golden("nested without end", 6, "schema")(
    lambda: sealed({**honest(), submission.SUBMISSION: b'{"schema_version": 1, "record": ' + b"[" * 200_000})
)
golden("a card that boasts", 6, "card")(
    lambda: sealed({**honest(), submission.CARD: honest()[submission.CARD] + b"\nThe best model there is.\n"})
)


# --- malformed: the model ---------------------------------------------------------------------------


def _model(name: str, change: Callable[[bytes], bytes]) -> Callable[[], Files]:
    return lambda: sealed({**honest(), name: change(honest()[name])})


golden("a cut artefact", 6, "artefact")(_model("model/artefact.safetensors", lambda data: data[:-9]))
golden("a swapped artefact", 6, "artefact", reason="digest")(
    lambda: sealed({**honest(), "model/artefact.safetensors": by_chance_artefact()})
)
golden("a model said to be smaller", 6, "artefact", reason="sizes")(
    lambda: _resized({"embedding": 1, "vocabulary": 1, "body": 0, "head": 1, "header": 1})
)


def by_chance_artefact() -> bytes:
    """Another well-formed artefact: one weight of the head off by one."""
    return _nudged(honest()["model/artefact.safetensors"])


def _nudged(data: bytes) -> bytes:
    program: Any = packing.unpack(data)
    bias = program.head.bias.copy()
    bias[0] += 1 << program.head.shift
    return packing.pack(dataclasses.replace(program, head=dataclasses.replace(program.head, bias=bias)))


def _resized(sizes: dict[str, int]) -> Files:
    parts = apart(honest())
    parts.part("artefact", sizes_bytes=sizes, total_bytes=sum(sizes.values()))
    return put_together(parts, recount=False)


@golden("said to be inexact", 6, "artefact", reason="exact")
def _() -> Files:
    parts = apart(honest())
    parts.claim = msgspec.structs.replace(
        parts.claim,
        determinism=submission.Determinism(exact=False, logit_tolerance=1e-3),
        record=msgspec.structs.replace(
            parts.claim.record, artefact=msgspec.structs.replace(parts.claim.record.artefact, logit_tolerance=1e-3)
        ),
    )
    return put_together(parts, recount=False)


def _safetensors(header: Mapping[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


_WEIGHTS = "model/model.safetensors"
golden("NaN weights", 6, "weights", reason="NaN")(_model(_WEIGHTS, lambda data: data[:-4] + b"\xff\xff\xff\x7f"))
golden("an oversize header", 6, "weights", reason="not safetensors")(
    _model(_WEIGHTS, lambda data: (1 << 62).to_bytes(8, "little") + data[8:])
)
golden("overlapping tensors", 6, "weights", reason="not safetensors")(
    _model(
        _WEIGHTS,
        lambda _: _safetensors(
            {name: {"dtype": "I8", "shape": [4], "data_offsets": [0, 4]} for name in ("a", "b")}, bytes(4)
        ),
    )
)
golden("numbers of a strange type", 6, "weights", reason="F8_E4M3")(
    _model(
        _WEIGHTS,
        lambda _: _safetensors({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, bytes(4)),
    )
)
golden("a vocabulary of bytes", 6, "weights", reason="UTF-8")(
    _model("model/vocabulary.txt", lambda data: data + b"\xff\n")
)
golden("bytes behind the tensors", 6, "weights", reason="not safetensors")(
    _model(_WEIGHTS, lambda data: data + bytes(8))
)
golden("another architecture", 6, "weights", reason="model")(
    _model("model/config.json", lambda data: data.replace(b'"tfidf"', b'"student"'))
)
golden("a word twice", 6, "weights", reason="twice")(
    _model("model/vocabulary.txt", lambda data: data + b"twice\ntwice\n")
)
golden("no weights", 6, "weights", reason="missing")(
    lambda: sealed({name: data for name, data in honest().items() if name != _WEIGHTS})
)
golden("a graph beside a program", 6, "weights", reason="does not belong")(
    lambda: sealed({**honest(), "model/model.onnx": b"\x08\x07"})
)


# --- malformed: evidence ----------------------------------------------------------------------------

golden("a line twice", 6, "evidence", reason="twice")(lambda: lines(honest(), PWWS, lambda found: [found[0], *found]))
golden("lines out of order", 6, "evidence", reason="order")(
    lambda: lines(honest(), PWWS, lambda found: [found[1], found[0], *found[2:]])
)
golden("NaN in evidence", 6, "evidence")(
    lambda: lines(honest(), PWWS, lambda found: [found[0].replace(b'"margin":', b'"margin":NaN,"m":'), *found[1:]])
)
golden("an unknown key in evidence", 6, "evidence")(
    lambda: lines(honest(), PWWS, lambda found: [found[0][:-1] + b',"z":1}', *found[1:]])
)
golden("evidence cut off", 6, "evidence")(lambda: lines(honest(), PWWS, lambda found: [*found[:-2], found[-2][:20]]))
golden("evidence of nothing", 6, "evidence")(lambda: lines(honest(), PWWS, lambda found: [b"null", *found]))
golden("a number too large", 6, "evidence")(
    lambda: lines(honest(), PWWS, lambda f: [f[0].replace(b'"queries":', b'"queries":9' + b"9" * 5000), *f[1:]])
)


@golden("other evidence than the record names", 6, "evidence", reason="digest")
def _() -> Files:
    files, name = honest(), submission.EVIDENCE + records.evidence_name(PWWS)
    other = gzip.decompress(files[name]).split(b"\n")
    return sealed({**files, name: records.compress(b"\n".join(other[1:]))})


@golden("other clean answers than the record names", 6, "evidence", reason="clean.jsonl.gz is not")
def _() -> Files:
    files, name = honest(), submission.EVIDENCE + records.CLEAN_EVIDENCE
    return sealed({**files, name: records.compress(b"\n".join(gzip.decompress(files[name]).split(b"\n")[1:]))})


@golden("evidence of an attack that is not claimed", 6, "evidence", reason="the record names")
def _() -> Files:
    files = honest()
    return sealed({**files, "evidence/more.jsonl.gz": files[submission.EVIDENCE + records.evidence_name(PWWS)]})


@golden("a text in the place of a trace", 6, "evidence", reason="trace")
def _() -> Files:
    parts = apart(honest())
    id = parts.of_kind(PWWS, "broken")[0]
    parts.outcome(PWWS, id, trace=texts()[id])
    return put_together(parts)


@golden("a gzip bomb", 6, "evidence", reason="unpacks")
def _() -> Files:
    files, name = honest(), submission.EVIDENCE + records.CLEAN_EVIDENCE
    return sealed({**files, name: gzip.compress(bytes(submission.LARGEST_FILE_BYTES + 1), 9)})


# --- cheating: claims -------------------------------------------------------------------------------


@golden("a claim that does not add up", 1, "totals", reason="worst case")
def _() -> Files:
    parts = apart(honest())
    record = parts.claim.record

    def better(robust: records.Robust) -> records.Robust:
        return records.Robust(low=robust.low + 1, high=robust.high + 1, n=robust.n)

    attacks = tuple(
        msgspec.structs.replace(
            part, robust=better(part.robust), success=records.Count(k=part.success.k - 1, n=part.success.n)
        )
        for part in record.attacks
    )
    parts.record(attacks=attacks, worst=better(record.worst))
    return put_together(parts, recount=False)


@golden("more right before any attack", 1, "totals", reason="clean")
def _() -> Files:
    parts = apart(honest())
    parts.part("clean", k=parts.claim.record.clean.k + 1)
    return put_together(parts, recount=False)


@golden("fewer queries than the evidence", 1, "totals", reason="queries")
def _() -> Files:
    def change(tree: dict[str, Any]) -> None:
        tree["record"]["attacks"][0]["queries"] -= 1

    files = edited(honest(), change)
    return put_together(apart(files), recount=False)


@golden("a survivor dropped", 1, "coverage", reason="still stands")
def _() -> Files:
    parts = apart(honest())
    del parts.attacks[PWWS][parts.survivors()[0]]
    return put_together(parts)


@golden("skipped what was answered rightly", 1, "coverage", reason="skipped")
def _() -> Files:
    parts = apart(honest())
    id = parts.of_kind(PWWS, "broken")[0]
    parts.outcome(PWWS, id, outcome="skipped", script=(), queries=0, gradients=0, cache_hits=0)
    return put_together(parts)


golden("a wrong suite digest", 4, "suite", reason="another release")(
    lambda: put_together(apart(_set("record", "suite_sha256", to="0" * 64)()), recount=False)
)
golden("parameters under another digest", 1, "suite", reason="parameters_sha256")(
    lambda: put_together(apart(_set("record", "attacks", 0, "parameters_sha256", to="0" * 64)()), recount=False)
)


@golden("a weaker attack under the suite's name", 1, "suite", reason="parameters")
def _() -> Files:
    def change(tree: dict[str, Any]) -> None:
        for part in tree["record"]["attacks"]:
            part["threat"]["max_queries"] = 4000
            fields = {**part["parameters"], "threat": part["threat"]}
            part["parameters_sha256"] = records.digest(records.encode(fields))

    return put_together(apart(edited(honest(), change)), recount=False)


@golden("an attack of the suite left out", 1, "suite", reason="other attacks")
def _() -> Files:
    parts = apart(honest())
    del parts.attacks[FLIPS]
    parts.record(attacks=tuple(part for part in parts.claim.record.attacks if part.name != FLIPS))
    return put_together(parts)


@golden("beyond the budget", 1, "budget", reason="budget")
def _() -> Files:
    parts = apart(honest())
    parts.outcome(PWWS, parts.survivors()[0], queries=5001)
    return put_together(parts)


@golden("more answers remembered than asked for", 1, "budget", reason="cache hits")
def _() -> Files:
    parts = apart(honest())
    id = parts.survivors()[0]
    parts.outcome(PWWS, id, cache_hits=parts.attacks[PWWS][id].queries + 1)
    return put_together(parts)


@golden("a flag taken down", 1, "raised", reason="small")
def _() -> Files:
    parts = apart(honest())
    kept = tuple(flag for flag in parts.claim.record.flags if flag.name != "small")
    parts.record(flags=kept)
    return put_together(parts, recount=False)


@golden("runs made and not shown", 1, "raised", reason="'runs'")
def _() -> Files:
    parts = apart(honest())
    parts.claim = msgspec.structs.replace(parts.claim, seeds=msgspec.structs.replace(parts.claim.seeds, runs=9))
    return put_together(parts)


golden("an unknown suite", 4, "suite", reason="none of this release")(
    lambda: put_together(apart(_set("record", "suite", to="std@9+thesaurus")()), recount=False)
)
golden("another lexicon", 4, "suite", reason="lexicon")(
    lambda: put_together(apart(_set("record", "attacks", 1, "lexicon_sha256", to="0" * 64)()), recount=False)
)
golden("somebody's file as a lexicon", 4, "suite", reason="somebody")(
    lambda: put_together(apart(_set("record", "suite", to="std@1+../lexicon.json")()), recount=False)
)


# --- cheating: data ---------------------------------------------------------------------------------

golden("another revision of the data", 4, "revision", reason="revision")(
    lambda: put_together(apart(_set("record", "data", "revision", to="0" * 64)()), recount=False)
)
golden("data that is not here", 4, "revision", "selection", reason="not here")(
    lambda: put_together(apart(_set("record", "data", "name", to="nonesuch")()), recount=False)
)
golden("a path for data", 4, "revision", "selection", reason="not here")(
    lambda: put_together(apart(_set("record", "data", "name", to="/etc/shadow.csv")()), recount=False)
)
golden("another licence of the data", 1, "revision", reason="licence")(
    lambda: put_together(apart(_set("record", "data", "licence", to="public domain")()), recount=False)
)


@golden("the easy examples", 1, "selection", reason="not among")
def _() -> Files:
    """True evidence, of examples that the author picked."""
    parts = apart(honest())
    for id in sorted(set(parts.clean) - set(parts.survivors()))[-4:]:
        del parts.clean[id]
        for found in parts.attacks.values():
            found.pop(id, None)
    return put_together(parts)


@golden("a label that suits the model", 1, "selection", reason="label")
def _() -> Files:
    parts = apart(honest())
    id = parts.of_kind(PWWS, "skipped")[0]
    old = parts.clean[id]
    assert old.margin is not None
    parts.clean[id] = msgspec.structs.replace(old, label=old.predicted, margin=-old.margin)
    parts.standing(id)
    return put_together(parts)


golden("another split", 1, "selection", reason="test split")(
    lambda: put_together(apart(_set("record", "data", "split", to="dev")()), recount=False)
)
golden("labels counted wrongly", 1, "selection", reason="label_counts")(
    lambda: put_together(apart(_set("record", "data", "label_counts", to=[30, 0])()), recount=False)
)
golden("another rule of selection", 1, "selection", reason="rule")(
    lambda: put_together(apart(_set("record", "data", "selection", to="all")()), recount=False)
)
golden("another licence of the training data", 1, "trained", reason="licence")(
    lambda: put_together(apart(_set("record", "training", "licence", to="MIT")()), recount=False)
)
golden("more training data than there is", 1, "trained", reason="trained on")(
    lambda: put_together(apart(_set("record", "training", "n_train", to=10**6)()), recount=False)
)


def _leak() -> str:
    """A training set that holds the texts of pings, the test split among them, shouted."""
    pings = datasets.load("pings")
    rows = [{"text": example.text.upper(), "label": pings.labels[example.label]} for example in pings.test]
    rows += [{"text": example.text, "label": pings.labels[example.label]} for example in pings.train]
    return "".join(json.dumps(row) + "\n" for row in rows)


@golden("test texts in other training data", 1, "trained", reason="overlap", data={"leaky.jsonl": _leak})
def _() -> Files:
    leaky = datasets.load("leaky")
    parts = apart(honest())
    parts.part("training", data="leaky", revision=leaky.revision, licence=leaky.licence, n_train=len(leaky.train))
    return put_together(parts)


@golden("test rows in training", 1, "vocabulary", reason="evaluated texts")
def _() -> Files:
    """A vocabulary with words of the test split, read like the unknown word, so that no answer changes."""
    parts = apart(honest())
    program: Any = packing.unpack(parts.model["artefact.safetensors"])
    known = set(program.vocabulary)
    new = sorted({word for id in parts.clean for word in texts()[id].lower().split() if word.isalpha()} - known)
    table = np.concatenate([program.words.table, np.repeat(program.words.table[:1], len(new), axis=0)])
    parts.model["artefact.safetensors"] = packing.pack(
        dataclasses.replace(
            program,
            vocabulary=(*program.vocabulary, *new),
            words=dataclasses.replace(program.words, table=table),
        )
    )
    return put_together(parts)


# --- cheating: evidence -----------------------------------------------------------------------------


@golden("a wrong count of words", 1, "words")
def _() -> Files:
    parts = apart(honest())
    id = parts.of_kind(PWWS, "skipped")[0]
    parts.outcome(PWWS, id, words=parts.attacks[PWWS][id].words + 1)
    return put_together(parts)


def _break(parts: Parts, attack: str, id: str, script: Sequence[Edit]) -> None:
    """A break as the model would really answer it."""
    text = Text(texts()[id], Threat()).apply(tuple(script))
    logits, label = answers(parts, text), parts.clean[id].label
    assert int(logits.argmax()) != label
    parts.outcome(
        attack,
        id,
        outcome="broken",
        script=tuple(script),
        predicted=int(logits.argmax()),
        margin=float(margins(logits[None], label)[0]),
    )


def _foreign_word(parts: Parts, id: str) -> list[Edit]:
    """One word replaced by whatever drives the model most to the other label, synonym or not."""
    words = Text(texts()[id], Threat()).words
    program: Any = packing.unpack(parts.model["artefact.safetensors"])
    label = parts.clean[id].label
    pull = program.words.table[:, 1 - label].astype(int) - program.words.table[:, label]
    word = program.vocabulary[int(pull.argmax())]
    return [Edit("replace", index, word) for index in range(len(words)) if words[index] != word]


@golden("breaks outside the threat set", 1, "threat", reason="outside the threat")
def _() -> Files:
    parts = apart(honest())
    id = parts.survivors()[0]
    _break(parts, PWWS, id, _foreign_word(parts, id))
    return put_together(parts)


def _of_its_own_words() -> Parts:
    """A row of an attack that may write any word that the model knows."""
    parts = apart(by_chance())
    (part,) = parts.claim.record.attacks
    spaces = [*part.threat["spaces"], "vocabulary"]
    threat = {**part.threat, "spaces": spaces, "max_words": 1.0, "protect_stop_words": False}
    digest = records.digest(records.encode({**part.parameters, "threat": threat}))
    parts.record(attacks=(msgspec.structs.replace(part, threat=threat, parameters_sha256=digest),))
    return parts


@golden("breaks by words of the model's own vocabulary")
def _() -> Files:
    parts = _of_its_own_words()
    id = parts.survivors()[0]
    _break(parts, RANDOM, id, _foreign_word(parts, id))
    return put_together(parts)


@golden("breaks by a word that the model does not know", 1, "threat", reason="in none of")
def _() -> Files:
    parts = _of_its_own_words()
    id = parts.survivors()[0]
    script = _foreign_word(parts, id)
    _break(parts, RANDOM, id, [*script[:-1], script[-1]._replace(word="unheardof")])
    return put_together(parts)


@golden("a near miss outside the threat set", 1, "threat", reason="survived script")
def _() -> Files:
    parts = apart(honest())
    id = parts.survivors()[0]
    text = Text(texts()[id], Threat())
    script = (Edit("delete", 0),)
    logits, label = answers(parts, text.apply(script)), parts.clean[id].label
    assert int(logits.argmax()) == label
    parts.outcome(PWWS, id, script=script, margin=float(margins(logits[None], label)[0]))
    return put_together(parts)


def hide(parts: Parts, attack: str, id: str, **changes: Any) -> None:
    """A break made a survivor, nothing of it left but its cost."""
    clean = parts.clean[id]
    kept = {"outcome": "survived", "script": (), "predicted": clean.predicted, "margin": clean.margin}
    parts.outcome(attack, id, **{**kept, **changes})


def _hidden() -> tuple[Parts, str]:
    """A bundle in which one broken example is claimed to survive everything, and the id."""
    parts = apart(honest())
    id = parts.of_kind(TYPOS, "broken")[0]
    parts.standing(id)
    return parts, id


@golden("a truncated attack", 1, "effort", reason="without a single question")
def _() -> Files:
    parts = apart(honest())
    for id in parts.of_kind(PWWS, "broken"):
        parts.standing(id)
        hide(parts, PWWS, id, queries=0, gradients=0, cache_hits=0, trace=records.digest(b""))
    return put_together(parts)


@golden("an edited outcome", 1, "misses", reason="nearest miss breaks it")
def _() -> Files:
    parts = apart(honest())
    id = parts.of_kind(PWWS, "broken")[0]
    script, margin = parts.attacks[PWWS][id].script, parts.attacks[PWWS][id].margin
    parts.standing(id)
    parts.outcome(PWWS, id, script=script, margin=margin, predicted=1 - parts.clean[id].label)
    return put_together(parts)


@golden("an edited margin of a break", 1, "breaks", reason="margin")
def _() -> Files:
    parts = apart(honest())
    id = parts.of_kind(PWWS, "broken")[0]
    parts.outcome(PWWS, id, margin=parts.attacks[PWWS][id].margin / 2)
    return put_together(parts)


@golden("a break that is none", 1, "breaks", reason="right on it")
def _() -> Files:
    parts = apart(honest())
    id = next(id for id in parts.survivors() if parts.attacks[FLIPS][id].script)
    parts.outcome(FLIPS, id, outcome="broken", predicted=1 - parts.clean[id].label, margin=0.5)
    return put_together(parts)


@golden("an edited clean answer", 1, "clean", reason="margin")
def _() -> Files:
    parts = apart(honest())
    id = parts.of_kind(PWWS, "skipped")[0]
    parts.clean[id] = msgspec.structs.replace(parts.clean[id], margin=1.5)
    return put_together(parts)


@golden("a wrong answer called right", 1, "clean", "misses", reason="answers")
def _() -> Files:
    parts = apart(honest())
    id = parts.of_kind(PWWS, "skipped")[0]
    label = parts.clean[id].label
    parts.clean[id] = msgspec.structs.replace(parts.clean[id], predicted=label, margin=-0.5)
    parts.standing(id)
    return put_together(parts)


@golden("swapped weights, digests made to fit", 1, "clean", "breaks", "misses")
def _() -> Files:
    parts = apart(honest())
    parts.model["artefact.safetensors"] = by_chance_artefact()
    return put_together(parts)


def _moody() -> verify.Respond:
    """Answers as claimed when it is asked for the first time, and never again."""
    asked: list[int] = []

    def respond(artefact: Path, texts: Sequence[str]) -> verify.Answered:
        asked.append(len(texts))
        answered = verify.unguarded(artefact, texts)
        return answered._replace(logits=answered.logits + 0.25 * (len(asked) - 1))

    return respond


def _violating() -> verify.Respond:
    def respond(artefact: Path, texts: Sequence[str]) -> verify.Answered:
        raise SandboxViolation("the model asked for the network")

    return respond


def _of_other_classes() -> verify.Respond:
    def respond(artefact: Path, texts: Sequence[str]) -> verify.Answered:
        return verify.Answered(np.zeros((len(texts), 7)), "none", "")

    return respond


golden("another answer in other company", 1, "company", reason="batch", responder=_moody)(honest)
golden("a model that breaks out", 5, "clean", reason="network", responder=_violating)(honest)
golden("logits of other classes", 6, "clean", reason="labels", responder=_of_other_classes)(honest)


# --- cheating: what only a second attack finds ------------------------------------------------------

golden("a hidden break, replay", 0)(lambda: put_together(_hidden()[0]))
golden("a hidden break, spot", 1, "spot", level="spot", reason="breaks")(lambda: put_together(_hidden()[0]))


def _pool() -> Mapping[str, tuple[Any, ...]]:
    parts, id = apart(honest()), _hidden()[1]
    return {id: (parts.attacks[TYPOS][id].script,)}


golden("a hidden break, found by the pool", 0, pool=_pool, lowered=1)(lambda: put_together(_hidden()[0]))


@golden("an attack cut short, spot", 1, "spot", level="spot", reason="another course")
def _() -> Files:
    parts = apart(honest())
    for id in parts.survivors():
        hide(parts, TYPOS, id, queries=3, cache_hits=0, trace=records.digest(b"S"))
    return put_together(parts)


@golden("a picked seed, spot", 1, "spot", level="spot", reason="another course")
def _() -> Files:
    parts = apart(by_chance())
    parts.claim = msgspec.structs.replace(
        parts.claim, seeds=submission.Seeds(attacks=7, training=0, reported=(0,), runs=1)
    )
    return put_together(parts)


@golden("float weights of another model", 1, "twin", level="spot", reason="two models")
def _() -> Files:
    parts = apart(honest())
    size = int.from_bytes(parts.model["model.safetensors"][:8], "little")
    header, data = parts.model["model.safetensors"][: 8 + size], parts.model["model.safetensors"][8 + size :]
    parts.model["model.safetensors"] = header + (-np.frombuffer(data, "<f4")).tobytes()
    return put_together(parts)


@golden("a break said to be dearer, full", 1, "full", level="full", reason="another course")
def _() -> Files:
    parts = apart(honest())
    id = parts.of_kind(PWWS, "broken")[0]
    parts.outcome(PWWS, id, queries=parts.attacks[PWWS][id].queries + 100)
    return put_together(parts)


golden(
    "a check of the attacks left out, full",
    1,
    "strength",
    level="full",
    reason="is missing",
    strength=(records.CheckPart(check="scale", attack=PWWS, k=4, n=5, lost=1),),
)(honest)


@golden("a black box said to use gradients, spot", 1, "spot", level="spot", reason="gradients was 3, is 0")
def _() -> Files:
    """Traces of gradients may differ between builds of torch; so may nothing else."""
    parts = apart(honest())
    for id in parts.survivors():
        parts.outcome(PWWS, id, gradients=3, trace="0" * 64)
    return put_together(parts)


@golden("a break said to be dearer, spot", 0, level="spot")
def _() -> Files:
    return GOLDEN["a break said to be dearer, full"].build()  # type: ignore[return-value]


@golden("an attack that is not here", 4, "suite", reason="lexicon", level="spot")
def _() -> Files:
    def change(tree: dict[str, Any]) -> None:
        attack = tree["record"]["attacks"][0]
        attack["threat"]["lexicon"] = attack["lexicon"] = "nonesuch"
        whole = {**attack["parameters"], "threat": attack["threat"]}
        attack["parameters_sha256"] = records.digest(records.encode(whole))

    return put_together(apart(edited(honest(), change)), recount=False)


# --- graphs instead of programs ---------------------------------------------------------------------


def graph(change: Callable[[Any], None] = lambda model: None, **files: bytes) -> Files:
    """The honest row with its program as an ONNX graph: the same logits, and no float weights."""
    import onnx

    from grit.bench.export import onnx as export

    parts = apart(honest())
    program: Any = packing.unpack(parts.model["artefact.safetensors"])
    model = dict(export.files(program))
    proto = onnx.ModelProto.FromString(model["model.onnx"])
    change(proto)
    model["model.onnx"] = proto.SerializeToString(deterministic=True)
    model |= {name.replace("_", "."): data for name, data in files.items()}
    lines = [f"{records.digest(data)}  {name}\n" for name, data in sorted(model.items())]
    sizes = {name.partition(".")[0]: len(data) for name, data in sorted(model.items())}
    parts.part(
        "artefact",
        format="onnx",
        digest=records.digest("".join(lines).encode()),
        sizes_bytes=sizes,
        total_bytes=sum(sizes.values()),
    )
    parts.model = model
    return put_together(parts, recount=False)


def _foreign(model: Any) -> None:
    import onnx

    node = model.graph.node.add()
    node.CopyFrom(onnx.helper.make_node("RandomUniform", [], ["noise"], shape=[1]))


def _reading_files(model: Any) -> None:
    from onnx import TensorProto

    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"


def _of_a_domain(model: Any) -> None:
    model.graph.node[0].domain = "com.example.evil"
    model.opset_import.add(domain="com.example.evil", version=1)


golden("good, a graph")(graph)
golden("good, a graph, spot", level="spot")(graph)
golden("an operator that is not allowed", 6, "artefact", reason="operator")(lambda: graph(_foreign))
golden("a graph with data elsewhere", 6, "artefact", reason="outside")(lambda: graph(_reading_files))
golden("a graph with a domain of its own", 6, "artefact", reason="com.example.evil")(lambda: graph(_of_a_domain))
golden("a graph that is none", 6, "artefact")(lambda: graph(model_onnx=b"\x00\x01\x02"))
golden("a tokenizer of code", 6, "artefact", reason="tokenizer")(
    lambda: graph(tokenizer_json=b'{"format": "gritbench.tokenizer", "tokenizer": "import os"}')
)
golden("weights beside a graph", 6, "weights", reason="does not belong")(
    lambda: sealed({**graph(), "model/config.json": b"{}"})
)


# --- what later releases must still read ------------------------------------------------------------


def _keep(folder: Path) -> None:
    """The documents of the present schema versions: an honest bundle, its verdict, and a ruling on a dishonest one."""
    from grit.bench import challenge

    parts = apart(honest())
    parts.part("run", created="2026-01-01T00:00:00+00:00", seconds={}, machine={}, versions={})
    files = put_together(parts, recount=False)
    (folder / f"bundle-{submission.VERSIONS[-1]}.tar").write_bytes(submission.archive(files))
    setting = verify.Setting(level="spot", respond=verify.unguarded, spot=2, nonce="of the day")
    (folder / "verdict-1.json").write_bytes(verify.encode(verify.verify(of(files), setting)))
    hiding, id = _hidden()
    with tempfile.TemporaryDirectory() as place:
        evidence = Path(place) / "found.jsonl.gz"
        evidence.write_bytes(records.compress(records.encode_outcomes([apart(honest()).attacks[TYPOS][id]])))
        ruling, _ = challenge.challenge(of(put_together(hiding)), evidence, setting)
    (folder / "ruling-1.json").write_bytes(challenge.encode(ruling))


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
