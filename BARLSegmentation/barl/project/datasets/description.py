# SPDX-License-Identifier: Apache-2.0
"""``dataset.json``: what the channels and the values of a data set mean.

Of nnU-Net v2 (documentation/dataset_format.md of github.com/MIC-DKFZ/nnUNet), and of the Medical Segmentation
Decathlon, whose form nnU-Net v1 used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from barl.errors import InputError

FILE_NAME = "dataset.json"
_LARGEST = 64 * 2**20


@dataclass(frozen=True)
class Description:
    """The parts of a ``dataset.json`` that count here.

    Attributes:
        layout: ``nnU-Net`` or ``Decathlon``.
        channels: Names in order.
        labels: Value -> name, without background and without ``ignore``.
        ignore: The value that means "not looked at".
        files: Name of a case -> its images and its outline, relative to the folder, where the description lists them.
        notes: Sentences for the user.
        named: Names of the files of scans that the lists of the Decathlon's form name.
    """

    layout: str
    channels: tuple[str, ...]
    labels: Mapping[int, str]
    ignore: int | None
    files: Mapping[str, tuple[tuple[str, ...], str | None]]
    notes: tuple[str, ...]
    named: tuple[str, ...] = ()


def read_description(path: Path) -> Description:
    """Read a ``dataset.json``.

    Raises:
        InputError: It is missing, is not JSON, or its channels or labels are of no form in use.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("too large")
        data = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(data, dict):
            raise ValueError("no object")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path.name}' cannot be read as JSON.", "Copy the data set again.") from error
    try:
        is_nnunet = "channel_names" in data or "file_ending" in data
        channels = _in_order(data.get("channel_names") or data.get("modality") or {})
        labels, ignore, notes = _labels(data.get("labels") or {})
        files = _listed(data, is_nnunet)
        named = () if is_nnunet else _named(data)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"The channels or labels in '{path.name}' have a form that is not known.",
            "Write them as nnU-Net's documentation describes it.",
        ) from error
    return Description("nnU-Net" if is_nnunet else "Decathlon", channels, labels, ignore, files, tuple(notes), named)


def _in_order(names: Mapping[str, str] | list[str]) -> tuple[str, ...]:
    if isinstance(names, list):
        return tuple(str(name) for name in names)
    return tuple(str(names[number]) for number in sorted(names, key=int))


def _labels(table: Mapping[str, Any]) -> tuple[dict[int, str], int | None, list[str]]:
    """Value -> name, the ignored value, notes; from either form of the table."""
    pairs: list[tuple[str, Any]] = [
        (value, int(name)) if isinstance(value, str) else (str(name), value) for name, value in table.items()
    ]
    ignore = next((int(value) for name, value in pairs if name == "ignore"), None)
    plain: dict[int, str] = {}
    regions: list[tuple[str, list[int]]] = []
    for name, value in pairs:
        if name == "ignore" or value == 0:
            continue
        if isinstance(value, list) and len(value) > 1:
            regions.append((name, [int(part) for part in value]))
        else:
            plain[int(value[0] if isinstance(value, list) else value)] = name
    notes = []
    # A region (whole tumor: 1, 2 and 3) is no value; its name serves for the value that no smaller region names.
    for name, values in sorted(regions, key=lambda region: len(region[1])):
        free = [value for value in values if value not in plain]
        for value in free:
            plain[value] = name if len(free) == 1 else f"{name} {value}"
        named = ", ".join(f"{value} is called '{plain[value]}'" for value in free)
        notes.append(
            f"'{name}' is the region of the values {', '.join(map(str, values))}" + (f": {named}." if free else ".")
        )
    return dict(sorted(plain.items())), ignore, notes


def _listed(data: Mapping[str, Any], is_nnunet: bool) -> dict[str, tuple[tuple[str, ...], str | None]]:
    """The files that the description names, for those layouts in which its list and not the folder counts."""
    if not is_nnunet or not isinstance(data.get("dataset"), dict):
        return {}
    return {
        str(name): (tuple(str(path) for path in item["images"]), str(item["label"]) if item.get("label") else None)
        for name, item in data["dataset"].items()
    }


def _named(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the scans in the lists ``training`` and ``test``; a scan of several files is named by its first."""
    images = [item["image"] for item in data.get("training") or ()]
    images += [item["image"] if isinstance(item, dict) else item for item in data.get("test") or ()]
    return tuple(PurePosixPath(str(image[0] if isinstance(image, list) else image)).name for image in images)
