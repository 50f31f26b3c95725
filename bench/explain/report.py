"""Rows side by side: what their explanations are worth, as one Markdown document.

Made from lines of ``explained.jsonl`` and nothing else: ``grit board FOLDER --format readme``. What a scheme changes is
told text by text: two rows of one model and seed, the difference of each text's scores, its mean and the interval
of that. Only loyalties to the same teacher are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from grit.bench import schemes
from grit.bench.explain import show
from grit.bench.explain.agreement import TOP
from grit.bench.explain.explainers import EXPLAINERS
from grit.bench.explain.faithfulness import EXACT
from grit.bench.explain.scores import HEADLINE, RANDOM, Explanation, Mean, Trained, mean_or_none
from grit.bench.statistics import over_seeds

CONTRASTS = (  # a scheme and what it is compared with: a step each, and the whole
    ("distil", "natural"),
    ("mapped", "distil"),
    ("proposed", "mapped"),
    ("proposed", "natural"),
    ("adversarial", "natural"),
)
SEEDS = 3  # from so many on, an interval over seeds
FAITHFUL, LOYAL = 0, 1  # places in Explanation.texts

OPENING = f"""\
# Reasons, and whether to believe them

What the explanations of trained rows are worth, by {HEADLINE} gradients unless another explainer is named. Intervals
are of 95 %, over texts, each on its own: of twenty that are about nothing, one misses the truth; a mean of fewer than
{show.FEW} texts has none. A row is one training: another seed may differ by more than its interval.

- *Faithful*: normalised AOPC of the deployed bytes, 0 the worst order of the words and 1 the best. Beside it the same
  of random orders, and of the explanation reversed. *Exact*: texts of up to {EXACT} words, whose worst and best are
  known. In longer ones a beam looks for them and may miss them, never pass them: bounds are then too narrow, which
  flatters a good explanation and wrongs a bad one, and a score beyond them is cut to 0 or 1.
- *Loyal*: Kendall's tau of the row's attributions with its teacher's, for the teacher's answer. *Floor*: the same of
  random attributions. *Ceiling*: of the teacher trained from another seed. That is what two seeds agree on, not a
  bound: `mapped` and `proposed` are trained on attributions of this very teacher (gradient x input, of training texts)
  and may come closer to it. *Top*: share of the teacher's {100 * TOP:.0f} % top words that are the row's.

