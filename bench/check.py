"""The public contract of models and attacks, run on anyone's class: ok, or what broke and what to do, in words.

``grit check NAME`` calls this for a name of the registry; a test of a stranger's package calls :func:`check` on
the class itself. Each clause is one function below, and its name is what is printed. Texts, classes and victims
are made here, so no data and no training run is needed; one check takes seconds.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import random
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from grit.bench import evaluate, registry
from grit.bench.sentence import Text
from grit.bench.text import normalise
from grit.bench.types import (
    BudgetSpent,
    CouldNotMeasure,
    Edit,
    Example,
    Gain,
    Model,
    Outcome,
    Reading,
    Recipe,
    Score,
    Texts,
    Threat,
    UsageError,
)
from grit.bench.victim import CallableVictim

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-4  # logits of one text in two batches, relative to the largest of them: float sums in another order
EXPORT_TOLERANCE = 1e-3  # logits of the exported program against the model's own, likewise
CLASSES = 3
SEED = 0
KINDS = ("models", "attacks")


@dataclass(frozen=True)
class Finding:
    """One clause of the contract, kept or broken."""

    name: str
    ok: bool
    message: str = ""  # what broke and what to do, or why it could not be checked


class Broken(Exception):
    """A clause does not hold; the text says what broke and what to do."""


def check(kind: str, name_or_class: str | type) -> list[Finding]:
    """Every clause of the contract of ``kind`` ("models" or "attacks"), run on a registered name or on a class.

    A class that does not even have the right shape gets that one finding. Raises UsageError for an unknown kind
    or name, or a file that cannot be loaded.
    """
    if kind not in KINDS:
        raise registry.unknown("kind with a contract", kind, KINDS, f"there is one for {' and '.join(KINDS)}")
    cls = registry.load(kind, name_or_class) if isinstance(name_or_class, str) else name_or_class
    findings = [_judged("it has the shape of the noun", _model_shape if kind == "models" else _attack_shape, cls)]
    if not findings[0].ok:
        return findings
    if kind == "models":
        specimen = _Specimen(cls)
        return findings + [_judged(name, clause, specimen) for name, clause in _MODEL_CLAUSES.items()]
    suspect = _Suspect(cls)
    findings += [_judged(name, clause, suspect) for name, clause in _ATTACK_CLAUSES.items()]
    return findings + [Finding(f"tier {tier}: not checked", True, why) for tier, why in suspect.absent.items()]


def check_name(name: str) -> list[Finding]:
    """:func:`check` on a name, whichever kind it is of."""
    known = {kind: registry.names(kind) for kind in KINDS}
    kinds = [kind for kind in KINDS if name in known[kind]]
    if not kinds:
        everything = [each for kind in KINDS for each in known[kind]]
        raise registry.unknown("model or attack", name, everything, "'grit list' shows them all")
    return [finding for kind in kinds for finding in check(kind, name)]


def as_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(finding) for finding in findings]


def render(findings: Sequence[Finding]) -> str:
    """One line a clause, and a last one that counts."""
    lines = [f"{'ok  ' if f.ok else 'FAIL'}  {f.name}{': ' if f.message else ''}{f.message}" for f in findings]
    broken = sum(not finding.ok for finding in findings)
    lines.append(f"{broken} of {len(findings)} broken" if broken else f"all {len(findings)} kept")
    return "\n".join(lines)


def _judged(name: str, clause: Callable[[Any], None], subject: Any) -> Finding:
    try:
        clause(subject)
    except Broken as broken:
        return Finding(name, False, str(broken))
    except CouldNotMeasure:
        raise  # the machine lacks something: no verdict on the class
    # The code under test is a stranger's and may fail in any way; that it does is the finding.
    except Exception as error:  # noqa: BLE001
        place = ""
        for frame in inspect.trace():
            if not frame.filename.startswith(str(inspect.getfile(check))):
                place = f" at {frame.filename}:{frame.lineno}"
        said = " ".join(str(error).split())
        return Finding(name, False, f"it raised {type(error).__name__}: {said}{place}; correct it")
    return Finding(name, True)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)


def _is_frozen(cls: Any) -> bool:
    parameters = getattr(cls, "__dataclass_params__", None)
    return isinstance(cls, type) and parameters is not None and bool(parameters.frozen)


# --- texts -------------------------------------------------------------------------------------------
# Kept plain on purpose: each has one word that tells its class, and no word of another class.

_TOPICS = (
    ("harbour", "the {} was full of boats when we walked past it in the morning"),
    ("violin", "she tuned her {} twice before the lights went down again"),
    ("pepper", "add a little {} to the soup and let it stand for an hour"),
)
_SIDES = ("today", "yesterday", "slowly", "early", "alone", "twice", "outside", "gladly")
TEXTS = tuple(f"{sentence.format(word)} {side}" for side in _SIDES for word, sentence in _TOPICS)
LABELS = tuple(label for _ in _SIDES for label in range(CLASSES))

ODD_TEXTS: Mapping[str, str] = {
    "an empty text": "",
    "white space alone": " \t\n ",
    "one word": "harbour",
    "punctuation alone": "?! ... --",
    "emoji": "\U0001f642 fine \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
    "right-to-left text": "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 harbour",
    "combining marks": "cafe\u0301 nai\u0308ve Z\u0335\u0321\u0346algo",
    "a lone surrogate": "half \ud83d of a pair",
    "control characters": "a\x00b \x1b[31m harbour",
    "a word of 5,000 letters": "x" * 5_000,
    "10,000 words": " ".join(f"word{i % 700}" for i in range(10_000)),
}


# --- models ------------------------------------------------------------------------------------------


def _model_shape(cls: Any) -> None:
    import torch

    _require(isinstance(cls, type) and issubclass(cls, torch.nn.Module), f"{cls!r} is no class of torch.nn.Module")
    wanted = ("Config", "recipe", "separable")
    methods = ("build", "tokenize", "codes", "features", "read", "head", "constrain", "program")
    for name in wanted + methods:
        _require(hasattr(cls, name), f"the class has no {name!r}: types.Model says what it is")
    _require(
        _is_frozen(cls.Config),
        "Config must be a dataclass with frozen=True, so that it can be recorded and compared",
    )
    _require(isinstance(cls.recipe, Recipe), f"recipe must be a types.Recipe, got {type(cls.recipe).__name__}")
    _require(isinstance(cls.separable, bool), f"separable must be True or False, got {cls.separable!r}")


class _Specimen:
    """A model class, and one of its models that has been trained for a few steps."""

    def __init__(self, cls: Any) -> None:
        self.cls = cls
        self._model: Any = None

    def fresh(self) -> Any:  # a Model that is a torch.nn.Module, by the first clause
        return self.cls.build(self.cls.Config(), list(TEXTS), CLASSES, SEED)

    @property
    def model(self) -> Any:
        """Trained a little, so that no weight is where it began; in evaluation mode."""
        if self._model is None:
            model = self.fresh()
            for _ in range(3):
                _train_step(model)
            self._model = model.eval()
        return self._model


def _padded(model: Model, texts: Sequence[str], extra: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """texts -> codes [batch seq (feat)], zero behind each text and ``extra`` places longer, and lengths [batch]."""
    import torch

    rows = [model.codes((model.tokenize(normalise(text)) or [""])[: model.max_tokens]) for text in texts]
    lengths = [len(row) for row in rows]
    codes = np.zeros((len(rows), max(lengths) + extra, *rows[0].shape[1:]), rows[0].dtype)
    for line, row in zip(codes, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(codes), torch.tensor(lengths)


def _forward(model: Model, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    reading = model.read(model.features(codes), lengths)
    _require(isinstance(reading, Reading), f"read must give a types.Reading, got {type(reading).__name__}")
    return model.head(reading.state)


def _logits(model: Model, texts: Sequence[str], extra: int = 0) -> np.ndarray:
    import torch

    with torch.no_grad():
        return _forward(model, *_padded(model, texts, extra)).double().numpy()


def _train_step(model: Model) -> dict[str, bool]:
    """One step of Adam on the texts above: parameter -> whether a gradient reached it."""
    import torch

    assert isinstance(model, torch.nn.Module)
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    loss = torch.nn.functional.cross_entropy(_forward(model, *_padded(model, TEXTS)), torch.tensor(LABELS))
    _require(
        bool(torch.isfinite(loss)), f"the loss of the first training step is {loss.item()}; check the initial weights"
    )
    optimiser.zero_grad()
    loss.backward()
    reached = {name: weight.grad is not None for name, weight in model.named_parameters() if weight.requires_grad}
    optimiser.step()
    model.constrain(1.0)
    return reached


def _close(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    return float(np.abs(found - wanted).max()) <= tolerance * max(1.0, float(np.abs(wanted).max()))


def _config_is_a_value(specimen: _Specimen) -> None:
    config = specimen.cls.Config()
    text = repr(config)
    try:
        # Its own repr, in the names of its own file: what a user would paste back.
        pasted = eval(text, {**vars(sys.modules[specimen.cls.__module__]), specimen.cls.__name__: specimen.cls})
    except (SyntaxError, NameError, TypeError, AttributeError) as error:
        raise Broken(
            f"repr(Config()) is {text}, which cannot be pasted back ({error}); use plain field values"
        ) from None
    _require(pasted == config, f"repr(Config()) is {text}, but pasted back it is {pasted!r}; use plain field values")
    fields = dataclasses.asdict(config)
    kept = json.loads(json.dumps(fields, default=repr))
    for name, value in fields.items():
        back = tuple(kept[name]) if isinstance(value, tuple) else kept[name]
        _require(back == value, f"Config.{name} is {value!r}, which JSON cannot hold; use numbers, strings, tuples")


def _weights_come_from_the_seed(specimen: _Specimen) -> None:
    first = _weights(specimen.fresh())
    with _other_global_generators():
        second = _weights(specimen.fresh())
    for name, weight in first.items():
        _require(
            name in second and np.array_equal(weight, second[name]),
            f"{name} differs between two builds with the same seed: draw it from torch.Generator().manual_seed(seed), "
            "never from a global generator",
        )


def _weights(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


@contextmanager
def _other_global_generators() -> Iterator[None]:
    """All global generators in another state than before; put back after."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  # the global one is the very thing in doubt
    random.seed(12345)  # noqa: TID251
    np.random.seed(12345)  # noqa: NPY002, TID251
    torch = sys.modules.get("torch")
    before = torch.random.get_rng_state() if torch else None
    if torch:
        torch.manual_seed(12345)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        if torch:
            torch.random.set_rng_state(before)


