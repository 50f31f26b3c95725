"""Samples -> the few numbers that a record keeps of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def times(samples_ns: Sequence[int] | np.ndarray) -> dict[str, float]:
    """n_calls, min_us, p50_us, p90_us, p99_us and iqr_us (between the quartiles) of times in nanoseconds."""
    lowest, p25, p50, p75, p90, p99 = np.percentile(np.asarray(samples_ns) / 1000, [0, 25, 50, 75, 90, 99]).tolist()
    found = {"min_us": lowest, "p50_us": p50, "p90_us": p90, "p99_us": p99, "iqr_us": p75 - p25}
    return {"n_calls": len(samples_ns), **{name: round(value, 3) for name, value in found.items()}}


def counts(name: str, samples: Sequence[int]) -> dict[str, int]:
    """min, p50, p90, p99 and max of counts: each one of the samples, so exact."""
    ordered = sorted(samples)
    last = len(ordered) - 1
    places = {"min": 0, "p50": last // 2, "p90": last * 9 // 10, "p99": last * 99 // 100, "max": last}
    return {f"{which}_{name}": ordered[place] for which, place in places.items()}
