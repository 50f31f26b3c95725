"""Text rules: the published vectors of the string projection, and the laws that the rest of the house leans on."""

from __future__ import annotations

import random
import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import text

tokens = st.lists(st.text(max_size=12), max_size=12)

# --- normalise --------------------------------------------------------------------------------------


def test_normalise_collapses_white_space_and_composes() -> None:
    assert text.normalise("  a\t\tb \n c\u00a0d ") == "a b c d"
    assert text.normalise("cafe\u0301") == "caf\u00e9"
    assert text.normalise(" \n ") == ""


def test_normalise_replaces_what_utf8_cannot_hold() -> None:
    assert text.normalise("a\ud800b") == "a\ufffdb"


@given(st.text())
def test_normalise_is_idempotent_and_gives_valid_utf8(raw: str) -> None:
    once = text.normalise(raw)
    assert text.normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once.encode("utf-8").decode("utf-8") == once


# --- tokenize ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", []),
        ("   ", []),
        ("It isn't GOOD, is it?!", ["it", "isn't", "good", ",", "is", "it", "?", "!"]),
        (
            "well-known U.S. <b>3.5</b>",
            ["well", "-", "known", "u", ".", "s", ".", "<", "b", ">", "3", ".", "5", "<", "/", "b", ">"],
        ),
        ("snake_case #1 @you", ["snake", "_", "case", "#", "1", "@", "you"]),
        ("Caf\u00e9 \u00c9t\u00e9 na\u00efve", ["caf\u00e9", "\u00c9t\u00e9", "na\u00efve"]),  # only A-Z are lowered
        ("\u0130stanbul \u212aelvin", ["\u0130stanbul", "\u212aelvin"]),  # str.lower would change both
        ("ok\U0001f600 \u05e9\u05dc\u05d5\u05dd", ["ok\U0001f600", "\u05e9\u05dc\u05d5\u05dd"]),
        ("a\tb\nc\vd\fe\rf", ["a", "b", "c", "d", "e", "f"]),
        ("a\x1cb\x00c", ["a", "\x1c", "b", "\x00", "c"]),  # control characters are not ASCII white space
        ("a\u2003b", ["a\u2003b"]),  # nor is an em space; normalise has turned it into a blank before
    ],
)
def test_tokenize_examples(raw: str, expected: list[str]) -> None:
    assert text.tokenize(raw) == expected


@given(st.text(), st.text())
def test_tokenize_is_separable(left: str, right: str) -> None:
    assert text.tokenize(left + " " + right) == text.tokenize(left) + text.tokenize(right)


@given(st.text())
def test_tokenize_is_stable_and_loses_only_white_space(raw: str) -> None:
    found = text.tokenize(raw)
    assert text.tokenize(" ".join(found)) == found
    assert "".join(found).lower() == "".join(c for c in raw if c not in " \t\n\v\f\r").lower()
    assert all(found)


def byte_tokens(data: bytes) -> list[bytes]:
    """The rule as an 8-bit C program reads it: one byte at a time, every byte from 0x80 up belongs to a word."""
    found: list[bytes] = []
    in_word = False
    for byte in data:
        byte += 32 if 65 <= byte <= 90 else 0
        character = bytes([byte])
        if character in (b" ", b"\t", b"\n", b"\v", b"\f", b"\r"):
            in_word = False
        elif byte >= 0x80 or character.isalnum() or character == b"'":
            found[len(found) - in_word :] = [(found[-1] if in_word else b"") + character]
            in_word = True
        else:
            found.append(character)
            in_word = False
    return found


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_program_over_bytes_cuts_alike(raw: str) -> None:
    assert [token.encode() for token in text.tokenize(raw)] == byte_tokens(raw.encode())


# --- ngrams -----------------------------------------------------------------------------------------


def test_ngrams_examples() -> None:
    assert text.ngrams(["a", "b", "c"], 1) == ["a", "b", "c"]
    assert text.ngrams(["a", "b", "c"], 2) == ["a", "b", "a b", "c", "b c"]
    assert text.ngrams(["a", "b", "c"], 3) == ["a", "b", "a b", "c", "b c", "a b c"]
    assert text.ngrams([], 2) == []
    assert text.ngrams([""], 2) == [""]


@given(tokens, st.integers(1, 4), st.integers(0, 12))
def test_ngrams_of_a_prefix_are_a_prefix(words: list[str], order: int, cut: int) -> None:
    whole, part = text.ngrams(words, order), text.ngrams(words[:cut], order)
    assert whole[: len(part)] == part
    assert len(whole) == sum(max(0, len(words) - n) for n in range(order))


# --- hash128, ternary -------------------------------------------------------------------------------


def test_hash128_reference() -> None:
    assert text.hash128("hello") == (0x1E68D17C457BF117, 0x1AEC33D7DD3E8013)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("hello", [0, 1, 1, 0]),  # the five vectors of the authors' own test (vocabulary a-z, 4 features)
        ("world", [0, 1, 0, 0]),
        ("<EOS>", [0, 1, 0, 0]),
        ("h", [0, 0, 1, 0]),
        ("w", [1, 0, 1, 0]),
        ("hello", [0, 1, 1, 0, 1, 0, 0, 0, 0, -1, 0, 1, 1, 1, 0, 1]),
        ("caf\u00e9", [-1, -1, -1, 0, 1, 0, 1, 1]),  # unsigned bytes; signed ones give -1 0 1 -1 -1 0 -1 0
    ],
)
def test_ternary_reference(token: str, expected: list[int]) -> None:
    assert text.ternary([token], len(expected))[0].tolist() == expected


