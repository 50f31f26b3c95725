"""The page in a real Chromium: by mouse, keyboard and phone, without a request and without a complaint."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from grit.bench import compare, diffs, leaderboard, sentence, site, statistics, text
from grit.bench.leaderboard import Line, Section, Verified
from grit.bench.operands import Operand
from grit.bench.site import data
from grit.bench.types import Edit

sys.path.append(str(Path(__file__).parent))

import made_boards
from made_rows import PWWS, row_of

pytestmark = pytest.mark.browser

N = 60  # examples of a row: enough to read, quick to make
DESKTOP, PHONE = (1280, 900), (390, 844)


class Browser:
    """A headless Chromium with a page in it."""

    def __init__(self, driver: str, chromium: str, downloads: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        self.downloads = downloads
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        flags = "headless=new no-sandbox disable-gpu disable-background-networking no-first-run disable-dev-shm-usage"
        for flag in flags.split():
            options.add_argument(f"--{flag}")
        prefs = {"download.default_directory": str(downloads), "download.prompt_for_download": False}
        options.add_experimental_option("prefs", prefs)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))

    def open(self, path: Path, state: str = "", size: tuple[int, int] = DESKTOP, dark: bool = False) -> Self:
        """Loads a page on a screen of this size, in this theme, with empty logs; returns when it is ready."""
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600}
        theme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", theme)
        self.driver.get("about:blank")  # else another state of the same page would be no load
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get(path.as_uri() + state)
        self.until("document.documentElement.dataset.ready !== undefined")
        return self

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def ask(self, expression: str, *arguments: Any) -> Any:
        return self.run(f"return {expression}", *arguments)

    def until(self, expression: str, seconds: float = 30.0) -> None:
        """Waits for something to be true on the page."""
        end = time.monotonic() + seconds
        while not self.ask(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.05)

    def keys(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def hand_in(self, *files: Path) -> str:
        """Chooses files as a reader does; what the page says about them."""
        self.driver.find_element("css selector", "#view input[type=file]").send_keys("\n".join(map(str, files)))
        self.until("document.querySelector('#view output')?.value")
        return str(self.ask("document.querySelector('#view output').value"))

    def requests(self) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser(need_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(need_tool("chromedriver"), need_tool("chromium"), tmp_path_factory.mktemp("downloads"))
    yield found
    found.driver.quit()


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> tuple[Section, ...]:
    return made_boards.board(tmp_path_factory.mktemp("made"), N)


@pytest.fixture(scope="module")
def board(sections: tuple[Section, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the board, as a file."""
    return site.write_page(sections, tmp_path_factory.mktemp("site"))


def key(sections: tuple[Section, ...], model: str, scheme: str = "natural", seed: int = 0) -> str:
    lines = [line for section in sections for line in section.lines]
    (found,) = [
        data.key(x) for x in lines if (x.record.model.name, x.record.scheme.name, x.seed) == (model, scheme, seed)
    ]
    return found