A score says how far an explanation follows the model, not whether the model is right. These tables are made by
`grit board leaderboards/explain --format readme` from `explained.jsonl`, a line a row, which holds no text, and which
`grit explain RUN -o FOLDER` writes.
"""


Table = list[list[str]]  # heading and rows


def markdown(found: Iterable[Explanation]) -> str:
    """The document; a section for each dataset and number of texts."""
    known = sorted(found, key=_place)
    parts = [OPENING]
    for (data, _, n), members in groupby(known, lambda each: (each.asked.data, each.asked.revision, each.asked.n)):
        rows = list(members)
        parts.append(f"## {data} ({rows[0].asked.split}, n = {n})\n")
        for heading, table, below in _blocks(rows):
            if len(table) > 1:
                parts.append("\n".join([f"### {heading}", "", *_drawn(table), ""]))
                parts += ["\n".join([*(f"- {line}" for line in below), ""])] if below else []
    return "\n".join(parts)


def _place(each: Explanation) -> tuple[object, ...]:
    """By data, then model, scheme (the plain ones first) and seed; rows without a scheme stand last."""
    trained = each.trained or Trained(model=f"~{each.asked.row}", scheme="", seed=0)
    order = schemes.names()
    number = order.index(trained.scheme) if trained.scheme in order else len(order)
    data = each.asked.data, each.asked.revision, -each.asked.n
    return *data, each.teacher is None, trained.model, number, trained.scheme, trained.seed, each.asked.artefact


def _name(each: Explanation) -> list[str]:
    """Model, scheme, seed."""
    trained = each.trained
    return [trained.model, trained.scheme, str(trained.seed)] if trained else [each.asked.row, "", ""]


def _drawn(table: Table) -> list[str]:
    heading, *rows = ([cell.replace("|", "\\|") for cell in row] for row in table)
    return [f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *rows)]


def _blocks(rows: Sequence[Explanation]) -> Iterator[tuple[str, Table, list[str]]]:
    """Heading, table, and the lines below it."""
    changes = list(contrasts(rows))
    yield "Faithful and loyal", _worth(rows), []
    yield "What a scheme changes", _changes(changes), list(_summed_up(changes))
    yield "By every explainer", _explainers(rows), ["Normalised AOPC / tau with the teacher."]
    yield "Under attack", _attacked(rows), [_ATTACKED]
    yield "Where the truth is known", _truths(rows), list(_masks(rows))


# --- the rows -----------------------------------------------------------------------------------------


def _worth(rows: Sequence[Explanation]) -> Table:
    beside = ["floor", "ceiling"]
    table = [["Model", "Scheme", "Seed", "Faithful", "random", "reversed", "exact", "Loyal", *beside, "Top", *beside]]
    for each in rows:
        turned = (part.normalised for part in each.faithful if part.explainer == HEADLINE and part.reversed)
        cells = [show.written(each.normalised(HEADLINE)), *map(_short, (each.normalised(RANDOM), next(turned, None)))]
        cells.append(f"{each.exact} of {each.asked.n}")
        loyal = {part.who: part for part in each.loyal if part.explainer == HEADLINE}
        three = [loyal.get("student"), loyal.get("floor"), loyal.get("ceiling")]
        cells += [show.written(part.tau if part else None) for part in three]
        cells += [_short(part.overlap if part else None) for part in three]
        table.append([*_name(each), *cells])
    return table


def _explainers(rows: Sequence[Explanation]) -> Table:
    table = [["Model", "Scheme", "Seed", *EXPLAINERS]]
    for each in rows:
        both = ((_short(each.normalised(name)), _short(each.loyalty(name))) for name in EXPLAINERS)
        table.append([*_name(each), *(" / ".join(filter(None, pair)) for pair in both)])
    return table


# --- differences --------------------------------------------------------------------------------------


class Contrast(NamedTuple):
    """What a scheme changes in one model at one seed: the mean difference over the same texts."""

    model: str
    scheme: str
    than: str
    seed: int
    loyal: Mean | None  # None, too, where the teachers differ
    faithful: Mean | None


def contrasts(rows: Iterable[Explanation]) -> Iterator[Contrast]:
    """Every pair of rows that differ in their scheme alone, as :data:`CONTRASTS` names them."""
    known = {(each.trained.model, each.trained.seed, each.trained.scheme): each for each in rows if each.trained}
    for scheme, than in CONTRASTS:
        for (model, seed, name), row in known.items():
            other = known.get((model, seed, than))
            if name == scheme and other is not None:
                same = row.asked.teacher is not None and row.asked.teacher == other.asked.teacher
                loyal = difference(row, other, LOYAL) if same else None
                yield Contrast(model, scheme, than, seed, loyal, difference(row, other, FAITHFUL))


def difference(row: Explanation, other: Explanation, at: int) -> Mean | None:
    """The mean of what a row scores more than another on the texts that both have a score of."""
    pairs = ((scores[at], other.texts[key][at]) for key, scores in row.texts.items() if key in other.texts)
    return mean_or_none(mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None)


def _changes(found: Sequence[Contrast]) -> Table:
    table = [["Scheme", "than", "Model", "Seed", "Loyal", "Faithful"]]
    for (scheme, than, model), members in groupby(found, lambda each: (each.scheme, each.than, each.model)):
        seeds = list(members)
        for each in seeds:
            table.append([scheme, than, model, str(each.seed), _signed(each.loyal), _signed(each.faithful)])
        if len(seeds) >= SEEDS:
            table.append([scheme, than, model, "all", *(_over_seeds(parts) for parts in _columns(seeds))])
    return table


def _columns(found: Sequence[Contrast]) -> tuple[list[Mean | None], list[Mean | None]]:
    return [each.loyal for each in found], [each.faithful for each in found]


def _over_seeds(parts: Sequence[Mean | None]) -> str:
    """+0.04 [+0.01, +0.07], by Student's t over the seeds."""
    values = [part.value for part in parts if part is not None]
    interval = over_seeds(values).interval if len(values) >= SEEDS else None
    return f"{over_seeds(values).mean:+z.3f} [{interval.low:+z.3f}, {interval.high:+z.3f}]" if interval else ""


