"""How weights and words lie in emitted C: everything can be read back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench.export.c import _layout

WORDS = st.text(st.sampled_from("abcdé'"), min_size=0, max_size=40)


def unpacked(packed: _layout.Packed) -> np.ndarray:
    """int8 [rows inputs], read the way product.c reads it."""
    rows = []
    for row in range(packed.rows):
        chunk = row // 32 * 32
        step = 4 * min(32, packed.rows - chunk)
        start = 4 * (chunk * packed.groups + row - chunk)
        rows.append(np.concatenate([packed.weight[start + g * step :][:4] for g in range(packed.groups)]))
    return np.array(rows)


@given(st.integers(1, 90), st.integers(1, 21), st.integers(0, 1000))
def test_packed_weights_read_back(out: int, inputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-127, 128, (out, inputs)).astype(np.int8)
    multiplier = rng.integers(1, 32768, out).astype(np.int16)
    packed = _layout.pack(weight, multiplier, _layout.straight(out))
    assert packed.rows % 8 == 0
    read = unpacked(packed)
    np.testing.assert_array_equal(read[:out, :inputs], weight)
    assert not read[out:].any()
    assert not read[:, inputs:].any()
    np.testing.assert_array_equal(packed.multiplier[:out], multiplier)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 100))
def test_what_is_folded_into_biases(out: int, inputs: int, seed: int) -> None:
    """Winograd's products and the sums for unsigned inputs give the plain product back."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(-127, 128, (out, inputs)).astype(np.int8)
    multiplier = rng.integers(1, 100, out).astype(np.int16)
    packed = _layout.pack(weight, multiplier, _layout.straight(out))
    x = np.zeros(4 * packed.groups, np.int64)
    x[:inputs] = rng.integers(-128, 128, inputs)
    w = unpacked(packed).astype(np.int64)
    plain = packed.multiplier * (w @ x)
    crossed = ((w[:, 0::2] + x[1::2]) * (w[:, 1::2] + x[0::2])).sum(axis=1) - (x[0::2] * x[1::2]).sum()
    np.testing.assert_array_equal(packed.multiplier * crossed - packed.even_odd, plain)
    np.testing.assert_array_equal(packed.multiplier * (w @ (x + 128)) - 128 * packed.total, plain)


@pytest.mark.parametrize("units", [1, 5, 8, 9, 64, 100])
def test_gates_stand_in_blocks_of_eight_units(units: int) -> None:
    order = _layout.gates(units)
    assert len(order) == 4 * _layout.padded(units, 8)
    for unit in range(units):
        for gate in range(4):
            assert order[unit // 8 * 32 + gate * 8 + unit % 8] == gate * units + unit
    assert sorted(order[order >= 0]) == list(range(4 * units))


def test_columns_are_input_by_input() -> None:
    weight = np.arange(40 * 3, dtype=np.float32).reshape(40, 3)
    flat = _layout.columns(weight, _layout.straight(40))
    np.testing.assert_array_equal(flat[: 3 * 32].reshape(3, 32), weight[:32].T)
    np.testing.assert_array_equal(flat[3 * 32 :].reshape(3, 8), weight[32:].T)


def decoded(coded: _layout.Vocabulary, words: int) -> list[bytes]:
    """The words in their new order, read the way vocabulary.c reads them."""
    at, found, before = 0, [], b""

    def count(nibble: int) -> int:
        nonlocal at
        while nibble >= 15:
            more = coded.letters[at]
            at += 1
            nibble += more
            if more < 255:
                break
        return nibble

    for k in range(words):
        if k % _layout.BLOCK == 0:
            assert coded.blocks[k // _layout.BLOCK] == at
            before = b""
        head = coded.letters[at]
        at += 1
        shared = count(head >> 4)
        rest = count(head & 15)
        before = before[:shared] + coded.letters[at : at + rest]
        at += rest
        found.append(before)
    assert at == len(coded.letters)
    return found


@given(st.sets(WORDS, max_size=60))
def test_front_coding_reads_back(words: set[str]) -> None:
    listed = ["", *sorted(words - {""}, key=lambda word: word[::-1])]
    coded = _layout.front_coded(listed)
    found = decoded(coded, len(listed))
    assert found == sorted(word.encode() for word in listed)
    assert [found[row].decode() for row in coded.rows] == listed
    assert coded.rows[0] == 0


def test_counts_beyond_a_nibble_and_a_byte() -> None:
    words = ["", "a" * 14, "a" * 15, "a" * 16, "a" * 269, "a" * 270, "a" * 271, "a" * 600]
    coded = _layout.front_coded(words)
    assert decoded(coded, len(words)) == [word.encode() for word in words]


def test_numbers_read_back() -> None:
    text = _layout.array("float", "x", np.array([0.1, -3e-20, 5], np.float32))
    numbers = text.partition("{")[2].partition("}")[0].replace("f", "").split(",")
    np.testing.assert_array_equal(np.array(numbers, np.float32), np.array([0.1, -3e-20, 5], np.float32))
    assert "x[3]" in text
    assert all(len(line) <= 125 for line in _layout.array("int8_t", "y", np.full(1000, -127, np.int8)).splitlines())
