# SPDX-License-Identifier: Apache-2.0
"""Names of labels that programs write into the extensions of a NIfTI header.

Connectome Workbench defines the form (a ``LabelTable`` in XML); TotalSegmentator writes it into its label maps.
"""

from __future__ import annotations

import html
import re
import struct
from pathlib import Path

from barl.images.formats.content import beginning

_LONGEST = 2**20
_LABEL = re.compile(rb'<Label\s[^>]*?Key="(\d+)"[^>]*>(?:<!\[CDATA\[(.*?)\]\]>|([^<]*))</Label>', re.DOTALL)


def nifti_label_names(path: Path) -> dict[int, str]:
    """Value -> name; empty for a file without such a table.

    Raises:
        InputError: The file cannot be opened.
    """
    start = beginning(path, 352)
    if len(start) < 352 or start[344:348] != b"n+1\0" or start[348] == 0:
        return {}
    order = "<" if struct.unpack_from("<i", start) == (348,) else ">"
    (offset,) = struct.unpack_from(f"{order}f", start, 108)
    if not 352 < offset <= _LONGEST:
        return {}
    extensions = beginning(path, int(offset))[352:]
    return {
        int(value): html.unescape((data or plain).decode("utf-8", "replace")).strip()
        for value, data, plain in _LABEL.findall(extensions)
        if int(value) > 0
    }
