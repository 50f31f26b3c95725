"""The verifier: levels, verdicts and their reuse, the odds of a spot check, other machines, bad input of any kind."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from grit.bench import checkpoint, records, submission, verify
from grit.bench.evaluate import margins
from grit.bench.export import packing
from grit.bench.export.fixed import FixedArtefact
from grit.bench.sentence import Text
from grit.bench.statistics import spot_detection, upper_bound
from grit.bench.submission import Bundle, Entry
from grit.bench.types import Edit, GritError, MalformedInput, SandboxViolation, Threat, UsageError
from grit.bench.verify import Setting

sys.path.append(str(Path(__file__).parent))

import golden_bundles as corpus
from golden_bundles import apart, by_chance, graph, hide, honest, of, put_together, sealed

REPLAY = Setting(respond=verify.unguarded)


def checked(files: corpus.Files, **changes: Any) -> verify.Report:
    return verify.verify(of(files), dataclasses.replace(REPLAY, **changes))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bundles") / "row"
    submission.write(place, honest())
    return place


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def grit(*words: str) -> Done:
    """A command, in this process."""
    from grit.bench.cli import main

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(list(words))
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


# --- levels -----------------------------------------------------------------------------------------


def test_each_level_makes_the_checks_of_the_ones_before() -> None:
    made = [set(checked(honest(), level=level, nonce="x").checks) for level in ("lint", "replay", "spot")]
    assert made[0] < made[1] < made[2]
    assert {"layout", "hashes", "schema", "evidence"} <= made[0]
    assert {"threat", "breaks", "totals", "selection"} <= made[1] - made[0]
    assert made[2] - made[1] == {"twin", "spot"}


def test_a_finding_ends_the_work_after_its_stage() -> None:
    report = checked({**honest(), submission.SUMS: b"nothing\n"})
    assert report.code == 6
    assert "schema" not in report.checks


def test_the_gravest_finding_decides() -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["record"]["suite"] = "std@9+thesaurus"  # could not measure
        tree["record"]["clean"]["k"] -= 1  # false

    report = checked(put_together(apart(corpus.edited(honest(), change)), recount=False))
    assert {finding.code for finding in report.findings} == {1, 4}
    assert (report.code, report.says) == (1, "refuted")


def test_a_report_holds_few_reasons_of_a_kind() -> None:
    parts = apart(honest())
    for id in parts.attacks[corpus.PWWS]:
        parts.outcome(corpus.PWWS, id, words=99)
    report = checked(put_together(parts))
    assert [finding.check for finding in report.findings] == ["words"] * 5
    assert "and 25 more like it" in report.findings[-1].reason


def test_reasons_cannot_move_a_terminal() -> None:
    files = sealed({**honest(), "evidence/\x1b[2J\n\u202e.jsonl.gz": b""})
    (finding,) = checked(files).findings
    assert finding.reason.isprintable()


def test_a_spot_check_of_nothing_is_a_mistake_of_the_user() -> None:
    with pytest.raises(UsageError, match="0 survivors"):
        checked(honest(), level="spot", spot=0)


# --- the model sees texts only --------------------------------------------------------------------------


def test_texts_are_shuffled_and_carry_no_ids_and_no_labels() -> None:
    seen: list[list[str]] = []

    def respond(artefact: Path, texts: Any) -> verify.Answered:
        seen.append(list(texts))
        assert {file.name for file in artefact.parent.iterdir()} == {
            "artefact.safetensors",
            "model.safetensors",
            "config.json",
            "vocabulary.txt",
        }
        return verify.unguarded(artefact, texts)

    for nonce in ("a", "b"):
        assert checked(honest(), respond=respond, nonce=nonce).code == 0
    first, _, second, _ = seen
    assert sorted(first) == sorted(second)
    assert first != second != sorted(first)
    ids = set(apart(honest()).clean)
    assert not any(id in text for text in first for id in ids)


def test_a_model_is_run_in_the_sandbox_unless_told_otherwise(bundle: Path) -> None:
    assert Setting().respond == verify.Sandboxed("rlimits")
    done = grit("verify", str(bundle), "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert any("sandbox mode" in note and "none" not in note for note in report["notes"])
    assert report["key"]["sandbox"] == "rlimits"


def test_a_graph_is_attacked_in_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    from grit.bench import sandbox

    report = verify.verify(of(graph()), Setting(level="spot", spot=2, nonce="x"))
    assert report.code == 0, report.findings
    assert any("sandbox mode" in note for note in report.notes)
    assert not any("mode none" in note for note in report.notes)

    def misbehaves(session: sandbox.Session, outputs: object, feed: object) -> Any:
        session.failure = SandboxViolation("the model asked for the network")
        raise session.failure

    monkeypatch.setattr(sandbox.Session, "run", misbehaves)
    report = verify.verify(of(graph()), Setting(level="spot", spot=2, nonce="x"))
    assert (report.code, report.findings[0].check) == (5, "spot")


def test_what_is_too_weak_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    report = verify.verify(of(honest()), Setting(respond=verify.Sandboxed("bubblewrap")))
    assert (report.code, report.key.sandbox) == (4, "bubblewrap")
    assert "bwrap is not installed" in report.findings[0].reason


# --- spot: odds and floor -------------------------------------------------------------------------------


def test_tampering_is_caught_as_often_as_theory_says() -> None:
    """Over nonces, a sample of m hits one of the false survivors, a share f of them, with 1 - (1 - f)^m.

    A sample is drawn without putting back, which hits a little more often: exactly as the hypergeometric law says.
    """
    ids, nonces = [f"{number:016x}" for number in range(1000)], 400
    shares, sizes = (0.01, 0.03, 0.10), (10, 30, 100)
    false = {share: set(random.Random(3).sample(ids, int(share * len(ids)))) for share in shares}
    caught = dict.fromkeys(((share, m) for share in shares for m in sizes), 0)
    for k in range(nonces):
        order = verify.spot.drawn("0" * 64, f"night {k}", ids, max(sizes))
        for share, m in caught:
            caught[share, m] += not false[share].isdisjoint(order[:m])
    for (share, m), times in caught.items():
        theory, honest_ones = spot_detection(share, m), len(ids) - len(false[share])
        exactly = 1 - math.comb(honest_ones, m) / math.comb(len(ids), m)
        spread = math.sqrt(exactly * (1 - exactly) / nonces)
        assert abs(times / nonces - exactly) <= 4 * spread + 1e-9, (share, m)
        assert theory <= exactly <= theory + 0.03, (share, m)


def test_every_survivor_is_as_likely_to_be_drawn() -> None:
    ids = [f"{number:016x}" for number in range(40)]
    counts = dict.fromkeys(ids, 0)
    for k in range(2000):
        for id in verify.spot.drawn("0" * 64, str(k), ids, 10):
            counts[id] += 1
    assert max(abs(count - 500) for count in counts.values()) < 5 * math.sqrt(2000 * 0.25 * 0.75)


def test_the_draw_depends_on_bundle_and_nonce() -> None:
    ids = [f"{number:016x}" for number in range(200)]
    draws = {tuple(verify.spot.drawn(digest * 64, nonce, ids, 20)) for digest in "01" for nonce in ("a", "b")}
    assert len(draws) == 4


def test_a_hidden_break_is_caught_exactly_when_it_is_drawn() -> None:
    parts, id = corpus._hidden()
    files = put_together(parts)
    survivors = parts.survivors()
    verdicts = set()
    nonces = [f"n{k}" for k in range(200)]
    drawn = {nonce: verify.spot.drawn(of(files).digest, nonce, survivors, 1)[0] == id for nonce in nonces}
    for nonce in (next(n for n in nonces if drawn[n]), next(n for n in nonces if not drawn[n])):
        report = checked(files, level="spot", spot=1, nonce=nonce)
        assert (report.code == 1) == drawn[nonce]
        assert bool(report.hits) == drawn[nonce]
        assert (report.floor is None) == drawn[nonce]
        verdicts.add(report.code)
    assert verdicts == {0, 1}


def test_a_hit_is_evidence_that_a_challenge_takes(tmp_path: Path) -> None:
    from grit.bench import challenge

    parts, id = corpus._hidden()
    report = checked(put_together(parts), level="spot", spot=99)
    lines = sorted({json.loads(line)["id"]: line for line in report.hits}.values())
    (tmp_path / "hits.jsonl.gz").write_bytes(records.compress("".join(f"{line}\n" for line in lines).encode()))
    ruling, _ = challenge.challenge(of(put_together(parts)), tmp_path / "hits.jsonl.gz", REPLAY)
    assert id in ruling.upheld


def test_the_floor_is_the_claim_times_what_the_sample_leaves() -> None:
    report = checked(honest(), level="spot", spot=2, nonce="x")
    worst = of(honest()).submission.record.worst
    assert report.floor is not None
    assert report.floor.drawn == 2
    assert report.floor.bound == upper_bound(0, 2, 0.95)
    assert report.floor.verified == pytest.approx(worst.low / worst.n * (1 - report.floor.bound))


def test_all_survivors_attacked_again_leave_no_doubt() -> None:
    report = checked(honest(), level="spot", spot=1000)
    assert report.floor is not None
    assert report.floor.bound == 0.0


def test_the_float_weights_are_tied_to_the_deployed_bytes() -> None:
    assert any("bit for bit" in note for note in checked(honest(), level="spot", spot=1).notes)


# --- verdict.json ---------------------------------------------------------------------------------------


def test_a_verdict_is_used_again_only_where_every_field_of_its_key_matches(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "verdict.json"
    setting = dataclasses.replace(REPLAY, level="lint")
    first, reused = verify.verify_path(bundle, setting, file)
    assert not reused
    again, reused = verify.verify_path(bundle, setting, file)
    assert reused
    assert again == first
    for change in (
        {"bundle_sha256": "0" * 64},
        {"verifier": "0.0.1"},
        {"versions": {"numpy": "1.0"}},
        {"suite_sha256": "0" * 64},
        {"data_revision": "0" * 64},
        {"level": "replay"},
        {"pool_sha256": "0" * 64},
        {"sandbox": "none"},
        {"nonce": "y"},
        {"spot": 3},
    ):
        stale = msgspec.structs.replace(first, key=msgspec.structs.replace(first.key, **change), says="believe me")
        file.write_bytes(verify.encode(stale))
        found, reused = verify.verify_path(bundle, setting, file)
        assert not reused, change
        assert found.says == "verified"


def test_a_verdict_that_came_with_the_bundle_is_not_believed() -> None:
    files = {**corpus.GOLDEN["an edited outcome"].build(), submission.VERDICT: verify.encode(checked(honest()))}
    assert checked(files).code == 1  # type: ignore[arg-type]  # files, by name


def test_a_damaged_verdict_is_one_clear_line(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text("{}")
    with pytest.raises(MalformedInput, match=r"v\.json"):
        verify.verify_path(bundle, REPLAY, tmp_path / "v.json")


def test_badges() -> None:
    good = checked(honest())
    assert verify.verdict.badge(good, good.key) == "current"
    assert verify.verdict.badge(good, msgspec.structs.replace(good.key, verifier="9.9")) == "stale"
    lowered = msgspec.structs.replace(good, lowered=records.Robust(low=1, high=1, n=30))
    assert verify.verdict.badge(lowered, good.key) == "challenged"
    assert verify.verdict.badge(msgspec.structs.replace(good, code=1), good.key) == "refuted"
    assert verify.verdict.badge(msgspec.structs.replace(good, code=4), good.key) == "unverified"


def test_a_verdict_reads_back() -> None:
    report = checked(honest())
    assert verify.decode(verify.encode(report), "x") == report


# --- other machines -------------------------------------------------------------------------------------

OTHER_MACHINES = {
    "two threads": {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    "old kernels": {
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ATEN_CPU_CAPABILITY": "default",
    },
}


def floating() -> corpus.Files:
    """A row whose deployed bytes are the float weights: what it claims is what they answer on this machine."""
    parts = apart(honest())
    with tempfile.TemporaryDirectory() as place:
        for name, data in parts.model.items():
            Path(place, name).write_bytes(data)
        program = checkpoint.load_model(Path(place)).program()
    assert program is not None
    parts.model["artefact.safetensors"] = packing.pack(program)
    for id, line in parts.clean.items():
        logits = corpus.answers(parts, corpus.texts()[id])
        parts.clean[id] = msgspec.structs.replace(
            line, predicted=int(logits.argmax()), margin=float(margins(logits[None], line.label)[0])
        )
        assert parts.clean[id].right == line.right
    for name, outcomes in parts.attacks.items():
        for id, outcome in list(outcomes.items()):
            if outcome.script:
                text = Text(corpus.texts()[id], Threat()).apply(outcome.script)
                logits, label = corpus.answers(parts, text), parts.clean[id].label
                answered = {"predicted": int(logits.argmax()), "margin": float(margins(logits[None], label)[0])}
                parts.outcome(name, id, outcome="survived" if logits.argmax() == label else "broken", **answered)
                if logits.argmax() == label and outcome.outcome == "broken":
                    parts.standing(id)  # a tie of the integers that the floats decide otherwise
            elif outcome.outcome == "survived":
                parts.outcome(name, id, margin=parts.clean[id].margin)
    artefact = msgspec.structs.replace(parts.claim.record.artefact, logit_tolerance=1e-3)
    parts.claim = msgspec.structs.replace(
        parts.claim,
        determinism=submission.Determinism(exact=False, logit_tolerance=1e-3),
        record=msgspec.structs.replace(parts.claim.record, artefact=artefact),
    )
    return put_together(parts)


@pytest.mark.parametrize("name", OTHER_MACHINES)
def test_bundles_verify_on_other_machines(name: str, bundle: Path, tmp_path: Path) -> None:
    """Exact ones bit for bit, attacked again with the same traces; those of floats within their tolerance."""
    submission.write(tmp_path / "floats", floating())
    code = (
        "import sys; from pathlib import Path; from grit.bench import submission, verify\n"
        "for path, level in zip(sys.argv[1:], ('spot', 'replay')):\n"
        "    setting = verify.Setting(level=level, respond=verify.unguarded, spot=3, nonce='x')\n"
        "    print(verify.verify(submission.read_bundle(Path(path)), setting).findings)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle), str(tmp_path / "floats")],
        capture_output=True,
        text=True,
        env={**os.environ, **OTHER_MACHINES[name]},
        check=False,
    )
    assert done.stdout.split() == ["()", "()"], done.stdout + done.stderr


def test_bundles_are_bit_exact_under_the_engine_c() -> None:
    """The program compiled for this machine answers for the numpy that made the claim."""
    from grit.bench.export import words
    from grit.bench.export.c.compiled import CompiledArtefact

    def compiled(artefact: Path, texts: Any) -> verify.Answered:
        program = packing.artefact(artefact.read_bytes())
        assert isinstance(program, FixedArtefact)
        return verify.Answered(words.answer(CompiledArtefact(program), texts), "none", "")

    report = checked(honest(), respond=compiled)
    if report.code == 4:
        pytest.skip(report.findings[0].reason)
    assert report.code == 0, report.findings


def _inexact(noise: float) -> tuple[corpus.Files, Callable[[], verify.Respond]]:
    """A row whose logits are only good to 1e-3, on a machine that answers with so much noise."""
    about = json.loads(graph()["model/tokenizer.json"])
    parts = apart(graph(tokenizer_json=json.dumps({**about, "exact": False}).encode()))
    parts.claim = msgspec.structs.replace(
        parts.claim,
        determinism=submission.Determinism(exact=False, logit_tolerance=1e-3),
        record=msgspec.structs.replace(
            parts.claim.record, artefact=msgspec.structs.replace(parts.claim.record.artefact, logit_tolerance=1e-3)
        ),
    )

    def elsewhere() -> verify.Respond:
        chance = np.random.default_rng(5)

        def respond(artefact: Path, texts: Any) -> verify.Answered:
            answered = verify.unguarded(artefact, texts)
            return answered._replace(logits=answered.logits + chance.uniform(-noise, noise, answered.logits.shape))

        return respond

    return put_together(parts, recount=False), elsewhere


def test_inexact_bundles_verify_within_their_tolerance() -> None:
    files, elsewhere = _inexact(5e-4)
    assert checked(files, respond=elsewhere()).code == 0
    files, elsewhere = _inexact(0.05)
    report = checked(files, respond=elsewhere())
    assert report.code == 1
    assert {"clean", "breaks"} <= {finding.check for finding in report.findings}


# --- quick, and without what it does not need --------------------------------------------------------------

HEAVY = ("torch", "pandas", "onnx", "onnxruntime", "textattack", "transformers")


@pytest.mark.parametrize("level", ["lint", "replay"])
def test_neither_torch_nor_an_attack_library_is_imported(level: str, bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from grit.bench import verify, submission\n"
        f"setting = verify.Setting(level={level!r}, respond=verify.unguarded)\n"
        f"assert verify.verify(submission.read_bundle(Path({str(bundle)!r})), setting).code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the command line -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("good archive", ["lint"], 0),
        ("good archive", ["verify", "--sandbox", "none"], 0),
        ("an edited outcome", ["verify", "--sandbox", "none"], 1),
        ("an edited outcome", ["lint"], 0),
        ("an unknown key", ["lint"], 6),
        ("another revision of the data", ["verify", "--sandbox", "none"], 4),
        ("zip slip", ["verify"], 6),
    ],
)
def test_exit_codes(name: str, words: list[str], code: int, tmp_path: Path) -> None:
    built = corpus.GOLDEN[name].build()
    (tmp_path / "row.tar").write_bytes(built if isinstance(built, bytes) else submission.archive(dict(built)))
    done = grit(words[0], str(tmp_path / "row.tar"), *words[1:], "--json")
    assert done.returncode == code, done.stderr
    assert json.loads(done.stdout)["code"] == code


def test_people_read_the_verdict_and_the_reason(bundle: Path) -> None:
    text = verify.render(checked(corpus.GOLDEN["an edited outcome"].build()))  # type: ignore[arg-type]  # files
    assert text.startswith("refuted: bundle ")
    assert "nearest miss breaks it" in text
    text = verify.render(checked(honest(), level="spot", spot=2))
    assert "verified floor" in text


def test_no_bundle_at_all(tmp_path: Path) -> None:
    done = grit("verify", str(tmp_path / "nonesuch"))
    assert (done.returncode, done.stderr.count("\n")) == (6, 1)


# --- the shape of weights -------------------------------------------------------------------------------


def _safetensors(header: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _tensor(kind: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"a": {"dtype": kind, "shape": list(shape), "data_offsets": list(offsets)}}


def test_whole_weights_are_read() -> None:
    assert verify.lint.tensors(_safetensors(_tensor(), bytes(8)), "w") == {"a": (2,)}
    assert verify.lint.tensors(_safetensors({"__metadata__": {"format": "pt"}}), "w") == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        _safetensors(b"{"),
        _safetensors(b"[]"),
        _safetensors(b'{"a":1,"a":1}'),
        _safetensors(b"{" + b'"a":{' * 5000),
        _safetensors({"__metadata__": {"x": 1}}),
        _safetensors({"a": {}}),
        _safetensors(_tensor("F128"), bytes(8)),
        _safetensors(_tensor(shape=(3,)), bytes(8)),
        _safetensors(_tensor(shape=(-1, -2)), bytes(8)),
        _safetensors(_tensor(shape=(2.0,)), bytes(8)),
        _safetensors(_tensor(shape=(True,) * 2), bytes(8)),
        _safetensors(_tensor(offsets=(4, 12)), bytes(12)),
        _safetensors(_tensor(offsets=(0, 8, 8)), bytes(8)),
        _safetensors(_tensor(), bytes(4)),
        _safetensors(_tensor(), bytes(12)),
        _safetensors(_tensor(shape=(1 << 40, 1 << 40)), bytes(8)),
        _safetensors(_tensor(), np.array([0, np.inf], "<f4").tobytes()),
        (1 << 63).to_bytes(8, "little") + bytes(64),
    ],
)
def test_other_weights_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedInput, match=r"^w"):
        verify.lint.tensors(data, "w")


# --- bad input of any kind --------------------------------------------------------------------------------

_TOKENS = (b"NaN", b"1e999", b"-1", b"null", b"[]", b"{}", b'""', b"\xff\xfe", b"\\ud800", b"9" * 400, b"\0", b"true")
_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 10**12, 2**63, 1e300, "", "x" * 5000, "\ud7ff\u202e\x1b[31m", "../../x", [], {}, [[]], {"a": 1},
    "0" * 64, "default", "thesaurus", "std@1+", ":", "%", [1, 2, 3], 0.5, "textattack:pwws", "hotflip.",
)  # fmt: skip


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A few flips, cuts, copies and insertions."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(found) + 1)
        match chance.randrange(6):
            case 0 if at < len(found):
                found[at] ^= 1 << chance.randrange(8)
            case 1:
                del found[at : at + chance.choice((1, 2, 8, 100))]
            case 2:
                found[at:at] = chance.choice(_TOKENS)
            case 3:
                found[at:at] = found[at : at + chance.choice((1, 8, 100))]
            case 4:
                found = found[:at] if chance.random() < 0.2 else found
            case _:
                found[at : at + 4] = chance.randbytes(4)
    return bytes(found)


def odd_tree(tree: Any, chance: random.Random) -> Any:
    """A JSON tree with one value, anywhere, of another kind."""
    if chance.random() < 0.15 or not isinstance(tree, dict | list) or not tree:
        return chance.choice(_ODD)
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = chance.choice(keys)
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[key] = odd_tree(tree[key], chance)  # type: ignore[call-overload]  # a key of that very container
    return copy


def _refuses(read: Callable[[bytes], object], data: bytes) -> None:
    try:
        read(data)
    except MalformedInput:
        pass  # anything else that is raised fails the test


READERS: dict[str, tuple[Callable[[], bytes], Callable[[bytes], object]]] = {
    "submission.json": (lambda: honest()[submission.SUBMISSION], submission.decode),
    "evidence lines": (
        lambda: records.encode_outcomes(of(honest()).evidence.attacks[corpus.PWWS]),
        lambda data: records.decode_outcomes(data, "x"),
    ),
    "clean lines": (
        lambda: records.encode_clean(of(honest()).evidence.clean),
        lambda data: records.decode_clean(data, "x"),
    ),
    "packed evidence": (
        lambda: honest()["evidence/clean.jsonl.gz"],
        lambda data: records.decompress(data, "x", 1 << 20),
    ),
    "weights": (lambda: honest()["model/model.safetensors"], lambda data: verify.lint.tensors(data, "x")),
    "headers of weights": (
        lambda: _safetensors({"__metadata__": {"format": "pt"}, **_tensor()}, bytes(8)),
        lambda data: verify.lint.tensors(data, "x"),
    ),
    "programs": (lambda: honest()["model/artefact.safetensors"], packing.unpack),
    "archives": (
        lambda: submission.archive({"a": b"x" * 700, "model/b": b""}),
        lambda data: list(submission._unpacked(data, Path("x"))),
    ),
    "verdicts": (lambda: verify.encode(checked(honest(), level="lint")), lambda data: verify.decode(data, "x")),
}


def fuzz_reader(name: str, count: int, seed: int) -> None:
    good, read = READERS[name]
    data, chance = good(), random.Random(seed)
    read(data)
    for _ in range(count):
        _refuses(read, mutated(data, chance))


@pytest.mark.parametrize("name", READERS)
def test_readers_refuse_cleanly(name: str) -> None:
    fuzz_reader(name, 300, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_readers_refuse_cleanly_at_length(name: str) -> None:
    fuzz_reader(name, 12_000, seed=2)


def fuzz_graphs(count: int, seed: int) -> None:
    from grit.bench.export import onnx

    files = of(graph()).model
    chance = random.Random(seed)
    for _ in range(count):
        name = chance.choice(("model.onnx", "model.onnx", "tokenizer.json", "vocabulary.txt"))
        _refuses(lambda data, name=name: onnx.describe({**files, name: data}), mutated(files[name], chance))


def test_graphs_are_refused_cleanly() -> None:
    fuzz_graphs(100, seed=1)


@pytest.mark.long
def test_graphs_are_refused_cleanly_at_length() -> None:
    fuzz_graphs(5000, seed=2)


def fuzz_claims(count: int, seed: int) -> None:
    """Any value of submission.json of another kind, sums and card made to fit: replay ends with a verdict."""
    tree, chance = json.loads(honest()[submission.SUBMISSION]), random.Random(seed)
    for _ in range(count):
        odd = odd_tree(tree, chance)
        files = honest()
        try:
            data = msgspec.json.format(msgspec.json.encode(odd, order="sorted"), indent=1) + b"\n"
        except UnicodeEncodeError:
            continue
        files[submission.SUBMISSION] = data
        try:
            files[submission.CARD] = submission.card(submission.decode(data)).encode()
        except MalformedInput:
            pass
        report = checked(sealed(files))
        assert report.code in (0, 1, 4, 6), (report.findings, odd)


def test_claims_of_any_kind_end_in_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    _read_once(monkeypatch)
    fuzz_claims(40, seed=1)


@pytest.mark.long
def test_claims_of_any_kind_end_in_a_verdict_at_length(monkeypatch: pytest.MonkeyPatch) -> None:
    _read_once(monkeypatch)
    fuzz_claims(2000, seed=2)


def fuzz_scripts(count: int, seed: int) -> None:
    """Edit scripts of any kind, totals made to fit: replay ends with a verdict."""
    chance = random.Random(seed)
    words = ("now", "", "a b", "\u00e9", "x" * 3000, "\u202e", "'", "7", "\ud7ff", "now\u0301", "[UNK]")
    for _ in range(count):
        parts = apart(honest())
        for attack in parts.attacks:
            id = chance.choice(sorted(parts.attacks[attack]))
            outcome = parts.attacks[attack][id]
            places = sorted(chance.sample(range(outcome.words), min(outcome.words, chance.randrange(1, 4))))
            ops = [chance.choice(("replace", "insert", "delete")) for _ in places]
            script = tuple(
                Edit(op, at, "" if op == "delete" else chance.choice(words))  # type: ignore[arg-type]  # one of three
                for op, at in zip(ops, places, strict=True)
            )
            kind = chance.choice(("broken", "survived", "error"))
            parts.outcome(
                attack, id, outcome=kind, script=script, predicted=chance.choice((-1, 0, 1, 99)), trace="0" * 64
            )
        try:
            files = put_together(parts)
        except (GritError, ValueError):
            continue
        assert checked(files).code in (0, 1, 4, 6)


def test_scripts_of_any_kind_end_in_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    _read_once(monkeypatch)
    fuzz_scripts(25, seed=1)


def _read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import functools

    from grit.bench import datasets

    monkeypatch.setattr(datasets, "load", functools.cache(datasets.load))


def test_entries_of_any_kind_end_in_a_verdict() -> None:
    chance = random.Random(9)
    names = (
        "submission.json",
        "SHA256SUMS",
        "../x",
        "model/model.onnx",
        "evidence/clean.jsonl.gz",
        "a\0b",
        "",
        "README.md",
    )
    for _ in range(200):
        entries = tuple(
            Entry(chance.choice(names), chance.choice(("file", "link", "other")), chance.choice((0, 7, 1 << 50)), b"PK")
            for _ in range(chance.randrange(6))
        )
        assert verify.verify(Bundle("x", entries), REPLAY).code == 6


def test_nothing_in_an_honest_row_by_chance_is_refused() -> None:
    assert checked(by_chance()).code == 0
    parts = apart(by_chance())
    hidden = parts.of_kind(corpus.RANDOM, "broken")
    if hidden:
        hide(parts, corpus.RANDOM, hidden[0])
        assert checked(put_together(parts), level="spot").code == 1
