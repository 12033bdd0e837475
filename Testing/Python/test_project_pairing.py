# SPDX-License-Identifier: Apache-2.0
"""Outlines whose names differ from their scans' by the same words."""

from __future__ import annotations

import time

import pytest
from barl.project.pairing import propose_pairs


@pytest.mark.parametrize(
    ("scan", "outline"),
    [
        ("la_{}_0000", "la_{}"),
        ("la_{}", "la_{}_seg"),
        ("img{}", "label{}"),
        ("T1_case-{}", "case-{}-lesion"),
        ("sub-{}_T1w", "sub-{}_dseg"),
    ],
)
def test_the_same_words_make_pairs(scan, outline):
    numbers = ("1", "2", "10", "11")
    cases, outlines = [scan.format(n) for n in numbers], [outline.format(n) for n in reversed(numbers)]
    assert propose_pairs(cases, outlines) == dict(zip(cases, outlines[::-1], strict=True))


def test_a_number_is_never_divided_and_a_chance_word_is_no_pair():
    assert propose_pairs(["case1"], ["case10"]) == {}
    assert propose_pairs(["patient_a"], ["tumor_a"]) == {}
    assert propose_pairs(["img_001"], ["mask_002"]) == {}
    assert propose_pairs(["sub-01_ses-2"], ["sub-01_ses-3_seg"]) == {}
    assert propose_pairs([], ["a1"]) == propose_pairs(["a1"], []) == {}


def test_the_words_of_most_pairs_come_first_and_the_others_are_left():
    cases = ["p1_t1", "p2_t1", "p3_t1", "p4_t1"]
    pairs = propose_pairs(cases, ["p1_seg", "p2_seg", "p3_seg", "q9_seg", "p4_final"])
    assert pairs == {"p1_t1": "p1_seg", "p2_t1": "p2_seg", "p3_t1": "p3_seg", "p4_t1": "p4_final"}


def test_thousands_of_names_take_no_time():
    cases, outlines = [f"case_{n}_0000" for n in range(5000)], [f"case_{n}" for n in range(5000)]
    begin = time.process_time()
    assert len(propose_pairs(cases, outlines)) == 5000
    assert time.process_time() - begin < 4
