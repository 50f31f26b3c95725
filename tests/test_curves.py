"""Curves begin at clean accuracy, end at robust accuracy, and say the same on a terminal and as SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import curves, records
from grit.bench.types import Edit, Outcome

SHA = "5f" * 32
SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Poke:
    beam: int = 3


def outcome(number: int, edits: int, queries: int) -> Outcome:
    """Broken by so many edits; survived by none."""
    script = tuple(Edit("replace", place, "x") for place in range(edits))
    kind = "broken" if edits else "survived"
    return Outcome(f"{number:016x}", kind, script, queries=queries, words=20)  # type: ignore[arg-type]


def record(attacks: dict[str, Sequence[tuple[int, int]]], model: str = "student") -> records.Record:
    """Of every attack (edits, queries) an example: 0 edits is a survivor."""
    outcomes = {name: [outcome(at, *cost) for at, cost in enumerate(costs)] for name, costs in attacks.items()}
    n = max((len(found) for found in outcomes.values()), default=0)
    clean = tuple(records.Clean(id=f"{at:016x}", label=0, predicted=0, margin=-1.0) for at in range(n))
    evidence = records.Evidence(clean, {name: tuple(found) for name, found in outcomes.items()})
    return records.Record(
        model=records.ModelPart(name=model, config={}, repr=model),
        scheme=records.SchemePart(name="natural", terms=()),
        training=None,
        data=records.DataPart(
            name="made", revision=SHA, split="test", n=n, selection="all", labels=("a", "b"), label_counts=(n, 0)
        ),
        artefact=records.ArtefactPart(format="callable", precision="unknown", digest=SHA),
        clean=records.clean_part(clean, 2),
        attacks=tuple(records.attack_part(name, Poke(), outcomes[name]) for name in sorted(outcomes)),
        worst=records.worst_case(evidence),
        run=records.RunPart(created="2026-01-01T00:00:00+00:00"),
    )


COSTS = [(1, 10), (1, 40), (2, 200), (3, 900), (0, 1000), (0, 1000), (0, 7), (5, 60)]


def test_a_curve_is_read_as_a_step_function() -> None:
    points = ((0, 8), (1, 6), (3, 4))
    assert [curves.at(points, spent) for spent in (-1, 0, 0.9, 1, 2, 3, 99)] == [8, 8, 8, 6, 6, 4, 4]
    assert curves.at((), 3) == 0


def test_sparklines_fall_from_clean_to_robust() -> None:
    assert curves.sparkline(((0, 8), (1, 6), (2, 4), (3, 0)), 8) == "█▇▅▁"
    assert curves.sparkline(((0, 8),), 8) == "█"
    assert curves.sparkline((), 8) == "▁" and curves.sparkline(((0, 0),), 0) == "▁"


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5000)), min_size=1, max_size=30),
    st.booleans(),
)
def test_every_sparkline_falls_and_is_short(costs: list[tuple[int, int]], logarithmic: bool) -> None:
    (attack,) = record({"a": costs}).attacks
    points = attack.robust_by_queries if logarithmic else attack.robust_by_edits
    line = curves.sparkline(points, len(costs), logarithmic=logarithmic)
    heights = ["▁▂▃▄▅▆▇█".index(bar) for bar in line]
    assert heights == sorted(heights, reverse=True) and 1 <= len(line) <= 24
    survivors = sum(edits == 0 for edits, _ in costs)
    assert heights[-1] == min(int(8 * survivors / len(costs)), 7)
    assert heights[0] == 7


def test_each_attack_has_its_two_lines_with_both_ends() -> None:
    found = curves.lines(record({"pwws.strong": COSTS, "bug": COSTS[:4] + [(0, 5)] * 4}))
    assert found[0] == "student natural: robust of 8 against edits, and against queries (log)"
    assert len(found) == 5
    assert found[1].startswith("  bug             8 █") and found[1].endswith(" 4 at 3 edits")
    assert found[3].startswith("  pwws.strong     8 █") and found[3].endswith(" 3 at 5 edits")
    assert found[4].endswith(" 3 at 1,000 queries")


def test_a_row_without_attacks_has_no_curves() -> None:
    empty = record({})
    assert len(curves.lines(empty)) == 1
    ElementTree.fromstring(curves.svg([empty]))
    ElementTree.fromstring(curves.svg([]))


def test_the_svg_stands_alone_and_holds_every_curve() -> None:
    rows = [record({"pwws.strong": COSTS, "a<&b": COSTS}), record({"pwws.strong": COSTS}, "prado")]
    text = curves.svg(rows)
    root = ElementTree.fromstring(text)
    lines = root.findall(f".//{SVG}polyline")
    assert len(lines) == 2 * 2 + 2 * 1
    assert {line.findtext(f"{SVG}title") for line in lines} == {"pwws.strong", "a<&b"}
    assert "script" not in text and "href" not in text and "@import" not in text
    assert text == curves.svg(rows)
    words = [element.text for element in root.iter(f"{SVG}text")]
    assert "student natural, made, n = 8" in words and "prado natural, made, n = 8" in words


@pytest.mark.parametrize("costs", [COSTS, [(0, 5000)] * 4, [(1, 1)] * 4, [(12, 4000), (1, 1)]])
def test_every_point_of_the_svg_lies_in_its_panel(costs: list[tuple[int, int]]) -> None:
    root = ElementTree.fromstring(curves.svg([record({"a": costs})]))
    panels = [element for element in root.findall(f"{SVG}rect") if element.get("fill") == "none"]
    for panel, line in zip(panels, root.findall(f"{SVG}polyline"), strict=True):
        left, top = float(panel.get("x", "")), float(panel.get("y", ""))
        right, bottom = left + float(panel.get("width", "")), top + float(panel.get("height", ""))
        points = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
        assert all(left <= x <= right and top <= y <= bottom for x, y in points)
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        assert [y for _, y in points] == sorted(y for _, y in points)  # downwards on the page: falling
        survivors = sum(edits == 0 for edits, _ in costs) / len(costs)
        assert points[-1] == pytest.approx((right, top + (bottom - top) * (1 - survivors)), abs=0.06)


def test_two_curves_differ_in_more_than_colour() -> None:
    root = ElementTree.fromstring(curves.svg([record({"a": COSTS, "b": COSTS})]))
    first, second = (line.attrib for line in root.findall(f"{SVG}polyline")[:2])
    assert first["stroke"] != second["stroke"] and first.get("stroke-dasharray") != second.get("stroke-dasharray")
