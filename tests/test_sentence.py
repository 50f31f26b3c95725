"""Words, spans, distances, typos, scripts and threat sets: what every attack and every judge stands on."""

from __future__ import annotations

import itertools
import random
import re
import string

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from grit.bench import sentence
from grit.bench.sentence import (
    Text,
    damerau_levenshtein,
    levenshtein,
    typo_distance,
    typos,
    violation,
    word_spans,
    words_of,
)
from grit.bench.types import CouldNotMeasure, Edit, Threat, UsageError

TYPOS = Threat(spaces=("typos",), max_words=1.0)
SYNONYMS = Threat(spaces=("synonyms",), max_words=1.0)
NO_STOP_WORDS: frozenset[str] = frozenset()


class Table:
    """A lexicon of a test: word -> synonyms, whatever the part of speech, or one a part of speech."""

    def __init__(self, entries: dict[str, tuple[str, ...]]) -> None:
        self.entries = entries

    def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
        key = word.lower() if pos is None else f"{word.lower()}/{pos}"
        return self.entries.get(key, ())


def replace(index: int, word: str) -> Edit:
    return Edit("replace", index, word)


# --- words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("   ", []),
        ("...!? --- ''", []),
        ("A plain Sentence.", ["A", "plain", "Sentence"]),
        ("don't well-known", ["don't", "well-known"]),
        ("'quoted' -dash- _under_ *star* @home@", ["quoted", "dash", "under", "star", "home"]),
        ("U.S. U.S", ["U", "S", "U", "S"]),
        ("me@home.org a_b x*y", ["me@home", "org", "a_b", "x*y"]),
        ("3.5% of $40", ["3", "5", "of", "40"]),
        ("naïve café", ["naïve", "café"]),
        ("a\u00a0b\u2003c\x1dd", ["a", "b", "c", "d"]),
        ("`tick` 2\u00d72 \u02d7minus", ["`tick`", "2\u00d72", "\u02d7minus"]),
        ("emoji 🙂 stays", ["emoji", "stays"]),
        ("שלום עולם", ["שלום", "עולם"]),
        ("ab'-,'cd'", ["ab", "cd"]),
        ("-'-", []),
    ],
)
def test_words_are_those_of_textattack(text: str, words: list[str]) -> None:
    assert words_of(text) == words


PUNCTUATED = st.text(alphabet="abB1'-_*@. ,é`\u00d7\u00a0\t", max_size=24)


@given(PUNCTUATED)
def test_words_follow_the_rule_as_it_is_told(text: str) -> None:
    """Split at white space, strip the edges, find runs, strip again, drop empties: written out in five lines."""
    expected = []
    for piece in text.split():
        for run in re.findall(r"[\w\u02d7`\u00d7'\-*@]+", piece.strip("'-_*@")):
            expected.append(run.strip("'-_*@"))
    assert words_of(text) == [word for word in expected if word]


@given(PUNCTUATED)
def test_spans_are_found_by_a_left_to_right_search(text: str) -> None:
    place = 0
    for start, end in word_spans(text):
        assert text.index(text[start:end], place) == start
        place = end


@given(st.text(max_size=30))
def test_pieces_partition_any_text_and_hold_whole_words(text: str) -> None:
    made = Text(text, TYPOS)
    assert " ".join(made.pieces) == text
    for index, (start, end) in enumerate(made.spans):
        first, last = made.piece_spans[made.piece_of(index)]
        assert first <= start < end <= last


# --- distances --------------------------------------------------------------------------------------

WORD = st.text(alphabet="abc", max_size=7)


def plain_levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


def shortest_path(a: str, b: str, alphabet: str) -> int:
    """Edits from a to b by breadth-first search over insert, delete, substitute and transpose."""
    seen, frontier, steps = {a}, {a}, 0
    while b not in seen:
        steps += 1
        grown = set()
        for word in frontier:
            for i in range(len(word) + 1):
                grown |= {word[:i] + letter + word[i:] for letter in alphabet}
                grown |= {word[:i] + letter + word[i + 1 :] for letter in alphabet if i < len(word)}
                grown.add(word[:i] + word[i + 1 :])
                if i + 1 < len(word):
                    grown.add(word[:i] + word[i + 1] + word[i] + word[i + 2 :])
        frontier = grown - seen
        seen |= grown
    return steps


