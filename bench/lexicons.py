"""Name -> Lexicon: the synonyms an attack may write. WordNet through nltk, or the embedded thesaurus.

A lexicon's name is part of an attack's name on the board and its digest part of the suite's digest: robust
accuracies under different lexicons are never compared. ``default`` is WordNet 3.0 where its files are on the
machine (NLTK_DATA, or nltk_data in a data folder or at home), else the thesaurus.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from grit.bench.datasets import data_folders
from grit.bench.registry import unknown
from grit.bench.types import CouldNotMeasure, MalformedInput, UsageError

_EMBEDDED = Path(__file__).parent / "embedded"
STOP_WORDS_NAME = "nltk-english-179"
PARTS_OF_SPEECH = ("n", "v", "a", "r")  # noun, verb, adjective, adverb


class Lexicon(Protocol):
    name: str
    digest: str

    def __hash__(self) -> int: ...

    def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
        """Single words that can stand for ``word``, best sense first, never the word itself; case as listed."""
        ...


def load(name: str = "default") -> Lexicon:
    """The lexicon behind a name: ``default``, ``wordnet3.0``, ``thesaurus``, or a JSON file word -> synonyms."""
    if name == "default":
        return load("wordnet3.0" if _wordnet_folder() else "thesaurus")
    if name == "thesaurus":
        return _thesaurus()
    if name == "wordnet3.0":
        folder = _wordnet_folder()
        if folder is None:
            raise CouldNotMeasure(
                "lexicon 'wordnet3.0' is not on this machine; put WordNet where NLTK_DATA points "
                "(python -m nltk.downloader wordnet), or use the lexicon 'thesaurus'"
            )
        return _wordnet(folder)
    if name.endswith(".json"):
        return Table(Path(name))
    raise unknown(
        "lexicon", name, ("wordnet3.0", "thesaurus"), "the lexicons are wordnet3.0, thesaurus or a .json table"
    )


@functools.cache
def _thesaurus() -> Thesaurus:
    return Thesaurus(_EMBEDDED / "thesaurus.txt", _EMBEDDED / "inflections.txt")


_opened: dict[Path, WordNet] = {}  # one a folder and process: opening it reads its memory of earlier answers


def _wordnet(folder: Path) -> WordNet:
    if folder not in _opened:
        _opened[folder] = WordNet(folder)
    return _opened[folder]


def keep() -> None:
    """Keep on disk what the lexicons of this process have looked up."""
    for wordnet in _opened.values():
        wordnet.save()


@functools.cache
def stop_words() -> frozenset[str]:
    """The English stop words of nltk (179 entries), compared as they stand: the list is lower case."""
    return frozenset((_EMBEDDED / "stop_words.txt").read_text(encoding="utf-8").split())


@functools.cache
def stop_words_digest() -> str:
    return hashlib.sha256((_EMBEDDED / "stop_words.txt").read_bytes()).hexdigest()


class Table:
    """An injected lexicon: a JSON file that maps a word to its synonyms, or to {part of speech: synonyms}."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(f"lexicon {path}: there is no such file; give a JSON file {{word: [synonyms]}}")
        try:
            raw = path.read_bytes()
            entries: Any = json.loads(raw)
        except (OSError, ValueError) as error:
            raise MalformedInput(f"lexicon {path}: {error}; expected JSON {{word: [synonyms]}}") from error
        if not isinstance(entries, dict):
            raise MalformedInput(
                f"lexicon {path}: expected a JSON object word -> synonyms, got {type(entries).__name__}"
            )
        for word, entry in entries.items():
            for others in entry.values() if isinstance(entry, dict) else (entry,):
                if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
                    raise MalformedInput(f"lexicon {path}: {word!r} holds {others!r}, expected a list of words")
        self.name = path.stem
        self.digest = hashlib.sha256(raw).hexdigest()
        self._entries: Mapping[str, Any] = entries

    def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
        entry = self._entries.get(word.lower(), ())
        if isinstance(entry, dict):
            entry = [other for part, others in entry.items() if pos in (None, part) for other in others]
        return tuple(dict.fromkeys(other for other in entry if other != word))


# --- the embedded thesaurus --------------------------------------------------------------------------


