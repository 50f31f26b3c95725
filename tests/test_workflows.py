"""Workflows and pages of the submission flow: they ask for no more rights than they need, and their scripts are run.

What a workflow says is what happens: the scripts of the files are taken out and run by the same shell on branches
made here, with a good row, with cheats, and with names that a shell might take for more than names.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from grit.bench import cli, records, submission, verify

sys.path.append(str(Path(__file__).parent))

from golden_bundles import GOLDEN, TYPOS, _hidden, apart, honest, of, put_together

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FLOW = ("submissions.yml", "spot.yml")


def workflow(name: str) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    return found


def scripts(name: str) -> list[str]:
    return [step["run"] for job in workflow(name)["jobs"].values() for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_are_yaml_with_jobs(file: Path) -> None:
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert found["jobs"]
    for job in found["jobs"].values():
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_actions_are_pinned_to_a_commit(file: Path) -> None:
    """A tag can be moved by whoever owns the action; a commit cannot. The comment says which release it is."""
    used = re.findall(r"uses: (.*)", file.read_text(encoding="utf-8"))
    assert used
    for action in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@pytest.mark.parametrize("name", FLOW)
def test_no_secret_and_no_right_to_write(name: str) -> None:
    text = (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")
    found = workflow(name)
    assert found["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    triggers = found[True]  # YAML reads the key `on` as a truth value
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(triggers)
    for job in found["jobs"].values():
        assert "permissions" not in job
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("name", FLOW)
def test_a_refusal_does_not_drown_in_a_pipe(name: str) -> None:
    assert workflow(name)["defaults"]["run"]["shell"] == "bash"  # GitHub adds pipefail only where a shell is named


@pytest.mark.parametrize("name", FLOW)
def test_nothing_from_outside_is_pasted_into_a_script(name: str) -> None:
    """A folder's name is a stranger's word: it reaches a script as a variable only."""
    assert not [script for script in scripts(name) if "${{" in script]


def test_the_tool_comes_from_the_base_branch() -> None:
    (job,) = workflow("submissions.yml")["jobs"].values()
    tool = next(step for step in job["steps"] if step.get("with", {}).get("path") == "tool")
    assert tool["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert any("pip install './tool" in script for script in scripts("submissions.yml"))


_OF_A_SHELL = re.compile(r"^\s*(?:- )?grit ([a-z]+)(.*?)(?:\\|\||$)", re.M)
PAGES = [
    *(ROOT / ".github" / "workflows" / name for name in FLOW),
    ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md",
    ROOT / ".github" / "THREATS.md",
    ROOT / "leaderboards" / "ROWS.md",
]


def _options(command: str) -> set[str]:
    found = cli.grit.commands[command]
    return {name for parameter in found.params if isinstance(parameter, click.Option) for name in parameter.opts}


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_commands_that_pages_and_workflows_name_exist(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    commands = _OF_A_SHELL.findall(text) + re.findall(r"`grit ([a-z]+)(.*?)`", text, re.S)
    for command, rest in commands:
        assert command in cli.grit.commands, command
        assert set(re.findall(r"--[a-z-]+", rest)) <= _options(command), (command, rest)
    if file.suffix == ".yml":
        assert "verify" in {command for command, _ in commands}


# --- the scripts, run ---------------------------------------------------------------------------------


def script(name: str, step: str) -> str:
    (found,) = [
        each["run"]
        for job in workflow(name)["jobs"].values()
        for each in job["steps"]
        if step in (each.get("name"), each.get("id"))
    ]
    return str(found)


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """shell(script, folder, NAME=value): as GitHub runs it, with the tool of this checkout as ``grit``."""
    tools, home = tmp_path / "tools", tmp_path / "runner"
    for folder in (tools, home):
        folder.mkdir()
    (tools / "grit").write_text(f'#!/bin/sh\nexec {sys.executable} -m grit "$@"\n')
    (tools / "grit").chmod(0o755)

    def run(text: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        surroundings = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "RUNNER_TEMP": str(home),
            "GITHUB_STEP_SUMMARY": str(home / "summary.md"),
            "GITHUB_OUTPUT": str(home / "output"),
            **environment,
        }
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
        return subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)

    return run


def committed(folder: Path, files: Mapping[str, bytes | None]) -> str:
    """A commit of these files (None: removed); its name."""
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
    if not folder.exists():
        subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink() if data is None else (folder / name).write_bytes(data)
    subprocess.run(["git", "add", "--all"], cwd=folder, check=True)
    subprocess.run(["git", *identity, "commit", "--quiet", "--allow-empty", "-m", "x"], cwd=folder, check=True)
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def row(name: str, files: Mapping[str, bytes]) -> dict[str, bytes | None]:
    return {f"leaderboards/pings/{name}/{file}": data for file, data in files.items()}


STEPS = ("the rows that this pull request adds", "lint", "replay, with the breaks of every other row")
Shell = Callable[..., subprocess.CompletedProcess[str]]


def pull_request(shell: Shell, place: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """The step of submissions.yml that fails ("": none), and all that was printed."""
    base = committed(place, {"leaderboards/FLAGS.md": b"", **before})
    committed(place, after)
    said = ""
    for step in STEPS:
        done = shell(script("submissions.yml", step), place, BASE=base)
        said += done.stdout + done.stderr
        if done.returncode:
            return step, said
    return "", said


def test_good_rows_pass_and_the_reviewer_reads_what_to_type(shell: Shell, tmp_path: Path) -> None:
    before = {**row("old", honest()), "leaderboards/pings/pool/0123456789abcdef.jsonl.gz": records.compress(b"")}
    life = submission.Life(status="corrected", supersedes=of(honest()).digest, reason="a better card")
    after = {**row("a b", submission.amended(of(honest()), life)), "bench/verify.py": b"print('trust me')"}
    failed, said = pull_request(shell, tmp_path / "branch", before, after)
    assert failed == "", said
    assert "verified: bundle" in said
    assert "leaderboards/pings/old" not in said
    summary = (tmp_path / "runner" / "summary.md").read_text()
    assert "    grit verify 'leaderboards/pings/a b' --level spot --pool 'leaderboards/pings'" in summary
    assert "at level replay" in summary


REFUSED: Mapping[str, tuple[str, str, str]] = {
    "an edited outcome": (STEPS[2], "refuted", "misses"),
    "an unknown key": (STEPS[1], "malformed", "schema"),
}


@pytest.mark.parametrize("cheat", REFUSED)
def test_a_cheat_fails_the_pull_request(cheat: str, shell: Shell, tmp_path: Path) -> None:
    files: Any = GOLDEN[cheat].build()
    failed, said = pull_request(shell, tmp_path / "branch", {}, row("mine", files))
    where, *words = REFUSED[cheat]
    assert failed == where
    assert all(word in said for word in words), said


def test_a_row_is_never_changed_removed_or_judged_by_its_author(shell: Shell, tmp_path: Path) -> None:
    other = dict.fromkeys(row("theirs", honest()))
    card = {"leaderboards/pings/theirs/README.md": b"withdrawn by a stranger"}
    for number, change in enumerate((other, card)):
        failed, said = pull_request(shell, tmp_path / str(number), row("theirs", honest()), change)
        assert failed == STEPS[0], said
        assert "never changed or removed" in said
    verdict = {"leaderboards/pings/mine/verdict.json": b'{"code": 0}'}
    failed, said = pull_request(shell, tmp_path / "verdict", {}, {**row("mine", honest()), **verdict})
    assert failed == STEPS[0]
    assert "leave verdict.json out" in said


def test_what_joins_the_pool_is_tried_on_every_row(shell: Shell, tmp_path: Path) -> None:
    parts, id = _hidden()
    lines = records.encode_outcomes([apart(honest()).attacks[TYPOS][id]])
    pool = "leaderboards/pings/pool/0123456789abcdef.jsonl.gz"
    before = row("theirs", put_together(parts))
    failed, said = pull_request(shell, tmp_path / "true", before, {pool: records.compress(lines)})
    assert failed == "", said
    assert "lowered to" in said
    failed, said = pull_request(shell, tmp_path / "junk", before, {pool: b"no evidence"})
    assert failed == STEPS[2]
    assert "not gzip" in said


def test_a_name_is_no_command(shell: Shell, tmp_path: Path) -> None:
    name = "$(touch pwned)`touch pwned`;touch pwned"
    failed, said = pull_request(shell, tmp_path / "branch", {}, row(name, {"submission.json": b"{}"}))
    assert failed == STEPS[1], said
    assert not list((tmp_path / "branch").glob("pwned"))


def test_a_pull_request_that_adds_no_row_passes(shell: Shell, tmp_path: Path) -> None:
    failed, said = pull_request(shell, tmp_path / "branch", {}, {"leaderboards/CHANGES.md": b"x"})
    assert failed == "", said


def test_the_night_attacks_every_row_again(shell: Shell, tmp_path: Path) -> None:
    if shutil.which("jq") is None or shutil.which("openssl") is None:
        pytest.skip("jq and openssl, which GitHub's machines have, are not installed here")
    committed(tmp_path / "branch", row("mine", honest()))
    assert shell(script("spot.yml", "find"), tmp_path / "branch").returncode == 0
    assert (tmp_path / "runner" / "output").read_text() == 'rows=["leaderboards/pings/mine"]\n'
    again = script("spot.yml", "attack a sample again")
    done = shell(again, tmp_path / "branch", ROW="leaderboards/pings/mine")
    assert done.returncode == 0, done.stdout + done.stderr
    report = verify.decode((tmp_path / "branch" / "verdict.json").read_bytes(), "verdict.json")
    assert report.floor is not None
    assert f"--nonce {report.key.nonce}" in (tmp_path / "runner" / "summary.md").read_text()


def test_lint_and_replay_run_on_every_pull_request_and_spot_at_night() -> None:
    assert set(workflow("submissions.yml")[True]) == {"pull_request"}
    assert "schedule" in workflow("spot.yml")[True]
    for name in FLOW:  # a mode without a filter of system calls is none for strangers' models
        assert "--sandbox seccomp" in "\n".join(scripts(name))


# --- pages ----------------------------------------------------------------------------------------------


def test_the_threat_page_names_checks_that_exist() -> None:
    text = (ROOT / ".github" / "THREATS.md").read_text(encoding="utf-8")
    tables = "\n".join(line for line in text.splitlines() if line.startswith("| "))
    named = set(re.findall(r"`([a-z]+)`", tables)) - {"challenge", "seeds", "seccomp"}
    assert named <= set(verify.CHECKS)
    of_form = {"hashes", "schema", "card", "words", "pool", "full"}
    assert set(verify.CHECKS) - named <= of_form


def test_the_page_of_flags_is_generated_and_does_not_differ() -> None:
    assert (ROOT / "leaderboards" / "FLAGS.md").read_text(encoding="utf-8") == records.flags_page()


def test_every_flag_is_on_the_page_with_what_to_do() -> None:
    page = records.flags_page()
    for name, flag in records.FLAGS.items():
        assert f"## {name}\n" in page
        assert flag.raised_if in page
        assert flag.do in page
