"""Drives one attack over many texts in lock-step; counts, budgets, judges.

An attack is a generator over one text. The engine holds hundreds of them, collects the question each has
yielded, answers all in one evaluation of the victim, and sends the answers back. It counts every query as it
was asked, whether or not an answer was known; cuts an answer short where the query budget ends inside it and
throws :class:`BudgetSpent` at the next question; and believes nothing about success: what an attack returns
must lie in its threat set and be misclassified when the joined text is evaluated anew.

Each example has its own seed, from (run seed, attack, example id), so an outcome depends neither on the order
of the examples, nor on the number in flight, nor on what was skipped, nor on a kill and a resume.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from grit.bench import lexicons, registry
from grit.bench.sentence import Lexicon, Text, composed
from grit.bench.suites import BEHAVIOUR
from grit.bench.types import (
    Attack,
    BudgetSpent,
    CouldNotMeasure,
    Edit,
    Example,
    Gain,
    MalformedInput,
    Outcome,
    OutcomeKind,
    Question,
    Score,
    Script,
    StorageError,
    Texts,
    UsageError,
)
from grit.bench.victim import Asked, Respondent, Subject

WINDOW = 128  # examples in flight: enough to fill the victim's batches
WORDS = 4096  # of the examples in flight: a search over typos holds some 100 kB a word
_CLEAN_TEXTS = 4096  # evaluated before any attack, at a time
_QUESTIONS = 2  # an attack may ask this many times its query budget in questions, which no honest search does
_TIE_DIGITS = 9  # decimal digits of the largest logit in which two margins must agree to be a tie

Progress = Callable[[int, int], None]
"""progress(done, total), in examples; called whenever some are finished."""


def margins(logits: np.ndarray, label: int) -> np.ndarray:
    """Largest other logit minus the gold one: [texts classes] -> [texts]; positive means misclassified."""
    others = logits.copy()
    others[:, label] = -math.inf  # many times as fast as an array without the column
    return np.asarray(others.max(axis=1) - logits[:, label])


def answers(victim: Respondent, texts: Sequence[str]) -> tuple[np.ndarray, dict[int, str]]:
    """Logits of texts as they are, [texts classes], and what failed: place -> reason; its row is NaN."""
    logits = np.full((len(texts), victim.classes), np.nan)
    reasons: dict[int, str] = {}
    for start in range(0, len(texts), _CLEAN_TEXTS):
        _answer_into(victim, texts[start : start + _CLEAN_TEXTS], start, logits, reasons)
    return logits, reasons


def _answer_into(
    victim: Respondent, texts: Sequence[str], start: int, logits: np.ndarray, reasons: dict[int, str]
) -> None:
    """Evaluate together; where that fails, halve until the texts that fail are alone. A model may raise anything."""
    try:
        logits[start : start + len(texts)] = victim.logits(texts)
    except Exception as error:
        if isinstance(error, CouldNotMeasure | UsageError):
            raise
        if len(texts) == 1:
            reasons[start] = _failure(error)
            return
        half = len(texts) // 2
        _answer_into(victim, texts[:half], start, logits, reasons)
        _answer_into(victim, texts[half:], start + half, logits, reasons)


def _failure(error: Exception) -> str:
    return str(error) if isinstance(error, MalformedInput) else f"the model raised {type(error).__name__}: {error}"


def standing(examples: Sequence[Example], attacks: Iterable[Sequence[Outcome]]) -> tuple[Example, ...]:
    """The examples that were right to begin with and that no attack has broken: what the next attack is run on.

    An example on which an attack failed is attacked by the next one all the same, and is never robust.
    """
    fallen = {o.id for outcomes in attacks for o in outcomes if o.outcome in ("broken", "skipped")}
    return tuple(example for example in examples if example.id not in fallen)


def attack_all(
    victim: Respondent,
    attack: Attack,
    examples: Sequence[Example],
    *,
    seed: int,
    name: str | None = None,
    lexicon: Lexicon | None = None,
    stop_words: frozenset[str] | None = None,
    vocabulary: Sequence[str] = (),
    journal: Path | None = None,
    window: int = WINDOW,
    progress: Progress | None = None,
) -> list[Outcome]:
    """One outcome an example, in the order of ``examples``.

    name: of the attack, part of every seed; by default its name in the registry.
    lexicon, stop_words: by default those the threat names, loaded only if one of its spaces needs them.
    vocabulary: the words of the space of that name; by default those that the victim's model knows.
    journal: a file to which outcomes are appended as they come; the same call with the same journal goes on
        where the last one was killed. A journal of anything else is refused (UsageError).
    window: examples in flight; it bounds the memory and changes no outcome.

    Raises MalformedInput for a label outside the victim's classes. A victim that fails on a text, clean or edited
    (an exception, a logit that is no number), makes an ``error`` outcome.
    """
    threat = attack.threat
    name = registry.attack_name(attack) if name is None else name
    stop_words = lexicons.stop_words() if stop_words is None else stop_words
    if lexicon is None and registry.LEXICAL_SPACES & set(threat.spaces):
        lexicon = lexicons.load(threat.lexicon)
    if not vocabulary and "vocabulary" in threat.spaces:
        vocabulary = victim.vocabulary
    _check_labels(victim, examples)
    if threat.max_queries < 1 or window < 1:
        raise UsageError(f"max_queries={threat.max_queries}, window={window}: both must be at least 1")

    def text_of(example: Example) -> Text:
        return Text(example.text, threat, lexicon, stop_words=stop_words, vocabulary=vocabulary)

    key = _journal_key(victim, attack, examples, name, seed, lexicon, stop_words, vocabulary) if journal else ""
    total = len(examples)
    with _rare_collections(), _Journal(journal, key, name, [example.id for example in examples]) as book:
        outcomes: dict[int, Outcome] = dict(book.outcomes)

        def finished(place: int, outcome: Outcome) -> None:
            outcomes[place] = outcome
            book.write(place, outcome)

        waiting = _starts(victim, examples, outcomes, text_of, attack, name, seed, finished)
        flight: list[_Run] = []
        while True:
            reported = len(outcomes)
            if victim.crowded and not flight:
                victim.forget()  # nobody holds anything of it now
            while (
                len(flight) < window
                and sum(len(run.sentence.words) for run in flight) < WORDS
                and not (victim.crowded and flight)
                and (run := next(waiting, None)) is not None
            ):
                flight.append(run)
            if flight:
                _step(victim, flight)
                _judge(victim, [run for run in flight if run.returned is not None and run.outcome is None])
                for run in flight:
                    if run.outcome is not None:
                        finished(run.place, run.outcome)
                flight = [run for run in flight if run.outcome is None]
            book.flush()
            if progress is not None and len(outcomes) > reported:
                progress(len(outcomes), total)
            if len(outcomes) == total:
                lexicons.keep()
                return [outcomes[place] for place in range(total)]


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let the cycle collector run seldom: by its defaults it walks millions of live edits again and again.

    That was half of the time outside the model. Nothing here makes cycles; what an attack makes is still found.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _starts(
    victim: Respondent,
    examples: Sequence[Example],
    known: Mapping[int, Outcome],
    text_of: Callable[[Example], Text],
    attack: Attack,
    name: str,
    seed: int,
    finished: Callable[[int, Outcome], None],
) -> Iterator[_Run]:
    """A run for every example still to attack; the misclassified are finished as skipped on the way."""
    places = [place for place in range(len(examples)) if place not in known]
    clean, reasons = answers(victim, [examples[place].text for place in places])
    for number, (place, logits) in enumerate(zip(places, clean, strict=True)):
        example = examples[place]
        sentence = text_of(example)
        words = len(sentence.words)
        predicted = int(logits.argmax())
        if number in reasons:
            finished(place, Outcome(example.id, "error", words=words, reason=reasons[number]))
        elif predicted == example.label:
            yield _Run(place, example, victim.open(sentence), attack, _generator(seed, name, example.id), logits)
        else:
            margin = float(margins(logits[None], example.label)[0])
            finished(place, Outcome(example.id, "skipped", predicted=predicted, margin=margin, words=words))


def _generator(seed: int, name: str, example: str) -> random.Random:
    digest = hashlib.sha256(f"{seed}\0{name}\0{example}".encode("utf-8", "surrogatepass")).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


# --- one example in flight -----------------------------------------------------------------------------


class _Run:
    """One example under attack: its generator, the question it waits on, and all that is counted about it."""

    def __init__(
        self, place: int, example: Example, subject: Subject, attack: Attack, rng: random.Random, logits: np.ndarray
    ) -> None:
        self.place = place
        self.example = example
        self.subject = subject
        self.sentence = subject.sentence
        self.question: Question | None = None
        self.returned: Script | None = None  # what the attack hands in, to be judged
        self.outcome: Outcome | None = None
        self._budget = attack.threat.max_queries
        self._queries = 0
        self._gradients = 0
        self._hits = 0
        self._questions = 0
        self._warned = False  # BudgetSpent was thrown
        self._read: dict[str, np.ndarray] = {}  # whole texts that were asked about -> logits [classes]
        self._trace = hashlib.sha256()
        self._nearest: Script = ()
        self._nearest_margin = float(margins(logits[None], example.label)[0])
        # Margins nearer than this are one: then logits times any power of ten have the same nearest miss.
        largest = float(np.abs(logits).max())
        self._unit = 10.0 ** (math.floor(math.log10(largest)) - _TIE_DIGITS if largest > 0 else -_TIE_DIGITS)
        self._steps: Generator[Question, np.ndarray, Script] | None = None
        with _Blamed(self):
            self._steps = attack.attack(self.sentence, example.label, rng)
            self._take(lambda steps: next(steps))

    def scripts(self, has_gradients: bool) -> Sequence[Script] | None:
        """What must be scored for the pending question, within the budget; None for a gradient."""
        left = self._budget - self._queries
        question = self.question
        assert isinstance(question, Score | Gain)
        if isinstance(question, Score):
            return question.scripts[:left]
        if has_gradients:
            return None
        return [question.base, *(composed(question.base, edit) for edit in question.edits[:left])]

    def refuse_if_spent(self, has_gradients: bool) -> bool:
        """Throw BudgetSpent into an attack that asks beyond its budget; True if it was thrown."""
        question = self.question
        by_gradient = has_gradients and isinstance(question, Gain)
        spent = self._gradients if by_gradient else self._queries
        if spent < self._budget:
            return False
        with _Blamed(self):
            if self._warned:
                self.returned = ()  # it was told once
                assert self._steps is not None
                self._steps.close()
            else:
                self._warned = True
                self._take(lambda steps: steps.throw(BudgetSpent(f"{spent} of {self._budget} spent")))
        return True

    def scored(self, asked: Asked, scripts: Sequence[Script], logits: np.ndarray) -> None:
        """Count and pass on the logits of a Score question, or of a Gain answered by scoring."""
        question = self.question
        self._trace.update(b"S" + asked.transcript)
        margin = margins(logits, self.example.label)
        self.note(scripts, logits, margin)
        if isinstance(question, Score):
            self._queries += len(scripts)
            self._hits += asked.hits
            self._answer(logits)
        else:  # the base comes first, and is no query
            self._queries += len(scripts) - 1
            self._hits += asked.hits - (not asked.is_fresh(0))
            self._answer(margin[1:] - margin[0])

    def texts(self, question: Texts) -> Sequence[str]:
        """What must be answered of a question about whole texts, within the budget."""
        return question.texts[: self._budget - self._queries]

    def unread(self, texts: Sequence[str]) -> list[str]:
        """Those not answered before, each once."""
        return [text for text in dict.fromkeys(texts) if text not in self._read]

    def told(self, texts: Sequence[str], unread: Mapping[str, np.ndarray]) -> None:
        """Count and pass on the logits of whole texts; ``unread`` holds those of the ones never answered before."""
        self._trace.update(b"T" + "\x1e".join(texts).encode("utf-8", "surrogatepass"))
        self._read.update(unread)
        self._queries += len(texts)
        self._hits += len(texts) - len(unread)
        self._answer(np.array([self._read[text] for text in texts]).reshape(len(texts), self.subject.classes))

    def gained(self, question: Gain, gains: np.ndarray) -> None:
        """Count and pass on the answer of a gradient pass."""
        self._trace.update(f"G{len(question.edits)} {question.base!r}".encode("utf-8", "surrogatepass"))
        self._gradients += 1
        self._answer(gains)

    def fail(self, reason: str) -> None:
        self.outcome = Outcome(
            self.example.id,
            "error",
            queries=self._queries,
            gradients=self._gradients,
            cache_hits=self._hits,
            words=len(self.sentence.words),
            trace=self._trace.hexdigest(),
            reason=reason,
        )

    def end(self, kind: OutcomeKind, script: Script, predicted: int, margin: float) -> None:
        self.outcome = Outcome(
            self.example.id,
            kind,
            script,
            predicted,
            margin,
            self._queries,
            self._gradients,
            self._hits,
            len(self.sentence.words),
            self._trace.hexdigest(),
        )

    def survive(self) -> None:
        """Not broken: the record is the legal script that came nearest to a break among all that were asked."""
        self.end("survived", self._nearest, self.example.label, self._nearest_margin)

    def note(self, scripts: Sequence[Script], logits: np.ndarray, margin: np.ndarray) -> None:
        """Remember the legal script that came nearest to a break."""
        nearest = np.rint(self._nearest_margin / self._unit)
        steps = np.rint(margin / self._unit)
        if steps.max(initial=-math.inf) <= nearest:
            return
        for i in np.argsort(-steps, kind="stable").tolist():
            if steps[i] <= nearest:
                return
            script = tuple(scripts[i])
            # A break that the attack has yet to hand in is no near miss.
            if int(logits[i].argmax()) == self.example.label and self.sentence.allows(script):
                self._nearest, self._nearest_margin = script, float(margin[i])
                return

    def _answer(self, answer: np.ndarray) -> None:
        with _Blamed(self):
            self._take(lambda steps: steps.send(answer))

    def _take(self, advance: Callable[[Generator[Question, np.ndarray, Script]], Question]) -> None:
        assert self._steps is not None
        self._questions += 1
        if self._questions > _QUESTIONS * self._budget + 2:
            raise RuntimeError(f"asked {self._questions - 1} questions on a budget of {self._budget} queries")
        try:
            self.question = advance(self._steps)
        except StopIteration as stop:
            self.returned = tuple(Edit(*edit) for edit in stop.value)
        except BudgetSpent:
            self.returned = ()
        else:
            if not isinstance(self.question, Score | Gain | Texts):
                raise TypeError(f"yielded {type(self.question).__name__}, not a Score or a Gain, nor Texts")


@dataclass
class _Blamed:
    """Turns whatever an attack raises into its error outcome: strangers' code fails in any way, the run goes on."""

    run: _Run

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception) or isinstance(error, CouldNotMeasure | UsageError):
            return False  # an interrupt, or something only the user can set right: a missing lexicon, say
        self.run.fail(f"the attack raised {type(error).__name__}: {error}")
        return True


