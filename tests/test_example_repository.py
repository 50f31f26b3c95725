"""The repository that a model author copies: its own commands, executed as its workflow would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

import grit

pytestmark = pytest.mark.xdist_group("example repository")  # installed once: it takes most of the time

EXAMPLE = Path(__file__).parent / "example_repository"
WORKFLOW = yaml.safe_load((EXAMPLE / ".github" / "workflows" / "robustness.yml").read_text(encoding="utf-8"))
STEPS: dict[str, str] = {step["name"]: step["run"] for step in WORKFLOW["jobs"]["gate"]["steps"] if "run" in step}


@dataclass(frozen=True)
class Repository:
    """A copy of the example with gritbench and its own package installed."""

    folder: Path
    site: Path

    def runs(self, script: str) -> subprocess.CompletedProcess[str]:
        """A script as a workflow's runner starts it."""
        environment = {
            **os.environ,
            "PATH": f"{self.site / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{self.folder}{os.pathsep}{self.site}{os.pathsep}{Path(grit.__file__).parents[1]}",
            "ROW": WORKFLOW["env"]["ROW"],
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
            "GITHUB_SHA": "0123abcd",
        }
        return subprocess.run(
            ["bash", "-e", "-c", script], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def edit(self, old: str, new: str) -> None:
        source = self.folder / "tiny.py"
        assert old in source.read_text(encoding="utf-8")
        source.write_text(source.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Installed, and with the baseline made by the commands of its README."""
    pytest.importorskip("ziglang", reason="instructions are counted with the extra 'arm'")
    folder = tmp_path_factory.mktemp("repository") / "tiny"
    shutil.copytree(EXAMPLE, folder)
    site = folder.parent / "site"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"),
            *("--target", str(site), str(folder)),
        ],
        check=True,
        capture_output=True,
    )
    (site / "tiny.py").unlink()  # the module is the repository's own, so that a change takes effect
    (site / "bin").mkdir()
    command = site / "bin" / "grit"
    script = f'#!{sys.executable}\nfrom grit.bench.cli import main\n\nif __name__ == "__main__":\n    main()\n'
    command.write_text(script, encoding="utf-8")
    command.chmod(0o755)
    found = Repository(folder, site)
    made = found.runs("\n".join(readme_commands()[1:-1]))
    assert made.returncode == 0, made.stderr
    return found


def readme_commands() -> list[str]:
    block = re.search(r"```\n(.*?)```", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    return block.group(1).strip().splitlines()


def test_the_workflow_asks_for_no_more_than_it_needs() -> None:
    text = (EXAMPLE / ".github" / "workflows" / "robustness.yml").read_text(encoding="utf-8")
    assert WORKFLOW["permissions"] == {"contents": "read"} and "secrets." not in text
    assert set(WORKFLOW[True]) == {"pull_request", "push"}  # YAML reads the key `on` as a truth value
    assert list(STEPS) == ["Install", "Train and attack the candidate", "Gate"]


def test_workflow_and_readme_make_the_same_row() -> None:
    install, first, pack, add = readme_commands()
    assert install == STEPS["Install"]
    assert first == f"grit run {WORKFLOW['env']['ROW']} -o first"
    assert pack == "grit pack first -o baseline" and add == "git add baseline"


def test_the_hook_is_one_that_pre_commit_reads() -> None:
    config: dict[str, Any] = yaml.safe_load((EXAMPLE / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (hook,) = config["repos"][0]["hooks"]
    assert {"id", "name", "language", "entry"} <= set(hook)
    assert hook["language"] == "system" and hook["pass_filenames"] is False


def test_a_good_change_passes(repository: Repository) -> None:
    repository.edit('"""512 rows, single words."""', '"""512 rows, and single words only."""')
    shutil.rmtree(repository.folder / "candidate", ignore_errors=True)
    trained = repository.runs(STEPS["Train and attack the candidate"])
    assert trained.returncode == 0, trained.stderr
    gated = repository.runs(STEPS["Gate"])
    assert gated.returncode == 0, gated.stdout + gated.stderr
    assert "alike on every example" in gated.stdout
    assert "gate: pass" in (repository.folder / "summary.md").read_text(encoding="utf-8")
    assert "instructions on emu://cortex-m4" in gated.stdout


def test_a_change_that_costs_robustness_fails(repository: Repository) -> None:
    repository.edit("buckets: int = 512", "buckets: int = 3")
    shutil.rmtree(repository.folder / "candidate", ignore_errors=True)
    try:
        trained = repository.runs(STEPS["Train and attack the candidate"])
        assert trained.returncode == 0, trained.stderr
        gated = repository.runs(STEPS["Gate"])
        hooked = repository.runs(hook_entry())
    finally:
        repository.edit("buckets: int = 3", "buckets: int = 512")
    assert gated.returncode == 1, gated.stdout + gated.stderr
    (suite,) = ElementTree.parse(repository.folder / "gate.xml").getroot()
    assert int(suite.get("failures", "0")) >= 1
    assert hooked.returncode == 1, hooked.stdout + hooked.stderr


def test_a_missing_baseline_exits_4(repository: Repository) -> None:
    (repository.folder / "baseline").rename(repository.folder / "elsewhere")
    try:
        gated = repository.runs(STEPS["Gate"])
    finally:
        (repository.folder / "elsewhere").rename(repository.folder / "baseline")
    assert gated.returncode == 4 and "no baseline at 'baseline'" in gated.stderr


def hook_entry() -> str:
    config = yaml.safe_load((EXAMPLE / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    entry: str = config["repos"][0]["hooks"][0]["entry"]
    return entry
