"""Compression: forms that lose nothing, steps that are the identity where they take nothing away, and the ladder."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from grit.bench import (
    adequacy,
    cli,
    compress,
    compressing,
    leaderboard,
    operands,
    records,
    registry,
    run,
    schemes,
    submission,
    train,
    verify,
)
from grit.bench.compress import _draft, _network, _tuning, iht, products
from grit.bench.compress._draft import Course, Draft, Precision
from grit.bench.experiment import Folder
from grit.bench.export import forms, packing, quantise, words
from grit.bench.export.fixed import FixedProgram
from grit.bench.export.floating import FloatArtefact
from grit.bench.types import Dataset, Example, MalformedInput, Program, Rows, Scheme, Term, UsageError

sys.path.append(str(Path(__file__).parent))

from golden_bundles import of
from test_export_models import MODELS, model, sentences

TEXTS = sentences(2, 60)
ROOT = Path(__file__).resolve().parent.parent


def texts_of(split: str, n: int) -> tuple[Example, ...]:
    return tuple(Example(f"{split}{at}", text, at % 4) for at, text in enumerate(sentences(len(split), n)))


DATA = Dataset("made", "0" * 64, ("a", "b", "c", "d"), texts_of("train", 96), texts_of("dev", 24), ())


def course(name: str = "student", scheme: str = "natural", **fields: Any) -> Course:
    built = model(name)
    recipe = dataclasses.replace(type(built).recipe, batch_size=32)
    return Course(type(built), built.config, recipe, schemes.get(scheme), DATA, 0, **fields)


def climbed(rung: str, name: str = "student") -> Draft:
    return compress.parse(rung).climbed(Draft(model(name).program()), course(name))


def logits(program: Program, texts: list[str] = TEXTS) -> np.ndarray:
    return words.answer(FloatArtefact(program, "", {}), texts)


def same(one: Program | FixedProgram, other: Program | FixedProgram) -> bool:
    return packing.pack(one) == packing.pack(other)


# --- forms ------------------------------------------------------------------------------------------------


FEW = st.sampled_from([0, 0, 0, 1, -1, 7, -127, 127])
ARRAYS = st.one_of(
    npst.arrays(np.int8, npst.array_shapes(max_dims=3, max_side=40), elements=FEW),
    npst.arrays(np.float32, npst.array_shapes(max_dims=3, max_side=40), elements=FEW.map(lambda n: n / 8)),
    npst.arrays(np.float32, (30, 6), elements=st.floats(width=32, allow_nan=False)),
)


@given(ARRAYS, st.sets(st.sampled_from(forms.FORMS)))
def test_a_form_gives_the_array_back_bit_for_bit_and_is_smaller(array: np.ndarray, allowed: set[str]) -> None:
    stored = forms.smallest(array, tuple(allowed))
    if stored is None:
        return
    assert stored.note["form"] in allowed
    assert stored.nbytes + forms.NAMING_BYTES < array.nbytes
    back = forms.expanded(dict(stored.note), stored.tensors, packing.LARGEST_BYTES)
    assert back.dtype == array.dtype and back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_each_form_is_taken_where_it_pays() -> None:
    rng = np.random.default_rng(0)
    few_rows = rng.normal(size=(8, 16)).astype(np.float32)[rng.integers(0, 8, 500)]
    mostly_zero = np.where(rng.random((100, 64)) < 0.1, rng.normal(size=(100, 64)), 0).astype(np.float32)
    halves = rng.normal(size=(100, 64)).astype(np.float16).astype(np.float32)
    for array, form in ((few_rows, "codebook"), (mostly_zero, "sparse"), (halves, "half")):
        stored = forms.smallest(array, forms.FORMS)
        assert stored is not None and stored.note["form"] == form
    assert forms.smallest(rng.normal(size=(100, 64)).astype(np.float32), forms.FORMS) is None
    assert forms.smallest(few_rows, ()) is None


def test_bytes_of_a_form_are_what_anybody_would_count() -> None:
    rng = np.random.default_rng(1)
    table = rng.integers(-127, 128, (200, 4), np.int8)[rng.integers(0, 200, 3000)]
    whole = forms.smallest(table, ("codebook",))
    assert whole is not None and whole.nbytes == 3000 + len(np.unique(table, axis=0)) * 4  # a byte a row, one part
    sparse = np.zeros(8000, np.int8)
    sparse[:500] = 1
    stored = forms.smallest(sparse, ("sparse",))
    assert stored is not None and stored.nbytes == 1000 + 500  # a bit a value, a byte a one


def test_a_zero_keeps_its_sign() -> None:
    signed = np.zeros((400, 4), np.float32)
    signed[::2] = -0.0
    for form in forms.FORMS:
        stored = forms.smallest(signed, (form,))
        assert (stored is None) == (form == "sparse")
        if stored is not None:
            back = forms.expanded(dict(stored.note), stored.tensors, 1 << 20)
            assert (np.signbit(back) == np.signbit(signed)).all()


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown form 'zip'"):
        forms.smallest(np.zeros(3, np.int8), ("zip",))


CODES, CENTROIDS = np.array([[0, 1], [1, 0]], np.uint8), np.ones((2, 2, 3), np.int8)
BITS, VALUES = np.packbits([1, 0, 1, 0, 0, 0, 0, 0]), np.array([5, 6], np.int8)


@pytest.mark.parametrize(
    ("note", "tensors", "reason"),
    [
        ([], {}, "not described"),
        ({"form": "zip"}, {}, "unknown form"),
        ({"form": "half"}, {"codes": CODES}, "other tensors"),
        ({"form": "half"}, {"half": np.ones(3, np.float32)}, "16 bits"),
        ({"form": "codebook"}, {"codes": CODES + 1, "centroids": CENTROIDS}, "names no centroid"),
        ({"form": "codebook"}, {"codes": CODES[:, :1], "centroids": CENTROIDS}, "do not fit"),
        ({"form": "codebook"}, {"codes": CODES.astype(np.int32), "centroids": CENTROIDS}, "small integers"),
        ({"form": "codebook"}, {"codes": CODES, "centroids": np.ones((2, 2, 1 << 18), np.int8)}, "too large"),
        ({"form": "sparse", "shape": [8]}, {"places": BITS, "values": VALUES[:1]}, "differ in number"),
        ({"form": "sparse", "shape": [8]}, {"places": BITS, "values": VALUES * 0}, "canonical"),
        ({"form": "sparse", "shape": [3]}, {"places": BITS | 1, "values": VALUES}, "canonical"),
        ({"form": "sparse", "shape": [9]}, {"places": BITS, "values": VALUES}, "one a value"),
        ({"form": "sparse", "shape": [1 << 10, 1 << 10]}, {"places": BITS, "values": VALUES}, "too large"),
        ({"form": "sparse", "shape": [-1]}, {"places": BITS, "values": VALUES}, "shape is illegal"),
        ({"form": "sparse"}, {"places": BITS, "values": VALUES}, "no shape"),
    ],
)
def test_what_no_writer_wrote_is_malformed(note: Any, tensors: dict[str, np.ndarray], reason: str) -> None:
    with pytest.raises(MalformedInput, match=reason):
        forms.expanded(note, tensors, 1 << 19)


# --- files ------------------------------------------------------------------------------------------------


def spoiled(data: bytes, old: str, new: str) -> bytes:
    """The file with other words of equal length in its header."""
    assert len(old) == len(new) and old.encode() in data
    return data.replace(old.encode(), new.encode())


def test_a_stored_program_is_read_back_whole_and_its_parts_add_up_to_the_file() -> None:
    for rung in ("products[codes=8]", "fp16", "products[codes=8]+fp16", "products[codes=8]+fp32"):
        draft = climbed(rung, "fastgrnn")
        plain = quantise.quantise(draft.program, TEXTS) if draft.precision == "int8" else draft.program
        data = draft.deployed(TEXTS)
        assert same(packing.unpack(data), plain)
        assert len(data) < len(packing.pack(plain))
        assert sum(packing.sizes_bytes(data).values()) == len(data)


def test_stored_forms_of_a_file_are_not_believed() -> None:
    data = climbed("products[codes=8]", "fastgrnn").deployed(TEXTS)
    for old, new in (("words.table.codes", "words.fable.codes"), ('\\"codebook\\"', '\\"codeb00k\\"')):
        with pytest.raises(MalformedInput):
            packing.unpack(spoiled(data, old, new))


@pytest.mark.parametrize("file", sorted((ROOT / "leaderboards").glob("*/*.s0/**/artefact.safetensors")), ids=str)
def test_committed_bytes_are_written_as_ever(file: Path) -> None:
    data = file.read_bytes()
    assert packing.pack(packing.unpack(data)) == data


# --- the network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_network_of_a_program_is_the_program(name: str) -> None:
    program = model(name).program()
    network = _network.Network(program).eval()
    answered = train.predict(network, TEXTS)  # type: ignore[arg-type]  # separable belongs to its program
    assert np.abs(answered - train.predict(model(name), TEXTS)).max() < 1e-4
    back = network.program()
    for path, array in _draft.arrays(program).items():
        assert _draft.arrays(back)[path].tobytes() == array.tobytes(), path
    assert same(back, program)


def test_the_network_reads_words_as_its_program_does() -> None:
    for name in ("student", "hashed", "prado"):
        network = _network.Network(model(name).program())
        assert network.separable == model(name).separable
        for text in TEXTS[:10]:
            tokens = network.tokenize(text)
            assert tokens == model(name).tokenize(text)
            assert (network.codes(tokens) == model(name).codes(tokens)).all()


def test_what_a_rounded_network_reads_is_what_int8_ships() -> None:
    program = model("student").program()
    layer = quantise.quantise(program, TEXTS).words
    assert isinstance(layer, Rows)
    network = _network.Network(program, rounded=True)
    read = network.weight("words.table").detach().numpy()
    scale = np.abs(program.words.table).max(0) / 127
    assert np.array_equal(np.round(read / scale), layer.table)
    assert torch.equal(_network.rounded(torch.from_numpy(read), by_column=True), torch.from_numpy(read))


def test_a_gradient_passes_the_rounding() -> None:
    network = _network.Network(model("student").program(), rounded=True)
    network.weight("words.table").sum().backward()
    gradient = network.weights["words/table"].grad
    assert gradient is not None and (gradient == 1).all()


# --- steps that train nothing -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["student", "fastgrnn", "tfidf"])
@pytest.mark.parametrize("rung", ["fp32", "int8", "packed", "vocabulary[share=1.0]", "products[codes=100]"])
def test_a_step_that_takes_nothing_is_the_identity(rung: str, name: str) -> None:
    draft = climbed(rung, name)
    assert same(draft.program, model(name).program())
    if draft.precision == "int8":
        dense = quantise.quantise(model(name).program(), TEXTS)
        assert same(packing.unpack(draft.deployed(TEXTS)), dense)


def test_a_model_that_was_trained_sparse_ships_sparse() -> None:
    cls = registry.load("models", "fastgrnn")
    config = cls.Config(vocabulary_size=20, embedding=48, hidden=96, density_w=0.2, density_u=0.2)
    built = cls.build(config, sentences(1, 50), 4, 0)
    for progress in (0.5, 0.9):
        built.constrain(progress)
    plain, packed = (
        compress.parse(rung).climbed(Draft(built.program()), course()).deployed(TEXTS) for rung in ("int8", "packed")
    )
    assert same(packing.unpack(packed), packing.unpack(plain))
    weights = 96 * 48 + 96 * 96
    saved = packing.sizes_bytes(plain)["body"] - packing.sizes_bytes(packed)["body"]
    assert saved == pytest.approx(weights * (1 - 0.2 - 1 / 8), rel=0.02)
    assert len(packed) < len(plain)


@pytest.mark.parametrize("by", ["effect", "count"])
def test_vocabulary_selection_keeps_rows_and_reads_the_rest_as_unknown(by: str) -> None:
    program, kept = model("student").program(), climbed(f"vocabulary[share=0.3,by={by}]").program
    assert len(kept.vocabulary) == 1 + np.ceil(0.3 * (len(program.vocabulary) - 1)) and kept.vocabulary[0] == ""
    index = {word: row for row, word in enumerate(program.vocabulary)}
    assert np.array_equal(kept.words.table, program.words.table[[index[word] for word in kept.vocabulary]])
    asked = [" ".join(word if word in kept.vocabulary else "qqqq" for word in text.split()) for text in TEXTS]
    assert np.allclose(logits(kept, asked), logits(program, asked), atol=1e-6)


def test_words_are_kept_by_how_often_and_how_loud_they_are() -> None:
    program = model("student").program()
    counts = _draft.counts(program, DATA)
    read = [tokens for e in DATA.train for tokens in model("student").tokenize(e.text)]
    assert counts.sum() == len(read) and counts[5] == read.count(program.vocabulary[5])
    mute = program.words.table.copy()
    often = 1 + int(np.argmax(counts[1:]))
    mute[often] = mute[0]  # says what any unknown word says
    quiet = Draft(_draft.with_table(program, mute))
    by_effect = compress.parse("vocabulary[share=0.5]").climbed(quiet, course()).program.vocabulary
    by_count = compress.parse("vocabulary[share=0.5,by=count]").climbed(quiet, course()).program.vocabulary
    assert program.vocabulary[often] not in by_effect and program.vocabulary[often] in by_count


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 3))
def test_clustered_rows_are_their_centroids(codes: int, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(-3, 4, (rows, 3)).astype(np.float32)
    near = products.clustered(points, np.ones(rows), codes, 10, np.random.default_rng(seed))
    assert near.shape == points.shape and len(np.unique(near, axis=0)) <= max(codes, 1)
    if len(np.unique(points, axis=0)) <= codes:
        assert np.array_equal(near, points)
    if codes == 1 and len(np.unique(points, axis=0)) > 1:
        assert np.allclose(near, points.mean(0), atol=1e-5)


def test_more_codes_lose_less_and_cost_more() -> None:
    lost, size = [], []
    for codes in (2, 8, 32):
        draft = climbed(f"products[codes={codes}]", "fastgrnn")
        lost.append(draft.facts["products"]["lost_variance"])
        size.append(packing.sizes_bytes(draft.deployed(TEXTS))["embedding"])
    assert lost == sorted(lost, reverse=True) and lost[-1] < 0.5
    assert size == sorted(size)


def test_parts_divide_the_row() -> None:
    assert climbed("products[codes=8]", "student").facts["products"]["width"] == 5  # no 4 divides 5
    assert climbed("products[codes=8,width=3]", "fastgrnn").facts["products"]["width"] == 4  # of 8


@pytest.mark.parametrize("name", ["student", "fastgrnn", "tfidf", "hashed"])
def test_full_rank_loses_nothing_and_half_is_half_the_table(name: str) -> None:
    program = model(name).program()
    features = program.words.table.shape[1]
    whole = climbed("low_rank[share=1.0]", name).program
    assert np.allclose(logits(whole), logits(program), atol=1e-4)
    half = climbed("low_rank", name)
    assert half.program.words.table.shape[1] == max(1, round(features / 2))
    assert 0 < half.facts["low_rank"]["kept_variance"] <= 1
    packing.unpack(half.deployed(TEXTS))


def test_low_rank_keeps_what_the_body_reads_of_a_pooling() -> None:
    built = registry.load("models", "student")
    program = built.build(built.Config(vocabulary_size=60, embedding=6), sentences(1, 200), 4, 0).program()
    pool = dataclasses.replace(model("prado").program().body)
    weight = np.random.default_rng(0).normal(size=(2 * len(pool.value.bias), 6)).astype(np.float32)
    over = dataclasses.replace(program, body=pool, head=model("prado").program().head)
    over = _draft.with_input_weight(over, weight)
    assert np.array_equal(_draft.input_weight(over), weight)
    draft = compress.parse("low_rank[share=1.0]").climbed(Draft(over), course())
    assert np.allclose(logits(draft.program), logits(over), atol=1e-3)


def test_half_precision_rounds_once_and_halves_the_weights() -> None:
    draft = climbed("fp16", "fastgrnn")
    assert draft.precision == "fp16"
    again = compress.parse("fp16").climbed(draft, course("fastgrnn"))
    assert same(again.program, draft.program)
    found, plain = (packing.sizes_bytes(data) for data in (draft.deployed([]), packing.pack(draft.program)))
    assert 2 * found["embedding"] == plain["embedding"] and found["vocabulary"] == plain["vocabulary"]
    assert np.abs(logits(draft.program) - logits(model("fastgrnn").program())).max() < 0.05


def test_half_precision_refuses_what_it_cannot_hold() -> None:
    huge = _draft.mapped(model("student").program(), lambda path, array: array * np.float32(1e8))
    with pytest.raises(UsageError, match=r"fp16: words\.table has weights beyond 65504"):
        compress.parse("fp16").climbed(Draft(huge), course())


@pytest.mark.parametrize(
    ("rung", "name", "reason"),
    [
        ("vocabulary", "prado", "vocabulary needs a word table"),
        ("vocabulary", "hashed", "vocabulary needs a vocabulary"),
        ("products", "prado", "products needs a word table"),
        ("low_rank", "prado", "low_rank needs a word table"),
    ],
)
def test_a_step_says_where_it_cannot_apply(rung: str, name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        climbed(rung, name)


# --- steps that train -------------------------------------------------------------------------------------

ARMS = ("pruned", "lottery", "rewind[back=1]", "reinitialised")


@given(st.floats(0.01, 1.0))
def test_masks_keep_the_largest(density: float) -> None:
    program = model("student").program()
    kept = _tuning.masks(program, density)
    assert not any(path.startswith("head") or path.endswith("bias") for path in kept)
    every = sum(mask.size for mask in kept.values())
    assert sum(int(mask.sum()) for mask in kept.values()) == max(1, round(density * every))
    magnitudes = {path: np.abs(_draft.arrays(program)[path]) for path in kept}
    least = min(magnitudes[path][mask].min() for path, mask in kept.items() if mask.any())
    assert all((magnitudes[path][~mask] <= least).all() for path, mask in kept.items())
    if density == 1:
        assert same(_tuning.masked(program, kept), program)


@pytest.fixture(scope="module")
def arms() -> dict[str, Draft]:
    return {arm: climbed(f"{arm.removesuffix(']')},epochs=2]" if "[" in arm else f"{arm}[epochs=2]") for arm in ARMS}


def test_arms_of_pruning_have_one_mask_one_budget_and_other_weights(arms: dict[str, Draft]) -> None:
    kept = _tuning.masks(model("student").program(), 0.5)
    budgets = set()
    for arm, draft in arms.items():
        (facts,) = draft.facts.values()
        budgets.add((facts["epochs"], facts["optimiser_steps"], facts["learning_rate"], facts["density"]))
        assert 1 <= facts["best_epoch"] <= 2 and "dev" in facts["selection"], arm
        for path, mask in kept.items():
            assert not _draft.arrays(draft.program)[path][~mask].any(), arm
    assert budgets == {(2, 6, 1e-2, 0.5)}  # 96 texts in batches of 32
    assert len({packing.pack(draft.program) for draft in arms.values()}) == len(arms)


def test_zeros_ship_as_bits(arms: dict[str, Draft]) -> None:
    wide = dataclasses.replace(arms["pruned"], program=climbed("fp32", "teacher").program)
    kept = _tuning.masks(wide.program, 0.3)
    sparse = dataclasses.replace(wide, program=_tuning.masked(wide.program, kept))
    data, dense = sparse.deployed(TEXTS), packing.pack(quantise.quantise(sparse.program, TEXTS))
    assert same(packing.unpack(data), packing.unpack(dense))
    assert len(data) < 0.75 * len(dense)


def test_arms_that_go_back_start_from_the_weights_that_were_there() -> None:
    here = course()
    drawn = type(model("student")).build(here.config, [e.text for e in DATA.train], 4, 0).program()
    assert same(_tuning.earlier(here, 0), drawn)
    dense = train.train(here.model, here.config, dataclasses.replace(here.recipe, epochs=1), DATA, here.scheme, seed=0)
    once = dataclasses.replace(here, recipe=dataclasses.replace(here.recipe, epochs=1))
    assert same(_tuning.earlier(once, 1), dense.model.program())  # type: ignore[arg-type]  # it has one


def test_an_arm_that_goes_back_comes_before_what_changes_shapes() -> None:
    with pytest.raises(UsageError, match=r"another shape of words\.table"):
        climbed("vocabulary+lottery[epochs=1]")


def test_thresholding_ends_sparse_and_counts_no_epoch_before() -> None:
    draft = climbed("iht[epochs=3,density=0.25]")
    facts = draft.facts["iht"]
    assert facts["best_epoch"] > 1 and facts["optimiser_steps"] == 9
    weights = [a for path, a in _draft.arrays(draft.program).items() if path in _tuning.masks(draft.program, 1)]
    assert sum(np.count_nonzero(a) for a in weights) <= round(0.25 * sum(a.size for a in weights))


def test_quantisation_aware_training_ends_in_int8_and_moves_the_weights() -> None:
    draft = climbed("fp32+qat[epochs=1]", "prado")
    assert draft.precision == "int8" and not same(draft.program, model("prado").program())
    assert draft.facts["qat"]["learning_rate"] == pytest.approx(0.1 * type(model("prado")).recipe.learning_rate)
    assert isinstance(packing.unpack(draft.deployed(TEXTS)), FixedProgram)


def test_training_on_is_repeatable_and_tells_its_epochs() -> None:
    seen: list[int] = []
    here = course(progress=lambda epoch: seen.append(epoch.number))
    told = compress.parse("qat[epochs=1]").climbed(Draft(model("student").program()), here)
    assert same(told.program, climbed("qat[epochs=1]").program) and seen == [1]


@pytest.mark.parametrize(
    ("rung", "killed"),  # after so many epochs of all that it trains
    [
        ("qat[epochs=2]", 1),
        ("iht[epochs=6,density=0.8]", 3),  # in the third that chooses what stays
        ("pruned[epochs=2]+qat[epochs=2]", 3),
        ("lottery[epochs=2]", 1),
        ("rewind[epochs=2,back=2]", 1),  # on the way to the weights it starts from
        ("rewind[epochs=2,back=2]", 3),
        ("reinitialised[epochs=2]", 1),
    ],
)
def test_a_killed_rung_goes_on_to_the_same_bits(
    rung: str, killed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iht, "EVERY", 2)
    save, saved = train._Run.save, 0

    def killing(run: train._Run, *where: Any) -> None:
        nonlocal saved
        save(run, *where)
        saved += 1
        if saved == killed:
            raise KeyboardInterrupt

    def made(name: str) -> Draft:
        here = course(folder=tmp_path / name)
        steep = dataclasses.replace(here.recipe, learning_rate=0.3)  # so that another choice of what stays is another
        return compress.parse(rung).climbed(Draft(model("student").program()), dataclasses.replace(here, recipe=steep))

    def last(name: str) -> dict[str, bytes]:
        """Of every training, the weights after its last epoch, and what its rule remembers."""
        files = [file.relative_to(tmp_path / name) for file in (tmp_path / name).rglob(train.CHECKPOINT)]
        states = {file: torch.load(tmp_path / name / file, weights_only=True)["model"] for file in files}
        return {f"{file} {part}": t.numpy().tobytes() for file, state in states.items() for part, t in state.items()}

    whole = made("whole")
    monkeypatch.setattr(train._Run, "save", killing)
    with pytest.raises(KeyboardInterrupt):
        made("killed")
    resumed = made("killed")
    assert last("killed") == last("whole")
    assert same(resumed.program, whole.program) and resumed.facts == whole.facts
    assert saved == sum(facts["epochs"] + facts.get("back", 0) for facts in whole.facts.values())  # none twice


@pytest.mark.parametrize("rung", ["qat[epochs=1]", "pruned[epochs=1]"])
def test_a_word_layer_that_was_settled_stays_while_a_rung_trains(rung: str) -> None:
    layered = Scheme("layered", (Term("task"), Term("word_layer", 1.0, {"lexicon": ""})))
    settled = model("student").program()
    found = compress.parse(rung).climbed(Draft(settled), dataclasses.replace(course(), scheme=layered)).program
    before, after = (_draft.table_of(program, "the test") for program in (settled, found))
    gone = (after == 0) & rung.startswith("pruned")  # what pruning takes away is zero, and the rest as it was
    assert np.array_equal(after, np.where(gone, 0, before))
    assert gone.any() == rung.startswith("pruned")
    assert not np.array_equal(found.head.weight, settled.head.weight)


def test_a_step_that_trains_asks_for_the_teacher_of_its_scheme() -> None:
    with pytest.raises(UsageError, match="needs a teacher"):
        compress.parse("qat").climbed(Draft(model("student").program()), course(scheme="distil"))


# --- rungs ------------------------------------------------------------------------------------------------


def test_a_rung_is_called_by_what_differs_and_can_be_typed_again() -> None:
    for words_, name in (
        ("vocabulary", "vocabulary"),
        ("vocabulary[share=0.5]", "vocabulary"),
        ("vocabulary[share=0.25,by=count]+products", "vocabulary[share=0.25,by=count]+products"),
        ("pruned[epochs=3]+int8", "pruned[epochs=3]+int8"),
    ):
        rung = compress.parse(words_)
        assert rung.name == name and compress.parse(rung.name) == rung


@pytest.mark.parametrize(
    ("words_", "reason"),
    [
        ("vocabularry", "did you mean 'vocabulary'"),
        ("vocabulary[shar=0.2]", "did you mean 'share'"),
        ("vocabulary[share]", "expected field=value"),
        ("vocabulary[share=2]", r"share in|share=2\.0"),
        ("products[codes=0]", "codes=0"),
        ("low_rank[share=0]", r"share=0\.0"),
        ("pruned[density=0]", r"density=0\.0"),
        ("rewind[back=0]", "back=0"),
        ("int8+int8", "takes a step twice"),
        ("int8]", "expected a name"),
        ("", "expected a name"),
    ],
)
def test_a_rung_that_cannot_be_is_refused_in_words(words_: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        compress.parse(words_)


def test_every_step_is_a_value_with_a_place_in_the_list() -> None:
    steps = registry.names("steps")
    assert set(compressing.STEPS) <= set(steps) and {"qat", "iht", *(arm.partition("[")[0] for arm in ARMS)} <= set(
        steps
    )
    for name in steps:
        step = registry.load("steps", name)()
        assert dataclasses.is_dataclass(step) and step == type(step)()
        assert len(compress.parse(name).code) == 64
    assert set(get_args(Precision)) == {"fp32", "fp16", "int8"}


# --- the ladder -------------------------------------------------------------------------------------------

RUNGS = ("fp32", "int8", "vocabulary[share=0.2]+products")


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, compressing.Ladder]:
    """A row of four epochs on the embedded corpus, and its ladder; the checks of attacks are looked at elsewhere."""
    here = tmp_path_factory.mktemp("ladder")
    wanted = run.Experiment(
        models=("tfidf",),
        schemes=("natural",),
        attacks=("deepwordbug",),
        targets=(),
        n=8,
        n_train=240,
        settings=(("epochs", "4"),),
    )
    run.train(wanted, here / "dense", jobs=1, quiet=True)
    return here, climb(here)


def climb(here: Path, rungs: tuple[str, ...] = RUNGS, **changes: Any) -> compressing.Ladder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adequacy, "checks", lambda trial, report: ())
        return compressing.climb(f"{here}/dense/tfidf", rungs, changes, here / "out", jobs=1, quiet=True)


def test_every_rung_is_a_row_of_its_own_bytes(ladder: tuple[Path, compressing.Ladder]) -> None:
    _, found = ladder
    assert [row.record.steps for row in found.rows] == list(RUNGS)
    for row in found.rows:
        home = found.folder / "model" / f"tfidf[epochs=4].natural.s0.{row.record.steps}"
        data = (home / run.ARTEFACT).read_bytes()
        assert row.record.artefact.digest == records.digest(data)
        assert row.record.artefact.total_bytes == len(data)
        assert row.evidence is not None and len(row.evidence.clean) == 8
    assert [row.record.artefact.precision for row in found.rows] == ["fp32", "int8", "int8"]
    assert {row.record.artefact.format for row in found.rows} == {"gritbench.program"}
    sizes = [row.record.artefact.total_bytes or 0 for row in found.rows]
    assert sizes == sorted(sizes, reverse=True)


def test_int8_is_the_dense_row_byte_for_byte(ladder: tuple[Path, compressing.Ladder]) -> None:
    here, found = ladder
    (dense,) = (here / "dense" / "model").glob(f"tfidf*/{run.ARTEFACT}")
    made = found.rows[1].record.compression
    assert isinstance(made, records.CompressionPart)
    assert found.rows[1].record.artefact.digest == made.source == records.digest(dense.read_bytes())


def test_a_record_says_every_field_of_every_step(ladder: tuple[Path, compressing.Ladder]) -> None:
    record = ladder[1].rows[2].record
    made = record.compression
    assert isinstance(made, records.CompressionPart)
    assert [(part.step, part.options) for part in made.steps] == [
        ("vocabulary", {"share": 0.2, "by": "effect"}),
        ("products", {"width": 4, "codes": 256, "rounds": 25}),
    ]
    assert made.facts["vocabulary"]["kept"] < made.facts["vocabulary"]["words"]
    assert records.decode_record(records.encode_record(record), "here") == record


def test_the_board_calls_rungs_by_their_steps(ladder: tuple[Path, compressing.Ladder]) -> None:
    (section,) = leaderboard.board(ladder[1].rows)
    assert {line.model for line in section.lines} == {f"tfidf {rung}" for rung in RUNGS}
    assert {leaderboard.cells(line)["steps"] for line in section.lines} == set(RUNGS)
    labels = [each.label for each in operands.rows(str(ladder[1].folder))]
    assert labels == [f"tfidf natural seed 0 {rung}" for rung in RUNGS]


def test_what_breaks_a_rung_breaks_it_again_and_half_the_others_know(ladder: tuple[Path, compressing.Ladder]) -> None:
    found = ladder[1]
    assert list(found.transfer) == list(RUNGS)
    for row in found.rows:
        line = found.transfer[row.record.steps]
        broken = sum(attack.success.k for attack in row.record.attacks)
        assert line[row.record.steps].k == line[row.record.steps].n == broken > 0
        for count in line.values():
            assert count.n <= broken
    kept = json.loads((found.folder / compressing.TRANSFER).read_text())
    assert kept == records.plain(found.transfer)


def test_the_ladder_in_words(ladder: tuple[Path, compressing.Ladder]) -> None:
    text = (ladder[1].folder / compressing.LADDER).read_text()
    assert text == compressing.markdown(ladder[1])
    assert text.count("| fp32 |") == 3 and "Trained on" not in text  # in the ladder, and both ways in the matrix


def test_the_same_command_makes_nothing_twice_and_another_rung_joins(
    ladder: tuple[Path, compressing.Ladder], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, found = ladder
    before = (found.folder / records.RECORDS).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(compress, "make", None)
        again = climb(here)
    assert (found.folder / records.RECORDS).read_bytes() == before
    assert again.transfer == found.transfer
    joined = climb(here, ("int8", "vocabulary"))
    assert list(joined.transfer) == ["int8", "vocabulary"]
    assert len(records.read_rows(found.folder)) == len(RUNGS) + 1


def test_a_killed_ladder_goes_on_where_it_was_and_leaves_no_checkpoint(
    ladder: tuple[Path, compressing.Ladder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adequacy, "checks", lambda trial, report: ())
    rung, epoch = "pruned[epochs=2]", train._Run.epoch
    begun: list[int] = []

    def killing(run: train._Run) -> train.Epoch:
        begun.append(len(run.history))
        if len(begun) == 2:
            raise KeyboardInterrupt
        return epoch(run)

    home = tmp_path / "model" / f"tfidf[epochs=4].natural.s0.{rung}"
    monkeypatch.setattr(train._Run, "epoch", killing)
    climbing = functools.partial(
        compressing.climb, f"{ladder[0]}/dense/tfidf", (rung,), {"n": 2}, tmp_path, jobs=1, quiet=True
    )
    with pytest.raises(KeyboardInterrupt):
        climbing()
    assert (home / "training" / "pruned" / train.CHECKPOINT).is_file()
    (row,) = climbing().rows
    assert begun == [0, 1, 1] and row.record.steps == rung
    assert not (home / "training").exists()


def test_the_command_prints_the_ladder_or_its_numbers(
    ladder: tuple[Path, compressing.Ladder], capsys: pytest.CaptureFixture[str]
) -> None:
    here, found = ladder
    command = ["compress", f"{here}/dense/tfidf", "--step", ",".join(RUNGS), "--jobs", "1", "-q", "-o", f"{here}/out"]
    for words_ in (command, [*command, "--json"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(words_)
        assert not ended.value.code
        printed = capsys.readouterr().out
        if words_ is command:
            assert printed.startswith(compressing.markdown(found))
        else:
            assert json.loads(printed)["transfer"] == records.plain(found.transfer)
            assert [record["compression"]["name"] for record in json.loads(printed)["records"]] == list(RUNGS)


def test_a_rung_can_be_attacked_again_like_any_row(
    ladder: tuple[Path, compressing.Ladder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adequacy, "checks", lambda trial, report: ())
    home = ladder[1].folder / "model" / "tfidf[epochs=4].natural.s0.int8"
    (row,) = run.attack(str(home), {"n": 4, "attacks": ("pwws+thesaurus",)}, tmp_path, jobs=1, quiet=True).rows
    assert row.record.compression == ladder[1].rows[1].record.compression and row.record.data.n == 4


SPOT = verify.Setting(level="spot", respond=verify.unguarded, spot=2, nonce="x")


def packed(ladder: tuple[Path, compressing.Ladder], rung: str) -> dict[str, bytes]:
    return submission.pack(Folder(ladder[1].folder), f"tfidf[epochs=4].natural.s0.{rung}")


def verified(files: dict[str, bytes]) -> verify.Report:
    return verify.verify(of({**files, submission.SUMS: submission.sums(files)}), SPOT)


@pytest.mark.parametrize("rung", RUNGS)
def test_a_rung_is_a_bundle_like_any_row(ladder: tuple[Path, compressing.Ladder], rung: str) -> None:
    files = packed(ladder, rung)
    assert {name for name in files if name.startswith("model/")} == {submission.ARTEFACT, *submission.RUNG}
    report = verified(files)
    assert (report.code, report.findings) == (0, ())
    assert any("bit for bit" in note for note in report.notes)
    assert any(f"compressed by '{rung}' from bytes" in note for note in report.notes)


def test_the_board_and_the_card_tell_a_rung_from_its_row(
    ladder: tuple[Path, compressing.Ladder], tmp_path: Path
) -> None:
    for rung in RUNGS[:2]:
        submission.write(tmp_path / submission.folder_name(rung), packed(ladder, rung))
    (section,) = leaderboard.board(submission.rows(tmp_path))
    assert {line.model for line in section.lines} == {"tfidf fp32", "tfidf int8"}
    card = packed(ladder, "fp32")[submission.CARD].decode()
    dense = ladder[1].rows[1].record.artefact  # int8: as it was trained
    assert "# tfidf fp32 (natural) on pings\n" in card
    assert f"compressed by fp32 from the bytes `{dense.digest[:16]}`" in card


def test_a_bundle_of_a_rung_is_attacked_again_as_that_rung(
    ladder: tuple[Path, compressing.Ladder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adequacy, "checks", lambda trial, report: ())
    files = packed(ladder, "int8")
    submission.write(tmp_path / "rung", files)
    changes = {"n": 4, "attacks": ("hotflip+thesaurus",), "targets": ()}
    (row,) = run.attack(str(tmp_path / "rung"), changes, tmp_path / "again", jobs=1, quiet=True).rows
    assert row.record.steps == "int8" and row.record.attacks[0].gradients > 0
    again = submission.pack(Folder(tmp_path / "again"), "rung")
    assert all(again[name] == files[name] for name in (submission.ARTEFACT, *submission.RUNG))


def test_lies_about_a_rung_are_found(ladder: tuple[Path, compressing.Ladder]) -> None:
    files, other = packed(ladder, "int8"), packed(ladder, "fp32")
    program = compress.twin_program(files[submission.TWIN])
    head = dataclasses.replace(program.head, weight=-program.head.weight)
    lies: list[tuple[str, bytes | None, int, str]] = [
        (submission.TWIN, packing.pack(dataclasses.replace(program, head=head)), 1, "twin"),
        (submission.TWIN, files[submission.ARTEFACT], 6, "weights"),  # integers
        (submission.TWIN, None, 6, "weights"),
        (submission.MADE, other[submission.MADE], 6, "weights"),
        (submission.MADE, files[submission.MADE] + b" ", 6, "weights"),
        ("model/config.json", b"{}", 6, "weights"),  # of a row that was not compressed
    ]
    for name, data, code, check in lies:
        told = {key: value for key, value in {**files, name: data}.items() if value is not None}
        report = verified(told)
        assert (report.code, report.findings[0].check) == (code, check), (name, report.findings)


def test_a_rung_of_other_code_is_not_taken_for_this_one(
    ladder: tuple[Path, compressing.Ladder], tmp_path: Path
) -> None:
    home = ladder[1].folder / "model" / "tfidf[epochs=4].natural.s0.fp32"
    made = compress.made(home)
    assert made is not None
    rung = compress.parse("fp32")
    assert compress.is_made(home, rung, made.part.source)
    assert not compress.is_made(tmp_path, rung, made.part.source)
    with pytest.raises(UsageError, match="other code"):
        compress.is_made(home, rung, "1" * 64)
    (tmp_path / compress.MADE).write_bytes(records.encode(msgspec.structs.replace(made, code="2" * 64)))
    with pytest.raises(UsageError, match="other code"):
        compress.is_made(tmp_path, rung, made.part.source)


@pytest.mark.parametrize(
    ("operand", "rungs", "changes", "reason"),
    [
        ("dense/tfidf", ("int8", "int8"), {}, "asked for twice"),
        ("dense/tfidf", ("int8",), {"seed": 1}, "trained already: --seed"),
        ("dense/nobody", ("int8",), {}, "unknown row"),
        ("nowhere", ("int8",), {}, "no run folder"),
        ("out/tfidf.natural.s0.fp32", ("int8",), {}, "as it was trained"),
    ],
)
def test_what_cannot_be_compressed_is_said(
    ladder: tuple[Path, compressing.Ladder], operand: str, rungs: tuple[str, ...], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        compressing.climb(str(ladder[0] / operand), rungs, changes, ladder[0] / "other", jobs=1, quiet=True)


def test_a_twin_is_a_program_of_floats() -> None:
    fixed = packing.pack(quantise.quantise(model("student").program(), TEXTS))
    with pytest.raises(MalformedInput, match="program of floats"):
        compress.twin(fixed)
