"""Intervals, paired tests, tie groups and fronts: what a number on the board may be said to mean.

Everything is over counts or over per-example vectors of the *same* examples, needs numpy only, and draws
random numbers from a given seed only. Probabilities are exact to double precision where the name of a
function says exact; ratios lie in [0, 1]; ``level`` is the coverage of a two-sided interval, ``alpha`` the
error rate of a test or of a family of tests.

Sources: Wilson (JASA 1927); Clopper and Pearson (Biometrika 1934); McNemar (Psychometrika 1947), exact form
as in Fagerland, Lydersen and Laake (BMC Med. Res. Methodol. 2013); Holm (Scand. J. Stat. 1979); Efron and
Tibshirani (1993), chapter 13; Mann and Whitney (Ann. Math. Stat. 1947); Guo et al. (ICML 2017), section 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    low: float
    high: float


# --- proportions ----------------------------------------------------------------------------------


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval of the proportion behind ``k`` hits of ``n``: it brackets k / n and stays in [0, 1]."""
    _check_count(k, n)
    if n == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, pull = k / n, z * z / n
    centre = (share + pull / 2) / (1 + pull)
    half = z / (1 + pull) * math.sqrt(share * (1 - share) / n + pull / (4 * n))
    # At the ends the formula gives exactly 0 and 1 and rounding does not; elsewhere min and max change nothing.
    return Interval(
        0.0 if k == 0 else max(0.0, min(centre - half, share)), 1.0 if k == n else min(1.0, max(centre + half, share))
    )


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Interval:
    """Exact (never too short) interval of a proportion, from the tails of the binomial distribution."""
    tail = (1 - level) / 2
    return Interval(1 - upper_bound(n - k, n, 1 - tail), upper_bound(k, n, 1 - tail))


def upper_bound(k: int, n: int, level: float = 0.95) -> float:
    """Exact one-sided bound: with this confidence the proportion behind ``k`` hits of ``n`` is not larger.

    Zero hits of 100 bound it by 0.0295 at 95 %: what a spot check of that size proves about hidden breaks.
    """
    _check_count(k, n)
    if k == n:
        return 1.0
    if k == 0:
        return -math.expm1(math.log1p(-level) / n)
    low, high = k / n, 1.0
    while high - low > 1e-15 * high and low < (middle := (low + high) / 2) < high:
        at_most_k = _beta_cdf(1 - middle, n - k, k + 1)
        low, high = (middle, high) if at_most_k > 1 - level else (low, middle)
    return (low + high) / 2


def spot_detection(share: float, m: int) -> float:
    """Chance that ``m`` examples drawn at random hit at least one of a ``share`` of false survivors: 1 - (1 - f)^m."""
    return 1.0 if share >= 1 else -math.expm1(m * math.log1p(-share))


