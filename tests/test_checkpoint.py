"""Saved models: read after write is the identity, and whatever else lies in a folder is refused in one line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from grit.bench import checkpoint, registry
from grit.bench.checkpoint import CONFIG, VOCABULARY, WEIGHTS, load_model, read_card, save_model
from grit.bench.types import MalformedInput, StorageError, UsageError
from grit.models.fastgrnn import FastGRNN
from grit.models.prado import Prado
from grit.models.student import Student
from grit.models.teacher import Teacher

TEXTS = ("a warm soup and a good bed", "a cold soup, a bad bed", "caf\u00e9 \u2028 caf\u00e9 \u2028 warm cold")
LABELS = ("warm", "cold", "\u2603")

KINDS: dict[str, Callable[[], Any]] = {
    name: lambda name=name: (cls := registry.load("models", name)).build(cls.Config(), TEXTS, 3, 0)
    for name in ("student", "teacher", "fastgrnn", "prado", "tfidf", "bag", "hashed")
} | {
    "sparse fastgrnn": lambda: FastGRNN.build(
        FastGRNN.Config(8, 16, rank_w=2, density_w=0.3, density_u=0.5), TEXTS, 3, 0
    ),
    "wide student": lambda: Student.build(Student.Config(embedding=10, hidden=7), TEXTS, 3, 0),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved student."""
    save_model(KINDS["student"](), tmp_path / "model", LABELS)
    return tmp_path / "model"


def logits(model: Any, raw: str) -> torch.Tensor:
    codes = torch.from_numpy(model.codes(model.tokenize(raw)))[None]
    return model.eval()(codes, torch.tensor([codes.shape[1]]))


# --- the way there and back --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_read_after_write_is_the_identity(kind: str, tmp_path: Path) -> None:
    model = KINDS[kind]()
    model.train()(torch.from_numpy(model.codes(["soup", "bed"]))[None], torch.tensor([2]))
    for progress in (0.4, 0.5):
        model.constrain(progress)
    save_model(model, tmp_path / "one", LABELS)
    again: Any = load_model(tmp_path / "one")
    assert type(again) is type(model)
    assert not again.training
    assert again.config == model.config
    assert again.vocabulary == model.vocabulary
    assert again.classes == 3
    saved, loaded = model.state_dict(), again.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(saved[name].numpy().tobytes() == loaded[name].numpy().tobytes() for name in saved)
    assert torch.equal(logits(model, "a warm bed"), logits(again, "a warm bed"))
    save_model(again, tmp_path / "two", LABELS)
    for name in (WEIGHTS, VOCABULARY, CONFIG):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted((WEIGHTS, VOCABULARY, CONFIG))


def test_the_card_says_what_lies_there_without_loading_it(folder: Path) -> None:
    card = read_card(folder)
    assert (card.model, card.classes, card.labels) == ("student", 3, LABELS)
    assert card.config == dataclasses.asdict(Student.Config())


def test_labels_may_be_left_out(tmp_path: Path) -> None:
    save_model(KINDS["hashed"](), tmp_path)
    assert read_card(tmp_path).labels == ()


def test_a_save_replaces_what_was_there(folder: Path) -> None:
    save_model(KINDS["prado"](), folder, LABELS)
    assert isinstance(load_model(folder), Prado)


def test_no_pickle_is_written_or_read(folder: Path) -> None:
    torch.save({"table": torch.zeros(1)}, folder / WEIGHTS)
    with pytest.raises(MalformedInput, match="no whole safetensors file"):
        load_model(folder)


