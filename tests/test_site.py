"""The page: the same bytes for the same rows, no request to anywhere, and usable by mouse, keyboard and phone."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from grit.bench import leaderboard, records, site
from grit.bench.leaderboard import Section
from grit.bench.records import Row
from grit.bench.types import Edit, Outcome, StorageError


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Poke:
    beam: int = 3


def row_of(
    model: str, scheme: str = "natural", robust: float = 0.4, size: int = 100_000, dataset: str = "made", n: int = 1000
) -> Row:
    """A row over two labels, 90 % clean, of whose examples the first stand."""
    ids = [sha(f"{dataset}{at}")[:16] for at in range(n)]
    lines, outcomes = [], []
    for at, id_ in enumerate(ids):
        label, right = at % 2, at < 0.9 * n
        lines.append(records.Clean(id=id_, label=label, predicted=label if right else 1 - label, margin=None))
        if not right:
            outcomes.append(Outcome(id_, "skipped", words=8))
        elif at < robust * n:
            outcomes.append(Outcome(id_, "survived", predicted=label, queries=9, words=8))
        else:
            outcomes.append(Outcome(id_, "broken", (Edit("replace", 1, "w"),), 1 - label, 0.5, 5, words=8))
    evidence = records.Evidence(tuple(lines), {"pwws.strong+thesaurus": tuple(outcomes)})
    data = records.DataPart(
        name=dataset,
        revision=sha(dataset),
        split="test",
        n=n,
        selection="hash rank",
        labels=("later", "now"),
        label_counts=(n - n // 2, n // 2),
    )
    clean = records.clean_part(lines, 2)
    attacks = tuple(records.attack_part(name, Poke(), found) for name, found in evidence.attacks.items())
    clock = records.CostPart(target="local", engine="fixed", kind="measured", values={"p50_us": 17.5})
    record = records.Record(
        model=records.ModelPart(name=model, config={}, repr="", parameters=98_000),
        scheme=records.SchemePart(name=scheme, terms=()),
        training=None,
        data=data,
        artefact=records.ArtefactPart(
            format="fixed",
            precision="int8",
            digest=sha(model + scheme),
            sizes_bytes={"weights": size},
            total_bytes=size,
        ),
        clean=clean,
        attacks=attacks,
        worst=records.worst_case(evidence),
        flags=records.flags(data, clean, attacks, embedded=False),
        run=records.RunPart(created="2026-01-01T00:00:00Z", seconds={}, cost=(clock,)),
    )
    return Row(record, evidence)


ROWS = [
    row_of("student", "natural", 0.2, 101_000),
    row_of("student", "proposed", 0.5, 101_000),
    row_of("fastgrnn", "natural", 0.1, 180_000),
    row_of("prado", "proposed", 0.45, 118_000),
    row_of("bag", "natural", 0.3, 1_900_000),
    row_of("tiny", "natural", 0.3, 9_000, dataset="other", n=200),
]


@pytest.fixture(scope="module")
def sections() -> tuple[Section, ...]:
    return leaderboard.board(ROWS)


@pytest.fixture(scope="module")
def page(sections: tuple[Section, ...]) -> str:
    return site.render(sections).decode()


class Reader(HTMLParser):
    """Elements with their attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
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
    for hash_seed in ("1", "2"):
        out = tmp_path / f"site{hash_seed}"
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path), str(out)], env={"PYTHONHASHSEED": hash_seed}, check=True
        )
        assert (out / "index.html").read_text(encoding="utf-8") == page


