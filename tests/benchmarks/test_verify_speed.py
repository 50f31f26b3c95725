"""How long a reviewer waits: lint and replay of a bundle of 1,000 examples under the three attacks of the suite.

The bundle is put together without a search: an untrained student, texts of forty words, and for every example and
attack a script that the attack's threat allows, answered by the deployed bytes. To a verifier it is like any other, and
its scripts are longer than those of a real search. Time is of the processor, start of the interpreter included, in one
thread and with torch and TextAttack out of reach.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent))

from golden_bundles import Files, apart, honest, put_together

from grit.bench import checkpoint, datasets, lexicons, records, registry, submission
from grit.bench.evaluate import margins
from grit.bench.export import build, packing, words
from grit.bench.sentence import Text
from grit.bench.types import Edit, Outcome, Script, Threat

pytestmark = pytest.mark.benchmark
N, LABELS = 1000, ("a", "b", "c", "d")
REPLAY_S, LINT_S = 10.0, 1.0
BLOCKED = ("torch", "textattack", "transformers", "onnx", "onnxruntime", "pandas", "scipy")


def _texts(count: int, chance: random.Random) -> list[str]:
    """Three sentences of the embedded corpus each, as long together as a piece of news."""
    pings = [example.text for example in datasets.load("pings").train]
    return [" ".join(chance.sample(pings, 3)) for _ in range(count)]


def _script(text: Text, chance: random.Random) -> Script:
    """As many changes as the threat allows, at places drawn by chance."""
    places = [index for index in range(len(text.words)) if text.candidates(index)]
    chosen = sorted(chance.sample(places, min(len(places), chance.randint(1, text.max_edits))))
    script = tuple(Edit("replace", index, chance.choice(text.candidates(index))) for index in chosen)
    return script if text.violation(script) is None else script[:1]


def thousand(folder: Path) -> Files:
    """The bundle; its data is written to the folder, under the name ``thousand``."""
    chance = random.Random(0)
    splits = {"train": _texts(2000, chance), "dev": _texts(200, chance), "test": _texts(N, chance)}
    student = registry.load("models", "student")
    config = student.Config(embedding_std=2.0)  # wide, so that words matter although nothing was learned
    model = student.build(config, splits["train"], len(LABELS), 0).eval()
    first = packing.artefact(build.deployed(model, splits["train"][:200]))
    model.head_bias.data -= torch.tensor(words.answer(first, splits["train"]).mean(axis=0), dtype=torch.float32)
    data = build.deployed(model, splits["train"][:200])
    artefact = packing.artefact(data)
    (folder / "thousand").mkdir()
    for split, texts in splits.items():
        rows = [
            {"text": text, "label": LABELS[(int(row.argmax()) + (chance.random() < 0.1)) % len(LABELS)]}
            for text, row in zip(texts, words.answer(artefact, texts), strict=True)
        ]
        (folder / "thousand" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = datasets.load("thousand")
    parts = apart(honest())
    examples = {example.id: example for example in datasets.subset(dataset.test, N, dataset.name)}
    clean = records.clean_lines(list(examples.values()), words.answer(artefact, [e.text for e in examples.values()]))
    parts.clean = {line.id: line for line in clean}
    standing = dict(parts.clean)
    for part in parts.claim.record.attacks:
        threat = msgspec.convert(part.threat, Threat)
        lexicon = lexicons.load(threat.lexicon)
        sentences = {id: Text(examples[id].text, threat, lexicon, stop_words=lexicons.stop_words()) for id in standing}
        scripts = {id: _script(text, chance) for id, text in sentences.items()}
        logits = words.answer(artefact, [sentences[id].apply(scripts[id]) for id in standing])
        found = parts.attacks[part.name] = {}
        for (id, line), row in zip(list(standing.items()), logits, strict=True):
            kind = "skipped" if not line.right else "survived" if int(row.argmax()) == line.label else "broken"
            found[id] = Outcome(id, kind, words=len(sentences[id].words))  # type: ignore[arg-type]  # one of three
            if kind != "skipped":
                margin = float(margins(row[None], line.label)[0])
                parts.outcome(
                    part.name, id, script=scripts[id], predicted=int(row.argmax()), margin=margin, queries=50,
                    trace="0" * 64,
                )  # fmt: skip
            if kind != "survived":
                del standing[id]
    checkpoint.save_model(model, folder / "saved", LABELS)
    parts.model = {name.partition("/")[2]: (folder / "saved" / Path(name).name).read_bytes() for name in
                   submission.WEIGHTS} | {"artefact.safetensors": data}  # fmt: skip
    said = {"name": dataset.name, "revision": dataset.revision, "licence": dataset.licence}
    counts = (parts.claim.record.data.n, *[0] * (len(dataset.labels) - 1))  # all is counted again at the end
    parts.part("data", **said, labels=dataset.labels, label_counts=counts, selection="all", notes=dataset.notes)
    parts.part("training", data=said["name"], n_train=2000, **{k: said[k] for k in ("revision", "licence")})
    parts.part("model", name="student", config=records.plain(config), repr=repr(config))
    return put_together(parts)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIT_DATA", str(folder))
        submission.write(folder / "row", thousand(folder))
    return folder / "row"


def grit(bundle: Path, *words: str) -> tuple[float, Mapping[str, Any]]:
    """Seconds of the processor, in this process and all it starts, and the report."""
    block = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED!r}))\nfrom grit.bench.cli import main; main()"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", block, words[0], str(bundle), *words[1:], "--json"],
        capture_output=True,
        env={**os.environ, "GRIT_DATA": str(bundle.parent), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, json.loads(done.stdout)


def test_lint(benchmark: Any, bundle: Path) -> None:
    spent, _ = benchmark(grit, bundle, "lint")
    benchmark.extra_info["processor_s"] = round(spent, 3)
    assert spent < LINT_S


def test_replay(benchmark: Any, bundle: Path) -> None:
    """In the sandbox, as a reviewer does it."""
    spent, report = benchmark(grit, bundle, "verify")
    benchmark.extra_info["processor_s"] = round(spent, 3)
    assert spent < REPLAY_S
    assert "company" in report["checks"]
    record = submission.read_bundle(bundle).submission.record
    assert record.clean.n == N
    assert sum(part.success.n for part in record.attacks) > 2 * N
