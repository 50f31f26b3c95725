"""Lint: the files are what a bundle is made of, whole and within limits, and say what submission.json says they do.

Nothing is run and no data is needed. A check is a small function with a name; it yields what is wrong, a line each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import UNSET

from grit.bench import records, submission
from grit.bench.submission import EVIDENCE, MODEL
from grit.bench.types import MalformedInput
from grit.bench.verify.case import Case, one_line, short

# --- files --------------------------------------------------------------------------------------------

_TOP = {submission.SUBMISSION, submission.CARD, submission.SUMS}
_MODEL_FILES = {submission.ARTEFACT, *submission.WEIGHTS, *submission.RUNG, *submission.ONNX}
_EVIDENCE_NAME = re.compile(r"evidence/[A-Za-z0-9._+%@~-]+\.jsonl\.gz")
_CODE = (b"\x7fELF", b"MZ", b"#!", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"PK\x03\x04", b"\x80\x02", b"\x80\x03",
         b"\x80\x04", b"\x80\x05")  # programs, archives with programs inside, and pickles  # fmt: skip
_SMALL_BYTES = {
    submission.SUBMISSION: 4 << 20,
    submission.CARD: 1 << 20,
    submission.SUMS: 64 << 10,
    "model/config.json": 1 << 20,
    submission.MADE: 1 << 20,
    "model/tokenizer.json": 1 << 20,
}


def layout(case: Case) -> Iterator[str]:
    """Only the files that a bundle has, under plain names, once each; no link and nothing else that is no file."""
    entries = [entry for entry in case.bundle.entries if entry.name != submission.VERDICT]
    for entry in entries:
        if entry.kind != "file":
            yield f"{short(entry.name)} is a {'link' if entry.kind == 'link' else 'thing that is no file'}"
        elif entry.name not in _TOP | _MODEL_FILES and not _EVIDENCE_NAME.fullmatch(entry.name):
            yield f"{short(entry.name)} has no place in a bundle"
        if len(entry.name) > submission.LONGEST_NAME:
            yield f"{short(entry.name)}... is a name of {len(entry.name)} characters"
    names = [entry.name for entry in entries]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{short(name)} is there twice"
    for name in sorted(_TOP - set(names)):
        yield f"{name} is missing"


def code(case: Case) -> Iterator[str]:
    """No program, no archive of programs, no pickle, whatever its name says."""
    for name, data in case.bundle.files.items():
        if data.startswith(_CODE):
            yield f"{short(name)} begins like a program, an archive or a pickle"


def sizes(case: Case) -> Iterator[str]:
    """No file and no bundle beyond the limits."""
    entries = case.bundle.entries
    for entry in entries:
        limit = _SMALL_BYTES.get(entry.name, submission.LARGEST_FILE_BYTES)
        if entry.size > limit:
            yield f"{short(entry.name)} has {entry.size} bytes, the limit is {limit}"
    total = sum(entry.size for entry in entries)
    if total > submission.LARGEST_BUNDLE_BYTES:
        yield f"the bundle has {total} bytes, the limit is {submission.LARGEST_BUNDLE_BYTES}"
    if len(entries) > submission.MOST_FILES:
        yield f"the bundle has {len(entries)} files, the limit is {submission.MOST_FILES}"


def hashes(case: Case) -> Iterator[str]:
    """SHA256SUMS names every other file, by name, with its sha256."""
    found, expected = case.bundle.file(submission.SUMS), submission.sums(case.bundle.files)
    if found == expected:
        return
    lines, right = set(found.split(b"\n")), expected.decode().splitlines()
    wrong = [line.partition("  ")[2] for line in right if line.encode() not in lines]
    yield f"SHA256SUMS is not the sums of the files{': ' + short(wrong[0]) + ' differs' if wrong else ''}"


# --- what they say ------------------------------------------------------------------------------------


def schema(case: Case) -> Iterator[str]:
    """submission.json is canonical JSON of a known version, with no other keys."""
    yield from (problems := list(_refusal(lambda: case.claim)))
    if not problems and (life := case.claim.life).supersedes is not None:
        case.note(f"{life.status}, in the place of bundle {life.supersedes[:16]}: {one_line(life.reason)}")


def card(case: Case) -> Iterator[str]:
    """README.md says what submission.json says."""
    if case.bundle.file(submission.CARD) != submission.card(case.claim).encode():
        yield "README.md is not the card that 'grit pack' makes of submission.json"


def evidence(case: Case) -> Iterator[str]:
    """Evidence files are canonical, hold what the record's digests name, and no line carries foreign text."""
    if problem := next(_refusal(lambda: case.evidence), None):
        yield problem
        return
    record = case.claim.record
    named = {attack.name: attack.evidence_sha256 for attack in record.attacks}
    files = {name for name in case.bundle.files if name.startswith(EVIDENCE)}
    if files != {EVIDENCE + name for name in (records.CLEAN_EVIDENCE, *map(records.evidence_name, named))}:
        yield f"evidence is there for {', '.join(case.evidence.attacks)}; the record names {', '.join(named)}"
    if records.digest(records.encode_clean(case.evidence.clean)) != record.clean.evidence_sha256:
        yield f"{records.CLEAN_EVIDENCE} is not what the record names by digest"
    for name, outcomes in case.evidence.attacks.items():
        if name in named and records.digest(records.encode_outcomes(outcomes)) != named[name]:
            yield f"{short(name)}: the evidence is not what the record names by digest"
        for outcome in outcomes:
            asked = outcome.trace or outcome.outcome in ("broken", "survived")
            if asked and not _DIGEST.fullmatch(outcome.trace):
                yield f"{short(name)}: the trace of {outcome.id} is no digest"


