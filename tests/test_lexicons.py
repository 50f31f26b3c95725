"""Lexicons: the embedded thesaurus and its word forms, WordNet where it is, injected tables, stop words."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import datasets, lexicons
from grit.bench.lexicons import _FORMS, Inflection, Table, Thesaurus, WordNet
from grit.bench.text import tokenize
from grit.bench.types import CouldNotMeasure, MalformedInput, UsageError

EMBEDDED = Path(lexicons.__file__).parent / "embedded"


@pytest.fixture(scope="module")
def thesaurus() -> Thesaurus:
    return Thesaurus(EMBEDDED / "thesaurus.txt", EMBEDDED / "inflections.txt")


INFLECTION = Inflection((EMBEDDED / "inflections.txt").read_text(encoding="utf-8"))
ENTRIES = [
    (head, pos)
    for line in (EMBEDDED / "thesaurus.txt").read_text(encoding="utf-8").splitlines()
    for head, pos in [line.partition(":")[0].split()]
]


# --- the embedded thesaurus --------------------------------------------------------------------------------


def test_the_thesaurus_is_large_and_keeps_senses_apart(thesaurus: Thesaurus) -> None:
    assert len(thesaurus.entries) >= 2500
    parts = {pos for entry in thesaurus.entries.values() for pos in entry}
    assert parts == {"n", "v", "a", "r"}
    assert sum(len(entry) > 1 for entry in thesaurus.entries.values()) > 50, "words of several parts of speech"
    assert sum(len(senses) > 1 for e in thesaurus.entries.values() for senses in e.values()) > 100, "several senses"


def test_no_entry_holds_its_head_or_a_word_twice_in_one_sense(thesaurus: Thesaurus) -> None:
    for head, entry in thesaurus.entries.items():
        for pos, senses in entry.items():
            for sense in senses:
                assert sense, (head, pos)
                assert head not in sense, (head, pos)
                assert len(set(sense)) == len(sense), (head, pos)


def test_the_entries_are_sorted_so_that_changes_show() -> None:
    heads = [head for head, _ in ENTRIES]
    assert sorted(heads) == heads
    assert len(set(ENTRIES)) == len(ENTRIES)


def test_it_covers_the_content_words_of_the_embedded_corpus(thesaurus: Thesaurus) -> None:
    dataset = datasets.load("pings")
    stop = lexicons.stop_words()
    words = [
        token
        for example in dataset.train + dataset.dev + dataset.test
        for token in tokenize(example.text)
        if token.isalpha() and token not in stop
    ]
    assert sum(bool(thesaurus.synonyms(word)) for word in words) > 0.8 * len(words)


def test_synonyms_are_inflected_as_the_word_is(thesaurus: Thesaurus) -> None:
    entry = thesaurus.entries["abandon"]["v"]
    assert thesaurus.synonyms("abandon", "v") == tuple(dict.fromkeys(word for sense in entry for word in sense))
    gone = thesaurus.synonyms("abandoning", "v")
    assert gone and all(word.endswith("ing") for word in gone)
    assert thesaurus.synonyms("ABANDON", "v") == thesaurus.synonyms("abandon", "v")


def test_a_part_of_speech_narrows_the_synonyms(thesaurus: Thesaurus) -> None:
    for head in [head for head, entry in thesaurus.entries.items() if len(entry) > 1][:50]:
        every = set(thesaurus.synonyms(head))
        for pos in thesaurus.entries[head]:
            assert set(thesaurus.synonyms(head, pos)) <= every


@given(st.sampled_from(ENTRIES))
def test_synonyms_are_single_words_and_never_the_word_itself(thesaurus: Thesaurus, entry: tuple[str, str]) -> None:
    head, pos = entry
    for form in _FORMS[pos]:
        word = INFLECTION.inflect(head, pos, form)
        for other in thesaurus.synonyms(word) if word else ():
            assert other and other != word and other.split() == [other]


def test_unknown_words_have_no_synonyms(thesaurus: Thesaurus) -> None:
    for word in ("", "xqzt", "\U0001f642", "don't", "\u05e9\u05dc\u05d5\u05dd", "x" * 10_000):
        assert thesaurus.synonyms(word) == ()


def test_its_digest_changes_with_either_file(tmp_path: Path, thesaurus: Thesaurus) -> None:
    for name in ("thesaurus.txt", "inflections.txt"):
        shutil.copy(EMBEDDED / name, tmp_path)
    again = Thesaurus(tmp_path / "thesaurus.txt", tmp_path / "inflections.txt")
    assert again.digest == thesaurus.digest == lexicons.load("thesaurus").digest
    (tmp_path / "thesaurus.txt").write_text("zeal n: fervour\n")
    assert Thesaurus(tmp_path / "thesaurus.txt", tmp_path / "inflections.txt").digest != again.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zeal: fervour\n", "line 1: 'zeal: fervour' is not 'head pos: word word; word'"),
        ("zeal n fervour\n", "line 1: .* is not 'head pos"),
        ("zeal x: fervour\n", "line 1: .* is not 'head pos"),
        ("zeal n: fervour\nzeal n: ardour\n", "line 2: zeal n stands twice; join its senses"),
    ],
)
def test_a_broken_thesaurus_says_which_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    (tmp_path / "i.txt").write_text("")
    with pytest.raises(MalformedInput, match=message):
        Thesaurus(tmp_path / "t.txt", tmp_path / "i.txt")


# --- word forms ----------------------------------------------------------------------------------------


@given(st.sampled_from(ENTRIES), st.data())
def test_every_form_leads_back_to_its_base(entry: tuple[str, str], data: st.DataObject) -> None:
    head, pos = entry
    form = data.draw(st.sampled_from(_FORMS[pos]))
    word = INFLECTION.inflect(head, pos, form)
    if word:
        back = [
            (base, part)
            for base, part, name in INFLECTION.analyses(word)
            if INFLECTION.inflect(base, part, name) == word
        ]
        assert (head, pos) in back


def test_every_form_of_every_entry_leads_back() -> None:
    for head, pos in ENTRIES:
        for form in _FORMS[pos]:
            word = INFLECTION.inflect(head, pos, form)
            if word:
                assert any((base, part) == (head, pos) for base, part, _ in INFLECTION.analyses(word)), (
                    head,
                    pos,
                    word,
                )


@pytest.mark.parametrize(
    ("base", "pos", "form", "word"),
    [
        ("walk", "v", "past", "walked"),
        ("bake", "v", "ing", "baking"),
        ("agree", "v", "ing", "agreeing"),
        ("agree", "v", "past", "agreed"),
        ("lie", "v", "ing", "lying"),
        ("carry", "v", "third", "carries"),
        ("carry", "v", "past", "carried"),
        ("carry", "v", "ing", "carrying"),
        ("play", "v", "past", "played"),
        ("grab", "v", "past", "grabbed"),
        ("fix", "v", "third", "fixes"),
        ("fix", "v", "past", "fixed"),
        ("box", "n", "plural", "boxes"),
        ("party", "n", "plural", "parties"),
        ("day", "n", "plural", "days"),
        ("church", "n", "plural", "churches"),
        ("go", "v", "past", "went"),
        ("go", "v", "participle", "gone"),
        ("go", "v", "ing", "going"),
        ("child", "n", "plural", "children"),
        ("good", "a", "more", "better"),
        ("happy", "a", "most", "happiest"),
        ("beautiful", "a", "more", ""),
    ],
)
def test_word_forms(base: str, pos: str, form: str, word: str) -> None:
    assert INFLECTION.inflect(base, pos, form) == word
    if word:
        assert (base, pos, form) in list(INFLECTION.analyses(word))


def test_the_table_of_irregular_forms_is_whole() -> None:
    """A verb lists its four forms, a noun its plural, an adjective two: a gap would break the way back."""
    seen = set()
    for line in (EMBEDDED / "inflections.txt").read_text(encoding="utf-8").splitlines():
        pos, base, *forms = line.split()
        assert len(forms) == len(_FORMS[pos]) - 1, line
        assert (pos, base) not in seen, line
        seen.add((pos, base))


# --- stop words ------------------------------------------------------------------------------------------


def test_stop_words_are_the_179_of_their_name() -> None:
    assert len(lexicons.stop_words()) == 179
    assert {"the", "not", "wouldn't"} <= lexicons.stop_words()
    assert all(word == word.lower() for word in lexicons.stop_words())
    assert lexicons.STOP_WORDS_NAME == "nltk-english-179"
    assert lexicons.stop_words_digest() == hashlib.sha256((EMBEDDED / "stop_words.txt").read_bytes()).hexdigest()


# --- tables ----------------------------------------------------------------------------------------------


def table(tmp_path: Path, content: object) -> Table:
    path = tmp_path / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    lexicon = lexicons.load(str(path))
    assert isinstance(lexicon, Table)
    return lexicon


def test_a_table_gives_what_it_holds(tmp_path: Path) -> None:
    lexicon = table(tmp_path, {"glad": ["happy", "pleased", "glad"], "run": {"v": ["jog"], "n": ["race"]}})
    assert lexicon.name == "mine"
    assert lexicon.synonyms("glad") == ("happy", "pleased")
    assert lexicon.synonyms("GLAD") == ("happy", "pleased", "glad")
    assert lexicon.synonyms("run") == ("jog", "race")
    assert lexicon.synonyms("run", "n") == ("race",)
    assert lexicon.synonyms("run", "a") == () == lexicon.synonyms("gone")


def test_a_table_is_known_by_its_bytes(tmp_path: Path) -> None:
    one, other = table(tmp_path, {"glad": ["happy"]}).digest, table(tmp_path, {"glad": ["merry"]}).digest
    assert one != other and table(tmp_path, {"glad": ["happy"]}).digest == one


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected JSON"),
        ("[1]", "expected a JSON object word -> synonyms, got list"),
        ('{"glad": "happy"}', "'glad' holds 'happy', expected a list of words"),
        ('{"glad": [1]}', r"'glad' holds \[1\], expected a list of words"),
        ('{"run": {"v": "jog"}}', "'run' holds 'jog', expected a list of words"),
    ],
)
def test_a_broken_table_says_so(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(MalformedInput, match=message):
        table(tmp_path, content)


def test_a_missing_table_says_so() -> None:
    with pytest.raises(UsageError, match=r"gone\.json: there is no such file"):
        lexicons.load("gone.json")


# --- names -----------------------------------------------------------------------------------------------


def test_an_unknown_lexicon_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown lexicon 'wordnet': did you mean 'wordnet3.0'\? the lexicons are"):
        lexicons.load("wordnet")


def test_without_wordnet_the_thesaurus_is_the_default(no_data: Path) -> None:
    assert lexicons.load().name == "thesaurus"
    with pytest.raises(CouldNotMeasure, match=r"'wordnet3.0' is not on this machine; put WordNet where NLTK_DATA"):
        lexicons.load("wordnet3.0")


def test_wordnet_at_home_is_found(no_data: Path) -> None:
    corpora = no_data / "nltk_data" / "corpora"
    corpora.mkdir(parents=True)
    with zipfile.ZipFile(corpora / "wordnet.zip", "w") as archive:
        archive.writestr("wordnet/data.noun", "nothing yet")
    assert lexicons.load().name == "wordnet3.0"


def test_a_broken_wordnet_says_so(no_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nltk" / "corpora").mkdir(parents=True)
    (tmp_path / "nltk" / "corpora" / "wordnet.zip").write_bytes(b"PK but no more")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "nltk"))
    with pytest.raises(MalformedInput, match=r"wordnet\.zip: .*; fetch it again"):
        lexicons.load()


# --- WordNet ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> WordNet:
    """WordNet, opened once (that takes seconds), with an empty memory of its own."""
    folder = real_data / "nltk_data"
    if not (folder / "corpora").is_dir():
        pytest.skip("the real data has no WordNet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        lexicon = WordNet(folder)
    lexicon.synonyms("quick")
    return lexicon


@pytest.fixture
def wordnet(opened: WordNet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WordNet:
    """The opened WordNet with nothing remembered and a file of its own to remember in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(opened, "_memo", {})
    monkeypatch.setattr(opened, "_memo_path", tmp_path / "cache" / "gritbench" / opened._memo_path.name)
    return opened


