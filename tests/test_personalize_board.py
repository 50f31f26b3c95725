"""Tables of personalization: what a reader is told, from counts that were made by hand."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import cli, leaderboard, records, site, statistics
from grit.bench.personalize import arms, board, headline, overview, results, study, summary
from grit.bench.personalize.results import AttackedPart, ChoicePart, Document, Row, UserPart
from grit.bench.types import CouldNotMeasure, MalformedInput, UsageError

sys.path.append(str(Path(__file__).parent))

from made_rows import row_of

EMPTY = Row(
    dataset="set",
    revision="a" * 64,
    model="small",
    config={"hidden": 5},
    recipe={"epochs": 3},
    scheme="natural",
    start="plain",
    arm="none",
    k=8,
    seed=0,
    training={"epochs": 10, "batch": 8},
    attacks=("hotflip", "deepwordbug"),
    choices=(),
    users=(),
)


def of(arm: str, right: Sequence[int], before: Sequence[int], n: int = 20, **changes: Any) -> Row:
    """A row whose users have ``n`` held-out texts each."""
    people = tuple(
        UserPart(user=f"user{at}", n=n, right=now, before=was)
        for at, (now, was) in enumerate(zip(right, before, strict=True))
    )
    choices = () if arm == summary.MAJORITY else (ChoicePart(fold="all", rate=0.1, epoch=3, score=0.7, users=9),)
    return msgspec.structs.replace(EMPTY, arm=arm, users=people, choices=choices, **changes)


def table(*arms_and_counts: tuple[str, Sequence[int]], before: Sequence[int], **changes: Any) -> list[Row]:
    floors = {"majority": [0] * len(before), "none": before, "bias": before} | dict(arms_and_counts)
    return [of(arm, counts, before, **changes) for arm, counts in floors.items()]


def group(rows: Sequence[Row]) -> dict[str, Row]:
    (found,) = board.groups(rows).values()
    return found


def line(rows: Sequence[Row], arm: str) -> dict[str, str]:
    return dict(zip(board.HEADINGS, board.cells(group(rows), arm), strict=True))


def with_user_parts(rows: Sequence[Row], arm: str, **parts: Any) -> list[Row]:
    """The rows with some fields of every user of one arm replaced."""
    return [
        row
        if row.arm != arm
        else msgspec.structs.replace(row, users=tuple(msgspec.structs.replace(each, **parts) for each in row.users))
        for row in rows
    ]


# --- one line -------------------------------------------------------------------------------------------


def test_accuracy_is_a_mean_of_users_in_percent() -> None:
    found = line(table(("last", [20, 10, 15]), before=[10, 10, 10]), "last")
    assert found["accuracy"].startswith("75.0 [") and found["users"] == "3"


def test_users_who_were_hurt_are_counted_with_their_interval() -> None:
    found = line(table(("last", [20, 9, 15, 8]), before=[10, 10, 10, 10]), "last")
    assert found["hurt"] == "2/4 [15, 85]"


def test_a_gain_names_the_floor_it_is_over() -> None:
    rows = table(("majority", [18, 18, 18]), ("last", [19, 19, 19]), before=[10, 10, 10])
    assert line(rows, "last")["gain over best floor"].endswith("over majority")
    assert line(rows, "last")["gain over best floor"].startswith("+5.0 [5.0, 5.0]")
    assert line(rows, "none")["gain over best floor"].startswith("-40.0")
    assert line(rows, "majority")["gain over best floor"].startswith("+0.0")


def test_the_pilots_trap_reads_as_what_it_is() -> None:
    """A last layer 30 points above the global model, of which two numbers have all, below the majority label."""
    rows = table(("majority", [17, 17, 17]), ("bias", [16, 16, 16]), ("last", [16, 16, 16]), before=[10, 10, 10])
    found = line(rows, "last")
    assert found["accuracy"].startswith("80.0") and found["of it bias"] == "100 %"
    assert found["gain over best floor"].startswith("-5.0") and found["gain over best floor"].endswith("over majority")


def test_what_is_no_gain_has_no_share_of_bias_and_floors_never_have_one() -> None:
    rows = table(("last", [10, 10]), ("bias", [12, 12]), before=[10, 10])
    assert line(rows, "last")["of it bias"] == "-"
    assert {line(rows, floor)["of it bias"] for floor in summary.FLOORS} == {"-"}


def test_a_share_of_a_gain_that_may_be_nought_is_not_shown() -> None:
    """One user of twelve gains: 400 % of that would be said of noise."""
    rows = table(("last", [11, *[10] * 11]), ("bias", [12, 12, *[10] * 10]), before=[10] * 12)
    assert line(rows, "last")["of it bias"] == "-"
    assert line(table(("last", [15]), ("bias", [12]), before=[10]), "last")["of it bias"] == "-", (
        "one user: no interval"
    )
    sure = table(("last", [12] * 12), ("bias", [11] * 12), before=[10] * 12)
    assert line(sure, "last")["of it bias"] == "50 %"


def test_forgetting_is_in_points_of_global_accuracy() -> None:
    rows = with_user_parts(
        table(("last", [15, 15]), before=[10, 10]),
        "last",
        probe_n=50,
        probe_right=30,
        probe_before=40,
        probe_same=35,
        probability_loyalty=0.875,
    )
    found = line(rows, "last")
    assert (found["global"], found["loyal"], found["prob."]) == ("-20.0 [-20.0, -20.0]", "70.0", "0.875")
    assert (line(rows, "none")["global"], line(rows, "none")["prob."]) == ("-", "-"), "not measured is not nought"


def test_leakage_is_a_share_of_the_words_that_were_read() -> None:
    rows = with_user_parts(
        table(("all", [15, 15]), before=[10, 10]),
        "all",
        words_read=20,
        words_moved=18,
        words_recovered=15,
        membership_auc=0.8125,
        update_bytes=12_345,
    )
    found = line(rows, "all")
    assert (found["words"], found["member"], found["bytes"]) == ("75.0", "0.81", "12,345")
    assert line(rows, "none")["member"] == "-"


def test_the_largest_update_is_the_one_a_device_must_have_room_for() -> None:
    rows = table(("all", [15, 15]), before=[10, 10])
    last = msgspec.structs.replace(
        rows[-1],
        users=tuple(msgspec.structs.replace(each, update_bytes=7 * at) for at, each in enumerate(rows[-1].users)),
    )
    assert line([*rows[:-1], last], "all")["bytes"] == "7"


def test_rate_and_epoch_are_shown_once_where_all_folds_chose_alike() -> None:
    rows = table(("last", [15, 15]), before=[10, 10])
    both = (
        ChoicePart(fold="a", rate=0.1, epoch=3, score=0.7, users=1),
        ChoicePart(fold="b", rate=1.0, epoch=0, score=0.7, users=1),
        ChoicePart(fold="c", rate=0.1, epoch=3, score=0.2, users=1),
    )
    found = line([*rows[:-1], msgspec.structs.replace(rows[-1], choices=both)], "last")
    assert found["rate x epoch"] == "0.1 x 3, 1 x 0" and line(rows, "majority")["rate x epoch"] == "-"


@pytest.mark.parametrize("attacked", [0, 1, 2])
def test_robustness_is_of_the_texts_of_attacked_users_alone(attacked: int) -> None:
    rows = table(("last", [15, 15, 15]), before=[10, 10, 10])
    part = AttackedPart(n=5, clean=4, robust=2, minority=2, minority_attacked=1, minority_broken=1)
    users = tuple(
        msgspec.structs.replace(each, attacked=part if at < attacked else None)
        for at, each in enumerate(rows[-1].users)
    )
    found = line([*rows[:-1], msgspec.structs.replace(rows[-1], users=users)], "last")
    if not attacked:
        assert found["robust"] == found["rare broken"] == "-"
    else:
        assert found["robust"].startswith(f"{2 * attacked}/{5 * attacked} = 40.0 [")
        assert found["rare broken"].startswith(f"{attacked}/{attacked} = 100 [")
        assert found["rare broken"].endswith(f"] of {2 * attacked}")


# --- whole tables ------------------------------------------------------------------------------------------


def test_one_table_a_number_of_examples_a_seed_a_start_and_a_model() -> None:
    rows = []
    for changes in ({"k": 1}, {"k": 8}, {"k": 8, "seed": 1}, {"k": 8, "start": "meta"}, {"k": 8, "model": "large"}):
        rows += table(("last", [15, 15]), before=[10, 10], **changes)
    text = board.markdown(rows)
    titles = [title for title in text.splitlines() if title.startswith("### set") and ", seed " in title]
    assert len(titles) == 5 == len(set(titles))
    assert (
        "### set: large natural, start plain, seed 0, k = 8, 2 test users, 40 held-out texts, 20 a user (median)"
        in titles
    )


def test_a_single_user_is_shown_without_an_interval() -> None:
    text = board.markdown(table(("last", [15]), before=[10]))
    row = next(each for each in text.splitlines() if each.startswith("| last |"))
    assert "| 75.0 |" in row and "+25.0 over none" in row


def test_notes_stand_under_their_table_once() -> None:
    rows = table(("last", [15, 15]), ("token", [10, 10]), before=[10, 10])
    noted = [msgspec.structs.replace(row, notes=("robustness of token not measured: why",)) for row in rows]
    assert board.markdown(noted).count("robustness of token not measured: why") == 1


@given(st.text(min_size=1, max_size=12))
def test_no_name_of_a_user_breaks_a_table(name: str) -> None:
    name = " ".join(name.split()) or "x"
    rows = table(("last", [15, 15]), before=[10, 10])
    named = [
        msgspec.structs.replace(
            row, users=tuple(msgspec.structs.replace(each, user=f"{name}{at}") for at, each in enumerate(row.users))
        )
        for row in rows
    ]
    people = [block for block in board.markdown(named).split("\n\n") if block.startswith("| user |")]
    assert len(people) == 1 and len({each.count("|") for each in people[0].split("\n")}) == 1


def test_the_legend_names_the_attacks_and_every_column_that_needs_a_word() -> None:
    legend = board.markdown(table(("last", [15, 15]), before=[10, 10])).splitlines()[-1]
    assert "hotflip, deepwordbug" in legend
    for word in ("hurt", "Gain", "of it bias", "global", "loyal", "robust", "rare broken", "words", "member", "bytes"):
        assert word in legend
    for exact in ("label of the k texts that were learned", "the same texts of the global test (0)", "the majority's"):
        assert exact in legend
    assert "user's most frequent" not in legend
    probed = with_user_parts(table(("last", [15, 15]), before=[10, 10]), "last", probe_n=300)
    assert "the same texts of the global test (300)" in board.markdown(probed).splitlines()[-1]
    bare = [msgspec.structs.replace(row, attacks=()) for row in table(("last", [1, 1]), before=[1, 1])]
    assert "(none)" in board.markdown(bare).splitlines()[-1]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=5))
def test_a_table_says_what_the_summary_says(rows: list[tuple[int, int, int]]) -> None:
    now, was, bias = (list(each) for each in zip(*rows, strict=True))
    made = table(("bias", bias), ("last", now), before=was)
    found = board.summary(group(made), "last")
    wanted = summary.summarise(now, was, [20] * len(rows), {"majority": [0] * len(rows), "none": was, "bias": bias})
    assert found == wanted
    assert line(made, "last")["gain over best floor"].startswith(f"{100 * wanted.gain:+.1f}")


# --- ratios over users ---------------------------------------------------------------------------------------


counted = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=12)


@given(counted)
def test_a_share_is_a_ratio_of_sums_inside_an_interval_no_narrower_than_wilsons(pairs: list[tuple[int, int]]) -> None:
    k, n = [min(pair) for pair in pairs], [pair[1] for pair in pairs]
    found = summary.share(k, n)
    assert found and (found.k, found.n) == (sum(k), sum(n)) and found.value == pytest.approx(sum(k) / sum(n))
    assert found.interval and found.interval.low <= found.value <= found.interval.high
    texts = statistics.wilson(sum(k), sum(n))
    assert found.interval.low <= texts.low and found.interval.high >= texts.high


@given(counted, st.integers(1, 5))
def test_a_change_knows_its_sign_and_does_not_depend_on_how_often_all_is_asked(
    pairs: list[tuple[int, int]], times: int
) -> None:
    k, n = [one - other for one, other in pairs], [pair[1] for pair in pairs]
    found, mirrored = summary.change(k, n), summary.change([-each for each in k], n)
    assert found and mirrored and mirrored.value == -found.value
    assert summary.change([times * each for each in k], [times * each for each in n]) == found._replace(
        k=times * found.k, n=times * found.n
    ), "three seeds that say the same are no more people"
    if len(k) == 1:
        assert found.interval is None
    elif found.interval:
        assert found.interval.low <= found.value + 1e-12 and found.value <= found.interval.high + 1e-12


def test_where_there_is_nothing_to_count_there_is_no_ratio() -> None:
    assert summary.share([], []) is None and summary.change([0, 0], [0, 0]) is None
    one_who_was_not_attacked = summary.share([1, 0], [2, 0])
    assert one_who_was_not_attacked and one_who_was_not_attacked.value == 0.5


def test_robustness_is_compared_on_the_texts_attacked_under_both() -> None:
    rows = table(("last", [15, 15, 15]), before=[10, 10, 10])
    bare = AttackedPart(n=5, clean=4, robust=3, minority=2, minority_attacked=1, minority_broken=1)
    rows = with_user_parts(with_user_parts(rows, "none", attacked=bare), "last", attacked=worse(bare, 1))
    found = line(rows, "last")
    assert found["robust"].startswith("6/15 = 40.0 [") and found["change"] == "-20.0 [-20.0, -20.0]"
    assert line(rows, "none")["change"] == "0 of 3 users", "noughts resampled are no interval"


def worse(part: AttackedPart, by: int) -> AttackedPart:
    return msgspec.structs.replace(part, robust=part.robust - by)


@given(counted, st.integers(1, 5))
def test_a_text_that_is_asked_again_is_no_new_one(pairs: list[tuple[int, int]], times: int) -> None:
    k, n = [min(pair) for pair in pairs], [pair[1] for pair in pairs]
    once, again = summary.share(k, n), summary.share([times * each for each in k], [times * each for each in n], times)
    assert once and again and again.interval == once.interval
    assert (again.k, again.n, again.value) == (times * once.k, times * once.n, pytest.approx(once.value))


@given(counted, st.integers(2, 5))
def test_seeds_that_do_not_agree_leave_an_interval_of_their_texts(pairs: list[tuple[int, int]], times: int) -> None:
    """15 answers to at least 5 texts: the share lies between two counts of 5."""
    k, n = [min(pair) for pair in pairs], [pair[1] for pair in pairs]
    found, more = summary.share(k, n, times), summary.share(k, n)
    assert found and more and found.interval and more.interval
    assert found.interval.low <= more.interval.low and more.interval.high <= found.interval.high
    assert found.interval.low <= found.value <= found.interval.high


def test_noughts_alone_have_no_interval_and_say_how_many_users() -> None:
    still = summary.change([0, 0, 0, 0], [4, 4, 4, 0])
    assert still and still.interval is None and (still.users, still.moved) == (3, 0)
    moved = summary.change([1, -1, 0], [4, 4, 4])
    assert moved and moved.value == 0 and moved.moved == 2 and moved.interval and moved.interval.high > 0


def asked_thrice(robust: int) -> list[Row]:
    """Three seeds of thirty users; four texts of each attacked, of the arm ``robust`` withstood and two untouched."""
    bare = AttackedPart(n=4, clean=4, robust=2, minority=1, minority_attacked=1, minority_broken=1)
    rows = with_user_parts(seeds(0, 2, 2), "none", attacked=bare)
    return with_user_parts(rows, "last", attacked=msgspec.structs.replace(bare, robust=robust))


def test_robust_shares_of_three_seeds_stand_on_the_texts_of_one() -> None:
    ((group, _),) = board.over_seeds(asked_thrice(1)).values()
    found = dict(zip(board.HEADINGS, board.cells(group, "last"), strict=True))
    texts = statistics.wilson(30, 120)
    assert found["robust"] == f"90/360 = 25.0 [{100 * texts.low:.1f}, {100 * texts.high:.1f}], 120 texts"
    rare = statistics.wilson(30, 30)
    assert found["rare broken"] == f"90/90 = 100 [{100 * rare.low:.0f}, 100] of 90, 30 texts"
    assert found["change"] == "-25.0 [-25.0, -25.0]"
    ((unmoved, _),) = board.over_seeds(asked_thrice(2)).values()
    assert dict(zip(board.HEADINGS, board.cells(unmoved, "last"), strict=True))["change"] == "0 of 30 users"


# --- seeds together ----------------------------------------------------------------------------------------


def seeds(*gains: int, **changes: Any) -> list[Row]:
    """A seed each, in which every one of thirty users has so many right answers of twenty more than before."""
    rows = []
    for seed, gain in enumerate(gains):
        rows += table(("last", [10 + gain] * 30), before=[10] * 30, seed=seed, **changes)
    return rows


@given(st.lists(st.integers(-10, 10), min_size=1, max_size=4))
def test_the_mean_of_seeds_put_together_is_the_mean_of_their_means(gains: list[int]) -> None:
    ((group, apart),) = board.over_seeds(seeds(*gains)).values()
    found = board.summary(group, "last")
    each = [board.summary(apart[seed], "last") for seed in apart]
    assert found.mean == pytest.approx(sum(one.mean for one in each) / len(each)) and list(apart) == [
        *range(len(gains))
    ]
    assert found.users == 30 and found.examples == 30 * 20 * len(gains)
    assert found.hurt == (30 if sum(gains) < 0 else 0)


def seeds_apart() -> list[Row]:
    """Three seeds: nothing learned, one copy of thirty ruined, nothing changed; probes of ten texts."""
    rows = with_user_parts(seeds(0, 3, 3), "last", probe_n=10, probe_before=8, probe_right=8)
    asleep = ChoicePart(fold="all", rate=0.1, epoch=0, score=0.5, users=9)
    changed = []
    for row in rows:
        if row.arm == "last" and row.seed == 0:
            row = msgspec.structs.replace(row, choices=(asleep,))
        if row.arm == "last" and row.seed == 1:
            ruined = msgspec.structs.replace(row.users[7], probe_right=2)
            row = msgspec.structs.replace(row, users=(*row.users[:7], ruined, *row.users[8:]))
        changed.append(row)
    return changed


def test_what_a_seed_forgot_is_not_hidden_behind_the_others() -> None:
    text = "\n".join(board.seeds_table(seeds_apart()))
    headings, _, *rows = [[cell.strip() for cell in each.split("|")[1:-1]] for each in text.splitlines() if "|" in each]
    found = {row[0]: dict(zip(headings, row, strict=True)) for row in rows}
    assert found["last"]["global by seed"] == "+0.0* -2.0 +0.0", "a star where it was nought by construction"
    assert found["last"]["gain by seed"] == "+0.0* +15.0 +15.0"
    assert found["last"]["worst copy"] == "-60.0" and found["last"]["global"].startswith("-0.7 [")
    assert found["last"]["epoch 0"] == "1/3" and found["none"]["epoch 0"] == found["majority"]["epoch 0"] == "-"
    assert found["bias"]["epoch 0"] == "0/3" and "*" not in found["none"]["gain by seed"]
    assert found["none"]["global by seed"] == "- - -" and found["none"]["worst copy"] == "-"


def test_the_line_of_a_board_shows_what_each_seed_forgot() -> None:
    (found,) = headline.headlines(seeds_apart())
    cells = dict(zip(headline.HEADINGS, headline.cells(found), strict=True))
    assert (cells["Global by seed"], cells["Worst copy"], cells["Epoch 0"]) == ("+0.0* -2.0 +0.0", "-60.0", "1/3")
    assert "by seed +0.0* -2.0 +0.0, worst copy -60.0" in headline.text([found])


def test_a_heading_says_how_few_texts_a_user_has() -> None:
    rows = [msgspec.structs.replace(row, users=row.users[:3]) for row in seeds(1, 2)]
    sizes = (2, 6, 3)
    cut = [
        msgspec.structs.replace(
            row,
            users=tuple(
                msgspec.structs.replace(each, n=n, right=1, before=1) for each, n in zip(row.users, sizes, strict=True)
            ),
        )
        for row in rows
    ]
    assert "3 test users, 11 held-out texts, 3 a user (median)" in "\n".join(board.seeds_table(cut)), "not six a user"
    assert board.markdown(cut).count("3 test users, 11 held-out texts, 3 a user (median)") == 3


def test_one_seed_put_together_is_itself() -> None:
    rows = table(("last", [15, 15]), before=[10, 10])
    assert [results.together([row]) for row in rows] == rows


def test_few_users_are_each_shown_over_all_seeds() -> None:
    few = [row for seed in (0, 1) for row in table(("last", [10 + seed, 20]), before=[10, 10], seed=seed)]
    together = "\n".join(board.seeds_table(few))
    assert "| user0 | 20 | 0.0 | 50.0 | 50.0 | 52.5 |" in together and "| user1 | 20 |" in together
    assert "| user0 |" not in "\n".join(board.seeds_table(seeds(1, 2))), "thirty have percentiles"


def test_an_arm_that_a_seed_lacks_is_not_put_together() -> None:
    """Its floors would be over other seeds than itself."""
    rows = [*seeds(1, 2), of("all", [10] * 30, [10] * 30)]
    ((group, apart),) = board.over_seeds(rows).values()
    assert "all" in apart[0] and list(group) == ["majority", "none", "bias", "last"]


def test_everything_of_a_user_is_added_or_averaged() -> None:
    part = AttackedPart(n=5, clean=4, robust=3, minority=2, minority_attacked=1, minority_broken=1)
    first = {
        "probe_n": 9,
        "probe_right": 5,
        "words_read": 3,
        "membership_auc": 0.5,
        "update_bytes": 8,
        "attacked": part,
    }
    one = with_user_parts([of("last", [5], [4])], "last", **first)[0]
    other = with_user_parts(
        [of("last", [7], [4], seed=1)], "last", **first | {"membership_auc": 0.9, "update_bytes": 4}
    )
    (user,) = results.together([one, *other]).users
    assert (user.n, user.right, user.before, user.probe_n, user.words_read) == (40, 12, 8, 18, 6)
    assert user.membership_auc == pytest.approx(0.7) and user.update_bytes == 8 and user.probability_loyalty is None
    assert user.attacked == AttackedPart(n=10, clean=8, robust=6, minority=4, minority_attacked=2, minority_broken=2)
    half = [one, *with_user_parts(other, "last", attacked=None)]
    assert results.together(half).users[0].attacked is None, "attacked under one seed alone"
    fewer = msgspec.structs.replace(other[0], users=())
    assert results.together([one, fewer]).users == ()


# --- one line ------------------------------------------------------------------------------------------------


def scored(rows: Sequence[Row], arm: str, score: float) -> list[Row]:
    """The rows with another mean over validation users for an arm."""
    choice = ChoicePart(fold="all", rate=0.1, epoch=3, score=score, users=9)
    return [msgspec.structs.replace(row, choices=(choice,)) if row.arm == arm else row for row in rows]


def test_the_arm_of_a_line_is_chosen_by_validation_users_and_not_by_the_result() -> None:
    rows = table(("last", [10] * 3), ("all", [20] * 3), before=[10] * 3)
    (found,) = headline.headlines(scored(rows, "all", 0.6))
    assert found.arm == "last" and found.summary.mean == 0.5, "the better arm on test users was not the better guess"
    (found,) = headline.headlines(rows)
    assert found.arm == "last", "of equals the smaller"
    assert headline.headlines(table(before=[10] * 3)) == (), "floors alone are no line"


def test_a_line_is_of_the_most_examples_that_enough_users_have() -> None:
    rows = [
        row for k, users in ((1, 40), (4, 30), (8, 9)) for row in table(("last", [9] * users), before=[9] * users, k=k)
    ]
    assert [each.k for each in headline.headlines(rows)] == [4]
    few = [row for k in (1, 64) for row in table(("last", [9] * 6), before=[9] * 6, k=k)]
    assert [each.k for each in headline.headlines(few)] == [64]


def test_there_is_a_line_a_model_and_a_start() -> None:
    rows = [row for start in ("meta", "plain") for model in ("b", "a") for row in seeds(1, 2, start=start, model=model)]
    found = headline.headlines(rows)
    assert [(each.model, each.start) for each in found] == [(m, s) for m in "ab" for s in ("meta", "plain")]
    assert {each.seeds for each in found} == {(0, 1)}
    assert all(len(headline.cells(each)) == len(headline.HEADINGS) for each in found)
    text = headline.markdown(found)
    assert len({each.count("|") for each in text.splitlines() if each.startswith("|")}) == 1
    assert "last is right in 57.5 [57.5, 57.5] %" in headline.text(found)
    assert headline.markdown(()) == headline.text(()) == ""


def test_values_for_programs_are_those_of_the_cells() -> None:
    (found,) = headline.headlines(with_user_parts(seeds(2), "last", probe_n=10, probe_right=4, probe_before=5))
    values = headline.values(found)
    assert values["personal_arm"] == "last" and values["personal_none"] == 0.5
    assert values["personal_accuracy"] == pytest.approx(0.6)
    assert values["personal_gain"] == pytest.approx(0.1) and values["personal_floor"] in ("none", "bias")
    assert values["personal_forgetting"] == pytest.approx(-0.1) and "personal_robust" not in values
    assert values["personal_gain_low"] == pytest.approx(0.1) == values["personal_gain_high"], "all users gain alike"
    assert json.dumps(headline.as_json([found]))


# --- on the board ------------------------------------------------------------------------------------------------


def like(row: records.Row, **changes: Any) -> list[Row]:
    """Records of a model trained as a row of the board says it was."""
    record = row.record
    assert record.training
    same = {"model": record.model.name, "scheme": record.scheme.name, "config": record.model.config}
    same |= {"recipe": record.training.recipe, "dataset": record.data.name}
    return [msgspec.structs.replace(each, **same | changes) for each in seeds(3)]


def test_a_row_of_the_board_has_the_line_of_a_model_trained_alike() -> None:
    row = row_of("student", "proposed", n=60)
    (section,) = leaderboard.board([row], personal=headline.headlines(like(row)))
    (shown,) = section.lines
    assert leaderboard.columns(section)["personal"].cell(shown) == "65.0 (+15.0)"
    assert leaderboard.cells(shown)["personal_arm"] == "last"
    assert any(note.startswith("Personal: ") for note in leaderboard.notes(section))
    assert "personal_accuracy" in leaderboard.comma_separated([section])
    page = site.render([section], headline.headlines(like(row))).decode()
    assert 'data-key="personal_accuracy"' in page and "65.0 (+15.0)" in page and 'id="personal-title"' in page


@pytest.mark.parametrize(
    "other",
    [
        {"model": "prado"},
        {"scheme": "natural"},
        {"config": {"hidden": 9}},
        {"recipe": {"epochs": 9}},
        {"dataset": "d"},
        {"start": "meta"},
    ],
    ids=str,
)
def test_a_row_has_no_line_of_a_model_trained_otherwise(other: dict[str, Any]) -> None:
    row = row_of("student", "proposed", n=60)
    (section,) = leaderboard.board([row], personal=headline.headlines(like(row, **other)))
    assert section.lines[0].personal is None and "personal" not in leaderboard.columns(section)
    assert not any(note.startswith("Personal") for note in leaderboard.notes(section))
    assert 'data-key="personal_accuracy"' not in site.render([section]).decode()


def board_command(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["board", *words])
    return capsys.readouterr().out


def test_grit_board_reads_what_grit_personalize_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.write(tmp_path / "one" / results.FILE, [document(row) for row in seeds(2, 4)])
    place = str(tmp_path)
    assert "set: small natural, start plain, k = 8, 30 users, seeds 0, 1" in board_command(place, capsys=capsys)
    assert "| set | small | natural | plain | 0, 1 | 8 | 30 |" in board_command(
        place, "--format", "markdown", capsys=capsys
    )
    (told,) = json.loads(board_command(place, "--json", capsys=capsys))["personal"]
    assert told["personal_accuracy"] == pytest.approx(0.65) and told["model"] == "small"
    page = Path(board_command(place, "-o", str(tmp_path / "site"), capsys=capsys).strip()).read_text(encoding="utf-8")
    assert 'id="personal-title"' in page
    readme = board_command(place, "--format", "readme", capsys=capsys)
    assert readme == overview.overview(results.below([tmp_path])) and "## What may be taken away" in readme
    assert "in the order of a hash, not of time" in readme, "no set has times that do not reveal the label"


# --- what may be taken away ----------------------------------------------------------------------------------------


def test_a_verdict_counts_intervals_that_leave_nought_out() -> None:
    intervals = [statistics.Interval(*each) for each in ((0.1, 0.2), (-0.1, 0.2), (-0.3, -0.1), (0.0, 0.0))]
    assert overview.verdicts([*intervals, None]) == (5, 1, 1), "where no count changed is a comparison, too"


def test_findings_are_of_arms_that_learned_each_at_every_k() -> None:
    rows = [row for k in (1, 4) for row in seeds(3, k=k)] + seeds(-2, k=16)
    asleep = ChoicePart(fold="all", rate=0.1, epoch=0, score=0.5, users=9)
    unchanged = [msgspec.structs.replace(of("all", [10] * 30, [10] * 30, k=4), choices=(asleep,))]
    moved = with_user_parts(rows, "last", probe_n=10, probe_right=4, probe_before=5)
    (found,) = overview.findings([*moved, *unchanged]).values()
    assert found.gains == (4, 2, 1), "what chose to learn nothing is a comparison, too"
    assert found.forgetting == (3, 0, 3) and found.robustness == (0, 0, 0)
    (told,) = overview.takeaway([*moved, *unchanged])
    assert (
        "in 2 of 4 comparisons an arm is shown to learn more" in told
        and "3 of 3 are shown to lose and 0 to win on the global" in told
    )
    assert (
        "nothing is known of a change in robust accuracy" in told and " 0 of 0 " not in told and "of 0 is" not in told
    )
    assert "of the global model on the same texts: not measured." in told
    assert told.endswith("In the records: small; scheme natural; start plain; arms last, all; k 1, 4, 16; seeds 0.")
    few = overview.findings(table(("last", [20] * 9), before=[10] * 9))
    assert few["set"].gains.n == 0, "nine users are too few to count on"
    (nothing,) = overview.takeaway(seeds(0))
    assert "no arm is shown to learn more from a user's texts than the best floor" in nothing
    assert "2 of 4 intervals lie above nought and 1 below, where chance alone would put 0.1 on each side" in told


def test_robustness_of_fewer_users_than_an_interval_needs_is_no_finding() -> None:
    rows = asked_thrice(1)
    assert overview.findings(rows)["set"].robustness == (1, 0, 1)
    some = [
        msgspec.structs.replace(
            row,
            users=tuple(
                msgspec.structs.replace(each, attacked=each.attacked if at < 9 else None)
                for at, each in enumerate(row.users)
            ),
        )
        for row in rows
    ]
    assert overview.findings(some)["set"].robustness.n == 0
    assert overview.findings(asked_thrice(2))["set"].robustness == (1, 0, 0), "unchanged is a comparison, too"


def six_users() -> list[Row]:
    """Two seeds of six users: three gain over each of their floors, one is below one, one is hurt."""
    rows = []
    for seed in (0, 1):
        for k in (4, 64):
            bias = ("bias", [10, 10, 10, 10, 14, 10])
            rows += table(bias, ("last", [12, 12, 12, 10, 12, 8]), before=[10] * 6, k=k, seed=seed)
    bare = AttackedPart(n=4, clean=4, robust=2, minority=1, minority_attacked=1, minority_broken=1)
    rows = with_user_parts(with_user_parts(rows, "none", attacked=bare), "last", attacked=bare)
    weaker = []
    for row in rows:
        if row.arm == "last":
            fallen = [msgspec.structs.replace(each, attacked=worse(bare, 1)) for each in row.users[:2]]
            risen = msgspec.structs.replace(row.users[2], attacked=worse(bare, -1))
            row = msgspec.structs.replace(row, users=(*fallen, risen, *row.users[3:]))
        weaker.append(row)
    return weaker


def test_users_too_few_for_an_interval_are_counted_and_shown() -> None:
    (line_,) = headline.headlines(six_users())
    wanted = overview.Tally(users=6, gained=3, below=2, hurt=1, forgot=0, attacked=6, weaker=2, stronger=1)
    assert line_.k == 64 and overview.tally(line_) == wanted
    told = "\n\n".join(overview.takeaway(six_users()))
    assert told.startswith("**set: 6 users are too few for an interval.")
    assert "of 6 users 3 gained over the best of their own floors and 2 fell below it; 1 were hurt" in told
    assert "robust accuracy went down for 2 and up for 1 of 6 attacked" in told
    assert "no arm is shown" not in told and "of 0 " not in told.replace("copies of 0 ", ""), (
        "nothing found is not said where nothing was asked"
    )
    people = [each for each in told.splitlines() if "| user" in each]
    assert len(people) == 6, "every user is shown"
    assert people[0] == (
        "| small | natural | plain | 64 | user0 | 20 | 0.0 | 50.0 | 50.0 | last | 60.0 | +10.0 | - | 4/8 | 2/8 |"
    )
    assert "| 50.0 | 70.0 | last | 60.0 | -10.0 |" in people[4]
    forgetful = with_user_parts(six_users(), "last", probe_n=9, probe_before=6, probe_right=5)
    assert "copies of 6 do worse on the global test" in "".join(overview.takeaway(forgetful))
    assert "too few" not in "".join(overview.takeaway(seeds(1))), "thirty have intervals"


def test_few_users_without_attacks_or_without_an_arm_that_learns() -> None:
    (_, told, _) = overview.takeaway(table(("last", [12] * 6), before=[10] * 6))
    assert "6 gained" in told and "robust accuracy was not measured" in told
    (told,) = overview.takeaway(table(before=[10] * 6))
    assert "6 users are too few" in told


# --- on disk ----------------------------------------------------------------------------------------------


def document(row: Row) -> Document:
    return Document(row=row, run=records.RunPart(created="2026-01-01T00:00:00+00:00", seconds={"cells": 1.5}))


def test_equal_rows_are_equal_bytes_and_only_the_run_may_differ(tmp_path: Path) -> None:
    rows = table(("last", [15, 15]), before=[10, 10])
    results.write(tmp_path / "a", [document(row) for row in rows])
    results.write(tmp_path / "b", [document(row) for row in rows])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert [each.row for each in results.read(tmp_path / "a")] == rows
    for raw in (tmp_path / "a").read_text().splitlines():
        assert list(json.loads(raw)) == ["row", "run"] and json.loads(raw)["row"]["schema_version"] == 1


def test_packed_records_are_the_same_records_and_count_once(tmp_path: Path) -> None:
    rows = table(("last", [15, 15]), before=[10, 10])
    for name in (results.FILE, results.PACKED):
        results.write(tmp_path / name, [document(row) for row in rows])
        assert [each.row for each in results.read(tmp_path / name)] == rows
    assert (tmp_path / results.PACKED).stat().st_size < (tmp_path / results.FILE).stat().st_size / 2
    assert results.below([tmp_path, tmp_path / "none"]) == rows
    (tmp_path / results.PACKED).write_bytes(b"no gzip")
    with pytest.raises(MalformedInput, match="not gzip"):
        results.below([tmp_path])


@pytest.mark.parametrize(
    "spoiled",
    [
        {"k": -1},
        {"users": [{"user": "u", "n": 3, "right": -1, "before": 1}]},
        {"users": [{"user": "u", "n": 3, "right": 1, "before": 1, "membership_auc": 1.5}]},
        {"revision": "short"},
        {"unknown": 1},
        {"choices": [{"fold": "f", "rate": 0.1, "epoch": 1, "score": 2.0, "users": 1}]},
        {"attacks": "hotflip"},
    ],
    ids=str,
)
def test_a_row_that_says_what_cannot_be_is_refused(spoiled: dict[str, Any], tmp_path: Path) -> None:
    good = json.loads(records.encode(document(EMPTY)))
    (tmp_path / "rows").write_bytes(json.dumps({**good, "row": {**good["row"], **spoiled}}).encode() + b"\n")
    with pytest.raises(MalformedInput, match="line 1"):
        results.read(tmp_path / "rows")


def test_joined_rows_keep_every_user_every_choice_and_the_only_cost() -> None:
    cell = records.CostPart(target="emu://cortex-m4", engine="head.c", kind="emulated", values={"step_instructions": 5})
    one = of("last", [5], [4], notes=("a", "b"))
    two = of("last", [6, 7], [4, 4], notes=("b", "c"), cost=(cell,))
    (found,) = results.joined([one, two])
    assert len(found.users) == 3 and len(found.choices) == 2 and found.cost == (cell,)
    assert found.notes == ("a", "b", "c") and len(found.revision) == 64
    assert results.joined([one]) == [one] and results.joined([]) == []
    assert len(results.joined([one, msgspec.structs.replace(two, seed=1)])) == 2


@given(st.permutations(["k", "seed", "arm", "start", "model", "scheme", "dataset"]))
def test_rows_of_different_questions_are_never_joined(fields: list[str]) -> None:
    other = {"k": 9, "seed": 5, "arm": "all", "start": "meta", "model": "m2", "scheme": "proposed", "dataset": "d2"}
    changed = msgspec.structs.replace(EMPTY, **{fields[0]: other[fields[0]]})
    assert changed.key != EMPTY.key and len(results.joined([EMPTY, changed])) == 2


# --- what is asked ---------------------------------------------------------------------------------------------


def test_settings_find_the_configuration_or_the_recipe() -> None:
    config, recipe = study._configured("student", (("hidden", "7"), ("epochs", "3")))
    assert config.hidden == 7 and recipe.epochs == 3
    with pytest.raises(UsageError, match="hiden"):
        study._configured("student", (("hiden", "7"),))
    with pytest.raises(UsageError, match="seven"):
        study._configured("student", (("hidden", "seven"),))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": ("lastt",)}, "last"),
        ({"models": ("student", "nobody")}, "nobody"),
        ({"scheme": "unnatural"}, "natural"),
        ({"starts": ("plane",)}, "plain"),
        ({"ks": ()}, "whole numbers from 1"),
        ({"ks": (4, 0)}, "k=4,0"),
        ({"attacks": ("hotflop",)}, "hotflip"),
        ({"cores": ("cortex-z",)}, "cortex"),
        ({"settings": (("epoch", "1"),)}, "epochs"),
    ],
    ids=str,
)
def test_every_wrong_word_is_refused_before_any_work(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        study.run(dataclasses.replace(study.Study(), **changes), tmp_path / "out", _nobody)
    assert not (tmp_path / "out").exists()


def _nobody(*given: object) -> None:
    raise AssertionError("no work was to begin")


@pytest.mark.usefixtures("no_data")
def test_sentiment140_without_network_or_copy_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRIT_HUB", str(tmp_path))
    with pytest.raises(CouldNotMeasure, match="sentiment140"):
        study.run(study.Study(dataset="sentiment140"), tmp_path / "out", _nobody)


def test_the_same_question_has_the_same_folder_and_another_another() -> None:
    one = study.default_folder(study.Study())
    assert one == study.default_folder(study.Study()) and one.parts[0] == "runs"
    others = [
        study.default_folder(dataclasses.replace(study.Study(), **changes))
        for changes in ({"ks": (2,)}, {"arms": ("last",)}, {"settings": (("epochs", "2"),)}, {"dataset": "raters:x"})
    ]
    assert len({one, *others}) == 5 and all(":" not in str(each) for each in others)


def test_every_arm_is_offered_by_default_and_floors_need_no_asking() -> None:
    assert study.Study().arms == tuple(arms.ARMS) and {"none", "bias"} < set(arms.ARMS)
    assert set(summary.FLOORS) == {summary.MAJORITY, "none", "bias"}
