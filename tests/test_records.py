"""Records and evidence: what is counted, that it survives the disk, and that nothing odd is read back."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.bench import machine, records
from grit.bench.types import Edit, Example, MalformedInput, Outcome, StorageError, Threat

SHA = "5f" * 32
NAMES = ("deepwordbug.strong", "pwws.strong+thesaurus")


@dataclass(frozen=True)
class Poke:
    """An attack's parameters; it attacks nobody."""

    beam: int = 3
    threat: Threat = field(default_factory=Threat)


def id_of(number: int) -> str:
    return f"{number:016x}"


def survived(number: int, **fields: Any) -> Outcome:
    return Outcome(id_of(number), "survived", **{"predicted": 0, "margin": -0.5, "queries": 4, "words": 9, **fields})


def broken(number: int, edits: int = 1, **fields: Any) -> Outcome:
    script = tuple(Edit("replace", place, f"word{place}") for place in range(edits))
    return Outcome(
        id_of(number), "broken", script, **{"predicted": 1, "margin": 0.25, "queries": 7, "words": 9, **fields}
    )


def skipped(number: int) -> Outcome:
    return Outcome(id_of(number), "skipped", predicted=1, margin=1.5, words=9)


def failed(number: int) -> Outcome:
    return Outcome(id_of(number), "error", queries=2, words=9, reason="the attack raised ValueError: no")


def clean(number: int, right: bool = True) -> records.Clean:
    return records.Clean(id=id_of(number), label=0, predicted=0 if right else 1, margin=-1.0 if right else 1.0)


def evidence_of(*rows: tuple[Outcome, Outcome]) -> records.Evidence:
    """Two attacks over the same examples."""
    first, second = zip(*rows, strict=True)
    lines = tuple(clean(at, outcome.outcome != "skipped") for at, outcome in enumerate(first))
    return records.Evidence(lines, dict(zip(NAMES, (first, second), strict=True)))


EVIDENCE = evidence_of(
    (survived(0), survived(0)),
    (broken(1), survived(1)),
    (survived(2), broken(2, edits=3, queries=40)),
    (skipped(3), skipped(3)),
    (failed(4), survived(4)),
    (broken(5, edits=2), broken(5)),
)


def record_of(evidence: records.Evidence = EVIDENCE, **changes: Any) -> records.Record:
    n = len(evidence.clean)
    data = records.DataPart(
        name="made", revision=SHA, split="test", n=n, selection="all", labels=("no", "yes"), label_counts=(n, 0)
    )
    clean_part = records.clean_part(evidence.clean, 2)
    attacks = tuple(records.attack_part(name, Poke(), outcomes) for name, outcomes in sorted(evidence.attacks.items()))
    parts: dict[str, Any] = {
        "model": records.ModelPart(name="student", config={"hidden": 5}, repr="Config(hidden=5)", parameters=100),
        "scheme": records.SchemePart(name="natural", terms=(records.TermPart(objective="task", weight=1.0),)),
        "training": records.TrainingPart(
            recipe={"epochs": 3},
            seed=0,
            epochs=3,
            best_epoch=2,
            dev_score=0.8,
            selection="accuracy on 50 dev texts",
            data="made",
            revision=SHA,
            n_train=500,
            history=(
                records.EpochPart(
                    number=1, learning_rate=1e-3, losses={"task": 0.7}, dev_accuracy=0.6, dev_attacked=None, score=0.6
                ),
            ),
        ),
        "data": data,
        "artefact": records.ArtefactPart(
            format="fixed", precision="int8", digest=SHA, sizes_bytes={"weights": 900, "words": 100}, total_bytes=1000
        ),
        "clean": clean_part,
        "attacks": attacks,
        "worst": records.worst_case(evidence),
        "flags": records.flags(data, clean_part, attacks, embedded=False),
        "run": records.RunPart(created="2026-01-01T00:00:00Z", seconds={"train": 1.5}),
    }
    return records.Record(**{**parts, **changes})


# --- what is counted ----------------------------------------------------------------------------------


def test_the_counts_of_an_attack() -> None:
    part = records.attack_part(NAMES[0], Poke(), EVIDENCE.attacks[NAMES[0]], ("thesaurus", SHA))
    assert (part.robust.low, part.robust.high, part.robust.n) == (2, 3, 6)
    assert (part.success.k, part.success.n, part.skipped, part.errors) == (2, 4, 1, 1)
    assert (part.queries, part.queries_mean, part.queries_median) == (4 + 7 + 4 + 7, 5.5, 5.5)
    assert (part.edits, part.edits_mean, part.edits_median) == (3, 1.5, 1.5)
    assert part.robust_by_edits == ((0, 4), (1, 3), (2, 2))
    assert part.robust_by_queries == ((0, 4), (1, 4), (2, 4), (5, 4), (7, 2))
    assert part.parameters == {"beam": 3} and part.threat["max_queries"] == 5000
    assert (part.lexicon, part.lexicon_sha256) == ("thesaurus", SHA)


