"""Data: ids and splits that are the same everywhere, files broken in every way, and the real sets where they are."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import datasets
from grit.bench.text import normalise
from grit.bench.types import CouldNotMeasure, Dataset, Example, GritError, MalformedInput, StorageError, UsageError

WORDS = "amber basil cedar dune ember fjord grove heath inlet jetty knoll lagoon marsh north oasis pond".split()


def texts(count: int, seed: int = 0) -> list[str]:
    """Distinct made-up texts."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=6)) + f" {i}" for i in range(count)]


def write_jsonl(path: Path, rows: list[tuple[str, object]]) -> Path:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:  # type: ignore[operator]  # both open text alike
        for text, label in rows:
            file.write(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n")
    return path


def whole(dataset: Dataset) -> tuple[Example, ...]:
    return dataset.train + dataset.dev + dataset.test


def by_text(examples: tuple[Example, ...]) -> dict[str, tuple[str, int]]:
    return {example.text: (example.id, example.label) for example in examples}


# A text and its label, which depends on the text alone: contradictory copies have their own test.
ROWS = st.lists(
    st.text(st.sampled_from("abcé \n!\U0001f642"), min_size=1, max_size=6).map(lambda t: (f"{t} w", len(t) % 3)),
    min_size=1,
    max_size=60,
)


def assembled(rows: list[tuple[str, int]]) -> Dataset | None:
    """One file of these rows; None where they are too few to be split."""
    try:
        return datasets._assemble("made", {"all": [(text, label, None) for text, label in rows]}, ("x", "y", "z"), "")
    except MalformedInput as error:
        assert "needs more distinct texts" in str(error) or "nothing to" in str(error)
        return None


# --- ids -------------------------------------------------------------------------------------------------


def test_an_id_is_the_digest_of_split_text_and_occurrence(tmp_path: Path) -> None:
    rows = [("Good  morning\u00a0all", 1), ("good morning all", 0), ("Good morning all", 1)]
    for split in ("train", "dev", "test"):
        write_jsonl(
            tmp_path / f"{split}.jsonl",
            [(f"{text} {split}", label) for text, label in rows],
        )
    found = datasets._read_folder(tmp_path)
    examples = datasets._assemble("x", *found).train
    expected = [
        hashlib.sha256(json.dumps(["train", text, occurrence]).encode()).hexdigest()[:16]
        for text, occurrence in [
            ("Good morning all train", 0),
            ("good morning all train", 0),
            ("Good morning all train", 1),
        ]
    ]
    assert [example.id for example in examples] == expected


@given(ROWS, st.randoms(use_true_random=False))
def test_ids_splits_and_labels_do_not_depend_on_the_order_of_rows(
    rows: list[tuple[str, int]], rng: random.Random
) -> None:
    shuffled = rows[:]
    rng.shuffle(shuffled)
    one, other = assembled(rows), assembled(shuffled)
    assert (one is None) == (other is None)
    if one and other:
        for split in ("train", "dev", "test"):
            ours, theirs = getattr(one, split), getattr(other, split)
            assert {(e.id, e.text, e.label) for e in ours} == {(e.id, e.text, e.label) for e in theirs}


@given(ROWS)
def test_ids_are_unique_and_texts_normal(rows: list[tuple[str, int]]) -> None:
    dataset = assembled(rows)
    if dataset:
        ids = [example.id for example in whole(dataset)]
        assert len(set(ids)) == len(ids)
        assert all(example.text == normalise(example.text) for example in whole(dataset))


def test_one_row_changes_the_revision_and_nothing_else_does(tmp_path: Path) -> None:
    rows: list[tuple[str, object]] = [(text, i % 2) for i, text in enumerate(texts(100))]
    first = datasets.load(str(write_jsonl(tmp_path / "a.jsonl", rows)))
    assert datasets.load(str(write_jsonl(tmp_path / "a.jsonl.gz", rows))).revision == first.revision
    spaced = [(f"  {text}\t", label) for text, label in rows]
    assert datasets.load(str(write_jsonl(tmp_path / "a.jsonl", spaced))).revision == first.revision
    relabelled = [*rows[:-1], (rows[-1][0], 0)]
    assert datasets.load(str(write_jsonl(tmp_path / "a.jsonl", relabelled))).revision != first.revision
    reworded = [*rows[:-1], (f"{rows[-1][0]}!", rows[-1][1])]
    assert datasets.load(str(write_jsonl(tmp_path / "a.jsonl", reworded))).revision != first.revision


# --- splits --------------------------------------------------------------------------------------------


@given(ROWS)
def test_copies_of_a_text_stay_in_one_split(rows: list[tuple[str, int]]) -> None:
    dataset = assembled(rows)
    if dataset:
        homes: dict[str, set[str]] = {}
        for split in ("train", "dev", "test"):
            for example in getattr(dataset, split):
                homes.setdefault(datasets.canonical(example.text), set()).add(split)
        assert all(len(found) == 1 for found in homes.values())


@given(ROWS, ROWS, ROWS)
def test_no_text_of_test_is_ever_trained_on(
    a: list[tuple[str, int]], b: list[tuple[str, int]], c: list[tuple[str, int]]
) -> None:
    splits = {
        split: [(text, label, None) for text, label in rows] for split, rows in (("train", a), ("dev", b), ("test", c))
    }
    try:
        dataset = datasets._assemble("made", splits, ("x", "y", "z"), "")
    except MalformedInput as error:
        assert "no text is left" in str(error)
        return
    held_out = {datasets.canonical(example.text) for example in dataset.test}
    assert not [e for e in dataset.train + dataset.dev if datasets.canonical(e.text) in held_out]
    assert not datasets.overlap(dataset.train, dataset.test)
    assert len(dataset.test) == len(c)
    dropped = len(a) + len(b) - len(dataset.train) - len(dataset.dev)
    assert bool(dropped) == any("dropped" in note for note in dataset.notes)


def test_one_file_is_split_80_10_10_by_label(tmp_path: Path) -> None:
    rows: list[tuple[str, object]] = [(text, "abc"[min(i % 10, 2)]) for i, text in enumerate(texts(1000))]
    dataset = datasets.load(str(write_jsonl(tmp_path / "mine.jsonl", rows)))
    assert (dataset.name, dataset.labels) == ("mine", ("a", "b", "c"))
    assert Counter(e.label for e in dataset.train) == {0: 80, 1: 80, 2: 640}
    assert Counter(e.label for e in dataset.dev) == {0: 10, 1: 10, 2: 80}
    assert Counter(e.label for e in dataset.test) == {0: 10, 1: 10, 2: 80}
    assert dataset.notes == ("one file: split 80/10/10 by hash rank, copies of a text kept together",)


def test_no_dev_split_takes_a_tenth_of_train(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [(text, i % 2) for i, text in enumerate(texts(200, 1))])
    write_jsonl(tmp_path / "test.jsonl", [(f"{text} t", i % 2) for i, text in enumerate(texts(50, 2))])
    dataset = datasets._assemble("x", *datasets._read_folder(tmp_path))
    assert (len(dataset.train), len(dataset.dev), len(dataset.test)) == (180, 20, 50)
    assert dataset.notes == ("no dev split: 10 % of train by hash rank",)


def test_a_train_file_alone_is_split_like_one_file(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [(text, i % 2) for i, text in enumerate(texts(100))])
    dataset = datasets._assemble("x", *datasets._read_folder(tmp_path))
    assert (len(dataset.train), len(dataset.dev), len(dataset.test)) == (80, 10, 10)


def test_a_dev_split_stands_in_for_a_test_split_without_labels(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [(text, i % 2) for i, text in enumerate(texts(100))])
    write_jsonl(tmp_path / "validation.jsonl", [(f"{text} v", i % 2) for i, text in enumerate(texts(30, 3))])
    dataset = datasets._assemble("x", *datasets._read_folder(tmp_path))
    assert (len(dataset.train), len(dataset.dev), len(dataset.test)) == (90, 10, 30)
    assert "no labelled test split: the dev split is the test split" in dataset.notes


def test_groups_of_copies_are_not_drawn_to_one_split(tmp_path: Path) -> None:
    rows: list[tuple[str, object]] = [
        (text, i % 2) for i, text in enumerate(texts(1000)) for _ in range(1 + 9 * (i < 200))
    ]
    dataset = datasets.load(str(write_jsonl(tmp_path / "mine.jsonl", rows)))
    shares = [len(split) / len(rows) for split in (dataset.train, dataset.dev, dataset.test)]
    assert 0.74 < shares[0] < 0.86 and 0.06 < shares[1] < 0.14 and 0.06 < shares[2] < 0.14


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_too_few_texts_to_split_say_so(tmp_path: Path, rows: int) -> None:
    file = write_jsonl(tmp_path / "few.jsonl", [(text, i % 2) for i, text in enumerate(texts(rows))])
    with pytest.raises(MalformedInput, match=r"'few'.*(only the label|needs more distinct texts|nothing to)"):
        datasets.load(str(file))


def test_texts_without_letters_are_no_copies_of_each_other() -> None:
    assert datasets.canonical("\U0001f642") != datasets.canonical("\U0001f622")
    assert datasets.canonical("?!") != datasets.canonical("...")
    assert datasets.canonical("It's  FINE.") == datasets.canonical("its fine")


def test_contradictory_copies_are_kept_apart_by_id() -> None:
    rows = [(text, i % 2, None) for i, text in enumerate(texts(40)) for _ in (0, 1)]
    rows.append(("amber basil", 0, None))
    rows.append(("amber basil", 1, None))
    dataset = datasets._assemble("made", {"all": rows}, ("x", "y"), "")
    found = [example for example in whole(dataset) if example.text == "amber basil"]
    assert len({example.id for example in found}) == 2 and {example.label for example in found} == {0, 1}


# --- subsets -----------------------------------------------------------------------------------------------

EXAMPLES = st.lists(st.integers(0, 3), min_size=1, max_size=80).map(
    lambda labels: [Example(f"{i:016x}", f"text {i}", label) for i, label in enumerate(labels)]
)


@given(EXAMPLES, st.integers(1, 90), st.integers(1, 90), st.randoms(use_true_random=False))
def test_subsets_are_the_same_everywhere_and_begin_each_other(
    examples: list[Example], n: int, m: int, rng: random.Random
) -> None:
    shuffled = examples[:]
    rng.shuffle(shuffled)
    small, large = sorted((n, m))
    chosen = datasets.subset(examples, large, "d")
    assert datasets.subset(shuffled, large, "d") == chosen
    assert datasets.subset(examples, small, "d") == chosen[:small]
    assert len(chosen) == min(large, len(examples)) == len({example.id for example in chosen})
    assert datasets.subset(examples, None, "d")[:large] == chosen


@given(EXAMPLES, st.integers(1, 80))
def test_subsets_keep_the_shares_of_labels(examples: list[Example], n: int) -> None:
    labels = Counter(example.label for example in examples)
    found = Counter(example.label for example in datasets.subset(examples, n, "d"))
    for label, count in labels.items():
        share = min(n, len(examples)) * count / len(examples)
        assert abs(found[label] - share) <= len(labels) / 2 + 1


def test_subsets_differ_between_datasets() -> None:
    examples = [Example(f"{i:016x}", f"text {i}", 0) for i in range(100)]
    assert datasets.subset(examples, 10, "one") != datasets.subset(examples, 10, "other")


@pytest.mark.parametrize("n", [0, -3])
def test_an_empty_subset_is_refused(n: int) -> None:
    with pytest.raises(UsageError, match=f"n={n}: a subset needs at least one example"):
        datasets.subset([Example("0", "a", 0)], n, "d")


# --- labels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "names"),
    [
        ([0, 1, 1], ("0", "1")),
        ([1, 2, 3, 4, 5], ("1", "2", "3", "4", "5")),
        (["10", "9", "9"], ("9", "10")),
        ([-1, 0, 1], ("-1", "0", "1")),
        (["spam", "ham"], ("ham", "spam")),
        ([2, 10_000_000_000], ("2", "10000000000")),
        (["1", "x"], ("1", "x")),
    ],
)
def test_labels_without_names_are_numbered_without_gaps(found: list[str | int], names: tuple[str, ...]) -> None:
    labels, numbers = datasets._inferred(found)
    assert labels == names
    assert sorted(set(numbers.values())) == list(range(len(names)))
    assert all(labels[numbers[label]] == str(label) for label in found)


