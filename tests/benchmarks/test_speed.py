"""How long the steps take that everything else repeats: reading, answering, asking. Numbers, no verdicts.

``tox -e benchmarks`` runs each for a third of a second; ``--benchmark-json FILE`` keeps them with the machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grit.bench import datasets, registry
from grit.bench.evaluate import attack_all
from grit.bench.export import build, words
from grit.bench.text import ternary, tokenize
from grit.bench.types import Artefact, Dataset
from grit.bench.victim import Victim

pytestmark = pytest.mark.benchmark


@pytest.fixture(scope="module")
def pings() -> Dataset:
    return datasets.load("pings")


@pytest.fixture(scope="module", params=["student", "fastgrnn", "prado", "hashed"])
def artefact(request: pytest.FixtureRequest, pings: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """The deployed bytes of an untrained model: as fast as those of a trained one."""
    cls = registry.load("models", request.param)
    texts = [example.text for example in pings.train]
    model = cls.build(cls.Config(), texts, len(pings.labels), 0).eval()
    path: Path = tmp_path_factory.mktemp("artefact") / "artefact.safetensors"
    path.write_bytes(build.deployed(model, texts[:200]))
    return build.load(path)


def test_start_of_the_command_line(benchmark: Any) -> None:
    command = [sys.executable, "-c", "from grit.bench.cli import main; main(['list'])"]
    benchmark(subprocess.run, command, capture_output=True, check=False)


def test_loading_the_embedded_corpus(benchmark: Any) -> None:
    assert len(benchmark(datasets.load, "pings").test) == 500


def test_tokens_of_500_texts(benchmark: Any, pings: Dataset) -> None:
    benchmark(lambda: [tokenize(example.text) for example in pings.test])


def test_hash_features_of_2000_words(benchmark: Any) -> None:
    benchmark(ternary, [f"word{i}" for i in range(2000)], 512)


def test_logits_of_500_texts(benchmark: Any, artefact: Artefact, pings: Dataset) -> None:
    texts = [example.text for example in pings.test]
    assert benchmark(words.answer, artefact, texts).shape == (500, len(pings.labels))


def test_logits_of_one_text(benchmark: Any, artefact: Artefact, pings: Dataset) -> None:
    benchmark(words.answer, artefact, [pings.test[0].text])


def test_an_attack_on_20_texts(benchmark: Any, artefact: Artefact, pings: Dataset) -> None:
    attack = registry.attack("deepwordbug.textattack")
    outcomes = benchmark(lambda: attack_all(Victim(artefact), attack, pings.test[:20], seed=0))
    assert len(outcomes) == 20
