# SPDX-License-Identifier: Apache-2.0
"""Peak memory of predicting a 512 x 512 x 600 scan on the CPU: the whole process, torch and the scan included.

A process of its own reads the scan from disk, predicts it and says how much it ever held. A scan of this size has more
than a thousand windows, so the network computes only now and then and a 1x1x1 convolution answers for the other
windows: the memory a window takes does not depend on how many there are. Measured with the scan's own spacing as the
model's, and with a model that makes it resample.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

SHAPE = (600, 512, 512)
SPACING = (0.8, 0.8, 1.0)
LIMIT_GIB = 3.0
CASES = {
    "same_spacing": SPACING,
    "resampled": (1.0, 1.0, 1.25),
    "resampled_finer": (0.8, 0.8, 0.8),
}


def write_scan(path: Path, shape: tuple[int, int, int]) -> None:
    """A simulated CT, int16: air, a body of soft tissue, noise."""
    import SimpleITK as sitk

    rng = np.random.default_rng(0)
    j, i = np.indices(shape[1:])
    body = ((j / shape[1] - 0.5) / 0.3) ** 2 + ((i / shape[2] - 0.5) / 0.4) ** 2 < 1
    scan = np.empty(shape, np.int16)
    for plane in scan:
        plane[:] = np.where(body, 40, -1000) + rng.integers(-20, 20, shape[1:])
    image = sitk.GetImageFromArray(scan)
    image.SetSpacing(SPACING)
    sitk.WriteImage(image, str(path))


def predict(path: Path, spacing: list[float], patch: list[int], labels: int, every: int) -> dict:
    """Predict the scan at ``path`` and report; runs in the process that is measured."""
    import torch
    from barl.images.intensity import Normalization
    from barl.images.reading import read_image
    from barl.inference.device import choose_device
    from barl.inference.predictor import Predictor
    from barl.networks.branches import NetworkSpec, build_network
    from barl.progress import Event, Progress
    from barl.project.labels import Label
    from barl.project.model_card import ModelCard

    class NowAndThen(torch.nn.Module):
        """The real network for every n-th window, a pointwise convolution for the others."""

        def __init__(self, spec: NetworkSpec) -> None:
            super().__init__()
            self.network, self.quick = build_network(spec, seed=0), torch.nn.Conv3d(1, spec.n_classes, 1)
            self.spec, self.n_branches, self.calls = spec, spec.n_branches, 0
            self.describe = self.network.describe

        def forward(self, x: torch.Tensor, branch: int = 0) -> torch.Tensor:
            self.calls += 1
            return self.network(x, branch) if self.calls % every == 1 else self.quick(x)

    spec = NetworkSpec(in_channels=1, n_classes=labels + 1)
    card = ModelCard(
        id="memory",
        name="Memory",
        created="2026-01-01T00:00:00+00:00",
        labels=[Label(value, str(value)) for value in range(1, labels + 1)],
        channels=["CT"],
        spacing=tuple(spacing),
        normalisations=[Normalization("ct_window", -100.0, 200.0, 40.0, 60.0)],
        patch=tuple(patch),
        network=spec.to_json(),
        method="supervised",
    )
    predictor = Predictor(card, NowAndThen(spec), choose_device("cpu"))
    imported = peak_gib()
    scan = read_image(path)
    read = peak_gib()
    peaks = {}
    start = perf_counter()

    def note(event: Event) -> None:
        peaks[event["stage"]] = peak_gib()

    prediction = predictor.predict([scan], progress=Progress(note))
    return {
        "size": list(scan.GetSize()),
        "patch": patch,
        "widths": list(spec.widths),
        "labels": labels,
        "peak_gib": peak_gib(),
        "after_import_gib": imported,
        "after_reading_gib": read,
        **{f"until_{stage}_gib": peak for stage, peak in peaks.items()},
        "network_calls": predictor.network.calls,
        "real_network_calls": -(-predictor.network.calls // every),
        "seconds": round(perf_counter() - start, 1),
        "hotspots": len(prediction.hotspots),
    }


def peak_gib() -> float:
    """The most memory that this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts the parent's memory as well, from before the program was started
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(line.split()[1]) / 2**20, 3)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (30 if sys.platform == "darwin" else 20), 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory-shape", type=int, nargs=3, default=SHAPE, metavar=("K", "J", "I"))
    parser.add_argument("--memory-patch", type=int, nargs=3, default=[96, 96, 96], metavar=("K", "J", "I"))
    parser.add_argument("--memory-labels", type=int, default=2)
    parser.add_argument("--memory-every", type=int, default=500, help="compute every n-th network call for real")
    parser.add_argument("--memory-scan", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory-case", choices=CASES, help="only this one")
    options, _ = parser.parse_known_args()
    if options.memory_scan:
        spacing = list(CASES[options.memory_case])
        print(
            json.dumps(
                predict(options.memory_scan, spacing, options.memory_patch, options.memory_labels, options.memory_every)
            )
        )
        return 0
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.nrrd"
        write_scan(path, tuple(options.memory_shape))
        for name in [options.memory_case] if options.memory_case else CASES:
            print(
                f"{name}: predicting {' x '.join(map(str, options.memory_shape[::-1]))} voxels",
                file=sys.stderr,
                flush=True,
            )
            arguments = ["--memory-scan", str(path), "--memory-case", name, *sys.argv[1:]]
            child = subprocess.run(
                [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True
            )
            results[name] = json.loads(child.stdout.splitlines()[-1])
    worst = max(result["peak_gib"] for result in results.values())
    print(json.dumps({**results, "worst_peak_gib": worst, "limit_gib": LIMIT_GIB, "kept": worst <= LIMIT_GIB}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
