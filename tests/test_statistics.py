"""Intervals, tests and ranks against scipy, against their definitions, and by simulation."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import statistics as s

counts = st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99])
vectors = st.integers(1, 30).flatmap(
    lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=6)
)


def planted(rng: np.random.Generator, shares: list[float], n: int) -> np.ndarray:
    """[rows n]: rows that are right on shares of the same examples, hard ones hard for all."""
    hardness = rng.random(n)
    noise = rng.random((len(shares), n))
    return 0.7 * hardness + 0.3 * noise < np.array(shares)[:, None]


# --- intervals of a proportion ------------------------------------------------------------------------


@given(counts, levels)
def test_intervals_bracket_the_estimate_and_stay_in_the_unit_interval(count: tuple[int, int], level: float) -> None:
    k, n = count
    for found in (s.wilson(k, n, level), s.clopper_pearson(k, n, level)) if n else (s.wilson(k, n, level),):
        assert 0 <= found.low <= found.high <= 1
        if n:
            assert found.low <= k / n <= found.high


@given(counts.filter(lambda count: count[1] > 0), levels)
def test_intervals_equal_scipy(count: tuple[int, int], level: float) -> None:
    k, n = count
    for ours, method in ((s.wilson, "wilson"), (s.clopper_pearson, "exact")):
        theirs = scipy.stats.binomtest(k, n).proportion_ci(level, method)
        assert ours(k, n, level) == pytest.approx((theirs.low, theirs.high), abs=1e-10)


@given(counts.filter(lambda count: count[1] > 0), levels)
def test_intervals_mirror(count: tuple[int, int], level: float) -> None:
    k, n = count
    for interval in (s.wilson, s.clopper_pearson):
        here, there = interval(k, n, level), interval(n - k, n, level)
        assert (here.low, here.high) == pytest.approx((1 - there.high, 1 - there.low), abs=1e-12)


@given(counts.filter(lambda count: count[1] > 0))
def test_a_higher_level_is_a_wider_interval(count: tuple[int, int]) -> None:
    narrow, wide = s.wilson(*count, 0.9), s.wilson(*count, 0.99)
    assert wide.low <= narrow.low and narrow.high <= wide.high


def test_the_interval_of_the_house_rule_is_three_points() -> None:
    found = s.wilson(600, 1000)
    assert found.high - found.low == pytest.approx(0.06, abs=0.002)


def test_nothing_seen_says_nothing() -> None:
    assert s.wilson(0, 0) == (0.0, 1.0)
    assert s.upper_bound(0, 0) == 1.0


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5)])
def test_impossible_counts_are_refused(k: int, n: int) -> None:
    for interval in (s.wilson, s.clopper_pearson, s.upper_bound):
        with pytest.raises(ValueError, match="0 <= k <= n"):
            interval(k, n)


@pytest.mark.parametrize("n", [20, 100, 300])
def test_exact_coverage_of_both_intervals(n: int) -> None:
    """Over all counts, weighted: Wilson is right on average, Clopper-Pearson at every proportion."""
    wilson = [s.wilson(k, n) for k in range(n + 1)]
    exact = [s.clopper_pearson(k, n) for k in range(n + 1)]
    covered: dict[str, list[float]] = {"wilson": [], "exact": []}
    for share in np.linspace(0.02, 0.98, 97):
        weights = scipy.stats.binom.pmf(np.arange(n + 1), n, share)
        for name, intervals in (("wilson", wilson), ("exact", exact)):
            covered[name].append(
                sum(w for w, (low, high) in zip(weights, intervals, strict=True) if low <= share <= high)
            )
    assert np.mean(covered["wilson"]) == pytest.approx(0.95, abs=0.006)
    assert min(covered["exact"]) >= 0.95 - 1e-12


def test_zero_hits_bound_as_published() -> None:
    assert s.upper_bound(0, 100) == pytest.approx(0.0295, abs=5e-5)
    assert s.upper_bound(0, 100) == pytest.approx(scipy.stats.beta.ppf(0.95, 1, 100), rel=1e-12)


@given(counts.filter(lambda count: 0 < count[0] < count[1]), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_one_sided_bound_is_where_the_tail_is(count: tuple[int, int], level: float) -> None:
    k, n = count
    assert scipy.stats.binom.cdf(k, n, s.upper_bound(k, n, level)) == pytest.approx(1 - level, rel=1e-8)


@given(st.floats(0, 1), st.integers(0, 500))
def test_spot_detection_is_its_formula(share: float, m: int) -> None:
    expected = 1 - (1 - share) ** m
    assert s.spot_detection(share, m) == pytest.approx(expected, abs=1e-12)


def test_spot_detection_by_drawing() -> None:
    rng = np.random.default_rng(3)
    caught = (rng.random((20_000, 100)) < 0.02).any(axis=1).mean()
    assert caught == pytest.approx(s.spot_detection(0.02, 100), abs=4 * math.sqrt(0.25 / 20_000))


# --- calibration ----------------------------------------------------------------------------------------


def test_calibration_error_of_hand_made_cases() -> None:
    sure = np.array([[1.0, 0.0]] * 4)
    assert s.calibration_error(sure, [0, 0, 0, 0]) == 0.0
    assert s.calibration_error(sure, [1, 1, 1, 1]) == 1.0
    assert s.calibration_error(sure, [0, 0, 0, 1]) == pytest.approx(0.25)
    two_bins = np.array([[0.9, 0.1], [0.6, 0.4]])
    assert s.calibration_error(two_bins, [0, 1], bins=10) == pytest.approx((0.1 + 0.6) / 2)


@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 2**32))
def test_calibration_error_follows_its_definition(n: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.ones(classes), n)
    labels = rng.integers(0, classes, n)
    confidence, right = scores.max(1), scores.argmax(1) == labels
    expected = 0.0
    for low in range(15):
        inside = (confidence * 15).astype(int) == low if low < 14 else confidence * 15 >= 14
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert s.calibration_error(scores, labels) == pytest.approx(expected, abs=1e-12)


# --- two systems ------------------------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    expected = scipy.stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert s.mcnemar(b, c) == pytest.approx(expected, rel=1e-9)
    assert s.mcnemar(b, c) == s.mcnemar(c, b)


def test_mcnemar_far_in_the_tail() -> None:
    assert s.mcnemar(3, 997) == pytest.approx(scipy.stats.binomtest(3, 1000).pvalue, rel=1e-9)
    assert 0 < s.mcnemar(0, 900) < 1e-250


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(ValueError, match="count"):
        s.mcnemar(-1, 3)


def test_power_as_the_house_plans_with() -> None:
    """2 points apart, 6 % discordant, n = 1,000: found in about 70 % of cases."""
    assert s.mcnemar_power(1000, 0.06, 0.02) == pytest.approx(0.70, abs=0.01)


@pytest.mark.parametrize(("n", "discordant", "difference"), [(200, 0.3, 0.1), (1000, 0.06, 0.02), (500, 0.2, 0.0)])
def test_power_by_simulation(n: int, discordant: float, difference: float) -> None:
    rng = np.random.default_rng(11)
    shares = [(discordant + difference) / 2, (discordant - difference) / 2, 1 - discordant]
    drawn = rng.multinomial(n, shares, size=20_000)
    known = {pair: s.mcnemar(*map(int, pair)) <= 0.05 for pair in set(map(tuple, drawn[:, :2]))}
    found = np.mean([known[pair] for pair in map(tuple, drawn[:, :2])])
    expected = s.mcnemar_power(n, discordant, difference)
    assert found == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 20_000))
    if difference == 0:
        assert expected <= 0.05  # an exact test never cries wolf more often than its alpha


def test_power_laws() -> None:
    by_n = [s.mcnemar_power(n, 0.1, 0.04) for n in (50, 200, 1000, 4000)]
    assert by_n == sorted(by_n) and by_n[-1] > 0.999
    assert s.mcnemar_power(300, 0.2, 0.05) == pytest.approx(s.mcnemar_power(300, 0.2, -0.05))
    assert s.mcnemar_power(300, 0.0, 0.0) == 0.0
    assert s.mcnemar_power(20, 1.0, 1.0) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="difference"):
        s.mcnemar_power(100, 0.1, 0.2)


def test_bootstrap_covers_the_true_difference() -> None:
    rng = np.random.default_rng(5)
    covered, trials = 0, 400
    for trial in range(trials):
        hardness = rng.random(300)
        a = 0.8 * hardness + 0.2 * rng.random(300) < 0.6  # with chance (0.6 - 0.1) / 0.8
        b = 0.8 * hardness + 0.2 * rng.random(300) < 0.5
        low, high = s.paired_bootstrap(a, b, resamples=1000, seed=trial)
        covered += low <= 0.125 <= high
    assert covered / trials == pytest.approx(0.95, abs=4 * math.sqrt(0.05 * 0.95 / trials))


def test_bootstrap_agrees_with_drawing_examples() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(200), rng.random(200) * 0.9
    theirs = scipy.stats.bootstrap(
        (a - b,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert s.paired_bootstrap(a, b, resamples=20_000) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_bootstrap_is_seeded_antisymmetric_and_tight_on_equals() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.random(100), rng.random(100)
    assert s.paired_bootstrap(a, b, seed=4) == s.paired_bootstrap(a, b, seed=4)
    assert s.paired_bootstrap(a, b, seed=4) != s.paired_bootstrap(a, b, seed=5)
    assert s.paired_bootstrap(a, a) == (0.0, 0.0)
    here, there = s.paired_bootstrap(a, b), s.paired_bootstrap(b, a)
    assert (here.low, here.high) == pytest.approx((-there.high, -there.low), abs=0.03)


def test_bootstrap_of_many_distinct_values_stays_small() -> None:
    rng = np.random.default_rng(0)
    low, high = s.paired_bootstrap(rng.random(20_000), np.zeros(20_000), resamples=500)
    assert low < 0.5 < high and high - low < 0.02


@pytest.mark.parametrize(("a", "b"), [([], []), ([[1.0]], [[1.0]])])
def test_bootstrap_refuses_what_is_no_sample(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one example"):
        s.paired_bootstrap(a, b)


# --- many systems -----------------------------------------------------------------------------------------


def stepped_down(p_values: list[float], alpha: float) -> list[bool]:
    """Holm's procedure as its paper tells it: smallest first, stop at the first that fails."""
    rejected = [False] * len(p_values)
    for step, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        if p_values[at] > alpha / (len(p_values) - step):
            break
        rejected[at] = True
    return rejected