def test_a_kill_between_files_leaves_no_model_that_loads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = checkpoint._write

    def killed(path: Path, data: bytes) -> None:
        if path.name == VOCABULARY:
            raise KeyboardInterrupt
        written(path, data)

    monkeypatch.setattr(checkpoint, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        save_model(KINDS["wide student"](), folder, LABELS)
    with pytest.raises(
        MalformedInput, match=r"holds no config\.json: it is no saved model, or its writing was cut off"
    ):
        load_model(folder)


# --- names ------------------------------------------------------------------------------------------


class Foreign(Student):
    """Stands for a model of somebody else's package."""


def test_a_class_outside_the_registry_cannot_be_saved(tmp_path: Path) -> None:
    model: Any = Foreign.build(Student.Config(), TEXTS, 3, 0)
    with pytest.raises(
        UsageError, match=r"Foreign is not in the registry; put it into models/ or behind an entry point"
    ):
        save_model(model, tmp_path)


def test_a_plug_in_is_saved_under_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("foreign", f"{Foreign.__module__}:Foreign", "gritbench.models")
    names = registry.names("models") | {"foreign": registry.Origin("models", "foreign", "a package", point)}
    monkeypatch.setattr(registry, "names", lambda kind: names)
    monkeypatch.setattr(registry, "load", lambda kind, name: {"foreign": Foreign}[name])
    model: Any = Foreign.build(Student.Config(), TEXTS, 3, 0)
    save_model(model, tmp_path)
    assert read_card(tmp_path).model == "foreign"
    assert isinstance(load_model(tmp_path), Foreign)


def test_a_model_whose_code_is_gone_is_named(folder: Path) -> None:
    edit_card(folder, model="studnet")
    with pytest.raises(UsageError, match="unknown model 'studnet': did you mean 'student'"):
        load_model(folder)


# --- what is refused --------------------------------------------------------------------------------


def edit_card(folder: Path, **changes: Any) -> None:
    tree = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(tree | changes))


def edit_config(folder: Path, **changes: Any) -> None:
    edit_card(folder, config=json.loads((folder / CONFIG).read_text())["config"] | changes)


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    change(tensors)
    safetensors.torch.save_file(tensors, folder / WEIGHTS)


def one_line(folder: Path, pattern: str) -> None:
    with pytest.raises(MalformedInput, match=pattern) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 6


def test_unknown_and_missing_fields(folder: Path) -> None:
    edit_config(folder, depth=2)
    one_line(folder, "the configuration has an unknown field 'depth'; student has embedding, hidden, ")
    tree = json.loads((folder / CONFIG).read_text())["config"]
    del tree["depth"], tree["hidden"]
    edit_card(folder, config=tree)
    one_line(folder, "the configuration has no field 'hidden'; student has")
    edit_card(folder, extra=1)
    one_line(folder, "must hold classes, config, format, labels, model; got classes, config, extra, ")


@pytest.mark.parametrize(
    ("value", "shown"), [("5", "'5'"), (5.0, "5.0"), (True, "True"), (None, "None"), ([5], r"\(5,\)")]
)
def test_fields_of_another_type(folder: Path, value: Any, shown: str) -> None:
    edit_config(folder, embedding=value)
    one_line(folder, f"embedding must be of type int, got {shown}; save the model again")


def test_a_whole_number_is_a_float_too(folder: Path) -> None:
    edit_config(folder, embedding_std=1)
    config = load_model(folder).config
    assert type(config.embedding_std) is float


