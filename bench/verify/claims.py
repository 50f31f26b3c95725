"""What a claim says, against its own evidence and against the data: counts, suite, flags; examples, training, licence.

The model is not asked yet. A lie found here is found on any machine that has the data, in a second.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from grit.bench import records
from grit.bench.types import CouldNotMeasure
from grit.bench.verify.case import Case, lexicon, short

# --- against its evidence -----------------------------------------------------------------------------


def totals(case: Case) -> Iterator[str]:
    """Every count of the record is what its evidence adds up to."""
    record, found = case.claim.record, case.evidence
    clean = records.clean_part(found.clean, len(record.data.labels))
    if msgspec.structs.replace(clean, calibration_error=record.clean.calibration_error) != record.clean:
        yield f"clean: the evidence adds up to {clean.k} of {clean.n}, claimed are {record.clean.k} of {record.clean.n}"
    for attack in record.attacks:
        counted = records.attack_part(attack.name, {}, found.attacks[attack.name])
        for name in attack.__struct_fields__:
            said, sum_ = getattr(attack, name), getattr(counted, name)
            if name not in _NOT_COUNTED and said != sum_:
                yield f"{short(attack.name)}: {name} is {said}, the evidence adds up to {sum_}"
                break
    if (worst := records.worst_case(found)) != record.worst:
        yield f"worst case: the evidence adds up to {worst.low} of {worst.n}, claimed is {record.worst.low}"


_NOT_COUNTED = ("parameters", "threat", "parameters_sha256", "lexicon", "lexicon_sha256")


def coverage(case: Case) -> Iterator[str]:
    """No attack leaves out an example that stands, and none contradicts the clean answers."""
    yield from records.disagreements(case.evidence)


def suite(case: Case) -> Iterator[str]:
    """A pinned suite is the one of that name: its attacks, their parameters, its lexicon, its digest."""
    record = case.claim.record
    said = {attack.name: {**attack.parameters, "threat": attack.threat} for attack in record.attacks}
    for attack in record.attacks:
        if attack.parameters_sha256 != records.digest(records.encode(said[attack.name])):
            yield f"{short(attack.name)}: parameters_sha256 is not that of its parameters"
        source = case.threats[attack.name].lexicon
        if attack.lexicon is not None and (here := lexicon(source).digest) != attack.lexicon_sha256:
            raise CouldNotMeasure(f"lexicon {short(source)} here is {here[:16]}..., {short(attack.name)} names another")
    if not record.suite:
        case.note("no pinned suite: the attacks are the submitter's own choice")
        return
    digest, members = case.pinned
    if set(members) != set(said):
        yield f"{record.suite} is {', '.join(members)}; the record has other attacks"
    for name in sorted(set(members) & set(said)):
        if members[name] != said[name]:
            yield f"{name}: its parameters are not those of {record.suite}"
    if record.suite_sha256 != digest:
        said_digest = (record.suite_sha256 or "none")[:16]
        raise CouldNotMeasure(
            f"{record.suite} is digest {digest[:16]} here, {said_digest} in the row: another release's"
        )


def budget(case: Case) -> Iterator[str]:
    """No example cost more than its attack's budget."""
    for name, outcomes in case.evidence.attacks.items():
        most = case.threats[name].max_queries
        for outcome in outcomes:
            if max(outcome.queries, outcome.gradients) > most:
                yield f"{short(name)}: {outcome.id} cost {outcome.queries} queries, the budget is {most}"
            if outcome.cache_hits > outcome.queries:
                yield f"{short(name)}: {outcome.id} has more cache hits than queries"


def raised(case: Case) -> Iterator[str]:
    """The flags that the counts raise stand in the record, and that of runs which nobody sees."""
    from grit.bench import datasets

    record = case.claim.record
    embedded = record.data.name == datasets.EMBEDDED
    due = records.flags(record.data, record.clean, record.attacks, embedded=embedded, checks=record.checks)
    names = {flag.name for flag in due} | ({"runs"} if case.claim.seeds.unreported else set())
    for name in sorted(names - {flag.name for flag in record.flags}):
        yield f"the flag {name!r} is due and not raised"


