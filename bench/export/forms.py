"""Shipping forms: how an array lies in a program file when that takes fewer bytes than its plain values.

A form is lossless: what is read back is the array, bit for bit, so nothing that runs a program knows of forms. They
pay where a compression has made an array that repeats itself: ``codebook`` where rows are put together from few
parts, ``sparse`` where most values are zero, ``half`` where every float is one of 16 bits. A program at work holds
the expanded array: forms save bytes of the file, not memory or flash where an engine keeps its tables whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from grit.bench.types import MalformedInput, UsageError

FORMS = ("codebook", "half", "sparse")
LARGEST_CODE = np.iinfo(np.int16).max
NAMING_BYTES = 192  # of the file's header that a form takes: a form must save more than that


class Stored(NamedTuple):
    """An array in a form: tensors by name, and the JSON that says what they are."""

    tensors: Mapping[str, np.ndarray]
    note: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


def smallest(array: np.ndarray, allowed: tuple[str, ...]) -> Stored | None:
    """The form of fewest bytes among the ``allowed`` ones; None where the plain array takes no more in all.

    Raises UsageError for a form that there is not.
    """
    for form in allowed:
        if form not in FORMS:
            raise UsageError(f"unknown form {form!r}: the forms are {', '.join(FORMS)}")
    makers = {"codebook": _codebook, "half": _half, "sparse": _sparse}
    found = [stored for form in FORMS if form in allowed and (stored := makers[form](array)) is not None]
    best = min(found, key=lambda stored: stored.nbytes, default=None)
    return best if best is not None and best.nbytes + NAMING_BYTES < array.nbytes else None


def expanded(note: Any, tensors: Mapping[str, np.ndarray], largest_bytes: int) -> np.ndarray:
    """The array that :func:`smallest` stored. MalformedInput for anything it would not have written.

    largest_bytes: beyond this a note is not believed, since few bytes can ask for many.
    """
    _require(isinstance(note, dict), "a form is not described")
    readers = {"codebook": (_from_codebook, {"codes", "centroids"}), "half": (_from_half, {"half"})}
    readers["sparse"] = (_from_sparse, {"places", "values"})
    read, names = readers.get(str(note.get("form")), (None, set()))
    if read is None:
        raise MalformedInput(f"not a program file: unknown form {str(note.get('form'))[:40]!r}; export it again")
    _require(set(tensors) == names, f"the form {note['form']} has other tensors")
    return read(note, tensors, largest_bytes)


# --- codebook: rows put together from parts ---------------------------------------------------------------


def _codebook(array: np.ndarray) -> Stored | None:
    """Columns cut into parts of equal width, each a number in a list of the part's distinct values."""
    if array.ndim != 2 or not array.size:
        return None
    features = array.shape[1]
    cuts = [_cut(array, parts) for parts in range(1, features + 1) if features % parts == 0]
    found = [each for each in cuts if each is not None]
    return min(found, key=lambda stored: stored.nbytes, default=None)


def _cut(array: np.ndarray, parts: int) -> Stored | None:
    """codes [rows parts], centroids [parts codes width]; None where a part has more values than a code counts."""
    rows, features = array.shape
    bits = np.dtype(f"u{array.itemsize}")  # equal values of other bits (0.0 and -0.0) are not the same
    columns = np.ascontiguousarray(array).view(bits).reshape(rows, parts, features // parts)
    found = [np.unique(columns[:, part], axis=0, return_inverse=True) for part in range(parts)]
    most = max(len(values) for values, _ in found)
    if most > LARGEST_CODE:
        return None
    centroids = np.zeros((parts, most, features // parts), array.dtype)
    for part, (values, _) in enumerate(found):
        centroids[part, : len(values)] = values.view(array.dtype)
    codes = np.stack([inverse.ravel() for _, inverse in found], axis=1)
    return Stored(
        {"codes": codes.astype(np.uint8 if most <= 256 else np.int16), "centroids": centroids}, {"form": "codebook"}
    )


def _from_codebook(note: Mapping[str, Any], tensors: Mapping[str, np.ndarray], largest_bytes: int) -> np.ndarray:
    codes, centroids = tensors["codes"], tensors["centroids"]
    _require(set(note) == {"form"}, "a codebook has an unknown note")
    _require(codes.ndim == 2 and codes.dtype in (np.uint8, np.int16), "the codes are no table of small integers")
    _require(centroids.ndim == 3 and len(centroids) == codes.shape[1] > 0, "codes and centroids do not fit")
    _require(codes.size == 0 or 0 <= codes.min() <= codes.max() < centroids.shape[1], "a code names no centroid")
    rows, parts = codes.shape
    width = centroids.shape[2]
    _require(rows * parts * width * centroids.itemsize <= largest_bytes, "a codebook is too large")
    return np.ascontiguousarray(centroids[np.arange(parts), codes].reshape(rows, parts * width))


# --- half: floats of 16 bits ------------------------------------------------------------------------------


def _half(array: np.ndarray) -> Stored | None:
    if array.dtype != np.float32:
        return None
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    same = half.astype(np.float32).tobytes() == array.tobytes()
    return Stored({"half": half}, {"form": "half"}) if same else None


def _from_half(note: Mapping[str, Any], tensors: Mapping[str, np.ndarray], largest_bytes: int) -> np.ndarray:
    _require(set(note) == {"form"}, "a half array has an unknown note")
    _require(tensors["half"].dtype == np.float16, "a half array is not of 16 bits")
    return tensors["half"].astype(np.float32)


# --- sparse: what is not zero, and where ------------------------------------------------------------------


def _sparse(array: np.ndarray) -> Stored | None:
    """One bit a value, in rows of bytes, and the values that are not zero in their order."""
    flat = array.ravel()
    if array.dtype == np.float32 and (np.signbit(flat) & (flat == 0)).any():
        return None  # a negative zero would come back as a positive one
    there = flat != 0
    return Stored({"places": np.packbits(there), "values": flat[there]}, {"form": "sparse", "shape": list(array.shape)})


def _from_sparse(note: Mapping[str, Any], tensors: Mapping[str, np.ndarray], largest_bytes: int) -> np.ndarray:
    places, values, shape = tensors["places"], tensors["values"], note.get("shape")
    _require(set(note) == {"form", "shape"} and isinstance(shape, list), "a sparse array has no shape")
    assert isinstance(shape, list)
    _require(len(shape) <= 4 and all(type(n) is int and 0 <= n <= largest_bytes for n in shape), "its shape is illegal")
    size = math.prod(shape)
    _require(size * values.itemsize <= largest_bytes, "a sparse array is too large")
    _require(places.dtype == np.uint8 and places.shape == (-(-size // 8),), "its bits are not one a value")
    there = np.unpackbits(places, count=size).astype(bool) if size else np.zeros(0, bool)
    _require(values.shape == (int(there.sum()),), "bits and values of a sparse array differ in number")
    _require(not (values == 0).any() and not np.unpackbits(places)[size:].any(), "a sparse array is not canonical")
    array = np.zeros(size, values.dtype)
    array[there] = values
    return array.reshape(shape)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise MalformedInput(f"not a program file: {what}; export it again")
