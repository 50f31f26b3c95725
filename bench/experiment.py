"""What an experiment is: a frozen value, the rows it asks for, and the folder where they lie.

The digest of the value is the resume key: the same words on the command line name the same folder, and a
folder that holds another experiment is refused.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from grit import __version__
from grit.bench import datasets, lexicons, records, registry, schemes, suites
from grit.bench.types import Attack, Dataset, MalformedInput, Recipe, Scheme, StorageError, UsageError

Pairs = tuple[tuple[str, str], ...]

N_EMBEDDED = 300  # of the embedded 500: the first run should end within minutes
N_REAL = 1000  # what a ranked row needs


@dataclass(frozen=True)
class Experiment:
    """Every model under every scheme, attacked by every attack, measured on every target.

    n: test examples by stratified hash rank; None is 1,000 (300 on the embedded corpus).
    settings: (field, value) pairs that replace fields of recipes, model configurations or objectives.
    """

    dataset: str = datasets.EMBEDDED
    models: tuple[str, ...] = ("fastgrnn", "prado", "student")
    schemes: tuple[str, ...] = ("natural", "proposed")
    attacks: tuple[str, ...] = ("hotflip", "pwws", "deepwordbug")
    targets: tuple[str, ...] = ("local",)
    n: int | None = None
    n_train: int | None = None
    seed: int = 0
    settings: Pairs = ()


@dataclass(frozen=True)
class RowPlan:
    """One row to be: a model with its configuration and recipe under a scheme, at a seed."""

    name: str  # student[hidden=10].proposed.s0: file-safe but for the brackets
    model: str
    config: Any
    recipe: Recipe
    scheme: Scheme
    seed: int


def read(path: Path, kind: type[Any] = Experiment) -> dict[str, Any]:
    """The fields that an experiment file gives: TOML, with the names of ``kind`` and a table ``settings``.

    ``kind``: :class:`Experiment`, or the dataclass of another track. A table may give some fields of a dataclass in it.

    Raises MalformedInput (not TOML, a field of another type), UsageError (no such file, an unknown field).
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"no {kind.__name__.lower()} file {path}: name a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MalformedInput(f"{path} is not TOML: {' '.join(str(error).split())}") from error
    _check_names(found, kind, f"field in {path}")
    table = found.pop("settings", {})
    if not isinstance(table, dict):
        raise MalformedInput(f"{path}: settings is a table of 'field = value', got {table!r}")
    try:
        wanted = msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise MalformedInput(f"{path}: {error}") from error
    return {name: _whole(getattr(wanted, name)) for name in found} | (
        {"settings": tuple(_flat(table))} if table else {}
    )


