"""One bundle under verification: what all checks look at, worked out when it is first asked for.

The model answers texts and sees nothing else: no ids, no labels, and an order that the author of the bundle could not
know. It does so in the sandbox, unless whoever verifies says that the bundle is his own.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from grit.bench import records, submission
from grit.bench.submission import MODEL, Bundle, Submission
from grit.bench.types import CouldNotMeasure, Dataset, Example, MalformedInput, Outcome, Script, Threat, UsageError

if TYPE_CHECKING:
    import numpy as np

    from grit.bench.sentence import Text
    from grit.bench.types import Artefact, Model
    from grit.bench.verify.verdict import Floor

Level = Literal["lint", "replay", "spot", "full"]
LEVELS: tuple[Level, ...] = ("lint", "replay", "spot", "full")
ATTACKED_S = 3600  # of the processor, for all questions of one attack on a graph
SPOT = 100  # survivors attacked again: no hit bounds false survivors below 2.95 %

# --- who answers ------------------------------------------------------------------------------------


class Answered(NamedTuple):
    logits: np.ndarray  # float64 [texts classes]
    mode: str  # of the sandbox
    weaker: str  # why it is not the strongest; "" if it is


Respond = Callable[[Path, Sequence[str]], Answered]
"""(a program file or an ONNX folder, texts) -> what it answers."""


@dataclass(frozen=True)
class Sandboxed:
    """In a process that can do no harm; ``least`` is the weakest mode of the sandbox that will do."""

    least: str = "rlimits"

    def __call__(self, artefact: Path, texts: Sequence[str]) -> Answered:
        from grit.bench import sandbox

        answer = sandbox.logits(artefact, texts, least=self.least)
        return Answered(answer.logits, answer.mode, answer.weaker)


def unguarded(artefact: Path, texts: Sequence[str]) -> Answered:
    """In this process: for bundles of one's own."""
    from grit.bench.export import build, words

    return Answered(words.answer(build.load(artefact), texts), "none", "asked for")


# --- a case -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """How to verify: the same for every bundle."""

    level: Level = "replay"
    respond: Respond = Sandboxed()
    data: str | None = None  # a name or file to read instead of what the bundle names
    pool: Mapping[str, tuple[Script, ...]] = field(default_factory=dict)  # example id -> breaks of any model
    spot: int = SPOT
    nonce: str = ""

    def __post_init__(self) -> None:
        if self.spot < 1:
            raise UsageError(f"a spot check of {self.spot} survivors proves nothing; give 1 or more")


