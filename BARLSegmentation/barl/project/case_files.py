# SPDX-License-Identifier: Apache-2.0
"""The files of a new case: their names in the project, and sentences about them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import SimpleITK as sitk

from barl.project.labels import Channel


def without_files(text: str, name: str, files: Sequence[Path | str | sitk.Image | None]) -> str:
    """A sentence with the case's name where it names one of the files."""
    for file in files:
        if isinstance(file, Path | str):
            path = Path(file)
            for word in (str(path), path.name, path.name.partition(".")[0]):
                text = text.replace(word, name)
    return text


def image_names(channels: Iterable[Channel]) -> list[str]:
    """File names from the channels' names where these are fit for it, else from their numbers."""
    names = [re.sub(r"[^A-Za-z0-9-]+", "_", channel.name).strip("_") for channel in channels]
    fit = all(names) and len({name.casefold() for name in names}) == len(names) and max(map(len, names)) <= 40
    return [f"image_{name if fit else position}.nii.gz" for position, name in enumerate(names)]
