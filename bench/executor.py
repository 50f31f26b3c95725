"""Where jobs go: this process, or a pool of processes that die with it.

A job is a picklable callable that takes a report function; its results are small (the large ones lie in the
run folder). Results come back in the order of the jobs, whatever the order of finishing.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from grit.bench.progress import Report
from grit.bench.types import CouldNotMeasure

Job = Callable[[Report], Any]

_reports: Any = None  # in a worker: the queue its reports go to


def run_all(jobs: Sequence[Job], processes: int, report: Report) -> list[Any]:
    """The result of every job; the first exception of a job is raised after the running ones have ended."""
    if processes <= 1 or len(jobs) <= 1:
        return [job(report) for job in jobs]
    context = get_context("spawn")
    reports = context.Queue()
    with ProcessPoolExecutor(min(processes, len(jobs)), context, _begin, (reports, os.getpid())) as pool:
        futures = [pool.submit(_run, job) for job in jobs]
        try:
            while not all(future.done() for future in futures):
                _pass_on(reports, report)
                if any(future.done() and future.exception() for future in futures):
                    break
            while not reports.empty():
                _pass_on(reports, report)
            return [future.result() for future in futures]
        except BrokenProcessPool:
            raise CouldNotMeasure(
                "a worker process was killed, as a system does that is out of memory; finished work is kept: "
                "the same command with --jobs 1 goes on"
            ) from None
        finally:
            for future in futures:
                future.cancel()


def _pass_on(reports: Any, report: Report) -> None:
    try:
        report(*reports.get(timeout=0.2))
    except queue.Empty:
        pass


def _run(job: Job) -> Any:
    return job(_send)


def _send(job: str, stage: str, done: float, total: float) -> None:
    _reports.put((job, stage, done, total))


def _begin(reports: Any, parent: int) -> None:
    global _reports
    _reports = reports
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A worker whose parent was killed must not go on writing: the same command may already run again."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)
