"""Adversarial texts for the eyes: what was taken out, what was written in, and what the model said then.

They are printed where somebody asked to see them and written to no file: the texts belong to their dataset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grit.bench.records import Evidence
from grit.bench.sentence import word_spans
from grit.bench.types import Example, Script

if TYPE_CHECKING:
    from rich.text import Text

_BEFORE, _AFTER = "red strike", "bold green"


@dataclass(frozen=True)
class Break:
    """One text that an attack broke."""

    row: str
    attack: str
    example: Example
    script: Script
    predicted: int
    queries: int


def breaks(row: str, evidence: Evidence, examples: Mapping[str, Example], count: int) -> Iterator[Break]:
    """The first ``count`` breaks of every attack, by id."""
    for name, outcomes in evidence.attacks.items():
        broken = [outcome for outcome in outcomes if outcome.outcome == "broken" and outcome.id in examples]
        for outcome in broken[:count]:
            yield Break(row, name, examples[outcome.id], outcome.script, outcome.predicted, outcome.queries)


def heading(found: Break, labels: Sequence[str]) -> str:
    """Which text it was, and how the answer changed."""
    edits = f"{len(found.script)} word{'s' * (len(found.script) != 1)}"
    return (
        f"{found.row}  {found.attack}  {found.example.id}: {labels[found.example.label]} -> "
        f"{labels[found.predicted]}  ({edits}, {found.queries:,} queries)"
    )


def marked(text: str, script: Script) -> Iterator[tuple[str, str]]:
    """The text in parts, each ``kept``, ``before`` (taken out) or ``after`` (written in)."""
    spans = word_spans(text)
    place = 0
    for op, index, word in script:
        begin, end = spans[index] if index < len(spans) else (len(text), len(text))
        if op == "insert":
            end = begin
        if place < begin:
            yield "kept", text[place:begin]
        if begin < end:
            yield "before", text[begin:end]
        if word and index == len(spans):  # appended
            yield "after", f" {word}" if text else word
        elif word:
            yield "after", f"{word} " if op == "insert" else word
        place = end
    if place < len(text):
        yield "kept", text[place:]


def plain(text: str, script: Script) -> str:
    """For readers without colours: ``[-before-]{+after+}``."""
    marks = {"kept": "{}", "before": "[-{}-]", "after": "{{+{}+}}"}
    return "".join(marks[kind].format(part) for kind, part in marked(text, script))


def coloured(text: str, script: Script) -> Text:
    """For a terminal. Control characters of a dataset's text are shown, never obeyed."""
    from rich.text import Text

    shown = Text()
    for kind, part in marked(text, script):
        shown.append(printable(part), style={"kept": "", "before": _BEFORE, "after": _AFTER}[kind])
    return shown


def printable(text: str) -> str:
    """A text whose control characters (an escape sequence, a direction mark) are spelled out."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
