"""Progress: plain lines without a terminal, nothing when quiet, bars that end."""

from __future__ import annotations

import io
from types import SimpleNamespace

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


# --- lines ------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands until it is set."""
    now = SimpleNamespace(time=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.time)
    return now


def test_a_new_stage_starts_its_own_clock(clock: SimpleNamespace) -> None:
    out = io.StringIO()
    lines = progress.Lines(out)
    lines.report("row", "training", 0, 2)
    clock.time += 30
    lines.report("row", "training", 2, 2)
    lines.report("row", "attack", 0, 10)
    clock.time += 20
    lines.report("row", "attack", 5, 10)
    assert out.getvalue().splitlines() == ["row: training 2/2, done in 30.0 s", "row: attack 5/10, 20 s left"]


def test_jobs_side_by_side_have_clocks_of_their_own(clock: SimpleNamespace) -> None:
    out = io.StringIO()
    lines = progress.Lines(out, every_s=10)
    lines.report("one", "attack", 0, 4)
    clock.time += 8
    lines.report("two", "attack", 0, 4)
    clock.time += 4
    lines.report("one", "attack", 2, 4)  # 12 s in
    lines.report("two", "attack", 2, 4)  # 4 s in: nothing to say yet
    clock.time += 4
    lines.report("two", "attack", 4, 4)
    assert out.getvalue().splitlines() == ["one: attack 2/4, 12 s left", "two: attack 4/4, done in 8.0 s"]


def test_lines_come_no_more_often_than_asked(clock: SimpleNamespace) -> None:
    out = io.StringIO()
    lines = progress.Lines(out, every_s=10)
    for done in range(100):
        clock.time += 1
        lines.report("row", "attack", done, 100)
    assert 8 <= out.getvalue().count("\n") <= 10


def test_a_stage_of_nothing_and_one_that_runs_over_end(clock: SimpleNamespace) -> None:
    out = io.StringIO()
    lines = progress.Lines(out)
    lines.report("row", "attack", 0, 0)
    lines.report("row", "verify", 7, 5)
    assert out.getvalue().splitlines() == ["row: attack 0/0, done in 0.0 s", "row: verify 7/5, done in 0.0 s"]


@pytest.mark.parametrize(
    ("spent", "done", "total", "said"),
    [
        (10.0, 0, 5, "unknown time"),
        (10.0, 1, 2, "10 s"),
        (89.0, 1, 2, "89 s"),
        (90.0, 1, 2, "2 min"),
        (3600.0, 1, 3, "120 min"),
        (10.0, 0.5, 2, "30 s"),
    ],
)
def test_the_time_that_is_left_in_words(spent: float, done: float, total: float, said: str) -> None:
    assert progress._left(spent, done, total) == said


def test_each_line_can_be_read_at_once(clock: SimpleNamespace) -> None:
    """A log that is followed shows a line when it is written, and all of it when the work breaks off."""
    flushed: list[str] = []

    class Followed(io.StringIO):
        def flush(self) -> None:
            flushed.append(self.getvalue())

    out = Followed()
    with pytest.raises(KeyboardInterrupt), progress.display(out) as shown:
        shown.report("row", "training", 1, 1)
        assert flushed == ["row: training 1/1, done in 0.0 s\n"]
        out.write("half a line")
        raise KeyboardInterrupt
    assert flushed[-1].endswith("half a line")


# --- bars -------------------------------------------------------------------------------------------------


def test_a_bar_begins_anew_with_each_stage() -> None:
    bars = progress.Bars(Terminal())
    with bars:
        bars.report("row", "training", 3, 4)
        bars.report("row", "attack", 1, 50)
        bars.report("other", "attack", 2, 9)
        tasks = {task.description.split()[0]: task for task in bars._progress.tasks}
        assert len(bars._progress.tasks) == 2
        assert (tasks["row"].completed, tasks["row"].total) == (1, 50)
        assert "attack" in tasks["row"].description and "training" not in tasks["row"].description
        assert (tasks["other"].completed, tasks["other"].total) == (2, 9)


def test_bars_leave_the_terminal_when_the_work_breaks_off() -> None:
    bars = progress.Bars(Terminal())
    with pytest.raises(ZeroDivisionError), bars:
        bars.report("row", "training", 1, 4)
        raise ZeroDivisionError
    assert bars._progress.finished or not bars._progress.live.is_started


def test_the_stream_decides_what_is_shown() -> None:
    assert isinstance(progress.display(Terminal()), progress.Bars)
    assert isinstance(progress.display(io.StringIO()), progress.Lines)
    assert isinstance(progress.display(Terminal(), quiet=True), progress.Lines)
    progress.silent("row", "training", 1, 1)
