"""The page as bytes: the same for the same rows, without a request to anywhere, and whole without its program."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from grit.bench import leaderboard, records, site, submission, verify
from grit.bench.leaderboard import Section, Verified
from grit.bench.records import Row
from grit.bench.site import data, verdicts
from grit.bench.types import StorageError

sys.path.append(str(Path(__file__).parent))

import made_boards
from made_rows import PWWS, row_of, sha

ROWS = [
    row_of("student", "natural", robust=0.2, size=101_000),
    row_of("student", "proposed", robust=0.5, size=101_000),
    row_of("fastgrnn", "natural", robust=0.1, size=180_000),
    row_of("tiny", "natural", robust=0.3, size=9_000, dataset="other", n=200),
]


@pytest.fixture(scope="module")
def sections() -> tuple[Section, ...]:
    return leaderboard.board(ROWS)


@pytest.fixture(scope="module")
def page(sections: tuple[Section, ...]) -> str:
    return site.render(sections).decode()


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Section, ...]:
    """Rows with all that a row can have, over few examples."""
    return made_boards.board(tmp_path_factory.mktemp("made"), n=60)


def unzipped(text: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(text)))


class Reader(HTMLParser):
    """Elements with their attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        ended = {"td": {"td", "th"}, "th": {"td", "th"}, "tr": {"td", "th", "tr"}}.get(tag, set())  # by this one
        while self._open and self.elements[self._open[-1]][0] in ended:
            self._open.pop()
        self.elements.append((tag, dict(attrs), []))
        if tag not in ("meta", "link", "img", "br"):
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self.elements[self._open.pop()][0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for at in self._open:
            self.elements[at][2].append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, "".join(text)) for name, attributes, text in self.elements if name == tag]


# --- the bytes -----------------------------------------------------------------------------------------------


def test_equal_rows_are_equal_bytes(sections: tuple[Section, ...], page: str) -> None:
    assert site.render(leaderboard.board(ROWS[::-1])).decode() == page
    assert site.render(leaderboard.board(ROWS[1:])).decode() != page


def test_other_processes_write_the_same_bytes(tmp_path: Path, page: str) -> None:
    for row in ROWS:
        folder = tmp_path / sha(repr(row.record))[:8]
        records.append(folder / records.RECORDS, row.record)
        assert row.evidence
        records.write_evidence(folder / "evidence", row.evidence)
    program = (
        "import sys; from pathlib import Path; from grit.bench import leaderboard, site;"
        "site.write_page(leaderboard.board(leaderboard.load([Path(sys.argv[1])])), Path(sys.argv[2]))"
    )
    environment = {"PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", program, str(tmp_path), str(tmp_path / "site")], env=environment, check=True)
    assert (tmp_path / "site" / "index.html").read_text(encoding="utf-8") == page


def test_nothing_is_fetched_from_anywhere(page: str) -> None:
    reader = Reader(page)
    for tag, attributes, _ in reader.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, name, value)
    for _, style in reader.all("style"):
        assert "@import" not in style and "url(" not in style


