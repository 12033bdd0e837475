# SPDX-License-Identifier: Apache-2.0
"""Trains nnU-Net v2 for a budget of processor time and predicts; runs in nnU-Net's own Python, started by
``nnunet_side_by_side.py``. Prints one JSON object as its last line.

Of nnU-Net's defaults three things differ: the learning rate ``0.01 (1 - t/T)^0.9`` falls over the budget (nnU-Net: over
1,000 epochs); no validation between the epochs, which changes no weight; augmentation runs in this process
(``nnUNet_n_proc_DA=0``), so that its processor time is counted and none is spent on batches that no step uses.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class BudgetTrainer(nnUNetTrainer):
    """Takes steps until the budget is used up.

    Attributes:
        seconds: Budget of processor time, all threads of this process together.
        half: Compute in bfloat16, which nnU-Net itself does not on a CPU.
    """

    seconds: float = 600.0
    half: bool = False

    def train_for_budget(self) -> tuple[int, float]:
        """Steps taken and processor seconds used."""
        self.on_train_start()
        self.network.train()
        began, steps, pace = time.process_time(), 0, 0.0
        while (spent := time.process_time() - began) + 0.5 * pace < self.seconds:
            for group in self.optimizer.param_groups:
                group["lr"] = self.initial_lr * (1 - spent / self.seconds) ** 0.9
            with torch.autocast("cpu", torch.bfloat16) if self.half else nullcontext():
                loss = self.train_step(next(self.dataloader_train))["loss"]
            steps += 1
            pace = (time.process_time() - began) / steps
            if steps % 10 == 1:
                print(f"step {steps}, {spent:.0f} s, loss {float(loss):.3f}", flush=True)
        return steps, time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--images", type=Path, required=True, help="folder of scans to predict, CASE_0000.nii.gz")
    parser.add_argument("--predictions", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--half", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    folder = Path(os.environ["nnUNet_preprocessed"]) / options.dataset  # noqa: SIM112 (nnU-Net names it so)
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["continue_training"] = False
    dataset = json.loads((folder / "dataset.json").read_text())
    trainer = BudgetTrainer(plans, "3d_fullres", "all", dataset, torch.device("cpu"))
    trainer.seconds, trainer.half = options.seconds, options.half
    steps, seconds = trainer.train_for_budget()

    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)  # mirrored, steps of half a patch
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    options.predictions.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    predictor.predict_from_files_sequential(str(options.images), str(options.predictions))
    facts = {
        "steps": steps,
        "train_s": seconds,
        "predict_s": time.process_time() - began,
        "patch": [int(edge) for edge in trainer.configuration_manager.patch_size],
        "batch": trainer.batch_size,
        "weights": sum(p.numel() for p in trainer.network.parameters()),
        "torch": torch.__version__,
    }
    print("\n" + json.dumps(facts))


if __name__ == "__main__":
    main()