def test_wordnet_lists_the_lemmas_of_every_sense_once(wordnet: WordNet) -> None:
    film = wordnet.synonyms("film")
    assert {"movie", "picture", "flick"} <= set(film)
    assert len(set(film)) == len(film)
    assert "film" not in film and not [word for word in film if "_" in word]
    assert wordnet.synonyms("movies") and "movie" in wordnet.synonyms("movies")


def test_wordnet_by_part_of_speech(wordnet: WordNet) -> None:
    assert set(wordnet.synonyms("film", "v")) < set(wordnet.synonyms("film"))
    assert "glad" in wordnet.synonyms("happy", "a")
    assert wordnet.synonyms("happy", "n") == ()


def test_wordnet_knows_nothing_of_what_is_no_word(wordnet: WordNet) -> None:
    for word in ("", "xqztt", "\U0001f642", "_", "a b", "../x"):
        assert wordnet.synonyms(word) == ()


def test_wordnet_is_known_by_its_files_packed_or_not(wordnet: WordNet, real_data: Path, tmp_path: Path) -> None:
    packed = real_data / "nltk_data" / "corpora" / "wordnet.zip"
    if not packed.is_file():
        pytest.skip("WordNet is not packed here")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "unpacked" / "corpora")
    assert WordNet(tmp_path / "unpacked").digest == wordnet.digest


