"""TextAttack's own recipes under our engine: ``textattack:textfooler``, ``textattack:bae``, ``textattack:leap``...

A recipe runs as it is, in a thread of its own that stands still while the engine works: where it calls its
victim, the thread hands out the texts, the engine answers them together with those of hundreds of other
examples, and the thread goes on. So every text is counted as it is asked, the budget holds, and where the
search ends is judged anew, as for any attack. The recipe's own constraints are its own: our threat around it
lets any word be written, inserted or deleted.

Recipes draw from the global generators of ``random`` and ``numpy``. Each example brings its own state of both,
which is put in place while its thread runs and taken out again after, so outcomes depend on nothing else.

TextAttack comes with the extra ``textattack`` (0.3.11, with the pins under which it installs) and takes ten
seconds and more to import. Recipes that need no more than that and nltk's data (NLTK_DATA): deepwordbug, pwws,
pruthi, leap, input-reduction. What the others need is said when it is missing.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import functools
import importlib
import io
import queue
import random
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from grit.bench.types import BudgetSpent, CouldNotMeasure, Edit, Question, Script, Sentence, Texts, Threat, UsageError

_UNLIMITED = 10_000_000  # queries; recipes end by themselves
_ANYTHING = Threat(spaces=("any",), max_words=10.0, protect_stop_words=False, max_queries=_UNLIMITED)

_VECTORS = "the counter-fitted word vectors, which TextAttack fetches from its own server into TA_CACHE_DIR"
_SIMILARITY = "the Universal Sentence Encoder (pip install tensorflow tensorflow_hub)"
_MASKED = "a masked language model, which transformers fetches from the hub into HF_HOME"
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "a2t": ("sentence_transformers with its model stsb-distilbert-base", _VECTORS),
    "alzantot": (_VECTORS, "a language model from TextAttack's server"),
    "bae": (_MASKED, _SIMILARITY),
    "bert-attack": (_MASKED, _SIMILARITY),
    "checklist": ("flair's tagger ner-english in its folder of models",),
    "clare": (_MASKED, _SIMILARITY),
    "faster-alzantot": (_VECTORS, "a language model from TextAttack's server"),
    "iga": (_VECTORS,),
    "kuleshov": (_VECTORS, "a language model from TextAttack's server"),
    "leap": ("WordNet and the stop words of nltk where NLTK_DATA points",),
    "pso": ("the HowNet candidates from TextAttack's server",),
    "pwws": ("WordNet and the stop words of nltk where NLTK_DATA points",),
    "textbugger": ("a file that the wheel of 0.3.11 lacks (shared/intentional_homoglyphs.txt)", _VECTORS, _SIMILARITY),
    "textfooler": (_VECTORS, _SIMILARITY),
}
_REFUSED: Mapping[str, str] = {
    "bad-characters": "has no untargeted goal for a classifier",
    "hotflip": "takes gradients from TextAttack's own LSTM class alone; hotflip.textattack is the same search, for all",
    "morpheus": "attacks translation, not classification",
    "seq2sick": "attacks translation, not classification",
}


@dataclass(frozen=True)
class TextAttack:
    """One recipe, by the name that TextAttack's command line has for it."""

    threat: Threat = _ANYTHING
    tier: str = "textattack"
    recipe: str = "deepwordbug"

    tiers: ClassVar[Mapping[str, Mapping[str, Any]]] = {"textattack": {}}

    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]:
        built = _built(self.recipe)
        numpy_state = np.random.RandomState(rng.getrandbits(32)).get_state()

        def work(ask: Callable[[list[str]], np.ndarray]) -> Script:
            end = _own(built, ask, self.threat.max_queries).attack(sentence.text, label).perturbed_result.attacked_text
            return script_between(sentence, end.text, end.words)

        try:
            return (yield from _Aside(work, rng.getstate(), numpy_state).steps())
        except (ImportError, OSError) as error:
            raise _missing(self.recipe, error) from error
        except LookupError as error:
            if type(error) is LookupError:  # nltk's word for data that are not here; an IndexError is an error
                raise _missing(self.recipe, error) from error
            raise


# --- recipes -----------------------------------------------------------------------------------------