def _whole(value: Any) -> Any:
    """A dataclass of a table with its defaults its own: msgspec leaves them to the class, where no encoder looks."""
    return dataclasses.replace(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _check_names(found: Mapping[str, Any], kind: type[Any], what: str) -> None:
    """Every name is one of a field, in the tables too; a UsageError names the nearest."""
    known, types = [field.name for field in dataclasses.fields(kind)], get_type_hints(kind)
    for name, value in found.items():
        if name not in known:
            raise registry.unknown(what, name, known, f"known are {', '.join(known)}")
        if isinstance(value, dict) and dataclasses.is_dataclass(types[name]):
            _check_names(value, types[name], f"{name} {what}")


def _flat(table: Mapping[str, Any], owner: str = "") -> Iterator[tuple[str, str]]:
    """[settings] student.epochs = 3 -> ("student.epochs", "3"), as --set writes it."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{owner}{name}.")
        else:
            yield f"{owner}{name}", str(value)


def rows(experiment: Experiment) -> list[RowPlan]:
    """The rows in the order asked for; every name and setting is checked here, before any work."""
    plans = []
    unused = dict(experiment.settings)
    for spec in experiment.models:
        for scheme_name in experiment.schemes:
            plans.append(_plan(spec, schemes.get(scheme_name), experiment, unused))
    teachers = {plan.scheme.teacher for plan in plans if schemes.needs_teacher(plan.scheme)}
    unused = {name: value for name, value in unused.items() if name.rpartition(".")[0] not in teachers}
    if unused:
        name = next(iter(unused))
        recipe = [field.name for field in dataclasses.fields(Recipe)]
        configs = [field.name for plan in plans for field in dataclasses.fields(plan.config)]
        fields = sorted({*recipe, *configs})
        remedy = f"no row of this run has it; settings are {', '.join(fields)}, or objective.field"
        raise registry.unknown("setting", name, fields, remedy)
    names = [plan.name for plan in plans]
    if len(set(names)) != len(names):
        raise UsageError(
            f"the experiment names a row twice: {', '.join(sorted({n for n in names if names.count(n) > 1}))}"
        )
    return plans


def teacher_plan(experiment: Experiment, plans: list[RowPlan]) -> RowPlan | None:
    """The row that teaches, trained naturally at the same seed; None when no scheme needs one."""
    needing = [plan.scheme for plan in plans if schemes.needs_teacher(plan.scheme)]
    if not needing:
        return None
    names = {scheme.teacher for scheme in needing}
    if len(names) > 1:
        raise UsageError(f"schemes with different teachers in one run ({', '.join(sorted(names))}): run them apart")
    settings = tuple(pair for pair in experiment.settings if pair[0].startswith(f"{names.copy().pop()}."))
    alone = dataclasses.replace(experiment, models=(names.pop(),), schemes=("natural",), settings=settings)
    (plan,) = rows(alone)
    return plan


def _plan(spec: str, scheme: Scheme, experiment: Experiment, unused: dict[str, str]) -> RowPlan:
    """One row; settings that apply to it are struck from ``unused``."""
    key, inline = _parse_spec(spec)
    cls = registry.load("models", key)
    config, recipe = cls.Config(), cls.recipe
    config_fields = {field.name for field in dataclasses.fields(config)}
    recipe_fields = {field.name for field in dataclasses.fields(recipe)}
    objectives = {term.objective for term in scheme.terms}
    changes_config, changes_recipe, changes_scheme = dict(inline), {}, {}
    for name, value in experiment.settings:
        owner, dot, field = name.rpartition(".")
        if (dot and owner in objectives) or (name == "teacher" and schemes.needs_teacher(scheme)):
            changes_scheme[name] = value
        elif dot and owner != key:
            continue
        elif field in config_fields:
            changes_config[field] = value
        elif field in recipe_fields:
            changes_recipe[field] = value
        else:
            continue
        unused.pop(name, None)
    config = registry.override(config, changes_config, owner=f"model {key}")
    recipe = registry.override(recipe, changes_recipe, owner=f"the recipe of {key}")
    scheme = schemes.spelled_out(schemes.override(scheme, changes_scheme))
    # Of a path its last part: a row's name is the name of a folder.
    changed = [
        f"{field.name}={str(getattr(value, field.name)).rpartition('/')[2]}"
        for value, default in ((config, cls.Config()), (recipe, cls.recipe))
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != getattr(default, field.name)
    ]
    label = f"{key}[{','.join(changed)}]" if changed else key
    return RowPlan(f"{label}.{scheme.name}.s{experiment.seed}", key, config, recipe, scheme, experiment.seed)


def _parse_spec(spec: str) -> tuple[str, Pairs]:
    """'student[hidden=10,embedding=10]' -> the key and its fields."""
    match = re.fullmatch(r"([^\[\]]+)(?:\[([^\[\]]*)\])?", spec)
    if not match:
        raise UsageError(f"model {spec!r}: expected a name, or name[field=value,...]")
    key, inside = match.groups()
    pairs = []
    for part in (inside or "").split(","):
        if part:
            name, equals, value = part.partition("=")
            if not equals:
                raise UsageError(f"model {spec!r}: expected field=value, got {part!r}")
            pairs.append((name, value))
    return key, tuple(pairs)


def attacks(experiment: Experiment) -> dict[str, Attack]:
    """Full name -> configured attack, a suite (``std@1``, ``std@1+thesaurus``) as its members.

    The default lexicon is written out, so a name means one thing everywhere.
    """
    found: dict[str, Attack] = {}
    for spec in experiment.attacks:
        if is_suite(spec):
            suite, _, lexicon = spec.partition("+")
            members = suites.attacks(suites.load(suite), lexicon or "default")
        else:
            attack = registry.attack(spec)
            if attack.threat.lexicon == "default":
                named = dataclasses.replace(attack.threat, lexicon=lexicons.load("default").name)
                attack = dataclasses.replace(attack, threat=named)  # type: ignore[type-var]  # a dataclass by contract
            lexicons.load(attack.threat.lexicon)  # an unknown or missing one is said now, not after the training
            members = {registry.attack_name(attack): attack}
        for name, attack in members.items():
            if name in found:
                raise UsageError(f"attack {name} is asked for twice")
            found[name] = attack
    return found


def is_suite(spec: str) -> bool:
    """Whether the name of an attack is that of a suite, as ``std@1+thesaurus``: a path behind it may hold an @ too."""
    return "@" in re.split(r"[+\[]", spec)[0]


def suite(attacks: Mapping[str, Attack]) -> tuple[str, str]:
    """The name (with its lexicon) and digest of the pinned suite that these attacks are; two empty strings for none."""
    for candidate in suites.SUITES.values():
        for lexicon in sorted({attack.threat.lexicon for attack in attacks.values()}):
            if dict(attacks) == suites.attacks(candidate, lexicon):
                return f"{candidate.name}+{lexicon}", suites.digest(candidate, lexicon)
    return "", ""


def load_data(experiment: Experiment) -> Dataset:
    """The dataset, its train split cut to ``n_train`` by stratified hash rank."""
    dataset = datasets.load(experiment.dataset)
    if experiment.n_train is None:
        return dataset
    return dataclasses.replace(dataset, train=datasets.subset(dataset.train, experiment.n_train, dataset.name))


def n_test(experiment: Experiment, dataset: Dataset) -> int:
    wanted = experiment.n or (N_EMBEDDED if experiment.dataset == datasets.EMBEDDED else N_REAL)
    return min(wanted, len(dataset.test))


# --- the folder --------------------------------------------------------------------------------------

CONFIG = "config.json"
_PARTS = ".*.part"  # what a killed write leaves
ARTEFACT = "artefact.safetensors"  # the deployed bytes: what is attacked, measured and ranked


def digest(experiment: Experiment, dataset: Dataset) -> str:
    """The resume key: of every field, the data's revision, and the code and lexicons that the names stand for.

    A model, an attack or a lexicon that was changed under its name is another experiment, so that no number of
    the old one is taken for one of the new.
    """
    found = attacks(experiment)
    value = {
        **dataclasses.asdict(experiment),
        "revision": dataset.revision,
        "version": __version__,
        "behaviour": suites.BEHAVIOUR,
        "attacks_in_full": {name: repr(attack) for name, attack in found.items()},
        "lexicons": sorted({lexicons.load(name).digest for name in _lexicons(experiment, found)}),
        "code": {
            **{f"attack {key}": registry.code_digest("attacks", key) for key in _keys(found)},
            **_code_of_models(experiment),
        },
    }
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _keys(found: Mapping[str, Attack]) -> list[str]:
    return sorted({registry.key_of("attacks", type(attack)) for attack in found.values()})


def _lexicons(experiment: Experiment, found: Mapping[str, Attack]) -> set[str]:
    """Every lexicon that attacks or training write from."""
    written = {
        attack.threat.lexicon for attack in found.values() if registry.LEXICAL_SPACES & set(attack.threat.spaces)
    }
    if not is_callable(experiment):
        for plan in rows(experiment):
            written |= {term.options["lexicon"] for term in plan.scheme.terms if term.options.get("lexicon")}
    return written


def _code_of_models(experiment: Experiment) -> dict[str, str]:
    if is_callable(experiment):
        path, module = Path(experiment.models[0]), experiment.models[0].partition(":")[0]
        if path.exists():
            files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        else:
            files = registry.source_files(module)
        return {module: hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()}
    plans = rows(experiment)
    teacher = teacher_plan(experiment, plans)
    models = {plan.model for plan in (*plans, *([teacher] if teacher else ()))}
    objectives = {term.objective for plan in plans for term in plan.scheme.terms}
    return {
        **{f"model {name}": registry.code_digest("models", name) for name in sorted(models)},
        **{f"objective {name}": registry.code_digest("objectives", name) for name in sorted(objectives)},
    }


def is_callable(experiment: Experiment) -> bool:
    """Whether the experiment attacks a model that comes without its run: trained, and of no scheme here."""
    return not experiment.schemes


@dataclass(frozen=True)
class Folder:
    """Where one experiment lies: config.json, records.jsonl, evidence/ROW/, model/ROW/."""

    path: Path

    def model(self, row: str) -> Path:
        return self.path / "model" / row

    def evidence(self, row: str) -> Path:
        return self.path / "evidence" / row

    @property
    def rows(self) -> list[str]:
        """The rows that are trained and exported, or came so."""
        return sorted(file.parent.name for file in (self.path / "model").glob(f"*/{ARTEFACT}"))

    def open(self, experiment: Experiment, dataset: Dataset) -> None:
        """Make the folder, or check that it holds this very experiment."""
        key = digest(experiment, dataset)
        config = self.path / CONFIG
        if config.is_file():
            if read_config(self.path).get("digest") != key:
                raise UsageError(
                    f"{self.path} holds another experiment, or this one with other data, lexicons, code or version; "
                    "give another folder with -o, or remove it"
                )
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}; give another folder with -o") from error
        parts = set(self.path.glob(_PARTS))  # a kill may have come in the middle of the first write
        if any(entry.name != "lock" for entry in self.path.iterdir() if entry not in parts):
            raise UsageError(f"{self.path} is not empty and holds no experiment; give another folder with -o")
        value = {"digest": key, "revision": dataset.revision, "experiment": dataclasses.asdict(experiment)}
        records.write(config, json.dumps(value, indent=2, sort_keys=True).encode() + b"\n")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One run at a time; a killed one leaves no lock behind."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = (self.path / "lock").open("w")
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}; give another folder with -o") from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"{self.path} is in use by another grit run; wait for it, or give another folder"
                ) from None
            for part in self.path.glob(_PARTS):
                part.unlink(missing_ok=True)
            yield


def read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / CONFIG
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict) or "experiment" not in value:
            raise ValueError("no experiment in it")
    except (OSError, ValueError) as error:
        raise MalformedInput(
            f"{path}: not the configuration of a run ({error}); give a folder that 'grit run' wrote"
        ) from error
    return value


def from_config(folder: Path) -> Experiment:
    """The experiment that a run folder holds."""
    fields = dict(read_config(folder)["experiment"])
    known = {field.name for field in dataclasses.fields(Experiment)}
    if set(fields) - known:
        raise MalformedInput(
            f"{folder / CONFIG}: unknown fields {', '.join(sorted(set(fields) - known))}; another version wrote it"
        )
    as_tuples: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    as_tuples["settings"] = tuple((name, value) for name, value in fields.get("settings", ()))
    return Experiment(**as_tuples)


def default_folder(experiment: Experiment, dataset: Dataset) -> Path:
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", dataset.name)
    return Path("runs") / f"{safe}-{digest(experiment, dataset)[:12]}"
