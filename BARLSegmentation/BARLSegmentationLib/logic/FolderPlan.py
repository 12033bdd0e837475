# SPDX-License-Identifier: Apache-2.0
"""What will be added of a folder with the scans of many cases, and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Words import caseCountText

if TYPE_CHECKING:
    from barl.project.labels import Channel
    from barl.worker.messages import AddedCases, CaseFiles, DatasetContent

Partner = TypeVar("Partner")


def pairsOf(proposed: Sequence[Partner | None], chosen: Mapping[int, Partner | None]) -> list[Partner | None]:
    """What belongs to each row, so that nothing belongs to two of them.

    Arrow keys and the wheel pass over the entries of a list, and each counts as chosen: what a row takes on the way
    goes back to the row that it was proposed or chosen for.

    Args:
        proposed: What belongs to each row unless something is chosen.
        chosen: Row -> what was chosen for it, the latest choice last.
    """
    found = dict(enumerate(proposed))
    taken: list[Partner] = []
    for row, partner in reversed(list(chosen.items())):
        found[row] = None if partner in taken else partner
        if partner is not None:
            taken.append(partner)
    for row, partner in enumerate(proposed):
        if row not in chosen and partner in taken:
            found[row] = None
    return list(found.values())


@dataclass
class PlannedCase:
    """A case of the folder.

    Attributes:
        found: What the folder has of it.
        name: What it will be called.
        outline: Its outline.
        wanted: It will be added.
        result: What became of it, in words.
        isDone: It was added.
        series: For each channel which series of its DICOM folder; None: the only one.
    """

    found: CaseFiles
    name: str
    outline: Path | None
    wanted: bool = True
    result: str = ""
    isDone: bool = False
    series: list[str] | None = None

    @property
    def dicomFolder(self) -> str:
        """The folder with its DICOM files; empty if its scan is files."""
        path = self.found.channels[0]
        return path if isinstance(path, str) and Path(path).is_dir() else ""

    @property
    def outlineName(self) -> str:
        return self.outline.name if self.outline is not None else ""


@dataclass(frozen=True)
class LeftOutFile:
    """A file or folder that makes no case, and why."""

    name: str
    state: str


class FolderPlan:
    """The cases of a folder, and the files that make none.

    Args:
        cases: What can be added.
        leftOut: What cannot.
        spare: Outlines without a scan.
        taken: Names of cases that the project has.

    Attributes:
        notes: Sentences about the folder as a whole.
    """

    def __init__(
        self,
        cases: list[PlannedCase],
        leftOut: list[LeftOutFile],
        spare: Sequence[Path] = (),
        taken: Collection[str] = (),
    ) -> None:
        self.cases, self.leftOut, self.spare = cases, leftOut, list(spare)
        self._taken = {name.casefold() for name in taken}
        self._proposed = [case.outline for case in cases]
        paths = dict.fromkeys([*filter(None, self._proposed), *self.spare])
        equal = Counter(path.name for path in paths)  # in a folder for each case, all outlines may have one name
        self._outlines = {p.name if equal[p.name] == 1 else f"{p.parent.name}/{p.name}": p for p in paths}
        self._chosen: dict[int, Path | None] = {}
        self.notes: list[str] = []

    @classmethod
    def of(
        cls, images: Path, channels: Sequence[Channel], outlines: Path | None, taken: Collection[str] = ()
    ) -> FolderPlan:
        """Look into a folder; outlines whose names differ from their scans' by the same words are paired with them.

        Args:
            images: The folder with the scans.
            channels: The project's.
            outlines: The folder with the outlines.
            taken: Names of cases that the project has.

        Raises:
            barl.errors.BarlError: A folder is missing or holds no scan, or channels lack patterns.
        """
        from barl.project.case_finding import find_cases
        from barl.project.pairing import propose_pairs
        from barl.project.scans import stem
        from barl.worker.messages import CaseFiles

        content = find_cases(images, channels, outlines)
        spare = {stem(path): path for path in content.outlines}
        pairs = propose_pairs([case.name for case in content.cases if case.label is None], list(spare))
        cases = [
            PlannedCase(
                CaseFiles(found.name, [str(path) for path in found.channels]),
                found.name,
                found.label or spare.get(pairs.get(found.name, "")),
            )
            for found in content.cases
        ]
        paired = {spare[name].name for name in pairs.values()}
        leftOut = [LeftOutFile(item.name, str(item.reason)) for item in content.left_out if item.name not in paired]
        plan = cls(cases, leftOut, [path for path in content.outlines if path.name not in paired], taken)
        plan._leaveTakenOut()
        return plan

    @classmethod
    def ofDataset(cls, content: DatasetContent, taken: Collection[str] = ()) -> FolderPlan:
        """The cases of a data set, as the worker lists them."""
        cases = [PlannedCase(found, found.name, Path(found.label) if found.label else None) for found in content.cases]
        leftOut = [LeftOutFile(item.name, f"{item.message} {item.remedy}".strip()) for item in content.left_out]
        plan = cls(cases, leftOut, [Path(path) for path in content.outlines], taken)
        plan.notes = list(content.notes)
        plan._leaveTakenOut()
        return plan

    def _leaveTakenOut(self) -> None:
        for case in self.cases:
            case.wanted = not self.isTaken(case)

    def isTaken(self, case: PlannedCase) -> bool:
        """Whether the project has a case of this name."""
        return case.name.casefold() in self._taken

    def stateOf(self, case: PlannedCase) -> str:
        """What will happen with a case, or what has happened, in words."""
        if case.result:
            return case.result
        if self.isTaken(case):
            return _("Left out: the project has a case of this name. Rename it to add it.")
        if not case.wanted:
            return _("Left out.")
        if case.series:
            outline = case.outlineName or _("no outline")
            return _("Will be added from the series {series}, with {outline}.").format(
                series=", ".join(case.series), outline=outline
            )
        if case.outline is None:
            return _("Will be added without an outline.")
        if self.isSure(case):
            return _("Will be added with its outline.")
        return _("Will be added with the outline {name}: is it of this scan?").format(name=case.outlineName)

    def hasNews(self) -> bool:
        """Whether anything was left out or changed that the user should see."""
        done = (_("Added."), _("Added with its outline."))
        return bool(self.leftOut) or any(case.result not in done for case in self.cases)

    def shortStateOf(self, case: PlannedCase) -> str:
        """The same in a word or two."""
        if case.isDone:
            return _("added")
        if case.result:
            return _("not added")
        if not case.wanted or self.isTaken(case):
            return _("left out")
        if case.outline is None:
            return _("add")
        return _("add") if self.isSure(case) else _("add: check outline")

    @staticmethod
    def isSure(case: PlannedCase) -> bool:
        """Whether the outline has the name of its scan, or the layout of the folder says that it is its outline."""
        from barl.project.scans import stem

        if case.outline is None:
            return False
        return stem(case.outline) == case.found.name or (str(case.outline) == case.found.label and not case.found.notes)

    def inWords(self) -> str:
        """How much is added and how much is not."""
        if not self.cases and not self.leftOut:
            return " ".join(self.notes)
        wanted = [case for case in self.cases if case.wanted and not case.isDone]
        done = [case for case in self.cases if case.isDone]
        text = [_("{cases} will be added, {n} with an outline.").format(
            cases=caseCountText(len(wanted)), n=sum(case.outline is not None for case in wanted)
        )] if wanted else []  # fmt: skip
        if done:
            text.append(_("{cases} were added.").format(cases=caseCountText(len(done))))
        left = len(self.leftOut) + len(self.cases) - len(wanted) - len(done)
        if left:
            words = (
                _("1 is left out: select a row to see why.")
                if left == 1
                else _("{n} are left out: select a row to see why.")
            )
            text.append(words.format(n=left))
        return " ".join([*text, *self.notes])

    def outlineNames(self) -> list[str]:
        """The names of all outlines there are, with their folder where a name is not of one alone."""
        return sorted(self._outlines)

    def outlineNameOf(self, case: PlannedCase) -> str:
        """The name of a case's outline among ``outlineNames``; empty without one."""
        return next((name for name, path in self._outlines.items() if path == case.outline), "")

    def setOutline(self, chosen: PlannedCase, name: str) -> None:
        """Give a case another outline, or none; a case that had it has none as long as this one keeps it."""
        row = next(n for n, case in enumerate(self.cases) if case is chosen)
        self._chosen.pop(row, None)
        self._chosen[row] = self._outlines.get(name)
        chosen.wanted, chosen.result = True, ""
        for case, outline in zip(self.cases, pairsOf(self._proposed, self._chosen), strict=True):
            case.outline = outline
        held = {case.outline for case in self.cases}
        spare = {other: path for other, path in sorted(self._outlines.items()) if path not in held}
        known = {*self._outlines, *(path.name for path in self._outlines.values())}
        unpaired = _("There is no scan for this outline.")
        self.leftOut = [item for item in self.leftOut if item.name not in known]
        self.leftOut += [LeftOutFile(other, unpaired) for other in spare]
        self.spare = list(spare.values())

    def setSeries(self, chosen: PlannedCase, series: Sequence[str], others: Sequence[str] | None = None) -> None:
        """Say which series of its DICOM folder makes each channel of a case.

        Args:
            series: For each channel its number or description.
            others: The same for all other cases that are folders with DICOM files; None: they stay as they are.
        """
        for case in self.cases:
            wanted = series if case is chosen else others
            if wanted and not case.isDone and case.dicomFolder:
                case.series, case.result = list(wanted), ""

    def rename(self, case: PlannedCase, name: str, wanted: bool) -> None:
        """Give a case another name, or tick or untick it."""
        renamed = name != case.name
        case.name, case.wanted, case.result = name, wanted, ""
        if renamed:
            case.wanted = not self.isTaken(case)

    def number(self, numbered: bool) -> None:
        """Name the cases by numbers, or after their files."""
        number = 0
        for case in self.cases:
            if case.isDone:
                continue
            case.name = case.found.name
            while numbered:
                number += 1
                case.name = f"case_{number:03d}"
                if not self.isTaken(case):
                    break
            case.wanted = not self.isTaken(case)

    def files(self, heldOut: bool) -> list[CaseFiles]:
        """What to ask the worker for.

        Args:
            heldOut: All of them are held out, not only those that the folder keeps for that.

        Raises:
            barl.errors.InputError: No case is ticked, or two have one name.
        """
        from barl.errors import InputError

        wanted = [case for case in self.cases if case.wanted and not case.isDone]
        if not wanted:
            raise InputError(_("No case is ticked."), _("Tick the cases to add."))
        names = Counter(case.name.casefold() for case in wanted)
        if twice := next((case.name for case in wanted if names[case.name.casefold()] > 1), None):
            raise InputError(_("Two cases are named {name!r}.").format(name=twice), _("Rename one of them."))
        return [
            replace(
                case.found,
                name=case.name,
                label=str(case.outline) if case.outline is not None else None,
                held_out=case.found.held_out or heldOut,
                series=case.series or case.found.series,
            )
            for case in wanted
        ]

    def settle(self, answer: AddedCases) -> None:
        """Note what became of the cases that were sent."""
        added = {case.name: case for case in answer.cases}
        failed = {case.name: case for case in answer.failed}
        for case in self.cases:
            if case.name in added:
                notes = " ".join(added[case.name].notes)
                done = _("Added with its outline.") if added[case.name].state == "accepted" else _("Added.")
                case.isDone, case.result = True, f"{done} {notes}".strip()
                self._taken.add(case.name.casefold())
            elif case.name in failed:
                reason = failed[case.name]
                case.result = _("Not added: {reason}").format(reason=f"{reason.message} {reason.remedy}")
