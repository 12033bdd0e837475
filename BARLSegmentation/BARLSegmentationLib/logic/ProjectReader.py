# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from barl.project.store import Case, Project


class ProjectReader:
    """The project folder that the module shows. It is opened for reading only: looking never locks anyone out.

    Errors are ``barl.errors.BarlError``: one sentence, and one that says what to do.
    """

    def __init__(self) -> None:
        self.project: Project | None = None

    def open(self, folder: str | Path) -> None:
        """Open the project in ``folder``; the one that was open before is closed, also when this one fails."""
        from barl.project.store import Project

        self.close()
        self.project = Project.open(Path(folder), read_only=True)

    def close(self) -> None:
        if self.project is not None:
            self.project.close()
            self.project = None

    def cases(self) -> list[Case]:
        """All cases, in the order in which they were added; empty if no project is open."""
        return self.project.cases() if self.project is not None else []

    @staticmethod
    def stateCounts(cases: list[Case]) -> dict[str, int]:
        """How many cases are in each state that occurs."""
        return dict(Counter(case.state for case in cases))
