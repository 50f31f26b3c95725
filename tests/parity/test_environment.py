"""The pins of the ``textattack`` extra give a TextAttack that runs, next to a torch that is not another one."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.parity
ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_pinned_versions_are_installed(harness: Any) -> None:
    assert importlib.metadata.version("textattack") == "0.3.11"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (torch,) = [each for each in project["dependencies"] if each.startswith("torch")]
    assert importlib.metadata.version("torch").partition("+")[0] == torch.partition("==")[2]
    assert re.match(r"4\.", importlib.metadata.version("transformers"))


def test_a_recipe_attacks_a_toy(harness: Any) -> None:
    """DeepWordBug on a victim that looks for one word: the word is misspelt, in a handful of queries."""
    from textattack.attack_recipes import DeepWordBugGao2018
    from textattack.models.wrappers import ModelWrapper

    class Toy(ModelWrapper):  # type: ignore[misc]  # TextAttack has no types
        model = None

        def __call__(self, texts: list[str]) -> np.ndarray:
            return np.array([[0.9, 0.1] if "harbour" in text.split() else [0.2, 0.8] for text in texts])

    found = DeepWordBugGao2018.build(Toy()).attack("boats leave the harbour at noon", 0)
    assert type(found).__name__ == "SuccessfulAttackResult"
    assert "harbour" not in found.perturbed_result.attacked_text.text.split()
    assert found.perturbed_result.num_queries < 20
