"""Name or file -> Dataset: embedded, local folder, Hugging Face hub, or the user's own file.

A row's text is normalised; its id is the first 16 hex digits of sha256(split, text, occurrence), so ids,
subsets and made splits are the same on every machine. A dataset's revision is the sha256 over the ids and
labels of its splits: the same name with other content is another dataset. A text that stands in the test
split is never trained on: such rows are dropped from train and dev, and the dataset's notes say how many.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grit.bench.registry import unknown
from grit.bench.text import normalise
from grit.bench.types import CouldNotMeasure, Dataset, Example, GritError, MalformedInput, StorageError, UsageError

EMBEDDED = "pings"
_EMBEDDED_FOLDER = Path(__file__).parent / "embedded"

HUB = {  # our names -> hub repositories, for machines without a local copy
    "ag_news": "fancyzhx/ag_news",
    "sst2": "stanfordnlp/sst2",
    "mr": "cornell-movie-review-data/rotten_tomatoes",
    "imdb": "stanfordnlp/imdb",
    "sms_spam": "ucirvine/sms_spam",
    "banking77": "PolyAI/banking77",
    "clinc150": "clinc/clinc_oos:plus",
    "sentiment140": "stanfordnlp/sentiment140",
}
_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".tsv", ".parquet")
_TEXT_COLUMNS = ("text", "sentence", "content", "sms")
_LABEL_COLUMNS = ("label", "labels", "intent", "sentiment")
_USER_COLUMNS = ("user",)
_SPLITS = {"train": "train", "dev": "dev", "validation": "dev", "val": "dev", "test": "test"}

Row = tuple[str, str | int, str | None]  # text, label as found (name or number), user


def load(name: str) -> Dataset:
    """The dataset behind a name, a ``folder/file`` of the data folder, a hub repository, or a file path.

    Raises UsageError (unknown name), CouldNotMeasure (a known set that is not on this machine),
    MalformedInput (a broken file: the line says which row and why).
    """
    if name == EMBEDDED:
        return _assemble(name, *_read_embedded())
    path = Path(name)
    if name.endswith(_SUFFIXES):
        if not path.is_file():
            raise UsageError(f"dataset file {name!r} does not exist; give an existing {', '.join(_SUFFIXES)} file")
        return _assemble(_stem(path), *_read_files({"all": path}, None))
    if not name or path.is_absolute() or {".", ".."} & set(name.split("/")):
        raise unknown(
            "dataset", name, available(), "give the name of a set, or a file: 'grit data' shows what is there"
        )
    for folder in data_folders():
        if (folder / name).is_dir():
            return _assemble(name, *_read_folder(folder / name))
        for suffix in _SUFFIXES:
            file = folder / (name + suffix)
            if file.is_file():
                return _assemble(name, *_read_files({"all": file}, _label_names(file.parent, file)))
    return _assemble(name, *_read_hub(name))


def data_folders() -> list[Path]:
    """Where local sets are looked for, in order. A set but empty GRIT_DATA means nowhere."""
    named = os.environ.get("GRIT_DATA")
    if named == "":
        return []
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "gritbench"
    return [folder for folder in ([Path(named)] if named else []) + [home] if folder.is_dir()]


def available() -> dict[str, str]:
    """Every dataset name that loads without network -> where it lies."""
    found = {EMBEDDED: "embedded"}
    for folder in data_folders():
        for entry in sorted(folder.iterdir()):
            if entry.is_dir() and _split_files(entry):
                found.setdefault(entry.name, str(entry))
            elif entry.is_dir() and entry.name not in ("lexical", "nltk_data"):
                for file in sorted(entry.iterdir()):
                    if file.name.endswith(_SUFFIXES):
                        found.setdefault(f"{entry.name}/{_stem(file)}", str(file))
            elif entry.name.endswith(_SUFFIXES) and _stem(entry) != "MANIFEST":
                found.setdefault(_stem(entry), str(entry))
    return found


def subset(examples: Sequence[Example], n: int | None, dataset: str) -> tuple[Example, ...]:
    """``n`` examples by rank of sha256(dataset name, id), stratified by label; None or too many: all of them.

    The same rows in the same order everywhere, whatever the order of ``examples``, and a smaller subset is the
    beginning of a larger one: of m rows with one label, the j-th by rank stands at (j + 1/2) / m of the way.
    """
    if n is not None and n < 1:
        raise UsageError(f"n={n}: a subset needs at least one example")
    places = {}
    for members in _by_label(sorted(examples, key=lambda example: _rank(dataset, example.id))).values():
        for j, example in enumerate(members):
            places[example.id] = (2 * j + 1) / (2 * len(members)), _rank(dataset, example.id)
    return tuple(sorted(examples, key=lambda example: places[example.id])[:n])


def canonical(text: str) -> str:
    """A text reduced to lower-case letters and digits: equal for copies that differ in case, spacing, punctuation.

    A text without any, as a row of emoji, stays as it is: otherwise all such texts would be copies of each other.
    """
    return re.sub(r"[\W_]+", "", text.lower()) or text


def overlap(train: Iterable[Example], test: Iterable[Example]) -> list[Example]:
    """The examples of ``test`` whose canonical text also stands in ``train``, in any two sets."""
    seen = {canonical(example.text) for example in train}
    return [example for example in test if canonical(example.text) in seen]


# --- from rows to a dataset --------------------------------------------------------------------------


def _assemble(name: str, splits: Mapping[str, list[Row]], labels: tuple[str, ...] | None, licence: str) -> Dataset:
    if not splits:
        raise MalformedInput(f"dataset {name!r} has no split with labels: nothing to train on")
    if set(splits) == {"train"}:
        splits = {"all": splits["train"]}
    if labels:
        numbers = _named(labels)
    else:
        labels, numbers = _inferred(row[1] for rows in splits.values() for row in rows)
    if len(labels) < 2:
        raise MalformedInput(f"dataset {name!r} has only the label {labels[0]!r}: classification needs two or more")
    examples = {split: _examples(name, split, rows, numbers, labels) for split, rows in splits.items()}
    notes = []
    if "all" in examples:
        examples = _split_by_text(name, examples["all"], {"train": 0.8, "dev": 0.1, "test": 0.1})
        notes.append("one file: split 80/10/10 by hash rank, copies of a text kept together")
    if not examples.get("test"):
        if not examples.get("dev"):
            raise MalformedInput(
                f"dataset {name!r} has neither a test nor a dev split with labels: nothing to evaluate"
            )
        examples["test"] = examples.pop("dev")
        notes.append("no labelled test split: the dev split is the test split")
    if not examples.get("train"):
        raise MalformedInput(f"dataset {name!r} has no train split: nothing to train on")
    if not examples.get("dev"):
        parts = _split_by_text(name, examples["train"], {"train": 0.9, "dev": 0.1})
        examples.update(parts)
        notes.append("no dev split: 10 % of train by hash rank")
    held_out = {canonical(example.text) for example in examples["test"]}
    for split in ("train", "dev"):
        kept = [example for example in examples[split] if canonical(example.text) not in held_out]
        if len(kept) < len(examples[split]):
            notes.append(f"{len(examples[split]) - len(kept)} texts of {split} stand in test: dropped from {split}")
        if not kept:
            raise MalformedInput(
                f"dataset {name!r}: no text is left for its {split} split; it needs more distinct texts"
            )
        examples[split] = kept
    trained = {canonical(example.text) for example in examples["train"]}
    if seen := sum(canonical(example.text) in trained for example in examples["dev"]):
        notes.append(f"{seen} texts of dev stand in train too: the choice of the epoch sees trained texts")
    copies = len(examples["test"]) - len(held_out)
    if copies:
        notes.append(f"{copies} texts of test are copies of another test text")
    digest = hashlib.sha256()
    for split in ("train", "dev", "test"):
        for example in examples[split]:
            digest.update(f"{split} {example.id} {example.label}\n".encode())
    return Dataset(
        name=name,
        revision=digest.hexdigest(),
        labels=labels,
        train=tuple(examples["train"]),
        dev=tuple(examples["dev"]),
        test=tuple(examples["test"]),
        licence=licence,
        notes=tuple(notes),
    )


def _examples(
    name: str, split: str, rows: Sequence[Row], numbers: Mapping[str | int, int], labels: Sequence[str]
) -> list[Example]:
    read: list[tuple[str, int, str | None]] = []
    for line, (raw, label, user) in enumerate(rows, 1):
        index = numbers.get(label)
        if index is None:
            raise MalformedInput(
                f"dataset {name!r}, {split} row {line}: label {label!r} is not one of the {len(labels)} labels "
                f"({', '.join(labels[:8])}{', ...' if len(labels) > 8 else ''}); correct the row"
            )
        read.append((normalise(raw), index, user))
    # Copies of a text are counted by label, so that the order of rows decides nothing.
    seen: dict[str, int] = {}
    ids: dict[int, str] = {}
    for place in sorted(range(len(read)), key=lambda at: (read[at][1], read[at][2] or "", at)):
        text = read[place][0]
        occurrence = seen[text] = seen.get(text, -1) + 1
        key = json.dumps([split, text, occurrence], ensure_ascii=False).encode()
        ids[place] = hashlib.sha256(key).hexdigest()[:16]
    return [Example(ids[place], *row) for place, row in enumerate(read)]


def _named(labels: Sequence[str]) -> dict[str | int, int]:
    """Label as found -> number, where the labels have names: a row may say the name, or the number."""
    numbers: dict[str | int, int] = {}
    for index in range(len(labels)):
        numbers[index] = numbers[str(index)] = index
    return numbers | {label: index for index, label in enumerate(labels)}


def _inferred(found: Iterable[str | int]) -> tuple[tuple[str, ...], dict[str | int, int]]:
    """Names for labels that have none, in the order of numbers or of the alphabet; and label as found -> number."""
    distinct = set(found)
    if all(re.fullmatch(r"-?\d{1,18}", str(label)) for label in distinct):
        place = {value: index for index, value in enumerate(sorted({int(label) for label in distinct}))}
        return tuple(map(str, place)), {label: place[int(label)] for label in distinct}
    names = tuple(sorted({str(label) for label in distinct}))
    return names, {label: names.index(str(label)) for label in distinct}


def _split_by_text(name: str, examples: Sequence[Example], shares: Mapping[str, float]) -> dict[str, list[Example]]:
    """Made splits: texts (not rows) ranked by hash and stratified by label, so that copies stay together."""
    first: dict[str, Example] = {}  # of the copies of a text, the one with the smallest id stands for all
    for example in sorted(examples, key=lambda example: example.id):
        first.setdefault(canonical(example.text), example)
    home: dict[str, str] = {}
    for members in _by_label(sorted(first.values(), key=lambda example: _rank(name, example.id))).values():
        start, total = 0, 0.0
        for split, share in shares.items():
            total += share
            stop = round(total * len(members))
            home.update((canonical(example.text), split) for example in members[start:stop])
            start = stop
    parts: dict[str, list[Example]] = {split: [] for split in shares}
    for example in examples:
        parts[home[canonical(example.text)]].append(example)
    return parts


def _rank(dataset: str, key: str) -> str:
    return hashlib.sha256(f"{dataset}\n{key}".encode()).hexdigest()


def _by_label(examples: Iterable[Example]) -> dict[int, list[Example]]:
    groups: dict[int, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.label, []).append(example)
    return dict(sorted(groups.items()))


# --- reading -----------------------------------------------------------------------------------------

Found = tuple[dict[str, list[Row]], tuple[str, ...] | None, str]  # rows by split, label names, licence


def _read_embedded() -> Found:
    rows: dict[str, list[Row]] = {}
    with (_EMBEDDED_FOLDER / f"{EMBEDDED}.tsv").open(encoding="utf-8") as file:
        for split, label, text in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            rows.setdefault(split, []).append((text, label, None))
    return rows, ("later", "now"), "Apache-2.0 (written for this project)"


def _read_folder(folder: Path) -> Found:
    files = _split_files(folder)
    if not files:
        raise MalformedInput(f"{folder}: no train, dev, test or all file with one of {', '.join(_SUFFIXES)}")
    return _read_files(files, _label_names(folder, None), _licence(folder))


def _split_files(folder: Path) -> dict[str, Path]:
    """split -> file: the file named exactly by the split, else the only one named split_*; 'all' only alone."""
    found: dict[str, Path] = {}
    entries = [entry for entry in sorted(folder.iterdir()) if entry.name.endswith(_SUFFIXES)]
    for alias, split in _SPLITS.items():
        exact = [entry for entry in entries if _stem(entry) == alias]
        loose = [entry for entry in entries if _stem(entry).startswith(f"{alias}_")]
        if exact or len(loose) == 1:
            found.setdefault(split, (exact or loose)[0])
    if not found:
        found = {_stem(entry): entry for entry in entries if _stem(entry) == "all"}
    return found


def _read_files(files: Mapping[str, Path], labels: tuple[str, ...] | None, licence: str = "unknown") -> Found:
    return {split: _rows(path) for split, path in files.items()}, labels, licence


def _label_names(folder: Path, file: Path | None) -> tuple[str, ...] | None:
    """labels.json beside the files: a list, or a mapping from file stem to list."""
    path = folder / "labels.json"
    if not path.is_file():
        return None
    names = _guarded(path, lambda: json.loads(path.read_text(encoding="utf-8")))
    if isinstance(names, dict):
        names = names.get(_stem(file)) if file else None
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(label, str) for label in names):
        raise MalformedInput(f"{path}: expected a list of label names, got {type(names).__name__}")
    return tuple(names)


def _licence(folder: Path) -> str:
    readme = folder / "README.md"
    if not readme.is_file():
        return "unknown"
    match = re.search(r"^Licence: *(.+)$", readme.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return match.group(1).strip() if match else "unknown"


def _rows(path: Path) -> list[Row]:
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        read: Callable[[Path], list[dict[str, Any]]] = _json_lines
    elif path.name.endswith(".parquet"):
        read = _parquet
    else:
        read = _table
    records = _guarded(path, lambda: read(path))
    if not records:
        raise MalformedInput(f"{path}: no rows")
    return _texts_and_labels(str(path), records)


def _texts_and_labels(place: str, records: Iterable[Mapping[str, Any]]) -> list[Row]:
    rows: list[Row] = []
    text_column = label_column = ""
    for number, record in enumerate(records, 1):
        if not rows:
            text_column = _column(place, record, _TEXT_COLUMNS)
            label_column = _column(place, record, _LABEL_COLUMNS)
        text, label = record.get(text_column), record.get(label_column)
        if not isinstance(text, str):
            raise MalformedInput(f"{place}, row {number}: column {text_column!r} holds {text!r}, expected a text")
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if not isinstance(label, str | int) or isinstance(label, bool) or str(label).strip().lower() in ("", "nan"):
            raise MalformedInput(f"{place}, row {number}: column {label_column!r} holds {label!r}, expected a label")
        user = next((str(record[column]) for column in _USER_COLUMNS if record.get(column) is not None), None)
        rows.append((text, label, user))
    return rows


def _json_lines(path: Path) -> list[dict[str, Any]]:
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    records = []
    with opener(path, "rt", encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError as error:
                    raise MalformedInput(
                        f"{path}, line {number}: not JSON ({error.msg}); is the file truncated?"
                    ) from error
                if not isinstance(record, dict):
                    raise MalformedInput(
                        f"{path}, line {number}: expected an object with text and label, got {line[:40]!r}"
                    )
                records.append(record)
    return records


def _table(path: Path) -> list[dict[str, Any]]:
    """Rows under a header. In .csv a quote protects commas and line ends; in .tsv it is a character like any other."""
    records = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".tsv":
            reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        else:
            reader = csv.reader(file, strict=True)
        header = next(reader, [])
        for row in reader:
            if len(row) != len(header) and row:
                raise MalformedInput(
                    f"{path}, line {reader.line_num}: {len(row)} fields under a header of {len(header)}; "
                    "is a quote or a separator missing?"
                )
            if row:
                records.append(dict(zip(header, row, strict=True)))
    return records


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise CouldNotMeasure(f"{path}: reading .parquet needs pyarrow; pip install 'gritbench[hub]'") from error
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    """What ``read`` returns; any way a file can be broken becomes one line that names it."""
    try:
        return read()
    except GritError:
        raise
    except UnicodeDecodeError as error:
        raise MalformedInput(
            f"{path}: not UTF-8 (byte {error.object[error.start]:#04x} at {error.start}); convert it"
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise MalformedInput(f"{path}: truncated or not gzip ({error}); fetch it again") from error
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}; check the file and its permissions") from error
    except (ValueError, RecursionError, csv.Error) as error:  # ValueError: json, and pyarrow's own
        raise MalformedInput(f"{path}: cannot be read ({(str(error).splitlines() or [''])[0]}); correct it") from error


def _column(place: str, record: Mapping[str, Any], wanted: Sequence[str]) -> str:
    for column in wanted:
        if column in record:
            return column
    raise MalformedInput(f"{place}: no column {' or '.join(map(repr, wanted))}; it has {', '.join(map(repr, record))}")


def _stem(path: Path | None) -> str:
    name = path.name if path else ""
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        name = name.removesuffix(suffix)
    return name


# --- the hub -----------------------------------------------------------------------------------------


def _read_hub(name: str) -> Found:
    """A dataset of the Hugging Face hub, through its library; GRIT_HUB may name a folder that mirrors repositories."""
    mirror = os.environ.get("GRIT_HUB")
    repository, _, configuration = HUB.get(name, name).partition(":")
    source = str(Path(mirror) / repository) if mirror else repository
    here = available()
    looked = ", ".join(str(folder) for folder in data_folders()) or "no local data folder"
    if name not in HUB and ("/" not in name or not repository.isascii()):
        known = sorted({*here, *HUB})
        raise unknown("dataset", name, known, f"looked in {looked}; 'grit data' shows what is there")
    if mirror and not Path(source).is_dir():
        raise CouldNotMeasure(f"dataset {name!r} is not in {looked} nor mirrored in {mirror}; put it in either")
    try:
        import datasets
    except ImportError as error:
        raise CouldNotMeasure(
            f"dataset {name!r} is not here (looked in {looked}); set GRIT_DATA to a folder that holds it, "
            "or pip install 'gritbench[hub]' to fetch it"
        ) from error
    try:
        fetched = datasets.load_dataset(source, configuration or None)
    # The hub library raises its own and other libraries' network errors without a common base.
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CouldNotMeasure(
            f"dataset {name!r} could not be fetched from the hub: {first[:200]}; "
            f"try again with a network, or set GRIT_DATA to a folder that holds it (looked in {looked})"
        ) from error
    splits: dict[str, list[Row]] = {}
    labels: tuple[str, ...] | None = None
    for split, table in fetched.items():
        if split not in _SPLITS:
            continue
        rows = _texts_and_labels(f"{repository}, {split}", table)
        label_column = _column(repository, table.features, _LABEL_COLUMNS)
        labels = tuple(getattr(table.features[label_column], "names", None) or ()) or labels
        if all(label == -1 for _, label, _ in rows):  # the hub's mark of a split whose labels are withheld
            continue
        splits[_SPLITS[split]] = rows
    return splits, labels, next(iter(fetched.values())).info.license or "see the hub page"
