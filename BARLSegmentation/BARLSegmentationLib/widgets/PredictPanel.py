# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from BARLSegmentationLib.widgets.Panel import Panel


class PredictPanel(Panel):
    """Predicts cases of the project or volumes of the scene."""

    uiName = "PredictPanel"
