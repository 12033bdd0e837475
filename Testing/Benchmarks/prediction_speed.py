# SPDX-License-Identifier: Apache-2.0
"""Prediction against the bare network calls it needs, and against MONAI's sliding window.

Three arms in turn, several rounds, in one process, same network, windows and precision:

* ``bare``: the network calls alone (windows, and the one that describes the scan), on arrays already in memory;
* ``ours``: the whole prediction, from the scan to labels, uncertainty, hot-spots and volumes on its own grid;
* ``monai``: ``sliding_window_inference`` (Gaussian), which gives averaged logits, against ``predict_array``.

Ratios are medians over the rounds, of wall time and of processor time; the latter is the one to believe on a machine
that others use as well. The large scan is predicted the fast way (one branch, a quarter overlap): the fewest network
calls per voxel, so the most that everything else can weigh. The network is untrained and unsure everywhere: the most
work that hot-spots can make.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from time import perf_counter, process_time

import numpy as np
import SimpleITK as sitk
import torch
from barl.images.intensity import Normalization
from barl.inference.device import autocast, autocast_dtype, choose_device
from barl.inference.predictor import Predictor
from barl.inference.sliding_window import count_windows, predict_array
from barl.networks.branches import NetworkSpec, build_network
from barl.project.labels import Label
from barl.project.model_card import ModelCard
from monai.inferers import sliding_window_inference

CPU = choose_device("cpu")


def make_card(spec: NetworkSpec, patch: tuple[int, int, int]) -> ModelCard:
    return ModelCard(
        id="speed",
        name="Speed",
        created="2026-01-01T00:00:00+00:00",
        labels=[Label(1, "one"), Label(2, "two")],
        channels=["T1"],
        spacing=(1.0, 1.0, 1.0),
        normalisations=[Normalization("zscore")],
        patch=patch,
        network=spec.to_json(),
        method="supervised",
    )


def timed(arms: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each arm by round; the order is turned from round to round, so that none always comes first."""
    seconds = {name: {"wall": [], "cpu": []} for name in arms}
    names = list(arms)
    for n in range(rounds):
        for name in names[n % len(names) :] + names[: n % len(names)]:
            wall, cpu = perf_counter(), process_time()
            arms[name]()
            seconds[name]["wall"].append(perf_counter() - wall)
            seconds[name]["cpu"].append(process_time() - cpu)
            print(f"round {n + 1}, {name}: {seconds[name]['wall'][-1]:.1f} s", file=sys.stderr, flush=True)
    return seconds


def ratio(seconds: dict, over: str, under: str) -> dict[str, float]:
    """Median over the rounds of ``over / under``."""
    return {
        clock: round(
            statistics.median(a / b for a, b in zip(seconds[over][clock], seconds[under][clock], strict=True)), 3
        )
        for clock in ("wall", "cpu")
    }


def bare_calls(network: torch.nn.Module, patch: tuple[int, int, int], calls: int, branches: int) -> Callable[[], None]:
    """``calls`` windows through ``branches`` branches, and one description of half a patch."""
    x, small = torch.randn(1, 1, *patch), torch.randn(1, 1, *(round(n / 2 / 8) * 8 for n in patch))

    @torch.inference_mode()
    def run() -> None:
        with autocast(CPU, autocast_dtype(CPU)):
            for _ in range(calls):
                for branch in range(branches):
                    network(x, branch)
            network.describe(small)

    return run


def against_bare(
    shape: tuple[int, int, int], patch: tuple[int, int, int], fast: bool, repeat: int, rounds: int
) -> dict:
    spec = NetworkSpec(in_channels=1, n_classes=3)
    network = build_network(spec, seed=0).eval()
    predictor = Predictor(make_card(spec, patch), network, fast=fast)
    scan = sitk.GetImageFromArray(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    calls = count_windows(shape, patch, predictor.overlap)
    bare = bare_calls(network, patch, calls, len(predictor.branches))
    arms = {"bare": bare, "ours": lambda: predictor.predict([scan])}
    seconds = timed({name: lambda arm=arm: [arm() for _ in range(repeat)] for name, arm in arms.items()}, rounds)
    return {
        "size": list(shape[::-1]),
        "patch": list(patch),
        "windows": calls,
        "branches": len(predictor.branches),
        "seconds": {name: round(statistics.median(arm["wall"]) / repeat, 3) for name, arm in seconds.items()},
        "ours_over_bare": ratio(seconds, "ours", "bare"),
    }


def against_monai(shape: tuple[int, int, int], patch: tuple[int, int, int], overlap: float, rounds: int) -> dict:
    network = build_network(NetworkSpec(in_channels=1, n_classes=3), seed=0).eval()
    volume = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    dtype = autocast_dtype(CPU)
    labels = {}

    def ours() -> None:
        p = predict_array(network, volume, patch, overlap=overlap, amp_dtype=dtype, branches=(0,))
        labels["ours"] = torch.from_numpy(p[0]).argmax(dim=0)

    @torch.inference_mode()
    def monai() -> None:
        with autocast(CPU, dtype):
            logits = sliding_window_inference(
                torch.from_numpy(volume)[None], patch, 1, network, overlap=overlap, mode="gaussian", branch=0
            )
        labels["monai"] = logits.softmax(dim=1)[0].argmax(dim=0)

    seconds = timed({"ours": ours, "monai": monai}, rounds)
    return {
        "size": list(shape[::-1]),
        "patch": list(patch),
        "windows": count_windows(shape, patch, overlap),
        "seconds": {name: round(statistics.median(arm["wall"]), 3) for name, arm in seconds.items()},
        "ours_over_monai": ratio(seconds, "ours", "monai"),
        "same_label": round(float((labels["ours"] == labels["monai"]).float().mean()), 6),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speed-shape", type=int, nargs=3, default=(180, 256, 256), metavar=("K", "J", "I"))
    parser.add_argument("--speed-patch", type=int, nargs=3, default=(96, 96, 96), metavar=("K", "J", "I"))
    parser.add_argument("--speed-rounds", type=int, default=3)
    options, _ = parser.parse_known_args()
    shape, patch, rounds = tuple(options.speed_shape), tuple(options.speed_patch), options.speed_rounds
    network = build_network(NetworkSpec(in_channels=1, n_classes=3), seed=0).eval()
    bare_calls(network, patch, 2, 2)()  # the first calls choose kernels and fill caches
    result = {
        "threads": torch.get_num_threads(),
        "precision": str(autocast_dtype(CPU) or torch.float32).removeprefix("torch."),
        "widths": list(NetworkSpec(1, 3).widths),
        "rounds": rounds,
        "large_fast": against_bare(shape, patch, True, 1, rounds),
        "small": against_bare((36, 50, 35), (40, 56, 40), False, 10, rounds + 2),
        "monai": against_monai(shape, patch, 0.25, rounds),
    }
    ratios = [result[name]["ours_over_bare"]["cpu"] for name in ("large_fast", "small")]
    result["kept"] = {
        "prediction_at_most_1.10_of_bare": max(ratios) <= 1.10,
        "faster_than_monai": result["monai"]["ours_over_monai"]["cpu"] < 1,
        "same_label_at_least_0.999": result["monai"]["same_label"] >= 0.999,
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
