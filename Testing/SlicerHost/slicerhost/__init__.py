# SPDX-License-Identifier: Apache-2.0
"""Stand-in for Slicer's window: real MRML, VTK and Qt, with stand-ins for PythonQt, CTK and the qMRML widgets."""


def install() -> None:
    """Makes PySide6 behave as PythonQt and registers the modules `qt` and `ctk`; once per process."""
    from . import pythonqt

    qt = pythonqt.install()
    from . import ctkwidgets, uiloader

    qt.QUiLoader = uiloader.HostUiLoader
    ctkwidgets.install()
