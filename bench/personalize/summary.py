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
STILL = (MAJORITY, "none")  # what is never trained
FLOORS = (*STILL, "bias")  # what needs no learning from texts
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
    interval: Interval | None  # None for a single user, and where every user's ``k`` is nought
    users: int  # with something to count
    moved: int  # of them those whose ``k`` is not nought


def change(k: Sequence[int], n: Sequence[int]) -> Ratio | None:
    """Counts a user as one ratio; None where there is nothing to count.

    Texts of one user are answered by one copy and fall together, so the interval resamples users, not texts: the
    percentile bootstrap of a ratio of sums. Noughts alone resample to nought, which says nothing of other users: then
    there is no interval.
    """
    counts, texts = np.asarray(k, np.int64), np.asarray(n, np.int64)
    if not texts.sum():
        return None
    interval = None
    if len(texts) > 1 and counts.any():
        drawn = np.random.default_rng(0).multinomial(len(texts), [1 / len(texts)] * len(texts), RESAMPLES)
        drawn = drawn[drawn @ texts > 0]
        low, high = np.quantile((drawn @ counts) / (drawn @ texts), [0.025, 0.975])
        interval = Interval(float(low), float(high))
    return Ratio(
        k=int(counts.sum()),
        n=int(texts.sum()),
        value=float(counts.sum() / texts.sum()),
        interval=interval,
        users=int(np.count_nonzero(texts)),
        moved=int(np.count_nonzero(counts)),
    )


def share(k: Sequence[int], n: Sequence[int], times: int = 1) -> Ratio | None:
    """As :func:`change`, of texts each of which counts or does not, and was asked ``times`` times.

    The interval is never narrower than Wilson's over texts: none of six broken is no proof that none will be. A text
    that was asked again is no new one, so Wilson's is of ``n / times`` texts, at the counts below and above the share.
    """
    found = change(k, n)
    if found is None:
        return None
    texts = max(1, found.n // times)
    below, above = found.k * texts // found.n, -(-found.k * texts // found.n)
    low, high = wilson(below, texts).low, wilson(above, texts).high
    users = found.interval or Interval(low, high)
    return found._replace(interval=Interval(min(users.low, low), max(users.high, high)))


def captured(right: Sequence[int], bias: Sequence[int], before: Sequence[int], n: Sequence[int]) -> float | None:
    """The share of an arm's gain over the global model that one number a label has too.

    None where no gain is shown, since a share of what may be nought may be anything: for a single user, and where the
    interval of the gain holds nought. 1.0: the arm has learned nothing from the texts that it could not have learned
    from the labels alone.
    """
    texts = np.asarray(n, dtype=np.float64)
    after, simple, bare = (np.asarray(counts) / texts for counts in (right, bias, before))
    if len(texts) < 2 or _bootstrap(after, bare).low <= 1e-12:
        return None
    return float((simple - bare).mean() / (after - bare).mean())
