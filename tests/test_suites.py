"""The ranked suite is what its name says: members, threat, budget, and a digest that any change of them moves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from grit.bench import lexicons, registry, suites
from grit.bench.evaluate import attack_all, margins, standing
from grit.bench.sentence import Text, composed
from grit.bench.text import tokenize
from grit.bench.types import Example, Gain, Outcome, Threat, UsageError
from grit.bench.victim import Victim

STD_1, STD_2 = suites.load("std@1"), suites.load("std@2")

# With the embedded thesaurus. A change of any parameter moves it: then the suite needs a new version.
PINNED_PARAMETERS = {"std@1": "fda46160", "std@2": "c7f6f83d"}
# Of every outcome on the texts below. A change that moves it alters what the suite does: new behaviour, new version.
PINNED_OUTCOMES = {"std@1": "31341725", "std@2": "31341725"}
PINNED_RELAXATION = "9259ec60"
# What records carry. It moves with the two above, with the engine's behaviour, the thesaurus and the stop words.
PINNED_DIGESTS = {"std@1": "9d17ac01", "std@2": "6c929a78"}


def short(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def test_std_1_is_the_ranked_suite() -> None:
    attacks = suites.attacks(STD_1, "thesaurus")
    assert list(attacks) == ["pwws.strong+thesaurus", "deepwordbug.strong", "hotflip.strong+thesaurus"]
    spaces = [("synonyms",), ("typos",), ("synonyms", "typos")]
    for attack, space in zip(attacks.values(), spaces, strict=True):
        expected = Threat(spaces=space, lexicon="thesaurus", max_words=0.25, typo_distance=2, max_queries=5000)
        assert attack.threat == expected and attack.threat.protect_stop_words
    assert attacks["hotflip.strong+thesaurus"].top == 50  # type: ignore[attr-defined]
    assert attacks["hotflip.strong+thesaurus"].beam_width == 10  # type: ignore[attr-defined]
    assert [registry.attack(control).tier for control in STD_1.controls] == ["strong"]


def test_std_2_is_std_1_and_the_joint_relaxation() -> None:
    first, second = suites.attacks(STD_1, "thesaurus"), suites.attacks(STD_2, "thesaurus")
    assert list(second) == [*first, "relax.strong+thesaurus"]
    assert {name: second[name] for name in first} == first
    relax = second["relax.strong+thesaurus"]
    assert relax.threat == first["hotflip.strong+thesaurus"].threat
    assert (relax.iterations, relax.restarts) == (20, 10)  # type: ignore[attr-defined]
    assert suites.digest(STD_2, "thesaurus") != suites.digest(STD_1, "thesaurus")


def test_the_default_lexicon_is_written_out() -> None:
    resolved = lexicons.load("default").name
    assert next(iter(suites.attacks(STD_1))) == f"pwws.strong+{resolved}"
    assert suites.digest(STD_1) == suites.digest(STD_1, resolved)


@pytest.mark.parametrize("name", suites.SUITES)
def test_the_parameters_are_pinned(name: str) -> None:
    suite = suites.load(name)
    members = {name: repr(attack) for name, attack in suites.attacks(suite, "thesaurus").items()}
    assert short(members) == PINNED_PARAMETERS[name], f"{name} has changed: give the changed suite a new name"
    assert suites.digest(suite, "thesaurus")[:8] == PINNED_DIGESTS[name]


def test_the_digest_moves_with_all_it_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {suites.digest(STD_1, "thesaurus")}

    def moved(digest: str) -> bool:
        new = digest not in seen
        seen.add(digest)
        return new

    assert moved(suites.digest(dataclasses.replace(STD_1, name="std@3"), "thesaurus"))
    with monkeypatch.context() as patched:
        patched.setattr(suites, "BEHAVIOUR", 99)
        assert moved(suites.digest(STD_1, "thesaurus"))
    assert moved(suites.digest(dataclasses.replace(STD_1, members=STD_1.members[::-1]), "thesaurus"))
    assert moved(suites.digest(dataclasses.replace(STD_1, members=STD_1.members[:2]), "thesaurus"))
    assert not moved(suites.digest(dataclasses.replace(STD_1, controls=()), "thesaurus"))
    with monkeypatch.context() as patched:
        patched.setattr(lexicons, "stop_words_digest", lambda: "others")
        assert moved(suites.digest(STD_1, "thesaurus"))
    with monkeypatch.context() as patched:
        changed = registry.attack
        patched.setattr(registry, "attack", lambda spec: _with_budget(changed(spec), 4999))
        assert moved(suites.digest(STD_1, "thesaurus"))
    assert not moved(suites.digest(STD_1, "thesaurus"))


def _with_budget(attack: Any, queries: int) -> Any:
    return dataclasses.replace(attack, threat=dataclasses.replace(attack.threat, max_queries=queries))


def test_wordnet_and_the_thesaurus_are_two_suites(real_data: object) -> None:
    assert suites.digest(STD_1, "wordnet3.0") != suites.digest(STD_1, "thesaurus")


def test_an_unknown_suite_is_named_with_its_neighbour() -> None:
    with pytest.raises(UsageError, match=r"unknown suite 'std@11': did you mean 'std@1'"):
        suites.load("std@11")


# --- its behaviour --------------------------------------------------------------------------------------


class Words:
    """Whole-number weights of words from their letters: a victim that any machine computes alike."""

    separable = True
    exact = True
    classes = 2
    max_tokens = 64
    digest = "words"
    sizes_bytes: ClassVar[dict[str, int]] = {"rows": 1}

    def __init__(self) -> None:
        self.tokens = [""]

    def tokenize(self, text: str) -> list[str]:
        return tokenize(text)

    def intern(self, tokens: Sequence[str]) -> np.ndarray:
        self.tokens += [token for token in dict.fromkeys(tokens) if token not in self.tokens]
        return np.array([self.tokens.index(token) for token in tokens], np.int32)

    def token(self, row: int) -> str:
        return self.tokens[row]

    def logits(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        weights = np.array([[hashlib.sha256(token.encode()).digest()[0] % 16 - 8, 0] for token in self.tokens], float)
        real = np.arange(rows.shape[1]) < lengths[:, None]
        return (weights[np.where(real, rows, 0)] * real[:, :, None]).sum(1) + np.array([9.0, 0.0])


class Rises:
    """Gains of that victim, which are exact: its margin is linear in its words."""

    def __init__(self) -> None:
        self.victim = Victim(Words())

    def gains(self, asked: Sequence[tuple[Text, Gain, int]]) -> list[np.ndarray]:
        found = []
        for sentence, gain, label in asked:
            scripts = [gain.base, *(composed(gain.base, edit) for edit in gain.edits)]
            (logits,) = self.victim.answer([self.victim.open(sentence).ask(scripts)])
            rises = margins(logits, label)
            found.append(rises[1:] - rises[0])
        return found


class Synonyms:
    """A few of a test's own, so that an edit of the thesaurus moves nothing here."""

    name = "synonyms"
    digest = "synonyms"

    def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
        listed = {
            "quick": "fast swift",
            "small": "little tiny",
            "long": "lengthy",
            "sold": "traded",
            "cold": "icy chilly",
        }
        return tuple(listed.get(word.lower(), "").split())


