"""Which places of a padded batch hold tokens, and the mean over them."""

from __future__ import annotations

import torch


def mask(lengths: torch.Tensor, seq: int) -> torch.Tensor:
    """lengths [batch] -> booleans [batch seq], true where a token stands."""
    return torch.arange(seq, device=lengths.device) < lengths[:, None]


def mean(features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The mean of the first ``lengths`` features of each text: [batch seq feat] -> [batch feat]."""
    real = mask(lengths, features.shape[1])[:, :, None]
    return torch.where(real, features, 0.0).sum(1) / lengths[:, None]
