# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks of speed and memory beside this file and puts their figures together (`make bench`).

A benchmark is a script that prints one JSON object as its last line on standard output; whatever it writes before or to
standard error is progress. Each runs in a process of its own, one after the other, so that none disturbs the next.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
# Those that need neither arguments nor data; the others are studies, some of them of hours, and are run by name.
SPEED_AND_MEMORY = (
    "case_list",
    "method_steps",
    "module_response",
    "prediction_memory",
    "prediction_speed",
    "project_speed",
    "review_stall",
    "training_rate",
    "worker_overhead",
)
LIBRARIES = ("torch", "monai", "SimpleITK", "numpy", "scipy")


def machine() -> dict[str, object]:
    """What the figures depend on; no name of the computer or its user."""
    import psutil
    import torch

    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=True),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "torch_threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "gpus": gpus,
        "versions": versions,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def run(script: Path, arguments: list[str]) -> dict[str, object]:
    """The object that one benchmark printed, or {"error": ...}."""
    environment = dict(os.environ)
    paths = [str(REPOSITORY / "BARLSegmentation"), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )
    last = ""
    for line in process.stdout:
        if last:
            print(f"  {last}", flush=True)
        last = line.strip() or last
    code = process.wait()
    try:
        result = json.loads(last)
    except ValueError:
        result = None
    if code or not isinstance(result, dict):
        return {"error": f"exit code {code}, last line: {last[:200]!r}"}
    return result


def flat(value: object, name: str = "") -> list[tuple[str, object]]:
    """Rows "a.b.c", figure of a nested object."""
    if isinstance(value, dict):
        return [row for key, item in value.items() for row in flat(item, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return [row for index, item in enumerate(value) for row in flat(item, f"{name}[{index}]")]
    return [(name, value)]


def show(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> int:
    names = sorted(path.stem for path in HERE.glob("*.py") if path.name != "run.py" and path.name[0] != "_")
    parser = argparse.ArgumentParser(description="Measure speed and memory of the engine.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(names) or 'none here'}")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmark-output", help="folder for benchmark.json")
    options, further = parser.parse_known_args()  # what is not known here goes to the benchmarks
    unknown = [name for name in options.names if name not in names]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)} (there are: {', '.join(names)})")

    report: dict[str, dict] = {"machine": machine(), "results": {}}
    chosen = options.names or SPEED_AND_MEMORY
    for number, name in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {name}", flush=True)
        report["results"][name] = run(HERE / f"{name}.py", further)
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / "benchmark.json"
    target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    print()
    facts = report["machine"]
    libraries = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    print(f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['torch_threads']} torch threads")
    print(f"{', '.join(facts['gpus']) or 'no GPU'}; {libraries}; load before: {facts['load_before']}")
    rows = [(name, key, show(figure)) for name, result in report["results"].items() for key, figure in flat(result)]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for name, key, figure in rows:
        print(f"{name:<{widths[0]}}  {key:<{widths[1]}}  {figure}")
    print(f"\nWritten to {target}")
    return int(any("error" in result for result in report["results"].values()))


if __name__ == "__main__":
    sys.exit(main())
