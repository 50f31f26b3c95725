"""The nouns of gritbench. This file imports nothing of the house, and no numerical library at run time.

A model author needs :class:`Model` and perhaps :class:`Program`; an attack author :class:`Attack`,
:class:`Sentence` and the two questions; a reader :class:`Outcome`.

Shapes stand in square brackets over five axes: batch seq words feat classes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self, overload

if TYPE_CHECKING:
    import random

    import numpy as np
    import torch

# --- data ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text. ``id`` is the first 16 hex digits of sha256(split, text, occurrence)."""

    id: str
    text: str
    label: int
    user: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A named task at one revision; ``revision`` is the sha256 over the ids and labels of all splits."""

    name: str
    revision: str
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    licence: str = "unknown"
    notes: tuple[str, ...] = ()  # what a reader must know: overlaps removed, duplicates, splits made by us


# --- edits, questions, attacks ---------------------------------------------------------------------


class Edit(NamedTuple):
    """One change to the words of the *original* text.

    ``replace`` writes ``word`` over word ``index``; ``insert`` puts ``word`` before word ``index``
    (index == number of words appends); ``delete`` removes word ``index``; ``unknown`` makes the victim
    read word ``index`` as its own unknown token: it may be asked about, but is never a legal final edit.
    """

    op: Literal["replace", "insert", "delete", "unknown"]
    index: int  # type: ignore[assignment]  # the field hides tuple.index, which nobody calls on an edit
    word: str = ""


Script = tuple[Edit, ...]
"""An edit script, sorted by index; ``()`` is the original text."""


@dataclass(frozen=True, slots=True)
class Grid(Sequence[Edit]):
    """Every one of ``words`` in every one of ``sites``, site by site: a list of replacements that is never written out.

    A vocabulary of 20,000 words at 200 places is four million edits; a victim may see that they are a product.
    """

    sites: Sequence[int]
    words: Sequence[str]

    def __len__(self) -> int:
        return len(self.sites) * len(self.words)

    @overload
    def __getitem__(self, place: int) -> Edit: ...
    @overload
    def __getitem__(self, place: slice) -> list[Edit]: ...
    def __getitem__(self, place: int | slice) -> Edit | list[Edit]:
        if isinstance(place, slice):
            return [self[each] for each in range(len(self))[place]]
        site, word = divmod(range(len(self))[place], len(self.words))
        return Edit("replace", self.sites[site], self.words[word])

    def __iter__(self) -> Iterator[Edit]:
        return (Edit("replace", site, word) for site in self.sites for word in self.words)


@dataclass(frozen=True, slots=True)
class Score:
    """Question: the logits of the text under each script. Answer: float64 array [scripts classes].

    Costs one query a script. The answer is shorter than the question when the query budget ends inside it.
    """

    scripts: Sequence[Script]


@dataclass(frozen=True, slots=True)
class Gain:
    """Question: first-order rise of the attack margin for each single edit on top of ``base``.

    Answer: float64 array [edits], grad_i . (features(new word) - features(word i)), summed over the
    tokens of the word. Costs one gradient pass; a victim without gradients answers by scoring every
    edit instead, and then each edit costs a query. Not ``aligned``: word ``index`` is taken for token
    ``index``, as TextAttack does, whatever the tokens are.
    """

    base: Script
    edits: Sequence[Edit]
    aligned: bool = True


@dataclass(frozen=True, slots=True)
class Texts:
    """Question: the logits of whole texts. Answer: float64 array [texts classes].

    For searches of other tools, which write their texts themselves; the script they return is judged like any.
    Costs one query a text. The answer is shorter than the question when the query budget ends inside it.
    """

    texts: Sequence[str]


Question = Score | Gain | Texts


class BudgetSpent(Exception):
    """Thrown into an attack at its yield when it asks beyond its query budget; it may still return a script."""


@dataclass(frozen=True)
class Threat:
    """What an attacker may do to a text: checked exactly for every claimed break.

    spaces: any of ``synonyms`` (of the lexicon, in the case of the word), ``synonyms_same_pos`` (of those, the ones of
        its part of speech), ``lemmas`` (as the lexicon lists them), ``typos`` (Damerau-Levenshtein distance at most
        ``typo_distance``, 1 for words under 5 letters; ASCII letters only), ``characters`` (any string
        of word characters), ``vocabulary`` (any word the attack was given); a replacement must lie in one of them.
        ``any`` is no space of replacements: any word may be written, inserted or deleted.
    max_words: share of the words of the text that may change, at least one word; 1.0 is all.
    """

    spaces: tuple[str, ...] = ("synonyms",)
    lexicon: str = "default"
    max_words: float = 0.25
    typo_distance: int = 2
    protect_stop_words: bool = True
    max_text_distance: int | None = None  # Levenshtein distance between whole texts
    max_queries: int = 5000


class Sentence(Protocol):
    """One text as an attack sees it: its words, and what the threat allows to stand in their places."""

    text: str
    words: tuple[str, ...]
    max_edits: int
    vocabulary: Sequence[str]  # the threat's space of that name, in the order in which it was given

    def candidates(self, index: int) -> tuple[str, ...]:
        """Replacements of word ``index`` that the threat's enumerable spaces hold, in a fixed order."""
        ...

    def apply(self, script: Script) -> str:
        """The text under a script: exactly the named spans change."""
        ...

    def allows(self, script: Script) -> bool:
        """Whether the threat holds a script; the engine's judge asks the same question."""
        ...

    def protected(self, index: int) -> bool:
        """Whether word ``index`` is a stop word that the threat protects."""
        ...

    def typos(self, word: str) -> tuple[str, ...]:
        """Every string one letter edit away from any ``word``: for searches that edit a changed word again."""
        ...


