"""Explanations for the eyes: a coloured sentence on a terminal, lines of scores, and one self-contained page.

Blue spoke for the answer, orange against it, the stronger the more; both are told apart by colour-blind readers, and
without colours every word carries its number. The page asks for nothing and runs nothing. It holds the sentences it
shows, which belong to their dataset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from grit.bench.explain.scores import HEADLINE, Explanation, Mean

if TYPE_CHECKING:
    from rich.text import Text

PAGE = "index.html"
_FOR, _AGAINST = (0, 114, 178), (213, 94, 0)  # of Okabe and Ito's palette
FEW = 10  # texts below which a mean is written without its interval: a bootstrap of so few says too much
_STEPS = ((2 / 3, "bold white on {}"), (1 / 3, "bold {}"), (0.1, "{}"))  # share of the largest -> style


@dataclass(frozen=True)
class Sentence:
    """One text, one row, one explainer. ``masks``: aim -> for every word whether it is kept."""

    row: str
    explainer: str
    words: tuple[str, ...]
    attribution: tuple[float, ...]
    answer: str
    probability: float
    gold: str | None = None
    masks: Mapping[str, tuple[bool, ...]] | None = None

    @property
    def strengths(self) -> tuple[float, ...]:
        """The attribution with its largest number, by size, as 1."""
        largest = max(map(abs, self.attribution), default=0.0) or 1.0
        return tuple(value / largest for value in self.attribution)


def heading(sentence: Sentence) -> str:
    """student.natural.s0 says now (97.1 %), labelled later; by integrated"""
    labelled = f", labelled {sentence.gold}" if sentence.gold is not None else ""
    return (
        f"{sentence.row} says {sentence.answer} ({100 * sentence.probability:.1f} %){labelled}; by {sentence.explainer}"
    )


def plain(sentence: Sentence) -> str:
    """For readers without colours: word[+0.42], with the numbers of a tenth of the largest and more."""
    return " ".join(
        f"{printable(word)}[{value:+.2g}]" if abs(strength) >= 0.1 else printable(word)
        for word, value, strength in zip(sentence.words, sentence.attribution, sentence.strengths, strict=True)
    )


def coloured(sentence: Sentence) -> Text:
    """For a terminal. Control characters of a dataset's text are shown, never obeyed."""
    from rich.text import Text

    shown = Text()
    for number, (word, strength) in enumerate(zip(sentence.words, sentence.strengths, strict=True)):
        colour = "rgb({},{},{})".format(*(_FOR if strength > 0 else _AGAINST))
        style = next((style.format(colour) for least, style in _STEPS if abs(strength) >= least), "")
        shown.append(" " if number else "")
        shown.append(printable(word), style=style)
    return shown


def masked(sentence: Sentence) -> Iterator[str]:
    """A line a mask: the words it keeps, a dot in the place of each hidden one. Of a text of no words there is none."""
    for aim, kept in (sentence.masks or {}).items() if sentence.words else ():
        words = [printable(word) if stays else "·" for word, stays in zip(sentence.words, kept, strict=True)]
        yield f"{aim:>8}  {' '.join(words)}"


def as_json(sentence: Sentence) -> dict[str, Any]:
    """For programs."""
    return {
        "row": sentence.row,
        "explainer": sentence.explainer,
        "answer": sentence.answer,
        "probability": sentence.probability,
        "gold": sentence.gold,
        "words": list(sentence.words),
        "attribution": list(sentence.attribution),
        "masks": {aim: list(kept) for aim, kept in (sentence.masks or {}).items()},
    }