TEXTS = (
    "The quick answer came late, and nobody was happy about it.",
    "A small boat crossed the cold river before the storm.",
    "She wrote a long letter to her old teacher in spring.",
    "They sold the house quickly and moved to the coast.",
)


def telling(o: Outcome) -> list[Any]:
    return [o.id, o.outcome, [list(edit) for edit in o.script], o.queries, o.trace]


def test_the_relaxation_is_pinned_on_texts_that_the_others_break_first() -> None:
    victim = Victim(Words(), Rises())
    labels = victim.logits(TEXTS).argmax(1)
    examples = [Example(str(n), text, int(label)) for n, (text, label) in enumerate(zip(TEXTS, labels, strict=True))]
    attack = suites.attacks(STD_2, "thesaurus")["relax.strong+thesaurus"]
    outcomes = attack_all(victim, _with_budget(attack, 400), examples, seed=0, name="relax", lexicon=Synonyms())
    assert short([telling(outcome) for outcome in outcomes]) == PINNED_RELAXATION, "std@2 behaves differently"


@pytest.mark.parametrize("suite", suites.SUITES)
def test_the_suite_runs_on_what_still_stands_and_its_outcomes_are_pinned(suite: str) -> None:
    victim = Victim(Words(), Rises())
    labels = victim.logits(TEXTS).argmax(1)
    examples = [Example(str(n), text, int(label)) for n, (text, label) in enumerate(zip(TEXTS, labels, strict=True))]
    ran = []
    for name, attack in suites.attacks(suites.load(suite), "thesaurus").items():
        left = standing(examples, ran)
        outcomes = attack_all(victim, _with_budget(attack, 400), left, seed=0, name=name, lexicon=Synonyms())
        assert [outcome.id for outcome in outcomes] == [example.id for example in left]
        ran.append(outcomes)
    assert {outcome.id for outcomes in ran for outcome in outcomes} == {example.id for example in examples}
    told = [telling(o) for outcomes in ran for o in outcomes]
    assert short(told) == PINNED_OUTCOMES[suite], f"{suite} behaves differently: give it a new version"
