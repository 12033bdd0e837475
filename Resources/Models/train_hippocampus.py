# SPDX-License-Identifier: Apache-2.0
"""Trains the demonstration model (BARL_DATA=FOLDER python Resources/Models/train_hippocampus.py RUN_FOLDER).

Run again with the same folder after a crash or Ctrl-C, it goes on from its last checkpoint. It learns from the
``training`` subjects of ``barl.benchmark.datasets``, all outlined; the ``tuning`` subjects are held out for the
temperature and the scores in the card; the ``test`` subjects, on which benchmarks report, are never read.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

import torch
from barl.benchmark import datasets
from barl.images.fingerprint import fingerprint_case
from barl.images.reading import read_channels
from barl.models.disk import load_model, save_model
from barl.progress import Progress
from barl.training.cases import CaseFiles
from barl.training.loop import train
from barl.training.plan import make_plan

TARGET = Path(__file__).resolve().parents[2] / "BARLSegmentation" / "Resources" / "Models" / "hippocampus"
ITERATIONS = 760
LICENSE = "CC BY-SA 4.0"
NOTES = (
    "Demonstration model, not for clinical use. Segments the anterior (head) and posterior (body and tail) hippocampus "
    "in T1-weighted MRI already cropped to one hippocampus, about 35 x 50 x 36 mm, as in its data; on whole-head scans "
    "draw a region of interest. Data: Medical Segmentation Decathlon, Task04 Hippocampus (Vanderbilt University "
    "Medical Center), CC BY-SA 4.0; changed: used to fit the weights of a network. Cite: A. L. Simpson et al., A large "
    "annotated medical image dataset for the development and evaluation of segmentation algorithms, arXiv:1902.09063 "
    "(2019); M. Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13:4128 (2022)."
)

README = """# Hippocampus, demonstration model

Anterior (value 1, head) and posterior (value 2, body and tail) hippocampus in T1-weighted MRI **cropped to one
hippocampus**, about 35 x 50 x 36 mm. Not for clinical use.

* Learned from {learned} outlined scans, {iterations} iterations of BARL (a reconstruction, see the main README), stored
  in half precision.
* On {held_out} scans of other subjects, mean Dice {mean:.3f} ({each}).
  The calibration temperature was fitted on these. The subjects that the benchmark tests on were not read.
* Made by `Resources/Models/train_hippocampus.py` of the repository.

License: CC BY-SA 4.0, as that of its data: Medical Segmentation Decathlon, Task04 Hippocampus, Vanderbilt University
Medical Center; changed: used to fit the weights of a network. Please cite:

* A. L. Simpson et al., A large annotated medical image dataset for the development and evaluation of segmentation
  algorithms, arXiv:1902.09063 (2019).
* M. Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13:4128 (2022).
"""


def main(folder: Path) -> None:
    dataset = datasets.load("hippocampus")
    values = [label.value for label in dataset.labels]
    learned, held_out = dataset.part("training"), dataset.part("tuning")
    fingerprints = [fingerprint_case(read_channels(case.images), None, values) for case in learned]
    # No scan is untouched here, so the outlined ones may fill the batch.
    overrides = {"iterations": ITERATIONS, "batch_labelled": 2, "validations": 3, "seed": 2026, "loader_workers": 0}
    plan = make_plan(fingerprints, dataset.labels, dataset.channels, overrides=overrides)
    print(plan.in_words(), flush=True)
    cases = [CaseFiles(case.id, case.images, case.label, case in held_out) for case in learned + held_out]
    last = time.monotonic()

    def tell(event: dict) -> None:
        nonlocal last
        values = event.get("values", {})
        if time.monotonic() - last > 30 or any(name.startswith("dice") for name in values):
            last = time.monotonic()
            print(event.get("stage"), f"{event.get('fraction', 0):.1%}", values, event.get("message", ""), flush=True)

    result = train(plan, cases, folder, resume=(folder / "checkpoint.safetensors").exists(), progress=Progress(tell))
    card, network = load_model(result.model_folder)
    card = dataclasses.replace(card, id="hippocampus", name="Hippocampus (demonstration)", licence=LICENSE, notes=NOTES)
    # Half the size; the rounding changes no more than a voxel here and there.
    save_model(TARGET, card, network.state_dict(), dtype=torch.float16)
    scores = result.metrics["dice"]
    text = README.format(
        learned=len(learned),
        held_out=len(held_out),
        iterations=result.iterations,
        mean=result.metrics["mean_dice"],
        each=", ".join(f"{label.name.lower()} {scores[str(label.value)]:.3f}" for label in dataset.labels),
    )
    (TARGET / "README.md").write_text(text, encoding="utf-8")
    print(text, f"{result.seconds:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
