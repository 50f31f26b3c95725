"""What an attacker may write over a word, and the one-step attack that training can afford each batch.

The ranked attacks replace a word by a synonym or a misspelling and pay a query for each try. Here all
candidates of all words are compared at once by first-order gain, grad_i . (features(new) - features(old))
(HotFlip: Ebrahimi et al., ACL 2018, section 3), at the price of one gradient pass a batch.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from grit.bench import lexicons
from grit.bench.objectives._passes import quiet
from grit.bench.objectives._words import UNKNOWN, Codebook, Split

SYNONYMS = 8  # of a word at a time; a word with more gets another draw each epoch
NEIGHBOURS = 4  # words of the texts that are one typo away: for a vocabulary model the worst typos
TYPOS = 4  # random misspellings, redrawn each epoch, for models that read any string
_AT_ONCE = 1 << 18  # numbers in the features of candidates compared together: a processor's cache holds them
COMMON = 2  # of a token seen less often only the unknown word is tried: nothing is learned from its typos


class Flips:
    """Candidates of every word of the training texts, as rows: ``table`` [rows candidates].

    The space follows the ranked threat model: stop words and punctuation stand; a word becomes a synonym
    or a misspelling. To a model with a vocabulary nearly all misspellings are its unknown word, so that
    one stands for them all, beside the misspellings that are known words. A model that hashes sees a new
    word in each, so it gets random ones.
    """

    def __init__(self, codebook: Codebook, train: Split, lexicon: str, seed: int) -> None:
        words = codebook.words
        self.codebook = codebook
        self.base = len(words)
        self._seed = seed
        self._epoch = -1
        stop = lexicons.stop_words()
        self.wordlike = np.array([any(map(str.isalnum, token)) for token in words.strings])
        self.open = self.wordlike & np.array([token not in stop for token in words.strings])
        common = np.flatnonzero(self.open & (train.counts(self.base) >= COMMON))
        self._synonyms = _synonyms(codebook, common, lexicon)
        fixed = np.tile(np.arange(self.base, dtype=np.int32)[:, None], NEIGHBOURS)
        self._near = _neighbours(words.strings, common, train.counts(self.base))
        for row, others in self._near.items():
            fixed[row, : len(others[:NEIGHBOURS])] = others[:NEIGHBOURS]
        self._hashes = not codebook.model.vocabulary  # so every string is a word to it
        self._misspelt = common if self._hashes else common[:0]
        if self._hashes:
            self._block = words.reserve(len(common) * TYPOS)
            self._fixed = fixed
        else:
            anything = np.where(self.open, UNKNOWN, np.arange(self.base)).astype(np.int32)
            self._fixed = np.concatenate([anything[:, None], fixed], 1)
        self.table = self._fixed
        self.renew(0)

    def renew(self, epoch: int) -> None:
        """Another draw of synonyms and misspellings; the same one for the same seed and epoch."""
        if epoch == self._epoch:
            return
        self._epoch = epoch
        rng = random.Random(f"flips {self._seed} {epoch}")
        own = np.arange(self.base, dtype=np.int32)[:, None]
        synonyms = np.tile(own, SYNONYMS)
        for row, others in self._synonyms.items():
            drawn = others if len(others) <= SYNONYMS else rng.sample(others, SYNONYMS)
            synonyms[row, : len(drawn)] = drawn
        columns = [self._fixed, synonyms]
        if self._hashes:
            strings = self.codebook.words.strings
            tokens = [misspelt(strings[row], rng) for row in self._misspelt for _ in range(TYPOS)]
            self.codebook.words.rewrite(self._block, tokens)
            typos = np.tile(own, TYPOS)
            typos[self._misspelt] = self._block + np.arange(len(tokens), dtype=np.int32).reshape(-1, TYPOS)
            columns.append(typos)
        self.table = np.concatenate(columns, 1)

    def budgets(self, rows: np.ndarray, lengths: torch.Tensor, share: float) -> np.ndarray:
        """The most words of each text that may change: ``share`` of them, at least one; [batch]."""
        inside = np.arange(rows.shape[1]) < lengths.numpy()[:, None]
        words = (self.wordlike[np.minimum(rows, self.base - 1)] & inside).sum(1)
        return np.maximum(1, np.floor(share * words + 1e-9).astype(np.int64))

    def write(
        self,
        rows: np.ndarray,
        lengths: torch.Tensor,
        gradient: torch.Tensor,
        budgets: np.ndarray,
        standing: np.ndarray | None = None,
    ) -> np.ndarray:
        """The rows with the ``budgets`` most gainful words replaced by their most gainful candidate: [batch seq].

        ``gradient`` [batch seq feat] is the slope of the attack margin; only rises are written. ``standing``
        (booleans [batch seq]) are words not to touch, as those written before.
        """
        free = self._free(rows, lengths)
        if standing is not None:
            free &= ~standing
        # Twice the budget of positions, those with the steepest gradient, so that wide features stay affordable. A
        # mean is as steep in every place, which says nothing about any.
        steep = np.where(free, gradient.norm(dim=-1).numpy(), -1.0)
        level = (steep == steep.max(axis=1, keepdims=True, initial=-1.0))[free].all()
        n = rows.shape[1] if level else int(min(rows.shape[1], 2 * budgets.max()))
        if not n:
            return rows.copy()
        places = np.argsort(-steep, axis=1, kind="stable")[:, :n]
        here = np.take_along_axis(rows, places, 1)
        usable = np.take_along_axis(free, places, 1)
        candidates = self.table[np.where(usable, here, 0)]  # [batch n candidates]
        at = torch.from_numpy(places)[..., None].expand(-1, -1, gradient.shape[-1])
        slopes = gradient.gather(1, at).flatten(0, 1)
        # A word with fewer candidates than there is room for stands for itself in the rest, and rises by nothing.
        other = usable[..., None] & (candidates != here[..., None])
        owner = np.flatnonzero(usable).repeat(other.sum(-1)[usable])
        rise = np.zeros(candidates.shape)
        rise[other] = self._heights(candidates[other], slopes, owner)
        rise[other] -= self._heights(here.ravel(), slopes, np.arange(here.size))[owner]
        choice, gains = rise.argmax(-1), np.where(usable, rise.max(-1), -np.inf)
        rank = np.argsort(np.argsort(-gains, axis=1, kind="stable"), axis=1, kind="stable")
        chosen = (gains > 0) & (rank < budgets[:, None])
        best = np.take_along_axis(candidates, choice[..., None], 2)[..., 0]
        written = rows.copy()
        np.put_along_axis(written, places, np.where(chosen, best, here), 1)
        return written

    def best(self, rows: np.ndarray, lengths: torch.Tensor, gradient: torch.Tensor) -> np.ndarray:
        """In every place the most gainful of all candidates, the word itself where none rises: [batch seq].

        ``gradient`` [batch seq feat] is the slope of what is to rise.
        """
        texts, places = np.nonzero(self._free(rows, lengths))
        if not len(texts):
            return rows
        flat, ends = self._every
        starts, counts = ends[rows[texts, places]], np.diff(ends)[rows[texts, places]]
        owner = np.arange(len(texts)).repeat(counts)
        last = counts.cumsum()
        written = flat[starts.repeat(counts) + np.arange(len(owner)) - (last - counts).repeat(counts)]
        height = self._heights(written, gradient[texts, places], owner)
        best = rows.copy()
        best[texts, places] = written[np.lexsort((height, owner))[last - 1]]  # of each place, the highest
        return best

    def scatter(self, rows: np.ndarray, lengths: torch.Tensor, budgets: np.ndarray, rng: random.Random) -> np.ndarray:
        """The control of :meth:`write`: random words replaced by random candidates, without a gradient."""
        written = rows.copy()
        for line, (length, budget) in enumerate(zip(lengths.tolist(), budgets.tolist(), strict=True)):
            free = [place for place in range(length) if rows[line, place] < self.base and self.open[rows[line, place]]]
            for place in rng.sample(free, min(budget, len(free))):
                others = self.table[rows[line, place]]
                others = others[others != rows[line, place]]
                if len(others):
                    written[line, place] = others[rng.randrange(len(others))]
        return written

    @cached_property
    def _every(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each row all candidates, not only the draw of an epoch, and itself: one behind the other, and the ends."""
        lists = []
        for row in range(self.base):
            others = {row, *self._near.get(row, ()), *self._synonyms.get(row, ())}
            if self.open[row] and not self._hashes:
                others.add(UNKNOWN)
            lists.append(sorted(others))
        if self._hashes:
            for number, row in enumerate(self._misspelt.tolist()):
                lists[row] += range(self._block + number * TYPOS, self._block + (number + 1) * TYPOS)
        return np.concatenate(lists).astype(np.int32), np.cumsum([0, *map(len, lists)])

    def _free(self, rows: np.ndarray, lengths: torch.Tensor) -> np.ndarray:
        """Places whose word an attacker may change: booleans [batch seq]."""
        inside = np.arange(rows.shape[1]) < lengths.numpy()[:, None]
        known = rows < self.base
        return inside & known & self.open[np.where(known, rows, 0)]

    def _heights(self, rows: np.ndarray, slopes: torch.Tensor, owner: np.ndarray) -> np.ndarray:
        """The features of each word times the slope of the place it is for: slopes [places feat] -> [words]."""
        model, some = self.codebook.model, max(1, _AT_ONCE // slopes.shape[-1])
        heights = []
        with quiet(model), torch.no_grad():
            for start in range(0, len(rows), some):
                features = model.features(self.codebook.codes(rows[start : start + some]))
                heights.append((features * slopes[torch.from_numpy(owner[start : start + some])]).sum(-1).numpy())
        return np.concatenate([np.empty(0), *heights])


def misspelt(token: str, rng: random.Random) -> str:
    """One random typo: two neighbours swapped, or a letter replaced, dropped or inserted."""
    place = rng.randrange(len(token))
    kind = rng.randrange(4)
    letter = rng.choice(string.ascii_lowercase)
    if kind == 0 and place + 1 < len(token):
        return token[:place] + token[place + 1] + token[place] + token[place + 2 :]
    if kind == 1 and len(token) > 1:
        return token[:place] + token[place + 1 :]
    if kind == 2:
        return token[:place] + letter + token[place + 1 :]
    return token[:place] + letter + token[place:]


def _synonyms(codebook: Codebook, common: Sequence[int] | np.ndarray, lexicon: str) -> dict[int, list[int]]:
    """Row -> rows of its synonyms, those that the model reads as one token and not as the same one."""
    if not lexicon:
        return {}
    words, model = codebook.words, codebook.model
    source = lexicons.load(lexicon)
    tokens: dict[int, list[str]] = {}
    for row in map(int, common):
        cut = [model.tokenize(other) for other in source.synonyms(words.strings[row])]
        tokens[row] = list(dict.fromkeys(c[0] for c in cut if len(c) == 1 and c[0] != words.strings[row]))
    if isinstance(source, lexicons.WordNet):
        source.save()  # opening WordNet takes seconds, and the next training asks about the same words
    words.intern(list(dict.fromkeys(token for others in tokens.values() for token in others)))
    return {row: words.intern(others).tolist() for row, others in tokens.items() if others}


def _neighbours(strings: Sequence[str], common: np.ndarray, counts: np.ndarray) -> dict[int, list[int]]:
    """Row -> the other common rows within one typo, the most frequent first.

    Two words are one typo apart only if they share a form with at most one letter left out of each.
    """
    forms: dict[str, list[int]] = {}
    for row in map(int, common):
        token = strings[row]
        for form in {token, *(token[:place] + token[place + 1 :] for place in range(len(token)))}:
            forms.setdefault(form, []).append(row)
    near: dict[int, set[int]] = {}
    for rows in forms.values():
        for row in rows if len(rows) > 1 else ():
            near.setdefault(row, set()).update(
                other for other in rows if other != row and one_typo(strings[row], strings[other])
            )
    return {row: sorted(others, key=lambda other: (-counts[other], other)) for row, others in near.items() if others}


def one_typo(a: str, b: str) -> bool:
    """Whether one swap of neighbours, replacement, loss or insertion of a character makes ``b`` of ``a``."""
    if a == b or abs(len(a) - len(b)) > 1:
        return False
    start = next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    if len(a) < len(b):
        return a[start:] == b[start + 1 :]
    if len(a) > len(b):
        return a[start + 1 :] == b[start:]
    swapped = a[start : start + 2] == b[start : start + 2][::-1] and a[start + 2 :] == b[start + 2 :]
    return a[start + 1 :] == b[start + 1 :] or swapped