def test_nothing_is_fetched_from_anywhere(page: str) -> None:
    reader = Reader(page)
    for tag, attributes, _ in reader.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, name, value)
    (style,) = reader.all("style")
    assert "@import" not in style[1] and "url(" not in style[1]


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
    vendored = {file.name for file in folder.glob("*.js")} - {"page.js"}
    assert set(named) == vendored == {"d3.min.js", "plot.umd.min.js"}
    for name, digest in named.items():
        content = (folder / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert b"Copyright" in content[:200]  # the licence header stays
    assert sum((folder / name).stat().st_size for name in named) < 1_000_000


def test_the_notices_of_third_parties_are_on_the_page(page: str) -> None:
    (notices,) = Reader(page).all("pre")
    assert "Permission to use, copy, modify, and/or distribute this software" in notices[1]


def test_the_data_of_the_page_are_the_board(sections: tuple[Section, ...], page: str) -> None:
    (found,) = [json.loads(text) for attributes, text in Reader(page).all("script") if attributes.get("id") == "data"]
    for section in found["sections"]:
        keys = section.pop("keys")
        section["rows"] = [dict(zip(keys, row, strict=True)) for row in section["rows"]]
    assert found == json.loads(leaderboard.as_json_text(sections))


def test_the_table_stands_without_the_program(sections: tuple[Section, ...], page: str) -> None:
    reader = Reader(page)
    cells = [" ".join(text.split()) for _, text in reader.all("tr")]
    assert len(cells) == len(ROWS) + len(sections)  # rows and headings
    assert "1 student proposed 50.0 [46.9, 53.1]" in cells[1] and "500/1000" in cells[1]
    assert "17.5 µs" in cells[1] and "101" in cells[1]
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
    (data,) = [json.loads(text) for attributes, text in reader.all("script") if attributes.get("id") == "data"]
    assert hostile in data["sections"][0]["rows"][0]


def test_an_empty_board_is_a_page() -> None:
    assert b"<h1>gritbench board</h1>" in site.render(())


def test_fifteen_hundred_rows_stay_below_five_megabytes() -> None:
    rows = []
    for dataset in ("a", "b", "c"):
        base = row_of("m", dataset=dataset, n=20).record
        rows += [
            Row(msgspec.structs.replace(base, model=msgspec.structs.replace(base.model, name=f"model-{at}")), None)
            for at in range(500)
        ]
    assert len(site.render(leaderboard.board(rows))) < 5_000_000


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


# --- in a browser --------------------------------------------------------------------------------------------------


ENTER, TAB = "\ue007", "\ue004"  # as WebDriver writes these keys
NAMES = ["bag", "fastgrnn", "prado", "student"]


class Browser:
    """A headless Chromium over the WebDriver protocol (W3C), with what these tests need of it."""

    def __init__(self, driver: str, chromium: str, downloads: Path) -> None:
        self.downloads = downloads
        self._process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        ready = (re.search(r"successfully on port (\d+)", line) for line in self._process.stdout)
        self._url = f"http://127.0.0.1:{next(found[1] for found in ready if found)}/session"
        self._session = ""
        flags = "headless no-sandbox disable-gpu disable-background-networking no-first-run disable-dev-shm-usage"
        options = {
            "binary": chromium,
            "args": [f"--{flag}" for flag in flags.split()],
            "prefs": {"download.default_directory": str(downloads), "download.prompt_for_download": False},
        }
        logs = {"browser": "ALL", "performance": "ALL"}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": logs}}
        try:
            self._session = "/" + self._call("POST", "", {"capabilities": wanted})["sessionId"]
        except BaseException:  # whatever went wrong, no driver is left running
            self.close()
            raise

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._url + self._session + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, path: Path, width: int = 1280, height: int = 900, dark: bool = False) -> Self:
        """Loads a page on a screen of this size, in this theme, with empty logs."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        theme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        for command, fields in (("setDeviceMetricsOverride", screen), ("setEmulatedMedia", theme)):
            self._call("POST", "/goog/cdp/execute", {"cmd": f"Emulation.{command}", "params": fields})
        for kind in ("browser", "performance"):
            self.log(kind)
        self._call("POST", "/url", {"url": path.as_uri()})
        return self

    def run(self, script: str, *arguments: Any) -> Any:
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def keys(self, *keys: str) -> None:
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def point(self, x: float, y: float) -> None:
        move = {"type": "pointerMove", "duration": 50, "x": round(x), "y": round(y), "origin": "viewport"}
        self._call("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [move]}]})

    def log(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call("POST", "/se/log", {"type": kind})
        return found

    def requests(self) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def close(self) -> None:
        try:
            if self._session:
                self._call("DELETE", "")
        finally:
            self._process.terminate()
            self._process.wait()


@pytest.fixture(scope="module")
def browser(need_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(need_tool("chromedriver"), need_tool("chromium"), tmp_path_factory.mktemp("downloads"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def board(sections: tuple[Section, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the board, as a file."""
    return site.write_page(sections, tmp_path_factory.mktemp("site"))


FIGURE = "document.querySelector('.plot svg[aria-label^=Worst]')"
HEADING = "document.querySelector('table').tHead.rows[0].cells[arguments[0]]"
COLUMN = """
return Array.from(document.querySelector('table').tBodies[0].rows,
                  row => row.cells[arguments[0]].innerText.split('\\n')[0].trim())
"""
BOXES = """
return Array.from(document.querySelectorAll(arguments[0]), element => {
  const box = element.getBoundingClientRect();
  return {text: element.textContent, left: box.left, right: box.right, top: box.top, bottom: box.bottom};
})
"""
COLOURS = """
const style = getComputedStyle(document.body);
return [style.color, style.backgroundColor].map(colour => colour.match(/\\d+/g).slice(0, 3).map(Number))
"""


@pytest.mark.browser
def test_the_page_asks_nobody_and_complains_of_nothing(browser: Browser, board: Path) -> None:
    page = browser.open(board)
    assert page.run("return document.querySelectorAll('.plot circle').length") == len(ROWS)
    assert {url.split(":")[0] for url in page.requests()} <= {"file", "data"}
    assert [entry["message"] for entry in page.log("browser")] == []


