"""What is asked of the ladder: steps in a row, by name."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass

from grit.bench import registry
from grit.bench.compress._draft import Course, Draft, Step
from grit.bench.types import UsageError


@dataclass(frozen=True)
class Rung:
    """Configured steps by their keys, in their order; ``name`` can be typed again and says what differs by default."""

    name: str
    steps: tuple[tuple[str, Step], ...]

    def climbed(self, draft: Draft, course: Course) -> Draft:
        """The draft after every step."""
        for _, step in self.steps:
            draft = step.compress(draft, course)
        return draft

    @property
    def code(self) -> str:
        """sha256 over the code that the names stand for: what other code has made is another rung."""
        return hashlib.sha256("".join(registry.code_digest("steps", key) for key, _ in self.steps).encode()).hexdigest()


def parse(words: str) -> Rung:
    """``vocabulary[share=0.25]+products`` -> the rung. UsageError for an unknown step or field."""
    steps = []
    for word in re.split(r"\+(?![^\[]*\])", words):
        match = re.fullmatch(r"([^\[\]]+)(?:\[([^\[\]]*)\])?", word)
        if not match:
            raise UsageError(f"step {word!r}: expected a name, or name[field=value,...], joined by +")
        key, inside = match.groups()
        changes = {}
        for pair in filter(None, (inside or "").split(",")):
            name, equals, value = pair.partition("=")
            if not equals:
                raise UsageError(f"step {word!r}: expected field=value, got {pair!r}")
            changes[name] = value
        steps.append((key, registry.override(registry.load("steps", key)(), changes, owner=f"step {key}")))
    if len({key for key, _ in steps}) < len(steps):
        raise UsageError(f"{words!r} takes a step twice; take each once")
    return Rung("+".join(_name(key, step) for key, step in steps), tuple(steps))


def _name(key: str, step: Step) -> str:
    plain = type(step)()
    changed = [
        f"{field.name}={getattr(step, field.name)}"
        for field in dataclasses.fields(step)  # type: ignore[arg-type]  # a dataclass by contract
        if getattr(step, field.name) != getattr(plain, field.name)
    ]
    return f"{key}[{','.join(changed)}]" if changed else key
