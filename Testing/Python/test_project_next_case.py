# SPDX-License-Identifier: Apache-2.0
"""Which case next: cases worked out by hand, and the speed with ten thousand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from barl.project.next_case import BALANCED, rank_cases
from barl.project.records import BY_SCAN, Case
from barl.project.states import CaseState


def case(name: str, state: str = "predicted", uncertainty=None, place=None, held_out=False, model="m") -> Case:
    embedding = None if place is None else np.asarray(place, dtype=np.float32)
    return Case(name, name, CaseState(state), held_out, "", uncertainty, None, embedding, model)


def names(ranked: list) -> list[str]:
    return [entry.case.name for entry in ranked]


def test_only_waiting_cases_are_ranked() -> None:
    cases = [
        case("accepted", "accepted"),
        case("excluded", "excluded"),
        case("held out", held_out=True),
        case("new", "new"),
        case("in review", "in_review"),
        case("predicted"),
    ]
    assert sorted(names(rank_cases(cases))) == ["in review", "new", "predicted"]
    assert rank_cases(cases[:3]) == []
    assert rank_cases([]) == []


def test_before_any_model_the_order_is_the_one_given() -> None:
    ranked = rank_cases([case("a", "new"), case("b", "new")])
    assert names(ranked) == ["a", "b"]
    assert ranked[0].reason == "not predicted yet; no case is outlined so far"


def test_by_default_predicted_cases_come_at_random_then_the_others_as_given() -> None:
    cases = [case(f"w{n}", uncertainty=n / 40, place=[n, 0]) for n in range(30)]
    cases = [case("new 2", "new"), *cases, case("new 1", "new"), case("o", "accepted", place=[0, 0])]
    order = names(rank_cases(cases))
    assert order[-2:] == ["new 2", "new 1"]
    # Neither by uncertainty nor by difference, and no case moves when others are added or the computer is another one.
    assert order[:3] == ["w20", "w29", "w2"]
    assert names(rank_cases(cases[:20])) == [name for name in order if name in names(rank_cases(cases[:20]))]
    assert rank_cases(cases)[0].reason == (
        "chosen at random (no rule was shown to teach more); uncertain (0.50, the 10th highest of 30); "
        "unlike the case outlined so far"
    )


def test_before_any_model_scans_are_compared_by_size_and_intensities() -> None:
    places = {"like a": [0.1, 0], "far": [3, 0], "middle": [1, 0]}
    new = [case(name, "new", place=place, model=BY_SCAN) for name, place in places.items()]
    ranked = rank_cases([case("a", "accepted", place=[0, 0], model=BY_SCAN), *new], 1.0, by_scan=True)
    assert names(ranked) == ["far", "middle", "like a"]
    assert ranked[0].reason == "not predicted yet; unlike the case outlined so far, by size and intensities"
    # Nothing outlined: the first given, then the one farthest from it.
    assert names(rank_cases(new, 1.0, by_scan=True)) == ["like a", "far", "middle"]
    assert names(rank_cases(new)) == [one.name for one in new], "not by default"
    # A small difference in one number is no more than it is: nothing is standardized.
    noisy = [case("b", "new", place=[0, 0.01], model=BY_SCAN), case("c", "new", place=[0.5, 0], model=BY_SCAN)]
    assert names(rank_cases([case("a", "accepted", place=[0, 0], model=BY_SCAN), *noisy], 1.0, by_scan=True)) == [
        "c",
        "b",
    ]


def test_equally_different_cases_go_by_uncertainty_and_equally_uncertain_ones_by_difference() -> None:
    outlined = case("o", "accepted", place=[0, 0])
    ranked = rank_cases(
        [outlined, case("sure", uncertainty=0.1, place=[1, 0]), case("unsure", uncertainty=0.4, place=[-1, 0])],
        BALANCED,
    )
    assert names(ranked) == ["unsure", "sure"]
    ranked = rank_cases(
        [outlined, case("near", uncertainty=0.3, place=[1, 1]), case("far", uncertainty=0.3, place=[4, 4])],
        BALANCED,
    )
    assert names(ranked) == ["far", "near"]


def test_the_score_is_the_product_worked_out_by_hand() -> None:
    # One dimension, so standardizing scales all alike: distances relative to 4, uncertainties relative to 0.8.
    cases = [
        case("o", "accepted", place=[0]),
        case("a", uncertainty=0.8, place=[1]),
        case("b", uncertainty=0.4, place=[2]),
        case("c", uncertainty=0.2, place=[-4]),
    ]
    score = {entry.case.name: entry.score for entry in rank_cases(cases, diversity=0.5, spread=0)}
    assert score == pytest.approx({"a": (1 * 0.25) ** 0.5, "b": (0.5 * 0.5) ** 0.5, "c": (0.25 * 1) ** 0.5})
    assert names(rank_cases(cases, diversity=0, spread=0)) == ["a", "b", "c"]
    assert names(rank_cases(cases, diversity=1, spread=0)) == ["c", "b", "a"]


def test_a_copy_of_an_outlined_case_is_the_last_however_uncertain() -> None:
    cases = [
        case("o", "accepted", place=[1, 2]),
        case("copy", uncertainty=0.9, place=[1, 2]),
        case("other", uncertainty=0.1, place=[3, 1]),
    ]
    assert names(rank_cases(cases, BALANCED)) == ["other", "copy"]


def test_near_copies_of_one_candidate_are_not_chosen_one_after_the_other() -> None:
    twins = [case(f"twin {k}", uncertainty=0.9 - 0.01 * k, place=[5, 0.01 * k]) for k in range(3)]
    cases = [case("o", "accepted", place=[0, 0]), *twins, case("other", uncertainty=0.5, place=[0, 4])]
    assert names(rank_cases(cases, BALANCED))[:2] == ["twin 0", "other"]
    assert names(rank_cases(cases, BALANCED, spread=0))[:2] == ["twin 0", "twin 1"]


def test_with_nothing_outlined_the_first_choices_still_spread() -> None:
    cases = [
        case("a", uncertainty=0.9, place=[0, 0]),
        case("like a", uncertainty=0.89, place=[0, 0.1]),
        case("b", uncertainty=0.5, place=[6, 6]),
    ]
    assert names(rank_cases(cases, BALANCED)) == ["a", "b", "like a"]


def test_missing_numbers_are_neutral() -> None:
    cases = [
        case("o", "accepted", place=[0]),
        case("high", uncertainty=0.9, place=[2]),
        case("low", uncertainty=0.1, place=[2]),
        case("middle", uncertainty=0.5, place=[2]),
        case("new", "new"),
    ]
    order = names(rank_cases(cases, BALANCED, spread=0))
    assert order.index("high") < order.index("new") < order.index("low")


def test_embeddings_of_different_models_are_not_compared() -> None:
    cases = [
        case("o", "accepted", place=[0, 0], model="old"),
        case("a", uncertainty=0.5, place=[9, 9]),
        case("b", uncertainty=0.6, place=[0, 0, 0], model="other"),
        case("c", uncertainty=0.4, place=[1, 9]),
    ]
    ranked = rank_cases(cases, BALANCED)
    assert len(ranked) == 3
    assert all("not yet compared" in entry.reason for entry in ranked)


def test_equal_places_and_no_uncertainty_do_no_harm() -> None:
    cases = [case("o", "accepted", place=[1, 1])] + [case(n, uncertainty=0.0, place=[1, 1]) for n in "abc"]
    ranked = rank_cases(cases, BALANCED)
    assert names(ranked) == ["a", "b", "c"]
    assert all(np.isfinite(entry.score) for entry in ranked)


def test_scores_descend_and_lie_between_0_and_1() -> None:
    rng = np.random.default_rng(1)
    cases = [case(str(n), rng.choice(["accepted", "predicted"]), rng.random(), rng.normal(size=8)) for n in range(200)]
    scores = [entry.score for entry in rank_cases(cases, BALANCED)]
    assert all(a >= b for a, b in pairwise(scores))
    assert min(scores) >= 0 and max(scores) <= 1


def test_the_reason_is_a_sentence_a_reader_understands() -> None:
    outlined = [case(f"o{n}", "accepted", place=[n * 0.1, 0]) for n in range(4)]
    rng = np.random.default_rng(0)
    waiting = [case(f"w{n}", uncertainty=0.1 + 0.005 * n, place=rng.normal(size=2)) for n in range(41)]
    waiting.append(case("top", uncertainty=0.31, place=[9, 9]))
    top = rank_cases(outlined + waiting, BALANCED)[0]
    assert top.case.name == "top"
    assert top.reason == "uncertain (0.31, the highest of 42); unlike the 4 cases outlined so far"


def test_no_case_of_a_poor_model_is_called_certain() -> None:
    cases = [case("o", "accepted"), case("a", uncertainty=0.91), case("b", uncertainty=0.88)]
    reasons = {entry.case.name: entry.reason for entry in rank_cases(cases, BALANCED)}
    assert reasons["a"].startswith("uncertain (0.91, the highest of 2)")
    assert reasons["b"].startswith("less uncertain than others (0.88, the 2nd highest of 2)")


def test_why_a_rather_certain_case_can_be_worth_it() -> None:
    cases = [case("o", "accepted", place=[0, 0])]
    cases += [case(f"w{n}", uncertainty=0.3 - 0.05 * n, place=[n**2, 0]) for n in range(1, 5)]
    reasons = {entry.case.name: entry.reason for entry in rank_cases(cases, BALANCED)}
    assert reasons["w4"] == (
        "rather certain (0.10, the 4th highest of 4), but unlike the case outlined so far: "
        "on such scans a model can be sure and wrong"
    )
    assert reasons["w1"] == "uncertain (0.25, the highest of 4); similar to the case outlined so far"
