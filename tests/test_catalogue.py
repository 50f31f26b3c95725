"""What can be named, what is here, what can be measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import catalogue, registry, sandbox
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
        assert state == "ready" or any(how in state for how in ("pip install", "apt install", "doctor --install"))
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


# --- one line on each ---------------------------------------------------------------------------------------


def origin_of(tmp_path: Path, source: str, entry_point: str | None = None) -> registry.Origin:
    path = tmp_path / "mine.py"
    path.write_text(source, encoding="utf-8")
    found = registry.names("attacks")["pwws"]
    return dataclasses.replace(found, where=str(path), entry_point=entry_point)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ('"""One line."""\n', "One line."),
        ('"""Two\nlines of it.\n\nAnd more that nobody asked for.\n"""\n', "Two lines of it."),
        ('# a comment\n\n"""After a comment, caf\u00e9."""\nimport os\n', "After a comment, caf\u00e9."),
        ("x = 1\n", ""),
        ("", ""),
        ('"""Never run."""\nraise SystemExit("it was")\n', "Never run."),
    ],
)
def test_a_file_is_described_by_its_docstring_without_being_run(tmp_path: Path, source: str, line: str) -> None:
    assert catalogue._first_line(origin_of(tmp_path, source)) == line


def test_a_plug_in_is_named_and_not_opened(tmp_path: Path) -> None:
    origin = dataclasses.replace(origin_of(tmp_path, ""), where="package 1.0", entry_point=object())  # type: ignore[arg-type]
    assert catalogue._first_line(origin) == "plug-in: package 1.0"


def test_a_local_set_hides_the_hubs_of_the_same_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue.datasets, "available", lambda: {"ag_news": "/here/ag_news", "mine": "/here/mine"})
    found = catalogue.everything("datasets")["datasets"]
    assert found["ag_news"] == "/here/ag_news" and found["mine"] == "/here/mine"
    assert any(about.startswith("hub: ") for about in found.values())
    assert "ag_news" not in catalogue.data()["missing"]


def test_a_scheme_is_described_by_its_terms() -> None:
    from grit.bench.schemes import SCHEMES

    found = catalogue.everything("schemes")["schemes"]
    assert set(found) == set(SCHEMES)
    for name, about in found.items():
        assert about.count(" + ") == len(SCHEMES[name].terms) - 1
        for part in about.split(" + "):
            weight, _, objective = part.partition(" ")
            assert float(weight) > 0 and objective
    assert found["pgd"] == "1 task + 1 perturb[kind=pgd]"
    assert len(set(found.values())) == len({repr(scheme.terms) for scheme in SCHEMES.values()})  # others read otherwise


@given(
    st.dictionaries(
        st.text("abc_", min_size=1, max_size=9),
        st.text(st.characters(exclude_categories=["C", "Z"]), max_size=120),
        max_size=5,
    ),
    st.integers(20, 90),
)
def test_names_stand_whole_in_a_column_and_long_lines_say_that_they_go_on(found: dict[str, str], width: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        patch.setenv("LINES", "24")
        lines = catalogue.render({"attacks": found}).split("\n")
    assert lines[0] == "attacks" and len(lines) == len(found) + 1
    column = max(map(len, found), default=0) + 4
    for line, (name, about) in zip(lines[1:], found.items(), strict=True):
        assert len(line) <= width and line[2:].startswith(name)
        whole = f"  {name}".ljust(column) + about
        assert line == whole or (len(whole) > width and line == whole[: width - 3] + "...")


# --- what is missing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("here", [True, False])
def test_a_missing_set_says_what_would_fetch_it(monkeypatch: pytest.MonkeyPatch, no_data: Path, here: bool) -> None:
    specs = {"datasets": object() if here else None}
    find_spec = catalogue.importlib.util.find_spec
    monkeypatch.setattr(
        catalogue.importlib.util, "find_spec", lambda name: specs[name] if name in specs else find_spec(name)
    )
    for name, how in catalogue.data()["missing"].items():
        assert ("fetched on first use" in how) == here and ("pip install 'gritbench[hub]'" in how) != here
        assert catalogue.datasets.HUB[name] in how


def test_a_page_of_data_lists_each_part_under_its_heading() -> None:
    found = {
        "folders": ["/one", "/two"],
        "here": {"pings": "embedded"},
        "missing": {},
        "lexicons": {"default": "thesaurus"},
    }
    assert catalogue.render_data(found).split("\n") == [
        "data folders: /one, /two",
        "here",
        "  pings  embedded",
        "lexicons",
        "  default  thesaurus",
    ]
    lines = catalogue.render_data({**found, "missing": {"big": "fetch it"}}).split("\n")
    assert lines[3:5] == ["missing", "  big  fetch it"]


def test_each_place_of_a_target_is_listed_with_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Board:
        places = ("board://a", "board://b")

        @staticmethod
        def missing() -> str | None:
            return "apt install board"

    class Plain:
        pass

    kinds = {"board": Board, "plain": Plain}
    monkeypatch.setattr(catalogue.registry, "names", lambda kind: dict.fromkeys(kinds))
    monkeypatch.setattr(catalogue.registry, "load", lambda kind, name: kinds[name])
    assert catalogue._targets() == {
        "board://a": "apt install board",
        "board://b": "apt install board",
        "plain": "ready",
    }
    page = catalogue.render_doctor(
        {"system": "S", "machine": "m", "cores": 2, "capabilities": {"c": "ready"}, "targets": catalogue._targets()}
    )
    assert page.split("\n") == [
        "S on m, 2 cores",
        "capabilities",
        "  c  ready",
        "targets",
        "  board://a  apt install board",
        "  board://b  apt install board",
        "  plain      ready",
    ]
