# SPDX-License-Identifier: Apache-2.0
"""Runs the fuzzers: ``python Testing/Fuzz/loop.py --tries 2000 --seed 0`` prints one JSON object.

Every kind runs in a process of its own, so that a crash or an endless loop is seen; a try has a seed that repeats it.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "Python"), str(HERE.parents[1] / "BARLSegmentation")]

# Share of the tries of each kind.
SHARES = {
    "NIfTI": 5,
    "NRRD": 5,
    "MetaImage": 4,
    "DICOM": 5,
    "model.json": 1,
    "weights": 1,
    "project.db": 2,
    "plan.json": 1,
    "worker lines": 1,
}
_SECONDS = 30  # for one try; more is a hang


def kinds(name: str):
    """The damaging and the checking function of a kind."""
    if name == "DICOM":
        import dicom_series

        return dicom_series.series, dicom_series.check
    if name in ("NIfTI", "NRRD", "MetaImage"):
        import volumes

        return volumes.KINDS[name]
    import documents

    return documents.KINDS[name]


def run_kind(name: str, tries: int, seed: int, kept: Path | None) -> dict:
    """Try one kind; what goes wrong is listed with its seed."""
    from barl.errors import BarlError

    make, check = kinds(name)
    result: dict = {"tries": tries, "taken": 0, "refused": 0, "unforeseen": [], "wrong": []}
    with tempfile.TemporaryDirectory(prefix="barl-fuzz-") as temporary:
        for number in range(tries):
            rng = random.Random(f"{name} {seed} {number}")
            print(f"{name} {number}", file=sys.stderr, flush=True)
            folder = Path(temporary) / "try"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            signal.alarm(_SECONDS)
            path = make(folder, rng)
            try:
                check(path)
                result["taken"] += 1
                continue
            except BarlError as error:
                problem = _problem(error)
                if not problem:
                    result["refused"] += 1
                    continue
                result["wrong"].append([number, problem])
            except AssertionError as error:
                result["wrong"].append([number, str(error)[:400]])
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                text = f"{type(error).__name__}: {str(error)[:150]} ({Path(where.filename).name}:{where.lineno})"
                result["unforeseen"].append([number, text])
            if kept is not None:
                shutil.copytree(folder, kept / f"{name.replace(' ', '_')}_{number}", dirs_exist_ok=True)
        signal.alarm(0)
    return result


def _problem(error: Exception) -> str:
    """What is wrong with a refusal: more than a line, no remedy, or control characters."""
    text = str(error)
    if not getattr(error, "remedy", "") or len(text) > 900 or any(ord(c) < 32 or ord(c) == 127 for c in text):
        return f"a refusal that nobody can read: {text[:200]!r}"
    return ""


def run(tries: int, seed: int, kept: Path | None = None) -> dict:
    """All kinds, one after the other: kind -> counts and findings."""
    total = sum(SHARES.values())
    results = {}
    for name, share in SHARES.items():
        count = max(1, tries * share // total)
        command = [sys.executable, str(HERE / "loop.py"), "--kind", name, "--tries", str(count), "--seed", str(seed)]
        command += ["--kept", str(kept)] if kept else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout:
            results[name] = json.loads(done.stdout)
        else:
            last = [line for line in done.stderr.splitlines() if line.startswith(name)][-1:]
            what = "hang" if done.returncode == -signal.SIGALRM else f"crash ({done.returncode})"
            results[name] = {"tries": count, "unforeseen": [[last, f"{what}: {done.stderr[-1500:]}"]], "wrong": []}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=SHARES, help="only this one, in this process")
    parser.add_argument("--kept", type=Path, help="a folder for the files that something is wrong with")
    options = parser.parse_args()
    if options.kind:
        faulthandler.enable()
        print(json.dumps(run_kind(options.kind, options.tries, options.seed, options.kept)))
    else:
        print(json.dumps(run(options.tries, options.seed, options.kept), indent=1))


if __name__ == "__main__":
    main()