class Attack(Protocol):
    """A generator over one text: it asks questions and returns its best script. It never holds the model.

    A frozen dataclass whose fields are its hyper-parameters; ``threat`` is one of them. The engine
    answers, counts, enforces the budget and alone decides whether the returned script is a break.
    """

    threat: Threat
    tier: str
    tiers: ClassVar[Mapping[str, Mapping[str, Any]]]  # tier -> the field values that make it

    def attack(self, sentence: Sentence, label: int, rng: random.Random) -> Generator[Question, np.ndarray, Script]: ...


OutcomeKind = Literal["broken", "survived", "skipped", "error"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attack did to one example.

    skipped: misclassified before any attack (not robust). error: the attack or the model failed (never
    robust). ``script`` is the break, or for survivors the nearest miss; ``margin`` is the largest other
    logit minus the gold logit there (positive: broken). ``trace`` digests the sequence of questions.
    """

    id: str
    outcome: OutcomeKind
    script: Script = ()
    predicted: int = -1
    margin: float = float("nan")
    queries: int = 0
    gradients: int = 0
    cache_hits: int = 0
    words: int = 0  # words of the original text
    trace: str = ""
    reason: str = ""  # of an error


# --- models ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How a model likes to be trained; a scheme says on what, a recipe how long and how fast."""

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-3
    decay_every: int = 0  # epochs between steps of the learning rate; 0: never
    decay: float = 0.1
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    patience: int = 5  # epochs without a better dev score before stopping; 0: never

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("decay_every", 0), ("patience", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"recipe: {name}={getattr(self, name)}: expected {least} or more")
        for name in ("learning_rate", "decay", "weight_decay", "clip_norm"):
            if not getattr(self, name) >= 0:  # NaN too
                raise UsageError(f"recipe: {name}={getattr(self, name)}: expected 0 or more")


class Reading(NamedTuple):
    """What a body makes of a text: one vector a token and one for all."""

    words: torch.Tensor  # [batch seq feat] trainable per-token representation
    state: torch.Tensor  # [batch feat] what the head reads


class Model(Protocol):
    """text -> tokens -> features -> logits: a torch.nn.Module cut at the feature layer.

    ``tokenize`` must not look across white space unless ``separable`` is False:
    tokenize(a + " " + b) == tokenize(a) + tokenize(b). Logits of a text never depend on its batch.
    """

    Config: ClassVar[type]
    recipe: ClassVar[Recipe]
    separable: ClassVar[bool]
    config: Any
    classes: int
    vocabulary: tuple[str, ...]  # () for models that hash
    max_tokens: int

    def __init__(self, config: Any, vocabulary: tuple[str, ...], classes: int) -> None:
        """The layers, with weights still to be drawn or loaded: how a saved model is put together again."""
        ...

    @classmethod
    def build(cls, config: Any, texts: Sequence[str], classes: int, seed: int) -> Self:
        """A fresh model; vocabulary and idf are learned from ``texts``, weights drawn from ``seed``."""
        ...

    def tokenize(self, text: str) -> list[str]: ...

    def codes(self, tokens: Sequence[str]) -> np.ndarray:
        """tokens -> integer codes, one row a token: [tokens] (row numbers) or [tokens feat] (hash features)."""
        ...

    def features(self, codes: torch.Tensor) -> torch.Tensor:
        """codes [batch seq (feat)] -> features [batch seq feat]: where gradients and perturbations meet text."""
        ...

    def read(self, features: torch.Tensor, lengths: torch.Tensor) -> Reading: ...

    def head(self, state: torch.Tensor) -> torch.Tensor:
        """state [batch feat] -> logits [batch classes]."""
        ...

    def constrain(self, progress: float) -> None:
        """Called after every optimiser step with the share of training done, in (0, 1]: sparsity, projections."""
        ...

    def program(self) -> Program | None:
        """The trained model as layers that every exporter understands; None: exported through torch's tracer."""
        ...


# --- what ships ------------------------------------------------------------------------------------
# Arrays are float32 numpy; weights are [out in]; batch normalisation is folded by the model.


@dataclass(frozen=True)
class Rows:
    """Word layer: a row of ``table`` [rows feat] a token; row 0 is the unknown word.

    ``ngrams`` > 0: tokens are the word n-grams up to that order, hashed into the rows (no vocabulary).
    """

    table: np.ndarray
    ngrams: int = 0


@dataclass(frozen=True)
class Ternary:
    """Word layer: ``width`` features in {-1, 0, 1} from a hash of the token (specs: string projection)."""

    width: int


@dataclass(frozen=True)
class Dense:
    weight: np.ndarray  # [out in]
    bias: np.ndarray  # [out]
    relu: bool = False


@dataclass(frozen=True)
class Lstm:
    """Gates in the order input, forget, cell, output; reads to the last token; state = h."""

    input_weight: np.ndarray  # [4h in]
    state_weight: np.ndarray  # [4h h]
    bias: np.ndarray  # [4h]


@dataclass(frozen=True)
class FastGrnn:
    """p = W x + U h; z = sigmoid(p + bias_gate); c = tanh(p + bias_update); h = z h + (zeta (1 - z) + nu) c."""

    input_weight: np.ndarray  # [h in]
    state_weight: np.ndarray  # [h h]
    bias_gate: np.ndarray
    bias_update: np.ndarray
    zeta: float  # after the sigmoid
    nu: float


@dataclass(frozen=True)
class Kernel:
    """A width-k convolution over tokens, padded with zeros on the right: weight [out k in]."""

    value_weight: np.ndarray
    value_bias: np.ndarray
    attention_weight: np.ndarray
    attention_bias: np.ndarray


@dataclass(frozen=True)
class AttentionPool:
    """Projected attention (PRADO): per kernel, softmax over time a channel of the attention, times the value."""

    value: Dense
    attention: Dense
    kernels: tuple[Kernel, ...]


@dataclass(frozen=True)
class Mean:
    """The mean of the token features."""


@dataclass(frozen=True)
class Program:
    """A trained model as data: what is quantised, exported and compiled."""

    words: Rows | Ternary
    body: Lstm | FastGrnn | AttentionPool | Mean
    head: Dense
    vocabulary: tuple[str, ...]
    max_tokens: int


class Artefact(Protocol):
    """Exported bytes, loaded: what is measured, attacked and ranked. Needs no torch.

    Tokens are interned into rows of a growing table, so that the features of a word are computed once;
    tokens the artefact cannot tell apart share a row. An empty text reads as the one token "".
    """

    separable: bool  # tokenize(a + " " + b) == tokenize(a) + tokenize(b)
    exact: bool  # logits are bit-identical on every machine, in every batch
    classes: int
    max_tokens: int
    digest: str  # sha256 of the exported bytes
    sizes_bytes: Mapping[str, int]  # part -> bytes; their sum is the deployed size

    def tokenize(self, text: str) -> list[str]: ...

    def intern(self, tokens: Sequence[str]) -> np.ndarray:
        """tokens -> int32 rows [tokens]; intern([""]) is the unknown word."""
        ...

    def token(self, row: int) -> str:
        """A token that interns to this row."""
        ...

    def logits(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """rows [batch seq] (int32, ignored beyond a length), lengths [batch] >= 1 -> float64 [batch classes]."""
        ...


# --- schemes and targets ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """One weighted objective of a scheme: its registry key, weight, and the fields that differ from its defaults."""

    objective: str
    weight: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scheme:
    """A named, frozen set of objectives; ``teacher`` names the model distilled from, if any term needs one."""

    name: str
    terms: tuple[Term, ...]
    teacher: str = "teacher"


class Target(Protocol):
    """A place that runs exported bytes and says what they cost there."""

    def probe(self) -> Mapping[str, Any]:
        """What the place is: architecture, cores, frequency, governor; raises CouldNotMeasure with the remedy."""
        ...

    def measure(self, artefact: Any, texts: Iterable[str]) -> Mapping[str, Any]: ...


# --- errors: each carries its exit code ------------------------------------------------------------


class GritError(Exception):
    """One line for the user: what, what was got, what to do."""

    exit_code: ClassVar[int] = 7


class Verdict(GritError):
    """A verdict against: regression, false claim, failed check."""

    exit_code = 1


class UsageError(GritError):
    exit_code = 2


class Inconclusive(GritError):
    exit_code = 3


class CouldNotMeasure(GritError):
    """Missing data, tool, baseline, or another machine."""

    exit_code = 4


class SandboxViolation(GritError):
    exit_code = 5


class MalformedInput(GritError):
    exit_code = 6


class StorageError(GritError):
    """Disk full, read-only, unreadable."""

    exit_code = 8
