"""A linear model over hashed words that fits a microcontroller's smallest page of flash."""

from dataclasses import dataclass
from typing import ClassVar

from grit.bench.types import Recipe
from grit.models import hashed


class Tiny(hashed.Hashed):
    """512 rows, single words."""

    @dataclass(frozen=True)
    class Config(hashed.Hashed.Config):
        buckets: int = 512
        order: int = 1

    recipe: ClassVar[Recipe] = Recipe(epochs=5, batch_size=64, learning_rate=5e-2)
