# SPDX-License-Identifier: Apache-2.0
"""Names that belong together though one of them has something added: ``case7`` and ``case7_seg``."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from barl.project.names import key

# What nnU-Net adds to the name of a case's first image; any other number makes another case.
_FIRST_CHANNEL = "0000"


@dataclass(frozen=True)
class Match:
    """A file that belongs to a case.

    Attributes:
        case, file: Their names; a file's without its ending.
        added: What one of the names has more than the other, such as ``_seg``; empty: they are equal.
    """

    case: str
    file: str
    added: str = ""


@dataclass
class Matches:
    """Which files belong to which cases.

    Attributes:
        pairs: At most one for each case and each file.
        unmatched: Files that belong to no case.
        unclear: Files of which several belong to one case, with the case's name.
    """

    pairs: list[Match] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    unclear: dict[str, str] = field(default_factory=dict)


def match_names(cases: Sequence[str], files: Sequence[str]) -> Matches:
    """Find the file of each case: by equal names, else by names of which one goes on where the other ends.

    The part that goes on is set off by a character that is no letter or digit. A number among its words makes another
    case (``case_1`` and ``case_1_2`` or ``case_1_2_seg``), but for ``_0000``. A file goes to the case with the longest
    such name.

    Args:
        cases: Names of cases; upper and lower case are the same.
        files: Names of files without their endings.
    """
    found = Matches()
    by_key = {key(case): case for case in cases}
    rest = []
    keys = Counter(key(file) for file in files)
    for file in files:
        if (case := by_key.get(key(file))) is None:
            rest.append(file)
        elif keys[key(file)] > 1:
            found.unclear[file] = case
        else:
            found.pairs.append(Match(case, file))
    by_key = {name: case for name, case in by_key.items() if name not in keys}
    candidates: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file in rest:
        additions = [(case, _added(key(case), key(file))) for case in by_key.values()]
        near = [(case, added) for case, added in additions if added]
        if near:
            case, added = max(near, key=lambda pair: len(pair[0]))
            candidates[case].append((file, added))
        else:
            found.unmatched.append(file)
    for case, several in candidates.items():
        if len(several) == 1:
            found.pairs.append(Match(case, *several[0]))
        else:
            found.unclear |= {file: case for file, _ in several}
    return found


def matched_note(match: Match, what: str = "outline") -> str:
    """The sentence about an outline or a mask whose name is not equal to its case's."""
    return f"The {what} was matched to the scan by a name that differs by '{match.added}'."


def _added(one: str, other: str) -> str:
    """What the longer name has at its end or beginning beside the shorter one; empty if they are no such pair."""
    short, long = sorted((one, other), key=len)
    rest, joint = "", ""
    if long.startswith(short):
        rest = long[len(short) :]
        joint = rest[:1]
    elif long.endswith(short):
        rest = long[: -len(short)]
        joint = rest[-1:]
    if not rest or joint.isalnum():
        return ""
    words = re.findall(r"[^\W_]+", rest)
    return "" if not words or any(word.isdigit() and word != _FIRST_CHANNEL for word in words) else rest