class Thesaurus:
    """This project's own synonyms: ``head pos: sense one; sense two``, base forms, inflected back on the way out."""

    name = "thesaurus"

    def __init__(self, path: Path, inflections: Path) -> None:
        raw, irregular = path.read_text(encoding="utf-8"), inflections.read_text(encoding="utf-8")
        self.digest = hashlib.sha256(raw.encode() + b"\0" + irregular.encode()).hexdigest()
        self.entries: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {}
        for number, line in enumerate(raw.splitlines(), 1):
            match = re.fullmatch(r"([a-z']+) ([nvar]): ([a-z';\- ]+)", line)
            if not match:
                raise MalformedInput(f"{path.name}, line {number}: {line!r} is not 'head pos: word word; word'")
            head, pos, senses = match.groups()
            if pos in self.entries.setdefault(head, {}):
                raise MalformedInput(f"{path.name}, line {number}: {head} {pos} stands twice; join its senses")
            self.entries[head][pos] = tuple(tuple(sense.split()) for sense in senses.split(";"))
        self._inflection = Inflection(irregular)

    def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for base, part, form in self._inflection.analyses(word.lower()):
            if pos in (None, part):
                for sense in self.entries.get(base, {}).get(part, ()):
                    for other in sense:
                        found.setdefault(self._inflection.inflect(other, part, form))
        found.pop(word.lower(), None)
        found.pop("", None)
        return tuple(found)


_FORMS = {
    "v": ("base", "past", "participle", "third", "ing"),
    "n": ("base", "plural"),
    "a": ("base", "more", "most"),
    "r": ("base",),
}
_VOWELS = "aeiou"


class Inflection:
    """English word forms by rule, with a table of the irregular ones (``pos base form form ...``).

    Adjectives are compared only where the table says so: most long ones take "more", which is a second word.
    """

    def __init__(self, irregular: str) -> None:
        self._irregular: dict[tuple[str, str], tuple[str, ...]] = {}  # (pos, base) -> forms after the base
        self._base_of: dict[str, list[tuple[str, str, str]]] = {}  # form -> (base, pos, form name)
        for line in irregular.splitlines():
            pos, base, *forms = line.split()
            self._irregular[pos, base] = tuple(forms)
            for name, form in zip(_FORMS[pos][1:], forms, strict=False):
                self._base_of.setdefault(form, []).append((base, pos, name))

    def inflect(self, base: str, pos: str, form: str) -> str:
        """``base`` in the named form: the listed one, else by the spelling rules; "" where it has no such form."""
        if form == "base":
            return base
        listed = self._irregular.get((pos, base), ())
        place = _FORMS[pos].index(form) - 1
        if place < len(listed):
            return listed[place]
        return "" if pos == "a" else _regular(base, form)

    def analyses(self, word: str) -> Iterator[tuple[str, str, str]]:
        """Every (base, part of speech, form) that could give ``word``; most are no words, so look them up."""
        for pos in PARTS_OF_SPEECH:
            yield word, pos, "base"
        yield from self._base_of.get(word, ())
        for base in _possible_bases(word):
            for pos in ("n", "v"):
                for form in _FORMS[pos][1:]:
                    if form != "participle" and (pos, base) not in self._irregular and _regular(base, form) == word:
                        yield base, pos, form


def _regular(base: str, form: str) -> str:
    if form in ("plural", "third"):
        if base.endswith(("s", "x", "z", "ch", "sh")):
            return base + "es"
        if base.endswith("y") and base[-2:-1] not in _VOWELS:
            return base[:-1] + "ies"
        return base + "s"
    suffix = "ing" if form == "ing" else "ed"
    if base.endswith("e") and (suffix != "ing" or base[-2:] not in ("ee", "ye", "oe")):
        return (base[:-2] + "y" if suffix == "ing" and base.endswith("ie") else base[:-1]) + suffix
    if base.endswith("y") and base[-2:-1] not in _VOWELS and suffix != "ing":
        return base[:-1] + "i" + suffix
    if re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", base):  # one closed syllable doubles its consonant
        return base + base[-1] + suffix
    return base + suffix


def _possible_bases(word: str) -> Iterator[str]:
    for suffix in ("s", "es", "ed", "d", "ing"):
        if word.endswith(suffix) and len(word) > len(suffix) + 1:
            stem = word[: -len(suffix)]
            yield stem
            if suffix in ("ing", "ed"):
                yield stem + "e"
                if stem[-1:] == stem[-2:-1]:
                    yield stem[:-1]
            if suffix in ("es", "ed") and stem.endswith("i"):
                yield stem[:-1] + "y"
            if suffix == "ing" and stem.endswith("y"):
                yield stem[:-1] + "ie"