COLUMN = """
return Array.from(document.querySelector('table').tBodies[0].rows).filter(row => !row.hidden)
  .map(row => row.cells[arguments[0]].innerText.split('\\n')[0].trim())
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
TYPE = """
const field = document.forms.filters.elements[arguments[0]];
field.value = arguments[1];
field.dispatchEvent(new Event('input', {bubbles: true}));
"""
HEADING = "document.querySelector(`th[data-key='${arguments[0]}'] button`)"
FIGURES = "document.querySelectorAll('#board-0 figure[data-cost] svg[aria-label^=Worst]')"
SHOWN = "document.querySelector('#filters output').value"


# --- nobody is asked, nothing complains -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_page_asks_nobody_and_complains_of_nothing(
    browser: Browser, board: Path, sections: tuple[Section, ...], size: tuple[int, int]
) -> None:
    one, two = key(sections, "student", "proposed"), key(sections, "prado", "proposed")
    for state in ("", f"#row={one}", f"#a={one}&b={two}"):
        page = browser.open(board, state, size)
        page.until("document.querySelectorAll('.plot svg, #view .sentence').length > 0")
        assert {url.split(":")[0] for url in page.requests()} <= {"file", "data", "about", "blob"}
        assert page.complaints() == []


# --- the table ------------------------------------------------------------------------------------------------


def test_headings_sort_by_mouse_and_by_keyboard_and_links_keep_it(browser: Browser, board: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    page = browser.open(board)
    first = page.run(COLUMN, 1)
    assert first[:2] == ["student", "student"] and {*first[-2:]} == {"silent", "fastgrnn"}  # constant, and refuted
    page.run(f"{HEADING}.click()", "model")
    assert page.run(COLUMN, 1) == sorted(first)
    assert page.ask("document.querySelector('th[data-key=model]').ariaSort") == "ascending"
    assert page.ask("document.getElementById('status').textContent").startswith("Sorted by Model")
    page.run(f"{HEADING}.focus()", "worst")
    page.keys(Keys.ENTER)  # numbers: the largest first
    worst = [float(cell.split()[0]) for cell in page.run(COLUMN, 4)]
    assert worst == sorted(worst, reverse=True)
    page.keys(Keys.SPACE)
    assert [float(cell.split()[0]) for cell in page.run(COLUMN, 4)] == worst[::-1]
    assert page.ask("document.querySelector('table').querySelectorAll('[aria-sort]').length") == 1
    page.open(board, page.ask("location.hash"))
    assert [float(cell.split()[0]) for cell in page.run(COLUMN, 4)] == worst[::-1]


def test_rows_without_a_number_stay_last(browser: Browser, board: Path) -> None:
    page = browser.open(board)
    for _ in range(2):
        page.run(f"{HEADING}.click()", "instructions_m4")
        assert page.run(COLUMN, 14)[-2:] == ["-", "-"]


@pytest.mark.parametrize(
    ("field", "value", "rows"),
    [
        ("q", "student", 3),
        ("q", "PROPOSED seed", 3),
        ("q", "no such row", 0),
        ("dataset", "other", 1),
        ("scheme", "proposed", 3),
        ("size", "105", 5),
        ("cost", "2000000", 4),
        ("level", "replay", 2),
        ("level", "spot", 1),
    ],
)
def test_filters_leave_what_passes_and_links_keep_them(
    browser: Browser, board: Path, field: str, value: str, rows: int
) -> None:
    page = browser.open(board)
    assert page.ask(SHOWN) == "8 rows"
    page.run(TYPE, field, value)
    visible = (
        "Array.from(document.querySelectorAll('section.board:not([hidden]) tbody tr')).filter(r => !r.hidden).length"
    )
    assert page.ask(visible) == rows and page.ask(SHOWN) == f"{rows} of 8 rows"
    page.open(board, page.ask("location.hash"))
    assert page.ask(visible) == rows and page.ask("document.forms.filters.elements[arguments[0]].value", field) == value
    page.run("document.querySelector('#filters button[type=reset]').click()")
    page.until(f"{SHOWN} === '8 rows'")
    assert page.ask("location.hash") == ""


def test_the_cost_that_is_capped_is_the_one_chosen(browser: Browser, board: Path) -> None:
    page = browser.open(board)
    assert page.ask("costChosen()") == "instructions_m4"
    page.run(TYPE, "on", "local_p50_us")
    page.run(TYPE, "cost", "19")
    assert page.ask(SHOWN) == "0 of 8 rows"
    page.run(TYPE, "cost", "20")
    assert page.ask(SHOWN) == "8 rows"


def test_of_many_rows_the_first_are_shown_until_all_are_asked_for(browser: Browser, tmp_path: Path) -> None:
    made = [row_of(f"m{at}", robust=0.2 + at / 100, n=20, size=1000 * (at + 1)) for at in range(site.FIRST_ROWS + 10)]
    page = browser.open(site.write_page(leaderboard.board(made), tmp_path))
    rest = "document.querySelector('button.rest')"
    assert len(page.run(COLUMN, 1)) == site.FIRST_ROWS and page.ask(SHOWN) == f"{site.FIRST_ROWS + 10} rows"
    page.run(f"{HEADING}.click()", "model")
    assert page.run(COLUMN, 1)[:3] == ["m0", "m1", "m2"]  # of all rows, not of those that were shown
    page.run(TYPE, "size", str(site.FIRST_ROWS + 5))
    assert page.ask(f"{rest}.textContent") == f"Show all {site.FIRST_ROWS + 5} rows"
    page.run(f"{rest}.click()")
    assert len(page.run(COLUMN, 1)) == site.FIRST_ROWS + 5 and page.ask(f"{rest}.checkVisibility()") is False


# --- the figures ----------------------------------------------------------------------------------------------


def test_figures_show_the_rows_that_are_left_against_bytes_and_cost(browser: Browser, board: Path) -> None:
    page = browser.open(board)
    page.until(f"{FIGURES}.length === 2")
    circles = f"Array.from({FIGURES}, svg => svg.querySelectorAll('circle').length)"
    assert page.ask(circles) == [7, 5]
    labels = page.ask(f"Array.from({FIGURES}, svg => svg.getAttribute('aria-label'))")
    assert "deployed bytes" in labels[0] and "instructions on Cortex-M4" in labels[1]
    page.run(TYPE, "q", "prado")
    page.until(f"JSON.stringify({circles}) === '[1,1]'")
    page.run(TYPE, "on", "instructions_a53")
    page.until(f"{FIGURES}[1].getAttribute('aria-label').includes('A53')")


def test_pointing_at_a_point_names_the_row(browser: Browser, board: Path) -> None:
    from selenium.webdriver import ActionChains

    page = browser.open(board)
    page.until(f"{FIGURES}.length === 2")
    point = page.driver.find_element("css selector", "#board-0 .plot circle")
    ActionChains(page.driver).move_to_element_with_offset(point, 2, 0).move_to_element(point).perform()
    tip = f"{FIGURES}[0].querySelector('[aria-label=tip]').textContent"
    page.until(f"{tip}.includes('worst case')")
    assert "clean 90.0 %" in page.ask(tip) and "local p50 20 µs" in page.ask(tip)


def test_figures_follow_the_width_of_the_window(browser: Browser, board: Path) -> None:
    page = browser.open(board)
    page.until(f"{FIGURES}.length === 2")
    before = page.ask(f"{FIGURES}[0].getBoundingClientRect().width")
    page.run("document.body.style.width = '500px'")
    page.until(f"{FIGURES}[0].getBoundingClientRect().width < {before} - 50")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [DESKTOP, PHONE, (320, 600)])
def test_the_page_fits_any_screen_in_both_themes(
    browser: Browser, board: Path, sections: tuple[Section, ...], size: tuple[int, int], dark: bool
) -> None:
    one, two = key(sections, "student", "proposed"), key(sections, "prado", "proposed")
    for state in (f"#row={one}", f"#a={one}&b={two}", ""):
        page = browser.open(board, state, size, dark)
        assert page.ask("document.documentElement.scrollWidth") <= size[0], state
    page.until(f"{FIGURES}.length === 2")
    for figure in page.run(BOXES, "#board-0 .plot svg[aria-label^=Worst]"):
        assert figure["left"] >= 0 and figure["right"] <= size[0] + 1
    ink, paper = page.run(COLOURS)
    assert (sum(paper) < 150) == dark and abs(sum(ink) - sum(paper)) > 450
    names = [box for box in page.run(BOXES, "#board-0 figure[data-cost=total_bytes] svg text") if box["text"] in MODELS]
    assert {box["text"] for box in names} == MODELS
    for at, box in enumerate(names):
        for other in names[:at]:  # no name hides another
            aside = box["right"] <= other["left"] or other["right"] <= box["left"]
            assert aside or box["bottom"] <= other["top"] + 3 or other["bottom"] <= box["top"] + 3


MODELS = {"bag", "fastgrnn", "prado", "silent", "student"}


# --- two rows -------------------------------------------------------------------------------------------------


def operand(sections: tuple[Section, ...], name: str) -> Operand:
    (line,) = [line for section in sections for line in section.lines if data.key(line) == name]
    return Operand(line.record, line.evidence, None, Path("."))


def test_two_ticked_rows_are_compared_as_the_command_line_does(
    browser: Browser, board: Path, sections: tuple[Section, ...]
) -> None:
    one, two = key(sections, "student", "proposed"), key(sections, "prado", "proposed")
    page = browser.open(board)
    for row in (key(sections, "bag"), one, two):  # the third tick takes the first one's place
        page.run("byKey.get(arguments[0]).box.click()", row)
    assert page.ask("document.querySelectorAll('tbody input:checked').length") == 2
    page.driver.find_element("id", "pair").click()
    page.until("document.querySelector('#view .sentence')")
    theirs = compare.compare(operand(sections, one), operand(sections, two))
    assert page.ask("document.querySelector('#view .sentence').textContent") == theirs.sentence
    table = page.ask(
        "Array.from(document.querySelector('#view tbody').rows, row => Array.from(row.cells, cell => cell.textContent))"
    )
    assert len(table) == len(theirs.differences) == 4
    for cells, expected in zip(table, theirs.differences, strict=True):
        assert cells[1:3] == [f"{100 * expected.first / N:.1f}", f"{100 * expected.second / N:.1f}"]
        assert [int(cell) for cell in cells[5:7]] == [expected.only_first, expected.only_second]
        assert float(cells[7].split()[0]) == pytest.approx(expected.p, rel=0.06)
    ids = page.ask(
        "Array.from(document.querySelectorAll('#view details'), "
        "list => Array.from(list.querySelectorAll('code'), id => id.textContent))"
    )
    assert [set(found) for found in ids] == [set(theirs.only_first), set(theirs.only_second)]
    page.driver.back()
    page.until("!document.getElementById('board').hidden")


def test_rows_of_other_examples_are_not_paired(browser: Browser, board: Path, sections: tuple[Section, ...]) -> None:
    page = browser.open(board, f"#a={key(sections, 'prado', 'proposed')}&b={key(sections, 'tiny')}")
    assert "not over the same examples" in page.ask("document.getElementById('view').textContent")


def test_the_page_computes_what_the_engine_does(browser: Browser, board: Path) -> None:
    page = browser.open(board)
    pairs = [(0, 0), (1, 0), (3, 12), (40, 41), (299, 0), (500, 470)]
    assert page.ask("arguments[0].map(([b, c]) => mcnemar(b, c))", pairs) == pytest.approx(
        [statistics.mcnemar(b, c) for b, c in pairs]
    )
    p = [0.04, 0.001, 0.5, 0.02]
    assert page.ask("holm(arguments[0])", p) == pytest.approx(list(statistics.holm(p)))
    for b, c in pairs:
        found = page.ask("tango(arguments[0], arguments[1], 1000)", b, c)
        assert found == pytest.approx(list(statistics.loss_bound(b, c, 1000, level=0.975)), abs=1e-6)


# --- one row --------------------------------------------------------------------------------------------------


def test_the_view_of_a_row_says_all_of_it(browser: Browser, board: Path, sections: tuple[Section, ...]) -> None:
    page = browser.open(board)
    row = key(sections, "student", "proposed")
    page.run("byKey.get(arguments[0]).element.querySelector('a').click()", row)
    page.until("document.querySelector('#view .examples li')")
    assert page.ask("document.title") == "student proposed seed 0 - gritbench board"
    assert page.ask("document.activeElement.textContent") == "student proposed seed 0"
    shown = page.ask("document.getElementById('view').innerText")
    for words in (
        "current, level spot, 2026-02-01",
        "48.5 %",
        "licence CC0-1.0",
        "epochs=4",
        "no board here",
        "seed 1",
    ):
        assert words in shown, words
    curves = page.ask(
        "Array.from(document.querySelectorAll('#view svg[aria-label]'), s => s.getAttribute('aria-label'))"
    )
    assert [label.split(",")[0] for label in curves if " " in label] == [
        *("Robust accuracy against edits", "Robust accuracy against queries", "loss by epoch", "dev split"),
    ]
    confusion = page.ask("Array.from(document.querySelectorAll('#view .shade'), c => Number(c.textContent))")
    assert sum(confusion) == N and len(confusion) == 4
    page.run("document.querySelector('#view a').click()")
    page.until("!document.getElementById('board').hidden")
    assert page.ask("document.activeElement.textContent") == "student"  # back where the reader was


def test_a_view_keeps_the_filters_and_back_brings_them(
    browser: Browser, board: Path, sections: tuple[Section, ...]
) -> None:
    page = browser.open(board)
    page.run(TYPE, "scheme", "proposed")
    page.run("byKey.get(arguments[0]).element.querySelector('a').click()", key(sections, "prado", "proposed"))
    page.until("!document.getElementById('view').hidden")
    page.driver.back()
    page.until("document.getElementById('view').hidden")
    assert page.ask(SHOWN) == "3 of 8 rows" and "scheme=proposed" in page.ask("location.hash")


def test_a_place_on_the_board_can_be_named_from_a_view(
    browser: Browser, board: Path, sections: tuple[Section, ...]
) -> None:
    page = browser.open(board, f"#row={key(sections, 'silent')}")
    page.run("document.querySelector('#view a.mark').click()")
    page.until("document.getElementById('view').hidden")
    assert page.ask("location.hash") == "#flag-constant"


def test_unknown_rows_in_a_link_are_the_board(browser: Browser, board: Path) -> None:
    page = browser.open(board, "#row=feedfeedfeed&sort=9+up+rank&on=nothing")
    assert not page.ask("document.getElementById('board').hidden") and page.complaints() == []


# --- texts and edits ------------------------------------------------------------------------------------------

DIFFS = """
return Array.from(document.querySelectorAll('#view .examples li'), item => [
  item.querySelector('code').textContent,
  Array.from(item.querySelectorAll('.diff > *'), part =>
    ({SPAN: '$', DEL: '[-$-]', INS: '{+$+}'})[part.tagName].replace('$', () => part.textContent)).join(''),
])
"""


@pytest.mark.parametrize("name", ["made.jsonl", "other.csv", "third.tsv", "packed.jsonl.gz"])
def test_the_readers_own_file_shows_the_differences(
    browser: Browser, board: Path, sections: tuple[Section, ...], tmp_path: Path, name: str
) -> None:
    page = browser.open(board, f"#row={key(sections, 'student', 'proposed')}&attack={PWWS.replace('+', '%2B')}")
    page.until("document.querySelector('#view .examples li')")
    assert page.ask("document.querySelectorAll('#view .diff').length") == 0
    assert "word 2 → feline" in page.ask("document.querySelector('#view .examples').textContent")
    file = made_boards.data_file(tmp_path, N, name.removesuffix(".gz"))
    if name.endswith(".gz"):
        file = file.rename(tmp_path / "plain")
        (tmp_path / name).write_bytes(gzip.compress(file.read_bytes()))
        file = tmp_path / name
    assert page.hand_in(file) == f"{name}: {N} examples of this board"
    page.until("document.querySelector('#view .diff')")
    shown = page.run(DIFFS)
    texts = {example.id: example.text for example in made_boards.examples(tmp_path, N)}
    evidence = operand(sections, key(sections, "student", "proposed")).evidence
    assert evidence
    scripts = {each.id: each.script for each in evidence.attacks[PWWS] if each.outcome == "broken"}
    assert {id_ for id_, _ in shown} == set(scripts)
    for id_, difference in shown:
        assert difference == diffs.plain(texts[id_], scripts[id_])
    assert page.requests() and not page.complaints()


def test_breaks_turn_by_pages_and_by_attack(browser: Browser, board: Path, sections: tuple[Section, ...]) -> None:
    page = browser.open(board, f"#row={key(sections, 'fastgrnn')}")
    page.until("document.querySelector('#view .examples li')")
    where = "document.querySelector('#view .breaks [role=status]').textContent.trim()"
    assert page.ask(where).startswith("1 to 20 of")
    page.run("document.querySelectorAll('#view .breaks button')[1].click()")
    assert page.ask(where).startswith("21 to 40 of")
    page.run(
        "const choose = document.querySelector('#view .breaks select'); choose.value = arguments[0];"
        "choose.dispatchEvent(new Event('change'))",
        PWWS,
    )
    assert page.ask(where).startswith("1 to 20 of") and "attack=pwws" in page.ask("location.hash")


def test_scripts_beside_the_page_are_handed_in(
    browser: Browser, sections: tuple[Section, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.pack, "__defaults__", (0,))
    path = site.write_page(sections, tmp_path)
    row = key(sections, "prado", "proposed")
    page = browser.open(path, f"#row={row}")
    assert f"scripts/{row}.json.gz" in page.ask("document.querySelector('.drop').textContent")
    said = page.hand_in(tmp_path / "scripts" / f"{row}.json.gz")
    assert said == f"{row}.json.gz: the edit scripts of prado proposed seed 0"
    page.until("document.querySelector('#view .examples li')")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.csv", "a,b\n1,2\n", "cannot be read (no column text"),
        ("broken.jsonl", '{"text": ', "cannot be read"),
        ("stranger.tsv", "text\tlabel\nno such text\tnow\n", "none of this board's examples"),
        ("row.json", '{"row": "feed", "breaks": {}}', "holds the scripts of no row"),
        ("cut.jsonl.gz", "no gzip", "cannot be read"),
    ],
)
def test_files_that_do_not_help_say_why(
    browser: Browser, board: Path, sections: tuple[Section, ...], tmp_path: Path, name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    page = browser.open(board, f"#row={key(sections, 'prado', 'proposed')}")
    assert said in page.hand_in(tmp_path / name)


TEXTS = [
    'The cat\'s "café" stays well-known, naïve',
    "  white\u00a0 space\u2003and\x1fmore\x85here ",
    "e\u0301 decomposed, U.S. -'quoted'- a*b @you _x_",
    "日本語 の 文 and ² ½ Ⅷ ١٢ ˗minus` ×times",
    "emoji 😀 in the middle\\ back\t slash / \u2028 line",
    "",
]
EDITS = [
    (Edit("replace", 1, "dog"), Edit("delete", 2, "")),
    (Edit("insert", 0, "Well"),),
    (Edit("insert", 3, "x"), Edit("replace", 3, "y")),
]


def test_texts_are_read_as_the_engine_reads_them(browser: Browser, board: Path) -> None:
    import hashlib

    page = browser.open(board)
    normal = [text.normalise(each) for each in TEXTS]
    assert page.ask("arguments[0].map(normalise)", TEXTS) == normal
    ids = [
        hashlib.sha256(json.dumps(["test", each, 1], ensure_ascii=False).encode()).hexdigest()[:16] for each in normal
    ]
    assert page.ask("arguments[0].map(text => idOf('test', text, 1))", normal) == ids
    words = "arguments[0].map(text => wordSpans(text).map(([start, end]) => text.slice(start, end)))"
    assert page.ask(words, normal) == [sentence.words_of(each) for each in normal]
    for script in EDITS:
        for each in normal:
            if len(sentence.words_of(each)) > 3:
                found = page.ask("marked(arguments[0], arguments[1])", each, [list(edit) for edit in script])
                assert [tuple(part) for part in found] == list(diffs.marked(each, script))
    long = ["x" * length for length in (55, 56, 63, 64, 65, 1000)]
    assert page.ask("arguments[0].map(sha256)", long) == [hashlib.sha256(each.encode()).hexdigest() for each in long]


def test_the_embedded_corpus_is_read_as_it_lies(browser: Browser, board: Path) -> None:
    page = browser.open(board)
    content = "test\tnow\tone text\ntrain\tlater\tanother\n"
    assert page.ask("textsOf('pings.tsv', arguments[0])", content) == ["one text", "another"]


# --- downloads, keyboard, strangers -----------------------------------------------------------------------------


def test_downloads_are_the_board(browser: Browser, board: Path, sections: tuple[Section, ...]) -> None:
    from selenium.webdriver.common.keys import Keys

    page = browser.open(board)
    for kind in ("csv", "json"):
        page.run("document.querySelector(`[data-download=${arguments[0]}]`).focus()", kind)
        page.keys(Keys.ENTER)
        end = time.monotonic() + 20
        while not (browser.downloads / f"board.{kind}").is_file() and time.monotonic() < end:
            time.sleep(0.05)
    found = json.loads((browser.downloads / "board.json").read_text(encoding="utf-8"))
    theirs = json.loads(leaderboard.as_json_text(sections))
    for section in (
        *found["sections"],
        *theirs["sections"],
    ):  # what one row lacks is null in a list, absent in an object
        section["rows"] = [{name: value for name, value in row.items() if value is not None} for row in section["rows"]]
    assert found == theirs
    ours = (browser.downloads / "board.csv").read_text(encoding="utf-8")
    assert values(ours) == values(leaderboard.comma_separated(sections))


def values(table: str) -> list[dict[str, Any]]:
    """Rows of a CSV file, its numbers as numbers: programs write 20 and 20.0, true and True."""
    number = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
    return [
        {name: float(value) if number.fullmatch(value) else value.lower() for name, value in row.items()}
        for row in csv.DictReader(io.StringIO(table))
    ]


def test_the_keyboard_reaches_everything_in_order(browser: Browser, board: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    page = browser.open(board)
    seen = []
    focused = (
        "(({innerText, name, ariaLabel}) => innerText?.trim().split('\\n')[0] || name || ariaLabel)"
        "(document.activeElement)"
    )
    for _ in range(42):
        page.keys(Keys.TAB)
        seen.append(page.ask(focused))
    assert seen[:2] == [f"made (test, n = {N})", "other (test, n = 200)"]
    assert [name for name in seen if name in ("q", "size", "cost")] == ["q", "size", "cost"]
    places = [seen.index(name) for name in ("q", "Clear", "Download CSV", "Rank", "Model, flags", "Trained on")]
    assert places == sorted(places)
    first = seen[seen.index("Trained on") + 1 :]
    assert first[0].startswith("Compare ") and first[1] in MODELS
    page.run("document.activeElement.blur()")
    page.run("document.querySelector('tbody input').focus()")
    page.keys(Keys.SPACE)
    assert page.ask("document.getElementById('pair').textContent").startswith("Compare two rows: tick another")
    page.keys(Keys.TAB, Keys.ENTER)  # the row's own link
    page.until("!document.getElementById('view').hidden")


def test_every_control_has_a_name(browser: Browser, board: Path, sections: tuple[Section, ...]) -> None:
    one, two = key(sections, "student", "proposed"), key(sections, "prado", "proposed")
    nameless = """
    return Array.from(document.querySelectorAll('button, input, select, a[href], [role=region]')).filter(element =>
      element.checkVisibility() && !(element.textContent.trim() && element.tagName !== 'SELECT') && !element.ariaLabel
      && !element.labels?.length && !element.getAttribute('aria-labelledby')).map(element => element.outerHTML)
    """
    for state in ("", f"#row={one}", f"#a={one}&b={two}"):
        page = browser.open(board, state)
        assert page.run(nameless) == []
        assert page.ask("Array.from(document.querySelectorAll('main:not([hidden])')).length") == 1


def test_strange_names_are_text_in_every_view(browser: Browser, tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror=alert(1)>\u2028'\"&"
    made = leaderboard.board([row_of(hostile, hostile, n=20), row_of("b", n=20)])
    path = site.write_page(made, tmp_path)
    keys = [data.key(line) for line in made[0].lines]
    for state in ("", f"#row={keys[0]}", f"#row={keys[1]}", f"#a={keys[0]}&b={keys[1]}"):
        page = browser.open(path, state)
        assert page.ask("document.querySelectorAll('img').length") == 0 and page.complaints() == []
        assert hostile in page.ask("document.body.textContent")


def test_an_empty_board_is_a_page_without_a_program(browser: Browser, tmp_path: Path) -> None:
    site.write_page((), tmp_path)
    browser.driver.get((tmp_path / "index.html").as_uri())
    assert browser.ask("document.querySelector('h1').textContent") == "gritbench board" and browser.complaints() == []


# --- size and speed ---------------------------------------------------------------------------------------------

FILTERED = """
const done = arguments[1], field = document.forms.filters.elements.q;
field.value = arguments[0];
field.dispatchEvent(new Event('input', {bubbles: true}));
requestAnimationFrame(() => setTimeout(done));
"""


def work_ms(page: Browser) -> dict[str, float]:
    """What the page's main thread has worked so far, by what it did; clocks of the wall tell of other programs too."""
    found = page.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return {metric["name"]: 1000 * metric["value"] for metric in found}


