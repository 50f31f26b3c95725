"""ONNX folders: ``model.onnx``, ``tokenizer.json`` and, for models that look words up, ``vocabulary.txt``.

A program becomes a graph that is built directly (:mod:`grit.bench.export.graphs`); a model without one goes through
torch's tracer, in fp32 or with its weight matrices rounded to int8 a channel. All that a text needs lies in the folder,
and all of it is counted. Nothing in a folder is believed: graphs with external data, foreign operators or
functions of their own, and files beyond the size limit, are refused before they are run.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from grit.bench.export import graphs, packing, words
from grit.bench.export.fixed import FixedProgram
from grit.bench.types import CouldNotMeasure, GritError, MalformedInput, Model, Program, Ternary

FORMAT = "gritbench.onnx"
VERSION = 1
BY_MODEL = "model"  # the tokenizer of a traced model is its own code
TEXTS_AT_ONCE = 64
TOLERANCE = 1e-3  # a traced graph's logits against the model's own, relative to the largest of them
SMALLEST_MATRIX = 256  # weights; smaller ones, and vectors, stay fp32
OPSET = 17
_REMEDY = "give the model a program(), or keep Python branches and loops on values out of read and head"


# --- writing ------------------------------------------------------------------------------------------


def files(program: Program | FixedProgram) -> dict[str, bytes]:
    """The folder of a program, name -> bytes; the same program gives the same bytes."""
    packing.check(program)
    layer = program.words
    reads: dict[str, int | str] = {"input": "rows"}
    if isinstance(layer, Ternary):
        reads = {"input": "codes", "width": layer.width}
    elif layer.ngrams:
        reads |= {"ngrams": layer.ngrams, "buckets": len(layer.table)}
    return _folder(
        graphs.build(program),
        packing.TOKENIZER,
        len(program.head.bias),
        program.max_tokens,
        program.vocabulary,
        exact=isinstance(program, FixedProgram),
        reads=reads,
    )


def traced(model: Model, texts: Sequence[str], *, int8: bool = False) -> dict[str, bytes]:
    """The folder of a torch model that has no program, through torch's tracer.

    ``texts`` are run through model and graph, one and all at a time: a graph that differs raises CouldNotMeasure (the
    tracer freezes what depends on values). int8 rounds the weight matrices to 8 bits a channel.
    """
    import torch

    sequences = [model.codes((model.tokenize(raw) or [""])[: model.max_tokens]) for raw in texts]
    if not sequences:
        raise CouldNotMeasure("tracing got no texts: pass some of the training split")
    lengths = np.array([len(s) for s in sequences], np.int64)
    codes = np.zeros((len(sequences), lengths.max(), *sequences[0].shape[1:]), sequences[0].dtype)
    for line, sequence in zip(codes, sequences, strict=True):
        line[: len(sequence)] = sequence

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            return model.head(model.read(model.features(codes), lengths).state)

    whole = Whole().eval()
    buffer = io.BytesIO()
    inputs = (torch.from_numpy(codes), torch.from_numpy(lengths))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer, about what the comparison below checks
        try:
            torch.onnx.export(
                whole,
                inputs,
                buffer,  # type: ignore[arg-type]  # a file object is right for this exporter
                input_names=["codes", "lengths"],
                output_names=["logits"],
                dynamic_axes={"codes": {0: "batch", 1: "seq"}, "lengths": {0: "batch"}, "logits": {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            raise CouldNotMeasure(f"torch cannot trace the model ({_first_line(error)}): {_REMEDY}") from error
        expected = whole(*inputs).numpy()
    graph = _plain(ModelProto.FromString(buffer.getvalue()))
    _compare(graph, codes, lengths, expected)
    if int8:
        _weights_to_int8(graph)
    reads: dict[str, int | str] = {"input": "codes"}
    return _folder(graph, BY_MODEL, model.classes, model.max_tokens, model.vocabulary, exact=False, reads=reads)


def _folder(
    graph: ModelProto,
    tokenizer: str,
    classes: int,
    max_tokens: int,
    vocabulary: Sequence[str],
    *,
    exact: bool,
    reads: Mapping[str, int | str],
) -> dict[str, bytes]:
    description = {
        "format": FORMAT,
        "version": VERSION,
        "tokenizer": tokenizer,
        "classes": classes,
        "max_tokens": max_tokens,
        "exact": exact,
        **reads,
    }
    contents = {
        "model.onnx": graph.SerializeToString(deterministic=True),
        "tokenizer.json": (json.dumps(description, indent=1, sort_keys=True) + "\n").encode(),
    }
    if vocabulary:
        contents["vocabulary.txt"] = "\n".join(vocabulary).encode()
    return contents


def _plain(graph: ModelProto) -> ModelProto:
    """Without the notes that name source files and versions, so that the bytes depend on the model alone."""
    graph.producer_version = ""
    graph.doc_string = ""
    del graph.metadata_props[:]
    for node in graph.graph.node:
        node.doc_string = ""
    return graph


def _compare(graph: ModelProto, codes: np.ndarray, lengths: np.ndarray, expected: np.ndarray) -> None:
    session = _session(graph.SerializeToString(), threads=1)
    try:
        together = session.run(None, {"codes": codes, "lengths": lengths})[0]
        alone = [
            session.run(None, {"codes": codes[k : k + 1, :n], "lengths": lengths[k : k + 1]})[0][0]
            for k, n in enumerate(lengths.tolist())
        ]
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise CouldNotMeasure(f"the traced graph fails on a text ({_first_line(error)}): {_REMEDY}") from error
    allowed = TOLERANCE * max(float(np.abs(expected).max()), 1.0)
    off = max(float(np.abs(together - expected).max()), float(np.abs(np.array(alone) - expected).max()))
    if not off <= allowed:  # NaN too
        raise CouldNotMeasure(
            f"the traced graph's logits differ from the model's by {off:.3g} (allowed {allowed:.3g}): {_REMEDY}"
        )


def _weights_to_int8(graph: ModelProto) -> None:
    """Weight matrices become int8 and one fp32 scale a channel; sums stay fp32."""
    consumers: dict[str, NodeProto] = {name: node for node in graph.graph.node for name in node.input}
    kept, unpacking = [], []
    for tensor in graph.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if (
            weight.dtype != np.float32
            or weight.ndim < 2
            or weight.size < SMALLEST_MATRIX
            or tensor.name not in consumers
        ):
            kept.append(tensor)
            continue
        axis = _channels(consumers[tensor.name], tensor.name, weight.ndim)
        others = tuple(k for k in range(weight.ndim) if k != axis)
        scale = np.abs(weight).max(axis=others, keepdims=True) / np.float32(127)
        scale[scale == 0] = 1
        integers = np.clip(np.round(weight / scale), -127, 127).astype(np.int8)
        names = f"{tensor.name}_int8", f"{tensor.name}_scale"
        kept += [
            numpy_helper.from_array(integers, names[0]),
            numpy_helper.from_array(scale.ravel(), names[1]),
        ]
        unpacking.append(helper.make_node("DequantizeLinear", names, [tensor.name], axis=axis))
    nodes = list(graph.graph.node)
    del graph.graph.initializer[:], graph.graph.node[:]
    graph.graph.initializer.extend(kept)
    graph.graph.node.extend([*unpacking, *nodes])


def _channels(node: NodeProto, name: str, dimensions: int) -> int:
    """The axis of a weight that its consumer's outputs (or rows looked up) run along."""
    if node.op_type in ("LSTM", "GRU", "RNN"):
        return 1
    if node.op_type == "MatMul" and node.input[1] == name:
        return dimensions - 1
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return 0


