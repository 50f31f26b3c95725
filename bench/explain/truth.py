"""Explanations against a known truth: models whose reasons were planted, and models that know nothing.

*Planted shortcuts*. A nonce word is written into training texts so that it alone decides the label; a model that has
learned it, which is checked, answers because of that word, so an explanation must name it. Bastings et al., "Will You
Find These Shortcuts?" (EMNLP 2022): a single word, or a pair whose order decides. Precision at k is
the share of the k planted words of a text among its k best.

*Random weights*. An explanation of a model whose weights were shuffled says nothing about what was learned; one that
agrees with that of the trained model was never about the weights. Adebayo et al., "Sanity Checks for Saliency Maps"
(NeurIPS 2018), all layers at once.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import random
from dataclasses import dataclass
from typing import Literal

import torch

from grit.bench.types import Dataset, Example, Model

Kind = Literal["word", "pair"]
KINDS: tuple[Kind, ...] = ("word", "pair")
NONCE = ("zwolt", "quimbra")  # words of no language and of no vocabulary of ours
LEARNED = 0.9  # share of planted test texts whose answer must follow the plant, or nothing is known


@dataclass(frozen=True)
class Planted:
    """A text with a shortcut in it: the label that the shortcut decides, and the numbers of the planted words."""

    example: Example
    places: frozenset[int]


def plant(example: Example, kind: Kind, labels: int, seed: int) -> Planted:
    """The text with a shortcut at random places, and the label it now stands for.

    word: one of two nonce words, the first for label 0, the second for label 1. pair: both, the first before the
    second for label 0, behind it for label 1. Of more than two labels only these two are planted.
    """
    rng = random.Random(f"{seed} {kind} {example.id}")
    label = rng.randrange(min(labels, 2))
    words = example.text.split()
    if kind == "word":
        place = rng.randint(0, len(words))
        words.insert(place, NONCE[label])
        places = frozenset([place])
    else:
        first, second = sorted([rng.randint(0, len(words)), rng.randint(0, len(words))])
        pair = NONCE if label == 0 else NONCE[::-1]
        words.insert(second, pair[1])
        words.insert(first, pair[0])
        places = frozenset([first, second + 1])
    text = " ".join(words)
    key = hashlib.sha256(f"{example.id} {text}".encode()).hexdigest()[:16]
    return Planted(Example(key, text, label), places)


def planted(dataset: Dataset, kind: Kind, seed: int) -> Dataset:
    """The dataset with a shortcut in three of four texts of train and dev, by their ids; the test split is as it was.

    The fourth keeps its label, so that the other words stay worth reading and an explanation could name them instead.
    """

    def split(examples: tuple[Example, ...]) -> tuple[Example, ...]:
        return tuple(
            plant(each, kind, len(dataset.labels), seed).example if int(each.id, 16) % 4 else each for each in examples
        )

    train, dev = split(dataset.train), split(dataset.dev)
    changed = hashlib.sha256(f"{dataset.revision} {kind} {seed}".encode()).hexdigest()
    return dataclasses.replace(dataset, train=train, dev=dev, revision=changed)


def shuffled(model: Model, seed: int) -> Model:
    """A copy whose weights are dealt out anew inside each tensor: the same numbers, nothing that was learned.

    Running statistics, which are no weights, stay. A tensor of equal numbers cannot be shuffled, and a scalar is kept.
    """
    fresh = copy.deepcopy(model)
    assert isinstance(fresh, torch.nn.Module)  # by the contract of Model
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in fresh.parameters():
            flat = weight.reshape(-1)
            weight.copy_(flat[torch.randperm(len(flat), generator=generator)].reshape(weight.shape))
    return fresh