@given(st.lists(st.floats(0, 1), max_size=12), st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_is_the_step_down_procedure(p_values: list[float], alpha: float) -> None:
    adjusted = s.holm(p_values)
    clear = [abs(p - alpha) > 1e-9 for p in adjusted]  # at the border rounding decides
    for ours, theirs, sure in zip(adjusted <= alpha, stepped_down(p_values, alpha), clear, strict=True):
        assert ours == theirs or not sure


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_laws(p_values: list[float]) -> None:
    adjusted = s.holm(p_values)
    assert (adjusted >= np.array(p_values) - 1e-15).all() and (adjusted <= 1).all()
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()


def test_holm_keeps_the_family_wise_error() -> None:
    rng = np.random.default_rng(8)
    wrong = np.mean([(s.holm(rng.random(15)) <= 0.05).any() for _ in range(4000)])
    assert wrong == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 4000))


def test_against_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    rng = np.random.default_rng(0)
    p_values = rng.random(30) ** 3
    assert s.holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])
    assert s.mcnemar(7, 19) == pytest.approx(tables.mcnemar([[5, 7], [19, 6]], exact=True).pvalue)
    assert s.wilson(37, 90) == pytest.approx(proportion.proportion_confint(37, 90, method="wilson"))
    assert s.clopper_pearson(37, 90) == pytest.approx(proportion.proportion_confint(37, 90, method="beta"))