def printable(text: str) -> str:
    """A text whose control characters (an escape sequence, a direction mark) are spelled out."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


# --- scores -------------------------------------------------------------------------------------------


def table(found: Explanation) -> list[list[str]]:
    """Heading and rows: every explainer of a row, what it is worth, and the same for reversed and chance."""
    rows = [["explainer", "normalised", "comprehens.", "sufficiency", "flip", "loyal tau", "top 20 %"]]
    for part in found.faithful:
        name = f"{part.explainer} reversed" if part.reversed else part.explainer
        pair = next(
            ((each.tau, each.overlap) for each in found.loyal if (each.explainer, each.who) == (name, "student")),
            (None, None),
        )
        means = (part.normalised, part.comprehensiveness, part.sufficiency, part.flip, *pair)
        rows.append([name, *map(written, means)])
    for who, label in (("ceiling", "teacher, other seed"), ("floor", "random")):
        for loyal in (each for each in found.loyal if (each.explainer, each.who) == (HEADLINE, who)):
            rows.append([f"{HEADLINE}: {label}", "", "", "", "", written(loyal.tau), written(loyal.overlap)])
    return rows


def written(value: Mean | None) -> str:
    """0.73 [0.69, 0.77]; of fewer than ten texts 0.73"""
    if value is None:
        return ""
    return f"{value.value:.2f}" + (f" [{value.low:.2f}, {value.high:.2f}]" if value.n >= FEW else "")


def lines(found: Explanation) -> list[str]:
    """The scores of a row as aligned text, and what each of them stands on."""
    rows = table(found)
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    text = [found.asked.row]
    text += [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return text + [f"  {note}" for note in notes(found)]


def notes(found: Explanation) -> Iterator[str]:
    """The sentences below a row's table."""
    texts = f"{found.asked.n} texts of {found.asked.data}"
    yield f"{texts}, bounds of the AOPC exact on {found.exact}; 95 % intervals over texts"
    if found.teacher:
        against = f"; {found.twin} is its ceiling" if found.twin else "; no ceiling was trained"
        yield f"loyal to {found.teacher}{against}"
    for part in (each for each in found.attacked if each.explainer == HEADLINE):
        drift = (
            f"tau {written(part.tau)} before and after on {part.tau.n} it changed in vain" if part.tau else "no drift"
        )
        aimed = (
            f"{part.aimed.k} of {part.aimed.n} words of its breaks were in the top 20 % ({part.chance:.0f} by chance)"
        )
        yield f"{part.attack}, {part.explainer}: {drift}; {aimed}"
    for truth in found.truth:
        yield (
            f"planted {truth.kind}, {truth.explainer}: {truth.hits.k} of {truth.hits.n} found "
            f"({truth.chance:.0f} by chance)"
        )
    for kind in found.unlearned:
        yield f"planted {kind}: a model of this make did not learn it, so no truth is known"
    for masked in found.masked:
        yield f"masks to {masked.aim}: the best of all found for {masked.optimal.k} of {masked.optimal.n} short texts"
    for blind in found.shuffled:
        yield f"shuffled weights, {blind.explainer}: tau {written(blind.tau)} with the trained model's"


# --- page ---------------------------------------------------------------------------------------------

_STYLE = (
    "body{font:16px/1.6 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;font-size:.85rem}td,th{padding:.15rem .7rem;text-align:left;"
    "border-bottom:1px solid #ccc}.wide{overflow-x:auto}.s{font-size:1.1rem;margin:.2rem 0}"
    ".s span{border-radius:.2rem;padding:0 .15rem}.m{color:#555;font-size:.85rem;margin:0;white-space:pre-wrap}"
    "h3{font-size:1rem;margin:1.4rem 0 0}li{font-size:.9rem}"
)


def page(explanations: Sequence[Explanation], sentences: Sequence[Sentence]) -> bytes:
    """One HTML file: the sentences, each word in its colour, and the tables. No program, no request."""
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>Explanations</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>Explanations</h1>\n"
        "<p>Blue words spoke for the answer, orange ones against it. Point at a word for its number. "
        "The sentences belong to their dataset.</p>\n"
    ]
    for sentence in sentences:
        parts.append(f"<h3>{escape(heading(sentence))}</h3>\n<p class=s>{_spans(sentence)}</p>\n")
        parts += [f"<p class=m>{escape(line)}</p>\n" for line in masked(sentence)]
    for found in explanations:
        first, *rest = table(found)
        parts.append(f"<h2>{escape(found.asked.row)}</h2>\n<div class=wide><table>\n")
        parts.append("<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in first) + "</tr>\n")
        parts += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rest]
        parts.append("</table></div>\n<ul>\n")
        parts += [f"<li>{escape(note)}</li>\n" for note in notes(found)]
        parts.append("</ul>\n")
    return ("".join(parts) + "</body>\n</html>\n").encode()


def _spans(sentence: Sentence) -> str:
    spans = []
    for word, value, strength in zip(sentence.words, sentence.attribution, sentence.strengths, strict=True):
        red, green, blue = _FOR if strength > 0 else _AGAINST
        colour = f"rgba({red},{green},{blue},{0.75 * abs(strength):.2f})"
        spans.append(f'<span style="background:{colour}" title="{value:+.3f}">{escape(printable(word))}</span>')
    return " ".join(spans)