@functools.cache
def _built(recipe: str) -> Any:
    """The recipe around no victim, with all that it loads: made once a process."""
    try:
        with _quiet():
            names = importlib.import_module("textattack.attack_args").ATTACK_RECIPE_NAMES
    except ImportError as error:
        raise CouldNotMeasure(
            f"textattack:{recipe} needs TextAttack ({error}); pip install 'gritbench[textattack]' has the versions "
            "that work"
        ) from error
    if recipe not in names:
        near = difflib.get_close_matches(recipe, list(names), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"unknown recipe {recipe!r} of TextAttack: {hint}it has {', '.join(sorted(names))}")
    if recipe in _REFUSED:
        raise UsageError(f"textattack:{recipe} {_REFUSED[recipe]}")
    module, _, name = names[recipe].rpartition(".")
    try:
        with _quiet():
            return getattr(importlib.import_module(module), name).build(_wrapper(_no_victim))
    # A failed download surfaces as any of these: of requests, of the hub, of a lock it forgot to release.
    except (ImportError, OSError, LookupError, RuntimeError, ValueError) as error:
        raise _missing(recipe, error) from error


def _missing(recipe: str, error: Exception) -> CouldNotMeasure:
    said = " ".join(str(error).split())
    needs = "; ".join(_NEEDS.get(recipe, ("what its documentation names",)))
    return CouldNotMeasure(
        f"textattack:{recipe} cannot run here ({type(error).__name__}: {said[:120]}). It needs {needs}: "
        "run it once on a machine with a network, or use another recipe"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what TextAttack and nltk say while they load: standard output may be somebody's JSON."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _no_victim(texts: list[str]) -> np.ndarray:
    raise AssertionError("a recipe asked its victim while it was built")


def _wrapper(ask: Callable[[list[str]], np.ndarray]) -> Any:
    from textattack.models.wrappers import ModelWrapper

    class Asking(ModelWrapper):
        model = None

        def __call__(self, texts: Sequence[str]) -> np.ndarray:
            return ask(list(texts))

    return Asking()


def _own(built: Any, ask: Callable[[list[str]], np.ndarray], max_queries: int) -> Any:
    """The recipe around a victim of its own. What it has loaded is shared: only one thread runs at a time.

    It stops by itself when the budget is spent, with what it has found. Its cache of answers is off, since the
    engine keeps one and counts what was asked.
    """
    from textattack import Attack

    goal = copy.copy(built.goal_function)
    goal.model, goal.use_cache, goal.query_budget = _wrapper(ask), False, max_queries
    constraints = [*built.pre_transformation_constraints, *built.constraints]
    return Attack(goal, constraints, built.transformation, copy.copy(built.search_method))


# --- a thread that asks --------------------------------------------------------------------------------


class _Stopped(BaseException):
    """Raised where a thread waits for an answer that will not come; no ``except Exception`` holds it up."""


class _Aside:
    """Work in a thread that asks and waits; from outside, a generator of questions.

    Never do both sides run at once. ``python`` and ``numpy`` are the states of the global generators that the
    work finds, and finds again after every answer.
    """

    def __init__(self, work: Callable[[Callable[[list[str]], np.ndarray]], Script], python: Any, numpy: Any) -> None:
        self._work = work
        self._states = python, numpy
        self._said: queue.SimpleQueue[list[str] | Script | BaseException] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()  # None: there are no more
        self._thread = threading.Thread(target=self._run, name="recipe", daemon=True)

    def steps(self) -> Generator[Question, np.ndarray, Script]:
        said = self._until_it_speaks(self._thread.start)
        try:
            while isinstance(said, list):
                answer = yield Texts(said)
                said = self._until_it_speaks(functools.partial(self._answers.put, answer))
        except BudgetSpent:
            return ()
        finally:
            while isinstance(said, list):  # it waits for an answer still
                said = self._until_it_speaks(functools.partial(self._answers.put, None))
            self._thread.join()
        if isinstance(said, BaseException):
            raise said
        return said

    def _until_it_speaks(self, go: Callable[[], object]) -> list[str] | Script | BaseException:
        outer = random.getstate(), np.random.get_state()  # noqa: NPY002
        random.setstate(self._states[0])
        np.random.set_state(self._states[1])  # noqa: NPY002
        try:
            go()
            return self._said.get()
        finally:
            self._states = random.getstate(), np.random.get_state()  # noqa: NPY002
            random.setstate(outer[0])
            np.random.set_state(outer[1])  # noqa: NPY002

    def _run(self) -> None:
        try:
            self._said.put(self._work(self._ask))
        # Whatever ends the work is passed on to the side that waits, which decides what it means.
        except BaseException as error:  # noqa: BLE001
            self._said.put(error)

    def _ask(self, texts: list[str]) -> np.ndarray:
        self._said.put(texts)
        answer = self._answers.get()
        if answer is None:
            raise _Stopped
        return answer


# --- from a text back to edits ---------------------------------------------------------------------------


class _Item(NamedTuple):
    """A word of a text, or one sign that stands between words."""

    string: str
    word: int  # number of the word, -1 for a sign
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.string)


