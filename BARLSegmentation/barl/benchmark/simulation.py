# SPDX-License-Identifier: Apache-2.0
"""Rounds of train, predict, choose, correct and accept on a fully outlined data set, and the Dice that the work buys.

Each strategy with each seed is one result file, written after every round; several processes may share a plan.
Strategies that have accepted the same outlines share their training.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from barl.benchmark import datasets, harness
from barl.benchmark.clinician import Corrected, Prices, Scan, Strategy, Work, correct, correct_regions, prices_of
from barl.benchmark.pace import own_prices
from barl.benchmark.regions import WITHOUT_MODEL, Pool, Spot, choose_regions, exponent
from barl.errors import InputError
from barl.images.fingerprint import scan_features
from barl.images.geometry import Grid, Triple
from barl.images.label_maps import read_label
from barl.images.reading import read_channels
from barl.images.writing import write_image
from barl.inference.predictor import Predictor
from barl.progress import SILENT
from barl.project.files import write_atomically
from barl.project.next_case import rank_cases
from barl.project.records import BY_SCAN, Case
from barl.project.states import CaseState
from barl.training.cases import CaseFiles
from barl.training.loop import train
from barl.training.plan import Plan

# How cases are chosen: the weight of the difference from the outlined cases in BARL's ranking.
CHOICES = {"random": None, "next": 0.5, "uncertain": 0.0, "diverse": 1.0}
FIRST_CHOICES = ("random", "k-center")


@dataclass(frozen=True)
class Simulation:
    """One strategy with one seed.

    Attributes:
        dataset: Name of the data set.
        name: Of the strategy, for tables.
        strategy: How predicted cases are corrected.
        first: How the first cases are outlined, without a model.
        choose: ``random``; ``next``: BARL's rule; ``uncertain`` or ``diverse``: one half of it.
        choose_first: The first cases: ``random``, or ``k-center`` on image features.
        start, step, rounds: Cases before the first training, cases after each, trainings.
        seed: Of the choice and the training.
        method, plan: Of the training.
        prices: Of the clinician's acts.
        on: Part of the split to evaluate on.
        pool: So many cases, drawn by the seed, take part; None: all of the training part.
        stride: Steps ``(k, j, i)`` of the sliding window of the evaluation in voxels; half a patch if not given.
        every: Every so many-th case of that part is evaluated; 1: all.
    """

    dataset: str
    name: str
    strategy: Strategy
    first: Strategy
    choose: str
    choose_first: str
    start: int
    step: int
    rounds: int
    seed: int
    method: str
    plan: dict[str, Any] = field(default_factory=dict)
    prices: Prices = field(default_factory=Prices)
    on: str = "test"
    pool: int | None = None
    stride: list[int] | None = None
    every: int = 1

    @property
    def file_name(self) -> str:
        name = "".join(c if c.isalnum() else "-" for c in self.name)
        return f"simulation_{self.dataset}_{name}_{self.seed}.json"


def simulations_of(plan: dict[str, Any]) -> list[Simulation]:
    """All simulations of a plan, seed by seed (layout: ``docs/simulation-plan.json``).

    With ``"times": "PROJECT"`` the prices are stretched to the editing times of that project's readers.

    Raises:
        InputError: A strategy or a price cannot be used, or the plan lacks something.
        BarlError: As ``own_prices`` raises it.
    """
    prices, found = prices_of(plan), []
    if plan.get("times"):
        prices = own_prices(Path(plan["times"]).expanduser(), prices)
    try:
        for seed in plan["seeds"]:
            for row in plan["strategies"]:
                wanted = {**plan["common"], **row}
                for name, known in (("choose", [*CHOICES]), ("choose_first", [*FIRST_CHOICES])):
                    if wanted.get(name, "random") not in known:
                        raise InputError(f"There is no choice {wanted[name]!r}.", f"Use: {', '.join(known)}.")
                first = Strategy(**wanted.get("first", {"kind": "whole"}))
                if first.kind == "regions" and first.rule not in WITHOUT_MODEL:
                    raise InputError(
                        f"Without a model there is no choice by {first.rule!r}.",
                        f"Use first: {', '.join(WITHOUT_MODEL)}.",
                    )
                found.append(
                    Simulation(
                        plan["dataset"],
                        row["name"],
                        Strategy(**wanted["correct"]),
                        first,
                        wanted.get("choose", "random"),
                        wanted.get("choose_first", "random"),
                        wanted["start"],
                        wanted["step"],
                        wanted["rounds"],
                        seed,
                        wanted.get("method", "barl"),
                        {**plan.get("plan", {}), **wanted.get("plan", {})},
                        prices,
                        plan.get("on", "test"),
                        plan.get("pool"),
                        plan.get("stride"),
                        plan.get("every", 1),
                    )
                )
    except (KeyError, TypeError) as error:
        raise InputError(
            f"The simulation plan is not as docs/simulation-plan.json is ({error!r}).", "Correct it."
        ) from error
    return found


def simulate(
    simulations: list[Simulation],
    results: Path,
    device: str = "auto",
    tell: Callable[[str], None] = print,
    sources: datasets.Sources | None = None,
) -> None:
    """Do all simulations that are not finished and that no living process is doing; a killed one goes on.

    Raises:
        InputError: The data set is missing, or has fewer outlined training cases than a simulation needs.
        BarlError: As ``train`` raises it.
    """
    results.mkdir(parents=True, exist_ok=True)
    cache = results / "cache"
    for one in simulations:
        place = results / one.file_name
        if place.exists() and len(json.loads(place.read_text("utf-8"))["rounds"]) >= one.rounds:
            continue
        with harness.Claim(place.with_suffix(".done")) as mine:
            if mine:
                tell(f"{one.dataset}, {one.name}, seed {one.seed}")
                _Rounds(one, datasets.load(one.dataset, sources, cache), results, device, tell).go_on()


class _Rounds:
    """One simulation under way; what it knows lies in ``results``, so that it can be killed."""

    def __init__(
        self, one: Simulation, data: datasets.Dataset, results: Path, device: str, tell: Callable[[str], None]
    ) -> None:
        self.one, self.data, self.device, self.tell = one, data, device, tell
        self.place, self.cache = results / one.file_name, results / "cache"
        self.folder = results / "running" / one.file_name.removesuffix(".json")
        self.shared = results / "shared"
        self.cases = [case for case in data.part("training") if case.label]
        self.rng = np.random.default_rng([one.seed, 13])
        self.order = self.rng.permutation(len(self.cases))[: one.pool].tolist()
        needed = one.start * (one.first.kind != "regions")  # regions may lie in any number of cases
        needed += one.step * (one.rounds - 1) * (one.strategy.kind != "regions")
        if needed > len(self.order):
            raise InputError(
                f"{one.name} needs {needed} outlined cases, {data.name} has {len(self.order)}.", "Use fewer."
            )
        self.state: dict[str, Any] = {**asdict(one), "rounds": [], "accepted": {}, "machine": harness.machine()}
        self.state["wanted_rounds"] = one.rounds
        if self.place.exists():
            self.state = json.loads(self.place.read_text("utf-8"))

    def go_on(self) -> None:
        values = [label.value for label in self.data.labels]
        while len(self.state["rounds"]) < self.one.rounds:
            number = len(self.state["rounds"])
            self.rng = np.random.default_rng([self.one.seed, 17, number])  # the same after a kill
            model = self.folder / f"round{number - 1}" / "model"
            predictor = Predictor.load(model, device=self.device) if number else None
            work = Work(**self.state["rounds"][-1]["work"]) if number else Work()
            accepted = dict(self.state["accepted"])
            strategy = self.one.strategy if predictor else self.one.first
            if strategy.kind == "regions":
                corrections = self._regions(number, strategy, predictor, accepted, values)
            else:
                chosen = self._chosen(predictor, accepted)
                corrections = ((index, self._correct(index, predictor, values)) for index in chosen)
            for index, corrected in corrections:
                self._keep(index, corrected)
                accepted[str(index)] = corrected.looked is not None
                work += corrected.work
            cases, seconds = self._train(number, accepted)
            dice = float(np.nanmean([*cases.values()]))
            self.state["accepted"] = accepted
            row = {"work": asdict(work), "dice": dice, "cases": cases, "train_seconds": seconds}
            self.state["rounds"].append(row)
            text = json.dumps(self.state)
            write_atomically(self.place, partial(Path.write_text, data=text, encoding="utf-8"))
            self.tell(f"  {work.cases} cases, {work.planes} planes, {work.minutes:.1f} min: Dice {dice:.4f}")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _chosen(self, predictor: Predictor | None, accepted: dict[str, bool]) -> list[int]:
        """The cases of this round."""
        left = [index for index in self.order if str(index) not in accepted]
        if predictor is None:
            return self._first(left)[: self.one.start]
        diversity = CHOICES[self.one.choose]
        if diversity is None:
            return left[: self.one.step]
        known = []
        for index in [*left, *map(int, accepted)]:
            found = predictor.predict(read_channels(self.cases[index].images))
            state = CaseState.ACCEPTED if str(index) in accepted else CaseState.PREDICTED
            known.append(_case(index, state, found.embedding, found.case_uncertainty))
        return [int(item.case.id) for item in rank_cases(known, diversity)[: self.one.step]]

    def _first(self, left: list[int]) -> list[int]:
        if self.one.choose_first == "random":
            return left
        features = [scan_features(read_channels(self.cases[index].images)) for index in left]
        return first_cases(left, features, self.one.start)

    def _scan(self, index: int, values: list[int]) -> Scan:
        case = self.cases[index]
        channels = read_channels(case.images)
        grid = Grid.of(channels[0])
        assert case.label is not None  # only outlined cases were kept
        truth = sitk.GetArrayFromImage(read_label(case.label, grid, values))
        return Scan([sitk.GetArrayFromImage(image).astype(np.float32) for image in channels], truth, grid)

    def _correct(self, index: int, predictor: Predictor | None, values: list[int]) -> Corrected:
        scan = self._scan(index, values)
        if predictor is None:
            return correct(scan, self.one.first, self.one.prices, self.rng)
        prediction = predictor.predict(read_channels(self.cases[index].images))
        predicted = sitk.GetArrayFromImage(prediction.label)
        uncertainty = sitk.GetArrayFromImage(prediction.uncertainty).astype(np.float32)
        return correct(scan, self.one.strategy, self.one.prices, self.rng, predicted, uncertainty)

    def _regions(
        self,
        number: int,
        strategy: Strategy,
        predictor: Predictor | None,
        accepted: dict[str, bool],
        values: list[int],
    ) -> Iterator[tuple[int, Corrected]]:
        """Corrected cubes of this round; what was corrected in a scan before stays."""
        pools = [self._pool(index, strategy, predictor, accepted, values) for index in self.order]
        looked = {pool.case: pool.looked.copy() for pool in pools}
        budget = strategy.n * (self.one.step if predictor else self.one.start)
        power = exponent(number, self.one.rounds)
        boxes: dict[int, list[Triple[slice]]] = {}
        for region in choose_regions(strategy.rule, budget, pools, strategy.edge, self.rng, power):
            boxes.setdefault(region.case, []).append(region.box)
        for index, cubes in boxes.items():
            scan = self._scan(index, values)
            before = np.zeros_like(scan.truth)
            if predictor is not None:
                label = predictor.predict(read_channels(self.cases[index].images)).label
                before = sitk.GetArrayFromImage(label).astype(scan.truth.dtype)
            if str(index) in accepted:
                old = sitk.GetArrayFromImage(sitk.ReadImage(str(self._file(index, "label"))))
                before = np.where(looked[index], old, before)
            yield index, correct_regions(scan, cubes, self.one.prices, before, looked[index])

    def _pool(
        self,
        index: int,
        strategy: Strategy,
        predictor: Predictor | None,
        accepted: dict[str, bool],
        values: list[int],
    ) -> Pool:
        scan = self._scan(index, values)
        looked = np.zeros(scan.truth.shape, dtype=bool)
        if str(index) in accepted:
            path = self._file(index, "looked")
            looked = sitk.GetArrayFromImage(sitk.ReadImage(str(path))) != 0 if path.exists() else ~looked
        spots = []
        if predictor is not None and strategy.rule not in WITHOUT_MODEL:
            found = predictor.predict(read_channels(self.cases[index].images)).hotspots
            for spot in found:
                if spot.kind == "uncertain":
                    i, j, k = np.round(scan.grid.mm_to_index(np.array([spot.position_mm]))[0]).astype(int).tolist()
                    spots.append(Spot((k, j, i), spot.score, spot.mean_uncertainty, spot.label))
        return Pool(index, scan.truth != 0, looked, spots)

    def _keep(self, index: int, corrected: Corrected) -> None:
        """Write what was accepted as files that a training reads."""
        grid = Grid.of_file(self.cases[index].images[0])
        self._file(index, "label").parent.mkdir(parents=True, exist_ok=True)
        maps = {"label": corrected.labels, "looked": corrected.looked, "uncertainty": corrected.uncertainty}
        for name, array in maps.items():
            path = self._file(index, name)
            path.unlink(missing_ok=True)
            if array is not None:
                write_image(grid.image(array.astype(np.uint8) if array.dtype == bool else array), path)

    def _file(self, index: int, name: str) -> Path:
        return self.folder / "accepted" / f"{index}_{name}.nii.gz"

    def _files(self, accepted: dict[str, bool]) -> list[CaseFiles]:
        files = []
        for index in sorted(self.order):
            case = self.cases[index]
            paths = [self._file(index, name) for name in ("label", "looked", "uncertainty")]
            label, looked, uncertainty = (path if str(index) in accepted and path.exists() else None for path in paths)
            files.append(CaseFiles(case.id, case.images, label, looked=looked, uncertainty=uncertainty))
        return files

    def _train(self, number: int, accepted: dict[str, bool]) -> tuple[dict[str, float], float]:
        """Train from nothing on what is accepted; gives each evaluated case's mean Dice of labels, and the seconds."""
        run = harness.Run(self.one.dataset, self.one.name, None, self.one.seed, self.one.method, {}, self.one.plan)
        plan, files = harness.plan_for(run, self.data), self._files(accepted)
        folder = self.folder / f"round{number}"
        done = self.shared / self._training_key(files)
        if not done.exists():
            self._train_anew(plan, files, folder, done)
        shutil.copytree(done / "model", folder / "model", dirs_exist_ok=True)
        dice, seconds = json.loads((done / "scores.json").read_text("utf-8"))
        return dice, seconds

    def _train_anew(self, plan: Plan, files: list[CaseFiles], folder: Path, done: Path) -> None:
        """Train and evaluate; the model and its scores appear in ``done`` at once."""
        folder.mkdir(parents=True, exist_ok=True)
        # Outlines of this simulation are in no shared cache: their content changes with what was accepted.
        cache = self.folder / "prepared"
        shutil.rmtree(cache, ignore_errors=True)
        result = train(plan, files, folder, device=self.device, cache=cache, progress=SILENT)
        shutil.rmtree(cache, ignore_errors=True)
        assert result.model_folder is not None  # nobody stops it
        scores = harness.evaluate(
            result.model_folder, result.plan, self.data, self.one.on, self.cache, self.device, self.one.stride,
            self.one.every,
        )  # fmt: skip
        dice = {row["case"]: float(np.nanmean([s["dice"] for s in row["mean"].values()])) for row in scores}
        done.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            made = Path(place) / done.name
            shutil.copytree(result.model_folder, made / "model")
            (made / "scores.json").write_text(json.dumps([dice, result.seconds]), encoding="utf-8")
            if not done.exists():  # another process may have trained the same meanwhile
                made.rename(done)

    def _training_key(self, files: list[CaseFiles]) -> str:
        """The same for two trainings with the same settings, seed, outlines and evaluation."""
        one = self.one
        settings = [one.dataset, one.seed, one.method, one.plan, one.on, one.stride, one.every, self.device]
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for file in files:
            for path in (file.label, file.looked, file.uncertainty):
                content = b"none" if path is None else sitk.GetArrayFromImage(sitk.ReadImage(str(path))).tobytes()
                key.update(file.id.encode() + hashlib.sha256(content).digest())
        return key.hexdigest()[:32]


