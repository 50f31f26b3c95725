"""Programs <-> one file: the canonical deployed bytes, fp32 and int8.

A file is safetensors (tensors little-endian, in the order of their names) with one metadata entry, ``gritbench``:
JSON that says what the tensors are. The vocabulary is a tensor too, its words in UTF-8 with a line feed between, and
the JSON names the tokenizer, so all that a text needs is inside and is counted. Same program, same bytes. Reading
believes nothing: a file is refused with MalformedInput before any of it is run. A large array may lie in a shipping
form of :mod:`grit.bench.export.forms`; the JSON's ``stored`` says which, and reading gives the array itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from grit.bench import types
from grit.bench.export import fixed, floating, forms
from grit.bench.export.fixed import FixedArtefact, FixedProgram
from grit.bench.export.floating import FloatArtefact
from grit.bench.types import MalformedInput, Program

FORMAT = "gritbench.program"
BUNDLE = "gritbench.files"
VERSION = 1
TOKENIZER = "gritbench.words.1"  # the rules of grit.bench.text
LARGEST_BYTES = 1 << 30

_KINDS: Mapping[str, type] = {
    kind.__name__: kind
    for kind in (
        *(
            types.Rows,
            types.Ternary,
            types.Dense,
            types.Lstm,
            types.FastGrnn,
            types.Kernel,
            types.AttentionPool,
            types.Mean,
        ),
        *(
            fixed.Product,
            fixed.Affine,
            fixed.FixedLstm,
            fixed.FixedFastGrnn,
            fixed.FixedKernel,
            fixed.FixedPool,
            fixed.FixedMean,
        ),
    )
}
_PROGRAMS: Mapping[str, type[Program] | type[FixedProgram]] = {"float32": Program, "int8": FixedProgram}
_DTYPES = {"I8": np.int8, "U8": np.uint8, "I16": np.int16, "I32": np.int32, "F16": np.float16, "F32": np.float32}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
_PARTS = {"words": "embedding", "vocabulary": "vocabulary", "body": "body", "head": "head", "files": "files"}


def pack(program: Program | FixedProgram, allowed: tuple[str, ...] = ()) -> bytes:
    """The file of a program; MalformedInput for one that no loader would take.

    allowed: the shipping forms of which each array takes the smallest, where that is smaller than itself.
    """
    check(program)
    tensors: dict[str, np.ndarray] = {"vocabulary": np.frombuffer("\n".join(program.vocabulary).encode(), np.uint8)}
    numbers = next(name for name, kind in _PROGRAMS.items() if isinstance(program, kind))
    tree = {
        "format": FORMAT,
        "version": VERSION,
        "numbers": numbers,
        "tokenizer": TOKENIZER,
        "words_in_vocabulary": len(program.vocabulary),
    }
    for field in dataclasses.fields(program):
        if field.name != "vocabulary":
            tree[field.name] = _tree(getattr(program, field.name), field.name, tensors)
    if notes := _store(tensors, allowed):
        tree["stored"] = notes
    return _container(json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False), tensors)


def unpack(data: bytes) -> Program | FixedProgram:
    """The program in a file, checked; MalformedInput says what is wrong with it."""
    metadata, tensors = _contents(data)
    tree = _json(metadata, "the program's description")
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise _malformed("it holds no gritbench program")
    if tree.get("version") != VERSION:
        raise MalformedInput(f"program file of version {tree.get('version')!r}: this gritbench reads version {VERSION}")
    if tree.get("tokenizer") != TOKENIZER:
        raise _malformed(f"unknown tokenizer {tree.get('tokenizer')!r}")
    numbers = tree.get("numbers")
    if not isinstance(numbers, str) or numbers not in _PROGRAMS:
        raise _malformed(f"unknown numbers {numbers!r}")
    fields = {"kind": _PROGRAMS[numbers].__name__} | {
        key: value
        for key, value in tree.items()
        if key not in ("format", "version", "numbers", "tokenizer", "words_in_vocabulary", "stored")
    }
    if "stored" in tree:
        _expand(tree["stored"], tensors)
    vocabulary = _vocabulary(tensors.pop("vocabulary", None), tree.get("words_in_vocabulary"))
    program = _value(fields, _PROGRAMS[numbers], "", tensors, vocabulary)
    if tensors:
        raise _malformed(f"unknown tensor {min(tensors)!r}")
    check(program)
    return program


def check(program: Program | FixedProgram) -> None:
    """MalformedInput unless shapes, types and bounds of the program hold."""
    for word in program.vocabulary:
        if "\n" in word:
            raise _malformed("a word of the vocabulary holds a line feed")
    if isinstance(program, FixedProgram):
        program.check()
    else:
        floating.check(program)


def artefact(data: bytes) -> FixedArtefact | FloatArtefact:
    """The bytes of a program, ready to answer."""
    program, digest, sizes = unpack(data), hashlib.sha256(data).hexdigest(), sizes_bytes(data)
    if isinstance(program, FixedProgram):
        return FixedArtefact(program, digest, sizes)
    return FloatArtefact(program, digest, sizes)


def sizes_bytes(data: bytes) -> dict[str, int]:
    """part -> bytes of a program file: embedding, vocabulary, body, head, header (which names the tokenizer)."""
    sizes = {part: 0 for part in _PARTS.values() if part != "files"}
    for name, tensor in _contents(data)[1].items():
        sizes[_PARTS[name.partition(".")[0]]] += tensor.nbytes
    return sizes | {"header": len(data) - sum(sizes.values())}


def read_file(path: Path) -> bytes:
    """A file's bytes; MalformedInput where there is none or it is beyond the size limit."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise MalformedInput(f"{path} has {path.stat().st_size} bytes, the limit is {LARGEST_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise MalformedInput(f"cannot read {path}: {error.strerror}; pass a program file or an ONNX folder") from error


