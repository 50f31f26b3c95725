"""What attacks cost, drawn: robust accuracy against edits and against queries, on a terminal and as one SVG file.

Both curves come from one run of an attack: how many examples would still be right had it been allowed no more
than so many edits, or queries. They start at clean accuracy and end at robust accuracy. Of a search that changes its
course with its budget, the curve is an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from grit.bench.records import AttackPart, Record

FILE = "curves.svg"
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 24  # bars of a sparkline
# Okabe and Ito's palette, told apart by colour-blind readers; the dashes tell them apart in print.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4")

Points = Sequence[tuple[int, int]]
"""(spent, examples still right), rising in what is spent: a step function."""


def at(points: Points, spent: float) -> int:
    """Examples still right for an attacker who may spend so much."""
    return min((right for place, right in points if place <= spent), default=points[0][1] if points else 0)


def sparkline(points: Points, n: int, *, logarithmic: bool = False) -> str:
    """The curve as a row of bars, full height for all ``n``; at most :data:`_WIDTH` of them.

    Bars stand at equal steps of what is spent, or of its logarithm.
    """
    most = points[-1][0] if points else 0
    if logarithmic:
        places = [0.0, *(most ** (step / (_WIDTH - 2)) for step in range(_WIDTH - 1))] if most > 1 else [0.0, 1.0]
    else:
        steps = min(most, _WIDTH - 1)
        places = [most * step / steps for step in range(steps + 1)] if steps else [0.0]
    shares = [at(points, place + 1e-9) / n if n else 0.0 for place in places]
    return "".join(_BARS[min(int(share * len(_BARS)), len(_BARS) - 1)] for share in shares)


def lines(record: Record) -> list[str]:
    """Two lines an attack: the curve over edits and the curve over queries, with where they begin and end."""
    n = record.data.n
    width = max((len(attack.name) for attack in record.attacks), default=0)
    found = [f"{record.model.name} {record.scheme.name}: robust of {n} against edits, and against queries (log)"]
    for attack in record.attacks:
        first, last = _ends(attack)
        edits, queries = attack.robust_by_edits, attack.robust_by_queries
        by_edits, by_queries = sparkline(edits, n), sparkline(queries, n, logarithmic=True)
        found += [
            f"  {attack.name:{width}}  {first:>4} {by_edits} {last} at {edits[-1][0]} edits",
            f"  {'':{width}}  {first:>4} {by_queries} {last} at {queries[-1][0]:,} queries",
        ]
    return found


def _ends(attack: AttackPart) -> tuple[int, int]:
    return attack.robust_by_edits[0][1], attack.robust_by_edits[-1][1]


# --- SVG ---------------------------------------------------------------------------------------------

_PANEL, _HEIGHT, _LEFT, _TOP, _GAP = 320, 180, 60, 44, 70
_LEGEND = 18  # height of a line


def svg(records: Sequence[Record]) -> str:
    """All rows below each other, edits left and queries right; no script, nothing loaded, the same bytes each time."""
    parts = []
    height = 0
    for record in records:
        body, used = _row(record, height)
        parts.append(body)
        height += used
    width = _LEFT + 2 * _PANEL + _GAP + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {max(height, 1)}" width="{width}" '
        f'font-family="sans-serif" font-size="11" role="img">\n'
        f"<title>Robust accuracy against edits and queries</title>\n"
        f'<rect width="100%" height="100%" fill="white"/>\n' + "".join(parts) + "</svg>\n"
    )


def _row(record: Record, top: int) -> tuple[str, int]:
    title = f"{record.model.name} {record.scheme.name}, {record.data.name}, n = {record.data.n}"
    y = top + _TOP
    parts = [f'<text x="{_LEFT}" y="{top + 20}" font-size="13" font-weight="bold">{escape(title)}</text>\n']
    curves = [(attack.name, attack.robust_by_edits) for attack in record.attacks]
    parts.append(_panel(_LEFT, y, "words changed", curves, record.data.n, logarithmic=False))
    curves = [(attack.name, attack.robust_by_queries) for attack in record.attacks]
    parts.append(_panel(_LEFT + _PANEL + _GAP, y, "queries", curves, record.data.n, logarithmic=True))
    y += _HEIGHT + 44
    for number, attack in enumerate(record.attacks):
        first, last = _ends(attack)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_LEFT + 30}" y1="{y - 4}" y2="{y - 4}" {_stroke(number)}/>'
            f'<text x="{_LEFT + 38}" y="{y}">{escape(attack.name)}: {first} to {last}</text>\n'
        )
        y += _LEGEND
    return "".join(parts), y - top + 10


def _panel(x: int, y: int, label: str, curves: Sequence[tuple[str, Points]], n: int, *, logarithmic: bool) -> str:
    most = max((points[-1][0] for _, points in curves), default=0) or 1

    def place(spent: float) -> float:
        share = math.log1p(spent) / math.log1p(most) if logarithmic else spent / most
        return x + _PANEL * share

    parts = [f'<rect x="{x}" y="{y}" width="{_PANEL}" height="{_HEIGHT}" fill="none" stroke="#999"/>\n']
    for share in (0.0, 0.5, 1.0):
        line = y + _HEIGHT * (1 - share)
        parts.append(f'<text x="{x - 6}" y="{line + 4:.1f}" text-anchor="end">{100 * share:.0f} %</text>')
    for tick in _ticks(most, logarithmic):
        parts.append(f'<text x="{place(tick):.1f}" y="{y + _HEIGHT + 14}" text-anchor="middle">{tick:,}</text>')
    parts.append(f'<text x="{x + _PANEL / 2}" y="{y + _HEIGHT + 28}" text-anchor="middle">{label}</text>\n')
    for number, (name, points) in enumerate(curves):
        path, height = [], 0.0
        for step, (spent, right) in enumerate(points):
            before, height = height, y + _HEIGHT * (1 - right / n if n else 1.0)
            path += [f"{place(spent):.1f},{before:.1f}"] if step else []
            path.append(f"{place(spent):.1f},{height:.1f}")
        path.append(f"{x + _PANEL},{height:.1f}")
        parts.append(
            f'<polyline fill="none" {_stroke(number)} points="{" ".join(path)}">'
            f"<title>{escape(name)}</title></polyline>\n"
        )
    return "".join(parts)


def _stroke(number: int) -> str:
    dash = _DASHES[number % len(_DASHES)]
    return f'stroke="{_COLOURS[number % len(_COLOURS)]}" stroke-width="2"' + (
        f' stroke-dasharray="{dash}"' if dash else ""
    )


def _ticks(most: int, logarithmic: bool) -> list[int]:
    if logarithmic:
        return [0, *(10**power for power in range(int(math.log10(most)) + 1))]
    step = max(1, -(-most // 5))
    return list(range(0, most + 1, step))
