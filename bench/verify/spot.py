"""Spot and full: a survivor cannot be proved, only attacked again, by the same attacks with the same seed.

``m`` survivors are drawn by sha256(bundle digest, nonce, id): nobody knows which before the nonce is drawn, after the
bundle was fixed. If a share f of the survivors is false, m draws miss them all with (1 - f)^m; so no hit among m
proves, with 95 % confidence, that no more than ``bound`` of them is false, and the *verified floor* is the claim
times (1 - bound). A hit refutes the claim, and is itself evidence that anyone can replay.

Attacks on an exact model take the same course on every machine: the trace must match, which also gives away an
attack that was cut short and a seed that was picked. Attacks are gritbench's own and run in this process. A program is
data for arithmetic that gritbench wrote, and so are the weights; a graph answers from the sandbox.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from grit.bench import records, submission
from grit.bench.types import Attack, CouldNotMeasure, Outcome, Program
from grit.bench.verify.case import Case, short
from grit.bench.verify.verdict import Floor

CONFIDENCE = 0.95
RESTLESS = 0.05  # share of gradient traces that another build of torch may change
TWIN_AGREEMENT = 0.95  # of float weights and int8 bytes, in predictions, where the bytes cannot be made again


def twin(case: Case) -> Iterator[str]:
    """The float weights, from which gradients come, are those that were exported."""
    if not case.has_weights:
        case.note("no float weights that gritbench's own code could run: attacked without gradients")
        return
    import numpy as np

    from grit.bench.export import packing, words
    from grit.bench.export.floating import FloatArtefact

    program = case.float_model().program()
    if program is None:
        raise CouldNotMeasure("these weights have no program to compare with; verify where they were exported")
    if _made_again(case, program):
        case.note("the deployed bytes were made again from the weights, bit for bit")
        return
    texts = [case.examples[line.id].text for line in case.evidence.clean]
    floats = FloatArtefact(program, "", packing.sizes_bytes(packing.pack(program)))
    fixed = np.array([int(case.answers[text].argmax()) for text in texts])
    agree = float((words.answer(floats, texts).argmax(axis=1) == fixed).mean())
    if agree < TWIN_AGREEMENT:
        yield f"float weights and deployed bytes agree on {agree:.3f} of the examples: they are of two models"
    case.note(f"float weights and deployed bytes agree on {agree:.3f} of the examples")


def _made_again(case: Case, program: Program) -> bool:
    """Whether float weights give the deployed bytes; of a compressed row the arrays, as it may ship them packed."""
    from grit.bench.export import build, fixed, packing
    from grit.bench.export.quantise import quantise

    deployed = case.bundle.file(submission.ARTEFACT)
    shipped = packing.unpack(deployed)
    made: Program | fixed.FixedProgram = program
    if isinstance(shipped, fixed.FixedProgram):
        if case.source is None:
            return False
        made = quantise(program, build.calibration(case.source))
    return packing.pack(made) == (packing.pack(shipped) if case.claim.record.steps else deployed)


def spot(case: Case) -> Iterator[str]:
    """A sample of the survivors survives the same attacks again, by the same traces."""
    yield from _attacked_again(case, drawn(case.bundle.digest, case.setting.nonce, case.survivors, case.setting.spot))


def full(case: Case) -> Iterator[str]:
    """Every example meets the same fate again."""
    yield from _attacked_again(case, [line.id for line in case.evidence.clean])


def strength(case: Case) -> Iterator[str]:
    """The checks of the attacks on this model, made again, count what the record says: flags stand on them.

    A record of a release that made fewer checks may lack one, as long as no flag would stand on it.
    """
    from grit.bench import adequacy

    if not case.claim.determinism.exact:
        case.note("the checks of the attacks were not made again: answers differ between machines")
        return
    attacks = {part.name: _configured_attack(part) for part in case.claim.record.attacks}
    examples = [case.examples[line.id] for line in case.evidence.clean]
    with _victim(case) as victim:
        seed = case.claim.seeds.attacks
        found = adequacy.checks(adequacy.Trial(victim, attacks, examples, case.evidence.attacks, seed))
    claimed = {(part.check, part.attack, part.against): part for part in case.claim.record.checks}
    for made in found:
        said = claimed.get((made.check, made.attack, made.against))
        if said != made and (said is not None or records.doubt(made)):
            counts = "is missing" if said is None else f"counts k={said.k} lost={said.lost} won={said.won}"
            yield (
                f"check {made.check} of {made.attack or 'all attacks'} {counts}; "
                f"here it is k={made.k} lost={made.lost} won={made.won} of {made.n}"
            )


def drawn(digest: str, nonce: str, ids: Sequence[str], m: int) -> list[str]:
    """The ``m`` ids of the lowest sha256(bundle digest, nonce, id): nobody knows them before the nonce is drawn."""
    return sorted(ids, key=lambda id: hashlib.sha256(f"{digest} {nonce} {id}".encode()).digest())[:m]


def _attacked_again(case: Case, ids: Sequence[str]) -> Iterator[str]:
    from grit.bench import evaluate, machine

    strays = compared = 0
    for part in case.claim.record.attacks:
        attack = _configured_attack(part)
        claimed = {outcome.id: outcome for outcome in case.evidence.attacks[part.name]}
        examples = [case.examples[id] for id in ids if id in claimed]
        with _victim(case) as victim:
            found = evaluate.attack_all(victim, attack, examples, seed=case.claim.seeds.attacks, name=part.name)
        for outcome in found:
            then = claimed[outcome.id]
            if outcome.outcome == "broken" and then.outcome != "broken":
                case.hits.append(outcome)
                yield f"{part.name} breaks {outcome.id}, which is claimed to have {then.outcome}"
            elif not case.claim.determinism.exact:
                if outcome.outcome != then.outcome:
                    case.note(f"{part.name}: {outcome.id} is {outcome.outcome} here, {then.outcome} in the claim")
            elif then.gradients and outcome.gradients:
                compared += 1
                strays += _differ(then, outcome)
            elif (victim.has_gradients or not then.gradients) and _differ(then, outcome):
                yield f"{part.name}: {outcome.id} takes another course than claimed: {_course(then, outcome)}"
    if strays > RESTLESS * compared:
        here, there = machine.versions().get("torch"), case.claim.record.run.versions.get("torch")
        if here == there:
            yield f"{strays} of {compared} attacks by gradient take another course than claimed"
        else:
            case.note(f"{strays} of {compared} attacks by gradient differ: torch is {here} here, was {there} there")
    if not case.hits:
        case.floor = _floor(case, ids)


def _differ(then: Outcome, now: Outcome) -> bool:
    return records.encode_outcomes([then]) != records.encode_outcomes([now])


def _course(then: Outcome, now: Outcome) -> str:
    name = next(name for name in Outcome.__slots__ if getattr(then, name) != getattr(now, name))
    return f"{name} was {getattr(then, name)!r}, is {getattr(now, name)!r}"


def _floor(case: Case, ids: Sequence[str]) -> Floor:
    """What is proved where every one of ``ids`` met the same fate again."""
    from grit.bench.statistics import upper_bound

    standing, worst = set(case.survivors), case.claim.record.worst
    sample = [id for id in ids if id in standing]
    bound = 0.0 if len(sample) == len(standing) else upper_bound(0, len(sample), CONFIDENCE)
    verified = worst.low / worst.n * (1 - bound) if worst.n else 0.0
    return Floor(claimed=worst.low, n=worst.n, drawn=len(sample), bound=bound, verified=verified)


@contextmanager
def _victim(case: Case) -> Iterator[Any]:
    """A fresh victim, since cache hits are part of the course."""
    from grit.bench.victim import Victim

    with case.artefact() as artefact:
        if not case.has_weights:
            yield Victim(artefact)
            return
        from grit.bench.twin import Twin

        yield Victim(artefact, Twin(case.float_model()))


def _configured_attack(part: records.AttackPart) -> Attack:
    """The attack that a record names, if it is still the same attack here."""
    from grit.bench import registry

    key = part.name.partition(":")[0].partition("+")[0].partition(".")[0]
    if key not in registry.names("attacks"):
        raise CouldNotMeasure(f"attack {short(part.name)} is not installed here")
    attack = registry.attack(part.name)
    if attack.threat.lexicon == "default":  # it was written out, whether or not a space of the threat reads it
        named = dataclasses.replace(attack.threat, lexicon=str(part.threat.get("lexicon")))
        attack = dataclasses.replace(attack, threat=named)  # type: ignore[type-var]  # a dataclass by contract
    if records.plain(attack) != {**part.parameters, "threat": part.threat}:
        raise CouldNotMeasure(f"{short(part.name)} has other parameters in this release: it cannot be repeated")
    return attack
