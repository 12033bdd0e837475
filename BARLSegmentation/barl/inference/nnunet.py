# SPDX-License-Identifier: Apache-2.0
"""Networks of nnU-Net v2, run by the package nnunetv2 with its own preparation, windows and resampling.

Its folds are the members of an ensemble: their disagreement counts in the uncertainty. The label map is the one that
nnU-Net itself gives, from the mean of the folds' logits.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from barl.errors import DeviceError, ModelError, is_out_of_memory
from barl.images.geometry import AxisMap, Grid, Roi, axes_between, axes_towards
from barl.inference.given import predict_from_probabilities
from barl.inference.predictor import Prediction, Predictor
from barl.models.disk import check_channels, load_weights
from barl.progress import SILENT, Progress, Stage
from barl.project.model_card import ModelCard

# Context around a region of interest, in voxels of the scan.
_MARGIN = 24
# What a plan may name: it is imported and called with arguments of the plan.
_NETWORK = re.compile(r"dynamic_network_architectures\.architectures\.\w+\.[A-Z]\w*")
_PART = re.compile(r"torch\.nn\.(modules\.[a-z]+\.)?[A-Z]\w*")


class NnunetPredictor(Predictor):
    """An nnU-Net model, ready to predict scan after scan; arguments as for ``Predictor``.

    Args:
        folder: The model's, as ``jobs.foreign_models`` made it.
        card: Its card.
        device: Where to compute.
        fast: The first fold only, without mirroring.

    Raises:
        ModelError: The package nnunetv2 is not installed, or the weights do not fit.
    """

    def __init__(self, folder: Path, card: ModelCard, device: torch.device, *, fast: bool = False) -> None:
        self.card = card
        self.device = device
        spec = card.network
        check_plans(spec["plans"])
        weights = load_weights(folder, card)
        members = spec["members"][:1] if fast else spec["members"]
        states = [
            {name.removeprefix(f"{member}."): t for name, t in weights.items() if name.startswith(f"{member}.")}
            for member in members
        ]
        with _nnunet(card):
            from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
            from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

            self._plans = PlansManager(spec["plans"])
            self._configuration = self._plans.get_configuration(spec["configuration"])
            network = _network(self._plans, self._configuration, spec)
            self._engine = nnUNetPredictor(
                use_mirroring=not fast, perform_everything_on_device=True, device=device, allow_tqdm=False
            )
            self._engine.manual_initialization(
                network,
                self._plans,
                self._configuration,
                states,
                spec["dataset"],
                spec["trainer"],
                tuple(spec["mirroring"]) or None,
            )
            network.load_state_dict(states[0])

    def predict(
        self,
        channels: Sequence[sitk.Image],
        roi: Roi | None = None,
        want_probabilities: bool = False,
        want_components: bool = False,
        progress: Progress = SILENT,
        cleanup: bool = True,
    ) -> Prediction:
        """Predict one scan, as ``Predictor.predict``; a region of interest gets a margin for context."""
        check_channels(self.card, len(channels))
        grid = Grid.of(channels[0])
        crop = _Crop.of(roi, grid)
        scans = [crop.around(scan) for scan in channels]
        stage = progress.stage(Stage.PREDICTING)
        try:
            with _nnunet(self.card), torch.inference_mode():
                members, classes = self._fold_results(scans, stage)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(
                "There is not enough memory to predict this scan with nnU-Net.",
                "Draw a region of interest, choose the CPU, or close other programs.",
            ) from error
        own = [self._of_labels(member[(slice(None), *crop.inside)]) for member in members]
        classes = classes[crop.inside]
        table = np.zeros(int(classes.max()) + 1 if classes.size else 1, np.uint16)
        for label, place in zip(self._labels(), self.card.network["classes"], strict=True):
            if place < len(table):
                table[place] = label.value
        inner = crop.grid
        found = predict_from_probabilities(own, inner, self._labels(), table[classes])
        if want_probabilities:
            mean = np.mean(own, axis=0)
            found.probabilities = {
                label.value: inner.image(np.ascontiguousarray(mean[n])) for n, label in enumerate(self._labels(), 1)
            }
        found.label, found.uncertainty = crop.whole(found.label), crop.whole(found.uncertainty)
        if found.probabilities:
            found.probabilities = {value: crop.whole(image) for value, image in found.probabilities.items()}
        return found

    def _fold_results(self, scans: Sequence[sitk.Image], progress: Progress) -> tuple[list[np.ndarray], np.ndarray]:
        """Probabilities of each fold ``[class, k, j, i]`` and nnU-Net's own label map, on the scan's grid."""
        from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

        grid = Grid.of(scans[0])
        axes = self._axes(grid)
        turned = grid.oriented(axes)
        array = np.stack([axes.view(sitk.GetArrayViewFromImage(scan)) for scan in scans]).astype(np.float32)
        facts = {"spacing": list(turned.spacing[::-1])}
        preprocessor = self._configuration.preprocessor_class(verbose=False)
        data, _, facts = preprocessor.run_case_npy(
            array, None, facts, self._plans, self._configuration, self._engine.dataset_json
        )
        back = axes_between(turned, grid)
        label_manager = self._engine.label_manager

        def convert(logits: torch.Tensor, probabilities: bool) -> Any:
            return convert_predicted_logits_to_segmentation_with_correct_shape(
                logits, self._plans, self._configuration, label_manager, facts, return_probabilities=probabilities
            )

        members, total = [], None
        states = self._engine.list_of_parameters
        for state, _ in progress.each(states, lambda state: "nnU-Net"):
            self._engine.network.load_state_dict(state)
            logits = self._engine.predict_sliding_window_return_logits(torch.as_tensor(data)).cpu()
            # In the precision and order of nnU-Net, so that its own label map comes out to the last voxel.
            total = logits.clone() if total is None else total.add_(logits)
            members.append(np.ascontiguousarray(back.view(convert(logits, True)[1]), dtype=np.float32))
        assert total is not None  # a model has one member or more
        classes = np.ascontiguousarray(
            back.view(np.asarray(convert(total.div_(len(states)) if len(states) > 1 else total, False)))
        )
        return members, classes

    def _axes(self, grid: Grid) -> AxisMap:
        """Only one of nnU-Net's readers turns the axes of a scan before it is used."""
        if "Reorient" in self.card.network["plans"].get("image_reader_writer", ""):
            return axes_towards(grid, "RAS")
        return AxisMap((0, 1, 2), (False, False, False))

    def _labels(self) -> list[Any]:
        return sorted(self.card.labels, key=lambda label: label.value)

    def _of_labels(self, probabilities: np.ndarray) -> np.ndarray:
        """Background and the labels in ascending order of value; what the project does not have is background."""
        chosen = probabilities[self.card.network["classes"]]
        background = (1 - chosen.sum(axis=0)).clip(0, 1)
        return np.concatenate([background[None], chosen])


