# SPDX-License-Identifier: Apache-2.0
"""Models that leave a project as one file, and models that come into one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from barl.errors import ModelError
from barl.jobs.bundles import convert_bundle, is_bundle
from barl.jobs.choice import choose_model
from barl.jobs.foreign_models import convert_nnunet, is_nnunet_model
from barl.models.archive import pack_model, unpack_model
from barl.models.disk import check_channels
from barl.models.disk import check_model as sound_model
from barl.project.labels import Label
from barl.project.model_card import ModelCard, read_card
from barl.project.models import weights_digest
from barl.project.names import key
from barl.project.records import ModelRow
from barl.project.store import Project


def export_model(project: Project | None, model: str | Path | None, file: Path) -> ModelCard:
    """Write a model into one file that can be sent.

    Args:
        project: Where ids are looked up; None: ``model`` is a folder.
        model: Its id or folder; None: the current model.
        file: A new file; its name ends with ``.zip``.

    Raises:
        BarlError: As ``pack_model``; or there is no such model.
    """
    folder = choose_model(project, model)[0] if project else Path(model or "")
    return pack_model(folder, file)


def check_model(source: Path) -> ModelCard:
    """Check a model's folder or file in every way in which a model is checked before it predicts.

    Raises:
        ModelError: With the first thing that is wrong.
    """
    with _model_folder(source, [], None) as folder:
        return sound_model(folder)


def in_words(card: ModelCard) -> str:
    """What a model finds, in one sentence."""
    labels = ", ".join(f"{label.value} {label.name}" for label in card.labels)
    return f"{card.name}: finds {labels} in {', '.join(card.channels)}."


def import_model(project: Project, source: Path, *, name: str = "") -> tuple[ModelRow, list[str]]:
    """Check a model's folder or file and copy it into a project.

    It becomes the current model only by ``promote``. Its card stays as it is. If the model that it was trained on from
    is in the project as well, the project enters that one as its parent. Where the project holds the same model with
    damaged or missing files, the files are replaced and no model is added.

    Args:
        project: Open for writing.
        source: A folder with a model, a file of ``export_model``, the folder of a trained nnU-Net v2 configuration, or
            a MONAI bundle.
        name: What the user calls it (empty: the name on its card).

    Returns:
        The model's row, and sentences for the user.

    Raises:
        ModelError: It is missing, damaged, in the project already, or made for other labels or channels.
        ProjectError: Another program is changing the project.
        StorageError: The disk is full or read-only.
    """
    notes: list[str] = []
    with _model_folder(source, notes, project.labels) as folder:
        card = sound_model(folder)
        twins = [row for row in project.models.all() if weights_digest(row) == card.weights_sha256]
        if sound := next((row.id for row in twins if not _is_damaged(row)), None):
            raise ModelError(f"The project holds this model already: {sound}.", f"Use {sound}.")
        notes += check_labels(project.labels, card)
        check_channels(card, project.definition.channel_names_for(card.channels))
        if twins:
            row = project.models.repair(twins[0].id, folder)
            notes.append(f"The project held this model as {row.id}, and its files were damaged: they were replaced.")
            return row, notes
        parent = _model_with_card(project, card.parent)
        summary = {"method": card.method, "data": card.counts, "metrics": card.metrics, "imported": True}
        row = project.models.add(folder, summary, name=name or card.name, parent=parent)
    if card.parent and not parent:
        notes.append(f"It was trained on from a model that the project does not hold ({card.parent}).")
    if card.metrics:
        notes.append("The scores on its card were measured on other cases than those of this project.")
    return row, notes


def _is_damaged(model: ModelRow) -> bool:
    try:
        return sound_model(model.folder).weights_sha256 != weights_digest(model)
    except ModelError:
        return True


def _model_with_card(project: Project, card_id: str | None) -> str | None:
    """The model of the project whose card has this id; damaged cards are passed over."""
    for row in project.models.all():
        with suppress(ModelError):
            if read_card(row.folder).id == card_id:
                return row.id
    return None


def check_labels(labels: list[Label], card: ModelCard) -> list[str]:
    """Refuse a model whose label values are not in the label table, or mean something else there.

    Args:
        labels: The project's label table.
        card: The model's card.

    Returns:
        A sentence for each label that the model calls otherwise and for the labels that it does not find.

    Raises:
        ModelError: A value is not in the table, or its name is that of another value.
    """
    table = {label.value: label.name for label in labels}
    notes = []
    for label in card.labels:
        own = table.get(label.value)
        other = next((v for v, name in table.items() if key(name) == key(label.name) and v != label.value), None)
        if own is None or other is not None:
            is_there = "which the label table does not have" if own is None else f"which the label table calls '{own}'"
            raise ModelError(
                f"The model {card.name} finds '{label.name}' as the value {label.value}, {is_there}.",
                'Add the label ("barl project labels PROJECT --add VALUE=NAME"), or use the model in another project.',
            )
        if key(own) != key(label.name):
            notes.append(f"The model calls the label {label.value} '{label.name}', the project calls it '{own}'.")
    if missing := [name for value, name in table.items() if value not in card.values]:
        notes.append(f"It does not find {', '.join(missing)}.")
    return notes


@contextmanager
def _model_folder(source: Path, notes: list[str], labels: list[Label] | None) -> Iterator[Path]:
    """A model's folder: ``source`` itself, or a temporary one made of a file or of a model of another program."""
    if source.is_dir() and not is_nnunet_model(source) and not is_bundle(source):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="barl-model-") as home:
        place = Path(home) / "model"
        if source.is_dir():
            convert = convert_bundle if is_bundle(source) else convert_nnunet
            notes += convert(source, place, labels)[1]
        else:
            place.mkdir()
            unpack_model(source, place)
        yield place
