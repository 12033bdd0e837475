# SPDX-License-Identifier: Apache-2.0
"""Label tables as people type them: terminology as text, colors that can be told apart."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from barl.project.labels import Code, Terminology

# Categories, types and modifiers are those of Slicer's "Segmentation category and type - DICOM master list".
ANATOMY = "Anatomical Structure (SCT 123037004)"
TISSUE = "Tissue (SCT 85756007)"
ALTERED = "Morphologically Altered Structure (SCT 49755003)"

# Common meanings of labels, to choose from.
COMMON = (
    "Brain (SCT 12738006)",
    "Hippocampus (SCT 5366008); Left (SCT 7771000)",
    "Hippocampus (SCT 5366008); Right (SCT 24028007)",
    "White Matter (SCT 389080008)",
    "Spinal cord (SCT 2748008)",
    "Vertebra (SCT 51282000)",
    "Thyroid (SCT 69748006)",
    "Lung (SCT 39607008); Left (SCT 7771000)",
    "Lung (SCT 39607008); Right (SCT 24028007)",
    "Heart (SCT 80891009)",
    "Aorta (SCT 15825003)",
    "Breast (SCT 76752008); Left (SCT 7771000)",
    "Breast (SCT 76752008); Right (SCT 24028007)",
    "Liver (SCT 10200004)",
    "Gallbladder (SCT 28231008)",
    "Spleen (SCT 78961009)",
    "Pancreas (SCT 15776009)",
    "Stomach (SCT 69695003)",
    "Kidney (SCT 64033007); Left (SCT 7771000)",
    "Kidney (SCT 64033007); Right (SCT 24028007)",
    "Bladder (SCT 89837001)",
    "Prostate (SCT 41216001)",
    f"Bone (SCT 272673000);; {TISSUE}",
    f"Muscle (SCT 71616004);; {TISSUE}",
    f"Lymph node (SCT 59441001);; {TISSUE}",
    f"Neoplasm, Primary (SCT 86049000);; {ALTERED}",
    f"Neoplasm, Secondary (SCT 14799000);; {ALTERED}",
    f"Mass (SCT 4147007);; {ALTERED}",
    f"Nodule (SCT 27925004);; {ALTERED}",
    f"Cyst (SCT 367643001);; {ALTERED}",
    f"Edema (SCT 79654002);; {ALTERED}",
    f"Hemorrhage (SCT 50960005);; {ALTERED}",
    f"Necrosis (SCT 6574001);; {ALTERED}",
)

_CODE = re.compile(r"(?P<meaning>.+?)\s*\((?P<scheme>\S+)\s+(?P<value>\S+)\)")


def colorFor(position: int) -> tuple[int, int, int]:
    """A color for the n-th label, unlike those before."""
    from barl.project.palette import label_color

    return label_color(position)


def terminologyText(terminology: Terminology | None) -> str:
    """A coded meaning as text: "type; modifier; category", each as "meaning (scheme value)"."""
    if terminology is None:
        return ""
    kind, category = _text(terminology.type), _text(terminology.category)
    modifier = _text(terminology.modifier) if terminology.modifier else ""
    if category != ANATOMY:
        return f"{kind}; {modifier}; {category}".replace("; ;", ";;")
    return f"{kind}; {modifier}" if modifier else kind


def parseTerminology(text: str) -> Terminology | None:
    """The coded meaning of a text as ``terminologyText`` writes it; None for an empty one.

    Raises:
        barl.errors.InputError: It is not such a text.
    """
    from barl.errors import InputError
    from barl.project.labels import Terminology

    if not text.strip():
        return None
    parts = [part.strip() for part in text.split(";")]
    codes = [_code(part) if part else None for part in parts]
    if (
        len(parts) > 3
        or codes[0] is None
        or any(part and code is None for part, code in zip(parts, codes, strict=True))
    ):
        raise InputError(
            f"The terminology {text.strip()!r} cannot be read.",
            "Write it as Liver (SCT 10200004), add the side or another modifier and the category after semicolons, "
            "or leave it empty.",
        )
    kind, modifier, category = (*codes, None, None)[:3]
    return Terminology(category or _code(ANATOMY), kind, modifier)


def _code(text: str) -> Code | None:
    from barl.project.labels import Code

    found = _CODE.fullmatch(text)
    return Code(found["scheme"], found["value"], found["meaning"]) if found else None


def _text(code: Code | None) -> str:
    return f"{code.meaning} ({code.scheme} {code.value})"
