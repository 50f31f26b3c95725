"""Adversarial distillation: what the teacher says of an attacked text once its most suspicious words are masked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from grit.bench.objectives._fields import COUNT, PART, POSITIVE, SHARE, WHOLE, check, check_rise
from grit.bench.objectives._passes import divergence, margin
from grit.bench.objectives._step import Scene, Step
from grit.bench.objectives._words import UNKNOWN


@dataclass(frozen=True)
class Gradmask:
    """hard CE(student(adversarial text)) + (1 - hard) T^2 KL(mean_k teacher(its top k words masked) || student).

    "Tiny RNN Model with Certified Robustness for Text Classification" (IJCNN 2022), the GradMASK term. The
    adversarial texts are written against the student of this very step: one gradient pass, then the most
    gainful synonyms and typos over a random number of words up to ``share`` of the text, the room that the
    ranked attacks have. The words with the steepest gradient are then replaced by the unknown word, the first,
    the first two, ... the first ``top``; the teacher's logits on these texts are averaged.

    samples: how many of the ``top`` masked texts the teacher reads a step, drawn anew each time; the
        expectation is the mean over all, and the teacher is the costly part.
    hard: share of the label in what is asked of the student. Masks take the words away that made the text
        what it is, so a teacher alone teaches its own mistakes on short texts. 1 asks no teacher, for schemes
        that have none: labels alone answer attacked texts, nothing is masked, and ``top``, ``samples`` and
        ``temperature`` say nothing. The student's own averaged logits would be the other choice for those; they
        were not taken because a target that moves with the student rewards agreeing with its own mistakes.
    calm, full: shares of the training: no attack before the first, all of ``share`` after the second.
    """

    top: int = 5
    samples: int = 2
    temperature: float = 3.0
    hard: float = 0.5
    share: float = 0.25
    calm: float = 0.2
    full: float = 0.5
    lexicon: str = "default"

    adversarial: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check(self, top=WHOLE, samples=COUNT, temperature=POSITIVE, hard=SHARE, share=PART)
        check_rise(self)

    @property
    def needs_teacher(self) -> bool:
        return self.hard < 1

    def helper(self, scene: Scene) -> None:
        return None

    def __call__(self, step: Step) -> torch.Tensor:
        strength = step.strength(self.calm, self.full)
        if not strength:
            return torch.zeros(())
        rows = attacked(step, self.lexicon, strength * self.share)
        words = step.projected(rows)
        if self.hard < 1 and not words.requires_grad:  # no weights before them, as where a table is frozen
            words.requires_grad_()
        logits = step.reread(words)
        loss = self.hard * cross_entropy(logits, step.labels)
        if self.hard < 1:
            target = self._target(step, rows, words, logits)
            loss = loss + (1 - self.hard) * divergence(target, logits, self.temperature)
        return loss

    def _target(self, step: Step, rows: np.ndarray, words: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        if not self.top or not step.student.separable:  # its rows are no words that a teacher could read one by one
            return step.lessons.logits(step.index)
        (gradient,) = torch.autograd.grad(margin(logits, step.labels).sum(), words, retain_graph=True)
        with torch.no_grad():
            gradient = step.at_features(gradient)
        depths = step.random.sample(range(1, self.top + 1), min(self.samples, self.top))
        masked = [mask(rows, step.lengths, gradient, depth) for depth in depths]
        answers = step.lessons.logits_of(np.concatenate(masked), step.lengths.repeat(len(masked)))
        return answers.reshape(len(masked), len(rows), -1).mean(0)


def attacked(step: Step, lexicon: str, share: float) -> np.ndarray:
    """The batch with 1 to ``share`` of the words of each text replaced, by first-order gain: [batch seq]."""
    flips = step.scene.flips(lexicon)
    budgets = flips.budgets(step.rows, step.lengths, share)
    drawn = np.array([step.random.randint(1, most) for most in budgets.tolist()])
    return flips.write(step.rows, step.lengths, step.slope, drawn)


def mask(rows: np.ndarray, lengths: torch.Tensor, gradient: torch.Tensor, depth: int) -> np.ndarray:
    """The rows with the unknown word in the ``depth`` places of the steepest gradient: [batch seq]."""
    inside = np.arange(rows.shape[1]) < lengths.numpy()[:, None]
    steep = np.where(inside, gradient.norm(dim=-1).numpy(), -1.0)
    places = np.argsort(-steep, axis=1, kind="stable")[:, :depth]
    masked = rows.copy()
    np.put_along_axis(masked, places, UNKNOWN, 1)
    masked[~inside] = UNKNOWN
    return masked