def _attributes_agree(specimen: _Specimen) -> None:
    model = specimen.model
    _require(model.classes == CLASSES, f"classes is {model.classes!r} on a model built for {CLASSES}")
    _require(
        model.config == specimen.cls.Config(), "config is not the value the model was built with; store it as it is"
    )
    _require(
        isinstance(model.max_tokens, int) and model.max_tokens > 0,
        f"max_tokens is {model.max_tokens!r}, expected a whole number above 0",
    )
    words = model.vocabulary
    _require(isinstance(words, tuple), f"vocabulary must be a tuple of words, got {type(words).__name__}")
    _require(not words or words[0] == "", "row 0 of a vocabulary is the unknown word, written ''")
    _require(len(set(words)) == len(words), "the vocabulary holds a word twice")


def _tokens_are_separable(specimen: _Specimen) -> None:
    model = specimen.model
    texts = [normalise(text) for text in (*TEXTS[:4], *ODD_TEXTS.values())]
    for text in texts:
        tokens = model.tokenize(text)
        _require(
            isinstance(tokens, list) and all(isinstance(token, str) for token in tokens),
            f"tokenize({text[:20]!r}) must give a list of strings, got {tokens!r:.60}",
        )
        _require(model.tokenize(text) == tokens, f"tokenize({text[:20]!r}) differs between two calls")
    if model.separable:
        pairs = [(a, b) for a in texts for b in texts if a and b and len(a) + len(b) < 1000]
        for a, b in pairs:
            _require(
                model.tokenize(f"{a} {b}") == model.tokenize(a) + model.tokenize(b),
                f"the tokens of {a[:20]!r} and {b[:20]!r} differ when a blank joins the two; "
                "do not look across white space, or set separable = False",
            )