def test_named_labels_may_be_given_by_name_or_number(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('["neg", "pos"]')
    rows: list[tuple[str, object]] = [
        (text, ["neg", "pos", 0, 1, "0", "1"][i % 6]) for i, text in enumerate(texts(120))
    ]
    write_jsonl(tmp_path / "all.jsonl", rows)
    dataset = datasets._assemble("x", *datasets._read_folder(tmp_path))
    assert dataset.labels == ("neg", "pos")
    wanted = {text: 1 if label in ("pos", 1, "1") else 0 for text, label in rows}
    assert {example.text: example.label for example in whole(dataset)} == wanted


def test_labels_of_several_files_lie_in_one_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIT_DATA", str(tmp_path))
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair" / "labels.json").write_text('{"one": ["a", "b"], "two": ["c", "d"]}')
    write_jsonl(tmp_path / "pair" / "two.jsonl", [(text, i % 2) for i, text in enumerate(texts(50))])
    assert datasets.load("pair/two").labels == ("c", "d")


# --- files broken in every way ---------------------------------------------------------------------------

LINE = b'{"text": "amber basil cedar", "label": 0}\n'


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl.gz", gzipped(LINE * 500)[:-20], "truncated or not gzip"),
        ("a.jsonl.gz", gzipped(LINE)[:-9] + b"\0\0\0\0\0\0\0\0\0", "truncated or not gzip"),
        ("a.jsonl.gz", gzipped(LINE)[:10] + b"\xff" * 40, "truncated or not gzip"),
        ("a.jsonl.gz", LINE, "truncated or not gzip"),
        ("a.jsonl", LINE + b'{"text": "amber', "line 2: not JSON .*is the file truncated"),
        ("a.jsonl", LINE + b"[1, 2]\n", "line 2: expected an object with text and label, got '\\[1, 2\\]"),
        ("a.jsonl", b"[" * 100_000 + b"\n", "cannot be read"),
        ("a.jsonl", "{\"text\": \"caf\u00e9\", \"label\": 0}\n".encode("latin-1"), "not UTF-8 .*0xe9.* convert it"),
        ("a.csv", "text,label\ncaf\u00e9,0\n".encode("latin-1"), "not UTF-8 .*0xe9.* convert it"),
        ("a.csv", "text,label\nhi,0\n".encode("utf-16"), "not UTF-8"),
        ("a.jsonl", b"", "no rows"),
        ("a.csv", b"", "no rows"),
        ("a.csv", b"text,label\n", "no rows"),
        ("a.jsonl", b'{"body": "amber", "label": 0}\n', "no column 'text' or .*; it has 'body', 'label'"),
        ("a.csv", b"text,class\namber,0\n", "no column 'label' or .*; it has 'text', 'class'"),
        ("a.jsonl", LINE + b'{"text": null, "label": 0}\n', "row 2: column 'text' holds None, expected a text"),
        ("a.jsonl", LINE + b'{"text": 7, "label": 0}\n', "row 2: column 'text' holds 7, expected a text"),
        ("a.jsonl", LINE + b'{"text": "amber"}\n', "row 2: column 'label' holds None, expected a label"),
        ("a.jsonl", LINE + b'{"text": "amber", "label": NaN}\n', "row 2: column 'label' holds nan, expected a label"),
        ("a.jsonl", LINE + b'{"text": "amber", "label": 1.5}\n', "row 2: column 'label' holds 1.5, expected a label"),
        ("a.jsonl", LINE + b'{"text": "amber", "label": true}\n', "row 2: column 'label' holds True, expected a label"),
        ("a.jsonl", LINE + b'{"text": "amber", "label": [0]}\n', "row 2: column 'label' holds \\[0\\]"),
        ("a.csv", b"text,label\namber,\n", "row 1: column 'label' holds '', expected a label"),
        ("a.csv", b"text,label\namber,NaN\n", "row 1: column 'label' holds 'NaN', expected a label"),
        ("a.csv", b"text,label\namber, basil,0\n", "line 2: 3 fields under a header of 2; is a quote"),
        ("a.csv", b"text,label\namber\n", "line 2: 1 fields under a header of 2"),
        ("a.csv", b'text,label\n"amber,0\nbasil,1\n', "cannot be read"),
        ("a.tsv", b"text\tlabel\namber basil 0\n", "line 2: 1 fields under a header of 2"),
        ("a.csv", b"text,label\n" + b"x" * 200_000 + b",0\n", "cannot be read .*field larger than field limit"),
        ("a.jsonl", LINE * 30, "has only the label '0': classification needs two"),
        ("a.parquet", b"PAR1 but not really", "cannot be read"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_clear_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="reading .parquet needs pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MalformedInput, match=message) as caught:
        datasets.load(str(tmp_path / name))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert name in str(caught.value) or "'a'" in str(caught.value)
    assert caught.value.exit_code == 6


def test_a_label_outside_the_range_names_its_row(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('["neg", "pos"]')
    write_jsonl(tmp_path / "test.jsonl", [("amber", 0), ("basil", 2)])
    with pytest.raises(MalformedInput, match=r"'x', test row 2: label 2 is not one of the 2 labels \(neg, pos\)"):
        datasets._assemble("x", *datasets._read_folder(tmp_path))


@pytest.mark.parametrize("names", ['{"text"', '"pos"', "[1, 2]"])
def test_broken_label_names_say_so(tmp_path: Path, names: str) -> None:
    (tmp_path / "labels.json").write_text(names)
    write_jsonl(tmp_path / "all.jsonl", [("amber", 0)])
    with pytest.raises(MalformedInput, match=r"labels\.json"):
        datasets._read_folder(tmp_path)


def test_a_file_that_cannot_be_opened_is_a_storage_error(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    file = write_jsonl(tmp_path / "a.jsonl", [("amber", 0)])
    file.chmod(0)
    with pytest.raises(StorageError, match="check the file and its permissions"):
        datasets.load(str(file))


@given(st.binary(max_size=200), st.sampled_from([".jsonl", ".jsonl.gz", ".csv", ".tsv"]))
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
    file = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    file.write_bytes(content)
    try:
        datasets.load(str(file))
    except GritError as error:
        assert "\n" not in str(error)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_no_damage_to_a_good_file_crashes_the_reader(
    tmp_path_factory: pytest.TempPathFactory, place: int, damage: bytes
) -> None:
    good = gzipped("".join(json.dumps({"text": t, "label": i % 2}) + "\n" for i, t in enumerate(texts(30))).encode())
    place %= len(good)
    file = tmp_path_factory.getbasetemp() / "damaged.jsonl.gz"
    file.write_bytes(good[:place] + damage + good[place + len(damage) :])
    try:
        datasets.load(str(file))
    except GritError as error:
        assert "\n" not in str(error)


# --- kinds of files ------------------------------------------------------------------------------------

SPECIAL = ['a "quoted" word', "comma, in text", "caf\u00e9 \u05e9\u05dc\u05d5\u05dd \U0001f642", "NA", "null", "1.0"]


def rows_of_all_kinds() -> list[tuple[str, str]]:
    return [(f"{SPECIAL[i % len(SPECIAL)]} {text}", ["ham", "spam"][i % 2]) for i, text in enumerate(texts(60))]


def write_csv(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:  # as spreadsheets write it
        csv.writer(file).writerows([("label", "text", "note"), *((label, text, "") for text, label in rows)])


def write_tsv(path: Path, rows: list[tuple[str, str]]) -> None:
    path.write_text("".join(f"{text}\t{label}\n" for text, label in [("sentence", "label"), *rows]), encoding="utf-8")


def write_parquet(path: Path, rows: list[tuple[str, str]]) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="reading .parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": [t for t, _ in rows], "label": [label for _, label in rows]}), path)


def write_lines(path: Path, rows: list[tuple[str, str]]) -> None:
    write_jsonl(path, list(rows))


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".csv", write_csv),
        (".tsv", write_tsv),
        (".parquet", write_parquet),
        (".jsonl", write_lines),
        (".jsonl.gz", write_lines),
    ],
)
def test_the_same_rows_in_any_kind_of_file_are_the_same_dataset(
    tmp_path: Path, suffix: str, write: Callable[[Path, list[tuple[str, str]]], None]
) -> None:
    rows = rows_of_all_kinds()
    write(tmp_path / f"mine{suffix}", rows)
    dataset = datasets.load(str(tmp_path / f"mine{suffix}"))
    assert {e.text: dataset.labels[e.label] for e in whole(dataset)} == {normalise(t): label for t, label in rows}
    write_lines(tmp_path / "again.jsonl", rows)
    again = datasets._assemble("mine", *datasets._read_files({"all": tmp_path / "again.jsonl"}, None))
    assert dataset.revision == again.revision