def test_levenshtein_of_all_short_strings() -> None:
    short = ["".join(letters) for length in range(4) for letters in itertools.product("abc", repeat=length)]
    assert all(levenshtein(a, b) == plain_levenshtein(a, b) for a in short for b in short)


@given(st.text(alphabet="abcd", max_size=90), st.text(alphabet="abcd", max_size=90))
def test_levenshtein_is_that_of_the_table(a: str, b: str) -> None:
    assert levenshtein(a, b) == plain_levenshtein(a, b)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["a", "ab", "bab", "abba", ""])), max_size=12))
def test_the_distance_of_a_script_does_not_depend_on_what_was_asked_before(steps: list[tuple[int, str]]) -> None:
    """An edit at a time, as a search walks: at a new word, at the same one again, taken back, deleted."""
    text = Text("abab ba, aab bb-a (b)", Threat(spaces=("any",), max_words=1.0, max_text_distance=3))
    edits: dict[int, Edit] = {}
    for index, word in steps:
        if edits.get(index) == Edit("replace", index, word):
            del edits[index]
        else:
            edits[index] = Edit("replace", index, word) if word else Edit("delete", index)
        script = tuple(sorted(edits.values(), key=lambda edit: edit.index))
        beyond = plain_levenshtein(text.text, text.apply(script)) > 3
        violation = text.violation(script)
        assert violation == Text(text.text, text.threat).violation(script)
        assert ("text distance" in (violation or "")) <= beyond and (violation is not None or not beyond)


@given(st.text(alphabet="ab", max_size=4), st.text(alphabet="ab", max_size=4))
def test_damerau_levenshtein_is_the_shortest_path_of_edits(a: str, b: str) -> None:
    """Unlike optimal string alignment, which puts "ca" -> "abc" at 3."""
    assert damerau_levenshtein(a, b) == shortest_path(a, b, "ab")


@pytest.mark.parametrize(
    ("a", "b", "plain", "transposing"),
    [("", "", 0, 0), ("a", "", 1, 1), ("ca", "abc", 3, 2), ("abcd", "abdc", 2, 1), ("kitten", "sitting", 3, 3)],
)
def test_known_distances(a: str, b: str, plain: int, transposing: int) -> None:
    assert levenshtein(a, b) == levenshtein(b, a) == plain
    assert damerau_levenshtein(a, b) == damerau_levenshtein(b, a) == transposing


@given(WORD, WORD, WORD)
def test_both_distances_are_metrics(a: str, b: str, c: str) -> None:
    for distance in (levenshtein, damerau_levenshtein):
        assert (distance(a, b) == 0) == (a == b)
        assert distance(a, b) == distance(b, a)
        assert distance(a, c) <= distance(a, b) + distance(b, c)


@given(WORD, WORD, st.text(alphabet="abc'", max_size=3), st.text(alphabet="abc'", max_size=3))
def test_common_ends_change_no_distance(a: str, b: str, head: str, tail: str) -> None:
    assert levenshtein(head + a + tail, head + b + tail) == levenshtein(a, b)
    assert damerau_levenshtein(head + a + tail, head + b + tail) == damerau_levenshtein(a, b)


def test_a_long_text_that_differs_in_one_word_costs_what_the_word_costs() -> None:
    text = "word " * 20_000
    assert levenshtein(text + "horse" + text, text + "house" + text) == 1


# --- typos ------------------------------------------------------------------------------------------


@given(st.text(alphabet="abzABZ'-1é", min_size=1, max_size=6))
def test_typos_are_the_strings_at_typo_distance_one(word: str) -> None:
    found = typos(word)
    assert len(set(found)) == len(found)
    assert word not in found and "" not in found
    assert all(typo_distance(word, typo) == 1 for typo in found)