def check_plans(plans: Any) -> None:
    """Refuse plans that name anything but networks of nnU-Net's own package and layers of PyTorch: nnU-Net imports and
    calls what they name.

    Raises:
        ModelError: They do, or they are no plans.
    """

    def names(item: Any) -> Iterator[tuple[re.Pattern, str]]:
        if isinstance(item, dict):
            if "network_class_name" in item:
                yield _NETWORK, str(item["network_class_name"])
            for key in item.get("_kw_requires_import") or ():
                value = (item.get("arch_kwargs") or {}).get(key)
                if value is not None:
                    yield _PART, str(value)
            for value in item.values():
                yield from names(value)
        elif isinstance(item, list):
            for value in item:
                yield from names(value)

    if not isinstance(plans, dict) or "configurations" not in plans:
        raise ModelError("The plans of the nnU-Net model cannot be read.", "Copy the model's folder again.")
    for pattern, name in names(plans):
        if not pattern.fullmatch(name):
            raise ModelError(
                f"The plans of the nnU-Net model name {name[:80]!r}, which is no network of nnU-Net and no layer.",
                "Models with networks of their own cannot be taken; predict with nnU-Net and import the predictions.",
            )


@contextlib.contextmanager
def _nnunet(card: ModelCard) -> Iterator[None]:
    """nnU-Net prints what is not for a user; without the package there is one sentence."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("nnunetv2", "dynamic_network_architectures"):
            raise
        raise ModelError(
            f"The model {card.name} needs the package nnunetv2, which is not installed.",
            "Install it beside BARL: pip install nnunetv2.",
        ) from error


def _network(plans: Any, configuration: Any, spec: dict[str, Any]) -> torch.nn.Module:
    """The network as its trainer builds it."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    return get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        spec["in_channels"],
        spec["n_classes"],
        allow_init=False,
        deep_supervision=False,
    )


@dataclass(frozen=True)
class _Crop:
    """A box of a scan with a margin around it.

    Attributes:
        scan: The whole scan's grid.
        box: The box in the scan, (k, j, i).
        wide: The box with its margin in the scan.
    """

    scan: Grid
    box: tuple[slice, ...]
    wide: tuple[slice, ...]

    @classmethod
    def of(cls, roi: Roi | None, grid: Grid) -> _Crop:
        start, stop = roi.along(grid).box(grid) if roi else ((0, 0, 0), grid.size)
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))[::-1]
        wide = tuple(
            slice(max(0, part.start - _MARGIN), min(size, part.stop + _MARGIN))
            for part, size in zip(box, grid.shape, strict=True)
        )
        return cls(grid, box, wide)

    @property
    def inside(self) -> tuple[slice, ...]:
        """The box in the crop."""
        return tuple(slice(b.start - w.start, b.stop - w.start) for b, w in zip(self.box, self.wide, strict=True))

    @property
    def grid(self) -> Grid:
        """The box's grid."""
        return self._grid(self.box)

    def around(self, image: sitk.Image) -> sitk.Image:
        """The part of a scan that is looked at."""
        return self._grid(self.wide).image(np.ascontiguousarray(sitk.GetArrayViewFromImage(image)[self.wide]))

    def whole(self, image: sitk.Image) -> sitk.Image:
        """An image of the box on the scan's grid, 0 outside."""
        array = sitk.GetArrayViewFromImage(image)
        result = np.zeros(self.scan.shape, array.dtype)
        result[self.box] = array
        return self.scan.image(result)

    def _grid(self, box: tuple[slice, ...]) -> Grid:
        return self.scan.crop([part.start for part in box[::-1]], [part.stop for part in box[::-1]])