def test_answers_are_remembered_on_disk(wordnet: WordNet, real_data: Path) -> None:
    found = wordnet.synonyms("quick")
    wordnet.save()
    again = WordNet(real_data / "nltk_data")
    assert again._memo_path == wordnet._memo_path
    again._look_up = lambda word: pytest.fail("asked again")  # type: ignore[method-assign]  # it must not be
    assert again.synonyms("quick") == found


@pytest.mark.parametrize("damage", [b"[1, 2]", b"\xff{", b"", b'{"quick": '])
def test_a_broken_memory_is_made_again(wordnet: WordNet, real_data: Path, damage: bytes) -> None:
    wordnet.synonyms("quick")
    wordnet.save()
    wordnet._memo_path.write_bytes(damage)
    assert WordNet(real_data / "nltk_data")._memo == {}


def test_a_memory_that_cannot_be_written_is_no_error(wordnet: WordNet, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert wordnet.synonyms("quick")
    wordnet.save()


def test_loading_a_lexicon_does_not_open_nltk(real_data: Path) -> None:
    code = (
        "import sys; from grit.bench import lexicons; lexicons.load('thesaurus').synonyms('fast'); "
        "lexicons.load(); print([m for m in ('nltk', 'torch', 'pandas') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert ran.stdout.strip() == "[]"


# --- WordNet without its files: what is remembered and how -------------------------------------------------


class Corpus:
    """What nltk's reader gives, made by hand: (part of speech, lemmas) by sense; it counts what it is asked."""

    SENSES: ClassVar[dict[str, list[tuple[str, list[str]]]]] = {
        "film": [("n", ["movie", "film", "motion_picture"]), ("v", ["shoot", "film"]), ("n", ["movie", "skin"])],
        "glad": [("a", ["happy", "glad"]), ("s", ["beaming", "happy"])],
        "paris": [("n", ["Paris", "City_of_Light"])],
    }

    def __init__(self) -> None:
        self.asked: list[str] = []

    def synsets(self, word: str) -> list[SimpleNamespace]:
        self.asked.append(word)
        return [
            SimpleNamespace(pos=lambda part=part: part, lemma_names=lambda names=names: names)
            for part, names in self.SENSES.get(word, ())
        ]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], WordNet]:
    """``made()`` is a WordNet over the corpus above, in a folder and with a memory on disk of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    corpora = tmp_path / "nltk_data" / "corpora" / "wordnet"
    corpora.mkdir(parents=True)
    (corpora / "data.noun").write_text("nouns")
    (corpora / "index.sense").write_text("senses")

    def make() -> WordNet:
        lexicons._wordnet_digest.cache_clear()
        lexicon = WordNet(tmp_path / "nltk_data")
        lexicon.__dict__["_corpus"] = Corpus()
        return lexicon

    return make


def test_senses_come_in_the_order_of_parts_and_lemmas_once(made: Callable[[], WordNet]) -> None:
    lexicon = made()
    assert lexicon.synonyms("film") == ("movie", "skin", "shoot")
    assert lexicon.synonyms("film", "v") == ("shoot",) and lexicon.synonyms("film", "r") == ()
    assert lexicon.synonyms("glad", "a") == ("happy", "beaming"), "satellite adjectives are adjectives"
    assert lexicon.synonyms("FILM") == ("movie", "film", "skin", "shoot"), "only the very word itself is left out"
    assert lexicon.synonyms("paris") == ("Paris",)


def test_a_word_is_looked_up_once_in_any_case_and_part(made: Callable[[], WordNet]) -> None:
    lexicon = made()
    for word in ("film", "Film", "FILM", "nothing", "nothing"):
        for pos in (None, "n", "v"):
            lexicon.synonyms(word, pos)
    assert lexicon._corpus.asked == ["film", "nothing"]  # what is not there is remembered too


def test_what_one_process_has_asked_the_next_one_knows(made: Callable[[], WordNet]) -> None:
    first = made()
    answers = {(word, pos): first.synonyms(word, pos) for word in Corpus.SENSES for pos in (None, *"nvar")}
    first.save()
    second = made()
    assert {(word, pos): second.synonyms(word, pos) for word, pos in answers} == answers
    assert not second._corpus.asked
    assert [file.suffix for file in first._memo_path.parent.iterdir()] == [".json"], "no parts are left behind"


def test_nothing_new_is_not_written(made: Callable[[], WordNet]) -> None:
    lexicon = made()
    lexicon.save()
    assert not lexicon._memo_path.exists()
    lexicon.synonyms("film")
    lexicon.save()
    lexicon._memo_path.unlink()
    lexicon.synonyms("film")
    lexicon.save()
    assert not lexicon._memo_path.exists()


def test_long_work_keeps_its_answers_on_the_way(made: Callable[[], WordNet]) -> None:
    lexicon = made()
    for number in range(1999):
        lexicon.synonyms(f"w{number}")
    assert not lexicon._memo_path.exists()
    lexicon.synonyms("one more")
    assert len(json.loads(lexicon._memo_path.read_text())) == 2000


def test_all_open_lexicons_are_kept_at_the_end(made: Callable[[], WordNet], monkeypatch: pytest.MonkeyPatch) -> None:
    lexicon = made()
    monkeypatch.setattr(lexicons, "_opened", {})
    monkeypatch.setattr(lexicons, "WordNet", lambda folder: lexicon)
    assert lexicons._wordnet(Path("a")) is lexicons._wordnet(Path("a"))
    lexicon.synonyms("film")
    lexicons.keep()
    assert "film" in json.loads(lexicon._memo_path.read_text())


def test_another_wordnet_has_another_memory(made: Callable[[], WordNet], tmp_path: Path) -> None:
    first = made()
    (tmp_path / "nltk_data" / "corpora" / "wordnet" / "README").write_text("no part of the data")
    assert made().digest == first.digest
    (tmp_path / "nltk_data" / "corpora" / "wordnet" / "verb.exc").write_text("went go")
    other = made()
    assert other.digest != first.digest and other._memo_path != first._memo_path


# --- word forms of any word ---------------------------------------------------------------------------------


@given(st.text("abeiostyz", min_size=3, max_size=7), st.sampled_from(["plural", "third", "past", "ing"]))
def test_every_regular_form_of_any_word_leads_back(base: str, form: str) -> None:
    """Also of words that no thesaurus holds yet: a rule of spelling without its way back would hide a new entry."""
    plain = Inflection("")
    pos = "n" if form == "plural" else "v"
    word = plain.inflect(base, pos, form)
    assert word != base
    assert (base, pos, form) in set(plain.analyses(word)), word


@given(st.text("abcdesyi", max_size=8))
def test_every_analysis_is_true(word: str) -> None:
    for base, pos, form in INFLECTION.analyses(word):
        assert INFLECTION.inflect(base, pos, form) == word


def test_an_irregular_word_has_no_regular_form_beside_it() -> None:
    table = Inflection("v go went gone goes going\nn child children\na good better best")
    assert ("go", "v", "past") in table.analyses("went")
    assert ("go", "v", "past") not in set(table.analyses("goed")) and ("child", "n", "plural") not in set(
        table.analyses("childs")
    )
    assert table.inflect("good", "a", "most") == "best" and table.inflect("large", "a", "most") == ""
    assert ("child", "v", "third") in table.analyses("childs"), "a noun's table says nothing of a verb"


def test_a_thesaurus_answers_for_every_part_and_form_at_once(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("walk n: stroll; path track\nwalk v: go stroll\n")
    (tmp_path / "i.txt").write_text("v go went gone goes going\n")
    lexicon = Thesaurus(tmp_path / "t.txt", tmp_path / "i.txt")
    assert lexicon.synonyms("walk") == ("stroll", "path", "track", "go")
    assert lexicon.synonyms("walks") == ("strolls", "paths", "tracks", "goes")
    assert lexicon.synonyms("walks", "v") == ("goes", "strolls")
    assert lexicon.synonyms("Walked") == ("went", "strolled")
    assert lexicon.entries["walk"]["n"] == (("stroll",), ("path", "track"))