def test_an_attack_that_met_nobody() -> None:
    part = records.attack_part("a", Poke(), [skipped(0)])
    assert (part.queries_median, part.edits_median, part.robust_by_edits) == (0.0, 0.0, ((0, 0),))
    assert math.isnan(part.queries_mean) and math.isnan(part.edits_mean)


def test_parameters_are_part_of_the_digest() -> None:
    one, same, other = (
        records.attack_part("a", attack, [survived(0)]).parameters_sha256
        for attack in (Poke(), Poke(), Poke(threat=Threat(max_words=0.5)))
    )
    assert one == same != other


def test_the_worst_case_counts_an_example_once_and_an_error_never() -> None:
    assert EVIDENCE.robust() == {id_of(at): at == 0 for at in range(6)}
    worst = records.worst_case(EVIDENCE)
    assert (worst.low, worst.high, worst.n) == (1, 2, 6)


def test_an_attack_may_have_seen_only_what_still_stood() -> None:
    lines = tuple(clean(at) for at in range(3))
    evidence = records.Evidence(lines, {"a": (broken(0), survived(1), survived(2)), "b": (survived(1), broken(2))})
    worst = records.worst_case(evidence)
    assert (worst.low, worst.high) == (1, 1)
    assert [part.robust.n for part in record_of(evidence).attacks] == [3, 2]


outcome_kinds = st.lists(st.sampled_from(["survived", "broken", "error"]), min_size=1, max_size=3)


@given(st.lists(st.tuples(st.booleans(), st.tuples(*[st.sampled_from(["s", "b", "e"])] * 2)), min_size=1, max_size=30))
def test_worst_case_is_below_each_attack_and_clean(rows: list[tuple[bool, tuple[str, str]]]) -> None:
    make = {"s": survived, "b": broken, "e": failed}
    evidence = evidence_of(
        *(
            (make[a](at), make[b](at)) if right else (skipped(at), skipped(at))
            for at, (right, (a, b)) in enumerate(rows)
        )
    )
    record = record_of(evidence)  # its own checks hold these laws too
    for part in record.attacks:
        assert record.worst.low <= part.robust.low <= record.clean.k
        assert record.worst.high <= part.robust.high
        assert part.robust_by_edits[-1][1] == part.robust.low == part.robust_by_queries[-1][1]
        still = [count for _, count in part.robust_by_edits]
        assert still == sorted(still, reverse=True)


def test_clean_answers_come_from_logits() -> None:
    examples = [Example(id_of(at), "", label) for at, label in enumerate((0, 1, 0))]
    logits = np.array([[2.0, 1.0], [3.0, 0.5], [math.nan, 1.0]])
    lines = records.clean_lines(examples, logits)
    assert [(line.predicted, line.margin) for line in lines] == [(0, -1.0), (0, 2.5), (-1, None)]
    part = records.clean_part(lines, 2, logits)
    assert (part.k, part.n, part.predicted) == (1, 3, (2, 0))
    sure = [1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(-2.5))]
    assert part.calibration_error == pytest.approx(((1 - sure[0]) + sure[1]) / 2, abs=1e-6)
    assert records.clean_part(lines, 2, np.full((3, 2), math.inf)).calibration_error is None
    with pytest.raises(ValueError, match="zip"):
        records.clean_lines(examples, logits[:2])


# --- flags ----------------------------------------------------------------------------------------------


def flags_of(
    counts: tuple[int, ...], k: int, predicted: tuple[int, ...], errors: int = 0, **more: Any
) -> dict[str, str]:
    n = sum(counts)
    data = records.DataPart(
        name="d",
        revision=SHA,
        split="test",
        n=n,
        selection="all",
        labels=tuple("abc")[: len(counts)],
        label_counts=counts,
    )
    part = records.CleanPart(k=k, n=n, predicted=predicted, evidence_sha256=SHA)
    attack = records.attack_part(
        "a", Poke(), [failed(at) for at in range(errors)] + [survived(at) for at in range(errors, n)]
    )
    raised = records.flags(data, part, [attack], **{"embedded": False, **more})
    return {flag.name: flag.reason for flag in raised}