def calibration_error(probabilities: np.ndarray, labels: Sequence[int] | np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over equal-width bins of confidence.

    probabilities [examples classes], labels [examples].
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == np.asarray(labels)
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(which, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


# --- two systems on the same examples ---------------------------------------------------------------


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p-value that ``b`` and ``c`` discordant pairs come from a fair coin; 1.0 for none."""
    _check_count(min(b, c), b + c)
    return float(_mcnemar(np.array([b]), np.array([c]))[0])


def mcnemar_power(n: int, discordant: float, difference: float, alpha: float = 0.05) -> float:
    """Chance that the exact McNemar test at ``alpha`` tells two systems apart on ``n`` examples.

    discordant: share of examples on which they differ; difference: of their accuracies, at most that.
    """
    if not 0 <= abs(difference) <= discordant <= 1:
        raise ValueError(f"need 0 <= |difference| <= discordant <= 1, got {difference} and {discordant}")
    if discordant == 0:
        return 0.0
    favour = (discordant + difference) / (2 * discordant)
    power = 0.0
    for m, weight in enumerate(_binomial_pmf(n, discordant)):
        if weight < 1e-15:
            continue
        tail = np.cumsum(_binomial_pmf(m, 0.5))
        smaller = np.minimum(np.arange(m + 1), np.arange(m, -1, -1))  # of b and c = m - b, for every b
        power += weight * float(_binomial_pmf(m, favour)[2 * tail[smaller] <= alpha].sum())
    return power


def loss_bound(b: int, c: int, n: int, level: float = 0.95) -> Interval:
    """Bounds of a paired loss (accuracy before minus accuracy after), each one-sided at ``level``.

    b: examples right before only; c: right after only; of n. Tango's score interval (Stat. Med. 1998, section 3),
    which keeps its level at small counts and rare differences, where the plain one of Wald is too short.
    """
    _check_count(b + c, n)
    if n == 0:
        return Interval(-1.0, 1.0)
    z = NormalDist().inv_cdf(level)

    def score(loss: float) -> float:
        # The likeliest share of c if the loss is this one solves a q^2 + m q + k = 0 (Tango 1998, appendix).
        m = (2 * n - b + c) * loss - b - c
        k = -c * loss * (1 - loss)
        q = (math.sqrt(max(m * m - 8 * n * k, 0.0)) - m) / (4 * n)
        variance = n * (2 * q + loss * (1 - loss))
        gap = b - c - n * loss
        return gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap) if gap else 0.0

    def where(wanted: float) -> float:
        low, high = -1.0, 1.0  # the score falls as the loss rises
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if score(middle) > wanted else (low, middle)
        return (low + high) / 2

    return Interval(where(z), where(-z))


def settling_n(b: int, c: int, n: int, margin: float, level: float = 0.95) -> int | None:
    """How many examples would tell whether the paired loss is above ``margin``, if it is what was seen; None: no n.

    The normal approximation of :func:`loss_bound` with the shares of ``b`` and ``c`` of ``n``.
    """
    loss, discordant = (b - c) / n, (b + c) / n
    if math.isclose(loss, margin):
        return None
    z = NormalDist().inv_cdf(level)
    return max(n + 1, math.ceil((discordant - loss * loss) * (z / (loss - margin)) ** 2))


def paired_bootstrap(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of mean(a) - mean(b) over the same examples; a, b [examples].

    Examples with the same difference are alike to the mean, so how often each *value* is drawn is resampled
    (a multinomial draw): the same distribution as drawing examples, at the cost of the distinct values.
    """
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if difference.ndim != 1 or difference.size == 0:
        raise ValueError(f"need two equally long vectors of at least one example, got shape {difference.shape}")
    values, counts = np.unique(difference, return_counts=True)
    rng = np.random.default_rng(seed)
    block = max(1, 4_000_000 // len(values))  # rows drawn at once: keeps the table below 32 MB
    means = np.concatenate(
        [
            rng.multinomial(difference.size, counts / difference.size, size=min(block, resamples - start)) @ values
            for start in range(0, resamples, block)
        ]
    )
    tail = (1 - level) / 2
    low, high = np.quantile(means / difference.size, [tail, 1 - tail])
    return Interval(float(low), float(high))


# --- many systems on the same examples --------------------------------------------------------------


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjusted p-values [tests] of Holm's step-down method: rejecting those <= alpha keeps the family-wise error."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)) if p.size else p
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def beats(correct: np.ndarray, alpha: float = 0.05) -> np.ndarray:
    """[rows rows]: row i is right significantly more often than row j (exact McNemar, Holm over all pairs).

    correct [rows examples]: whether a row is right on an example, the same examples in every row.
    """
    only = _only(correct)
    first, second = np.triu_indices(len(only), k=1)
    rejected = holm(_mcnemar(only[first, second], only[second, first])) <= alpha
    better = np.zeros(only.shape, dtype=bool)
    better[first, second] = rejected
    better[second, first] = rejected
    return better & (only > only.T)


def _only(correct: np.ndarray) -> np.ndarray:
    """[i j]: on how many examples i is right and j is not. Floats hold such counts exactly, and multiply fast."""
    hits = np.asarray(correct, dtype=bool).astype(np.float64)
    return np.rint(hits @ (1 - hits).T).astype(np.int64)


class Rank(NamedTuple):
    """``group``: tie group, 1 is the best. ``best``, ``worst``: the places that the tests leave open."""

    group: int
    best: int
    worst: int


def tie_groups(correct: np.ndarray, alpha: float = 0.05) -> tuple[Rank, ...]:
    """Significance-aware ranks, one a row, from vectors [rows examples] of the same examples.

    Rows are walked from the best count down; a row joins the group unless the best row of that group beats it
    significantly (:func:`beats`), which opens the next one. So every row of a group is indistinguishable from
    its best row, and a group opens only on evidence. Being inseparable is not transitive: neighbours across a
    border may be inseparable, and ``best``..``worst`` says which places each row may hold (1 + rows that beat
    it ... rows - those it beats).
    """
    hits = np.asarray(correct, dtype=bool)
    better = beats(hits, alpha)
    order = np.argsort(-hits.sum(axis=1), kind="stable")
    groups = np.zeros(len(hits), dtype=int)
    group, leader = 0, -1
    for row in order:
        if leader < 0 or better[leader, row]:
            group, leader = group + 1, row
        groups[row] = group
    return tuple(
        Rank(int(groups[row]), 1 + int(better[:, row].sum()), len(hits) - int(better[row].sum()))
        for row in range(len(hits))
    )


def pareto(correct: np.ndarray, costs: np.ndarray, alpha: float = 0.05) -> tuple[bool, ...]:
    """Which rows stand on the front of being right often at little cost; dominated only if significantly so.

    correct [rows examples]; costs [rows axes], lower is better, or [rows axes 2] with [low, high] of an
    uncertain cost, where one is below another only if the intervals do not overlap. Row j is dominated by i
    if i costs no more on any axis and beats j significantly (:func:`beats`), or if i is right on exactly the
    same examples and costs less. A cost that is not a number is not comparable: such a row is on no front
    and dominates nothing.
    """
    cost = np.asarray(costs, dtype=np.float64)
    low, high = (cost, cost) if cost.ndim == 2 else (cost[..., 0], cost[..., 1])
    known = np.isfinite(low + high).all(axis=1).reshape(-1)
    cheaper = high[:, None] < low[None, :]  # [i j axes]
    equal = (low[:, None] == low[None, :]) & (high[:, None] == high[None, :])
    no_dearer = (cheaper | equal).all(axis=2)
    only = _only(correct)
    alike = only + only.T == 0
    dominates = no_dearer & (beats(correct, alpha) | (alike & cheaper.any(axis=2))) & known[:, None]
    return tuple((known & ~dominates.any(axis=0)).tolist())


# --- several seeds, two samples of times --------------------------------------------------------------


class Seeds(NamedTuple):
    """Several seeds of one experiment: every value kept; no spread and no interval for a single one."""

    values: tuple[float, ...]
    mean: float
    sd: float | None
    interval: Interval | None  # of the mean, by Student's t


def over_seeds(values: Sequence[float], level: float = 0.95) -> Seeds:
    """Mean over seeds with its sample standard deviation and Student interval."""
    if not values:
        raise ValueError("no seeds: give at least one value")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Seeds(tuple(values), mean, None, None)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = student_quantile((1 + level) / 2, len(values) - 1) * sd / math.sqrt(len(values))
    return Seeds(tuple(values), mean, sd, Interval(mean - half, mean + half))


class MannWhitney(NamedTuple):
    u: float  # pairs in which the first sample is larger, ties counting half
    p: float  # two-sided
    effect: float  # u / all pairs: 0.5 is no shift


def mann_whitney(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> MannWhitney:
    """Rank test that two samples, such as the times of two builds, come from one distribution.

    Exact for samples without ties and at most 400 pairs; else by the normal approximation, with the
    corrections for ties and continuity.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    pairs = first.size * second.size
    if pairs == 0:
        raise ValueError(f"need two samples, got {first.size} and {second.size} values")
    ordered = np.sort(second)
    below, up_to = np.searchsorted(ordered, first, "left"), np.searchsorted(ordered, first, "right")
    u = float((below + up_to).sum()) / 2
    _, ties = np.unique(np.concatenate([first, second]), return_counts=True)
    if ties.max() == 1 and pairs <= 400:
        ways = _ways_of_u(first.size, second.size)
        tail = sum(ways[: int(min(u, pairs - u)) + 1])
        return MannWhitney(u, min(1.0, 2 * tail / sum(ways)), u / pairs)
    n = first.size + second.size
    variance = pairs / 12 * (n + 1 - float((ties**3 - ties).sum()) / (n * (n - 1)))
    gap = max(abs(u - pairs / 2) - 0.5, 0.0)
    p = math.erfc(gap / math.sqrt(2 * variance)) if variance > 0 else 1.0
    return MannWhitney(u, min(1.0, p), u / pairs)


def change_points(series: Sequence[float], alpha: float = 0.01) -> tuple[int, ...]:
    """Where a history changes its level: the first index of each new stretch.

    The cut whose two sides differ most clearly (Mann-Whitney, Bonferroni over all cuts) is taken if it is
    significant, then each side is searched alike (binary segmentation; Vostrikova 1981).
    """
    n = len(series)
    if n < 2:
        return ()
    p, cut = min((mann_whitney(series[:at], series[at:]).p, at) for at in range(1, n))
    if p * (n - 1) > alpha:
        return ()
    left, right = change_points(series[:cut], alpha), change_points(series[cut:], alpha)
    return (*left, cut, *(cut + at for at in right))


# --- distributions ------------------------------------------------------------------------------------


def student_quantile(share: float, freedom: float) -> float:
    """The t with P(T <= t) = share for Student's distribution, share in (0, 1)."""
    if share < 0.5:
        return -student_quantile(1 - share, freedom)

    def tail(t: float) -> float:
        return _beta_cdf(freedom / (freedom + t * t), freedom / 2, 0.5) / 2

    low, high = 0.0, 1.0
    while tail(high) > 1 - share:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if tail(middle) > 1 - share else (low, middle)
    return high


def _mcnemar(b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Two-sided p-values, elementwise: the tails of each distinct number of discordant pairs are summed once."""
    p_values = np.empty(len(b))
    pairs = b + c
    for m in np.unique(pairs):
        here = pairs == m
        tail = np.cumsum(_binomial_pmf(int(m), 0.5))
        p_values[here] = np.minimum(1.0, 2 * tail[np.minimum(b, c)[here]])
    return p_values


def _binomial_pmf(n: int, share: float) -> np.ndarray:
    """[n + 1]: P(exactly k of n hits)."""
    if share in (0.0, 1.0):
        return np.eye(n + 1)[n if share else 0]
    k = np.arange(n + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(k[1:]))])
    log_ways = log_factorial[n] - log_factorial - log_factorial[::-1]
    return np.exp(log_ways + k * math.log(share) + (n - k) * math.log1p(-share))


def _beta_cdf(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b), by Lentz's continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # there the fraction of the mirrored tail converges fast
        return 1 - _beta_cdf(1 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x) - math.log(a)
    tiny = 1e-300  # stands for a zero that would be divided by
    d = 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    c, fraction = 1.0, d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            fraction *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return min(1.0, math.exp(front) * fraction)


def _ways_of_u(first: int, second: int) -> list[int]:
    """[pairs + 1]: how many orders of two samples give each U, as exact integers.

    The Gaussian binomial coefficient: multiply by (1 - q^(second + i)) and divide by (1 - q^i) for i = 1..first.
    """
    ways = [1] + [0] * (first * second)
    for i in range(1, first + 1):
        for u in range(len(ways) - 1, second + i - 1, -1):
            ways[u] -= ways[u - second - i]
        for u in range(i, len(ways)):
            ways[u] += ways[u - i]
    return ways


def _check_count(k: int, n: int) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"a count must satisfy 0 <= k <= n, got k={k}, n={n}")