@given(vectors)
def test_beats_is_an_asymmetric_relation_in_line_with_counts(rows: list[list[bool]]) -> None:
    correct = np.array(rows)
    better = s.beats(correct, alpha=0.2)
    assert not (better & better.T).any()
    assert all(correct[i].sum() > correct[j].sum() for i, j in zip(*np.nonzero(better), strict=True))


def test_beats_is_pairwise_mcnemar_under_holm() -> None:
    correct = planted(np.random.default_rng(2), [0.3, 0.33, 0.4, 0.6], 400)
    pairs = list(itertools.combinations(range(4), 2))
    p_values = [
        scipy.stats.binomtest(int((a & ~b).sum()), int((a ^ b).sum())).pvalue
        for a, b in ((correct[i], correct[j]) for i, j in pairs)
    ]
    expected = {pair for pair, rejected in zip(pairs, stepped_down(p_values, 0.05), strict=True) if rejected}
    found = {(min(i, j), max(i, j)) for i, j in zip(*map(list, np.nonzero(s.beats(correct))), strict=True)}
    assert found == expected and expected


@given(vectors)
def test_tie_groups_are_walked_from_the_best(rows: list[list[bool]]) -> None:
    correct = np.array(rows)
    better = s.beats(correct, alpha=0.2)
    ranks = s.tie_groups(correct, alpha=0.2)
    order = sorted(range(len(rows)), key=lambda row: -correct[row].sum())
    assert [ranks[row].group for row in order] == sorted(rank.group for rank in ranks)
    assert {rank.group for rank in ranks} == set(range(1, max(rank.group for rank in ranks) + 1))
    leader = order[0]
    for row in order:
        if ranks[row].group != ranks[leader].group:
            assert better[leader, row]  # a group opens only on evidence
            leader = row
        assert not better[leader, row]
        assert 1 <= ranks[row].best <= len(rows) and 1 <= ranks[row].worst <= len(rows)
        assert ranks[row].best == 1 + sum(better[:, row]) and ranks[row].worst == len(rows) - sum(better[row])