def test_an_honest_row_raises_no_flag() -> None:
    assert flags_of((500, 500), 850, (520, 480)) == {}


@pytest.mark.parametrize(
    ("arguments", "flag", "reason"),
    [
        (((500, 500), 500, (1000, 0)), "constant", "1000 of 1000 answers"),
        (((500, 500), 520, (980, 20)), "constant", "980 of 1000"),
        (((500, 500), 520, (600, 400)), "floor", "majority floor 500"),
        (((500, 500), 300, (600, 400)), "floor", "clean 300 of 1000"),
        (((500, 500), 850, (520, 480), 11), "errors", "11 errors"),
        (((400, 400), 700, (420, 380)), "small", "n = 800, ranked from 1000"),
    ],
)
def test_flags_are_raised(arguments: tuple[Any, ...], flag: str, reason: str) -> None:
    found = flags_of(*arguments)
    assert reason in found[flag]


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (((990, 10), 995, (991, 9)), "constant"),  # nearly all answers are one label, and so are the labels
        (((500, 500), 540, (600, 400)), "floor"),
        (((500, 500), 850, (520, 480), 10), "errors"),
        (((500, 500), 850, (520, 480)), "small"),
    ],
)
def test_flags_are_not_raised_on_the_near_side(arguments: tuple[Any, ...], flag: str) -> None:
    assert flag not in flags_of(*arguments)


def test_flags_that_the_caller_knows() -> None:
    assert set(flags_of((500, 500), 850, (520, 480), embedded=True, overlapping=3)) == {"embedded", "overlap"}


def test_every_flag_is_explained() -> None:
    for page in records.FLAGS.values():
        assert page.raised_if and page.means and page.do
        assert page.unranks or not page.demotes


def test_only_some_flags_keep_from_a_rank() -> None:
    record = record_of(flags=(records.FlagPart(name="weak", reason="r"), records.FlagPart(name="small", reason="s")))
    assert [flag.name for flag in record.unranked] == ["small"]


# --- a record contradicts itself: refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: records.Count(k=3, n=2), "3 of 2"),
        (lambda: records.Robust(low=3, high=2, n=5), "low <= high"),
        (
            lambda: records.ArtefactPart(format="f", precision="p", digest="d", sizes_bytes={"a": 1}, total_bytes=2),
            "add up to 1",
        ),
        (lambda: records.CostPart(target="t", engine="e", kind="measured"), "with 0 values"),
        (lambda: records.CostPart(target="t", engine="e", kind="not measured"), "reason"),
        (lambda: records.CostPart(target="t", engine="e", kind="measured", values={"p50": 1.0}), "names no unit"),
        (lambda: records.CostPart(target="t", engine="e", kind="measured", values={"p50_us": math.nan}), "is nan"),
        (lambda: records.FlagPart(name="lucky", reason=""), "unknown flag 'lucky'"),
        (lambda: record_of(worst=records.Robust(low=6, high=6, n=6)), "above clean"),
        (lambda: record_of(worst=records.Robust(low=4, high=4, n=6)), "above that of"),
        (lambda: record_of(worst=records.Robust(low=1, high=2, n=7)), "disagree on n"),
        (lambda: record_of(attacks=record_of().attacks[::-1]), "sorted"),
        (lambda: record_of(attacks=record_of().attacks * 2), "distinct"),
        (
            lambda: record_of(
                cost=(records.CostPart(target="t", engine="e", kind="measured", values={"p50_us": 1.0}),)
            ),
            "run part",
        ),
        (lambda: msgspec.structs.replace(record_of().data, label_counts=(1, 1)), "add up to 2"),
        (lambda: msgspec.structs.replace(record_of().attacks[0], skipped=0), "outcomes add up"),
        (lambda: msgspec.structs.replace(record_of().clean, k=9), "9 of 6"),
    ],
)
def test_contradictions_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built = build()
        if not isinstance(built, records.Record):  # replace() does not check; reading does
            msgspec.json.decode(records.encode(built), type=type(built))


def test_costs_are_placed_by_whether_a_clock_was_read() -> None:
    clock = records.CostPart(target="local", engine="c", kind="measured", values={"p50_us": 16.2})
    count = records.CostPart(target="emu://m4", engine="c", kind="emulated", values={"call_instructions": 3550000})
    none = records.CostPart(target="emu://a53", engine="c", kind="not measured", reason="pip install 'gritbench[arm]'")
    same, differs = records.place_costs([clock, none, count])
    assert (same, differs) == ((count,), (none, clock))
    record = record_of(cost=same, run=records.RunPart(created="now", seconds={}, cost=differs))
    assert [cell.target for cell in record.costs] == ["emu://a53", "emu://m4", "local"]


