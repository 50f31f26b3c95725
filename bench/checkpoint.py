"""A trained model <-> a folder: weights in safetensors, configuration in JSON, vocabulary as text. No pickle.

    model.safetensors   every tensor of the model's state, bit for bit
    vocabulary.txt      one word a line, line by line the rows of the table; empty for a model that hashes
    config.json         which model, its configuration, its classes; written last, so that it marks a whole save

What is read is checked against what the model's own code says it must be: a folder that was cut off, edited or
made by another version gives one clear line, never a half-loaded model.
"""

from __future__ import annotations

import dataclasses
import json
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from grit.bench import registry
from grit.bench.types import MalformedInput, Model, StorageError, UsageError

FORMAT = 1
WEIGHTS = "model.safetensors"
VOCABULARY = "vocabulary.txt"
CONFIG = "config.json"


@dataclass(frozen=True)
class Card:
    """What config.json says: enough to name a saved model without loading it."""

    model: str  # registry key
    config: Mapping[str, Any]  # field of the model's Config -> value
    classes: int
    labels: tuple[str, ...]  # names of the classes, or () if they were not given


def save_model(model: Model, folder: Path, labels: Sequence[str] = ()) -> None:
    """Writes the model into ``folder``, replacing one that is there; ``labels`` name its classes, in order.

    Equal models give equal bytes. Raises UsageError for a class that no registry key names, MalformedInput for
    weights that are not numbers or labels that do not match the classes, StorageError if it cannot be written.
    """
    assert isinstance(model, torch.nn.Module)  # by the contract of Model
    if labels and len(labels) != model.classes:
        raise MalformedInput(f"a model of {model.classes} classes got {len(labels)} labels; give one a class, or none")
    for word in model.vocabulary:
        if "\n" in word:
            raise MalformedInput(f"the vocabulary holds {word!r}, and a line break parts words; leave white space out")
    card = {
        "format": FORMAT,
        "model": _key(type(model)),
        "config": dataclasses.asdict(model.config),
        "classes": model.classes,
        "labels": list(labels),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    _check_numbers(tensors, f"{card['model']} cannot be saved")
    lines = "".join(f"{word}\n" for word in model.vocabulary)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)
        _write(folder / WEIGHTS, safetensors.torch.save(tensors))
        _write(folder / VOCABULARY, lines.encode("utf-8", "surrogatepass"))
        _write(folder / CONFIG, (json.dumps(card, indent=2, ensure_ascii=True) + "\n").encode())
    except OSError as error:
        raise StorageError(
            f"cannot write the model to {folder}: {error.strerror}; free some space or name another folder"
        ) from error


def load_model(folder: Path) -> Model:
    """The model that ``save_model`` wrote, in evaluation mode, its weights bit for bit.

    Raises MalformedInput for a file that is missing, cut off, or not what the model's code expects, UsageError for
    a model whose code is not installed, StorageError for a file that cannot be read.
    """
    card = read_card(folder)
    model_class = registry.load("models", card.model)
    config = _config(model_class.Config, card, folder / CONFIG)
    vocabulary = _vocabulary(folder / VOCABULARY)
    try:
        model = model_class(config, vocabulary, card.classes)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:  # torch and models refuse sizes by these
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MalformedInput(
            f"{folder / CONFIG}: {card.model} cannot be built from it: {reason}; save it again"
        ) from error
    _fill(model, folder / WEIGHTS, card.model)
    return model.eval()