def first_cases(cases: Sequence[int], features: Sequence[Sequence[float]], count: int) -> list[int]:
    """The order in which cases are outlined before there is a model; the first ``count`` by greedy k-center."""
    known = [_case(index, CaseState.NEW, place) for index, place in zip(cases, features, strict=True)]
    return [int(item.case.id) for item in rank_cases(known, 1.0, spread=count, by_scan=True)]


def _case(index: int, state: CaseState, embedding: Sequence[float], uncertainty: float | None = None) -> Case:
    """A case as ``rank_cases`` takes it."""
    place = np.asarray(embedding, np.float32) if len(embedding) else None
    by = "of this round" if uncertainty is not None else BY_SCAN
    return Case(str(index), str(index), state, False, uncertainty=uncertainty, embedding=place, model_id=by)


def read_rounds(results: Path, plan: dict[str, Any]) -> dict[str, list[list[dict[str, Any]]]]:
    """Of each strategy the rounds of each seed that has a result: ``work``, ``dice``, Dice of ``cases``."""
    found: dict[str, list[list[dict[str, Any]]]] = {row["name"]: [] for row in plan["strategies"]}
    for one in simulations_of(plan):
        if (results / one.file_name).exists():
            found[one.name].append(json.loads((results / one.file_name).read_text("utf-8"))["rounds"])
    return found