def _step(victim: Respondent, flight: Sequence[_Run]) -> None:
    """Answer the pending question of every run in flight."""
    scored: list[tuple[_Run, Sequence[Script], Asked]] = []
    gained: list[tuple[_Run, Gain]] = []
    told: list[tuple[_Run, Sequence[str], list[str]]] = []
    for run in flight:
        if run.outcome is not None or run.returned is not None or run.refuse_if_spent(victim.has_gradients):
            continue
        if isinstance(run.question, Texts):
            texts = run.texts(run.question)
            told.append((run, texts, run.unread(texts)))
            continue
        scripts = run.scripts(victim.has_gradients)
        if scripts is None:
            assert isinstance(run.question, Gain)
            gained.append((run, run.question))
            continue
        with _Blamed(run):
            scored.append((run, scripts, run.subject.ask(scripts)))
    for (run, scripts, asked), logits in _each(scored, lambda some: victim.answer([asked for _, _, asked in some])):
        run.scored(asked, scripts, logits)
    for (run, gain), gains in _each(
        gained, lambda some: victim.gains([(run.subject, gain, run.example.label) for run, gain in some])
    ):
        run.gained(gain, gains)
    for (run, texts, unread), logits in _each(told, lambda some: _apart(victim, [unread for _, _, unread in some])):
        run.told(texts, dict(zip(unread, logits, strict=True)))


