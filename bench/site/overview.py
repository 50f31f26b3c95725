"""leaderboards/README.md: the board as a code host shows it, made from the bundles below a folder and nothing else."""

from __future__ import annotations

from pathlib import Path

from grit.bench import leaderboard, seeds, submission
from grit.bench.explain import scores
from grit.bench.personalize import headline, results
from grit.bench.site import verdicts

OPENING = """\
# Leaderboards

Every row is a bundle, a folder of data without code: what it claims, the bytes that were measured, and each break as
an edit script. How a row is submitted, verified, corrected and challenged: [ROWS](ROWS.md). What a flag means:
[FLAGS](FLAGS.md). What has moved a number: [CHANGES](CHANGES.md).

`grit board leaderboards/ -o site/` makes a page of the same rows, to sort, filter and look into;
`grit board leaderboards/ --format readme` makes this file.
"""

BESIDE = {
    "experiments": "The experiments that make the rows, each one command",
    "explain": "What the explanations of rows are worth",
    "personal": "What personalization gives its users, and what it costs",
}


def overview(folder: Path) -> str:
    """The tables of all rows that stand, of all seeds, then where each row lies and how it is verified, as Markdown.

    Raises MalformedInput (a bundle or a line of seeds.jsonl that is none).
    """
    places = [place.relative_to(folder).as_posix() for place in submission.bundles_below(folder)]
    sections = leaderboard.board(
        submission.rows(folder),
        verified=verdicts.below([folder]),
        explained=scores.below([folder]),
        personal=headline.headlines(results.below([folder])),
    )
    there = {name: what for name, what in BESIDE.items() if (folder / name / "README.md").is_file()}
    beside = [f"{what}: [{name}]({name}/README.md).\n" for name, what in there.items()]
    parts = [OPENING, *beside, leaderboard.markdown(sections) if sections else "No row has been submitted yet.\n"]
    if kept := [each for file in sorted(folder.glob(f"*/{seeds.SEEDS}")) for each in seeds.read(file)]:
        parts.append(seeds.markdown(kept))
    if places:
        lines = [f"| [{at}]({at}) | `grit verify {folder.name}/{at} --level spot` |" for at in places]
        parts.append("\n".join(["## Bundles", "", "| Row | To verify it |", "| --- | --- |", *lines, ""]))
    return "\n".join(parts)
