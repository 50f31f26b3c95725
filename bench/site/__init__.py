"""The board as one static page: self-contained, without any request, the same bytes for the same rows.

Style, program, plotting library and data stand inside the page, so that it can be opened from a folder or
sent as a file; its content policy forbids everything else. The table is plain HTML and readable without the
program, which adds sorting, the figure (Observable Plot over d3, see vendored.txt) and the downloads.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grit.bench import leaderboard
from grit.bench.leaderboard import Line, Section
from grit.bench.records import FLAGS, Count, encode, write

PAGE = "index.html"
_HERE = Path(__file__).parent


def write_page(sections: Sequence[Section], folder: Path) -> Path:
    """Writes the page into a folder and says where it is; StorageError if it cannot."""
    path = folder / PAGE
    write(path, render(sections))
    return path


def render(sections: Sequence[Section]) -> bytes:
    """The page, as UTF-8."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    programs = [_text("d3.min.js"), _text("plot.umd.min.js"), _text("page.js")]
    page = environment.get_template("page.html").render(
        sections=[_shown(number, section) for number, section in enumerate(sections)],
        flags={name: FLAGS[name] for name in FLAGS if _raised(sections, name)},
        style=_text("page.css"),
        programs=programs,
        digests=[_policy_digest(program) for program in programs],
        data=_embeddable(sections),
        notices=_text("vendored.txt"),
    )
    return page.encode()


def _shown(number: int, section: Section) -> dict[str, Any]:
    """What the template writes about a section: text, and the number each cell is sorted by."""
    headings = section.headings
    return {
        "id": f"board-{number}",
        "title": section.title,
        "notes": leaderboard.notes(section),
        "several_seeds": section.several_seeds,
        "floor": section.data.majority.k / section.data.n if section.data.n else 0.0,
        "attacks": [{"name": name, "heading": heading} for name, heading in headings.items()],
        "random": any(leaderboard.control(line.record) for line in section.lines),
        "pool": any(leaderboard.pooled(line.record) for line in section.lines),
        "lines": [_line(line) for line in section.lines],
    }


def _line(line: Line) -> dict[str, Any]:
    cells, record = leaderboard.cells(line), line.record
    return {
        **cells,
        "cells": cells,
        "places": f"{line.rank.best} to {line.rank.worst}" if line.rank else "",
        "demoted": any(FLAGS[flag.name].demotes for flag in record.flags),
        "clean": cells["clean_k"] / cells["n"] if cells["n"] else 0.0,
        "worst": cells["worst_k"] / cells["n"] if cells["n"] else 0.0,
        "clean_text": leaderboard.percent(cells["clean_k"], cells["n"]),
        "clean_interval": leaderboard.percent_interval(leaderboard.interval(leaderboard.clean_count(line))),
        "worst_text": leaderboard.percent_robust(record.worst),
        "worst_interval": leaderboard.percent_interval(leaderboard.interval(record.worst)),
        "attacks": [
            {
                "share": attack.robust.low / attack.robust.n if attack.robust.n else 0.0,
                "text": leaderboard.attack_text(line, at),
                "count": f"{attack.robust.low} of {attack.robust.n}",
            }
            for at, attack in enumerate(record.attacks)
        ],
        "random": _beside(leaderboard.control(record)),
        "pool": _beside(leaderboard.pooled(record)),
        "kilobytes": leaderboard.kilobytes(record.artefact.total_bytes),
        "parts": leaderboard.parts(record),
        "latency": leaderboard.duration(cells["local_p50_us"]),
        "raised": [(flag.name, flag.reason) for flag in record.flags],
    }


def _beside(count: Count | None) -> dict[str, Any]:
    """A column beside the suite: what it says, and what it is sorted by."""
    known = count is not None and count.n
    return {
        "share": count.k / count.n if count is not None and known else "",
        "text": leaderboard.percent_count(count),
        "count": f"{count.k} of {count.n}" if count is not None else "not made",
    }


def _raised(sections: Sequence[Section], name: str) -> bool:
    return any(flag.name == name for section in sections for line in section.lines for flag in line.record.flags)


def _embeddable(sections: Sequence[Section]) -> str:
    """The board's JSON, with rows as lists under common keys; ``<`` is escaped so that no text can end the element."""
    found = leaderboard.as_json(sections)
    for section in found["sections"]:
        keys = list(dict.fromkeys(key for row in section["rows"] for key in row))
        section["keys"] = keys
        section["rows"] = [[row.get(key) for key in keys] for row in section["rows"]]
    return encode(found).decode().replace("<", "\\u003c")


def _policy_digest(program: str) -> str:
    return base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