@given(vectors, st.randoms(use_true_random=False))
def test_ranks_do_not_depend_on_the_order_of_rows_of_distinct_counts(rows: list[list[bool]], random: object) -> None:
    rows = list({sum(row): row for row in rows}.values())
    shuffled = list(range(len(rows)))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    ranks, again = s.tie_groups(np.array(rows)), s.tie_groups(np.array([rows[at] for at in shuffled]))
    assert [ranks[at] for at in shuffled] == list(again)


def test_rows_that_cannot_be_told_apart_share_the_rank() -> None:
    rng = np.random.default_rng(7)
    correct = planted(rng, [0.6, 0.6, 0.59, 0.2, 0.2], 1000)
    ranks = s.tie_groups(correct)
    assert [rank.group for rank in ranks] == [1, 1, 1, 2, 2]
    assert {(rank.best, rank.worst) for rank in ranks[:3]} == {(1, 3)}
    assert {(rank.best, rank.worst) for rank in ranks[3:]} == {(4, 5)}


def test_equal_rows_are_one_group_and_one_row_is_the_first() -> None:
    same = np.ones((4, 50), dtype=bool)
    assert s.tie_groups(same) == (s.Rank(1, 1, 4),) * 4
    assert s.tie_groups(same[:1]) == (s.Rank(1, 1, 1),)


def test_a_board_of_equals_is_split_no_more_often_than_alpha() -> None:
    rng = np.random.default_rng(9)
    boards = [s.tie_groups(planted(rng, [0.5] * 5, 250)) for _ in range(600)]
    split = np.mean([any(rank.group > 1 for rank in ranks) for ranks in boards])
    assert split <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)


# --- front ------------------------------------------------------------------------------------------------


def test_only_a_significant_loss_at_no_lower_cost_is_dominated() -> None:
    rng = np.random.default_rng(4)
    correct = planted(rng, [0.6, 0.59, 0.3, 0.3], 1000)
    costs = np.array([[100.0], [200.0], [300.0], [50.0]])
    # 1 costs more than 0 and is no better, but not significantly worse either: it stays.
    assert s.pareto(correct, costs) == (True, True, False, True)