# --- JSON -----------------------------------------------------------------------------------------------------


def test_a_record_reads_back_as_written() -> None:
    record = record_of()
    line = records.encode_record(record)
    assert records.decode_record(line, "here") == record
    assert records.encode_record(records.decode_record(line, "here")) == line
    assert json.loads(line)["schema_version"] == 1
    keys = list(json.loads(line))
    assert keys == sorted(keys) and b"\n" not in line and b'": ' not in line


def test_counts_never_percentages() -> None:
    def numbers(value: Any, path: str) -> Iterator[str]:
        if isinstance(value, dict):
            for key, member in value.items():
                assert "percent" not in key and "accuracy_" not in key, path
                yield from numbers(member, f"{path}.{key}")

    assert list(numbers(json.loads(records.encode_record(record_of())), "")) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: fields.update(extra=1), "unknown field `extra`"),
        (lambda fields: fields["model"].update(extra=1), r"unknown field `extra` - at `\$.model`"),
        (lambda fields: fields.pop("data"), "missing required field `data`"),
        (lambda fields: fields["worst"].update(low="2"), "Expected `int`"),
        (lambda fields: fields["worst"].update(low=-1), ">= 0"),
        (lambda fields: fields["worst"].update(low=6, high=6), "above clean"),
        (lambda fields: fields["data"].update(revision="abc"), "matching regex"),
        (lambda fields: fields.update(schema_version=2), "Invalid value 2"),
        (lambda fields: fields.pop("schema_version"), "no schema_version"),
        (
            lambda fields: fields["model"]["config"].update(schema_version=fields.pop("schema_version")),
            "no schema_version",
        ),
        (lambda fields: fields["artefact"].update(total_bytes=5), "add up to 1000"),
    ],
)
def test_a_changed_record_is_refused(change: Any, message: str) -> None:
    fields = json.loads(records.encode_record(record_of()))
    change(fields)
    with pytest.raises(MalformedInput, match=message):
        records.decode_record(json.dumps(fields).encode(), "records.jsonl, line 1")


def test_a_number_that_is_none_is_never_written() -> None:
    training = msgspec.structs.replace(record_of().training, dev_score=math.nan)
    with pytest.raises(MalformedInput, match="dev_score"):
        records.encode_record(record_of(training=training))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.text(), json_values, max_size=4), st.text(), st.floats(0, 1), st.integers(-(2**63), 2**63 - 1)
)
def test_any_values_survive_the_round_trip(config: dict[str, Any], name: str, score: float, seed: int) -> None:
    base = record_of()
    record = msgspec.structs.replace(
        base,
        model=records.ModelPart(name=name, config=config, repr=repr(config)),
        training=msgspec.structs.replace(base.training, seed=seed, dev_score=score),
    )
    assert records.decode_record(records.encode_record(record), "here") == record


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        records.decode_record(data, "here")


@given(st.data())
def test_no_damage_to_a_record_crashes_the_reader(data: st.DataObject) -> None:
    line = bytearray(records.encode_record(record_of()))
    for _ in range(data.draw(st.integers(1, 4))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    try:
        records.decode_record(bytes(line), "here")
    except MalformedInput as error:
        assert str(error).startswith("here: ")


def test_two_runs_differ_in_the_run_part_only() -> None:
    one = record_of()
    later = msgspec.structs.replace(
        one, run=records.RunPart(created="2027-02-03T00:00:00Z", seconds={"train": 9.0}, machine={"cpu": "other"})
    )
    assert records.row_digest(one) == records.row_digest(later)
    assert records.encode_record(one).split(b'"run":')[0] == records.encode_record(later).split(b'"run":')[0]
    other = msgspec.structs.replace(one, suite="std@1")
    assert records.row_digest(other) != records.row_digest(one)


def test_every_field_of_a_dataclass_is_written_out() -> None:
    assert records.plain(Poke()) == {
        "beam": 3,
        "threat": {
            "spaces": ["synonyms"],
            "lexicon": "default",
            "max_words": 0.25,
            "typo_distance": 2,
            "protect_stop_words": True,
            "max_text_distance": None,
            "max_queries": 5000,
        },
    }


# --- schema -----------------------------------------------------------------------------------------------------


def test_the_schema_is_2020_12_and_accepts_what_is_written() -> None:
    schema = records.schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(records.encode_record(record_of())))


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(extra=1),
        lambda fields: fields["attacks"][0].update(extra=1),
        lambda fields: fields.pop("worst"),
        lambda fields: fields.pop("schema_version"),
        lambda fields: fields.update(schema_version=7),
        lambda fields: fields["clean"].update(k=-1),
        lambda fields: fields["data"].update(revision="zz"),
        lambda fields: fields["attacks"][0]["robust_by_edits"].append([1, 2, 3]),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(change: Any) -> None:
    fields = json.loads(records.encode_record(record_of()))
    change(fields)
    assert not jsonschema.Draft202012Validator(records.schema()).is_valid(fields)
    with pytest.raises(MalformedInput):
        records.decode_record(json.dumps(fields).encode(), "here")


