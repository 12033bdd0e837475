# SPDX-License-Identifier: Apache-2.0
"""Names that users give to cases, labels, channels and projects."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from barl.errors import InputError

LONGEST = 120


def clean(text: str) -> str:
    """``text`` with single spaces and composed accents: files of a Mac have accents apart from their letters."""
    return " ".join(unicodedata.normalize("NFC", str(text)).split())


def key(name: str) -> str:
    """What two equal names have in common."""
    return clean(name).casefold()


def check_name(text: str, what: str) -> str:
    """A name as it is stored.

    Args:
        text: As the user typed it.
        what: What it is the name of, such as "case".

    Raises:
        InputError: It is empty, too long, or holds characters that cannot be shown.
    """
    name = clean(text)
    if not name:
        raise InputError(f"The {what} has no name.", "Give it a name.")
    if len(name) > LONGEST:
        raise InputError(
            f"The name of the {what} has {len(name)} characters: {name[:40]!r}...", f"Use at most {LONGEST}."
        )
    if not name.isprintable():
        raise InputError(
            f"The name of the {what} holds characters that cannot be shown: {name!a}.", "Use letters, digits and signs."
        )
    return name


# Words of three letters with which files of scans begin, and not initials.
_WORDS = "sub|pat|img|vol|ses|mri|pet|dwi|adc|cta|mra|swi|epi|tse|nii|seg|ref|raw|tmp|new|run|day|pre|hip|dim|fov|iso"
_MONTH, _DAY = "(?:0?[1-9]|1[0-2])", "(?:0?[1-9]|[12]\\d|3[01])"
_DATE = re.compile(
    r"(?<!\d)(?:"
    r"(?:19|20)\d\d([-_.]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])"  # 1975-03-21, 19750321
    rf"|{_DAY}\.{_MONTH}\.(?:19|20)?\d\d"  # 21.3.75
    rf"|{_DAY}([-_ ]){_DAY}\2(?:19|20)\d\d"  # 21-03-1975, 03_21_1975
    r")(?!\d)"
)
# The type of numbers "int16" is exempt, "INT01" is not.
_INITIALS = re.compile(rf"(?!(?:{_WORDS})\d|int(?:16|32|64)(?!\d))[a-z]{{3}}\d{{2,}}(?!\d)", re.IGNORECASE)
# "Doe, John" and "DOE,J", not the numbers of "spacing 0.3,0.3".
_COMMA = re.compile(r"[^\W\d_][.)]?\s*,|,\s*[^\W\d_]")


def may_be_a_patients(name: str) -> bool:
    """Whether a name looks as if it named a patient.

    It has a comma beside a letter, a caret, a date, or begins with three letters and digits.
    """
    text = clean(name)
    return "^" in text or bool(_COMMA.search(text) or _DATE.search(text) or _INITIALS.match(text))


# Of a file's name in bytes, without its ending: most drives hold 255 with it.
_LONGEST_FILE = 200
# Windows takes files of these names, with any ending, for devices.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


def file_names(names: Sequence[str]) -> dict[str, str]:
    """Name -> the name of a file (without ending) on any operating system, as near to it as possible, none twice."""
    chosen: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        fit = re.sub(r"[^\w.+-]+", "_", clean(name))
        fit = fit.encode()[:_LONGEST_FILE].decode(errors="ignore").strip("._") or "case"
        fit = f"case_{fit}" if _DEVICES.match(fit) else fit
        number, unique = 1, fit
        while unique.casefold() in taken:
            number += 1
            unique = f"{fit}_{number}"
        taken.add(unique.casefold())
        chosen[name] = unique
    return chosen


def patients_names(names: Sequence[str]) -> list[str]:
    """The names that may be patients'. Three letters that all names of a folder begin with are not initials."""
    found = [name for name in names if may_be_a_patients(name)]
    if len(names) > 1 and len({key(name)[:3] for name in names}) == 1:
        found = [name for name in found if may_be_a_patients(clean(name)[3:])]
    return found