def test_an_equal_row_that_costs_more_is_dominated() -> None:
    same = np.ones((3, 20), dtype=bool)
    assert s.pareto(same, np.array([[1.0, 5.0], [1.0, 6.0], [2.0, 4.0]])) == (True, False, True)
    assert s.pareto(same, np.array([[1.0], [1.0], [1.0]])) == (True, True, True)


def test_uncertain_costs_dominate_only_without_overlap() -> None:
    same = np.ones((2, 20), dtype=bool)
    assert s.pareto(same, np.array([[[1.0, 2.0]], [[1.5, 3.0]]])) == (True, True)
    assert s.pareto(same, np.array([[[1.0, 2.0]], [[2.5, 3.0]]])) == (True, False)


def test_an_unknown_cost_is_not_comparable() -> None:
    correct = planted(np.random.default_rng(4), [0.9, 0.3], 500)
    assert s.pareto(correct, np.array([[math.nan], [10.0]])) == (False, True)


@given(vectors, st.data())
def test_the_front_is_never_empty_and_keeps_the_cheapest_best(rows: list[list[bool]], data: st.DataObject) -> None:
    correct = np.array(rows)
    costs = np.array([[data.draw(st.integers(1, 4))] for _ in rows], dtype=float)
    front = s.pareto(correct, costs, alpha=0.2)
    assert any(front)
    better = s.beats(correct, 0.2)
    for j, on_front in enumerate(front):
        reasons = [
            i
            for i in range(len(rows))
            if costs[i] <= costs[j] and (better[i, j] or (rows[i] == rows[j] and costs[i] < costs[j]))
        ]
        assert on_front == (not reasons)


# --- seeds and times -----------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12), levels)
def test_seeds_equal_scipy(values: list[float], level: float) -> None:
    found = s.over_seeds(values, level)
    assert found.values == tuple(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.sd == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    if found.sd and found.sd > 1e-6 and found.interval:
        scale = found.sd / math.sqrt(len(values))
        assert tuple(found.interval) == pytest.approx(
            scipy.stats.t.interval(level, len(values) - 1, found.mean, scale), rel=1e-8, abs=1e-9
        )


def test_one_seed_has_no_spread() -> None:
    assert s.over_seeds([0.4]) == s.Seeds((0.4,), 0.4, None, None)
    with pytest.raises(ValueError, match="no seeds"):
        s.over_seeds([])


@given(st.floats(0.001, 0.999), st.integers(1, 200))
def test_student_quantiles(share: float, freedom: int) -> None:
    assert s.student_quantile(share, freedom) == pytest.approx(scipy.stats.t.ppf(share, freedom), rel=1e-6, abs=1e-7)


@given(st.integers(0, 2**32), st.integers(1, 19), st.integers(1, 19))
def test_mann_whitney_exact(seed: int, first: int, second: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=first), rng.normal(0.5, 1, size=second)
    theirs = scipy.stats.mannwhitneyu(a, b, method="exact")
    found = s.mann_whitney(a, b)
    assert found.u == theirs.statistic and found.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert found.effect == pytest.approx(np.mean(a[:, None] > b))


@given(st.integers(0, 2**32))
def test_mann_whitney_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 8, 40), rng.integers(0, 9, 35)
    theirs = scipy.stats.mannwhitneyu(a, b, method="asymptotic")
    found = s.mann_whitney(a, b)
    assert found.u == theirs.statistic and found.p == pytest.approx(theirs.pvalue, rel=1e-9)


def test_mann_whitney_of_constants_and_of_nothing() -> None:
    assert s.mann_whitney([1.0] * 5, [1.0] * 6) == (15.0, 1.0, 0.5)
    with pytest.raises(ValueError, match="two samples"):
        s.mann_whitney([], [1.0])


