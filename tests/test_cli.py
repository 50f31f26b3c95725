"""The command line as a user meets it: one clear line and the documented exit code for every mistake."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Grit = Callable[..., "subprocess.CompletedProcess[str]"]
QUICK = (
    "--model",
    "tfidf",
    "--scheme",
    "natural",
    "--attack",
    "deepwordbug",
    "--n",
    "6",
    "--n-train",
    "60",
    "--set",
    "epochs=1",
    "--target",
    "none",
)


@pytest.fixture
def grit(tmp_path: Path) -> Grit:
    """``grit("run", ...)`` in a folder of its own, without real data."""
    environment = {
        **{key: value for key, value in os.environ.items() if key not in ("NLTK_DATA", "GRIT_HUB")},
        "GRIT_DATA": "",
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }

    def call(*words: str, cwd: Path = tmp_path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "grit", *words],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**environment, **more},
            check=False,
            timeout=300,
        )

    return call


def fails(found: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """One line on the error stream that holds ``parts``, no traceback, the exit code."""
    errors = [line for line in found.stderr.splitlines() if line.startswith("grit: ")]
    assert found.returncode == code, found.stderr
    assert len(errors) == 1, found.stderr
    assert "Traceback" not in found.stderr
    for part in parts:
        assert part in errors[0]


# --- words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("run", "--model", "fastgrn"), ("unknown model 'fastgrn'", "did you mean 'fastgrnn'?")),
        (("run", "--attack", "hotflop"), ("unknown attack 'hotflop'", "did you mean 'hotflip'?")),
        (("run", "--attack", "pwws.strongest"), ("unknown tier of pwws 'strongest'", "strong")),
        (("run", "--attack", "pwws+wordnet"), ("unknown lexicon 'wordnet'",)),
        (("run", "--attack", "deepwordbug+wordnet"), ("unknown lexicon 'wordnet'",)),
        (("run", "--attack", "textattack"), ("textattack:RECIPE",)),
        (("run", "--scheme", "natrual"), ("unknown scheme 'natrual'", "did you mean 'natural'?")),
        (("run", "--dataset", "pinks"), ("unknown dataset 'pinks'", "did you mean 'pings'?")),
        (("run", "--dataset", "missing.csv"), ("'missing.csv' does not exist",)),
        (("run", "--target", "locale"), ("unknown target 'locale'", "did you mean 'local'?")),
        (("run", "--set", "epoch=3"), ("unknown setting 'epoch'", "did you mean 'epochs'?")),
        (("run", "--set", "epochs=three"), ("epochs='three'", "expected int")),
        (("run", "--set", "epochs"), ("expected field=value",)),
        (("run", "--n", "0"), ("--n",)),
        (("run", "--modle", "student"), ("--modle",)),
        (("rum",), ("rum",)),
        (("list", "modles"), ("unknown kind 'modles'", "did you mean 'models'?")),
        (("check", "pwsw"), ("pwsw",)),
        (("export", "nowhere", "--to", "onnx", "-o", "x"), ("'nowhere' is no run folder",)),
        (("attack", "no_such_module:f"), ("cannot import 'no_such_module'",)),
        (("board", "nowhere"), ("no folder nowhere",)),
    ],
)
def test_an_unknown_word_names_the_nearest_and_exits_2(
    grit: Grit, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    fails(grit(*words), 2, *parts)


def test_a_known_set_that_is_not_here_exits_4_and_says_how_to_get_it(grit: Grit) -> None:
    fails(grit("run", "--dataset", "ag_news"), 4, "ag_news", "GRIT_DATA")


def test_wordnet_that_is_not_here_exits_4(grit: Grit) -> None:
    fails(grit("run", "--attack", "pwws+wordnet3.0", *QUICK[:4]), 4, "wordnet3.0", "thesaurus")


def test_list_and_data_and_doctor_answer_as_json(grit: Grit) -> None:
    listed = json.loads(grit("list", "--json").stdout)
    assert {"fastgrnn", "prado", "student", "teacher", "tfidf", "hashed"} <= set(listed["models"])
    assert {"hotflip", "pwws", "deepwordbug"} <= set(listed["attacks"])
    assert {"natural", "distil", "mapped", "adversarial", "proposed"} <= set(listed["schemes"])
    assert json.loads(grit("data", "--json").stdout)["here"] == {"pings": "embedded"}
    assert json.loads(grit("doctor", "--json").stdout)["capabilities"]["training"] == "ready"
    assert "2020-12" in json.loads(grit("schema").stdout)["$schema"]


# --- files ---------------------------------------------------------------------------------------------


def _rows(texts: list[str]) -> str:
    return "".join(json.dumps({"text": text, "label": at % 2}) + "\n" for at, text in enumerate(texts))


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.jsonl", b'{"text": "good thing", "label": 0}\n{"text": "bad', ("line 2", "not JSON")),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x", "label": 0}\n' * 50, mtime=0)[:40], ("truncated",)),
        ("a.csv", "text,label\ncaf\xe9,0\n".encode("latin-1"), ("not UTF-8",)),
        ("a.csv", b"sentiment,words\n1,hello\n", ("no column 'text'",)),
        ("a.tsv", b"", ("a.tsv",)),
        ("a.jsonl", b'{"text": "x", "label": 0}\n{"text": 7, "label": 1}\n', ("row 2", "expected a text")),
        ("a.jsonl", b'{"text": "x", "label": null}\n', ("row 1", "expected a label")),
    ],
)
def test_a_broken_file_exits_6_and_names_the_place(
    grit: Grit, tmp_path: Path, name: str, content: bytes, parts: tuple[str, ...]
) -> None:
    (tmp_path / name).write_bytes(content)
    fails(grit("run", "--dataset", name, *QUICK), 6, *parts)


def test_a_label_outside_the_range_exits_6(grit: Grit, tmp_path: Path) -> None:
    folder = tmp_path / "sets" / "mine"
    folder.mkdir(parents=True)
    (folder / "labels.json").write_text('["no", "yes"]')
    (folder / "all.jsonl").write_text(_rows(["one two", "three four"]) + '{"text": "x", "label": 5}\n')
    fails(grit("run", "--dataset", "mine", *QUICK, GRIT_DATA=str(tmp_path / "sets")), 6, "row 3", "label 5")


def test_strange_texts_walk_the_whole_path(grit: Grit, tmp_path: Path) -> None:
    strange = [
        "",
        "   ",
        "\u202e\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
        "\U0001f600 \U0001f44d\U0001f3fd fine",
        "word " * 10_000,
        "a",
        "!!! ???",
        "caf\u00e9 na\u00efve \u4f60\u597d",
    ]
    texts = [*strange, *(f"plain text number {at} of this file" for at in range(60))]
    (tmp_path / "strange.jsonl").write_text(_rows(texts), encoding="utf-8")
    found = grit("run", "--dataset", "strange.jsonl", *QUICK, "-o", "out", "--json")
    assert found.returncode == 0, found.stderr
    (record,) = json.loads(found.stdout)["records"]
    assert record["attacks"][0]["errors"] == 0


# --- folders -------------------------------------------------------------------------------------------


def test_an_output_that_is_a_file_is_refused(grit: Grit, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    fails(grit("run", *QUICK, "-o", "out"), 8, "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="a read-only mount needs root on Linux")
def test_a_read_only_folder_exits_8(grit: Grit, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(locked)], check=False, capture_output=True
    ).returncode:
        pytest.skip("this system mounts nothing")
    try:
        fails(grit("run", *QUICK, "-o", "locked/out"), 8, "locked", "-o")
    finally:
        subprocess.run(["umount", str(locked)], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="a small mount needs root on Linux")
def test_a_full_disk_exits_8_and_keeps_what_was_finished(grit: Grit, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(small)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this system mounts nothing")
    try:
        fails(grit("run", *QUICK, "-o", "small/out"), 8, "No space left")
        assert (small / "out" / "config.json").is_file()
        subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True)
        assert grit("run", *QUICK, "-o", "small/out", "-q").returncode == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)


# --- attack --------------------------------------------------------------------------------------------

MODELS = """
import numpy as np
def loud(texts):
    urgent = ("now", "stuck", "help", "minutes")
    return np.array([[0.5, sum(word.lower() in urgent for word in text.split())] for text in texts])
