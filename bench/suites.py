"""The ranked suites: which attacks, in which order, within which threat. A changed suite is a new version.

A suite is pinned by a digest over its members with all their parameters, the behaviour of the engine, and the
lexicon and the stop words they read. Robust accuracies are comparable where the digests are equal, so the
same suite with WordNet and with the embedded thesaurus are two.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from grit.bench import lexicons, registry
from grit.bench.types import Attack

# Of the engine: raised by any change of evaluate.py, sentence.py or victim.py that can change an outcome. It pins the
# suites and the journals of attacks under way, so that neither goes on under rules other than it began with.
BEHAVIOUR = 2


@dataclass(frozen=True)
class Suite:
    """Attacks run one after the other, each on what still stands; the headline is the worst case an example.

    name: with its version, ``std@1``.
    members: attack names, in order.
    controls: attacks shown beside them and never ranked: a guided search must not lose to them.
    """

    name: str
    members: tuple[str, ...]
    controls: tuple[str, ...] = ()


# At most a quarter of the words (one at least), each for a synonym or a typo, 5,000 queries an example and attack.
_STD_1 = Suite("std@1", ("pwws.strong", "deepwordbug.strong", "hotflip.strong"), ("random_search.strong",))

# The same threat, and one more search on what still stands: of sites and words together, by gradients.
_STD_2 = Suite("std@2", (*_STD_1.members, "relax.strong"), _STD_1.controls)

SUITES = {suite.name: suite for suite in (_STD_1, _STD_2)}


def load(name: str = "std@1") -> Suite:
    """The suite behind a name; a UsageError with the nearest name for any other."""
    if name not in SUITES:
        raise registry.unknown("suite", name, SUITES, f"the suites are {', '.join(SUITES)}")
    return SUITES[name]


def attacks(suite: Suite, lexicon: str = "default") -> dict[str, Attack]:
    """The configured members by full name, in order; a default lexicon is written out, a table keeps its path."""
    source = lexicons.load(lexicon)
    resolved = source.name if lexicon == "default" else lexicon
    found: dict[str, Attack] = {}
    for member in suite.members:
        attack = registry.attack(f"{member}+{resolved}")
        found[registry.attack_name(attack)] = attack
    return found


def digest(suite: Suite, lexicon: str = "default") -> str:
    """sha256 over all that a suite's outcomes depend on, but the victim, the data and the seed."""
    source = lexicons.load(lexicon)
    parts = {
        "suite": suite.name,
        "behaviour": BEHAVIOUR,
        "members": {name: repr(attack) for name, attack in attacks(suite, lexicon).items()},
        "lexicon": [source.name, source.digest],
        "stop_words": lexicons.stop_words_digest(),
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
