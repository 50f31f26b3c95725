"""The bridges with the real packages: recipes under our engine, TextAttack's and Hugging Face's models as victims."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grit.attacks import textattack as ours
from grit.bench import bridge, registry
from grit.bench.evaluate import attack_all
from grit.bench.types import CouldNotMeasure, Example

pytestmark = pytest.mark.parity


@pytest.fixture(autouse=True)
def built_anew(harness: Any) -> Iterator[None]:
    """No recipe is kept from one test to the next: what they are built around is another one."""
    ours._built.cache_clear()
    yield
    ours._built.cache_clear()


@pytest.mark.parametrize("name", ["deepwordbug", "pwws"])
def test_a_recipe_under_our_engine_ends_as_our_tier_does(name: str, harness: Any, golden: Any, note: Any) -> None:
    """TextAttack's own search, asking our engine, and ours: the same scripts, for the same queries.

    Of TextAttack alone, test_golden.py says the same.
    """
    victim = golden.victim()
    some = golden.examples(victim)[:25]
    lexicon = golden.Table() if name == "pwws" else None
    with contextlib.nullcontext() if lexicon is None else harness.lexicon_for_wordnet(lexicon):
        through = attack_all(victim, registry.attack(f"textattack:{name}"), some, seed=harness.SEED, name="parity")
    tier = registry.attack(f"{name}.textattack")
    alone = attack_all(victim, tier, some, seed=harness.SEED, name="parity", lexicon=lexicon)
    for one, other in zip(through, alone, strict=True):
        assert (one.outcome, one.queries) == (other.outcome, other.queries)
        if one.outcome == "broken":
            assert (one.script, one.margin, one.predicted) == (other.script, other.margin, other.predicted)
    broken = sum(outcome.outcome == "broken" for outcome in alone)
    assert broken > len(some) // 3
    note(f"textattack:{name} under our engine: {len(some)} texts ({broken} broken), as {name}.textattack")


@pytest.mark.parametrize("recipe", ["pruthi", "input-reduction"])
def test_other_recipes_run_without_a_network(recipe: str, harness: Any, golden: Any) -> None:
    victim = golden.victim()
    some = golden.examples(victim)[:6]
    first = attack_all(victim, registry.attack(f"textattack:{recipe}"), some, seed=1)
    assert not [outcome for outcome in first if outcome.outcome == "error"]
    assert attack_all(victim, registry.attack(f"textattack:{recipe}"), some[::-1], seed=1, window=2)[::-1] == first
    assert sum(outcome.queries for outcome in first) > len(some)


@pytest.mark.parametrize(
    ("recipe", "missing"),
    [
        ("textfooler", "counter-fitted word vectors"),
        ("iga", "counter-fitted word vectors"),
        ("pso", "HowNet"),
        ("bae", "masked language model"),
        ("clare", "masked language model"),
        ("a2t", "sentence_transformers"),
        ("textbugger", "shared/intentional_homoglyphs.txt"),
    ],
)
def test_offline_a_recipe_says_what_it_needs(
    recipe: str, missing: str, harness: Any, golden: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests
    from textattack.shared import utils

    def unreachable(folder: str, *rest: Any) -> str:
        raise requests.exceptions.ConnectionError(f"no network, so no {folder}")

    monkeypatch.setattr(utils, "download_from_s3", unreachable)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    victim = golden.victim()
    with pytest.raises(CouldNotMeasure, match=rf"textattack:{recipe} cannot run here.*{missing}"):
        attack_all(victim, registry.attack(f"textattack:{recipe}"), golden.examples(victim)[:2], seed=1)


def test_every_recipe_of_the_command_line_is_accounted_for(harness: Any) -> None:
    """It runs with the extra and nltk's data, or it is said what it needs, or why it is refused."""
    from textattack.attack_args import ATTACK_RECIPE_NAMES

    offline = {"deepwordbug", "pwws", "pruthi", "leap", "input-reduction"}
    assert set(ATTACK_RECIPE_NAMES) == offline | set(ours._NEEDS) | set(ours._REFUSED)


def test_its_lstm_is_a_victim_with_gradients(harness: Any) -> None:
    from grit.bench import datasets

    dataset = datasets.load("pings")
    wrapper = harness.word_lstm(dataset.train[:400], len(dataset.labels), seed=1)
    victim = bridge.from_textattack(wrapper, name="its lstm", classes=len(dataset.labels))
    texts = [example.text for example in dataset.test[:20]]
    assert victim.logits(texts) == pytest.approx(np.asarray(wrapper(texts)), rel=1e-4, abs=1e-4)
    outcomes = attack_all(victim, registry.attack("hotflip.strong+thesaurus"), dataset.test[:8], seed=1)
    assert sum(outcome.gradients for outcome in outcomes) > 0
    assert not [outcome for outcome in outcomes if outcome.outcome == "error"]


def test_a_model_of_hugging_face_is_the_same_through_both_bridges(harness: Any, golden: Any, tmp_path: Path) -> None:
    """A small BERT with random weights and a vocabulary of our corpus."""
    import torch
    from textattack.models.wrappers import HuggingFaceModelWrapper
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *golden.vocabulary()[1:400], *"abcdefghij"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    (tmp_path / "vocab.txt").write_text("\n".join(dict.fromkeys(words)), encoding="utf-8")
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    config.num_labels = 3
    with torch.random.fork_rng():
        torch.manual_seed(3)  # noqa: TID251  the weights are drawn from the global generator
        model = BertForSequenceClassification(config)
        for weight in model.parameters():
            weight.data.mul_(20)  # so that its answers differ
    direct = bridge.from_transformers(model, tokenizer, name="tiny-bert")
    through = bridge.from_textattack(HuggingFaceModelWrapper(model, tokenizer), name="tiny-bert", classes=3)
    texts = [example.text for example in golden.examples(golden.victim())[:30]]
    assert np.abs(direct.logits(texts)).max() > 0.1
    assert direct.logits(texts) == pytest.approx(through.logits(texts), rel=1e-3, abs=1e-4)
    some = [
        Example(f"{place:016d}", text, int(label))
        for place, (text, label) in enumerate(zip(texts, direct.logits(texts).argmax(axis=1), strict=True))
    ]
    outcomes = attack_all(direct, registry.attack("textattack:deepwordbug"), some[:8], seed=1)
    assert not [outcome for outcome in outcomes if outcome.outcome == "error"]
