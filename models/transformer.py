"""Any sequence classifier or encoder of the transformers library, by name or folder: a teacher for small models.

What is pre-trained comes from ``source``; where it brings no head for the classes asked for, a fresh one is drawn.
The model stands on its source as long as it lives: saved weights are loaded into the source's own layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from grit.bench.types import CouldNotMeasure, Reading, Recipe, UsageError
from grit.models import _pool


class Transformer(nn.Module):
    """Sub-words of each piece between white space - their embeddings - the source's network with its head.

    ``read`` gives the embeddings as words and the logits as state, since heads of the library have no common shape.
    """

    @dataclass(frozen=True)
    class Config:
        source: str = ""  # a folder, or a name on the Hugging Face hub
        frozen: bool = False  # what came pre-trained stays as it is; only a fresh head learns
        max_tokens: int = 128  # ours: sub-words, the source's special ones not counted

    recipe: ClassVar[Recipe] = Recipe(epochs=3, batch_size=32, learning_rate=3e-5)  # BERT (Devlin et al. 2019, A.3)
    separable: ClassVar[bool] = True

    def __init__(self, config: Config, vocabulary: tuple[str, ...], classes: int) -> None:
        """The source's layers, their weights still to be loaded; ``vocabulary`` is ``()``: the source has its own.

        Raises UsageError (no source, or one with shorter texts) and CouldNotMeasure (the source is not here).
        """
        super().__init__()
        if vocabulary:
            raise ValueError(f"the source brings its vocabulary, got {len(vocabulary)} words")
        self.config = config
        self.vocabulary = vocabulary
        self.classes = classes
        self.max_tokens = config.max_tokens
        library = _library()
        self._tokenizer = _found(library.AutoTokenizer.from_pretrained, config.source)
        about = _found(library.AutoConfig.from_pretrained, config.source, num_labels=classes)
        with torch.random.fork_rng(devices=[]):  # the library draws first weights, which are replaced
            self.network = library.AutoModelForSequenceClassification.from_config(about)
        self._before, self._after = _special(self._tokenizer)
        room = getattr(about, "max_position_embeddings", None)
        if room is not None and config.max_tokens + len(self._before) + len(self._after) > room:
            raise UsageError(f"{config.source} reads {room} sub-words with its special ones: lower max_tokens")
        self._spelled = lru_cache(maxsize=1 << 17)(self._spell)

    @classmethod
    def build(cls, config: Config, texts: Sequence[str], classes: int, seed: int) -> Self:
        """The source's weights; what it does not bring is normal from ``seed``, biases 0. ``texts`` teach nothing."""
        model = cls(config, (), classes)
        with torch.random.fork_rng(devices=[]):
            network, report = _found(
                _library().AutoModelForSequenceClassification.from_pretrained,
                config.source,
                num_labels=classes,
                ignore_mismatched_sizes=True,  # a head for other classes
                output_loading_info=True,
            )
        fresh = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
        generator = torch.Generator().manual_seed(seed)
        for name, weight in network.named_parameters():
            if name in fresh:
                nn.init.zeros_(weight)
                if weight.ndim > 1:
                    nn.init.normal_(weight, std=network.config.initializer_range, generator=generator)
        model.network.load_state_dict(network.state_dict())
        for name, weight in model.network.named_parameters():
            weight.requires_grad_(not config.frozen or name in fresh)
        return model

    def tokenize(self, raw: str) -> list[str]:
        return [token for piece in raw.split() for token in self._spelled(piece)]

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        """The source's numbers of its sub-words, int64 [tokens]; "" and what it does not know is its unknown one."""
        unknown = self._tokenizer.unk_token
        numbers = self._tokenizer.convert_tokens_to_ids([token or unknown for token in tokens])
        return np.array(numbers, np.int64)

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        return self.network.get_input_embeddings()(codes.long())

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading:
        """Words: the embeddings; state: the logits."""
        features = features[:, : self.max_tokens]  # padding may reach beyond the source's places
        batch, _, feat = features.shape
        before, after = (self._embedded(numbers).expand(batch, -1, -1) for numbers in (self._before, self._after))
        laid = torch.cat([before, features, torch.zeros_like(after)], 1)
        ends = before.shape[1] + lengths  # where a text's own last token has been read
        places = ends[:, None] + torch.arange(after.shape[1], device=features.device)
        laid = laid.scatter(1, places[:, :, None].expand(-1, -1, feat), after)
        real = _pool.mask(ends + after.shape[1], laid.shape[1])
        return Reading(features, self.network(inputs_embeds=laid, attention_mask=real.long()).logits)

    def head(self, state: torch.Tensor) -> torch.Tensor:
        return state

    def forward(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(self.features(codes), lengths).state)

    def constrain(self, progress: float) -> None:
        """Nothing to hold."""

    def program(self) -> None:
        """No layers that every exporter knows: it is exported as a traced graph."""

    def _spell(self, piece: str) -> tuple[str, ...]:
        # A tokenizer that minds the white space in front sees every piece as in the middle of a text.
        return tuple(self._tokenizer.tokenize(f" {piece}"))

    def _embedded(self, numbers: Sequence[int]) -> torch.Tensor:
        """[1 numbers feat]"""
        device = self.network.get_input_embeddings().weight.device
        return self.features(torch.tensor([numbers], dtype=torch.int64, device=device))


def _library() -> Any:
    try:
        import transformers
    except ImportError:
        raise CouldNotMeasure("a transformer needs the extra: pip install 'gritbench[teacher]'") from None
    transformers.utils.logging.set_verbosity_error()  # it reports every fresh head
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _found(load: Callable[..., Any], source: str, **options: Any) -> Any:
    if not source:
        raise UsageError("a transformer needs a source: transformer[source=a folder, or a name on the hub]")
    try:
        return load(source, **options)
    except (OSError, ValueError) as error:  # the library's own: not here, no network, not a model
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CouldNotMeasure(
            f"transformers cannot load {source}: {reason}; name a folder that holds it, or try with a network"
        ) from error


def _special(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The numbers that a source puts before and behind a text."""
    read = tokenizer(tokenizer.unk_token)["input_ids"]
    place = read.index(tokenizer.unk_token_id)
    return read[:place], read[place + 1 :]