@pytest.mark.long
def test_fifteen_hundred_rows_are_small_and_quick(
    browser: Browser,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    path = site.write_page(crowd(monkeypatch), tmp_path)
    browser.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    before = work_ms(browser)["ThreadTime"]
    page = browser.open(path)
    usable = work_ms(page)["ThreadTime"]
    usable -= before if before < usable else 0.0  # a new process of the browser starts from nothing
    filters = []
    for words in ("model-1", "model-12 proposed", "proposed", "", "natural", "", "perturb"):
        before = work_ms(page)
        page.driver.execute_async_script(FILTERED, words)
        after = work_ms(page)
        kinds = ("ScriptDuration", "RecalcStyleDuration", "LayoutDuration")
        filters.append(round(sum(after[kind] - before[kind] for kind in kinds)))
        time.sleep(1)  # the figures follow
    for what, value in (("bytes", path.stat().st_size), ("usable ms", usable), ("filter ms", filters)):
        record_property(what, value)
    assert path.stat().st_size < 5_000_000
    assert usable < 2000
    assert sorted(filters)[len(filters) // 2] < 100


def crowd(monkeypatch: pytest.MonkeyPatch) -> tuple[Section, ...]:
    """500 rows over 1,000 examples in each of three sections, every row with all that a row can have.

    Ten rows a section are made, the others are these under other names, which would pack too well: so each row's
    bits are drawn at random. Placing so many rows is the board's work, not the page's.
    """
    rng = random.Random(0)
    monkeypatch.setattr(
        data, "standing", lambda evidence, attacks: [random_bits(rng, len(evidence.clean)) for _ in (0, *attacks)]
    )
    found = []
    for dataset in ("a", "b", "c"):
        made = [
            made_boards.furnished(row_of(f"m{at}", robust=0.1 + at / 20, dataset=dataset), 500_000 + 7919 * at, 12)
            for at in range(10)
        ]
        lines = []
        for at in range(500):
            row = made[at // 50]
            scheme = msgspec.structs.replace(row.record.scheme, name=("natural", "perturb", "proposed")[at % 3])
            model = msgspec.structs.replace(row.record.model, name=f"model-{at // 3}")
            size = 20_000 + rng.randrange(1_000_000)
            artefact = msgspec.structs.replace(row.record.artefact, sizes_bytes={"weights": size}, total_bytes=size)
            record = msgspec.structs.replace(row.record, scheme=scheme, model=model, artefact=artefact)
            rank = statistics.Rank(1 + at // 9, 1 + at, 2 + at)
            verdict = Verified("current", "spot", "2026-02-01", 0.4, None)
            lines.append(Line(record, model.name, rank, {"total_bytes": at % 9 == 0}, (), row.evidence, verdict))
        found.append(Section(tuple(lines), ()))
    return tuple(found)


def random_bits(rng: random.Random, n: int) -> str:
    return base64.b64encode(rng.randbytes(-(-n // 8))).decode()