def read_card(folder: Path) -> Card:
    """What the folder says it holds; nothing is loaded. Raises as :func:`load_model` does."""
    path = folder / CONFIG
    if not path.is_file():
        raise MalformedInput(
            f"{folder} holds no {CONFIG}: it is no saved model, or its writing was cut off; train again"
        )
    try:
        tree = json.loads(_read(path), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise MalformedInput(f"{path} is not JSON in UTF-8: {error}; save the model again") from error
    shape = {"format": int, "model": str, "config": dict, "classes": int, "labels": list}
    if not isinstance(tree, dict) or tree.keys() != shape.keys():
        got = ", ".join(sorted(map(str, tree))) if isinstance(tree, dict) else type(tree).__name__
        raise MalformedInput(f"{path} must hold {', '.join(sorted(shape))}; got {got}; save the model again")
    for name, kind in shape.items():
        if type(tree[name]) is not kind:
            raise MalformedInput(
                f"{path}: {name} must be a JSON {kind.__name__}, got {tree[name]!r}; save the model again"
            )
    if tree["format"] != FORMAT:
        raise MalformedInput(f"{path} has format {tree['format']}, this version reads {FORMAT}; train the model again")
    labels = tuple(tree["labels"])
    if tree["classes"] < 1 or not all(isinstance(label, str) for label in labels):
        raise MalformedInput(f"{path}: classes must be 1 or more and labels strings; save the model again")
    if labels and len(labels) != tree["classes"]:
        raise MalformedInput(f"{path} names {len(labels)} labels for {tree['classes']} classes; save the model again")
    return Card(tree["model"], tree["config"], tree["classes"], labels)


def _key(model_class: type) -> str:
    """The registry key of a class: its file's name, or the entry point that names it."""
    where = f"{model_class.__module__}:{model_class.__qualname__}"
    for name, origin in registry.names("models").items():
        if origin.entry_point is None:
            found = model_class.__module__ == f"grit.models.{name}"
        else:
            found = origin.entry_point.value == where
        if found:
            return name
    raise UsageError(f"{where} is not in the registry; put it into models/ or behind an entry point gritbench.models")


def _config(config_class: type, card: Card, path: Path) -> Any:
    hints = typing.get_type_hints(config_class)
    fields = [field.name for field in dataclasses.fields(config_class)]
    if set(card.config) != set(fields):
        odd = sorted(set(card.config) ^ set(fields))
        what = "has no" if odd[0] in fields else "has an unknown"
        raise MalformedInput(
            f"{path}: the configuration {what} field {odd[0]!r}; {card.model} has {', '.join(fields)}; train it again"
        )
    values = {}
    for name in fields:
        value = card.config[name]
        value = tuple(value) if isinstance(value, list) else value
        value = float(value) if hints[name] is float and type(value) is int else value
        if hints[name] in (int, float, str, bool) and type(value) is not hints[name]:
            raise MalformedInput(
                f"{path}: {name} must be of type {hints[name].__name__}, got {value!r}; save the model again"
            )
        values[name] = value
    return config_class(**values)


def _vocabulary(path: Path) -> tuple[str, ...]:
    try:
        lines = _read(path).decode("utf-8", "surrogatepass").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedInput(
            f"{path} is not UTF-8: {error.reason} at byte {error.start}; save the model again"
        ) from error
    if lines.pop():
        raise MalformedInput(f"{path} ends inside a line, so it was cut off; save the model again")
    if len(set(lines)) != len(lines):
        raise MalformedInput(f"{path} holds a word twice; save the model again")
    return tuple(lines)


def _fill(model: torch.nn.Module, path: Path, name: str) -> None:
    try:
        tensors = safetensors.torch.load(_read(path))
    except safetensors.SafetensorError as error:
        raise MalformedInput(f"{path} is no whole safetensors file: {error}; save the model again") from error
    expected = model.state_dict()
    odd = sorted(expected.keys() ^ tensors.keys())
    if odd:
        what = "lacks" if odd[0] in expected else "has an unknown"
        raise MalformedInput(f"{path} {what} tensor {odd[0]!r} of {name}; save the model again")
    for key, tensor in tensors.items():
        want = expected[key]
        if tensor.shape != want.shape or tensor.dtype != want.dtype:
            raise MalformedInput(
                f"{path}: {key} must be {_form(want)} by configuration and vocabulary, got {_form(tensor)}; "
                "save the model again"
            )
    _check_numbers(tensors, f"{path} is refused")
    model.load_state_dict(tensors)


def _form(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _check_numbers(tensors: Mapping[str, torch.Tensor], refusal: str) -> None:
    for name, tensor in tensors.items():
        bad = int((~tensor.isfinite()).sum())
        if bad:
            raise MalformedInput(
                f"{refusal}: {bad} of {tensor.numel()} values of {name} are NaN or infinite; train it again"
            )


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MalformedInput(f"{path} is missing, so the model is not whole; save it again") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def _write(path: Path, data: bytes) -> None:
    """The whole file or none: a kill leaves what was there."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
