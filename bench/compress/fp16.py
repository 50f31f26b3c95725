"""Weights of 16-bit floats."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from grit.bench.compress._draft import Course, Draft, mapped
from grit.bench.types import UsageError


@dataclass(frozen=True)
class Fp16:
    """Storage only: each weight is rounded to the nearest half and ships as one; arithmetic stays in 32 bits."""

    def compress(self, draft: Draft, course: Course) -> Draft:
        halved = dataclasses.replace(draft, program=mapped(draft.program, _rounded), precision="fp16")
        return halved.shipped_as("half").noted("fp16", storage_only=True)


def _rounded(path: str, array: np.ndarray) -> np.ndarray:
    if np.abs(array).max(initial=0) > np.finfo(np.float16).max:
        raise UsageError(f"fp16: {path} has weights beyond {np.finfo(np.float16).max:g}; leave the step out")
    return array.astype(np.float16).astype(np.float32)
