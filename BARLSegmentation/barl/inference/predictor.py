# SPDX-License-Identifier: Apache-2.0
"""Predicts scans with a loaded model: label map, uncertainty, hot-spots and volumes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from barl.errors import DeviceError, is_out_of_memory
from barl.images.cleanup import CleanupRule
from barl.images.familiarity import UNLIKE, Familiar
from barl.images.geometry import Grid, Roi, Triple, triple
from barl.images.preparation import PreparedScan
from barl.inference.cleanup import add_changes, clean_images, in_words
from barl.inference.device import autocast, autocast_dtype, choose_device, give_back_freed_memory
from barl.inference.hotspots import HotSpot, find_hotspots, half_a_bit
from barl.inference.maps import ModelMaps
from barl.inference.sliding_window import stream
from barl.inference.threads import ThreadChoice
from barl.models.disk import check_channels, load_members
from barl.networks.branches import BranchPair, Members
from barl.progress import SILENT, Progress, Stage
from barl.project.model_card import ModelCard

# A scan of this size takes a minute of network calls; what a step has freed is given back before the next one.
_LARGE_BYTES = 2**28


@dataclass(frozen=True)
class LabelVolume:
    """How large a structure is, and how far the branches differ about it.

    Attributes:
        value, name: The label.
        ml: Volume in the label map.
        low_ml, high_ml: Smallest and largest volume among the label map and each branch by itself; with a single branch
            (fast prediction) both are ``ml``.
        interval_ml: Where the true volume lies in the share ``level`` of cases, from so many unseen ``cases``; None:
            not known.
    """

    value: int
    name: str
    ml: float
    low_ml: float
    high_ml: float
    interval_ml: tuple[float, float] | None = None
    level: float | None = None
    cases: int | None = None


@dataclass
class Prediction:
    """The prediction of a scan; all images lie on the scan's own grid.

    Attributes:
        label: Label values (not classes), uint8 or uint16; background outside the region of interest.
        uncertainty: float32 in [0, 1] in steps of 1/255: the maximum of the next two.
        entropy, disagreement: float32 in [0, 1], on request; no disagreement with a single branch.
        probabilities: Label value -> float32 image, on request.
        hotspots: The highest score first.
        volumes: One for each label.
        case_uncertainty: One number in [0, 1] to rank cases by, see ``uncertainty.score_levels``.
        agreement: Label value -> Dice between the label maps of a network's branches; None where none shows the label.
        expected_dice: What the agreement lets expect, mean over the labels; None if the card has no calibration.
        embedding: Features of the scan; similar scans have similar features.
        seconds: Stage -> time it took.
        notes: Sentences for the user about every deviation from the request.
    """

    label: sitk.Image
    uncertainty: sitk.Image
    hotspots: list[HotSpot]
    volumes: list[LabelVolume]
    case_uncertainty: float
    embedding: list[float]
    entropy: sitk.Image | None = None
    disagreement: sitk.Image | None = None
    probabilities: dict[int, sitk.Image] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    agreement: dict[int, float | None] = field(default_factory=dict)
    expected_dice: float | None = None

    def details(self) -> dict[str, Any]:
        """Everything but the images, as plain JSON types."""
        return {
            "case_uncertainty": self.case_uncertainty,
            "agreement": {str(value): score for value, score in self.agreement.items()},
            "expected_dice": self.expected_dice,
            "volumes": [asdict(volume) for volume in self.volumes],
            "hotspots": [hotspot.to_json() for hotspot in self.hotspots],
            "seconds": dict(self.seconds),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Effort:
    """One way to compute; prediction tries the next, cheaper one when memory runs out."""

    device: torch.device
    batch_size: int
    accumulate_on: torch.device


@dataclass(frozen=True)
class Wanted:
    """Which maps to keep beside the uncertainty."""

    probabilities: bool
    components: bool
    classes: bool


@dataclass(frozen=True)
class Streamed:
    """The network's maps of a scan on the model's grid, and notes for the user."""

    maps: ModelMaps
    embedding: list[float]
    notes: list[str]


class Predictor:
    """A model, ready to predict scan after scan.

    Args:
        card: What the model needs.
        network: Its network, or those of its members.
        device: Where to compute.
        fast: First branch only and windows that overlap by a quarter instead of a half: about a fifth of the work, no
            disagreement and no spread of the volumes.
        batch_size: Windows per network call; by default 4 on a GPU and 1 on a CPU, which gains nothing from more.
        half: Compute in half precision where the device does so in hardware.
    """

    def __init__(
        self,
        card: ModelCard,
        network: BranchPair | Members,
        device: torch.device | str = "cpu",
        *,
        fast: bool = False,
        batch_size: int | None = None,
        half: bool = True,
    ) -> None:
        self.card = card
        self.device = torch.device(device)
        self.network = network.eval()
        self._network_on: torch.device | None = None
        self.branches = (0,) if fast else tuple(range(network.n_branches))
        self.overlap = 0.25 if fast else 0.5
        self.batch_size = batch_size or (1 if self.device.type == "cpu" else 4)
        self.half = half
        self._threads = ThreadChoice(self.device)
        self._familiar = Familiar.from_json(card.data.get("familiar"))

    @classmethod
    def load(cls, model_folder: Path, device: str = "auto", fast: bool = False, member: int | None = None) -> Predictor:
        """Read a model from disk, or one ``member`` (from 0) of a model that has several.

        Raises:
            ModelError: The model is missing, damaged or of a future format.
            DeviceError: No such device.
        """
        chosen = choose_device(device)
        card, members = load_members(Path(model_folder))
        network = members[member] if member is not None else members[0] if len(members) == 1 else Members(members)
        return cls(card, network, chosen, fast=fast)

    def predict(
        self,
        channels: Sequence[sitk.Image],
        roi: Roi | None = None,
        want_probabilities: bool = False,
        want_components: bool = False,
        progress: Progress = SILENT,
        cleanup: bool = True,
    ) -> Prediction:
        """Predict one scan.

        Args:
            channels: The scan, one image per channel of the model in its order, on one grid.
            roi: Predict this box only. The network sees a quarter of a patch beyond it, for context.
            want_probabilities: Give the calibrated probability of each label as well.
            want_components: Give entropy and disagreement as well.
            progress: Gets the stages preparing, predicting and restoring.
            cleanup: Apply the cleanup of the model's card, if it has one.

        Raises:
            ModelError: The scan has not the model's channels.
            InputError: The channels differ in geometry, or the ROI lies outside.
            DeviceError: The memory is too small even for the cheapest way to compute.
        """
        clock = _Clock()
        check_channels(self.card, len(channels))
        preparing = progress.stage(Stage.PREPARING, 0.0, 0.05)
        preparing.at(0.0, "Bringing the scan to the model's grid")
        scan = PreparedScan(
            channels, self.card.normalisations, self.card.spacing, self.card.orientation, roi=roi, patch=self.card.patch
        )
        array = scan.to_network()
        large = array.nbytes > _LARGE_BYTES
        if large:  # a small one is better off with that memory at hand: others like it follow
            give_back_freed_memory()
        clock.lap("preparing")
        wanted = Wanted(want_probabilities, want_components, scan.keeps_voxels)
        streamed = self._stream(array, scan.inside, wanted, progress.stage(Stage.PREDICTING, 0.05, 0.85))
        del array
        if large:
            give_back_freed_memory()
        clock.lap("predicting")
        restoring = progress.stage(Stage.RESTORING, 0.9, 0.1)
        restoring.at(0.0, "Bringing the result onto the scan's grid")
        prediction = self._restore(scan, streamed, want_probabilities, self.card.cleanup if cleanup else [])
        unlike = self._unlike(channels, roi)
        prediction.notes += unlike
        if roi is None and not unlike:  # a part of a scan, or another kind of scan, is not like the unseen cases
            prediction.volumes = [self._with_interval(volume) for volume in prediction.volumes]
        clock.lap("restoring")
        restoring.at(1.0, "Done")
        prediction.seconds = clock.seconds
        return prediction

    def _unlike(self, channels: Sequence[sitk.Image], roi: Roi | None) -> list[str]:
        """One sentence if the scan is unlike those that the model has learned from."""
        differences = self._familiar.differences(channels, self.card.normalisations, roi) if self._familiar else []
        if not differences:
            return []
        return [f"{UNLIKE}: {'; '.join(differences)}. Look at the result with care."]

    def _restore(
        self, scan: PreparedScan, streamed: Streamed, want_probabilities: bool, rules: Sequence[CleanupRule]
    ) -> Prediction:
        maps, grid = streamed.maps, scan.result_grid
        table = np.array([0, *self.card.values], np.uint8 if max(self.card.values) < 256 else np.uint16)
        label = scan.restore_label(table[maps.kept_classes]) if scan.keeps_voxels else _label(scan, maps, table)
        hotspots = self._hotspots(maps, grid)  # takes 6 bytes a voxel for a moment: before the next image is made
        if not want_probabilities:
            maps.probabilities = None
        uncertainty, notes = _fraction(scan, maps.uncertainty), streamed.notes
        if rules:
            label, uncertainty, changes = clean_images(label, uncertainty, rules)
            hotspots = add_changes(hotspots, changes, Grid.of(label))
            names = {entry.value: entry.name for entry in self.card.labels}
            notes = [*notes, *in_words(changes, names, Grid.of(label).voxel_ml)]
        return Prediction(
            label=label,
            uncertainty=uncertainty,
            hotspots=hotspots,
            volumes=self._volumes(label, maps, grid),
            case_uncertainty=maps.case_uncertainty(),
            embedding=streamed.embedding,
            entropy=None if maps.entropy is None else _fraction(scan, maps.entropy),
            disagreement=None if maps.disagreement is None else _fraction(scan, maps.disagreement),
            probabilities=_probabilities(scan, maps, table) if want_probabilities else None,
            notes=notes,
            agreement=dict(zip(self.card.values, maps.agreement(), strict=True)),
            expected_dice=self._expected_dice(maps.agreement()),
        )

    @property
    def _branches_of_one(self) -> int:
        """Branches of one network."""
        several = isinstance(self.network, Members)
        return self.network.spec.n_branches if several else self.network.n_branches

    def _expected_dice(self, agreement: Sequence[float | None]) -> float | None:
        defined = [score for score in agreement if score is not None]
        if not defined or self.card.expected_dice is None:
            return None
        return self.card.expected_dice.expected(sum(defined) / len(defined))

    def ladder(self) -> Iterator[Effort]:
        """What to try in turn: fewer windows at once, then the accumulators on the CPU, then all on the CPU."""
        cpu = torch.device("cpu")
        yield Effort(self.device, self.batch_size, self.device)
        if self.batch_size > 1:
            yield Effort(self.device, 1, self.device)
        if self.device.type != "cpu":
            yield Effort(self.device, 1, cpu)
            yield Effort(cpu, 1, cpu)

    def _stream(self, array: np.ndarray, inside: Triple[slice], wanted: Wanted, progress: Progress) -> Streamed:
        """Run the network with the first effort that fits in memory; if that is not the best, a note says so."""
        for effort in self.ladder():
            try:
                maps = ModelMaps(
                    triple(part.stop - part.start for part in inside),
                    len(self.card.labels) + 1,
                    len(self.branches),
                    per_network=min(len(self.branches), self._branches_of_one),
                    temperature=self.card.temperature,
                    keep_probabilities=wanted.probabilities,
                    keep_classes=wanted.classes,
                    keep_components=wanted.components,
                )
                embedding = self._run(array, inside, maps, effort, progress)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                return Streamed(maps, embedding, self._notes(effort))
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        raise DeviceError(
            "There is not enough memory to predict this scan.", "Draw a region of interest or close other programs."
        )

    def _notes(self, effort: Effort) -> list[str]:
        if effort.device != self.device:
            return [f"The memory of {self.device} was too small, so the CPU computed."]
        if (effort.batch_size, effort.accumulate_on) != (self.batch_size, self.device):
            return [f"The memory of {self.device} was nearly full, so the prediction took smaller steps."]
        return []

    def _run(
        self,
        array: np.ndarray,
        inside: Triple[slice],
        maps: ModelMaps,
        effort: Effort,
        progress: Progress,
    ) -> list[float]:
        """Fill the maps; returns the embedding."""
        if effort.device != self._network_on:
            self.network.to(effort.device)
            self._network_on = effort.device
        amp_dtype = autocast_dtype(effort.device) if self.half else None
        slabs = stream(
            self.network,
            array,
            self.card.patch,
            overlap=self.overlap,
            batch_size=effort.batch_size,
            device=effort.device,
            amp_dtype=amp_dtype,
            branches=self.branches,
            accumulate_on=effort.accumulate_on,
            progress=progress.part(0.0, 1.0, f"Predicting on {effort.device}"),
            threads=self._threads if effort.device.type == "cpu" else None,
        )
        try:
            for slab in slabs:
                maps.add(slab, inside)
        finally:
            self._threads.release()
        return self._embedding(array, effort.device, amp_dtype)

    @torch.inference_mode()
    def _embedding(self, array: np.ndarray, device: torch.device, amp_dtype: torch.dtype | None) -> list[float]:
        """Bottleneck features of the whole scan, reduced to half a patch per axis: one small network call."""
        divisor = self.network.spec.divisor
        edges = zip(array.shape[1:], self.card.patch, divisor, strict=True)
        steps = [max(1, round(min(n, edge / 2) / d)) for n, edge, d in edges]
        if max(steps) == 1:
            steps[0] = 2  # a bottleneck of one voxel has no mean and deviation to normalize with
        size = triple(n * d for n, d in zip(steps, divisor, strict=True))
        small = F.adaptive_avg_pool3d(torch.from_numpy(array)[None], size)
        with autocast(device, amp_dtype):
            return self.network.describe(small.to(device))[0].float().cpu().tolist()

    def _hotspots(self, maps: ModelMaps, grid: Grid) -> list[HotSpot]:
        values = self.card.values
        threshold = half_a_bit(len(values) + 1)
        found = find_hotspots(maps.uncertainty, grid, maps.kept_labels, threshold=threshold)
        return [replace(spot, label=values[spot.label - 1] if spot.label else 0) for spot in found]

    def _volumes(self, label: sitk.Image, maps: ModelMaps, grid: Grid) -> list[LabelVolume]:
        view, voxel_ml = sitk.GetArrayViewFromImage(label), Grid.of(label).voxel_ml
        volumes = []
        for n, entry in enumerate(sorted(self.card.labels, key=lambda entry: entry.value)):
            ml = float(np.count_nonzero(view == entry.value) * voxel_ml)
            members = [ml, *(maps.branch_voxels[:, n] * grid.voxel_ml).tolist()] if len(self.branches) > 1 else [ml]
            volumes.append(LabelVolume(entry.value, entry.name, ml, min(members), max(members)))
        return volumes

    def _with_interval(self, volume: LabelVolume) -> LabelVolume:
        known = next((item for item in self.card.volume_intervals if item.value == volume.value), None)
        if known is None or len(self.branches) < self.network.n_branches:  # unseen cases had all branches
            return volume
        return replace(volume, interval_ml=known.around(volume.ml), level=known.level, cases=known.cases)


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now


def _fraction(scan: PreparedScan, levels: np.ndarray) -> sitk.Image:
    """uint8 levels ``[k, j, i]`` as float32 in [0, 1] on the scan's grid; only uint8 is held beside the result."""
    image = scan.restore(levels[None], lambda slab: np.rint(slab[0]), np.uint8)
    return sitk.ShiftScale(image, 0, 1 / 255, sitk.sitkFloat32)


def _label(scan: PreparedScan, maps: ModelMaps, table: np.ndarray) -> sitk.Image:
    """Labels on the scan's grid from interpolated probabilities."""
    whole = 255 if maps.kept_probabilities.dtype == np.uint8 else 1

    def likeliest(slab: np.ndarray) -> np.ndarray:
        background = whole - slab.sum(axis=0, keepdims=True)
        return table[np.concatenate([background, slab]).argmax(axis=0)]

    return scan.restore(maps.kept_probabilities, likeliest, table.dtype)


def _probabilities(scan: PreparedScan, maps: ModelMaps, table: np.ndarray) -> dict[int, sitk.Image]:
    return {
        value: scan.restore(maps.kept_probabilities[n : n + 1], lambda slab: slab[0], np.float32)
        for n, value in enumerate(table[1:].tolist())
    }
