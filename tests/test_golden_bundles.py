"""The golden corpus: every bundle gets its verdict, and no check of the verifier can be left out unnoticed."""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from grit.bench import adequacy, datasets, verify
from grit.bench.verify import claims, lint, replay, spot

sys.path.append(str(Path(__file__).parent))  # beside this file, and no test by itself

from golden_bundles import GOLDEN, Golden, bundle_of

QUICK = [name for name, case in GOLDEN.items() if case.level in ("lint", "replay")]
ATTACKED = [name for name in GOLDEN if name not in QUICK]


_loaded = functools.cache(datasets.load)


def report_of(case: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: str = "") -> verify.Report:
    if case.data:  # read anew from the folder; otherwise the corpus is read once for all
        for name, content in case.data.items():
            (tmp_path / name).write_text(content())
        monkeypatch.setenv("GRIT_DATA", str(tmp_path))
    else:
        monkeypatch.setattr(datasets, "load", _loaded)
    monkeypatch.setattr(adequacy, "checks", lambda trial: case.strength)  # that room's tests, and seconds each time
    setting = verify.Setting(level=case.level, respond=case.responder(), pool=case.pool(), nonce="of the day")
    return verify.verify(bundle_of(case, tmp_path), setting, without=frozenset({without}))


def said(report: verify.Report) -> tuple[int, tuple[str, ...], int | None]:
    lowered = None if report.lowered is None else report.lowered.low
    return report.code, tuple(dict.fromkeys(finding.check for finding in report.findings)), lowered


@pytest.mark.parametrize("name", GOLDEN)
def test_every_bundle_gets_its_verdict(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = GOLDEN[name]
    report = report_of(case, tmp_path, monkeypatch)
    reasons = " / ".join(f"{finding.check}: {finding.reason}" for finding in report.findings)
    code, checks, lowered = said(report)
    assert (code, set(checks)) == (case.code, set(case.checks)), reasons
    assert case.reason in reasons
    assert report.says == verify.WORDS[case.code]
    assert "\n" not in reasons
    if case.lowered is not None:
        assert lowered is not None


# Cheats that one check catches, and no other: without it they pass whole.
ALONE = {
    "layout": "a hidden file",
    "code": "a script in disguise",
    "card": "a card that boasts",
    "artefact": "a model said to be smaller",
    "weights": "NaN weights",
    "evidence": "a text in the place of a trace",
    "totals": "a claim that does not add up",
    "coverage": "a survivor dropped",
    "suite": "a weaker attack under the suite's name",
    "budget": "beyond the budget",
    "raised": "a flag taken down",
    "revision": "another licence of the data",
    "selection": "the easy examples",
    "trained": "test texts in other training data",
    "vocabulary": "test rows in training",
    "words": "a wrong count of words",
    "threat": "breaks outside the threat set",
    "effort": "a truncated attack",
    "clean": "an edited clean answer",
    "breaks": "an edited margin of a break",
    "misses": "an edited outcome",
    "company": "another answer in other company",
    "spot": "a hidden break, spot",
    "twin": "float weights of another model",
    "full": "a break said to be dearer, full",
    "strength": "a check of the attacks left out, full",
}


def test_every_check_is_disabled_by_one_of_the_two_tests_below() -> None:
    assert set(ALONE) <= set(verify.CHECKS)
    assert len(set(verify.CHECKS)) == len(verify.CHECKS)


@pytest.mark.parametrize("check", [check for check in verify.CHECKS if check not in ALONE])
def test_no_check_can_be_left_out(check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any one check, some bundle of the corpus gets another verdict."""
    # A case in which nothing else speaks up shows most; those that need no second attack are the quickest.
    candidates = [name for name, case in GOLDEN.items() if check in case.checks or (case.lowered and check == "pool")]
    candidates.sort(key=lambda name: (len(GOLDEN[name].checks), GOLDEN[name].level not in ("lint", "replay")))
    for name in candidates[:3]:
        case = GOLDEN[name]
        with monkeypatch.context() as patch:
            code, checks, lowered = said(report_of(case, tmp_path, patch, without=check))
        if (code, set(checks), lowered is not None) != (case.code, set(case.checks), case.lowered is not None):
            return
    raise AssertionError(f"{check} can be left out: {', '.join(candidates[:3])} are judged as before")


@pytest.mark.parametrize("check", ALONE)
def test_some_cheats_are_caught_by_one_check_alone(check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its check the cheat would pass whole: so each of these checks is needed, and works."""
    report = report_of(GOLDEN[ALONE[check]], tmp_path, monkeypatch, without=check)
    assert report.code == 0, [finding.reason for finding in report.findings]


# --- every reason -------------------------------------------------------------------------------------


def _places() -> dict[tuple[str, int], str]:
    """(file, line) -> the statement, of all that the checks may say against a bundle."""
    found = {}
    for module in (lint, claims, replay, spot):
        source = Path(module.__file__)
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            says = isinstance(node, ast.Yield) and isinstance(node.value, ast.JoinedStr | ast.Constant)
            if says or isinstance(node, ast.Raise):
                found[str(source), node.lineno] = ast.unparse(node)
    return found


# What only a plug-in, another release or another build of torch would bring about.
_ELSEWHERE = ("these weights have no program", "is not installed here", "has other parameters in this release",
              "attacks by gradient take another course")  # fmt: skip


@pytest.mark.long
def test_every_reason_is_given_against_some_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of a check that speaks against a bundle could be deleted, or never be reached, unnoticed."""
    places = _places()
    files = {file for file, _ in places}
    reached: set[tuple[str, int]] = set()

    def watch(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return watch

    for number, case in enumerate(GOLDEN.values()):
        (tmp_path / str(number)).mkdir()
        with monkeypatch.context() as patch:
            sys.settrace(watch)
            try:
                report_of(case, tmp_path / str(number), patch)
            finally:
                sys.settrace(None)
    missing = [reason for place, reason in places.items() if place not in reached]
    unproved = [reason for reason in missing if not any(words in reason for words in _ELSEWHERE)]
    assert not unproved, "\n".join(unproved)
