"""The board as one static page: self-contained, without any request, the same bytes for the same rows.

Style, program, plotting library and data stand inside the page, so that it can be opened from a folder or
sent as a file; its content policy forbids everything else. The table is plain HTML and readable without the
program, which adds the rest: sorting, filters, figures (Observable Plot over d3, see vendored.txt), the
comparison of two rows, the view of one, and downloads.

Edit scripts of many rows would make the page too large for a phone. Those that find no room lie in scripts/, a
file a row, and the reader hands one in together with the dataset, whose texts are needed anyhow. They are not
loaded as scripts from the same folder: then any program put there would run, and the policy could not forbid it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from grit.bench import leaderboard
from grit.bench.leaderboard import CORES, Line, Section
from grit.bench.records import FLAGS, write
from grit.bench.site import data

if TYPE_CHECKING:
    from grit.bench.personalize.headline import Headline

PAGE = "index.html"
SCRIPTS = "scripts"
FIRST_ROWS = 25  # of a dataset, a screen full: shown until the reader asks for all
# The page's own program, in the order in which its files are joined: what is used stands before what uses it.
PROGRAM = (
    "board.js",
    "state.js",
    "table.js",
    "figures.js",
    "compare.js",
    "texts.js",
    "row.js",
    "page.js",
)
_HERE = Path(__file__).parent


def write_page(sections: Sequence[Section], folder: Path, personal: Sequence[Headline] = ()) -> Path:
    """Writes the page, and the edit scripts it has no room for, into a folder; where the page is. StorageError."""
    packed = data.pack(sections)
    for key, scripts in packed.beside.items():
        write(folder / SCRIPTS / f"{key}.json.gz", scripts)
    path = folder / PAGE
    write(path, _rendered(sections, packed, personal))
    return path


def render(sections: Sequence[Section], personal: Sequence[Headline] = ()) -> bytes:
    """The page, as UTF-8."""
    return _rendered(sections, data.pack(sections), personal)


def _rendered(sections: Sequence[Section], packed: data.Packed, personal: Sequence[Headline]) -> bytes:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from grit.bench.personalize import headline

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    programs = [_text("d3.min.js"), _text("plot.umd.min.js"), "\n".join(map(_text, PROGRAM))]
    page = environment.get_template("page.html").render(
        sections=[_shown(number, section) for number, section in enumerate(sections)],
        schemes=sorted({line.record.scheme.name for section in sections for line in section.lines}),
        verified=any(line.verified for section in sections for line in section.lines),
        costs=[column for column in _COSTS if any(map(column.there, sections))],
        flags={name: FLAGS[name] for name in FLAGS if _raised(sections, name)},
        style=_text("page.css"),
        programs=programs,
        digests=[_policy_digest(program) for program in programs],
        packed=packed,
        first_rows=FIRST_ROWS,
        personal={"headings": headline.HEADINGS, "rows": [headline.cells(line) for line in personal]},
        personal_note=headline.NOTE,
        notices=_text("vendored.txt"),
    )
    return page.encode()


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _policy_digest(program: str) -> str:
    return base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()


def _raised(sections: Sequence[Section], name: str) -> bool:
    return any(flag.name == name for section in sections for line in section.lines for flag in line.record.flags)


# --- what the template writes: text ---------------------------------------------------------------------


class Column(NamedTuple):
    """A column of the table between the headline numbers and the data: ``key`` says what it is sorted by."""

    key: str
    heading: str
    title: str
    name: str  # of the same thing in a sentence
    optional: bool = True  # left out where no row states it

    def there(self, section: Section) -> bool:
        return not self.optional or any(leaderboard.cells(line)[self.key] is not None for line in section.lines)

    def text(self, cells: dict[str, Any]) -> str:
        value = cells[self.key]
        if self.key.startswith("instructions_"):
            return "-" if value is None else count(value)
        return leaderboard.duration(value) if self.key.endswith("_us") else leaderboard.kilobytes(value)


_COSTS = (
    Column(
        "total_bytes",
        "kB",
        "Thousands of bytes deployed, vocabulary and tokenizer counted",
        "deployed bytes",
        optional=False,
    ),
    Column("ram_bytes", "RAM kB", "Working memory of the compiled program, in thousands of bytes", "bytes of RAM"),
    *(
        Column(
            f"instructions_{core}",
            f"{core.upper()} instr.",
            f"Instructions of the median text, counted on an emulated Cortex-{core.upper()}",
            f"instructions on Cortex-{core.upper()}",
        )
        for core in CORES
    ),
    Column(
        "local_p50_us",
        "Local p50",
        "Median time of one text on one thread of the machine that ran it",
        "local p50, µs",
        optional=False,
    ),
)


def count(value: int) -> str:
    """Three digits and a factor: 1.23 M."""
    for letter, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * factor:
            return f"{value / factor:.3g} {letter}"
    return str(value)


def _shown(number: int, section: Section) -> dict[str, Any]:
    lines = section.lines
    costs = [column for column in _COSTS if column.there(section)]
    return {
        "id": f"board-{number}",
        "title": section.title,
        "dataset": section.data.name,
        "notes": leaderboard.notes(section),
        "several_seeds": section.several_seeds,
        "floor": section.data.majority.k / section.data.n if section.data.n else 0.0,
        "attacks": [{"name": name, "heading": heading} for name, heading in section.headings.items()],
        "random": any(leaderboard.control(line.record) for line in lines),
        "pool": any(leaderboard.pooled(line.record) for line in lines),
        "faithful": any(map(leaderboard.faithful, lines)),
        "loyal": any(map(leaderboard.loyal, lines)),
        "personal": any(line.personal for line in lines),
        "verified": any(line.verified for line in lines),
        "costs": costs,
        "lines": [_line(line, costs) for line in lines],
    }


def _line(line: Line, costs: Sequence[Column]) -> dict[str, Any]:
    cells, record = leaderboard.cells(line), line.record
    return {
        **cells,
        "key": data.key(line),
        "places": f"{line.rank.best} to {line.rank.worst}" if line.rank else "",
        "demoted": any(FLAGS[flag.name].demotes for flag in record.flags) or cells["verified"] == "refuted",
        "clean_text": leaderboard.percent(cells["clean_k"], cells["n"]),
        "clean_interval": leaderboard.percent_interval(leaderboard.interval(leaderboard.clean_count(line))),
        "worst": cells["worst_k"] / cells["n"] if cells["n"] else 0.0,
        "worst_text": leaderboard.percent_robust(record.worst),
        "worst_interval": leaderboard.percent_interval(leaderboard.interval(record.worst)),
        "attacks": [leaderboard.attack_text(line, at) for at in range(len(record.attacks))],
        "random": leaderboard.percent_count(leaderboard.control(record)),
        "pool": leaderboard.percent_count(leaderboard.pooled(record)),
        "faithful": leaderboard.ratio(leaderboard.faithful(line)),
        "loyal": leaderboard.ratio(leaderboard.loyal(line)),
        "personal": leaderboard.personal(line),
        "costs": [column.text(cells) for column in costs],
        "raised": [flag.name for flag in record.flags],
        "badge": leaderboard.badge(line),
        "trained": ", ".join(_trained(line)),
    }


def _trained(line: Line) -> Iterator[str]:
    """What a row was trained on, under which licence, and how much of the evaluated data was among it."""
    training = line.record.training
    if training is None:
        yield "came trained"
    else:
        yield f"{training.n_train:,} of {training.data}"
        yield f"licence {training.licence}"
    yield next((flag.reason for flag in line.record.flags if flag.name == "overlap"), "no overlap found")