@pytest.mark.parametrize("value", [0, -3, 10**13])
def test_sizes_that_cannot_be_built(folder: Path, value: int) -> None:
    edit_config(folder, hidden=value)
    one_line(folder, "student cannot be built from it: |must be float32")


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"classes": "3"}, "classes must be a JSON int, got '3'"),
        ({"classes": 0, "labels": []}, "classes must be 1 or more"),
        ({"labels": ["a", "b"]}, "names 2 labels for 3 classes"),
        ({"labels": [1, 2, 3]}, "labels strings"),
        ({"config": []}, r"config must be a JSON dict, got \[\]"),
        (
            {"classes": 4, "labels": []},
            r"head_\w+ must be float32 \[4.*\] by configuration and vocabulary, got float32 \[3",
        ),
    ],
)
def test_cards_that_contradict(folder: Path, changes: dict[str, Any], pattern: str) -> None:
    edit_card(folder, **changes)
    one_line(folder, pattern)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe{", b"[" * 100_000, b'{"format": NaN}', b"{}", b"[]", b"3"])
def test_cards_that_are_no_cards(folder: Path, data: bytes) -> None:
    (folder / CONFIG).write_bytes(data)
    one_line(folder, "is not JSON in UTF-8|must hold classes, config, format, labels, model; got ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_numbers(folder: Path, value: float) -> None:
    edit_weights(folder, lambda tensors: tensors["table"][1].fill_(value))
    one_line(folder, r"model\.safetensors is refused: 5 of \d+ values of table are NaN or infinite; train it again")


def test_weights_that_are_not_numbers_are_not_saved(tmp_path: Path) -> None:
    model = KINDS["student"]()
    with torch.no_grad():
        model.head_bias[0] = float("nan")
    with pytest.raises(MalformedInput, match="student cannot be saved: 1 of 3 values of head_bias are NaN or infinite"):
        save_model(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", [WEIGHTS, VOCABULARY, CONFIG])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_truncated_files(folder: Path, name: str, share: float) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * share)])
    one_line(folder, r"save the model again|save it again")


@pytest.mark.parametrize("name", [WEIGHTS, VOCABULARY, CONFIG])
def test_missing_files(folder: Path, name: str) -> None:
    (folder / name).unlink()
    one_line(folder, f"{name}.* is missing, so the model is not whole|holds no {name}")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    one_line(tmp_path / "nowhere", "it is no saved model")


def test_tensors_of_another_name_shape_or_type(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.update(extra=torch.zeros(1)))
    one_line(folder, "has an unknown tensor 'extra' of student")
    edit_weights(folder, lambda tensors: [tensors.pop("extra"), tensors.update(table=tensors["table"][:-1])])
    one_line(folder, r"table must be float32 \[\d+, 5\] by configuration and vocabulary, got float32 \[\d+, 5\]")
    edit_weights(folder, lambda tensors: tensors.update(table=tensors["table"].double()))
    one_line(folder, r"table must be float32 .* got float64")
    edit_weights(folder, lambda tensors: tensors.pop("table"))
    one_line(folder, "lacks tensor 'table' of student")


def test_a_teacher_is_not_a_student(folder: Path) -> None:
    edit_card(folder, model="teacher", config=dataclasses.asdict(Teacher.Config()))
    one_line(folder, "must be float32")


def test_vocabularies_that_do_not_fit(folder: Path) -> None:
    whole = (folder / VOCABULARY).read_bytes()
    for data, pattern in (
        (whole + b"more\n", r"table must be float32"),
        (whole + b"soup\n", "holds a word twice"),
        (whole + b"so", "ends inside a line"),
        (whole + b"\xff\n", "is not UTF-8: invalid start byte at byte"),
        (whole.replace(b"soup\n", b""), "table must be float32"),
    ):
        (folder / VOCABULARY).write_bytes(data)
        one_line(folder, pattern)


def test_a_hashing_model_with_a_vocabulary(tmp_path: Path) -> None:
    save_model(KINDS["prado"](), tmp_path)
    (tmp_path / VOCABULARY).write_bytes(b"soup\n")
    one_line(tmp_path, "prado cannot be built from it: a projection model has no vocabulary, got 1 words")


def test_odd_labels_and_words_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(MalformedInput, match="a model of 3 classes got 2 labels"):
        save_model(KINDS["student"](), tmp_path / "new", ("a", "b"))
    model: Any = Student(Student.Config(), ("", "a\nb"), 3).drawn(0)
    with pytest.raises(MalformedInput, match=r"the vocabulary holds 'a\\nb'"):
        save_model(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


# --- storage ----------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        StorageError, match=r"cannot write the model to .*; free some space or name another folder"
    ) as caught:
        save_model(KINDS["student"](), tmp_path / "file" / "model")
    assert caught.value.exit_code == 8


def test_a_full_disk_leaves_no_part_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        save_model(KINDS["student"](), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    with pytest.raises(StorageError, match=r"cannot read .*model\.safetensors: Is a directory"):
        load_model(folder)