@pytest.mark.browser
def test_headings_sort_by_mouse_and_by_keyboard(browser: Browser, board: Path) -> None:
    page = browser.open(board)
    assert page.run(COLUMN, 1) == ["student", "prado", "bag", "student", "fastgrnn"]
    page.run(f"{HEADING}.querySelector('button').click()", 1)
    assert page.run(COLUMN, 1) == ["bag", "fastgrnn", "prado", "student", "student"]
    assert page.run(f"return {HEADING}.getAttribute('aria-sort')", 1) == "ascending"
    assert page.run("return document.getElementById('status').textContent").startswith("Sorted by Model")
    page.run(f"{HEADING}.querySelector('button').focus()", 3)
    page.keys(ENTER)  # numbers: the largest first
    worst = [float(text.split()[0]) for text in page.run(COLUMN, 3)]
    assert worst == sorted(worst, reverse=True)
    page.keys(" ")
    assert [float(text.split()[0]) for text in page.run(COLUMN, 3)] == worst[::-1]
    assert page.run("return document.querySelector('table').querySelectorAll('[aria-sort]').length") == 1


@pytest.mark.browser
def test_the_keyboard_reaches_everything_in_order(browser: Browser, board: Path) -> None:
    page = browser.open(board)
    seen = []
    for _ in range(12):
        page.keys(TAB)
        seen.append(page.run("return document.activeElement.innerText.trim().split('\\n')[0]"))
    assert seen[:4] == ["made (test, n = 1000)", "other (test, n = 200)", "Download CSV", "Download JSON"]
    assert [text.split()[0] for text in seen[5:]] == ["Rank", "Model,", "Scheme", "Worst", "Clean", "pwws", "ECE"]


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844), (320, 600)])
def test_the_page_fits_any_screen_in_both_themes(
    browser: Browser, board: Path, width: int, height: int, dark: bool
) -> None:
    page = browser.open(board, width, height, dark)
    assert page.run("return document.documentElement.scrollWidth") <= width
    (figure, *_) = page.run(BOXES, ".plot svg[aria-label^=Worst]")
    assert figure["left"] >= 0 and figure["right"] <= width + 1
    ink, paper = page.run(COLOURS)
    assert (sum(paper) < 150) == dark and abs(sum(ink) - sum(paper)) > 450
    names = [box for box in page.run(BOXES, "[data-section='0'] svg text") if box["text"] in NAMES]
    assert sorted(box["text"] for box in names) == sorted(NAMES)
    for at, box in enumerate(names):
        for other in names[:at]:  # no name hides another
            aside = box["right"] <= other["left"] or other["right"] <= box["left"]
            assert aside or box["bottom"] <= other["top"] + 3 or other["bottom"] <= box["top"] + 3


@pytest.mark.browser
def test_the_figure_follows_the_width_of_the_window(browser: Browser, board: Path) -> None:
    page = browser.open(board)
    width = f"return {FIGURE}.getBoundingClientRect().width"
    before = page.run(width)
    page.run("document.body.style.width = '600px'")
    until(lambda: page.run(width) < 600)
    assert page.run(width) < 600 < before


@pytest.mark.browser
def test_pointing_at_a_point_names_the_row(browser: Browser, board: Path) -> None:
    page = browser.open(board)
    box = page.run(BOXES, ".plot circle")[0]
    for aside in (3, 0):
        page.point((box["left"] + box["right"]) / 2 - aside, (box["top"] + box["bottom"]) / 2)
    tip = page.run(f"return {FIGURE}.querySelector('[aria-label=tip]').textContent")
    assert "worst case" in tip and "clean 90.0 %" in tip and "local p50 17.5 µs" in tip


@pytest.mark.browser
def test_downloads_are_the_board(browser: Browser, board: Path, sections: tuple[Section, ...]) -> None:
    page = browser.open(board)
    for kind in ("csv", "json"):
        page.run(f"document.querySelector('[data-download={kind}]').focus()")
        page.keys(ENTER)
        until((browser.downloads / f"board.{kind}").is_file)
    found = json.loads((browser.downloads / "board.json").read_text(encoding="utf-8"))
    assert found == json.loads(leaderboard.as_json_text(sections))
    theirs = (browser.downloads / "board.csv").read_text(encoding="utf-8")
    assert values(theirs) == values(leaderboard.comma_separated(sections))


def values(text: str) -> list[dict[str, Any]]:
    """Rows of a CSV file, its numbers as numbers: programs write 20 and 20.0, true and True."""
    number = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
    return [
        {key: float(value) if number.fullmatch(value) else value.lower() for key, value in row.items()}
        for row in csv.DictReader(io.StringIO(text))
    ]


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
