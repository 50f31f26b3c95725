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
import logging
import queue
import random
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, ClassVar

import numpy as np

from grit.bench.types import BudgetSpent, CouldNotMeasure, Edit, Question, Script, Sentence, Texts, Threat, UsageError

_UNLIMITED = 10_000_000  # queries; recipes end by themselves
_ANYTHING = Threat(spaces=("anything",), max_words=10.0, protect_stop_words=False, max_queries=_UNLIMITED)

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
        numpy_state = np.random.RandomState(rng.getrandbits(32)).get_state()  # noqa: NPY002  what recipes draw from

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
    """Without what TextAttack and nltk say while they load: ours is the only word on standard output."""
    logger = logging.getLogger("textattack")
    before = logger.level
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(before)


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


def script_between(sentence: Sentence, text: str, words: Sequence[str]) -> Script:
    """The edits that make ``text``, whose words are ``words``, of the sentence; white space apart.

    Words are aligned by their longest common blocks. Where one word became several ("good", "go od"), the first
    ones are inserted before it. Raises ValueError for a text that differs in more than words.
    """
    before, after = _gaps(sentence.text, sentence.words), _gaps(text, words)

    def written(old: int, new: int) -> Edit:
        """The new word in the place of the old one, with signs that came with it: "Dr." for "doctor"."""
        left, right = (before[old], after[new]), (before[old + 1], after[new + 1])
        prefix = left[1][len(left[0]) :] if left[1].startswith(left[0]) else ""
        suffix = right[1][: len(right[1]) - len(right[0])] if right[1].endswith(right[0]) else ""
        whole = prefix + words[new] + suffix
        return Edit("replace", old, whole if whole.split() == [whole] else words[new])

    script: list[Edit] = []
    matcher = SequenceMatcher(None, list(sentence.words), list(words), autojunk=False)
    for kind, old, old_end, new, new_end in matcher.get_opcodes():
        if kind == "equal":
            continue
        extra = max(0, (new_end - new) - (old_end - old))
        script += [Edit("insert", old, word) for word in words[new : new + extra]]
        pairs = min(old_end - old, new_end - new)
        script += [written(old + k, new + extra + k) for k in range(pairs)]
        script += [Edit("delete", index) for index in range(old + pairs, old_end)]
    found = tuple(script)
    if _squeezed(sentence.apply(found)) != _squeezed(text):
        raise ValueError(f"the recipe wrote what no edit of words can say: {text!r}")
    return found


def _gaps(text: str, words: Sequence[str]) -> list[str]:
    """What stands before, between and behind the words."""
    gaps = []
    place = 0
    for word in words:
        start = text.index(word, place)
        gaps.append(text[place:start])
        place = start + len(word)
    return [*gaps, text[place:]]


def _squeezed(text: str) -> str:
    return "".join(text.split())
