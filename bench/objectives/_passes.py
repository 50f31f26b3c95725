"""Ways through a model that several loss terms share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from grit.bench.types import Model, Reading


@runtime_checkable
class Projecting(Protocol):
    """A model whose ``read`` begins with one linear map of a word's features, to fewer numbers, alike in training.

    ``read(features, lengths)`` is ``read_projected(features @ projection().T, lengths)``. So a word that stands in
    many texts is projected once a step, and what scales its features scales its projection.
    """

    def projection(self) -> torch.Tensor:
        """[narrow feat], with its graph to the weights."""
        ...

    def read_projected(self, projected: torch.Tensor, lengths: torch.Tensor) -> Reading:
        """projected [batch seq narrow]"""
        ...


@contextmanager
def quiet(model: Model) -> Iterator[None]:
    """The model as deployed: no dropout, fixed normalisation; its former mode is put back after."""
    assert isinstance(model, nn.Module)  # by the contract of Model
    if not model.training:  # changing the mode walks through all layers, and passes ask for it often
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


@contextmanager
def unmoved(model: Model) -> Iterator[None]:
    """Running statistics are put back after: those of a deployed model are of texts as they come.

    Left to move with attacked and perturbed texts too, they drift from what clean texts need until a model that has
    learned well answers one label (Xie et al., "Adversarial Examples Improve Image Recognition", CVPR 2020, section 3).
    """
    assert isinstance(model, nn.Module)  # by the contract of Model
    before = [(buffer, buffer.clone()) for buffer in model.buffers() if buffer.is_floating_point()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


def answer(model: Model, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """features [batch seq feat] -> logits [batch classes]."""
    return model.head(model.read(features, lengths).state)


def reply(model: Model, projected: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Like :func:`answer`, from projections where the model has any: [batch seq narrow] -> [batch classes]."""
    if isinstance(model, Projecting):
        return model.head(model.read_projected(projected, lengths).state)
    return answer(model, projected, lengths)


def margin(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Largest other logit minus the gold logit, [batch]: positive where the text is misread."""
    gold = nn.functional.one_hot(labels, logits.shape[-1]).bool()
    return logits.masked_fill(gold, -torch.inf).amax(-1) - logits[gold]


def evidence(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Gold logit minus the mean logit, [batch]: what attributions explain. Blind to a shift of all logits."""
    return logits.gather(-1, labels[:, None])[:, 0] - logits.mean(-1)


def slope(model: Model, features: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Gradient of the attack margin at the features of a deployed model: [batch seq feat]."""
    with quiet(model), torch.enable_grad():
        features = features.detach().requires_grad_()
        return torch.autograd.grad(margin(answer(model, features, lengths), labels).sum(), features)[0]


def divergence(target: torch.Tensor, logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(softmax(target / T) || softmax(logits / T)), mean over the batch.

    T^2 keeps the size of the gradient as T changes (Hinton, Vinyals, Dean 2015, section 2).
    """
    wanted = (target / temperature).log_softmax(-1)
    given = (logits / temperature).log_softmax(-1)
    return temperature**2 * nn.functional.kl_div(given, wanted, reduction="batchmean", log_target=True)
