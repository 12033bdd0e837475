# SPDX-License-Identifier: Apache-2.0
"""Finds the outlines of scans whose names differ from theirs by the same words, such as ``a_0000`` and ``a_seg``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice

# What two names begin and end with beside what they share: of the case's name and of the outline's.
_Affixes = tuple[str, str, str, str]
_WORD = re.compile(r"\d+|[^\W\d_]+|[\W_]+")
_SAMPLE = 30
_SHORTEST = 3
"""What two names share must hold a number or a word of so many letters."""


def propose_pairs(cases: Sequence[str], outlines: Sequence[str]) -> dict[str, str]:
    """Which outline belongs to which case, from names that are not equal.

    Every pair differs by words that at least as many other pairs differ by as by any other words; a number is never
    divided. A case or an outline is in one pair at most.

    Args:
        cases: Names of cases without an outline.
        outlines: Names of outlines without a case, without the endings of files.

    Returns:
        Case -> outline; to be shown to the user before it is used.
    """
    found: dict[str, str] = {}
    open_cases, open_outlines = list(cases), list(outlines)
    while affixes := _most_common(open_cases, open_outlines):
        pairs = _pairs(open_cases, open_outlines, affixes)
        found |= pairs
        open_cases = [name for name in open_cases if name not in pairs]
        open_outlines = [name for name in open_outlines if name not in pairs.values()]
    return found


def _most_common(cases: Sequence[str], outlines: Sequence[str]) -> _Affixes | None:
    """The words by which most pairs differ; of equally many the shortest."""
    candidates: Counter[_Affixes] = Counter()
    for outline in outlines[:_SAMPLE]:
        candidates.update({a for case in islice(cases, 10 * _SAMPLE) if (a := _difference(case, outline))})
    return max(
        candidates,
        key=lambda affixes: (len(_pairs(cases, outlines, affixes)), -sum(map(len, affixes)), affixes),
        default=None,
    )


def _pairs(cases: Sequence[str], outlines: Sequence[str], affixes: _Affixes) -> dict[str, str]:
    before, after, other_before, other_after = affixes
    cores = {core: name for name in outlines if (core := _core(name, other_before, other_after)) is not None}
    return {name: cores[core] for name in cases if (core := _core(name, before, after)) in cores}


def _core(name: str, before: str, after: str) -> str | None:
    """The name without its affixes; None if it lacks them, or if they would divide a word."""
    if len(name) <= len(before) + len(after) or not (name.startswith(before) and name.endswith(after)):
        return None
    core = name[len(before) : len(name) - len(after)]
    whole = _WORD.findall(before) + _WORD.findall(core) + _WORD.findall(after)
    return core if whole == _WORD.findall(name) else None


def _difference(case: str, outline: str) -> _Affixes | None:
    """The affixes around the longest run of words that both names hold; None if it is too short to mean anything."""
    words, others = _WORD.findall(case), _WORD.findall(outline)
    best = (0, 0, 0, 0)  # characters, where it begins in both, number of words
    for i in range(len(words)):
        for j in range(len(others)):
            n = 0
            while i + n < len(words) and j + n < len(others) and words[i + n] == others[j + n]:
                n += 1
            best = max(best, (sum(map(len, words[i : i + n])), i, j, n))
    _size, i, j, n = best
    shared = words[i : i + n]
    left, right = (words[:i], others[:j]), (words[i + n :], others[j + n :])
    # Two numbers at one place are two cases.
    if any(_has_number(own) and _has_number(other) for own, other in (left, right)):
        return None
    if not _has_number(shared) and not any(word.isalpha() and len(word) >= _SHORTEST for word in shared):
        return None
    return "".join(left[0]), "".join(right[0]), "".join(left[1]), "".join(right[1])


def _has_number(words: Sequence[str]) -> bool:
    return any(word.isdigit() for word in words)