# --- against the data ---------------------------------------------------------------------------------


def revision(case: Case) -> Iterator[str]:
    """The data here is the data of the claim; of another revision nothing can be said."""
    said, here = case.claim.record.data, case.dataset
    if said.revision != here.revision:
        raise CouldNotMeasure(
            f"{said.name} is revision {here.revision[:16]}... here, the claim is about {said.revision[:16]}..."
        )
    if said.labels != here.labels or said.notes != here.notes or said.licence != here.licence:
        yield f"labels, notes or licence are not those of {said.name}"


def selection(case: Case) -> Iterator[str]:
    """The examples are those that the rule selects, all of them, with their own labels."""
    from grit.bench import datasets

    said, found = case.claim.record.data, case.evidence.clean
    if said.split != "test":
        yield f"split {short(said.split)}: claims are about the test split"
    chosen = datasets.subset(case.dataset.test, said.n, case.dataset.name)
    expected = {example.id: example.label for example in chosen}
    if strangers := sorted({line.id for line in found} - set(expected)):
        yield f"{len(strangers)} examples are not among the {said.n} that the rule selects, {strangers[0]} first"
    if missing := sorted(set(expected) - {line.id for line in found}):
        yield f"{len(missing)} examples that the rule selects are missing, {missing[0]} first"
    for line in found:
        if line.id in expected and line.label != expected[line.id]:
            yield f"{line.id} has label {expected[line.id]}, the evidence says {line.label}"
    counts = tuple(sum(example.label == label for example in chosen) for label in range(len(said.labels)))
    if said.label_counts != counts:
        yield f"label_counts are {list(said.label_counts)}, the examples have {list(counts)}"
    rule = "all" if len(chosen) == len(case.dataset.test) else "stratified by label, by rank of sha256(dataset, id)"
    if said.selection != rule:
        yield f"the rule of selection is {short(said.selection)}, not {rule!r}"


def trained(case: Case) -> Iterator[str]:
    """Training data, its size and licence are what they are called, and no evaluated text was trained on unsaid."""
    from grit.bench import datasets

    said, source = case.claim.record.training, case.source
    if said is None:
        return
    if source is None:
        case.note(f"training data {short(said.data)} is not here: overlap and vocabulary were not checked")
        return
    if said.revision != source.revision or said.licence != source.licence:
        yield f"revision or licence of the training data are not those of {said.data}"
    if said.n_train > len(source.train):
        yield f"{said.n_train} examples trained on, {said.data} has {len(source.train)}"
    if source.name == case.dataset.name:
        return  # the loader drops every text of test from train
    evaluated = [case.examples[line.id] for line in case.evidence.clean]
    both = datasets.overlap((*source.train, *source.dev), evaluated)
    if both and "overlap" not in {flag.name for flag in case.claim.record.flags}:
        yield f"{len(both)} evaluated texts stand in the training data, and the flag 'overlap' is not raised"


def vocabulary(case: Case) -> Iterator[str]:
    """Every word of the vocabulary stands in the training data: a word of the test split alone gives it away."""
    from grit.bench import text

    if case.source is None or case.claim.record.model.origin != "gritbench":
        return  # a plug-in may bring a vocabulary of its own
    missing = set(case.vocabulary)
    for example in case.source.train:
        if not missing:
            return
        missing.difference_update(text.tokenize(example.text))
    if missing:
        evaluated = {word for line in case.evidence.clean for word in text.tokenize(case.examples[line.id].text)}
        yield (
            f"{len(missing)} words of the vocabulary stand nowhere in the training data, {len(missing & evaluated)} of "
            "them in evaluated texts"
        )