def test_the_content_policy_allows_the_programs_of_the_page_alone(page: str) -> None:
    reader = Reader(page)
    (policy,) = [a["content"] for a, _ in reader.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy and "default-src 'none'" in policy and "connect-src" not in policy
    programs = [text for attributes, text in reader.all("script") if "type" not in attributes]
    assert len(programs) == 3
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    assert allowed == [base64.b64encode(hashlib.sha256(program.encode()).digest()).decode() for program in programs]
    assert "'unsafe-inline'" not in policy.split("script-src")[1]


def test_vendored_files_are_those_that_are_named(root: Path) -> None:
    folder = root / "bench" / "site"
    named = dict(re.findall(r"^(\S+\.js) .*\n\s+sha256 ([0-9a-f]{64})$", (folder / "vendored.txt").read_text(), re.M))
    scripts = {file.name for file in folder.glob("*.js")}
    assert set(named) == {"d3.min.js", "plot.umd.min.js"} and scripts - set(named) == set(site.PROGRAM)
    for name, digest in named.items():
        content = (folder / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert b"Copyright" in content[:200]  # the licence header stays
    assert sum((folder / name).stat().st_size for name in named) < 1_000_000


def test_the_notices_of_third_parties_are_on_the_page(page: str) -> None:
    (notices,) = Reader(page).all("pre")
    assert "Permission to use, copy, modify, and/or distribute this software" in notices[1]


def test_the_data_of_the_page_are_the_board(sections: tuple[Section, ...], page: str) -> None:
    (found,) = [unzipped(text) for attributes, text in Reader(page).all("script") if attributes.get("id") == "data"]
    for section in found["sections"]:
        keys = section.pop("keys")
        section["rows"] = [dict(zip(keys, row, strict=True)) for row in section["rows"]]
        assert len(section.pop("more")["rows"]) == len(section["rows"])
    assert found == json.loads(leaderboard.as_json_text(sections))


def test_the_table_stands_without_the_program(sections: tuple[Section, ...], page: str) -> None:
    reader = Reader(page)
    cells = [" ".join(text.split()) for _, text in reader.all("tr")]
    assert len(cells) == len(ROWS) + len(sections)  # rows and headings
    assert re.match(r"1 ?student ?proposed ?49.9 \[46.8, 53.0\] ?499/1000", cells[1])
    assert "20 µs" in cells[1] and "101" in cells[1] and "100 of made, licence unknown, no overlap found" in cells[1]
    assert "unranked" in cells[-1] and "small" in cells[-1]
    assert "Majority floor: 50.0 % (500/1000), always answering 'later'." in page.replace("&#39;", "'")


def test_the_page_is_marked_up_for_readers_of_the_screen(page: str) -> None:
    reader = Reader(page)
    (html,) = reader.all("html")
    assert html[0]["lang"] == "en" and reader.all("title")[0][1]
    assert [a.get("scope") for a, _ in reader.all("th")].count("row") == len(ROWS)
    assert all(a.get("scope") in ("row", "col") for a, _ in reader.all("th"))
    assert len(reader.all("caption")) == len(reader.all("table")) == 2
    ids = [a["id"] for _, a, _ in reader.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes, _ in reader.elements:
        assert attributes.get("aria-labelledby", ids[0]) in ids
        href = attributes.get("href")
        assert href is None or not href.startswith("#") or href[1:] in ids


def test_raised_flags_are_explained(page: str) -> None:
    names = [text.split()[0] for _, text in Reader(page).all("dt")]
    assert names == ["small"]


def test_names_are_text() -> None:
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028'\"&"
    page = site.render(leaderboard.board([row_of(hostile, hostile)])).decode()
    reader = Reader(page)
    assert len([1 for attributes, _ in reader.all("script") if "type" not in attributes]) == 3 and not reader.all("img")
    assert hostile in [text.strip() for a, text in reader.all("th") if a.get("scope") == "row"]
    (found,) = [unzipped(text) for attributes, text in reader.all("script") if attributes.get("id") == "data"]
    assert hostile in found["sections"][0]["rows"][0]


def test_an_empty_board_is_a_page() -> None:
    assert b"<h1>gritbench board</h1>" in site.render(())


def test_a_folder_that_cannot_be_written(tmp_path: Path, sections: tuple[Section, ...]) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        site.write_page(sections, tmp_path / "file")


def test_nothing_heavy_until_it_renders() -> None:
    program = (
        "import sys, grit.bench.site; heavy = ('torch', 'numpy', 'jinja2');"
        "sys.exit(', '.join(name for name in heavy if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- columns and badges ----------------------------------------------------------------------------------------


def headings(page: str) -> list[str]:
    return [text for attributes, text in Reader(page).all("th") if "data-key" in attributes]


def test_columns_stand_where_a_row_states_them(page: str, furnished: tuple[Section, ...]) -> None:
    few = headings(page)
    assert few.count("kB") == few.count("Local p50") == 2 and not {"RAM kB", "M4 instr.", "Floor %", "Verified"} & {
        *few
    }
    made = headings(site.render(furnished[:1]).decode())
    assert made == [
        *("Rank", "Model, flags", "Scheme", "Seed", "Worst case %", "Floor %", "Clean %", "deepwordbug %", "pwws %"),
        *("ECE %", "kB", "RAM kB", "A53 instr.", "A76 instr.", "M4 instr.", "Local p50", "Verified", "Trained on"),
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (9_996, "10 k"), (1_234_567, "1.23 M"), (4e9, "4 G"), (999_600, "1 M")]
)
def test_counts_have_three_digits(value: int, text: str) -> None:
    assert site.count(value) == text


def test_badges_say_level_and_date(furnished: tuple[Section, ...]) -> None:
    lines = {text for attributes, text in Reader(site.render(furnished).decode()).all("tr") if "proposed" in text}
    assert any("current spot 2026-02-01" in text and "48.5" in text for text in lines)
    everything = site.render(furnished).decode()
    assert "replay 2026-02-03 lowered to 150/60" in everything and "stale</span> <small>full 2025-12-24" in everything


def test_a_refuted_row_has_no_rank_and_stands_below() -> None:
    digest = records.row_digest(ROWS[1].record)
    verdict = Verified("refuted", "spot", "2026-02-04", None, None)
    (section, _) = leaderboard.board(ROWS, verified={digest: verdict})
    last = section.lines[-1]
    assert (last.record.scheme.name, last.rank, last.fronts) == ("proposed", None, {})
    assert last.unranked == ("its claim was refuted on 2026-02-04",)
    assert [line.rank.group for line in section.lines[:-1] if line.rank] == [1, 2]


def report(record: records.Record, bundle: str, **changes: Any) -> verify.Report:
    """A verdict that holds today, unless changed."""
    from grit import __version__

    key = {
        "bundle_sha256": bundle,
        "level": "spot",
        "suite_sha256": record.suite_sha256,
        "data_revision": record.data.revision,
        "pool_sha256": None,
        "spot": 100,
        "nonce": "n",
        "sandbox": "none",
        "verifier": __version__,
        "versions": {},
    }
    floor = {"claimed": record.worst.low, "n": record.worst.n, "drawn": 100, "bound": 0.0295, "verified": 0.4}
    fields = {
        "code": 0,
        "says": "verified",
        "findings": (),
        "checks": (),
        "floor": floor,
        "created": "2026-02-01T10:00:00Z",
    }
    key |= {name: changes.pop(name) for name in list(changes) if name in key}
    return msgspec.convert({"schema_version": 1, "seconds": 1.0, "key": key, **fields, **changes}, verify.Report)


LOWER = {"low": 1, "high": 1, "n": 1000}


@pytest.mark.parametrize(
    ("changes", "state", "floor", "lowered"),
    [
        ({}, "current", 0.4, None),
        ({"lowered": LOWER}, "challenged", None, 1),
        ({"code": 1}, "refuted", None, None),
        ({"code": 4}, "unverified", None, None),
        ({"verifier": "0.0.1"}, "stale", None, None),
        ({"data_revision": sha("other")}, "stale", None, None),
        ({"suite_sha256": sha("other")}, "stale", None, None),
        ({"level": "lint", "suite_sha256": None, "data_revision": None, "floor": None}, "current", None, None),
        ({"code": 1, "bundle_sha256": sha("another bundle")}, "stale", None, None),
    ],
)
def test_what_a_verdict_says_today(
    changes: dict[str, Any], state: str, floor: float | None, lowered: int | None
) -> None:
    record = ROWS[0].record
    found = verdicts.badge(report(record, sha("bundle"), **changes), record, sha("bundle"))
    assert found == Verified(state, changes.get("level", "spot"), "2026-02-01", floor, lowered)  # type: ignore[arg-type]


def test_verdicts_are_read_beside_their_bundles(tmp_path: Path) -> None:
    def bundle(name: str, row: Row) -> str:
        record = msgspec.structs.replace(
            row.record, artefact=msgspec.structs.replace(row.record.artefact, format="onnx")
        )
        seeds = submission.Seeds(attacks=0, training=0, reported=(0,))
        said = submission.Submission(
            record=record, seeds=seeds, determinism=submission.Determinism(exact=True), adaptive="none"
        )
        assert row.evidence
        digest = submission.write(tmp_path / name, submission.files_of(said, {}, row.evidence))
        if name != "unseen":
            records.write(tmp_path / name / submission.VERDICT, verify.encode(report(record, digest)))
        return records.row_digest(record)

    digests = [bundle(name, row_of(name, n=20)) for name in ("one", "two", "unseen")]
    found = verdicts.below([tmp_path])
    assert set(found) == set(digests[:2]) and {badge.state for badge in found.values()} == {"current"}
    (section,) = leaderboard.board(submission.rows(tmp_path), verified=found)
    assert sorted(line.model for line in section.lines if line.verified) == ["one", "two"]


# --- what the program is given ---------------------------------------------------------------------------------


def bits(text: str, n: int) -> list[bool]:
    raw = base64.b64decode(text)
    return [bool(raw[at // 8] >> 7 - at % 8 & 1) for at in range(n)]


def test_one_bit_says_whether_an_example_stands(furnished: tuple[Section, ...]) -> None:
    section = furnished[0]
    more = data.more(section)
    n = section.data.n
    assert more["ids"] == sorted(more["ids"]) and len(more["ids"]) == n
    for line, row in zip(section.lines, more["rows"], strict=True):
        clean, *attacks = (bits(text, n) for text in row["right"])
        assert sum(clean) == line.record.clean.k
        assert [sum(found) for found in attacks] == [attack.robust.low for attack in line.record.attacks]
        assert line.evidence
        standing = line.evidence.robust()
        for at, id_ in enumerate(more["ids"]):
            assert (clean[at] and all(found[at] for found in attacks)) == standing[id_]


def test_confusions_add_up(furnished: tuple[Section, ...]) -> None:
    for line in furnished[0].lines:
        assert line.evidence
        found = data.confusion(line.evidence)
        assert sum(count for *_, count in found) == line.record.data.n
        assert sum(count for label, said, count in found if label == said) == line.record.clean.k


def test_scripts_name_no_text(furnished: tuple[Section, ...]) -> None:
    line = furnished[0].lines[0]
    found = data.scripts(line)
    ids = data.more(furnished[0])["ids"]
    assert found["row"] == data.key(line) and set(found["breaks"]) == {attack.name for attack in line.record.attacks}
    assert line.evidence
    theirs = {outcome.id: outcome for outcome in line.evidence.attacks[PWWS] if outcome.outcome == "broken"}
    assert {ids[place] for place, *_ in found["breaks"][PWWS]} == set(theirs)
    for place, answer, queries, script in found["breaks"][PWWS]:
        outcome = theirs[ids[place]]
        assert (answer, queries, script) == (outcome.predicted, outcome.queries, outcome.script)


def test_scripts_without_room_lie_beside_the_page(tmp_path: Path, furnished: tuple[Section, ...]) -> None:
    all_inside, none_inside = data.pack(furnished), data.pack(furnished, room=0)
    assert not all_inside.beside and not none_inside.inside
    assert set(all_inside.inside) == set(none_inside.beside) == {data.key(line) for s in furnished for line in s.lines}
    for key, text in all_inside.inside.items():
        assert base64.b64decode(text) == none_inside.beside[key]
    one = len(next(iter(all_inside.inside.values())))
    assert len(data.pack(furnished, room=one).inside) >= 1


def test_files_beside_the_page_are_written(
    tmp_path: Path, furnished: tuple[Section, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.pack, "__defaults__", (0,))
    path = site.write_page(furnished, tmp_path)
    files = sorted((tmp_path / site.SCRIPTS).iterdir())
    assert len(files) == sum(len(section.lines) for section in furnished)
    first = json.loads(gzip.decompress(files[0].read_bytes()))
    assert files[0].name == f"{first['row']}.json.gz"
    assert 'id="scripts-' not in path.read_text(encoding="utf-8")


def test_a_row_without_evidence_is_shown_without_it() -> None:
    (section,) = leaderboard.board([row_of("claim", evidence=False, n=20)])
    (row,) = data.more(section)["rows"]
    assert row["right"] is None and row["confusion"] is None and data.more(section)["ids"] == []
    assert b"claim" in site.render((section,))


def test_rows_beyond_the_first_wait_for_the_program_and_are_there_without_it() -> None:
    made = [row_of(f"m{at}", n=20, robust=0.5) for at in range(site.FIRST_ROWS + 3)]
    page = site.render(leaderboard.board(made)).decode()
    rows = [attributes for attributes, _ in Reader(page).all("tr")]
    assert sum("hidden" in attributes for attributes in rows) == 3
    assert "<noscript><style>tr[hidden] { display: table-row !important; }</style></noscript>" in page


def test_fronts_are_of_each_cost(furnished: tuple[Section, ...]) -> None:
    fronts = {
        (line.model, line.seed): line.fronts for line in furnished[0].lines if line.record.scheme.name == "proposed"
    }
    assert fronts["prado", 0].keys() == {"total_bytes", "instructions_a53", "instructions_a76", "instructions_m4"}
    assert fronts["prado", 0]["instructions_m4"]  # the cheapest of all
    (tiny,) = furnished[1].lines
    assert tiny.fronts == {"total_bytes": True}


def test_cells_state_emulated_costs_and_where_it_was_trained(furnished: tuple[Section, ...]) -> None:
    found = {line.model: leaderboard.cells(line) for line in furnished[0].lines}
    prado, bag = found["prado"], found["bag"]
    assert (prado["instructions_a53"], prado["instructions_m4"], prado["ram_bytes"]) == (810_000, 900_000, 4_900)
    assert bag["instructions_m4"] is None and bag["ram_bytes"] is None
    assert (prado["training_licence"], prado["training_n"], prado["overlap"]) == ("CC0-1.0", 100, "")
    assert (prado["verified"], prado["verified_on"], prado["verified_floor"]) == ("stale", "2025-12-24", None)