def test_empty_token_hashes_the_literal_null() -> None:
    assert text.hash128("") == text.hash128("<null>")
    assert (text.ternary([""], 96) == text.ternary(["<null>"], 96)).all()


def plain_ternary(token: str, width: int) -> list[int]:
    """Step by step in whole numbers, two bits a feature: slow and obvious."""
    mask = (1 << 64) - 1
    low, high = text.hash128(token)
    bits = [low, high]
    while 32 * len(bits) < width:
        low = (low ^ low >> 47) * 0xC6A4A7935BD1E995 & mask
        high ^= low
        low ^= low >> 47
        high = high * 0x9E3779B97F4A7835 & mask
        high = (high ^ high >> 47) * 0x9E3779B97F4A7835 & mask
        bits += [low, high]
    return [(0, 1, -1, 0)[bits[i // 32] >> 2 * (i % 32) & 3] for i in range(width)]


@given(st.text(max_size=40), st.integers(1, 300))
def test_ternary_equals_the_plain_rule(token: str, width: int) -> None:
    assert text.ternary([token], width)[0].tolist() == plain_ternary(token, width)


@given(tokens, st.integers(1, 200), st.integers(1, 200))
def test_narrower_is_a_prefix_and_order_does_not_matter(words: list[str], one: int, other: int) -> None:
    narrow, wide = sorted((one, other))
    full = text.ternary(words, wide)
    assert full.dtype == np.int8
    assert full.shape == (len(words), wide)
    assert (text.ternary(words, narrow) == full[:, :narrow]).all()
    assert (text.ternary(words[::-1], wide) == full[::-1]).all()


def test_ternary_distribution() -> None:
    features = text.ternary([f"word{i}" for i in range(2000)], 512)
    shares = [(features == value).mean() for value in (0, 1, -1)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.005)


def test_ternary_width_has_bounds() -> None:
    assert text.ternary(["a"], 4096).shape == (1, 4096)
    for width in (0, -1, 4097):
        with pytest.raises(ValueError, match=f"1 to 4096 features, got width {width}"):
            text.ternary(["a"], width)


def test_hashing_twenty_thousand_tokens_takes_well_under_a_second() -> None:
    fresh = [f"speed{i:08d}" for i in range(20_000)]
    start = time.perf_counter()
    text.ternary(fresh, 512)
    assert time.perf_counter() - start < 2.0  # about 0.2 s alone; the machine may be busy


@given(st.text(max_size=20), st.integers(1, 1 << 20))
def test_bucket_is_a_row(token: str, rows: int) -> None:
    assert text.bucket(token, rows) == text.hash128(token)[0] % rows
    assert 0 <= text.bucket(token, rows) < rows


# --- distort ----------------------------------------------------------------------------------------


@given(tokens, st.integers(0, 2**32), st.floats(0, 1))
def test_distort_changes_each_token_by_at_most_one_character(words: list[str], seed: int, probability: float) -> None:
    changed = text.distort(words, random.Random(seed), probability)
    assert len(changed) == len(words)
    assert changed == text.distort(words, random.Random(seed), probability)
    for before, after in zip(words, changed, strict=True):
        assert abs(len(before) - len(after)) <= 1
        if len(before) == len(after):
            assert sorted(before) == sorted(after)


@given(tokens, st.integers(0, 2**32))
def test_distort_with_probability_zero_is_the_identity(words: list[str], seed: int) -> None:
    assert text.distort(words, random.Random(seed), 0.0) == words


def test_distort_has_three_equal_kinds() -> None:
    words = ["abcdefghij"] * 6000
    changed = text.distort(words, random.Random(1), 1.0)
    shares = [sum(len(word) == length for word in changed) / len(words) for length in (9, 10, 11)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.03)
    in_place = sum(word == "abcdefghij" for word in changed) / len(words)
    assert in_place == pytest.approx(1 / 30, abs=0.01)


def test_distort_inserts_the_character_last_removed() -> None:
    class Script(random.Random):
        def __init__(self, draws: list[int]) -> None:
            super().__init__(0)
            self.draws = draws

        def random(self) -> float:
            return 0.0

        def randrange(self, *_: int) -> int:  # type: ignore[override]
            return self.draws.pop(0)

    # insert with nothing removed yet; remove "o"; insert it at 1; move "n" (index 0) to index 2; insert "n" at 0
    draws = [2, 0, 0, 1, 2, 1, 1, 0, 2, 2, 0]
    changed = text.distort(["cat", "dog", "bird", "newt", "x"], Script(draws), 1.0)
    assert changed == ["cat", "dg", "boird", "ewnt", "nx"]


def test_distort_leaves_short_words_in_place_and_empty_ones_alone() -> None:
    for seed in range(50):
        short = text.distort(["ab"], random.Random(seed), 1.0)[0]
        assert short in {"ab", "a", "b"}
        assert text.distort([""], random.Random(seed), 1.0) == [""]
