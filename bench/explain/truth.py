"""Explanations against a known truth: models whose reasons were planted, and models that know nothing.

*Planted shortcuts*. A nonce word is written into training texts so that it alone decides the label; a model that has
learned it, which is checked, answers because of that word, so an explanation must name it. Bastings et al., "Will You
Find These Shortcuts?" (EMNLP 2022): a single word, or a pair whose order decides, where either word alone decides
nothing. Precision at k is the share of the k planted words of a text among its k best.

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
LEARNED = 0.5  # share of planted texts whose answer the shortcut must turn; the others may have been wrong before it


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
    return Planted(_renamed(example, " ".join(words), label), places)


def _renamed(example: Example, text: str, label: int) -> Example:
    return Example(hashlib.sha256(f"{example.id} {text}".encode()).hexdigest()[:16], text, label)


def lone(example: Example, seed: int) -> Example:
    """The text with either nonce word, which decides nothing: the label stays. So one word of a pair is not enough."""
    rng = random.Random(f"{seed} lone {example.id}")
    words = example.text.split()
    words.insert(rng.randint(0, len(words)), rng.choice(NONCE))
    return _renamed(example, " ".join(words), example.label)


def planted(dataset: Dataset, kind: Kind, seed: int) -> Dataset:
    """The dataset with a shortcut in texts of train and dev, chosen by their ids; the test split is as it was.

    Of four texts one is as it was, so that the other words stay worth reading and an explanation could name them
    instead. Beside pairs, one more holds a lone word: without it whichever stood last would decide, or the first.
    """

    def changed(example: Example) -> Example:
        match int(example.id, 16) % 4:
            case 0:
                return example
            case 1 if kind == "pair":
                return lone(example, seed)
        return plant(example, kind, len(dataset.labels), seed).example

    train, dev = (tuple(map(changed, split)) for split in (dataset.train, dataset.dev))
    revision = hashlib.sha256(f"{dataset.revision} {kind} {seed}".encode()).hexdigest()
    return dataclasses.replace(dataset, train=train, dev=dev, revision=revision)


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