def test_the_schema_allows_no_unknown_keys_anywhere() -> None:
    for name, part in records.schema()["$defs"].items():
        assert part["additionalProperties"] is False, name


# --- evidence ---------------------------------------------------------------------------------------------------


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    words = draw(st.integers(1, 20))
    kind = draw(st.sampled_from(["broken", "survived", "skipped", "error"]))
    script: list[Edit] = []
    if kind in ("broken", "survived"):
        for place in sorted(draw(st.sets(st.integers(0, words - 1), min_size=kind == "broken", max_size=5))):
            if draw(st.booleans()):
                script.append(Edit("insert", place, draw(st.text(max_size=6))))
            op = draw(st.sampled_from(["replace", "delete"]))
            script.append(Edit(op, place, "" if op == "delete" else draw(st.text(max_size=6))))
    reason = " ".join(draw(st.text("abc ", max_size=30)).split()) if kind == "error" else ""
    return Outcome(
        id=draw(st.from_regex("[0-9a-f]{16}", fullmatch=True)),
        outcome=kind,  # type: ignore[arg-type]
        script=tuple(script),
        predicted=draw(st.integers(-1, 9)),
        margin=draw(st.floats(allow_nan=False, allow_infinity=False)),
        queries=draw(st.integers(0, 5000)),
        gradients=draw(st.integers(0, 50)),
        cache_hits=draw(st.integers(0, 50)),
        words=words,
        trace=draw(st.sampled_from(["", SHA])),
        reason=reason,
    )


@given(st.lists(outcomes(), max_size=8, unique_by=lambda outcome: outcome.id))
def test_outcomes_survive_the_round_trip_in_order_of_id(found: list[Outcome]) -> None:
    data = records.encode_outcomes(found)
    assert records.decode_outcomes(data, "here") == tuple(sorted(found, key=lambda outcome: outcome.id))
    assert records.encode_outcomes(reversed(found)) == data
    assert records.decompress(records.compress(data), "here") == data


@given(st.lists(outcomes(), min_size=1, max_size=4, unique_by=lambda outcome: outcome.id), st.data())
def test_no_damage_to_evidence_crashes_the_reader(found: list[Outcome], data: st.DataObject) -> None:
    line = bytearray(records.encode_outcomes(found))
    line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    try:
        again = records.decode_outcomes(bytes(line), "here")
    except MalformedInput as error:
        assert str(error).startswith("here")
    else:
        assert records.encode_outcomes(again) == bytes(line)  # whatever is accepted is the canonical form


def test_margins_that_are_no_numbers_become_null() -> None:
    for margin in (math.nan, math.inf, -math.inf):
        data = records.encode_outcomes([survived(0, margin=margin)])
        assert b'"margin":null' in data
        assert math.isnan(records.decode_outcomes(data, "here")[0].margin)


def test_a_long_reason_becomes_one_short_line() -> None:
    data = records.encode_outcomes([replace(failed(0), reason="first\n  second " + "x" * 500)])
    reason = records.decode_outcomes(data, "here")[0].reason
    assert reason.startswith("first second xxx") and len(reason) == 200


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (survived(0, script=(Edit("unknown", 2),)), "is no final edit"),
        (survived(0, script=(Edit("replace", 2, "a"), Edit("replace", 1, "b"))), "not sorted"),
        (survived(0, script=(Edit("replace", 2, "a"), Edit("delete", 2))), "twice"),
        (survived(0, script=(Edit("replace", 9, "a"),)), "beyond the 9"),
        (survived(0, script=(Edit("insert", 10, "a"),)), "beyond the 9"),
        (survived(0, script=(Edit("delete", 1, "a"),)), "deletion carries a word"),
        (broken(0, edits=0), "broken without an edit"),
        (replace(skipped(0), script=(Edit("replace", 0, "a"),)), "skipped, yet edited"),
        (survived(0, reason="why not"), "reason belongs to an error"),
    ],
)
def test_outcomes_that_contradict_themselves_are_not_written(outcome: Outcome, message: str) -> None:
    with pytest.raises(MalformedInput, match=message):
        records.encode_outcomes([outcome])


