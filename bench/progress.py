"""Live progress of long work: a bar a job with the remaining time on a terminal, plain lines elsewhere.

Work reports through a plain function ``report(job, stage, done, total)``: it can run in this process or send
its reports from another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, Any, Protocol, Self

Report = Callable[[str, str, float, float], None]
"""report(job, stage, done, total): how far ``stage`` of ``job`` is; done == total ends the stage."""


def silent(job: str, stage: str, done: float, total: float) -> None:
    """The report that nobody reads."""


class Display(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def report(self, job: str, stage: str, done: float, total: float) -> None: ...


def display(stream: IO[str], *, quiet: bool = False) -> Display:
    """Bars where ``stream`` is a terminal, lines where it is not, nothing when quiet."""
    if quiet:
        return Lines(stream, every_s=float("inf"))
    return Bars(stream) if stream.isatty() else Lines(stream)


class Bars:
    """One rich bar a job; its description names the stage."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(file=stream),
            transient=True,
        )
        self._tasks: dict[str, Any] = {}
        self._stages: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def report(self, job: str, stage: str, done: float, total: float) -> None:
        if job not in self._tasks:
            self._tasks[job] = self._progress.add_task(job)
        task = self._tasks[job]
        if self._stages.get(job) != stage:
            self._stages[job] = stage
            self._progress.reset(task, description=f"{job}  [dim]{stage}[/dim]")
        self._progress.update(task, completed=done, total=total)


class Lines:
    """A line at the end of each stage, and every few seconds within it, with the remaining time."""

    def __init__(self, stream: IO[str], every_s: float = 10.0) -> None:
        self._stream = stream
        self._every_s = every_s
        self._stages: dict[str, tuple[str, float]] = {}  # job -> stage, when it began
        self._last: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def report(self, job: str, stage: str, done: float, total: float) -> None:
        now = time.monotonic()
        if self._stages.get(job, ("", 0.0))[0] != stage:
            self._stages[job] = (stage, now)
            self._last[job] = now
        finished = done >= total
        if self._every_s == float("inf") or not (finished or now - self._last[job] >= self._every_s):
            return
        self._last[job] = now
        spent = now - self._stages[job][1]
        tail = f"done in {spent:.1f} s" if finished else f"{_left(spent, done, total)} left"
        self._stream.write(f"{job}: {stage} {done:g}/{total:g}, {tail}\n")
        self._stream.flush()


def _left(spent: float, done: float, total: float) -> str:
    if done <= 0:
        return "unknown time"
    seconds = spent * (total - done) / done
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
