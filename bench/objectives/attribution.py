"""Explainable feature mapping by explanation: the student gives the teacher's reasons, word by word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import cosine_similarity

from grit.bench.objectives._fields import POSITIVE, check
from grit.bench.objectives._passes import evidence, quiet, reply
from grit.bench.objectives._step import Scene, Step


@dataclass(frozen=True)
class Attribution:
    """1 - cosine between the student's and the teacher's attributions over the words of a text.

    An attribution is gradient times input, summed over what stands between white space, of the evidence for
    the label (gold logit minus the mean logit): "input x gradient" of Shrikumar et al. (2016), "Not Just a
    Black Box". The teacher's are computed once. A cosine asks for the same reasons, not for the same size.

    The loss depends on the weights through a gradient, and a second derivative through a recurrent cell
    costs eight first ones. It is the derivative, along a direction fixed a word, of first derivatives, so a
    central difference of two plain passes gives it: ``reach`` is the largest relative step.

    Models that look across white space have no words to compare: there it is zero.
    """

    reach: float = 0.01

    needs_teacher: ClassVar[bool] = True
    adversarial: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(self, reach=POSITIVE)

    def helper(self, scene: Scene) -> None:
        return None

    def __call__(self, step: Step) -> torch.Tensor:
        if not (step.student.separable and step.lessons.separable):
            return torch.zeros(())
        with quiet(step.student):
            words = step.projected(step.rows)
            tokens = step.attributions.clone().requires_grad_()
            mine, here = step.pool(tokens[..., None], mean=False)
            theirs = step.lessons.attributions(step.index)
            n = min(mine.shape[1], theirs.shape[1])
            similar = cosine_similarity(mine[:, :n, 0] * here[:, :n], theirs[:, :n] * here[:, :n], dim=-1)
            loss = (1 - similar).mean()
            (weight,) = torch.autograd.grad(loss, tokens)  # of each word's attribution in the loss: [batch seq]
            # The loss moves with the weights as sum_i weight_i a_i does, where a_i = f_i . dz/df_i is the change of
            # z when f_i is scaled up; so that sum is the slope of z when every f_i is scaled by 1 + weight_i.
            scale = weight.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
            change = (self.reach * weight / scale)[..., None]
            both = torch.cat([words * (1 + change), words * (1 - change)])
            scores = evidence(reply(step.student, both, step.lengths.repeat(2)), step.labels.repeat(2))
            up, down = scores.chunk(2)
            surrogate = ((up - down) * scale[:, 0] / (2 * self.reach)).sum()
            return loss.detach() + surrogate - surrogate.detach()