# --- reading ------------------------------------------------------------------------------------------


class OnnxArtefact(words.Reader):
    """An ONNX folder at work under onnxruntime (:class:`grit.bench.types.Artefact`).

    ``contents``: name -> bytes of its files. ``model`` supplies tokenize and codes where the folder leaves them to
    it. ``threads`` are onnxruntime's own. ``session`` runs the graph elsewhere. MalformedInput for a folder that is not
    what :func:`files` or :func:`traced` writes.
    """

    def __init__(
        self,
        contents: Mapping[str, bytes],
        model: Model | None = None,
        *,
        threads: int = 1,
        session: Session | None = None,
    ) -> None:
        graph = contents.get("model.onnx")
        if graph is None:
            raise MalformedInput("the folder holds no model.onnx: export the model again")
        about = _description(contents.get("tokenizer.json"))
        super().__init__(_reader(about, contents.get("vocabulary.txt"), model))
        self.classes: int = about["classes"]
        self.max_tokens: int = about["max_tokens"]
        self.exact: bool = about["exact"]
        self.sizes_bytes: Mapping[str, int] = _sizes_bytes(contents)
        self.digest = digest(contents)
        self._codes: words.Growing | None = None
        _check(graph, about["input"])
        self._session = session or _session(graph, threads)
        kinds = {value.name: value.type for value in self._session.get_inputs()}
        self._input = about["input"]
        self._lengths = np.int32 if kinds["lengths"] == "tensor(int32)" else np.int64

    def _clear(self) -> None:
        self._codes = None

    def logits(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        lengths = np.minimum(lengths, self.max_tokens)
        order = np.argsort(-lengths, kind="stable")  # texts of like length share a batch
        answers = np.empty((len(rows), self.classes))
        for start in range(0, len(rows), TEXTS_AT_ONCE):
            part = order[start : start + TEXTS_AT_ONCE]
            answers[part] = self.fed(self.feed(rows[part, : lengths[part[0]]], lengths[part]))
        return answers

    def feed(self, rows: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """What the graph takes for rows [batch seq] and lengths [batch] <= max_tokens."""
        inside = np.where(np.arange(rows.shape[1]) < lengths[:, None], rows, 0).astype(np.int32)
        if isinstance(self._words, words.Codes):
            fresh = self._fresh()
            if self._codes is None:
                self._codes = words.Growing(np.empty((0, *fresh.shape[1:]), fresh.dtype))  # type: ignore[union-attr]  # row 0 is fresh
            if fresh is not None:
                self._codes.add(fresh)
            inside = self._codes.array[inside]
        return {self._input: inside, "lengths": lengths.astype(self._lengths)}

    def fed(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """The graph's logits [batch classes] for inputs of its own kind, one row a text."""
        try:
            (logits,) = self._session.run(["logits"], inputs)
        except GritError:  # of a session elsewhere
            raise
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise MalformedInput(f"model.onnx fails on a text: {_first_line(error)}; export the model again") from error
        expected = len(inputs["lengths"]), self.classes
        if logits.shape != expected:
            raise MalformedInput(f"model.onnx gives logits {logits.shape}, not {expected}: export it again")
        return logits


class Described(NamedTuple):
    """What the files of an ONNX folder say, without running them."""

    digest: str
    sizes_bytes: Mapping[str, int]
    exact: bool
    operators: frozenset[str]


def describe(contents: Mapping[str, bytes]) -> Described:
    """Reads and checks a folder's files and makes no session: nothing of them is run. Raises MalformedInput."""
    graph = contents.get("model.onnx")
    if graph is None:
        raise MalformedInput("the folder holds no model.onnx: export the model again")
    about = _description(contents.get("tokenizer.json"))
    _reader(about, contents.get("vocabulary.txt"), None)
    _check(graph, about["input"])
    used = {node.op_type for each in _graphs(ModelProto.FromString(graph).graph) for node in each.node}
    return Described(digest(contents), _sizes_bytes(contents), about["exact"], frozenset(used))


def read(folder: Path) -> dict[str, bytes]:
    """The files of an ONNX folder; MalformedInput where one is missing or beyond the size limit."""
    names = ["model.onnx", "tokenizer.json"]
    if (folder / "vocabulary.txt").exists():
        names.append("vocabulary.txt")
    return {name: packing.read_file(folder / name) for name in names}


def _description(data: bytes | None) -> dict[str, Any]:
    try:
        about = json.loads(data or b"")
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict) or about.get("format") != FORMAT or about.get("version") != VERSION:
        raise MalformedInput(
            f"tokenizer.json is not a {FORMAT} description of version {VERSION}: export the model again"
        )
    expected: dict[str, type] = {"tokenizer": str, "classes": int, "max_tokens": int, "exact": bool, "input": str}
    optional: dict[str, type] = {"width": int, "ngrams": int, "buckets": int}
    for key, kind in (expected | {k: v for k, v in optional.items() if k in about}).items():
        value: Any = about.get(key)
        if type(value) is not kind or (
            isinstance(value, int) and kind is int and not 0 < value <= packing.LARGEST_BYTES
        ):
            raise MalformedInput(
                f"tokenizer.json: {key} is {str(value)[:40]!r}, not a good {kind.__name__}; export the model again"
            )
    if unknown := set(about) - set(expected) - set(optional) - {"format", "version"}:
        raise MalformedInput(f"tokenizer.json: unknown key {min(unknown)[:40]!r}; export the model again")
    if about["input"] not in ("rows", "codes"):
        raise MalformedInput(f"tokenizer.json: unknown input {about['input'][:40]!r}; export the model again")
    return about


def _reader(about: Mapping[str, Any], vocabulary: bytes | None, model: Model | None) -> words.Words:
    if about["tokenizer"] == BY_MODEL:
        if model is None:
            raise MalformedInput("this folder's tokenizer is code of its model: load it together with the model")
        return words.Codes(model.codes, model.tokenize, separable=model.separable)
    if about["tokenizer"] != packing.TOKENIZER:
        raise MalformedInput(f"unknown tokenizer {about['tokenizer'][:40]!r}: this gritbench has {packing.TOKENIZER}")
    if about["input"] == "codes":
        if not 1 <= about.get("width", 0) <= 4096:
            raise MalformedInput(
                f"tokenizer.json: width is {about.get('width')}, not 1 to 4096; export the model again"
            )
        return words.of(Ternary(about["width"]), ())
    if "buckets" in about:
        return words.Buckets(about["buckets"], about.get("ngrams", 1))
    if vocabulary is None:
        raise MalformedInput("the folder holds no vocabulary.txt: export the model again")
    try:
        return words.Vocabulary(vocabulary.decode().split("\n"))
    except UnicodeDecodeError:
        raise MalformedInput("vocabulary.txt is not UTF-8: export the model again") from None


def _check(data: bytes, expected_input: str) -> None:
    """MalformedInput for a graph that reaches outside its file or outside the standard operators."""
    try:
        model = ModelProto.FromString(data)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and the checker's errors have no common class
        raise MalformedInput(f"model.onnx is not an ONNX model: {_first_line(error)}; export it again") from error
    if len(model.functions):
        raise MalformedInput("model.onnx defines functions of its own: inline them")
    for graph in _graphs(model.graph):
        for node in graph.node:
            if node.domain not in ("", "ai.onnx"):
                raise MalformedInput(
                    f"model.onnx uses operator {node.domain}.{node.op_type}: only the standard ones run here"
                )
        for tensor in _tensors(graph):
            if tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data):
                raise MalformedInput(
                    f"model.onnx keeps {tensor.name[:40]!r} in another file: save it with its data inside"
                )
    inputs = {value.name for value in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    if inputs != {expected_input, "lengths"} or outputs != {"logits"}:
        raise MalformedInput(
            f"model.onnx reads {sorted(inputs)} and gives {sorted(outputs)}, "
            f"not {sorted({expected_input, 'lengths'})} and ['logits']: export it again"
        )


def _graphs(graph: GraphProto) -> Iterable[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)


def _tensors(graph: GraphProto) -> Iterable[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors


class Session(Protocol):
    """The part of onnxruntime.InferenceSession that is used here."""

    def get_inputs(self) -> list[Any]: ...

    def run(self, outputs: list[str] | None, feed: dict[str, np.ndarray]) -> list[np.ndarray]: ...


def _session(data: bytes, threads: int) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors reach the caller as exceptions
    # so that weights are unpacked from int8 once, when the session is made, not on every call
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise MalformedInput(f"onnxruntime refuses model.onnx: {_first_line(error)}; export it again") from error


def _sizes_bytes(contents: Mapping[str, bytes]) -> dict[str, int]:
    return {name.partition(".")[0]: len(data) for name, data in sorted(contents.items())}


def digest(contents: Mapping[str, bytes]) -> str:
    """sha256 over the sha256sum lines of the files."""
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(contents.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