def _summed_up(found: Sequence[Contrast]) -> Iterator[str]:
    """What a reader may take away of each contrast."""
    for scheme, than in CONTRASTS:
        here = [each for each in found if (each.scheme, each.than) == (scheme, than)]
        said = [_verdict(what, parts) for what, parts in zip(("loyal", "faithful"), _columns(here), strict=True)]
        if any(said):
            yield f"**{scheme}** than {than}: {'; '.join(filter(None, said))}."


def _verdict(what: str, parts: Sequence[Mean | None]) -> str:
    """more loyal in 5 of 6 rows, less in 0, undecided in 1; +0.05 on average (-0.01 to +0.09)"""
    known = [part for part in parts if part is not None]
    if not known:
        return ""
    more, less = sum(part.low > 0 for part in known), sum(part.high < 0 for part in known)
    values = [part.value for part in known]
    return (
        f"more {what} in {more} of {len(known)} rows, less in {less}, undecided in {len(known) - more - less}, "
        f"{sum(values) / len(values):+z.3f} on average ({min(values):+z.3f} to {max(values):+z.3f})"
    )


# --- attacks and truth --------------------------------------------------------------------------------

_ATTACKED = (
    "Drift: tau of the attributions before and after, on texts that an attack changed without changing the answer; "
    "they are others in every row, so drifts of two rows cannot be compared. "
    f"Aimed: of the words that breaks changed, those among the {100 * TOP:.0f} % of largest attribution before."
)


def _attacked(rows: Sequence[Explanation]) -> Table:
    table = [["Model", "Scheme", "Seed", "Attack", "Drift", "of texts", "Aimed", "by chance"]]
    for each in rows:
        for part in (part for part in each.attacked if part.explainer == HEADLINE):
            drift = [show.written(part.tau), str(part.tau.n if part.tau else 0)]
            aimed = [f"{part.aimed.k} of {part.aimed.n}", f"{part.chance:.0f}"]
            table.append([*_name(each), part.attack, *drift, *aimed])
    return table


def _truths(rows: Sequence[Explanation]) -> Table:
    """Planted words found, of all planted; agreement with the row's own attributions when its weights are shuffled."""
    table = [["Model", "Scheme", "Truth", *EXPLAINERS, "by chance"]]
    for each in rows:
        name = _name(each)[:2]
        for kind in dict.fromkeys(part.kind for part in each.truth):
            here = {part.explainer: part for part in each.truth if part.kind == kind}
            hits = [f"{here[name].hits.k} of {here[name].hits.n}" if name in here else "" for name in EXPLAINERS]
            table.append([*name, f"planted {kind}", *hits, f"{max(part.chance for part in here.values()):.0f}"])
        for kind in each.unlearned:
            table.append([*name, f"planted {kind}", *["not learned"] * len(EXPLAINERS), ""])
        if blind := {part.explainer: part.tau for part in each.shuffled}:
            table.append([*name, "shuffled weights", *(_short(blind.get(name)) for name in EXPLAINERS), "0"])
    return table


def _masks(rows: Sequence[Explanation]) -> Iterator[str]:
    for each in (each for each in rows if each.masked):
        counts = ", ".join(f"{part.aim} {part.optimal.k} of {part.optimal.n}" for part in each.masked)
        yield f"{' '.join(_name(each)[:2])}, masks that are the best of all, of texts of up to 12 words: {counts}."


# --- numbers ------------------------------------------------------------------------------------------


def _short(mean: Mean | None) -> str:
    return "" if mean is None else f"{mean.value:.2f}"


def _signed(mean: Mean | None) -> str:
    return "" if mean is None else f"{mean.value:+z.3f} [{mean.low:+z.3f}, {mean.high:+z.3f}]"
