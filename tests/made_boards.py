"""Boards for tests of the page: rows over sentences made here, with training, emulated costs and readable breaks."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from grit.bench import datasets, leaderboard, records
from grit.bench.leaderboard import Section, Verified
from grit.bench.records import Row
from grit.bench.types import Edit, Example, Outcome

sys.path.append(str(Path(__file__).parent))

from made_rows import Poke, row_of

SCRIPTS = (
    (Edit("replace", 1, "feline"),),
    (Edit("insert", 0, "Well"), Edit("delete", 2, "")),
    (Edit("replace", 0, "A"), Edit("replace", 3, "slowly"), Edit("insert", 8, "indeed")),
)


def sentences(n: int) -> list[str]:
    """Eight words each, with what a reader of text may stumble over: quotes, accents, signs, two copies."""
    found = [f'The cat\'s "café" no. {at} stays well-known, naïve' for at in range(n - 1)]
    return [*found, found[0]]


def data_file(folder: Path, n: int, name: str = "made.jsonl") -> Path:
    """The sentences as a file of a dataset, in the format of its ending."""
    path = folder / name
    rows = [(text, "now" if at % 2 else "later") for at, text in enumerate(sentences(n))]
    if name.endswith(".jsonl"):
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    elif name.endswith(".tsv"):
        lines = ["text\tlabel", *("\t".join(row) for row in rows)]
    else:
        lines = ["label,text", *(f'{label},"{text.replace(chr(34), chr(34) * 2)}"' for text, label in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def examples(folder: Path, n: int) -> list[Example]:
    """What the engine reads from that file: all its splits, in the order of the file."""
    found = datasets.load(str(data_file(folder, n)))
    return sorted((*found.train, *found.dev, *found.test), key=lambda example: example.text)


def over(row: Row, texts: Sequence[Example]) -> Row:
    """The same row over the examples of a file, its breaks made of readable words."""
    assert row.evidence
    known = {line.id: example.id for line, example in zip(row.evidence.clean, texts, strict=True)}
    clean = tuple(msgspec.structs.replace(line, id=known[line.id]) for line in row.evidence.clean)
    attacks = {
        name: tuple(
            Outcome(
                known[outcome.id],
                outcome.outcome,
                SCRIPTS[at % 3] if outcome.outcome == "broken" else (),
                outcome.predicted,
                outcome.margin,
                outcome.queries + at % 40,
                words=8,
            )
            for at, outcome in enumerate(outcomes)
        )
        for name, outcomes in row.evidence.attacks.items()
    }
    evidence = records.Evidence(clean, attacks)
    record = row.record
    parts = tuple(records.attack_part(part.name, Poke(), attacks[part.name]) for part in record.attacks)
    return Row(msgspec.structs.replace(record, clean=records.clean_part(clean, 2), attacks=parts), evidence)


def furnished(row: Row, m4: int, epochs: int = 4) -> Row:
    """With emulated cores, an unmeasured target, and a history of training."""
    record = row.record
    assert record.training
    cost = tuple(
        records.CostPart(
            target=f"emu://cortex-{core}",
            engine="c",
            kind="emulated",
            values={"p50_instructions": factor * m4 // 10, "ram_bytes": 4_000 + m4 // 1000, "flash_bytes": 90_000},
        )
        for core, factor in (("a53", 9), ("a76", 7), ("m4", 10))
    )
    history = tuple(
        records.EpochPart(
            number=at + 1,
            learning_rate=0.001,
            losses={"task": 1 / (at + 1), "mapping": 0.5 / (at + 1)},
            dev_accuracy=0.9 - 0.4 / (at + 1),
            dev_attacked=0.6 - 0.4 / (at + 1),
            score=0.5,
        )
        for at in range(epochs)
    )
    training = msgspec.structs.replace(
        record.training, history=history, epochs=epochs, best_epoch=epochs, licence="CC0-1.0", recipe={"epochs": epochs}
    )
    nowhere = records.CostPart(
        target="board://pi", engine="c", kind="not measured", reason="no board here; plug one in"
    )
    run = msgspec.structs.replace(record.run, cost=(*record.run.cost, nowhere))
    return Row(msgspec.structs.replace(record, cost=cost, training=training, run=run), row.evidence)


def rows(folder: Path, n: int = 1000) -> list[Row]:
    """Seven rows over one file, of which two are seeds of one experiment, and one row of another dataset."""
    texts = examples(folder, n)
    made = [
        furnished(row_of("student", "natural", robust=0.2, size=101_000, n=n), 2_000_000),
        furnished(row_of("student", "proposed", robust=0.5, size=101_000, n=n), 2_000_000),
        furnished(row_of("student", "proposed", robust=0.48, size=101_000, n=n, seed=1), 2_000_000),
        furnished(row_of("fastgrnn", "natural", robust=0.1, size=180_000, n=n), 5_000_000),
        furnished(row_of("prado", "proposed", robust=0.45, size=118_000, n=n), 900_000),
        row_of("bag", "natural", robust=0.3, size=1_900_000, n=n),
        row_of("silent", "natural", robust=0.3, size=50_000, n=n, constant=True),
    ]
    other = row_of("tiny", "natural", robust=0.3, size=9_000, dataset="other", n=200)
    return [*(over(row, texts) for row in made), other]


def board(folder: Path, n: int = 1000) -> tuple[Section, ...]:
    """Those rows, some of them with a verdict."""
    made = rows(folder, n)
    digests = [records.row_digest(row.record) for row in made]
    verdicts = {
        digests[0]: Verified("challenged", "replay", "2026-02-03", None, 150),
        digests[1]: Verified("current", "spot", "2026-02-01", 0.4853, None),
        digests[3]: Verified("refuted", "spot", "2026-02-04", None, None),
        digests[4]: Verified("stale", "full", "2025-12-24", None, None),
    }
    return leaderboard.board(made, verified=verdicts)