def test_whole_numbers_of_parquet_are_labels(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="reading .parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"text": texts(40), "label": pyarrow.array([i % 2 for i in range(40)], pyarrow.int8())})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert datasets.load(str(tmp_path / "a.parquet")).labels == ("0", "1")
    holes = pyarrow.table({"text": texts(40), "label": [None if i == 3 else i % 2 for i in range(40)]})
    parquet.write_table(holes, tmp_path / "a.parquet")
    with pytest.raises(MalformedInput, match="row 4: column 'label' holds None"):
        datasets.load(str(tmp_path / "a.parquet"))


def test_a_user_column_is_kept(tmp_path: Path) -> None:
    lines = [{"text": text, "label": i % 2, "user": f"u{i % 3}"} for i, text in enumerate(texts(40))]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    users = {example.text: example.user for example in whole(datasets.load(str(tmp_path / "a.jsonl")))}
    assert users == {line["text"]: line["user"] for line in lines}


# --- where sets are looked for -----------------------------------------------------------------------------


def test_a_set_but_empty_folder_means_none(no_data: Path) -> None:
    assert datasets.data_folders() == []
    assert list(datasets.available()) == ["pings"]
    with pytest.raises(
        CouldNotMeasure,
        match=r"'ag_news' is not here \(looked in no local data folder\); set GRIT_DATA|could not be fetched",
    ):
        _without_the_hub("ag_news")


def _without_the_hub(name: str) -> Dataset:
    blocked = sys.modules.get("datasets")
    sys.modules["datasets"] = None  # type: ignore[assignment]  # makes the import fail
    try:
        return datasets.load(name)
    finally:
        del sys.modules["datasets"]
        if blocked is not None:
            sys.modules["datasets"] = blocked


def test_the_users_own_folder_is_the_second_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GRIT_DATA", str(tmp_path / "named"))
    for place, label in (("named", "a"), ("home/gritbench", "b")):
        for name in ("both", label):
            folder = tmp_path / place / name
            folder.mkdir(parents=True)
            write_jsonl(folder / "all.jsonl", [(f"{label} {text}", i % 2) for i, text in enumerate(texts(40))])
    assert {"both", "a", "b"} <= set(datasets.available())
    assert whole(datasets.load("both"))[0].text.startswith("a ")
    assert whole(datasets.load("b"))[0].text.startswith("b ")
    monkeypatch.setenv("GRIT_DATA", "")
    assert set(datasets.available()) == {"pings"}


def test_a_folder_of_several_sets_names_them_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIT_DATA", str(tmp_path))
    (tmp_path / "pair").mkdir()
    for name in ("one", "two"):
        write_jsonl(tmp_path / "pair" / f"{name}.jsonl", [(f"{name} {t}", i % 2) for i, t in enumerate(texts(40))])
    write_jsonl(tmp_path / "single.jsonl", [(t, i % 2) for i, t in enumerate(texts(40))])
    (tmp_path / "MANIFEST.tsv").write_text("sha256\tpath\n")
    assert set(datasets.available()) == {"pings", "pair/one", "pair/two", "single"}
    assert datasets.load("pair/two").name == "pair/two"


def test_splits_are_found_under_their_usual_names(tmp_path: Path) -> None:
    for name in ("train", "train_phrases", "val", "test"):
        write_jsonl(tmp_path / f"{name}.jsonl", [("amber", 0)])
    found = datasets._split_files(tmp_path)
    assert {split: path.name for split, path in found.items()} == {
        "train": "train.jsonl",
        "dev": "val.jsonl",
        "test": "test.jsonl",
    }


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc", "x/../../y"])
def test_names_do_not_lead_out_of_the_data_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIT_DATA", str(tmp_path))
    with pytest.raises(UsageError, match="unknown dataset"):
        datasets.load(name)


def test_an_unknown_set_is_told_the_nearest(no_data: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown dataset 'ag_new': did you mean 'ag_news'\? looked in no local"):
        datasets.load("ag_new")


def test_a_missing_file_says_so() -> None:
    with pytest.raises(UsageError, match=r"dataset file 'gone\.csv' does not exist; give an existing \.jsonl"):
        datasets.load("gone.csv")


def test_a_folder_without_splits_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIT_DATA", str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MalformedInput, match=r"empty: no train, dev, test or all file"):
        datasets.load("empty")


def test_a_licence_is_read_from_the_readme(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "all.jsonl", [(t, i % 2) for i, t in enumerate(texts(40))])
    assert datasets._read_folder(tmp_path)[2] == "unknown"
    (tmp_path / "README.md").write_bytes(b"# Set\n\nLicence: CC BY 4.0.\n\xff\n")
    assert datasets._read_folder(tmp_path)[2] == "CC BY 4.0."


# --- the hub, from a local mirror ------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that mirrors hub repositories, and no other place to look in."""
    pytest.importorskip("datasets", reason="the hub's library is not installed: pip install 'gritbench[hub]'")
    monkeypatch.setenv("GRIT_DATA", "")
    monkeypatch.setenv("GRIT_HUB", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


def loaded(name: str) -> dict[str, object]:
    """``datasets.load`` in a process of its own: the hub's library reads its environment when it is imported."""
    code = (
        "import json, sys\nfrom grit.bench import datasets\nfrom grit.bench.types import GritError\n"
        "try:\n    d = datasets.load(sys.argv[1])\n"
        "except GritError as e:\n    print(json.dumps({'error': str(e), 'code': e.exit_code})); sys.exit()\n"
        "print(json.dumps({'sizes': [len(d.train), len(d.dev), len(d.test)], 'labels': d.labels, 'notes': d.notes,"
        " 'texts': [e.text for e in d.test[:3]]}))"
    )
    ran = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True)
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def test_a_set_of_the_hub_is_found_by_our_name(mirror: Path) -> None:
    repository = mirror / "fancyzhx" / "ag_news"
    repository.mkdir(parents=True)
    rows = [{"text": text, "label": i % 4} for i, text in enumerate(texts(200))]
    (repository / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:160]))
    (repository / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[160:]))
    found = loaded("ag_news")
    assert found["sizes"] == [144, 16, 40]
    assert found["labels"] == ["0", "1", "2", "3"]
    assert found["texts"] == [row["text"] for row in rows[160:163]]


