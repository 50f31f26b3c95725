"""verdict.json beside a bundle -> the badge of its row.

A badge is a function of the bundle, its verdict and this release, so that the same files give the same page on any
machine. Whether a verdict may be *used again* in place of a verification is another question, which also asks for the
machine's libraries: :func:`grit.bench.verify.reusable`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from grit.bench import records, submission
from grit.bench.leaderboard import Verified

if TYPE_CHECKING:
    from grit.bench.records import Record
    from grit.bench.verify import Report


def below(folders: Iterable[Path]) -> dict[str, Verified]:
    """Digest of a row -> its badge, for the bundles at and below folders that have a verdict. Raises MalformedInput."""
    found = {}
    for place in (place for folder in folders for place in submission.bundles_below(folder)):
        file = place / submission.VERDICT
        if file.is_file():
            from grit.bench import verify

            report = verify.decode(records.read(file), str(file))
            where = place / submission.SUBMISSION
            record = submission.decode(records.read(where), str(where)).record
            bundle = records.digest(records.read(place / submission.SUMS))
            found[records.row_digest(record)] = badge(report, record, bundle)
    return found


def badge(report: Report, record: Record, bundle_sha256: str) -> Verified:
    """What a verdict says today about a row: nothing of worth, unless it was passed on this very bundle."""
    current = "challenged" if report.lowered is not None else "current"
    if report.key.bundle_sha256 != bundle_sha256:
        state = "stale"
    elif report.code == 1:
        state = "refuted"
    elif report.code != 0:
        state = "unverified"
    else:
        state = current if _holds(report, record) else "stale"
    return Verified(
        state=state,  # type: ignore[arg-type]  # one of five
        level=report.key.level,
        on=report.created[:10],
        floor=report.floor.verified if report.floor is not None and state == "current" else None,
        lowered=report.lowered.low if report.lowered is not None and state == "challenged" else None,
    )


def _holds(report: Report, record: Record) -> bool:
    """Whether the suite, the data and the verifier are those of today. A lint asks for neither suite nor data."""
    from grit import __version__

    said = report.key.suite_sha256, report.key.data_revision
    same = report.key.level == "lint" or said == (record.suite_sha256, record.data.revision)
    return same and report.key.verifier == __version__