# --- several files in one -----------------------------------------------------------------------------


def bundle(files: Mapping[str, bytes]) -> bytes:
    """The files of a folder in one container, name -> bytes."""
    tree = json.dumps({"format": BUNDLE, "version": VERSION}, sort_keys=True, separators=(",", ":"))
    return _container(tree, {f"files.{name}": np.frombuffer(data, np.uint8) for name, data in files.items()})


def is_bundle(data: bytes) -> bool:
    """Whether a container holds files, not a program; MalformedInput if it is none."""
    tree = _json(_contents(data)[0], "the container's description")
    return isinstance(tree, dict) and tree.get("format") == BUNDLE


def unbundle(data: bytes) -> dict[str, bytes]:
    """The files that :func:`bundle` put side by side."""
    metadata, tensors = _contents(data)
    if _json(metadata, "the container's description") != {"format": BUNDLE, "version": VERSION}:
        raise _malformed(f"it is no container of version {VERSION}")
    if not all(name.startswith("files.") and tensor.dtype == np.uint8 for name, tensor in tensors.items()):
        raise _malformed("it holds something that is no file")
    return {name.removeprefix("files."): tensor.tobytes() for name, tensor in tensors.items()}


# --- values <-> JSON and tensors ----------------------------------------------------------------------


def _tree(value: Any, path: str, tensors: dict[str, np.ndarray]) -> Any:
    """The JSON of a value; its arrays go to ``tensors`` under their paths and leave nothing in the JSON."""
    if dataclasses.is_dataclass(value):
        tree: dict[str, Any] = {"kind": type(value).__name__}
        for field in dataclasses.fields(value):
            part = getattr(value, field.name)
            below = f"{path}.{field.name}"
            if isinstance(part, np.ndarray):
                tensors[below] = part
            else:
                tree[field.name] = _tree(part, below, tensors)
        return tree
    if isinstance(value, tuple):
        return [_tree(item, f"{path}.{k}", tensors) for k, item in enumerate(value)]
    return value


def _value(
    tree: Any, expected: Any, path: str, tensors: dict[str, np.ndarray], vocabulary: tuple[str, ...] = ()
) -> Any:
    """The value of type ``expected`` that :func:`_tree` wrote."""
    if expected in (int, float, bool):
        if type(tree) is not expected:
            raise _malformed(f"{path} is {str(tree)[:40]!r}, not {expected.__name__}")
        return tree
    if getattr(expected, "__origin__", None) is tuple:
        if not isinstance(tree, list):
            raise _malformed(f"{path} is not a list")
        return tuple(_value(item, get_args(expected)[0], f"{path}.{k}", tensors) for k, item in enumerate(tree))
    kind = tree.get("kind") if isinstance(tree, dict) else None
    choices = {choice.__name__: choice for choice in get_args(expected) or (expected,)}
    if not isinstance(kind, str) or kind not in choices:
        raise _malformed(f"{path or 'the program'} is {str(kind)[:40]!r}, not {' or '.join(choices)}")
    hints = get_type_hints(choices[kind], {**vars(types), **vars(fixed), "np": np})
    values: dict[str, Any] = {}
    for name, hint in hints.items():
        below = f"{path}.{name}" if path else name
        if hint is np.ndarray:
            if below not in tensors:
                raise _malformed(f"tensor {below!r} is missing")
            values[name] = tensors.pop(below)
        elif below == "vocabulary":
            values[name] = vocabulary
        elif name not in tree:
            raise _malformed(f"{below} is missing")
        else:
            values[name] = _value(tree[name], hint, below, tensors)
    if unknown := set(tree) - set(values) - {"kind"}:
        raise _malformed(f"unknown key {min(unknown)[:40]!r} in {path or 'the program'}")
    return choices[kind](**values)


