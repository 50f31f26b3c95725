"""Over users: what a table may say of them.

A mean over users, each counting once however many texts stand behind it; its interval resamples users, since they are
what another study would draw anew. Low percentiles need people: below :data:`PERCENTILE_USERS` users every one is
shown instead. A user is hurt who is served worse than by the global model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from grit.bench.statistics import Interval, paired_bootstrap, wilson

MAJORITY = "majority"
FLOORS = (MAJORITY, "none", "bias")  # what needs no learning from texts
PERCENTILE_USERS = 30
RESAMPLES = 2000  # of users: the ends of an interval are then known to about a thirtieth of its width


class Summary(NamedTuple):
    """Accuracies are ratios; a gain is over the best floor."""

    users: int
    examples: int  # held out, over all users
    mean: float
    interval: Interval | None  # of the mean; None for a single user
    p10: float | None  # None: too few users
    p25: float | None
    hurt: int  # users
    hurt_interval: Interval
    floor: str  # the best of the floors by its mean over these users
    gain: float  # over that floor
    gain_interval: Interval | None
    strict: float  # mean gain over the floor that is best for each user: what nobody could know beforehand


def summarise(
    right: Sequence[int], before: Sequence[int], n: Sequence[int], floors: dict[str, Sequence[int]]
) -> Summary:
    """Counts a user: right after, right with the global model, held-out texts, and right under each floor."""
    texts = np.asarray(n, dtype=np.float64)
    after = np.asarray(right) / texts
    shares = {name: np.asarray(counts) / texts for name, counts in floors.items()}
    best = max(shares, key=lambda name: float(shares[name].mean()))
    several = len(after) > 1
    hurt = int((np.asarray(right) < np.asarray(before)).sum())
    enough = len(after) >= PERCENTILE_USERS
    return Summary(
        users=len(after),
        examples=int(texts.sum()),
        mean=float(after.mean()),
        interval=_bootstrap(after, np.zeros_like(after)) if several else None,
        p10=float(np.quantile(after, 0.1)) if enough else None,
        p25=float(np.quantile(after, 0.25)) if enough else None,
        hurt=hurt,
        hurt_interval=wilson(hurt, len(after)),
        floor=best,
        gain=float((after - shares[best]).mean()),
        gain_interval=_bootstrap(after, shares[best]) if several else None,
        strict=float((after - np.max(list(shares.values()), axis=0)).mean()),
    )


def _bootstrap(one: np.ndarray, other: np.ndarray) -> Interval:
    return paired_bootstrap(one, other, resamples=RESAMPLES)


class Ratio(NamedTuple):
    """``k`` of ``n``, summed over users; ``k`` of a change may be negative."""

    k: int
    n: int
    value: float
    interval: Interval | None  # None for a single user


def change(k: Sequence[int], n: Sequence[int]) -> Ratio | None:
    """Counts a user as one ratio; None where there is nothing to count.

    Texts of one user are answered by one copy and fall together, so the interval resamples users, not texts: the
    percentile bootstrap of a ratio of sums.
    """
    counts, texts = np.asarray(k, np.int64), np.asarray(n, np.int64)
    if not texts.sum():
        return None
    interval = None
    if len(texts) > 1:
        drawn = np.random.default_rng(0).multinomial(len(texts), [1 / len(texts)] * len(texts), RESAMPLES)
        drawn = drawn[drawn @ texts > 0]
        low, high = np.quantile((drawn @ counts) / (drawn @ texts), [0.025, 0.975])
        interval = Interval(float(low), float(high))
    return Ratio(int(counts.sum()), int(texts.sum()), float(counts.sum() / texts.sum()), interval)


def share(k: Sequence[int], n: Sequence[int]) -> Ratio | None:
    """As :func:`change`, of texts each of which counts or does not.

    The interval is never narrower than Wilson's over texts: none of six broken is no proof that none will be.
    """
    found = change(k, n)
    if found is None:
        return None
    texts = wilson(found.k, found.n)
    users = found.interval or texts
    return found._replace(interval=Interval(min(users.low, texts.low), max(users.high, texts.high)))


def captured(right: Sequence[int], bias: Sequence[int], before: Sequence[int], n: Sequence[int]) -> float | None:
    """The share of an arm's gain over the global model that one number a label has too; None where there is no gain.

    1.0: the arm has learned nothing from the texts that it could not have learned from the labels alone.
    """
    texts = np.asarray(n, dtype=np.float64)
    gain = float(((np.asarray(right) - np.asarray(before)) / texts).mean())
    return float(((np.asarray(bias) - np.asarray(before)) / texts).mean()) / gain if gain > 1e-12 else None
