"""Jobs in this process and in others: order, errors, reports, and no orphan."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import ModuleType

import pytest

from grit.bench.executor import run_all
from grit.bench.progress import silent
from grit.bench.types import CouldNotMeasure

JOBS = """
import time

def square(number, report):
    report(f"job {number}", "squaring", 1, 1)
    time.sleep(0.05 * (3 - number))  # later jobs end first
    return number * number

def fail(report):
    raise ValueError("on purpose")

def die(report):
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that worker processes can import too."""
    (tmp_path / "jobs_of_this_test.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "jobs_of_this_test", raising=False)
    return importlib.import_module("jobs_of_this_test")


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_jobs(jobs: ModuleType, processes: int) -> None:
    seen: list[str] = []
    found = run_all(
        [functools.partial(jobs.square, number) for number in range(3)],
        processes,
        lambda job, stage, done, total: seen.append(job),
    )
    assert found == [0, 1, 4]
    assert sorted(seen) == ["job 0", "job 1", "job 2"]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_exception_of_a_job_is_raised_here(jobs: ModuleType, processes: int) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        run_all([jobs.fail, functools.partial(jobs.square, 1)], processes, silent)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from pathlib import Path

            def wait(folder, report):
                Path(folder, f"worker-{os.getpid()}").touch()
                time.sleep(60)
            """
        )
    )
    script = textwrap.dedent(
        f"""
        import functools, sys
        sys.path.insert(0, {str(tmp_path)!r})
        import jobs
        from grit.bench.executor import run_all
        from grit.bench.progress import silent
        if __name__ == "__main__":
            run_all([functools.partial(jobs.wait, {str(tmp_path)!r})] * 2, 2, silent)
        """
    )
    (tmp_path / "main.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "main.py")], env=environment)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("worker-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = [int(path.name.partition("-")[2]) for path in tmp_path.glob("worker-*")]
    assert len(workers) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while any(_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_alive(worker) for worker in workers)


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_killed_worker_is_told_in_one_line(jobs: ModuleType) -> None:
    with pytest.raises(CouldNotMeasure, match=r"a worker process was killed.*--jobs 1 goes on"):
        run_all([jobs.die, jobs.die], 2, silent)
