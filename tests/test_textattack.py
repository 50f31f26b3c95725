"""TextAttack's recipes under our engine, with a small stand-in for TextAttack: threads, counts, what is missing."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grit.attacks import textattack
from grit.attacks.textattack import TextAttack, script_between
from grit.bench import registry
from grit.bench.evaluate import attack_all
from grit.bench.sentence import Text, words_of
from grit.bench.types import CouldNotMeasure, Edit, Example, Outcome, Script, UsageError
from grit.bench.victim import CallableVictim

ANY = TextAttack().threat


# --- a stand-in for TextAttack ---------------------------------------------------------------------------


class Goal:
    """Counts as TextAttack's goal functions do, and cuts a list of texts where its budget ends."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.use_cache = True
        self.query_budget = float("inf")
        self.num_queries = 0

    def scores(self, texts: list[str], label: int) -> list[float]:
        texts = texts[: int(min(self.query_budget - self.num_queries, len(texts)))]
        self.num_queries += len(texts)
        logits = self.model(texts) if texts else np.empty((0, 2))
        return [float(row[1 - label] - row[label]) for row in logits]


class FakeAttack:
    """A search is a function of (goal, text, label) -> the text it ends with."""

    def __init__(self, goal_function: Goal, constraints: list[Any], transformation: Any, search_method: Any) -> None:
        self.goal_function, self.transformation, self.search_method = goal_function, transformation, search_method
        self.constraints, self.pre_transformation_constraints = constraints, []

    def attack(self, text: str, label: int) -> Any:
        end = self.search_method.search(self.goal_function, text, label)
        return SimpleNamespace(
            perturbed_result=SimpleNamespace(attacked_text=SimpleNamespace(text=end, words=words_of(end)))
        )


def blanking(goal: Goal, text: str, label: int) -> str:
    """Writes over one word at a time, drawn anew from the global generators, until the label flips."""
    words = text.split(" ")
    goal.scores([text, text], label)
    for _ in range(40):
        place = int(np.random.randint(len(words)))  # noqa: NPY002
        changed = [*words[:place], f"x{random.randrange(3)}", *words[place + 1 :]]
        found = goal.scores([" ".join(changed)], label)
        if not found:
            break
        words = changed
        if found[0] > 0:
            break
    return " ".join(words)


def greedy_eater(goal: Goal, text: str, label: int) -> str:
    """Asks its victim for ever, whatever its budget, and lets no exception stop it."""
    while True:
        try:
            goal.model([text])
        except Exception:  # noqa: BLE001
            continue


def fails(error: Exception) -> Callable[..., str]:
    def search(goal: Goal, text: str, label: int) -> str:
        goal.scores([text], label)
        raise error

    return search


def shifts_signs(goal: Goal, text: str, label: int) -> str:
    return text.replace("(", "[")


