"""Name -> class: the file in the folder, or an entry point.

A file ``models/x.py`` makes ``x`` a command-line word and a board row; a stranger's package does the same
through the entry points ``gritbench.models``, ``gritbench.attacks``, ``gritbench.targets``, ``gritbench.objectives``
and ``gritbench.steps``. Listing names imports no component.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.util
import math
import re
import sys
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from grit.bench.types import Attack, CouldNotMeasure, GritError, UsageError

KINDS: Mapping[str, tuple[str, str]] = {
    # kind -> (package that holds its files, the method that marks its public class)
    "models": ("grit.models", "build"),
    "attacks": ("grit.attacks", "attack"),
    "targets": ("grit.bench.targets", "probe"),
    "objectives": ("grit.bench.objectives", "__call__"),
    "steps": ("grit.bench.compress", "compress"),
}

_HOUSE = Path(__file__).parent.parent  # where the folders of KINDS lie, in a checkout and in a wheel

Value = TypeVar("Value")


@dataclass(frozen=True)
class Origin:
    """Where a name comes from: a file of this house, or a stranger's entry point."""

    kind: str
    name: str
    where: str
    entry_point: EntryPoint | None = None


def unknown(what: str, got: str, known: Iterable[str], remedy: str) -> UsageError:
    """The error of an unknown name, with the nearest known one."""
    near = difflib.get_close_matches(got, list(known), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UsageError(f"unknown {what} {got!r}: {hint}{remedy}")


def names(kind: str) -> dict[str, Origin]:
    """Every name of a kind, sorted, with its origin; a name with two origins is a UsageError that names both."""
    package, _ = KINDS[kind]
    folder = _HOUSE.joinpath(*package.split(".")[1:])
    found = {
        file.stem: Origin(kind, file.stem, str(file))
        for file in sorted(folder.glob("*.py"))
        if not file.stem.startswith("_")
    }
    for point in _plug_ins(kind, tuple(sys.path)):
        distribution = point.dist.name if point.dist else "an unnamed distribution"
        where = f"{distribution} ({point.value})"
        if point.name in found:
            raise UsageError(
                f"two {kind} are called {point.name!r}: {found[point.name].where} and {where}; "
                "rename one or uninstall the package"
            )
        found[point.name] = Origin(kind, point.name, where, point)
    return dict(sorted(found.items()))


@functools.cache
def _plug_ins(kind: str, _path: tuple[str, ...]) -> EntryPoints:
    """The entry points of what is installed on a path, read once: it takes some 30 ms, and every name asks."""
    return entry_points(group=f"gritbench.{kind}")


def origin_of(kind: str, name: str) -> Origin:
    """Where a name comes from; a UsageError names the nearest."""
    known = names(kind)
    if name not in known:
        raise unknown(kind.rstrip("s"), name, known, f"'grit list {kind}' shows them all")
    return known[name]


def code_digest(kind: str, name: str) -> str:
    """sha256 over the file behind a name and the private files beside it; of a plug-in, over its module's file.

    What was made by other code is another result, even under the same name and the same settings.
    """
    origin = origin_of(kind, name)
    if origin.entry_point is None:
        file = Path(origin.where)
        files = [file, *sorted(file.parent.glob("_*.py"))]
        text = ""
    else:
        files = source_files(origin.entry_point.module)
        text = f"{origin.where} {origin.entry_point.dist.version if origin.entry_point.dist else ''}"
    found = hashlib.sha256(text.encode())
    for each in files:
        found.update(each.read_bytes())
    return found.hexdigest()


def source_files(module: str) -> list[Path]:
    """The file of a module that is not imported for it; none where it has no file."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return []
    return [Path(spec.origin)] if spec is not None and spec.origin and Path(spec.origin).is_file() else []


def load(kind: str, name: str) -> Any:
    """The public class behind a name."""
    origin = origin_of(kind, name)
    package, mark = KINDS[kind]
    try:
        if origin.entry_point is not None:
            return origin.entry_point.load()
        module = importlib.import_module(f"{package}.{name}")
    except GritError:
        raise
    except ModuleNotFoundError as error:
        raise CouldNotMeasure(f"{origin.where} needs the module {error.name!r}, which is not installed") from error
    # Somebody's file is run here for the first time, and may fail in any way.
    except Exception as error:
        raise UsageError(f"{origin.where} cannot be loaded: {type(error).__name__}: {error}; correct it") from error
    return _public_class(module, mark, origin)


def _public_class(module: ModuleType, mark: str, origin: Origin) -> type:
    public = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and any(mark in vars(ancestor) for ancestor in value.__mro__)
    ]
    if len(public) != 1:
        got = ", ".join(c.__name__ for c in public) or "none"
        raise UsageError(f"{origin.where} must hold exactly one public class with a method {mark!r}, got {got}")
    return public[0]


def attack(spec: str) -> Attack:
    """The configured attack behind ``key[.tier][[field=value,...]][+lexicon]`` or ``textattack:recipe``.

    No tier is ``strong``; no lexicon is the default one, written out in full by :func:`attack_name`. Fields are those
    of the attack but its threat and its tier, as in ``deepwordbug.paper[transform=swap]``. An attack that reads no
    lexicon takes one all the same, and its name does not: the members of a suite share one threat.
    """
    parts = re.fullmatch(r"([^\[\]]*)(?:\[([^\[\]]*)\])?([^\[\]]*)", spec)
    if parts is None:
        raise UsageError(f"attack {spec!r}: expected name.tier, or name.tier[field=value,...]")
    name, fields, rest = parts.groups()
    key, _, recipe = (name + rest).partition(":")
    key, _, lexicon = key.partition("+") if not recipe else (key, "", "")
    key, _, tier = key.partition(".")
    cls = load("attacks", key)
    tier = tier or "strong"
    takes_recipe = "recipe" in {field.name for field in dataclasses.fields(cls)}
    if recipe and not takes_recipe:
        raise UsageError(f"attack {spec!r}: {key} has no recipes; its tiers are {', '.join(cls.tiers)}")
    if recipe:
        return cls(recipe=recipe)
    if takes_recipe and tier not in cls.tiers:
        raise UsageError(f"attack {spec!r}: {key} needs a recipe; name one, as {key}:RECIPE")
    if tier not in cls.tiers:
        raise unknown(f"tier of {key}", tier, cls.tiers, f"it has {', '.join(cls.tiers)}")
    configured = cls(**cls.tiers[tier])
    if fields:
        configured = override(configured, _changes(spec, fields), owner=f"attack {key}")
    if lexicon:
        configured = dataclasses.replace(configured, threat=dataclasses.replace(configured.threat, lexicon=lexicon))
    return configured


def _changes(spec: str, fields: str) -> dict[str, str]:
    """What stands in the brackets of an attack: field -> value."""
    changes = {}
    for pair in fields.split(","):
        name, equals, value = pair.partition("=")
        if not equals or name in _NAMED_OUTSIDE:
            raise UsageError(f"attack {spec!r}: expected field=value of its own fields in brackets, got {pair!r}")
        changes[name] = value
    return changes


def key_of(kind: str, cls: type) -> str:
    """The name behind which a class stands; a UsageError for one that no name leads to."""
    package, _ = KINDS[kind]
    for name, origin in names(kind).items():
        point = origin.entry_point
        if f"{package}.{name}" == cls.__module__ or (point and point.value == f"{cls.__module__}:{cls.__qualname__}"):
            return name
    raise UsageError(f"no {kind.rstrip('s')} is registered with the class {cls.__qualname__} of {cls.__module__}")


_NAMED_OUTSIDE = frozenset({"threat", "tier", "recipe"})  # fields of an attack that no brackets change

LEXICAL_SPACES = frozenset({"synonyms", "synonyms_same_pos", "lemmas"})  # spaces of a threat that read a lexicon


def attack_name(attack: Attack) -> str:
    """The full name of a configured attack: ``key.tier+lexicon``, the lexicon only where its threat reads one.

    Fields that are not those of its tier stand in brackets behind it. That of one recipe among many is ``key:recipe``.
    """
    if hasattr(attack, "recipe"):
        return f"{key_of('attacks', type(attack))}:{attack.recipe}"
    lexicon = f"+{attack.threat.lexicon}" if LEXICAL_SPACES & set(attack.threat.spaces) else ""
    plain = type(attack)(**attack.tiers[attack.tier])
    changed = [
        f"{field.name}={getattr(attack, field.name)}"
        for field in dataclasses.fields(attack)  # type: ignore[arg-type]  # a dataclass by contract
        if field.name not in _NAMED_OUTSIDE and getattr(attack, field.name) != getattr(plain, field.name)
    ]
    brackets = f"[{','.join(changed)}]" if changed else ""
    return f"{key_of('attacks', type(attack))}.{attack.tier}{brackets}{lexicon}"


def override(value: Value, changes: Mapping[str, str], *, owner: str) -> Value:
    """``value`` (a frozen dataclass) with fields replaced by parsed strings; refuses unknown names and other types."""
    hints = typing.get_type_hints(type(value))
    fields = {f.name for f in dataclasses.fields(value)}  # type: ignore[arg-type]  # a dataclass by contract
    parsed = {}
    for name, text in changes.items():
        if name not in fields:
            raise unknown(f"field of {owner}", name, fields, f"it has {', '.join(sorted(fields))}")
        parsed[name] = _parse(name, text, getattr(value, name), hints[name])
    return dataclasses.replace(value, **parsed)  # type: ignore[type-var]  # a dataclass by contract


def _parse(name: str, text: str, old: Any, hint: Any) -> Any:
    if isinstance(old, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    elif hint == int | None and text.lower() == "none":
        return None
    elif hint is float or isinstance(old, float):  # before int: a float field may have the default 0
        try:
            if not math.isnan(number := float(text)):
                return number
        except ValueError:
            pass
    elif isinstance(old, int) or hint == int | None:
        try:
            return int(text)
        except ValueError:
            pass
    elif typing.get_origin(hint) is typing.Literal:
        if text not in typing.get_args(hint):
            raise unknown(
                f"value of {name}", text, typing.get_args(hint), f"it is one of {', '.join(typing.get_args(hint))}"
            )
        return text
    elif isinstance(old, str):
        return text
    elif isinstance(old, tuple) and all(isinstance(v, str) for v in old):
        return tuple(part for part in text.split(",") if part)
    raise UsageError(f"{name}={text!r}: expected {getattr(hint, '__name__', hint)}, as in {name}={old!r}")
