"""Rows made of counts, for tests of what is done with rows."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Any

from grit.bench import records
from grit.bench.records import Row
from grit.bench.types import Edit, Outcome

PWWS, BUG = "pwws.strong+thesaurus", "deepwordbug.strong"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Poke:
    beam: int = 3


def row_of(
    model: str = "student",
    scheme: str = "natural",
    *,
    robust: float = 0.4,
    clean: float = 0.9,
    n: int = 1000,
    seed: int = 0,
    dataset: str = "made",
    config: dict[str, Any] | None = None,
    size: int | None = 100_000,
    p50_us: float | None = 20.0,
    constant: bool = False,
    errors: int = 0,
    evidence: bool = True,
    embedded: bool = False,
    attacks: tuple[str, ...] = (BUG, PWWS),
    beam: int = 3,
    notes: tuple[str, ...] = (),
) -> Row:
    """A row over examples of which the first are the easy ones: two rows differ on few, as real ones do."""
    labels = [at % 2 for at in range(n)]
    right = [label == 0 if constant else at < clean * n for at, label in enumerate(labels)]
    ids = [sha(f"{dataset}{at}")[:16] for at in range(n)]
    rng = random.Random(f"{model}{scheme}{seed}")
    lines = tuple(
        records.Clean(
            id=id_, label=label, predicted=0 if constant else (label if hit else 1 - label), margin=-1.0 if hit else 1.0
        )
        for id_, label, hit in zip(ids, labels, right, strict=True)
    )
    found: dict[str, tuple[Outcome, ...]] = {}
    for number, name in enumerate(attacks):
        outcomes = []
        for at, id_ in enumerate(ids):
            if not right[at]:
                outcomes.append(Outcome(id_, "skipped", words=8))
            elif at < errors:
                outcomes.append(Outcome(id_, "error", words=8, reason="no"))
            elif at + rng.uniform(-0.02, 0.02) * n < (robust + 0.1 * number) * n:
                outcomes.append(Outcome(id_, "survived", predicted=labels[at], margin=-0.5, queries=9, words=8))
            else:
                script = (Edit("replace", 1, "w"),)
                outcomes.append(Outcome(id_, "broken", script, 1 - labels[at], 0.5, 5, words=8))
        found[name] = tuple(outcomes)
    proof = records.Evidence(lines, found)
    data = records.DataPart(
        name=dataset,
        revision=sha(dataset),
        split="test",
        n=n,
        selection="hash rank",
        labels=("later", "now"),
        label_counts=(labels.count(0), labels.count(1)),
        notes=notes,
    )
    clean_part = records.clean_part(lines, 2)
    parts = tuple(records.attack_part(name, Poke(beam), outcomes) for name, outcomes in sorted(found.items()))
    clock = (
        []
        if p50_us is None
        else [
            records.CostPart(
                target="local", engine="fixed", kind="measured", values={"p50_us": p50_us, "p90_us": 2 * p50_us}
            )
        ]
    )
    record = records.Record(
        model=records.ModelPart(name=model, config=config or {"hidden": 5}, repr=f"{model}()", parameters=size),
        scheme=records.SchemePart(name=scheme, terms=(records.TermPart(objective="task", weight=1.0),)),
        training=records.TrainingPart(
            recipe={},
            seed=seed,
            epochs=1,
            best_epoch=1,
            dev_score=0.5,
            selection="dev",
            data=dataset,
            revision=sha(dataset),
            n_train=100,
        ),
        data=data,
        artefact=records.ArtefactPart(
            format="fixed",
            precision="int8",
            digest=sha(model + scheme),
            sizes_bytes={} if size is None else {"weights": size - size // 10, "vocabulary": size // 10},
            total_bytes=size,
        ),
        clean=clean_part,
        attacks=parts,
        worst=records.worst_case(proof),
        flags=records.flags(data, clean_part, parts, embedded=embedded),
        run=records.RunPart(created="2026-01-01T00:00:00Z", seconds={}, cost=tuple(clock)),
    )
    return Row(record, proof if evidence else None)
