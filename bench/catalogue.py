"""What can be named, what data is here, what this machine can measure: answered without importing a component."""

from __future__ import annotations

import ast
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grit.bench import datasets, lexicons, registry

KINDS = ("models", "attacks", "schemes", "datasets", "targets", "objectives", "steps")


def everything(kind: str | None = None) -> dict[str, dict[str, str]]:
    """kind -> name -> one line on it."""
    if kind is not None and kind not in KINDS:
        raise registry.unknown("kind", kind, KINDS, f"the kinds are {', '.join(KINDS)}")
    found = {}
    for each in (kind,) if kind else KINDS:
        if each == "schemes":
            from grit.bench.schemes import SCHEMES

            found[each] = {name: _terms(scheme) for name, scheme in SCHEMES.items()}
        elif each == "datasets":
            hub = {name: f"hub: {repository}" for name, repository in datasets.HUB.items()}
            found[each] = {**hub, **datasets.available()}
        else:
            found[each] = {name: _first_line(origin) for name, origin in registry.names(each).items()}
    return found


def _terms(scheme: Any) -> str:
    """Weights and objectives, with the options that are not their defaults."""
    return " + ".join(f"{term.weight:g} {term.objective}{_brackets(term.options)}" for term in scheme.terms)


def _brackets(options: Mapping[str, object]) -> str:
    return f"[{','.join(f'{name}={value}' for name, value in options.items())}]" if options else ""


def _first_line(origin: registry.Origin) -> str:
    """The first sentence of a file's docstring, read without running it."""
    if origin.entry_point is not None:
        return f"plug-in: {origin.where}"
    docstring = ast.get_docstring(ast.parse(Path(origin.where).read_text(encoding="utf-8"))) or ""
    return docstring.split("\n\n")[0].replace("\n", " ")


def render(found: Mapping[str, Mapping[str, str]]) -> str:
    width = shutil.get_terminal_size().columns
    lines = []
    for kind, members in found.items():
        lines.append(kind)
        longest = max((len(name) for name in members), default=0)
        for name, about in members.items():
            line = f"  {name:<{longest}}  {about}"
            lines.append(line if len(line) <= width else line[: width - 3] + "...")
    return "\n".join(lines)


# --- data --------------------------------------------------------------------------------------------


def data() -> dict[str, Any]:
    """Local sets with their places, sets that only the hub has, lexicons, and where was looked."""
    here = datasets.available()
    hub = importlib.util.find_spec("datasets") is not None
    missing = {
        name: f"fetched on first use from the hub ({repository})"
        if hub
        else f"pip install 'gritbench[hub]' ({repository})"
        for name, repository in datasets.HUB.items()
        if name not in here
    }
    default = lexicons.load("default")
    return {
        "folders": [str(folder) for folder in datasets.data_folders()],
        "here": here,
        "missing": missing,
        "lexicons": {
            "default": default.name,
            "thesaurus": "embedded",
            "wordnet3.0": "here"
            if default.name == "wordnet3.0"
            else "put it where NLTK_DATA points: python -m nltk.downloader wordnet",
        },
    }


def render_data(found: Mapping[str, Any]) -> str:
    folders = ", ".join(found["folders"]) or "none (set GRIT_DATA to a folder of datasets)"
    lines = [f"data folders: {folders}", "here"]
    lines += [f"  {name}  {where}" for name, where in found["here"].items()]
    lines += ["missing"] * bool(found["missing"]) + [f"  {name}  {how}" for name, how in found["missing"].items()]
    lines += ["lexicons"] + [f"  {name}  {where}" for name, where in found["lexicons"].items()]
    return "\n".join(lines)


# --- this machine ------------------------------------------------------------------------------------


def doctor() -> dict[str, Any]:
    """Each capability: 'ready', or what to do to have it. Never a guess."""
    ready = {
        "training": _module("torch", "pip install gritbench"),
        "WordNet attacks": "ready"
        if lexicons.load("default").name == "wordnet3.0"
        else "python -m nltk.downloader wordnet (until then attacks use the embedded thesaurus)",
        "hub datasets": _module("datasets", "pip install 'gritbench[hub]'"),
        "textattack recipes": _module("textattack", "pip install 'gritbench[textattack]'"),
        "sandbox": _sandbox(),
    }
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "capabilities": ready,
        "targets": _targets(),
    }


def _targets() -> dict[str, str]:
    """Each place that cost can be measured on: 'ready', or what to install for it."""
    found = {}
    for name in registry.names("targets"):
        cls = registry.load("targets", name)
        lacking = cls.missing() if hasattr(cls, "missing") else None
        for place in getattr(cls, "places", (name,)):
            found[place] = lacking or "ready"
    return found


def install() -> Iterator[str]:
    """Fetches what targets need and can fetch for themselves, without root; says what it does, a line a step."""
    for name in registry.names("targets"):
        cls = registry.load("targets", name)
        if hasattr(cls, "install"):
            yield from (f"{name}: {line}" for line in cls.install())


def _sandbox() -> str:
    """The mode in which a stranger's model would run here, and why it is no stronger one; each is tried."""
    from grit.bench import sandbox

    found = sandbox.unavailable()
    strongest = next((mode for mode, reason in found.items() if not reason), "")
    if strongest == sandbox.MODES[0]:
        return "ready"
    reasons = "; ".join(f"{mode}: {reason}" for mode, reason in found.items() if reason)
    return f"{strongest} only ({reasons})" if strongest else f"none ({reasons}): models of others are not run here"


def _module(name: str, remedy: str) -> str:
    return "ready" if importlib.util.find_spec(name) else f"not here: {remedy}"


def render_doctor(found: Mapping[str, Any]) -> str:
    lines = [f"{found['system']} on {found['machine']}, {found['cores']} cores"]
    for heading in ("capabilities", "targets"):
        longest = max(len(name) for name in found[heading])
        lines += [heading, *(f"  {name:<{longest}}  {state}" for name, state in found[heading].items())]
    return "\n".join(lines)
