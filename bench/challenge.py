"""An outsider's break against a row, and the pool of all breaks: what lowers a claim that was never a lie.

An attack that finds nothing says little; somebody else's break says all. A *challenge* is evidence in the form
of every other: edit scripts by example id. Each script is replayed on the row's own deployed bytes, and counts if
one of the row's attacks would have been allowed to make it. What holds joins the *pool* of its dataset, which is
tried on every row from then on; the evidence of the other rows is part of that pool as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from grit.bench import records
from grit.bench.records import Robust, Sha256
from grit.bench.submission import Bundle
from grit.bench.types import MalformedInput, Outcome, Script, Verdict
from grit.bench.verify import Case, Setting, claims, replay, verify
from grit.bench.verify.case import margin
from grit.bench.verify.verdict import less

Pool = Mapping[str, tuple[Script, ...]]
"""Example id -> scripts that broke some model on it."""

_SHOWN = 20  # refusals, to people
_LARGEST_POOL_FILE_BYTES = 64 << 20  # unpacked


class Refused(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: str
    reason: str


class Ruling(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="schema_version", tag=1):
    """What became of a challenge."""

    bundle_sha256: Sha256
    evidence_sha256: Sha256  # of the lines handed in
    code: int  # exit code: 0 if any break holds
    upheld: tuple[str, ...]  # ids that stood, and stand no more
    refused: tuple[Refused, ...]
    before: Robust
    after: Robust
    mode: tuple[str, ...] = ()  # how the model was run


def read_pool(place: Path) -> Pool:
    """The breaks of every evidence file at or below a place: pool files, and whole bundles of other rows.

    Raises MalformedInput, StorageError.
    """
    scripts: dict[str, dict[Script, None]] = {}
    for file in [place] if place.is_file() else sorted(place.rglob("*.jsonl.gz")):
        if file.name != records.CLEAN_EVIDENCE and not file.is_symlink():
            for outcome in _lines(file):
                if outcome.outcome == "broken":
                    scripts.setdefault(outcome.id, {})[outcome.script] = None
    return {id: tuple(sorted(found)) for id, found in sorted(scripts.items())}


def _lines(file: Path) -> tuple[Outcome, ...]:
    return records.decode_outcomes(
        records.decompress(records.read(file), str(file), _LARGEST_POOL_FILE_BYTES), str(file)
    )


def challenge(bundle: Bundle, evidence: Path, setting: Setting) -> tuple[Ruling, bytes]:
    """The ruling on a challenge, and the lines that hold, as the file that joins the pool.

    Raises MalformedInput (a bundle that fails lint, evidence that is none), Verdict (a row that does not even
    hold its examples), CouldNotMeasure (data that is not here), SandboxViolation.
    """
    linted = verify(bundle, Setting(level="lint"))
    if linted.code:
        raise MalformedInput(f"{bundle.where}: {linted.findings[0].reason}")
    handed_in = [outcome for outcome in _lines(evidence) if outcome.outcome == "broken"]  # nothing else says anything
    if not handed_in:
        raise MalformedInput(f"{evidence} holds no line that says broken: hand in evidence of breaks")
    case = Case(bundle, setting)
    for check in (claims.revision, claims.selection):
        for reason in check(case):
            raise Verdict(f"{bundle.where} is refuted without a challenge: {reason}")
    standing = set(case.survivors)
    refused: list[Refused] = []
    texts: dict[str, str] = {}
    for outcome in handed_in:
        if reason := _inadmissible(case, outcome, standing):
            refused.append(Refused(id=outcome.id, reason=reason))
        else:
            texts[outcome.id] = case.text(next(iter(case.threats)), outcome.id).apply(outcome.script)
    answers = case.ask(sorted(set(texts.values())), salt="challenge") if texts else {}
    upheld: list[Outcome] = []
    for outcome in handed_in:
        if outcome.id not in texts:
            continue
        logits, label = answers[texts[outcome.id]], case.labels[outcome.id]
        if replay.is_break(case, logits, label):
            said = int(logits.argmax()), margin(logits, label)  # by the model, whatever the challenger wrote
            upheld.append(Outcome(outcome.id, "broken", outcome.script, *said, words=outcome.words))
        else:
            refused.append(Refused(id=outcome.id, reason="the model is right on the text under this script"))
    worst = case.claim.record.worst
    ruling = Ruling(
        bundle_sha256=bundle.digest,
        evidence_sha256=records.digest(records.encode_outcomes(handed_in)),
        code=0 if upheld else 1,
        upheld=tuple(outcome.id for outcome in upheld),
        refused=tuple(sorted(refused, key=lambda each: each.id)),
        before=worst,
        after=less(worst, len(upheld)),
        mode=tuple(case.notes),
    )
    return ruling, records.encode_outcomes(upheld)


def _inadmissible(case: Case, outcome: Outcome, standing: set[str]) -> str:
    """Why a line cannot lower the row, before the model is asked; or nothing."""
    if outcome.id not in standing:
        return "this example does not stand in the claim"
    reasons = [case.text(name, outcome.id).violation(outcome.script) for name in case.threats]
    if not reasons:
        return "the row claims no attack, so no threat either"
    if None not in reasons:
        return f"outside the threat of every attack of the row: {reasons[0]}"
    return ""


def join(pool: Path, lines: bytes) -> Path:
    """Puts breaks that hold into a pool folder, under the digest of their lines; the file."""
    file = pool / f"{records.digest(lines)[:16]}.jsonl.gz"
    records.write(file, records.compress(lines))
    return file


def encode(ruling: Ruling) -> bytes:
    return records.encode(ruling) + b"\n"


def render(ruling: Ruling) -> str:
    """A ruling for people."""
    held = f"{len(ruling.upheld)} of {len(ruling.upheld) + len(ruling.refused)} breaks hold"
    word = "upheld" if ruling.code == 0 else "not upheld"
    lines = [
        f"challenge {word}: {held}; worst case {ruling.before.low} of {ruling.before.n} becomes {ruling.after.low}",
        *(f"  broken: {id}" for id in ruling.upheld),
        *(f"  refused {each.id}: {each.reason}" for each in ruling.refused[:_SHOWN]),
    ]
    if len(ruling.refused) > _SHOWN:
        lines.append(f"  and {len(ruling.refused) - _SHOWN} more; --json shows all")
    return "\n".join(lines)
