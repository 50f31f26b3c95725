"""A diff shows what a script did to a text: without the marks it is the text, or what the victim read."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import diffs
from grit.bench.records import Clean, Evidence
from grit.bench.sentence import Text
from grit.bench.types import Edit, Example, Outcome, Script, Threat

ANY = Threat(spaces=("any",), max_words=1.0)
RAW = st.lists(st.sampled_from(["good ", "bad", " film", ".", "(a)", "not-", " ", "!", "é", "it's "]), max_size=8).map(
    "".join
)


def script_over(text: Text, seed: int) -> Script:
    rng = random.Random(seed)
    script: list[Edit] = []
    for index in range(len(text.words) + 1):
        if rng.random() < 0.25:
            script.append(Edit("insert", index, "new"))
        if index < len(text.words) and rng.random() < 0.4:
            op: Any = rng.choice(["replace", "delete"])
            script.append(Edit(op, index, "other" if op == "replace" else ""))
    return tuple(script)


@given(RAW, st.integers(0, 10**6))
def test_the_marks_hold_both_texts(raw: str, seed: int) -> None:
    text = Text(raw, ANY)
    script = script_over(text, seed)
    parts = list(diffs.marked(raw, script))
    assert "".join(part for kind, part in parts if kind in ("kept", "before")) == raw
    assert "".join(part for kind, part in parts if kind in ("kept", "after")) == text.apply(script)


def test_a_diff_without_colours() -> None:
    script = (Edit("replace", 1, "dull"), Edit("delete", 2), Edit("insert", 3, "very"))
    assert diffs.plain("A good old film.", script) == "A [-good-]{+dull+} [-old-] {+very +}film."
    assert diffs.plain("A good film.", ()) == "A good film."
    assert diffs.plain("A {brace}", (Edit("replace", 1, "b{}"),)) == "A {[-brace-]{+b{}+}}"


def test_a_diff_with_colours_holds_the_same_and_obeys_no_control_character() -> None:
    shown = diffs.coloured("A \x1b[31mgood\u202e film", (Edit("replace", 2, "dull"),))
    assert "\x1b" not in shown.plain and "\\x1b" in shown.plain and "\\u202e" in shown.plain
    shown = diffs.coloured("A good film", (Edit("replace", 1, "dull"),))
    assert shown.plain == "A gooddull film"
    assert {(shown.plain[span.start : span.end], str(span.style)) for span in shown.spans} == {
        ("good", "red strike"),
        ("dull", "bold green"),
    }


def test_every_attack_shows_its_first_breaks() -> None:
    some = {f"{n:04d}": Example(f"{n:04d}", f"word number {n}", 0) for n in range(5)}
    clean = tuple(Clean(id=f"{n:016x}", label=0, predicted=0, margin=-1.0) for n in range(5))
    broken = tuple(Outcome(id, "broken", (Edit("replace", 0, "x"),), 1, queries=9) for id in sorted(some))
    evidence = Evidence(clean, {"a": broken, "b": (Outcome("0000", "survived"), *broken[3:])})
    found = list(diffs.breaks("row", evidence, some, 2))
    assert [(each.attack, each.example.id) for each in found] == [
        ("a", "0000"),
        ("a", "0001"),
        ("b", "0003"),
        ("b", "0004"),
    ]
    assert diffs.heading(found[0], ("no", "yes")) == "row  a  0000: no -> yes  (1 word, 9 queries)"


@pytest.mark.parametrize("text", ["plain", "é 你好", "🙂"])
def test_letters_of_any_language_are_shown_as_they_are(text: str) -> None:
    assert diffs.printable(text) == text
