"""Does the personal model still answer as the global one?

Label loyalty and probability loyalty of Xu et al., "Beyond Preserved Accuracy: Evaluating Loyalty and Robustness of
BERT Compression" (EMNLP 2021, section 3): there of a student to its teacher, here of a personal to the global model.
"""

from __future__ import annotations

import numpy as np


def label_loyalty(before: np.ndarray, after: np.ndarray) -> int:
    """On how many texts both give the same label; logits [texts classes]."""
    return int((before.argmax(1) == after.argmax(1)).sum())


def probability_loyalty(before: np.ndarray, after: np.ndarray) -> float:
    """Mean of 1 - sqrt(JS divergence in bits) between the two probabilities of a text; 1: the same, 0: disjoint."""
    p, q = _probabilities(before), _probabilities(after)
    middle = (p + q) / 2
    divergence = (_relative(p, middle) + _relative(q, middle)) / 2
    return float((1 - np.sqrt(np.clip(divergence, 0.0, 1.0))).mean())


def _probabilities(logits: np.ndarray) -> np.ndarray:
    scores = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    found: np.ndarray = scores / scores.sum(axis=1, keepdims=True)
    return found


def _relative(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q) a text, in bits; where p is 0 nothing is added."""
    ratio = np.divide(p, q, out=np.ones_like(p), where=(p > 0) & (q > 0))
    found: np.ndarray = (p * np.log2(ratio)).sum(axis=1)
    return found
