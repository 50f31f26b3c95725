"""Rows side by side: differences of the same texts, the document they make, and the committed one."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import cli, records, submission
from grit.bench.explain import report, scores
from grit.bench.explain.scores import Asked, Explanation, Faithful, Loyal, Masked, Shuffled, Trained, Truth
from grit.bench.records import Count
from grit.bench.statistics import over_seeds

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = ROOT / "leaderboards" / "explain"
IDS = [f"{at:016x}" for at in range(12)]
TEACHER = "c" * 64


def row(scheme: str, loyal: float, *, seed: int = 0, model: str = "student", **more: Any) -> Explanation:
    """A row whose texts score around ``loyal``, each a little otherwise, the same in every row."""
    wobble = [0.01 * (at % 5) for at in range(len(IDS))]
    texts: dict[str, tuple[float | None, float | None]] = {
        key: (0.9 - step, loyal + step) for key, step in zip(IDS, wobble, strict=True)
    }
    taus, orders = [tau for _, tau in texts.values()], [order for order, _ in texts.values()]
    part = {name: scores.mean([0.3, 0.4]) for name in ("comprehensiveness", "sufficiency", "flip")}
    made = Explanation(
        asked=Asked(
            row=f"{model}.{scheme}.s{seed}",
            artefact=records.digest(f"{model} {scheme} {seed}".encode()),
            data="made",
            revision="d" * 64,
            n=len(IDS),
            seed=0,
            explainers={"integrated": "Integrated(steps=50)"},
            teacher=TEACHER,
        ),
        exact=3,
        teacher="teacher.natural.s0",
        faithful=(
            Faithful(explainer="integrated", normalised=scores.mean_or_none(orders), **part),
            Faithful(explainer="integrated", reversed=True, normalised=scores.mean([0.1]), **part),
            Faithful(explainer="random", normalised=scores.mean([0.5]), **part),
        ),
        loyal=(
            Loyal(explainer="integrated", who="student", tau=scores.mean_or_none(taus), overlap=scores.mean([0.6])),  # type: ignore[arg-type]
            Loyal(explainer="integrated", who="ceiling", tau=scores.mean([0.65] * 10), overlap=scores.mean([0.7])),
            Loyal(explainer="integrated", who="floor", tau=scores.mean([-0.01]), overlap=scores.mean([0.25])),
        ),
        trained=Trained(model=model, scheme=scheme, seed=seed),
        texts=texts,
    )
    return msgspec.structs.replace(made, **more)


def other_teacher(of: Explanation, teacher: str | None = "e" * 64) -> Explanation:
    return msgspec.structs.replace(of, asked=msgspec.structs.replace(of.asked, teacher=teacher))


# --- differences ---------------------------------------------------------------------------------------------


def test_a_difference_is_that_of_each_text() -> None:
    found = report.difference(row("mapped", 0.7), row("distil", 0.5), report.LOYAL)
    assert found is not None and found.n == len(IDS)
    # the same difference on every text: an interval of no width, where two means alone would overlap
    assert (found.value, found.low, found.high) == (pytest.approx(0.2), pytest.approx(0.2), pytest.approx(0.2))
    none = report.difference(row("mapped", 0.7), row("distil", 0.5), report.FAITHFUL)
    assert none is not None and none.value == pytest.approx(0.0)


@given(st.lists(st.tuples(st.none() | st.floats(-1, 1), st.none() | st.floats(-1, 1)), max_size=12))
def test_only_texts_that_both_have_a_score_of_are_compared(pairs: list[tuple[float | None, float | None]]) -> None:
    firsts, seconds = ({key: (None, pair[at]) for key, pair in zip(IDS, pairs, strict=False)} for at in (0, 1))
    mine, theirs = row("mapped", 0, texts={**firsts, "alone": (1.0, 1.0)}), row("distil", 0, texts=seconds)
    both = [(first, second) for first, second in pairs if first is not None and second is not None]
    found, back = report.difference(mine, theirs, report.LOYAL), report.difference(theirs, mine, report.LOYAL)
    assert (found is None) == (not both) and report.difference(mine, theirs, report.FAITHFUL) is None
    if found is not None and back is not None:
        assert found.n == len(both) and found.value == pytest.approx(sum(a - b for a, b in both) / len(both))
        assert back.value == pytest.approx(-found.value) and found.low <= found.value <= found.high


def test_rows_are_compared_that_differ_in_their_scheme_alone() -> None:
    rows = [
        row("natural", 0.4),
        row("distil", 0.5),
        row("mapped", 0.7),
        row("mapped", 0.6, seed=1),
        row("proposed", 0.6, model="prado"),
        row("mapped", 0.2, model="prado"),
    ]
    found = [(each.model, each.scheme, each.than, each.seed) for each in report.contrasts(rows)]
    assert found == [
        ("student", "distil", "natural", 0),
        ("student", "mapped", "distil", 0),
        ("prado", "proposed", "mapped", 0),
    ]


def test_loyalty_to_another_teacher_is_not_compared() -> None:
    (same,) = report.contrasts([row("distil", 0.5), row("mapped", 0.7)])
    (differs,) = report.contrasts([row("distil", 0.5), other_teacher(row("mapped", 0.7))])
    assert same.loyal is not None and differs.loyal is None
    assert same.faithful == differs.faithful is not None
    (alone,) = report.contrasts([other_teacher(row("distil", 0.5), None), other_teacher(row("mapped", 0.7), None)])
    assert alone.loyal is None


# --- the document --------------------------------------------------------------------------------------------


def test_what_may_be_taken_away_counts_rows_by_their_intervals() -> None:
    noisy = row("mapped", 0.5, model="prado")
    scattered = {key: (0.9, 0.5 + (-1) ** at * 0.3) for at, key in enumerate(noisy.texts)}
    text = report.markdown(
        [
            *(row("distil", 0.5, model=model) for model in ("student", "fastgrnn", "prado")),
            row("mapped", 0.7),
            row("mapped", 0.4, model="fastgrnn"),
            msgspec.structs.replace(noisy, texts=scattered),
        ]
    )
    (line,) = [line for line in text.splitlines() if line.startswith("- **mapped** than distil")]
    assert "more loyal in 1 of 3 rows, less in 1, undecided in 1" in line
    assert "| mapped | distil | student | 0 | +0.200 [+0.200, +0.200] | +0.000 [+0.000, +0.000] |" in text


def test_three_seeds_have_an_interval_over_seeds() -> None:
    gains = (0.1, 0.2, 0.3)
    rows = [row("distil", 0.4, seed=seed) for seed in range(3)]
    rows += [row("mapped", 0.4 + gain, seed=seed) for seed, gain in enumerate(gains)]
    interval = over_seeds(gains).interval
    assert interval is not None
    expected = f"| mapped | distil | student | all | +0.200 [{interval.low:+.3f}, {interval.high:+.3f}] |"
    assert expected in report.markdown(rows)
    assert "| all |" not in report.markdown(rows[:2] + rows[3:5])


def test_the_document_is_the_same_in_whatever_order_rows_are_read() -> None:
    every = itertools.product(("proposed", "natural", "distil"), (0, 1))
    rows = [row(scheme, 0.5, seed=seed) for scheme, seed in every]
    whole = report.markdown(rows)
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        assert report.markdown(rows) == whole
    order = [line.split(" | ")[1] for line in whole.split("### ")[1].splitlines() if line.startswith("| student")]
    assert order == ["natural", "natural", "distil", "distil", "proposed", "proposed"]


def test_every_score_has_its_place() -> None:
    whole = row(
        "natural",
        0.57,
        attacked=(
            scores.Attacked(
                attack="pwws|x",
                explainer="integrated",
                tau=scores.mean([0.25]),
                overlap=None,
                aimed=Count(k=3, n=5),
                chance=1.2,
            ),
        ),
        truth=(Truth(explainer="integrated", kind="word", hits=Count(k=9, n=10), chance=0.8),),
        unlearned=("pair",),
        shuffled=(Shuffled(explainer="integrated", tau=scores.mean([0.02])),),
        masked=(Masked(aim="preserve", optimal=Count(k=30, n=31)),),
    )
    text = report.markdown([whole])
    (row_of,) = [line for line in text.splitlines() if line.startswith("| student | natural | 0 | 0.88 [")]
    assert "| 0.50 | 0.10 | 3 of 12 | 0." in row_of
    assert row_of.endswith("] | -0.01 | 0.65 [0.65, 0.65] | 0.60 | 0.25 | 0.70 |")  # one text has no interval, ten do
    assert "| pwws\\|x | 0.25 | 1 | 3 of 5 | 1 |" in text
    assert "| student | natural | planted word | 9 of 10 |" in text and "| planted pair | not learned |" in text
    assert "| shuffled weights | 0.02 |" in text and "preserve 30 of 31" in text
    assert "What a scheme changes" not in text  # of one row there is nothing to say


def test_every_row_of_a_table_has_as_many_cells_as_its_heading() -> None:
    lines = [
        line for line in report.markdown([row("natural", 0.5), row("distil", 0.6)]).splitlines() if line[:1] == "|"
    ]
    tables = [list(table) for _, table in itertools.groupby(lines, lambda line: line.count("|"))]
    assert all(table[1].startswith("| --- |") for table in tables) and len(tables) == 3


def test_a_row_without_a_run_stands_by_its_name() -> None:
    text = report.markdown([msgspec.structs.replace(row("natural", 0.5), trained=None, loyal=(), teacher=None)])
    assert "| student.natural.s0 |  |  | 0.88" in text


def test_grit_board_prints_the_document_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("distil", 0.5), row("mapped", 0.7)]
    scores.save(tmp_path / "explain", rows)
    with pytest.raises(SystemExit):
        cli.main(["board", str(tmp_path / "explain"), "--format", "readme"])
    assert capsys.readouterr().out == report.markdown(rows)


# --- the committed rows --------------------------------------------------------------------------------------


def test_the_committed_document_is_generated_and_does_not_differ() -> None:
    """`grit board leaderboards/explain --format readme > leaderboards/explain/README.md`."""
    known = scores.below([COMMITTED]).values()
    assert (COMMITTED / "README.md").read_text(encoding="utf-8") == report.markdown(known)


def test_committed_lines_hold_no_text_and_their_means_are_those_of_their_texts() -> None:
    def strings(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [*value, *(text for each in value.values() for text in strings(each))]
        if isinstance(value, list):
            return [text for each in value for text in strings(each)]
        return [value] if isinstance(value, str) else []

    for line in (COMMITTED / scores.EXPLAINED).read_text(encoding="utf-8").splitlines():
        assert all(len(text.split()) < 8 for text in strings(json.loads(line)) if "(" not in text)
    for each in scores.below([COMMITTED]).values():
        assert all(len(key) == 16 and int(key, 16) >= 0 for key in each.texts) and each.trained is not None
        normalised, taus = zip(*each.texts.values(), strict=True)
        for said, of_texts in ((each.normalised("integrated"), normalised), (each.loyalty("integrated"), taus)):
            again = scores.mean_or_none(of_texts)
            assert (said is None) == (again is None)
            if said is not None and again is not None:  # the texts are sorted by now, so their sum may end otherwise
                assert (said.value, said.low, said.high) == pytest.approx((again.value, again.low, again.high))
                assert said.n == again.n


def test_explained_rows_stand_on_the_board_by_their_bytes() -> None:
    known, found = scores.below([COMMITTED]), 0
    for place in submission.bundles_below(ROOT / "leaderboards"):
        record = submission.read_bundle(place).submission.record
        if (each := known.get(record.artefact.digest)) is not None:
            found += 1
            assert (each.asked.data, each.asked.revision) == (record.data.name, record.data.revision)
            assert each.trained and each.trained.scheme == record.scheme.name
    assert found
    assert "| Faithful | Loyal |" in (ROOT / "leaderboards" / "README.md").read_text(encoding="utf-8")


def test_explainers_of_the_house_are_faithful_and_chance_is_not() -> None:
    """What any of these rows must show, or something is wrong with the measure."""
    for each in scores.below([COMMITTED]).values():
        own, chance = each.normalised("integrated"), each.normalised(scores.RANDOM)
        turned = next(part.normalised for part in each.faithful if part.explainer == "integrated" and part.reversed)
        assert own and chance and turned and turned.high < chance.low and chance.high < own.low, each.asked.row
        floor = next((part.tau for part in each.loyal if (part.explainer, part.who) == ("integrated", "floor")), None)
        assert floor is None or abs(floor.value) < 0.1