@dataclass
class Case:
    """One bundle under verification; what checks share is worked out when it is first asked for."""

    bundle: Bundle
    setting: Setting
    notes: dict[str, None] = field(default_factory=dict)  # each once, in order
    floor: Floor | None = None
    hits: list[Outcome] = field(default_factory=list)  # claimed survivors that an attack broke here
    crossed: list[str] = field(default_factory=list)  # ids of survivors that a script of the pool breaks

    @property
    def claim(self) -> Submission:
        return self.bundle.submission

    @property
    def evidence(self) -> records.Evidence:
        return self.bundle.evidence

    @property
    def is_program(self) -> bool:
        """Whether a fixed-point program was submitted, and not a graph."""
        return self.claim.record.artefact.format == "gritbench.program"

    @property
    def has_weights(self) -> bool:
        """Whether float weights came along that gritbench's own code can run."""
        return self.is_program and (self.claim.record.model.origin == "gritbench" or bool(self.claim.record.steps))

    def note(self, remark: str) -> None:
        """What a reader of the verdict must know, and what speaks neither for the claim nor against it."""
        self.notes[remark] = None

    # --- the data

    @cached_property
    def dataset(self) -> Dataset:
        """The data that the bundle names, as it is here. Raises CouldNotMeasure where it is not.

        A bundle may name what is installed, and nothing else: no path, and no repository of somebody's.
        """
        from grit.bench import datasets

        name = self.claim.record.data.name
        if self.setting.data is None and name not in {*datasets.available(), *datasets.HUB}:
            raise CouldNotMeasure(f"data {short(name)} is not here; get it, or name a file that holds it with --data")
        return datasets.load(self.setting.data or name)

    @cached_property
    def examples(self) -> Mapping[str, Example]:
        """Examples of the evaluated split, by id."""
        return {example.id: example for example in self.dataset.test}

    @cached_property
    def source(self) -> Dataset | None:
        """The data that the model was trained on, cut to what it saw; None where it is not here or not said."""
        from grit.bench import datasets

        said = self.claim.record.training
        if said is None or said.data not in {self.claim.record.data.name, *datasets.available()}:
            return None
        found = self.dataset if said.data == self.claim.record.data.name else datasets.load(said.data)
        if said.n_train >= len(found.train):
            return found
        return replace(found, train=datasets.subset(found.train, said.n_train, found.name))

    @cached_property
    def pinned(self) -> tuple[str, Mapping[str, records.Fields]]:
        """Digest and configured attacks of the suite that the record names. Raises CouldNotMeasure."""
        from grit.bench import suites

        name, _, source = self.claim.record.suite.partition("+")
        if name not in suites.SUITES:
            raise CouldNotMeasure(f"suite {short(name)} is none of this release's ({', '.join(suites.SUITES)})")
        lexicon(source)
        members = suites.attacks(suites.load(name), source)
        return suites.digest(suites.load(name), source), {name: records.plain(each) for name, each in members.items()}

    @cached_property
    def labels(self) -> Mapping[str, int]:
        """id -> label, as the evidence has it."""
        return {line.id: line.label for line in self.evidence.clean}

    # --- texts under an attack's threat

    @cached_property
    def threats(self) -> Mapping[str, Threat]:
        return {attack.name: _threat(attack.name, attack.threat) for attack in self.claim.record.attacks}

    @cached_property
    def _kinds(self) -> dict[str, str]:
        return {name: repr(threat) for name, threat in self.threats.items()}

    @cached_property
    def _lexicons(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _texts(self) -> dict[tuple[str, str], Text]:
        return {}

    def text(self, attack: str, id: str) -> Text:
        """An example under an attack's threat; attacks with one threat share it, and all that it remembers."""
        from grit.bench import lexicons, registry
        from grit.bench.sentence import Text

        threat = self.threats[attack]
        key = self._kinds[attack], id
        if key not in self._texts:
            if threat.lexicon not in self._lexicons and registry.LEXICAL_SPACES & set(threat.spaces):
                self._lexicons[threat.lexicon] = lexicon(threat.lexicon)
            self._texts[key] = Text(
                self.examples[id].text,
                threat,
                self._lexicons.get(threat.lexicon),
                stop_words=lexicons.stop_words(),
                vocabulary=self.vocabulary if "vocabulary" in threat.spaces else (),
            )
        return self._texts[key]

    def joined(self, attack: str, outcome: Outcome) -> str:
        return self.text(attack, outcome.id).apply(outcome.script)

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The words that the submitted model knows, without the unknown one; none of a model that hashes."""
        from grit.bench.export import packing

        if self.is_program:
            words = packing.unpack(self.bundle.file(submission.ARTEFACT)).vocabulary
        else:
            words = tuple(self.graph.get("vocabulary.txt", b"").decode("utf-8", "replace").split("\n"))
        return tuple(word for word in words if word)

    @cached_property
    def scripted(self) -> list[tuple[str, Outcome]]:
        """Every break and every nearest miss, with its attack."""
        return [
            (name, outcome)
            for name, outcomes in self.evidence.attacks.items()
            for outcome in outcomes
            if outcome.outcome in ("broken", "survived") and outcome.script
        ]

    @cached_property
    def survivors(self) -> list[str]:
        return [id for id, stands in self.evidence.robust().items() if stands]

    @cached_property
    def crossings(self) -> list[tuple[str, str]]:
        """(id, text) for every script of the pool that some attack of this row would have been allowed."""
        found = []
        for id in self.survivors:
            for script in self.setting.pool.get(id, ()):
                for name in self.threats:
                    text = self.text(name, id)
                    if text.violation(script) is None:
                        found.append((id, text.apply(script)))
                        break
        return found

    # --- the model

    @property
    def graph(self) -> Mapping[str, bytes]:
        """The files of an ONNX model, by their bare names."""
        return {name: data for name, data in self.bundle.model.items() if MODEL + name in submission.ONNX}

    @contextmanager
    def artefact(self) -> Iterator[Artefact]:
        """The deployed bytes at work: a program, which is data, in this process; a graph in the sandbox.

        Raises MalformedInput, SandboxViolation, CouldNotMeasure, also at each question.
        """
        if self.is_program:
            from grit.bench.export import packing

            yield packing.artefact(self.bundle.file(submission.ARTEFACT))
            return
        from grit.bench.export.onnx import OnnxArtefact

        if not isinstance(self.setting.respond, Sandboxed):
            yield OnnxArtefact(self.graph)
            return
        from grit.bench import sandbox

        limits = sandbox.Limits(cpu_s=ATTACKED_S)
        with sandbox.session(self.graph, limits=limits, least=self.setting.respond.least) as session:
            self._ran(session.mode, session.weaker)
            yield OnnxArtefact(self.graph, session=session)
            if session.failure is not None:  # the engine of the attacks makes an outcome of it, and goes on
                raise session.failure

    def _ran(self, mode: str, weaker: str) -> None:
        self.note(f"the model ran in sandbox mode {mode}" + (f": {weaker}" if weaker else ""))

    def float_model(self) -> Model:
        """What gradients are taken of, where ``has_weights``: the trained model, or a compressed program of floats."""
        from grit.bench import checkpoint, compress

        if self.claim.record.steps:
            return compress.twin(self.bundle.file(submission.TWIN))
        with self.model_files() as folder:
            return checkpoint.load_model(folder)

    @contextmanager
    def model_files(self) -> Iterator[Path]:
        """model/ as files again, for those who read files."""
        with tempfile.TemporaryDirectory(prefix="grit-") as place:
            for name, data in self.bundle.model.items():
                Path(place, name).write_bytes(data)
            yield Path(place)

    @cached_property
    def answers(self) -> Mapping[str, np.ndarray]:
        """text -> logits of every text that the evidence speaks of: asked once, all together, shuffled.

        Raises whatever the model's process ended with.
        """
        wanted = {self.examples[line.id].text for line in self.evidence.clean}
        wanted |= {self.joined(name, outcome) for name, outcome in self.scripted}
        wanted |= {text for _, text in self.crossings}
        return self.ask(sorted(wanted), salt="first")

    def ask(self, texts: Sequence[str], *, salt: str) -> dict[str, np.ndarray]:
        """The model's answers; it sees nothing but texts, in an order that the bundle's author could not know."""
        from grit.bench.victim import settled

        order = list(texts)
        random.Random(f"{self.bundle.digest} {self.setting.nonce} {salt}").shuffle(order)
        with self.model_files() as folder:
            place = folder / Path(submission.ARTEFACT).name if self.is_program else folder
            answered = self.setting.respond(place, order)
        if answered.logits.shape != (len(order), len(self.claim.record.data.labels)):
            raise MalformedInput(
                f"the model answers {list(answered.logits.shape)} logits to {len(order)} texts of "
                f"{len(self.claim.record.data.labels)} labels; submit it with the labels it was trained for"
            )
        self._ran(answered.mode, answered.weaker)
        logits = answered.logits if self.claim.determinism.exact else settled(answered.logits)
        return dict(zip(order, logits, strict=True))

    def slack(self, logits: np.ndarray) -> float:
        """How far a margin may lie from the recorded one: nothing for exact models, else both logits' tolerance."""
        tolerance = self.claim.determinism.logit_tolerance
        return 2 * tolerance * max(1.0, float(abs(logits).max())) if tolerance else 0.0


def margin(logits: np.ndarray, label: int) -> float:
    """Largest other logit minus the gold one: [classes] -> positive if misclassified."""
    from grit.bench.evaluate import margins

    return float(margins(logits[None], label)[0])


# --- a stranger's words -----------------------------------------------------------------------------

_MOST = 10**9  # of anything that a threat counts


def _threat(name: str, fields: records.Fields) -> Threat:
    try:
        if set(fields) != set(Threat.__dataclass_fields__):
            raise ValueError(f"fields {', '.join(sorted(map(str, fields)))}")
        found = msgspec.convert(fields, Threat)
        if not (0 <= found.max_words <= 1 and 1 <= found.max_queries <= _MOST and 0 <= found.typo_distance <= _MOST):
            raise ValueError("a limit is no limit")
        return found
    except (ValueError, TypeError) as error:
        raise MalformedInput(f"the threat of {short(name)} cannot be read ({error}); pack the run again") from error


def lexicon(name: str) -> Any:
    """A lexicon by the name that a stranger wrote: never a file."""
    from grit.bench import lexicons

    if name.endswith(".json"):
        raise CouldNotMeasure(f"lexicon {short(name)} is somebody's file; use one that comes by name")
    try:
        return lexicons.load(name)
    except UsageError as error:
        raise CouldNotMeasure(str(error)) from error


def short(text: str) -> str:
    """A stranger's text, safe to print and not long."""
    return ascii(text[:60])


def one_line(reason: str) -> str:
    """A reason may quote a stranger's file: nothing in it may move a terminal's cursor or start a line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(reason.split()))[:600]
