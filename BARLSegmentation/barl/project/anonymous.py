# SPDX-License-Identifier: Apache-2.0
"""Cases that are numbered instead of named, with a list outside of the project that says which case is which."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from barl.errors import InputError, storage_error
from barl.project.files import write_atomically
from barl.project.names import key
from barl.project.scans import NewCase
from barl.project.store import Project

_HEADS = ("case", "name", "subject", "their subject")
_NUMBER = re.compile(r"case_(\d+)")


@dataclass
class NameList:
    """The names of numbered cases, kept in a CSV file.

    Attributes:
        path: The file.
        rows: Number of a case -> the name that its files have, its subject in the project and the one they name.
    """

    path: Path
    rows: dict[str, tuple[str, str, str]]

    @classmethod
    def beside(cls, project: Project, path: Path | None = None) -> NameList:
        """The list of a project, by default ``PROJECT-names.csv`` beside its folder.

        Raises:
            InputError: The file lies in the project, or holds something else.
            StorageError: It cannot be read.
        """
        path = (path or project.folder.parent / f"{project.folder.name}-names.csv").absolute()
        if path.resolve().is_relative_to(project.folder.resolve()):
            raise InputError(
                "The list of names lies in the project's folder.", "Name a file outside of the project with --list."
            )
        if not path.exists():
            return cls(path, {})
        try:
            rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
        except UnicodeDecodeError:
            rows = []
        except OSError as error:
            raise storage_error(error, path) from error
        if not rows or tuple(rows[0]) != _HEADS or any(len(row) != len(_HEADS) for row in rows):
            raise InputError(f"{path.name} is no list of names.", "Name another file with --list.")
        return cls(path, {case: (name, subject, theirs) for case, name, subject, theirs in rows[1:]})

    def number(self, project: Project, cases: Sequence[NewCase]) -> list[NewCase]:
        """The cases with numbers as names, entered in the list; cases that are listed keep their number."""
        numbers = {key(name): case for case, (name, _, _) in self.rows.items()}
        subjects = {theirs: subject for _, subject, theirs in self.rows.values() if theirs}
        taken = [case.id for case in (*project.cases.all(), *project.cases.deleted())]
        taken += [case.name for case in project.cases.all()] + list(self.rows)
        last = max((int(match[1]) for name in taken if (match := _NUMBER.fullmatch(name))), default=0)
        numbered = []
        for case in cases:
            number = numbers.get(key(case.name))
            if number is None:
                last += 1
                number = f"case_{last:04d}"
            group = ""
            if case.group:
                group = subjects.setdefault(case.group, f"subject_{len(subjects) + 1:04d}")
            self.rows[number] = (case.name, group, case.group)
            numbered.append(replace(case, name=number, group=group, neutral=True))
        return numbered

    def write(self) -> None:
        """Write the file.

        Raises:
            StorageError: It cannot be written.
        """
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([_HEADS, *((case, *row) for case, row in self.rows.items())])
        # Without the mark of utf-8-sig Excel breaks accents.
        write_atomically(self.path, lambda file: file.write_text(text.getvalue(), encoding="utf-8-sig"))

    def forget(self, numbers: Sequence[str]) -> None:
        """Take cases that were not added out of the list."""
        for number in numbers:
            self.rows.pop(number, None)
