"""What comes out: a report for people and for programs, and when an earlier one still holds.

A verdict is kept as verdict.json. It is keyed by all that it depends on, and used again only where every field of the
key is what it would be now.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from grit.bench import records, submission
from grit.bench.records import Sha256
from grit.bench.submission import Bundle
from grit.bench.types import GritError, Script
from grit.bench.verify.case import Case, Level, Sandboxed, Setting

WORDS = {
    0: "verified",
    1: "refuted",
    3: "inconclusive",
    4: "could not measure",
    5: "sandbox violation",
    6: "malformed",
}


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
    sandbox: str | None  # the weakest mode that would have done; "none": unguarded; None: nothing is run
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


def less(worst: records.Robust, broken: int) -> records.Robust:
    """A worst case of which ``broken`` stand no more."""
    return records.Robust(low=worst.low - broken, high=worst.high - broken, n=worst.n)


def encode(report: Report) -> bytes:
    return msgspec.json.format(records.encode(report), indent=1) + b"\n"


def decode(data: bytes, where: str) -> Report:
    return records.decoded(data, Report, where)


# --- when it holds ------------------------------------------------------------------------------------


def key(case: Case) -> Key:
    """What the verdict on a case depends on."""
    from grit import __version__

    setting, run = case.setting, case.setting.level != "lint"
    spotted = setting.level == "spot"
    guard = setting.respond.least if isinstance(setting.respond, Sandboxed) else "none"
    return Key(
        bundle_sha256=records.digest(case.bundle.files.get(submission.SUMS, b"")),
        level=setting.level,
        suite_sha256=_known(lambda: case.pinned[0]) if run else None,
        data_revision=_known(lambda: case.dataset.revision) if run else None,
        pool_sha256=pool_digest(setting.pool) if setting.pool else None,
        spot=setting.spot if spotted else None,
        nonce=setting.nonce if spotted else None,
        sandbox=guard if run else None,
        verifier=__version__,
        versions=dict(_versions()) if run else {},
    )


def _known(find: Callable[[], str]) -> str | None:
    """None for a bundle that cannot be read, or data that is not here: the report says so."""
    try:
        return find()
    except GritError:
        return None


_STANDS_ON = ("python", "numpy", "msgspec", "nltk", "onnx", "onnxruntime", "torch")


@functools.cache
def _versions() -> Mapping[str, str]:
    from grit.bench import machine

    here = machine.versions()
    return {name: here[name] for name in _STANDS_ON if name in here}


def pool_digest(pool: Mapping[str, tuple[Script, ...]]) -> str:
    return records.digest(records.encode({id: sorted(pool[id]) for id in sorted(pool)}))


def reusable(old: Report, bundle: Bundle, setting: Setting) -> bool:
    """Whether a verdict holds again: every field of its key is what it would be now.

    A nonce that was not asked for is the old one: a verdict of a spot check stands until it is asked for again.
    """
    if setting.level == "spot" and not setting.nonce and old.key.nonce:
        setting = dataclasses.replace(setting, nonce=old.key.nonce)
    return old.key == key(Case(bundle, setting))


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


# --- for people ---------------------------------------------------------------------------------------


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
