"""Progress: plain lines without a terminal, nothing when quiet, bars that end."""

from __future__ import annotations

import io

import pytest

from grit.bench import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_say_job_stage_and_end() -> None:
    out = io.StringIO()
    with progress.display(out) as shown:
        shown.report("row", "training", 1, 3)
        shown.report("row", "training", 3, 3)
    assert out.getvalue().startswith("row: training 3/3, done in ")
    assert out.getvalue().count("\n") == 1


def test_long_stages_tell_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 20.0, 400.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    lines = progress.Lines(out)
    lines.report("row", "attack", 0, 100)
    lines.report("row", "attack", 40, 100)
    lines.report("row", "attack", 50, 100)
    assert out.getvalue().splitlines() == ["row: attack 40/100, 30 s left", "row: attack 50/100, 7 min left"]


def test_quiet_says_nothing() -> None:
    out = io.StringIO()
    with progress.display(out, quiet=True) as shown:
        shown.report("row", "training", 3, 3)
    assert out.getvalue() == ""


def test_bars_follow_several_jobs_on_a_terminal() -> None:
    out = Terminal()
    with progress.display(out) as shown:
        for stage in ("training", "attack"):
            for done in range(4):
                shown.report("one", stage, done, 3)
                shown.report("two", stage, done, 3)
    assert "one" in out.getvalue()
    assert "attack" in out.getvalue()
