"""Equality before numbers: logits that are not the artefact's own are another program's, and get none."""

from __future__ import annotations

from typing import Any

import numpy as np

from grit.bench.types import CouldNotMeasure

FLOAT_TOLERANCE = 1e-4  # of an artefact that is not exact, relative to its largest logit


def compare(logits: np.ndarray, reference: np.ndarray, exact: bool) -> dict[str, Any]:
    """``output_error``, ``output_allowed`` and ``compared_texts`` of logits [texts classes] against the reference's.

    An exact artefact is allowed no error, another FLOAT_TOLERANCE of its largest logit; CouldNotMeasure beyond that.
    """
    if not len(reference):
        raise CouldNotMeasure("no texts to compare on: pass some of the dev split")
    error = float(np.abs(logits - reference).max())
    allowed = 0.0 if exact else FLOAT_TOLERANCE * max(float(np.abs(reference).max()), 1.0)
    if not error <= allowed:  # NaN too
        raise CouldNotMeasure(
            f"logits differ from the artefact's own by {error:.3g}, allowed {allowed:.3g}: a number would be of "
            "another program; export again, and report this with the versions of compiler and runtime if it stays"
        )
    return {"output_error": error, "output_allowed": allowed, "compared_texts": len(reference)}
