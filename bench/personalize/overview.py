"""leaderboards/personal/README.md: what the committed records say, made from them and nothing else.

First what a reader may take away, as counts of comparisons whose interval leaves nought out, then the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from grit.bench.personalize import board, headline
from grit.bench.personalize.results import Row, asked
from grit.bench.personalize.summary import FLOORS
from grit.bench.statistics import Interval

LEAST_USERS = 10  # for a bootstrap over users to be counted on; with fewer its intervals are too narrow

OPENING = """\
# Models that go on learning from their users

A global model meets users it was never trained on and learns from k of their texts. Rate and epoch of every arm are
chosen on validation users, and the global model untouched is among the choices. Gains are over the best of three floors
that learn nothing from texts. A user's texts come in the order of a hash, not of time: none of the sets has times that
do not reveal the label (the airline tweets have none, the dates of the Enron mail tell spam from ham, the raters are
made). How it is done: `bench/personalize/`.

Where robust accuracy rises while the global test falls, suspect a copy that answers one label more often, which no
attack can change, before one that has become sturdier: the two columns are to be read together.

The records lie in the folders beside this file and hold counts, no text and no name of a user. A study in full is
`grit personalize leaderboards/personal/NAME.toml`; what is shown is the part of it whose records are here, and may lack
models, arms and starts. `grit board leaderboards/personal --format readme` makes this file.
"""


class Verdicts(NamedTuple):
    """Comparisons, and those of them whose 95 % interval lies above and below nought."""

    n: int
    above: int
    below: int

    def __str__(self) -> str:
        """Chance is for one comparison at a time, as the intervals are."""
        if not self.n:
            return "not measured"
        return (
            f"{self.above} of {self.n} intervals lie above nought and {self.below} below, where chance alone would put "
            f"{0.025 * self.n:.1f} on each side"
        )


def verdicts(intervals: Sequence[Interval | None]) -> Verdicts:
    """None, of comparisons in which no user's count changed, lies neither above nor below."""
    known = [interval for interval in intervals if interval is not None]
    return Verdicts(len(intervals), sum(each.low > 0 for each in known), sum(each.high < 0 for each in known))


class Findings(NamedTuple):
    """Of one data set: every arm that is no floor, at every k, model, scheme and start, all seeds together.

    Where there are :data:`LEAST_USERS` users or more.
    """

    gains: Verdicts  # over the best floor
    forgetting: Verdicts  # of arms that learned: change on the global test texts
    robustness: Verdicts  # of arms that learned and were attacked: change of robust accuracy


def findings(rows: Sequence[Row]) -> dict[str, Findings]:
    """By data set."""
    found: dict[str, list[tuple[board.Group, str]]] = {}
    for (dataset, *_), (group, _) in board.over_seeds(rows).items():
        pairs = found.setdefault(dataset, [])
        if len(group["none"].users) >= LEAST_USERS:
            pairs.extend((group, arm) for arm in group if arm not in FLOORS)
    return {dataset: _findings(pairs) for dataset, pairs in found.items()}


def _findings(pairs: Sequence[tuple[board.Group, str]]) -> Findings:
    learned = [(group, arm) for group, arm in pairs if any(choice.epoch for choice in group[arm].choices)]
    forgotten = [board.forgetting(group[arm].users) for group, arm in learned]
    changed = [board.robustness(group, arm)[1] for group, arm in learned]
    return Findings(
        verdicts([board.summary(group, arm).gain_interval for group, arm in pairs]),
        verdicts([each.interval for each in forgotten if each is not None and each.users >= LEAST_USERS]),
        verdicts([each.interval for each in changed if each is not None and each.users >= LEAST_USERS]),
    )


def takeaway(rows: Sequence[Row]) -> Iterator[str]:
    """A paragraph a data set: a sentence that claims no more than the counts behind it."""
    for dataset, found in findings(rows).items():
        mine = [row for row in rows if row.dataset == dataset]
        if not found.gains.n:
            yield from few(dataset, mine)
            continue
        yield (
            f"**{dataset}: {_sentence(found)}** Gain over the best floor, every arm that learns at every k, model and "
            f"start: {found.gains}. Accuracy on the global test after learning, on the same texts for all: "
            f"{found.forgetting}. Robust accuracy of the copies against that of the global model on the same texts: "
            f"{found.robustness}. Counted where there are {LEAST_USERS} users or more; what is not shown is not shown "
            f"to be absent. In the records: {_covered(mine)}."
        )


def _sentence(found: Findings) -> str:
    gained = found.gains.above
    gain = f"in {gained} of {found.gains.n} comparisons an arm is" if gained else "no arm is"
    return (
        f"{gain} shown to learn more from a user's texts than the best floor; {_told(found.forgetting)} on the global "
        f"test, and {_told(found.robustness)} in robust accuracy."
    )


