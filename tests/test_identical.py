"""Real models on a real set: the same outcomes, whatever the batch, the order, the processes and the kills; and
attacks that are strong enough.

The models are trained for a moment; the same laws on toys are in the tests of the engine, of the attacks, of their
checks and of the run. Takes minutes. Models that a run has trained to the end, on its data, and what every tier leaves
standing of 200 examples:

    GRIT_TRAINED=RUN pytest tests/test_identical.py -m long -rP
"""

from __future__ import annotations

import collections
import functools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grit.bench import adequacy, checkpoint, datasets, evaluate, registry, run, suites
from grit.bench.experiment import Experiment
from grit.bench.export import build
from grit.bench.twin import Twin
from grit.bench.types import Attack, Dataset, Example, Outcome
from grit.bench.victim import Victim

pytestmark = pytest.mark.long

TRAINED = os.environ.get("GRIT_TRAINED", "")  # the folder of a run whose natural rows are attacked
MODELS = ("student", "fastgrnn", "prado", "tfidf")
N, N_PROCESSES, BUDGET = 24, 60, 800
N_TIERS = 200 if TRAINED else N

SCALES = (0.1, 10.0, 100.0)
KEYS = ("pwws", "deepwordbug", "hotflip")

Home = Callable[[str], Path]


@pytest.fixture(scope="module")
def home_of(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """model -> the folder of its saved row, trained when it is first asked for."""

    @functools.cache
    def home(model: str) -> Path:
        if TRAINED:
            rows = sorted((Path(TRAINED) / "model").glob(f"{model}.natural.s*"))
            return rows[0] if rows else pytest.skip(f"{TRAINED} holds no {model} under the natural scheme")
        wanted = Experiment(
            dataset="ag_news", models=(model,), schemes=("natural",), n_train=2000, settings=(("epochs", "2"),), n=N
        )
        folder = run.train(wanted, tmp_path_factory.mktemp(model) / "out", jobs=1, quiet=True)
        (found,) = (folder / "model").iterdir()
        return found

    return home


@pytest.fixture(scope="module")
def dataset(real_data: Path) -> Dataset:
    config = Path(TRAINED) / "config.json"
    return datasets.load(json.loads(config.read_text())["experiment"]["dataset"] if TRAINED else "ag_news")


@pytest.fixture(scope="module")
def some(dataset: Dataset) -> Sequence[Example]:
    return datasets.subset(dataset.test, N, dataset.name)


def members() -> dict[str, Attack]:
    """The members of the suites, on a budget that ends within some searches."""
    found = suites.attacks(suites.load("std@2"), "default")
    return {
        name: replace(attack, threat=replace(attack.threat, max_queries=BUDGET))  # type: ignore[type-var]  # a dataclass by contract
        for name, attack in found.items()
    }


def victim_of(home: Path, rows: int) -> Victim:
    model = checkpoint.load_model(home)
    return Victim(build.load(home / run.ARTEFACT, model), Twin(model, texts=rows), rows=rows)


def quick_victim_of(home: Path) -> Victim:
    """The same bits, compiled where a compiler is here."""
    model = checkpoint.load_model(home)
    return Victim(build.quickest(build.load(home / run.ARTEFACT, model)), Twin(model))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("key", ["pwws", "deepwordbug", "hotflip", "relax"])
def test_batches_windows_and_order(home_of: Home, some: Sequence[Example], model: str, key: str) -> None:
    home = home_of(model)
    ((name, attack),) = ((name, attack) for name, attack in members().items() if name.startswith(key))

    def attacked(rows: int, texts: Sequence[Example]) -> dict[str, Outcome]:
        found = evaluate.attack_all(victim_of(home, rows), attack, texts, seed=0, name=name, window=rows)
        return {outcome.id: outcome for outcome in found}

    expected = attacked(512, some)
    assert {"broken", "survived"} & {outcome.outcome for outcome in expected.values()}
    assert not [outcome.reason for outcome in expected.values() if outcome.outcome == "error"]
    for rows in (1, 7):
        assert attacked(rows, some) == expected
    assert attacked(512, random.Random(1).sample(list(some), len(some))) == expected


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("key", KEYS)
def test_no_tier_breaks_more_than_the_strong_one(home_of: Home, dataset: Dataset, model: str, key: str) -> None:
    """On the same examples, in the suite's own space and on its budget; what a tier writes beyond those is no break."""
    some = datasets.subset(dataset.test, N_TIERS, dataset.name)
    suite = suites.attacks(suites.load("std@1"), "default")
    ((name, strong),) = ((name, attack) for name, attack in suite.items() if name.startswith(key))
    victim, robust = quick_victim_of(home_of(model)), {}
    for tier, fields in type(strong).tiers.items():
        if "vocabulary" in fields.get("threat", strong.threat).spaces:
            continue  # writes words of the model's own list, compared by vectors that are not here
        attack: Any = replace(registry.attack(f"{key}.{tier}"), threat=strong.threat)
        found = evaluate.attack_all(victim, attack, some, seed=0, name=name if tier == "strong" else f"{key}.{tier}")
        counts = collections.Counter(outcome.outcome for outcome in found)
        robust[tier] = counts["survived"] + counts["error"]  # an error wrote what the suite's space does not hold
    print(f"{model} on {dataset.name}, {key}, left standing of {len(some)}:", robust)  # noqa: T201  -rP shows it
    assert len(robust) > 1 and robust["strong"] == min(robust.values()), robust


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("key", KEYS)
def test_no_scale_of_the_logits_moves_the_strong_tier(
    home_of: Home, some: Sequence[Example], model: str, key: str
) -> None:
    """The whole course of every search: scripts, queries, and what was asked."""
    ((name, attack),) = ((name, attack) for name, attack in members().items() if name.startswith(key))
    victim = quick_victim_of(home_of(model))
    courses = [
        evaluate.attack_all(loud, attack, some, seed=0, name=name)
        for loud in (victim, *(adequacy.Scaled(victim, scale) for scale in SCALES))
    ]
    bare = [[replace(outcome, margin=0.0) for outcome in course] for course in courses]
    assert all(course == bare[0] for course in bare[1:])
    assert {"broken", "survived"} & {outcome.outcome for outcome in bare[0]}


@pytest.mark.parametrize("model", MODELS)
def test_without_bounds_a_naturally_trained_model_falls(home_of: Home, dataset: Dataset, model: str) -> None:
    victim = quick_victim_of(home_of(model))
    texts = datasets.subset(dataset.test, 200, dataset.name)
    logits, _ = evaluate.answers(victim, [example.text for example in texts])
    right = [example for example, row in zip(texts, logits, strict=True) if int(row.argmax()) == example.label][:100]
    found = adequacy.unbounded(adequacy.Trial(victim, {}, texts, {}, 0), right)
    assert found.k >= 0.99 * found.n


def test_the_canary_falls(real_data: Path, tmp_path: Path) -> None:
    """A defence that is known to be broken is no more robust under the suite than nature, and louder logits neither."""
    wanted = Experiment(
        dataset="ag_news",
        models=("student",),
        schemes=("natural", *adequacy.CANARIES),
        attacks=("std@1",),
        targets=(),
        n=200,
        n_train=4000,
        settings=(("epochs", "4"),),
    )
    finished = run.run(wanted, tmp_path / "out", jobs=2, quiet=True)
    flags = {row.record.scheme.name: {flag.name for flag in row.record.flags} for row in finished.rows}
    assert "canary" not in flags["pcl"] and not {"scale", "weak", "budget"} & (flags["pcl"] | flags["natural"])
    assert [check for row in finished.rows for check in row.record.checks if check.check == "canary"]


def command(home: Path, out: Path, *more: str) -> list[str]:
    words = ("--attack", "std@1", "--n", str(N_PROCESSES), "--target", "local", "-q", "-o", str(out))
    return [sys.executable, "-m", "grit", "attack", str(home), *words, *more]


def lasting(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "run"} for line in lines]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_processes_and_kills(home_of: Home, tmp_path: Path) -> None:
    home = home_of("student")
    for jobs in ("1", "2"):
        subprocess.run(command(home, tmp_path / jobs, "--jobs", jobs), env=ENVIRONMENT, check=True)
    assert lasting(tmp_path / "1") == lasting(tmp_path / "2")
    moments, kills, least = random.Random(3), 0, 4.0
    while True:
        process = subprocess.Popen(command(home, tmp_path / "killed", "--jobs", "2"), env=ENVIRONMENT)
        try:
            assert process.wait(timeout=moments.uniform(least, 2 * least)) == 0
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills, least = kills + 1, 1.4 * least
    assert kills >= 2
    assert lasting(tmp_path / "killed") == lasting(tmp_path / "1")
    evidence = [sorted((tmp_path / name).rglob("*.jsonl.gz")) for name in ("1", "killed")]
    assert [file.read_bytes() for file in evidence[0]] == [file.read_bytes() for file in evidence[1]]
