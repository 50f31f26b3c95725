"""Workflows and pages of the submission flow: they call what tests call, and ask for no more rights than they need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from grit.bench import cli, records, verify

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


def test_lint_and_replay_run_on_every_pull_request_and_spot_at_night() -> None:
    text = "\n".join(scripts("submissions.yml"))
    assert 'grit lint "$row"' in text
    assert "--level replay --pool" in text
    assert "--level spot --nonce" in "\n".join(scripts("spot.yml"))
    assert "schedule" in workflow("spot.yml")[True]


def test_the_threat_page_names_checks_that_exist() -> None:
    text = (ROOT / ".github" / "THREATS.md").read_text(encoding="utf-8")
    tables = "\n".join(line for line in text.splitlines() if line.startswith("| "))
    named = set(re.findall(r"`([a-z]+)`", tables)) - {"challenge", "seeds"}
    assert named <= set(verify.CHECKS)
    of_form = {"hashes", "schema", "card", "evidence", "budget", "raised", "words", "threat", "pool", "full"}
    assert set(verify.CHECKS) - named <= of_form


def test_the_page_of_flags_is_generated_and_does_not_differ() -> None:
    assert (ROOT / "leaderboards" / "FLAGS.md").read_text(encoding="utf-8") == records.flags_page()


def test_every_flag_is_on_the_page_with_what_to_do() -> None:
    page = records.flags_page()
    for name, flag in records.FLAGS.items():
        assert f"## {name}\n" in page
        assert flag.raised_if in page
        assert flag.do in page