def _odd_texts_are_answered(specimen: _Specimen) -> None:
    for what, text in ODD_TEXTS.items():
        try:
            logits = _logits(specimen.model, [text])
        except Exception as error:
            raise Broken(f"{what} raised {type(error).__name__}: {error}; answer any text") from error
        _require(logits.shape == (1, CLASSES), f"{what} gave logits {list(logits.shape)}, expected [1 {CLASSES}]")
        _require(bool(np.isfinite(logits).all()), f"{what} gave logits that are NaN or infinite; answer any text")


def _batches_do_not_matter(specimen: _Specimen) -> None:
    model = specimen.model
    texts = [*TEXTS[:6], ODD_TEXTS["one word"], ODD_TEXTS["an empty text"], " ".join(TEXTS)]
    alone = np.concatenate([_logits(model, [text]) for text in texts])
    for what, found in {
        "in a batch with longer texts": _logits(model, texts),
        "in the reverse batch": _logits(model, texts[::-1])[::-1],
        "with seven more places of padding": _logits(model, texts, extra=7),
    }.items():
        _require(
            _close(found, alone, TOLERANCE),
            f"logits of a text differ by {np.abs(found - alone).max():.2g} {what}; mask what lies behind its length, "
            "and use no statistics of the batch in evaluation mode",
        )


