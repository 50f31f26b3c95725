"""What the fields of a loss term may be: said when a term is made, not after the training that it spoiled."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from grit.bench.types import UsageError

Rule = tuple[str, Callable[[Any], bool]]
"""What is expected, in words, and whether a number is that; nan never is."""

SHARE: Rule = "a share in [0, 1]", lambda value: 0 <= value <= 1
PART: Rule = "a share in (0, 1]", lambda value: 0 < value <= 1
AMOUNT: Rule = "a number of 0 or more", lambda value: 0 <= value < math.inf
POSITIVE: Rule = "a number above 0", lambda value: 0 < value < math.inf
WHOLE: Rule = "a whole number of 0 or more", lambda value: isinstance(value, int) and value >= 0
COUNT: Rule = "a whole number of 1 or more", lambda value: isinstance(value, int) and value >= 1


def check(term: Any, **rules: Rule) -> None:
    """UsageError for a field of the term that is not what its rule expects."""
    for name, (expected, holds) in rules.items():
        value = getattr(term, name)
        if not isinstance(value, int | float) or not holds(value):
            raise _refused(term, name, value, expected)


def check_kind(term: Any, *kinds: str) -> None:
    """UsageError for a ``kind`` that is none of these."""
    if term.kind not in kinds:
        raise _refused(term, "kind", term.kind, f"one of {', '.join(kinds)}")


def check_rise(term: Any) -> None:
    """UsageError unless ``calm`` and ``full`` are shares of the training, in this order.

    No epoch counts as the best before ``full``, so one behind the end would leave a training without any.
    """
    check(term, calm=SHARE, full=SHARE)
    if term.calm > term.full:
        raise _refused(term, "calm", term.calm, f"no more than full={term.full}")


def _refused(term: Any, name: str, value: object, expected: str) -> UsageError:
    objective, default = type(term).__module__.rpartition(".")[2], getattr(type(term), name)
    return UsageError(f"objective {objective}: {name}={value}: expected {expected}, as in {name}={default}")