def _covered(rows: Sequence[Row]) -> str:
    def each(values: Iterable[object]) -> str:
        return ", ".join(map(str, dict.fromkeys(values)))

    arms = each(row.arm for row in rows if row.arm not in FLOORS)
    return (
        f"{each(row.model for row in rows)}; scheme {each(row.scheme for row in rows)}; "
        f"start {each(row.start for row in rows)}; arms {arms}; "
        f"k {each(row.k for row in rows)}; seeds {each(row.seed for row in rows)}"
    )


def _told(found: Verdicts) -> str:
    if not found.n:
        return "nothing is known of a change"
    if not found.above and not found.below:
        return f"none of {found.n} is shown to change"
    return f"{found.below} of {found.n} are shown to lose and {found.above} to win"


# --- of few users --------------------------------------------------------------------------------------------


class Tally(NamedTuple):
    """Users of one line, one by one: what may be said where they are too few for an interval."""

    users: int
    gained: int  # over the best of the user's own floors
    below: int  # that floor
    hurt: int  # served worse than by the global model
    forgot: int  # whose copies do worse on the global test
    attacked: int  # under the arm and under the global model
    weaker: int  # of them those whose robust accuracy fell
    stronger: int


def tally(line: headline.Headline) -> Tally:
    mine, bare = line.row.users, line.group["none"].users
    floors = zip(*(line.group[floor].users for floor in FLOORS), strict=True)
    over = [each.right - max(floor.right for floor in own) for each, own in zip(mine, floors, strict=True)]
    both = [(one.attacked, other.attacked) for one, other in zip(mine, bare, strict=True)]
    moved = [one.robust - other.robust for one, other in both if one is not None and other is not None]
    return Tally(
        users=len(over),
        gained=sum(each > 0 for each in over),
        below=sum(each < 0 for each in over),
        hurt=line.summary.hurt,
        forgot=sum(each.probe_right < each.probe_before for each in mine),
        attacked=len(moved),
        weaker=sum(each < 0 for each in moved),
        stronger=sum(each > 0 for each in moved),
    )


def few(dataset: str, rows: Sequence[Row]) -> Iterator[str]:
    """Of a data set without users enough for any interval: counts of users, and every one of them."""
    lines = headline.headlines(rows)
    most = max((len(row.users) for row in rows), default=0)
    yield (
        f"**{dataset}: {most} users are too few for an interval. They are counted here and each is shown below; "
        "nothing is claimed of other users.** Of each model and start the arm that validation users liked best, at "
        f"the largest k, seeds added. In the records: {_covered(rows)}."
    )
    if lines:
        yield "\n".join(f"- {_told_of_few(line)}" for line in lines)
        yield "\n".join(people(lines))


def _told_of_few(line: headline.Headline) -> str:
    found = tally(line)
    robust = (
        f"robust accuracy went down for {found.weaker} and up for {found.stronger} of {found.attacked} attacked"
        if found.attacked
        else "robust accuracy was not measured"
    )
    return (
        f"{line.model} {line.scheme}, start {line.start}, k = {line.k}, {line.arm}: of {found.users} users "
        f"{found.gained} gained over the best of their own floors and {found.below} fell below it; {found.hurt} were "
        f"hurt against the global model; copies of {found.forgot} do worse on the global test; {robust}; nothing was "
        f"learned in {board.untaught(line.row)} of {len(line.row.choices)} choices, one a fold and seed."
    )


PEOPLE = (
    *("Model", "Scheme", "Start", "k", "User", "Texts", "Majority", "Global", "Bias", "Arm", "Accuracy"),
    *("Over own best floor", "Global test", "Robust before", "Robust after"),
)


def people(lines: Sequence[headline.Headline]) -> Iterator[str]:
    """A line a user, all seeds added."""
    yield board.line(PEOPLE)
    yield board.line(["---"] * len(PEOPLE))
    for line in lines:
        floors = [line.group[floor].users for floor in FLOORS]
        for mine, *own in zip(line.row.users, *floors, strict=True):
            bare = own[FLOORS.index("none")].attacked
            forgotten = board.percent(mine.probe_right - mine.probe_before, mine.probe_n, "+.1f")
            over = board.percent(mine.right - max(each.right for each in own), mine.n, "+.1f")
            yield board.line(
                [
                    *(line.model, line.scheme, line.start, f"{line.k}", mine.user, f"{mine.n // asked(line.row)}"),
                    *(board.percent(each.right, mine.n) for each in own),
                    *(line.arm, board.percent(mine.right, mine.n), over, forgotten),
                    *("-" if part is None else f"{part.robust}/{part.n}" for part in (bare, mine.attacked)),
                ]
            )


def overview(rows: Sequence[Row]) -> str:
    """The whole document, as Markdown."""
    parts = [
        OPENING,
        "## What may be taken away\n",
        "\n\n".join(takeaway(rows)) + "\n",
        headline.markdown(headline.headlines(rows)),
        "## Every arm",
        "\n".join(board.seeds_table(rows, least=1)) + "\n",
        "\n".join([*board.costs(rows), *board.legend(rows)]).strip() + "\n",
    ]
    return "\n".join(parts)
