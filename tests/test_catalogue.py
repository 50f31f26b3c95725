"""What can be named, what is here, what can be measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from grit.bench import catalogue, sandbox
from grit.bench.types import UsageError


def test_every_kind_has_members_with_a_line_on_each() -> None:
    found = catalogue.everything()
    assert tuple(found) == catalogue.KINDS
    for kind, members in found.items():
        assert members, kind
        for name, about in members.items():
            assert about, f"{kind} {name} has no docstring"
            assert "\n" not in about


def test_one_kind_alone_and_an_unknown_one() -> None:
    assert list(catalogue.everything("attacks")) == ["attacks"]
    with pytest.raises(UsageError, match="did you mean 'models'"):
        catalogue.everything("model")


def test_lines_fit_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert max(len(line) for line in catalogue.render(catalogue.everything()).splitlines()) <= 60


def test_data_says_what_is_missing_and_how_to_get_it(no_data: Path) -> None:
    found = catalogue.data()
    assert found["here"] == {"pings": "embedded"}
    assert "ag_news" in found["missing"]
    assert found["lexicons"]["default"] == "thesaurus"
    assert "GRIT_DATA" in catalogue.render_data(found)


def test_doctor_says_ready_or_what_to_install() -> None:
    found = catalogue.doctor()
    assert found["capabilities"]["training"] == "ready"
    for name, state in found["capabilities"].items():
        if name == "sandbox":
            continue
        assert state == "ready" or "pip install" in state or "nltk.downloader" in state
    assert {"local", "emu://cortex-m4", "qemu://cortex-a76", "ssh://user@host", "adb://SERIAL"} <= set(found["targets"])
    for state in found["targets"].values():
        assert state == "ready" or "pip install" in state or "apt install" in state
    assert str(found["cores"]) in catalogue.render_doctor(found)


def test_doctor_names_the_sandbox_mode_and_why_it_is_no_stronger_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def working(*modes: str) -> None:
        found = {mode: "" if mode in modes else f"no {mode} here" for mode in sandbox.MODES}
        monkeypatch.setattr(sandbox, "unavailable", lambda: found)

    working(*sandbox.MODES)
    assert catalogue.doctor()["capabilities"]["sandbox"] == "ready"
    working("seccomp", "rlimits")
    assert catalogue.doctor()["capabilities"]["sandbox"] == "seccomp only (bubblewrap: no bubblewrap here)"
    working()
    assert catalogue.doctor()["capabilities"]["sandbox"].startswith("none (bubblewrap: no bubblewrap here; seccomp")