def test_an_insertion_behind_the_last_word_is_legal() -> None:
    records.encode_outcomes([survived(0, script=(Edit("insert", 9, "a"),))])


def edited(change: Any) -> bytes:
    line = json.loads(records.encode_outcomes([broken(1)]))
    change(line)
    return records.encode(line) + b"\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (records.encode_outcomes([broken(1)])[:-1], "cut off"),
        (records.encode_outcomes([broken(1)])[:-9] + b"\n", "line 1: "),
        (records.encode_outcomes([broken(1)]) * 2, "out of order or there twice"),
        (records.encode_outcomes([broken(2)]) + records.encode_outcomes([broken(1)]), "line 2: id .* out of order"),
        (b"\n", "line 1"),
        (records.encode_outcomes([broken(1)]).replace(b",", b", ", 1), "canonical"),
        (records.encode_outcomes([broken(1)]).replace(b'{"', b'{"words":9,"', 1), "canonical"),
        (b'{"id":"0000000000000001"}\n', "missing required field"),
        (edited(lambda line: line.update(extra=1)), "unknown field"),
        (edited(lambda line: line.update(id="xyz")), "matching regex"),
        (edited(lambda line: line.update(outcome="won")), "Invalid enum value 'won'"),
        (edited(lambda line: line["script"].append(["unknown", 3, ""])), "Invalid enum value 'unknown'"),
        (edited(lambda line: line["script"].append(["replace", -1, "w"])), ">= 0"),
        (edited(lambda line: line["script"].append(["replace", 0, "w"])), "twice"),
        (edited(lambda line: line.update(script=[])), "without an edit"),
        (edited(lambda line: line.update(queries=1.5)), "Expected `int`"),
        (edited(lambda line: line.update(queries=-1)), ">= 0"),
        (edited(lambda line: line.update(margin="0.5")), "Expected `float"),
        (b"\xff\xfe\n", "line 1"),
        (b"[" * 100_000 + b"\n", "line 1"),
    ],
)
def test_odd_evidence_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedInput, match=message) as caught:
        records.decode_outcomes(data, "pwws.jsonl.gz")
    assert str(caught.value).startswith("pwws.jsonl.gz") and "\n" not in str(caught.value)


def test_equal_outcomes_are_equal_files(tmp_path: Path) -> None:
    shuffled = records.Evidence(
        EVIDENCE.clean[::-1], {name: found[::-1] for name, found in reversed(list(EVIDENCE.attacks.items()))}
    )
    records.write_evidence(tmp_path / "a", EVIDENCE)
    time.sleep(0.01)
    records.write_evidence(tmp_path / "b", shuffled)
    names = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert names == ["clean.jsonl.gz", "deepwordbug.strong.jsonl.gz", "pwws.strong+thesaurus.jsonl.gz"]
    for name in names:
        packed = (tmp_path / "a" / name).read_bytes()
        assert packed == (tmp_path / "b" / name).read_bytes()
        assert packed[3] == 0 and packed[4:8] == b"\0\0\0\0"  # no name, no time
        assert gzip.decompress(packed).endswith(b"\n")


def test_evidence_reads_back(tmp_path: Path) -> None:
    records.write_evidence(tmp_path, EVIDENCE)
    again = records.read_evidence(tmp_path)
    assert again.clean == EVIDENCE.clean and again.robust() == EVIDENCE.robust()
    part = records.attack_part(NAMES[0], Poke(), again.attacks[NAMES[0]])
    assert part == records.attack_part(NAMES[0], Poke(), EVIDENCE.attacks[NAMES[0]])


@pytest.mark.parametrize("name", ["textattack:textfooler", "a/../b", "a b", "ä+b", "x%3A", ".."])
def test_any_attack_has_a_safe_file_name(name: str, tmp_path: Path) -> None:
    file = records.evidence_name(name)
    assert not set(file) & set('/\\:*?"<>| ') and file.isascii()
    records.write_evidence(tmp_path, records.Evidence((clean(0),), {name: (survived(0),)}))
    assert list(records.read_evidence(tmp_path).attacks) == [name]


