"""What a query of an attack costs: in all, and outside the victim. Numbers, no verdicts.

The victims are the deployed bytes of untrained models, compiled where a compiler is here; every text is attacked,
since gold is what the victim says. The columns of ``--benchmark-json`` that matter stand under ``extra_info``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from grit.bench import datasets, lexicons, registry
from grit.bench.evaluate import attack_all
from grit.bench.export import build
from grit.bench.sentence import words_of
from grit.bench.twin import Twin
from grit.bench.types import Attack, Example, Outcome, Threat
from grit.bench.victim import Victim

pytestmark = pytest.mark.benchmark

TEXTS = 10
SHORT = ("pwws.textattack", "deepwordbug.textattack")
STRONG = ("pwws.strong", "deepwordbug.strong", "hotflip.strong")


@pytest.fixture(scope="module", params=["student", "hashed"])
def victim(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Victim:
    pings = datasets.load("pings")
    texts = [example.text for example in pings.train]
    cls = registry.load("models", request.param)
    model = cls.build(cls.Config(), texts, len(pings.labels), 0).eval()
    path: Path = tmp_path_factory.mktemp("artefact") / "artefact.safetensors"
    path.write_bytes(build.deployed(model, texts[:200]))
    return Victim(build.quickest(build.load(path)), Twin(model))


class Clocked:
    """A victim that adds up the time it takes to read texts, to answer, and to take gradients."""

    def __init__(self, victim: Victim) -> None:
        self._victim = victim
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._victim, name)
        return self._clocked(found) if name in ("answer", "gains", "logits") else found

    def open(self, sentence: Any) -> Any:
        subject: Any = self._clocked(self._victim.open)(sentence)
        subject._reader = SimpleNamespace(read=self._clocked(subject._reader.read))
        return subject

    def _clocked(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            started = time.process_time()
            answer = call(*arguments)
            self.seconds += time.process_time() - started
            return answer

        return timed


def labelled(victim: Victim, texts: Sequence[Example]) -> list[Example]:
    """Under the labels that the victim gives, so that every text is attacked."""
    said = victim.logits([example.text for example in texts]).argmax(axis=1).tolist()
    return [replace(example, label=label) for example, label in zip(texts, said, strict=True)]


def timed(benchmark: Any, victim: Victim, attack: Attack, some: Sequence[Example], lexicon: Any) -> None:
    clocked = Clocked(victim)
    spent = [0.0]

    def attacked() -> list[Outcome]:
        clocked.seconds, started = 0.0, time.process_time()
        outcomes = attack_all(clocked, attack, some, seed=0, lexicon=lexicon)
        spent[0] = time.process_time() - started
        return outcomes

    outcomes = benchmark.pedantic(attacked, rounds=3, warmup_rounds=1)
    queries = sum(outcome.queries for outcome in outcomes)
    benchmark.extra_info["texts"] = len(some)
    benchmark.extra_info["queries"] = queries
    benchmark.extra_info["us_a_query"] = 1e6 * spent[0] / queries
    benchmark.extra_info["us_a_query_outside_the_victim"] = 1e6 * (spent[0] - clocked.seconds) / queries
    benchmark.extra_info["ms_a_text"] = 1e3 * spent[0] / len(some)
    assert queries > len(some) and not [outcome for outcome in outcomes if outcome.outcome == "error"]


@pytest.mark.parametrize("name", SHORT + STRONG)
def test_queries_of_an_attack(name: str, benchmark: Any, victim: Victim) -> None:
    attack = registry.attack(f"{name}+thesaurus" if "pwws" in name or "hotflip" in name else name)
    chosen = datasets.subset(datasets.load("pings").test, TEXTS, "pings")
    timed(benchmark, victim, attack, labelled(victim, chosen), lexicons.load("thesaurus"))


class Drawn:
    """A lexicon in which every word has as many synonyms as one likes: others of the corpus."""

    name, digest = "drawn", ""

    def __init__(self, words: Sequence[str], count: int) -> None:
        self._words, self._count = words, count

    def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
        return tuple(random.Random(word).sample(self._words, self._count))


@pytest.mark.long
@pytest.mark.parametrize("name", ["pwws.strong", "hotflip.strong"])
@pytest.mark.parametrize(
    ("texts", "length", "synonyms"),
    [(40, 1, 8), (10, 1, 8), (160, 1, 8), (40, 4, 8), (40, 16, 8), (40, 1, 2), (40, 1, 32)],
    ids=lambda value: str(value),
)
def test_growth(name: str, texts: int, length: int, synonyms: int, benchmark: Any, victim: Victim) -> None:
    """How the work grows with the number of texts, their length (texts of the corpus in one) and their candidates."""
    pings = datasets.load("pings")
    words = sorted({word for example in pings.train[:500] for word in words_of(example.text) if word.isalpha()})
    chosen = datasets.subset(pings.test, texts, "pings")
    several = [
        replace(example, text=" ".join(chosen[(place + k) % texts].text for k in range(length)))
        for place, example in enumerate(chosen)
    ]
    threat = Threat(spaces=("synonyms",), lexicon="none")
    attack = replace(registry.attack(name), threat=threat)  # type: ignore[type-var]  # a dataclass by contract
    timed(benchmark, victim, attack, labelled(victim, several), Drawn(words, synonyms))
