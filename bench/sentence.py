"""A text as an attack sees it: its words, what may stand in their places, and what an edit script makes of it.

Words are those of TextAttack 0.3.11, so that "word 7" means the same here as in the literature's most used
tool. A script of edits names words of the original text and changes exactly their spans: white space and
punctuation survive. What a threat allows is decided here, once, for the attack that searches, for the engine
that judges and for the verifier that replays.

Two distances are used. Whole texts: Levenshtein. Typos: Damerau-Levenshtein in its unrestricted form
(Lowrance and Wagner 1975), a metric; the better known optimal string alignment is none, since it forbids to
edit a transposed pair again. A typo never moves or changes anything but ASCII letters, so its distance is
summed over the runs of letters between the other characters of the word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_letters, ascii_lowercase, ascii_uppercase
from typing import Protocol

from rapidfuzz.distance import DamerauLevenshtein, Levenshtein

from grit.bench.datasets import data_folders
from grit.bench.types import CouldNotMeasure, Edit, Script, Threat, UsageError

# --- words ------------------------------------------------------------------------------------------

# TextAttack keeps runs of Unicode word characters, of '-_*@ and of a list of look-alike letters. All of that
# list are word characters anyway but three: modifier minus, grave accent, multiplication sign.
_RUN = re.compile(r"[\w'\-*@\u02D7\u0060\u00D7]+")
_EDGES = "'-_*@"  # part of a word only inside it

SPACES = ("synonyms", "synonyms_same_pos", "lemmas", "typos", "characters", "vocabulary", "any")


def word_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of every attackable word: ``don't`` and ``well-known`` are one, ``U.S.`` is two.

    TextAttack cuts Chinese with a segmenter first; here a run of Chinese characters is one word.
    """
    spans = []
    for match in _RUN.finditer(text):
        run = match.group()
        start = match.start() + len(run) - len(run.lstrip(_EDGES))
        end = match.end() - len(run) + len(run.rstrip(_EDGES))
        if start < end:
            spans.append((start, end))
    return spans


def words_of(text: str) -> list[str]:
    """The attackable words of a text, case kept."""
    return [text[start:end] for start, end in word_spans(text)]


def transfer_case(word: str, pattern: str) -> str:
    """``word`` written like ``pattern``: UPPER if that is (and longer than one letter), else Capitalised if that is."""
    if len(pattern) > 1 and pattern.isupper():
        return word.upper()
    if pattern[:1].isupper():
        return word[:1].upper() + word[1:]
    return word


# --- distances --------------------------------------------------------------------------------------


def levenshtein(a: str, b: str) -> int:
    """Insertions, deletions and substitutions between two strings."""
    return Levenshtein.distance(a, b)


def damerau_levenshtein(a: str, b: str) -> int:
    """As :func:`levenshtein`, and a transposition of neighbours costs one: the unrestricted form, a metric."""
    return DamerauLevenshtein.distance(a, b)


_TYPO_LETTERS = 10_000  # letters edited times length of the word: all of a word of 100 letters

_NOT_LETTERS = re.compile("[^A-Za-z]")


def typo_distance(word: str, typo: str) -> int | None:
    """Damerau-Levenshtein distance with all but ASCII letters untouched and in place; None if they are not."""
    if _NOT_LETTERS.findall(word) != _NOT_LETTERS.findall(typo):
        return None
    runs, changed = _NOT_LETTERS.split(word), _NOT_LETTERS.split(typo)
    return sum(damerau_levenshtein(a, b) for a, b in zip(runs, changed, strict=True) if a != b)