def test_typos_of_an_endless_word_take_no_more_memory_than_those_of_a_long_one() -> None:
    """A file may hold a word of any length; all typos of all of its letters would be the square of that."""
    normal = sum(map(len, typos("ab" * 50)))
    for length in (200, 2_000, 20_000):
        found = typos("ab" * (length // 2))
        assert found and sum(map(len, found)) <= 2 * normal + 90 * length
        assert all(typo_distance("ab" * (length // 2), typo) == 1 for typo in found[:3])
    assert len(typos("ab" * 50)) > 5_000  # every letter of a word of a hundred


def test_typos_are_complete_in_the_case_of_their_neighbours() -> None:
    word = "bad"
    letters = string.ascii_lowercase
    everything = {word[:i] + word[i + 1 :] for i in range(3)} | {"abd", "bda"}
    everything |= {word[:i] + letter + word[i + 1 :] for i in range(3) for letter in letters}
    everything |= {word[:i] + letter + word[i:] for i in range(4) for letter in letters}
    assert set(typos(word)) == everything - {word}
    assert typos(word)[:5] == ("ad", "bd", "ba", "abd", "bda")  # deletions and transpositions come first
    assert set("".join(typos("USA"))) <= set(string.ascii_uppercase)
    assert "Xad" in typos("Bad") and "Bxad" not in typos("bad")


@pytest.mark.parametrize("word", ["1999", "é", "'", "漢字"])
def test_what_has_no_ascii_letter_has_no_typo(word: str) -> None:
    assert typos(word) == ()


@pytest.mark.parametrize(
    ("word", "typo", "distance"),
    [
        ("don't", "dont", None),  # punctuation is untouched
        ("don't", "do'nt", 2),  # a letter deleted here and inserted there: the apostrophe has not moved
        ("don't", "odn't", 1),
        ("well-known", "well-nkown", 1),
        ("well-known", "wel-nown", 2),
        ("A1", "B1", 1),
        ("A1", "A2", None),
        ("ca", "abc", 2),
        ("café", "cafe", None),
    ],
)
def test_typo_distance_counts_letters_and_refuses_the_rest(word: str, typo: str, distance: int | None) -> None:
    assert typo_distance(word, typo) == distance


# --- candidates -------------------------------------------------------------------------------------


def test_candidates_take_the_case_of_the_word() -> None:
    lexicon = Table({"good": ("fine", "decent", "GOOD", "well off", "so-so", "a.k.a", "goody_goody")})
    text = Text("good Good GOOD", SYNONYMS, lexicon)
    assert text.candidates(0) == ("fine", "decent", "so-so")
    assert text.candidates(1) == ("Fine", "Decent", "So-so")
    assert text.candidates(2) == ("FINE", "DECENT", "SO-SO")


def test_lemmas_stand_as_listed() -> None:
    """TextAttack's candidates: any one word but the word itself, so a word's own lower case is one."""
    lexicon = Table({"may": ("May", "Crataegus_laevigata", "may", "a.b", "Jr.")})
    assert Text("May", Threat(spaces=("lemmas",)), lexicon).candidates(0) == ("may", "Jr.")


def test_spaces_are_listed_in_the_order_of_the_threat_without_doubles() -> None:
    threat = Threat(spaces=("vocabulary", "synonyms", "typos"))
    text = Text("cat", threat, Table({"cat": ("bat", "lynx")}), vocabulary=("bat", "cat", "dog"))
    assert text.candidates(0)[:3] == ("bat", "dog", "lynx")
    assert text.candidates(0)[3] == "at"
    assert len(set(text.candidates(0))) == len(text.candidates(0)) == 3 + len(typos("cat")) - 1


def test_stop_words_are_protected_as_they_stand() -> None:
    stop_words = frozenset({"the"})
    text = Text("the The", TYPOS, stop_words=stop_words)
    assert text.protected(0) and text.candidates(0) == ()
    assert not text.protected(1) and text.candidates(1)
    unprotected = Threat(spaces=("typos",), protect_stop_words=False)
    assert Text("the", unprotected, stop_words=stop_words).candidates(0)


def test_part_of_speech_narrows_the_synonyms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence, "_parts_of_speech", lambda words: ["n", None])
    lexicon = Table({"bank/n": ("shore",), "bank/v": ("rely",), "bank": ("shore", "rely")})
    text = Text("bank bank", Threat(spaces=("synonyms_same_pos",), max_words=1.0), lexicon)
    assert text.candidates(0) == ("shore",)
    assert text.candidates(1) == ()
    assert text.allows((replace(0, "shore"),)) and not text.allows((replace(0, "rely"),))


def test_the_tagger_tells_verbs_from_nouns(real_data: object) -> None:
    tags = sentence._parts_of_speech(("she", "will", "quickly", "record", "a", "new", "song"))
    assert tags[2:4] == ["r", "v"] and tags[5:] == ["a", "n"]


def test_a_missing_tagger_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    nltk = pytest.importorskip("nltk")

    def missing(words: list[str]) -> None:
        raise LookupError("resource not found")

    monkeypatch.setattr(nltk, "pos_tag", missing)
    with pytest.raises(CouldNotMeasure, match="averaged_perceptron_tagger_eng"):
        sentence._parts_of_speech(("a",))


def test_a_threat_with_synonyms_needs_a_lexicon_and_known_spaces() -> None:
    with pytest.raises(UsageError, match="needs a lexicon"):
        Text("word", SYNONYMS).candidates(0)
    with pytest.raises(UsageError, match="unknown space 'telepathy'"):
        Text("word", Threat(spaces=("telepathy",)))


@pytest.mark.parametrize(
    ("words", "share", "edits"), [(0, 0.25, 0), (1, 0.25, 1), (7, 0.25, 1), (8, 0.25, 2), (100, 0.29, 29)]
)
def test_max_edits_is_a_share_and_at_least_one(words: int, share: float, edits: int) -> None:
    assert Text(" ".join(["w"] * words), Threat(spaces=("typos",), max_words=share)).max_edits == edits


# --- scripts ----------------------------------------------------------------------------------------


def test_apply_changes_exactly_the_spans() -> None:
    text = Text("  (Good) movies,\tdon't  'age'! ", TYPOS)
    assert text.words == ("Good", "movies", "don't", "age")
    assert text.apply((replace(0, "Bad"), replace(3, "die"))) == "  (Bad) movies,\tdon't  'die'! "
    assert text.apply((Edit("delete", 1),)) == "  (Good) ,\tdon't  'age'! "
    assert text.apply((Edit("insert", 1, "old"),)) == "  (Good) old movies,\tdon't  'age'! "
    assert text.apply((Edit("insert", 4, "never"),)) == "  (Good) movies,\tdon't  'age'!  never"
    assert text.apply((Edit("insert", 0, "so"), replace(0, "bad"))) == "  (so bad) movies,\tdon't  'age'! "
    assert Text("", TYPOS).apply((Edit("insert", 0, "word"),)) == "word"
    assert text.apply(()) == text.text


@given(st.text(alphabet="ab '.-", max_size=20), st.data())
def test_apply_is_splicing(raw: str, data: st.DataObject) -> None:
    text = Text(raw, TYPOS)
    chosen = data.draw(st.lists(st.sampled_from(range(len(text.words))), unique=True) if text.words else st.just([]))
    script = tuple(replace(index, "new") for index in sorted(chosen))
    expected = raw
    for index in sorted(chosen, reverse=True):
        start, end = text.spans[index]
        expected = expected[:start] + "new" + expected[end:]
    assert text.apply(script) == expected


def test_unknown_words_cut_a_text_into_segments() -> None:
    text = Text("(one) two.", TYPOS)
    script = (Edit("unknown", 0), Edit("unknown", 1))
    assert text.segments(0, len(text.text), script) == ["(", ") ", "."]
    with pytest.raises(ValueError, match="no spelling"):
        text.apply(script)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ((Edit("rewrite", 0, "x"),), "unknown operation"),  # type: ignore[arg-type]
        ((replace(3, "x"),), "word 3 of 3"),
        ((replace(-1, "x"),), "word -1 of 3"),
        ((Edit("insert", 4, "x"),), "word 4 of 3"),
        ((replace(1, "x"), replace(0, "y")), "not sorted"),
        ((replace(1, "x"), replace(1, "y")), "changed twice"),
        ((replace(1, "x"), Edit("insert", 1, "y")), "changed twice, or changed before an insertion"),
        ((replace(1, ""),), "not one word"),
        ((replace(1, "new york"),), "not one word"),
        ((Edit("insert", 1, "a\tb"),), "not one word"),
    ],
)
def test_malformed_scripts_are_told_apart(script: tuple[Edit, ...], reason: str) -> None:
    text = Text("one two three", TYPOS)
    assert reason in str(text.malformed(script))
    assert f"malformed script: {text.malformed(script)}" == text.violation(script)


def test_well_formed_scripts_need_not_be_legal() -> None:
    text = Text("one two three", TYPOS)
    insertions = (Edit("insert", 0, "a"), Edit("insert", 0, "b"))
    several = (*insertions, replace(0, "c"), Edit("delete", 2), Edit("insert", 3, "d"))
    assert text.malformed(several) is None
    assert "insert is no change this threat allows" == text.violation(several[:1])
    assert not text.allows((Edit("unknown", 0),))


# --- threat sets --------------------------------------------------------------------------------------


def test_too_many_words() -> None:
    text = Text("one two three four five six seven eight", Threat(spaces=("typos",), max_words=0.25))
    assert text.allows((replace(0, "on"), replace(1, "tow")))
    reason = text.violation((replace(0, "on"), replace(1, "tow"), replace(2, "tree")))
    assert reason == "3 words changed, at most 2 of 8 may"


def test_typos_of_short_and_long_words() -> None:
    text = Text("four seven", TYPOS)
    assert text.allows((replace(0, "fuor"),)) and not text.allows((replace(0, "fu"),))
    assert text.allows((replace(1, "sevn"),)) and text.allows((replace(1, "esvn"),))
    assert not text.allows((replace(1, "svn1"),))
    assert text.violation((replace(1, "seven"),)) == "word 1 is replaced by itself"
    assert "in none of typos of 'seven'" in str(text.violation((replace(1, "eleven's"),)))


@given(st.text(alphabet="abcdef", min_size=5, max_size=8), st.integers(0, 10**6))
def test_a_typo_of_a_typo_is_within_two_edits(word: str, seed: int) -> None:
    rng = random.Random(seed)
    once = rng.choice(typos(word))
    assume(typos(once))
    twice = rng.choice(typos(once))
    assert (Text(word, TYPOS).violation((replace(0, twice),)) is None) == (twice != word)


def test_characters_allow_any_word_characters() -> None:
    text = Text("word", Threat(spaces=("characters",)))
    assert text.allows((replace(0, "w\u043erd"),)) and text.allows((replace(0, "anything-else"),))
    assert not text.allows((replace(0, "a.b"),)) and not text.allows((replace(0, "🙂"),))


def test_membership_agrees_with_the_candidates() -> None:
    lexicon = Table({"good": ("fine", "decent"), "film": ("movie",)})
    threat = Threat(spaces=("synonyms", "typos", "vocabulary"), max_words=1.0)
    text = Text("Good film of the year", threat, lexicon, stop_words=frozenset({"of", "the"}), vocabulary=("epic",))
    for index in range(len(text.words)):
        assert all(text.allows((replace(index, word),)) for word in text.candidates(index))
    assert not text.allows((replace(0, "fine"),))  # not in the case of the word
    assert text.violation((replace(2, "off"),)) == "word 2 is a stop word"


def test_the_distance_of_whole_texts() -> None:
    threat = Threat(spaces=("characters",), max_words=1.0, max_text_distance=4)
    text = Text("abcd efgh ijkl", threat)
    assert text.allows((replace(0, "xbcd"), replace(1, "xfgh"), replace(2, "xykl")))
    assert not text.allows((replace(0, "xbcd"), replace(1, "xfgh"), replace(2, "xyzl")))
    assert text.violation((replace(0, "wxyz"), replace(1, "w"))) == "text distance 8, at most 4"


def test_neighbouring_changes_may_cost_less_together_than_apart() -> None:
    """Sums over words only bound the distance of the texts, so the texts are compared where the bound fails."""
    threat = Threat(spaces=("characters",), max_words=1.0, max_text_distance=4)
    text = Text("abcabc defdef", threat)
    script = (replace(0, "bcabc"), replace(1, "adefdef"))
    assert levenshtein(text.text, text.apply(script)) == 2 and text.allows(script)
    swapped = (replace(0, "de"), replace(1, "abcabcdef"))
    assert text.allows(swapped) == (levenshtein(text.text, text.apply(swapped)) <= 4)


@given(st.lists(st.tuples(st.integers(0, 5), st.text("abc", min_size=1, max_size=5)), max_size=6), st.integers(0, 12))
def test_the_limit_on_whole_texts_holds_exactly(changes: list[tuple[int, str]], limit: int) -> None:
    """Distances of words are remembered one by one; what they add up to never decides wrongly."""
    threat = Threat(spaces=("characters",), max_words=1.0, max_text_distance=limit)
    text = Text("abc cab, abba bc (aab) c", threat)
    script: tuple[Edit, ...] = ()
    for index, word in changes:
        if word != text.words[index]:
            script = sentence.composed(script, replace(index, word))
        assert text.allows(script) == (levenshtein(text.text, text.apply(script)) <= limit)


def test_what_is_known_of_single_edits_hides_no_malformed_script() -> None:
    text = Text("abcd efgh ijkl", Threat(spaces=("characters", "any"), max_words=1.0, max_text_distance=9))
    first, second, twice = replace(0, "x"), replace(1, "y"), replace(1, "z")
    inserted = Edit("insert", 1, "w")
    for edit in (first, second, twice, inserted):
        assert text.allows((edit,)) and text.allows((edit,))
    assert text.allows((first, second)) and text.allows((first, inserted, second))
    assert text.violation((second, first)) == "malformed script: not sorted by index"
    assert (text.violation((second, twice)) or "").startswith("malformed script: word 1 changed twice")
    assert (text.violation((first, second, twice, inserted)) or "").startswith("malformed script: word 1")
    assert (
        text.violation((first, second, replace(2, "v"), Edit("insert", 3, "u")))
        == "4 words changed, at most 3 of 3 may"
    )


def test_a_lexicon_is_asked_once_a_word() -> None:
    asked: list[tuple[str, str | None]] = []

    class Asked(Table):
        def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
            asked.append((word, pos))
            return super().synonyms(word, pos)

    lexicon, other = Asked({"good": ("fine", "well_made")}), Asked({"good": ("decent",)})
    for _ in range(3):
        text = Text("good film, good film", SYNONYMS, lexicon)
        assert text.candidates(0) == ("fine",) and text.allows((replace(2, "fine"),))
        assert Text("good", Threat(spaces=("lemmas",), max_words=1.0), lexicon).candidates(0) == ("fine",)
    assert asked == [("good", None)] * 2  # one a space
    assert Text("good film", SYNONYMS, other).candidates(0) == ("decent",)


def test_the_verifiers_question() -> None:
    lexicon = Table({"good": ("fine",)})
    script = (replace(0, "fine"),)
    assert violation(SYNONYMS, lexicon, "good film", script, stop_words=NO_STOP_WORDS) is None
    assert violation(SYNONYMS, lexicon, "the film", script, stop_words=frozenset({"the"})) == "word 0 is a stop word"


def test_composed_scripts_stay_in_order() -> None:
    edits = [replace(1, "a"), Edit("insert", 1, "b"), replace(0, "c"), replace(1, "d"), Edit("delete", 2)]
    text = Text("one two three", TYPOS)
    for order in itertools.permutations(edits):
        script: tuple[Edit, ...] = ()
        for edit in order:
            script = sentence.composed(script, edit)
        assert text.malformed(script) is None
        assert [edit.index for edit in script] == [0, 1, 1, 2]


def test_texts_of_ten_thousand_words() -> None:
    text = Text("word " * 10_000, TYPOS)
    assert len(text.words) == text.max_edits == 10_000
    assert text.allows(tuple(replace(index, "wird") for index in range(10_000)))