def test_mann_whitney_cries_wolf_at_its_rate() -> None:
    rng = np.random.default_rng(12)
    wrong = np.mean([s.mann_whitney(rng.exponential(size=40), rng.exponential(size=40)).p <= 0.05 for _ in range(2000)])
    assert wrong == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 2000))


# --- distributions --------------------------------------------------------------------------------------------


@given(st.floats(0, 1), st.floats(0.5, 2000), st.floats(0.5, 2000))
def test_the_incomplete_beta_function(x: float, a: float, b: float) -> None:
    assert s._beta_cdf(x, a, b) == pytest.approx(scipy.special.betainc(a, b, x), rel=1e-8, abs=1e-12)


def test_no_scipy_at_run_time() -> None:
    program = "import sys, grit.bench.statistics; sys.exit(any(m in sys.modules for m in ('scipy', 'torch', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- losses and histories -------------------------------------------------------------------------------


@pytest.mark.parametrize(("b", "c", "n"), [(12, 2, 44), (0, 3, 50), (5, 0, 50), (30, 30, 1000)])
def test_bounds_of_a_paired_loss_lie_where_the_score_is_the_quantile(b: int, c: int, n: int) -> None:
    found = s.loss_bound(b, c, n, 0.975)
    assert found.low < (b - c) / n < found.high
    z = 1.959963984540054
    for bound, wanted in ((found.low, z), (found.high, -z)):
        m = (2 * n - b + c) * bound - b - c
        q = (math.sqrt(m * m + 8 * n * c * bound * (1 - bound)) - m) / (4 * n)
        score = (b - c - n * bound) / math.sqrt(n * (2 * q + bound * (1 - bound)))
        assert score == pytest.approx(wanted, abs=1e-6)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(60, 200))
def test_a_loss_the_other_way_round_is_a_gain(b: int, c: int, n: int) -> None:
    there, back = s.loss_bound(b, c, n), s.loss_bound(c, b, n)
    assert there.low == pytest.approx(-back.high, abs=1e-9) and there.high == pytest.approx(-back.low, abs=1e-9)
    assert there.low <= (b - c) / n <= there.high
    wider = s.loss_bound(b, c, n, 0.99)
    assert wider.low <= there.low and there.high <= wider.high


def test_bounds_of_a_loss_keep_their_level() -> None:
    rng = np.random.default_rng(0)
    trials, n, level, outside = 2000, 200, 0.95, 0
    for lost, won in rng.multinomial(n, [0.05, 0.02, 0.93], size=trials)[:, :2]:
        outside += s.loss_bound(int(lost), int(won), n, level).low > 0.03
    assert outside / trials <= (1 - level) + 4 * math.sqrt(level * (1 - level) / trials)


def test_no_examples_bound_nothing() -> None:
    assert s.loss_bound(0, 0, 0) == (-1.0, 1.0)


def test_the_n_that_settles_a_loss_does() -> None:
    b, c, n, margin = 30, 5, 1000, 0.02
    needed = s.settling_n(b, c, n, margin)
    assert needed is not None and needed > n
    assert s.loss_bound(b, c, n).low <= margin
    scaled = s.loss_bound(round(b * needed / n * 1.05), round(c * needed / n * 1.05), round(needed * 1.05))
    assert scaled.low > margin
    assert s.settling_n(25, 5, 1000, 0.02) is None


def test_levels_of_a_history_are_cut_where_they_change() -> None:
    rng = np.random.default_rng(0)
    steps = np.concatenate([rng.normal(0, 1, 30), rng.normal(5, 1, 30), rng.normal(-5, 1, 30)])
    assert s.change_points(steps.tolist()) == (30, 60)
    assert s.change_points([]) == s.change_points([1.0]) == s.change_points([2.0] * 50) == ()


def test_a_history_without_a_change_has_hardly_ever_a_cut() -> None:
    rng = np.random.default_rng(1)
    cut = sum(bool(s.change_points(rng.normal(size=24).tolist())) for _ in range(60))
    assert cut <= 4  # 1 % and the luck of 60
