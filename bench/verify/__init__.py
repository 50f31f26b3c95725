"""Is a claim true? Everything claimed broken is replayed; of what is claimed to stand, a sample is attacked again.

A bundle goes through checks, small functions with a name, stage by stage; each yields what is wrong in one line.
What a stage found ends the work, since later stages stand on it. The chapters, in the order of reading:

    case       one bundle under verification, and who answers for its model
    lint       files, sizes, sums, schema, model files, evidence, card: nothing is run, no data is needed
    claims     totals, suite, flags; examples, training data, vocabulary
    replay     threat sets; then every clean answer, every break and every nearest miss again
    spot       survivors attacked again, by the same attacks: m of them, or everything
    verdict    the report, and when an earlier one still holds
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from grit.bench import records, submission
from grit.bench.submission import Bundle
from grit.bench.types import CouldNotMeasure, MalformedInput, SandboxViolation, UsageError
from grit.bench.verify import claims, lint, replay, spot
from grit.bench.verify.case import LEVELS, Answered, Case, Level, Respond, Sandboxed, Setting, one_line, unguarded
from grit.bench.verify.verdict import WORDS, Finding, Report, decode, encode, key, less, render, reusable

__all__ = [
    "CHECKS",
    "LEVELS",
    "STAGES",
    "WORDS",
    "Answered",
    "Case",
    "Report",
    "Respond",
    "Sandboxed",
    "Setting",
    "decode",
    "encode",
    "render",
    "unguarded",
    "verify",
    "verify_path",
]

Check = Callable[[Case], Iterator[str]]


class Stage(NamedTuple):
    level: Level
    code: int  # exit code of what its checks find
    checks: tuple[Check, ...]


STAGES: tuple[Stage, ...] = (
    Stage("lint", 6, (lint.layout, lint.code, lint.sizes, lint.hashes)),
    Stage("lint", 6, (lint.schema,)),
    Stage("lint", 6, (lint.card, lint.artefact, lint.weights, lint.evidence)),
    Stage("replay", 1, (claims.totals, claims.coverage, claims.suite, claims.budget, claims.raised)),
    Stage("replay", 1, (claims.revision, claims.selection)),
    Stage("replay", 1, (claims.trained, claims.vocabulary, replay.words, replay.threat, replay.effort)),
    Stage("replay", 1, (replay.clean, replay.breaks, replay.misses, replay.company, replay.pool)),
    Stage("spot", 1, (spot.twin,)),
    Stage("spot", 1, (spot.spot,)),
    Stage("full", 1, (spot.full, spot.strength)),
)
CHECKS = tuple(check.__name__ for stage in STAGES for check in stage.checks)
_MOST_REASONS = 5  # of one check in a report
_GRAVITY = (5, 6, 1, 4, 3)  # exit codes, the gravest first


def verify(bundle: Bundle, setting: Setting, *, without: frozenset[str] = frozenset()) -> Report:
    """The verdict on a bundle. Whatever is in it, this returns; errors of this machine (a full disk) are raised.

    without: names of checks to leave out; for the tests of the checks.
    """
    started = time.perf_counter()
    case = Case(bundle, setting)
    made: list[str] = []
    findings: list[Finding] = []
    for stage in STAGES:
        if LEVELS.index(stage.level) > LEVELS.index(setting.level) or findings:
            break
        if stage.checks == (spot.spot,) and setting.level == "full":
            continue  # everything is attacked again, so a sample need not be
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
        notes=tuple(case.notes),
        floor=case.floor,
        lowered=less(case.claim.record.worst, len(case.crossed)) if case.crossed and code == 0 else None,
        hits=tuple(records.encode_outcomes([outcome]).decode().strip() for outcome in case.hits),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - started, 3),
    )


def _found(check: Check, code: int, case: Case) -> list[Finding]:
    reasons: list[str] = []
    ended: list[Finding] = []
    try:
        for reason in check(case):
            reasons.append(one_line(reason))
    except (MalformedInput, SandboxViolation, CouldNotMeasure) as error:
        ended.append(Finding(check=check.__name__, code=error.exit_code, reason=one_line(str(error))))
    except UsageError as error:  # a name that the bundle brought, and nobody here knows
        ended.append(Finding(check=check.__name__, code=CouldNotMeasure.exit_code, reason=one_line(str(error))))
    if len(reasons) > _MOST_REASONS:
        reasons[_MOST_REASONS - 1] += f" (and {len(reasons) - _MOST_REASONS} more like it)"
    return [Finding(check=check.__name__, code=code, reason=reason) for reason in reasons[:_MOST_REASONS]] + ended


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