def _gradients_reach_the_features(specimen: _Specimen) -> None:
    import torch

    model = specimen.model
    codes, lengths = _padded(model, TEXTS[:3])
    features = model.features(codes).detach().requires_grad_(True)
    _require(features.ndim == 3, f"features are {list(features.shape)}, expected [batch seq feat]")
    reading = model.read(features, lengths)
    _require(
        reading.words.shape[:2] == features.shape[:2],
        f"Reading.words is {list(reading.words.shape)}, expected one vector a token: [batch seq feat]",
    )
    logits = model.head(reading.state)
    _require(logits.shape == (3, CLASSES), f"head gave {list(logits.shape)}, expected [batch classes]")
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), features, allow_unused=True)
    _require(
        gradient is not None, "no gradient reaches the features: read and head must compute on what they are given"
    )
    _require(bool(torch.isfinite(gradient).all()), "the gradient at the features is NaN or infinite")
    _require(
        all(bool(row.abs().sum() > 0) for row in gradient),
        "the gradient at the features is zero for a text: white-box attacks and attributions would see nothing",
    )


def _training_changes_weights(specimen: _Specimen) -> None:
    model = specimen.fresh()
    before = _weights(model)
    reached = _train_step(model)
    _require(bool(reached), "the model has no trainable parameters")
    missed = [name for name, yes in reached.items() if not yes]
    _require(not missed, f"no gradient reaches {', '.join(missed)}: use it between features and logits, or drop it")
    after = _weights(model)
    _require(
        any(not np.array_equal(before[name], after[name]) for name in reached),
        "a training step changed no weight; check that constrain does not put them back",
    )
    _require(all(np.isfinite(w).all() for w in after.values()), "a training step made weights NaN or infinite")


def _saving_keeps_every_bit(specimen: _Specimen) -> None:
    import safetensors.torch

    model = specimen.model
    saved = safetensors.torch.save({k: v.contiguous() for k, v in model.state_dict().items()})
    back = specimen.cls(model.config, model.vocabulary, model.classes)
    back.load_state_dict(safetensors.torch.load(saved))
    for what, other in (("saved and loaded", back.eval()), ("copied by copy.deepcopy", copy.deepcopy(model))):
        _require(
            np.array_equal(_logits(other, TEXTS), _logits(model, TEXTS)),
            f"a model {what} gives other logits: all that it learns belongs into parameters, buffers, config or "
            "vocabulary, and its constructor takes (config, vocabulary, classes)",
        )


def _exported_program_agrees(specimen: _Specimen) -> None:
    from grit.bench.export import packing, words
    from grit.bench.export.quantise import quantise

    model = specimen.model
    program = model.program()
    if program is None:
        from grit.bench.export import onnx

        traced = onnx.OnnxArtefact(onnx.traced(model, list(TEXTS)), model)
        _require(
            _close(words.answer(traced, TEXTS), _logits(model, TEXTS), EXPORT_TOLERANCE),
            "the ONNX graph that torch traces answers differently; avoid Python branches that depend on values",
        )
        return
    texts = [*TEXTS, *(text for what, text in ODD_TEXTS.items() if what != "a lone surrogate")]
    artefact = packing.artefact(packing.pack(program))
    for text in texts:
        ours, its = (model.tokenize(normalise(text)) or [""]), (artefact.tokenize(normalise(text)) or [""])
        _require(ours == its, f"the exported program cuts {text[:20]!r} into other tokens than the model does")
    found, wanted = words.answer(artefact, texts), _logits(model, texts)
    _require(
        _close(found, wanted, EXPORT_TOLERANCE),
        f"logits of program() differ from the model's by {np.abs(found - wanted).max():.2g}; "
        "fold batch normalisation, and state every layer",
    )
    fixed = packing.artefact(packing.pack(quantise(program, list(TEXTS))))
    _require(bool(np.isfinite(words.answer(fixed, texts)).all()), "the int8 program gives logits that are no numbers")