def test_evidence_over_other_examples_is_refused(tmp_path: Path) -> None:
    cases: list[tuple[tuple[Outcome, ...], str]] = [
        ((survived(0), survived(7)), "is not among the examples"),
        ((survived(0), skipped(1)), "answered rightly"),
        ((survived(0), survived(1), survived(2)), "answered wrongly"),
        ((survived(0),), "still stands and was not attacked"),
    ]
    for number, (found, message) in enumerate(cases):
        folder = tmp_path / str(number)
        records.write_evidence(
            folder,
            records.Evidence(
                (clean(0), clean(1), clean(2, right=False)), {"a": found, "b": (survived(0), survived(1), skipped(2))}
            ),
        )
        with pytest.raises(MalformedInput, match=message):
            records.read_evidence(folder)


def test_evidence_that_is_no_gzip_is_refused() -> None:
    packed = records.compress(b"line\n" * 50)
    for damaged, message in (
        (b"", "cut off"),
        (packed[:-1], "cut off"),
        (packed + b"x", "bytes after the end"),
        (packed[:-8] + bytes(8), "not gzip"),
        (b"PK" + packed, "not gzip"),
    ):
        with pytest.raises(MalformedInput, match=message):
            records.decompress(damaged, "file")


def test_a_bomb_is_not_unpacked() -> None:
    with pytest.raises(MalformedInput, match="more than 1000 bytes"):
        records.decompress(records.compress(bytes(50_000_000)), "file", limit_bytes=1000)


def test_missing_evidence_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*clean.jsonl.gz: No such file"):
        records.read_evidence(tmp_path)


# --- files --------------------------------------------------------------------------------------------------------


def several(count: int) -> list[records.Record]:
    return [msgspec.structs.replace(record_of(), suite=f"s{at}") for at in range(count)]


def test_records_are_appended_and_a_repeated_step_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / records.RECORDS
    first, second, third = several(3)
    for record in (first, second, third):
        records.append(path, record)
    again = msgspec.structs.replace(second, run=records.RunPart(created="later", seconds={}))
    records.append(path, again)
    assert records.read_records(path) == [first, second, third]
    assert path.read_bytes().endswith(b"}\n") and path.read_bytes().count(b"\n") == 3
    assert [file.name for file in path.parent.iterdir()] == [records.RECORDS]


