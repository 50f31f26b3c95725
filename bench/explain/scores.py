"""What was found out about the explanations of one row: a line of ``explained.jsonl`` beside the records.

A mean stands with its 95 % interval (bootstrap over texts) and the number of texts behind it. A line belongs to the
row whose deployed bytes it names by digest, and to no other; it holds no text. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from grit import __version__
from grit.bench.records import Count, Fields, Natural, Sha256, decoded, encode, read, write
from grit.bench.types import MalformedInput

EXPLAINED = "explained.jsonl"
RANDOM = "random"  # the name under which random attributions stand beside the explainers
HEADLINE = "integrated"  # the explainer that stands on the board: complete, without chance, the same for all models
Who = Literal["student", "ceiling", "floor"]


class Mean(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mean over ``n`` texts, and its 95 % interval; of no text there is none."""

    value: float
    low: float
    high: float
    n: Annotated[int, Meta(ge=1)]


class Faithful(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How faithful one explainer is to one model; ``reversed`` ranks the words the other way round."""

    explainer: str  # or "random"
    reversed: bool = False
    comprehensiveness: Mean
    sufficiency: Mean
    flip: Mean
    normalised: Mean | None  # None: no text on which an order matters


class Loyal(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Agreement with the teacher's attributions: of the student, of the teacher from another seed, of chance."""

    explainer: str
    who: Who
    tau: Mean
    overlap: Mean


class Attacked(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reasons before and after one attack.

    tau, overlap: between them, on texts that were changed and not broken; None where there are none. aimed: of the
    words that breaks changed, those that were among the top of the attribution; by chance it would be ``chance``.
    """

    attack: str
    explainer: str
    tau: Mean | None
    overlap: Mean | None
    aimed: Count
    chance: float


class Truth(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Precision at k: of the planted words of all texts, those that the explainer puts first; ``chance`` expected."""

    explainer: str
    kind: str
    hits: Count
    chance: float


class Shuffled(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Agreement of an explanation with the one after the weights were shuffled: should be near 0."""

    explainer: str
    tau: Mean


class Masked(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of texts whose masks can all be tried, those of which the search found the best one for an aim."""

    aim: str
    optimal: Count


class Trained(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a row was trained: what it is compared with has two of the three in common."""

    model: str  # with its settings, as student[hidden=10]
    scheme: str
    seed: int


class Asked(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that the scores of a row depend on, but for the code: where it is the same, they are known already."""

    row: str
    artefact: str  # digest of the deployed bytes
    data: str
    revision: Sha256
    split: str = "test"
    n: Natural  # texts, by stratified hash rank
    seed: int
    explainers: dict[str, str]  # name -> the configured value, to be pasted back
    teacher: str | None = None  # digest of its bytes
    twin: str | None = None
    attacks: dict[str, Sha256] = {}  # name -> digest of the outcomes
    planted: bool = False


class Explanation(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="schema_version", tag=1):
    asked: Asked
    exact: Natural  # texts whose bounds of the AOPC are exact
    teacher: str | None = None  # row of the same run
    twin: str | None = None  # the teacher from another seed
    faithful: tuple[Faithful, ...]
    loyal: tuple[Loyal, ...] = ()
    attacked: tuple[Attacked, ...] = ()
    truth: tuple[Truth, ...] = ()
    unlearned: tuple[str, ...] = ()  # kinds of shortcuts that a model of this make did not learn: no truth to find
    shuffled: tuple[Shuffled, ...] = ()
    masked: tuple[Masked, ...] = ()
    trained: Trained | None = None  # None: a model without its run
    # example id -> normalised AOPC, and tau with the teacher, by the board's explainer: for rows compared text by text
    texts: dict[str, tuple[float | None, float | None]] = {}
    version: str = __version__
    run: Fields = {}  # when, how long, where

    def answers(self, asked: Asked) -> bool:
        """Whether these are the scores that are asked for, or these and a known truth, by this version."""
        alone = msgspec.structs.replace(self.asked, planted=False)
        return asked in (self.asked, alone) and self.version == __version__

    @property
    def about(self) -> tuple[object, ...] | None:
        """What a training anew leaves as it is: the data, the teacher's row, and how the row was trained."""
        if self.trained is None:
            return None
        return self.asked.data, self.asked.revision, self.asked.split, self.asked.n, self.teacher, self.trained

    def normalised(self, explainer: str) -> Mean | None:
        """Normalised AOPC of an explainer, or of chance."""
        found = (part.normalised for part in self.faithful if part.explainer == explainer and not part.reversed)
        return next(found, None)

    def loyalty(self, explainer: str, who: Who = "student") -> Mean | None:
        """Kendall's tau with the teacher."""
        return next((part.tau for part in self.loyal if (part.explainer, part.who) == (explainer, who)), None)


def mean(values: Sequence[float], seed: int = 0) -> Mean:
    """The mean of at least one value, and its bootstrap interval."""
    from grit.bench.statistics import paired_bootstrap

    low, high = paired_bootstrap(values, [0.0] * len(values), resamples=2000, seed=seed)
    middle = sum(values) / len(values)
    return Mean(value=middle, low=min(low, middle), high=max(high, middle), n=len(values))


def mean_or_none(values: Iterable[float | None]) -> Mean | None:
    """As :func:`mean`, of the values that there are."""
    there = [value for value in values if value is not None]
    return mean(there) if there else None


# --- on disk ------------------------------------------------------------------------------------------


def save(folder: Path, explanations: Iterable[Explanation]) -> Path:
    """Writes the lines, replacing those that stand there of the same bytes, and of the same row trained anew."""
    path = folder / EXPLAINED
    kept = _read(path) if path.is_file() else []
    for fresh in explanations:
        kept = [each for each in kept if not _replaces(fresh, each)] + [fresh]
    write(path, b"".join(encode(each) + b"\n" for each in kept))
    return path


def _replaces(fresh: Explanation, old: Explanation) -> bool:
    return fresh.asked.artefact == old.asked.artefact or (fresh.about is not None and fresh.about == old.about)


def below(folders: Iterable[Path]) -> Mapping[str, Explanation]:
    """Digest of deployed bytes -> what was found out about it, from every such file in or below the folders."""
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.rglob(EXPLAINED))]
    return {each.asked.artefact: each for file in files for each in _read(file)}


def _read(path: Path) -> list[Explanation]:
    found = []
    for at, line in enumerate(read(path).splitlines(), 1):
        where = f"{path}, line {at}"
        explanation = decoded(line, Explanation, where)
        if "schema_version" not in msgspec.json.decode(line, type=dict[str, msgspec.Raw]):
            raise MalformedInput(f"{where}: no schema_version; was it written by 'grit explain'?")
        found.append(explanation)
    return found