_MODEL_CLAUSES: Mapping[str, Callable[[_Specimen], None]] = {
    "its configuration is a value that can be pasted back": _config_is_a_value,
    "its weights come from the seed alone": _weights_come_from_the_seed,
    "its attributes say what it is": _attributes_agree,
    "its tokens are separable, or it says they are not": _tokens_are_separable,
    "any text has finite logits": _odd_texts_are_answered,
    "logits of a text do not depend on its batch": _batches_do_not_matter,
    "gradients reach the features": _gradients_reach_the_features,
    "training changes the weights, all of them reached": _training_changes_weights,
    "saving and loading keep every bit": _saving_keeps_every_bit,
    "what is exported answers as the model does": _exported_program_agrees,
}


# --- attacks -----------------------------------------------------------------------------------------


def _attack_shape(cls: Any) -> None:
    _require(
        _is_frozen(cls),
        "an attack is a dataclass with frozen=True: its fields are its hyper-parameters",
    )
    names = {field.name for field in dataclasses.fields(cls)}
    for field in ("threat", "tier"):
        _require(field in names, f"it has no field {field!r}: types.Attack says what it is")
    tiers = getattr(cls, "tiers", None)
    _require(
        isinstance(tiers, Mapping) and len(tiers) > 0 and "tiers" not in names,
        "it has no class attribute tiers: ClassVar[Mapping], tier -> the field values that make it",
    )
    _require(
        inspect.isgeneratorfunction(getattr(cls, "attack", None)),
        "it has no generator method attack(sentence, label, rng), which yields questions and returns its best script",
    )
    for tier, fields in cls.tiers.items():
        try:
            attack = cls(**fields)
        except TypeError as error:
            raise Broken(
                f"tiers[{tier!r}] does not make an attack ({error}); name fields, and default the rest"
            ) from None
        _require(isinstance(attack.threat, Threat), f"threat must be a types.Threat, got {attack.threat!r:.60}")
        try:
            _sentence(attack.threat, "harbour")
        except UsageError as error:
            raise Broken(f"tier {tier}: {error}") from None


class _Suspect:
    """An attack class, and its configured tiers; ``absent`` are those that this machine lacks something for."""

    def __init__(self, cls: Any) -> None:
        self.cls = cls
        self.tiers: dict[str, Any] = {}
        self.absent: dict[str, str] = {}
        self._full: dict[str, list[Outcome]] = {}
        for tier, fields in cls.tiers.items():
            attack = cls(**fields)
            try:
                sentence = _sentence(attack.threat, _EXAMPLES[0].text)
                sentence.candidates(0)
                next(attack.attack(sentence, 0, random.Random(SEED)), None)  # what it lacks it says before it asks
            except CouldNotMeasure as error:
                self.absent[tier] = str(error)
            except Exception:  # noqa: BLE001  a stranger's code may fail in any way; the clauses say how
                self.tiers[tier] = attack
            else:
                self.tiers[tier] = attack

    def full(self, tier: str) -> list[Outcome]:
        """Its outcomes on all examples, with the whole budget."""
        if tier not in self._full:
            self._full[tier] = self.outcomes(tier, _EXAMPLES)
        return self._full[tier]

    def outcomes(self, tier: str, examples: Sequence[Example], **changes: Any) -> list[Outcome]:
        """What the engine makes of a tier on the toy victim; ``budget`` lowers the threat's, the rest is passed on."""
        attack = self.tiers[tier]
        budget = min(attack.threat.max_queries, changes.pop("budget", _BUDGET))
        attack = dataclasses.replace(attack, threat=dataclasses.replace(attack.threat, max_queries=budget))
        lexical = registry.LEXICAL_SPACES & set(attack.threat.spaces)
        return evaluate.attack_all(
            CallableVictim(_toy_logits, name="toy", classes=CLASSES),
            attack,
            examples,
            name=f"check.{tier}",
            lexicon=_TOY_LEXICON if lexical else None,
            stop_words=frozenset({"the", "a", "in"}),
            vocabulary=("pepper", "stone"),
            **{"seed": SEED, **changes},
        )