_DIGEST = re.compile("[0-9a-f]{64}")


def _refusal(read: Callable[[], object]) -> Iterator[str]:
    """What a reader has against its input."""
    try:
        read()
    except MalformedInput as error:
        yield str(error)


# --- the model, read and not run ----------------------------------------------------------------------


def artefact(case: Case) -> Iterator[str]:
    """The deployed bytes are well-formed, and those whose digest and sizes the record names."""
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
    if case.is_program:
        from grit.bench.export import fixed, packing

        data = case.bundle.file(submission.ARTEFACT)
        exact = isinstance(packing.unpack(data), fixed.FixedProgram)
        return records.digest(data), packing.sizes_bytes(data), exact
    from grit.bench.export import onnx

    found = onnx.describe(case.graph)
    if foreign := sorted(found.operators - OPERATORS):
        raise MalformedInput(f"model.onnx uses {short(foreign[0])}, which is not among the operators allowed")
    return found.digest, found.sizes_bytes, found.exact


def weights(case: Case) -> Iterator[str]:
    """The float weights are finite numbers; architecture and configuration, or compression, are those of the record."""
    files, record = case.bundle.files, case.claim.record
    allowed = submission.allowed(record)
    for name in sorted(n for n in files if n.startswith(MODEL) and n not in allowed):
        yield f"{name} does not belong to a model in format {record.artefact.format}"
    if not case.is_program:
        return
    if missing := [name for name in allowed if name not in files]:
        yield f"{missing[0]} is missing"
        return
    if record.compression is not UNSET:
        from grit.bench import compress

        yield from _refusal(lambda: compress.twin_program(files[submission.TWIN]))
        yield from _refusal(lambda: _compressed(files[submission.MADE], record))
        source = record.compression.source[:16]
        case.note(f"compressed by {short(record.steps)} from bytes {source}...: so it says, these did not come along")
        return
    yield from _refusal(lambda: tensors(files["model/model.safetensors"], "model/model.safetensors"))
    yield from _refusal(lambda: _configured(files["model/config.json"], record))
    try:
        lines = files["model/vocabulary.txt"].decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        yield f"model/vocabulary.txt is not UTF-8 (byte {error.start})"
    else:
        if lines.pop() or len(set(lines)) != len(lines):
            yield "model/vocabulary.txt holds a word twice, or ends inside a line"


def tensors(data: bytes, where: str) -> dict[str, tuple[int, ...]]:
    """name -> shape of a safetensors file whose floats are finite. The library accounts for every byte of it."""
    import numpy as np
    import safetensors

    try:
        found = safetensors.deserialize(data)
    except (safetensors.SafetensorError, ValueError) as error:  # ValueError: a number beyond what an array may hold
        raise MalformedInput(f"{where}: not safetensors ({str(error)[:80]}); save the model again") from error
    for name, tensor in found:
        if tensor["dtype"] not in _NUMBERS:
            raise MalformedInput(f"{where}: tensor {short(name)} is of type {tensor['dtype']}; save the model again")
        if not np.isfinite(np.frombuffer(tensor["data"], _NUMBERS[tensor["dtype"]])).all():
            raise MalformedInput(f"{where}: tensor {short(name)} holds NaN or infinite numbers; train again")
    return {name: tuple(tensor["shape"]) for name, tensor in found}


_NUMBERS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "u1",
            "BOOL": "u1"}  # fmt: skip


def _configured(data: bytes, record: records.Record) -> None:
    where = "model/config.json"
    found = records.decoded(data, dict[str, Any], where)
    said = {"model": record.model.name, "config": record.model.config, "classes": len(record.data.labels)}
    for key, expected in said.items():
        if found.get(key) != expected:
            raise MalformedInput(f"{where}: {key} is not that of the record; pack the run again")


def _compressed(data: bytes, record: records.Record) -> None:
    from grit.bench import compress

    found = records.decoded(data, compress.Made, submission.MADE)
    if records.encode(found) + b"\n" != data:
        raise MalformedInput(f"{submission.MADE}: not in canonical form; pack the run again")
    if (found.part, found.precision) != (record.compression, record.artefact.precision):
        raise MalformedInput(f"{submission.MADE}: steps or precision are not those of the record; pack the run again")


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
