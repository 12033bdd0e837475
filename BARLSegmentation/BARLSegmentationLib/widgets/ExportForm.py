# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Words import caseCountText
from BARLSegmentationLib.widgets.CaseSources import comboWidget, pathWidget
from BARLSegmentationLib.widgets.ExchangeForm import ExchangeForm

if TYPE_CHECKING:
    from barl.worker.messages import ExportCases, ExportedCases

TO_TRAIN_ON = ("nnunet", "monai")  # predictions do not belong there
MOST_NOTES = 3  # in the status line


class ExportForm(ExchangeForm):
    """Writes the outlines of all cases for other programs."""

    action, tip = _("Export"), _("Write the accepted outlines of all cases into a new folder")

    def lay(self) -> None:
        self.layoutComboBox = self.addRow(
            _("As:"),
            comboWidget(
                _("What to write; each export holds a list of its files, versions and models (manifest.json)"),
                [
                    (_("Data set of nnU-Net"), "nnunet"),
                    (_("Data set of MONAI (datalist)"), "monai"),
                    (_("NIfTI files, a folder for each case"), "plain"),
                    (_("Segmentations of Slicer (.seg.nrrd)"), "seg-nrrd"),
                    (_("DICOM segmentations"), "dicom-seg"),
                    (_("Surfaces (STL)"), "stl"),
                    (_("Surfaces (OBJ)"), "obj"),
                    (_("Tables of volumes and lesions (CSV)"), "table"),
                ],
            ),
        )
        self.layoutComboBox.connect("currentIndexChanged(int)", self.onLayout)
        self.folder = self.addRow(_("Folder:"), pathWidget(_("A new or empty folder"), folder=True))
        self.sourceLabel = qt.QLabel(_("DICOM series:"))
        self.source = pathWidget(
            _("Folder with the series that the scans came from; nothing of it is stored in the project"), folder=True
        )
        self.box.layout().addRow(self.sourceLabel, self.source)
        self.predictionsCheckBox = self.addRow("", qt.QCheckBox(_("Also predictions that nobody has accepted")))
        self.onLayout()

    @property
    def chosen(self) -> str:
        """The layout that is chosen."""
        return self.layoutComboBox.itemData(self.layoutComboBox.currentIndex)

    def onLayout(self, _index: int = 0) -> None:
        self.sourceLabel.visible = self.source.visible = self.chosen == "dicom-seg"
        toTrainOn = self.chosen in TO_TRAIN_ON
        self.predictionsCheckBox.enabled = not toTrainOn
        self.predictionsCheckBox.toolTip = (
            _("A data set to train on holds accepted outlines only")
            if toTrainOn
            else _("Write the newest prediction of each case without an accepted outline as well")
        )

    def request(self) -> ExportCases:
        """What to write.

        Raises:
            barl.errors.InputError: A folder is missing.
        """
        from barl.errors import InputError
        from barl.worker.messages import ExportCases

        folder, source = self.folder.currentPath.strip(), self.source.currentPath.strip()
        if not folder or not Path(folder).is_absolute():
            raise InputError(_("No folder is chosen."), _("Choose a new or empty folder with the ... button."))
        if self.chosen == "dicom-seg" and not source:
            raise InputError(
                _("A DICOM segmentation belongs to a DICOM series, of which the project holds nothing."),
                _("Choose the folder with the series that the scans came from."),
            )
        return ExportCases(
            str(self.session.project.folder),
            folder,
            self.chosen,
            self.predictionsCheckBox.enabled and self.predictionsCheckBox.checked,
            source if self.chosen == "dicom-seg" else None,
        )

    def done(self, answer: ExportedCases) -> tuple[str, bool]:
        """What was written and where."""
        text = _("Exported {cases} to {folder}; {names} says which file is which case and stays with you.").format(
            cases=caseCountText(answer.training + answer.held_out),
            folder=Path(answer.folder).name,
            names=Path(answer.names).name,
        )
        more = len(answer.notes) - MOST_NOTES
        words = _("And 1 more note.") if more == 1 else _("And {n} more notes.").format(n=more)
        return " ".join([text, *answer.notes[:MOST_NOTES], *([words] if more > 0 else [])]), False