_BUDGET = 2000  # queries: a toy needs few, and an endless attack must end
_ODD_CHARACTERS = 400  # of the odd texts: some attacks hold every typo of a text
_KEYWORDS = tuple(word for word, _ in _TOPICS)


def _toy_logits(texts: list[str]) -> np.ndarray:
    """A victim that reads keywords: two points for each, and one for the last class if there is none."""
    counts = [[2.0 * text.lower().split().count(word) for word in _KEYWORDS] for text in texts]
    return np.array(counts) + np.array([0.0, 0.0, 1.0])


class _ToyLexicon:
    """Two words for each keyword, whatever its part of speech, and one for a few that do not matter."""

    name = "toy"
    digest = "toy"
    _entries: Mapping[str, tuple[str, ...]] = {
        "harbour": ("port", "haven"),
        "violin": ("fiddle", "strings"),
        "boats": ("ships",),
        "morning": ("dawn",),
    }

    def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
        return self._entries.get(word.lower(), ())


_TOY_LEXICON = _ToyLexicon()

_EXAMPLES = tuple(  # short, so that a few hundred queries see every typo; the last class is the victim's fallback
    Example(f"toy{place:013d}", text, label)
    for place, (text, label) in enumerate(
        [("boats leave the harbour", 0), ("her violin again", 1), ("a foggy harbour in May", 0), ("violin lessons", 1)]
    )
)


def _fields_are_a_value(suspect: _Suspect) -> None:
    for attack in suspect.tiers.values():
        text = repr(attack)
        names = {**vars(sys.modules[suspect.cls.__module__]), suspect.cls.__name__: suspect.cls, "Threat": Threat}
        try:
            pasted = eval(text, names)  # its own repr, as a user would paste it back
        except (SyntaxError, NameError, TypeError, AttributeError) as error:
            raise Broken(f"{text} cannot be pasted back ({error}); use plain field values") from None
        _require(pasted == attack, f"{text} pasted back is {pasted!r}; use plain field values")


def _tiers_name_themselves(suspect: _Suspect) -> None:
    fields = {field.name for field in dataclasses.fields(suspect.cls)}
    _require(
        "strong" in suspect.cls.tiers or "recipe" in fields,
        "there is no tier 'strong', which is what a name without a tier means",
    )
    for tier, attack in suspect.tiers.items():
        _require(
            attack.tier == tier, f"tiers[{tier!r}] makes an attack whose tier is {attack.tier!r}; set the field tier"
        )
        _require("." not in tier and "+" not in tier, f"the tier {tier!r} holds a sign that parts names; use letters")


def _it_asks_and_returns(suspect: _Suspect) -> None:
    """Drives the generator by hand, with answers of the right shape, so that what it yields can be looked at."""
    for tier, attack in suspect.tiers.items():
        sentence = _sentence(attack.threat, _EXAMPLES[0].text)
        steps = attack.attack(sentence, 0, random.Random(SEED))
        _require(isinstance(steps, Generator), f"tier {tier}: attack gave {type(steps).__name__}, not a generator")
        answer: np.ndarray | None = None
        try:
            for _ in range(_BUDGET):
                question = steps.send(answer)
                if isinstance(question, Score):
                    answer = np.tile([3.0, 1.0, 2.0], (len(question.scripts), 1))
                elif isinstance(question, Texts):
                    answer = np.tile([3.0, 1.0, 2.0], (len(question.texts), 1))
                elif isinstance(question, Gain):
                    answer = np.zeros(len(question.edits))
                else:
                    raise Broken(f"tier {tier}: it yielded {question!r:.60}, not a Score or a Gain, nor Texts")
            steps.throw(BudgetSpent("the budget of this check"))
        except StopIteration as stop:
            _is_script(tier, stop.value)
        except BudgetSpent:
            continue  # that it does not catch it is its right


def _is_script(tier: str, script: Any) -> None:
    _require(
        isinstance(script, tuple) and all(isinstance(edit, Edit) for edit in script),
        f"tier {tier}: it returned {script!r:.60}; return a tuple of types.Edit, () for none",
    )


def _sentence(threat: Threat, text: str) -> Text:
    return Text(text, threat, _TOY_LEXICON, stop_words=frozenset({"the", "a", "in"}), vocabulary=("pepper", "stone"))


def _no_errors(tier: str, outcomes: Sequence[Outcome], where: str) -> None:
    for outcome in outcomes:
        _require(outcome.outcome != "error", f"tier {tier}, {where}: {outcome.reason}")