def _apart(victim: Respondent, asked: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """The logits of several lists of whole texts, evaluated together: [texts classes] each."""
    texts = [text for some in asked for text in some]
    logits = victim.logits(texts) if texts else np.empty((0, victim.classes))
    return np.split(logits, np.cumsum([len(some) for some in asked])[:-1])


def _judge(victim: Respondent, returned: Sequence[_Run]) -> None:
    """Decide about scripts that attacks handed in: inside the threat set, and misclassified anew as joined texts."""
    to_evaluate: list[tuple[_Run, str]] = []
    for run in returned:
        script = run.returned
        assert script is not None
        reason = run.sentence.violation(script)
        if reason is not None:
            run.fail(f"the attack returned a script outside its threat: {reason}")
        elif not script:
            run.survive()
        else:
            to_evaluate.append((run, run.sentence.apply(script)))
    for (run, _), logits in _each(to_evaluate, lambda some: list(victim.logits([text for _, text in some]))):
        predicted = int(logits.argmax())
        assert run.returned is not None
        if predicted != run.example.label:
            run.end("broken", run.returned, predicted, float(margins(logits[None], run.example.label)[0]))
        else:
            run.note([run.returned], logits[None], margins(logits[None], run.example.label))
            run.survive()


_Item = TypeVar("_Item", bound=tuple[Any, ...])
_Answer = TypeVar("_Answer")


def _each(
    items: Sequence[_Item], ask: Callable[[Sequence[_Item]], Sequence[_Answer]]
) -> Iterator[tuple[_Item, _Answer]]:
    """Items, each a tuple that begins with its run, and the victim's answers, asked for all at once.

    If the victim fails, it is asked one by one, and the run whose text it fails on is an error. A model is a
    stranger's code like an attack: it may raise anything.
    """
    if not items:
        return
    try:
        answers = ask(items)
    except Exception:  # noqa: BLE001
        for item in items:
            try:
                answer = ask([item])[0]
            except Exception as error:  # noqa: BLE001
                item[0].fail(_failure(error))
            else:
                yield item, answer
        return
    yield from zip(items, answers, strict=True)


def _check_labels(victim: Respondent, examples: Sequence[Example]) -> None:
    for example in examples:
        if not 0 <= example.label < victim.classes:
            raise MalformedInput(
                f"example {example.id} has label {example.label}, the model has {victim.classes} classes; "
                "evaluate it on the dataset it was trained for"
            )


# --- the journal -----------------------------------------------------------------------------------------


def _journal_key(
    victim: Respondent,
    attack: Attack,
    examples: Sequence[Example],
    name: str,
    seed: int,
    lexicon: Lexicon | None,
    stop_words: frozenset[str],
    vocabulary: Sequence[str],
) -> str:
    """What an outcome depends on, digested: two calls with the same key have the same outcomes."""
    data = hashlib.sha256()
    for example in examples:
        data.update(json.dumps([example.id, example.label, example.text]).encode())
    parts = {
        "behaviour": BEHAVIOUR,
        "name": name,
        "attack": repr(attack),
        "victim": victim.digest,
        "data": data.hexdigest(),
        "seed": seed,
        "lexicon": getattr(lexicon, "digest", repr(lexicon)),
        "words": hashlib.sha256(json.dumps([sorted(stop_words), list(vocabulary)]).encode()).hexdigest(),
        "gradients": victim.has_gradients,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class _Journal:
    """Finished outcomes on disk, one JSON line each behind a header; ``path`` None keeps none.

    A line that a kill cut short is cut off and its example attacked again; any other damage is an error.
    """

    def __init__(self, path: Path | None, key: str, name: str, ids: Sequence[str]) -> None:
        self._path = path
        self._header = {"journal": 1, "attack": name, "key": key}
        self._ids = ids
        self._file: IO[bytes] | None = None
        self.outcomes: dict[int, Outcome] = {}

    def __enter__(self) -> _Journal:
        if self._path is None:
            return self
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("r+b" if self._path.exists() else "w+b")
            whole = self._file.read()
        except OSError as error:
            raise StorageError(
                f"journal {self._path}: {error.strerror}; choose a folder that can be written"
            ) from error
        kept = whole[: whole.rfind(b"\n") + 1]
        if kept:
            self._load(kept)
        self._file.seek(len(kept))
        self._file.truncate()
        if not kept:
            self._append(self._header)
        self.flush()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _load(self, kept: bytes) -> None:
        lines = kept.decode("utf-8", "replace").splitlines()
        try:
            header, *rows = [json.loads(line) for line in lines]
            if header != self._header:
                raise UsageError(
                    f"journal {self._path} belongs to another run ({header.get('attack')}); delete it or name another"
                )
            for row in rows:
                place, outcome = row.pop("place"), _outcome(row)
                if self._ids[place] != outcome.id:
                    raise ValueError(f"place {place} is not {outcome.id}")
                self.outcomes[place] = outcome
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise MalformedInput(f"journal {self._path} is damaged ({error}); delete it to start again") from error

    def write(self, place: int, outcome: Outcome) -> None:
        if self._file is None:
            return
        row = {"place": place, **asdict(outcome)}
        if math.isnan(outcome.margin):
            row["margin"] = None
        self._append(row)

    def _append(self, row: Mapping[str, Any]) -> None:
        if self._file is not None:
            try:
                self._file.write(json.dumps(row).encode() + b"\n")
            except OSError as error:
                raise self._lost(error) from error

    def flush(self) -> None:
        """Hand what was written to the operating system: it survives a kill of this process."""
        if self._file is not None:
            try:
                self._file.flush()
            except OSError as error:
                raise self._lost(error) from error

    def _lost(self, error: OSError) -> StorageError:
        return StorageError(f"journal {self._path}: {error.strerror}; what it holds is kept, the same command goes on")


def _outcome(row: dict[str, Any]) -> Outcome:
    row["script"] = tuple(Edit(*edit) for edit in row["script"])
    if row["margin"] is None:
        row["margin"] = math.nan
    return Outcome(**row)