def table(results: Path, plan: dict[str, Any]) -> str:
    """Work and Dice after each round, mean over the seeds, as a table of Markdown."""
    lines = [
        "| strategy | round | cases | planes | voxels changed | minutes | Dice (mean ± sd) | seeds |",
        "|---" * 8 + "|",
    ]
    for name, found in read_rounds(results, plan).items():
        for number in range(max(map(len, found), default=0)):
            rounds = [rounds[number] for rounds in found if len(rounds) > number]
            dice = [item["dice"] for item in rounds]
            mean = {key: np.mean([item["work"][key] for item in rounds]) for key in rounds[0]["work"]}
            lines.append(
                f"| {name} | {number} | {mean['cases']:.0f} | {mean['planes']:.0f} | {mean['voxels']:.0f} "
                f"| {mean['minutes']:.1f} | {np.mean(dice):.3f} ± {np.std(dice):.3f} | {len(rounds)} |"
            )
    return "\n".join(lines)


def curve(results: Path, plan: dict[str, Any], path: Path) -> None:
    """Draw Dice against minutes, a line for each strategy, mean over the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4.2), constrained_layout=True)
    for name, found in read_rounds(results, plan).items():
        length = min(map(len, found), default=0)
        if length:
            minutes = np.mean([[item["work"]["minutes"] for item in rounds[:length]] for rounds in found], axis=0)
            dice = np.mean([[item["dice"] for item in rounds[:length]] for rounds in found], axis=0)
            axes.plot(minutes, dice, marker="o", label=name)
    axes.set_xlabel("minutes of the simulated clinician")
    axes.set_ylabel("Dice on unseen subjects")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")  # beside the lines, so that it hides none
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