def _threat_and_budget_are_kept(suspect: _Suspect) -> None:
    for tier in suspect.tiers:
        for budget in (1, 7, _BUDGET):
            outcomes = suspect.full(tier) if budget == _BUDGET else suspect.outcomes(tier, _EXAMPLES, budget=budget)
            _no_errors(tier, outcomes, f"with {budget} queries")
            _require(
                all(o.queries <= budget for o in outcomes), f"tier {tier}: more queries than {budget} were counted"
            )


def _a_fragile_victim_breaks(suspect: _Suspect) -> None:
    for tier in suspect.tiers:
        outcomes = suspect.full(tier)
        _require(
            any(outcome.outcome == "broken" for outcome in outcomes),
            f"tier {tier} broke none of {len(outcomes)} texts that hang on one word; does it return what it found?",
        )


def _outcomes_come_from_the_seed(suspect: _Suspect) -> None:
    for tier in suspect.tiers:
        first = suspect.full(tier)
        with _other_global_generators():
            again = suspect.outcomes(tier, _EXAMPLES)
        _require(
            first == again,
            f"tier {tier}: two runs with one seed differ; draw from the rng it is given, never from a global one",
        )
        one_by_one = suspect.outcomes(tier, _EXAMPLES[::-1], window=1)[::-1]
        _require(
            first == one_by_one,
            f"tier {tier}: the outcome of a text depends on what was attacked before it; keep state in local variables",
        )


def _nothing_is_changed(suspect: _Suspect) -> None:
    for tier, attack in suspect.tiers.items():
        before = repr(attack), copy.deepcopy(vars(attack))
        state = random.getstate()
        suspect.outcomes(tier, _EXAMPLES[:2], budget=50)
        list(_questions(attack, _sentence(attack.threat, _EXAMPLES[0].text)))
        _require((repr(attack), vars(attack)) == before, f"tier {tier}: attacking changed the attack itself")
        _require(
            random.getstate() == state, f"tier {tier}: it draws from the global generator; use the rng it is given"
        )


def _questions(attack: Any, sentence: Text) -> Iterator[Any]:
    """The first questions of an attack that is always told the same."""
    steps = attack.attack(sentence, 0, random.Random(SEED))
    answer: np.ndarray | None = None
    for _ in range(50):
        try:
            question = steps.send(answer)
        except StopIteration:
            return
        yield question
        if isinstance(question, Gain):
            answer = np.zeros(len(question.edits))
        else:
            answer = np.zeros((len(question.scripts if isinstance(question, Score) else question.texts), CLASSES))
    steps.close()


def _odd_texts_are_survived(suspect: _Suspect) -> None:
    examples = [
        Example(f"odd{place:013d}", text, int(_toy_logits([text]).argmax()))
        for place, text in enumerate(normalise(text)[:_ODD_CHARACTERS] for text in ODD_TEXTS.values())
    ]
    names = list(ODD_TEXTS)
    for tier in suspect.tiers:
        for place, outcome in enumerate(suspect.outcomes(tier, examples, budget=60)):
            _require(outcome.outcome != "error", f"tier {tier}, on {names[place]}: {outcome.reason}")


def _torch_is_not_imported(suspect: _Suspect) -> None:
    module = suspect.cls.__module__
    if module == "__main__" or sys.modules[module].__spec__ is None:
        return  # cannot be imported by another process; attacks of packages and files can
    code = f"import sys; sys.path[:] = {sys.path!r}; import {module}; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if ran.returncode == 0:
        _require(
            ran.stdout.strip() != "True",
            f"importing {module} imports torch: an attack asks the engine and needs none; import it where it is used",
        )


_ATTACK_CLAUSES: Mapping[str, Callable[[_Suspect], None]] = {
    "it is a value that can be pasted back": _fields_are_a_value,
    "its tiers name themselves, 'strong' among them": _tiers_name_themselves,
    "it asks questions and returns a script": _it_asks_and_returns,
    "threat and budget are kept": _threat_and_budget_are_kept,
    "a fragile victim breaks": _a_fragile_victim_breaks,
    "outcomes come from the seed and the text alone": _outcomes_come_from_the_seed,
    "attacking changes nothing": _nothing_is_changed,
    "odd texts are survived": _odd_texts_are_survived,
    "it does not import torch": _torch_is_not_imported,
}
