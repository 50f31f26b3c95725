"""A transformer of the library, cut at its embeddings: the library's own answers, and the way of a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grit.bench import check, checkpoint, experiment, run
from grit.bench.experiment import Experiment
from grit.bench.types import CouldNotMeasure, UsageError

transformers = pytest.importorskip("transformers", reason="the extra 'teacher' is not installed")
tokenizers = pytest.importorskip("tokenizers")
from grit.models.transformer import Transformer  # noqa: E402  # after the skip

TEXTS = ("The soup was warm, unbelievably good!", "cold", "We never came back: a cold room and a slow waiter.")


def wordpiece(folder: Path) -> Any:
    """A network of BERT's kind, whose tokenizer does not mind white space."""
    letters = "abcdefghijklmnopqrstuvwxyz,.:!"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = [*special, *letters, *(f"##{letter}" for letter in letters), "soup", "cold", "warm", "un", "##believ"]
    numbers = {word: number for number, word in enumerate(words)}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(numbers, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    about = transformers.BertConfig(vocab_size=len(words), max_position_embeddings=64, num_labels=3, **sizes)
    return saved(transformers.BertForSequenceClassification, about, folder)


def byte_pairs(folder: Path) -> Any:
    """A network of RoBERTa's kind, whose tokenizer reads a word by the white space in front of it."""
    made = tokenizers.ByteLevelBPETokenizer(add_prefix_space=True)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    made.train_from_iterator(TEXTS, vocab_size=300, special_tokens=special, show_progress=False)
    made._tokenizer.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), special, strict=True))
    library = transformers.PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, **names)
    library.save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    about = transformers.RobertaConfig(vocab_size=len(library), max_position_embeddings=66, num_labels=3, **sizes)
    return saved(transformers.RobertaForSequenceClassification, about, folder)


def saved(kind: Any, about: Any, folder: Path) -> Any:
    with torch.random.fork_rng(devices=[]):
        network = kind(about).eval()
    network.save_pretrained(folder)
    return network


KINDS = {"wordpiece": wordpiece, "byte pairs": byte_pairs}


@pytest.fixture(scope="module", params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("source") / "tiny"
    return folder, KINDS[request.param](folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert") / "tiny"
    wordpiece(folder)
    return folder


def built(folder: Path, classes: int = 3, seed: int = 0, **fields: Any) -> Transformer:
    config = Transformer.Config(source=str(folder), max_tokens=60, **fields)
    return Transformer.build(config, (), classes, seed).eval()


def coded(model: Transformer, texts: Sequence[str], extra: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """codes [batch seq], padded by ``extra`` places more than needed, and lengths [batch]."""
    codes = [model.codes(model.tokenize(raw) or [""]) for raw in texts]
    lengths = torch.tensor([len(one) for one in codes])
    padded = np.zeros((len(codes), int(lengths.max()) + extra), np.int64)
    for row, one in zip(padded, codes, strict=True):
        row[: len(one)] = one
    return torch.from_numpy(padded), lengths


def test_logits_are_the_librarys_own(source: tuple[Path, Any]) -> None:
    folder, network = source
    model, tokenizer = built(folder), transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        found = model(*coded(model, TEXTS, extra=3))
        for raw, logits in zip(TEXTS, found, strict=True):
            # A byte-pair tokenizer is asked for the text as it stands after white space, as every piece is here.
            expected = network(**tokenizer(f" {raw}", return_tensors="pt")).logits[0]
            assert torch.allclose(logits, expected, atol=1e-5)


def test_pieces_between_white_space_are_cut_alone(source: tuple[Path, Any]) -> None:
    model = built(source[0])
    for raw in TEXTS:
        assert model.tokenize(raw) == [token for piece in raw.split() for token in model.tokenize(piece)]
    assert model.tokenize("") == [] and len(model.codes([""])) == 1
    assert model.codes(["never a sub-word"]).tolist() == model.codes([""]).tolist()


def test_the_gradient_reaches_the_embeddings_and_nothing_behind_a_text(source: tuple[Path, Any]) -> None:
    model = built(source[0])
    codes, lengths = coded(model, TEXTS)
    features = model.features(codes).detach().requires_grad_()
    model.head(model.read(features, lengths).state)[:, 0].sum().backward()
    inside = torch.arange(codes.shape[1]) < lengths[:, None]
    assert features.grad is not None
    assert (features.grad[inside].abs().sum(-1) > 0).all() and not features.grad[~inside].any()


def test_a_fresh_head_comes_from_the_seed(bert: Path) -> None:
    before = torch.get_rng_state()
    heads = [built(bert, classes=2, seed=seed).network.classifier.weight for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    kept = [built(bert, classes=3, seed=seed).network.classifier.weight for seed in (1, 2)]  # it came with the source
    assert torch.equal(*kept)


@pytest.mark.parametrize(("classes", "learning"), [(2, {"classifier.weight", "classifier.bias"}), (3, set())])
def test_frozen_trains_only_what_is_fresh(bert: Path, classes: int, learning: set[str]) -> None:
    model = built(bert, classes=classes, frozen=True)
    assert {name for name, weight in model.network.named_parameters() if weight.requires_grad} == learning


def test_saved_and_loaded_it_answers_alike(bert: Path, tmp_path: Path) -> None:
    model = built(bert, classes=2, seed=5)
    checkpoint.save_model(model, tmp_path, ("no", "yes"))
    again: Any = checkpoint.load_model(tmp_path)
    with torch.no_grad():
        assert torch.equal(model(*coded(model, TEXTS)), again.eval()(*coded(again, TEXTS)))


def test_it_keeps_the_contract(bert: Path) -> None:
    @dataclass(frozen=True)
    class Config(Transformer.Config):
        source: str = str(bert)
        max_tokens: int = 60

    class Local(Transformer):
        pass

    Config.__qualname__ = "Local.Config"
    Local.Config = Config  # type: ignore[misc]  # the same fields, with a source
    findings = check.check("models", Local)
    assert {finding.name: finding.message for finding in findings if not finding.ok} == {}


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"source": ""}, UsageError, "needs a source"),
        ({"source": "/nowhere/at/all"}, CouldNotMeasure, "cannot load /nowhere/at/all"),
    ],
)
def test_without_its_source_it_says_what_to_do(fields: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Transformer.build(Transformer.Config(**fields), (), 2, 0)


def test_more_tokens_than_the_source_has_places_are_refused(bert: Path) -> None:
    with pytest.raises(UsageError, match="64 sub-words"):
        Transformer.build(Transformer.Config(source=str(bert), max_tokens=63), (), 2, 0)


def test_it_teaches_in_a_run_and_its_name_holds_no_folder(bert: Path, tmp_path: Path) -> None:
    wanted = Experiment(
        models=("student",),
        schemes=("natural", "mapped"),
        attacks=("deepwordbug",),
        targets=(),
        n=4,
        n_train=40,
        settings=(
            ("teacher", "transformer"),
            ("transformer.source", str(bert)),
            ("transformer.max_tokens", "60"),
            ("transformer.epochs", "1"),
            ("student.epochs", "1"),
        ),
    )
    plans = experiment.rows(wanted)
    assert [plan.scheme.name for plan in plans] == ["natural", "mapped[teacher=transformer]"]
    found = run.run(wanted, tmp_path / "out", jobs=1, quiet=True)
    teacher = "transformer[source=tiny,max_tokens=60,epochs=1]"
    assert {row.record.scheme.teacher for row in found.rows} == {None, teacher}
    assert (tmp_path / "out" / "model" / f"{teacher}.natural.s0").is_dir()
