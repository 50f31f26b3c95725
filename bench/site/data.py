"""What the page's program knows of the board, packed to travel inside the page.

The board's JSON (:func:`grit.bench.leaderboard.as_json`, rows as lists under common keys), and with it what only the
page shows: which examples each row gets right, as one bit an example and measure; curves, training, confusions. All of
it is gzip in base64, which every browser since 2023 opens by itself, at a third of the bytes. Edit scripts are packed
a row at a time: they lie in the page while there is room, and in files beside it from then on. They name words and
places, never a text.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from grit.bench import leaderboard
from grit.bench.leaderboard import Line, Section
from grit.bench.records import AttackPart, Clean, Evidence, compress, encode, row_digest

SCRIPTS_BYTES = 1_500_000  # of edit scripts inside the page, as base64: some thirty rows of a thousand examples
KEY = 12  # hex digits of a row's digest that name it in links, elements and files


class Packed(NamedTuple):
    """Base64 of gzip of JSON: the board, the scripts of the rows that found room by key, and those that did not."""

    board: str
    inside: Mapping[str, str]
    beside: Mapping[str, bytes]  # gzip alone


def pack(sections: Sequence[Section], room: int = SCRIPTS_BYTES) -> Packed:
    """Everything the page's program is given; ``room``: for edit scripts inside the page, in bytes."""
    found = leaderboard.as_json(sections)
    for shown, section in zip(found["sections"], sections, strict=True):
        keys = list(dict.fromkeys(key for row in shown["rows"] for key in row))
        shown["keys"] = keys
        shown["rows"] = [[row.get(key) for key in keys] for row in shown["rows"]]
        shown["more"] = more(section)
    inside, beside = {}, {}
    for line in (line for section in sections for line in section.lines if line.evidence):
        packed = compress(encode(scripts(line)))
        text = base64.b64encode(packed).decode()
        room -= len(text)
        if room >= 0:
            inside[key(line)] = text
        else:
            beside[key(line)] = packed
    return Packed(base64.b64encode(compress(encode(found))).decode(), inside, beside)


def key(line: Line) -> str:
    """What a row is called in links and files."""
    return row_digest(line.record)[:KEY]


# --- a section, a row ---------------------------------------------------------------------------------


def more(section: Section) -> dict[str, Any]:
    """What the page shows beyond the board: ``rows`` in the section's order, all of examples in that of ``ids``."""
    evidence = next((line.evidence for line in section.lines if line.evidence), None)
    clean = _examples(evidence) if evidence else []
    return {
        "headings": section.headings,
        "labels": section.data.labels,
        "ids": [line.id for line in clean],
        "gold": [line.label for line in clean],
        "attacks": [
            {"threat": attack.threat, "parameters": attack.parameters, "lexicon": attack.lexicon}
            for attack in section.attacks
        ],
        "rows": [_row(line) for line in section.lines],
    }


def _examples(evidence: Evidence) -> list[Clean]:
    """In the order that all rows of a section share."""
    return sorted(evidence.clean, key=lambda line: line.id)


def _row(line: Line) -> dict[str, Any]:
    record = line.record
    training = record.training
    return {
        "repr": record.model.repr,
        "origin": record.model.origin,
        "terms": [[term.objective, term.weight] for term in record.scheme.terms],
        "created": record.run.created[:10],
        "right": standing(line.evidence, [attack.name for attack in record.attacks]) if line.evidence else None,
        "confusion": confusion(line.evidence) if line.evidence else None,
        "attacks": [_attack(attack) for attack in record.attacks],
        "flags": [[flag.name, flag.reason] for flag in record.flags],
        "recipe": training.recipe if training else {},
        "best_epoch": training.best_epoch if training else None,
        "selection": training.selection if training else "",
        "history": [msgspec.to_builtins(epoch) for epoch in training.history] if training else [],
        "not_measured": [[cell.target, cell.engine, cell.reason] for cell in record.costs if not cell.values],
    }


def _attack(attack: AttackPart) -> dict[str, Any]:
    return {
        "edits": attack.robust_by_edits,
        "queries": attack.robust_by_queries,
        "broken": attack.success.k,
        "attacked": attack.success.n,
        "skipped": attack.skipped,
        "errors": attack.errors,
        "queries_median": attack.queries_median,
        "edits_median": attack.edits_median,
    }


def standing(evidence: Evidence, attacks: Iterable[str]) -> list[str]:
    """Clean, then each attack: one bit an example, set where the row is right; the first example is the highest bit.

    An example that an attack did not see had fallen to one before it.
    """
    survived = [{outcome.id for outcome in evidence.attacks[name] if outcome.outcome == "survived"} for name in attacks]
    clean = _examples(evidence)
    return [_bits([line.right for line in clean]), *(_bits([line.id in found for line in clean]) for found in survived)]


def _bits(right: Sequence[bool]) -> str:
    padded = "".join("01"[each] for each in right).ljust(-(-len(right) // 8) * 8, "0")
    return base64.b64encode(int(padded or "0", 2).to_bytes(len(padded) // 8, "big")).decode()


def confusion(evidence: Evidence) -> list[tuple[int, int, int]]:
    """(label, answer, how often) before any attack; an answer of -1 is a failure."""
    counts: dict[tuple[int, int], int] = {}
    for line in evidence.clean:
        counts[line.label, line.predicted] = counts.get((line.label, line.predicted), 0) + 1
    return [(*pair, counts[pair]) for pair in sorted(counts)]


def scripts(line: Line) -> dict[str, Any]:
    """The breaks of a row: attack -> [place among the section's examples, answer, queries, edits]."""
    evidence = line.evidence
    places = {each.id: place for place, each in enumerate(_examples(evidence))} if evidence else {}
    return {
        "row": key(line),
        "breaks": {
            name: [
                [places[outcome.id], outcome.predicted, outcome.queries, outcome.script]
                for outcome in sorted(outcomes, key=lambda outcome: outcome.id)
                if outcome.outcome == "broken"
            ]
            for name, outcomes in (evidence.attacks.items() if evidence else ())
        },
    }
