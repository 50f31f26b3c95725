"""Schemes: names, weights, overrides, and what they ask for."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from grit.bench import experiment, registry, run, schemes
from grit.bench.experiment import Experiment
from grit.bench.types import Dataset, Scheme, Term, UsageError

ROBUST = {"gradmask", "perturb", "word_layer"}
MAPPING = {"regress", "attribution"}


def terms(name: str) -> set[str]:
    return {term.objective for term in schemes.get(name).terms}


def test_the_named_schemes_hold_what_their_names_say() -> None:
    assert terms("natural") == {"task"}
    assert terms("distil") == {"task", "distil"}
    assert terms("mapped") == {"task", "distil"} | MAPPING
    assert terms("adversarial") == {"task"} | ROBUST
    assert terms("proposed") == {"task", "distil"} | MAPPING | ROBUST
    assert terms("bounded") == {"task", "bound"}


def test_each_ablation_lacks_one_objective_of_proposed() -> None:
    for removed, gone in (("distil", {"distil"}), ("mapped", MAPPING), ("adversarial", ROBUST)):
        assert terms("proposed") - terms(f"proposed-{removed}") == gone


def test_what_remains_in_an_ablation_is_weighted_as_in_proposed() -> None:
    whole = {term.objective: term for term in schemes.get("proposed").terms}
    for name in ("adversarial", "proposed-distil", "proposed-mapped", "proposed-adversarial"):
        assert all(whole[term.objective] == term for term in schemes.get(name).terms)


def test_who_needs_a_teacher() -> None:
    needing = {name for name in schemes.names() if schemes.needs_teacher(schemes.get(name))}
    assert {"distil", "mapped", "proposed", "proposed-mapped", "proposed-adversarial"} <= needing
    assert not needing & {"natural", "adversarial", "bounded", "hotword", "fgm", "pgd", "freelb", "free", "smoothing"}


@pytest.mark.parametrize("name", schemes.names())
def test_every_scheme_is_made_of_objectives_that_exist(name: str) -> None:
    scheme = schemes.get(name)
    made = schemes.objectives(scheme)
    assert scheme.name == name
    assert [weight for _, weight, _ in made] == [term.weight for term in scheme.terms]
    assert all(weight > 0 for _, weight, _ in made)
    assert len({key for key, _, _ in made}) == len(made)
    assert eval(repr(scheme), {"Scheme": Scheme, "Term": Term}) == scheme


def test_an_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown scheme 'propsed': did you mean 'proposed'"):
        schemes.get("propsed")


def test_overrides_replace_weights_options_and_teacher() -> None:
    changes = {"distil.weight": "0.25", "gradmask.top": "3", "gradmask.share": "0.5", "teacher": "big"}
    scheme = schemes.override(schemes.get("proposed"), changes)
    found = {term.objective: term for term in scheme.terms}
    assert found["distil"].weight == 0.25
    assert found["gradmask"].options == {"hard": 1.0, "top": 3, "share": 0.5}
    assert scheme.teacher == "big"
    assert scheme.name == "proposed[distil.weight=0.25,gradmask.top=3,gradmask.share=0.5,teacher=big]"
    objective = next(objective for name, _, objective in schemes.objectives(scheme) if name == "gradmask")
    assert repr(objective).startswith("Gradmask(top=3")
    assert schemes.get("proposed").teacher == "teacher"


def test_no_override_is_the_same_scheme() -> None:
    assert schemes.override(schemes.get("proposed"), {}) == schemes.get("proposed")


def test_weight_zero_removes_a_term_and_cannot_remove_all() -> None:
    kept = schemes.override(schemes.get("distil"), {"distil.weight": "0"})
    assert [term.objective for term in kept.terms] == ["task"]
    assert not schemes.needs_teacher(kept)
    with pytest.raises(UsageError, match="has no term left"):
        schemes.override(schemes.get("natural"), {"task.weight": "0"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill.weight": "1"}, "unknown field of scheme proposed 'distill.weight': did you mean 'distil.weight'"),
        ({"distil": "1"}, "unknown field of scheme proposed 'distil'"),
        ({"task.temperature": "1"}, "unknown field of objective task 'temperature'"),
        ({"gradmask.top": "three"}, "top='three': expected int"),
        ({"distil.weight": "much"}, "weight='much': expected float"),
        ({"weight": "1"}, "unknown field of scheme proposed 'weight'"),
        ({"perturb.full": "2"}, "objective perturb: full=2.0: expected a share in [0, 1], as in full=0.5"),
        ({"gradmask.share": "-1"}, "objective gradmask: share=-1.0: expected a share in (0, 1], as in share=0.25"),
    ],
)
def test_wrong_overrides_are_refused_in_one_line(changes: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        schemes.override(schemes.get("proposed"), changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_objectives_and_options_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown objective 'distll': did you mean 'distil'"):
        schemes.objectives(Scheme("mine", (Term("distll"),)))
    with pytest.raises(UsageError, match="unknown option of objective distil 'temprature': did you mean 'temperature'"):
        schemes.objectives(Scheme("mine", (Term("distil", 1.0, {"temprature": 2.0}),)))


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Term("task", -1.0), "objective task: weight=-1: expected 0 or more"),
        (Term("task", math.inf), "objective task: weight=inf: expected 0 or more"),
        (Term("word_layer", 0.5), "objective word_layer: weight=0.5: it adds nothing to the loss"),
    ],
)
def test_a_weight_that_means_nothing_is_refused(term: Term, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        schemes.objectives(Scheme("mine", (Term("task"), term)))


def test_a_scheme_that_says_nothing_of_two_classes_refuses_them() -> None:
    schemes.check_classes(schemes.get("cot"), 3)
    with pytest.raises(UsageError, match=r"scheme cot: objective cot needs 3 classes or more, got 2"):
        schemes.check_classes(schemes.get("cot"), 2)
    for name in set(schemes.names()) - {"cot"}:
        schemes.check_classes(schemes.get(name), 2)


def test_that_is_said_before_a_teacher_is_trained_or_a_folder_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(experiment, "load_data", lambda wanted: Dataset("two", "0" * 64, ("no", "yes"), (), (), ()))
    wanted = Experiment(models=("student",), schemes=("natural", "cot"), attacks=("deepwordbug",), targets=())
    for asked in (run.run, run.train):
        with pytest.raises(UsageError, match="needs 3 classes or more, got 2"):
            asked(wanted, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_every_option_of_a_named_scheme_is_another_than_the_default() -> None:
    for name in schemes.names():
        for term in schemes.get(name).terms:
            plain = registry.load("objectives", term.objective)()
            assert all(getattr(plain, option) != value for option, value in term.options.items())


def test_two_terms_of_one_objective_have_names_of_their_own() -> None:
    scheme = Scheme("mine", (Term("perturb"), Term("task"), Term("perturb", 0.5, {"kind": "pgd"})))
    assert [name for name, _, _ in schemes.objectives(scheme)] == ["perturb", "task", "perturb#2"]
    with pytest.raises(UsageError, match="unknown field of scheme mine"):
        schemes.override(scheme, {"perturb.weight": "1"})


def test_every_objective_is_part_of_some_scheme() -> None:
    used = {term.objective for name in schemes.names() for term in schemes.get(name).terms}
    assert used == set(registry.names("objectives"))


def test_naming_schemes_needs_no_torch() -> None:
    code = (
        "import sys; from grit.bench import schemes; schemes.get('proposed'); schemes.names(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