@lru_cache(maxsize=4096)
def typos(word: str) -> tuple[str, ...]:
    """Every string one letter edit away, in the order of the strings' likelihood to be words themselves.

    Deletions, transpositions, substitutions, insertions, each from left to right; a written letter has the
    case of the letter it replaces or follows. Only ASCII letters take part, the empty string and the word
    itself are left out, and a word without letters has no typos. Of a word of more than 100 characters only the
    first letters are edited, fewer the longer it is: all its typos together take no more memory than those of
    a word of 100, instead of the square of its length.
    """
    letters = [i for i, character in enumerate(word) if character in ascii_letters]
    letters = letters[: max(1, _TYPO_LETTERS // max(1, len(word)))]
    found: dict[str, None] = {}
    for i in letters:
        found.setdefault(word[:i] + word[i + 1 :])
    for i in letters:
        if word[i + 1 : i + 2] and word[i + 1] in ascii_letters:
            found.setdefault(word[:i] + word[i + 1] + word[i] + word[i + 2 :])
    for i in letters:
        for letter in _alphabet(word[i]):
            found.setdefault(word[:i] + letter + word[i + 1 :])
    for i in letters:
        if i == 0 or word[i - 1] not in ascii_letters:  # before a run of letters
            for letter in _alphabet(word[i]):
                found.setdefault(word[:i] + letter + word[i:])
        for letter in _alphabet(word[i]):
            found.setdefault(word[: i + 1] + letter + word[i + 1 :])
    found.pop(word, None)
    found.pop("", None)
    return tuple(found)


def _alphabet(letter: str) -> str:
    return ascii_lowercase if letter in ascii_lowercase else ascii_uppercase


# --- one text under one threat ------------------------------------------------------------------------


class Lexicon(Protocol):
    """What a text asks of a lexicon; the lexicons themselves live in their own room. Answers are remembered."""

    def __hash__(self) -> int: ...

    def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]: ...


class Text:
    """One text under one threat: the concrete :class:`grit.bench.types.Sentence`.

    ``words`` and their ``spans`` are fixed at construction; ``pieces`` are the parts between blanks, the units
    in which a separable model reads; ``max_edits`` words may change. Answers about candidates are remembered.

    ``lexicon`` may be None where the threat holds no synonyms; ``vocabulary`` is the space of that name.
    """

    __slots__ = (
        "_candidates",
        "_facts",
        "_lexicon",
        "_piece_of",
        "_stop_words",
        "_tags",
        "max_edits",
        "piece_spans",
        "pieces",
        "spans",
        "text",
        "threat",
        "vocabulary",
        "words",
    )

    def __init__(
        self,
        text: str,
        threat: Threat,
        lexicon: Lexicon | None = None,
        *,
        stop_words: frozenset[str] = frozenset(),
        vocabulary: Sequence[str] = (),
    ) -> None:
        unknown = [space for space in threat.spaces if space not in SPACES]
        if unknown:
            raise UsageError(f"unknown space {unknown[0]!r} in a threat; the spaces are {', '.join(SPACES)}")
        self.text = text
        self.threat = threat
        self.spans = tuple(word_spans(text))
        self.words = tuple([text[start:end] for start, end in self.spans])
        self.max_edits = max(1, int(threat.max_words * len(self.words) + 1e-9)) if self.words else 0
        self.pieces = tuple(text.split(" "))
        self.piece_spans = _piece_spans(self.pieces)
        self._piece_of = _pieces_of_words(self.piece_spans, self.spans)
        self._lexicon = lexicon
        self._stop_words = stop_words
        self.vocabulary = vocabulary
        self._candidates: dict[int, tuple[str, ...]] = {}
        self._facts: dict[Edit, tuple[int, str | None]] = {}  # of well-formed edits: see _fact
        self._tags: list[str | None] | None = None

    # What may stand in a word's place.

    def candidates(self, index: int) -> tuple[str, ...]:
        """Replacements of word ``index`` from the threat's enumerable spaces, in the order of ``threat.spaces``.

        Of ``typos`` and ``characters`` these are the strings one letter edit away. A protected stop word has none.
        """
        known = self._candidates.get(index)
        if known is None:
            word = self.words[index]
            found: dict[str, None] = {}
            if not self.protected(index):
                for space in self.threat.spaces:
                    found.update(dict.fromkeys(self._space(space, index)))
            found.pop(word, None)
            known = self._candidates[index] = tuple(found)
        return known

    def typos(self, word: str) -> tuple[str, ...]:
        """Every string one letter edit away from any ``word``: for searches that edit a changed word again."""
        return typos(word)

    def protected(self, index: int) -> bool:
        """Whether word ``index`` is a stop word the threat protects (compared as it stands, so ``The`` is none)."""
        return self.threat.protect_stop_words and self.words[index] in self._stop_words

    def _space(self, space: str, index: int) -> Sequence[str]:
        word = self.words[index]
        if space in ("typos", "characters"):
            return typos(word)
        if space == "vocabulary":
            return self.vocabulary
        if space == "any":
            return ()  # nothing that could be listed
        if self._lexicon is None:
            raise UsageError(f"the threat's space {space!r} needs a lexicon, got none; name one, as in pwws+thesaurus")
        if space == "lemmas":
            return _lemmas(self._lexicon, word)
        pos = self._tag(index) if space == "synonyms_same_pos" else None
        if space == "synonyms_same_pos" and pos is None:
            return ()
        return _synonyms(self._lexicon, word, pos)

    def _tag(self, index: int) -> str | None:
        """The part of speech of a word in this text (n, v, a, r) or None, by nltk's averaged perceptron."""
        if self._tags is None:
            self._tags = _parts_of_speech(self.words)
        return self._tags[index]

    # What a script makes of the text.

    def apply(self, script: Script) -> str:
        """The text under a script: exactly the named spans change; an inserted word brings one blank with it."""
        if any(edit.op == "unknown" for edit in script):
            raise ValueError("an unknown word has no spelling: only a victim can read it")
        return self.segments(0, len(self.text), script)[0]

    def segments(self, start: int, stop: int, edits: Script) -> list[str]:
        """``text[start:stop]`` under the edits of its words; between two segments stands one unknown word."""
        text, spans = self.text, self.spans
        parts: list[str] = []
        segments = []
        place = start
        for op, index, word in edits:
            if op == "insert":
                if index < len(spans):
                    parts += (text[place : spans[index][0]], word, " ")
                    place = spans[index][0]
                else:
                    parts += (text[place:stop], " " if stop else "", word)
                    place = stop
                continue
            begin, end = spans[index]
            parts.append(text[place:begin])
            place = end
            if op == "unknown":
                segments.append("".join(parts))
                parts = []
            elif op == "replace":
                parts.append(word)
        parts.append(text[place:stop])
        segments.append("".join(parts))
        return segments

    def piece_of(self, index: int) -> int:
        """The piece that holds word ``index``; an appended word (index = number of words) belongs to the last."""
        return self._piece_of[index] if index < len(self._piece_of) else len(self.pieces) - 1

    # What a script may be.

    def malformed(self, script: Script) -> str | None:
        """Why a script makes no sense on this text, or None: order, range, one change a word, no white space."""
        last, last_op = -1, ""
        for edit in script:
            op, index, word = edit
            if op not in ("replace", "insert", "delete", "unknown"):
                return f"unknown operation {op!r}"
            if not 0 <= index < len(self.words) + (op == "insert"):
                return f"word {index} of {len(self.words)}"
            if index < last:
                return "not sorted by index"
            if index == last and last_op != "insert":
                return f"word {index} changed twice, or changed before an insertion"
            if op in ("replace", "insert") and (not word or word.split() != [word]):
                return f"{op} of word {index} writes {word!r}, not one word"
            last, last_op = index, op
        return None

    def violation(self, script: Script) -> str | None:
        """Why a script lies outside the threat, or None. Words that the spaces of the threat cannot hold are named."""
        if len(script) > self.max_edits:
            malformed = self.malformed(script)
            if malformed is not None:
                return f"malformed script: {malformed}"
            return f"{len(script)} words changed, at most {self.max_edits} of {len(self.words)} may"
        facts = self._facts
        last, distance, reason, checked = -1, 0, None, False
        for edit in script:
            fact = facts.get(edit)
            if not checked and (fact is None or edit[1] <= last):
                checked = True
                malformed = self.malformed(script)
                if malformed is not None:
                    return f"malformed script: {malformed}"
            if fact is None:
                fact = facts[edit] = self._fact(edit)
            last = edit[1]
            distance += fact[0]
            reason = reason or fact[1]
        if reason is not None:
            return reason
        limit = self.threat.max_text_distance
        # The sum over the words bounds the distance of the texts from above, so texts are compared near the limit only.
        if limit is not None and distance > limit:
            between = levenshtein(self.text, self.apply(script))
            if between > limit:
                return f"text distance {between}, at most {limit}"
        return None

    def allows(self, script: Script) -> bool:
        """Whether the threat holds a script."""
        return self.violation(script) is None

    def _fact(self, edit: Edit) -> tuple[int, str | None]:
        """How far an edit moves the text at most, and why no threat of this kind holds it, or None.

        Only replacements are told how far, and only where a limit asks: all others count as beyond any limit.
        """
        limit, reason = self.threat.max_text_distance, self._illegal(edit)
        if limit is None or reason is not None:
            return 0, reason
        return levenshtein(self.words[edit.index], edit.word) if edit.op == "replace" else limit + 1, None

    def _illegal(self, edit: Edit) -> str | None:
        op, index, word = edit
        if op == "unknown" or (op != "replace" and "any" not in self.threat.spaces):
            return f"{op} is no change this threat allows"
        if op == "insert":
            return None
        original = self.words[index]
        if op == "replace" and word == original:
            return f"word {index} is replaced by itself"
        if self.protected(index):
            return f"word {index} is a stop word"
        # Spelling first: a lexicon may have to be opened, and what one space holds, the threat holds.
        for space in sorted(self.threat.spaces, key=lambda space: space not in ("any", "typos", "characters")):
            if space == "any":
                return None
            if space == "typos":
                distance = typo_distance(original, word)
                letters = sum(character in ascii_letters for character in original)
                if distance is not None and distance <= (self.threat.typo_distance if letters >= 5 else 1):
                    return None
            elif space == "characters":
                if _RUN.fullmatch(word):
                    return None
            elif word in self._space(space, index):
                return None
        return f"word {index}: {word!r} is in none of {', '.join(self.threat.spaces)} of {original!r}"


def composed(base: Script, edit: Edit) -> Script:
    """``base`` with one more edit, in order; the edit takes the place of one of the same word."""
    kept = [old for old in base if old.index != edit.index or "insert" in (old.op, edit.op)]
    return tuple(sorted([*kept, edit], key=lambda e: (e.index, e.op != "insert")))


def violation(
    threat: Threat,
    lexicon: Lexicon | None,
    text: str,
    script: Script,
    *,
    stop_words: frozenset[str],
    vocabulary: Sequence[str] = (),
) -> str | None:
    """Why a script lies outside the threat set of one text, or None: what a verifier asks of a claimed break."""
    return Text(text, threat, lexicon, stop_words=stop_words, vocabulary=vocabulary).violation(script)


@lru_cache(maxsize=1 << 14)
def _lemmas(lexicon: Lexicon, word: str) -> tuple[str, ...]:
    """The single words of a lexicon's entry as listed, whatever the case of the word: TextAttack's reading of it."""
    return tuple(name for name in lexicon.synonyms(word) if "_" not in name and len(word_spans(name)) == 1)


@lru_cache(maxsize=1 << 14)
def _synonyms(lexicon: Lexicon, word: str, pos: str | None) -> tuple[str, ...]:
    """The single words of a lexicon's entry in the case of the word."""
    written = [transfer_case(name, word) for name in lexicon.synonyms(word, pos)]
    return tuple(name for name in written if name.lower() != word.lower() and _one_word(name))


def _one_word(name: str) -> bool:
    spans = word_spans(name)
    return len(spans) == 1 and spans[0] == (0, len(name)) and "_" not in name


def _piece_spans(pieces: Sequence[str]) -> tuple[tuple[int, int], ...]:
    spans = []
    start = 0
    for piece in pieces:
        spans.append((start, start + len(piece)))
        start += len(piece) + 1
    return tuple(spans)


def _pieces_of_words(pieces: Sequence[tuple[int, int]], words: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    found = []
    piece = 0
    for start, _ in words:
        while pieces[piece][1] <= start:
            piece += 1
        found.append(piece)
    return tuple(found)


_PENN = {"N": "n", "V": "v", "J": "a", "R": "r"}  # first letter of a Penn tag -> part of speech of a lexicon


def _parts_of_speech(words: Sequence[str]) -> list[str | None]:
    try:
        import nltk

        for folder in data_folders():
            if str(folder / "nltk_data") not in nltk.data.path:
                nltk.data.path.append(str(folder / "nltk_data"))
        return [_PENN.get(tag[:1]) if tag != "RP" else None for _, tag in nltk.pos_tag(list(words))]
    except (ImportError, LookupError) as error:
        raise CouldNotMeasure(
            "synonyms of the same part of speech need nltk's tagger, which is not on this machine; "
            "run python -m nltk.downloader averaged_perceptron_tagger_eng, or use another tier"
        ) from error
