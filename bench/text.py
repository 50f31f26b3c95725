"""Pure text rules: how a string becomes tokens, and how a token becomes a hash.

Models, exported programs and attacks all read text through this file, so that the same text means the
same numbers in training, in the deployed bytes and in a C program on another machine. Everything here is
exact: no floating point, no locale, no platform-dependent character type.
"""

from __future__ import annotations

import random
import re
import string
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

# --- text -> tokens -------------------------------------------------------------------------------

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_TOKEN = re.compile(r"[a-z0-9'\u0080-\U0010ffff]+|[^ \t\n\v\f\r]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def normalise(text: str) -> str:
    """The text in Unicode normal form C, each run of white space one blank, none at the ends.

    A lone surrogate, which no UTF-8 file can hold, becomes U+FFFD. Normalising twice changes nothing.
    """
    return " ".join(unicodedata.normalize("NFC", _SURROGATE.sub("\ufffd", text)).split())


def tokenize(text: str) -> list[str]:
    """Tokens of a normalised text; none for an empty one (whoever builds a sequence reads that as ``[""]``).

    A token is a maximal run of ASCII letters, digits, apostrophes and characters beyond ASCII, or any other
    single character; ASCII white space only separates. A-Z become a-z, other letters stay as they are, so
    that a program over UTF-8 bytes, to which every byte from 0x80 up belongs to a word, cuts alike.
    Separable: ``tokenize(a + " " + b) == tokenize(a) + tokenize(b)``.
    """
    lowered = text.lower() if text.isascii() else text.translate(_LOWER)
    return _TOKEN.findall(lowered)


def ngrams(tokens: Sequence[str], order: int) -> list[str]:
    """All n-grams of orders 1 to ``order``, words joined by one blank, by the place of their last word.

    At one place the shorter comes first, so the n-grams of the first k tokens are a prefix of the whole:
    ``["a", "b", "c"]`` at order 2 gives ``["a", "b", "a b", "c", "b c"]``.
    """
    return [
        " ".join(tokens[end - length : end])
        for end in range(1, len(tokens) + 1)
        for length in range(1, min(order, end) + 1)
    ]


def ngram_count(tokens: int, order: int) -> int:
    """How many :func:`ngrams` so many tokens make; so many stand before those that end at the next token."""
    few = min(tokens, order)
    return few * (few + 1) // 2 + (tokens - few) * order


# --- token -> hash --------------------------------------------------------------------------------
# The string projection of PRADO (Kaliamoorthi et al., EMNLP 2019) as its authors' code computes it.

_MASK = (1 << 64) - 1
_K1 = 0xC6A4A7935BD1E995
_K2 = 0x9E3779B97F4A7835
_NULL = b"<null>"  # what an empty token, the unknown word of a hashing model, is hashed as
MAX_WIDTH = 4096  # features of one ternary vector

# The four ternary digits in one byte of hash, low bits first: 00 -> 0, 01 -> +1, 10 -> -1, 11 -> 0.
_DIGITS = np.array([[(0, 1, -1, 0)[byte >> shift & 3] for shift in (0, 2, 4, 6)] for byte in range(256)], np.int8)


def _mixed(value: int) -> int:
    return value ^ value >> 47


@lru_cache(maxsize=1 << 16)
def hash128(token: str) -> tuple[int, int]:
    """128 bits of a token's UTF-8 bytes, as two unsigned 64-bit words (low, high); ``""`` hashes as ``<null>``.

    Bytes count as unsigned. The original reads them through C's plain ``char``, which extends the sign of
    bytes from 0x80 up on x86 and does not on ARM; ASCII tokens are the same under both.
    """
    data = token.encode("utf-8", "surrogatepass") or _NULL
    whole = len(data) & ~7
    low = len(data) * _K1 & _MASK
    high = 0
    for start in range(0, whole, 8):
        block = int.from_bytes(data[start : start + 8], "little")
        low ^= _mixed(block * _K1 & _MASK) * _K1 & _MASK
        low = low * _K1 & _MASK
        high ^= low
    if whole < len(data):
        low ^= int.from_bytes(data[whole:], "little")
        low = low * _K1 & _MASK
        high ^= low
    low = _mixed(low) * _K1 & _MASK
    high ^= low
    return _mixed(low), _mixed(high * _K2 & _MASK) * _K2 & _MASK


def ternary(tokens: Sequence[str], width: int) -> np.ndarray:
    """``width`` features in {-1, 0, 1} a token (half of them 0), int8 [tokens width]; ``width`` is 1 to 4096.

    The narrower vector of a token is a prefix of the wider. Whole tokens are hashed, not their letters: one
    typo gives an unrelated vector.
    """
    if not 1 <= width <= MAX_WIDTH:
        raise ValueError(f"a ternary vector has 1 to {MAX_WIDTH} features, got width {width}")
    hashes = np.array([hash128(token) for token in tokens], np.uint64).reshape(-1, 2)
    low, high = hashes[:, 0], hashes[:, 1]
    words = [low, high]  # 32 features each
    shift, k1, k2 = np.uint64(47), np.uint64(_K1), np.uint64(_K2)  # products of uint64 arrays wrap, as they must
    while 32 * len(words) < width:
        low = (low ^ low >> shift) * k1
        high = high ^ low
        low, high = low ^ low >> shift, high * k2
        high = (high ^ high >> shift) * k2
        words += [low, high]
    octets = np.stack(words, axis=1).astype("<u8").view(np.uint8)  # [tokens 8*words], low byte first
    return np.ascontiguousarray(_DIGITS[octets].reshape(len(hashes), 32 * len(words))[:, :width])


def bucket(token: str, rows: int) -> int:
    """The row of a hashed table that a token falls into: the low hash word modulo ``rows``."""
    return hash128(token)[0] % rows


# --- training noise -------------------------------------------------------------------------------


def distort(tokens: Sequence[str], rng: random.Random, probability: float) -> list[str]:
    """The tokens of one text, each misspelt with ``probability``: PRADO's training noise.

    A misspelt token loses a character, has a character moved (only if it has three or more), or receives
    the character that was last removed or moved in this text (nothing before there is one), one third each.
    A token may become ``""``, which hashing models read as the unknown word.
    """
    distorted = []
    memory = ""
    for token in tokens:
        if token and rng.random() < probability:
            kind = rng.randrange(3)
            place = rng.randrange(len(token))
            rest = token[:place] + token[place + 1 :]
            if kind == 0:
                memory, token = token[place], rest
            elif kind == 1 and len(token) > 2:
                memory = token[place]
                target = rng.randrange(len(rest))
                token = rest[:target] + memory + rest[target:]
            elif kind == 2:
                token = token[:place] + memory + token[place:]
        distorted.append(token)
    return distorted