def test_withheld_labels_of_the_hub_make_dev_the_test_split(mirror: Path) -> None:
    repository = mirror / "stanfordnlp" / "sst2"
    repository.mkdir(parents=True)
    for split, count in (("train", 100), ("validation", 20), ("test", 30)):
        rows = [
            {"idx": i, "sentence": f"{text} {split}", "label": -1 if split == "test" else i % 2}
            for i, text in enumerate(texts(count))
        ]
        (repository / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = loaded("sst2")
    assert found["sizes"] == [90, 10, 20]
    assert "no labelled test split: the dev split is the test split" in found["notes"]  # type: ignore[operator]


CARD = """---
configs:
- config_name: small
  data_files:
  - split: train
    path: small/train-*
- config_name: plus
  data_files:
  - split: train
    path: plus/train-*
  - split: validation
    path: plus/validation-*
  - split: test
    path: plus/test-*
dataset_info:
- config_name: plus
  features:
  - name: text
    dtype: string
  - name: intent
    dtype:
      class_label:
        names:
          '0': alarm
          '1': balance
          '2': oos
license: cc-by-3.0
---
"""


def test_a_configuration_of_the_hub_in_its_usual_layout(mirror: Path) -> None:
    """Parquet shards behind a card that names configurations, splits and labels."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    repository = mirror / "clinc" / "clinc_oos"
    for place in ("plus", "small"):
        (repository / place).mkdir(parents=True)
    (repository / "README.md").write_text(CARD)
    for split, count in (("train", 60), ("validation", 12), ("test", 24)):
        lines = [f"{text} {split}" for text in texts(count)]
        table = pyarrow.table({"text": lines, "intent": pyarrow.array([i % 3 for i in range(count)], pyarrow.int64())})
        parquet.write_table(table, repository / "plus" / f"{split}-00000-of-00001.parquet")
        parquet.write_table(table, repository / "small" / f"{split}-00000-of-00001.parquet")
    found = loaded("clinc150")
    assert found["sizes"] == [60, 12, 24]
    assert found["labels"] == ["alarm", "balance", "oos"]
    assert found["notes"] == []


def test_a_set_that_the_mirror_lacks_is_something_missing(mirror: Path) -> None:
    found = loaded("imdb")
    assert found["code"] == 4
    assert "'imdb' is not in no local data folder nor mirrored in" in str(found["error"])


def test_a_broken_set_of_the_mirror_is_one_line(mirror: Path) -> None:
    repository = mirror / "stanfordnlp" / "imdb"
    repository.mkdir(parents=True)
    (repository / "train.jsonl").write_text("{")
    found = loaded("imdb")
    assert found["code"] == 4
    assert "could not be fetched from the hub" in str(found["error"]) and "\n" not in str(found["error"])


# --- the embedded corpus -------------------------------------------------------------------------------

PINGS = Path(datasets.__file__).parent / "embedded" / "pings.tsv"


@pytest.fixture(scope="module")
def pings() -> Dataset:
    return datasets.load("pings")


def test_the_embedded_corpus_has_its_sizes_and_is_balanced(pings: Dataset) -> None:
    assert len(pings.train) >= 1600
    assert (len(pings.dev), len(pings.test)) == (300, 500)
    for split in (pings.train, pings.dev, pings.test):
        counts = Counter(example.label for example in split)
        assert len(counts) == len(pings.labels) == 2
        assert max(counts.values()) == min(counts.values())
    assert pings.notes == (), "nothing was dropped, nothing is a copy"


def test_the_embedded_corpus_is_written_as_it_is_read(pings: Dataset) -> None:
    lines = [line.split("\t") for line in PINGS.read_text(encoding="utf-8").splitlines()]
    assert all(len(line) == 3 for line in lines)
    assert all(text == normalise(text) for _, _, text in lines)
    assert [text for split, _, text in lines if split == "test"] == [example.text for example in pings.test]


def test_embedded_texts_are_short(pings: Dataset) -> None:
    lengths = [len(example.text.split()) for example in whole(pings)]
    assert min(lengths) >= 5 and max(lengths) <= 40
    assert len(set(lengths)) > 20


def test_embedded_texts_are_no_near_copies_across_splits(pings: Dataset) -> None:
    """No two texts of two splits have half of their word triples in common (Jaccard), or the same bag of words."""

    def triples(text: str) -> set[tuple[str, ...]]:
        words = [word for word in (datasets.canonical(piece) for piece in text.split()) if word]
        return set(zip(words, words[1:], words[2:], strict=False))

    holders: dict[tuple[str, ...], list[int]] = {}
    examples = [(split, e.text) for split in ("train", "dev", "test") for e in getattr(pings, split)]
    sets = [triples(text) for _, text in examples]
    for place, found in enumerate(sets):
        for triple in found:
            holders.setdefault(triple, []).append(place)
    close = []
    for place, found in enumerate(sets):
        shared = Counter(other for triple in found for other in holders[triple] if other > place)
        for other, count in shared.items():
            union = len(found) + len(sets[other]) - count
            if examples[place][0] != examples[other][0] and 2 * count >= union:
                close.append((examples[place][1], examples[other][1]))
    assert close == []
    words = [(split, frozenset(text.lower().split())) for split, text in examples]
    home: dict[frozenset[str], str] = {}
    assert all(home.setdefault(bag, split) == split for split, bag in words)


def test_the_embedded_corpus_has_no_templates(pings: Dataset) -> None:
    """No opening of four words begins more than 1 % of the texts."""
    openings = Counter(tuple(example.text.lower().split()[:4]) for example in whole(pings))
    assert openings.most_common(1)[0][1] <= 0.01 * len(whole(pings))


# A change here is another dataset, lexicon or suite: enter it in leaderboards/CHANGES.md and pin it anew.
PINNED = {
    "inflections.txt": "688a36dd3080d5c1ed82e807cd9cbae3128fbfcd9f281d484d48f477d81b4d15",
    "pings.tsv": "4bdfdd707143cf4fbb093bfd3288eb7f0a7660a339090fc750d308f3092e383a",
    "stop_words.txt": "019f104ba2ed07436d05f9cdd3383034ad66014edc27fc651f837e1a038b6451",
    "thesaurus.txt": "ad221eced6d12c1e45f3edd6329caaf0cdac5e5dacd7a2ec10e7a3d83f4d5d89",
}


def test_the_embedded_files_are_pinned() -> None:
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in PINGS.parent.iterdir()}
    assert found == PINNED


# --- the real sets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "classes", "sizes"),
    [
        ("sst2", 2, (6917, 872, 1821)),
        ("mr", 2, (8530, 1066, 1066)),
        ("banking77", 77, (None, None, 3080)),
        ("clinc150", 151, (15067, 3093, 5500)),
        ("robust_imdb_cad", 2, (3414, 490, 976)),
        ("attack_eval_1k/ag", 4, (801, 98, 101)),
    ],
)
def test_real_sets_load(real_data: Path, name: str, classes: int, sizes: tuple[int | None, ...]) -> None:
    dataset = datasets.load(name)
    assert len(dataset.labels) == classes
    found = (len(dataset.train), len(dataset.dev), len(dataset.test))
    assert all(want in (None, got) for want, got in zip(sizes, found, strict=True)), found
    assert not datasets.overlap(dataset.train, dataset.test)


def test_a_set_of_copies_keeps_them_together(real_data: Path) -> None:
    dataset = datasets.load("sms_spam")
    assert len(whole(dataset)) == 5574
    assert not datasets.overlap(dataset.train, dataset.test) and not datasets.overlap(dataset.train, dataset.dev)
    assert any("copies of another test text" in note for note in dataset.notes)
    assert 0.09 < len(dataset.test) / 5574 < 0.11


def test_the_overlap_of_two_sets_is_found(real_data: Path) -> None:
    """TextFooler's 1,000 texts of MR are texts of our three splits, but for a few that lost an accented letter."""
    thousand = whole(datasets.load("attack_eval_1k/mr"))
    mr = datasets.load("mr")
    found = {split: len(datasets.overlap(getattr(mr, split), thousand)) for split in ("train", "dev", "test")}
    assert found == {"train": 794, "dev": 88, "test": 102}


def test_sst2_shares_sentences_with_mr(real_data: Path) -> None:
    shared = datasets.overlap(datasets.load("mr").train, datasets.load("sst2").test)
    assert len(shared) > 1000