@given(st.integers(0, 10_000))
def test_a_line_cut_short_by_a_kill_is_recovered(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("records") / records.RECORDS
    first, second = several(2)
    records.append(path, first)
    whole = path.read_bytes()
    line = records.encode_record(second)
    path.write_bytes(whole + line[: cut % len(line)])
    assert records.read_records(path) == [first]
    records.append(path, second)
    assert records.read_records(path) == [first, second]


def test_a_last_line_that_lacks_only_its_end_counts(tmp_path: Path) -> None:
    path = tmp_path / records.RECORDS
    path.write_bytes(records.encode_record(record_of()))
    assert records.read_records(path) == [record_of()]


def test_damage_inside_the_file_is_not_guessed_away(tmp_path: Path) -> None:
    path = tmp_path / records.RECORDS
    path.write_bytes(b'{"half": \n' + records.encode_record(record_of()) + b"\n")
    with pytest.raises(MalformedInput, match=r"records.jsonl, line 1"):
        records.read_records(path)
    with pytest.raises(MalformedInput):
        records.append(path, record_of())
    assert path.read_bytes().startswith(b'{"half"')  # untouched


WRITER = """
import sys
from pathlib import Path
from grit.bench import records
path, source = Path(sys.argv[1]), Path(sys.argv[2])
found = records.read_records(source)
print("ready", flush=True)
while True:
    for record in found:
        records.append(path, record)
        print(record.suite, flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_readable_file(tmp_path: Path) -> None:
    source, path = tmp_path / "source.jsonl", tmp_path / records.RECORDS
    source.write_bytes(b"".join(records.encode_record(record) + b"\n" for record in several(40)))
    for delay in (0.0, 0.005, 0.02, 0.05):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(source)], stdout=subprocess.PIPE)
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        said = writer.stdout.read().decode().split()
        writer.wait()
        kept = [record.suite for record in records.read_records(path)] if path.exists() else []
        assert set(said) <= set(kept)  # what was said to be written is there
        assert kept == [f"s{at}" for at in range(len(kept))]


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    records.write(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*file: File too large; free space"):
            records.write(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_any_failing_step_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    path = tmp_path / "file"
    records.write(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageError, match=os.strerror(number)) as caught:
        records.write(path, b"new")
    assert caught.value.exit_code == 8 and "\n" not in str(caught.value)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="name another folder"):
        records.write(tmp_path / "file" / "below", b"")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into read-only folders")
def test_a_read_only_folder_is_a_storage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        records.write(tmp_path / "file", b"")


def test_an_interrupt_leaves_no_part_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        records.write(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


# --- rows of a run folder -------------------------------------------------------------------------------------------


def test_rows_find_their_evidence_by_digest(tmp_path: Path) -> None:
    other = evidence_of((survived(0), survived(0)), (broken(1), broken(1)))
    with_evidence, without = record_of(), record_of(evidence_of((survived(0), broken(0))))
    for record in (with_evidence, record_of(other), without):
        records.append(tmp_path / records.RECORDS, record)
    records.write_evidence(tmp_path / "evidence" / "student", EVIDENCE)
    records.write_evidence(tmp_path / "evidence" / "other", other)
    found = [row.evidence.robust() if row.evidence else None for row in records.read_rows(tmp_path)]
    assert found == [EVIDENCE.robust(), other.robust(), None]


def test_evidence_that_was_changed_is_not_found(tmp_path: Path) -> None:
    records.append(tmp_path / records.RECORDS, record_of())
    flattering = replace(EVIDENCE.attacks[NAMES[0]][1], outcome="survived", script=())
    attacks = {
        **EVIDENCE.attacks,
        NAMES[0]: (EVIDENCE.attacks[NAMES[0]][0], flattering, *EVIDENCE.attacks[NAMES[0]][2:]),
    }
    records.write_evidence(tmp_path / "evidence", EVIDENCE._replace(attacks=attacks))
    assert records.read_rows(tmp_path)[0].evidence is None


def test_rows_with_equal_clean_answers_keep_their_own_outcomes(tmp_path: Path) -> None:
    weak = evidence_of((survived(0), survived(0)), (broken(1), survived(1)))
    strong = evidence_of((survived(0), survived(0)), (survived(1), survived(1)))
    for name, evidence in (("a", weak), ("b", strong)):
        records.append(tmp_path / records.RECORDS, record_of(evidence))
        records.write_evidence(tmp_path / "evidence" / name, evidence)
    found = [sum(row.evidence.robust().values()) for row in records.read_rows(tmp_path) if row.evidence]
    assert found == [1, 2]


# --- the machine ----------------------------------------------------------------------------------------------------


def test_facts_are_json_and_tell_no_secrets() -> None:
    facts = machine.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["cores"] >= facts.get("cores_usable", 1) >= 1
    text = json.dumps([facts, machine.versions()])
    assert str(Path.home()) not in text or len(str(Path.home())) < 3
    assert os.uname().nodename not in text


def test_versions_are_read_without_importing() -> None:
    program = (
        "import sys; from grit.bench import machine; found = machine.versions(); machine.facts();"
        "sys.exit(not (found['python'].startswith('CPython') and found['numpy'] and 'numpy' not in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (
            "processor : 0\nmodel name\t: Some CPU @ 3 GHz \nprocessor : 1\nmodel name\t: Some CPU @ 3 GHz\n",
            "Some CPU @ 3 GHz",
        ),
        ("processor : 0\nCPU part\t: 0xd03\nprocessor : 1\nCPU part\t: 0xd03\n", "Cortex-A53"),
        ("CPU part : 0xd05\nCPU part : 0xd0b\n", "Cortex-A55 + Cortex-A76"),
        ("CPU part : 0xfff\n", "ARM part 0xfff"),
    ],
)
def test_processors_are_named(cpuinfo: str, name: str) -> None:
    assert machine.cpu(cpuinfo) == name
    assert machine.facts(cpuinfo)["cpu"] == name


def test_instruction_sets_are_whole_words() -> None:
    assert machine.facts("flags\t\t: fpu avx2 avx512_vnni\n")["instruction_sets"] == ["avx2", "avx512_vnni"]
    assert "instruction_sets" not in machine.facts("flags : avx20 xavx2\n")


def test_times_compare_only_on_the_same_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = machine.facts("model name : X\n")
    assert machine.same(facts, dict(facts))
    assert not machine.same(facts, {**facts, "cpu": "Y"})
    assert not machine.same(facts, {**facts, "threads": {"OMP_NUM_THREADS": "9"}})
    assert not machine.same({}, {})  # two unknown machines are not the same one


# --- imports ----------------------------------------------------------------------------------------------------------


def test_records_import_nothing_heavy() -> None:
    program = (
        "import sys, grit.bench.records; heavy = ('torch', 'numpy', 'pandas', 'rich', 'jinja2', 'statistics');"
        "sys.exit(', '.join(name for name in heavy if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