def _store(tensors: dict[str, np.ndarray], allowed: tuple[str, ...]) -> dict[str, Any]:
    """Puts arrays into their smallest allowed forms: path -> note of those that have one."""
    notes = {}
    for path in [path for path in tensors if path != "vocabulary"]:
        if stored := forms.smallest(tensors[path], allowed):
            del tensors[path]
            tensors |= {f"{path}.{name}": tensor for name, tensor in stored.tensors.items()}
            notes[path] = dict(stored.note)
    return notes


def _expand(notes: Any, tensors: dict[str, np.ndarray]) -> None:
    """Puts the arrays back that :func:`_store` took out."""
    if not isinstance(notes, dict) or not notes:
        raise _malformed("its stored forms are no table")
    for path, note in notes.items():
        parts = {name.removeprefix(f"{path}."): name for name in tensors if name.rpartition(".")[0] == path}
        if not parts or path in tensors:
            raise _malformed(f"array {path[:40]!r} is stored twice, or not at all")
        tensors[path] = forms.expanded(note, {name: tensors.pop(full) for name, full in parts.items()}, LARGEST_BYTES)


def _vocabulary(tensor: np.ndarray | None, count: Any) -> tuple[str, ...]:
    if tensor is None or tensor.dtype != np.uint8 or type(count) is not int:
        raise _malformed("its vocabulary is missing")
    try:
        text = tensor.tobytes().decode()
    except UnicodeDecodeError:
        raise _malformed("its vocabulary is not UTF-8") from None
    vocabulary = tuple(text.split("\n")) if count else ()
    if len(vocabulary) != count or (text and not count):
        raise _malformed(f"its vocabulary has {len(vocabulary)} words, not {count}")
    return vocabulary


def _malformed(what: str) -> MalformedInput:
    return MalformedInput(f"not a program file: {what}; export the model again")


# --- the container: safetensors with one metadata entry ------------------------------------------------


def _container(metadata: str, tensors: Mapping[str, np.ndarray]) -> bytes:
    # wide types first, so that every tensor lies at a multiple of its item size
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"gritbench": metadata}}
    end = 0
    for name in names:
        start, end = end, end + tensors[name].nbytes
        header[name] = {
            "dtype": _CODES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    blocks = (
        np.ascontiguousarray(tensors[name]).astype(tensors[name].dtype.newbyteorder("<")).tobytes() for name in names
    )
    return b"".join([len(text).to_bytes(8, "little"), text, *blocks])


def _contents(data: bytes) -> tuple[str, dict[str, np.ndarray]]:
    """Metadata entry and tensors (read-only views) of a container whose bytes are accounted for to the last."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise _malformed(f"it is cut off after {len(data)} bytes")
    header = _json(data[8 : 8 + size], "the header")
    if not isinstance(header, dict):
        raise _malformed("its header is no table")
    extra = header.pop("__metadata__", None)
    if not isinstance(extra, dict) or set(extra) != {"gritbench"} or not isinstance(extra["gritbench"], str):
        raise _malformed("it holds no gritbench metadata")
    tensors: dict[str, np.ndarray] = {}
    end = 8 + size
    for name, entry in header.items():
        tensors[name], end = _tensor(data, name, entry, 8 + size, end)
    if end != len(data):
        raise _malformed(f"it has {len(data)} bytes, its header accounts for {end}")
    return extra["gritbench"], tensors


def _tensor(data: bytes, name: str, entry: Any, base: int, start: int) -> tuple[np.ndarray, int]:
    """The tensor that must begin at ``start``, and where it ends."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _malformed(f"tensor {name[:40]!r} is not described")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    shape, offsets = entry["shape"], entry["data_offsets"]
    if dtype is None or not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2 or len(shape) > 4:
        raise _malformed(f"tensor {name[:40]!r} has an illegal type, shape or place")
    end = start + math.prod(shape) * np.dtype(dtype).itemsize
    if (base + offsets[0], base + offsets[1]) != (start, end) or end > len(data):
        raise _malformed(f"tensor {name[:40]!r} does not lie where it should")
    if name.partition(".")[0] not in _PARTS:
        raise _malformed(f"unknown tensor {name[:40]!r}")
    little = np.dtype(dtype).newbyteorder("<")
    return np.frombuffer(data, little, math.prod(shape), start).reshape(shape).astype(dtype, copy=False), end


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v <= LARGEST_BYTES for v in value)


def _json(text: str | bytes, what: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(table := dict(pairs)) != len(pairs):
            raise ValueError("a key stands twice")
        return table

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:  # ValueError: also text that is not UTF-8, and endless numbers
        raise _malformed(f"{what} is not JSON ({str(error)[:60]})") from None