def thin(texts):
    return [0.5] * len(texts)
def wordy(texts):
    return ["now"] * len(texts)
def sick(texts):
    return np.full((len(texts), 2), np.nan)
value = 3
"""


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (("nowhere",), 2, ("'nowhere' is no run folder",)),
        (("mine:absent",), 2, ("mine has no 'absent'",)),
        (("broken:loud",), 2, ("cannot import 'broken' (NameError: name 'undefined' is not defined)",)),
        ((":",), 2, ("give module:callable",)),
        (("mine:value",), 2, ("is int, expected a function from texts to logits",)),
        (("mine:thin",), 6, ("mine.thin fails on each of", "array [", "expected [")),
        (("mine:wordy",), 6, ("mine.wordy fails on each of",)),
        (("mine:sick",), 6, ("mine.sick fails on each of", "NaN or infinite")),
        (("mine:loud", "--model", "student"), 2, ("comes as it is: --model says nothing about it",)),
        (("mine:loud", "--show", "0"), 2, ("--show",)),
        (("mine:loud", "--show", "1", "--json"), 2, ("ask for one of them",)),
        (("mine:loud", "--attack", "std@3"), 2, ("unknown suite 'std@3'", "did you mean 'std@")),
        (("mine:loud", "--dataset", "broken.csv"), 6, ("broken.csv",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_bad_input_to_attack_is_one_line(
    grit: Grit, tmp_path: Path, words: tuple[str, ...], code: int, parts: tuple[str, ...]
) -> None:
    (tmp_path / "mine.py").write_text(MODELS)
    (tmp_path / "broken.py").write_text("undefined")
    (tmp_path / "broken.csv").write_bytes(b"text,label\ncaf\xe9,0\n")
    fails(
        grit("attack", *words, "--attack", "deepwordbug", "--n", "4", "-q", "-o", "out")
        if "--attack" not in words
        else grit("attack", *words, "-q"),
        code,
        *parts,
    )


def test_attack_prints_the_board_the_curves_and_only_when_asked_the_texts(grit: Grit, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODELS)
    words = ("attack", "mine:loud", "--attack", "deepwordbug", "--n", "8", "-o", "out")
    found = grit(*words)
    assert found.returncode == 0, found.stderr
    assert "deepwordbug.strong 8/8, done in" in found.stderr  # live progress, as plain lines
    assert "mine:loud given: robust of 8 against edits" in found.stdout and "at 1 edits" in found.stdout
    assert "[-" not in found.stdout and "\x1b" not in found.stdout
    assert (tmp_path / "out" / "curves.svg").read_text().startswith("<svg")
    shown = grit(*words, "--show", "2")  # goes on where it ended: nothing is attacked again
    assert shown.returncode == 0 and "8/8" not in shown.stderr
    marked = [line for line in shown.stdout.splitlines() if "[-" in line and "{+" in line]
    assert 1 <= len(marked) <= 2
    after = [line.split("[-")[0].strip() for line in marked]
    texts = "".join(
        file.read_text(errors="replace")
        for file in (tmp_path / "out").rglob("*")
        if file.suffix != ".gz" and file.is_file()
    )
    assert not any(text and len(text) > 20 and text in texts for text in after)


def test_nan_weights_are_refused(grit: Grit, tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    assert grit("train", *QUICK, "-o", "out", "-q").returncode == 0
    (home,) = (tmp_path / "out" / "model").iterdir()
    weights = load_file(home / "model.safetensors")
    save_file({name: np.full_like(value, np.nan) for name, value in weights.items()}, home / "model.safetensors")
    (home / "artefact.safetensors").unlink()
    fails(grit("run", *QUICK, "-o", "out", "-q"), 6, "NaN")