def script_between(sentence: Sentence, text: str, words: Sequence[str]) -> Script:
    """The edits that make ``text``, whose words are ``words``, of the sentence; white space apart.

    Words and the signs between them are aligned. A word may take signs with it ("Dr." for "doctor"); where one
    became several ("good", "go od"), the first ones are inserted before it. Raises ValueError for a text that
    differs in more than words.
    """
    before, after = _items(sentence.text, sentence.words), _items(text, words)
    script: list[Edit] = []
    old_start = new_start = 0
    for old_end, new_end in [*_matches(before, after), (len(before), len(after))]:
        if old_start == old_end and new_start < new_end and 0 < old_end < len(before) and before[old_end].word < 0:
            # Nothing can be inserted before a sign: the word in front of it is written anew, with what follows it.
            old_start, new_start = old_start - 1, new_start - 1
        old, new = before[old_start:old_end], after[new_start:new_end]
        places = [item.word for item in old if item.word >= 0]
        written = text[new[0].start : new[-1].end].split() if new else []
        behind = next((item.word for item in before[old_start:] if item.word >= 0), len(sentence.words))
        extra = max(0, len(written) - len(places))
        script += [Edit("insert", behind, word) for word in written[:extra]]
        pairs = zip(places, written[extra:], strict=False)
        script += [Edit("replace", place, word) for place, word in pairs if word != sentence.words[place]]
        script += [Edit("delete", place) for place in places[len(written) :]]
        old_start, new_start = old_end + 1, new_end + 1
    found = tuple(script)
    if _squeezed(sentence.apply(found)) != _squeezed(text):
        raise ValueError(f"the recipe wrote what no edit of words can say: {text!r}")
    return found


def _items(text: str, words: Sequence[str]) -> list[_Item]:
    items = []
    place = 0
    for number, word in enumerate((*words, "")):
        start = text.index(word, place) if word else len(text)
        items += [_Item(text[at], -1, at) for at in range(place, start) if not text[at].isspace()]
        if word:
            items.append(_Item(word, number, start))
        place = start + len(word)
    return items


_SIGN = 1000  # what a sign counts in an alignment, against one for a word: no edit can change it


def _matches(before: Sequence[_Item], after: Sequence[_Item]) -> list[tuple[int, int]]:
    """The longest common subsequence: pairs of places, ascending."""
    shorter = min(len(before), len(after))
    tail = 0  # first, so that words are inserted before a word and not behind one
    while tail < shorter and before[-1 - tail].string == after[-1 - tail].string:
        tail += 1
    head = 0
    while head < shorter - tail and before[head].string == after[head].string:
        head += 1
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    best = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]  # of what follows [old new]
    for i in reversed(range(len(old))):
        weight = _SIGN if old[i].word < 0 else 1
        for j in reversed(range(len(new))):
            best[i][j] = max(best[i + 1][j], best[i][j + 1])
            if old[i].string == new[j].string:
                best[i][j] = max(best[i][j], best[i + 1][j + 1] + weight)
    pairs = [(place, place) for place in range(head)]
    i = j = 0
    while i < len(old) and j < len(new):
        if best[i][j] == best[i][j + 1]:
            j += 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            pairs.append((head + i, head + j))
            i, j = i + 1, j + 1
    return pairs + [(len(before) - place, len(after) - place) for place in range(tail, 0, -1)]


def _squeezed(text: str) -> str:
    return "".join(text.split())
