# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from BARLSegmentationLib.logic.Prediction import Model, VolumePrediction
from BARLSegmentationLib.logic.Signal import Signal
from BARLSegmentationLib.widgets.Pieces import Pieces

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from barl.errors import BarlError
    from barl.worker.client import Pending
    from barl.worker.messages import Event, Prediction
    from slicer import vtkMRMLScalarVolumeNode

    from BARLSegmentationLib.logic.Session import Session
    from BARLSegmentationLib.widgets.WorkerLink import WorkerLink


class PredictVolumes:
    """Predicts volumes that belong to no case: writes them to files piece by piece, asks the worker, and shows
    what comes back.

    Args:
        session: What all panels share.
        worker: The process that predicts.

    Attributes:
        progressed: The writing or the worker has come further (``Event``).
        ended: The prediction has ended; gives segmentation and uncertainty, new nodes, or None and None.
    """

    def __init__(self, session: Session, worker: WorkerLink) -> None:
        self.session, self.worker = session, worker
        self.progressed, self.ended = Signal(), Signal()
        self._prediction: VolumePrediction | None = None  # with its files
        self._writing: Iterator[float] | None = None  # what is left of the files to write
        self._pending: Pending | None = None
        self._reading: Pieces | None = None  # what has come back

    @property
    def isIdle(self) -> bool:
        return self._prediction is None

    def start(
        self,
        model: Model,
        volumes: list[vtkMRMLScalarVolumeNode],
        device: str,
        fast: bool,
        roi: list[float] | None,
        cleanUp: bool = True,
    ) -> None:
        with self.session.reporting():
            self._prediction = VolumePrediction(model, volumes, slicer.app.temporaryPath)
            self._writing = self._prediction.write()
            self._means = (device, fast, roi, cleanUp)
            self._writeSoon()

    def cancel(self) -> None:
        if self._writing is not None:
            self._end()
            self.ended.emit(None, None)
            self.session.status(_("Cancelled."))
        else:
            self.worker.cancel(self._pending)

    def forget(self) -> None:
        """Cancel, and ignore the answer."""
        self.worker.cancel(self._pending)
        self._end()

    def _writeSoon(self) -> None:
        qt.QTimer.singleShot(0, self._writeOn)

    def _writeOn(self) -> None:
        """Write the next piece of the volumes and come back, until the worker can have them."""
        from barl.errors import BarlError, storage_error
        from barl.worker.messages import Event

        if self._writing is None:  # cancelled
            return
        try:
            share = next(self._writing, None)
        except BarlError as error:
            self._onFailed(error)
            return
        except OSError as error:
            self._onFailed(storage_error(error, slicer.app.temporaryPath))
            return
        if share is not None:
            self.progressed.emit(Event("progress", "writing", share))
            self._writeSoon()
            return
        self._writing = None
        self._pending = self.worker.request(
            self._prediction.request(*self._means),
            onEvent=self._onEvent,
            onResult=self._onPredicted,
            onError=self._onFailed,
        )

    def _onEvent(self, event: Event) -> None:
        if self._prediction is not None and event.event == "progress":
            self.progressed.emit(event)

    def _onPredicted(self, predicted: Prediction) -> None:
        if self._prediction is not None:
            self._reading = Pieces(self._prediction.readAhead(), lambda ahead: self._onRead(predicted, ahead))

    def _onRead(self, predicted: Prediction, ahead: dict[Path, np.ndarray]) -> None:
        from barl.images.familiarity import is_unlike

        prediction, changed = self._prediction, self._prediction.changed()
        nodes = self.session.ask(prediction.load, ahead, otherwise=None)
        self._end()
        segmentation, uncertainty = nodes or (None, None)
        if segmentation is not None:
            showVolume(prediction.volumes[0])
        self.ended.emit(segmentation, uncertainty)
        if nodes is None:
            return  # why is on the status line
        if segmentation is None:
            self.session.status(_("The volume was removed meanwhile; its prediction was discarded."), error=True)
            return
        ready = _("{name} is ready.").format(name=segmentation.GetName())
        doubtful = bool(changed) or any(map(is_unlike, predicted.notes))
        if changed:
            text = _("It was made from what {names} held when the prediction began: that was changed meanwhile.")
            ready = f"{ready} {text.format(names=', '.join(changed))}"
        self.session.status(" ".join([ready, *predicted.notes]), error=doubtful)

    def _onFailed(self, error: BarlError) -> None:
        from barl.errors import Cancelled

        if self._prediction is None:
            return
        text = self._prediction.inWords(error)
        self._end()
        self.ended.emit(None, None)
        self.session.status(text, error=not isinstance(error, Cancelled))

    def _end(self) -> None:
        self._writing = self._pending = None
        if self._reading is not None:
            self._reading.stop()
        if self._prediction is not None:
            self._prediction.close()
            self._prediction = None


def showVolume(volume: vtkMRMLScalarVolumeNode) -> None:
    """Show a volume in the slice views; views that show it already keep their position."""
    views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")  # without a main window there are none
    if volume.GetID() not in [view.GetBackgroundVolumeID() for view in views]:
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