# --- WordNet -----------------------------------------------------------------------------------------


def _wordnet_folder() -> Path | None:
    """The nltk_data folder that holds WordNet, if any."""
    named = os.environ.get("NLTK_DATA", "")
    folders = [Path(part) for part in named.split(os.pathsep) if part]
    folders += [folder / "nltk_data" for folder in data_folders()]
    folders.append(Path.home() / "nltk_data")  # where nltk's downloader puts it
    for folder in folders:
        if (folder / "corpora" / "wordnet.zip").is_file() or (folder / "corpora" / "wordnet").is_dir():
            return folder
    return None


class WordNet:
    """WordNet 3.0: every lemma of every synset of the word's base forms, in nltk's sense order.

    nltk needs seconds to open WordNet, so answers are kept on disk under the digest of its files and the
    corpus is opened only for words never asked before on this machine.
    """

    name = "wordnet3.0"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.digest = _wordnet_digest(folder)
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gritbench"
        self._memo_path = cache / f"wordnet-{self.digest[:16]}.json"
        self._memo: dict[str, dict[str, list[str]]] = {}
        self._unsaved = 0
        try:
            kept = json.loads(self._memo_path.read_text(encoding="utf-8"))
            self._memo = kept if isinstance(kept, dict) else {}
        except (OSError, ValueError):
            pass  # no memory of earlier runs, or a broken one: it is made again

    def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
        key = word.lower()
        entry = self._memo.get(key)
        if entry is None:
            entry = self._memo[key] = self._look_up(key)
            self._unsaved += 1
            if self._unsaved >= 2000:
                self.save()
        names = (other for part in ([pos] if pos else PARTS_OF_SPEECH) for other in entry.get(part, ()))
        return tuple(dict.fromkeys(other for other in names if other != word))

    def save(self) -> None:
        """Keep the answers for the next process; a cache that cannot be written is no error."""
        if not self._unsaved:
            return
        try:
            self._memo_path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=self._memo_path.parent, delete=False, suffix=".part"
            ) as file:
                json.dump(self._memo, file)
            os.replace(file.name, self._memo_path)
        except OSError:
            pass
        self._unsaved = 0

    @functools.cached_property
    def _corpus(self) -> Any:
        import nltk.data
        from nltk.corpus.reader import WordNetCorpusReader

        if str(self._folder) not in nltk.data.path:  # nltk refuses to open files outside its own list of folders
            nltk.data.path.append(str(self._folder))
        packed = self._folder / "corpora" / "wordnet.zip"
        root = (
            nltk.data.ZipFilePathPointer(str(packed), "wordnet/")
            if packed.is_file()
            else nltk.data.FileSystemPathPointer(str(self._folder / "corpora" / "wordnet"))
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that other languages are missing, which nobody asks for
            return WordNetCorpusReader(root, None)

    def _look_up(self, word: str) -> dict[str, list[str]]:
        entry: dict[str, list[str]] = {}
        for synset in self._corpus.synsets(word):
            part = "a" if synset.pos() == "s" else synset.pos()
            names = entry.setdefault(part, [])
            names.extend(name for name in synset.lemma_names() if "_" not in name and name not in names)
        return entry


@functools.cache
def _wordnet_digest(folder: Path) -> str:
    """sha256 over WordNet's own files, the same for the zip and the unpacked folder."""
    import zipfile

    digest = hashlib.sha256()
    packed = folder / "corpora" / "wordnet.zip"
    unpacked = folder / "corpora" / "wordnet"
    if unpacked.is_dir():
        contents = {file.name: file.read_bytes() for file in unpacked.iterdir() if file.is_file()}
    else:
        try:
            with zipfile.ZipFile(packed) as archive:
                files = [name for name in archive.namelist() if not name.endswith("/")]
                contents = {Path(name).name: archive.read(name) for name in files}
        except zipfile.BadZipFile as error:
            raise MalformedInput(f"{packed}: {error}; fetch it again") from error
    for name in sorted(contents):
        if name.startswith(("data.", "index.")) or name.endswith(".exc"):
            digest.update(name.encode() + b"\0" + hashlib.sha256(contents[name]).digest())
    return digest.hexdigest()