SEARCHES: dict[str, Callable[..., str]] = {
    "deepwordbug": blanking,
    "pso": greedy_eater,
    "pwws": fails(LookupError("Resource wordnet not found")),
    "clare": fails(OSError("no such model")),
    "leap": fails(IndexError("list index out of range")),
    "iga": fails(ZeroDivisionError("division by zero")),
    "pruthi": shifts_signs,
}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package ``textattack`` with the few names that the bridge uses."""
    modules = {name: ModuleType(name) for name in ("textattack", "textattack.models", "textattack.models.wrappers")}
    recipes, arguments = ModuleType("textattack.attack_recipes"), ModuleType("textattack.attack_args")
    modules |= {recipes.__name__: recipes, arguments.__name__: arguments}
    modules["textattack"].Attack = FakeAttack  # type: ignore[attr-defined]
    modules["textattack.models.wrappers"].ModelWrapper = object  # type: ignore[attr-defined]

    def recipe(search: Callable[..., str]) -> Any:
        def build(wrapper: Any) -> FakeAttack:
            sys.stdout.write("[nltk_data] Error loading omw-1.4\n")
            sys.stderr.write("textattack: unknown if compatible\n")
            return FakeAttack(Goal(wrapper), [], None, SimpleNamespace(search=search))

        return SimpleNamespace(build=build)

    def unbuildable(wrapper: Any) -> Any:
        raise ConnectionError("HTTPSConnectionPool(host='textattack.s3.amazonaws.com'): Max retries exceeded")

    names = {}
    for name, search in SEARCHES.items():
        names[name] = f"textattack.attack_recipes.{name}"
        setattr(recipes, name, recipe(search))
    recipes.textfooler = SimpleNamespace(build=unbuildable)  # type: ignore[attr-defined]
    names["textfooler"] = "textattack.attack_recipes.textfooler"
    names["hotflip"] = names["morpheus"] = "textattack.attack_recipes.never"
    arguments.ATTACK_RECIPE_NAMES = names  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    textattack._built.cache_clear()
    yield recipes
    textattack._built.cache_clear()


def logits(texts: list[str]) -> list[list[float]]:
    """Class 1 while a text holds more words that begin with "g" than with "b"."""
    counts = [[sum(word[:1] == letter for word in text.split()) for letter in "bg"] for text in texts]
    return [[bad + 0.5, good] for bad, good in counts]


def victim() -> CallableVictim:
    return CallableVictim(logits, name="toy", classes=2)


EXAMPLES = tuple(
    Example(f"{place:016d}", text, 1)
    for place, text in enumerate(
        ["good gold gate by the bay", "a great game gone wild", "bad", "green grass grows slowly again", "go"]
    )
)


def run(recipe: str, some: tuple[Example, ...] = EXAMPLES, **rest: Any) -> list[Outcome]:
    attack = registry.attack(f"textattack:{recipe}")
    if "budget" in rest:
        attack = replace(attack, threat=replace(attack.threat, max_queries=rest.pop("budget")))  # type: ignore[type-var]
    return attack_all(victim(), attack, some, seed=5, **rest)


# --- counted, judged, reproducible -------------------------------------------------------------------------


def test_a_recipe_is_counted_and_judged(fake: ModuleType) -> None:
    outcomes = run("deepwordbug")
    assert [outcome.outcome for outcome in outcomes] == ["broken", "broken", "skipped", "broken", "broken"]
    for outcome, example in zip(outcomes, EXAMPLES, strict=True):
        if outcome.outcome == "broken":
            text = Text(example.text, ANY).apply(outcome.script)
            assert logits([text])[0][0] > logits([text])[0][1]
            # the text twice, and one query a word written over; the second answer was known
            assert outcome.queries >= 2 + len(outcome.script) and outcome.cache_hits >= 1


def test_outcomes_depend_on_the_seed_and_the_text_alone(fake: ModuleType) -> None:
    first = run("deepwordbug")
    random.seed(9)  # noqa: TID251  the recipe draws from the global generators, and must not see these
    np.random.seed(9)  # noqa: NPY002, TID251
    assert run("deepwordbug", EXAMPLES[::-1], window=1)[::-1] == first
    assert run("deepwordbug", EXAMPLES[:2]) == first[:2]


def test_the_global_generators_are_left_as_they_were(fake: ModuleType) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    run("deepwordbug")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


@pytest.mark.parametrize("budget", [1, 2, 3, 7])
def test_a_recipe_stops_at_its_budget_with_what_it_found(fake: ModuleType, budget: int) -> None:
    for outcome in run("deepwordbug", budget=budget):
        assert outcome.queries <= budget and outcome.outcome in ("broken", "survived", "skipped")


def test_a_recipe_that_overruns_its_budget_is_stopped(fake: ModuleType) -> None:
    before = threading.active_count()
    outcomes = run("pso", budget=6)
    assert [outcome.outcome for outcome in outcomes].count("survived") == 4
    assert all(outcome.queries == 6 for outcome in outcomes if outcome.outcome == "survived")
    assert threading.active_count() == before


def test_closing_a_search_ends_its_thread(fake: ModuleType) -> None:
    before = threading.active_count()
    steps = registry.attack("textattack:deepwordbug").attack(Text("good gold", ANY), 1, random.Random(1))
    next(steps)
    assert threading.active_count() == before + 1
    steps.close()
    assert threading.active_count() == before


def test_a_failing_recipe_is_an_error_of_its_examples(fake: ModuleType) -> None:
    for recipe, said in (("iga", "ZeroDivisionError: division by zero"), ("leap", "IndexError: list index")):
        outcomes = [outcome for outcome in run(recipe) if outcome.outcome != "skipped"]
        assert all(outcome.outcome == "error" and said in outcome.reason for outcome in outcomes)


def test_what_no_edit_can_say_is_an_error(fake: ModuleType) -> None:
    outcomes = run("pruthi", (Example("0" * 16, "good (gold) ,", 1),))
    assert outcomes[0].outcome == "error" and "no edit of words can say" in outcomes[0].reason


def test_nothing_is_said_on_standard_output(fake: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    run("deepwordbug")
    assert capfd.readouterr() == ("", "")


# --- what is missing -----------------------------------------------------------------------------------


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    textattack._built.cache_clear()
    monkeypatch.setitem(sys.modules, "textattack.attack_args", None)
    with pytest.raises(
        CouldNotMeasure, match=r"textattack:bae needs TextAttack .*pip install 'gritbench\[textattack\]'"
    ):
        run("bae")


def test_an_unknown_recipe_is_told_the_nearest(fake: ModuleType) -> None:
    with pytest.raises(UsageError, match="unknown recipe 'textfoler' of TextAttack: did you mean 'textfooler'"):
        run("textfoler")


@pytest.mark.parametrize(
    ("recipe", "said"), [("hotflip", "hotflip.textattack is the same"), ("morpheus", "translation")]
)
def test_recipes_that_attack_something_else_are_refused(fake: ModuleType, recipe: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(recipe)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("textfooler", r"\(ConnectionError: HTTPS.*counter-fitted word vectors.*TA_CACHE_DIR.*Universal Sentence"),
        ("pwws", r"\(LookupError: Resource wordnet.*NLTK_DATA"),
        ("clare", r"\(OSError: no such model\).*masked language model"),
    ],
)
def test_a_missing_resource_is_named_with_its_remedy(fake: ModuleType, recipe: str, said: str) -> None:
    """While a recipe is built, or while it runs: nothing is recorded as robust."""
    with pytest.raises(CouldNotMeasure, match=said):
        run(recipe)


def test_the_module_imports_neither_textattack_nor_torch() -> None:
    code = (
        "import sys, grit.attacks.textattack; print(sorted({'textattack', 'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- names ---------------------------------------------------------------------------------------------


def test_a_recipe_has_a_name_that_leads_back_to_it() -> None:
    attack = registry.attack("textattack:textfooler")
    assert attack == TextAttack(recipe="textfooler")
    assert registry.attack_name(attack) == "textattack:textfooler"


@pytest.mark.parametrize(
    ("spec", "said"),
    [("textattack", "needs a recipe; name one, as textattack:RECIPE"), ("pwws:fast", "pwws has no recipes")],
)
def test_recipes_and_tiers_are_not_mixed_up(spec: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        registry.attack(spec)


# --- from a text back to edits ---------------------------------------------------------------------------


def between(before: str, after: str) -> Script:
    return script_between(Text(before, ANY), after, words_of(after))


@pytest.mark.parametrize(
    ("before", "after", "edits"),
    [
        ("a good film", "a good film", []),
        ("a good film", "a fine film", [("replace", 1, "fine")]),
        ("a good film.", "a go od film.", [("insert", 1, "go"), ("replace", 1, "od")]),
        ("the doctor, here", "the Dr., here", [("replace", 1, "Dr.")]),
        ("a very good film", "a good film", [("delete", 1, "")]),
        ("very good", "good", [("delete", 0, "")]),
        ("a good film", "a really good film", [("insert", 1, "really")]),
        ("so good!", "so good indeed!", [("insert", 1, "good"), ("replace", 1, "indeed")]),
        ("so good", "so good indeed", [("insert", 2, "indeed")]),
        ("the the the", "the the", [("delete", 0, "")]),
        ("", "", []),
    ],
)
def test_edits_between_two_texts(before: str, after: str, edits: list[tuple[Any, int, str]]) -> None:
    assert between(before, after) == tuple(Edit(*edit) for edit in edits)


@pytest.mark.parametrize(("before", "after"), [("good.", "good!"), ("(good)", "good"), ("a , , b", "a , b")])
def test_a_change_of_signs_is_refused(before: str, after: str) -> None:
    with pytest.raises(ValueError, match="no edit of words can say"):
        between(before, after)


_WORD = st.sampled_from(["a", "the", "good", "re-do", "don't", "film", "x1"])
_SIGN = st.sampled_from(["", ",", ".", "!", ")"])


@given(st.lists(st.tuples(_WORD, _SIGN), min_size=1, max_size=12), st.data())
def test_edits_lead_to_the_text_that_they_were_read_from(parts: list[tuple[str, str]], data: st.DataObject) -> None:
    text = Text(" ".join(word + sign for word, sign in parts), ANY)
    script = []
    for index in range(len(text.words)):
        op = data.draw(st.sampled_from(["keep", "keep", "replace", "delete", "insert"]))
        if op in ("replace", "insert"):
            script.append(Edit(op, index, data.draw(_WORD)))  # type: ignore[arg-type]
        elif op == "delete":
            script.append(Edit("delete", index))
    after = text.apply(tuple(script))
    found = script_between(text, after, words_of(after))
    assert text.violation(found) is None
    assert text.apply(found).split() == after.split() or "".join(text.apply(found).split()) == "".join(after.split())
    assert len(found) <= 2 * len(script)
