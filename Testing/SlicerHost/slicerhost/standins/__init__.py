# SPDX-License-Identifier: Apache-2.0
"""Stand-ins of Slicer's Python modules that the wheel lacks, importable under Slicer's names after `install`."""

from __future__ import annotations

import importlib
import sys

import slicer

# In Slicer these are `slicer.<name>`.
_IN_SLICER = ("i18n", "ScriptedLoadableModule", "parameterNodeWrapper", "packaging")
# In Slicer these lie on the module search path.
_TOP_LEVEL = ("SampleData", "sitkUtils")
# In Slicer the compiled parts have these names.
_ALIASES = {
    "vtkSegmentationCore": "vtkSegmentationCore",
    "vtkSegmentationCorePython": "vtkSegmentationCore",
    "vtkAddon": "vtkAddonPython",
    "vtkITK": "vtkITK",
    "vtkTeem": "vtkTeem",
    "mrml": "MRMLCore",
}


def install() -> None:
    """Enters the stand-ins; needs `slicer.app` and the `qt` module. Once per process is enough."""
    for name in _IN_SLICER:
        module = importlib.import_module(f"{__name__}.{name}")
        sys.modules[f"slicer.{name}"] = module
        # slicer.packaging has to be imported explicitly in Slicer, too.
        if name != "packaging":
            setattr(slicer, name, module)
    for name in _TOP_LEVEL:
        sys.modules[name] = importlib.import_module(f"{__name__}.{name}")
    for name, real in _ALIASES.items():
        sys.modules.setdefault(name, importlib.import_module(f"slicer_core.{real}"))
